//! Nodes that are born into a converged ring: tables as the protocol would make them, from the list of all members. For
//! simulations of rings that would take long to grow.

use crate::core::effect::Phase;
use crate::core::{Context, Core};
use crate::id::{Id, Ring};
use crate::message::Contact;
use crate::time::Time;

/// All members of a ring.
#[derive(Clone, Copy, Debug)]
pub struct ConvergedRing<'a> {
    ring: Ring,
    members: &'a [Contact],
}

impl<'a> ConvergedRing<'a> {
    /// A ring of these members, which are in the order of their ids; no two share one.
    pub fn new(ring: Ring, members: &'a [Contact]) -> ConvergedRing<'a> {
        debug_assert!(members.is_sorted_by(|a, b| a.id < b.id), "members are in order");
        ConvergedRing { ring, members }
    }

    /// The member that answers for a position.
    pub fn responsible(&self, position: Id) -> Contact {
        self.members[self.place(position) % self.members.len()]
    }

    /// The place of the first member at or after a position. Ids are spread evenly as a rule: the search begins where it
    /// would be then, and goes outward in doubled steps, so that it stays in few lines of the processor's cache.
    fn place(&self, position: Id) -> usize {
        let count = self.members.len();
        let guess = (u128::from(position.0) * count as u128 / self.ring.max_size()) as usize;
        let (mut low, mut high, mut step) = (guess, guess, 32);
        while low > 0 && self.members[low - 1].id >= position {
            low = low.saturating_sub(step);
            step *= 2;
        }
        while high < count && self.members[high].id < position {
            high = (high + step).min(count);
            step *= 2;
        }
        low + self.members[low..high].partition_point(|member| member.id < position)
    }

    /// The member so many places after the one at `place`.
    fn after(&self, place: usize, steps: usize) -> Contact {
        self.members[(place + steps) % self.members.len()]
    }
}

impl Core {
    /// Becomes a member of a converged ring.
    pub(crate) fn settle(&mut self, now: Time, ring: &ConvergedRing<'_>, maintenance: bool) {
        let (count, place) = (ring.members.len(), ring.place(self.me.id));
        self.phase = Phase::Member;
        if count > 1 {
            let (predecessor, second) = (ring.after(place, count - 1), ring.after(place, count - 2));
            let length = self.net.successors().min(count - 1);
            let successors: Vec<Contact> = (1..=length).map(|steps| ring.after(place, steps)).collect();
            self.neighbours.follow(Some(predecessor), Some(second.id));
            self.neighbours.adopt(successors[0], &successors[1..]);
            self.table.move_range_start(self.neighbours.range_start());
            for index in (0..self.table.len()).filter(|index| !self.table.is_own(*index)).collect::<Vec<_>>()
            {
                let finger = ring.responsible(self.table.target(index));
                self.table.set(index, Some(finger));
            }
        }
        if maintenance {
            self.begin_quiet_rounds(&Context { now, out: &mut Vec::new() });
        }
    }
}
