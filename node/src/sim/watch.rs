//! What an observer sees of the messages that nodes send: how often each routed one, and, if wanted, every single one.

use std::collections::BTreeMap;

use super::engine::Simulator;
use super::membership::NodeNumber;
use crate::id::Id;
use crate::message::{Body, Contact, Message, Route};

/// A routed message's identity: its source, the source's incarnation, and the number that the source gave it. A message that its
/// source sends again keeps it, and so do all parts of a broadcast.
pub type Identity = (Id, u64, u64);

/// What was seen since it was last [cleared](Watch::clear).
#[derive(Debug, Default)]
pub struct Watch {
    transmissions: BTreeMap<Identity, u32>,
    most: Option<(Identity, u32)>,
    broadcast_messages: u64,
    sendings: Option<Vec<Sending>>,
}

/// A message that a node sent; it may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// When, in microseconds since the simulation's start.
    pub at_us: u64,
    /// By which node.
    pub from: NodeNumber,
    /// To whom.
    pub to: Contact,
    /// What.
    pub message: Message,
}

impl Watch {
    /// The routed message that was sent most often, over all hops, and how often that was.
    pub fn most_transmitted(&self) -> Option<(Identity, u32)> {
        self.most
    }

    /// How many messages were sent as parts of broadcasts.
    pub fn broadcast_messages(&self) -> u64 {
        self.broadcast_messages
    }

    /// Takes all messages that were sent, if they are kept.
    pub fn take_sendings(&mut self) -> Vec<Sending> {
        self.sendings.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        let sendings = self.sendings.as_ref().map(|_| Vec::new());
        *self = Watch { sendings, ..Watch::default() };
    }

    pub(super) fn see(&mut self, at_us: u64, from: NodeNumber, to: Contact, message: &Message) {
        if let Message::Route(route) = message {
            self.count(route);
        }
        if let Some(sendings) = &mut self.sendings {
            sendings.push(Sending { at_us, from, to, message: message.clone() });
        }
    }

    fn count(&mut self, route: &Route) {
        let identity = (route.source.id, route.source.incarnation, route.sequence);
        let count = self.transmissions.entry(identity).or_default();
        *count += 1;
        if self.most.is_none_or(|(_, most)| *count > most) {
            self.most = Some((identity, *count));
        }
        if matches!(route.body, Body::Broadcast { .. }) {
            self.broadcast_messages += 1;
        }
    }
}

impl Simulator {
    /// Watches what nodes send from now on; with `every_message`, messages are kept until [`Watch::take_sendings`].
    pub fn watch(&mut self, every_message: bool) {
        self.watch = Some(Watch { sendings: every_message.then(Vec::new), ..Watch::default() });
    }

    /// What has been seen, if anybody watches.
    pub fn watched(&mut self) -> Option<&mut Watch> {
        self.watch.as_mut()
    }
}
