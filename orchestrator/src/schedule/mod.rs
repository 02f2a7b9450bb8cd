//! The schedule: everything that a run will do, as data, before anything is done. A pure function of the plan (with its
//! seed) and the number of hosts.

use p2ps::agent::protocol::{Action, NodeSlot};
use serde::Serialize;

/// A host's number in its run: `0..hosts`.
pub type HostIndex = u32;

/// Everything that a run will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// All nodes that will ever run, by their number.
    pub nodes: Vec<PlacedNode>,
    /// All actions of all hosts, sorted by time, numbered from 0.
    pub actions: Vec<Action>,
    /// The run's phases, in time order: the start, and then each step of the timeline.
    pub phases: Vec<Phase>,
    /// How many look-ups there are among the actions.
    pub operations: u64,
    /// When the run ends, in microseconds since its start.
    pub end_us: u64,
}

/// A node and its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlacedNode {
    /// Number, id and seed.
    pub slot: NodeSlot,
    /// Where it runs.
    pub host: HostIndex,
}

/// A stretch of the run with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// When it begins, in microseconds since the run's start.
    pub at_us: u64,
    /// What happens then, for people: `join 64 nodes`, `kill 10% (6 nodes)`.
    pub text: String,
}
