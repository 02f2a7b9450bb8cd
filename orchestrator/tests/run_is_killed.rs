//! `kill -9` of any one part of a run leaves no process.

mod harness;

use std::time::Duration;

use harness::{Run, plan, processes, wait_gone};
use rustix::process::Signal;

/// How long anything may stay after its orchestrator is gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn an_orchestrator_that_is_killed_leaves_no_agent_and_no_node() {
    let mut run = Run::start(&plan(12, 300), &["--json"]);
    run.wait_alive(12);
    let agent = run.agent();
    // The agent, its sentinel and the nodes.
    assert_eq!(processes(&agent).len(), 2 + 12);
    run.signal(Signal::KILL);
    run.wait_end();
    wait_gone(&agent, GONE_WITHIN);
    assert_eq!(run.clean(), (Some(0), "nothing left\n".to_owned()));
}

#[test]
fn an_agent_that_is_killed_ends_a_run_on_one_host_and_leaves_no_node() {
    let mut run = Run::start(&plan(8, 300), &["--json"]);
    run.wait_alive(8);
    let agent = run.agent();
    assert!(agent.signal(Signal::KILL).unwrap());
    let status = run.wait_end();
    assert_eq!(processes(&agent), [0; 0]);
    assert_eq!(status.code(), Some(3));
    let last: serde_json::Value = serde_json::from_str(run.printed.last().unwrap()).unwrap();
    assert_eq!(last["ending"], "no_hosts");
    assert!(last["hosts_lost"][0]["reason"].as_str().unwrap().contains("SIGKILL"), "{last}");
    assert!(run.directory().join("verdict.json").is_file());
}

#[test]
fn a_run_that_is_going_on_is_not_cleaned_away() {
    let mut run = Run::start(&plan(4, 300), &["--json"]);
    run.wait_alive(4);
    let (code, text) = run.clean();
    assert_eq!(code, Some(3));
    assert!(text.contains("still being carried out"), "{text}");
    assert_eq!(processes(&run.agent()).len(), 2 + 4);
    run.signal(Signal::INT);
    run.wait_end();
}

#[test]
fn an_agent_that_hangs_when_its_orchestrator_is_killed_is_cleaned_away_with_its_nodes() {
    let mut run = Run::start(&plan(6, 300), &["--json"]);
    run.wait_alive(6);
    let agent = run.agent();
    // It cannot notice the end of its orchestrator, nor be ended politely.
    assert!(agent.signal(Signal::STOP).unwrap());
    run.signal(Signal::KILL);
    run.wait_end();
    assert_eq!(processes(&agent).len(), 2 + 6);
    let (code, text) = run.clean();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("ended agent, process {}", agent.pid)), "{text}");
    assert!(text.ends_with("nothing left now\n"), "{text}");
    assert_eq!(processes(&agent), [0; 0]);
}
