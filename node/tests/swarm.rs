//! The swarm runner itself: a seed is the same run to the byte, beside others too; it covers what it says; and a network that is broken
//! on purpose is found. `make swarm` runs many seeds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use p2ps::swarm::{Outcome, Scenario, Start, Telling, run};

/// Seeds of networks that a build without optimisation gets through in some seconds.
fn small_scenarios(count: usize) -> Vec<Scenario> {
    let small = |seed| Scenario { episodes: 1, rest_us: 120_000_000, ..Scenario::draw(seed) };
    (0..).map(small).filter(|scenario| scenario.nodes <= 12).take(count).collect()
}

fn outcome(scenario: &Scenario) -> Outcome {
    run(scenario, |_| (), None)
}

#[test]
fn a_seed_is_the_same_run_to_the_byte_also_beside_others() {
    let scenarios = small_scenarios(4);
    let alone: Vec<Outcome> = scenarios.iter().map(outcome).collect();
    let beside: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = scenarios.iter().map(|scenario| scope.spawn(|| outcome(scenario))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, beside);
    for outcome in alone {
        assert_eq!(outcome.failure, None, "seed {}", outcome.seed);
        assert!(outcome.node_time > outcome.node_time_under_faults, "seed {}", outcome.seed);
        assert!(outcome.node_time_under_faults > Duration::ZERO && outcome.checks > 100);
    }
}

#[test]
fn whoever_listens_hears_all_and_changes_nothing() {
    let scenario = &small_scenarios(1)[0];
    let mut lines = Vec::new();
    let mut line = |at: Duration, text: &str| lines.push((at, text.to_owned()));
    let told = run(scenario, |_| (), Some(Telling { line: &mut line, every_message: true }));
    assert_eq!(told, outcome(scenario));
    assert!(lines.len() as u64 > told.operations + told.faults);
}

#[test]
fn a_network_that_loses_all_messages_while_it_comes_up_is_found() {
    let scenario = Scenario { start: Start::AtOnce, ..small_scenarios(1).remove(0) };
    let failure = run(&scenario, |simulator| simulator.lose(1_000_000), None).failure.unwrap();
    assert!(failure.to_string().contains("source: "), "{failure}");
}
