//! Nodes that others cannot reach: clients of members ([`core::clients`](crate::core::clients), [`core::proxy`](crate::core::proxy)).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::run::{Run, broken, running};
use super::scenario::{CLIENTS_MAX, Regime};
use crate::config::ProxyUse;
use crate::core::proxy::PROXY_ROUND;
use crate::id::Id;
use crate::invariant::Violation;
use crate::message::Contact;
use crate::peer::{Peer, Phase};
use crate::sim::NodeNumber;

pub(super) const SETTLE: &str = "clients have the right proxies in time";
pub(super) const IN_NO_TABLE: &str = "clients stand in nobody's tables";

/// How long after the ring is ideal all clients have the right proxies: a few of the rounds in which each asks its own, and the
/// silence after which a proxy asks for a client that has vanished.
pub const CLIENTS_SETTLE_WITHIN: Duration = PROXY_ROUND.saturating_mul(15);

/// How many clients there are at most.
const GROWN_MAX: usize = 2 * CLIENTS_MAX as usize;

impl Run<'_> {
    /// A new node that nobody can reach. Every second one knows it beforehand.
    pub(super) fn start_client(&mut self) {
        let Some(node) = self.add_node() else { return };
        let proxy_use = self.draws.of(&[ProxyUse::Always, ProxyUse::IfUnreachable]);
        self.simulator.set_proxy_use(node, proxy_use);
        self.clients.insert(node);
        self.start_by_some(node);
    }

    /// Something happens to a client, or to the proxy of one.
    pub(super) fn make_client_fault(&mut self) {
        self.count_established();
        let clients = self.connected_clients();
        // The last two are crashes.
        let kinds = if self.scenario.regime == Regime::Graceful { 3 } else { 5 };
        match (self.draws.below(kinds), self.draws.any(&clients)) {
            (0, _) if self.alive.intersection(&self.clients).count() < GROWN_MAX => self.start_client(),
            (1, Some(client)) => {
                self.outcome.faults += 1;
                self.say(|| format!("leave {}, a client", client.0));
                self.simulator.leave(client);
            }
            (2, Some(client)) if self.failures_left() > 0 => {
                if let Some(proxy) = self.proxy_of(client) {
                    self.let_leave(proxy);
                }
            }
            (3, Some(client)) => {
                self.count_time();
                self.outcome.faults += 1;
                self.say(|| format!("kill {}, a client", client.0));
                self.simulator.kill(client);
                self.bury(client);
            }
            (4, Some(client)) if self.crashes_left() > 0 => {
                if let Some(proxy) = self.proxy_of(client) {
                    self.count_time();
                    self.kill(proxy);
                }
            }
            _ => {}
        }
        self.forgive();
        self.journal.observe(running(&self.simulator, &self.alive));
    }

    /// The clients that can be asked for something: those that have a proxy.
    pub(super) fn connected_clients(&self) -> Vec<NodeNumber> {
        let is_connected = |node: &NodeNumber| {
            let peer = self.simulator.peer(*node);
            peer.is_some_and(|peer| peer.phase() == Phase::Client && peer.proxy().is_some())
        };
        self.alive.intersection(&self.clients).copied().filter(is_connected).collect()
    }

    /// A client's proxy, if that is a member that can be asked to leave.
    fn proxy_of(&self, client: NodeNumber) -> Option<NodeNumber> {
        let proxy = self.simulator.peer(client)?.proxy()?;
        self.members().into_iter().find(|node| self.nodes[node.0 as usize] == proxy)
    }

    /// Each client has the member that is responsible of its id for its proxy, which has it for its client; no other has.
    pub(super) fn clients_have_their_proxies(&self) -> Result<(), Violation> {
        let view = self.view();
        let mut known: BTreeMap<Contact, Vec<Id>> = BTreeMap::new();
        for member in view.members() {
            for client in member.clients() {
                known.entry(client).or_default().push(member.me().id);
            }
        }
        let clients = self.alive.intersection(&self.clients);
        let clients: Vec<&Peer> = clients.filter_map(|node| self.simulator.peer(*node)).collect();
        for client in &clients {
            let (me, phase, proxy) = (client.me(), client.phase(), client.proxy().map(|proxy| proxy.id));
            let right = view.ideal_responsible(me.id).map(|member| member.me().id);
            let by = known.remove(&me).unwrap_or_default();
            if phase != Phase::Client || proxy != right || !by.iter().copied().eq(right) {
                let detail =
                    format!("{me:?}, {phase:?}, has {proxy:?}, is known to {by:?}; right is {right:?}");
                return broken(SETTLE, detail);
            }
        }
        if let Some((gone, by)) = known.first_key_value() {
            return broken(SETTLE, format!("{gone:?} is gone, but known to {by:?}"));
        }
        self.clients_are_in_no_table(&clients.iter().map(|client| client.me().id).collect())
    }

    fn clients_are_in_no_table(&self, clients: &BTreeSet<Id>) -> Result<(), Violation> {
        for member in self.view().members() {
            let fingers = member.fingers().into_iter().filter_map(|(_, finger)| finger);
            let mut known = member.successors().iter().copied().chain(member.predecessor()).chain(fingers);
            if let Some(client) = known.find(|contact| clients.contains(&contact.id)) {
                return broken(IN_NO_TABLE, format!("{} has {client:?}", member.me().id));
            }
        }
        Ok(())
    }
}
