//! All links of a node, by the node at the other end.

use std::collections::HashMap;
use std::task::Context;

use super::limits::{
    LINKS_CLOSING_MAX, LINKS_MAX, LINKS_PER_CONTACT_MAX, LINKS_SPARE_MAX, LINKS_SPARE_SLACK,
};
use super::link::Link;
use crate::access_point::AccessPoint;
use crate::message::{Contact, Message};
use crate::wire::WireError;

/// Names a link for as long as the node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey {
    slot: u32,
    serial: u64,
}

/// The links of a node. Several may lead to one node; messages go over the oldest that is open.
#[derive(Debug, Default)]
pub struct Links {
    slots: Vec<Option<(u64, Link)>>,
    free: Vec<u32>,
    open: HashMap<Contact, Vec<LinkKey>>,
    queued: Vec<LinkKey>,
    closing: Vec<LinkKey>,
    outbound: usize,
    inbound: usize,
    serial: u64,
    /// How many links stand when the spare ones are looked through next.
    sweep_at: usize,
    backlog_bytes: usize,
}

impl Links {
    /// How many links this node opened that are open.
    pub fn outbound(&self) -> usize {
        self.outbound
    }

    /// How many links others opened that are open.
    pub fn inbound(&self) -> usize {
        self.inbound
    }

    /// How many links are open.
    pub fn len(&self) -> usize {
        self.outbound + self.inbound
    }

    /// Whether no link stands, open or closing.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Whether there is room for another link to `contact`.
    pub fn has_room(&self, contact: &Contact) -> bool {
        self.len() < LINKS_MAX && self.open.get(contact).is_none_or(|keys| keys.len() < LINKS_PER_CONTACT_MAX)
    }

    /// Takes a new link in.
    pub fn insert(&mut self, link: Link) -> LinkKey {
        self.serial += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let key = LinkKey { slot, serial: self.serial };
        self.open.entry(link.contact).or_default().push(key);
        self.backlog_bytes += link.backlog_bytes();
        *self.count(link.outbound) += 1;
        self.slots[slot as usize] = Some((self.serial, link));
        key
    }

    /// The link, if it still stands.
    pub fn link_mut(&mut self, key: LinkKey) -> Option<&mut Link> {
        match self.slots.get_mut(key.slot as usize) {
            Some(Some((serial, link))) if *serial == key.serial => Some(link),
            _ => None,
        }
    }

    /// The link over which messages to `contact` go.
    pub fn find(&self, contact: &Contact) -> Option<LinkKey> {
        self.open.get(contact).map(|keys| keys[0])
    }

    /// A node to which a link is open and that can be reached there.
    pub fn find_at(&self, access_point: AccessPoint) -> Option<Contact> {
        self.open.keys().find(|contact| contact.access_point == access_point).copied()
    }

    /// How many bytes wait to be written on all links.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Adds a message to what is written at the turn's end; see [`Link::push`]. A link that is gone takes nothing.
    ///
    /// # Errors
    /// A message that no receiver would take.
    pub fn push(&mut self, key: LinkKey, turn: u64, message: &Message) -> Result<Option<usize>, WireError> {
        let pushed = self.change(key, |link| {
            link.used = turn;
            link.push(message)
        });
        self.queue(key);
        pushed.unwrap_or(Ok(None))
    }

    /// The same for a message that is a frame already. `false`: it was dropped.
    pub fn push_frame(&mut self, key: LinkKey, turn: u64, frame: &[u8]) -> bool {
        let pushed = self.change(key, |link| {
            link.used = turn;
            link.push_frame(frame)
        });
        self.queue(key);
        pushed.unwrap_or(false)
    }

    /// Notes that something waits to be written.
    pub fn queue(&mut self, key: LinkKey) {
        if self.link_mut(key).is_some_and(Link::queue) {
            self.queued.push(key);
        }
    }

    /// Goes on writing where the socket was full; called by the link's own task. `false`: the link is gone.
    pub fn tend(&mut self, key: LinkKey, context: &mut Context<'_>) -> bool {
        self.change(key, |link| {
            if !link.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                link.waker = Some(context.waker().clone());
            }
            if link.is_blocked() {
                link.poll_flush(context);
            }
        })
        .is_some()
    }

    /// Wakes the tasks of all links.
    pub fn wake(&self) {
        self.slots.iter().flatten().for_each(|(_, link)| link.wake());
    }

    /// Writes what one link's socket takes now.
    pub fn flush_one(&mut self, key: LinkKey) {
        self.change(key, Link::flush);
    }

    /// Writes what was gathered: one write for each link.
    pub fn flush(&mut self) {
        let mut queued = std::mem::take(&mut self.queued);
        for key in queued.drain(..) {
            self.flush_one(key);
        }
        self.queued = queued;
    }

    /// Says farewell on a link. Tells the contact if this was the last open link to it.
    pub fn close(&mut self, key: LinkKey) -> Option<Contact> {
        let link = self.link_mut(key)?;
        if link.is_closing() {
            return None;
        }
        let (contact, outbound) = (link.contact, link.outbound);
        self.change(key, Link::close);
        let last = self.forget(key, contact, outbound);
        self.queue(key);
        self.closing.push(key);
        if self.closing.len() > LINKS_CLOSING_MAX {
            let oldest = self.closing[0];
            self.flush_one(oldest);
            self.remove(oldest);
        }
        last.then_some(contact)
    }

    /// Drops a link and its socket. Tells the contact and how many bytes were not sent, if this was the last open link to it.
    pub fn remove(&mut self, key: LinkKey) -> Option<(Contact, usize)> {
        self.link_mut(key)?;
        let (_, link) = self.slots[key.slot as usize].take()?;
        self.free.push(key.slot);
        self.backlog_bytes -= link.backlog_bytes();
        link.wake();
        if link.is_closing() {
            self.closing.retain(|closing| *closing != key);
            return None;
        }
        let last = self.forget(key, link.contact, link.outbound);
        last.then_some((link.contact, link.backlog_bytes()))
    }

    /// All links, open and closing.
    pub fn keys(&self) -> Vec<LinkKey> {
        let link = |(slot, entry): (usize, &Option<(u64, Link)>)| {
            entry.as_ref().map(|(serial, _)| LinkKey { slot: slot as u32, serial: *serial })
        };
        self.slots.iter().enumerate().filter_map(link).collect()
    }

    /// The contacts to which links are open.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.open.keys()
    }

    /// The links to close since there are more spare ones than allowed: the least recently used to nodes that are no
    /// neighbours. Looks through them only when enough have come since the last time, or where `full`.
    pub fn surplus(&mut self, full: bool, is_neighbour: impl Fn(&Contact) -> bool) -> Vec<LinkKey> {
        if !full && self.len() < self.sweep_at.max(LINKS_SPARE_MAX + LINKS_SPARE_SLACK) {
            return Vec::new();
        }
        let spare_contacts: Vec<&Vec<LinkKey>> =
            self.open.iter().filter(|(contact, _)| !is_neighbour(contact)).map(|(_, keys)| keys).collect();
        let mut spare: Vec<(u64, LinkKey)> = spare_contacts
            .into_iter()
            .flatten()
            .filter_map(|key| self.slots[key.slot as usize].as_ref().map(|(_, link)| (link.used, *key)))
            .collect();
        spare.sort_unstable();
        let keep = if full { LINKS_SPARE_MAX / 2 } else { LINKS_SPARE_MAX };
        let surplus = spare.len().saturating_sub(keep);
        self.sweep_at = self.len() - surplus + LINKS_SPARE_SLACK;
        spare.into_iter().take(surplus).map(|(_, key)| key).collect()
    }

    /// Does something to a link that may change its backlog.
    fn change<R>(&mut self, key: LinkKey, act: impl FnOnce(&mut Link) -> R) -> Option<R> {
        let link = self.link_mut(key)?;
        let before = link.backlog_bytes();
        let result = act(link);
        let after = link.backlog_bytes();
        self.backlog_bytes = self.backlog_bytes - before + after;
        Some(result)
    }

    /// Takes a link out of the open ones, and tells whether it was the last to its node.
    fn forget(&mut self, key: LinkKey, contact: Contact, outbound: bool) -> bool {
        *self.count(outbound) -= 1;
        let Some(keys) = self.open.get_mut(&contact) else { return false };
        keys.retain(|open| *open != key);
        let last = keys.is_empty();
        if last {
            self.open.remove(&contact);
        }
        last
    }

    fn count(&mut self, outbound: bool) -> &mut usize {
        if outbound { &mut self.outbound } else { &mut self.inbound }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::com::runtime::Stream;
    use crate::id::Id;

    fn contact(id: u64) -> Contact {
        Contact { id: Id(id), access_point: "p2ps://127.0.0.1:1".parse().unwrap(), incarnation: 1 }
    }

    /// Links to contacts with these ids, last used in this order, and the sockets at their other ends.
    async fn links_to(ids: impl Iterator<Item = u64>) -> (Links, Vec<LinkKey>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut links = Links::default();
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for (turn, id) in ids.enumerate() {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            others.push(listener.accept().await.unwrap().0);
            let mut link =
                Link::new(contact(id), id % 2 == 0, Stream::Tokio(stream).into_split().1, Vec::new(), None);
            link.used = turn as u64;
            keys.push(links.insert(link));
        }
        (links, keys, others)
    }

    fn run(work: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn the_least_recently_used_links_that_are_no_neighbours_are_surplus() {
        run(async {
            let count = LINKS_SPARE_MAX + LINKS_SPARE_SLACK + 10;
            let (mut links, keys, _others) = links_to(0..count as u64).await;
            assert_eq!((links.len(), links.outbound(), links.inbound()), (count, count / 2, count / 2));
            let surplus = links.surplus(false, |contact| contact.id.0 < 10);
            assert_eq!(surplus, keys[10..10 + LINKS_SPARE_SLACK], "the ten oldest are neighbours");
            for key in surplus {
                assert!(links.close(key).is_some());
            }
            assert_eq!(
                links.surplus(false, |_| false),
                [],
                "looked through again only after enough have come"
            );
        });
    }

    #[test]
    fn a_node_is_gone_with_its_last_open_link() {
        run(async {
            let (mut links, keys, _others) = links_to([7, 7, 8].into_iter()).await;
            assert_eq!(links.find(&contact(7)), Some(keys[0]));
            assert_eq!(links.remove(keys[0]), None);
            assert_eq!(links.find(&contact(7)), Some(keys[1]));
            assert_eq!(links.close(keys[1]), Some(contact(7)));
            assert_eq!((links.find(&contact(7)), links.len()), (None, 1));
            assert_eq!(links.remove(keys[1]), None, "its farewell was its end");
            assert_eq!(links.remove(keys[1]), None);
            assert_eq!(links.remove(keys[2]), Some((contact(8), 0)));
            assert!(links.is_empty());
        });
    }

    #[test]
    fn a_backlog_is_bounded_and_counted() {
        run(async {
            let (mut links, keys, _others) = links_to([7].into_iter()).await;
            let message = Message::Left { successors: vec![contact(1); 30] };
            let mut pushed = 0;
            while let Some(bytes) = links.push(keys[0], 1, &message).unwrap() {
                pushed += bytes;
                assert_eq!(links.backlog_bytes(), pushed);
                assert!(pushed < super::super::limits::LINK_BACKLOG_BYTES_MAX + 1000);
            }
            assert!(pushed >= super::super::limits::LINK_BACKLOG_BYTES_MAX);
            links.flush();
            assert!(links.backlog_bytes() < pushed, "the socket took some");
            links.remove(keys[0]);
            assert_eq!(links.backlog_bytes(), 0);
        });
    }
}
