//! A state of a small network: its nodes, what is on its way between them, and what may still happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::scenario::{Bounds, Question, Scenario};
use super::step::Step;
use crate::core::digest::Digest;
use crate::core::geometry::Offsets;
use crate::invariant::{Asked, Journal, View};
use crate::message::{Contact, HopVerdict, Message};
use crate::peer::{Command, Input, Outbox, Output, Peer, Phase};
use crate::time::Time;

/// A deadline that is at most so far away may come in any state, as a message may: acknowledgements that wait for company, and
/// the round that follows a change. To ask again who was busy is farther: it would go on for as long as they wait for something lost.
pub const NEAR_MAX: Duration = Duration::from_millis(20);

/// What is on its way over a link.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Message(Message),
    /// The link that was asked for stands.
    LinkUp,
    /// The sender of this is gone: the link broke off, or was closed in order.
    LinkDown {
        orderly: bool,
    },
    /// Nobody is there.
    Unreachable {
        expected: bool,
    },
}

impl Parcel {
    fn is_plain_ack(&self) -> bool {
        let Parcel::Message(Message::Acks(acks)) = self else { return false };
        acks.iter().all(|ack| matches!(ack.verdict, HopVerdict::Taken))
    }
}

/// A node that runs, on its own clock.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) peer: Arc<Peer>,
    pub(super) now: Time,
}

impl Running {
    /// How far away its next deadline is.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.peer.deadline().map(|deadline| deadline.since(self.now))
    }

    pub(super) fn is_due_soon(&self) -> bool {
        self.wait().is_some_and(|wait| wait <= NEAR_MAX)
    }
}

/// A state.
#[derive(Clone)]
pub(super) struct State {
    pub(super) scenario: Arc<Scenario>,
    pub(super) nodes: Vec<Option<Running>>,
    /// What is on its way, first in first out, by sender and receiver; no link is empty.
    pub(super) links: BTreeMap<(u8, u8), VecDeque<Arc<Parcel>>>,
    /// Pairs of nodes that have a link.
    open: BTreeSet<(u8, u8)>,
    /// What may still happen.
    pub(super) left: Bounds,
    /// The joiners that have started, as bits.
    started: u8,
    /// How many questions have been asked.
    asked: u8,
    pub(super) journal: Arc<Journal>,
    prepare: Arc<dyn Fn(&mut Peer)>,
    offsets: Arc<Offsets>,
}

impl State {
    /// Node 0 alone; the other members have not joined yet.
    pub(super) fn beginning(scenario: &Arc<Scenario>, prepare: Arc<dyn Fn(&mut Peer)>) -> State {
        let net = scenario.net();
        let offsets = Arc::new(Offsets::new(net.geometry(), net.ring()));
        let mut state = State {
            scenario: Arc::clone(scenario),
            nodes: vec![None; usize::from(scenario.nodes())],
            links: BTreeMap::new(),
            open: BTreeSet::new(),
            left: Bounds::default(),
            started: 0,
            asked: 0,
            journal: Arc::default(),
            prepare,
            offsets,
        };
        state.start(0, Input::Create);
        state
    }

    /// Starts a member of the beginning.
    pub(super) fn join_through(&mut self, node: u8, via: u8) {
        let bootstrap = vec![self.scenario.contact(via).access_point];
        self.start(node, Input::Join { bootstrap });
    }

    fn start(&mut self, node: u8, input: Input) {
        let me = self.scenario.contact(node);
        let mut peer = Peer::with_offsets(self.scenario.net(), me, 0, Arc::clone(&self.offsets));
        (self.prepare)(&mut peer);
        self.nodes[usize::from(node)] = Some(Running { peer: Arc::new(peer), now: Time::ZERO });
        self.give(node, input);
    }

    /// The nodes that run, with their numbers.
    pub(super) fn running(&self) -> impl Iterator<Item = (u8, &Running)> + '_ {
        self.nodes.iter().zip(0u8..).filter_map(|(node, number)| node.as_ref().map(|node| (number, node)))
    }

    pub(super) fn view(&self) -> View<'_> {
        View::new(self.running().map(|(_, node)| &*node.peer), &self.journal)
    }

    /// Whether nothing is on its way, and no deadline is near.
    pub(super) fn is_calm(&self) -> bool {
        self.links.is_empty() && !self.running().any(|(_, node)| node.is_due_soon())
    }

    /// All that can happen next.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for ((from, to), parcels) in &self.links {
            let (from, to) = (*from, *to);
            steps.push(Step::Deliver { from, to });
            let is_message =
                |place: usize| matches!(parcels.get(place).map(|parcel| &**parcel), Some(Parcel::Message(_)));
            if self.left.losses > 0 && is_message(0) {
                steps.push(Step::Lose { from, to });
            }
            if self.left.swaps > 0 && is_message(0) && is_message(1) {
                steps.push(Step::Swap { from, to });
            }
        }
        let far_may_come = self.left.rounds > 0 && self.is_calm();
        for (number, node) in self.running() {
            if node.is_due_soon() || far_may_come && node.peer.deadline().is_some() {
                steps.push(Step::Tick(number));
            }
            if self.scenario.is_victim(number) {
                if self.left.leaves > 0 && node.peer.phase() == Phase::Member {
                    steps.push(Step::Leave(number));
                }
                if self.left.crashes > 0 {
                    steps.push(Step::Crash(number));
                }
            }
        }
        for place in 0..self.scenario.joiners.len() as u8 {
            if self.started & (1 << place) == 0 {
                steps.push(Step::Join(self.scenario.members.len() as u8 + place));
            }
        }
        if usize::from(self.asked) < self.scenario.questions.len() {
            steps.push(Step::Ask);
        }
        steps
    }

    /// Lets a step happen; one that cannot happen here changes nothing.
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Deliver { from, to } => self.deliver(from, to),
            Step::Lose { from, to } => {
                self.left.losses = self.left.losses.saturating_sub(1);
                self.pop(from, to);
            }
            Step::Swap { from, to } => {
                self.left.swaps = self.left.swaps.saturating_sub(1);
                if let Some(parcels) = self.links.get_mut(&(from, to)).filter(|parcels| parcels.len() > 1) {
                    parcels.swap(0, 1);
                }
            }
            Step::Tick(node) => self.tick(node),
            Step::Join(node) => {
                let joiner = usize::from(node) - self.scenario.members.len();
                self.started |= 1 << joiner;
                self.join_through(node, self.scenario.joiners[joiner].1);
            }
            Step::Leave(node) => {
                self.left.leaves = self.left.leaves.saturating_sub(1);
                self.give(node, Input::Command(Command::Leave));
            }
            Step::Crash(node) => {
                self.left.crashes = self.left.crashes.saturating_sub(1);
                self.nodes[usize::from(node)] = None;
                self.gone(node, false);
            }
            Step::Ask => self.ask(),
        }
        self.hasten_acks();
        if !self.scenario.questions.is_empty() {
            let running = self.nodes.iter().flatten().map(|node| &*node.peer);
            Arc::make_mut(&mut self.journal).observe(running);
        }
    }

    /// Where no message can be lost any more, acknowledgements of hops that were taken are sent and arrive at once.
    fn hasten_acks(&mut self) {
        while self.left.losses == 0 {
            let due = self.running().find(|(_, node)| node.peer.is_ack_due()).map(|(number, _)| number);
            let arriving =
                self.links.iter().find(|(_, parcels)| parcels.front().is_some_and(|p| p.is_plain_ack()));
            match (due, arriving.map(|(link, _)| *link)) {
                (Some(node), _) => self.let_tick(node),
                (None, Some((from, to))) => self.deliver(from, to),
                (None, None) => return,
            }
        }
    }

    fn pop(&mut self, from: u8, to: u8) -> Option<Arc<Parcel>> {
        let parcels = self.links.get_mut(&(from, to))?;
        let parcel = parcels.pop_front();
        if parcels.is_empty() {
            self.links.remove(&(from, to));
        }
        parcel
    }

    fn push(&mut self, from: u8, to: u8, parcel: Parcel) {
        self.links.entry((from, to)).or_default().push_back(Arc::new(parcel));
    }

    fn deliver(&mut self, from: u8, to: u8) {
        let Some(parcel) = self.pop(from, to) else { return };
        let contact = self.scenario.contact(from);
        let input = match Arc::unwrap_or_clone(parcel) {
            Parcel::Message(message) => {
                self.open.insert((from.min(to), from.max(to)));
                Input::Receive { from: contact, message }
            }
            Parcel::LinkUp => Input::LinkUp { contact },
            Parcel::LinkDown { orderly } => Input::LinkDown { contact, orderly },
            Parcel::Unreachable { expected } => Input::Unreachable {
                access_point: contact.access_point,
                contact: expected.then_some(contact),
                reason: "connection refused".to_owned(),
            },
        };
        self.give(to, input);
    }

    fn tick(&mut self, node: u8) {
        let is_near = self.nodes[usize::from(node)].as_ref().is_some_and(Running::is_due_soon);
        if !is_near {
            self.left.rounds = self.left.rounds.saturating_sub(1);
        }
        self.let_tick(node);
    }

    /// A node's clock jumps to its next deadline.
    pub(super) fn let_tick(&mut self, node: u8) {
        if let Some(running) = &mut self.nodes[usize::from(node)] {
            running.now = running.peer.deadline().unwrap_or(running.now).max(running.now);
        }
        self.give(node, Input::Tick);
    }

    fn ask(&mut self) {
        let Some(question) = self.scenario.questions.get(usize::from(self.asked)).copied() else { return };
        self.asked += 1;
        let (by, asked) = match question {
            Question::Lookup { by, key } => (by, Asked::Lookup { key: crate::id::Id(key) }),
            Question::Reliable { by, to } => {
                (by, Asked::Reliable { destination: self.scenario.contact(to).id })
            }
            Question::Write { by, key } => (by, Asked::Write { key: crate::id::Id(key) }),
            Question::Read { by, key } => (by, Asked::Read { key: crate::id::Id(key) }),
            Question::Broadcast { by } => {
                let others = self.running().filter(|(number, node)| *number != by && node.peer.is_member());
                (by, Asked::Broadcast { audience: others.map(|(_, node)| node.peer.me()).collect() })
            }
        };
        if self.nodes[usize::from(by)].is_none() {
            return;
        }
        let journal = Arc::make_mut(&mut self.journal);
        let operation = journal.ask(self.scenario.contact(by), asked.clone());
        let running = self.nodes.iter().flatten().map(|node| &*node.peer);
        journal.observe(running);
        self.give(by, Input::Command(asked.command(operation)));
    }

    fn give(&mut self, node: u8, input: Input) {
        let Some(running) = &mut self.nodes[usize::from(node)] else { return };
        let mut out = Outbox::new();
        let peer = Arc::make_mut(&mut running.peer);
        peer.still();
        peer.handle(running.now, input, &mut out);
        let (me, ended) = (peer.me(), peer.phase() == Phase::Ended);
        for output in out {
            self.carry_out(node, me, output);
        }
        if ended {
            self.nodes[usize::from(node)] = None;
            self.gone(node, true);
        }
    }

    fn carry_out(&mut self, node: u8, me: Contact, output: Output) {
        match output {
            Output::Send { to, message } => match self.number_of(to) {
                Some(to) => self.push(node, to, Parcel::Message(message)),
                None => {
                    if let Some(to) = self.place_of(to) {
                        self.push(to, node, Parcel::Unreachable { expected: true });
                    }
                }
            },
            Output::Connect { access_point } => {
                let there = (0..self.scenario.nodes())
                    .find(|number| self.scenario.contact(*number).access_point == access_point);
                let Some(there) = there else { return };
                let parcel = if self.nodes[usize::from(there)].is_some() {
                    self.open.insert((node.min(there), node.max(there)));
                    Parcel::LinkUp
                } else {
                    Parcel::Unreachable { expected: false }
                };
                self.push(there, node, parcel);
            }
            Output::Observe(_) => {}
            output => {
                let is_of_interest = !matches!(&output, Output::Event(event)
                    if !matches!(event, crate::peer::Event::Left { .. }));
                if is_of_interest {
                    Arc::make_mut(&mut self.journal).hear(me, &output);
                }
            }
        }
    }

    fn place_of(&self, contact: Contact) -> Option<u8> {
        (0..self.scenario.nodes()).find(|number| self.scenario.contact(*number) == contact)
    }

    fn number_of(&self, contact: Contact) -> Option<u8> {
        self.place_of(contact).filter(|number| self.nodes[usize::from(*number)].is_some())
    }

    /// A node is gone: what was on its way to it is lost, and those who have a link to it see it end.
    fn gone(&mut self, node: u8, orderly: bool) {
        for other in (0..self.scenario.nodes()).filter(|other| *other != node) {
            let under_way = self.links.remove(&(other, node)).is_some();
            let had_link = self.open.remove(&(node.min(other), node.max(other)));
            if self.nodes[usize::from(other)].is_none() {
                self.links.remove(&(node, other));
            } else if had_link {
                self.push(node, other, Parcel::LinkDown { orderly });
            } else if under_way {
                self.push(node, other, Parcel::Unreachable { expected: true });
            }
        }
    }

    /// What tells this state from others; see the [room's](super) documentation.
    pub(super) fn digest(&self, rotations: &[u64]) -> u64 {
        Digest::of(self.scenario.net().ring(), rotations, |digest| {
            digest.unordered(self.running(), |digest, (_, node)| {
                digest.set_now(node.now);
                node.peer.digest(digest);
            });
            digest.unordered(&self.links, |digest, ((from, to), parcels)| {
                let (from, to) = (self.scenario.contact(*from).id, self.scenario.contact(*to).id);
                digest.id(from);
                digest.id(to);
                digest.ordered(parcels, |digest, parcel| {
                    digest.plain(&std::mem::discriminant(&**parcel));
                    match &**parcel {
                        Parcel::Message(message) => digest.message(from, to, message),
                        Parcel::LinkDown { orderly: flag } | Parcel::Unreachable { expected: flag } => {
                            digest.plain(flag);
                        }
                        Parcel::LinkUp => {}
                    }
                });
            });
            digest.unordered(&self.open, |digest, (one, other)| {
                digest.unordered([*one, *other], |digest, node| digest.id(self.scenario.contact(node).id));
            });
            digest.plain(&(self.left, self.started, self.asked));
            self.journal.digest(digest);
        })
    }
}
