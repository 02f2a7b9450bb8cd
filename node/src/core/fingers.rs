//! Keeping fingers right: a joiner takes its successor's for a first guess; a finger is looked up when the node it points at is
//! gone, or when use or a check shows that it is stale. Checks go round the table, some fingers a round; they are the links'
//! heartbeats too.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::Stabilise;
use crate::core::effect::{Event, Phase};
use crate::core::lookup::LookupPurpose;
use crate::core::planted::Bug;
use crate::core::repair::Purpose;
use crate::core::stabilise::ROUND_MAX;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{CONTACTS_MAX, Contact, Found, Message};

/// How many fingers are looked up at a time.
const FINGER_LOOKUPS_MAX: usize = 2;

/// The most fingers that are checked in one round.
const CHECKS_MAX: u128 = 4;

/// Which fingers wait to be looked up, and whose turn it is to be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FingerUpkeep {
    stale: BTreeSet<usize>,
    on_their_way: BTreeSet<usize>,
    next_check: usize,
    /// The predecessor that failed last: who points at it is told when its own predecessor is known.
    pub(crate) failed_predecessor: Option<Contact>,
}

impl Core {
    /// A finger may point at the wrong node, or at none.
    pub(crate) fn refresh_finger(&mut self, cx: &mut Context<'_>, index: usize) {
        if self.planted.has(Bug::StaleFingerKept) {
            return;
        }
        self.finger_upkeep.stale.insert(index);
        self.look_fingers_up(cx);
    }

    /// Nodes for a joiner's first guess: those of this node's table, spread evenly.
    pub(crate) fn finger_hints(&self) -> Vec<Contact> {
        let known = self.table.contacts();
        let stride = known.len().div_ceil(CONTACTS_MAX).max(1);
        known.iter().copied().step_by(stride).collect()
    }

    /// A new member's fingers: for each position the node that follows it most closely, of those that it has heard of. It
    /// makes no link to them until it uses or checks them.
    pub(crate) fn guess_fingers(&mut self, cx: &mut Context<'_>, hints: &[Contact]) {
        let ring = self.net.ring();
        let neighbours = self.neighbours.successors().iter().copied().chain(self.neighbours.predecessor());
        let known: Vec<Contact> =
            hints.iter().copied().chain(neighbours).filter(|contact| contact.id != self.me.id).collect();
        for index in (0..self.table.len()).filter(|index| !self.table.is_own(*index)).collect::<Vec<_>>() {
            let target = self.table.target(index);
            let guess = known.iter().min_by_key(|contact| ring.distance(target, contact.id));
            self.set_finger(cx, index, guess.copied());
        }
    }

    /// Fingers that point at no node are looked up.
    fn refresh_unknown_fingers(&mut self, cx: &mut Context<'_>) {
        let unknown = (0..self.table.len()).filter(|index| self.table.finger(*index).is_none());
        self.finger_upkeep.stale.extend(unknown);
        self.look_fingers_up(cx);
    }

    fn look_fingers_up(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Member {
            return;
        }
        while self.finger_upkeep.on_their_way.len() < FINGER_LOOKUPS_MAX {
            let Some(index) = self.finger_upkeep.stale.pop_first() else { return };
            if self.finger_upkeep.on_their_way.contains(&index) {
                continue;
            }
            if self.table.is_own(index) {
                self.set_finger(cx, index, None);
            } else {
                self.finger_upkeep.on_their_way.insert(index);
                self.start_lookup(cx, self.table.target(index), LookupPurpose::Finger(index));
            }
        }
    }

    /// A finger's look-up has ended: its answer holds for all fingers between the key and the responsible.
    pub(crate) fn on_finger_found(
        &mut self,
        cx: &mut Context<'_>,
        index: usize,
        key: Id,
        found: Option<Found>,
    ) {
        self.finger_upkeep.on_their_way.remove(&index);
        if let Some(found) = found.filter(|found| found.responsible != self.me) {
            self.point_fingers(cx, key, found.responsible);
        }
        self.look_fingers_up(cx);
    }

    /// All fingers whose positions lie in `[from, contact.id]` point at `contact`.
    fn point_fingers(&mut self, cx: &mut Context<'_>, from: Id, contact: Contact) {
        for index in self.table.indices_between(from, contact.id) {
            self.finger_upkeep.stale.remove(&index);
            let finger = (!self.table.is_own(index)).then_some(contact);
            self.set_finger(cx, index, finger);
        }
    }

    fn set_finger(&mut self, cx: &mut Context<'_>, index: usize, contact: Option<Contact>) {
        if self.table.set(index, contact) {
            self.after_finger_change(cx, index);
        }
    }

    pub(crate) fn after_finger_change(&mut self, cx: &mut Context<'_>, index: usize) {
        self.nearby.unsettle(index);
        self.statistics.finger_changes += 1;
        cx.event(Event::NewFinger(index, self.table.finger(index)));
    }

    /// The successor answers for all positions up to its own.
    pub(crate) fn fingers_follow_successor(&mut self, cx: &mut Context<'_>, successor: Contact) {
        self.point_fingers(cx, self.net.ring().add(self.me.id, 1), successor);
    }

    /// The counter-clockwise positions begin where the range does.
    pub(crate) fn fingers_follow_predecessor(&mut self, cx: &mut Context<'_>) {
        self.table.move_range_start(self.neighbours.range_start());
        for index in (0..self.table.len()).filter(|index| self.table.is_own(*index)).collect::<Vec<_>>() {
            self.set_finger(cx, index, None);
        }
        if let Some(predecessor) = self.neighbours.predecessor() {
            let second = self.neighbours.second_predecessor();
            let start = second.map_or(predecessor.id, |second| self.net.ring().add(second, 1));
            self.point_fingers(cx, start, predecessor);
        }
    }

    /// Whether the neighbours alone show that a finger is right.
    fn is_known_right(&self, index: usize) -> bool {
        let (ring, target, finger) = (self.net.ring(), self.table.target(index), self.table.finger(index));
        let within = |start: Option<Id>, end: Option<Contact>| {
            finger == end && start.zip(end).is_some_and(|(start, end)| ring.in_range(target, start, end.id))
        };
        within(Some(self.me.id), self.neighbours.successor())
            || within(self.neighbours.second_predecessor(), self.neighbours.predecessor())
    }

    /// A message went by a finger that is not responsible for its position any more: it is not used again until it has been
    /// looked up.
    pub(crate) fn on_stale_entry(&mut self, cx: &mut Context<'_>, entry: Option<Id>, used: Contact) {
        if self.neighbours.successor() == Some(used) {
            self.stabilise_soon(cx);
        }
        self.link_cache.narrow(used.id);
        let index = entry.and_then(|entry| self.table.index_of(entry));
        if let Some(index) = index.filter(|index| self.table.finger(*index) == Some(used)) {
            self.set_finger(cx, index, None);
            self.refresh_finger(cx, index);
        }
    }

    /// A member has spoken. What a node hears anyway keeps its table young while many join, and shows it shorter ways.
    pub(crate) fn hear(&mut self, cx: &mut Context<'_>, from: Contact) {
        if from.is_client() || self.phase != Phase::Member || from.id == self.me.id {
            return;
        }
        if self.net.routing().correction_on_use {
            self.point_nearer(cx, from);
        }
        self.link_cache.hear(from);
    }

    /// A member takes the place of fingers that stand farther behind their positions.
    pub(crate) fn point_nearer(&mut self, cx: &mut Context<'_>, contact: Contact) {
        let ring = self.net.ring();
        let is_nearer = |index: &usize| {
            let target = self.table.target(*index);
            self.table.finger(*index).is_some_and(|finger| {
                ring.distance(target, contact.id) < ring.distance(target, finger.id)
                    && !self.table.is_own(*index)
            })
        };
        for index in (0..self.table.len()).filter(is_nearer).collect::<Vec<_>>() {
            self.set_finger(cx, index, Some(contact));
        }
    }

    /// Fingers at a node that answers for its range no more point at the one that does.
    pub(crate) fn replace_fingers(&mut self, cx: &mut Context<'_>, gone: Contact, heir: Contact) {
        let is_hit = |index: &usize| self.table.finger(*index) == Some(gone);
        for index in (0..self.table.len()).filter(is_hit).collect::<Vec<_>>() {
            let finger = (!self.table.is_own(index) && heir.id != self.me.id).then_some(heir);
            self.set_finger(cx, index, finger);
        }
        self.nearby.remove(&gone);
        self.link_cache.forget(gone.id);
    }

    /// Asks some nodes of the table whether they are still the right ones, the more the shorter the period of rounds is, and
    /// looks up the positions that have none.
    pub(crate) fn check_fingers(&mut self, cx: &mut Context<'_>, period: Duration) {
        self.refresh_unknown_fingers(cx);
        let checks = match self.net.routing().stabilise {
            Stabilise::Adaptive => (ROUND_MAX.as_millis() / period.as_millis().max(1)).clamp(1, CHECKS_MAX),
            Stabilise::Every { .. } => 1,
        };
        for _ in 0..checks {
            self.check_next_finger(cx);
        }
    }

    fn check_next_finger(&mut self, cx: &mut Context<'_>) {
        let length = self.table.len();
        let turn =
            (0..length).map(|step| (self.finger_upkeep.next_check + step) % length).find_map(|index| {
                let finger = self.table.finger(index).filter(|_| !self.is_known_right(index))?;
                Some((index, finger))
            });
        let Some((index, finger)) = turn else { return };
        let run: Vec<usize> =
            (index..length).take_while(|next| self.table.finger(*next) == Some(finger)).collect();
        self.finger_upkeep.next_check = (index + run.len()) % length;
        // Of all positions for which one node stands, a newcomer takes the one farthest before the node first.
        let ring = self.net.ring();
        let farthest =
            run.into_iter().max_by_key(|index| ring.distance(self.table.target(*index), finger.id));
        let index = farthest.unwrap_or(index);
        self.request(cx, finger, Purpose::Finger { index, target: self.table.target(index) });
    }

    pub(crate) fn on_check(&mut self, cx: &mut Context<'_>, from: Contact, token: u64, target: Id) {
        let responsible = self.phase == Phase::Member && self.neighbours.is_mine(target);
        self.send(cx, from, Message::Checked { token, responsible });
    }

    pub(crate) fn on_checked(&mut self, cx: &mut Context<'_>, from: Contact, token: u64, responsible: bool) {
        let Some(request) = self.take_request(cx, from, token) else { return };
        match request.purpose {
            // All positions that it stands for are doubtful: after a partition they may be most of the table (seed 126 of the swarm).
            // The look-up of one settles those up to the node that it finds.
            Purpose::Finger { .. } if !responsible => {
                let stood_for = |index: &usize| self.table.finger(*index) == Some(from);
                for index in (0..self.table.len()).filter(stood_for).collect::<Vec<_>>() {
                    self.refresh_finger(cx, index);
                }
            }
            Purpose::Sounding { place, warm, .. } if request.attempts == 1 => {
                self.on_sounded(cx, from, place, warm, cx.now.since(request.sent_at));
            }
            _ => {}
        }
    }
}
