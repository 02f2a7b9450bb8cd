//! The pure core in random scenarios, with the invariants checked after every step. A seed that fails is a test of its own:
//! `SEED=17 cargo test -p p2ps --test random_scenarios one_seed -- --nocapture`. More of them:
//! `SEEDS=400 cargo test --profile swarm -p p2ps --test random_scenarios`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checker;
mod network;

use std::time::Duration;

/// How many seeds the tests run, unless `SEEDS` says so.
const SEEDS: u64 = 60;

fn seeds() -> u64 {
    std::env::var("SEEDS").map_or(SEEDS, |count| count.parse().unwrap())
}

/// How many duplicates of one errand there are at most; the bound that is proved (`core::duplicates`) is larger by far.
const DUPLICATES_MAX: u64 = 150;

/// Seeds in which messages bred: some 8 % of all are lost, the ring is broken, routes go round until their bound of hops, and each
/// acknowledgement that is lost made another copy of the message.
#[test]
fn messages_do_not_breed_where_routes_go_round_and_acknowledgements_are_lost() {
    for seed in [44, 50] {
        let summary = checker::check(seed, |_| ()).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{seed}: {summary:?}");
        assert!((1..=DUPLICATES_MAX).contains(&summary.duplicates), "seed {seed}: {summary:?}");
    }
}

#[test]
fn the_invariants_hold_in_every_scenario() {
    let (mut steps, mut operations, mut duplicates) = (0, 0, 0);
    let (mut ring, mut fingers) = (Duration::ZERO, Duration::ZERO);
    let mut failures = Vec::new();
    for seed in 0..seeds() {
        match checker::check(seed, |_| ()) {
            Ok(summary) => {
                steps += summary.steps;
                operations += summary.operations;
                duplicates = duplicates.max(summary.duplicates);
                ring = ring.max(summary.ring_healed_after);
                fingers = fingers.max(summary.fingers_healed_after);
            }
            Err(failure) => failures.push(failure),
        }
    }
    println!(
        "{} seeds, {steps} steps, {operations} operations; healed within {ring:?}, fingers {fingers:?} more; \
         at most {duplicates} duplicates of an errand",
        seeds()
    );
    for failure in &failures {
        println!("{failure}");
    }
    let seeds: Vec<u64> = failures.iter().map(|failure| failure.scenario.seed).collect();
    assert!(seeds.is_empty(), "seeds {seeds:?} failed");
}

#[test]
fn messages_do_not_breed_where_every_acknowledgement_is_lost() {
    let most = (0..10).map(|seed| checker::lost_acks::check_lost_acks(seed, |_| ()).unwrap()).max().unwrap();
    println!("at most {most} duplicates of an errand");
    assert!(most > 0);
}

#[test]
fn a_crowd_that_joins_at_once_is_one_ring_all_along() {
    let nodes: usize = (0..SEEDS)
        .map(|seed| {
            checker::crowd::check_crowd(seed, |_| ())
                .unwrap_or_else(|violation| panic!("seed {seed}: {violation}"))
        })
        .sum();
    println!("{SEEDS} seeds, {nodes} nodes");
}

#[test]
fn the_dictionary_keeps_its_word_in_every_scenario() {
    let mut failures = Vec::new();
    let mut operations = 0;
    for seed in 0..seeds() {
        match checker::keys::check_keys(seed, |_| ()) {
            Ok(done) => operations += done,
            Err(failure) => failures.push(failure),
        }
    }
    println!("{} seeds, {operations} reads and writes", seeds());
    for failure in &failures {
        println!("{failure}");
    }
    let seeds: Vec<u64> = failures.iter().map(|failure| failure.scenario.seed).collect();
    assert!(seeds.is_empty(), "seeds {seeds:?} failed");
}

#[test]
fn one_seed() {
    let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) else { return };
    println!("{:?}", checker::Scenario::draw(seed));
    let summary = checker::check(seed, |_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{summary:?}");
}
