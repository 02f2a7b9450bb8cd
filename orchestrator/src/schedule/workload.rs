//! What is asked of the network: open-loop streams of operations.
//!
//! Arrivals are a Poisson process: the gaps are exponential, and an operation comes when it comes, whatever became of the earlier
//! ones. Its latency counts from its intended time, so a slow network cannot slow its own examination down (no coordinated
//! omission).

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex};

use super::chance::{Chance, Stream};
use crate::plan::Plan;

/// A node is asked only when it has been up for so long, in microseconds: it has had the time to join.
pub const SETTLING_US: u64 = 2_000_000;

/// Nothing is asked so shortly before the run's end, in microseconds: what is asked can still be answered.
pub const DRAIN_US: u64 = 1_000_000;

/// Draws the look-ups of workload `number` of `plan`. `membership` holds the starts and ends of nodes, in time order.
///
/// They begin when the first node has settled. An operation that would come while no node is settled is left out.
pub(crate) fn draw(plan: &Plan, number: u64, rate: f64, membership: &[Action], end_us: u64) -> Vec<Action> {
    let mut arrivals = Chance::new(plan.seed, Stream::Arrivals(number));
    let mut issuers = Chance::new(plan.seed, Stream::Issuers(number));
    let mut keys = Chance::new(plan.seed, Stream::Keys(number));
    let mut settled = Settled::new(membership);
    let mut lookups = Vec::new();
    let mut at_seconds = 0.0;
    loop {
        at_seconds += arrivals.exponential(rate);
        let at_us = (at_seconds * 1e6) as u64;
        if at_us.saturating_add(DRAIN_US) > end_us {
            return lookups;
        }
        // Drawn in any case, so that the later ones do not depend on who was up.
        let (drawn, key) = (issuers.next_u64(), keys.id(plan.net.ring()));
        settled.advance(at_us);
        if let Some(node) = settled.pick(drawn) {
            lookups.push(Action { index: 0, at_us, node, kind: ActionKind::Lookup { operation: 0, key } });
        }
    }
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
                ActionKind::Lookup { .. } | ActionKind::Shape { .. } => {}
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
        let at = ((u128::from(drawn) * self.nodes.len() as u128) >> 64) as usize;
        self.nodes.get(at).copied()
    }
}
