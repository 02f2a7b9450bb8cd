//! Nodes on smol, in a program without a tokio runtime.

#![cfg(feature = "smol")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod sockets;

use p2ps::id::Id;
use p2ps::node::{Event, Node, NodeEvent};
use smol::future::FutureExt;
use sockets::{PATIENCE, at, net};

fn run<T>(work: impl Future<Output = T>) -> T {
    let hangs = async {
        smol::Timer::after(PATIENCE).await;
        panic!("the test hangs")
    };
    smol::block_on(work.or(hangs))
}

#[test]
fn nodes_meet_talk_keep_values_and_part() {
    run(async {
        let (first, mut messages, _) = Node::create_net(net(), at(100)).await.unwrap();
        let by = [first.access_point()];
        let (second, ..) = Node::join_net(&by, at(200), None).await.unwrap();
        let (third, _, mut events) = Node::join_net(&by, at(300), Some(net())).await.unwrap();

        second.send_reliably(Id(100), "hello").await.unwrap();
        let message = messages.next().await.unwrap();
        assert_eq!((message.source, &message.payload[..]), (Id(200), &b"hello"[..]));
        third.insert(Id(150), "a value").await.unwrap();
        assert_eq!(&first.get(Id(150)).await.unwrap().unwrap().value[..], b"a value");

        assert!(second.leave().await.unwrap(), "its successor takes over");
        assert_eq!(first.lookup(Id(150)).await.unwrap().responsible.id, Id(300));
        // A timer of the protocol, and a connection that is reset.
        first.stop();
        while !matches!(events.next().await, Some(NodeEvent::Overlay(Event::Alone))) {}
        assert_eq!(third.lookup(Id(1)).await.unwrap().responsible.id, Id(300));
    });
}
