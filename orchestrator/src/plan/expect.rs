//! The language of `expect:`: `lookup.success >= 99.9%`, `ring.converged within 15s of 30s`.

use std::time::Duration;

use schemars::{Schema, json_schema};

use super::diagnose::{Refusal, nearest};
use super::units::{Unit, decimal, share};
use super::{Claim, Comparison, Expectation, FIGURES, FigureUnit};

/// The figure that may be said to hold `within` a time.
const CONVERGED: &str = "ring.converged";

/// An expectation as a scalar of a plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expect(pub(crate) Expectation);

impl Unit for Expect {
    const KIND: &'static str = "an expectation";
    const EXAMPLE: &'static str = "lookup.success >= 99.9%";

    fn parse(text: &str) -> Result<Expect, Refusal> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let name = words.first().copied().unwrap_or_default();
        if !FIGURES.contains(&name) {
            return Err(unknown_figure(name));
        }
        let claim = match words.as_slice() {
            [CONVERGED, "within", within, "of", of] => {
                Claim::Converged { within: Duration::parse(within)?, of: Duration::parse(of)? }
            }
            [_, "within", ..] => return Err(malformed_within(name)),
            [_, comparison, bound] => {
                let comparison = read_comparison(comparison)?;
                Claim::Figure { name: name.to_owned(), comparison, bound: read_bound(name, bound)? }
            }
            _ => {
                let message = format!("`{text}` says nothing that can be checked");
                let hint = "write: figure, comparison, bound, with blanks between, such as `lookup.success >= 99.9%`";
                return Err(Refusal::new(message, hint));
            }
        };
        Ok(Expect(Expectation { text: words.join(" "), claim }))
    }

    fn schema() -> Schema {
        let names = FIGURES.iter().map(|name| name.replace('.', r"\.")).collect::<Vec<_>>().join("|");
        let figure = format!(r"({names})\s+(==|!=|<=|>=|<|>)\s+[0-9.]+[a-z%]*");
        let pattern = format!(r"^({figure}|ring\.converged\s+within\s+\S+\s+of\s+\S+)$");
        json_schema!({
            "type": "string",
            "pattern": pattern,
            "examples": ["lookup.success >= 99.9%", "ring.converged within 15s of 30s"]
        })
    }
}

fn unknown_figure(name: &str) -> Refusal {
    let hint = match nearest(name, FIGURES.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("the figures are: {}", FIGURES.join(", ")),
    };
    Refusal::new(format!("no figure is called `{name}`"), hint)
}

fn malformed_within(name: &str) -> Refusal {
    let hint = format!("write `{CONVERGED} within 15s of 30s`: right at most 15 s after the time 30 s");
    if name == CONVERGED {
        Refusal::new("`within` needs a length of time, `of`, and a time", hint)
    } else {
        Refusal::new(format!("only `{CONVERGED}` can hold within a time, not `{name}`"), hint)
    }
}

fn read_comparison(text: &str) -> Result<Comparison, Refusal> {
    Ok(match text {
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::AtMost,
        ">" => Comparison::Greater,
        ">=" => Comparison::AtLeast,
        _ => {
            let hint = if text == "=" { "write `==`" } else { "the comparisons are ==, !=, <, <=, > and >=" };
            return Err(Refusal::new(format!("`{text}` is no comparison"), hint));
        }
    })
}

/// Reads a bound in the figure's own unit: shares in percent, times with their unit, all else as plain numbers.
fn read_bound(name: &str, text: &str) -> Result<f64, Refusal> {
    let wrong = |kind: &str, example: &str| {
        Refusal::new(
            format!("`{name}` is {kind}, not `{text}`"),
            format!("write a bound such as `{example}`"),
        )
    };
    match FigureUnit::of(name) {
        FigureUnit::Share => share(text).ok_or_else(|| match decimal(text) {
            Some(percent) if percent > 1.0 => wrong("a share", &format!("{}%", percent.min(100.0))),
            _ => wrong("a share", "99.9%"),
        }),
        FigureUnit::Seconds => Duration::parse(text)
            .map(|length| length.as_secs_f64())
            .map_err(|_| wrong("a length of time", "50ms")),
        FigureUnit::Number => decimal(text).ok_or_else(|| wrong("a plain number", "8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str) -> f64 {
        match Expect::parse(text).unwrap().0.claim {
            Claim::Figure { bound, .. } => bound,
            claim => panic!("{claim:?}"),
        }
    }

    #[test]
    fn bounds_come_out_in_base_units() {
        assert_eq!(bound("lookup.success >= 99.5%"), 0.995);
        assert_eq!(bound("lookup.latency.p99 <= 50ms"), 0.05);
        assert_eq!(bound("ring.converged <= 1m"), 60.0);
        assert_eq!(bound("lookup.hops.mean < 3.5"), 3.5);
        assert_eq!(bound("lookup.wrong == 0"), 0.0);
    }

    #[test]
    fn blanks_do_not_matter_but_must_be_there() {
        assert_eq!(Expect::parse(" lookup.wrong  ==  0 ").unwrap().0.text, "lookup.wrong == 0");
        assert!(Expect::parse("lookup.wrong==0").is_err());
    }

    #[test]
    fn every_figure_takes_a_bound_of_its_unit_and_of_no_other() {
        for name in FIGURES {
            let held = ["5%", "5s", "5"].map(|bound| Expect::parse(&format!("{name} <= {bound}")).is_ok());
            assert_eq!(held.iter().filter(|held| **held).count(), 1, "{name}: {held:?}");
        }
    }

    #[test]
    fn misspelt_figures_are_guessed() {
        assert!(Expect::parse("lookup.sucess >= 99%").unwrap_err().hint.contains("`lookup.success`"));
        assert!(Expect::parse("lookup.success >= 99").unwrap_err().hint.contains("99%"));
        assert!(Expect::parse("nodes.alive within 1s of 2s").unwrap_err().message.contains("ring.converged"));
    }
}
