//! Collects the samples of all nodes, interval by interval.

use std::collections::HashSet;

use super::protocol::{NodeIndex, Notice};
use crate::metrics::Snapshot;

/// Samples are told of in several notices where they are larger than this, in bytes.
const NOTICE_BYTES: usize = 256 << 10;

/// The text of a sample, without what it has any number of, in bytes.
const SAMPLE_BYTES: usize = 1024;

/// The text of a count and what it counts, in bytes.
const COUNT_BYTES: usize = 24;

/// The samples of one interval.
#[derive(Debug)]
pub(super) struct Sampling {
    every_us: u64,
    next_us: u64,
    awaited: HashSet<NodeIndex>,
    answers: Vec<(NodeIndex, Snapshot)>,
    answers_bytes: usize,
}

impl Sampling {
    /// Samples every `every_us`, for the first time at `first_us`.
    pub(super) fn new(every_us: u64, first_us: u64) -> Sampling {
        Sampling {
            every_us,
            next_us: first_us,
            awaited: HashSet::new(),
            answers: Vec::new(),
            answers_bytes: 0,
        }
    }

    /// When the next interval begins.
    pub(super) fn next_us(&self) -> u64 {
        self.next_us
    }

    /// Begins the next interval if it is time; then the nodes that `ask` yields are awaited. Gives back what is left of
    /// the last one.
    pub(super) fn tick(&mut self, now_us: u64, ask: impl FnOnce() -> HashSet<NodeIndex>) -> Option<Notice> {
        if now_us < self.next_us {
            return None;
        }
        // A host that stood still skips intervals, rather than to ask several times at once.
        let missed = (now_us - self.next_us) / self.every_us;
        self.next_us += (missed + 1) * self.every_us;
        let rest = self.flush(now_us);
        self.awaited = ask();
        rest
    }

    /// Takes a node's answer in; gives back what is ready to be told.
    pub(super) fn answer(&mut self, now_us: u64, node: NodeIndex, sample: Snapshot) -> Option<Notice> {
        self.answers_bytes += bytes(&sample);
        self.answers.push((node, sample));
        let complete = self.awaited.remove(&node) && self.awaited.is_empty();
        if complete || self.answers_bytes >= NOTICE_BYTES { self.flush(now_us) } else { None }
    }

    /// A node that has ended is not awaited any more.
    pub(super) fn gone(&mut self, now_us: u64, node: NodeIndex) -> Option<Notice> {
        if self.awaited.remove(&node) && self.awaited.is_empty() { self.flush(now_us) } else { None }
    }

    fn flush(&mut self, now_us: u64) -> Option<Notice> {
        self.answers_bytes = 0;
        let nodes = std::mem::take(&mut self.answers);
        if nodes.is_empty() { None } else { Some(Notice::Samples { at_us: now_us, nodes }) }
    }
}

/// About how long a sample is as text, in bytes, and rather more than less.
fn bytes(sample: &Snapshot) -> usize {
    let histograms = [&sample.hop_latency_us, &sample.lookup_latency_us, &sample.lookup_hops];
    let buckets: usize = histograms.iter().map(|histogram| histogram.0.len()).sum();
    let reasons: usize = sample.lookups_failed.iter().map(|(reason, _)| reason.len() + COUNT_BYTES).sum();
    SAMPLE_BYTES + COUNT_BYTES * buckets + reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Histogram;

    fn told(notice: Option<Notice>) -> Vec<NodeIndex> {
        match notice {
            Some(Notice::Samples { nodes, .. }) => nodes.into_iter().map(|(node, _)| node).collect(),
            None => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    fn large() -> Snapshot {
        let buckets = (0..NOTICE_BYTES / COUNT_BYTES).map(|value| (value as u64, 1)).collect();
        Snapshot { hop_latency_us: Histogram(buckets), ..Snapshot::default() }
    }

    #[test]
    fn an_interval_is_told_once_all_have_answered_or_are_gone() {
        let mut sampling = Sampling::new(1000, 500);
        assert!(told(sampling.tick(499, || unreachable!())).is_empty());
        assert!(told(sampling.tick(500, || HashSet::from([1, 2, 3]))).is_empty());
        assert!(told(sampling.answer(510, 1, Snapshot::default())).is_empty());
        assert!(told(sampling.answer(511, 3, Snapshot::default())).is_empty());
        assert_eq!(told(sampling.gone(512, 2)), [1, 3]);
        assert_eq!(sampling.next_us(), 1500);
    }

    #[test]
    fn what_is_late_is_told_with_the_next_interval_and_what_is_large_in_parts() {
        let mut sampling = Sampling::new(1000, 0);
        sampling.tick(0, || HashSet::from([1, 2]));
        assert!(told(sampling.answer(10, 1, Snapshot::default())).is_empty());
        assert_eq!(told(sampling.tick(5_400, || HashSet::from([1, 2]))), [1]);
        assert_eq!(sampling.next_us(), 6000, "intervals that were missed are skipped");
        assert_eq!(told(sampling.answer(5_410, 1, large())), [1]);
        assert_eq!(told(sampling.answer(5_411, 2, Snapshot::default())), [2]);
    }
}
