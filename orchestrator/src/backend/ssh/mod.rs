//! The SSH backend: one session a host, one channel in it to the host's agent.
//!
//! Everything that a run does on a host goes over the agent; SSH only brings the node binary there and holds the way open.
//! When the session ends, for whatever reason, so does the agent's input, and with it everything that the agent started.

mod channel;
pub mod config;
pub mod hostkey;
pub mod session;
pub mod turnstile;
pub mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use self::hostkey::{HostKey, KnownHosts};
use self::session::{Connected, SessionError, connect};
use self::turnstile::Turnstile;
use self::upload::{NodeBinary, Provided, Swept, UploadError};
use super::AgentConnection;

/// How often a host is tried, where another try may help.
const TRIES_MAX: u32 = 3;

/// The pause before the second try; the next is twice as long. Each is shortened by a random part, at most by half.
const PAUSE: Duration = Duration::from_millis(800);

/// The most hosts on the way to another.
pub const JUMPS_MAX: usize = 8;

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub endpoint: Endpoint,
    /// The hosts on the way to it, the nearest first; at most [`JUMPS_MAX`]. Each resolves the address of the next.
    pub jumps: Vec<Endpoint>,
    /// Where it keeps node binaries; `~/` is the user's home there.
    pub cache: String,
}

impl Target {
    /// All SSH servers that are spoken to, in their order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.jumps.iter().chain([&self.endpoint])
    }
}

/// An SSH server, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name or address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The private keys to try; none: the agent's, and the usual ones.
    pub keys: Vec<PathBuf>,
    /// The name by which its key is recorded, if that is not its address.
    pub host_key_alias: Option<String>,
}

/// What all hosts' sessions need.
#[derive(Debug)]
pub struct Settings {
    /// The hosts whose keys are known.
    pub known_hosts: KnownHosts,
    /// The passphrases of keys.
    pub passphrases: Passphrases,
    /// Bounds how many sessions begin at one server at a time.
    pub turnstile: Turnstile,
}

/// Passphrases of private keys, by their files. They are held in memory only.
#[derive(Clone, Default)]
pub struct Passphrases(BTreeMap<PathBuf, String>);

impl Passphrases {
    /// Adds one.
    pub fn insert(&mut self, key: PathBuf, passphrase: String) {
        self.0.insert(key, passphrase);
    }

    fn of(&self, key: &Path) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl fmt::Debug for Passphrases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passphrases of {} keys", self.0.len())
    }
}

/// Why a host cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// There is no session with it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// It has no node binary.
    #[error(transparent)]
    Upload(#[from] UploadError),
}

impl SshError {
    /// Whether another try may help.
    fn is_passing(&self) -> bool {
        match self {
            SshError::Session(error) => error.is_passing(),
            SshError::Upload(UploadError::Connection(error)) => session::is_lost(error),
            SshError::Upload(UploadError::Stream(_)) => true,
            SshError::Upload(UploadError::Step { .. }) => false,
        }
    }
}

/// A host with a session and the node binary in its place; its agent can be started.
pub struct Prepared {
    connected: Connected,
    address: Option<IpAddr>,
    binary: String,
}

impl Prepared {
    /// Connects to a host and brings the node binary there. What fails in a way that may pass is tried again: nothing of it
    /// does harm twice. Blocks.
    ///
    /// # Errors
    /// [`SshError`], of the last try.
    pub fn new(target: &Target, settings: &Settings, binary: &NodeBinary) -> Result<Prepared, SshError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES_MAX {
            match Prepared::once(target, settings, binary) {
                Err(error) if error.is_passing() => {}
                other => return other,
            }
            std::thread::sleep(jittered(pause));
            pause *= 2;
        }
        Prepared::once(target, settings, binary)
    }

    fn once(target: &Target, settings: &Settings, binary: &NodeBinary) -> Result<Prepared, SshError> {
        let connected = connect(target, settings)?;
        let Provided { path, address } = upload::provide(&connected.session, &target.cache, binary)?;
        // What lies behind other hosts is known only to itself.
        Ok(Prepared { address: connected.address.or(address), connected, binary: path })
    }

    /// The address at which the host was reached: by this host, or by the last one on the way.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The host's key.
    pub fn host_key(&self) -> &HostKey {
        &self.connected.host_key
    }

    /// Starts its agent. What goes wrong on the host is how the agent ended.
    ///
    /// # Errors
    /// What this system said.
    pub fn start(self) -> std::io::Result<AgentConnection> {
        channel::start_agent(self.connected, &self.binary)
    }
}

/// Looks what a run with the node binary of this digest has left on a host; with `remove`, takes the cached binary away where nobody
/// uses it. Blocks.
///
/// # Errors
/// [`SshError`].
pub fn sweep(target: &Target, settings: &Settings, digest: &str, remove: bool) -> Result<Swept, SshError> {
    let connected = connect(target, settings)?;
    Ok(upload::sweep(&connected.session, &target.cache, digest, remove)?)
}

/// Whether the user's SSH agent holds this private key; it is known by the public one next to it.
pub fn agent_has(key: &Path) -> bool {
    if std::env::var_os("SSH_AUTH_SOCK").is_none() {
        return false;
    }
    let listed = || {
        let mut agent = ssh2::Session::new()?.agent()?;
        agent.connect()?;
        agent.list_identities()?;
        agent.identities()
    };
    let (Some(public), Ok(identities)) = (session::public_key(key), listed()) else { return false };
    identities.iter().any(|identity| identity.blob() == public)
}

/// Whether a private key file wants a passphrase. One that cannot be read does not.
pub fn is_encrypted(key: &Path) -> bool {
    std::fs::read_to_string(key).is_ok_and(|text| is_encrypted_text(&text))
}

fn is_encrypted_text(text: &str) -> bool {
    const MAGIC: &[u8] = b"openssh-key-v1\0";
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let Ok(decoded) = STANDARD.decode(body) else {
        // The older form, with headers.
        return text.contains("ENCRYPTED");
    };
    match decoded.strip_prefix(MAGIC) {
        // The cipher's name follows (PROTOCOL.key), after its length.
        Some(rest) => !rest.starts_with(b"\0\0\0\x04none"),
        None => text.contains("ENCRYPTED"),
    }
}

fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1000;
    pause / 2 + (pause / 2).mul_f64(random as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_a_passphrase_is_told_from_one_without() {
        let key = |content: &[u8]| {
            let body = STANDARD.encode([b"openssh-key-v1\0", content].concat());
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
        };
        assert!(!is_encrypted_text(&key(b"\0\0\0\x04none\0\0\0\x04none")));
        assert!(is_encrypted_text(&key(b"\0\0\0\x0aaes256-ctr\0\0\0\x06bcrypt")));
        assert!(is_encrypted_text("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n"));
        assert!(is_encrypted_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"));
        assert!(!is_encrypted_text("-----BEGIN PRIVATE KEY-----\nAAAA\n"));
    }

    #[test]
    fn passphrases_are_not_shown() {
        let mut passphrases = Passphrases::default();
        passphrases.insert("/k".into(), "secret".into());
        assert_eq!(passphrases.of(Path::new("/k")), Some("secret"));
        assert!(!format!("{passphrases:?}").contains("secret"));
    }

    #[test]
    fn pauses_differ_and_have_bounds() {
        for _ in 0..100 {
            let pause = jittered(PAUSE);
            assert!(pause >= PAUSE / 2 && pause <= PAUSE, "{pause:?}");
        }
    }
}
