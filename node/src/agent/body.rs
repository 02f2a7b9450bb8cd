//! What a node lives in: a process of its own, or a task of one that it shares with others. Whatever it is, it is told the same orders, can be
//! paused and killed, and ends in the same words.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use rustix::process::WaitStatus;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::crew::{Crew, Task};
use super::process::Process;
use super::protocol::NodeIndex;
use crate::control::{Order, Report, Setup};

/// The most orders that wait for a node that does not read; further ones are refused.
pub(super) const ORDERS_MAX: usize = 4096;

/// How much of the waiting orders is passed on at once, in bytes.
pub(super) const ORDERS_BYTES: usize = 16 << 10;

/// One life of a node: from the start of its process or task to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) node: NodeIndex,
    /// 1 for the node's first.
    pub(super) number: u32,
}

/// What came from a node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeEvent {
    pub(super) life: Life,
    pub(super) what: Heard,
}

/// What was heard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Heard {
    /// What it said.
    Words(Vec<Report>),
    /// Something that is no report; no further word of it is heard.
    Rubbish(String),
    /// It will say nothing more; the end of what it wrote to standard error.
    Silence { stderr: String },
    /// Its task has ended, after its silence. The end of a process is told of by the system.
    Ended(Exit),
}

/// How a process or a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal; a task that was killed says SIGKILL, too.
    Signal(i32),
    /// Otherwise: the system's words.
    Status(i32),
}

impl Exit {
    /// The code of what panicked.
    pub(super) const PANIC: Exit = Exit::Code(101);

    /// The end of what was killed.
    pub(super) const KILLED: Exit = Exit::Signal(rustix::process::Signal::KILL.as_raw());
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Exit {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Status(status.as_raw()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
            Exit::Status(status) => write!(f, "status {status:#x}"),
        }
    }
}

/// In what the nodes of a host live.
#[derive(Debug)]
pub(super) enum Housing {
    /// Each in a process of its own, of this executable.
    Processes(PathBuf),
    /// Many in one, by a few worker processes.
    Tasks(Crew),
}

impl Housing {
    /// Starts a node; what comes from it goes to `events`.
    pub(super) fn start(
        &mut self,
        setup: &Setup,
        life: Life,
        events: mpsc::Sender<NodeEvent>,
    ) -> io::Result<Body> {
        match self {
            Housing::Processes(executable) => {
                Process::start(executable, setup, life, events).map(Body::Process)
            }
            Housing::Tasks(crew) => crew.start(setup, life, events).map(Body::Task),
        }
    }
}

/// A node that was started.
#[derive(Debug)]
pub(super) enum Body {
    Process(Process),
    Task(Task),
}

impl Body {
    /// Gives the node an order. `false`: too many wait already, or it reads no more.
    pub(super) fn order(&self, order: &Order) -> bool {
        self.say(line(order))
    }

    /// The same for an order that is a line already: one that many are given takes room once.
    pub(super) fn say(&self, line: Bytes) -> bool {
        match self {
            Body::Process(process) => process.say(line),
            Body::Task(task) => task.say(&line),
        }
    }

    /// It computes nothing any more, and keeps its links. It can be killed nevertheless.
    pub(super) fn pause(&self) {
        match self {
            Body::Process(process) => process.pause(),
            Body::Task(task) => task.pause(),
        }
    }

    /// It goes on.
    pub(super) fn resume(&self) {
        match self {
            Body::Process(process) => process.resume(),
            Body::Task(task) => task.resume(),
        }
    }

    /// It is gone, without a word to anybody.
    pub(super) fn kill(&self) {
        match self {
            Body::Process(process) => process.kill(),
            Body::Task(task) => task.kill(),
        }
    }
}

/// A value as a line for a node.
pub(super) fn line(value: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("an order is plain data: nothing can fail");
    line.push(b'\n');
    line.into()
}
