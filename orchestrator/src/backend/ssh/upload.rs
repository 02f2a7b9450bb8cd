//! The node binary on a host: kept in a cache directory under its digest, so that it is sent once.
//!
//! It is written under a name of its own, verified there by the host's `sha256sum`, made executable, tried, and only then
//! given its name. So what has that name is whole, and a try that fails leaves nothing.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use ssh2::{Channel, Session};

/// The most that is read of what a host's commands print, in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// How long processes may take to end after their run, in seconds: somewhat longer than an agent's lease.
const SWEEP_WAIT_SECONDS: &str = "8";

/// How long is waited for each answer of a host that took no more, in milliseconds.
const SAID_WAIT_MS: u32 = 2_000;

/// How long a host waits for more of the node binary, in seconds.
const STALL_SECONDS_MAX: &str = "10";

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
        file_name(&self.digest)
    }
}

fn file_name(digest: &str) -> String {
    format!("p2ps-node-{digest}")
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

/// Looks whether the binary is there, whole, and runs. Says how the host was reached, too: client and server, each with its port (sshd(8)).
const LOOK: &str = r#"
echo "p2ps-connection $SSH_CONNECTION"
if [ -x "$file" ] && [ "$(digest_of "$file")" = "$digest" ]; then
  "$file" --version > /dev/null || exit 14
  echo "p2ps-binary $file"
fi
"#;

/// Takes the binary from standard input. What tries that were cut off by a crash of the host have left is removed. A sender that
/// is cut off does not end the input: after `$4` seconds without a byte, no more is waited for.
const STORE: &str = r#"
umask 077
mkdir -p "$dir" || exit 11
find "$dir" -name "p2ps-node-*.new" -mmin +60 -exec rm -f {} + 2> /dev/null
new=$file.$$.new
trap "kill \$taker \$watcher 2> /dev/null; rm -f \"\$new\"" EXIT
trap "exit 16" HUP INT TERM PIPE
exec 3<&0
cat <&3 > "$new" &
taker=$!
exec 3<&-
(
  trap "kill \$nap; exit" TERM
  before=0
  while sleep "$4" & nap=$!; wait "$nap"; do
    now=$(wc -c < "$new")
    [ "$now" != "$before" ] || { kill "$taker"; exit; }
    before=$now
  done
) < /dev/null > /dev/null 2>&1 &
watcher=$!
wait "$taker"
case $? in
  0) ;;
  143) echo "nothing more of it came for $4 s" >&2; exit 13 ;;
  *) exit 12 ;;
esac
[ "$(digest_of "$new")" = "$digest" ] || { echo "its digest is not $digest" >&2; exit 13; }
chmod 700 "$new" || exit 12
"$new" --version > /dev/null || exit 14
mv -f "$new" "$file" || exit 12
echo "p2ps-binary $file"
"#;

/// Waits until no process runs the binary; says which still do. `$4`: how
/// many seconds. `$5`: whether the binary is removed if none does, with its directory if that is empty then.
const SWEEP: &str = r#"
cd "$dir" 2> /dev/null || exit 0
real=$(pwd -P)/$name
running() {
  for exe in /proc/[0-9]*/exe; do
    case $(readlink "$exe" 2> /dev/null) in
      "$real" | "$real (deleted)") pid=${exe#/proc/}; echo "p2ps-left ${pid%/exe}" ;;
    esac
  done
}
tries=0
while left=$(running); [ -n "$left" ] && [ "$tries" -lt "$4" ]; do
  tries=$((tries + 1)); sleep 1
done
[ -x "$real" ] && "$real" agent --sweep 2> /dev/null | sed 's/^/p2ps-queues /'
if [ -n "$left" ]; then echo "$left"; exit 0; fi
[ "$5" = remove ] || exit 0
if [ -e "$real" ]; then
  rm -f "$real" || exit 12
  echo "p2ps-removed"
fi
cd / && rmdir "$dir" 2> /dev/null
exit 0
"#;

/// The most interfaces that a host tells of; an agent shapes as many.
pub const QUEUES_TOLD_MAX: usize = 16;

/// The longest name of an interface (`IFNAMSIZ`).
const INTERFACE_CHARACTERS_MAX: usize = 15;

/// What is on a host of a run that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The processes that still run the run's node binary; they may be another run's.
    pub left: Vec<u32>,
    /// Whether the binary was removed.
    pub removed: bool,
    /// The interfaces from which queues were removed that an agent had left; at most [`QUEUES_TOLD_MAX`].
    pub queues: Vec<String>,
}

/// Looks what is left of the binary with this digest, and removes it from the cache where that is wanted and nobody uses it. Blocks.
pub(super) fn sweep(
    session: &Session,
    cache: &str,
    digest: &str,
    remove: bool,
) -> Result<Swept, UploadError> {
    let what = if remove { "remove" } else { "keep" };
    let arguments = [cache, &file_name(digest), digest, SWEEP_WAIT_SECONDS, what];
    run_script(session, SWEEP, &arguments, &[])?.swept()
}

/// What is where the binary was provided.
pub(super) struct Provided {
    /// The binary's path there.
    pub(super) path: String,
    /// The address at which the host was reached, as it says itself.
    pub(super) address: Option<IpAddr>,
}

/// Sees to it that the host has the binary in its cache directory (`~/` is the user's home there). Blocks.
pub(super) fn provide(session: &Session, cache: &str, binary: &NodeBinary) -> Result<Provided, UploadError> {
    let arguments = [cache, &binary.file_name(), &binary.digest, STALL_SECONDS_MAX];
    let looked = run_script(session, LOOK, &arguments, &[])?;
    if looked.status == 14 {
        return Err(looked.into_error());
    }
    let address = looked.address();
    if let Some(path) = looked.found() {
        return Ok(Provided { path, address });
    }
    let stored = run_script(session, STORE, &arguments, &binary.bytes)?;
    let path = stored.found().ok_or_else(|| stored.into_error())?;
    Ok(Provided { path, address })
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

    fn address(&self) -> Option<IpAddr> {
        let line = self.stdout.lines().rev().find_map(|line| line.strip_prefix("p2ps-connection "))?;
        line.split(' ').nth(2)?.parse().ok()
    }

    fn swept(self) -> Result<Swept, UploadError> {
        if self.status != 0 {
            return Err(self.into_error());
        }
        let left =
            self.stdout.lines().filter_map(|line| line.strip_prefix("p2ps-left ")?.parse().ok()).collect();
        let queues = self.stdout.lines().filter_map(|line| line.strip_prefix("p2ps-queues "));
        // A host's words, which are shown.
        let plain =
            |name: &str| name.chars().filter(char::is_ascii_graphic).take(INTERFACE_CHARACTERS_MAX).collect();
        let queues = queues.take(QUEUES_TOLD_MAX).map(plain).collect();
        Ok(Swept { left, removed: self.stdout.lines().any(|line| line == "p2ps-removed"), queues })
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
    let output = carry(session, &mut channel, &command, input);
    if output.is_err() {
        // What the library still wants to say when channel and session are dropped is not waited for.
        session.set_timeout(1);
    }
    output
}

/// Runs a command that reads `input`, and gives back what it says.
fn carry(
    session: &Session,
    channel: &mut Channel,
    command: &str,
    input: &[u8],
) -> Result<Output, UploadError> {
    channel.exec(command).map_err(UploadError::Connection)?;
    // In one piece: the library cuts it into packets as long as can be. Where the script has ended early, its status says more than
    // this error does. It takes no more then, and has said it by now.
    if let Err(error) = channel.write_all(input)
        && error.kind() == io::ErrorKind::TimedOut
    {
        session.set_timeout(SAID_WAIT_MS);
    }
    channel.send_eof().ok();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    channel.take(OUTPUT_BYTES_MAX).read_to_end(&mut stdout).map_err(UploadError::Stream)?;
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
        let arguments = [cache_text, &name, &binary.digest, "9"];
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
    fn a_host_says_at_which_address_it_was_reached() {
        let output = |stdout: &str| Output { status: 0, stdout: stdout.to_owned(), stderr: String::new() };
        let said = output("welcome\np2ps-connection 10.0.0.1 40000 fd00::2 22\np2ps-binary /x\n");
        assert_eq!(said.address(), Some("fd00::2".parse().unwrap()));
        assert_eq!(output("p2ps-connection \n").address(), None);
        assert_eq!(output("").address(), None);
    }

    #[test]
    fn a_sweep_names_who_uses_the_binary_and_removes_it_when_nobody_does() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        std::fs::copy("/bin/sleep", cache.join(file_name("d"))).unwrap();
        let mut user = Command::new(cache.join(file_name("d"))).arg("60").spawn().unwrap();
        let name = file_name("d");
        let arguments = [cache.to_str().unwrap(), &name, "d", "0", "remove"];
        let swept = run(SWEEP, &arguments, b"").swept().unwrap();
        assert_eq!(swept, Swept { left: vec![user.id()], ..Swept::default() });
        user.kill().unwrap();
        user.wait().unwrap();
        let keep = [arguments[0], arguments[1], arguments[2], arguments[3], "keep"];
        assert_eq!(run(SWEEP, &keep, b"").swept().unwrap(), Swept::default());
        assert_eq!(run(SWEEP, &arguments, b"").swept().unwrap(), Swept { removed: true, ..Swept::default() });
        assert!(!cache.exists());
        // The run may have ended before the binary had come.
        std::fs::create_dir(&cache).unwrap();
        assert_eq!(run(SWEEP, &keep, b"").swept().unwrap(), Swept::default());
        assert!(cache.exists());
        assert_eq!(run(SWEEP, &arguments, b"").swept().unwrap(), Swept::default());
        assert!(!cache.exists());
        assert_eq!(run(SWEEP, &arguments, b"").swept().unwrap(), Swept::default());
    }

    #[test]
    fn a_sender_that_is_cut_off_is_not_waited_for_and_nothing_is_left_of_what_it_sent() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{COMMON}{STORE}"), "p2ps", cache.to_str().unwrap(), "name", "digest", "1"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It stays open: nobody says that this is the end.
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"a part").unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(13), "{said}");
        assert!(said.contains("nothing more of it came"), "{said}");
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
        drop(input);
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
            let output = run(STORE, &[cache.to_str().unwrap(), &name, &binary.digest, "9"], sent);
            assert_eq!(output.found(), None);
            let error = output.into_error().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
        }
        let output = run(STORE, &["/dev/null/cache", "n", "d", "9"], b"");
        assert!(output.into_error().to_string().contains("cache directory cannot be made"));
    }
}
