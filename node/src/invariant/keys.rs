//! The dictionary keeps its word: what was acknowledged is read from then on, and is never lost.
//!
//! Source: the promises of [`services::dictionary`](crate::services::dictionary) (symmetric replication: Ghodsi, Alima & Haridi 2005;
//! reads of a *regular register*: Lamport 1986). A read may see a write that is not acknowledged yet, but none before the last
//! one that had been acknowledged when it began. Both hold as long as no more than replication - 1 nodes crash before their
//! copies are restored: whoever makes crashes keeps them within that, and waits for [`copies_are_in_place`].

use super::{Invariant, Moment, View};
use crate::peer::Peer;
use crate::services::dictionary::conservation::{lost, missing};

pub(super) const READS_SEE: Invariant = Invariant {
    name: "a read sees what was acknowledged before it",
    holds: Moment::FailuresSeen,
    check: reads_see,
};

pub(super) const NOTHING_LOST: Invariant =
    Invariant { name: "no acknowledged write is lost", holds: Moment::Quiet, check: nothing_lost };

/// Whether each key's last version is in all of its places.
///
/// # Errors
/// The first copy that is missing.
pub fn copies_are_in_place(view: &View<'_>) -> Result<(), String> {
    let Some(first) = view.members().first() else { return Ok(()) };
    let dictionaries = view.members().iter().map(|peer| (peer.me().id, peer.dictionary()));
    match missing(&first.net(), dictionaries).first() {
        Some(missing) => Err(format!("{missing:?}")),
        None => Ok(()),
    }
}

fn reads_see(view: &View<'_>) -> Result<(), String> {
    match view.journal.outdated() {
        Some(outdated) => Err(format!("{outdated:?}")),
        None => Ok(()),
    }
}

fn nothing_lost(view: &View<'_>) -> Result<(), String> {
    let lost = lost(view.nodes().map(Peer::dictionary), view.journal.acknowledged());
    if lost.is_empty() { Ok(()) } else { Err(format!("of keys {lost:?}")) }
}
