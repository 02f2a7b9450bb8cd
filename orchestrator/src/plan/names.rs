//! The names that plans give to groups, and use for hosts.

use schemars::{Schema, json_schema};

use super::Amount;
use super::diagnose::Refusal;
use super::targets::Side;
use super::units::{Share, Unit};

/// What stands for all nodes on no other side.
pub(crate) const REST: &str = "rest";

/// The longest name of a host, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// The longest name of a group, in bytes.
const GROUP_BYTES_MAX: usize = 32;

/// The name of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupName(pub(crate) String);

impl Unit for GroupName {
    const KIND: &'static str = "the name of a group";
    const EXAMPLE: &'static str = "edge";

    fn parse(text: &str) -> Result<GroupName, Refusal> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
        if !begins || text.len() > GROUP_BYTES_MAX || !text.chars().all(known) {
            let hint = format!("a letter, and then letters, digits, `-` and `_`: at most {GROUP_BYTES_MAX}");
            return Err(Refusal::new(format!("`{text}` is no name for a group"), hint));
        }
        if text == REST {
            return Err(Refusal::new("`rest` stands for all other nodes", "give the group another name"));
        }
        Ok(GroupName(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"})
    }
}

/// The name of a host, as the inventory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(pub(crate) String);

impl Unit for HostName {
    const KIND: &'static str = "the name of a host";
    const EXAMPLE: &'static str = "node1.example.org";

    fn parse(text: &str) -> Result<HostName, Refusal> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if (1..=HOST_BYTES_MAX).contains(&text.len())
            && text.chars().all(known)
            && !text.starts_with([':', '-'])
        {
            return Ok(HostName(text.to_owned()));
        }
        let hint = "write it as the inventory does, such as node1.example.org";
        Err(Refusal::new(format!("`{text}` is no name of a host"), hint))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[A-Za-z0-9_.][A-Za-z0-9_.:-]*$"})
    }
}

/// A number of hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HostAmount(pub(crate) Amount);

impl Unit for HostAmount {
    const KIND: &'static str = "a number of hosts";
    const EXAMPLE: &'static str = "2` or `50%` or `[h1, h2]";

    fn parse(text: &str) -> Result<HostAmount, Refusal> {
        match Amount::parse(text) {
            Ok(amount) => Ok(HostAmount(amount)),
            Err(_) => Err(Refusal::not::<HostAmount>(text)),
        }
    }

    fn schema() -> Schema {
        Amount::schema()
    }
}

/// A side that one word says: a share, a group, or the rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SideWord(pub(crate) Side);

impl Unit for SideWord {
    const KIND: &'static str = "a side";
    const EXAMPLE: &'static str = "50%` or `edge";

    fn parse(text: &str) -> Result<SideWord, Refusal> {
        if text == REST {
            return Ok(SideWord(Side::Rest));
        }
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return GroupName::parse(text).map(|GroupName(name)| SideWord(Side::Group(name)));
        }
        Share::parse(text).map(|Share(share)| SideWord(Side::Share(share)))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^([0-9]+(\.[0-9]+)?%|[A-Za-z][A-Za-z0-9_-]{0,31})$",
            "examples": ["50%", "edge", "rest"]
        })
    }
}
