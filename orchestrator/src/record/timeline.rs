//! `timeline.jsonl`: what was done (planned against achieved) and what happened, one event a line, in the order in which
//! the orchestrator heard of it. With it a run can be judged again.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use p2ps::agent::protocol::NodeIndex;
use p2ps::id::Id;
use serde::Serialize;

use super::RecordError;

/// The most lines of a timeline: a babbling node does not fill the disk.
const LINES_MAX: u64 = 50_000_000;

/// One line. Times in microseconds since the run's start.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    Action {
        index: u64,
        host: &'a str,
        node: NodeIndex,
        #[serde(rename = "do")]
        action: &'static str,
        planned_us: u64,
        achieved_us: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
    Listening {
        host: &'a str,
        node: NodeIndex,
        access_point: String,
    },
    Joined {
        host: &'a str,
        node: NodeIndex,
        at_us: u64,
    },
    Ring {
        host: &'a str,
        node: NodeIndex,
        at_us: u64,
        predecessor: Option<Id>,
        successor: Id,
    },
    Left {
        host: &'a str,
        node: NodeIndex,
        at_us: u64,
        handed_over: bool,
    },
    Failed {
        host: &'a str,
        node: NodeIndex,
        error: &'a str,
    },
    Exited {
        host: &'a str,
        node: NodeIndex,
        at_us: u64,
        status: &'a str,
        expected: bool,
        #[serde(skip_serializing_if = "str::is_empty")]
        stderr: &'a str,
    },
    HostReady {
        host: &'a str,
    },
    HostLost {
        host: &'a str,
        at_us: u64,
        noticed_us: u64,
        gone_us: u64,
        reason: &'a str,
    },
    Problem {
        host: &'a str,
        error: &'a str,
    },
}

/// The file.
#[derive(Debug)]
pub(super) struct Timeline {
    path: PathBuf,
    file: BufWriter<File>,
    lines: u64,
}

impl Timeline {
    pub(super) fn create(path: PathBuf) -> Result<Timeline, RecordError> {
        match File::create(&path) {
            Ok(file) => Ok(Timeline { path, file: BufWriter::new(file), lines: 0 }),
            Err(source) => Err(RecordError::File { doing: "create", path, source }),
        }
    }

    pub(super) fn write(&mut self, event: &Event<'_>) -> Result<(), RecordError> {
        if self.lines >= LINES_MAX {
            return Ok(());
        }
        self.lines += 1;
        serde_json::to_writer(&mut self.file, event)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|source| self.error(source))
    }

    /// Hands all lines to the system: what was written outlives the orchestrator.
    pub(super) fn flush(&mut self) -> Result<(), RecordError> {
        self.file.flush().map_err(|source| self.error(source))
    }

    fn error(&self, source: std::io::Error) -> RecordError {
        RecordError::File { doing: "write", path: self.path.clone(), source }
    }
}
