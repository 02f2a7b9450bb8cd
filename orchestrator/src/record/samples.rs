//! The nodes' counters: each node's latest, `samples.parquet` with all of them over time, and the totals of all lives.

use p2ps::agent::protocol::NodeIndex;
use p2ps::message::MessageKind;
use p2ps::metrics::{Snapshot, Traffic};

use super::RecordError;
use super::directory::RunDirectory;
use super::histograms::{Interval, MergedHistogram, added_since};
use super::table::{Cell, Column, Kind, Table};

/// The counters of all lives of all nodes, added up: of each life as it was last sampled. What a killed node counted
/// before its last sample is in it; what it counted after that is lost with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// How many samples there were; where there were none, nothing here was measured.
    pub samples: u64,
    /// Messages and bytes by kind, in the order of [`MessageKind::ALL`].
    pub traffic: [Traffic; 3],
    /// A link's send-to-acknowledgement time, in microseconds.
    pub hop_latency_us: MergedHistogram,
    /// Messages sent to a next hop for broadcasts.
    pub broadcast_messages: u64,
    /// Messages sent to a next hop for multicasts.
    pub multicast_messages: u64,
    /// Nodes of which there is a sample of their latest life.
    pub sampled_nodes: u64,
    /// The distinct nodes in their finger tables then, added up.
    pub fingers: u64,
    /// The links that they held then, added up: each has two ends.
    pub links: u64,
}

impl Totals {
    /// Messages and bytes of one kind.
    pub fn traffic_of(&self, kind: MessageKind) -> Traffic {
        let at = MessageKind::ALL.iter().position(|other| *other == kind);
        at.map_or_else(Traffic::default, |at| self.traffic[at])
    }

    fn add(&mut self, added: &Snapshot) {
        self.samples += 1;
        for (total, added) in self.traffic.iter_mut().zip(&added.traffic) {
            *total = added_up(total, added);
        }
        self.hop_latency_us.merge(&added.hop_latency_us);
        self.broadcast_messages = self.broadcast_messages.saturating_add(added.broadcast_messages);
        self.multicast_messages = self.multicast_messages.saturating_add(added.multicast_messages);
    }
}

/// The samples of a run while it goes on.
#[derive(Debug)]
pub(super) struct Samples {
    table: Table,
    latest: Vec<Option<Latest>>,
    totals: Totals,
}

#[derive(Clone, Debug)]
struct Latest {
    snapshot: Snapshot,
    /// The node was started after that: its next sample counts from zero.
    restarted: bool,
    /// The number of the node's life, from 0, that it is of.
    life: u64,
}

impl Samples {
    pub(super) fn create(directory: &RunDirectory, nodes: usize) -> Result<Samples, RecordError> {
        let table = Table::create(directory.samples(), COLUMNS)?;
        Ok(Samples { table, latest: vec![None; nodes], totals: Totals::default() })
    }

    /// `node` was started: it counts from zero.
    pub(super) fn started(&mut self, node: NodeIndex) {
        if let Some(Some(latest)) = self.latest.get_mut(node as usize) {
            latest.restarted = true;
        }
    }

    /// Takes in a sample; `interval` gets what it adds. False: there is no such node.
    pub(super) fn sample(
        &mut self,
        host: &str,
        node: NodeIndex,
        at_us: u64,
        snapshot: Snapshot,
        interval: &mut Interval,
    ) -> Result<bool, RecordError> {
        let Some(slot) = self.latest.get_mut(node as usize) else { return Ok(false) };
        let continued = slot.as_ref().filter(|latest| !latest.restarted);
        let added = continued.and_then(|latest| since(&snapshot, &latest.snapshot));
        let life = slot.as_ref().map_or(0, |latest| latest.life + u64::from(added.is_none()));
        let added = added.unwrap_or_else(|| snapshot.clone());
        self.totals.add(&added);
        interval.merge(&added);
        let start = [at_us, u64::from(node), life].map(Cell::Number);
        let counters = counters(&snapshot).map(Cell::Number);
        *slot = Some(Latest { snapshot, restarted: false, life });
        self.table.row(&[&start[..], &[Cell::Text(host)], &counters[..]].concat()).map(|()| true)
    }

    /// The latest sample of `node`'s present life.
    pub(super) fn latest(&self, node: NodeIndex) -> Option<&Snapshot> {
        let latest = self.latest.get(node as usize)?.as_ref()?;
        (!latest.restarted).then_some(&latest.snapshot)
    }

    pub(super) fn finish(self) -> Result<Totals, RecordError> {
        self.table.finish()?;
        let mut totals = self.totals;
        for latest in self.latest.iter().flatten().filter(|latest| !latest.restarted) {
            totals.sampled_nodes += 1;
            totals.fingers = totals.fingers.saturating_add(latest.snapshot.fingers);
            let links = latest.snapshot.links_out.saturating_add(latest.snapshot.links_in);
            totals.links = totals.links.saturating_add(links);
        }
        Ok(totals)
    }
}

/// The columns of `samples.parquet`. Counters count from the start of the node's life, as Prometheus' do.
const COLUMNS: &[Column] = &[
    ("at_us", Kind::Number),
    ("node", Kind::Number),
    ("life", Kind::Number),
    ("host", Kind::Text),
    ("data_sent", Kind::Number),
    ("data_received", Kind::Number),
    ("data_forwarded", Kind::Number),
    ("data_sent_bytes", Kind::Number),
    ("data_received_bytes", Kind::Number),
    ("control_sent", Kind::Number),
    ("control_received", Kind::Number),
    ("control_forwarded", Kind::Number),
    ("control_sent_bytes", Kind::Number),
    ("control_received_bytes", Kind::Number),
    ("ack_sent", Kind::Number),
    ("ack_received", Kind::Number),
    ("ack_forwarded", Kind::Number),
    ("ack_sent_bytes", Kind::Number),
    ("ack_received_bytes", Kind::Number),
    ("links_out", Kind::Number),
    ("links_in", Kind::Number),
    ("fingers", Kind::Number),
    ("successors", Kind::Number),
    ("finger_changes", Kind::Number),
    ("successor_changes", Kind::Number),
    ("predecessor_changes", Kind::Number),
    ("joins", Kind::Number),
    ("suspicions", Kind::Number),
    ("delivered", Kind::Number),
    ("broadcast_messages", Kind::Number),
    ("multicast_messages", Kind::Number),
    ("items", Kind::Number),
    ("item_bytes", Kind::Number),
    ("lookups_succeeded", Kind::Number),
    ("lookups_failed", Kind::Number),
];

/// The values of [`COLUMNS`] from the fifth on.
fn counters(snapshot: &Snapshot) -> [u64; 31] {
    let [data, control, ack] =
        snapshot.traffic.map(|t| [t.sent, t.received, t.forwarded, t.sent_bytes, t.received_bytes]);
    let others = [
        snapshot.links_out,
        snapshot.links_in,
        snapshot.fingers,
        snapshot.successors,
        snapshot.finger_changes,
        snapshot.successor_changes,
        snapshot.predecessor_changes,
        snapshot.joins,
        snapshot.suspicions,
        snapshot.delivered,
        snapshot.broadcast_messages,
        snapshot.multicast_messages,
        snapshot.items,
        snapshot.item_bytes,
        snapshot.lookups_succeeded,
        snapshot.lookups_failed.iter().map(|(_, count)| *count).fold(0, u64::saturating_add),
    ];
    let mut all = [0; 31];
    let values = data.into_iter().chain(control).chain(ack).chain(others);
    all.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
    all
}

/// What a node counted between two of its samples (of what is added up here); `None` where a counter went down: the node
/// has started anew.
fn since(now: &Snapshot, earlier: &Snapshot) -> Option<Snapshot> {
    let mut added = Snapshot::default();
    let traffic = now.traffic.iter().zip(&earlier.traffic);
    for (slot, (now, earlier)) in added.traffic.iter_mut().zip(traffic) {
        *slot = Traffic {
            sent: now.sent.checked_sub(earlier.sent)?,
            received: now.received.checked_sub(earlier.received)?,
            forwarded: now.forwarded.checked_sub(earlier.forwarded)?,
            sent_bytes: now.sent_bytes.checked_sub(earlier.sent_bytes)?,
            received_bytes: now.received_bytes.checked_sub(earlier.received_bytes)?,
        };
    }
    now.successor_changes.checked_sub(earlier.successor_changes)?;
    now.lookups_succeeded.checked_sub(earlier.lookups_succeeded)?;
    added.broadcast_messages = now.broadcast_messages.checked_sub(earlier.broadcast_messages)?;
    added.multicast_messages = now.multicast_messages.checked_sub(earlier.multicast_messages)?;
    added.hop_latency_us = added_since(&now.hop_latency_us, &earlier.hop_latency_us)?;
    added.lookup_latency_us = added_since(&now.lookup_latency_us, &earlier.lookup_latency_us)?;
    added.lookup_hops = added_since(&now.lookup_hops, &earlier.lookup_hops)?;
    Some(added)
}

fn added_up(a: &Traffic, b: &Traffic) -> Traffic {
    Traffic {
        sent: a.sent.saturating_add(b.sent),
        received: a.received.saturating_add(b.received),
        forwarded: a.forwarded.saturating_add(b.forwarded),
        sent_bytes: a.sent_bytes.saturating_add(b.sent_bytes),
        received_bytes: a.received_bytes.saturating_add(b.received_bytes),
    }
}
