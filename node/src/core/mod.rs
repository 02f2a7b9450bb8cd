//! The core of the overlay: ring, link tables, joins, leaves, repair and routing. Pure.

use serde::{Deserialize, Serialize};

/// What P2PS counts (its manual's `getStatistics`), since the node's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Statistics {
    /// Data messages that started or ended here (`nrDataMsgs_lcl`).
    pub data_messages_local: u64,
    /// Data messages passed on for others (`nrDataMsgs_rm`).
    pub data_messages_remote: u64,
    /// Control messages that started or ended here (`nrCtrlMsgs_lcl`).
    pub control_messages_local: u64,
    /// Control messages passed on for others (`nrCtrlMsgs_rm`).
    pub control_messages_remote: u64,
    /// Messages handed to the application (`nrAppMsgs`).
    pub application_messages: u64,
    /// Changes of a finger (`nrFingerChgs`).
    pub finger_changes: u64,
    /// Changes of the successor (`nrSuccChgs`).
    pub successor_changes: u64,
    /// Changes of the predecessor (`nrPredChgs`).
    pub predecessor_changes: u64,
    /// Joins that this node handed a range over to.
    pub joins: u64,
    /// Nodes that were taken for dead.
    pub suspicions: u64,
}
