//! What can happen next in a small network.

use std::fmt;
use std::str::FromStr;

/// One step. Nodes are numbered by their place in the scenario, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The first message of a link arrives.
    Deliver {
        /// Who sent it.
        from: u8,
        /// Who receives it.
        to: u8,
    },
    /// The first message of a link is lost.
    Lose {
        /// Who sent it.
        from: u8,
        /// Who does not receive it.
        to: u8,
    },
    /// The first message of a link is overtaken by the second.
    Swap {
        /// Who sent them.
        from: u8,
        /// Who receives them.
        to: u8,
    },
    /// A node's next deadline comes.
    Tick(u8),
    /// A node starts and joins.
    Join(u8),
    /// A node begins to leave.
    Leave(u8),
    /// A node crashes.
    Crash(u8),
    /// The scenario's next question is asked.
    Ask,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Deliver { from, to } => write!(f, "deliver:{from}:{to}"),
            Step::Lose { from, to } => write!(f, "lose:{from}:{to}"),
            Step::Swap { from, to } => write!(f, "swap:{from}:{to}"),
            Step::Tick(node) => write!(f, "tick:{node}"),
            Step::Join(node) => write!(f, "join:{node}"),
            Step::Leave(node) => write!(f, "leave:{node}"),
            Step::Crash(node) => write!(f, "crash:{node}"),
            Step::Ask => write!(f, "ask"),
        }
    }
}

/// A text that is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no step: write one as the explorer prints it, such as deliver:0:2 or tick:1")]
pub struct NoStep(String);

impl FromStr for Step {
    type Err = NoStep;

    fn from_str(text: &str) -> Result<Step, NoStep> {
        let no_step = || NoStep(text.to_owned());
        let mut words = text.trim().split(':');
        let kind = words.next().unwrap_or_default();
        let nodes: Vec<u8> = words.map(str::parse).collect::<Result<_, _>>().map_err(|_| no_step())?;
        match (kind, nodes[..].as_ref()) {
            ("deliver", &[from, to]) => Ok(Step::Deliver { from, to }),
            ("lose", &[from, to]) => Ok(Step::Lose { from, to }),
            ("swap", &[from, to]) => Ok(Step::Swap { from, to }),
            ("tick", &[node]) => Ok(Step::Tick(node)),
            ("join", &[node]) => Ok(Step::Join(node)),
            ("leave", &[node]) => Ok(Step::Leave(node)),
            ("crash", &[node]) => Ok(Step::Crash(node)),
            ("ask", &[]) => Ok(Step::Ask),
            _ => Err(no_step()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_printed_is_read_again() {
        for step in
            [Step::Deliver { from: 0, to: 3 }, Step::Lose { from: 1, to: 2 }, Step::Tick(4), Step::Ask]
        {
            assert_eq!(step.to_string().parse(), Ok(step));
        }
        assert!("deliver:1".parse::<Step>().is_err() && "leap:1".parse::<Step>().is_err());
    }
}
