//! One node's process: its start, and the task that talks with it over its standard streams.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use rustix::process::{Pid, Signal, getpriority_process, kill_process_group, setpriority_process};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::body::{Heard, Life, NodeEvent, ORDERS_BYTES, ORDERS_MAX, line};
use super::lines::LineBuffer;
use crate::control::{LINE_BYTES_MAX, Report, Setup};

/// By how much nodes are nicer than their agent (nice(2)). On a busy host the agent then gets a processor when an action is due, rather
/// than when hundreds of nodes have had their turns.
const NICE: i32 = 10;

/// The nicest that a process can be.
const NICE_MAX: i32 = 19;

/// How much is read at once, in bytes.
const READ_BYTES_MAX: usize = 16 << 10;

/// How much of a node's standard error is kept: the last so many bytes.
const STDERR_BYTES_MAX: usize = 4 << 10;

/// A process that was started and has not been reaped: its number is its own.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    orders: mpsc::Sender<Bytes>,
}

impl Process {
    /// Starts `executable` as a managed node, the leader of a process group of its own.
    pub(super) fn start(
        executable: &Path,
        setup: &Setup,
        life: Life,
        events: mpsc::Sender<NodeEvent>,
    ) -> io::Result<Process> {
        // Nothing that would keep the library from posix_spawn: it is several times quicker than fork.
        let mut child = Command::new(executable)
            .args(["run", "--managed"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        // From the side, since a library call in the child would keep it from posix_spawn. It never raises: that is not allowed.
        let nice = getpriority_process(None).unwrap_or(0).saturating_add(NICE).min(NICE_MAX);
        setpriority_process(Some(pid), nice).ok();
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three streams were asked for as pipes")
        };
        // The child is reaped by its number, with all others (`Roster::reap`).
        drop(child);
        let streams = || {
            let stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
            let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
            let stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
            io::Result::Ok((stdin, stdout, stderr))
        };
        let (stdin, stdout, stderr) = match streams() {
            Ok(streams) => streams,
            Err(error) => {
                signal(pid, Signal::KILL);
                return Err(error);
            }
        };
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        let talk = Talk {
            life,
            events,
            stdin: Some(stdin),
            unwritten: line(setup).into(),
            orders: waiting,
            orders_open: true,
            stdout: Some(stdout),
            lines: LineBuffer::new(LINE_BYTES_MAX),
            rubbish: false,
            stderr: Some(stderr),
            stderr_tail: Vec::new(),
        };
        tokio::spawn(talk.run());
        Ok(Process { pid, orders })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Gives the node an order, as a line. `false`: too many wait already, or it reads no more.
    pub(super) fn say(&self, line: Bytes) -> bool {
        self.orders.try_send(line).is_ok()
    }

    /// Stops the process and its group (SIGSTOP). It can be killed nevertheless.
    pub(super) fn pause(&self) {
        signal(self.pid, Signal::STOP);
    }

    /// Lets them go on (SIGCONT).
    pub(super) fn resume(&self) {
        signal(self.pid, Signal::CONT);
    }

    /// Kills the process and its group (SIGKILL).
    pub(super) fn kill(&self) {
        signal(self.pid, Signal::KILL);
    }
}

fn signal(pid: Pid, signal: Signal) {
    // It can only fail where nothing of the group is left; its end is told of elsewhere.
    kill_process_group(pid, signal).ok();
}

/// The task that talks with one process, until both of its output streams are closed.
struct Talk {
    life: Life,
    events: mpsc::Sender<NodeEvent>,
    stdin: Option<pipe::Sender>,
    unwritten: Vec<u8>,
    orders: mpsc::Receiver<Bytes>,
    orders_open: bool,
    stdout: Option<pipe::Receiver>,
    lines: LineBuffer,
    /// Standard output is only drained from here on.
    rubbish: bool,
    stderr: Option<pipe::Receiver>,
    stderr_tail: Vec<u8>,
}

impl Talk {
    async fn run(mut self) {
        while self.stdout.is_some() || self.stderr.is_some() {
            let heard = tokio::select! {
                Some(()) = readable(self.stdout.as_ref()) => self.read_stdout(),
                Some(()) = readable(self.stderr.as_ref()) => {
                    self.read_stderr();
                    None
                }
                Some(()) = writable(self.stdin.as_ref()), if !self.unwritten.is_empty() => {
                    self.write();
                    None
                }
                order = self.orders.recv(), if self.orders_open && self.unwritten.is_empty() => {
                    self.take_orders(order);
                    None
                }
            };
            if let Some(what) = heard {
                self.tell(what).await;
            }
        }
        let stderr = String::from_utf8_lossy(&self.stderr_tail).trim_end().to_owned();
        self.tell(Heard::Silence { stderr }).await;
    }

    async fn tell(&self, what: Heard) {
        // Only an agent that is ending does not hear it.
        self.events.send(NodeEvent { life: self.life, what }).await.ok();
    }

    fn read_stdout(&mut self) -> Option<Heard> {
        let mut chunk = [0; READ_BYTES_MAX];
        match self.stdout.as_ref()?.try_read(&mut chunk) {
            Ok(0) => self.stdout = None,
            Ok(_) if self.rubbish => {}
            Ok(length) => {
                self.lines.extend(&chunk[..length]);
                return self.words();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.stdout = None,
        }
        None
    }

    /// The words in the lines that are complete. A bad line ends all listening; what came before it is lost with it.
    fn words(&mut self) -> Option<Heard> {
        let mut words = Vec::new();
        let error = loop {
            match self.lines.next_line() {
                Ok(None) => return if words.is_empty() { None } else { Some(Heard::Words(words)) },
                Ok(Some(line)) => match serde_json::from_slice::<Report>(line) {
                    Ok(report) => words.push(report),
                    Err(error) => break error.to_string(),
                },
                Err(error) => break error.to_string(),
            }
        };
        self.rubbish = true;
        Some(Heard::Rubbish(error))
    }

    fn read_stderr(&mut self) {
        let mut chunk = [0; READ_BYTES_MAX];
        let Some(stderr) = &self.stderr else { return };
        match stderr.try_read(&mut chunk) {
            Ok(0) => self.stderr = None,
            Ok(length) => {
                self.stderr_tail.extend_from_slice(&chunk[..length]);
                let excess = self.stderr_tail.len().saturating_sub(STDERR_BYTES_MAX);
                self.stderr_tail.drain(..excess);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.stderr = None,
        }
    }

    fn write(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        match stdin.try_write(&self.unwritten) {
            Ok(length) => drop(self.unwritten.drain(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The process is ending, and its end is told of elsewhere.
            Err(_) => self.close_stdin(),
        }
        if self.unwritten.is_empty() {
            self.unwritten.shrink_to(ORDERS_BYTES);
        }
    }

    fn take_orders(&mut self, first: Option<Bytes>) {
        match first {
            None => self.close_stdin(),
            Some(order) => {
                self.unwritten.extend_from_slice(&order);
                while self.unwritten.len() < ORDERS_BYTES
                    && let Ok(order) = self.orders.try_recv()
                {
                    self.unwritten.extend_from_slice(&order);
                }
                // At once, since a node that reads leaves room: one turn of the event loop less.
                self.write();
            }
        }
    }

    fn close_stdin(&mut self) {
        self.stdin = None;
        self.unwritten.clear();
        self.orders.close();
        self.orders_open = false;
    }
}

async fn readable(stream: Option<&pipe::Receiver>) -> Option<()> {
    // An error shows when it is read.
    stream?.readable().await.ok();
    Some(())
}

async fn writable(stream: Option<&pipe::Sender>) -> Option<()> {
    stream?.writable().await.ok();
    Some(())
}
