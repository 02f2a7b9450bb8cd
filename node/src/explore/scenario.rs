//! What the explorer explores: a ring at rest, and what may happen to it.

use crate::access_point::AccessPoint;
use crate::config::{Geometry, NetConfig};
use crate::id::{Id, Ring};
use crate::message::Contact;

/// What a node is asked for during an exploration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Node `by` looks a key up.
    Lookup {
        /// The asking node's number.
        by: u8,
        /// The key.
        key: u64,
    },
    /// Node `by` sends a reliable message to node `to`.
    Reliable {
        /// The asking node's number.
        by: u8,
        /// The destination's number.
        to: u8,
    },
    /// Node `by` gives a key of the dictionary a value.
    Write {
        /// The asking node's number.
        by: u8,
        /// The key.
        key: u64,
    },
    /// Node `by` asks for the value of a key of the dictionary.
    Read {
        /// The asking node's number.
        by: u8,
        /// The key.
        key: u64,
    },
    /// Node `by` sends a broadcast.
    Broadcast {
        /// The asking node's number.
        by: u8,
    },
}

/// How often what may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Graceful leaves.
    pub leaves: u8,
    /// Crashes.
    pub crashes: u8,
    /// Lost messages.
    pub losses: u8,
    /// Messages that overtake the one before them on the same link.
    pub swaps: u8,
    /// Far deadlines: rounds and time-outs.
    pub rounds: u8,
}

/// A small network, and what may happen to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// A short name.
    pub name: &'static str,
    /// The ids of the members at rest; they are nodes 0, 1, ...
    pub members: Vec<u64>,
    /// The nodes that may join, numbered on: each with the number of the member that it joins through.
    pub joiners: Vec<(u64, u8)>,
    /// The number of ids on the ring.
    pub ring: u64,
    /// The length of successor lists.
    pub successors: u8,
    /// What may happen besides, how often.
    pub bounds: Bounds,
    /// Which members may leave or crash, by number; all where empty.
    pub victims: Vec<u8>,
    /// Asked in this order, each at any moment.
    pub questions: Vec<Question>,
    /// The search ends at this many states, complete or not.
    pub states_max: usize,
}

impl Scenario {
    /// A ring of these members, to which nothing happens yet, with lists of so many successors.
    pub fn new(name: &'static str, ring: u64, members: &[u64], successors: u8) -> Scenario {
        Scenario {
            name,
            members: members.to_vec(),
            joiners: Vec::new(),
            ring,
            successors,
            bounds: Bounds::default(),
            victims: Vec::new(),
            questions: Vec::new(),
            states_max: usize::MAX,
        }
    }

    /// The settings of its network: Chord's fingers, of which a small ring has few.
    ///
    /// # Panics
    /// Where the scenario's ring or list length is out of range.
    pub fn net(&self) -> NetConfig {
        let ring = Ring::new(u128::from(self.ring)).expect("a scenario's ring is well sized");
        NetConfig::new(ring, Geometry::Chord, self.successors).expect("a scenario's lists are well sized")
    }

    /// The contact of a node.
    pub(super) fn contact(&self, node: u8) -> Contact {
        let place = usize::from(node);
        let id = match place.checked_sub(self.members.len()) {
            None => self.members[place],
            Some(joiner) => self.joiners[joiner].0,
        };
        let access_point = AccessPoint { ip: [10, 0, 0, node].into(), port: 4000 };
        Contact { id: Id(id), access_point, incarnation: 1 }
    }

    /// How many nodes there are, with those that may join.
    pub(super) fn nodes(&self) -> u8 {
        (self.members.len() + self.joiners.len()) as u8
    }

    pub(super) fn is_victim(&self, node: u8) -> bool {
        self.victims.is_empty() || self.victims.contains(&node)
    }

    /// The rotations under which the scenario looks the same: those that move members to members, where nothing else tells them
    /// apart. Nodes that join (through one in particular) and questions do.
    pub fn rotations(&self) -> Vec<u64> {
        let is_same = |distance: &u64| {
            let turned = |id: &u64| (id + distance) % self.ring;
            *distance == 0 || self.members.iter().all(|id| self.members.contains(&turned(id)))
        };
        let told_apart = !self.joiners.is_empty() || !self.questions.is_empty() || !self.victims.is_empty();
        let rotations = if told_apart { 0..1 } else { 0..self.ring };
        rotations.filter(is_same).collect()
    }

    /// The least number of principals that there must be at any time, if failures leave so many (Zave, section 6).
    pub(super) fn principals_min(&self) -> usize {
        let failures = usize::from(self.bounds.leaves + self.bounds.crashes);
        let left = self.members.len().saturating_sub(failures);
        let enough = usize::from(self.successors) + 1;
        if left >= enough { enough } else { 0 }
    }
}
