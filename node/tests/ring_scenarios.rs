//! The ring's protocol under joins, leaves and crashes, on the pure core over a seeded network.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::time::Duration;

use network::{Network, symmetric_tango};
use p2ps::id::Id;
use p2ps::peer::Event;

const SEEDS: std::ops::Range<u64> = 0..20;
const HEALS_WITHIN: Duration = Duration::from_secs(60);

fn all_lookups_are_right(network: &mut Network, count: usize) {
    for _ in 0..count {
        let (from, key) = (network.any_member(), network.random_id());
        let found = network.look_up(from, key).0.unwrap_or_else(|error| panic!("{key} from {from}: {error}"));
        assert_eq!(found.responsible.id, network.responsible(key), "responsible of {key}, asked from {from}");
    }
}

#[test]
fn nodes_that_join_one_by_one_form_a_ring_with_right_fingers() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 24, seed);
        network.run_until("fingers are right", HEALS_WITHIN * 4, Network::are_fingers_right);
        all_lookups_are_right(&mut network, 50);
    }
}

#[test]
fn nodes_that_join_at_once_through_one_node_form_a_ring() {
    for seed in SEEDS {
        let mut network = Network::new(symmetric_tango(8), seed);
        let first = network.random_id();
        network.create(first);
        for _ in 1..40 {
            let id = network.random_id();
            network.join(id, &[first]);
        }
        network.run_until("all have joined", HEALS_WITHIN, |n| n.members().len() == 40);
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
        all_lookups_are_right(&mut network, 20);
    }
}

#[test]
fn nodes_that_join_at_once_between_the_same_two_nodes_all_find_their_place() {
    for seed in SEEDS {
        let mut network = Network::new(symmetric_tango(4), seed);
        network.create(Id(0));
        network.join(Id(1 << 31), &[Id(0)]);
        network.run_until("two nodes", HEALS_WITHIN, |n| n.members().len() == 2);
        for step in 1..=10 {
            network.join(Id(1000 * step), &[Id(if step % 2 == 0 { 0 } else { 1 << 31 })]);
        }
        network.run_until("all have joined", HEALS_WITHIN, |n| n.members().len() == 12);
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
    }
}

#[test]
fn the_ring_heals_after_a_crash_and_lookups_go_on_meanwhile() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 24, seed);
        let victim = network.any_member();
        network.kill(victim);
        all_lookups_are_right(&mut network, 10);
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
    }
}

#[test]
fn as_many_neighbours_as_the_successor_list_is_long_may_crash_at_once() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(4), 24, seed);
        let members = network.members();
        let start = network.random(24) as usize;
        // The node before them loses its whole successor list: its fingers lead it back.
        for step in 0..4 {
            network.kill(members[(start + step) % 24]);
        }
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
        all_lookups_are_right(&mut network, 20);
    }
}

#[test]
fn a_third_of_all_nodes_may_crash_at_once() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 30, seed);
        for _ in 0..10 {
            let victim = network.any_member();
            network.kill(victim);
        }
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
        network.run_until("fingers are right", HEALS_WITHIN * 5, Network::are_fingers_right);
        all_lookups_are_right(&mut network, 20);
    }
}

#[test]
fn a_node_that_leaves_hands_over_and_no_lookup_fails() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 16, seed);
        for _ in 0..8 {
            let leaver = network.any_member();
            network.leave(leaver);
            all_lookups_are_right_meanwhile(&mut network, 5);
            network.run_until("it has left", HEALS_WITHIN, |n| !n.peers.contains_key(&leaver));
            assert!(network.applications[&leaver].events.contains(&Event::Left { handed_over: true }));
        }
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
    }
}

#[test]
fn a_leaver_whose_successor_has_taken_over_and_could_not_say_so_is_relieved_when_it_asks_again() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(4), 5, seed);
        let members = network.members();
        let [before, leaver, after] = [0, 1, 2].map(|place| members[place]);
        network.leave(leaver);
        network.run_until("the successor has taken over", HEALS_WITHIN, |n| {
            n.peers[&after].predecessor().is_some_and(|predecessor| predecessor.id == before)
        });
        network.loss_per_mille = 1000;
        network.run_for(Duration::from_millis(60));
        network.loss_per_mille = 0;
        network.run_until("it has left", HEALS_WITHIN, |n| !n.peers.contains_key(&leaver));
        let events = &network.applications[&leaver].events;
        assert!(events.contains(&Event::Left { handed_over: true }), "seed {seed}");
    }
}

/// While a node leaves, it answers until its successor does: whoever was responsible at some moment is right.
fn all_lookups_are_right_meanwhile(network: &mut Network, count: usize) {
    for _ in 0..count {
        let (from, key) = (network.any_member(), network.random_id());
        let (result, rightful) = network.look_up(from, key);
        let found = result.unwrap_or_else(|error| panic!("look-up of {key} from {from}: {error}"));
        assert!(rightful.contains(&found.responsible.id), "{found:?} for {key}: one of {rightful:?}");
    }
}

#[test]
fn all_nodes_may_leave_at_once() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(4), 12, seed);
        for id in network.members() {
            network.leave(id);
        }
        network.run_until("all have left", HEALS_WITHIN, |n| n.peers.is_empty());
    }
}

#[test]
fn an_id_in_use_is_refused() {
    let network = Network::ring(symmetric_tango(4), 5, 1);
    let taken = network.members()[2];
    let (via, mut events) = (network.members()[0], Vec::new());
    let impostor = p2ps::message::Contact {
        id: taken,
        access_point: "p2ps://10.9.9.9:9".parse().unwrap(),
        incarnation: 7,
    };
    let mut peer = p2ps::peer::Peer::new(network.net, impostor, 1);
    let mut out = Vec::new();
    peer.handle(network.now, p2ps::peer::Input::Join { bootstrap: vec![impostor.access_point] }, &mut out);
    peer.handle(network.now, p2ps::peer::Input::LinkUp { contact: network.peers[&via].me() }, &mut out);
    let mut holder = network.peers[&taken].clone();
    for output in std::mem::take(&mut out) {
        if let p2ps::peer::Output::Send { message, .. } = output {
            holder.handle(network.now, p2ps::peer::Input::Receive { from: impostor, message }, &mut out);
        }
    }
    for output in std::mem::take(&mut out) {
        if let p2ps::peer::Output::Send { message, .. } = output {
            peer.handle(network.now, p2ps::peer::Input::Receive { from: holder.me(), message }, &mut events);
        }
    }
    let refused = p2ps::peer::JoinError::IdInUse(taken);
    assert!(
        events
            .iter()
            .any(|e| matches!(e, p2ps::peer::Output::Event(Event::Rejected(error)) if *error == refused)),
        "{events:?}"
    );
}

#[test]
fn a_node_that_crashed_comes_back_with_the_same_identity() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 16, seed);
        let victim = network.any_member();
        network.kill(victim);
        let via = network.any_member();
        let pause = Duration::from_millis(network.random(3000));
        network.run_for(pause);
        network.join(victim, &[via]);
        network.run_until("it is back", HEALS_WITHIN, |n| n.is_member(victim));
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
        all_lookups_are_right(&mut network, 10);
    }
}

#[test]
fn messages_reach_the_node_and_the_responsible_that_they_are_sent_to() {
    let mut network = Network::ring(symmetric_tango(8), 16, 3);
    let (from, to) = (network.members()[0], network.members()[9]);
    let key = network.random_id();
    let responsible = network.responsible(key);
    network.send(from, to, true, "to a node");
    network.send(from, key, false, "to a key's responsible");
    network.send(from, key, true, "to nobody");
    network.run_for(Duration::from_secs(5));
    assert_eq!(network.applications[&to].delivered[0].payload, "to a node");
    assert_eq!(network.applications[&to].delivered[0].source, from);
    let last = network.applications[&responsible].delivered.last().unwrap();
    assert_eq!((last.destination, &last.payload[..]), (key, &b"to a key's responsible"[..]));
    let reason = p2ps::message::RouteError::NoSuchNode;
    assert!(network.applications[&from].events.contains(&Event::Undelivered { destination: key, reason }));
}

#[test]
fn a_silent_node_is_routed_around_then_taken_for_dead() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 16, seed);
        let silent = network.any_member();
        network.paused.insert(silent);
        let (mut from, key) = (network.any_member(), network.random_id());
        while from == silent {
            from = network.any_member();
        }
        let _ = network.look_up(from, key);
        network.run_until("all others go around it", HEALS_WITHIN, |n| {
            n.peers.iter().filter(|(id, _)| **id != silent).all(|(_, p)| {
                p.successors().iter().all(|c| c.id != silent)
                    && p.predecessor().is_none_or(|c| c.id != silent)
            })
        });
    }
}

#[test]
fn a_silent_node_that_wakes_up_takes_its_place_again() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 16, seed);
        let silent = network.any_member();
        network.paused.insert(silent);
        network.run_for(Duration::from_secs(40));
        network.paused.remove(&silent);
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
        all_lookups_are_right(&mut network, 10);
    }
}

#[test]
fn the_halves_of_a_partition_become_one_ring_again_when_it_heals() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(8), 24, seed);
        for id in network.members() {
            if network.random(2) == 0 {
                network.island.insert(id);
            }
        }
        let partition = Duration::from_secs(20 + network.random(60));
        network.run_for(partition);
        assert!(!network.is_ring_right(), "each half is a ring of its own by now");
        network.island.clear();
        network.run_until("the ring is right", HEALS_WITHIN * 2, Network::is_ring_right);
        network.run_until("fingers are right", HEALS_WITHIN * 5, Network::are_fingers_right);
        all_lookups_are_right(&mut network, 10);
    }
}

/// After so long nobody asks for the neighbours that it lost by the partition any more.
#[test]
fn the_halves_of_a_long_partition_meet_again_by_the_access_points_that_nodes_joined_by() {
    for seed in SEEDS.take(2) {
        let mut network = Network::ring(symmetric_tango(4), 16, seed);
        for id in network.members() {
            if network.random(2) == 0 {
                network.island.insert(id);
            }
        }
        network.run_for(Duration::from_secs(1800));
        network.island.clear();
        network.run_until("the ring is right", HEALS_WITHIN * 3, Network::is_ring_right);
        all_lookups_are_right(&mut network, 10);
    }
}

/// One joins by the others while they do not hear each other, and nobody who knew both parts is left (seeds 24 and 211 of the swarm).
#[test]
fn parts_of_a_tiny_ring_whose_common_acquaintances_are_gone_meet_again_by_an_access_point() {
    for seed in SEEDS {
        let mut network = Network::new(symmetric_tango(6), seed);
        let [first, lonely, common] = [Id(1000), Id(2000), Id(3000)];
        network.create(first);
        network.join(common, &[first]);
        network.run_until("two nodes", HEALS_WITHIN, |n| n.is_member(common) && n.is_ring_right());
        network.island.insert(first);
        network.run_for(Duration::from_secs(30));
        network.join(lonely, &[common]);
        network.run_until("it has joined", HEALS_WITHIN, |n| n.is_member(lonely));
        network.kill(common);
        network.run_for(Duration::from_secs(30));
        network.island.clear();
        let newcomer = Id(4000);
        network.join(newcomer, &[lonely, first]);
        network.run_until("it has joined", HEALS_WITHIN, |n| n.is_member(newcomer));
        network.run_until("the ring is right", HEALS_WITHIN, Network::is_ring_right);
    }
}

#[test]
fn an_idle_ring_grows_quiet() {
    let mut network = Network::ring(symmetric_tango(8), 50, 5);
    network.run_for(Duration::from_secs(120));
    let before = network.messages;
    network.run_for(Duration::from_secs(100));
    let per_node_second = (network.messages - before) as f64 / (50.0 * 100.0);
    assert!(per_node_second < 1.0, "{per_node_second} messages per node and second");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut network = Network::ring(symmetric_tango(8), 12, seed);
        let victim = network.any_member();
        network.kill(victim);
        network.run_for(Duration::from_secs(20));
        (network.trace, network.messages)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
