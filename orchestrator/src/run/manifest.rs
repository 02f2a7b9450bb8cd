//! `manifest.json`: what the run was carried out with, so that it can be told from others and repeated.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use p2ps::agent::protocol::{HostFacts, Isolation};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::clock::ClockOffset;

/// The most clock measurements that are written down for one host.
const CLOCKS_MAX: usize = 1000;

/// What a run was carried out with.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    /// The version of the orchestrator.
    pub orchestrator_version: &'static str,
    /// The version of the protocol between nodes.
    pub protocol_version: u16,
    /// The version of the protocol between orchestrator and agents.
    pub agent_protocol_version: u32,
    /// The node binary.
    pub node_binary: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub node_binary_sha256: String,
    /// The plan's file.
    pub plan: PathBuf,
    /// The seed.
    pub seed: u64,
    /// What the nodes live in.
    pub isolation: Isolation,
    /// The command line.
    pub command: Vec<String>,
    /// How long agents lived without a word, in milliseconds.
    pub lease_ms: u64,
    /// When the run began (UTC).
    pub began: String,
    /// When its schedule started (UTC), if it did.
    pub started: Option<String>,
    /// When it ended (UTC), if it has.
    pub ended: Option<String>,
    /// How it ended.
    pub ending: Option<String>,
    /// Its hosts.
    pub hosts: Vec<HostManifest>,
    /// Hosts that it was to have and that could not be used.
    pub unusable_hosts: Vec<UnusableHost>,
    /// Of a simulation: the hash of all that happened. Two runs with the same one are the same to the byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A host that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnusableHost {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A host of the run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostManifest {
    /// The backend's name of it.
    pub name: String,
    /// The address that its nodes listen on and are reached at.
    pub listen: Option<IpAddr>,
    /// What its agent said of it.
    pub facts: Option<HostFacts>,
    /// The run's start on its monotonic clock, in microseconds, as it was told then.
    pub start_us: Option<u64>,
    /// Its clock against the orchestrator's: before the start, and during the run.
    pub clocks: Vec<ClockOffset>,
    /// Why its agent was given up, if it was.
    pub lost: Option<String>,
}

impl HostManifest {
    /// Writes down how the host's clock differs.
    pub fn measured(&mut self, clock: ClockOffset) {
        if self.clocks.len() < CLOCKS_MAX {
            self.clocks.push(clock);
        }
    }
}

impl Manifest {
    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        fs::rename(&temporary, path)
    }
}

/// Now, as the manifest writes times: UTC, to the microsecond.
pub(super) fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// What the system said.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            length => digest.update(&chunk[..length]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_digest_is_that_of_the_standard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(super::sha256(&path).unwrap(), expected);
    }
}
