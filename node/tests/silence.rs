//! A host goes dark: its nodes neither answer nor close their links. Look-ups go around them in few hops, and the ring closes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::time::Duration;

use network::{Network, symmetric_tango};
use p2ps::config::{Geometry, NetConfig};
use p2ps::id::Id;
use p2ps::message::Contact;

/// The longest time between two rounds, the time-outs of two nodes (each 1 + 2 + 4 of at most half a second), and some more.
const HEALS_WITHIN: Duration = Duration::from_secs(20);

/// Whether each live node's neighbours are the next live ones.
fn has_closed(network: &Network, live: &[Id]) -> bool {
    let id_of = |contact: &Contact| contact.id;
    live.iter().enumerate().all(|(place, id)| {
        let peer = &network.peers[id];
        let (before, after) = (live[(place + live.len() - 1) % live.len()], live[(place + 1) % live.len()]);
        peer.successors().first().map(id_of) == Some(after)
            && peer.predecessor().as_ref().map(id_of) == Some(before)
    })
}

/// The hops of look-ups while seven of a hundred nodes are dark, fewest first.
fn hops_in_the_dark(net: NetConfig, seeds: std::ops::Range<u64>) -> Vec<u16> {
    let mut hops = Vec::new();
    for seed in seeds {
        let mut network = Network::ring(net, 100, seed);
        network.latency_us = 200..2000;
        network.run_for(Duration::from_secs(60));
        while network.paused.len() < 7 {
            let dark = network.any_member();
            network.paused.insert(dark);
        }
        let live: Vec<Id> = network.members().into_iter().filter(|id| !network.paused.contains(id)).collect();
        let mut asked = Vec::new();
        for _ in 0..HEALS_WITHIN.as_millis() / 50 {
            let from = live[network.random(live.len() as u64) as usize];
            let key = network.random_id();
            asked.push((from, network.lookup(from, key)));
            network.run_for(Duration::from_millis(50));
        }
        assert!(has_closed(&network, &live), "seed {seed}, after {HEALS_WITHIN:?}\n{}", network.describe());
        network.run_for(Duration::from_secs(20));
        hops.extend(
            asked
                .iter()
                .map(|(from, operation)| network.applications[from].completed[operation].unwrap().hops),
        );
    }
    hops.sort_unstable();
    hops
}

#[test]
fn lookups_go_around_nodes_that_went_dark_in_few_hops_and_the_ring_closes() {
    let one_way = Geometry::Tango { k: 5, symmetric: false };
    let one_way = NetConfig::new("2^32".parse().unwrap(), one_way, 8).unwrap();
    for (name, net) in [("symmetric", symmetric_tango(8)), ("one-way", one_way)] {
        let hops = hops_in_the_dark(net, 0..4);
        let at = |share: f64| hops[(hops.len() as f64 * share) as usize];
        assert!(at(0.99) <= 6, "{name}: p50 {}, p99 {}, p99.9 {}", at(0.5), at(0.99), at(0.999));
    }
}
