//! A plan written out again with every default filled in.

use std::fmt::Write;
use std::time::Duration;

use p2ps::com::shaping::{Distribution as Shaped, LinkShape};
use p2ps::config::{Geometry, Routing, Stabilise};

use super::churn::{Churn, End};
use super::distribution::{Distribution, Size};
use super::targets::{Links, Side};
use super::units::{ShareRate, duration_text, share_text};
use super::workload::{Keys, Popularity, Rate, Workload, WorkloadKind};
use super::{Plan, Step, StepEvent};

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
    writeln!(out, "  replication: {}", plan.net.replication())?;
    let Routing { correction_on_use, correction_on_change, stabilise, proximity, link_cache } =
        plan.net.routing();
    writeln!(out, "  correction_on_use: {correction_on_use}")?;
    writeln!(out, "  correction_on_change: {correction_on_change}")?;
    writeln!(out, "  stabilise: {}", stabilise_text(stabilise))?;
    writeln!(out, "  proximity: {proximity}")?;
    writeln!(out, "  link_cache: {link_cache}")?;
    writeln!(out, "  encrypted: {}", plan.encrypted)?;
    writeln!(out, "nodes: {}", plan.nodes)?;
    writeln!(out, "isolation: {}", plan.isolation.as_str())?;
    match plan.join_rate {
        Some(rate) => writeln!(out, "join: {{rate: {rate}/s}}")?,
        None if plan.simulation.prepared => writeln!(out, "join: prepared")?,
        None => writeln!(out, "join: at_once")?,
    }
    if !plan.groups.is_empty() {
        writeln!(out, "groups:")?;
    }
    for group in &plan.groups {
        writeln!(out, "  {}: {}", group.name, group.members)?;
    }
    writeln!(out, "virtual_hosts: {}", plan.virtual_hosts)?;
    writeln!(out, "faults: {{with: {}}}", plan.faults.as_str())?;
    writeln!(out, "workload:")?;
    for workload in &plan.workload {
        writeln!(out, "  - {}", workload_text(workload))?;
    }
    writeln!(out, "timeline:")?;
    for step in &plan.timeline {
        writeln!(out, "  - {{{}}}", step_text(step))?;
    }
    writeln!(out, "duration: {}", duration_text(plan.duration))?;
    writeln!(out, "expect:")?;
    for expectation in &plan.expect {
        writeln!(out, "  - {}", expectation.text)?;
    }
    writeln!(out, "sim: {}", plan.simulation.text())?;
    Ok(())
}

fn geometry_text(geometry: Geometry) -> String {
    match geometry {
        Geometry::Chord => "chord".to_owned(),
        Geometry::Dks { k } => format!("{{dks: {{k: {k}}}}}"),
        Geometry::Tango { k, symmetric } => format!("{{tango: {{k: {k}, symmetric: {symmetric}}}}}"),
    }
}

fn stabilise_text(stabilise: Stabilise) -> String {
    match stabilise {
        Stabilise::Adaptive => "adaptive".to_owned(),
        Stabilise::Every { period_ms } => {
            format!("{{every: {}}}", duration_text(Duration::from_millis(u64::from(period_ms))))
        }
    }
}

fn workload_text(workload: &Workload) -> String {
    let rate = match workload.rate {
        Rate::Constant(rate) => format!("{rate}/s"),
        Rate::Ramp { from, to, over } => {
            format!("{{from: {from}/s, to: {to}/s, over: {}}}", duration_text(over))
        }
    };
    let (name, settings) = match workload.kind {
        WorkloadKind::Lookup { keys } => ("lookup", keys_text(keys)),
        WorkloadKind::Dictionary { reads, keys, value_bytes } => (
            "dictionary",
            format!(", reads: {}{}, value: {value_bytes}B", share_text(reads), keys_text(keys)),
        ),
        WorkloadKind::Send { reliable, pairs, payload_bytes } => {
            let pairs = pairs.map_or_else(String::new, |pairs| format!(", pairs: {pairs}"));
            let name = if reliable { "send_reliable" } else { "send" };
            (name, format!("{pairs}, payload: {payload_bytes}B"))
        }
        WorkloadKind::Broadcast { payload_bytes } => ("broadcast", format!(", payload: {payload_bytes}B")),
        WorkloadKind::Multicast { receivers, payload_bytes } => {
            ("multicast", format!(", receivers: {receivers}, payload: {payload_bytes}B"))
        }
    };
    let mut window = String::new();
    if !workload.from.is_zero() {
        window.push_str(&format!(", from: {}", duration_text(workload.from)));
    }
    if let Some(to) = workload.to {
        window.push_str(&format!(", to: {}", duration_text(to)));
    }
    format!("{name}: {{rate: {rate}{settings}{window}}}")
}

/// Each part of it begins with a comma.
fn keys_text(keys: Keys) -> String {
    let popularity = match keys.popularity {
        Popularity::Uniform => "uniform".to_owned(),
        Popularity::Zipf { exponent } => format!("{{zipf: {{exponent: {exponent}}}}}"),
        Popularity::Hot { keys, operations } => {
            format!("{{hot: {{keys: {}, operations: {}}}}}", share_text(keys), share_text(operations))
        }
    };
    let population = keys.population.map_or_else(String::new, |number| format!(", population: {number}"));
    format!(", keys: {popularity}{population}")
}

/// A step as plans write it, without its braces.
fn step_text(step: &Step) -> String {
    let at = duration_text(step.at);
    let lasting = |key: &str, until: Option<Duration>| {
        until.map_or_else(String::new, |until| format!(", {key}: {}", duration_text(until - step.at)))
    };
    match &step.event {
        StepEvent::Join(amount) => format!("at: {at}, join: {amount}"),
        StepEvent::Leave(target) => format!("at: {at}, leave: {target}"),
        StepEvent::Kill(target) => format!("at: {at}, kill: {target}"),
        StepEvent::Restart(target) => format!("at: {at}, restart: {target}"),
        StepEvent::Pause { target, until } => {
            format!("at: {at}, pause: {target}{}", lasting("for", *until))
        }
        StepEvent::Partition { sides, one_way, until } => {
            let one_way = if *one_way { ", one_way: true" } else { "" };
            format!("at: {at}, partition: {}{one_way}{}", sides_text(sides), lasting("heal_after", *until))
        }
        StepEvent::Degrade { links, shape, until } => {
            let one_way = if is_one_way(links) { ", one_way: true" } else { "" };
            let lasting = lasting("for", *until);
            format!("at: {at}, degrade: {{{links}{}}}{one_way}{lasting}", shape_text(shape))
        }
        StepEvent::Heal => format!("at: {at}, heal: all"),
        StepEvent::Churn { churn, until } => {
            format!("from: {at}, to: {}, churn: {{{}}}", duration_text(*until), churn_text(churn))
        }
        StepEvent::Trace(trace) => {
            // As JSON, which is YAML too, whatever is in the name.
            let file = serde_json::Value::from(trace.file.to_string_lossy());
            let (from, to) = (duration_text(trace.window.0), duration_text(trace.window.1));
            format!(
                "from: {at}, trace: {{file: {file}, format: {}, speed_up: {}, window: {{from: {from}, to: {to}}}, end: {}}}",
                trace.format.as_str(),
                trace.speed_up,
                end_text(trace.end),
            )
        }
    }
}

/// What a step that begins at `at` does, for people: `kill 10%`.
pub(crate) fn event_text(at: Duration, event: &StepEvent) -> String {
    let lasting = |until: Option<Duration>| {
        until.map_or_else(String::new, |until| format!(" for {}", duration_text(until - at)))
    };
    match event {
        StepEvent::Join(amount) => format!("join {amount}"),
        StepEvent::Leave(target) => format!("leave {target}"),
        StepEvent::Kill(target) => format!("kill {target}"),
        StepEvent::Restart(target) => format!("restart {target}"),
        StepEvent::Pause { target, until } => format!("pause {target}{}", lasting(*until)),
        StepEvent::Partition { sides, one_way, until } => {
            let one_way = if *one_way { " one way" } else { "" };
            format!("partition {}{one_way}{}", sides_text(sides), lasting(*until))
        }
        StepEvent::Degrade { links, shape, until } => {
            let one_way = if is_one_way(links) { " one way" } else { "" };
            format!("degrade {{{links}{}}}{one_way}{}", shape_text(shape), lasting(*until))
        }
        StepEvent::Heal => "heal".to_owned(),
        StepEvent::Churn { churn, until } => {
            format!("churn {{{}}}{}", churn_text(churn), lasting(Some(*until)))
        }
        StepEvent::Trace(trace) => {
            let name = trace.file.file_name().unwrap_or_default().to_string_lossy();
            format!("trace {name} for {}", duration_text(trace.length()))
        }
    }
}

fn sides_text(sides: &[Side]) -> String {
    format!("[{}]", sides.iter().map(Side::to_string).collect::<Vec<_>>().join(", "))
}

fn is_one_way(links: &Links) -> bool {
    matches!(links, Links::Between { one_way: true, .. })
}

/// Each part of it begins with a comma.
fn shape_text(shape: &LinkShape) -> String {
    let mut text = String::new();
    let mut add = |key: &str, value: String| text.push_str(&format!(", {key}: {value}"));
    if shape.latency_us > 0 {
        add("latency", duration_text(Duration::from_micros(shape.latency_us)));
    }
    if shape.jitter_us > 0 {
        add("jitter", duration_text(Duration::from_micros(shape.jitter_us)));
    }
    match shape.distribution {
        Shaped::Uniform => {}
        Shaped::Normal => add("distribution", "normal".to_owned()),
        Shaped::LogNormal => add("distribution", "log_normal".to_owned()),
        Shaped::Pareto => add("distribution", "pareto".to_owned()),
    }
    if shape.loss_ppm > 0 {
        add("loss", share_text(f64::from(shape.loss_ppm) / 1e6));
    }
    if shape.bytes_per_second > 0 {
        add("bandwidth", format!("{}B/s", shape.bytes_per_second));
    }
    text
}

fn churn_text(churn: &Churn) -> String {
    let (text, end) = match churn {
        Churn::Sessions { sessions, downtime, end } => {
            let downtime = downtime
                .map_or_else(String::new, |downtime| format!(", downtime: {}", distribution_text(&downtime)));
            (format!("sessions: {}{downtime}", distribution_text(sessions)), end)
        }
        Churn::Rate { share, per, end } => {
            (format!("rate: {}", ShareRate { share: *share, per: *per }.text()), end)
        }
    };
    format!("{text}, end: {}", end_text(*end))
}

fn end_text(end: End) -> &'static str {
    match end {
        End::Kill => "kill",
        End::Leave => "leave",
    }
}

fn distribution_text(distribution: &Distribution) -> String {
    let size = |size: Size, scale: &str| match size {
        Size::Mean(mean) => format!("mean: {}", duration_text(mean)),
        Size::Scale(length) => format!("{scale}: {}", duration_text(length)),
    };
    match *distribution {
        Distribution::Exponential { mean } => format!("{{exponential: {{mean: {}}}}}", duration_text(mean)),
        Distribution::Weibull { shape, size: of } => {
            format!("{{weibull: {{shape: {shape}, {}}}}}", size(of, "scale"))
        }
        Distribution::Pareto { shape, size: of } => {
            format!("{{pareto: {{shape: {shape}, {}}}}}", size(of, "scale"))
        }
        Distribution::LogNormal { sigma, size: of } => {
            format!("{{log_normal: {{sigma: {sigma}, {}}}}}", size(of, "median"))
        }
        Distribution::Fixed { length } => format!("{{fixed: {}}}", duration_text(length)),
    }
}
