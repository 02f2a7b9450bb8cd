//! Leaving gracefully: the successor takes the range over before the node goes, and the neighbours are told.

use std::time::Duration;

use crate::core::effect::{Event, Phase, Upcall};
use crate::core::planted::Bug;
use crate::core::timers::Timer;
use crate::core::{Context, Core};
use crate::message::{Contact, Message};
use crate::time::Time;

/// How long a node tries to hand over before it goes without.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it waits at most while it has items of the dictionary, and the successor is still taking them over, or refuses to.
pub(crate) const LEAVE_MAX: Duration = Duration::from_secs(60);

/// How long until a successor that could not take over is asked again.
const LEAVE_RETRY: Duration = Duration::from_millis(250);

/// After handing over, how long the node passes on what is still on its way to it.
const LEAVE_LINGER: Duration = Duration::from_millis(250);

/// A leave on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leaving {
    pub(super) began_at: Time,
    pub(super) gives_up_at: Time,
    /// The successor could not take over: it may be leaving too, so this node takes over from its own predecessor until it asks
    /// again. Not later: what the successor then takes over is the range as it was when it was asked.
    pub(super) refused: bool,
}

impl Core {
    /// Leaves the network.
    pub(crate) fn leave(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Member if self.planted.has(Bug::NotHandedOverAtLeave) => self.end(cx, true),
            Phase::Member => {
                self.phase = Phase::Leaving;
                self.leaving =
                    Some(Leaving { began_at: cx.now, gives_up_at: cx.now + LEAVE_TIMEOUT, refused: false });
                self.hand_range_over(cx);
            }
            Phase::Client => {
                self.leave_proxy(cx);
                self.end(cx, true);
            }
            Phase::Leaving | Phase::Ended => {}
            Phase::Idle | Phase::Joining => self.end(cx, false),
        }
    }

    fn hand_range_over(&mut self, cx: &mut Context<'_>) {
        match self.neighbours.successor() {
            Some(successor) => {
                let predecessor = self.neighbours.predecessor();
                self.set_leave_retry(cx);
                if let Some(leaving) = &mut self.leaving {
                    leaving.refused = false;
                }
                self.send(cx, successor, Message::Leave { predecessor });
            }
            // A node has joined by this one, the first, and is not known as its successor yet.
            None if self.neighbours.predecessor().is_some() => {
                self.set_leave_retry(cx);
                self.stabilise_soon(cx);
            }
            None => self.end(cx, true),
        }
    }

    /// Two neighbours that leave refuse each other until one of them asks first.
    fn set_leave_retry(&mut self, cx: &Context<'_>) {
        let pause = self.jittered(LEAVE_RETRY);
        self.timers.set(cx.now + pause, Timer::Leave);
    }

    /// Nobody is left to hand over to: a leaving node goes at once, lest it answer for one that it does not know of yet.
    pub(crate) fn leave_alone(&mut self, cx: &Context<'_>) {
        if self.leaving.is_some() && !self.handed_over {
            self.timers.clear(Timer::Leave);
            self.timers.set(cx.now, Timer::Leave);
        }
    }

    /// Time to try again, to give up, or to go.
    pub(crate) fn on_leave_due(&mut self, cx: &mut Context<'_>) {
        let Some(leaving) = &self.leaving else { return };
        // What it has on its way to a next hop may have to go elsewhere yet (seed 501 of the swarm).
        let is_needed = self.items_held > 0 || self.hops.is_waiting();
        if self.handed_over && is_needed && cx.now < leaving.gives_up_at {
            self.timers.set(cx.now + LEAVE_LINGER, Timer::Leave);
        } else if self.handed_over {
            self.end(cx, true);
        } else if cx.now >= leaving.gives_up_at {
            self.tell_neighbours(cx);
            self.end(cx, false);
        } else {
            self.hand_range_over(cx);
        }
    }

    /// A predecessor leaves: this node answers for its range from now on, if it can.
    pub(crate) fn on_leave(&mut self, cx: &mut Context<'_>, from: Contact, predecessor: Option<Contact>) {
        let able = match self.phase {
            Phase::Member => true,
            Phase::Leaving => {
                !self.handed_over && self.leaving.as_ref().is_some_and(|leaving| leaving.refused)
            }
            Phase::Idle | Phase::Joining | Phase::Client | Phase::Ended => false,
        };
        let present = self.neighbours.predecessor();
        let is_present = present.is_none_or(|present| present.id == from.id);
        // Its range is this node's already where it was taken over and the answer was lost: then it is asked for again.
        let taken = able && (is_present || self.neighbours.is_closer_predecessor(from.id));
        self.send(cx, from, Message::LeaveTaken(taken));
        if taken && is_present {
            self.giver = Some((from, cx.now));
            if predecessor.is_some_and(|predecessor| predecessor.id == self.me.id) {
                if self.neighbours.close_ring() {
                    self.after_predecessor_change(cx);
                }
            } else {
                self.follow_predecessor(cx, predecessor, None);
            }
        }
    }

    pub(crate) fn on_leave_taken(&mut self, cx: &mut Context<'_>, from: Contact, taken: bool) {
        let Some(leaving) = &mut self.leaving else { return };
        if self.handed_over || self.neighbours.successor() != Some(from) {
            return;
        }
        if !taken {
            leaving.refused = true;
            // It lives, but takes a node between for its predecessor that may have vanished, and finds that out in time (seed 493 of the
            // swarm): no items are left behind for that.
            if self.items_held > 0 {
                self.leave_goes_on(cx);
            }
            return self.stabilise_soon(cx);
        }
        self.handed_over = true;
        self.tell_neighbours(cx);
        self.tell_of_leave(cx);
        self.flush_acks(cx);
        self.timers.clear(Timer::Leave);
        self.timers.set(cx.now + LEAVE_LINGER, Timer::Leave);
    }

    /// The successor is taking items over, or will: the node waits for it, within [`LEAVE_MAX`].
    pub(crate) fn leave_goes_on(&mut self, cx: &Context<'_>) {
        if let Some(leaving) = &mut self.leaving {
            leaving.gives_up_at = (cx.now + LEAVE_TIMEOUT).min(leaving.began_at + LEAVE_MAX);
        }
    }

    fn tell_neighbours(&mut self, cx: &mut Context<'_>) {
        let successors = self.neighbours.successors().to_vec();
        let neighbours = [self.neighbours.predecessor(), self.neighbours.successor()].into_iter().flatten();
        for contact in neighbours.chain(self.client_links()).collect::<std::collections::BTreeSet<_>>() {
            self.send(cx, contact, Message::Left { successors: successors.clone() });
        }
    }

    /// A neighbour has left; its successors are told so that the ring closes at once. Where it was the successor, the first of
    /// them has taken its range over, and becomes the successor, also before one that this node knew behind it: the leaver may have
    /// been the only one that had heard of a node which joined after it (seed 304 of the swarm: else broadcasts miss that one).
    pub(crate) fn on_left(&mut self, cx: &mut Context<'_>, from: Contact, successors: &[Contact]) {
        let was_successor = self.neighbours.successor() == Some(from);
        if self.proxy.present == Some(from) {
            self.proxy.successors = successors.to_vec();
        }
        self.drop_contact(cx, from);
        let heir = successors.iter().find(|heir| heir.id != self.me.id);
        if was_successor
            && let Some(heir) = heir
            && self.neighbours.is_closer_successor(heir.id)
        {
            self.adopt_successors(cx, *heir, successors);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, handed_over: bool) {
        self.flush_acks(cx);
        self.fail_lookups(cx);
        if self.items_held > 0 {
            cx.event(Event::ItemsLeftBehind { items: self.items_held });
        }
        self.upcalls.push_back(Upcall::Ended);
        self.phase = Phase::Ended;
        self.leaving = None;
        self.joining = None;
        self.timers = super::Timers::default();
        cx.event(Event::Left { handed_over });
    }
}
