//! Broadcast, multicast and the nearest successors on the pure core over a seeded network: exact on a stable ring, and under crashes
//! everybody who stays gets a message once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::collections::BTreeSet;
use std::time::Duration;

use network::{Network, symmetric_tango};
use p2ps::config::{Geometry, NetConfig};
use p2ps::id::Id;
use p2ps::message::{MessageKind, RouteError};
use p2ps::peer::{Command, Event, Input};

fn one_way_tango() -> NetConfig {
    NetConfig::new("2^32".parse().unwrap(), Geometry::Tango { k: 3, symmetric: false }, 8).unwrap()
}

fn order(network: &mut Network, from: Id, command: Command) {
    network.give(from, Input::Command(command));
}

/// Who has a message with this text, and how often.
fn received(network: &Network, text: &str) -> Vec<(Id, usize)> {
    let count = |id: &Id| network.applications[id].delivered.iter().filter(|d| d.payload == text).count();
    network.members().into_iter().map(|id| (id, count(&id))).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_broadcast_on_a_stable_ring_takes_as_many_messages_as_there_are_other_nodes() {
    for net in [symmetric_tango(8), one_way_tango()] {
        for nodes in [1, 2, 3, 40] {
            let mut network = Network::ring(net, nodes, 1);
            network.run_until("fingers are right", Duration::from_secs(600), Network::are_fingers_right);
            let from = network.any_member();
            let before = network.sent_of(MessageKind::Data);
            order(&mut network, from, Command::Broadcast { payload: "to all".into() });
            network.run_for(Duration::from_secs(5));
            assert_eq!(network.sent_of(MessageKind::Data) - before, nodes as u64 - 1);
            let others: Vec<_> =
                network.members().into_iter().filter(|id| *id != from).map(|id| (id, 1)).collect();
            assert_eq!(received(&network, "to all"), others);
        }
    }
}

#[test]
fn a_broadcast_reaches_all_who_stay_while_others_crash() {
    for seed in 0..20 {
        let mut network = Network::ring(symmetric_tango(8), 40, seed);
        let from = network.any_member();
        for round in 0..4 {
            let text = format!("round {round}");
            order(&mut network, from, Command::Broadcast { payload: text.clone().into() });
            // Two crash while it is on its way; what they had not passed on is passed on by others.
            for _ in 0..2 {
                let pause = Duration::from_millis(network.random(60));
                network.run_for(pause);
                let victim = network.any_member();
                if victim != from {
                    network.kill(victim);
                }
            }
            network.run_for(Duration::from_secs(30));
            let missing: Vec<Id> = network
                .members()
                .into_iter()
                .filter(|id| *id != from)
                .filter(|id| !received(&network, &text).contains(&(*id, 1)))
                .collect();
            assert!(missing.is_empty(), "seed {seed}, {text}: {missing:?} did not get it once");
        }
    }
}

/// Where a node joins and the one before it leaves, those further back have heard of neither when the word comes that the second has
/// left.
#[test]
fn a_broadcast_reaches_one_that_joined_while_the_only_node_that_has_heard_of_it_leaves() {
    for seed in 0..40 {
        let mut network = Network::ring(symmetric_tango(4), 8, seed);
        let (joiner, via) = (network.random_id(), network.any_member());
        network.join(joiner, &[via]);
        let is_known = |network: &Network, (before, joiner): (Id, Id)| {
            network.peers[&before].successors().first().is_some_and(|contact| contact.id == joiner)
        };
        let members = network.members();
        let before = members.iter().rev().find(|id| **id < joiner).or(members.last()).copied().unwrap();
        network.run_until("one has heard of the joiner", Duration::from_secs(10), |network| {
            is_known(network, (before, joiner))
        });
        network.leave(before);
        let pause = Duration::from_millis(network.random(400));
        network.run_for(pause);
        let from = network.any_member();
        order(&mut network, from, Command::Broadcast { payload: "to all".into() });
        network.run_for(Duration::from_secs(5));
        let others: Vec<_> =
            network.members().into_iter().filter(|id| *id != from).map(|id| (id, 1)).collect();
        assert_eq!(received(&network, "to all"), others, "seed {seed}");
    }
}

#[test]
fn a_multicast_reaches_exactly_its_destinations_and_tells_of_those_who_do_not_exist() {
    for net in [symmetric_tango(8), one_way_tango()] {
        let mut network = Network::ring(net, 40, 3);
        let (from, members) = (network.any_member(), network.members());
        let wanted: BTreeSet<Id> = members.iter().copied().step_by(3).chain([from]).collect();
        let nobody = network.random_id();
        let mut destinations: Vec<Id> = wanted.iter().copied().collect();
        destinations.extend([nobody, destinations[0]]);
        order(&mut network, from, Command::Multicast { destinations, payload: "to some".into() });
        network.run_for(Duration::from_secs(5));
        let expected: Vec<_> = wanted.into_iter().map(|id| (id, 1)).collect();
        assert_eq!(received(&network, "to some"), expected);
        let undelivered = Event::Undelivered { destination: nobody, reason: RouteError::NoSuchNode };
        assert!(network.applications[&from].events.contains(&undelivered));
    }
}

#[test]
fn the_nearest_successors_get_one_message_each() {
    let mut network = Network::ring(symmetric_tango(8), 20, 4);
    let members = network.members();
    let before = network.sent_of(MessageKind::Data);
    order(&mut network, members[18], Command::SendToSuccessors { count: 3, payload: "near".into() });
    network.run_for(Duration::from_secs(5));
    assert_eq!(received(&network, "near"), [(members[0], 1), (members[1], 1), (members[19], 1)]);
    assert_eq!(network.sent_of(MessageKind::Data) - before, 3);
}
