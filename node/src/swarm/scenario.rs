//! What a seed draws: a network, what goes wrong in it, and what is asked of it.

use std::fmt;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::config::{Geometry, NetConfig, Routing, Stabilise};
use crate::id::Ring;
use crate::sim::{ClockSkew, Latency, Matrix, NetworkModel};

/// Sets a scenario's randomness apart from that of its run.
const STREAM: u64 = 0x5347_4d52;

/// The fewest and the most nodes that a network begins with.
pub const NODES: std::ops::RangeInclusive<u64> = 3..=120;

/// The most clients that a network has at first, where it has some.
pub const CLIENTS_MAX: u64 = 12;

/// The most nodes on a ring of so few ids that joiners would find them all taken.
const NODES_OF_SMALL_RING_MAX: u64 = 40;

const SECOND_US: u64 = 1_000_000;

/// How hard a scenario is on its nodes; each regime allows all faults of the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Regime {
    /// Nodes come and go in order.
    Graceful,
    /// They crash too: all that is taken for dead is dead.
    Crashes,
    /// Besides, living nodes may be taken for dead.
    Unreliable,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A new node joins by a random one.
    Joins,
    /// A node leaves gracefully.
    Leaves,
    /// A node's process is killed; its links break.
    Crashes,
    /// Several neighbours are killed at once: as many as the successor lists, and the copies of keys, allow.
    NeighboursCrash,
    /// A node's host vanishes; its links just fall silent.
    Vanishings,
    /// A node that is gone starts again, with its id.
    Restarts,
    /// A node's process stands still for a while.
    Pauses,
    /// A part of the nodes is cut off from the others.
    Partitions,
    /// What a part of the nodes sends to the others is lost, but not the other way round.
    OneWayCuts,
    /// A part of the nodes has slow, jittery, lossy links to the others.
    BadLinks,
    /// Messages are lost everywhere.
    Loss,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 11] = [
        Fault::Joins,
        Fault::Leaves,
        Fault::Crashes,
        Fault::NeighboursCrash,
        Fault::Vanishings,
        Fault::Restarts,
        Fault::Pauses,
        Fault::Partitions,
        Fault::OneWayCuts,
        Fault::BadLinks,
        Fault::Loss,
    ];

    /// The mildest regime that has it.
    pub fn regime(self) -> Regime {
        match self {
            Fault::Joins | Fault::Leaves => Regime::Graceful,
            Fault::Crashes | Fault::NeighboursCrash | Fault::Vanishings | Fault::Restarts => Regime::Crashes,
            Fault::Pauses | Fault::Partitions | Fault::OneWayCuts | Fault::BadLinks | Fault::Loss => {
                Regime::Unreliable
            }
        }
    }
}

/// What applications ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Look-ups of random keys.
    Lookups,
    /// Best-effort messages to single nodes.
    Messages,
    /// Reliable messages, several of a pair at once.
    ReliableMessages,
    /// Messages to all.
    Broadcasts,
    /// Messages to some.
    Multicasts,
    /// Insert, get and remove.
    Dictionary,
}

impl Service {
    /// All services.
    pub const ALL: [Service; 6] = [
        Service::Lookups,
        Service::Messages,
        Service::ReliableMessages,
        Service::Broadcasts,
        Service::Multicasts,
        Service::Dictionary,
    ];
}

/// How a network comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its nodes are members of a converged ring from their first moment.
    Converged,
    /// All others join by the first node at once.
    AtOnce,
    /// They join by random members, one after the other.
    OneByOne,
}

/// What a seed draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// The network's settings.
    pub net: NetConfig,
    /// How many nodes it begins with, in [`NODES`].
    pub nodes: usize,
    /// How it comes up.
    pub start: Start,
    /// Its links and clocks; the loss is that of the times of faults, 0 without [`Fault::Loss`].
    pub model: NetworkModel,
    /// How hard it gets.
    pub regime: Regime,
    /// The faults that there are.
    pub faults: Vec<Fault>,
    /// The mean time between two faults, in microseconds.
    pub fault_pause_us: u64,
    /// What is asked for.
    pub services: Vec<Service>,
    /// The mean time between two operations in times of faults, in microseconds.
    pub operation_pause_us: u64,
    /// How many nodes it has besides, at first, that others cannot reach: clients.
    pub clients: usize,
    /// The mean time between two faults of clients or of their proxies, in microseconds.
    pub client_pause_us: u64,
    /// How many keys of the dictionary are in use.
    pub keys: usize,
    /// How often a time of faults comes, with healing and rest after it.
    pub episodes: u32,
    /// How long faults go on in each, in microseconds.
    pub faults_us: u64,
    /// How long the network rests after each, in microseconds.
    pub rest_us: u64,
}

impl Scenario {
    /// Draws a seed's scenario. Each kind of fault of the regime, and each service, is in it or not by the toss of a coin: what
    /// is left out matters, since one feature can hide another's bugs (Groce et al. 2012, *Swarm testing*).
    pub fn draw(seed: u64) -> Scenario {
        let draws = &mut Draws(Pcg32::new(seed, STREAM));
        let regime = draws.of(&[Regime::Graceful, Regime::Crashes, Regime::Unreliable]);
        let allowed: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| fault.regime() <= regime).collect();
        let mut faults = draws.some(&allowed);
        // What makes the regime, and somebody who comes where others go.
        let of_regime: Vec<Fault> = allowed.into_iter().filter(|fault| fault.regime() == regime).collect();
        if !faults.iter().any(|fault| fault.regime() == regime) {
            faults.push(draws.of(&of_regime));
        }
        let services = draws.some(&Service::ALL);
        let ring = draws.of(&[1 << 8, 1000, 1 << 16, 1 << 32, 1 << 64]);
        let nodes = match draws.below(3) {
            0 => draws.within(*NODES.start(), 8),
            1 => draws.within(9, 40),
            _ if ring <= 1000 => draws.within(9, NODES_OF_SMALL_RING_MAX),
            _ => draws.within(41, *NODES.end()),
        };
        let loss_ppm = draws.within(2_000, 80_000) as u32;
        let loss_ppm = if faults.contains(&Fault::Loss) { loss_ppm } else { 0 };
        let scenario = Scenario {
            seed,
            net: net(draws, ring),
            nodes: nodes as usize,
            start: draws.of(&[Start::Converged, Start::Converged, Start::AtOnce, Start::OneByOne]),
            model: NetworkModel { latency: latency(draws), loss_ppm, clock_skew: clock_skew(draws) },
            regime,
            faults,
            fault_pause_us: draws.of(&[200_000, SECOND_US, 3 * SECOND_US, 10 * SECOND_US]),
            services,
            operation_pause_us: draws.of(&[50_000, 200_000, SECOND_US, 5 * SECOND_US]),
            clients: 0,
            client_pause_us: SECOND_US,
            keys: draws.within(5, 100) as usize,
            episodes: draws.within(1, 4) as u32,
            faults_us: draws.within(20, 240) * SECOND_US,
            rest_us: draws.within(300, 2400) * SECOND_US,
        };
        // What came to be drawn later is drawn last: seeds keep the rest of what they had.
        let net = scenario.net.with_routing(routing(draws)).expect("options are drawn within their bounds");
        let clients = draws.within(1, CLIENTS_MAX) * draws.below(2);
        let client_pause_us = draws.of(&[SECOND_US, 3 * SECOND_US, 10 * SECOND_US, 30 * SECOND_US]);
        Scenario { net, clients: clients as usize, client_pause_us, ..scenario }
    }

    /// Whether nodes may be kept apart, or stand still: then much is forgiven to what is under way.
    pub fn separates(&self) -> bool {
        let separating = [Fault::Pauses, Fault::Partitions, Fault::OneWayCuts, Fault::BadLinks];
        self.faults.iter().any(|fault| separating.contains(fault))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { seed, net, nodes, start, model, faults, services, .. } = self;
        let latency = match &model.latency {
            Latency::Matrix(_) => "a matrix".to_owned(),
            other => format!("{other:?}"),
        };
        write!(f, "seed {seed}: {nodes} nodes ({start:?}), {net}; {:?}: {faults:?}", self.regime)?;
        write!(f, " each {:.1} s, loss {} ppm", seconds(self.fault_pause_us), model.loss_ppm)?;
        write!(f, "; {services:?} each {:.2} s", seconds(self.operation_pause_us))?;
        if self.clients > 0 {
            write!(f, "; {} clients, faults each {:.0} s", self.clients, seconds(self.client_pause_us))?;
        }
        write!(f, "; latency {latency}; {} times ", self.episodes)?;
        write!(f, "{:.0} s of faults and {:.0} s of rest", seconds(self.faults_us), seconds(self.rest_us))
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / SECOND_US as f64
}

fn net(draws: &mut Draws, ring: u128) -> NetConfig {
    let geometry = match draws.below(4) {
        0 => Geometry::Chord,
        1 => Geometry::Dks { k: draws.within(2, 6) as u16 },
        2 => Geometry::Tango { k: draws.within(2, 8) as u16, symmetric: false },
        _ => Geometry::Tango { k: draws.of(&[3, 5, 7]), symmetric: true },
    };
    let successors = draws.within(2, 8) as u8;
    let replication = draws.of(&[1, 2, 3, 3, 5]);
    let ring = Ring::new(ring).expect("rings that are drawn have at least 2 ids");
    NetConfig::new(ring, geometry, successors)
        .and_then(|net| net.with_replication(replication))
        .expect("settings are drawn within their bounds")
}

/// As by default in every second network; else each option or not.
fn routing(draws: &mut Draws) -> Routing {
    if draws.below(2) == 0 {
        return Routing::default();
    }
    let mut is_drawn = || draws.below(2) == 0;
    let (correction_on_use, correction_on_change) = (is_drawn(), is_drawn());
    let (is_fixed, proximity, has_cache) = (is_drawn(), is_drawn(), is_drawn());
    // Not longer than adaptive rounds get, for which the times of healing are stated.
    let period_ms = draws.of(&[1000, 2000, 8000]);
    let link_cache = draws.of(&[2, 16, 128]);
    Routing {
        correction_on_use,
        correction_on_change,
        stabilise: if is_fixed { Stabilise::Every { period_ms } } else { Stabilise::Adaptive },
        proximity,
        link_cache: if has_cache { link_cache } else { 0 },
    }
}

fn latency(draws: &mut Draws) -> Latency {
    let millis = draws.within(1, 60) * 1000;
    match draws.below(5) {
        0 => Latency::Constant { us: millis },
        1 => Latency::Uniform { min_us: millis / 10, max_us: millis * 2 },
        2 => Latency::LogNormal { median_us: millis, sigma: draws.of(&[0.1, 0.3, 0.5]) },
        3 => Latency::Coordinates { mean_us: millis },
        _ => Latency::Matrix(std::sync::Arc::new(matrix(draws))),
    }
}

/// Sites that are each some way from each other, not the same both ways.
fn matrix(draws: &mut Draws) -> Matrix {
    let sites = draws.within(2, 6);
    let mut row = |here: u64| {
        let latency = |there| if here == there { 1 } else { draws.within(5, 120) };
        (0..sites).map(latency).map(|millis| millis.to_string()).collect::<Vec<_>>().join(" ")
    };
    let text = (0..sites).map(&mut row).collect::<Vec<_>>().join("\n");
    Matrix::parse(&text).expect("the matrix is square, its entries are milliseconds")
}

/// None, or as bad as real hosts' without time synchronisation.
fn clock_skew(draws: &mut Draws) -> ClockSkew {
    match draws.below(2) {
        0 => ClockSkew::default(),
        _ => ClockSkew { offset_us: 3600 * SECOND_US, rate_ppm: 500 },
    }
}

/// Seeded draws.
#[derive(Debug)]
pub(super) struct Draws(Pcg32);

impl Draws {
    pub(super) fn new(seed: u64) -> Draws {
        Draws(Pcg32::seed_from_u64(seed))
    }

    /// In `0..below`; 0 where that is empty.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(below)) >> 64) as u64
    }

    /// In `min..=max`.
    pub(super) fn within(&mut self, min: u64, max: u64) -> u64 {
        min + ((u128::from(self.0.next_u64()) * (u128::from(max - min) + 1)) >> 64) as u64
    }

    /// One of some; there is at least one.
    pub(super) fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize]
    }

    /// One of some, unless there is none.
    pub(super) fn any<T: Copy>(&mut self, some: &[T]) -> Option<T> {
        (!some.is_empty()).then(|| self.of(some))
    }

    /// Each of these or not, by the toss of a coin.
    pub(super) fn some<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        all.iter().copied().filter(|_| self.below(2) == 0).collect()
    }

    /// A pause of this length in the mean.
    pub(super) fn pause_us(&mut self, mean_us: u64) -> u64 {
        1 + self.below(2 * mean_us)
    }

    /// A seed.
    pub(super) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_draw_all_there_is_and_leave_out_each_of_it() {
        let scenarios: Vec<Scenario> = (0..300).map(Scenario::draw).collect();
        assert_eq!(scenarios, (0..300).map(Scenario::draw).collect::<Vec<_>>());
        for fault in Fault::ALL {
            let with = scenarios.iter().filter(|scenario| scenario.faults.contains(&fault)).count();
            assert!((20..280).contains(&with), "{fault:?} is in {with} of 300");
        }
        for service in Service::ALL {
            let with = scenarios.iter().filter(|scenario| scenario.services.contains(&service)).count();
            assert!((100..200).contains(&with), "{service:?} is in {with} of 300");
        }
        for scenario in &scenarios {
            assert!(NODES.contains(&(scenario.nodes as u64)) && !scenario.faults.is_empty(), "{scenario}");
            assert_eq!(scenario.faults.iter().map(|fault| fault.regime()).max(), Some(scenario.regime));
            assert!(scenario.clients <= CLIENTS_MAX as usize, "{scenario}");
        }
        let share = |has: fn(&Scenario) -> bool| scenarios.iter().filter(|scenario| has(scenario)).count();
        assert!((100..200).contains(&share(|scenario| scenario.clients > 0)));
        assert!((100..200).contains(&share(|scenario| scenario.net.routing() == Routing::default())));
        for (option, count) in [
            ("correction on use", share(|scenario| !scenario.net.routing().correction_on_use)),
            ("correction on change", share(|scenario| scenario.net.routing().correction_on_change)),
            ("fixed rounds", share(|scenario| scenario.net.routing().stabilise != Stabilise::Adaptive)),
            ("proximity", share(|scenario| scenario.net.routing().proximity)),
            ("link cache", share(|scenario| scenario.net.routing().link_cache > 0)),
        ] {
            assert!((45..110).contains(&count), "{option} is in {count} of 300");
        }
    }
}
