//! What is done to a network, within what its protocol promises to bear.
//!
//! Zave's theorem (arXiv 1610.01140, section 6) needs a live entry in each successor list: so at most r - 1 nodes fail or leave
//! before the ring is ideal again, and never so many that fewer than two are left. Keys need a copy: where the dictionary
//! is in use and living nodes are never taken for dead, fewer nodes crash, before all copies are back in their places, than the
//! key with the fewest has. Where living nodes are taken for dead, nobody goes without whom parts of the network would not know of
//! each other ([`acquaintance`](crate::invariant::acquaintance)).

use std::collections::BTreeSet;

use super::run::{Ending, Run, ids, running};
use super::scenario::{Fault, Regime, Service};
use super::separation::Separation;
use crate::id::Id;
use crate::invariant::acquaintance::are_acquainted;
use crate::message::Contact;
use crate::peer::Phase;
use crate::sim::NodeNumber;

/// The longest pause of a node, in microseconds.
const PAUSE_US_MAX: u64 = 40_000_000;

/// The longest separation, in microseconds.
const SEPARATION_US_MAX: u64 = 90_000_000;

/// How often an id is drawn that nobody has had yet.
const ID_DRAWS_MAX: u32 = 50;

/// By how many nodes a network may outgrow its first size.
const GROWTH_MAX: usize = 20;

impl Run<'_> {
    /// One of the faults of the scenario happens, if the rules allow it now.
    pub(super) fn make_fault(&mut self) {
        self.count_established();
        match self.draws.any(&self.scenario.faults) {
            Some(Fault::Joins) => self.join(),
            Some(Fault::Leaves) => self.leave(),
            Some(Fault::Crashes) => self.crash(1),
            Some(Fault::NeighboursCrash) => self.crash(usize::MAX),
            Some(Fault::Vanishings) => self.vanish(),
            Some(Fault::Restarts) => self.restart(),
            Some(Fault::Pauses) => self.pause(),
            Some(fault @ (Fault::Partitions | Fault::OneWayCuts | Fault::BadLinks)) => self.separate(fault),
            // It goes on all the time.
            Some(Fault::Loss) | None => {}
        }
        self.forgive();
        self.journal.observe(running(&self.simulator, &self.alive));
    }

    /// If the network is whole again, as many nodes may fail as ever.
    pub(super) fn count_established(&mut self) {
        let members = self.members().len();
        if self.is_apart() || members < self.ring_nodes().count() || self.ring_is_ideal().is_err() {
            return;
        }
        (self.established, self.failures) = (members, 0);
        let view = self.view();
        let all_is_known = view.members().iter().all(|peer| peer.dictionary().is_complete());
        if all_is_known && self.copies_are_in_their_places().is_ok() {
            self.crashes = 0;
        }
    }

    /// Whether nodes are kept apart, or stand still.
    pub(super) fn is_apart(&self) -> bool {
        self.separation.is_some() || self.agenda.values().any(|ending| matches!(ending, Ending::Pause(_)))
    }

    /// The nodes that run and are no clients.
    fn ring_nodes(&self) -> impl Iterator<Item = NodeNumber> {
        self.alive.difference(&self.clients).copied()
    }

    /// The members that can be asked for something.
    pub(super) fn members(&self) -> Vec<NodeNumber> {
        let is_awake = |node: &NodeNumber| {
            let phase = self.simulator.peer(*node).map(|peer| peer.phase());
            phase == Some(Phase::Member) && !self.simulator.is_paused(*node)
        };
        self.alive.iter().copied().filter(is_awake).collect()
    }

    /// How many more nodes may fail or leave now.
    pub(super) fn failures_left(&self) -> usize {
        let tolerated = self.scenario.net.successors().min(self.established).saturating_sub(1);
        tolerated.saturating_sub(self.failures).min(self.members().len().saturating_sub(2))
    }

    /// How many more nodes may crash now.
    pub(super) fn crashes_left(&self) -> usize {
        let is_kept = self.scenario.services.contains(&Service::Dictionary)
            && self.scenario.regime != Regime::Unreliable;
        let members: BTreeSet<Id> = self.view().members().iter().map(|peer| peer.me().id).collect();
        let copies = if is_kept { self.keys.spare_copies(&members) } else { usize::MAX };
        self.failures_left().min(copies.saturating_sub(self.crashes))
    }

    /// Whether those that remain without a node know of each other.
    fn may_go(&self, node: NodeNumber) -> bool {
        let me = self.nodes[node.0 as usize];
        self.scenario.regime != Regime::Unreliable
            || are_acquainted(running(&self.simulator, &self.alive).filter(|peer| peer.me() != me))
    }

    /// Adds a node with an id that no other has had; `None` where none is found.
    pub(super) fn add_node(&mut self) -> Option<NodeNumber> {
        let last = self.scenario.net.ring().last().0;
        let taken: BTreeSet<Id> = ids(&self.nodes).into_iter().collect();
        let mut drawn = (0..ID_DRAWS_MAX).map(|_| Id(self.draws.within(0, last)));
        let id = drawn.find(|id| !taken.contains(id))?;
        let node = self.simulator.add(id, self.draws.seed())?;
        let access_point = self.simulator.access_point(node);
        self.nodes.push(Contact { id, access_point, incarnation: 0 });
        Some(node)
    }

    /// A node starts, among the rules that stand.
    pub(super) fn start_node(&mut self, node: NodeNumber, via: &[NodeNumber]) {
        self.count_time();
        self.say(|| format!("start {} by {via:?}", node.0));
        if self.simulator.start(node, via, &[]) {
            self.alive.insert(node);
            self.note_lives();
            if self.separation.is_some() {
                self.shape_links();
            }
        }
    }

    /// Learns the contacts of lives that have begun.
    pub(super) fn note_lives(&mut self) {
        for node in &self.alive {
            if let Some(peer) = self.simulator.peer(*node) {
                self.nodes[node.0 as usize] = peer.me();
            }
        }
    }

    fn join(&mut self) {
        if self.ring_nodes().count() < self.scenario.nodes + GROWTH_MAX
            && let Some(node) = self.add_node()
        {
            self.start_by_some(node);
        }
    }

    fn restart(&mut self) {
        let gone: Vec<NodeNumber> =
            (0..self.nodes.len() as u32).map(NodeNumber).filter(|node| !self.alive.contains(node)).collect();
        if let Some(node) = self.draws.any(&gone) {
            self.start_by_some(node);
        }
    }

    pub(super) fn start_by_some(&mut self, node: NodeNumber) {
        let members = self.members();
        let mut via: Vec<NodeNumber> = (0..3).filter_map(|_| self.draws.any(&members)).collect();
        via.dedup();
        if !via.is_empty() {
            self.outcome.faults += 1;
            self.start_node(node, &via);
        }
    }

    fn leave(&mut self) {
        let members = self.members();
        if self.failures_left() > 0
            && let Some(node) = self.draws.any(&members).filter(|node| self.may_go(*node))
        {
            self.let_leave(node);
        }
    }

    /// A member leaves.
    pub(super) fn let_leave(&mut self, node: NodeNumber) {
        self.failures += 1;
        self.outcome.faults += 1;
        self.say(|| format!("leave {}", node.0));
        self.simulator.leave(node);
    }

    /// Neighbours crash at once: as many as are allowed, at most `most`.
    fn crash(&mut self, most: usize) {
        let most = most.min(self.crashes_left());
        if most == 0 {
            return;
        }
        let mut members = self.members();
        members.sort_unstable_by_key(|node| self.nodes[node.0 as usize].id);
        let (first, count) = (self.draws.below(members.len() as u64), self.draws.within(1, most as u64));
        self.count_time();
        for place in first..first + count {
            let node = members[place as usize % members.len()];
            if !self.may_go(node) {
                return;
            }
            self.kill(node);
        }
    }

    /// A member is killed.
    pub(super) fn kill(&mut self, node: NodeNumber) {
        self.say(|| format!("kill {}", node.0));
        self.simulator.kill(node);
        self.fail(node);
    }

    fn vanish(&mut self) {
        let members = self.members();
        if self.crashes_left() > 0
            && let Some(node) = self.draws.any(&members).filter(|node| self.may_go(*node))
        {
            self.count_time();
            self.say(|| format!("vanish {}", node.0));
            self.simulator.vanish(node);
            self.fail(node);
        }
    }

    fn fail(&mut self, node: NodeNumber) {
        self.failures += 1;
        self.crashes += 1;
        self.outcome.faults += 1;
        self.bury(node);
    }

    fn pause(&mut self) {
        let members = self.members();
        if self.failures_left() > 0
            && let Some(node) = self.draws.any(&members)
        {
            self.failures += 1;
            self.outcome.faults += 1;
            self.say(|| format!("pause {}", node.0));
            self.simulator.pause(node, true);
            let length_us = self.draws.within(100_000, PAUSE_US_MAX);
            self.end_after(length_us, Ending::Pause(node));
        }
    }

    fn separate(&mut self, fault: Fault) {
        if self.separation.is_some() {
            return;
        }
        let ids: Vec<Id> = self.view().members().iter().map(|peer| peer.me().id).collect();
        let separation = Separation::draw(fault, &ids, &mut self.draws);
        if let Some(separation) = separation.filter(|separation| separation.len() > 0) {
            self.outcome.faults += 1;
            self.say(|| format!("{fault:?}: {separation:?}"));
            self.separation = Some(separation);
            self.shape_links();
            let length_us = self.draws.within(1_000_000, SEPARATION_US_MAX);
            self.end_after(length_us, Ending::Separation);
        }
    }

    /// Puts the rules of the present separation, if there is one, on the links of all nodes.
    fn shape_links(&mut self) {
        let ids = ids(&self.nodes);
        for node in self.alive.iter().copied().collect::<Vec<_>>() {
            let id = self.nodes[node.0 as usize].id;
            let rules = self.separation.as_ref().map(|separation| separation.rules(id, &ids));
            self.simulator.shape(node, &rules.unwrap_or_default());
        }
    }

    fn end_after(&mut self, length_us: u64, ending: Ending) {
        let at_us = self.simulator.now_us() + length_us;
        let serial = self.outcome.faults;
        self.agenda.insert((at_us, serial), ending);
    }

    /// The pause, or the separation, that ends next ends now.
    pub(super) fn end_next(&mut self) {
        // What was under way meanwhile is forgiven.
        self.forgive();
        match self.agenda.pop_first().map(|(_, ending)| ending) {
            Some(Ending::Pause(node)) => {
                self.say(|| format!("resume {}", node.0));
                self.simulator.pause(node, false);
            }
            Some(Ending::Separation) => {
                self.say(|| "the separation ends".to_owned());
                self.separation = None;
                self.shape_links();
            }
            None => {}
        }
    }

    pub(super) fn end_faults(&mut self) {
        while !self.agenda.is_empty() {
            self.end_next();
        }
        self.simulator.lose(0);
    }
}
