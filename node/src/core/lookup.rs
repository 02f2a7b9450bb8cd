//! Look-ups at their source: attempts, time-outs, answers. For the application, and to mend the finger table.

use std::time::Duration;

use crate::core::effect::{Observation, Output, Phase};
use crate::core::planted::Bug;
use crate::core::timers::Timer;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{Body, Contact, Found, RouteError};
use crate::time::Time;

/// The most look-ups that a node has on their way.
pub const LOOKUPS_PENDING_MAX: usize = 4096;

/// How often a look-up is tried.
pub const LOOKUP_ATTEMPTS_MAX: u32 = 4;

/// How long the first attempt may take; each further one may take as long again more.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1500);

/// After a failed attempt, how long until the next.
const LOOKUP_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A look-up on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingLookup {
    pub(super) key: Id,
    pub(super) purpose: LookupPurpose,
    pub(super) started: Time,
    pub(super) attempts: u32,
    /// While an attempt is on its way: when it times out. Else: when the next begins.
    pub(super) due: Time,
    /// Why the last attempt failed.
    pub(super) failure: RouteError,
}

/// Whom a look-up serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LookupPurpose {
    /// The application: its number for it.
    Application(u64),
    /// The finger with this index.
    Finger(usize),
    /// A joiner or a client that looks for its successor.
    Guest {
        /// Who.
        guest: Contact,
        /// Its number for the question.
        sequence: u64,
    },
    /// The nodes beside a finger: which place.
    Window(usize),
}

impl Core {
    /// Looks a key up for the application.
    pub(crate) fn lookup(&mut self, cx: &mut Context<'_>, operation: u64, key: Id) {
        let refusal = if !matches!(self.phase, Phase::Member | Phase::Leaving | Phase::Client) {
            Some(RouteError::NotMember)
        } else if self.lookups.len() >= LOOKUPS_PENDING_MAX {
            Some(RouteError::Overloaded)
        } else {
            None
        };
        match refusal {
            Some(reason) => complete(cx, operation, Duration::ZERO, Err(reason)),
            None => self.start_lookup(cx, key, LookupPurpose::Application(operation)),
        }
    }

    pub(crate) fn start_lookup(&mut self, cx: &mut Context<'_>, key: Id, purpose: LookupPurpose) {
        let sequence = self.next_token();
        let failure = RouteError::TimedOut;
        let pending = PendingLookup { key, purpose, started: cx.now, attempts: 0, due: cx.now, failure };
        self.lookups.insert(sequence, pending);
        self.attempt_lookup(cx, sequence);
    }

    fn attempt_lookup(&mut self, cx: &mut Context<'_>, sequence: u64) {
        let Some(pending) = self.lookups.get_mut(&sequence) else { return };
        pending.attempts += 1;
        pending.due = cx.now + LOOKUP_TIMEOUT * pending.attempts;
        pending.failure = RouteError::TimedOut;
        self.timers.set(pending.due, Timer::Lookup(sequence));
        let maintenance = !matches!(pending.purpose, LookupPurpose::Application(_));
        let key = pending.key;
        let route = self.new_route(sequence, key, Body::Lookup { maintenance });
        self.dispatch(cx, route);
    }

    /// A destination, or a hop that could not go on, has answered.
    pub(crate) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        sequence: u64,
        result: Result<Found, RouteError>,
    ) {
        let Some(pending) = self.lookups.get_mut(&sequence) else {
            return self.on_stray_answer(cx, sequence, result);
        };
        match result {
            Err(reason) if pending.attempts < LOOKUP_ATTEMPTS_MAX => {
                pending.failure = reason;
                let (old, delay) = (pending.due, LOOKUP_RETRY_DELAY * pending.attempts);
                pending.due = cx.now + delay;
                self.timers.cancel(old, Timer::Lookup(sequence));
                self.timers.set(pending.due, Timer::Lookup(sequence));
            }
            result => self.end_lookup(cx, sequence, result),
        }
    }

    /// An attempt has timed out, or the next one is due.
    pub(crate) fn on_lookup_due(&mut self, cx: &mut Context<'_>, sequence: u64) {
        let Some(pending) = self.lookups.get(&sequence) else { return };
        if self.planted.has(Bug::LookupForgotten) {
            return;
        }
        if pending.attempts >= LOOKUP_ATTEMPTS_MAX {
            self.end_lookup(cx, sequence, Err(pending.failure));
        } else {
            self.attempt_lookup(cx, sequence);
        }
    }

    fn end_lookup(&mut self, cx: &mut Context<'_>, sequence: u64, result: Result<Found, RouteError>) {
        let Some(pending) = self.lookups.remove(&sequence) else { return };
        self.timers.cancel(pending.due, Timer::Lookup(sequence));
        if let Ok(found) = result
            && found.responsible != self.me
        {
            self.link_cache.found(self.net.ring(), found.responsible, pending.key);
        }
        match pending.purpose {
            LookupPurpose::Application(operation) => {
                complete(cx, operation, cx.now.since(pending.started), result);
            }
            LookupPurpose::Window(place) => self.on_window_found(cx, place, result.ok()),
            LookupPurpose::Finger(index) => self.on_finger_found(cx, index, pending.key, result.ok()),
            LookupPurpose::Guest { guest, sequence } => {
                self.tell_located(cx, guest, sequence, result.map(|found| found.responsible));
            }
        }
    }

    /// The node is no member any more: what it still waits for has failed.
    pub(crate) fn fail_lookups(&mut self, cx: &mut Context<'_>) {
        while let Some(sequence) = self.lookups.keys().next().copied() {
            self.end_lookup(cx, sequence, Err(RouteError::NotMember));
        }
    }
}

fn complete(cx: &mut Context<'_>, operation: u64, latency: Duration, result: Result<Found, RouteError>) {
    cx.out.push(Output::Observe(Observation::Lookup { latency, result: result.map(|found| found.hops) }));
    cx.out.push(Output::Completed { operation, result });
}
