//! Which operations may still end: what the end of a run waits for.

use p2ps::agent::protocol::{NodeIndex, Notice};
use p2ps::control::Report;

use crate::schedule::{HostIndex, Schedule};

/// The operations of a run that have been given to a node and may still end.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// By the run's number for it: whether it is open, its node, and when it is meant to be issued.
    operations: Vec<Operation>,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    open: bool,
    node: NodeIndex,
    at_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    host: HostIndex,
    running: bool,
    /// When its last process ended: what it was given before is lost.
    ended_us: Option<u64>,
}

impl Outstanding {
    /// All operations of `schedule`, none of them given yet.
    pub(super) fn new(schedule: &Schedule) -> Outstanding {
        let closed = Operation { open: false, node: 0, at_us: u64::MAX };
        let mut operations = vec![closed; usize::try_from(schedule.operations).unwrap_or(0)];
        for action in &schedule.actions {
            if let Some(operation) = action.kind.operation()
                && let Some(entry) = usize::try_from(operation).ok().and_then(|at| operations.get_mut(at))
            {
                *entry = Operation { open: true, node: action.node, at_us: action.at_us };
            }
        }
        let node =
            |placed: &crate::schedule::PlacedNode| Node { host: placed.host, running: false, ended_us: None };
        Outstanding { operations, nodes: schedule.nodes.iter().map(node).collect() }
    }

    /// Takes in a notice of an agent; `start_us` is the run's start on its clock.
    pub(super) fn notice(&mut self, start_us: u64, notice: &Notice) {
        match notice {
            Notice::NotIssued { operation, .. } => self.close(*operation),
            Notice::Node { node, report } => {
                if let Report::Operation(report) = report {
                    self.close(report.operation);
                }
                if let Some(node) = self.nodes.get_mut(*node as usize)
                    && matches!(report, Report::Listening { .. })
                {
                    node.running = true;
                }
            }
            Notice::Exited { node, at_us, .. } => {
                if let Some(node) = self.nodes.get_mut(*node as usize) {
                    node.ended_us = Some(at_us.saturating_sub(start_us));
                    node.running = false;
                }
            }
            _ => {}
        }
    }

    /// A host is gone, and its nodes with it.
    pub(super) fn host_lost(&mut self, host: HostIndex) {
        self.nodes.iter_mut().filter(|node| node.host == host).for_each(|node| node.running = false);
    }

    /// How many operations that were due until `until_us` (since the run's start) may still end.
    pub(super) fn count(&self, until_us: u64) -> usize {
        let may_end = |operation: &&Operation| {
            operation.open
                && operation.at_us <= until_us
                && self.nodes.get(operation.node as usize).is_some_and(|node| {
                    node.running && node.ended_us.is_none_or(|ended_us| ended_us < operation.at_us)
                })
        };
        self.operations.iter().filter(may_end).count()
    }

    fn close(&mut self, operation: u64) {
        if let Some(entry) = usize::try_from(operation).ok().and_then(|at| self.operations.get_mut(at)) {
            entry.open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::machine::tests::schedule;
    use p2ps::control::{OperationReport, Outcome};
    use p2ps::message::RouteError;

    fn listening(node: NodeIndex) -> Notice {
        let access_point = "p2ps://127.0.0.1:1".parse().unwrap();
        Notice::Node { node, report: Report::Listening { access_point, metrics: None } }
    }

    fn ended(node: NodeIndex, operation: u64) -> Notice {
        let outcome = Outcome::Failed(RouteError::TimedOut);
        let report = OperationReport { operation, issued_us: 0, ended_us: 0, outcome };
        Notice::Node { node, report: Report::Operation(report) }
    }

    #[test]
    fn what_ended_was_not_issued_or_died_with_its_node_is_not_waited_for() {
        // Operation n is due at n seconds, at node n % 3.
        let schedule = schedule(3, 1, 9);
        let mut outstanding = Outstanding::new(&schedule);
        assert_eq!(outstanding.count(u64::MAX), 0, "no node runs");
        (0..3).for_each(|node| outstanding.notice(0, &listening(node)));
        assert_eq!((outstanding.count(u64::MAX), outstanding.count(4_000_000)), (9, 5));
        outstanding.notice(0, &ended(0, 0));
        outstanding.notice(0, &Notice::NotIssued { operation: 1, planned_us: 0 });
        assert_eq!(outstanding.count(u64::MAX), 7);
        let exited = Notice::Exited {
            node: 2,
            at_us: 1_000 + 4_000_000,
            status: "signal 9".into(),
            expected: true,
            stderr: String::new(),
        };
        outstanding.notice(1_000, &exited);
        assert_eq!(outstanding.count(u64::MAX), 4, "operations 2, 5 and 8 cannot end");
        outstanding.notice(1_000, &listening(2));
        assert_eq!(outstanding.count(u64::MAX), 6, "5 and 8 are the next life's");
        outstanding.host_lost(0);
        assert_eq!(outstanding.count(u64::MAX), 0);
    }
}
