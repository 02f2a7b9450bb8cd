//! Clean-up after a crash, from the journal alone: ends what a run has left behind, and nothing else.
//!
//! A process is ended only if its number, its start time and the host's boot are those that the journal has. An agent leads
//! a session of its own, and its nodes are the node binaries in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::journal::{self, Entry, Journal, JournalError};
use super::process::{ProcessIdentity, session_members};
use crate::schedule::HostIndex;

/// How long an agent may take to end its nodes and itself; then it is killed.
const AGENT_WAIT: Duration = Duration::from_secs(3);

/// How long killed processes may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What was found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The orchestrator that still carries out this run, if any: then nothing was done.
    pub still_running: Option<u32>,
    /// The agents that were ended.
    pub agents: Vec<u32>,
    /// The nodes that were ended.
    pub nodes: Vec<u32>,
    /// What could not be ended.
    pub left: Vec<u32>,
    /// The interfaces from which queues were removed that an agent had left, of this run or another: no process kept them any more.
    pub queues: Vec<String>,
}

impl Cleaned {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        *self == Cleaned::default()
    }
}

/// Why clean-up failed.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system refused to remove queues that an agent has left.
    #[error("queues that an agent has left at an interface cannot be removed (tc qdisc show)")]
    Queues(#[source] io::Error),
    /// The system refused to end a process.
    #[error("process {pid} cannot be ended")]
    Refused {
        /// Its number.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
}

/// Ends whatever the run with this journal has left on this host. Blocks for some seconds at most.
///
/// # Errors
/// [`CleanupError`].
pub fn clean(journal_path: &Path) -> Result<Cleaned, CleanupError> {
    let remains = Remains::read(journal_path)?;
    if let Some(orchestrator) = &remains.orchestrator
        && orchestrator.pid != std::process::id()
        && orchestrator.is_running()
    {
        return Ok(Cleaned { still_running: Some(orchestrator.pid), ..Cleaned::default() });
    }
    let mut cleaned = Cleaned::default();
    for (agent, program) in remains.agents.values() {
        let names = names(program);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        end_agent(agent, &names, &mut cleaned)?;
    }
    cleaned.queues = p2ps::agent::sweep_queues().map_err(CleanupError::Queues)?;
    if !cleaned.is_nothing() {
        let processes = cleaned.agents.len() + cleaned.nodes.len();
        Journal::open(journal_path)?.write(Entry::Cleaned { processes })?;
    }
    Ok(cleaned)
}

/// What a journal says may be left.
struct Remains {
    orchestrator: Option<ProcessIdentity>,
    agents: BTreeMap<HostIndex, (ProcessIdentity, PathBuf)>,
}

impl Remains {
    fn read(path: &Path) -> Result<Remains, JournalError> {
        let mut remains = Remains { orchestrator: None, agents: BTreeMap::new() };
        let mut programs = BTreeMap::new();
        for line in journal::read(path)? {
            match line.entry {
                Entry::Run { orchestrator } => remains.orchestrator = orchestrator,
                Entry::AgentStarting { host, program, .. } => {
                    programs.insert(host, program);
                }
                Entry::AgentStarted { host, process } => {
                    let program = programs.get(&host).cloned().unwrap_or_default();
                    remains.agents.insert(host, (process, program));
                }
                // An agent that ended may still have left nodes behind, if it was killed: it is looked at again.
                Entry::AgentEnded { .. } | Entry::Cleaned { .. } | Entry::HostPreparing { .. } => {}
                Entry::Ended => remains.agents.clear(),
            }
        }
        Ok(remains)
    }
}

/// The names under which the system lists the node binary's processes: at most 15 bytes, and `exe` where it was started
/// by its link in `/proc`.
fn names(program: &Path) -> Vec<String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let cut = (0..=name.len().min(15)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    vec![name[..cut].to_owned(), "exe".to_owned()]
}

fn end_agent(agent: &ProcessIdentity, names: &[&str], cleaned: &mut Cleaned) -> Result<(), CleanupError> {
    if send(agent, Signal::TERM)? {
        cleaned.agents.push(agent.pid);
        wait_gone(std::slice::from_ref(agent), AGENT_WAIT);
        send(agent, Signal::KILL)?;
    }
    // In rounds, since an agent that was killed may just have started one more.
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        let nodes = session_members(agent, names);
        if nodes.is_empty() && !agent.is_running() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            cleaned.left.extend(nodes.iter().map(|node| node.pid));
            cleaned.left.extend(agent.is_running().then_some(agent.pid));
            return Ok(());
        }
        for node in &nodes {
            if send(node, Signal::KILL)? && !cleaned.nodes.contains(&node.pid) {
                cleaned.nodes.push(node.pid);
            }
        }
        wait_gone(&nodes, LOOK_EVERY * 10);
    }
}

fn send(process: &ProcessIdentity, signal: Signal) -> Result<bool, CleanupError> {
    process.signal(signal).map_err(|source| CleanupError::Refused { pid: process.pid, source })
}

fn wait_gone(processes: &[ProcessIdentity], length_max: Duration) {
    let deadline = Instant::now() + length_max;
    while processes.iter().any(ProcessIdentity::is_running) && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A `setsid`-led session with a process of the name `sleep` in it, like an agent with a node.
    #[expect(clippy::zombie_processes, reason = "each test waits for the leader that it is given")]
    fn session() -> (Child, ProcessIdentity) {
        let leader = Command::new("setsid")
            .args(["sh", "-c", "sleep 61 & wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            // The leader's name changes until it is the shell, its child's until it is the sleep.
            let identity = ProcessIdentity::of(leader.id()).unwrap();
            if !session_members(&identity, &["sleep"]).is_empty() {
                return (leader, identity);
            }
            assert!(Instant::now() < patience, "no sleep in the session of {identity:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn journal(process: ProcessIdentity) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.write(Entry::Run { orchestrator: None }).unwrap();
        let program = PathBuf::from("/bin/sleep");
        journal.write(Entry::AgentStarting { host: 0, backend: "local".into(), program }).unwrap();
        journal.write(Entry::AgentStarted { host: 0, process }).unwrap();
        (directory, path)
    }

    #[test]
    fn a_forgotten_agent_and_its_nodes_are_ended_and_then_nothing_is_left() {
        let (mut leader, identity) = session();
        let (_directory, path) = journal(identity.clone());
        let members = session_members(&identity, &["sleep"]);
        assert_eq!(members.len(), 1, "{members:?}");
        let reaper = std::thread::spawn(move || leader.wait());
        let cleaned = clean(&path).unwrap();
        assert_eq!(cleaned.agents, [identity.pid]);
        assert_eq!(cleaned.nodes, [members[0].pid]);
        assert!(cleaned.left.is_empty());
        reaper.join().unwrap().unwrap();
        assert!(!members[0].is_running());
        assert!(clean(&path).unwrap().is_nothing());
    }

    #[test]
    fn nodes_are_found_when_their_agent_is_dead_already() {
        let (mut leader, identity) = session();
        let (_directory, path) = journal(identity.clone());
        leader.kill().unwrap();
        leader.wait().unwrap();
        let cleaned = clean(&path).unwrap();
        assert_eq!((cleaned.agents.len(), cleaned.nodes.len()), (0, 1), "{cleaned:?}");
    }

    #[test]
    fn a_process_that_only_has_the_same_number_is_left_alone_with_its_session() {
        let (mut leader, identity) = session();
        let stranger = ProcessIdentity { start_ticks: identity.start_ticks - 1, ..identity.clone() };
        let (_directory, path) = journal(stranger);
        assert!(clean(&path).unwrap().is_nothing());
        assert!(identity.is_running());
        let members = session_members(&identity, &["sleep"]);
        assert_eq!(members.len(), 1);
        assert!(members[0].signal(Signal::KILL).unwrap());
        leader.kill().unwrap();
        leader.wait().unwrap();
    }

    #[test]
    fn a_run_that_is_still_carried_out_is_left_alone() {
        let (mut leader, identity) = session();
        let (_directory, path) = journal(identity.clone());
        let orchestrator = session_members(&identity, &["sleep"]).remove(0);
        Journal::open(&path).unwrap().write(Entry::Run { orchestrator: Some(orchestrator.clone()) }).unwrap();
        assert_eq!(clean(&path).unwrap().still_running, Some(orchestrator.pid));
        assert!(identity.is_running());
        assert!(orchestrator.signal(Signal::KILL).unwrap());
        leader.kill().unwrap();
        leader.wait().unwrap();
    }
}
