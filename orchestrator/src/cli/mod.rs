//! The command line: the only part that prints.
//!
//! One file a subcommand, each with its `Arguments` and a `run` that says how it ended.

mod clean;
mod hosts;
mod passphrase;
mod place;
mod plan;
mod problem;
mod progress;
mod run;
mod schema;
mod sweep;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs experiments on structured peer-to-peer overlays, and judges them.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 all expectations held; 1 one did not; 2 usage or plan; 3 it could not be carried out."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carries a plan out and judges the run
    Run(run::Arguments),
    /// Checks a plan and shows its schedule; nothing is started
    Plan(plan::Arguments),
    /// Prints the JSON Schema of plans, for editors
    Schema,
    /// Looks at the hosts of an inventory before a run
    Hosts(hosts::Arguments),
    /// Ends whatever a crashed run has left, by its journal
    Clean(clean::Arguments),
}

/// How a command ended, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Outcome {
    /// All that was asked has been done, and all expectations held.
    Held = 0,
    /// The run was carried out, and an expectation did not hold.
    NotHeld = 1,
    /// The plan or the command line is wrong; nothing was started.
    Refused = 2,
    /// It could not be carried out.
    Failed = 3,
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2.
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Schema => schema::run(),
        Command::Hosts(arguments) => hosts::run(&arguments),
        Command::Clean(arguments) => clean::run(&arguments),
    };
    ExitCode::from(outcome as u8)
}

/// The outcome of writing to standard output. Who closes it early (`| head`) has seen enough.
fn written(result: io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Held,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Held,
        Err(error) => {
            problem::print(&format!("standard output cannot be written: {error}"));
            Outcome::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
