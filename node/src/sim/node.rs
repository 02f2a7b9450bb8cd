//! A simulated node: its place in the network, and its present life, if it has one.

use super::clock::NodeClock;
use super::links::LinkTable;
use super::membership::NodeNumber;
use crate::access_point::AccessPoint;
use crate::com::shaping::Shaper;
use crate::config::ProxyUse;
use crate::id::Id;
use crate::message::Contact;
use crate::metrics::Recorder;
use crate::peer::{JoinError, Peer};

/// The port of all simulated access points.
const PORT: u16 = 4000;

/// The most nodes of a simulation: their addresses lie in 10.0.0.0/8.
pub(super) const NODES_MAX: usize = 1 << 24;

/// A node, alive or not.
#[derive(Debug)]
pub(super) struct SimulatedNode {
    pub(super) seed: u64,
    /// But for [`ProxyUse::Never`], no link to it can be made.
    pub(super) proxy_use: ProxyUse,
    pub(super) clock: NodeClock,
    /// How many lives it has had.
    pub(super) lives: u32,
    /// Its host has vanished: nothing answers there.
    pub(super) vanished: bool,
    pub(super) life: Option<Box<Life>>,
}

/// A life: what a process is on a host.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) peer: Peer,
    pub(super) links: LinkTable,
    pub(super) shaper: Option<Box<Shaper>>,
    /// When the earliest timer event that counts is due, in microseconds.
    pub(super) timer_us: u64,
    pub(super) paused: bool,
    /// Flights that came while it was paused, or ends of links that a cut hides.
    pub(super) held: Vec<u32>,
    pub(super) operations: Vec<Operation>,
    /// The neighbours that were told of last.
    pub(super) ring: Option<(Option<Id>, Id)>,
    pub(super) joined: bool,
    pub(super) end: Option<LifeEnd>,
    pub(super) recorder: Option<Box<Recorder>>,
}

/// A look-up that was given to a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) number: u64,
    pub(super) intended_us: u64,
    pub(super) issued_us: u64,
}

/// How a life ends by itself.
#[derive(Clone, Debug)]
pub(super) enum LifeEnd {
    Left { handed_over: bool },
    Rejected(JoinError),
}

impl SimulatedNode {
    /// Whether others can make links to it.
    pub(super) fn accepts_links(&self) -> bool {
        self.life.is_some() && self.proxy_use == ProxyUse::Never
    }

    /// Its life, if that is the one that is meant.
    pub(super) fn life_numbered(&mut self, life: u32) -> Option<&mut Life> {
        if self.lives == life { self.life.as_deref_mut() } else { None }
    }
}

impl Life {
    pub(super) fn new(peer: Peer, records: bool) -> Life {
        Life {
            peer,
            links: LinkTable::default(),
            shaper: None,
            timer_us: u64::MAX,
            paused: false,
            held: Vec::new(),
            operations: Vec::new(),
            ring: None,
            joined: false,
            end: None,
            recorder: records.then(Box::default),
        }
    }

    pub(super) fn hears(&self, from: Id) -> bool {
        self.shaper.as_ref().is_none_or(|shaper| shaper.hears(from))
    }

    pub(super) fn reaches(&self, id: Id) -> bool {
        self.shaper.as_ref().is_none_or(|shaper| shaper.reaches(id))
    }
}

/// A life's contact: its incarnation is the number of the life.
pub(super) fn contact(id: Id, number: NodeNumber, life: u32) -> Contact {
    Contact { id, access_point: access_point(number), incarnation: u64::from(life) }
}

/// Where a node is reached.
pub(super) fn access_point(number: NodeNumber) -> AccessPoint {
    let [_, a, b, c] = number.0.to_be_bytes();
    AccessPoint { ip: [10, a, b, c].into(), port: PORT }
}

/// The node that is, or would be, reached there; a client's port is 0.
pub(super) fn node_at(access_point: AccessPoint) -> Option<NodeNumber> {
    match access_point.ip {
        std::net::IpAddr::V4(ip) if matches!(access_point.port, PORT | 0) && ip.octets()[0] == 10 => {
            let [_, a, b, c] = ip.octets();
            Some(NodeNumber(u32::from_be_bytes([0, a, b, c])))
        }
        _ => None,
    }
}

/// What is on its way to a node.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) from: NodeNumber,
    pub(super) from_life: u32,
    pub(super) to: NodeNumber,
    pub(super) to_life: u32,
    /// The next flight that waits for the same dial.
    pub(super) next: Option<u32>,
    pub(super) parcel: Parcel,
}

/// What a flight brings. Those of a dial come to the node that dials, but for the handshake itself.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    /// A message of so many bytes, with their digest.
    Message { message: crate::message::Message, bytes: u32, digest: u64 },
    /// The connection of a dial stands, if the other host is there.
    Connected { dial: Dial },
    /// A dial's handshake, at the other node.
    Handshake { dial: Dial },
    /// Its answer.
    Welcome { dial: Dial },
    /// A dial has failed.
    Failed { dial: Dial, reason: &'static str },
    /// The other end of a link is gone, since then.
    Gone { orderly: bool, since_us: u64 },
}

/// Names a dial: when it began, and whether it is for whoever is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) since_us: u64,
    pub(super) anyone: bool,
}

impl Parcel {
    /// What the trace takes in of it.
    pub(super) fn word(&self) -> u64 {
        match self {
            Parcel::Message { digest, .. } => *digest,
            Parcel::Connected { dial } => dial.since_us << 4 | 1,
            Parcel::Handshake { dial } => dial.since_us << 4 | 2,
            Parcel::Welcome { dial } => dial.since_us << 4 | 3,
            Parcel::Failed { dial, .. } => dial.since_us << 4 | 4,
            Parcel::Gone { since_us, orderly } => since_us << 4 | 5 | u64::from(*orderly) << 3,
        }
    }
}
