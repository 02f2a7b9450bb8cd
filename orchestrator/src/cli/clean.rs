//! `orchestrator clean`: whatever a crashed run has left on this host, from its journal.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{Outcome, problem, written};
use crate::record::RunDirectory;
use crate::run::cleanup::{Cleaned, clean};

/// `orchestrator clean`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run's directory
    run: PathBuf,
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
            if cleaned.still_running.is_some() || !cleaned.left.is_empty() {
                Outcome::Failed
            } else {
                outcome
            }
        }
        Err(error) => {
            problem::print_chain(&error);
            Outcome::Failed
        }
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
        let cleaned = Cleaned { still_running: Some(3), ..Cleaned::default() };
        assert!(describe(&cleaned).contains("by process 3"));
    }
}
