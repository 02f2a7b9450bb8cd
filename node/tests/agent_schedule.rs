//! An agent carries its schedule out on real nodes, and says what came of it.

mod agent_harness;

use agent_harness::{Agent, WAIT, eventually, is_joined, is_report, session_members, spawn};
use p2ps::agent::clock::monotonic_us;
use p2ps::agent::protocol::{Action, ActionKind, NodeIndex, Notice, Request};
use p2ps::control::{Outcome, Report};
use p2ps::id::Id;

const LEASE_MS: u64 = 30_000;

fn action(index: u64, at_us: u64, node: NodeIndex, kind: ActionKind) -> Action {
    Action { index, at_us, node, kind }
}

fn lookup(index: u64, at_us: u64, node: NodeIndex, operation: u64, key: u64) -> Action {
    action(index, at_us, node, ActionKind::Lookup { operation, key: Id(key) })
}

fn is_achieved(notice: &Notice, wanted: u64) -> bool {
    matches!(notice, Notice::Achieved { index, .. } if *index == wanted)
}

fn is_exited(notice: &Notice, wanted: NodeIndex) -> bool {
    matches!(notice, Notice::Exited { node, .. } if *node == wanted)
}

#[test]
fn look_ups_find_the_responsible_and_samples_come_from_all_nodes() {
    let (mut agent, _) = Agent::prepared(3, LEASE_MS);
    let mut actions: Vec<Action> = (0..3).map(|node| spawn(node, node * 50_000, node as u32)).collect();
    // Ids are 1000, 2000 and 3000. From 5 s on, since joins take their time.
    let keys = [(0, 1500, 2000), (1, 3000, 3000), (2, 3001, 1000), (0, 1000, 1000)];
    for (operation, (node, key, _)) in (0..).zip(keys) {
        actions.push(lookup(3 + operation, 5_000_000 + operation, node, operation, key));
    }
    agent.say(&Request::Schedule { actions });
    let start_us = monotonic_us() + 10_000;
    agent.say(&Request::Start { at_us: start_us });
    (0..3).for_each(|node| drop(agent.wait_for("joined", |notice| is_joined(notice, node))));
    for (wanted, (node, key, responsible)) in (0..).zip(keys) {
        let is_ended = |notice: &Notice| {
            is_report(
                notice,
                node,
                |report| matches!(report, Report::Operation(report) if report.operation == wanted),
            )
        };
        let notice = agent.wait_for("operation", is_ended);
        let Notice::Node { report: Report::Operation(report), .. } = notice else { unreachable!() };
        assert!(report.issued_us >= start_us + 5_000_000 && report.ended_us >= report.issued_us);
        assert!(
            matches!(report.outcome, Outcome::Found { responsible: found, .. } if found == Id(responsible)),
            "key {key}: {report:?}"
        );
    }
    agent.wait_for_next(
        "samples of all",
        |notice| matches!(notice, Notice::Samples { nodes, .. } if nodes.len() == 3),
    );
    for wanted in 0..3 {
        let notice = agent.wait_for("achieved", |notice| is_achieved(notice, wanted));
        let Notice::Achieved { planned_us, achieved_us, error, .. } = notice else { unreachable!() };
        assert_eq!((planned_us, error), (start_us + wanted * 50_000, None));
        assert!(achieved_us >= planned_us, "never early");
    }
}

#[test]
fn a_killed_node_comes_back_on_its_port_even_where_both_are_due_at_once() {
    let (mut agent, access_points) = Agent::prepared(2, LEASE_MS);
    let actions = vec![
        spawn(0, 0, 0),
        spawn(1, 50_000, 1),
        action(2, 3_000_000, 1, ActionKind::Kill),
        spawn(3, 3_000_000, 1),
        spawn(4, 3_000_000, 0),
    ];
    agent.say(&Request::Schedule { actions });
    agent.say(&Request::Start { at_us: monotonic_us() });
    let exited = agent.wait_for("exit", |notice| is_exited(notice, 1));
    assert!(
        matches!(&exited, Notice::Exited { status, expected: true, .. } if status == "signal 9"),
        "{exited:?}"
    );
    for index in [2, 3] {
        let notice = agent.wait_for("achieved", |notice| is_achieved(notice, index));
        assert!(matches!(notice, Notice::Achieved { error: None, .. }), "{notice:?}");
    }
    let notice = agent.wait_for("refusal", |notice| is_achieved(notice, 4));
    assert!(
        matches!(&notice, Notice::Achieved { error: Some(error), .. } if error.contains("running already")),
        "{notice:?}"
    );
    let is_listening = |notice: &Notice| {
        is_report(
            notice,
            1,
            |report| matches!(report, Report::Listening { access_point, .. } if *access_point == access_points[1]),
        )
    };
    while agent.heard.iter().filter(|notice| is_listening(notice)).count() < 2 {
        agent.wait_for_next("a second listening", is_listening);
    }
}

#[test]
fn a_node_that_leaves_hands_over_and_its_end_is_expected() {
    let (mut agent, _) = Agent::prepared(2, LEASE_MS);
    let actions = vec![spawn(0, 0, 0), spawn(1, 50_000, 1), action(2, 4_000_000, 1, ActionKind::Leave)];
    agent.say(&Request::Schedule { actions });
    agent.say(&Request::Start { at_us: monotonic_us() });
    agent.wait_for("left", |notice| is_report(notice, 1, |report| matches!(report, Report::Left { .. })));
    let exited = agent.wait_for("exit", |notice| is_exited(notice, 1));
    assert!(
        matches!(&exited, Notice::Exited { status, expected: true, .. } if status == "exit 0"),
        "{exited:?}"
    );
    eventually("one node is left", || session_members(agent.pid()).len() == 1);
}

#[test]
fn what_cannot_be_done_is_told_and_a_halt_forgets_the_rest() {
    let (mut agent, _) = Agent::prepared(2, LEASE_MS);
    let far_us = 2 * WAIT.as_micros() as u64;
    let actions = vec![
        action(0, 0, 0, ActionKind::Kill),
        action(1, 0, 0, ActionKind::Leave),
        lookup(2, 0, 1, 77, 5),
        spawn(3, 10_000, 0),
        action(4, far_us, 0, ActionKind::Kill),
    ];
    agent.say(&Request::Schedule { actions });
    agent.say(&Request::Start { at_us: monotonic_us() });
    for index in [0, 1] {
        let notice = agent.wait_for("refusal", |notice| is_achieved(notice, index));
        assert!(
            matches!(&notice, Notice::Achieved { error: Some(error), .. } if error.contains("not running")),
            "{notice:?}"
        );
    }
    agent.wait_for("not issued", |notice| matches!(notice, Notice::NotIssued { operation: 77, .. }));
    agent.wait_for("joined", |notice| is_joined(notice, 0));
    agent.say(&Request::Halt);
    agent.wait_for_next("samples", |notice| matches!(notice, Notice::Samples { .. }));
    agent.say(&Request::Stop);
    agent.wait_for("stopped", |notice| *notice == Notice::Stopped);
    assert!(agent.wait_end().success());
}

#[test]
fn an_unexpected_end_is_told_as_such_and_does_not_touch_the_others() {
    let mut agent = Agent::running(2, LEASE_MS);
    // Whichever of the two it is.
    let victim = session_members(agent.pid())[0];
    let pid = rustix::process::Pid::from_raw(victim as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let exited = agent.wait_for("exit", |notice| matches!(notice, Notice::Exited { .. }));
    assert!(
        matches!(&exited, Notice::Exited { status, expected: false, .. } if status == "signal 6"),
        "{exited:?}"
    );
    agent.wait_for_next(
        "samples of the other",
        |notice| matches!(notice, Notice::Samples { nodes, .. } if nodes.len() == 1),
    );
}

#[test]
fn a_start_that_is_said_again_moves_the_actions_to_come() {
    let (mut agent, _) = Agent::prepared(1, LEASE_MS);
    let far_us = 2 * WAIT.as_micros() as u64;
    agent.say(&Request::Schedule { actions: vec![spawn(0, 0, 0), action(1, far_us, 0, ActionKind::Kill)] });
    let start_us = monotonic_us();
    agent.say(&Request::Start { at_us: start_us });
    agent.wait_for("joined", |notice| is_joined(notice, 0));
    let moved_us = start_us.saturating_sub(far_us);
    agent.say(&Request::Start { at_us: moved_us });
    let killed = agent.wait_for("kill", |notice| is_achieved(notice, 1));
    assert!(
        matches!(killed, Notice::Achieved { planned_us, error: None, .. } if planned_us == moved_us + far_us),
        "{killed:?}"
    );
}

#[test]
fn on_a_busy_host_nodes_let_their_agent_go_first() {
    let agent = Agent::running(2, LEASE_MS);
    let nice = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::getpriority_process(Some(pid)).unwrap()
    };
    let nodes: Vec<i32> = session_members(agent.pid()).into_iter().map(nice).collect();
    assert_eq!(nodes, [(nice(agent.pid()) + 10).min(19); 2]);
}
