//! Verdicts: what was observed, held against the ground truth.
//!
//! The orchestrator knows who was a member, and since when, up to the time that a join, a leave or a message takes
//! (`membership`). An answer is wrong if no moment of its operation makes it right (`routing`), nor a partition that the node
//! which gave it was in (`partition`); a value that was read is held against those that had been written (`dictionary`), and messages
//! against those who should have had them (`messages`); the ring is right while each member's neighbours are (`ring`). From these
//! come the `figures`, and from the figures what became of each `expect`ation.

mod membership;
mod dictionary;
mod messages;
mod routing;
mod partition;
mod ring;
mod figures;
mod expect;
mod verdict;

use std::path::PathBuf;

use crate::plan::Plan;
use crate::record::{
    Done, Judged, LostReason, OperationEnd, RecordError, RunDirectory, RunRecord, write_deliveries,
    write_operations,
};
use crate::schedule::Schedule;

use membership::Membership;
use messages::Messages;
use partition::Partitions;
use ring::History;

pub use verdict::{ExpectationVerdict, Verdict};

/// Judges a run. Pure: the same record has the same verdict.
pub fn judge(plan: &Plan, schedule: &Schedule, record: &RunRecord) -> Verdict {
    let membership = Membership::new(schedule, record);
    let (judged, messages) = judge_operations(plan, schedule, &membership, record);
    let complete = record.ended_us >= schedule.end_us;
    let end_us = record.ended_us.min(schedule.end_us);
    let is_measured = record.ring_complete && !record.ring.is_empty();
    let ring = is_measured.then(|| {
        let of_ring = Membership::of_ring(schedule, record);
        // An achieved time may be off by the error, and what is certain begins and ends by as much later and earlier.
        let slack_us = record.clock_error_us().saturating_mul(2);
        History { slack_us, ..ring::history(&of_ring, &record.ring, end_us) }
    });
    let figures = figures::of(schedule, record, (&judged, &messages), ring.as_ref());
    let expectations: Vec<ExpectationVerdict> = (plan.expect.iter())
        .map(|expectation| expect::evaluate(plan, expectation, &figures, ring.as_ref()))
        .collect();
    Verdict {
        passed: complete && expectations.iter().all(|expectation| expectation.held),
        expectations,
        figures,
        plan: plan.name.clone(),
        seed: plan.seed,
        duration: seconds(record.ended_us),
        complete,
        hosts: record.hosts.len() as u32,
        hosts_lost: record.hosts.iter().filter(|host| host.lost.is_some()).count() as u32,
        unsuccessful: figures::unsuccessful(record, &judged),
        problems: record.problems,
        first_problems: record.first_problems.clone(),
        judged,
        reaches: messages.reaches,
    }
}

/// Judges a run and writes `ops.parquet`, `deliveries.parquet` (where there are some) and `verdict.json`.
///
/// # Errors
/// Where a file cannot be written.
pub fn conclude(
    directory: &RunDirectory,
    plan: &Plan,
    schedule: &Schedule,
    record: &RunRecord,
) -> Result<Verdict, CheckError> {
    let verdict = judge(plan, schedule, record);
    write_operations(directory, record, &verdict.judged, &verdict.reaches)?;
    write_deliveries(directory, record)?;
    verdict.write(&directory.verdict())?;
    Ok(verdict)
}

/// Why a verdict could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file of all operations.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The file of the verdict.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in the file.
    #[error("{} is no verdict", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Tells right from wrong; what failed or was lost is what it is.
fn judge_operations(
    plan: &Plan,
    schedule: &Schedule,
    membership: &Membership,
    record: &RunRecord,
) -> (Vec<Judged>, Messages) {
    let mut answers = Vec::new();
    let mut judged: Vec<Judged> = Vec::with_capacity(record.operations.len());
    for (at, operation) in record.operations.iter().enumerate() {
        judged.push(match operation.end {
            OperationEnd::Done { issued_us, ended_us, result: Done::Found(responsible, _) } => {
                let key = operation.key.unwrap_or_default();
                answers.push((at, routing::Answer { key, responsible, issued_us, ended_us }));
                Judged::Wrong
            }
            OperationEnd::Done { .. } => Judged::Succeeded,
            OperationEnd::Failed { reason, .. } => Judged::Failed(reason),
            OperationEnd::Lost(reason) => Judged::Lost(reason),
        });
    }
    for at in routing::right_answers(plan.net.ring(), membership, &answers) {
        judged[at] = Judged::Succeeded;
    }
    answers.retain(|(at, _)| judged[*at] == Judged::Wrong);
    let partitions = Partitions::new(schedule, record.clock_error_us());
    for at in partitions.right_on_their_side(plan.net.ring(), schedule, membership, &answers) {
        judged[at] = Judged::Succeeded;
    }
    dictionary::judge(record, record.clock_error_us(), &mut judged);
    let messages = messages::judge(schedule, membership, record, &mut judged);
    (judged, messages)
}

/// Whether the run came as far as the operation: the plan wanted it.
fn is_reached(judged: &Judged) -> bool {
    *judged != Judged::Lost(LostReason::NotReached)
}

/// Microseconds in seconds.
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
