//! Ctrl-C ends a run in order; twice, at once. Either way nothing is left.

mod harness;

use std::time::Duration;

use harness::{Run, plan, processes, wait_gone};
use rustix::process::Signal;
use serde_json::Value;

/// The last line, which must be the run's result.
fn finished(run: &Run) -> Value {
    let last: Value = serde_json::from_str(&run.printed[run.printed.len() - 1]).unwrap_or_default();
    assert_eq!(last["event"], "finished", "{last}");
    last
}

#[test]
fn an_interrupt_stops_collects_and_reports_what_there_is() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut run = Run::start(&plan(8, 300), &["--json"]);
        run.wait_alive(8);
        run.signal(signal);
        let status = run.wait_end();
        assert_eq!(processes(&run.agent()), [0; 0], "all are gone before the orchestrator is");
        assert_eq!(status.code(), Some(3));
        let last = finished(&run);
        assert_eq!((&last["ending"], &last["passed"]), (&"interrupted".into(), &false.into()));
        assert_eq!(last["hosts_lost"].as_array().unwrap().len(), 0, "in order: {last}");
        assert!(run.directory().join("verdict.json").is_file());
        assert_eq!(run.clean(), (Some(0), "nothing left\n".to_owned()));
    }
}

#[test]
fn a_second_interrupt_ends_the_run_at_once_and_still_cleans_up() {
    let mut run = Run::start(&plan(8, 300), &["--json"]);
    run.wait_alive(8);
    run.signal(Signal::INT);
    run.wait_for("interrupt", |line| line.contains("\"interrupted\""));
    run.signal(Signal::INT);
    let status = run.wait_end();
    assert_eq!(status.code(), Some(3));
    wait_gone(&run.agent(), Duration::from_secs(5));
    finished(&run);
}
