//! Where each invariant comes from, for people who read that it did not hold.

use super::{checks, clients, keys, run};

/// The source of an invariant, by its name.
pub(super) fn source_of(invariant: &str) -> &'static str {
    match invariant {
        keys::ENDS_ONCE | keys::ALL_ENDED | keys::SUCCEEDS | checks::SUCCEEDS => {
            "the library's promise that an operation ends once, and succeeds where nothing is wrong (services)"
        }
        keys::VERSIONS_RISE | keys::READS_ARE_TRUE | keys::READS_ARE_FRESH => {
            "the dictionary's promises (services::dictionary)"
        }
        keys::CONSERVED | keys::IN_THEIR_PLACES => {
            "conservation of keys (services::dictionary::conservation; Ghodsi, Alima & Haridi 2005)"
        }
        clients::SETTLE => {
            "P2PS 1.0 manual, useProxy; overlay paper: a client of its successor (core::proxy)"
        }
        clients::IN_NO_TABLE => "a client stands in no ring and in no finger table (core::clients)",
        checks::RING_HEALS => "Zave, arXiv 1610.01140, section 7 (invariant::tables)",
        checks::FINGERS_HEAL => "Stoica et al. 2001, theorem 4 (invariant::tables)",
        checks::JOINS_END | checks::SETTLES => "the bounds of joins and leaves (core::join, core::leave)",
        run::ID_IN_USE => "P2PS 1.0 manual, nodeAlreadyInNetwork: refused only while a node has the id",
        checks::BROADCAST_COST => "El-Ansary et al. 2003 (core::group)",
        checks::NO_BREEDING => "the argument of core::duplicates",
        other => source_of_structure(other),
    }
}

/// The sources of `invariant::INVARIANTS`, by their names.
fn source_of_structure(invariant: &str) -> &'static str {
    match invariant {
        "successor lists are ordered and cut" => {
            "Zave, arXiv 1610.01140, sections 5 and 6, OrderedSuccessors (invariant::list_shape)"
        }
        "no operation ends twice" | "every operation ends" => {
            "overlay paper's services; P2PS 1.0 manual, rsend (invariant::operations)"
        }
        "no message is delivered twice"
        | "reliable messages are delivered in order"
        | "no message is both delivered and reported failed, or neither"
        | "a broadcast reaches all who stay" => {
            "P2PS 1.0 manual, rsend, broadcast; Saltzer, Reed & Clark 1984 (invariant::deliveries)"
        }
        "a look-up names a rightful node" => {
            "lookup consistency, Ghodsi 2006, section 3; Castro et al. 2004 (invariant::answers)"
        }
        "every member has a live successor" => {
            "Zave, arXiv 1610.01140, section 6, OneLiveSuccessor (invariant::live_successor)"
        }
        "there is one ordered ring" => {
            "Zave, arXiv 1610.01140, section 6, AtLeastOneRing to ConnectedAppendages (invariant::one_ring)"
        }
        "no two members answer for a key" | "one member answers for each key" => {
            "overlay paper, hand-over; Ghodsi 2006 (invariant::one_responsible)"
        }
        "who has left was relieved" => "overlay paper, graceful leave (invariant::hand_over)",
        "there are enough principals" => {
            "Zave, arXiv 1610.01140, section 6, SufficientPrincipals (invariant::principals)"
        }
        "a read sees what was acknowledged before it" => {
            "the dictionary's promises; regular registers, Lamport 1986 (invariant::keys)"
        }
        "the ring is ideal" => "Zave, arXiv 1610.01140, section 7 (invariant::tables)",
        _ => "see the module invariant",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_has_a_source() {
        for invariant in &crate::invariant::INVARIANTS {
            assert_ne!(source_of(invariant.name), "see the module invariant", "{}", invariant.name);
        }
    }
}
