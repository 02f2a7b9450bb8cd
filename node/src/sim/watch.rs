//! What an observer sees of the messages that nodes send: how many duplicates there are of each routed one, and, if wanted, every
//! single one.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Simulator;
use super::membership::NodeNumber;
use crate::message::{Body, Contact, Errand, Message, Route};

/// What was seen since it was last [cleared](Watch::clear).
#[derive(Debug, Default)]
pub struct Watch {
    duplicated: BTreeMap<Errand, Duplicated>,
    most_duplicated: Option<(Errand, u64)>,
    broadcasting: Broadcasting,
    sendings: Option<Vec<Sending>>,
}

/// The duplicates of one errand that were sent ([`core::duplicates`](crate::core::duplicates)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duplicated {
    /// How many.
    pub times: u64,
    /// By whom.
    pub by: BTreeSet<NodeNumber>,
}

/// How many messages were sent as parts of broadcasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broadcasting {
    /// For the first time.
    pub originals: u64,
    /// Again, since no acknowledgement had come in time.
    pub duplicates: u64,
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
    /// The errand of which most duplicates were sent.
    pub fn most_duplicated(&self) -> Option<(Errand, &Duplicated)> {
        let (errand, _) = self.most_duplicated?;
        Some((errand, self.duplicated.get(&errand)?))
    }

    /// The messages that were sent as parts of broadcasts.
    pub fn broadcasting(&self) -> Broadcasting {
        self.broadcasting
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
            self.count(from, route);
        }
        if let Some(sendings) = &mut self.sendings {
            sendings.push(Sending { at_us, from, to, message: message.clone() });
        }
    }

    fn count(&mut self, from: NodeNumber, route: &Route) {
        let is_duplicate = route.turns > 0;
        if matches!(route.body, Body::Broadcast { .. }) {
            self.broadcasting.originals += u64::from(!is_duplicate);
            self.broadcasting.duplicates += u64::from(is_duplicate);
        }
        if !is_duplicate {
            return;
        }
        let errand = route.errand();
        let duplicated = self.duplicated.entry(errand).or_default();
        duplicated.times += 1;
        duplicated.by.insert(from);
        if self.most_duplicated.is_none_or(|(_, most)| duplicated.times > most) {
            self.most_duplicated = Some((errand, duplicated.times));
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
