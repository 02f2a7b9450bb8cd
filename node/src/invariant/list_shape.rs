//! Successor lists are well formed: at most r entries, going clockwise from the node and never round to it, so none twice.
//!
//! Source: Zave, arXiv 1610.01140, section 5 (lists are cut to r) and section 6, *OrderedSuccessors*: any sublist of an extended
//! successor list is in ring order. Holds always: it is a property of one node, and of how it adopts lists.

use super::view::ids;
use super::{Invariant, Moment, View};

pub(super) const INVARIANT: Invariant =
    Invariant { name: "successor lists are ordered and cut", holds: Moment::Any, check };

fn check(view: &View<'_>) -> Result<(), String> {
    let ring = view.ring();
    for peer in view.members() {
        let (me, list) = (peer.me().id, peer.successors());
        let distances: Vec<u64> = list.iter().map(|contact| ring.distance(me, contact.id)).collect();
        let rising = distances.windows(2).all(|pair| pair[0] < pair[1]) && distances.first() != Some(&0);
        if !rising || list.len() > peer.net().successors() {
            return Err(format!("node {me} has the successor list {:?}", ids(list)));
        }
    }
    Ok(())
}
