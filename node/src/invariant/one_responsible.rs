//! One member answers for each key.
//!
//! Source: the promise of P2PS's hand-over (overlay paper, joins and leaves; cf. Ghodsi 2006, *lookup consistency*): duty for a
//! range passes in one message. That two staying members never answer for one key holds while failures are seen; that no key
//! is without one holds in quiet times, since a range on its way to a joiner is nobody's.
//!
//! Ranges are half-open intervals that end at their nodes, so if two overlap, the upper end of one lies in the other; and if a
//! key is in none, the id after some member's is not. So only those keys are tried.

use super::{Invariant, Moment, View};
use crate::id::Id;
use crate::peer::{Peer, Phase};

pub(super) const AT_MOST_ONE: Invariant =
    Invariant { name: "no two members answer for a key", holds: Moment::FailuresSeen, check: at_most_one };

pub(super) const EXACTLY_ONE: Invariant =
    Invariant { name: "one member answers for each key", holds: Moment::Quiet, check: exactly_one };

fn at_most_one(view: &View<'_>) -> Result<(), String> {
    for key in view.members().iter().map(|peer| peer.me().id) {
        let answering = answering(view, key);
        let staying: Vec<Id> =
            answering.iter().filter(|peer| peer.phase() == Phase::Member).map(|peer| peer.me().id).collect();
        if staying.len() > 1 {
            return Err(format!("{staying:?} answer for key {key}"));
        }
    }
    Ok(())
}

fn exactly_one(view: &View<'_>) -> Result<(), String> {
    let ring = view.ring();
    for key in view.members().iter().flat_map(|peer| [peer.me().id, ring.add(peer.me().id, 1)]) {
        let answering: Vec<Id> = answering(view, key).iter().map(|peer| peer.me().id).collect();
        if answering.len() != 1 {
            return Err(format!("{answering:?} answer for key {key}"));
        }
    }
    Ok(())
}

fn answering<'a>(view: &View<'a>, key: Id) -> Vec<&'a Peer> {
    view.members().iter().copied().filter(|peer| peer.is_responsible_of(key)).collect()
}
