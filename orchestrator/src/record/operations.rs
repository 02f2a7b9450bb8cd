//! The operations of a run: each look-up, put, get and message of the schedule, and how it ended. None is forgotten: an operation is
//! lost until somebody says otherwise.

use std::collections::BTreeMap;

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex};
use p2ps::control::{Errand, OperationReport, Outcome};
use p2ps::id::Id;
use p2ps::message::dictionary::Version;

use crate::plan::workload::OperationKind;
use crate::schedule::Schedule;

use super::RecordError;
use super::directory::RunDirectory;
use super::run_record::RunRecord;
use super::table::{Cell, Column, Kind, Table};

/// One operation. Times in microseconds since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The run's number for it.
    pub number: u64,
    /// What it is.
    pub kind: OperationKind,
    /// The node that was to begin it.
    pub node: NodeIndex,
    /// The key, or the id of the node that it goes to; `None`: it goes to many.
    pub key: Option<Id>,
    /// When it was meant to be issued.
    pub intended_us: u64,
    /// How it ended.
    pub end: OperationEnd,
}

/// How an operation ended, as far as was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationEnd {
    /// It ended well, as its node saw it. Whether rightly, the judge will say.
    Done {
        /// When the node issued it.
        issued_us: u64,
        /// When it was done.
        ended_us: u64,
        /// What came of it.
        result: Done,
    },
    /// The node said that it failed.
    Failed {
        /// When the node issued it.
        issued_us: u64,
        /// When it was given up.
        ended_us: u64,
        /// Why, as the results write it.
        reason: &'static str,
    },
    /// Nobody said how it ended.
    Lost(LostReason),
}

/// What came of an operation that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of a look-up: who answers for the key, and the hops it took.
    Found(Id, u16),
    /// Of a put: the version.
    Written(Version),
    /// Of a get: the number of the put whose value the key has (none: the value is nobody's) and its version, if it has one.
    Read(Option<(Option<u64>, Version)>),
    /// Of a message: it was sent; of a reliable one: its node says that it was delivered.
    Sent,
}

impl OperationEnd {
    /// When it was issued and when it ended, if that is known.
    pub fn times_us(&self) -> Option<(u64, u64)> {
        match *self {
            OperationEnd::Done { issued_us, ended_us, .. }
            | OperationEnd::Failed { issued_us, ended_us, .. } => Some((issued_us, ended_us)),
            OperationEnd::Lost(_) => None,
        }
    }
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
    /// Its node lived on to the run's end and never answered, or its message went to a node that lived on and never came: the
    /// overlay lost it.
    NoReport,
    /// The node that its message went to was not up all the time, and did not say that the message came.
    ReceiverDown,
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
            LostReason::ReceiverDown => "receiver_down",
            LostReason::NotReached => "not_reached",
        }
    }
}

/// An operation's end after the judge has held it against the ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It did what it was to do: a look-up was answered rightly, a message came to all that it was to come to.
    Succeeded,
    /// It was answered, and no moment of the operation makes the answer right; a message came where it was not to come, or was said to
    /// have been delivered and was not.
    Wrong,
    /// A get found an older value than one that had been written before it began.
    Stale,
    /// A get found no value, though one had been written before it began.
    Missing,
    /// A message to many came to some of them.
    Partial,
    /// It failed, and its node knew: why, as the results write it.
    Failed(&'static str),
    /// Nobody knows how it ended.
    Lost(LostReason),
}

impl Judged {
    /// The outcome and its reason, as the results write them.
    pub fn as_str(self) -> (&'static str, Option<&'static str>) {
        match self {
            Judged::Succeeded => ("succeeded", None),
            Judged::Wrong => ("wrong", None),
            Judged::Stale => ("wrong", Some("stale")),
            Judged::Missing => ("wrong", Some("missing")),
            Judged::Partial => ("partial", None),
            Judged::Failed(reason) => ("failed", Some(reason)),
            Judged::Lost(reason) => ("lost", Some(reason.as_str())),
        }
    }
}

/// How far a message came. Times in microseconds since the run's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// To how many nodes it was to come: those that it was sent to and that certainly were members all the time.
    pub expected: u32,
    /// To how many of these it came.
    pub reached: u32,
    /// How often it came to a life of a node that had it already.
    pub duplicates: u32,
    /// When it came to the last of those that it was to come to.
    pub last_us: u64,
}

/// How far each message came, by the number of its operation.
pub type Reaches = BTreeMap<u64, Reach>;

/// Writes `ops.parquet`: every operation of the record, what the judge made of it (`judged`, in the same order), and how far it
/// came.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_operations(
    directory: &RunDirectory,
    record: &RunRecord,
    judged: &[Judged],
    reaches: &Reaches,
) -> Result<(), RecordError> {
    let mut table = Table::create(directory.operations(), COLUMNS)?;
    for (operation, judged) in record.operations.iter().zip(judged) {
        let (outcome, reason) = judged.as_str();
        let maybe = |value: Option<u64>| value.map_or(Cell::Nothing, Cell::Number);
        let times_us = operation.end.times_us();
        let done = match operation.end {
            OperationEnd::Done { result, .. } => Some(result),
            OperationEnd::Failed { .. } | OperationEnd::Lost(_) => None,
        };
        let (responsible, hops) = match done {
            Some(Done::Found(responsible, hops)) => (Some(responsible.0), Some(u64::from(hops))),
            _ => (None, None),
        };
        let put = match done {
            Some(Done::Read(Some((put, _)))) => put,
            _ => None,
        };
        let reach = reaches.get(&operation.number);
        let ended_us = match reach {
            Some(reach) if reach.reached > 0 => Some(reach.last_us),
            _ => times_us.map(|(_, ended_us)| ended_us),
        };
        table.row(&[
            Cell::Number(operation.number),
            Cell::Text(operation.kind.as_str()),
            Cell::Number(u64::from(operation.node)),
            Cell::Text(record.host_name_of(operation.node)),
            maybe(operation.key.map(|key| key.0)),
            Cell::Number(operation.intended_us),
            maybe(times_us.map(|(issued_us, _)| issued_us)),
            maybe(ended_us),
            Cell::Text(outcome),
            reason.map_or(Cell::Nothing, Cell::Text),
            maybe(responsible),
            maybe(hops),
            maybe(ended_us.map(|ended_us| ended_us.saturating_sub(operation.intended_us))),
            maybe(put),
            maybe(reach.map(|reach| u64::from(reach.expected))),
            maybe(reach.map(|reach| u64::from(reach.reached))),
            maybe(reach.map(|reach| u64::from(reach.duplicates))),
        ])?;
    }
    table.finish()
}

const COLUMNS: &[Column] = &[
    ("id", Kind::Number),
    ("kind", Kind::Text),
    ("node", Kind::Number),
    ("host", Kind::Text),
    ("key", Kind::MaybeNumber),
    ("intended_us", Kind::Number),
    ("issued_us", Kind::MaybeNumber),
    ("ended_us", Kind::MaybeNumber),
    ("outcome", Kind::Text),
    ("reason", Kind::MaybeText),
    ("responsible", Kind::MaybeNumber),
    ("hops", Kind::MaybeNumber),
    ("latency_us", Kind::MaybeNumber),
    ("put", Kind::MaybeNumber),
    ("expected", Kind::MaybeNumber),
    ("reached", Kind::MaybeNumber),
    ("duplicates", Kind::MaybeNumber),
];

/// All operations of a run while it goes on, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Operations {
    operations: Vec<Operation>,
}

impl Operations {
    /// All operations of `schedule`.
    pub(super) fn new(schedule: &Schedule) -> Operations {
        let mut operations: Vec<Operation> = schedule.actions.iter().filter_map(planned).collect();
        operations.sort_by_key(|operation| operation.number);
        Operations { operations }
    }

    /// What an operation is, if there is one with this number.
    pub(super) fn find(&self, number: u64) -> Option<&Operation> {
        let at = self.operations.binary_search_by_key(&number, |operation| operation.number).ok()?;
        self.operations.get(at)
    }

    /// Whether some of them are no look-ups.
    pub(super) fn are_mixed(&self) -> bool {
        self.operations.iter().any(|operation| operation.kind != OperationKind::Lookup)
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
        let done = |result| OperationEnd::Done { issued_us, ended_us, result };
        let failed = |reason| OperationEnd::Failed { issued_us, ended_us, reason };
        let end = match report.outcome {
            Outcome::Found { responsible, hops } => done(Done::Found(responsible, hops)),
            Outcome::Written { version } => done(Done::Written(version)),
            Outcome::Read { value } => done(Done::Read(value)),
            Outcome::Sent => done(Done::Sent),
            Outcome::Failed(reason) => failed(reason.as_str()),
            Outcome::Refused(reason) => failed(reason.as_str()),
        };
        if let (OperationEnd::Done { result, .. }, Some(operation)) = (&end, self.find(report.operation))
            && !result.fits(operation.kind)
        {
            let (number, kind) = (report.operation, operation.kind.as_str());
            return Err(format!("operation {number} is a {kind}, and cannot end as {:?}", report.outcome));
        }
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

impl Done {
    fn fits(self, kind: OperationKind) -> bool {
        match self {
            Done::Found(..) => kind == OperationKind::Lookup,
            Done::Written(_) => kind == OperationKind::Put,
            Done::Read(_) => kind == OperationKind::Get,
            Done::Sent => kind.is_message(),
        }
    }
}

/// An action as an operation that nobody has said the end of, if it is one.
fn planned(action: &Action) -> Option<Operation> {
    let key = match &action.kind {
        ActionKind::Lookup { key, .. } => Some(*key),
        ActionKind::Errand { what, .. } => match what {
            Errand::Put { key, .. } | Errand::Get { key } => Some(*key),
            Errand::Send { to, .. } | Errand::SendReliable { to, .. } => Some(*to),
            Errand::Broadcast { .. } | Errand::Multicast { .. } => None,
        },
        _ => None,
    };
    Some(Operation {
        number: action.kind.operation()?,
        kind: OperationKind::of(&action.kind)?,
        node: action.node,
        key,
        intended_us: action.at_us,
        end: OperationEnd::Lost(LostReason::NoReport),
    })
}
