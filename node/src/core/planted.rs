//! Bugs that tests plant into a node to see that the checkers find them. Each is one rule of the protocol left out or bent, at
//! the place where it stands. Without the feature `planted`, no node can have one, and all of it is compiled away. `make planted`
//! shows by which checker, in which seed and by which invariant each is caught.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A notification is not acted on: no *rectify*.
    SkippedRectify,
    /// A successor's predecessor is adopted on hearsay, without a live answer from it.
    AdoptedUnasked,
    /// A node answers for `[predecessor, me)` instead of `(predecessor, me]`.
    WrongRangeEnd,
    /// A part of a broadcast is not acknowledged.
    BroadcastNotAcknowledged,
    /// A node hands a range over to a joiner, and goes on answering for it.
    RangeKeptAtJoin,
    /// A node leaves without handing over, and says that it has.
    NotHandedOverAtLeave,
    /// A query is answered with neighbours where "busy" or "no member any more" is due.
    NeverBusy,
    /// A message that was delivered is delivered again when it comes again.
    DuplicateDelivered,
    /// A reliable message is delivered before those that it follows.
    OutOfOrder,
    /// A part of a broadcast whose head does not answer is given up.
    BroadcastPartLost,
    /// A duplicate that comes again is passed on again.
    DuplicatesBreed,
    /// A look-up that is not answered is forgotten.
    LookupForgotten,
    /// A successor list grows beyond its length.
    ListNotCut,
    /// An entry of a copied successor list is skipped.
    EntrySkipped,
    /// A finger that is found to be stale is not looked up.
    StaleFingerKept,
    /// A node that was taken for dead is not asked again.
    DepartedForgotten,
    /// A dead node stays in the successor list.
    DeadKept,
    /// A node that leaves goes on to claim its place before its successor (found by the random scenarios in our own rules).
    LeaverNotifies,
    /// What a giver of items tells that is still being told them itself is taken for all there is.
    AcquiringTakenForWhole,
}

#[cfg(feature = "planted")]
impl Bug {
    /// All of them.
    pub const ALL: [Bug; 19] = [
        Bug::SkippedRectify,
        Bug::AdoptedUnasked,
        Bug::WrongRangeEnd,
        Bug::BroadcastNotAcknowledged,
        Bug::RangeKeptAtJoin,
        Bug::NotHandedOverAtLeave,
        Bug::NeverBusy,
        Bug::DuplicateDelivered,
        Bug::OutOfOrder,
        Bug::BroadcastPartLost,
        Bug::DuplicatesBreed,
        Bug::LookupForgotten,
        Bug::ListNotCut,
        Bug::EntrySkipped,
        Bug::StaleFingerKept,
        Bug::DepartedForgotten,
        Bug::DeadKept,
        Bug::LeaverNotifies,
        Bug::AcquiringTakenForWhole,
    ];
}

/// The bug that a node has, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Planted {
    #[cfg(feature = "planted")]
    bug: Option<Bug>,
}

#[cfg(not(feature = "planted"))]
impl Planted {
    #[inline(always)]
    pub(crate) fn has(self, _bug: Bug) -> bool {
        false
    }
}

#[cfg(feature = "planted")]
impl Planted {
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

#[cfg(feature = "planted")]
impl super::Core {
    pub(crate) fn plant(&mut self, bug: Bug) {
        self.planted = Planted { bug: Some(bug) };
        self.neighbours.planted = self.planted;
    }
}
