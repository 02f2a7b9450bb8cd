//! The plan language as YAML has it. The comments here are what editors show; [`check`](super::check) says what may be.

mod simulation;
mod steps;
mod targets;
mod workload;

use std::borrow::Cow;
use std::time::Duration;

use p2ps::id::Ring;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Value, json};

use super::decode::{Field, OneOrMore};
use super::expect::Expect;
use super::units::{Name, Rate, Unit};

pub(crate) use self::simulation::{RawClockSkew, RawLatency, RawSimulation};
pub(crate) use self::steps::{
    RawChurn, RawDegrade, RawDistribution, RawEnd, RawHeal, RawPreset, RawShaped, RawSized, RawStep,
    RawTrace, RawTraceFormat,
};
pub(crate) use self::targets::{RawGroups, RawHosts, RawMembers, RawOfHosts, RawSide, RawTarget, RawWhom};
pub(crate) use self::workload::{RawHot, RawKeys, RawRamp, RawRate, RawSend, RawWorkload, RawZipf};

/// The JSON Schema (draft 7, which editors know) of plans, as text.
pub fn json_schema() -> String {
    let settings = SchemaSettings::draft07().with_transform(RecursiveTransform(as_plans_are_read));
    let mut schema = settings.into_generator().into_root_schema_for::<RawPlan>();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.extend(sweep_properties());
    }
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is a JSON value");
    text.push('\n');
    text
}

/// The keys that make many plans of one; they are taken out before a plan is read.
fn sweep_properties() -> serde_json::Map<String, Value> {
    let sweep = json!({
        "description": "Runs the plan at every combination of these values: paths into the plan, each with a list.",
        "type": "object",
        "additionalProperties": {"type": "array", "minItems": 1}
    });
    let repeat = json!({
        "description": "How often each point is run, each time with the seed after the last one. Default: 1.",
        "type": "integer",
        "minimum": 1
    });
    [("sweep".to_owned(), sweep), ("repeat".to_owned(), repeat)].into_iter().collect()
}

/// A key may be left out, but it cannot be null; and descriptions are not broken where the source's lines are.
fn as_plans_are_read(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

/// An experiment on a peer-to-peer overlay: what is done to it, and what is expected of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "plan")]
pub(crate) struct RawPlan {
    /// The experiment's name. It names the directory of its runs.
    pub(crate) name: Field<Name>,
    /// All that is drawn comes from it: the same seed is the same schedule. Default: 0.
    pub(crate) seed: Option<Field<u64>>,
    /// The overlay's settings. Default: ids to 2^32, symmetric Tango of arity 5, eight successors.
    pub(crate) network: Option<RawNetwork>,
    /// How many nodes join at the start.
    pub(crate) nodes: Field<u32>,
    /// What nodes live in. Default: `process`.
    pub(crate) isolation: Option<RawIsolation>,
    /// How fast they join. Default: `{rate: 20/s}`.
    pub(crate) join: Option<RawJoin>,
    /// Groups of nodes with names, that steps speak of: `edge: 20%` and `core: 10` are drawn by the seed among the nodes that join at
    /// the start, `west: {hosts: [h1, h2]}` and `rack: {hosts: 2}` are all nodes of these hosts. No node is in two of them.
    pub(crate) groups: Option<RawGroups>,
    /// As so many hosts (`host1`, `host2`, …) the nodes count, in turn, where all of them run on one. Default: 1.
    pub(crate) virtual_hosts: Option<Field<u32>>,
    /// How faults of links are made. Default: `{with: node}`.
    pub(crate) faults: Option<RawFaults>,
    /// What is asked of the network all along. Default: nothing.
    pub(crate) workload: Option<Vec<RawWorkload>>,
    /// What is done to the network, and when. Default: nothing.
    pub(crate) timeline: Option<Vec<RawStep>>,
    /// When the run ends, counted from its start. Default: 20 s after the last step of the timeline (or after the joins), and no
    /// earlier than the end of every `ring.converged within`.
    pub(crate) duration: Option<Field<Duration>>,
    /// What must hold for the run to pass: `lookup.success >= 99.9%`, `lookup.hops.p99 <= 8`, `ring.converged within 15s of 30s`.
    pub(crate) expect: Option<Vec<Field<Expect>>>,
    /// The network of a simulation. Other backends pass it over.
    pub(crate) sim: Option<RawSimulation>,
}

/// What nodes live in. They hear, say and count the same in either.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "isolation")]
pub(crate) enum RawIsolation {
    /// A process for each: nodes share nothing but their host. For hundreds of nodes a host.
    Process,
    /// All nodes of a host in its agent's process: they share its cores. For thousands of nodes a host.
    Task,
}

/// The overlay's settings, the same for all nodes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "network")]
pub(crate) struct RawNetwork {
    /// How many ids the ring has, 2 to 2^64. Default: 2^32.
    pub(crate) max_size: Option<Field<Ring>>,
    /// The kind of link table. Default: `{tango: {k: 5, symmetric: true}}`.
    pub(crate) geometry: Option<RawGeometry>,
    /// The length r of a successor list: r neighbours may fail at once. Default: 8.
    pub(crate) successors: Option<Field<u8>>,
    /// In how many places each key of the dictionary is, 1 to 16. Default: 3.
    pub(crate) replication: Option<Field<u8>>,
    /// Fingers are corrected on use: a receiver says where the finger that brought a message is stale. Default: true; else only periodic
    /// checks correct them.
    pub(crate) correction_on_use: Option<Field<bool>>,
    /// Fingers are corrected on change: who joins or leaves, or takes over from a failed node, tells the nodes whose fingers have to
    /// change. Default: false.
    pub(crate) correction_on_change: Option<Field<bool>>,
    /// How often nodes look after their tables while nothing changes. Default: `adaptive`.
    pub(crate) stabilise: Option<RawStabilise>,
    /// Routes go by the nodes of least measured round trip among those that keep the bound of hops. Default: false.
    pub(crate) proximity: Option<Field<bool>>,
    /// How many nodes that are heard in traffic are remembered, with links kept to them, to shorten routes: 0 to 1024. Default: 0.
    pub(crate) link_cache: Option<Field<u16>>,
    /// Links are encrypted, and nodes that are not of the run stay outside: with a key that is drawn for each run and written
    /// nowhere. Default: false.
    pub(crate) encrypted: Option<Field<bool>>,
}

/// The period of the rounds in which nodes look after their tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "stabilise")]
pub(crate) enum RawStabilise {
    /// From half a second after a change to eight seconds when nothing has changed for long.
    Adaptive,
    /// Always the same: 100 ms to 10 minutes.
    Every(Field<Duration>),
}

/// A kind of link table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "geometry")]
pub(crate) enum RawGeometry {
    /// Chord: fingers at distances 2^i.
    Chord,
    /// DKS(k): k - 1 fingers a step, at distances j * k^i.
    Dks(RawDks),
    /// Tango(k): k - 1 fingers a step, with further reach than DKS.
    Tango(RawTango),
    /// The symmetric Tango table that keeps within a bound on a full ring of as many ids as the plan has nodes.
    AtMost(RawAtMost),
}

/// DKS's settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "dks")]
pub(crate) struct RawDks {
    /// The search arity.
    pub(crate) k: Field<u16>,
}

/// Tango's settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "tango")]
pub(crate) struct RawTango {
    /// The search arity; odd where symmetric.
    pub(crate) k: Field<u16>,
    /// Half of the fingers clockwise and half counter-clockwise. Default: false.
    pub(crate) symmetric: Option<Field<bool>>,
}

/// A bound that the link table is chosen for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "at_most")]
pub(crate) enum RawAtMost {
    /// So many hops, with as few links as possible.
    Hops(Field<u32>),
    /// So many links a node, with as few hops as possible.
    Links(Field<u32>),
}

/// How the first nodes join.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "join")]
pub(crate) enum RawJoin {
    /// All at once: a flash crowd.
    AtOnce,
    /// Not at all: they are a converged ring from the start. Only in a simulation.
    Prepared,
    /// One after the other, evenly, so many a second.
    Rate(Field<Rate>),
}

/// How faults of links are made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "faults")]
pub(crate) struct RawFaults {
    /// What makes them. Default: node.
    pub(crate) with: Option<RawFaultsWith>,
}

/// What makes faults of links.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "faults_with")]
pub(crate) enum RawFaultsWith {
    /// The nodes, where messages leave and come: needs no privilege, and can do everything.
    Node,
    /// The hosts' kernels, between hosts: partitions by nftables, degraded links by queues (HTB, netem). Agents need CAP_NET_ADMIN.
    Kernel,
}

impl<U: Unit> JsonSchema for Field<U> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        U::KIND.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        U::schema()
    }
}

impl<U: Unit, L: JsonSchema> JsonSchema for OneOrMore<U, L> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{} or {}", U::KIND, L::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let more = generator.subschema_for::<L>();
        json_schema!({"anyOf": [U::schema(), more]})
    }
}
