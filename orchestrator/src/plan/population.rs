//! How many nodes are up and down in the course of a run: a matter of numbers only, whoever the nodes will be.

use std::time::Duration;

use super::targets::Links;
use super::trace::Trace;
use super::{Amount, StepEvent, join_time};

/// The numbers at one time of a run.
#[derive(Clone, Debug)]
pub struct Population {
    first_nodes: u32,
    join_rate: Option<f64>,
    /// How many of the first nodes have been started.
    started: u32,
    up: u32,
    down: u32,
    /// All nodes of the run so far, with the first nodes that are still to join.
    nodes: u64,
    actions: u64,
    /// Whether there was churn, or a step done to whom only the schedule knows: the numbers are expected ones since.
    churned: bool,
}

/// Why a step cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// More nodes are to end than are up.
    Up {
        /// So many.
        wanted: u32,
        /// So many are up.
        up: u32,
    },
    /// All nodes are to end.
    NobodyLeft {
        /// So many are up.
        up: u32,
    },
    /// More nodes are to restart than are down, or none is down.
    Down {
        /// So many.
        wanted: u32,
        /// So many are down.
        down: u32,
    },
}

impl Population {
    /// Before the run: `nodes` will join at `join_rate` (`None`: all at once).
    pub fn new(nodes: u32, join_rate: Option<f64>) -> Population {
        let actions = u64::from(nodes);
        Population {
            first_nodes: nodes,
            join_rate,
            started: 0,
            up: 0,
            down: 0,
            nodes: u64::from(nodes),
            actions,
            churned: false,
        }
    }

    /// All nodes of the run so far, with the first nodes that are still to join.
    pub fn nodes(&self) -> u64 {
        self.nodes
    }

    /// How many nodes are up.
    pub fn up(&self) -> u32 {
        self.up
    }

    /// How many starts and ends of nodes there are so far, with the first nodes' starts.
    pub fn actions(&self) -> u64 {
        self.actions
    }

    /// Moves to the time `at`, which is no earlier than the last one, and does `event`. Returns how many nodes it is.
    ///
    /// After churn the numbers are those to be expected: who restarts then are as many as there are.
    ///
    /// # Errors
    /// [`Shortage`] where there are not as many nodes; nothing but the time has changed then.
    pub fn step(&mut self, at: Duration, event: &StepEvent) -> Result<u32, Shortage> {
        while self.started < self.first_nodes && join_time(self.join_rate, self.started) <= at {
            self.started += 1;
            self.up += 1;
        }
        let count = match event {
            StepEvent::Join(amount) => {
                let count = amount.of(self.up);
                self.up = self.up.saturating_add(count);
                self.nodes += u64::from(count);
                count
            }
            StepEvent::Leave(target) | StepEvent::Kill(target) => {
                let Some(amount) = target.amount() else { return Ok(self.unknown()) };
                let count = amount.of(self.up);
                match count {
                    _ if count > self.up => return Err(Shortage::Up { wanted: count, up: self.up }),
                    _ if count == self.up => return Err(Shortage::NobodyLeft { up: self.up }),
                    _ => self.up -= count,
                }
                self.down += count;
                count
            }
            StepEvent::Restart(target) => {
                let Some(amount) = target.amount() else { return Ok(self.unknown()) };
                let count = amount.of(self.down);
                if !self.churned && (count > self.down || self.down == 0) {
                    return Err(Shortage::Down { wanted: count, down: self.down });
                }
                let count = count.min(self.down);
                self.down -= count;
                self.up += count;
                count
            }
            StepEvent::Pause { target, .. } | StepEvent::Degrade { links: Links::Of(target), .. } => {
                let Some(amount) = target.amount() else { return Ok(self.unknown()) };
                let count = amount.of(self.up);
                if count > self.up {
                    return Err(Shortage::Up { wanted: count, up: self.up });
                }
                // Each has an end.
                count.saturating_mul(2)
            }
            // Each node has as many rules.
            StepEvent::Degrade { links: Links::Between { .. }, .. } => self.up.saturating_mul(4),
            StepEvent::Partition { sides, .. } => self.up.saturating_mul(2 * sides.len() as u32),
            StepEvent::Heal => 0,
            StepEvent::Churn { churn, until } => {
                self.churned = true;
                let length = until.saturating_sub(at);
                self.nodes += churn.new_in(length, self.up).round() as u64;
                self.actions += (2.0 * churn.ends_in(length, self.up)).round() as u64;
                // The rest of a length is drawn for each that is up or down at first.
                self.actions += u64::from(self.up).saturating_add(churn.down_for(self.up).round() as u64);
                0
            }
            StepEvent::Trace(trace) => self.trace(trace),
        };
        self.actions += u64::from(count);
        Ok(count)
    }

    /// A step is done to whom only the schedule knows, with its hosts and ids: at most to all that run, with an end for each.
    /// Where it takes all, the schedule says so.
    fn unknown(&mut self) -> u32 {
        self.churned = true;
        let count = self.up.saturating_mul(2);
        self.actions += u64::from(count);
        count
    }

    fn trace(&mut self, trace: &Trace) -> u32 {
        self.churned = true;
        let share = trace.share(self.up);
        let of = |count: usize| (share * count as f64).round() as u32;
        let first = of(trace.up_at_first());
        self.nodes += u64::from(of(trace.nodes.len()).saturating_sub(first));
        self.up = self.up.saturating_sub(first).saturating_add(of(trace.up_at_last())).max(1);
        of(2 * trace.nodes.iter().map(Vec::len).sum::<usize>() + trace.nodes.len())
    }
}

impl Amount {
    /// How many of `total` this is: a share is rounded to the nearest whole node, but is at least one of some.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Amount::Count(count) => count,
            // A share is in 0..=1, so the product is in 0..=total.
            Amount::Share(share) => ((share * f64::from(total)).round() as u32).max(u32::from(total > 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_change_the_numbers() {
        let mut population = Population::new(10, Some(1.0));
        let second = Duration::from_secs;
        assert_eq!(population.step(second(4), &StepEvent::Kill(Amount::Count(2).into())), Ok(2));
        assert_eq!(population.up(), 3, "five have joined by then");
        assert_eq!(population.step(second(9), &StepEvent::Restart(Amount::Share(0.5).into())), Ok(1));
        assert_eq!(population.up(), 9);
        assert_eq!(population.step(second(9), &StepEvent::Join(Amount::Share(1.0))), Ok(9));
        assert_eq!((population.up(), population.nodes(), population.actions()), (18, 19, 22));
    }

    #[test]
    fn shortages_are_told() {
        let mut population = Population::new(10, None);
        let at = Duration::ZERO;
        assert_eq!(
            population.step(at, &StepEvent::Kill(Amount::Count(11).into())),
            Err(Shortage::Up { wanted: 11, up: 10 })
        );
        assert_eq!(
            population.step(at, &StepEvent::Leave(Amount::Share(1.0).into())),
            Err(Shortage::NobodyLeft { up: 10 })
        );
        assert_eq!(
            population.step(at, &StepEvent::Restart(Amount::Share(0.5).into())),
            Err(Shortage::Down { wanted: 0, down: 0 })
        );
        assert_eq!(
            population.step(at, &StepEvent::Leave(Amount::Share(0.01).into())),
            Ok(1),
            "at least one of some"
        );
    }
}
