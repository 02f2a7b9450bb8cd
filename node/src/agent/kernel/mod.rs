//! Links shaped by the host's kernel (`faults: {with: kernel}`): packets between hosts are dropped as by a broken wire, wait, or are let
//! through at some rate, so that TCP itself has to cope, and not only the nodes.
//!
//! A packet between two nodes has a port of one of them at one end only: the other end is an outgoing link's, which says nothing of its
//! node. So a kernel can part hosts, not nodes that share an address; what would part such nodes is refused, here and, with a place in
//! the plan, when the plan is checked. Only TCP packets between nodes of the run are touched: both addresses must be those of nodes,
//! and one of the ports a node's own. Whatever else the hosts say to each other goes through, the control link too.
//!
//! - What is cut is dropped by one table of packet filters (`nft list tables` shows it as `p2ps_…`), which goes with this process, however
//!   that ends ([`netfilter`]).
//! - What is degraded goes through classes of queues ([`wires`], `tc class show` shows them as `7032:…`), into which the same table puts it.
//!   The queues belong to a process beside this one, which takes them away when this one ends, however that comes ([`keeper`]).

mod keeper;
mod netem;
mod netfilter;
mod netlink;
mod queues;
mod wires;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use self::keeper::KeeperError;
use self::netfilter::{End, Fate, NetfilterError, Packets, Table, Way};
use self::queues::{QueueError, Queues};
use self::wires::Wires;
use super::protocol::{ADDRESSES_MAX, ShapeRule};
use crate::access_point::AccessPoint;
use crate::com::shaping::{Cut, LinkShape};
use crate::id::Id;

pub(super) use self::keeper::{run as run_keeper, sweep as sweep_queues};

/// The most kinds of packets that something is done to at once: pairs of addresses with a port.
const PACKETS_MAX: usize = 200_000;

/// The most of a run's name that a table's name has.
const RUN_BYTES_MAX: usize = 64;

/// Why links cannot be shaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KernelError {
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error("more than {ADDRESSES_MAX} addresses")]
    TooManyAddresses,
    #[error("no address is known of node {0}")]
    Unknown(Id),
    #[error(
        "nodes with different links share the address {0}: a kernel can tell hosts apart only (faults: {{with: node}} tells nodes apart)"
    )]
    Shared(IpAddr),
    #[error("more than {PACKETS_MAX} kinds of packets would have to be told apart")]
    TooMany,
    #[error("links to more hosts would be degraded than one host has classes for")]
    TooManyWires,
    #[error("no way to {0} is known")]
    NoWay(IpAddr),
}

/// The kernel, as far as it makes faults. When this is dropped it makes none.
#[derive(Debug)]
pub(super) struct Kernel {
    table: Table,
    /// Once links are to be degraded.
    wires: Option<Wires>,
    addresses: HashMap<Id, SocketAddr>,
    /// The rules that it carries out.
    made: Vec<ShapeRule>,
}

/// What the nodes at one address have in common.
#[derive(Debug, PartialEq)]
struct Peer {
    shape: LinkShape,
    ports: BTreeSet<u16>,
}

impl Kernel {
    /// A kernel that makes no faults yet, if this process may let it make some.
    pub(super) fn new(run: &str) -> Result<Kernel, KernelError> {
        let table = Table::new(table_name(run))?;
        Ok(Kernel { table, wires: None, addresses: HashMap::new(), made: Vec::new() })
    }

    /// Takes in where nodes are.
    pub(super) fn extend(&mut self, nodes: Vec<(Id, AccessPoint)>) -> Result<(), KernelError> {
        if self.addresses.len() + nodes.len() > ADDRESSES_MAX {
            return Err(KernelError::TooManyAddresses);
        }
        self.addresses.extend(nodes.into_iter().map(|(id, at)| (id, SocketAddr::new(at.ip, at.port))));
        Ok(())
    }

    /// Makes sure that what this host's nodes, at `own`, send these can be given such a shape later; changes nothing.
    pub(super) fn expect(
        &mut self,
        own: &[SocketAddr],
        nodes: &[Id],
        shape: &LinkShape,
    ) -> Result<(), KernelError> {
        if !is_degraded(shape) {
            return Ok(());
        }
        let mut peers = BTreeSet::new();
        for id in nodes {
            peers.insert(self.addresses.get(id).ok_or(KernelError::Unknown(*id))?.ip());
        }
        let wires = wires_of(&mut self.wires)?;
        for to in peers {
            for from in own_beside(own, to) {
                wires.expect(from, to, shape)?;
            }
        }
        Ok(())
    }

    /// Whether it carries out these rules and no others.
    pub(super) fn has_made(&self, rules: &[ShapeRule]) -> bool {
        self.made == rules
    }

    /// Shapes the links from this host's nodes, which are at `own`, to these nodes and to no others, as `rules` say. What cannot be done
    /// changes nothing.
    pub(super) fn shape(
        &mut self,
        own: &[SocketAddr],
        rules: Vec<ShapeRule>,
        shapes: &BTreeMap<Id, LinkShape>,
    ) -> Result<(), KernelError> {
        let peers = self.peers(own, shapes)?;
        let (mut degraded, mut classes) = (BTreeMap::new(), BTreeMap::new());
        for (to, peer) in peers.iter().filter(|(_, peer)| is_degraded(&peer.shape)) {
            for from in own_beside(own, *to) {
                classes.insert(*to, wires_of(&mut self.wires)?.way(from, *to)?);
                degraded.insert(*to, peer.shape);
            }
        }
        let fates = fates(own, &peers, &classes)?;
        let before = self.wires.as_ref().map(|wires| wires.made().clone()).unwrap_or_default();
        let added = self.wires.as_mut().map_or(Ok(()), |wires| wires.add(&degraded));
        if let Err(error) = added.and_then(|()| self.table.set(&fates).map_err(KernelError::from)) {
            // As far as that can be done.
            if let Some(wires) = &mut self.wires {
                wires.add(&before).ok();
                wires.prune(&before).ok();
            }
            return Err(error);
        }
        self.made = rules;
        self.wires.as_mut().map_or(Ok(()), |wires| wires.prune(&degraded))
    }

    /// The addresses of the nodes of `shapes`: all nodes at one have the same.
    fn peers(
        &self,
        own: &[SocketAddr],
        shapes: &BTreeMap<Id, LinkShape>,
    ) -> Result<BTreeMap<IpAddr, Peer>, KernelError> {
        let mut peers: BTreeMap<IpAddr, Peer> = BTreeMap::new();
        for (id, shape) in shapes {
            let address = self.addresses.get(id).ok_or(KernelError::Unknown(*id))?;
            let peer =
                peers.entry(address.ip()).or_insert_with(|| Peer { shape: *shape, ports: BTreeSet::new() });
            // What nodes of this host send each other may be slow, but they cannot be parted from themselves.
            let is_here = own.iter().any(|own| own.ip() == address.ip());
            if peer.shape != *shape || (is_here && shape.cut != Cut::None) {
                return Err(KernelError::Shared(address.ip()));
            }
            peer.ports.insert(address.port());
        }
        for (id, address) in &self.addresses {
            if peers.contains_key(&address.ip()) && !shapes.contains_key(id) {
                return Err(KernelError::Shared(address.ip()));
            }
        }
        Ok(peers)
    }
}

/// What becomes of the packets that nodes at `own` exchange with peers. Degraded is what they send.
fn fates(
    own: &[SocketAddr],
    peers: &BTreeMap<IpAddr, Peer>,
    classes: &BTreeMap<IpAddr, u32>,
) -> Result<BTreeMap<Packets, Fate>, KernelError> {
    let mut fates = BTreeMap::new();
    for (to, Peer { shape, ports }) in peers {
        for here in own_beside(own, *to) {
            let own = own.iter().filter(|own| own.ip() == here).map(SocketAddr::port);
            let out = match classes.get(to) {
                _ if shape.cut.is_out() => Some(Fate::Dropped),
                class => class.map(|class| Fate::Classed(*class)),
            };
            let back = shape.cut.is_in().then_some(Fate::Dropped);
            for (way, fate) in [(Way::Out, out), (Way::In, back)] {
                let Some(fate) = fate else { continue };
                fates.extend(packets(way, here, *to, own.clone(), ports).map(|packets| (packets, fate)));
            }
            if fates.len() > PACKETS_MAX {
                return Err(KernelError::TooMany);
            }
        }
    }
    Ok(fates)
}

/// What nodes at `here` and at `there` exchange one way. What comes from a listening port is from its node, and what goes to one is to
/// it.
fn packets(
    way: Way,
    here: IpAddr,
    there: IpAddr,
    own: impl Iterator<Item = u16>,
    ports: &BTreeSet<u16>,
) -> impl Iterator<Item = Packets> {
    let (from, to, end_here, end_there) = match way {
        Way::Out => (here, there, End::Source, End::Destination),
        Way::In => (there, here, End::Destination, End::Source),
    };
    let own = own.map(move |port| (end_here, port));
    own.chain(ports.iter().map(move |port| (end_there, *port))).map(move |(end, port)| Packets {
        way,
        end,
        from,
        to,
        port,
    })
}

/// Whether what is sent is late, or lost in part, or bounded; what is cut off is not sent.
fn is_degraded(shape: &LinkShape) -> bool {
    !shape.cut.is_out() && (netem::is_netems(shape) || shape.bytes_per_second > 0)
}

fn wires_of(wires: &mut Option<Wires>) -> Result<&mut Wires, KernelError> {
    match wires {
        Some(wires) => Ok(wires),
        none => Ok(none.insert(Wires::new()?)),
    }
}

/// This host's addresses, each once, of the same protocol as a peer's.
fn own_beside(own: &[SocketAddr], peer: IpAddr) -> BTreeSet<IpAddr> {
    own.iter().map(SocketAddr::ip).filter(|own| own.is_ipv4() == peer.is_ipv4()).collect()
}

/// Why this host's kernel cannot do what faults take.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Any fault, and so partitions.
    pub(super) faults: Option<String>,
    pub(super) bandwidth: Option<String>,
    /// Jitter and loss too.
    pub(super) latency: Option<String>,
}

/// Asks the kernel. Changes nothing, but a kernel may load modules of packet filters and queues to answer.
pub(super) fn refusals() -> Refusals {
    let faults = Table::new(String::new()).err().map(|error| error.to_string());
    let kind = |kind| Queues::open().and_then(|queues| queues.try_kind(kind)).err();
    let (bandwidth, latency) = (kind("htb"), kind("netem"));
    Refusals {
        faults,
        bandwidth: bandwidth.map(|error| error.to_string()),
        latency: latency.map(|error| error.to_string()),
    }
}

/// `p2ps_`, the run, and this process: two agents of one run can share a network namespace.
fn table_name(run: &str) -> String {
    let last = run.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let plain: String = plain.take(RUN_BYTES_MAX).collect();
    format!("p2ps_{plain}_{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A kernel that knows nodes 1 and 2 on this host, 3 and 4 on another; `None` where it may not be asked.
    fn kernel() -> Option<Kernel> {
        let mut kernel = match Kernel::new("runs/a b/2026-1") {
            Ok(kernel) => kernel,
            Err(error) => {
                assert_eq!(error, KernelError::Netfilter(NetfilterError::NotPermitted));
                return None;
            }
        };
        let nodes = [(1, "10.0.0.1:1"), (2, "10.0.0.1:2"), (3, "10.0.0.2:3"), (4, "10.0.0.2:4")];
        kernel.extend(nodes.map(|(id, address)| (Id(id), at(address).into())).to_vec()).unwrap();
        Some(kernel)
    }

    fn shaped(
        kernel: &Kernel,
        own: &[SocketAddr],
        shapes: &[(u64, LinkShape)],
    ) -> Result<Vec<String>, KernelError> {
        let shapes = shapes.iter().map(|(id, shape)| (Id(*id), *shape)).collect();
        let peers = kernel.peers(own, &shapes)?;
        let classes =
            peers.iter().filter(|(_, peer)| is_degraded(&peer.shape)).map(|(to, _)| (*to, 7)).collect();
        let fates = fates(own, &peers, &classes)?;
        let said = fates.iter().map(|(packets, fate)| {
            let Packets { way, end, from, to, port } = packets;
            format!("{way:?} {end:?} {from} {to} {port} {fate:?}")
        });
        Ok(said.collect())
    }

    fn cut(cut: Cut) -> LinkShape {
        LinkShape { cut, ..LinkShape::default() }
    }

    #[test]
    fn a_cut_drops_what_the_nodes_of_two_hosts_send_each_other_and_nothing_else() {
        let Some(kernel) = kernel() else { return };
        let own = [at("10.0.0.1:1"), at("10.0.0.1:2")];
        let said = |shape| shaped(&kernel, &own, &[(3, shape), (4, shape)]).unwrap();
        let (there, back) = ("10.0.0.1 10.0.0.2", "10.0.0.2 10.0.0.1");
        let out = [
            format!("Out Source {there} 1 Dropped"),
            format!("Out Source {there} 2 Dropped"),
            format!("Out Destination {there} 3 Dropped"),
            format!("Out Destination {there} 4 Dropped"),
        ];
        assert_eq!(said(cut(Cut::Out)), out);
        let back = [
            format!("In Source {back} 3 Dropped"),
            format!("In Source {back} 4 Dropped"),
            format!("In Destination {back} 1 Dropped"),
            format!("In Destination {back} 2 Dropped"),
        ];
        assert_eq!(said(cut(Cut::In)), back);
        assert_eq!(said(cut(Cut::Both)), [out, back].concat());
        assert!(shaped(&kernel, &own, &[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_degraded_is_what_a_host_sends_and_what_is_cut_is_not() {
        let Some(kernel) = kernel() else { return };
        let own = [at("10.0.0.1:1"), at("10.0.0.1:2")];
        let narrow = LinkShape { bytes_per_second: 5, ..LinkShape::default() };
        let said = shaped(&kernel, &own, &[(3, narrow), (4, narrow)]).unwrap();
        assert_eq!(said[0], "Out Source 10.0.0.1 10.0.0.2 1 Classed(7)");
        assert!(
            said.len() == 4
                && said.iter().all(|said| said.starts_with("Out") && said.ends_with("Classed(7)"))
        );
        let cut_too = LinkShape { cut: Cut::Out, ..narrow };
        let said = shaped(&kernel, &own, &[(3, cut_too), (4, cut_too)]).unwrap();
        assert!(said.len() == 4 && said.iter().all(|said| said.ends_with("Dropped")), "{said:?}");
        // A host's own nodes are slow to each other, too.
        let said = shaped(&kernel, &own, &[(1, narrow), (2, narrow)]).unwrap();
        assert_eq!(said[3], "Out Destination 10.0.0.1 10.0.0.1 2 Classed(7)");
    }

    #[test]
    fn nodes_that_share_an_address_are_not_told_apart() {
        let Some(kernel) = kernel() else { return };
        let own = [at("10.0.0.1:1"), at("10.0.0.1:2")];
        let refused = |shapes: &[(u64, LinkShape)]| shaped(&kernel, &own, shapes).unwrap_err();
        let (both, back) = (cut(Cut::Both), cut(Cut::In));
        assert_eq!(refused(&[(1, both), (2, both)]), KernelError::Shared(own[0].ip()));
        let other = at("10.0.0.2:3").ip();
        assert_eq!(refused(&[(3, both)]), KernelError::Shared(other), "not without node 4");
        assert_eq!(refused(&[(3, both), (4, back)]), KernelError::Shared(other));
        let slow = LinkShape { latency_us: 5, ..LinkShape::default() };
        assert_eq!(refused(&[(3, slow)]), KernelError::Shared(other));
        assert_eq!(refused(&[(1, slow)]), KernelError::Shared(own[0].ip()), "not without node 2");
        assert_eq!(refused(&[(9, both)]), KernelError::Unknown(Id(9)));
    }

    #[test]
    fn a_tables_name_is_plain_whatever_the_run_is_called() {
        let name = table_name(&format!("/runs/x/2026-11;{{ }}{}", "y".repeat(300)));
        assert!(name.starts_with("p2ps_2026_11____yyy") && name.len() < 100, "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    }
}
