//! Inventories: which hosts there are, and how each is reached.
//!
//! Two forms: YAML (`hosts.yaml`), and a plain list with one host name a line (PlanetLab's form). What neither says of a host comes
//! from `~/.ssh/config`, and then from the usual values.

mod way;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use p2ps::agent::protocol::PortRange;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use super::ssh::Target;
use super::ssh::config::SshConfig;

/// The most hosts of an inventory.
pub const HOSTS_MAX: usize = 10_000;

/// The longest inventory, in bytes.
const INVENTORY_BYTES_MAX: u64 = 4 << 20;

/// The longest name of a host, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// The hosts of a testbed. It has at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The hosts, in the inventory's order.
    pub hosts: Vec<Host>,
    /// How many hosts a run uses: the first of those that are ready. The others stand in for hosts that are not.
    pub wanted: usize,
    /// How many hosts a run needs at least.
    pub required: usize,
    /// The file of known hosts, if it is not the user's.
    pub known_hosts: Option<PathBuf>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, for people.
    pub name: String,
    /// The address that its nodes listen on and are reached at; `None`: the one at which it is reached itself.
    pub listen: Option<IpAddr>,
    /// The ports that its nodes may listen on; `None`: those that its agent chooses.
    pub ports: Option<PortRange>,
    /// How its agent is reached.
    pub way: Way,
}

/// How a host's agent is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By SSH.
    Ssh(Target),
    /// By a command.
    Exec {
        /// The command, for this host; `{binary}` in its place is filled already.
        command: Vec<String>,
        /// The host's address or name.
        address: String,
    },
}

/// What an inventory may leave open.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// The user, where no host says otherwise.
    pub user: Option<String>,
    /// The private key, where no host says otherwise.
    pub key: Option<PathBuf>,
    /// The user's own configuration of SSH.
    pub ssh_config: SshConfig,
    /// The user who runs this.
    pub own_user: Option<String>,
    /// The node binary on this host: where hosts that are reached by a command have it too, if nothing else is said.
    pub node_binary: PathBuf,
}

/// What is wrong with an inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It cannot be read.
    #[error("the inventory {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl Inventory {
    /// Reads an inventory: YAML where the file's name ends so, else a plain list.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub fn load(path: &Path, defaults: &Defaults) -> Result<Inventory, InventoryError> {
        let failed = |source| InventoryError::Read { path: path.to_owned(), source };
        let length = fs::metadata(path).map_err(failed)?.len();
        if length > INVENTORY_BYTES_MAX {
            return Err(failed(io::Error::other(format!("it has more than {INVENTORY_BYTES_MAX} bytes"))));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let parsed = if is_yaml { parse_yaml(&text, defaults) } else { parse_list(&text, defaults) };
        parsed.map_err(|Mistake { line, message }| InventoryError::Line {
            path: path.to_owned(),
            line,
            message,
        })
    }
}

/// What is wrong in a line.
#[derive(Debug)]
struct Mistake {
    line: u64,
    message: String,
}

/// `hosts.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Settings,
    wanted: Option<Spanned<usize>>,
    required: Option<Spanned<usize>>,
    known_hosts: Option<String>,
    hosts: Spanned<Vec<Spanned<Entry>>>,
}

/// What can be said of one host or of all.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    user: Option<String>,
    port: Option<Port>,
    key: Option<String>,
    cache: Option<String>,
    jump: Option<String>,
    ports: Option<Ports>,
    via: Option<String>,
    binary: Option<String>,
}

/// A host: its name alone, or with what is said of it.
struct Entry(EntryFields);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFields {
    name: Option<String>,
    address: Option<String>,
    listen: Option<IpAddr>,
    user: Option<String>,
    port: Option<Port>,
    key: Option<String>,
    cache: Option<String>,
    jump: Option<String>,
    ports: Option<Ports>,
    via: Option<String>,
    binary: Option<String>,
}

/// A port.
#[derive(Clone, Copy)]
struct Port(u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Port, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        port.map(Port).ok_or_else(|| de::Error::custom(format!("{number} is no port: these are 1 to 65535")))
    }
}

/// Ports from one to another: `20000-20999`.
#[derive(Clone, Copy)]
struct Ports(PortRange);

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ports, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bounds = text.split_once('-').and_then(|(low, high)| {
            Some((low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?))
        });
        let range = bounds.and_then(|(low, high)| PortRange::new(low, high));
        range.map(Ports).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} are no ports: write from-to, such as 20000-20999, within 1 and 65535"
            ))
        })
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host: its name, or {name: …, address: …}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Entry, E> {
        Ok(Entry(EntryFields { name: Some(name.to_owned()), ..EntryFields::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
        EntryFields::deserialize(MapAccessDeserializer::new(map)).map(Entry)
    }
}

fn parse_yaml(text: &str, defaults: &Defaults) -> Result<Inventory, Mistake> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map_or(1, |location| location.line());
        Mistake { line, message: UserMessageFormatter.format_message(error).into_owned() }
    })?;
    let mut collection = Collection::new(defaults, file.defaults);
    for entry in file.hosts.value {
        let line = entry.referenced.line();
        collection.add(entry.value.0).map_err(|message| Mistake { line, message })?;
    }
    let hosts = collection.finish(file.hosts.referenced.line())?;
    let count = hosts.len();
    let within = |what: &str, number: &Spanned<usize>, most: usize| match number.value {
        1.. if number.value <= most => Ok(number.value),
        _ => Err(Mistake {
            line: number.referenced.line(),
            message: format!("`{what}` has to be from 1 to {most}, since so many hosts are there to be used"),
        }),
    };
    let wanted = file.wanted.as_ref().map_or(Ok(count), |number| within("wanted", number, count))?;
    let required = file.required.as_ref().map_or(Ok(wanted), |number| within("required", number, wanted))?;
    let known_hosts = file.known_hosts.as_deref().map(expand_home);
    Ok(Inventory { hosts, wanted, required, known_hosts })
}

fn parse_list(text: &str, defaults: &Defaults) -> Result<Inventory, Mistake> {
    let mut collection = Collection::new(defaults, Settings::default());
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let entry = list_entry(text);
        entry.and_then(|entry| collection.add(entry)).map_err(|message| Mistake { line, message })?;
    }
    let hosts = collection.finish(1)?;
    let count = hosts.len();
    Ok(Inventory { hosts, wanted: count, required: count, known_hosts: None })
}

/// `name`, `user@name`, `user@name:port`, `[v6 address]:port`.
fn list_entry(text: &str) -> Result<EntryFields, String> {
    let (user, rest) = text.split_once('@').map_or((None, text), |(user, rest)| (Some(user), rest));
    let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (name, port) = match bracketed {
        Some((name, port)) => (name, port.strip_prefix(':')),
        // More than one colon: an IPv6 address without a port.
        None if rest.matches(':').count() > 1 => (rest, None),
        None => rest.split_once(':').map_or((rest, None), |(name, port)| (name, Some(port))),
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port @ 1..)) => Some(Port(port)),
        Some(_) => return Err(format!("`{text}` has no port that can be: write name, or user@name:port")),
    };
    let user = user.map(str::to_owned);
    Ok(EntryFields { name: Some(name.to_owned()), user, port, ..EntryFields::default() })
}

/// The hosts so far.
struct Collection<'a> {
    defaults: &'a Defaults,
    common: Settings,
    names: BTreeSet<String>,
    hosts: Vec<Host>,
}

impl<'a> Collection<'a> {
    fn new(defaults: &'a Defaults, common: Settings) -> Collection<'a> {
        Collection { defaults, common, names: BTreeSet::new(), hosts: Vec::new() }
    }

    fn add(&mut self, entry: EntryFields) -> Result<(), String> {
        let name = entry.name.clone().or_else(|| entry.address.clone());
        let name = name.ok_or("this host has neither `name` nor `address`: say one")?;
        for word in [Some(&name), entry.address.as_ref(), entry.user.as_ref()].into_iter().flatten() {
            check_word(word)?;
        }
        if self.hosts.len() == HOSTS_MAX {
            return Err(format!("there are more than {HOSTS_MAX} hosts"));
        }
        if !self.names.insert(name.clone()) {
            return Err(format!("`{name}` is there twice: give each host a `name` of its own"));
        }
        let way = match entry.via.as_ref().or(self.common.via.as_ref()) {
            Some(via) => way::exec(self, &name, &entry, via)?,
            None => Way::Ssh(way::target(self, &name, &entry)?),
        };
        let ports = entry.ports.or(self.common.ports).map(|ports| ports.0);
        self.hosts.push(Host { name, listen: entry.listen, ports, way });
        Ok(())
    }

    fn finish(self, line: u64) -> Result<Vec<Host>, Mistake> {
        if self.hosts.is_empty() {
            return Err(Mistake { line, message: "there is no host in it: write one name a line".into() });
        }
        Ok(self.hosts)
    }
}

/// Names become words of commands and of messages: nothing in them may be taken for anything else.
fn check_word(word: &str) -> Result<(), String> {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:%/@+".contains(&byte);
    if word.is_empty() || word.len() > NAME_BYTES_MAX || word.starts_with('-') || !word.bytes().all(is_sound)
    {
        return Err(format!(
            "{word:?} cannot be a host's name, address or user: letters, digits and ._-:%/@+ can be in it"
        ));
    }
    Ok(())
}

/// `~/` stands for the home of the user who runs this.
fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ssh::Endpoint;

    fn defaults() -> Defaults {
        let ssh_config = SshConfig::parse(
            "Host lab\nHostName lab.example.org\nPort 2222\nUser labuser\nIdentityFile /k/lab\n\
             Host gate\nPort 2200\nUser keeper\nProxyJump outer\nHost far\nProxyJump gate,me2@inner:24\n\
             Host round\nProxyJump round\nHost odd\nProxyCommand nc %h %p\nMatch originalhost dark exec true\nPort 1",
        )
        .unwrap();
        let node_binary = "/bin/p2ps-node".into();
        Defaults { ssh_config, own_user: Some("me".into()), node_binary, ..Defaults::default() }
    }

    fn target(host: &Host) -> &Target {
        let Way::Ssh(target) = &host.way else { panic!("{host:?}") };
        target
    }

    #[test]
    fn a_plain_list_takes_names_users_and_ports() {
        let text =
            "# my slice\nplanetlab1.example.org\n\nyou@10.0.0.2:2200  # spare\nlab\n[fe80::1]:24\nfd00::7\n";
        let inventory = parse_list(text, &defaults()).unwrap();
        let seen: Vec<_> = inventory
            .hosts
            .iter()
            .map(|host| (host.name.as_str(), &target(host).endpoint))
            .map(|(name, ssh)| (name, ssh.address.as_str(), ssh.port, ssh.user.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("planetlab1.example.org", "planetlab1.example.org", 22, "me"),
                ("10.0.0.2", "10.0.0.2", 2200, "you"),
                ("lab", "lab.example.org", 2222, "labuser"),
                ("fe80::1", "fe80::1", 24, "me"),
                ("fd00::7", "fd00::7", 22, "me"),
            ]
        );
        assert_eq!((inventory.wanted, inventory.required), (5, 5));
        let given = Defaults { user: Some("slice".into()), key: Some("/k/slice".into()), ..defaults() };
        let inventory = parse_list("a\nlab\n", &given).unwrap();
        for host in &inventory.hosts {
            let endpoint = &target(host).endpoint;
            assert_eq!((endpoint.user.as_str(), &endpoint.keys), ("slice", &vec!["/k/slice".into()]));
        }
    }

    #[test]
    fn yaml_has_defaults_single_hosts_and_numbers() {
        let text = "
defaults: {user: p2ps, key: /k/all, cache: /var/tmp/p2ps}
required: 2
wanted: 3
known_hosts: /k/known
hosts:
  - a.example.org
  - {name: b, address: 10.0.0.2, listen: 10.1.0.2, port: 2222, key: /k/b}
  - {address: lab}
  - {name: c, via: kubectl, binary: /opt/p2ps-node}
  - name: d
    via: 'sudo ip netns exec {host} {binary} agent'
";
        let inventory = parse_yaml(text, &defaults()).unwrap();
        assert_eq!((inventory.wanted, inventory.required), (3, 2));
        assert_eq!(inventory.known_hosts, Some("/k/known".into()));
        let hosts = &inventory.hosts;
        assert_eq!((hosts[0].name.as_str(), hosts[0].listen), ("a.example.org", None));
        let b = &target(&hosts[1]).endpoint;
        assert_eq!((b.address.as_str(), b.port, b.keys.clone()), ("10.0.0.2", 2222, vec!["/k/b".into()]));
        assert_eq!(hosts[1].listen, Some("10.1.0.2".parse().unwrap()));
        let c = &target(&hosts[2]).endpoint;
        assert_eq!((c.address.as_str(), c.user.as_str()), ("lab.example.org", "p2ps"));
        let Way::Exec { command, .. } = &hosts[3].way else { panic!("{hosts:?}") };
        assert_eq!(command.join(" "), "kubectl exec -i c -- /opt/p2ps-node agent");
        let Way::Exec { command, .. } = &hosts[4].way else { panic!("{hosts:?}") };
        assert_eq!(command.join(" "), "sudo ip netns exec d /bin/p2ps-node agent");
    }

    #[test]
    fn jumps_come_from_the_inventory_or_else_from_ssh() {
        let text = "
defaults: {user: p2ps, key: /k/all, ports: 20000-20099}
hosts:
  - far
  - {name: b, jump: 'you@[fd00::1]:2222,gate', ports: 30000-30000}
  - {name: c, address: far, jump: none}
";
        let hosts = parse_yaml(text, &defaults()).unwrap().hosts;
        let way = |host: &Host| {
            let one = |ssh: &Endpoint| format!("{}@{}:{}", ssh.user, ssh.address, ssh.port);
            target(host).endpoints().map(one).collect::<Vec<String>>()
        };
        // OpenSSH's own: the user who runs this, and the first one's own jumps; keys of the inventory are for all.
        assert_eq!(way(&hosts[0]), ["me@outer:22", "keeper@gate:2200", "me2@inner:24", "p2ps@far:22"]);
        assert_eq!(way(&hosts[1]), ["you@fd00::1:2222", "keeper@gate:2200", "p2ps@b:22"]);
        assert_eq!(way(&hosts[2]), ["p2ps@far:22"]);
        assert!(target(&hosts[0]).endpoints().all(|endpoint| endpoint.keys == [PathBuf::from("/k/all")]));
        let ports = |host: &Host| host.ports.map(|ports| (ports.low(), ports.high(), ports.count()));
        assert_eq!(ports(&hosts[0]), Some((20_000, 20_099, 100)));
        assert_eq!(ports(&hosts[1]), Some((30_000, 30_000, 1)));
    }

    #[test]
    fn mistakes_have_their_line_and_their_mend() {
        let cases = [
            ("hosts:\n  - a\n  - a\n", 3, "`a` is there twice"),
            ("hosts: []\n", 1, "there is no host"),
            ("hosts:\n  - a\n  - {name: b, prot: 22}\n", 3, "prot"),
            ("hosts:\n  - -oProxyCommand=x\n", 2, "cannot be a host's name"),
            ("hosts:\n  - {user: me}\n", 2, "neither `name` nor `address`"),
            ("hosts:\n  - a\n  - odd\n", 3, "or `via: ssh`"),
            ("hosts:\n  - a\n  - dark\n", 3, "/config:16: whether this is for `dark` depends on `exec`"),
            ("hosts:\n  - round\n", 2, "more than 8 hosts on the way"),
            ("hosts:\n  - {name: a, jump: 'x,'}\n", 2, "`jump: x,`"),
            ("hosts:\n  - {name: a, jump: odd}\n", 2, "ProxyCommand"),
            (
                "hosts:\n  - {name: a, via: ssh, jump: gate}\n",
                2,
                "`jump: gate` is for hosts that are reached by SSH",
            ),
            ("hosts:\n  - {name: a, ports: 300-200}\n", 2, "20000-20999"),
            ("hosts:\n  - {name: a, ports: 0-200}\n", 2, "20000-20999"),
            ("hosts:\n  - {name: a, via: telnet}\n", 2, "or one of ssh, kubectl"),
            ("hosts:\n  - {name: a, binary: /x}\n", 2, "is for hosts with `via`"),
            ("required: 2\nhosts: [a]\n", 1, "from 1 to 1"),
            ("hosts: [a, b]\nwanted: 3\n", 2, "from 1 to 2"),
            ("hosts:\n  - a\n  - {name: b, port: 99999}\n", 3, "99999"),
            ("hosts\n", 1, ""),
        ];
        for (text, line, expected) in cases {
            let mistake = parse_yaml(text, &defaults()).unwrap_err();
            assert!(mistake.line == line && mistake.message.contains(expected), "{text}: {mistake:?}");
        }
        for (text, line, expected) in
            [("a\n# c\nb:x\n", 3, "user@name:port"), ("# a\n", 1, "no host"), ("a b\n", 1, "\"a b\"")]
        {
            let mistake = parse_list(text, &defaults()).unwrap_err();
            assert!(mistake.line == line && mistake.message.contains(expected), "{text}: {mistake:?}");
        }
    }
}
