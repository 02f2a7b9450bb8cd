//! A node that has left, and said that it had handed its range over, is nobody's predecessor: its successor has taken the range.
//!
//! Source: the promise of P2PS's graceful leave (overlay paper; `getStatistics`, `Left`): graceful churn loses nothing.

use super::{Invariant, Moment, View};

pub(super) const INVARIANT: Invariant =
    Invariant { name: "who has left was relieved", holds: Moment::FailuresSeen, check };

fn check(view: &View<'_>) -> Result<(), String> {
    let relieved = view.journal.relieved();
    let waiting = view.members().iter().find_map(|peer| {
        let predecessor = peer.predecessor().filter(|contact| relieved.contains(contact))?;
        Some((peer.me().id, predecessor.id))
    });
    match waiting {
        Some((node, left)) => {
            Err(format!("{left} said that it had handed over, but {node} still has it before it"))
        }
        None => Ok(()),
    }
}
