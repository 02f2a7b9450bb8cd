//! The link cache: nodes that were heard in traffic, as ways that are shorter than the fingers'. A node that forwards a message, or
//! answers a look-up, has a link here already: keeping it costs no message, and routing may use it wherever it stands nearer to a
//! key than the finger does. Who is heard or used least recently goes first; what is not true any more is found out on use.
//!
//! Of a node that has answered look-ups it is also known that it is responsible for their keys: what many ask for is one
//! hop away.

use std::collections::BTreeMap;

use crate::id::{Id, Ring};
use crate::message::Contact;

/// The nodes that were heard, at most as many as the network's setting allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LinkCache {
    capacity: usize,
    nodes: BTreeMap<Id, Cached>,
    /// Who was heard or used when, by a count.
    order: BTreeMap<u64, Id>,
    count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cached {
    contact: Contact,
    /// It is responsible for all from here to its own id, as far as known.
    since: Id,
    heard: u64,
}

impl LinkCache {
    /// Without nodes, with room for `capacity`.
    pub(crate) fn new(capacity: u16) -> LinkCache {
        LinkCache { capacity: usize::from(capacity), ..LinkCache::default() }
    }

    /// A member has spoken over a link.
    pub(crate) fn hear(&mut self, contact: Contact) {
        if self.capacity == 0 {
            return;
        }
        match self.nodes.get(&contact.id).map(|known| known.contact) {
            Some(known) if known == contact => return self.touch(contact.id),
            Some(_) => self.forget(contact.id),
            None if self.nodes.len() >= self.capacity => {
                if let Some((_, oldest)) = self.order.pop_first() {
                    self.nodes.remove(&oldest);
                }
            }
            None => {}
        }
        self.count += 1;
        self.order.insert(self.count, contact.id);
        self.nodes.insert(contact.id, Cached { contact, since: contact.id, heard: self.count });
    }

    /// A member has said that it is responsible for `key`.
    pub(crate) fn found(&mut self, ring: Ring, contact: Contact, key: Id) {
        self.hear(contact);
        if let Some(known) = self.nodes.get_mut(&contact.id)
            && ring.distance(key, contact.id) > ring.distance(known.since, contact.id)
        {
            known.since = key;
        }
    }

    /// A message goes by a node.
    pub(crate) fn touch(&mut self, id: Id) {
        if let Some(known) = self.nodes.get_mut(&id) {
            self.count += 1;
            self.order.remove(&known.heard);
            self.order.insert(self.count, id);
            known.heard = self.count;
        }
    }

    /// A node is responsible for less than was known of it.
    pub(crate) fn narrow(&mut self, id: Id) {
        if let Some(known) = self.nodes.get_mut(&id) {
            known.since = id;
        }
    }

    /// A node is gone, or its link is.
    pub(crate) fn forget(&mut self, id: Id) {
        if let Some(known) = self.nodes.remove(&id) {
            self.order.remove(&known.heard);
        }
    }

    pub(crate) fn contains(&self, contact: &Contact) -> bool {
        self.nodes.get(&contact.id).is_some_and(|known| known.contact == *contact)
    }

    /// The node that has said that it is responsible for `key`.
    pub(crate) fn responsible(&self, ring: Ring, key: Id) -> Option<Contact> {
        let (id, known) = self.nodes.range(key..).next().or_else(|| self.nodes.first_key_value())?;
        (ring.distance(known.since, key) <= ring.distance(known.since, *id)).then_some(known.contact)
    }

    /// The nodes at or before `key`, the nearest first.
    pub(crate) fn backward(&self, key: Id) -> impl Iterator<Item = Contact> + '_ {
        let wrapped = self.nodes.range(key..).rev().filter(move |(id, _)| **id != key);
        self.nodes.range(..=key).rev().chain(wrapped).map(|(_, known)| known.contact)
    }

    /// The nodes at or after `key`, the nearest first.
    pub(crate) fn forward(&self, key: Id) -> impl Iterator<Item = Contact> + '_ {
        self.nodes.range(key..).chain(self.nodes.range(..key)).map(|(_, known)| known.contact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_point::AccessPoint;

    fn contact(id: u64, incarnation: u64) -> Contact {
        let access_point: AccessPoint = "p2ps://127.0.0.1:1".parse().unwrap();
        Contact { id: Id(id), access_point, incarnation }
    }

    fn ids(contacts: impl Iterator<Item = Contact>) -> Vec<u64> {
        contacts.map(|contact| contact.id.0).collect()
    }

    #[test]
    fn who_was_heard_least_recently_goes_first() {
        let mut cache = LinkCache::new(3);
        for id in [10, 20, 30, 10, 40] {
            cache.hear(contact(id, 1));
        }
        assert_eq!(ids(cache.forward(Id(0))), [10, 30, 40]);
        cache.touch(Id(30));
        cache.hear(contact(50, 1));
        assert_eq!(ids(cache.forward(Id(35))), [40, 50, 30]);
        assert_eq!(ids(cache.backward(Id(40))), [40, 30, 50]);
        cache.forget(Id(40));
        assert_eq!((cache.nodes.len(), cache.order.len()), (2, 2));
        assert!(LinkCache::new(0).nodes.is_empty());
    }

    #[test]
    fn a_responsible_is_remembered_with_its_keys_until_it_is_another_life_or_answers_for_less() {
        let ring = Ring::new(100).unwrap();
        let mut cache = LinkCache::new(3);
        cache.found(ring, contact(10, 1), Id(95));
        cache.found(ring, contact(10, 1), Id(5));
        assert_eq!(cache.responsible(ring, Id(97)), Some(contact(10, 1)));
        assert_eq!(cache.responsible(ring, Id(10)), Some(contact(10, 1)));
        assert_eq!((cache.responsible(ring, Id(94)), cache.responsible(ring, Id(11))), (None, None));
        cache.narrow(Id(10));
        assert_eq!(cache.responsible(ring, Id(97)), None);
        cache.found(ring, contact(10, 1), Id(95));
        cache.hear(contact(10, 2));
        assert_eq!(cache.responsible(ring, Id(97)), None);
        assert!(cache.contains(&contact(10, 2)) && !cache.contains(&contact(10, 1)));
        assert_eq!(ids(cache.forward(Id(0))), [10]);
    }
}
