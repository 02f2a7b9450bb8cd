//! Copies on their way to their places: those of writes, those that this node has but should not, and those that may be missing.
//!
//! Nodes compare the copies that they have with those in the other places of the same keys, a few now and then: a write that failed
//! halfway, a copy that was acknowledged by a node that died before it could tell another, or a range that was taken over from nodes
//! which did not know all of it themselves, leave places that nothing else would fill. The responsible of a key asks all its other
//! places; who has one of the other copies asks the key's responsible alone, which tells the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Dictionary;
use super::store::{Merged, Room};
use super::writes::{WRITE_TIMEOUT, WRITES_MAX, tell};
use crate::config::REPLICATION_MAX;
use crate::core::digest::Digest;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::dictionary::{Item, Origin, Refusal, Request, Talk, Version};
use crate::message::{Body, Contact, Route};
use crate::time::Time;

/// The most copies that are on their way to their places: those of writes, and some more.
pub const COPIES_MAX: usize = WRITES_MAX * REPLICATION_MAX as usize + 1024;

/// How many items are compared at once, for each of a key's places: about as many keys.
const COMPARED_MAX: usize = 64;

/// How long until a copy is sent again for the first time; each pause is twice the last, up to [`RESEND_MAX`].
const RESEND_MIN: Duration = Duration::from_millis(750);

/// The longest pause.
const RESEND_MAX: Duration = Duration::from_secs(3);

/// How long until a copy is sent again to a node that was not ready; each pause is as long again longer.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// The copies on their way, by the number of their request.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies {
    pending: BTreeMap<u64, Copy>,
}

/// A copy on its way.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    place: Id,
    item: Item,
    purpose: Purpose,
    attempts: u32,
    due: Time,
    gives_up_at: Time,
}

/// Why a copy is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A write waits for it.
    Write(Origin),
    /// This node has it, but no duty to: it drops it when it has arrived.
    SendOff,
    /// It should be there: it is sent only if it is not.
    Compare,
    /// It was not there.
    Restore,
}

impl Copy {
    pub(super) fn new(place: Id, item: Item, purpose: Purpose, gives_up_at: Time) -> Copy {
        Copy { place, item, purpose, attempts: 0, due: Time::ZERO, gives_up_at }
    }

    fn request(&self) -> Request {
        match self.purpose {
            Purpose::Compare => Request::Compare { key: self.item.key, version: self.item.version },
            _ => Request::Keep(self.item.clone()),
        }
    }
}

impl Copies {
    /// Takes a copy out: it need not be sent again.
    pub(super) fn take(&mut self, core: &mut Core, token: u64) -> Option<Copy> {
        let copy = self.pending.remove(&token)?;
        core.cancel_service_timer(copy.due, token);
        Some(copy)
    }

    pub(super) fn digest(&self, me: Id, digest: &mut Digest) {
        digest.unordered(&self.pending, |digest, (token, copy)| {
            let Copy { place, item, purpose, attempts, due, gives_up_at } = copy;
            digest.token(me, *token);
            digest.id(*place);
            digest.item(item);
            digest.plain(&(std::mem::discriminant(purpose), attempts));
            if let Purpose::Write(origin) = purpose {
                digest.origin(*origin);
            }
            digest.time(*due);
            digest.time(*gives_up_at);
        });
    }

    /// Whether what stands in a place is being sent off.
    pub(super) fn are_sent_off(&self, place: Id) -> bool {
        self.pending.values().any(|copy| copy.purpose == Purpose::SendOff && copy.place == place)
    }
}

impl Dictionary {
    /// Sends a copy to its place, for no write. Beyond [`COPIES_MAX`] nothing is sent: a later sweep will.
    pub(super) fn send_copy(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        place: Id,
        item: Item,
        purpose: Purpose,
    ) {
        if self.copies.pending.len() < COPIES_MAX {
            let token = core.next_token();
            self.begin_copy(core, cx, token, Copy::new(place, item, purpose, cx.now + WRITE_TIMEOUT));
        }
    }

    pub(super) fn begin_copy(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64, copy: Copy) {
        self.copies.pending.insert(token, copy);
        self.attempt_copy(core, cx, token);
    }

    fn attempt_copy(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        let Some(copy) = self.copies.pending.get_mut(&token) else { return };
        let pause = (RESEND_MIN * (1 << copy.attempts.min(4))).min(RESEND_MAX);
        copy.attempts += 1;
        copy.due = (cx.now + pause).min(copy.gives_up_at);
        core.set_service_timer(copy.due, token);
        let route = core.new_route(token, copy.place, Body::Dictionary(copy.request()));
        core.dispatch(cx, route);
    }

    /// It is time to send a copy again, or to give it up.
    pub(super) fn on_copy_due(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        let Some(copy) = self.copies.pending.get(&token) else { return };
        if cx.now < copy.gives_up_at {
            return self.attempt_copy(core, cx, token);
        }
        let purpose = copy.purpose;
        self.copies.pending.remove(&token);
        if let Purpose::Write(origin) = purpose {
            self.on_copy_failed(core, cx, origin);
        }
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

    /// A node that has a copy asks whether one is in this place too. A later version goes to the key's responsible, unless it is this
    /// node: then its own comparisons spread it.
    pub(super) fn on_compare(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        route: &Route,
        (key, version): (Id, Version),
    ) {
        let place = route.key;
        let result = if !self.is_ready_for(core, place) {
            Err(Refusal::NotReady)
        } else {
            match self.store.find_aged(place, key, cx.now) {
                Some(present) if present.version > version => {
                    let (later, is_old) = (present.version, self.store.may_be_forgotten(place, key, cx.now));
                    if place != key {
                        self.send_copy(core, cx, key, present, Purpose::Restore);
                    }
                    // Beside what was removed long ago, the one that was written later stays: each goes to the other's place.
                    Err(if is_old { Refusal::Missing } else { Refusal::Outdated(later) })
                }
                Some(present) if present.version == version => Ok(()),
                _ => Err(Refusal::Missing),
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
        let Some(copy) = self.copies.pending.get_mut(&token) else { return };
        // A version that this node gave after this one makes it as good as kept: it is here too. One that is not here it gave before,
        // and has forgotten since.
        let (key, me) = (copy.item.key, core.me.id);
        let known = self.store.find(key, key).map(|present| present.version);
        let superseded = |version: Version| {
            version.node == me && copy.item.version.node == me && known.is_some_and(|known| known >= version)
        };
        match (result, copy.purpose) {
            (Err(Refusal::Outdated(version)), Purpose::Write(origin)) if !superseded(version) => {
                self.overtake(core, cx, origin, version);
            }
            (Ok(()) | Err(Refusal::Outdated(_)), purpose) => {
                let Some(copy) = self.copies.take(core, token) else { return };
                match purpose {
                    Purpose::Write(origin) => self.on_copied(core, cx, origin, (token, from.id)),
                    Purpose::SendOff => self.drop_sent_off(core, &copy),
                    Purpose::Compare | Purpose::Restore => {}
                }
            }
            (Err(Refusal::Missing), Purpose::Compare) => {
                copy.purpose = Purpose::Restore;
                core.cancel_service_timer(copy.due, token);
                self.attempt_copy(core, cx, token);
            }
            (Err(Refusal::Full), Purpose::Write(origin)) => {
                self.end_write(core, cx, origin, Err(Refusal::Full));
            }
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

    /// Compares some of the copies that this node has with those in other places.
    pub(super) fn compare_some(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        let places = self.places;
        let Some(range) = core.range().filter(|_| places.count > 1 && !self.is_closed) else { return };
        let count = COMPARED_MAX * usize::from(places.count);
        let (items, next) = self.store.some(places.ring, range, self.compared, count, cx.now);
        self.compared = next;
        for (place, item) in items {
            let is_own = place == item.key;
            for other in places.of(item.key).filter(|other| is_own != (*other == item.key)) {
                self.send_copy(core, cx, other, item.clone(), Purpose::Compare);
            }
        }
    }
}
