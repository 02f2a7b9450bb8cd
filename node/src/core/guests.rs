//! Joiners that are dialled back before they are let into the ring: one that others cannot reach would be a hole in it. The dial
//! is the one that the offer goes over, so it costs a join nothing; only where the joiner came straight to its future
//! successor, it is made for its own sake, while the joiner considers the offer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::digest::Digest;
use crate::core::effect::Output;
use crate::core::{Context, Core};
use crate::message::{Contact, Message};
use crate::time::Time;

/// The most joiners that a node remembers; who came first is forgotten first.
pub const GUESTS_MAX: usize = 1024;

/// How long a joiner is remembered.
const GUEST_KEPT: Duration = Duration::from_secs(60);

/// How many dials in a row fail before a joiner counts as one that cannot be reached: it may only be slow.
const DIALS_BACK_MAX: u32 = 2;

/// The joiners that this node has made an offer, or is about to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Guests {
    known: BTreeMap<Contact, Guest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Guest {
    since: Time,
    /// The number of its request.
    sequence: u64,
    wish: Wish,
    dialled: Dialled,
}

/// What a joiner waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wish {
    /// Nothing: an offer is on its way to it.
    Nothing,
    /// An offer; it has come over a link of its own.
    Offer,
    /// The range: it has accepted the offer.
    Range,
}

/// What dialling it back has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dialled {
    Reached,
    /// So many dials have failed.
    InVain(u32),
}

impl Guests {
    /// Those that are still remembered.
    pub(super) fn digest(&self, digest: &mut Digest) {
        let known = self.known.iter().map(|(joiner, guest)| (joiner, guest, guest.since + GUEST_KEPT));
        let known: Vec<_> = known.filter(|(.., until)| digest.is_ahead(*until)).collect();
        digest.unordered(known, |digest, (joiner, guest, until)| {
            let Guest { since: _, sequence, wish, dialled } = guest;
            digest.contact(*joiner);
            digest.token(joiner.id, *sequence);
            digest.plain(&(wish, dialled));
            digest.time(until);
        });
    }

    fn note(&mut self, joiner: Contact, sequence: u64, wish: Wish, now: Time) -> Dialled {
        self.known.retain(|_, guest| now.since(guest.since) < GUEST_KEPT);
        if !self.known.contains_key(&joiner)
            && self.known.len() >= GUESTS_MAX
            && let Some(oldest) =
                self.known.iter().min_by_key(|(_, guest)| guest.since).map(|(guest, _)| *guest)
        {
            self.known.remove(&oldest);
        }
        let guest = Guest { since: now, sequence, wish, dialled: Dialled::InVain(0) };
        let guest = self.known.entry(joiner).or_insert(guest);
        (guest.sequence, guest.wish) = (sequence, wish);
        guest.dialled
    }

    pub(crate) fn forget(&mut self, joiner: &Contact) {
        self.known.remove(joiner);
    }
}

impl Core {
    /// A joiner wants something that only a node may have which can be reached. `true`: it is known to be. Else it is dialled, and
    /// [`Core::on_reached`] goes on; or it is known not to be, and becomes a client.
    pub(crate) fn is_reached(
        &mut self,
        cx: &mut Context<'_>,
        joiner: Contact,
        sequence: u64,
        wish: Wish,
    ) -> bool {
        match self.guests.note(joiner, sequence, wish, cx.now) {
            Dialled::Reached => return true,
            Dialled::InVain(DIALS_BACK_MAX..) if wish != Wish::Nothing => {
                self.guests.forget(&joiner);
                self.take_client_in(cx, joiner, sequence);
            }
            Dialled::InVain(DIALS_BACK_MAX..) => {}
            Dialled::InVain(_) => cx.out.push(Output::Reach { contact: joiner }),
        }
        false
    }

    /// A link to a node has been made by this one.
    pub(crate) fn on_reached(&mut self, cx: &mut Context<'_>, contact: Contact) {
        let Some(guest) = self.guests.known.get_mut(&contact) else { return };
        guest.dialled = Dialled::Reached;
        let (wish, sequence) = (std::mem::replace(&mut guest.wish, Wish::Nothing), guest.sequence);
        match wish {
            Wish::Nothing => {}
            Wish::Offer => self.offer_place(cx, contact, sequence),
            Wish::Range => self.on_join_confirm(cx, contact, sequence),
        }
    }

    /// No link to a node could be made. `true`: it is a joiner; if it has a link to this node, it becomes a client.
    pub(crate) fn is_unreachable_guest(&mut self, cx: &mut Context<'_>, contact: Contact) -> bool {
        let Some(guest) = self.guests.known.get_mut(&contact) else { return false };
        let failed = match guest.dialled {
            Dialled::Reached => return false,
            Dialled::InVain(failed) => failed + 1,
        };
        guest.dialled = Dialled::InVain(failed);
        let (wish, sequence) = (guest.wish, guest.sequence);
        if failed < DIALS_BACK_MAX {
            cx.out.push(Output::Reach { contact });
        } else if wish != Wish::Nothing {
            self.guests.forget(&contact);
            self.take_client_in(cx, contact, sequence);
        }
        true
    }

    /// Offers a joiner the place before this node.
    pub(crate) fn offer_place(&mut self, cx: &mut Context<'_>, joiner: Contact, sequence: u64) {
        let successors = self.neighbours.successors().to_vec();
        self.send(cx, joiner, Message::JoinOffer { sequence, successors });
    }
}
