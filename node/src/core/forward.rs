//! Moving routed messages hop by hop: each hop is acknowledged, and one that is not goes to the next best node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::duplicates::TURNS_MAX;
use crate::core::effect::{Observation, Output, Phase, Upcall};
use crate::core::planted::Bug;
use crate::core::route::{Decision, NextHop, Way};
use crate::core::rtt::ACK_HELD_MAX;
use crate::core::timers::Timer;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{
    ACKS_MAX, Ack, Body, Contact, Found, HopVerdict, Message, MessageKind, Route, RouteError,
};
use crate::time::Time;

/// The most messages that a node has on their way to a next hop that has not acknowledged them.
pub const HOPS_PENDING_MAX: usize = 4096;

/// The most payload that those messages hold together, in bytes.
pub const HOPS_PENDING_BYTES_MAX: usize = 32 << 20;

/// How often one node sends one message on, to one node or several.
pub const TRIES_MAX: usize = 8;

/// How many of the hops that were given up are remembered.
const LATE_MAX: usize = 32;

/// How often the time-out of a node that is tried again is doubled.
const DOUBLINGS_MAX: usize = 2;

/// The most hops that a route may have on tables that need at most so many while they are right.
pub fn route_hops_max(hops_max: u32) -> u32 {
    4 * hops_max + 16
}

/// The messages that the next hop has not acknowledged, by hop number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct PendingHops {
    pub(super) hops: BTreeMap<u64, PendingHop>,
    pub(super) payload_bytes: usize,
    /// Hops that were given up, to whom, and when they were sent: their acknowledgements may yet tell how slow the way is.
    pub(super) late: VecDeque<(u64, Id, Time)>,
}

impl PendingHops {
    /// Whether there is room for one more message.
    fn has_room(&self, route: &Route) -> bool {
        self.hops.len() < HOPS_PENDING_MAX
            && self.payload_bytes + route.body.payload_bytes() <= HOPS_PENDING_BYTES_MAX
    }

    /// Whether a message waits for an acknowledgement.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.hops.is_empty()
    }

    /// How many messages wait for one node's acknowledgement, or began at it, and the bytes of their payload.
    pub(crate) fn load_of(&self, node: Id) -> (usize, usize) {
        let concerns =
            |pending: &&PendingHop| pending.next.to.id == node || pending.passage.route.source.id == node;
        let bytes = self.hops.values().filter(concerns).map(|hop| hop.passage.route.body.payload_bytes());
        bytes.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes))
    }

    fn insert(&mut self, hop: u64, pending: PendingHop) {
        self.payload_bytes += pending.passage.route.body.payload_bytes();
        self.hops.insert(hop, pending);
    }

    /// A hop is given up.
    fn note_late(&mut self, hop: u64, pending: &PendingHop) {
        if self.late.len() >= LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back((hop, pending.next.to.id, pending.sent_at));
    }

    /// When a hop that was given up had been sent to this node.
    fn take_late(&mut self, hop: u64, node: Id) -> Option<Time> {
        let place = self.late.iter().position(|late| (late.0, late.1) == (hop, node))?;
        self.late.remove(place).map(|(_, _, sent_at)| sent_at)
    }

    fn remove(&mut self, hop: u64) -> Option<PendingHop> {
        let pending = self.hops.remove(&hop)?;
        self.payload_bytes -= pending.passage.route.body.payload_bytes();
        Some(pending)
    }
}

/// A routed message at this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Passage {
    /// As it came here.
    pub(crate) route: Route,
    /// The node that it came from, unless it started here.
    pub(crate) from: Option<Id>,
    /// The nodes that it was sent to in vain, each as often as it was.
    pub(crate) tried: Vec<Id>,
}

impl Passage {
    /// A message that starts here.
    pub(crate) fn beginning(route: Route) -> Passage {
        Passage { route, from: None, tried: Vec::new() }
    }
}

/// A message that the next hop has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingHop {
    pub(super) passage: Passage,
    pub(super) next: NextHop,
    pub(super) sent_at: Time,
    pub(super) expires: Time,
    /// This node was late itself: it has waited longer already.
    pub(super) graced: bool,
}

/// Acknowledgements that wait for company on their way to one node: hop, when it came, what became of it.
pub(crate) type AckQueues = BTreeMap<Contact, Vec<(u64, Time, HopVerdict)>>;

impl Core {
    /// A routed message came over a link.
    pub(crate) fn on_route(&mut self, cx: &mut Context<'_>, from: Contact, route: Route) {
        let by_client = route.source.is_client() && route.source.id == from.id;
        let refusal = match self.phase {
            Phase::Member | Phase::Leaving if !self.hops.has_room(&route) => Some(HopVerdict::Overloaded),
            Phase::Member | Phase::Leaving if by_client => self.client_refusal(&route),
            Phase::Member | Phase::Leaving | Phase::Client => None,
            _ => Some(HopVerdict::NotMember),
        };
        let hop = route.hop;
        let is_lost =
            self.planted.has(Bug::BroadcastNotAcknowledged) && matches!(route.body, Body::Broadcast { .. });
        let verdict = match refusal {
            Some(verdict) => verdict,
            None if self.phase == Phase::Client => self.on_route_to_client(cx, route),
            None => {
                let verdict = self.judge_entry(route.entry);
                // A joiner is no member yet.
                if !by_client && !matches!(route.body, Body::Join) {
                    self.hear(cx, from);
                }
                // What a client sends begins its way here.
                let from = (!by_client).then_some(from.id);
                if self.duplicates.take_on(&route) || self.planted.has(Bug::DuplicatesBreed) {
                    self.direct(cx, Passage { route, from, tried: Vec::new() });
                }
                verdict
            }
        };
        if !is_lost {
            self.acknowledge(cx, from, hop, verdict);
        }
    }

    /// Whether the table entry that brought a message here was right: correction on use.
    fn judge_entry(&self, entry: Option<Id>) -> HopVerdict {
        let known = self.neighbours.predecessor().is_some();
        match entry.filter(|_| self.net.routing().correction_on_use) {
            Some(position) if known && !self.neighbours.is_mine(position) => HopVerdict::Stale,
            _ => HopVerdict::Taken,
        }
    }

    /// Sends a message that starts here on its way, or takes it in.
    pub(crate) fn dispatch(&mut self, cx: &mut Context<'_>, route: Route) {
        self.direct(cx, Passage::beginning(route));
    }

    pub(crate) fn direct(&mut self, cx: &mut Context<'_>, passage: Passage) {
        if self.phase == Phase::Client {
            return self.go_by_proxy(cx, passage);
        }
        if let Body::Multicast { .. } = &passage.route.body {
            return self.split_list(cx, &passage);
        }
        match self.decide(passage.route.key, &passage) {
            Decision::Mine if self.handed_over => match self.heir(&passage) {
                Some(next) => self.forward(cx, passage, next),
                None => self.refuse(cx, &passage.route, RouteError::NoNextHop),
            },
            Decision::Mine => match self.hop_to_client(&passage.route) {
                Some(Ok(next)) => self.forward(cx, passage, next),
                Some(Err(reason)) => self.refuse(cx, &passage.route, reason),
                None => self.arrive(cx, passage.route),
            },
            Decision::Stuck => self.refuse(cx, &passage.route, RouteError::NoNextHop),
            Decision::Forward(_) if self.is_exhausted(&passage.route) => {
                self.refuse(cx, &passage.route, RouteError::RouteExhausted);
            }
            Decision::Forward(next) => self.forward(cx, passage, next),
        }
    }

    /// Where a key goes that came as this message did.
    pub(crate) fn decide(&self, key: Id, passage: &Passage) -> Decision {
        let Passage { route, from, tried } = passage;
        let Route { hops, entry, backward, claimed, .. } = *route;
        self.router().decide(key, Way { hops, entry, backward, claimed, from: *from, excluded: tried })
    }

    /// Whether a message has taken all the hops that a route may have, or goes in circles.
    pub(crate) fn is_exhausted(&self, route: &Route) -> bool {
        u32::from(route.hops) >= route_hops_max(self.table.hops_max()) || route.turns > TURNS_MAX
    }

    /// The range has passed to the successor, but a message for it came here.
    pub(crate) fn heir(&self, passage: &Passage) -> Option<NextHop> {
        let Passage { route, tried, .. } = passage;
        let to = *self.neighbours.successors().iter().find(|heir| !tried.contains(&heir.id))?;
        let entry = Some(route.entry.unwrap_or(route.key));
        Some(NextHop { to, entry, backward: 0, claimed: route.claimed })
    }

    /// Each further try of the same node may take twice as long as the last.
    pub(crate) fn forward(&mut self, cx: &mut Context<'_>, passage: Passage, next: NextHop) {
        let Passage { route, tried, .. } = &passage;
        if !self.hops.has_room(route) {
            return self.refuse(cx, route, RouteError::Overloaded);
        }
        let again = tried.iter().filter(|id| **id == next.to.id).count();
        let timeout = self.round_trips.timeout(next.to.id) * (1 << again.min(DOUBLINGS_MAX));
        let hop = self.next_token();
        let onward = Route {
            hop,
            hops: route.hops.saturating_add(1),
            entry: next.entry,
            backward: next.backward,
            claimed: next.claimed,
            turns: self.turns_to(&passage, &next.to),
            ..route.clone()
        };
        match onward.body {
            Body::Broadcast { .. } => self.statistics.broadcast_messages += 1,
            Body::Multicast { .. } => self.statistics.multicast_messages += 1,
            _ => {}
        }
        let expires = cx.now + timeout;
        self.link_cache.touch(next.to.id);
        self.hops.insert(hop, PendingHop { passage, next, sent_at: cx.now, expires, graced: false });
        self.timers.set(expires, Timer::Hop(hop));
        self.send(cx, next.to, Message::Route(onward));
    }

    /// The message is where it was to go.
    pub(crate) fn arrive(&mut self, cx: &mut Context<'_>, route: Route) {
        if route.source != self.me {
            self.count(route.body.kind(), true);
        }
        match route.body {
            Body::Lookup { maintenance } => {
                let found = Found { responsible: self.me, hops: route.hops };
                self.answer(cx, route.source, route.sequence, maintenance, Ok(found));
            }
            Body::Join => self.on_join_request(cx, route),
            Body::Data { exact: true, .. } if route.key != self.me.id => {
                self.refuse(cx, &route, RouteError::NoSuchNode);
            }
            Body::Data { payload, .. } => {
                let again = self.planted.has(Bug::DuplicateDelivered);
                if self.delivered.is_first(&route.source, route.sequence) || again {
                    self.deliver(cx, &route.source, route.key, payload);
                }
            }
            Body::Reliable { .. } | Body::Dictionary(_) => self.upcalls.push_back(Upcall::Arrived(route)),
            Body::Broadcast { .. } => self.on_part(cx, route),
            Body::Reply { incarnation, reply } if route.key == self.me.id => {
                self.on_reply(cx, route.source, incarnation, reply);
            }
            // Whoever waits for it asks again.
            Body::Reply { .. } => {}
            Body::Change { last, gone, heir } => self.on_change(cx, &route, last, gone, heir),
            // Its destinations are decided on one by one.
            Body::Multicast { .. } => {}
        }
    }

    /// Tells the source of a message why it goes no further.
    pub(crate) fn refuse(&mut self, cx: &mut Context<'_>, route: &Route, reason: RouteError) {
        match &route.body {
            Body::Data { .. } | Body::Broadcast { .. } => {
                self.undeliverable(cx, route.source, &[route.key], reason);
            }
            Body::Multicast { destinations, .. } => {
                self.undeliverable(cx, route.source, destinations, reason);
            }
            Body::Lookup { .. } | Body::Join | Body::Reliable { .. } | Body::Dictionary(_) => {
                let maintenance = route.body.kind() == MessageKind::Control;
                self.answer(cx, route.source, route.sequence, maintenance, Err(reason));
            }
            // Nobody waits for it: whoever does asks again, and checks will find what a change would have told.
            Body::Reply { .. } | Body::Change { .. } => {}
        }
    }

    fn answer(
        &mut self,
        cx: &mut Context<'_>,
        source: Contact,
        sequence: u64,
        maintenance: bool,
        result: Result<Found, RouteError>,
    ) {
        if source == self.me {
            self.on_answer(cx, sequence, result);
        } else {
            self.send(cx, source, Message::Answer { sequence, maintenance, result });
        }
    }

    /// Puts an acknowledgement in its queue. A refusal goes at once, since the message waits for it.
    fn acknowledge(&mut self, cx: &mut Context<'_>, to: Contact, hop: u64, verdict: HopVerdict) {
        if self.acks.is_empty() {
            self.timers.set(cx.now + ACK_HELD_MAX, Timer::Acks);
        }
        let queue = self.acks.entry(to).or_default();
        queue.push((hop, cx.now, verdict));
        if queue.len() >= ACKS_MAX || matches!(verdict, HopVerdict::NotMember | HopVerdict::Overloaded) {
            self.flush_acks_to(cx, to);
        }
    }

    /// Sends the acknowledgements that wait for one node.
    pub(crate) fn flush_acks_to(&mut self, cx: &mut Context<'_>, to: Contact) {
        let Some(queue) = self.acks.remove(&to) else { return };
        if self.acks.is_empty() {
            self.timers.clear(Timer::Acks);
        }
        let held = |since: Time| u32::try_from(cx.now.since(since).as_micros()).unwrap_or(u32::MAX);
        let acks = queue.iter().map(|(hop, since, verdict)| Ack {
            hop: *hop,
            held_micros: held(*since),
            verdict: *verdict,
        });
        let message = Message::Acks(acks.collect());
        self.transmit(cx, to, message);
    }

    /// Sends all acknowledgements.
    pub(crate) fn flush_acks(&mut self, cx: &mut Context<'_>) {
        while let Some(to) = self.acks.keys().next().copied() {
            self.flush_acks_to(cx, to);
        }
    }

    /// The next hop has spoken.
    pub(crate) fn on_acks(&mut self, cx: &mut Context<'_>, from: Contact, acks: &[Ack]) {
        for ack in acks {
            if matches!(ack.verdict, HopVerdict::NotMember | HopVerdict::Overloaded) {
                self.on_join_not_passed_on(cx, from);
            }
            let held = Duration::from_micros(u64::from(ack.held_micros));
            if self.hops.hops.get(&ack.hop).is_none_or(|pending| pending.next.to.id != from.id) {
                if let Some(sent_at) = self.hops.take_late(ack.hop, from.id) {
                    self.round_trips.observe(from.id, cx.now.since(sent_at).saturating_sub(held));
                }
                continue;
            }
            let Some(pending) = self.take_hop(ack.hop) else { continue };
            let latency = cx.now.since(pending.sent_at).saturating_sub(held);
            self.round_trips.observe(from.id, latency);
            match ack.verdict {
                HopVerdict::Taken => cx.out.push(Output::Observe(Observation::HopLatency(latency))),
                HopVerdict::Stale => {
                    cx.out.push(Output::Observe(Observation::HopLatency(latency)));
                    self.on_stale_entry(cx, pending.next.entry, from);
                }
                HopVerdict::NotMember => {
                    self.drop_contact(cx, from);
                    self.try_next(cx, pending);
                }
                HopVerdict::Overloaded => self.try_next(cx, pending),
            }
        }
    }

    /// The next hop has not acknowledged in time: it is asked whether it lives, and the message goes on elsewhere. Not so
    /// where it is the predecessor: every other way leads back here, so the message waits until the predecessor has answered, or
    /// is taken for dead and its range is this node's.
    ///
    /// `grace`: until when the acknowledgement may still come, since this node was late.
    pub(crate) fn on_hop_timeout(&mut self, cx: &mut Context<'_>, hop: u64, grace: Option<Time>) {
        if let Some(pending) = self.hops.hops.get_mut(&hop)
            && let Some(grace) = grace.filter(|_| !pending.graced)
        {
            (pending.graced, pending.expires) = (true, grace);
            return self.timers.set(grace, Timer::Hop(hop));
        }
        let Some(mut pending) = self.take_hop(hop) else { return };
        self.hops.note_late(hop, &pending);
        let to = pending.next.to;
        self.suspect(cx, to);
        let tries = pending.passage.tried.len();
        if self.neighbours.predecessor() == Some(to) && tries + 1 < TRIES_MAX {
            pending.passage.tried.push(to.id);
            self.forward(cx, pending.passage, pending.next);
        } else {
            self.try_next(cx, pending);
        }
    }

    /// Messages on their way to a node that is gone go on elsewhere.
    pub(crate) fn redirect_hops(&mut self, cx: &mut Context<'_>, gone: &Contact) {
        let hops: Vec<u64> =
            self.hops.hops.iter().filter(|(_, p)| p.next.to == *gone).map(|(hop, _)| *hop).collect();
        for hop in hops {
            if let Some(pending) = self.take_hop(hop) {
                self.try_next(cx, pending);
            }
        }
    }

    /// A message that started here is not to be sent on any more, whatever becomes of its last hop.
    pub(crate) fn withdraw(&mut self, sequence: u64) {
        let started_here = |route: &Route| route.source == self.me && route.sequence == sequence;
        let hops = self.hops.hops.iter().filter(|(_, pending)| started_here(&pending.passage.route));
        for hop in hops.map(|(hop, _)| *hop).collect::<Vec<_>>() {
            self.take_hop(hop);
        }
    }

    fn try_next(&mut self, cx: &mut Context<'_>, pending: PendingHop) {
        let mut passage = pending.passage;
        if matches!(passage.route.body, Body::Broadcast { .. }) && self.planted.has(Bug::BroadcastPartLost) {
            return;
        }
        passage.tried.push(pending.next.to.id);
        if passage.tried.len() >= TRIES_MAX {
            self.refuse(cx, &passage.route, RouteError::NoNextHop);
        } else {
            self.direct(cx, passage);
        }
    }

    fn take_hop(&mut self, hop: u64) -> Option<PendingHop> {
        let pending = self.hops.remove(hop)?;
        self.timers.cancel(pending.expires, Timer::Hop(hop));
        Some(pending)
    }
}
