//! Conservation of keys, as a check over all nodes of a network: for tests, exploration and simulation.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Dictionary;
use super::places::Places;
use crate::config::NetConfig;
use crate::id::Id;
use crate::message::dictionary::{Item, Version};

/// What an acknowledged write made of a key: its version, and the value, or `None` for a key that was removed.
pub type Acknowledged = (Version, Option<Bytes>);

/// The acknowledged writes that no living node knows, or knows a later one for: they are lost. To be asked at any time, with the
/// last acknowledged write of each key; right while no more than replication - 1 nodes have crashed since they had copies.
pub fn lost<'a>(
    nodes: impl Iterator<Item = &'a Dictionary>,
    acknowledged: &BTreeMap<Id, Acknowledged>,
) -> Vec<Id> {
    let mut last: BTreeMap<Id, &Item> = BTreeMap::new();
    for (_, item) in nodes.flat_map(Dictionary::iter) {
        let known = last.entry(item.key).or_insert(item);
        if known.version < item.version {
            *known = item;
        }
    }
    let is_known = |(key, (version, value)): &(&Id, &Acknowledged)| {
        last.get(key).is_some_and(|item| match item.version.cmp(version) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => item.value == *value,
            std::cmp::Ordering::Less => false,
        })
    };
    acknowledged.iter().filter(|entry| !is_known(entry)).map(|(key, _)| *key).collect()
}

/// A place of a key whose responsible has not the key's last version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The key.
    pub key: Id,
    /// Its place.
    pub place: Id,
    /// The place's responsible.
    pub node: Id,
    /// What the responsible has.
    pub has: Option<Version>,
    /// The last version that any member has.
    pub last: Version,
}

/// The copies that are not where they should be. To be asked of a ring at rest: all members with their ids.
pub fn missing<'a>(net: &NetConfig, members: impl Iterator<Item = (Id, &'a Dictionary)>) -> Vec<Missing> {
    let members: BTreeMap<Id, &Dictionary> = members.collect();
    let places = Places::new(net);
    let mut last: BTreeMap<Id, Version> = BTreeMap::new();
    for (_, item) in members.values().flat_map(|dictionary| dictionary.iter()) {
        let version = last.entry(item.key).or_insert(item.version);
        *version = item.version.max(*version);
    }
    let mut missing = Vec::new();
    for (key, last) in last {
        for place in places.of(key) {
            let responsible = members.range(place..).next().or_else(|| members.first_key_value());
            let Some((node, dictionary)) = responsible else { continue };
            let has = dictionary.store.find(place, key).map(|item| item.version);
            if has != Some(last) {
                missing.push(Missing { key, place, node: *node, has, last });
            }
        }
    }
    missing
}
