//! Host keys, strictly: a host whose key is not recorded, or is another than the recorded one, is refused.
//!
//! The records are OpenSSH's `known_hosts` files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): plain and hashed names, patterns,
//! `[host]:port`, several keys for one host, `@revoked`. A host of which only a key of another algorithm is recorded
//! counts as changed: whoever sits in between could otherwise just offer an algorithm that is not recorded.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The longest file of known hosts that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The algorithms that hosts are asked for, the best first, where no record says otherwise.
const ALGORITHMS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
];

/// The hosts whose keys are known.
#[derive(Debug)]
pub struct KnownHosts {
    /// The first one is where new hosts are recorded.
    paths: Vec<PathBuf>,
    accept_new: bool,
    entries: Mutex<Vec<Entry>>,
}

/// A host key that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// Its algorithm.
    pub algorithm: String,
    /// It was recorded just now; before, the host was not known.
    pub is_new: bool,
}

/// Why a host's key is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// No key is recorded for the host.
    #[error(
        "its host key is not known: {key}. If that is right, record it (or run with --accept-new-hosts): \
         echo '{line}' >> {}",
        path.display()
    )]
    Unknown {
        /// The key's algorithm and SHA-256 fingerprint.
        key: String,
        /// The line to record it with.
        line: String,
        /// Where.
        path: PathBuf,
    },
    /// Another key is recorded for the host.
    #[error(
        "ITS HOST KEY HAS CHANGED to {key}; {}:{line} has a {recorded} key: it was set up anew, or \
         somebody sits in between. If you know that it is right: ssh-keygen -R '{name}' -f {}",
        path.display(), path.display()
    )]
    Changed {
        /// The host, as records name it.
        name: String,
        /// The offered key's algorithm and SHA-256 fingerprint.
        key: String,
        /// The recorded key's algorithm.
        recorded: String,
        /// Where that is recorded.
        path: PathBuf,
        /// In which line, from 1.
        line: usize,
    },
    /// The key is marked as revoked.
    #[error("its host key {fingerprint} is marked as revoked in {}:{line}", path.display())]
    Revoked {
        /// Its SHA-256 fingerprint.
        fingerprint: String,
        /// Where.
        path: PathBuf,
        /// In which line, from 1.
        line: usize,
    },
    /// The host showed no key, or none that makes sense.
    #[error("it showed no host key")]
    None,
    /// A file of known hosts cannot be read or written.
    #[error("the known hosts {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KnownHosts {
    /// Reads the records at `paths`; those that do not exist are empty. With `accept_new`, a host without any record is
    /// recorded in the first of them when it is met.
    ///
    /// # Errors
    /// [`HostKeyError::File`].
    pub fn load(paths: &[PathBuf], accept_new: bool) -> Result<KnownHosts, HostKeyError> {
        let mut entries = Vec::new();
        for path in paths {
            entries.extend(parse(path, &read(path)?));
        }
        Ok(KnownHosts { paths: paths.to_vec(), accept_new, entries: Mutex::new(entries) })
    }

    /// The algorithms to ask a host for, comma-separated: those that are recorded for it come first, so that a host with
    /// several keys shows the one that is known.
    pub fn algorithms(&self, name: &str) -> String {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.marker == Marker::None && entry.names.match_name(name))
            .map(|entry| entry.algorithm.as_str())
            .collect();
        let is_recorded = |algorithm: &&str| {
            let kind = if algorithm.starts_with("rsa-") { "ssh-rsa" } else { algorithm };
            recorded.contains(&kind)
        };
        let (mut first, others): (Vec<&str>, Vec<&str>) = ALGORITHMS.into_iter().partition(is_recorded);
        first.extend(others);
        first.join(",")
    }

    /// Checks the key that the host of this [name](recorded_name) has shown.
    ///
    /// # Errors
    /// [`HostKeyError`], where it is not the one that is recorded; or it could not be recorded.
    pub fn check(&self, name: &str, key: &[u8]) -> Result<HostKey, HostKeyError> {
        let algorithm = algorithm(key).ok_or(HostKeyError::None)?;
        let accepted = |is_new| HostKey { algorithm: algorithm.to_owned(), is_new };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let here: Vec<&Entry> = entries.iter().filter(|entry| entry.names.match_name(name)).collect();
        let of = |marker: Marker| here.iter().filter(move |entry| entry.marker == marker);
        if let Some(entry) = of(Marker::Revoked).find(|entry| entry.key == key) {
            let (path, line) = (entry.path.clone(), entry.line);
            return Err(HostKeyError::Revoked { fingerprint: fingerprint(key), path, line });
        }
        if of(Marker::None).any(|entry| entry.key == key) {
            return Ok(accepted(false));
        }
        // Of several records, the one of the same algorithm tells most.
        let same = of(Marker::None).find(|entry| entry.algorithm == algorithm);
        if let Some(entry) = same.or_else(|| of(Marker::None).next()) {
            return Err(HostKeyError::Changed {
                name: name.to_owned(),
                key: format!("{algorithm} {}", fingerprint(key)),
                recorded: entry.algorithm.clone(),
                path: entry.path.clone(),
                line: entry.line,
            });
        }
        let line = format!("{name} {algorithm} {}", STANDARD.encode(key));
        let path = self.paths.first().cloned().unwrap_or_default();
        if !self.accept_new {
            let key = format!("{algorithm} {}", fingerprint(key));
            return Err(HostKeyError::Unknown { key, line, path });
        }
        append(&path, &line).map_err(|source| HostKeyError::File { path: path.clone(), source })?;
        entries.extend(parse(&path, &line));
        Ok(accepted(true))
    }
}

/// How records name a host: with its port where that is not 22.
pub fn recorded_name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// A key's fingerprint as OpenSSH writes it.
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    line: usize,
    marker: Marker,
    names: Names,
    algorithm: String,
    key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    /// Patterns; one with `!` takes its matches out.
    Plain(Vec<String>),
    /// HMAC-SHA1 of the name, keyed with the salt.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl Names {
    fn parse(text: &str) -> Option<Names> {
        let Some(hashed) = text.strip_prefix("|1|") else {
            return Some(Names::Plain(text.split(',').map(str::to_lowercase).collect()));
        };
        let (salt, hash) = hashed.split_once('|')?;
        Some(Names::Hashed { salt: STANDARD.decode(salt).ok()?, hash: STANDARD.decode(hash).ok()? })
    }

    fn match_name(&self, name: &str) -> bool {
        match self {
            Names::Plain(patterns) => match_patterns(patterns.iter().map(String::as_str), name),
            Names::Hashed { salt, hash } => {
                let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(salt) else { return false };
                mac.update(name.as_bytes());
                mac.verify_slice(hash).is_ok()
            }
        }
    }
}

/// Whether one of `patterns` fits `name`, and none with `!` in front does.
pub(super) fn match_patterns<'a>(patterns: impl Iterator<Item = &'a str>, name: &str) -> bool {
    let mut fits = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if match_pattern(pattern.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => fits |= match_pattern(pattern.as_bytes(), name.as_bytes()),
        }
    }
    fits
}

/// `*` stands for any bytes, `?` for one. In time proportional to the product of the lengths, whatever the pattern.
pub(super) fn match_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut here, mut star) = (0, 0, None);
    while here < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[here] => (at, here) = (at + 1, here + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    (at, here) = (star_at + 1, taken + 1);
                    star = Some((star_at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Reads records. Lines that make no sense know no host and are passed over, as OpenSSH does.
fn parse(path: &Path, text: &str) -> Vec<Entry> {
    let entry = |(line, text): (usize, &str)| {
        let mut fields = text.split_whitespace().peekable();
        let marker = match *fields.peek()? {
            "@revoked" => Marker::Revoked,
            // Authorities sign certificates, which are not asked for.
            first if first.starts_with(['@', '#']) => return None,
            _ => Marker::None,
        };
        if marker == Marker::Revoked {
            fields.next();
        }
        let names = Names::parse(fields.next()?)?;
        let algorithm = fields.next()?.to_owned();
        let key = STANDARD.decode(fields.next()?).ok()?;
        Some(Entry { path: path.to_owned(), line: line + 1, marker, names, algorithm, key })
    };
    text.lines().enumerate().filter_map(entry).collect()
}

/// The name of a key's algorithm, with which it begins.
fn algorithm(key: &[u8]) -> Option<&str> {
    let (length, rest) = key.split_first_chunk()?;
    let name = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    // It is repeated in messages and records.
    let name = std::str::from_utf8(name).ok()?;
    name.bytes().all(|byte| byte.is_ascii_graphic()).then_some(name)
}

fn read(path: &Path) -> Result<String, HostKeyError> {
    let text = fs::metadata(path).and_then(|metadata| {
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
    });
    match text {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|source| HostKeyError::File { path: path.to_owned(), source }),
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let unended = fs::read(path).is_ok_and(|text| text.last().is_some_and(|last| *last != b'\n'));
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    // In one write, so that others who append do not come in between.
    file.write_all(format!("{}{line}\n", if unended { "\n" } else { "" }).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: &str, content: &str) -> Vec<u8> {
        let mut key = Vec::new();
        for part in [algorithm, content] {
            key.extend((part.len() as u32).to_be_bytes());
            key.extend(part.as_bytes());
        }
        key
    }

    fn record(names: &str, key: &[u8]) -> String {
        format!("{names} {} {} a comment\n", algorithm(key).unwrap(), STANDARD.encode(key))
    }

    fn known(text: &str) -> KnownHosts {
        let path = PathBuf::from("/k");
        let entries = Mutex::new(parse(&path, text));
        KnownHosts { paths: vec![path], accept_new: false, entries }
    }

    #[test]
    fn plain_names_ports_patterns_and_several_keys_are_known() {
        let (a, b) = (key("ssh-ed25519", "a"), key("ssh-rsa", "b"));
        let text = [
            "# a comment\n\nnonsense\nhost ssh-rsa ???\n".to_owned(),
            record("one,Two", &a),
            record("[one]:2222,10.0.0.?", &b),
            record("*.example.org,!bad.example.org", &a),
            record("one", &b),
        ];
        let known = known(&text.concat());
        for (host, port, key) in
            [("one", 22, &a), ("one", 22, &b), ("TWO", 22, &a), ("one", 2222, &b), ("10.0.0.7", 22, &b)]
        {
            known.check(&recorded_name(host, port), key).unwrap();
        }
        known.check("x.example.org", &a).unwrap();
        for (name, key) in [("[one]:2223", &b), ("three", &a), ("bad.example.org", &a), ("10.0.0.77", &b)] {
            let error = known.check(name, key).unwrap_err();
            assert!(matches!(error, HostKeyError::Unknown { .. }), "{name}: {error}");
        }
        assert!(known.algorithms("[one]:2222").starts_with("rsa-sha2-512,rsa-sha2-256,ssh-rsa,ssh-ed25519"));
        assert!(known.algorithms("two").starts_with("ssh-ed25519,"));
    }

    #[test]
    fn hashed_names_are_known() {
        // Made with OpenSSH's `ssh-keygen -H` of `[127.0.0.1]:2222`.
        let text = "|1|byjxSisWU2Tv1CpM7+4+m3OVmFc=|Y586X8Df6BNwWtcBnkMFW7iFyCM= ssh-ed25519 \
                    AAAAC3NzaC1lZDI1NTE5AAAAIMsM/Gs/zgRbBIjBLSpxkxA1XuLYITdeDesmThxPf74d\n";
        let entry = &parse(Path::new("/k"), text)[0];
        known(text).check(&recorded_name("127.0.0.1", 2222), &entry.key).unwrap();
        for name in ["127.0.0.1", "[127.0.0.1]:2223", "[127.0.0.2]:2222"] {
            let error = known(text).check(name, &entry.key).unwrap_err();
            assert!(matches!(error, HostKeyError::Unknown { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_changed_key_is_refused_with_place_fingerprint_and_mend() {
        let known = known(&format!("\n{}", record("[h]:2200", &key("ssh-ed25519", "a"))));
        let error = known.check("[h]:2200", &key("ssh-ed25519", "b")).unwrap_err().to_string();
        assert!(error.contains("/k:2") && error.contains("SHA256:"), "{error}");
        assert!(error.ends_with("ssh-keygen -R '[h]:2200' -f /k"), "{error}");
    }

    #[test]
    fn a_recorded_key_of_another_algorithm_is_a_mismatch() {
        let known = known(&record("h", &key("ssh-ed25519", "a")));
        let error = known.check("h", &key("ssh-rsa", "a")).unwrap_err();
        assert!(
            matches!(error, HostKeyError::Changed { ref recorded, .. } if recorded == "ssh-ed25519"),
            "{error}"
        );
    }

    #[test]
    fn a_revoked_key_is_refused_though_it_is_recorded() {
        let key = key("ssh-ed25519", "a");
        let text = format!("{}@revoked {}", record("h", &key), record("*", &key));
        assert!(matches!(known(&text).check("h", &key), Err(HostKeyError::Revoked { line: 2, .. })));
    }

    #[test]
    fn a_new_host_is_recorded_once_and_only_if_it_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ssh/known_hosts");
        let (a, b) = (key("ssh-ed25519", "a"), key("ssh-ed25519", "b"));
        let strict = KnownHosts::load(std::slice::from_ref(&path), false).unwrap();
        let error = strict.check("h", &a).unwrap_err().to_string();
        assert!(error.contains("echo 'h ssh-ed25519 ") && error.contains("--accept-new-hosts"), "{error}");
        assert!(!path.exists());
        let accepting = KnownHosts::load(std::slice::from_ref(&path), true).unwrap();
        accepting.check("h", &a).unwrap();
        accepting.check("h", &a).unwrap();
        assert!(matches!(accepting.check("h", &b), Err(HostKeyError::Changed { .. })));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        KnownHosts::load(&[path], false).unwrap().check("h", &a).unwrap();
    }

    #[test]
    fn keys_and_names_that_make_no_sense_are_refused() {
        let known = known("");
        for key in [&b""[..], b"\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01\n"] {
            assert!(matches!(known.check("h", key), Err(HostKeyError::None)), "{key:?}");
        }
        assert_eq!(Names::parse("|1|???|x"), None);
        assert!(!match_pattern(b"a*b*a*b*c", &[b'a'; 4000]));
    }
}
