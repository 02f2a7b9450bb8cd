//! Plans that are right: the experiments of this repository, defaults, overrides, and the way back to YAML.

#![allow(clippy::unwrap_used)] // the tests' helpers are tests too

use std::path::{Path, PathBuf};
use std::time::Duration;

use p2ps::config::{Geometry, NetConfig};
use p2ps_orchestrator::plan::targets::FaultsWith;
use p2ps_orchestrator::plan::{Amount, Claim, Plan, StepEvent, json_schema, load, parse, resolved_yaml};

fn experiments() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() >= 4);
    paths
}

fn read(text: &str, overrides: &[&str]) -> Plan {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    parse("plan.yaml", text, &overrides).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_experiment_is_right_and_names_its_schema() {
    for path in experiments() {
        let plan = load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Some(plan.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some("# yaml-language-server: $schema=plan.schema.json"), "{path:?}");
    }
}

#[test]
fn the_quickstart_holds_for_200_nodes_too() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/quickstart.yaml");
    let plan = load(&path, &["nodes=200".to_owned()]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plan.nodes, 200);
}

#[test]
fn the_published_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/plan.schema.json");
    let published = std::fs::read_to_string(path).unwrap();
    assert!(published == json_schema(), "write it anew: orchestrator schema > experiments/plan.schema.json");
}

#[test]
fn a_resolved_plan_is_the_same_plan() {
    let mut plans: Vec<Plan> = experiments().iter().map(|path| load(path, &[]).unwrap()).collect();
    plans.push(read(ODD, &[]));
    plans.push(read("name: least\nnodes: 1\n", &[]));
    for plan in plans {
        let text = resolved_yaml(&plan);
        assert_eq!(read(&text, &[]), plan, "{text}");
        assert_eq!(resolved_yaml(&read(&text, &[])), text);
    }
}

const ODD: &str = "\
name: odd
seed: 18446744073709551615
network: {max_size: 2^64, geometry: {at_most: {hops: 9}}, successors: 32, encrypted: true, correction_on_use: false, correction_on_change: true, stabilise: {every: 250ms}, proximity: true, link_cache: 17}
nodes: &many 1_000
join: {rate: 7/min}
workload:
  - lookup: {rate: 100/h}
  - lookup: {rate: 0.3/s, keys: uniform}
timeline:
  - {at: 1h500us, restart: 33.3%}
  - at: 30.25s
    join: *many
  - {kill: 0.7%, at: '1m'}
expect:
  - lookup.latency.p99   <=  1.5ms
  - ring.converged within 1d of 2h
";

const WORKLOADS: &str = "\
name: workloads
nodes: 100
network: {replication: 5}
workload:
  - lookup: {rate: {from: 10/s, to: 200/s, over: 30s}, from: 5s, to: 1m}
  - lookup: {rate: 10/s, keys: {zipf: {exponent: 0.8}}, population: 1_000}
  - dictionary: {rate: 5/s}
  - dictionary: {rate: 5/s, reads: 95%, population: 50, keys: {hot: {keys: 10%, operations: 90%}}, value: 4KiB, from: 10s}
  - send: {rate: 3/min}
  - send_reliable: {rate: 1/s, pairs: 10, payload: 1kB}
  - broadcast: {rate: 1/s, payload: 8B, to: 40s}
  - multicast: {rate: {from: 5/s, to: 1/s, over: 10s}, receivers: 12}
expect:
  - get.missing == 0
  - put.latency.p99 <= 100ms
  - send_reliable.success >= 99%
  - broadcast.coverage >= 99.9%
  - multicast.messages < 20
";

#[test]
fn workloads_mean_what_they_say() {
    let plan = read(WORKLOADS, &[]);
    let text = resolved_yaml(&plan);
    assert_eq!(read(&text, &[]), plan, "{text}");
    assert_eq!(plan.net.replication(), 5);
    assert_eq!(plan.duration, Duration::from_secs(80), "until the last ends, and the tail");
    insta::assert_snapshot!("workloads", text);
}

const CHURNED: &str = "\
name: churned
nodes: 100
timeline:
  - {from: 10s, to: 20s, churn: {preset: bittorrent-debian, end: leave}}
  - {from: 20s, to: 30s, churn: {preset: {rhea-2004: {median: 84s}}, speed_up: 7}}
  - {from: 30s, to: 40s, churn: {sessions: {log_normal: {sigma: 1.25, median: 2m}}, downtime: {pareto: {shape: 1.7, scale: 30s}}}}
  - {from: 40s, to: 50s, churn: {sessions: {fixed: 90s}, downtime: {exponential: {mean: 1m}}}}
  - {from: 50s, to: 60s, churn: {rate: 2.5%/h}}
  - {at: 1m, pause: 3}
  - {at: 1m, partition: [33.4%, 33.3%, 33.3%], one_way: true, heal_after: 1.5s}
  - {at: 1m, degrade: {latency: 10ms, jitter: 1ms, distribution: log_normal, loss: 0.01%, bandwidth: 8Mbit/s}}
  - {from: 1m, degrade: {nodes: 7, bandwidth: 250kB/s}, for: 1m}
  - {at: 70s, heal: all}
";

const TARGETED: &str = "\
name: targeted
nodes: 100
groups:
  edge: 20%
  core: 10
  west: {hosts: [h1, h2.example.org]}
  racks: {hosts: 2}
virtual_hosts: 8
faults: {with: node}
timeline:
  - {at: 10s, kill: {group: edge}}
  - {at: 11s, leave: {group: core, nodes: 5}}
  - {at: 12s, kill: {hosts: 50%}}
  - {at: 13s, restart: {hosts: [h1]}}
  - {at: 14s, pause: {successor_of: 4_000_000_000}, for: 5s}
  - {at: 15s, leave: {heaviest: 3}}
  - {at: 16s, partition: [edge, core, rest], heal_after: 5s}
  - {at: 30s, partition: [{hosts: 2}, {hosts: [h1]}], one_way: true, heal_after: 5s}
  - {at: 40s, degrade: {between: [edge, core], latency: 100ms}, for: 5s}
  - {at: 50s, degrade: {between: [west, west], loss: 1%}, for: 5s}
  - {at: 60s, degrade: {between: [{hosts: 1}, rest], bandwidth: 1MB/s}, one_way: true, for: 5s}
  - {at: 70s, degrade: {nodes: {group: racks}, latency: 5ms}}
";

#[test]
fn targets_mean_what_they_say() {
    let plan = read(TARGETED, &[]);
    let text = resolved_yaml(&plan);
    assert_eq!(read(&text, &[]), plan, "{text}");
    let texts: Vec<&str> = plan.timeline.iter().map(|step| step.text.as_str()).collect();
    insta::assert_snapshot!("targeted", format!("{text}\n{}", texts.join("\n")));
    assert_eq!(plan.hosts_named(), ["h1", "h2.example.org"]);
    let kernel = read(
        "name: k\nnodes: 9\ngroups: {west: {hosts: [a]}}\nfaults: {with: kernel}\ntimeline:\n  - {at: 9s, partition: [west, rest]}\n",
        &[],
    );
    assert_eq!(kernel.faults, FaultsWith::Kernel);
    let whole = ["between: [west, rest]", "nodes: {group: west}", "nodes: {hosts: 2}", "nodes: 100%"];
    for links in whole {
        let degrade = format!(
            "name: k\nnodes: 9\ngroups: {{west: {{hosts: [a]}}}}\nfaults: {{with: kernel}}\ntimeline:\n  - {{at: 9s, degrade: \
             {{{links}, latency: 5ms}}}}\n"
        );
        read(&degrade, &[]);
    }
}

#[test]
fn churn_and_faults_mean_what_they_say() {
    let plan = read(CHURNED, &[]);
    let text = resolved_yaml(&plan);
    assert_eq!(read(&text, &[]), plan, "{text}");
    let texts: Vec<&str> = plan.timeline.iter().map(|step| step.text.as_str()).collect();
    insta::assert_snapshot!("churned", format!("{text}\n{}", texts.join("\n")));
    assert_eq!(plan.duration, Duration::from_secs(140), "what lasts to 2m, and the tail");
}

#[test]
fn oddly_written_plans_mean_what_they_say() {
    let plan = read(ODD, &[]);
    assert_eq!(plan.seed, u64::MAX);
    assert_eq!(plan.nodes, 1000);
    assert_eq!(plan.join_rate, Some(7.0 / 60.0));
    let events: Vec<StepEvent> = plan.timeline.iter().map(|step| step.event.clone()).collect();
    assert_eq!(
        events,
        [
            StepEvent::Join(Amount::Count(1000)),
            StepEvent::Kill(Amount::Share(0.007).into()),
            StepEvent::Restart(Amount::Share(0.333).into())
        ],
        "in time order"
    );
    assert_eq!(plan.timeline[2].at, Duration::from_micros(3_600_000_500));
    assert_eq!(plan.duration, Duration::from_secs(26 * 3600), "as long as convergence may take");
    assert!(matches!(&plan.expect[0].claim, Claim::Figure { bound, .. } if *bound == 0.0015));
    assert!(matches!(plan.net.geometry(), Geometry::Tango { k: 3, symmetric: true }));
    assert!(plan.encrypted);
}

#[test]
fn the_least_plan_gets_the_defaults() {
    let plan = read("name: least\nnodes: 41\n", &[]);
    assert_eq!((plan.seed, plan.join_rate, plan.net), (0, Some(20.0), NetConfig::default()));
    assert_eq!(plan.duration, Duration::from_secs(22), "2 s of joins, and the tail");
    assert!(
        !plan.encrypted && plan.workload.is_empty() && plan.timeline.is_empty() && plan.expect.is_empty()
    );
    let commented_out = read("name: least\nnodes: 41\ntimeline:\n#  - {at: 3s, kill: 1}\nexpect:\n", &[]);
    assert_eq!(commented_out, plan);
}

#[test]
fn overrides_change_and_add() {
    let text = "name: base\nnodes: 64\ntimeline:\n  - {at: 15s, kill: 10%}\n";
    let plan = read(
        text,
        &[
            "nodes=200",
            "network.successors=4",
            "network.encrypted=true",
            "network.geometry={dks: {k: 4}}",
            "timeline.0.kill=20%",
            "seed = 9",
            "nodes=100",
            "join=at_once",
        ],
    );
    assert_eq!((plan.nodes, plan.seed, plan.join_rate), (100, 9, None), "the last one counts");
    assert_eq!((plan.net.successors(), plan.net.geometry()), (4, Geometry::Dks { k: 4 }));
    assert!(plan.encrypted);
    assert_eq!(plan.timeline[0].event, StepEvent::Kill(Amount::Share(0.2).into()));
}
