//! `orchestrator hosts check`: what the hosts of an inventory are like, and which cannot be used.

use std::io::{self, Write};

use serde_json::json;

use super::place::{self, HostArguments};
use super::{Outcome, problem, written};
use crate::run::clock::ClockOffset;
use crate::run::survey::{HostReport, Surveyed, survey};

/// `orchestrator hosts`' arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes each host ready as for a run, asks it what it is like, and leaves it
    Check(CheckArguments),
}

#[derive(Debug, clap::Args)]
struct CheckArguments {
    /// The hosts: an inventory (a YAML file, or a plain list of names), or local
    hosts: String,
    /// Prints one JSON object a host
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Hosts")]
    reach: HostArguments,
}

/// Carries a subcommand out.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Command::Check(arguments) = &arguments.command;
    let backend = match place::backend(&arguments.hosts, &arguments.reach) {
        Ok(backend) => backend,
        Err(outcome) => return outcome,
    };
    let mut printed = Outcome::Held;
    let surveyed = survey(&backend, |host| {
        if arguments.json {
            printed = written(writeln!(io::stdout().lock(), "{}", fields(host)));
        }
    });
    let surveyed = match surveyed {
        Ok(surveyed) => surveyed,
        Err(error) => {
            problem::print_chain(&error);
            return Outcome::Failed;
        }
    };
    if !arguments.json {
        printed = written(io::stdout().lock().write_all(table(&surveyed).as_bytes()));
    }
    let usable = surveyed.iter().filter(|(_, outcome)| outcome.is_ok()).count();
    if usable < backend.required() {
        problem::print(&format!(
            "{usable} of {} hosts can be used, {} are required",
            surveyed.len(),
            backend.required()
        ));
        return Outcome::Failed;
    }
    printed
}

fn fields((name, outcome): &Surveyed) -> serde_json::Value {
    match outcome {
        Ok(HostReport { listen, facts, clock }) => json!({
            "host": name,
            "usable": true,
            "listen": listen,
            "facts": facts,
            "clock_offset": clock.offset_us as f64 / 1e6,
            "clock_error": clock.error_us as f64 / 1e6,
            "rtt": clock.rtt_us as f64 / 1e6,
        }),
        Err(reason) => json!({ "host": name, "usable": false, "reason": reason }),
    }
}

const HEAD: [&str; 10] = [
    "HOST",
    "ADDRESS",
    "ARCHITECTURE",
    "KERNEL",
    "CORES",
    "MEMORY",
    "OPEN FILES",
    "KERNEL FAULTS",
    "CLOCK",
    "RTT",
];

/// The usable hosts as a table; then the others, each with its reason.
fn table(surveyed: &[Surveyed]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (name, outcome) in surveyed {
        if let Ok(HostReport { listen, facts, clock }) = outcome {
            rows.push([
                name.clone(),
                listen.to_string(),
                plain(&facts.architecture),
                plain(&facts.kernel),
                facts.cores.to_string(),
                format!("{:.1} GiB", facts.memory_bytes as f64 / f64::from(1 << 30)),
                facts.open_files_max.to_string(),
                facts.no_kernel_faults.as_deref().map_or_else(|| "yes".to_owned(), plain),
                offset(clock),
                format!("{:.1} ms", clock.rtt_us as f64 / 1e3),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in rows.iter().filter(|_| rows.len() > 1) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for (name, outcome) in surveyed {
        if let Err(reason) = outcome {
            text.push_str(&format!("{name} cannot be used: {reason}\n"));
        }
    }
    text
}

/// What a host says of itself, without anything that a terminal would take for a command.
fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(40).collect()
}

fn offset(clock: &ClockOffset) -> String {
    format!("{:+.1} ms \u{b1} {:.1}", clock.offset_us as f64 / 1e3, clock.error_us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2ps::agent::protocol::HostFacts;

    #[test]
    fn usable_hosts_are_a_table_and_the_others_have_their_reasons() {
        let facts = HostFacts {
            kernel: "6.1.0\x1b[31m".into(),
            architecture: "x86_64".into(),
            cores: 4,
            memory_bytes: 3 << 29,
            open_files_max: 4096,
            no_kernel_faults: Some("not permitted".into()),
            ..HostFacts::default()
        };
        let clock = ClockOffset { offset_us: -12_340, error_us: 150, rtt_us: 300, at_us: 0 };
        let report = HostReport { listen: [10, 0, 0, 1].into(), facts, clock };
        let text = table(&[("a".into(), Ok(report)), ("b".into(), Err("it is dead".into()))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("HOST  ADDRESS"), "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        let expected = "a 10.0.0.1 x86_64 6.1.0[31m 4 1.5 GiB 4096 not permitted -12.3 ms \u{b1} 0.1 0.3 ms";
        assert_eq!(words.join(" "), expected);
        assert_eq!(lines[2], "b cannot be used: it is dead");
        assert_eq!(table(&[("b".into(), Err("x".into()))]), "b cannot be used: x\n");
    }
}
