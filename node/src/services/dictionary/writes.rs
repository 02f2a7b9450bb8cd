//! Writes at the key's responsible.
//!
//! The responsible gives a write the next version, keeps it, and sends a copy to each other place until all have acknowledged;
//! only then is the write acknowledged. A place that knows a later version refuses the copy: then another node took itself
//! for the responsible, and the write is given a version after that. So of two writes, the second begun after the first was
//! acknowledged, the second wins, whoever gave the versions, as long as one place of the key has lived through both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::Dictionary;
use super::copies::{Copy, Purpose};
use super::store::{Merged, Room};
use crate::core::digest::Digest;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::dictionary::{Item, Origin, Refusal, Talk, Version, Written};
use crate::message::{Contact, Message, Route};
use crate::time::Time;

/// The most writes that a node does for clients at once.
pub const WRITES_MAX: usize = 1024;

/// How long the responsible waits for all copies.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many writes are remembered that were acknowledged, lest one that comes again be done twice.
const ANSWERED_REMEMBERED: usize = 1024;

/// What a node does as the responsible of keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    pending: BTreeMap<Origin, Write>,
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

impl Writes {
    pub(super) fn digest(&self, me: Id, digest: &mut Digest) {
        let Writes { pending, answered, order: _ } = self;
        digest.unordered(pending, |digest, (origin, write)| {
            let Write { client, item, holders, waiting, gives_up_at } = write;
            digest.origin(*origin);
            digest.contact(*client);
            digest.item(item);
            digest.unordered(holders, |digest, id| digest.id(*id));
            digest.ordered(waiting, |digest, token| digest.token(me, *token));
            digest.time(*gives_up_at);
        });
        digest.unordered(answered, |digest, (origin, Written { version, copies })| {
            digest.origin(*origin);
            digest.version(*version);
            digest.plain(copies);
        });
    }

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
        let present = self.store.find_aged(key, key, cx.now);
        let item = match present {
            // The same write, which another node began before this one took over.
            Some(present) if present.origin == origin => present,
            _ => {
                let counter = present.map_or(0, |present| present.version.counter).saturating_add(1);
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
            let copy = Copy::new(place, item.clone(), Purpose::Write(origin), gives_up_at);
            self.begin_copy(core, cx, *token, copy);
        }
        self.end_if_copied(core, cx, origin);
    }

    /// A copy is in its place.
    pub(super) fn on_copied(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        origin: Origin,
        (token, holder): (u64, Id),
    ) {
        if let Some(write) = self.writes.pending.get_mut(&origin) {
            write.waiting.remove(&token);
            write.holders.insert(holder);
        }
        self.end_if_copied(core, cx, origin);
    }

    /// A copy has not come to its place in time.
    pub(super) fn on_copy_failed(&mut self, core: &mut Core, cx: &mut Context<'_>, origin: Origin) {
        let Some(write) = self.writes.pending.get(&origin) else { return };
        let copies = self.places.count.saturating_sub(write.waiting.len() as u8);
        let refusal = Refusal::TooFewCopies { copies, wanted: self.places.count };
        self.end_write(core, cx, origin, Err(refusal));
    }

    /// Another node gave a later version: this write comes after it.
    pub(super) fn overtake(&mut self, core: &mut Core, cx: &mut Context<'_>, origin: Origin, later: Version) {
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

    pub(super) fn end_write(
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
            self.copies.take(core, token);
        }
    }
}

/// Says something directly.
pub(super) fn tell(core: &mut Core, cx: &mut Context<'_>, to: Contact, talk: Talk) {
    core.tell(cx, to, Message::Dictionary(talk));
}
