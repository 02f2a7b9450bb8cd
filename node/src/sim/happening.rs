//! What a simulation tells its user: what applications on the nodes would see.

use crate::id::Id;
use crate::message::dictionary::{Answer, DictionaryError};
use crate::message::{Found, RouteError};
use crate::peer::{Delivery, JoinError};

use super::membership::NodeNumber;

/// Something that happened at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// When, in microseconds since the simulation's start.
    pub at_us: u64,
    /// Where.
    pub node: NodeNumber,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is a member of the network.
    Joined,
    /// It could not join, and has ended.
    Rejected(JoinError),
    /// Its neighbours changed.
    Ring {
        /// Its predecessor, if it knows one.
        predecessor: Option<Id>,
        /// Its successor (itself while it is alone).
        successor: Id,
    },
    /// A look-up has ended.
    Completed {
        /// The caller's number for it.
        operation: u64,
        /// When it was given to the node, in microseconds.
        issued_us: u64,
        /// What became of it.
        result: Result<Found, RouteError>,
    },
    /// A reliable message has been delivered, or not.
    Sent {
        /// The caller's number for it.
        operation: u64,
        /// Why it was not.
        result: Result<(), RouteError>,
    },
    /// An operation on the dictionary has ended.
    Answered {
        /// The caller's number for it.
        operation: u64,
        /// What became of it.
        result: Result<Answer, DictionaryError>,
    },
    /// A message came for the application.
    Delivered(Delivery),
    /// A message could not be delivered.
    Undelivered {
        /// Where it was to go.
        destination: Id,
        /// Why it did not.
        reason: RouteError,
    },
    /// Items of the dictionary are left behind that nobody has taken over.
    ItemsLeftBehind {
        /// How many.
        items: usize,
    },
    /// It has left the network, and has ended.
    Left {
        /// Whether its successor took over.
        handed_over: bool,
    },
}
