//! Runs on hosts that are reached by SSH, good and bad ones, with real servers on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use harness::sshd::Testbed;
use harness::{Run, WAIT, plan};
use p2ps_orchestrator::backend::AgentConnection;
use p2ps_orchestrator::backend::ssh::hostkey::KnownHosts;
use p2ps_orchestrator::backend::ssh::turnstile::Turnstile;
use p2ps_orchestrator::backend::ssh::upload::NodeBinary;
use p2ps_orchestrator::backend::ssh::{Endpoint, Passphrases, Prepared, Settings, Target};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

const SMALL: &str = "
name: small
seed: 5
nodes: 8
join: {rate: 20/s}
workload:
  - lookup: {rate: 40/s, keys: uniform}
duration: 6s
expect:
  - lookup.success >= 90%
  - lookup.wrong == 0
  - nodes.alive == 8
";

fn manifest(run: &Run) -> Value {
    let text = std::fs::read_to_string(run.directory().join("manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn last(run: &Run) -> Value {
    serde_json::from_str(run.printed.last().unwrap()).unwrap()
}

#[test]
fn two_hosts_carry_out_a_run_and_keep_only_the_binary_which_the_next_run_uses() {
    let mut testbed = Testbed::new();
    let hosts =
        [testbed.serve("127.0.0.1", true).entry("one"), testbed.serve("127.0.0.2", true).entry("two")];
    let inventory = testbed.inventory("", &hosts);
    let arguments = ["--json", "--on", inventory.to_str().unwrap()];
    let mut run = Run::start(SMALL, &arguments);
    let status = run.wait_end();
    let end = last(&run);
    assert_eq!(status.code(), Some(0), "{end:#}");
    let manifest = manifest(&run);
    for (host, (name, address)) in [("one", "127.0.0.1"), ("two", "127.0.0.2")].into_iter().enumerate() {
        let host = &manifest["hosts"][host];
        assert_eq!((&host["name"], &host["listen"]), (&name.into(), &address.into()), "{host}");
        assert!(host["clocks"][0]["rtt_us"].as_u64() > Some(0), "{host}");
        assert!(host["lost"].is_null(), "{host}");
    }
    testbed.wait_no_process();
    let cached = testbed.cached();
    let expected = format!("p2ps-node-{}", manifest["node_binary_sha256"].as_str().unwrap());
    assert_eq!(cached, std::slice::from_ref(&expected));
    let (code, text) = run.clean();
    assert_eq!((code, text.lines().next()), (Some(0), Some("nothing left")));
    assert!(text.contains("2 other hosts were not looked at"), "{text}");

    let written = || std::fs::metadata(testbed.path("cache").join(&expected)).unwrap().modified().unwrap();
    let before = written();
    let mut again = Run::start(SMALL, &arguments);
    assert_eq!(again.wait_end().code(), Some(0), "{:#}", last(&again));
    assert_eq!(written(), before, "the binary is not sent again");
    testbed.wait_no_process();
}

#[test]
fn bad_hosts_are_named_with_their_reasons_and_the_run_goes_on_without_them() {
    let mut testbed = Testbed::new();
    let good =
        [testbed.serve("127.0.0.1", true).entry("good1"), testbed.serve("127.0.0.2", true).entry("good2")];
    let unknown = testbed.serve("127.0.0.3", false).entry("unknown");
    let changed = testbed.serve("127.0.0.4", true);
    let (entry, recorded) = (changed.entry("changed"), changed.host_key.clone());
    let other = testbed.make_key("other");
    testbed.exchange_known(&recorded, &other);
    let dead = std::net::TcpListener::bind("127.0.0.5:0").unwrap().local_addr().unwrap();
    let hosts = [
        good[0].clone(),
        unknown,
        entry,
        good[0]
            .replace("good1", "stranger")
            .replace('}', &format!(", key: {}}}", testbed.path("other").display())),
        format!("{{name: dead, address: 127.0.0.5, port: {}}}", dead.port()),
        good[1].replace("good2", "full").replace('}', ", cache: /dev/null/cache}"),
        good[1].clone(),
    ];
    let inventory = testbed.inventory("required: 2\n", &hosts);
    let mut run = Run::start(SMALL, &["--json", "--on", inventory.to_str().unwrap()]);
    let status = run.wait_end();
    let end = last(&run);
    assert_eq!(status.code(), Some(0), "{end:#}");
    let manifest = manifest(&run);
    let names: Vec<&Value> = manifest["hosts"].as_array().unwrap().iter().map(|host| &host["name"]).collect();
    assert_eq!(names, ["good1", "good2"]);
    let expected = [
        ("unknown", vec!["is not known", "SHA256:", "echo '[127.0.0.3]:"]),
        ("changed", vec!["HAS CHANGED", "SHA256:", "ssh-keygen -R '[127.0.0.4]:"]),
        ("stranger", vec!["does not let", "other", "ssh-copy-id"]),
        ("dead", vec!["127.0.0.5", "refused"]),
        ("full", vec!["cache directory cannot be made", "Not a directory", "cache:"]),
    ];
    let unusable = manifest["unusable_hosts"].as_array().unwrap();
    assert_eq!(unusable.len(), expected.len(), "{unusable:#?}");
    for (name, words) in expected {
        let host = unusable.iter().find(|host| host["name"] == name).unwrap();
        let reason = host["reason"].as_str().unwrap();
        assert!(words.iter().all(|word| reason.contains(word)), "{name}: {reason}");
    }
    assert_eq!(end["hosts_unusable"].as_array().unwrap().len(), 5);
    testbed.wait_no_process();
}

#[test]
fn too_few_hosts_end_a_run_before_anything_is_started() {
    let mut testbed = Testbed::new();
    let hosts =
        [testbed.serve("127.0.0.1", true).entry("known"), testbed.serve("127.0.0.2", false).entry("unknown")];
    let inventory = testbed.inventory("", &hosts);
    let mut run = Run::start(SMALL, &["--on", inventory.to_str().unwrap()]);
    assert_eq!(run.wait_end().code(), Some(3));
    let errors = run.errors();
    assert!(errors.contains("1 of the hosts can be used, 2 are required"), "{errors}");
    assert!(errors.contains("unknown: its host key is not known"), "{errors}");
    assert_eq!(manifest(&run)["ending"], "too_few_hosts");
    testbed.wait_no_process();
}

#[test]
fn new_hosts_are_recorded_where_that_is_asked_for() {
    let mut testbed = Testbed::new();
    let server = testbed.serve("127.0.0.1", false);
    let (hosts, key) = ([server.entry("new")], server.host_key.clone());
    let inventory = testbed.inventory("", &hosts);
    let mut run = Run::start(SMALL, &["--json", "--accept-new-hosts", "--on", inventory.to_str().unwrap()]);
    assert_eq!(run.wait_end().code(), Some(0), "{:#}", last(&run));
    let known = std::fs::read_to_string(testbed.path("known_hosts")).unwrap();
    assert!(known.starts_with("[127.0.0.1]:") && known.trim_end().ends_with(&key), "{known}");
    testbed.wait_no_process();
}

#[test]
fn a_host_whose_connection_dies_is_lost_and_its_nodes_end_while_the_run_goes_on() {
    let mut testbed = Testbed::new();
    let hosts =
        [testbed.serve("127.0.0.1", true).entry("stays"), testbed.serve("127.0.0.2", true).entry("dies")];
    let inventory = testbed.inventory("", &hosts);
    let mut run = Run::start(&plan(8, 12), &["--json", "--on", inventory.to_str().unwrap()]);
    run.wait_alive(8);
    assert_eq!(testbed.processes().len(), 2 * 2 + 8, "{:?}", testbed.processes());
    testbed.server(1).kill_sessions();
    let status = run.wait_end();
    let end = last(&run);
    assert_eq!(end["ending"], "completed", "{end:#} {status}");
    let lost = end["hosts_lost"].as_array().unwrap();
    assert_eq!((lost.len(), &lost[0]["host"]), (1, &"dies".into()), "{end:#}");
    testbed.wait_no_process();
}

#[test]
fn an_orchestrator_that_is_killed_leaves_no_process_on_its_hosts() {
    let mut testbed = Testbed::new();
    let hosts =
        [testbed.serve("127.0.0.1", true).entry("one"), testbed.serve("127.0.0.2", true).entry("two")];
    let inventory = testbed.inventory("", &hosts);
    let mut run = Run::start(&plan(6, 300), &["--json", "--on", inventory.to_str().unwrap()]);
    run.wait_alive(6);
    assert_eq!(testbed.processes().len(), 2 * 2 + 6);
    run.signal(rustix::process::Signal::KILL);
    run.wait_end();
    let directory = run.directory();
    let node_binary = harness::node_binary().to_str().unwrap();
    let clean = |flags: &[&str]| {
        let common = ["clean", directory.to_str().unwrap(), "--on", inventory.to_str().unwrap()];
        let output = harness::orchestrator(&[&common[..], &["--node-binary", node_binary], flags].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = clean(&[]);
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "nothing left\none: no process left\ntwo: no process left\n")
    );
    assert_eq!(testbed.processes(), [""; 0]);
    assert_eq!(testbed.cached().len(), 1);
    let (code, text) = clean(&["--cached"]);
    assert!(code == Some(0) && text.contains("the cached node binary removed"), "{text}");
    assert!(!testbed.path("cache").exists());
}

#[test]
fn hosts_are_checked_before_a_run_and_left_as_they_were() {
    let mut testbed = Testbed::new();
    let good = testbed.serve("127.0.0.1", true).entry("good");
    let hosts = [good, testbed.serve("127.0.0.2", false).entry("unknown")];
    let check = |head: &str, arguments: &[&str]| {
        let inventory = testbed.inventory(head, &hosts);
        let node_binary = harness::node_binary().to_str().unwrap();
        let common = ["hosts", "check", inventory.to_str().unwrap(), "--node-binary", node_binary];
        let output = harness::orchestrator(&[&common, arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check("required: 1\n", &[]);
    assert_eq!(code, Some(0), "{text}");
    let row = text.lines().find(|line| line.starts_with("good ")).unwrap();
    assert!(row.contains("127.0.0.1") && row.contains(std::env::consts::ARCH), "{text}");
    assert!(text.contains("unknown cannot be used: its host key is not known"), "{text}");
    let (code, text) = check("", &["--json"]);
    assert_eq!(code, Some(3), "{text}");
    let said: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let good = said.iter().find(|host| host["host"] == "good").unwrap();
    // Both clocks are this host's.
    let (offset, error) = (good["clock_offset"].as_f64().unwrap(), good["clock_error"].as_f64().unwrap());
    assert!(offset.abs() <= error, "{good}");
    assert_eq!(good["host_key"]["algorithm"], "ssh-ed25519");
    assert!(good["facts"]["processes_max"].as_u64() > Some(0), "{good}");
    assert_eq!(said.last().unwrap()["reach"]["calls"], 0, "{text}");
    testbed.wait_no_process();
    assert_eq!(testbed.cached().len(), 1);
}

#[test]
fn hosts_call_each_other_where_nodes_would_listen() {
    let mut testbed = Testbed::new();
    let good = |testbed: &mut Testbed, number: u8| {
        testbed.serve(&format!("127.0.0.{number}"), true).entry(&format!("good{number}"))
    };
    let mut hosts = vec![good(&mut testbed, 1), good(&mut testbed, 2), good(&mut testbed, 3)];
    // A port that somebody else has, on an address of all hosts: nodes could not listen there.
    let taken = std::net::TcpListener::bind("127.0.0.4:0").unwrap().local_addr().unwrap().port();
    let narrow = testbed.serve("127.0.0.4", true).entry("narrow");
    hosts.push(narrow.replace('}', &format!(", ports: {taken}-{taken}}}")));
    // One whose nodes would be on an address that it does not have.
    let away = testbed.serve("127.0.0.5", true).entry("away");
    hosts.push(away.replace('}', ", listen: 192.0.2.1}"));
    let check = |head: &str, flag: &[&str]| {
        let inventory = testbed.inventory(head, &hosts);
        let node_binary = harness::node_binary().to_str().unwrap();
        let common = ["hosts", "check", inventory.to_str().unwrap(), "--node-binary", node_binary];
        let output = harness::orchestrator(&[&common, flag].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let holder = std::net::TcpListener::bind(("127.0.0.4", taken)).unwrap();
    let (code, text) = check("required: 3\n", &["--json"]);
    assert_eq!(code, Some(0), "{text}");
    let said: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reach = &said.last().unwrap()["reach"];
    assert_eq!((&reach["calls"], &reach["all_pairs"]), (&6.into(), &true.into()), "{text}");
    assert_eq!(reach["failed"].as_array().unwrap().len(), 0, "{text}");
    for (name, words) in [
        ("narrow", format!("only 0 of 1 ports are free on 127.0.0.4 within {taken}")),
        ("away", "nodes cannot listen on 192.0.2.1".into()),
    ] {
        let host = said.iter().find(|host| host["host"] == name).unwrap();
        assert!(host["reason"].as_str().unwrap().contains(&words), "{host}");
    }
    drop(holder);
    let (code, text) = check("required: 4\n", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("4 hosts reach each other where nodes would listen (12 calls"), "{text}");
    testbed.wait_no_process();
}

#[test]
fn nodes_listen_on_the_ports_that_the_inventory_gives_them() {
    let mut testbed = Testbed::new();
    let hosts =
        [testbed.serve("127.0.0.1", true).entry("one"), testbed.serve("127.0.0.2", true).entry("two")];
    let inventory =
        testbed.inventory("", &[hosts[0].clone(), hosts[1].replace('}', ", ports: 24000-24002}")]);
    let mut run = Run::start(SMALL, &["--on", inventory.to_str().unwrap()]);
    assert_eq!(run.wait_end().code(), Some(3));
    let errors = run.errors();
    assert!(
        errors.contains("two may have 3 ports (24000-24002) for its 4 nodes: widen `ports:`"),
        "{errors}"
    );
    assert_eq!(manifest(&run)["ending"], "too_few_ports");

    let wide = hosts.map(|host| host.replace('}', ", ports: 24000-24199}"));
    let mut run = Run::start(SMALL, &["--json", "--on", testbed.inventory("", &wide).to_str().unwrap()]);
    run.wait_alive(8);
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
    let port = |line: &str| u16::from_str_radix(line.split_whitespace().nth(1)?.split_once(':')?.1, 16).ok();
    let ports: Vec<u16> = sockets.lines().filter(listening).filter_map(port).collect();
    assert_eq!(ports.iter().filter(|port| (24_000..24_200).contains(*port)).count(), 8, "{ports:?}");
    assert_eq!(run.wait_end().code(), Some(0), "{:#}", last(&run));
    testbed.wait_no_process();
}

#[test]
fn a_command_that_leads_to_an_agent_is_a_host_too() {
    let testbed = Testbed::new();
    // What it leads to is this host; the words are split and filled without a shell.
    let host = |name: &str, address: &str| {
        format!("{{name: {name}, address: {address}, via: 'env HOST={{host}} {{binary}} agent'}}")
    };
    let gone = "{name: gone, address: 127.0.0.3, via: '/nowhere/ssh {host} {binary} agent'}".to_owned();
    let mute = "{name: nameless, via: 'true {host} {binary}'}".to_owned();
    let hosts = [host("one", "127.0.0.1"), gone, mute, host("two", "127.0.0.2")];
    let inventory = testbed.inventory("required: 2\n", &hosts);
    let mut run = Run::start(SMALL, &["--json", "--on", inventory.to_str().unwrap()]);
    assert_eq!(run.wait_end().code(), Some(0), "{:#}", last(&run));
    let manifest = manifest(&run);
    let listen: Vec<&Value> =
        manifest["hosts"].as_array().unwrap().iter().map(|host| &host["listen"]).collect();
    assert_eq!(listen, ["127.0.0.1", "127.0.0.2"]);
    let unusable = manifest["unusable_hosts"].to_string();
    assert!(unusable.contains("/nowhere/ssh") && unusable.contains("say `listen:`"), "{unusable}");
    assert_eq!(run.clean(), (Some(0), "nothing left\n".to_owned()));
}

#[test]
fn presets_give_each_tool_the_words_that_it_wants() {
    use std::os::unix::fs::PermissionsExt;

    let testbed = Testbed::new();
    let presets = [
        ("ssh", "-T|-o|BatchMode=yes|h-ssh|{binary}|agent"),
        ("kubectl", "exec|-i|h-kubectl|--|{binary}|agent"),
        ("docker", "exec|-i|h-docker|{binary}|agent"),
        ("srun", "--nodelist=h-srun|--nodes=1|--ntasks=1|--overlap|--unbuffered|{binary}|agent"),
        ("oarsh", "h-oarsh|{binary}|agent"),
    ];
    // In place of the tools, something that writes down its words and then does what they are for, on this host.
    let tools = testbed.path("tools");
    std::fs::create_dir(&tools).unwrap();
    let stand_in = "#!/bin/sh\nfor word; do echo \"$word\"; done > \"$0.words\"\n\
                    while [ $# -gt 2 ]; do shift; done\nexec \"$@\"\n";
    let mut hosts = Vec::new();
    for (name, _) in presets {
        let path = tools.join(name);
        std::fs::write(&path, stand_in).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        hosts.push(format!("{{name: h-{name}, listen: 127.0.0.1, via: {name}}}"));
    }
    let text = format!("hosts:\n{}", hosts.iter().map(|host| format!("  - {host}\n")).collect::<String>());
    let inventory = testbed.path("presets.yaml");
    std::fs::write(&inventory, text).unwrap();
    let node_binary = harness::node_binary().canonicalize().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["hosts", "check", inventory.to_str().unwrap(), "--node-binary", node_binary.to_str().unwrap()])
        .env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("5 hosts reach each other"), "{text}");
    for (name, expected) in presets {
        let words = std::fs::read_to_string(tools.join(format!("{name}.words"))).unwrap();
        let expected = expected.replace("{binary}", node_binary.to_str().unwrap());
        assert_eq!(words.lines().collect::<Vec<_>>(), expected.split('|').collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_key_with_a_passphrase_is_taken_from_an_agent_or_asked_for_at_a_terminal() {
    let mut testbed = Testbed::new();
    let hosts = [testbed.serve("127.0.0.1", true).entry("host")];
    let inventory = testbed.inventory("", &hosts);
    let (key, socket) = (testbed.path("user"), testbed.path("agent"));
    let mut agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + WAIT;
    let add =
        || Command::new("ssh-add").arg(&key).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null()).status();
    while !add().unwrap().success() {
        assert!(Instant::now() < deadline, "ssh-agent does not come up");
    }
    let protect = ["-q", "-p", "-P", "", "-N", "pass phrase", "-f"];
    assert!(Command::new("ssh-keygen").args(protect).arg(&key).status().unwrap().success());

    let orchestrator = env!("CARGO_BIN_EXE_orchestrator");
    let check = format!(
        "{orchestrator} hosts check {} --node-binary {}",
        inventory.display(),
        harness::node_binary().display()
    );
    let words: Vec<&str> = check.split(' ').collect();
    // Without a terminal, whatever the test itself has.
    let by_agent =
        Command::new("setsid").arg("-w").args(&words).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert_eq!(by_agent.status.code(), Some(0), "{}", String::from_utf8_lossy(&by_agent.stdout));
    agent.kill().unwrap();
    agent.wait().unwrap();
    let unasked = Command::new("setsid").arg("-w").args(&words).env_remove("SSH_AUTH_SOCK").output().unwrap();
    assert_eq!(unasked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("ssh-add"), "{unasked:?}");
    for (typed, code) in [("pass phrase\n", 0), ("wrong\n", 3)] {
        // `script` gives it a terminal of its own.
        let mut asked = Command::new("script")
            .args(["-qec", &check, "/dev/null"])
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // What is typed before the question does not count.
        let (mut text, mut byte) = (Vec::new(), [0]);
        let output = asked.stdout.as_mut().unwrap();
        while !text.ends_with(b"user: ") && output.read(&mut byte).unwrap() > 0 {
            text.extend(byte);
        }
        asked.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        output.read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(asked.wait().unwrap().code(), Some(code), "{text}");
        assert!(!text.contains(typed.trim()), "it is not shown: {text}");
        assert!(text.contains("Passphrase of"), "{text}");
    }
    testbed.wait_no_process();
}

/// What is started on a host in place of an agent: a shell script.
fn in_place_of_an_agent(testbed: &mut Testbed, script: &str) -> Prepared {
    let server = testbed.serve("127.0.0.1", true);
    let endpoint = Endpoint {
        address: server.address.clone(),
        port: server.port,
        user: testbed.user(),
        keys: vec![testbed.path("user")],
        host_key_alias: None,
    };
    let cache = testbed.path("cache").display().to_string();
    let target = Target { endpoint, jumps: Vec::new(), cache };
    let script = format!("#!/bin/sh\n[ \"$1\" = --version ] && exit\n{script}\n");
    std::fs::write(testbed.path("script"), script).unwrap();
    let known_hosts = KnownHosts::load(&[testbed.path("known_hosts")], false).unwrap();
    let settings =
        Settings { known_hosts, passphrases: Passphrases::default(), turnstile: Turnstile::default() };
    let binary = NodeBinary::read(&testbed.path("script")).unwrap();
    Prepared::new(&target, &settings, &binary).unwrap()
}

/// Two answers come at almost the same time, and nothing after them until they are heard: none may wait for another to come.
#[test]
fn no_answer_waits_for_the_next_one() {
    const ROUNDS: usize = 5000;
    let mut testbed = Testbed::new();
    let prepared = in_place_of_an_agent(&mut testbed, "while read word; do echo $word; echo $word; done");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let AgentConnection { mut input, mut output, mut process, .. } = prepared.start().unwrap();
        let mut heard = [0; 8];
        for round in 0..ROUNDS {
            input.write_all(b"abc\n").await.unwrap();
            let answered = tokio::time::timeout(WAIT, output.read_exact(&mut heard)).await;
            assert!(answered.is_ok(), "round {round}: {heard:?}");
            assert_eq!(&heard, b"abc\nabc\n");
        }
        drop(input);
        assert_eq!(process.end(WAIT).await, "exit status: 0");
    });
}

#[test]
fn much_goes_through_a_channel_both_ways_at_once_and_nothing_is_lost() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 300;
    let mut testbed = Testbed::new();
    // It says what it hears, on both streams, and how it ended.
    let prepared = in_place_of_an_agent(&mut testbed, "tee /dev/stderr\nexit 7");
    let chunk = |number: usize| vec![number as u8; CHUNK];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let carried = async {
        let AgentConnection { mut input, mut output, mut errors, mut process } = prepared.start().unwrap();
        let write = async move {
            for number in 0..CHUNKS {
                input.write_all(&chunk(number)).await.unwrap();
            }
        };
        let same = async |stream: &mut (dyn AsyncRead + Send + Unpin)| {
            let mut heard = vec![0; CHUNK];
            for number in 0..CHUNKS {
                stream.read_exact(&mut heard).await.unwrap();
                assert!(heard.iter().all(|byte| *byte == number as u8), "chunk {number}");
            }
            assert_eq!(stream.read(&mut heard).await.unwrap(), 0);
        };
        tokio::join!(write, same(&mut *output), same(&mut *errors));
        process.end(WAIT).await
    };
    let status = runtime.block_on(async { tokio::time::timeout(WAIT, carried).await.unwrap() });
    assert_eq!(status, "exit status: 7");
}

#[test]
fn a_host_that_hangs_delays_no_run_that_has_a_stand_in_and_no_interrupt() {
    let mut testbed = Testbed::new();
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
    let hangs = format!("{{name: hangs, address: 127.0.0.3, port: {}}}", silent.local_addr().unwrap().port());
    let hosts = [hangs, testbed.serve("127.0.0.1", true).entry("good")];
    let inventory = testbed.inventory("wanted: 1\n", &hosts);
    let mut run = Run::start(SMALL, &["--json", "--on", inventory.to_str().unwrap()]);
    assert_eq!(run.wait_end().code(), Some(0), "{:#}", last(&run));
    assert_eq!(manifest(&run)["hosts"][0]["name"], "good");
    assert_eq!(manifest(&run)["unusable_hosts"].as_array().unwrap().len(), 0);

    let inventory = testbed.inventory("required: 1\n", &hosts);
    let mut run = Run::start(SMALL, &["--json", "--on", inventory.to_str().unwrap()]);
    run.wait_for("the good host", |line| line.contains("\"host\":\"good\""));
    run.signal(rustix::process::Signal::INT);
    assert_eq!(run.wait_end().code(), Some(3));
    let errors = run.errors();
    assert!(errors.contains("interrupted while its hosts were made ready"), "{errors}");
    assert_eq!(manifest(&run)["ending"], "interrupted");
    testbed.wait_no_process();
}
