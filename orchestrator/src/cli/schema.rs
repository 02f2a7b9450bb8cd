//! `orchestrator schema`: the JSON Schema of plans.

use std::io::{self, Write};

use super::{Outcome, written};

/// Prints it.
pub(super) fn run() -> Outcome {
    written(io::stdout().lock().write_all(crate::plan::json_schema().as_bytes()))
}
