//! The command `orchestrator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2ps_orchestrator::cli::main()
}
