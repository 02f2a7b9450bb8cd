//! The operations of a run: each look-up of the schedule, and how it ended. None is forgotten: an operation is lost until
//! somebody says otherwise.

use p2ps::agent::protocol::{ActionKind, NodeIndex};
use p2ps::control::{OperationReport, Outcome};
use p2ps::id::Id;
use p2ps::message::RouteError;

use crate::schedule::Schedule;

use super::RecordError;
use super::directory::RunDirectory;
use super::run_record::RunRecord;
use super::table::{Cell, Column, Kind, Table};

/// One look-up. Times in microseconds since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The run's number for it.
    pub number: u64,
    /// The node that was to ask.
    pub node: NodeIndex,
    /// The key.
    pub key: Id,
    /// When it was meant to be issued.
    pub intended_us: u64,
    /// How it ended.
    pub end: OperationEnd,
}

/// How an operation ended, as far as was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationEnd {
    /// It was answered. Whether rightly, the judge will say.
    Found {
        /// When the node issued it.
        issued_us: u64,
        /// When the answer came.
        ended_us: u64,
        /// Who answers for the key.
        responsible: Id,
        /// The hops it took.
        hops: u16,
    },
    /// The node said that it failed.
    Failed {
        /// When the node issued it.
        issued_us: u64,
        /// When it was given up.
        ended_us: u64,
        /// Why.
        reason: RouteError,
    },
    /// Nobody said how it ended.
    Lost(LostReason),
}

/// Why nobody said how an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LostReason {
    /// Its node did not run when it was to be issued.
    NotIssued,
    /// Its node ended before the operation did.
    NodeEnded,
    /// Its node's host was lost.
    HostLost,
    /// Its node lived on to the run's end and never answered: the overlay lost it.
    NoReport,
    /// The run was ended before its time came. It counts as not issued by the plan either.
    NotReached,
}

impl LostReason {
    /// The reason as the results write it.
    pub fn as_str(self) -> &'static str {
        match self {
            LostReason::NotIssued => "not_issued",
            LostReason::NodeEnded => "node_ended",
            LostReason::HostLost => "host_lost",
            LostReason::NoReport => "no_report",
            LostReason::NotReached => "not_reached",
        }
    }
}

/// An operation's end after the judge has held it against the ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It was answered rightly.
    Succeeded,
    /// It was answered, and no moment of the operation makes the answer right.
    Wrong,
    /// It failed, and its node knew.
    Failed(RouteError),
    /// Nobody knows how it ended.
    Lost(LostReason),
}

impl Judged {
    /// The outcome and its reason, as the results write them.
    pub fn as_str(self) -> (&'static str, Option<&'static str>) {
        match self {
            Judged::Succeeded => ("succeeded", None),
            Judged::Wrong => ("wrong", None),
            Judged::Failed(reason) => ("failed", Some(reason.as_str())),
            Judged::Lost(reason) => ("lost", Some(reason.as_str())),
        }
    }
}

/// Writes `ops.parquet`: every operation of the record, and what the judge made of it (`judged`, in the same order).
///
/// # Errors
/// Where the file cannot be written.
pub fn write_operations(
    directory: &RunDirectory,
    record: &RunRecord,
    judged: &[Judged],
) -> Result<(), RecordError> {
    let mut table = Table::create(directory.operations(), COLUMNS)?;
    for (operation, judged) in record.operations.iter().zip(judged) {
        let (outcome, reason) = judged.as_str();
        let maybe = |value: Option<u64>| value.map_or(Cell::Nothing, Cell::Number);
        let (issued_us, ended_us, responsible, hops) = match operation.end {
            OperationEnd::Found { issued_us, ended_us, responsible, hops } => {
                (Some(issued_us), Some(ended_us), Some(responsible.0), Some(u64::from(hops)))
            }
            OperationEnd::Failed { issued_us, ended_us, .. } => (Some(issued_us), Some(ended_us), None, None),
            OperationEnd::Lost(_) => (None, None, None, None),
        };
        table.row(&[
            Cell::Number(operation.number),
            Cell::Number(u64::from(operation.node)),
            Cell::Text(record.host_name_of(operation.node)),
            Cell::Number(operation.key.0),
            Cell::Number(operation.intended_us),
            maybe(issued_us),
            maybe(ended_us),
            Cell::Text(outcome),
            reason.map_or(Cell::Nothing, Cell::Text),
            maybe(responsible),
            maybe(hops),
            maybe(ended_us.map(|ended_us| ended_us.saturating_sub(operation.intended_us))),
        ])?;
    }
    table.finish()
}

const COLUMNS: &[Column] = &[
    ("id", Kind::Number),
    ("node", Kind::Number),
    ("host", Kind::Text),
    ("key", Kind::Number),
    ("intended_us", Kind::Number),
    ("issued_us", Kind::MaybeNumber),
    ("ended_us", Kind::MaybeNumber),
    ("outcome", Kind::Text),
    ("reason", Kind::MaybeText),
    ("responsible", Kind::MaybeNumber),
    ("hops", Kind::MaybeNumber),
    ("latency_us", Kind::MaybeNumber),
];

/// All operations of a run while it goes on, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Operations {
    operations: Vec<Operation>,
}

impl Operations {
    /// All look-ups of `schedule`.
    pub(super) fn new(schedule: &Schedule) -> Operations {
        let end = OperationEnd::Lost(LostReason::NoReport);
        let mut operations: Vec<Operation> = (schedule.actions.iter())
            .filter_map(|action| match action.kind {
                ActionKind::Lookup { operation: number, key } => {
                    Some(Operation { number, node: action.node, key, intended_us: action.at_us, end })
                }
                _ => None,
            })
            .collect();
        operations.sort_by_key(|operation| operation.number);
        Operations { operations }
    }

    /// When each was meant to be issued, in no particular order.
    pub(super) fn intended_us(&self) -> impl Iterator<Item = u64> {
        self.operations.iter().map(|operation| operation.intended_us)
    }

    /// Takes in what `node` says of one of its operations, with its times translated by `run_us`.
    pub(super) fn report(
        &mut self,
        node: NodeIndex,
        report: &OperationReport,
        run_us: impl Fn(u64) -> u64,
    ) -> Result<&Operation, String> {
        let (issued_us, ended_us) = (run_us(report.issued_us), run_us(report.ended_us));
        let end = match report.outcome {
            Outcome::Found { responsible, hops } => {
                OperationEnd::Found { issued_us, ended_us, responsible, hops }
            }
            Outcome::Failed(reason) => OperationEnd::Failed { issued_us, ended_us, reason },
        };
        self.end(Some(node), report.operation, end)
    }

    /// Takes in that an operation could not be given to its node.
    pub(super) fn not_issued(&mut self, operation: u64) -> Result<&Operation, String> {
        self.end(None, operation, OperationEnd::Lost(LostReason::NotIssued))
    }

    /// All of them, each lost one with its `reason`.
    pub(super) fn finish(mut self, reason: impl Fn(&Operation) -> LostReason) -> Vec<Operation> {
        for operation in &mut self.operations {
            if operation.end == OperationEnd::Lost(LostReason::NoReport) {
                operation.end = OperationEnd::Lost(reason(operation));
            }
        }
        self.operations
    }

    /// The first word counts.
    fn end(&mut self, node: Option<NodeIndex>, number: u64, end: OperationEnd) -> Result<&Operation, String> {
        let Ok(at) = self.operations.binary_search_by_key(&number, |operation| operation.number) else {
            return Err(format!("operation {number} is not in the schedule"));
        };
        let operation = &mut self.operations[at];
        if node.is_some_and(|node| node != operation.node) {
            return Err(format!("operation {number} is node {}'s", operation.node));
        }
        if operation.end != OperationEnd::Lost(LostReason::NoReport) {
            return Err(format!("operation {number} ended twice"));
        }
        operation.end = end;
        Ok(operation)
    }
}
