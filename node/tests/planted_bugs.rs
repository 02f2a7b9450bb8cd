//! The checkers are checked: each planted bug (`p2ps::core::planted`) is caught by one of them within [`SEEDS`] seeds, and the
//! same seed finds nothing without the bug. `make planted` prints by which, where, and what did not hold; `make planted COUNT=1` in
//! how many of all seeds too, `make planted BY=swarm ONLY=Dead` by one of the checkers only, of some of the bugs only.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checker;
mod network;
mod small_scenarios;

use std::collections::BTreeMap;
use std::env::var;
use std::fmt;
use std::sync::Mutex;

use checker::crowd::check_crowd;
use checker::keys::check_keys;
use checker::lost_acks::check_lost_acks;
use p2ps::core::planted::Bug;
use p2ps::explore::{self, explore};
use p2ps::invariant::Violation;
use p2ps::peer::Peer;
use p2ps::swarm;

/// Within how many seeds a bug is caught.
const SEEDS: u64 = 50;

/// Where the search of a small scenario ends: with a bug, states may have no end.
const STATES_MAX: usize = 10_000;

/// What may catch a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checker {
    Ring,
    Keys,
    Crowd,
    LostAcks,
    Explorer,
    Swarm,
}

impl Checker {
    /// All of them, the cheapest first.
    const ALL: [Checker; 6] =
        [Checker::Ring, Checker::Keys, Checker::Crowd, Checker::LostAcks, Checker::Explorer, Checker::Swarm];

    /// What a seed finds: a random scenario's, or the explorer's scenario of this place.
    fn finds(self, seed: u64, bug: Option<Bug>) -> Option<Violation> {
        let prepare = move |peer: &mut Peer| {
            if let Some(bug) = bug {
                peer.plant(bug);
            }
        };
        match self {
            Checker::Ring => checker::check(seed, prepare).err().map(|failure| failure.violation),
            Checker::Keys => check_keys(seed, prepare).err().map(|failure| failure.violation),
            Checker::Crowd => check_crowd(seed, prepare).err(),
            Checker::LostAcks => check_lost_acks(seed, prepare).err(),
            Checker::Explorer => {
                let scenario = small_scenarios::all().into_iter().nth(seed as usize)?;
                let states_max = scenario.states_max.min(STATES_MAX);
                let exploration = explore(&explore::Scenario { states_max, ..scenario }, prepare);
                exploration.findings.into_iter().next().map(|finding| finding.violation)
            }
            Checker::Swarm => {
                let plant = |simulator: &mut p2ps::sim::Simulator| {
                    if let Some(bug) = bug {
                        simulator.plant(bug);
                    }
                };
                let outcome = swarm::run(&swarm::Scenario::draw(seed), plant, None);
                outcome.failure.map(|failure| failure.violation)
            }
        }
    }
}

/// How a bug was caught.
struct Catch {
    by: Checker,
    /// The first seed of [`SEEDS`] that does.
    seed: u64,
    violation: Violation,
    /// How many do, where that was asked for.
    seeds: Option<usize>,
}

impl fmt::Display for Catch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.seeds.map(|seeds| format!("{seeds} of {SEEDS}")).unwrap_or_default();
        write!(f, "{:<9} {:>5} {seeds:>9} {}", format!("{:?}", self.by), self.seed, self.violation.invariant)
    }
}

/// The first catch by the first checker that has one.
fn catch(bug: Bug) -> Option<Catch> {
    let by = var("BY").unwrap_or_default().to_lowercase();
    let mut checkers =
        Checker::ALL.into_iter().filter(|checker| format!("{checker:?}").to_lowercase().contains(&by));
    checkers.find_map(|by| {
        // What goes wrong without the bug too is no catch.
        let caught = |seed| by.finds(seed, Some(bug)).filter(|_| by.finds(seed, None).is_none());
        let mut catches = (0..SEEDS).filter_map(|seed| Some((seed, caught(seed)?)));
        let (seed, violation) = catches.next()?;
        let seeds = var("COUNT").is_ok().then(|| 1 + catches.count());
        Some(Catch { by, seed, violation, seeds })
    })
}

/// Each bug's catch, by its place in [`Bug::ALL`]; found on all cores.
fn catches() -> BTreeMap<usize, (Bug, Option<Catch>)> {
    let only = var("ONLY").unwrap_or_default();
    let bugs = Bug::ALL.into_iter().enumerate().filter(|(_, bug)| format!("{bug:?}").contains(&only));
    let (waiting, caught) = (Mutex::new(bugs), Mutex::new(BTreeMap::new()));
    let next = || waiting.lock().unwrap().next();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((place, bug)) = next() {
                    let catch = catch(bug);
                    caught.lock().unwrap().insert(place, (bug, catch));
                }
            });
        }
    });
    caught.into_inner().unwrap()
}

#[test]
fn every_planted_bug_is_caught() {
    let catches = catches();
    println!("{:<24} {:<9} {:>5} {:>9} what did not hold", "bug", "caught by", "seed", "seeds");
    for (bug, catch) in catches.values() {
        let told = catch.as_ref().map_or("not caught".to_owned(), Catch::to_string);
        println!("{:<24} {told}", format!("{bug:?}"));
    }
    let missed: Vec<Bug> =
        catches.values().filter(|(_, catch)| catch.is_none()).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
