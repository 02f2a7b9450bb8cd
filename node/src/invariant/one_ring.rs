//! Following each member's first live successor leads everybody into one ring, which goes round the ids once.
//!
//! Source: Zave, arXiv 1610.01140, section 6: *AtLeastOneRing*, *AtMostOneRing*, *OrderedRing* and *ConnectedAppendages*, which
//! follow from the inductive invariant. A member outside the ring is an appendage, such as one that its predecessor has not
//! heard of yet; since each has exactly one best successor, a single cycle means that every appendage leads into it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Moment, View};
use crate::id::Id;

pub(super) const INVARIANT: Invariant =
    Invariant { name: "there is one ordered ring", holds: Moment::FailuresSeen, check };

fn check(view: &View<'_>) -> Result<(), String> {
    let next: BTreeMap<Id, Id> =
        view.members().iter().map(|peer| (peer.me().id, view.best_successor(peer).me().id)).collect();
    let mut rings: BTreeSet<Vec<Id>> = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for start in next.keys() {
        let mut path = Vec::new();
        let mut here = *start;
        while seen.insert(here) {
            path.push(here);
            here = next[&here];
        }
        if let Some(begin) = path.iter().position(|id| *id == here) {
            rings.insert(path.split_off(begin));
        }
    }
    if rings.len() > 1 {
        return Err(format!("the members form {} rings: {rings:?}", rings.len()));
    }
    let ring = view.ring();
    let Some(round) = rings.first() else { return Ok(()) };
    let steps = round.iter().map(|id| u128::from(ring.distance(*id, next[id])));
    if round.len() > 1 && steps.sum::<u128>() != ring.max_size() {
        return Err(format!("the ring goes round more than once: {round:?}"));
    }
    Ok(())
}
