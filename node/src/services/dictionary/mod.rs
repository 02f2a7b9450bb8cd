//! The dictionary: keys with values, in several places of the ring each, handed over as nodes come and go (P2PS's services;
//! symmetric replication after Ghodsi, Alima & Haridi 2005).
//!
//! Each key has f places (`places`); the responsible of a place keeps a copy. The first place is the key itself: its
//! responsible gives writes their versions (`writes`). A node whose range grows answers "not ready" for the new part until it
//! has all its items (`acquire`), from the node that handed it over (`give`) or, where that died, from the other places.
//!
//! What is promised:
//! - A write that is acknowledged is in all f places. A read sees it, and whatever was acknowledged before, in quiet times, under
//!   joins and leaves, and after crashes as long as one node with a copy lives (and the others had time to copy it). It may
//!   see a write that is not acknowledged yet.
//! - Joins and leaves lose nothing: who leaves stays until its successor has everything, within a minute and as long as it
//!   gets on.
//! - A write that failed may have been done, or be done by a copy that is on its way.
//! - On two sides of a partition there are two dictionaries; when it has healed, each key has its last written value, by version
//!   and then by node. The other write is lost.
//! - A removal is remembered for [`REMOVED_KEPT`]; then a key's versions may begin anew. Of a removal and a value that is younger by
//!   half of that or more, the value stays, whatever their versions: whoever wrote it had forgotten the removal.
//! - Copies are as many different nodes' as places have different responsibles: on a ring where two nodes stand further apart
//!   than N/f, some node has several.

mod acquire;
mod client;
pub mod conservation;
mod copies;
mod give;
pub(crate) mod places;
mod store;
mod writes;

use crate::config::NetConfig;
use crate::core::digest::Digest;
use crate::core::effect::Phase;
use crate::core::{Context, Core};
use crate::id::{Id, Span};
use crate::message::dictionary::{Answer, Cursor, Item, Refusal, Request, Stored, Talk};
use crate::message::{Body, Contact, Route, RouteError};

pub use acquire::ACQUISITIONS_MAX;
pub(crate) use client::Wish;
pub use client::{OPERATION_TIMEOUT, OPERATIONS_BYTES_MAX, OPERATIONS_MAX};
pub use copies::COPIES_MAX;
pub use give::GIVEN_MAX;
pub use store::{ITEMS_BYTES_MAX, ITEMS_MAX, REMOVED_KEPT};
pub use writes::{WRITE_TIMEOUT, WRITES_MAX};

use acquire::Acquisition;
use client::Operations;
use copies::Copies;
use give::{Given, Sweep};
use places::Places;
use store::{Merged, Room, Store};
use writes::{Writes, tell};

/// A node's part of the dictionary.
#[derive(Clone, Debug)]
pub struct Dictionary {
    places: Places,
    store: Store,
    /// The ids that this node answers for, as far as the dictionary has noticed.
    range: Option<Span>,
    /// The parts of them whose items are not all known yet; some may be others' by now, who wait for them.
    acquisitions: Vec<Acquisition>,
    /// The parts that became others'.
    given: Vec<Given>,
    /// A leaving node whose successor has begun to take over.
    is_closed: bool,
    operations: Operations,
    writes: Writes,
    copies: Copies,
    sweep: Option<Sweep>,
    /// The first item that is compared next; `None`: the first of the range.
    compared: Option<Cursor>,
}

impl Dictionary {
    pub(crate) fn new(net: &NetConfig) -> Dictionary {
        Dictionary {
            places: Places::new(net),
            store: Store::default(),
            range: None,
            acquisitions: Vec::new(),
            given: Vec::new(),
            is_closed: false,
            operations: Operations::default(),
            writes: Writes::default(),
            copies: Copies::default(),
            sweep: None,
            compared: None,
        }
    }

    /// How many items it keeps: each copy is one, and each removed key that is remembered still.
    pub fn items(&self) -> usize {
        self.store.len()
    }

    /// The bytes that their values have together.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// The items that it keeps, with the place of each; some may be other nodes' by now.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Item)> {
        self.store.iter()
    }

    /// Whether it knows all items of all its places.
    pub fn is_complete(&self) -> bool {
        self.acquisitions.is_empty()
    }

    /// Takes the node's range for its own as it is: the network is new, and nobody has items of it.
    pub(crate) fn settle(&mut self, core: &Core) {
        self.range = core.range();
    }

    /// Follows the node's range: what is new is acquired, what is gone is given.
    pub(crate) fn follow_range(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        let range = core.range();
        if range == self.range {
            return;
        }
        let ring = self.places.ring;
        match (std::mem::replace(&mut self.range, range), range) {
            (Some(old), None) => self.give(core, cx, old),
            (None, Some(new)) => {
                let is_first = core.giver.is_none() && core.neighbours.is_alone();
                if !is_first {
                    self.acquire(core, cx, new);
                }
            }
            (Some(old), Some(new)) if new.reach(ring) > old.reach(ring) => {
                let grown = Span { last: ring.sub(old.first, 1), ..new };
                self.take_back(grown);
                self.acquire(core, cx, grown);
            }
            (Some(old), Some(new)) => {
                let lost = Span { last: ring.sub(new.first, 1), ..old };
                self.give(core, cx, lost);
            }
            (None, None) => {}
        }
    }

    /// Tells the core how many items a leaving node must not go with.
    pub(crate) fn report_held(&self, core: &mut Core) {
        core.items_held = self.store.len();
    }

    /// A request has come to the responsible of its place.
    pub(crate) fn on_arrived(&mut self, core: &mut Core, cx: &mut Context<'_>, route: &Route) {
        let Body::Dictionary(request) = &route.body else { return };
        match request {
            Request::Write(value) => self.on_write(core, cx, route, value.clone()),
            Request::Read(key) => self.on_read(core, cx, route, *key),
            Request::Keep(item) => self.on_keep(core, cx, route, item),
            Request::Compare { key, version } => self.on_compare(core, cx, route, (*key, *version)),
            Request::Fetch { key, last } => self.on_routed_fetch(core, cx, route, (*key, *last)),
        }
    }

    /// A node says something directly.
    pub(crate) fn on_said(&mut self, core: &mut Core, cx: &mut Context<'_>, from: Contact, talk: Talk) {
        match talk {
            Talk::Written { sequence, result } => {
                self.on_answer(core, cx, sequence, result.map(Answer::Written));
            }
            Talk::Value { sequence, result } => self.on_answer(core, cx, sequence, result.map(Answer::Value)),
            Talk::Kept { sequence, result } => self.on_kept(core, cx, from, sequence, result),
            Talk::Fetch { token, cursor, last } => self.on_fetch(core, cx, from, token, (cursor, last)),
            Talk::Items { token, items, next, holding } => {
                self.on_items(core, cx, from, token, (&items, next, holding));
            }
            Talk::Taken(span) => self.on_taken(core, from, span),
        }
    }

    /// A timer has come; it may be another service's.
    pub(crate) fn on_due(&mut self, core: &mut Core, cx: &mut Context<'_>, number: u64) {
        self.on_operation_due(core, cx, number);
        self.on_copy_due(core, cx, number);
        self.on_walk_due(core, cx, number);
        self.on_sweep_due(core, cx, number);
    }

    /// A request could not go on; it may be another service's. Copies and questions come again by themselves.
    pub(crate) fn on_refused(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        sequence: u64,
        reason: RouteError,
    ) {
        self.on_operation_refused(core, cx, sequence, reason);
    }

    /// A node is taken for dead.
    pub(crate) fn on_lost(&mut self, core: &mut Core, cx: &mut Context<'_>, lost: Contact) {
        self.on_giver_lost(core, cx, lost);
    }

    /// The node is no member any more.
    pub(crate) fn on_ended(&mut self, cx: &mut Context<'_>) {
        self.fail_operations(cx);
    }

    /// Adds what the explorer compares.
    pub(crate) fn digest(&self, core: &Core, digest: &mut Digest) {
        let Dictionary {
            places: _,
            store,
            range,
            acquisitions,
            given,
            is_closed,
            operations,
            writes,
            copies,
            sweep,
            compared,
        } = self;
        let me = core.me.id;
        store.digest(digest);
        digest.ordered(*range, Digest::span);
        digest.ordered(acquisitions, |digest, acquisition| acquisition.digest(me, digest));
        acquire::digest_giver(core, digest);
        digest.ordered(given, |digest, given| given.digest(digest));
        digest.plain(is_closed);
        operations.digest(me, digest);
        writes.digest(me, digest);
        copies.digest(me, digest);
        digest.ordered(sweep, |digest, sweep| sweep.digest(me, digest));
        digest.ordered(*compared, Digest::cursor);
    }

    fn on_read(&self, core: &mut Core, cx: &mut Context<'_>, route: &Route, key: Id) {
        let result = if self.places.is_place(route.key, key) && self.is_ready_for(core, route.key) {
            let stored = |item: &Item| {
                let value = item.value.clone()?;
                Some(Stored { value, version: item.version })
            };
            Ok(self.store.find(route.key, key).and_then(stored))
        } else {
            Err(Refusal::NotReady)
        };
        tell(core, cx, route.source, Talk::Value { sequence: route.sequence, result });
    }

    /// Whether this node may write and read in a place: it answers for it, and knows all its items.
    fn is_ready_for(&self, core: &Core, place: Id) -> bool {
        core.is_responsible_of(place)
            && matches!(core.phase, Phase::Member | Phase::Leaving)
            && !self.is_closed
            && !self.is_acquiring(place)
    }

    fn keep(&mut self, core: &mut Core, cx: &mut Context<'_>, place: Id, item: &Item, room: Room) -> Merged {
        let merged = self.store.merge(place, item, room, cx.now);
        self.sweep_some_time(core, cx);
        merged
    }
}
