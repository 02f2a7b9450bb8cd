//! The virtual host's agent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use p2ps::agent::protocol::{
    AGENT_PROTOCOL_VERSION, Action, ActionKind, HostFacts, NodeIndex, NodeSlot, Notice, Preparation, Request,
    ShapeRule,
};
use p2ps::com::shaping::LinkShape;
use p2ps::config::NetConfig;
use p2ps::control::{OperationReport, Outcome, Report};
use p2ps::id::Id;
use p2ps::metrics::Snapshot;
use p2ps::sim::{Happening, NodeNumber, Simulator, Totals, Trace, What};

use crate::plan::simulation::Simulation;
use crate::schedule::Schedule;

/// How long a node may take to leave, in microseconds; then it is killed, as by a real agent.
const LEAVE_WAIT_US: u64 = 15_000_000;

/// After the schedule's end, when all nodes are sampled once more, in microseconds.
const LAST_SAMPLE_US: u64 = 1_000_000;

/// A host's agent whose nodes are simulated.
#[derive(Debug)]
pub struct VirtualAgent {
    simulation: Simulation,
    seed: u64,
    simulator: Option<Simulator>,
    now_us: u64,
    sample_every_us: u64,
    schedule: Option<Arc<Schedule>>,
    start_us: Option<u64>,
    /// The place of the next action in the schedule.
    next_action: usize,
    next_sample_us: u64,
    /// Nodes that were told to leave, and until when.
    leaving: HashMap<NodeIndex, u64>,
    /// What stands on each node's links.
    shapes: HashMap<NodeIndex, Vec<(Vec<Id>, LinkShape)>>,
    said: VecDeque<Notice>,
    stopped: bool,
}

impl VirtualAgent {
    /// An agent whose nodes live as `simulation` has it; `seed` is all that their network draws from.
    pub fn new(simulation: Simulation, seed: u64) -> VirtualAgent {
        VirtualAgent {
            simulation,
            seed,
            simulator: None,
            now_us: 0,
            sample_every_us: 1_000_000,
            schedule: None,
            start_us: None,
            next_action: 0,
            next_sample_us: u64::MAX,
            leaving: HashMap::new(),
            shapes: HashMap::new(),
            said: VecDeque::new(),
            stopped: false,
        }
    }

    /// The time since the simulation's start, in microseconds: the clock of this host, and of the run.
    pub fn now_us(&self) -> u64 {
        self.simulator.as_ref().map_or(self.now_us, Simulator::now_us)
    }

    /// The hash of all that has happened, and what was counted.
    pub fn trace(&self) -> Option<(Trace, Totals)> {
        self.simulator.as_ref().map(|simulator| (simulator.trace(), simulator.totals()))
    }

    /// Whether it has stopped, and said all.
    pub fn has_ended(&self) -> bool {
        self.stopped && self.said.is_empty()
    }

    /// What it says next.
    pub fn say(&mut self) -> Option<Notice> {
        self.said.pop_front()
    }

    /// The orchestrator says something.
    pub fn hear(&mut self, request: Request) {
        match request {
            Request::Hello { .. } => {
                let host = HostFacts {
                    name: "sim".to_owned(),
                    node_version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..HostFacts::default()
                };
                self.said.push_back(Notice::Ready { version: AGENT_PROTOCOL_VERSION, host });
            }
            Request::Prepare(Preparation { net, sample_every_ms, nodes, .. }) => {
                self.sample_every_us = sample_every_ms * 1000;
                self.prepare(net, &nodes);
            }
            Request::Clock { token } => {
                let monotonic_us = self.now_us();
                self.said.push_back(Notice::Clock { token, monotonic_us, unix_us: monotonic_us });
            }
            Request::Start { at_us } => {
                self.start_us = Some(at_us);
                self.next_sample_us = self.sample_after(at_us);
            }
            Request::Halt => self.halt(),
            Request::Stop => self.stop(),
            // The schedule comes whole, with its nodes' addresses and groups. No host's ports or kernel have a part in it.
            Request::Listen { .. }
            | Request::Dial { .. }
            | Request::Kernel { .. }
            | Request::Schedule { .. }
            | Request::Addresses { .. }
            | Request::Groups { .. }
            | Request::Renew => {}
        }
    }

    /// The schedule that it is to carry out.
    pub fn take_schedule(&mut self, schedule: Arc<Schedule>) {
        self.schedule = Some(schedule);
    }

    /// Lets time pass until `until_us`, or until it has something to say.
    pub fn advance(&mut self, until_us: u64) {
        self.do_what_is_due();
        while self.said.is_empty() && self.now_us() < until_us {
            let end_us = until_us.min(self.next_due_us().unwrap_or(u64::MAX));
            let Some(simulator) = &mut self.simulator else {
                self.now_us = until_us;
                return;
            };
            simulator.run_until_news(end_us.max(simulator.now_us()));
            self.pass_on();
            self.do_what_is_due();
        }
    }

    /// When something is to be done that the simulator does not know of.
    fn next_due_us(&self) -> Option<u64> {
        let start_us = self.start_us.filter(|_| !self.stopped)?;
        let action = self.schedule.as_ref().and_then(|schedule| schedule.actions.get(self.next_action));
        let action_us = action.map(|action| start_us + action.at_us);
        let overdue_us = self.leaving.values().min().copied();
        action_us.into_iter().chain(overdue_us).chain([self.next_sample_us]).min()
    }

    fn do_what_is_due(&mut self) {
        let (Some(start_us), Some(schedule)) = (self.start_us, self.schedule.clone()) else { return };
        let now_us = self.now_us();
        if self.stopped {
            return;
        }
        if self.next_action == 0 && self.simulation.prepared && start_us <= now_us {
            self.start_prepared(&schedule, start_us);
        }
        while let Some(action) = schedule.actions.get(self.next_action) {
            if start_us + action.at_us > now_us {
                break;
            }
            self.next_action += 1;
            self.carry_out(action, &schedule, start_us + action.at_us);
        }
        self.kill_overdue(now_us);
        if self.next_sample_us <= now_us {
            self.sample(now_us);
            self.next_sample_us = self.sample_after(now_us);
        }
    }

    /// When nodes are sampled next: at the latest when the schedule is over.
    fn sample_after(&self, now_us: u64) -> u64 {
        let (next_us, start_us) = (now_us + self.sample_every_us, self.start_us.unwrap_or(now_us));
        let last_us = self.schedule.as_ref().map(|schedule| start_us + schedule.end_us + LAST_SAMPLE_US);
        last_us.filter(|last_us| now_us < *last_us).map_or(next_us, |last_us| next_us.min(last_us))
    }

    fn prepare(&mut self, net: NetConfig, nodes: &[NodeSlot]) {
        let mut simulator = Simulator::new(net, self.simulation.model(), self.seed, true);
        for slot in nodes {
            // On one host nodes are numbered from 0 on, as the simulator numbers them.
            if simulator.add(slot.id, slot.seed).is_none_or(|number| number.0 != slot.node) {
                let error = format!("node {} does not fit into the simulation", slot.node);
                return self.said.push_back(Notice::Problem { error });
            }
        }
        let nodes = nodes.iter().map(|slot| (slot.node, simulator.access_point(NodeNumber(slot.node))));
        self.said.push_back(Notice::Prepared { nodes: nodes.collect() });
        simulator.run_until(self.now_us);
        self.simulator = Some(simulator);
    }

    /// The nodes that start first become a converged ring.
    fn start_prepared(&mut self, schedule: &Schedule, start_us: u64) {
        let Some(simulator) = &mut self.simulator else { return };
        let is_first =
            |action: &&Action| action.at_us == 0 && matches!(action.kind, ActionKind::Spawn { .. });
        let first: Vec<&Action> = schedule.actions.iter().take_while(is_first).collect();
        let nodes: Vec<NodeNumber> = first.iter().map(|action| NodeNumber(action.node)).collect();
        simulator.start_converged(&nodes, self.simulation.maintenance);
        self.next_action = first.len();
        for action in first {
            self.achieved(action.index, start_us, None);
            self.listens(action.node);
        }
        self.pass_on();
    }

    fn carry_out(&mut self, action: &Action, schedule: &Schedule, planned_us: u64) {
        let Some(simulator) = &mut self.simulator else { return };
        let node = NodeNumber(action.node);
        let done = match &action.kind {
            ActionKind::Lookup { operation, key } => {
                if !simulator.lookup(node, *operation, *key, planned_us) {
                    self.said.push_back(Notice::NotIssued { operation: *operation, planned_us });
                }
                return self.pass_on();
            }
            ActionKind::Spawn { via } => return self.spawn(action, via, planned_us),
            ActionKind::Kill => return self.kill(action, planned_us),
            ActionKind::Leave => {
                let told = simulator.leave(node);
                if told {
                    self.leaving.insert(action.node, planned_us + LEAVE_WAIT_US);
                }
                told
            }
            ActionKind::Pause => simulator.pause(node, true),
            ActionKind::Resume => simulator.pause(node, false),
            ActionKind::Shape { rules } => {
                let rules = by_ids(rules, schedule);
                simulator.shape(node, &rules);
                self.shapes.insert(action.node, rules);
                true
            }
        };
        self.achieved(action.index, planned_us, (!done).then_some("the node is not running"));
        self.pass_on();
    }

    fn spawn(&mut self, action: &Action, via: &[NodeIndex], planned_us: u64) {
        let node = NodeNumber(action.node);
        if self.simulator.as_ref().is_some_and(|simulator| simulator.is_running(node)) {
            return self.achieved(action.index, planned_us, Some("the node is running already"));
        }
        self.achieved(action.index, planned_us, None);
        self.listens(action.node);
        let via: Vec<NodeNumber> = via.iter().map(|via| NodeNumber(*via)).collect();
        let rules = self.shapes.get(&action.node).map_or(&[][..], Vec::as_slice);
        if let Some(simulator) = &mut self.simulator {
            simulator.start(node, &via, rules);
        }
        self.pass_on();
    }

    fn kill(&mut self, action: &Action, planned_us: u64) {
        let node = NodeNumber(action.node);
        let runs = self.simulator.as_mut().is_some_and(|simulator| simulator.kill(node));
        self.achieved(action.index, planned_us, (!runs).then_some("the node is not running"));
        if runs {
            self.exited(action.node, "signal 9", true);
        }
    }

    fn kill_overdue(&mut self, now_us: u64) {
        let mut overdue: Vec<NodeIndex> =
            self.leaving.iter().filter(|(_, until_us)| **until_us <= now_us).map(|(node, _)| *node).collect();
        overdue.sort_unstable();
        for node in overdue {
            self.leaving.remove(&node);
            if self.simulator.as_mut().is_some_and(|simulator| simulator.kill(NodeNumber(node))) {
                let seconds = LEAVE_WAIT_US / 1_000_000;
                let error = format!("node {node} has not left within {seconds} s; it was killed");
                self.said.push_back(Notice::Problem { error });
                self.exited(node, "signal 9", false);
            }
        }
    }

    fn sample(&mut self, at_us: u64) {
        let Some(simulator) = &self.simulator else { return };
        let sample = |node| {
            let number = NodeNumber(node);
            let answers = !simulator.is_paused(number);
            simulator.snapshot(number).filter(|_| answers).map(|snapshot| (node, snapshot))
        };
        let nodes: Vec<(NodeIndex, Snapshot)> = (0..simulator.len() as u32).filter_map(sample).collect();
        self.said.push_back(Notice::Samples { at_us, nodes });
    }

    /// Forgets the actions that are left, and heals what can be.
    fn halt(&mut self) {
        self.next_action = self.schedule.as_ref().map_or(0, |schedule| schedule.actions.len());
        let Some(simulator) = &mut self.simulator else { return };
        for node in std::mem::take(&mut self.shapes).into_keys().collect::<std::collections::BTreeSet<_>>() {
            simulator.shape(NodeNumber(node), &[]);
        }
        for node in (0..simulator.len() as u32).map(NodeNumber) {
            simulator.pause(node, false);
        }
        self.pass_on();
    }

    fn stop(&mut self) {
        let nodes = self.simulator.as_ref().map_or(0, Simulator::len) as u32;
        for node in 0..nodes {
            if self.simulator.as_mut().is_some_and(|simulator| simulator.kill(NodeNumber(node))) {
                self.exited(node, "signal 9", true);
            }
        }
        self.stopped = true;
        self.said.push_back(Notice::Stopped);
    }

    /// Tells what has happened at the nodes.
    fn pass_on(&mut self) {
        let Some(simulator) = &mut self.simulator else { return };
        for Happening { at_us, node, what } in simulator.happenings() {
            let node = node.0;
            let report = match what {
                What::Joined => Report::Joined { at_us },
                What::Ring { predecessor, successor } => Report::Ring { at_us, predecessor, successor },
                What::Completed { operation, issued_us, result } => {
                    let outcome = match result {
                        Ok(found) => Outcome::Found { responsible: found.responsible.id, hops: found.hops },
                        Err(reason) => Outcome::Failed(reason),
                    };
                    Report::Operation(OperationReport { operation, issued_us, ended_us: at_us, outcome })
                }
                What::Left { handed_over } => {
                    self.leaving.remove(&node);
                    self.said.push_back(Notice::Node { node, report: Report::Left { at_us, handed_over } });
                    self.said.push_back(exited(node, at_us, "exit 0", true));
                    continue;
                }
                What::Rejected(error) => {
                    let error = error.to_string();
                    self.said.push_back(Notice::Node { node, report: Report::Failed { error } });
                    self.said.push_back(exited(node, at_us, "exit 3", false));
                    continue;
                }
                // A managed node has no application that messages would be for.
                What::Delivered(_)
                | What::Undelivered { .. }
                | What::Sent { .. }
                | What::Answered { .. }
                | What::ItemsLeftBehind { .. } => continue,
            };
            self.said.push_back(Notice::Node { node, report });
        }
    }

    fn achieved(&mut self, index: u64, planned_us: u64, error: Option<&str>) {
        let (achieved_us, error) = (self.now_us(), error.map(str::to_owned));
        self.said.push_back(Notice::Achieved { index, planned_us, achieved_us, error });
    }

    fn listens(&mut self, node: NodeIndex) {
        let Some(simulator) = &self.simulator else { return };
        let access_point = simulator.access_point(NodeNumber(node));
        let report = Report::Listening { access_point, metrics: None };
        self.said.push_back(Notice::Node { node, report });
    }

    fn exited(&mut self, node: NodeIndex, status: &str, expected: bool) {
        self.leaving.remove(&node);
        let at_us = self.now_us();
        self.said.push_back(exited(node, at_us, status, expected));
    }
}

fn exited(node: NodeIndex, at_us: u64, status: &str, expected: bool) -> Notice {
    Notice::Exited { node, at_us, status: status.to_owned(), expected, stderr: String::new() }
}

/// Rules for groups as rules for the ids of their nodes.
fn by_ids(rules: &[ShapeRule], schedule: &Schedule) -> Vec<(Vec<Id>, LinkShape)> {
    let id = |node: &NodeIndex| schedule.nodes.get(*node as usize).map(|node| node.slot.id);
    let ids = |rule: &ShapeRule| {
        let group = schedule.groups.get(rule.to as usize);
        group.into_iter().flatten().filter_map(id).collect()
    };
    rules.iter().map(|rule| (ids(rule), rule.shape)).collect()
}
