//! A node's links, as its own end of them.

use super::membership::NodeNumber;
use super::node;
use crate::id::Id;
use crate::message::Contact;

/// One end of the links to one life of another node. Several links to it count as one here: the other end may have dialled,
/// this one, or both.
#[derive(Clone, Debug)]
pub(super) struct LinkEnd {
    pub(super) other: NodeNumber,
    /// Which life of the other node.
    pub(super) life: u32,
    /// The other node was a client when it made the link, and is known as one.
    pub(super) client: bool,
    /// The other node dialled, and that link stands.
    pub(super) inbound: bool,
    /// This node dialled, and that link stands.
    pub(super) outbound: bool,
    /// This node dials.
    pub(super) dialling: Option<Box<Dialling>>,
    /// Since when a link stands, in microseconds.
    pub(super) since_us: u64,
    /// When the last thing that was sent arrives, in microseconds: what is sent later does not arrive before.
    pub(super) arrives_us: u64,
    /// When it was last of use, in microseconds.
    pub(super) used_us: u64,
}

/// A dial that is under way.
#[derive(Clone, Debug)]
pub(super) struct Dialling {
    /// Since when, in microseconds.
    pub(super) since_us: u64,
    /// Its handshake is on its way, and what waited went with it.
    pub(super) flushed: bool,
    /// It is to show only whether the node can be reached: messages go over the link that stands, if one does.
    pub(super) probes: bool,
    /// What waits for it, in order: the first and last of a chain of flights.
    pub(super) waiting: Option<(u32, u32)>,
}

impl Dialling {
    /// A dial that begins.
    pub(super) fn begin(since_us: u64) -> Option<Box<Dialling>> {
        Some(Box::new(Dialling { since_us, flushed: false, probes: false, waiting: None }))
    }

    /// One that is to show whether the node can be reached.
    pub(super) fn probe(since_us: u64) -> Option<Box<Dialling>> {
        Some(Box::new(Dialling { since_us, flushed: false, probes: true, waiting: None }))
    }
}

impl LinkEnd {
    /// A link that does not stand yet.
    pub(super) fn new(other: NodeNumber, life: u32) -> LinkEnd {
        LinkEnd {
            other,
            life,
            client: false,
            inbound: false,
            outbound: false,
            dialling: None,
            since_us: 0,
            arrives_us: 0,
            used_us: 0,
        }
    }

    /// How the other end, whose id this is, is known here.
    pub(super) fn contact(&self, id: Id) -> Contact {
        let contact = node::contact(id, self.other, self.life);
        if self.client { contact.as_client() } else { contact }
    }

    /// Whether the dial that began then is under way.
    pub(super) fn is_dialling_since(&self, since_us: u64) -> bool {
        self.dialling.as_ref().is_some_and(|dialling| dialling.since_us == since_us)
    }

    /// Whether a link stands.
    pub(super) fn is_open(&self) -> bool {
        self.inbound || self.outbound
    }
}

/// All links of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkTable {
    /// In the order of the other nodes.
    ends: Vec<LinkEnd>,
    /// How many there are when the spare ones are looked through next.
    pub(super) sweep_at: usize,
}

impl LinkTable {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LinkEnd> {
        self.ends.iter()
    }

    pub(super) fn get_mut(&mut self, other: NodeNumber, life: u32) -> Option<&mut LinkEnd> {
        let place = self.place(other, life).ok()?;
        Some(&mut self.ends[place])
    }

    /// The link to a node, made if there is none yet.
    pub(super) fn entry(&mut self, other: NodeNumber, life: u32) -> &mut LinkEnd {
        let place = match self.place(other, life) {
            Ok(place) => place,
            Err(place) => {
                if self.ends.len() == self.ends.capacity() {
                    // Large networks have many of these tables: they grow with less to spare than a Vec's own doubling.
                    self.ends.reserve_exact(8 + self.ends.len() / 4);
                }
                self.ends.insert(place, LinkEnd::new(other, life));
                place
            }
        };
        &mut self.ends[place]
    }

    /// A link that stands to whatever life of a node.
    pub(super) fn open_to(&self, other: NodeNumber) -> Option<&LinkEnd> {
        let from = self.ends.partition_point(|end| end.other < other);
        self.ends[from..].iter().take_while(|end| end.other == other).find(|end| end.is_open())
    }

    pub(super) fn remove(&mut self, other: NodeNumber, life: u32) -> Option<LinkEnd> {
        let place = self.place(other, life).ok()?;
        Some(self.ends.remove(place))
    }

    fn place(&self, other: NodeNumber, life: u32) -> Result<usize, usize> {
        self.ends.binary_search_by_key(&(other, life), |end| (end.other, end.life))
    }
}
