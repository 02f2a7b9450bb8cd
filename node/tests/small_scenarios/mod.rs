//! Scenarios that are small enough to be explored in every run of the tests.
#![allow(dead_code, unreachable_pub)]

use p2ps::explore::{Bounds, Question, Scenario};

/// Where a search ends.
const STATES_MAX: usize = 4_000;

pub fn all() -> Vec<Scenario> {
    let one_crashes = Bounds { crashes: 1, ..Bounds::default() };
    let one_leaves = Bounds { leaves: 1, rounds: 1, ..Bounds::default() };
    vec![
        Scenario { joiners: vec![(2, 0)], ..Scenario::new("one joins one", 4, &[0], 2) },
        Scenario { bounds: one_leaves, ..Scenario::new("one of two leaves", 4, &[0, 2], 2) },
        Scenario {
            joiners: vec![(1, 0)],
            bounds: Bounds { leaves: 1, ..Bounds::default() },
            states_max: STATES_MAX,
            ..Scenario::new("one joins three while one leaves", 8, &[0, 3, 6], 2)
        },
        Scenario {
            bounds: Bounds { losses: 1, ..one_leaves },
            states_max: STATES_MAX,
            ..Scenario::new("one of three leaves, one message is lost", 3, &[0, 1, 2], 2)
        },
        Scenario { bounds: one_crashes, ..Scenario::new("one of three crashes", 3, &[0, 1, 2], 2) },
        Scenario {
            joiners: vec![(1, 0)],
            questions: vec![Question::Write { by: 0, key: 1 }, Question::Read { by: 1, key: 1 }],
            states_max: STATES_MAX,
            ..Scenario::new("a key is written and read while one joins", 4, &[0, 2], 2)
        },
    ]
}
