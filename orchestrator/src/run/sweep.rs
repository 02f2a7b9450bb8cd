//! What a run has left on hosts that are reached by SSH: no process after its lease, and the cached node binary.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::hosts::{FAN_OUT_MAX, chain};
use super::journal::{self, Entry, JournalError};
use crate::backend::Hosts;
use crate::backend::inventory::{Host, Way};
use crate::backend::ssh;
use crate::backend::ssh::upload::Swept;

/// A host's name, and what is there, or why that is not known.
pub type SweptHost = (String, Result<Swept, String>);

/// The names of the hosts that the run with this journal reached by SSH.
///
/// # Errors
/// [`JournalError`].
pub fn ssh_hosts(journal_path: &Path) -> Result<BTreeSet<String>, JournalError> {
    let name = |line: journal::Line| match line.entry {
        Entry::HostPreparing { name, backend } if backend == "ssh" => Some(name),
        _ => None,
    };
    Ok(journal::read(journal_path)?.into_iter().filter_map(name).collect())
}

/// The digest of the node binary that a run's hosts were given, from its manifest.
///
/// # Errors
/// What the system said; or that there is none in it.
pub fn node_binary_digest(manifest_path: &Path) -> io::Result<String> {
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest_path)?)?;
    let digest = manifest["node_binary_sha256"].as_str().filter(|digest| {
        // It becomes part of a file's name.
        digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    digest.map(str::to_owned).ok_or_else(|| io::Error::other("it names no digest of the node binary"))
}

/// Looks at those of `names` that are in the inventory, some at a time; with `remove`, takes the cached binary away. Blocks.
pub fn sweep(hosts: &Hosts, names: &BTreeSet<String>, digest: &str, remove: bool) -> Vec<SweptHost> {
    let wanted: Vec<&Host> = hosts.inventory.hosts.iter().filter(|host| names.contains(&host.name)).collect();
    let one = |host: &Host| match &host.way {
        Way::Ssh(target) => ssh::sweep(target, &hosts.ssh, digest, remove).map_err(|error| chain(&error)),
        Way::Exec { .. } => Err("the inventory reaches it by a command now".to_owned()),
    };
    let mut swept = Vec::new();
    for some in wanted.chunks(FAN_OUT_MAX) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|host| (host, scope.spawn(|| one(host)))).collect();
            for (host, thread) in threads {
                let outcome = thread.join().unwrap_or_else(|_| Err("looking at it failed".to_owned()));
                swept.push((host.name.clone(), outcome));
            }
        });
    }
    swept
}
