//! Correction on change (Ghodsi, Alima & Haridi, "Self-correcting broadcast in distributed hash tables", 2003; "Symmetric replication
//! and correction on change", 2005): a node that takes over a range, by joining, by a leave or after a failure, tells exactly the nodes whose fingers
//! stand for positions in that range. Offsets are the same for all nodes, so these are found by mirroring: fingers `d` ahead that point
//! into the range belong to nodes `d` before it.
//!
//! For each offset the news is routed to the first node of the mirrored range, and goes on from node to node to its end: on
//! average one node, since the range has the length of a gap between nodes. Ranges that touch are told in one walk.

use crate::core::effect::Phase;
use crate::core::{Context, Core};
use crate::id::{Id, Ring, Span};
use crate::message::{Body, Contact, Route};

impl Core {
    /// Tells the nodes whose fingers stand for positions in `range` that `heir` answers there, which `gone` did before.
    fn tell_of_change(&mut self, cx: &mut Context<'_>, range: Span, gone: Option<Contact>, heir: Contact) {
        if !self.net.routing().correction_on_change {
            return;
        }
        for Span { first, last } in self.mirrored(range) {
            let sequence = self.next_token();
            let route = self.new_route(sequence, first, Body::Change { last, gone, heir });
            self.dispatch(cx, route);
        }
    }

    /// This node has joined: its range was its successor's.
    pub(crate) fn tell_of_join(&mut self, cx: &mut Context<'_>) {
        self.tell_of_change(cx, self.neighbours.range(), None, self.me);
    }

    /// This node leaves: its range is its successor's.
    pub(crate) fn tell_of_leave(&mut self, cx: &mut Context<'_>) {
        if let Some(heir) = self.neighbours.successor() {
            self.tell_of_change(cx, self.neighbours.range(), Some(self.me), heir);
        }
    }

    /// The predecessor has failed, and the one before it is known: the range between is this node's.
    pub(crate) fn tell_of_failure(&mut self, cx: &mut Context<'_>) {
        let (Some(predecessor), Some(gone)) =
            (self.neighbours.predecessor(), self.finger_upkeep.failed_predecessor)
        else {
            return;
        };
        self.finger_upkeep.failed_predecessor = None;
        if self.phase == Phase::Member && self.net.ring().between(gone.id, predecessor.id, self.me.id) {
            let range = Span { first: self.neighbours.range_start(), last: gone.id };
            self.tell_of_change(cx, range, Some(gone), self.me);
        }
    }

    /// Where the nodes stand whose fingers point into `range`.
    fn mirrored(&self, range: Span) -> Vec<Span> {
        let (ring, offsets) = (self.net.ring(), self.table.offsets());
        let behind = runs(ring, range, &offsets.clockwise).into_iter().map(|run| match run {
            Some((near, far)) => Span { first: ring.sub(range.first, far), last: ring.sub(range.last, near) },
            None => everybody(ring, range),
        });
        // Counter-clockwise fingers count from where their node's range starts, and so does the walk: it goes on while the next
        // node's range starts within the span.
        let ahead = runs(ring, range, &offsets.counter_clockwise).into_iter().map(|run| match run {
            Some((near, far)) => Span { first: ring.add(range.first, near), last: ring.add(range.last, far) },
            None => everybody(ring, range),
        });
        behind.chain(ahead).collect()
    }

    /// The news has come to a node of the mirrored range, or to the one after it.
    pub(crate) fn on_change(
        &mut self,
        cx: &mut Context<'_>,
        route: &Route,
        last: Id,
        gone: Option<Contact>,
        heir: Contact,
    ) {
        match gone {
            None => self.point_nearer(cx, heir),
            Some(gone) => self.replace_fingers(cx, gone, heir),
        }
        let ring = self.net.ring();
        let next = ring.add(self.me.id, 1);
        let rest = ring.distance(next, last);
        if rest < ring.distance(route.key, last) && self.neighbours.successor().is_some() {
            self.dispatch(cx, route.carrying(next, route.body.clone()));
        }
    }
}

/// The offsets at which spans as long as `range` touch, as (first, last); `None`: they go round the whole ring.
fn runs(ring: Ring, range: Span, offsets: &[u64]) -> Vec<Option<(u64, u64)>> {
    let reach = range.reach(ring);
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some((_, far)) if offset - *far <= reach.saturating_add(1) => *far = *offset,
            _ => runs.push((*offset, *offset)),
        }
    }
    let is_short =
        |(near, far): &(u64, u64)| u128::from(far - near) + u128::from(reach) + 1 < ring.max_size();
    runs.into_iter().map(|run| Some(run).filter(is_short)).collect()
}

/// The ring from the end of `range` round to it.
fn everybody(ring: Ring, range: Span) -> Span {
    Span { first: ring.add(range.last, 1), last: range.last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_touch_are_one_walk() {
        let ring = Ring::new(1000).unwrap();
        let range = Span { first: Id(491), last: Id(500) };
        assert_eq!(
            runs(ring, range, &[1, 4, 14, 25, 100]),
            [Some((1, 14)), Some((25, 25)), Some((100, 100))]
        );
        let wide = Span { first: Id(1), last: Id(500) };
        assert_eq!(runs(ring, wide, &[1, 400, 600]), [None]);
    }
}
