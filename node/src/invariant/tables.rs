//! In quiet times all tables are what an omniscient observer would write into them.
//!
//! Source: Zave, arXiv 1610.01140, section 7 (*Ideal* is reached from every state that the invariant allows, once failures
//! stop); Stoica et al. 2001, theorem 4, for the fingers. Ours must get there within a stated time, in longest rounds:
//! [`RING_ROUNDS_MAX`] for predecessors and successor lists, [`FINGER_ROUNDS_MAX`] more for fingers.

use std::time::Duration;

use super::view::ids;
use super::{Invariant, Moment, View};
use crate::core::stabilise::ROUND_MAX;
use crate::id::Id;
use crate::peer::Peer;

/// How many of the longest rounds after the last fault the ring is ideal. After a partition the lost neighbours are asked at
/// most a minute apart, which is eight of these; the rest is for closing the ring.
pub const RING_ROUNDS_MAX: u32 = 16;

/// How many of the longest rounds after that the fingers are ideal.
pub const FINGER_ROUNDS_MAX: u32 = 40;

/// [`RING_ROUNDS_MAX`] as a time.
pub const RING_HEALS_WITHIN: Duration = ROUND_MAX.saturating_mul(RING_ROUNDS_MAX);

/// [`FINGER_ROUNDS_MAX`] as a time.
pub const FINGERS_HEAL_WITHIN: Duration = ROUND_MAX.saturating_mul(FINGER_ROUNDS_MAX);

pub(super) const RING_IS_IDEAL: Invariant =
    Invariant { name: "the ring is ideal", holds: Moment::Quiet, check: ring_is_ideal };

/// Whether each member's predecessor and successor list are the right ones, as deep as lists go.
///
/// # Errors
/// The first table that is not.
pub fn ring_is_ideal(view: &View<'_>) -> Result<(), String> {
    let members = view.members();
    let count = members.len();
    for (place, peer) in members.iter().enumerate() {
        let id_at = |step: usize| members[(place + step) % count].me().id;
        let length = peer.net().successors().min(count - 1);
        let successors: Vec<Id> = (1..=length).map(id_at).collect();
        let predecessor = (count > 1).then(|| id_at(count - 1));
        let known = peer.predecessor().map(|contact| contact.id);
        if known != predecessor || ids(peer.successors()) != successors {
            return Err(format!(
                "node {} has predecessor {known:?} and successors {:?}, not {predecessor:?} and {successors:?}",
                peer.me().id,
                ids(peer.successors()),
            ));
        }
    }
    Ok(())
}

/// Whether each finger of each member points at its position's responsible.
///
/// # Errors
/// The first finger that does not.
pub fn fingers_are_ideal(view: &View<'_>) -> Result<(), String> {
    for peer in view.members() {
        for (target, finger) in peer.fingers() {
            let known = finger.map_or(peer.me().id, |contact| contact.id);
            let right = view.ideal_responsible(target).map(Peer::me).map(|contact| contact.id);
            if Some(known) != right {
                return Err(format!(
                    "node {}'s finger for {target} points at {known}, not {right:?}",
                    peer.me().id
                ));
            }
        }
    }
    Ok(())
}
