//! The simulator's settings as YAML has them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::decode::Field;
use crate::plan::units::{FileName, Number, Share};

/// The network that a simulation has (`--on sim`). Other backends have real ones, and pass it over.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "sim")]
pub(crate) struct RawSimulation {
    /// How long messages take from node to node. Default: `{constant: 1ms}`.
    pub(crate) latency: Option<RawLatency>,
    /// The share of messages that are lost. Default: 0%.
    pub(crate) loss: Option<Field<Share>>,
    /// How the nodes' clocks differ. Default: not at all.
    pub(crate) clock_skew: Option<RawClockSkew>,
    /// Whether nodes keep their tables right. Without, they do nothing of themselves: for measuring routes on very large
    /// rings that are prepared and on which nothing fails. Default: true.
    pub(crate) maintenance: Option<Field<bool>>,
}

/// How long messages take from node to node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "latency")]
pub(crate) enum RawLatency {
    /// Always the same.
    Constant(Field<Duration>),
    /// For each message, uniform between two values.
    Uniform(RawUniform),
    /// For each message, log-normal: a long tail.
    LogNormal(RawLogNormal),
    /// By the distance of the nodes' places, drawn in a square: each pair has its own.
    Coordinates(RawCoordinates),
    /// A file with a square of milliseconds between sites, a line each; the nodes go round the sites in turn.
    Matrix(Field<FileName>),
}

/// Between two values.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "uniform_latency")]
pub(crate) struct RawUniform {
    /// The least.
    pub(crate) min: Field<Duration>,
    /// The largest.
    pub(crate) max: Field<Duration>,
}

/// A log-normal latency.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "log_normal_latency")]
pub(crate) struct RawLogNormal {
    /// The median.
    pub(crate) median: Field<Duration>,
    /// The standard deviation of the latency's logarithm.
    pub(crate) sigma: Field<Number>,
}

/// Places in a square.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "coordinates")]
pub(crate) struct RawCoordinates {
    /// The mean over all pairs of nodes.
    pub(crate) mean: Field<Duration>,
}

/// How the nodes' clocks differ; each is drawn uniformly.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "clock_skew")]
pub(crate) struct RawClockSkew {
    /// They are ahead by up to this. Default: 0s.
    pub(crate) offset: Option<Field<Duration>>,
    /// They run fast or slow by up to this, such as `0.01%`. Default: 0%.
    pub(crate) rate: Option<Field<Share>>,
}
