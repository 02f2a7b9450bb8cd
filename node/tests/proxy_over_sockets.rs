//! Nodes that really cannot be reached: they announce an access point at which nobody listens. Over loopback sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod sockets;

use std::net::TcpListener;

use p2ps::access_point::AccessPoint;
use p2ps::id::Id;
use p2ps::node::{ConfigProblem, Event, Events, Messages, Node, NodeConfig, NodeError, NodeEvent, ProxyUse};
use p2ps::peer::JoinError;
use sockets::{Members, at, net, run, until};

const IDS: [u64; 6] = [1, 10_000, 20_000, 30_000, 40_000, 50_000];

/// An access point at which nobody listens.
fn dead_end() -> AccessPoint {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().into()
}

fn behind_a_firewall(id: u64) -> NodeConfig {
    NodeConfig { advertise: Some(dead_end()), ..at(id) }
}

async fn next_event(events: &mut Events, wanted: impl Fn(&NodeEvent) -> bool) -> NodeEvent {
    loop {
        let event = events.next().await.expect("the node runs");
        if wanted(&event) {
            return event;
        }
    }
}

async fn text(messages: &mut Messages) -> String {
    String::from_utf8(messages.next().await.expect("the node runs").payload.to_vec()).unwrap()
}

#[test]
fn a_node_that_cannot_be_reached_joins_by_a_proxy_and_does_what_others_do() {
    run(async {
        let mut members = Members::with_ids(&IDS).await;
        // By a node that is not its successor, and by the one that is.
        for (id, by) in [(25_000, 1), (26_000, 30_000)] {
            let by = [members.node(by).access_point()];
            let (client, mut messages, mut events) =
                Node::join_net(&by, behind_a_firewall(id), Some(net())).await.unwrap();
            let connected = NodeEvent::Overlay(Event::Connected { use_proxy: true });
            next_event(&mut events, |event| format!("{event:?}") == format!("{connected:?}")).await;
            let proxy = members.node(30_000);
            assert_eq!(client.proxy(), Some(proxy.contact()));
            assert!(proxy.clients().contains(&client.contact()));
            assert!(client.statistics().uses_proxy && proxy.statistics().clients > 0);
            assert!(proxy.statistics().links_in > 0 && client.statistics().links_out > 0);
            assert_eq!(client.snapshot().uses_proxy, 1);

            for key in (0..65_536).step_by(4999).map(Id) {
                assert_eq!(client.lookup(key).await.unwrap().responsible.id, members.responsible(key));
            }
            members.node(50_000).send_reliably(Id(id), "to the client").await.unwrap();
            assert_eq!(text(&mut messages).await, "to the client");
            client.send_reliably(Id(50_000), "from the client").await.unwrap();
            assert_eq!(text(&mut members.0.get_mut(&Id(50_000)).unwrap().1).await, "from the client");
            client.send_to_myself("to itself").unwrap();
            assert_eq!(text(&mut messages).await, "to itself");
            members.node(1).broadcast("to all").unwrap();
            assert_eq!(text(&mut messages).await, "to all");
            for (receiver, (_, messages, _)) in members.0.iter_mut().filter(|(id, _)| **id != Id(1)) {
                assert_eq!(text(messages).await, "to all", "{receiver}");
            }
            client.insert(Id(77), "value").await.unwrap();
            assert_eq!(members.node(1).get(Id(77)).await.unwrap().unwrap().value, "value");
            assert_eq!(client.get(Id(77)).await.unwrap().unwrap().value, "value");
            members.is_ring().unwrap();

            assert!(client.leave().await.unwrap());
            until("the client is gone", || members.node(30_000).clients().is_empty()).await;
        }
    });
}

#[test]
fn a_port_that_swallows_everything_is_no_way_to_a_node() {
    run(async {
        let members = Members::with_ids(&IDS).await;
        // As behind a filter that drops: the dials end when their time is up, not before.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let advertise = Some(silent.local_addr().unwrap().into());
        let by = [members.node(30_000).access_point()];
        let config = NodeConfig { advertise, ..at(25_000) };
        let (client, ..) = Node::join_net(&by, config, Some(net())).await.unwrap();
        assert_eq!(client.proxy(), Some(members.node(30_000).contact()));
        assert_eq!(client.lookup(Id(45_000)).await.unwrap().responsible.id, Id(50_000));
        members.is_ring().unwrap();
    });
}

#[test]
fn a_client_whose_proxy_is_gone_gets_another_one() {
    run(async {
        let mut members = Members::with_ids(&IDS).await;
        let by = [members.node(1).access_point()];
        let (client, _messages, mut events) =
            Node::join_net(&by, behind_a_firewall(25_000), Some(net())).await.unwrap();
        members.0.remove(&Id(30_000));
        let is_next = |event: &NodeEvent| matches!(event, NodeEvent::Overlay(Event::NewProxy(Some(proxy))) if proxy.id == Id(40_000));
        next_event(&mut events, is_next).await;
        members.until_ring("the ring heals").await;
        assert_eq!(client.lookup(Id(33_000)).await.unwrap().responsible.id, Id(40_000));

        let (leaver, ..) = members.0.remove(&Id(40_000)).unwrap();
        assert!(leaver.leave().await.unwrap());
        until("the next one takes over", || client.proxy().is_some_and(|proxy| proxy.id == Id(50_000))).await;
        assert_eq!(client.lookup(Id(33_000)).await.unwrap().responsible.id, Id(50_000));
        until("it is known there", || members.node(50_000).clients() == [client.contact()]).await;
        drop(client);
        until("a client that crashes is dropped", || members.node(50_000).clients().is_empty()).await;
    });
}

#[test]
fn a_node_may_be_a_client_by_choice_and_never_against_its_will() {
    run(async {
        let (first, ..) = Node::create_net(net(), at(1)).await.unwrap();
        let by = [first.access_point()];
        let always = NodeConfig { proxy: ProxyUse::Always, ..at(2) };
        let (client, ..) = Node::join_net(&by, always.clone(), None).await.unwrap();
        assert_eq!(client.proxy(), Some(first.contact()));
        assert!(client.contact().is_client() && !client.is_responsible_of(Id(2)));
        assert!(first.is_responsible_of(Id(2)) && first.successors().is_empty());

        let never = NodeConfig { proxy: ProxyUse::Never, ..behind_a_firewall(3) };
        let announced = never.advertise.unwrap();
        let error = Node::join_net(&by, never, Some(net())).await.expect_err("nobody can reach it");
        let NodeError::CouldNotJoin(JoinError::CannotBeReached(access_point)) = &error else {
            panic!("{error}")
        };
        assert_eq!(*access_point, announced);
        assert!(error.to_string().contains("advertise"), "{error}");

        let error = Node::create_net(net(), always).await.expect_err("it would be nobody's client");
        assert!(matches!(error, NodeError::CouldNotConfig(ConfigProblem::ClientOfNobody)), "{error}");
    });
}

#[test]
fn a_node_that_has_left_says_so_whatever_is_asked_of_it() {
    run(async {
        let (node, mut messages, _events) = Node::create_net(net(), at(1)).await.unwrap();
        node.send_to_myself("last words").unwrap();
        assert_eq!(text(&mut messages).await, "last words");
        node.leave().await.unwrap();
        assert!(matches!(node.send(Id(1), "too late"), Err(NodeError::HasStopped)));
        assert!(matches!(node.broadcast("too late"), Err(NodeError::HasStopped)));
        assert!(matches!(node.multicast(&[Id(1)], "too late"), Err(NodeError::HasStopped)));
        assert!(matches!(node.send_reliably(Id(1), "too late").await, Err(NodeError::HasStopped)));
        assert!(matches!(node.get(Id(1)).await, Err(NodeError::HasStopped)));
        assert!(matches!(node.lookup(Id(1)).await, Err(NodeError::HasStopped)));
        assert!(matches!(node.leave().await, Err(NodeError::HasStopped)));
    });
}

#[test]
fn a_text_that_is_no_access_point_is_an_error_of_the_node() {
    let parse = |text: &str| -> Result<AccessPoint, NodeError> { Ok(text.parse()?) };
    assert!(matches!(parse("127.0.0.1:3001"), Err(NodeError::WrongAccessPoint(_))));
    assert!(parse("p2ps://127.0.0.1:3001").is_ok());
}
