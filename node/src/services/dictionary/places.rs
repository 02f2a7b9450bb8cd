//! Where a key's copies stand (symmetric replication, Ghodsi, Alima & Haridi 2005): a key has f places, evenly spread over the
//! ring, and each place's responsible has a copy. So one hand-over of a range hands all kinds of copies over, and what a dead
//! node had is found a fixed distance further.

use crate::config::NetConfig;
use crate::id::{Id, Ring, Span};

/// How a network's keys are spread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) ring: Ring,
    /// How many places a key has: the network's replication, or all ids of a ring that has fewer.
    pub(crate) count: u8,
    /// The distance between the places of a key, but for the last and the first, which are up to `count` - 1 further apart.
    stride: u64,
}

impl Places {
    pub(crate) fn new(net: &NetConfig) -> Places {
        let ring = net.ring();
        let count = u128::from(net.replication()).min(ring.max_size());
        Places {
            ring,
            count: count as u8,
            stride: ring.max_size().div_euclid(count).min(u128::from(u64::MAX)) as u64,
        }
    }

    /// The places of a key; the first is the key itself.
    pub(crate) fn of(self, key: Id) -> impl Iterator<Item = Id> {
        (0..self.count).map(move |index| self.place(key, index))
    }

    /// One place of a key, by its index.
    pub(crate) fn place(self, key: Id, index: u8) -> Id {
        self.ring.add(key, self.stride * u64::from(index))
    }

    /// Whether this is one of the key's places.
    pub(crate) fn is_place(self, place: Id, key: Id) -> bool {
        self.of(key).any(|other| other == place)
    }

    /// Places that hold copies of all that stands in `span`, `shift` places further; for all shifts, all of them.
    pub(crate) fn shifted(self, span: Span, shift: u8) -> Span {
        let surplus = self.ring.max_size() - u128::from(self.stride) * u128::from(self.count);
        let reach = (u128::from(span.reach(self.ring)) + surplus).min(self.ring.max_size() - 1) as u64;
        let first = self.place(span.first, shift);
        Span { first, last: self.ring.add(first, reach) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Geometry;

    fn places(ring: u128, replication: u8) -> Places {
        let net = NetConfig::new(Ring::new(ring).unwrap(), Geometry::Chord, 2).unwrap();
        Places::new(&net.with_replication(replication).unwrap())
    }

    #[test]
    fn places_are_distinct_on_every_ring() {
        for (ring, replication, count) in [(2, 3, 2), (100, 3, 3), (1 << 64, 16, 16), (1 << 64, 1, 1)] {
            let places = places(ring, replication);
            for key in [0, 1, (ring - 1) as u64] {
                let all: std::collections::BTreeSet<Id> = places.of(Id(key)).collect();
                assert_eq!(all.len(), count, "{ring} {replication} {key}");
            }
        }
    }

    #[test]
    fn the_shifted_spans_hold_every_other_copy_of_what_stands_in_a_span() {
        for (ring, replication) in [(2, 3), (3, 2), (100, 3), (101, 7), (64, 4)] {
            let places = places(ring, replication);
            for (first, last) in [(0, 0), (90, 5), (3, 40), (1, 0)] {
                let span = Span { first: Id(first % ring as u64), last: Id(last % ring as u64) };
                for key in (0..ring as u64).map(Id) {
                    let (here, elsewhere): (Vec<Id>, Vec<Id>) =
                        places.of(key).partition(|place| span.contains(places.ring, *place));
                    let found = |place: &Id| {
                        (1..places.count)
                            .any(|shift| places.shifted(span, shift).contains(places.ring, *place))
                    };
                    assert!(
                        here.is_empty() || elsewhere.iter().all(found),
                        "{ring} {replication} {span:?} {key}"
                    );
                }
            }
        }
    }
}
