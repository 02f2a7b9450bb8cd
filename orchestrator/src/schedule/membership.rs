//! Who starts and who ends, and when.

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex};

use super::chance::{Chance, Stream};
use super::{Phase, micros};
use crate::plan::population::Population;
use crate::plan::{Plan, Step, StepEvent, join_time};

/// The most nodes that a joining node is told of.
pub const VIA_MAX: usize = 3;

/// A node that has been up for so long, in microseconds, is taken for a member that one can join by.
const MEMBER_AFTER_US: u64 = 1_000_000;

/// All starts and ends of nodes.
pub(crate) struct Membership {
    /// In time order; numbers are given later.
    pub(crate) actions: Vec<Action>,
    pub(crate) phases: Vec<Phase>,
    /// How many nodes ever run.
    pub(crate) nodes: u32,
}

/// Draws the membership of `plan`.
pub(crate) fn draw(plan: &Plan) -> Membership {
    let mut drawing = Drawing {
        plan,
        vias: Chance::new(plan.seed, Stream::Vias),
        targets: Chance::new(plan.seed, Stream::Targets),
        population: Population::new(plan.nodes, plan.join_rate),
        first_started: 0,
        nodes: plan.nodes,
        up: Vec::new(),
        down: Vec::new(),
        membership: Membership { actions: Vec::new(), phases: vec![first_phase(plan)], nodes: 0 },
    };
    for step in &plan.timeline {
        drawing.start_first_nodes_until(micros(step.at));
        drawing.step(step);
    }
    drawing.start_first_nodes_until(u64::MAX);
    drawing.membership.nodes = drawing.nodes;
    drawing.membership
}

fn first_phase(plan: &Plan) -> Phase {
    let how = plan.join_rate.map_or("at once".to_owned(), |rate| format!("at {rate}/s"));
    Phase {
        at_us: 0,
        text: format!("join {} {how}", count_text(plan.nodes as usize)),
        nodes: (0..plan.nodes).collect(),
    }
}

struct Drawing<'a> {
    plan: &'a Plan,
    vias: Chance,
    targets: Chance,
    population: Population,
    /// How many of the plan's first nodes have been started.
    first_started: u32,
    /// How many nodes have a number.
    nodes: u32,
    /// The nodes that are up, each with its start, in the order of their starts.
    up: Vec<(u64, NodeIndex)>,
    /// Those that are down, in the order of their ends.
    down: Vec<NodeIndex>,
    membership: Membership,
}

impl Drawing<'_> {
    fn start_first_nodes_until(&mut self, at_us: u64) {
        while self.first_started < self.plan.nodes {
            let next_us = micros(join_time(self.plan.join_rate, self.first_started));
            if next_us > at_us {
                return;
            }
            self.start(next_us, self.first_started);
            self.first_started += 1;
        }
    }

    fn step(&mut self, step: &Step) {
        let at_us = micros(step.at);
        let count = self
            .population
            .step(step.at, step.event)
            .expect("the plan has been checked: there are as many nodes as its steps want");
        let mut drawn = match step.event {
            StepEvent::Join(_) => (self.nodes..self.nodes + count).collect(),
            StepEvent::Leave(_) | StepEvent::Kill(_) => {
                let up: Vec<NodeIndex> = self.up.iter().map(|(_, node)| *node).collect();
                self.targets.sample(up, count as usize)
            }
            StepEvent::Restart(_) => self.targets.sample(self.down.clone(), count as usize),
        };
        drawn.sort_unstable();
        match step.event {
            StepEvent::Join(_) | StepEvent::Restart(_) => {
                self.nodes = self.nodes.max(drawn.last().map_or(0, |last| last + 1));
                self.down.retain(|node| drawn.binary_search(node).is_err());
                drawn.iter().for_each(|node| self.start(at_us, *node));
            }
            StepEvent::Leave(_) => self.stop(at_us, &drawn, ActionKind::Leave),
            StepEvent::Kill(_) => self.stop(at_us, &drawn, ActionKind::Kill),
        }
        let text = match &step.text {
            text if text.ends_with('%') => format!("{text} ({})", count_text(drawn.len())),
            text => format!("{text} node{}", if drawn.len() == 1 { "" } else { "s" }),
        };
        self.membership.phases.push(Phase { at_us, text, nodes: drawn });
    }

    fn start(&mut self, at_us: u64, node: NodeIndex) {
        let via = self.draw_vias(at_us);
        self.act(at_us, node, ActionKind::Spawn { via });
        self.up.push((at_us, node));
    }

    fn stop(&mut self, at_us: u64, nodes: &[NodeIndex], kind: ActionKind) {
        nodes.iter().for_each(|node| self.act(at_us, *node, kind.clone()));
        self.up.retain(|(_, node)| nodes.binary_search(node).is_err());
        self.down.extend(nodes);
    }

    /// Whom a node that starts now joins by: two members at random, so that the work is shared, and then the oldest, the
    /// surest. As long as there are hardly any members, the oldest nodes, the oldest first.
    fn draw_vias(&mut self, at_us: u64) -> Vec<NodeIndex> {
        let members = self.up.partition_point(|(since_us, _)| since_us + MEMBER_AFTER_US <= at_us);
        if members < VIA_MAX {
            return self.up.iter().take(VIA_MAX).map(|(_, node)| *node).collect();
        }
        let drawn = self.vias.few_below(members - 1, VIA_MAX - 1);
        drawn.into_iter().map(|at| at + 1).chain([0]).map(|at| self.up[at].1).collect()
    }

    fn act(&mut self, at_us: u64, node: NodeIndex, kind: ActionKind) {
        self.membership.actions.push(Action { index: 0, at_us, node, kind });
    }
}

fn count_text(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}
