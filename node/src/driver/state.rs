//! A node's state, and what is done to it within a turn.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::dial::Dials;
use super::mailbox::Sender;
use super::spawner::Task;
use crate::access_point::AccessPoint;
use crate::com::channel::ChannelError;
use crate::com::handshake::HandshakeError;
use crate::com::limits::{BACKLOG_BYTES_MAX, LOOKUPS_MAX, PARTIAL_BYTES_MAX};
use crate::com::link::{Link, Unsent};
use crate::com::links::{LinkKey, Links};
use crate::com::shaping::Shaper;
use crate::core::Statistics;
use crate::id::Id;
use crate::message::dictionary::{Answer, DictionaryError};
use crate::message::{Body, Contact, Found, Message, Route, RouteError};
use crate::metrics::{Recorder, ShapeEffect, Snapshot};
use crate::peer::{Command, Delivery, Event, Input, JoinError, Observation, Outbox, Output, Peer, Phase};
use crate::time::Time;
use crate::wire::{FrameError, PREFIX_BYTES, WireError, decode};

/// What happens to a node, for its application.
#[derive(Debug)]
pub enum NodeEvent {
    /// The overlay's own events.
    Overlay(Event),
    /// The first link to a node stands (P2PS 1.0's `openconn`).
    LinkOpened(Contact),
    /// The last link to a node is gone (P2PS 1.0's `closeconn`).
    LinkClosed {
        /// The node.
        contact: Contact,
        /// Whether it was closed on purpose, or broke off.
        orderly: bool,
        /// What was not sent.
        unsent: Unsent,
    },
    /// No link was made with who came, or with whom this node dialled.
    Refused {
        /// Where the other end is.
        access_point: AccessPoint,
        /// Why.
        error: HandshakeError,
    },
}

/// A look-up's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupEnd {
    /// The caller's number for it.
    pub operation: u64,
    /// When it was issued, on the host's monotonic clock.
    pub issued: Time,
    /// When it ended.
    pub ended: Time,
    /// What became of it.
    pub result: Result<Found, RouteError>,
}

/// Who waits for a look-up.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// One future.
    Once(oneshot::Sender<LookupEnd>),
    /// A stream of ends, in which this one has the caller's number.
    Stream(u64, mpsc::UnboundedSender<LookupEnd>),
}

/// Why a node did not get into a network.
#[derive(Debug)]
pub(crate) struct JoinFailure {
    pub(crate) error: JoinError,
    /// The last node that was asked and refused the link, if any did.
    pub(crate) refusal: Option<(AccessPoint, HandshakeError)>,
}

#[derive(Debug)]
struct Entering {
    waiter: oneshot::Sender<Result<(), JoinFailure>>,
    /// Whom the node may still join by.
    access_points: BTreeSet<AccessPoint>,
}

#[derive(Debug)]
struct Operation {
    intended: Time,
    issued: Time,
    waiter: Waiter,
}

/// Why a link ends.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    Farewell,
    Broken,
}

impl From<ChannelError> for LinkEnd {
    fn from(_: ChannelError) -> LinkEnd {
        LinkEnd::Broken
    }
}

impl From<FrameError> for LinkEnd {
    fn from(_: FrameError) -> LinkEnd {
        LinkEnd::Broken
    }
}

impl From<WireError> for LinkEnd {
    fn from(_: WireError) -> LinkEnd {
        LinkEnd::Broken
    }
}

/// Everything that a node is, behind its lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) peer: Peer,
    pub(crate) turn: u64,
    pub(crate) acceptor: Option<Task>,
    entering: Option<Entering>,
    pub(super) links: Links,
    pub(super) dials: Dials,
    pub(super) shaper: Shaper,
    /// What the peer is told when its turn comes: the answers to its own wishes that are known at once.
    pub(super) inputs: VecDeque<Input>,
    pub(super) driver_waker: Option<Waker>,
    pub(super) driver_woken: bool,
    refusal: Option<(AccessPoint, HandshakeError)>,
    pub(super) events: Sender<NodeEvent>,
    messages: Sender<Delivery>,
    outbox: Outbox,
    pub(super) recorder: Recorder,
    operations: HashMap<u64, Operation>,
    operations_begun: u64,
    /// Who waits for the end of which reliable message.
    sending: HashMap<u64, oneshot::Sender<Result<(), RouteError>>>,
    /// Who waits for the end of which operation on the dictionary.
    asking: HashMap<u64, oneshot::Sender<Result<Answer, DictionaryError>>>,
    application_is_full: bool,
    leaving: Vec<oneshot::Sender<bool>>,
    emptied: Option<oneshot::Sender<()>>,
    partial_bytes: usize,
    stopped: bool,
}

impl State {
    pub(super) fn new(
        peer: Peer,
        shaper: Shaper,
        messages: Sender<Delivery>,
        events: Sender<NodeEvent>,
    ) -> State {
        State {
            peer,
            turn: 0,
            acceptor: None,
            entering: None,
            links: Links::default(),
            dials: Dials::default(),
            shaper,
            inputs: VecDeque::new(),
            driver_waker: None,
            driver_woken: false,
            refusal: None,
            events,
            messages,
            outbox: Outbox::new(),
            recorder: Recorder::default(),
            operations: HashMap::new(),
            operations_begun: 0,
            sending: HashMap::new(),
            asking: HashMap::new(),
            application_is_full: false,
            leaving: Vec::new(),
            emptied: None,
            partial_bytes: 0,
            stopped: false,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The driver task's waker, unless it has been woken already.
    pub(super) fn driver_to_wake(&mut self) -> Option<Waker> {
        if std::mem::replace(&mut self.driver_woken, true) { None } else { self.driver_waker.clone() }
    }

    /// Tells the peer what happened, and does what it wants.
    pub(crate) fn handle(&mut self, now: Time, input: Input) {
        if self.stopped {
            return;
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        self.peer.handle(now, input, &mut outbox);
        for output in outbox.drain(..) {
            self.apply(now, output);
        }
        self.outbox = outbox;
    }

    /// Does what has come due; `true` where more is due already.
    pub(super) fn catch_up(&mut self, now: Time) -> bool {
        self.release(now);
        for _ in 0..self.inputs.len() {
            if let Some(input) = self.inputs.pop_front() {
                self.handle(now, input);
            }
        }
        if self.peer.deadline().is_some_and(|deadline| deadline <= now) {
            self.handle(now, Input::Tick);
        }
        self.links.flush();
        self.check_emptied();
        !self.inputs.is_empty()
    }

    /// A frame came over a link.
    pub(super) fn receive(
        &mut self,
        now: Time,
        key: LinkKey,
        from: Contact,
        body: &[u8],
    ) -> Result<(), LinkEnd> {
        if body.is_empty() {
            return Err(LinkEnd::Farewell);
        }
        if !self.shaper.hears(from.id) {
            self.recorder.shaped(ShapeEffect::Cut, 1);
            return Ok(());
        }
        let message = decode(body, self.peer.net().ring())?;
        self.recorder.received(message.kind(), body.len() + PREFIX_BYTES);
        let turn = self.turn;
        if let Some(link) = self.links.link_mut(key) {
            link.used = turn;
        }
        if matches!(&message, Message::Route(Route { body: Body::Reliable { .. }, .. })) {
            self.tell_room(now);
        }
        self.handle(now, Input::Receive { from, message });
        Ok(())
    }

    /// Tells the peer whether the application reads its messages, where that has changed.
    fn tell_room(&mut self, now: Time) {
        let full = !self.messages.has_room();
        if full != self.application_is_full {
            self.application_is_full = full;
            self.handle(now, Input::ApplicationIsFull(full));
        }
    }

    /// A link keeps another number of bytes of a frame that is not whole yet. `false`: all links together keep too many.
    pub(super) fn keep_partial(&mut self, before: usize, after: usize) -> bool {
        self.partial_bytes = self.partial_bytes - before + after;
        after <= before || self.partial_bytes <= PARTIAL_BYTES_MAX
    }

    /// Takes in a link whose handshake has succeeded. `None`: there is no room, or the node takes no more.
    pub(super) fn add_link(&mut self, now: Time, mut link: Link) -> Option<LinkKey> {
        let contact = link.contact;
        if self.dials.have_ended() || !self.make_room(now, &contact) {
            return None;
        }
        if self.links.find(&contact).is_none() {
            self.events.put(NodeEvent::LinkOpened(contact), 1);
        }
        link.used = self.turn;
        let key = self.links.insert(link);
        self.links.queue(key);
        self.close_surplus(now, false);
        Some(key)
    }

    /// Whether a link to `contact` can be taken in; where the node is full, spare links are closed for it.
    pub(super) fn make_room(&mut self, now: Time, contact: &Contact) -> bool {
        if !self.links.has_room(contact) {
            self.close_surplus(now, true);
        }
        self.links.has_room(contact)
    }

    /// Closes the spare links that are too many, least recently used first.
    pub(super) fn close_surplus(&mut self, now: Time, full: bool) {
        let peer = &self.peer;
        for key in self.links.surplus(full, |contact| peer.is_neighbour(contact)) {
            if let Some(contact) = self.links.close(key) {
                self.link_down(now, contact, true, Unsent::default());
            }
        }
    }

    /// A link is of no use any more.
    pub(super) fn end_link(&mut self, now: Time, key: LinkKey, end: &LinkEnd) {
        let orderly = matches!(end, LinkEnd::Farewell);
        if orderly {
            self.links.flush_one(key);
        }
        if let Some((contact, unsent)) = self.links.remove(key) {
            self.link_down(now, contact, orderly, unsent);
        }
        self.check_emptied();
    }

    fn link_down(&mut self, now: Time, contact: Contact, orderly: bool, unsent: Unsent) {
        self.events.put(NodeEvent::LinkClosed { contact, orderly, unsent }, 1);
        self.handle(now, Input::LinkDown { contact, orderly });
    }

    pub(crate) fn lookup(&mut self, now: Time, key: Id, intended: Option<Time>, waiter: Waiter) {
        let operation = self.operations_begun;
        self.operations_begun += 1;
        let pending = self.operations.len();
        self.operations
            .insert(operation, Operation { intended: intended.unwrap_or(now), issued: now, waiter });
        if self.stopped {
            self.complete(now, operation, Err(RouteError::NotMember));
        } else if pending >= LOOKUPS_MAX {
            self.complete(now, operation, Err(RouteError::Overloaded));
        } else {
            self.handle(now, Input::Command(Command::Lookup { operation, key }));
        }
    }

    /// Sends a message that is delivered or reported failed.
    pub(super) fn send_reliably(
        &mut self,
        now: Time,
        destination: Id,
        payload: Bytes,
        waiter: oneshot::Sender<Result<(), RouteError>>,
    ) {
        let operation = self.operations_begun;
        self.operations_begun += 1;
        // The peer ends at once what it has no room for.
        self.sending.insert(operation, waiter);
        self.handle(now, Input::Command(Command::SendReliably { operation, destination, payload }));
        if self.stopped {
            self.sending.clear();
        }
    }

    /// Does an operation on the dictionary; `order` makes its command from its number.
    pub(super) fn ask_dictionary(
        &mut self,
        now: Time,
        order: impl FnOnce(u64) -> Command,
        waiter: oneshot::Sender<Result<Answer, DictionaryError>>,
    ) {
        let operation = self.operations_begun;
        self.operations_begun += 1;
        self.asking.insert(operation, waiter);
        self.handle(now, Input::Command(order(operation)));
        if self.stopped {
            self.asking.clear();
        }
    }

    pub(super) fn leave(&mut self, now: Time, waiter: oneshot::Sender<bool>) {
        self.leaving.push(waiter);
        self.handle(now, Input::Command(Command::Leave));
    }

    /// Says farewell on all links; what waits to leave leaves before. No other link is made from now on: who came late would
    /// keep the node from its end.
    pub(super) fn close_links(&mut self, emptied: oneshot::Sender<()>) {
        self.release(Time::from_micros(u64::MAX));
        self.end_dials();
        for key in self.links.keys() {
            self.links.close(key);
        }
        self.emptied = Some(emptied);
    }

    /// Closes everything at once, without a farewell.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.end_dials();
        self.shaper.clear();
        for key in self.links.keys() {
            self.links.remove(key);
        }
        self.inputs.clear();
        self.operations.clear();
        self.sending.clear();
        self.asking.clear();
        self.entering = None;
        self.leaving.clear();
        self.messages.close();
        self.events.close();
        if let Some(waker) = self.driver_to_wake() {
            waker.wake();
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let links = (self.links.outbound() as u64, self.links.inbound() as u64);
        self.recorder.snapshot().with_peer(&self.peer).with_links(links.0, links.1)
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let (links_out, links_in) = (self.links.outbound() as u64, self.links.inbound() as u64);
        Statistics { links_out, links_in, ..self.peer.statistics() }
    }

    fn apply(&mut self, now: Time, output: Output) {
        match output {
            Output::Send { to, message } => self.send(now, to, &message),
            Output::Connect { access_point } => self.connect(access_point),
            Output::Reach { contact } => self.reach(contact),
            Output::Deliver(delivery) => {
                let weight = delivery.payload.len();
                self.messages.put(delivery, weight);
            }
            Output::Completed { operation, result } => self.complete(now, operation, result),
            Output::Sent { operation, result } => {
                if let Some(waiter) = self.sending.remove(&operation) {
                    let _ = waiter.send(result);
                }
            }
            Output::Answered { operation, result } => {
                if let Some(waiter) = self.asking.remove(&operation) {
                    let _ = waiter.send(result);
                }
            }
            Output::Event(event) => self.tell(event),
            Output::Observe(Observation::HopLatency(latency)) => self.recorder.hop(latency),
            // Counted by `complete`, from when the look-up was meant to start.
            Output::Observe(Observation::Lookup { .. }) => {}
        }
    }

    /// Messages to one node keep their order: where a dial is under way, they wait for it.
    fn send(&mut self, now: Time, to: Contact, message: &Message) {
        let kind = message.kind();
        if let Message::Route(route) = message
            && route.source != self.peer.me()
        {
            self.recorder.forwarded(kind);
        }
        if self.shaper.is_shaping() && self.send_shaped(now, to, message) {
            return;
        }
        let room = self.links.backlog_bytes() + self.dials.queued_bytes() < BACKLOG_BYTES_MAX;
        let sent = match self.link_to(&to) {
            _ if !room => Ok(None),
            Some(key) => self.links.push(key, self.turn, message),
            None if to == self.peer.me() => {
                return self.unreachable(to.access_point, Some(to), HandshakeError::Itself.to_string());
            }
            None => self.dials.push(to, message),
        };
        // What is dropped, since too much waits or is dialled already, is sent again or elsewhere when no acknowledgement comes.
        if let Ok(Some(bytes)) = sent {
            self.recorder.sent(kind, bytes);
        }
    }

    /// The link over which messages to a node go now; where it is being dialled, they wait for that.
    pub(super) fn link_to(&self, to: &Contact) -> Option<LinkKey> {
        self.links.find(to).filter(|_| !self.dials.is_under_way(to))
    }

    fn connect(&mut self, access_point: AccessPoint) {
        if let Some(contact) = self.links.find_at(access_point) {
            self.inputs.push_back(Input::LinkUp { contact });
        } else if !self.dials.connect(access_point) {
            self.unreachable(access_point, None, "too many dials are under way".to_owned());
        }
    }

    /// The end of the dial, of this one or of one that is under way, tells the peer.
    fn reach(&mut self, contact: Contact) {
        if self.links.has_outbound(&contact) {
            self.inputs.push_back(Input::Reached { contact });
        } else {
            self.dials.probe(contact);
        }
    }

    /// A link that was made only to see that it can be is closed, where there is another one.
    pub(super) fn close_second(&mut self, contact: &Contact) {
        if let Some(key) = self.links.second(contact) {
            self.links.close(key);
        }
    }

    pub(super) fn unreachable(
        &mut self,
        access_point: AccessPoint,
        contact: Option<Contact>,
        reason: String,
    ) {
        self.inputs.push_back(Input::Unreachable { access_point, contact, reason });
    }

    /// Creates a network, or joins one.
    pub(super) fn enter(
        &mut self,
        now: Time,
        input: Input,
        waiter: oneshot::Sender<Result<(), JoinFailure>>,
    ) {
        let access_points = match &input {
            Input::Join { bootstrap } => bootstrap.iter().copied().collect(),
            _ => BTreeSet::new(),
        };
        self.entering = Some(Entering { waiter, access_points });
        self.handle(now, input);
    }

    /// A node to join by makes no link. Where none of them ever will, the join ends here: trying again is of no use.
    pub(super) fn bootstrap_refused(&mut self, access_point: AccessPoint, error: HandshakeError) {
        let reason = error.to_string();
        if error.is_final()
            && let Some(entering) = &mut self.entering
            && entering.access_points.remove(&access_point)
            && entering.access_points.is_empty()
            && let Some(entering) = self.entering.take()
        {
            let failure =
                JoinFailure { error: JoinError::Unreachable(reason), refusal: Some((access_point, error)) };
            let _ = entering.waiter.send(Err(failure));
            return;
        }
        self.refusal = Some((access_point, error));
        self.unreachable(access_point, None, reason);
    }

    fn complete(&mut self, now: Time, operation: u64, result: Result<Found, RouteError>) {
        let Some(Operation { intended, issued, waiter }) = self.operations.remove(&operation) else { return };
        if self.operations.is_empty() && self.operations.capacity() > OPERATIONS_KEPT {
            self.operations = HashMap::new();
        }
        self.recorder.lookup(now.since(intended), result.map(|found| found.hops));
        // Nobody may be waiting any more.
        let _ = match waiter {
            Waiter::Once(sender) => sender.send(LookupEnd { operation, issued, ended: now, result }).is_ok(),
            Waiter::Stream(operation, sender) => {
                sender.send(LookupEnd { operation, issued, ended: now, result }).is_ok()
            }
        };
    }

    fn tell(&mut self, event: Event) {
        let entered = match &event {
            Event::Connected { .. } => Some(Ok(())),
            Event::Alone if self.peer.phase() == Phase::Member => Some(Ok(())),
            Event::Rejected(error) => {
                Some(Err(JoinFailure { error: error.clone(), refusal: self.refusal.take() }))
            }
            _ => None,
        };
        if let Some(result) = entered
            && let Some(entering) = self.entering.take()
        {
            let _ = entering.waiter.send(result);
        }
        if let Event::Left { handed_over } = event {
            for waiter in self.leaving.drain(..) {
                let _ = waiter.send(handed_over);
            }
        }
        self.events.put(NodeEvent::Overlay(event), 1);
    }

    /// Nobody listens any more, and nobody is dialled.
    fn end_dials(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.abort();
        }
        self.dials.end();
    }

    fn check_emptied(&mut self) {
        if self.links.is_empty()
            && let Some(sender) = self.emptied.take()
        {
            let _ = sender.send(());
        }
    }
}

/// Room for how many look-ups a node at rest keeps.
const OPERATIONS_KEPT: usize = 128;
