//! The virtual network: dials, links, and what goes over them.

use super::clock::ClockSkew;
use super::engine::{Due, Simulator};
use super::latency::Latency;
use super::links::{Dialling, LinkEnd, OtherLife};
use super::membership::NodeNumber;
use super::node::{Dial, Flight, Parcel, node_at};
use super::trace::digest;
use crate::access_point::AccessPoint;
use crate::com::limits::{DIAL_TIMEOUT, LINKS_SPARE_MAX, LINKS_SPARE_SLACK, UNACKNOWLEDGED_TIMEOUT};
use crate::com::shaping::{Cut, Departure, Fate, Shaper, hits};
use crate::config::ProxyUse;
use crate::id::Id;
use crate::message::{Contact, Message};
use crate::metrics::{Recorder, ShapeEffect};
use crate::peer::Input;
use crate::time::Time;
use crate::wire::{PREFIX_BYTES, decode, encode};

/// How often a dial that a cut keeps from being made is tried again, in microseconds.
const CUT_RETRY_US: u64 = 100_000;

/// The most that waits for a paused node; what comes beyond it is lost, as its senders' buffers are full.
const HELD_MAX: usize = 100_000;

/// What all links of a network have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkModel {
    /// How long messages take.
    pub latency: Latency,
    /// How many of a million messages are lost.
    pub loss_ppm: u32,
    /// How the nodes' clocks differ.
    pub clock_skew: ClockSkew,
}

impl Default for NetworkModel {
    /// A latency of 1 ms, no loss, equal clocks.
    fn default() -> NetworkModel {
        NetworkModel {
            latency: Latency::Constant { us: 1000 },
            loss_ppm: 0,
            clock_skew: ClockSkew::default(),
        }
    }
}

impl Simulator {
    /// Sends a message of a peer: over the link that stands, behind what waits for one, or with a new dial.
    pub(super) fn send(&mut self, node: NodeNumber, to: Contact, message: Message) {
        let me = self.present_contact(node);
        let kind = message.kind();
        let forwarded = matches!(&message, Message::Route(route) if route.source != me);
        if to == me {
            return self.unreachable(to, "this is the node itself");
        }
        self.frame.clear();
        // A message that no receiver would take is not sent.
        let Ok(bytes) = encode(&message, &mut self.frame) else { return };
        if let Some(recorder) = self.recorder(node) {
            if forwarded {
                recorder.forwarded(kind);
            }
            recorder.sent(kind, bytes);
        }
        self.totals.sent_bytes += bytes as u64;
        if let Some(watch) = &mut self.watch {
            watch.see(self.now_us, node, to, &message);
        }
        match self.shaped(node, to, bytes) {
            None => {}
            Some(Fate::Waits(until)) => {
                let frame = self.frame.clone();
                if let Some(shaper) = self.shaper(node) {
                    shaper.hold(until, Departure { to, frame });
                }
                return;
            }
            Some(_) => return,
        }
        let digest = digest(&self.frame);
        self.transmit(node, to, Parcel::Message { message, bytes: bytes as u32, digest });
    }

    /// What the node's rules do to a message; `None`: nothing.
    fn shaped(&mut self, node: NodeNumber, to: Contact, bytes: usize) -> Option<Fate> {
        let now = Time::from_micros(self.now_us);
        let shaper = self.shaper(node)?;
        let shape = shaper.shape(to.id)?;
        let fate = shaper.decide(now, to.id, bytes);
        let effect = match fate {
            Fate::Leaves => return None,
            Fate::Waits(_) => ShapeEffect::Delayed,
            Fate::Lost => ShapeEffect::Lost,
            Fate::Cut => ShapeEffect::Cut,
            Fate::Overflow => ShapeEffect::Overflow,
        };
        if let Some(recorder) = self.recorder(node) {
            recorder.shaped(effect, 1);
        }
        // Where no link can be made, the attempt fails in its time.
        if shape.cut == Cut::Both {
            self.dial(node, to);
        }
        Some(fate)
    }

    /// Sends what its rules have held back until now.
    pub(super) fn release(&mut self, node: NodeNumber) {
        let now = Time::from_micros(self.now_us);
        while let Some(Departure { to, frame }) = self.shaper(node).and_then(|shaper| shaper.depart(now)) {
            let message = decode(&frame[PREFIX_BYTES..], self.net.ring());
            if let Ok(message) = message {
                let (bytes, digest) = (frame.len() as u32, digest(&frame));
                self.transmit(node, to, Parcel::Message { message, bytes, digest });
            }
        }
    }

    fn transmit(&mut self, node: NodeNumber, to: Contact, parcel: Parcel) {
        if hits(self.model.loss_ppm, &mut self.random) {
            return;
        }
        let Some(other) = self.known(to) else { return self.unreachable(to, "there is no such host") };
        let from_life = self.nodes[node.index()].lives;
        let to_life = to.incarnation as u32;
        if to.is_client() && !self.is_linked(node, other, to_life) {
            return self.unreachable(to, "a client accepts no links");
        }
        let flight = Flight { from: node, from_life, to: other, to_life, next: None, parcel };
        let slot = self.flights.insert(flight);
        if !self.queue_on_dial(node, other, to_life, slot) {
            self.fly(node, other, to_life, slot);
        }
    }

    /// Whether a link between two nodes stands, as far as the first one knows.
    fn is_linked(&mut self, node: NodeNumber, other: NodeNumber, life: u32) -> bool {
        let living = self.nodes[node.index()].life.as_deref_mut();
        living.and_then(|living| living.links.get_mut(other, life)).is_some_and(|end| end.is_open())
    }

    /// Puts a flight behind what waits for a dial, which is begun if no link stands. `false`: one does.
    fn queue_on_dial(&mut self, node: NodeNumber, other: NodeNumber, life: u32, slot: u32) -> bool {
        let now_us = self.now_us;
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return true };
        let end = living.links.entry(other, life);
        end.used_us = now_us;
        if end.is_open() && end.dialling.as_ref().is_none_or(|dialling| dialling.probes) {
            return false;
        }
        let begins = end.dialling.is_none();
        if begins {
            end.dialling = Dialling::begin(now_us);
        }
        if let Some(dialling) = &mut end.dialling {
            let before = dialling.waiting;
            dialling.waiting = Some((before.map_or(slot, |(first, _)| first), slot));
            if let Some(last) = before.and_then(|(_, last)| self.flights.get_mut(last)) {
                last.next = Some(slot);
            }
        }
        if begins {
            self.begin_dial(node, other, life, false);
        }
        true
    }

    /// Dials a node that nothing waits for, unless a link stands or is being made.
    fn dial(&mut self, node: NodeNumber, to: Contact) {
        let (Some(other), now_us) = (self.known(to), self.now_us) else { return };
        let life = to.incarnation as u32;
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let end = living.links.entry(other, life);
        if end.dialling.is_none() && !end.is_open() {
            end.dialling = Dialling::begin(now_us);
            self.begin_dial(node, other, life, false);
        }
    }

    /// Tells the node whether it reaches another one, by a link of its own.
    pub(super) fn reach(&mut self, node: NodeNumber, contact: Contact) {
        let Some(other) = self.known(contact) else {
            return self.unreachable(contact, "there is no such host");
        };
        let (life, now_us) = (contact.incarnation as u32, self.now_us);
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let end = living.links.entry(other, life);
        if end.outbound {
            self.inputs.push_back(Input::Reached { contact });
        } else if end.dialling.is_none() {
            end.dialling = Dialling::probe(now_us);
            self.begin_dial(node, other, life, false);
        }
    }

    /// Makes a link to whoever is at an access point.
    pub(super) fn connect(&mut self, node: NodeNumber, access_point: AccessPoint) {
        let other = node_at(access_point).filter(|other| other.index() < self.nodes.len());
        let Some(other) = other else {
            let reason = "there is no such host".to_owned();
            return self.inputs.push_back(Input::Unreachable { access_point, contact: None, reason });
        };
        let Some(living) = self.nodes[node.index()].life.as_deref() else { return };
        if let Some((life, end)) = living.links.open_to(other) {
            let contact = end.known(self.contact_of(other, life));
            return self.inputs.push_back(Input::LinkUp { contact });
        }
        self.begin_dial(node, other, 0, true);
    }

    /// The connection stands, or is refused, a round trip later.
    fn begin_dial(&mut self, node: NodeNumber, other: NodeNumber, life: u32, anyone: bool) {
        self.totals.dials += 1;
        let round_trip_us = self.latency(node, other) + self.latency(other, node);
        let dial = Dial { since_us: self.now_us, anyone };
        self.come_back(node, other, life, round_trip_us, Parcel::Connected { dial });
    }

    /// Something comes to `node` from `other` after so long, on no link.
    pub(super) fn come_back(
        &mut self,
        node: NodeNumber,
        other: NodeNumber,
        life: u32,
        after_us: u64,
        parcel: Parcel,
    ) {
        let to_life = self.nodes[node.index()].lives;
        let flight = Flight { from: other, from_life: life, to: node, to_life, next: None, parcel };
        let slot = self.flights.insert(flight);
        self.queue.push(self.now_us + after_us, Due::Flight(slot));
    }

    /// A flight leaves on a link: it does not overtake what left before.
    pub(super) fn fly(&mut self, node: NodeNumber, other: NodeNumber, life: u32, slot: u32) {
        let arrives_us = self.now_us + self.latency(node, other);
        let end = self.nodes[node.index()].life.as_deref_mut().and_then(|l| l.links.get_mut(other, life));
        let arrives_us = end.map_or(arrives_us, |end| {
            end.arrives_us = end.arrives_us.max(arrives_us);
            end.arrives_us
        });
        self.queue.push(arrives_us, Due::Flight(slot));
    }

    /// Something arrives.
    pub(super) fn arrive(&mut self, slot: u32) {
        let Some(flight) = self.flights.get_mut(slot) else { return };
        let (from, from_life, to, to_life) = (flight.from, flight.from_life, flight.to, flight.to_life);
        let (word, is_end) = (flight.parcel.word(), matches!(flight.parcel, Parcel::Gone { .. }));
        self.note(to, word ^ u64::from(from.0) << 32);
        let from_id = if is_end { self.ids[from.index()] } else { Id::default() };
        let there = &mut self.nodes[to.index()];
        let Some(life) = there.life_numbered(to_life) else {
            if let Some(flight) = self.flights.take(slot) {
                self.bounce(flight);
            }
            return;
        };
        if life.paused || (is_end && !life.hears(from_id)) {
            if life.held.len() < HELD_MAX {
                life.held.push(slot);
                self.hold_back(slot);
            } else {
                self.flights.take(slot);
            }
            return;
        }
        let Some(flight) = self.flights.take(slot) else { return };
        match flight.parcel {
            Parcel::Message { message, bytes, .. } => self.on_message(to, from, from_life, message, bytes),
            Parcel::Connected { dial } => self.on_connected(to, from, from_life, dial),
            Parcel::Handshake { dial } => self.on_handshake(to, from, from_life, dial),
            Parcel::Welcome { dial } => self.on_welcome(to, from, from_life, dial),
            Parcel::Failed { dial, reason } => self.on_failed(to, from, from_life, dial, reason),
            Parcel::Gone { orderly, since_us } => self.on_gone(to, from, from_life, orderly, since_us),
        }
    }

    /// A handshake that a stopped process does not answer fails for the one that dialled.
    fn hold_back(&mut self, slot: u32) {
        let held = self.flights.get(slot);
        if let Some(Flight { from, to, to_life, parcel: Parcel::Handshake { dial }, .. }) = held {
            self.time_out(*from, *to, *to_life, *dial);
        }
    }

    /// A dial fails when its time is up.
    fn time_out(&mut self, node: NodeNumber, other: NodeNumber, life: u32, dial: Dial) {
        let until_us = dial.since_us + DIAL_TIMEOUT.as_micros() as u64;
        let life = if dial.anyone { 0 } else { life };
        let reason = "no answer in time";
        self.come_back(
            node,
            other,
            life,
            until_us.saturating_sub(self.now_us),
            Parcel::Failed { dial, reason },
        );
    }

    /// Something came to a life that is over.
    fn bounce(&mut self, flight: Flight) {
        let Flight { from, to, to_life, parcel, .. } = flight;
        let vanished = self.nodes[to.index()].vanished;
        match parcel {
            Parcel::Handshake { dial } if vanished => self.time_out(from, to, to_life, dial),
            Parcel::Handshake { dial } => {
                let after_us = self.latency(to, from);
                let life = if dial.anyone { 0 } else { to_life };
                let reason = "another node, or none, is there";
                self.come_back(from, to, life, after_us, Parcel::Failed { dial, reason });
            }
            // What is written is never acknowledged: the sender's system breaks the link.
            Parcel::Message { .. } if vanished => {
                let (orderly, since_us) = (false, self.now_us);
                let after_us = UNACKNOWLEDGED_TIMEOUT.as_micros() as u64;
                self.come_back(from, to, to_life, after_us, Parcel::Gone { orderly, since_us });
            }
            _ => {}
        }
    }

    fn on_message(&mut self, to: NodeNumber, from: NodeNumber, life: u32, message: Message, bytes: u32) {
        let now_us = self.now_us;
        let is_hidden = self.nodes[from.index()].proxy_use != ProxyUse::Never;
        let mut contact = self.contact_of(from, life);
        let Some(living) = self.nodes[to.index()].life.as_deref_mut() else { return };
        let hears = living.hears(contact.id);
        match living.links.get_mut(from, life) {
            Some(end) => {
                end.used_us = now_us;
                contact = end.known(contact);
            }
            // By which link it came, and so as whom its sender was known, cannot be told any more.
            None if is_hidden => return,
            None => {}
        }
        if let Some(recorder) = &mut living.recorder {
            if hears {
                recorder.received(message.kind(), bytes as usize);
            } else {
                recorder.shaped(ShapeEffect::Cut, 1);
            }
        }
        if hears {
            self.totals.messages += 1;
            self.turn(to, Input::Receive { from: contact, message });
        }
    }

    /// A dial's connection stands, if the other host is there: the handshake leaves, and what waits with it.
    fn on_connected(&mut self, node: NodeNumber, other: NodeNumber, life: u32, dial: Dial) {
        let there = &self.nodes[other.index()];
        let (id, other_id) = (self.ids[node.index()], self.ids[other.index()]);
        let open =
            |from: NodeNumber, to| self.nodes[from.index()].life.as_ref().is_none_or(|life| life.reaches(to));
        if there.vanished {
            return self.time_out(node, other, life, dial);
        }
        if !there.accepts_links() {
            return self.on_failed(node, other, life, dial, "connection refused");
        }
        if !open(node, other_id) || !open(other, id) {
            let until_us = dial.since_us + DIAL_TIMEOUT.as_micros() as u64;
            return match until_us.checked_sub(self.now_us).filter(|left_us| *left_us > CUT_RETRY_US) {
                Some(_) => self.come_back(node, other, life, CUT_RETRY_US, Parcel::Connected { dial }),
                None => self.time_out(node, other, life, dial),
            };
        }
        let to_life = if dial.anyone { there.lives } else { life };
        let from_life = self.nodes[node.index()].lives;
        let parcel = Parcel::Handshake { dial };
        let slot =
            self.flights.insert(Flight { from: node, from_life, to: other, to_life, next: None, parcel });
        self.fly(node, other, to_life, slot);
        if !dial.anyone {
            self.flush(node, other, life);
        }
    }

    /// What waits for a dial leaves.
    fn flush(&mut self, node: NodeNumber, other: NodeNumber, life: u32) {
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let dialling = living.links.get_mut(other, life).and_then(|end| end.dialling.as_mut());
        let Some(dialling) = dialling else { return };
        dialling.flushed = true;
        let mut next = dialling.waiting.take().map(|(first, _)| first);
        while let Some(slot) = next {
            next = self.flights.get_mut(slot).and_then(|flight| flight.next.take());
            self.fly(node, other, life, slot);
        }
    }

    fn on_handshake(&mut self, node: NodeNumber, other: NodeNumber, other_life: u32, dial: Dial) {
        let now_us = self.now_us;
        let dialler = self.nodes[other.index()].life_numbered(other_life);
        let client = dialler.is_some_and(|life| life.peer.me().is_client());
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let end = living.links.entry(other, other_life);
        if !end.is_open() {
            (end.since_us, end.client) = (now_us, client);
        }
        (end.inbound, end.used_us) = (true, now_us);
        let life = self.nodes[node.index()].lives;
        let (to_life, parcel) = (other_life, Parcel::Welcome { dial });
        let slot = self.flights.insert(Flight {
            from: node,
            from_life: life,
            to: other,
            to_life,
            next: None,
            parcel,
        });
        self.fly(node, other, other_life, slot);
        self.close_surplus(node);
    }

    fn on_welcome(&mut self, node: NodeNumber, other: NodeNumber, other_life: u32, dial: Dial) {
        let now_us = self.now_us;
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let end = living.links.get_mut(other, other_life);
        if !dial.anyone && !end.is_some_and(|end| end.is_dialling_since(dial.since_us)) {
            // It has been given up: the connection was closed.
            return self.hang_up(node, other, other_life, false);
        }
        let end = living.links.entry(other, other_life);
        if !end.is_open() {
            end.since_us = now_us;
        }
        (end.outbound, end.used_us) = (true, now_us);
        if !dial.anyone {
            self.flush(node, other, other_life);
            self.stop_dialling(node, other, other_life);
        }
        self.close_surplus(node);
        let contact = self.contact_of(other, other_life);
        let input = if dial.anyone { Input::LinkUp { contact } } else { Input::Reached { contact } };
        self.turn(node, input);
    }

    fn stop_dialling(&mut self, node: NodeNumber, other: NodeNumber, life: u32) {
        if let Some(living) = self.nodes[node.index()].life.as_deref_mut()
            && let Some(end) = living.links.get_mut(other, life)
        {
            end.dialling = None;
        }
    }

    fn on_failed(&mut self, node: NodeNumber, other: NodeNumber, life: u32, dial: Dial, reason: &str) {
        let reason = reason.to_owned();
        if dial.anyone {
            let access_point = super::node::access_point(other);
            return self.turn(node, Input::Unreachable { access_point, contact: None, reason });
        }
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let Some(end) = living.links.get_mut(other, life) else { return };
        if !end.is_dialling_since(dial.since_us) {
            return;
        }
        let waiting = end.dialling.take().and_then(|dialling| dialling.waiting);
        if !end.is_open() {
            living.links.remove(other, life);
        }
        self.drop_waiting(waiting);
        let contact = self.contact_of(other, life);
        let access_point = contact.access_point;
        self.turn(node, Input::Unreachable { access_point, contact: Some(contact), reason });
    }

    /// What waited for a dial is lost.
    pub(super) fn drop_waiting(&mut self, waiting: Option<(u32, u32)>) {
        let mut next = waiting.map(|(first, _)| first);
        while let Some(slot) = next {
            next = self.flights.take(slot).and_then(|flight| flight.next);
        }
    }

    fn on_gone(&mut self, node: NodeNumber, other: NodeNumber, life: u32, orderly: bool, since_us: u64) {
        let contact = self.contact_of(other, life);
        let Some(living) = self.nodes[node.index()].life.as_deref_mut() else { return };
        let Some(end) = living.links.get_mut(other, life).filter(|end| end.is_open()) else { return };
        if end.since_us > since_us {
            return;
        }
        (end.inbound, end.outbound) = (false, false);
        let contact = end.known(contact);
        if end.dialling.is_none() {
            living.links.remove(other, life);
        }
        self.turn(node, Input::LinkDown { contact, orderly });
    }

    /// Closes the links that no table needs where they are too many, least recently used first.
    fn close_surplus(&mut self, node: NodeNumber) {
        let Some(living) = self.nodes[node.index()].life.as_deref() else { return };
        let links = &living.links;
        if links.len() < links.sweep_at.max(LINKS_SPARE_MAX + LINKS_SPARE_SLACK) {
            return;
        }
        let known = |(other, end): (OtherLife, &LinkEnd)| end.known(self.contact_of(other.node, other.life));
        let mut spare: Vec<(u64, OtherLife, Contact)> = links
            .iter()
            .filter(|(_, end)| end.is_open() && end.dialling.is_none())
            .map(|(other, end)| (end.used_us, other, known((other, end))))
            .filter(|(.., contact)| !living.peer.is_neighbour(contact))
            .collect();
        spare.sort_unstable();
        let surplus = spare.len().saturating_sub(LINKS_SPARE_MAX);
        let sweep_at = links.len() - surplus + LINKS_SPARE_SLACK;
        if let Some(living) = self.nodes[node.index()].life.as_deref_mut() {
            living.links.sweep_at = sweep_at;
        }
        for (_, OtherLife { node: other, life }, contact) in spare.into_iter().take(surplus) {
            self.hang_up(node, other, life, true);
            if let Some(living) = self.nodes[node.index()].life.as_deref_mut() {
                living.links.remove(other, life);
            }
            self.inputs.push_back(Input::LinkDown { contact, orderly: true });
        }
        if let Some(input) = self.inputs.pop_front() {
            self.turn(node, input);
        }
    }

    /// The other end of a link hears that this one is gone.
    pub(super) fn hang_up(&mut self, node: NodeNumber, other: NodeNumber, life: u32, orderly: bool) {
        let parcel = Parcel::Gone { orderly, since_us: self.now_us };
        let from_life = self.nodes[node.index()].lives;
        let flight = Flight { from: node, from_life, to: other, to_life: life, next: None, parcel };
        let slot = self.flights.insert(flight);
        self.fly(node, other, life, slot);
    }

    fn latency(&mut self, from: NodeNumber, to: NodeNumber) -> u64 {
        self.model.latency.draw(self.seed, from.0, to.0, &mut self.random)
    }

    /// The node that a contact speaks of.
    fn known(&self, contact: Contact) -> Option<NodeNumber> {
        let node = node_at(contact.access_point)?;
        self.ids.get(node.index()).filter(|id| **id == contact.id).map(|_| node)
    }

    pub(super) fn contact_of(&self, node: NodeNumber, life: u32) -> Contact {
        super::node::contact(self.ids[node.index()], node, life)
    }

    /// How others know a node's present, or last, life.
    pub(super) fn present_contact(&self, node: NodeNumber) -> Contact {
        self.contact_of(node, self.nodes[node.index()].lives)
    }

    fn unreachable(&mut self, to: Contact, reason: &str) {
        let (access_point, reason) = (to.access_point, reason.to_owned());
        self.inputs.push_back(Input::Unreachable { access_point, contact: Some(to), reason });
    }

    pub(super) fn recorder(&mut self, node: NodeNumber) -> Option<&mut Recorder> {
        self.nodes[node.index()].life.as_deref_mut()?.recorder.as_deref_mut()
    }

    fn shaper(&mut self, node: NodeNumber) -> Option<&mut Shaper> {
        self.nodes[node.index()].life.as_deref_mut()?.shaper.as_deref_mut()
    }
}
