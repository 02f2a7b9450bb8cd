//! A look-up names a node that was the key's responsible at some moment while it was under way.
//!
//! Source: lookup consistency (Ghodsi 2006, section 3; Castro et al. 2004, *correct delivery*). Rightful are the first member
//! after the key that stays, and the leaving ones before it. Who they were meanwhile stands in the journal
//! ([`Journal::observe`](super::Journal::observe)).

use super::{Asked, Invariant, Moment, View};

pub(super) const INVARIANT: Invariant =
    Invariant { name: "a look-up names a rightful node", holds: Moment::FailuresSeen, check };

fn check(view: &View<'_>) -> Result<(), String> {
    for (number, operation) in view.journal.operations().filter(|(_, operation)| !operation.excused) {
        let Asked::Lookup { key } = operation.asked else { continue };
        for found in operation.ends.iter().filter_map(|end| end.as_ref().ok().copied().flatten()) {
            if !operation.rightful.contains(&found) {
                return Err(format!(
                    "look-up {number} of key {key} names {found}; rightful were {:?}",
                    operation.rightful
                ));
            }
        }
    }
    Ok(())
}
