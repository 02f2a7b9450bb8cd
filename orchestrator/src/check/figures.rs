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
//! - `table.fingers.mean` and `links.mean`: distinct nodes in a finger table, and links that a node holds (those that others
//!   opened too), of each node as it was last sampled.
//! - `schedule.error`: how far from its time each action other than a look-up was done.
//! - `maintenance.bytes_per_node_second`: control bytes sent, for each second that a node was a member (of each life, up to its
//!   last sample: so bytes and seconds are of the same stretch).
//! - `ring.converged`: from the last planned change (a join, leave, kill, pause, fault or its end) until the ring was right for good.

use std::collections::BTreeMap;

use p2ps::agent::protocol::ActionKind;
use p2ps::message::MessageKind;

use crate::record::{Judged, Life, LostReason, OperationEnd, RunRecord};
use crate::schedule::Schedule;

use super::ring::History;
use super::{is_reached, seconds};

/// All figures of a run.
pub(super) fn of(
    schedule: &Schedule,
    record: &RunRecord,
    judged: &[Judged],
    ring: Option<&History>,
) -> BTreeMap<String, f64> {
    let mut figures = Figures::default();
    let end_us = record.ended_us.min(schedule.end_us);
    let is_alive = |life: &&Life| {
        life.joined_us.is_some_and(|joined_us| joined_us <= end_us)
            && life.over_us().is_none_or(|over_us| over_us > end_us)
    };
    figures.set("nodes.alive", Some(record.lives.iter().filter(is_alive).count() as f64));
    lookups(&mut figures, record, judged);
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

/// Why look-ups did not succeed, and how often.
pub(super) fn unsuccessful(judged: &[Judged]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for judged in judged.iter().filter(|judged| **judged != Judged::Succeeded) {
        let name = match judged.as_str() {
            (outcome, None) => outcome.to_owned(),
            (outcome, Some(reason)) => format!("{outcome}.{reason}"),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[derive(Debug, Default)]
struct Figures(BTreeMap<String, f64>);

impl Figures {
    fn set(&mut self, name: &str, value: Option<f64>) {
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

fn lookups(figures: &mut Figures, record: &RunRecord, judged: &[Judged]) {
    if record.operations.is_empty() {
        return;
    }
    let count = |is: fn(&Judged) -> bool| judged.iter().filter(|judged| is(judged)).count() as f64;
    let issued = count(is_reached);
    let succeeded = count(|judged| *judged == Judged::Succeeded);
    let lost = count(|judged| is_reached(judged) && matches!(judged, Judged::Lost(_)));
    figures.set("lookup.issued", Some(issued));
    figures.set("lookup.success", (issued > 0.0).then(|| succeeded / issued));
    figures.set("lookup.wrong", Some(count(|judged| *judged == Judged::Wrong)));
    figures.set("lookup.failed", Some(count(|judged| matches!(judged, Judged::Failed(_)))));
    figures.set("lookup.lost", Some(lost));
    figures.set("messages.lost", Some(count(|judged| *judged == Judged::Lost(LostReason::NoReport))));
    let (mut latencies_us, mut all_hops) = (Vec::new(), Vec::new());
    for (operation, judged) in record.operations.iter().zip(judged) {
        if let (OperationEnd::Found { ended_us, hops, .. }, Judged::Succeeded) = (operation.end, judged) {
            latencies_us.push(ended_us.saturating_sub(operation.intended_us));
            all_hops.push(u64::from(hops));
        }
    }
    let parts = ["mean", "p50", "p99", "max"];
    figures.distribution("lookup.latency", &mut latencies_us, seconds, &parts);
    figures.distribution("lookup.hops", &mut all_hops, |hops| hops as f64, &parts);
}

fn converged_after(schedule: &Schedule, ring: &History) -> Option<f64> {
    // What is healed at the very end is no disturbance of the run.
    let disturbances = schedule.actions.iter().filter(|action| {
        let is_last = matches!(action.kind, ActionKind::Resume | ActionKind::Shape { .. })
            && action.at_us == schedule.end_us;
        action.at_us <= ring.end_us && !is_last && !matches!(action.kind, ActionKind::Lookup { .. })
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
