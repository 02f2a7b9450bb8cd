//! What nodes say to each other.
//!
//! A message goes over one link. Messages that cross the overlay travel inside [`Route`], are acknowledged by each hop
//! ([`Ack`]) and answered by their destination directly to their source ([`Message::Answer`]).

pub mod client;
pub mod dictionary;

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::access_point::AccessPoint;
use crate::config::SUCCESSORS_MAX;
use crate::id::Id;
use client::{ClientTalk, Reply};
use dictionary::{Item, Request, Talk};

/// The largest payload of an application's message, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The most acknowledgements in one message.
pub const ACKS_MAX: usize = 256;

/// The most nodes that one multicast goes to.
pub const DESTINATIONS_MAX: usize = 8192;

/// The most destinations in one [`Message::Undeliverable`].
pub const UNDELIVERABLE_MAX: usize = 128;

/// The most contacts in one message.
pub const CONTACTS_MAX: usize = SUCCESSORS_MAX as usize + 1;

/// How one node knows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Contact {
    /// Its place on the ring.
    pub id: Id,
    /// Where it accepts links.
    pub access_point: AccessPoint,
    /// Which life of the node this is: a node that restarts with the same id has a larger one.
    pub incarnation: u64,
}

impl Contact {
    /// Whether it is a client's: no link can be made to it, and what is said to it goes by the responsible of its id, its proxy.
    pub fn is_client(&self) -> bool {
        self.access_point.port == 0
    }

    /// The same node as a client.
    pub(crate) fn as_client(self) -> Contact {
        Contact { access_point: AccessPoint { port: 0, ..self.access_point }, ..self }
    }
}

/// Anything that one node sends to another over a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// A message on its way to the responsible of a key.
    Route(Route),
    /// The dictionary's, directly.
    Dictionary(Talk),
    /// The next hop has taken, or refused, what was routed to it.
    Acks(Vec<Ack>),
    /// The destination's answer, directly to the source of a [`Route`].
    Answer {
        /// The route's sequence number at its source.
        sequence: u64,
        /// Whether the overlay asked, or the application.
        maintenance: bool,
        /// What became of it.
        result: Result<Found, RouteError>,
    },
    /// An application's message, directly to its source: these destinations will not have it.
    Undeliverable {
        /// Keys and ids that it was to go to, at most [`UNDELIVERABLE_MAX`].
        destinations: Vec<Id>,
        /// Why they will not.
        reason: RouteError,
    },
    /// A reliable message has been delivered, directly to its source.
    Receipt {
        /// The message's sequence number at its source.
        sequence: u64,
    },
    /// The responsible of a joiner's id offers its place (join, step 2).
    JoinOffer {
        /// The sequence number of the joiner's request.
        sequence: u64,
        /// The offering node's successor list.
        successors: Vec<Contact>,
    },
    /// The joiner accepts (join, step 3); from here on its future successor may hand over.
    JoinConfirm {
        /// The sequence number of its request.
        sequence: u64,
    },
    /// A node hands the duty for `(predecessor, receiver]` to the receiver (join, step 4).
    HandOver {
        /// The receiver's predecessor, if the sender knew one.
        predecessor: Option<Contact>,
        /// The sender's successor list.
        successors: Vec<Contact>,
        /// Nodes of the sender's finger table, spread evenly: the receiver's first guess at its own.
        fingers: Vec<Contact>,
    },
    /// A leaving node hands its duty to its successor; answered by [`Message::LeaveTaken`].
    Leave {
        /// The leaving node's predecessor, which becomes the receiver's.
        predecessor: Option<Contact>,
    },
    /// The successor answers for the leaving node's keys from now on, or cannot now (`false`: it is leaving too).
    LeaveTaken(bool),
    /// The sender has left; who linked to it replaces it by its successors.
    Left {
        /// The successor list it had.
        successors: Vec<Contact>,
    },
    /// Asks for the receiver's neighbours; answered by [`Message::Neighbours`] or [`Message::Busy`].
    Query {
        /// Repeated in the answer.
        token: u64,
    },
    /// The sender's neighbours.
    Neighbours {
        /// The query's token.
        token: u64,
        /// Its predecessor, if it knows one.
        predecessor: Option<Contact>,
        /// The predecessor's own predecessor, as that one has said last: if it is another by now, the notification was lost.
        second: Option<Id>,
        /// Its successor list.
        successors: Vec<Contact>,
    },
    /// The sender waits for an answer that may change its neighbours, or is no member: ask again later
    /// (Zave, arXiv 1610.01140: a step of the protocol is atomic).
    Busy {
        /// The query's token.
        token: u64,
        /// Whether the sender is a member of the ring.
        member: bool,
    },
    /// The sender believes that it is the receiver's predecessor.
    Notify {
        /// The sender's own predecessor, if it knows one.
        predecessor: Option<Contact>,
    },
    /// The sender has joined between the receiver and the receiver's successor.
    Introduce {
        /// The sender's successor list.
        successors: Vec<Contact>,
    },
    /// Asks whether the receiver is the right finger for a target; answered by [`Message::Checked`].
    Check {
        /// Repeated in the answer.
        token: u64,
        /// The position that the finger stands for.
        target: Id,
    },
    /// The answer to [`Message::Check`].
    Checked {
        /// The check's token.
        token: u64,
        /// Whether the sender is the target's responsible.
        responsible: bool,
    },
    /// Between a client and its proxy, directly.
    Client(ClientTalk),
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Look-ups and messages that an application asked for, and the answers to them.
    Data,
    /// Everything that keeps the overlay together: the cost of maintenance.
    Control,
    /// Acknowledgements of hops, for data and control alike.
    Ack,
}

impl MessageKind {
    /// All kinds, in the order in which tables list them.
    pub const ALL: [MessageKind; 3] = [MessageKind::Data, MessageKind::Control, MessageKind::Ack];

    /// The kind as metrics and results write it.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageKind::Data => "data",
            MessageKind::Control => "control",
            MessageKind::Ack => "ack",
        }
    }
}

impl Message {
    /// What this message is for.
    pub fn kind(&self) -> MessageKind {
        match self {
            Message::Route(route) => route.body.kind(),
            Message::Answer { maintenance: false, .. }
            | Message::Undeliverable { .. }
            | Message::Receipt { .. }
            | Message::Dictionary(Talk::Written { .. } | Talk::Value { .. } | Talk::Kept { .. }) => {
                MessageKind::Data
            }
            Message::Acks(_) => MessageKind::Ack,
            _ => MessageKind::Control,
        }
    }
}

/// A message on its way to the responsible of `key`, with what its hops need to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Who sent it.
    pub source: Contact,
    /// Unique at the source: with its id and incarnation, the message's identity.
    pub sequence: u64,
    /// Tells the attempts of its source to send it apart: how many numbers the source had given out since the message's.
    pub attempt: u32,
    /// Where it goes.
    pub key: Id,
    /// Hops so far; the first node that receives it sees 1.
    pub hops: u16,
    /// How many of those hops, the last ones, went back over a stale finger.
    pub backward: u8,
    /// 0: nobody has sent this attempt twice. Else there may be several of it: 1, and one more for each hop since that did not
    /// bring it nearer to the key ([`duplicates`](crate::core::duplicates)).
    pub turns: u8,
    /// Names this hop in the [`Ack`].
    pub hop: u64,
    /// The position of the table entry that the previous hop used: the receiver is thought to be its responsible.
    pub entry: Option<Id>,
    /// The entry is the id after a node that takes the receiver, or one after it, for its successor: all ids from there on are
    /// claimed for the receiver, unless it knows who is before it.
    pub claimed: bool,
    /// What it is.
    pub body: Body,
}

impl Route {
    /// A message that starts at its source.
    pub fn new(source: Contact, sequence: u64, attempt: u32, key: Id, body: Body) -> Route {
        Route {
            source,
            sequence,
            attempt,
            key,
            hops: 0,
            backward: 0,
            turns: 0,
            hop: 0,
            entry: None,
            claimed: false,
            body,
        }
    }

    /// The same message's way with another key, carrying `body`: a part of what this one carries.
    pub(crate) fn carrying(&self, key: Id, body: Body) -> Route {
        let Route { source, sequence, attempt, key: _, hops, backward, turns, hop, entry, claimed, body: _ } =
            *self;
        Route { source, sequence, attempt, key, hops, backward, turns, hop, entry, claimed, body }
    }

    /// What it is under way for.
    pub fn errand(&self) -> Errand {
        let part = match &self.body {
            Body::Broadcast { last, .. } => last.0,
            Body::Multicast { destinations, .. } => {
                let mut hasher = DefaultHasher::new();
                destinations.hash(&mut hasher);
                hasher.finish()
            }
            _ => 0,
        };
        let Route { source: Contact { id, incarnation, .. }, sequence, attempt, key, .. } = *self;
        Errand { source: id, incarnation, sequence, attempt, key, part }
    }
}

/// One attempt of its source to bring a message, or a part of one, to where it goes: all duplicates of a [`Route`] have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errand {
    /// The source's id.
    pub source: Id,
    /// Which life of the source.
    pub incarnation: u64,
    /// The message's number there.
    pub sequence: u64,
    /// Which attempt: [`Route::attempt`].
    pub attempt: u32,
    /// Where it goes, or where the part begins.
    pub key: Id,
    /// Which part: the last id of a broadcast's, a hash of a multicast's destinations.
    pub part: u64,
}

/// What travels to a key's responsible.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Who is responsible? Answered with [`Found`].
    Lookup {
        /// Asked by the overlay to mend its tables, not by the application.
        maintenance: bool,
    },
    /// The source wants to join with the key as its id. Answered with [`Message::JoinOffer`] or a refusal.
    Join,
    /// An application's message, best effort.
    Data {
        /// Only the node whose id is the key may have it; else whoever is responsible.
        exact: bool,
        /// At most [`PAYLOAD_BYTES_MAX`] bytes.
        payload: Bytes,
    },
    /// An application's message to the node whose id is the key, which sends a [`Message::Receipt`].
    Reliable {
        /// The sequence number of the last message before this one, to the same node, of which the source has no receipt and which
        /// it has not given up; 0: there is none.
        after: u64,
        /// At most [`PAYLOAD_BYTES_MAX`] bytes.
        payload: Bytes,
    },
    /// An application's message to all members in `[key, last]`, the part of the ring that the receiver takes over.
    Broadcast {
        /// The last id of the part.
        last: Id,
        /// At most [`PAYLOAD_BYTES_MAX`] bytes.
        payload: Bytes,
    },
    /// An application's message to some nodes; the key is the first of them.
    Multicast {
        /// Their ids, at most [`DESTINATIONS_MAX`].
        destinations: Vec<Id>,
        /// At most [`PAYLOAD_BYTES_MAX`] bytes.
        payload: Bytes,
    },
    /// The dictionary's, to the responsible of a place.
    Dictionary(Request),
    /// An answer to the node whose id is the key: a client, or from one.
    Reply {
        /// The node's incarnation.
        incarnation: u64,
        /// The answer.
        reply: Reply,
    },
    /// The fingers of members in `[key, last]` have to change: correction on change.
    Change {
        /// The last id of the part.
        last: Id,
        /// Who answered for what `heir` answers for now; `None`: `heir` has joined.
        gone: Option<Contact>,
        /// The member that is to be pointed at.
        heir: Contact,
    },
}

impl Body {
    /// The bytes of the application's payload, and of the list of those it goes to.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Body::Data { payload, .. } | Body::Reliable { payload, .. } | Body::Broadcast { payload, .. } => {
                payload.len()
            }
            Body::Multicast { destinations, payload } => payload.len() + size_of_val(&destinations[..]),
            Body::Dictionary(
                Request::Write(Some(value)) | Request::Keep(Item { value: Some(value), .. }),
            ) => value.len(),
            Body::Reply { reply, .. } => reply.payload_bytes(),
            Body::Lookup { .. } | Body::Join | Body::Dictionary(_) | Body::Change { .. } => 0,
        }
    }

    /// What the message that carries it is for.
    pub fn kind(&self) -> MessageKind {
        match self {
            Body::Lookup { maintenance: false }
            | Body::Data { .. }
            | Body::Reliable { .. }
            | Body::Broadcast { .. }
            | Body::Multicast { .. }
            | Body::Dictionary(Request::Write(_) | Request::Read(_) | Request::Keep(_)) => MessageKind::Data,
            Body::Reply { reply, .. } if !matches!(reply, Reply::Answer { maintenance: true, .. }) => {
                MessageKind::Data
            }
            Body::Lookup { maintenance: true }
            | Body::Join
            | Body::Reply { .. }
            | Body::Change { .. }
            | Body::Dictionary(Request::Fetch { .. } | Request::Compare { .. }) => MessageKind::Control,
        }
    }
}

/// What one hop says of one routed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ack {
    /// [`Route::hop`] of the message.
    pub hop: u64,
    /// How long the acknowledgement waited for company, in microseconds: no part of the link's latency.
    pub held_micros: u32,
    /// What the hop did.
    pub verdict: HopVerdict,
}

/// What a hop did with a routed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HopVerdict {
    /// It has it.
    Taken,
    /// It has it, but the finger that brought it is stale: another node is responsible for the entry's position.
    Stale,
    /// It is no member of the ring and has dropped it: send it elsewhere.
    NotMember,
    /// It has too much on its way and has dropped it: send it elsewhere.
    Overloaded,
}

/// A look-up's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Found {
    /// The node that answers for the key.
    pub responsible: Contact,
    /// How many hops the look-up took; 0 where the asking node is responsible itself.
    pub hops: u16,
}

/// Why a routed message did not arrive.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum RouteError {
    /// It took more hops than any route needs.
    #[error("the route was exhausted: more hops than the bound allows")]
    RouteExhausted,
    /// No node has the id that it was sent to.
    #[error("no node has this id")]
    NoSuchNode,
    /// No next hop is known that answers.
    #[error("no next hop answers")]
    NoNextHop,
    /// No answer came in time, after all attempts.
    #[error("no answer in time")]
    TimedOut,
    /// Too much is on its way already.
    #[error("too many messages are on their way")]
    Overloaded,
    /// This node is not, or no longer, part of a network (P2PS 1.0's `nodeHasLeft`).
    #[error("the node is no member of a network")]
    NotMember,
    /// Another node has the id that a joiner wants.
    #[error("the id is in use")]
    IdInUse,
    /// The payload is larger than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload has more than {PAYLOAD_BYTES_MAX} bytes")]
    PayloadTooLarge,
    /// A multicast to more than [`DESTINATIONS_MAX`] nodes.
    #[error("the message goes to more than {DESTINATIONS_MAX} nodes")]
    TooManyDestinations,
}

impl RouteError {
    /// The reason as the metrics and the results write it.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteError::RouteExhausted => "route_exhausted",
            RouteError::NoSuchNode => "no_such_node",
            RouteError::NoNextHop => "no_next_hop",
            RouteError::TimedOut => "timed_out",
            RouteError::Overloaded => "overloaded",
            RouteError::NotMember => "not_member",
            RouteError::IdInUse => "id_in_use",
            RouteError::PayloadTooLarge => "payload_too_large",
            RouteError::TooManyDestinations => "too_many_destinations",
        }
    }
}
