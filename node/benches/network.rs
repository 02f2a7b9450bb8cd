//! What a node costs and how fast it answers, on real processes over loopback: `make bench`.
//!
//! - how long until many nodes listen, and until they have joined;
//! - an idle node's memory (PSS) and processor time in a network of 100;
//! - look-ups a second from one node of that network, with 1 and 64 in flight, and the processor time of each over all nodes.
//!
//! Figures of one machine are for comparison side by side in one run, never across machines.

#![allow(clippy::print_stdout, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use p2ps::access_point::AccessPoint;
use p2ps::config::NetConfig;
use p2ps::control::{Order, Report, Setup};
use p2ps::id::Id;
use p2ps::metrics::Snapshot;
use p2ps::node::{Node, NodeConfig};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// Nodes of the network whose idle state and look-ups are measured.
const NODES: usize = 100;

/// Nodes that are started at once.
const CROWD: usize = 500;

/// How long a network rests before it is measured: maintenance slows down to its longest period.
const REST: Duration = Duration::from_secs(60);

/// How long the idle state is measured.
const IDLE: Duration = Duration::from_secs(30);

/// How long look-ups are counted, for each number in flight.
const LOOKUPS: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    crowd()?;
    let network = Network::start(NODES, Duration::from_millis(5))?;
    println!("\n{NODES} nodes at rest for {REST:?}, then over {IDLE:?}:");
    std::thread::sleep(REST);
    network.measure_idle()?;
    network.measure_lookups()
}

fn crowd() -> Result<(), Failure> {
    println!("{CROWD} nodes started at once:");
    let begin = Instant::now();
    let mut network = Network::spawn(CROWD, Duration::ZERO)?;
    network.wait_listening()?;
    println!("  all listen after      {:8.2} s", begin.elapsed().as_secs_f64());
    network.wait_joined()?;
    println!("  all have joined after {:8.2} s", begin.elapsed().as_secs_f64());
    let cpu = network.cpu()?.as_secs_f64() * 1e3 / CROWD as f64;
    println!("  processor a node      {cpu:8.2} ms");
    let samples = network.nodes.iter_mut().map(Process::sample).collect::<Result<Vec<_>, Failure>>()?;
    let mean =
        |figure: &dyn Fn(&Snapshot) -> u64| samples.iter().map(figure).sum::<u64>() as f64 / CROWD as f64;
    println!(
        "  messages a node       {:8.0}",
        mean(&|sample| sample.traffic.iter().map(|kind| kind.sent).sum())
    );
    println!("  links a node          {:8.0}", mean(&|sample| sample.links_out + sample.links_in));
    Ok(())
}

/// Node processes that end with this value: their standard input is their lifeline.
struct Network {
    nodes: Vec<Process>,
}

struct Process {
    child: Child,
    lifeline: ChildStdin,
    reports: BufReader<ChildStdout>,
    access_point: Option<AccessPoint>,
}

impl Network {
    fn start(count: usize, pause: Duration) -> Result<Network, Failure> {
        let mut network = Network::spawn(count, pause)?;
        network.wait_listening()?;
        network.wait_joined()?;
        Ok(network)
    }

    /// The first node creates the network; the others join by it.
    fn spawn(count: usize, pause: Duration) -> Result<Network, Failure> {
        let mut random = Pcg32::seed_from_u64(1);
        let mut network = Network { nodes: Vec::with_capacity(count) };
        let mut join = Vec::new();
        for _ in 0..count {
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let (id, seed) = (Id(u64::from(random.next_u32())), random.next_u64());
            let setup = Setup {
                net: NetConfig::default(),
                id,
                listen,
                join: join.clone(),
                seed,
                metrics: None,
                shapes: Vec::new(),
                network_key: None,
            };
            network.nodes.push(Process::start(&setup)?);
            if join.is_empty() {
                join = vec![network.nodes[0].wait_listening()?];
            }
            std::thread::sleep(pause);
        }
        Ok(network)
    }

    fn wait_listening(&mut self) -> Result<(), Failure> {
        self.nodes.iter_mut().try_for_each(|node| node.wait_listening().map(|_| ()))
    }

    fn wait_joined(&mut self) -> Result<(), Failure> {
        self.nodes.iter_mut().try_for_each(Process::wait_joined)
    }

    fn measure_idle(&self) -> Result<(), Failure> {
        let (before, begin) = (self.cpu()?, Instant::now());
        std::thread::sleep(IDLE);
        let share =
            (self.cpu()? - before).as_secs_f64() / begin.elapsed().as_secs_f64() / self.nodes.len() as f64;
        let mut pss_kib = self.nodes.iter().map(Process::pss_kib).collect::<Result<Vec<u64>, Failure>>()?;
        pss_kib.sort_unstable();
        let mean = pss_kib.iter().sum::<u64>() as f64 / pss_kib.len() as f64;
        println!("  PSS a node       {mean:8.0} KiB mean, {} KiB largest", pss_kib[pss_kib.len() - 1]);
        println!("  processor a node {:8.4} % of a core", share * 100.0);
        Ok(())
    }

    fn measure_lookups(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let via = self.nodes[0].access_point.ok_or("no node listens")?;
            let (node, ..) = Node::join_net(&[via], NodeConfig::default(), None).await?;
            println!("\nlook-ups from one node of {}:", self.nodes.len() + 1);
            // The first look-ups open links: they are not what is measured.
            self.lookups(&node, 64, Duration::from_secs(2)).await?;
            for in_flight in [1, 64] {
                let cpu = self.cpu()?;
                let mut latencies = self.lookups(&node, in_flight, LOOKUPS).await?;
                let cpu = self.cpu()? - cpu;
                latencies.sort_unstable();
                let count = latencies.len();
                println!(
                    "  {in_flight:3} in flight: {:7.0}/s, median {:6.3} ms, p99 {:6.3} ms, {:5.3} ms of processor each (all other nodes)",
                    count as f64 / LOOKUPS.as_secs_f64(),
                    latencies[count / 2].as_secs_f64() * 1e3,
                    latencies[count * 99 / 100].as_secs_f64() * 1e3,
                    cpu.as_secs_f64() * 1e3 / count as f64,
                );
            }
            node.leave().await?;
            Ok(())
        })
    }

    /// Closed loop: each of `in_flight` tasks asks for random keys, one after the other.
    async fn lookups(&self, node: &Node, in_flight: u64, length: Duration) -> Result<Vec<Duration>, Failure> {
        let end = Instant::now() + length;
        let tasks: Vec<_> = (0..in_flight)
            .map(|seed| {
                let node = node.clone();
                let mut random = Pcg32::seed_from_u64(seed);
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while Instant::now() < end {
                        let begin = Instant::now();
                        node.lookup(Id(u64::from(random.next_u32()))).await?;
                        latencies.push(begin.elapsed());
                    }
                    Ok::<_, p2ps::node::NodeError>(latencies)
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await??);
        }
        Ok(all)
    }

    /// Processor time of all nodes so far.
    fn cpu(&self) -> Result<Duration, Failure> {
        self.nodes.iter().map(Process::cpu).sum()
    }
}

impl Process {
    fn start(setup: &Setup) -> Result<Process, Failure> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_p2ps-node"))
            .args(["run", "--managed"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lifeline = child.stdin.take().ok_or("no standard input")?;
        let reports = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        writeln!(lifeline, "{}", serde_json::to_string(setup)?)?;
        Ok(Process { child, lifeline, reports, access_point: None })
    }

    fn wait_listening(&mut self) -> Result<AccessPoint, Failure> {
        while self.access_point.is_none() {
            if let Report::Listening { access_point, .. } = self.next_report()? {
                self.access_point = Some(access_point);
            }
        }
        self.access_point.ok_or_else(|| "it does not listen".into())
    }

    fn wait_joined(&mut self) -> Result<(), Failure> {
        while !matches!(self.next_report()?, Report::Joined { .. }) {}
        Ok(())
    }

    fn sample(&mut self) -> Result<Snapshot, Failure> {
        writeln!(self.lifeline, "{}", serde_json::to_string(&Order::Sample)?)?;
        loop {
            if let Report::Sample(sample) = self.next_report()? {
                return Ok(*sample);
            }
        }
    }

    fn next_report(&mut self) -> Result<Report, Failure> {
        let mut line = String::new();
        self.reports.read_line(&mut line)?;
        match serde_json::from_str(&line)? {
            Report::Failed { error } => Err(error.into()),
            report => Ok(report),
        }
    }

    /// Nanoseconds on a processor: the first number of `schedstat`.
    fn cpu(&self) -> Result<Duration, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.child.id()))?;
        let nanos = text.split(' ').next().ok_or("no time in schedstat")?;
        Ok(Duration::from_nanos(nanos.parse()?))
    }

    fn pss_kib(&self) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss in smaps_rollup")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already cannot be killed: that is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
