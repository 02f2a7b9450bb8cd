//! A session with a host: connected, through others if need be, its key checked, the user known to it.

use std::io;
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ssh2::{ErrorCode, MethodType, Session};

use super::channel::{PassError, pass_through};
use super::hostkey::{HostKey, HostKeyError, recorded_name};
use super::{Endpoint, Passphrases, Settings, Target};

/// How long a host may take to answer a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// How long it may take to agree on keys, in milliseconds.
const HANDSHAKE_WAIT_MS: u32 = 15_000;

/// How long it may take for each step after that, in milliseconds.
const STEP_WAIT_MS: u32 = 30_000;

/// The most keys of the agent that a host is offered: hosts refuse a connection after some tries (sshd's MaxAuthTries).
const AGENT_KEYS_MAX: usize = 4;

/// The ciphers that hosts are asked for, the best first: the library leaves AES to OpenSSL, which uses what processors have for it, and
/// does ChaCha20 by itself, several times slower. Those in CBC mode, which it knows too, are not wanted.
const CIPHERS: &str = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,\
                       aes256-ctr";

/// libssh2's codes for a connection that was lost or took too long.
const CONNECTION_ERRORS: [i32; 8] = [-2, -3, -5, -7, -8, -9, -13, -43];

/// A session that is ready for work.
pub(super) struct Connected {
    pub(super) session: Session,
    /// The connection below it.
    pub(super) socket: OwnedFd,
    /// The host's address, where it was reached directly.
    pub(super) address: Option<IpAddr>,
    /// The host's key.
    pub(super) host_key: HostKey,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The host's name has no address.
    #[error("{address} cannot be resolved")]
    Resolve {
        /// Its name.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("{address}, port {port}, cannot be reached")]
    Connect {
        /// Its name or address.
        address: String,
        /// Its port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// It answers, but not as an SSH server does.
    #[error("{address}, port {port}, does not speak SSH with us")]
    Handshake {
        /// Its name or address.
        address: String,
        /// Its port.
        port: u16,
        /// What was wrong.
        source: ssh2::Error,
    },
    /// Its key is not accepted.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// It does not let the user in.
    #[error("it does not let {user} in ({}){mend}", tried.join("; "))]
    Refused {
        /// The user.
        user: String,
        /// What was tried, and what came of it.
        tried: Vec<String>,
        /// What to do.
        mend: String,
    },
    /// A host on the way to it makes no way to the next.
    #[error("{jump} makes no way to {address}, port {port}{}", forwarding_mend(source))]
    Passage {
        /// The host on the way.
        jump: String,
        /// The next one's name or address.
        address: String,
        /// Its port.
        port: u16,
        /// What was wrong.
        source: ssh2::Error,
    },
    /// Something is wrong with a host on the way to it.
    #[error("on the way to it, at {jump}")]
    Jump {
        /// The host on the way.
        jump: String,
        /// What is wrong.
        source: Box<SessionError>,
    },
    /// This system refused what it takes.
    #[error("no connection can be made")]
    System(#[source] io::Error),
    /// The library failed.
    #[error("no session can be made")]
    Library(#[source] ssh2::Error),
}

fn forwarding_mend(error: &ssh2::Error) -> &'static str {
    if error.message().contains("prohibited") {
        " (it wants AllowTcpForwarding in its sshd_config)"
    } else {
        ""
    }
}

impl SessionError {
    /// Whether another try may help: the connection failed, rather than the host or we said no.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            SessionError::Resolve { .. } | SessionError::Connect { .. } => true,
            SessionError::Handshake { source, .. } | SessionError::Library(source) => is_lost(source),
            SessionError::Passage { source, .. } => !source.message().contains("prohibited"),
            SessionError::Jump { source, .. } => source.is_passing(),
            SessionError::HostKey(_) | SessionError::Refused { .. } | SessionError::System(_) => false,
        }
    }
}

/// Whether an error is that of a connection which was lost or took too long.
pub(super) fn is_lost(error: &ssh2::Error) -> bool {
    matches!(error.code(), ErrorCode::Session(code) if CONNECTION_ERRORS.contains(&code))
}

/// Connects to a host, by way of its jumps. Blocks.
pub(super) fn connect(target: &Target, settings: &Settings) -> Result<Connected, SessionError> {
    let mut before: Option<(&Endpoint, Connected)> = None;
    for endpoint in target.endpoints() {
        let reached = match before {
            None => enter(endpoint, settings),
            Some((jump, connected)) => pass(jump, connected, endpoint, settings),
        };
        let is_jump = endpoint != &target.endpoint;
        let connected = reached.map_err(|source| match is_jump {
            true => SessionError::Jump { jump: endpoint.address.clone(), source: Box::new(source) },
            false => source,
        })?;
        before = Some((endpoint, connected));
    }
    let (_, connected) = before.expect("a target's own endpoint is the last one");
    Ok(connected)
}

/// Begins a session with a host that is reached directly.
fn enter(endpoint: &Endpoint, settings: &Settings) -> Result<Connected, SessionError> {
    let _pass = settings.turnstile.enter(&endpoint.address, endpoint.port);
    let stream = dial(endpoint)?;
    stream.set_nodelay(true).map_err(SessionError::System)?;
    let address = stream.peer_addr().map_err(SessionError::System)?.ip();
    let connected = begin(endpoint, stream.into(), settings)?;
    Ok(Connected { address: Some(address), ..connected })
}

/// Begins a session with a host that is reached through another.
fn pass(
    jump: &Endpoint,
    connected: Connected,
    endpoint: &Endpoint,
    settings: &Settings,
) -> Result<Connected, SessionError> {
    let (address, port) = (endpoint.address.clone(), endpoint.port);
    let stream = pass_through(connected, &address, port).map_err(|error| match error {
        PassError::Refused(source) => {
            SessionError::Passage { jump: jump.address.clone(), address, port, source }
        }
        PassError::System(source) => SessionError::System(source),
    })?;
    begin(endpoint, stream.into(), settings)
}

/// Agrees on keys, checks the host's, and proves who we are.
fn begin(endpoint: &Endpoint, socket: OwnedFd, settings: &Settings) -> Result<Connected, SessionError> {
    let Settings { known_hosts, passphrases, .. } = settings;
    let name = match &endpoint.host_key_alias {
        Some(alias) => alias.to_lowercase(),
        None => recorded_name(&endpoint.address, endpoint.port),
    };
    let mut session = Session::new().map_err(SessionError::Library)?;
    session.set_timeout(HANDSHAKE_WAIT_MS);
    session.set_tcp_stream(socket.try_clone().map_err(SessionError::System)?);
    let algorithms = known_hosts.algorithms(&name);
    for (kind, wanted) in [
        (MethodType::HostKey, algorithms.as_str()),
        (MethodType::CryptCs, CIPHERS),
        (MethodType::CryptSc, CIPHERS),
    ] {
        session.method_pref(kind, wanted).map_err(SessionError::Library)?;
    }
    session.handshake().map_err(|source| {
        let (address, port) = (endpoint.address.clone(), endpoint.port);
        SessionError::Handshake { address, port, source }
    })?;
    session.set_timeout(STEP_WAIT_MS);
    let (key, _) = session.host_key().ok_or(HostKeyError::None)?;
    let host_key = known_hosts.check(&name, key)?;
    Admission { session: &session, endpoint, passphrases, tried: Vec::new() }.get_in()?;
    Ok(Connected { session, socket, address: None, host_key })
}

/// Tries each of the host's addresses.
fn dial(endpoint: &Endpoint) -> Result<TcpStream, SessionError> {
    let address = &endpoint.address;
    let resolved = (address.as_str(), endpoint.port).to_socket_addrs();
    let resolved = resolved.map_err(|source| SessionError::Resolve { address: address.clone(), source })?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for socket_address in resolved {
        match TcpStream::connect_timeout(&socket_address, CONNECT_WAIT) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(SessionError::Connect { address: address.clone(), port: endpoint.port, source: last })
}

/// The ways to prove who we are, one after the other.
struct Admission<'a> {
    session: &'a Session,
    endpoint: &'a Endpoint,
    passphrases: &'a Passphrases,
    tried: Vec<String>,
}

impl Admission<'_> {
    /// Keys that are named for the host, then those of the agent (only these, if keys are named), then the usual files.
    fn get_in(mut self) -> Result<(), SessionError> {
        let named = !self.endpoint.keys.is_empty();
        let is_in = match named {
            true => self.files(&self.endpoint.keys) || self.agent(),
            false => self.agent() || self.files(&usual_keys()),
        };
        // A host may let anybody in, or want a second proof after the first.
        if is_in && self.session.authenticated() {
            return Ok(());
        }
        if self.tried.is_empty() {
            self.tried.push("there is no key: no agent, none in ~/.ssh, none named".into());
        }
        let Endpoint { user, address, port, keys, .. } = self.endpoint;
        let key = keys.first().map_or(String::new(), |key| format!("-i {} ", key.display()));
        let mend = format!(". To let it in: ssh-copy-id {key}-p {port} {user}@{address}");
        Err(SessionError::Refused { user: user.clone(), tried: self.tried, mend })
    }

    fn files(&mut self, keys: &[PathBuf]) -> bool {
        keys.iter().any(|key| self.file(key))
    }

    fn file(&mut self, key: &Path) -> bool {
        let passphrase = self.passphrases.of(key);
        let outcome = match std::fs::metadata(key) {
            Err(error) => Err(error.to_string()),
            Ok(_) if passphrase.is_none() && super::is_encrypted(key) => {
                Err("it has a passphrase".to_owned())
            }
            Ok(_) => self
                .session
                .userauth_pubkey_file(&self.endpoint.user, None, key, passphrase)
                .map_err(|error| error.message().to_owned()),
        };
        self.note(&format!("key {}", key.display()), outcome)
    }

    fn agent(&mut self) -> bool {
        if std::env::var_os("SSH_AUTH_SOCK").is_none() {
            return false;
        }
        let offered = (|| {
            let mut agent = self.session.agent()?;
            agent.connect()?;
            agent.list_identities()?;
            let identities = agent.identities()?;
            Ok::<_, ssh2::Error>((agent, identities))
        })();
        let (agent, identities) = match offered {
            Ok(offered) => offered,
            Err(error) => return self.note("agent", Err(error.message().to_owned())),
        };
        let named: Vec<Vec<u8>> = self.endpoint.keys.iter().filter_map(|key| public_key(key)).collect();
        let is_wanted = |blob: &[u8]| self.endpoint.keys.is_empty() || named.iter().any(|key| key == blob);
        let wanted: Vec<_> = identities.iter().filter(|identity| is_wanted(identity.blob())).collect();
        for identity in wanted.into_iter().take(AGENT_KEYS_MAX) {
            let outcome = agent.userauth(&self.endpoint.user, identity);
            let outcome = outcome.map_err(|error| error.message().to_owned());
            if self.note(&format!("the agent's key {}", identity.comment()), outcome) {
                return true;
            }
        }
        false
    }

    fn note(&mut self, what: &str, outcome: Result<(), String>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(error) => {
                self.tried.push(format!("{what}: {error}"));
                false
            }
        }
    }
}

/// The key files that are tried where none is named.
fn usual_keys() -> Vec<PathBuf> {
    let Some(home) = std::env::home_dir() else { return Vec::new() };
    let names = ["id_ed25519", "id_ecdsa", "id_rsa"];
    names.iter().map(|name| home.join(".ssh").join(name)).filter(|path| path.is_file()).collect()
}

/// The public part of a key file, from the file next to it.
pub(super) fn public_key(key: &Path) -> Option<Vec<u8>> {
    let mut path = key.as_os_str().to_owned();
    path.push(".pub");
    let text = std::fs::read_to_string(path).ok()?;
    STANDARD.decode(text.split_whitespace().nth(1)?).ok()
}
