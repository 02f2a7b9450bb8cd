//! The actions of a run other than operations, planned against achieved.

use std::collections::HashMap;

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex};

use crate::schedule::Schedule;

/// What is done to a node, besides what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Spawn,
    Leave,
    Kill,
    Pause,
    Resume,
    Shape,
}

impl Deed {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Deed::Spawn => "spawn",
            Deed::Leave => "leave",
            Deed::Kill => "kill",
            Deed::Pause => "pause",
            Deed::Resume => "resume",
            Deed::Shape => "shape",
        }
    }
}

/// An action that was done, or tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoneAction {
    pub(super) node: NodeIndex,
    pub(super) planned_us: u64,
    pub(super) kind: Deed,
}

/// All actions that are not done yet, and how those went that are.
#[derive(Debug)]
pub(super) struct Actions {
    planned: HashMap<u64, DoneAction>,
    /// How far from its time each one was done, in microseconds.
    pub(super) errors_us: Vec<u64>,
    /// How many could not be done.
    pub(super) failed: u64,
}

impl Actions {
    pub(super) fn new(schedule: &Schedule) -> Actions {
        let planned = |action: &Action| {
            let kind = match action.kind {
                ActionKind::Spawn { .. } => Deed::Spawn,
                ActionKind::Leave => Deed::Leave,
                ActionKind::Kill => Deed::Kill,
                ActionKind::Pause => Deed::Pause,
                ActionKind::Resume => Deed::Resume,
                ActionKind::Shape { .. } => Deed::Shape,
                ActionKind::Lookup { .. } | ActionKind::Errand { .. } => return None,
            };
            Some((action.index, DoneAction { node: action.node, planned_us: action.at_us, kind }))
        };
        let planned = schedule.actions.iter().filter_map(planned).collect();
        Actions { planned, errors_us: Vec::new(), failed: 0 }
    }

    /// How many processes are to be started.
    pub(super) fn spawns(&self) -> usize {
        self.planned.values().filter(|action| action.kind == Deed::Spawn).count()
    }

    /// Takes in that an action was done, or could not be. `None`: it is no action of a node that `is_here`, or not for the
    /// first time.
    pub(super) fn achieved(
        &mut self,
        index: u64,
        achieved_us: u64,
        failed: bool,
        is_here: impl Fn(NodeIndex) -> bool,
    ) -> Option<DoneAction> {
        if !is_here(self.planned.get(&index)?.node) {
            return None;
        }
        let done = self.planned.remove(&index)?;
        if failed {
            self.failed += 1;
        } else {
            self.errors_us.push(achieved_us.abs_diff(done.planned_us));
        }
        Some(done)
    }
}
