//! A node that is dropped with its `LocalSet` is to the others what a process is that was killed; one that is not polled, what a
//! stopped process is.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::Managed;
use p2ps::access_point::AccessPoint;
use p2ps::com::handshake::{Hello, offer};
use p2ps::config::NetConfig;
use p2ps::id::Id;
use p2ps::message::Contact;
use p2ps::node::{IdleNode, Node, NodeConfig};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node that can be stopped and killed.
trait Victim {
    fn access_point(&self) -> AccessPoint;

    /// Runs what needs the node to run.
    fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T;

    /// From now on it stands still.
    fn stop(&self);

    fn kill(self);
}

impl Victim for Managed {
    fn access_point(&self) -> AccessPoint {
        self.access_point
    }

    fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        runtime().block_on(work)
    }

    fn stop(&self) {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), Signal::STOP).unwrap();
    }

    fn kill(mut self) {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), Signal::KILL).unwrap();
        self.exit();
    }
}

struct Local {
    tasks: LocalSet,
    runtime: Runtime,
    node: Node,
}

impl Local {
    fn new() -> Local {
        let (runtime, tasks) = (runtime(), LocalSet::new());
        let config = NodeConfig { id: Some(Id(1)), ..NodeConfig::default() };
        let (node, ..) = tasks
            .block_on(&runtime, async { IdleNode::new_local(NetConfig::default(), &config)?.create().await })
            .unwrap();
        Local { tasks, runtime, node }
    }
}

impl Victim for Local {
    fn access_point(&self) -> AccessPoint {
        self.node.access_point()
    }

    fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(self.tasks.run_until(work))
    }

    fn stop(&self) {
        // It runs only `meanwhile`.
    }

    fn kill(self) {
        drop(self.tasks);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A link to the node, whose other end is this test.
fn link(to: &impl Victim) -> TcpStream {
    let address = SocketAddr::from(to.access_point());
    let me = Contact { id: Id(7), access_point: "p2ps://127.0.0.1:1".parse().unwrap(), incarnation: 1 };
    let hello = Hello::Link { net: NetConfig::default(), contact: me, expected: None };
    let stream = to.meanwhile(async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        offer(&mut stream, None, &hello, &[]).await.unwrap();
        stream.into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// How a link ends: in order, or with an error.
fn end(mut link: TcpStream) -> Result<(), ErrorKind> {
    let mut rest = Vec::new();
    link.read_to_end(&mut rest).map(drop).map_err(|error| error.kind())
}

/// How the links of a node end that is killed: one on which it has read all, and one on which it has not.
fn ends(victim: impl Victim) -> [Result<(), ErrorKind>; 2] {
    let (idle, mut busy) = (link(&victim), link(&victim));
    victim.stop();
    busy.write_all(&[0; 2]).unwrap();
    let address = SocketAddr::from(victim.access_point());
    let waiting = TcpStream::connect(address).expect("a node that stands still has its port");
    victim.kill();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "nobody listens any more");
    // Whom nobody had accepted yet is reset, whatever it has sent.
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(end(waiting), Err(ErrorKind::ConnectionReset));
    [end(idle), end(busy)]
}

#[test]
fn the_links_of_a_dropped_node_end_as_those_of_a_killed_process() {
    let expected = [Ok(()), Err(ErrorKind::ConnectionReset)];
    assert_eq!(ends(Managed::spawn(1, &[])), expected, "of a process");
    assert_eq!(ends(Local::new()), expected, "of a node in a LocalSet");
}

#[test]
fn a_node_that_is_not_polled_does_nothing_and_goes_on_where_it_was() {
    let local = Local::new();
    let mut silent = link(&local);
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // A farewell: it answers with its own, and closes, once it runs.
    silent.write_all(&p2ps::wire::FAREWELL).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(local.node.snapshot().links_in, 1);
    local.meanwhile(async {
        while local.node.snapshot().links_in > 0 {
            tokio::task::yield_now().await;
        }
    });
}
