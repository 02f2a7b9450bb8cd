//! What a client and its proxy say to each other, and what clients are answered.
//!
//! A client is a node that others cannot reach. It is no member of the ring: the member that is responsible of its id is its proxy,
//! and what is said to it is routed to its id. Its contact has port 0, which is nowhere: so everybody knows a client by its
//! contact.

use serde::{Deserialize, Serialize};

use super::dictionary::{Refusal, Stored, Talk, Written};
use super::{Contact, Found, Message, RouteError};
use crate::id::Id;

/// What is said between a client, or a joiner, and a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientTalk {
    /// Which member is responsible of the sender's id? Answered by [`ClientTalk::Located`].
    Locate {
        /// Repeated in the answer.
        sequence: u64,
    },
    /// The responsible of the receiver's id, or why it was not found.
    Located {
        /// The question's number.
        sequence: u64,
        /// What became of it.
        result: Result<Contact, RouteError>,
    },
    /// Take the sender in: as a member, if it can be reached and does not ask for less (answered by [`Message::JoinOffer`]);
    /// else as a client (answered by [`ClientTalk::Accepted`]). Clients say it again now and then: so they know that their proxy is
    /// there.
    Admit {
        /// Repeated in the answer.
        sequence: u64,
        /// Only as a client.
        as_client: bool,
    },
    /// The receiver is a client of the sender.
    Accepted {
        /// The request's number; 0: it comes unasked, since the sender's neighbours have changed.
        sequence: u64,
        /// The sender's predecessor, if it knows one: the proxy from now on, if the client stands before it.
        predecessor: Option<Contact>,
        /// The sender's successor list: who will be the proxy when the sender is gone.
        successors: Vec<Contact>,
    },
    /// The receiver is no client of the sender.
    Rejected {
        /// The request's number.
        sequence: u64,
        /// Why not.
        reason: Rejection,
    },
    /// The sender is no client of the receiver any more.
    Farewell,
}

/// Why a member does not take a client in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rejection {
    /// It does not answer for the client's id.
    NotResponsible,
    /// Another node has the id.
    IdInUse,
    /// It has as many clients as it may have.
    Full,
}

/// An answer to a node that no link can be made to, or from one: it is routed to the node's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// [`Message::Answer`].
    Answer {
        /// The route's sequence number at its source.
        sequence: u64,
        /// Whether the overlay asked, or the application.
        maintenance: bool,
        /// What became of it.
        result: Result<Found, RouteError>,
    },
    /// [`Message::Undeliverable`].
    Undeliverable {
        /// At most [`UNDELIVERABLE_MAX`](super::UNDELIVERABLE_MAX).
        destinations: Vec<Id>,
        /// Why they will not have the message.
        reason: RouteError,
    },
    /// [`Message::Receipt`].
    Receipt {
        /// The message's sequence number at its source.
        sequence: u64,
    },
    /// [`Talk::Written`].
    Written {
        /// The number of the request.
        sequence: u64,
        /// What became of it.
        result: Result<Written, Refusal>,
    },
    /// [`Talk::Value`].
    Value {
        /// The number of the request.
        sequence: u64,
        /// The value, if the key has one.
        result: Result<Option<Stored>, Refusal>,
    },
}

impl Reply {
    /// A message that answers something, as a reply; `None` for any other.
    pub(crate) fn of(message: &Message) -> Option<Reply> {
        match message.clone() {
            Message::Answer { sequence, maintenance, result } => {
                Some(Reply::Answer { sequence, maintenance, result })
            }
            Message::Undeliverable { destinations, reason } => {
                Some(Reply::Undeliverable { destinations, reason })
            }
            Message::Receipt { sequence } => Some(Reply::Receipt { sequence }),
            Message::Dictionary(Talk::Written { sequence, result }) => {
                Some(Reply::Written { sequence, result })
            }
            Message::Dictionary(Talk::Value { sequence, result }) => Some(Reply::Value { sequence, result }),
            _ => None,
        }
    }

    /// The message that it stands for.
    pub(crate) fn into_message(self) -> Message {
        match self {
            Reply::Answer { sequence, maintenance, result } => {
                Message::Answer { sequence, maintenance, result }
            }
            Reply::Undeliverable { destinations, reason } => Message::Undeliverable { destinations, reason },
            Reply::Receipt { sequence } => Message::Receipt { sequence },
            Reply::Written { sequence, result } => Message::Dictionary(Talk::Written { sequence, result }),
            Reply::Value { sequence, result } => Message::Dictionary(Talk::Value { sequence, result }),
        }
    }

    /// The bytes of the value in it.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Reply::Value { result: Ok(Some(stored)), .. } => stored.value.len(),
            Reply::Undeliverable { destinations, .. } => size_of_val(&destinations[..]),
            _ => 0,
        }
    }
}
