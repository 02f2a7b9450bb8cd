//! A client's side of its proxy. It keeps one link, to the member that is responsible of its id; by that member it sends, and is sent,
//! everything. When the proxy goes, one of its successors takes its place; when a node joins between the two, that one does.
//! What is to be sent meanwhile waits.

use std::collections::VecDeque;
use std::time::Duration;

use crate::access_point::AccessPoint;
use crate::config::ProxyUse;
use crate::core::digest::Digest;
use crate::core::effect::{Event, JoinError, Phase};
use crate::core::forward::Passage;
use crate::core::repair::Purpose;
use crate::core::route::NextHop;
use crate::core::{Context, Core};
use crate::message::client::{ClientTalk, Rejection, Reply};
use crate::message::{Body, Contact, HopVerdict, Message, Route, RouteError};

/// How often a client asks whether its proxy is there.
pub const PROXY_ROUND: Duration = Duration::from_secs(4);

/// The most messages that wait for a proxy.
pub const WAITING_MAX: usize = 1024;

/// The most payload that they have together, in bytes.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// How many of the members that it knew last a client asks when those that it knows are gone.
const FORMER_MAX: usize = 8;

/// A client's proxy, and what waits while there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Proxy {
    pub(crate) present: Option<Contact>,
    /// The proxy's successors, as far as it has told them.
    pub(crate) successors: Vec<Contact>,
    /// By whom it came into the network.
    pub(crate) bootstrap: Vec<AccessPoint>,
    /// Members that it knew, the last one first: who was silent may have been behind a partition.
    former: VecDeque<Contact>,
    waiting: VecDeque<Passage>,
    waiting_bytes: usize,
}

impl Proxy {
    pub(super) fn digest(&self, digest: &mut Digest) {
        let Proxy { present, successors, bootstrap: _, former, waiting, waiting_bytes: _ } = self;
        digest.ordered(*present, Digest::contact);
        digest.ordered(successors, |digest, contact| digest.contact(*contact));
        digest.ordered(former, |digest, contact| digest.contact(*contact));
        digest.ordered(waiting, Digest::passage);
    }
}

impl Core {
    /// The neighbours that a client knows: its proxy, and those after it.
    pub(crate) fn proxies(&self) -> Vec<Contact> {
        self.proxy.present.iter().chain(&self.proxy.successors).copied().collect()
    }

    /// Sends a client's message by its proxy; without one, it waits.
    pub(crate) fn go_by_proxy(&mut self, cx: &mut Context<'_>, passage: Passage) {
        if let Some(to) = self.proxy.present {
            return self.forward(cx, passage, NextHop::to(to));
        }
        let bytes = passage.route.body.payload_bytes();
        let proxy = &mut self.proxy;
        if proxy.waiting.len() >= WAITING_MAX || proxy.waiting_bytes + bytes > WAITING_BYTES_MAX {
            return self.refuse(cx, &passage.route, RouteError::Overloaded);
        }
        proxy.waiting_bytes += bytes;
        proxy.waiting.push_back(Passage::beginning(passage.route));
    }

    /// What the proxy passes on. Nothing else is taken in: a client answers for no keys.
    pub(crate) fn on_route_to_client(&mut self, cx: &mut Context<'_>, route: Route) -> HopVerdict {
        match &route.body {
            Body::Data { exact: true, .. } | Body::Reliable { .. } | Body::Reply { .. }
                if route.key == self.me.id =>
            {
                self.arrive(cx, route);
            }
            Body::Multicast { destinations, payload } if destinations.contains(&self.me.id) => {
                if self.delivered.is_first(&route.source, route.sequence) {
                    let payload = payload.clone();
                    self.deliver(cx, &route.source, self.me.id, payload);
                }
            }
            _ => return HopVerdict::NotMember,
        }
        HopVerdict::Taken
    }

    /// An answer that was routed to this node has come.
    pub(crate) fn on_reply(&mut self, cx: &mut Context<'_>, from: Contact, incarnation: u64, reply: Reply) {
        if incarnation == self.me.incarnation {
            self.on_message(cx, from, reply.into_message());
        }
    }

    /// Answers a node to which, or from which, no link can be made.
    pub(crate) fn reply(&mut self, cx: &mut Context<'_>, to: Contact, reply: Reply) {
        let sequence = self.next_token();
        let body = Body::Reply { incarnation: to.incarnation, reply };
        let route = self.new_route(sequence, to.id, body);
        self.dispatch(cx, route);
    }

    /// A member has this node for its client.
    pub(crate) fn on_accepted(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        sequence: u64,
        predecessor: Option<Contact>,
        successors: Vec<Contact>,
    ) {
        let sought = match self.phase {
            Phase::Joining => true,
            Phase::Client => self.asks_for_admission(from),
            _ => return,
        };
        let refreshed = self.take_request(cx, from, sequence).is_some();
        let is_present = self.proxy.present == Some(from);
        if !sought && !(is_present && (refreshed || sequence == 0)) {
            return;
        }
        if self.proxy_use == ProxyUse::Never {
            self.send(cx, from, Message::Client(ClientTalk::Farewell));
            return self.reject(cx, JoinError::CannotBeReached(self.me.access_point));
        }
        self.proxy.successors = successors;
        if sought {
            self.follow_proxy(cx, from);
        }
        let (ring, me) = (self.net.ring(), self.me.id);
        if let Some(nearer) = predecessor.filter(|before| !ring.in_range(me, before.id, from.id)) {
            self.seek_proxy(cx, Some(nearer));
        }
    }

    /// A node becomes this one's proxy.
    fn follow_proxy(&mut self, cx: &mut Context<'_>, proxy: Contact) {
        self.end_joining();
        if self.phase == Phase::Joining {
            self.phase = Phase::Client;
            self.me = self.me.as_client();
            cx.event(Event::Connected { use_proxy: true });
        }
        let before = self.proxy.present.replace(proxy);
        if before != Some(proxy) {
            cx.event(Event::NewProxy(Some(proxy)));
            if let Some(before) = before {
                self.send(cx, before, Message::Client(ClientTalk::Farewell));
            }
        }
        self.schedule_proxy_round(cx);
        self.proxy.waiting_bytes = 0;
        for passage in std::mem::take(&mut self.proxy.waiting) {
            self.direct(cx, passage);
        }
    }

    /// A member does not have this node for its client.
    pub(crate) fn on_rejected(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        sequence: u64,
        reason: Rejection,
    ) {
        if self.take_request(cx, from, sequence).is_some() {
            return self.drop_contact(cx, from);
        }
        if !self.asks_for_admission(from) {
            return;
        }
        match (self.phase, reason) {
            (Phase::Joining, Rejection::IdInUse) => self.reject(cx, JoinError::IdInUse(self.me.id)),
            (Phase::Joining, Rejection::Full) => {
                self.reject(cx, JoinError::NoRoomForClients { proxy: from.id });
            }
            _ => self.retry_join(cx, "the node that answered for this one's id does so no longer"),
        }
    }

    /// Asks the proxy whether it is there, and has this node for its client still.
    pub(crate) fn on_proxy_round(&mut self, cx: &mut Context<'_>) {
        if let Some(proxy) = self.proxy.present.filter(|_| !self.is_seeking()) {
            self.request(cx, proxy, Purpose::Proxy);
        }
        self.schedule_proxy_round(cx);
    }

    fn schedule_proxy_round(&mut self, cx: &Context<'_>) {
        let pause = self.jittered(PROXY_ROUND);
        self.schedule_round(cx, pause);
    }

    /// A node is gone, or of no use. `true`: it was the proxy.
    pub(crate) fn lose_proxy(&mut self, contact: &Contact) -> bool {
        let proxy = &mut self.proxy;
        let was_proxy = proxy.present.take_if(|present| *present == *contact).is_some();
        let known = proxy.successors.len();
        proxy.successors.retain(|successor| successor != contact);
        if was_proxy || proxy.successors.len() < known {
            proxy.former.retain(|former| former != contact);
            proxy.former.push_front(*contact);
            proxy.former.truncate(FORMER_MAX);
        }
        was_proxy
    }

    /// Looks for the member that is responsible of this node's id, by all that it knows; by `first` before all.
    pub(crate) fn seek_proxy(&mut self, cx: &mut Context<'_>, first: Option<Contact>) {
        if self.is_seeking() {
            return;
        }
        let contacts = first.into_iter().chain(self.proxies());
        let mut access_points: Vec<AccessPoint> = Vec::new();
        let known = contacts.map(|contact| contact.access_point).chain(self.proxy.bootstrap.iter().copied());
        for access_point in known.chain(self.proxy.former.iter().map(|contact| contact.access_point)) {
            if !access_points.contains(&access_point) {
                access_points.push(access_point);
            }
        }
        if self.proxy.present.is_none() {
            cx.event(Event::NewProxy(None));
        }
        self.begin_joining(cx, access_points);
    }

    /// Who asks a client whether it lives takes it for its own: where that is not so any more, the farewell was lost.
    pub(crate) fn part_from_former_proxy(&mut self, cx: &mut Context<'_>, from: Contact) {
        let is_new = self.asks_for_admission(from);
        if self.phase == Phase::Client && self.proxy.present != Some(from) && !is_new {
            self.send(cx, from, Message::Client(ClientTalk::Farewell));
        }
    }

    /// A client leaves: it hands nothing over.
    pub(crate) fn leave_proxy(&mut self, cx: &mut Context<'_>) {
        if let Some(proxy) = self.proxy.present {
            self.send(cx, proxy, Message::Client(ClientTalk::Farewell));
        }
        self.proxy = Proxy::default();
    }
}
