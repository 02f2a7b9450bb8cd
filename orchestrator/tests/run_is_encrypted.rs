//! A run with a key of its own: it comes to its verdict, no stranger gets in, and the key is written nowhere.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::{Path, PathBuf};

use harness::{Run, node_binary, plan};
use p2ps::access_point::AccessPoint;
use p2ps::com::handshake::{HandshakeError, KeyMismatch};
use p2ps::com::key::NetworkKey;
use p2ps::node::{Node, NodeConfig, NodeError};
use serde_json::Value;

/// An inventory of this host, whose agent's standard input is written down in `heard`: what a host is told, and nobody else.
fn overheard(root: &Path) -> (PathBuf, PathBuf) {
    let (script, heard, inventory) = (root.join("overhear.sh"), root.join("heard"), root.join("hosts.yaml"));
    std::fs::write(&script, "exec \"$2\" agent < <(exec tee \"$3\")\n").unwrap();
    let via = format!("bash {} {{host}} {{binary}} {}", script.display(), heard.display());
    let binary = node_binary().display();
    let host = format!("{{name: here, address: 127.0.0.1, via: '{via}', binary: {binary}}}");
    std::fs::write(&inventory, format!("hosts:\n  - {host}\n")).unwrap();
    (inventory, heard)
}

/// What an agent was told under this name.
fn told(heard: &Path, name: &str) -> Value {
    let text = std::fs::read_to_string(heard).unwrap();
    let requests = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    requests.map(|request| request[name].clone()).find(|value| !value.is_null()).unwrap()
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The command lines and environments of all processes that may be looked at.
fn processes_say() -> Vec<(PathBuf, Vec<u8>)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let paths = processes.flat_map(|entry| ["cmdline", "environ"].map(|name| entry.path().join(name)));
    // Those that have ended meanwhile, and what is no process, say nothing.
    paths.filter_map(|path| Some((path.clone(), std::fs::read(&path).ok()?))).collect()
}

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret.as_bytes()))
}

fn join_as_a_stranger(at: AccessPoint, network_key: Option<NetworkKey>) -> NodeError {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = NodeConfig { network_key, ..NodeConfig::default() };
    runtime.block_on(Node::join_net(&[at], config, None)).expect_err("a stranger")
}

#[test]
fn an_encrypted_run_comes_to_its_verdict_and_its_key_is_written_nowhere() {
    let root = tempfile::tempdir().unwrap();
    let (inventory, heard) = overheard(root.path());
    let plan = plan(8, 8);
    let expect = "expect:\n  - lookup.success >= 90%\n  - lookup.wrong == 0\n";
    let text = format!("{plan}network: {{encrypted: true}}\n{expect}");
    let mut run = Run::start(&text, &["--json", "--on", inventory.to_str().unwrap()]);
    run.wait_alive(8);

    let key = told(&heard, "prepare")["network_key"].as_str().unwrap().to_owned();
    key.parse::<NetworkKey>().unwrap();
    let says = processes_say();
    for (path, bytes) in &says {
        assert!(!contains(bytes, &key), "{}", path.display());
    }
    assert!(says.iter().any(|(_, bytes)| contains(bytes, "--managed")), "nodes were looked at");

    let at: AccessPoint = serde_json::from_value(told(&heard, "addresses")["nodes"][0][1].clone()).unwrap();
    for (key, mismatch) in
        [(None, KeyMismatch::OnlyTheirs), (Some(NetworkKey::random().unwrap()), KeyMismatch::Differ)]
    {
        let error = join_as_a_stranger(at, key);
        let NodeError::Refused { source: HandshakeError::OtherKey(told), .. } = error else {
            panic!("{error}")
        };
        assert_eq!(told, mismatch);
    }

    let status = run.wait_end();
    assert_eq!(status.code(), Some(0), "{:#?}", run.printed);
    let files = files(&run.directory());
    assert!(files.iter().any(|path| path.ends_with("journal.jsonl")), "{files:?}");
    for path in files {
        assert!(!contains(&std::fs::read(&path).unwrap(), &key), "{}", path.display());
    }
    assert!(!run.printed.iter().any(|line| contains(line.as_bytes(), &key)));
    assert!(!contains(run.errors().as_bytes(), &key));
    let resolved = std::fs::read_to_string(run.directory().join("resolved.yaml")).unwrap();
    assert!(resolved.contains("encrypted: true"), "{resolved}");
}
