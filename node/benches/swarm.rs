//! Runs the seeds of `p2ps::swarm` on all cores: `make swarm SEEDS=200`, `make swarm SEEDS=1000..1200`. One seed alone, with all
//! that happens in it written to a file: `make swarm SEED=17`, and with every message: `make swarm SEED=17 MESSAGES=1`.

#![allow(clippy::print_stdout, missing_docs)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use p2ps::swarm::{Outcome, Scenario, Telling, run};

const USAGE: &str = "give a number of seeds (200), a range of them (100..200), or --seed 17 [--messages]";

/// What is asked for.
enum Order {
    Seeds(Range<u64>),
    Replay { seed: u64, every_message: bool },
}

/// How a seed ended: a panic is a finding too.
type End = Result<Outcome, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    match order(&arguments) {
        Some(Order::Seeds(seeds)) => run_all(seeds),
        Some(Order::Replay { seed, every_message }) => replay(seed, every_message).unwrap_or_else(|error| {
            println!("the trace could not be written: {error}");
            ExitCode::from(3)
        }),
        None => {
            println!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn order(arguments: &[String]) -> Option<Order> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--seed", seed] => Some(Order::Replay { seed: seed.parse().ok()?, every_message: false }),
        ["--seed", seed, "--messages"] => {
            Some(Order::Replay { seed: seed.parse().ok()?, every_message: true })
        }
        [seeds] => match seeds.split_once("..") {
            Some((first, end)) => Some(Order::Seeds(first.parse().ok()?..end.parse().ok()?)),
            None => Some(Order::Seeds(0..seeds.parse().ok()?)),
        },
        _ => None,
    }
}

/// Runs seeds on all cores, each on one; what a seed does, does not depend on that.
fn run_all(seeds: Range<u64>) -> ExitCode {
    let begin = Instant::now();
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    let (next, (sender, ends)) = (AtomicU64::new(seeds.start), mpsc::channel());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (next, sender, end) = (&next, sender.clone(), seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send((seed, run_one(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, end) in ends {
            tell_failure(seed, &end);
            sum.add(seed, end);
        }
    });
    sum.print(cores, begin.elapsed());
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

thread_local! {
    /// What the last panic of this thread said, and where it was.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn run_one(seed: u64) -> End {
    catch_unwind(|| run(&Scenario::draw(seed), |_| (), None)).map_err(|_| PANIC.take())
}

fn tell_failure(seed: u64, end: &End) {
    let told = match end {
        Ok(Outcome { failure: None, .. }) => return,
        Ok(Outcome { failure: Some(failure), .. }) => shortened(&failure.to_string()),
        Err(panic) => format!("it panicked: {panic}"),
    };
    println!("\n{}\n  {told}\n  replay: make swarm SEED={seed}", Scenario::draw(seed));
}

/// What came of all seeds.
#[derive(Default)]
struct Sum {
    seeds: u64,
    node_time: Duration,
    node_time_under_faults: Duration,
    events: u64,
    faults: u64,
    operations: u64,
    checks: u64,
    ring_healed_after: Duration,
    fingers_healed_after: Duration,
    duplicates_max: u64,
    /// By invariant.
    failed: BTreeMap<String, Vec<u64>>,
}

impl Sum {
    fn add(&mut self, seed: u64, end: End) {
        self.seeds += 1;
        let outcome = match end {
            Ok(outcome) => outcome,
            Err(panic) => return self.failed.entry(format!("a panic: {panic}")).or_default().push(seed),
        };
        self.node_time += outcome.node_time;
        self.node_time_under_faults += outcome.node_time_under_faults;
        self.events += outcome.events;
        self.faults += outcome.faults;
        self.operations += outcome.operations;
        self.checks += outcome.checks;
        self.ring_healed_after = self.ring_healed_after.max(outcome.ring_healed_after);
        self.fingers_healed_after = self.fingers_healed_after.max(outcome.fingers_healed_after);
        self.duplicates_max = self.duplicates_max.max(outcome.duplicates_max);
        if let Some(failure) = outcome.failure {
            self.failed.entry(failure.violation.invariant.to_owned()).or_default().push(seed);
        }
    }

    fn print(&self, cores: usize, took: Duration) {
        let hours = |time: Duration| time.as_secs_f64() / 3600.0;
        println!("\nseeds                    {:12}", self.seeds);
        println!("node-hours simulated     {:12.0}", hours(self.node_time));
        println!("  of these under faults  {:12.0}", hours(self.node_time_under_faults));
        println!("faults                   {:12}", self.faults);
        println!("operations               {:12}", self.operations);
        println!("events                   {:12}", self.events);
        println!("checks of all nodes      {:12}", self.checks);
        println!("ring ideal after         {:12.1} s at most", self.ring_healed_after.as_secs_f64());
        println!("fingers ideal after      {:12.1} s more at most", self.fingers_healed_after.as_secs_f64());
        println!("duplicates of a message  {:12} at most", self.duplicates_max);
        println!("wall time                {:12.1} s on {cores} cores", took.as_secs_f64());
        println!("violations               {:12}", self.failed.values().map(Vec::len).sum::<usize>());
        for (invariant, seeds) in &self.failed {
            let mut seeds = seeds.clone();
            seeds.sort_unstable();
            println!("  {invariant}: seeds {seeds:?}");
        }
    }
}

/// Runs one seed and writes all that happens to a file.
fn replay(seed: u64, every_message: bool) -> std::io::Result<ExitCode> {
    let scenario = Scenario::draw(seed);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("swarm-{seed}.txt"));
    let mut file = BufWriter::new(File::create(&path)?);
    writeln!(file, "{scenario}")?;
    let mut written = Ok(());
    let mut line = |at: Duration, text: &str| {
        if written.is_ok() {
            written = writeln!(file, "{:14.6} {text}", at.as_secs_f64());
        }
    };
    let outcome = run(&scenario, |_| (), Some(Telling { line: &mut line, every_message }));
    written?;
    println!("{scenario}");
    println!("{:.1} node-hours, {} events", outcome.node_time.as_secs_f64() / 3600.0, outcome.events);
    println!("hash of all that happened: {}", outcome.trace);
    println!("written to {}", path.display());
    let Some(failure) = outcome.failure else {
        println!("no violation");
        return Ok(ExitCode::SUCCESS);
    };
    writeln!(file, "{failure}\n{}", failure.network)?;
    file.flush()?;
    println!("{}", shortened(&failure.to_string()));
    Ok(ExitCode::FAILURE)
}

/// A text that may list many nodes, for a terminal.
fn shortened(text: &str) -> String {
    const LINE_CHARS_MAX: usize = 400;
    let shorten = |line: &str| match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line.to_owned(),
    };
    text.lines().map(shorten).collect::<Vec<_>>().join("\n")
}
