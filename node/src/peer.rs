//! The machine that every driver runs: a node's whole protocol as a pure function of its inputs.
//!
//! A driver (sockets, the simulator, the model checker) tells a [`Peer`] what happened and when; the peer appends what it
//! wants done to an [`Outbox`] that the driver owns. It knows no clock, no socket, no task and no randomness but its seed,
//! so the same inputs give the same outputs, to the byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::access_point::AccessPoint;
use crate::config::NetConfig;
use crate::core::geometry::Offsets;
use crate::core::{Context, Core, Statistics};
use crate::id::Id;
use crate::message::{Contact, Found, Message, RouteError};
use crate::time::Time;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Become the first node of a new network.
    Create,
    /// Join the network that one of these access points belongs to.
    Join {
        /// Tried in turn.
        bootstrap: Vec<AccessPoint>,
    },
    /// A message came over a link.
    Receive {
        /// The node at the other end, as the handshake named it.
        from: Contact,
        /// What it said.
        message: Message,
    },
    /// A link asked for with [`Output::Connect`] stands.
    LinkUp {
        /// The node at the other end.
        contact: Contact,
    },
    /// The last link to a node is gone.
    LinkDown {
        /// The node at the other end.
        contact: Contact,
        /// Whether it said so before (idle or leaving), or broke off: then it is taken for dead.
        orderly: bool,
    },
    /// No link to this access point could be made.
    Unreachable {
        /// Where it was tried.
        access_point: AccessPoint,
        /// Who was expected there, if anyone in particular.
        contact: Option<Contact>,
        /// What the driver says of it, for people.
        reason: String,
    },
    /// [`Peer::deadline`] has come.
    Tick,
    /// The application wants something.
    Command(Command),
}

/// What an application asks of its node.
#[derive(Clone, Debug)]
pub enum Command {
    /// Find a key's responsible. Ends in [`Output::Completed`] with the same number.
    Lookup {
        /// The caller's number for it.
        operation: u64,
        /// The key.
        key: Id,
    },
    /// Send to a key's responsible, or (`exact`) to the node with that id. Best effort; a failure that is noticed is
    /// reported as [`Event::Undelivered`].
    Send {
        /// The key, or the node's id.
        destination: Id,
        /// Only the node whose id this is may have it.
        exact: bool,
        /// At most [`PAYLOAD_BYTES_MAX`](crate::message::PAYLOAD_BYTES_MAX) bytes.
        payload: Bytes,
    },
    /// Leave gracefully: hand over, tell the neighbours. Ends in [`Event::Left`].
    Leave,
}

/// What a [`Peer`] wants done, in this order. The driver owns it and drains it after each input.
pub type Outbox = Vec<Output>;

/// One thing that a [`Peer`] wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this, over a link that stands or a new one. If none can be made: [`Input::Unreachable`].
    Send {
        /// To whom.
        to: Contact,
        /// What.
        message: Message,
    },
    /// Make a link to whoever is there: [`Input::LinkUp`] or [`Input::Unreachable`] will tell.
    Connect {
        /// Where.
        access_point: AccessPoint,
    },
    /// A message for the application.
    Deliver(Delivery),
    /// A [`Command::Lookup`] has ended.
    Completed {
        /// The caller's number for it.
        operation: u64,
        /// What became of it.
        result: Result<Found, RouteError>,
    },
    /// Something the application may want to know.
    Event(Event),
    /// Something the metrics want to know.
    Observe(Observation),
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
    /// The network was reached, but the join did not come to an end.
    #[error("the network did not complete the join in {attempts} attempts")]
    TimedOut {
        /// How often it was tried.
        attempts: u32,
    },
}

/// What the metrics are made of, besides [`Statistics`](crate::core::Statistics).
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
    /// Handing over.
    Leaving,
    /// Gone: left, or rejected.
    Ended,
}

/// A node's whole protocol. See the [module](self).
#[derive(Clone, Debug)]
pub struct Peer {
    core: Core,
}

impl Peer {
    /// A node that is in no network yet. `me.id` must be on the ring of `net`; `seed` is all the randomness it will have.
    pub fn new(net: NetConfig, me: Contact, seed: u64) -> Peer {
        Peer::with_offsets(net, me, seed, Arc::new(Offsets::new(net.geometry(), net.ring())))
    }

    /// The same, with a link table's offsets that many nodes share: they are those of `net`'s geometry and ring.
    pub fn with_offsets(net: NetConfig, me: Contact, seed: u64, offsets: Arc<Offsets>) -> Peer {
        Peer { core: Core::new(net, me, offsets, seed) }
    }

    /// Takes in what happened at `now`, and appends what is to be done to `out`. `now` never goes back.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outbox) {
        let core = &mut self.core;
        let cx = &mut Context { now, out };
        if core.phase == Phase::Ended && !matches!(input, Input::Command(_)) {
            return;
        }
        match input {
            Input::Create => core.create(cx),
            Input::Join { bootstrap } => core.join(cx, bootstrap),
            Input::Receive { from, message } => core.on_message(cx, from, message),
            Input::LinkUp { contact } => core.on_link_up(cx, contact),
            Input::LinkDown { contact, orderly } => core.on_link_down(cx, contact, orderly),
            Input::Unreachable { contact: Some(contact), .. } => core.declare_dead(cx, contact),
            Input::Unreachable { contact: None, reason, .. } => core.on_bootstrap_unreachable(cx, &reason),
            Input::Tick => core.on_tick(cx),
            Input::Command(Command::Lookup { operation, key }) => core.lookup(cx, operation, key),
            Input::Command(Command::Send { destination, exact, payload }) => {
                core.send_data(cx, destination, exact, payload);
            }
            Input::Command(Command::Leave) => core.leave(cx),
        }
    }

    /// When the next [`Input::Tick`] is wanted, if at all.
    pub fn deadline(&self) -> Option<Time> {
        self.core.deadline()
    }

    /// Where it stands in its life.
    pub fn phase(&self) -> Phase {
        self.core.phase
    }

    /// The node itself.
    pub fn me(&self) -> Contact {
        self.core.me
    }

    /// The network's settings.
    pub fn net(&self) -> NetConfig {
        self.core.net
    }

    /// Its predecessor, if it knows one.
    pub fn predecessor(&self) -> Option<Contact> {
        self.core.neighbours.predecessor()
    }

    /// Its successor list, nearest first; empty while it is alone.
    pub fn successors(&self) -> &[Contact] {
        self.core.neighbours.successors()
    }

    /// Its finger table: the position that each finger stands for, and the node it points at, if any.
    pub fn fingers(&self) -> Vec<(Id, Option<Contact>)> {
        self.core.table.entries().collect()
    }

    /// Whether it answers for a key now.
    pub fn is_responsible_of(&self, key: Id) -> bool {
        self.core.is_responsible_of(key)
    }

    /// Whether a contact stands in one of its tables: such links are kept, others may be closed when idle.
    pub fn is_neighbour(&self, contact: &Contact) -> bool {
        self.core.is_neighbour(contact)
    }

    /// Whether its successor list is full, so that as many neighbours may fail at once as it has entries. A smaller network
    /// works too, but promises nothing.
    pub fn is_fault_tolerant(&self) -> bool {
        self.core.neighbours.successors().len() == self.core.net.successors()
    }

    /// What it has counted.
    pub fn statistics(&self) -> Statistics {
        self.core.statistics
    }
}
