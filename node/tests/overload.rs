//! Nodes share a machine that is nearly at its limit, and some crash: the repair must not be the load that keeps the trouble going.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::time::Duration;

use network::{Network, symmetric_tango};
use p2ps::id::Id;

const LOOKUPS_PER_SECOND: u64 = 1200;

/// Looks keys up at a steady rate, whatever becomes of them. Returns who asked for what, and the messages a second.
fn look_up_for(network: &mut Network, seconds: u64) -> (Vec<(Id, u64)>, f64) {
    let (mut asked, before, mut intended) = (Vec::new(), network.messages, network.now);
    for _ in 0..seconds * LOOKUPS_PER_SECOND {
        let (from, key) = (network.any_member(), network.random_id());
        asked.push((from, network.lookup(from, key)));
        intended = intended + Duration::from_micros(1_000_000 / LOOKUPS_PER_SECOND);
        network.run_to(intended);
    }
    (asked, (network.messages - before) as f64 / seconds as f64)
}

#[test]
fn a_network_at_its_limit_is_as_calm_after_crashes_as_before() {
    let mut network = Network::ring(symmetric_tango(8), 60, 1);
    network.run_until("fingers are right", Duration::from_secs(600), Network::are_fingers_right);
    network.latency_us = 50..200;
    // Six inputs a look-up: three quarters of the one processor that all share.
    network.cost = Duration::from_micros(100);
    let (_, calm) = look_up_for(&mut network, 3);
    for _ in 0..6 {
        let victim = network.any_member();
        network.kill(victim);
    }
    look_up_for(&mut network, 8);
    let (asked, after) = look_up_for(&mut network, 3);
    network.run_for(Duration::from_secs(10));
    let failed = asked
        .iter()
        .filter(|(from, operation)| network.applications[from].completed[operation].is_err())
        .count();
    assert_eq!(failed, 0, "of {} look-ups", asked.len());
    assert!(after < 1.1 * calm, "{after} messages a second, {calm} before the crashes");
}
