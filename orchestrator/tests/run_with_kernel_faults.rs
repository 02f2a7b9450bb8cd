//! A plan whose faults are the kernels', on hosts that are network namespaces: it is carried out, and hosts that cannot say so before the
//! run is under way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::process::{Command, Stdio};

use harness::{Run, node_binary, orchestrator};

const PLAN: &str = "
name: parted
seed: 5
nodes: 6
join: {rate: 20/s}
faults: {with: kernel}
workload:
  - lookup: {rate: 20/s, keys: uniform}
timeline:
  - {at: 4s, partition: [{hosts: [one]}, rest], heal_after: 3s}
duration: 12s
expect:
  - lookup.wrong == 0
  - nodes.alive == 6
";

/// Two namespaces with a wire between them.
struct Namespaces([String; 2]);

impl Namespaces {
    /// `None`: this process may not make any.
    fn new() -> Option<Namespaces> {
        let names = ["1", "2"].map(|side| format!("p2pskr-{}-{side}", std::process::id()));
        if !ip(&["netns", "add", &names[0]]) {
            return None;
        }
        let namespaces = Namespaces(names);
        let [one, two] = &namespaces.0;
        assert!(ip(&["netns", "add", two]));
        assert!(ip(&[
            "-n", one, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", two
        ]));
        for (name, address) in [(one, "10.233.0.1/24"), (two, "10.233.0.2/24")] {
            assert!(ip(&["-n", name, "address", "add", address, "dev", "wire"]));
            assert!(ip(&["-n", name, "link", "set", "wire", "up"]));
            assert!(ip(&["-n", name, "link", "set", "lo", "up"]));
        }
        Some(namespaces)
    }

    /// An inventory of them, whose agents are started by `command`.
    fn inventory(&self, command: &str) -> String {
        let binary = node_binary().display();
        let [one, two] = &self.0;
        format!(
            "defaults: {{via: \"ip netns exec {{host}} {command}{{binary}} agent\", binary: {binary}}}\nhosts:\n  \
             - {{name: one, address: {one}, listen: 10.233.0.1}}\n  - {{name: two, address: {two}, listen: 10.233.0.2}}\n"
        )
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let quiet = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

#[test]
fn hosts_are_parted_by_their_kernels_and_nodes_of_one_host_are_not() {
    // Where namespaces may not be made, one host is left to look at.
    let one_host = orchestrator_refuses_one_host();
    assert!(one_host.contains("all nodes of this run are on one"), "{one_host}");
    let Some(namespaces) = Namespaces::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts.yaml");
    let hosts = path.to_str().unwrap();

    std::fs::write(&path, namespaces.inventory("setpriv --bounding-set=-net_admin --inh-caps=-net_admin "))
        .unwrap();
    let checked = orchestrator(&["hosts", "check", hosts]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("not permitted: wants CAP_NET_ADMIN"));
    let mut run = Run::start(PLAN, &["--on", hosts]);
    assert_eq!(run.wait_end().code(), Some(3), "{:#?}", run.printed);
    let errors = run.errors();
    assert!(errors.contains("host one was lost: the kernel cannot make faults: not permitted"), "{errors}");

    std::fs::write(&path, namespaces.inventory("")).unwrap();
    let mut run = Run::start(PLAN, &["--on", hosts]);
    let status = run.wait_end();
    assert_eq!(status.code(), Some(0), "{:#?}", run.printed);
    let actions = std::fs::read_to_string(run.directory().join("timeline.jsonl")).unwrap();
    assert!(!actions.contains("error"), "{actions}");
    for name in &namespaces.0 {
        let filters =
            Command::new("ip").args(["netns", "exec", name, "nft", "list", "ruleset"]).output().unwrap();
        assert!(filters.status.success() && filters.stdout.is_empty(), "{filters:?}");
    }
}

fn orchestrator_refuses_one_host() -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plan.yaml");
    std::fs::write(&path, PLAN).unwrap();
    let output = orchestrator(&["plan", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}
