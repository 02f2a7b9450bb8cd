//! The explorer on small scenarios: the same states each time, and no violation in any. The large ones: `make explore`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod small_scenarios;

use p2ps::explore::{Bounds, Scenario, explore, replay};

#[test]
fn small_scenarios_have_so_many_states_and_no_violation() {
    let mut seen = Vec::new();
    for scenario in small_scenarios::all() {
        let exploration = explore(&scenario, |_| ());
        if let Some(finding) = exploration.findings.first() {
            let (told, _) = replay(&scenario, |_| (), &finding.steps);
            panic!("{}: {}\n{}", scenario.name, finding.violation, told.join("\n"));
        }
        seen.push((scenario.name, exploration.states, exploration.transitions));
    }
    let expected = [
        ("one joins one", 128, 205),
        ("one of two leaves", 50, 75),
        ("one joins three while one leaves", 4000, 9213),
        ("one of three leaves, one message is lost", 4002, 9216),
        ("one of three crashes", 5144, 11555),
        ("a key is written and read while one joins", 4000, 8888),
    ];
    assert_eq!(seen, expected, "states and transitions");
}

/// Naming all members as those that may crash tells them apart for the explorer, and changes nothing else.
#[test]
fn rotations_of_a_state_are_one_state_and_nothing_is_lost_by_it() {
    let reduced =
        small_scenarios::all().into_iter().find(|scenario| scenario.name == "one of three crashes").unwrap();
    assert_eq!(reduced.rotations(), [0, 1, 2]);
    let whole = Scenario { victims: vec![0, 1, 2], ..reduced.clone() };
    assert_eq!(whole.rotations(), [0]);
    let (reduced, whole) = (explore(&reduced, |_| ()), explore(&whole, |_| ()));
    assert!(reduced.is_complete && whole.is_complete);
    assert_eq!((reduced.depth, reduced.findings.len()), (whole.depth, whole.findings.len()));
    assert!(
        (2 * reduced.states..=3 * reduced.states).contains(&whole.states),
        "{} of {}",
        reduced.states,
        whole.states
    );
}

#[test]
fn a_way_that_was_found_can_be_taken_again() {
    let scenario = small_scenarios::all().remove(0);
    let steps = ["join:1", "deliver:0:1", "deliver:1:0"].map(|step| step.parse().unwrap());
    let (told, violation) = replay(&scenario, |_| (), &steps);
    assert_eq!(violation, None);
    let expected = [
        "join:1       2 starts and joins",
        "deliver:0:1  2 receives from 0: the link stands",
        "deliver:1:0  0 receives from 2: Join of 2 for key 2, hop 1",
    ];
    assert_eq!(told, expected);
}

/// Ways that the explorer has found to networks that never came to rest.
#[test]
fn ways_that_led_to_a_storm_lead_to_a_ring() {
    let one_joins_three = Scenario {
        joiners: vec![(1, 0)],
        bounds: Bounds { crashes: 1, rounds: 2, ..Bounds::default() },
        ..Scenario::new("one joins three while one crashes", 8, &[0, 3, 6], 2)
    };
    let one_joins_two = Scenario {
        joiners: vec![(1, 0)],
        bounds: Bounds { losses: 1, rounds: 2, ..Bounds::default() },
        ..Scenario::new("one joins two over lossy links", 4, &[0, 3], 2)
    };
    let ways = [
        (
            one_joins_three,
            "tick:0 deliver:0:1 deliver:1:0 tick:0 deliver:0:1 crash:1 deliver:1:0 deliver:1:2 deliver:2:0 \
             deliver:1:0 deliver:0:2 join:3 deliver:0:3",
        ),
        (
            one_joins_two,
            "join:2 deliver:0:2 deliver:2:0 deliver:0:1 deliver:1:2 deliver:2:1 deliver:2:1 lose:1:2 tick:2 tick:2 \
             deliver:0:2 deliver:2:0 deliver:0:1 deliver:1:0 deliver:0:1 deliver:1:0 deliver:1:2 deliver:2:1 \
             deliver:1:0 deliver:1:0 deliver:1:0 deliver:0:2 deliver:1:2 tick:1 deliver:1:0",
        ),
    ];
    for (scenario, way) in ways {
        let steps: Vec<_> = way.split_whitespace().map(|step| step.parse().unwrap()).collect();
        let (told, violation) = replay(&scenario, |_| (), &steps);
        assert_eq!(violation, None, "{}:\n{}", scenario.name, told.join("\n"));
    }
}
