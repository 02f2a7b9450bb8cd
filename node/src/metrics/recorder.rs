//! The recording side of a node's metrics. Histograms cost memory only once something is recorded in them.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram as Hdr;

use super::{Histogram, ShapeEffect, Snapshot, Traffic};
use crate::message::{MessageKind, RouteError};

/// The longest latency that is told apart, in microseconds: a minute. A longer one counts as one of this length.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The most hops that are told apart.
const HOPS_MAX: u64 = 1024;

/// Decimal digits that a histogram keeps of a value.
const SIGNIFICANT_DIGITS: u8 = 2;

/// What a driver counts and times while it runs a node.
#[derive(Debug, Default)]
pub struct Recorder {
    traffic: [Traffic; 3],
    shaped: [u64; 4],
    lookups_succeeded: u64,
    lookups_failed: BTreeMap<RouteError, u64>,
    hop_latency_us: Lazy,
    lookup_latency_us: Lazy,
    lookup_hops: Lazy,
}

impl Recorder {
    /// A message was given to a link, in a frame of `bytes`.
    pub fn sent(&mut self, kind: MessageKind, bytes: usize) {
        let traffic = &mut self.traffic[kind as usize];
        traffic.sent += 1;
        traffic.sent_bytes += bytes as u64;
    }

    /// A message came over a link, in a frame of `bytes`.
    pub fn received(&mut self, kind: MessageKind, bytes: usize) {
        let traffic = &mut self.traffic[kind as usize];
        traffic.received += 1;
        traffic.received_bytes += bytes as u64;
    }

    /// A message that another node sent was passed on.
    pub fn forwarded(&mut self, kind: MessageKind) {
        self.traffic[kind as usize].forwarded += 1;
    }

    /// A shaped link did this to so many messages.
    pub fn shaped(&mut self, effect: ShapeEffect, messages: u64) {
        self.shaped[effect as usize] += messages;
    }

    /// A link took this long from sending to acknowledgement.
    pub fn hop(&mut self, latency: Duration) {
        self.hop_latency_us.record(micros(latency), LATENCY_US_MAX);
    }

    /// A look-up of the application has ended: with so many hops, or not.
    pub fn lookup(&mut self, latency: Duration, result: Result<u16, RouteError>) {
        match result {
            Ok(hops) => {
                self.lookups_succeeded += 1;
                self.lookup_latency_us.record(micros(latency), LATENCY_US_MAX);
                self.lookup_hops.record(u64::from(hops), HOPS_MAX);
            }
            Err(reason) => *self.lookups_failed.entry(reason).or_default() += 1,
        }
    }

    /// What was recorded; what the protocol counts is left at zero.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            traffic: self.traffic,
            shaped: self.shaped,
            lookups_succeeded: self.lookups_succeeded,
            lookups_failed: self
                .lookups_failed
                .iter()
                .map(|(reason, count)| (reason.as_str().to_owned(), *count))
                .collect(),
            hop_latency_us: self.hop_latency_us.buckets(),
            lookup_latency_us: self.lookup_latency_us.buckets(),
            lookup_hops: self.lookup_hops.buckets(),
            ..Snapshot::default()
        }
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

/// A histogram that costs memory as it is used: its first buckets stand in a short list, which becomes a whole histogram when it
/// has grown too long to be searched.
#[derive(Debug, Default)]
struct Lazy {
    few: Vec<(u64, u32)>,
    many: Option<Box<Hdr<u32>>>,
}

/// The most buckets of the short list.
const FEW_MAX: usize = 48;

impl Lazy {
    fn record(&mut self, value: u64, max: u64) {
        let value = value.min(max);
        if let Some(histogram) = &mut self.many {
            return histogram.saturating_record(value);
        }
        let bucket = bucket_end(value);
        match self.few.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(place) => self.few[place].1 = self.few[place].1.saturating_add(1),
            Err(place) if self.few.len() < FEW_MAX => {
                if self.few.len() == self.few.capacity() {
                    self.few.reserve_exact(4);
                }
                self.few.insert(place, (bucket, 1));
            }
            Err(_) => {
                let histogram = Hdr::new_with_bounds(1, max, SIGNIFICANT_DIGITS);
                let mut histogram =
                    Box::new(histogram.expect("fixed bounds of at least two, and two digits"));
                for (bucket, count) in std::mem::take(&mut self.few) {
                    histogram.saturating_record_n(bucket.min(max), count);
                }
                histogram.saturating_record(value);
                self.many = Some(histogram);
            }
        }
    }

    fn buckets(&self) -> Histogram {
        let Some(histogram) = &self.many else {
            return Histogram(self.few.iter().map(|(bucket, count)| (*bucket, u64::from(*count))).collect());
        };
        let bucket = |value: u64, count: u32| (histogram.highest_equivalent(value), u64::from(count));
        Histogram(
            histogram
                .iter_recorded()
                .map(|step| bucket(step.value_iterated_to(), step.count_at_value()))
                .collect(),
        )
    }
}

/// The highest value of HdrHistogram's bucket for a value, at two significant digits: the value's first eight bits, then ones.
fn bucket_end(value: u64) -> u64 {
    let shift = value.checked_ilog2().map_or(0, |bits| bits.saturating_sub(7));
    value | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_what_was_recorded() {
        let mut recorder = Recorder::default();
        recorder.sent(MessageKind::Ack, 10);
        recorder.received(MessageKind::Data, 20);
        recorder.forwarded(MessageKind::Data);
        recorder.lookup(Duration::from_micros(100), Ok(0));
        recorder.lookup(Duration::from_micros(100), Ok(3));
        recorder.lookup(Duration::from_secs(1), Err(RouteError::TimedOut));
        recorder.hop(Duration::from_secs(3600));
        recorder.shaped(ShapeEffect::Cut, 2);
        let snapshot = recorder.snapshot();
        assert_eq!(snapshot.traffic[2], Traffic { sent: 1, sent_bytes: 10, ..Traffic::default() });
        assert_eq!(
            snapshot.traffic[0],
            Traffic { received: 1, received_bytes: 20, forwarded: 1, ..Traffic::default() }
        );
        assert_eq!(snapshot.shaped, [0, 0, 2, 0]);
        assert_eq!(snapshot.lookups_succeeded, 2);
        assert_eq!(snapshot.lookups_failed, [("timed_out".to_owned(), 1)]);
        assert_eq!(snapshot.lookup_hops.0, [(0, 1), (3, 1)]);
        assert_eq!(snapshot.lookup_latency_us.0, [(100, 2)]);
        let (value, count) = snapshot.hop_latency_us.0[0];
        assert!(value.abs_diff(LATENCY_US_MAX) * 100 <= LATENCY_US_MAX && count == 1, "{value}");
    }

    #[test]
    fn nothing_recorded_costs_no_histogram() {
        let recorder = Recorder::default();
        assert!(recorder.hop_latency_us.many.is_none() && recorder.hop_latency_us.few.capacity() == 0);
        assert_eq!(recorder.snapshot(), Snapshot::default());
    }

    #[test]
    fn a_short_list_has_the_buckets_of_a_whole_histogram() {
        let whole = Hdr::<u32>::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS).unwrap();
        let mut lazy = Lazy::default();
        let mut direct = whole.clone();
        for step in 0..2000u64 {
            let value = (step * step * step * 7 + step) % LATENCY_US_MAX;
            assert_eq!(bucket_end(value), whole.highest_equivalent(value), "{value}");
            lazy.record(value, LATENCY_US_MAX);
            direct.saturating_record(value);
            assert_eq!(lazy.many.is_some(), step as usize >= FEW_MAX, "{step}");
        }
        let direct = direct.iter_recorded();
        let expected = direct.map(|step| {
            (whole.highest_equivalent(step.value_iterated_to()), u64::from(step.count_at_value()))
        });
        assert_eq!(lazy.buckets().0, expected.collect::<Vec<_>>());
    }
}
