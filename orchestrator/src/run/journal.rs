//! The journal: what a run is about to do outside of its directory, written and synchronised before it is done. Enough to
//! clean up after any crash.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::ProcessIdentity;
use crate::schedule::HostIndex;

/// The longest line that is read back, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The most lines that are read back.
const LINES_MAX: usize = 1_000_000;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in microseconds since 1970 (UTC).
    pub unix_us: u64,
    /// What.
    pub entry: Entry,
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The run begins.
    Run {
        /// The orchestrator's process.
        orchestrator: Option<ProcessIdentity>,
    },
    /// A host is about to be made ready: the node binary may be put into its cache.
    HostPreparing {
        /// Its name.
        name: String,
        /// By which backend.
        backend: String,
    },
    /// An agent is about to be started.
    AgentStarting {
        /// Its host.
        host: HostIndex,
        /// By which backend.
        backend: String,
        /// The node binary.
        program: PathBuf,
    },
    /// An agent has been started on this host.
    AgentStarted {
        /// Its host.
        host: HostIndex,
        /// Its process.
        process: ProcessIdentity,
    },
    /// An agent has ended, and was waited for: nothing of it is left.
    AgentEnded {
        /// Its host.
        host: HostIndex,
        /// How.
        status: String,
    },
    /// The run has ended and left nothing.
    Ended,
    /// `orchestrator clean` has been here.
    Cleaned {
        /// How many processes it ended.
        processes: usize,
    },
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be written.
    #[error("the journal {} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("the journal {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line makes no sense.
    #[error("line {line} of the journal {} makes no sense: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal at `path` to append to it.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let failed = |source| JournalError::Write { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // The file's name is to be as durable as what is in it.
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        Ok(Journal { path: path.to_owned(), file })
    }

    /// Writes an entry; when it returns, the entry is on the disk.
    ///
    /// # Errors
    /// [`JournalError::Write`]; what the entry is about must then not be done.
    pub fn write(&mut self, entry: Entry) -> Result<(), JournalError> {
        self.note(entry)?;
        self.file.sync_data().map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    /// Writes an entry that nothing depends on, and does not wait for the disk: on a busy one that can take seconds, in which agents
    /// hear nothing and leases run out.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn note(&mut self, entry: Entry) -> Result<(), JournalError> {
        let line = Line { unix_us: p2ps::agent::clock::unix_us(), entry };
        let mut text = serde_json::to_vec(&line).expect("a journal's line is plain data: nothing can fail");
        text.push(b'\n');
        self.file.write_all(&text).map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }
}

/// Reads a journal. A last line without its end was being written in a crash and is left out: what it was about has not
/// been done.
///
/// # Errors
/// [`JournalError::Read`], [`JournalError::Line`].
pub fn read(path: &Path) -> Result<Vec<Line>, JournalError> {
    let failed = |source| JournalError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut lines = Vec::new();
    let mut text = Vec::new();
    loop {
        text.clear();
        file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text).map_err(failed)?;
        let wrong = |reason| JournalError::Line { path: path.to_owned(), line: lines.len() + 1, reason };
        if text.last() != Some(&b'\n') {
            if text.len() as u64 == LINE_BYTES_MAX {
                return Err(wrong(format!("it has more than {LINE_BYTES_MAX} bytes")));
            }
            return Ok(lines);
        }
        if lines.len() == LINES_MAX {
            return Err(wrong(format!("there are more than {LINES_MAX} lines")));
        }
        let line = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_a_torn_last_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let process = ProcessIdentity { pid: 7, start_ticks: 9, boot_id: "b".into() };
        let entries = [
            Entry::Run { orchestrator: Some(process.clone()) },
            Entry::AgentStarting { host: 0, backend: "local".into(), program: "/x".into() },
            Entry::AgentStarted { host: 0, process },
        ];
        let mut journal = Journal::open(&path).unwrap();
        for entry in &entries {
            journal.write(entry.clone()).unwrap();
        }
        let mut journal = OpenOptions::new().append(true).open(&path).unwrap();
        journal.write_all(br#"{"unix_us":5,"entry":{"agent_en"#).unwrap();
        let read: Vec<Entry> = read(&path).unwrap().into_iter().map(|line| line.entry).collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        std::fs::write(&path, "{\"unix_us\":5,\"entry\":\"ended\"}\nnonsense\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.starts_with("line 2 of the journal"), "{error}");
    }
}
