//! What is wrong before a run begins: exit code 2, what is meant, and nothing is started or written.

mod harness;

use harness::{Run, orchestrator, plan};

#[test]
fn usage_errors_say_what_is_meant() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("plan.yaml");
    std::fs::write(&path, plan(4, 10)).unwrap();
    let (plan, out) = (path.to_str().unwrap(), root.path().join("runs"));
    let crowd: &[&str] =
        &["run", plan, "--set", "nodes=20_000", "--set", "join=at_once", "--set", "isolation=task"];
    let cases: [(&[&str], &str); 6] = [
        (crowd, "20000 nodes on 1 hosts are 20000 each, and an agent takes at most 10000"),
        (&["run", plan, "--on", "/nowhere/hosts.yaml"], "the inventory /nowhere/hosts.yaml cannot be read"),
        (&["run", plan, "--node-binary", "/nowhere/p2ps-node"], "--node-binary PATH"),
        (&["run", plan, "--set", "nodes=none"], "nodes"),
        (&["run", plan, "--metrics-listen", "here"], "--metrics-listen"),
        (&["clean", "/nowhere"], "is no run directory"),
    ];
    for (arguments, expected) in cases {
        let out: &[&str] = if arguments[0] == "run" { &["--out", out.to_str().unwrap()] } else { &[] };
        let output = orchestrator(&[arguments, out].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    assert!(!out.exists());
}

#[test]
fn a_metrics_address_that_is_taken_is_exit_code_3_before_anything_is_started() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut run = Run::start(&plan(4, 10), &["--json", "--metrics-listen", &address]);
    let status = run.wait_end();
    assert_eq!(status.code(), Some(3));
    assert!(run.errors().contains(&address));
    let journal = std::fs::read_to_string(run.directory().join("journal.jsonl")).unwrap();
    assert!(!journal.contains("agent"), "{journal}");
    assert_eq!(run.clean(), (Some(0), "nothing left\n".to_owned()));
}
