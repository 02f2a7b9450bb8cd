//! What was measured, by the names of [`FIGURES`](crate::plan::FIGURES). What was not measured is absent, never zero.
//!
//! - `lookup.issued`: the look-ups whose time came. `lookup.success` is the share of them that were answered rightly;
//!   `lookup.wrong` were answered wrongly, of `lookup.failed` their node said so, and `lookup.lost` never ended: the node did
//!   not run when they were to be issued, or ended before them, or never answered. The last ones alone are `messages.lost`: the
//!   overlay was at fault, not the death of whoever asked.
//! - A look-up that could not be issued since its node did not run counts as issued and lost: the plan wanted it, and to leave it
//!   out would make a network look better the more of its nodes are down.
//! - `lookup.hops` and `lookup.latency` are those of the look-ups that were answered rightly; latency counts from the
//!   intended time.
//! - All other operations have `issued`, `success`, `wrong`, `failed`, `lost` and `latency` in the same way. A message's latency is until it
//!   has come (to all). `get.found`: gets that found a value; `get.missing` and `get.stale` found none, or an older one,
//!   though a put had ended before they began. `duplicates`: how often messages came to who had them already.
//!   `broadcast.coverage`: of all nodes that broadcasts should have come to, the share that they came to, and `min`: the least of any
//!   broadcast. `broadcast.messages`: messages between nodes for each broadcast.
//! - `table.fingers.mean` and `links.mean`: distinct nodes in a finger table, and links that a node holds (those that others
//!   opened too), of each node as it was last sampled.
//! - `schedule.error`: how far from its time each action other than an operation was done.
//! - `maintenance.bytes_per_node_second`: control bytes sent, for each second that a node was a member (of each life, up to its
//!   last sample: so bytes and seconds are of the same stretch).
//! - `ring.converged`: from the last planned change (a join, leave, kill, pause, fault or its end) until the ring was right for good.

use std::collections::BTreeMap;

use p2ps::agent::protocol::ActionKind;
use p2ps::message::MessageKind;

use crate::plan::FIGURES;
use crate::plan::workload::OperationKind;
use crate::record::{Done, Judged, Life, LostReason, Operation, OperationEnd, RunRecord};
use crate::schedule::Schedule;

use super::messages::Messages;
use super::ring::History;
use super::{is_reached, seconds};

/// All figures of a run.
pub(super) fn of(
    schedule: &Schedule,
    record: &RunRecord,
    (judged, messages): (&[Judged], &Messages),
    ring: Option<&History>,
) -> BTreeMap<String, f64> {
    let mut figures = Figures::default();
    let end_us = record.ended_us.min(schedule.end_us);
    let is_alive = |life: &&Life| {
        life.joined_us.is_some_and(|joined_us| joined_us <= end_us)
            && life.over_us().is_none_or(|over_us| over_us > end_us)
    };
    figures.set("nodes.alive", Some(record.lives.iter().filter(is_alive).count() as f64));
    for kind in OperationKind::ALL {
        let is_one = |(operation, _): &(&Operation, &Judged)| operation.kind == kind;
        let all: Vec<(&Operation, &Judged)> = record.operations.iter().zip(judged).filter(is_one).collect();
        if !all.is_empty() {
            operations(&mut figures, kind, record, &all, messages);
        }
    }
    if !record.operations.is_empty() {
        let lost = judged.iter().filter(|judged| **judged == Judged::Lost(LostReason::NoReport)).count();
        figures.set("messages.lost", Some(lost as f64));
    }
    let hop = |quantile| record.totals.hop_latency_us.quantile(quantile).map(seconds);
    let totals = &record.totals;
    let mean = |sum: u64| (totals.sampled_nodes > 0).then(|| sum as f64 / totals.sampled_nodes as f64);
    figures.set("table.fingers.mean", mean(totals.fingers));
    figures.set("links.mean", mean(totals.links));
    figures.set("hop.latency.p50", hop(0.5));
    figures.set("hop.latency.p99", hop(0.99));
    figures.set("ring.converged", ring.and_then(|ring| converged_after(schedule, ring)));
    figures.distribution(
        "schedule.error",
        &mut record.action_errors_us.clone(),
        seconds,
        &["p50", "p99", "max"],
    );
    if record.totals.samples > 0 {
        for kind in MessageKind::ALL {
            let sent = record.totals.traffic_of(kind).sent as f64;
            figures.set(&format!("messages.{}.sent", kind.as_str()), Some(sent));
        }
    }
    figures.set("maintenance.bytes_per_node_second", maintenance(record));
    figures.0
}

/// Why operations did not succeed, and how often.
pub(super) fn unsuccessful(record: &RunRecord, judged: &[Judged]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let all = record.operations.iter().zip(judged);
    for (operation, judged) in all.filter(|(_, judged)| **judged != Judged::Succeeded) {
        let name = match judged.as_str() {
            (outcome, None) => outcome.to_owned(),
            (outcome, Some(reason)) => format!("{outcome}.{reason}"),
        };
        let name = match operation.kind {
            OperationKind::Lookup => name,
            kind => format!("{}.{name}", kind.as_str()),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[derive(Debug, Default)]
struct Figures(BTreeMap<String, f64>);

impl Figures {
    fn set(&mut self, name: &str, value: Option<f64>) {
        debug_assert!(FIGURES.contains(&name), "{name} is no figure");
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// The `parts` of a distribution, exact: percentiles are values that were measured (nearest rank).
    fn distribution(&mut self, name: &str, values: &mut [u64], unit: impl Fn(u64) -> f64, parts: &[&str]) {
        values.sort_unstable();
        let Some(max) = values.last().copied() else { return };
        let rank = |share: f64| ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
        for part in parts {
            let value = match *part {
                "mean" => values.iter().map(|value| unit(*value)).sum::<f64>() / values.len() as f64,
                "p50" => unit(values[rank(0.5)]),
                "p99" => unit(values[rank(0.99)]),
                _ => unit(max),
            };
            self.set(&format!("{name}.{part}"), Some(value));
        }
    }
}

/// What all operations of one kind have in common.
fn operations(
    figures: &mut Figures,
    kind: OperationKind,
    record: &RunRecord,
    all: &[(&Operation, &Judged)],
    messages: &Messages,
) {
    let name = kind.as_str();
    let count = |is: fn(&Judged) -> bool| all.iter().filter(|(_, judged)| is(judged)).count() as f64;
    let issued = count(is_reached);
    figures.set(&format!("{name}.issued"), Some(issued));
    if kind.is_message() && record.deliveries.is_cut {
        return;
    }
    let succeeded = count(|judged| *judged == Judged::Succeeded);
    let lost = count(|judged| is_reached(judged) && matches!(judged, Judged::Lost(_)));
    figures.set(&format!("{name}.success"), (issued > 0.0).then(|| succeeded / issued));
    figures.set(&format!("{name}.failed"), Some(count(|judged| matches!(judged, Judged::Failed(_)))));
    figures.set(&format!("{name}.lost"), Some(lost));
    if kind != OperationKind::Put {
        figures.set(&format!("{name}.wrong"), Some(count(|judged| *judged == Judged::Wrong)));
    }
    let right =
        all.iter().filter(|(_, judged)| **judged == Judged::Succeeded).map(|(operation, _)| *operation);
    let mut latencies_us: Vec<u64> = right.clone().filter_map(|right| latency_us(right, messages)).collect();
    figures.distribution(&format!("{name}.latency"), &mut latencies_us, seconds, &DISTRIBUTION);
    match kind {
        OperationKind::Lookup => {
            let mut hops: Vec<u64> = right.filter_map(hops).collect();
            figures.distribution("lookup.hops", &mut hops, |hops| hops as f64, &DISTRIBUTION);
        }
        OperationKind::Get => {
            let found = all.iter().filter(|(operation, _)| {
                matches!(operation.end, OperationEnd::Done { result: Done::Read(Some(_)), .. })
            });
            figures.set("get.found", Some(found.count() as f64));
            figures.set("get.missing", Some(count(|judged| *judged == Judged::Missing)));
            figures.set("get.stale", Some(count(|judged| *judged == Judged::Stale)));
        }
        OperationKind::Put => {}
        _ => deliveries(figures, kind, record, all, messages),
    }
}

/// The parts of a distribution that are told.
const DISTRIBUTION: [&str; 4] = ["mean", "p50", "p99", "max"];

fn hops(operation: &Operation) -> Option<u64> {
    match operation.end {
        OperationEnd::Done { result: Done::Found(_, hops), .. } => Some(u64::from(hops)),
        _ => None,
    }
}

/// How long an operation took that succeeded: until its node knew; of a message sent best effort, until it had come.
fn latency_us(operation: &Operation, messages: &Messages) -> Option<u64> {
    let ended_us = match operation.kind {
        OperationKind::Send | OperationKind::Broadcast | OperationKind::Multicast => {
            let reach = messages.reaches.get(&operation.number)?;
            Some(reach.last_us).filter(|last_us| *last_us > 0)?
        }
        _ => operation.end.times_us()?.1,
    };
    Some(ended_us.saturating_sub(operation.intended_us))
}

/// What messages have besides.
fn deliveries(
    figures: &mut Figures,
    kind: OperationKind,
    record: &RunRecord,
    all: &[(&Operation, &Judged)],
    messages: &Messages,
) {
    let name = kind.as_str();
    let reaches: Vec<_> =
        all.iter().filter_map(|(operation, _)| messages.reaches.get(&operation.number)).collect();
    let duplicates: u64 = reaches.iter().map(|reach| u64::from(reach.duplicates)).sum();
    figures.set(&format!("{name}.duplicates"), Some(duplicates as f64));
    if kind == OperationKind::SendReliable {
        figures.set("send_reliable.reordered", Some(messages.reordered as f64));
    }
    let totals = &record.totals;
    let sent = match kind {
        OperationKind::Broadcast => totals.broadcast_messages,
        OperationKind::Multicast => totals.multicast_messages,
        _ => return,
    };
    let expected: u64 = reaches.iter().map(|reach| u64::from(reach.expected)).sum();
    let reached: u64 = reaches.iter().map(|reach| u64::from(reach.reached)).sum();
    let shares = reaches.iter().filter(|reach| reach.expected > 0);
    let least = shares.map(|reach| f64::from(reach.reached) / f64::from(reach.expected)).reduce(f64::min);
    figures.set(&format!("{name}.coverage"), (expected > 0).then(|| reached as f64 / expected as f64));
    figures.set(&format!("{name}.coverage.min"), least);
    let is_measured = totals.samples > 0 && !reaches.is_empty();
    figures.set(&format!("{name}.messages"), is_measured.then(|| sent as f64 / reaches.len() as f64));
}

fn converged_after(schedule: &Schedule, ring: &History) -> Option<f64> {
    // What is healed at the very end is no disturbance of the run.
    let disturbances = schedule.actions.iter().filter(|action| {
        let is_last = matches!(action.kind, ActionKind::Resume | ActionKind::Shape { .. })
            && action.at_us == schedule.end_us;
        action.at_us <= ring.end_us && !is_last && action.kind.operation().is_none()
    });
    let last_us = disturbances.map(|action| action.at_us).max()?;
    Some(seconds(ring.settled_from()?.saturating_sub(last_us)))
}

fn maintenance(record: &RunRecord) -> Option<f64> {
    let sampled_us = |life: &Life| {
        let until_us = life.over_us().unwrap_or(u64::MAX).min(life.sampled_us?);
        Some(until_us.saturating_sub(life.joined_us?))
    };
    let member_us: u64 = record.lives.iter().filter_map(sampled_us).fold(0, u64::saturating_add);
    let bytes = record.totals.traffic_of(MessageKind::Control).sent_bytes;
    (member_us > 0).then(|| bytes as f64 / seconds(member_us))
}
