//! Reliable messages: acknowledged from end to end, sent again until they are, delivered once and, of those from one node, in
//! the order in which they were sent. Each ends as delivered or as failed, never in silence (P2PS 1.0's `rsend`).
//!
//! A message names the one before it that its source still waits for ([`Body::Reliable`]), so the receiver knows what to wait for
//! itself, and both ends forget a pair of nodes that has nothing under way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::core::digest::Digest;
use crate::core::effect::Output;
use crate::core::planted::Bug;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{Body, Contact, Message, Route, RouteError};
use crate::time::Time;

/// The most reliable messages that a node waits for.
pub const RELIABLE_PENDING_MAX: usize = 1024;

/// The most payload that those messages have together, in bytes.
pub const RELIABLE_PENDING_BYTES_MAX: usize = 16 << 20;

/// How long a message is tried before it has failed.
pub const RELIABLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long until a message is sent again for the first time; each pause is twice the last, up to [`RESEND_MAX`].
const RESEND_MIN: Duration = Duration::from_millis(750);

/// The longest pause.
const RESEND_MAX: Duration = Duration::from_secs(3);

/// How often in a row the responsible may say that there is no such node: it may be coming back.
const REFUSALS_MAX: u32 = 3;

/// The most messages of one node that are kept because an earlier one is missing.
const EARLY_MAX: usize = 64;

/// The most payload that those messages have together, in bytes.
const EARLY_BYTES_MAX: usize = 2 << 20;

/// Of how many nodes is remembered what they have sent; who was silent longest is forgotten first.
const SOURCES_MAX: usize = 1024;

/// Both ends of a node's reliable messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reliable {
    /// What this node waits for, by sequence number.
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    sources: Sources,
    /// The application reads too slowly: nothing is taken in for it.
    pub(crate) application_is_full: bool,
}

/// A message whose receipt has not come.
#[derive(Clone, Debug)]
struct Pending {
    operation: u64,
    destination: Id,
    payload: Bytes,
    attempts: u32,
    refusals: u32,
    /// The last attempt was refused.
    is_answered: bool,
    /// An attempt was not answered at all: it may have been delivered, and its receipt lost.
    is_doubtful: bool,
    due: Time,
    gives_up_at: Time,
    failure: RouteError,
}

impl Pending {
    /// Whether nobody has the destination's id, as far as can be known. Not where the message may have been delivered all the same, to
    /// a node that others take for dead by now: then it is tried to the end, for its receipt may yet come.
    fn is_refused(&self) -> bool {
        self.refusals >= REFUSALS_MAX && !self.is_doubtful
    }
}

impl Reliable {
    /// Sends a message, and says later what became of it.
    pub(crate) fn send(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        operation: u64,
        destination: Id,
        payload: Bytes,
    ) {
        let room = self.pending.len() < RELIABLE_PENDING_MAX
            && self.pending_bytes + payload.len() <= RELIABLE_PENDING_BYTES_MAX;
        let refusal = core.send_refusal(&payload).or((!room).then_some(RouteError::Overloaded));
        if let Some(reason) = refusal {
            return cx.out.push(Output::Sent { operation, result: Err(reason) });
        }
        self.pending_bytes += payload.len();
        let pending = Pending {
            operation,
            destination,
            payload,
            attempts: 0,
            refusals: 0,
            is_answered: false,
            is_doubtful: false,
            due: cx.now,
            gives_up_at: cx.now + RELIABLE_TIMEOUT,
            failure: RouteError::TimedOut,
        };
        let sequence = core.next_token();
        self.pending.insert(sequence, pending);
        self.attempt(core, cx, sequence);
    }

    fn attempt(&mut self, core: &mut Core, cx: &mut Context<'_>, sequence: u64) {
        let Some(destination) = self.pending.get(&sequence).map(|pending| pending.destination) else {
            return;
        };
        let mut earlier = self.pending.range(..sequence).rev();
        let after =
            earlier.find(|(_, earlier)| earlier.destination == destination).map(|(earlier, _)| *earlier);
        let Some(pending) = self.pending.get_mut(&sequence) else { return };
        let pause = (RESEND_MIN * (1 << pending.attempts.min(4))).min(RESEND_MAX);
        pending.is_doubtful |= pending.attempts > 0 && !pending.is_answered;
        pending.is_answered = false;
        pending.attempts += 1;
        pending.due = (cx.now + pause).min(pending.gives_up_at);
        core.set_service_timer(pending.due, sequence);
        let body = Body::Reliable { after: after.unwrap_or(0), payload: pending.payload.clone() };
        let route = core.new_route(sequence, destination, body);
        core.dispatch(cx, route);
    }

    /// It is time to send a message again, or to give it up.
    pub(crate) fn on_due(&mut self, core: &mut Core, cx: &mut Context<'_>, sequence: u64) {
        let Some(pending) = self.pending.get(&sequence) else { return };
        if cx.now >= pending.gives_up_at || pending.is_refused() {
            let failure = pending.failure;
            core.withdraw(sequence);
            self.end(core, cx, sequence, Err(failure));
        } else {
            self.attempt(core, cx, sequence);
        }
    }

    /// The destination has the message.
    pub(crate) fn on_receipt(&mut self, core: &mut Core, cx: &mut Context<'_>, from: Contact, sequence: u64) {
        if self.pending.get(&sequence).is_some_and(|pending| pending.destination == from.id) {
            self.end(core, cx, sequence, Ok(()));
        }
    }

    /// The message could not go on: it is tried again, unless nobody has that id, again and again. Even then its end waits until it
    /// would be tried next: a hop whose acknowledgement was lost has sent a second copy, perhaps round those who take the destination
    /// for dead (seed 286 of the swarm). For the same reason an attempt may be refused more than once, and counts as one refusal.
    pub(crate) fn on_refused(&mut self, sequence: u64, reason: RouteError) {
        let Some(pending) = self.pending.get_mut(&sequence) else { return };
        pending.failure = reason;
        pending.refusals = match reason {
            RouteError::NoSuchNode => pending.refusals + u32::from(!pending.is_answered),
            _ => 0,
        };
        pending.is_answered = true;
    }

    fn end(&mut self, core: &mut Core, cx: &mut Context<'_>, sequence: u64, result: Result<(), RouteError>) {
        let Some(pending) = self.pending.remove(&sequence) else { return };
        self.pending_bytes -= pending.payload.len();
        core.cancel_service_timer(pending.due, sequence);
        cx.out.push(Output::Sent { operation: pending.operation, result });
    }

    /// The node is no member any more: what it still waits for has failed.
    pub(crate) fn on_ended(&mut self, cx: &mut Context<'_>) {
        for (_, Pending { operation, .. }) in std::mem::take(&mut self.pending) {
            cx.out.push(Output::Sent { operation, result: Err(RouteError::NotMember) });
        }
        self.pending_bytes = 0;
    }

    /// A message has come: it is delivered if it is its turn, and acknowledged once it has been delivered.
    pub(crate) fn on_arrived(&mut self, core: &mut Core, cx: &mut Context<'_>, route: Route) {
        if route.key != core.me.id {
            return core.refuse(cx, &route, RouteError::NoSuchNode);
        }
        let Route { source, sequence, body: Body::Reliable { after, payload }, .. } = route else { return };
        let incoming = self.sources.of(source);
        if sequence <= incoming.delivered {
            return core.tell(cx, source, Message::Receipt { sequence });
        }
        if self.application_is_full {
            return;
        }
        let after = if core.planted.has(Bug::OutOfOrder) { 0 } else { after };
        incoming.keep(sequence, after, payload);
        while let Some((sequence, payload)) = incoming.next() {
            core.deliver(cx, &source, core.me.id, payload);
            core.tell(cx, source, Message::Receipt { sequence });
        }
    }
}

impl Reliable {
    pub(crate) fn digest(&self, me: Id, digest: &mut Digest) {
        let Reliable { pending, pending_bytes: _, sources, application_is_full } = self;
        digest.plain(application_is_full);
        digest.unordered(pending, |digest, (sequence, pending)| {
            let Pending {
                operation,
                destination,
                payload: _,
                attempts,
                refusals,
                is_answered,
                is_doubtful,
                due,
                gives_up_at,
                failure,
            } = pending;
            digest.token(me, *sequence);
            digest.id(*destination);
            digest.plain(&(operation, attempts, refusals, is_answered, is_doubtful, failure));
            digest.time(*due);
            digest.time(*gives_up_at);
        });
        digest.unordered(&sources.incoming, |digest, (source, incoming)| {
            let Incoming { delivered, early, early_bytes: _ } = incoming;
            digest.contact(*source);
            digest.token(source.id, *delivered);
            digest.unordered(early, |digest, (sequence, (after, payload))| {
                digest.token(source.id, *sequence);
                digest.token(source.id, *after);
                digest.plain(payload);
            });
        });
    }
}

/// What nodes have sent here.
#[derive(Clone, Debug, Default)]
struct Sources {
    incoming: BTreeMap<Contact, Incoming>,
    /// Who spoke when, most recently last.
    order: VecDeque<Contact>,
}

impl Sources {
    fn of(&mut self, source: Contact) -> &mut Incoming {
        if let Some(place) = self.order.iter().position(|other| *other == source) {
            self.order.remove(place);
        } else if self.order.len() >= SOURCES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.incoming.remove(&oldest);
        }
        self.order.push_back(source);
        self.incoming.entry(source).or_default()
    }
}

/// What one life of one node has sent here.
#[derive(Clone, Debug, Default)]
struct Incoming {
    /// The last message that was delivered.
    delivered: u64,
    /// Those that came before their turn, each with the one that it must follow.
    early: BTreeMap<u64, (u64, Bytes)>,
    early_bytes: usize,
}

impl Incoming {
    /// Keeps a message until it is its turn; without room it is dropped, and will come again. Those between it and the one that it
    /// must follow were given up by their source, which waits for none of them: they are forgotten, else they would hold
    /// up all that follows (seed 57 of the swarm).
    fn keep(&mut self, sequence: u64, after: u64, payload: Bytes) {
        self.early.retain(|early, (_, payload)| {
            let is_wanted = *early <= after || *early >= sequence;
            self.early_bytes -= if is_wanted { 0 } else { payload.len() };
            is_wanted
        });
        if let Some((known, _)) = self.early.get_mut(&sequence) {
            // Its source waits for fewer messages by now.
            *known = after.min(*known);
            return;
        }
        let is_next = after <= self.delivered;
        let room = self.early.len() < EARLY_MAX && self.early_bytes + payload.len() <= EARLY_BYTES_MAX;
        if is_next || room {
            self.early_bytes += payload.len();
            self.early.insert(sequence, (after, payload));
        }
    }

    /// Takes the message whose turn it is.
    fn next(&mut self) -> Option<(u64, Bytes)> {
        let entry = self.early.first_entry().filter(|entry| entry.get().0 <= self.delivered)?;
        let (sequence, (_, payload)) = entry.remove_entry();
        self.early_bytes -= payload.len();
        self.delivered = sequence;
        Some((sequence, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_source_has_given_up_does_not_hold_up_what_follows() {
        let mut incoming = Incoming::default();
        incoming.keep(11, 10, Bytes::from_static(b"early"));
        incoming.keep(14, 11, Bytes::from_static(b"follows it"));
        assert_eq!(incoming.next(), None, "the tenth is missing");
        incoming.keep(13, 0, Bytes::from_static(b"nothing before it is waited for"));
        assert_eq!(incoming.next().map(|(sequence, _)| sequence), Some(13));
        assert_eq!(incoming.next().map(|(sequence, _)| sequence), Some(14));
        assert_eq!((incoming.next(), incoming.early.len(), incoming.early_bytes), (None, 0, 0));
    }
}
