//! Agents on two hosts let their kernels part them: TCP between their nodes is cut, nothing else is, and whatever ends an agent, nothing
//! stays in the kernel.
//!
//! A host is a network namespace here. Where namespaces may not be made, agents must say that they cannot make such faults, and
//! that is what is tested then.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agent_harness;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use agent_harness::eventually;
use agent_harness::hosts::{Hosts, SECOND, Stranger, Testbed, cut, refuses, shape};
use p2ps::agent::protocol::{Action, Request};
use p2ps::com::shaping::{Cut, LinkShape};

/// The hosts are parted from 8 s on.
fn parted() -> Vec<Action> {
    vec![
        shape(10, 8 * SECOND, 0, &[(1, cut(Cut::Both))]),
        shape(11, 8 * SECOND, 1, &[(0, cut(Cut::Both))]),
        shape(12, 8 * SECOND, 2, &[(0, cut(Cut::Both))]),
    ]
}

/// The hosts and a testbed on them, parted; or, without the permission, a look at what an agent says then.
fn parted_testbed(test: &str) -> Option<(Hosts, Testbed)> {
    let Some(hosts) = Hosts::new(test) else {
        refuses();
        return None;
    };
    let mut testbed = Testbed::start(&hosts, parted());
    for (host, action) in [(0, 10), (1, 11), (1, 12)] {
        assert_eq!(testbed.error(host, action), None);
    }
    for host in 0..2 {
        assert!(hosts.filters(host).contains("table inet p2ps_"), "{}", hosts.filters(host));
    }
    Some((hosts, testbed))
}

#[test]
fn parted_hosts_do_not_reach_each_others_nodes_but_all_else_until_they_are_healed() {
    let Some(hosts) = Hosts::new("cut") else { return refuses() };
    let mut actions = parted();
    actions.extend((0..3).map(|node| shape(20 + u64::from(node), 18 * SECOND, node, &[])));
    let mut testbed = Testbed::start(&hosts, actions);
    // Something that is no node of this run: what a control link would go to.
    let mut stranger = Command::new("ip");
    stranger.args(["netns", "exec", &hosts.names[0], env!("CARGO_BIN_EXE_p2ps-node"), "run"]);
    let _stranger =
        Stranger(stranger.args(["--listen", "10.231.0.1:7777"]).stdout(Stdio::null()).spawn().unwrap());
    let control: SocketAddr = "10.231.0.1:7777".parse().unwrap();
    eventually("the stranger listens", || hosts.reaches(1, control));
    for (host, action) in [(0, 10), (1, 11), (1, 12)] {
        assert_eq!(testbed.error(host, action), None);
    }
    let reached = [(0, 1), (0, 2), (1, 0)].map(|(from, to)| hosts.reaches(from, testbed.node(to)));
    let others = [(1, control), (0, testbed.node(0)), (1, testbed.node(2))];
    for (from, to) in others {
        eventually("only nodes of the other side are out of reach", || hosts.reaches(from, to));
    }
    assert_eq!(reached, [false; 3], "{}", hosts.filters(0));
    for (host, action) in [(0, 20), (1, 21), (1, 22)] {
        assert_eq!(testbed.error(host, action), None);
    }
    assert_eq!([hosts.filters(0), hosts.filters(1)], ["", ""], "nothing is left");
    for (from, to) in [(0, 1), (1, 0)] {
        eventually("they reach each other again", || hosts.reaches(from, testbed.node(to)));
    }
}

#[test]
fn an_agent_that_is_killed_leaves_no_cut() {
    let Some((hosts, mut testbed)) = parted_testbed("kill") else { return };
    testbed.agents[0].kill();
    testbed.agents[0].wait_end();
    eventually("host 0 is healed", || hosts.filters(0).is_empty());
    assert!(!hosts.filters(1).is_empty(), "the other agent lives");
    // Nobody renews its lease.
    eventually("host 1 is healed", || hosts.filters(1).is_empty());
}

#[test]
fn the_end_of_input_and_a_halt_leave_no_cut() {
    let Some((hosts, mut testbed)) = parted_testbed("end") else { return };
    testbed.agents[0].hang_up();
    testbed.agents[1].say(&Request::Halt);
    eventually("both are healed", || hosts.filters(0).is_empty() && hosts.filters(1).is_empty());
    testbed.agents[1].say(&Request::Stop);
    assert!(testbed.agents[1].wait_end().success());
}

#[test]
fn what_a_kernel_cannot_do_is_refused_and_changes_nothing() {
    let Some(hosts) = Hosts::new("refuse") else { return refuses() };
    let shaky = LinkShape { jitter_us: SECOND, ..LinkShape::default() };
    let mut testbed = Testbed::start(
        &hosts,
        vec![
            shape(10, 0, 0, &[(1, shaky)]),
            shape(11, 0, 0, &[(2, cut(Cut::Both))]),
            shape(12, 0, 2, &[(2, cut(Cut::Both))]),
            shape(13, 0, 0, &[(9, cut(Cut::Both))]),
            shape(14, 8 * SECOND, 0, &[(1, cut(Cut::Out))]),
        ],
    );
    let said =
        [(0, 10), (0, 11), (1, 12), (0, 13), (0, 14)].map(|(host, action)| testbed.error(host, action));
    let expected = [
        "cannot draw so much jitter",
        "share the address 10.231.0.2",
        "share the address 10.231.0.2",
        "group 9",
    ];
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.as_ref().is_some_and(|said| said.contains(expected)), "{said:?} is not {expected}");
    }
    assert_eq!(said[4], None, "and it still does what it can");
    assert!(hosts.filters(0).contains("out_to_v4") && !hosts.filters(0).contains("in_to_v4"), "one way");
    assert_eq!(hosts.filters(1), "");
}
