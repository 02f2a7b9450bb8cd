//! Participants of the example applications, driven as people would: by orders, looking at what they are shown.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::future::Future;
use std::time::Duration;

use p2ps::config::NetConfig;
use p2ps::node::{Messages, Node, NodeConfig, NodeError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Participant {
    node: Node,
    orders: mpsc::Sender<String>,
    said: mpsc::Receiver<String>,
    seen: Vec<String>,
    session: JoinHandle<Result<(), NodeError>>,
}

impl Participant {
    /// A participant in the network of `by`, or in a new one. `start` makes its session of its node, the messages to it, its
    /// orders, and the lines that it is shown.
    pub async fn new<S, F>(by: Option<&Participant>, start: S) -> Participant
    where
        S: FnOnce(Node, Messages, mpsc::Receiver<String>, mpsc::Sender<String>) -> F,
        F: Future<Output = Result<(), NodeError>> + Send + 'static,
    {
        let config = NodeConfig::default();
        let (node, messages, _) = match by {
            Some(by) => Node::join_net(&[by.node.access_point()], config, None).await.unwrap(),
            None => Node::create_net(NetConfig::default(), config).await.unwrap(),
        };
        let (orders, obeyed) = mpsc::channel(8);
        let (lines, said) = mpsc::channel(10_000);
        let session = tokio::spawn(start(node.clone(), messages, obeyed, lines));
        Participant { node, orders, said, seen: Vec::new(), session }
    }

    pub async fn order(&self, order: &str) {
        self.orders.send(order.to_owned()).await.unwrap();
    }

    /// Waits until it has been shown a text that ends so.
    pub async fn sees(&mut self, end: &str) -> String {
        let waited = timeout(PATIENCE, async {
            loop {
                if let Some(text) = self.seen.iter().find(|text| text.ends_with(end)) {
                    return text.clone();
                }
                self.seen.push(self.said.recv().await.expect("the session runs"));
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{} never saw {end:?}", self.node.id()))
    }

    /// Waits until the last text that it was shown satisfies a condition.
    pub async fn sees_last(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let waited = timeout(PATIENCE, async {
            loop {
                while let Ok(text) = self.said.try_recv() {
                    self.seen.push(text);
                }
                match self.seen.last() {
                    Some(text) if holds(text) => return text.clone(),
                    _ => self.seen.push(self.said.recv().await.expect("the session runs")),
                }
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{} never saw {what}: {:?}", self.node.id(), self.seen.last()))
    }

    /// Its process is gone.
    pub fn crash(self) {
        self.session.abort();
        self.node.stop();
    }

    /// Waits until its session has ended well.
    pub async fn ends(self) {
        timeout(PATIENCE, self.session).await.unwrap().unwrap().unwrap();
    }
}
