//! How a host of an inventory is reached: what the inventory says, then `~/.ssh/config`, then the usual values.

use super::{Collection, EntryFields, Way, check_word, expand_home, list_entry};
use crate::backend::exec::{self, Template};
use crate::backend::ssh::config::{Asked, HostConfig, Proxy};
use crate::backend::ssh::{Endpoint, JUMPS_MAX, Target};

/// Where hosts keep node binaries, unless the inventory says otherwise.
const CACHE: &str = "~/.cache/p2ps";

/// SSH's port.
const SSH_PORT: u16 = 22;

/// By a command.
pub(super) fn exec(
    collection: &Collection<'_>,
    name: &str,
    entry: &EntryFields,
    via: &str,
) -> Result<Way, String> {
    let template = Template::parse(via).map_err(|error| {
        let presets = exec::PRESETS.map(|(name, _)| name).join(", ");
        format!("`via: {via}`: {error}; write a command with {{host}} and {{binary}}, or one of {presets}")
    })?;
    if let Some(jump) = &entry.jump {
        return Err(format!(
            "`jump: {jump}` is for hosts that are reached by SSH: the command of `via` says all"
        ));
    }
    let binary = entry.binary.as_ref().or(collection.common.binary.as_ref());
    let binary = binary.cloned().unwrap_or_else(|| collection.defaults.node_binary.display().to_string());
    let address = entry.address.clone().unwrap_or_else(|| name.to_owned());
    Ok(Way::Exec { command: template.command(&address, &binary), address })
}

/// By SSH.
pub(super) fn target(collection: &Collection<'_>, name: &str, entry: &EntryFields) -> Result<Target, String> {
    let (common, defaults) = (&collection.common, collection.defaults);
    if let Some(binary) = entry.binary.as_ref().or(common.binary.as_ref()) {
        return Err(format!(
            "`binary: {binary}` is for hosts with `via`: to others the node binary is sent; say `cache:` where it is kept"
        ));
    }
    let alias = entry.address.as_deref().unwrap_or(name);
    let user = entry.user.as_ref().or(common.user.as_ref()).or(defaults.user.as_ref());
    let key = entry.key.as_ref().or(common.key.as_ref()).map(|key| expand_home(key));
    let key = key.or_else(|| defaults.key.clone());
    let config = config_of(collection, alias, user)?;
    let jumps = match entry.jump.as_ref().or(common.jump.as_ref()) {
        Some(none) if none.eq_ignore_ascii_case("none") => Vec::new(),
        // What the inventory says is for its jumps too.
        Some(jump) => {
            hosts_on_the_way(collection, jump, user).map_err(|error| format!("`jump: {jump}`: {error}"))?
        }
        None => own_jumps(collection, alias, &config)?,
    };
    let port = entry.port.or(common.port).map(|port| port.0);
    let mut endpoint = endpoint(collection, alias, config, user, port)?;
    let mut jumps: Vec<Endpoint> = jumps;
    if let Some(key) = key {
        endpoint.keys = vec![key.clone()];
        // A jump has the keys that ~/.ssh/config names for it, or else its host's.
        jumps.iter_mut().filter(|jump| jump.keys.is_empty()).for_each(|jump| jump.keys = vec![key.clone()]);
    }
    let cache = entry.cache.as_ref().or(common.cache.as_ref());
    Ok(Target { endpoint, jumps, cache: cache.cloned().unwrap_or_else(|| CACHE.to_owned()) })
}

fn config_of(collection: &Collection<'_>, alias: &str, user: Option<&String>) -> Result<HostConfig, String> {
    let Collection { defaults, .. } = collection;
    let own_user = defaults.own_user.as_deref();
    let asked = Asked { name: alias, user: user.map(String::as_str), own_user };
    defaults.ssh_config.host(asked).map_err(|error| error.to_string())
}

fn endpoint(
    collection: &Collection<'_>,
    alias: &str,
    config: HostConfig,
    user: Option<&String>,
    port: Option<u16>,
) -> Result<Endpoint, String> {
    let user = user.cloned().or(config.user).or_else(|| collection.defaults.own_user.clone());
    Ok(Endpoint {
        address: config.host_name.unwrap_or_else(|| alias.to_owned()),
        port: port.or(config.port).unwrap_or(SSH_PORT),
        user: user.ok_or_else(|| format!("`{alias}` has no user: say `user:` or --user NAME"))?,
        keys: config.identity_files.iter().map(|file| expand_home(file)).collect(),
        host_key_alias: config.host_key_alias,
    })
}

/// The hosts on the way to a host, as `~/.ssh/config` has it.
fn own_jumps(collection: &Collection<'_>, alias: &str, config: &HostConfig) -> Result<Vec<Endpoint>, String> {
    match &config.proxy {
        None | Some(Proxy::None) => Ok(Vec::new()),
        Some(Proxy::Jump(jump)) => hosts_on_the_way(collection, jump, None)
            .map_err(|error| format!("~/.ssh/config, ProxyJump {jump} of `{alias}`: {error}")),
        Some(Proxy::Command(command)) => Err(format!(
            "~/.ssh/config reaches `{alias}` by ProxyCommand ({command}), which only OpenSSH can: say `jump: HOST`, or `via: ssh` \
             with the path of the node binary there (`binary:`) and its `listen` address"
        )),
    }
}

/// Reads `[user@]host[:port],…`, the nearest first. The way to the nearest is what `~/.ssh/config` says of it, as in OpenSSH.
fn hosts_on_the_way(
    collection: &Collection<'_>,
    jumps: &str,
    user: Option<&String>,
) -> Result<Vec<Endpoint>, String> {
    // From the last to the first: in front of that comes what leads to it, which may be more of the same.
    let mut way: Vec<Endpoint> = Vec::new();
    let mut waiting = jumps.to_owned();
    loop {
        let mut nearest = None;
        for jump in waiting.split(',').rev() {
            if way.len() == JUMPS_MAX {
                return Err(format!("there are more than {JUMPS_MAX} hosts on the way: is it a circle?"));
            }
            let entry = list_entry(jump.trim().trim_start_matches("ssh://"))?;
            let alias = entry.name.unwrap_or_default();
            check_word(&alias)?;
            if let Some(user) = &entry.user {
                check_word(user)?;
            }
            let config = config_of(collection, &alias, entry.user.as_ref())?;
            let proxy = config.proxy.clone();
            let user = entry.user.or_else(|| config.user.clone()).or_else(|| user.cloned());
            way.push(endpoint(collection, &alias, config, user.as_ref(), entry.port.map(|port| port.0))?);
            nearest = Some((alias, proxy));
        }
        match nearest {
            Some((_, Some(Proxy::Jump(more)))) => waiting = more,
            Some((alias, Some(Proxy::Command(command)))) => {
                return Err(format!(
                    "`{alias}` is reached by ProxyCommand ({command}), which only OpenSSH can"
                ));
            }
            _ => break,
        }
    }
    way.reverse();
    Ok(way)
}
