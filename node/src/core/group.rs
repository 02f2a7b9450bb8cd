//! Messages to many: broadcast to all members, multicast to a list, and the nearest successors. Each way is walked once: a
//! node passes on one message for each part that begins at one of its contacts (El-Ansary, Alima, Brand & Haridi 2003, on
//! broadcast by intervals; overlay paper's services).
//!
//! A part of a broadcast is addressed to its first id, so its first member takes it, whichever that is by now: a part whose
//! head does not acknowledge goes to the next node in it by the same rules as any routed message.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::core::effect::{Event, Phase};
use crate::core::forward::Passage;
use crate::core::route::{Decision, NextHop};
use crate::core::{Context, Core};
use crate::id::{Id, Ring};
use crate::message::{Body, Contact, DESTINATIONS_MAX, Route, RouteError};

impl Core {
    /// Sends to every other member.
    pub(crate) fn broadcast(&mut self, cx: &mut Context<'_>, payload: Bytes) {
        let (ring, me) = (self.net.ring(), self.me);
        if let Some(reason) = self.send_refusal(&payload) {
            return cx.event(Event::Undelivered { destination: me.id, reason });
        }
        let sequence = self.next_token();
        let (first, last) = (ring.add(me.id, 1), ring.sub(me.id, 1));
        self.delivered.remember(&me, sequence, ring.distance(me.id, last));
        let route = self.new_route(sequence, first, Body::Broadcast { last, payload: payload.clone() });
        if self.phase == Phase::Client {
            return self.dispatch(cx, route);
        }
        self.spread(cx, &route, first, last);
        self.spread_to_clients(cx, &route, &payload);
    }

    /// Sends to the nodes with these ids; to each once.
    pub(crate) fn multicast(&mut self, cx: &mut Context<'_>, mut destinations: Vec<Id>, payload: Bytes) {
        destinations.sort_unstable();
        destinations.dedup();
        let refusal = self.send_refusal(&payload);
        let too_many = (destinations.len() > DESTINATIONS_MAX).then_some(RouteError::TooManyDestinations);
        if let Some(reason) = refusal.or(too_many) {
            return self.on_undeliverable(cx, &destinations, reason);
        }
        let Some(first) = destinations.first().copied() else { return };
        let sequence = self.next_token();
        let route = self.new_route(sequence, first, Body::Multicast { destinations, payload });
        self.dispatch(cx, route);
    }

    /// Sends to the `count` nearest successors; to all of the list where it is shorter.
    pub(crate) fn send_to_successors(&mut self, cx: &mut Context<'_>, count: usize, payload: &Bytes) {
        if let Some(reason) = self.send_refusal(payload) {
            return cx.event(Event::Undelivered { destination: self.me.id, reason });
        }
        for to in self.successors().into_iter().take(count) {
            let sequence = self.next_token();
            let route = self.new_route(sequence, to.id, Body::Data { exact: true, payload: payload.clone() });
            if self.phase == Phase::Client {
                self.dispatch(cx, route);
                continue;
            }
            let next = NextHop::by_entry(to, to.id);
            self.forward(cx, Passage::beginning(route), next);
        }
    }

    /// A part of a broadcast, `[key, last]`, has come to its first member, or, where it has none, to the one after it.
    pub(crate) fn on_part(&mut self, cx: &mut Context<'_>, route: Route) {
        let Body::Broadcast { last, payload } = &route.body else { return };
        let (last, payload) = (*last, payload.clone());
        let (ring, me) = (self.net.ring(), self.me.id);
        if ring.distance(route.key, me) > ring.distance(route.key, last) {
            return;
        }
        let reach = ring.distance(me, last);
        let reached = self.delivered.reached(&route.source, route.sequence);
        if reached.is_some_and(|reached| reached >= reach) {
            return;
        }
        self.delivered.remember(&route.source, route.sequence, reach);
        if reached.is_none() {
            self.deliver(cx, &route.source, me, payload.clone());
            self.spread_to_clients(cx, &route, &payload);
        }
        if reach > 0 {
            // What it passed on before, for a part that was smaller, it does not pass on again.
            self.spread(cx, &route, ring.add(me, reached.unwrap_or(0) + 1), last);
        }
    }

    /// Passes a broadcast on to all members in `[first, last]`, which begins after this node.
    fn spread(&mut self, cx: &mut Context<'_>, route: &Route, first: Id, last: Id) {
        let Body::Broadcast { payload, .. } = &route.body else { return };
        let suspects = self.suspects();
        let after_me = self.net.ring().add(self.me.id, 1);
        let known = self.table.contacts().iter().copied().chain(self.neighbours.successor());
        for part in parts(self.net.ring(), self.me.id, known, first, last) {
            let body = Body::Broadcast { last: part.last, payload: payload.clone() };
            let onward = Route {
                entry: None,
                claimed: false,
                backward: 0,
                turns: route.turns.min(1),
                ..route.carrying(part.first, body)
            };
            let head = part.head.filter(|head| !suspects.contains(head));
            match head {
                Some(to) => {
                    let claimed = part.first == after_me;
                    let next = NextHop { claimed, ..NextHop::by_entry(to, part.first) };
                    self.forward(cx, Passage::beginning(onward), next);
                }
                None => self.dispatch(cx, onward),
            }
        }
    }

    /// The nodes after this one, nearest first: a client's are its proxy and those after that.
    pub(crate) fn successors(&self) -> Vec<Contact> {
        if self.phase == Phase::Client { self.proxies() } else { self.neighbours.successors().to_vec() }
    }

    /// Each destination of a list goes where it would go alone; those that go the same way go together.
    pub(crate) fn split_list(&mut self, cx: &mut Context<'_>, passage: &Passage) {
        let Passage { route, from, tried } = passage;
        let Body::Multicast { destinations, payload } = &route.body else { return };
        let split = Split::new(destinations, |destination| match self.decide(destination, passage) {
            Decision::Mine if self.handed_over => self.heir(passage).ok_or(Some(RouteError::NoNextHop)),
            Decision::Mine if destination == self.me.id => Err(None),
            Decision::Mine => self.hop_to(destination).unwrap_or(Err(RouteError::NoSuchNode)).map_err(Some),
            Decision::Stuck => Err(Some(RouteError::NoNextHop)),
            Decision::Forward(_) if self.is_exhausted(&passage.route) => {
                Err(Some(RouteError::RouteExhausted))
            }
            Decision::Forward(next) => Ok(next),
        });
        for (reason, destinations) in split.refused {
            self.undeliverable(cx, route.source, &destinations, reason);
        }
        if split.mine && self.delivered.is_first(&route.source, route.sequence) {
            self.deliver(cx, &route.source, self.me.id, payload.clone());
        }
        for (next, destinations) in split.onward.into_values() {
            let key = destinations[0];
            let body = Body::Multicast { destinations, payload: payload.clone() };
            let route = route.carrying(key, body);
            self.forward(cx, Passage { route, from: *from, tried: tried.clone() }, next);
        }
    }
}

/// A part of the ring, and the known node that it begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first: Id,
    pub(crate) last: Id,
    pub(crate) head: Option<Contact>,
}

/// Splits `[first, last]` at the nodes that `me` knows in it. The first part begins at `first` itself, whoever is there. Of a
/// range that begins right after `me` nobody can be before the first known node; where none is known, nobody is in it.
pub(crate) fn parts(
    ring: Ring,
    me: Id,
    known: impl Iterator<Item = Contact>,
    first: Id,
    last: Id,
) -> Vec<Part> {
    let is_within = |contact: &Contact| ring.distance(first, contact.id) <= ring.distance(first, last);
    let heads: BTreeMap<u64, Contact> =
        known.filter(is_within).map(|contact| (ring.distance(first, contact.id), contact)).collect();
    let begins_after_me = first == ring.add(me, 1);
    let mut parts: Vec<Part> = Vec::with_capacity(heads.len() + 1);
    for (distance, head) in heads {
        match parts.last_mut() {
            Some(before) => before.last = ring.sub(head.id, 1),
            None if !begins_after_me && distance > 0 => {
                parts.push(Part { first, last: ring.sub(head.id, 1), head: None });
            }
            None => {}
        }
        let first = if parts.is_empty() { first } else { head.id };
        parts.push(Part { first, last, head: Some(head) });
    }
    if parts.is_empty() && !begins_after_me {
        parts.push(Part { first, last, head: None });
    }
    parts
}

/// Where the destinations of a list go next.
#[derive(Debug, Default)]
pub(crate) struct Split {
    /// This node is one of them.
    pub(crate) mine: bool,
    /// By next hop.
    pub(crate) onward: BTreeMap<Contact, (NextHop, Vec<Id>)>,
    pub(crate) refused: BTreeMap<RouteError, Vec<Id>>,
}

impl Split {
    /// `decide` tells a destination's next hop, or `Err(None)` for this node itself, or why it cannot go on.
    pub(crate) fn new(
        destinations: &[Id],
        mut decide: impl FnMut(Id) -> Result<NextHop, Option<RouteError>>,
    ) -> Split {
        let mut split = Split::default();
        for destination in destinations.iter().copied() {
            match decide(destination) {
                Ok(next) => split.onward.entry(next.to).or_insert((next, Vec::new())).1.push(destination),
                Err(None) => split.mine = true,
                Err(Some(reason)) => split.refused.entry(reason).or_default().push(destination),
            }
        }
        split
    }
}
