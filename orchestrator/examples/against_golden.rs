//! Compares a sweep over link tables with the figures that an independent program computed for them (`node/tests/golden`):
//!
//! ```sh
//! orchestrator run experiments/geometry.yaml --on sim
//! cargo run -p p2ps-orchestrator --example against_golden -- runs/geometry/*-sweep
//! ```
//!
//! Each run of the sweep that has a golden row is a line: what was measured, and by how much it differs. The last lines are
//! the largest differences.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use p2ps::config::Geometry;
use p2ps_orchestrator::plan::{Plan, load};

const FULL: &str = include_str!("../../node/tests/golden/full-ring.csv");
const SPARSE: &str = include_str!("../../node/tests/golden/sparse-ring.csv");

/// What is compared: its name, the figure of a run, and whether the difference is a share or so many hops.
const COMPARED: [(&str, &str, bool); 4] = [
    ("links", "table.fingers.mean", true),
    ("mean", "lookup.hops.mean", true),
    ("p99", "lookup.hops.p99", false),
    ("max", "lookup.hops.max", false),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut largest: BTreeMap<&str, (f64, String)> = BTreeMap::new();
    let mut compared = 0;
    for sweep in std::env::args().skip(1) {
        let mut runs: Vec<_> = std::fs::read_dir(&sweep)?.collect::<Result<_, _>>()?;
        runs.sort_by_key(std::fs::DirEntry::path);
        for run in runs.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir()) {
            compared += usize::from(compare(&run, &mut largest)?);
        }
    }
    if compared == 0 {
        return Err("no run of these sweeps has a golden row: name directories that end in -sweep".into());
    }
    println!("\nlargest differences over {compared} runs:");
    for (name, _, is_share) in COMPARED {
        if let Some((difference, of)) = largest.get(name) {
            println!("  {name:6} {:>8}  {of}", text(*difference, is_share));
        }
    }
    Ok(())
}

/// Prints how a run differs from its golden row. `false`: there is none.
fn compare(run: &Path, largest: &mut BTreeMap<&str, (f64, String)>) -> Result<bool, Box<dyn Error>> {
    let plan = load(&run.join("resolved.yaml"), &[])?;
    let verdict: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("verdict.json"))?)?;
    let Some(golden) = golden(&plan) else { return Ok(false) };
    let how = if plan.simulation.prepared { "prepared" } else { "built by the protocol" };
    let of = format!("{}, {} of {} ids, {how}", plan.net.geometry(), plan.nodes, plan.net.ring());
    let mut line = format!("{of:62}");
    for (name, figure, is_share) in COMPARED {
        let (Some(golden), Some(measured)) = (golden.get(name), verdict["figures"][figure].as_f64()) else {
            continue;
        };
        let difference = if is_share { measured / golden - 1.0 } else { measured - golden };
        line += &format!("  {name} {measured:.2} ({})", text(difference, is_share));
        let entry = largest.entry(name).or_insert((0.0, String::new()));
        if difference.abs() >= entry.0.abs() {
            *entry = (difference, of.clone());
        }
    }
    println!("{line}");
    Ok(true)
}

fn text(difference: f64, is_share: bool) -> String {
    if is_share { format!("{:+.1} %", 100.0 * difference) } else { format!("{difference:+}") }
}

/// The figures of the row that is for such a ring.
fn golden(plan: &Plan) -> Option<BTreeMap<&'static str, f64>> {
    let (geometry, ids) = (plan.net.geometry(), plan.net.ring().max_size());
    let (kind, symmetric) = match geometry {
        Geometry::Chord => ("chord", false),
        Geometry::Dks { .. } => ("dks", false),
        Geometry::Tango { symmetric, .. } => ("tango", symmetric),
    };
    let is_full = u128::from(plan.nodes) == ids;
    let (k, nodes) = (geometry.arity().to_string(), plan.nodes.to_string());
    let sided = if symmetric { "yes" } else { "no" };
    if is_full {
        return row(FULL, &[kind, &k, sided, &nodes]).map(|cells| {
            numbers(BTreeMap::from([("links", cells[4]), ("mean", cells[5]), ("max", cells[6])]))
        });
    }
    let rule = if symmetric { "region" } else { "interval" };
    let bits = ids.is_power_of_two().then(|| ids.trailing_zeros().to_string())?;
    row(SPARSE, &[kind, &k, sided, rule, &bits, &nodes]).map(|cells| {
        let mut figures = BTreeMap::from([("mean", cells[7]), ("p99", cells[8])]);
        // Golden symmetric tables leave out the two offsets that are clamped to half the ring.
        figures.extend((!symmetric).then_some(("links", cells[6])));
        numbers(figures)
    })
}

/// The row that begins with these cells.
fn row(table: &'static str, start: &[&str]) -> Option<Vec<&'static str>> {
    table.lines().map(|line| line.split(',').collect::<Vec<_>>()).find(|cells| cells.starts_with(start))
}

fn numbers(cells: BTreeMap<&'static str, &str>) -> BTreeMap<&'static str, f64> {
    cells.into_iter().filter_map(|(name, cell)| Some((name, cell.parse().ok()?))).collect()
}
