//! Whom a step is done to: groups with names, hosts, roles. What a plan says of them stands here; who they are is drawn from the
//! plan's seed when its schedule is made, so that the schedule itself names nodes only.

use std::fmt;

use p2ps::id::Id;
use serde::Serialize;

use super::units::share_text;
use super::{Amount, Plan, Step, StepEvent};

/// The most groups with names.
pub const NAMED_GROUPS_MAX: usize = 15;

/// The most hosts that are named in one place.
pub const HOSTS_NAMED_MAX: usize = 1_000;

/// A group of nodes with a name. A plan's groups have no node in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Who is in it.
    pub members: Members,
}

/// Who is in a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Members {
    /// So many of the nodes that join at the start (a share: of all of these), drawn among those in no other group. Who joins later
    /// is in no such group.
    Drawn(Amount),
    /// All nodes of these hosts, also those that join later.
    Hosts(HostChoice),
}

/// Some hosts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum HostChoice {
    /// So many, drawn by the seed (a share: of all).
    Drawn(Amount),
    /// Those with these names.
    Named(Vec<String>),
}

/// Whom a step is done to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Target {
    /// So many nodes, drawn by the seed.
    Some(Amount),
    /// Nodes of a group.
    Group {
        /// The group's name.
        group: String,
        /// So many of it (a share: of those of it that it can be done to).
        amount: Amount,
    },
    /// All nodes of these hosts.
    Hosts(HostChoice),
    /// The node that is responsible for this key then: of those that are up the first one at or after it.
    SuccessorOf(Id),
    /// The nodes with the largest ranges then, by the ids of those that are up: so many.
    Heaviest(Amount),
}

/// A side of a partition, or an end of links.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Side {
    /// This share of the nodes, drawn by the seed.
    Share(f64),
    /// The nodes of a group.
    Group(String),
    /// The nodes of these hosts.
    Hosts(HostChoice),
    /// All nodes on no other side, also those that join later.
    Rest,
}

/// The links that a step degrades.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Links {
    /// All that these nodes send.
    Of(Target),
    /// What the nodes of two sides send each other. Both may be the same: the links inside it.
    Between {
        /// One.
        first: Side,
        /// The other.
        second: Side,
        /// Only what the first sends the second.
        one_way: bool,
    },
}

/// What makes faults of links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum FaultsWith {
    /// The nodes themselves, in their COM layer: needs no privilege.
    #[default]
    Node,
    /// The hosts' kernels, by packet filters and queues: between hosts only.
    Kernel,
}

impl Plan {
    /// The hosts that the plan names, each once, in its order.
    pub fn hosts_named(&self) -> Vec<String> {
        let of_groups = self.groups.iter().filter_map(|group| match &group.members {
            Members::Hosts(hosts) => Some(hosts),
            Members::Drawn(_) => None,
        });
        let of_side = |side: &'_ Side| if let Side::Hosts(hosts) = side { Some(hosts.clone()) } else { None };
        let of_target =
            |target: &Target| if let Target::Hosts(hosts) = target { Some(hosts.clone()) } else { None };
        let of_step = |step: &Step| -> Vec<HostChoice> {
            match &step.event {
                StepEvent::Leave(target)
                | StepEvent::Kill(target)
                | StepEvent::Restart(target)
                | StepEvent::Pause { target, .. }
                | StepEvent::Degrade { links: Links::Of(target), .. } => {
                    of_target(target).into_iter().collect()
                }
                StepEvent::Degrade { links: Links::Between { first, second, .. }, .. } => {
                    [first, second].into_iter().filter_map(of_side).collect()
                }
                StepEvent::Partition { sides, .. } => sides.iter().filter_map(of_side).collect(),
                _ => Vec::new(),
            }
        };
        let mut names = Vec::new();
        for choice in of_groups.cloned().chain(self.timeline.iter().flat_map(of_step)) {
            let HostChoice::Named(named) = choice else { continue };
            for name in named {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

impl Target {
    /// How many nodes, where the plan alone says so.
    pub fn amount(&self) -> Option<Amount> {
        match self {
            Target::Some(amount) | Target::Heaviest(amount) => Some(*amount),
            Target::SuccessorOf(_) => Some(Amount::Count(1)),
            Target::Group { .. } | Target::Hosts(_) => None,
        }
    }
}

impl From<Amount> for Target {
    fn from(amount: Amount) -> Target {
        Target::Some(amount)
    }
}

/// As plans write it, and so all of these.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => count.fmt(f),
            Amount::Share(share) => f.write_str(&share_text(*share)),
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Members::Drawn(amount) => amount.fmt(f),
            Members::Hosts(hosts) => write!(f, "{{hosts: {hosts}}}"),
        }
    }
}

impl fmt::Display for HostChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostChoice::Drawn(amount) => amount.fmt(f),
            HostChoice::Named(names) => write!(f, "[{}]", names.join(", ")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Some(amount) => amount.fmt(f),
            Target::Group { group, amount: Amount::Share(1.0) } => write!(f, "{{group: {group}}}"),
            Target::Group { group, amount } => write!(f, "{{group: {group}, nodes: {amount}}}"),
            Target::Hosts(hosts) => write!(f, "{{hosts: {hosts}}}"),
            Target::SuccessorOf(key) => write!(f, "{{successor_of: {}}}", key.0),
            Target::Heaviest(amount) => write!(f, "{{heaviest: {amount}}}"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Side::Share(share) => f.write_str(&share_text(*share)),
            Side::Group(group) => f.write_str(group),
            Side::Hosts(hosts) => write!(f, "{{hosts: {hosts}}}"),
            Side::Rest => f.write_str("rest"),
        }
    }
}

/// With the key of `degrade:` that says it.
impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Links::Of(target) => write!(f, "nodes: {target}"),
            Links::Between { first, second, .. } => write!(f, "between: [{first}, {second}]"),
        }
    }
}

impl FaultsWith {
    /// As plans write it.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultsWith::Node => "node",
            FaultsWith::Kernel => "kernel",
        }
    }
}
