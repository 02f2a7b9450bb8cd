//! Where nodes run: the arguments that say it, and the backend that they mean.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Outcome, passphrase, problem};
use crate::backend::inventory::{Defaults, Inventory, Way};
use crate::backend::local::Local;
use crate::backend::sim::Sim;
use crate::backend::ssh::config::{ConfigError, SshConfig};
use crate::backend::ssh::hostkey::KnownHosts;
use crate::backend::ssh::turnstile::Turnstile;
use crate::backend::ssh::upload::NodeBinary;
use crate::backend::ssh::{Passphrases, Settings, agent_has, is_encrypted};
use crate::backend::{Backend, Hosts};

/// How hosts are reached.
#[derive(Debug, clap::Args)]
pub(super) struct HostArguments {
    /// The user on hosts, where the inventory names none
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The private key for hosts, where the inventory names none
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The file of known hosts [default: the inventory's, or ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts]
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Records the keys of hosts that are met for the first time; changed keys are refused all the same
    #[arg(long)]
    accept_new_hosts: bool,
    /// The node binary [default: p2ps-node, next to this executable]
    #[arg(long, value_name = "PATH")]
    node_binary: Option<PathBuf>,
}

/// The backend that `on` means: `local`, `sim`, or an inventory. What is wrong is printed.
pub(super) fn backend(on: &str, arguments: &HostArguments) -> Result<Backend, Outcome> {
    let refused = |error: &dyn std::error::Error| {
        problem::print_chain(error);
        Outcome::Refused
    };
    if on == "sim" {
        return Sim::new().map(Backend::Sim).map_err(|error| refused(&error));
    }
    let local = Local::new(arguments.node_binary.as_deref()).map_err(|error| refused(&error))?;
    if on == "local" {
        return Ok(Backend::Local(local));
    }
    let node_binary_path = local.node_binary().to_owned();
    let defaults = Defaults {
        user: arguments.user.clone(),
        key: arguments.key.clone(),
        ssh_config: ssh_config().map_err(|error| refused(&error))?,
        own_user: own_user(),
        node_binary: node_binary_path.clone(),
    };
    let inventory = Inventory::load(on.as_ref(), &defaults).map_err(|error| refused(&error))?;
    let known = known_hosts(arguments, &inventory);
    let known_hosts =
        KnownHosts::load(&known, arguments.accept_new_hosts).map_err(|error| refused(&error))?;
    let node_binary = NodeBinary::read(&node_binary_path).map_err(|error| {
        problem::print(&format!("the node binary {} cannot be read: {error}", node_binary_path.display()));
        Outcome::Refused
    })?;
    let ssh =
        Settings { known_hosts, passphrases: passphrases(&inventory)?, turnstile: Turnstile::default() };
    Ok(Backend::Hosts(Arc::new(Hosts { inventory, ssh, node_binary_path, node_binary })))
}

/// The user who runs this, also where no login has said so.
fn own_user() -> Option<String> {
    let by_number = || {
        let number = rustix::process::getuid().as_raw().to_string();
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<&str>>());
        lines.find(|fields| fields.get(2) == Some(&&*number)).map(|fields| fields[0].to_owned())
    };
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok().or_else(by_number)
}

fn ssh_config() -> Result<SshConfig, ConfigError> {
    let path = std::env::home_dir().map(|home| home.join(".ssh/config"));
    path.map_or_else(|| Ok(SshConfig::default()), |path| SshConfig::load(&path))
}

fn known_hosts(arguments: &HostArguments, inventory: &Inventory) -> Vec<PathBuf> {
    if let Some(path) = arguments.known_hosts.as_ref().or(inventory.known_hosts.as_ref()) {
        return vec![path.clone()];
    }
    let own = std::env::home_dir().map(|home| home.join(".ssh/known_hosts"));
    own.into_iter().chain(["/etc/ssh/ssh_known_hosts".into()]).collect()
}

/// Asks for the passphrases of the keys that want one and that no SSH agent holds.
fn passphrases(inventory: &Inventory) -> Result<Passphrases, Outcome> {
    let mut keys: Vec<&PathBuf> = Vec::new();
    for host in &inventory.hosts {
        if let Way::Ssh(target) = &host.way {
            keys.extend(target.endpoints().flat_map(|endpoint| &endpoint.keys));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let mut passphrases = Passphrases::default();
    for key in keys.into_iter().filter(|key| is_encrypted(key) && !agent_has(key)) {
        match passphrase::ask(&format!("Passphrase of {}: ", key.display())) {
            Ok(passphrase) => passphrases.insert(key.clone(), passphrase),
            Err(error) => {
                problem::print(&format!(
                    "the passphrase of {} cannot be asked for ({error}): run this at a terminal, or give the key to an \
                     SSH agent (ssh-add {})",
                    key.display(),
                    key.display()
                ));
                return Err(Outcome::Refused);
            }
        }
    }
    Ok(passphrases)
}
