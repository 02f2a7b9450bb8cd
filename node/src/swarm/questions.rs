//! What applications ask of the network's nodes.

use std::collections::BTreeSet;

use super::run::{Run, Stage, running};
use super::scenario::{Regime, Service};
use crate::id::Id;
use crate::invariant::{Asked, Journal};
use crate::message::Contact;
use crate::peer::Command;
use crate::sim::NodeNumber;

/// The most messages that one node sends to another at once.
const BURST_MAX: u64 = 4;

impl Run<'_> {
    /// A random node, a client perhaps, is asked for one of the scenario's services.
    pub(super) fn ask(&mut self) {
        let nodes: Vec<NodeNumber> = self.members().into_iter().chain(self.connected_clients()).collect();
        let Some(by) = self.draws.any(&nodes) else { return };
        let others: Vec<Contact> =
            nodes.iter().filter(|node| **node != by).map(|node| self.nodes[node.0 as usize]).collect();
        match self.draws.any(&self.scenario.services) {
            Some(Service::Lookups) => {
                let key = Id(self.draws.within(0, self.scenario.net.ring().last().0));
                self.order(by, Asked::Lookup { key });
            }
            Some(Service::Messages) => {
                if let Some(to) = self.draws.any(&others) {
                    self.order(by, Asked::Send { destination: to.id });
                }
            }
            Some(Service::ReliableMessages) => {
                let Some(to) = self.draws.any(&others) else { return };
                for _ in 0..self.draws.within(1, BURST_MAX) {
                    self.order(by, Asked::Reliable { destination: to.id });
                }
            }
            Some(Service::Broadcasts) => self.broadcast_by(by),
            Some(Service::Multicasts) => {
                let audience: BTreeSet<Contact> = self.draws.some(&others).into_iter().collect();
                let destinations = audience.iter().map(|contact| contact.id).collect();
                self.tell_many(by, audience, |payload| Command::Multicast { destinations, payload });
            }
            Some(Service::Dictionary) => {
                let (contact, now_us) = (self.nodes[by.0 as usize], self.simulator.now_us());
                let command = self.keys.ask(contact, now_us, &mut self.draws);
                self.give(by, command);
            }
            None => {}
        }
    }

    /// A random member sends to all others.
    pub(super) fn broadcast(&mut self) {
        let members = self.members();
        if let Some(by) = self.draws.any(&members) {
            self.broadcast_by(by);
        }
    }

    fn broadcast_by(&mut self, by: NodeNumber) {
        let me = self.nodes[by.0 as usize];
        let clients = self.connected_clients().into_iter().map(|node| self.nodes[node.0 as usize]);
        let audience = self.view().known_members().chain(clients).filter(|to| *to != me).collect();
        self.tell_many(by, audience, |payload| Command::Broadcast { payload });
    }

    /// A message to many. Where a node may crash that has a part of it to pass on, nobody counts on getting it; nor does a client
    /// that may be between two proxies.
    fn tell_many(
        &mut self,
        by: NodeNumber,
        mut audience: BTreeSet<Contact>,
        command: impl FnOnce(bytes::Bytes) -> Command,
    ) {
        let is_sure = self.scenario.regime == Regime::Graceful || self.stage == Stage::Rest;
        let at_rest = self.stage == Stage::Rest;
        audience.retain(|contact| is_sure && (at_rest || !contact.is_client()));
        let operation = self.note(by, Asked::Broadcast { audience });
        self.give(by, command(Journal::payload(operation).into()));
    }

    fn order(&mut self, by: NodeNumber, asked: Asked) {
        let operation = self.note(by, asked.clone());
        let payload = Journal::payload(operation).into();
        match asked {
            Asked::Lookup { key } => {
                self.outcome.operations += 1;
                self.say(|| format!("ask {}: look-up {operation} of {key}", by.0));
                let now_us = self.simulator.now_us();
                self.simulator.lookup(by, operation, key, now_us);
            }
            Asked::Reliable { destination } => {
                self.give(by, Command::SendReliably { operation, destination, payload });
            }
            Asked::Send { destination } => {
                self.give(by, Command::Send { destination, exact: true, payload });
            }
            Asked::Broadcast { .. } | Asked::Write { .. } | Asked::Read { .. } => {}
        }
    }

    fn note(&mut self, by: NodeNumber, asked: Asked) -> u64 {
        let operation = self.journal.ask(self.nodes[by.0 as usize], asked);
        self.journal.observe(running(&self.simulator, &self.alive));
        self.forgive();
        operation
    }

    fn give(&mut self, by: NodeNumber, command: Command) {
        self.outcome.operations += 1;
        self.say(|| format!("ask {}: {command:?}", by.0));
        self.simulator.command(by, command);
    }
}
