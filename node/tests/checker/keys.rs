//! Random scenarios for the dictionary: one seed draws a small network with a few dozen keys, and bursts of joins, leaves and
//! crashes, with reads and writes all along. A read must see what was acknowledged before it began; when it is quiet, every
//! acknowledged write is there, in all of its places.

use std::fmt;
use std::time::Duration;

use p2ps::config::{Geometry, NetConfig};
use p2ps::id::{Id, Ring};
use p2ps::invariant::keys::copies_are_in_place;
use p2ps::invariant::tables::RING_HEALS_WITHIN;
use p2ps::invariant::{self, Asked, Moment, Violation};
use p2ps::peer::{Input, Peer};
use p2ps::services::dictionary::OPERATION_TIMEOUT;
use p2ps::services::dictionary::conservation::lost;
use p2ps::time::Time;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::{
    Checked, STARTS_WITHIN, all_ended, all_settled, all_succeeded, has_members, ideal_ring, violation,
};
use crate::network::Network;

/// How long after the last burst all copies are in their places: those of few keys are compared every half a minute.
const COPIES_RESTORED_WITHIN: Duration = Duration::from_secs(100);

/// What one seed draws.
#[derive(Clone, Copy, Debug)]
pub struct KeyScenario {
    pub seed: u64,
    pub net: NetConfig,
    pub nodes: usize,
    pub keys: usize,
    pub bursts: usize,
    pub latency_us_max: u64,
    /// Whether nodes crash, at most as many at once as a key has further copies, or only join and leave.
    pub crashes: bool,
}

impl KeyScenario {
    pub fn draw(seed: u64) -> KeyScenario {
        let mut randomness = Pcg32::seed_from_u64(seed ^ 0xd1c7);
        let mut draw = |below: u64| randomness.next_u64() % below;
        let crashes = seed % 2 == 1;
        let replication = if crashes { 2 + draw(2) } else { 1 + draw(3) };
        let ring = Ring::new(1 << [16, 32, 64][draw(3) as usize]).unwrap();
        let net = NetConfig::new(ring, Geometry::Tango { k: 3, symmetric: draw(2) == 0 }, 4).unwrap();
        KeyScenario {
            seed,
            net: net.with_replication(replication as u8).unwrap(),
            nodes: 2 + draw(5) as usize + if crashes { 2 } else { 0 },
            keys: 30 + draw(40) as usize,
            bursts: 6,
            latency_us_max: 5_000 + draw(80_000),
            crashes,
        }
    }
}

/// A scenario in which the dictionary did not keep its word.
#[derive(Clone, Debug)]
pub struct KeyFailure {
    pub scenario: KeyScenario,
    pub violation: Violation,
    pub network: String,
}

impl fmt::Display for KeyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}\n{}\n{}", self.scenario, self.violation, self.network)
    }
}

/// Runs a seed's scenario on nodes that `prepare` has prepared, and tells how many reads and writes there were.
pub fn check_keys(seed: u64, prepare: impl Fn(&mut Peer) + 'static) -> Result<u64, Box<KeyFailure>> {
    let scenario = KeyScenario::draw(seed);
    let mut network = Network::new(scenario.net, seed);
    network.latency_us = 500..scenario.latency_us_max;
    network.prepare = Box::new(prepare);
    let mut run = Run { scenario, network, keys: Vec::new() };
    match run.go() {
        Ok(()) => Ok(run.operations()),
        Err(violation) => Err(Box::new(KeyFailure { scenario, violation, network: run.network.describe() })),
    }
}

struct Run {
    scenario: KeyScenario,
    network: Network,
    keys: Vec<Id>,
}

impl Run {
    fn go(&mut self) -> Result<(), Violation> {
        self.start()?;
        for _ in 0..self.scenario.keys {
            let key = self.network.random_id();
            self.keys.push(key);
            self.order(Asked::Write { key });
        }
        self.come_to_rest()?;
        for _ in 0..self.scenario.bursts {
            self.burst()?;
            for _ in 0..40 {
                self.ask();
                let pause = self.network.random(100);
                self.run_for(Duration::from_millis(pause))?;
            }
            if self.scenario.crashes {
                self.come_to_rest()?;
            }
        }
        self.come_to_rest()?;
        let earlier = self.operations();
        for key in self.keys.clone() {
            self.order(Asked::Read { key });
        }
        self.run_until(OPERATION_TIMEOUT, all_ended)?;
        all_succeeded(&self.network.view(), earlier)
    }

    fn operations(&self) -> u64 {
        self.network.journal.operations().count() as u64
    }

    fn start(&mut self) -> Result<(), Violation> {
        let first = self.network.random_id();
        self.network.create(first);
        for count in 2..=self.scenario.nodes {
            let (id, via) = (self.network.random_id(), self.network.any_member());
            self.network.join(id, &[via]);
            self.run_until(STARTS_WITHIN, |view| has_members(view, count))?;
        }
        self.run_until(RING_HEALS_WITHIN, ideal_ring)
    }

    /// Nodes join and leave at once, or nearly so; or some join, and then some crash, perhaps while others are joining still.
    fn burst(&mut self) -> Result<(), Violation> {
        for _ in 0..=self.network.random(4) {
            let members = self.network.members().len();
            if !self.scenario.crashes && members > 2 && self.network.random(2) == 0 {
                let leaver = self.network.any_member();
                self.network.leave(leaver);
            } else {
                let (id, via) = (self.network.random_id(), self.network.any_member());
                self.network.join(id, &[via]);
            }
            let pause = self.network.random(60);
            self.run_for(Duration::from_millis(pause))?;
        }
        if self.scenario.crashes && self.network.random(2) == 0 {
            self.crash();
        }
        Ok(())
    }

    /// As many nodes as a key has further copies, as long as a copy of each key is left: on a small ring some nodes have several.
    fn crash(&mut self) {
        for _ in 1..self.scenario.net.replication() {
            let victim = self.network.any_member();
            let others = self.network.peers.values().filter(|peer| peer.me().id != victim);
            let lost = lost(others.map(Peer::dictionary), self.network.journal.acknowledged());
            if lost.is_empty() && self.network.members().len() > 2 {
                self.network.kill(victim);
            }
        }
    }

    /// A read as a rule, or a write, of any key by any node.
    fn ask(&mut self) {
        let key = self.keys[self.network.random(self.keys.len() as u64) as usize];
        let asked = if self.network.random(5) == 0 { Asked::Write { key } } else { Asked::Read { key } };
        self.order(asked);
    }

    fn order(&mut self, asked: Asked) {
        let by = self.network.any_member();
        let operation = self.network.journal.ask(self.network.peers[&by].me(), asked.clone());
        self.network.give(by, Input::Command(asked.command(operation)));
    }

    /// The ring, then the copies, and nothing is under way.
    fn come_to_rest(&mut self) -> Result<(), Violation> {
        self.run_until(RING_HEALS_WITHIN, |view| all_settled(view).and(ideal_ring(view)))?;
        self.run_until(OPERATION_TIMEOUT, all_ended)?;
        self.run_until(COPIES_RESTORED_WITHIN, |view| {
            copies_are_in_place(view).map_err(violation("all copies come to their places"))
        })?;
        invariant::check(&self.network.view(), Moment::Quiet)
    }
}

impl Checked for Run {
    fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    fn step(&mut self, end: Time) -> Result<bool, Violation> {
        let stepped = self.network.step(end);
        match self.network.journal.outdated() {
            Some(outdated) => {
                Err(violation("a read sees what was acknowledged before it")(format!("{outdated:?}")))
            }
            None => Ok(stepped),
        }
    }
}
