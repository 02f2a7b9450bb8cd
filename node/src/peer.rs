//! The machine that every driver runs: a node's whole protocol as a pure function of its inputs.
//!
//! A driver (sockets, the simulator, the model checker) tells a [`Peer`] what happened and when; the peer appends what it
//! wants done to an [`Outbox`] that the driver owns. It knows no clock, no socket, no task and no randomness but its seed,
//! so the same inputs give the same outputs, to the byte.

use std::sync::Arc;

use bytes::Bytes;

use crate::access_point::AccessPoint;
use crate::config::{NetConfig, ProxyUse};
use crate::core::digest::Digest;
use crate::core::forward::route_hops_max;
use crate::core::geometry::Offsets;
use crate::core::{Context, Core, Statistics};
use crate::id::Id;
use crate::message::{Contact, Message};
use crate::services::Services;
use crate::services::dictionary::{Dictionary, Wish};
use crate::time::Time;

pub use crate::core::converged::ConvergedRing;
pub use crate::core::effect::{Delivery, Event, JoinError, Observation, Outbox, Output, Phase};

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
    /// This node has made a link to another, or had one, by which it can be reached: the end of [`Output::Reach`], or of a dial
    /// that a message wanted.
    Reached {
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
    /// The application does not read its messages (`true`), or does again: meanwhile no reliable message is taken in for it.
    ApplicationIsFull(bool),
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
    /// Send to the node with that id, until it has been delivered; what one node sends to another is delivered in order, and
    /// once. Ends in [`Output::Sent`] with the same number.
    SendReliably {
        /// The caller's number for it.
        operation: u64,
        /// The node's id.
        destination: Id,
        /// At most [`PAYLOAD_BYTES_MAX`](crate::message::PAYLOAD_BYTES_MAX) bytes.
        payload: Bytes,
    },
    /// Give a key of the dictionary a value. Ends in [`Output::Answered`] with the same number.
    Insert {
        /// The caller's number for it.
        operation: u64,
        /// The key.
        key: Id,
        /// At most [`VALUE_BYTES_MAX`](crate::message::dictionary::VALUE_BYTES_MAX) bytes.
        value: Bytes,
    },
    /// Find the value of a key of the dictionary. Ends in [`Output::Answered`] with the same number.
    Get {
        /// The caller's number for it.
        operation: u64,
        /// The key.
        key: Id,
    },
    /// Remove a key from the dictionary. Ends in [`Output::Answered`] with the same number.
    Remove {
        /// The caller's number for it.
        operation: u64,
        /// The key.
        key: Id,
    },
    /// Send to every other member, best effort; a part of the ring that is noticed not to be reached is reported as
    /// [`Event::Undelivered`].
    Broadcast {
        /// At most [`PAYLOAD_BYTES_MAX`](crate::message::PAYLOAD_BYTES_MAX) bytes.
        payload: Bytes,
    },
    /// Send to the nodes with these ids, to each once, best effort as [`Command::Send`].
    Multicast {
        /// At most [`DESTINATIONS_MAX`](crate::message::DESTINATIONS_MAX).
        destinations: Vec<Id>,
        /// At most [`PAYLOAD_BYTES_MAX`](crate::message::PAYLOAD_BYTES_MAX) bytes.
        payload: Bytes,
    },
    /// Send to the nearest successors, directly, best effort.
    SendToSuccessors {
        /// How many; all of the list where it is shorter.
        count: usize,
        /// At most [`PAYLOAD_BYTES_MAX`](crate::message::PAYLOAD_BYTES_MAX) bytes.
        payload: Bytes,
    },
    /// Leave gracefully: hand over, tell the neighbours. Ends in [`Event::Left`].
    Leave,
}

/// A node's whole protocol. See the [module](self).
#[derive(Clone, Debug)]
pub struct Peer {
    core: Core,
    services: Services,
}

impl Peer {
    /// A node that is in no network yet. `me.id` must be on the ring of `net`; `seed` is all the randomness it will have.
    pub fn new(net: NetConfig, me: Contact, seed: u64) -> Peer {
        Peer::with_offsets(net, me, seed, Arc::new(Offsets::new(net.geometry(), net.ring())))
    }

    /// The same, with a link table's offsets that many nodes share: they are those of `net`'s geometry and ring.
    pub fn with_offsets(net: NetConfig, me: Contact, seed: u64, offsets: Arc<Offsets>) -> Peer {
        Peer { core: Core::new(net, me, offsets, seed), services: Services::new(&net) }
    }

    /// A node with a bug, on which the checkers are tested.
    #[cfg(feature = "planted")]
    pub fn plant(&mut self, bug: crate::core::planted::Bug) {
        self.core.plant(bug);
    }

    /// Says when the node is to be a client. To be called before it joins.
    pub fn set_proxy_use(&mut self, proxy_use: ProxyUse) {
        self.core.proxy_use = proxy_use;
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
            Input::Reached { contact } => core.on_reached(cx, contact),
            Input::Unreachable { contact: Some(contact), .. } => {
                // To a client no link can be made: only what is said by the one it made, and that one's end, tell whether it lives.
                if !core.is_unreachable_guest(cx, contact) && !core.clients.has_link(&contact) {
                    core.declare_dead(cx, contact);
                }
            }
            Input::Unreachable { contact: None, reason, .. } => core.on_bootstrap_unreachable(cx, &reason),
            Input::Tick => core.on_tick(cx),
            Input::ApplicationIsFull(full) => self.services.reliable.application_is_full = full,
            Input::Command(Command::Lookup { operation, key }) => core.lookup(cx, operation, key),
            Input::Command(Command::SendReliably { operation, destination, payload }) => {
                self.services.reliable.send(core, cx, operation, destination, payload);
            }
            Input::Command(Command::Insert { operation, key, value }) => {
                self.services.dictionary.operate(core, cx, operation, key, Wish::Write(Some(value)));
            }
            Input::Command(Command::Get { operation, key }) => {
                self.services.dictionary.operate(core, cx, operation, key, Wish::Read);
            }
            Input::Command(Command::Remove { operation, key }) => {
                self.services.dictionary.operate(core, cx, operation, key, Wish::Write(None));
            }
            Input::Command(Command::Send { destination, exact, payload }) => {
                core.send_data(cx, destination, exact, payload);
            }
            Input::Command(Command::Broadcast { payload }) => core.broadcast(cx, payload),
            Input::Command(Command::Multicast { destinations, payload }) => {
                core.multicast(cx, destinations, payload);
            }
            Input::Command(Command::SendToSuccessors { count, payload }) => {
                core.send_to_successors(cx, count, &payload);
            }
            Input::Command(Command::Leave) => core.leave(cx),
        }
        self.services.serve(core, cx);
    }

    /// When the next [`Input::Tick`] is wanted, if at all.
    pub fn deadline(&self) -> Option<Time> {
        self.core.deadline()
    }

    /// Where it stands in its life.
    pub fn phase(&self) -> Phase {
        self.core.phase
    }

    /// Whether it holds a range of the ring: a member, or one that is leaving and has not handed over.
    pub fn is_member(&self) -> bool {
        self.core.is_member()
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

    /// Its successor list, nearest first; empty while it is alone, and for a client.
    pub fn successors(&self) -> &[Contact] {
        self.core.neighbours.successors()
    }

    /// The nodes that it asks for, or answers for: its neighbours, and those that it has lost and asks for again.
    pub fn acquaintances(&self) -> Vec<Contact> {
        let Core { neighbours, departed, .. } = &self.core;
        let near = neighbours.successors().iter().copied().chain(neighbours.predecessor());
        near.chain(departed.contacts()).collect()
    }

    /// The access points that it came into the network by.
    pub fn ways_back(&self) -> &[AccessPoint] {
        &self.core.proxy.bootstrap
    }

    /// The node that stands in for it, if it is a client and has one now.
    pub fn proxy(&self) -> Option<Contact> {
        self.core.proxy.present
    }

    /// The nodes that it stands in for, in the order of their ids.
    pub fn clients(&self) -> Vec<Contact> {
        self.core.clients.contacts().collect()
    }

    /// Its finger table: the position that each finger stands for, and the node it points at, if any.
    pub fn fingers(&self) -> Vec<(Id, Option<Contact>)> {
        self.core.table.entries().collect()
    }

    /// The most hops that a route of its network may have.
    pub fn route_hops_max(&self) -> u32 {
        route_hops_max(self.core.table.hops_max())
    }

    /// How many distinct nodes its fingers point at.
    pub fn fingers_known(&self) -> usize {
        self.core.table.contacts().len()
    }

    /// Becomes a member with the neighbours and fingers that it would have on a converged ring of these members, of which it
    /// is one. With `maintenance` its rounds go on from a random moment of their longest period; without, it never begins one.
    pub fn settle(&mut self, now: Time, ring: &ConvergedRing<'_>, maintenance: bool) {
        self.core.settle(now, ring, maintenance);
        self.services.dictionary.settle(&self.core);
    }

    /// Whether it answers for a key now.
    pub fn is_responsible_of(&self, key: Id) -> bool {
        self.core.is_responsible_of(key)
    }

    /// Whether a contact stands in one of its tables, or is a client or the proxy: such links are kept, others may be closed when
    /// idle.
    pub fn is_neighbour(&self, contact: &Contact) -> bool {
        self.core.keeps_link_to(contact)
    }

    /// Whether its successor list is full, so that as many neighbours may fail at once as it has entries. A smaller network
    /// works too, but promises nothing.
    pub fn is_fault_tolerant(&self) -> bool {
        self.core.neighbours.successors().len() == self.core.net.successors()
    }

    /// Adds what the explorer compares: all that the node's further behaviour depends on, once it is [still](Peer::still).
    pub(crate) fn digest(&self, digest: &mut Digest) {
        self.core.digest(digest);
        self.services.digest(&self.core, digest);
    }

    /// What its next deadline is for, for people.
    pub(crate) fn timers_due(&self) -> Vec<String> {
        self.core.timers_due()
    }

    /// Whether its next deadline is for sending acknowledgements, and for nothing else.
    pub(crate) fn is_ack_due(&self) -> bool {
        self.core.is_ack_due()
    }

    /// Takes away what would make a node's behaviour depend on its whole past: jitter and estimated round trips are from now on
    /// those of a node that has just started.
    pub(crate) fn still(&mut self) {
        self.core.still();
    }

    /// Its part of the dictionary.
    pub fn dictionary(&self) -> &Dictionary {
        &self.services.dictionary
    }

    /// What it has counted.
    pub fn statistics(&self) -> Statistics {
        let dictionary = self.dictionary();
        Statistics {
            uses_proxy: self.core.phase == Phase::Client,
            clients: self.core.clients.len() as u64,
            items: dictionary.items() as u64,
            item_bytes: dictionary.bytes() as u64,
            ..self.core.statistics
        }
    }
}
