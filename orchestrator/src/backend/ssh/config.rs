//! `~/.ssh/config`, as far as it says how a host is reached (ssh_config(5)).
//!
//! Read are `Host` blocks with HostName, Port, User, IdentityFile and HostKeyAlias; the first value counts, as in OpenSSH.
//! ProxyJump and ProxyCommand are noticed, so that a host that needs them is refused with the way out instead of being tried in vain.
//! `Match` blocks and `Include` are passed over.

use super::hostkey::match_patterns;

/// The text of a configuration, by blocks.
#[derive(Clone, Debug, Default)]
pub struct SshConfig {
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
struct Block {
    patterns: Vec<String>,
    /// Keywords in lower case, with their values.
    settings: Vec<(String, String)>,
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
    /// What it is reached through, if it is not reached directly.
    pub proxy: Option<String>,
}

impl SshConfig {
    /// Reads a configuration's text.
    pub fn parse(text: &str) -> SshConfig {
        let mut blocks = vec![Block { patterns: vec!["*".to_owned()], settings: Vec::new() }];
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let split = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
            let (keyword, value) = line.split_at(split);
            let value = value.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim();
            let keyword = keyword.to_lowercase();
            match keyword.as_str() {
                "host" => blocks.push(Block {
                    patterns: value
                        .split_whitespace()
                        .map(|word| word.trim_matches('"').to_lowercase())
                        .collect(),
                    settings: Vec::new(),
                }),
                // No patterns: fits no host.
                "match" => blocks.push(Block { patterns: Vec::new(), settings: Vec::new() }),
                _ => {
                    if let Some(block) = blocks.last_mut() {
                        block.settings.push((keyword, value.trim_matches('"').to_owned()));
                    }
                }
            }
        }
        SshConfig { blocks }
    }

    /// What it says of the host that is called `name`.
    pub fn host(&self, name: &str) -> HostConfig {
        let mut host = HostConfig::default();
        let lower = name.to_lowercase();
        let fitting = |block: &&Block| match_patterns(block.patterns.iter().map(String::as_str), &lower);
        for (keyword, value) in self.blocks.iter().filter(fitting).flat_map(|block| &block.settings) {
            match keyword.as_str() {
                "hostname" => set(&mut host.host_name, value.replace("%h", name).replace("%%", "%")),
                "user" => set(&mut host.user, value.clone()),
                "hostkeyalias" => set(&mut host.host_key_alias, value.clone()),
                "proxyjump" | "proxycommand" => set(&mut host.proxy, value.clone()),
                "identityfile" => host.identity_files.push(value.clone()),
                "port" => {
                    if let Ok(port) = value.parse() {
                        set(&mut host.port, port);
                    }
                }
                _ => {}
            }
        }
        host.proxy.take_if(|proxy| proxy.eq_ignore_ascii_case("none"));
        host
    }
}

fn set<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
# comment
Host lab-* !lab-9
    HostName %h.example.org
    Port=2222
    user \"p2ps\"
    IdentityFile ~/.ssh/lab
Host lab-2
    User late
    ProxyJump gate
Match host lab-1
    Port 99
Host *
    IdentityFile ~/.ssh/other
    User everybody
";

    #[test]
    fn the_first_value_counts_and_keys_add_up() {
        let config = SshConfig::parse(TEXT);
        let lab = config.host("lab-1");
        assert_eq!(lab.host_name.as_deref(), Some("lab-1.example.org"));
        assert_eq!((lab.port, lab.user.as_deref()), (Some(2222), Some("p2ps")));
        assert_eq!(lab.identity_files, ["~/.ssh/lab", "~/.ssh/other"]);
        assert_eq!(lab.proxy, None);
        assert_eq!(config.host("LAB-2").proxy.as_deref(), Some("gate"));
        let other = config.host("lab-9");
        assert_eq!((other.host_name, other.user.as_deref()), (None, Some("everybody")));
        assert_eq!(SshConfig::default().host("x"), HostConfig::default());
    }

    #[test]
    fn a_proxy_that_is_none_is_none() {
        let config = SshConfig::parse("Host a\nProxyJump none\nHost *\nProxyJump gate");
        assert_eq!(config.host("a").proxy, None);
        assert!(config.host("b").proxy.is_some());
    }
}
