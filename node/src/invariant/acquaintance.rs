//! Whether those that remain can find each other. While nodes are kept apart each part takes the others for dead, and when the
//! last ones go that knew nodes of both, no protocol brings the parts together again: no node is left that could say
//! where to ask. So this is no invariant, but a bound for whoever makes failures, as Zave's are for rings that are whole.

use std::collections::BTreeMap;

use crate::access_point::AccessPoint;
use crate::message::Contact;
use crate::peer::{Peer, Phase};

/// Whether each of these nodes knows each other one that stays, or one knows it, over as many others as it takes.
pub fn are_acquainted<'p>(peers: impl Iterator<Item = &'p Peer>) -> bool {
    let peers: Vec<&Peer> =
        peers.filter(|peer| !matches!(peer.phase(), Phase::Leaving | Phase::Ended)).collect();
    let by_contact: BTreeMap<Contact, usize> = peers.iter().map(|peer| peer.me()).zip(0..).collect();
    let by_access_point: BTreeMap<AccessPoint, usize> =
        peers.iter().map(|peer| peer.me().access_point).zip(0..).collect();
    let mut groups: Vec<usize> = (0..peers.len()).collect();
    for (place, peer) in peers.iter().enumerate() {
        let acquaintances = peer.acquaintances();
        let known = acquaintances.iter().filter_map(|contact| by_contact.get(contact));
        let asked = peer.ways_back().iter().filter_map(|access_point| by_access_point.get(access_point));
        for other in known.chain(asked) {
            let (group, others) = (first_of(&groups, place), first_of(&groups, *other));
            groups[group.max(others)] = group.min(others);
        }
    }
    (0..peers.len()).all(|place| first_of(&groups, place) == 0)
}

/// The first node of a node's group: each points at one before it, the first at itself.
fn first_of(groups: &[usize], mut place: usize) -> usize {
    while groups[place] != place {
        place = groups[place];
    }
    place
}
