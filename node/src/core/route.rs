//! Greedy routing: which node a key goes to next. A pure decision on the ring neighbours and the finger table.
//!
//! One-way tables use the interval rule, which takes the finger of the largest offset that does not pass the key: it is right
//! even if that node itself has passed the key, since then it is the key's responsible. Symmetric tables take the finger whose
//! position is nearest the key. Both end within the table's hop bound on a stable ring; a message that has taken more hops, or
//! found no finger, met stale tables: it goes on by closest-preceding node, which always makes progress.
//!
//! Where the network's options say so, other nodes may take a finger's place for a key: one of the link cache that stands nearer to
//! it, or a near one beside the finger. Neither passes the key where fingers go one way, and both leave no more of the way than the
//! finger's position does, so that the bound holds.

use crate::core::link_cache::LinkCache;
use crate::core::nearby::Nearby;
use crate::core::ring::Neighbours;
use crate::core::table::FingerTable;
use crate::id::{Id, Ring};
use crate::message::Contact;

/// How often in a row a message goes back over a stale one-way finger, predecessor by predecessor, before it goes round.
/// Symmetric tables look behind anyway.
const BACKWARD_MAX: u8 = 2;

/// What is to be done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// This node answers for it.
    Mine,
    /// It goes on.
    Forward(NextHop),
    /// No node is known that it could go to.
    Stuck,
}

/// Where a key goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NextHop {
    pub(crate) to: Contact,
    /// The position for which the next hop is thought to be responsible.
    pub(crate) entry: Option<Id>,
    pub(crate) backward: u8,
    /// The entry is the id after a node that takes the next hop, or one after it, for its successor.
    pub(crate) claimed: bool,
}

impl NextHop {
    /// By no table entry.
    pub(crate) fn to(to: Contact) -> NextHop {
        NextHop { to, entry: None, backward: 0, claimed: false }
    }

    /// By a table entry.
    pub(crate) fn by_entry(to: Contact, entry: Id) -> NextHop {
        NextHop { to, entry: Some(entry), backward: 0, claimed: false }
    }

    /// By an entry that is claimed for the next hop.
    fn by_claim(to: Contact, entry: Id) -> NextHop {
        NextHop { claimed: true, ..NextHop::by_entry(to, entry) }
    }
}

/// How a message came here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way<'a> {
    pub(crate) hops: u16,
    /// The position for which the previous hop thought this node responsible.
    pub(crate) entry: Option<Id>,
    pub(crate) backward: u8,
    /// The entry is the id after a node that takes this one, or one after it, for its successor.
    pub(crate) claimed: bool,
    /// The node that it came from, unless it started here.
    pub(crate) from: Option<Id>,
    /// Nodes that have not answered, or refused.
    pub(crate) excluded: &'a [Id],
}

/// A node's tables, as routing reads them.
pub(crate) struct Router<'a> {
    pub(crate) ring: Ring,
    pub(crate) me: Id,
    pub(crate) neighbours: &'a Neighbours,
    pub(crate) table: &'a FingerTable,
    pub(crate) nearby: &'a Nearby,
    pub(crate) link_cache: &'a LinkCache,
    /// Nodes that are late with an answer: avoided where there is another way.
    pub(crate) suspects: Vec<Contact>,
}

impl Router<'_> {
    /// Where `key` goes from here.
    pub(crate) fn decide(&self, key: Id, way: Way<'_>) -> Decision {
        if self.neighbours.is_mine(key) || self.is_claimed(key, way) {
            return Decision::Mine;
        }
        let excluded = |contact: &Contact| way.excluded.contains(&contact.id);
        let avoided = |contact: &Contact| self.suspects.contains(contact) || excluded(contact);
        if let Some(next) = self.back_over_stale_finger(key, way).filter(|next| !excluded(&next.to)) {
            return Decision::Forward(next);
        }
        let next = self
            .to_passed_over(key, way, &excluded)
            .or_else(|| self.to_successor(key, &avoided))
            .or_else(|| self.to_predecessor(key, &excluded))
            .or_else(|| self.greedy(key, way, &avoided))
            .or_else(|| self.closest_preceding(key, &avoided))
            .or_else(|| self.closest_preceding(key, &excluded));
        next.map_or(Decision::Stuck, Decision::Forward)
    }

    /// A node that does not know its predecessor is responsible for what is claimed for it: whoever takes it for its successor
    /// speaks for all ids after its own; and so it is where that one took a node after it for its successor, which knew better.
    fn is_claimed(&self, key: Id, way: Way<'_>) -> bool {
        self.neighbours.predecessor().is_none() && self.claim_with(key, way).is_some()
    }

    /// The entry, if all ids from there on are claimed for this node, and `key` is one of them up to its own.
    fn claim_with(&self, key: Id, way: Way<'_>) -> Option<Id> {
        way.entry.filter(|entry| way.claimed && self.reaches(*entry, key))
    }

    /// What is claimed for this node, but is not its own, since it knows its predecessor, is for that one or for one before it.
    fn to_passed_over(&self, key: Id, way: Way<'_>, excluded: &dyn Fn(&Contact) -> bool) -> Option<NextHop> {
        let entry = self.claim_with(key, way)?;
        let predecessor = self.neighbours.predecessor().filter(|predecessor| !excluded(predecessor))?;
        let is_between = self.ring.distance(entry, predecessor.id) < self.ring.distance(entry, self.me);
        is_between.then(|| NextHop::by_claim(predecessor, entry))
    }

    /// Whether `key` is in `[entry, me]`.
    fn reaches(&self, entry: Id, key: Id) -> bool {
        self.ring.distance(entry, key) <= self.ring.distance(entry, self.me)
    }

    /// The previous hop thought this node responsible for a range with the key; but its predecessor, or one further back, is.
    fn back_over_stale_finger(&self, key: Id, way: Way<'_>) -> Option<NextHop> {
        let entry = way.entry.filter(|entry| self.reaches(*entry, key))?;
        let predecessor = self.neighbours.predecessor()?;
        (way.backward < BACKWARD_MAX && !self.table.is_symmetric()).then_some(NextHop {
            to: predecessor,
            entry: Some(entry),
            backward: way.backward + 1,
            claimed: way.claimed,
        })
    }

    /// Key in (me, successor]; where the first successors do not answer, the next one takes over their range.
    fn to_successor(&self, key: Id, excluded: &dyn Fn(&Contact) -> bool) -> Option<NextHop> {
        let successor = self.neighbours.successors().iter().find(|successor| !excluded(successor))?;
        let near = self.ring.in_range(key, self.me, successor.id);
        near.then(|| NextHop::by_claim(*successor, self.ring.add(self.me, 1)))
    }

    /// Key in the predecessor's range: only symmetric tables look behind.
    fn to_predecessor(&self, key: Id, excluded: &dyn Fn(&Contact) -> bool) -> Option<NextHop> {
        let predecessor = self.neighbours.predecessor().filter(|predecessor| !excluded(predecessor))?;
        let second = self.neighbours.second_predecessor()?;
        let near = self.table.is_symmetric() && self.ring.in_range(key, second, predecessor.id);
        near.then(|| NextHop::by_entry(predecessor, self.ring.add(second, 1)))
    }

    fn greedy(&self, key: Id, way: Way<'_>, excluded: &dyn Fn(&Contact) -> bool) -> Option<NextHop> {
        let by_preceding_node = way.from.is_some() && way.entry.is_none();
        if by_preceding_node || u32::from(way.hops) > self.table.hops_max() {
            return None;
        }
        if let Some(responsible) =
            self.link_cache.responsible(self.ring, key).filter(|cached| self.is_new(cached, excluded))
        {
            return Some(NextHop::by_entry(responsible, key));
        }
        let index = if self.table.is_symmetric() {
            self.nearest_position(key, excluded)
        } else {
            self.table.at_or_before(self.ring.distance(self.me, key))
        };
        let finger = index.and_then(|index| self.table.finger(index)).filter(|finger| !excluded(finger));
        // One who is asked for its own position is right in any case.
        let by_itself = |contact: Contact| NextHop::by_entry(contact, contact.id);
        let left = self.left(key, index, finger);
        self.cached(key, left, excluded)
            .or_else(|| self.beside(key, index?, left, excluded))
            .map(by_itself)
            .or_else(|| Some(NextHop::by_entry(finger?, self.table.target(index?))))
    }

    /// How far a key is, at least, from the finger that it would go by, or else from this node. 0: that finger is responsible.
    fn left(&self, key: Id, index: Option<usize>, finger: Option<Contact>) -> u64 {
        let symmetric = self.table.is_symmetric();
        let from = |id: Id| match symmetric {
            true => self.ring.nearness(id, key),
            false => self.ring.distance(id, key),
        };
        let Some((position, finger)) = index.map(|index| self.table.target(index)).zip(finger) else {
            let behind = if symmetric { from(self.neighbours.range_start()) } else { u64::MAX };
            return from(self.me).min(behind);
        };
        let is_passed = self.ring.distance(position, key) <= self.ring.distance(position, finger.id);
        if is_passed { 0 } else { from(position).min(from(finger.id)) }
    }

    fn is_new(&self, contact: &Contact, excluded: &dyn Fn(&Contact) -> bool) -> bool {
        contact.id != self.me && !excluded(contact)
    }

    /// The node of the link cache that stands nearest to a key, if it is nearer than `left`.
    fn cached(&self, key: Id, left: u64, excluded: &dyn Fn(&Contact) -> bool) -> Option<Contact> {
        let before = self.link_cache.backward(key).find(|cached| self.is_new(cached, excluded));
        let after = self.link_cache.forward(key).find(|cached| self.is_new(cached, excluded));
        if self.table.is_symmetric() {
            let from = |contact: &Contact| self.ring.nearness(contact.id, key);
            before.into_iter().chain(after).min_by_key(from).filter(|nearest| from(nearest) < left)
        } else {
            before.filter(|before| self.ring.distance(before.id, key) < left)
        }
    }

    /// The node of least round trip beside a finger, of those that stand no farther from the key than `left`, and do not pass it
    /// where fingers go one way.
    fn beside(
        &self,
        key: Id,
        index: usize,
        left: u64,
        excluded: &dyn Fn(&Contact) -> bool,
    ) -> Option<Contact> {
        let is_admissible = |contact: &Contact| match self.table.is_symmetric() {
            true => self.ring.nearness(contact.id, key) <= left,
            false => self.ring.distance(contact.id, key) <= left,
        };
        self.nearby
            .beside(index)
            .filter(|(contact, _)| left > 0 && self.is_new(contact, excluded) && is_admissible(contact))
            .min_by_key(|(_, round_trip)| *round_trip)
            .map(|(contact, _)| contact)
    }

    /// The finger whose position is nearest the key, if it is nearer than this node's own range: a young table may have none.
    fn nearest_position(&self, key: Id, excluded: &dyn Fn(&Contact) -> bool) -> Option<usize> {
        let from_here =
            self.ring.nearness(self.me, key).min(self.ring.nearness(self.neighbours.range_start(), key));
        (0..self.table.len())
            .filter(|index| self.table.finger(*index).is_some_and(|finger| !excluded(&finger)))
            .map(|index| (self.ring.nearness(self.table.target(index), key), index))
            .min()
            .filter(|(from_there, _)| *from_there < from_here)
            .map(|(_, index)| index)
    }

    /// The known node that precedes the key most closely; where none does, the nearest that answers: it is on the way round.
    fn closest_preceding(&self, key: Id, excluded: &dyn Fn(&Contact) -> bool) -> Option<NextHop> {
        let successors = self.neighbours.successors().iter().copied();
        let fingers = (0..self.table.len()).filter_map(|index| self.table.finger(index));
        let known: Vec<Contact> = successors.chain(fingers).filter(|contact| !excluded(contact)).collect();
        let from_me = |contact: &Contact| self.ring.distance(self.me, contact.id);
        let preceding = known
            .iter()
            .filter(|contact| self.ring.between(contact.id, self.me, key))
            .max_by_key(|c| from_me(c));
        preceding
            .or_else(|| known.iter().min_by_key(|contact| from_me(contact)))
            .map(|contact| NextHop::to(*contact))
    }
}
