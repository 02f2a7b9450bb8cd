//! Networks with a key, over loopback sockets: members form a ring; strangers neither join nor read, and gain nothing from what they
//! record or change on the way.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod sockets;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use p2ps::access_point::AccessPoint;
use p2ps::com::channel::ChannelError;
use p2ps::com::handshake::{HandshakeError, KeyMismatch};
use p2ps::com::key::NetworkKey;
use p2ps::id::Id;
use p2ps::node::{Events, Messages, Node, NodeConfig, NodeError, NodeEvent};
use sockets::{config, net, run, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &[u8] = b"what only members may read";

const IDS: [u64; 6] = [1, 40_000, 16, 60_000, 900, 28_000];

type Member = (Node, Messages, Events);

fn at(id: u64, key: Option<&NetworkKey>) -> NodeConfig {
    NodeConfig { id: Some(Id(id)), network_key: key.cloned(), ..config() }
}

async fn refusal(events: &mut Events) -> HandshakeError {
    loop {
        if let NodeEvent::Refused { error, .. } = events.next().await.expect("the node runs") {
            return error;
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A man in the middle: passes on what is said to a node and by it, remembers it, and changes it if he wants to.
struct Middle {
    access_point: AccessPoint,
    target: OnceLock<SocketAddr>,
    /// What was said to the node, and by it, over each connection.
    heard: Mutex<Vec<[Vec<u8>; 2]>>,
    changes: AtomicBool,
}

impl Middle {
    async fn start() -> Arc<Middle> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let middle = Arc::new(Middle {
            access_point: listener.local_addr().unwrap().into(),
            target: OnceLock::new(),
            heard: Mutex::default(),
            changes: AtomicBool::new(false),
        });
        tokio::spawn(middle.clone().listen(listener));
        middle
    }

    async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (one, _) = listener.accept().await.unwrap();
            let other = TcpStream::connect(self.target.get().unwrap()).await.unwrap();
            let number = {
                let mut heard = self.heard.lock().unwrap();
                heard.push([Vec::new(), Vec::new()]);
                heard.len() - 1
            };
            let (one, other) = (one.into_split(), other.into_split());
            tokio::spawn(self.clone().pass(number, 0, one.0, other.1));
            tokio::spawn(self.clone().pass(number, 1, other.0, one.1));
        }
    }

    async fn pass(
        self: Arc<Self>,
        number: usize,
        way: usize,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
    ) {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let chunk = &mut chunk[..length];
            self.heard.lock().unwrap()[number][way].extend_from_slice(chunk);
            if self.changes.swap(false, Ordering::Relaxed) {
                chunk[length / 2] ^= 1;
            }
            if to.write_all(chunk).await.is_err() {
                return;
            }
        }
    }

    fn all_heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().concat().concat()
    }
}

/// A ring of [`IDS`]; the first node is reached through a man in the middle.
async fn ring(key: Option<&NetworkKey>) -> (Vec<Member>, Arc<Middle>) {
    let middle = Middle::start().await;
    let advertise = Some(middle.access_point);
    let first = Node::create_net(net(), NodeConfig { advertise, ..at(IDS[0], key) }).await.unwrap();
    middle.target.set(first.0.node_config().listen).unwrap();
    let by = [first.0.access_point()];
    let mut members = vec![first];
    for id in &IDS[1..] {
        members.push(Node::join_net(&by, at(*id, key), None).await.unwrap());
    }
    until("the ring forms", || is_ring(&members)).await;
    (members, middle)
}

fn is_ring(members: &[Member]) -> bool {
    let mut ids = IDS;
    ids.sort_unstable();
    members.iter().all(|(node, ..)| {
        let place = ids.iter().position(|id| Id(*id) == node.id()).unwrap();
        let successors: Vec<Id> = node.successors().iter().map(|contact| contact.id).collect();
        let wanted: Vec<Id> = (1..=4).map(|offset| Id(ids[(place + offset) % ids.len()])).collect();
        successors == wanted
    })
}

async fn look_ups_are_right(members: &[Member]) {
    for (node, ..) in members {
        for id in IDS {
            assert_eq!(node.lookup(Id(id)).await.unwrap().responsible.id, Id(id), "from {}", node.id());
        }
    }
}

#[test]
fn members_form_a_ring_and_who_listens_on_the_way_reads_nothing() {
    for key in [None, Some(NetworkKey::random().unwrap())] {
        run(async {
            let (mut members, middle) = ring(key.as_ref()).await;
            look_ups_are_right(&members).await;
            let large = SECRET.repeat(p2ps::message::PAYLOAD_BYTES_MAX / SECRET.len());
            members[1].0.send(Id(IDS[0]), large.clone()).unwrap();
            let message = members[0].1.next().await.unwrap();
            assert!(message.source == Id(IDS[1]) && message.payload == large);
            let heard = middle.all_heard();
            assert!(heard.len() > large.len(), "all of it came this way");
            assert_eq!(contains(&heard, SECRET), key.is_none());
            // An access point in a message: the loopback's address, as postcard writes it behind its tag.
            assert_eq!(contains(&heard, b"\0\x7f\0\0\x01"), key.is_none());
        });
    }
}

#[test]
fn a_stranger_cannot_join_and_all_are_told_why() {
    use KeyMismatch::{Differ, OnlyOurs, OnlyTheirs};
    let keys = [NetworkKey::random().unwrap(), NetworkKey::random().unwrap()];
    let [a, b] = [Some(&keys[0]), Some(&keys[1])];
    for (members_key, strangers_key, members_told, stranger_told) in
        [(a, None, OnlyOurs, OnlyTheirs), (a, b, Differ, Differ), (None, a, OnlyTheirs, OnlyOurs)]
    {
        run(async {
            let (mut members, _middle) = ring(members_key).await;
            let (first, _, events) = &mut members[0];
            for settings in [None, Some(net())] {
                let joined = Node::join_net(&[first.access_point()], at(7, strangers_key), settings).await;
                let error = joined.expect_err("a stranger");
                let NodeError::Refused { source: HandshakeError::OtherKey(told), .. } = error else {
                    panic!("{error}");
                };
                assert_eq!(told, stranger_told);
                let error = refusal(events).await;
                assert!(matches!(error, HandshakeError::OtherKey(told) if told == members_told), "{error}");
            }
            assert!(is_ring(&members));
            look_ups_are_right(&members).await;
        });
    }
}

#[test]
fn what_was_recorded_is_of_no_use_when_it_is_said_again() {
    run(async {
        let key = NetworkKey::random().unwrap();
        let (mut members, middle) = ring(Some(&key)).await;
        members[1].0.send(Id(IDS[0]), SECRET).unwrap();
        assert_eq!(members[0].1.next().await.unwrap().payload, SECRET);
        let recorded: Vec<[Vec<u8>; 2]> = middle.heard.lock().unwrap().clone();
        assert!(recorded.len() >= 2);
        for [to_node, by_node] in &recorded {
            let mut stream = TcpStream::connect(middle.target.get().unwrap()).await.unwrap();
            // The node may hang up at any time.
            let _ = stream.write_all(to_node).await;
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said).await;
            assert!(
                said.len() < by_node.len() && said != by_node[..said.len()],
                "an opening at most, and a new one"
            );
            let error = refusal(&mut members[0].2).await;
            assert!(matches!(error, HandshakeError::Channel(ChannelError::Altered)), "{error}");
        }
        members[2].0.send(Id(IDS[0]), "the next message").unwrap();
        let next = members[0].1.next().await.unwrap();
        assert_eq!(&next.payload[..], b"the next message", "nothing came twice");
        assert!(is_ring(&members));
        look_ups_are_right(&members).await;
    });
}

#[test]
fn who_changes_a_bit_on_the_way_breaks_a_link_and_no_more() {
    run(async {
        let key = NetworkKey::random().unwrap();
        let (mut members, middle) = ring(Some(&key)).await;
        middle.changes.store(true, Ordering::Relaxed);
        // Best effort: the message that is changed is lost with its link.
        let mut sent = 0;
        while middle.changes.load(Ordering::Relaxed) {
            members[1].0.send(Id(IDS[0]), format!("message {sent}")).unwrap();
            sent += 1;
            tokio::task::yield_now().await;
        }
        until("the ring is whole", || is_ring(&members)).await;
        look_ups_are_right(&members).await;
        members[1].0.send(Id(IDS[0]), "the last").unwrap();
        loop {
            let message = members[0].1.next().await.unwrap();
            if &message.payload[..] == b"the last" {
                break;
            }
            let text = std::str::from_utf8(&message.payload).unwrap();
            assert!(
                text.strip_prefix("message ").is_some_and(|number| number.parse::<u32>().unwrap() < sent)
            );
        }
        let is_broken = |event: &NodeEvent| matches!(event, NodeEvent::LinkClosed { orderly: false, .. });
        while !members[0].2.next().await.as_ref().is_some_and(is_broken) {}
    });
}
