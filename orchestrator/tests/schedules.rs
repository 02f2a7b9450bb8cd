//! Schedules: the same to the byte for the same seed, and possible whatever the seed.

#![allow(clippy::unwrap_used)] // the tests' helpers are tests too

use std::collections::{BTreeMap, BTreeSet};

use p2ps::agent::protocol::{Action, ActionKind, NodeIndex, ShapeRule};
use p2ps::com::shaping::{Cut, LinkShape};
use p2ps::control::Errand;
use p2ps::id::Id;
use p2ps_orchestrator::plan::{Plan, parse};
use p2ps_orchestrator::schedule::{
    DRAIN_US, Hosts, JsonlError, LINE_BYTES_MAX, SETTLING_US, Schedule, VIA_MAX, read_jsonl, write_jsonl,
};

const CHURN: &str = "\
name: churn
nodes: 40
join: {rate: 10/s}
workload:
  - lookup: {rate: 40/s}
  - lookup: {rate: 5/s}
timeline:
  - {at: 2s, kill: 5}
  - {at: 3s, leave: 10%}
  - {at: 3s, restart: 2}
  - {at: 6s, join: 50%}
  - {at: 6s, kill: 30%}
  - {at: 6s, restart: 100%}
  - {at: 9s, join: 7}
  - {at: 12s, kill: 90%}
  - {at: 12s, restart: 1%}
  - {at: 20s, restart: 100%}
duration: 30s
";

fn schedule(plan: &Plan, hosts: impl Into<Hosts>) -> Schedule {
    p2ps_orchestrator::schedule::schedule(plan, hosts).unwrap_or_else(|error| panic!("{error}"))
}

fn plan(seed: u64, overrides: &[&str]) -> Plan {
    let mut all = vec![format!("seed={seed}")];
    all.extend(overrides.iter().map(|text| (*text).to_owned()));
    parse("churn.yaml", CHURN, &all).unwrap_or_else(|error| panic!("{error}"))
}

fn jsonl(schedule: &Schedule) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_jsonl(&schedule.actions, &mut bytes).unwrap();
    bytes
}

/// Who is started and ended when.
fn membership(schedule: &Schedule) -> Vec<(u64, NodeIndex, ActionKind)> {
    let actions = schedule.actions.iter().filter(|action| !is_lookup(action));
    actions.map(|action| (action.at_us, action.node, action.kind.clone())).collect()
}

fn is_lookup(action: &Action) -> bool {
    matches!(action.kind, ActionKind::Lookup { .. })
}

#[test]
fn the_same_seed_is_the_same_schedule_to_the_byte() {
    let (one, two) = (schedule(&plan(7, &[]), 3), schedule(&plan(7, &[]), 3));
    assert_eq!(one, two);
    assert_eq!(jsonl(&one), jsonl(&two));
    assert_ne!(jsonl(&one), jsonl(&schedule(&plan(8, &[]), 3)));
}

/// A new version of a dependency, or a change here, must not change what old plans do without anybody's notice.
#[test]
fn a_schedule_is_the_same_in_every_version() {
    let schedule = schedule(&plan(7, &["workload=[{lookup: {rate: 1/s}}]"]), 2);
    let ids: Vec<String> = schedule.nodes.iter().take(5).map(|node| format!("{:?}", node.slot)).collect();
    let text = format!("{}\n\n{}", ids.join("\n"), String::from_utf8(jsonl(&schedule)).unwrap());
    insta::assert_snapshot!("churn_with_seed_7", text);
}

#[test]
fn neither_workload_nor_hosts_change_who_is_killed() {
    let base = schedule(&plan(7, &[]), 1);
    let other = schedule(&plan(7, &["workload.0.lookup.rate=3/s"]), 1);
    assert_eq!(membership(&base), membership(&other));
    assert_eq!(base.nodes, other.nodes);
    let spread = schedule(&plan(7, &[]), 5);
    assert_eq!(base.actions, spread.actions);
    assert!(spread.nodes.iter().all(|node| node.host == node.slot.node % 5));
    assert!(base.nodes.iter().all(|node| node.host == 0));
}

#[test]
fn a_second_workload_leaves_the_first_as_it_is() {
    let of = |overrides: &[&str]| -> BTreeSet<(u64, NodeIndex)> {
        let actions = schedule(&plan(7, overrides), 1).actions;
        actions.iter().filter(|action| is_lookup(action)).map(|action| (action.at_us, action.node)).collect()
    };
    assert!(of(&["workload=[{lookup: {rate: 40/s}}]"]).is_subset(&of(&[])));
}

#[test]
fn whatever_the_seed_every_action_is_possible() {
    for seed in 0..100 {
        for overrides in [&[][..], &["join=at_once"], &["network.max_size=67"]] {
            let plan = plan(seed, overrides);
            check(&plan, &schedule(&plan, 3));
        }
    }
}

/// Everything that can happen to nodes, all at once.
const FAULTS: &str = "\
name: faults
nodes: 40
join: {rate: 20/s}
workload:
  - lookup: {rate: 20/s}
timeline:
  - {at: 4s, partition: [50%, 30%, 20%], heal_after: 10s}
  - {from: 5s, to: 45s, churn: {sessions: {weibull: {shape: 0.5, mean: 12s}}, downtime: {exponential: {mean: 8s}}}}
  - {at: 6s, degrade: {nodes: 50%, latency: 100ms, jitter: 20ms, distribution: pareto, loss: 1%}, for: 20s}
  - {at: 7s, pause: 30%, for: 9s}
  - {at: 8s, pause: 30%}
  - {at: 9s, partition: [60%, 40%], one_way: true}
  - {at: 10s, kill: 10%}
  - {at: 10s, restart: 50%}
  - {at: 12s, degrade: {bandwidth: 1MB/s}}
  - {at: 20s, heal: all}
  - {at: 22s, join: 5}
  - {at: 30s, partition: [50%, 50%]}
  - {from: 50s, to: 70s, churn: {rate: 50%/min, end: leave}}
  - {at: 60s, leave: 2}
  - {from: 70s, to: 80s, churn: {sessions: {fixed: 3s}}}
duration: 90s
";

#[test]
fn whatever_the_seed_and_the_faults_every_action_is_possible() {
    for seed in 0..60 {
        let plan =
            parse("faults.yaml", FAULTS, &[format!("seed={seed}")]).unwrap_or_else(|error| panic!("{error}"));
        let schedule = schedule(&plan, 3);
        check_actions(&plan, &schedule);
        assert!(schedule.phases.is_sorted_by_key(|phase| phase.at_us));
        let count =
            |is: fn(&ActionKind) -> bool| schedule.actions.iter().filter(|action| is(&action.kind)).count();
        assert!(count(|kind| *kind == ActionKind::Kill) > 50, "seed {seed}");
        assert!(count(|kind| *kind == ActionKind::Leave) > 3, "seed {seed}");
        assert!(count(|kind| *kind == ActionKind::Pause) > 10, "seed {seed}");
        assert!(schedule == self::schedule(&plan, 3), "seed {seed}");
    }
}

#[test]
fn a_schedule_with_faults_is_the_same_in_every_version() {
    let overrides =
        ["seed=7".to_owned(), "nodes=6".to_owned(), "workload=[]".to_owned(), "duration=81s".to_owned()];
    let schedule = schedule(&parse("faults.yaml", FAULTS, &overrides).unwrap(), 1);
    let phases: Vec<String> =
        schedule.phases.iter().map(|phase| format!("{} {}", phase.at_us, phase.text)).collect();
    let actions = String::from_utf8(jsonl(&schedule)).unwrap();
    insta::assert_snapshot!(
        "faults_with_seed_7",
        format!("{}\n{:?}\n{actions}", phases.join("\n"), schedule.groups)
    );
}

/// Whom steps may speak of, all of it.
const TARGETS: &str = "\
name: targets
nodes: 48
join: {rate: 40/s}
virtual_hosts: 8
groups: {edge: 25%, core: 6, west: {hosts: [host2]}, racks: {hosts: 2}}
workload:
  - lookup: {rate: 10/s}
timeline:
  - {at: 5s, partition: [edge, core, west], heal_after: 10s}
  - {at: 6s, degrade: {between: [edge, rest], latency: 50ms, jitter: 5ms}, one_way: true, for: 20s}
  - {at: 7s, degrade: {between: [racks, racks], bandwidth: 1MB/s}, for: 20s}
  - {at: 7s, degrade: {nodes: {group: west}, loss: 1%}, for: 20s}
  - {at: 8s, kill: {group: edge, nodes: 50%}}
  - {at: 8s, kill: {hosts: 1}}
  - {at: 9s, leave: {heaviest: 2}}
  - {at: 9s, pause: {successor_of: 12345}, for: 3s}
  - {at: 9s, join: 6}
  - {at: 12s, restart: {group: edge}}
  - {at: 13s, restart: 100%}
  - {at: 30s, partition: [{hosts: 3}, {hosts: [host2, host5]}], one_way: true, heal_after: 10s}
  - {at: 31s, kill: {hosts: [host5]}}
  - {at: 41s, restart: {hosts: [host5]}}
duration: 60s
";

fn targets(overrides: &[&str]) -> Plan {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    parse("targets.yaml", TARGETS, &overrides).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn whatever_the_seed_targets_are_there_and_the_schedule_is_the_same_again() {
    for seed in 0..60 {
        let plan = targets(&[&format!("seed={seed}")]);
        let schedule = schedule(&plan, 1);
        check_actions(&plan, &schedule);
        assert_eq!(jsonl(&schedule), jsonl(&self::schedule(&plan, 1)), "seed {seed}");
        let spread = self::schedule(&targets(&[&format!("seed={seed}"), "virtual_hosts=1"]), 8);
        assert_eq!(schedule.actions, spread.actions, "seed {seed}: virtual hosts are hosts");
    }
}

/// The nodes of the phase that begins with `text`.
fn phase(schedule: &Schedule, text: &str) -> Vec<NodeIndex> {
    let phase = schedule.phases.iter().find(|phase| phase.text.starts_with(text));
    phase.unwrap_or_else(|| panic!("{text}: {:?}", schedule.phases)).nodes.clone()
}

#[test]
fn hosts_fail_whole_and_come_back() {
    for seed in 0..20 {
        let schedule = schedule(&targets(&[&format!("seed={seed}")]), 1);
        let killed = phase(&schedule, "kill {hosts: 1}");
        let hosts: BTreeSet<u32> = killed.iter().map(|node| node % 8).collect();
        assert_eq!(hosts.len(), 1, "seed {seed}");
        // Six nodes of each, but for those of the edge that have been killed at the same moment, and before.
        let edge = phase(&schedule, "kill {group: edge");
        let dead = edge.iter().filter(|node| hosts.contains(&(*node % 8))).count();
        assert_eq!(killed.len() + dead, 6, "seed {seed}");
        assert_eq!(edge.len(), 6, "half of a quarter of 48");
        let (down, up) =
            (phase(&schedule, "kill {hosts: [host5]}"), phase(&schedule, "restart {hosts: [host5]}"));
        assert!(
            down == up && down.len() > 3 && down.iter().all(|node| node % 8 == 4),
            "seed {seed}: {down:?}"
        );
    }
}

/// Who may send to whom at `at_us`: the shape of what `from` sends to `to`.
fn link(schedule: &Schedule, at_us: u64, from: NodeIndex, to: NodeIndex) -> LinkShape {
    let mut shape = LinkShape::default();
    for action in schedule.actions.iter().filter(|action| action.node == from && action.at_us <= at_us) {
        if let ActionKind::Shape { rules } = &action.kind {
            let rule = rules.iter().rfind(|rule| schedule.groups[rule.to as usize].contains(&to));
            shape = rule.map_or_else(LinkShape::default, |rule| rule.shape);
        }
    }
    shape
}

#[test]
fn groups_that_are_parted_reach_all_others_and_one_way_is_one_way() {
    for seed in 0..20 {
        let schedule = schedule(&targets(&[&format!("seed={seed}")]), 1);
        let edge = phase(&schedule, "kill {group: edge");
        let (cut_us, one_way_us, healed_us) = (5_500_000, 35_000_000, 45_000_000);
        let west: Vec<NodeIndex> = (0..48).filter(|node| node % 8 == 1).collect();
        let cut = |from, to| link(&schedule, cut_us, from, to).cut;
        for (from, to) in edge.iter().flat_map(|from| west.iter().map(move |to| (*from, *to))) {
            assert_eq!(
                (cut(from, to), cut(to, from)),
                (Cut::Both, Cut::Both),
                "seed {seed}: {from} and {to}"
            );
        }
        let reached = |from: NodeIndex| (0..48).filter(|to| cut(from, *to) == Cut::None).count();
        assert_eq!(reached(edge[0]), 48 - 12, "seed {seed}: all but core and west");
        let free = (0..48).filter(|node| reached(*node) == 48).count();
        assert_eq!(free, 48 - 12 - 6 - 6, "seed {seed}");
        // Of the second partition the second side is known.
        let of_host5: Vec<NodeIndex> = (0..48).filter(|node| node % 8 == 4).collect();
        for to in 0..48 {
            let (there, back) = (
                link(&schedule, one_way_us, of_host5[0], to).cut,
                link(&schedule, one_way_us, to, of_host5[0]).cut,
            );
            assert!(
                matches!((there, back), (Cut::None, Cut::None) | (Cut::In, Cut::Out)),
                "{there:?} {back:?}"
            );
            assert_eq!(link(&schedule, healed_us, of_host5[0], to), LinkShape::default());
        }
    }
}

#[test]
fn degraded_pairs_are_degraded_as_they_say() {
    let schedule = schedule(&targets(&["seed=3"]), 1);
    let edge: BTreeSet<NodeIndex> = phase(&schedule, "degrade {between: [edge, rest]").into_iter().collect();
    assert_eq!(edge.len(), 48, "its phase names both ends");
    let (at_us, killed) = (7_500_000, phase(&schedule, "kill {group: edge"));
    let slow = |from, to| link(&schedule, at_us, from, to).latency_us == 50_000;
    let inside: Vec<NodeIndex> = (0..48).filter(|to| !slow(killed[0], *to)).collect();
    assert_eq!(
        inside.len(),
        12,
        "what the edge sends the rest is slow, not what it sends itself: {inside:?}"
    );
    assert!(killed.iter().all(|node| inside.contains(node)));
    assert!((0..48).all(|from| !slow(from, killed[0])), "nor what others send it");
    let narrow = |from, to| link(&schedule, at_us, from, to).bytes_per_second > 0;
    let pairs: Vec<(NodeIndex, NodeIndex)> = (0..48)
        .flat_map(|from| (0..48).map(move |to| (from, to)))
        .filter(|(from, to)| narrow(*from, *to))
        .collect();
    assert_eq!(pairs.len(), 12 * 12, "inside two racks of six nodes each");
    assert!(pairs.iter().all(|(from, to)| narrow(*to, *from)));
    assert_eq!(link(&schedule, at_us, 1, 0).loss_ppm, 10_000, "what the west sends to anybody");
}

/// A node that is killed in a partition and comes back after it has healed reaches everybody: its agent keeps the rules of a node
/// that is down, and was not told.
#[test]
fn who_is_down_when_a_fault_heals_comes_back_healed() {
    let text = "name: x\nnodes: 8\njoin: at_once\ntimeline:\n  - {at: 5s, partition: [50%, 50%], heal_after: 5s}\n  \
        - {at: 6s, kill: 4}\n  - {at: 12s, restart: 100%}\n";
    for seed in 0..10 {
        let plan = parse("x.yaml", text, &[format!("seed={seed}")]).unwrap_or_else(|error| panic!("{error}"));
        let schedule = schedule(&plan, 1);
        let mut standing: BTreeSet<NodeIndex> = BTreeSet::new();
        for action in &schedule.actions {
            match &action.kind {
                ActionKind::Shape { rules } if rules.is_empty() => drop(standing.remove(&action.node)),
                ActionKind::Shape { .. } => drop(standing.insert(action.node)),
                ActionKind::Spawn { .. } if action.at_us > 0 => {
                    assert!(!standing.contains(&action.node), "seed {seed}: {action:?}");
                }
                _ => {}
            }
        }
    }
}

/// Kernels do not tell the nodes of a host apart: also those that join later are slow.
#[test]
fn kernels_degrade_all_nodes_of_a_host_and_nodes_only_those_that_are_up() {
    let told = |with: &str| {
        let text = format!(
            "name: x\nnodes: 4\njoin: at_once\nfaults: {{with: {with}}}\ntimeline:\n  - {{at: 5s, degrade: {{latency: 5ms}}}}\n  \
             - {{at: 6s, join: 4}}\n"
        );
        let plan = parse("x.yaml", &text, &[]).unwrap_or_else(|error| panic!("{error}"));
        let schedule = p2ps_orchestrator::schedule::schedule(&plan, 2).unwrap();
        let shaped = schedule.actions.iter().filter(|action| matches!(action.kind, ActionKind::Shape { .. }));
        shaped.map(|action| action.node).collect::<std::collections::BTreeSet<u32>>().len()
    };
    assert_eq!((told("node"), told("kernel")), (4, 8));
}

#[test]
fn what_the_hosts_cannot_give_is_told_before_anything_is_started() {
    let error = |step: &str, more: &str, hosts: u32| {
        let text = format!("name: x\nnodes: 12\njoin: at_once\n{more}timeline:\n  - {{at: 5s, {step}}}\n");
        let plan = parse("x.yaml", &text, &[]).unwrap_or_else(|error| panic!("{error}"));
        p2ps_orchestrator::schedule::schedule(&plan, hosts).unwrap_err().to_string()
    };
    let said = [
        error("kill: {hosts: 1}", "", 1),
        error("kill: {hosts: 5}", "", 4),
        error("kill: {hosts: [paris]}", "", 4),
        error("partition: [{hosts: 3}, {hosts: 3}]", "", 4),
        error("partition: [all, {hosts: 1}]", "groups: {all: 100%}\n", 4),
        error("partition: [{hosts: 50%}, rest]", "virtual_hosts: 4\nfaults: {with: kernel}\n", 1),
        error(
            "degrade: {nodes: {hosts: 50%}, latency: 5ms}",
            "virtual_hosts: 4\nfaults: {with: kernel}\n",
            1,
        ),
        error("kill: 1", "groups: {a: 60%, b: {hosts: 50%}}\n", 4),
    ];
    insta::assert_snapshot!("what_the_hosts_cannot_give", said.join("\n"));
}

fn check(plan: &Plan, schedule: &Schedule) {
    check_actions(plan, schedule);
    check_phases(schedule);
}

fn check_actions(plan: &Plan, schedule: &Schedule) {
    let seed = plan.seed;
    let ids: BTreeSet<_> = schedule.nodes.iter().map(|node| node.slot.id).collect();
    assert_eq!(ids.len(), schedule.nodes.len(), "seed {seed}: ids are distinct");
    assert!(ids.iter().all(|id| plan.net.ring().contains(*id)), "seed {seed}");
    assert!(schedule.actions.is_sorted_by_key(|action| action.at_us), "seed {seed}");
    assert!(schedule.actions.iter().zip(0..).all(|(action, number)| action.index == number), "seed {seed}");
    assert!(schedule.actions.iter().all(|action| action.at_us <= schedule.end_us), "seed {seed}");

    let mut up_since: BTreeMap<NodeIndex, u64> = BTreeMap::new();
    let (mut paused, mut shaped): (BTreeSet<NodeIndex>, BTreeSet<NodeIndex>) = Default::default();
    let mut ever = BTreeSet::new();
    let mut operations = 0;
    for action in &schedule.actions {
        let Action { at_us, node, kind, .. } = action;
        match kind {
            ActionKind::Spawn { via } => {
                assert!(!up_since.contains_key(node), "seed {seed}: {action:?} is up already");
                check_vias(seed, action, via, &up_since, ever.is_empty());
                up_since.insert(*node, *at_us);
                ever.insert(*node);
            }
            ActionKind::Kill | ActionKind::Leave => {
                assert!(up_since.remove(node).is_some(), "seed {seed}: {action:?} is down already");
                assert!(!up_since.is_empty(), "seed {seed}: nobody is left");
                let was_paused = paused.remove(node);
                assert!(!was_paused || *kind == ActionKind::Kill, "seed {seed}: {action:?} is stopped");
            }
            ActionKind::Pause => {
                assert!(up_since.contains_key(node), "seed {seed}: {action:?} is down");
                assert!(paused.insert(*node), "seed {seed}: {action:?} is stopped already");
            }
            ActionKind::Resume => {
                assert!(paused.remove(node), "seed {seed}: {action:?} is not stopped");
            }
            ActionKind::Shape { rules } => {
                // One that is down is told what changes while it is, so that it comes back as it should be.
                let is_told = up_since.contains_key(node) || shaped.contains(node);
                assert!(is_told, "seed {seed}: {action:?} is down");
                assert!(
                    !rules.is_empty() || shaped.contains(node),
                    "seed {seed}: {action:?} is healed already"
                );
                shaped.remove(node);
                shaped.extend((!rules.is_empty()).then_some(*node));
                check_rules(seed, schedule, rules);
            }
            ActionKind::Errand { .. } => {}
            ActionKind::Lookup { operation, key } => {
                let since = up_since.get(node).copied();
                assert!(
                    since.is_some_and(|since| since + SETTLING_US <= *at_us),
                    "seed {seed}: {action:?} {since:?}"
                );
                assert!(!paused.contains(node), "seed {seed}: {action:?} of one that is stopped");
                assert!(plan.net.ring().contains(*key) && at_us + DRAIN_US <= schedule.end_us, "seed {seed}");
                assert_eq!(*operation, operations, "seed {seed}");
                operations += 1;
            }
        }
    }
    assert!(paused.is_empty() && shaped.is_empty(), "seed {seed}: at the end everything is healed");
    assert_eq!(operations, schedule.operations);
    assert_eq!(ever.len(), schedule.nodes.len(), "seed {seed}: every node runs at some time");
}

fn check_vias(
    seed: u64,
    action: &Action,
    via: &[NodeIndex],
    up_since: &BTreeMap<NodeIndex, u64>,
    is_first: bool,
) {
    assert_eq!(via.is_empty(), is_first, "seed {seed}: only the first node founds the network");
    assert!(via.len() <= VIA_MAX, "seed {seed}");
    assert!(via.iter().all(|via| up_since.contains_key(via)), "seed {seed}: {action:?} joins by the dead");
    assert_eq!(BTreeSet::from_iter(via).len(), via.len(), "seed {seed}: {action:?}");
    let oldest = up_since.values().min().copied();
    assert!(via.is_empty() || via.iter().any(|via| up_since.get(via).copied() == oldest), "seed {seed}");
}

/// Each group has one rule, and no node is in two groups of one moment.
fn check_rules(seed: u64, schedule: &Schedule, rules: &[ShapeRule]) {
    let mut nodes = BTreeSet::new();
    for rule in rules {
        let group = &schedule.groups[rule.to as usize];
        assert!(group.iter().all(|node| nodes.insert(*node)), "seed {seed}: groups of one moment overlap");
    }
}

/// What the phases say is what the actions do.
fn check_phases(schedule: &Schedule) {
    assert!(schedule.phases.is_sorted_by_key(|phase| phase.at_us));
    let mut said: Vec<(u64, NodeIndex)> = Vec::new();
    for phase in &schedule.phases[1..] {
        said.extend(phase.nodes.iter().map(|node| (phase.at_us, *node)));
    }
    let first = schedule.phases[0].nodes.len();
    let mut started = BTreeSet::new();
    let mut done: Vec<(u64, NodeIndex)> = Vec::new();
    for action in schedule.actions.iter().filter(|action| !is_lookup(action)) {
        // The first start of the first nodes is the first phase.
        if started.insert(action.node) && (action.node as usize) < first {
            continue;
        }
        done.push((action.at_us, action.node));
    }
    said.sort_unstable();
    done.sort_unstable();
    assert_eq!(said, done);
}

#[test]
fn lookups_come_at_their_rate_all_along() {
    let schedule = schedule(&plan(7, &["timeline=[]", "duration=100s", "join.rate=100/s"]), 1);
    let times: Vec<u64> =
        schedule.actions.iter().filter(|action| is_lookup(action)).map(|action| action.at_us).collect();
    assert!(times[0] < SETTLING_US + 500_000, "they begin when the first node has settled: {}", times[0]);
    for second in 10..90u64 {
        let count = times.iter().filter(|time| **time / 1_000_000 == second).count();
        // 45 a second with a standard deviation of 6.7.
        assert!((10..90).contains(&count), "{count} in second {second}");
    }
    let expected = 45.0 * 97.0;
    assert!((times.len() as f64 - expected).abs() < 5.0 * expected.sqrt(), "{}", times.len());
}

#[test]
fn every_node_is_asked_and_killed_as_often_as_any_other() {
    let (mut asked, mut killed) = (vec![0u32; 40], vec![0u32; 40]);
    for seed in 0..400 {
        let plan = plan(seed, &["timeline=[{at: 10s, kill: 25%}]", "duration=12s", "join=at_once"]);
        for action in schedule(&plan, 1).actions {
            match action.kind {
                ActionKind::Lookup { .. } => asked[action.node as usize] += 1,
                ActionKind::Kill => killed[action.node as usize] += 1,
                _ => {}
            }
        }
    }
    // Each is killed in a quarter of 400 runs, with a standard deviation of 8.7.
    assert!(killed.iter().all(|times| (50..150).contains(times)), "{killed:?}");
    let mean = asked.iter().sum::<u32>() / 40;
    assert!(asked.iter().all(|times| (mean * 8 / 10..mean * 12 / 10).contains(times)), "{asked:?}");
}

#[test]
fn jsonl_reads_back() {
    let schedule = schedule(&plan(7, &[]), 2);
    assert_eq!(read_jsonl(jsonl(&schedule).as_slice()).unwrap(), schedule.actions);
}

#[test]
fn broken_jsonl_is_refused_with_its_line() {
    let mut bytes = jsonl(&schedule(&plan(7, &[]), 2));
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    bytes.truncate(bytes.len() - 5);
    assert!(matches!(read_jsonl(bytes.as_slice()), Err(JsonlError::Line { line, .. }) if line == lines));
    let long = vec![b' '; LINE_BYTES_MAX + 1];
    assert!(matches!(read_jsonl(long.as_slice()), Err(JsonlError::Long { line: 1 })));
}

#[test]
fn large_runs_are_drawn_whole() {
    let plan =
        plan(7, &["nodes=90000", "join=at_once", "timeline=[{at: 5s, kill: 50%}, {at: 6s, restart: 50%}]"]);
    let schedule = schedule(&plan, 10);
    assert_eq!(schedule.nodes.len(), 90_000);
    assert_eq!(membership(&schedule).len(), 90_000 + 45_000 + 22_500);
}

/// How many nodes are up at each of `moments_us`.
fn up_at(schedule: &Schedule, moments_us: &[u64]) -> Vec<f64> {
    let mut up = 0.0;
    let mut actions = schedule.actions.iter().peekable();
    let counts = moments_us.iter().map(|moment_us| {
        while let Some(action) = actions.next_if(|action| action.at_us <= *moment_us) {
            up += match action.kind {
                ActionKind::Spawn { .. } => 1.0,
                ActionKind::Kill | ActionKind::Leave => -1.0,
                _ => 0.0,
            };
        }
        up
    });
    counts.collect()
}

/// The churn begins as it goes on: in each third of it as many nodes are up as before it, in the mean of many runs. A start
/// without the residual lifetimes fails this by far.
#[test]
fn churn_starts_in_equilibrium() {
    for churn in [
        "{sessions: {weibull: {shape: 0.62, mean: 10m}}, downtime: {exponential: {mean: 2m}}}",
        "{sessions: {weibull: {shape: 0.4, mean: 5m}}, downtime: {weibull: {shape: 0.5, mean: 10m}}}",
        "{sessions: {pareto: {shape: 2.5, mean: 5m}}, downtime: {log_normal: {sigma: 1.2, mean: 5m}}, end: leave}",
        "{sessions: {fixed: 5m}, downtime: {fixed: 3m}}",
        "{preset: kad, speed_up: 30}",
        "{preset: {rhea-2004: {median: 2m}}}",
        "{rate: 10%/min}",
    ] {
        let (seeds, nodes, from, until) = (30u64, 200.0, 60u64, 1860u64);
        let text = format!(
            "name: x\nnodes: 200\njoin: at_once\ntimeline:\n  - {{from: {from}s, to: {until}s, churn: {churn}}}\n"
        );
        let moments: Vec<u64> = (from..until).step_by(10).map(|second| second * 1_000_000).collect();
        let mut thirds = [0.0; 3];
        let mut ends = 0.0;
        for seed in 0..seeds {
            let plan =
                parse("x.yaml", &text, &[format!("seed={seed}")]).unwrap_or_else(|error| panic!("{error}"));
            let schedule = schedule(&plan, 1);
            for (third, counts) in thirds.iter_mut().zip(up_at(&schedule, &moments).chunks(moments.len() / 3))
            {
                *third += counts.iter().sum::<f64>() / counts.len() as f64 / seeds as f64;
            }
            let is_end = |action: &&Action| matches!(action.kind, ActionKind::Kill | ActionKind::Leave);
            ends += schedule.actions.iter().filter(is_end).count() as f64 / seeds as f64;
        }
        // In a third of one run the mean's standard deviation is below 8 nodes, so here below 1.5.
        assert!(thirds.iter().all(|mean| (mean - nodes).abs() < 6.0), "{churn}: {thirds:?}");
        assert!(ends > 100.0, "{churn}: {ends}");
    }
}

/// With the mean session and the pool, the number of sessions that end is known too (the elementary renewal theorem, which holds
/// for all times in equilibrium).
#[test]
fn as_many_sessions_end_as_their_mean_says() {
    for (sessions, minutes) in [("weibull: {shape: 0.5, mean: 4m}", 4.0), ("fixed: 7m", 7.0)] {
        let text = format!(
            "name: x\nnodes: 300\njoin: at_once\ntimeline:\n  - {{from: 1m, to: 31m, churn: {{sessions: {{{sessions}}}}}}}\n"
        );
        let kills = (0..10).map(|seed| {
            let plan =
                parse("x.yaml", &text, &[format!("seed={seed}")]).unwrap_or_else(|error| panic!("{error}"));
            let actions = schedule(&plan, 1).actions;
            actions.iter().filter(|action| action.kind == ActionKind::Kill).count() as f64 / 10.0
        });
        let (kills, expected) = (kills.sum::<f64>(), 300.0 * 30.0 / minutes);
        assert!((kills / expected - 1.0).abs() < 0.05, "{sessions}: {kills} of {expected}");
    }
}

fn of_trace(file: &str, format: &str, more: &str, overrides: &[&str]) -> Schedule {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/traces");
    let file = directory.join(file);
    let text = format!(
        "name: x\nnodes: 20\njoin: at_once\ntimeline:\n  - {{from: 5s, trace: {{file: {:?}, format: {format}{more}}}}}\n",
        file.display()
    );
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let plan = parse("x.yaml", &text, &overrides).unwrap_or_else(|error| panic!("{error}"));
    let schedule = schedule(&plan, 1);
    check_actions(&plan, &schedule);
    schedule
}

#[test]
fn one_trace_in_four_formats_is_one_schedule() {
    // With 40 nodes of the plan all of its nodes are played.
    let of = |format: &str| {
        let more = ", speed_up: 60, window: {to: 1h}";
        membership(&of_trace(&format!("sample.{format}"), format, more, &["nodes=40"]))
    };
    let (csv, splay, oversim, avt) = (of("csv"), of("splay"), of("oversim"), of("avt"));
    assert!(csv.len() > 100, "{}", csv.len());
    assert_eq!(csv, splay);
    // OverSim's names the nodes in another order, so others play them: what happens when is the same.
    let kinds = |actions: &[(u64, NodeIndex, ActionKind)]| {
        let kind = |kind: &ActionKind| matches!(kind, ActionKind::Spawn { .. });
        let mut kinds: Vec<(u64, bool)> =
            actions.iter().map(|(at_us, _, what)| (*at_us, kind(what))).collect();
        kinds.sort_unstable();
        kinds
    };
    assert_eq!(kinds(&csv), kinds(&oversim));
    // An avt file closes the sessions that are open at its end: who is up at a window's end stays.
    assert_eq!(csv, avt);
}

#[test]
fn a_trace_is_played_as_it_was_measured() {
    // All of it: as many are up as in the file, which has one node a line.
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/traces/sample.splay");
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<Vec<u64>> = (text.lines().filter(|line| !line.starts_with('#')))
        .map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect())
        .collect();
    let begins =
        |second: u64| lines.iter().filter(|times| times.partition_point(|at| *at <= second) % 2 == 1).count();
    let up = begins(0);
    let schedule = of_trace("sample.splay", "splay", ", speed_up: 10", &[&format!("nodes={up}")]);
    assert_eq!(schedule.nodes.len(), lines.len());
    let seconds: Vec<u64> = (0..3590).step_by(7).collect();
    let moments: Vec<u64> = seconds.iter().map(|second| 5_000_000 + second * 100_000 + 1).collect();
    let expected: Vec<f64> = seconds.iter().map(|second| begins(*second) as f64).collect();
    assert_eq!(up_at(&schedule, &moments), expected);
    let half = of_trace("sample.splay", "splay", ", speed_up: 10", &[&format!("nodes={}", up / 2)]);
    assert!(half.nodes.len().abs_diff(lines.len() / 2) <= 2, "a share of the trace: {}", half.nodes.len());
}

const WORKLOADS: &str = "\
name: workloads
nodes: 30
join: {rate: 30/s}
workload:
  - dictionary: {rate: 50/s, reads: 75%, population: 40, keys: {zipf: {exponent: 1}}, from: 5s, to: 25s}
  - dictionary: {rate: 50/s, reads: 0%, population: 40, from: 5s, to: 25s}
  - send: {rate: {from: 10/s, to: 90/s, over: 20s}, from: 5s, to: 25s}
  - send_reliable: {rate: 20/s, pairs: 3}
  - broadcast: {rate: 2/s}
  - multicast: {rate: 5/s, receivers: 7}
timeline:
  - {at: 15s, kill: 5}
duration: 40s
";

#[test]
fn workloads_are_drawn_as_the_plan_says() {
    let plan = parse("workloads.yaml", WORKLOADS, &[]).unwrap_or_else(|error| panic!("{error}"));
    let schedule = schedule(&plan, 3);
    assert_eq!(schedule, self::schedule(&plan, 3), "the same seed is the same schedule");
    let ids: BTreeSet<Id> = schedule.nodes.iter().map(|node| node.slot.id).collect();
    let (mut keys, mut pairs, mut counts) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    let mut sends: Vec<u64> = Vec::new();
    for Action { at_us, node, kind, .. } in &schedule.actions {
        let ActionKind::Errand { what, .. } = kind else { continue };
        let me = schedule.nodes[*node as usize].slot.id;
        let name = match what {
            Errand::Put { key, bytes } => {
                assert_eq!(*bytes, 100);
                keys.insert(*key);
                "put"
            }
            Errand::Get { key } => {
                keys.insert(*key);
                "get"
            }
            Errand::Send { to, .. } => {
                assert!(*to != me && ids.contains(to));
                assert!((5_000_000..25_000_000).contains(at_us));
                sends.push(*at_us);
                "send"
            }
            Errand::SendReliable { to, .. } => {
                pairs.insert((me, *to));
                "send_reliable"
            }
            Errand::Broadcast { .. } => "broadcast",
            Errand::Multicast { to, .. } => {
                let distinct: BTreeSet<&Id> = to.iter().collect();
                assert!(distinct.len() == to.len() && to.len() <= 7 && !to.contains(&me));
                assert!(*at_us < 5_000_000 || to.len() == 7, "{} at {at_us}", to.len());
                "multicast"
            }
        };
        *counts.entry(name).or_insert(0u32) += 1;
    }
    assert!((35..=40).contains(&keys.len()), "both are about the same {} keys", keys.len());
    assert_eq!(pairs.len(), 3);
    for (name, wanted) in [("put", 1250), ("get", 750), ("send", 1000), ("broadcast", 74), ("multicast", 185)]
    {
        let count = counts[name];
        assert!(count.abs_diff(wanted) < wanted / 5, "{name}: {count}, not about {wanted}");
    }
    // A quarter of what lies under the ramp is in its first half, and a little more: 10 to 50 a second, then 50 to 90.
    let early = sends.iter().filter(|at_us| **at_us < 15_000_000).count();
    assert!((240..360).contains(&early), "{early} of {}", sends.len());
    let numbers: Vec<u64> = schedule.actions.iter().filter_map(|action| action.kind.operation()).collect();
    assert!(numbers.iter().copied().eq(0..schedule.operations), "numbered in the order of their times");
    assert_eq!(read_jsonl(&jsonl(&schedule)[..]).unwrap(), schedule.actions);
}
