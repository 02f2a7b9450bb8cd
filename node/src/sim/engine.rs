//! The loop: takes the next event, tells the node that it is for, and does what its peer wants.

use std::collections::VecDeque;
use std::sync::Arc;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::SeedableRng;

use super::happening::{Happening, What};
use super::membership::NodeNumber;
use super::network::NetworkModel;
use super::node::{Flight, LifeEnd, Operation, SimulatedNode};
use super::queue::EventQueue;
use super::trace::Trace;
use super::watch::Watch;
use crate::config::NetConfig;
use crate::core::geometry::Offsets;
use crate::id::Id;
use crate::message::{Found, RouteError};
use crate::peer::{Event, Input, Observation, Outbox, Output, Phase};

/// A network of simulated nodes. See the [module](super).
#[derive(Debug)]
pub struct Simulator {
    pub(super) net: NetConfig,
    pub(super) offsets: Arc<Offsets>,
    pub(super) model: NetworkModel,
    pub(super) seed: u64,
    /// Whether each node has counters of its own.
    pub(super) records: bool,
    pub(super) nodes: Vec<SimulatedNode>,
    /// Their ids, close together: every message asks for those of both its ends.
    pub(super) ids: Vec<Id>,
    pub(super) now_us: u64,
    pub(super) queue: EventQueue<Due>,
    pub(super) flights: Slab,
    pub(super) random: Pcg32,
    /// What the node whose turn it is is told next.
    pub(super) inputs: VecDeque<Input>,
    outbox: Outbox,
    pub(super) frame: Vec<u8>,
    pub(super) trace: Trace,
    pub(super) totals: Totals,
    pub(super) watch: Option<Watch>,
    /// The bug that nodes have which start from now on.
    #[cfg(feature = "planted")]
    pub(super) bug: Option<crate::core::planted::Bug>,
    happenings: Vec<Happening>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A node's deadline.
    Timer(NodeNumber),
    /// The arrival of a flight.
    Flight(u32),
}

/// What a simulation has counted over all its nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that were taken from the queue.
    pub events: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// Bytes of the messages that were sent, with framing.
    pub sent_bytes: u64,
    /// Dials that were begun.
    pub dials: u64,
}

impl Simulator {
    /// A network without nodes. `records`: each node has counters and histograms of its own, for
    /// [`Simulator::snapshot`]; they cost a few kilobytes for a node that is used.
    pub fn new(net: NetConfig, model: NetworkModel, seed: u64, records: bool) -> Simulator {
        Simulator {
            net,
            offsets: Arc::new(Offsets::new(net.geometry(), net.ring())),
            model,
            seed,
            records,
            nodes: Vec::new(),
            ids: Vec::new(),
            now_us: 0,
            queue: EventQueue::new(),
            flights: Slab::default(),
            random: Pcg32::seed_from_u64(seed),
            inputs: VecDeque::new(),
            outbox: Outbox::new(),
            frame: Vec::new(),
            trace: Trace::new(seed),
            totals: Totals::default(),
            watch: None,
            #[cfg(feature = "planted")]
            bug: None,
            happenings: Vec::new(),
        }
    }

    /// The time since the simulation's start, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The hash of all that has happened.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// What has been counted.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How many events wait.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Lets time pass until `end_us`.
    pub fn run_until(&mut self, end_us: u64) {
        while self.step(end_us) {}
        self.now_us = self.now_us.max(end_us);
    }

    /// Lets time pass until `end_us` or until there is something for [`Simulator::happenings`].
    pub fn run_until_news(&mut self, end_us: u64) {
        while self.happenings.is_empty() {
            if !self.step(end_us) {
                self.now_us = self.now_us.max(end_us);
                return;
            }
        }
    }

    /// Takes what has happened since this was last asked, in order.
    pub fn happenings(&mut self) -> std::vec::Drain<'_, Happening> {
        self.happenings.drain(..)
    }

    /// Does the next thing that is due, if it is not after `end_us`. `false`: nothing is.
    pub fn step(&mut self, end_us: u64) -> bool {
        let Some((at_us, due)) = self.queue.pop_until(end_us) else { return false };
        self.now_us = at_us;
        self.totals.events += 1;
        match due {
            Due::Timer(node) => self.on_timer(node),
            Due::Flight(slot) => self.arrive(slot),
        }
        true
    }

    pub(super) fn tell(&mut self, node: NodeNumber, what: What) {
        self.happenings.push(Happening { at_us: self.now_us, node, what });
    }

    /// Takes into the trace that something happened at a node.
    pub(super) fn note(&mut self, node: NodeNumber, what: u64) {
        self.trace.mix(self.now_us);
        self.trace.mix(u64::from(node.0));
        self.trace.mix(what);
    }

    fn on_timer(&mut self, node: NodeNumber) {
        let now_us = self.now_us;
        let SimulatedNode { clock, life, .. } = &mut self.nodes[node.index()];
        let Some(life) = life.as_deref_mut().filter(|life| life.timer_us == now_us && !life.paused) else {
            return;
        };
        life.timer_us = u64::MAX;
        let now = clock.local(now_us);
        let due = life.peer.deadline().is_some_and(|deadline| deadline <= now);
        if life.shaper.is_some() {
            self.release(node);
        }
        if due {
            self.note(node, 0);
            self.turn(node, Input::Tick);
        } else {
            self.set_timer(node);
        }
    }

    /// Tells a node's peer something, and does all that follows at once.
    pub(super) fn turn(&mut self, node: NodeNumber, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next {
            self.give(node, input);
            next = self.inputs.pop_front();
        }
        let ended = self.nodes[node.index()].life.as_mut().and_then(|life| life.end.take());
        match ended {
            None => self.set_timer(node),
            Some(LifeEnd::Left { handed_over }) => {
                self.end_life(node, true);
                self.tell(node, What::Left { handed_over });
            }
            Some(LifeEnd::Rejected(error)) => {
                self.end_life(node, false);
                self.tell(node, What::Rejected(error));
            }
        }
    }

    fn give(&mut self, node: NodeNumber, input: Input) {
        let SimulatedNode { clock, life, .. } = &mut self.nodes[node.index()];
        let Some(life) = life.as_deref_mut() else { return };
        let mut outbox = std::mem::take(&mut self.outbox);
        life.peer.handle(clock.local(self.now_us), input, &mut outbox);
        for output in outbox.drain(..) {
            self.apply(node, output);
        }
        self.outbox = outbox;
    }

    /// Sees to it that the node is told when its peer or its shaper wants to be.
    pub(super) fn set_timer(&mut self, node: NodeNumber) {
        let SimulatedNode { clock, life, .. } = &mut self.nodes[node.index()];
        let Some(life) = life.as_deref_mut().filter(|life| !life.paused) else { return };
        let peer_us = life.peer.deadline().map(|deadline| clock.moment(deadline));
        let shaper = life.shaper.as_ref().and_then(|shaper| shaper.deadline());
        let due_us = peer_us.into_iter().chain(shaper.map(|at| at.as_micros())).min();
        let Some(due_us) = due_us.map(|due_us| due_us.max(self.now_us)) else { return };
        // A timer that is due later stays in the queue, and is passed over then.
        if due_us < life.timer_us {
            life.timer_us = due_us;
            self.queue.push(due_us, Due::Timer(node));
        }
    }

    fn apply(&mut self, node: NodeNumber, output: Output) {
        match output {
            Output::Send { to, message } => self.send(node, to, message),
            Output::Connect { access_point } => self.connect(node, access_point),
            Output::Reach { contact } => self.reach(node, contact),
            Output::Deliver(delivery) => self.tell(node, What::Delivered(delivery)),
            Output::Completed { operation, result } => self.complete(node, operation, result),
            Output::Sent { operation, result } => self.tell(node, What::Sent { operation, result }),
            Output::Answered { operation, result } => self.tell(node, What::Answered { operation, result }),
            Output::Event(event) => self.on_event(node, event),
            Output::Observe(Observation::HopLatency(latency)) => {
                if let Some(recorder) = self.recorder(node) {
                    recorder.hop(latency);
                }
            }
            // Counted when it completes, from when it was meant to start.
            Output::Observe(Observation::Lookup { .. }) => {}
        }
    }

    fn complete(&mut self, node: NodeNumber, operation: u64, result: Result<Found, RouteError>) {
        let now_us = self.now_us;
        let Some(life) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let Some(place) = life.operations.iter().position(|pending| pending.number == operation) else {
            return;
        };
        let Operation { intended_us, issued_us, .. } = life.operations.swap_remove(place);
        if let Some(recorder) = &mut life.recorder {
            let latency = std::time::Duration::from_micros(now_us.saturating_sub(intended_us));
            recorder.lookup(latency, result.map(|found| found.hops));
        }
        self.tell(node, What::Completed { operation, issued_us, result });
    }

    fn on_event(&mut self, node: NodeNumber, event: Event) {
        let Some(life) = self.nodes[node.index()].life.as_deref_mut() else { return };
        match event {
            Event::Left { handed_over } => life.end = Some(LifeEnd::Left { handed_over }),
            Event::Rejected(error) => life.end = Some(LifeEnd::Rejected(error)),
            Event::Undelivered { destination, reason } => {
                self.tell(node, What::Undelivered { destination, reason });
            }
            Event::ItemsLeftBehind { items } => self.tell(node, What::ItemsLeftBehind { items }),
            Event::Connected { .. } => {
                if !std::mem::replace(&mut life.joined, true) {
                    self.tell(node, What::Joined);
                    self.tell_ring(node);
                }
            }
            Event::Alone | Event::NewSuccessor(_) | Event::NewPredecessor(_) => self.tell_ring(node),
            Event::NewSuccessorList(_)
            | Event::NewFinger(..)
            | Event::Suspected(_)
            | Event::NewProxy(_)
            | Event::ClientJoined(_)
            | Event::ClientLeft(_) => {}
        }
    }

    /// Tells of a member's neighbours, if they have changed.
    pub(super) fn tell_ring(&mut self, node: NodeNumber) {
        let Some(life) = self.nodes[node.index()].life.as_deref_mut() else { return };
        if !life.joined || matches!(life.peer.phase(), Phase::Client | Phase::Ended) {
            return;
        }
        let predecessor = life.peer.predecessor().map(|contact| contact.id);
        let successor = life.peer.successors().first().map_or(life.peer.me().id, |contact| contact.id);
        if life.ring.replace((predecessor, successor)) != Some((predecessor, successor)) {
            self.tell(node, What::Ring { predecessor, successor });
        }
    }
}

/// What is on its way, in slots that are used again.
#[derive(Debug, Default)]
pub(super) struct Slab {
    slots: Vec<Option<Flight>>,
    free: Vec<u32>,
}

impl Slab {
    pub(super) fn insert(&mut self, flight: Flight) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(flight);
                slot
            }
            None => {
                self.slots.push(Some(flight));
                (self.slots.len() - 1) as u32
            }
        }
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Flight> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Flight> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn take(&mut self, slot: u32) -> Option<Flight> {
        let flight = self.slots.get_mut(slot as usize)?.take();
        if flight.is_some() {
            self.free.push(slot);
        }
        flight
    }
}
