//! `~/.ssh/config`, as far as it says how a host is reached (ssh_config(5)).
//!
//! Read are `Host` and `Match` blocks and `Include`, and in them HostName, Port, User, IdentityFile, HostKeyAlias, ProxyJump and
//! ProxyCommand; the first value counts, as in OpenSSH. What cannot be decided here (`Match exec`, above all) is a mistake where it matters:
//! in a block that says something of the above, for a host for which everything before it holds.

mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hostkey::match_patterns;

/// A configuration, by blocks.
#[derive(Clone, Debug, Default)]
pub struct SshConfig {
    blocks: Vec<Block>,
}

/// Settings, and when they hold.
#[derive(Clone, Debug)]
struct Block {
    /// All have to hold: the block's own one comes last, before it those of the blocks that include its file.
    conditions: Vec<Condition>,
    /// Keywords in lower case, with their values.
    settings: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Condition {
    place: Place,
    /// All have to hold.
    criteria: Vec<Criterion>,
}

/// A line of a file.
#[derive(Clone, Debug)]
struct Place {
    path: Arc<Path>,
    line: usize,
}

#[derive(Clone, Debug)]
struct Criterion {
    subject: Subject,
    is_negated: bool,
    patterns: Vec<String>,
}

/// What a criterion is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    All,
    Host,
    OriginalHost,
    User,
    LocalUser,
    /// Something that is not decided here, by its name.
    Other(String),
}

/// Who is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The host, as the inventory names it.
    pub name: &'a str,
    /// The user on the host, where the inventory names one.
    pub user: Option<&'a str>,
    /// The user who runs this.
    pub own_user: Option<&'a str>,
}

/// What a configuration says of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Its real name or address.
    pub host_name: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// The user.
    pub user: Option<String>,
    /// The key files, as written.
    pub identity_files: Vec<String>,
    /// The name by which its key is recorded.
    pub host_key_alias: Option<String>,
    /// What it is reached through, if something is said of that.
    pub proxy: Option<Proxy>,
}

/// What a host is reached through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Nothing, whatever is said later.
    None,
    /// Other hosts: `[user@]host[:port]`, the nearest first, with commas.
    Jump(String),
    /// A command.
    Command(String),
}

/// Why a configuration does not say how a host is reached.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is wrong, or cannot be decided here.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl Place {
    fn error(&self, message: String) -> ConfigError {
        ConfigError::Line { path: self.path.to_path_buf(), line: self.line, message }
    }
}

impl SshConfig {
    /// Reads the user's configuration, and what it includes. One that does not exist is empty.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<SshConfig, ConfigError> {
        Ok(SshConfig { blocks: read::blocks(path)? })
    }

    /// Reads a configuration's text; files that it includes are sought at the root.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<SshConfig, ConfigError> {
        Ok(SshConfig { blocks: read::blocks_in(Path::new("/config"), text)? })
    }

    /// What it says of a host.
    ///
    /// # Errors
    /// [`ConfigError::Line`], where that cannot be decided here.
    pub fn host(&self, asked: Asked<'_>) -> Result<HostConfig, ConfigError> {
        let mut host = HostConfig::default();
        for block in self.blocks.iter().filter(|block| !block.settings.is_empty()) {
            let mut fits = true;
            for condition in &block.conditions {
                fits = fits && condition.holds(asked, &host)?;
            }
            if fits {
                block.settings.iter().for_each(|(keyword, value)| host.set(keyword, value, asked.name));
            }
        }
        Ok(host)
    }
}

impl HostConfig {
    fn set(&mut self, keyword: &str, value: &str, name: &str) {
        let text = || value.to_owned();
        match keyword {
            "hostname" => set(&mut self.host_name, value.replace("%h", name).replace("%%", "%")),
            "user" => set(&mut self.user, text()),
            "hostkeyalias" => set(&mut self.host_key_alias, text()),
            "proxyjump" | "proxycommand" if value.eq_ignore_ascii_case("none") => {
                set(&mut self.proxy, Proxy::None);
            }
            "proxyjump" => set(&mut self.proxy, Proxy::Jump(text())),
            "proxycommand" => set(&mut self.proxy, Proxy::Command(text())),
            "identityfile" => self.identity_files.push(text()),
            "port" => {
                if let Ok(port) = value.parse() {
                    set(&mut self.port, port);
                }
            }
            _ => {}
        }
    }
}

fn set<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

impl Condition {
    /// `so_far` is what the lines before say of the host.
    fn holds(&self, asked: Asked<'_>, so_far: &HostConfig) -> Result<bool, ConfigError> {
        for criterion in &self.criteria {
            let user = asked.user.or(so_far.user.as_deref()).or(asked.own_user).unwrap_or_default();
            let value = match &criterion.subject {
                Subject::All => "",
                Subject::Host => so_far.host_name.as_deref().unwrap_or(asked.name),
                Subject::OriginalHost => asked.name,
                Subject::User => user,
                Subject::LocalUser => asked.own_user.unwrap_or_default(),
                Subject::Other(what) => {
                    return Err(self.place.error(format!(
                        "whether this is for `{}` depends on `{what}`, which only OpenSSH can decide: say `via: ssh` for this \
                         host in the inventory, with the path of the node binary there (`binary:`) and its `listen` address",
                        asked.name
                    )));
                }
            };
            let lower = value.to_lowercase();
            // Names of hosts have no case, those of users do.
            let value = if criterion.is_about_hosts() { &lower } else { value };
            if match_patterns(criterion.patterns.iter().map(String::as_str), value) == criterion.is_negated {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Criterion {
    fn is_about_hosts(&self) -> bool {
        matches!(self.subject, Subject::Host | Subject::OriginalHost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
# comment
Host lab-* !lab-9
    HostName %h.example.org   # its real name
    Port=2222
    user \"p2ps\"
    IdentityFile ~/.ssh/lab
Host lab-2
    User late
    ProxyJump gate
Match originalhost lab-1
    Port 99
    HostKeyAlias one
Match host *.example.org user p2ps,root
    ProxyCommand never
Match !host *.example.org user \"*\" localuser me
    ProxyJump outer,inner
Host *
    IdentityFile ~/.ssh/other
    User everybody
";

    fn ask<'a>(name: &'a str) -> Asked<'a> {
        Asked { name, user: None, own_user: Some("me") }
    }

    #[test]
    fn the_first_value_counts_and_keys_add_up() {
        let config = SshConfig::parse(TEXT).unwrap();
        let lab = config.host(ask("lab-1")).unwrap();
        assert_eq!(lab.host_name.as_deref(), Some("lab-1.example.org"));
        assert_eq!((lab.port, lab.user.as_deref()), (Some(2222), Some("p2ps")));
        assert_eq!(lab.identity_files, ["~/.ssh/lab", "~/.ssh/other"]);
        assert_eq!(lab.host_key_alias.as_deref(), Some("one"));
        assert_eq!(config.host(ask("LAB-2")).unwrap().proxy, Some(Proxy::Jump("gate".into())));
        let other = config.host(ask("lab-9")).unwrap();
        assert_eq!((other.host_name, other.user.as_deref()), (None, Some("everybody")));
        assert_eq!(SshConfig::default().host(ask("x")).unwrap(), HostConfig::default());
    }

    #[test]
    fn match_looks_at_what_was_said_before_it() {
        let config = SshConfig::parse(TEXT).unwrap();
        let proxy = |asked| config.host(asked).unwrap().proxy;
        assert_eq!(proxy(ask("lab-1")), Some(Proxy::Command("never".into())), "by its real name and user");
        assert_eq!(proxy(Asked { user: Some("other"), ..ask("lab-1") }), None);
        assert_eq!(proxy(ask("far")), Some(Proxy::Jump("outer,inner".into())));
        assert_eq!(proxy(Asked { own_user: Some("you"), ..ask("far") }), None);
    }

    #[test]
    fn a_proxy_that_is_none_is_none() {
        let text = "Host a\nProxyJump none\nMatch all\nProxyJump gate";
        let config = SshConfig::parse(text).unwrap();
        assert_eq!(config.host(ask("a")).unwrap().proxy, Some(Proxy::None));
        assert_eq!(config.host(ask("b")).unwrap().proxy, Some(Proxy::Jump("gate".into())));
    }

    #[test]
    fn what_only_openssh_can_decide_is_a_mistake_where_it_matters() {
        let text =
            "Match host in.* exec \"test -e /x y\"\nProxyJump gate\n\nMatch exec true\nForwardAgent no\n";
        let config = SshConfig::parse(text).unwrap();
        let error = config.host(ask("in.side")).unwrap_err().to_string();
        assert!(error.starts_with("/config:1: ") && error.contains("`exec`"), "{error}");
        assert!(error.contains("via: ssh"), "{error}");
        assert_eq!(config.host(ask("out.side")).unwrap(), HostConfig::default());
        for (text, expected) in [
            ("\nMatch host\n", "/config:2: `host` has no patterns"),
            ("Match\n", "/config:1: `Match` wants a criterion"),
            ("Match all host a\n", "`all` stands alone"),
        ] {
            let error = SshConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
