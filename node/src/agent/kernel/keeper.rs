//! The keeper: a process beside an agent that owns the roots of its interfaces' queues.
//!
//! The kernel keeps queues whatever becomes of who made them. So roots are made by a process that does nothing else, and removes them when its
//! agent's end of the pipe closes: at the agent's end, however that comes. It is in a session of its own and heeds no signal that can be
//! heeded otherwise, since it is to outlive its agent, shortly. While it keeps an interface it has a socket with a name of the network
//! namespace, which the kernel takes away with the process: two agents do not shape one interface, and queues that are ours but have no
//! keeper (both were killed at once) are known for that and taken away by the next, or by [`sweep`].

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use super::queues::{Interface, QueueError, Queues};
use crate::agent::AgentError;
use crate::agent::host::executable;

/// The most interfaces that one agent shapes.
pub(super) const INTERFACES_MAX: usize = 16;

/// How long a keeper may take to answer; a root is made and removed in some milliseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How long another keeper may take to leave an interface, whose agent has just ended.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The longest line between an agent and its keeper, in bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// What a keeper answers where all went well, and what it says last.
const DONE: &str = "done";
const GONE: &str = "gone";

/// Why a keeper is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::agent) enum KeeperError {
    #[error("{0}")]
    Said(String),
    #[error("the process that keeps queues cannot be started: {0}")]
    NotStarted(String),
    #[error("the process that keeps queues does not answer")]
    Silent,
}

/// An agent's keeper. When this is dropped, it ends, and its roots with it.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The interfaces that are claimed, and whether our root is there.
    kept: BTreeMap<Interface, bool>,
}

impl Keeper {
    pub(super) fn start() -> Result<Keeper, KeeperError> {
        let failed = |error: io::Error| KeeperError::NotStarted(error.to_string());
        let mut child = Command::new(executable())
            .args(["agent", "--keeper"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.expect("its output was asked for as a pipe"));
        Ok(Keeper { child, requests, answers, kept: BTreeMap::new() })
    }

    /// Nobody else is to shape an interface from now on; nothing is changed at it, but for what a keeper has left that was killed.
    pub(super) fn claim(&mut self, interface: Interface) -> Result<(), KeeperError> {
        if !self.kept.contains_key(&interface) {
            self.ask("claim", interface)?;
            self.kept.insert(interface, false);
        }
        Ok(())
    }

    /// Makes a claimed interface's root ours, or the kernel's again.
    pub(super) fn keep(&mut self, interface: Interface, wanted: bool) -> Result<(), KeeperError> {
        if self.kept.get(&interface) != Some(&wanted) {
            self.ask(if wanted { "make" } else { "remove" }, interface)?;
            self.kept.insert(interface, wanted);
        }
        Ok(())
    }

    fn ask(&mut self, what: &str, interface: Interface) -> Result<(), KeeperError> {
        let requests = self.requests.as_mut().ok_or(KeeperError::Silent)?;
        // One that was killed reads nothing.
        writeln!(requests, "{what} {interface}").map_err(|_| KeeperError::Silent)?;
        match self.answer()? {
            Some(answer) if answer == DONE => Ok(()),
            Some(answer) => Err(KeeperError::Said(answer)),
            None => Err(KeeperError::Silent),
        }
    }

    /// The next line; `None`: it has ended.
    fn answer(&mut self) -> Result<Option<String>, KeeperError> {
        let deadline = Instant::now() + ANSWER_WAIT;
        while self.answers.buffer().is_empty() {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()));
            let left = left.map_err(|_| KeeperError::Silent)?;
            match poll(&mut [PollFd::new(self.answers.get_ref(), PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(KeeperError::Silent),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(KeeperError::Silent),
            }
        }
        // A line is written at once, so that the rest of it is there.
        Ok(read_line(&mut self.answers))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.requests.take());
        let mut is_gone = false;
        let has_ended = loop {
            match self.answer() {
                Ok(Some(answer)) => is_gone |= answer == GONE,
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if has_ended {
            // It may have been reaped already, with the nodes.
            self.child.wait().ok();
        }
        if !is_gone && let Ok(queues) = Queues::open() {
            // It was killed before it could do it, or hangs.
            for (interface, _) in self.kept.iter().filter(|(_, is_made)| **is_made) {
                queues.remove_root(*interface).ok();
            }
        }
    }
}

/// Keeps what the process that started this one says on standard input, until that ends.
pub(in crate::agent) fn run() -> Result<(), AgentError> {
    let cannot = |what| move |source| AgentError::System { what, source };
    rustix::process::setsid().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(cannot("start its event loop"))?;
    // Heard by nobody.
    let _signals = runtime.block_on(async {
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal)
    });
    let queues = Queues::open().map_err(io::Error::other).map_err(cannot("speak of queues"))?;
    let mut keeping = Keeping { queues, kept: BTreeMap::new() };
    let mut input = io::stdin().lock();
    while let Some(line) = read_line(&mut input) {
        say(&match keeping.obey(&line) {
            Ok(()) => DONE.to_owned(),
            Err(error) => error.to_string(),
        });
    }
    keeping.end();
    say(GONE);
    Ok(())
}

/// Removes the roots that are ours and that no process keeps; the names of their interfaces.
///
/// # Errors
/// What the system said.
pub(in crate::agent) fn sweep() -> io::Result<Vec<String>> {
    let queues = Queues::open().map_err(io::Error::other)?;
    let mut swept = Vec::new();
    for line in std::fs::read_to_string("/proc/self/net/dev")?.lines() {
        let Some((name, _)) = line.split_once(':') else { continue };
        let Some(interface) = queues.named(name.trim()) else { continue };
        if queues.is_ours(interface) == Ok(true) && claim(interface).is_ok() {
            queues.remove_root(interface).map_err(io::Error::other)?;
            swept.push(name.trim().to_owned());
        }
    }
    Ok(swept)
}

/// What a keeper keeps.
struct Keeping {
    queues: Queues,
    kept: BTreeMap<Interface, UnixDatagram>,
}

/// Why a keeper does not do as it is told.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("`{0}` is nothing that it knows")]
    Unknown(String),
    #[error("at most {INTERFACES_MAX} interfaces are shaped")]
    TooMany,
    #[error(
        "another agent shapes interface {0}: two of them in one network namespace cannot both degrade links (faults: {{with: node}} can)"
    )]
    Taken(String),
    #[error("interface {name} cannot be claimed: {source}")]
    Claim { name: String, source: io::Error },
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Keeping {
    fn obey(&mut self, line: &str) -> Result<(), KeepError> {
        let unknown = || KeepError::Unknown(line.to_owned());
        let (what, interface) = line.split_once(' ').ok_or_else(unknown)?;
        let interface: Interface = interface.parse().map_err(|_| unknown())?;
        match what {
            "claim" if self.kept.contains_key(&interface) => Ok(()),
            "claim" => self.claim(interface),
            "make" if self.kept.contains_key(&interface) => Ok(self.queues.add_root(interface)?),
            "remove" if self.kept.contains_key(&interface) => Ok(self.queues.remove_root(interface)?),
            _ => Err(unknown()),
        }
    }

    fn claim(&mut self, interface: Interface) -> Result<(), KeepError> {
        if self.kept.len() >= INTERFACES_MAX {
            return Err(KeepError::TooMany);
        }
        let deadline = Instant::now() + CLAIM_WAIT;
        let socket = loop {
            match claim(interface) {
                Ok(socket) => break socket,
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    let name = self.queues.name(interface);
                    return Err(KeepError::Claim { name, source: error });
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(KeepError::Taken(self.queues.name(interface)));
                }
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        };
        if self.queues.is_ours(interface)? {
            self.queues.remove_root(interface)?;
        }
        self.kept.insert(interface, socket);
        Ok(())
    }

    fn end(self) {
        for interface in self.kept.keys() {
            // What cannot be removed now is known for ours.
            self.queues.remove_root(*interface).ok();
        }
    }
}

/// The name of an interface's keeper, in the network namespace; it is free again when the socket is closed.
fn claim(interface: Interface) -> io::Result<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("p2ps-queues-{interface}"))?;
    UnixDatagram::bind_addr(&name)
}

fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let length = input.take(LINE_BYTES_MAX).read_line(&mut line).ok()?;
    (length > 0).then(|| line.trim_end().to_owned())
}

fn say(line: &str) {
    // Nobody hears it where the agent is gone.
    let mut output = io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush()).ok();
}
