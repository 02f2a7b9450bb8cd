//! The first example of the P2PS talk (MOZ 2004): node 1 creates a network on port 3001, node 16 joins, and a third node,
//! which lets the system choose its id and port, sends to the responsible of key 42 and to the nodes 1 and 16.
//!
//! `cargo run --example three_nodes`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::SocketAddr;

use p2ps::config::NetConfig;
use p2ps::id::Id;
use p2ps::node::{Messages, Node, NodeConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 3001));
    let first = NodeConfig { id: Some(Id(1)), listen, ..NodeConfig::default() };
    let (one, mut to_one, _) = Node::create_net(NetConfig::default(), first).await?;
    let network = [one.access_point()];

    let second = NodeConfig { id: Some(Id(16)), ..NodeConfig::default() };
    let (sixteen, mut to_sixteen, _) = Node::join_net(&network, second, None).await?;

    let (third, mut to_third, _) = Node::join_net(&network, NodeConfig::default(), None).await?;
    for node in [&one, &sixteen, &third] {
        println!("node {} accepts links at {}", node.id(), node.access_point());
    }

    let responsible = third.lookup(Id(42)).await?.responsible.id;
    println!("node {responsible} is responsible of key 42");
    third.send_to_responsible(Id(42), "to whom it may concern")?;
    third.send(one.id(), "to node 1")?;
    third.send(sixteen.id(), "to node 16")?;

    receive(&one, &mut to_one, 1 + usize::from(responsible == one.id())).await;
    receive(&sixteen, &mut to_sixteen, 1 + usize::from(responsible == sixteen.id())).await;
    receive(&third, &mut to_third, usize::from(responsible == third.id())).await;

    third.leave().await?;
    sixteen.leave().await?;
    Ok(())
}

async fn receive(node: &Node, messages: &mut Messages, count: usize) {
    for _ in 0..count {
        if let Some(message) = messages.next().await {
            let text = String::from_utf8_lossy(&message.payload);
            println!("node {} received from node {}: {text}", node.id(), message.source);
        }
    }
}
