//! What the example applications share: a node from the command line, and orders from the keyboard.

use std::error::Error;
use std::io::BufRead;
use std::net::SocketAddr;

use p2ps::config::NetConfig;
use p2ps::node::{Messages, Node, NodeConfig};
use tokio::sync::mpsc;

/// Joins or creates a network by the arguments `NAME LISTEN-ADDRESS [ACCESS-POINT-TO-JOIN]`; tells the name too.
pub(crate) async fn enter(program: &str) -> Result<(Node, Messages, String), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, listen, join) = match arguments.as_slice() {
        [name, listen] => (name, listen, None),
        [name, listen, access_point] => (name, listen, Some(access_point.parse()?)),
        _ => return Err(format!("usage: {program} NAME LISTEN-ADDRESS [ACCESS-POINT-TO-JOIN]").into()),
    };
    let config = NodeConfig { listen: listen.parse::<SocketAddr>()?, ..NodeConfig::default() };
    let (node, messages, _events) = match join {
        Some(access_point) => Node::join_net(&[access_point], config, None).await?,
        None => Node::create_net(NetConfig::default(), config).await?,
    };
    Ok((node, messages, name.clone()))
}

/// What is typed, line by line, and `quit` at the end of the input or on Ctrl-C.
pub(crate) fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    let interrupted = sender.clone();
    // Standard input can only be read by blocking; the thread ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
        let _ = sender.blocking_send("quit".to_owned());
    });
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = interrupted.send("quit".to_owned()).await;
        }
    });
    receiver
}
