//! Adaptive time-outs: how long a node's answer may take before it is suspected.
//!
//! A mean and a deviation for each neighbour, as TCP does (Jacobson 1988; RFC 6298), since fixed time-outs of seconds double
//! the latency under churn (Rhea et al. 2004, section 4.2).

use std::time::Duration;

use crate::id::Id;

/// The shortest time-out: an answer may wait for its process on a busy host, and for company ([`ACK_HELD_MAX`]).
pub const TIMEOUT_MIN: Duration = Duration::from_millis(300);

/// The longest time-out.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(4);

/// The time-out of a stranger, a node that has not answered yet, while no other has either.
pub const TIMEOUT_INITIAL: Duration = Duration::from_secs(1);

/// The shortest time-out of a stranger: it may have a link to make first.
pub const TIMEOUT_STRANGER_MIN: Duration = Duration::from_millis(500);

/// The longest that an acknowledgement waits for company.
pub const ACK_HELD_MAX: Duration = Duration::from_millis(5);

/// How many nodes' estimates are kept.
const ESTIMATES_MAX: usize = 256;

/// Estimates for the nodes that were asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RoundTrips {
    /// In the order of ids, close together: strangers are compared with all of them.
    estimates: Vec<(Id, Estimate)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Estimate {
    mean_us: u32,
    deviation_us: u32,
}

impl RoundTrips {
    pub(crate) fn observe(&mut self, node: Id, sample: Duration) {
        let sample_us = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        let place = match self.place(node) {
            Ok(place) => {
                let estimate = &mut self.estimates[place].1;
                let error = estimate.mean_us.abs_diff(sample_us);
                estimate.deviation_us = (3 * estimate.deviation_us + error) / 4;
                estimate.mean_us = (7 * estimate.mean_us + sample_us) / 8;
                return;
            }
            Err(place) if self.estimates.len() >= ESTIMATES_MAX => {
                self.estimates.remove(0);
                place.saturating_sub(1)
            }
            Err(place) => place,
        };
        if self.estimates.len() == self.estimates.capacity() {
            // Every node of a large simulation has such a table: it grows with less to spare than a Vec's own doubling.
            self.estimates.reserve_exact(8 + self.estimates.len() / 4);
        }
        let estimate = Estimate { mean_us: sample_us, deviation_us: sample_us / 2 };
        self.estimates.insert(place, (node, estimate));
    }

    /// A node was late: it is given twice the time, until an answer tells better (RFC 6298, 5.5). Without that, nodes on an
    /// overloaded machine take each other for dead, and the repair is more load.
    pub(crate) fn back_off(&mut self, node: Id) {
        if let Ok(place) = self.place(node) {
            let estimate = &mut self.estimates[place].1;
            let spread_us = (estimate.timeout().as_micros() as u32).saturating_sub(estimate.mean_us) / 2;
            estimate.deviation_us = estimate.deviation_us.max(spread_us);
        }
    }

    pub(crate) fn forget(&mut self, node: Id) {
        if let Ok(place) = self.place(node) {
            self.estimates.remove(place);
        }
    }

    /// How long a node's answer may take.
    pub(crate) fn timeout(&self, node: Id) -> Duration {
        self.place(node).map_or_else(|_| self.stranger_timeout(), |place| self.estimates[place].1.timeout())
    }

    /// A stranger is given twice the time of the slowest node that is known.
    fn stranger_timeout(&self) -> Duration {
        let slowest = self.estimates.iter().map(|(_, estimate)| estimate.timeout()).max();
        slowest.map_or(TIMEOUT_INITIAL, |slowest| (slowest * 2).clamp(TIMEOUT_STRANGER_MIN, TIMEOUT_INITIAL))
    }

    fn place(&self, node: Id) -> Result<usize, usize> {
        self.estimates.binary_search_by_key(&node, |(id, _)| *id)
    }
}

impl Estimate {
    /// mean + 4 deviations, and the time that an acknowledgement may be held.
    fn timeout(&self) -> Duration {
        let micros = u64::from(self.mean_us) + 4 * u64::from(self.deviation_us);
        (Duration::from_micros(micros) + ACK_HELD_MAX).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_link_has_a_short_time_out_and_a_shaky_one_a_long_one() {
        let mut round_trips = RoundTrips::default();
        assert_eq!(round_trips.timeout(Id(1)), TIMEOUT_INITIAL);
        for sample_ms in [200, 200, 200, 200, 1000, 200, 1200] {
            round_trips.observe(Id(1), Duration::from_millis(1));
            round_trips.observe(Id(2), Duration::from_millis(sample_ms));
        }
        assert_eq!(round_trips.timeout(Id(1)), TIMEOUT_MIN);
        assert!(round_trips.timeout(Id(2)) > Duration::from_secs(1));
        round_trips.observe(Id(3), Duration::from_secs(100_000));
        assert_eq!(round_trips.timeout(Id(3)), TIMEOUT_MAX);
    }

    #[test]
    fn a_stranger_is_given_more_time_than_those_who_are_known() {
        let mut round_trips = RoundTrips::default();
        round_trips.observe(Id(1), Duration::from_millis(1));
        assert_eq!(round_trips.timeout(Id(9)), 2 * TIMEOUT_MIN);
        round_trips.observe(Id(2), Duration::from_millis(400));
        assert_eq!(round_trips.timeout(Id(9)), TIMEOUT_INITIAL);
    }

    #[test]
    fn who_was_late_is_given_twice_the_time_until_it_answers_fast_again() {
        let mut round_trips = RoundTrips::default();
        round_trips.observe(Id(1), Duration::from_millis(1));
        let mut last = round_trips.timeout(Id(1));
        for _ in 0..3 {
            round_trips.back_off(Id(1));
            let now = round_trips.timeout(Id(1));
            assert!(now > last * 19 / 10 && now < last * 21 / 10, "{now:?} after {last:?}");
            last = now;
        }
        for _ in 0..20 {
            round_trips.back_off(Id(1));
        }
        assert_eq!(round_trips.timeout(Id(1)), TIMEOUT_MAX);
        for _ in 0..20 {
            round_trips.observe(Id(1), Duration::from_millis(1));
        }
        assert_eq!(round_trips.timeout(Id(1)), TIMEOUT_MIN);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut round_trips = RoundTrips::default();
        for id in 0..10_000 {
            round_trips.observe(Id(id), Duration::from_millis(1));
        }
        assert_eq!(round_trips.estimates.len(), ESTIMATES_MAX);
    }
}
