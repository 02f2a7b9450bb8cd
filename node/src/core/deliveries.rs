//! The application's messages: sent best effort, delivered once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::core::effect::{Delivery, Event, Output, Phase};
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{Body, Contact, PAYLOAD_BYTES_MAX, Route, RouteError};

/// How many messages are remembered: of those delivered, to deliver none twice; of those sent, to say which one was refused.
const MESSAGES_REMEMBERED: usize = 1024;

/// The identities of the messages that were delivered last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Delivered {
    seen: BTreeSet<(Id, u64, u64)>,
    order: VecDeque<(Id, u64, u64)>,
}

impl Delivered {
    /// Whether this is the first time that this message is seen.
    fn first_time(&mut self, source: &Contact, sequence: u64) -> bool {
        let identity = (source.id, source.incarnation, sequence);
        if !self.seen.insert(identity) {
            return false;
        }
        self.order.push_back(identity);
        if self.order.len() > MESSAGES_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

/// Messages of the application that started here: which destination a late refusal speaks of. Bounded: the oldest go first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sent(BTreeMap<u64, Id>);

impl Sent {
    fn remember(&mut self, sequence: u64, destination: Id) {
        self.0.insert(sequence, destination);
        if self.0.len() > MESSAGES_REMEMBERED {
            self.0.pop_first();
        }
    }

    pub(crate) fn take(&mut self, sequence: u64) -> Option<Id> {
        self.0.remove(&sequence)
    }
}

impl Core {
    /// Sends an application's message on its way.
    pub(crate) fn send_data(&mut self, cx: &mut Context<'_>, destination: Id, exact: bool, payload: Bytes) {
        let reason = match self.phase {
            Phase::Member | Phase::Leaving if payload.len() <= PAYLOAD_BYTES_MAX => None,
            Phase::Member | Phase::Leaving => Some(RouteError::PayloadTooLarge),
            _ => Some(RouteError::NotMember),
        };
        if let Some(reason) = reason {
            return cx.event(Event::Undelivered { destination, reason });
        }
        let sequence = self.next_token();
        self.sent.remember(sequence, destination);
        let route = self.new_route(sequence, destination, Body::Data { exact, payload });
        self.dispatch(cx, route);
    }

    /// A message has come to its destination.
    pub(crate) fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        source: &Contact,
        sequence: u64,
        destination: Id,
        payload: Bytes,
    ) {
        if self.delivered.first_time(source, sequence) {
            self.statistics.application_messages += 1;
            cx.out.push(Output::Deliver(Delivery { source: source.id, destination, payload }));
        }
    }

    /// A message that starts here.
    pub(crate) fn new_route(&self, sequence: u64, key: Id, body: Body) -> Route {
        Route { source: self.me, sequence, key, hops: 0, backward: 0, hop: 0, entry: None, body }
    }
}
