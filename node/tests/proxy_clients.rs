//! Nodes that others cannot reach, on the pure core over a seeded network: each is a client of its successor, stands in nobody's
//! tables, and can do all that a member can.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::collections::BTreeSet;
use std::time::Duration;

use network::{Network, symmetric_tango};
use p2ps::core::clients::{CLIENT_HOPS_MAX, CLIENTS_MAX};
use p2ps::id::Id;
use p2ps::message::client::{ClientTalk, Rejection};
use p2ps::message::dictionary::Answer;
use p2ps::message::{Body, Contact, HopVerdict, Message, MessageKind, Route, RouteError};
use p2ps::peer::{Command, Event, Input, JoinError, Output, Peer, Phase};

const SEEDS: std::ops::Range<u64> = 0..12;
const PATIENCE: Duration = Duration::from_secs(60);

/// A ring of members at rest, and then some nodes that nobody can reach.
fn ring_with_clients(members: usize, clients: usize, seed: u64) -> (Network, Vec<Id>) {
    let mut network = Network::ring(symmetric_tango(8), members, seed);
    let clients: Vec<Id> = (0..clients).map(|_| join_unreachable(&mut network)).collect();
    network.run_until("clients have the right proxies", PATIENCE, Network::are_clients_right);
    (network, clients)
}

fn join_unreachable(network: &mut Network) -> Id {
    let (id, via) = (network.random_id(), network.any_member());
    network.unreachable.insert(id);
    network.join(id, &[via]);
    network.run_until("it is a client", PATIENCE, |n| n.is_client(id));
    id
}

fn order(network: &mut Network, from: Id, command: Command) {
    network.give(from, Input::Command(command));
}

/// How often a node got a message with this text.
fn count(network: &Network, id: Id, text: &str) -> usize {
    network.applications[&id].delivered.iter().filter(|delivery| delivery.payload == text).count()
}

fn is_in_a_table(network: &Network, id: Id) -> bool {
    network.peers.values().any(|peer| {
        let fingers = peer.fingers().into_iter().filter_map(|(_, finger)| finger);
        let neighbours = peer.successors().iter().copied().chain(peer.predecessor());
        fingers.chain(neighbours).any(|contact| contact.id == id)
    })
}

#[test]
fn a_joiner_that_cannot_be_reached_becomes_a_client_of_its_successor() {
    for seed in SEEDS {
        let (mut network, clients) = ring_with_clients(12, 3, seed);
        network.run_for(Duration::from_secs(30));
        assert!(network.is_ring_right() && network.are_clients_right(), "seed {seed}");
        for id in clients {
            let (events, proxy) = (&network.applications[&id].events, network.responsible(id));
            assert!(events.contains(&Event::Connected { use_proxy: true }), "seed {seed}: {events:?}");
            let contact = network.peers[&proxy].me();
            assert!(events.contains(&Event::NewProxy(Some(contact))));
            let client = network.peers[&id].me();
            assert!(client.is_client() && network.peers[&id].statistics().uses_proxy);
            assert!(network.applications[&proxy].events.contains(&Event::ClientJoined(client)));
            assert!(network.peers[&proxy].statistics().clients > 0);
            assert!(!is_in_a_table(&network, id), "seed {seed}: {id} stands in a table");
            assert!(!network.peers[&id].is_responsible_of(id));
        }
    }
}

#[test]
fn a_node_that_is_to_be_a_client_is_one_though_it_could_be_reached() {
    let mut network = Network::ring(symmetric_tango(8), 8, 1);
    let (id, via) = (network.random_id(), network.any_member());
    network.join_as_client(id, &[via]);
    network.run_until("it is a client", PATIENCE, |n| n.is_client(id));
    assert!(network.are_clients_right() && !network.is_member(id));
}

#[test]
fn a_second_node_that_cannot_be_reached_is_a_client_of_the_first() {
    let mut network = Network::new(symmetric_tango(8), 1);
    let (first, second, third) = (Id(100), Id(200), Id(300));
    network.create(first);
    network.unreachable.extend([second, third]);
    network.join(second, &[first]);
    network.join(third, &[first]);
    network.run_until("both are clients", PATIENCE, |n| n.is_client(second) && n.is_client(third));
    order(&mut network, second, Command::Broadcast { payload: "to all".into() });
    let sent = network.send_reliably(second, third, "to another client");
    network.run_for(Duration::from_secs(60));
    assert_eq!(network.applications[&second].sent.get(&sent), Some(&Ok(())));
    assert_eq!([first, second, third].map(|id| count(&network, id, "to all")), [1, 0, 1]);
    assert!(network.are_clients_right(), "a minute later they are still");
}

#[test]
fn a_join_of_a_node_that_can_be_reached_takes_no_more_messages_than_before() {
    let mut network = Network::ring(symmetric_tango(8), 12, 3);
    network.run_for(Duration::from_secs(60));
    let (id, via) = (network.random_id(), network.any_member());
    network.join(id, &[via]);
    let before = network.now;
    network.run_until("it has joined", PATIENCE, |n| n.is_member(id));
    // Request (at most three hops), offer, confirmation, hand-over: each takes 1 to 50 ms, and a dial as long as a message.
    assert!(network.now.since(before) < Duration::from_millis(6 * 50), "{:?}", network.now.since(before));
}

#[test]
fn a_client_looks_up_and_is_found_at_its_proxy() {
    for seed in SEEDS {
        let (mut network, clients) = ring_with_clients(16, 3, seed);
        for id in &clients {
            for _ in 0..10 {
                let key = network.random_id();
                let found = network.look_up(*id, key).0.unwrap();
                assert_eq!(found.responsible.id, network.responsible(key), "seed {seed}");
            }
            let from = network.any_member();
            let found = network.look_up(from, *id).0.unwrap();
            assert_eq!(found.responsible.id, network.responsible(*id), "a client answers for no key");
        }
    }
}

#[test]
fn messages_reach_clients_and_come_from_clients() {
    for seed in SEEDS {
        let (mut network, clients) = ring_with_clients(16, 3, seed);
        let (a, b, member) = (clients[0], clients[1], network.any_member());
        let nobody = network.random_id();
        for (from, to) in [(a, member), (member, a), (a, b), (b, a), (a, a)] {
            network.send(from, to, true, &format!("{from} to {to}"));
            let sent = network.send_reliably(from, to, &format!("{from} surely to {to}"));
            network.run_for(Duration::from_secs(10));
            assert_eq!(count(&network, to, &format!("{from} to {to}")), 1, "seed {seed}");
            assert_eq!(count(&network, to, &format!("{from} surely to {to}")), 1, "seed {seed}");
            assert_eq!(network.applications[&from].sent.get(&sent), Some(&Ok(())), "seed {seed}");
        }
        network.send(a, nobody, true, "to nobody");
        let sent = network.send_reliably(a, nobody, "to nobody");
        network.run_for(Duration::from_secs(30));
        let undelivered = Event::Undelivered { destination: nobody, reason: RouteError::NoSuchNode };
        assert!(network.applications[&a].events.contains(&undelivered), "seed {seed}");
        assert_eq!(network.applications[&a].sent[&sent], Err(RouteError::NoSuchNode));
    }
}

#[test]
fn a_broadcast_reaches_members_and_clients_once_each() {
    for seed in SEEDS {
        let (mut network, clients) = ring_with_clients(20, 5, seed);
        network.run_until("fingers are right", PATIENCE * 10, Network::are_fingers_right);
        let member = network.any_member();
        for from in [member, clients[0], clients[4]] {
            let text = format!("from {from}");
            let before = network.sent_of(MessageKind::Data);
            order(&mut network, from, Command::Broadcast { payload: text.clone().into() });
            network.run_for(Duration::from_secs(5));
            for id in network.peers.keys().copied().filter(|id| *id != from) {
                assert_eq!(count(&network, id, &text), 1, "seed {seed}: {id} {text}");
            }
            assert_eq!(count(&network, from, &text), 0);
            assert_eq!(
                network.sent_of(MessageKind::Data) - before,
                24,
                "seed {seed}: one for each other node"
            );
        }
    }
}

#[test]
fn a_multicast_and_the_nearest_successors_work_for_clients_too() {
    for seed in SEEDS {
        let (mut network, clients) = ring_with_clients(20, 4, seed);
        let member = network.any_member();
        for from in [member, clients[0]] {
            let nobody = network.random_id();
            let destinations = vec![clients[0], clients[1], network.members()[3], member, nobody];
            let text = format!("from {from}");
            order(
                &mut network,
                from,
                Command::Multicast { destinations: destinations.clone(), payload: text.clone().into() },
            );
            network.run_for(Duration::from_secs(5));
            for id in network.peers.keys().copied() {
                let wanted = usize::from(destinations.contains(&id));
                assert_eq!(count(&network, id, &text), wanted, "seed {seed}: {id} {text}");
            }
            let undelivered = Event::Undelivered { destination: nobody, reason: RouteError::NoSuchNode };
            assert!(network.applications[&from].events.contains(&undelivered));
        }
        let (from, members) = (clients[2], network.members());
        order(&mut network, from, Command::SendToSuccessors { count: 3, payload: "near".into() });
        network.run_for(Duration::from_secs(5));
        let proxy = members.iter().position(|id| *id == network.responsible(from)).unwrap();
        let near: BTreeSet<Id> = (0..3).map(|step| members[(proxy + step) % members.len()]).collect();
        for id in network.peers.keys() {
            assert_eq!(count(&network, *id, "near"), usize::from(near.contains(id)), "seed {seed}");
        }
    }
}

#[test]
fn a_client_uses_the_dictionary() {
    let (mut network, clients) = ring_with_clients(12, 2, 5);
    let key = network.random_id();
    let ended = |network: &mut Network, id: Id, operation: u64| {
        network.run_until("the operation has ended", PATIENCE, |n| {
            n.applications[&id].answered.contains_key(&operation)
        });
        network.applications[&id].answered[&operation].clone()
    };
    let operation = network.insert(clients[0], key, "value");
    assert!(matches!(ended(&mut network, clients[0], operation), Ok(Answer::Written(_))));
    let operation = network.get(clients[1], key);
    let Ok(Answer::Value(Some(stored))) = ended(&mut network, clients[1], operation) else {
        panic!("the value is there")
    };
    assert_eq!(stored.value, "value");
    let operation = network.remove(clients[1], key);
    assert!(ended(&mut network, clients[1], operation).is_ok());
    let member = network.any_member();
    let operation = network.get(member, key);
    assert_eq!(ended(&mut network, member, operation), Ok(Answer::Value(None)));
}

#[test]
fn when_its_proxy_crashes_or_leaves_a_client_finds_the_next_and_loses_nothing() {
    for seed in SEEDS {
        for leaves in [true, false] {
            let (mut network, clients) = ring_with_clients(16, 2, seed);
            let (id, other) = (clients[0], network.any_member());
            let (mut sent, mut found) = (Vec::new(), Vec::new());
            for round in 0..3 {
                let proxy = network.peers[&id].proxy().unwrap().id;
                if leaves {
                    network.leave(proxy)
                } else {
                    network.kill(proxy)
                }
                if proxy == other {
                    break;
                }
                for number in 0..5 {
                    sent.push((id, network.send_reliably(id, other, &format!("out {round}.{number}"))));
                    sent.push((other, network.send_reliably(other, id, &format!("in {round}.{number}"))));
                    let key = network.random_id();
                    found.push(network.lookup(id, key));
                    network.run_for(Duration::from_millis(50));
                }
                network.run_until("it has the right proxy", PATIENCE, Network::are_clients_right);
                // A message that is refused thrice has failed: so often it does not find the client between two proxies.
                network.run_for(Duration::from_secs(3));
            }
            network.run_for(Duration::from_secs(40));
            if !network.peers.contains_key(&other) {
                continue;
            }
            for (from, operation) in sent {
                let result = &network.applications[&from].sent[&operation];
                assert_eq!(*result, Ok(()), "seed {seed}, leaves {leaves}");
            }
            let completed = &network.applications[&id].completed;
            assert!(found.iter().all(|lookup| completed[lookup].is_ok()), "seed {seed}: {completed:?}");
            let proxies = network.applications[&id].events.iter();
            assert!(proxies.filter(|event| matches!(event, Event::NewProxy(Some(_)))).count() >= 2);
        }
    }
}

#[test]
fn a_node_that_joins_between_a_client_and_its_proxy_becomes_the_proxy() {
    for seed in SEEDS {
        let (mut network, clients) = ring_with_clients(8, 1, seed);
        let (id, before) = (clients[0], network.responsible(clients[0]));
        let between = Id(id.0.wrapping_add(1) % (1 << 32));
        if between == before {
            continue;
        }
        let via = network.any_member();
        network.join(between, &[via]);
        network.run_until("it has joined", PATIENCE, |n| n.is_member(between));
        network.run_until("it is the proxy", PATIENCE, Network::are_clients_right);
        assert_eq!(network.peers[&id].proxy().map(|proxy| proxy.id), Some(between), "seed {seed}");
        let client = network.peers[&id].me();
        assert!(network.applications[&before].events.contains(&Event::ClientLeft(client)));
    }
}

#[test]
fn a_client_that_falls_silent_crashes_or_leaves_is_dropped() {
    for (seed, way) in SEEDS.zip(["falls silent", "crashes", "leaves"].into_iter().cycle()) {
        let (mut network, clients) = ring_with_clients(8, 2, seed);
        let (id, proxy) = (clients[0], network.responsible(clients[0]));
        let client = network.peers[&id].me();
        match way {
            "falls silent" => drop(network.paused.insert(id)),
            "crashes" => network.kill(id),
            _ => network.leave(id),
        }
        network.run_until("it is dropped", PATIENCE, |n| !n.peers[&proxy].clients().contains(&client));
        let left = Event::ClientLeft(client);
        assert_eq!(
            network.applications[&proxy].events.iter().filter(|e| **e == left).count(),
            1,
            "seed {seed}"
        );
        if way == "leaves" {
            assert!(network.applications[&id].events.contains(&Event::Left { handed_over: true }));
        }
        if network.paused.remove(&id) {
            network.run_until("it is back when it wakes up", PATIENCE, Network::are_clients_right);
        }
    }
}

#[test]
fn clients_and_members_come_and_go_on_a_network_that_loses_messages() {
    for seed in SEEDS {
        let (mut network, _) = ring_with_clients(20, 6, seed);
        network.loss_per_mille = 20;
        for step in 0..20 {
            let victim = network.any_member();
            match network.random(3) {
                0 if network.members().len() > 12 => network.kill(victim),
                1 if network.members().len() > 12 => network.leave(victim),
                _ => {
                    let (id, via) = (network.random_id(), network.any_member());
                    if step % 3 == 0 {
                        network.unreachable.insert(id);
                    }
                    network.join(id, &[via]);
                }
            }
            network.run_for(Duration::from_millis(700));
        }
        network.loss_per_mille = 0;
        let is_in = |peer: &Peer| matches!(peer.phase(), Phase::Member | Phase::Client);
        network.run_until("all are in", PATIENCE * 2, |network| network.peers.values().all(is_in));
        network.run_until("the ring is right", PATIENCE * 2, Network::is_ring_right);
        network.run_until("clients have the right proxies", PATIENCE * 2, Network::are_clients_right);
        let from = *network.peers.iter().find(|(_, peer)| peer.proxy().is_some()).unwrap().0;
        order(&mut network, from, Command::Broadcast { payload: "to all".into() });
        network.run_for(Duration::from_secs(10));
        for id in network.peers.keys().copied().filter(|id| *id != from) {
            assert_eq!(count(&network, id, "to all"), 1, "seed {seed}: {id}");
        }
    }
}

#[test]
fn the_id_of_a_client_is_in_use() {
    let (mut network, clients) = ring_with_clients(8, 1, 4);
    let (taken, proxy) = (clients[0], network.responsible(clients[0]));
    let newcomer = Contact { incarnation: 77, ..network.peers[&taken].me() };
    let newcomer = Contact { access_point: "p2ps://10.9.9.9:9".parse().unwrap(), ..newcomer };
    let join = Route { hops: 1, hop: 1, ..Route::new(newcomer, 5, 0, taken, Body::Join) };
    let answers = told(&mut network, proxy, newcomer, Message::Route(join));
    let refused = Message::Answer { sequence: 5, maintenance: true, result: Err(RouteError::IdInUse) };
    assert!(answers.contains(&(newcomer, refused)), "{answers:?}");
    let admit = ClientTalk::Admit { sequence: 6, as_client: true };
    let answers = told(&mut network, proxy, newcomer, Message::Client(admit));
    let rejected = ClientTalk::Rejected { sequence: 6, reason: Rejection::IdInUse };
    assert!(answers.contains(&(newcomer, Message::Client(rejected))), "{answers:?}");
}

/// What a node says at once when it is told something.
fn told(network: &mut Network, id: Id, from: Contact, message: Message) -> Vec<(Contact, Message)> {
    let (mut out, now) = (Vec::new(), network.now);
    network.peers.get_mut(&id).unwrap().handle(now, Input::Receive { from, message }, &mut out);
    let said = |output| match output {
        Output::Send { to, message } => Some((to, message)),
        _ => None,
    };
    out.into_iter().filter_map(said).collect()
}

fn stranger(id: u64) -> Contact {
    Contact { id: Id(id), access_point: "p2ps://10.9.9.9:0".parse().unwrap(), incarnation: 1 }
}

#[test]
fn a_proxy_has_so_many_clients_and_refuses_the_next() {
    let mut network = Network::ring(symmetric_tango(8), 1, 1);
    let proxy = network.members()[0];
    for number in 0..CLIENTS_MAX as u64 {
        let admit = ClientTalk::Admit { sequence: number, as_client: true };
        let answers = told(&mut network, proxy, stranger(number * 1000), Message::Client(admit));
        assert!(matches!(&answers[..], [(_, Message::Client(ClientTalk::Accepted { .. }))]), "{answers:?}");
    }
    assert_eq!(network.peers[&proxy].clients().len(), CLIENTS_MAX);
    let id = Id(7);
    network.join_as_client(id, &[proxy]);
    network.run_for(Duration::from_secs(5));
    let rejected = Event::Rejected(JoinError::NoRoomForClients { proxy });
    assert!(network.applications[&id].events.contains(&rejected), "{:?}", network.applications[&id].events);
}

#[test]
fn one_client_does_not_take_the_room_of_all() {
    let (mut network, clients) = ring_with_clients(8, 1, 2);
    let (id, proxy) = (clients[0], network.responsible(clients[0]));
    let client = network.peers[&id].me();
    let far = network.members().into_iter().find(|id| *id != proxy).unwrap();
    let route = |number| Route {
        hops: 1,
        hop: number,
        ..Route::new(
            client,
            1_000_000 + number,
            0,
            far,
            Body::Data { exact: true, payload: "a flood".into() },
        )
    };
    let mut verdicts = Vec::new();
    for number in 0..2 * CLIENT_HOPS_MAX as u64 {
        for (_, message) in told(&mut network, proxy, client, Message::Route(route(number))) {
            if let Message::Acks(acks) = message {
                verdicts.extend(acks.into_iter().map(|ack| ack.verdict));
            }
        }
    }
    let refused = verdicts.iter().filter(|verdict| **verdict == HopVerdict::Overloaded).count();
    assert_eq!(refused, CLIENT_HOPS_MAX, "the second half");
    // Others are served meanwhile; and the proxy is what it was.
    let operation = network.lookup(proxy, far);
    network.run_for(Duration::from_secs(5));
    assert!(network.applications[&proxy].completed[&operation].is_ok());
    assert!(network.is_ring_right());
}

#[test]
fn who_is_no_client_gets_nothing_for_being_one() {
    let mut network = Network::ring(symmetric_tango(8), 8, 3);
    let (member, stranger) = (network.any_member(), stranger(12_345));
    let route =
        Route { hops: 1, hop: 3, ..Route::new(stranger, 1, 0, Id(5), Body::Lookup { maintenance: false }) };
    let answers = told(&mut network, member, stranger, Message::Route(route));
    let [(_, Message::Acks(acks))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(acks[0].verdict, HopVerdict::NotMember);
    for talk in [
        ClientTalk::Farewell,
        ClientTalk::Accepted { sequence: 0, predecessor: Some(stranger), successors: vec![stranger] },
        ClientTalk::Rejected { sequence: 1, reason: Rejection::Full },
        ClientTalk::Located { sequence: 1, result: Ok(stranger) },
    ] {
        assert_eq!(told(&mut network, member, stranger, Message::Client(talk)), []);
    }
    for message in [
        Message::Query { token: 4 },
        Message::Notify { predecessor: None },
        Message::Introduce { successors: vec![stranger] },
        Message::JoinConfirm { sequence: 4 },
    ] {
        told(&mut network, member, stranger, message);
    }
    network.run_for(Duration::from_secs(30));
    assert!(!is_in_a_table(&network, stranger.id) && network.is_ring_right());
}

#[test]
fn a_farewell_that_is_lost_is_said_again() {
    for seed in SEEDS {
        let (mut network, clients) = ring_with_clients(8, 1, seed);
        let id = clients[0];
        network.loses = |message| matches!(message, Message::Client(ClientTalk::Farewell));
        let before = network.responsible(id);
        let (nearer, via) = (Id(id.0.wrapping_add(1)), network.any_member());
        network.join(nearer, &[via]);
        network.run_until("it has the nearer proxy", PATIENCE, |n| {
            n.peers[&id].proxy().is_some_and(|proxy| proxy.id == nearer)
        });
        network.run_for(Duration::from_secs(5));
        assert_eq!(
            network.peers[&before].clients().len(),
            1,
            "seed {seed}: it does not know that it was left"
        );
        network.loses = |_| false;
        network.run_until("nobody else has it for a client", PATIENCE, Network::are_clients_right);
    }
}

/// Of the access points that the client has come in by, none is left when its proxy goes, nor one of the successors that this one had
/// when the client came.
#[test]
fn a_client_knows_the_present_successors_of_its_proxy() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(2), 12, seed);
        let (id, via) = (network.random_id(), network.any_member());
        network.unreachable.insert(id);
        network.join(id, &[via]);
        network.run_until("it is a client", PATIENCE, |n| n.is_client(id));
        let proxy = network.responsible(id);
        let mut gone: BTreeSet<Id> =
            network.peers[&proxy].successors().iter().map(|known| known.id).collect();
        gone.insert(via);
        gone.remove(&proxy);
        for member in gone {
            network.kill(member);
            network.run_until("the ring is right", PATIENCE, Network::is_ring_right);
        }
        network.run_for(Duration::from_millis(60));
        network.kill(proxy);
        network.run_until("it has the next proxy", PATIENCE, Network::are_clients_right);
    }
}

/// A partition takes its proxy away, and who let it in is gone before that heals.
#[test]
fn a_client_finds_a_proxy_again_that_was_behind_a_partition() {
    for seed in SEEDS {
        let mut network = Network::ring(symmetric_tango(2), 3, seed);
        let id = network.random_id();
        let proxy = network.responsible(id);
        let others: Vec<Id> = network.members().into_iter().filter(|member| *member != proxy).collect();
        network.unreachable.insert(id);
        network.join(id, &others[..1]);
        network.run_until("it is a client", PATIENCE, |n| n.is_client(id));
        network.island.insert(proxy);
        network.run_until("it has another proxy", PATIENCE, |n| {
            n.peers[&id].proxy().is_some_and(|present| present.id != proxy)
        });
        network.run_for(PATIENCE);
        for member in others {
            network.kill(member);
        }
        network.run_for(PATIENCE);
        network.island.clear();
        network.run_until("it has the first proxy", PATIENCE, Network::are_clients_right);
    }
}
