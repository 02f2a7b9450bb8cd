//! Nodes that are kept apart: a part of them, and what is done to the links between it and the others.

use std::collections::BTreeSet;

use super::scenario::{Draws, Fault};
use crate::com::shaping::{Cut, Distribution, LinkShape};
use crate::id::Id;

/// A part of the nodes that is cut off from the others, one way, both ways, or nearly.
#[derive(Clone, Debug)]
pub(super) struct Separation {
    part: BTreeSet<Id>,
    /// What is done to what the part sends to the others.
    outward: LinkShape,
    /// What is done to what the others send to the part.
    inward: LinkShape,
}

impl Separation {
    /// Draws a part of `ids`, and what a fault of this kind does to it; `None` for other kinds of faults.
    pub(super) fn draw(fault: Fault, ids: &[Id], draws: &mut Draws) -> Option<Separation> {
        let cut = |cut| LinkShape { cut, ..LinkShape::default() };
        let (outward, inward) = match fault {
            Fault::Partitions => (cut(Cut::Both), cut(Cut::Both)),
            Fault::OneWayCuts => (cut(Cut::Out), LinkShape::default()),
            Fault::BadLinks => {
                let shape = LinkShape {
                    latency_us: draws.within(0, 400_000),
                    jitter_us: draws.within(0, 200_000),
                    distribution: draws.of(&[
                        Distribution::Uniform,
                        Distribution::Normal,
                        Distribution::LogNormal,
                        Distribution::Pareto,
                    ]),
                    loss_ppm: draws.within(0, 200_000) as u32,
                    ..LinkShape::default()
                };
                (shape, shape)
            }
            _ => return None,
        };
        let one_in = draws.within(2, 6);
        let part = ids.iter().copied().filter(|_| draws.below(one_in) == 0).collect();
        Some(Separation { part, outward, inward })
    }

    /// How many nodes it keeps from the others.
    pub(super) fn len(&self) -> usize {
        self.part.len()
    }

    /// The rules for the links of one of `ids`.
    pub(super) fn rules(&self, node: Id, ids: &[Id]) -> Vec<(Vec<Id>, LinkShape)> {
        let is_inside = self.part.contains(&node);
        let other_side = ids.iter().copied().filter(|id| self.part.contains(id) != is_inside).collect();
        vec![(other_side, if is_inside { self.outward } else { self.inward })]
    }
}
