//! A scenario's run: it comes up, goes through its times of faults, heals and rests, and is checked all along.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::checks::{COPIES_RETURN_WITHIN, OPERATIONS_END_WITHIN};
use super::clients::CLIENTS_SETTLE_WITHIN;
use super::keys::{self, Keys};
use super::outcome::{Failure, Outcome};
use super::scenario::{Draws, Regime, Scenario, Start};
use super::separation::Separation;
use super::tell::Telling;
use crate::core::repair::REQUEST_ENDS_WITHIN;
use crate::id::Id;
use crate::invariant::tables::RING_HEALS_WITHIN;
use crate::invariant::{Journal, Moment, Violation};
use crate::message::Contact;
use crate::peer::{Event, JoinError, Output, Peer};
use crate::sim::{Happening, NetworkModel, NodeNumber, Simulator, What};

pub(super) const ID_IN_USE: &str = "an id that nobody has is not in use";

const SECOND_US: u64 = 1_000_000;

/// How often the network is checked as a whole while something goes on, besides when its nodes come, go or change neighbours.
pub const CHECK_PERIOD: Duration = Duration::from_millis(500);

/// How often it is checked while it rests.
pub const REST_CHECK_PERIOD: Duration = Duration::from_secs(10);

/// How long a network may take to come up.
pub const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// How long until what has no end of its own, such as a broadcast, has come to one.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// How long operations take where nothing is wrong.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Start,
    Faults,
    Healing,
    Rest,
}

impl Stage {
    /// What it is called in messages.
    fn as_str(self) -> &'static str {
        match self {
            Stage::Start => "while it comes up",
            Stage::Faults => "in a time of faults",
            Stage::Healing => "while it heals",
            Stage::Rest => "at rest",
        }
    }
}

/// Something that a fault has left to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Pause(NodeNumber),
    Separation,
}

pub(super) struct Run<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) simulator: Simulator,
    pub(super) draws: Draws,
    /// Each node's present or last life, by its number.
    pub(super) nodes: Vec<Contact>,
    /// Those that others cannot reach, in all their lives.
    pub(super) clients: BTreeSet<NodeNumber>,
    /// Those that run.
    pub(super) alive: BTreeSet<NodeNumber>,
    pub(super) journal: Journal,
    pub(super) keys: Keys,
    pub(super) separation: Option<Separation>,
    /// What ends when; of one moment, in the order in which it was entered.
    pub(super) agenda: BTreeMap<(u64, u64), Ending>,
    pub(super) stage: Stage,
    /// The members when the ring was ideal last, and the nodes that have failed or left since then.
    pub(super) established: usize,
    pub(super) failures: usize,
    /// The crashes since all copies were in their places.
    pub(super) crashes: usize,
    pub(super) outcome: Outcome,
    pub(super) telling: Option<Telling<'a>>,
    next_check_us: u64,
    counted_until_us: u64,
    pub(super) events_counted: u64,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        scenario: &'a Scenario,
        prepare: impl FnOnce(&mut Simulator),
        telling: Option<Telling<'a>>,
    ) -> Run<'a> {
        let mut draws = Draws::new(scenario.seed);
        let model = NetworkModel { loss_ppm: 0, ..scenario.model.clone() };
        let mut simulator = Simulator::new(scenario.net, model, scenario.seed, false);
        simulator.watch(telling.as_ref().is_some_and(|telling| telling.every_message));
        prepare(&mut simulator);
        let outcome = Outcome::new(scenario.seed, simulator.trace());
        Run {
            scenario,
            simulator,
            nodes: Vec::new(),
            clients: BTreeSet::new(),
            alive: BTreeSet::new(),
            journal: Journal::default(),
            keys: Keys::new(&scenario.net, scenario.keys, &mut draws),
            draws,
            separation: None,
            agenda: BTreeMap::new(),
            stage: Stage::Start,
            established: 1,
            failures: 0,
            crashes: 0,
            outcome,
            telling,
            next_check_us: 0,
            counted_until_us: 0,
            events_counted: 0,
        }
    }

    /// Runs it to its end, or to the first violation.
    pub(super) fn go(mut self) -> Outcome {
        let result = self.live();
        self.count_time();
        if let Err(violation) = result {
            let (at, stage) = (Duration::from_micros(self.simulator.now_us()), self.stage.as_str());
            self.say(|| format!("VIOLATION {violation}"));
            self.outcome.failure = Some(Failure { at, stage, violation, network: self.describe() });
        }
        Outcome { events: self.simulator.totals().events, trace: self.simulator.trace(), ..self.outcome }
    }

    fn live(&mut self) -> Result<(), Violation> {
        self.start()?;
        for _ in 0..self.scenario.episodes {
            self.suffer()?;
            self.heal()?;
            self.rest()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), Violation> {
        let count = self.scenario.nodes;
        let numbers: Vec<NodeNumber> = (0..count).filter_map(|_| self.add_node()).collect();
        if self.scenario.start == Start::Converged {
            self.simulator.start_converged(&numbers, true);
            self.alive.extend(&numbers);
            self.note_lives();
        } else {
            for (place, number) in numbers.iter().enumerate() {
                let via = match (place, self.scenario.start) {
                    (0, _) => Vec::new(),
                    (_, Start::AtOnce) => vec![numbers[0]],
                    _ => self.members().first().copied().into_iter().collect(),
                };
                self.start_node(*number, &via);
                if self.scenario.start == Start::OneByOne {
                    self.run_until(STARTS_WITHIN, |run| run.has_members(place + 1))?;
                }
            }
            self.run_until(STARTS_WITHIN, |run| run.has_members(numbers.len()))?;
        }
        self.run_until(RING_HEALS_WITHIN, Run::ring_is_ideal)?;
        for _ in 0..self.scenario.clients {
            self.start_client();
        }
        self.run_until(CLIENTS_SETTLE_WITHIN, Run::clients_have_their_proxies)?;
        self.count_established();
        Ok(())
    }

    /// A time of faults.
    fn suffer(&mut self) -> Result<(), Violation> {
        self.enter(Stage::Faults);
        self.simulator.lose(self.scenario.model.loss_ppm);
        let end_us = self.simulator.now_us() + self.scenario.faults_us;
        let mut fault_us = self.simulator.now_us();
        let mut question_us = fault_us;
        let mut client_us = if self.scenario.clients > 0 { fault_us } else { u64::MAX };
        while self.simulator.now_us() < end_us {
            let ending_us = self.agenda.first_key_value().map_or(u64::MAX, |((at_us, _), _)| *at_us);
            self.run_to(fault_us.min(question_us).min(client_us).min(ending_us).min(end_us))?;
            let now_us = self.simulator.now_us();
            if now_us >= ending_us {
                self.end_next();
            }
            if now_us >= fault_us {
                self.make_fault();
                fault_us = now_us + self.draws.pause_us(self.scenario.fault_pause_us);
            }
            if now_us >= client_us {
                self.make_client_fault();
                client_us = now_us + self.draws.pause_us(self.scenario.client_pause_us);
            }
            if now_us >= question_us {
                self.ask();
                question_us = now_us + self.draws.pause_us(self.scenario.operation_pause_us);
            }
        }
        Ok(())
    }

    /// No more faults: within the stated times everything is as it should be.
    fn heal(&mut self) -> Result<(), Violation> {
        self.enter(Stage::Healing);
        self.end_faults();
        let begin_us = self.simulator.now_us();
        if self.scenario.regime == Regime::Unreliable {
            // Who could not answer is still taken for dead, and dropped by an ideal ring for a round (seed 442).
            self.run_for(REQUEST_ENDS_WITHIN)?;
        }
        self.run_until(RING_HEALS_WITHIN, |run| run.has_settled().and(run.ring_is_ideal()))?;
        let ring_us = self.simulator.now_us();
        self.run_until(CLIENTS_SETTLE_WITHIN, Run::clients_have_their_proxies)?;
        self.run_until(self.fingers_heal_within(), Run::fingers_are_ideal)?;
        let fingers_us = self.simulator.now_us();
        self.run_until(OPERATIONS_END_WITHIN, Run::all_ended)?;
        self.run_for(SILENCE)?;
        self.check(Moment::Quiet)?;
        self.run_until(COPIES_RETURN_WITHIN, Run::copies_are_in_their_places)?;
        let members: Vec<&Peer> = running(&self.simulator, &self.alive).collect();
        self.keys.begin_anew(&members)?;
        let outcome = &mut self.outcome;
        let healed_after = |from_us, until_us: u64| Duration::from_micros(until_us - from_us);
        outcome.ring_healed_after = outcome.ring_healed_after.max(healed_after(begin_us, ring_us));
        outcome.fingers_healed_after = outcome.fingers_healed_after.max(healed_after(ring_us, fingers_us));
        self.count_established();
        Ok(())
    }

    /// A long quiet time, in which whatever is asked for must succeed.
    fn rest(&mut self) -> Result<(), Violation> {
        self.enter(Stage::Rest);
        let end_us = self.simulator.now_us() + self.scenario.rest_us;
        while self.simulator.now_us() < end_us {
            self.journal.forget();
            let earlier = self.journal.operations().last().map_or(0, |(number, _)| number);
            for _ in 0..self.draws.within(1, 4) {
                self.ask();
            }
            self.run_for(ANSWERED_WITHIN)?;
            self.all_succeeded(earlier)?;
            self.keys.all_ended()?;
            self.broadcast_costs_one_message_a_node()?;
            self.check(Moment::Quiet)?;
            self.fingers_are_ideal()?;
            self.copies_are_in_their_places()?;
            self.clients_have_their_proxies()?;
            let pause_us = self.draws.pause_us(60 * SECOND_US);
            self.run_for(Duration::from_micros(pause_us))?;
        }
        Ok(())
    }

    fn enter(&mut self, stage: Stage) {
        self.count_time();
        self.stage = stage;
        self.next_check_us = self.simulator.now_us();
        if let Some(watch) = self.simulator.watched() {
            watch.clear();
        }
        self.say(|| format!("---- {}", stage.as_str()));
    }

    pub(super) fn run_for(&mut self, length: Duration) -> Result<(), Violation> {
        self.run_to(self.simulator.now_us() + length.as_micros() as u64)
    }

    /// Runs until something holds; what does not hold in time is the violation.
    fn run_until(
        &mut self,
        limit: Duration,
        holds: impl Fn(&Self) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let end_us = self.simulator.now_us() + limit.as_micros() as u64;
        loop {
            match holds(self) {
                Ok(()) => return Ok(()),
                Err(violation) if self.simulator.now_us() >= end_us => return Err(violation),
                Err(_) => self.run_for(CHECK_PERIOD)?,
            }
        }
    }

    /// Lets time pass until then, with all checks.
    fn run_to(&mut self, end_us: u64) -> Result<(), Violation> {
        loop {
            self.simulator.run_until_news(end_us.min(self.next_check_us));
            self.count_time();
            self.tell_messages();
            self.hear()?;
            let now_us = self.simulator.now_us();
            if now_us >= self.next_check_us {
                let period = if self.stage == Stage::Rest { REST_CHECK_PERIOD } else { CHECK_PERIOD };
                self.next_check_us = now_us + period.as_micros() as u64;
                self.check(self.moment())?;
                self.nothing_breeds(period)?;
            }
            if now_us >= end_us {
                return Ok(());
            }
        }
    }

    /// Takes in what has happened.
    fn hear(&mut self) -> Result<(), Violation> {
        let news: Vec<Happening> = self.simulator.happenings().collect();
        let mut has_changed = false;
        for happening in news {
            self.tell_happening(&happening);
            has_changed |= self.take(happening)?;
        }
        if has_changed {
            self.journal.observe(running(&self.simulator, &self.alive));
            self.check(self.moment())?;
        }
        Ok(())
    }

    /// Takes one happening in. Whether it changes who is a member, or who is whose neighbour.
    fn take(&mut self, Happening { node, what, .. }: Happening) -> Result<bool, Violation> {
        let at = self.nodes[node.0 as usize];
        match what {
            What::Joined => {
                // Who became a client is known as one from now on.
                self.note_lives();
                return Ok(true);
            }
            What::Ring { .. } => return Ok(true),
            What::Rejected(error) => {
                self.bury(node);
                return match error {
                    JoinError::IdInUse(id) => broken(ID_IN_USE, format!("{id}, which no other node has")),
                    _ => Ok(false),
                };
            }
            What::Left { handed_over } => {
                self.bury(node);
                self.journal.hear(at, &Output::Event(Event::Left { handed_over }));
                return Ok(true);
            }
            What::Completed { operation, result, .. } => {
                self.journal.hear(at, &Output::Completed { operation, result });
            }
            What::Sent { operation, result } => self.journal.hear(at, &Output::Sent { operation, result }),
            What::Delivered(delivery) => self.journal.hear(at, &Output::Deliver(delivery)),
            What::Answered { operation, result } => {
                let at_rest = self.stage == Stage::Rest;
                let is_strict = at_rest || self.scenario.regime != Regime::Unreliable;
                self.keys.hear(operation, &result, self.simulator.now_us(), is_strict)?;
                if let (true, Err(error)) = (at_rest, result) {
                    return broken(keys::SUCCEEDS, format!("operation {operation} at {}: {error}", at.id));
                }
            }
            What::Undelivered { .. } | What::ItemsLeftBehind { .. } => {}
        }
        Ok(false)
    }

    /// A node runs no more.
    pub(super) fn bury(&mut self, node: NodeNumber) {
        self.alive.remove(&node);
        self.keys.forget_operations_of(self.nodes[node.0 as usize]);
    }

    /// Adds the time since this was last done.
    pub(super) fn count_time(&mut self) {
        let now_us = self.simulator.now_us();
        let lived = Duration::from_micros((now_us - self.counted_until_us) * self.alive.len() as u64);
        self.counted_until_us = now_us;
        self.outcome.node_time += lived;
        if self.stage == Stage::Faults {
            self.outcome.node_time_under_faults += lived;
        }
    }
}

/// The nodes that run.
pub(super) fn running<'s>(
    simulator: &'s Simulator,
    alive: &'s BTreeSet<NodeNumber>,
) -> impl Iterator<Item = &'s Peer> {
    alive.iter().filter_map(|node| simulator.peer(*node))
}

/// The ids of all nodes that there ever were.
pub(super) fn ids(nodes: &[Contact]) -> Vec<Id> {
    nodes.iter().map(|contact| contact.id).collect()
}

/// An invariant that does not hold.
pub(super) fn broken<T>(invariant: &'static str, detail: String) -> Result<T, Violation> {
    Err(Violation { invariant, detail })
}
