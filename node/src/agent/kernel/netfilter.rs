//! One table of packet filters in the kernel, spoken to over netlink: nftables without the `nft` program.
//!
//! The table has the flag `owner` (Linux 5.12): only the socket that made it may change it, and **the kernel removes it when that socket
//! closes**, however its process ends. That is the dead man's switch, and why no program is called: `nft` would be the owner, and
//! take the table with it when it ends. Numbers and names are those of `linux/netfilter/nf_tables.h` and `nfnetlink.h`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// How much of a change is sent at once, in bytes: what a socket's buffer holds by default, with room to spare.
const BATCH_BYTES_MAX: usize = 96 << 10;

/// The most elements in one message: an attribute has at most 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// The longest answer that is read, in bytes. An answer repeats what it is about only where that failed.
const ANSWER_BYTES_MAX: usize = 16 << 10;

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

/// Flags and types of netlink.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;

/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 2;

/// `NFT_REG32_00`: the first of the registers of four bytes.
const FIRST_REGISTER: u32 = 8;

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

/// TCP packets that are dropped: those from the first address to the second with this port at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dropped {
    pub(super) way: Way,
    pub(super) end: End,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) port: u16,
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

/// A table of this process's. Closing it removes it.
#[derive(Debug)]
pub(super) struct Table {
    socket: OwnedFd,
    name: String,
    exists: bool,
}

impl Table {
    /// A table that does not exist yet, if this process may have one.
    pub(super) fn new(name: String) -> Result<Table, NetfilterError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
        let table = Table { socket, name, exists: false };
        table.exchange(&message(NFTABLES << 8 | GET_GENERATION, REQUEST | ACK, UNSPECIFIED, 0, &[]))?;
        Ok(table)
    }

    /// Drops these packets and no others from now on; without any the table does not exist.
    pub(super) fn set(&mut self, drops: &BTreeSet<Dropped>) -> Result<(), NetfilterError> {
        let mut batch = Batch::default();
        if self.exists {
            batch.add(DELETE_TABLE, 0, &self.of_table(&[]));
            self.exists = false;
        }
        if drops.is_empty() {
            return if batch.is_empty() { Ok(()) } else { self.commit(batch) };
        }
        batch.add(NEW_TABLE, CREATE, &self.of_table(&attribute(2, &OWNER.to_be_bytes())));
        let kinds: BTreeSet<Kind> = drops.iter().map(Kind::of).collect();
        for way in BTreeSet::from_iter(kinds.iter().map(|kind| kind.way)) {
            batch.add(NEW_CHAIN, CREATE, &self.chain(way));
        }
        for (kind, number) in kinds.iter().zip(1..) {
            batch.add(NEW_SET, CREATE, &self.address_set(*kind, number));
            batch.add(NEW_RULE, CREATE | APPEND, &self.rule(*kind));
        }
        for kind in &kinds {
            let of_kind: Vec<&Dropped> = drops.iter().filter(|drop| Kind::of(drop) == *kind).collect();
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
        self.exchange(&batch.finish())
    }

    /// Sends messages, and reads what became of them: the kernel has answered when they have been sent.
    fn exchange(&self, messages: &[u8]) -> Result<(), NetfilterError> {
        send(&self.socket, messages, SendFlags::empty())?;
        let (mut answered, mut refused) = (false, None);
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        loop {
            match recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    for error in errors(&answer[..length.min(ANSWER_BYTES_MAX)]) {
                        answered = true;
                        refused = refused.or(error);
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match refused {
            Some(error) => Err(error.into()),
            None if answered => Ok(()),
            None => Err(NetfilterError::NoAnswer),
        }
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

    /// A set of pairs of addresses with a port.
    fn address_set(&self, kind: Kind, number: u32) -> Vec<u8> {
        // As the program `nft` shows them: ipv4_addr or ipv6_addr twice, and inet_service, six bits each.
        let address: u32 = if kind.v6 { 8 } else { 7 };
        let shown: u32 = address << 12 | address << 6 | 13;
        let length = 2 * kind.address_bytes() + 4;
        let attributes = [
            text(2, &kind.name()),
            attribute(3, &0u32.to_be_bytes()),
            attribute(4, &shown.to_be_bytes()),
            attribute(5, &length.to_be_bytes()),
            attribute(10, &number.to_be_bytes()),
        ];
        self.of_table(&attributes.concat())
    }

    /// Drops the TCP packets whose addresses and port are in the set of `kind`.
    fn rule(&self, kind: Kind) -> Vec<u8> {
        let words = kind.address_bytes() / 4;
        let (source, destination) = if kind.v6 { (8, 24) } else { (12, 16) };
        // NFPROTO_IPV4 and NFPROTO_IPV6.
        let protocol = if kind.v6 { 10 } else { 2 };
        let port = match kind.end {
            End::Source => 0,
            End::Destination => 2,
        };
        let expressions = [
            // NFT_META_NFPROTO and NFT_META_L4PROTO.
            meta(15),
            equals(protocol),
            meta(16),
            equals(6),
            load(1, source, kind.address_bytes(), FIRST_REGISTER),
            load(1, destination, kind.address_bytes(), FIRST_REGISTER + words),
            load(2, port, 2, FIRST_REGISTER + 2 * words),
            expression(
                "lookup",
                &[text(1, &kind.name()), attribute(2, &FIRST_REGISTER.to_be_bytes())].concat(),
            ),
            drop_packet(),
        ];
        self.of_table(&[text(2, kind.way.name()), nested(4, &expressions.concat())].concat())
    }

    fn elements(&self, kind: Kind, drops: &[&Dropped]) -> Vec<u8> {
        let element = |drop: &&Dropped| {
            let mut key = [octets(drop.from), octets(drop.to)].concat();
            key.extend(drop.port.to_be_bytes());
            key.extend([0, 0]);
            nested(1, &nested(1, &attribute(1, &key)))
        };
        let elements: Vec<u8> = drops.iter().flat_map(element).collect();
        self.of_table(&[text(2, &kind.name()), nested(3, &elements)].concat())
    }
}

/// What one set and its rule are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    way: Way,
    end: End,
    v6: bool,
}

impl Kind {
    fn of(drop: &Dropped) -> Kind {
        Kind { way: drop.way, end: drop.end, v6: drop.from.is_ipv6() }
    }

    fn name(self) -> String {
        let end = match self.end {
            End::Source => "from",
            End::Destination => "to",
        };
        format!("{}_{end}_v{}", self.way.name(), if self.v6 { 6 } else { 4 })
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
        self.bytes.extend(message(NFTABLES << 8 | kind, REQUEST | flags, INET, 0, attributes));
    }

    /// With its beginning and its end, and the wish to be told when the last one has been done.
    fn finish(mut self) -> Vec<u8> {
        let flags = self.last + 6;
        let asked = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
        let frame = |kind| message(kind, REQUEST, UNSPECIFIED, NFTABLES, &[]);
        [frame(BATCH_BEGIN), self.bytes, frame(BATCH_END)].concat()
    }
}

/// A message: `nlmsghdr`, `nfgenmsg`, attributes.
fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = 20 + attributes.len() as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

/// An attribute, filled up to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
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

/// What the acknowledgements in an answer say: `None` for one that something has been done.
fn errors(mut answer: &[u8]) -> Vec<Option<Errno>> {
    let mut errors = Vec::new();
    while let Some(header) = answer.get(..16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if u16::from_ne_bytes([header[4], header[5]]) == ERROR
            && let Some(code) = answer.get(16..20)
        {
            let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
            errors.push((code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg())));
        }
        answer = answer.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_messages_are_aligned_and_say_their_length() {
        assert_eq!(text(7, "abcd"), [9, 0, 7, 0, b'a', b'b', b'c', b'd', 0, 0, 0, 0].map(|byte: u8| byte));
        let message = message(5, REQUEST, INET, 10, &attribute(1, &[9]));
        assert_eq!(message.len(), 28);
        assert_eq!(message[..4], 28u32.to_ne_bytes());
        assert_eq!(message[16..20], [INET, 0, 0, 10]);
    }

    #[test]
    fn answers_of_any_form_are_read_without_harm() {
        let answer = |code: i32| {
            let mut bytes = 20u32.to_ne_bytes().to_vec();
            bytes.extend(ERROR.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert_eq!(errors(&[answer(0), answer(-1)].concat()), [None, Some(Errno::PERM)]);
        assert_eq!(errors(&[]), []);
        assert_eq!(errors(&[0; 64]), []);
        assert_eq!(errors(&[255; 64]), []);
        assert_eq!(errors(&answer(i32::MIN)[..19]), []);
    }

    #[test]
    fn what_the_kernel_refuses_is_said_in_words() {
        assert_eq!(NetfilterError::from(Errno::PERM), NetfilterError::NotPermitted);
        assert!(NetfilterError::from(Errno::OPNOTSUPP).to_string().contains("5.12"));
        assert!(matches!(NetfilterError::from(Errno::NOMEM), NetfilterError::System(_)));
    }
}
