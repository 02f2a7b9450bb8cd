//! What can go wrong with a node.

use std::io;
use std::net::SocketAddr;

use super::ACCESS_POINTS_MAX;
use crate::access_point::{AccessPoint, AccessPointError};
use crate::com::handshake::HandshakeError;
use crate::id::{Id, Ring};
use crate::message::RouteError;
use crate::message::dictionary::DictionaryError;
use crate::peer::JoinError;

/// What can go wrong with a node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The node's settings do not work (P2PS 1.0's `couldNotConfig`).
    #[error("the node's settings do not work: {0}")]
    CouldNotConfig(#[source] ConfigProblem),
    /// A text is no access point (P2PS 1.0's `wrongAPFormat`).
    #[error(transparent)]
    WrongAccessPoint(#[from] AccessPointError),
    /// The node cannot accept links.
    #[error("cannot listen on {listen}: {source}")]
    CouldNotListen {
        /// Where it was to listen.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The node is not let into the network (P2PS 1.0's `couldNotJoin`, `nodeAlreadyInNetwork`).
    #[error("cannot join: {0}")]
    CouldNotJoin(#[source] JoinError),
    /// A node of the network makes no link with this one (P2PS 1.0's `versionMismatch`, among others).
    #[error("cannot join by {access_point}: {source}")]
    Refused {
        /// Whom it tried to join by: the last of those given.
        access_point: AccessPoint,
        /// Why.
        source: HandshakeError,
    },
    /// An id or a key is not on the network's ring.
    #[error("{id} is not on the ring: ids and keys are 0 to {}", ring.last())]
    NotOnRing {
        /// The id.
        id: Id,
        /// The ring.
        ring: Ring,
    },
    /// More successors than a node knows (P2PS 1.0's `nrSuccTooLarge`).
    #[error("{count} successors: the network's successor lists have {length}")]
    TooManySuccessors {
        /// How many were wanted.
        count: usize,
        /// How many there are.
        length: usize,
    },
    /// A look-up or a message did not get through.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// An operation on the dictionary failed.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
    /// The node has left or was stopped (P2PS 1.0's `nodeHasLeft`).
    #[error("the node has left its network")]
    HasStopped,
}

/// Why a node's settings do not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// It would tell others an address that means any address.
    #[error("others cannot reach a node at {0}: say which address to advertise")]
    NoAddress(SocketAddr),
    /// There is nobody to join by, or too many are named.
    #[error("{0} access points to join by were given, 1 to {ACCESS_POINTS_MAX} are allowed")]
    AccessPoints(usize),
    /// It is to be a client in any case, and the first node of a network.
    #[error("the first node of a network can be nobody's client: let it be a member")]
    ClientOfNobody,
    /// The system gives no random numbers for what was left to it.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
}
