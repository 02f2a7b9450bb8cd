//! Messages do not breed: however many acknowledgements are lost, hops send no more than so many duplicates of one errand.
//!
//! Source: the argument of [`core::duplicates`](crate::core::duplicates), whose bound this is; there is no such rule in the papers,
//! which acknowledge no hops.

use super::{Invariant, Moment, View};
use crate::core::duplicates::duplicates_max;

pub(super) const INVARIANT: Invariant =
    Invariant { name: "messages do not breed", holds: Moment::Any, check };

fn check(view: &View<'_>) -> Result<(), String> {
    let (Some((errand, sent)), Some(peer)) = (view.journal.most_duplicated(), view.nodes().next()) else {
        return Ok(());
    };
    let bound = duplicates_max(sent.by.len(), peer.route_hops_max());
    if sent.times <= bound {
        return Ok(());
    }
    Err(format!("{} duplicates by {} nodes, not {bound}, of {errand:?}", sent.times, sent.by.len()))
}
