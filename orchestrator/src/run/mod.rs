//! The run itself: every effect is journalled before it is made.
//!
//! The [`machine`] decides, the driver ([`carry_out`]) does; what was done is found again in the [`journal`], by which
//! [`cleanup`] ends whatever a crash has left.

mod agents;
pub mod cleanup;
pub mod clock;
mod driver;
pub mod journal;
pub mod machine;
mod manifest;
mod outstanding;
pub mod process;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::backend::BackendError;
use crate::check::CheckError;
use crate::record::{RecordError, Recorder, RunDirectory};
use crate::report::ServeError;
use crate::schedule::Schedule;

pub use driver::{Finished, Job, carry_out};
pub use manifest::{HostManifest, Manifest};

use machine::Stage;

/// Somebody who watches a run.
pub trait Watcher {
    /// The run has its directory and its schedule; nothing has been started yet.
    fn begun(&mut self, directory: &RunDirectory, schedule: &Schedule);

    /// The run's metrics are served here.
    fn serving(&mut self, address: SocketAddr);

    /// How the run is getting on; called several times a second.
    fn progress(&mut self, status: &Status, recorder: &Recorder);

    /// The run was interrupted in this stage, and now ends.
    fn interrupted(&mut self, stage: Stage);
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
    /// A host.
    #[error(transparent)]
    Backend(#[from] BackendError),
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
