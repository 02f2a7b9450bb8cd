//! The user's API: create a network, join one, send, look up, and keep values under keys.

mod error;
mod streams;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, oneshot};

use crate::access_point::AccessPoint;
use crate::com::key::NetworkKey;
use crate::com::shaping::ShapeRules;
use crate::config::NetConfig;
use crate::core::Statistics;
use crate::driver::{self, JoinFailure, Shared, Spawner, Started, Waiter, clock};
use crate::id::{Id, Ring};
use crate::message::dictionary::Answer;
use crate::message::{Contact, DESTINATIONS_MAX, Found, RouteError};
use crate::metrics::Snapshot;
use crate::peer::{Command, Input, JoinError, Peer};
use crate::time::Time;

pub use error::{ConfigProblem, NodeError};
pub use streams::{Events, Messages};

pub use crate::com::runtime::Runtime;
pub use crate::driver::{LookupEnd, NodeEvent};
pub use crate::message::dictionary::{DictionaryError, Stored, Version, Written};
pub use crate::peer::{Delivery as Message, Event};

/// The most access points that a node may be given to join by.
pub const ACCESS_POINTS_MAX: usize = 64;

/// How many ids a joining node draws before it gives up, where it lets the system choose.
pub const ID_DRAWS_MAX: usize = 16;

/// How long a node that has left waits for its last words to be read.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// A node of a network. Clones are handles of the same node; when the last one is dropped, the node stops at once, without
/// leaving: for the others it has crashed.
///
/// # Examples
/// ```
/// use p2ps::config::NetConfig;
/// use p2ps::node::{Node, NodeConfig};
/// use p2ps::id::Id;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
/// let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
///
/// let found = second.lookup(first.id()).await?;
/// assert_eq!(found.responsible.id, first.id());
///
/// second.send(first.id(), "hello")?;
/// let message = messages.next().await.expect("the node runs");
/// assert_eq!((message.source, &message.payload[..]), (second.id(), &b"hello"[..]));
///
/// second.leave().await?;
/// assert!(first.is_responsible_of(Id(42)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct Node {
    running: Arc<Running>,
}

/// What a node's owner decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its place on the ring; `None`: drawn at random.
    pub id: Option<Id>,
    /// Where it accepts links; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where others reach it, if that is not where it listens.
    pub advertise: Option<AccessPoint>,
    /// The seed of the protocol's randomness; `None`: drawn at random.
    pub seed: Option<u64>,
    /// The network's key: it makes links with nodes that have the same one only, and all that is said on them is encrypted.
    /// `None`: with nodes that have none, in plain.
    pub network_key: Option<NetworkKey>,
    /// What its sockets, timers and tasks run on.
    pub runtime: Runtime,
}

impl Default for NodeConfig {
    /// A random id, and a port of the loopback that the system chooses; on tokio.
    fn default() -> NodeConfig {
        NodeConfig {
            id: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            seed: None,
            network_key: None,
            runtime: Runtime::default(),
        }
    }
}

impl Node {
    /// Creates a network, of which this node is the first. Must be called on the [`Runtime`] that `config` names.
    ///
    /// # Errors
    /// [`NodeError::CouldNotConfig`] or [`NodeError::CouldNotListen`].
    pub async fn create_net(
        net: NetConfig,
        config: NodeConfig,
    ) -> Result<(Node, Messages, Events), NodeError> {
        IdleNode::new(net, &config)?.create().await
    }

    /// Joins the network that one of `access_points` belongs to; they are tried in turn. Where `net` is `None`, the
    /// network's settings are asked of them; otherwise a network with other settings is refused. Where the node's id is drawn
    /// at random and turns out to be in use, another one is drawn. Must be called on the [`Runtime`] that `config` names.
    ///
    /// # Errors
    /// What [`Node::create_net`] says; [`NodeError::Refused`] where a node said why it makes no link;
    /// [`NodeError::CouldNotJoin`] otherwise.
    pub async fn join_net(
        access_points: &[AccessPoint],
        mut config: NodeConfig,
        net: Option<NetConfig>,
    ) -> Result<(Node, Messages, Events), NodeError> {
        check_access_points(access_points)?;
        let listener = listen(config.listen)?;
        let address_wanted = config.advertise.is_none() && config.listen.ip().is_unspecified();
        let net = match net {
            Some(net) if !address_wanted => net,
            _ => {
                let (theirs, local) = settings(access_points, &config).await?;
                if address_wanted {
                    config.advertise = Some(AccessPoint { ip: local.ip(), port: 0 });
                }
                net.unwrap_or(theirs)
            }
        };
        for _ in 1..ID_DRAWS_MAX {
            let joined =
                IdleNode::on(&listener, net, &config, Spawner::on(config.runtime))?.join(access_points).await;
            let taken = matches!(&joined, Err(NodeError::CouldNotJoin(JoinError::IdInUse(_))));
            if !taken || config.id.is_some() {
                return joined;
            }
        }
        IdleNode::on(&listener, net, &config, Spawner::on(config.runtime))?.join(access_points).await
    }

    /// Finds the node that is responsible of a key.
    ///
    /// # Errors
    /// [`NodeError::NotOnRing`]; [`NodeError::Route`] with the reason; [`NodeError::HasStopped`].
    pub async fn lookup(&self, key: Id) -> Result<Found, NodeError> {
        self.check(key)?;
        let (sender, receiver) = oneshot::channel();
        self.running.shared.lookup(key, None, Waiter::Once(sender));
        let end = receiver.await.map_err(|_| NodeError::HasStopped)?;
        Ok(end.result?)
    }

    /// Starts many look-ups at once: (the caller's number, the key, when it was meant to start on the host's monotonic
    /// clock). The latency that the metrics show counts from there. Each ends in one [`LookupEnd`] on `ends`.
    pub fn lookups(
        &self,
        lookups: impl Iterator<Item = (u64, Id, Time)>,
        ends: &mpsc::UnboundedSender<LookupEnd>,
    ) {
        let ring = self.net().ring();
        self.running.shared.lookups(lookups.map(|(number, key, at)| (number, wrap(ring, key), at)), ends);
    }

    /// Sends to the node with that id, best effort. A failure that is noticed is told as [`Event::Undelivered`].
    ///
    /// # Errors
    /// [`NodeError::NotOnRing`], [`NodeError::Route`] for a payload that is too large.
    pub fn send(&self, destination: Id, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.check(destination)?;
        self.order(payload.into(), |payload| Command::Send { destination, exact: true, payload })
    }

    /// Sends to the node that is responsible of a key (P2PS 1.0's `toResp`); otherwise as [`Node::send`].
    ///
    /// # Errors
    /// As [`Node::send`].
    pub fn send_to_responsible(&self, key: Id, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.check(key)?;
        self.order(payload.into(), |payload| Command::Send { destination: key, exact: false, payload })
    }

    /// Sends to the node with that id, again and again until it has the message (P2PS 1.0's `rsend`): it is delivered once, after
    /// those that this node sent to it before, or has failed. A node that restarts with the same id may get it again.
    ///
    /// # Errors
    /// [`NodeError::NotOnRing`]; [`NodeError::Route`] with the reason, at the latest after
    /// [`RELIABLE_TIMEOUT`](crate::services::reliable::RELIABLE_TIMEOUT); [`NodeError::HasStopped`].
    pub async fn send_reliably(&self, destination: Id, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.check(destination)?;
        let ended = self.running.shared.send_reliably(destination, payload.into());
        Ok(ended.await.map_err(|_| NodeError::HasStopped)??)
    }

    /// Sends to every other member, best effort: on a stable ring in as many messages as there are other members, over paths no
    /// longer than a look-up's. A part of the ring that is noticed not to be reached is told as [`Event::Undelivered`].
    ///
    /// # Errors
    /// [`NodeError::Route`] for a payload that is too large.
    pub fn broadcast(&self, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        self.order(payload.into(), |payload| Command::Broadcast { payload })
    }

    /// Sends to the nodes with these ids, to each once, best effort as [`Node::send`]: shared paths are walked once.
    ///
    /// # Errors
    /// As [`Node::send`]; [`RouteError::TooManyDestinations`] beyond
    /// [`DESTINATIONS_MAX`].
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
    /// that is too large.
    pub fn send_to_successors(&self, count: usize, payload: impl Into<Bytes>) -> Result<(), NodeError> {
        let length = self.net().successors();
        if count > length {
            return Err(NodeError::TooManySuccessors { count, length });
        }
        self.order(payload.into(), |payload| Command::SendToSuccessors { count, payload })
    }

    /// Gives a key a value, in as many places as the network's replication says; the value that it had is replaced. All its copies
    /// are in their places then. Of several writes at once, one is the last for everybody ([`Version`]).
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
    pub async fn remove(&self, key: Id) -> Result<Written, NodeError> {
        self.write(key, |operation| Command::Remove { operation, key }).await
    }

    /// Leaves the network gracefully: the successor takes over with all items of the dictionary, the neighbours are told, all links are closed. Tells whether
    /// the successor did take over. The node has stopped then.
    ///
    /// # Errors
    /// [`NodeError::HasStopped`] if it has left or stopped already.
    pub async fn leave(&self) -> Result<bool, NodeError> {
        let shared = &self.running.shared;
        if shared.lock().is_stopped() {
            return Err(NodeError::HasStopped);
        }
        let handed_over = shared.leave().await.map_err(|_| NodeError::HasStopped)?;
        let emptied = shared.close_links();
        // Who does not read a farewell in time sees the link break, and asks.
        let _ = shared.runtime().timeout(FAREWELL_TIMEOUT, emptied).await;
        shared.stop();
        Ok(handed_over)
    }

    /// Stops at once, without leaving: all sockets are closed, as if the process had been killed.
    pub fn stop(&self) {
        self.running.shared.stop();
    }

    /// Does to the node's links from now on what `rules` say, and nothing else: none heals them all. A fault for
    /// experiments; it is made in this node alone.
    pub fn shape_links(&self, rules: &ShapeRules) {
        self.running.shared.shape(rules);
    }

    /// The node as others know it.
    pub fn contact(&self) -> Contact {
        self.running.contact
    }

    /// Its place on the ring.
    pub fn id(&self) -> Id {
        self.running.contact.id
    }

    /// Where others reach it (P2PS 1.0's `getLocalAP`).
    pub fn access_point(&self) -> AccessPoint {
        self.running.contact.access_point
    }

    /// The network's settings.
    pub fn net(&self) -> NetConfig {
        self.running.net
    }

    /// The node's own settings, with what was left to the system filled in.
    pub fn node_config(&self) -> &NodeConfig {
        &self.running.config
    }

    /// The finger table: the position that each finger stands for, and the node it points at, if any.
    pub fn fingers(&self) -> Vec<(Id, Option<Contact>)> {
        self.peer(Peer::fingers)
    }

    /// The successor; the node itself while it is alone.
    pub fn successor(&self) -> Contact {
        self.peer(|peer| peer.successors().first().copied()).unwrap_or(self.running.contact)
    }

    /// The successor list, nearest first; empty while the node is alone.
    pub fn successors(&self) -> Vec<Contact> {
        self.peer(|peer| peer.successors().to_vec())
    }

    /// The predecessor, if it is known.
    pub fn predecessor(&self) -> Option<Contact> {
        self.peer(Peer::predecessor)
    }

    /// Whether as many neighbours may fail at once as the successor list has entries (P2PS 1.0's `getFT`).
    pub fn is_fault_tolerant(&self) -> bool {
        self.peer(Peer::is_fault_tolerant)
    }

    /// Whether the node answers for a key now.
    pub fn is_responsible_of(&self, key: Id) -> bool {
        self.peer(|peer| peer.is_responsible_of(key))
    }

    /// What P2PS counts.
    pub fn statistics(&self) -> Statistics {
        self.peer(Peer::statistics)
    }

    /// Everything that is counted and timed.
    pub fn snapshot(&self) -> Snapshot {
        self.running.shared.snapshot()
    }

    /// The version of this library.
    pub fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn peer<R>(&self, ask: impl FnOnce(&Peer) -> R) -> R {
        ask(&self.running.shared.lock().peer)
    }

    fn order(&self, payload: Bytes, order: impl FnOnce(Bytes) -> Command) -> Result<(), NodeError> {
        Ok(self.running.shared.send(payload.len(), order(payload))?)
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

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({} at {})", self.id(), self.access_point())
    }
}

/// The node's tasks hold its state too, and end when this is dropped.
struct Running {
    shared: Arc<Shared>,
    contact: Contact,
    net: NetConfig,
    config: NodeConfig,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// A node that accepts links, but is in no network yet: its access point is known before it joins.
pub struct IdleNode {
    node: Node,
    messages: Messages,
    events: Events,
}

impl IdleNode {
    /// Starts to listen. Must be called on the [`Runtime`] that `config` names.
    ///
    /// # Errors
    /// [`NodeError::CouldNotConfig`], [`NodeError::NotOnRing`] or [`NodeError::CouldNotListen`].
    pub fn new(net: NetConfig, config: &NodeConfig) -> Result<IdleNode, NodeError> {
        IdleNode::on(&listen(config.listen)?, net, config, Spawner::on(config.runtime))
    }

    /// The same in a tokio [`LocalSet`](tokio::task::LocalSet), in one of whose tasks it must be called: all of the node's tasks
    /// belong to that set. While it is not polled the node stands still with its links open; when it is dropped, the node is
    /// gone as if its process had been killed.
    ///
    /// # Errors
    /// As [`IdleNode::new`].
    pub fn new_local(net: NetConfig, config: &NodeConfig) -> Result<IdleNode, NodeError> {
        IdleNode::on(&listen(config.listen)?, net, config, Spawner::LocalSet)
    }

    fn on(
        listener: &TcpListener,
        net: NetConfig,
        config: &NodeConfig,
        spawner: Spawner,
    ) -> Result<IdleNode, NodeError> {
        let could_not_listen = |source| NodeError::CouldNotListen { listen: config.listen, source };
        let listener = listener.try_clone().map_err(could_not_listen)?;
        let listening = listener.local_addr().map_err(could_not_listen)?;
        let mut access_point = config.advertise.unwrap_or(listening.into());
        if access_point.port == 0 {
            access_point.port = listening.port();
        }
        if access_point.ip.is_unspecified() {
            return Err(NodeError::CouldNotConfig(ConfigProblem::NoAddress(listening)));
        }
        let id = config.id.map_or_else(|| random().map(|number| wrap(net.ring(), Id(number))), Ok)?;
        check_id(id, net.ring())?;
        let seed = config.seed.map_or_else(random, Ok)?;
        let contact = Contact { id, access_point, incarnation: clock::incarnation() };
        let Started { shared, messages, events } =
            driver::start(net, contact, seed, listener, spawner.clone(), config.network_key.clone())
                .map_err(could_not_listen)?;
        let config = NodeConfig {
            id: Some(id),
            listen: listening,
            advertise: Some(access_point),
            seed: Some(seed),
            network_key: config.network_key.clone(),
            runtime: spawner.runtime(),
        };
        let node = Node { running: Arc::new(Running { shared, contact, net, config }) };
        Ok(IdleNode { node, messages: Messages(messages), events: Events(events) })
    }

    /// The node as others will know it.
    pub fn contact(&self) -> Contact {
        self.node.contact()
    }

    /// A handle of the node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Creates a network; see [`Node::create_net`].
    ///
    /// # Errors
    /// [`NodeError::HasStopped`].
    pub async fn create(self) -> Result<(Node, Messages, Events), NodeError> {
        self.enter(Input::Create).await
    }

    /// Joins a network with the same settings; see [`Node::join_net`].
    ///
    /// # Errors
    /// As [`Node::join_net`].
    pub async fn join(self, access_points: &[AccessPoint]) -> Result<(Node, Messages, Events), NodeError> {
        check_access_points(access_points)?;
        self.enter(Input::Join { bootstrap: access_points.to_vec() }).await
    }

    async fn enter(self, input: Input) -> Result<(Node, Messages, Events), NodeError> {
        let entered = self.node.running.shared.enter(input);
        match entered.await.map_err(|_| NodeError::HasStopped)? {
            Ok(()) => Ok((self.node, self.messages, self.events)),
            Err(JoinFailure { error: JoinError::Unreachable(_), refusal: Some((access_point, source)) }) => {
                Err(NodeError::Refused { access_point, source })
            }
            Err(JoinFailure { error, .. }) => Err(NodeError::CouldNotJoin(error)),
        }
    }
}

fn check_access_points(access_points: &[AccessPoint]) -> Result<(), NodeError> {
    match access_points.len() {
        1..=ACCESS_POINTS_MAX => Ok(()),
        count => Err(NodeError::CouldNotConfig(ConfigProblem::AccessPoints(count))),
    }
}

fn check_id(id: Id, ring: Ring) -> Result<(), NodeError> {
    if ring.contains(id) { Ok(()) } else { Err(NodeError::NotOnRing { id, ring }) }
}

/// A number as a place on the ring.
fn wrap(ring: Ring, id: Id) -> Id {
    Id((u128::from(id.0) % ring.max_size()) as u64)
}

/// Asks the access points in turn for the network's settings, and from which address they are reached.
async fn settings(
    access_points: &[AccessPoint],
    config: &NodeConfig,
) -> Result<(NetConfig, SocketAddr), NodeError> {
    let mut refused = NodeError::CouldNotConfig(ConfigProblem::AccessPoints(0));
    for &access_point in access_points {
        match driver::settings_at(access_point, config.network_key.as_ref(), config.runtime).await {
            Ok(settings) => return Ok(settings),
            Err(source) => refused = NodeError::Refused { access_point, source },
        }
    }
    Err(refused)
}

/// A listening socket. On Unix, its address may be taken again as soon as the node has ended (`SO_REUSEADDR`).
fn listen(address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).map_err(|source| NodeError::CouldNotListen { listen: address, source })
}

fn random() -> Result<u64, NodeError> {
    let no_randomness = |error| NodeError::CouldNotConfig(ConfigProblem::NoRandomness(format!("{error}")));
    SysRng.try_next_u64().map_err(no_randomness)
}
