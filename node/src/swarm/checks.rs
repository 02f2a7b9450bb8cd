//! What is checked of a run, and when it holds.

use std::time::Duration;

use super::keys;
use super::run::{Run, SILENCE, Stage, broken, running};
use super::scenario::{Regime, Service};
use crate::core::duplicates::duplicates_max;
use crate::core::stabilise::ROUND_MAX;
use crate::invariant::tables::{FINGERS_HEAL_WITHIN, fingers_are_ideal, ring_is_ideal};
use crate::invariant::{self, Asked, Moment, View, Violation};
use crate::peer::{Peer, Phase};
use crate::services::dictionary::conservation;
use crate::sim::{Broadcasting, Duplicated};

pub(super) const SETTLES: &str = "joins and leaves end in time";
pub(super) const RING_HEALS: &str = "the ring heals in time";
pub(super) const FINGERS_HEAL: &str = "the fingers heal in time";
pub(super) const SUCCEEDS: &str = "operations succeed without faults";
pub(super) const BROADCAST_COST: &str = "a broadcast costs n - 1 messages";
pub(super) const NO_BREEDING: &str = "messages do not breed";
pub(super) const JOINS_END: &str = "the first nodes join in time";

/// How long operations have to end once the network is ideal: a reliable message's 20 s, and some more.
pub const OPERATIONS_END_WITHIN: Duration = Duration::from_secs(30);

/// How long after that all copies of keys are in their places: they are compared every half minute.
pub const COPIES_RETURN_WITHIN: Duration = Duration::from_secs(150);

/// How many rounds look-ups of stale fingers may take, and their being tried again.
const FINGER_ROUNDS_SPARE: u32 = 10;

/// The most events that a second has for each node: more, and a run would not end.
const EVENTS_PER_NODE_SECOND_MAX: u64 = 10_000;

impl Run<'_> {
    pub(super) fn view(&self) -> View<'_> {
        View::new(running(&self.simulator, &self.alive), &self.journal)
    }

    /// What may have happened to the network. Zave's theorem is for networks that keep r + 1 members through all failures:
    /// smaller ones heal, but promise less meanwhile.
    pub(super) fn moment(&self) -> Moment {
        let all_is_seen = self.scenario.regime != Regime::Unreliable || self.stage == Stage::Rest;
        if all_is_seen && (self.failures == 0 || self.are_enough_left()) {
            Moment::FailuresSeen
        } else {
            Moment::Any
        }
    }

    fn are_enough_left(&self) -> bool {
        self.established.saturating_sub(self.failures) > self.scenario.net.successors()
    }

    /// All invariants that hold at such a moment.
    pub(super) fn check(&mut self, moment: Moment) -> Result<(), Violation> {
        self.outcome.checks += 1;
        self.forgive();
        let enough = self.scenario.net.successors() + 1;
        let principals_min = if self.are_enough_left() { enough } else { 0 };
        invariant::check(&self.view().with_principals(principals_min), moment)?;
        if self.scenario.regime != Regime::Unreliable || self.stage == Stage::Rest {
            let dictionaries = running(&self.simulator, &self.alive).map(Peer::dictionary);
            self.keys.are_conserved(dictionaries, self.simulator.now_us())?;
        }
        Ok(())
    }

    /// What is under way while nodes are kept apart, or disagree on who answers, may end as it will.
    pub(super) fn forgive(&mut self) {
        if self.is_apart() {
            self.journal.excuse_all();
        }
        if self.moment() == Moment::Any {
            self.journal.excuse_lookups();
        }
    }

    pub(super) fn nothing_breeds(&mut self, period: Duration) -> Result<(), Violation> {
        let nodes = self.alive.len().max(1);
        let events = self.simulator.totals().events;
        let since = std::mem::replace(&mut self.events_counted, events);
        let bound = EVENTS_PER_NODE_SECOND_MAX * nodes as u64 * period.as_secs().max(1);
        if events - since > bound {
            return broken(NO_BREEDING, format!("{} events in {period:?}, at most {bound}", events - since));
        }
        let hops = running(&self.simulator, &self.alive).next().map_or(0, Peer::route_hops_max);
        let most = self.simulator.watched().and_then(|watch| watch.most_duplicated());
        let Some((errand, Duplicated { times, by })) = most else { return Ok(()) };
        self.outcome.duplicates_max = self.outcome.duplicates_max.max(*times);
        let bound = duplicates_max(by.len(), hops);
        if *times > bound {
            let (times, by) = (*times, by.len());
            return broken(
                NO_BREEDING,
                format!("{times} duplicates by {by} nodes, not {bound}, of {errand:?}"),
            );
        }
        Ok(())
    }

    pub(super) fn has_members(&self, count: usize) -> Result<(), Violation> {
        let members = self.view().members().len();
        match members == count {
            true => Ok(()),
            false => broken(JOINS_END, format!("{members} of {count} nodes are members")),
        }
    }

    /// Nobody joins or leaves any more.
    pub(super) fn has_settled(&self) -> Result<(), Violation> {
        match self.view().nodes().find(|peer| !matches!(peer.phase(), Phase::Member | Phase::Client)) {
            Some(peer) => broken(SETTLES, format!("{} is {:?}", peer.me().id, peer.phase())),
            None => Ok(()),
        }
    }

    pub(super) fn ring_is_ideal(&self) -> Result<(), Violation> {
        let view = self.view();
        ring_is_ideal(&view).or_else(|detail| broken(RING_HEALS, detail))?;
        // By ids it is; but a node that is back is another life.
        let mut stale = view.members().iter().filter_map(|peer| {
            let mut known = peer.predecessor().into_iter().chain(peer.successors().iter().copied());
            Some((peer.me().id, known.find(|contact| view.member(*contact).is_none())?))
        });
        match stale.next() {
            Some((node, gone)) => {
                broken(RING_HEALS, format!("node {node} still knows an earlier life of {}", gone.id))
            }
            None => Ok(()),
        }
    }

    pub(super) fn fingers_are_ideal(&self) -> Result<(), Violation> {
        fingers_are_ideal(&self.view()).or_else(|detail| broken(FINGERS_HEAL, detail))
    }

    /// How long the fingers may take: at rest a node checks one of them a round, whose length is up to a quarter longer than
    /// [`ROUND_MAX`]; and positions that one node stood for may be found stale one after the other, in two tours of the table.
    pub(super) fn fingers_heal_within(&self) -> Duration {
        let known = self.view().members().iter().map(|peer| peer.fingers_known()).max().unwrap_or_default();
        FINGERS_HEAL_WITHIN.max(ROUND_MAX * 5 / 4 * (2 * known as u32 + FINGER_ROUNDS_SPARE))
    }

    pub(super) fn all_ended(&self) -> Result<(), Violation> {
        self.keys.all_ended()?;
        let view = self.view();
        let mut operations = self.journal.operations();
        match operations.find(|(_, asked)| asked.is_open() && view.running(asked.by).is_some()) {
            Some((number, operation)) => broken("every operation ends", format!("{number}: {operation:?}")),
            None => Ok(()),
        }
    }

    pub(super) fn copies_are_in_their_places(&self) -> Result<(), Violation> {
        let members = running(&self.simulator, &self.alive).filter(|peer| peer.is_member());
        let dictionaries = members.map(|peer| (peer.me().id, peer.dictionary()));
        let missing = conservation::missing(&self.scenario.net, dictionaries);
        let now_us = self.simulator.now_us();
        match missing.iter().find(|missing| self.keys.counts(missing.key, now_us)) {
            Some(missing) => broken(keys::IN_THEIR_PLACES, format!("{missing:?}")),
            None => Ok(()),
        }
    }

    /// On a network without faults, whatever was asked for after the operation `earlier` was done.
    pub(super) fn all_succeeded(&self, earlier: u64) -> Result<(), Violation> {
        let mut operations = self.journal.operations().filter(|(number, _)| *number > earlier);
        let failed = operations.find(|(_, operation)| {
            let delivered = operation.deliveries.len() == 1;
            !match operation.asked {
                Asked::Lookup { .. } => matches!(operation.ends[..], [Ok(_)]),
                Asked::Reliable { .. } => matches!(operation.ends[..], [Ok(_)]) && delivered,
                Asked::Send { .. } => delivered,
                // That broadcasts reach all is an invariant of quiet times; of the dictionary `Keys` keeps account.
                Asked::Broadcast { .. } | Asked::Write { .. } | Asked::Read { .. } => true,
            }
        });
        match failed {
            Some((number, operation)) => broken(SUCCEEDS, format!("{number}: {operation:?}")),
            None => Ok(()),
        }
    }

    pub(super) fn broadcast_costs_one_message_a_node(&mut self) -> Result<(), Violation> {
        if !self.scenario.services.contains(&Service::Broadcasts) {
            return Ok(());
        }
        if let Some(watch) = self.simulator.watched() {
            watch.clear();
        }
        self.broadcast();
        self.run_for(SILENCE)?;
        let sent = self.simulator.watched().map(|watch| watch.broadcasting()).unwrap_or_default();
        // What proxies pass on to their clients are messages of their own.
        let (Broadcasting { originals, duplicates }, enough) = (sent, self.members().len() as u64 - 1);
        // Where latencies have a long tail, an acknowledgement may be late without any fault.
        match originals == enough || (duplicates > 0 && originals < enough) {
            true => Ok(()),
            false => broken(BROADCAST_COST, format!("{sent:?} for {} members", enough + 1)),
        }
    }
}
