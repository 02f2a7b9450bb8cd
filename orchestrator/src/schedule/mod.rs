//! The schedule: everything that a run will do, as data, before anything is done. A pure function of the plan (with its
//! seed) and the hosts' names.

mod cast;
mod chance;
mod churn;
mod faults;
mod jsonl;
mod keys;
mod lengths;
mod membership;
mod sides;
mod workload;

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex, NodeSlot};
use serde::Serialize;

use self::cast::Cast;
use self::chance::{Chance, Stream};
use crate::plan::targets::{FaultsWith, Links, Target};
use crate::plan::{Amount, Plan, Step, StepEvent};

pub use self::cast::Hosts;
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
    /// How many operations of workloads there are among the actions.
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

/// Why a plan cannot be carried out on the hosts that there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The plan names a host that the run does not have.
    #[error("the run has no host called {host}: it has {}", some_of(hosts))]
    UnknownHost {
        /// That host.
        host: String,
        /// Those that the run has.
        hosts: Vec<String>,
    },
    /// There are not as many hosts.
    #[error(
        "{wanted} hosts are wanted, {left} are left: take fewer, run on more, or let nodes count as more hosts (virtual_hosts: 8)"
    )]
    TooFewHosts {
        /// So many are wanted.
        wanted: u32,
        /// So many there are, but for those that were taken already.
        left: u32,
    },
    /// Groups of hosts leave too few nodes for a group.
    #[error(
        "the group {group} wants {wanted} nodes, but groups of hosts leave {left}: take fewer nodes or hosts"
    )]
    GroupTooLarge {
        /// The group.
        group: String,
        /// So many are wanted.
        wanted: u32,
        /// So many are left.
        left: u32,
    },
    /// A step ends all nodes.
    #[error("`{step}` at {at} takes all {up} nodes that are up then: no network is left that one could join")]
    NobodyLeft {
        /// The step.
        step: String,
        /// When it is.
        at: String,
        /// So many are up.
        up: usize,
    },
    /// Two sides of a partition have a node in common.
    #[error(
        "node {node} is on two sides of one partition: part groups, or hosts, but not groups from hosts with their nodes"
    )]
    Overlap {
        /// That node.
        node: NodeIndex,
    },
    /// Kernels tell hosts apart, and all nodes are on one.
    #[error(
        "faults: {{with: kernel}} tells hosts apart, but all nodes of this run are on one: run on more, or take with: node"
    )]
    OneHost,
}

/// The most names that an error lists.
const NAMES_LISTED_MAX: usize = 12;

fn some_of(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMES_LISTED_MAX)].join(", ");
    if names.len() > NAMES_LISTED_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_LISTED_MAX));
    }
    text
}

/// Makes the schedule of `plan` on `hosts`: on so many, or on those with names.
///
/// The nodes go round the hosts in turn. Who is drawn for what comes from the plan's seed, from a stream of its own for each
/// purpose: another workload does not change who is killed, nor do more hosts, unless the plan speaks of hosts.
///
/// # Errors
/// [`ScheduleError`], where the plan speaks of hosts that are not there, or asks more of them than they have.
pub fn schedule(plan: &Plan, hosts: impl Into<Hosts>) -> Result<Schedule, ScheduleError> {
    let hosts: Hosts = hosts.into();
    let parts = |step: &Step| match &step.event {
        StepEvent::Partition { .. } => true,
        StepEvent::Degrade { links, .. } => *links != Links::Of(Target::Some(Amount::Share(1.0))),
        _ => false,
    };
    if plan.faults == FaultsWith::Kernel && hosts.count() == 1 && plan.timeline.iter().any(parts) {
        return Err(ScheduleError::OneHost);
    }
    let mut cast = Cast::new(plan, &hosts)?;
    let membership = membership::draw(plan, &mut cast)?;
    let mut seeds = Chance::new(plan.seed, Stream::NodeSeeds);
    let nodes = cast.ids(membership.nodes).into_iter().zip(0..).map(|(id, node)| PlacedNode {
        slot: NodeSlot { node, id, seed: seeds.next_u64() },
        host: node % hosts.count(),
    });
    let nodes: Vec<PlacedNode> = nodes.collect();

    let end_us = micros(plan.duration);
    let mut faults = faults::draw(plan, &membership, &mut cast)?;
    let mut phases = membership.phases;
    phases.append(&mut faults.phases);
    phases.sort_by_key(|phase| phase.at_us);
    let mut actions = membership.actions;
    actions.retain(|action| action.at_us <= end_us);
    let numbers = 0..plan.workload.len() as u64;
    let asked: Vec<Action> =
        numbers.flat_map(|number| workload::draw(plan, number, &nodes, &actions)).collect();
    actions.append(&mut faults.actions);
    actions.extend(asked);
    // Stable: at one moment nodes start and end first, in the timeline's order, and then their links change.
    actions.sort_by_key(|action| {
        let order = match action.kind {
            ActionKind::Shape { .. } => 1,
            ActionKind::Lookup { .. } | ActionKind::Errand { .. } => 2,
            _ => 0,
        };
        (action.at_us, order)
    });
    let mut operations = 0;
    for (action, number) in actions.iter_mut().zip(0..) {
        action.index = number;
        if let Some(operation) = action.kind.operation_mut() {
            *operation = operations;
            operations += 1;
        }
    }
    Ok(Schedule { nodes, actions, phases, groups: faults.groups, operations, end_us })
}

fn micros(length: std::time::Duration) -> u64 {
    // A plan's times are at most 30 days.
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
