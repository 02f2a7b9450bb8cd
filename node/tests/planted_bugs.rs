//! The checkers are checked: each planted bug (`p2ps::core::planted`) is caught by the random scenarios within [`SEEDS`] seeds, or
//! by the explorer. `cargo test -p p2ps --features planted --test planted_bugs -- --nocapture` prints by what, and where.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checker;
mod network;
mod small_scenarios;

use checker::keys::check_keys;
use checker::lost_acks::check_lost_acks;
use p2ps::core::planted::Bug;
use p2ps::explore::explore;
use p2ps::invariant::Violation;
use p2ps::peer::Peer;

/// Within how many seeds a bug is caught.
const SEEDS: u64 = 50;

/// In how many of the seeds' scenarios something goes wrong, and what in the first of them.
fn caught_by_seeds(bug: Bug) -> Option<String> {
    let plant = move |peer: &mut Peer| peer.plant(bug);
    let of_ring = move |seed| checker::check(seed, plant).err().map(|failure| failure.violation);
    let of_keys = move |seed| check_keys(seed, plant).err().map(|failure| failure.violation);
    let of_messages = move |seed| check_lost_acks(seed, plant).err();
    caught("ring", of_ring)
        .or_else(|| caught("keys", of_keys))
        .or_else(|| caught("lost acknowledgements", of_messages))
}

fn caught(scenarios: &str, check: impl Fn(u64) -> Option<Violation>) -> Option<String> {
    let mut caught = (0..SEEDS).filter_map(|seed| Some((seed, check(seed)?)));
    let (seed, violation) = caught.next()?;
    let seeds = if std::env::var_os("COUNT").is_some() {
        format!("{:2} of {SEEDS} seeds", 1 + caught.count())
    } else {
        format!("seed {seed:2}")
    };
    Some(format!("{scenarios}, {seeds}: {violation}"))
}

/// The first small scenario in which the explorer finds something.
fn caught_by_explorer(bug: Bug) -> Option<String> {
    small_scenarios::all().iter().find_map(|scenario| {
        let exploration = explore(scenario, move |peer: &mut Peer| peer.plant(bug));
        let finding = exploration.findings.first()?;
        Some(format!("explorer, {:?}, {} steps: {}", scenario.name, finding.steps.len(), finding.violation))
    })
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    let only = std::env::var("ONLY").unwrap_or_default();
    for bug in Bug::ALL.into_iter().filter(|bug| format!("{bug:?}").contains(&only)) {
        let caught = caught_by_seeds(bug).or_else(|| caught_by_explorer(bug));
        let mut told = caught.clone().unwrap_or_else(|| "NOT CAUGHT".to_owned());
        told.truncate(140);
        println!("{:<22} {told}", format!("{bug:?}"));
        if caught.is_none() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
