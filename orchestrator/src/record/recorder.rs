//! Takes in what the agents say while a run goes on.

use std::collections::HashMap;
use std::net::SocketAddr;

use p2ps::agent::protocol::{NodeIndex, Notice};
use p2ps::control::Report;
use p2ps::metrics::Snapshot;

use crate::plan::Plan;
use crate::schedule::{HostIndex, Phase, Schedule};

use super::RecordError;
use super::actions::{Actions, Deed, DoneAction};
use super::deliveries::{Deliveries, DeliveryReport, UndeliveredReport};
use super::directory::RunDirectory;
use super::histograms::HistogramLog;
use super::lives::{Life, LifeEnd, Lives};
use super::operations::{LostReason, Operation, Operations};
use super::progress::{OperationMeter, Progress};
use super::run_record::{HostRecord, LatestSample, Loss, MetricsTarget, Pause, RingReport, RunRecord};
use super::samples::Samples;
use super::timeline::{Event, Timeline};

/// The most changes of neighbours that are kept for the judge. Beyond that a ring that never comes to rest would fill the
/// memory; convergence then counts as not measured.
pub const RING_REPORTS_MAX: usize = 4_000_000;

/// The most complaints that are written to the timeline; the others are only counted.
const PROBLEM_LINES_MAX: u64 = 10_000;

/// The most complaints that are kept for the summary.
const PROBLEMS_KEPT_MAX: usize = 20;

/// The most of a text of an agent or node that is written down, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Records a run while it goes on. See the [module](super).
#[derive(Debug)]
pub struct Recorder {
    directory: RunDirectory,
    timeline: Timeline,
    samples: Samples,
    histograms: HistogramLog,
    lives: Lives,
    operations: Operations,
    deliveries: Deliveries,
    meter: OperationMeter,
    pauses: Vec<Pause>,
    /// The pause of each node that is stopped, by its place in `pauses`.
    paused: HashMap<NodeIndex, usize>,
    ring: Vec<RingReport>,
    ring_complete: bool,
    hosts: Vec<HostRecord>,
    nodes: Vec<Placement>,
    actions: Actions,
    problems: u64,
    problems_kept: Vec<String>,
    phases: Vec<Phase>,
    now_us: u64,
}

#[derive(Debug)]
struct Placement {
    host: HostIndex,
    metrics: Option<SocketAddr>,
}

impl Recorder {
    /// Begins the files of a run.
    ///
    /// # Errors
    /// Where one cannot be made.
    pub fn create(
        directory: &RunDirectory,
        plan: &Plan,
        schedule: &Schedule,
    ) -> Result<Recorder, RecordError> {
        let nodes = schedule.nodes.len();
        let hosts = schedule.nodes.iter().map(|node| node.host + 1).max().unwrap_or(0);
        let operations = Operations::new(schedule);
        let actions = Actions::new(schedule);
        let mut placements: Vec<Placement> = Vec::with_capacity(nodes);
        placements.extend(schedule.nodes.iter().map(|node| Placement { host: node.host, metrics: None }));
        Ok(Recorder {
            directory: directory.clone(),
            timeline: Timeline::create(directory.timeline())?,
            samples: Samples::create(directory, nodes)?,
            histograms: HistogramLog::create(directory.histograms(), plan)?,
            lives: Lives::new(nodes, nodes + actions.spawns()),
            meter: OperationMeter::new(operations.intended_us(), operations.are_mixed()),
            operations,
            deliveries: Deliveries::default(),
            pauses: Vec::new(),
            paused: HashMap::new(),
            ring: Vec::new(),
            ring_complete: true,
            hosts: (0..hosts)
                .map(|host| HostRecord { name: format!("host-{host}"), ..HostRecord::default() })
                .collect(),
            nodes: placements,
            actions,
            problems: 0,
            problems_kept: Vec::new(),
            phases: schedule.phases.clone(),
            now_us: 0,
        })
    }

    /// Takes in that the clock of `host` may be off by so much: what happened on it is uncertain by that. The largest error of the
    /// run counts; without a word it is zero, as on one host.
    pub fn clock_error(&mut self, host: HostIndex, error_us: u64) {
        if let Some(host) = self.hosts.get_mut(host as usize) {
            host.clock_error_us = host.clock_error_us.max(error_us);
        }
    }

    /// Takes in a `notice` of `host`'s agent. `start_us` is the run's start on that host's monotonic clock (`None` before the
    /// start: then nothing that has a time is expected, and if it comes it counts as of the start).
    ///
    /// # Errors
    /// Where it cannot be written. What makes no sense in it is no error of the record: it counts as a problem of the run.
    pub fn notice(
        &mut self,
        host: HostIndex,
        start_us: Option<u64>,
        notice: &Notice,
    ) -> Result<(), RecordError> {
        let run_us = |host_us: u64| start_us.map_or(0, |start_us| host_us.saturating_sub(start_us));
        match notice {
            Notice::Ready { host: facts, .. } => self.host_ready(host, &facts.name),
            Notice::Prepared { .. }
            | Notice::Clock { .. }
            | Notice::Listening { .. }
            | Notice::Dialled { .. }
            | Notice::Stopped => Ok(()),
            Notice::Achieved { index, achieved_us, error, .. } => {
                self.achieved(host, *index, run_us(*achieved_us), error.as_deref())
            }
            Notice::NotIssued { operation, planned_us } => {
                self.heard(run_us(*planned_us));
                match self.operations.not_issued(*operation) {
                    Ok(operation) => {
                        self.meter.ended(operation);
                        Ok(())
                    }
                    Err(error) => self.problem(host, &error),
                }
            }
            Notice::Node { node, report } => {
                if !self.is_on(*node, host) {
                    return self.problem(host, &format!("node {node} is not one of this host's"));
                }
                self.report(host, *node, report, run_us)
            }
            Notice::Samples { at_us, nodes } => self.sampled(host, run_us(*at_us), nodes),
            Notice::Exited { node, at_us, status, expected, stderr } => {
                if !self.is_on(*node, host) {
                    return self.problem(host, &format!("node {node} is not one of this host's"));
                }
                self.exited(host, *node, run_us(*at_us), status, *expected, stderr)
            }
            Notice::Problem { error } => self.problem(host, error),
        }
    }

    /// The agent of `host` is gone: its nodes count as crashed at that moment.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn host_lost(&mut self, host: HostIndex, loss: Loss, reason: &str) -> Result<(), RecordError> {
        let Loss { at_us, noticed_us, gone_us } = loss;
        self.heard(noticed_us);
        let Some(record) = self.hosts.get_mut(host as usize) else { return Ok(()) };
        if record.lost.is_some() {
            return Ok(());
        }
        let reason = cut(reason);
        record.lost = Some((at_us, reason.to_owned()));
        for (node, placement) in (0..).zip(&self.nodes).filter(|(_, placement)| placement.host == host) {
            let _ = placement;
            if let Some(life) = self.lives.latest_mut(node).filter(|life| life.ended.is_none()) {
                life.ended = Some((at_us, LifeEnd::HostLost { gone_us }));
            }
        }
        self.count_problem(format!("{}: the host was lost: {reason}", self.hosts[host as usize].name));
        let name = &self.hosts[host as usize].name;
        self.timeline.write(&Event::HostLost { host: name, at_us, noticed_us, gone_us, reason })?;
        self.timeline.flush()
    }

    /// How the run is getting on.
    pub fn progress(&self) -> Progress {
        let phase = self.phases.iter().rev().find(|phase| phase.at_us <= self.now_us);
        let count = |is: fn(&Life) -> bool| self.lives.latest_of_all().filter(|life| is(life)).count() as u32;
        let mut progress = Progress {
            now_us: self.now_us,
            phase: phase.map_or_else(String::new, |phase| phase.text.clone()),
            hosts_ready: self.hosts.iter().filter(|host| host.ready).count() as u32,
            hosts_lost: self.hosts.iter().filter(|host| host.lost.is_some()).count() as u32,
            nodes_alive: count(Life::is_alive),
            nodes_joining: count(Life::is_joining),
            problems: self.problems,
            ..Progress::default()
        };
        self.meter.fill(&mut progress);
        progress
    }

    /// The latest counters of each node that has not ended, by node.
    pub fn latest(&self) -> impl Iterator<Item = LatestSample<'_>> {
        self.lives.latest_of_all().filter(|life| life.over_us().is_none()).filter_map(|life| {
            let snapshot = self.samples.latest(life.node)?;
            let host = self.nodes.get(life.node as usize)?.host;
            Some(LatestSample { node: life.node, host: host_name(&self.hosts, host), snapshot })
        })
    }

    /// Where the nodes that have not ended serve their own metrics, by node.
    pub fn targets(&self) -> impl Iterator<Item = MetricsTarget> {
        self.lives.latest_of_all().filter(|life| life.over_us().is_none()).filter_map(|life| {
            let placement = self.nodes.get(life.node as usize)?;
            let address = placement.metrics?;
            let host = host_name(&self.hosts, placement.host).to_owned();
            Some(MetricsTarget { node: life.node, host, address })
        })
    }

    /// Ends the files. `ended_us` is when the run ended (since its start): when its last operations had their time to end and the
    /// agents were about to be told to stop.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn finish(mut self, ended_us: u64) -> Result<RunRecord, RecordError> {
        self.timeline.flush()?;
        self.histograms.finish()?;
        let totals = self.samples.finish()?;
        let lives = self.lives.into_inner();
        let mut lives_of: Vec<Vec<Life>> = vec![Vec::new(); self.nodes.len()];
        lives.iter().for_each(|life| lives_of[life.node as usize].push(*life));
        let operations = self.operations.finish(|operation| {
            let node = operation.node as usize;
            let host = self.nodes.get(node).and_then(|placed| self.hosts.get(placed.host as usize));
            lost_reason(operation, lives_of.get(node).map_or(&[], Vec::as_slice), host, ended_us)
        });
        Ok(RunRecord {
            ended_us,
            hosts: self.hosts,
            node_hosts: self.nodes.iter().map(|placement| placement.host).collect(),
            lives,
            pauses: self.pauses,
            operations,
            deliveries: self.deliveries,
            ring: self.ring,
            ring_complete: self.ring_complete,
            action_errors_us: self.actions.errors_us,
            failed_actions: self.actions.failed,
            totals,
            problems: self.problems,
            first_problems: self.problems_kept,
        })
    }

    fn host_ready(&mut self, host: HostIndex, name: &str) -> Result<(), RecordError> {
        let name = if name.is_empty() { format!("host-{host}") } else { cut(name).to_owned() };
        let taken = (0..).zip(&self.hosts).any(|(other, record)| other != host && record.name == name);
        let Some(record) = self.hosts.get_mut(host as usize) else { return Ok(()) };
        record.name = if taken { format!("{name}-{host}") } else { name };
        record.ready = true;
        self.timeline.write(&Event::HostReady { host: &record.name })
    }

    fn achieved(
        &mut self,
        host: HostIndex,
        index: u64,
        achieved_us: u64,
        error: Option<&str>,
    ) -> Result<(), RecordError> {
        self.heard(achieved_us);
        let nodes = &self.nodes;
        let is_here = |node: NodeIndex| nodes.get(node as usize).is_some_and(|placed| placed.host == host);
        let done = self.actions.achieved(index, achieved_us, error.is_some(), is_here);
        let Some(DoneAction { node, planned_us, kind }) = done else {
            return self.problem(host, &format!("action {index} is not this host's, or was done before"));
        };
        let error = error.map(cut);
        match (kind, error) {
            (_, Some(error)) => {
                self.count_problem(format!("{} of node {node} failed: {error}", kind.as_str()));
            }
            (Deed::Spawn, None) => {
                // It may have been killed while it was stopped.
                self.resumed(node, achieved_us);
                self.lives.spawned(node, achieved_us);
                self.samples.started(node);
            }
            (Deed::Leave | Deed::Kill, None) => {
                // The process's end may be heard of first.
                let was_there =
                    |life: &&mut Life| life.ended.is_none_or(|(ended_us, _)| ended_us >= achieved_us);
                if let Some(life) = self.lives.latest_mut(node).filter(was_there) {
                    let moment = if kind == Deed::Kill { &mut life.killed_us } else { &mut life.leave_us };
                    *moment = moment.or(Some(achieved_us));
                }
            }
            (Deed::Pause, None) => {
                self.paused.insert(node, self.pauses.len());
                self.pauses.push(Pause { node, from_us: achieved_us, until_us: None });
            }
            (Deed::Resume, None) => self.resumed(node, achieved_us),
            (Deed::Shape, None) => {}
        }
        let host = host_name(&self.hosts, host);
        let action = kind.as_str();
        self.timeline.write(&Event::Action { index, host, node, action, planned_us, achieved_us, error })
    }

    fn resumed(&mut self, node: NodeIndex, at_us: u64) {
        if let Some(pause) = self.paused.remove(&node).and_then(|place| self.pauses.get_mut(place)) {
            pause.until_us = Some(at_us);
        }
    }

    fn report(
        &mut self,
        host: HostIndex,
        node: NodeIndex,
        report: &Report,
        run_us: impl Fn(u64) -> u64,
    ) -> Result<(), RecordError> {
        let host_name = host_name(&self.hosts, host);
        match report {
            Report::Operation(_) | Report::Delivered { .. } | Report::Undelivered { .. } => {
                self.answered(host, node, report, run_us)
            }
            Report::Ring { at_us, predecessor, successor } => {
                let (at_us, predecessor, successor) = (run_us(*at_us), *predecessor, *successor);
                self.lives.speaking(node, at_us);
                self.ring_complete &= self.ring.len() < RING_REPORTS_MAX;
                if self.ring_complete {
                    self.ring.push(RingReport { at_us, node, predecessor, successor });
                    self.timeline.write(&Event::Ring {
                        host: host_name,
                        node,
                        at_us,
                        predecessor,
                        successor,
                    })?;
                }
                self.heard(at_us);
                Ok(())
            }
            Report::Joined { at_us } => {
                let at_us = run_us(*at_us);
                if let Some(life) = self.lives.speaking(node, at_us) {
                    life.joined_us = life.joined_us.or(Some(at_us));
                }
                self.timeline.write(&Event::Joined { host: host_name, node, at_us })?;
                self.heard(at_us);
                Ok(())
            }
            Report::Left { at_us, handed_over } => {
                let (at_us, handed_over) = (run_us(*at_us), *handed_over);
                if let Some(life) = self.lives.speaking(node, at_us) {
                    life.left_us = life.left_us.or(Some(at_us));
                }
                self.timeline.write(&Event::Left { host: host_name, node, at_us, handed_over })?;
                self.heard(at_us);
                Ok(())
            }
            Report::Listening { access_point, metrics } => {
                let access_point = access_point.to_string();
                if let Some(placement) = self.nodes.get_mut(node as usize) {
                    placement.metrics = *metrics;
                }
                self.timeline.write(&Event::Listening { host: host_name, node, access_point })
            }
            Report::Failed { error } => {
                let error = cut(error);
                self.timeline.write(&Event::Failed { host: host_name, node, error })?;
                self.count_problem(format!("node {node} failed: {error}"));
                Ok(())
            }
            // The agent gathers them into one notice of all nodes; a node's own has no time.
            Report::Sample(_) => Ok(()),
        }
    }

    /// What became of an operation, or of its messages.
    fn answered(
        &mut self,
        host: HostIndex,
        node: NodeIndex,
        report: &Report,
        run_us: impl Fn(u64) -> u64,
    ) -> Result<(), RecordError> {
        match report {
            Report::Operation(operation) => {
                let ended_us = run_us(operation.ended_us);
                self.lives.speaking(node, ended_us);
                let ended =
                    self.operations.report(node, operation, run_us).map(|ended| self.meter.ended(ended));
                self.heard(ended_us);
                ended.or_else(|error| self.problem(host, &error))
            }
            Report::Delivered { operation, at_us } => {
                let at_us = run_us(*at_us);
                self.lives.speaking(node, at_us);
                self.heard(at_us);
                match self.operations.find(*operation) {
                    Some(sent) if sent.kind.is_message() => {
                        self.deliveries.add(DeliveryReport { operation: *operation, node, at_us });
                        Ok(())
                    }
                    _ => self.problem(host, &format!("operation {operation} has sent no message")),
                }
            }
            Report::Undelivered { destination, at_us, reason } => {
                let (destination, at_us, reason) = (*destination, run_us(*at_us), reason.as_str());
                self.deliveries.add_undelivered(UndeliveredReport { node, destination, at_us, reason });
                self.heard(at_us);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sampled(
        &mut self,
        host: HostIndex,
        at_us: u64,
        nodes: &[(NodeIndex, Snapshot)],
    ) -> Result<(), RecordError> {
        self.heard(at_us);
        let mut strangers = 0;
        let interval = self.histograms.interval(host, at_us)?;
        for (node, snapshot) in nodes {
            if self.nodes.get(*node as usize).is_none_or(|placed| placed.host != host) {
                strangers += 1;
                continue;
            }
            self.samples.sample(host_name(&self.hosts, host), *node, at_us, snapshot.clone(), interval)?;
            if let Some(life) = self.lives.latest_mut(*node) {
                life.sampled_us = Some(at_us);
            }
        }
        self.timeline.flush()?;
        match strangers {
            0 => Ok(()),
            _ => self.problem(host, &format!("samples of {strangers} nodes that are not this host's")),
        }
    }

    fn exited(
        &mut self,
        host: HostIndex,
        node: NodeIndex,
        at_us: u64,
        status: &str,
        expected: bool,
        stderr: &str,
    ) -> Result<(), RecordError> {
        self.heard(at_us);
        let (status, stderr) = (cut(status), cut(stderr));
        let end = if expected { LifeEnd::Expected } else { LifeEnd::Unexpected };
        if let Some(life) = self.lives.latest_mut(node).filter(|life| life.ended.is_none()) {
            life.ended = Some((at_us, end));
        }
        if let Some(placement) = self.nodes.get_mut(node as usize) {
            placement.metrics = None;
        }
        if !expected {
            self.count_problem(format!("node {node} ended by itself ({status})"));
        }
        let host = host_name(&self.hosts, host);
        if !stderr.is_empty() {
            self.directory.append_log(host, node, stderr)?;
        }
        self.timeline.write(&Event::Exited { host, node, at_us, status, expected, stderr })
    }

    /// Writes down a complaint.
    fn problem(&mut self, host: HostIndex, error: &str) -> Result<(), RecordError> {
        let error = cut(error);
        let name = host_name(&self.hosts, host);
        let line = format!("{name}: {error}");
        if self.problems < PROBLEM_LINES_MAX {
            self.timeline.write(&Event::Problem { host: name, error })?;
        }
        self.count_problem(line);
        Ok(())
    }

    fn count_problem(&mut self, problem: String) {
        self.problems += 1;
        if self.problems_kept.len() < PROBLEMS_KEPT_MAX {
            self.problems_kept.push(problem);
        }
    }

    fn heard(&mut self, at_us: u64) {
        self.now_us = self.now_us.max(at_us);
    }

    fn is_on(&self, node: NodeIndex, host: HostIndex) -> bool {
        self.nodes.get(node as usize).is_some_and(|placement| placement.host == host)
    }
}

/// Why nobody said how an operation ended, by what became of its node.
fn lost_reason(
    operation: &Operation,
    lives: &[Life],
    host: Option<&HostRecord>,
    ended_us: u64,
) -> LostReason {
    let intended_us = operation.intended_us;
    if intended_us > ended_us {
        return LostReason::NotReached;
    }
    let host_lost = host.and_then(|host| host.lost.as_ref()).is_some_and(|(at_us, _)| *at_us <= ended_us);
    let life = lives.iter().rev().find(|life| life.spawned_us.is_none_or(|at_us| at_us <= intended_us));
    match life.map(|life| (life.over_us(), life.ended)) {
        Some((_, Some((at_us, LifeEnd::HostLost { .. })))) if at_us <= ended_us => LostReason::HostLost,
        Some((Some(over_us), _)) if over_us <= ended_us => LostReason::NodeEnded,
        Some(_) => LostReason::NoReport,
        None if host_lost => LostReason::HostLost,
        None => LostReason::NotIssued,
    }
}

fn host_name(hosts: &[HostRecord], host: HostIndex) -> &str {
    hosts.get(host as usize).map_or("unknown", |host| host.name.as_str())
}

/// The beginning of a text, at most [`TEXT_BYTES_MAX`].
fn cut(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
