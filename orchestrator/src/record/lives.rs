//! The lives of the nodes: from the start of a process to its end, with every moment that says something of its
//! membership. A node that is restarted has several, one after the other.

use p2ps::agent::protocol::NodeIndex;

/// One life of a node. All times in microseconds since the run's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// The node.
    pub node: NodeIndex,
    /// When its process was started; unknown where the agent's word of it was lost.
    pub spawned_us: Option<u64>,
    /// Since when it is a member, by its own word.
    pub joined_us: Option<u64>,
    /// When it was told to leave.
    pub leave_us: Option<u64>,
    /// When its duty ended, by its own word.
    pub left_us: Option<u64>,
    /// When it was killed.
    pub killed_us: Option<u64>,
    /// When its process was seen to have ended, and how.
    pub ended: Option<(u64, LifeEnd)>,
    /// When it last said something.
    pub heard_us: u64,
    /// When its counters were last read.
    pub sampled_us: Option<u64>,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeEnd {
    /// As the schedule, or the end of the run, wanted it.
    Expected,
    /// By itself: it crashed.
    Unexpected,
    /// Nobody knows: the host's agent is gone.
    HostLost {
        /// When the process had ended for certain, in microseconds since the run's start: with the agent's lease at the latest.
        gone_us: u64,
    },
}

impl Life {
    /// When it was certainly over, as far as is known.
    pub fn over_us(&self) -> Option<u64> {
        [self.killed_us, self.left_us, self.ended.map(|(at_us, _)| at_us)].into_iter().flatten().min()
    }

    /// Whether it is a member that has not ended.
    pub fn is_alive(&self) -> bool {
        self.joined_us.is_some() && self.over_us().is_none()
    }

    /// Whether it runs and is not a member yet.
    pub fn is_joining(&self) -> bool {
        self.joined_us.is_none() && self.over_us().is_none()
    }
}

/// All lives of a run.
#[derive(Debug)]
pub(super) struct Lives {
    lives: Vec<Life>,
    /// Each node's latest life.
    latest: Vec<Option<usize>>,
    /// The most lives there can be.
    lives_max: usize,
}

impl Lives {
    /// No life yet of any of `nodes` nodes; there will be `lives_max` at most, whatever agents say.
    pub(super) fn new(nodes: usize, lives_max: usize) -> Lives {
        Lives { lives: Vec::new(), latest: vec![None; nodes], lives_max }
    }

    /// A process of `node` was started. What still counted as alive of it is over.
    pub(super) fn spawned(&mut self, node: NodeIndex, at_us: u64) {
        if let Some(life) = self.latest_mut(node) {
            // Its first words may overtake the agent's.
            if life.ended.is_none() && life.killed_us.is_none() && life.spawned_us.is_none() {
                life.spawned_us = Some(at_us);
                return;
            }
            if life.ended.is_none() {
                life.ended = Some((at_us, LifeEnd::Expected));
            }
        }
        self.begin(node, Some(at_us));
    }

    /// The life in which `node` said something at `at_us`: its latest, or a new one (of unknown beginning) where that one
    /// had ended before.
    pub(super) fn speaking(&mut self, node: NodeIndex, at_us: u64) -> Option<&mut Life> {
        let slot = *self.latest.get(node as usize)?;
        let ended_us = |at: usize| self.lives[at].ended.map_or(u64::MAX, |(ended_us, _)| ended_us);
        if slot.is_none_or(|at| ended_us(at) < at_us) {
            self.begin(node, None);
        }
        let life = self.latest_mut(node)?;
        life.heard_us = life.heard_us.max(at_us);
        Some(life)
    }

    /// The latest life of `node`, whether or not it has ended.
    pub(super) fn latest_mut(&mut self, node: NodeIndex) -> Option<&mut Life> {
        let at = (*self.latest.get(node as usize)?)?;
        self.lives.get_mut(at)
    }

    /// The latest life of each node that has had one.
    pub(super) fn latest_of_all(&self) -> impl Iterator<Item = &Life> {
        self.latest.iter().flatten().map(|at| &self.lives[*at])
    }

    /// All lives, in the order in which they began.
    pub(super) fn into_inner(self) -> Vec<Life> {
        self.lives
    }

    fn begin(&mut self, node: NodeIndex, spawned_us: Option<u64>) {
        if self.lives.len() >= self.lives_max {
            return;
        }
        if let Some(latest) = self.latest.get_mut(node as usize) {
            *latest = Some(self.lives.len());
            self.lives.push(Life { node, spawned_us, ..Life::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_overtake_the_start_belong_to_the_same_life() {
        let mut lives = Lives::new(1, 9);
        lives.speaking(0, 7).unwrap().joined_us = Some(7);
        lives.spawned(0, 5);
        let lives = lives.into_inner();
        assert_eq!(lives.len(), 1);
        assert_eq!((lives[0].spawned_us, lives[0].joined_us), (Some(5), Some(7)));
    }

    #[test]
    fn a_restart_is_a_new_life_even_if_nobody_saw_the_old_one_end() {
        let mut lives = Lives::new(2, 9);
        lives.spawned(1, 5);
        lives.latest_mut(1).unwrap().killed_us = Some(8);
        lives.spawned(1, 9);
        assert_eq!(lives.latest_mut(1).unwrap().spawned_us, Some(9));
        let lives = lives.into_inner();
        assert_eq!(lives[0].over_us(), Some(8));
        assert_eq!(lives[0].ended, Some((9, LifeEnd::Expected)));
        assert!(lives[1].is_joining());
    }

    #[test]
    fn words_that_come_late_do_not_raise_the_dead() {
        let mut lives = Lives::new(1, 9);
        lives.spawned(0, 1);
        lives.latest_mut(0).unwrap().ended = Some((9, LifeEnd::Unexpected));
        lives.speaking(0, 8).unwrap().left_us = Some(8);
        assert_eq!(lives.latest_mut(0).unwrap().over_us(), Some(8));
        assert_eq!(lives.into_inner().len(), 1);
    }

    #[test]
    fn there_are_no_more_lives_than_there_can_be() {
        let mut lives = Lives::new(1, 3);
        for at_us in 0..10 {
            lives.spawned(0, at_us);
        }
        assert_eq!(lives.into_inner().len(), 3);
    }

    #[test]
    fn a_node_that_is_not_in_the_plan_has_no_life() {
        let mut lives = Lives::new(1, 9);
        lives.spawned(1, 5);
        assert!(lives.speaking(1, 5).is_none());
        assert!(lives.into_inner().is_empty());
    }
}
