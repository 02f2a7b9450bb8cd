//! The core of the overlay: ring, link tables, joins, leaves, repair and routing. Pure: it is told the time and what happened,
//! and says what is to be done.
//!
//! `Core` holds a node's state; each flow of the protocol is a file that adds its steps to it. The rules that need no
//! messages stand apart: [`geometry`], `ring`, `table`, `route`, `rtt`.

pub mod effect;
pub mod geometry;
pub mod rtt;
pub(crate) mod timers;
pub(crate) mod ring;
pub(crate) mod table;
pub(crate) mod link_cache;
pub(crate) mod nearby;
pub(crate) mod route;
pub mod forward;
pub mod lookup;
pub mod converged;
pub mod planted;
pub mod duplicates;
pub mod clients;
mod change;
mod deliveries;
mod departed;
pub(crate) mod digest;
mod fingers;
pub(crate) mod group;
pub mod guests;
mod join;
mod leave;
pub mod proxy;
pub(crate) mod repair;
mod reunion;
pub mod stabilise;
#[cfg(test)]
mod golden;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::config::{NetConfig, ProxyUse};
use crate::core::effect::{Event, Outbox, Output, Phase, Upcall};
use crate::id::{Id, Span};
use crate::message::client::Reply;
use crate::message::{Contact, Found, Message, MessageKind, RouteError};
use crate::time::Time;
use clients::Clients;
use deliveries::Delivered;
use departed::Departed;
use duplicates::Duplicates;
use fingers::FingerUpkeep;
use forward::{AckQueues, PendingHops};
use geometry::Offsets;
use guests::Guests;
use join::Joining;
use leave::Leaving;
use link_cache::LinkCache;
use lookup::PendingLookup;
use nearby::Nearby;
use planted::Planted;
use proxy::Proxy;
use repair::Request;
use reunion::Reunion;
use ring::Neighbours;
use route::Router;
use rtt::RoundTrips;
use stabilise::Upkeep;
use table::FingerTable;
use timers::{Timer, Timers};

/// How late a node may take its turn and still trust its time-outs.
const LATENESS_MAX: Duration = Duration::from_millis(50);

/// The most time that a node which was late gives those who wait for its turn.
const GRACE_MAX: Duration = Duration::from_secs(2);

/// The moment, and where effects go.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) out: &'a mut Outbox,
}

impl Context<'_> {
    pub(crate) fn event(&mut self, event: Event) {
        self.out.push(Output::Event(event));
    }
}

/// A node's state.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    pub(crate) net: NetConfig,
    pub(crate) me: Contact,
    pub(crate) phase: Phase,
    /// While leaving: the successor answers for this node's range already.
    handed_over: bool,
    pub(crate) neighbours: Neighbours,
    pub(crate) table: FingerTable,
    /// Near nodes beside the fingers.
    nearby: Nearby,
    link_cache: LinkCache,
    timers: Timers,
    round_trips: RoundTrips,
    /// Requests to single nodes, by token.
    requests: BTreeMap<u64, Request>,
    hops: PendingHops,
    acks: AckQueues,
    /// Look-ups that started here, by sequence number.
    lookups: BTreeMap<u64, PendingLookup>,
    duplicates: Duplicates,
    delivered: Delivered,
    upkeep: Upkeep,
    finger_upkeep: FingerUpkeep,
    pub(crate) departed: Departed,
    reunion: Reunion,
    joining: Option<Joining>,
    leaving: Option<Leaving>,
    pub(crate) proxy_use: ProxyUse,
    guests: Guests,
    pub(crate) clients: Clients,
    pub(crate) proxy: Proxy,
    /// Who handed a range over last, and when: it has the items.
    pub(crate) giver: Option<(Contact, Time)>,
    /// How many items of the dictionary no other node has taken over: a leaving node waits for that.
    pub(crate) items_held: usize,
    /// What waits for the services; they take it before the next input.
    upcalls: VecDeque<Upcall>,
    last_token: u64,
    randomness: Pcg32,
    pub(crate) statistics: Statistics,
    pub(crate) planted: Planted,
}

impl Core {
    pub(crate) fn new(net: NetConfig, me: Contact, offsets: Arc<Offsets>, seed: u64) -> Core {
        let nearby = match net.routing().proximity {
            true => Nearby::new(offsets.len(), net.geometry().is_symmetric()),
            false => Nearby::default(),
        };
        Core {
            net,
            me,
            phase: Phase::Idle,
            handed_over: false,
            neighbours: Neighbours::new(net.ring(), me.id, net.successors()),
            table: FingerTable::new(net.ring(), me.id, offsets),
            nearby,
            link_cache: LinkCache::new(net.routing().link_cache),
            timers: Timers::default(),
            round_trips: RoundTrips::default(),
            requests: BTreeMap::new(),
            hops: PendingHops::default(),
            acks: BTreeMap::new(),
            lookups: BTreeMap::new(),
            duplicates: Duplicates::default(),
            delivered: Delivered::default(),
            upkeep: Upkeep::default(),
            finger_upkeep: FingerUpkeep::default(),
            departed: Departed::default(),
            reunion: Reunion::default(),
            joining: None,
            leaving: None,
            proxy_use: ProxyUse::default(),
            guests: Guests::default(),
            clients: Clients::default(),
            proxy: Proxy::default(),
            giver: None,
            items_held: 0,
            upcalls: VecDeque::new(),
            last_token: 0,
            randomness: Pcg32::seed_from_u64(seed),
            statistics: Statistics::default(),
            planted: Planted::default(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timers.deadline()
    }

    /// Does all that is due.
    pub(crate) fn on_tick(&mut self, cx: &mut Context<'_>) {
        while let Some((due, timer)) = self.timers.expired(cx.now) {
            // Whoever is late itself does not blame others: their answers may be waiting unread.
            let late = cx.now.since(due);
            let grace = (late > LATENESS_MAX).then(|| cx.now + late.min(GRACE_MAX));
            match timer {
                Timer::Acks => self.flush_acks(cx),
                Timer::Hop(hop) => self.on_hop_timeout(cx, hop, grace),
                Timer::Request(token) => self.on_request_timeout(cx, token, grace),
                Timer::Lookup(sequence) => self.on_lookup_due(cx, sequence),
                Timer::Service(number) => self.upcalls.push_back(Upcall::Due(number)),
                Timer::Stabilise => self.on_round(cx),
                Timer::Join => self.on_join_due(cx),
                Timer::Leave => self.on_leave_due(cx),
            }
        }
    }

    /// A message came.
    pub(crate) fn on_message(&mut self, cx: &mut Context<'_>, from: Contact, message: Message) {
        if !matches!(message, Message::Route(_)) {
            self.count(message.kind(), true);
        }
        self.clients.hear(&from, cx.now);
        self.note_life(from);
        if matches!(
            message,
            Message::Query { .. }
                | Message::Neighbours { .. }
                | Message::Notify { .. }
                | Message::Check { .. }
        ) {
            self.hear(cx, from);
        }
        match message {
            Message::Route(route) => self.on_route(cx, from, route),
            Message::Dictionary(talk) => self.upcalls.push_back(Upcall::Said { from, talk }),
            Message::Acks(acks) => self.on_acks(cx, from, &acks),
            Message::Answer { sequence, result, .. } => self.on_answer(cx, sequence, result),
            Message::Undeliverable { destinations, reason } => {
                self.on_undeliverable(cx, &destinations, reason);
            }
            Message::Receipt { sequence } => self.upcalls.push_back(Upcall::Receipt { from, sequence }),
            Message::JoinOffer { sequence, .. } => self.on_join_offer(cx, from, sequence),
            Message::JoinConfirm { sequence } => self.on_join_confirm(cx, from, sequence),
            Message::HandOver { predecessor, successors, fingers } => {
                self.on_hand_over(cx, from, predecessor, &successors, &fingers);
            }
            Message::Leave { predecessor } => self.on_leave(cx, from, predecessor),
            Message::LeaveTaken(taken) => self.on_leave_taken(cx, from, taken),
            Message::Left { successors } => self.on_left(cx, from, &successors),
            Message::Query { token } => self.on_query(cx, from, token),
            Message::Neighbours { token, predecessor, second, successors } => {
                self.on_neighbours(cx, from, token, (predecessor, second), &successors);
            }
            Message::Busy { token, member } => self.on_busy(cx, from, token, member),
            Message::Notify { predecessor } => self.on_notify(cx, from, predecessor),
            Message::Introduce { successors } => self.on_introduce(cx, from, &successors),
            Message::Check { token, target } => self.on_check(cx, from, token, target),
            Message::Checked { token, responsible } => self.on_checked(cx, from, token, responsible),
            Message::Client(talk) => self.on_client_talk(cx, from, talk),
        }
    }

    /// Becomes the first node of a new network.
    pub(crate) fn create(&mut self, cx: &mut Context<'_>) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Member;
            cx.event(Event::Connected { use_proxy: false });
            cx.event(Event::Alone);
        }
    }

    /// Whether it holds a range: a member, or one that is leaving and has not handed over.
    pub(crate) fn is_member(&self) -> bool {
        matches!(self.phase, Phase::Member | Phase::Leaving) && !self.handed_over
    }

    /// Whether it answers for a key now.
    pub(crate) fn is_responsible_of(&self, key: Id) -> bool {
        self.is_member() && self.neighbours.is_mine(key)
    }

    /// The ids that it answers for, if it does for any.
    pub(crate) fn range(&self) -> Option<Span> {
        let answers = matches!(self.phase, Phase::Member | Phase::Leaving) && !self.handed_over;
        answers.then(|| self.neighbours.range())
    }

    fn router(&self) -> Router<'_> {
        Router {
            ring: self.net.ring(),
            me: self.me.id,
            neighbours: &self.neighbours,
            table: &self.table,
            nearby: &self.nearby,
            link_cache: &self.link_cache,
            suspects: self.suspects(),
        }
    }

    /// Sends a message, and the acknowledgements that wait for company on the same way. What a client is answered, or answers,
    /// goes by its proxy.
    fn send(&mut self, cx: &mut Context<'_>, to: Contact, message: Message) {
        if (to.is_client() || self.phase == Phase::Client)
            && let Some(reply) = Reply::of(&message)
        {
            return self.reply(cx, to, reply);
        }
        if self.acks.contains_key(&to) {
            self.flush_acks_to(cx, to);
        }
        self.transmit(cx, to, message);
    }

    fn transmit(&mut self, cx: &mut Context<'_>, to: Contact, message: Message) {
        let local = !matches!(&message, Message::Route(route) if route.source != self.me);
        self.count(message.kind(), local);
        cx.out.push(Output::Send { to, message });
    }

    /// Counts a message that started or ended here (`local`), or was passed on for another node.
    fn count(&mut self, kind: MessageKind, local: bool) {
        let statistics = &mut self.statistics;
        match (kind, local) {
            (MessageKind::Data, true) => statistics.data_messages_local += 1,
            (MessageKind::Data, false) => statistics.data_messages_remote += 1,
            (MessageKind::Control, true) => statistics.control_messages_local += 1,
            (MessageKind::Control, false) => statistics.control_messages_remote += 1,
            (MessageKind::Ack, _) => {}
        }
    }

    /// An answer to something that is no look-up of now: a join, or a service's message, may have been refused.
    fn on_stray_answer(&mut self, cx: &mut Context<'_>, sequence: u64, result: Result<Found, RouteError>) {
        let Err(reason) = result else { return };
        if self.phase == Phase::Joining {
            self.on_join_refused(cx, sequence, reason);
        } else {
            self.upcalls.push_back(Upcall::Refused { sequence, reason });
        }
    }

    /// What the services are to take in next.
    pub(crate) fn next_upcall(&mut self) -> Option<Upcall> {
        self.upcalls.pop_front()
    }

    /// Sends a service's message directly.
    pub(crate) fn tell(&mut self, cx: &mut Context<'_>, to: Contact, message: Message) {
        if to == self.me {
            self.on_message(cx, to, message);
        } else {
            self.send(cx, to, message);
        }
    }

    pub(crate) fn set_service_timer(&mut self, at: Time, number: u64) {
        self.timers.set(at, Timer::Service(number));
    }

    pub(crate) fn cancel_service_timer(&mut self, at: Time, number: u64) {
        self.timers.cancel(at, Timer::Service(number));
    }

    /// A number that this node has not used before: for a hop, a request, a look-up, a message.
    pub(crate) fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// `length`, give or take a quarter, so that nodes do not move in step.
    pub(crate) fn jittered(&mut self, length: Duration) -> Duration {
        let per_mille = 750 + self.randomness.next_u32() % 501;
        length * per_mille / 1000
    }
}

/// What P2PS counts (its manual's `getStatistics`), since the node's start, and what it keeps. "Local" messages started or ended here, "remote"
/// ones were passed on for other nodes; acknowledgements of hops, which P2PS 1.0 had not, are in neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Statistics {
    /// Data messages that started or ended here (`nrDataMsgs_lcl`).
    pub data_messages_local: u64,
    /// Data messages passed on for others (`nrDataMsgs_rm`).
    pub data_messages_remote: u64,
    /// Control messages that started or ended here (`nrCtrlMsgs_lcl`).
    pub control_messages_local: u64,
    /// Control messages passed on for others (`nrCtrlMsgs_rm`).
    pub control_messages_remote: u64,
    /// Messages handed to the application (`nrAppMsgs`).
    pub application_messages: u64,
    /// Messages sent to a next hop for broadcasts, with those that were sent again.
    pub broadcast_messages: u64,
    /// The same for multicasts.
    pub multicast_messages: u64,
    /// Changes of a finger (`nrFingerChgs`).
    pub finger_changes: u64,
    /// Changes of the successor (`nrSuccChgs`).
    pub successor_changes: u64,
    /// Changes of the predecessor (`nrPredChgs`).
    pub predecessor_changes: u64,
    /// Joins that this node handed a range over to.
    pub joins: u64,
    /// Nodes that were taken for dead.
    pub suspicions: u64,
    /// Whether the node is a client of another one, its proxy (`useProxy`).
    pub uses_proxy: bool,
    /// Clients that it is the proxy of now (`nrClients`).
    pub clients: u64,
    /// Links that it opened and that stand now (`nrOutLinks`); 0 where no driver is asked.
    pub links_out: u64,
    /// Links that others opened and that stand now (`nrInLinks`); 0 where no driver is asked.
    pub links_in: u64,
    /// Items of the dictionary that it keeps now.
    pub items: u64,
    /// The bytes that their values have together.
    pub item_bytes: u64,
}
