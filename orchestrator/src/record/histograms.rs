//! Histograms over all nodes. Nodes send the non-empty buckets of an HdrHistogram; since all have the same buckets, adding
//! up their counts is exact, which averaging percentiles would not be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use p2ps::metrics::{Histogram, Snapshot};

use crate::plan::Plan;
use crate::schedule::HostIndex;

use super::RecordError;

/// The resolution of all histograms: two digits, an error of 1 % at most.
pub const SIGNIFICANT_DIGITS: u8 = 2;

/// A histogram of any number of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedHistogram(hdrhistogram::Histogram<u64>);

impl Default for MergedHistogram {
    fn default() -> MergedHistogram {
        MergedHistogram(
            hdrhistogram::Histogram::new(SIGNIFICANT_DIGITS).expect("two significant digits are in 0..=5"),
        )
    }
}

impl MergedHistogram {
    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Adds a node's buckets.
    pub fn merge(&mut self, histogram: &Histogram) {
        for (value, count) in &histogram.0 {
            self.record_n(*value, *count);
        }
    }

    /// Adds all values of another one.
    pub fn add(&mut self, other: &MergedHistogram) {
        // Both have the same resolution, and this one grows as it has to.
        let _ = self.0.add(&other.0);
    }

    /// The value that a share `quantile` (0..=1) of all values does not exceed; `None` while there is none.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile))
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    fn record_n(&mut self, value: u64, count: u64) {
        // It grows to any value, and counts stop at their limit: only a platform with tiny pointers could refuse.
        let _ = self.0.record_n(value, count);
    }
}

/// What was added since `earlier`, a former state of the same node; `None` where the node has started anew since then:
/// a count went down.
pub(super) fn added_since(now: &Histogram, earlier: &Histogram) -> Option<Histogram> {
    let mut counts: BTreeMap<u64, u64> = now.0.iter().copied().collect();
    for (value, count) in &earlier.0 {
        let left = counts.get(value).copied().unwrap_or(0).checked_sub(*count)?;
        counts.insert(*value, left);
    }
    Some(Histogram(counts.into_iter().filter(|(_, count)| *count > 0).collect()))
}

/// The histograms of one interval.
#[derive(Debug, Default)]
pub(super) struct Interval {
    hop_latency_us: MergedHistogram,
    lookup_latency_us: MergedHistogram,
    lookup_hops: MergedHistogram,
}

impl Interval {
    /// Adds what one node's histograms have grown by.
    pub(super) fn merge(&mut self, added: &Snapshot) {
        self.hop_latency_us.merge(&added.hop_latency_us);
        self.lookup_latency_us.merge(&added.lookup_latency_us);
        self.lookup_hops.merge(&added.lookup_hops);
    }
}

/// `histograms.hlog`, in HdrHistogram's own log format: for each interval and tag one line, of all nodes together.
/// Timestamps count from the run's start (BaseTime).
///
/// An interval is over when a host reports for the second time in it: so each has one report of every host that keeps pace,
/// whatever the sampling period.
#[derive(Debug)]
pub(super) struct HistogramLog {
    path: PathBuf,
    title: String,
    file: BufWriter<File>,
    interval: Interval,
    reported: BTreeSet<HostIndex>,
    from_us: u64,
    until_us: u64,
    /// The run's start by this machine's clock, once it is known.
    start: Option<SystemTime>,
}

impl HistogramLog {
    pub(super) fn create(path: PathBuf, plan: &Plan) -> Result<HistogramLog, RecordError> {
        let file = File::create(&path).map_err(|source| RecordError::File {
            doing: "create",
            path: path.clone(),
            source,
        })?;
        let (interval, reported) = (Interval::default(), BTreeSet::new());
        let file = BufWriter::new(file);
        let title = format!("{}, seed {}: all nodes, by interval", plan.name, plan.seed);
        Ok(HistogramLog { path, title, file, interval, reported, from_us: 0, until_us: 0, start: None })
    }

    /// The interval that `host`'s report of `at_us` belongs to.
    pub(super) fn interval(&mut self, host: HostIndex, at_us: u64) -> Result<&mut Interval, RecordError> {
        if self.start.is_none() {
            // Heard now, of `at_us` after the start.
            self.begin(SystemTime::now().checked_sub(Duration::from_micros(at_us)))?;
        }
        if !self.reported.insert(host) {
            self.write()?;
            self.reported.insert(host);
        }
        self.until_us = self.until_us.max(at_us);
        Ok(&mut self.interval)
    }

    /// Writes the last interval.
    pub(super) fn finish(mut self) -> Result<(), RecordError> {
        if self.start.is_none() {
            self.begin(Some(SystemTime::now()))?;
        }
        self.write()
    }

    fn begin(&mut self, start: Option<SystemTime>) -> Result<(), RecordError> {
        let start = *self.start.insert(start.unwrap_or(SystemTime::UNIX_EPOCH));
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(&self.title)
            .add_comment("hop_latency, lookup_latency: microseconds; hops: hops")
            .with_base_time(start)
            .begin_log_with(&mut self.file, &mut V2DeflateSerializer::new())
            .map(drop)
            .map_err(|source| RecordError::File { doing: "write", path: self.path.clone(), source })
    }

    fn write(&mut self) -> Result<(), RecordError> {
        let interval = std::mem::take(&mut self.interval);
        let start = Duration::from_micros(self.from_us);
        let length = Duration::from_micros(self.until_us.saturating_sub(self.from_us));
        let failed = |reason: String| RecordError::HistogramLog { path: self.path.clone(), reason };
        let mut serializer = V2DeflateSerializer::new();
        let mut writer = IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.file, &mut serializer)
            .map_err(|error| failed(error.to_string()))?;
        for (tag, histogram) in [
            ("hop_latency", &interval.hop_latency_us),
            ("lookup_latency", &interval.lookup_latency_us),
            ("hops", &interval.lookup_hops),
        ] {
            writer
                .write_histogram(&histogram.0, start, length, Tag::new(tag))
                .map_err(|error| failed(error.to_string()))?;
        }
        self.file.flush().map_err(|error| failed(error.to_string()))?;
        self.reported.clear();
        self.from_us = self.until_us;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    /// The buckets of some values, as a node sends them.
    pub(in crate::record) fn buckets(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut merged = MergedHistogram::default();
        values.into_iter().for_each(|value| merged.record(value));
        let recorded = merged.0.iter_recorded();
        Histogram(recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    #[test]
    fn histograms_of_many_nodes_merge_to_that_of_all_values() {
        let values = |node: u64| (0..500).map(move |step| (node * 7919 + step * step * 31) % 3_000_000);
        let mut merged = MergedHistogram::default();
        let mut single = MergedHistogram::default();
        for node in 0..20 {
            merged.merge(&buckets(values(node)));
            values(node).for_each(|value| single.record(value));
        }
        assert_eq!(merged, single);
        assert_eq!(merged.count(), 20 * 500);
        for quantile in [0.0, 0.5, 0.99, 1.0] {
            assert_eq!(merged.quantile(quantile), single.quantile(quantile));
        }
    }

    #[test]
    fn what_was_added_is_what_was_recorded_in_between() {
        let earlier = buckets([5, 5, 900]);
        let now = buckets([5, 5, 900, 5, 70_000]);
        assert_eq!(added_since(&now, &earlier), Some(buckets([5, 70_000])));
        assert_eq!(added_since(&now, &Histogram::default()), Some(now.clone()));
        assert_eq!(added_since(&earlier, &now), None, "a count went down: the node started anew");
    }

    #[test]
    fn extreme_buckets_are_taken() {
        let mut merged = MergedHistogram::default();
        merged.merge(&Histogram(vec![(u64::MAX, u64::MAX), (0, u64::MAX), (u64::MAX, 1)]));
        assert_eq!(merged.count(), u64::MAX);
        assert_eq!(merged.quantile(0.0), Some(0));
    }

    #[test]
    fn the_log_reads_back_one_interval_of_all_hosts_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("histograms.hlog");
        let mut log = HistogramLog::create(path.clone(), &crate::record::tests::plan()).unwrap();
        for (host, at_us, hops) in [(0, 1_000_000, 3), (1, 1_100_000, 4), (0, 2_000_000, 5)] {
            let added = Snapshot { lookup_hops: buckets([hops]), ..Snapshot::default() };
            log.interval(host, at_us).unwrap().merge(&added);
        }
        log.finish().unwrap();

        let text = std::fs::read(&path).unwrap();
        assert!(text.starts_with(b"#[Histogram log format version 1.3]\n"));
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            if interval.tag().unwrap().as_str() != "hops" {
                continue;
            }
            let bytes = base64_decode(interval.encoded_histogram());
            let histogram: hdrhistogram::Histogram<u64> =
                Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            read.push((interval.start_timestamp(), interval.duration(), MergedHistogram(histogram)));
        }
        let merged = |values: &[u64]| {
            let mut merged = MergedHistogram::default();
            values.iter().for_each(|value| merged.record(*value));
            merged
        };
        let (millis, of) = (Duration::from_millis, merged);
        assert_eq!(read, [(millis(0), millis(1100), of(&[3, 4])), (millis(1100), millis(900), of(&[5]))]);
    }

    fn base64_decode(text: &str) -> Vec<u8> {
        let digit = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(digit).collect();
        let bits = digits.iter().flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1));
        bits.collect::<Vec<u8>>()
            .chunks_exact(8)
            .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit))
            .collect()
    }
}
