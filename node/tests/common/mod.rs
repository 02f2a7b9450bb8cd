//! Managed nodes as processes.
#![allow(unreachable_pub, dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use p2ps::access_point::AccessPoint;
use p2ps::com::key::NetworkKey;
use p2ps::config::NetConfig;
use p2ps::control::{OperationReport, Order, Report, Setup};
use p2ps::driver::clock;
use p2ps::id::Id;
use p2ps::metrics::Snapshot;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node's process; killed when this is dropped.
pub struct Managed {
    child: Child,
    stdin: Option<ChildStdin>,
    reports: Receiver<Report>,
    pub access_point: AccessPoint,
    pub metrics: Option<std::net::SocketAddr>,
}

impl Managed {
    pub fn spawn(id: u64, join: &[AccessPoint]) -> Managed {
        Managed::spawn_with(None, id, join)
    }

    /// A node whose network has a key.
    pub fn spawn_with(key: Option<&NetworkKey>, id: u64, join: &[AccessPoint]) -> Managed {
        let mut node = Managed::spawn_unjoined_with(key, id, join);
        node.wait("joined", |report| matches!(report, Report::Joined { .. }).then_some(()));
        node
    }

    pub fn spawn_unjoined(id: u64, join: &[AccessPoint]) -> Managed {
        Managed::spawn_unjoined_with(None, id, join)
    }

    pub fn spawn_unjoined_with(key: Option<&NetworkKey>, id: u64, join: &[AccessPoint]) -> Managed {
        let setup = Setup {
            net: NetConfig::default(),
            id: Id(id),
            listen: ([127, 0, 0, 1], 0).into(),
            join: join.to_vec(),
            seed: id,
            metrics: Some(([127, 0, 0, 1], 0).into()),
            shapes: Vec::new(),
            network_key: key.cloned(),
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_p2ps-node"))
            .args(["run", "--managed"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let report = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        let access_point = AccessPoint::from(setup.listen);
        let mut node = Managed { child, stdin, reports, access_point, metrics: None };
        node.line(&serde_json::to_string(&setup).unwrap());
        (node.access_point, node.metrics) = node.wait("listening", |report| match report {
            Report::Listening { access_point, metrics } => Some((access_point, metrics)),
            _ => None,
        });
        node
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    pub fn order(&mut self, order: &Order) {
        self.line(&serde_json::to_string(order).unwrap());
    }

    /// Ends its input.
    pub fn cut(&mut self) {
        self.stdin = None;
    }

    /// The first report to come that is wanted.
    pub fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(Report) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let report = self.reports.recv_timeout(left);
            let report = report.unwrap_or_else(|error| panic!("{what}: {error}"));
            if let Some(found) = wanted(report) {
                return found;
            }
        }
    }

    pub fn sample(&mut self) -> Snapshot {
        self.order(&Order::Sample);
        self.wait("a sample", |report| match report {
            Report::Sample(snapshot) => Some(*snapshot),
            _ => None,
        })
    }

    pub fn lookup(&mut self, operation: u64, key: Id) -> OperationReport {
        self.order(&Order::Lookup { operation, key, intended_us: clock::now().as_micros() });
        self.wait("a look-up's end", |report| match report {
            Report::Operation(report) if report.operation == operation => Some(report),
            _ => None,
        })
    }

    /// Waits for the process to end.
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
