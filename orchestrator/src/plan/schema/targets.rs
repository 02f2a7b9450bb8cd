//! Groups and targets as YAML has them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::plan::Amount;
use crate::plan::decode::{Field, More, OneOrMore};
use crate::plan::names::{GroupName, HostAmount, HostName, SideWord};

/// Hosts: so many drawn by the seed (a share: of all), or a list of names.
pub(crate) type RawHosts = OneOrMore<HostAmount, Vec<Field<HostName>>>;

/// Whom: so many nodes drawn by the seed, or what [`RawWhom`] says.
pub(crate) type RawTarget = OneOrMore<Amount, RawWhom>;

/// A side: a share, a group or the rest, or hosts.
pub(crate) type RawSide = OneOrMore<SideWord, RawOfHosts>;

/// Who is in a group: so many nodes, or those of hosts.
pub(crate) type RawMembers = OneOrMore<Amount, RawOfHosts>;

/// Whom a step is done to: `{group: edge}`, `{hosts: 2}`, `{successor_of: 12345}`, `{heaviest: 1}`.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "whom", extend("minProperties" = 1))]
pub(crate) struct RawWhom {
    /// The nodes of this group.
    pub(crate) group: Option<Field<GroupName>>,
    /// So many of the group, drawn by the seed. Default: all of it.
    pub(crate) nodes: Option<Field<Amount>>,
    /// All nodes of so many hosts, drawn by the seed (a share: of those with any), or of the hosts that are listed.
    pub(crate) hosts: Option<RawHosts>,
    /// The node that is responsible for this key then: of those that are up, the first one at or after it on the ring.
    pub(crate) successor_of: Option<Field<u64>>,
    /// The nodes with the largest ranges then (from the node before on the ring, of those that are up): so many.
    pub(crate) heaviest: Option<Field<Amount>>,
}

/// The nodes of some hosts.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "of_hosts")]
pub(crate) struct RawOfHosts {
    /// So many, drawn by the seed (a share: of all), or a list of names.
    pub(crate) hosts: RawHosts,
}

impl More for RawWhom {
    const IS_LIST: bool = false;
}

impl More for RawOfHosts {
    const IS_LIST: bool = false;
}

/// Groups with their names.
#[derive(Debug)]
pub(crate) struct RawGroups(pub(crate) Vec<(String, RawMembers)>);

impl<'de> Deserialize<'de> for RawGroups {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawGroups, D::Error> {
        deserializer.deserialize_map(GroupsVisitor)
    }
}

struct GroupsVisitor;

impl<'de> Visitor<'de> for GroupsVisitor {
    type Value = RawGroups;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`name: 20%` or `name: {hosts: 2}`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawGroups, A::Error> {
        // The document bounds how many there are.
        let mut groups = Vec::new();
        while let Some(group) = entries.next_entry()? {
            groups.push(group);
        }
        Ok(RawGroups(groups))
    }
}

impl JsonSchema for RawGroups {
    fn schema_name() -> Cow<'static, str> {
        "groups".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let members = generator.subschema_for::<RawMembers>();
        json_schema!({
            "type": "object",
            "additionalProperties": members,
            "maxProperties": crate::plan::targets::NAMED_GROUPS_MAX,
        })
    }
}
