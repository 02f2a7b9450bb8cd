//! Keeping the ring right: Zave's corrected rules (arXiv 1610.01140, section 5), in rounds whose period adapts to change.
//!
//! A round asks the successor for its neighbours, takes over its list, asks a node that stands between before adopting it, and
//! notifies the successor (*stabilise*); a node that is notified checks its predecessor (*rectify*). While an answer is awaited
//! that may change its neighbours, a node answers "busy", so that each step is atomic. Joins, leaves and broken links are acted
//! on at once; rounds are the safety net.

use std::time::Duration;

use rand_pcg::rand_core::Rng;

use crate::config::Stabilise;
use crate::core::effect::{Event, Phase};
use crate::core::planted::Bug;
use crate::core::repair::Purpose;
use crate::core::timers::Timer;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{Contact, Message};
use crate::time::Time;

/// The period of rounds while neighbours change.
pub const ROUND_MIN: Duration = Duration::from_millis(500);

/// The period of rounds when nothing has changed for long: each quiet round doubles it up to this.
pub const ROUND_MAX: Duration = Duration::from_secs(8);

/// After a change, how long until the round that spreads it.
const ROUND_SOON: Duration = Duration::from_millis(10);

/// After "busy", how long until the question is asked again.
const BUSY_RETRY: Duration = Duration::from_millis(40);

/// When the next round is due, and how long the pause after it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Upkeep {
    pub(super) period: Duration,
    pub(super) due: Option<Time>,
    /// Rounds that come sooner than this leave the fingers alone.
    pub(super) fingers_due: Time,
}

impl Core {
    /// A round of maintenance.
    pub(crate) fn on_round(&mut self, cx: &mut Context<'_>) {
        self.upkeep.due = None;
        if self.phase == Phase::Client {
            return self.on_proxy_round(cx);
        }
        if !matches!(self.phase, Phase::Member | Phase::Leaving) || self.handed_over {
            return;
        }
        if !self.is_in_step() {
            self.stabilise(cx);
        }
        let period = self.period(self.upkeep.period);
        if cx.now >= self.upkeep.fingers_due {
            self.upkeep.fingers_due = cx.now + period / 2;
            self.check_fingers(cx, period);
            self.sound_nearby(cx);
            self.ask_departed(cx);
            self.seek_other_parts(cx);
            self.ask_silent_clients(cx);
        }
        self.upkeep.period = self.period(period * 2);
        let pause = self.jittered(period);
        self.schedule_round(cx, pause);
    }

    /// A new member leaves its guessed fingers alone for a while: others may be joining too.
    pub(crate) fn put_finger_checks_off(&mut self, cx: &Context<'_>) {
        self.upkeep.fingers_due = cx.now + ROUND_MIN;
    }

    /// The period of rounds, where changes so far ask for `wanted`.
    fn period(&self, wanted: Duration) -> Duration {
        match self.net.routing().stabilise {
            Stabilise::Adaptive => wanted.clamp(ROUND_MIN, ROUND_MAX),
            Stabilise::Every { period_ms } => Duration::from_millis(u64::from(period_ms)),
        }
    }

    /// Something changed farther along the ring: rounds come often again, but there is no hurry.
    fn stabilise_often(&mut self, cx: &mut Context<'_>) {
        self.upkeep.period = self.period(ROUND_MIN);
        let pause = self.jittered(self.upkeep.period);
        self.schedule_round(cx, pause);
    }

    /// Something changed: the next round comes at once, and the following ones often.
    pub(crate) fn stabilise_soon(&mut self, cx: &mut Context<'_>) {
        self.upkeep.period = self.period(ROUND_MIN);
        let pause = self.jittered(ROUND_SOON);
        self.schedule_round(cx, pause);
    }

    /// Rounds begin as on a ring where nothing has changed for long, at any moment of their longest period.
    pub(crate) fn begin_quiet_rounds(&mut self, cx: &Context<'_>) {
        self.upkeep.period = self.period(ROUND_MAX);
        let pause = self.upkeep.period * (self.randomness.next_u32() >> 16) / (1 << 16);
        self.schedule_round(cx, pause);
    }

    /// Rounds go on, also on a ring of one node: it has clients.
    pub(crate) fn see_to_clients(&mut self, cx: &Context<'_>) {
        self.schedule_round(cx, ROUND_MAX);
    }

    pub(crate) fn schedule_round(&mut self, cx: &Context<'_>, pause: Duration) {
        let due = cx.now + pause;
        if let Some(earlier) = self.upkeep.due {
            if earlier <= due {
                return;
            }
            self.timers.cancel(earlier, Timer::Stabilise);
        }
        self.upkeep.due = Some(due);
        self.timers.set(due, Timer::Stabilise);
    }

    fn stabilise(&mut self, cx: &mut Context<'_>) {
        if let Some(successor) = self.neighbours.successor() {
            self.request(cx, successor, Purpose::Successor);
        } else if let Some(predecessor) = self.neighbours.predecessor() {
            self.request(cx, predecessor, Purpose::Candidate);
        }
    }

    pub(crate) fn on_query(&mut self, cx: &mut Context<'_>, from: Contact, token: u64) {
        let member = matches!(self.phase, Phase::Member | Phase::Leaving) && !self.handed_over;
        let answer = if (!member || self.is_in_step()) && !self.planted.has(Bug::NeverBusy) {
            Message::Busy { token, member }
        } else {
            self.neighbours_message(token)
        };
        self.send(cx, from, answer);
        self.part_from_former_proxy(cx, from);
    }

    fn neighbours_message(&self, token: u64) -> Message {
        Message::Neighbours {
            token,
            predecessor: self.neighbours.predecessor(),
            second: self.neighbours.second_predecessor(),
            successors: self.neighbours.successors().to_vec(),
        }
    }

    /// An answer to a query; with token 0 a hint that nobody asked for. `before`: its predecessor, and that one's own.
    pub(crate) fn on_neighbours(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        token: u64,
        before: (Option<Contact>, Option<Id>),
        successors: &[Contact],
    ) {
        if token == 0 && self.neighbours.successor() == Some(from) {
            return self.stabilise_soon(cx);
        }
        let Some(request) = self.take_request(cx, from, token) else { return };
        match request.purpose {
            Purpose::Successor if self.neighbours.successor() == Some(from) => {
                self.adopt_successors(cx, from, successors);
                let own = self.neighbours.predecessor().map(|predecessor| predecessor.id);
                match before.0 {
                    Some(between) if self.planted.has(Bug::AdoptedUnasked) => {
                        self.adopt_successors(cx, between, &[]);
                    }
                    Some(between) if self.neighbours.is_closer_successor(between.id) => {
                        self.request(cx, between, Purpose::Candidate);
                    }
                    // It knows all that a notification would say; else the last one was lost (seeds 423 and 674 of the swarm).
                    Some(known) if known == self.me && before.1 == own => {}
                    _ => self.notify_successor(cx),
                }
            }
            Purpose::Successor => self.stabilise_soon(cx),
            Purpose::Candidate => {
                if self.neighbours.is_closer_successor(from.id) {
                    self.adopt_successors(cx, from, successors);
                }
                self.notify_successor(cx);
            }
            Purpose::Return => self.on_returned(cx, from, successors),
            Purpose::Window { place } => self.on_window(cx, place, from, successors),
            Purpose::Predecessor { .. }
            | Purpose::Probe
            | Purpose::Proxy
            | Purpose::Finger { .. }
            | Purpose::Sounding { .. } => {}
        }
    }

    /// The node that was asked cannot say now: it is asked again, or, where it is no member any more, dropped.
    pub(crate) fn on_busy(&mut self, cx: &mut Context<'_>, from: Contact, token: u64, member: bool) {
        let Some(request) = self.take_request(cx, from, token) else { return };
        if !member && !self.clients.has_link(&from) {
            self.drop_contact(cx, from);
        }
        match request.purpose {
            Purpose::Successor => {
                let pause = self.jittered(BUSY_RETRY);
                self.schedule_round(cx, pause);
            }
            Purpose::Candidate => self.notify_successor(cx),
            Purpose::Predecessor { claimant } if !member => {
                self.follow_predecessor(cx, Some(claimant), None);
            }
            Purpose::Window { place } => self.nearby.retry(place),
            Purpose::Predecessor { .. }
            | Purpose::Probe
            | Purpose::Return
            | Purpose::Proxy
            | Purpose::Finger { .. }
            | Purpose::Sounding { .. } => {}
        }
    }

    /// Tells the successor that this node is its predecessor. Not while leaving: the successor may have taken over by then.
    pub(crate) fn notify_successor(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Member && !self.planted.has(Bug::LeaverNotifies) {
            return;
        }
        if let Some(successor) = self.neighbours.successor() {
            let predecessor = self.neighbours.predecessor();
            self.send(cx, successor, Message::Notify { predecessor });
        }
    }

    /// Rectify: a node believes that it is the predecessor. It speaks, so it lives; the present predecessor may not.
    pub(crate) fn on_notify(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        its_predecessor: Option<Contact>,
    ) {
        if self.phase != Phase::Member || from.id == self.me.id || self.planted.has(Bug::SkippedRectify) {
            return;
        }
        let second = its_predecessor.map(|contact| contact.id);
        match self.neighbours.predecessor() {
            Some(present) if present.id != from.id && !self.neighbours.is_closer_predecessor(from.id) => {
                let hint = self.neighbours_message(0);
                self.send(cx, from, hint);
                if !self.is_in_step() {
                    self.request(cx, present, Purpose::Predecessor { claimant: from });
                }
            }
            _ => self.follow_predecessor(cx, Some(from), second),
        }
        if self.neighbours.successor().is_none() {
            self.stabilise_soon(cx);
        }
    }

    /// A node has joined between this one and its successor: it speaks for itself, with its list.
    pub(crate) fn on_introduce(&mut self, cx: &mut Context<'_>, from: Contact, successors: &[Contact]) {
        let same_place = self.neighbours.successor().is_some_and(|successor| successor.id == from.id);
        if self.phase == Phase::Member && (same_place || self.neighbours.is_closer_successor(from.id)) {
            self.adopt_successors(cx, from, successors);
            self.notify_successor(cx);
        }
    }

    /// The successor list becomes `first :: rest`.
    pub(crate) fn adopt_successors(&mut self, cx: &mut Context<'_>, first: Contact, rest: &[Contact]) {
        let old = self.neighbours.successor();
        if self.neighbours.adopt(first, rest) {
            self.after_successors_change(cx, old);
            if self.neighbours.successor() == old {
                self.stabilise_often(cx);
            } else {
                self.stabilise_soon(cx);
            }
        }
    }

    /// The predecessor becomes `predecessor`, whose own is `second`.
    pub(crate) fn follow_predecessor(
        &mut self,
        cx: &mut Context<'_>,
        predecessor: Option<Contact>,
        second: Option<Id>,
    ) {
        if self.neighbours.follow(predecessor, second) {
            self.after_predecessor_change(cx);
        }
    }

    pub(crate) fn after_successors_change(&mut self, cx: &mut Context<'_>, old: Option<Contact>) {
        let successor = self.neighbours.successor();
        if successor != old {
            self.statistics.successor_changes += 1;
            if let Some(successor) = successor {
                cx.event(Event::NewSuccessor(successor));
                self.fingers_follow_successor(cx, successor);
            }
        }
        cx.event(Event::NewSuccessorList(self.neighbours.successors().to_vec()));
        self.tell_clients(cx);
    }

    pub(crate) fn after_predecessor_change(&mut self, cx: &mut Context<'_>) {
        self.statistics.predecessor_changes += 1;
        cx.event(Event::NewPredecessor(self.neighbours.predecessor()));
        self.fingers_follow_predecessor(cx);
        self.hand_clients_over(cx);
        self.tell_of_failure(cx);
    }
}
