//! Real SSH servers on loopback, with keys made for the test. Needs `sshd` (Debian: openssh-server).

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::WAIT;

const SSHD: &str = "/usr/sbin/sshd";

/// A directory with keys, known hosts and caches, for several servers.
pub(crate) struct Testbed {
    pub(crate) root: tempfile::TempDir,
    servers: Vec<Server>,
}

/// A server; it and its sessions end with it.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    pub(crate) address: String,
    pub(crate) port: u16,
    /// `algorithm base64`.
    pub(crate) host_key: String,
}

impl Testbed {
    pub(crate) fn new() -> Testbed {
        assert!(Path::new(SSHD).exists(), "there is no {SSHD}: apt-get install openssh-server");
        // Where sshd starts as root, it wants this; elsewhere it does not.
        fs::create_dir_all("/run/sshd").ok();
        let testbed = Testbed { root: tempfile::tempdir().unwrap(), servers: Vec::new() };
        testbed.make_key("user");
        fs::copy(testbed.path("user.pub"), testbed.path("authorized_keys")).unwrap();
        fs::write(testbed.path("known_hosts"), "").unwrap();
        testbed
    }

    /// The user whom the servers know.
    pub(crate) fn user(&self) -> String {
        let output = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Makes a key pair; gives back `algorithm base64` of the public one.
    pub(crate) fn make_key(&self, name: &str) -> String {
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(self.path(name))
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let text = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Starts a server that listens on `address`; its host key becomes known unless it is said not to.
    pub(crate) fn serve(&mut self, address: &str, is_known: bool) -> &Server {
        self.serve_with(address, is_known, "")
    }

    /// The same, with more lines in its configuration.
    pub(crate) fn serve_with(&mut self, address: &str, is_known: bool, lines: &str) -> &Server {
        let number = self.servers.len();
        let host_key = self.make_key(&format!("host{number}"));
        let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let config = self.path(&format!("sshd{number}.conf"));
        let text = format!(
            "ListenAddress {address}\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             {lines}\n",
            self.path(&format!("host{number}")).display(),
            self.path("authorized_keys").display(),
        );
        fs::write(&config, text).unwrap();
        let log = self.path(&format!("sshd{number}.log"));
        let child = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut server = Server { child, log, address: address.to_owned(), port, host_key };
        server.wait_ready();
        if is_known {
            let line = format!("[{address}]:{port} {}\n", server.host_key);
            let path = self.path("known_hosts");
            fs::write(&path, fs::read_to_string(&path).unwrap() + &line).unwrap();
        }
        self.servers.push(server);
        self.servers.last().unwrap()
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        &self.servers[number]
    }

    /// An inventory with these lines under `hosts:`; its cache is below the root.
    pub(crate) fn inventory(&self, head: &str, hosts: &[String]) -> PathBuf {
        let mut text = format!(
            "defaults: {{user: {}, key: {}, cache: {}}}\nknown_hosts: {}\n{head}hosts:\n",
            self.user(),
            self.path("user").display(),
            self.path("cache").display(),
            self.path("known_hosts").display(),
        );
        hosts.iter().for_each(|host| text.push_str(&format!("  - {host}\n")));
        let path = self.path("hosts.yaml");
        fs::write(&path, text).unwrap();
        path
    }

    /// The processes that run a node binary from the cache.
    pub(crate) fn processes(&self) -> Vec<String> {
        let cache = self.path("cache");
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let executables = entries.filter_map(|entry| fs::read_link(entry.path().join("exe")).ok());
        executables.filter(|path| path.starts_with(&cache)).map(|path| path.display().to_string()).collect()
    }

    pub(crate) fn wait_no_process(&self) {
        let deadline = Instant::now() + WAIT;
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "still there: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Takes a key from those that are known, and records another in its place.
    pub(crate) fn exchange_known(&self, recorded: &str, other: &str) {
        let known = self.path("known_hosts");
        let text = fs::read_to_string(&known).unwrap();
        assert!(text.contains(recorded));
        fs::write(&known, text.replace(recorded, other)).unwrap();
    }

    /// The names in the cache.
    pub(crate) fn cached(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Server {
    /// A line of an inventory.
    pub(crate) fn entry(&self, name: &str) -> String {
        format!("{{name: {name}, address: {}, port: {}}}", self.address, self.port)
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Ok(mut stream) = TcpStream::connect((self.address.as_str(), self.port)) {
                let mut banner = [0; 4];
                stream.read_exact(&mut banner).unwrap();
                assert_eq!(&banner, b"SSH-");
                return;
            }
            assert!(Instant::now() < deadline, "sshd does not come up");
            assert_eq!(self.child.try_wait().unwrap(), None, "sshd has ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Kills the processes of its sessions, as the end of a host would.
    pub(crate) fn kill_sessions(&self) {
        for pid in children(self.child.id()) {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}

/// The processes whose parent is `parent`.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).to_owned();
        fields.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_sessions();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
