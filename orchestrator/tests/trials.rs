//! Whatever is killed, and whenever: nothing is left behind.
//!
//! Each trial draws from its seed what is killed (the orchestrator, an agent, a host's sshd, a host's link) and when (while the node
//! binary is sent, nodes join, the plan runs, results are collected). Then it waits until no process, file or port of ours is on any
//! host, for a lease and no more than it takes to notice; `orchestrator clean` has to agree. Four trials with seeds in a row are one
//! of each kind.
//!
//! `make trials TRIALS=50 SEED=1` does more of them; one that fails prints its seed, with which it is repeated alone.
#![allow(clippy::print_stderr, reason = "the trials' table is for whoever runs them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::namespaces::Namespaces;
use harness::{Run, WAIT, orchestrator};
use jiff::Timestamp;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::process::Signal;
use serde_json::Value;

/// How many trials are made at the same time, each on hosts of its own.
const LANES: usize = 4;

/// The hosts of a trial; one of them may be lost.
const HOSTS: usize = 6;
const NODES: u64 = 36;

/// How long a trial's plan is, in microseconds.
const PLAN_US: i64 = 10_000_000;

/// What agents outlive the last word by.
const LEASE: Duration = Duration::from_secs(3);

/// What is beyond the lease: a host waits so long for the rest of a node binary, and an agent for its first word, plus what it takes
/// to end.
const MARGIN: Duration = Duration::from_secs(20);

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[test]
fn whatever_is_killed_nothing_is_left_behind() {
    if let Some(reason) = Namespaces::impossible() {
        // Past the test runner, which would keep it to itself.
        writeln!(std::io::stderr(), "trials: SKIPPED, nothing was tried: {reason}").unwrap();
        return;
    }
    let (trials, first) = (setting("TRIALS", 4), setting("SEED", 1));
    let lanes = LANES.min(trials as usize);
    let testbed = Namespaces::new(lanes * HOSTS);
    let next = AtomicU64::new(first);
    let outcomes = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            let (testbed, next, outcomes) = (&testbed, &next, &outcomes);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + trials {
                        return;
                    }
                    let trial = Trial::draw(seed, lane * HOSTS);
                    let outcome = catch_unwind(AssertUnwindSafe(|| trial.carry_out(testbed)));
                    let what = outcome.as_ref().map_or("FAILED", String::as_str);
                    eprintln!("trial {seed}: {trial}: {what}");
                    outcomes.lock().unwrap().insert(seed, outcome.is_ok());
                }
            });
        }
    });
    drop(testbed);
    let outcomes = outcomes.into_inner().unwrap();
    let failed: Vec<&u64> = outcomes.iter().filter(|(_, held)| !**held).map(|(seed, _)| seed).collect();
    eprintln!("trials: {} of {} left nothing behind", outcomes.len() - failed.len(), outcomes.len());
    let repeat: Vec<String> = failed.iter().map(|seed| format!("make trials TRIALS=1 SEED={seed}")).collect();
    assert!(failed.is_empty(), "repeat with: {}", repeat.join("; "));
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"));
    std::env::var(name).ok().filter(|text| !text.is_empty()).map_or(otherwise, number)
}

/// What is killed, and when.
struct Trial {
    seed: u64,
    /// The first of its hosts in the testbed.
    first: usize,
    victim: Victim,
    moment: Moment,
    /// After the moment has come.
    delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Orchestrator,
    /// The agent of the host with this number in the testbed.
    Agent(usize),
    /// The listening sshd and all its sessions.
    Sshd(usize),
    /// For so long, if not for ever.
    Link(usize, Option<Duration>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Upload,
    Join,
    Run,
    Collection,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?} + {:?}", self.victim, self.moment, self.delay)
    }
}

impl Trial {
    fn draw(seed: u64, first: usize) -> Trial {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |bound: u64| generator.next_u64() % bound;
        let host = first + below(HOSTS as u64) as usize;
        let victim = match seed % 4 {
            0 => Victim::Orchestrator,
            1 => Victim::Agent(host),
            2 => Victim::Sshd(host),
            _ => Victim::Link(host, [None, Some(Duration::from_millis(below(6000)))][below(2) as usize]),
        };
        let (moment, delay_ms_max) = match below(5) {
            // There is no agent to be killed before.
            0 if !matches!(victim, Victim::Agent(_)) => (Moment::Upload, 2000),
            0 | 1 => (Moment::Join, 2000),
            4 => (Moment::Collection, 500),
            _ => (Moment::Run, 6000),
        };
        Trial { seed, first, victim, moment, delay: Duration::from_millis(below(delay_ms_max)) }
    }

    /// Says what came of it; panics where something did not hold.
    fn carry_out(&self, testbed: &Namespaces) -> String {
        let hosts = self.first..self.first + HOSTS;
        // A trial that failed may have left a link cut.
        hosts.clone().for_each(|host| testbed.mend(host));
        let inventory = testbed.inventory(hosts.clone(), HOSTS - 2);
        let lease = format!("{}s", LEASE.as_secs());
        let arguments = ["--json", "--lease", &lease, "--on", inventory.to_str().unwrap()];
        let mut run = Run::start(&plan(self.seed), &arguments);
        run.await_moment(self.moment);
        std::thread::sleep(self.delay);
        let struck = self.strike(testbed, &run);
        let status = run.wait_end();
        // What came too late has killed nothing.
        let came_of_it = match status.code() {
            None => "the orchestrator was killed".to_owned(),
            Some(code) => self.judge(testbed, &run, code, &struck),
        };
        let cached = await_nothing_left(testbed, hosts.clone());
        hosts.clone().for_each(|host| testbed.mend(host));
        clean(testbed, &run, inventory, hosts);
        format!("{came_of_it}; all gone within {cached:.1?}")
    }

    /// Kills what is to be killed.
    fn strike(&self, testbed: &Namespaces, run: &Run) -> Strike {
        let hit = match self.victim {
            // One that has ended was not waited for yet: its number is its own.
            Victim::Orchestrator => {
                run.signal(Signal::KILL);
                true
            }
            Victim::Agent(host) => testbed.kill_agent(host),
            Victim::Sshd(host) => testbed.kill_sshd(host) > 1,
            Victim::Link(host, _) => {
                testbed.cut(host);
                true
            }
        };
        let strike = Strike { hit, at: Timestamp::now() };
        if let Victim::Link(host, Some(length)) = self.victim {
            std::thread::sleep(length);
            testbed.mend(host);
        }
        strike
    }

    /// The orchestrator lived on: the run went on without the host, and says so.
    fn judge(&self, testbed: &Namespaces, run: &Run, code: i32, struck: &Strike) -> String {
        let end: Value = serde_json::from_str(run.printed.last().expect("something was printed")).unwrap();
        assert_eq!((&end["event"], &end["ending"]), (&"finished".into(), &"completed".into()), "{end:#}");
        let alive = end["verdict"]["figures"]["nodes.alive"].as_f64().expect("it is always measured");
        let all_alive = alive == NODES as f64;
        assert_eq!((code, &end["passed"]), (i32::from(!all_alive), &all_alive.into()), "{end:#}");
        let gone = ["hosts_lost", "hosts_unusable"].map(|key| end[key].as_array().unwrap().clone()).concat();
        let host = match self.victim {
            Victim::Orchestrator => None,
            Victim::Agent(host) | Victim::Sshd(host) | Victim::Link(host, _) => Some(testbed.name(host)),
        };
        for entry in &gone {
            assert_eq!(entry["host"].as_str(), host.as_deref(), "no other host is lost: {end:#}");
            assert!(!entry["reason"].as_str().unwrap().is_empty(), "{end:#}");
        }
        let must_be_lost = match self.victim {
            Victim::Orchestrator => false,
            Victim::Agent(_) | Victim::Sshd(_) => struck.hit && self.moment != Moment::Upload,
            Victim::Link(_, length) => length.is_none(),
        };
        if must_be_lost && self.moment != Moment::Collection {
            assert_eq!(gone.len(), 1, "a host was lost, and nobody says so: {end:#}");
        }
        if let Some(lost_us) = lost_us(run) {
            // One that only fell silent was last heard before.
            if let Victim::Link(_, None) = self.victim {
                assert!(lost_us <= struck.at_us(run), "it was lost before {lost_us} us: {end:#}");
            }
            if lost_us < PLAN_US {
                let others = NODES - NODES / HOSTS as u64;
                assert!(alive <= others as f64, "{alive} nodes count as alive at the end: {end:#}");
            }
        }
        match gone.first() {
            Some(entry) => format!("exit code {code}, {}", entry["reason"].as_str().unwrap()),
            None => format!("exit code {code}, no host was lost"),
        }
    }
}

/// When something was killed, and whether there was something.
struct Strike {
    hit: bool,
    at: Timestamp,
}

impl Strike {
    /// When it was at the latest, since the run's start; that is told to agents a little before it comes.
    fn at_us(&self, run: &Run) -> i64 {
        let manifest = std::fs::read_to_string(run.directory().join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let Some(started) = manifest["started"].as_str() else { return 0 };
        self.at.duration_since(started.parse().unwrap()).as_micros().try_into().unwrap()
    }
}

/// When the run's host was lost, if one was, by its timeline.
fn lost_us(run: &Run) -> Option<i64> {
    let timeline = std::fs::read_to_string(run.directory().join("timeline.jsonl")).unwrap();
    let mut events = timeline.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.find(|event| event["event"] == "host_lost").map(|event| event["at_us"].as_i64().unwrap())
}

fn plan(seed: u64) -> String {
    format!(
        "name: trial\nseed: {seed}\nnodes: {NODES}\njoin: {{rate: 18/s}}\n\
         workload:\n  - lookup: {{rate: 40/s, keys: uniform}}\n\
         timeline:\n  - {{at: 4s, kill: 4}}\n  - {{at: 5s, leave: 2}}\n  - {{at: 7s, restart: 100%}}\n\
         duration: {}us\nexpect:\n  - nodes.alive == {NODES}\n",
        PLAN_US
    )
}

impl Run {
    fn await_moment(&mut self, moment: Moment) {
        let stages: &[&str] = match moment {
            Moment::Upload => return drop(self.wait_for("beginning", |line| line.contains("\"begun\""))),
            Moment::Join | Moment::Run => &["running", "draining", "stopping", "finished"],
            Moment::Collection => &["draining", "stopping", "finished"],
        };
        self.wait_for("progress", |line| {
            let line: Value = serde_json::from_str(line).unwrap();
            stages.iter().any(|stage| line["stage"] == *stage)
        });
        if moment == Moment::Run {
            self.wait_for("all to have joined", |line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["time"].as_f64() >= Some(2.0) || line["event"] == "finished"
            });
        }
    }
}

/// Waits until nothing is left on any of the hosts but the cached binary. Says how long it took.
fn await_nothing_left(testbed: &Namespaces, hosts: std::ops::Range<usize>) -> Duration {
    let since = Instant::now();
    for host in hosts {
        let name = testbed.name(host);
        let left = || {
            let mut left: Vec<String> = testbed
                .strangers(host)
                .into_iter()
                .map(|stranger| format!("process {} {}", stranger.pid, stranger.command))
                .collect();
            // Whoever still runs may still write.
            if left.is_empty() {
                left.extend(testbed.files(host).into_iter().filter(|line| !is_cache(line)));
            }
            left
        };
        loop {
            let left = left();
            if left.is_empty() {
                break;
            }
            assert!(since.elapsed() < LEASE + MARGIN, "left on {name}: {left:#?}");
            std::thread::sleep(LOOK_EVERY);
        }
        assert_eq!(testbed.ports(host), [0; 0], "{name} still listens");
        assert_eq!(testbed.filters(host), "", "{name} still filters");
    }
    since.elapsed()
}

/// Whether a line names the cached binary, or a directory on the way to it.
fn is_cache(line: &str) -> bool {
    let file = line.strip_prefix("file /home/p2ps/.cache/p2ps/p2ps-node-");
    file.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || ["directory /home/p2ps/.cache", "directory /home/p2ps/.cache/p2ps"].contains(&line)
}

/// `orchestrator clean` confirms that nothing is left, and takes the cached binary away.
fn clean(testbed: &Namespaces, run: &Run, inventory: PathBuf, hosts: std::ops::Range<usize>) {
    let directory = run.directory();
    let arguments = ["clean", directory.to_str().unwrap(), "--on", inventory.to_str().unwrap()];
    let node_binary = ["--node-binary", harness::node_binary().to_str().unwrap()];
    for more in [&[][..], &["--cached"][..]] {
        let deadline = Instant::now() + WAIT;
        let text = loop {
            let output = orchestrator(&[&arguments[..], &node_binary[..], more].concat());
            let text = String::from_utf8(output.stdout).unwrap();
            if output.status.code() == Some(0) {
                break text;
            }
            // Its sshd, or its link, may need a moment to come back.
            assert!(text.contains("could not be looked at") && Instant::now() < deadline, "{text}");
        };
        assert_eq!(text.lines().next(), Some("nothing left"), "{text}");
        assert!(text.lines().skip(1).all(|line| line.contains("no process left")), "{text}");
    }
    for host in hosts {
        let left: Vec<String> = testbed.files(host);
        let others = left.iter().filter(|line| *line != "directory /home/p2ps/.cache");
        assert_eq!(others.count(), 0, "{left:#?}");
    }
}
