//! Reliable messages on the pure core over a seeded network that loses messages, and whose nodes crash: each is delivered once and in
//! order, or reported failed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::time::Duration;

use network::{Network, symmetric_tango};
use p2ps::id::Id;
use p2ps::message::{Message, RouteError};
use p2ps::peer::Input;

/// What `source` sent to `destination`, as it was delivered.
fn texts(network: &Network, source: Id, destination: Id) -> Vec<String> {
    let delivered = &network.applications[&destination].delivered;
    let of_source = delivered.iter().filter(|delivery| delivery.source == source);
    of_source.map(|delivery| String::from_utf8(delivery.payload.to_vec()).unwrap()).collect()
}

#[test]
fn what_a_bad_network_loses_is_sent_again_and_delivered_once_and_in_order() {
    for seed in 0..20 {
        let mut network = Network::ring(symmetric_tango(8), 16, seed);
        network.loss_per_mille = 100;
        let pairs: Vec<(Id, Id)> = (0..4).map(|_| (network.any_member(), network.any_member())).collect();
        let mut operations = Vec::new();
        for number in 0..20 {
            for (from, to) in &pairs {
                operations.push((*from, network.send_reliably(*from, *to, &number.to_string())));
            }
            network.run_for(Duration::from_millis(20));
        }
        network.run_for(Duration::from_secs(40));
        for (from, operation) in operations {
            assert_eq!(network.applications[&from].sent[&operation], Ok(()), "seed {seed}");
        }
        for (from, to) in pairs.iter().copied().collect::<std::collections::BTreeSet<_>>() {
            let times = pairs.iter().filter(|pair| **pair == (from, to)).count();
            let sent: Vec<String> =
                (0..20).flat_map(|number| std::iter::repeat_n(number.to_string(), times)).collect();
            assert_eq!(texts(&network, from, to), sent, "seed {seed}: from {from} to {to}");
        }
    }
}

#[test]
fn under_crashes_each_message_ends_and_what_was_acknowledged_was_delivered() {
    for seed in 0..20 {
        let mut network = Network::ring(symmetric_tango(8), 24, seed);
        let mut sent = Vec::new();
        for number in 0..60 {
            let (from, to) = (network.any_member(), network.any_member());
            let text = format!("{number} from {from}");
            sent.push((from, to, network.send_reliably(from, to, &text), text));
            if number % 10 == 5 {
                let victim = network.any_member();
                network.kill(victim);
            }
            network.run_for(Duration::from_millis(100));
        }
        network.run_for(Duration::from_secs(60));
        for (from, to, operation, text) in sent.iter().filter(|(from, ..)| network.peers.contains_key(from)) {
            let result = network.applications[from].sent.get(operation);
            let delivered = texts(&network, *from, *to).iter().filter(|other| *other == text).count();
            assert!(delivered <= 1, "seed {seed}: {text:?} came {delivered} times");
            match result.unwrap_or_else(|| panic!("seed {seed}: {text:?} ended in silence")) {
                Ok(()) => assert_eq!(delivered, 1, "seed {seed}: {text:?}"),
                Err(_) => {
                    assert!(!network.peers.contains_key(to), "seed {seed}: {text:?} to a live node failed")
                }
            }
        }
    }
}

#[test]
fn a_message_to_nobody_and_one_of_a_node_that_leaves_fail() {
    let mut network = Network::ring(symmetric_tango(8), 8, 1);
    let (from, nobody) = (network.members()[0], network.random_id());
    let operation = network.send_reliably(from, nobody, "to nobody");
    network.run_for(Duration::from_secs(20));
    assert_eq!(network.applications[&from].sent[&operation], Err(RouteError::NoSuchNode));
    let operation = network.send_reliably(from, nobody, "never mind");
    network.leave(from);
    network.run_for(Duration::from_secs(10));
    assert_eq!(network.applications[&from].sent[&operation], Err(RouteError::NotMember));
}

#[test]
fn a_full_application_gets_its_messages_once_it_reads_again() {
    let mut network = Network::ring(symmetric_tango(8), 8, 1);
    let (from, to) = (network.members()[0], network.members()[4]);
    network.give(to, Input::ApplicationIsFull(true));
    let operation = network.send_reliably(from, to, "later");
    network.run_for(Duration::from_secs(5));
    assert!(
        texts(&network, from, to).is_empty() && !network.applications[&from].sent.contains_key(&operation)
    );
    network.give(to, Input::ApplicationIsFull(false));
    network.run_for(Duration::from_secs(5));
    assert_eq!(texts(&network, from, to), ["later"]);
    assert_eq!(network.applications[&from].sent[&operation], Ok(()));
}

/// A node that has crashed starts again while the ring still says that nobody has its id. No acknowledgement arrives, so each hop
/// sends a second copy of what was refused: one of them may find the node.
#[test]
fn what_was_refused_by_some_and_delivered_by_others_is_not_reported_failed() {
    let mut delivered_late = 0;
    for seed in 0..30 {
        let mut network = Network::ring(symmetric_tango(4), 8, seed);
        let (from, to) = (network.members()[0], network.members()[4]);
        network.kill(to);
        network.run_for(Duration::from_secs(5));
        let operation = network.send_reliably(from, to, "are you back");
        let back_after = Duration::from_millis(1900 + network.random(600));
        network.loses = |message| matches!(message, Message::Acks(_));
        network.run_for(back_after);
        network.join(to, &[from]);
        network.run_for(Duration::from_secs(30));
        let delivered = texts(&network, from, to).len();
        let result = network.applications[&from].sent[&operation];
        assert_eq!(delivered, usize::from(result.is_ok()), "seed {seed}: {result:?}");
        delivered_late += delivered;
    }
    assert!(delivered_late > 0);
}
