//! What an agent says to lines that it must not be given: what is wrong, and it goes on where it can.

mod agent_harness;

use agent_harness::{Agent, hello, prepare, spawn};
use p2ps::agent::protocol::{
    AGENT_PROTOCOL_VERSION, LIST_MAX, NODES_MAX, NOTICE_BYTES_MAX, NodeSlot, Notice, Request,
};
use p2ps::id::Id;

const LEASE_MS: u64 = 30_000;

/// The agent still answers.
fn assert_alive(agent: &mut Agent, token: u64) {
    agent.say(&Request::Clock { token });
    agent.wait_for_next("clock", |notice| matches!(notice, Notice::Clock { token: t, .. } if *t == token));
}

#[test]
fn an_orchestrator_of_another_version_is_refused_with_both_versions() {
    let mut agent = Agent::start();
    agent.say(&Request::Hello {
        version: AGENT_PROTOCOL_VERSION + 1,
        run: String::new(),
        lease_ms: LEASE_MS,
    });
    let problem = agent.problem();
    assert!(problem.contains(&format!("version {}", AGENT_PROTOCOL_VERSION + 1)), "{problem}");
    agent.wait_for_next("stopped", |notice| *notice == Notice::Stopped);
    assert!(!agent.wait_end().success());
}

#[test]
fn the_first_line_must_be_hello() {
    let mut agent = Agent::start();
    agent.say(&Request::Renew);
    assert!(agent.problem().contains("hello, not renew"));
    assert!(!agent.wait_end().success());
}

#[test]
fn lines_that_are_no_requests_and_requests_out_of_order_are_told_and_survived() {
    let mut agent = Agent::start();
    agent.say(&hello(LEASE_MS));
    for (token, line) in
        (0..).zip(["", "nonsense", "{\"destroy\":{}}", "[1,2", "\u{0}\u{1}", "{\"clock\":{}}"])
    {
        agent.say_line(line);
        assert!(agent.problem().contains("no request"), "{line}");
        assert_alive(&mut agent, token);
    }
    agent.say(&Request::Start { at_us: 0 });
    assert!(agent.problem().contains("start is out of order"));
    agent.say(&Request::Schedule { actions: Vec::new() });
    assert!(agent.problem().contains("schedule is out of order"));
    agent.say(&hello(LEASE_MS));
    assert!(agent.problem().contains("hello is out of order"));
    assert_alive(&mut agent, 100);
}

#[test]
fn a_line_without_end_ends_the_agent_at_its_bound() {
    let mut agent = Agent::start();
    agent.say(&hello(LEASE_MS));
    agent.say_line(&"x".repeat(NOTICE_BYTES_MAX + 1));
    assert!(agent.problem().contains("a line of more than"));
    assert!(!agent.wait_end().success());
}

#[test]
fn preparations_that_cannot_be_are_refused() {
    let mut agent = Agent::start();
    agent.say(&hello(LEASE_MS));
    let Request::Prepare { net, listen, ports, metrics, sample_every_ms, nodes } = prepare(2) else {
        unreachable!()
    };
    let with = |listen, nodes| Request::Prepare { net, listen, ports, metrics, sample_every_ms, nodes };
    let slot = |node: usize| NodeSlot { node: node as u32, id: Id(node as u64), seed: 0 };
    agent.say(&with(listen, (0..=NODES_MAX).map(slot).collect()));
    assert!(agent.problem().contains("at most 10000"));
    agent.say(&with(listen, vec![nodes[0], nodes[0]]));
    assert!(agent.problem().contains("node 0 was given twice"));
    agent.say(&with(listen, vec![NodeSlot { id: Id(u64::MAX), ..nodes[0] }]));
    assert!(agent.problem().contains("does not lie on the ring"));
    agent.say(&with([0, 0, 0, 0].into(), nodes.clone()));
    assert!(agent.problem().contains("no address"));
    agent.say(&with([192, 0, 2, 1].into(), nodes.clone()));
    assert!(agent.problem().contains("ports"), "an address of another host");
    agent.say(&with(listen, nodes));
    agent.wait_for_next("prepared", |notice| matches!(notice, Notice::Prepared { .. }));
}

#[test]
fn schedules_that_cannot_be_are_refused() {
    let (mut agent, _) = Agent::prepared(2, LEASE_MS);
    agent.say(&Request::Schedule { actions: vec![spawn(0, 10, 0), spawn(1, 9, 1)] });
    assert!(agent.problem().contains("time order"));
    agent.say(&Request::Schedule { actions: vec![spawn(0, 10, 7)] });
    assert!(agent.problem().contains("node 7, which is not prepared"));
    let node = (0, "p2ps://127.0.0.1:1".parse().unwrap());
    agent.say(&Request::Addresses { nodes: vec![node; LIST_MAX + 1] });
    assert!(agent.problem().contains("addresses were refused"));
    assert_alive(&mut agent, 1);
}
