//! The run itself: every effect is journalled before it is made.
//!
//! The [`machine`] decides, the driver ([`carry_out`]) does; what was done is found again in the [`journal`], by which
//! [`cleanup`] ends whatever a crash has left.

mod agents;
pub mod cleanup;
pub mod clock;
mod conversation;
mod driver;
mod fleet;
mod hosts;
pub mod journal;
mod kernel;
pub mod machine;
mod manifest;
mod outstanding;
pub mod process;
pub mod reach;
pub mod survey;
pub mod sweep;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use p2ps::agent::protocol::{NODES_MAX, PortRange};

use crate::check::CheckError;
use crate::record::{RecordError, Recorder, RunDirectory};
use crate::report::ServeError;
use crate::schedule::{Schedule, ScheduleError};

pub use driver::{Finished, Job, Out, carry_out};
pub use manifest::{HostManifest, Manifest};

use machine::Stage;

/// Somebody who watches a run.
pub trait Watcher {
    /// The run has its directory; nothing has been started yet.
    fn begun(&mut self, directory: &RunDirectory);

    /// A host has been made ready, or cannot be used.
    fn prepared(&mut self, preparation: &Preparation<'_>);

    /// The run has its hosts and its schedule.
    fn scheduled(&mut self, schedule: &Schedule);

    /// The run's metrics are served here.
    fn serving(&mut self, address: SocketAddr);

    /// How the run is getting on; called several times a second.
    fn progress(&mut self, status: &Status, recorder: &Recorder);

    /// The run was interrupted in this stage, and now ends.
    fn interrupted(&mut self, stage: Stage);
}

/// What came of a host, and of the hosts so far.
#[derive(Clone, Copy, Debug)]
pub struct Preparation<'a> {
    /// The host's name.
    pub host: &'a str,
    /// Why it cannot be used; `None`: it is ready.
    pub problem: Option<&'a str>,
    /// How many hosts are ready.
    pub ready: usize,
    /// How many the run uses.
    pub wanted: usize,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What is being done.
    pub stage: Stage,
    /// The time since its start, in microseconds.
    pub run_us: u64,
    /// When its schedule ends, in microseconds since its start.
    pub end_us: u64,
    /// How many hosts it wants.
    pub hosts: u32,
    /// How many nodes it will have had at its end.
    pub nodes: u32,
}

/// Why a run could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file of the run.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record of the run.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The verdict.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The journal; without it nothing is started.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// Too few hosts can be used.
    #[error("{ready} of the hosts can be used, {required} are required{}", reasons(unusable))]
    TooFewHosts {
        /// How many can be.
        ready: usize,
        /// How many have to be.
        required: usize,
        /// The others: name and reason.
        unusable: Vec<(String, String)>,
    },
    /// The hosts are too few for the nodes.
    #[error(
        "{nodes} nodes on {hosts} hosts are {each} each, and an agent takes at most {NODES_MAX}: take more hosts or fewer nodes"
    )]
    TooManyNodes {
        /// How many nodes.
        nodes: usize,
        /// How many hosts.
        hosts: usize,
        /// How many nodes one host would have.
        each: usize,
    },
    /// A host has fewer ports than it would have nodes.
    #[error(
        "{host} may have {} ports ({ports}) for its {nodes} nodes: widen `ports:` in the inventory, or use more hosts",
        ports.count()
    )]
    TooFewPorts {
        /// The host.
        host: String,
        /// The ports that the inventory gives it.
        ports: PortRange,
        /// How many nodes it would have.
        nodes: usize,
    },
    /// The plan cannot be carried out on the hosts that there are.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Somebody interrupted the run before it had its hosts.
    #[error("the run was interrupted while its hosts were made ready")]
    InterruptedEarly,
    /// The run's metrics.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Clean-up at the end.
    #[error(transparent)]
    Cleanup(#[from] cleanup::CleanupError),
    /// The system refused what a run cannot do without.
    #[error("cannot {what}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn reasons(unusable: &[(String, String)]) -> String {
    unusable.iter().map(|(name, reason)| format!("\n  {name}: {reason}")).collect()
}
