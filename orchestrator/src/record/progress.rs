//! How a run is getting on, for whoever watches it.

use std::collections::VecDeque;

use super::histograms::MergedHistogram;
use super::operations::{LostReason, Operation, OperationEnd};

/// Rates and latencies are those of so many seconds.
const WINDOW_SECONDS: u64 = 5;

/// How a run is getting on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The latest time that any host spoke of, in microseconds since the run's start.
    pub now_us: u64,
    /// What is going on, for people: the latest phase of the schedule.
    pub phase: String,
    /// Hosts whose agents have reported.
    pub hosts_ready: u32,
    /// Hosts whose agents are gone.
    pub hosts_lost: u32,
    /// Nodes that have joined and not ended.
    pub nodes_alive: u32,
    /// Nodes that run and have not joined yet.
    pub nodes_joining: u32,
    /// The operations so far.
    pub operations: OperationCounts,
    /// Whether some of them are no look-ups.
    pub mixed: bool,
    /// Operations that ended, a second, of late.
    pub operations_per_second: f64,
    /// The median latency of late, from the intended time; `None` where nothing was answered.
    pub latency_p50_us: Option<u64>,
    /// The latency that 99 % of late did not exceed.
    pub latency_p99_us: Option<u64>,
    /// What went wrong so far: agents' complaints, crashes, actions that could not be done, words that make no sense.
    pub problems: u64,
}

/// Operations of a run by what became of them. An answer counts as answered: whether it is right is known at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Those whose time has come.
    pub issued: u64,
    /// Those of which it is known how they ended.
    pub ended: u64,
    /// Those that were answered.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that could not be given to their node.
    pub not_issued: u64,
}

/// Counts operations as they end.
#[derive(Debug)]
pub(super) struct OperationMeter {
    /// When each operation is meant to be issued, sorted.
    intended_us: Vec<u64>,
    counts: OperationCounts,
    mixed: bool,
    /// The last seconds, the oldest first.
    window: VecDeque<Second>,
}

#[derive(Debug, Default)]
struct Second {
    second: u64,
    ended: u64,
    latency_us: MergedHistogram,
}

impl OperationMeter {
    /// `mixed`: some of them are no look-ups.
    pub(super) fn new(intended_us: impl Iterator<Item = u64>, mixed: bool) -> OperationMeter {
        let mut intended_us: Vec<u64> = intended_us.collect();
        intended_us.sort_unstable();
        OperationMeter { intended_us, counts: OperationCounts::default(), mixed, window: VecDeque::new() }
    }

    /// Counts an operation that has ended.
    pub(super) fn ended(&mut self, operation: &Operation) {
        self.counts.ended += 1;
        match operation.end {
            OperationEnd::Done { ended_us, .. } => {
                self.counts.succeeded += 1;
                if let Some(second) = self.second_of(ended_us) {
                    second.ended += 1;
                    second.latency_us.record(ended_us.saturating_sub(operation.intended_us));
                }
            }
            OperationEnd::Failed { ended_us, .. } => {
                self.counts.failed += 1;
                if let Some(second) = self.second_of(ended_us) {
                    second.ended += 1;
                }
            }
            OperationEnd::Lost(LostReason::NotIssued) => self.counts.not_issued += 1,
            OperationEnd::Lost(_) => {}
        }
    }

    /// Fills in what it knows.
    pub(super) fn fill(&self, progress: &mut Progress) {
        let now_us = progress.now_us;
        let issued = self.intended_us.partition_point(|intended_us| *intended_us <= now_us) as u64;
        progress.mixed = self.mixed;
        progress.operations = OperationCounts { issued: issued.max(self.counts.ended), ..self.counts };
        let first = (now_us / 1_000_000 + 1).saturating_sub(WINDOW_SECONDS);
        let recent = || self.window.iter().filter(|second| second.second >= first);
        let ended: u64 = recent().map(|second| second.ended).sum();
        let length_us = now_us.saturating_sub(first * 1_000_000);
        if length_us > 0 {
            progress.operations_per_second = ended as f64 * 1e6 / length_us as f64;
        }
        let mut latency_us = MergedHistogram::default();
        recent().for_each(|second| latency_us.add(&second.latency_us));
        progress.latency_p50_us = latency_us.quantile(0.5);
        progress.latency_p99_us = latency_us.quantile(0.99);
    }

    /// The second that a moment is in, if it is one of the last ones.
    fn second_of(&mut self, at_us: u64) -> Option<&mut Second> {
        let second = at_us / 1_000_000;
        let at = match self.window.binary_search_by_key(&second, |entry| entry.second) {
            Ok(at) => at,
            Err(0) if self.window.len() as u64 >= WINDOW_SECONDS => return None,
            Err(mut at) => {
                self.window.insert(at, Second { second, ..Second::default() });
                if self.window.len() as u64 > WINDOW_SECONDS {
                    self.window.pop_front();
                    at -= 1;
                }
                at
            }
        };
        self.window.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::operations::Done;
    use super::*;
    use crate::plan::workload::OperationKind;
    use p2ps::id::Id;

    fn found(intended_us: u64, ended_us: u64) -> Operation {
        let end = OperationEnd::Done { issued_us: intended_us, ended_us, result: Done::Found(Id(1), 1) };
        Operation { number: 0, kind: OperationKind::Lookup, node: 0, key: Some(Id(0)), intended_us, end }
    }

    #[test]
    fn rate_and_latency_are_those_of_the_last_seconds() {
        let mut meter = OperationMeter::new((0..20).map(|second| second * 1_000_000), false);
        for second in 0..10 {
            meter.ended(&found(second * 1_000_000, second * 1_000_000 + (second + 1) * 1000));
        }
        let mut progress = Progress { now_us: 9_500_000, ..Progress::default() };
        meter.fill(&mut progress);
        let expected = OperationCounts { issued: 10, ended: 10, succeeded: 10, ..OperationCounts::default() };
        assert_eq!(progress.operations, expected);
        // The seconds 5 to 9, of which the last is half over: 5 in 4.5 s, of 6 to 10 ms.
        assert!((progress.operations_per_second - 5.0 / 4.5).abs() < 1e-9);
        assert!((7900..8100).contains(&progress.latency_p50_us.unwrap()), "{progress:?}");
        assert!((9900..10100).contains(&progress.latency_p99_us.unwrap()), "{progress:?}");

        progress.now_us = 60_000_000;
        meter.fill(&mut progress);
        assert_eq!((progress.operations_per_second, progress.latency_p50_us), (0.0, None));
        assert_eq!(progress.operations.issued, 20);
    }

    #[test]
    fn ends_that_come_late_or_from_far_ahead_do_not_grow_the_window() {
        let mut meter = OperationMeter::new(std::iter::empty(), false);
        for second in [5, 1, 9, 7, u64::MAX / 1_000_000, 3, 8, 2] {
            meter.ended(&found(0, second * 1_000_000));
            assert!(meter.window.len() as u64 <= WINDOW_SECONDS);
            assert!(meter.window.iter().is_sorted_by_key(|entry| entry.second));
        }
        assert_eq!(meter.counts.ended, 8);
    }
}
