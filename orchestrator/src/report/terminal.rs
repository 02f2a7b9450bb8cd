//! The summary of a run, for a terminal or a pipe: figures, what went wrong, expectations, and the verdict last.

use std::fmt::Write;

use crate::check::{ExpectationVerdict, Verdict};
use crate::plan::workload::OperationKind;
use crate::plan::{FIGURES, FigureUnit};
use crate::record::RunRecord;

/// The summary of a run, as lines of text; with colours (ANSI) if `colour`.
pub fn terminal(verdict: &Verdict, record: &RunRecord, colour: bool) -> String {
    let paint = Paint { colour };
    let mut text = head(verdict, record, &paint);
    figures(&mut text, verdict, &paint);
    unsuccessful(&mut text, verdict);
    problems(&mut text, verdict, &paint);
    expectations(&mut text, verdict, &paint);
    text.push_str(&paint.verdict(verdict.passed, &conclusion(verdict)));
    text.push('\n');
    text
}

/// The figures of every run: a line's title, and what is on it (title and figure).
const LINES: &[(&str, &[(&str, &str)])] = &[
    ("nodes", &[("alive", "nodes.alive")]),
    (
        "look-ups",
        &[
            ("issued", "lookup.issued"),
            ("success", "lookup.success"),
            ("wrong", "lookup.wrong"),
            ("failed", "lookup.failed"),
            ("lost", "lookup.lost"),
        ],
    ),
    (
        "  latency",
        &[
            ("mean", "lookup.latency.mean"),
            ("p50", "lookup.latency.p50"),
            ("p99", "lookup.latency.p99"),
            ("max", "lookup.latency.max"),
        ],
    ),
    (
        "  hops",
        &[
            ("mean", "lookup.hops.mean"),
            ("p50", "lookup.hops.p50"),
            ("p99", "lookup.hops.p99"),
            ("max", "lookup.hops.max"),
        ],
    ),
    ("hop latency", &[("p50", "hop.latency.p50"), ("p99", "hop.latency.p99")]),
    ("ring", &[("converged after", "ring.converged")]),
    (
        "messages",
        &[
            ("data", "messages.data.sent"),
            ("control", "messages.control.sent"),
            ("ack", "messages.ack.sent"),
            ("lost", "messages.lost"),
        ],
    ),
    ("tables", &[("fingers a node", "table.fingers.mean"), ("links a node", "links.mean")]),
    ("maintenance", &[("bytes a node and second", "maintenance.bytes_per_node_second")]),
    (
        "timing error",
        &[("p50", "schedule.error.p50"), ("p99", "schedule.error.p99"), ("max", "schedule.error.max")],
    ),
];

/// What stands where nothing was measured.
const ABSENT: &str = "-";

/// The most complaints in a summary.
const PROBLEMS_MAX: usize = 5;

fn head(verdict: &Verdict, record: &RunRecord, paint: &Paint) -> String {
    let (nodes, hosts) = (record.node_hosts.len(), verdict.hosts);
    let lost = match verdict.hosts_lost {
        0 => String::new(),
        lost => format!(" ({lost} lost)"),
    };
    let length = quantity(verdict.duration, FigureUnit::Seconds);
    let (nodes, hosts) = (counted(nodes as u64, "node"), counted(u64::from(hosts), "host"));
    format!("{}  seed {}, {nodes} on {hosts}{lost}, {length}\n\n", paint.strong(&verdict.plan), verdict.seed)
}

/// A line of figures: its title, and what is on it (title and figure).
type Line = (&'static str, Vec<(&'static str, &'static str)>);

fn figures(text: &mut String, verdict: &Verdict, paint: &Paint) {
    let is_measured =
        |(_, entries): &Line| entries.iter().any(|(_, name)| verdict.figures.contains_key(*name));
    let others: Vec<Line> = other_lines().filter(is_measured).collect();
    let lines = LINES.iter().map(|(title, entries)| (*title, entries.to_vec()));
    // Behind those of the look-ups, which are left out where there are only others.
    let (lookups, rest): (Vec<Line>, Vec<Line>) =
        lines.partition(|(_, entries)| entries.iter().any(|(_, name)| is_early(name)));
    let lookups =
        lookups.into_iter().filter(|line| others.is_empty() || is_measured(line)).collect::<Vec<_>>();
    let lines: Vec<Line> = lookups.into_iter().chain(others).chain(rest).collect();
    let width = lines.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
    for (title, entries) in lines {
        let entry = |(title, name): &(&str, &str)| {
            let figure = verdict.figures.get(*name);
            let value =
                figure.map_or_else(|| ABSENT.to_owned(), |value| quantity(*value, FigureUnit::of(name)));
            format!("{} {value}", paint.faint(title))
        };
        let entries: Vec<String> = entries.iter().map(entry).collect();
        let _ = writeln!(text, "  {title:width$}  {}", entries.join("  "));
    }
    text.push('\n');
}

/// Whether a figure stands before those of other operations.
fn is_early(name: &str) -> bool {
    name == "nodes.alive" || OperationKind::of_figure(name) == Some(OperationKind::Lookup)
}

/// The figures of operations that are no look-ups, two lines for each kind; what a figure is called there is the end of its name.
fn other_lines() -> impl Iterator<Item = Line> {
    const LATENCY: &str = "latency.";
    let kinds = OperationKind::ALL.into_iter().filter(|kind| *kind != OperationKind::Lookup);
    kinds.flat_map(|kind| {
        let own = FIGURES.iter().filter(move |name| OperationKind::of_figure(name) == Some(kind));
        let named = own.map(move |name| (&name[kind.as_str().len() + 1..], *name));
        let (latency, others): (Vec<_>, Vec<_>) = named.partition(|(title, _)| title.starts_with(LATENCY));
        let latency = latency.into_iter().map(|(title, name)| (&title[LATENCY.len()..], name)).collect();
        [(kind.as_str(), others), ("  latency", latency)]
    })
}

fn unsuccessful(text: &mut String, verdict: &Verdict) {
    let is_other = |reason: &str| OperationKind::of_figure(reason).is_some();
    let told = |others: bool| {
        let these = verdict.unsuccessful.iter().filter(|(reason, _)| is_other(reason) == others);
        these.map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
    };
    for (title, reasons) in
        [("Look-ups without a right answer", told(false)), ("Other operations without success", told(true))]
    {
        if !reasons.is_empty() {
            let _ = writeln!(text, "  {title}: {reasons}\n");
        }
    }
}

fn problems(text: &mut String, verdict: &Verdict, paint: &Paint) {
    if verdict.problems == 0 {
        return;
    }
    let count = counted(verdict.problems, "problem");
    let _ = writeln!(text, "  {}", paint.warning(&format!("{count} with the run itself")));
    for problem in verdict.first_problems.iter().take(PROBLEMS_MAX) {
        let _ = writeln!(text, "    {}", one_line(problem));
    }
    let shown = verdict.first_problems.len().min(PROBLEMS_MAX) as u64;
    if verdict.problems > shown {
        let _ = writeln!(text, "    and {} more: see timeline.jsonl", verdict.problems - shown);
    }
    text.push('\n');
}

fn expectations(text: &mut String, verdict: &Verdict, paint: &Paint) {
    if verdict.expectations.is_empty() {
        return;
    }
    let width = |line: &ExpectationVerdict| line.text.chars().count();
    let width = verdict.expectations.iter().map(width).max().unwrap_or(0);
    for line in &verdict.expectations {
        let name = line.text.split(|c: char| c != '.' && c != '_' && !c.is_alphanumeric()).next();
        let unit = FigureUnit::of(name.unwrap_or_default());
        let note = || line.note.clone().unwrap_or_else(|| ABSENT.to_owned());
        let value = line.value.map_or_else(note, |value| quantity(value, unit));
        let mark = paint.verdict(line.held, if line.held { "held  " } else { "failed" });
        let _ = writeln!(text, "  {mark}  {:width$}  {value}", line.text);
    }
    text.push('\n');
}

fn conclusion(verdict: &Verdict) -> String {
    let all = verdict.expectations.len();
    let broken = verdict.expectations.iter().filter(|line| !line.held).count();
    match (verdict.complete, broken) {
        (true, 0) if all == 0 => "passed: nothing was expected".to_owned(),
        (true, 0) => format!("passed: {}", counted(all as u64, "expectation held")),
        (true, _) => format!("failed: {broken} of {} did not hold", counted(all as u64, "expectation")),
        (false, 0) => "failed: the run ended before its time".to_owned(),
        (false, _) => format!("failed: the run ended before its time, {broken} of {all} did not hold"),
    }
}

/// `1 node`, `2 nodes`; of several words the first takes the plural.
fn counted(count: u64, what: &str) -> String {
    match what.split_once(' ') {
        _ if count == 1 => format!("1 {what}"),
        Some((noun, rest)) => format!("{count} {noun}s {rest}"),
        None => format!("{count} {what}s"),
    }
}

/// A figure for people: 99.97 %, 1.10 ms, 3.1.
fn quantity(value: f64, unit: FigureUnit) -> String {
    match unit {
        // All but one of a million is not all: only what is whole is written as whole.
        FigureUnit::Share if value == 1.0 => "100 %".to_owned(),
        FigureUnit::Share => format!("{:.3} %", (value * 1e5).floor() / 1e3),
        FigureUnit::Number if value.fract() == 0.0 => format!("{value:.0}"),
        FigureUnit::Number => three_digits(value),
        FigureUnit::Seconds if value == 0.0 => "0 s".to_owned(),
        FigureUnit::Seconds if value.abs() < 0.000_999_5 => format!("{} µs", three_digits(value * 1e6)),
        FigureUnit::Seconds if value.abs() < 0.999_5 => format!("{} ms", three_digits(value * 1e3)),
        FigureUnit::Seconds => format!("{} s", three_digits(value)),
    }
}

fn three_digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A text of an agent or node as one line without what a terminal might obey.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn strong(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn warning(&self, text: &str) -> String {
        self.with("33", text)
    }

    fn verdict(&self, good: bool, text: &str) -> String {
        self.with(if good { "32" } else { "31" }, text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place() {
        let shown: Vec<&str> = LINES
            .iter()
            .map(|(title, entries)| (*title, entries.to_vec()))
            .chain(other_lines())
            .flat_map(|(_, entries)| entries.into_iter().map(|(_, name)| name))
            .collect();
        for name in FIGURES {
            assert!(shown.contains(name), "{name}");
        }
        assert_eq!(shown.len(), FIGURES.len());
    }

    #[test]
    fn quantities_have_three_digits_and_a_unit_to_match() {
        let seconds =
            [(0.0, "0 s"), (0.000_3, "300 µs"), (0.001_1, "1.10 ms"), (0.9999, "1.00 s"), (75.25, "75.2 s")];
        for (value, text) in seconds {
            assert_eq!(quantity(value, FigureUnit::Seconds), text);
        }
        for (value, text) in [(1.0, "100 %"), (0.999_999_9, "99.999 %"), (0.5, "50.000 %")] {
            assert_eq!(quantity(value, FigureUnit::Share), text);
        }
        for (value, text) in [(12_000.0, "12000"), (2.4167, "2.42"), (1234.5, "1234")] {
            assert_eq!(quantity(value, FigureUnit::Number), text);
        }
    }

    #[test]
    fn what_nodes_say_cannot_command_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\nc"), "a [2Jb c");
    }

    fn verdict() -> Verdict {
        let figures = [
            ("nodes.alive", 58.0),
            ("lookup.issued", 2950.0),
            ("lookup.success", 0.9983),
            ("lookup.wrong", 0.0),
            ("lookup.failed", 4.0),
            ("lookup.lost", 1.0),
            ("lookup.latency.p50", 0.0011),
            ("lookup.latency.p99", 0.0234),
            ("lookup.hops.mean", 2.4167),
            ("lookup.hops.p99", 5.0),
            ("messages.control.sent", 20311.0),
            ("messages.lost", 0.0),
        ];
        let line = |text: &str, value, held, note: Option<&str>| ExpectationVerdict {
            text: text.to_owned(),
            value,
            held,
            note: note.map(str::to_owned),
        };
        Verdict {
            passed: false,
            expectations: vec![
                line("lookup.success >= 99%", Some(0.9983), true, None),
                line("ring.converged within 15s of 20s", None, false, Some("never")),
                line("hop.latency.p99 < 5ms", None, false, Some("not measured")),
            ],
            figures: figures.map(|(name, value)| (name.to_owned(), value)).into(),
            plan: "quickstart".to_owned(),
            seed: 7,
            duration: 30.0,
            complete: true,
            hosts: 1,
            unsuccessful: [("failed.timed_out".to_owned(), 4), ("lost.node_ended".to_owned(), 1)].into(),
            problems: 7,
            first_problems: vec!["node 3 ended by itself (signal 11)".to_owned()],
            ..Verdict::default()
        }
    }

    #[test]
    fn the_summary_says_what_was_measured_expected_and_wrong() {
        let record = RunRecord { node_hosts: vec![0; 64], ..RunRecord::default() };
        insta::assert_snapshot!(terminal(&verdict(), &record, false));
    }

    #[test]
    fn colours_are_only_added() {
        let record = RunRecord::default();
        let mut coloured = terminal(&verdict(), &record, true);
        assert!(coloured.contains("\x1b[32mheld"), "{coloured}");
        for code in ["0", "1", "2", "31", "32", "33"] {
            coloured = coloured.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(coloured, terminal(&verdict(), &record, false));
    }
}
