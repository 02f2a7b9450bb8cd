//! The formats of traces.

use std::collections::HashMap;

use serde::Serialize;

use super::{OPEN_END, Sessions, TRACE_NODES_MAX, TRACE_SESSIONS_MAX};

/// The latest moment of a trace, in seconds: 300 years.
const SECONDS_MAX: f64 = 1e10;

/// A format of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Godfrey's availability traces.
    Avt,
    /// SPLAY's.
    Splay,
    /// OverSim's.
    Oversim,
    /// One session a line.
    Csv,
}

impl Format {
    /// As plans write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Avt => "avt",
            Format::Splay => "splay",
            Format::Oversim => "oversim",
            Format::Csv => "csv",
        }
    }
}

/// The sessions of each node, in the order in which the nodes come up in `text`.
///
/// # Errors
/// The line, from 1, and what is wrong with it.
pub(super) fn parse(format: Format, text: &str) -> Result<Vec<Sessions>, (usize, String)> {
    let mut reading = Reading::default();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let result = match format {
            Format::Avt => reading.avt(line),
            Format::Splay => reading.splay(line),
            Format::Oversim => reading.oversim(line),
            Format::Csv => reading.csv(line),
        };
        result.map_err(|message| (number, message))?;
        reading.lines = number;
    }
    reading.finish().map_err(|message| (reading.lines, message))?;
    Ok(reading.nodes)
}

#[derive(Default)]
struct Reading {
    nodes: Vec<Sessions>,
    names: HashMap<String, usize>,
    sessions: usize,
    lines: usize,
    /// The time of the last event of a format that is in time order.
    last_us: u64,
}

impl Reading {
    fn avt(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let count = words.next().and_then(|word| word.parse::<usize>().ok());
        let count = count.ok_or("after the node's id comes the number of its sessions")?;
        let times: Vec<&str> = words.collect();
        if Some(times.len()) != count.checked_mul(2) {
            return Err(format!(
                "{count} sessions have a start and an end each, but {} times follow",
                times.len()
            ));
        }
        let node = self.new_node(name)?;
        for pair in times.chunks_exact(2) {
            // The second that is named as the end is a part of the session.
            let (from_us, until_us) = (micros(pair[0])?, micros(pair[1])? + 1_000_000);
            self.session(node, from_us, until_us)?;
        }
        Ok(())
    }

    fn splay(&mut self, line: &str) -> Result<(), String> {
        let node = self.new_node(&self.nodes.len().to_string())?;
        let times: Vec<&str> = line.split_whitespace().collect();
        for pair in times.chunks(2) {
            let until_us = pair.get(1).map_or(Ok(OPEN_END), |word| micros(word))?;
            self.session(node, micros(pair[0])?, until_us)?;
        }
        Ok(())
    }

    fn oversim(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [time, name, what] = words[..] else {
            return Err("a line has a time, a node, and JOIN or LEAVE".to_owned());
        };
        let at_us = micros(time)?;
        if at_us < self.last_us {
            return Err(format!("{time} is earlier than the line before"));
        }
        self.last_us = at_us;
        let node = self.node(name)?;
        let is_up = self.nodes[node].last().is_some_and(|(_, until_us)| *until_us == OPEN_END);
        match what {
            "JOIN" if is_up => Err(format!("{name} joins, but is there already")),
            "JOIN" => self.session(node, at_us, OPEN_END),
            "LEAVE" if !is_up => Err(format!("{name} leaves, but is not there")),
            "LEAVE" => {
                match self.nodes[node].last_mut() {
                    Some(session) if session.0 < at_us => session.1 = at_us,
                    // It left at the moment at which it came.
                    _ => drop(self.nodes[node].pop()),
                }
                Ok(())
            }
            _ => Err(format!("`{what}` is neither JOIN nor LEAVE")),
        }
    }

    fn csv(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(',').map(str::trim).collect();
        if self.lines == 0 && self.nodes.is_empty() && words == ["node", "start", "end"] {
            return Ok(());
        }
        let [name, from, until] = words[..] else {
            return Err("a line has a node, a start and an end, with commas between".to_owned());
        };
        let until_us = if until.is_empty() { OPEN_END } else { micros(until)? };
        let (node, from_us) = (self.node(name)?, micros(from)?);
        if from_us > until_us {
            return Err("the session ends before it begins".to_owned());
        }
        self.count_session()?;
        self.nodes[node].push((from_us, until_us));
        Ok(())
    }

    /// Sessions of a node may come in any order in CSV; they may not overlap in any format.
    fn finish(&mut self) -> Result<(), String> {
        for (sessions, node) in self.nodes.iter_mut().zip(1..) {
            sessions.sort_unstable();
            if sessions.windows(2).any(|pair| pair[0].1 > pair[1].0) {
                return Err(format!("sessions of node {node} of the trace overlap"));
            }
            sessions.retain(|(from_us, until_us)| from_us < until_us);
            // Where one session ends when the next begins, nothing happens.
            sessions.dedup_by(|next, last| {
                let is_one = last.1 == next.0;
                if is_one {
                    last.1 = next.1;
                }
                is_one
            });
        }
        Ok(())
    }

    fn session(&mut self, node: usize, from_us: u64, until_us: u64) -> Result<(), String> {
        if from_us > until_us {
            return Err("a session ends before it begins".to_owned());
        }
        if self.nodes[node].last().is_some_and(|(_, last_us)| *last_us > from_us) {
            return Err("a session begins before the last one has ended".to_owned());
        }
        self.count_session()?;
        self.nodes[node].push((from_us, until_us));
        Ok(())
    }

    fn count_session(&mut self) -> Result<(), String> {
        self.sessions += 1;
        if self.sessions > TRACE_SESSIONS_MAX {
            return Err(format!("a trace has at most {TRACE_SESSIONS_MAX} sessions"));
        }
        Ok(())
    }

    fn new_node(&mut self, name: &str) -> Result<usize, String> {
        if self.names.contains_key(name) {
            return Err(format!("the node {name} has a line already"));
        }
        self.node(name)
    }

    fn node(&mut self, name: &str) -> Result<usize, String> {
        if let Some(node) = self.names.get(name) {
            return Ok(*node);
        }
        if self.nodes.len() == TRACE_NODES_MAX {
            return Err(format!("a trace has at most {TRACE_NODES_MAX} nodes"));
        }
        let node = self.nodes.len();
        self.names.insert(name.to_owned(), node);
        self.nodes.push(Sessions::new());
        Ok(node)
    }
}

/// A number of seconds.
fn micros(word: &str) -> Result<u64, String> {
    let seconds = word.parse::<f64>().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("`{word}` is no time in seconds"))?;
    Ok((seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn seconds(sessions: &[(u64, u64)]) -> Sessions {
        let end = |until: u64| if until == OPEN_END { OPEN_END } else { until * SECOND };
        sessions.iter().map(|(from, until)| (from * SECOND, end(*until))).collect()
    }

    #[test]
    fn all_formats_say_the_same() {
        let expected = [seconds(&[(0, 100), (200, OPEN_END)]), seconds(&[(50, 150)])];
        let splay = "0 100 200\n50 150\n";
        let oversim = "0 a JOIN\n50 b JOIN\n100 a LEAVE\n150 b LEAVE\n200 a JOIN\n";
        let csv = "node,start,end\n# out of order\na,200,\nb,50,150\na,0,100\n";
        for (format, text) in [(Format::Splay, splay), (Format::Oversim, oversim), (Format::Csv, csv)] {
            assert_eq!(parse(format, text).unwrap(), expected, "{format:?}");
        }
        // Ends are included, and nothing is open.
        let avt = parse(Format::Avt, "7 2 0 99 200 299\n9 1 50 149\n").unwrap();
        assert_eq!(avt, [seconds(&[(0, 100), (200, 300)]), seconds(&[(50, 150)])]);
        let adjoining = parse(Format::Avt, "7 2 0 99 100 199\n").unwrap();
        assert_eq!(adjoining, [seconds(&[(0, 200)])], "a session that goes on is one session");
    }

    #[test]
    fn broken_lines_are_named() {
        for (format, text, line, said) in [
            (Format::Avt, "1 1 0 5\n2 2 0 5\n", 2, "2 sessions"),
            (Format::Avt, "1 1 0 5\n1 1 7 9\n", 2, "has a line already"),
            (Format::Avt, "1 many 0 5\n", 1, "number of its sessions"),
            (Format::Avt, "1 18446744073709551615 0 5\n", 1, "times follow"),
            (Format::Splay, "0 10 5 20\n", 1, "before the last one has ended"),
            (Format::Splay, "\n# x\n-4 10\n", 3, "no time"),
            (Format::Splay, "0 NaN\n", 1, "no time"),
            (Format::Oversim, "0 a JOIN\n1 a JOIN\n", 2, "there already"),
            (Format::Oversim, "0 a LEAVE\n", 1, "is not there"),
            (Format::Oversim, "5 a JOIN\n1 b JOIN\n", 2, "earlier"),
            (Format::Oversim, "5 a STAY\n", 1, "neither JOIN nor LEAVE"),
            (Format::Csv, "a,0\n", 1, "with commas between"),
            (Format::Csv, "a,9,3\n", 1, "before it begins"),
            (Format::Csv, "a,0,10\na,5,20\n", 2, "overlap"),
            (Format::Csv, "a,0,1e300\n", 1, "no time"),
        ] {
            let (at, message) = parse(format, text).unwrap_err();
            assert_eq!(at, line, "{text}: {message}");
            assert!(message.contains(said), "{text}: {message}");
        }
    }
}
