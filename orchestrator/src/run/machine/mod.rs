//! A run as a state machine: what is heard goes in, what is to be done comes out. It knows no process, no stream and no
//! clock, so each of its ways can be tested.
//!
//! ```text
//! preparing --all hosts measured--> running --the schedule's end, or an interrupt--> draining
//!     |                                |                                                 |
//!     +--interrupt, no host left-------+----> stopping <--all operations have ended------+
//!                                               |
//!                                               +--all agents have stopped--> finished
//! ```

use std::ops::RangeInclusive;

use p2ps::access_point::AccessPoint;
use p2ps::agent::protocol::{AGENT_PROTOCOL_VERSION, HostFacts, NodeIndex, Notice, Request};

use super::clock::{self, ClockOffset, EXCHANGES, Exchange};
use crate::schedule::HostIndex;

/// How long an agent lives without a word, in milliseconds, unless somebody wants it otherwise.
pub const LEASE_MS: u64 = 5_000;

/// The shortest and the longest lease, in milliseconds. A shorter one would end by a busy host or a slow link alone.
pub const LEASE_MS_RANGE: RangeInclusive<u64> = 1_000..=600_000;

/// How often each agent gets a word at least, in microseconds; with a short lease, several times in each.
const RENEW_EVERY_US: u64 = 1_000_000;

/// How many words an agent gets in a lease, at least.
const RENEWALS_MIN: u64 = 5;

/// How often clocks are compared during the run, in microseconds.
const CLOCK_EVERY_US: u64 = 5_000_000;

/// How long a host may take for each step of its preparation, in microseconds.
const PREPARE_WAIT_US: u64 = 60_000_000;

/// How many leases long a host may be silent in a run; it is given up then.
const SILENCE_LEASES_MAX: u64 = 4;

/// How far ahead the common start lies, in microseconds: time for it to reach every host.
const START_MARGIN_US: RangeInclusive<u64> = 100_000..=10_000_000;

/// How long the last operations may take to end, in microseconds: a little longer than a node tries any of them.
const DRAIN_WAIT_US: u64 = 22_000_000;

/// How long they may take after an interrupt, in microseconds.
const INTERRUPTED_DRAIN_WAIT_US: u64 = 3_000_000;

/// How long the last samples may take beyond two intervals, in microseconds.
const SAMPLE_WAIT_US: u64 = 1_000_000;

/// How long agents may take to stop, in microseconds; they are killed then.
const STOP_WAIT_US: u64 = 10_000_000;

/// What a run's machine has to know of its plan.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// When the schedule ends, in microseconds since the start.
    pub end_us: u64,
    /// How often nodes are sampled, in microseconds.
    pub sample_every_us: u64,
    /// How long an agent lives without a word, in milliseconds.
    pub lease_ms: u64,
}

impl Settings {
    fn renew_every_us(&self) -> u64 {
        RENEW_EVERY_US.min(self.lease_ms * 1000 / RENEWALS_MIN)
    }

    fn silence_max_us(&self) -> u64 {
        (SILENCE_LEASES_MAX * self.lease_ms * 1000).max(2 * self.sample_every_us)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Say this to a host's agent.
    Send(HostIndex, Request),
    /// Ask a host's agent to prepare its nodes.
    Prepare(HostIndex),
    /// Send a host all addresses, and its slice of the schedule.
    SendSchedule(HostIndex),
    /// Kill a host's agent: it cannot be worked with. Why, for people.
    GiveUp(HostIndex, String),
    /// A host's clock has been measured.
    Measured(HostIndex, ClockOffset),
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Agents start, prepare, and get their schedules.
    Preparing,
    /// Agents carry out their schedules.
    Running,
    /// The schedule is over; what is under way may end.
    Draining,
    /// Agents were told to stop.
    Stopping,
    /// All agents are gone.
    Finished,
}

/// Why a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The schedule was carried out.
    Completed,
    /// Somebody interrupted it.
    Interrupted,
    /// No host was left.
    NoHosts,
}

impl Ending {
    /// The ending as results write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "completed",
            Ending::Interrupted => "interrupted",
            Ending::NoHosts => "no_hosts",
        }
    }
}

/// A host, as the run sees it.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// What its agent said of it.
    pub facts: Option<HostFacts>,
    /// Where its nodes are reached.
    pub nodes: Vec<(NodeIndex, AccessPoint)>,
    /// Its clock, as best known by all measurements.
    pub clock: Option<ClockOffset>,
    /// The run's start on its clock, in microseconds; moves where the clock is found to have drifted.
    pub start_us: Option<u64>,
    step: Step,
    step_since_us: u64,
    heard_us: u64,
    renewed_us: u64,
    asked: Option<(u64, u64)>,
    exchanges: Vec<Exchange>,
    asked_at_us: u64,
    sampled_us: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Greeting,
    Preparing,
    Prepared,
    Measuring,
    Ready,
    Stopped,
    Gone,
}

/// The state of a run. All times are microseconds on the orchestrator's monotonic clock.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    stage: Stage,
    ending: Ending,
    hosts: Vec<Host>,
    token: u64,
    start_us: u64,
    /// When the present stage ends at the latest.
    until_us: u64,
    /// When draining, or else stopping, began.
    over_us: Option<u64>,
    /// When agents were told to stop, or were all gone.
    stopped_us: Option<u64>,
    interrupts: u32,
}

impl Machine {
    /// A run on `hosts` hosts whose agents have just been started; greets them.
    pub fn new(settings: Settings, run: &str, hosts: u32, now_us: u64, out: &mut Vec<Effect>) -> Machine {
        let host = Host { step_since_us: now_us, heard_us: now_us, renewed_us: now_us, ..Host::default() };
        let (version, run, lease_ms) = (AGENT_PROTOCOL_VERSION, run.to_owned(), settings.lease_ms);
        let hello = Request::Hello { version, run, lease_ms };
        out.extend((0..hosts).map(|host| Effect::Send(host, hello.clone())));
        Machine {
            settings,
            stage: Stage::Preparing,
            ending: Ending::Completed,
            hosts: vec![host; hosts as usize],
            token: 0,
            start_us: 0,
            until_us: u64::MAX,
            over_us: None,
            stopped_us: None,
            interrupts: 0,
        }
    }

    /// How far the run is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Why it came, or will come, to its end.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// A host, as the run sees it.
    pub fn host(&self, host: HostIndex) -> &Host {
        &self.hosts[host as usize]
    }

    /// How many hosts are ready to run, or run.
    pub fn hosts_ready(&self) -> usize {
        self.hosts.iter().filter(|host| matches!(host.step, Step::Ready | Step::Stopped)).count()
    }

    /// The time since the run's start; 0 before it.
    pub fn run_us(&self, now_us: u64) -> u64 {
        match self.stage {
            Stage::Preparing => 0,
            _ if self.start_us == 0 => 0,
            _ => now_us.saturating_sub(self.start_us),
        }
    }

    /// When the last actions were carried out, since the run's start: the schedule's end, or an interrupt.
    pub fn over_us(&self) -> Option<u64> {
        Some(self.run_us(self.over_us?))
    }

    /// When the run ended, since its start: an interrupted one with the interrupt, any other when the operations that were
    /// under way at the schedule's end had had their time.
    pub fn ended_us(&self) -> Option<u64> {
        let interrupted = self.ending == Ending::Interrupted;
        Some(self.run_us(if interrupted { self.over_us? } else { self.stopped_us? }))
    }

    /// When a host was last heard, since the run's start; 0 before it.
    pub fn heard_us(&self, host: HostIndex) -> u64 {
        self.run_us(self.host(host).heard_us)
    }

    /// Where all nodes are reached, of all hosts that are there.
    pub fn addresses(&self) -> Vec<(NodeIndex, AccessPoint)> {
        let there = self.hosts.iter().filter(|host| host.is_there());
        there.flat_map(|host| host.nodes.iter().copied()).collect()
    }

    /// Takes in what a host's agent said.
    pub fn notice(&mut self, now_us: u64, index: HostIndex, notice: &Notice, out: &mut Vec<Effect>) {
        let preparing = self.stage == Stage::Preparing;
        let Some(host) = self.hosts.get_mut(index as usize).filter(|host| host.is_there()) else { return };
        host.heard_us = now_us;
        match notice {
            Notice::Ready { version, host: facts } if host.step == Step::Greeting => {
                if *version != AGENT_PROTOCOL_VERSION {
                    let reason = format!(
                        "its agent (p2ps {}) speaks version {version} of the agents' protocol, this orchestrator \
                         version {AGENT_PROTOCOL_VERSION}: use binaries of one release",
                        facts.node_version
                    );
                    return out.push(Effect::GiveUp(index, reason));
                }
                host.facts = Some(facts.clone());
                host.enter(Step::Preparing, now_us);
                out.push(Effect::Prepare(index));
            }
            Notice::Prepared { nodes } if host.step == Step::Preparing => {
                host.nodes.clone_from(nodes);
                host.enter(Step::Prepared, now_us);
            }
            Notice::Clock { token, monotonic_us, .. } => {
                self.clock(now_us, index, *token, *monotonic_us, out)
            }
            Notice::Problem { error } if preparing => {
                out.push(Effect::GiveUp(index, error.clone()));
            }
            Notice::Samples { .. } => host.sampled_us = now_us,
            Notice::Stopped => host.enter(Step::Stopped, now_us),
            Notice::Ready { .. } | Notice::Prepared { .. } => {
                out.push(Effect::GiveUp(index, "its agent speaks out of order".into()));
            }
            _ => {}
        }
    }

    /// A host's agent is gone. Says whether it had been told to, and was done.
    pub fn lost(&mut self, index: HostIndex) -> bool {
        let Some(host) = self.hosts.get_mut(index as usize) else { return false };
        let orderly = host.step == Step::Stopped && self.stage == Stage::Stopping;
        host.step = Step::Gone;
        orderly
    }

    /// Somebody wants the run to end: in order. Said again: at once.
    pub fn interrupt(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        self.interrupts += 1;
        if self.interrupts > 1 && self.stage != Stage::Finished {
            let reason = || "the run was interrupted twice".to_owned();
            out.extend(self.there().into_iter().map(|index| Effect::GiveUp(index, reason())));
            self.over_us.get_or_insert(now_us);
            self.stopped_us.get_or_insert(now_us);
            self.stage = Stage::Stopping;
            self.until_us = now_us;
            return;
        }
        match self.stage {
            Stage::Preparing => {
                self.ending = Ending::Interrupted;
                self.stop(now_us, out);
            }
            Stage::Running => {
                self.ending = Ending::Interrupted;
                self.say_to_all(&Request::Halt, out);
                self.drain(now_us, INTERRUPTED_DRAIN_WAIT_US);
            }
            Stage::Draining => self.stop(now_us, out),
            Stage::Stopping | Stage::Finished => {}
        }
    }

    /// Time passes. `outstanding` operations may still end; `None`: they have not been counted now.
    pub fn tick(&mut self, now_us: u64, outstanding: Option<usize>, out: &mut Vec<Effect>) {
        if self.stage != Stage::Finished && self.there().is_empty() {
            if matches!(self.stage, Stage::Preparing | Stage::Running) {
                self.ending = Ending::NoHosts;
            }
            self.over_us.get_or_insert(now_us);
            self.stopped_us.get_or_insert(now_us);
            self.stage = Stage::Finished;
            return;
        }
        self.keep_hosts(now_us, out);
        match self.stage {
            Stage::Preparing => self.prepare(now_us, out),
            Stage::Running if now_us >= self.start_us.saturating_add(self.settings.end_us) => {
                self.drain(now_us, DRAIN_WAIT_US);
            }
            Stage::Draining if self.is_drained(now_us, outstanding) => self.stop(now_us, out),
            Stage::Stopping if now_us >= self.until_us => {
                for index in self.there() {
                    out.push(Effect::GiveUp(index, "its agent did not stop in time".into()));
                }
            }
            _ => {}
        }
    }

    /// Renews leases, compares clocks, and gives up hosts that are silent.
    fn keep_hosts(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        let stage = self.stage;
        for (index, host) in (0..).zip(&mut self.hosts) {
            if !host.is_there() || host.step == Step::Stopped {
                continue;
            }
            let silent_us = now_us.saturating_sub(host.heard_us);
            if stage == Stage::Preparing {
                let waits_for_us = !matches!(host.step, Step::Prepared | Step::Ready);
                if waits_for_us && now_us.saturating_sub(host.step_since_us) >= PREPARE_WAIT_US {
                    let seconds = PREPARE_WAIT_US / 1_000_000;
                    out.push(Effect::GiveUp(index, format!("it was not ready within {seconds} s")));
                }
            } else if stage != Stage::Stopping && silent_us >= self.settings.silence_max_us() {
                out.push(Effect::GiveUp(index, format!("no word from it for {} s", silent_us / 1_000_000)));
            }
            if now_us.saturating_sub(host.renewed_us) >= self.settings.renew_every_us() {
                host.renewed_us = now_us;
                out.push(Effect::Send(index, Request::Renew));
            }
            if matches!(stage, Stage::Running | Stage::Draining)
                && now_us.saturating_sub(host.asked_at_us) >= CLOCK_EVERY_US
            {
                host.exchanges.clear();
                host.ask_clock(&mut self.token, now_us, index, out);
            }
        }
    }

    fn prepare(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        let there = self.there();
        if there.iter().all(|index| self.host(*index).step == Step::Prepared) {
            for index in there {
                out.push(Effect::SendSchedule(index));
                let host = &mut self.hosts[index as usize];
                host.enter(Step::Measuring, now_us);
                // The answer also says that everything before was taken in.
                host.ask_clock(&mut self.token, now_us, index, out);
            }
        } else if there.iter().all(|index| self.host(*index).step == Step::Ready) {
            let rtt_us = there.iter().filter_map(|index| self.host(*index).clock).map(|clock| clock.rtt_us);
            let margin_us = rtt_us.max().unwrap_or(0).saturating_mul(4);
            let margin_us = margin_us.clamp(*START_MARGIN_US.start(), *START_MARGIN_US.end());
            self.stage = Stage::Running;
            self.start_us = now_us + margin_us;
            for index in there {
                let host = &mut self.hosts[index as usize];
                let at_us = host.clock.map_or(self.start_us, |clock| clock.to_host_us(self.start_us));
                host.start_us = Some(at_us);
                out.push(Effect::Send(index, Request::Start { at_us }));
            }
        }
    }

    fn clock(&mut self, now_us: u64, index: HostIndex, token: u64, host_us: u64, out: &mut Vec<Effect>) {
        let host = &mut self.hosts[index as usize];
        let Some((_, asked_us)) = host.asked.take_if(|(asked, _)| *asked == token) else { return };
        host.exchanges.push(Exchange { asked_us, answered_us: now_us, host_us });
        if (host.exchanges.len() as u32) < EXCHANGES {
            return host.ask_clock(&mut self.token, now_us, index, out);
        }
        let Some(measured) = clock::best(host.exchanges.drain(..)) else { return };
        let known = host.clock.map_or(measured, |clock| clock.updated(measured));
        host.clock = Some(known);
        out.push(Effect::Measured(index, measured));
        if let Some(start_us) = &mut host.start_us {
            let at_us = known.to_host_us(self.start_us);
            if std::mem::replace(start_us, at_us) != at_us {
                out.push(Effect::Send(index, Request::Start { at_us }));
            }
        }
        if host.step == Step::Measuring {
            host.enter(Step::Ready, now_us);
        }
    }

    fn is_drained(&self, now_us: u64, outstanding: Option<usize>) -> bool {
        let over_us = self.over_us.unwrap_or(now_us);
        let sample_wait_us = 2 * self.settings.sample_every_us + SAMPLE_WAIT_US;
        let sampled = self.there().iter().all(|index| self.host(*index).sampled_us > over_us)
            || now_us >= over_us.saturating_add(sample_wait_us);
        now_us >= self.until_us || (outstanding == Some(0) && sampled)
    }

    fn drain(&mut self, now_us: u64, length_max_us: u64) {
        self.stage = Stage::Draining;
        self.over_us = Some(now_us);
        self.until_us = now_us + length_max_us;
    }

    fn stop(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        self.say_to_all(&Request::Stop, out);
        self.over_us.get_or_insert(now_us);
        self.stopped_us = Some(now_us);
        self.stage = Stage::Stopping;
        self.until_us = now_us + STOP_WAIT_US;
    }

    fn say_to_all(&self, request: &Request, out: &mut Vec<Effect>) {
        out.extend(self.there().into_iter().map(|index| Effect::Send(index, request.clone())));
    }

    fn there(&self) -> Vec<HostIndex> {
        (0..).zip(&self.hosts).filter(|(_, host)| host.is_there()).map(|(index, _)| index).collect()
    }
}

impl Host {
    /// Whether its agent is not known to be gone.
    pub fn is_there(&self) -> bool {
        self.step != Step::Gone
    }

    fn enter(&mut self, step: Step, now_us: u64) {
        self.step = step;
        self.step_since_us = now_us;
    }

    fn ask_clock(&mut self, token: &mut u64, now_us: u64, index: HostIndex, out: &mut Vec<Effect>) {
        *token += 1;
        self.asked = Some((*token, now_us));
        self.asked_at_us = now_us;
        out.push(Effect::Send(index, Request::Clock { token: *token }));
    }
}

#[cfg(test)]
pub(crate) mod tests;
