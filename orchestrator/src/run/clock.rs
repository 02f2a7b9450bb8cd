//! The offset of a host's clock, and how far it may be wrong.
//!
//! The host is asked for its time several times; its answer was given somewhere between question and answer, so the middle
//! is wrong by half of the round trip at most. The sample with the shortest round trip counts (Cristian 1989).
//!
//! Clocks drift, so this is done again and again during a run. What is known changes only by as much as a new measurement demands:
//! one over a slow way says little, and must not shake what is known better.

use serde::Serialize;

/// How many exchanges make a measurement.
pub const EXCHANGES: u32 = 8;

/// How fast two clocks may drift apart, in parts of a million: quartz in computers keeps within 50 of them, either way.
const DRIFT_PPM_MAX: u64 = 100;

/// One exchange, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When it was asked, on the own clock.
    pub asked_us: u64,
    /// When it was answered, on the own clock.
    pub answered_us: u64,
    /// The host's clock.
    pub host_us: u64,
}

/// What is known of a host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClockOffset {
    /// The host's monotonic clock minus the orchestrator's, in microseconds.
    pub offset_us: i64,
    /// The offset is wrong by this much at most, in microseconds: half of the round trip.
    pub error_us: u64,
    /// The exchange's round trip, in microseconds.
    pub rtt_us: u64,
    /// When it was measured, on the orchestrator's monotonic clock.
    pub at_us: u64,
}

impl ClockOffset {
    /// The same moment on the host's clock.
    pub fn to_host_us(&self, own_us: u64) -> u64 {
        own_us.saturating_add_signed(self.offset_us)
    }

    /// What is known after a `newer` measurement. Both bounds hold, the older one as much wider as the clocks may have drifted.
    #[must_use]
    pub fn updated(&self, newer: ClockOffset) -> ClockOffset {
        let slack = i64::try_from(newer.error_us).unwrap_or(i64::MAX);
        let least_us = newer.offset_us.saturating_sub(slack);
        let offset_us = self.offset_us.clamp(least_us, newer.offset_us.saturating_add(slack));
        let drift_us =
            newer.at_us.saturating_sub(self.at_us).saturating_mul(DRIFT_PPM_MAX).div_ceil(1_000_000);
        let moved_us = offset_us.abs_diff(self.offset_us);
        let by_older_us = self.error_us.saturating_add(drift_us).saturating_add(moved_us);
        let by_newer_us = newer.error_us.saturating_add(offset_us.abs_diff(newer.offset_us));
        ClockOffset { offset_us, error_us: by_older_us.min(by_newer_us), ..newer }
    }
}

impl From<Exchange> for ClockOffset {
    fn from(exchange: Exchange) -> ClockOffset {
        let Exchange { asked_us, answered_us, host_us } = exchange;
        let rtt_us = answered_us.saturating_sub(asked_us);
        let middle_us = asked_us + rtt_us / 2;
        ClockOffset {
            offset_us: i64::try_from(i128::from(host_us) - i128::from(middle_us)).unwrap_or(i64::MAX),
            error_us: rtt_us.div_ceil(2),
            rtt_us,
            at_us: middle_us,
        }
    }
}

/// The best of `exchanges`: that with the shortest round trip.
pub fn best(exchanges: impl IntoIterator<Item = Exchange>) -> Option<ClockOffset> {
    exchanges.into_iter().map(ClockOffset::from).min_by_key(|offset| offset.rtt_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_counts_and_bounds_the_error() {
        // The host is 1,000,000 us ahead; the answers took unequal ways.
        let slow = Exchange { asked_us: 100, answered_us: 1100, host_us: 1_001_050 };
        let quick = Exchange { asked_us: 2000, answered_us: 2021, host_us: 1_002_013 };
        let offset = best([slow, quick]).unwrap();
        assert_eq!((offset.offset_us, offset.error_us, offset.rtt_us), (1_000_003, 11, 21));
        for exchange in [slow, quick] {
            let offset = ClockOffset::from(exchange);
            assert!(offset.offset_us.abs_diff(1_000_000) <= offset.error_us, "{offset:?}");
        }
        assert_eq!(offset.to_host_us(5_000), 1_005_003);
    }

    #[test]
    fn a_clock_that_drifts_is_followed_and_its_bounds_always_hold() {
        // 80 us a second, asked every 5 s by ways that differ and are unequal there and back.
        let truth_us = |own_us: u64| 7_000_000 + own_us * 80 / 1_000_000;
        let measure = |own_us: u64, there_us: u64, back_us: u64| {
            let (asked_us, answered_us) = (own_us - there_us, own_us + back_us);
            ClockOffset::from(Exchange { asked_us, answered_us, host_us: own_us + truth_us(own_us) })
        };
        let mut known = measure(1_000_000, 300, 40);
        for round in 1..200 {
            let own_us = 1_000_000 + round * 5_000_000;
            let (there_us, back_us) = [(20, 400), (350, 30), (900_000, 100), (60, 60)][round as usize % 4];
            let before = known;
            known = known.updated(measure(own_us, there_us, back_us));
            let off_us = known.offset_us.abs_diff(truth_us(own_us) as i64);
            assert!(off_us <= known.error_us, "round {round}: {off_us} us, {known:?} after {before:?}");
            assert!(
                known.error_us <= 2_000,
                "round {round}: a slow way must not undo what is known: {known:?}"
            );
        }
    }

    #[test]
    fn what_is_known_does_not_move_without_need() {
        let at = |at_us, offset_us, error_us| ClockOffset {
            offset_us,
            error_us,
            rtt_us: error_us.saturating_mul(2),
            at_us,
        };
        let known = at(0, 1000, 50);
        assert_eq!(
            known.updated(at(1_000_000, 1080, 100)),
            ClockOffset { rtt_us: 200, ..at(1_000_000, 1000, 150) }
        );
        assert_eq!(
            known.updated(at(1_000_000, 1080, 20)),
            ClockOffset { rtt_us: 40, ..at(1_000_000, 1060, 40) }
        );
        let absurd = at(u64::MAX, 0, u64::MAX);
        assert_eq!(known.updated(absurd).offset_us, 1000);
        assert_eq!(absurd.updated(known).offset_us, 950);
    }

    #[test]
    fn a_host_that_is_behind_has_a_negative_offset() {
        let offset = best([Exchange { asked_us: 9_000, answered_us: 9_010, host_us: 5 }]).unwrap();
        assert_eq!(offset.offset_us, -9_000);
        assert_eq!(offset.to_host_us(10_000), 1_000);
        assert_eq!(offset.to_host_us(8_000), 0, "before the host's start there is nothing");
        assert_eq!(best([]), None);
    }

    #[test]
    fn clocks_that_are_absurd_do_not_overflow() {
        let absurd = Exchange { asked_us: u64::MAX - 1, answered_us: 0, host_us: u64::MAX };
        assert_eq!(ClockOffset::from(absurd).rtt_us, 0);
        let absurd = Exchange { asked_us: 0, answered_us: u64::MAX, host_us: 0 };
        assert!(ClockOffset::from(absurd).to_host_us(0) == 0);
    }
}
