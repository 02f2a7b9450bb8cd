//! Faults made where messages leave a node: cuts, latency, jitter, loss, bandwidth. They need no privilege and work on any host.
//!
//! A [`LinkShape`] says what is done to the messages to one node; a [`Shaper`] does it to all of a node's. Links stand
//! meanwhile: what is healed goes on over the same ones, and what broke behind a cut is heard of only then.

mod draw;
mod shaper;

use serde::{Deserialize, Serialize};

use crate::id::Id;

pub(crate) use draw::{hits, normal, quantile_us};
pub use shaper::{Departure, Fate, Shaper};

/// Nodes, by their ids, and what is done to the messages to each of them. Where several name a node, the last one counts.
pub type ShapeRules = [(Vec<Id>, LinkShape)];

/// What is done to the messages that go over a link. Nothing, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkShape {
    /// Which way nothing gets through; where it is both, no link can be made either: a partition.
    #[serde(default)]
    pub cut: Cut,
    /// How much later each message leaves, in microseconds; timers round it up to milliseconds.
    #[serde(default)]
    pub latency_us: u64,
    /// How much more or less than that, in microseconds: drawn by `distribution`, never below zero in all, never reordering.
    #[serde(default)]
    pub jitter_us: u64,
    /// How the jitter is distributed.
    #[serde(default)]
    pub distribution: Distribution,
    /// How many of a million messages are lost.
    #[serde(default)]
    pub loss_ppm: u32,
    /// The most bytes a second; 0: no limit.
    #[serde(default)]
    pub bytes_per_second: u64,
}

/// Which way nothing gets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Both ways are open.
    #[default]
    None,
    /// What this node sends is lost.
    Out,
    /// What is sent to this node is lost.
    In,
    /// Both.
    Both,
}

impl Cut {
    /// Whether what this node sends is lost.
    pub fn is_out(self) -> bool {
        matches!(self, Cut::Out | Cut::Both)
    }

    /// What either cuts.
    pub fn and(self, other: Cut) -> Cut {
        match (self.is_out() || other.is_out(), self.is_in() || other.is_in()) {
            (false, false) => Cut::None,
            (true, false) => Cut::Out,
            (false, true) => Cut::In,
            (true, true) => Cut::Both,
        }
    }

    /// Whether what is sent to this node is lost.
    pub fn is_in(self) -> bool {
        matches!(self, Cut::In | Cut::Both)
    }
}

/// How jitter is distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Uniform in latency ± jitter.
    #[default]
    Uniform,
    /// Normal, with the jitter for a standard deviation.
    Normal,
    /// Log-normal with the latency for its median and the jitter for its standard deviation.
    LogNormal,
    /// Pareto beyond the latency, with the jitter for its mean excess: a heavy tail (index 3, as in `tc netem`'s table).
    Pareto,
}
