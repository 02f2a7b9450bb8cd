//! A member as the proxy of clients: nodes whose ids it is responsible of, but which nobody can reach (P2PS's `useProxy`). They stand in
//! no ring and in no finger table, and answer for no keys. The proxy passes on what is for their ids, and their share of
//! broadcasts, over the link that they keep to it; what they send begins its way here, as if it were the proxy's own. The
//! way between the two is a hop like any other: acknowledged, and tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::core::digest::Digest;
use crate::core::effect::{Event, Phase};
use crate::core::forward::Passage;
use crate::core::guests::Wish;
use crate::core::lookup::{LOOKUPS_PENDING_MAX, LookupPurpose};
use crate::core::route::NextHop;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::client::{ClientTalk, Rejection};
use crate::message::{Body, Contact, HopVerdict, Message, Route, RouteError};
use crate::time::Time;

/// The most clients of one node; another is refused.
pub const CLIENTS_MAX: usize = 256;

/// The most messages of one client, or to it, that a node has on their way to a next hop: one client does not take the
/// room of all others.
pub const CLIENT_HOPS_MAX: usize = 256;

/// The most payload that those messages have together, in bytes, before one more is refused.
pub const CLIENT_HOPS_BYTES_MAX: usize = 4 << 20;

/// How long a client may be silent before it is asked whether it lives. It says something every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The clients of a node, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Clients {
    known: BTreeMap<Id, Client>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client {
    /// As the network knows it.
    contact: Contact,
    /// As the link to it is known: made before it was a client, perhaps.
    link: Contact,
    heard_at: Time,
}

impl Clients {
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.unordered(self.known.values(), |digest, Client { contact, link, heard_at }| {
            digest.contact(*contact);
            digest.contact(*link);
            digest.time(*heard_at + SILENCE_MAX);
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.known.values().map(|client| client.contact)
    }

    /// Whether this is a client, in its present life.
    pub(crate) fn contains(&self, contact: &Contact) -> bool {
        self.known.get(&contact.id).is_some_and(|client| client.contact.incarnation == contact.incarnation)
    }

    /// Whether a client's link is known by this contact.
    pub(crate) fn has_link(&self, link: &Contact) -> bool {
        self.known.get(&link.id).is_some_and(|client| client.link == *link)
    }

    /// Whether another node than this one is a client with its id.
    pub(crate) fn has_other(&self, contact: &Contact) -> bool {
        self.known.contains_key(&contact.id) && !self.contains(contact)
    }

    /// A node has spoken; it may be a client.
    pub(crate) fn hear(&mut self, from: &Contact, now: Time) {
        if let Some(client) = self.known.get_mut(&from.id)
            && client.contact.incarnation == from.incarnation
        {
            client.heard_at = now;
        }
    }
}

impl Core {
    /// A client, a joiner or a proxy says something.
    pub(crate) fn on_client_talk(&mut self, cx: &mut Context<'_>, from: Contact, talk: ClientTalk) {
        match talk {
            ClientTalk::Locate { sequence } => self.on_locate(cx, from, sequence),
            ClientTalk::Located { sequence, result } => self.on_located(cx, from, sequence, result),
            ClientTalk::Admit { sequence, as_client } => self.on_admit(cx, from, sequence, as_client),
            ClientTalk::Accepted { sequence, predecessor, successors } => {
                self.on_accepted(cx, from, sequence, predecessor, successors);
            }
            ClientTalk::Rejected { sequence, reason } => self.on_rejected(cx, from, sequence, reason),
            ClientTalk::Farewell => self.drop_client(cx, &from),
        }
    }

    /// A node asks who is responsible of its id.
    fn on_locate(&mut self, cx: &mut Context<'_>, from: Contact, sequence: u64) {
        let refusal = if self.phase != Phase::Member {
            Some(RouteError::NotMember)
        } else {
            (self.lookups.len() >= LOOKUPS_PENDING_MAX).then_some(RouteError::Overloaded)
        };
        match refusal {
            Some(reason) => self.tell_located(cx, from, sequence, Err(reason)),
            None => self.start_lookup(cx, from.id, LookupPurpose::Guest { guest: from, sequence }),
        }
    }

    pub(crate) fn tell_located(
        &mut self,
        cx: &mut Context<'_>,
        guest: Contact,
        sequence: u64,
        result: Result<Contact, RouteError>,
    ) {
        self.send(cx, guest, Message::Client(ClientTalk::Located { sequence, result }));
    }

    /// A node wants to be let in, or to remain.
    fn on_admit(&mut self, cx: &mut Context<'_>, from: Contact, sequence: u64, as_client: bool) {
        let as_client = as_client || from.is_client();
        let reason = if self.phase == Phase::Member && from.id == self.me.id || self.clients.has_other(&from)
        {
            Some(Rejection::IdInUse)
        } else if !self.answers_for(from, as_client) {
            Some(Rejection::NotResponsible)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.send(cx, from, Message::Client(ClientTalk::Rejected { sequence, reason }));
        } else if as_client {
            self.take_client_in(cx, from, sequence);
        } else if self.is_reached(cx, from, sequence, Wish::Offer) {
            self.offer_place(cx, from, sequence);
        }
    }

    /// Whether this node can let another into the ring; or is, or remains for the time being, its proxy.
    fn answers_for(&self, node: Contact, as_client: bool) -> bool {
        let unclaimed = self.neighbours.predecessor().is_none();
        let is_proxy = as_client && (unclaimed || self.clients.contains(&node));
        self.phase == Phase::Member && (self.neighbours.is_mine(node.id) || is_proxy)
    }

    /// A node becomes a client, or remains one.
    pub(crate) fn take_client_in(&mut self, cx: &mut Context<'_>, link: Contact, sequence: u64) {
        let contact = link.as_client();
        let is_new = !self.clients.contains(&contact);
        if is_new && self.clients.len() >= CLIENTS_MAX {
            let talk = ClientTalk::Rejected { sequence, reason: Rejection::Full };
            return self.send(cx, link, Message::Client(talk));
        }
        self.clients.known.insert(contact.id, Client { contact, link, heard_at: cx.now });
        if is_new {
            cx.event(Event::ClientJoined(contact));
            self.see_to_clients(cx);
        }
        self.tell_client(cx, link, sequence);
    }

    /// The successors are others: who needs another proxy soon looks for it among them.
    pub(crate) fn tell_clients(&mut self, cx: &mut Context<'_>) {
        for link in self.client_links() {
            self.tell_client(cx, link, 0);
        }
    }

    fn tell_client(&mut self, cx: &mut Context<'_>, link: Contact, sequence: u64) {
        let predecessor = self.neighbours.predecessor();
        let successors = self.neighbours.successors().to_vec();
        let talk = ClientTalk::Accepted { sequence, predecessor, successors };
        self.send(cx, link, Message::Client(talk));
    }

    /// A client has left, or is gone.
    pub(crate) fn drop_client(&mut self, cx: &mut Context<'_>, contact: &Contact) {
        if self.clients.contains(contact)
            && let Some(client) = self.clients.known.remove(&contact.id)
        {
            cx.event(Event::ClientLeft(client.contact));
        }
    }

    /// Asks clients that have been silent for long whether they live.
    pub(crate) fn ask_silent_clients(&mut self, cx: &mut Context<'_>) {
        let is_silent = |client: &&Client| cx.now.since(client.heard_at) > SILENCE_MAX;
        let silent: Vec<Contact> =
            self.clients.known.values().filter(is_silent).map(|client| client.link).collect();
        for link in silent {
            self.probe(cx, link);
        }
    }

    /// Another node stands before this one: it is the proxy of the clients before it.
    pub(crate) fn hand_clients_over(&mut self, cx: &mut Context<'_>) {
        let given = |client: &&Client| !self.neighbours.is_mine(client.contact.id);
        let given: Vec<Contact> =
            self.clients.known.values().filter(given).map(|client| client.link).collect();
        for link in given {
            self.tell_client(cx, link, 0);
        }
    }

    /// The links of all clients.
    pub(crate) fn client_links(&self) -> Vec<Contact> {
        self.clients.known.values().map(|client| client.link).collect()
    }

    /// Why a message that a client sends is not taken in.
    pub(crate) fn client_refusal(&self, route: &Route) -> Option<HopVerdict> {
        if !self.clients.contains(&route.source) {
            return Some(HopVerdict::NotMember);
        }
        self.is_busy_client(route.source.id).then_some(HopVerdict::Overloaded)
    }

    fn is_busy_client(&self, id: Id) -> bool {
        let (messages, bytes) = self.hops.load_of(id);
        messages >= CLIENT_HOPS_MAX || bytes >= CLIENT_HOPS_BYTES_MAX
    }

    /// The last hop of a message for a client of this node, if it is for one.
    pub(crate) fn hop_to_client(&self, route: &Route) -> Option<Result<NextHop, RouteError>> {
        let is_for_node = match &route.body {
            Body::Data { exact, .. } => *exact,
            Body::Reliable { .. } => true,
            Body::Reply { incarnation, .. } => {
                let client = self.clients.known.get(&route.key)?;
                client.contact.incarnation == *incarnation
            }
            _ => false,
        };
        if is_for_node { self.hop_to(route.key) } else { None }
    }

    /// The hop to the client with this id, if there is one.
    pub(crate) fn hop_to(&self, id: Id) -> Option<Result<NextHop, RouteError>> {
        let to = self.clients.known.get(&id)?.link;
        if self.is_busy_client(id) {
            return Some(Err(RouteError::Overloaded));
        }
        Some(Ok(NextHop::to(to)))
    }

    /// All clients get a broadcast when their proxy does, but for the one that sent it.
    pub(crate) fn spread_to_clients(&mut self, cx: &mut Context<'_>, route: &Route, payload: &Bytes) {
        let others: Vec<Contact> =
            self.clients.contacts().filter(|client| client.id != route.source.id).collect();
        for client in others {
            let body = Body::Data { exact: true, payload: payload.clone() };
            let route = Route { entry: None, backward: 0, ..route.carrying(client.id, body) };
            match self.hop_to(client.id) {
                Some(Ok(next)) => self.forward(cx, Passage::beginning(route), next),
                Some(Err(reason)) => self.refuse(cx, &route, reason),
                None => {}
            }
        }
    }
}
