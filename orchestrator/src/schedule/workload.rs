//! What is asked of the network: open-loop streams of operations.
//!
//! Arrivals are a Poisson process: the gaps are exponential, and an operation comes when it comes, whatever became of the earlier
//! ones. Its latency counts from its intended time, so a slow network cannot slow its own examination down (no coordinated
//! omission).

use std::time::Duration;

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex};
use p2ps::control::Errand;
use p2ps::id::Id;

use super::PlacedNode;
use super::chance::{Chance, Stream};
use super::keys::KeySource;
use crate::plan::Plan;
use crate::plan::workload::{Rate, Workload, WorkloadKind};

/// A node is asked only when it has been up for so long, in microseconds: it has had the time to join.
pub const SETTLING_US: u64 = 2_000_000;

/// Nothing is asked so shortly before the run's end, in microseconds: what is asked can still be answered.
pub const DRAIN_US: u64 = 1_000_000;

/// Draws the operations of workload `number` of `plan`. `membership` holds the starts and ends of nodes, in time order.
///
/// They begin when the first node has settled. An operation that would come while no node is settled that could begin it is left out.
pub(crate) fn draw(plan: &Plan, number: u64, nodes: &[PlacedNode], membership: &[Action]) -> Vec<Action> {
    let Some(workload) = plan.workload.get(number as usize) else { return Vec::new() };
    let mut arrivals = Arrivals::new(plan, number, workload);
    let mut source = Source::new(plan, number, nodes, workload.kind);
    let mut settled = Settled::new(membership);
    let mut operations = Vec::new();
    while let Some(at_us) = arrivals.next() {
        settled.advance(at_us);
        operations.extend(source.next(&settled).map(|(node, kind)| Action { index: 0, at_us, node, kind }));
    }
    operations
}

/// The times of a workload's operations, in microseconds since the run's start.
struct Arrivals {
    chance: Chance,
    workload: Workload,
    until_us: u64,
    /// At a constant rate, how many seconds have passed; else how many operations there should be by now, on average. It grows by an
    /// exponential waiting time with each: a Poisson process whatever the rate does (Cinlar, *Introduction to Stochastic
    /// Processes*, 1975, by inversion).
    passed: f64,
}

impl Arrivals {
    fn new(plan: &Plan, number: u64, workload: &Workload) -> Arrivals {
        let end_us = micros(plan.duration).saturating_sub(DRAIN_US);
        Arrivals {
            chance: Chance::new(plan.seed, Stream::Arrivals(number)),
            workload: workload.clone(),
            until_us: workload.to.map_or(end_us, |to| end_us.min(micros(to))),
            passed: 0.0,
        }
    }

    fn next(&mut self) -> Option<u64> {
        let seconds = match self.workload.rate {
            Rate::Constant(rate) => {
                self.passed += self.chance.exponential(rate);
                self.passed
            }
            ramp @ Rate::Ramp { .. } => {
                self.passed += self.chance.exponential(1.0);
                ramp.seconds(self.passed)
            }
        };
        let at_us = (seconds * 1e6) as u64;
        let at_us = at_us.saturating_add(micros(self.workload.from));
        (at_us <= self.until_us).then_some(at_us)
    }
}

/// What is asked of whom.
struct Source<'a> {
    kind: WorkloadKind,
    number: u64,
    seed: u64,
    nodes: &'a [PlacedNode],
    issuers: Chance,
    keys: KeySource,
    mix: Chance,
    receivers: Chance,
    pairs: Vec<(NodeIndex, NodeIndex)>,
}

impl<'a> Source<'a> {
    fn new(plan: &Plan, number: u64, nodes: &'a [PlacedNode], kind: WorkloadKind) -> Source<'a> {
        let keys = match kind {
            WorkloadKind::Lookup { keys } | WorkloadKind::Dictionary { keys, .. } => Some(keys),
            _ => None,
        };
        let pairs = match kind {
            WorkloadKind::Send { pairs: Some(count), .. } => pairs(plan, number, count),
            _ => Vec::new(),
        };
        Source {
            kind,
            number,
            seed: plan.seed,
            nodes,
            issuers: Chance::new(plan.seed, Stream::Issuers(number)),
            keys: KeySource::new(plan, number, keys),
            mix: Chance::new(plan.seed, Stream::Mix(number)),
            receivers: Chance::new(plan.seed, Stream::Receivers(number)),
            pairs,
        }
    }

    /// The next operation, and who begins it. All is drawn in any case, so that the later ones do not depend on who was up.
    fn next(&mut self, settled: &Settled) -> Option<(NodeIndex, ActionKind)> {
        let drawn = self.issuers.next_u64();
        let issuer = settled.pick(drawn);
        let errand = |what| ActionKind::Errand { operation: 0, what };
        match self.kind {
            WorkloadKind::Lookup { .. } => {
                let key = self.keys.next();
                Some((issuer?, ActionKind::Lookup { operation: 0, key }))
            }
            WorkloadKind::Dictionary { reads, value_bytes, .. } => {
                let (key, is_read) = (self.keys.next(), self.mix.uniform() <= reads);
                let what =
                    if is_read { Errand::Get { key } } else { Errand::Put { key, bytes: value_bytes } };
                Some((issuer?, errand(what)))
            }
            WorkloadKind::Send { reliable, payload_bytes: bytes, .. } => {
                let (from, to) = self.pair(drawn, settled)?;
                let to = self.id(to)?;
                let what =
                    if reliable { Errand::SendReliable { to, bytes } } else { Errand::Send { to, bytes } };
                Some((from, errand(what)))
            }
            WorkloadKind::Broadcast { payload_bytes: bytes } => {
                Some((issuer?, errand(Errand::Broadcast { bytes })))
            }
            WorkloadKind::Multicast { receivers, payload_bytes: bytes } => {
                let seed = self.seed ^ self.receivers.next_u64();
                let issuer = issuer?;
                let to = settled.some_but(
                    issuer,
                    receivers,
                    &mut Chance::new(seed, Stream::Receivers(self.number)),
                );
                let to: Vec<Id> = to.into_iter().filter_map(|node| self.id(node)).collect();
                (!to.is_empty()).then(|| (issuer, errand(Errand::Multicast { to, bytes })))
            }
        }
    }

    /// Who sends to whom: one of the workload's pairs where its sender is up, or any two that are up.
    fn pair(&mut self, drawn: u64, settled: &Settled) -> Option<(NodeIndex, NodeIndex)> {
        let receiver = self.receivers.next_u64();
        if self.pairs.is_empty() {
            let from = settled.pick(drawn)?;
            return Some((from, settled.pick_but(from, receiver)?));
        }
        let pair = self.pairs[part_of(drawn, self.pairs.len())];
        settled.has(pair.0).then_some(pair)
    }

    fn id(&self, node: NodeIndex) -> Option<Id> {
        self.nodes.get(node as usize).map(|node| node.slot.id)
    }
}

/// So many pairs of the nodes that join at the start; none where there is one node only.
fn pairs(plan: &Plan, number: u64, count: u32) -> Vec<(NodeIndex, NodeIndex)> {
    let mut chance = Chance::new(plan.seed, Stream::Pairs(number));
    let mut pair = || match chance.few_below(plan.nodes as usize, 2)[..] {
        // Floyd's method draws the two in an order that says which is larger more often than not.
        [first, second] if chance.below(2) == 0 => Some((second as NodeIndex, first as NodeIndex)),
        [first, second] => Some((first as NodeIndex, second as NodeIndex)),
        _ => None,
    };
    (0..count).filter_map(|_| pair()).collect()
}

/// So many nodes are drawn one by one; more, out of a list of all.
const FEW_MAX: usize = 64;

/// A random number as one below `bound`.
fn part_of(drawn: u64, bound: usize) -> usize {
    ((u128::from(drawn) * bound as u128) >> 64) as usize
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

/// The nodes that have been up for a while, as time goes on.
struct Settled {
    /// Who enters or leaves this set, in time order.
    changes: std::iter::Peekable<std::vec::IntoIter<Change>>,
    nodes: Vec<NodeIndex>,
    /// Each node's place in `nodes`, by its number.
    places: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    at_us: u64,
    /// At one moment those who leave go first.
    enters: bool,
    node: NodeIndex,
}

impl Settled {
    fn new(membership: &[Action]) -> Settled {
        let nodes = membership.iter().map(|action| action.node as usize + 1).max().unwrap_or(0);
        let mut settles_us: Vec<Option<u64>> = vec![None; nodes];
        let mut changes = Vec::new();
        for action in membership {
            let settles_us = &mut settles_us[action.node as usize];
            let (node, at_us) = (action.node, action.at_us);
            match action.kind {
                ActionKind::Spawn { .. } => *settles_us = Some(at_us.saturating_add(SETTLING_US)),
                // One that goes on after a pause is no new node, but has to find its way back.
                ActionKind::Resume => *settles_us = Some(at_us.saturating_add(SETTLING_US)),
                ActionKind::Leave | ActionKind::Kill | ActionKind::Pause => {
                    if let Some(settled_us) = settles_us.take().filter(|settled_us| *settled_us < at_us) {
                        changes.push(Change { at_us: settled_us, enters: true, node });
                        changes.push(Change { at_us, enters: false, node });
                    }
                }
                ActionKind::Lookup { .. } | ActionKind::Errand { .. } | ActionKind::Shape { .. } => {}
            }
        }
        for (settled_us, node) in settles_us.into_iter().zip(0..) {
            changes.extend(settled_us.map(|at_us| Change { at_us, enters: true, node }));
        }
        changes.sort_unstable();
        Settled { changes: changes.into_iter().peekable(), nodes: Vec::new(), places: vec![0; nodes] }
    }

    /// Moves to `now_us`, with all that happens then.
    fn advance(&mut self, now_us: u64) {
        while let Some(change) = self.changes.next_if(|change| change.at_us <= now_us) {
            if change.enters {
                self.places[change.node as usize] = self.nodes.len();
                self.nodes.push(change.node);
            } else {
                let place = self.places[change.node as usize];
                self.nodes.swap_remove(place);
                if let Some(moved) = self.nodes.get(place) {
                    self.places[*moved as usize] = place;
                }
            }
        }
    }

    /// The node that the random number `drawn` falls on, each as likely.
    fn pick(&self, drawn: u64) -> Option<NodeIndex> {
        self.nodes.get(part_of(drawn, self.nodes.len())).copied()
    }

    /// The same among all but one of them.
    fn pick_but(&self, node: NodeIndex, drawn: u64) -> Option<NodeIndex> {
        let others = self.nodes.len().checked_sub(1)?;
        self.other(node, part_of(drawn, others))
    }

    /// So many of all but one of them, each as likely.
    fn some_but(&self, node: NodeIndex, count: u32, chance: &mut Chance) -> Vec<NodeIndex> {
        let (others, count) = (self.nodes.len().saturating_sub(1), count as usize);
        let places = match count {
            ..=FEW_MAX => chance.few_below(others, count),
            _ => chance.sample((0..others).collect(), count),
        };
        places.into_iter().filter_map(|place| self.other(node, place)).collect()
    }

    /// The node at a place among all but one of them: the last one stands where that is.
    fn other(&self, node: NodeIndex, place: usize) -> Option<NodeIndex> {
        let place = if self.places.get(node as usize) == Some(&place) { self.nodes.len() - 1 } else { place };
        self.nodes.get(place).copied()
    }

    fn has(&self, node: NodeIndex) -> bool {
        let place = self.places.get(node as usize);
        place.is_some_and(|place| self.nodes.get(*place) == Some(&node))
    }
}
