//! How mistakes are shown: drawn on a terminal, as plain lines elsewhere.

use std::io::{self, IsTerminal, Write};

use miette::GraphicalReportHandler;

use crate::plan::PlanError;

/// Prints an error for people.
pub(super) fn print(message: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "error: {message}");
}

/// Prints an error with all that caused it.
pub(super) fn print_chain(error: &dyn std::error::Error) {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        message.push_str(&format!(": {source}"));
        cause = source.source();
    }
    print(&message);
}

/// Prints everything that is wrong with a plan.
pub(super) fn print_plan_error(error: &PlanError) {
    if error.problems().is_empty() {
        return print(&error.to_string());
    }
    let drawing = io::stderr().is_terminal().then(GraphicalReportHandler::new);
    for problem in error.problems() {
        let mut drawn = String::new();
        match &drawing {
            Some(handler) if handler.render_report(&mut drawn, problem).is_ok() => {
                let _ = writeln!(io::stderr().lock(), "{drawn}");
            }
            _ => print(&problem.to_plain()),
        }
    }
}
