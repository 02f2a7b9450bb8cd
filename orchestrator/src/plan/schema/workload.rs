//! Workloads as YAML has them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::decode::{Field, More, OneOrMore};
use crate::plan::units::{Bytes, Number, Rate, Share};

/// How often: so many a second, or a rate that rises or falls.
pub(crate) type RawRate = OneOrMore<Rate, RawRamp>;

/// A stream of operations, open loop: Poisson arrivals, whatever became of the earlier ones; each at a random node that is up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "workload")]
pub(crate) enum RawWorkload {
    /// Look-ups: who is responsible for a key?
    Lookup(RawLookup),
    /// Puts and gets of the dictionary.
    Dictionary(RawDictionary),
    /// Messages from one node to another, best effort.
    Send(RawSend),
    /// Messages from one node to another, each delivered once or reported failed.
    SendReliable(RawSend),
    /// Messages to all other nodes.
    Broadcast(RawBroadcast),
    /// Messages to some other nodes.
    Multicast(RawMulticast),
}

impl RawWorkload {
    /// How often, from when and until when.
    pub(crate) fn when(&self) -> (&RawRate, Option<&Field<Duration>>, Option<&Field<Duration>>) {
        let (rate, from, to) = match self {
            RawWorkload::Lookup(RawLookup { rate, from, to, .. })
            | RawWorkload::Dictionary(RawDictionary { rate, from, to, .. })
            | RawWorkload::Send(RawSend { rate, from, to, .. })
            | RawWorkload::SendReliable(RawSend { rate, from, to, .. })
            | RawWorkload::Broadcast(RawBroadcast { rate, from, to, .. })
            | RawWorkload::Multicast(RawMulticast { rate, from, to, .. }) => (rate, from, to),
        };
        (rate, from.as_ref(), to.as_ref())
    }
}

/// A rate that goes evenly from one value to another, and stays there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ramp")]
pub(crate) struct RawRamp {
    /// The rate at first.
    pub(crate) from: Field<Rate>,
    /// The rate at last.
    pub(crate) to: Field<Rate>,
    /// In which time it gets there.
    pub(crate) over: Field<Duration>,
}

impl More for RawRamp {
    const IS_LIST: bool = false;
}

/// A stream of look-ups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "lookup")]
pub(crate) struct RawLookup {
    /// How many a second, in the whole network.
    pub(crate) rate: RawRate,
    /// Which keys. Default: uniform.
    pub(crate) keys: Option<RawKeys>,
    /// Of how many keys, drawn by the seed. Default: all ids of the ring, where they are uniform.
    pub(crate) population: Option<Field<u32>>,
    /// From when on, counted from the run's start. Default: from the start.
    pub(crate) from: Option<Field<Duration>>,
    /// Until when. Default: the run's end.
    pub(crate) to: Option<Field<Duration>>,
}

/// A stream of puts and gets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "dictionary")]
pub(crate) struct RawDictionary {
    /// How many a second, in the whole network.
    pub(crate) rate: RawRate,
    /// The share of gets. Default: 50%.
    pub(crate) reads: Option<Field<Share>>,
    /// Which keys. Default: uniform.
    pub(crate) keys: Option<RawKeys>,
    /// Of how many keys, drawn by the seed; workloads with as many are about the same ones. Default: 1000.
    pub(crate) population: Option<Field<u32>>,
    /// The length of a value. Default: 100B.
    pub(crate) value: Option<Field<Bytes>>,
    /// From when on, counted from the run's start. Default: from the start.
    pub(crate) from: Option<Field<Duration>>,
    /// Until when. Default: the run's end.
    pub(crate) to: Option<Field<Duration>>,
}

/// A stream of messages from one node to another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "send")]
pub(crate) struct RawSend {
    /// How many a second, in the whole network.
    pub(crate) rate: RawRate,
    /// Between so many pairs of the nodes that join at the start, drawn by the seed, whether the receiver is up or not. Default: each
    /// time between two nodes that are up.
    pub(crate) pairs: Option<Field<u32>>,
    /// The length of a message. Default: 100B.
    pub(crate) payload: Option<Field<Bytes>>,
    /// From when on, counted from the run's start. Default: from the start.
    pub(crate) from: Option<Field<Duration>>,
    /// Until when. Default: the run's end.
    pub(crate) to: Option<Field<Duration>>,
}

/// A stream of messages to all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "broadcast")]
pub(crate) struct RawBroadcast {
    /// How many a second, in the whole network.
    pub(crate) rate: RawRate,
    /// The length of a message. Default: 100B.
    pub(crate) payload: Option<Field<Bytes>>,
    /// From when on, counted from the run's start. Default: from the start.
    pub(crate) from: Option<Field<Duration>>,
    /// Until when. Default: the run's end.
    pub(crate) to: Option<Field<Duration>>,
}

/// A stream of messages to some.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "multicast")]
pub(crate) struct RawMulticast {
    /// How many a second, in the whole network.
    pub(crate) rate: RawRate,
    /// To how many nodes each, drawn by the seed among those that are up.
    pub(crate) receivers: Field<u32>,
    /// The length of a message. Default: 100B.
    pub(crate) payload: Option<Field<Bytes>>,
    /// From when on, counted from the run's start. Default: from the start.
    pub(crate) from: Option<Field<Duration>>,
    /// Until when. Default: the run's end.
    pub(crate) to: Option<Field<Duration>>,
}

/// How often each key is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "keys")]
pub(crate) enum RawKeys {
    /// Each key as often as any other.
    Uniform,
    /// The i-th key of the population as often as 1 / i^exponent says.
    Zipf(RawZipf),
    /// Some keys of the population are asked for more often than the others.
    Hot(RawHot),
}

/// Zipf's distribution.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "zipf")]
pub(crate) struct RawZipf {
    /// Its exponent. Default: 0.99.
    pub(crate) exponent: Option<Field<Number>>,
}

/// A hot set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "hot")]
pub(crate) struct RawHot {
    /// The share of the keys that is hot.
    pub(crate) keys: Field<Share>,
    /// The share of the operations that is about these.
    pub(crate) operations: Field<Share>,
}
