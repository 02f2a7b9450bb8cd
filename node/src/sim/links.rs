//! A node's links, as its own end of them.

use super::membership::NodeNumber;
use crate::message::Contact;

/// Whom a link is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OtherLife {
    /// The other node.
    pub(super) node: NodeNumber,
    /// Which life of it.
    pub(super) life: u32,
}

/// One end of the links to one life of another node. Several links to it count as one here: the other end may have dialled,
/// this one, or both.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkEnd {
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
    /// How the other end is known here, which has this contact as a member.
    pub(super) fn known(&self, contact: Contact) -> Contact {
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
    /// Whom they are to, in order, apart from what is known of each link: every message searches here, and so finds what it
    /// looks for in few lines of the processor's cache.
    others: Vec<OtherLife>,
    /// The links, in the same order.
    ends: Vec<LinkEnd>,
    /// How many there are when the spare ones are looked through next.
    pub(super) sweep_at: usize,
}

impl LinkTable {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (OtherLife, &LinkEnd)> {
        self.others.iter().copied().zip(&self.ends)
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
                    let more = 8 + self.ends.len() / 4;
                    self.others.reserve_exact(more);
                    self.ends.reserve_exact(more);
                }
                self.others.insert(place, OtherLife { node: other, life });
                self.ends.insert(place, LinkEnd::default());
                place
            }
        };
        &mut self.ends[place]
    }

    /// The life of a node to which a link stands, whichever that is, and the link.
    pub(super) fn open_to(&self, node: NodeNumber) -> Option<(u32, &LinkEnd)> {
        let from = self.others.partition_point(|other| other.node < node);
        let lives = self.others[from..].iter().zip(&self.ends[from..]);
        let mut lives = lives.take_while(|(other, _)| other.node == node);
        lives.find(|(_, end)| end.is_open()).map(|(other, end)| (other.life, end))
    }

    pub(super) fn remove(&mut self, other: NodeNumber, life: u32) -> Option<LinkEnd> {
        let place = self.place(other, life).ok()?;
        self.others.remove(place);
        Some(self.ends.remove(place))
    }

    fn place(&self, other: NodeNumber, life: u32) -> Result<usize, usize> {
        self.others.binary_search(&OtherLife { node: other, life })
    }
}
