//! From a bound on hops or links to the Tango table that keeps it.

use p2ps::config::{ARITY_MAX, Geometry};
use p2ps::id::Ring;

use super::diagnose::Refusal;

/// What `at_most` bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Hops on the full ring.
    Hops(u32),
    /// Links a node has on the full ring.
    Links(u32),
}

/// The Tango table that keeps `bound` on the full ring: with the fewest links for a bound on hops, and the other way round.
pub(crate) fn at_most(bound: Bound, ring: Ring) -> Result<Geometry, Refusal> {
    let tables = (2..=ARITY_MAX).map(|k| (k, hops(k, ring)));
    let links = |k: u16, hops: u32| u32::from(k - 1) * hops;
    let found = match bound {
        Bound::Hops(most) => tables.clone().find(|(_, hops)| *hops <= most),
        Bound::Links(most) => {
            tables.clone().filter(|(k, hops)| links(*k, *hops) <= most).min_by_key(|(k, hops)| (*hops, *k))
        }
    };
    if let Some((k, _)) = found {
        return Ok(Geometry::Tango { k, symmetric: false });
    }
    let (least, what) = match bound {
        Bound::Hops(_) => (tables.map(|(_, hops)| hops).min(), "hops"),
        Bound::Links(_) => (tables.map(|(k, hops)| links(k, hops)).min(), "links"),
    };
    let least = least.unwrap_or_default();
    Err(Refusal::new(
        format!("no link table keeps this on a ring of {ring} ids"),
        format!("the least is {least} {what}; a smaller max_size needs fewer"),
    ))
}

/// The hops that Tango(k) never exceeds on the full ring: the least H with S(H+1) >= max_size, where S(1) = 1, S(2) = k and
/// S(i) = (k+1) S(i-1) - S(i-2) (Carton & Mesaros, Euro-Par 2004).
fn hops(k: u16, ring: Ring) -> u32 {
    let (mut before, mut size, mut hops) = (1u128, u128::from(k), 1);
    while size < ring.max_size() {
        (before, size) = (size, (u128::from(k) + 1) * size - before);
        hops += 1;
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P2PS 1.0's `compute_params(min_net_size = 200)` gives these (k, hops).
    #[test]
    fn hops_are_those_of_p2ps_1_0() {
        let ring = Ring::new(200).unwrap();
        for (k, expected) in [(200, 1), (15, 2), (7, 3), (5, 4), (3, 5)] {
            assert_eq!(hops(k, ring), expected, "k = {k}");
        }
        assert_eq!(hops(2, Ring::new(10946).unwrap()), 10);
        assert_eq!(hops(2, Ring::new(10947).unwrap()), 11);
    }

    #[test]
    fn the_table_keeps_the_bound_with_least_effort() {
        let ring = Ring::DEFAULT;
        for most in 4..=24 {
            let k = at_most(Bound::Hops(most), ring).unwrap().arity();
            assert!(hops(k, ring) <= most);
            assert!(k == 2 || hops(k - 1, ring) > most, "k = {k} is not the least for {most} hops");
        }
        let k = at_most(Bound::Links(60), ring).unwrap().arity();
        assert!(u32::from(k - 1) * hops(k, ring) <= 60);
    }

    #[test]
    fn what_no_table_keeps_is_refused_with_what_one_can() {
        assert!(at_most(Bound::Hops(1), Ring::DEFAULT).unwrap_err().hint.contains("4 hops"));
        assert!(at_most(Bound::Links(20), Ring::DEFAULT).unwrap_err().hint.contains("24 links"));
    }
}
