//! What a run leaves behind: the run directory and its files.
//!
//! A [`Recorder`] takes in every word of every host's agent, in the order in which it arrives, keeps what the judge needs and
//! writes the rest to the [`RunDirectory`] at once: what was done and when (`timeline.jsonl`), each node's counters
//! (`samples.parquet`) and all nodes' merged histograms (`histograms.hlog`). When the run is over it becomes a [`RunRecord`]:
//! data, from which `check` derives the verdict and `operations` the file of all operations.
//!
//! All times here are microseconds since the run's start. An agent's own clock is translated with the start that it was given.

mod actions;
mod deliveries;
mod directory;
mod histograms;
mod lives;
mod operations;
mod progress;
mod recorder;
mod run_record;
mod samples;
mod table;
mod timeline;

use std::path::PathBuf;

pub use deliveries::{Deliveries, DeliveryReport, UndeliveredReport, write_deliveries};
pub use directory::RunDirectory;
pub use histograms::{MergedHistogram, SIGNIFICANT_DIGITS};
pub use lives::{Life, LifeEnd};
pub use operations::{Done, Judged, LostReason, Operation, OperationEnd, Reach, Reaches, write_operations};
pub use progress::{OperationCounts, Progress};
pub use recorder::{RING_REPORTS_MAX, Recorder};
pub use run_record::{HostRecord, LatestSample, Loss, MetricsTarget, Pause, RingReport, RunRecord};
pub use samples::Totals;

/// Why something could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file or directory of the run.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried: `create`, `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A Parquet file of the run.
    #[error("cannot write {}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        source: parquet::errors::ParquetError,
    },
    /// The histogram log of the run.
    #[error("cannot write {}: {reason}", path.display())]
    HistogramLog {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        reason: String,
    },
    /// A run directory that is none.
    #[error("{} is no run directory: it has no {expected}", path.display())]
    NoRunDirectory {
        /// Where it was looked for.
        path: PathBuf,
        /// The file that is missing.
        expected: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use p2ps::agent::protocol::Isolation;

    use crate::plan::Plan;

    /// A plan of nothing in particular.
    pub(super) fn plan() -> Plan {
        let (name, duration) = ("test".to_owned(), std::time::Duration::from_secs(10));
        let (net, groups, faults, workload, timeline, expect) = Default::default();
        let isolation = Isolation::Process;
        Plan {
            name,
            seed: 7,
            net,
            encrypted: false,
            nodes: 4,
            isolation,
            join_rate: None,
            groups,
            virtual_hosts: 1,
            faults,
            workload,
            timeline,
            duration,
            expect,
            simulation: Default::default(),
        }
    }
}
