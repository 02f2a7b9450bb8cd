//! The schedule: everything that a run will do, as data, before anything is done. A pure function of the plan (with its
//! seed) and the number of hosts.

mod chance;
mod churn;
mod faults;
mod jsonl;
mod lengths;
mod membership;
mod workload;

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex, NodeSlot};
use serde::Serialize;

use self::chance::{Chance, Stream};
use crate::plan::{Plan, Workload};

pub use self::jsonl::{JsonlError, LINE_BYTES_MAX, read_jsonl, write_jsonl};
pub use self::membership::VIA_MAX;
pub use self::workload::{DRAIN_US, SETTLING_US};

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
    /// Groups of nodes that its shaping actions speak of.
    pub groups: Vec<Vec<NodeIndex>>,
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
    /// To which nodes, in rising order.
    pub nodes: Vec<NodeIndex>,
}

/// Makes the schedule of `plan` on `hosts` hosts (0 counts as 1).
///
/// The nodes go round the hosts in turn. Who is drawn for what comes from the plan's seed, from a stream of its own for each
/// purpose: another workload does not change who is killed, nor do more hosts.
pub fn schedule(plan: &Plan, hosts: u32) -> Schedule {
    let membership = membership::draw(plan);
    let (mut ids, mut seeds) =
        (Chance::new(plan.seed, Stream::Ids), Chance::new(plan.seed, Stream::NodeSeeds));
    let ids = ids.distinct_ids(plan.net.ring(), membership.nodes as usize);
    let nodes = ids.into_iter().zip(0..).map(|(id, node)| PlacedNode {
        slot: NodeSlot { node, id, seed: seeds.next_u64() },
        host: node % hosts.max(1),
    });
    let nodes = nodes.collect();

    let end_us = micros(plan.duration);
    let mut faults = faults::draw(plan, &membership);
    let mut phases = membership.phases;
    phases.append(&mut faults.phases);
    phases.sort_by_key(|phase| phase.at_us);
    let mut actions = membership.actions;
    actions.retain(|action| action.at_us <= end_us);
    let mut lookups = Vec::new();
    for (Workload::Lookup { rate }, number) in plan.workload.iter().zip(0..) {
        lookups.extend(workload::draw(plan, number, *rate, &actions, end_us));
    }
    actions.append(&mut faults.actions);
    actions.extend(lookups);
    // Stable: at one moment nodes start and end first, in the timeline's order, and then their links change.
    actions.sort_by_key(|action| {
        let order = match action.kind {
            ActionKind::Shape { .. } => 1,
            ActionKind::Lookup { .. } => 2,
            _ => 0,
        };
        (action.at_us, order)
    });
    let mut operations = 0;
    for (action, number) in actions.iter_mut().zip(0..) {
        action.index = number;
        if let ActionKind::Lookup { operation, .. } = &mut action.kind {
            *operation = operations;
            operations += 1;
        }
    }
    Schedule { nodes, actions, phases, groups: faults.groups, operations, end_us }
}

fn micros(length: std::time::Duration) -> u64 {
    // A plan's times are at most 30 days.
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
