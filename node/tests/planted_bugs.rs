//! The checkers are checked: each planted bug (`p2ps::core::planted`) is caught by the random scenarios within [`SEEDS`] seeds, or
//! by the explorer. `cargo test -p p2ps --features planted --test planted_bugs -- --nocapture` prints by what, and where.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checker;
mod network;
mod small_scenarios;

use p2ps::core::planted::Bug;
use p2ps::explore::explore;
use p2ps::peer::Peer;

/// Within how many seeds a bug is caught.
const SEEDS: u64 = 50;

/// The first seed whose scenario goes wrong.
fn caught_by_seed(bug: Bug) -> Option<String> {
    (0..SEEDS).find_map(|seed| {
        let failure = checker::check(seed, move |peer: &mut Peer| peer.plant(bug)).err()?;
        Some(format!("seed {seed:2}: {}", failure.violation))
    })
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
    for bug in Bug::ALL {
        let caught = caught_by_seed(bug).or_else(|| caught_by_explorer(bug));
        let mut told = caught.clone().unwrap_or_else(|| "NOT CAUGHT".to_owned());
        told.truncate(140);
        println!("{:<22} {told}", format!("{bug:?}"));
        if caught.is_none() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
