//! What must be true of a network, checked from outside over all of its nodes at once: one file an invariant, each with its
//! source. The same checks serve the explorer, the random scenarios of the tests and runs in the simulator.
//!
//! # When each holds
//! Zave proves her invariants for failures that are noticed: a crash is seen by those who have a link to the node, and nobody
//! else is taken for dead. Our network sees it so while messages arrive ([`Moment::FailuresSeen`]). Lost messages, pauses and
//! partitions make nodes take living ones for dead; then there *are* two rings for a while, and both may answer for a key:
//! no protocol without agreement can do better (the seam is remembered, `core::departed`, and closes afterwards). So each
//! invariant says from which [`Moment`] on it holds:
//!
//! | invariant | holds | why not sooner |
//! |---|---|---|
//! | [`list_shape`] | always | |
//! | [`operations`]: none ends twice | always | |
//! | [`deliveries`]: once, in order, never "delivered" before it is; failed only if it was not delivered | always | what a source was cut off from is excused |
//! | [`duplicates`]: messages do not breed | always | |
//! | [`live_successor`] | failures seen | a pause looks like a crash |
//! | [`principals`] | failures seen | the same |
//! | [`one_ring`] | failures seen | a partition makes two rings |
//! | [`one_responsible`]: no two members | failures seen | each side of a partition closes its ring |
//! | [`hand_over`]: who has left was relieved | failures seen | a leaver that nobody answers goes without |
//! | [`answers`]: a look-up names a rightful node | failures seen | the same |
//! | [`keys`]: a read sees what was acknowledged | failures seen | each side of a partition has its own dictionary |
//! | [`one_responsible`]: no key without one | quiet | while a joiner's hand-over is on its way the range is nobody's |
//! | [`tables`] ideal | quiet | repair takes rounds |
//! | [`operations`]: each has ended | quiet | it may be under way |
//! | [`deliveries`]: a broadcast reached all who stayed | quiet | it may be under way |
//! | [`keys`]: none is lost | quiet | it may be on its way from one node to the next |
//!
//! A *leaving* node and its successor both answer between the successor's taking over and the leaver's hearing of it; so no two
//! *staying* members is what is claimed, and a range in that state is answered alike by both.
//!
//! Zave's invariants also need that failures leave every member a live entry, and r + 1 principals to begin with (her section 6):
//! whoever makes failures keeps them within [`View::principals_min`], and, where living nodes may be taken for dead, within
//! [`acquaintance`].

pub mod acquaintance;
pub mod answers;
pub mod deliveries;
pub mod duplicates;
pub mod hand_over;
pub mod journal;
pub mod keys;
pub mod list_shape;
pub mod live_successor;
pub mod one_responsible;
pub mod one_ring;
pub mod operations;
pub mod principals;
pub mod tables;
pub mod view;

use std::fmt;

pub use journal::{Asked, Journal};
pub use view::View;

/// What may have happened to the network: each moment asks for more than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Anything, also that nodes take living ones for dead.
    Any,
    /// Nodes join, leave and crash, and only nodes that are gone are taken for dead.
    FailuresSeen,
    /// The same, and nothing has happened for as long as repair takes; nothing is under way.
    Quiet,
}

/// A rule that a network must obey.
pub struct Invariant {
    /// What it says, in a few words.
    pub name: &'static str,
    /// From when on it holds.
    pub holds: Moment,
    /// Finds what breaks it.
    pub check: fn(&View<'_>) -> Result<(), String>,
}

/// All invariants, the cheap ones first.
pub const INVARIANTS: [Invariant; 18] = [
    list_shape::INVARIANT,
    operations::ENDED_ONCE,
    deliveries::DELIVERED_ONCE,
    deliveries::DELIVERED_IN_ORDER,
    deliveries::RESULT_IS_TRUE,
    duplicates::INVARIANT,
    answers::INVARIANT,
    keys::READS_SEE,
    live_successor::INVARIANT,
    one_ring::INVARIANT,
    one_responsible::AT_MOST_ONE,
    hand_over::INVARIANT,
    principals::INVARIANT,
    one_responsible::EXACTLY_ONE,
    tables::RING_IS_IDEAL,
    operations::ALL_ENDED,
    deliveries::BROADCASTS_COMPLETE,
    keys::NOTHING_LOST,
];

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What breaks it.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {:?}: {}", self.invariant, self.detail)
    }
}

/// Checks all invariants that hold at such a moment.
///
/// # Errors
/// The first [`Violation`].
pub fn check(view: &View<'_>, moment: Moment) -> Result<(), Violation> {
    for invariant in INVARIANTS.iter().filter(|invariant| invariant.holds <= moment) {
        (invariant.check)(view).map_err(|detail| Violation { invariant: invariant.name, detail })?;
    }
    Ok(())
}
