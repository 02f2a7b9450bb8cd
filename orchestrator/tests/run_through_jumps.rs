//! Hosts that are reached through others, with real servers on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::Path;
use std::process::Command;

use harness::sshd::Testbed;
use harness::{Run, plan};
use serde_json::Value;

/// What `hosts check` says of an inventory's hosts, by JSON, with this home.
fn check(inventory: &Path, home: &Path) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["hosts", "check", "--json", inventory.to_str().unwrap()])
        .args(["--node-binary", harness::node_binary().to_str().unwrap()])
        .env("HOME", home)
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn host<'a>(said: &'a [Value], name: &str) -> &'a Value {
    said.iter().find(|host| host["host"] == name).unwrap()
}

#[test]
fn hosts_behind_others_are_reached_as_the_inventory_and_ssh_have_it() {
    let mut testbed = Testbed::new();
    let user = testbed.user();
    let gate = testbed.serve_with("127.0.0.1", true, "LogLevel DEBUG1");
    let gate = (gate.address.clone(), gate.port);
    let inner = testbed.serve_with("127.0.0.2", true, "LogLevel DEBUG1");
    let inner = (inner.address.clone(), inner.port);
    let far = testbed.serve_with("127.0.0.3", true, "LogLevel VERBOSE");
    let far = (far.address.clone(), far.port);
    // Hashed, as Debian's ssh records names.
    let hashed =
        Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(testbed.path("known_hosts")).output();
    assert!(hashed.unwrap().status.success());
    assert!(std::fs::read_to_string(testbed.path("known_hosts")).unwrap().starts_with("|1|"));
    let home = testbed.path("home");
    std::fs::create_dir_all(home.join(".ssh/conf.d")).unwrap();
    std::fs::write(home.join(".ssh/config"), "Include conf.d/*\n").unwrap();
    let config = format!(
        "Host gate\nHostName {}\nPort {}\nHost inner\nHostName {}\nPort {}\n\
         Host behind-*\nHostName {}\nPort {}\nMatch host {} originalhost behind-two\nProxyJump gate,inner\n\
         Match originalhost behind-one\nProxyJump {user}@{}:{}\n",
        gate.0, gate.1, inner.0, inner.1, far.0, far.1, far.0, gate.0, gate.1
    );
    std::fs::write(home.join(".ssh/conf.d/lab"), config).unwrap();
    let by_inventory =
        format!("{{name: by-inventory, address: {}, port: {}, jump: 'gate,inner'}}", far.0, far.1);
    let inventory = testbed.inventory("", &["behind-one".to_owned(), "behind-two".to_owned(), by_inventory]);
    let said = check(&inventory, &home);
    for name in ["behind-one", "behind-two", "by-inventory"] {
        let host = host(&said, name);
        assert_eq!(host["usable"], true, "{host}");
        // Where its nodes listen is known to it alone.
        assert_eq!(host["listen"], far.0, "{host}");
    }
    let opened = |number| testbed.server(number).log().matches("Starting session").count();
    let forwarded =
        |number| testbed.server(number).log().matches("server_request_direct_tcpip: originator").count();
    assert_eq!((forwarded(0), forwarded(1), forwarded(2)), (3, 2, 0));
    assert!((opened(0), opened(1)) == (0, 0) && opened(2) >= 3, "nothing is done on the way");
    testbed.wait_no_process();
}

#[test]
fn keys_of_hosts_on_the_way_and_behind_are_verified_and_what_fails_there_is_said() {
    let mut testbed = Testbed::new();
    let other = testbed.make_key("other");
    let gate = testbed.serve("127.0.0.1", true);
    let gate = format!("{}:{}", gate.address, gate.port);
    let changed = testbed.serve("127.0.0.2", true);
    let (changed, recorded) = (format!("{}:{}", changed.address, changed.port), changed.host_key.clone());
    testbed.exchange_known(&recorded, &other);
    let unknown = testbed.serve("127.0.0.3", false);
    let unknown = (format!("{}:{}", unknown.address, unknown.port), unknown.entry("unknown"));
    let closed = testbed.serve_with("127.0.0.4", true, "AllowTcpForwarding no");
    let closed = format!("{}:{}", closed.address, closed.port);
    let far = testbed.serve("127.0.0.5", true).entry("far");
    let dead = std::net::TcpListener::bind("127.0.0.6:0").unwrap().local_addr().unwrap().port();
    let by = |name: &str, jump: &str| far.replace("far", name).replace('}', &format!(", jump: '{jump}'}}"));
    let hosts = [
        by("by-changed", &changed),
        by("by-changed-behind", &format!("{gate},{changed}")),
        by("by-unknown", &unknown.0),
        unknown.1.replace('}', &format!(", jump: '{gate}'}}")),
        by("by-closed", &closed),
        by("by-stranger", &format!("nobody-here@{gate}")),
        format!("{{name: dead, address: 127.0.0.6, port: {dead}, jump: '{gate}'}}"),
        by("good", &gate),
    ];
    let said = check(&testbed.inventory("required: 1\n", &hosts), &testbed.path("home"));
    for (name, words) in [
        ("by-changed", vec!["on the way to it, at 127.0.0.2", "HAS CHANGED"]),
        ("by-changed-behind", vec!["on the way to it, at 127.0.0.2", "HAS CHANGED"]),
        ("by-unknown", vec!["on the way to it, at 127.0.0.3", "is not known"]),
        ("unknown", vec!["its host key is not known", "echo '[127.0.0.3]:"]),
        ("by-closed", vec!["127.0.0.4 makes no way to 127.0.0.5", "AllowTcpForwarding"]),
        ("by-stranger", vec!["on the way to it, at 127.0.0.1", "nobody-here"]),
        ("dead", vec!["127.0.0.1 makes no way to 127.0.0.6"]),
    ] {
        let reason = host(&said, name)["reason"].as_str().unwrap();
        assert!(words.iter().all(|word| reason.contains(word)), "{name}: {reason}");
    }
    assert_eq!(host(&said, "good")["usable"], true, "{said:?}");
    testbed.wait_no_process();
}

#[test]
fn a_host_is_lost_with_the_one_on_the_way_to_it() {
    let mut testbed = Testbed::new();
    let gate = testbed.serve("127.0.0.1", true);
    let gate = format!("{}:{}", gate.address, gate.port);
    let hosts = [
        testbed.serve("127.0.0.2", true).entry("stays"),
        testbed.serve("127.0.0.3", true).entry("dies").replace('}', &format!(", jump: '{gate}'}}")),
    ];
    let inventory = testbed.inventory("", &hosts);
    let mut run = Run::start(&plan(8, 12), &["--json", "--on", inventory.to_str().unwrap()]);
    run.wait_alive(8);
    testbed.server(0).kill_sessions();
    run.wait_end();
    let end: Value = serde_json::from_str(run.printed.last().unwrap()).unwrap();
    let lost = end["hosts_lost"].as_array().unwrap();
    assert_eq!((lost.len(), &lost[0]["host"]), (1, &"dies".into()), "{end:#}");
    testbed.wait_no_process();
}
