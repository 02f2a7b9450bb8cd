//! Degraded wires: what this host sends to each of some others goes through a class of its own, on the interface by which the way leads
//! there. A wire keeps its packets' order, and those of its nodes share its bandwidth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::KernelError;
use super::keeper::Keeper;
use super::netem;
use super::queues::{Interface, Queues, ROOT_NUMBER};
use crate::com::shaping::LinkShape;

/// The most hosts to which wires are degraded in one run.
const WIRES_MAX: usize = 4096;

/// The degraded wires of a host. When this is dropped they are as they were.
#[derive(Debug)]
pub(super) struct Wires {
    queues: Queues,
    keeper: Keeper,
    /// Where each of the others is reached, and the class of the wire there.
    ways: BTreeMap<IpAddr, (Interface, u32)>,
    /// What each wire is like that is degraded.
    made: BTreeMap<IpAddr, LinkShape>,
}

impl Wires {
    /// Nothing is degraded yet.
    pub(super) fn new() -> Result<Wires, KernelError> {
        let (queues, keeper) = (Queues::open()?, Keeper::start()?);
        Ok(Wires { queues, keeper, ways: BTreeMap::new(), made: BTreeMap::new() })
    }

    /// Makes sure that the wire from one address to another can be given such a shape later, as far as that can be known.
    pub(super) fn expect(&mut self, from: IpAddr, to: IpAddr, shape: &LinkShape) -> Result<(), KernelError> {
        netem::leaf(shape).map_err(super::queues::QueueError::from)?;
        self.queues.try_kind("htb")?;
        if netem::is_netems(shape) {
            self.queues.try_kind("netem")?;
        }
        self.way(from, to).map(|_| ())
    }

    /// The class of a wire, which is looked up and claimed once.
    pub(super) fn way(&mut self, from: IpAddr, to: IpAddr) -> Result<u32, KernelError> {
        if let Some((_, class)) = self.ways.get(&to) {
            return Ok(*class);
        }
        if self.ways.len() >= WIRES_MAX {
            return Err(KernelError::TooManyWires);
        }
        let interface = self.queues.on_the_way(from, to)?;
        self.keeper.claim(interface)?;
        let class = ROOT_NUMBER + 1 + self.ways.len() as u32;
        self.ways.insert(to, (interface, class));
        Ok(class)
    }

    /// Gives wires, whose ways are known, these shapes. Others keep theirs until [`prune`](Self::prune).
    pub(super) fn add(&mut self, wanted: &BTreeMap<IpAddr, LinkShape>) -> Result<(), KernelError> {
        for (to, shape) in wanted {
            if self.made.get(to) == Some(shape) {
                continue;
            }
            let (interface, class) = self.ways.get(to).copied().ok_or(KernelError::NoWay(*to))?;
            self.keeper.keep(interface, true)?;
            if self.made.remove(to).is_some() {
                self.queues.remove_class(interface, class)?;
            }
            self.queues.add_class(interface, class, shape)?;
            self.made.insert(*to, *shape);
        }
        Ok(())
    }

    /// Leaves no wires degraded but these, and no interface changed where there is none.
    pub(super) fn prune(&mut self, wanted: &BTreeMap<IpAddr, LinkShape>) -> Result<(), KernelError> {
        let needless: Vec<IpAddr> = self.made.keys().filter(|to| !wanted.contains_key(to)).copied().collect();
        let in_use: BTreeSet<Interface> =
            wanted.keys().filter_map(|to| self.ways.get(to)).map(|way| way.0).collect();
        for to in needless {
            let Some((interface, class)) = self.ways.get(&to).copied() else { continue };
            if in_use.contains(&interface) {
                self.queues.remove_class(interface, class)?;
            }
            self.made.remove(&to);
        }
        let interfaces: BTreeSet<Interface> = self.ways.values().map(|way| way.0).collect();
        for interface in interfaces.difference(&in_use) {
            self.keeper.keep(*interface, false)?;
        }
        Ok(())
    }

    /// What each wire is like that is degraded.
    pub(super) fn made(&self) -> &BTreeMap<IpAddr, LinkShape> {
        &self.made
    }
}
