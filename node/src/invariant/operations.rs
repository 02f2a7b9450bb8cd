//! Every operation ends, and ends once.
//!
//! Source: the library's promise (overlay paper's services; P2PS 1.0 manual, `rsend`): a look-up or a reliable message ends in
//! a result or a reason, never in silence. It never ends twice; it has ended in quiet times, if its node still runs.

use super::{Invariant, Moment, View};

pub(super) const ENDED_ONCE: Invariant =
    Invariant { name: "no operation ends twice", holds: Moment::Any, check: ended_once };

pub(super) const ALL_ENDED: Invariant =
    Invariant { name: "every operation ends", holds: Moment::Quiet, check: all_ended };

fn ended_once(view: &View<'_>) -> Result<(), String> {
    match view.journal.operations().find(|(_, operation)| operation.ends.len() > 1) {
        Some((number, operation)) => Err(format!("operation {number} ended as {:?}", operation.ends)),
        None => Ok(()),
    }
}

fn all_ended(view: &View<'_>) -> Result<(), String> {
    let open = view
        .journal
        .operations()
        .find(|(_, operation)| operation.is_open() && view.running(operation.by).is_some());
    match open {
        Some((number, operation)) => {
            Err(format!("operation {number}, {:?} at {}, has not ended", operation.asked, operation.by.id))
        }
        None => Ok(()),
    }
}
