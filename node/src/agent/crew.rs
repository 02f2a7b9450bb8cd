//! The worker processes of an agent, in which nodes live as tasks: as many as cores are of use, and as many more as the
//! system's limit on a process's open files asks for.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::body::{Life, NodeEvent, ORDERS_BYTES, line};
use super::lines::LineBuffer;
use super::protocol::{NOTICE_BYTES_MAX, NodeIndex};
use super::worker::Call;
use crate::control::Setup;

/// The most calls that wait for a worker that does not read; further ones are refused.
const CALLS_MAX: usize = 1 << 16;

/// How much is read at once, in bytes.
const READ_BYTES_MAX: usize = 64 << 10;

/// The worker processes; each is started when its first node is. When this is dropped, they end.
#[derive(Debug)]
pub(super) struct Crew {
    executable: PathBuf,
    workers: Vec<Option<Worker>>,
}

/// A process that was started and has not been reaped: its number is its own.
#[derive(Debug)]
struct Worker {
    pid: Pid,
    calls: mpsc::Sender<Bytes>,
}

impl Crew {
    /// So many workers, of this executable.
    pub(super) fn new(executable: PathBuf, workers: usize) -> Crew {
        Crew { executable, workers: (0..workers.max(1)).map(|_| None).collect() }
    }

    /// Starts a node; what comes from it goes to `events`.
    pub(super) fn start(
        &mut self,
        setup: &Setup,
        life: Life,
        events: mpsc::Sender<NodeEvent>,
    ) -> io::Result<Task> {
        let index = self.worker_of(life.node);
        let worker = match &mut self.workers[index] {
            Some(worker) => worker,
            none => none.insert(Worker::start(&self.executable, events)?),
        };
        let task = Task { life, calls: worker.calls.clone() };
        match task.call(Call::Start, &line(setup)) {
            true => Ok(task),
            false => Err(io::Error::other("its worker process takes no calls")),
        }
    }

    /// Kills all workers, and all nodes with them.
    pub(super) fn kill(&self) {
        for worker in self.workers.iter().flatten() {
            // It can only fail where the worker has ended; it is reaped then.
            kill_process_group(worker.pid, Signal::KILL).ok();
        }
    }

    /// Whether no worker runs.
    pub(super) fn is_gone(&self) -> bool {
        self.workers.iter().all(Option::is_none)
    }

    /// A process has been reaped: if it was a worker, its place is free. Gives back which.
    pub(super) fn reaped(&mut self, pid: Pid) -> Option<usize> {
        let is_it = |worker: &Option<Worker>| worker.as_ref().is_some_and(|worker| worker.pid == pid);
        let index = self.workers.iter().position(is_it)?;
        self.workers[index] = None;
        Some(index)
    }

    /// Which worker carries a node.
    pub(super) fn worker_of(&self, node: NodeIndex) -> usize {
        node as usize % self.workers.len()
    }
}

impl Worker {
    fn start(executable: &PathBuf, events: mpsc::Sender<NodeEvent>) -> io::Result<Worker> {
        // Its last words go where the agent's go.
        let mut child = Command::new(executable)
            .args(["agent", "--worker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both streams were asked for as pipes")
        };
        // The child is reaped by its number, with all others (`Roster::reap`).
        drop(child);
        let (calls, waiting) = mpsc::channel(CALLS_MAX);
        let stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
        tokio::spawn(write(stdin, waiting));
        tokio::spawn(read(pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?, events));
        Ok(Worker { pid, calls })
    }
}

/// Writes calls until the worker reads no more, or is not needed any more: the end of its input is the worker's end.
async fn write(mut stdin: pipe::Sender, mut calls: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut batch = Vec::new();
    while let Some(call) = calls.recv().await {
        batch.extend_from_slice(&call);
        while batch.len() < ORDERS_BYTES
            && let Ok(call) = calls.try_recv()
        {
            batch.extend_from_slice(&call);
        }
        stdin.write_all(&batch).await?;
        batch.clear();
        batch.shrink_to(ORDERS_BYTES);
    }
    Ok(())
}

/// Reads what nodes say until the worker says nothing any more, or something that is no event: then nobody reads it, and it
/// ends.
async fn read(mut stdout: pipe::Receiver, events: mpsc::Sender<NodeEvent>) -> io::Result<()> {
    let mut lines = LineBuffer::new(NOTICE_BYTES_MAX);
    let mut chunk = vec![0; READ_BYTES_MAX];
    loop {
        let length = stdout.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        lines.extend(&chunk[..length]);
        while let Some(line) = lines.next_line().map_err(io::Error::other)? {
            let event = serde_json::from_slice(line)?;
            // Only an agent that is ending does not hear it.
            events.send(event).await.map_err(|_| ErrorKind::BrokenPipe)?;
        }
    }
}

/// A node's task in one of the workers.
#[derive(Debug)]
pub(super) struct Task {
    life: Life,
    calls: mpsc::Sender<Bytes>,
}

impl Task {
    /// Gives it an order, as a line. `false`: too many calls wait for its worker, or that has ended.
    pub(super) fn say(&self, order: &Bytes) -> bool {
        self.call(Call::Order, order)
    }

    pub(super) fn pause(&self) {
        self.call(Call::Pause, b"\n");
    }

    pub(super) fn resume(&self) {
        self.call(Call::Resume, b"\n");
    }

    pub(super) fn kill(&self) {
        self.call(Call::Kill, b"\n");
    }

    fn call(&self, call: Call, what: &[u8]) -> bool {
        self.calls.try_send(call.line(self.life, what)).is_ok()
    }
}
