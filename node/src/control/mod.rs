//! What a managed node is told and what it tells. As a process of its own (`p2ps-node run --managed`) it hears on standard
//! input and says on standard output: JSON, one value a line. As a task of its agent it hears the same lines in memory.
//!
//! The first line in is a [`Setup`], all later ones are [`Order`]s; each line out is a [`Report`]. End of input is the
//! node's lifeline: whoever started it is gone, and it ends at once.
//!
//! All times are microseconds on the host's monotonic clock (`CLOCK_MONOTONIC`), which all processes of a host share.

pub mod errand;
pub mod managed;
pub(crate) mod session;
mod under_way;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::access_point::AccessPoint;
use crate::com::key::NetworkKey;
use crate::com::shaping::LinkShape;
use crate::config::NetConfig;
use crate::id::Id;
use crate::message::RouteError;
use crate::message::dictionary::{Answer, DictionaryError, Version};
use crate::metrics::Snapshot;

pub use self::errand::Errand;

/// The longest line that is read, in bytes; a longer one is an error.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What a node is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The network's settings.
    pub net: NetConfig,
    /// The node's id.
    pub id: Id,
    /// Where it accepts links; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Access points of nodes to join by, tried in turn; empty: this node creates the network.
    pub join: Vec<AccessPoint>,
    /// The seed of the protocol's randomness.
    pub seed: u64,
    /// Where `/metrics` is served; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// What it does to its links from its first moment, as in [`Order::Shape`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<(Vec<Id>, LinkShape)>,
    /// The network's key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_key: Option<NetworkKey>,
}

/// What a node is told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Look a key up; ends in a [`Report::Operation`].
    Lookup {
        /// The run's number for this operation.
        operation: u64,
        /// The key.
        key: Id,
        /// When it was meant to start: latency counts from here (no coordinated omission).
        intended_us: u64,
    },
    /// Do something else for the workload; ends in a [`Report::Operation`].
    Errand {
        /// The run's number for this operation.
        operation: u64,
        /// What.
        what: Errand,
    },
    /// Leave gracefully, then end.
    Leave,
    /// Answer with a [`Report::Sample`].
    Sample,
    /// Shape the links to these nodes so from now on, and no others; without rules all are healed.
    Shape {
        /// Nodes, by their ids, and what is done to the links to each. Where several name a node, the last one counts.
        rules: Vec<(Vec<Id>, LinkShape)>,
    },
}

/// What a node tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It accepts links.
    Listening {
        /// Where.
        access_point: AccessPoint,
        /// Where `/metrics` is served, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metrics: Option<SocketAddr>,
    },
    /// It is a member of the network.
    Joined {
        /// Since when.
        at_us: u64,
    },
    /// Its neighbours changed.
    Ring {
        /// When.
        at_us: u64,
        /// Its predecessor, if it knows one.
        predecessor: Option<Id>,
        /// Its successor (itself while it is alone).
        successor: Id,
    },
    /// An operation has ended.
    Operation(OperationReport),
    /// It got a message of an operation.
    Delivered {
        /// The run's number for the operation that sent it.
        operation: u64,
        /// When.
        at_us: u64,
    },
    /// A message that it sent best effort will not reach its destination.
    Undelivered {
        /// Where it was to go.
        destination: Id,
        /// When this was known.
        at_us: u64,
        /// Why it will not.
        reason: RouteError,
    },
    /// The answer to [`Order::Sample`].
    Sample(Box<Snapshot>),
    /// It has left the network, and ends.
    Left {
        /// When its duty ended.
        at_us: u64,
        /// Whether its successor took over.
        handed_over: bool,
    },
    /// It cannot go on, and ends.
    Failed {
        /// Why, for people.
        error: String,
    },
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationReport {
    /// The run's number for it.
    pub operation: u64,
    /// When it was issued.
    pub issued_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// Its outcome.
    pub outcome: Outcome,
}

/// The outcome of an operation, as the node saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The look-up found a responsible.
    Found {
        /// Its id.
        responsible: Id,
        /// The hops it took.
        hops: u16,
    },
    /// The put was written, in all of the key's places.
    Written {
        /// As which version.
        version: Version,
    },
    /// The get was answered.
    Read {
        /// The run's number for the put whose value the key has (none: the value is nobody's), and that value's version; `None`: it
        /// has no value.
        value: Option<(Option<u64>, Version)>,
    },
    /// The message was sent; of a reliable one: it was delivered.
    Sent,
    /// It failed.
    Failed(RouteError),
    /// It failed, for a reason that only the dictionary knows.
    Refused(DictionaryError),
}

impl From<DictionaryError> for Outcome {
    fn from(error: DictionaryError) -> Outcome {
        match error {
            DictionaryError::Route(reason) => Outcome::Failed(reason),
            error => Outcome::Refused(error),
        }
    }
}

impl Outcome {
    /// An operation on the dictionary ended well.
    pub fn answered(answer: Answer) -> Outcome {
        match answer {
            Answer::Written(written) => Outcome::Written { version: written.version },
            Answer::Value(stored) => {
                Outcome::Read { value: stored.map(|s| (errand::operation_of(&s.value), s.version)) }
            }
        }
    }
}
