//! A node's state, and messages, as the explorer compares them: two states with the same digest behave alike.
//!
//! - *Times* count from the node's own present. Of a moment that is past, what counts is how long what it began goes on.
//! - *Tokens* (numbers of requests, hops, look-ups, messages) stand for their rank among those of their node that are still
//!   about: the protocol only compares them with each other, and draws ever larger ones.
//! - *Ids* may be turned round the ring, all by the same distance: the ring's protocol only knows distances. Tables that are sorted
//!   by id are taken as sets. The dictionary does compare ids, but only of items: between two versions of the same number the
//!   larger node's is the later, and a place's keys are told in their order. So where there are items, or an operation
//!   names a key, states may not be turned ([`Scenario::rotations`](crate::explore::Scenario::rotations) sees to it); a
//!   dictionary at rest, or one that acquires a range of which nobody has items, may.
//! - Left out is what the protocol writes and never reads (statistics, moments for the metrics), and what
//!   [`Core::still`] takes away (jitter, estimated round trips).
//!
//! Each struct is taken apart by all of its fields, so a new one does not compile until it is decided upon here.

mod said;

use std::hash::{DefaultHasher, Hash, Hasher};

use rand_pcg::Pcg32;
use rand_pcg::rand_core::SeedableRng;

use super::departed::{Departed, Lost};
use super::duplicates::Duplicates;
use super::forward::{Passage, PendingHop, PendingHops};
use super::join::{Joining, Stage};
use super::leave::{LEAVE_MAX, Leaving};
use super::lookup::PendingLookup;
use super::repair::{Purpose, Request};
use super::reunion::Reunion;
use super::ring::Neighbours;
use super::route::NextHop;
use super::rtt::RoundTrips;
use super::stabilise::Upkeep;
use super::timers::Timer;
use super::{Core, deliveries::Delivered};
use crate::id::{Id, Ring};
use crate::message::Contact;
use crate::time::Time;

/// The seed of the jitter of nodes that stand still.
const STILL_SEED: u64 = 0;

/// A digest under way: first all tokens are collected, then everything is hashed.
pub(crate) struct Digest {
    hasher: DefaultHasher,
    ring: Ring,
    now: Time,
    rotation: u64,
    tokens: Vec<(Id, u64)>,
    is_collecting: bool,
}

impl Digest {
    /// The digest of what `visit` visits, always in the same way: the least of all rotations by these distances.
    pub(crate) fn of(ring: Ring, rotations: &[u64], visit: impl Fn(&mut Digest)) -> u64 {
        let mut digest = Digest {
            hasher: DefaultHasher::new(),
            ring,
            now: Time::ZERO,
            rotation: 0,
            tokens: Vec::new(),
            is_collecting: true,
        };
        visit(&mut digest);
        digest.tokens.sort_unstable();
        digest.tokens.dedup();
        digest.is_collecting = false;
        let rotated = |rotation: &u64| {
            digest.rotation = *rotation;
            digest.hasher = DefaultHasher::new();
            visit(&mut digest);
            digest.hasher.finish()
        };
        rotations.iter().map(rotated).min().unwrap_or_default()
    }

    /// What follows is a node's whose present this is.
    pub(crate) fn set_now(&mut self, now: Time) {
        self.now = now;
    }

    pub(crate) fn plain(&mut self, value: &impl Hash) {
        if !self.is_collecting {
            value.hash(&mut self.hasher);
        }
    }

    pub(crate) fn time(&mut self, time: Time) {
        let ahead = time.since(self.now);
        self.plain(&ahead);
    }

    /// Whether a moment is still to come.
    pub(crate) fn is_ahead(&self, time: Time) -> bool {
        time > self.now
    }

    pub(crate) fn id(&mut self, id: Id) {
        let turned = self.ring.add(id, self.rotation);
        self.plain(&turned);
    }

    pub(crate) fn contact(&mut self, contact: Contact) {
        self.id(contact.id);
        self.plain(&contact.incarnation);
    }

    /// A number that the node `owner` has given.
    pub(crate) fn token(&mut self, owner: Id, token: u64) {
        if self.is_collecting {
            self.tokens.push((owner, token));
        } else {
            let first = self.tokens.partition_point(|(other, _)| *other < owner);
            let place = self.tokens.partition_point(|other| *other < (owner, token));
            self.plain(&(place - first));
        }
    }

    pub(crate) fn ordered<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Digest, T),
    ) {
        let mut count = 0usize;
        for item in items {
            each(self, item);
            count += 1;
        }
        self.plain(&count);
    }

    /// Items whose order is of no importance, or depends on their ids.
    pub(crate) fn unordered<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Digest, T),
    ) {
        let outer = std::mem::take(&mut self.hasher);
        let (mut sum, mut count) = (0u64, 0usize);
        for item in items {
            self.hasher = DefaultHasher::new();
            each(self, item);
            sum = sum.wrapping_add(self.hasher.finish());
            count += 1;
        }
        self.hasher = outer;
        self.plain(&(sum, count));
    }

    fn ids(&mut self, contacts: &[Contact]) {
        self.ordered(contacts, |digest, contact| digest.contact(*contact));
    }
}

impl Core {
    /// See [`Peer::still`](crate::peer::Peer::still).
    pub(crate) fn still(&mut self) {
        self.randomness = Pcg32::seed_from_u64(STILL_SEED);
        self.round_trips = RoundTrips::default();
        self.reunion = Reunion::default();
    }

    /// What the next deadline is for, for people.
    pub(crate) fn timers_due(&self) -> Vec<String> {
        let next = self.deadline();
        let due = self.timers.due.iter().take_while(|(at, _)| Some(*at) == next);
        due.map(|(_, timer)| format!("{timer:?}")).collect()
    }

    /// Whether the next deadline is for acknowledgements, and for nothing else.
    pub(crate) fn is_ack_due(&self) -> bool {
        let mut due = self.timers.due.iter();
        let first = due.next();
        first.is_some_and(|(at, timer)| *timer == Timer::Acks && due.next().is_none_or(|(next, _)| next > at))
    }

    pub(crate) fn digest(&self, digest: &mut Digest) {
        let Core {
            net: _,
            me,
            phase,
            handed_over,
            neighbours,
            table,
            timers,
            round_trips: _,
            requests,
            hops,
            acks,
            lookups,
            duplicates,
            delivered,
            upkeep,
            finger_upkeep,
            departed,
            // Taken away by `still`.
            reunion: _,
            joining,
            leaving,
            // What a node is asked to be, once.
            proxy_use: _,
            guests,
            clients,
            proxy,
            // The dictionary knows for how long.
            giver: _,
            items_held,
            upcalls: _,
            last_token: _,
            randomness: _,
            statistics: _,
            planted,
            // Options that are off wherever states are compared.
            nearby: _,
            link_cache: _,
        } = self;
        digest.contact(*me);
        digest.plain(&(phase, handed_over, finger_upkeep, planted));
        digest.neighbours(neighbours);
        digest.ordered(table.entries(), |digest, (target, finger)| {
            digest.id(target);
            digest.ordered(finger, Digest::contact);
        });
        digest.ordered(&timers.due, |digest, (at, timer)| digest.timer(me.id, *at, *timer));
        digest.unordered(requests, |digest, (token, request)| digest.request(me.id, *token, request));
        let PendingHops { hops, payload_bytes: _, late: _ } = hops;
        digest.unordered(hops, |digest, (hop, pending)| digest.hop(me.id, *hop, pending));
        digest.unordered(acks, |digest, (to, queue)| {
            digest.contact(*to);
            digest.ordered(queue, |digest, (hop, _, verdict)| {
                digest.token(to.id, *hop);
                digest.plain(verdict);
            });
        });
        digest.unordered(lookups, |digest, (sequence, lookup)| digest.lookup(me.id, *sequence, lookup));
        digest.taken(duplicates, delivered);
        digest.upkeep(upkeep);
        digest.departed(departed);
        digest.ordered(joining, |digest, joining| digest.joining(me.id, joining));
        digest.plain(items_held);
        guests.digest(digest);
        clients.digest(digest);
        proxy.digest(digest);
        digest.ordered(leaving, |digest, Leaving { began_at, gives_up_at, refused }| {
            digest.time(*began_at + LEAVE_MAX);
            digest.time(*gives_up_at);
            digest.plain(refused);
        });
    }
}

impl Digest {
    fn neighbours(&mut self, neighbours: &Neighbours) {
        self.ordered(neighbours.predecessor(), Digest::contact);
        self.ordered(neighbours.second_predecessor(), Digest::id);
        self.id(neighbours.range_start());
        self.ids(neighbours.successors());
    }

    /// The messages that it remembers to have taken.
    fn taken(&mut self, duplicates: &Duplicates, delivered: &Delivered) {
        self.unordered(&duplicates.turns, |digest, (errand, turns)| {
            digest.errand(errand);
            digest.plain(turns);
        });
        let Delivered { reached, order: _ } = delivered;
        self.unordered(reached, |digest, ((source, incarnation, sequence), reach)| {
            digest.id(*source);
            digest.token(*source, *sequence);
            digest.plain(&(incarnation, reach));
        });
    }

    fn departed(&mut self, Departed { lost }: &Departed) {
        self.unordered(lost, |digest, (_, lost)| {
            let Lost { contact, since: _, attempts, due } = lost;
            digest.contact(*contact);
            digest.plain(attempts);
            digest.time(*due);
        });
    }

    fn timer(&mut self, me: Id, at: Time, timer: Timer) {
        self.time(at);
        match timer {
            Timer::Hop(token) | Timer::Request(token) | Timer::Lookup(token) | Timer::Service(token) => {
                self.plain(&std::mem::discriminant(&timer));
                self.token(me, token);
            }
            Timer::Acks | Timer::Stabilise | Timer::Join | Timer::Leave => self.plain(&timer),
        }
    }

    fn request(&mut self, me: Id, token: u64, request: &Request) {
        let Request { to, purpose, sent_at: _, attempts, timeout, expires, graced, suspect, heard } = request;
        self.token(me, token);
        self.contact(*to);
        self.plain(&(std::mem::discriminant(purpose), attempts, timeout, graced, suspect, heard));
        match purpose {
            Purpose::Predecessor { claimant } => self.contact(*claimant),
            Purpose::Finger { index, target } => {
                self.plain(index);
                self.id(*target);
            }
            Purpose::Window { place } => self.plain(place),
            Purpose::Sounding { place, target, warm } => {
                self.plain(&(place, warm));
                self.id(*target);
            }
            Purpose::Successor | Purpose::Candidate | Purpose::Probe | Purpose::Return | Purpose::Proxy => {}
        }
        self.time(*expires);
    }

    pub(super) fn passage(&mut self, passage: &Passage) {
        let Passage { route, from, tried } = passage;
        self.route(route);
        self.ordered(*from, Digest::id);
        self.ordered(tried, |digest, id| digest.id(*id));
    }

    fn hop(&mut self, me: Id, hop: u64, pending: &PendingHop) {
        let PendingHop { passage, next, sent_at: _, expires, graced } = pending;
        let NextHop { to, entry, backward, claimed } = next;
        self.token(me, hop);
        self.passage(passage);
        self.contact(*to);
        self.ordered(*entry, Digest::id);
        self.plain(&(backward, claimed, graced));
        self.time(*expires);
    }

    fn lookup(&mut self, me: Id, sequence: u64, lookup: &PendingLookup) {
        let PendingLookup { key, purpose, started: _, attempts, due, failure } = lookup;
        self.token(me, sequence);
        self.id(*key);
        self.plain(&(purpose, attempts, failure));
        self.time(*due);
    }

    fn upkeep(&mut self, upkeep: &Upkeep) {
        let Upkeep { period, due, fingers_due } = upkeep;
        self.plain(period);
        self.ordered(*due, Digest::time);
        self.time(*fingers_due);
    }

    fn joining(&mut self, me: Id, joining: &Joining) {
        let Joining { bootstrap: _, attempts, direct, stage, late, last_failure: _ } = joining;
        self.plain(&(attempts, direct, std::mem::discriminant(stage)));
        match stage {
            Stage::Requested { by: node, sequence }
            | Stage::Locating { by: node, sequence }
            | Stage::Asking { of: node, sequence }
            | Stage::Confirmed { with: node, sequence } => {
                self.contact(*node);
                self.token(me, *sequence);
            }
            Stage::Pausing | Stage::Connecting => {}
        }
        self.ordered(late, |digest, (node, sequence)| {
            digest.contact(*node);
            digest.token(me, *sequence);
        });
    }
}
