//! A ring of a dozen nodes over loopback sockets, in one process.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod sockets;

use std::net::SocketAddr;
use std::time::Duration;

use p2ps::access_point::AccessPoint;
use p2ps::com::handshake::{HandshakeError, Hello, offer};
use p2ps::config::{Geometry, NetConfig};
use p2ps::id::{Id, Ring};
use p2ps::message::Contact;
use p2ps::node::{ConfigProblem, Events, Node, NodeConfig, NodeError, NodeEvent};
use p2ps::peer::JoinError;
use sockets::{Members, PATIENCE, at, config, net, run};
use tokio::net::{TcpListener, TcpStream};

async fn look_ups_are_right_from_everywhere(members: &Members) {
    for node in members.nodes() {
        for key in (0..65_536).step_by(1979).map(Id) {
            let found = node.lookup(key).await.unwrap();
            assert_eq!(found.responsible.id, members.responsible(key), "{key} from {}", node.id());
        }
    }
}

const DOZEN: [u64; 12] = [1, 40_000, 16, 60_000, 900, 5_000, 33_000, 20_000, 51_000, 12_000, 28_000, 65_535];

#[test]
fn a_dozen_nodes_form_a_ring_and_every_one_finds_every_responsible() {
    run(async {
        let members = Members::with_ids(&DOZEN).await;
        look_ups_are_right_from_everywhere(&members).await;
        let snapshot = members.node(1).snapshot();
        assert_eq!(snapshot.lookups_succeeded, 34);
        assert!(snapshot.lookups_failed.is_empty(), "{:?}", snapshot.lookups_failed);
        assert_eq!(snapshot.lookup_hops.0.iter().map(|(_, count)| count).sum::<u64>(), 34);
        assert!(snapshot.links_in + snapshot.links_out >= 5, "{snapshot:?}");
        assert!(snapshot.traffic.iter().all(|kind| kind.sent > 0 && kind.received_bytes > 0), "{snapshot:?}");
    });
}

#[test]
fn the_ring_heals_when_a_node_crashes() {
    run(async {
        let mut members = Members::with_ids(&DOZEN).await;
        members.0.remove(&Id(16));
        members.0.remove(&Id(40_000));
        members.until_ring("the ring heals").await;
        look_ups_are_right_from_everywhere(&members).await;
    });
}

#[test]
fn a_node_that_leaves_hands_over_and_is_not_missed() {
    run(async {
        let mut members = Members::with_ids(&DOZEN).await;
        let (leaver, ..) = members.0.remove(&Id(900)).unwrap();
        assert!(leaver.leave().await.unwrap(), "the successor takes over");
        look_ups_are_right_from_everywhere(&members).await;
        members.until_ring("the ring closes").await;
        assert!(matches!(leaver.leave().await, Err(NodeError::HasStopped)));
        assert!(leaver.lookup(Id(1)).await.is_err());
    });
}

/// What the other's link says when one node of two goes.
async fn closed_link(events: &mut Events) -> (Id, bool) {
    loop {
        match events.next().await.expect("the node runs") {
            NodeEvent::LinkClosed { contact, orderly, .. } => return (contact.id, orderly),
            _ => continue,
        }
    }
}

#[test]
fn a_link_tells_a_farewell_from_a_crash() {
    run(async {
        let mut members = Members::with_ids(&[1, 2]).await;
        let (leaver, ..) = members.0.remove(&Id(2)).unwrap();
        assert!(leaver.leave().await.unwrap());
        assert_eq!(closed_link(&mut members.0.get_mut(&Id(1)).unwrap().2).await, (Id(2), true));

        let mut members = Members::with_ids(&[1, 2]).await;
        members.0.remove(&Id(2));
        assert_eq!(closed_link(&mut members.0.get_mut(&Id(1)).unwrap().2).await, (Id(2), false));
        members.until_ring("the other is alone").await;
    });
}

#[test]
fn a_node_that_says_farewell_takes_no_new_link() {
    run(async {
        let (node, ..) = Node::create_net(net(), at(1)).await.unwrap();
        // One who shakes hands and then neither reads nor closes: the node waits for it.
        let silent = shake_hands(&node, 2).await.unwrap();
        let leaver = node.clone();
        let leaving = tokio::spawn(async move { leaver.leave().await });
        let mut late = Vec::new();
        while let Ok(link) = shake_hands(&node, 3 + late.len() as u64).await {
            late.push(link);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!leaving.is_finished(), "{} links were taken until the node ended", late.len());
        drop((silent, late));
        leaving.await.unwrap().unwrap();
    });
}

async fn shake_hands(node: &Node, id: u64) -> Result<TcpStream, HandshakeError> {
    let mut stream = TcpStream::connect(SocketAddr::from(node.access_point())).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let contact = Contact { id: Id(id), access_point: listener.local_addr()?.into(), ..node.contact() };
    let hello = Hello::Link { net: net(), contact, expected: None };
    offer(&mut stream, None, &hello, &[]).await?;
    Ok(stream)
}

#[test]
fn a_burst_that_no_socket_takes_at_once_arrives_whole_and_in_order() {
    run(async {
        let mut members = Members::with_ids(&[1, 2]).await;
        for number in 0..60_u8 {
            members.node(1).send(Id(2), vec![number; 50_000]).unwrap();
        }
        let messages = &mut members.0.get_mut(&Id(2)).unwrap().1;
        for number in 0..60_u8 {
            let message = messages.next().await.unwrap();
            assert!(message.payload.len() == 50_000 && message.payload.iter().all(|byte| *byte == number));
        }
    });
}

#[test]
fn group_messages_reach_all_some_or_the_nearest() {
    run(async {
        let mut members = Members::with_ids(&DOZEN).await;
        let from = members.node(900);
        from.broadcast("to all").unwrap();
        from.multicast(&[Id(16), Id(60_000)], "to two").unwrap();
        from.send_to_successors(1, "to the next").unwrap();
        let too_many = from.send_to_successors(net().successors() + 1, "to more than there are");
        assert!(matches!(too_many, Err(NodeError::TooManySuccessors { .. })));
        for (id, (_, messages, _)) in &mut members.0 {
            let mut wanted = match id {
                Id(900) => vec![],
                Id(16 | 60_000) => vec!["to all", "to two"],
                Id(5_000) => vec!["to all", "to the next"],
                _ => vec!["to all"],
            };
            while !wanted.is_empty() {
                let message = messages.next().await.unwrap();
                let text = std::str::from_utf8(&message.payload).unwrap();
                let place = wanted.iter().position(|wanted| *wanted == text);
                wanted.remove(place.unwrap_or_else(|| panic!("{id} got {text:?}")));
                assert_eq!((message.source, message.destination), (Id(900), *id));
            }
        }
    });
}

#[test]
fn a_reliable_message_is_delivered_or_reported_failed() {
    run(async {
        let mut members = Members::with_ids(&DOZEN).await;
        for number in 0..100_u8 {
            members.node(16).send_reliably(Id(60_000), vec![number]).await.unwrap();
        }
        members.node(16).send_reliably(Id(16), "to itself").await.unwrap();
        for number in 0..100_u8 {
            let message = members.0.get_mut(&Id(60_000)).unwrap().1.next().await.unwrap();
            assert_eq!((message.source, &message.payload[..]), (Id(16), &[number][..]));
        }
        let nobody = members.node(16).send_reliably(Id(17), "to nobody").await;
        assert!(matches!(nobody, Err(NodeError::Route(p2ps::message::RouteError::NoSuchNode))), "{nobody:?}");
    });
}

#[test]
fn messages_reach_the_node_and_the_responsible_they_are_sent_to() {
    run(async {
        let mut members = Members::with_ids(&DOZEN).await;
        let large = vec![7_u8; p2ps::message::PAYLOAD_BYTES_MAX];
        members.node(28_000).send(Id(16), "to a node").unwrap();
        members.node(28_000).send_to_responsible(Id(42), large.clone()).unwrap();
        let next = members.0.get_mut(&Id(16)).unwrap().1.next().await.unwrap();
        assert_eq!(
            (next.source, next.destination, &next.payload[..]),
            (Id(28_000), Id(16), &b"to a node"[..])
        );
        let next = members.0.get_mut(&Id(900)).unwrap().1.next().await.unwrap();
        assert_eq!((next.source, next.destination), (Id(28_000), Id(42)));
        assert!(next.payload == large);
        let too_large = vec![7_u8; p2ps::message::PAYLOAD_BYTES_MAX + 1];
        assert!(matches!(members.node(1).send(Id(16), too_large), Err(NodeError::Route(_))));
        assert!(matches!(members.node(1).send(Id(1 << 16), ""), Err(NodeError::NotOnRing { .. })));
    });
}

#[test]
fn an_id_in_use_is_refused_and_the_ring_is_not_disturbed() {
    run(async {
        let members = Members::with_ids(&DOZEN[..5]).await;
        for by in [1, 900] {
            let by = [members.node(by).access_point()];
            let joined = Node::join_net(&by, at(16), None).await;
            let error = joined.expect_err("16 is in use");
            assert!(matches!(&error, NodeError::CouldNotJoin(JoinError::IdInUse(Id(16)))), "{error}");
        }
        members.is_ring().unwrap();
        look_ups_are_right_from_everywhere(&members).await;
    });
}

#[test]
fn where_the_system_chooses_the_id_another_is_drawn_for_one_in_use() {
    run(async {
        let tiny = NetConfig::new(Ring::new(8).unwrap(), Geometry::Chord, 2).unwrap();
        let (first, ..) = Node::create_net(tiny, config()).await.unwrap();
        let mut nodes = vec![first];
        while nodes.len() < 4 {
            let (node, ..) = Node::join_net(&[nodes[0].access_point()], config(), None).await.unwrap();
            assert_eq!(node.net(), tiny, "the settings are learnt from the network");
            assert!(nodes.iter().all(|other| other.id() != node.id()));
            nodes.push(node);
        }
    });
}

#[test]
fn other_settings_are_refused_and_both_sides_are_named() {
    run(async {
        let (first, ..) = Node::create_net(net(), at(1)).await.unwrap();
        let other = NetConfig::new(net().ring(), Geometry::Chord, 4).unwrap();
        let error =
            Node::join_net(&[first.access_point()], at(2), Some(other)).await.expect_err("other settings");
        let NodeError::Refused { source: HandshakeError::OtherSettings { ours, theirs }, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((*ours, *theirs), (other, net()));
        let text = error.to_string();
        assert!(text.contains("chord") && text.contains("tango(k=5, symmetric)"), "{text}");
    });
}

#[test]
fn a_network_of_another_version_is_refused_and_both_versions_are_named() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let by = [AccessPoint::from(listener.local_addr().unwrap())];
        for net in [None, Some(net())] {
            let error = tokio::select! {
                joined = Node::join_net(&by, at(2), net) => joined.expect_err("another version"),
                () = other_version_forever(&listener) => unreachable!(),
            };
            assert!(
                matches!(
                    &error,
                    NodeError::Refused { source: HandshakeError::OtherVersion { ours: 1, theirs: 99 }, .. }
                ),
                "{error}"
            );
        }
    });
}

async fn other_version_forever(listener: &TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\x07\0\0\0P2PS\x63\0?").await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[test]
fn nobody_there_is_said_so() {
    run(async {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let joined = Node::join_net(&[free.into()], at(2), Some(net())).await;
        assert!(matches!(
            joined.err(),
            Some(NodeError::Refused { source: HandshakeError::Connection(_), .. })
        ));
        let joined = Node::join_net(&[], at(2), None).await;
        let error = joined.expect_err("nobody to join by");
        assert!(matches!(error, NodeError::CouldNotConfig(ConfigProblem::AccessPoints(0))), "{error}");
    });
}

#[test]
fn a_node_that_comes_back_with_its_id_and_port_is_taken_for_a_new_one() {
    run(async {
        let mut members = Members::with_ids(&DOZEN[..6]).await;
        let (crashed, ..) = members.0.remove(&Id(900)).unwrap();
        let (listen, by) = (crashed.node_config().listen, [members.node(1).access_point()]);
        crashed.stop();
        drop(crashed);
        members.until_ring("the ring heals").await;
        let config = NodeConfig { listen, ..at(900) };
        members.0.insert(Id(900), Node::join_net(&by, config, Some(net())).await.unwrap());
        members.until_ring("the ring takes it in").await;
        look_ups_are_right_from_everywhere(&members).await;
    });
}

#[test]
fn it_works_on_many_threads_too() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let work = async {
        let members = Members::with_ids(&DOZEN).await;
        let tasks: Vec<_> = members
            .nodes()
            .cloned()
            .map(|node| {
                tokio::spawn(async move {
                    for key in (0..65_536).step_by(97).map(Id) {
                        node.lookup(key).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        look_ups_are_right_from_everywhere(&members).await;
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, work).await.expect("the test hangs") });
}
