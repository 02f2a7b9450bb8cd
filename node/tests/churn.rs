//! Random joins, leaves and crashes with look-ups all along, on the pure core over a seeded network: answers are right, every
//! operation ends, and the ring is right again when the churn stops. Young tables cost
//! few hops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::time::Duration;

use network::{Network, symmetric_tango};

/// One run: `events` random joins, leaves, crashes and comebacks about a second apart.
fn churn(seed: u64, nodes: usize, events: usize) -> (usize, usize) {
    let mut network = Network::ring(symmetric_tango(8), nodes, seed);
    let mut dead = Vec::new();
    let (mut succeeded, mut asked) = (0, 0);
    for _ in 0..events {
        let (one, key, via) = (network.any_member(), network.random_id(), network.any_member());
        match network.random(4) {
            0 => network.join(key, &[via]),
            1 if network.members().len() > nodes / 2 => network.leave(one),
            2 if network.members().len() > nodes / 2 => {
                network.kill(one);
                dead.push(one);
            }
            _ => {
                if let Some(id) = dead.pop().filter(|id| *id != via && !network.peers.contains_key(id)) {
                    network.join(id, &[via]);
                }
            }
        }
        for _ in 0..3 {
            let (from, key) = (network.any_member(), network.random_id());
            let (result, rightful) = network.look_up_unless_gone(from, key);
            let Some(result) = result else { continue };
            asked += 1;
            if let Ok(found) = result {
                succeeded += 1;
                assert!(
                    rightful.contains(&found.responsible.id),
                    "seed {seed} at {:?}: {found:?} for {key}, not {rightful:?}\n{}",
                    network.now,
                    network.describe()
                );
            }
        }
        let pause = Duration::from_millis(network.random(2000));
        network.run_for(pause);
    }
    network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
    network.run_until("fingers are right", Duration::from_secs(600), Network::are_fingers_right);
    (succeeded, asked)
}

#[test]
fn lookups_under_churn_are_right_and_nearly_all_succeed() {
    let (mut succeeded, mut asked) = (0, 0);
    for seed in 0..12 {
        let (one_succeeded, one_asked) = churn(seed, 24, 60);
        succeeded += one_succeeded;
        asked += one_asked;
    }
    let share = succeeded as f64 / asked as f64;
    assert!(share > 0.999, "{succeeded} of {asked} look-ups succeeded");
}

#[test]
fn small_rings_survive_churn() {
    for seed in 0..40 {
        for nodes in [2, 3, 5] {
            churn(seed, nodes, 40);
        }
    }
}

/// 64 nodes join at 20 a second while 100 look-ups a second run.
#[test]
fn lookups_take_few_hops_while_a_network_grows() {
    let mut hops = Vec::new();
    for seed in 0..6 {
        let mut network = Network::new(symmetric_tango(8), seed);
        network.latency_us = 200..2000;
        let first = network.random_id();
        network.create(first);
        let mut operations = Vec::new();
        for tick in 1..600 {
            if tick % 5 == 0 && network.peers.len() < 64 {
                let (id, via) = (network.random_id(), network.any_member());
                network.join(id, &[via]);
            }
            let (from, key) = (network.any_member(), network.random_id());
            operations.push((from, network.lookup(from, key)));
            network.run_for(Duration::from_millis(10));
        }
        network.run_for(Duration::from_secs(10));
        let found = |(from, operation)| network.applications[&from].completed[&operation].unwrap().hops;
        hops.extend(operations.into_iter().map(found));
    }
    hops.sort_unstable();
    let at = |share: f64| hops[(hops.len() as f64 * share) as usize];
    assert!(at(0.99) <= 5 && at(0.999) <= 7, "p99 {}, p99.9 {}, most {}", at(0.99), at(0.999), at(0.9999));
}
