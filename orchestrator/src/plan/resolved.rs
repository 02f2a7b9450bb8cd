//! A plan written out again with every default filled in.

use std::fmt::Write;

use p2ps::config::Geometry;

use super::units::{duration_text, share_text};
use super::{Amount, Plan, StepEvent, Workload};

/// The plan as YAML, with every default filled in. Read again it is the same plan.
pub fn resolved_yaml(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_plan(&mut text, plan);
    text
}

fn write_plan(out: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "name: {}", plan.name)?;
    writeln!(out, "seed: {}", plan.seed)?;
    writeln!(out, "network:")?;
    writeln!(out, "  max_size: {}", plan.net.ring())?;
    writeln!(out, "  geometry: {}", geometry_text(plan.net.geometry()))?;
    writeln!(out, "  successors: {}", plan.net.successors())?;
    writeln!(out, "nodes: {}", plan.nodes)?;
    match plan.join_rate {
        Some(rate) => writeln!(out, "join: {{rate: {rate}/s}}")?,
        None => writeln!(out, "join: at_once")?,
    }
    writeln!(out, "workload:")?;
    for Workload::Lookup { rate } in &plan.workload {
        writeln!(out, "  - lookup: {{rate: {rate}/s, keys: uniform}}")?;
    }
    writeln!(out, "timeline:")?;
    for step in &plan.timeline {
        let (name, amount) = match step.event {
            StepEvent::Join(amount) => ("join", amount),
            StepEvent::Leave(amount) => ("leave", amount),
            StepEvent::Kill(amount) => ("kill", amount),
            StepEvent::Restart(amount) => ("restart", amount),
        };
        writeln!(out, "  - {{at: {}, {name}: {}}}", duration_text(step.at), amount_text(amount))?;
    }
    writeln!(out, "duration: {}", duration_text(plan.duration))?;
    writeln!(out, "expect:")?;
    for expectation in &plan.expect {
        writeln!(out, "  - {}", expectation.text)?;
    }
    Ok(())
}

fn geometry_text(geometry: Geometry) -> String {
    match geometry {
        Geometry::Chord => "chord".to_owned(),
        Geometry::Dks { k } => format!("{{dks: {{k: {k}}}}}"),
        Geometry::Tango { k, symmetric } => format!("{{tango: {{k: {k}, symmetric: {symmetric}}}}}"),
    }
}

pub(crate) fn amount_text(amount: Amount) -> String {
    match amount {
        Amount::Count(count) => count.to_string(),
        Amount::Share(share) => share_text(share),
    }
}
