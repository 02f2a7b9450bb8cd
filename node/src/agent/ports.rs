//! A port for each node, known before any node runs and kept for it.
//!
//! Ports are taken outside of the range from which the system gives ports to outgoing links, so that no link can sit on
//! the port of a node that is down; but where the orchestrator names a range, that is taken. Until its node runs, a port is
//! held by a socket that is bound and does not listen: whoever connects is refused, as by a dead node.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::protocol::PortRange;

/// Ports below are left to others.
const PORT_MIN: u16 = 10_000;

/// The most calls that wait where [`Reservation::listen`] listens.
const BACKLOG_MAX: i32 = 256;

/// A port that is kept for a node.
#[derive(Debug)]
pub(super) struct Reservation {
    address: SocketAddr,
    holder: Option<OwnedFd>,
}

impl Reservation {
    /// Where the node is, or will be, reached.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets go of the port: its node is about to listen on it.
    pub(super) fn release(&mut self) {
        self.holder = None;
    }

    /// Listens on the port, in place of a node.
    pub(super) fn listen(self) -> io::Result<std::net::TcpListener> {
        let socket = self.holder.ok_or(io::ErrorKind::NotConnected)?;
        listen(&socket, BACKLOG_MAX)?;
        Ok(socket.into())
    }

    /// Holds the port again, after its node's end. Best effort: links of the dead node may still be closing.
    pub(super) fn hold(&mut self) {
        if self.holder.is_none() {
            self.holder = hold(self.address, true).ok();
        }
    }
}

/// Reserves `count` different ports on `ip`, within `range` if one is named.
///
/// # Errors
/// Where the address is not one of this host's, or there are not enough free ports.
pub(super) fn reserve(ip: IpAddr, range: Option<PortRange>, count: usize) -> io::Result<Vec<Reservation>> {
    let candidates = match range {
        Some(range) => (range.low()..=range.high()).collect(),
        None => {
            candidates(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default())
        }
    };
    let start = random_start(candidates.len());
    let mut reservations = Vec::with_capacity(count);
    for port in candidates[start..].iter().chain(&candidates[..start]) {
        if reservations.len() == count {
            break;
        }
        let address = SocketAddr::new(ip, *port);
        // Without SO_REUSEADDR the hold is exclusive: two agents on one host never hold the same port.
        match hold(address, false) {
            Ok(holder) => reservations.push(Reservation { address, holder: Some(holder) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    if reservations.len() < count {
        let within = range.map_or(String::new(), |range| format!(" within {range}"));
        let text = format!("only {} of {count} ports are free on {ip}{within}", reservations.len());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    Ok(reservations)
}

/// The ports that nodes may have, given the system's range for outgoing links (`32768 60999`).
fn candidates(ephemeral: &str) -> Vec<u16> {
    let mut bounds = ephemeral.split_whitespace().map_while(|bound| bound.parse::<u16>().ok());
    let (low, high) = match (bounds.next(), bounds.next()) {
        (Some(low), Some(high)) if low <= high => (low, high),
        _ => (32_768, 60_999),
    };
    let outside: Vec<u16> = (PORT_MIN..=u16::MAX).filter(|port| !(low..=high).contains(port)).collect();
    // A host that gives away all ports leaves no choice: nodes then live with the risk.
    if outside.is_empty() { (PORT_MIN..=u16::MAX).collect() } else { outside }
}

fn random_start(length: usize) -> usize {
    let noise = super::clock::monotonic_us() ^ u64::from(std::process::id()).rotate_left(20);
    (noise.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16) as usize % length
}

fn hold(address: SocketAddr, reuse: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    // A process that was just started has a copy of this socket until it has become what it is to be, which may take it longer than
    // this node takes to listen. With this, the node can; who asks for the port without it, as another agent does, still cannot.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    #[test]
    fn ports_lie_outside_of_the_ephemeral_range() {
        let ports = candidates("32768\t60999\n");
        assert_eq!((ports[0], ports[ports.len() - 1]), (10_000, 65_535));
        assert!(!ports.contains(&32_768) && !ports.contains(&60_999) && ports.contains(&61_000));
        assert_eq!(candidates("1024 65535").len(), 55_536, "no choice is left: all of them");
        assert_eq!(candidates("nonsense"), ports);
    }

    #[test]
    fn a_range_that_is_named_is_kept_to() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        // Whoever else is there: a range is found that has room.
        let (range, taken) = (2_000..60_000)
            .step_by(10)
            .find_map(|low| {
                let range = PortRange::new(low, low + 9)?;
                Some((range, reserve(ip, Some(range), 10).ok()?))
            })
            .unwrap();
        let ports: HashSet<u16> = taken.iter().map(|reservation| reservation.address().port()).collect();
        assert_eq!(ports, (range.low()..=range.high()).collect());
        let error = reserve(ip, Some(range), 1).unwrap_err().to_string();
        assert!(
            error.contains(&format!("only 0 of 1 ports are free on 127.0.0.1 within {range}")),
            "{error}"
        );
    }

    #[test]
    fn reservations_exclude_each_other_refuse_links_and_can_be_listened_on() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut first = reserve(ip, None, 200).unwrap();
        let second = reserve(ip, None, 200).unwrap();
        let distinct: HashSet<SocketAddr> = first.iter().chain(&second).map(Reservation::address).collect();
        assert_eq!(distinct.len(), 400);
        let reservation = &mut first[0];
        assert!(TcpStream::connect(reservation.address()).is_err());
        reservation.release();
        let listener = TcpListener::bind(reservation.address()).unwrap();
        drop(listener);
        reservation.hold();
        assert!(reservation.holder.is_some());
    }

    #[test]
    fn a_node_can_listen_while_another_process_still_has_the_holder() {
        let mut reservation = reserve(IpAddr::V4(Ipv4Addr::LOCALHOST), None, 1).unwrap().remove(0);
        let inherited = reservation.holder.as_ref().unwrap().try_clone().unwrap();
        reservation.release();
        TcpListener::bind(reservation.address()).unwrap();
        drop(inherited);
    }
}
