//! Traces: when each node of a measured network was up.
//!
//! | format | a line |
//! |---|---|
//! | `avt` | `id n start end start end …`: n sessions in seconds, their ends included (P. B. Godfrey's availability traces) |
//! | `splay` | one node: when it came, when it went, when it came, … in seconds; an odd number of times: it is up at the end |
//! | `oversim` | `t node JOIN` or `t node LEAVE`, in time order |
//! | `csv` | `node,start,end`, one session; without an end: it is up at the end. A first line `node,start,end` is a heading |
//!
//! Empty lines and those that begin with `#` say nothing. Times may have fractions. All are counted from the trace's first event.

mod formats;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::churn::End;

pub use self::formats::Format;

/// The largest trace, in bytes.
pub const TRACE_BYTES_MAX: u64 = 64 << 20;

/// The most nodes of a trace.
pub const TRACE_NODES_MAX: usize = 1_000_000;

/// The most sessions of a trace.
pub const TRACE_SESSIONS_MAX: usize = 2_000_000;

/// The end of a session that does not end in the trace.
pub const OPEN_END: u64 = u64::MAX;

/// The sessions of one node, in time order, `[start, end)`, in microseconds.
pub type Sessions = Vec<(u64, u64)>;

/// A trace that is played in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// The file.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// How much faster than in the trace time goes.
    pub speed_up: f64,
    /// What is played of it, in the trace's time.
    pub window: (Duration, Duration),
    /// How sessions end.
    pub end: End,
    /// The nodes that are ever up in the window, in the run's microseconds since the window's beginning. Sessions that are
    /// under way then begin at 0; those that go on until the window's end, or beyond, have an open end
    /// (a measurement that ends closes all sessions, which says nothing of the nodes).
    #[serde(skip)]
    pub nodes: Arc<Vec<Sessions>>,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than may be.
    #[error("{} has more than {TRACE_BYTES_MAX} bytes", path.display())]
    Large {
        /// The file.
        path: PathBuf,
    },
    /// A line is not as the format has it.
    #[error("{}, line {line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Nobody is ever up.
    #[error("{}: no node is up {when}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// In the whole trace, or in the window.
        when: &'static str,
    },
}

/// How a trace is to be played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Playing {
    pub(crate) format: Format,
    pub(crate) speed_up: f64,
    /// From when on, in the trace's time since its first event.
    pub(crate) from: Duration,
    /// Until when; `None`: its last event.
    pub(crate) to: Option<Duration>,
    pub(crate) end: End,
}

impl Trace {
    /// Reads the file at `path`, which messages call `name`.
    pub(crate) fn read(path: &Path, name: &Path, playing: Playing) -> Result<Trace, TraceError> {
        let unreadable = |source| TraceError::Unreadable { path: name.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut file = std::io::Read::take(file, TRACE_BYTES_MAX + 1);
        std::io::Read::read_to_string(&mut file, &mut text).map_err(unreadable)?;
        if text.len() as u64 > TRACE_BYTES_MAX {
            return Err(TraceError::Large { path: name.to_owned() });
        }
        let nodes = formats::parse(playing.format, &text).map_err(|(line, message)| TraceError::Line {
            path: name.to_owned(),
            line,
            message,
        })?;
        let Some((first_us, last_us)) = extent(&nodes) else {
            return Err(TraceError::Empty { path: name.to_owned(), when: "in it" });
        };
        let whole = Duration::from_micros(last_us - first_us);
        let window = (playing.from, playing.to.unwrap_or(whole).max(playing.from));
        let nodes = windowed(&nodes, first_us, window, playing.speed_up);
        if nodes.is_empty() {
            return Err(TraceError::Empty { path: name.to_owned(), when: "in this window" });
        }
        Ok(Trace {
            file: path.to_owned(),
            format: playing.format,
            speed_up: playing.speed_up,
            window,
            end: playing.end,
            nodes: Arc::new(nodes),
        })
    }

    /// How long it takes, in the run's time.
    pub fn length(&self) -> Duration {
        let seconds = (self.window.1 - self.window.0).as_secs_f64() / self.speed_up;
        Duration::from_micros((seconds * 1e6).round() as u64)
    }

    /// How many of its nodes are up at first.
    pub fn up_at_first(&self) -> usize {
        self.nodes
            .iter()
            .filter(|sessions| sessions.first().is_some_and(|(from_us, _)| *from_us == 0))
            .count()
    }

    /// How many of its nodes are up at the end of it.
    pub fn up_at_last(&self) -> usize {
        self.nodes
            .iter()
            .filter(|sessions| sessions.last().is_some_and(|(_, until_us)| *until_us == OPEN_END))
            .count()
    }

    /// The most of its nodes that are up at once.
    fn up_at_most(&self) -> usize {
        let mut changes: Vec<(u64, i32)> = Vec::new();
        for (from_us, until_us) in self.nodes.iter().flatten() {
            changes.push((*from_us, 1));
            changes.push((*until_us, -1));
        }
        changes.sort_unstable();
        let mut up = 0i32;
        let most = changes.into_iter().map(|(_, change)| {
            up += change;
            up
        });
        most.max().unwrap_or(0).max(0) as usize
    }

    /// The share of its nodes that is played where `up` nodes are up when it begins: all, unless it has more nodes up at first (or, where
    /// none is up at first, at most).
    pub fn share(&self, up: u32) -> f64 {
        let measured = match self.up_at_first() {
            0 => self.up_at_most(),
            measured => measured,
        };
        (f64::from(up) / measured.max(1) as f64).min(1.0)
    }
}

/// The first and the last moment at which anything happens.
fn extent(nodes: &[Sessions]) -> Option<(u64, u64)> {
    let first_us = nodes.iter().flatten().map(|(from_us, _)| *from_us).min()?;
    let moments = nodes.iter().flatten().flat_map(|(from_us, until_us)| [*from_us, *until_us]);
    let last_us = moments.filter(|at_us| *at_us != OPEN_END).max()?;
    Some((first_us, last_us))
}

/// What happens in the window, in the run's time since its beginning.
fn windowed(nodes: &[Sessions], first_us: u64, window: (Duration, Duration), speed_up: f64) -> Vec<Sessions> {
    let micros = |length: Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
    let (begin_us, end_us) =
        (first_us.saturating_add(micros(window.0)), first_us.saturating_add(micros(window.1)));
    let run_us = |at_us: u64| ((at_us.saturating_sub(begin_us)) as f64 / speed_up).round() as u64;
    let windowed = nodes.iter().map(|sessions| {
        let inside = sessions.iter().filter(|(from_us, until_us)| *from_us < end_us && *until_us > begin_us);
        inside
            .map(|(from_us, until_us)| {
                (run_us(*from_us), if *until_us >= end_us { OPEN_END } else { run_us(*until_us) })
            })
            .filter(|(from_us, until_us)| from_us < until_us)
            .collect::<Sessions>()
    });
    windowed.filter(|sessions| !sessions.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_cut_out_and_sped_up() {
        let second = 1_000_000;
        let nodes = vec![
            vec![(100 * second, 160 * second), (220 * second, 280 * second)],
            vec![(130 * second, OPEN_END)],
            vec![(100 * second, 110 * second)],
        ];
        assert_eq!(extent(&nodes), Some((100 * second, 280 * second)));
        let window = (Duration::from_secs(30), Duration::from_secs(150));
        let cut = windowed(&nodes, 100 * second, window, 60.0);
        assert_eq!(cut, [vec![(0, 500_000), (1_500_000, OPEN_END)], vec![(0, OPEN_END)]]);
    }

    #[test]
    fn a_trace_with_more_nodes_than_the_plan_is_sampled() {
        let trace = |nodes: Vec<Sessions>| Trace {
            file: PathBuf::new(),
            format: Format::Csv,
            speed_up: 1.0,
            window: (Duration::ZERO, Duration::from_secs(1)),
            end: End::Kill,
            nodes: Arc::new(nodes),
        };
        let up = trace(vec![vec![(0, 9)], vec![(0, OPEN_END)], vec![(5, OPEN_END)]]);
        assert_eq!((up.share(1), up.share(2), up.share(10)), (0.5, 1.0, 1.0));
        assert_eq!((up.up_at_first(), up.up_at_last()), (2, 2));
        let later = trace(vec![vec![(1, 9)], vec![(2, 9)], vec![(3, 9)], vec![(9, 10)]]);
        assert_eq!((later.share(1), later.share(6)), (1.0 / 3.0, 1.0));
    }
}
