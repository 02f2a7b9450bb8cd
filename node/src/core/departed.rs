//! Neighbours that were taken for dead and may come back: a partition looks like many deaths at once, and when it heals, each
//! side is a ring of its own. A node asks its lost neighbours again, ever more seldom; one that answers takes its place, and
//! so the rings close like a zip (cf. Shafaat, Ghodsi & Haridi 2007, on merging rings; here each node remembers its own seam).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::repair::Purpose;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::{Contact, Message};
use crate::time::Time;

/// The most lost neighbours that a node remembers; the oldest memory goes first.
pub(crate) const DEPARTED_MAX: usize = 24;

/// How often a lost neighbour is asked before it is forgotten.
const ATTEMPTS_MAX: u32 = 20;

/// How long until a lost neighbour is asked for the first time; each pause is twice the last, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The lost neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Departed {
    pub(super) lost: BTreeMap<Id, Lost>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lost {
    pub(super) contact: Contact,
    pub(super) since: Time,
    pub(super) attempts: u32,
    pub(super) due: Time,
}

impl Departed {
    /// Remembers a neighbour that was taken for dead at `now`.
    pub(crate) fn remember(&mut self, contact: Contact, now: Time) {
        if self.lost.get(&contact.id).is_some_and(|lost| lost.contact == contact) {
            return;
        }
        if self.lost.len() >= DEPARTED_MAX
            && let Some(oldest) = self.lost.values().min_by_key(|lost| lost.since).map(|lost| lost.contact.id)
        {
            self.lost.remove(&oldest);
        }
        let lost = Lost { contact, since: now, attempts: 0, due: now + PAUSE_MIN };
        self.lost.insert(contact.id, lost);
    }

    /// Those that are remembered.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.lost.values().map(|lost| lost.contact)
    }

    /// Forgets a node: it has spoken, or has left.
    pub(crate) fn forget(&mut self, id: Id) {
        self.lost.remove(&id);
    }

    /// The lost neighbour that is to be asked now, if any.
    fn next_due(&mut self, now: Time) -> Option<Contact> {
        self.lost.retain(|_, lost| lost.attempts < ATTEMPTS_MAX);
        let lost = self.lost.values_mut().filter(|lost| lost.due <= now).min_by_key(|lost| lost.due)?;
        lost.due = now + (PAUSE_MIN * (1 << lost.attempts.min(5))).min(PAUSE_MAX);
        lost.attempts += 1;
        Some(lost.contact)
    }
}

impl Core {
    /// Asks a lost neighbour whether it is back, if it is time.
    pub(crate) fn ask_departed(&mut self, cx: &mut Context<'_>) {
        if let Some(contact) = self.departed.next_due(cx.now) {
            self.request(cx, contact, Purpose::Return);
        }
    }

    /// A lost neighbour is back: it becomes the successor, or may take this node for its own.
    pub(crate) fn on_returned(&mut self, cx: &mut Context<'_>, from: Contact, successors: &[Contact]) {
        self.departed.forget(from.id);
        if self.neighbours.is_closer_successor(from.id) {
            self.adopt_successors(cx, from, successors);
            self.notify_successor(cx);
        } else {
            let successors = self.neighbours.successors().to_vec();
            self.send(cx, from, Message::Introduce { successors });
        }
    }
}
