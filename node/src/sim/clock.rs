//! Local clocks: what a node is told that the time is. Real clocks begin anywhere and run a little fast or slow.

use crate::time::Time;

/// The farthest that a clock may be from the simulation's at the start, in microseconds: an hour.
pub const CLOCK_OFFSET_US_MAX: u64 = 3_600_000_000;

/// The most that a clock may run fast or slow, in parts of a million: a tenth. Real ones stay below 200.
pub const CLOCK_RATE_PPM_MAX: u32 = 100_000;

/// How far the nodes' clocks may differ from the simulation's; each node's is drawn uniformly within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSkew {
    /// Clocks are ahead by up to this, in microseconds; at most [`CLOCK_OFFSET_US_MAX`].
    pub offset_us: u64,
    /// They run fast or slow by up to this, in parts of a million; at most [`CLOCK_RATE_PPM_MAX`].
    pub rate_ppm: u32,
}

/// One node's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeClock {
    offset_us: u64,
    rate_ppm: i64,
}

impl NodeClock {
    /// A clock within `skew`, by two random numbers.
    pub(super) fn within(skew: ClockSkew, offset: u64, rate: u64) -> NodeClock {
        let ppm = u64::from(skew.rate_ppm.min(CLOCK_RATE_PPM_MAX));
        NodeClock {
            offset_us: offset % (skew.offset_us.min(CLOCK_OFFSET_US_MAX) + 1),
            rate_ppm: (rate % (2 * ppm + 1)) as i64 - ppm as i64,
        }
    }

    /// What it shows at a moment of the simulation.
    pub(super) fn local(self, at_us: u64) -> Time {
        if self.rate_ppm == 0 {
            return Time::from_micros(at_us.saturating_add(self.offset_us));
        }
        let gained = i128::from(at_us) * i128::from(self.rate_ppm) / 1_000_000;
        let local = i128::from(at_us) + gained + i128::from(self.offset_us);
        Time::from_micros(u64::try_from(local).unwrap_or(u64::MAX))
    }

    /// The first moment of the simulation at which it shows `local` or more.
    pub(super) fn moment(self, local: Time) -> u64 {
        let wanted = local.as_micros().saturating_sub(self.offset_us);
        if self.rate_ppm == 0 {
            return wanted;
        }
        let guess = i128::from(wanted) * 1_000_000 / i128::from(1_000_000 + self.rate_ppm);
        let mut at_us = u64::try_from(guess).unwrap_or(u64::MAX).saturating_sub(1);
        // The division cut off less than the clock shows in two steps.
        while self.local(at_us) < local && at_us < u64::MAX {
            at_us += 1;
        }
        at_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_at_the_first_moment_that_shows_it() {
        for rate_ppm in [-100_000, -37, 0, 1, 200, 100_000] {
            let clock = NodeClock { offset_us: 5_000_000, rate_ppm };
            for wanted in [0, 5_000_000, 5_000_001, 5_499_999, 6_000_007, 86_400_000_123] {
                let wanted = Time::from_micros(wanted);
                let at_us = clock.moment(wanted);
                assert!(clock.local(at_us) >= wanted, "{rate_ppm} {wanted:?}");
                assert!(at_us == 0 || clock.local(at_us - 1) < wanted, "{rate_ppm} {wanted:?}");
            }
        }
    }

    #[test]
    fn clocks_are_drawn_within_their_bounds() {
        let skew = ClockSkew { offset_us: 10, rate_ppm: 3 };
        for draw in 0..100 {
            let clock = NodeClock::within(skew, draw, draw);
            assert!(clock.offset_us <= 10 && clock.rate_ppm.abs() <= 3);
        }
        assert_eq!(NodeClock::within(ClockSkew::default(), 7, 7), NodeClock::default());
    }
}
