//! Why two nodes made no link.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::com::channel::ChannelError;
use crate::config::NetConfig;
use crate::id::{Id, Ring};
use crate::message::Contact;

/// Why two nodes made no link.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection could not be made, or broke.
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    /// The other end took too long.
    #[error("no handshake in time")]
    TimedOut,
    /// The other end does not speak P2PS.
    #[error("the other end does not speak P2PS")]
    NotP2ps,
    /// The other end speaks P2PS's version, but not its form.
    #[error("the handshake cannot be understood")]
    Malformed,
    /// The other end speaks another version of the protocol (P2PS 1.0's `versionMismatch`).
    #[error("this node speaks version {ours} of the protocol, the other version {theirs}")]
    OtherVersion {
        /// This node's version.
        ours: u16,
        /// The other's version.
        theirs: u16,
    },
    /// The other end belongs to a network with other settings.
    #[error("this node's network has other settings ({ours}) than the other's ({theirs})")]
    OtherSettings {
        /// This node's settings.
        ours: NetConfig,
        /// The other's settings.
        theirs: NetConfig,
    },
    /// Another node answers where one was expected.
    #[error(
        "node {id} (incarnation {incarnation}) was expected, node {} (incarnation {}) answered",
        found.id,
        found.incarnation
    )]
    OtherNode {
        /// The id that was expected.
        id: Id,
        /// The incarnation that was expected.
        incarnation: u64,
        /// Who answered.
        found: Contact,
    },
    /// An id is not on the network's ring.
    #[error("id {id} is not on the network's ring of {ring} ids")]
    OffRing {
        /// The id.
        id: Id,
        /// The ring.
        ring: Ring,
    },
    /// A node dialled itself.
    #[error("the node at the other end is this node itself")]
    Itself,
    /// One end's network has a key that the other's has not.
    #[error("the network keys do not match: {0}")]
    OtherKey(KeyMismatch),
    /// The channel to the other end broke.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The dialled node has as many links as it may have.
    #[error("the node has no room for another link")]
    Full,
}

impl HandshakeError {
    /// Whether another attempt with the same node must end in the same way.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            HandshakeError::NotP2ps
                | HandshakeError::OtherVersion { .. }
                | HandshakeError::OtherSettings { .. }
                | HandshakeError::OffRing { .. }
                | HandshakeError::Itself
                | HandshakeError::OtherKey(_)
        )
    }
}

/// How the keys of two nodes' networks differ, as one of them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyMismatch {
    /// Only its own network has a key.
    OnlyOurs,
    /// Only the other's network has a key.
    OnlyTheirs,
    /// Both have one, and not the same.
    Differ,
}

impl KeyMismatch {
    /// The same, as the other one sees it.
    pub(super) fn as_the_other_sees_it(self) -> KeyMismatch {
        match self {
            KeyMismatch::OnlyOurs => KeyMismatch::OnlyTheirs,
            KeyMismatch::OnlyTheirs => KeyMismatch::OnlyOurs,
            KeyMismatch::Differ => KeyMismatch::Differ,
        }
    }
}

impl fmt::Display for KeyMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyMismatch::OnlyOurs => "this node has a network key, the other works without one",
            KeyMismatch::OnlyTheirs => "the other node's network has a key, and this node was given none",
            KeyMismatch::Differ => "this node's network key is another than the other node's",
        })
    }
}
