//! A run from its plan to its verdict.

mod harness;

use harness::{Run, processes};
use serde_json::Value;

const PLAN: &str = "
name: small
seed: 5
nodes: 8
join: {rate: 20/s}
workload:
  - lookup: {rate: 40/s, keys: uniform}
timeline:
  - {at: 3s, kill: 1}
  - {at: 4s, leave: 1}
  - {at: 5s, restart: 1}
duration: 8s
";

#[test]
fn a_run_ends_with_its_verdict_its_directory_and_no_process() {
    let expect = "expect:\n  - lookup.success >= 90%\n  - lookup.wrong == 0\n  - nodes.alive == 7\n";
    let mut run = Run::start(&format!("{PLAN}{expect}"), &["--json", "--seed", "11"]);
    let status = run.wait_end();
    let agent = run.agent();
    assert_eq!(processes(&agent), [0; 0]);
    let last: Value = serde_json::from_str(run.printed.last().unwrap()).unwrap();
    assert_eq!(status.code(), Some(0), "{last:#}");
    assert_eq!(last["event"], "finished");
    assert_eq!(last["passed"], true);
    assert_eq!(last["directory"], run.directory().to_str().unwrap());
    let read = |name: &str| std::fs::read_to_string(run.directory().join(name)).unwrap();
    let verdict: Value = serde_json::from_str(&read("verdict.json")).unwrap();
    assert_eq!(verdict["passed"], true);
    let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
    assert_eq!(manifest["seed"], 11);
    assert_eq!(manifest["ending"], "completed");
    assert_eq!(manifest["node_binary_sha256"].as_str().unwrap().len(), 64);
    let host = &manifest["hosts"][0];
    assert!(host["facts"]["cores"].as_u64() > Some(0), "{host}");
    assert!(host["clocks"][0]["rtt_us"].as_u64() > Some(0), "{host}");
    for name in ["plan.yaml", "resolved.yaml", "schedule.jsonl", "timeline.jsonl", "journal.jsonl"] {
        assert!(!read(name).is_empty(), "{name}");
    }
    assert_eq!(run.clean(), (Some(0), "nothing left\n".to_owned()));
}

#[test]
fn the_same_plan_runs_with_its_nodes_in_one_process() {
    let expect = "expect:\n  - lookup.success >= 90%\n  - lookup.wrong == 0\n  - nodes.alive == 7\n";
    let mut run = Run::start(&format!("{PLAN}isolation: task\n{expect}"), &["--json", "--seed", "11"]);
    run.wait_alive(8);
    assert_eq!(processes(&run.agent()).len(), 3, "the agent, its sentinel and one worker");
    let status = run.wait_end();
    assert_eq!(processes(&run.agent()), [0; 0]);
    let last: Value = serde_json::from_str(run.printed.last().unwrap()).unwrap();
    assert_eq!(status.code(), Some(0), "{last:#}");
    let manifest = std::fs::read_to_string(run.directory().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["isolation"], "task");
    let timeline = std::fs::read_to_string(run.directory().join("timeline.jsonl")).unwrap();
    for told in ["\"signal 9\"", "\"exit 0\""] {
        assert!(timeline.contains(told), "{told}: {timeline}");
    }
    assert_eq!(run.clean(), (Some(0), "nothing left\n".to_owned()));
}

#[test]
fn an_expectation_that_does_not_hold_is_exit_code_1_and_the_directory_is_the_last_line() {
    let mut run = Run::start(&format!("{PLAN}expect:\n  - nodes.alive == 500\n"), &["--set", "duration=6s"]);
    let status = run.wait_end();
    assert_eq!(status.code(), Some(1), "{:#?}", run.printed);
    assert_eq!(run.printed.last().unwrap(), run.directory().to_str().unwrap());
}
