//! An agent pauses nodes and shapes their links; whatever ends a run, paused nodes end too.

mod agent_harness;

use agent_harness::{Agent, eventually, is_joined, is_report, session_members, spawn};
use p2ps::agent::clock::monotonic_us;
use p2ps::agent::protocol::{Action, ActionKind, GroupIndex, NodeIndex, Notice, Request, ShapeRule};
use p2ps::com::shaping::{Cut, LinkShape};
use p2ps::control::{Outcome, Report};
use p2ps::id::Id;
use p2ps::metrics::{ShapeEffect, Snapshot};

const LEASE_MS: u64 = 60_000;
const SECOND: u64 = 1_000_000;

fn action(index: u64, at_us: u64, node: NodeIndex, kind: ActionKind) -> Action {
    Action { index, at_us, node, kind }
}

fn shape(index: u64, at_us: u64, node: NodeIndex, rules: &[(GroupIndex, LinkShape)]) -> Action {
    let rules = rules.iter().map(|(to, shape)| ShapeRule { to: *to, shape: *shape }).collect();
    action(index, at_us, node, ActionKind::Shape { rules })
}

/// An agent that carries out these actions on so many nodes; two groups: node 0, and nodes 1 and 2.
fn started(nodes: u32, actions: Vec<Action>) -> Agent {
    let (mut agent, _) = Agent::prepared(nodes, LEASE_MS);
    agent.say(&Request::Groups { first: 0, groups: vec![vec![Id(1000)], vec![Id(2000)]] });
    agent.say(&Request::Groups { first: 1, groups: vec![vec![Id(3000)]] });
    agent.say(&Request::Schedule { actions });
    agent.say(&Request::Start { at_us: monotonic_us() });
    agent
}

/// An agent with so many nodes that have joined, all of them paused.
fn with_all_paused(nodes: u32) -> Agent {
    // The others join by the first, which must listen: on a busy machine that takes its time.
    let starts_at = |node: NodeIndex| u64::from(node.min(1)) * SECOND;
    let mut actions: Vec<Action> = (0..nodes).map(|node| spawn(node.into(), starts_at(node), node)).collect();
    actions.extend((0..nodes).map(|node| action(100 + u64::from(node), 5 * SECOND, node, ActionKind::Pause)));
    let mut agent = started(nodes, actions);
    (0..nodes).for_each(|node| achieves(&mut agent, 100 + u64::from(node)));
    let session = agent.pid();
    eventually("all nodes stand still", || stopped(session) == nodes as usize);
    agent
}

/// How many of the session's nodes are stopped by a signal.
fn stopped(session: u32) -> usize {
    let is_stopped = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T "))
    };
    session_members(session).iter().filter(|pid| is_stopped(pid)).count()
}

fn outcome(agent: &mut Agent, node: NodeIndex, operation: u64) -> Outcome {
    let is_end = |notice: &Notice| {
        is_report(
            notice,
            node,
            |report| matches!(report, Report::Operation(end) if end.operation == operation),
        )
    };
    match agent.wait_for("operation", is_end) {
        Notice::Node { report: Report::Operation(end), .. } => end.outcome,
        other => unreachable!("{other:?}"),
    }
}

/// Why an action could not be done, if it could not.
fn error(agent: &mut Agent, wanted: u64) -> Option<String> {
    let is_it = |notice: &Notice| matches!(notice, Notice::Achieved { index, .. } if *index == wanted);
    match agent.wait_for("achieved", is_it) {
        Notice::Achieved { error, .. } => error,
        other => unreachable!("{other:?}"),
    }
}

fn achieves(agent: &mut Agent, index: u64) {
    assert_eq!(error(agent, index), None, "action {index}: {:#?}", agent.heard);
}

fn assert_killed(agent: &mut Agent, wanted: NodeIndex) {
    let notice =
        agent.wait_for("exit", |notice| matches!(notice, Notice::Exited { node, .. } if *node == wanted));
    assert!(
        matches!(&notice, Notice::Exited { status, expected: true, .. } if status == "signal 9"),
        "{notice:?}"
    );
}

/// Waits for a sample of a node to come that is as wanted.
fn wait_sample(agent: &mut Agent, what: &str, of: NodeIndex, is_wanted: impl Fn(&Snapshot) -> bool) {
    agent.wait_for_next(what, |notice| match notice {
        Notice::Samples { nodes, .. } => nodes.iter().any(|(node, sample)| *node == of && is_wanted(sample)),
        _ => false,
    });
}

fn count(sample: &Snapshot, effect: ShapeEffect) -> u64 {
    sample.shaped[effect as usize]
}

#[test]
fn a_paused_node_stands_still_and_goes_on_and_the_others_do_not_wait_for_it() {
    let lookup =
        |index, at_us, operation| action(index, at_us, 1, ActionKind::Lookup { operation, key: Id(500) });
    let mut agent = started(
        3,
        vec![
            spawn(0, 0, 0),
            spawn(1, 0, 1),
            spawn(2, 0, 2),
            action(3, 4 * SECOND, 1, ActionKind::Pause),
            action(4, 4 * SECOND, 1, ActionKind::Pause),
            action(5, 4 * SECOND, 2, ActionKind::Pause),
            lookup(6, 4 * SECOND + 1, 77),
            action(7, 5 * SECOND, 1, ActionKind::Resume),
            lookup(8, 6 * SECOND, 78),
            action(9, 8 * SECOND, 2, ActionKind::Kill),
        ],
    );
    [3, 4, 5, 7].into_iter().for_each(|index| achieves(&mut agent, index));
    agent.wait_for("not issued", |notice| matches!(notice, Notice::NotIssued { operation: 77, .. }));
    assert!(matches!(outcome(&mut agent, 1, 78), Outcome::Found { .. }));
    agent.wait_for_next(
        "samples of the other two",
        |notice| matches!(notice, Notice::Samples { nodes, .. } if nodes.len() == 2),
    );
    achieves(&mut agent, 9);
    assert_killed(&mut agent, 2);
}

#[test]
fn nodes_that_are_not_there_cannot_be_paused_and_unknown_groups_not_shaped() {
    let slow = LinkShape { latency_us: 5, ..LinkShape::default() };
    let mut agent = started(
        2,
        vec![
            action(0, 0, 0, ActionKind::Pause),
            action(1, 0, 0, ActionKind::Resume),
            shape(2, 0, 0, &[(2, slow)]),
            shape(3, 0, 0, &[(1, slow)]),
        ],
    );
    for index in [0, 1] {
        assert!(error(&mut agent, index).is_some_and(|error| error.contains("not running")));
    }
    assert!(error(&mut agent, 2).is_some_and(|error| error.contains("group 2 is not known")));
    achieves(&mut agent, 3);
    let (mut agent, _) = Agent::prepared(1, LEASE_MS);
    agent.say(&Request::Groups { first: 1, groups: vec![vec![Id(1)]] });
    assert!(agent.problem().contains("group 1 does not follow"));
}

#[test]
fn an_agent_that_is_killed_leaves_no_paused_node() {
    let mut agent = with_all_paused(2);
    agent.kill();
    agent.wait_end();
    agent.wait_no_nodes();
}

#[test]
fn paused_nodes_end_with_the_orchestrators_input() {
    let mut agent = with_all_paused(2);
    agent.hang_up();
    assert!(!agent.wait_end().success(), "it was not told to stop");
    agent.assert_no_nodes();
}

#[test]
fn a_stop_ends_paused_nodes() {
    let mut agent = with_all_paused(2);
    agent.say(&Request::Stop);
    agent.wait_for("stopped", |notice| *notice == Notice::Stopped);
    assert!(agent.wait_end().success());
    agent.assert_no_nodes();
    (0..2).for_each(|node| assert_killed(&mut agent, node));
}

#[test]
fn a_halt_lets_paused_nodes_go_on() {
    let mut agent = with_all_paused(2);
    agent.say(&Request::Halt);
    let session = agent.pid();
    eventually("nobody stands still", || stopped(session) == 0);
    assert_eq!(session_members(session).len(), 2);
    wait_sample(&mut agent, "a sample of what goes on", 1, |_| true);
}

#[test]
fn a_node_that_is_told_to_leave_while_it_is_paused_leaves_when_it_goes_on() {
    let mut agent = started(
        2,
        vec![
            spawn(0, 0, 0),
            spawn(1, 0, 1),
            action(2, 4 * SECOND, 1, ActionKind::Pause),
            action(3, 5 * SECOND, 1, ActionKind::Leave),
            action(4, 6 * SECOND, 1, ActionKind::Resume),
        ],
    );
    (2..5).for_each(|index| achieves(&mut agent, index));
    agent.wait_for("left", |notice| is_report(notice, 1, |report| matches!(report, Report::Left { .. })));
    let exited = agent.wait_for("exit", |notice| matches!(notice, Notice::Exited { node: 1, .. }));
    assert!(
        matches!(&exited, Notice::Exited { status, expected: true, .. } if status == "exit 0"),
        "{exited:?}"
    );
}

#[test]
fn a_node_that_is_told_to_leave_and_never_goes_on_is_killed() {
    let mut agent = started(
        2,
        vec![
            spawn(0, 0, 0),
            spawn(1, 0, 1),
            action(2, 3 * SECOND, 1, ActionKind::Pause),
            action(3, 3 * SECOND, 1, ActionKind::Leave),
        ],
    );
    (2..4).for_each(|index| achieves(&mut agent, index));
    assert!(agent.problem().contains("node 1 has not left within"));
    let exited = agent.wait_for("exit", |notice| matches!(notice, Notice::Exited { node: 1, .. }));
    assert!(
        matches!(&exited, Notice::Exited { status, expected: false, .. } if status == "signal 9"),
        "{exited:?}"
    );
    assert_eq!(session_members(agent.pid()).len(), 1);
}

#[test]
fn shapes_are_made_and_healed_and_stand_for_a_node_that_starts_again() {
    let slow = LinkShape { latency_us: 20_000, ..LinkShape::default() };
    let mut agent = started(
        3,
        vec![
            // Before it runs: it is shaped from its first moment.
            shape(0, 0, 2, &[(0, slow), (1, slow)]),
            spawn(1, 0, 0),
            spawn(2, 0, 1),
            spawn(3, 0, 2),
            action(4, 5 * SECOND, 2, ActionKind::Kill),
            spawn(5, 5 * SECOND, 2),
        ],
    );
    achieves(&mut agent, 0);
    agent.wait_for("joined", |notice| is_joined(notice, 2));
    let is_slow = |sample: &Snapshot| {
        let sent: u64 = sample.traffic.iter().map(|kind| kind.sent).sum();
        sent > 0 && count(sample, ShapeEffect::Delayed) == sent
    };
    wait_sample(&mut agent, "all that it sends is delayed", 2, is_slow);
    assert_killed(&mut agent, 2);
    agent.wait_for_next("joined again", |notice| is_joined(notice, 2));
    wait_sample(&mut agent, "all that it sends is delayed again", 2, is_slow);
    agent.say(&Request::Halt);
    wait_sample(&mut agent, "what it sends is not delayed", 2, |sample| !is_slow(sample));
}

#[test]
fn a_partition_stands_between_its_sides() {
    let cut = LinkShape { cut: Cut::Both, ..LinkShape::default() };
    let mut agent = started(
        3,
        vec![
            spawn(0, 0, 0),
            spawn(1, 0, 1),
            spawn(2, 0, 2),
            shape(3, 5 * SECOND, 0, &[(1, cut)]),
            shape(4, 5 * SECOND, 1, &[(0, cut)]),
            shape(5, 5 * SECOND, 2, &[(0, cut)]),
            action(6, 5 * SECOND, 1, ActionKind::Lookup { operation: 9, key: Id(500) }),
        ],
    );
    (3..6).for_each(|index| achieves(&mut agent, index));
    // The responsible of the key is on the other side.
    let outcome = outcome(&mut agent, 1, 9);
    assert!(!matches!(outcome, Outcome::Found { responsible: Id(1000), .. }), "{outcome:?}");
    for node in [0, 1] {
        wait_sample(&mut agent, "what was cut", node, |sample| {
            count(sample, ShapeEffect::Cut) > 0 && sample.links_in + sample.links_out > 0
        });
    }
}
