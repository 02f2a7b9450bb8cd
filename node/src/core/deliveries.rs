//! The application's messages: sent best effort, delivered once.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::core::effect::{Delivery, Event, Output, Phase};
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{Body, Contact, Message, PAYLOAD_BYTES_MAX, Route, RouteError, UNDELIVERABLE_MAX};

/// How many messages are remembered, to deliver none twice.
const MESSAGES_REMEMBERED: usize = 1024;

/// The identities of the messages that were delivered last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Delivered {
    /// For each, how far after this node a broadcast has been passed on; 0 for others.
    pub(super) reached: BTreeMap<Identity, u64>,
    pub(super) order: VecDeque<Identity>,
}

/// A message's source, its incarnation, and the number that it gave the message.
type Identity = (Id, u64, u64);

impl Delivered {
    /// How far this message had come when it was seen before.
    pub(crate) fn reached(&self, source: &Contact, sequence: u64) -> Option<u64> {
        self.reached.get(&(source.id, source.incarnation, sequence)).copied()
    }

    /// Whether this message is seen for the first time; it is remembered.
    pub(crate) fn is_first(&mut self, source: &Contact, sequence: u64) -> bool {
        let first = self.reached(source, sequence).is_none();
        if first {
            self.remember(source, sequence, 0);
        }
        first
    }

    /// Remembers that this message has been seen, and how far it has come.
    pub(crate) fn remember(&mut self, source: &Contact, sequence: u64, reached: u64) {
        let identity = (source.id, source.incarnation, sequence);
        if self.reached.insert(identity, reached).is_some() {
            return;
        }
        self.order.push_back(identity);
        if self.order.len() > MESSAGES_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.reached.remove(&oldest);
        }
    }
}

impl Core {
    /// Sends an application's message on its way.
    pub(crate) fn send_data(&mut self, cx: &mut Context<'_>, destination: Id, exact: bool, payload: Bytes) {
        if let Some(reason) = self.send_refusal(&payload) {
            return cx.event(Event::Undelivered { destination, reason });
        }
        let sequence = self.next_token();
        let route = self.new_route(sequence, destination, Body::Data { exact, payload });
        self.dispatch(cx, route);
    }

    /// Why this node cannot send a message now, if it cannot.
    pub(crate) fn send_refusal(&self, payload: &Bytes) -> Option<RouteError> {
        match self.phase {
            Phase::Member | Phase::Leaving if payload.len() <= PAYLOAD_BYTES_MAX => None,
            Phase::Member | Phase::Leaving => Some(RouteError::PayloadTooLarge),
            _ => Some(RouteError::NotMember),
        }
    }

    /// The application gets a message.
    pub(crate) fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        source: &Contact,
        destination: Id,
        payload: Bytes,
    ) {
        self.statistics.application_messages += 1;
        cx.out.push(Output::Deliver(Delivery { source: source.id, destination, payload }));
    }

    /// A message of the application will not reach some of its destinations: its source is told.
    pub(crate) fn undeliverable(
        &mut self,
        cx: &mut Context<'_>,
        source: Contact,
        destinations: &[Id],
        reason: RouteError,
    ) {
        if source == self.me {
            return self.on_undeliverable(cx, destinations, reason);
        }
        for destinations in destinations.chunks(UNDELIVERABLE_MAX) {
            self.send(cx, source, Message::Undeliverable { destinations: destinations.to_vec(), reason });
        }
    }

    pub(crate) fn on_undeliverable(&mut self, cx: &mut Context<'_>, destinations: &[Id], reason: RouteError) {
        for destination in destinations.iter().copied() {
            cx.event(Event::Undelivered { destination, reason });
        }
    }

    /// A message that starts here.
    pub(crate) fn new_route(&self, sequence: u64, key: Id, body: Body) -> Route {
        let attempt = self.last_token.wrapping_sub(sequence) as u32;
        Route::new(self.me, sequence, attempt, key, body)
    }
}
