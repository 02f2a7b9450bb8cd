//! A [`Snapshot`] as Prometheus' metric families, and these as text.
//!
//! Names, units and types follow <https://prometheus.io/docs/practices/naming/>. Families come in a fixed order, each with at
//! least one series, so that the families of many nodes can be merged place by place. No label has unbounded values.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as ProtoHistogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

use super::{Histogram, ShapeEffect, Snapshot};
use crate::message::{MessageKind, RouteError};

/// Upper bounds of the latency buckets, in seconds.
pub const LATENCY_SECONDS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0, 20.0, 60.0,
];

/// Upper bounds of the hop buckets.
pub const HOPS: [f64; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0];

/// The families of one node's snapshot; every series gets `labels` too.
pub fn families(snapshot: &Snapshot, labels: &[(&str, &str)]) -> Vec<MetricFamily> {
    let build = Families { labels };
    let mut families = vec![build.gauges(
        "p2ps_build_info",
        "The version of the node; always 1.",
        &[(&[("version", env!("CARGO_PKG_VERSION"))], 1)],
    )];
    families.extend(build.traffic(snapshot));
    families.extend(build.overlay(snapshot));
    families.push(build.lookups(snapshot));
    families.push(build.histogram(
        "p2ps_hop_latency_seconds",
        "Time from sending a message over a link to its acknowledgement.",
        (&snapshot.hop_latency_us, 1e6),
        &LATENCY_SECONDS,
    ));
    families.push(build.histogram(
        "p2ps_lookup_latency_seconds",
        "Time that successful look-ups took.",
        (&snapshot.lookup_latency_us, 1e6),
        &LATENCY_SECONDS,
    ));
    families.push(build.histogram(
        "p2ps_lookup_hops",
        "Hops that successful look-ups took.",
        (&snapshot.lookup_hops, 1.0),
        &HOPS,
    ));
    families
}

/// Prometheus' text format of the families.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(families, &mut text)
        .expect("a Vec takes every write, and each family has a series");
    String::from_utf8(text).expect("the text format is UTF-8")
}

type Series<'a> = (&'a [(&'a str, &'a str)], u64);

struct Families<'a> {
    labels: &'a [(&'a str, &'a str)],
}

impl Families<'_> {
    fn traffic(&self, snapshot: &Snapshot) -> Vec<MetricFamily> {
        let mut messages = Vec::new();
        let mut bytes = Vec::new();
        for kind in MessageKind::ALL {
            let traffic = snapshot.traffic[kind as usize];
            let mut count = |direction, value| {
                messages.push(([("direction", direction), ("kind", kind.as_str())], value));
            };
            count("sent", traffic.sent);
            count("received", traffic.received);
            if kind != MessageKind::Ack {
                count("forwarded", traffic.forwarded);
            }
            bytes.push(([("direction", "sent"), ("kind", kind.as_str())], traffic.sent_bytes));
            bytes.push(([("direction", "received"), ("kind", kind.as_str())], traffic.received_bytes));
        }
        vec![
            self.counters(
                "p2ps_messages_total",
                "Messages over links; those forwarded count as received and sent too.",
                &series(&messages),
            ),
            self.counters("p2ps_message_bytes_total", "Bytes of messages, with framing.", &series(&bytes)),
            self.counters(
                "p2ps_shaped_messages_total",
                "Messages that a fault of their link was made on.",
                &series(
                    &ShapeEffect::ALL
                        .map(|effect| ([("effect", effect.as_str())], snapshot.shaped[effect as usize])),
                ),
            ),
        ]
    }

    fn overlay(&self, snapshot: &Snapshot) -> Vec<MetricFamily> {
        let one = |name, help, value| self.counters(name, help, &[(&[], value)]);
        let mut origins = Vec::new();
        for (place, kind) in ["data", "control"].into_iter().enumerate() {
            origins.push(([("kind", kind), ("origin", "local")], snapshot.messages_local[place]));
            origins.push(([("kind", kind), ("origin", "remote")], snapshot.messages_remote[place]));
        }
        vec![
            self.counters(
                "p2ps_overlay_messages_total",
                "Messages that started or ended at the node (local), or were passed on for others (remote).",
                &series(&origins),
            ),
            self.gauges("p2ps_uses_proxy", "1 where the node is a client.", &[(&[], snapshot.uses_proxy)]),
            self.gauges("p2ps_clients", "Clients that the node is the proxy of.", &[(&[], snapshot.clients)]),
            self.gauges(
                "p2ps_links",
                "Links that stand, by who opened them.",
                &[(&[("direction", "out")], snapshot.links_out), (&[("direction", "in")], snapshot.links_in)],
            ),
            self.gauges("p2ps_fingers", "Distinct nodes in the finger table.", &[(&[], snapshot.fingers)]),
            self.gauges("p2ps_successors", "Entries of the successor list.", &[(&[], snapshot.successors)]),
            self.gauges(
                "p2ps_dictionary_items",
                "Items of the dictionary that the node keeps.",
                &[(&[], snapshot.items)],
            ),
            self.gauges("p2ps_dictionary_bytes", "Bytes of their values.", &[(&[], snapshot.item_bytes)]),
            self.counters(
                "p2ps_ring_changes_total",
                "Changes of the node's neighbours.",
                &[
                    (&[("neighbour", "successor")], snapshot.successor_changes),
                    (&[("neighbour", "predecessor")], snapshot.predecessor_changes),
                    (&[("neighbour", "finger")], snapshot.finger_changes),
                ],
            ),
            one("p2ps_joins_total", "Joins that the node handed a range over to.", snapshot.joins),
            one("p2ps_suspicions_total", "Nodes that the node took for dead.", snapshot.suspicions),
            one("p2ps_delivered_messages_total", "Messages handed to the application.", snapshot.delivered),
        ]
    }

    /// Every outcome has its series from the start, so that a rate can be taken of the first failure too.
    fn lookups(&self, snapshot: &Snapshot) -> MetricFamily {
        let failed = |outcome: &str| {
            let counts = snapshot.lookups_failed.iter().filter(|(reason, _)| reason == outcome);
            counts.map(|(_, count)| count).sum()
        };
        let mut lookups = vec![([("outcome", "succeeded")], snapshot.lookups_succeeded)];
        lookups
            .extend(LOOKUP_FAILURES.map(|reason| ([("outcome", reason.as_str())], failed(reason.as_str()))));
        self.counters("p2ps_lookups_total", "Look-ups of the application that ended.", &series(&lookups))
    }

    fn counters(&self, name: &str, help: &str, series: &[Series<'_>]) -> MetricFamily {
        self.family(name, help, MetricType::COUNTER, series, |metric, value| {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
        })
    }

    fn gauges(&self, name: &str, help: &str, series: &[Series<'_>]) -> MetricFamily {
        self.family(name, help, MetricType::GAUGE, series, |metric, value| {
            let mut gauge = Gauge::default();
            gauge.set_value(value as f64);
            metric.set_gauge(gauge);
        })
    }

    /// A histogram with the given bounds; `values` come with how many of their units make one of the metric's. A recorded
    /// value is known to two digits, so the sum is near, and a value on a bound may count above it.
    fn histogram(
        &self,
        name: &str,
        help: &str,
        (values, units): (&Histogram, f64),
        bounds: &[f64],
    ) -> MetricFamily {
        let Histogram(values) = values;
        let count_to = |bound: f64| {
            values.iter().filter(|(value, _)| *value as f64 <= bound * units).map(|(_, count)| count).sum()
        };
        let buckets = bounds.iter().map(|bound| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count_to(*bound));
            bucket
        });
        let mut histogram = ProtoHistogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(values.iter().map(|(_, count)| count).sum());
        histogram
            .set_sample_sum(values.iter().map(|(value, count)| *value as f64 * *count as f64 / units).sum());
        self.family(name, help, MetricType::HISTOGRAM, &[(&[], 0)], |metric, _| {
            metric.set_histogram(histogram.clone());
        })
    }

    fn family(
        &self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: &[Series<'_>],
        fill: impl Fn(&mut Metric, u64),
    ) -> MetricFamily {
        let metric = |(labels, value): &Series<'_>| {
            let mut metric = Metric::from_label(self.labels.iter().chain(*labels).map(label).collect());
            fill(&mut metric, *value);
            metric
        };
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(series.iter().map(metric).collect());
        family
    }
}

/// How look-ups can fail.
const LOOKUP_FAILURES: [RouteError; 5] = [
    RouteError::RouteExhausted,
    RouteError::NoNextHop,
    RouteError::TimedOut,
    RouteError::Overloaded,
    RouteError::NotMember,
];

fn series<'a, const N: usize>(owned: &'a [([(&'a str, &'a str); N], u64)]) -> Vec<Series<'a>> {
    owned.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect()
}

fn label((name, value): &(&str, &str)) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name((*name).to_owned());
    label.set_value((*value).to_owned());
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Recorder;
    use std::time::Duration;

    fn snapshot() -> Snapshot {
        let mut recorder = Recorder::default();
        recorder.sent(MessageKind::Data, 100);
        recorder.lookup(Duration::from_micros(80), Ok(2));
        recorder.lookup(Duration::from_micros(80), Ok(0));
        recorder.lookup(Duration::from_micros(800), Err(RouteError::TimedOut));
        let (messages_remote, clients) = ([0, 9], 2);
        Snapshot { links_in: 3, shaped: [0, 5, 0, 0], messages_remote, clients, ..recorder.snapshot() }
    }

    #[test]
    fn series_carry_the_snapshots_values_and_the_labels() {
        let text = encode(&families(&snapshot(), &[("host", "a"), ("node", "7")]));
        for line in [
            "p2ps_messages_total{host=\"a\",node=\"7\",direction=\"sent\",kind=\"data\"} 1",
            "p2ps_message_bytes_total{host=\"a\",node=\"7\",direction=\"sent\",kind=\"data\"} 100",
            "p2ps_links{host=\"a\",node=\"7\",direction=\"in\"} 3",
            "p2ps_overlay_messages_total{host=\"a\",node=\"7\",kind=\"control\",origin=\"remote\"} 9",
            "p2ps_overlay_messages_total{host=\"a\",node=\"7\",kind=\"data\",origin=\"local\"} 0",
            "p2ps_clients{host=\"a\",node=\"7\"} 2",
            "p2ps_uses_proxy{host=\"a\",node=\"7\"} 0",
            "p2ps_shaped_messages_total{host=\"a\",node=\"7\",effect=\"delayed\"} 5",
            "p2ps_shaped_messages_total{host=\"a\",node=\"7\",effect=\"cut\"} 0",
            "p2ps_lookups_total{host=\"a\",node=\"7\",outcome=\"timed_out\"} 1",
            "p2ps_lookups_total{host=\"a\",node=\"7\",outcome=\"route_exhausted\"} 0",
            "p2ps_lookup_hops_bucket{host=\"a\",node=\"7\",le=\"0\"} 1",
            "p2ps_lookup_hops_bucket{host=\"a\",node=\"7\",le=\"2\"} 2",
            "p2ps_lookup_hops_bucket{host=\"a\",node=\"7\",le=\"+Inf\"} 2",
            "p2ps_lookup_hops_count{host=\"a\",node=\"7\"} 2",
            "p2ps_lookup_latency_seconds_bucket{host=\"a\",node=\"7\",le=\"0.00005\"} 0",
            "p2ps_lookup_latency_seconds_bucket{host=\"a\",node=\"7\",le=\"0.0001\"} 2",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn every_family_has_a_series_even_where_nothing_happened() {
        let text = encode(&families(&Snapshot::default(), &[]));
        let families = families(&Snapshot::default(), &[]);
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), families.len());
        assert!(families.iter().all(|family| !family.get_metric().is_empty()));
    }
}
