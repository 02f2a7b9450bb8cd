//! What the dictionary was asked for, and what it must know.
//!
//! Sources: the promises of `services::dictionary` (its module's documentation), and `conservation` for what is kept where.
//! Each value names the write that gave it, so an answer that nobody wrote is known.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::scenario::Draws;
use crate::config::NetConfig;
use crate::id::Id;
use crate::invariant::Violation;
use crate::message::Contact;
use crate::message::dictionary::{Answer, DictionaryError, Stored, Version, Written};
use crate::peer::{Command, Peer};
use crate::services::dictionary::conservation::{self, Acknowledged};
use crate::services::dictionary::{Dictionary, REMOVED_KEPT, places::Places};

pub(super) const ENDS_ONCE: &str = "an operation on the dictionary ends once";
pub(super) const VERSIONS_RISE: &str = "a later write has a later version";
pub(super) const READS_ARE_TRUE: &str = "a read gives a value that was written";
pub(super) const READS_ARE_FRESH: &str = "a read sees the last acknowledged write";
pub(super) const CONSERVED: &str = "no acknowledged write is lost";
pub(super) const IN_THEIR_PLACES: &str = "all copies come to their places in time";
pub(super) const ALL_ENDED: &str = "every operation on the dictionary ends";
pub(super) const SUCCEEDS: &str = "operations on the dictionary succeed without faults";

/// After this time it is not counted on that a removed key is remembered: half the time for which it is.
const REMOVED_COUNTED_US: u64 = REMOVED_KEPT.as_micros() as u64 / 2;

/// The dictionary as its users know it.
#[derive(Debug)]
pub(super) struct Keys {
    places: Places,
    /// The keys in use.
    pool: Vec<Id>,
    histories: BTreeMap<Id, History>,
    open: BTreeMap<u64, Open>,
    last_number: u64,
}

/// What is known of a key.
#[derive(Clone, Debug, Default)]
struct History {
    /// The last acknowledged write, and when it was.
    last: Option<(Acknowledged, u64)>,
    /// On how many nodes it was.
    copies: u8,
    /// All values that were ever to be written, by operation; `None`: the key was to be removed.
    tries: BTreeMap<u64, Option<Bytes>>,
    /// Removals of which it is not known whether, or when, they were or will be done.
    uncertain_removals: BTreeSet<u64>,
    /// The versions of all acknowledged writes, and whether each was a removal.
    versions: BTreeMap<Version, bool>,
}

/// An operation that has not ended.
#[derive(Clone, Debug)]
struct Open {
    by: Contact,
    key: Id,
    wish: Wish,
    /// The version of the last acknowledged write when it began.
    floor: Option<Version>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Insert,
    Get,
    Remove,
}

impl Keys {
    pub(super) fn new(net: &NetConfig, count: usize, draws: &mut Draws) -> Keys {
        let last = net.ring().last().0;
        let pool = (0..count).map(|_| Id(draws.within(0, last))).collect();
        let (histories, open) = (BTreeMap::new(), BTreeMap::new());
        Keys { places: Places::new(net), pool, histories, open, last_number: 0 }
    }

    /// Draws an operation for a node.
    pub(super) fn ask(&mut self, by: Contact, now_us: u64, draws: &mut Draws) -> Command {
        let key = draws.of(&self.pool);
        let wish = draws.of(&[Wish::Insert, Wish::Insert, Wish::Get, Wish::Get, Wish::Get, Wish::Remove]);
        self.last_number += 1;
        let operation = self.last_number;
        let history = self.histories.entry(key).or_default();
        let floor = history.floor(now_us);
        if floor.is_none() {
            // Versions may begin anew where nothing is remembered.
            (history.last, history.versions) = (None, BTreeMap::new());
        }
        self.open.insert(operation, Open { by, key, wish, floor });
        match wish {
            Wish::Get => Command::Get { operation, key },
            Wish::Insert => {
                let value = Bytes::from(format!("{key} {operation}"));
                history.tries.insert(operation, Some(value.clone()));
                Command::Insert { operation, key, value }
            }
            Wish::Remove => {
                history.tries.insert(operation, None);
                history.uncertain_removals.insert(operation);
                Command::Remove { operation, key }
            }
        }
    }

    /// An operation has ended. Where nodes were kept apart (`is_strict` is not set), there may have been two dictionaries.
    pub(super) fn hear(
        &mut self,
        operation: u64,
        result: &Result<Answer, DictionaryError>,
        now_us: u64,
        is_strict: bool,
    ) -> Result<(), Violation> {
        let Some(open) = self.open.remove(&operation) else {
            return broken(ENDS_ONCE, format!("operation {operation} ends again, as {result:?}"));
        };
        let history = self.histories.entry(open.key).or_default();
        match result {
            Err(_) => Ok(()),
            Ok(Answer::Written(written)) => {
                history.acknowledge(operation, &open, *written, now_us, is_strict)
            }
            Ok(Answer::Value(value)) => history.judge(&open, value.as_ref(), is_strict),
        }
        .map_err(|violation| Violation {
            detail: format!("operation {operation} on key {}: {}", open.key, violation.detail),
            ..violation
        })
    }

    /// Operations of nodes that are gone have ended.
    pub(super) fn forget_operations_of(&mut self, gone: Contact) {
        self.open.retain(|_, open| open.by != gone);
    }

    pub(super) fn all_ended(&self) -> Result<(), Violation> {
        match self.open.first_key_value() {
            Some((operation, open)) => broken(ALL_ENDED, format!("operation {operation}: {open:?}")),
            None => Ok(()),
        }
    }

    /// How many nodes may crash at once so that each acknowledged write has a copy left, on a ring at rest of these members.
    pub(super) fn spare_copies(&self, members: &BTreeSet<Id>) -> usize {
        let responsible =
            |place: Id| members.range(place..).next().or_else(|| members.first()).copied().unwrap_or(place);
        let known = self.histories.iter().filter(|(_, history)| history.last.is_some());
        let copies = known.map(|(key, history)| {
            let holders: BTreeSet<Id> = self.places.of(*key).map(responsible).collect();
            holders.len().min(usize::from(history.copies))
        });
        copies.min().map_or(usize::MAX, |copies| copies.saturating_sub(1))
    }

    /// No acknowledged write is lost, wherever it is kept.
    pub(super) fn are_conserved<'a>(
        &self,
        dictionaries: impl Iterator<Item = &'a Dictionary>,
        now_us: u64,
    ) -> Result<(), Violation> {
        let counted = |history: &History| history.counted(now_us).cloned();
        let acknowledged: BTreeMap<Id, Acknowledged> =
            self.histories.iter().filter_map(|(key, history)| Some((*key, counted(history)?))).collect();
        let lost = conservation::lost(dictionaries, &acknowledged);
        match lost.first() {
            Some(key) => {
                let known = &acknowledged[key];
                broken(CONSERVED, format!("{} keys, such as {key}: {known:?}", lost.len()))
            }
            None => Ok(()),
        }
    }

    /// Whether a key has a value, or was removed so lately that this must be remembered.
    pub(super) fn counts(&self, key: Id, now_us: u64) -> bool {
        self.histories.get(&key).is_some_and(|history| history.counted(now_us).is_some())
    }

    /// After faults, what the nodes have counts from here on. A failed write may have been done, but nothing was made up.
    pub(super) fn begin_anew(&mut self, members: &[&Peer]) -> Result<(), Violation> {
        let mut known: BTreeMap<Id, Acknowledged> = BTreeMap::new();
        for (_, item) in members.iter().flat_map(|peer| peer.dictionary().iter()) {
            let entry = known.entry(item.key).or_insert_with(|| (item.version, item.value.clone()));
            if entry.0 < item.version {
                *entry = (item.version, item.value.clone());
            }
        }
        for (key, history) in &mut self.histories {
            let item = known.remove(key);
            if let Some((_, Some(value))) = &item
                && !history.was_tried(value)
            {
                return broken(READS_ARE_TRUE, format!("nobody has given key {key} the value {value:?}"));
            }
            history.copies = u8::MAX;
            history.uncertain_removals.clear();
            history.versions = item.iter().map(|(version, value)| (*version, value.is_none())).collect();
            // When a removed key was removed is not known.
            history.last = item.map(|item| (item, 0));
        }
        match known.first_key_value() {
            Some((key, item)) => broken(READS_ARE_TRUE, format!("nobody has written key {key}: {item:?}")),
            None => Ok(()),
        }
    }
}

impl History {
    /// The last acknowledged write, if it must be remembered still.
    fn counted(&self, now_us: u64) -> Option<&Acknowledged> {
        let (last, at_us) = self.last.as_ref()?;
        (last.1.is_some() || now_us < at_us + REMOVED_COUNTED_US).then_some(last)
    }

    /// The least version that may be seen now.
    fn floor(&self, now_us: u64) -> Option<Version> {
        self.counted(now_us).map(|(version, _)| *version)
    }

    fn was_tried(&self, value: &Bytes) -> bool {
        self.tries.values().flatten().any(|tried| tried == value)
    }

    fn acknowledge(
        &mut self,
        operation: u64,
        open: &Open,
        written: Written,
        now_us: u64,
        is_strict: bool,
    ) -> Result<(), Violation> {
        let Written { version, copies } = written;
        self.uncertain_removals.remove(&operation);
        let is_new = self.versions.insert(version, open.wish == Wish::Remove).is_none();
        if is_strict && (!is_new || open.floor.is_some_and(|floor| version <= floor)) {
            let floor = open.floor;
            return broken(VERSIONS_RISE, format!("it has {version:?}, the one before it had {floor:?}"));
        }
        if self.last.as_ref().is_none_or(|((last, _), _)| *last < version) {
            let value = self.tries.get(&operation).cloned().flatten();
            self.last = Some(((version, value), now_us));
            self.copies = copies;
        }
        Ok(())
    }

    fn judge(&self, open: &Open, value: Option<&Stored>, is_strict: bool) -> Result<(), Violation> {
        let Some(Stored { value, version }) = value else {
            let was_removed =
                open.floor.is_none_or(|floor| self.versions.range(floor..).any(|(_, gone)| *gone));
            if is_strict && !was_removed && self.uncertain_removals.is_empty() {
                return broken(READS_ARE_FRESH, format!("nothing was read, but {:?} was written", self.last));
            }
            return Ok(());
        };
        if !self.was_tried(value) {
            return broken(READS_ARE_TRUE, format!("{value:?} was read"));
        }
        let is_old = open.floor.is_some_and(|floor| *version < floor);
        let is_other = self
            .last
            .as_ref()
            .is_some_and(|((last, known), _)| last == version && known.as_ref() != Some(value));
        if is_strict && (is_old || is_other) {
            let last = &self.last;
            return broken(READS_ARE_FRESH, format!("{value:?} was read, with {version:?}, not {last:?}"));
        }
        Ok(())
    }
}

fn broken(invariant: &'static str, detail: String) -> Result<(), Violation> {
    Err(Violation { invariant, detail })
}
