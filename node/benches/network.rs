//! What a node costs and how fast it answers, on real processes over loopback: `make bench`.
//!
//! - how long until many nodes listen, and until they have joined;
//! - an idle node's memory (PSS) and processor time in a network of 100;
//! - look-ups a second from one node of that network, with 1 and 64 in flight, and the processor time of each over all nodes.
//!
//! With `--network-key` (`make bench-key`): what a network's key costs. Two networks of 100 nodes stand side by side, one of
//! them with a key; look-ups are counted in turns, so that whatever else the machine does falls on both.
//!
//! Figures of one machine are for comparison side by side in one run, never across machines.

#![allow(clippy::print_stdout, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use p2ps::access_point::AccessPoint;
use p2ps::com::key::NetworkKey;
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

/// How often look-ups are counted in turns, and how long each time.
const TURNS: usize = 10;
const TURN: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    if std::env::args().any(|argument| argument == "--network-key") {
        return with_and_without_key();
    }
    crowd(None)?;
    let network = Network::start(NODES, Duration::from_millis(5), None)?;
    println!("\n{NODES} nodes at rest for {REST:?}, then over {IDLE:?}:");
    std::thread::sleep(REST);
    network.measure_idle()?;
    network.measure_lookups()
}

fn with_and_without_key() -> Result<(), Failure> {
    let key = NetworkKey::random()?;
    let keys = [("without a key", None), ("with a key", Some(&key))];
    for (name, key) in keys {
        println!("\n{name}:");
        crowd(key)?;
    }
    let networks = [
        Network::start(NODES, Duration::from_millis(5), None)?,
        Network::start(NODES, Duration::from_millis(5), Some(&key))?,
    ];
    println!("\ntwice {NODES} nodes at rest for {REST:?}, then over {IDLE:?} each:");
    std::thread::sleep(REST);
    for ((name, _), network) in keys.iter().zip(&networks) {
        println!("  {name}:");
        network.measure_idle()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(look_ups_in_turns(&networks, [None, Some(&key)]))
}

/// Counts look-ups in both networks in turns.
async fn look_ups_in_turns(networks: &[Network; 2], keys: [Option<&NetworkKey>; 2]) -> Result<(), Failure> {
    let mut nodes = Vec::new();
    for (network, key) in networks.iter().zip(keys) {
        let node = network.join(key).await?;
        network.lookups(&node, 64, TURN).await?;
        nodes.push(node);
    }
    println!(
        "\nlook-ups, {TURNS} turns of {TURN:?} each, medians without and with a key, and of their ratios (range):"
    );
    for in_flight in [1, 64] {
        let (mut rates, mut cpus) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let (mut rate, mut cpu_ms) = ([0.0; 2], [0.0; 2]);
            // Who is first changes from turn to turn.
            for place in [turn % 2, 1 - turn % 2] {
                let before = networks[place].cpu()?;
                let count = networks[place].lookups(&nodes[place], in_flight, TURN).await?.len() as f64;
                rate[place] = count / TURN.as_secs_f64();
                cpu_ms[place] = (networks[place].cpu()? - before).as_secs_f64() * 1e3 / count;
            }
            rates.push(rate);
            cpus.push(cpu_ms);
        }
        print_pairs(&format!("{in_flight:3} in flight: look-ups a second"), &rates);
        print_pairs("                ms of processor each", &cpus);
    }
    for node in nodes {
        node.leave().await?;
    }
    Ok(())
}

fn print_pairs(what: &str, pairs: &[[f64; 2]]) {
    let sorted = |figure: &dyn Fn(&[f64; 2]) -> f64| {
        let mut figures: Vec<f64> = pairs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
    };
    let median = |figures: &[f64]| figures[figures.len() / 2];
    let ratios = sorted(&|[without, with]| with / without);
    println!(
        "  {what:36} {:9.3} {:9.3}  ratio {:5.3} ({:5.3} to {:5.3})",
        median(&sorted(&|pair| pair[0])),
        median(&sorted(&|pair| pair[1])),
        median(&ratios),
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

fn crowd(key: Option<&NetworkKey>) -> Result<(), Failure> {
    println!("{CROWD} nodes started at once:");
    let begin = Instant::now();
    let mut network = Network::spawn(CROWD, Duration::ZERO, key)?;
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
    fn start(count: usize, pause: Duration, key: Option<&NetworkKey>) -> Result<Network, Failure> {
        let mut network = Network::spawn(count, pause, key)?;
        network.wait_listening()?;
        network.wait_joined()?;
        Ok(network)
    }

    /// The first node creates the network; the others join by it.
    fn spawn(count: usize, pause: Duration, key: Option<&NetworkKey>) -> Result<Network, Failure> {
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
                network_key: key.cloned(),
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
            let node = self.join(None).await?;
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

    /// A node of this process that joins the network.
    async fn join(&self, key: Option<&NetworkKey>) -> Result<Node, Failure> {
        let via = self.nodes[0].access_point.ok_or("no node listens")?;
        let config = NodeConfig { network_key: key.cloned(), ..NodeConfig::default() };
        let (node, ..) = Node::join_net(&[via], config, None).await?;
        Ok(node)
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
