//! Nodes in processes and nodes in tasks: the same schedule is carried out in the same way, and told of in the same words.

mod agent_harness;

use std::collections::BTreeSet;

use agent_harness::{Agent, is_joined, is_report, session_members, spawn};
use p2ps::agent::clock::monotonic_us;
use p2ps::agent::protocol::{Action, ActionKind, Isolation, Notice, Request, ShapeRule};
use p2ps::com::shaping::LinkShape;
use p2ps::control::{Outcome, Report};
use p2ps::id::Id;
use p2ps::metrics::ShapeEffect;
use rustix::process::{Pid, Signal, kill_process};

const LEASE_MS: u64 = 60_000;
const MS: u64 = 1000;
const NODES: u32 = 5;

/// All that can be done to nodes, at times that leave the network time to settle.
fn scenario() -> Vec<Action> {
    let lookup = |operation, key| ActionKind::Lookup { operation, key: Id(key) };
    let slow = LinkShape { latency_us: 2000, ..LinkShape::default() };
    let shape = ActionKind::Shape { rules: vec![ShapeRule { to: 0, shape: slow }] };
    let steps = [
        (4000, 1, lookup(1, 500)),
        (4000, 4, lookup(2, 3500)),
        (5000, 2, ActionKind::Pause),
        (5001, 2, lookup(3, 100)),
        (5001, 3, shape),
        (6000, 2, ActionKind::Resume),
        (7000, 2, lookup(4, 100)),
        (8000, 3, ActionKind::Kill),
        (8000, 3, ActionKind::Spawn { via: vec![0] }),
        (12_000, 0, lookup(5, 3500)),
        (13_000, 4, ActionKind::Leave),
        (16_000, 4, ActionKind::Kill),
        (16_000, 2, ActionKind::Kill),
        (17_000, 2, lookup(6, 1)),
    ];
    let step = |(index, (at_ms, node, kind))| Action { index, at_us: at_ms * MS, node, kind };
    let spawns = (0..NODES).map(|node| spawn(node.into(), u64::from(node) * 100 * MS, node));
    spawns.chain((100..).zip(steps).map(step)).collect()
}

/// Carries the scenario out; gives back the agent when it is over.
fn carried_out(isolation: Isolation) -> Agent {
    let (mut agent, _) = Agent::prepared_in(isolation, NODES, LEASE_MS);
    agent.say(&Request::Groups { first: 0, groups: vec![vec![Id(1000), Id(2000)]] });
    agent.say(&Request::Schedule { actions: scenario() });
    agent.say(&Request::Start { at_us: monotonic_us() });
    agent.wait_for("a sample of what is slow", |notice| match notice {
        Notice::Samples { nodes, .. } => {
            nodes.iter().any(|(node, sample)| *node == 3 && sample.shaped[ShapeEffect::Delayed as usize] > 0)
        }
        _ => false,
    });
    agent.wait_for("the last look-up's refusal", |notice| {
        matches!(notice, Notice::NotIssued { operation: 6, .. })
    });
    // Of five are left 0, 1 and 3: the predecessor of the one that was killed sees that it is gone.
    let is_ring = |notice: &Notice| is_report(notice, 1, |report| matches!(report, Report::Ring { .. }));
    while last_successor(&agent) != Some(Id(4000)) {
        agent.wait_for_next("other neighbours", is_ring);
    }
    let processes = match isolation {
        Isolation::Process => 3,
        Isolation::Task => 1,
    };
    assert_eq!(session_members(agent.pid()).len(), processes);
    agent.say(&Request::Stop);
    agent.wait_for("stopped", |notice| *notice == Notice::Stopped);
    assert!(agent.wait_end().success());
    agent.assert_no_nodes();
    agent
}

/// The successor that node 1 told of last.
fn last_successor(agent: &Agent) -> Option<Id> {
    agent.heard.iter().rev().find_map(|notice| match notice {
        Notice::Node { node: 1, report: Report::Ring { successor, .. } } => Some(*successor),
        _ => None,
    })
}

/// What was told, but for times, and for what depends on them.
fn told(agent: &Agent) -> BTreeSet<String> {
    let words = |notice: &Notice| match notice {
        Notice::Achieved { index, error, .. } => Some(format!("action {index}: {error:?}")),
        Notice::NotIssued { operation, .. } => Some(format!("operation {operation}: not issued")),
        Notice::Exited { node, status, expected, stderr, .. } => {
            Some(format!("node {node} ended: {status} {expected} {stderr}"))
        }
        Notice::Problem { error } => Some(error.clone()),
        Notice::Node { node, report } => match report {
            Report::Listening { .. } => Some(format!("node {node} listens")),
            Report::Joined { .. } => Some(format!("node {node} has joined")),
            Report::Left { handed_over, .. } => Some(format!("node {node} has left: {handed_over}")),
            Report::Failed { error } => Some(format!("node {node} failed: {error}")),
            Report::Operation(end) => Some(match end.outcome {
                Outcome::Found { responsible, .. } => {
                    format!("operation {}: found {responsible}", end.operation)
                }
                Outcome::Failed(reason) => format!("operation {}: {reason}", end.operation),
                outcome => format!("operation {}: {outcome:?}", end.operation),
            }),
            Report::Ring { .. }
            | Report::Sample(_)
            | Report::Delivered { .. }
            | Report::Undelivered { .. } => None,
        },
        Notice::Samples { .. } => Some("samples".to_owned()),
        Notice::Ready { .. }
        | Notice::Listening { .. }
        | Notice::Dialled { .. }
        | Notice::Prepared { .. }
        | Notice::Clock { .. }
        | Notice::Stopped => None,
    };
    agent.heard.iter().filter_map(words).collect()
}

#[test]
fn processes_and_tasks_do_the_same_and_say_the_same() {
    let tasks = std::thread::spawn(|| told(&carried_out(Isolation::Task)));
    let processes = told(&carried_out(Isolation::Process));
    let tasks = tasks.join().unwrap();
    assert_eq!(processes, tasks);
    for expected in [
        "action 111: Some(\"the node is not running\")",
        "node 2 ended: signal 9 true ",
        "node 3 ended: signal 9 true ",
        "node 4 ended: exit 0 true ",
        "node 4 has left: true",
        "operation 1: found 1000",
        "operation 2: found 4000",
        "operation 3: not issued",
        "operation 4: found 1000",
        "operation 5: found 4000",
        "samples",
    ] {
        assert!(tasks.contains(expected), "{expected}: {tasks:#?}");
    }
}

/// An agent with this many nodes in one worker process, and that process.
fn with_a_worker(nodes: u32, actions: Vec<Action>) -> (Agent, u32) {
    let (mut agent, _) = Agent::prepared_in(Isolation::Task, nodes, LEASE_MS);
    let spawns = (0..nodes).map(|node| spawn(node.into(), u64::from(node) * 100 * MS, node));
    agent.say(&Request::Schedule { actions: spawns.chain(actions).collect() });
    agent.say(&Request::Start { at_us: monotonic_us() });
    (0..nodes).for_each(|node| drop(agent.wait_for("joined", |notice| is_joined(notice, node))));
    let workers = session_members(agent.pid());
    assert_eq!(workers.len(), 1);
    (agent, workers[0])
}

fn is_exit(notice: &Notice, wanted: u32) -> bool {
    matches!(notice, Notice::Exited { node, status, expected: false, .. } if *node == wanted && status == "signal 9")
}

#[test]
fn a_worker_that_dies_takes_its_nodes_along_and_they_can_start_again_in_another() {
    let (mut agent, worker) = with_a_worker(3, vec![spawn(10, 12_000 * MS, 0)]);
    kill_process(Pid::from_raw(worker as i32).unwrap(), Signal::KILL).unwrap();
    (0..3).for_each(|node| drop(agent.wait_for("exit", |notice| is_exit(notice, node))));
    agent.wait_for_next("joined", |notice| is_joined(notice, 0));
    assert_ne!(session_members(agent.pid()), [worker]);
    agent.say(&Request::Stop);
    agent.wait_for("stopped", |notice| *notice == Notice::Stopped);
    assert!(agent.wait_end().success());
    agent.assert_no_nodes();
}

#[test]
fn an_agent_that_is_killed_leaves_no_worker() {
    let (mut agent, _) = with_a_worker(2, Vec::new());
    agent.kill();
    agent.wait_end();
    agent.wait_no_nodes();
}
