//! Two hosts that are network namespaces with a wire between them, and an agent on each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use p2ps::access_point::AccessPoint;
use p2ps::agent::clock::monotonic_us;
use p2ps::agent::protocol::{
    Action, ActionKind, NodeIndex, NodeSlot, Notice, Preparation, Request, ShapeRule,
};
use p2ps::com::shaping::{Cut, LinkShape};
use p2ps::id::Id;

use super::{Agent, hello, is_joined, preparation, spawn};

/// Longer than any test is busy with the other agent.
pub(crate) const LEASE_MS: u64 = 20_000;
pub(crate) const SECOND: u64 = 1_000_000;

/// Two namespaces with a wire between them. Each test has its own.
pub(crate) struct Hosts {
    pub(crate) names: [String; 2],
}

impl Hosts {
    /// `None`: this process may not make any.
    pub(crate) fn new(test: &str) -> Option<Hosts> {
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

    /// What a program says on a host.
    pub(crate) fn says(&self, host: usize, words: &[&str]) -> String {
        let output =
            Command::new("ip").args(["netns", "exec", &self.names[host]]).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What packet filters a host has, as `nft` or else the kernel lists them.
    pub(crate) fn filters(&self, host: usize) -> String {
        self.says(host, &["nft", "list", "ruleset"])
    }

    /// Whether a TCP connection from a host to an address is made within a second.
    pub(crate) fn reaches(&self, host: usize, to: SocketAddr) -> bool {
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
pub(crate) struct Stranger(pub(crate) Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    let status =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    status.success()
}

pub(crate) fn address(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 231, 0, 1 + host as u8).into()
}

pub(crate) fn id(node: NodeIndex) -> Id {
    Id(1000 * (u64::from(node) + 1))
}

/// Both agents; node 0 is on host 0, nodes 1 and 2 on host 1. Groups: host 0's, host 1's, and node 1 alone.
pub(crate) struct Testbed {
    pub(crate) agents: [Agent; 2],
    pub(crate) nodes: Vec<(NodeIndex, AccessPoint)>,
}

impl Testbed {
    /// Carries out `actions`; all nodes join by node 0 first.
    pub(crate) fn start(hosts: &Hosts, actions: Vec<Action>) -> Testbed {
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
        // One after the other: a process that is just being started still holds the ports that its agent keeps for the next.
        let at_us = |node: NodeIndex| u64::from(node) * SECOND / 4;
        let mut all: Vec<Action> = (0..3).map(|node| spawn(node.into(), at_us(node), node)).collect();
        all.extend(actions);
        all.sort_by_key(|action| action.at_us);
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

    /// Lets both agents hear that they are not forgotten.
    pub(crate) fn renew(&mut self) {
        self.agents.iter_mut().for_each(|agent| agent.say(&Request::Renew));
    }

    /// Why an action could not be done, if it could not.
    pub(crate) fn error(&mut self, host: usize, wanted: u64) -> Option<String> {
        let is_it = |notice: &Notice| matches!(notice, Notice::Achieved { index, .. } if *index == wanted);
        match self.agents[host].wait_for("achieved", is_it) {
            Notice::Achieved { error, .. } => error,
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) fn node(&self, node: NodeIndex) -> SocketAddr {
        self.nodes.iter().find(|(known, _)| *known == node).map(|(_, at)| (*at).into()).unwrap()
    }
}

pub(crate) fn shape(index: u64, at_us: u64, node: NodeIndex, rules: &[(u32, LinkShape)]) -> Action {
    let rules = rules.iter().map(|(to, shape)| ShapeRule { to: *to, shape: *shape }).collect();
    Action { index, at_us, node, kind: ActionKind::Shape { rules } }
}

pub(crate) fn cut(cut: Cut) -> LinkShape {
    LinkShape { cut, ..LinkShape::default() }
}

/// An agent where no namespaces can be made: it must say that it cannot make such faults.
pub(crate) fn refuses() {
    let (mut agent, nodes) = Agent::prepared(1, 60_000);
    agent.say(&Request::Kernel { nodes: vec![(id(0), nodes[0])] });
    assert!(agent.problem().contains("the kernel cannot make faults"));
    let ready = agent.wait_for("ready", |notice| matches!(notice, Notice::Ready { .. }));
    let Notice::Ready { host, .. } = ready else { unreachable!() };
    assert!(host.no_kernel_faults.is_some(), "and it has said so before");
}
