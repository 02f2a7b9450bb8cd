//! What became of a seed.

use std::fmt;
use std::time::Duration;

use super::sources::source_of;
use crate::invariant::Violation;
use crate::sim::Trace;

/// What became of a seed's scenario. Times are virtual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The time that its nodes have lived, over all of them.
    pub node_time: Duration,
    /// Of that, the time in which faults were made. Healing counts as quiet.
    pub node_time_under_faults: Duration,
    /// Events of the simulation.
    pub events: u64,
    /// Faults that were made, without the losses of single messages.
    pub faults: u64,
    /// Operations that were asked for.
    pub operations: u64,
    /// How often the network was checked as a whole.
    pub checks: u64,
    /// The longest time from the last fault until the ring was ideal.
    pub ring_healed_after: Duration,
    /// The longest time from then until the fingers were.
    pub fingers_healed_after: Duration,
    /// The most duplicates that hops have sent of one errand ([`core::duplicates`](crate::core::duplicates)).
    pub duplicates_max: u64,
    /// The hash of all that has happened.
    pub trace: Trace,
    /// What went wrong, if anything did; the run ended there.
    pub failure: Option<Failure>,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: Duration,
    /// What was done to the network then: `faults`, for example.
    pub stage: &'static str,
    /// Which, and what was expected and seen.
    pub violation: Violation,
    /// The nodes as they were.
    pub network: String,
}

impl Outcome {
    pub(super) fn new(seed: u64, trace: Trace) -> Outcome {
        Outcome {
            seed,
            node_time: Duration::ZERO,
            node_time_under_faults: Duration::ZERO,
            events: 0,
            faults: 0,
            operations: 0,
            checks: 0,
            ring_healed_after: Duration::ZERO,
            fingers_healed_after: Duration::ZERO,
            duplicates_max: 0,
            trace,
            failure: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { at, stage, violation, .. } = self;
        writeln!(f, "at {:.6} s, {stage}: {violation}", at.as_secs_f64())?;
        write!(f, "  source: {}", source_of(violation.invariant))
    }
}
