//! What became of the plan's expectations.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::{Claim, Comparison, Expectation, Plan};

use super::ring::History;
use super::{ExpectationVerdict, seconds};

/// Holds one expectation against what was measured. One of a figure that was not measured does not hold.
pub(super) fn evaluate(
    plan: &Plan,
    expectation: &Expectation,
    figures: &BTreeMap<String, f64>,
    ring: Option<&History>,
) -> ExpectationVerdict {
    let (value, held, note) = match &expectation.claim {
        Claim::Figure { name, comparison, bound } => {
            let value = figures.get(name).copied();
            let never = name == "ring.converged" && ring.is_some();
            let note = if never { NEVER } else { NOT_MEASURED };
            (value, value.is_some_and(|value| holds(value, *comparison, *bound)), note)
        }
        Claim::Converged { within, of } => {
            let (of_us, within_us) = (micros(*of), micros(*within));
            let moments = plan.timeline.iter().flat_map(|step| [Some(step.at), step.until()]);
            let mut steps: Vec<u64> = moments.flatten().map(micros).collect();
            steps.sort_unstable();
            let ring = ring.filter(|ring| of_us <= ring.end_us);
            let after_us =
                ring.and_then(|ring| ring.converged_from(of_us, &steps)).map(|at_us| at_us - of_us);
            let held = after_us.is_some_and(|after_us| after_us <= within_us);
            (after_us.map(seconds), held, if ring.is_some() { NEVER } else { NOT_MEASURED })
        }
    };
    let note = value.is_none().then(|| note.to_owned());
    ExpectationVerdict { text: expectation.text.clone(), value, held, note }
}

const NOT_MEASURED: &str = "not measured";
const NEVER: &str = "never";

fn holds(value: f64, comparison: Comparison, bound: f64) -> bool {
    match comparison {
        Comparison::Equal => value == bound,
        Comparison::NotEqual => value != bound,
        Comparison::Less => value < bound,
        Comparison::AtMost => value <= bound,
        Comparison::Greater => value > bound,
        Comparison::AtLeast => value >= bound,
    }
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_what_they_say() {
        use Comparison::{AtLeast, AtMost, Equal, Greater, Less, NotEqual};
        for (comparison, below, same, above) in [
            (Equal, false, true, false),
            (NotEqual, true, false, true),
            (Less, true, false, false),
            (AtMost, true, true, false),
            (Greater, false, false, true),
            (AtLeast, false, true, true),
        ] {
            let held = [1.0, 2.0, 3.0].map(|value| holds(value, comparison, 2.0));
            assert_eq!(held, [below, same, above], "{comparison:?}");
        }
    }
}
