//! The user's API: create a network, join one, send, look up, and keep values under keys.

mod error;
mod operations;
mod streams;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::access_point::AccessPoint;
use crate::com::key::NetworkKey;
use crate::com::shaping::ShapeRules;
use crate::config::NetConfig;
use crate::driver::{self, JoinFailure, Shared, Spawner, Started, clock};
use crate::id::{Id, Ring};
use crate::message::Contact;
use crate::metrics::Snapshot;
use crate::peer::{Input, JoinError, Peer};

pub use error::{ConfigProblem, NodeError};
pub use streams::{Events, Messages};

pub use crate::com::link::Unsent;
pub use crate::com::runtime::Runtime;
pub use crate::config::ProxyUse;
pub use crate::core::Statistics;
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
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
/// let config = NodeConfig {
///     id: Some(Id(7)),
///     listen: "127.0.0.1:0".parse()?, // where it listens; a real one has a port that others can reach
///     ..NodeConfig::default()
/// };
/// let (node, ..) = Node::create_net(NetConfig::default(), config).await?;
/// assert_eq!(node.id(), Id(7));
/// // What was left to the system is filled in.
/// assert_eq!(node.node_config().advertise, Some(node.access_point()));
/// assert_ne!(node.access_point().port, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })
/// # }
/// ```
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
    /// When the node is a client of another one, its proxy: a client can do all that a member can, but answers for no keys.
    pub proxy: ProxyUse,
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
            proxy: ProxyUse::default(),
        }
    }
}

impl Node {
    /// Creates a network, of which this node is the first. Must be called on the [`Runtime`] that `config` names.
    ///
    /// # Errors
    /// [`NodeError::CouldNotConfig`] or [`NodeError::CouldNotListen`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// let (node, _messages, _events) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// assert!(node.is_responsible_of(Id(42)), "it is alone, and answers for all keys");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub async fn create_net(
        net: NetConfig,
        config: NodeConfig,
    ) -> Result<(Node, Messages, Events), NodeError> {
        if config.proxy == ProxyUse::Always {
            return Err(NodeError::CouldNotConfig(ConfigProblem::ClientOfNobody));
        }
        IdleNode::new(net, &config)?.create().await
    }

    /// Joins the network that one of `access_points` belongs to; they are tried in turn. Where `net` is `None`, the
    /// network's settings are asked of them; otherwise a network with other settings is refused. Where the node's id is drawn
    /// at random and turns out to be in use, another one is drawn. Must be called on the [`Runtime`] that `config` names.
    ///
    /// # Errors
    /// What [`Node::create_net`] says; [`NodeError::Refused`] where a node said why it makes no link;
    /// [`NodeError::CouldNotJoin`] otherwise.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// use p2ps::node::NodeError;
    /// use p2ps::peer::JoinError;
    ///
    /// let (first, ..) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// let by = [first.access_point()];
    /// let (second, ..) = Node::join_net(&by, NodeConfig::default(), None).await?;
    /// assert_eq!(second.successor(), first.contact());
    ///
    /// let taken = NodeConfig { id: Some(first.id()), ..NodeConfig::default() };
    /// let refused = Node::join_net(&by, taken, None).await;
    /// assert!(matches!(refused, Err(NodeError::CouldNotJoin(JoinError::IdInUse(_)))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub async fn join_net(
        access_points: &[AccessPoint],
        mut config: NodeConfig,
        net: Option<NetConfig>,
    ) -> Result<(Node, Messages, Events), NodeError> {
        check_access_points(access_points)?;
        let listener = listen(config.listen)?;
        let address_wanted = config.advertise.is_none()
            && config.listen.ip().is_unspecified()
            && config.proxy != ProxyUse::Always;
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
            let taken = matches!(
                &joined,
                Err(NodeError::CouldNotJoin(JoinError::IdInUse(_) | JoinError::NoRoomForClients { .. }))
            );
            if !taken || config.id.is_some() {
                return joined;
            }
        }
        IdleNode::on(&listener, net, &config, Spawner::on(config.runtime))?.join(access_points).await
    }

    /// Leaves the network gracefully: the successor takes over with all items of the dictionary, the neighbours are told, all links are closed. Tells whether
    /// the successor did take over. The node has stopped then.
    ///
    /// # Errors
    /// [`NodeError::HasStopped`] if it has left or stopped already.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// assert!(second.leave().await?, "the successor has taken over");
    /// assert!(second.lookup(Id(42)).await.is_err());
    /// assert_eq!(first.lookup(Id(42)).await?.responsible, first.contact());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// second.stop();
    /// // For the first node it has crashed; what it answered for is the first one's soon.
    /// assert_eq!(first.lookup(second.id()).await?.responsible, first.contact());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn stop(&self) {
        self.running.shared.stop();
    }

    /// Does to the node's links from now on what `rules` say, and nothing else: none heals them all. A fault for
    /// experiments; it is made in this node alone.
    pub fn shape_links(&self, rules: &ShapeRules) {
        self.running.shared.shape(rules);
    }

    /// The node as others know it; a client's access point has port 0.
    pub fn contact(&self) -> Contact {
        self.peer(Peer::me)
    }

    /// Its place on the ring.
    pub fn id(&self) -> Id {
        self.running.contact.id
    }

    /// Where others reach it, or, if it is a client, are meant to (P2PS 1.0's `getLocalAP`).
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
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// for (position, finger) in second.fingers() {
    ///     if let Some(contact) = finger {
    ///         println!("{position} is answered for by {} at {}", contact.id, contact.access_point);
    ///     }
    /// }
    /// assert_eq!(second.successors(), [first.contact()]);
    /// assert_eq!(second.predecessor(), Some(first.contact()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn fingers(&self) -> Vec<(Id, Option<Contact>)> {
        self.peer(Peer::fingers)
    }

    /// The successor (P2PS 1.0's `getSucc`); the node itself while it is alone, and a client's proxy.
    pub fn successor(&self) -> Contact {
        self.peer(|peer| peer.successors().first().copied().or(peer.proxy())).unwrap_or(self.running.contact)
    }

    /// The node that stands in for this one: `None`, unless it is a client, and not looking for another proxy.
    pub fn proxy(&self) -> Option<Contact> {
        self.peer(Peer::proxy)
    }

    /// The nodes that this one stands in for, in the order of their ids (P2PS 1.0's `getClients`).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// use p2ps::node::ProxyUse;
    ///
    /// let config = NodeConfig { proxy: ProxyUse::Always, ..NodeConfig::default() };
    /// let (client, mut received, _) = Node::join_net(&[first.access_point()], config, None).await?;
    /// let proxy = client.proxy().expect("it has just joined");
    /// let stands_in = if proxy == first.contact() { &first } else { &second };
    /// assert_eq!(stands_in.clients(), [client.contact()]);
    ///
    /// first.send_reliably(client.id(), "by your proxy").await?;
    /// assert_eq!(received.next().await.expect("it runs").payload, "by your proxy");
    /// assert!(!client.is_responsible_of(client.id()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn clients(&self) -> Vec<Contact> {
        self.peer(Peer::clients)
    }

    /// The successor list, nearest first (P2PS 1.0's `getSuccList`); empty while the node is alone, and for a client.
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

    /// What P2PS counts (P2PS 1.0's `getStatistics`).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// second.send_reliably(first.id(), "hello").await?;
    /// let counted = first.statistics();
    /// assert_eq!((counted.application_messages, counted.joins), (1, 1));
    /// assert!(!counted.uses_proxy && counted.clients == 0 && counted.links_in > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn statistics(&self) -> Statistics {
        self.running.shared.lock().statistics()
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
        if access_point.ip.is_unspecified() && config.proxy != ProxyUse::Always {
            return Err(NodeError::CouldNotConfig(ConfigProblem::NoAddress(listening)));
        }
        let id = config.id.map_or_else(|| random().map(|number| wrap(net.ring(), Id(number))), Ok)?;
        check_id(id, net.ring())?;
        let seed = config.seed.map_or_else(random, Ok)?;
        let contact = Contact { id, access_point, incarnation: clock::incarnation() };
        let Started { shared, messages, events } =
            driver::start(net, contact, seed, listener, spawner.clone(), config.network_key.clone())
                .map_err(could_not_listen)?;
        shared.lock().peer.set_proxy_use(config.proxy);
        let config = NodeConfig {
            id: Some(id),
            listen: listening,
            advertise: Some(access_point),
            seed: Some(seed),
            runtime: spawner.runtime(),
            ..config.clone()
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
