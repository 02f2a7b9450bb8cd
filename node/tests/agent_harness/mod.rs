//! An agent as a real process, and what a test wants to say to it and hear from it.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod hosts;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use p2ps::access_point::AccessPoint;
use p2ps::agent::clock::monotonic_us;
use p2ps::agent::protocol::{
    AGENT_PROTOCOL_VERSION, Action, ActionKind, Isolation, NodeIndex, NodeSlot, Notice, Preparation, Request,
};
use p2ps::config::NetConfig;
use p2ps::control::Report;
use p2ps::id::Id;

/// How long anything may take before a test gives up on it.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

pub(crate) struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    notices: Receiver<Notice>,
    /// What nobody reads, of an agent that is not heard.
    unread: Option<ChildStdout>,
    /// All that was heard, in order.
    pub(crate) heard: Vec<Notice>,
}

impl Agent {
    pub(crate) fn start() -> Agent {
        Agent::heard(Agent::unheard())
    }

    /// An agent in a network namespace.
    pub(crate) fn start_in(namespace: &str) -> Agent {
        let mut command = Command::new("ip");
        // `ip` becomes the agent: the process is the agent's own.
        command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_p2ps-node")]);
        Agent::heard(Agent::unheard_by(command))
    }

    fn heard(mut agent: Agent) -> Agent {
        let output = BufReader::new(agent.unread.take().unwrap());
        let (tell, notices) = channel();
        agent.notices = notices;
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                let notice = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if tell.send(notice).is_err() {
                    return;
                }
            }
        });
        agent
    }

    /// An agent whose output is not read.
    pub(crate) fn unheard() -> Agent {
        Agent::unheard_by(Command::new(env!("CARGO_BIN_EXE_p2ps-node")))
    }

    fn unheard_by(mut command: Command) -> Agent {
        let mut child = command
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, unread) = (child.stdin.take(), child.stdout.take());
        Agent { child, input, notices: channel().1, unread, heard: Vec::new() }
    }

    /// An agent that was greeted, with `nodes` nodes (ids 1000, 2000, …) prepared and sampled every 100 ms.
    pub(crate) fn prepared(nodes: u32, lease_ms: u64) -> (Agent, Vec<AccessPoint>) {
        Agent::prepared_in(Isolation::Process, nodes, lease_ms)
    }

    /// The same, with the nodes in processes or tasks.
    pub(crate) fn prepared_in(isolation: Isolation, nodes: u32, lease_ms: u64) -> (Agent, Vec<AccessPoint>) {
        let mut agent = Agent::start();
        agent.say(&hello(lease_ms));
        agent.wait_for("ready", |notice| matches!(notice, Notice::Ready { .. }));
        agent.say(&Request::Prepare(Preparation { isolation, ..preparation(nodes) }));
        let notice = agent.wait_for("prepared", |notice| matches!(notice, Notice::Prepared { .. }));
        let Notice::Prepared { nodes } = notice else { unreachable!() };
        (agent, nodes.into_iter().map(|(_, access_point)| access_point).collect())
    }

    /// An agent whose nodes run: all have joined by node 0.
    pub(crate) fn running(nodes: u32, lease_ms: u64) -> Agent {
        let (mut agent, _) = Agent::prepared(nodes, lease_ms);
        let spawns = (0..nodes).map(|node| spawn(u64::from(node), u64::from(node) * 20_000, node));
        agent.say(&Request::Schedule { actions: spawns.collect() });
        agent.say(&Request::Start { at_us: monotonic_us() });
        for node in 0..nodes {
            agent.wait_for("joined", |notice| is_joined(notice, node));
        }
        agent
    }

    pub(crate) fn say(&mut self, request: &Request) {
        self.say_line(&serde_json::to_string(request).unwrap());
    }

    pub(crate) fn say_line(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        // An agent that has ended meanwhile is what some tests want.
        let _ = input.write_all(format!("{line}\n").as_bytes());
    }

    /// Ends the agent's input.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// The first notice, of those heard already or to come, that `is_wanted`.
    pub(crate) fn wait_for(&mut self, what: &str, is_wanted: impl Fn(&Notice) -> bool) -> Notice {
        if let Some(notice) = self.heard.iter().find(|notice| is_wanted(notice)) {
            return notice.clone();
        }
        self.wait_for_next(what, is_wanted)
    }

    /// The first notice of those to come that `is_wanted`. Renews the lease meanwhile.
    pub(crate) fn wait_for_next(&mut self, what: &str, is_wanted: impl Fn(&Notice) -> bool) -> Notice {
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            match self.notices.recv_timeout(Duration::from_millis(200)) {
                Ok(notice) => {
                    self.heard.push(notice.clone());
                    if is_wanted(&notice) {
                        return notice;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.input.is_some() {
                        self.say(&Request::Renew);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        panic!("no {what}; heard: {:#?}", self.heard);
    }

    pub(crate) fn problem(&mut self) -> String {
        let notice = self.wait_for_next("problem", |notice| matches!(notice, Notice::Problem { .. }));
        let Notice::Problem { error } = notice else { unreachable!() };
        error
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the agent (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Lets the agent stand still (SIGSTOP).
    pub(crate) fn halt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }

    /// How the agent ended, without a further word to it.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the agent's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn assert_no_nodes(&self) {
        let left = session_members(self.pid());
        assert!(left.is_empty(), "{left:?}");
    }

    /// Waits until no process of the agent's session runs.
    pub(crate) fn wait_no_nodes(&self) {
        let session = self.pid();
        eventually("the end of all nodes", || session_members(session).is_empty());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in {WAIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes of an agent's session that run, but for itself and its sentinel.
pub(crate) fn session_members(session: u32) -> Vec<u32> {
    let is_sentinel = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.windows(10).any(|word| word == b"--sentinel")
    };
    session_processes(session).into_iter().filter(|pid| !is_sentinel(pid)).collect()
}

/// The processes of a session that run, but for its leader.
pub(crate) fn session_processes(session: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_member = |pid: &u32| {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[3] == session.to_string() && !["Z", "X"].contains(&fields[0])
    };
    pids.filter(|pid| *pid != session).filter(is_member).collect()
}

pub(crate) fn hello(lease_ms: u64) -> Request {
    Request::Hello { version: AGENT_PROTOCOL_VERSION, run: "test".into(), lease_ms }
}

pub(crate) fn prepare(nodes: u32) -> Request {
    Request::Prepare(preparation(nodes))
}

pub(crate) fn preparation(nodes: u32) -> Preparation {
    let slot = |node| NodeSlot { node, id: Id(1000 * (u64::from(node) + 1)), seed: u64::from(node) };
    Preparation {
        net: NetConfig::default(),
        listen: [127, 0, 0, 1].into(),
        ports: None,
        metrics: false,
        sample_every_ms: 100,
        isolation: Isolation::Process,
        nodes: (0..nodes).map(slot).collect(),
        network_key: None,
    }
}

/// Starts a node; all but node 0 join by node 0.
pub(crate) fn spawn(index: u64, at_us: u64, node: NodeIndex) -> Action {
    let via = if node == 0 { Vec::new() } else { vec![0] };
    Action { index, at_us, node, kind: ActionKind::Spawn { via } }
}

pub(crate) fn is_report(notice: &Notice, of: NodeIndex, is_wanted: impl Fn(&Report) -> bool) -> bool {
    matches!(notice, Notice::Node { node, report } if *node == of && is_wanted(report))
}

pub(crate) fn is_joined(notice: &Notice, node: NodeIndex) -> bool {
    is_report(notice, node, |report| matches!(report, Report::Joined { .. }))
}
