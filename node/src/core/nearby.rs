//! Proximity: beside each finger, a node of little latency that serves almost as many keys.
//!
//! A finger has to be the responsible of its position: only then is a key just after the position found there, or one hop
//! further. But a key that lies beyond some later node may as well go by that node: it stands nearer to the key than the position
//! does, so what is left of the way is no longer than it would be from the finger, and the bound of hops is the
//! same (greedy reach grows with distance only). So for each finger the nodes next to its position are measured (the successors of the
//! responsible; of a symmetric table also those before the position), and the one with the least round trip is kept beside it;
//! routes take it for the keys that it is admissible for, and the finger for the others. This is proximity neighbour selection
//! (Gummadi et al., SIGCOMM 2003) from successor lists, as in DHash++ (Dabek et al., NSDI 2004, section 4.1), with the finger kept.

use std::time::Duration;

use crate::core::effect::Phase;
use crate::core::lookup::LookupPurpose;
use crate::core::repair::Purpose;
use crate::core::{Context, Core};
use crate::message::{Contact, Found};
use crate::time::Time;

/// How many places are sounded in one round until each has been once.
const SOUNDINGS_MAX: usize = 4;

/// When all have been: how long until the next one's turn.
const SOUNDING_PAUSE: Duration = Duration::from_secs(60);

/// A node takes another's place if its round trip is shorter by this part: an eighth.
const MARGIN: u32 = 8;

/// The nodes beside the fingers. Empty where the network does without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Nearby {
    /// For each finger the place after its position; then, in symmetric tables, for each the one before.
    places: Vec<Place>,
    fingers: usize,
    /// Whose turn it is.
    turn: usize,
    due: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    nearest: Option<(Contact, Duration)>,
    /// The nodes there have been asked for.
    sounded: bool,
}

impl Nearby {
    /// Places beside so many fingers, on one side of each or on both.
    pub(crate) fn new(fingers: usize, both_sides: bool) -> Nearby {
        let places = vec![Place::default(); fingers * (1 + usize::from(both_sides))];
        Nearby { places, fingers, turn: 0, due: Time::ZERO }
    }

    /// The nodes beside a finger, with their round trips.
    pub(crate) fn beside(&self, finger: usize) -> impl Iterator<Item = (Contact, Duration)> + '_ {
        self.places.iter().skip(finger).step_by(self.fingers.max(1)).filter_map(|place| place.nearest)
    }

    /// A round trip to a node was measured.
    pub(crate) fn offer(&mut self, place: usize, contact: Contact, round_trip: Duration) {
        let Some(place) = self.places.get_mut(place) else { return };
        let is_nearer = place.nearest.is_none_or(|(present, shortest)| {
            present == contact || round_trip < shortest - shortest / MARGIN
        });
        if is_nearer {
            place.nearest = Some((contact, round_trip));
        }
    }

    /// Whether a node may be the nearest of a place, if its link were warm: `cold` is a round trip that may have made the link.
    fn is_promising(&self, place: usize, cold: Duration) -> bool {
        let nearest = self.places.get(place).and_then(|place| place.nearest);
        nearest.is_none_or(|(_, shortest)| cold / 2 < shortest)
    }

    pub(crate) fn contains(&self, contact: &Contact) -> bool {
        self.places.iter().any(|place| place.nearest.is_some_and(|(nearest, _)| nearest == *contact))
    }

    /// Takes a node out; its places are sounded again.
    pub(crate) fn remove(&mut self, contact: &Contact) {
        for place in &mut self.places {
            if place.nearest.is_some_and(|(nearest, _)| nearest == *contact) {
                *place = Place::default();
            }
        }
    }

    /// The nodes of a finger's places are to be asked for again: the finger stands elsewhere.
    pub(crate) fn unsettle(&mut self, finger: usize) {
        self.places
            .iter_mut()
            .skip(finger)
            .step_by(self.fingers.max(1))
            .for_each(|place| place.sounded = false);
    }

    /// The nodes of a place could not be asked for.
    pub(crate) fn retry(&mut self, place: usize) {
        if let Some(place) = self.places.get_mut(place) {
            place.sounded = false;
        }
    }

    /// The place whose turn it is, and whether its nodes have been asked for.
    fn next_place(&mut self) -> Option<(usize, bool)> {
        let at = self.turn;
        let place = self.places.get(at)?;
        self.turn = (at + 1) % self.places.len();
        Some((at, place.sounded))
    }
}

impl Core {
    /// Looks for near nodes beside some fingers: where that has not been done yet, and else at one from time to time.
    pub(crate) fn sound_nearby(&mut self, cx: &mut Context<'_>) {
        let mut asked = 0;
        for _ in 0..self.nearby.places.len() {
            let Some((place, sounded)) = self.nearby.next_place() else { return };
            let is_due = !sounded || cx.now >= self.nearby.due;
            if is_due && self.phase == Phase::Member && self.sound(cx, place) {
                self.nearby.places[place].sounded = true;
                self.nearby.due = cx.now + SOUNDING_PAUSE;
                asked += 1;
            }
            if asked >= SOUNDINGS_MAX {
                return;
            }
        }
    }

    /// Asks for the nodes of a place. `false`: there are none but those that other fingers stand for.
    fn sound(&mut self, cx: &mut Context<'_>, place: usize) -> bool {
        let finger = place % self.table.len();
        if place < self.table.len() {
            let Some(contact) = self.table.finger(finger) else { return false };
            let has_room = self.table.serves(contact.id) == Some(finger);
            if has_room {
                self.request(cx, contact, Purpose::Window { place });
            }
            return has_room;
        }
        let Some(last) = self.neighbours.successors().last() else { return false };
        let ring = self.net.ring();
        // About as many nodes before the position as a successor list has.
        let start = ring.sub(self.table.target(finger), ring.distance(self.me.id, last.id));
        let has_room = self.table.serves(start) == Some(finger) && !self.table.is_own(finger);
        if has_room {
            self.start_lookup(cx, start, LookupPurpose::Window(place));
        }
        has_room
    }

    /// The first node of a place has been looked up.
    pub(crate) fn on_window_found(&mut self, cx: &mut Context<'_>, place: usize, found: Option<Found>) {
        match found {
            Some(found) if found.responsible != self.me => {
                self.request(cx, found.responsible, Purpose::Window { place });
            }
            Some(_) => {}
            None => self.nearby.retry(place),
        }
    }

    /// The nodes of a place are known: each is measured.
    pub(crate) fn on_window(
        &mut self,
        cx: &mut Context<'_>,
        place: usize,
        first: Contact,
        successors: &[Contact],
    ) {
        let finger = place % self.table.len();
        let is_there =
            |contact: &&Contact| contact.id != self.me.id && self.table.serves(contact.id) == Some(finger);
        let there: Vec<Contact> =
            std::iter::once(&first).chain(successors).filter(is_there).copied().collect();
        for contact in there {
            self.request(cx, contact, Purpose::Sounding { place, target: contact.id, warm: false });
        }
    }

    /// A node of a place has answered. The first time it may have had a link to make: it is asked again where it matters.
    pub(crate) fn on_sounded(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        place: usize,
        warm: bool,
        round_trip: Duration,
    ) {
        if warm {
            self.nearby.offer(place, from, round_trip);
        } else if self.nearby.is_promising(place, round_trip) {
            self.request(cx, from, Purpose::Sounding { place, target: from.id, warm: true });
        }
    }
}
