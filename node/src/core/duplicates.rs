//! Messages that are sent again do not breed.
//!
//! A hop that is not acknowledged sends its message to another node. Where only the acknowledgement was lost, there are two of it
//! from then on; and on a ring that is broken, a route may go round until it has taken all its hops. If each hop makes a second
//! one now and then, their number grows exponentially with the hops. So:
//!
//! - What is sent again says so: it is a *duplicate* ([`Route::turns`](crate::message::Route::turns) is not 0). A node remembers the
//!   duplicates that it took on, acknowledges those that come again, and drops them.
//! - No route is lost by that. A message may rightly come back to a node, on its way round; so each duplicate counts its *turns*,
//!   the hops that did not bring it nearer to its key. Between two visits of one node there is such a hop, so one that comes
//!   back has more turns than before, and is taken on. One that is dropped has met the track of another, which had as many
//!   turns or more. That one's way goes on: along each way either the turns rise, or the key comes nearer while they stay, so
//!   no two can wait for each other, and the last one ends: it arrives, or its source is told that it does not.
//! - A duplicate of more than [`TURNS_MAX`] turns goes in circles: its route is exhausted.
//!
//! So a node passes one errand's duplicates on at most [`TURNS_MAX`] times, which bounds them all ([`duplicates_max`]).

use std::collections::{BTreeMap, VecDeque};

use crate::core::Core;
use crate::core::forward::{Passage, TRIES_MAX};
use crate::message::{Contact, Errand, Route};

/// The most turns of a duplicate that is passed on.
pub const TURNS_MAX: u8 = 16;

/// How many errands' duplicates a node remembers; of those that it has not taken on for longest it may take one on again.
pub const ERRANDS_REMEMBERED: usize = 4096;

/// The most duplicates of one errand that so many nodes send, on a route of at most `hops` hops: each of the hops of the one that
/// is no duplicate, and each passage of one that is, is tried at most [`TRIES_MAX`] times. As long as none of the nodes has to
/// remember more than [`ERRANDS_REMEMBERED`] of them meanwhile.
pub fn duplicates_max(nodes: usize, hops: u32) -> u64 {
    TRIES_MAX as u64 * (u64::from(hops) + nodes as u64 * u64::from(TURNS_MAX))
}

/// The duplicates that a node took on last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Duplicates {
    /// The most turns of one that was taken on.
    pub(super) turns: BTreeMap<Errand, u8>,
    /// Oldest first.
    order: VecDeque<Errand>,
}

impl Duplicates {
    /// Whether a message that came is to be passed on, or taken in; if it is a duplicate, it is remembered.
    pub(crate) fn take_on(&mut self, route: &Route) -> bool {
        if route.turns == 0 {
            return true;
        }
        let errand = route.errand();
        if let Some(turns) = self.turns.get_mut(&errand) {
            let is_further = route.turns > *turns;
            *turns = route.turns.max(*turns);
            return is_further;
        }
        self.turns.insert(errand, route.turns);
        self.order.push_back(errand);
        if self.order.len() > ERRANDS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.turns.remove(&oldest);
        }
        true
    }
}

impl Core {
    /// The turns of a message once it has been sent to `to`: it becomes a duplicate if it was sent before.
    pub(super) fn turns_to(&self, passage: &Passage, to: &Contact) -> u8 {
        let Passage { route, tried, .. } = passage;
        match route.turns {
            0 => u8::from(!tried.is_empty()),
            turns if self.is_nearer(to, route) => turns,
            turns => turns.saturating_add(1).min(TURNS_MAX + 1),
        }
    }

    /// Whether a node is nearer to a message's key than this one, on the way that tables of this kind look.
    fn is_nearer(&self, node: &Contact, route: &Route) -> bool {
        let ring = self.net.ring();
        let left = |from| match self.table.is_symmetric() {
            true => ring.nearness(from, route.key),
            false => ring.distance(from, route.key),
        };
        left(node.id) < left(self.me.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_point::AccessPoint;
    use crate::id::Id;
    use crate::message::Body;

    fn route(sequence: u64, turns: u8) -> Route {
        let access_point: AccessPoint = "p2ps://127.0.0.1:1".parse().unwrap();
        let source = Contact { id: Id(1), access_point, incarnation: 1 };
        let body = Body::Lookup { maintenance: false };
        Route { turns, ..Route::new(source, sequence, 0, Id(7), body) }
    }

    #[test]
    fn a_duplicate_is_taken_on_once_and_again_after_each_turn() {
        let mut duplicates = Duplicates::default();
        assert!(duplicates.take_on(&route(1, 0)) && duplicates.take_on(&route(1, 0)), "no duplicates");
        assert!(duplicates.take_on(&route(1, 2)));
        assert!(!duplicates.take_on(&route(1, 2)) && !duplicates.take_on(&route(1, 1)));
        assert!(duplicates.take_on(&route(1, 3)));
        assert!(duplicates.take_on(&route(2, 1)), "another message");
        assert!(duplicates.take_on(&Route { attempt: 5, ..route(1, 1) }), "another attempt");
        assert!(duplicates.take_on(&Route { key: Id(8), ..route(1, 1) }), "another part");
    }

    #[test]
    fn so_many_are_remembered() {
        let mut duplicates = Duplicates::default();
        for sequence in 0..=ERRANDS_REMEMBERED as u64 {
            assert!(duplicates.take_on(&route(sequence, 1)));
        }
        assert_eq!(duplicates.turns.len(), ERRANDS_REMEMBERED);
        assert!(!duplicates.take_on(&route(1, 1)));
        assert!(duplicates.take_on(&route(0, 1)), "the oldest is forgotten");
    }
}
