//! What a node does for its application: look-ups, messages, the dictionary.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{LookupEnd, Node, NodeError, Stored, Written, check_id, wrap};
use crate::driver::Waiter;
use crate::id::Id;
use crate::message::dictionary::Answer;
use crate::message::{DESTINATIONS_MAX, Found, RouteError};
use crate::peer::Command;
use crate::time::Time;

impl Node {
    /// Finds the node that is responsible of a key.
    ///
    /// # Errors
    /// [`NodeError::NotOnRing`]; [`NodeError::Route`] with the reason; [`NodeError::HasStopped`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// let found = second.lookup(Id(42)).await?;
    /// println!("{} answers for 42, found in {} hops", found.responsible.id, found.hops);
    /// assert_eq!(first.is_responsible_of(Id(42)), found.responsible == first.contact());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub async fn lookup(&self, key: Id) -> Result<Found, NodeError> {
        self.check(key)?;
        let (sender, receiver) = oneshot::channel();
        self.running.shared.lookup(key, None, Waiter::Once(sender));
        let end = receiver.await.map_err(|_| NodeError::HasStopped)?;
        self.unless_stopped(end.result)
    }

    /// Starts many look-ups at once: (the caller's number, the key, when it was meant to start on the host's monotonic
    /// clock). The latency that the metrics show counts from there. Each ends in one [`LookupEnd`] on `ends`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// let (sender, mut ends) = tokio::sync::mpsc::unbounded_channel();
    /// let now = p2ps::driver::clock::now();
    /// second.lookups((0..10).map(|number| (number, Id(number * 1000), now)), &sender);
    /// for _ in 0..10 {
    ///     let end = ends.recv().await.expect("each look-up ends");
    ///     println!("look-up {} took {:?}: {:?}", end.operation, end.ended.since(end.issued), end.result?.responsible);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn lookups(
        &self,
        lookups: impl Iterator<Item = (u64, Id, Time)>,
        ends: &mpsc::UnboundedSender<LookupEnd>,
    ) {
        let ring = self.net().ring();
        self.running.shared.lookups(lookups.map(|(number, key, at)| (number, wrap(ring, key), at)), ends);
    }

    /// Sends to the node with that id, best effort. A failure that is noticed is told as [`Event::Undelivered`](super::Event::Undelivered).
    ///
    /// # Errors
    /// [`NodeError::NotOnRing`]; [`NodeError::Route`] for a payload that is too large; [`NodeError::HasStopped`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// second.send(first.id(), "hello")?;
    /// let message = messages.next().await.expect("the node runs");
    /// assert_eq!((message.source, message.destination), (second.id(), first.id()));
    /// assert_eq!(message.payload, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn send(&self, destination: Id, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.check(destination)?;
        self.order(payload.into(), |payload| Command::Send { destination, exact: true, payload })
    }

    /// Sends to the node that is responsible of a key (P2PS 1.0's `toResp`); otherwise as [`Node::send`].
    ///
    /// # Errors
    /// As [`Node::send`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// let key = first.id(); // a key like any other
    /// second.send_to_responsible(key, "for whoever answers for it")?;
    /// let message = messages.next().await.expect("the node runs");
    /// assert_eq!((message.source, message.destination), (second.id(), key));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn send_to_responsible(&self, key: Id, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.check(key)?;
        self.order(payload.into(), |payload| Command::Send { destination: key, exact: false, payload })
    }

    /// Sends to this node itself (P2PS 1.0's `toMyself`): the message comes as those of others do, behind those that wait already.
    ///
    /// # Errors
    /// As [`Node::send`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// first.send_to_myself("remember")?;
    /// assert_eq!(messages.next().await.expect("the node runs").source, first.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn send_to_myself(&self, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.send(self.id(), payload)
    }

    /// Sends to the node with that id, again and again until it has the message (P2PS 1.0's `rsend`): it is delivered once, after
    /// those that this node sent to it before, or has failed. A node that restarts with the same id may get it again.
    ///
    /// # Errors
    /// [`NodeError::NotOnRing`]; [`NodeError::Route`] with the reason, at the latest after
    /// [`RELIABLE_TIMEOUT`](crate::services::reliable::RELIABLE_TIMEOUT); [`NodeError::HasStopped`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// use p2ps::message::RouteError;
    /// use p2ps::node::NodeError;
    ///
    /// second.send_reliably(first.id(), "this arrives").await?;
    /// assert_eq!(messages.next().await.expect("the node runs").payload, "this arrives");
    ///
    /// let nobody = Id(first.id().0 ^ 1);
    /// let failed = second.send_reliably(nobody, "this does not").await;
    /// assert!(matches!(failed, Err(NodeError::Route(RouteError::NoSuchNode))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub async fn send_reliably(&self, destination: Id, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.check(destination)?;
        let ended = self.running.shared.send_reliably(destination, payload.into());
        Ok(ended.await.map_err(|_| NodeError::HasStopped)??)
    }

    /// Sends to every other member, best effort: on a stable ring in as many messages as there are other members, over paths no
    /// longer than a look-up's. A part of the ring that is noticed not to be reached is told as [`Event::Undelivered`](super::Event::Undelivered).
    ///
    /// # Errors
    /// [`NodeError::Route`] for a payload that is too large; [`NodeError::HasStopped`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// second.broadcast("to all")?;
    /// assert_eq!(messages.next().await.expect("the node runs").payload, "to all");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn broadcast(&self, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.order(payload.into(), |payload| Command::Broadcast { payload })
    }

    /// Sends to the nodes with these ids, to each once, best effort as [`Node::send`]: shared paths are walked once.
    ///
    /// # Errors
    /// As [`Node::send`]; [`RouteError::TooManyDestinations`] beyond
    /// [`DESTINATIONS_MAX`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// second.multicast(&[first.id(), second.id()], "to us two")?;
    /// assert_eq!(messages.next().await.expect("the node runs").payload, "to us two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn multicast(&self, destinations: &[Id], payload: impl Into<Bytes>) -> Result<(), NodeError> {
        destinations.iter().try_for_each(|destination| self.check(*destination))?;
        if destinations.len() > DESTINATIONS_MAX {
            return Err(RouteError::TooManyDestinations.into());
        }
        let destinations = destinations.to_vec();
        self.order(payload.into(), |payload| Command::Multicast { destinations, payload })
    }

    /// Sends to the `count` nearest successors (P2PS 1.0's `sendToSucc`), best effort; to all other members where they are fewer.
    ///
    /// # Errors
    /// [`NodeError::TooManySuccessors`] for more than the network's successor lists have; [`NodeError::Route`] for a payload
    /// that is too large; [`NodeError::HasStopped`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// second.send_to_successors(1, "to the next one")?;
    /// assert_eq!(messages.next().await.expect("the node runs").payload, "to the next one");
    /// let length = second.net().successors();
    /// assert!(second.send_to_successors(length + 1, "to more than there can be").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn send_to_successors(&self, count: usize, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        let length = self.net().successors();
        if count > length {
            return Err(NodeError::TooManySuccessors { count, length });
        }
        self.order(payload.into(), |payload| Command::SendToSuccessors { count, payload })
    }

    /// Gives a key a value, in as many places as the network's replication says; the value that it had is replaced. All its copies
    /// are in their places then. Of several writes at once, one is the last for everybody ([`Version`](super::Version)).
    ///
    /// # Errors
    /// [`NodeError::NotOnRing`]; [`NodeError::Dictionary`] with the reason, at the latest after
    /// [`OPERATION_TIMEOUT`](crate::services::dictionary::OPERATION_TIMEOUT): the value may have been written all the same;
    /// [`NodeError::HasStopped`].
    ///
    /// # Examples
    /// ```
    /// # use p2ps::config::NetConfig;
    /// # use p2ps::node::{Node, NodeConfig};
    /// # use p2ps::id::Id;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let (first, ..) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    ///
    /// let written = first.insert(Id(42), "forty-two").await?;
    /// let stored = second.get(Id(42)).await?.expect("it was inserted");
    /// assert_eq!((&stored.value[..], stored.version), (&b"forty-two"[..], written.version));
    ///
    /// first.leave().await?;
    /// assert!(second.get(Id(42)).await?.is_some(), "the node that left has handed it over");
    /// second.remove(Id(42)).await?;
    /// assert_eq!(second.get(Id(42)).await?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub async fn insert(&self, key: Id, value: impl Into<Bytes>) -> Result<Written, NodeError> {
        let value = value.into();
        self.write(key, |operation| Command::Insert { operation, key, value }).await
    }

    /// The value of a key, if it has one (P2PS's look-up of a value). The module
    /// [`services::dictionary`](crate::services::dictionary) says what is promised.
    ///
    /// # Errors
    /// As [`Node::insert`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// assert_eq!(second.get(Id(42)).await?, None);
    /// first.insert(Id(42), "forty-two").await?;
    /// assert_eq!(second.get(Id(42)).await?.expect("it was inserted").value, "forty-two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub async fn get(&self, key: Id) -> Result<Option<Stored>, NodeError> {
        match self.ask_dictionary(key, |operation| Command::Get { operation, key }).await? {
            Answer::Value(value) => Ok(value),
            Answer::Written(_) => unreachable!("a peer answers a read by a value"),
        }
    }

    /// Removes a key and its value, whether it has one or not.
    ///
    /// # Errors
    /// As [`Node::insert`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// let written = first.insert(Id(42), "forty-two").await?;
    /// let removed = second.remove(Id(42)).await?;
    /// assert!(removed.version > written.version, "the later write is the one that counts");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub async fn remove(&self, key: Id) -> Result<Written, NodeError> {
        self.write(key, |operation| Command::Remove { operation, key }).await
    }

    fn order(&self, payload: Bytes, order: impl FnOnce(Bytes) -> Command) -> Result<(), NodeError> {
        self.unless_stopped(self.running.shared.send(payload.len(), order(payload)))
    }

    /// A node that has stopped is no member for that reason.
    fn unless_stopped<T>(&self, result: Result<T, RouteError>) -> Result<T, NodeError> {
        match result {
            Err(RouteError::NotMember) if self.running.shared.lock().is_stopped() => {
                Err(NodeError::HasStopped)
            }
            result => Ok(result?),
        }
    }

    async fn write(&self, key: Id, order: impl FnOnce(u64) -> Command) -> Result<Written, NodeError> {
        match self.ask_dictionary(key, order).await? {
            Answer::Written(written) => Ok(written),
            Answer::Value(_) => unreachable!("a peer answers a write by a version"),
        }
    }

    async fn ask_dictionary(&self, key: Id, order: impl FnOnce(u64) -> Command) -> Result<Answer, NodeError> {
        self.check(key)?;
        let answered = self.running.shared.ask_dictionary(order);
        Ok(answered.await.map_err(|_| NodeError::HasStopped)??)
    }

    fn check(&self, id: Id) -> Result<(), NodeError> {
        check_id(id, self.net().ring())
    }
}
