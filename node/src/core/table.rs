//! The finger table: positions at fixed offsets from the node, and the node responsible for each, as far as known.

use crate::core::geometry::Offsets;
use crate::id::{Id, Ring};
use crate::message::Contact;

/// A node's fingers. Clockwise fingers stand for `me + d`; counter-clockwise ones for `range start - d`, since a node answers
/// for all of `(predecessor, me]` (overlay paper's eq. 6, mirrored for successor-style ranges).
///
/// On a ring that is not full most neighbouring positions share a node. So each node stands in the table once, and a position has
/// its place: a third of the memory, of which a message on its way reads all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FingerTable {
    ring: Ring,
    me: Id,
    range_start: Id,
    offsets: std::sync::Arc<Offsets>,
    /// First the clockwise fingers, then the counter-clockwise ones: each one's place in `nodes`, or [`NOBODY`].
    fingers: Box<[u16]>,
    /// The nodes that fingers point at, in order, each once.
    nodes: Vec<Contact>,
}

/// The place of a finger that points at no node. Tables are smaller: see [`ARITY_MAX`](crate::config::ARITY_MAX).
const NOBODY: u16 = u16::MAX;

impl FingerTable {
    pub(crate) fn new(ring: Ring, me: Id, offsets: std::sync::Arc<Offsets>) -> FingerTable {
        let fingers = vec![NOBODY; offsets.len()].into_boxed_slice();
        FingerTable { ring, me, range_start: me, offsets, fingers, nodes: Vec::new() }
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
        // No node has the place of nobody.
        self.nodes.get(usize::from(self.fingers[index])).copied()
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
        if self.finger(index) == contact {
            return false;
        }
        let before = std::mem::replace(&mut self.fingers[index], NOBODY);
        if before != NOBODY && !self.fingers.contains(&before) {
            self.drop_node(usize::from(before));
        }
        if let Some(contact) = contact {
            self.fingers[index] = self.take_in(contact);
        }
        true
    }

    /// The place of a node, which is made if it has none.
    fn take_in(&mut self, contact: Contact) -> u16 {
        let place = match self.nodes.binary_search(&contact) {
            Ok(place) => return place as u16,
            Err(place) => place,
        };
        if self.nodes.len() == self.nodes.capacity() {
            // Every node of a large simulation has such a table: it grows with less to spare than a Vec's own doubling.
            self.nodes.reserve_exact(4 + self.nodes.len() / 4);
        }
        self.nodes.insert(place, contact);
        let place = place as u16;
        self.fingers
            .iter_mut()
            .filter(|other| **other >= place && **other != NOBODY)
            .for_each(|other| *other += 1);
        place
    }

    /// Takes a node out at which no finger points.
    fn drop_node(&mut self, place: usize) {
        self.nodes.remove(place);
        let place = place as u16;
        self.fingers
            .iter_mut()
            .filter(|other| **other > place && **other != NOBODY)
            .for_each(|other| *other -= 1);
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
        (0..self.len()).map(|index| (self.target(index), self.finger(index)))
    }

    /// The distinct nodes pointed at, in order.
    pub(crate) fn contacts(&self) -> &[Contact] {
        &self.nodes
    }

    pub(crate) fn contains(&self, contact: &Contact) -> bool {
        self.nodes.binary_search(contact).is_ok()
    }

    /// Takes a node out. Returns the fingers that pointed at it.
    pub(crate) fn remove(&mut self, contact: &Contact) -> Vec<usize> {
        let Ok(place) = self.nodes.binary_search(contact) else { return Vec::new() };
        let hit: Vec<usize> =
            (0..self.len()).filter(|index| usize::from(self.fingers[*index]) == place).collect();
        for index in &hit {
            self.fingers[*index] = NOBODY;
        }
        self.drop_node(place);
        hit
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_pcg::Pcg32;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::config::Geometry;

    fn contact(id: u32) -> Contact {
        let access_point = "p2ps://127.0.0.1:1".parse().unwrap();
        Contact { id: Id(u64::from(id)), access_point, incarnation: 0 }
    }

    #[test]
    fn a_table_that_shares_nodes_says_the_same_as_one_that_does_not() {
        let offsets = Offsets::new(Geometry::Tango { k: 5, symmetric: true }, Ring::DEFAULT);
        let mut table = FingerTable::new(Ring::DEFAULT, Id(7), offsets.into());
        let mut plain = vec![None; table.len()];
        let random = &mut Pcg32::seed_from_u64(1);
        for step in 0..20_000 {
            let node = contact(random.next_u32() % 40);
            if step % 20 == 0 {
                let hit: Vec<usize> = (0..plain.len()).filter(|index| plain[*index] == Some(node)).collect();
                hit.iter().for_each(|index| plain[*index] = None);
                assert_eq!(table.remove(&node), hit);
            } else {
                let (index, finger) =
                    (random.next_u32() as usize % plain.len(), Some(node).filter(|_| step % 7 != 0));
                let changes = std::mem::replace(&mut plain[index], finger) != finger;
                assert_eq!(table.set(index, finger), changes);
            }
            assert!(table.entries().map(|(_, finger)| finger).eq(plain.iter().copied()));
            let nodes: BTreeSet<Contact> = plain.iter().flatten().copied().collect();
            assert!(
                table.contacts().iter().eq(&nodes),
                "each once, in order, and none that is not pointed at"
            );
            assert_eq!(table.contains(&node), nodes.contains(&node));
        }
    }
}
