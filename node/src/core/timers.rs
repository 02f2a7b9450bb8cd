//! What the protocol waits for, by time.

use std::collections::VecDeque;

use crate::time::Time;

/// One thing that is due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// Acknowledgements have waited long enough for company.
    Acks,
    /// The next hop has not acknowledged.
    Hop(u64),
    /// A request has not been answered.
    Request(u64),
    /// A look-up's attempt has not been answered, or its next attempt is due.
    Lookup(u64),
    /// A service's, by its number.
    Service(u64),
    /// The next round of ring maintenance.
    Stabilise,
    /// A step of the join has not been answered, or the next attempt is due.
    Join,
    /// A step of the leave has not been answered.
    Leave,
}

/// The timers that run. There is at most one for each thing that is waited for, so the number is bounded by the tables
/// that hold those things.
///
/// They are few as a rule, and most are set for later than all others and cancelled while they are among the first: a sorted
/// queue that keeps its memory does both without a search through the heap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Timers {
    pub(super) due: VecDeque<(Time, Timer)>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Time, timer: Timer) {
        if let Err(place) = self.due.binary_search(&(at, timer)) {
            self.due.insert(place, (at, timer));
        }
    }

    pub(crate) fn cancel(&mut self, at: Time, timer: Timer) {
        if let Ok(place) = self.due.binary_search(&(at, timer)) {
            self.due.remove(place);
        }
    }

    /// Cancels a timer whose time is not at hand. Linear: for the few timers that exist once.
    pub(crate) fn clear(&mut self, timer: Timer) {
        self.due.retain(|(_, other)| *other != timer);
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.due.front().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due, and when it was.
    pub(crate) fn expired(&mut self, now: Time) -> Option<(Time, Timer)> {
        self.due.front().filter(|(at, _)| *at <= now)?;
        self.due.pop_front()
    }
}
