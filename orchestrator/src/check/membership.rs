//! The ground truth: who was a member, and since when, as far as it can be known from outside.
//!
//! A join takes time, a leave takes time, and the moment of a crash is known only up to when it was seen. So each life of a
//! node has two intervals: when it was *possibly* a member, and, within that, when it *certainly* was.
//!
//! | | possibly | certainly |
//! |---|---|---|
//! | from | its process was started | it said that it had joined |
//! | until | it said that it had left, or was killed, or its end was seen | it was told to leave, or killed; of a crash: it was last heard of |
//!
//! Where hosts' clocks may be off, each interval is taken as much wider or narrower.

use p2ps::id::Id;

use crate::record::{Life, LifeEnd, RunRecord};
use crate::schedule::Schedule;

/// How long the nodes of a host whose agent is gone may live on, in microseconds: until the agent's lease runs out at the
/// latest, and for certain after a minute.
const LOST_HOST_DOUBT_US: u64 = 60_000_000;

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
    pub(super) fn new(schedule: &Schedule, record: &RunRecord) -> Membership {
        let ids: Vec<Id> = schedule.nodes.iter().map(|node| node.slot.id).collect();
        let error_us = record.clock_error_us();
        let span = |life: &Life| {
            let id = *ids.get(life.node as usize)?;
            Some(Span { id, possible: possible(life, error_us), certain: certain(life, error_us) })
        };
        Membership { spans: record.lives.iter().filter_map(span).collect(), ids }
    }
}

fn possible(life: &Life, error_us: u64) -> (u64, u64) {
    let ended_us = life.ended.map(|(at_us, end)| match end {
        LifeEnd::HostLost => at_us.saturating_add(LOST_HOST_DOUBT_US),
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
        LifeEnd::Unexpected | LifeEnd::HostLost => life.heard_us.min(at_us),
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
        let lost = Life { ended: Some((100, LifeEnd::HostLost)), ..life() };
        let doubt = 100 + LOST_HOST_DOUBT_US;
        assert_eq!((possible(&lost, 0), certain(&lost, 0)), ((10, doubt), Some((21, 69))));
    }

    #[test]
    fn clocks_that_may_be_off_leave_less_that_is_certain() {
        let killed = Life { killed_us: Some(80), ..life() };
        assert_eq!((possible(&killed, 15), certain(&killed, 15)), ((0, 95), Some((36, 64))));
        assert_eq!(certain(&killed, 40), None);
    }
}
