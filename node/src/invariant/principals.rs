//! There are enough principals: members that no member's extended successor list skips.
//!
//! Source: Zave, arXiv 1610.01140, section 6, second half of the inductive invariant (*SufficientPrincipals*: at least r + 1).
//! Smaller networks work too (`Peer::is_fault_tolerant` says so) and promise less, so the number that is asked for is that
//! of [`View::principals_min`]: the members at rest before the failures, less the failures, at most r + 1.

use super::{Invariant, Moment, View};
use crate::id::Id;

pub(super) const INVARIANT: Invariant =
    Invariant { name: "there are enough principals", holds: Moment::FailuresSeen, check };

fn check(view: &View<'_>) -> Result<(), String> {
    if view.principals_min == 0 {
        return Ok(());
    }
    let principals: Vec<Id> =
        view.members().iter().map(|peer| peer.me().id).filter(|id| !is_skipped(view, *id)).collect();
    if principals.len() >= view.principals_min {
        return Ok(());
    }
    Err(format!("only {principals:?} are skipped by no list, and {} must be", view.principals_min))
}

/// Whether some member's extended list goes from before a node to behind it.
fn is_skipped(view: &View<'_>, node: Id) -> bool {
    let ring = view.ring();
    view.members().iter().any(|peer| {
        let mut before = peer.me().id;
        peer.successors().iter().any(|contact| {
            let pair = (std::mem::replace(&mut before, contact.id), contact.id);
            ring.between(node, pair.0, pair.1)
        })
    })
}
