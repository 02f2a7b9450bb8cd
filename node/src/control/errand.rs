//! Errands: what a node is asked to do for an experiment's workload, other than look-ups.
//!
//! A kind of errand is added here, with the [`Command`] that it is; in `control::session`, which carries it out by
//! the node's API as an application would; and nowhere else of this crate. What is sent or stored begins with the number of the operation that it
//! is of ([`payload`]), so whoever gets it can say which it was ([`operation_of`]).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::message::PAYLOAD_BYTES_MAX;
use crate::peer::Command;

/// The least payload or value, in bytes: an operation's number.
pub const BYTES_MIN: u32 = 8;

/// The most nodes that one errand names.
pub const RECEIVERS_MAX: usize = 1000;

/// What a node is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// Give a key of the dictionary a value.
    Put {
        /// The key.
        key: Id,
        /// How long the value is.
        bytes: u32,
    },
    /// Read a key of the dictionary.
    Get {
        /// The key.
        key: Id,
    },
    /// Send a message to the node with this id, best effort.
    Send {
        /// Its id.
        to: Id,
        /// How long the message is.
        bytes: u32,
    },
    /// Send a message to the node with this id until it is delivered.
    SendReliable {
        /// Its id.
        to: Id,
        /// How long the message is.
        bytes: u32,
    },
    /// Send a message to all other members.
    Broadcast {
        /// How long the message is.
        bytes: u32,
    },
    /// Send a message to the nodes with these ids.
    Multicast {
        /// At most [`RECEIVERS_MAX`].
        to: Vec<Id>,
        /// How long the message is.
        bytes: u32,
    },
}

impl Errand {
    /// The command that a peer is given for it.
    pub fn command(&self, operation: u64) -> Command {
        match self {
            Errand::Put { key, bytes } => {
                Command::Insert { operation, key: *key, value: payload(operation, *bytes) }
            }
            Errand::Get { key } => Command::Get { operation, key: *key },
            Errand::Send { to, bytes } => {
                Command::Send { destination: *to, exact: true, payload: payload(operation, *bytes) }
            }
            Errand::SendReliable { to, bytes } => {
                Command::SendReliably { operation, destination: *to, payload: payload(operation, *bytes) }
            }
            Errand::Broadcast { bytes } => Command::Broadcast { payload: payload(operation, *bytes) },
            Errand::Multicast { to, bytes } => {
                Command::Multicast { destinations: to.clone(), payload: payload(operation, *bytes) }
            }
        }
    }

    /// Whether its node hears at once all that it will hear of it: what became of a message sent best effort is known where it
    /// goes to.
    pub fn ends_at_once(&self) -> bool {
        match self {
            Errand::Send { .. } | Errand::Broadcast { .. } | Errand::Multicast { .. } => true,
            Errand::Put { .. } | Errand::Get { .. } | Errand::SendReliable { .. } => false,
        }
    }

    /// How many nodes it names.
    pub fn receivers(&self) -> usize {
        match self {
            Errand::Send { .. } | Errand::SendReliable { .. } => 1,
            Errand::Multicast { to, .. } => to.len(),
            Errand::Put { .. } | Errand::Get { .. } | Errand::Broadcast { .. } => 0,
        }
    }
}

/// What an operation sends or stores: its number, and zeros up to so many bytes. One byte more than any node takes is enough to be
/// refused.
pub fn payload(operation: u64, bytes: u32) -> Bytes {
    let mut payload = operation.to_le_bytes().to_vec();
    payload.resize((bytes.max(BYTES_MIN) as usize).min(PAYLOAD_BYTES_MAX + 1), 0);
    payload.into()
}

/// The number of the operation that sent or stored this, if one did.
pub fn operation_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|number| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_whose_it_is_and_is_as_long_as_was_asked() {
        for (bytes, length) in [(0, 8), (8, 8), (100, 100), (u32::MAX, PAYLOAD_BYTES_MAX + 1)] {
            let payload = payload(u64::MAX - 7, bytes);
            assert_eq!((operation_of(&payload), payload.len()), (Some(u64::MAX - 7), length));
        }
        assert_eq!(operation_of(b"short"), None);
    }
}
