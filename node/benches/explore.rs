//! Explores the scenarios of `p2ps::explore` and prints a table: `make explore`. With words, only those whose name has one of
//! them: `make explore ONLY="lossy crashes"`. With a number, that many states of each: `make explore STATES=1000000`.
//!
//! Networks of 2 to 5 members on rings of 4 to 10 ids, with lists of 2 or 3 successors; in each at most two joins, two leaves, one
//! crash, one lost message and four far deadlines. Together 2.0 million states and 5.6 million transitions; two scenarios are
//! explored to their ends, the others to [`STATES_MAX`] states, which are all paths of 10 to 38 steps.

#![allow(clippy::print_stdout, missing_docs)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use p2ps::explore::{Bounds, Exploration, Question, Scenario, explore, replay};

/// How many scenarios are explored at once.
const WORKERS: usize = 2;

/// Where a search ends unless more is asked for: paths are then explored up to some length only.
const STATES_MAX: usize = 250_000;

type Row = (Scenario, Exploration, Duration);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let (numbers, words): (Vec<&String>, _) = words.iter().partition(|word| word.parse::<usize>().is_ok());
    let states_max = numbers.first().and_then(|number| number.parse().ok()).unwrap_or(STATES_MAX);
    let is_wanted = |scenario: &Scenario| {
        words.is_empty() || words.iter().any(|word| scenario.name.contains(word.as_str()))
    };
    let wanted = scenarios().into_iter().filter(is_wanted);
    let mut waiting: Vec<Scenario> = wanted.map(|scenario| Scenario { states_max, ..scenario }).collect();
    if waiting.is_empty() {
        println!("no scenario's name has one of these words: {words:?}");
        return ExitCode::FAILURE;
    }
    waiting.reverse();
    let (waiting, rows) = (Mutex::new(waiting), Mutex::new(Vec::new()));
    println!(
        "{:<48} {:>9} {:>11} {:>6} {:>8} {:>9} {:>10} {:>8}",
        "scenario", "states", "transitions", "depth", "calm", "complete", "violations", "time"
    );
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&waiting, &rows));
        }
    });
    let rows = rows.into_inner().unwrap_or_default();
    let sum =
        |of: fn(&Exploration) -> usize| rows.iter().map(|(_, exploration, _)| of(exploration)).sum::<usize>();
    println!("{:<48} {:>9} {:>11}", "all", sum(|e| e.states), sum(|e| e.transitions));
    for (scenario, exploration, _) in &rows {
        tell_findings(scenario, exploration);
    }
    if sum(|e| e.findings.len()) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(waiting: &Mutex<Vec<Scenario>>, rows: &Mutex<Vec<Row>>) {
    loop {
        let next = waiting.lock().ok().and_then(|mut waiting| waiting.pop());
        let Some(scenario) = next else { return };
        let begin = Instant::now();
        let e = explore(&scenario, |_| ());
        let time = begin.elapsed();
        println!(
            "{:<48} {:>9} {:>11} {:>6} {:>8} {:>9} {:>10} {:>6.1} s",
            scenario.name,
            e.states,
            e.transitions,
            e.depth,
            e.calm,
            e.is_complete,
            e.findings.len(),
            time.as_secs_f64()
        );
        if let Ok(mut rows) = rows.lock() {
            rows.push((scenario, e, time));
        }
    }
}

fn tell_findings(scenario: &Scenario, exploration: &Exploration) {
    for finding in &exploration.findings {
        println!("\n{}: {}", scenario.name, finding.violation);
        let (told, _) = replay(scenario, |_| (), &finding.steps);
        for line in told {
            println!("  {line}");
        }
        let steps: Vec<String> = finding.steps.iter().map(ToString::to_string).collect();
        println!("  as a test: {:?}", steps.join(" "));
    }
}

/// What is explored.
fn scenarios() -> Vec<Scenario> {
    let none = Bounds::default();
    vec![
        Scenario { joiners: vec![(1, 0), (2, 0)], ..Scenario::new("two join two", 4, &[0, 3], 2) },
        Scenario {
            joiners: vec![(1, 0)],
            bounds: Bounds { leaves: 1, ..none },
            ..Scenario::new("one joins three while one leaves", 8, &[0, 3, 6], 3)
        },
        Scenario {
            joiners: vec![(1, 0)],
            bounds: Bounds { crashes: 1, rounds: 2, ..none },
            ..Scenario::new("one joins three while one crashes", 8, &[0, 3, 6], 2)
        },
        Scenario {
            bounds: Bounds { leaves: 2, ..none },
            ..Scenario::new("two of four leave", 8, &[0, 2, 4, 6], 3)
        },
        Scenario {
            bounds: Bounds { leaves: 1, losses: 1, rounds: 2, ..none },
            ..Scenario::new("one of three leaves over lossy links", 6, &[0, 2, 4], 2)
        },
        Scenario {
            joiners: vec![(1, 0)],
            bounds: Bounds { losses: 1, rounds: 2, ..none },
            ..Scenario::new("one joins two over lossy links", 4, &[0, 3], 2)
        },
        Scenario {
            bounds: Bounds { leaves: 1, crashes: 1, ..none },
            ..Scenario::new("one of five leaves while one crashes", 10, &[0, 2, 4, 6, 8], 3)
        },
        Scenario {
            bounds: Bounds { losses: 1, rounds: 4, swaps: 1, ..none },
            questions: vec![Question::Reliable { by: 0, to: 2 }, Question::Reliable { by: 0, to: 2 }],
            ..Scenario::new("two reliable messages over lossy links", 6, &[0, 2, 4], 2)
        },
        Scenario {
            bounds: Bounds { leaves: 1, ..none },
            questions: vec![Question::Lookup { by: 0, key: 3 }, Question::Broadcast { by: 0 }],
            victims: vec![1, 2],
            ..Scenario::new("a look-up and a broadcast while one leaves", 6, &[0, 2, 4], 2)
        },
    ]
}
