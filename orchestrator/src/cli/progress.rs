//! How a run is getting on: drawn on a terminal, as plain lines in a pipe, as JSON lines for programs.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::record::{Progress, Recorder, RunDirectory};
use crate::run::machine::Stage;
use crate::run::{Preparation, Status, Watcher};
use crate::schedule::{Phase, Schedule};

/// How often a terminal is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows a run to whoever started it.
pub(super) struct Display {
    form: Form,
    phases: Vec<Phase>,
    shown: Option<Instant>,
    shown_phase: String,
}

enum Form {
    Terminal(ProgressBar),
    Lines,
    Json,
}

impl Display {
    /// A display on standard output: JSON lines, or drawn where it is a terminal, or plain lines.
    pub(super) fn new(json: bool, terminal: bool) -> Display {
        let form = match (json, terminal) {
            (true, _) => Form::Json,
            (false, true) => Form::Terminal(bar()),
            (false, false) => Form::Lines,
        };
        Display { form, phases: Vec::new(), shown: None, shown_phase: String::new() }
    }

    /// Takes what was drawn away: the summary follows.
    pub(super) fn end(&self) {
        if let Form::Terminal(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    fn say(&self, event: &str, text: &str, fields: Value) {
        match &self.form {
            Form::Terminal(bar) => bar.println(text),
            Form::Lines => line(text),
            Form::Json => {
                let mut object = json!({ "event": event });
                if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
                    object.extend(fields);
                }
                line(&object.to_string());
            }
        }
    }

    fn phase(&self, status: &Status) -> String {
        match status.stage {
            Stage::Preparing => "hosts get ready".into(),
            Stage::Running => {
                let phase = self.phases.iter().rev().find(|phase| phase.at_us <= status.run_us);
                phase.map_or_else(String::new, |phase| phase.text.clone())
            }
            Stage::Draining => "the last operations end".into(),
            Stage::Stopping => "nodes are stopped".into(),
            Stage::Finished => "over".into(),
        }
    }
}

impl Watcher for Display {
    fn begun(&mut self, directory: &RunDirectory) {
        let path = directory.path().display().to_string();
        self.say("begun", &format!("run {path}"), json!({ "directory": path }));
    }

    fn prepared(&mut self, preparation: &Preparation<'_>) {
        let Preparation { host, problem, ready, wanted } = *preparation;
        // One host that is ready at once is nothing to tell of.
        if wanted == 1 && problem.is_none() {
            return;
        }
        let text = match problem {
            None => format!("host {host} is ready ({ready}/{wanted})"),
            Some(reason) => format!("host {host} cannot be used: {reason}"),
        };
        let fields = json!({ "host": host, "problem": problem, "ready": ready, "wanted": wanted });
        self.say("host", &text, fields);
    }

    fn scheduled(&mut self, schedule: &Schedule) {
        self.phases.clone_from(&schedule.phases);
    }

    fn serving(&mut self, address: SocketAddr) {
        let text = format!("metrics at http://{address}/metrics, the nodes' own listed at /targets");
        self.say("serving", &text, json!({ "address": address.to_string() }));
    }

    fn progress(&mut self, status: &Status, recorder: &Recorder) {
        let phase = self.phase(status);
        let every = if matches!(self.form, Form::Terminal(_)) { DRAW_EVERY } else { LINE_EVERY };
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= every);
        if !due && phase == self.shown_phase {
            return;
        }
        self.shown = Some(Instant::now());
        let progress = recorder.progress();
        match &self.form {
            Form::Terminal(bar) => {
                bar.set_length(status.end_us / 1000);
                bar.set_position(status.run_us.min(status.end_us) / 1000);
                bar.set_prefix(phase.clone());
                bar.set_message(figures(status, &progress));
                bar.tick();
            }
            Form::Lines => {
                line(&format!("{:>7.1}s  {phase}: {}", seconds(status.run_us), figures(status, &progress)));
            }
            Form::Json => line(&fields(status, &phase, &progress).to_string()),
        }
        self.shown_phase = phase;
    }

    fn interrupted(&mut self, stage: Stage) {
        let text = match stage {
            Stage::Preparing | Stage::Running => "interrupted: the run ends in order (once more: at once)",
            _ => "interrupted: the run ends at once",
        };
        self.say("interrupted", text, json!({}));
    }
}

fn bar() -> ProgressBar {
    // Drawn by `progress` alone, so that an idle terminal costs nothing.
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stdout());
    let style =
        ProgressStyle::with_template("{spinner} {bar:30.cyan/blue} {percent:>3} %  {prefix}\n  {msg}");
    bar.with_style(style.expect("the template is well formed: it is fixed"))
}

/// Writes a line to standard output. Whoever closed it does not want to know; the run goes on.
pub(super) fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn figures(status: &Status, progress: &Progress) -> String {
    let mut parts = vec![format!("hosts {}/{}", progress.hosts_ready, status.hosts)];
    if progress.hosts_lost > 0 {
        parts.push(format!("{} lost", progress.hosts_lost));
    }
    let joining = match progress.nodes_joining {
        0 => String::new(),
        joining => format!(" (+{joining} joining)"),
    };
    parts.push(format!("nodes {}/{}{joining}", progress.nodes_alive, status.nodes));
    if let Some(success) = success(progress) {
        let what = if progress.mixed { "operations" } else { "look-ups" };
        parts.push(format!("{:.1} {what}/s", progress.operations_per_second));
        parts.push(format!("success {:.2} %", success * 100.0));
    }
    if let (Some(p50_us), Some(p99_us)) = (progress.latency_p50_us, progress.latency_p99_us) {
        parts.push(format!("p50 {} p99 {}", latency(p50_us), latency(p99_us)));
    }
    if progress.problems > 0 {
        parts.push(format!("problems {}", progress.problems));
    }
    parts.join(", ")
}

fn fields(status: &Status, phase: &str, progress: &Progress) -> Value {
    let stage = format!("{:?}", status.stage).to_lowercase();
    json!({
        "event": "progress",
        "time": seconds(status.run_us),
        "end": seconds(status.end_us),
        "stage": stage,
        "phase": phase,
        "hosts": { "ready": progress.hosts_ready, "lost": progress.hosts_lost, "total": status.hosts },
        "nodes": { "alive": progress.nodes_alive, "joining": progress.nodes_joining, "total": status.nodes },
        "lookups": {
            "issued": progress.operations.issued,
            "ended": progress.operations.ended,
            "succeeded": progress.operations.succeeded,
            "failed": progress.operations.failed,
            "not_issued": progress.operations.not_issued,
            "per_second": progress.operations_per_second,
            "success": success(progress),
            "latency_p50": progress.latency_p50_us.map(seconds),
            "latency_p99": progress.latency_p99_us.map(seconds),
        },
        "problems": progress.problems,
    })
}

/// The share of the look-ups that have ended which were answered; `None` before one has.
fn success(progress: &Progress) -> Option<f64> {
    let operations = progress.operations;
    (operations.ended > 0).then(|| operations.succeeded as f64 / operations.ended as f64)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn latency(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::OperationCounts;

    #[test]
    fn a_line_has_what_a_person_wants_to_know() {
        let status =
            Status { stage: Stage::Running, run_us: 12_300_000, end_us: 30_000_000, hosts: 1, nodes: 64 };
        let nothing = Progress { hosts_ready: 1, nodes_joining: 3, ..Progress::default() };
        assert_eq!(figures(&status, &nothing), "hosts 1/1, nodes 0/64 (+3 joining)");
        let operations =
            OperationCounts { issued: 1001, ended: 1000, succeeded: 999, failed: 1, not_issued: 0 };
        let progress = Progress {
            hosts_ready: 1,
            nodes_alive: 58,
            operations,
            operations_per_second: 99.96,
            latency_p50_us: Some(420),
            latency_p99_us: Some(12_340),
            ..Progress::default()
        };
        assert_eq!(
            figures(&status, &progress),
            "hosts 1/1, nodes 58/64, 100.0 look-ups/s, success 99.90 %, p50 420 us p99 12.3 ms"
        );
        let value = fields(&status, "kill 10%", &progress);
        assert_eq!(value["lookups"]["success"], json!(0.999));
        assert_eq!(value["lookups"]["latency_p50"], json!(0.00042));
        assert_eq!(value["stage"], json!("running"));
    }
}
