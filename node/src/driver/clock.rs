//! The driver's clock: the host's monotonic clock, which all processes of a host share.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Time;

/// Now, in microseconds of `CLOCK_MONOTONIC`.
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    Time::from_micros(now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000)
}

/// The incarnation of a node that starts now: microseconds since 1970.
pub fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
