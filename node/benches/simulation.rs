//! How fast the simulator is, and what a simulated node costs: `make bench-sim`.
//!
//! - bytes a node on converged rings of 10^4, 10^5 and 10^6, as they were made and after look-ups;
//! - the hops of those look-ups, and events a second;
//! - 10,000 nodes under churn with look-ups: simulated seconds for each second of this machine;
//! - 100,000 nodes that join by the protocol, and look-ups on what they made.
//!
//! Time is that of the one processor that a simulation keeps busy, so that what else runs on the machine counts for less. Figures of one machine are for comparison side by side in one run, never across machines. An argument that
//! is a number leaves out what has more nodes.

#![allow(clippy::print_stdout, missing_docs)]

use std::process::Command;
use std::time::Duration;

use p2ps::config::NetConfig;
use p2ps::id::Id;
use p2ps::sim::{Latency, NetworkModel, NodeNumber, Simulator, What};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const SECOND_US: u64 = 1_000_000;

/// The mean session of a node under churn, in seconds.
const SESSION_SECONDS: u64 = 600;

/// Sizes of converged rings, with the look-ups on each.
const CONVERGED: [(u32, u64); 3] = [(10_000, 100_000), (100_000, 200_000), (1_000_000, 200_000)];

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    let number = arguments.iter().find_map(|argument| argument.parse().ok());
    let nodes_max = number.unwrap_or(1_000_000);
    if arguments.iter().any(|argument| argument == "--converged") {
        CONVERGED
            .iter()
            .filter(|(nodes, _)| *nodes == nodes_max)
            .for_each(|(nodes, lookups)| converged(*nodes, *lookups));
        return Ok(());
    }
    println!("size of a peer without its tables: {} bytes", size_of::<p2ps::peer::Peer>());
    for (nodes, _) in CONVERGED.iter().filter(|(nodes, _)| *nodes <= nodes_max) {
        // Each in a process of its own: memory that was given back would count for nothing when it is taken again.
        let this = std::env::current_exe()?;
        Command::new(this).args(["--converged", &nodes.to_string()]).status()?;
    }
    if nodes_max >= 10_000 {
        churn(10_000, 60, 1000);
    }
    if nodes_max >= 100_000 {
        growth(100_000, 1000);
    }
    Ok(())
}

fn simulator(nodes: u32) -> (Simulator, Vec<NodeNumber>) {
    let model = NetworkModel {
        latency: Latency::LogNormal { median_us: 20_000, sigma: 0.5 },
        ..NetworkModel::default()
    };
    let mut simulator = Simulator::new(NetConfig::default(), model, 1, false);
    let mut random = Pcg32::seed_from_u64(1);
    let mut ids = std::collections::BTreeSet::new();
    let mut numbers = Vec::new();
    while numbers.len() < nodes as usize {
        let id = Id(u64::from(random.next_u32()));
        if ids.insert(id) {
            numbers.extend(simulator.add(id, random.next_u64()));
        }
    }
    (simulator, numbers)
}

/// A converged ring without maintenance: memory and routes.
fn converged(nodes: u32, lookups: u64) {
    println!("\nconverged ring of {nodes} nodes, no maintenance:");
    let before = memory_bytes();
    let begin = processor_seconds();
    let (mut simulator, numbers) = simulator(nodes);
    simulator.start_converged(&numbers, false);
    simulator.happenings();
    let made = memory_bytes().saturating_sub(before) / u64::from(nodes);
    println!("  made in               {:10.2} s", processor_seconds() - begin);
    println!("  memory a node         {made:10} bytes");
    let begin = processor_seconds();
    let figures = look_up(&mut simulator, &numbers, lookups, 10_000);
    let seconds = processor_seconds() - begin;
    let used = memory_bytes().saturating_sub(before) / u64::from(nodes);
    figures.print();
    println!("  events a second       {:10.0}", simulator.totals().events as f64 / seconds);
    println!("  look-ups a second     {:10.0}", lookups as f64 / seconds);
    println!("  memory a node, then   {used:10} bytes");
    println!("  trace                 {}", simulator.trace());
}

/// Look-ups of random keys from random nodes, at `rate` a simulated second.
fn look_up(simulator: &mut Simulator, numbers: &[NodeNumber], lookups: u64, rate: u64) -> Figures {
    let mut random = Pcg32::seed_from_u64(2);
    let mut figures = Figures::default();
    let mut at_us = simulator.now_us();
    for operation in 0..lookups {
        at_us += SECOND_US / rate;
        simulator.run_until(at_us);
        let from = numbers[random.next_u32() as usize % numbers.len()];
        simulator.lookup(from, operation, Id(u64::from(random.next_u32())), at_us);
        figures.take(simulator);
    }
    simulator.run_until(at_us + 20 * SECOND_US);
    figures.take(simulator);
    figures
}

fn churn(nodes: u32, seconds: u64, rate: u64) {
    println!("\n{nodes} nodes, sessions of {SESSION_SECONDS} s in the mean, {rate} look-ups a second:");
    let (mut simulator, numbers) = simulator(nodes);
    simulator.start_converged(&numbers, true);
    simulator.happenings();
    let mut random = Pcg32::seed_from_u64(3);
    let mut figures = Figures::default();
    let (begin, events) = (processor_seconds(), simulator.totals().events);
    let mut down = std::collections::VecDeque::new();
    let changes = u64::from(nodes) / SESSION_SECONDS;
    for second in 0..seconds {
        for step in 0..rate {
            let at_us = second * SECOND_US + step * SECOND_US / rate;
            simulator.run_until(at_us);
            if step % (rate / changes.max(1)) == 0 {
                let victim = numbers[random.next_u32() as usize % numbers.len()];
                if simulator.kill(victim) {
                    down.push_back(victim);
                }
                // As many come back, so that the network keeps its size.
                if down.len() > 50
                    && let Some(back) = down.pop_front()
                {
                    let via = numbers.iter().find(|via| simulator.is_running(**via)).copied();
                    simulator.start(back, via.as_slice(), &[]);
                }
            }
            let from = numbers[random.next_u32() as usize % numbers.len()];
            simulator.lookup(from, second * rate + step, Id(u64::from(random.next_u32())), at_us);
            figures.take(&mut simulator);
        }
    }
    let seconds_taken = processor_seconds() - begin;
    figures.print();
    println!("  events a second       {:10.0}", (simulator.totals().events - events) as f64 / seconds_taken);
    println!("  times real time       {:10.1}", seconds as f64 / seconds_taken);
    println!("  trace                 {}", simulator.trace());
}

fn growth(nodes: u32, rate: u64) {
    println!("\n{nodes} nodes join, {rate} a second:");
    let (mut simulator, numbers) = simulator(nodes);
    let mut random = Pcg32::seed_from_u64(4);
    let begin = processor_seconds();
    let mut figures = Figures::default();
    for (place, number) in numbers.iter().enumerate() {
        simulator.run_until(place as u64 * SECOND_US / rate);
        let via: Vec<NodeNumber> = match place {
            0 => Vec::new(),
            _ => (0..3).map(|_| numbers[random.next_u32() as usize % place.div_ceil(2)]).collect(),
        };
        simulator.start(*number, &via, &[]);
        figures.take(&mut simulator);
    }
    let settled_us = simulator.now_us() + 30 * SECOND_US;
    simulator.run_until(settled_us);
    figures.take(&mut simulator);
    let seconds_taken = processor_seconds() - begin;
    println!("  joined                {:10}", figures.joined);
    println!("  rejected              {:10}", figures.rejected);
    println!("  events a second       {:10.0}", simulator.totals().events as f64 / seconds_taken);
    println!("  times real time       {:10.2}", simulator.now_us() as f64 / 1e6 / seconds_taken);
    let begin = processor_seconds();
    let from_us = simulator.now_us();
    look_up(&mut simulator, &numbers, 100_000, 2000).print();
    let simulated = (simulator.now_us() - from_us) as f64 / 1e6;
    println!("  times real time, then {:10.2}", simulated / (processor_seconds() - begin));
    println!("  trace                 {}", simulator.trace());
}

/// What became of look-ups and joins.
#[derive(Default)]
struct Figures {
    hops: Vec<u16>,
    failed: u64,
    joined: u64,
    rejected: u64,
}

impl Figures {
    fn take(&mut self, simulator: &mut Simulator) {
        for happening in simulator.happenings() {
            match happening.what {
                What::Completed { result: Ok(found), .. } => self.hops.push(found.hops),
                What::Completed { result: Err(_), .. } => self.failed += 1,
                What::Joined => self.joined += 1,
                What::Rejected(_) => self.rejected += 1,
                _ => {}
            }
        }
    }

    fn print(mut self) {
        self.hops.sort_unstable();
        let count = self.hops.len();
        let mean = self.hops.iter().map(|hops| f64::from(*hops)).sum::<f64>() / count.max(1) as f64;
        let percentile = self.hops.get(count * 99 / 100).copied().unwrap_or(0);
        let largest = self.hops.last().copied().unwrap_or(0);
        println!("  look-ups              {count:10} found, {} failed", self.failed);
        println!("  hops                  {mean:10.2} mean, {percentile} p99, {largest} max");
    }
}

/// The processor time of this process.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_secs_f64()
}

/// The memory that this process has in use.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) * 1024
}
