//! Hosts in network namespaces of this machine, made by `deploy/testbed` for one test: each with a real sshd, and with nothing that
//! could hide in it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// How many private networks are tried, since others may have testbeds too.
const NETWORKS_TRIED_MAX: u32 = 20;

/// A testbed of a test's own. It is taken down with this value.
pub(crate) struct Namespaces {
    directory: tempfile::TempDir,
    prefix: String,
}

/// A process in a host that is not the host's own.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) pid: u32,
    pub(crate) command: String,
}

impl Namespaces {
    /// Why there can be none here.
    pub(crate) fn impossible() -> Option<&'static str> {
        if !rustix::process::geteuid().is_root() {
            return Some("only root can make network namespaces");
        }
        let tried = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"])
            .stderr(Stdio::null())
            .status();
        let possible = tried.is_ok_and(|status| status.success());
        (!possible).then_some("this kernel, or the container we are in, allows no network namespaces")
    }

    /// Makes `hosts` good hosts.
    pub(crate) fn new(hosts: usize) -> Namespaces {
        let testbed = Namespaces {
            directory: tempfile::tempdir().unwrap(),
            prefix: format!("t{}", std::process::id() % 10_000_000),
        };
        let first = std::process::id();
        for number in first..first + NETWORKS_TRIED_MAX {
            let mut up = testbed.script(&["up"]);
            up.env("HOSTS", hosts.to_string()).env("NETWORK", format!("10.{}", 100 + number % 150));
            let output = up.output().unwrap();
            if output.status.success() {
                return testbed;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("has addresses in"), "the testbed does not come up: {said}");
        }
        panic!("no network is free for a testbed");
    }

    /// A file of the testbed's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    pub(crate) fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// An inventory of some of the hosts, of which so many are required.
    pub(crate) fn inventory(&self, hosts: std::ops::Range<usize>, required: usize) -> PathBuf {
        let path = self.directory.path().join(format!("hosts-{}.yaml", hosts.start));
        let all = fs::read_to_string(self.path("hosts.yaml")).unwrap();
        let is_wanted = |line: &&str| match line.strip_prefix("  - {name: ") {
            Some(entry) => hosts.clone().any(|host| entry.starts_with(&format!("{},", self.name(host)))),
            None => !line.starts_with("required: "),
        };
        let mut text = format!("required: {required}\n");
        all.lines().filter(is_wanted).for_each(|line| text.push_str(&format!("{line}\n")));
        fs::write(&path, text).unwrap();
        path
    }

    /// Takes a host's link down.
    pub(crate) fn cut(&self, host: usize) {
        self.link(host, "down");
    }

    /// Takes it up again.
    pub(crate) fn mend(&self, host: usize) {
        self.link(host, "up");
    }

    fn link(&self, host: usize, state: &str) {
        let status = Command::new("ip").args(["link", "set", &self.name(host), state]).status().unwrap();
        assert!(status.success(), "{} cannot be taken {state}", self.name(host));
    }

    /// Kills every sshd of a host: the listening one, which comes back, and those of its sessions. Says how many.
    pub(crate) fn kill_sshd(&self, host: usize) -> usize {
        let all = self.inhabitants(host);
        all.iter().filter(|process| process.is_sshd() && kill(process.pid)).count()
    }

    /// Kills a host's agent, if there is one.
    pub(crate) fn kill_agent(&self, host: usize) -> bool {
        let mut strangers = self.strangers(host).into_iter();
        strangers.any(|process| process.command.ends_with(" agent") && kill(process.pid))
    }

    /// The processes in a host that neither the host nor its sshd needs.
    pub(crate) fn strangers(&self, host: usize) -> Vec<Stranger> {
        let inhabitants = self.inhabitants(host).into_iter();
        let strangers = inhabitants.filter(|process| !process.is_of_host && !process.is_sshd());
        strangers.map(|process| Stranger { pid: process.pid, command: process.command }).collect()
    }

    /// What lies on a host's disk: files and directories but for the user's home.
    pub(crate) fn files(&self, host: usize) -> Vec<String> {
        let script = testbed_directory().join("left.sh");
        let mut enter = self.script(&["enter", &host.to_string(), "sh", "-s"]);
        let output = enter.stdin(fs::File::open(script).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let is_file = |line: &&str| line.starts_with("file ") || line.starts_with("directory ");
        text.lines().filter(is_file).map(str::to_owned).collect()
    }

    /// The TCP ports on which something listens in a host, but for SSH's.
    pub(crate) fn ports(&self, host: usize) -> Vec<u16> {
        let text = self.inside(host, &["cat", "/proc/net/tcp", "/proc/net/tcp6"]);
        let listening = text.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", ..] = fields[..] else { return None };
            u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
        });
        listening.filter(|port| *port != 22).collect()
    }

    /// The tables of a host's packet filter.
    pub(crate) fn filters(&self, host: usize) -> String {
        self.inside(host, &["nft", "list", "tables"])
    }

    fn inside(&self, host: usize, command: &[&str]) -> String {
        let output =
            Command::new("ip").args(["netns", "exec", &self.name(host)]).args(command).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn inhabitants(&self, host: usize) -> Vec<Inhabitant> {
        let namespace = fs::metadata(Path::new("/run/netns").join(self.name(host))).unwrap().ino();
        let namespace = format!("net:[{namespace}]");
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Inhabitant::of(pid, &namespace)).collect()
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(testbed_directory().join("testbed.sh"));
        command.args(arguments).stdin(Stdio::null());
        command.env("STATE", self.directory.path().join("state")).env("PREFIX", &self.prefix);
        command.env_remove("BAD").env_remove("LOGIN").env_remove("DISK");
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let output = self.script(&["down"]).output();
        let is_down = output.as_ref().is_ok_and(|output| output.status.success());
        assert!(is_down || std::thread::panicking(), "the testbed is still up: {output:?}");
    }
}

/// A process in a host.
struct Inhabitant {
    pid: u32,
    name: String,
    command: String,
    /// The testbed started it.
    is_of_host: bool,
}

impl Inhabitant {
    /// The process with this number, if it is in this namespace.
    fn of(pid: u32, namespace: &str) -> Option<Inhabitant> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let own = fs::read_link(process.join("ns/net")).ok()?;
        if own != Path::new(namespace) {
            return None;
        }
        let read = |name: &str| {
            let mut bytes = Vec::new();
            fs::File::open(process.join(name)).ok()?.read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let words = String::from_utf8_lossy(&read("cmdline")?).replace('\0', " ");
        Some(Inhabitant {
            pid,
            name: String::from_utf8_lossy(&read("comm")?).trim().to_owned(),
            command: words.trim().to_owned(),
            // What comes through sshd has an environment of its own.
            is_of_host: read("environ")?.split(|byte| *byte == 0).any(|word| word.starts_with(b"KIND=")),
        })
    }

    fn is_sshd(&self) -> bool {
        self.name.starts_with("sshd")
    }
}

fn kill(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

fn testbed_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/testbed")
}
