//! One table of packet filters in the kernel, spoken to over netlink: nftables without the `nft` program. Packets are dropped by it, or
//! told which class of their interface's queues they go through (their priority, as `tc` says).
//!
//! The table has the flag `owner` (Linux 5.12): only the socket that made it may change it, and **the kernel removes it when that socket
//! closes**, however its process ends. That is the dead man's switch, and why no program is called: `nft` would be the owner, and
//! take the table with it when it ends. Numbers and names are those of `linux/netfilter/nf_tables.h` and `nfnetlink.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustix::io::Errno;

use super::netlink::{
    ACK, APPEND, CREATE, NetlinkError, Part, REQUEST, Socket, attribute, message, nested, text,
};

/// How much of a change is sent at once, in bytes: what a socket's buffer holds by default, with room to spare.
const BATCH_BYTES_MAX: usize = 96 << 10;

/// The most elements in one message: an attribute has at most 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;

/// Families of nfnetlink: unspecified, and both internet protocols.
const UNSPECIFIED: u8 = 0;
const INET: u8 = 1;

/// Messages of nf_tables, and what a batch lies between.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const GET_GENERATION: u16 = 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 2;

/// `NFT_REG32_00`: the first of the registers of four bytes.
const FIRST_REGISTER: u32 = 8;

/// `NFT_SET_MAP`.
const MAP: u32 = 8;

/// How the program `nft` shows the values of a map: as classes of queues.
const SHOWN_AS_CLASS: u32 = 23;

/// Which packets, of those that two addresses exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Those that this host sends.
    Out,
    /// Those that come to it.
    In,
}

/// Which port of a packet says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The port that it is from.
    Source,
    /// The port that it is to.
    Destination,
}

/// TCP packets: those from the first address to the second with this port at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packets {
    pub(super) way: Way,
    pub(super) end: End,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) port: u16,
}

/// What becomes of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are lost.
    Dropped,
    /// They go through this class of their interface's queues, if there is one there.
    Classed(u32),
}

/// Why the kernel does not do as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::agent) enum NetfilterError {
    #[error("not permitted: wants CAP_NET_ADMIN")]
    NotPermitted,
    #[error("wants nf_tables of Linux 5.12: {0}")]
    NotSupported(Errno),
    #[error("the kernel's packet filters cannot be changed: {0}")]
    System(Errno),
    #[error("the kernel did not answer")]
    NoAnswer,
}

impl From<Errno> for NetfilterError {
    fn from(error: Errno) -> NetfilterError {
        match error {
            Errno::PERM | Errno::ACCESS => NetfilterError::NotPermitted,
            Errno::OPNOTSUPP | Errno::INVAL | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
                NetfilterError::NotSupported(error)
            }
            _ => NetfilterError::System(error),
        }
    }
}

impl From<NetlinkError> for NetfilterError {
    fn from(error: NetlinkError) -> NetfilterError {
        match error {
            NetlinkError::Refused(error) => error.into(),
            NetlinkError::NoAnswer => NetfilterError::NoAnswer,
        }
    }
}

/// A table of this process's. Closing it removes it.
#[derive(Debug)]
pub(super) struct Table {
    socket: Socket,
    name: String,
    exists: bool,
}

impl Table {
    /// A table that does not exist yet, if this process may have one.
    pub(super) fn new(name: String) -> Result<Table, NetfilterError> {
        let table = Table { socket: Socket::open(Part::Netfilter)?, name, exists: false };
        let question = message(NFTABLES << 8 | GET_GENERATION, REQUEST | ACK, &family(UNSPECIFIED, 0), &[]);
        table.socket.exchange(&question)?;
        Ok(table)
    }

    /// Lets this become of these packets, and nothing of others, from now on; without any the table does not exist.
    pub(super) fn set(&mut self, fates: &BTreeMap<Packets, Fate>) -> Result<(), NetfilterError> {
        let mut batch = Batch::default();
        if self.exists {
            batch.add(DELETE_TABLE, 0, &self.of_table(&[]));
        }
        if fates.is_empty() {
            if !batch.is_empty() {
                self.commit(batch)?;
            }
            self.exists = false;
            return Ok(());
        }
        batch.add(NEW_TABLE, CREATE, &self.of_table(&attribute(2, &OWNER.to_be_bytes())));
        let mut kinds: BTreeMap<Kind, Vec<(&Packets, Fate)>> = BTreeMap::new();
        for (packets, fate) in fates {
            kinds.entry(Kind::of(packets, *fate)).or_default().push((packets, *fate));
        }
        for way in BTreeSet::from_iter(kinds.keys().map(|kind| kind.way)) {
            batch.add(NEW_CHAIN, CREATE, &self.chain(way));
        }
        for (kind, number) in kinds.keys().zip(1..) {
            batch.add(NEW_SET, CREATE, &self.packet_set(*kind, number));
            batch.add(NEW_RULE, CREATE | APPEND, &self.rule(*kind));
        }
        for (kind, of_kind) in &kinds {
            for elements in of_kind.chunks(ELEMENTS_PER_MESSAGE) {
                if batch.bytes.len() > BATCH_BYTES_MAX {
                    self.commit(std::mem::take(&mut batch))?;
                    self.exists = true;
                }
                batch.add(NEW_ELEMENTS, CREATE, &self.elements(*kind, elements));
            }
        }
        self.commit(batch)?;
        self.exists = true;
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), NetfilterError> {
        self.socket.exchange(&batch.finish())?;
        Ok(())
    }

    /// Attributes of a table, after its name.
    fn of_table(&self, more: &[u8]) -> Vec<u8> {
        [text(1, &self.name), more.to_vec()].concat()
    }

    /// A chain that sees all packets of one way, and lets through what no rule drops.
    fn chain(&self, way: Way) -> Vec<u8> {
        // NF_INET_LOCAL_OUT and NF_INET_LOCAL_IN; the priority is that of filters.
        let hook: u32 = match way {
            Way::Out => 3,
            Way::In => 1,
        };
        let hook = [attribute(1, &hook.to_be_bytes()), attribute(2, &0u32.to_be_bytes())].concat();
        self.of_table(&[text(3, way.name()), nested(4, &hook), text(7, "filter")].concat())
    }

    /// A set of pairs of addresses with a port; or a map from these to classes.
    fn packet_set(&self, kind: Kind, number: u32) -> Vec<u8> {
        // As the program `nft` shows them: ipv4_addr or ipv6_addr twice, and inet_service, six bits each.
        let address: u32 = if kind.v6 { 8 } else { 7 };
        let shown: u32 = address << 12 | address << 6 | 13;
        let length = 2 * kind.address_bytes() + 4;
        let flags = if kind.is_classed { MAP } else { 0 };
        let mut attributes = vec![
            text(2, &kind.name()),
            attribute(3, &flags.to_be_bytes()),
            attribute(4, &shown.to_be_bytes()),
            attribute(5, &length.to_be_bytes()),
            attribute(10, &number.to_be_bytes()),
        ];
        if kind.is_classed {
            attributes.push(attribute(6, &SHOWN_AS_CLASS.to_be_bytes()));
            attributes.push(attribute(7, &4u32.to_be_bytes()));
        }
        self.of_table(&attributes.concat())
    }

    /// What becomes of the TCP packets whose addresses and port are in the set of `kind`.
    fn rule(&self, kind: Kind) -> Vec<u8> {
        let words = kind.address_bytes() / 4;
        let (source, destination) = if kind.v6 { (8, 24) } else { (12, 16) };
        // NFPROTO_IPV4 and NFPROTO_IPV6.
        let protocol = if kind.v6 { 10 } else { 2 };
        let port = match kind.end {
            End::Source => 0,
            End::Destination => 2,
        };
        let mut expressions = vec![
            // NFT_META_NFPROTO and NFT_META_L4PROTO.
            meta(15),
            equals(protocol),
            meta(16),
            equals(6),
            load(1, source, kind.address_bytes(), FIRST_REGISTER),
            load(1, destination, kind.address_bytes(), FIRST_REGISTER + words),
            load(2, port, 2, FIRST_REGISTER + 2 * words),
        ];
        expressions.extend(match kind.is_classed {
            true => [find(&kind.name(), Some(FIRST_REGISTER)), set_priority()],
            false => [find(&kind.name(), None), drop_packet()],
        });
        self.of_table(&[text(2, kind.way.name()), nested(4, &expressions.concat())].concat())
    }

    fn elements(&self, kind: Kind, all: &[(&Packets, Fate)]) -> Vec<u8> {
        let element = |(packets, fate): &(&Packets, Fate)| {
            let mut key = [octets(packets.from), octets(packets.to)].concat();
            key.extend(packets.port.to_be_bytes());
            key.extend([0, 0]);
            let mut attributes = nested(1, &attribute(1, &key));
            if let Fate::Classed(class) = fate {
                attributes.extend(nested(2, &attribute(1, &class.to_ne_bytes())));
            }
            nested(1, &attributes)
        };
        let elements: Vec<u8> = all.iter().flat_map(element).collect();
        self.of_table(&[text(2, &kind.name()), nested(3, &elements)].concat())
    }
}

/// What one set and its rule are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    /// What is dropped comes first.
    is_classed: bool,
    way: Way,
    end: End,
    v6: bool,
}

impl Kind {
    fn of(packets: &Packets, fate: Fate) -> Kind {
        let is_classed = fate != Fate::Dropped;
        Kind { is_classed, way: packets.way, end: packets.end, v6: packets.from.is_ipv6() }
    }

    fn name(self) -> String {
        let end = match self.end {
            End::Source => "from",
            End::Destination => "to",
        };
        let what = if self.is_classed { "slow_" } else { "" };
        format!("{what}{}_{end}_v{}", self.way.name(), if self.v6 { 6 } else { 4 })
    }

    fn address_bytes(self) -> u32 {
        if self.v6 { 16 } else { 4 }
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Out => "out",
            Way::In => "in",
        }
    }
}

/// Messages that the kernel carries out together or not at all.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn add(&mut self, kind: u16, flags: u16, attributes: &[u8]) {
        self.last = self.bytes.len();
        self.bytes.extend(message(NFTABLES << 8 | kind, REQUEST | flags, &family(INET, 0), attributes));
    }

    /// With its beginning and its end, and the wish to be told when the last one has been done.
    fn finish(mut self) -> Vec<u8> {
        let flags = self.last + 6;
        let asked = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
        let frame = |kind| message(kind, REQUEST, &family(UNSPECIFIED, NFTABLES), &[]);
        [frame(BATCH_BEGIN), self.bytes, frame(BATCH_END)].concat()
    }
}

/// `nfgenmsg`.
fn family(family: u8, resource: u16) -> Vec<u8> {
    [&[family, 0], &resource.to_be_bytes()[..]].concat()
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)].concat())
}

/// Loads something about a packet, of one byte, into the first register.
fn meta(key: u32) -> Vec<u8> {
    expression(
        "meta",
        &[attribute(1, &FIRST_REGISTER.to_be_bytes()), attribute(2, &key.to_be_bytes())].concat(),
    )
}

/// Goes on only where the first register holds this byte.
fn equals(value: u8) -> Vec<u8> {
    let data = nested(3, &attribute(1, &[value]));
    let attributes = [attribute(1, &FIRST_REGISTER.to_be_bytes()), attribute(2, &0u32.to_be_bytes()), data];
    expression("cmp", &attributes.concat())
}

/// Loads a part of a packet's network header (1) or transport header (2) into a register.
fn load(header: u32, offset: u32, length: u32, register: u32) -> Vec<u8> {
    let values = [register, header, offset, length];
    let attributes: Vec<u8> =
        (1..).zip(values).flat_map(|(kind, value)| attribute(kind, &value.to_be_bytes())).collect();
    expression("payload", &attributes)
}

/// Goes on only where what the registers hold is in this set; its value goes into a register.
fn find(set: &str, value: Option<u32>) -> Vec<u8> {
    let mut attributes = [text(1, set), attribute(2, &FIRST_REGISTER.to_be_bytes())].concat();
    attributes.extend(value.into_iter().flat_map(|register| attribute(3, &register.to_be_bytes())));
    expression("lookup", &attributes)
}

/// Makes the first register's value the packet's priority: its class.
fn set_priority() -> Vec<u8> {
    // NFT_META_PRIORITY, from a register.
    let attributes = [attribute(2, &2u32.to_be_bytes()), attribute(3, &FIRST_REGISTER.to_be_bytes())];
    expression("meta", &attributes.concat())
}

fn drop_packet() -> Vec<u8> {
    // Into the register of verdicts (0) the verdict NF_DROP (0).
    let verdict = nested(2, &nested(2, &attribute(1, &0u32.to_be_bytes())));
    expression("immediate", &[attribute(1, &0u32.to_be_bytes()), verdict].concat())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_said_in_words() {
        assert_eq!(NetfilterError::from(Errno::PERM), NetfilterError::NotPermitted);
        assert!(NetfilterError::from(Errno::OPNOTSUPP).to_string().contains("5.12"));
        assert!(matches!(NetfilterError::from(Errno::NOMEM), NetfilterError::System(_)));
    }
}
