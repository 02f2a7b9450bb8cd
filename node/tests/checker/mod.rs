//! Random scenarios for the invariants: one seed draws a network's settings and sizes, and the joins, leaves, crashes, pauses,
//! partitions and losses that it goes through, with operations all along. Safety is checked after every step; when the faults have
//! stopped, the network must become ideal within the stated rounds, and all that was asked for must have ended.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod crowd;
pub mod keys;
pub mod lost_acks;

use std::fmt;
use std::time::Duration;

use p2ps::config::{Geometry, NetConfig};
use p2ps::id::{Id, Ring};
use p2ps::invariant::acquaintance::are_acquainted;
use p2ps::invariant::tables::{FINGERS_HEAL_WITHIN, RING_HEALS_WITHIN, fingers_are_ideal, ring_is_ideal};
use p2ps::invariant::{self, Asked, Moment, View, Violation};
use p2ps::peer::{Input, Peer, Phase};
use p2ps::time::Time;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::network::Network;

/// How long operations have to end once the network is ideal: a reliable message's 20 s, and some more.
const OPERATIONS_END_WITHIN: Duration = Duration::from_secs(30);

/// A scenario takes some thousand steps, and a hundred thousand where look-ups go round in a ring that is broken; more have no end.
const STEPS_MAX: u64 = 300_000;

/// How long until what has no end of its own, such as a broadcast, has come to one.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a network may take to come up.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// What happens to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Nodes join and leave.
    Graceful,
    /// They crash too; whoever has a link to them sees it break.
    Crashes,
    /// Besides, messages are lost, nodes pause and the network parts: living nodes are taken for dead.
    Unreliable,
}

/// What one seed draws.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub regime: Regime,
    pub net: NetConfig,
    pub nodes: usize,
    pub events: usize,
    pub latency_us_max: u64,
    pub loss_per_mille: u64,
}

impl Scenario {
    pub fn draw(seed: u64) -> Scenario {
        let mut randomness = Pcg32::seed_from_u64(seed ^ 0x5ce7a210);
        let mut draw = |below: u64| randomness.next_u64() % below;
        let regime = [Regime::Graceful, Regime::Crashes, Regime::Unreliable][(seed % 3) as usize];
        let geometry = match draw(4) {
            0 => Geometry::Chord,
            1 => Geometry::Tango { k: 3, symmetric: false },
            2 => Geometry::Tango { k: 3, symmetric: true },
            _ => Geometry::Tango { k: 5, symmetric: true },
        };
        let ring = Ring::new(1 << [8, 16, 32, 64][draw(4) as usize]).unwrap();
        let net = NetConfig::new(ring, geometry, 2 + draw(4) as u8).unwrap();
        let lossy = regime == Regime::Unreliable && draw(2) == 0;
        Scenario {
            seed,
            regime,
            net,
            nodes: 2 + draw(12) as usize,
            events: 10 + draw(15) as usize,
            latency_us_max: 2_000 + draw(80_000),
            loss_per_mille: if lossy { 20 + draw(80) } else { 0 },
        }
    }
}

/// A scenario in which an invariant did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    pub scenario: Scenario,
    pub at: Time,
    pub violation: Violation,
    pub network: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}\nat {:?}: {}\n{}", self.scenario, self.at, self.violation, self.network)
    }
}

/// What a clean scenario has gone through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub steps: u64,
    pub operations: u64,
    /// The most duplicates of one errand that were sent.
    pub duplicates: u64,
    /// From the last fault until the ring, and from then until the fingers, were ideal.
    pub ring_healed_after: Duration,
    pub fingers_healed_after: Duration,
}

/// Runs a seed's scenario on nodes that `prepare` has prepared.
pub fn check(seed: u64, prepare: impl Fn(&mut Peer) + 'static) -> Result<Summary, Box<Failure>> {
    let scenario = Scenario::draw(seed);
    let mut network = Network::new(scenario.net, seed);
    network.latency_us = 500..scenario.latency_us_max;
    network.prepare = Box::new(prepare);
    let mut run =
        Run { scenario, network, summary: Summary::default(), established: 1, failures: 0, dead: vec![] };
    match run.go() {
        Ok(()) => Ok(run.summary),
        Err(violation) => Err(Box::new(Failure {
            scenario,
            at: run.network.now,
            violation,
            network: run.network.describe(),
        })),
    }
}

/// A network that is run step by step, and checked after each.
trait Checked {
    fn network(&mut self) -> &mut Network;

    /// The next thing that happens until `end`, and the check; `false`: nothing happens until then.
    fn step(&mut self, end: Time) -> Result<bool, Violation>;

    fn run_for(&mut self, length: Duration) -> Result<(), Violation> {
        let end = self.network().now + length;
        while self.step(end)? {}
        self.network().now = end;
        Ok(())
    }

    /// Runs until something holds; what does not hold in time is the violation.
    fn run_until(
        &mut self,
        limit: Duration,
        holds: impl Fn(&View<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let end = self.network().now + limit;
        loop {
            match holds(&self.network().view()) {
                Ok(()) => return Ok(()),
                Err(violation) if !self.step(end)? => return Err(violation),
                Err(_) => {}
            }
        }
    }
}

struct Run {
    scenario: Scenario,
    network: Network,
    summary: Summary,
    /// The members when the ring was ideal last.
    established: usize,
    /// The crashes and leaves since then.
    failures: usize,
    dead: Vec<Id>,
}

impl Run {
    fn go(&mut self) -> Result<(), Violation> {
        self.start()?;
        self.network.loss_per_mille = self.scenario.loss_per_mille;
        for _ in 0..self.scenario.events {
            self.happen();
            self.ask();
            let pause = match self.network.random(4) {
                0 => Duration::from_millis(self.network.random(50)),
                1 => Duration::from_millis(self.network.random(20_000)),
                _ => Duration::from_millis(self.network.random(2_000)),
            };
            self.run_for(pause)?;
        }
        self.end_faults();
        self.become_ideal()?;
        let earlier = self.network.journal.operations().count() as u64;
        for _ in 0..4 {
            self.ask();
        }
        self.run_until(OPERATIONS_END_WITHIN, all_ended)?;
        self.run_for(SILENCE)?;
        self.broadcast_costs_one_message_a_node()?;
        self.summary.operations = self.network.journal.operations().count() as u64;
        self.summary.duplicates = self.network.journal.most_duplicated().map_or(0, |(_, most)| most.times);
        all_succeeded(&self.network.view(), earlier)?;
        invariant::check(&self.network.view(), Moment::Quiet)
    }

    /// On a stable ring: exactly n - 1 (overlay paper's services; El-Ansary et al. 2003).
    fn broadcast_costs_one_message_a_node(&mut self) -> Result<(), Violation> {
        let before = self.broadcast_messages();
        self.broadcast();
        self.run_for(SILENCE)?;
        let (sent, nodes) = (self.broadcast_messages() - before, self.network.members().len());
        let detail = format!("{sent} messages for {nodes} nodes");
        if sent == nodes as u64 - 1 {
            Ok(())
        } else {
            Err(violation("a broadcast costs n - 1 messages")(detail))
        }
    }

    /// How many messages all nodes have sent for broadcasts.
    fn broadcast_messages(&self) -> u64 {
        self.network.peers.values().map(|peer| peer.statistics().broadcast_messages).sum()
    }

    /// The first node, and then the others at once or one by one.
    fn start(&mut self) -> Result<(), Violation> {
        let first = self.network.random_id();
        self.network.create(first);
        let at_once = self.network.random(2) == 0;
        for count in 2..=self.scenario.nodes {
            let id = self.network.random_id();
            let via = if at_once { first } else { self.network.any_member() };
            self.network.join(id, &[via]);
            if !at_once {
                self.run_until(STARTS_WITHIN, |view| has_members(view, count))?;
            }
        }
        let nodes = self.scenario.nodes;
        self.run_until(STARTS_WITHIN, |view| has_members(view, nodes))?;
        self.run_until(RING_HEALS_WITHIN, ideal_ring)?;
        self.count_established();
        Ok(())
    }

    fn count_established(&mut self) {
        // Whoever is about to leave still counts as gone.
        let view = self.network.view();
        if all_settled(&view).and_then(|()| ideal_ring(&view)).is_ok() {
            (self.established, self.failures) = (self.network.members().len(), 0);
        }
    }

    fn happen(&mut self) {
        self.count_established();
        if self.is_apart() {
            self.network.journal.excuse_all();
        }
        let choices = match self.scenario.regime {
            Regime::Graceful => 4,
            Regime::Crashes => 7,
            Regime::Unreliable => 11,
        };
        match self.network.random(choices) {
            0 | 1 => self.join(),
            2 | 3 => self.leave(),
            4 | 5 => self.crash(),
            6 => self.come_back(),
            7 | 8 => self.pause(),
            9 => self.part(),
            _ => self.end_separations(),
        }
    }

    fn join(&mut self) {
        let (id, via) = (self.network.random_id(), self.random_member());
        self.network.join(id, &[via]);
    }

    fn leave(&mut self) {
        let id = self.random_member();
        if self.may_fail() && self.may_go(id) {
            self.failures += 1;
            self.network.leave(id);
        }
    }

    fn crash(&mut self) {
        let id = self.random_member();
        if self.may_fail() && self.may_go(id) {
            self.failures += 1;
            self.network.kill(id);
            self.dead.push(id);
        }
    }

    /// A node that has crashed starts again with the same id.
    fn come_back(&mut self) {
        if let Some(id) = self.dead.pop().filter(|id| !self.network.peers.contains_key(id)) {
            let via = self.random_member();
            self.network.join(id, &[via]);
        }
    }

    fn pause(&mut self) {
        if self.may_fail() {
            let id = self.random_member();
            self.failures += 1;
            self.network.paused.insert(id);
            self.network.journal.excuse_all();
        }
    }

    fn part(&mut self) {
        if self.network.island.is_empty() {
            for id in self.network.members() {
                if self.network.random(3) == 0 {
                    self.network.island.insert(id);
                }
            }
            self.network.journal.excuse_all();
        }
    }

    fn is_apart(&self) -> bool {
        !self.network.paused.is_empty() || !self.network.island.is_empty()
    }

    fn end_separations(&mut self) {
        if self.is_apart() {
            self.network.journal.excuse_all();
        }
        self.network.paused.clear();
        self.network.island.clear();
    }

    fn end_faults(&mut self) {
        self.network.loss_per_mille = 0;
        self.end_separations();
    }

    /// Whether the rules allow one more node to fail: some entry of every list must live, and a successor list's worth of
    /// failures may only come again when the last ones are repaired.
    fn may_fail(&self) -> bool {
        let tolerated = self.scenario.net.successors().min(self.established).saturating_sub(1);
        self.failures < tolerated && self.awake().len() > 1
    }

    /// Whether those that remain without a node know of each other.
    fn may_go(&self, id: Id) -> bool {
        let others = self.network.peers.values().filter(|peer| peer.me().id != id);
        self.scenario.regime != Regime::Unreliable || are_acquainted(others)
    }

    fn awake(&self) -> Vec<Id> {
        self.network.members().into_iter().filter(|id| !self.network.paused.contains(id)).collect()
    }

    fn random_member(&mut self) -> Id {
        let awake = self.awake();
        let all = self.network.members();
        let choice = if awake.is_empty() { all } else { awake };
        choice[self.network.random(choice.len() as u64) as usize]
    }

    /// Some operations, by random nodes.
    fn ask(&mut self) {
        for _ in 0..1 + self.network.random(3) {
            let (by, other, key) = (self.random_member(), self.random_member(), self.network.random_id());
            match self.network.random(5) {
                0 | 1 => self.order(by, Asked::Lookup { key }),
                2 | 3 => {
                    for _ in 0..2 {
                        self.order(by, Asked::Reliable { destination: other });
                    }
                }
                _ => self.order(by, Asked::Send { destination: other }),
            }
        }
        if self.scenario.regime != Regime::Unreliable && self.network.random(4) == 0 {
            self.broadcast();
        }
    }

    fn broadcast(&mut self) {
        let by = self.random_member();
        let audience = self.network.view().known_members().filter(|me| me.id != by).collect();
        self.order(by, Asked::Broadcast { audience });
    }

    fn order(&mut self, by: Id, asked: Asked) {
        let contact = self.network.peers[&by].me();
        let operation = self.network.journal.ask(contact, asked.clone());
        self.network.journal.observe(self.network.peers.values());
        if self.moment() == Moment::Any {
            self.network.journal.excuse_lookups();
        }
        self.network.give(by, Input::Command(asked.command(operation)));
    }

    /// The ring, then the fingers, within their rounds.
    fn become_ideal(&mut self) -> Result<(), Violation> {
        let begin = self.network.now;
        self.run_until(RING_HEALS_WITHIN, |view| all_settled(view).and(ideal_ring(view)))?;
        let healed = self.network.now;
        self.run_until(FINGERS_HEAL_WITHIN, ideal_fingers)?;
        self.summary.ring_healed_after = healed - begin;
        self.summary.fingers_healed_after = self.network.now - healed;
        Ok(())
    }

    /// Zave's theorem is for networks that keep r + 1 members through all failures: smaller ones heal, but promise less meanwhile.
    fn moment(&self) -> Moment {
        match self.scenario.regime {
            Regime::Graceful | Regime::Crashes if self.failures == 0 || self.are_enough_left() => {
                Moment::FailuresSeen
            }
            _ => Moment::Any,
        }
    }

    fn are_enough_left(&self) -> bool {
        self.established - self.failures > self.scenario.net.successors()
    }
}

impl Checked for Run {
    fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// After it the invariants that hold always must hold.
    fn step(&mut self, end: Time) -> Result<bool, Violation> {
        if self.moment() == Moment::Any {
            self.network.journal.excuse_lookups();
        }
        let stepped = self.network.step(end);
        if self.summary.steps > STEPS_MAX {
            return Err(violation("a scenario ends")(format!("not within {STEPS_MAX} steps")));
        }
        self.network.journal.observe(self.network.peers.values());
        self.summary.steps += 1;
        let moment = self.moment();
        let enough = self.scenario.net.successors() + 1;
        let principals = if self.are_enough_left() { enough } else { 0 };
        invariant::check(&self.network.view().with_principals(principals), moment)?;
        Ok(stepped)
    }
}

fn violation(invariant: &'static str) -> impl FnOnce(String) -> Violation {
    move |detail| Violation { invariant, detail }
}

fn ideal_ring(view: &View<'_>) -> Result<(), Violation> {
    ring_is_ideal(view).map_err(violation("the ring heals in time"))
}

fn ideal_fingers(view: &View<'_>) -> Result<(), Violation> {
    fingers_are_ideal(view).map_err(violation("the fingers heal in time"))
}

fn has_members(view: &View<'_>, count: usize) -> Result<(), Violation> {
    let members = view.members().len();
    let detail = || format!("{members} of {count} nodes are members");
    if members == count { Ok(()) } else { Err(violation("nodes join in time")(detail())) }
}

/// Nobody joins or leaves any more.
fn all_settled(view: &View<'_>) -> Result<(), Violation> {
    match view.nodes().find(|peer| peer.phase() != Phase::Member) {
        Some(peer) => {
            Err(violation("joins and leaves end in time")(format!("{} is {:?}", peer.me().id, peer.phase())))
        }
        None => Ok(()),
    }
}

/// On a network without faults, whatever was asked for after the first `earlier` operations was done.
fn all_succeeded(view: &View<'_>, earlier: u64) -> Result<(), Violation> {
    let failed = view.journal.operations().filter(|(number, _)| *number > earlier).find(|(_, operation)| {
        let delivered = operation.deliveries.len() == 1;
        !match operation.asked {
            Asked::Lookup { .. } => matches!(operation.ends[..], [Ok(_)]),
            Asked::Reliable { .. } => matches!(operation.ends[..], [Ok(_)]) && delivered,
            Asked::Write { .. } | Asked::Read { .. } => matches!(operation.ends[..], [Ok(_)]),
            Asked::Send { .. } => delivered,
            Asked::Broadcast { .. } => true,
        }
    });
    match failed {
        Some((number, operation)) => {
            Err(violation("operations succeed without faults")(format!("{number}: {operation:?}")))
        }
        None => Ok(()),
    }
}

fn all_ended(view: &View<'_>) -> Result<(), Violation> {
    let open = view
        .journal
        .operations()
        .find(|(_, operation)| operation.is_open() && view.running(operation.by).is_some());
    match open {
        Some((number, operation)) => {
            Err(violation("operations end in time")(format!("{number}: {operation:?}")))
        }
        None => Ok(()),
    }
}
