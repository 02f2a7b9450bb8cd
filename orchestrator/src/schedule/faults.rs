//! Partitions and degraded links: what each node does to what it sends, and when that changes.
//!
//! At each moment the partitions that are under way part the nodes into groups: those that are on the same side of each. A node
//! has one rule for each group that it does something to. Several faults that hold for a node at once combine: latencies and jitters
//! add up (the larger jitter gives its distribution), each loses its share of what the others leave, the least bandwidth counts, and
//! what one partition cuts is cut.
//!
//! A rule lives in the node's process: one that starts while a fault is under way is told at its start. Who is not up when a partition
//! begins is, when it starts, on the side of the first node that it joins by. At the run's end everything is healed.

use std::collections::{BTreeMap, BTreeSet};

use p2ps::agent::protocol::{Action, ActionKind, GroupIndex, NodeIndex, ShapeRule};
use p2ps::com::shaping::{Cut, LinkShape};

use super::chance::{Chance, Stream};
use super::membership::{Membership, count_text};
use super::{Phase, micros};
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
pub(crate) fn draw(plan: &Plan, membership: &Membership) -> Faults {
    let mut episodes = Vec::new();
    let mut phases = Vec::new();
    for (number, up) in &membership.up_at {
        episode(plan, membership, *number, up, &mut episodes, &mut phases);
    }
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
    Faults { actions: shaping.actions, phases, groups: shaping.groups.lists }
}

/// A fault of links, while it lasts: `[from_us, until_us)`.
struct Episode {
    from_us: u64,
    until_us: u64,
    fault: Fault,
}

enum Fault {
    Partition {
        /// The side of each node that ever runs.
        sides: Vec<u8>,
        one_way: bool,
    },
    Degrade {
        /// In rising order.
        nodes: Vec<NodeIndex>,
        shape: LinkShape,
    },
}

/// Draws the episode that step `number` begins, or ends those that it heals.
fn episode(
    plan: &Plan,
    membership: &Membership,
    number: usize,
    up: &[NodeIndex],
    episodes: &mut Vec<Episode>,
    phases: &mut Vec<Phase>,
) {
    let Some(step) = plan.timeline.get(number) else { return };
    let (at_us, end_us) = (micros(step.at), micros(plan.duration));
    let mut chance = Chance::new(plan.seed, Stream::Step(number as u64));
    let (fault, nodes, until) = match &step.event {
        StepEvent::Partition { sides, one_way, until } => {
            let drawn = draw_sides(&mut chance, sides, up, membership, at_us);
            let counts: Vec<String> = (0..sides.len())
                .map(|side| {
                    up.iter().filter(|node| usize::from(drawn[**node as usize]) == side).count().to_string()
                })
                .collect();
            let text = format!("{} ({} nodes)", step.text, counts.join(" and "));
            phases.push(Phase { at_us, text, nodes: up.to_vec() });
            (Fault::Partition { sides: drawn, one_way: *one_way }, up.to_vec(), *until)
        }
        StepEvent::Degrade { amount, shape, until } => {
            let mut nodes = chance.sample(up.to_vec(), amount.of(up.len() as u32) as usize);
            nodes.sort_unstable();
            let text = format!("{} ({})", step.text, count_text(nodes.len()));
            phases.push(Phase { at_us, text, nodes: nodes.clone() });
            (Fault::Degrade { nodes: nodes.clone(), shape: *shape }, nodes, *until)
        }
        _ => {
            for episode in episodes.iter_mut().filter(|episode| episode.until_us > at_us) {
                episode.until_us = at_us;
            }
            // What would have healed later has healed.
            phases.retain(|phase| phase.at_us <= at_us);
            phases.push(Phase { at_us, text: step.text.clone(), nodes: Vec::new() });
            return;
        }
    };
    let until_us = until.map_or(end_us, micros);
    if until_us < end_us {
        phases.push(Phase { at_us: until_us, text: format!("{} heals", step.text), nodes });
    }
    episodes.push(Episode { from_us: at_us, until_us, fault });
}

/// The side of each node: of those that are up exactly the shares; of the others by whom they join by.
fn draw_sides(
    chance: &mut Chance,
    shares: &[f64],
    up: &[NodeIndex],
    membership: &Membership,
    at_us: u64,
) -> Vec<u8> {
    let mut sides: Vec<Option<u8>> = vec![None; membership.nodes as usize];
    let shuffled = chance.sample(up.to_vec(), up.len());
    let mut bounds = shares.iter().scan(0.0, |sum, share| {
        *sum += share;
        Some((*sum * up.len() as f64).round() as usize)
    });
    let (mut side, mut bound) = (0u8, bounds.next().unwrap_or(up.len()));
    for (place, node) in shuffled.iter().enumerate() {
        while place >= bound {
            // The last bound is all of them.
            let Some(next) = bounds.next() else { break };
            (side, bound) = (side + 1, next);
        }
        sides[*node as usize] = Some(side);
    }
    let later = membership.actions.iter().filter(|action| action.at_us >= at_us);
    for action in later {
        if let ActionKind::Spawn { via } = &action.kind
            && sides[action.node as usize].is_none()
        {
            let by = via.first().and_then(|via| sides[*via as usize]);
            sides[action.node as usize] = by.or(Some(0));
        }
    }
    sides.into_iter().map(|side| side.unwrap_or(0)).collect()
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
    /// Each group with the sides that it is on, of each partition under way.
    groups: Vec<(GroupIndex, Vec<u8>)>,
    /// The sides of each node.
    sides: Vec<Vec<u8>>,
    one_way: Vec<bool>,
    /// What is done to all that a node sends.
    shapes: BTreeMap<NodeIndex, LinkShape>,
}

impl At {
    fn new(episodes: &[Episode], now_us: u64, nodes: u32, groups: &mut Groups) -> At {
        let mut at = At { sides: vec![Vec::new(); nodes as usize], ..At::default() };
        for episode in
            episodes.iter().filter(|episode| episode.from_us <= now_us && now_us < episode.until_us)
        {
            match &episode.fault {
                Fault::Partition { sides, one_way } => {
                    at.sides.iter_mut().zip(sides).for_each(|(all, side)| all.push(*side));
                    at.one_way.push(*one_way);
                }
                Fault::Degrade { nodes, shape } => {
                    for node in nodes {
                        let combined = at.shapes.get(node).map_or(*shape, |other| combined(*other, *shape));
                        at.shapes.insert(*node, combined);
                    }
                }
            }
        }
        if at.one_way.is_empty() && at.shapes.is_empty() {
            return at;
        }
        let mut lists: BTreeMap<Vec<u8>, Vec<NodeIndex>> = BTreeMap::new();
        for (sides, node) in at.sides.iter().zip(0..) {
            lists.entry(sides.clone()).or_default().push(node);
        }
        at.groups = lists.into_iter().map(|(sides, nodes)| (groups.index(nodes), sides)).collect();
        at
    }

    /// What `node` does to what it sends.
    fn rules(&self, node: NodeIndex) -> Vec<ShapeRule> {
        let Some(own) = self.sides.get(node as usize) else { return Vec::new() };
        let shape = self.shapes.get(&node).copied().unwrap_or_default();
        let rules = self.groups.iter().map(|(to, sides)| {
            let (mut sends, mut hears) = (true, true);
            for ((own, other), one_way) in own.iter().zip(sides).zip(&self.one_way) {
                sends &= own == other || (*one_way && own > other);
                hears &= own == other || (*one_way && own < other);
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

/// What each node that is up has been told.
#[derive(Default)]
struct Shaping {
    actions: Vec<Action>,
    groups: Groups,
    is_up: Vec<bool>,
    /// Rules that hold, of those nodes that have some.
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
                self.rules.remove(&action.node);
            }
            _ => {}
        }
    }

    /// The faults change.
    fn turn(&mut self, at_us: u64, now: At) {
        self.now = now;
        for node in 0..self.is_up.len() as NodeIndex {
            if self.is_up[node as usize] {
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
