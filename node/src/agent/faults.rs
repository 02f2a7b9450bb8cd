//! The shapes of this host's nodes' links: the groups that rules speak of, the rules that stand for each node, and the kernel where it,
//! and not the nodes, is to carry them out.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;

use super::body::line;
use super::kernel::{Kernel, KernelError};
use super::protocol::{
    Action, ActionKind, GROUP_IDS_MAX, GROUPS_MAX, GroupIndex, LIST_MAX, NodeIndex, SHAPE_IDS_MAX, ShapeRule,
};
use crate::access_point::AccessPoint;
use crate::com::shaping::LinkShape;
use crate::control::Order;
use crate::id::Id;

/// Groups, and the rules that stand. Rules outlive a node's process: one that starts again is shaped from its first moment.
#[derive(Debug, Default)]
pub(super) struct Faults {
    groups: Vec<Vec<Id>>,
    ids: usize,
    standing: HashMap<NodeIndex, Vec<ShapeRule>>,
    /// What carries the rules out, where it is not the nodes.
    kernel: Option<Kernel>,
    /// The rules that were last written as an order: many nodes are given the same at one time.
    written: Option<(Vec<ShapeRule>, Bytes)>,
}

/// Why groups or rules were refused, whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FaultError {
    #[error("more than {LIST_MAX} groups or ids in one line")]
    List,
    #[error("group {first} does not follow on the {known} that are known")]
    Order { first: GroupIndex, known: usize },
    #[error("more than {GROUPS_MAX} groups, or {GROUP_IDS_MAX} ids in them")]
    Full,
    #[error("group {0} is not known")]
    Unknown(GroupIndex),
    #[error("the rules name {0} nodes; at most {SHAPE_IDS_MAX} are allowed")]
    TooMany(usize),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Faults {
    /// Takes groups in, all or none. The first of them may go on with the last one that is known.
    pub(super) fn extend(&mut self, first: GroupIndex, groups: Vec<Vec<Id>>) -> Result<(), FaultError> {
        let (known, ids) = (self.groups.len(), groups.iter().map(Vec::len).sum::<usize>());
        if groups.len() > LIST_MAX || ids > LIST_MAX {
            return Err(FaultError::List);
        }
        let position = first as usize;
        if position > known || position + 1 < known {
            return Err(FaultError::Order { first, known });
        }
        if position + groups.len() > GROUPS_MAX || self.ids + ids > GROUP_IDS_MAX {
            return Err(FaultError::Full);
        }
        self.ids += ids;
        for (index, group) in (position..).zip(groups) {
            match self.groups.get_mut(index) {
                Some(begun) => begun.extend(group),
                None => self.groups.push(group),
            }
        }
        Ok(())
    }

    /// Lets the kernel carry the rules out, for the run with this name, and takes in where nodes are.
    pub(super) fn use_kernel(&mut self, run: &str, nodes: Vec<(Id, AccessPoint)>) -> Result<(), FaultError> {
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel,
            none => none.insert(Kernel::new(run)?),
        };
        Ok(kernel.extend(nodes)?)
    }

    /// Undoes what the kernel does.
    pub(super) fn free_kernel(&mut self) {
        self.kernel = None;
    }

    /// Makes sure that the kernel, where it is to, can carry out what these actions ask of this host's nodes, which are at `own`.
    pub(super) fn expect(
        &mut self,
        own: impl Fn() -> Vec<SocketAddr>,
        actions: &[Action],
    ) -> Result<(), FaultError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let own = own();
        let shaping = actions.iter().filter_map(|action| match &action.kind {
            ActionKind::Shape { rules } => Some(rules),
            _ => None,
        });
        let mut expected: Vec<&ShapeRule> = Vec::new();
        for rule in shaping.flatten() {
            if !expected.contains(&rule) {
                expected.push(rule);
                let nodes = self.groups.get(rule.to as usize).map_or(&[][..], Vec::as_slice);
                kernel.expect(&own, nodes, &rule.shape)?;
            }
        }
        Ok(())
    }

    /// Lets `rules` stand for a node of this host, whose nodes are at `own`. Gives back the order that tells it, as a line; `None`: the
    /// kernel has carried them out.
    pub(super) fn shape(
        &mut self,
        own: impl Fn() -> Vec<SocketAddr>,
        node: NodeIndex,
        rules: Vec<ShapeRule>,
    ) -> Result<Option<Bytes>, FaultError> {
        let Some(kernel) = &mut self.kernel else { return self.order(node, rules).map(Some) };
        // All nodes of a host have the same rules: those that one is told now, the others are told at this moment too.
        if !kernel.has_made(&rules) {
            resolve(&self.groups, &rules)?;
            let group = |rule: &ShapeRule| self.groups.get(rule.to as usize).into_iter().flatten();
            let shapes = rules.iter().flat_map(|rule| group(rule).map(|id| (*id, rule.shape))).collect();
            kernel.shape(&own(), rules.clone(), &shapes)?;
        }
        self.stand(node, rules);
        Ok(None)
    }

    /// Lets `rules` stand for a node; gives back the order that tells it, as a line.
    fn order(&mut self, node: NodeIndex, rules: Vec<ShapeRule>) -> Result<Bytes, FaultError> {
        let order = match &self.written {
            Some((written, order)) if *written == rules => order.clone(),
            _ => {
                let order = line(&Order::Shape { rules: resolve(&self.groups, &rules)? });
                self.written = Some((rules.clone(), order.clone()));
                order
            }
        };
        self.stand(node, rules);
        Ok(order)
    }

    fn stand(&mut self, node: NodeIndex, rules: Vec<ShapeRule>) {
        match rules.is_empty() {
            true => self.standing.remove(&node),
            false => self.standing.insert(node, rules),
        };
    }

    /// What a node that starts now is to do to its links.
    pub(super) fn standing(&self, node: NodeIndex) -> Vec<(Vec<Id>, LinkShape)> {
        let rules = self.standing.get(&node).filter(|_| self.kernel.is_none());
        let rules = rules.map(|rules| resolve(&self.groups, rules));
        rules.map_or_else(Vec::new, |rules| {
            rules.expect("rules that stand were resolved before, and groups only grow")
        })
    }

    /// Lets no rule stand; gives back for which nodes some did.
    pub(super) fn heal(&mut self) -> Vec<NodeIndex> {
        std::mem::take(&mut self.standing).into_keys().collect()
    }
}

/// The nodes that each rule names, and what is done to the links to them.
fn resolve(groups: &[Vec<Id>], rules: &[ShapeRule]) -> Result<Vec<(Vec<Id>, LinkShape)>, FaultError> {
    let group = |to: GroupIndex| groups.get(to as usize).ok_or(FaultError::Unknown(to));
    let mut ids = 0;
    for rule in rules {
        ids += group(rule.to)?.len();
    }
    if ids > SHAPE_IDS_MAX {
        return Err(FaultError::TooMany(ids));
    }
    rules.iter().map(|rule| Ok((group(rule.to)?.clone(), rule.shape))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{LINE_BYTES_MAX, Setup};

    fn ids(range: std::ops::Range<u64>) -> Vec<Id> {
        range.map(Id).collect()
    }

    fn rule(to: GroupIndex, latency_us: u64) -> ShapeRule {
        ShapeRule { to, shape: LinkShape { latency_us, ..LinkShape::default() } }
    }

    #[test]
    fn groups_come_in_order_and_may_go_on_in_the_next_line() {
        let mut faults = Faults::default();
        faults.extend(0, vec![ids(0..2), ids(2..4)]).unwrap();
        faults.extend(1, vec![ids(4..6), Vec::new()]).unwrap();
        faults.extend(3, vec![ids(6..7)]).unwrap();
        assert_eq!(faults.groups, [ids(0..2), ids(2..6), Vec::new(), ids(6..7)]);
        assert_eq!(faults.extend(5, vec![ids(0..1)]), Err(FaultError::Order { first: 5, known: 4 }));
        assert_eq!(faults.extend(2, vec![ids(0..1)]), Err(FaultError::Order { first: 2, known: 4 }));
        assert_eq!(faults.extend(u32::MAX, vec![]), Err(FaultError::Order { first: u32::MAX, known: 4 }));
        assert_eq!(faults.extend(4, vec![ids(0..LIST_MAX as u64 + 1)]), Err(FaultError::List));
        assert_eq!(faults.extend(4, vec![Vec::new(); LIST_MAX + 1]), Err(FaultError::List));
        assert_eq!(faults.ids, 7);
    }

    #[test]
    fn groups_are_bounded() {
        let mut faults = Faults::default();
        let mut lines = 0;
        while faults.extend(0, vec![ids(0..LIST_MAX as u64)]).is_ok() {
            lines += 1;
        }
        assert_eq!(lines, GROUP_IDS_MAX / LIST_MAX);
        let mut faults = Faults::default();
        let mut first = 0;
        while faults.extend(first, vec![Vec::new(); 1000]).is_ok() {
            first += 1000;
        }
        assert_eq!(first as usize, GROUPS_MAX);
    }

    #[test]
    fn the_last_rules_stand_until_they_are_healed() {
        let mut faults = Faults::default();
        faults.extend(0, vec![ids(0..2), ids(2..4)]).unwrap();
        assert_eq!(faults.order(7, vec![rule(2, 1)]), Err(FaultError::Unknown(2)));
        assert!(faults.standing(7).is_empty(), "what was refused does not stand");
        let order = faults.order(7, vec![rule(0, 5), rule(1, 6)]).unwrap();
        let Order::Shape { rules } = serde_json::from_slice(&order).unwrap() else { panic!("{order:?}") };
        assert_eq!(rules, [(ids(0..2), rule(0, 5).shape), (ids(2..4), rule(0, 6).shape)]);
        assert_eq!(faults.standing(7), rules);
        assert_eq!(faults.order(8, vec![rule(0, 5), rule(1, 6)]).unwrap().as_ptr(), order.as_ptr(), "shared");
        faults.order(7, vec![rule(1, 9)]).unwrap();
        assert_eq!(faults.standing(7), [(ids(2..4), rule(1, 9).shape)]);
        faults.order(7, Vec::new()).unwrap();
        assert!(faults.standing(7).is_empty());
        assert_eq!(faults.heal(), [8]);
        assert!(faults.standing(8).is_empty());
    }

    #[test]
    fn the_largest_rules_fit_in_a_nodes_line() {
        let mut faults = Faults::default();
        let mut left = SHAPE_IDS_MAX as u64;
        while left > 0 {
            let count = left.min(LIST_MAX as u64);
            faults.extend(0, vec![(0..count).map(|id| Id(u64::MAX - id)).collect()]).unwrap();
            left -= count;
        }
        for group in 1..super::super::protocol::SHAPE_RULES_MAX as u32 {
            faults.extend(group, vec![Vec::new()]).unwrap();
        }
        let shape = LinkShape {
            cut: crate::com::shaping::Cut::None,
            latency_us: u64::MAX,
            jitter_us: u64::MAX,
            distribution: crate::com::shaping::Distribution::LogNormal,
            loss_ppm: u32::MAX,
            bytes_per_second: u64::MAX,
        };
        let rules: Vec<ShapeRule> =
            (0..super::super::protocol::SHAPE_RULES_MAX as u32).map(|to| ShapeRule { to, shape }).collect();
        assert!(faults.order(1, rules).unwrap().len() < LINE_BYTES_MAX);
        let setup = Setup {
            net: crate::config::NetConfig::default(),
            id: Id(u64::MAX),
            listen: ([127, 0, 0, 1], 0).into(),
            join: vec!["p2ps://255.255.255.255:65535".parse().unwrap(); 64],
            seed: u64::MAX,
            metrics: None,
            shapes: faults.standing(1),
            network_key: Some(crate::com::key::NetworkKey::random().unwrap()),
        };
        assert!(line(&setup).len() < LINE_BYTES_MAX);
        faults.extend(255, vec![ids(0..1)]).unwrap();
        assert_eq!(
            faults.order(1, vec![rule(0, 1), rule(255, 1)]),
            Err(FaultError::TooMany(SHAPE_IDS_MAX + 1))
        );
    }
}
