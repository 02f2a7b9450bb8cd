//! What came of messages, at the nodes that they went to, and at those that heard that they would not come.

use p2ps::agent::protocol::NodeIndex;
use p2ps::id::Id;

use super::RecordError;
use super::directory::RunDirectory;
use super::run_record::RunRecord;
use super::table::{Cell, Column, Kind, Table};
use crate::plan::workload::DELIVERIES_MAX;

/// A message has come. Times in microseconds since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    /// The number of the operation that sent it.
    pub operation: u64,
    /// Where it came.
    pub node: NodeIndex,
    /// When.
    pub at_us: u64,
}

/// A node heard that a message which it had sent will not come to one of its destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndeliveredReport {
    /// The node that had sent it.
    pub node: NodeIndex,
    /// Where it was to go.
    pub destination: Id,
    /// When that was heard.
    pub at_us: u64,
    /// Why, as the results write it.
    pub reason: &'static str,
}

/// What was told of messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deliveries {
    /// What came, in the order in which it was told.
    pub delivered: Vec<DeliveryReport>,
    /// What did not, in the same order.
    pub undelivered: Vec<UndeliveredReport>,
    /// Whether there were more than are kept.
    pub is_cut: bool,
}

impl Deliveries {
    pub(super) fn add(&mut self, delivery: DeliveryReport) {
        if keep(&self.delivered, &mut self.is_cut) {
            self.delivered.push(delivery);
        }
    }

    pub(super) fn add_undelivered(&mut self, undelivered: UndeliveredReport) {
        if keep(&self.undelivered, &mut self.is_cut) {
            self.undelivered.push(undelivered);
        }
    }
}

/// The most that is kept is twice what a plan may make: messages may come twice.
fn keep<T>(kept: &[T], is_cut: &mut bool) -> bool {
    let room = (kept.len() as u64) < 2 * DELIVERIES_MAX;
    *is_cut |= !room;
    room
}

/// Writes `deliveries.parquet`: every delivery of a message, in the order in which it was told of. Nothing, where there is none.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_deliveries(directory: &RunDirectory, record: &RunRecord) -> Result<(), RecordError> {
    if record.deliveries.delivered.is_empty() {
        return Ok(());
    }
    let mut table = Table::create(directory.deliveries(), COLUMNS)?;
    for DeliveryReport { operation, node, at_us } in &record.deliveries.delivered {
        table.row(&[
            Cell::Number(*operation),
            Cell::Number(u64::from(*node)),
            Cell::Text(record.host_name_of(*node)),
            Cell::Number(*at_us),
        ])?;
    }
    table.finish()
}

const COLUMNS: &[Column] =
    &[("id", Kind::Number), ("node", Kind::Number), ("host", Kind::Text), ("at_us", Kind::Number)];
