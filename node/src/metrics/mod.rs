//! What a node counts and times, as one value: the source of `/metrics`, of the agents' samples and of the results.

pub mod endpoint;
pub mod exposition;
mod recorder;

use serde::{Deserialize, Serialize};

pub use exposition::{encode, families};
pub use recorder::Recorder;

use crate::peer::Peer;

/// All counters, gauges and histograms of a node since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Messages and bytes by kind, in the order of [`MessageKind::ALL`](crate::message::MessageKind::ALL).
    pub traffic: [Traffic; 3],
    /// Messages that shaped links did something to, in the order of [`ShapeEffect::ALL`].
    pub shaped: [u64; 4],
    /// Messages that started or ended at this node: of data, then of control.
    pub messages_local: [u64; 2],
    /// Those passed on for other nodes, in the same order.
    pub messages_remote: [u64; 2],
    /// Links that this node opened and that stand now.
    pub links_out: u64,
    /// Links that others opened and that stand now.
    pub links_in: u64,
    /// Distinct nodes in the finger table.
    pub fingers: u64,
    /// Entries of the successor list.
    pub successors: u64,
    /// 1 where the node is a client of another one, its proxy; else 0.
    pub uses_proxy: u64,
    /// Clients that it is the proxy of.
    pub clients: u64,
    /// Times a finger, the successor or the predecessor changed.
    pub finger_changes: u64,
    /// Times the successor changed.
    pub successor_changes: u64,
    /// Times the predecessor changed.
    pub predecessor_changes: u64,
    /// Joins that this node handed a range over to.
    pub joins: u64,
    /// Nodes that it took for dead.
    pub suspicions: u64,
    /// Messages handed to the application.
    pub delivered: u64,
    /// Items of the dictionary that it keeps now.
    pub items: u64,
    /// The bytes that their values have together.
    pub item_bytes: u64,
    /// Look-ups that found a responsible.
    pub lookups_succeeded: u64,
    /// Look-ups that failed, by reason ([`RouteError::as_str`](crate::message::RouteError::as_str)).
    pub lookups_failed: Vec<(String, u64)>,
    /// A link's send-to-acknowledgement time, in microseconds.
    pub hop_latency_us: Histogram,
    /// Look-up latency, in microseconds.
    pub lookup_latency_us: Histogram,
    /// Hops of the look-ups that succeeded.
    pub lookup_hops: Histogram,
}

impl Snapshot {
    /// With what a node's protocol has counted, and the sizes of its tables.
    pub fn with_peer(self, peer: &Peer) -> Snapshot {
        let counted = peer.statistics();
        Snapshot {
            messages_local: [counted.data_messages_local, counted.control_messages_local],
            messages_remote: [counted.data_messages_remote, counted.control_messages_remote],
            uses_proxy: u64::from(counted.uses_proxy),
            clients: counted.clients,
            fingers: peer.fingers_known() as u64,
            successors: peer.successors().len() as u64,
            finger_changes: counted.finger_changes,
            successor_changes: counted.successor_changes,
            predecessor_changes: counted.predecessor_changes,
            joins: counted.joins,
            suspicions: counted.suspicions,
            delivered: counted.application_messages,
            items: counted.items,
            item_bytes: counted.item_bytes,
            ..self
        }
    }

    /// With the number of links that stand.
    pub fn with_links(self, links_out: u64, links_in: u64) -> Snapshot {
        Snapshot { links_out, links_in, ..self }
    }
}

/// Messages of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Messages sent, with those forwarded.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Messages passed on for others: received, and then sent to a next hop.
    pub forwarded: u64,
    /// Bytes sent, with framing.
    pub sent_bytes: u64,
    /// Bytes received, with framing.
    pub received_bytes: u64,
}

/// What a shaped link did to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeEffect {
    /// It was lost, by chance.
    Lost,
    /// It left later.
    Delayed,
    /// It was lost: the way is cut. Those that came from a node which nothing is heard of count too.
    Cut,
    /// It was lost: too much waited already.
    Overflow,
}

impl ShapeEffect {
    /// All effects, in the order in which tables list them.
    pub const ALL: [ShapeEffect; 4] =
        [ShapeEffect::Lost, ShapeEffect::Delayed, ShapeEffect::Cut, ShapeEffect::Overflow];

    /// The effect as metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            ShapeEffect::Lost => "lost",
            ShapeEffect::Delayed => "delayed",
            ShapeEffect::Cut => "cut",
            ShapeEffect::Overflow => "overflow",
        }
    }
}

/// A histogram as its non-empty buckets: (the bucket's highest value, its count), in rising order. The buckets are
/// HdrHistogram's at two significant digits, so that merging is exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(pub Vec<(u64, u64)>);
