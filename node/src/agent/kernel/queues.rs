//! Queues of interfaces, spoken to over netlink: what the program `tc` does, without it.
//!
//! The root of an interface's queues becomes HTB, with a class for each degraded wire. A packet goes through the class that its priority
//! names, which the packet filters set; all others pass at once, as if nothing were there. Our root has a number of its own, and the kernel
//! is told it whenever something is to be removed: it refuses where another is there. Numbers are those of `linux/rtnetlink.h`.

use std::net::IpAddr;

use rustix::io::Errno;

use super::netem::{self, Leaf, TooMuchJitter};
use super::netlink::{
    ACK, Answer, CREATE, ECHO, EXCLUSIVE, NetlinkError, Part, REQUEST, Socket, attribute, message, text,
};
use crate::com::shaping::LinkShape;

/// The number of our roots (`7032:`, "p2"), and what the numbers of their classes begin with.
pub(super) const ROOT_NUMBER: u32 = 0x7032_0000;

/// `TC_H_ROOT`: the place of an interface's first queue.
const ROOT_PLACE: u32 = u32::MAX;

/// The loopback interface of each network namespace.
const LOOPBACK: u32 = 1;

/// Messages.
const NEW_QUEUE: u16 = 36;
const DELETE_QUEUE: u16 = 37;
const GET_QUEUE: u16 = 38;
const NEW_CLASS: u16 = 40;
const DELETE_CLASS: u16 = 41;
const GET_LINK: u16 = 18;
const GET_ROUTE: u16 = 26;

/// The bytes of `tcmsg`, `ifinfomsg` and `rtmsg`.
const TC_BYTES: usize = 20;
const LINK_BYTES: usize = 16;
const ROUTE_BYTES: usize = 12;

/// An interface, by its index.
pub(super) type Interface = u32;

/// Why queues cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::agent) enum QueueError {
    #[error("not permitted: wants CAP_NET_ADMIN")]
    NotPermitted,
    #[error("the kernel has no HTB for limits of bandwidth: load it (modprobe sch_htb)")]
    NoHtb,
    #[error(
        "the kernel has no netem for latency, jitter and loss: load it (modprobe sch_netem; some systems have it in a package \
         like kernel-modules-extra)"
    )]
    NoNetem,
    #[error(
        "interface {interface} has a queueing discipline that somebody configured ({kind} {number:x}:), and it is not replaced: \
         remove it there (tc qdisc del dev {interface} root)"
    )]
    Foreign { interface: String, kind: String, number: u32 },
    #[error("no route to {to} is known: {error}")]
    NoRoute { to: IpAddr, error: Errno },
    #[error("the kernel does not {what}: {error}")]
    System { what: &'static str, error: Errno },
    #[error("the kernel did not answer")]
    NoAnswer,
    #[error(transparent)]
    Jitter(#[from] TooMuchJitter),
}

/// The queues of all interfaces.
#[derive(Debug)]
pub(super) struct Queues(Socket);

impl Queues {
    pub(super) fn open() -> Result<Queues, QueueError> {
        Socket::open(Part::Routes).map(Queues).map_err(|error| system("open a netlink socket")(error.into()))
    }

    /// The interface by which packets go from an address of this host to another.
    pub(super) fn on_the_way(&self, from: IpAddr, to: IpAddr) -> Result<Interface, QueueError> {
        // AF_INET and AF_INET6.
        let (family, bits) = if to.is_ipv4() { (2, 32) } else { (10, 128) };
        let mut head = vec![family, bits, bits];
        head.resize(ROUTE_BYTES, 0);
        let attributes = [attribute(1, &octets(to)), attribute(2, &octets(from))].concat();
        let found = self.0.exchange(&message(GET_ROUTE, REQUEST | ACK, &head, &attributes));
        let no_route = |error| QueueError::NoRoute { to, error };
        match found {
            // RTA_OIF.
            Ok(routes) => number_in(&routes, ROUTE_BYTES, 4).ok_or(no_route(Errno::NETUNREACH)),
            Err(NetlinkError::Refused(error)) => Err(no_route(error)),
            Err(error) => Err(system("say a route")(error)),
        }
    }

    /// An interface's name; its number where it is not to be had.
    pub(super) fn name(&self, interface: Interface) -> String {
        let mut head = vec![0; LINK_BYTES];
        head[4..8].copy_from_slice(&interface.to_ne_bytes());
        let links = self.0.exchange(&message(GET_LINK, REQUEST | ACK, &head, &[])).unwrap_or_default();
        // IFLA_IFNAME.
        let name = links.first().and_then(|link| link.attribute(LINK_BYTES, 3));
        name.map_or_else(|| interface.to_string(), words)
    }

    /// The interface with a name.
    pub(super) fn named(&self, name: &str) -> Option<Interface> {
        let question = message(GET_LINK, REQUEST | ACK, &[0; LINK_BYTES], &text(3, name));
        self.0.exchange(&question).ok()?.first()?.number(4)
    }

    /// Whether an interface's queues are ours.
    ///
    /// # Errors
    /// [`QueueError::Foreign`], where they are of somebody who configured them. The kernel's own have no number.
    pub(super) fn is_ours(&self, interface: Interface) -> Result<bool, QueueError> {
        // The kernel tells who listens for changes of queues; and who asks, if that wants an echo.
        let question = message(GET_QUEUE, REQUEST | ACK | ECHO, &place(interface, 0, ROOT_PLACE), &[]);
        let roots = match self.0.exchange(&question) {
            // An interface that queues nothing.
            Err(NetlinkError::Refused(Errno::NOENT)) => return Ok(false),
            roots => roots.map_err(system("say what queues there are"))?,
        };
        let Some(root) = roots.first() else { return Ok(false) };
        let number = root.number(8).unwrap_or(0);
        let kind = root.attribute(TC_BYTES, 1).map(words).unwrap_or_default();
        match number {
            0 => Ok(false),
            ROOT_NUMBER if kind == "htb" => Ok(true),
            _ => Err(QueueError::Foreign { interface: self.name(interface), kind, number: number >> 16 }),
        }
    }

    /// Makes an interface's root ours. The kernel does so only where nobody has configured one.
    pub(super) fn add_root(&self, interface: Interface) -> Result<(), QueueError> {
        let options = netem::root();
        let place = place(interface, ROOT_NUMBER, ROOT_PLACE);
        let added = self.0.exchange(&new(NEW_QUEUE, &place, "htb", &options));
        match added {
            Ok(_) => Ok(()),
            Err(NetlinkError::Refused(Errno::NOENT)) => Err(QueueError::NoHtb),
            Err(error @ NetlinkError::Refused(Errno::EXIST)) => {
                self.is_ours(interface)?;
                Err(system("take another root")(error))
            }
            Err(error) => Err(system("take HTB for a root")(error)),
        }
    }

    /// Removes our root from an interface, with all classes; the kernel puts its own in its place. Where ours is not, nothing is done.
    pub(super) fn remove_root(&self, interface: Interface) -> Result<(), QueueError> {
        let place = place(interface, ROOT_NUMBER, ROOT_PLACE);
        let removed = self.0.exchange(&message(DELETE_QUEUE, REQUEST | ACK, &place, &text(1, "htb")));
        match removed {
            // It is not there; another is; the interface is gone.
            Ok(_) | Err(NetlinkError::Refused(Errno::NOENT | Errno::INVAL | Errno::NODEV)) => Ok(()),
            Err(error) => Err(system("remove a root")(error)),
        }
    }

    /// Adds a class of our root of an interface.
    pub(super) fn add_class(
        &self,
        interface: Interface,
        class: u32,
        shape: &LinkShape,
    ) -> Result<(), QueueError> {
        let Leaf { kind, options } = netem::leaf(shape)?;
        let add = new(NEW_CLASS, &place(interface, class, ROOT_NUMBER), "htb", &netem::class(shape));
        self.0.exchange(&add).map_err(system("take a class"))?;
        match self.0.exchange(&new(NEW_QUEUE, &place(interface, 0, class), kind, &options)) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.remove_class(interface, class).ok();
                Err(match error {
                    NetlinkError::Refused(Errno::NOENT) if kind == "netem" => QueueError::NoNetem,
                    error => system("take a queue")(error),
                })
            }
        }
    }

    /// Removes a class; what waits in it is lost.
    pub(super) fn remove_class(&self, interface: Interface, class: u32) -> Result<(), QueueError> {
        let place = place(interface, class, ROOT_NUMBER);
        let removed = self.0.exchange(&message(DELETE_CLASS, REQUEST | ACK, &place, &[]));
        match removed {
            Ok(_) | Err(NetlinkError::Refused(Errno::NOENT | Errno::INVAL | Errno::NODEV)) => Ok(()),
            Err(error) => Err(system("remove a class")(error)),
        }
    }

    /// Whether the kernel has queues of this kind, and this process may make them. It is asked for one with options that make no sense, which
    /// it tells only if it knows the kind; so nothing changes, but it may load the kind's module.
    pub(super) fn try_kind(&self, kind: &'static str) -> Result<(), QueueError> {
        match self.0.exchange(&new(NEW_QUEUE, &place(LOOPBACK, 0, ROOT_PLACE), kind, &[])) {
            Err(NetlinkError::Refused(Errno::NOENT)) if kind == "netem" => Err(QueueError::NoNetem),
            Err(NetlinkError::Refused(Errno::NOENT)) => Err(QueueError::NoHtb),
            // That the options make no sense; or that loopback has a root, where it cannot be tried.
            Ok(_) | Err(NetlinkError::Refused(Errno::INVAL | Errno::EXIST)) => Ok(()),
            Err(error) => Err(system("say which kinds of queues it has")(error)),
        }
    }
}

fn system(what: &'static str) -> impl Fn(NetlinkError) -> QueueError {
    move |error| match error {
        NetlinkError::Refused(Errno::PERM | Errno::ACCESS) => QueueError::NotPermitted,
        NetlinkError::Refused(error) => QueueError::System { what, error },
        NetlinkError::NoAnswer => QueueError::NoAnswer,
    }
}

/// `tcmsg`: an interface, a queue's or class's number there, and what it is in.
fn place(interface: Interface, number: u32, parent: u32) -> Vec<u8> {
    [0, interface, number, parent, 0].map(u32::to_ne_bytes).concat()
}

/// Makes a queue or class that is not there.
fn new(what: u16, place: &[u8], kind: &str, options: &[u8]) -> Vec<u8> {
    let attributes = [text(1, kind), attribute(2, options)].concat();
    message(what, REQUEST | ACK | CREATE | EXCLUSIVE, place, &attributes)
}

fn number_in(answers: &[Answer], from: usize, wanted: u16) -> Option<u32> {
    let value = answers.first()?.attribute(from, wanted)?;
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn words(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
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
    fn this_host_is_reached_by_loopback_and_nothing_is_configured_by_asking() {
        let queues = Queues::open().unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        let interface = queues.on_the_way(here, here).unwrap();
        assert_eq!((interface, queues.name(interface)), (LOOPBACK, "lo".to_owned()));
        assert_eq!(queues.named("lo"), Some(LOOPBACK));
        assert_eq!(queues.named("nothing0"), None);
        for kind in ["htb", "netem", "nothing"] {
            queues.try_kind(kind).ok();
        }
        assert_eq!(queues.is_ours(LOOPBACK), Ok(false));
    }

    #[test]
    fn what_the_kernel_lacks_is_said_with_what_to_do() {
        assert!(QueueError::NoNetem.to_string().contains("modprobe sch_netem"));
        assert!(QueueError::NoHtb.to_string().contains("modprobe sch_htb"));
        let error = system("x")(NetlinkError::Refused(Errno::PERM));
        assert_eq!(error, QueueError::NotPermitted);
    }
}
