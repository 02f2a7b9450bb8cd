//! Requests to single nodes, and what follows when one does not answer: it is taken for dead, taken out of the tables, and
//! what was on its way to it goes elsewhere.

use std::time::Duration;

use crate::core::effect::{Event, Phase, Upcall};
use crate::core::planted::Bug;
use crate::core::rtt::TIMEOUT_MAX;
use crate::core::timers::Timer;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::client::ClientTalk;
use crate::message::{Contact, Message};
use crate::time::Time;

/// How often a request is sent before its receiver is taken for dead; each time-out is twice as long as the last.
pub(crate) const REQUEST_ATTEMPTS_MAX: u32 = 3;

/// How long after its last attempt a request has ended, unless it is answered or its receiver is heard.
pub(crate) const REQUEST_ENDS_WITHIN: Duration = TIMEOUT_MAX.saturating_mul(1 << (REQUEST_ATTEMPTS_MAX - 1));

/// How often a node is asked that does not answer, but is heard meanwhile: it lives, and what is between them loses much.
const REQUEST_ATTEMPTS_HEARD_MAX: u32 = 6;

/// The most requests that wait for an answer.
const REQUESTS_PENDING_MAX: usize = 256;

/// A request that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) to: Contact,
    pub(crate) purpose: Purpose,
    pub(crate) sent_at: Time,
    pub(crate) attempts: u32,
    /// How long this attempt may take.
    pub(super) timeout: Duration,
    pub(super) expires: Time,
    /// This node was late itself: it has waited longer already.
    pub(super) graced: bool,
    /// It is late, or something else is that the node should have answered.
    pub(super) suspect: bool,
    /// The node has said something else since it was asked last.
    pub(super) heard: bool,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Stabilise, step 1: the successor's neighbours.
    Successor,
    /// Stabilise, step 2: does the successor's predecessor live, and may it become the successor?
    Candidate,
    /// Rectify: does the predecessor live, while another node claims its place?
    Predecessor {
        /// The one that claims it.
        claimant: Contact,
    },
    /// Does it live?
    Probe,
    /// Is a neighbour that was taken for dead back?
    Return,
    /// A client's: is its proxy there?
    Proxy,
    /// Is it still the right finger for this position?
    Finger {
        /// The finger's index.
        index: usize,
        /// Its position.
        target: Id,
    },
    /// Which nodes stand beside a finger?
    Window {
        /// The place.
        place: usize,
    },
    /// How long is the round trip to a node beside a finger?
    Sounding {
        /// The place.
        place: usize,
        /// The node's own id: it answers for that.
        target: Id,
        /// It has answered before, so that a link stands.
        warm: bool,
    },
}

impl Purpose {
    /// Whether the answer may change this node's neighbours: until it comes, the node answers "busy".
    pub(crate) fn is_step(self) -> bool {
        matches!(self, Purpose::Successor | Purpose::Candidate | Purpose::Predecessor { .. })
    }

    fn message(self, token: u64) -> Message {
        match self {
            Purpose::Finger { target, .. } | Purpose::Sounding { target, .. } => {
                Message::Check { token, target }
            }
            Purpose::Proxy => Message::Client(ClientTalk::Admit { sequence: token, as_client: true }),
            _ => Message::Query { token },
        }
    }
}

impl Core {
    /// Asks a node for something. Beyond [`REQUESTS_PENDING_MAX`] nothing is asked: a later round will.
    pub(crate) fn request(&mut self, cx: &mut Context<'_>, to: Contact, purpose: Purpose) {
        if self.requests.len() >= REQUESTS_PENDING_MAX && !purpose.is_step() {
            return;
        }
        let token = self.next_token();
        let timeout = self.round_trips.timeout(to.id);
        let expires = cx.now + timeout;
        let request = Request {
            to,
            purpose,
            sent_at: cx.now,
            attempts: 1,
            timeout,
            expires,
            graced: false,
            suspect: false,
            heard: false,
        };
        self.requests.insert(token, request);
        self.timers.set(expires, Timer::Request(token));
        self.send(cx, to, purpose.message(token));
    }

    /// Asks a node whether it lives, unless it is being asked something already.
    pub(crate) fn probe(&mut self, cx: &mut Context<'_>, to: Contact) {
        if !self.requests.values().any(|request| request.to == to) {
            self.request(cx, to, Purpose::Probe);
        }
    }

    /// A node is late with an acknowledgement: it is asked whether it lives, and routes avoid it meanwhile.
    pub(crate) fn suspect(&mut self, cx: &mut Context<'_>, node: Contact) {
        if !self.suspects().contains(&node) {
            self.round_trips.back_off(node.id);
        }
        self.probe(cx, node);
        for request in self.requests.values_mut().filter(|request| request.to == node) {
            request.suspect = true;
        }
    }

    /// The nodes that are late with an answer, in the life that was asked: another one may answer well (seed 101 of the swarm).
    pub(crate) fn suspects(&self) -> Vec<Contact> {
        self.requests.values().filter(|request| request.suspect).map(|request| request.to).collect()
    }

    /// Whether a step of the ring's protocol waits for an answer.
    pub(crate) fn is_in_step(&self) -> bool {
        self.requests.values().any(|request| request.purpose.is_step())
    }

    /// A node has said something: it lives, whatever becomes of its answers.
    pub(crate) fn note_life(&mut self, from: Contact) {
        for request in self.requests.values_mut().filter(|request| request.to == from) {
            request.heard = true;
        }
    }

    /// Takes the request that `from` answers, if there is one.
    pub(crate) fn take_request(&mut self, cx: &Context<'_>, from: Contact, token: u64) -> Option<Request> {
        if self.requests.get(&token)?.to != from {
            return None;
        }
        let request = self.requests.remove(&token)?;
        self.timers.cancel(request.expires, Timer::Request(token));
        // Where a later attempt was answered too, the time since the first errs on the safe side.
        self.round_trips.observe(from.id, cx.now.since(request.sent_at));
        Some(request)
    }

    /// A request was not answered in time. `grace`: until when the answer may still come, since this node was late.
    pub(crate) fn on_request_timeout(&mut self, cx: &mut Context<'_>, token: u64, grace: Option<Time>) {
        let Some(request) = self.requests.get_mut(&token) else { return };
        if let Some(grace) = grace.filter(|_| !request.graced) {
            (request.graced, request.expires) = (true, grace);
            return self.timers.set(grace, Timer::Request(token));
        }
        let to = request.to;
        let lives = std::mem::take(&mut request.heard);
        if request.attempts >= if lives { REQUEST_ATTEMPTS_HEARD_MAX } else { REQUEST_ATTEMPTS_MAX } {
            return self.declare_dead(cx, to);
        }
        request.attempts += 1;
        if request.attempts <= REQUEST_ATTEMPTS_MAX {
            request.timeout *= 2;
        }
        request.expires = cx.now + request.timeout;
        self.timers.set(request.expires, Timer::Request(token));
        let message = request.purpose.message(token);
        self.send(cx, to, message);
        self.suspect(cx, to);
        self.probe_heir(cx, to);
    }

    /// Where a successor is late, the one after it is asked too: a host that goes dark takes several neighbours with it.
    fn probe_heir(&mut self, cx: &mut Context<'_>, late: Contact) {
        let mut successors = self.neighbours.successors().iter().skip_while(|contact| **contact != late);
        if let Some(heir) = successors.nth(1).copied() {
            self.probe(cx, heir);
        }
    }

    /// The last link to a node is gone. One that broke off is taken for dead at once. One that was closed in order was not
    /// needed at the other end: only the nearest neighbours are asked whether they have left, others when they are used next
    /// (else a node with many links would be dialled again by all whom it closes).
    pub(crate) fn on_link_down(&mut self, cx: &mut Context<'_>, contact: Contact, orderly: bool) {
        if !orderly {
            return self.declare_dead(cx, contact);
        }
        if self.clients.has_link(&contact) || self.proxy.present == Some(contact) {
            return self.drop_contact(cx, contact);
        }
        self.acks.remove(&contact);
        self.link_cache.forget(contact.id);
        self.redirect_hops(cx, &contact);
        let nearest = [self.neighbours.predecessor(), self.neighbours.successor()];
        if nearest.contains(&Some(contact)) {
            self.probe(cx, contact);
        }
    }

    /// Whether the link to a node is kept though nothing goes over it.
    pub(crate) fn keeps_link_to(&self, contact: &Contact) -> bool {
        self.is_neighbour(contact)
            || self.clients.has_link(contact)
            || self.proxy.present.is_some_and(|proxy| proxy == *contact)
    }

    /// Whether a node stands in one of the tables.
    pub(crate) fn is_neighbour(&self, contact: &Contact) -> bool {
        self.neighbours.contains(contact)
            || self.table.contains(contact)
            || self.nearby.contains(contact)
            || self.link_cache.contains(contact)
    }

    /// A node does not answer, cannot be reached, or its link broke.
    pub(crate) fn declare_dead(&mut self, cx: &mut Context<'_>, contact: Contact) {
        if self.phase == Phase::Joining {
            return self.on_join_peer_lost(cx, contact);
        }
        if self.phase == Phase::Client {
            self.on_join_peer_lost(cx, contact);
        }
        if self.is_neighbour(&contact) {
            self.statistics.suspicions += 1;
            cx.event(Event::Suspected(contact));
        }
        if self.neighbours.contains(&contact) && !self.planted.has(Bug::DepartedForgotten) {
            self.departed.remember(contact, cx.now);
        }
        if self.neighbours.predecessor() == Some(contact) && self.net.routing().correction_on_change {
            self.finger_upkeep.failed_predecessor = Some(contact);
        }
        self.round_trips.forget(contact.id);
        self.upcalls.push_back(Upcall::Lost(contact));
        self.drop_contact(cx, contact);
    }

    /// A node is no member any more: it leaves the tables, and what was on its way to it goes elsewhere.
    pub(crate) fn drop_contact(&mut self, cx: &mut Context<'_>, contact: Contact) {
        self.drop_client(cx, &contact);
        let was_proxy = self.lose_proxy(&contact);
        let old_successor = self.neighbours.successor();
        let (was_predecessor, was_successor) = self.neighbours.remove(&contact);
        let fingers = self.table.remove(&contact);
        self.nearby.remove(&contact);
        self.link_cache.forget(contact.id);
        if was_predecessor {
            self.after_predecessor_change(cx);
        }
        if was_successor {
            self.after_successors_change(cx, old_successor);
        }
        for index in fingers {
            self.after_finger_change(cx, index);
            self.refresh_finger(cx, index);
        }
        self.acks.remove(&contact);
        let failed: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| request.to == contact)
            .map(|(token, _)| *token)
            .collect();
        for token in failed {
            if let Some(request) = self.requests.remove(&token) {
                self.timers.cancel(request.expires, Timer::Request(token));
                self.on_request_failed(cx, request.purpose);
            }
        }
        self.redirect_hops(cx, &contact);
        if was_proxy {
            self.seek_proxy(cx, None);
        }
        if was_successor && self.neighbours.successors().is_empty() {
            self.find_any_successor(cx);
        }
        if was_predecessor || was_successor {
            self.stabilise_soon(cx);
        }
    }

    fn on_request_failed(&mut self, cx: &mut Context<'_>, purpose: Purpose) {
        match purpose {
            Purpose::Successor => self.stabilise_soon(cx),
            Purpose::Candidate => self.notify_successor(cx),
            Purpose::Predecessor { claimant } => {
                if self.neighbours.is_closer_predecessor(claimant.id) {
                    self.follow_predecessor(cx, Some(claimant), None);
                }
            }
            Purpose::Window { place } => self.nearby.retry(place),
            Purpose::Probe
            | Purpose::Return
            | Purpose::Proxy
            | Purpose::Finger { .. }
            | Purpose::Sounding { .. } => {}
        }
    }

    /// The whole successor list is gone: the nearest node that is known otherwise is the way back into the ring.
    fn find_any_successor(&mut self, cx: &mut Context<'_>) {
        let (ring, me) = (self.net.ring(), self.me.id);
        let known = self.table.contacts().iter().copied().chain(self.neighbours.predecessor());
        match known.min_by_key(|contact| ring.distance(me, contact.id)) {
            Some(nearest) => self.adopt_successors(cx, nearest, &[]),
            None => {
                self.neighbours.take_whole_ring();
                cx.event(Event::Alone);
                self.leave_alone(cx);
            }
        }
    }
}
