//! What an agent does with what it hears: from the orchestrator, from its nodes, and from the clock.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::AgentError;
use super::body::{Exit, Heard, Life, NodeEvent};
use super::clock::{monotonic_us, unix_us};
use super::faults::{FaultError, Faults};
use super::host;
use super::outlet::Outlet;
use super::preparation::prepare;
use super::probe::Probe;
use super::protocol::{
    ADDRESSES_MAX, AGENT_PROTOCOL_VERSION, Action, ActionKind, LIST_MAX, NodeIndex, Notice, Request,
    ShapeRule,
};
use super::roster::{Ended, Roster, StartError};
use super::sampling::Sampling;
use super::schedule::Slice;
use super::sentinel::Sentinel;
use crate::access_point::AccessPoint;
use crate::control::{Order, Report};

/// How long an agent waits for its first line, in microseconds. It is on its way when the agent starts; so this is no more than a
/// lease for what was cut off in between.
const HELLO_WAIT_US: u64 = 15_000_000;

/// The shortest and the longest lease, in milliseconds.
const LEASE_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// The shortest and the longest interval between samples, in milliseconds.
const SAMPLE_EVERY_MS: std::ops::RangeInclusive<u64> = 50..=3_600_000;

/// How long a node may take to leave, in microseconds; then it is killed.
const LEAVE_WAIT_US: u64 = 15_000_000;

/// How long the system may take to end killed processes, in microseconds.
const KILL_WAIT_US: u64 = 5_000_000;

/// How long the last words may take to be read.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

/// How many actions are carried out before the agent listens again.
const ACTIONS_PER_TURN: usize = 32;

/// The agent's whole state.
pub(super) struct Supervisor {
    outlet: Outlet,
    events: mpsc::Sender<NodeEvent>,
    probe: Probe,
    phase: Phase,
    lease_us: u64,
    sentinel: Option<Sentinel>,
    /// When the orchestrator was last heard.
    heard_us: u64,
    sample_every_us: u64,
    roster: Option<Roster>,
    addresses: HashMap<NodeIndex, AccessPoint>,
    slice: Slice,
    faults: Faults,
    /// The run's name.
    run: String,
    sampling: Option<Sampling>,
    /// Nodes that are to start again once their last process has ended.
    deferred: HashMap<NodeIndex, Action>,
}

/// How far the run is.
#[derive(Debug)]
enum Phase {
    /// Waiting for `Hello`.
    Fresh,
    /// Waiting for `Prepare`.
    Greeted,
    /// Taking in the schedule.
    Prepared,
    /// Carrying it out.
    Running { start_us: u64 },
    /// Everything has been killed and is about to be reaped.
    Ending { until_us: u64, failure: Option<AgentError> },
    /// Nothing runs any more.
    Ended(Option<AgentError>),
}

impl Supervisor {
    pub(super) fn new(
        outlet: Outlet,
        events: mpsc::Sender<NodeEvent>,
        probe: Probe,
        now_us: u64,
    ) -> Supervisor {
        Supervisor {
            outlet,
            events,
            probe,
            phase: Phase::Fresh,
            lease_us: HELLO_WAIT_US,
            sentinel: None,
            heard_us: now_us,
            sample_every_us: 1_000_000,
            roster: None,
            addresses: HashMap::new(),
            slice: Slice::default(),
            faults: Faults::default(),
            run: String::new(),
            sampling: None,
            deferred: HashMap::new(),
        }
    }

    /// When [`advance`](Self::advance) is wanted; `None`: the agent has ended.
    pub(super) fn deadline_us(&self) -> Option<u64> {
        let roster = self.roster.as_ref().and_then(Roster::deadline_us);
        let phase = match &self.phase {
            Phase::Ended(_) => return None,
            Phase::Ending { until_us, .. } => *until_us,
            Phase::Fresh | Phase::Greeted | Phase::Prepared => self.heard_us + self.lease_us,
            Phase::Running { start_us } => {
                let action = self.slice.next_at_us().map(|at_us| start_us.saturating_add(at_us));
                let sample = self.sampling.as_ref().map(Sampling::next_us);
                let lease = Some(self.heard_us + self.lease_us);
                [action, sample, lease].into_iter().flatten().min().unwrap_or(u64::MAX)
            }
        };
        Some(roster.map_or(phase, |roster| roster.min(phase)))
    }

    /// Hands what was said to the writer; a reader that is gone means that the orchestrator is.
    pub(super) fn flush(&mut self) {
        if !self.outlet.flush() {
            self.abandon("nobody reads its output: the orchestrator is gone".into());
        }
    }

    /// The agent's end, once [`deadline_us`](Self::deadline_us) says that it has come.
    pub(super) fn end(self) -> Result<(), AgentError> {
        self.outlet.close(LAST_WORDS_WAIT);
        match self.phase {
            Phase::Ended(Some(failure)) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Something that is no request came in.
    pub(super) fn malformed(&mut self, error: String) {
        self.renew_lease();
        self.problem(error);
    }

    fn renew_lease(&mut self) {
        self.heard_us = monotonic_us();
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.renew();
        }
    }

    /// Carries a request out.
    pub(super) fn request(&mut self, request: Request) {
        self.renew_lease();
        match (request, &self.phase) {
            (Request::Stop, Phase::Ending { .. } | Phase::Ended(_)) => {}
            (Request::Stop, _) => self.kill_everything(None),
            (Request::Hello { version, lease_ms, run }, Phase::Fresh) => {
                self.run = run;
                self.hello(version, lease_ms);
            }
            (request, Phase::Fresh) => {
                self.refuse(format!("the first line must be hello, not {}", name(&request)));
            }
            (Request::Clock { token }, _) => {
                self.outlet.say(&Notice::Clock { token, monotonic_us: monotonic_us(), unix_us: unix_us() });
            }
            (Request::Renew, _) => {}
            (Request::Listen { listen, ports, token }, Phase::Greeted) => {
                match self.probe.listen(listen, ports, token) {
                    Ok(address) => self.outlet.say(&Notice::Listening { address }),
                    Err(error) => self.problem(format!("nodes cannot listen on {listen}: {error}")),
                }
            }
            (Request::Dial { calls }, Phase::Greeted) => self.probe.dial(calls),
            (Request::Prepare(preparation), Phase::Greeted) => {
                let (least, most) = SAMPLE_EVERY_MS.into_inner();
                self.sample_every_us = preparation.sample_every_ms.clamp(least, most) * 1000;
                match prepare(preparation, self.events.clone()) {
                    Ok(roster) => self.prepared(roster),
                    Err(error) => self.problem(error),
                }
            }
            (Request::Schedule { actions }, Phase::Prepared) => self.schedule(actions),
            (Request::Addresses { nodes }, Phase::Prepared) => self.addresses(nodes),
            (Request::Groups { first, groups }, Phase::Prepared) => {
                if let Err(error) = self.faults.extend(first, groups) {
                    self.problem(format!("groups were refused: {error}"));
                }
            }
            (Request::Kernel { nodes }, Phase::Prepared) => {
                if let Err(error) = self.faults.use_kernel(&self.run, nodes) {
                    self.problem(cannot_make_faults(&error));
                }
            }
            (Request::Start { at_us }, Phase::Prepared) => {
                self.phase = Phase::Running { start_us: at_us };
                self.sampling = Some(Sampling::new(self.sample_every_us, at_us + self.sample_every_us));
            }
            (Request::Start { at_us }, Phase::Running { .. }) => {
                self.phase = Phase::Running { start_us: at_us }
            }
            (Request::Halt, Phase::Prepared | Phase::Running { .. }) => {
                self.slice.clear();
                self.deferred.clear();
                self.heal();
            }
            (request, phase) => {
                let error = format!("{} is out of order: the agent is {}", name(&request), phase.describe());
                self.problem(error);
            }
        }
    }

    fn hello(&mut self, version: u32, lease_ms: u64) {
        if version != AGENT_PROTOCOL_VERSION {
            let error = format!(
                "the orchestrator speaks version {version} of the agents' protocol, this agent (p2ps {}) version \
                 {AGENT_PROTOCOL_VERSION}: use binaries of one release",
                env!("CARGO_PKG_VERSION")
            );
            return self.refuse(error);
        }
        let lease_ms = lease_ms.clamp(*LEASE_MS.start(), *LEASE_MS.end());
        self.lease_us = lease_ms * 1000;
        match Sentinel::start(Duration::from_millis(lease_ms)) {
            Ok(sentinel) => self.sentinel = Some(sentinel),
            Err(error) => return self.refuse(format!("it cannot start its sentinel: {error}")),
        }
        self.phase = Phase::Greeted;
        self.outlet.say(&Notice::Ready { version: AGENT_PROTOCOL_VERSION, host: host::facts() });
    }

    fn prepared(&mut self, roster: Roster) {
        let nodes: Vec<(NodeIndex, AccessPoint)> = roster.access_points().collect();
        self.addresses.extend(nodes.iter().copied());
        self.roster = Some(roster);
        self.phase = Phase::Prepared;
        self.outlet.say(&Notice::Prepared { nodes });
    }

    fn schedule(&mut self, actions: Vec<Action>) {
        let roster = self.roster.as_ref();
        let is_here = |node| roster.is_some_and(|roster| roster.contains(node));
        let own = || roster.map_or_else(Vec::new, Roster::addresses);
        let expected = self.faults.expect(own, &actions);
        let taken = self.slice.extend(actions, is_here);
        if let Err(error) = expected {
            self.problem(cannot_make_faults(&error));
        }
        if let Err(error) = taken {
            self.problem(format!("a part of the schedule was refused: {error}"));
        }
    }

    fn addresses(&mut self, nodes: Vec<(NodeIndex, AccessPoint)>) {
        if nodes.len() > LIST_MAX || self.addresses.len() + nodes.len() > ADDRESSES_MAX {
            return self.problem(format!(
                "addresses were refused: at most {LIST_MAX} a line and {ADDRESSES_MAX} in all are allowed"
            ));
        }
        self.addresses.extend(nodes);
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, now_us: u64) {
        if let Phase::Running { start_us } = self.phase {
            for _ in 0..ACTIONS_PER_TURN {
                // Before the start nothing is due, not even what is due at once then.
                let Some(run_us) = monotonic_us().checked_sub(start_us) else { break };
                let Some(action) = self.slice.due(run_us) else { break };
                self.carry_out(action, start_us);
            }
            self.sample(now_us);
        }
        if !matches!(self.phase, Phase::Ending { .. } | Phase::Ended(_))
            && now_us >= self.heard_us + self.lease_us
        {
            let reason = format!("no word from the orchestrator for {} ms", self.lease_us / 1000);
            self.abandon(reason);
        }
        if let Some(roster) = &mut self.roster {
            let (overdue, faded) = (roster.kill_overdue(now_us), roster.faded(now_us));
            for node in overdue {
                let seconds = LEAVE_WAIT_US / 1_000_000;
                self.problem(format!("node {node} has not left within {seconds} s; it was killed"));
            }
            self.exited(faded);
        }
        self.finish(now_us);
    }

    fn sample(&mut self, now_us: u64) {
        let (Some(sampling), Some(roster)) = (&mut self.sampling, &self.roster) else { return };
        if let Some(notice) = sampling.tick(now_us, || roster.ask_samples()) {
            self.outlet.say(&notice);
        }
    }

    fn carry_out(&mut self, action: Action, start_us: u64) {
        let Some(roster) = &mut self.roster else { return };
        let planned_us = start_us.saturating_add(action.at_us);
        let not_running = || Some("the node is not running".to_owned());
        let error = match &action.kind {
            ActionKind::Spawn { .. } => return self.spawn(action, start_us),
            ActionKind::Lookup { operation, key } => {
                let (operation, key) = (*operation, *key);
                let order = Order::Lookup { operation, key, intended_us: planned_us };
                return self.order(action.node, operation, planned_us, &order);
            }
            ActionKind::Errand { operation, what } => {
                let order = Order::Errand { operation: *operation, what: what.clone() };
                return self.order(action.node, *operation, planned_us, &order);
            }
            ActionKind::Kill => {
                self.deferred.remove(&action.node);
                if roster.kill(action.node) { None } else { not_running() }
            }
            ActionKind::Leave => {
                if roster.leave(action.node, monotonic_us() + LEAVE_WAIT_US) {
                    None
                } else {
                    not_running()
                }
            }
            ActionKind::Pause => {
                if roster.pause(action.node, true) {
                    self.not_sampled(action.node);
                    None
                } else {
                    not_running()
                }
            }
            ActionKind::Resume => {
                if roster.pause(action.node, false) {
                    None
                } else {
                    not_running()
                }
            }
            ActionKind::Shape { rules } => self.shape(action.node, rules.clone()),
        };
        self.achieved(action.index, planned_us, error);
    }

    /// Gives a node an operation.
    fn order(&mut self, node: NodeIndex, operation: u64, planned_us: u64, order: &Order) {
        if !self.roster.as_ref().is_some_and(|roster| roster.order(node, order)) {
            self.outlet.say(&Notice::NotIssued { operation, planned_us });
        }
    }

    /// Shapes a node's links: now where it runs, and whenever it starts while these rules stand.
    fn shape(&mut self, node: NodeIndex, rules: Vec<ShapeRule>) -> Option<String> {
        let roster = self.roster.as_ref()?;
        match self.faults.shape(|| roster.addresses(), node, rules) {
            Ok(None) => None,
            Ok(Some(order)) => {
                let told = roster.say(node, order);
                (!told).then(|| "the node does not read its orders".to_owned())
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Undoes all faults.
    fn heal(&mut self) {
        for node in self.faults.heal() {
            if let Some(error) = self.shape(node, Vec::new()) {
                self.problem(format!("the links of node {node} are not healed: {error}"));
            }
        }
        if let Some(roster) = &mut self.roster {
            roster.resume_all();
        }
    }

    fn spawn(&mut self, action: Action, start_us: u64) {
        let (Some(roster), ActionKind::Spawn { via }) = (&mut self.roster, &action.kind) else { return };
        let join: Vec<AccessPoint> =
            via.iter().filter_map(|node| self.addresses.get(node)).copied().collect();
        let error = if join.is_empty() && !via.is_empty() {
            Some(format!("no address is known of any node that it should join by ({via:?})"))
        } else {
            let shapes = self.faults.standing(action.node);
            match roster.start(action.node, join, shapes) {
                Ok(()) => None,
                Err(StartError::Ending) => {
                    self.deferred.insert(action.node, action);
                    return;
                }
                Err(error) => Some(error.to_string()),
            }
        };
        self.achieved(action.index, start_us.saturating_add(action.at_us), error);
    }

    fn achieved(&mut self, index: u64, planned_us: u64, error: Option<String>) {
        self.outlet.say(&Notice::Achieved { index, planned_us, achieved_us: monotonic_us(), error });
    }

    /// Something came from a node.
    pub(super) fn node_event(&mut self, event: NodeEvent) {
        let NodeEvent { life, what } = event;
        match what {
            Heard::Words(words) => {
                for report in words {
                    self.word(life, report);
                }
            }
            Heard::Rubbish(error) => {
                self.problem(format!(
                    "node {} does not speak as a node should: {error}; it is killed",
                    life.node
                ));
                if let Some(roster) = &mut self.roster {
                    roster.condemn(life);
                }
            }
            Heard::Silence { stderr } => {
                let ended = self.roster.as_mut().and_then(|roster| roster.silent(life, stderr));
                self.exited(ended);
            }
            Heard::Ended(exit) => {
                if let Some(node) = self.roster.as_ref().and_then(|roster| roster.task_ended(life)) {
                    self.ended(node, exit);
                }
            }
        }
    }

    fn word(&mut self, life: Life, report: Report) {
        match report {
            Report::Sample(sample) => {
                let Some(sampling) = &mut self.sampling else { return };
                if let Some(notice) = sampling.answer(monotonic_us(), life.node, *sample) {
                    self.outlet.say(&notice);
                }
                return;
            }
            Report::Listening { .. } => {
                if let Some(roster) = &mut self.roster {
                    roster.listening(life);
                }
            }
            _ => {}
        }
        self.outlet.say(&Notice::Node { node: life.node, report });
    }

    /// Reaps the processes that have ended.
    pub(super) fn reap(&mut self) {
        let ended = self.roster.as_mut().map_or_else(Vec::new, Roster::reap);
        for (node, exit) in ended {
            self.ended(node, exit);
        }
    }

    /// A node has ended: starts it again, if that waited for it.
    fn ended(&mut self, node: NodeIndex, exit: Exit) {
        let ended = self.roster.as_mut().and_then(|roster| roster.ended(monotonic_us(), node, exit));
        self.exited(ended);
        self.not_sampled(node);
        if let Phase::Running { start_us } = self.phase
            && let Some(action) = self.deferred.remove(&node)
        {
            self.spawn(action, start_us);
        }
    }

    /// No sample is awaited of a node any more.
    fn not_sampled(&mut self, node: NodeIndex) {
        if let Some(sampling) = &mut self.sampling
            && let Some(notice) = sampling.gone(monotonic_us(), node)
        {
            self.outlet.say(&notice);
        }
    }

    fn exited(&mut self, ended: impl IntoIterator<Item = Ended>) {
        for Ended { node, at_us, status, expected, stderr } in ended {
            self.outlet.say(&Notice::Exited { node, at_us, status, expected, stderr });
        }
    }

    /// Something came of calls to other hosts.
    pub(super) fn probed(&mut self, notice: &Notice) {
        self.outlet.say(notice);
    }

    fn problem(&mut self, error: String) {
        self.outlet.say(&Notice::Problem { error });
    }

    fn refuse(&mut self, error: String) {
        self.problem(error.clone());
        self.kill_everything(Some(AgentError::Refused(error)));
    }

    /// The dead man's switch.
    pub(super) fn abandon(&mut self, reason: String) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Ended(_)) {
            return;
        }
        self.problem(format!("the agent gives up and kills its nodes: {reason}"));
        self.kill_everything(Some(AgentError::Abandoned(reason)));
    }

    fn kill_everything(&mut self, failure: Option<AgentError>) {
        self.slice.clear();
        self.deferred.clear();
        self.sampling = None;
        // Its faults go with it.
        self.faults.free_kernel();
        if let Some(roster) = &mut self.roster {
            roster.kill_all();
        }
        self.phase = Phase::Ending { until_us: monotonic_us() + KILL_WAIT_US, failure };
        self.finish(monotonic_us());
    }

    /// Ends the agent, once nothing is left of its nodes.
    fn finish(&mut self, now_us: u64) {
        let Phase::Ending { until_us, failure } = &mut self.phase else { return };
        let overdue = now_us >= *until_us;
        if !overdue && !self.roster.as_ref().is_none_or(Roster::is_quiet) {
            return;
        }
        let failure = failure.take();
        self.phase = Phase::Ended(failure);
        if overdue {
            self.problem("not all nodes that were killed have ended".into());
        }
        self.outlet.say(&Notice::Stopped);
    }
}

impl Phase {
    fn describe(&self) -> &'static str {
        match self {
            Phase::Fresh => "waiting for hello",
            Phase::Greeted => "waiting for prepare",
            Phase::Prepared => "prepared and waiting for the schedule, addresses or start",
            Phase::Running { .. } => "running",
            Phase::Ending { .. } | Phase::Ended(_) => "ending",
        }
    }
}

fn cannot_make_faults(error: &FaultError) -> String {
    format!(
        "the kernel cannot make faults: {error}; or leave `with: kernel` out of the plan: the nodes need nothing"
    )
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Hello { .. } => "hello",
        Request::Listen { .. } => "listen",
        Request::Dial { .. } => "dial",
        Request::Prepare(_) => "prepare",
        Request::Schedule { .. } => "schedule",
        Request::Addresses { .. } => "addresses",
        Request::Groups { .. } => "groups",
        Request::Kernel { .. } => "kernel",
        Request::Clock { .. } => "clock",
        Request::Start { .. } => "start",
        Request::Renew => "renew",
        Request::Halt => "halt",
        Request::Stop => "stop",
    }
}
