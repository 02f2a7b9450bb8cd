//! Look-ups while the network is parted.
//!
//! In a partition all nodes are still members, but nobody can know of those that it cannot reach. So an answer that is not right
//! for the whole ring is right if it is right for the side of the node that gave it: if, among the members that this node can
//! reach, none comes before it for the key. That holds from the partition's beginning until the nodes have had the time to find
//! each other again after it healed ([`REPAIR_US`]).
//!
//! What a node cannot reach is read from the actions: the groups that it ever cuts. Nodes that cut the same groups see the run
//! from the same side, so there are few sides, and each is judged by a sweep of its own over the answers that are left.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use p2ps::agent::protocol::{ActionKind, GroupIndex, NodeIndex};
use p2ps::com::shaping::Cut;
use p2ps::id::{Id, Ring};

use crate::schedule::Schedule;

use super::membership::{Membership, REPAIR_US, Span, without};
use super::routing::{Answer, right_answers};

/// The most sides that are told apart; beyond that everybody may have been cut off from everybody.
const SIDES_MAX: usize = 64;

/// Who was cut off from whom, and when.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// When somebody was cut off from a group, in time order, apart from each other.
    windows: BTreeMap<GroupIndex, Vec<(u64, u64)>>,
    /// The nodes of each side, by the groups that they cannot reach.
    sides: BTreeMap<BTreeSet<GroupIndex>, BTreeSet<NodeIndex>>,
}

impl Partitions {
    /// Reads them from the schedule. What was done may have been done `error_us` earlier or later.
    pub(super) fn new(schedule: &Schedule, error_us: u64) -> Partitions {
        let mut cuts: BTreeMap<NodeIndex, BTreeSet<GroupIndex>> = BTreeMap::new();
        let mut ever: BTreeMap<NodeIndex, BTreeSet<GroupIndex>> = BTreeMap::new();
        let mut cutters: BTreeMap<GroupIndex, (u64, u64)> = BTreeMap::new();
        let mut partitions = Partitions::default();
        for action in &schedule.actions {
            let now = match &action.kind {
                ActionKind::Shape { rules } => {
                    rules.iter().filter(|rule| rule.shape.cut != Cut::None).map(|rule| rule.to).collect()
                }
                ActionKind::Kill | ActionKind::Leave => BTreeSet::new(),
                _ => continue,
            };
            let before = cuts.insert(action.node, now.clone()).unwrap_or_default();
            ever.entry(action.node).or_default().extend(&now);
            for group in now.difference(&before) {
                let (count, since_us) = cutters.entry(*group).or_default();
                if *count == 0 {
                    *since_us = action.at_us;
                }
                *count += 1;
            }
            for group in before.difference(&now) {
                let (count, since_us) = cutters.entry(*group).or_default();
                *count -= 1;
                if *count == 0 {
                    let window = (
                        since_us.saturating_sub(error_us),
                        action.at_us.saturating_add(REPAIR_US + error_us),
                    );
                    partitions.add_window(*group, window);
                }
            }
        }
        for (group, (_, since_us)) in cutters.into_iter().filter(|(_, (count, _))| *count > 0) {
            partitions.add_window(group, (since_us.saturating_sub(error_us), u64::MAX));
        }
        for (node, groups) in ever {
            partitions.sides.entry(groups).or_default().insert(node);
        }
        if partitions.sides.len() > SIDES_MAX {
            let (groups, nodes): (Vec<_>, Vec<_>) = std::mem::take(&mut partitions.sides).into_iter().unzip();
            let all = (groups.into_iter().flatten().collect(), nodes.into_iter().flatten().collect());
            partitions.sides.extend([all]);
        }
        partitions
    }

    /// Which of `answers`, that are wrong for the whole ring, are right for the side of the node that gave them.
    pub(super) fn right_on_their_side(
        &self,
        ring: Ring,
        schedule: &Schedule,
        membership: &Membership,
        answers: &[(usize, Answer)],
    ) -> Vec<usize> {
        let in_doubt = |answer: &Answer| {
            let windows = self.windows.values().flatten();
            windows
                .clone()
                .any(|(from_us, until_us)| answer.issued_us <= *until_us && *from_us <= answer.ended_us)
        };
        let mut left: Vec<(usize, Answer)> =
            answers.iter().filter(|(_, answer)| in_doubt(answer)).copied().collect();
        let mut right = Vec::new();
        let numbers: HashMap<Id, NodeIndex> = membership.ids.iter().copied().zip(0..).collect();
        for (groups, nodes) in &self.sides {
            if left.is_empty() {
                break;
            }
            let (own, others) = left.into_iter().partition::<Vec<_>, _>(|(_, answer)| {
                numbers.get(&answer.responsible).is_some_and(|node| nodes.contains(node))
            });
            left = others;
            if !own.is_empty() {
                right.extend(right_answers(
                    ring,
                    &self.seen_from(groups, schedule, membership, &numbers),
                    &own,
                ));
            }
        }
        right
    }

    /// The membership as those know it who cannot reach `groups`.
    fn seen_from(
        &self,
        groups: &BTreeSet<GroupIndex>,
        schedule: &Schedule,
        membership: &Membership,
        numbers: &HashMap<Id, NodeIndex>,
    ) -> Membership {
        let mut hidden: BTreeMap<NodeIndex, Vec<(u64, u64)>> = BTreeMap::new();
        for group in groups {
            let windows = self.windows.get(group).map_or(&[][..], Vec::as_slice);
            for node in schedule.groups.get(*group as usize).map_or(&[][..], Vec::as_slice) {
                hidden.entry(*node).or_default().extend(windows);
            }
        }
        let spans = membership.spans.iter().flat_map(|span| {
            let holes =
                numbers.get(&span.id).and_then(|node| hidden.get(node)).map_or(&[][..], Vec::as_slice);
            let certain = span.certain.map_or_else(Vec::new, |certain| without(certain, holes));
            Span::all(span.id, span.possible, certain)
        });
        Membership { spans: spans.collect(), ids: Vec::new() }
    }

    fn add_window(&mut self, group: GroupIndex, window: (u64, u64)) {
        let windows = self.windows.entry(group).or_default();
        match windows.last_mut().filter(|last| window.0 <= last.1) {
            Some(last) => last.1 = last.1.max(window.1),
            None => windows.push(window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2ps::agent::protocol::{Action, NodeSlot, ShapeRule};
    use p2ps::com::shaping::LinkShape;

    use crate::schedule::PlacedNode;

    const FOREVER: u64 = u64::MAX;
    const HEALED: u64 = 2_000_000;

    /// Nodes 0 to 3 with the ids 10, 20, 30, 40; 0 and 2 are cut off from 1 and 3 from 1 s to 2 s.
    fn parted() -> (Schedule, Membership) {
        let ids = [10, 20, 30, 40].map(Id);
        let rule = |to| ShapeRule { to, shape: LinkShape { cut: Cut::Both, ..LinkShape::default() } };
        let shape = |at_us, node, rules| Action { index: 0, at_us, node, kind: ActionKind::Shape { rules } };
        let cut = (0..4).map(|node| shape(1_000_000, node, vec![rule(1 - node % 2)]));
        let healed = (0..4).map(|node| shape(HEALED, node, Vec::new()));
        let place = |(id, node)| PlacedNode { slot: NodeSlot { node, id, seed: 0 }, host: 0 };
        let schedule = Schedule {
            nodes: ids.into_iter().zip(0..).map(place).collect(),
            actions: cut.chain(healed).collect(),
            phases: Vec::new(),
            groups: vec![vec![0, 2], vec![1, 3]],
            operations: 0,
            end_us: 100_000_000,
        };
        let span = |id| Span { id, possible: (0, FOREVER), certain: Some((1, FOREVER - 1)) };
        (schedule, Membership { spans: ids.map(span).to_vec(), ids: ids.to_vec() })
    }

    fn is_right(key: u64, responsible: u64, issued_us: u64, ended_us: u64) -> bool {
        let (schedule, membership) = parted();
        let ring = Ring::new(100).unwrap();
        let answer = Answer { key: Id(key), responsible: Id(responsible), issued_us, ended_us };
        if !right_answers(ring, &membership, &[(0, answer)]).is_empty() {
            return true;
        }
        let partitions = Partitions::new(&schedule, 0);
        !partitions.right_on_their_side(ring, &schedule, &membership, &[(0, answer)]).is_empty()
    }

    #[test]
    fn an_answer_of_either_side_is_right_while_the_network_is_parted() {
        for (key, responsible, expected) in
            [(15, 20, true), (15, 30, true), (15, 40, false), (15, 10, false), (25, 40, true), (35, 10, true)]
        {
            assert_eq!(is_right(key, responsible, 1_500_000, 1_600_000), expected, "{responsible} for {key}");
        }
    }

    #[test]
    fn before_it_and_when_the_sides_have_found_each_other_only_the_whole_ring_counts() {
        assert!(!is_right(15, 30, 500_000, 900_000));
        assert!(is_right(15, 30, 900_000, 1_000_000), "it began before the answer came");
        assert!(is_right(15, 30, HEALED + 1, HEALED + REPAIR_US), "they have just begun to find each other");
        assert!(!is_right(15, 30, HEALED + REPAIR_US + 2, HEALED + REPAIR_US + 9), "they had the time");
        assert!(is_right(15, 20, 90_000_000, 90_000_001));
    }

    #[test]
    fn a_node_that_dies_in_a_partition_is_missed_by_its_side() {
        let (schedule, mut membership) = parted();
        membership.spans[2].certain = Some((1, 1_199_999));
        membership.spans[2].possible = (0, 1_200_000);
        let partitions = Partitions::new(&schedule, 0);
        let ring = Ring::new(100).unwrap();
        let right = |responsible, issued_us| {
            let answer =
                Answer { key: Id(15), responsible: Id(responsible), issued_us, ended_us: issued_us + 9 };
            !partitions.right_on_their_side(ring, &schedule, &membership, &[(0, answer)]).is_empty()
        };
        assert!(right(30, 1_100_000) && !right(30, 1_300_000));
        assert!(!right(10, 1_100_000) && right(10, 1_300_000), "the next one of its side is its heir");
    }
}
