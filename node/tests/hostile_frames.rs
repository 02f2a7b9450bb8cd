//! Rubbish thrown at a node's port: it stays up, its memory stays flat, its neighbours notice nothing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Managed, PATIENCE};
use p2ps::access_point::AccessPoint;
use p2ps::com::handshake::Hello;
use p2ps::config::{NetConfig, PROTOCOL_VERSION};
use p2ps::control::Outcome;
use p2ps::id::Id;
use p2ps::message::{Body, Contact, Message, Route};
use p2ps::wire;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const FRAMES: usize = 10_000;
const FRAMES_PER_CONNECTION: usize = 20;

/// How much the node's memory may grow over the second half of the attack, in KiB: noise of the allocator and the counters.
const GROWTH_KIB_MAX: u64 = 1024;

struct Attacker {
    target: SocketAddr,
    random: StdRng,
}

impl Attacker {
    /// A stranger's connection. The node may close it at any time, so no write need succeed.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.target).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection that has shaken hands as an honest node would.
    fn link(&mut self) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&self.hello(PROTOCOL_VERSION)).unwrap();
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).unwrap();
        stream.read_exact(&mut vec![0; u32::from_le_bytes(prefix) as usize]).unwrap();
        stream
    }

    fn hello(&mut self, version: u16) -> Vec<u8> {
        let contact = self.stranger();
        let hello = Hello::Link { net: NetConfig::default(), contact, expected: None };
        let mut body = b"P2PS".to_vec();
        body.extend_from_slice(&version.to_le_bytes());
        body.extend_from_slice(&postcard::to_allocvec(&hello).unwrap());
        [&(body.len() as u32).to_le_bytes()[..], &body].concat()
    }

    fn stranger(&mut self) -> Contact {
        // Nobody listens there: the discard port of the loopback.
        let access_point: AccessPoint = "p2ps://127.0.0.1:9".parse().unwrap();
        Contact { id: Id(self.random.random_range(0..1 << 32)), access_point, incarnation: 1 }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    /// One frame that is wrong in one of several ways.
    fn bad_frame(&mut self) -> Vec<u8> {
        let length = self.random.random_range(8..600);
        let body = self.bytes(length);
        match self.random.random_range(0..5) {
            0 => body,
            1 => [&(length as u32).to_le_bytes()[..], &body].concat(),
            2 => [&(length as u32 + 50).to_le_bytes()[..], &body].concat(),
            3 => [
                &self.random.random_range(wire::FRAME_BYTES_MAX as u32 + 1..=u32::MAX).to_le_bytes()[..],
                &body,
            ]
            .concat(),
            _ => self.bent_message(),
        }
    }

    /// A message as an honest node would send it, but for one byte.
    fn bent_message(&mut self) -> Vec<u8> {
        let route = Route {
            source: self.stranger(),
            sequence: 1,
            key: Id(7),
            hops: 1,
            backward: 0,
            hop: 1,
            entry: None,
            body: Body::Data { exact: true, payload: vec![1, 2, 3].into() },
        };
        let mut frame = Vec::new();
        wire::encode(&Message::Route(route), &mut frame).unwrap();
        let place = self.random.random_range(wire::PREFIX_BYTES + 1..frame.len());
        frame[place] = self.random.random();
        frame
    }

    /// Frames of rubbish, with and without a handshake before them.
    fn throw_frames(&mut self, frames: usize) {
        for connection in 0..frames / FRAMES_PER_CONNECTION {
            let mut stream = if connection % 2 == 0 { self.connect() } else { self.link() };
            for _ in 0..FRAMES_PER_CONNECTION {
                if stream.write_all(&self.bad_frame()).is_err() {
                    stream = self.link();
                }
            }
        }
    }

    /// Handshakes of other versions, cut off, or never begun.
    fn throw_handshakes(&mut self, count: usize) -> Vec<TcpStream> {
        let mut open = Vec::new();
        for attempt in 0..count {
            let mut stream = self.connect();
            let version = self.random.random_range(PROTOCOL_VERSION + 1..u16::MAX);
            let hello = self.hello(if attempt % 3 == 0 { version } else { PROTOCOL_VERSION });
            let length = if attempt % 3 == 0 { hello.len() } else { attempt % hello.len() };
            let _ = stream.write_all(&hello[..length]);
            open.push(stream);
        }
        open
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn rubbish_at_a_nodes_port_changes_nothing() {
    let ids = [1_u64, 1 << 30, 1 << 31, 3 << 30];
    let mut nodes = vec![Managed::spawn(ids[0], &[])];
    for id in &ids[1..] {
        let by = [nodes[0].access_point];
        nodes.push(Managed::spawn(*id, &by));
    }
    let look_ups_work = |nodes: &mut Vec<Managed>| {
        for (place, node) in nodes.iter_mut().enumerate() {
            for (operation, id) in ids.into_iter().enumerate() {
                let outcome = node.lookup((place * 10 + operation) as u64, Id(id)).outcome;
                let right = matches!(outcome, Outcome::Found { responsible, .. } if responsible == Id(id));
                assert!(right, "node {}: {id}: {outcome:?}", ids[place]);
            }
        }
    };
    settle(&mut nodes);
    look_ups_work(&mut nodes);
    // Frames that are in order are believed, as far as the node that is attacked itself goes: its fingers may change.
    let attacked = 1;
    let changes = |nodes: &mut Vec<Managed>| -> Vec<(u64, u64, u64)> {
        let changes = |(place, node): (usize, &mut Managed)| {
            let sample = node.sample();
            let finger_changes = if place == attacked { 0 } else { sample.finger_changes };
            (sample.successor_changes, sample.predecessor_changes, finger_changes)
        };
        nodes.iter_mut().enumerate().map(changes).collect()
    };
    let before = changes(&mut nodes);

    let target = SocketAddr::from(nodes[attacked].access_point);
    let mut attacker = Attacker { target, random: StdRng::seed_from_u64(7) };
    attacker.throw_frames(FRAMES / 2);
    let open = attacker.throw_handshakes(300);
    drop(open);
    let half_way_kib = resident_kib(nodes[attacked].pid());
    attacker.throw_frames(FRAMES / 2);
    let open = attacker.throw_handshakes(300);
    look_ups_work(&mut nodes);
    assert_eq!(changes(&mut nodes), before, "(successor, predecessor, finger) changes of each node");
    let end_kib = resident_kib(nodes[attacked].pid());
    assert!(end_kib <= half_way_kib + GROWTH_KIB_MAX, "from {half_way_kib} to {end_kib} KiB");
    // Half-open handshakes still hold all places, and an honest node gets in.
    drop(Managed::spawn(77, &[nodes[attacked].access_point]));
    drop(open);
}

/// Waits until every node has the three others as successors.
fn settle(nodes: &mut [Managed]) {
    let deadline = Instant::now() + PATIENCE;
    while !nodes.iter_mut().all(|node| node.sample().successors == 3) {
        assert!(Instant::now() < deadline, "the ring does not form");
        std::thread::sleep(Duration::from_millis(10));
    }
}
