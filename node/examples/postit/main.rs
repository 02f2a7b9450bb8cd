//! Notes for a group, without a server: one of the applications that P2PS was used for. Whoever joins late gets the board.
//!
//! In three terminals:
//! ```text
//! cargo run -p p2ps --example postit -- ann 127.0.0.1:4001
//! cargo run -p p2ps --example postit -- bob 127.0.0.1:0 p2ps://127.0.0.1:4001
//! cargo run -p p2ps --example postit -- eve 127.0.0.1:0 p2ps://127.0.0.1:4001
//! ```
//! Then type `post TEXT`, `list`, `withdraw NOTE` or `quit`.

#![expect(clippy::print_stdout, reason = "a program for people")]

mod board;
mod session;

use std::io::BufRead;
use std::net::SocketAddr;

use p2ps::config::NetConfig;
use p2ps::node::{Node, NodeConfig};
use session::Session;
use tokio::sync::mpsc;

const USAGE: &str = "usage: postit NAME LISTEN-ADDRESS [ACCESS-POINT-TO-JOIN]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, listen, join) = match arguments.as_slice() {
        [name, listen] => (name, listen, None),
        [name, listen, access_point] => (name, listen, Some(access_point.parse()?)),
        _ => return Err(USAGE.into()),
    };
    let config = NodeConfig { listen: listen.parse::<SocketAddr>()?, ..NodeConfig::default() };
    let (node, messages, _events) = match join {
        Some(access_point) => Node::join_net(&[access_point], config, None).await?,
        None => Node::create_net(NetConfig::default(), config).await?,
    };
    println!("others join by {}; post TEXT, list, withdraw NOTE, or quit", node.access_point());

    let (said, mut lines) = mpsc::channel(64);
    let session = tokio::spawn(Session::new(node, messages, name.clone(), said).run(typed_lines()));
    while let Some(line) = lines.recv().await {
        println!("{line}");
    }
    Ok(session.await??)
}

/// What is typed, line by line, until the end of the input or Ctrl-C.
fn typed_lines() -> mpsc::Receiver<String> {
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
