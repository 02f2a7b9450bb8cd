//! The node binary on a host: kept in a cache directory under its digest, so that it is sent once.
//!
//! It is written under a name of its own, verified there by the host's `sha256sum`, made executable, tried, and only then
//! given its name. So what has that name is whole, and a try that fails leaves nothing.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use ssh2::Session;

/// How much is sent at once, in bytes.
const CHUNK_BYTES: usize = 32 << 10;

/// The most that is read of what a host's commands print, in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// The line by which a script says where the binary is; whatever a login script prints before is passed over.
const FOUND: &str = "p2ps-binary ";

/// The node binary, in memory: it is sent to many hosts at once.
#[derive(Clone, Debug)]
pub struct NodeBinary {
    bytes: Arc<[u8]>,
    digest: String,
}

impl NodeBinary {
    /// Reads the binary.
    ///
    /// # Errors
    /// What the system said.
    pub fn read(path: &Path) -> io::Result<NodeBinary> {
        let bytes: Arc<[u8]> = std::fs::read(path)?.into();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(NodeBinary { bytes, digest })
    }

    /// The name under which hosts keep it.
    fn file_name(&self) -> String {
        format!("p2ps-node-{}", self.digest)
    }
}

/// Why a host has no node binary.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The connection failed.
    #[error("the node binary cannot be sent")]
    Connection(#[source] ssh2::Error),
    /// The connection failed.
    #[error("the node binary cannot be sent")]
    Stream(#[source] io::Error),
    /// The host refused a step.
    #[error("{what}: {said}{mend}")]
    Step {
        /// What could not be done.
        what: &'static str,
        /// What the host said.
        said: String,
        /// What to do.
        mend: &'static str,
    },
}

/// Common to both scripts: `$1` the cache directory, `$2` the binary's name, `$3` its digest. They hold no single quote,
/// being quoted themselves for whatever shell the user has.
const COMMON: &str = r#"
dir=$1; name=$2; digest=$3
case $dir in "~") dir=$HOME;; "~/"*) dir=$HOME/${dir#"~/"};; esac
file=$dir/$name
digest_of() { sha256sum < "$1" | cut -d" " -f1; }
"#;

/// Looks whether the binary is there, whole, and runs.
const LOOK: &str = r#"
if [ -x "$file" ] && [ "$(digest_of "$file")" = "$digest" ]; then
  "$file" --version > /dev/null || exit 14
  echo "p2ps-binary $file"
fi
"#;

/// Takes the binary from standard input. What tries that were cut off by a crash of the host have left is removed.
const STORE: &str = r#"
umask 077
mkdir -p "$dir" || exit 11
find "$dir" -name "p2ps-node-*.new" -mmin +60 -exec rm -f {} + 2> /dev/null
new=$file.$$.new
trap "rm -f \"\$new\"" EXIT
trap "exit 16" HUP INT TERM PIPE
cat > "$new" || exit 12
[ "$(digest_of "$new")" = "$digest" ] || { echo "its digest is not $digest" >&2; exit 13; }
chmod 700 "$new" || exit 12
"$new" --version > /dev/null || exit 14
mv -f "$new" "$file" || exit 12
echo "p2ps-binary $file"
"#;

/// Sees to it that the host has the binary in its cache directory (`~/` is the user's home there). Gives back its path. Blocks.
pub(super) fn provide(session: &Session, cache: &str, binary: &NodeBinary) -> Result<String, UploadError> {
    let arguments = [cache, &binary.file_name(), &binary.digest];
    let looked = run_script(session, LOOK, &arguments, &[])?;
    if looked.status == 14 {
        return Err(looked.into_error());
    }
    if let Some(path) = looked.found() {
        return Ok(path);
    }
    let stored = run_script(session, STORE, &arguments, &binary.bytes)?;
    stored.found().ok_or_else(|| stored.into_error())
}

/// A word for a shell on the host.
pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What a script has said.
struct Output {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Output {
    fn found(&self) -> Option<String> {
        let line = self.stdout.lines().rev().find_map(|line| line.strip_prefix(FOUND));
        line.filter(|_| self.status == 0).map(str::to_owned)
    }

    fn into_error(self) -> UploadError {
        let (what, mend) = match self.status {
            11 => ("the cache directory cannot be made", "; name another with `cache:` in the inventory"),
            12 => (
                "the node binary cannot be written",
                "; make room, or name another `cache:` in the inventory",
            ),
            13 => ("the node binary did not arrive whole", "; sha256sum has to be there"),
            14 => (
                "the node binary does not run there",
                "; it has to be of that architecture, its libraries there (or static), and `cache:` not mounted noexec",
            ),
            _ => ("the node binary cannot be put there", ""),
        };
        let mut said = self.stderr.trim().to_owned();
        if said.is_empty() {
            said = format!("exit status {}", self.status);
        }
        UploadError::Step { what, said, mend }
    }
}

fn run_script(
    session: &Session,
    script: &str,
    arguments: &[&str],
    input: &[u8],
) -> Result<Output, UploadError> {
    let mut command = format!("/bin/sh -c {} p2ps", quote(&format!("{COMMON}{script}")));
    for argument in arguments {
        command.push(' ');
        command.push_str(&quote(argument));
    }
    let mut channel = session.channel_session().map_err(UploadError::Connection)?;
    channel.exec(&command).map_err(UploadError::Connection)?;
    for chunk in input.chunks(CHUNK_BYTES) {
        // Where the script has ended early, its status says more than this does.
        if channel.write_all(chunk).is_err() {
            break;
        }
    }
    channel.send_eof().ok();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    (&mut channel).take(OUTPUT_BYTES_MAX).read_to_end(&mut stdout).map_err(UploadError::Stream)?;
    channel.stderr().take(OUTPUT_BYTES_MAX).read_to_end(&mut stderr).map_err(UploadError::Stream)?;
    channel.close().map_err(UploadError::Connection)?;
    channel.wait_close().map_err(UploadError::Connection)?;
    Ok(Output {
        status: channel.exit_status().map_err(UploadError::Connection)?,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// The scripts on this host's own shell, as a host would run them.
    fn run(script: &str, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{COMMON}{script}"), "p2ps"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).ok();
        let output = child.wait_with_output().unwrap();
        Output {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn program(text: &str) -> NodeBinary {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, text).unwrap();
        NodeBinary::read(&path).unwrap()
    }

    #[test]
    fn what_is_stored_is_found_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("a cache/of 'mine'");
        let binary = program("#!/bin/sh\necho p2ps-node 0\n");
        let (cache_text, name) = (cache.to_str().unwrap(), binary.file_name());
        let arguments = [cache_text, &name, &binary.digest];
        assert_eq!(run(LOOK, &arguments, b"").found(), None);
        let path = run(STORE, &arguments, &binary.bytes).found().unwrap();
        assert_eq!(Path::new(&path), cache.join(&name));
        assert_eq!(run(LOOK, &arguments, b"").found(), Some(path.clone()));
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
        // One that was damaged is sent again.
        std::fs::write(&path, "damage").unwrap();
        assert_eq!(run(LOOK, &arguments, b"").found(), None);
        assert!(run(STORE, &arguments, &binary.bytes).found().is_some());
        assert_eq!(std::fs::read(&path).unwrap(), *binary.bytes);
    }

    #[test]
    fn what_did_not_arrive_whole_or_does_not_run_is_refused_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let cases = [
            ("#!/bin/sh\n", &b"#!/bin"[..], "did not arrive whole"),
            ("#!/nowhere/sh\n", b"#!/nowhere/sh\n", "does not run there"),
        ];
        for (text, sent, expected) in cases {
            let binary = program(text);
            let name = binary.file_name();
            let output = run(STORE, &[cache.to_str().unwrap(), &name, &binary.digest], sent);
            assert_eq!(output.found(), None);
            let error = output.into_error().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
        }
        let output = run(STORE, &["/dev/null/cache", "n", "d"], b"");
        assert!(output.into_error().to_string().contains("cache directory cannot be made"));
    }
}
