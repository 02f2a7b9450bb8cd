//! Agents on two hosts let their kernels part them: TCP between their nodes is cut, nothing else is, and whatever ends an agent, nothing
//! stays in the kernel.
//!
//! A host is a network namespace here. Where namespaces may not be made, agents must say that they cannot make such faults, and
//! that is what is tested then.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agent_harness;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use agent_harness::{Agent, eventually, hello, is_joined, preparation, spawn};
use p2ps::access_point::AccessPoint;
use p2ps::agent::clock::monotonic_us;
use p2ps::agent::protocol::{
    Action, ActionKind, NodeIndex, NodeSlot, Notice, Preparation, Request, ShapeRule,
};
use p2ps::com::shaping::{Cut, LinkShape};
use p2ps::id::Id;

/// Longer than any test is busy with the other agent.
const LEASE_MS: u64 = 20_000;
const SECOND: u64 = 1_000_000;

/// Two namespaces with a wire between them. Each test has its own.
struct Hosts {
    names: [String; 2],
}

impl Hosts {
    /// `None`: this process may not make any.
    fn new(test: &str) -> Option<Hosts> {
        let names = ["a", "b"].map(|side| format!("p2pskf-{test}-{}-{side}", std::process::id()));
        if !run("ip", &["netns", "add", &names[0]]) {
            return None;
        }
        let hosts = Hosts { names };
        let [a, b] = &hosts.names;
        assert!(run("ip", &["netns", "add", b]));
        assert!(run(
            "ip",
            &["-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b]
        ));
        for (name, address) in [(a, "10.231.0.1/24"), (b, "10.231.0.2/24")] {
            assert!(run("ip", &["-n", name, "address", "add", address, "dev", "wire"]));
            assert!(run("ip", &["-n", name, "link", "set", "wire", "up"]));
            assert!(run("ip", &["-n", name, "link", "set", "lo", "up"]));
        }
        Some(hosts)
    }

    /// What packet filters a host has, as `nft` or else the kernel lists them.
    fn filters(&self, host: usize) -> String {
        let output =
            Command::new("ip").args(["netns", "exec", &self.names[host], "nft", "list", "ruleset"]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether a TCP connection from a host to an address is made within a second.
    fn reaches(&self, host: usize, to: SocketAddr) -> bool {
        let script = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
        run("ip", &["netns", "exec", &self.names[host], "timeout", "1", "bash", "-c", &script])
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            run("ip", &["netns", "delete", name]);
        }
    }
}

/// A process that ends with its test.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    status.success()
}

fn address(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 231, 0, 1 + host as u8).into()
}

fn id(node: NodeIndex) -> Id {
    Id(1000 * (u64::from(node) + 1))
}

/// Both agents; node 0 is on host 0, nodes 1 and 2 on host 1. Groups: host 0's, host 1's, and node 1 alone.
struct Testbed {
    agents: [Agent; 2],
    nodes: Vec<(NodeIndex, AccessPoint)>,
}

impl Testbed {
    /// Carries out `actions`; all nodes join by node 0 first.
    fn start(hosts: &Hosts, actions: Vec<Action>) -> Testbed {
        let mut agents = [0, 1].map(|host| Agent::start_in(&hosts.names[host]));
        let mut nodes = Vec::new();
        for (host, (agent, own)) in agents.iter_mut().zip([vec![0], vec![1, 2]]).enumerate() {
            agent.say(&hello(LEASE_MS));
            agent.wait_for("ready", |notice| matches!(notice, Notice::Ready { .. }));
            let slot = |node| NodeSlot { node, id: id(node), seed: node.into() };
            agent.say(&Request::Prepare(Preparation {
                listen: address(host),
                sample_every_ms: 1000,
                nodes: own.into_iter().map(slot).collect(),
                ..preparation(0)
            }));
            let notice = agent.wait_for("prepared", |notice| matches!(notice, Notice::Prepared { .. }));
            let Notice::Prepared { nodes: prepared } = notice else { unreachable!() };
            nodes.extend(prepared);
        }
        let mut all: Vec<Action> = (0..3).map(|node| spawn(node.into(), 0, node)).collect();
        all.extend(actions);
        let placed: Vec<(Id, AccessPoint)> = nodes.iter().map(|(node, at)| (id(*node), *at)).collect();
        let start_us = monotonic_us();
        for (host, agent) in agents.iter_mut().enumerate() {
            agent.say(&Request::Kernel { nodes: placed.clone() });
            agent.say(&Request::Addresses { nodes: nodes.clone() });
            agent.say(&Request::Groups {
                first: 0,
                groups: vec![vec![id(0)], vec![id(1), id(2)], vec![id(1)]],
            });
            let here = |action: &&Action| usize::from(action.node > 0) == host;
            agent.say(&Request::Schedule { actions: all.iter().filter(here).cloned().collect() });
            agent.say(&Request::Start { at_us: start_us });
        }
        let mut testbed = Testbed { agents, nodes };
        for node in 0..3 {
            testbed.agents[usize::from(node > 0)].wait_for("joined", |notice| is_joined(notice, node));
        }
        testbed
    }

    /// Why an action could not be done, if it could not.
    fn error(&mut self, host: usize, wanted: u64) -> Option<String> {
        let is_it = |notice: &Notice| matches!(notice, Notice::Achieved { index, .. } if *index == wanted);
        match self.agents[host].wait_for("achieved", is_it) {
            Notice::Achieved { error, .. } => error,
            other => unreachable!("{other:?}"),
        }
    }

    fn node(&self, node: NodeIndex) -> SocketAddr {
        self.nodes.iter().find(|(known, _)| *known == node).map(|(_, at)| (*at).into()).unwrap()
    }
}

fn shape(index: u64, at_us: u64, node: NodeIndex, rules: &[(u32, LinkShape)]) -> Action {
    let rules = rules.iter().map(|(to, shape)| ShapeRule { to: *to, shape: *shape }).collect();
    Action { index, at_us, node, kind: ActionKind::Shape { rules } }
}

fn cut(cut: Cut) -> LinkShape {
    LinkShape { cut, ..LinkShape::default() }
}

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

fn refuses() {
    let (mut agent, nodes) = Agent::prepared(1, 60_000);
    agent.say(&Request::Kernel { nodes: vec![(id(0), nodes[0])] });
    assert!(agent.problem().contains("the kernel cannot make faults"));
    let ready = agent.wait_for("ready", |notice| matches!(notice, Notice::Ready { .. }));
    let Notice::Ready { host, .. } = ready else { unreachable!() };
    assert!(host.no_kernel_faults.is_some(), "and it has said so before");
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
    let slow = LinkShape { latency_us: 5, ..LinkShape::default() };
    let mut testbed = Testbed::start(
        &hosts,
        vec![
            shape(10, 0, 0, &[(1, slow)]),
            shape(11, 0, 0, &[(2, cut(Cut::Both))]),
            shape(12, 0, 2, &[(2, cut(Cut::Both))]),
            shape(13, 0, 0, &[(9, cut(Cut::Both))]),
            shape(14, 8 * SECOND, 0, &[(1, cut(Cut::Out))]),
        ],
    );
    let said =
        [(0, 10), (0, 11), (1, 12), (0, 13), (0, 14)].map(|(host, action)| testbed.error(host, action));
    let expected =
        ["kernels make cuts only", "share the address 10.231.0.2", "share the address 10.231.0.2", "group 9"];
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.as_ref().is_some_and(|said| said.contains(expected)), "{said:?} is not {expected}");
    }
    assert_eq!(said[4], None, "and it still does what it can");
    assert!(hosts.filters(0).contains("out_to_v4") && !hosts.filters(0).contains("in_to_v4"), "one way");
    assert_eq!(hosts.filters(1), "");
}
