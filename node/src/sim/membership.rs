//! Nodes come and go: what the simulation's user does to them.

use super::clock::NodeClock;
use super::engine::Simulator;
use super::happening::What;
use super::node::{Life, NODES_MAX, Operation, SimulatedNode, access_point, contact};
use super::trace::Trace;
use crate::access_point::AccessPoint;
use crate::com::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};
use crate::com::shaping::{ShapeRules, Shaper};
use crate::config::ProxyUse;
use crate::id::Id;
use crate::metrics::{ShapeEffect, Snapshot};
use crate::peer::{Command, Input, Peer};
use crate::time::Time;

/// Names a node: the nodes of a simulation are numbered in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeNumber(pub u32);

impl NodeNumber {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What was done to a node, for the trace.
#[derive(Clone, Copy)]
enum Deed {
    Start = 1,
    Kill,
    Vanish,
    Pause,
    Resume,
    Shape,
    Command,
    Settle,
}

impl Simulator {
    /// Adds a node that is not started yet; `seed` is all the randomness of its peers. `None`: there are too many.
    pub fn add(&mut self, id: Id, seed: u64) -> Option<NodeNumber> {
        if self.nodes.len() >= NODES_MAX || !self.net.ring().contains(id) {
            return None;
        }
        let number = NodeNumber(self.nodes.len() as u32);
        let mut draw = Trace::new(self.seed ^ seed);
        draw.mix(u64::from(number.0));
        let offset = draw.value();
        draw.mix(1);
        let clock = NodeClock::within(self.model.clock_skew, offset, draw.value());
        // Who takes part is known by the plan: a node that is not reached does not get in.
        let proxy_use = ProxyUse::Never;
        self.ids.push(id);
        self.nodes.push(SimulatedNode { seed, proxy_use, clock, lives: 0, vanished: false, life: None });
        Some(number)
    }

    /// From its next life on, a node uses a proxy in these cases. Unless that is never, it stands behind a firewall: nobody can
    /// make a link to it.
    pub fn set_proxy_use(&mut self, node: NodeNumber, proxy_use: ProxyUse) {
        self.nodes[node.index()].proxy_use = proxy_use;
    }

    /// How many nodes were added.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a node is reached.
    pub fn access_point(&self, node: NodeNumber) -> AccessPoint {
        access_point(node)
    }

    /// Starts a node, with `rules` on its links: it joins by the nodes named, tried in turn, or creates a network where none
    /// is. `false`: it is running.
    pub fn start(&mut self, node: NodeNumber, via: &[NodeNumber], rules: &ShapeRules) -> bool {
        if !self.begin_life(node) {
            return false;
        }
        self.note(node, Deed::Start as u64);
        if !rules.is_empty() {
            self.shape(node, rules);
        }
        let input = match via {
            [] => Input::Create,
            via => Input::Join { bootstrap: via.iter().map(|node| access_point(*node)).collect() },
        };
        self.turn(node, input);
        true
    }

    fn begin_life(&mut self, node: NodeNumber) -> bool {
        let (net, offsets, records) = (self.net, self.offsets.clone(), self.records);
        let there = &mut self.nodes[node.index()];
        if there.life.is_some() {
            return false;
        }
        there.lives += 1;
        there.vanished = false;
        // Each life draws otherwise, as processes do that are started with seeds of their own.
        let mut seed = Trace::new(there.seed);
        seed.mix(u64::from(there.lives));
        let me = contact(self.ids[node.index()], node, there.lives);
        let mut peer = Peer::with_offsets(net, me, seed.value(), offsets);
        peer.set_proxy_use(there.proxy_use);
        #[cfg(feature = "planted")]
        if let Some(bug) = self.bug {
            peer.plant(bug);
        }
        there.life = Some(Box::new(Life::new(peer, records)));
        true
    }

    /// Starts nodes that are members of a converged ring from their first moment: each has the neighbours and fingers to which
    /// the protocol would bring it. With `maintenance`, rounds begin as on a ring that has been quiet for long; without,
    /// no node ever begins one, which is for measuring routes on very large rings: nothing may fail then.
    /// Only nodes that do not run are started.
    pub fn start_converged(&mut self, nodes: &[NodeNumber], maintenance: bool) {
        let started: Vec<NodeNumber> = nodes.iter().copied().filter(|node| self.begin_life(*node)).collect();
        let mut members: Vec<_> = started.iter().map(|node| self.present_contact(*node)).collect();
        members.sort_unstable();
        let ring = crate::peer::ConvergedRing::new(self.net.ring(), &members);
        for node in started {
            self.note(node, Deed::Settle as u64);
            let now = self.nodes[node.index()].clock.local(self.now_us);
            if let Some(life) = self.nodes[node.index()].life.as_deref_mut() {
                life.peer.settle(now, &ring, maintenance);
                life.joined = true;
            }
            self.set_timer(node);
            self.tell(node, What::Joined);
            self.tell_ring(node);
        }
    }

    /// Whether a node runs, paused or not.
    pub fn is_running(&self, node: NodeNumber) -> bool {
        self.nodes.get(node.index()).is_some_and(|node| node.life.is_some())
    }

    /// Whether a node is paused.
    pub fn is_paused(&self, node: NodeNumber) -> bool {
        self.nodes.get(node.index()).and_then(|node| node.life.as_ref()).is_some_and(|life| life.paused)
    }

    /// A node's protocol, if it runs.
    pub fn peer(&self, node: NodeNumber) -> Option<&Peer> {
        self.nodes.get(node.index())?.life.as_ref().map(|life| &life.peer)
    }

    /// Kills a node's process: its links are reset. `false`: it does not run.
    pub fn kill(&mut self, node: NodeNumber) -> bool {
        let runs = self.is_running(node);
        if runs {
            self.note(node, Deed::Kill as u64);
            self.end_life(node, false);
        }
        runs
    }

    /// A node's host vanishes: nothing is heard of it again, and nobody is told. Other nodes' systems break their links when
    /// their time-outs have passed. `false`: it does not run.
    pub fn vanish(&mut self, node: NodeNumber) -> bool {
        let Some(life) = self.nodes[node.index()].life.take() else { return false };
        self.note(node, Deed::Vanish as u64);
        self.nodes[node.index()].vanished = true;
        let since_us = self.now_us;
        let noticed_us = (KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES).as_micros() as u64;
        let own_life = self.nodes[node.index()].lives;
        for (other, _) in life.links.iter().filter(|(_, end)| end.is_open()) {
            if self.nodes[other.node.index()].lives == other.life {
                let gone = super::node::Parcel::Gone { orderly: false, since_us };
                self.come_back(other.node, node, own_life, noticed_us, gone);
            }
        }
        self.forget(&life);
        true
    }

    /// A process has ended: its links close, with a farewell (`orderly`) or broken off.
    pub(super) fn end_life(&mut self, node: NodeNumber, orderly: bool) {
        self.inputs.clear();
        let Some(life) = self.nodes[node.index()].life.as_deref() else { return };
        let heard = life.links.iter().filter(|(_, end)| {
            end.is_open() || end.dialling.as_ref().is_some_and(|dialling| dialling.flushed)
        });
        let heard: Vec<_> = heard.map(|(other, _)| other).collect();
        for other in heard {
            self.hang_up(node, other.node, other.life, orderly);
        }
        if let Some(life) = self.nodes[node.index()].life.take() {
            self.forget(&life);
        }
    }

    fn forget(&mut self, life: &Life) {
        for dialling in life.links.iter().filter_map(|(_, end)| end.dialling.as_ref()) {
            self.drop_waiting(dialling.waiting);
        }
        for slot in &life.held {
            self.flights.take(*slot);
        }
    }

    /// Stops a node's process, or lets it go on: meanwhile it neither hears nor speaks, and keeps its links. `false`: it does not
    /// run.
    pub fn pause(&mut self, node: NodeNumber, paused: bool) -> bool {
        let Some(life) = self.nodes.get_mut(node.index()).and_then(|node| node.life.as_deref_mut()) else {
            return false;
        };
        if std::mem::replace(&mut life.paused, paused) == paused {
            return true;
        }
        life.timer_us = u64::MAX;
        let held = if paused { Vec::new() } else { std::mem::take(&mut life.held) };
        self.note(node, if paused { Deed::Pause } else { Deed::Resume } as u64);
        for slot in held {
            self.arrive(slot);
        }
        self.set_timer(node);
        true
    }

    /// Shapes a node's links by `rules` from now on, and in no other way. `false`: it does not run.
    pub fn shape(&mut self, node: NodeNumber, rules: &ShapeRules) -> bool {
        let (now, seed) = (Time::from_micros(self.now_us), self.nodes[node.index()].seed);
        let Some(life) = self.nodes[node.index()].life.as_deref_mut() else { return false };
        let cut = life.shaper.get_or_insert_with(|| Box::new(Shaper::new(seed))).set(now, rules);
        if let Some(recorder) = &mut life.recorder {
            recorder.shaped(ShapeEffect::Cut, cut);
        }
        let held = if life.paused { Vec::new() } else { std::mem::take(&mut life.held) };
        self.note(node, Deed::Shape as u64);
        self.release(node);
        // Links that broke while nothing could be heard of it are told of now.
        for slot in held {
            self.arrive(slot);
        }
        self.set_timer(node);
        true
    }

    /// Loses so many of a million messages from now on.
    pub fn lose(&mut self, loss_ppm: u32) {
        self.model.loss_ppm = loss_ppm;
    }

    /// Nodes that start from now on have a bug, on which the checkers are tested.
    #[cfg(feature = "planted")]
    pub fn plant(&mut self, bug: crate::core::planted::Bug) {
        self.bug = Some(bug);
    }

    /// Looks a key up at a node; it ends in [`What::Completed`] with this number, and its latency counts from `intended_us`.
    /// `false`: the node does not run, or is paused.
    pub fn lookup(&mut self, node: NodeNumber, operation: u64, key: Id, intended_us: u64) -> bool {
        let issued_us = self.now_us;
        let Some(life) = self.nodes.get_mut(node.index()).and_then(|node| node.life.as_deref_mut()) else {
            return false;
        };
        if life.paused {
            return false;
        }
        life.operations.push(Operation { number: operation, intended_us, issued_us });
        self.command(node, Command::Lookup { operation, key })
    }

    /// A node leaves gracefully. `false`: it does not run, or is paused.
    pub fn leave(&mut self, node: NodeNumber) -> bool {
        self.command(node, Command::Leave)
    }

    /// Gives a node a command of its application: a message to send, a broadcast. Look-ups are [`Simulator::lookup`]'s. `false`: the
    /// node does not run, or is paused.
    pub fn command(&mut self, node: NodeNumber, command: Command) -> bool {
        if !self.is_running(node) || self.is_paused(node) {
            return false;
        }
        self.note(node, Deed::Command as u64);
        self.turn(node, Input::Command(command));
        true
    }

    /// All that a node counts; `None` where it does not run.
    pub fn snapshot(&self, node: NodeNumber) -> Option<Snapshot> {
        let life = self.nodes.get(node.index())?.life.as_ref()?;
        let recorded = life.recorder.as_ref().map(|recorder| recorder.snapshot()).unwrap_or_default();
        let outbound = life.links.iter().filter(|(_, end)| end.outbound).count() as u64;
        let inbound = life.links.iter().filter(|(_, end)| end.inbound).count() as u64;
        Some(recorded.with_peer(&life.peer).with_links(outbound, inbound))
    }
}
