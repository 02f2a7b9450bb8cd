//! Cuts made by the host's kernel (`faults: {with: kernel}`): packets between hosts are dropped, as by a broken wire, so that TCP itself
//! has to cope, and not only the nodes.
//!
//! A packet between two nodes has a port of one of them at one end only: the other end is an outgoing link's, which says nothing of its
//! node. So a kernel can part hosts, not nodes that share an address; what would part such nodes is refused, here and, with a place in
//! the plan, when the plan is checked. Only TCP packets between nodes of the run are touched: both addresses must be those of nodes,
//! and one of the ports a node's own. Whatever else the hosts say to each other goes through, the control link too.
//!
//! All of it is one table (`nft list tables` shows it as `p2ps_…`) that goes with this process, however that ends ([`netfilter`]).

mod netfilter;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use self::netfilter::{Dropped, End, NetfilterError, Table, Way};
use super::protocol::{ADDRESSES_MAX, GroupIndex};
use crate::access_point::AccessPoint;
use crate::com::shaping::Cut;
use crate::id::Id;

/// The most kinds of packets that are dropped at once: pairs of addresses with a port.
const DROPS_MAX: usize = 200_000;

/// The most of a run's name that a table's name has.
const RUN_BYTES_MAX: usize = 64;

/// Why a cut cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KernelError {
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    #[error("more than {ADDRESSES_MAX} addresses")]
    TooManyAddresses,
    #[error("no address is known of node {0}")]
    Unknown(Id),
    #[error(
        "nodes on different sides share the address {0}: a kernel can part hosts only (faults: {{with: node}} parts nodes)"
    )]
    Shared(IpAddr),
    #[error("more than {DROPS_MAX} kinds of packets would have to be dropped")]
    TooMany,
}

/// The kernel, as far as it makes faults.
#[derive(Debug)]
pub(super) struct Kernel {
    table: Table,
    addresses: HashMap<Id, SocketAddr>,
    /// The rules that it carries out.
    made: CutRules,
}

/// Which groups this host is cut off from, and which way.
pub(super) type CutRules = BTreeSet<(GroupIndex, Cut)>;

impl Kernel {
    /// A kernel that makes no faults yet, if this process may let it make some.
    pub(super) fn new(run: &str) -> Result<Kernel, KernelError> {
        let table = Table::new(table_name(run))?;
        Ok(Kernel { table, addresses: HashMap::new(), made: CutRules::new() })
    }

    /// Takes in where nodes are.
    pub(super) fn extend(&mut self, nodes: Vec<(Id, AccessPoint)>) -> Result<(), KernelError> {
        if self.addresses.len() + nodes.len() > ADDRESSES_MAX {
            return Err(KernelError::TooManyAddresses);
        }
        self.addresses.extend(nodes.into_iter().map(|(id, at)| (id, SocketAddr::new(at.ip, at.port))));
        Ok(())
    }

    /// Whether it carries out these rules and no others.
    pub(super) fn has_made(&self, rules: &CutRules) -> bool {
        self.made == *rules
    }

    /// Cuts this host's nodes, which are at `own`, off from these nodes, and from no others, as `rules` say. What cannot be done changes
    /// nothing.
    pub(super) fn cut(
        &mut self,
        own: &[SocketAddr],
        rules: CutRules,
        cuts: &BTreeMap<Id, Cut>,
    ) -> Result<(), KernelError> {
        self.table.set(&self.drops(own, cuts)?)?;
        self.made = rules;
        Ok(())
    }

    fn drops(&self, own: &[SocketAddr], cuts: &BTreeMap<Id, Cut>) -> Result<BTreeSet<Dropped>, KernelError> {
        let mut peers: BTreeMap<IpAddr, (Cut, BTreeSet<u16>)> = BTreeMap::new();
        for (id, cut) in cuts {
            let address = self.addresses.get(id).ok_or(KernelError::Unknown(*id))?;
            let (known, ports) = peers.entry(address.ip()).or_insert_with(|| (*cut, BTreeSet::new()));
            if known != cut || own.iter().any(|own| own.ip() == address.ip()) {
                return Err(KernelError::Shared(address.ip()));
            }
            ports.insert(address.port());
        }
        // All nodes at an address are cut off, or none.
        for (id, address) in &self.addresses {
            if peers.contains_key(&address.ip()) && !cuts.contains_key(id) {
                return Err(KernelError::Shared(address.ip()));
            }
        }
        let here: BTreeSet<IpAddr> = own.iter().map(SocketAddr::ip).collect();
        let mut drops = BTreeSet::new();
        for (peer, (cut, ports)) in &peers {
            let pairs = here.iter().filter(|here| here.is_ipv4() == peer.is_ipv4());
            for here in pairs {
                let own = own.iter().filter(|own| own.ip() == *here).map(SocketAddr::port);
                let (out, back) = (cut.is_out(), cut.is_in());
                drops.extend(
                    out.then(|| dropped(Way::Out, *here, *peer, own.clone(), ports)).into_iter().flatten(),
                );
                drops.extend(back.then(|| dropped(Way::In, *here, *peer, own, ports)).into_iter().flatten());
                if drops.len() > DROPS_MAX {
                    return Err(KernelError::TooMany);
                }
            }
        }
        Ok(drops)
    }
}

/// What is dropped of what nodes at `here` and at `there` exchange one way. What comes from a listening port is from its node, and what
/// goes to one is to it.
fn dropped(
    way: Way,
    here: IpAddr,
    there: IpAddr,
    own: impl Iterator<Item = u16>,
    ports: &BTreeSet<u16>,
) -> impl Iterator<Item = Dropped> {
    let (from, to, end_here, end_there) = match way {
        Way::Out => (here, there, End::Source, End::Destination),
        Way::In => (there, here, End::Destination, End::Source),
    };
    let own = own.map(move |port| (end_here, port));
    own.chain(ports.iter().map(move |port| (end_there, *port))).map(move |(end, port)| Dropped {
        way,
        end,
        from,
        to,
        port,
    })
}

/// Why this host's kernel cannot make faults, if it cannot. Changes nothing, but a kernel may load its module of packet filters to answer.
pub(super) fn refusal() -> Option<String> {
    Table::new(String::new()).err().map(|error| error.to_string())
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

    #[test]
    fn a_cut_drops_what_the_nodes_of_two_hosts_send_each_other_and_nothing_else() {
        let Some(kernel) = kernel() else { return };
        let own = [at("10.0.0.1:1"), at("10.0.0.1:2")];
        let cuts = |cut| BTreeMap::from([(Id(3), cut), (Id(4), cut)]);
        let drops = kernel.drops(&own, &cuts(Cut::Out)).unwrap();
        let said: Vec<String> =
            drops.iter().map(|drop| format!("{:?} {:?} {}", drop.way, drop.end, drop.port)).collect();
        assert_eq!(said, ["Out Source 1", "Out Source 2", "Out Destination 3", "Out Destination 4"]);
        assert!(drops.iter().all(|drop| drop.from == own[0].ip() && drop.to == at("10.0.0.2:3").ip()));
        let back = kernel.drops(&own, &cuts(Cut::In)).unwrap();
        assert!(back.iter().all(|drop| drop.way == Way::In && drop.to == own[0].ip()));
        let both: BTreeSet<Dropped> = drops.union(&back).copied().collect();
        assert_eq!(kernel.drops(&own, &cuts(Cut::Both)).unwrap(), both);
        assert!(kernel.drops(&own, &BTreeMap::new()).unwrap().is_empty());
    }

    #[test]
    fn nodes_that_share_an_address_are_not_parted() {
        let Some(kernel) = kernel() else { return };
        let own = [at("10.0.0.1:1"), at("10.0.0.1:2")];
        let refused = |cuts: &[(u64, Cut)]| {
            kernel.drops(&own, &cuts.iter().map(|(id, cut)| (Id(*id), *cut)).collect()).unwrap_err()
        };
        assert_eq!(refused(&[(2, Cut::Both)]), KernelError::Shared(own[0].ip()));
        let other = at("10.0.0.2:3").ip();
        assert_eq!(refused(&[(3, Cut::Both)]), KernelError::Shared(other), "not without node 4");
        assert_eq!(refused(&[(3, Cut::Both), (4, Cut::In)]), KernelError::Shared(other));
        assert_eq!(refused(&[(9, Cut::Both)]), KernelError::Unknown(Id(9)));
    }

    #[test]
    fn a_tables_name_is_plain_whatever_the_run_is_called() {
        let name = table_name(&format!("/runs/x/2026-11;{{ }}{}", "y".repeat(300)));
        assert!(name.starts_with("p2ps_2026_11____yyy") && name.len() < 100, "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    }
}
