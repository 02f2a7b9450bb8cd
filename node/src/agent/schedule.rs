//! An agent's slice of the schedule: checked on its way in, given out when it is due.

use std::collections::VecDeque;

use super::protocol::{ACTIONS_MAX, Action, ActionKind, LIST_MAX, NodeIndex, SHAPE_RULES_MAX};
use crate::control::errand::RECEIVERS_MAX;

/// The most nodes that a node is told to join by.
const VIA_MAX: usize = 64;

/// Actions in time order.
#[derive(Debug, Default)]
pub(super) struct Slice {
    actions: VecDeque<Action>,
    taken: usize,
    last_us: u64,
}

/// Why a list of actions was refused, whole.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SliceError {
    #[error("a list of {0} actions; at most {LIST_MAX} are allowed")]
    List(usize),
    #[error("more than {ACTIONS_MAX} actions")]
    Full,
    #[error("action {index} at {at_us} us comes after one at {last_us} us: actions must be in time order")]
    Order { index: u64, at_us: u64, last_us: u64 },
    #[error("action {index} is for node {node}, which is not prepared on this host")]
    Stranger { index: u64, node: NodeIndex },
    #[error("action {index} names {count} nodes to join by; at most {VIA_MAX} are allowed")]
    Via { index: u64, count: usize },
    #[error("action {index} has {count} rules; at most {SHAPE_RULES_MAX} are allowed")]
    Rules { index: u64, count: usize },
    #[error("action {index} names {count} nodes to send to; at most {RECEIVERS_MAX} are allowed")]
    Receivers { index: u64, count: usize },
}

impl Slice {
    /// Appends `actions`, all or none. `is_here` tells whether a node is one of this host's.
    pub(super) fn extend(
        &mut self,
        actions: Vec<Action>,
        is_here: impl Fn(NodeIndex) -> bool,
    ) -> Result<(), SliceError> {
        if actions.len() > LIST_MAX {
            return Err(SliceError::List(actions.len()));
        }
        if self.taken + actions.len() > ACTIONS_MAX {
            return Err(SliceError::Full);
        }
        let mut last_us = self.last_us;
        for Action { index, at_us, node, kind } in &actions {
            let (index, at_us, node) = (*index, *at_us, *node);
            if at_us < last_us {
                return Err(SliceError::Order { index, at_us, last_us });
            }
            if !is_here(node) {
                return Err(SliceError::Stranger { index, node });
            }
            match kind {
                ActionKind::Spawn { via } if via.len() > VIA_MAX => {
                    return Err(SliceError::Via { index, count: via.len() });
                }
                ActionKind::Shape { rules } if rules.len() > SHAPE_RULES_MAX => {
                    return Err(SliceError::Rules { index, count: rules.len() });
                }
                ActionKind::Errand { what, .. } if what.receivers() > RECEIVERS_MAX => {
                    return Err(SliceError::Receivers { index, count: what.receivers() });
                }
                _ => {}
            }
            last_us = at_us;
        }
        self.last_us = last_us;
        self.taken += actions.len();
        self.actions.extend(actions);
        Ok(())
    }

    /// When the next action is due, in microseconds since the run's start.
    pub(super) fn next_at_us(&self) -> Option<u64> {
        self.actions.front().map(|action| action.at_us)
    }

    /// The next action, if it is due `now_us` after the run's start.
    pub(super) fn due(&mut self, now_us: u64) -> Option<Action> {
        if self.next_at_us()? <= now_us { self.actions.pop_front() } else { None }
    }

    /// Forgets what is still to come.
    pub(super) fn clear(&mut self) {
        self.actions = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::ShapeRule;
    use super::*;
    use crate::com::shaping::LinkShape;
    use crate::control::Errand;
    use crate::id::Id;

    fn kill(index: u64, at_us: u64, node: NodeIndex) -> Action {
        Action { index, at_us, node, kind: ActionKind::Kill }
    }

    #[test]
    fn actions_come_out_when_they_are_due() {
        let mut slice = Slice::default();
        slice.extend(vec![kill(0, 10, 1), kill(1, 10, 2), kill(2, 30, 1)], |_| true).unwrap();
        assert_eq!(slice.due(9), None);
        assert_eq!(slice.due(10), Some(kill(0, 10, 1)));
        assert_eq!(slice.due(29), Some(kill(1, 10, 2)));
        assert_eq!(slice.due(29), None);
        assert_eq!(slice.next_at_us(), Some(30));
    }

    #[test]
    fn a_bad_list_is_refused_whole() {
        let mut slice = Slice::default();
        slice.extend(vec![kill(0, 10, 1)], |_| true).unwrap();
        assert_eq!(
            slice.extend(vec![kill(1, 20, 1), kill(2, 19, 1)], |_| true),
            Err(SliceError::Order { index: 2, at_us: 19, last_us: 20 })
        );
        assert_eq!(
            slice.extend(vec![kill(1, 9, 1)], |_| true),
            Err(SliceError::Order { index: 1, at_us: 9, last_us: 10 })
        );
        assert_eq!(
            slice.extend(vec![kill(1, 20, 5)], |node| node < 5),
            Err(SliceError::Stranger { index: 1, node: 5 })
        );
        let crowd = ActionKind::Spawn { via: vec![0; VIA_MAX + 1] };
        let crowd = Action { index: 1, at_us: 20, node: 0, kind: crowd };
        assert!(matches!(slice.extend(vec![crowd], |_| true), Err(SliceError::Via { index: 1, .. })));
        let rule = ShapeRule { to: 0, shape: LinkShape::default() };
        let shape = ActionKind::Shape { rules: vec![rule; SHAPE_RULES_MAX + 1] };
        let shape = Action { index: 1, at_us: 20, node: 0, kind: shape };
        assert!(matches!(slice.extend(vec![shape], |_| true), Err(SliceError::Rules { index: 1, .. })));
        let what = Errand::Multicast { to: vec![Id(1); RECEIVERS_MAX + 1], bytes: 8 };
        let multicast =
            Action { index: 1, at_us: 20, node: 0, kind: ActionKind::Errand { operation: 0, what } };
        assert!(matches!(
            slice.extend(vec![multicast], |_| true),
            Err(SliceError::Receivers { index: 1, .. })
        ));
        assert_eq!(slice.extend(vec![kill(1, 20, 1); LIST_MAX + 1], |_| true), Err(SliceError::List(4097)));
        assert_eq!(slice.due(10), Some(kill(0, 10, 1)));
        assert_eq!(slice.due(u64::MAX), None, "nothing of the bad lists is left");
    }
}
