//! The agents of a run, and the clock that it waits by: this host's for agents that are reached over streams, the simulation's
//! for a virtual one. The run itself is the same.

use std::sync::Arc;
use std::time::Duration;

use p2ps::agent::clock::monotonic_us;
use p2ps::sim::{Totals, Trace};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::agents::{AgentHandle, HostEvent, Outgoing};
use crate::backend::AgentConnection;
use crate::backend::sim::VirtualAgent;
use crate::schedule::HostIndex;

/// How often the machine is told that time passes.
const TICK_EVERY: Duration = Duration::from_millis(50);

/// The most notices of agents that wait to be recorded; more wait in the agents' pipes.
const EVENTS_MAX: usize = 4096;

/// How many words of a virtual agent are heard before signals are looked for.
const WORDS_PER_TURN: u32 = 64;

/// All agents of a run.
#[derive(Debug)]
pub(super) enum Fleet {
    Real(RealAgents),
    Virtual(Box<VirtualHost>),
}

/// Agents on hosts.
#[derive(Debug)]
pub(super) struct RealAgents {
    agents: Vec<AgentHandle>,
    events: mpsc::Receiver<(HostIndex, HostEvent)>,
    ticks: Interval,
}

/// The agent of a simulation.
#[derive(Debug)]
pub(super) struct VirtualHost {
    agent: VirtualAgent,
    next_tick_us: u64,
    turns: u32,
    ended: bool,
}

impl Fleet {
    /// Takes charge of the agents of hosts.
    pub(super) fn real(connections: Vec<AgentConnection>) -> Fleet {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let agent = |(index, connection)| AgentHandle::new(index, connection, tell.clone());
        let agents = (0..).zip(connections).map(agent).collect();
        let mut ticks = tokio::time::interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Fleet::Real(RealAgents { agents, events, ticks })
    }

    /// Takes charge of the agent of a simulation.
    pub(super) fn simulated(agent: VirtualAgent) -> Fleet {
        Fleet::Virtual(Box::new(VirtualHost { agent, next_tick_us: 0, turns: 0, ended: false }))
    }

    /// How many agents there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Fleet::Real(real) => real.agents.len(),
            Fleet::Virtual(_) => 1,
        }
    }

    /// The clock that the run waits by, in microseconds.
    pub(super) fn now_us(&self) -> u64 {
        match self {
            Fleet::Real(_) => monotonic_us(),
            Fleet::Virtual(host) => host.agent.now_us(),
        }
    }

    /// Waits for what comes next from a host, or (`None`) until the machine is to be told that time passes. May be dropped
    /// at any time without loss.
    pub(super) async fn next(&mut self) -> Option<(HostIndex, HostEvent)> {
        match self {
            Fleet::Real(real) => tokio::select! {
                biased;
                Some(event) = real.events.recv() => Some(event),
                _ = real.ticks.tick() => None,
            },
            Fleet::Virtual(host) => {
                host.turns += 1;
                if host.turns.is_multiple_of(WORDS_PER_TURN) {
                    tokio::task::yield_now().await;
                }
                host.next().map(|event| (0, event))
            }
        }
    }

    /// Says something to an agent. `false`: it does not listen.
    pub(super) fn say(&mut self, host: HostIndex, outgoing: Outgoing) -> bool {
        match self {
            Fleet::Real(real) => real.agents[host as usize].say(outgoing),
            Fleet::Virtual(virtual_host) => {
                virtual_host.hear(outgoing);
                true
            }
        }
    }

    /// Kills an agent; its end will be told of.
    pub(super) fn kill(&mut self, host: HostIndex) {
        match self {
            Fleet::Real(real) => real.agents[host as usize].kill(),
            Fleet::Virtual(host) => host.agent.hear(p2ps::agent::protocol::Request::Stop),
        }
    }

    /// The hash of all that has happened in a simulation, and what was counted there.
    pub(super) fn trace(&self) -> Option<(Trace, Totals)> {
        match self {
            Fleet::Real(_) => None,
            Fleet::Virtual(host) => host.agent.trace(),
        }
    }
}

impl VirtualHost {
    fn next(&mut self) -> Option<HostEvent> {
        if self.agent.has_ended() && !self.ended {
            self.ended = true;
            let (status, why) = ("exit 0".to_owned(), "its agent has gone".to_owned());
            return Some(HostEvent::Ended { status, why });
        }
        if let Some(notice) = self.agent.say() {
            return Some(HostEvent::Said(notice));
        }
        self.agent.advance(self.next_tick_us);
        match self.agent.say() {
            Some(notice) => Some(HostEvent::Said(notice)),
            None => {
                self.next_tick_us = self.agent.now_us() + TICK_EVERY.as_micros() as u64;
                None
            }
        }
    }

    fn hear(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Request(request) => self.agent.hear(*request),
            Outgoing::Slice(schedule) => self.agent.take_schedule(Arc::clone(&schedule)),
            // They are the simulator's own.
            Outgoing::Addresses(_) | Outgoing::Kernel(_) => {}
        }
    }
}
