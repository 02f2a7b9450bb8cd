//! What nodes say to each other, as the explorer compares it.

use super::Digest;
use crate::id::{Id, Span};
use crate::message::client::ClientTalk;
use crate::message::dictionary::{Cursor, Item, Origin, Refusal, Request, Talk, Version};
use crate::message::{Body, Errand, Message, Route};

impl Digest {
    pub(super) fn errand(&mut self, errand: &Errand) {
        let Errand { source, incarnation, sequence, attempt, key, part } = errand;
        self.id(*source);
        self.token(*source, *sequence);
        self.token(*source, sequence.wrapping_add(u64::from(*attempt)));
        self.id(*key);
        self.plain(&(incarnation, part));
    }

    pub(super) fn route(&mut self, route: &Route) {
        let Route { source, sequence, attempt, key, hops, backward, turns, hop: _, entry, claimed, body } =
            route;
        self.contact(*source);
        self.token(source.id, *sequence);
        self.token(source.id, sequence.wrapping_add(u64::from(*attempt)));
        self.id(*key);
        self.plain(&(hops, backward, turns, claimed, std::mem::discriminant(body)));
        self.ordered(*entry, Digest::id);
        match body {
            Body::Join => {}
            Body::Lookup { maintenance } => self.plain(maintenance),
            Body::Data { exact, payload } => self.plain(&(exact, payload)),
            Body::Reliable { after, payload } => {
                self.token(source.id, *after);
                self.plain(payload);
            }
            Body::Dictionary(request) => self.wish(request),
            Body::Reply { incarnation, reply } => {
                self.plain(incarnation);
                self.message(source.id, *key, &reply.clone().into_message());
            }
            Body::Broadcast { last, payload } => {
                self.id(*last);
                self.plain(payload);
            }
            Body::Change { last, gone, heir } => {
                self.id(*last);
                self.ordered(*gone, Digest::contact);
                self.contact(*heir);
            }
            Body::Multicast { destinations, payload } => {
                self.ordered(destinations, |digest, id| digest.id(*id));
                self.plain(payload);
            }
        }
    }

    /// A message on its way from one node to another.
    pub(crate) fn message(&mut self, from: Id, to: Id, message: &Message) {
        self.plain(&std::mem::discriminant(message));
        match message {
            Message::Route(route) => {
                self.route(route);
                self.token(from, route.hop);
            }
            Message::Acks(acks) => self.ordered(acks, |digest, ack| {
                digest.token(to, ack.hop);
                digest.plain(&ack.verdict);
            }),
            Message::Answer { sequence, maintenance, result } => {
                self.token(to, *sequence);
                self.plain(maintenance);
                match result {
                    Ok(found) => {
                        self.contact(found.responsible);
                        self.plain(&found.hops);
                    }
                    Err(reason) => self.plain(reason),
                }
            }
            Message::Undeliverable { destinations, reason } => {
                self.ordered(destinations, |digest, id| digest.id(*id));
                self.plain(reason);
            }
            Message::Receipt { sequence } => self.token(to, *sequence),
            Message::Dictionary(talk) => self.talk(from, to, talk),
            Message::Client(talk) => self.client_talk(from, to, talk),
            Message::JoinOffer { sequence, successors } => {
                self.token(to, *sequence);
                self.ids(successors);
            }
            Message::JoinConfirm { sequence } => self.token(from, *sequence),
            Message::HandOver { predecessor, successors, fingers } => {
                self.ordered(*predecessor, Digest::contact);
                self.ids(successors);
                self.unordered(fingers, |digest, finger| digest.contact(*finger));
            }
            Message::Leave { predecessor } | Message::Notify { predecessor } => {
                self.ordered(*predecessor, Digest::contact);
            }
            Message::LeaveTaken(taken) => self.plain(taken),
            Message::Left { successors } | Message::Introduce { successors } => self.ids(successors),
            Message::Query { token } => self.token(from, *token),
            Message::Neighbours { token, predecessor, second, successors } => {
                self.token(to, *token);
                self.ordered(*predecessor, Digest::contact);
                self.ordered(*second, Digest::id);
                self.ids(successors);
            }
            Message::Busy { token, member } => {
                self.token(to, *token);
                self.plain(member);
            }
            Message::Check { token, target } => {
                self.token(from, *token);
                self.id(*target);
            }
            Message::Checked { token, responsible } => {
                self.token(to, *token);
                self.plain(responsible);
            }
        }
    }

    /// What is asked of the responsible of a place.
    fn wish(&mut self, request: &Request) {
        self.plain(&std::mem::discriminant(request));
        match request {
            Request::Write(value) => self.plain(value),
            Request::Read(key) => self.id(*key),
            Request::Keep(item) => self.item(item),
            Request::Compare { key, version } => {
                self.id(*key);
                self.version(*version);
            }
            Request::Fetch { key, last } => {
                self.beginning(*key);
                self.id(*last);
            }
        }
    }

    fn client_talk(&mut self, from: Id, to: Id, talk: &ClientTalk) {
        self.plain(&std::mem::discriminant(talk));
        match talk {
            ClientTalk::Locate { sequence } => self.token(from, *sequence),
            ClientTalk::Admit { sequence, as_client } => {
                self.token(from, *sequence);
                self.plain(as_client);
            }
            ClientTalk::Located { sequence, result } => {
                self.token(to, *sequence);
                self.ordered(result.ok(), Digest::contact);
                self.plain(&result.err());
            }
            ClientTalk::Accepted { sequence, predecessor, successors } => {
                self.token(to, *sequence);
                self.ordered(*predecessor, Digest::contact);
                self.ids(successors);
            }
            ClientTalk::Rejected { sequence, reason } => {
                self.token(to, *sequence);
                self.plain(reason);
            }
            ClientTalk::Farewell => {}
        }
    }

    fn talk(&mut self, from: Id, to: Id, talk: &Talk) {
        self.plain(&std::mem::discriminant(talk));
        match talk {
            Talk::Written { sequence, result } => {
                self.token(to, *sequence);
                self.result(result, |digest, written| {
                    digest.version(written.version);
                    digest.plain(&written.copies);
                });
            }
            Talk::Value { sequence, result } => {
                self.token(to, *sequence);
                self.result(result, |digest, stored| {
                    digest.ordered(stored, |digest, stored| {
                        digest.version(stored.version);
                        digest.plain(&stored.value);
                    });
                });
            }
            Talk::Kept { sequence, result } => {
                self.token(to, *sequence);
                self.result(result, |_, ()| ());
            }
            Talk::Fetch { token, cursor, last } => {
                self.token(from, *token);
                self.cursor(*cursor);
                self.id(*last);
            }
            Talk::Items { token, items, next, holding } => {
                self.token(to, *token);
                self.unordered(items, Digest::item);
                self.ordered(*next, Digest::cursor);
                self.plain(holding);
            }
            Talk::Taken(span) => self.span(*span),
        }
    }

    fn result<T>(&mut self, result: &Result<T, Refusal>, well: impl FnOnce(&mut Digest, &T)) {
        self.plain(&result.is_ok());
        match result {
            Ok(answer) => well(self, answer),
            Err(Refusal::Outdated(version)) => self.version(*version),
            Err(refusal) => self.plain(refusal),
        }
    }

    pub(crate) fn item(&mut self, item: &Item) {
        let Item { key, version, origin, value, age_s } = item;
        self.id(*key);
        self.version(*version);
        self.origin(*origin);
        self.plain(&(value, age_s));
    }

    pub(crate) fn version(&mut self, version: Version) {
        self.plain(&version.counter);
        self.id(version.node);
    }

    pub(crate) fn origin(&mut self, origin: Origin) {
        let Origin { node, incarnation, sequence } = origin;
        self.id(node);
        self.plain(&incarnation);
        self.token(node, sequence);
    }

    pub(crate) fn cursor(&mut self, cursor: Cursor) {
        self.id(cursor.place);
        self.beginning(cursor.key);
    }

    pub(crate) fn span(&mut self, span: Span) {
        self.id(span.first);
        self.id(span.last);
    }

    /// An id to begin at, where 0 stands for the very beginning.
    pub(crate) fn beginning(&mut self, id: Id) {
        self.ordered((id != Id(0)).then_some(id), Digest::id);
    }
}
