//! A network as it can be seen from outside at one moment.

use std::collections::BTreeMap;

use super::journal::Journal;
use crate::id::{Id, Ring};
use crate::message::Contact;
use crate::peer::Peer;

/// All nodes that run, and what their applications saw.
pub struct View<'a> {
    nodes: BTreeMap<Id, &'a Peer>,
    members: Vec<&'a Peer>,
    /// What the applications asked for and saw.
    pub journal: &'a Journal,
    /// How many principals the failures so far must have left (`invariant::principals`).
    pub principals_min: usize,
}

impl<'a> View<'a> {
    /// The view of the nodes that run, in any order.
    pub fn new(running: impl Iterator<Item = &'a Peer>, journal: &'a Journal) -> View<'a> {
        let nodes: BTreeMap<Id, &Peer> = running.map(|peer| (peer.me().id, peer)).collect();
        let members = nodes.values().copied().filter(|peer| peer.is_member()).collect();
        View { nodes, members, journal, principals_min: 0 }
    }

    /// The same, where failures must have left so many principals.
    pub fn with_principals(self, principals_min: usize) -> View<'a> {
        View { principals_min, ..self }
    }

    /// The nodes that run, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &'a Peer> + '_ {
        self.nodes.values().copied()
    }

    /// The nodes that hold a range of the ring, by id.
    pub fn members(&self) -> &[&'a Peer] {
        &self.members
    }

    /// The members whose predecessors have heard of them: of one that has just joined its successor alone knows for as long as its
    /// word is on its way, so that a broadcast may pass it by.
    pub fn known_members(&self) -> impl Iterator<Item = Contact> + '_ {
        let before = self.members.iter().cycle().skip(self.members.len().saturating_sub(1));
        let known = self.members.iter().zip(before).filter(|(peer, before)| {
            peer.me() == before.me() || before.successors().first() == Some(&peer.me())
        });
        known.map(|(peer, _)| peer.me())
    }

    /// The ring that their ids are on; of no interest where there is no node.
    pub fn ring(&self) -> Ring {
        self.members.first().map_or(Ring::DEFAULT, |peer| peer.net().ring())
    }

    /// The running node with this id, in this very life.
    pub fn running(&self, contact: Contact) -> Option<&'a Peer> {
        self.nodes.get(&contact.id).copied().filter(|peer| peer.me() == contact)
    }

    /// The member that a contact names.
    pub fn member(&self, contact: Contact) -> Option<&'a Peer> {
        self.running(contact).filter(|peer| peer.is_member())
    }

    /// The member that should answer for a key: the first at or after it.
    pub fn ideal_responsible(&self, key: Id) -> Option<&'a Peer> {
        let place = self.members.partition_point(|peer| peer.me().id < key);
        self.members.get(place).or(self.members.first()).copied()
    }

    /// The first live entry of a member's successor list; the member itself where it has none.
    pub fn best_successor(&self, member: &'a Peer) -> &'a Peer {
        member.successors().iter().find_map(|contact| self.member(*contact)).unwrap_or(member)
    }
}

/// Contacts as ids, for people.
pub(super) fn ids(contacts: &[Contact]) -> Vec<Id> {
    contacts.iter().map(|contact| contact.id).collect()
}
