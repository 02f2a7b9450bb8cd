//! `orchestrator run`: an experiment from its plan to its verdict.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use super::progress::{Display, line};
use super::{Outcome, problem};
use crate::backend::Backend;
use crate::backend::local::Local;
use crate::plan::load;
use crate::report::terminal;
use crate::run::machine::Ending;
use crate::run::{Finished, Job, carry_out};

/// `orchestrator run`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The plan, a YAML file
    plan: PathBuf,
    /// Where nodes run: local, on this host
    #[arg(long, default_value = "local", value_name = "WHERE")]
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
    /// The node binary [default: p2ps-node, next to this executable]
    #[arg(long, value_name = "PATH")]
    node_binary: Option<PathBuf>,
}

/// Carries out a plan.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let job = match job(arguments) {
        Ok(job) => job,
        Err(outcome) => return outcome,
    };
    let is_terminal = io::stdout().is_terminal();
    let mut display = Display::new(arguments.json, is_terminal);
    let finished = carry_out(job, &mut display);
    display.end();
    match finished {
        Ok(finished) => {
            let outcome = outcome(&finished);
            if arguments.json {
                print_json(&finished, outcome)
            } else {
                print(&finished, is_terminal)
            }
            outcome
        }
        Err(error) => {
            problem::print_chain(&error);
            Outcome::Failed
        }
    }
}

fn job(arguments: &Arguments) -> Result<Job, Outcome> {
    if arguments.on != "local" {
        problem::print(&format!(
            "--on {} is not available in this version: only --on local is, which runs the nodes on this host",
            arguments.on
        ));
        return Err(Outcome::Refused);
    }
    let seed = arguments.seed.map(|seed| format!("seed={seed}"));
    let overrides: Vec<String> = arguments.overrides.iter().cloned().chain(seed).collect();
    let plan = load(&arguments.plan, &overrides).map_err(|error| {
        problem::print_plan_error(&error);
        Outcome::Refused
    })?;
    let local = Local::new(arguments.node_binary.as_deref()).map_err(|error| {
        problem::print_chain(&error);
        Outcome::Refused
    })?;
    Ok(Job {
        plan,
        plan_path: arguments.plan.clone(),
        backend: Backend::Local(local),
        out: arguments.out.clone(),
        command: std::env::args().collect(),
        metrics: arguments.metrics_listen,
    })
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
    line(&finished.directory.path().display().to_string());
}

fn print_json(finished: &Finished, outcome: Outcome) {
    let lost: Vec<_> =
        finished.lost.iter().map(|(host, reason)| json!({ "host": host, "reason": reason })).collect();
    let object = json!({
        "event": "finished",
        "ending": finished.ending.as_str(),
        "passed": finished.verdict.passed,
        "exit_code": outcome as u8,
        "hosts_lost": lost,
        "verdict": finished.verdict,
        "directory": finished.directory.path().display().to_string(),
    });
    line(&object.to_string());
}
