//! A sweep: a run for each of its points and repetitions, each with its own directory under that of the sweep, and one table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::progress::line;
use super::{Outcome, problem};
use crate::plan::sweep::{Sweep, SweepPoint};
use crate::plan::{FIGURES, Plan};
use crate::report::statistics::interval_95;
use crate::run::machine::Ending;
use crate::run::{Finished, Out};

/// The figures of the table on the terminal, those that were measured.
const SHOWN: [(&str, &str); 23] = [
    ("nodes.alive", "nodes"),
    ("table.fingers.mean", "fingers"),
    ("lookup.success", "success"),
    ("lookup.hops.mean", "hops"),
    ("lookup.hops.p99", "p99"),
    ("lookup.hops.max", "max"),
    ("lookup.latency.mean", "mean s"),
    ("lookup.latency.p99", "p99 s"),
    ("links.mean", "links"),
    ("put.success", "puts"),
    ("get.success", "gets"),
    ("get.found", "found"),
    ("get.missing", "missing"),
    ("get.stale", "stale"),
    ("send.success", "sends"),
    ("send_reliable.success", "reliable"),
    ("send_reliable.duplicates", "duplicates"),
    ("broadcast.coverage", "broadcast"),
    ("broadcast.coverage.min", "least"),
    ("broadcast.messages", "messages"),
    ("multicast.coverage", "multicast"),
    ("multicast.messages", "messages"),
    ("maintenance.bytes_per_node_second", "B/node s"),
];

/// What is kept of a run that is over.
struct Row {
    point: usize,
    seed: u64,
    passed: bool,
    figures: BTreeMap<String, f64>,
    directory: PathBuf,
}

/// Carries out all runs of a sweep, with `run` for each.
pub(super) fn run(
    sweep: &Sweep,
    out: &Path,
    json: bool,
    run: impl Fn(Plan, Out) -> Result<(Finished, Outcome), Outcome>,
) -> Outcome {
    let directory = match create(sweep, out) {
        Ok(directory) => directory,
        Err(error) => {
            problem::print(&format!("{} cannot be made: {error}", out.display()));
            return Outcome::Failed;
        }
    };
    let (mut rows, mut worst) = (Vec::new(), Outcome::Held);
    let all = (0..).zip(&sweep.points).flat_map(|(place, point)| {
        (0..sweep.repeat).map(move |time| (place, point, sweep.plan(point, time)))
    });
    for (number, (place, point, plan)) in (1..).zip(all) {
        let (seed, of) = (plan.seed, sweep.points.len() * sweep.repeat as usize);
        let values: BTreeMap<&str, &str> = named(sweep, point).collect();
        let text = format!("run {number} of {of}: {}", said(sweep, point, seed));
        say(
            json,
            &text,
            &json!({ "event": "sweep", "run": number, "of": of, "values": values, "seed": seed }),
        );
        match run(plan, Out::At(directory.join(format!("{:03}-{seed}", place + 1)))) {
            Ok((finished, outcome)) => {
                worst = std::cmp::max_by_key(worst, outcome, |outcome| *outcome as u8);
                let Finished { verdict, directory, ending, .. } = finished;
                let directory = directory.path().to_owned();
                rows.push(Row {
                    point: place,
                    seed,
                    passed: verdict.passed,
                    figures: verdict.figures,
                    directory,
                });
                if ending == Ending::Interrupted {
                    break;
                }
            }
            Err(outcome) => worst = outcome,
        }
    }
    let path = directory.join("sweep.csv");
    if let Err(error) = fs::write(&path, csv(sweep, &rows)) {
        problem::print(&format!("{} cannot be written: {error}", path.display()));
        worst = Outcome::Failed;
    }
    let directory = directory.display().to_string();
    let text = format!("{}{directory}", table(sweep, &rows));
    say(json, &text, &json!({ "event": "swept", "exit_code": worst as u8, "directory": directory }));
    worst
}

fn say(json: bool, text: &str, object: &Value) {
    line(&if json { object.to_string() } else { text.to_owned() });
}

/// Each path of the sweep with a point's value.
fn named<'a>(sweep: &'a Sweep, point: &'a SweepPoint) -> impl Iterator<Item = (&'a str, &'a str)> {
    sweep.paths.iter().zip(&point.values).map(|(path, value)| (path.as_str(), value.as_str()))
}

/// `<out>/<plan>/<utc time>-<seed>-sweep`.
fn create(sweep: &Sweep, out: &Path) -> std::io::Result<PathBuf> {
    let plan = sweep.points.first().map(|point| &point.plan);
    let (name, seed) = plan.map_or(("sweep", 0), |plan| (plan.name.as_str(), plan.seed));
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let parent = out.join(name);
    fs::create_dir_all(&parent)?;
    let mut path = parent.join(format!("{now}-{seed}-sweep"));
    for attempt in 2.. {
        match fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => {
                path = parent.join(format!("{now}-{seed}-sweep-{attempt}"));
            }
            made => return made.map(|()| path),
        }
    }
    Ok(path)
}

/// `nodes=100 network.geometry=chord seed=7`
fn said(sweep: &Sweep, point: &SweepPoint, seed: u64) -> String {
    let mut text = String::new();
    for (path, value) in named(sweep, point) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{path}={value} ");
    }
    text + &format!("seed={seed}")
}

/// A line for each run: what was swept, its seed, whether it passed, all figures, its directory.
fn csv(sweep: &Sweep, rows: &[Row]) -> String {
    let mut lines = Vec::new();
    let head = sweep.paths.iter().map(String::as_str).chain(["seed", "passed"]);
    lines.push(head.chain(FIGURES.iter().copied()).chain(["directory"]).map(quoted).collect::<Vec<_>>());
    for Row { point, seed, passed, figures, directory } in rows {
        let values = sweep.points[*point].values.iter().map(|value| quoted(value));
        let figures = FIGURES.iter().map(|name| match figures.get(*name) {
            Some(figure) => figure.to_string(),
            None => String::new(),
        });
        let start = values.chain([seed.to_string(), passed.to_string()]);
        lines.push(start.chain(figures).chain([quoted(&directory.display().to_string())]).collect());
    }
    lines.into_iter().map(|cells| cells.join(",") + "\n").collect()
}

/// A cell of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// A line for each point: the means of its runs, with 95% confidence intervals where there are several.
fn table(sweep: &Sweep, rows: &[Row]) -> String {
    let shown: Vec<(&str, &str)> = SHOWN
        .into_iter()
        .filter(|(figure, _)| rows.iter().any(|row| row.figures.contains_key(*figure)))
        .collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    let head = sweep.paths.iter().map(String::as_str).chain(shown.iter().map(|(_, head)| *head));
    lines.push(head.chain(["passed"]).map(str::to_owned).collect());
    for (number, point) in sweep.points.iter().enumerate() {
        let of_point: Vec<&Row> = rows.iter().filter(|row| row.point == number).collect();
        if of_point.is_empty() {
            continue;
        }
        let figure = |name: &str| {
            let values = of_point.iter().filter_map(|row| row.figures.get(name).copied());
            mean_text(&values.collect::<Vec<f64>>())
        };
        let passed = of_point.iter().filter(|row| row.passed).count();
        let cells = point.values.iter().cloned().chain(shown.iter().map(|(name, _)| figure(name)));
        lines.push(cells.chain([format!("{passed}/{}", of_point.len())]).collect());
    }
    aligned(&lines)
}

fn mean_text(values: &[f64]) -> String {
    let number = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match values {
        [] => "-".to_owned(),
        [value] => number(*value),
        values => {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            format!("{} ± {}", number(mean), number(interval_95(values)))
        }
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::from("\n");
    for cells in lines {
        for (column, cell) in cells.iter().enumerate() {
            let gap = " ".repeat(widths[column] - cell.chars().count());
            let _ = if column == 0 { write!(text, "{cell}{gap}") } else { write!(text, "  {gap}{cell}") };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        assert_eq!(quoted("chord"), "chord");
        assert_eq!(
            quoted(r#"{tango: {k: 5, symmetric: "true"}}"#),
            r#""{tango: {k: 5, symmetric: ""true""}}""#
        );
    }

    #[test]
    fn repeats_give_a_mean_with_its_interval() {
        assert_eq!((mean_text(&[]), mean_text(&[2.5])), ("-".to_owned(), "2.5".to_owned()));
        assert_eq!(mean_text(&[1.0, 3.0]), "2 ± 12.706");
    }
}
