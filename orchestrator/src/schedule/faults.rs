//! Partitions and degraded links: what each node does to what it sends, and when that changes.
//!
//! At each moment the partitions that are under way part the nodes into groups: those that are on the same side of each. A node
//! has one rule for each group that it does something to. Several faults that hold for a node at once combine: latencies and jitters
//! add up (the larger jitter gives its distribution), each loses its share of what the others leave, the least bandwidth counts, and
//! what one partition cuts is cut.
//!
//! Agents keep the rules of nodes that end, for when they start again; a node that starts for the first time while a fault is under
//! way is told at its start. Who is not up when a partition of shares begins is, when it starts, on the side of the first node that it
//! joins by; groups and hosts have their nodes whenever these run. At the run's end everything is healed.

use std::collections::{BTreeMap, BTreeSet};

use p2ps::agent::protocol::{Action, ActionKind, GroupIndex, NodeIndex, ShapeRule};
use p2ps::com::shaping::{Cut, LinkShape};

use super::cast::Cast;
use super::chance::{Chance, Stream};
use super::membership::{Membership, count_text};
use super::sides::{self, BOTH, FIRST, NO_SIDE, SECOND};
use super::{HostIndex, Phase, ScheduleError, micros};
use crate::plan::targets::{FaultsWith, Links};
use crate::plan::{Plan, StepEvent};

/// What the faults of a plan come to.
#[derive(Default)]
pub(crate) struct Faults {
    /// Shaping actions, in time order.
    pub(crate) actions: Vec<Action>,
    pub(crate) phases: Vec<Phase>,
    pub(crate) groups: Vec<Vec<NodeIndex>>,
}

/// Draws the faults of links of `plan`.
pub(super) fn draw(
    plan: &Plan,
    membership: &Membership,
    cast: &mut Cast<'_>,
) -> Result<Faults, ScheduleError> {
    let mut drawing = Drawing { plan, membership, cast, episodes: Vec::new(), phases: Vec::new() };
    for (number, up) in &membership.up_at {
        drawing.step(*number, up)?;
    }
    let Drawing { episodes, phases, .. } = drawing;
    let mut shaping = Shaping { is_up: vec![false; membership.nodes as usize], ..Shaping::default() };
    let mut moments: BTreeSet<u64> =
        episodes.iter().flat_map(|episode| [episode.from_us, episode.until_us]).collect();
    let end_us = micros(plan.duration);
    moments.retain(|at_us| *at_us <= end_us);
    let mut starts = membership.actions.iter().peekable();
    for now_us in moments {
        while let Some(action) = starts.next_if(|action| action.at_us <= now_us) {
            shaping.follow(action, now_us);
        }
        let now = At::new(&episodes, now_us, membership.nodes, &mut shaping.groups);
        shaping.turn(now_us, now);
    }
    for action in starts.filter(|action| action.at_us <= end_us) {
        shaping.follow(action, u64::MAX);
    }
    Ok(Faults { actions: shaping.actions, phases, groups: shaping.groups.lists })
}

/// A fault of links, while it lasts: `[from_us, until_us)`.
struct Episode {
    from_us: u64,
    until_us: u64,
    fault: Fault,
}

enum Fault {
    /// Nodes on different sides cannot reach each other.
    Partition {
        /// The side of each node that ever runs.
        sides: Vec<u8>,
        one_way: bool,
    },
    /// What these nodes send to anybody is degraded.
    Of {
        /// In rising order.
        nodes: Vec<NodeIndex>,
        shape: LinkShape,
    },
    /// What the nodes at two ends send each other is degraded.
    Between {
        /// The end of each node that ever runs.
        ends: Vec<u8>,
        one_way: bool,
        shape: LinkShape,
    },
}

/// What the plan's steps come to.
struct Drawing<'a, 'c, 'p> {
    plan: &'a Plan,
    membership: &'a Membership,
    cast: &'c mut Cast<'p>,
    episodes: Vec<Episode>,
    phases: Vec<Phase>,
}

impl Drawing<'_, '_, '_> {
    /// Draws the episode that step `number` begins while the nodes of `up` are up, or ends those that it heals.
    fn step(&mut self, number: usize, up: &[NodeIndex]) -> Result<(), ScheduleError> {
        let Some(step) = self.plan.timeline.get(number) else { return Ok(()) };
        let at_us = micros(step.at);
        let mut chance = Chance::new(self.plan.seed, Stream::Step(number as u64));
        let (fault, nodes, until, who) = match &step.event {
            StepEvent::Partition { sides: said, one_way, until } => {
                let sides = sides::sides_of(&mut chance, said, up, self.membership, at_us, self.cast)?;
                let who = counts(up, &sides, said.len() as u8);
                (Fault::Partition { sides, one_way: *one_way }, up.to_vec(), *until, who)
            }
            StepEvent::Degrade { links: Links::Of(target), shape, until } => {
                let nodes = self.cast.choose(&mut chance, target, up.to_vec(), up)?;
                let who = count_text(nodes.len());
                let degraded = match self.plan.faults {
                    FaultsWith::Node => nodes.clone(),
                    FaultsWith::Kernel => self.all_of_their_hosts(&nodes),
                };
                (Fault::Of { nodes: degraded, shape: *shape }, nodes, *until, who)
            }
            StepEvent::Degrade { links: Links::Between { first, second, one_way }, shape, until } => {
                let ends = sides::ends_of(&mut chance, first, second, self.membership.nodes, self.cast)?;
                let mut nodes = up.to_vec();
                nodes.retain(|node| ends[*node as usize] != NO_SIDE);
                let who = count_text(nodes.len());
                (Fault::Between { ends, one_way: *one_way, shape: *shape }, nodes, *until, who)
            }
            _ => {
                self.heal(at_us, &step.text);
                return Ok(());
            }
        };
        self.phases.push(Phase { at_us, text: format!("{} ({who})", step.text), nodes: nodes.clone() });
        let end_us = micros(self.plan.duration);
        let until_us = until.map_or(end_us, micros);
        if until_us < end_us {
            self.phases.push(Phase { at_us: until_us, text: format!("{} heals", step.text), nodes });
        }
        self.episodes.push(Episode { from_us: at_us, until_us, fault });
        Ok(())
    }

    /// All nodes that ever run on the hosts of these: kernels do not tell them apart.
    fn all_of_their_hosts(&self, nodes: &[NodeIndex]) -> Vec<NodeIndex> {
        let hosts: BTreeSet<HostIndex> = nodes.iter().map(|node| self.cast.host(*node)).collect();
        (0..self.membership.nodes).filter(|node| hosts.contains(&self.cast.host(*node))).collect()
    }

    fn heal(&mut self, at_us: u64, text: &str) {
        for episode in self.episodes.iter_mut().filter(|episode| episode.until_us > at_us) {
            episode.until_us = at_us;
        }
        // What would have healed later has healed.
        self.phases.retain(|phase| phase.at_us <= at_us);
        self.phases.push(Phase { at_us, text: text.to_owned(), nodes: Vec::new() });
    }
}

/// How many of `up` are on each side: `24 and 24 nodes`, and perhaps `, 3 on none`.
fn counts(up: &[NodeIndex], drawn: &[u8], sides: u8) -> String {
    let on = |side: u8| up.iter().filter(|node| drawn[**node as usize] == side).count();
    let counts: Vec<String> = (0..sides).map(|side| on(side).to_string()).collect();
    match on(NO_SIDE) {
        0 => format!("{} nodes", counts.join(" and ")),
        none => format!("{} nodes, {none} on no side", counts.join(" and ")),
    }
}

/// The groups of the whole run, each once.
#[derive(Default)]
struct Groups {
    lists: Vec<Vec<NodeIndex>>,
    known: BTreeMap<Vec<NodeIndex>, GroupIndex>,
}

impl Groups {
    fn index(&mut self, nodes: Vec<NodeIndex>) -> GroupIndex {
        let next = self.lists.len() as GroupIndex;
        *self.known.entry(nodes).or_insert_with_key(|nodes| {
            self.lists.push(nodes.clone());
            next
        })
    }
}

/// The faults of one moment.
#[derive(Default)]
struct At {
    /// Each group with where it is in each of `parting`.
    groups: Vec<(GroupIndex, Vec<u8>)>,
    /// The same of each node.
    places: Vec<Vec<u8>>,
    /// The faults that tell groups apart.
    parting: Vec<Parting>,
    /// What is done to all that a node sends.
    shapes: BTreeMap<NodeIndex, LinkShape>,
}

/// What is done between nodes, by where they are.
enum Parting {
    /// On sides.
    Partition { one_way: bool },
    /// At ends.
    Between { one_way: bool, shape: LinkShape },
}

impl At {
    fn new(episodes: &[Episode], now_us: u64, nodes: u32, groups: &mut Groups) -> At {
        let mut at = At { places: vec![Vec::new(); nodes as usize], ..At::default() };
        for episode in
            episodes.iter().filter(|episode| episode.from_us <= now_us && now_us < episode.until_us)
        {
            match &episode.fault {
                Fault::Partition { sides, one_way } => {
                    at.part(sides, Parting::Partition { one_way: *one_way })
                }
                Fault::Between { ends, one_way, shape } => {
                    at.part(ends, Parting::Between { one_way: *one_way, shape: *shape });
                }
                Fault::Of { nodes, shape } => {
                    for node in nodes {
                        let combined = at.shapes.get(node).map_or(*shape, |other| combined(*other, *shape));
                        at.shapes.insert(*node, combined);
                    }
                }
            }
        }
        if at.parting.is_empty() && at.shapes.is_empty() {
            return at;
        }
        let mut lists: BTreeMap<Vec<u8>, Vec<NodeIndex>> = BTreeMap::new();
        for (places, node) in at.places.iter().zip(0..) {
            lists.entry(places.clone()).or_default().push(node);
        }
        at.groups = lists.into_iter().map(|(places, nodes)| (groups.index(nodes), places)).collect();
        at
    }

    fn part(&mut self, places: &[u8], parting: Parting) {
        self.places.iter_mut().zip(places).for_each(|(all, place)| all.push(*place));
        self.parting.push(parting);
    }

    /// What `node` does to what it sends.
    fn rules(&self, node: NodeIndex) -> Vec<ShapeRule> {
        let Some(own) = self.places.get(node as usize) else { return Vec::new() };
        let of_node = self.shapes.get(&node).copied().unwrap_or_default();
        let rules = self.groups.iter().map(|(to, others)| {
            let (mut shape, mut sends, mut hears) = (of_node, true, true);
            for ((own, other), parting) in own.iter().zip(others).zip(&self.parting) {
                match parting {
                    Parting::Partition { one_way } => {
                        let apart = own != other && *own != NO_SIDE && *other != NO_SIDE;
                        sends &= !apart || (*one_way && own > other);
                        hears &= !apart || (*one_way && own < other);
                    }
                    Parting::Between { one_way, shape: between } => {
                        let goes =
                            |from: u8, to: u8| matches!(from, FIRST | BOTH) && matches!(to, SECOND | BOTH);
                        if goes(*own, *other) || (!one_way && goes(*other, *own)) {
                            shape = combined(shape, *between);
                        }
                    }
                }
            }
            let cut = match (sends, hears) {
                (true, true) => Cut::None,
                (true, false) => Cut::In,
                (false, true) => Cut::Out,
                (false, false) => Cut::Both,
            };
            ShapeRule { to: *to, shape: LinkShape { cut, ..shape } }
        });
        rules.filter(|rule| rule.shape != LinkShape::default()).collect()
    }
}

/// Two degradations of the same link.
fn combined(a: LinkShape, b: LinkShape) -> LinkShape {
    let least = match (a.bytes_per_second, b.bytes_per_second) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    };
    let kept = (1_000_000 - u64::from(a.loss_ppm.min(1_000_000)))
        * (1_000_000 - u64::from(b.loss_ppm.min(1_000_000)));
    LinkShape {
        cut: a.cut,
        latency_us: a.latency_us.saturating_add(b.latency_us),
        jitter_us: a.jitter_us.saturating_add(b.jitter_us),
        distribution: if a.jitter_us >= b.jitter_us { a.distribution } else { b.distribution },
        // Shares of a million: the product of two is below 2^40, and what is left of a million is one again.
        loss_ppm: 1_000_000 - (kept / 1_000_000) as u32,
        bytes_per_second: least,
    }
}

/// What each node has been told. Its agent lets that stand when the node ends, and for when it starts again: so one that is down
/// is told too when it changes.
#[derive(Default)]
struct Shaping {
    actions: Vec<Action>,
    groups: Groups,
    is_up: Vec<bool>,
    /// Rules that stand, of those nodes that have some.
    rules: BTreeMap<NodeIndex, Vec<ShapeRule>>,
    now: At,
}

impl Shaping {
    /// A node starts or ends. One that starts at the very moment `turns_us` at which the faults change is told then.
    fn follow(&mut self, action: &Action, turns_us: u64) {
        match action.kind {
            ActionKind::Spawn { .. } => {
                self.is_up[action.node as usize] = true;
                if action.at_us < turns_us {
                    self.tell(action.at_us, action.node);
                }
            }
            ActionKind::Kill | ActionKind::Leave => {
                self.is_up[action.node as usize] = false;
            }
            _ => {}
        }
    }

    /// The faults change.
    fn turn(&mut self, at_us: u64, now: At) {
        self.now = now;
        for node in 0..self.is_up.len() as NodeIndex {
            if self.is_up[node as usize] || self.rules.contains_key(&node) {
                self.tell(at_us, node);
            }
        }
    }

    /// Tells a node its rules, if they are not what it knows.
    fn tell(&mut self, at_us: u64, node: NodeIndex) {
        let rules = self.now.rules(node);
        if self.rules.get(&node).map_or(&[][..], Vec::as_slice) == rules.as_slice() {
            return;
        }
        if rules.is_empty() {
            self.rules.remove(&node);
        } else {
            self.rules.insert(node, rules.clone());
        }
        self.actions.push(Action { index: 0, at_us, node, kind: ActionKind::Shape { rules } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_degradations_are_worse_than_each() {
        let a = LinkShape { latency_us: 100, jitter_us: 5, loss_ppm: 500_000, ..LinkShape::default() };
        let b =
            LinkShape { latency_us: 20, loss_ppm: 500_000, bytes_per_second: 1000, ..LinkShape::default() };
        let both = combined(a, b);
        assert_eq!(
            (both.latency_us, both.jitter_us, both.loss_ppm, both.bytes_per_second),
            (120, 5, 750_000, 1000)
        );
        assert_eq!(combined(b, a), both);
    }
}
