//! Plans: what an experiment is to do, and what is expected of it. A [`Plan`] that exists is one that can run.
//!
//! A plan's text becomes a `document` (a tree that knows its places, with overrides laid over it), which is read as the types
//! of `schema`, which are checked as a whole (`check`). Every mistake has its place and, where there is one, its mend ([`diagnose`]).

mod check;
pub mod churn;
mod decode;
pub mod diagnose;
pub mod distribution;
mod document;
mod expect;
mod figures;
mod names;
pub mod population;
mod resolved;
mod schema;
pub mod simulation;
pub mod sweep;
pub mod targets;
pub mod trace;
mod units;
pub mod workload;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use p2ps::agent::protocol::Isolation;
use p2ps::com::shaping::LinkShape;
use p2ps::config::NetConfig;
use serde::Serialize;

use self::churn::Churn;
use self::simulation::Simulation;
use self::targets::{FaultsWith, Group, Links, Side, Target};
use self::trace::Trace;

pub use self::diagnose::{PlanError, Problem};
pub use self::document::{DEPTH_MAX, OVERRIDES_MAX, PLAN_BYTES_MAX, VALUES_MAX};
pub use self::figures::{FIGURES, FigureUnit};
pub use self::resolved::resolved_yaml;
pub use self::schema::json_schema;
pub use self::units::{DURATION_MAX, NAME_CHARACTERS_MAX, RATE_MAX, duration_text, parse_duration};
pub use self::workload::Workload;

/// The most nodes of a run, with those that join later; so many fit in a simulation only. How many of them one host takes is the
/// agents' to say ([`p2ps::agent::protocol::NODES_MAX`]), and checked when a run has its hosts.
pub const NODES_MAX: u32 = 1_000_000;

/// The most steps of a timeline.
pub const STEPS_MAX: usize = 10_000;

/// The most workloads of a plan.
pub const WORKLOADS_MAX: usize = 64;

/// The most partitions, degradations and healings of links of a plan.
pub const LINK_FAULTS_MAX: usize = 256;

/// The most virtual hosts.
pub const VIRTUAL_HOSTS_MAX: u32 = 10_000;

/// The most sides of a partition.
pub const SIDES_MAX: usize = 8;

/// The most groups that the partitions and pairs of one moment can make of the nodes: the product of their sides, where named groups
/// count once.
pub const GROUPS_AT_ONCE_MAX: usize = 16;

/// The most expectations of a plan.
pub const EXPECTATIONS_MAX: usize = 1_000;

/// The most operations of a run (counted by their rates; they are drawn), and the most starts and ends of nodes.
pub const OPERATIONS_MAX: u64 = 2_000_000;

/// How long a run goes on after its last step where the plan does not say.
pub const DURATION_TAIL: Duration = Duration::from_secs(20);

/// Reads and checks a plan, with `overrides` (`network.successors=4`) laid over it. What it sweeps is left aside
/// ([`sweep::load_sweep`] reads that).
///
/// # Errors
/// [`PlanError::Unreadable`] where the file cannot be read, else what [`parse`] says.
pub fn load(path: &Path, overrides: &[String]) -> Result<Plan, PlanError> {
    parse(&path.display().to_string(), &read_text(path)?, overrides)
}

fn read_text(path: &Path) -> Result<String, PlanError> {
    let unreadable = |source| PlanError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than may be, so that too large a plan is known without being read whole.
    file.take(PLAN_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Checks a plan's text, which messages call `name`, with `overrides` laid over it.
///
/// # Errors
/// [`PlanError::Refused`] with every mistake that can be found at once.
pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Plan, PlanError> {
    let one = |problem| PlanError::Refused(vec![problem]);
    let mut document = document::Document::read(name, text, overrides).map_err(one)?;
    // A sweep is many plans: this is the one that they have in common.
    document.take("sweep");
    document.take("repeat");
    let raw = decode::decode(&document).map_err(one)?;
    check::check(raw, &document).map_err(PlanError::Refused)
}

/// When the first nodes join: the `number`th (from 0) of them at `rate` a second, or all at the start.
pub fn join_time(rate: Option<f64>, number: u32) -> Duration {
    // A rate is positive, and low rates only give late times: those are cut to the longest that a plan may have, and more.
    let seconds = rate.map_or(0.0, |rate| f64::from(number) / rate).min(1e12);
    Duration::from_micros((seconds * 1e6).round() as u64)
}

/// A checked plan with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Names the run's directory.
    pub name: String,
    /// All that is drawn in the run comes from it.
    pub seed: u64,
    /// The network's settings.
    pub net: NetConfig,
    /// Whether links are encrypted with a key of the run's own.
    pub encrypted: bool,
    /// How many nodes join at the start.
    pub nodes: u32,
    /// What they live in.
    pub isolation: Isolation,
    /// Nodes a second that join at the start; `None`: all at once.
    pub join_rate: Option<f64>,
    /// Groups of nodes with names, in the plan's order.
    pub groups: Vec<Group>,
    /// As how many hosts the nodes count where all of them run on one; at least 1.
    pub virtual_hosts: u32,
    /// What makes faults of links.
    pub faults: FaultsWith,
    /// What is asked of the network all along.
    pub workload: Vec<Workload>,
    /// What is done to it, in time order.
    pub timeline: Vec<Step>,
    /// When the run ends, counted from its start.
    pub duration: Duration,
    /// What is expected of it.
    pub expect: Vec<Expectation>,
    /// What the simulator makes of it.
    pub simulation: Simulation,
}

/// One thing done to the network, at one time or from one time to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// When, or from when on, counted from the run's start.
    pub at: Duration,
    /// What.
    pub event: StepEvent,
    /// As the plan wrote it, for people: `kill 10%`.
    pub text: String,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum StepEvent {
    /// New nodes join.
    Join(Amount),
    /// Nodes leave gracefully.
    Leave(Target),
    /// Nodes are killed (SIGKILL).
    Kill(Target),
    /// Nodes that were killed or have left come back with the same identity.
    Restart(Target),
    /// Nodes are stopped (SIGSTOP) and go on later.
    Pause {
        /// These.
        target: Target,
        /// When they go on, counted from the run's start; `None`: at its end.
        until: Option<Duration>,
    },
    /// Nodes of different sides cannot reach each other.
    Partition {
        /// At least two; shares are all of them, with the sum 1, or none.
        sides: Vec<Side>,
        /// Only what a side sends to those after it is lost.
        one_way: bool,
        /// When it heals, counted from the run's start; `None`: at its end.
        until: Option<Duration>,
    },
    /// What some nodes send is delayed, lost, slow.
    Degrade {
        /// On which links.
        links: Links,
        /// What is done to what they send.
        shape: LinkShape,
        /// When it heals, counted from the run's start; `None`: at its end.
        until: Option<Duration>,
    },
    /// All partitions and degraded links heal.
    Heal,
    /// Nodes come and go.
    Churn {
        /// How.
        churn: Churn,
        /// Until when, counted from the run's start. Who is up then stays.
        until: Duration,
    },
    /// Nodes come and go as a trace says.
    Trace(Trace),
}

impl Step {
    /// When what it does is over, counted from the run's start; `None`: at once, or not before the run is.
    pub fn until(&self) -> Option<Duration> {
        match &self.event {
            StepEvent::Pause { until, .. }
            | StepEvent::Partition { until, .. }
            | StepEvent::Degrade { until, .. } => *until,
            StepEvent::Churn { until, .. } => Some(*until),
            StepEvent::Trace(trace) => Some(self.at + trace.length()),
            StepEvent::Join(_)
            | StepEvent::Leave(_)
            | StepEvent::Kill(_)
            | StepEvent::Restart(_)
            | StepEvent::Heal => None,
        }
    }
}

/// How many nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// A share, in 0..=1: of those that are up (of those that are down for a restart).
    Share(f64),
}

/// One line of `expect:`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expectation {
    /// As the plan wrote it.
    pub text: String,
    /// What it says.
    pub claim: Claim,
}

/// What an expectation says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Claim {
    /// A figure of the verdict (`lookup.success`, in its base unit: seconds, shares, counts) compared with a bound.
    Figure {
        /// Its name.
        name: String,
        /// How it is compared.
        comparison: Comparison,
        /// With what.
        bound: f64,
    },
    /// `ring.converged within 15s of 30s`: the ring is right at some moment in `[of, of + within]` and stays right until
    /// the next step of the timeline.
    Converged {
        /// How long it may take.
        within: Duration,
        /// From when on, counted from the run's start.
        of: Duration,
    },
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}
