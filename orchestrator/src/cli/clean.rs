//! `orchestrator clean`: whatever a crashed run has left, from its journal: on this host, and on those that it reached by SSH.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

use super::place::{self, HostArguments};
use super::{Outcome, problem, written};
use crate::backend::Backend;
use crate::backend::ssh::upload::Swept;
use crate::record::RunDirectory;
use crate::run::cleanup::{Cleaned, clean};
use crate::run::sweep::{SweptHost, node_binary_digest, ssh_hosts, sweep};

/// `orchestrator clean`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run's directory
    run: PathBuf,
    /// The run's inventory: its hosts are looked at too
    #[arg(long, value_name = "FILE")]
    on: Option<String>,
    /// Takes the cached node binary away from the hosts, where no process uses it
    #[arg(long, requires = "on")]
    cached: bool,
    #[command(flatten, next_help_heading = "Hosts")]
    hosts: HostArguments,
}

/// Ends what is left of a run, and says what that was.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = match RunDirectory::open(&arguments.run) {
        Ok(directory) => directory,
        Err(error) => {
            problem::print(&error.to_string());
            return Outcome::Refused;
        }
    };
    let journal = directory.journal();
    let cleaned = if journal.exists() { clean(&journal) } else { Ok(Cleaned::default()) };
    match cleaned {
        Ok(cleaned) => {
            let outcome = written(io::stdout().lock().write_all(describe(&cleaned).as_bytes()));
            if cleaned.still_running.is_some() {
                return Outcome::Failed;
            }
            let elsewhere = elsewhere(arguments, &directory);
            if cleaned.left.is_empty() && elsewhere == Outcome::Held { outcome } else { Outcome::Failed }
        }
        Err(error) => {
            problem::print_chain(&error);
            Outcome::Failed
        }
    }
}

/// Looks at the hosts that the run reached by SSH, or says how that is done.
fn elsewhere(arguments: &Arguments, directory: &RunDirectory) -> Outcome {
    let journal = directory.journal();
    let names = if journal.exists() { ssh_hosts(&journal) } else { Ok(BTreeSet::new()) };
    let names = match names {
        Ok(names) => names,
        Err(error) => {
            problem::print_chain(&error);
            return Outcome::Failed;
        }
    };
    let Some(inventory) = &arguments.on else {
        let hosts = names.len();
        return match hosts {
            0 => Outcome::Held,
            _ => written(writeln!(
                io::stdout().lock(),
                "{hosts} other host{} not looked at: agents there end by themselves (--on FILE looks)",
                if hosts == 1 { " was" } else { "s were" }
            )),
        };
    };
    let hosts = match place::backend(inventory, &arguments.hosts) {
        Ok(Backend::Hosts(hosts)) => hosts,
        Ok(Backend::Local(_) | Backend::Sim(_)) => return Outcome::Held,
        Err(outcome) => return outcome,
    };
    let digest = match node_binary_digest(&directory.manifest()) {
        Ok(digest) => digest,
        Err(error) => {
            problem::print(&format!("{} cannot be used: {error}", directory.manifest().display()));
            return Outcome::Failed;
        }
    };
    let swept = sweep(&hosts, &names, &digest, arguments.cached);
    let text: String = swept.iter().map(describe_host).collect();
    let outcome = written(io::stdout().lock().write_all(text.as_bytes()));
    let is_clean = |host: &SweptHost| host.1.as_ref().is_ok_and(|swept| swept.left.is_empty());
    if swept.iter().all(is_clean) { outcome } else { Outcome::Failed }
}

fn describe_host((name, outcome): &SweptHost) -> String {
    match outcome {
        Ok(Swept { left, removed, queues }) if left.is_empty() => {
            let queues: String =
                queues.iter().map(|interface| format!(", queues at interface {interface} removed")).collect();
            let removed = if *removed { ", the cached node binary removed" } else { "" };
            format!("{name}: no process left{queues}{removed}\n")
        }
        Ok(Swept { left, .. }) => {
            let pids: Vec<String> = left.iter().map(u32::to_string).collect();
            format!(
                "{name}: processes of this run, or of another with the same node binary: {}\n",
                pids.join(" ")
            )
        }
        Err(reason) => format!("{name} could not be looked at: {reason}\n"),
    }
}

fn describe(cleaned: &Cleaned) -> String {
    if let Some(pid) = cleaned.still_running {
        return format!("the run is still being carried out, by process {pid}: nothing was done\n");
    }
    if cleaned.is_nothing() {
        return "nothing left\n".to_owned();
    }
    let mut text = String::new();
    for (kind, pids) in
        [("agent", &cleaned.agents), ("node", &cleaned.nodes), ("could not be ended:", &cleaned.left)]
    {
        for pid in pids {
            let kind = if pids == &cleaned.left { kind.to_owned() } else { format!("ended {kind},") };
            text.push_str(&format!("{kind} process {pid}\n"));
        }
    }
    for interface in &cleaned.queues {
        text.push_str(&format!("removed queues at interface {interface}\n"));
    }
    if cleaned.left.is_empty() {
        text.push_str("nothing left now\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_was_found() {
        assert_eq!(describe(&Cleaned::default()), "nothing left\n");
        let cleaned = Cleaned { agents: vec![5], nodes: vec![6, 7], ..Cleaned::default() };
        assert_eq!(
            describe(&cleaned),
            "ended agent, process 5\nended node, process 6\nended node, process 7\nnothing left now\n"
        );
        let cleaned = Cleaned { left: vec![9], ..Cleaned::default() };
        assert_eq!(describe(&cleaned), "could not be ended: process 9\n");
        let cleaned = Cleaned { queues: vec!["eth0".into()], ..Cleaned::default() };
        assert_eq!(describe(&cleaned), "removed queues at interface eth0\nnothing left now\n");
        let cleaned = Cleaned { still_running: Some(3), ..Cleaned::default() };
        assert!(describe(&cleaned).contains("by process 3"));
    }
}
