//! The items that a node keeps, by their places.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::digest::Digest;
use crate::id::{Id, Ring, Span};
use crate::message::dictionary::{CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, Cursor, Item, Version};
use crate::time::Time;

/// The most items that a node has when it takes a new one in from a client. What is handed over to it, and copies, may be
/// twice as many.
pub const ITEMS_MAX: usize = 1 << 17;

/// The most bytes that the values of those items have together; twice as many with what is handed over, and copies.
pub const ITEMS_BYTES_MAX: usize = 128 << 20;

/// For how long it is remembered that a key was removed, so that no old copy brings it back.
pub const REMOVED_KEPT: Duration = Duration::from_secs(600);

/// How much younger than a removal a value must be to win whatever their versions are: whoever wrote it had forgotten the removal, and
/// counted versions anew. Half of [`REMOVED_KEPT`], for ages are told in whole seconds, and lose some at each hand-over.
const COUNTED_ANEW_AFTER: Duration = Duration::from_secs(REMOVED_KEPT.as_secs() / 2);

/// The items, at most twice [`ITEMS_MAX`] with twice [`ITEMS_BYTES_MAX`] of values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    items: BTreeMap<Cursor, Kept>,
    bytes: usize,
}

/// An item, as it was when it came.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) item: Item,
    came: Time,
}

/// What became of an item that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// It is kept, or was before.
    Kept,
    /// A later version is.
    Outdated(Version),
    /// There is no room.
    Full,
}

/// Whose items are taken in: a store lets others fill it further than clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    ForClients = 1,
    ForCopies = 2,
}

impl Store {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn find(&self, place: Id, key: Id) -> Option<&Item> {
        self.items.get(&Cursor { place, key }).map(|kept| &kept.item)
    }

    /// The item as another node is told it.
    pub(crate) fn find_aged(&self, place: Id, key: Id, now: Time) -> Option<Item> {
        self.items.get(&Cursor { place, key }).map(|kept| kept.aged(now))
    }

    /// Whether this is a removal of which others may have forgotten that it was.
    pub(crate) fn may_be_forgotten(&self, place: Id, key: Id, now: Time) -> bool {
        let kept = self.items.get(&Cursor { place, key });
        kept.is_some_and(|kept| kept.item.value.is_none() && kept.age(now) >= COUNTED_ANEW_AFTER)
    }

    /// All items, with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &Item)> {
        self.items.iter().map(|(cursor, kept)| (cursor.place, &kept.item))
    }

    /// Keeps an item unless a later version is here: of two that were given the same number, the one that was written later as
    /// far as anyone can tell (last writer wins). Between a removal and a value that is minutes younger, age decides.
    pub(crate) fn merge(&mut self, place: Id, item: &Item, room: Room, now: Time) -> Merged {
        let at = Cursor { place, key: item.key };
        let present = self.items.get(&at);
        match present.map(|present| present.compare(item, now)) {
            Some(Ordering::Greater) => {
                return present.map_or(Merged::Kept, |present| Merged::Outdated(present.item.version));
            }
            Some(Ordering::Equal) => return Merged::Kept,
            Some(Ordering::Less) | None => {}
        }
        let old = present.map_or(0, |present| weight(&present.item));
        let items = self.items.len() + usize::from(present.is_none());
        let bytes = self.bytes - old + weight(item);
        let share = room as usize;
        let grows = present.is_none() || bytes > self.bytes;
        if grows && (items > ITEMS_MAX * share || bytes > ITEMS_BYTES_MAX * share) {
            return Merged::Full;
        }
        self.bytes = bytes;
        self.items.insert(at, Kept { item: item.clone(), came: now });
        Merged::Kept
    }

    /// Takes an item out, if it is still of this version.
    pub(crate) fn drop_version(&mut self, place: Id, key: Id, version: Version) {
        let at = Cursor { place, key };
        if self.items.get(&at).is_some_and(|kept| kept.item.version <= version)
            && let Some(kept) = self.items.remove(&at)
        {
            self.bytes -= weight(&kept.item);
        }
    }

    /// Takes out the items of places in `span` but not in `but`.
    pub(crate) fn drop_span(&mut self, ring: Ring, span: Span, but: Option<Span>) {
        let stays = |place| but.is_some_and(|but| but.contains(ring, place));
        let gone: Vec<Cursor> =
            self.walk(span, first_of(span)).map(|(at, _)| at).filter(|at| !stays(at.place)).collect();
        for at in gone {
            if let Some(kept) = self.items.remove(&at) {
                self.bytes -= weight(&kept.item);
            }
        }
    }

    /// Forgets what was removed long ago.
    pub(crate) fn forget_removed(&mut self, now: Time) {
        self.items.retain(|_, kept| kept.item.value.is_some() || kept.age(now) < REMOVED_KEPT);
    }

    /// As many items of `span` as go into one message, from `from` on, and where the rest begins.
    pub(crate) fn chunk(&self, span: Span, from: Cursor, now: Time) -> (Vec<Item>, Option<Cursor>) {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for (at, kept) in self.walk(span, from) {
            if items.len() >= CHUNK_ITEMS_MAX || bytes >= CHUNK_BYTES_MAX {
                return (items, Some(at));
            }
            bytes += weight(&kept.item);
            items.push(kept.aged(now));
        }
        (items, None)
    }

    /// At most `count` items of places in `range`, with their places, from `from` on where that is in it, and where to go on; `None`:
    /// the beginning.
    pub(crate) fn some(
        &self,
        ring: Ring,
        range: Span,
        from: Option<Cursor>,
        count: usize,
        now: Time,
    ) -> (Vec<(Id, Item)>, Option<Cursor>) {
        let from = from.filter(|from| range.contains(ring, from.place)).unwrap_or(first_of(range));
        let mut walk = self.walk(range, from);
        let items = walk.by_ref().take(count).map(|(at, kept)| (at.place, kept.aged(now))).collect();
        (items, walk.next().map(|(at, _)| at))
    }

    /// The items of `span` from `from` on, which is in it, in the ring's order.
    pub(crate) fn walk(&self, span: Span, from: Cursor) -> impl Iterator<Item = (Cursor, &Kept)> {
        let whole = Cursor { place: Id(u64::MAX), key: Id(u64::MAX) };
        let last = Cursor { place: span.last, key: whole.key };
        // Past zero and on.
        let wraps = from.place > span.last;
        let (upto, again) = if wraps { (whole, Some(last)) } else { (last, None) };
        let rest = again.map(|last| self.items.range(first_of(Span { first: Id(0), ..span })..=last));
        let all = self.items.range(from..=upto).chain(rest.into_iter().flatten());
        all.map(|(at, kept)| (*at, kept))
    }
}

impl Store {
    pub(super) fn digest(&self, digest: &mut Digest) {
        let Store { items, bytes: _ } = self;
        digest.unordered(items, |digest, (at, Kept { item, came })| {
            digest.id(at.place);
            digest.item(item);
            // How old a value is matters only beside a removal that is minutes older or younger: not in what is explored.
            let left = REMOVED_KEPT.saturating_sub(Duration::from_secs(u64::from(item.age_s)));
            digest.ordered(item.value.is_none().then_some(*came + left), Digest::time);
        });
    }
}

impl Kept {
    /// The item as another node is told it.
    pub(crate) fn aged(&self, now: Time) -> Item {
        Item { age_s: u32::try_from(self.age(now).as_secs()).unwrap_or(u32::MAX), ..self.item.clone() }
    }

    /// For how long it has been known, here or elsewhere.
    fn age(&self, now: Time) -> Duration {
        Duration::from_secs(u64::from(self.item.age_s)) + now.since(self.came)
    }

    /// Which of the two was written later: by version, unless a value is so much younger than a removal that the removal was
    /// forgotten where the value was written.
    fn compare(&self, other: &Item, now: Time) -> Ordering {
        let (age, other_age) = (self.age(now), Duration::from_secs(u64::from(other.age_s)));
        match (&self.item.value, &other.value) {
            (None, Some(_)) if age >= other_age + COUNTED_ANEW_AFTER => Ordering::Less,
            (Some(_), None) if other_age >= age + COUNTED_ANEW_AFTER => Ordering::Greater,
            _ => (self.item.version, self.item.origin).cmp(&(other.version, other.origin)),
        }
    }
}

/// Where a span's items begin.
pub(crate) fn first_of(span: Span) -> Cursor {
    Cursor { place: span.first, key: Id(0) }
}

fn weight(item: &Item) -> usize {
    item.value.as_ref().map_or(0, bytes::Bytes::len)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::dictionary::{Origin, VALUE_BYTES_MAX};

    fn item(key: u64, counter: u64, value: Option<Bytes>) -> Item {
        let origin = Origin { node: Id(1), incarnation: 1, sequence: counter };
        Item { key: Id(key), version: Version { counter, node: Id(1) }, origin, value, age_s: 0 }
    }

    fn keep(store: &mut Store, item: &Item, room: Room) -> Merged {
        store.merge(item.key, item, room, Time::ZERO)
    }

    #[test]
    fn the_last_writer_wins_whatever_comes_first() {
        let mut store = Store::default();
        let [old, new] = [item(7, 1, Some("old".into())), item(7, 2, None)];
        assert_eq!(keep(&mut store, &new, Room::ForClients), Merged::Kept);
        assert_eq!(keep(&mut store, &old, Room::ForClients), Merged::Outdated(new.version));
        assert_eq!(keep(&mut store, &new, Room::ForClients), Merged::Kept);
        let mut elsewhere = item(7, 2, Some("by another node".into()));
        elsewhere.version.node = Id(9);
        assert_eq!(keep(&mut store, &elsewhere, Room::ForClients), Merged::Kept);
        assert_eq!(store.find(Id(7), Id(7)), Some(&elsewhere));
        assert_eq!((store.len(), store.bytes()), (1, "by another node".len()));
    }

    #[test]
    fn a_removal_yields_to_a_value_of_whoever_had_forgotten_it_and_to_no_older_one() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let aged =
            |counter, value, age: Duration| Item { age_s: age.as_secs() as u32, ..item(7, counter, value) };
        // The removal's version is the later one in all cases.
        for (removed_since, written_since, stays) in [
            (minutes(10), minutes(0), "value"),
            (minutes(10), minutes(12), "gone"),
            (minutes(2), minutes(0), "gone"),
        ] {
            let removal = aged(8, None, removed_since);
            let value = aged(1, Some("value".into()), written_since);
            let last = if stays == "value" { &value } else { &removal };
            for order in [[&removal, &value], [&value, &removal]] {
                // As long after the start as a young node may have been there: ages reach back further.
                let (mut store, now) = (Store::default(), Time::ZERO + Duration::from_secs(1));
                for item in order {
                    store.merge(Id(7), item, Room::ForCopies, now);
                }
                assert_eq!(store.find(Id(7), Id(7)), Some(last), "{removed_since:?} {written_since:?}");
            }
        }
    }

    #[test]
    fn a_full_store_takes_in_what_is_handed_over_but_no_more_than_twice_as_much() {
        let mut store = Store::default();
        let value = Bytes::from(vec![0; VALUE_BYTES_MAX]);
        let fits = (ITEMS_BYTES_MAX / VALUE_BYTES_MAX) as u64;
        for key in 0..fits {
            assert_eq!(keep(&mut store, &item(key, 1, Some(value.clone())), Room::ForClients), Merged::Kept);
        }
        assert_eq!(keep(&mut store, &item(fits, 1, Some(value.clone())), Room::ForClients), Merged::Full);
        assert_eq!(keep(&mut store, &item(0, 2, Some(value.clone())), Room::ForClients), Merged::Kept);
        for key in fits..2 * fits {
            assert_eq!(keep(&mut store, &item(key, 1, Some(value.clone())), Room::ForCopies), Merged::Kept);
        }
        assert_eq!(keep(&mut store, &item(2 * fits, 1, Some(value)), Room::ForCopies), Merged::Full);
        assert_eq!(
            keep(&mut store, &item(1, 2, None), Room::ForClients),
            Merged::Kept,
            "to remove makes room"
        );
        assert_eq!(store.bytes(), 2 * ITEMS_BYTES_MAX - VALUE_BYTES_MAX);
    }

    #[test]
    fn chunks_go_round_zero_and_miss_nothing() {
        let ring = Ring::new(1 << 64).unwrap();
        let mut store = Store::default();
        let keys: Vec<u64> = (0..700).map(|number: u64| number.wrapping_sub(350)).collect();
        for key in keys.iter().chain(&[u64::MAX / 2]) {
            keep(&mut store, &item(*key, 1, Some("value".into())), Room::ForClients);
        }
        let span = Span { first: Id(350_u64.wrapping_neg()), last: Id(349) };
        let (mut told, mut from) = (Vec::new(), Some(first_of(span)));
        while let Some(cursor) = from {
            let (items, next) = store.chunk(span, cursor, Time::ZERO);
            assert!(items.len() <= CHUNK_ITEMS_MAX);
            told.extend(items.into_iter().map(|item| item.key.0));
            from = next;
        }
        assert_eq!(told, keys);
        let (some, next) =
            store.some(ring, span, Some(Cursor { place: Id(340), key: Id(0) }), 64, Time::ZERO);
        assert_eq!((some.len(), next), (10, None));
        store.drop_span(ring, span, Some(Span { first: Id(0), last: Id(9) }));
        assert_eq!(store.len(), 11);
    }

    #[test]
    fn what_was_removed_is_forgotten_one_day_whoever_remembered_it() {
        let mut store = Store::default();
        let mut removed = item(7, 1, None);
        removed.age_s = 500;
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        store.merge(Id(7), &removed, Room::ForCopies, at(1000));
        assert_eq!(
            store.chunk(Span { first: Id(7), last: Id(7) }, Cursor { place: Id(7), key: Id(0) }, at(1050)).0
                [0]
            .age_s,
            550
        );
        store.forget_removed(at(1099));
        assert_eq!(store.len(), 1);
        store.forget_removed(at(1101));
        assert_eq!(store.len(), 0);
    }
}
