//! Agents let their kernels degrade links between hosts: what their nodes send there goes through classes of queues, nothing else does, and
//! whatever ends an agent, the queues go with it. Where the kernel has netem, latency is looked at too; where it has none, what an agent
//! says then.
//!
//! A host is a network namespace here. Where namespaces may not be made, agents must say that they cannot make such faults.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agent_harness;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_harness::hosts::{Hosts, LEASE_MS, SECOND, Stranger, Testbed, id, refuses, shape};
use agent_harness::{Agent, eventually, hello, preparation};
use p2ps::agent::clock::monotonic_us;
use p2ps::agent::protocol::{Action, ActionKind, NodeIndex, NodeSlot, Notice, Preparation, Request};
use p2ps::com::shaping::LinkShape;
use p2ps::id::Id;

/// So little that what a few hundred look-ups take has to wait.
const BYTES_PER_SECOND: u64 = 4_000;

fn links(bytes_per_second: u64) -> LinkShape {
    LinkShape { bytes_per_second, ..LinkShape::default() }
}

/// The links between the hosts are so both ways from `at_us` on.
fn both_ways(at_us: u64, links: LinkShape) -> Vec<Action> {
    vec![
        shape(10, at_us, 0, &[(1, links)]),
        shape(11, at_us, 1, &[(0, links)]),
        shape(12, at_us, 2, &[(0, links)]),
    ]
}

/// Wide enough for nodes to join over.
fn bounded() -> Vec<Action> {
    both_ways(2 * SECOND, links(1_000_000))
}

/// What a host's interface queues, and in which classes.
fn queues(hosts: &Hosts, host: usize, interface: &str) -> String {
    hosts.says(host, &["tc", "qdisc", "show", "dev", interface])
}

/// What the class of the first wire has sent, in bytes, and how often something had to wait for its bandwidth; `None`: there is none.
fn class(hosts: &Hosts, host: usize, interface: &str) -> Option<(u64, u64)> {
    let said = hosts.says(host, &["tc", "-s", "class", "show", "dev", interface, "classid", "7032:1"]);
    let after = |word: &str| {
        let (_, rest) = said.split_once(word)?;
        rest.split_whitespace().next()?.trim_end_matches(')').parse().ok()
    };
    Some((after("Sent ")?, after("overlimits ")?))
}

fn is_left(hosts: &Hosts, host: usize, interface: &str) -> bool {
    queues(hosts, host, interface).contains("7032:") || !hosts.filters(host).is_empty()
}

/// The hosts and a testbed on them, whose links are bounded; or, without the permission, a look at what an agent says then.
fn bounded_testbed(test: &str) -> Option<(Hosts, Testbed)> {
    let Some(hosts) = Hosts::new(test) else {
        refuses();
        return None;
    };
    let mut testbed = Testbed::start(&hosts, bounded());
    for (host, action) in [(0, 10), (1, 11), (1, 12)] {
        assert_eq!(testbed.error(host, action), None);
    }
    for host in 0..2 {
        assert!(queues(&hosts, host, "wire").contains("qdisc htb 7032: root"));
        assert!(hosts.filters(host).contains("meta priority set"), "{}", hosts.filters(host));
    }
    Some((hosts, testbed))
}

/// A node that is not of the run, on host 0; what it says of itself over HTTP goes the narrow way.
fn stranger(hosts: &Hosts) -> Stranger {
    let mut stranger = Command::new("ip");
    stranger.args(["netns", "exec", &hosts.names[0], env!("CARGO_BIN_EXE_p2ps-node"), "run"]);
    stranger.args(["--listen", "10.231.0.1:7777", "--metrics", "10.231.0.1:7778"]);
    let stranger = Stranger(stranger.stdout(Stdio::null()).spawn().unwrap());
    eventually("the stranger listens", || hosts.reaches(1, "10.231.0.1:7778".parse().unwrap()));
    stranger
}

#[test]
fn nodes_have_the_bandwidth_that_they_are_given_and_all_else_has_what_it_had_until_they_are_healed() {
    let Some(hosts) = Hosts::new("narrow") else { return refuses() };
    let began = Instant::now();
    let mut actions = both_ways(8 * SECOND, links(BYTES_PER_SECOND));
    // Each goes to host 1, if its key is node 1's or 2's.
    actions.extend((0..300).map(|operation| {
        let kind = ActionKind::Lookup { operation, key: Id(1001 + operation % 2000) };
        Action { index: 100 + operation, at_us: 9 * SECOND, node: 0, kind }
    }));
    actions.extend((0..3).map(|node| shape(20 + u64::from(node), 26 * SECOND, node, &[])));
    let mut testbed = Testbed::start(&hosts, actions);
    let _stranger = stranger(&hosts);
    assert_eq!(testbed.error(0, 10), None);
    eventually("what nodes send waits for bandwidth", || {
        testbed.renew();
        class(&hosts, 0, "wire").is_some_and(|(sent, waited)| sent > 1000 && waited > 3)
    });
    // More than the class lets through in the while that this may take.
    let (before, _) = class(&hosts, 0, "wire").unwrap();
    let (mut fetched, from) = (0, Instant::now());
    let fetch = "exec 3<>/dev/tcp/10.231.0.1/7778; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; wc -c <&3";
    while fetched < 200_000 {
        let length = hosts.says(1, &["timeout", "5", "bash", "-c", fetch]);
        testbed.renew();
        fetched += length.trim().parse::<u64>().unwrap();
        assert!(from.elapsed() < agent_harness::WAIT, "{fetched} bytes only");
    }
    let Some((sent, _)) = class(&hosts, 0, "wire") else { panic!("healed before it was looked at") };
    let elapsed = began.elapsed();
    // A packet may be as large as 64 KiB where the kernel cuts it late, and goes when the one before has been paid for.
    assert!(sent <= BYTES_PER_SECOND * elapsed.as_secs() + (64 << 10), "{sent} bytes in {elapsed:?}");
    assert!(sent - before < fetched, "what strangers say does not go through the class");
    for (host, action) in [(0, 20), (1, 21), (1, 22)] {
        assert_eq!(testbed.error(host, action), None);
    }
    for host in 0..2 {
        assert!(!is_left(&hosts, host, "wire"), "{}{}", queues(&hosts, host, "wire"), hosts.filters(host));
    }
}

#[test]
fn an_agent_that_is_killed_leaves_no_queues() {
    let Some((hosts, mut testbed)) = bounded_testbed("killq") else { return };
    testbed.agents[0].kill();
    testbed.agents[0].wait_end();
    eventually("host 0 is healed", || !is_left(&hosts, 0, "wire"));
    assert!(is_left(&hosts, 1, "wire"), "the other agent lives");
    // Nobody renews its lease.
    eventually("host 1 is healed", || !is_left(&hosts, 1, "wire"));
}

#[test]
fn the_end_of_input_and_a_halt_leave_no_queues() {
    let Some((hosts, mut testbed)) = bounded_testbed("endq") else { return };
    testbed.agents[0].hang_up();
    testbed.agents[1].say(&Request::Halt);
    eventually("both are healed", || !is_left(&hosts, 0, "wire") && !is_left(&hosts, 1, "wire"));
    testbed.agents[1].say(&Request::Stop);
    assert!(testbed.agents[1].wait_end().success());
}

#[test]
fn what_is_left_where_an_agent_and_its_keeper_were_killed_together_is_swept_and_what_is_kept_is_not() {
    let Some((hosts, mut testbed)) = bounded_testbed("sweep") else { return };
    let sweep = |host| hosts.says(host, &[env!("CARGO_BIN_EXE_p2ps-node"), "agent", "--sweep"]);
    let keeper = keeper(testbed.agents[0].pid());
    // With the keeper stopped it cannot do what it is for; then both are killed.
    let keeper = rustix::process::Pid::from_raw(keeper as i32).unwrap();
    rustix::process::kill_process(keeper, rustix::process::Signal::STOP).unwrap();
    testbed.agents[0].kill();
    testbed.agents[0].wait_end();
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    assert!(queues(&hosts, 0, "wire").contains("7032:"));
    // Once the keeper is gone.
    eventually("it is swept", || sweep(0) == "wire\n");
    assert!(!is_left(&hosts, 0, "wire"));
    assert_eq!((sweep(0), sweep(1)), (String::new(), String::new()), "the other's are kept");
    assert!(is_left(&hosts, 1, "wire"));
}

/// The keeper of an agent.
fn keeper(agent: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    let is_keeper = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.windows(8).any(|word| word == b"--keeper")
    };
    children.split_whitespace().map(|pid| pid.parse().unwrap()).find(is_keeper).unwrap()
}

#[test]
fn queues_that_somebody_configured_are_refused_before_the_start_and_stay_as_they_are() {
    let Some(hosts) = Hosts::new("foreign") else { return refuses() };
    let add = ["tc", "qdisc", "add", "dev", "wire", "root", "handle", "5:", "tbf"];
    hosts.says(0, &[&add[..], &["rate", "1gbit", "burst", "100k", "latency", "1s"]].concat());
    let before = queues(&hosts, 0, "wire");
    let mut testbed = Testbed::start(&hosts, bounded());
    let problem = testbed.agents[0].wait_for("problem", |notice| matches!(notice, Notice::Problem { .. }));
    let Notice::Problem { error } = problem else { unreachable!() };
    let expected = "interface wire has a queueing discipline that somebody configured (tbf 5:)";
    assert!(error.contains(expected), "{error}");
    assert!(testbed.error(0, 10).is_some_and(|error| error.contains(expected)));
    assert_eq!(testbed.error(1, 11), None, "the other host has none");
    assert_eq!((queues(&hosts, 0, "wire"), hosts.filters(0)), (before.clone(), String::new()));
    drop(testbed);
    assert_eq!(queues(&hosts, 0, "wire"), before);
}

#[test]
fn latency_is_the_kernels_where_it_has_netem_and_else_refused_before_the_start() {
    let Some(hosts) = Hosts::new("latency") else { return refuses() };
    const LATENCY_US: u64 = 300_000;
    let slow = LinkShape { latency_us: LATENCY_US, jitter_us: 1000, ..LinkShape::default() };
    let mut testbed = Testbed::start(&hosts, vec![shape(10, 4 * SECOND, 0, &[(1, slow)])]);
    let ready = testbed.agents[0].wait_for("ready", |notice| matches!(notice, Notice::Ready { .. }));
    let Notice::Ready { host, .. } = ready else { unreachable!() };
    let done = testbed.error(0, 10);
    let Some(lacking) = host.no_kernel_latency else {
        println!("this kernel has netem: the latency is looked at");
        assert_eq!(done, None);
        // The answer to the first packet comes late by the latency, less the jitter.
        let asked = Instant::now();
        eventually("node 0 is reached", || hosts.reaches(1, testbed.node(0)));
        assert!(asked.elapsed() >= Duration::from_micros(LATENCY_US - 1000), "{:?}", asked.elapsed());
        assert!(queues(&hosts, 0, "wire").contains("qdisc netem"));
        testbed.agents[0].kill();
        return eventually("host 0 is healed", || !is_left(&hosts, 0, "wire"));
    };
    println!("this kernel has no netem: the refusal is looked at");
    assert!(lacking.contains("modprobe sch_netem"), "{lacking}");
    let refused = |notice: &Notice| matches!(notice, Notice::Problem { error } if error.contains(&lacking));
    testbed.agents[0].wait_for("problem", refused);
    assert!(done.is_some_and(|error| error.contains(&lacking)));
    assert!(!is_left(&hosts, 0, "wire"), "what cannot be done changes nothing");
}

#[test]
fn an_interface_is_shaped_by_one_agent_and_loopback_is_one() {
    let Some(hosts) = Hosts::new("loopback") else { return refuses() };
    let (mut first, node) = loopback_agent(&hosts, 1);
    first.wait_for("achieved", |notice| matches!(notice, Notice::Achieved { index: 10, error: None, .. }));
    assert!(queues(&hosts, 0, "lo").contains("qdisc htb 7032: root"));
    eventually("the node is reached", || hosts.reaches(0, node));
    let of_others = || hosts.filters(0).matches("table inet").count();
    let (mut second, _) = loopback_agent(&hosts, 2);
    assert!(second.problem().contains("another agent shapes interface lo"));
    assert_eq!(of_others(), 1);
    second.say(&Request::Stop);
    second.wait_end();
    assert!(queues(&hosts, 0, "lo").contains("7032:"), "it was not the second's to remove");
    first.kill();
    let (mut third, _) = loopback_agent(&hosts, 3);
    third.wait_for("achieved", |notice| matches!(notice, Notice::Achieved { index: 10, error: None, .. }));
    third.say(&Request::Stop);
    third.wait_end();
    assert!(!is_left(&hosts, 0, "lo"));
}

/// An agent on host 0 with one node on loopback, whose link to itself is to be narrow from the start on.
fn loopback_agent(hosts: &Hosts, node: NodeIndex) -> (Agent, SocketAddr) {
    let mut agent = Agent::start_in(&hosts.names[0]);
    agent.say(&hello(LEASE_MS));
    let slot = NodeSlot { node, id: id(node), seed: 1 };
    let listen = [127, 0, 0, node as u8].into();
    agent.say(&Request::Prepare(Preparation { nodes: vec![slot], listen, ..preparation(0) }));
    let prepared = agent.wait_for("prepared", |notice| matches!(notice, Notice::Prepared { .. }));
    let Notice::Prepared { nodes } = prepared else { unreachable!() };
    agent.say(&Request::Kernel { nodes: vec![(id(node), nodes[0].1)] });
    agent.say(&Request::Groups { first: 0, groups: vec![vec![id(node)]] });
    let spawn = Action { index: 1, at_us: 0, node, kind: ActionKind::Spawn { via: Vec::new() } };
    agent.say(&Request::Schedule {
        actions: vec![spawn, shape(10, 0, node, &[(0, links(BYTES_PER_SECOND))])],
    });
    agent.say(&Request::Start { at_us: monotonic_us() });
    (agent, nodes[0].1.into())
}
