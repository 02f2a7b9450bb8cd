//! Writes at the key's responsible, and copies on their way to their places.
//!
//! The responsible gives a write the next version, keeps it, and sends a copy to each other place until all have acknowledged;
//! only then is the write acknowledged. A place that knows a later version refuses the copy: then another node took itself
//! for the responsible, and the write is given a version after that. So of two writes, the second begun after the first was
//! acknowledged, the second wins, whoever gave the versions, as long as one place of the key has lived through both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::Dictionary;
use super::store::{Merged, Room};
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::dictionary::{Item, Origin, Refusal, Request, Talk, Version, Written};
use crate::message::{Body, Contact, Message, Route};
use crate::time::Time;

/// The most writes that a node does for clients at once.
pub const WRITES_MAX: usize = 1024;

/// How long the responsible waits for all copies.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most copies that are on their way to their places: those of writes, and some more.
pub const COPIES_MAX: usize = WRITES_MAX * crate::config::REPLICATION_MAX as usize + 1024;

/// How long until a copy is sent again for the first time; each pause is twice the last, up to [`RESEND_MAX`].
const RESEND_MIN: Duration = Duration::from_millis(750);

/// The longest pause.
const RESEND_MAX: Duration = Duration::from_secs(3);

/// How long until a copy is sent again to a node that was not ready.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// How many writes are remembered that were acknowledged, lest one that comes again be done twice.
const ANSWERED_REMEMBERED: usize = 1024;

/// What a node does as the responsible of keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    pending: BTreeMap<Origin, Write>,
    pub(super) copies: BTreeMap<u64, Copy>,
    answered: BTreeMap<Origin, Written>,
    /// The same, oldest first.
    order: VecDeque<Origin>,
}

/// A write whose copies are on their way.
#[derive(Clone, Debug)]
struct Write {
    client: Contact,
    item: Item,
    /// The nodes that have it.
    holders: BTreeSet<Id>,
    waiting: BTreeSet<u64>,
    gives_up_at: Time,
}

/// A copy on its way.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    place: Id,
    item: Item,
    /// The write that waits for it; else it is one that this node has no duty to keep any more.
    write: Option<Origin>,
    attempts: u32,
    due: Time,
    gives_up_at: Time,
}

impl Writes {
    fn remember(&mut self, origin: Origin, written: Written) {
        if self.answered.insert(origin, written).is_none() {
            self.order.push_back(origin);
        }
        if self.order.len() > ANSWERED_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answered.remove(&oldest);
        }
    }
}

impl Dictionary {
    /// A client's write has come to the responsible of its key, perhaps not for the first time.
    pub(super) fn on_write(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        route: &Route,
        value: Option<Bytes>,
    ) {
        let (client, key) = (route.source, route.key);
        let origin = Origin { node: client.id, incarnation: client.incarnation, sequence: route.sequence };
        if self.writes.pending.contains_key(&origin) {
            return;
        }
        if let Some(written) = self.writes.answered.get(&origin) {
            let result = Ok(*written);
            return tell(core, cx, client, Talk::Written { sequence: origin.sequence, result });
        }
        let refusal = if !self.is_ready_for(core, key) {
            Some(Refusal::NotReady)
        } else if self.writes.pending.len() >= WRITES_MAX {
            Some(Refusal::Overloaded)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let talk = Talk::Written { sequence: origin.sequence, result: Err(refusal) };
            return tell(core, cx, client, talk);
        }
        let present = self.store.find(key, key);
        let item = match present {
            // The same write, which another node began before this one took over.
            Some(present) if present.origin == origin => present.clone(),
            _ => {
                let counter = present.map_or(0, |present| present.version.counter) + 1;
                let version = Version { counter, node: core.me.id };
                Item { key, version, origin, value, age_s: 0 }
            }
        };
        if self.keep(core, cx, key, &item, Room::ForClients) == Merged::Full {
            let talk = Talk::Written { sequence: origin.sequence, result: Err(Refusal::Full) };
            return tell(core, cx, client, talk);
        }
        let write = Write {
            client,
            item,
            holders: BTreeSet::new(),
            waiting: BTreeSet::new(),
            gives_up_at: cx.now + WRITE_TIMEOUT,
        };
        self.writes.pending.insert(origin, write);
        self.copy(core, cx, origin);
    }

    /// Sends a write's copies to the other places.
    fn copy(&mut self, core: &mut Core, cx: &mut Context<'_>, origin: Origin) {
        let Some(write) = self.writes.pending.get_mut(&origin) else { return };
        let (item, gives_up_at) = (write.item.clone(), write.gives_up_at);
        write.holders = BTreeSet::from([core.me.id]);
        write.waiting = (1..self.places.count).map(|_| core.next_token()).collect();
        let tokens: Vec<u64> = write.waiting.iter().copied().collect();
        for (token, place) in tokens.iter().zip(self.places.of(item.key).skip(1)) {
            let copy = Copy {
                place,
                item: item.clone(),
                write: Some(origin),
                attempts: 0,
                due: cx.now,
                gives_up_at,
            };
            self.writes.copies.insert(*token, copy);
            self.send_copy(core, cx, *token);
        }
        self.end_if_copied(core, cx, origin);
    }

    /// Sends a copy to its place that this node need not keep; it drops it when it has arrived.
    pub(super) fn send_off(&mut self, core: &mut Core, cx: &mut Context<'_>, place: Id, item: Item) {
        if self.writes.copies.len() < COPIES_MAX {
            let token = core.next_token();
            let gives_up_at = cx.now + WRITE_TIMEOUT;
            self.writes
                .copies
                .insert(token, Copy { place, item, write: None, attempts: 0, due: cx.now, gives_up_at });
            self.send_copy(core, cx, token);
        }
    }

    fn send_copy(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        let Some(copy) = self.writes.copies.get_mut(&token) else { return };
        let pause = (RESEND_MIN * (1 << copy.attempts.min(4))).min(RESEND_MAX);
        copy.attempts += 1;
        copy.due = (cx.now + pause).min(copy.gives_up_at);
        core.set_service_timer(copy.due, token);
        let route = core.new_route(token, copy.place, Body::Dictionary(Request::Keep(copy.item.clone())));
        core.dispatch(cx, route);
    }

    /// It is time to send a copy again, or to give it up.
    pub(super) fn on_copy_due(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        let Some(copy) = self.writes.copies.get(&token) else { return };
        if cx.now < copy.gives_up_at {
            return self.send_copy(core, cx, token);
        }
        let write = copy.write;
        self.writes.copies.remove(&token);
        if let Some(origin) = write {
            let copies =
                self.writes.pending.get(&origin).map_or(0, |write| {
                    usize::from(self.places.count).saturating_sub(write.waiting.len()) as u8
                });
            let refusal = Refusal::TooFewCopies { copies, wanted: self.places.count };
            self.end_write(core, cx, origin, Err(refusal));
        }
    }

    /// Whether this node is sending copies to a place.
    pub(super) fn is_on_its_way(&self, place: Id) -> bool {
        self.writes.copies.values().any(|copy| copy.write.is_none() && copy.place == place)
    }

    /// A copy has come to its place.
    pub(super) fn on_keep(&mut self, core: &mut Core, cx: &mut Context<'_>, route: &Route, item: &Item) {
        let result = if !self.places.is_place(route.key, item.key) {
            return;
        } else if !core.is_responsible_of(route.key) || self.is_closed {
            Err(Refusal::NotReady)
        } else {
            match self.keep(core, cx, route.key, item, Room::ForCopies) {
                Merged::Kept => Ok(()),
                Merged::Outdated(version) => Err(Refusal::Outdated(version)),
                Merged::Full => Err(Refusal::Full),
            }
        };
        tell(core, cx, route.source, Talk::Kept { sequence: route.sequence, result });
    }

    /// What became of a copy.
    pub(super) fn on_kept(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        from: Contact,
        token: u64,
        result: Result<(), Refusal>,
    ) {
        let Some(copy) = self.writes.copies.get_mut(&token) else { return };
        // A version that this node gave after this one makes it as good as kept.
        let superseded =
            |version: Version| version.node == core.me.id && copy.item.version.node == core.me.id;
        match (result, copy.write) {
            (Err(Refusal::Outdated(version)), Some(origin)) if !superseded(version) => {
                self.overtake(core, cx, origin, version);
            }
            (Ok(()) | Err(Refusal::Outdated(_)), write) => {
                let Some(copy) = self.writes.copies.remove(&token) else { return };
                core.cancel_service_timer(copy.due, token);
                match write {
                    None => self.drop_sent_off(core, &copy),
                    Some(origin) => {
                        if let Some(write) = self.writes.pending.get_mut(&origin) {
                            write.waiting.remove(&token);
                            write.holders.insert(from.id);
                        }
                        self.end_if_copied(core, cx, origin);
                    }
                }
            }
            (Err(Refusal::Full), Some(origin)) => self.end_write(core, cx, origin, Err(Refusal::Full)),
            (Err(_), _) => {
                core.cancel_service_timer(copy.due, token);
                copy.due = (cx.now + core.jittered(READY_PAUSE * copy.attempts)).min(copy.gives_up_at);
                core.set_service_timer(copy.due, token);
            }
        }
    }

    /// What was sent off is at its responsible's: it is dropped here, unless it is this node's again.
    fn drop_sent_off(&mut self, core: &Core, copy: &Copy) {
        if !core.is_responsible_of(copy.place) && !self.is_acquiring(copy.place) {
            self.store.drop_version(copy.place, copy.item.key, copy.item.version);
        }
    }

    /// Another node gave a later version: this write comes after it.
    fn overtake(&mut self, core: &mut Core, cx: &mut Context<'_>, origin: Origin, later: Version) {
        let Some(write) = self.writes.pending.get(&origin) else { return };
        let key = write.item.key;
        if !self.is_ready_for(core, key) {
            return self.end_write(core, cx, origin, Err(Refusal::NotReady));
        }
        let known = self.store.find(key, key).map_or(0, |present| present.version.counter);
        let version = Version { counter: later.counter.max(known).saturating_add(1), node: core.me.id };
        let item = Item { version, ..write.item.clone() };
        self.cancel_copies(core, origin);
        if self.keep(core, cx, key, &item, Room::ForCopies) == Merged::Full {
            return self.end_write(core, cx, origin, Err(Refusal::Full));
        }
        if let Some(write) = self.writes.pending.get_mut(&origin) {
            write.item = item;
        }
        self.copy(core, cx, origin);
    }

    fn end_if_copied(&mut self, core: &mut Core, cx: &mut Context<'_>, origin: Origin) {
        let Some(write) = self.writes.pending.get(&origin).filter(|write| write.waiting.is_empty()) else {
            return;
        };
        let written = Written { version: write.item.version, copies: write.holders.len() as u8 };
        self.writes.remember(origin, written);
        self.end_write(core, cx, origin, Ok(written));
    }

    fn end_write(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        origin: Origin,
        result: Result<Written, Refusal>,
    ) {
        self.cancel_copies(core, origin);
        if let Some(write) = self.writes.pending.remove(&origin) {
            tell(core, cx, write.client, Talk::Written { sequence: origin.sequence, result });
        }
    }

    fn cancel_copies(&mut self, core: &mut Core, origin: Origin) {
        let Some(write) = self.writes.pending.get_mut(&origin) else { return };
        for token in std::mem::take(&mut write.waiting) {
            if let Some(copy) = self.writes.copies.remove(&token) {
                core.cancel_service_timer(copy.due, token);
            }
        }
    }
}

/// Says something directly.
pub(super) fn tell(core: &mut Core, cx: &mut Context<'_>, to: Contact, talk: Talk) {
    core.tell(cx, to, Message::Dictionary(talk));
}
