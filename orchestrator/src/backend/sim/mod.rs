//! The simulation as a backend: one virtual host, whose agent hears and says what a real one does, in virtual time.
//!
//! So everything else of a run is the same: schedule, record, check and report cannot tell the difference. What differs is the
//! clock: [`VirtualAgent::advance`] lets time pass as fast as events can be carried out.

mod agent;

use std::path::{Path, PathBuf};

use super::BackendError;

pub use agent::VirtualAgent;

/// The simulation.
#[derive(Clone, Debug)]
pub struct Sim {
    program: PathBuf,
}

impl Sim {
    /// A simulation in this process.
    ///
    /// # Errors
    /// [`BackendError::OwnPath`] where the system does not say which program this is.
    pub fn new() -> Result<Sim, BackendError> {
        Ok(Sim { program: std::env::current_exe().map_err(BackendError::OwnPath)? })
    }

    /// The program that runs the nodes: this one.
    pub fn program(&self) -> &Path {
        &self.program
    }
}
