//! `orchestrator run`: an experiment from its plan to its verdict.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use super::place::{self, HostArguments};
use super::progress::{Display, line};
use super::{Outcome, problem, sweep};
use crate::backend::Backend;
use crate::plan::sweep::{Sweep, load_sweep};
use crate::plan::{Plan, parse_duration};
use crate::report::terminal;
use crate::run::machine::{Ending, LEASE_MS_RANGE};
use crate::run::{Finished, Job, Out, RunError, carry_out};

/// `orchestrator run`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The plan, a YAML file
    plan: PathBuf,
    /// Where nodes run: local, on this host; sim, in a simulation and in virtual time; or the hosts of an inventory, a YAML file
    /// or a plain list of names
    #[arg(long, default_value = "local", value_name = "local|sim|FILE")]
    on: String,
    /// Where run directories are made
    #[arg(long, default_value = "runs", value_name = "DIR")]
    out: PathBuf,
    /// The seed, in place of the plan's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Sets one value of the plan, such as nodes=200 or network.successors=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Prints progress and result as JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Serves all nodes' metrics to Prometheus while the run lasts
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// How long nodes on hosts outlive the last word from here: 1s to 10m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = lease_ms)]
    lease: u64,
    #[command(flatten, next_help_heading = "Hosts")]
    hosts: HostArguments,
}

/// Carries out a plan, or all that its sweep makes of it.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (sweep, backend) = match read(arguments) {
        Ok(read) => read,
        Err(outcome) => return outcome,
    };
    let one = |plan: Plan, out: Out| {
        let job = Job {
            plan,
            plan_path: arguments.plan.clone(),
            backend: backend.clone(),
            out,
            command: std::env::args().collect(),
            metrics: arguments.metrics_listen,
            lease_ms: arguments.lease,
        };
        carry_out_one(job, arguments.json)
    };
    match sweep.points.as_slice() {
        [point] if sweep.is_single() => {
            let ended = one(point.plan.clone(), Out::Under(arguments.out.clone()));
            ended.map_or_else(|outcome| outcome, |(_, outcome)| outcome)
        }
        _ => sweep::run(&sweep, &arguments.out, arguments.json, one),
    }
}

/// The plan with its sweep, and where it is to run. What is wrong is printed.
fn read(arguments: &Arguments) -> Result<(Sweep, Backend), Outcome> {
    let seed = arguments.seed.map(|seed| format!("seed={seed}"));
    let overrides: Vec<String> = arguments.overrides.iter().cloned().chain(seed).collect();
    let sweep = load_sweep(&arguments.plan, &overrides).map_err(|error| {
        problem::print_plan_error(&error);
        Outcome::Refused
    })?;
    let backend = place::backend(&arguments.on, &arguments.hosts)?;
    let prepared = sweep.points.iter().any(|point| point.plan.simulation.prepared);
    if prepared && !matches!(backend, Backend::Sim(_)) {
        problem::print("`join: prepared` is for simulations: real nodes have to join. Run it with --on sim");
        return Err(Outcome::Refused);
    }
    Ok((sweep, backend))
}

fn carry_out_one(job: Job, json: bool) -> Result<(Finished, Outcome), Outcome> {
    let is_terminal = io::stdout().is_terminal();
    let mut display = Display::new(json, is_terminal);
    let finished = carry_out(job, &mut display);
    display.end();
    match finished {
        Ok(finished) => {
            let outcome = outcome(&finished);
            if json {
                print_json(&finished, outcome)
            } else {
                print(&finished, is_terminal)
            }
            Ok((finished, outcome))
        }
        Err(error) => {
            problem::print_chain(&error);
            Err(match error {
                RunError::TooManyNodes { .. } => Outcome::Refused,
                _ => Outcome::Failed,
            })
        }
    }
}

/// A lease in milliseconds, from a length of time as plans write it.
fn lease_ms(text: &str) -> Result<u64, String> {
    let length = parse_duration(text)?;
    let lease_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    match LEASE_MS_RANGE.contains(&lease_ms) {
        true => Ok(lease_ms),
        false => Err("a lease is 1s to 10m long".to_owned()),
    }
}

fn outcome(finished: &Finished) -> Outcome {
    match finished.ending {
        Ending::Completed if finished.verdict.passed => Outcome::Held,
        Ending::Completed if finished.verdict.complete => Outcome::NotHeld,
        _ => Outcome::Failed,
    }
}

fn print(finished: &Finished, colour: bool) {
    let text = terminal(&finished.verdict, &finished.record, colour);
    // Whoever closed standard output does not want the summary; it is in the run's directory.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    for (name, reason) in &finished.unusable {
        problem::print(&format!("host {name} could not be used: {reason}"));
    }
    for (name, reason) in &finished.lost {
        problem::print(&format!("host {name} was lost: {reason}"));
    }
    match finished.ending {
        Ending::Completed => {}
        Ending::Interrupted => problem::print("the run was interrupted: this is what there is of it"),
        Ending::NoHosts => problem::print("the run could not be carried out: no host was left"),
    }
    for pid in &finished.cleaned.left {
        problem::print(&format!("process {pid} of this run could not be ended"));
    }
    if let Some((trace, totals)) = finished.simulated {
        line(&format!("simulated {} events, trace {trace}", totals.events));
    }
    line(&finished.directory.path().display().to_string());
}

fn print_json(finished: &Finished, outcome: Outcome) {
    let reasons = |hosts: &[(String, String)]| -> Vec<_> {
        hosts.iter().map(|(host, reason)| json!({ "host": host, "reason": reason })).collect()
    };
    let object = json!({
        "event": "finished",
        "ending": finished.ending.as_str(),
        "passed": finished.verdict.passed,
        "exit_code": outcome as u8,
        "hosts_lost": reasons(&finished.lost),
        "hosts_unusable": reasons(&finished.unusable),
        "verdict": finished.verdict,
        "trace": finished.simulated.map(|(trace, _)| trace.to_string()),
        "directory": finished.directory.path().display().to_string(),
    });
    line(&object.to_string());
}
