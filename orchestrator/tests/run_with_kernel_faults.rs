//! Plans whose faults are the kernels', on hosts that are network namespaces: they are carried out, and a host whose kernel cannot do it
//! is replaced by one that can, before the run is under way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::process::{Command, Stdio};

use harness::{Run, node_binary, orchestrator};

/// Host h0 is parted from the others, whose links are then narrow for a while.
const PLAN: &str = "
name: parted
seed: 5
nodes: 6
join: {rate: 20/s}
faults: {with: kernel}
workload:
  - lookup: {rate: 20/s, keys: uniform}
timeline:
  - {at: 4s, partition: [{hosts: 1}, rest], heal_after: 3s}
  - {at: 9s, degrade: {nodes: {hosts: 1}, bandwidth: 500kB/s}, for: 1s}
duration: 13s
expect:
  - lookup.wrong == 0
  - nodes.alive == 6
";

/// What a host may not do, by how its agent is started.
const WITHOUT_THE_RIGHT: &str = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin ";
const WITHOUT_ANY_RIGHT: &str = "setpriv --bounding-set=-all --inh-caps=-all ";

/// Namespaces with a switch between them, and its own.
struct Namespaces {
    hosts: Vec<String>,
    switch: String,
}

impl Namespaces {
    /// `None`: this process may not make any.
    fn new(test: &str, hosts: usize) -> Option<Namespaces> {
        let name = |what: &str| format!("p2pskr-{test}-{}-{what}", std::process::id());
        let switch = name("switch");
        if !ip(&["netns", "add", &switch]) {
            return None;
        }
        let hosts = (0..hosts).map(|host| name(&host.to_string())).collect();
        let namespaces = Namespaces { hosts, switch };
        let switch = namespaces.switch.as_str();
        assert!(ip(&["-n", switch, "link", "add", "switch", "type", "bridge"]));
        assert!(ip(&["-n", switch, "link", "set", "switch", "up"]));
        for (host, number) in namespaces.hosts.iter().zip(1..) {
            let (port, address) = (format!("port{number}"), format!("10.233.0.{number}/24"));
            assert!(ip(&["netns", "add", host]));
            assert!(ip(&[
                "-n", host, "link", "add", "wire", "type", "veth", "peer", "name", &port, "netns", switch
            ]));
            assert!(ip(&["-n", switch, "link", "set", &port, "master", "switch", "up"]));
            assert!(ip(&["-n", host, "address", "add", &address, "dev", "wire"]));
            assert!(ip(&["-n", host, "link", "set", "wire", "up"]));
            assert!(ip(&["-n", host, "link", "set", "lo", "up"]));
        }
        Some(namespaces)
    }

    /// An inventory of them, called h0 and so on, whose agents are started by `command`.
    fn inventory(&self, counts: &str, command: impl Fn(usize) -> &'static str) -> String {
        let binary = node_binary().display();
        let host = |(number, name): (usize, &String)| {
            let command = command(number);
            format!(
                "  - {{name: h{number}, address: {name}, listen: 10.233.0.{}, via: \"ip netns exec {{host}} {command}{{binary}} \
                 agent\", binary: {binary}}}\n",
                number + 1
            )
        };
        let hosts: String = self.hosts.iter().enumerate().map(host).collect();
        format!("{counts}hosts:\n{hosts}")
    }

    /// What the kernels of all hosts have left of faults.
    fn left(&self) -> String {
        let say = |name: &String, words: &[&str]| {
            let said = Command::new("ip").args(["netns", "exec", name]).args(words).output().unwrap();
            assert!(said.status.success(), "{said:?}");
            String::from_utf8(said.stdout).unwrap()
        };
        let queues = |name| say(name, &["tc", "qdisc", "show"]);
        let ours = |name| queues(name).lines().filter(|line| line.contains("7032:")).collect::<String>();
        self.hosts.iter().map(|name| say(name, &["nft", "list", "ruleset"]) + &ours(name)).collect()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain([&self.switch]) {
            ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let quiet = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

fn run(inventory: &str, plan: &str) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts.yaml");
    std::fs::write(&path, inventory).unwrap();
    let mut run = Run::start(plan, &["--on", path.to_str().unwrap()]);
    run.wait_end();
    run
}

/// The names in a list of the run's manifest, with why they could not be used.
fn hosts(run: &Run, list: &str) -> Vec<(String, String)> {
    let manifest = std::fs::read(run.directory().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let host = |host: &serde_json::Value| {
        let word = |key: &str| host[key].as_str().unwrap_or_default().to_owned();
        (word("name"), word("reason"))
    };
    manifest[list].as_array().into_iter().flatten().map(host).collect()
}

#[test]
fn hosts_are_told_apart_by_their_kernels_and_those_that_cannot_are_replaced() {
    // Where namespaces may not be made, one host is left to look at.
    let one_host = orchestrator_refuses_one_host();
    assert!(one_host.contains("all nodes of this run are on one"), "{one_host}");
    let Some(namespaces) = Namespaces::new("parted", 5) else { return };
    let lame = |host| match host {
        0 => WITHOUT_THE_RIGHT,
        3 => WITHOUT_ANY_RIGHT,
        _ => "",
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts.yaml");
    std::fs::write(&path, namespaces.inventory("", lame)).unwrap();
    let checked = orchestrator(&["hosts", "check", path.to_str().unwrap()]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.matches("not permitted: wants CAP_NET_ADMIN").count(), 2, "{checked}");

    // Two of the five stand in.
    let mut replaced = run(&namespaces.inventory("wanted: 3\n", lame), PLAN);
    assert_eq!(replaced.wait_end().code(), Some(0), "{:#?}", replaced.printed);
    let names =
        |list: &str| -> Vec<String> { hosts(&replaced, list).into_iter().map(|host| host.0).collect() };
    assert_eq!(names("hosts"), ["h1", "h2", "h4"]);
    assert!(names("unusable_hosts").iter().all(|name| ["h0", "h3"].contains(&name.as_str())));
    let actions = std::fs::read_to_string(replaced.directory().join("timeline.jsonl")).unwrap();
    assert!(!actions.contains("error"), "{actions}");
    assert_eq!(namespaces.left(), "");
    // As where an agent and what removes its queues were killed at once; and beside it what is somebody's.
    let on_h1 = |words: &[&str]| {
        let said =
            Command::new("ip").args(["netns", "exec", &namespaces.hosts[1]]).args(words).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    on_h1(&["tc", "qdisc", "add", "dev", "wire", "root", "handle", "7032:", "htb"]);
    on_h1(&["tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb"]);
    let directory = replaced.directory();
    let clean = [env!("CARGO_BIN_EXE_orchestrator"), "clean", directory.to_str().unwrap()];
    assert!(on_h1(&clean).starts_with("removed queues at interface wire\nnothing left now\n"));
    assert!(on_h1(&clean).starts_with("nothing left\n"));
    assert!(on_h1(&["tc", "qdisc", "show", "dev", "lo"]).contains("htb 1:"));
    assert_eq!(namespaces.left(), "");

    // With nobody to stand in for them, each is named.
    let mut refused = run(&namespaces.inventory("wanted: 5\nrequired: 4\n", lame), PLAN);
    assert_eq!(refused.wait_end().code(), Some(3), "{:#?}", refused.printed);
    let mut unusable = hosts(&refused, "unusable_hosts");
    unusable.sort();
    let reason = "its kernel cannot make the plan's faults: not permitted: wants CAP_NET_ADMIN";
    assert!(unusable.iter().all(|(_, said)| said.starts_with(reason)), "{unusable:?}");
    assert_eq!(unusable.into_iter().map(|host| host.0).collect::<Vec<_>>(), ["h0", "h3"]);
}

#[test]
fn latency_wants_netem_and_hosts_without_it_are_refused_before_the_run() {
    let Some(namespaces) = Namespaces::new("late", 2) else { return };
    let plan = PLAN.replace("bandwidth: 500kB/s", "latency: 50ms, jitter: 5ms, loss: 1%");
    let mut run = run(&namespaces.inventory("", |_| ""), &plan);
    let code = run.wait_end().code();
    if code == Some(0) {
        println!("this kernel has netem: the run was carried out");
        let actions = std::fs::read_to_string(run.directory().join("timeline.jsonl")).unwrap();
        assert!(!actions.contains("error"), "{actions}");
    } else {
        println!("this kernel has no netem: the run was refused");
        assert_eq!(code, Some(3), "{:#?}", run.printed);
        let unusable = hosts(&run, "unusable_hosts");
        assert_eq!(unusable.len(), 2);
        assert!(unusable.iter().all(|(_, reason)| reason.contains("modprobe sch_netem")), "{unusable:?}");
    }
    assert_eq!(namespaces.left(), "");
}

fn orchestrator_refuses_one_host() -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plan.yaml");
    std::fs::write(&path, PLAN).unwrap();
    let output = orchestrator(&["plan", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}
