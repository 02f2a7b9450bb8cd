//! Plans broken in many ways: the command ends with exit code 2, starts nothing, and its message names the place and the mend.

#![allow(clippy::unwrap_used)] // the tests' helpers are tests too

use std::path::Path;
use std::process::{Command, Output};

fn orchestrator(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orchestrator")).current_dir(directory).args(arguments).output().unwrap()
}

/// Runs `orchestrator plan` on `plan`, and returns what it says of it.
fn refusal(plan: &str, arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("broken.yaml"), plan).unwrap();
    let output = orchestrator(directory.path(), &[&["plan", "broken.yaml"], arguments].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(output.stdout.is_empty(), "nothing but the problem is told");
    errors
}

const WHOLE: &str = "\
name: whole
nodes: 64
join: {rate: 20/s}
workload:
  - lookup: {rate: 100/s}
timeline:
  - {at: 15s, kill: 10%}
duration: 30s
expect:
  - lookup.success >= 99.5%
  - ring.converged within 10s of 15s
";

/// [`WHOLE`] with one thing changed.
fn broken(whole: &str, part: &str) -> String {
    assert_eq!(WHOLE.matches(whole).count(), 1, "{whole}");
    WHOLE.replace(whole, part)
}

#[test]
fn the_whole_plan_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("whole.yaml"), WHOLE).unwrap();
    let output = orchestrator(directory.path(), &["plan", "whole.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

macro_rules! broken_plans {
    ($($name:ident: $whole:literal => $part:literal)+) => { $(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), refusal(&broken($whole, $part), &[]));
        }
    )+ };
}

broken_plans! {
    link_cache_of_too_many: "nodes: 64" => "nodes: 64\nnetwork: {link_cache: 5000}"
    rounds_too_often: "nodes: 64" => "nodes: 64\nnetwork: {stabilise: {every: 1ms}}"
    unknown_key: "nodes: 64" => "nodse: 64"
    unknown_key_inside: "{rate: 100/s}" => "{rat: 100/s}"
    missing_key: "nodes: 64\n" => ""
    no_yaml: "duration: 30s" => "duration: 30s: 40s"
    key_twice: "duration: 30s" => "nodes: 30"
    empty_value: "duration: 30s" => "duration:"
    time_without_unit: "{at: 15s, kill: 10%}" => "{at: 15, kill: 10%}"
    rate_without_unit: "{rate: 20/s}" => "{rate: 20}"
    rate_of_zero: "{rate: 100/s}" => "{rate: 0/s}"
    kill_of_more_than_are_up: "kill: 10%" => "kill: 65"
    kill_of_all: "kill: 10%" => "kill: 100%"
    restart_with_none_down: "kill: 10%" => "restart: 50%"
    share_above_all: "kill: 10%" => "kill: 110%"
    step_after_the_end: "at: 15s," => "at: 31s,"
    step_that_does_nothing: "{at: 15s, kill: 10%}" => "{at: 15s}"
    step_that_does_two_things: "{at: 15s, kill: 10%}" => "{at: 15s, kill: 10%, leave: 3}"
    joins_after_the_end: "{rate: 20/s}" => "{rate: 2/s}"
    convergence_after_the_end: "within 10s of 15s" => "within 16s of 15s"
    more_nodes_than_ids: "nodes: 64" => "nodes: 64\nnetwork: {max_size: 2^5}"
    unknown_geometry: "nodes: 64" => "nodes: 64\nnetwork: {geometry: {dsk: {k: 4}}}"
    geometry_without_settings: "nodes: 64" => "nodes: 64\nnetwork: {geometry: dks}"
    even_arity: "nodes: 64" => "nodes: 64\nnetwork: {geometry: {tango: {k: 4, symmetric: true}}}"
    bound_that_no_table_keeps: "nodes: 64" => "nodes: 64\nnetwork: {geometry: {at_most: {links: 3}}}"
    unknown_isolation: "nodes: 64" => "nodes: 64\nisolation: tasks"
    isolation_with_settings: "nodes: 64" => "nodes: 64\nisolation: {task: {threads: 2}}"
    no_successors: "nodes: 64" => "nodes: 64\nnetwork: {successors: 0}"
    too_many_nodes: "nodes: 64" => "nodes: 10_000_000"
    too_many_lookups: "{rate: 100/s}" => "{rate: 99999/s}"
    unknown_workload: "- lookup: {rate: 100/s}" => "- boradcast: {rate: 1/s}"
    unknown_popularity: "{rate: 100/s}" => "{rate: 100/s, keys: {zipfian: {exponent: 1}}}"
    popularity_of_all_ids: "{rate: 100/s}" => "{rate: 100/s, keys: {zipf: {}}}"
    ramp_without_its_end: "{rate: 100/s}" => "{rate: {from: 10/s, over: 5s}}"
    ramp_of_no_length: "{rate: 100/s}" => "{rate: {from: 10/s, to: 20/s, over: 0s}}"
    workload_that_ends_before_it_begins: "{rate: 100/s}" => "{rate: 100/s, from: 10s, to: 5s}"
    workload_after_the_end: "{rate: 100/s}" => "{rate: 100/s, from: 40s}"
    value_without_unit: "- lookup: {rate: 100/s}" => "- lookup: {rate: 100/s}\n  - dictionary: {rate: 1/s, value: 100}"
    value_too_large: "- lookup: {rate: 100/s}" => "- lookup: {rate: 100/s}\n  - dictionary: {rate: 1/s, value: 10MB}"
    multicast_to_nobody: "- lookup: {rate: 100/s}" => "- lookup: {rate: 100/s}\n  - multicast: {rate: 1/s, receivers: 0}"
    too_many_deliveries: "- lookup: {rate: 100/s}" => "- lookup: {rate: 100/s}\n  - broadcast: {rate: 5000/s}"
    gets_expected_of_none: "lookup.success >= 99.5%" => "get.missing == 0"
    too_much_replication: "nodes: 64" => "nodes: 64\nnetwork: {replication: 17}"
    no_replication: "nodes: 64" => "nodes: 64\nnetwork: {replication: 0}"
    unknown_figure: "lookup.success >=" => "lookup.sucess >="
    bound_without_unit: "99.5%" => "99.5"
    bound_of_another_unit: "lookup.success >= 99.5%" => "lookup.latency.p99 <= 5%"
    assignment_for_comparison: "lookup.success >= 99.5%" => "lookup.wrong = 0"
    lookups_expected_of_none: "workload:\n  - lookup: {rate: 100/s}\n" => ""
    name_that_is_a_path: "name: whole" => "name: ../whole"
    list_for_a_number: "nodes: 64" => "nodes: [64, 128]"
    word_for_a_map: "nodes: 64" => "nodes: 64\nnetwork: chord"
    settings_for_chord: "nodes: 64" => "nodes: 64\nnetwork: {geometry: {chord: {k: 2}}}"
    two_geometries: "nodes: 64" => "nodes: 64\nnetwork: {geometry: {dks: {k: 2}, tango: {k: 3}}}"
    two_plans: "duration: 30s" => "duration: 30s\n---\nname: second"
    restart_of_more_than_are_down: "{at: 15s, kill: 10%}" => "{at: 15s, kill: 10%}\n  - {at: 16s, restart: 7}"
    run_without_end: "join: {rate: 20/s}\nworkload:\n  - lookup: {rate: 100/s}\ntimeline:\n  - {at: 15s, kill: 10%}\nduration: 30s" => "join: {rate: 1/h}\ntimeline:\n  - {at: 30d, kill: 1}"
    churn_without_end: "{at: 15s, kill: 10%}" => "{from: 15s, churn: {rate: 10%/min}}"
    churn_that_ends_before_it_begins: "{at: 15s, kill: 10%}" => "{from: 15s, to: 10s, churn: {rate: 10%/min}}"
    churn_before_all_have_joined: "{at: 15s, kill: 10%}" => "{from: 1s, to: 10s, churn: {rate: 10%/min}}"
    churn_of_nobody: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {end: leave}}"
    churn_said_twice: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {preset: kad, rate: 10%/min}}"
    unknown_preset: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {preset: cad}}"
    preset_without_settings: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {preset: rhea-2004}}"
    unknown_distribution: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {sessions: {weibul: {shape: 1, mean: 1m}}}}"
    distribution_without_size: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {sessions: {weibull: {shape: 0.5}}}}"
    pareto_without_mean: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {sessions: {pareto: {shape: 0.9, scale: 1m}}}}"
    sessions_of_no_length: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {sessions: {fixed: 0s}}}"
    two_churns_at_once: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {rate: 1%/s}}\n  - {from: 18s, to: 22s, churn: {rate: 1%/s}}"
    churn_after_the_end: "{at: 15s, kill: 10%}" => "{from: 15s, to: 40s, churn: {rate: 1%/min}}"
    convergence_in_churn: "{at: 15s, kill: 10%}" => "{from: 14s, to: 20s, churn: {rate: 1%/min}}"
    convergence_in_a_partition: "{at: 15s, kill: 10%}" => "{at: 14s, partition: [50%, 50%]}\n  - {at: 18s, heal: all}"
    rate_of_churn_without_unit: "{at: 15s, kill: 10%}" => "{from: 15s, to: 20s, churn: {rate: 10%}}"
    two_beginnings: "{at: 15s, kill: 10%}" => "{at: 15s, from: 15s, kill: 10%}"
    no_beginning: "{at: 15s, kill: 10%}" => "{kill: 10%, for: 20s}"
    kill_for_a_while: "{at: 15s, kill: 10%}" => "{at: 15s, kill: 10%, for: 20s}"
    pause_of_no_length: "{at: 15s, kill: 10%}" => "{at: 15s, pause: 10%, for: 0s}"
    pause_after_the_end: "{at: 15s, kill: 10%}" => "{at: 15s, pause: 10%, for: 20s}"
    pause_of_more_than_are_up: "{at: 15s, kill: 10%}" => "{at: 15s, pause: 65, for: 5s}"
    partition_of_one_side: "{at: 15s, kill: 10%}" => "{at: 15s, partition: [100%]}"
    partition_of_more_than_all: "{at: 15s, kill: 10%}" => "{at: 12s, partition: [50%, 60%], heal_after: 1s}"
    too_many_groups_at_once: "{at: 15s, kill: 10%}" => "{at: 11s, partition: [20%, 20%, 20%, 20%, 20%], heal_after: 3s}\n  - {at: 12s, partition: [25%, 25%, 25%, 25%], heal_after: 1s}"
    degrade_without_effect: "{at: 15s, kill: 10%}" => "{at: 15s, degrade: {nodes: 20%, distribution: normal}, for: 5s}"
    degrade_with_endless_latency: "{at: 15s, kill: 10%}" => "{at: 15s, degrade: {latency: 2m}, for: 5s}"
    bandwidth_without_unit: "{at: 15s, kill: 10%}" => "{at: 15s, degrade: {bandwidth: 100}, for: 5s}"
    trace_that_is_not_there: "{at: 15s, kill: 10%}" => "{from: 15s, trace: {file: missing.csv, format: csv}}"
    trace_that_is_no_trace: "{at: 15s, kill: 10%}" => "{from: 15s, trace: {file: broken.yaml, format: csv}}"
    trace_of_unknown_format: "{at: 15s, kill: 10%}" => "{from: 15s, trace: {file: broken.yaml, format: tsv}}"
    window_that_ends_before_it_begins: "{at: 15s, kill: 10%}" => "{from: 15s, trace: {file: broken.yaml, format: csv, window: {from: 5s, to: 4s}}}"
    group_without_its_groups: "{at: 15s, kill: 10%}" => "{at: 15s, kill: {group: edge}}"
    target_of_nobody: "{at: 15s, kill: 10%}" => "{at: 15s, kill: {}}"
    target_of_two_kinds: "{at: 15s, kill: 10%}" => "{at: 15s, kill: {heaviest: 1, hosts: 2}}"
    unknown_kind_of_target: "{at: 15s, kill: 10%}" => "{at: 15s, kill: {host: h1}}"
    part_of_hosts: "{at: 15s, kill: 10%}" => "{at: 15s, kill: {hosts: 2, nodes: 50%}}"
    host_that_is_no_list: "{at: 15s, kill: 10%}" => "{at: 15s, kill: {hosts: h1}}"
    list_for_a_target: "{at: 15s, kill: 10%}" => "{at: 15s, kill: [h1, h2]}"
    role_of_the_dead: "{at: 15s, kill: 10%}" => "{at: 15s, kill: 10%}\n  - {at: 16s, restart: {heaviest: 1}}"
    key_beyond_the_ring: "{at: 15s, kill: 10%}" => "{at: 15s, kill: {successor_of: 4294967296}}"
    groups_of_more_than_all: "nodes: 64\n" => "nodes: 64\ngroups: {edge: 60%, core: 30}\n"
    group_without_a_name: "nodes: 64\n" => "nodes: 64\ngroups: {1st: 20%, rest: 5}\n"
    host_in_two_groups: "nodes: 64\n" => "nodes: 64\ngroups: {a: {hosts: [h1, h2]}, b: {hosts: [h2]}}\n"
    no_virtual_hosts: "nodes: 64\n" => "nodes: 64\nvirtual_hosts: 0\n"
    side_said_twice: "{at: 15s, kill: 10%}" => "{at: 15s, partition: [{hosts: [a]}, {hosts: [a]}], heal_after: 1s}"
    links_in_two_ways: "{at: 15s, kill: 10%}" => "{at: 15s, degrade: {nodes: 5, between: [rest, rest], latency: 1s}}"
    links_of_three_ends: "{at: 15s, kill: 10%}" => "{at: 15s, degrade: {between: [rest, rest, rest], latency: 1s}}"
    links_between_shares: "{at: 15s, kill: 10%}" => "{at: 15s, degrade: {between: [50%, 50%], latency: 1s}}"
    one_way_to_everybody: "{at: 15s, kill: 10%}" => "{at: 15s, degrade: {nodes: 5, latency: 1s}, one_way: true}"
    faults_with_what: "nodes: 64\n" => "nodes: 64\nfaults: {with: magic}\n"
    map_for_a_list: "timeline:\n  - {at: 15s, kill: 10%}" => "timeline: {at: 15s, kill: 10%}"
}

#[test]
fn groups_and_kernels_are_held_to_their_rules() {
    let said = [
        "{at: 15s, kill: {group: egde}}",
        "{at: 15s, partition: [edge, 50%], heal_after: 1s}",
        "{at: 15s, partition: [edge, edge], heal_after: 1s}",
        "{at: 15s, partition: [edge, rest], heal_after: 1s}",
        "{at: 15s, partition: [50%, 50%], heal_after: 1s}",
        "{at: 15s, degrade: {between: [west, edge], latency: 5ms}, for: 1s}",
        "{at: 15s, degrade: {nodes: 10%, latency: 5ms}, for: 1s}",
        "{at: 15s, degrade: {nodes: {hosts: 1}, latency: 1s, jitter: 300ms}, for: 1s}",
    ]
    .map(|step| {
        let groups = "groups={edge: 20%, west: {hosts: [h1]}}";
        refusal(
            WHOLE,
            &[
                "--set",
                groups,
                "--set",
                "faults={with: kernel}",
                "--set",
                "expect=[]",
                "--set",
                &format!("timeline=[{step}]"),
            ],
        )
    });
    insta::assert_snapshot!("groups_and_kernels", said.join("\n"));
}

#[test]
fn more_churn_than_a_run_has_room_for_is_refused() {
    let churn = |sessions: &str| format!("timeline=[{{from: 15s, to: 1h, churn: {{sessions: {sessions}}}}}]");
    let said = [
        churn("{fixed: 200ms}"),
        churn("{fixed: 1s}, downtime: {fixed: 30d}"),
        churn("{fixed: 200ms}, downtime: {fixed: 100ms}"),
        churn("{fixed: 100ms}, downtime: {fixed: 30d}").replace("1h", "16s"),
    ]
    .map(|churn| {
        refusal(
            WHOLE,
            &["--set", "duration=2h", "--set", "workload=[]", "--set", "expect=[]", "--set", &churn],
        )
    });
    insta::assert_snapshot!("too_much_churn", said.join("---\n"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let plan = "\
name: many mistakes
nodes: 64
join: {rate: 20}
timeline:
  - {at: 15, kill: 10%}
  - {at: 20s, kill: many}
expect:
  - lookup.sucess >= 99.5%
";
    insta::assert_snapshot!("all_mistakes_at_once", refusal(plan, &[]));
}

#[test]
fn a_mistake_in_an_override_is_told_of_the_override() {
    let said = [
        "nodes=many",
        "node=200",
        "nodes",
        "network.geometry.dks.k=4",
        "network.geometry={dks: {k: 0}}",
        "timeline.1.kill=5",
        "timeline.0.kill=64",
        "name.first=x",
        "nodes=[",
        "=4",
    ]
    .map(|text| refusal(WHOLE, &["--set", "network.geometry={tango: {k: 5}}", "--set", text]));
    insta::assert_snapshot!("overrides", said.join("---\n"));
}

#[test]
fn hostile_plans_are_refused_quickly() {
    let mut bomb = "name: bomb\nnodes: 4\nx0: &x0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*x{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("x{level}: &x{level} [{below}]\n"));
    }
    assert!(refusal(&bomb, &[]).contains("broken.yaml:"), "aliases that grow");
    assert!(refusal(&"[".repeat(100_000), &[]).contains("broken.yaml:"), "nesting");
    assert!(refusal(&"#".repeat((1 << 20) + 1), &[]).contains("at most"), "size");
    assert!(refusal("", &[]).contains("broken.yaml"), "nothing");
    assert!(refusal("\u{0}\u{1}", &[]).contains("broken.yaml"), "no text");
    assert!(refusal("name: a\nnodes: 4\n---\nname: b\nnodes: 4\n", &[]).contains("broken.yaml"), "two plans");
    assert!(refusal("name: &n loop\nnodes: *m\n", &[]).contains("broken.yaml:2"), "unknown alias");
}

#[test]
fn a_plan_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = orchestrator(directory.path(), &["plan", "missing.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing.yaml"));
    let output = orchestrator(directory.path(), &["plan"]);
    assert_eq!(output.status.code(), Some(2), "wrong usage");
}
