//! Plans in the simulator: the unchanged experiments hold, the same seed is the same run to the byte, and what a plan says of the
//! simulated network is so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn orchestrator(arguments: &[&str], out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["run", "--on", "sim", "--json", "--out"])
        .arg(out)
        .args(arguments)
        .output()
        .unwrap()
}

/// The last line that was printed, as JSON.
fn ending(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(last).unwrap()
}

/// Runs a plan's text; its directory, and what was printed last.
fn run(plan: &str, arguments: &[&str], out: &Path) -> (PathBuf, Value) {
    let path = out.join("plan.yaml");
    std::fs::write(&path, plan).unwrap();
    let output = orchestrator(&[&[path.to_str().unwrap()], arguments].concat(), out);
    let ending = ending(&output);
    assert_eq!(output.status.code(), Some(0), "{ending:#}");
    (ending["directory"].as_str().unwrap().into(), ending)
}

const PLAN: &str = "
name: small
seed: 5
nodes: 20
join: {rate: 20/s}
workload:
  - lookup: {rate: 50/s}
  - dictionary: {rate: 20/s, population: 30, keys: {zipf: {}}}
  - send_reliable: {rate: {from: 1/s, to: 10/s, over: 20s}}
  - broadcast: {rate: 1/s}
timeline:
  - {at: 3s, kill: 2}
  - {at: 5s, partition: [50%, 50%], heal_after: 5s}
  - {at: 12s, pause: 2, for: 2s}
  - {at: 15s, degrade: {nodes: 20%, latency: 50ms, jitter: 10ms, loss: 1%}, for: 5s}
  - {at: 22s, restart: 2}
  - {at: 25s, leave: 2}
duration: 40s
expect:
  - nodes.alive == 18
  - lookup.wrong == 0
sim:
  latency: {log_normal: {median: 20ms, sigma: 0.5}}
  loss: 0.1%
  clock_skew: {offset: 1s, rate: 0.02%}
";

#[test]
fn every_experiment_holds() {
    let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
    let out = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(experiments).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        // Sweeps are for release builds: here they are small.
        let smaller: &[&str] = match path.file_stem().unwrap().to_str().unwrap() {
            "geometry" => &["--set", "sweep.nodes=[60]", "--set", "duration=70s"],
            "geometry-full" => {
                &["--set", "network.max_size=61", "--set", "nodes=61", "--set", "duration=70s"]
            }
            "routing-options" => &["--set", "nodes=40", "--set", "workload=[{lookup: {rate: 20/s}}]"],
            "hundred-thousand" => &["--set", "nodes=300", "--set", "expect.0=nodes.alive == 300"],
            "scale-sim" => &["--set", "sweep.nodes=[10, 500]", "--set", "duration=5s"],
            _ => &[],
        };
        let output = orchestrator(&[&[path.to_str().unwrap()], smaller].concat(), out.path());
        assert_eq!(output.status.code(), Some(0), "{}: {:#}", path.display(), ending(&output));
        count += 1;
    }
    assert!(count >= 8, "only {count} experiments were found");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    let out = tempfile::tempdir().unwrap();
    let (first, ended) = run(PLAN, &[], out.path());
    let (second, _) = run(PLAN, &[], out.path());
    assert_ne!(first, second);
    for name in [
        "ops.parquet",
        "deliveries.parquet",
        "samples.parquet",
        "timeline.jsonl",
        "schedule.jsonl",
        "verdict.json",
    ] {
        let read = |directory: &Path| std::fs::read(directory.join(name)).unwrap();
        assert!(read(&first) == read(&second), "{name} differs");
    }
    let trace = |directory: &Path| -> Value {
        let manifest = std::fs::read(directory.join("manifest.json")).unwrap();
        serde_json::from_slice::<Value>(&manifest).unwrap()["trace"].clone()
    };
    assert_eq!(trace(&first).as_str().unwrap().len(), 16);
    assert_eq!((trace(&first), &trace(&first)), (trace(&second), &ended["trace"]));
    let (other, _) = run(PLAN, &["--seed", "6"], out.path());
    assert_ne!(trace(&other), trace(&first));
}

#[test]
fn the_network_is_as_the_plan_has_it() {
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("king.txt"), "1 40\n40 1\n").unwrap();
    let p50 = |latency: &str| {
        let plan = format!(
            "name: n\nnodes: 50\njoin: prepared\nworkload:\n  - lookup: {{rate: 50/s}}\nduration: 10s\nsim: {{latency: {latency}}}\n"
        );
        let (_, ended) = run(&plan, &[], out.path());
        assert_eq!(ended["verdict"]["figures"]["lookup.success"], 1);
        ended["verdict"]["figures"]["hop.latency.p50"].as_f64().unwrap()
    };
    // A message and its acknowledgement, some of which find no link yet.
    assert!((0.0199..0.045).contains(&p50("{constant: 10ms}")));
    assert!((0.01..0.045).contains(&p50("{uniform: {min: 5ms, max: 15ms}}")));
    assert!((0.05..0.45).contains(&p50("{coordinates: {mean: 100ms}}")));
    assert!((0.001..0.17).contains(&p50("{matrix: king.txt}")));
}

#[test]
fn a_prepared_ring_is_right_from_the_start_and_for_simulations_only() {
    let out = tempfile::tempdir().unwrap();
    let plan = "
name: prepared
nodes: 200
join: prepared
workload:
  - lookup: {rate: 100/s}
timeline:
  - {at: 5s, kill: 10%}
duration: 20s
expect:
  - lookup.success >= 99.9%
  - lookup.wrong == 0
  - ring.converged within 1s of 1s
  - ring.converged within 5s of 5s
";
    run(plan, &[], out.path());
    let path = out.path().join("plan.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["run", path.to_str().unwrap(), "--node-binary", env!("CARGO_BIN_EXE_orchestrator")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--on sim"));
}

#[test]
fn large_networks_that_are_sampled_seldom_are_sampled_at_the_end() {
    let out = tempfile::tempdir().unwrap();
    let plan = "name: large\nnodes: 3500\njoin: prepared\nduration: 1s\nsim: {maintenance: false}\n";
    let (_, ended) = run(plan, &[], out.path());
    let fingers = ended["verdict"]["figures"]["table.fingers.mean"].as_f64().unwrap();
    assert!((15.0..25.0).contains(&fingers), "{fingers}");
}

/// Figures of the run of a plan.
fn figures(plan: &str, out: &Path) -> (PathBuf, impl Fn(&str) -> f64) {
    let (directory, ended) = run(plan, &[], out);
    let figures = ended["verdict"]["figures"].clone();
    (directory, move |name: &str| {
        figures[name].as_f64().unwrap_or_else(|| panic!("{name} is absent: {figures:#}"))
    })
}

#[test]
fn a_broadcast_on_a_stable_ring_takes_a_message_for_each_other_node() {
    let out = tempfile::tempdir().unwrap();
    let plan = "name: b\nnodes: 30\njoin: prepared\nworkload:\n  - broadcast: {rate: 5/s, from: 2s, to: 10s}\n  - multicast: {rate: 5/s, receivers: 6, from: 2s}\nduration: 14s\n";
    let (directory, figure) = figures(plan, out.path());
    assert!(figure("broadcast.issued") > 20.0);
    assert_eq!((figure("broadcast.coverage"), figure("broadcast.duplicates")), (1.0, 0.0));
    assert_eq!(figure("broadcast.messages"), 29.0);
    assert_eq!((figure("multicast.coverage"), figure("multicast.success")), (1.0, 1.0));
    let messages = figure("multicast.messages");
    assert!((6.0..18.0).contains(&messages), "{messages}");
    assert!(directory.join("deliveries.parquet").is_file());
}

#[test]
fn without_replication_the_keys_of_the_dead_are_missing_and_with_it_none_is() {
    let out = tempfile::tempdir().unwrap();
    let missing = |replication: u32| {
        let plan = format!(
            "name: d\nnetwork: {{replication: {replication}}}\nnodes: 40\njoin: prepared\nworkload:\n  - dictionary: {{rate: 100/s, reads: 0%, population: 100, from: 2s, to: 8s}}\n  - dictionary: {{rate: 100/s, reads: 100%, population: 100, from: 15s}}\ntimeline:\n  - {{at: 9s, kill: 5}}\nduration: 25s\n"
        );
        let (_, figure) = figures(&plan, out.path());
        assert_eq!((figure("put.success"), figure("get.wrong"), figure("get.stale")), (1.0, 0.0, 0.0));
        assert_eq!(figure("get.found") + figure("get.missing"), figure("get.issued"));
        figure("get.missing")
    };
    assert!(missing(1) > 10.0);
    assert_eq!(missing(3), 0.0);
}

#[test]
fn every_message_to_a_node_that_is_down_ends_failed_or_is_told_apart() {
    let out = tempfile::tempdir().unwrap();
    let plan = "name: m\nnodes: 20\njoin: prepared\nworkload:\n  - send: {rate: 20/s, pairs: 20, from: 2s}\n  - send_reliable: {rate: 20/s, pairs: 20, from: 2s, to: 20s}\ntimeline:\n  - {at: 5s, kill: 6}\nduration: 40s\n";
    let (_, figure) = figures(plan, out.path());
    for kind in ["send", "send_reliable"] {
        let figure = |name: &str| figure(&format!("{kind}.{name}"));
        assert!(figure("failed") > 0.0 && figure("success") > 0.5, "{kind}");
        assert_eq!((figure("wrong"), figure("duplicates")), (0.0, 0.0), "{kind}");
    }
    assert_eq!(figure("send_reliable.reordered"), 0.0);
    let (issued, lost) = (figure("send_reliable.issued"), figure("send_reliable.lost"));
    let ended = issued * figure("send_reliable.success") + figure("send_reliable.failed");
    assert!((ended + lost - issued).abs() < 1e-6, "none is forgotten");
}

#[test]
fn a_sweep_has_a_run_for_each_point_and_a_table() {
    let out = tempfile::tempdir().unwrap();
    let plan = "
name: swept
seed: 3
nodes: 10
workload:
  - lookup: {rate: 20/s}
duration: 10s
sweep:
  nodes: [10, 30]
  network.geometry: [chord, {tango: {k: 5}}]
repeat: 2
";
    let (directory, ended) = run(plan, &[], out.path());
    assert_eq!(ended["event"], "swept");
    let table = std::fs::read_to_string(directory.join("sweep.csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 2 * 2, "{table}");
    assert!(lines[0].starts_with("nodes,network.geometry,seed,passed,nodes.alive,"), "{}", lines[0]);
    assert!(lines[1].starts_with("10,chord,3,true,10,"), "{}", lines[1]);
    assert!(lines[8].starts_with("30,{tango: {k: 5}},4,true,30,"), "{}", lines[8]);
    for name in ["001-3", "001-4", "004-4"] {
        assert!(directory.join(name).join("verdict.json").is_file(), "{name}");
    }
}

#[test]
fn mistakes_about_the_simulation_are_named() {
    let out = tempfile::tempdir().unwrap();
    for (wrong, wanted) in [
        ("sim: {latency: {constant: 2m}}", "longer than any message takes"),
        ("sim: {latency: {uniform: {min: 5ms, max: 1ms}}}", "below the least"),
        ("sim: {latency: {log_normal: {median: 5ms, sigma: 9}}}", "no spread of latencies"),
        ("sim: {latency: {matrix: nowhere.txt}}", "nowhere.txt cannot be used"),
        ("sim: {clock_skew: {rate: 20%}}", "cannot run so wrong"),
        ("sim: {clock_skew: {offset: 2h}}", "cannot differ by so much"),
        ("sim: {maintenance: false}", "no ring ever forms"),
        ("sim: {lateness: 1}", "lateness"),
    ] {
        let path = out.path().join("plan.yaml");
        std::fs::write(&path, format!("name: wrong\nnodes: 5\n{wrong}\n")).unwrap();
        let output = orchestrator(&[path.to_str().unwrap()], out.path());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(errors.replace("\n", " ").contains(wanted), "{wrong}: {errors}");
    }
}
