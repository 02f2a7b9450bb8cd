//! Whatever happens to an agent or to its orchestrator, no node outlives it.

mod agent_harness;

use std::os::unix::process::ExitStatusExt;

use agent_harness::{Agent, eventually, hello, prepare, session_members, session_processes, spawn};
use p2ps::agent::protocol::{Notice, Request};

const LONG_LEASE_MS: u64 = 60_000;

#[test]
fn the_end_of_input_ends_all_nodes_and_the_agent() {
    let mut agent = Agent::running(3, LONG_LEASE_MS);
    assert_eq!(session_members(agent.pid()).len(), 3);
    agent.hang_up();
    assert!(!agent.wait_end().success(), "it was not told to stop");
    agent.assert_no_nodes();
}

#[test]
fn silence_for_a_lease_ends_all_nodes_and_the_agent() {
    let mut agent = Agent::running(2, 1000);
    // The input stays open; nothing is said any more.
    assert!(!agent.wait_end().success());
    agent.assert_no_nodes();
    agent.wait_for("problem", |notice| {
        matches!(notice, Notice::Problem { error } if error.contains("no word from the orchestrator for 1000 ms"))
    });
    agent.wait_for("stopped", |notice| *notice == Notice::Stopped);
}

#[test]
fn an_agent_that_is_killed_leaves_no_node() {
    let mut agent = Agent::running(3, LONG_LEASE_MS);
    agent.kill();
    agent.wait_end();
    agent.wait_no_nodes();
}

#[test]
fn an_agent_that_hangs_is_killed_and_leaves_nothing() {
    let mut agent = Agent::running(3, 1000);
    agent.halt();
    assert_eq!(agent.wait_end().signal(), Some(9));
    eventually("nothing is left", || session_processes(agent.pid()).is_empty());
}

#[test]
fn stop_ends_all_nodes_and_then_the_agent() {
    let mut agent = Agent::running(3, LONG_LEASE_MS);
    agent.say(&Request::Stop);
    agent.wait_for("stopped", |notice| *notice == Notice::Stopped);
    assert!(agent.wait_end().success());
    agent.assert_no_nodes();
    let expected = |notice: &&Notice| matches!(notice, Notice::Exited { expected: true, .. });
    assert_eq!(agent.heard.iter().filter(expected).count(), 3);
}

#[test]
fn an_orchestrator_that_reads_nothing_holds_up_no_end() {
    let mut agent = Agent::unheard();
    agent.say(&hello(LONG_LEASE_MS));
    agent.say(&prepare(1));
    agent.say(&Request::Schedule { actions: vec![spawn(0, 0, 0)] });
    agent.say(&Request::Start { at_us: 0 });
    let session = agent.pid();
    eventually("a node", || session_members(session).len() == 1);
    // More answers than any pipe holds.
    for token in 0..20_000 {
        agent.say(&Request::Clock { token });
    }
    agent.say(&Request::Stop);
    assert!(agent.wait_end().success());
    agent.assert_no_nodes();
}
