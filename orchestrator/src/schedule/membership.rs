//! Who starts, ends and is stopped, and when.

use std::collections::{BTreeMap, BTreeSet};

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex};

use super::cast::Cast;
use super::chance::{Chance, Stream};
use super::churn::Churns;
use super::{Phase, ScheduleError, micros};
use crate::plan::targets::Target;
use crate::plan::{NODES_MAX, Plan, Step, StepEvent, duration_text, join_time};

/// The most nodes that a joining node is told of.
pub const VIA_MAX: usize = 3;

/// A node that has been up for so long, in microseconds, is taken for a member that one can join by.
const MEMBER_AFTER_US: u64 = 1_000_000;

/// All starts, ends and pauses of nodes.
pub(crate) struct Membership {
    /// In time order; numbers are given later.
    pub(crate) actions: Vec<Action>,
    /// In time order.
    pub(crate) phases: Vec<Phase>,
    /// How many nodes ever run.
    pub(crate) nodes: u32,
    /// The steps that make or heal faults of links, by their numbers, with the nodes that are up when one is made, in rising order.
    pub(crate) up_at: BTreeMap<usize, Vec<NodeIndex>>,
}

/// Draws the membership of `plan`.
pub(super) fn draw<'a>(plan: &'a Plan, cast: &mut Cast<'a>) -> Result<Membership, ScheduleError> {
    let up_at = BTreeMap::new();
    let mut drawing = Drawing {
        plan,
        cast,
        end_us: micros(plan.duration),
        vias: Chance::new(plan.seed, Stream::Vias),
        targets: Chance::new(plan.seed, Stream::Targets),
        churns: Churns::default(),
        first_started: 0,
        nodes: plan.nodes,
        started: 0,
        up: Vec::new(),
        down: Vec::new(),
        down_places: Vec::new(),
        places: Vec::new(),
        paused: BTreeSet::new(),
        membership: Membership { actions: Vec::new(), phases: vec![first_phase(plan)], nodes: 0, up_at },
    };
    for (number, step) in plan.timeline.iter().enumerate() {
        drawing.go_on_until(micros(step.at));
        drawing.step(number, step)?;
    }
    drawing.go_on_until(drawing.end_us);
    drawing.end();
    drawing.membership.phases.sort_by_key(|phase| phase.at_us);
    drawing.membership.nodes = drawing.nodes;
    Ok(drawing.membership)
}

fn first_phase(plan: &Plan) -> Phase {
    let text = if plan.simulation.prepared {
        format!("{} are a converged ring", count_text(plan.nodes as usize))
    } else {
        let how = plan.join_rate.map_or("at once".to_owned(), |rate| format!("at {rate}/s"));
        format!("join {} {how}", count_text(plan.nodes as usize))
    };
    Phase { at_us: 0, text, nodes: (0..plan.nodes).collect() }
}

pub(super) struct Drawing<'a, 'c> {
    pub(super) plan: &'a Plan,
    cast: &'c mut Cast<'a>,
    end_us: u64,
    vias: Chance,
    targets: Chance,
    pub(super) churns: Churns,
    /// How many of the plan's first nodes have been started.
    first_started: u32,
    /// How many nodes have a number.
    nodes: u32,
    /// How many starts there were.
    started: u64,
    /// The nodes that are up, each with its start and that start's number, in the order of their starts.
    up: Vec<(u64, u64, NodeIndex)>,
    /// Those that are down, in the order of their ends.
    down: Vec<NodeIndex>,
    /// Each node's place in `down`.
    down_places: Vec<Option<usize>>,
    /// The number of each node's present start.
    places: Vec<Option<u64>>,
    /// Those that are stopped.
    paused: BTreeSet<NodeIndex>,
    membership: Membership,
}

impl Drawing<'_, '_> {
    /// All nodes that are up, in the order of their starts.
    pub(super) fn nodes_up(&self) -> Vec<NodeIndex> {
        self.up.iter().map(|(.., node)| *node).collect()
    }

    pub(super) fn up_count(&self) -> usize {
        self.up.len()
    }

    /// The node that the random number `drawn` falls on, of those that are up.
    pub(super) fn some_up(&self, drawn: u64) -> Option<NodeIndex> {
        self.up.get(place(drawn, self.up.len())).map(|(.., node)| *node)
    }

    /// The node that it falls on, of those that are down.
    pub(super) fn some_down(&self, drawn: u64) -> Option<NodeIndex> {
        self.down.get(place(drawn, self.down.len())).copied()
    }

    pub(super) fn is_paused(&self, node: NodeIndex) -> bool {
        self.paused.contains(&node)
    }

    /// A new node, if there is room for one on the ring and in the run.
    pub(super) fn new_node(&mut self) -> Option<NodeIndex> {
        let room = self.plan.net.ring().max_size().min(u128::from(NODES_MAX));
        let node = Some(self.nodes).filter(|node| u128::from(*node) < room)?;
        self.nodes += 1;
        Some(node)
    }

    /// Starts the first nodes, and does all else that is due until then.
    fn go_on_until(&mut self, at_us: u64) {
        loop {
            let is_first = self.first_started < self.plan.nodes;
            let first_us = is_first.then(|| micros(join_time(self.plan.join_rate, self.first_started)));
            let first_us = first_us.filter(|first_us| *first_us <= at_us);
            let due_us = self.churns.next_us().filter(|due_us| *due_us <= at_us);
            match (first_us, due_us) {
                (Some(first_us), due_us) if due_us.is_none_or(|due_us| first_us <= due_us) => {
                    self.start(first_us, self.first_started);
                    self.first_started += 1;
                }
                (_, Some(_)) => self.do_next_due(),
                _ => return,
            }
        }
    }

    /// At the run's end all that are stopped go on.
    fn end(&mut self) {
        for node in std::mem::take(&mut self.paused) {
            self.act(self.end_us, node, ActionKind::Resume);
        }
    }

    fn step(&mut self, number: usize, step: &Step) -> Result<(), ScheduleError> {
        let at_us = micros(step.at);
        let stream = number as u64;
        let drawn = match &step.event {
            StepEvent::Join(amount) => {
                let count = amount.of(self.up.len() as u32);
                let drawn: Vec<NodeIndex> = (0..count).map_while(|_| self.new_node()).collect();
                self.start_all(at_us, drawn)
            }
            StepEvent::Leave(target) => self.stop_some(step, stream, target, &ActionKind::Leave)?,
            StepEvent::Kill(target) => self.stop_some(step, stream, target, &ActionKind::Kill)?,
            StepEvent::Restart(Target::Some(amount)) => {
                let count = amount.of(self.down.len() as u32) as usize;
                let drawn = self.targets.sample(self.down.clone(), count);
                self.start_all(at_us, drawn)
            }
            StepEvent::Restart(target) => {
                let down = self.down.clone();
                let drawn = self.choose(stream, target, down)?;
                self.start_all(at_us, drawn)
            }
            StepEvent::Pause { target, until } => self.pause(at_us, stream, target, until.map(micros))?,
            StepEvent::Heal => {
                self.membership.up_at.insert(number, Vec::new());
                return Ok(());
            }
            StepEvent::Partition { .. } | StepEvent::Degrade { .. } => {
                let mut up = self.nodes_up();
                up.sort_unstable();
                self.membership.up_at.insert(number, up);
                return Ok(());
            }
            StepEvent::Churn { churn, until } => {
                let until_us = micros(*until);
                self.phase(until_us, "churn ends".to_owned(), Vec::new());
                self.begin_churn(step, stream, churn, until_us)
            }
            StepEvent::Trace(trace) => self.begin_trace(step, stream, trace),
        };
        let text = match (&step.event, &step.text) {
            (StepEvent::Churn { .. } | StepEvent::Trace(_) | StepEvent::Pause { .. }, text) => {
                format!("{text} ({})", count_text(drawn.len()))
            }
            (_, text) if !text.ends_with(&format!(" {}", drawn.len())) => {
                format!("{text} ({})", count_text(drawn.len()))
            }
            (_, text) => format!("{text} node{}", if drawn.len() == 1 { "" } else { "s" }),
        };
        self.phase(at_us, text, drawn);
        Ok(())
    }

    /// Those of `among` that `target` means.
    fn choose(
        &mut self,
        stream: u64,
        target: &Target,
        among: Vec<NodeIndex>,
    ) -> Result<Vec<NodeIndex>, ScheduleError> {
        let mut chance = Chance::new(self.plan.seed, Stream::Step(stream));
        let up = self.nodes_up();
        self.cast.choose(&mut chance, target, among, &up)
    }

    fn phase(&mut self, at_us: u64, text: String, nodes: Vec<NodeIndex>) {
        self.membership.phases.push(Phase { at_us, text, nodes });
    }

    fn start_all(&mut self, at_us: u64, mut drawn: Vec<NodeIndex>) -> Vec<NodeIndex> {
        drawn.sort_unstable();
        for node in &drawn {
            self.churns.release(*node);
        }
        self.down.retain(|node| drawn.binary_search(node).is_err());
        drawn.iter().for_each(|node| self.set_down_place(*node, None));
        for (place, node) in std::mem::take(&mut self.down).into_iter().enumerate() {
            self.set_down_place(node, Some(place));
            self.down.push(node);
        }
        drawn.iter().for_each(|node| self.start_up(at_us, *node));
        drawn
    }

    /// Ends nodes: as many as the plan says or, after churn, as there are; one stays in any case.
    fn stop_some(
        &mut self,
        step: &Step,
        stream: u64,
        target: &Target,
        kind: &ActionKind,
    ) -> Result<Vec<NodeIndex>, ScheduleError> {
        let mut among = self.nodes_up();
        if *kind == ActionKind::Leave {
            among.retain(|node| !self.paused.contains(node));
        }
        let drawn = match target {
            Target::Some(amount) => {
                let up = self.up.len() as u32;
                let mut drawn = self.targets.sample(among, amount.of(up).min(up.saturating_sub(1)) as usize);
                drawn.sort_unstable();
                drawn
            }
            target => self.choose(stream, target, among)?,
        };
        if drawn.len() == self.up.len() {
            let (at, step) = (duration_text(step.at), step.text.clone());
            return Err(ScheduleError::NobodyLeft { step, at, up: drawn.len() });
        }
        for node in &drawn {
            self.churns.release(*node);
        }
        self.stop(micros(step.at), &drawn, kind);
        Ok(drawn)
    }

    fn pause(
        &mut self,
        at_us: u64,
        stream: u64,
        target: &Target,
        until_us: Option<u64>,
    ) -> Result<Vec<NodeIndex>, ScheduleError> {
        let mut among = self.nodes_up();
        among.retain(|node| !self.paused.contains(node));
        let drawn = self.choose(stream, target, among)?;
        for node in &drawn {
            self.act(at_us, *node, ActionKind::Pause);
            self.paused.insert(*node);
            if let (Some(until_us), Some(start)) = (until_us, self.places[*node as usize]) {
                self.churns.resume(until_us, *node, start);
            }
        }
        if let Some(until_us) = until_us {
            self.phase(until_us, "resume".to_owned(), drawn.clone());
        }
        Ok(drawn)
    }

    /// A stopped node goes on, if its life is still the one that began with its start number `start`.
    pub(super) fn resume(&mut self, at_us: u64, node: NodeIndex, start: u64) {
        if self.places[node as usize] == Some(start) && self.paused.remove(&node) {
            self.act(at_us, node, ActionKind::Resume);
        }
    }

    /// Starts a node that is down or new.
    pub(super) fn start(&mut self, at_us: u64, node: NodeIndex) {
        if let Some(place) = self.down_places.get_mut(node as usize).and_then(Option::take) {
            self.down.swap_remove(place);
            if let Some(moved) = self.down.get(place) {
                self.down_places[*moved as usize] = Some(place);
            }
        }
        self.start_up(at_us, node);
    }

    fn start_up(&mut self, at_us: u64, node: NodeIndex) {
        let via = self.draw_vias(at_us);
        self.act(at_us, node, ActionKind::Spawn { via });
        let size = self.places.len().max(node as usize + 1);
        self.places.resize(size, None);
        self.places[node as usize] = Some(self.started);
        self.up.push((at_us, self.started, node));
        self.started += 1;
    }

    /// Ends nodes that are up.
    pub(super) fn stop(&mut self, at_us: u64, nodes: &[NodeIndex], kind: &ActionKind) {
        for node in nodes {
            self.act(at_us, *node, kind.clone());
            self.paused.remove(node);
        }
        match nodes {
            // Starts are numbered in their order.
            [node] => {
                let start = self.places[*node as usize];
                if let Ok(place) = self.up.binary_search_by_key(&start, |(_, start, _)| Some(*start)) {
                    self.up.remove(place);
                }
            }
            _ => self.up.retain(|(.., node)| nodes.binary_search(node).is_err()),
        }
        nodes.iter().for_each(|node| self.places[*node as usize] = None);
        for node in nodes {
            self.set_down_place(*node, Some(self.down.len()));
            self.down.push(*node);
        }
    }

    fn set_down_place(&mut self, node: NodeIndex, place: Option<usize>) {
        let size = self.down_places.len().max(node as usize + 1);
        self.down_places.resize(size, None);
        self.down_places[node as usize] = place;
    }

    /// Whom a node that starts now joins by: two members at random, so that the work is shared, and then the oldest, the
    /// surest. As long as there are hardly any members, the oldest nodes, the oldest first.
    fn draw_vias(&mut self, at_us: u64) -> Vec<NodeIndex> {
        let members = self.up.partition_point(|(since_us, ..)| since_us + MEMBER_AFTER_US <= at_us);
        if members < VIA_MAX {
            return self.up.iter().take(VIA_MAX).map(|(.., node)| *node).collect();
        }
        let drawn = self.vias.few_below(members - 1, VIA_MAX - 1);
        drawn.into_iter().map(|at| at + 1).chain([0]).map(|at| self.up[at].2).collect()
    }

    fn act(&mut self, at_us: u64, node: NodeIndex, kind: ActionKind) {
        self.membership.actions.push(Action { index: 0, at_us, node, kind });
    }
}

/// The place in `0..length` that the random number `drawn` falls on.
fn place(drawn: u64, length: usize) -> usize {
    ((u128::from(drawn) * length as u128) >> 64) as usize
}

pub(super) fn count_text(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}
