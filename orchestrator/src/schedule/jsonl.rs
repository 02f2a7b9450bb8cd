//! `schedule.jsonl`: one action a line.

use std::io::{self, BufRead, Read, Write};

use p2ps::agent::protocol::{ACTIONS_MAX, Action};

/// The longest line of a schedule that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 32 << 10;

/// Writes `actions`, one a line.
///
/// # Errors
/// What `out` says.
pub fn write_jsonl(actions: &[Action], mut out: impl Write) -> io::Result<()> {
    for action in actions {
        serde_json::to_writer(&mut out, action)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads what [`write_jsonl`] wrote.
///
/// # Errors
/// [`JsonlError`] where a line is no action or is too long, where there are too many, or where `input` cannot be read.
pub fn read_jsonl(mut input: impl BufRead) -> Result<Vec<Action>, JsonlError> {
    let mut actions = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let bytes = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if bytes == 0 {
            break;
        }
        if bytes > LINE_BYTES_MAX {
            return Err(JsonlError::Long { line: number });
        }
        if actions.len() == ACTIONS_MAX {
            return Err(JsonlError::TooMany);
        }
        actions
            .push(serde_json::from_slice(&line).map_err(|source| JsonlError::Line { line: number, source })?);
    }
    Ok(actions)
}

/// Why a schedule cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonlError {
    /// The input cannot be read.
    #[error("the schedule cannot be read")]
    Io(#[from] io::Error),
    /// A line is no action.
    #[error("line {line} of the schedule is no action")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line is too long.
    #[error("line {line} of the schedule has more than {LINE_BYTES_MAX} bytes")]
    Long {
        /// From 1.
        line: usize,
    },
    /// There are too many lines.
    #[error("the schedule has more than {ACTIONS_MAX} actions")]
    TooMany,
}
