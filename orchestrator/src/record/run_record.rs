//! What is known of a run: while it goes on, for those who watch it, and when it is over, for the judge.

use std::net::SocketAddr;

use p2ps::agent::protocol::NodeIndex;
use p2ps::id::Id;
use p2ps::metrics::Snapshot;

use crate::schedule::HostIndex;

use super::deliveries::Deliveries;
use super::lives::Life;
use super::operations::Operation;
use super::samples::Totals;

/// A host of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRecord {
    /// Its name, unique in the run.
    pub name: String,
    /// Whether its agent has reported.
    pub ready: bool,
    /// When and why its agent was given up, if it was.
    pub lost: Option<(u64, String)>,
    /// How far its clock may be off, in microseconds.
    pub clock_error_us: u64,
}

/// A node's word of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingReport {
    /// Since when, in microseconds since the run's start.
    pub at_us: u64,
    /// The node.
    pub node: NodeIndex,
    /// Its predecessor, if it knows one.
    pub predecessor: Option<Id>,
    /// Its successor (itself while it is alone).
    pub successor: Id,
}

/// A time in which a node was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The node.
    pub node: NodeIndex,
    /// Since when, in microseconds since the run's start.
    pub from_us: u64,
    /// Until when; `None`: it never went on.
    pub until_us: Option<u64>,
}

/// When a host was lost, in microseconds since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When its nodes count as crashed: the connection ended, or, where it only fell silent, when it was last heard.
    pub at_us: u64,
    /// When it was given up.
    pub noticed_us: u64,
    /// When nothing of it could run any more, for certain.
    pub gone_us: u64,
}

/// A node's latest counters.
#[derive(Clone, Copy, Debug)]
pub struct LatestSample<'a> {
    /// The node.
    pub node: NodeIndex,
    /// Its host's name.
    pub host: &'a str,
    /// The counters since its start.
    pub snapshot: &'a Snapshot,
}

/// Where a node serves its own metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsTarget {
    /// The node.
    pub node: NodeIndex,
    /// Its host's name.
    pub host: String,
    /// Where.
    pub address: SocketAddr,
}

/// All that is known of a run that is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecord {
    /// When it ended, in microseconds since its start. What is later (nodes being stopped) is no part of it.
    pub ended_us: u64,
    /// Its hosts, by their number.
    pub hosts: Vec<HostRecord>,
    /// Each node's host.
    pub node_hosts: Vec<HostIndex>,
    /// All lives of all nodes, in the order in which they began.
    pub lives: Vec<Life>,
    /// When nodes were stopped, in the order in which that was heard of.
    pub pauses: Vec<Pause>,
    /// All operations, by their number.
    pub operations: Vec<Operation>,
    /// What came of their messages.
    pub deliveries: Deliveries,
    /// Changes of neighbours, in the order in which they were heard of.
    pub ring: Vec<RingReport>,
    /// Whether `ring` has all of them ([`RING_REPORTS_MAX`](super::RING_REPORTS_MAX)).
    pub ring_complete: bool,
    /// How late (or early) each action other than an operation was, in microseconds.
    pub action_errors_us: Vec<u64>,
    /// Actions that could not be done.
    pub failed_actions: u64,
    /// The nodes' counters, added up.
    pub totals: Totals,
    /// How often something went wrong with the run itself: agents' complaints, crashes, actions that could not be done, words
    /// that make no sense.
    pub problems: u64,
    /// The first of them.
    pub first_problems: Vec<String>,
}

impl RunRecord {
    /// The name of a node's host.
    pub fn host_name_of(&self, node: NodeIndex) -> &str {
        let host = self.node_hosts.get(node as usize).and_then(|host| self.hosts.get(*host as usize));
        host.map_or("", |host| host.name.as_str())
    }

    /// How far any host's clock may be off, in microseconds.
    pub fn clock_error_us(&self) -> u64 {
        self.hosts.iter().map(|host| host.clock_error_us).max().unwrap_or(0)
    }
}
