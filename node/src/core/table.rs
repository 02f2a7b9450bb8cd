//! The finger table: positions at fixed offsets from the node, and the node responsible for each, as far as known.

use crate::core::geometry::Offsets;
use crate::id::{Id, Ring};
use crate::message::Contact;

/// A node's fingers. Clockwise fingers stand for `me + d`; counter-clockwise ones for `range start - d`, since a node answers
/// for all of `(predecessor, me]` (overlay paper's eq. 6, mirrored for successor-style ranges).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FingerTable {
    ring: Ring,
    me: Id,
    range_start: Id,
    offsets: std::sync::Arc<Offsets>,
    /// First the clockwise fingers, then the counter-clockwise ones.
    fingers: Vec<Option<Contact>>,
}

impl FingerTable {
    pub(crate) fn new(ring: Ring, me: Id, offsets: std::sync::Arc<Offsets>) -> FingerTable {
        let fingers = vec![None; offsets.len()];
        FingerTable { ring, me, range_start: me, offsets, fingers }
    }

    pub(crate) fn len(&self) -> usize {
        self.fingers.len()
    }

    pub(crate) fn is_symmetric(&self) -> bool {
        !self.offsets.counter_clockwise.is_empty()
    }

    pub(crate) fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    pub(crate) fn hops_max(&self) -> u32 {
        self.offsets.hops_max
    }

    pub(crate) fn finger(&self, index: usize) -> Option<Contact> {
        self.fingers[index]
    }

    /// The position that a finger stands for.
    pub(crate) fn target(&self, index: usize) -> Id {
        let clockwise = &self.offsets.clockwise;
        match index.checked_sub(clockwise.len()) {
            None => self.ring.add(self.me, clockwise[index]),
            Some(index) => self.ring.sub(self.range_start, self.offsets.counter_clockwise[index]),
        }
    }

    /// The finger that stands for a position, if there is one.
    pub(crate) fn index_of(&self, target: Id) -> Option<usize> {
        (0..self.len()).find(|index| self.target(*index) == target)
    }

    /// The node's range now begins at `start`: the counter-clockwise positions move with it.
    pub(crate) fn move_range_start(&mut self, start: Id) {
        self.range_start = start;
    }

    /// Whether the node itself answers for a finger's position: such a finger needs no node.
    pub(crate) fn is_own(&self, index: usize) -> bool {
        let target = self.target(index);
        self.ring.distance(self.range_start, target) <= self.ring.distance(self.range_start, self.me)
    }

    /// Sets a finger. Returns whether it changed.
    pub(crate) fn set(&mut self, index: usize, contact: Option<Contact>) -> bool {
        std::mem::replace(&mut self.fingers[index], contact) != contact
    }

    /// All fingers whose positions lie in `[from, contact.id]`, for which `contact` answers.
    pub(crate) fn indices_between(&self, from: Id, to: Id) -> Vec<usize> {
        let width = self.ring.distance(from, to);
        (0..self.len()).filter(|index| self.ring.distance(from, self.target(*index)) <= width).collect()
    }

    /// The largest clockwise finger at or before `distance` from this node: the one-way interval rule.
    pub(crate) fn at_or_before(&self, distance: u64) -> Option<usize> {
        self.offsets.clockwise.partition_point(|offset| *offset <= distance).checked_sub(1)
    }

    /// The finger that keys there go by, where all fingers are known.
    pub(crate) fn serves(&self, key: Id) -> Option<usize> {
        if !self.is_symmetric() {
            return self.at_or_before(self.ring.distance(self.me, key));
        }
        (0..self.len()).min_by_key(|index| self.ring.nearness(self.target(*index), key))
    }

    /// All positions with the node that each points at.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Id, Option<Contact>)> + '_ {
        (0..self.len()).map(|index| (self.target(index), self.fingers[index]))
    }

    /// The distinct nodes pointed at.
    pub(crate) fn contacts(&self) -> std::collections::BTreeSet<Contact> {
        self.fingers.iter().flatten().copied().collect()
    }

    pub(crate) fn contains(&self, contact: &Contact) -> bool {
        self.fingers.iter().flatten().any(|finger| finger == contact)
    }

    /// Takes a node out. Returns the fingers that pointed at it.
    pub(crate) fn remove(&mut self, contact: &Contact) -> Vec<usize> {
        let hit: Vec<usize> =
            (0..self.len()).filter(|index| self.fingers[*index] == Some(*contact)).collect();
        for index in &hit {
            self.fingers[*index] = None;
        }
        hit
    }
}
