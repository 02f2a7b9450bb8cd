//! Every member has a live entry in its successor list.
//!
//! Source: Zave, arXiv 1610.01140, section 6, first half of the inductive invariant (*OneLiveSuccessor*). The first node of a
//! network learns its first successor from that one's introduction; until then its predecessor, which it has handed a range to,
//! stands in for the list. A node that is the only member needs none.

use super::view::ids;
use super::{Invariant, Moment, View};

pub(super) const INVARIANT: Invariant =
    Invariant { name: "every member has a live successor", holds: Moment::FailuresSeen, check };

fn check(view: &View<'_>) -> Result<(), String> {
    if view.members().len() < 2 {
        return Ok(());
    }
    for peer in view.members() {
        let list = peer.successors();
        let lives = list.iter().any(|contact| view.member(*contact).is_some());
        let stands_in =
            list.is_empty() && peer.predecessor().is_some_and(|contact| view.running(contact).is_some());
        if !lives && !stands_in {
            return Err(format!(
                "node {} has the successor list {:?}, of which nobody is a member; its predecessor is {:?}",
                peer.me().id,
                ids(list),
                peer.predecessor().map(|contact| contact.id)
            ));
        }
    }
    Ok(())
}
