//! When the ring was right: each certain member's successor and predecessor were the next and the previous certain member.
//!
//! One sweep over the members' joins and ends and over the nodes' own words of their neighbours; each touches the neighbourhood
//! of one node only, so each costs a logarithm of the number of nodes.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use p2ps::id::Id;

use crate::record::RingReport;

use super::membership::Membership;

/// The stretches of a run in which the ring was right, in time order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// From the first right moment until the first wrong one; [`u64::MAX`]: right at the run's end.
    pub(super) right: Vec<(u64, u64)>,
    /// The last moment of the run that counts, in microseconds since its start.
    pub(super) end_us: u64,
    /// How much earlier than planned a step may seem to have been made, since clocks may be off.
    pub(super) slack_us: u64,
}

impl History {
    /// The first moment since `of_us` from which on the ring was right until the next of `disturbances_us` (sorted), or the
    /// run's end.
    pub(super) fn converged_from(&self, of_us: u64, disturbances_us: &[u64]) -> Option<u64> {
        self.right.iter().find_map(|(from_us, until_us)| {
            let from_us = of_us.max(*from_us);
            let next = disturbances_us.partition_point(|at_us| *at_us <= from_us);
            let needed_us = disturbances_us.get(next).map_or(self.end_us, |at_us| self.end_us.min(*at_us));
            // Within a stretch no later moment does better: it needs to be right for as long.
            let is_kept = needed_us <= until_us.saturating_add(self.slack_us);
            (from_us <= self.end_us && from_us < *until_us && is_kept).then_some(from_us)
        })
    }

    /// The moment from which on the ring was right for good.
    pub(super) fn settled_from(&self) -> Option<u64> {
        self.right.last().filter(|(_, until_us)| *until_us == u64::MAX).map(|(from_us, _)| *from_us)
    }
}

/// Follows the ring from the run's start to `end_us`.
pub(super) fn history(membership: &Membership, reports: &[RingReport], end_us: u64) -> History {
    let mut events = events(membership, reports);
    events.retain(|(at_us, _)| *at_us <= end_us);
    events.sort_by_key(|(at_us, event)| (*at_us, event.order()));
    let mut state = State::default();
    let mut history = History { right: Vec::new(), end_us, slack_us: 0 };
    let mut since_us = None;
    for batch in events.chunk_by(|(a, _), (b, _)| a == b) {
        batch.iter().for_each(|(_, event)| state.apply(*event));
        let now_us = batch[0].0;
        match (state.is_right(), since_us) {
            (true, None) => since_us = Some(now_us),
            (false, Some(from_us)) => {
                history.right.push((from_us, now_us));
                since_us = None;
            }
            _ => {}
        }
    }
    history.right.extend(since_us.map(|from_us| (from_us, u64::MAX)));
    history
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A process starts: it has no neighbours.
    Starts(Id),
    /// A node tells its neighbours.
    Tells(Id, Neighbours),
    /// A node is a member from now on.
    Begins(Id),
    /// It is none any more.
    Ends(Id),
}

impl Event {
    /// Of one moment, in this order; a node's words in the order in which they came.
    fn order(&self) -> u8 {
        match self {
            Event::Starts(_) => 0,
            Event::Tells(..) => 1,
            Event::Ends(_) => 2,
            Event::Begins(_) => 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbours {
    predecessor: Option<Id>,
    successor: Id,
}

fn events(membership: &Membership, reports: &[RingReport]) -> Vec<(u64, Event)> {
    let mut events = Vec::with_capacity(reports.len() + 3 * membership.spans.len());
    for report in reports {
        let Some(id) = membership.ids.get(report.node as usize) else { continue };
        let neighbours = Neighbours { predecessor: report.predecessor, successor: report.successor };
        events.push((report.at_us, Event::Tells(*id, neighbours)));
    }
    for span in &membership.spans {
        events.push((span.possible.0, Event::Starts(span.id)));
        if let Some((from_us, until_us)) = span.certain {
            events.push((from_us, Event::Begins(span.id)));
            events.push((until_us.saturating_add(1), Event::Ends(span.id)));
        }
    }
    events
}

#[derive(Debug, Default)]
struct State {
    members: BTreeSet<Id>,
    /// Members whose neighbours are not what they should be.
    astray: BTreeSet<Id>,
    told: HashMap<Id, Neighbours>,
}

impl State {
    fn is_right(&self) -> bool {
        !self.members.is_empty() && self.astray.is_empty()
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Starts(id) => {
                self.told.remove(&id);
                self.check(id);
            }
            Event::Tells(id, neighbours) => {
                self.told.insert(id, neighbours);
                self.check(id);
            }
            Event::Begins(id) => {
                self.members.insert(id);
                self.check_around(id);
            }
            Event::Ends(id) => {
                self.members.remove(&id);
                self.check_around(id);
            }
        }
    }

    fn check_around(&mut self, id: Id) {
        let (before, after) = (self.before(id), self.after(id));
        for id in [Some(id), before, after].into_iter().flatten() {
            self.check(id);
        }
    }

    fn check(&mut self, id: Id) {
        if !self.members.contains(&id) {
            self.astray.remove(&id);
            return;
        }
        let is_alone = self.members.len() == 1;
        let is_right = self.told.get(&id).is_some_and(|told| {
            let predecessor_is_right = told.predecessor == self.before(id)
                || (is_alone && told.predecessor.is_none_or(|predecessor| predecessor == id));
            predecessor_is_right && Some(told.successor) == self.after(id)
        });
        if is_right {
            self.astray.remove(&id)
        } else {
            self.astray.insert(id)
        };
    }

    /// The next member clockwise; the node itself where there is no other.
    fn after(&self, id: Id) -> Option<Id> {
        self.members.range((Excluded(id), Unbounded)).next().or_else(|| self.members.first()).copied()
    }

    /// The previous member.
    fn before(&self, id: Id) -> Option<Id> {
        self.members.range(..id).next_back().or_else(|| self.members.last()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::membership::Span;
    use proptest::prelude::*;

    const END: u64 = 1000;

    /// Nodes 0, 1, 2 with the ids 10, 20, 30; the last one is a certain member in `third`.
    fn three(third: (u64, u64)) -> Membership {
        let span = |id, certain| Span { id: Id(id), possible: (0, u64::MAX), certain: Some(certain) };
        let ids = [10, 20, 30].map(Id).to_vec();
        Membership { spans: vec![span(10, (1, END * 2)), span(20, (1, END * 2)), span(30, third)], ids }
    }

    fn tells(at_us: u64, node: u32, predecessor: u64, successor: u64) -> RingReport {
        RingReport { at_us, node, predecessor: Some(Id(predecessor)), successor: Id(successor) }
    }

    /// A right ring of three from 5 on.
    fn whole() -> Vec<RingReport> {
        vec![tells(3, 0, 30, 20), tells(4, 1, 10, 30), tells(5, 2, 20, 10)]
    }

    #[test]
    fn the_ring_is_right_once_all_know_their_neighbours() {
        let history = history(&three((1, END * 2)), &whole(), END);
        assert_eq!(history.right, [(5, u64::MAX)]);
        assert_eq!(history.settled_from(), Some(5));
    }

    #[test]
    fn a_kill_breaks_it_until_both_neighbours_know() {
        let mut reports = whole();
        reports.extend([tells(110, 1, 10, 10), tells(130, 0, 20, 20)]);
        let history = history(&three((1, 99)), &reports, END);
        assert_eq!(history.right, [(5, 100), (130, u64::MAX)]);
        assert_eq!(history.converged_from(100, &[100]), Some(130));
    }

    #[test]
    fn a_ring_that_one_neighbour_never_mends_never_converges() {
        let mut reports = whole();
        reports.push(tells(110, 1, 10, 10));
        let history = history(&three((1, 99)), &reports, END);
        assert_eq!(history.right, [(5, 100)]);
        assert_eq!((history.converged_from(100, &[100]), history.settled_from()), (None, None));
    }

    #[test]
    fn a_ring_that_breaks_again_before_the_next_step_has_not_converged_before() {
        let mut reports = whole();
        reports.extend([
            tells(110, 1, 10, 10),
            tells(130, 0, 20, 20),
            tells(150, 0, 20, 30),
            tells(160, 0, 20, 20),
        ]);
        let history = history(&three((1, 99)), &reports, END);
        assert_eq!(history.right, [(5, 100), (130, 150), (160, u64::MAX)]);
        assert_eq!(history.converged_from(100, &[100, 500]), Some(160));
        assert_eq!(history.converged_from(100, &[100, 140]), Some(130), "it held until the next step");
    }

    #[test]
    fn a_step_that_seems_to_come_early_since_clocks_are_off_breaks_nothing() {
        let ring = |slack_us| History { right: vec![(5, 98), (130, u64::MAX)], end_us: END, slack_us };
        assert_eq!(ring(0).converged_from(10, &[100]), Some(130));
        assert_eq!(ring(2).converged_from(10, &[100]), Some(10));
    }

    #[test]
    fn a_member_that_tells_nothing_or_joins_late_counts() {
        let silent = history(&three((1, END * 2)), &whole()[..2], END);
        assert_eq!(silent.right, []);
        let mut reports = vec![tells(3, 0, 20, 20), tells(4, 1, 10, 10)];
        let late =
            |at_us| [tells(at_us, 2, 20, 10), tells(at_us + 5, 0, 30, 20), tells(at_us + 7, 1, 10, 30)];
        reports.extend(late(200));
        let joined = history(&three((210, END * 2)), &reports, END);
        // The others turn to it while it is not yet a member for certain, and are right again when it is.
        assert_eq!(joined.right, [(4, 205), (210, u64::MAX)]);
    }

    #[test]
    fn a_node_that_is_alone_is_right_with_itself() {
        let ids = vec![Id(10)];
        let spans = vec![Span { id: Id(10), possible: (0, END), certain: Some((2, END)) }];
        let membership = Membership { spans, ids };
        for predecessor in [None, Some(Id(10))] {
            let report = RingReport { at_us: 3, node: 0, predecessor, successor: Id(10) };
            assert_eq!(history(&membership, &[report], END).right, [(3, u64::MAX)]);
        }
        let report = tells(3, 0, 20, 10);
        assert_eq!(history(&membership, &[report], END).right, []);
    }

    #[test]
    fn a_node_that_is_started_again_knows_nobody() {
        let mut membership = three((1, 99));
        membership.spans.push(Span { id: Id(30), possible: (300, u64::MAX), certain: Some((310, END * 2)) });
        let mut reports = whole();
        reports.push(tells(400, 2, 20, 10));
        let history = history(&membership, &reports, END);
        assert_eq!(history.right, [(5, 100), (400, u64::MAX)]);
    }

    #[test]
    fn what_comes_after_the_end_is_no_part_of_it() {
        let history = history(&three((1, END)), &whole(), END);
        assert_eq!(history.settled_from(), Some(5), "the third is stopped with the run");
    }

    /// The definition, moment by moment.
    fn is_right_at(membership: &Membership, reports: &[RingReport], now: u64) -> bool {
        let certain = |span: &&Span| span.certain.is_some_and(|(from, until)| from <= now && now <= until);
        let members: BTreeSet<Id> = membership.spans.iter().filter(certain).map(|span| span.id).collect();
        let members: Vec<Id> = members.into_iter().collect();
        let is_right = |at: usize| {
            let id = members[at];
            let node = membership.ids.iter().position(|other| *other == id).unwrap() as u32;
            let starts = membership.spans.iter().filter(|span| span.id == id && span.possible.0 <= now);
            let since = starts.map(|span| span.possible.0).max().unwrap();
            let told =
                reports.iter().filter(|told| told.node == node && since <= told.at_us && told.at_us <= now);
            let Some(told) = told.max_by_key(|told| told.at_us) else { return false };
            let before = members[(at + members.len() - 1) % members.len()];
            let alone = members.len() == 1 && told.predecessor.is_none();
            told.successor == members[(at + 1) % members.len()] && (alone || told.predecessor == Some(before))
        };
        !members.is_empty() && (0..members.len()).all(is_right)
    }

    prop_compose! {
        /// The lives of one node: one after the other, each of its start, its time to join, its membership and its leaving.
        fn lives(node: u64)(lengths in prop::collection::vec([0..20u64, 0..20, 0..60, 0..5], 0..3)) -> Vec<Span> {
            let mut now = 0;
            let life = |[waits, joins, stays, leaves]: [u64; 4]| {
                let from = now + waits;
                let certain = (from + joins, from + joins + stays);
                now = certain.1 + leaves + 1;
                Span { id: Id(node), possible: (from, now - 1), certain: Some(certain) }
            };
            lengths.into_iter().map(life).collect()
        }
    }

    prop_compose! {
        fn report()(at_us in 0..80u64, node in 0..4u32, before in 0..4u64, known in any::<bool>(), after in 0..4u64) -> RingReport {
            RingReport { at_us, node, predecessor: known.then_some(Id(before)), successor: Id(after) }
        }
    }

    proptest! {
        #[test]
        fn the_sweep_agrees_with_the_definition(
            spans in (lives(0), lives(1), lives(2), lives(3)),
            reports in prop::collection::vec(report(), 0..200),
        ) {
            let (a, b, c, d) = spans;
            let membership = Membership { spans: [a, b, c, d].concat(), ids: (0..4).map(Id).collect() };
            let history = history(&membership, &reports, 80);
            for now in 0..=80 {
                let swept = history.right.iter().any(|(from, until)| *from <= now && now < *until);
                prop_assert_eq!(swept, is_right_at(&membership, &reports, now), "at {}", now);
            }
        }
    }
}
