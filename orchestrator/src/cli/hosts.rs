//! `orchestrator hosts check`: what the hosts of an inventory are like, and which cannot be used.

use std::io::{self, Write};

use p2ps::agent::protocol::HostFacts;
use serde_json::json;

use super::place::{self, HostArguments};
use super::{Outcome, problem, written};
use crate::backend::ssh::hostkey::HostKey;
use crate::run::clock::ClockOffset;
use crate::run::reach::Failed;
use crate::run::survey::{HostReport, Survey, Surveyed, survey};

/// `orchestrator hosts`' arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes each host ready as for a run, asks it what it is like and whether it reaches the others, and leaves it
    Check(CheckArguments),
}

#[derive(Debug, clap::Args)]
struct CheckArguments {
    /// The hosts: an inventory (a YAML file, or a plain list of names), or local
    hosts: String,
    /// Prints one JSON object a host, then one that says whether they reach each other
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
    let survey = match surveyed {
        Ok(survey) => survey,
        Err(error) => {
            problem::print_chain(&error);
            return Outcome::Failed;
        }
    };
    let text = match arguments.json {
        true => format!("{}\n", reach_fields(&survey)),
        false => table(&survey.hosts) + &reach(&survey),
    };
    printed = match written(io::stdout().lock().write_all(text.as_bytes())) {
        Outcome::Held => printed,
        other => other,
    };
    let usable = survey.hosts.iter().filter(|(_, outcome)| outcome.is_ok()).count();
    let together = usable - survey.reach.in_the_way().len();
    if together < backend.required() {
        let what = if together < usable { "can be used together" } else { "can be used" };
        problem::print(&format!(
            "{together} of {} hosts {what}, {} are required",
            survey.hosts.len(),
            backend.required()
        ));
        return Outcome::Failed;
    }
    printed
}

fn fields((name, outcome): &Surveyed) -> serde_json::Value {
    match outcome {
        Ok(HostReport { listen, host_key, facts, clock }) => json!({
            "host": name,
            "usable": true,
            "listen": listen,
            "host_key": host_key.as_ref().map(|key| json!({ "algorithm": key.algorithm, "new": key.is_new })),
            "facts": facts,
            "clock_offset": clock.offset_us as f64 / 1e6,
            "clock_error": clock.error_us as f64 / 1e6,
            "rtt": clock.rtt_us as f64 / 1e6,
        }),
        Err(reason) => json!({ "host": name, "usable": false, "reason": reason }),
    }
}

fn reach_fields(Survey { hosts, reach }: &Survey) -> serde_json::Value {
    let name = |index: usize| &hosts[index].0;
    let failed =
        |call: &Failed| json!({ "from": name(call.from), "to": name(call.to), "reason": call.reason });
    json!({ "reach": {
        "calls": reach.calls,
        "all_pairs": reach.is_whole,
        "failed": reach.failed.iter().map(failed).collect::<Vec<_>>(),
        "in_the_way": reach.in_the_way().into_iter().map(name).collect::<Vec<_>>(),
    }})
}

/// The most calls that failed which are told of one by one.
const FAILED_SHOWN_MAX: usize = 20;

/// The longest word of a host that is shown, in characters.
const WORDS_SHOWN_MAX: usize = 80;

const HEAD: [&str; 13] = [
    "HOST",
    "REACHED",
    "ADDRESS",
    "KEY",
    "ARCHITECTURE",
    "KERNEL",
    "CORES",
    "MEMORY",
    "FILES",
    "PROCESSES",
    "KERNEL FAULTS",
    "CLOCK",
    "RTT",
];

/// The hosts as a table; then the reasons of those that cannot be used.
fn table(surveyed: &[Surveyed]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (name, outcome) in surveyed {
        rows.push(match outcome {
            Ok(report) => row(name, report),
            Err(_) => {
                let mut row = HEAD.map(|_| "-".to_owned());
                (row[0], row[1]) = (name.clone(), "no".to_owned());
                row
            }
        });
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
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

fn row(name: &str, HostReport { listen, host_key, facts, clock }: &HostReport) -> [String; HEAD.len()] {
    let limit = |most: u64| if most == u64::MAX { "no limit".to_owned() } else { most.to_string() };
    let key = |HostKey { algorithm, is_new }: &HostKey| {
        let kind = algorithm.trim_start_matches("ssh-");
        format!("{kind}, {}", if *is_new { "recorded now" } else { "known" })
    };
    [
        name.to_owned(),
        "yes".to_owned(),
        listen.to_string(),
        host_key.as_ref().map_or("-".to_owned(), key),
        plain(&facts.architecture),
        plain(&facts.kernel),
        facts.cores.to_string(),
        format!("{:.1} GiB", facts.memory_bytes as f64 / f64::from(1 << 30)),
        limit(facts.open_files_max),
        limit(facts.processes_max),
        kernel_faults(facts),
        offset(clock),
        format!("{:.1} ms", clock.rtt_us as f64 / 1e3),
    ]
}

/// Which faults the host's kernel can make; or why none.
fn kernel_faults(facts: &HostFacts) -> String {
    match (&facts.no_kernel_faults, &facts.no_kernel_bandwidth, &facts.no_kernel_latency) {
        (Some(refusal), _, _) => plain(refusal),
        (None, None, None) => "yes".to_owned(),
        (None, None, Some(_)) => "no latency, loss".to_owned(),
        (None, Some(_), _) => "partitions only".to_owned(),
    }
}

/// Whether the hosts reach each other; who does not reach whom, and without which hosts all others do.
fn reach(Survey { hosts, reach }: &Survey) -> String {
    let usable = hosts.iter().filter(|(_, outcome)| outcome.is_ok()).count();
    let pairs = match reach.is_whole {
        true => "every one called every other",
        false => "each called some of the others",
    };
    let calls = reach.calls;
    if calls == 0 {
        return String::new();
    }
    if reach.failed.is_empty() {
        return format!(
            "{usable} hosts reach each other where nodes would listen ({calls} calls: {pairs})\n"
        );
    }
    let mut text = format!(
        "{} of {calls} calls between {usable} hosts failed where nodes would listen ({pairs}):\n",
        reach.failed.len()
    );
    for Failed { from, to, reason } in reach.failed.iter().take(FAILED_SHOWN_MAX) {
        text.push_str(&format!("  {} \u{2192} {}: {}\n", hosts[*from].0, hosts[*to].0, plain(reason)));
    }
    if reach.failed.len() > FAILED_SHOWN_MAX {
        text.push_str(&format!("  and {} more (--json lists all)\n", reach.failed.len() - FAILED_SHOWN_MAX));
    }
    let out = reach.in_the_way();
    let names: Vec<&str> = out.iter().map(|host| hosts[*host].0.as_str()).collect();
    let others = match usable - out.len() {
        0 | 1 => return text,
        others => others,
    };
    text.push_str(&format!("without {}, the other {others} reach each other\n", names.join(", ")));
    text
}

/// What a host says of itself, without anything that a terminal would take for a command.
fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(WORDS_SHOWN_MAX).collect()
}

fn offset(clock: &ClockOffset) -> String {
    format!("{:+.1} ms \u{b1} {:.1}", clock.offset_us as f64 / 1e3, clock.error_us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::reach::Reach;

    fn report() -> HostReport {
        let facts = HostFacts {
            kernel: "6.1.0\x1b[31m".into(),
            architecture: "x86_64".into(),
            cores: 4,
            memory_bytes: 3 << 29,
            open_files_max: 4096,
            processes_max: u64::MAX,
            no_kernel_faults: Some("not permitted".into()),
            ..HostFacts::default()
        };
        let clock = ClockOffset { offset_us: -12_340, error_us: 150, rtt_us: 300, at_us: 0 };
        let host_key = Some(HostKey { algorithm: "ssh-ed25519".into(), is_new: false });
        HostReport { listen: [10, 0, 0, 1].into(), host_key, facts, clock }
    }

    #[test]
    fn hosts_are_a_table_and_the_unusable_ones_have_their_reasons() {
        let text = table(&[("a".into(), Ok(report())), ("b".into(), Err("it is dead".into()))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("HOST  REACHED  ADDRESS"), "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        let expected = "a yes 10.0.0.1 ed25519, known x86_64 6.1.0[31m 4 1.5 GiB 4096 no limit not permitted -12.3 ms \u{b1} 0.1 0.3 ms";
        assert_eq!(words.join(" "), expected);
        assert!(lines[2].starts_with("b     no       -         -"), "{text}");
        let told = |bandwidth: Option<&str>, latency: Option<&str>| {
            let [no_kernel_bandwidth, no_kernel_latency] =
                [bandwidth, latency].map(|text| text.map(str::to_owned));
            kernel_faults(&HostFacts { no_kernel_bandwidth, no_kernel_latency, ..HostFacts::default() })
        };
        assert_eq!(told(None, None), "yes");
        assert_eq!(told(None, Some("no netem")), "no latency, loss");
        assert_eq!(told(Some("no HTB"), Some("no netem")), "partitions only");
        assert_eq!(lines[3], "b cannot be used: it is dead");
    }

    #[test]
    fn who_does_not_reach_whom_is_said_and_who_is_in_the_way() {
        let hosts = ["a", "b", "c"].map(|name| (name.to_owned(), Ok(report()))).to_vec();
        let mut survey = Survey { hosts, reach: Reach { calls: 6, is_whole: true, failed: Vec::new() } };
        assert_eq!(
            reach(&survey),
            "3 hosts reach each other where nodes would listen (6 calls: every one called every other)\n"
        );
        let failed = |from, to| Failed { from, to, reason: "timed out after 2 s: a firewall?".into() };
        survey.reach.failed = vec![failed(0, 1), failed(2, 1)];
        let text = reach(&survey);
        assert!(text.starts_with("2 of 6 calls between 3 hosts failed"), "{text}");
        assert!(text.contains("\n  a \u{2192} b: timed out after 2 s: a firewall?\n"), "{text}");
        assert!(text.ends_with("\nwithout b, the other 2 reach each other\n"), "{text}");
        assert_eq!(reach_fields(&survey)["reach"]["in_the_way"], json!(["b"]));
        survey.reach.failed = (0..30).map(|_| failed(0, 1)).collect();
        assert!(reach(&survey).contains("\n  and 10 more (--json lists all)\n"));
        survey.reach.calls = 0;
        assert_eq!(reach(&survey), "");
    }
}
