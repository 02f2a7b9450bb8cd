//! What an orchestrator and a host's agent say to each other: versioned JSON, one value a line, over the agent's standard
//! input and output. One connection a host, whatever the number of nodes.
//!
//! ```text
//! orchestrator                              agent
//!   Hello{version, run, lease}         ->
//!                                      <-   Ready{version, host facts}
//!   Listen{address}, Dial{calls} ...   ->                                   before any run: do hosts reach each other?
//!                                      <-   Listening, Dialled
//!   Prepare{net, listen, nodes, …}     ->                                   reserves a port for each node
//!                                      <-   Prepared{access points}
//!   Schedule{actions} ...              ->                                   this host's slice
//!   Addresses{all nodes} ...           ->                                   of all hosts: whom to join by
//!   Kernel{nodes} ...                  ->                                   only where kernels make the faults
//!   Clock{token} ...                   ->
//!                                      <-   Clock{token, now}               offset and error of this host's clock
//!   Start{at}                          ->                                   on the host's own clock
//!   Renew                              ->                                   at least once a lease
//!                                      <-   Achieved / Node / Samples / Exited
//!   Halt                               ->                                   forgets the actions that are left
//!   Stop                               ->                                   kills what still runs
//!                                      <-   Stopped
//! ```
//! End of input, or no line within the lease, and the agent kills every process that it started and ends. All times are
//! microseconds on the host's monotonic clock, but [`Action::at_us`], which counts from the run's start.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::access_point::AccessPoint;
use crate::com::key::NetworkKey;
use crate::com::shaping::LinkShape;
use crate::config::NetConfig;
use crate::control::{Errand, Report};
use crate::id::Id;
use crate::metrics::Snapshot;

/// The version of this protocol; agents of another version are refused.
pub const AGENT_PROTOCOL_VERSION: u32 = 3;

/// The most actions or addresses in one line; longer lists are sent in several lines.
pub const LIST_MAX: usize = 4096;

/// The most nodes that one agent takes.
pub const NODES_MAX: usize = 10_000;

/// The most calls of one [`Request::Dial`].
pub const DIALS_MAX: usize = 64;

/// The most actions that one agent holds.
pub const ACTIONS_MAX: usize = 10_000_000;

/// The most addresses of nodes, over all hosts, that one agent holds.
pub const ADDRESSES_MAX: usize = 100 * NODES_MAX;

/// The most groups of nodes that one agent holds.
pub const GROUPS_MAX: usize = 10_000;

/// The most ids in all groups that one agent holds.
pub const GROUP_IDS_MAX: usize = ADDRESSES_MAX;

/// The most rules of one [`ActionKind::Shape`].
pub const SHAPE_RULES_MAX: usize = 256;

/// The most nodes that the rules of one [`ActionKind::Shape`] name: with them a node's order fits in its line.
pub const SHAPE_IDS_MAX: usize = 40_000;

/// The most jitter that kernels draw, in microseconds: 200 ms. Their tables go as far as a heavy tail of that.
pub const KERNEL_JITTER_US_MAX: u64 = 200_000;

/// The longest line between an orchestrator and an agent, in bytes: any node's line fits with what goes around it.
pub const NOTICE_BYTES_MAX: usize = 2 * crate::control::LINE_BYTES_MAX;

/// A node's number in its run: `0..nodes`, over all hosts.
pub type NodeIndex = u32;

/// What an agent is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first line.
    Hello {
        /// [`AGENT_PROTOCOL_VERSION`] of the orchestrator.
        version: u32,
        /// The run's name, for logs.
        run: String,
        /// How long the agent lives without a word, in milliseconds.
        lease_ms: u64,
    },
    /// Listen on a port that a node could have, and greet whoever calls.
    Listen {
        /// The address that nodes would listen on.
        listen: IpAddr,
        /// The ports that nodes may have; `None`: the agent chooses.
        ports: Option<PortRange>,
        /// The greeting.
        token: u64,
    },
    /// Call other hosts' agents, all at once.
    Dial {
        /// At most [`DIALS_MAX`].
        calls: Vec<Call>,
    },
    /// Which nodes this host will have.
    Prepare(Preparation),
    /// Actions for this host's nodes, in time order; more lines may follow until [`Request::Start`].
    Schedule {
        /// At most [`LIST_MAX`].
        actions: Vec<Action>,
    },
    /// Where nodes of any host will be reached.
    Addresses {
        /// At most [`LIST_MAX`].
        nodes: Vec<(NodeIndex, AccessPoint)>,
    },
    /// The nodes of groups that [`ActionKind::Shape`] speaks of; more lines may follow until [`Request::Start`]. Groups come
    /// in order; a group that was begun in one line may go on in the next.
    Groups {
        /// The index of the first of them.
        first: GroupIndex,
        /// Each group's nodes, by id; at most [`LIST_MAX`] groups, and as many ids in all.
        groups: Vec<Vec<Id>>,
    },
    /// The host's kernel shapes the links of [`ActionKind::Shape`], not the nodes: between hosts, and so all nodes of a host alike. Where the
    /// nodes are that groups name; more lines may follow until [`Request::Start`]. An agent that cannot says so ([`Notice::Problem`]), also
    /// when it hears of actions that its kernel cannot carry out.
    Kernel {
        /// At most [`LIST_MAX`].
        nodes: Vec<(Id, AccessPoint)>,
    },
    /// What time is it there?
    Clock {
        /// Repeated in the answer.
        token: u64,
    },
    /// The run starts. Said again while it goes on, it moves the actions to come: the host's clock has drifted.
    Start {
        /// When, on the host's monotonic clock.
        at_us: u64,
    },
    /// The orchestrator lives.
    Renew,
    /// Carry out no more actions; paused nodes and shaped links are healed and the nodes go on, so that what is under way
    /// can end.
    Halt,
    /// End all nodes, then yourself.
    Stop,
}

/// What a host needs to know before it has nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preparation {
    /// The network's settings.
    pub net: NetConfig,
    /// The address that nodes listen on and are reached at.
    pub listen: IpAddr,
    /// The ports that nodes may have; `None`: the agent chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// Whether each node serves `/metrics` on loopback.
    pub metrics: bool,
    /// How often nodes are sampled, in milliseconds.
    pub sample_every_ms: u64,
    /// What its nodes live in.
    pub isolation: Isolation,
    /// Its nodes.
    pub nodes: Vec<NodeSlot>,
    /// The network's key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_key: Option<NetworkKey>,
}

/// What a node lives in. It hears, says and counts the same in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A process of its own: nodes share nothing but the host.
    #[default]
    Process,
    /// A task of its agent: thousands fit on a host, and share the agent's cores and fate.
    Task,
}

impl Isolation {
    /// The word that plans and the protocol have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Process => "process",
            Isolation::Task => "task",
        }
    }
}

/// Ports from one to another, both included; there is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct PortRange {
    low: u16,
    high: u16,
}

impl PortRange {
    /// The ports from `low` to `high`; `None` where these are none, or port 0 is among them.
    pub fn new(low: u16, high: u16) -> Option<PortRange> {
        (low > 0 && low <= high).then_some(PortRange { low, high })
    }

    /// The lowest.
    pub fn low(&self) -> u16 {
        self.low
    }

    /// The highest.
    pub fn high(&self) -> u16 {
        self.high
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        usize::from(self.high - self.low) + 1
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.low, self.high)
    }
}

impl TryFrom<(u16, u16)> for PortRange {
    type Error = String;

    fn try_from((low, high): (u16, u16)) -> Result<PortRange, String> {
        PortRange::new(low, high).ok_or_else(|| format!("there are no ports from {low} to {high}"))
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> (u16, u16) {
        (range.low, range.high)
    }
}

/// Where another agent [listens](Request::Listen).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its address.
    pub address: SocketAddr,
    /// How it greets.
    pub token: u64,
}

/// One node of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSlot {
    /// Its number.
    pub node: NodeIndex,
    /// Its id.
    pub id: Id,
    /// The seed of its protocol's randomness.
    pub seed: u64,
}

/// One thing to be done to one node at one time: what a schedule is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its number in the run's schedule.
    pub index: u64,
    /// When, in microseconds since the run's start.
    pub at_us: u64,
    /// The node.
    pub node: NodeIndex,
    /// What.
    #[serde(rename = "do")]
    pub kind: ActionKind,
}

/// What is done to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Start it; it joins by the nodes named, tried in turn, or creates the network where none is named.
    /// A node that was killed or has left starts again with the same id and access point.
    Spawn {
        /// Whom to join by.
        via: Vec<NodeIndex>,
    },
    /// It leaves gracefully.
    Leave,
    /// It is killed: its process by SIGKILL; of its task nothing runs on, and its sockets are closed as the kernel does it for
    /// a process that was killed.
    Kill,
    /// It stands still, its process by SIGSTOP, its task by not being run: it neither hears nor speaks, and keeps its links.
    Pause,
    /// It goes on.
    Resume,
    /// From now on its links are shaped so, and in no other way; without rules they are healed.
    Shape {
        /// At most [`SHAPE_RULES_MAX`]; nodes in no group are not touched, and for one in several the last rule counts. They
        /// stand until others take their place, also for the node's later lives.
        rules: Vec<ShapeRule>,
    },
    /// It looks a key up.
    Lookup {
        /// The run's number for this operation.
        operation: u64,
        /// The key.
        key: Id,
    },
    /// It does something else for the workload.
    Errand {
        /// The run's number for this operation.
        operation: u64,
        /// What; it names at most [`RECEIVERS_MAX`](crate::control::errand::RECEIVERS_MAX) nodes.
        what: Errand,
    },
}

impl ActionKind {
    /// The run's number for it, if it is one of the workload's operations.
    pub fn operation(&self) -> Option<u64> {
        match self {
            ActionKind::Lookup { operation, .. } | ActionKind::Errand { operation, .. } => Some(*operation),
            _ => None,
        }
    }

    /// The same, to be set.
    pub fn operation_mut(&mut self) -> Option<&mut u64> {
        match self {
            ActionKind::Lookup { operation, .. } | ActionKind::Errand { operation, .. } => Some(operation),
            _ => None,
        }
    }
}

/// A group of nodes: an index into the groups of the run's schedule.
pub type GroupIndex = u32;

/// What a node does to its links to the nodes of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeRule {
    /// The group.
    pub to: GroupIndex,
    /// What is done to what it sends there.
    pub shape: LinkShape,
}

/// What an agent tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The answer to [`Request::Hello`].
    Ready {
        /// [`AGENT_PROTOCOL_VERSION`] of the agent.
        version: u32,
        /// Its host.
        host: HostFacts,
    },
    /// The answer to [`Request::Listen`].
    Listening {
        /// Where.
        address: SocketAddr,
    },
    /// The answer to [`Request::Dial`].
    Dialled {
        /// For each call, in order: why the other agent was not reached, if it was not.
        failures: Vec<Option<String>>,
    },
    /// The answer to [`Request::Prepare`].
    Prepared {
        /// Where its nodes will be reached.
        nodes: Vec<(NodeIndex, AccessPoint)>,
    },
    /// The answer to [`Request::Clock`].
    Clock {
        /// The request's token.
        token: u64,
        /// The host's monotonic clock.
        monotonic_us: u64,
        /// The host's wall clock, microseconds since 1970 (UTC).
        unix_us: u64,
    },
    /// An action has been carried out, or could not be. Operations are not told of: their [`Report::Operation`] is.
    Achieved {
        /// The action's number.
        index: u64,
        /// When it was meant to be.
        planned_us: u64,
        /// When it was.
        achieved_us: u64,
        /// Why it could not be done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// An operation that could not be given to its node: the node is not running, or paused.
    NotIssued {
        /// The run's number for the operation.
        operation: u64,
        /// When it was meant to be.
        planned_us: u64,
    },
    /// What a node said.
    Node {
        /// The node.
        node: NodeIndex,
        /// Its words (but for samples, which come in [`Notice::Samples`]).
        report: Report,
    },
    /// Samples of all nodes that answered in this interval.
    Samples {
        /// When the interval ended.
        at_us: u64,
        /// Each node's counters since its start.
        nodes: Vec<(NodeIndex, Snapshot)>,
    },
    /// A node's process or task has ended.
    Exited {
        /// The node.
        node: NodeIndex,
        /// When the agent saw it.
        at_us: u64,
        /// How: `exit 0`, `signal 9` (which a task that was killed says, too).
        status: String,
        /// Whether the schedule, or [`Request::Stop`], asked for it.
        expected: bool,
        /// The last lines that it wrote to standard error, where it was not expected.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        stderr: String,
    },
    /// Something is wrong; the agent goes on unless it says [`Notice::Stopped`] too.
    Problem {
        /// What, for people.
        error: String,
    },
    /// The answer to [`Request::Stop`]: nothing of this agent runs any more but itself, and it ends.
    Stopped,
}

/// What an agent knows of its host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its name.
    pub name: String,
    /// `uname`'s release.
    pub kernel: String,
    /// `uname`'s machine.
    pub architecture: String,
    /// Processors that this process may use.
    pub cores: u32,
    /// Physical memory, in bytes.
    pub memory_bytes: u64,
    /// The most open files of a process.
    pub open_files_max: u64,
    /// The most processes and threads of the user, or of whatever the host has put this process into; [`u64::MAX`]: no limit.
    #[serde(default)]
    pub processes_max: u64,
    /// The agent's process number.
    pub pid: u32,
    /// The version of the node binary.
    pub node_version: String,
    /// Why its kernel cannot make faults, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_kernel_faults: Option<String>,
    /// Why its kernel cannot limit bandwidth, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_kernel_bandwidth: Option<String>,
    /// Why its kernel cannot delay or lose packets, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_kernel_latency: Option<String>,
}
