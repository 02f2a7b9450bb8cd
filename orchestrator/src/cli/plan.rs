//! `orchestrator plan`: the dry run.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use p2ps::agent::protocol::NodeIndex;

use super::{Outcome, problem, written};
use crate::plan::{Plan, duration_text, load, resolved_yaml};
use crate::schedule::{Hosts, Schedule, schedule, write_jsonl};

/// The most node numbers that are listed for one phase of the run.
const NODES_LISTED_MAX: usize = 12;

/// `orchestrator plan`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The plan, a YAML file
    plan: PathBuf,
    /// Sets one value of the plan, such as nodes=200 or network.successors=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// How many hosts the nodes are spread over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    hosts: u32,
    /// Prints the schedule as JSON, one action a line
    #[arg(long)]
    json: bool,
}

/// Checks the plan, and prints it with its schedule.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let plan = match load(&arguments.plan, &arguments.overrides) {
        Ok(plan) => plan,
        Err(error) => {
            problem::print_plan_error(&error);
            return Outcome::Refused;
        }
    };
    let schedule = match schedule(&plan, Hosts::imagined(&plan, arguments.hosts)) {
        Ok(schedule) => schedule,
        Err(error) => {
            problem::print(&error.to_string());
            return Outcome::Refused;
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let result = if arguments.json {
        write_jsonl(&schedule.actions, &mut out)
    } else {
        print(&plan, &schedule, arguments.hosts, &mut out)
    };
    written(result.and_then(|()| out.flush()))
}

fn print(plan: &Plan, schedule: &Schedule, hosts: u32, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", resolved_yaml(plan))?;
    writeln!(
        out,
        "# {} nodes on {hosts} host{}, {} actions, {} of them operations, {} long",
        schedule.nodes.len(),
        if hosts == 1 { "" } else { "s" },
        schedule.actions.len(),
        schedule.operations,
        duration_text(plan.duration),
    )?;
    for phase in &schedule.phases {
        let at = duration_text(Duration::from_micros(phase.at_us));
        writeln!(out, "# {at:>8}  {}: {}", phase.text, nodes_text(&phase.nodes))?;
    }
    writeln!(out, "# {:>8}  end", duration_text(plan.duration))
}

/// `3, 17, 20`, or `0 to 63` where there are no gaps.
fn nodes_text(nodes: &[NodeIndex]) -> String {
    let listed = |nodes: &[NodeIndex]| nodes.iter().map(NodeIndex::to_string).collect::<Vec<_>>().join(", ");
    match nodes {
        [first, .., last] if nodes.windows(2).all(|pair| pair[1] == pair[0] + 1) => {
            format!("{first} to {last}")
        }
        _ if nodes.len() <= NODES_LISTED_MAX => listed(nodes),
        _ => format!("{} and {} more", listed(&nodes[..NODES_LISTED_MAX]), nodes.len() - NODES_LISTED_MAX),
    }
}
