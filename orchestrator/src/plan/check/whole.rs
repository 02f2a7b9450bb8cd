//! What can only be judged of the plan as a whole: are there as many nodes as its steps want, does all of it fit into the run's
//! time, will what is expected be measured.

use std::collections::BTreeSet;
use std::time::Duration;

use p2ps::id::Ring;

use super::{At, Checker};
use crate::plan::document::ValueIndex;
use crate::plan::population::{Population, Shortage};
use crate::plan::targets::{Links, Side};
use crate::plan::units::{DURATION_MAX, duration_text};
use crate::plan::{
    Claim, DURATION_TAIL, Expectation, GROUPS_AT_ONCE_MAX, LINK_FAULTS_MAX, NODES_MAX, OPERATIONS_MAX, Step,
    StepEvent,
};

impl Checker<'_> {
    /// Walks through the run's membership, as far as it depends on numbers only.
    pub(super) fn population(
        &mut self,
        nodes: u32,
        join_rate: Option<f64>,
        steps: &[At<Step>],
        ring: Ring,
        nodes_at: ValueIndex,
    ) {
        let mut population = Population::new(nodes, join_rate);
        for At(step, index) in steps {
            let when = duration_text(step.at);
            let Err(shortage) = population.step(step.at, &step.event) else { continue };
            let (message, hint) = match shortage {
                Shortage::Up { wanted, up } => (
                    format!("`{}` at {when} is {wanted} nodes, but only {up} will be up then", step.text),
                    "take fewer, or a share such as 10%".to_owned(),
                ),
                Shortage::NobodyLeft { up } => (
                    format!(
                        "`{}` at {when} takes all {up} nodes: no network is left that one could join",
                        step.text
                    ),
                    "at least one node must stay up".to_owned(),
                ),
                Shortage::Down { wanted, down } => (
                    match down {
                        0 => format!("`{}` at {when} finds no node that is down", step.text),
                        _ => format!(
                            "`{}` at {when} is {wanted} nodes, but only {down} will be down",
                            step.text
                        ),
                    },
                    "only nodes that were killed or have left before can restart; new ones join".to_owned(),
                ),
            };
            self.problem(Some(*index), message, Some(hint));
            return;
        }
        let (spawned, room) = (population.nodes(), ring.max_size().min(u128::from(NODES_MAX)));
        if u128::from(spawned) > room {
            let message =
                format!("with those of the timeline {spawned} nodes join, but there is room for {room}");
            self.problem(
                Some(nodes_at),
                message,
                Some("take fewer nodes, or raise network.max_size".to_owned()),
            );
        }
        if population.actions() > OPERATIONS_MAX {
            let message =
                format!("the timeline makes {} joins, ends and faults of nodes", population.actions());
            self.problem(
                Some(nodes_at),
                message,
                Some(format!("a run has at most {OPERATIONS_MAX} actions")),
            );
        }
    }

    /// `busy_until`: when all have joined, and all workloads that end have ended.
    pub(super) fn default_duration(
        &mut self,
        busy_until: Duration,
        steps: &[At<Step>],
        expect: &[At<Expectation>],
        nodes_at: ValueIndex,
    ) -> Option<Duration> {
        let ends = steps.iter().map(|At(step, _)| step.until().unwrap_or(step.at));
        let last = ends.fold(busy_until, Duration::max);
        let converged = expect.iter().filter_map(|At(expectation, _)| converged_end(expectation)).max();
        let duration = (last + DURATION_TAIL).max(converged.unwrap_or_default());
        if duration > DURATION_MAX {
            let message = format!("the run would last {}", duration_text(duration));
            let hint = format!(
                "join faster, or set earlier times: a run lasts at most {}",
                duration_text(DURATION_MAX)
            );
            return self.refuse(nodes_at, message, hint);
        }
        Some(duration)
    }

    pub(super) fn within_duration(
        &mut self,
        At(duration, index): At<Duration>,
        join_end: Duration,
        steps: &[At<Step>],
        expect: &[At<Expectation>],
    ) {
        let end = duration_text(duration);
        if duration.is_zero() {
            self.problem(
                Some(index),
                "a run of no length".to_owned(),
                Some("leave `duration` out, or give one".to_owned()),
            );
            return;
        }
        if join_end > duration {
            let message =
                format!("the run ends at {end}, before all nodes have joined at {}", duration_text(join_end));
            self.problem(Some(index), message, Some("raise `duration` or the join rate".to_owned()));
        }
        for At(step, index) in steps.iter().filter(|At(step, _)| step.at > duration) {
            let message =
                format!("`{}` comes at {}, after the run's end at {end}", step.text, duration_text(step.at));
            self.problem(Some(*index), message, Some("raise `duration`, or leave it out".to_owned()));
        }
        for At(step, index) in steps.iter().filter(|At(step, _)| step.at <= duration) {
            if let Some(until) = step.until().filter(|until| *until > duration) {
                let until = duration_text(until);
                let message = format!("`{}` lasts until {until}, after the run's end at {end}", step.text);
                self.problem(Some(*index), message, Some("raise `duration`, or leave it out".to_owned()));
            }
        }
        for At(expectation, index) in expect {
            if let Some(until) = converged_end(expectation).filter(|until| *until > duration) {
                let message = format!(
                    "`{}` lasts until {}, after the run's end at {end}",
                    expectation.text,
                    duration_text(until)
                );
                self.problem(Some(*index), message, Some("raise `duration`, or leave it out".to_owned()));
            }
        }
    }

    /// What holds for a while: churn does not overlap churn, partitions do not make too many groups at once, and the ring is expected to be
    /// right only where it can be.
    pub(super) fn windows(&mut self, join_end: Duration, steps: &[At<Step>], expect: &[At<Expectation>]) {
        let mut churn_end: Option<Duration> = None;
        for At(step, index) in steps.iter().filter(|At(step, _)| is_churn(step)) {
            if let Some(end) = churn_end.filter(|end| *end > step.at) {
                let message =
                    format!("`{}` begins while there is churn, until {}", step.text, duration_text(end));
                self.problem(Some(*index), message, Some("let one end before the next begins".to_owned()));
            }
            churn_end = churn_end.max(step.until());
            if step.at < join_end {
                let joined = duration_text(join_end);
                let message = format!("`{}` begins before all nodes have joined at {joined}", step.text);
                let hint = "it takes the nodes that are up then: let them join first".to_owned();
                self.problem(Some(*index), message, Some(hint));
            }
        }
        let is_link_fault =
            |step: &Step| matches!(step.event, StepEvent::Partition { .. } | StepEvent::Degrade { .. });
        let mut link_faults = steps.iter().filter(|At(step, _)| is_link_fault(step));
        if let Some(At(_, index)) = link_faults.nth(LINK_FAULTS_MAX) {
            let message = format!(
                "a plan has at most {LINK_FAULTS_MAX} partitions, degradations and healings of links"
            );
            self.problem(Some(*index), message, None);
            return;
        }
        self.groups_at_once(steps);
        let windows = windows(steps, |step| is_churn(step) || is_partition(step));
        for At(expectation, index) in expect {
            let Claim::Converged { of, .. } = expectation.claim else { continue };
            let during = windows
                .iter()
                .find(|window| steps[window.step].0.at <= of && window.until.is_none_or(|until| until > of));
            if let Some(Window { step, until }) = during {
                let text = &steps[*step].0.text;
                let message = format!("at {} the ring is kept from it by `{text}`", duration_text(of));
                let hint = match until {
                    Some(until) => format!("say it of {}, when that is over", duration_text(*until)),
                    None => "it lasts until the run's end: let it end before".to_owned(),
                };
                self.problem(Some(*index), message, Some(hint));
            }
        }
    }

    /// At no moment do partitions and pairs part the nodes into too many groups.
    fn groups_at_once(&mut self, steps: &[At<Step>]) {
        let windows = windows(steps, parts);
        for (number, At(step, index)) in steps.iter().enumerate().filter(|(_, At(step, _))| parts(step)) {
            let at_once = windows
                .iter()
                .filter(|window| window.step <= number && window.until.is_none_or(|until| until > step.at));
            let groups = groups_made(at_once.map(|window| &steps[window.step].0));
            if groups > GROUPS_AT_ONCE_MAX {
                let message = format!(
                    "with the faults of links under way then there would be {groups} groups of nodes"
                );
                self.problem(Some(*index), message, Some(format!("at most {GROUPS_AT_ONCE_MAX} at once")));
                return;
            }
        }
    }
}

fn converged_end(expectation: &Expectation) -> Option<Duration> {
    match expectation.claim {
        Claim::Converged { within, of } => Some(of + within),
        Claim::Figure { .. } => None,
    }
}

/// The sides that a step tells apart.
fn sides(step: &Step) -> Vec<&Side> {
    match &step.event {
        StepEvent::Partition { sides, .. } => sides.iter().collect(),
        StepEvent::Degrade { links: Links::Between { first, second, .. }, .. } => vec![first, second],
        _ => Vec::new(),
    }
}

/// Whether a step tells groups of nodes apart.
fn parts(step: &Step) -> bool {
    !sides(step).is_empty()
}

/// How many groups these steps make of the nodes at most. Named groups have no node in common, so that all of them, and the
/// nodes in none, are counted once.
fn groups_made<'a>(steps: impl Iterator<Item = &'a Step>) -> usize {
    let (mut made, mut named) = (1usize, BTreeSet::new());
    for step in steps {
        let sides = sides(step);
        let shares = sides.iter().filter(|side| matches!(side, Side::Share(_))).count();
        let hosts = sides.iter().filter(|side| matches!(side, Side::Hosts(_))).count();
        named.extend(sides.into_iter().filter(|side| matches!(side, Side::Group(_))).map(Side::to_string));
        made = made.saturating_mul(shares.max(1)).saturating_mul(hosts + 1);
    }
    made.saturating_mul(named.len() + 1)
}

fn is_partition(step: &Step) -> bool {
    matches!(step.event, StepEvent::Partition { .. })
}

fn is_churn(step: &Step) -> bool {
    matches!(step.event, StepEvent::Churn { .. } | StepEvent::Trace(_))
}

/// A time in which something goes on, such as what keeps the ring from being right.
struct Window {
    /// What makes it.
    step: usize,
    /// When it is over, by itself or by a step that heals; `None`: at the run's end.
    until: Option<Duration>,
}

/// Those of the steps that `is_one`, in the order of their steps, which is that of their beginnings.
fn windows(steps: &[At<Step>], is_one: impl Fn(&Step) -> bool) -> Vec<Window> {
    let heals = steps.iter().filter(|At(step, _)| matches!(step.event, StepEvent::Heal));
    let heals: Vec<Duration> = heals.map(|At(step, _)| step.at).collect();
    let windows = steps.iter().enumerate().filter(|(_, At(step, _))| is_one(step));
    windows
        .map(|(number, At(step, _))| {
            let healed = heals.get(heals.partition_point(|at| *at <= step.at)).copied();
            let healed = healed.filter(|_| parts(step));
            Window { step: number, until: [step.until(), healed].into_iter().flatten().min() }
        })
        .collect()
}
