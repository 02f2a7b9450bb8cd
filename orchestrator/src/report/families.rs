//! Stands in for `p2ps::metrics::{families, encode}`, which another branch brings: delete this file when it is there.

use p2ps::message::MessageKind;
use p2ps::metrics::Snapshot;
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

pub(super) fn families(snapshot: &Snapshot, labels: &[(&str, &str)]) -> Vec<MetricFamily> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let series = MessageKind::ALL.iter().zip(&snapshot.traffic).map(|(kind, traffic)| {
        let own = [("direction", "sent"), ("kind", kind.as_str())];
        let mut metric = Metric::from_label(labels.iter().chain(&own).map(pair).collect());
        let mut counter = Counter::default();
        counter.set_value(traffic.sent as f64);
        metric.set_counter(counter);
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name("p2ps_messages_total".to_owned());
    family.set_help("Messages over links; those forwarded count as received and sent too.".to_owned());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(series.collect());
    vec![family]
}

pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(families, &mut text)
        .expect("a Vec takes every write, and each family has a series");
    String::from_utf8(text).expect("the text format is UTF-8")
}
