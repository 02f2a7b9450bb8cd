//! Effects: what the protocol wants done, says and has seen. Data; the driver carries it out.

use std::time::Duration;

use bytes::Bytes;

use crate::access_point::AccessPoint;
use crate::id::Id;
use crate::message::dictionary::{Answer, DictionaryError, Talk};
use crate::message::{Contact, Found, Message, Route, RouteError};

/// What a peer wants done, in this order. The driver owns it and drains it after each input.
pub type Outbox = Vec<Output>;

/// One thing that a peer wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this, over a link that stands or a new one. If none can be made: `Input::Unreachable`.
    Send {
        /// To whom.
        to: Contact,
        /// What.
        message: Message,
    },
    /// Make a link to whoever is there: `Input::LinkUp` or `Input::Unreachable` will tell.
    Connect {
        /// Where.
        access_point: AccessPoint,
    },
    /// See whether this node can be reached: by the link that this node opened to it, if one stands, else by a new one, even where
    /// the other has opened one. `Input::Reached` or `Input::Unreachable` will tell; nothing, where there is no room for a dial.
    Reach {
        /// Whom.
        contact: Contact,
    },
    /// A message for the application.
    Deliver(Delivery),
    /// A `Command::Lookup` has ended.
    Completed {
        /// The caller's number for it.
        operation: u64,
        /// What became of it.
        result: Result<Found, RouteError>,
    },
    /// A `Command::SendReliably` has ended.
    Sent {
        /// The caller's number for it.
        operation: u64,
        /// Whether it was delivered, or why not.
        result: Result<(), RouteError>,
    },
    /// A `Command::Insert`, `Get` or `Remove` has ended.
    Answered {
        /// The caller's number for it.
        operation: u64,
        /// What became of it.
        result: Result<Answer, DictionaryError>,
    },
    /// Something the application may want to know.
    Event(Event),
    /// Something the metrics want to know.
    Observe(Observation),
}

/// What the core has for the services above it.
#[derive(Clone, Debug)]
pub(crate) enum Upcall {
    /// A service's message has come to its responsible.
    Arrived(Route),
    /// A reliable message has been delivered.
    Receipt {
        /// Where.
        from: Contact,
        /// Its number.
        sequence: u64,
    },
    /// A node says something of the dictionary.
    Said {
        /// Which.
        from: Contact,
        /// What.
        talk: Talk,
    },
    /// A node is taken for dead.
    Lost(Contact),
    /// A service's message could not go on.
    Refused {
        /// Its number.
        sequence: u64,
        /// Why.
        reason: RouteError,
    },
    /// A service's timer has come.
    Due(u64),
    /// The node is no member any more.
    Ended,
}

/// An application's message (P2PS's `rcvMsg(src dst msg)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The id of the node that sent it.
    pub source: Id,
    /// The key, or the id, that it was sent to.
    pub destination: Id,
    /// Its bytes.
    pub payload: Bytes,
}

/// P2PS's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node is part of a network. `use_proxy`: through another node, since it cannot be reached itself.
    Connected {
        /// Whether a proxy stands in for it.
        use_proxy: bool,
    },
    /// The node is a client, and this is its proxy from now on; `None`: it is looking for one.
    NewProxy(Option<Contact>),
    /// A node that cannot be reached is a client of this one from now on (P2PS 1.0's `clientjoined`).
    ClientJoined(Contact),
    /// A client has left, found another proxy, or is taken for dead (P2PS 1.0's `clientleft`).
    ClientLeft(Contact),
    /// The node is the only one of its network.
    Alone,
    /// The successor changed.
    NewSuccessor(Contact),
    /// The predecessor changed; `None`: it is not known now.
    NewPredecessor(Option<Contact>),
    /// The successor list changed.
    NewSuccessorList(Vec<Contact>),
    /// A finger changed: its table index, and the node it points at, if any.
    NewFinger(usize, Option<Contact>),
    /// The node could not join.
    Rejected(JoinError),
    /// A node does not answer, or its link broke: it is taken for dead.
    Suspected(Contact),
    /// A message that this node sent did not reach its destination.
    Undelivered {
        /// Where it was to go.
        destination: Id,
        /// Why it did not.
        reason: RouteError,
    },
    /// The node leaves items of the dictionary that nobody has taken over. Unless there are other copies, they are lost: where it
    /// is the last member, they are.
    ItemsLeftBehind {
        /// How many; removed keys that are remembered still count too.
        items: usize,
    },
    /// The node has left, after handing over or (`handed_over: false`) after waiting for it in vain.
    Left {
        /// Whether the successor took over.
        handed_over: bool,
    },
}

/// Why a node could not join (P2PS 1.0's `couldNotJoin`, `nodeAlreadyInNetwork`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A live node has this id.
    #[error("id {0} is in use by another node: choose another, or let the system choose")]
    IdInUse(Id),
    /// None of the access points answered.
    #[error("none of the access points could be reached; the last one said: {0}")]
    Unreachable(String),
    /// The node cannot be reached by others, and has as a client no place in the network.
    #[error(
        "{proxy} is to be the proxy of this node, which others cannot reach, but has as many clients as it may have"
    )]
    NoRoomForClients {
        /// The id of the node that would be its proxy.
        proxy: Id,
    },
    /// The node cannot be reached by others, and was not to be a client.
    #[error(
        "other nodes cannot reach this one at {0}: say which access point to advertise, or let it use a proxy"
    )]
    CannotBeReached(AccessPoint),
    /// The network was reached, but the join did not come to an end.
    #[error("the network did not complete the join in {attempts} attempts")]
    TimedOut {
        /// How often it was tried.
        attempts: u32,
    },
}

/// What the metrics are made of, besides [`Statistics`](super::Statistics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The time from sending a routed message over a link to its acknowledgement, without the time it was held.
    HopLatency(Duration),
    /// A look-up of the application has ended.
    Lookup {
        /// Since it was asked for.
        latency: Duration,
        /// The hops it took, or why it failed.
        result: Result<u16, RouteError>,
    },
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Neither created nor joined yet.
    Idle,
    /// On its way into a network.
    Joining,
    /// A member: it answers for its range.
    Member,
    /// In a network by its proxy: it answers for no keys.
    Client,
    /// Handing over.
    Leaving,
    /// Gone: left, or rejected.
    Ended,
}
