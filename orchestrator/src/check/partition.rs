//! Look-ups while the network is parted.
//!
//! In a partition all nodes are still members, but nobody can know of those that it cannot reach. So an answer that is not right
//! for the whole ring is right if it is right for the side of the node that gave it: if, among the members that this node can
//! reach, none comes before it for the key. That holds from the partition's beginning until the nodes have had the time to find
//! each other again after it healed ([`REPAIR_US`]).
//!
//! What a node cannot reach is read from the actions: the groups that it cuts, whichever way, and when. Nodes that cut the same groups at
//! the same times see the run from the same side, so there are few sides, and each is judged by a sweep of its own over the answers
//! that are left. Who cuts nobody is judged by the whole ring, whatever goes on around it.

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
    sides: Vec<SideOfRun>,
}

/// Nodes that were cut off from the same groups at the same times.
#[derive(Debug, Default)]
struct SideOfRun {
    nodes: BTreeSet<NodeIndex>,
    /// When some of them were cut off from a group, in time order, apart from each other.
    windows: BTreeMap<GroupIndex, Vec<(u64, u64)>>,
}

impl Partitions {
    /// Reads them from the schedule. What was done may have been done `error_us` earlier or later.
    pub(super) fn new(schedule: &Schedule, error_us: u64) -> Partitions {
        let mut nodes_of: BTreeMap<Vec<(GroupIndex, u64)>, BTreeSet<NodeIndex>> = BTreeMap::new();
        for (node, healings) in healings(schedule) {
            nodes_of.entry(healings).or_default().insert(node);
        }
        let mut sides: Vec<BTreeSet<NodeIndex>> = nodes_of.into_values().collect();
        if sides.len() > SIDES_MAX {
            sides = vec![sides.into_iter().flatten().collect()];
        }
        let side = |nodes| SideOfRun { windows: windows_of(schedule, &nodes, error_us), nodes };
        Partitions { sides: sides.into_iter().map(side).collect() }
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
            let mut windows = self.sides.iter().flat_map(|side| side.windows.values().flatten());
            windows.any(|(from_us, until_us)| answer.issued_us <= *until_us && *from_us <= answer.ended_us)
        };
        let mut left: Vec<(usize, Answer)> =
            answers.iter().filter(|(_, answer)| in_doubt(answer)).copied().collect();
        let mut right = Vec::new();
        let numbers: HashMap<Id, NodeIndex> = membership.ids.iter().copied().zip(0..).collect();
        for side in &self.sides {
            if left.is_empty() {
                break;
            }
            let (own, others) = left.into_iter().partition::<Vec<_>, _>(|(_, answer)| {
                numbers.get(&answer.responsible).is_some_and(|node| side.nodes.contains(node))
            });
            left = others;
            if !own.is_empty() {
                let seen = side.membership(schedule, membership, &numbers);
                right.extend(right_answers(ring, &seen, &own));
            }
        }
        right
    }
}

impl SideOfRun {
    /// The membership as its nodes know it.
    fn membership(
        &self,
        schedule: &Schedule,
        membership: &Membership,
        numbers: &HashMap<Id, NodeIndex>,
    ) -> Membership {
        let mut hidden: BTreeMap<NodeIndex, Vec<(u64, u64)>> = BTreeMap::new();
        for (group, windows) in &self.windows {
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
}

/// Each change of what a node cuts: when, the node, and the groups from then on. Rules stand when their node ends: its agent keeps them
/// until it is told others.
fn cuts(schedule: &Schedule) -> impl Iterator<Item = (u64, NodeIndex, BTreeSet<GroupIndex>)> + '_ {
    schedule.actions.iter().filter_map(|action| {
        let ActionKind::Shape { rules } = &action.kind else { return None };
        let is_cut = rules.iter().filter(|rule| rule.shape.cut != Cut::None);
        Some((action.at_us, action.node, is_cut.map(|rule| rule.to).collect()))
    })
}

/// From which groups each node was cut off, and when each cut healed. By this sides are told apart: who joins one later is cut off later,
/// but heals with it.
fn healings(schedule: &Schedule) -> BTreeMap<NodeIndex, Vec<(GroupIndex, u64)>> {
    let mut standing: BTreeMap<NodeIndex, BTreeSet<GroupIndex>> = BTreeMap::new();
    let mut healings: BTreeMap<NodeIndex, Vec<(GroupIndex, u64)>> = BTreeMap::new();
    for (at_us, node, now) in cuts(schedule) {
        let before = standing.insert(node, now.clone()).unwrap_or_default();
        let healed: Vec<GroupIndex> = before.difference(&now).copied().collect();
        if !healed.is_empty() {
            healings.entry(node).or_default().extend(healed.into_iter().map(|group| (group, at_us)));
        }
    }
    for (node, groups) in standing.into_iter().filter(|(_, groups)| !groups.is_empty()) {
        healings.entry(node).or_default().extend(groups.into_iter().map(|group| (group, u64::MAX)));
    }
    healings
}

/// When some of `nodes` were cut off from each group, until they have had the time to find it again.
fn windows_of(
    schedule: &Schedule,
    nodes: &BTreeSet<NodeIndex>,
    error_us: u64,
) -> BTreeMap<GroupIndex, Vec<(u64, u64)>> {
    let mut standing: BTreeMap<NodeIndex, BTreeSet<GroupIndex>> = BTreeMap::new();
    let mut cutters: BTreeMap<GroupIndex, (u64, u64)> = BTreeMap::new();
    let mut windows: BTreeMap<GroupIndex, Vec<(u64, u64)>> = BTreeMap::new();
    let mut add = |group: GroupIndex, from_us: u64, until_us: u64| {
        let windows = windows.entry(group).or_default();
        let from_us = from_us.saturating_sub(error_us);
        match windows.last_mut().filter(|last: &&mut (u64, u64)| from_us <= last.1) {
            Some(last) => last.1 = last.1.max(until_us),
            None => windows.push((from_us, until_us)),
        }
    };
    for (at_us, node, now) in cuts(schedule).filter(|(_, node, _)| nodes.contains(node)) {
        let before = standing.insert(node, now.clone()).unwrap_or_default();
        for group in now.difference(&before) {
            let (count, since_us) = cutters.entry(*group).or_default();
            if *count == 0 {
                *since_us = at_us;
            }
            *count += 1;
        }
        for group in before.difference(&now) {
            let (count, since_us) = cutters.entry(*group).or_default();
            *count -= 1;
            if *count == 0 {
                add(*group, *since_us, at_us.saturating_add(REPAIR_US + error_us));
            }
        }
    }
    for (group, (_, since_us)) in cutters.into_iter().filter(|(_, (count, _))| *count > 0) {
        add(group, since_us, u64::MAX);
    }
    windows
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

    /// As [`parted`], but nodes 0 and 2 only cannot hear 1; 3 reaches everybody. Later 3 is cut off from 1.
    #[test]
    fn who_is_on_no_side_is_judged_by_the_whole_ring_and_one_cut_is_not_another() {
        let (mut schedule, membership) = parted();
        let rule = |to, cut| ShapeRule { to, shape: LinkShape { cut, ..LinkShape::default() } };
        let shape = |at_us, node, rules| Action { index: 0, at_us, node, kind: ActionKind::Shape { rules } };
        const LATER: u64 = HEALED + 2 * REPAIR_US;
        schedule.groups = vec![vec![0, 2], vec![1], vec![3]];
        schedule.actions = vec![
            shape(1_000_000, 0, vec![rule(1, Cut::In)]),
            shape(1_000_000, 1, vec![rule(0, Cut::Out)]),
            shape(1_000_000, 2, vec![rule(1, Cut::In)]),
            shape(HEALED, 0, Vec::new()),
            shape(HEALED, 1, Vec::new()),
            shape(HEALED, 2, Vec::new()),
            shape(LATER, 3, vec![rule(1, Cut::Both)]),
        ];
        let partitions = Partitions::new(&schedule, 0);
        let right = |key, responsible, issued_us| {
            let (key, responsible) = (Id(key), Id(responsible));
            let answer = Answer { key, responsible, issued_us, ended_us: issued_us + 9 };
            let ring = Ring::new(100).unwrap();
            !partitions.right_on_their_side(ring, &schedule, &membership, &[(0, answer)]).is_empty()
        };
        assert!(right(15, 30, 1_500_000), "node 2 knows nothing of node 1");
        assert!(right(95, 20, 1_500_000), "nor node 1 of nodes 0");
        assert!(!right(15, 40, 1_500_000), "node 3 is cut off from nobody yet");
        assert!(!right(25, 40, LATER + 9), "later it still reaches node 2");
        assert!(!right(15, 30, LATER + 9), "and node 2 everybody");
    }
}
