//! The dictionary over loopback sockets, in one process: values small and large, through a join, a leave and a crash.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod sockets;

use p2ps::access_point::AccessPoint;
use p2ps::config::NetConfig;
use p2ps::id::Id;
use p2ps::message::dictionary::VALUE_BYTES_MAX;
use p2ps::node::{DictionaryError, Events, Messages, Node, NodeConfig, NodeError};
use sockets::{config, run};

/// Keys all around the ring of 2^32 ids.
const KEYS: u64 = 60;

/// Nodes stand evenly, so that three copies are three nodes'.
fn at(place: u64) -> NodeConfig {
    NodeConfig { id: Some(Id(place << 28)), ..config() }
}

async fn join(place: u64, by: &[AccessPoint]) -> (Node, Messages, Events) {
    Node::join_net(by, at(place), None).await.unwrap()
}

fn key(number: u64) -> Id {
    Id(number * ((1 << 32) / KEYS) + 12_345)
}

fn value(number: u64) -> Vec<u8> {
    // Together more than one message takes.
    vec![number as u8; 1 + number as usize * 2_000]
}

async fn all_are_there(node: &Node) {
    for number in 0..KEYS {
        let stored = node.get(key(number)).await.unwrap().unwrap();
        assert_eq!(&stored.value[..], value(number), "{number} from {node:?}");
    }
}

#[test]
fn values_survive_a_join_a_leave_and_a_crash() {
    run(async {
        let first = Node::create_net(NetConfig::default(), at(0)).await.unwrap();
        let by = [first.0.access_point()];
        let mut others = Vec::new();
        for place in 1..8 {
            others.push(join(place * 2, &by).await);
        }
        for number in 0..KEYS {
            let from = &others[number as usize % others.len()].0;
            let written = from.insert(key(number), value(number)).await.unwrap();
            assert_eq!((written.copies, written.version.counter), (3, 1));
        }
        let items: u64 = others.iter().chain([&first]).map(|(node, ..)| node.statistics().items).sum();
        assert_eq!(items, 3 * KEYS);
        all_are_there(&first.0).await;

        let (newcomer, ..) = join(5, &by).await;
        all_are_there(&newcomer).await;
        assert!(others[3].0.leave().await.unwrap());
        all_are_there(&newcomer).await;
        others[5].0.stop();
        all_are_there(&newcomer).await;

        newcomer.remove(key(7)).await.unwrap();
        assert_eq!(first.0.get(key(7)).await.unwrap(), None);
    });
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    run(async {
        let (node, ..) = Node::create_net(NetConfig::default(), at(1)).await.unwrap();
        let largest = node.insert(Id(1), vec![1; VALUE_BYTES_MAX]).await.unwrap();
        assert_eq!(largest.copies, 1);
        let too_large = node.insert(Id(1), vec![1; VALUE_BYTES_MAX + 1]).await;
        assert!(matches!(too_large, Err(NodeError::Dictionary(DictionaryError::ValueTooLarge))));
        assert!(matches!(node.get(Id(1 << 40)).await, Err(NodeError::NotOnRing { .. })));
        assert_eq!(node.get(Id(2)).await.unwrap(), None);
        node.leave().await.unwrap();
        assert!(node.get(Id(1)).await.is_err());
    });
}
