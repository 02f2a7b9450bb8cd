//! The orchestrator as a real process, with a real node binary.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod namespaces;
pub(crate) mod sshd;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use p2ps_orchestrator::run::journal::{self, Entry};
use p2ps_orchestrator::run::process::{ProcessIdentity, session_members};

/// How long anything may take before a test gives up on it.
pub(crate) const WAIT: Duration = Duration::from_secs(120);

const ORCHESTRATOR: &str = env!("CARGO_BIN_EXE_orchestrator");

/// The node binary next to the orchestrator's, built first: tests of this package alone do not build it.
pub(crate) fn node_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let profile = Path::new(ORCHESTRATOR).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--offline", "-p", "p2ps", "--bin", "p2ps-node", "--target-dir"]);
        build.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(status.success(), "the node binary cannot be built");
        profile.join("p2ps-node")
    })
}

/// A run of the orchestrator.
pub(crate) struct Run {
    child: Child,
    lines: Receiver<String>,
    /// What was printed so far.
    pub(crate) printed: Vec<String>,
    pub(crate) root: tempfile::TempDir,
}

impl Run {
    /// `orchestrator run --json` of `plan`, with further arguments.
    pub(crate) fn start(plan: &str, arguments: &[&str]) -> Run {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("plan.yaml");
        std::fs::write(&path, plan).unwrap();
        let mut child = Command::new(ORCHESTRATOR)
            .arg("run")
            .arg(&path)
            .arg("--node-binary")
            .arg(node_binary())
            .arg("--out")
            .arg(root.path().join("runs"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)).ok();
        });
        Run { child, lines, printed: Vec::new(), root }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for a line that `is_wanted`.
    pub(crate) fn wait_for(&mut self, what: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + WAIT;
        loop {
            let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                let errors = self.errors();
                panic!("no {what}; printed: {:#?}; {errors}", self.printed);
            };
            self.printed.push(line.clone());
            if is_wanted(&line) {
                return line;
            }
        }
    }

    /// Waits until so many nodes are alive (with `--json`).
    pub(crate) fn wait_alive(&mut self, nodes: u64) {
        self.wait_for("nodes", |line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["nodes"]["alive"].as_u64() >= Some(nodes)
        });
    }

    /// Waits for its end; gives back how it ended.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.printed.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => {
                    let errors = self.errors();
                    panic!("the run does not end; printed: {:#?}; {errors}", self.printed);
                }
            }
        }
    }

    pub(crate) fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = self.child.kill();
            errors.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// The only run directory below the root.
    pub(crate) fn directory(&self) -> PathBuf {
        let only = |path: &Path| std::fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
        only(&only(&self.root.path().join("runs")))
    }

    /// The identity of the run's agent, from its journal.
    pub(crate) fn agent(&self) -> ProcessIdentity {
        let lines = journal::read(&self.directory().join("journal.jsonl")).unwrap();
        let agent = lines.into_iter().find_map(|line| match line.entry {
            Entry::AgentStarted { process, .. } => Some(process),
            _ => None,
        });
        agent.expect("an agent is journalled")
    }

    /// `orchestrator clean` of this run: exit code and what it printed.
    pub(crate) fn clean(&self) -> (Option<i32>, String) {
        let output = orchestrator(&["clean", self.directory().to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A test that failed leaves no process either: agents end with their orchestrator.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn orchestrator(arguments: &[&str]) -> Output {
    Command::new(ORCHESTRATOR).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The processes of `agent` and of its nodes that run.
pub(crate) fn processes(agent: &ProcessIdentity) -> Vec<u32> {
    let mut pids: Vec<u32> =
        session_members(agent, &["p2ps-node", "exe"]).into_iter().map(|process| process.pid).collect();
    pids.extend(agent.is_running().then_some(agent.pid));
    pids
}

pub(crate) fn wait_gone(agent: &ProcessIdentity, length_max: Duration) {
    let deadline = Instant::now() + length_max;
    while !processes(agent).is_empty() {
        assert!(Instant::now() < deadline, "still there after {length_max:?}: {:?}", processes(agent));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A plan of `nodes` nodes and `seconds` seconds, without expectations.
pub(crate) fn plan(nodes: u32, seconds: u32) -> String {
    format!(
        "name: processes\nseed: 3\nnodes: {nodes}\njoin: {{rate: 20/s}}\n\
         workload:\n  - lookup: {{rate: 50/s, keys: uniform}}\nduration: {seconds}s\n"
    )
}
