//! The ground truth: who was a member, and since when, as far as it can be known from outside.
//!
//! A join takes time, a leave takes time, and the moment of a crash is known only up to when it was seen. So each life of a
//! node has two intervals: when it was *possibly* a member, and, within that, when it *certainly* was.
//!
//! | | possibly | certainly |
//! |---|---|---|
//! | from | its process was started | it said that it had joined |
//! | until | it said that it had left, or was killed, or its end was seen; of a lost host: its lease ran out | it was told to leave, or killed; of a crash: it was last heard of |
//!
//! A node that is stopped stays a possible member, but it is no certain one until it has gone on and, for look-ups, has had the
//! time to find its way back ([`REPAIR_US`]): others may have given it up meanwhile.
//!
//! Where hosts' clocks may be off, each interval is taken as much wider or narrower.

use std::collections::BTreeMap;

use p2ps::agent::protocol::NodeIndex;
use p2ps::id::Id;

use crate::record::{Life, LifeEnd, Pause, RunRecord};
use crate::schedule::Schedule;

/// How long nodes may take to find each other again after a pause or a partition, in microseconds. Wrong answers within are no fault;
/// later ones are.
pub(super) const REPAIR_US: u64 = 30_000_000;

/// The membership of all lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Membership {
    /// All lives that may have been members at any time.
    pub(super) spans: Vec<Span>,
    /// The ids of the nodes by their number.
    pub(super) ids: Vec<Id>,
}

/// When one life of a node was a member. Whole microseconds since the run's start, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Its id.
    pub(super) id: Id,
    /// When it possibly was.
    pub(super) possible: (u64, u64),
    /// When it certainly was, if ever.
    pub(super) certain: Option<(u64, u64)>,
}

impl Membership {
    /// The membership that look-ups are judged by.
    pub(super) fn new(schedule: &Schedule, record: &RunRecord) -> Membership {
        Membership::repaired_after(schedule, record, REPAIR_US)
    }

    /// The membership that the ring is judged by: who goes on after a pause is to be a neighbour again.
    pub(super) fn of_ring(schedule: &Schedule, record: &RunRecord) -> Membership {
        Membership::repaired_after(schedule, record, 0)
    }

    fn repaired_after(schedule: &Schedule, record: &RunRecord, repair_us: u64) -> Membership {
        let ids: Vec<Id> = schedule.nodes.iter().map(|node| node.slot.id).collect();
        let error_us = record.clock_error_us();
        let mut pauses: BTreeMap<NodeIndex, Vec<(u64, u64)>> = BTreeMap::new();
        for Pause { node, from_us, until_us } in &record.pauses {
            let until_us = until_us.unwrap_or(u64::MAX).saturating_add(repair_us).saturating_add(error_us);
            pauses.entry(*node).or_default().push((from_us.saturating_sub(error_us), until_us));
        }
        let spans = record.lives.iter().filter_map(|life| {
            let id = *ids.get(life.node as usize)?;
            let holes = pauses.get(&life.node).map_or(&[][..], Vec::as_slice);
            let certain = certain(life, error_us).map_or_else(Vec::new, |certain| without(certain, holes));
            Some(Span::all(id, possible(life, error_us), certain))
        });
        Membership { spans: spans.flatten().collect(), ids }
    }
}

impl Span {
    /// One life that certainly was a member in each of `certain`.
    pub(super) fn all(id: Id, possible: (u64, u64), certain: Vec<(u64, u64)>) -> Vec<Span> {
        if certain.is_empty() {
            return vec![Span { id, possible, certain: None }];
        }
        certain.into_iter().map(|certain| Span { id, possible, certain: Some(certain) }).collect()
    }
}

/// What is left of an interval without `holes`; all with both ends included.
pub(super) fn without(interval: (u64, u64), holes: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut holes = holes.to_vec();
    holes.sort_unstable();
    let (mut left, mut from_us) = (Vec::new(), Some(interval.0));
    for (hole_us, until_us) in holes {
        let Some(begin_us) = from_us.filter(|begin_us| *begin_us <= until_us && hole_us <= interval.1) else {
            continue;
        };
        if begin_us < hole_us {
            left.push((begin_us, hole_us - 1));
        }
        from_us = until_us.checked_add(1);
    }
    left.extend(from_us.filter(|from_us| *from_us <= interval.1).map(|from_us| (from_us, interval.1)));
    left
}

fn possible(life: &Life, error_us: u64) -> (u64, u64) {
    let ended_us = life.ended.map(|(at_us, end)| match end {
        LifeEnd::HostLost { gone_us } => gone_us.max(at_us),
        LifeEnd::Expected | LifeEnd::Unexpected => at_us,
    });
    let until_us = [life.killed_us, life.left_us, ended_us].into_iter().flatten().min().unwrap_or(u64::MAX);
    (life.spawned_us.unwrap_or(0).saturating_sub(error_us), until_us.saturating_add(error_us))
}

/// Both ends are left out: at the very moment of a join or a kill, either may be.
fn certain(life: &Life, error_us: u64) -> Option<(u64, u64)> {
    let from_us = life.joined_us?.saturating_add(error_us).saturating_add(1);
    let ended_us = life.ended.map(|(at_us, end)| match end {
        LifeEnd::Expected => at_us,
        LifeEnd::Unexpected | LifeEnd::HostLost { .. } => life.heard_us.min(at_us),
    });
    let until = [life.leave_us, life.killed_us, life.left_us, ended_us].into_iter().flatten().min();
    let until_us = until.unwrap_or(u64::MAX).checked_sub(error_us)?.checked_sub(1)?;
    (from_us <= until_us).then_some((from_us, until_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life() -> Life {
        Life { spawned_us: Some(10), joined_us: Some(20), heard_us: 70, ..Life::default() }
    }

    #[test]
    fn a_node_that_stays_is_a_member_for_good() {
        assert_eq!(possible(&life(), 0), (10, u64::MAX));
        assert_eq!(certain(&life(), 0), Some((21, u64::MAX - 1)));
        assert_eq!(certain(&Life { joined_us: None, ..life() }, 0), None, "it never joined");
    }

    #[test]
    fn a_leaving_node_is_a_member_for_certain_until_told_and_possibly_until_it_has_left() {
        let ended = Some((95, LifeEnd::Expected));
        let left = Life { leave_us: Some(80), left_us: Some(90), ended, ..life() };
        assert_eq!(possible(&left, 0), (10, 90));
        assert_eq!(certain(&left, 0), Some((21, 79)));
    }

    #[test]
    fn a_killed_node_is_none_from_the_kill_on_and_a_crashed_one_since_it_was_last_heard() {
        let ended = Some((100, LifeEnd::Expected));
        let killed = Life { killed_us: Some(80), ended, ..life() };
        assert_eq!((possible(&killed, 0), certain(&killed, 0)), ((10, 80), Some((21, 79))));
        let crashed = Life { ended: Some((100, LifeEnd::Unexpected)), ..life() };
        assert_eq!((possible(&crashed, 0), certain(&crashed, 0)), ((10, 100), Some((21, 69))));
        let lost = Life { ended: Some((100, LifeEnd::HostLost { gone_us: 500 })), ..life() };
        assert_eq!((possible(&lost, 0), certain(&lost, 0)), ((10, 500), Some((21, 69))));
    }

    #[test]
    fn clocks_that_may_be_off_leave_less_that_is_certain() {
        let killed = Life { killed_us: Some(80), ..life() };
        assert_eq!((possible(&killed, 15), certain(&killed, 15)), ((0, 95), Some((36, 64))));
        assert_eq!(certain(&killed, 40), None);
    }

    #[test]
    fn holes_are_cut_out() {
        assert_eq!(without((10, 90), &[]), [(10, 90)]);
        assert_eq!(without((10, 90), &[(40, 50), (20, 30)]), [(10, 19), (31, 39), (51, 90)]);
        assert_eq!(without((10, 90), &[(0, 9), (91, u64::MAX)]), [(10, 90)]);
        assert_eq!(without((10, 90), &[(0, 10), (30, 60), (50, 55), (90, u64::MAX)]), [(11, 29), (61, 89)]);
        assert_eq!(without((10, 90), &[(0, u64::MAX), (20, 30)]), []);
    }

    #[test]
    fn a_stopped_node_is_possibly_a_member_and_certainly_none_until_it_has_found_back() {
        let pauses = vec![Pause { node: 0, from_us: 40, until_us: Some(60) }];
        let lives = vec![life()];
        let record = RunRecord { lives, pauses, ..RunRecord::default() };
        let slot = p2ps::agent::protocol::NodeSlot { node: 0, id: Id(7), seed: 0 };
        let schedule = Schedule {
            nodes: vec![crate::schedule::PlacedNode { slot, host: 0 }],
            actions: Vec::new(),
            phases: Vec::new(),
            groups: Vec::new(),
            operations: 0,
            end_us: 100,
        };
        let certain = |membership: Membership| -> Vec<_> {
            assert!(membership.spans.iter().all(|span| span.possible == (10, u64::MAX)));
            membership.spans.iter().filter_map(|span| span.certain).collect()
        };
        assert_eq!(certain(Membership::of_ring(&schedule, &record)), [(21, 39), (61, u64::MAX - 1)]);
        assert_eq!(certain(Membership::new(&schedule, &record)), [(21, 39), (61 + REPAIR_US, u64::MAX - 1)]);
    }
}
