//! Nodes over loopback sockets, in the test's own process: on tokio, or, with the feature `smol`, on smol. The tests themselves always
//! run on tokio.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it; a test may panic"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use p2ps::config::{Geometry, NetConfig};
use p2ps::id::{Id, Ring};
use p2ps::node::{Events, Messages, Node, NodeConfig, Runtime};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the nodes run on.
#[cfg(not(feature = "smol"))]
pub const RUNTIME: Runtime = Runtime::Tokio;
#[cfg(feature = "smol")]
pub const RUNTIME: Runtime = Runtime::Smol;

/// Runs a test on a runtime of its own.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, work).await.expect("the test hangs") })
}

pub fn net() -> NetConfig {
    NetConfig::new(Ring::new(1 << 16).unwrap(), Geometry::Tango { k: 5, symmetric: true }, 4).unwrap()
}

/// A node of which nothing else is said.
pub fn config() -> NodeConfig {
    NodeConfig { runtime: RUNTIME, ..NodeConfig::default() }
}

pub fn at(id: u64) -> NodeConfig {
    NodeConfig { id: Some(Id(id)), seed: Some(id), ..config() }
}

/// Asks again and again until the answer is yes.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_ok(what, || if holds() { Ok(()) } else { Err(String::new()) }).await;
}

/// The same, where the answer says what is still wrong.
pub async fn until_ok(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    let waited = tokio::time::timeout(PATIENCE, async {
        while let Err(why) = holds() {
            last = why;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if waited.await.is_err() {
        panic!("{what}: not within {PATIENCE:?}: {last}");
    }
}

/// Some nodes of one network, with what they are told.
pub struct Members(pub BTreeMap<Id, (Node, Messages, Events)>);

impl Members {
    /// A ring of the nodes with these ids; the later ones have joined by the first.
    pub async fn with_ids(ids: &[u64]) -> Members {
        let first = Node::create_net(net(), at(ids[0])).await.unwrap();
        let by = [first.0.access_point()];
        let mut members = BTreeMap::from([(Id(ids[0]), first)]);
        for &id in &ids[1..] {
            members.insert(Id(id), Node::join_net(&by, at(id), Some(net())).await.unwrap());
        }
        let members = Members(members);
        members.until_ring("the ring forms").await;
        members
    }

    pub async fn until_ring(&self, what: &str) {
        until_ok(what, || self.is_ring()).await;
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.0.values().map(|(node, ..)| node)
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.0[&Id(id)].0
    }

    pub fn ids(&self) -> Vec<Id> {
        self.0.keys().copied().collect()
    }

    pub fn responsible(&self, key: Id) -> Id {
        *self.0.range(key..).next().or_else(|| self.0.iter().next()).unwrap().0
    }

    /// Each node's neighbours are the ones that the ids say.
    pub fn is_ring(&self) -> Result<(), String> {
        let ids = self.ids();
        for (place, node) in self.nodes().enumerate() {
            let expected = |offset: usize| ids[(place + offset) % ids.len()];
            let successors: Vec<Id> = node.successors().iter().map(|contact| contact.id).collect();
            let length = net().successors().min(ids.len() - 1);
            let wanted: Vec<Id> = (1..=length).map(expected).collect();
            if successors != wanted {
                return Err(format!("node {} has successors {successors:?}, not {wanted:?}", node.id()));
            }
            let predecessor = node.predecessor().map(|contact| contact.id);
            let wanted = (ids.len() > 1).then(|| expected(ids.len() - 1));
            if predecessor != wanted {
                return Err(format!("node {} has predecessor {predecessor:?}", node.id()));
            }
        }
        Ok(())
    }
}
