//! Rubbish thrown at a node's port: it stays up, its memory stays flat, its neighbours notice nothing. Where the network has
//! a key: by strangers, by who repeats or changes what was said, and by a member that has the key and seals rubbish.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Managed, PATIENCE};
use p2ps::access_point::AccessPoint;
use p2ps::com::channel::{Dialling, RECORD_BYTES_MAX, Sealer};
use p2ps::com::handshake::{Hello, offer};
use p2ps::com::key::NetworkKey;
use p2ps::config::{NetConfig, PROTOCOL_VERSION};
use p2ps::control::Outcome;
use p2ps::id::Id;
use p2ps::message::{Body, Contact, Message, Route};
use p2ps::wire;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const FRAMES: usize = 10_000;
const FRAMES_PER_CONNECTION: usize = 20;

/// How many connections carry records that are wrong, before and after the memory is measured.
const CONNECTIONS_OF_RECORDS: usize = 100;

/// How much the node's memory may grow over the second half of the attack, in KiB: noise of the allocator and the counters.
const GROWTH_KIB_MAX: u64 = 1024;

struct Attacker {
    target: SocketAddr,
    random: StdRng,
    /// The network's key, where it has one.
    key: Option<NetworkKey>,
    runtime: tokio::runtime::Runtime,
}

/// A connection, and what seals on it, where that has been agreed on.
struct Wire {
    stream: TcpStream,
    sealer: Option<Sealer>,
}

impl Wire {
    /// Says what a frame holds, sealed where that is wanted here.
    fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(sealer) = &mut self.sealer else { return self.stream.write_all(bytes) };
        let mut sealed = Vec::new();
        sealer.seal_all(bytes, &mut sealed).unwrap();
        self.stream.write_all(&sealed)
    }
}

impl Attacker {
    /// A stranger's connection. The node may close it at any time, so no write need succeed.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.target).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn plain(&self) -> Wire {
        Wire { stream: self.connect(), sealer: None }
    }

    /// A connection that has shaken hands as an honest node would.
    fn link(&mut self) -> Wire {
        let hello = self.hello();
        let stream = self.connect();
        stream.set_nonblocking(true).unwrap();
        let (stream, channel) = self.runtime.block_on(async {
            let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let offered = offer(&mut stream, self.key.as_ref(), &hello, &[]).await;
            (stream.into_std().unwrap(), offered.ok().and_then(|(_, channel)| channel))
        });
        stream.set_nonblocking(false).unwrap();
        Wire { stream, sealer: channel.map(|channel| channel.sealer) }
    }

    fn hello(&mut self) -> Hello {
        Hello::Link { net: NetConfig::default(), contact: self.stranger(), expected: None }
    }

    /// The first frame of an honest node; of one with the key, an opening.
    fn first_frame(&mut self, version: u16) -> Vec<u8> {
        let mut body = b"P2PS".to_vec();
        body.extend_from_slice(&version.to_le_bytes());
        let hello = match &self.key {
            Some(key) => Hello::Open(Dialling::begin(key, &body).unwrap().1),
            None => self.hello(),
        };
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
        let body = Body::Data { exact: true, payload: vec![1, 2, 3].into() };
        let route = Route { hops: 1, hop: 1, ..Route::new(self.stranger(), 1, 0, Id(7), body) };
        let mut frame = Vec::new();
        wire::encode(&Message::Route(route), &mut frame).unwrap();
        let place = self.random.random_range(wire::PREFIX_BYTES + 1..frame.len());
        frame[place] = self.random.random();
        frame
    }

    /// Frames of rubbish, with and without a handshake before them.
    fn throw_frames(&mut self, frames: usize) {
        for connection in 0..frames / FRAMES_PER_CONNECTION {
            let mut wire = if connection % 2 == 0 { self.plain() } else { self.link() };
            for _ in 0..FRAMES_PER_CONNECTION {
                if wire.say(&self.bad_frame()).is_err() {
                    wire = self.link();
                }
            }
        }
    }

    /// Handshakes of other versions, cut off, or never begun. With a key, whole ones too: what follows is missing.
    fn throw_handshakes(&mut self, count: usize) -> Vec<TcpStream> {
        let mut open = Vec::new();
        for attempt in 0..count {
            let mut stream = self.connect();
            let other = self.random.random_range(PROTOCOL_VERSION + 1..u16::MAX);
            let version = if attempt % 3 == 0 { other } else { PROTOCOL_VERSION };
            let frame = self.first_frame(version);
            let whole = attempt % 3 == 0 || (self.key.is_some() && attempt % 3 == 1);
            let length = if whole { frame.len() } else { attempt % frame.len() };
            let _ = stream.write_all(&frame[..length]);
            open.push(stream);
        }
        open
    }

    /// Records that are wrong, behind a handshake that was right; and one opening again and again, with rubbish behind it.
    fn throw_records(&mut self, count: usize) {
        let opening = self.first_frame(PROTOCOL_VERSION);
        for _ in 0..count {
            let mut wire = self.link();
            let Some(sealer) = &mut wire.sealer else { continue };
            let mut record = Vec::new();
            sealer.seal_all(b"\x05\0\0\0hello", &mut record).unwrap();
            let bytes = match self.random.random_range(0..5) {
                0 => self.bytes(600),
                1 => [&record[..], &record].concat(),
                2 => {
                    let place = self.random.random_range(0..record.len());
                    record[place] ^= 1 << self.random.random_range(0..8);
                    // Where its length was changed, this is the rest of it.
                    [record, self.bytes(RECORD_BYTES_MAX)].concat()
                }
                3 => record[..record.len() - 1].to_vec(),
                _ => [&u16::MAX.to_le_bytes()[..], &self.bytes(60_000)].concat(),
            };
            let _ = wire.stream.write_all(&bytes);
            let mut replay = self.plain();
            let _ = replay.stream.write_all(&[&opening[..], &bytes].concat());
            // An answer may come, or not; nothing that it could be used for does.
            let mut heard = Vec::new();
            let _ = replay.stream.shutdown(std::net::Shutdown::Write);
            let _ = replay.stream.read_to_end(&mut heard);
            assert!(heard.len() <= opening.len(), "{} bytes for a replay", heard.len());
        }
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn rubbish_at_a_nodes_port_changes_nothing() {
    throw_rubbish(None);
}

#[test]
fn rubbish_at_the_port_of_a_node_with_a_key_changes_nothing() {
    throw_rubbish(Some(NetworkKey::random().unwrap()));
}

fn throw_rubbish(key: Option<NetworkKey>) {
    let ids = [1_u64, 1 << 30, 1 << 31, 3 << 30];
    let mut nodes = vec![Managed::spawn_with(key.as_ref(), ids[0], &[])];
    for id in &ids[1..] {
        let by = [nodes[0].access_point];
        nodes.push(Managed::spawn_with(key.as_ref(), *id, &by));
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut attacker = Attacker { target, random: StdRng::seed_from_u64(7), key: key.clone(), runtime };
    attacker.throw_frames(FRAMES / 2);
    attacker.throw_records(if key.is_some() { CONNECTIONS_OF_RECORDS } else { 0 });
    let open = attacker.throw_handshakes(300);
    drop(open);
    let half_way_kib = resident_kib(nodes[attacked].pid());
    attacker.throw_frames(FRAMES / 2);
    attacker.throw_records(if key.is_some() { CONNECTIONS_OF_RECORDS } else { 0 });
    let open = attacker.throw_handshakes(300);
    look_ups_work(&mut nodes);
    assert_eq!(changes(&mut nodes), before, "(successor, predecessor, finger) changes of each node");
    let end_kib = resident_kib(nodes[attacked].pid());
    assert!(end_kib <= half_way_kib + GROWTH_KIB_MAX, "from {half_way_kib} to {end_kib} KiB");
    // Half-open handshakes still hold all places, and an honest node gets in.
    drop(Managed::spawn_with(key.as_ref(), 77, &[nodes[attacked].access_point]));
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
