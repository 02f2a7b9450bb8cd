//! A node's place in the ring: its predecessor and its successor list, and the rules by which they change.
//!
//! The rules are those of Zave's corrected Chord (arXiv 1610.01140, section 5): lists are copied from a live successor, cut to
//! r entries, and never skip a live member.

use crate::core::planted::{Bug, Planted};
use crate::id::{Id, Ring, Span};
use crate::message::Contact;

/// The neighbours that a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Neighbours {
    ring: Ring,
    me: Id,
    length: usize,
    predecessor: Option<Contact>,
    /// While no predecessor is known: the id of the last one, where the range that it answers for begins.
    last_predecessor: Option<Id>,
    /// The predecessor's own predecessor: the start of its range.
    second_predecessor: Option<Id>,
    successors: Vec<Contact>,
    pub(super) planted: Planted,
}

impl Neighbours {
    /// No neighbours yet; lists will have at most `length` entries.
    pub(crate) fn new(ring: Ring, me: Id, length: usize) -> Neighbours {
        Neighbours {
            ring,
            me,
            length,
            predecessor: None,
            last_predecessor: None,
            second_predecessor: None,
            successors: Vec::new(),
            planted: Planted::default(),
        }
    }

    pub(crate) fn predecessor(&self) -> Option<Contact> {
        self.predecessor
    }

    pub(crate) fn second_predecessor(&self) -> Option<Id> {
        self.second_predecessor
    }

    pub(crate) fn successor(&self) -> Option<Contact> {
        self.successors.first().copied()
    }

    pub(crate) fn successors(&self) -> &[Contact] {
        &self.successors
    }

    /// How many nodes the ring has: counted where the list comes round, else guessed from how close the successors stand.
    pub(crate) fn ring_nodes(&self) -> u64 {
        let known = self.successors.len() as u64;
        let last = self.successors.last().filter(|_| self.successors.len() >= self.length);
        let guess = last.map_or(0, |last| {
            let reach = self.ring.distance(self.me, last.id).max(1);
            u128::from(known) * self.ring.max_size() / u128::from(reach)
        });
        u64::try_from(guess).unwrap_or(u64::MAX).max(known + 1)
    }

    /// Whether it knows no other node.
    pub(crate) fn is_alone(&self) -> bool {
        self.successors.is_empty() && self.predecessor.is_none()
    }

    /// Whether `key` is in `(predecessor, me]`. After the predecessor's death the range stays what it was until another is
    /// known; a node that never had one answers for everything while it is alone, and else for itself only.
    pub(crate) fn is_mine(&self, key: Id) -> bool {
        let key = if self.planted.has(Bug::WrongRangeEnd) { self.ring.add(key, 1) } else { key };
        match self.predecessor.map(|predecessor| predecessor.id).or(self.last_predecessor) {
            _ if self.has_whole_ring() => true,
            Some(start) => self.ring.in_range(key, start, self.me),
            None => key == self.me,
        }
    }

    /// The first id of the range that it answers for.
    pub(crate) fn range_start(&self) -> Id {
        let before = self.predecessor.map(|predecessor| predecessor.id).or(self.last_predecessor);
        before.map_or(self.me, |before| self.ring.add(before, 1))
    }

    /// The ids that it answers for.
    pub(crate) fn range(&self) -> Span {
        let first = if self.has_whole_ring() { self.ring.add(self.me, 1) } else { self.range_start() };
        Span { first, last: self.me }
    }

    /// Whether `node` would be a closer successor than the present one.
    pub(crate) fn is_closer_successor(&self, node: Id) -> bool {
        node != self.me
            && self.successor().is_none_or(|successor| self.ring.between(node, self.me, successor.id))
    }

    /// Whether `node` would be a closer predecessor than the present one.
    pub(crate) fn is_closer_predecessor(&self, node: Id) -> bool {
        node != self.me
            && self.predecessor.is_none_or(|predecessor| self.ring.between(node, predecessor.id, self.me))
    }

    /// The list becomes `first :: rest`, without duplicates, cut where it comes round to this node and to its length.
    /// Returns whether it changed.
    pub(crate) fn adopt(&mut self, first: Contact, rest: &[Contact]) -> bool {
        let mut list: Vec<Contact> = Vec::with_capacity(self.length);
        let mut reached = 0;
        let skipped = usize::from(self.planted.has(Bug::EntrySkipped));
        for contact in std::iter::once(&first)
            .chain(rest.iter().skip(skipped))
            .take_while(|contact| contact.id != self.me)
        {
            let distance = self.ring.distance(self.me, contact.id);
            if distance > reached && (list.len() < self.length || self.planted.has(Bug::ListNotCut)) {
                list.push(*contact);
                reached = distance;
            }
        }
        let changed = list != self.successors;
        self.successors = list;
        changed
    }

    /// The predecessor becomes `predecessor`, whose own is `second`. Returns whether it changed.
    pub(crate) fn follow(&mut self, predecessor: Option<Contact>, second: Option<Id>) -> bool {
        let changed = self.predecessor != predecessor;
        self.last_predecessor =
            predecessor.or(self.predecessor).map(|contact| contact.id).or(self.last_predecessor);
        self.predecessor = predecessor;
        self.second_predecessor = second;
        changed
    }

    /// The predecessor, whose own predecessor is this node, hands its range over: this node answers for all ids.
    pub(crate) fn close_ring(&mut self) -> bool {
        let changed = self.follow(None, None);
        self.last_predecessor = Some(self.me);
        changed
    }

    /// No other node is known, in no table: this node answers for all ids, also when others are known again.
    pub(crate) fn take_whole_ring(&mut self) {
        self.last_predecessor = Some(self.me);
    }

    /// Whether it answers for all ids.
    pub(crate) fn has_whole_ring(&self) -> bool {
        self.is_alone() || (self.predecessor.is_none() && self.last_predecessor == Some(self.me))
    }

    /// Takes a node out. Returns whether it was there: as (predecessor, in the successor list).
    pub(crate) fn remove(&mut self, contact: &Contact) -> (bool, bool) {
        let was_predecessor = self.predecessor == Some(*contact);
        if was_predecessor {
            self.follow(None, None);
        }
        let before = self.successors.len();
        if !self.planted.has(Bug::DeadKept) {
            self.successors.retain(|successor| successor != contact);
        }
        (was_predecessor, self.successors.len() < before)
    }

    pub(crate) fn contains(&self, contact: &Contact) -> bool {
        self.predecessor == Some(*contact) || self.successors.contains(contact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_point::AccessPoint;

    fn contact(id: u64) -> Contact {
        let access_point: AccessPoint = "p2ps://127.0.0.1:1".parse().unwrap();
        Contact { id: Id(id), access_point, incarnation: 0 }
    }

    fn ids(neighbours: &Neighbours) -> Vec<u64> {
        neighbours.successors().iter().map(|successor| successor.id.0).collect()
    }

    #[test]
    fn a_list_is_cut_to_its_length_and_where_it_comes_round() {
        let mut neighbours = Neighbours::new(Ring::new(100).unwrap(), Id(90), 3);
        assert!(neighbours.adopt(contact(95), &[contact(5), contact(10), contact(20)]));
        assert_eq!(ids(&neighbours), [95, 5, 10]);
        assert!(neighbours.adopt(contact(95), &[contact(90), contact(95)]));
        assert_eq!(ids(&neighbours), [95]);
        assert!(!neighbours.adopt(contact(95), &[contact(95)]));
        neighbours.adopt(contact(20), &[contact(10), contact(30)]);
        assert_eq!(ids(&neighbours), [20, 30], "an entry that goes back is dropped");
    }

    #[test]
    fn the_nodes_of_a_ring_are_counted_or_guessed() {
        let mut neighbours = Neighbours::new(Ring::new(1000).unwrap(), Id(0), 4);
        assert_eq!(neighbours.ring_nodes(), 1);
        neighbours.adopt(contact(100), &[contact(900)]);
        assert_eq!(neighbours.ring_nodes(), 3);
        neighbours.adopt(contact(10), &[contact(20), contact(30), contact(40)]);
        assert_eq!(neighbours.ring_nodes(), 100);
        let mut neighbours = Neighbours::new(Ring::new(1 << 64).unwrap(), Id(0), 1);
        neighbours.adopt(contact(1), &[]);
        assert_eq!(neighbours.ring_nodes(), u64::MAX);
        neighbours.adopt(contact(u64::MAX), &[]);
        assert_eq!(neighbours.ring_nodes(), 2);
    }

    #[test]
    fn a_node_that_is_alone_answers_for_everything() {
        let mut neighbours = Neighbours::new(Ring::new(100).unwrap(), Id(90), 3);
        assert!(neighbours.is_alone() && neighbours.is_mine(Id(3)));
        neighbours.adopt(contact(10), &[]);
        assert!(!neighbours.is_mine(Id(3)), "the predecessor is not known yet");
        neighbours.follow(Some(contact(10)), None);
        assert!(neighbours.is_mine(Id(11)) && neighbours.is_mine(Id(90)) && !neighbours.is_mine(Id(10)));
        assert_eq!(neighbours.remove(&contact(10)), (true, true));
        assert!(neighbours.is_alone() && neighbours.is_mine(Id(3)));
        neighbours.adopt(contact(20), &[]);
        assert!(!neighbours.is_mine(Id(3)), "another one was known after all");
    }

    #[test]
    fn the_last_but_one_hands_the_whole_ring_over() {
        let ring = Ring::new(100).unwrap();
        let mut neighbours = Neighbours::new(ring, Id(90), 3);
        neighbours.adopt(contact(10), &[]);
        neighbours.follow(Some(contact(10)), None);
        assert!(neighbours.close_ring());
        assert!(!neighbours.is_alone() && neighbours.is_mine(Id(5)) && neighbours.is_mine(Id(10)));
        assert_eq!(neighbours.range().reach(ring), 99);
        neighbours.follow(Some(contact(50)), None);
        assert!(neighbours.is_mine(Id(60)) && !neighbours.is_mine(Id(20)));
    }
}
