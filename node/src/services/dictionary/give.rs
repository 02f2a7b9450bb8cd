//! Telling others the items that are theirs now, and dropping what is not this node's any more.

use std::time::Duration;

use super::Dictionary;
use super::copies::Purpose;
use super::store::first_of;
use super::writes::tell;
use crate::core::digest::Digest;
use crate::core::effect::Phase;
use crate::core::{Context, Core};
use crate::id::{Id, Span};
use crate::message::dictionary::{Cursor, Holding, Item, Talk};
use crate::message::{Contact, Route};
use crate::time::Time;

/// Of how many parts is remembered that they were given to others.
pub const GIVEN_MAX: usize = 32;

/// How long the items of such a part wait to be fetched, since they were given or last fetched from, before they are sent.
const GIVEN_PATIENCE: Duration = Duration::from_secs(5);

/// How often a node looks for items that are not its own, for copies that are missing, and for removed keys that can be forgotten.
const SWEEP_PERIOD: Duration = Duration::from_secs(30);

/// While it has such items: how often.
const SWEEP_SOON: Duration = Duration::from_secs(1);

/// How many items it sends off at once.
const SWEEP_ITEMS_MAX: usize = 256;

/// A part of the ring that this node answered for, and another does now.
#[derive(Clone, Debug)]
pub(super) struct Given {
    span: Span,
    taker: Option<Contact>,
    /// When it was given, or last fetched from.
    touched: Time,
}

/// When a node looks next for what is not its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    token: u64,
    due: Time,
}

impl Dictionary {
    /// A part of the range is another node's now.
    pub(super) fn give(&mut self, core: &mut Core, cx: &mut Context<'_>, span: Span) {
        if self.given.len() >= GIVEN_MAX {
            self.given.remove(0);
        }
        self.given.push(Given { span, taker: None, touched: cx.now });
        self.sweep_within(core, cx, GIVEN_PATIENCE);
    }

    /// A part is this node's again: what it knows of it may be outdated.
    pub(super) fn take_back(&mut self, span: Span) {
        let ring = self.places.ring;
        self.given.retain(|given| !given.span.overlaps(ring, span));
    }

    /// A node that took a part over asks for its items.
    pub(super) fn on_fetch(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        from: Contact,
        token: u64,
        (cursor, last): (Cursor, Id),
    ) {
        let ring = self.places.ring;
        let span = Span { first: cursor.place, last };
        let mine = core.range().filter(|range| span.is_within(ring, *range));
        if let Some(range) = mine.filter(|_| core.phase == Phase::Leaving) {
            // It took the range over, and the word that it did was lost: from here on this node does not write or read in it.
            self.is_closed = true;
            if !self.given.iter().any(|given| given.span == range) {
                self.given.push(Given { span: range, taker: None, touched: cx.now });
            }
        }
        let (items, next, mut holding) = self.tell_items(cx, span, cursor);
        match self.given.iter_mut().find(|given| span.is_within(ring, given.span)) {
            Some(given) => {
                given.taker = Some(from);
                given.touched = cx.now;
                core.leave_goes_on(cx);
            }
            // A joiner that was not told who is before it takes over more than it was given: what is here of that may be the last copy.
            None => holding = Holding::Foreign,
        }
        tell(core, cx, from, Talk::Items { token, items, next, holding });
    }

    /// A node that lost its source asks for copies: it is told those of this node's places. One that is not responsible
    /// stays silent: the question comes again, and finds the right one.
    pub(super) fn on_routed_fetch(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        route: &Route,
        (key, last): (Id, Id),
    ) {
        let (ring, me) = (self.places.ring, core.me.id);
        if !core.is_responsible_of(route.key) {
            return;
        }
        let wanted = Span { first: route.key, last };
        let goes_on = wanted.contains(ring, me) && me != last;
        let span = if goes_on { Span { last: me, ..wanted } } else { wanted };
        let (items, next, holding) = self.tell_items(cx, span, Cursor { place: route.key, key });
        let next = next.or_else(|| goes_on.then(|| Cursor { place: ring.add(me, 1), key: Id(0) }));
        tell(core, cx, route.source, Talk::Items { token: route.sequence, items, next, holding });
    }

    fn tell_items(&self, cx: &Context<'_>, span: Span, from: Cursor) -> (Vec<Item>, Option<Cursor>, Holding) {
        let acquiring = self.acquisitions.iter().any(|other| other.span.overlaps(self.places.ring, span));
        let holding = if acquiring { Holding::Acquiring } else { Holding::Whole };
        let (items, next) = self.store.chunk(span, from, cx.now);
        (items, next, holding)
    }

    /// A part that was given has been taken: what this node has of it is of no use any more.
    pub(super) fn on_taken(&mut self, core: &mut Core, from: Contact, span: Span) {
        let ring = self.places.ring;
        let is_taker = |given: &&mut Given| given.taker == Some(from) && span.is_within(ring, given.span);
        if self.given.iter_mut().find(is_taker).is_none() {
            return;
        }
        let mine = core.range().filter(|_| !self.is_closed);
        if !self.acquisitions.iter().any(|acquisition| acquisition.span.overlaps(ring, span)) {
            self.store.drop_span(ring, span, mine);
        }
    }

    /// Looks within this time, or sooner, for what is not this node's.
    pub(super) fn sweep_within(&mut self, core: &mut Core, cx: &mut Context<'_>, within: Duration) {
        let due = cx.now + core.jittered(within);
        if let Some(sweep) = self.sweep {
            if sweep.due <= due {
                return;
            }
            core.cancel_service_timer(sweep.due, sweep.token);
        }
        let token = core.next_token();
        self.sweep = Some(Sweep { token, due });
        core.set_service_timer(due, token);
    }

    /// There is something in the store: it is looked through now and then.
    pub(super) fn sweep_some_time(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        if self.sweep.is_none() && self.store.len() > 0 {
            self.sweep_within(core, cx, SWEEP_PERIOD);
        }
    }

    /// Forgets what was removed long ago, and sends off what is not this node's and nobody fetches; where there is no such thing,
    /// it looks after the copies of what is.
    pub(super) fn on_sweep_due(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        if self.sweep.is_none_or(|sweep| sweep.token != token) {
            return;
        }
        self.sweep = None;
        self.store.forget_removed(cx.now);
        let strays = self.strays(core, cx);
        for (place, item) in &strays {
            self.send_copy(core, cx, *place, item.clone(), Purpose::SendOff);
        }
        if strays.is_empty() && self.given.iter().all(|given| is_stale(given, cx.now)) {
            self.given.clear();
            self.compare_some(core, cx);
            self.sweep_some_time(core, cx);
        } else {
            self.sweep_within(core, cx, SWEEP_SOON);
        }
    }

    /// Some of the items that are not this node's, that nobody fetches and that are not on their way.
    fn strays(&self, core: &Core, cx: &Context<'_>) -> Vec<(Id, Item)> {
        let ring = self.places.ring;
        let outside = match core.range() {
            Some(range) if u128::from(range.reach(ring)) + 1 == ring.max_size() => return Vec::new(),
            Some(range) => Span { first: ring.add(range.last, 1), last: ring.sub(range.first, 1) },
            None => Span { first: Id(0), last: ring.last() },
        };
        let waits = |place| {
            let mut given = self.given.iter().filter(|given| given.span.contains(ring, place));
            given.any(|given| !is_stale(given, cx.now))
        };
        let strays = self.store.walk(outside, first_of(outside)).filter(|(at, _)| {
            !waits(at.place) && !self.is_acquiring(at.place) && !self.copies.are_sent_off(at.place)
        });
        strays.take(SWEEP_ITEMS_MAX).map(|(at, kept)| (at.place, kept.aged(cx.now))).collect()
    }
}

impl Given {
    pub(super) fn digest(&self, digest: &mut Digest) {
        let Given { span, taker, touched } = self;
        digest.span(*span);
        digest.ordered(*taker, Digest::contact);
        digest.time(*touched + GIVEN_PATIENCE);
    }
}

impl Sweep {
    pub(super) fn digest(&self, me: Id, digest: &mut Digest) {
        let Sweep { token, due } = self;
        digest.token(me, *token);
        digest.time(*due);
    }
}

fn is_stale(given: &Given, now: Time) -> bool {
    now.since(given.touched) >= GIVEN_PATIENCE
}
