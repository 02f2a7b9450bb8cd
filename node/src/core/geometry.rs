//! Link tables: at which offsets a node's fingers stand, and how far they reach.
//!
//! Chord (Stoica et al. 2001) and DKS (Alima et al. 2003) place fingers at powers of the arity k; Tango (Carton & Mesaros,
//! Euro-Par 2004, section 3) leaves a gap of exactly S(i) between step i's farthest finger and step i + 1's nearest one,
//! which is the widest that greedy routing allows.

use crate::config::{ARITY_MAX, ConfigError, Geometry};
use crate::id::Ring;

/// The fingers' distances from their node on a ring of a given size, and the hops that they ensure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offsets {
    /// Clockwise distances, rising, each in `1..max_size`.
    pub clockwise: Vec<u64>,
    /// Counter-clockwise distances, rising, each in `1..=max_size / 2`; empty but for symmetric tables.
    pub counter_clockwise: Vec<u64>,
    /// The number of hops H that is never exceeded on a fully populated ring of this size.
    pub hops_max: u32,
}

impl Offsets {
    /// The table of `geometry` on `ring`.
    pub fn new(geometry: Geometry, ring: Ring) -> Offsets {
        match geometry {
            Geometry::Chord => powers(2, ring),
            Geometry::Dks { k } => powers(k, ring),
            Geometry::Tango { k, symmetric: false } => tango_one_way(k, ring),
            Geometry::Tango { k, symmetric: true } => tango_symmetric(k, ring),
        }
    }

    /// The number of fingers, on both sides.
    pub fn len(&self) -> usize {
        self.clockwise.len() + self.counter_clockwise.len()
    }

    /// Whether there are no fingers: never, on a ring of two ids or more.
    pub fn is_empty(&self) -> bool {
        self.clockwise.is_empty() && self.counter_clockwise.is_empty()
    }
}

/// One step of a Tango table: the farthest offset on each side, and the ring that the steps so far span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TangoStep {
    /// The clockwise offsets of this step.
    pub clockwise: Vec<u128>,
    /// The counter-clockwise offsets of this step.
    pub counter_clockwise: Vec<u128>,
    /// S(i): the largest ring on which the steps so far reach every node in as many hops.
    pub size: u128,
}

/// The steps of Tango(k), from the first: the paper's recurrences for d±(i, j), S±(i) and S(i), with
/// k = k⁺ + k⁻ + 1. Ends before a size exceeds 2^127.
pub fn tango_steps(k: u16, symmetric: bool) -> impl Iterator<Item = TangoStep> {
    let fingers = u128::from(k.max(2) - 1);
    let (ahead, behind) = if symmetric { (fingers / 2, fingers / 2) } else { (fingers, 0) };
    let (mut farthest_ahead, mut farthest_behind) = (0u128, 0u128);
    let (mut reach_ahead, mut reach_behind) = (0u128, 0u128);
    let mut size = 1u128;
    std::iter::from_fn(move || {
        let side = |count: u128, farthest: &mut u128, reach: &mut u128| -> Option<Vec<u128>> {
            let offsets = (1..=count)
                .map(|j| farthest.checked_add(j.checked_mul(size)?))
                .collect::<Option<Vec<_>>>()?;
            if let Some(last) = offsets.last() {
                *farthest = *last;
                *reach = reach.checked_add(*last)?;
            }
            Some(offsets)
        };
        let clockwise = side(ahead, &mut farthest_ahead, &mut reach_ahead)?;
        let counter_clockwise = side(behind, &mut farthest_behind, &mut reach_behind)?;
        size = reach_ahead.checked_add(reach_behind)?.checked_add(1).filter(|size| *size < 1 << 127)?;
        Some(TangoStep { clockwise, counter_clockwise, size })
    })
}

/// What a Tango table of arity `k` gives: rings of up to `size` nodes in at most `hops` hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// The search arity.
    pub k: u16,
    /// The hops that are never exceeded.
    pub hops: u32,
    /// The largest ring for which this holds.
    pub size: u128,
}

/// P2PS 1.0's `computeParams`: for each number of hops, the smallest odd arity with which Tango spans `min_net_size`
/// nodes, down to k = 3. As there, one hop is the full mesh and is given by its number of links.
///
/// Arities above [`ARITY_MAX`] are left out.
///
/// # Examples
/// ```
/// use p2ps::core::geometry::compute_params;
/// let params: Vec<_> = compute_params(200).iter().map(|p| (p.k, p.hops, p.size)).collect();
/// assert_eq!(params, [(199, 1, 200), (15, 2, 239), (7, 3, 433), (5, 4, 985), (3, 5, 571)]);
/// ```
pub fn compute_params(min_net_size: u128) -> Vec<TableSize> {
    let mut found = Vec::new();
    if let Some(k) = min_net_size.checked_sub(1).filter(|links| (2..=u128::from(ARITY_MAX)).contains(links)) {
        found.push(TableSize { k: k as u16, hops: 1, size: min_net_size });
    }
    for hops in 2.. {
        let Some(fit) = smallest_arity(min_net_size, hops) else { continue };
        found.push(fit);
        if fit.k == 3 {
            break;
        }
    }
    found
}

fn smallest_arity(min_net_size: u128, hops: u32) -> Option<TableSize> {
    (3..=ARITY_MAX).step_by(2).find_map(|k| {
        let step = tango_steps(k, true).take(hops as usize).last()?;
        (step.size >= min_net_size).then_some(TableSize { k, hops, size: step.size })
    })
}

/// The symmetric Tango table with the fewest links that crosses a full ring of `nodes` in at most `hops` hops.
///
/// # Errors
/// [`ConfigError::Unreachable`] where no arity up to [`ARITY_MAX`] does.
pub fn at_most_hops(hops: u32, nodes: u128) -> Result<Geometry, ConfigError> {
    let fit = (1..=hops).rev().find_map(|hops| smallest_arity(nodes, hops));
    let fit = fit.ok_or(ConfigError::Unreachable { wish: "hops", limit: hops, nodes })?;
    Ok(Geometry::Tango { k: fit.k, symmetric: true })
}

/// The symmetric Tango table with the fewest hops on a full ring of `nodes` that has at most `links` links.
///
/// # Errors
/// [`ConfigError::Unreachable`] where even k = 3 has more.
pub fn at_most_links(links: u32, nodes: u128) -> Result<Geometry, ConfigError> {
    (3..=ARITY_MAX)
        .step_by(2)
        .filter_map(|k| {
            let hops = 1 + tango_steps(k, true).position(|step| step.size >= nodes)? as u32;
            (u32::from(k - 1) * hops <= links).then_some((hops, k))
        })
        .min()
        .map(|(_, k)| Geometry::Tango { k, symmetric: true })
        .ok_or(ConfigError::Unreachable { wish: "links", limit: links, nodes })
}

fn powers(k: u16, ring: Ring) -> Offsets {
    let max_size = ring.max_size();
    let mut clockwise = Vec::new();
    let (mut power, mut hops_max) = (1u128, 0);
    while power < max_size {
        let step = (1..u128::from(k)).map(|j| j * power).take_while(|offset| *offset < max_size);
        clockwise.extend(step.map(|offset| offset as u64));
        power *= u128::from(k);
        hops_max += 1;
    }
    Offsets { clockwise, counter_clockwise: Vec::new(), hops_max }
}

fn tango_one_way(k: u16, ring: Ring) -> Offsets {
    let max_size = ring.max_size();
    let mut clockwise = Vec::new();
    let mut hops_max = 0;
    for step in tango_steps(k, false) {
        clockwise
            .extend(step.clockwise.iter().filter(|offset| **offset < max_size).map(|offset| *offset as u64));
        hops_max += 1;
        if step.size >= max_size {
            break;
        }
    }
    Offsets { clockwise, counter_clockwise: Vec::new(), hops_max }
}

/// Offsets above half the ring are dropped, but the first of them is clamped to half the ring, or the hop bound breaks.
fn tango_symmetric(k: u16, ring: Ring) -> Offsets {
    let max_size = ring.max_size();
    let half = max_size / 2;
    let mut offsets = Vec::new();
    let mut hops_max = 0;
    for step in tango_steps(k, true) {
        offsets.extend(step.clockwise.iter().map(|offset| (*offset).min(half) as u64));
        hops_max += 1;
        if step.size >= max_size {
            break;
        }
    }
    offsets.dedup();
    Offsets { clockwise: offsets.clone(), counter_clockwise: offsets, hops_max }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_tables_drop_what_passes_the_ring() {
        let offsets = Offsets::new(Geometry::Tango { k: 2, symmetric: false }, Ring::new(30).unwrap());
        assert_eq!(offsets.clockwise, [1, 3, 8, 21]);
        assert_eq!(offsets.hops_max, 4);
    }

    #[test]
    fn symmetric_tables_clamp_the_first_offset_beyond_half_the_ring() {
        let offsets = Offsets::new(Geometry::Tango { k: 3, symmetric: true }, Ring::new(100).unwrap());
        assert_eq!(offsets.clockwise, [1, 4, 15, 50]);
        assert_eq!(offsets.counter_clockwise, offsets.clockwise);
        assert_eq!(offsets.hops_max, 4);
    }

    #[test]
    fn every_geometry_fits_the_largest_ring() {
        let ring: Ring = "2^64".parse().unwrap();
        for geometry in [Geometry::Chord, Geometry::Dks { k: 7 }, Geometry::Tango { k: 2, symmetric: false }]
        {
            let offsets = Offsets::new(geometry, ring);
            assert!(offsets.clockwise.is_sorted(), "{geometry}");
        }
        assert_eq!(Offsets::new(Geometry::Chord, ring).clockwise.len(), 64);
        assert_eq!(
            *Offsets::new(Geometry::Tango { k: 5, symmetric: true }, ring).clockwise.last().unwrap(),
            1 << 63
        );
    }

    #[test]
    fn wishes_find_the_leanest_table() {
        assert_eq!(at_most_hops(4, 200), Ok(Geometry::Tango { k: 5, symmetric: true }));
        assert_eq!(at_most_hops(9, 200), Ok(Geometry::Tango { k: 3, symmetric: true }));
        assert!(at_most_hops(1, 1_000_000).is_err());
        assert_eq!(at_most_links(16, 200), Ok(Geometry::Tango { k: 5, symmetric: true }));
        assert!(at_most_links(3, 1_000_000).is_err());
    }
}
