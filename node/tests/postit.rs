//! The postit example on real sockets: what one posts all see, late joiners get the board, what is withdrawn goes, also while
//! participants crash.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that cannot go on fails; the example's modules are used in part"
)]

#[path = "../examples/postit/board.rs"]
mod board;
#[path = "../examples/postit/session.rs"]
mod session;

use std::time::Duration;

use p2ps::config::NetConfig;
use p2ps::node::{Node, NodeConfig, NodeError};
use session::Session;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

struct Participant {
    node: Node,
    orders: mpsc::Sender<String>,
    said: mpsc::Receiver<String>,
    seen: Vec<String>,
    session: JoinHandle<Result<(), NodeError>>,
}

impl Participant {
    async fn new(name: &str, by: Option<&Participant>) -> Participant {
        let config = NodeConfig::default();
        let (node, messages, _) = match by {
            Some(by) => Node::join_net(&[by.node.access_point()], config, None).await.unwrap(),
            None => Node::create_net(NetConfig::default(), config).await.unwrap(),
        };
        let (orders, obeyed) = mpsc::channel(8);
        let (lines, said) = mpsc::channel(1000);
        let session = Session::new(node.clone(), messages, name.to_owned(), lines).run(obeyed);
        Participant { node, orders, said, seen: Vec::new(), session: tokio::spawn(session) }
    }

    async fn order(&self, order: &str) {
        self.orders.send(order.to_owned()).await.unwrap();
    }

    /// Waits until a line that ends so has been shown.
    async fn sees(&mut self, end: &str) -> String {
        let waited = timeout(PATIENCE, async {
            loop {
                if let Some(line) = self.seen.iter().find(|line| line.ends_with(end)) {
                    return line.clone();
                }
                self.seen.push(self.said.recv().await.expect("the session runs"));
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{} never saw {end:?}", self.node.id()))
    }
}

#[test]
fn notes_reach_all_late_joiners_get_the_board_and_withdrawn_notes_go() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut ann = Participant::new("ann", None).await;
        let mut bob = Participant::new("bob", Some(&ann)).await;
        ann.order("post meet at noon").await;
        let first = bob.sees("ann: meet at noon").await;
        bob.order("post bring cake").await;
        ann.sees("bob: bring cake").await;

        let mut late = Participant::new("eve", Some(&bob)).await;
        late.sees("meet at noon").await;
        late.sees("bring cake").await;

        let note = first.split_whitespace().nth(1).unwrap();
        late.order(&format!("withdraw {note}")).await;
        for other in [&mut ann, &mut bob] {
            other.sees(&format!("- {note}")).await;
        }

        // One crashes; the others go on, and who joins now has what it left.
        bob.session.abort();
        bob.node.stop();
        ann.order("post without bob").await;
        late.sees("ann: without bob").await;
        let mut last = Participant::new("dan", Some(&ann)).await;
        last.sees("bob: bring cake").await;
        last.sees("ann: without bob").await;
        last.order("list").await;
        last.sees("2 notes").await;

        last.order("withdraw 1/2/3").await;
        last.sees("such as 42/1").await;
        last.order("quit").await;
        timeout(PATIENCE, last.session).await.unwrap().unwrap().unwrap();
    });
}
