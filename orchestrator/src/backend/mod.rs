//! Backends: how an agent is reached.
//!
//! A backend prepares a host, starts its agent and hands out the agent's standard input and output; it differs from another in
//! nothing else. What is said over them is `run`'s affair.

pub mod exec;
pub mod inventory;
pub mod local;
pub mod sim;
pub mod ssh;

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use p2ps::agent::protocol::PortRange;
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;
use tokio::sync::oneshot;

use self::inventory::{Inventory, Way};
use self::ssh::SshError;
use self::ssh::hostkey::HostKey;
use self::ssh::upload::NodeBinary;

/// Where a run's nodes run.
#[derive(Clone, Debug)]
pub enum Backend {
    /// On this host, by one agent that is a child process.
    Local(local::Local),
    /// On the hosts of an inventory.
    Hosts(Arc<Hosts>),
    /// In a simulation, in this process and in virtual time.
    Sim(sim::Sim),
}

/// The hosts of an inventory, and what it takes to reach them.
#[derive(Debug)]
pub struct Hosts {
    /// The hosts.
    pub inventory: Inventory,
    /// What sessions by SSH need.
    pub ssh: ssh::Settings,
    /// Where the node binary is on this host.
    pub node_binary_path: PathBuf,
    /// The node binary.
    pub node_binary: NodeBinary,
}

impl Backend {
    /// How many hosts there are to choose from.
    pub fn candidates(&self) -> usize {
        match self {
            Backend::Local(_) | Backend::Sim(_) => 1,
            Backend::Hosts(hosts) => hosts.inventory.hosts.len(),
        }
    }

    /// How many hosts a run uses, at most.
    pub fn wanted(&self) -> usize {
        match self {
            Backend::Local(_) | Backend::Sim(_) => 1,
            Backend::Hosts(hosts) => hosts.inventory.wanted,
        }
    }

    /// How many hosts a run needs, at least.
    pub fn required(&self) -> usize {
        match self {
            Backend::Local(_) | Backend::Sim(_) => 1,
            Backend::Hosts(hosts) => hosts.inventory.required,
        }
    }

    /// How a host is reached, for the journal.
    pub fn kind(&self, candidate: usize) -> &'static str {
        match self {
            Backend::Local(_) => "local",
            Backend::Sim(_) => "sim",
            Backend::Hosts(hosts) => match hosts.inventory.hosts[candidate].way {
                Way::Ssh(_) => "ssh",
                Way::Exec { .. } => "exec",
            },
        }
    }

    /// A host's name, for people.
    pub fn host_name(&self, candidate: usize) -> &str {
        match self {
            Backend::Local(_) => "local",
            Backend::Sim(_) => "sim",
            Backend::Hosts(hosts) => &hosts.inventory.hosts[candidate].name,
        }
    }

    /// The node binary that the hosts run; in a simulation this program.
    pub fn node_binary(&self) -> &Path {
        match self {
            Backend::Local(local) => local.node_binary(),
            Backend::Hosts(hosts) => &hosts.node_binary_path,
            Backend::Sim(sim) => sim.program(),
        }
    }

    /// Makes a host ready for its agent: reached, let in, the node binary in its place. Blocks, a minute or more with bad hosts.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn prepare(&self, candidate: usize) -> Result<PreparedHost, BackendError> {
        let hosts = match self {
            Backend::Local(local) => {
                return Ok(PreparedHost {
                    listen: Ipv4Addr::LOCALHOST.into(),
                    ports: None,
                    host_key: None,
                    ready: Ready::Local(local.clone()),
                });
            }
            Backend::Hosts(hosts) => hosts,
            Backend::Sim(_) => return Err(BackendError::Virtual),
        };
        let host = &hosts.inventory.hosts[candidate];
        let ports = host.ports;
        match &host.way {
            Way::Ssh(target) => {
                let prepared = ssh::Prepared::new(target, &hosts.ssh, &hosts.node_binary)?;
                let listen = host.listen.or(prepared.address());
                let listen = listen.ok_or_else(|| {
                    let source = std::io::ErrorKind::AddrNotAvailable.into();
                    BackendError::Listen { address: target.endpoint.address.clone(), source }
                })?;
                let host_key = Some(prepared.host_key().clone());
                Ok(PreparedHost { listen, ports, host_key, ready: Ready::Ssh(Box::new(prepared)) })
            }
            Way::Exec { command, address } => {
                let listen = host.listen.map_or_else(|| resolve(address), Ok)?;
                Ok(PreparedHost { listen, ports, host_key: None, ready: Ready::Exec(command.clone()) })
            }
        }
    }
}

/// A host whose agent can be started.
pub struct PreparedHost {
    /// The address that its nodes listen on and are reached at.
    pub listen: IpAddr,
    /// The ports that its nodes may listen on; `None`: those that its agent chooses.
    pub ports: Option<PortRange>,
    /// Its key, where it was reached by SSH.
    pub host_key: Option<HostKey>,
    ready: Ready,
}

enum Ready {
    Local(local::Local),
    Ssh(Box<ssh::Prepared>),
    Exec(Vec<String>),
}

impl PreparedHost {
    /// Starts the host's agent. To be called where tokio runs.
    ///
    /// # Errors
    /// Where it, or what leads to it, cannot be started here.
    pub fn start(self) -> Result<AgentConnection, BackendError> {
        match self.ready {
            Ready::Local(local) => local.start(),
            Ready::Ssh(prepared) => prepared.start().map_err(BackendError::Streams),
            Ready::Exec(command) => exec::start(&command),
        }
    }
}

fn resolve(address: &str) -> Result<IpAddr, BackendError> {
    let unknown = |source| BackendError::Listen { address: address.to_owned(), source };
    let mut resolved = (address, 0).to_socket_addrs().map_err(unknown)?;
    let first = resolved.next().ok_or_else(|| unknown(std::io::ErrorKind::AddrNotAvailable.into()))?;
    Ok(first.ip())
}

/// An agent that has been started, and the ways to it.
pub struct AgentConnection {
    /// Its standard input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its standard output.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error.
    pub errors: Box<dyn AsyncRead + Send + Unpin>,
    /// What is, or leads to, the agent.
    pub process: AgentProcess,
}

/// What is behind an agent's streams: the agent itself, or what leads to it.
pub struct AgentProcess(Process);

enum Process {
    /// A child of this process.
    Child { child: Child, pid: u32 },
    /// A connection to a process elsewhere.
    Remote { ended: oneshot::Receiver<String>, socket: OwnedFd },
}

impl AgentProcess {
    /// An agent that is, or is led to by, a child with pipes.
    fn connection(mut child: Child) -> AgentConnection {
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors), Some(pid)) =
            (streams.0, streams.1, streams.2, child.id())
        else {
            unreachable!("the streams were asked for as pipes, and the child has not been waited for")
        };
        AgentConnection {
            input: Box::new(input),
            output: Box::new(output),
            errors: Box::new(errors),
            process: AgentProcess(Process::Child { child, pid }),
        }
    }

    /// An agent on another host: `ended` says how it ended, `socket` is the connection to it.
    fn remote(ended: oneshot::Receiver<String>, socket: OwnedFd) -> AgentProcess {
        AgentProcess(Process::Remote { ended, socket })
    }

    /// The number of the process of this host, where there is one; it stays its own until [`end`](Self::end) has returned.
    pub fn pid(&self) -> Option<u32> {
        match &self.0 {
            Process::Child { pid, .. } => Some(*pid),
            Process::Remote { .. } => None,
        }
    }

    /// Waits for its end, at most so long; then kills it. Says how it ended.
    pub async fn end(&mut self, length_max: Duration) -> String {
        match tokio::time::timeout(length_max, self.wait()).await {
            Ok(status) => status,
            Err(_too_long) => {
                self.kill();
                self.wait().await
            }
        }
    }

    /// Kills it, or cuts the connection to it, at once. An agent's nodes hold lifelines that end with it, and it one that
    /// ends with the connection.
    pub fn kill(&mut self) {
        // Either can only fail where it has ended already.
        match &mut self.0 {
            Process::Child { child, .. } => child.start_kill().ok(),
            Process::Remote { socket, .. } => shutdown(socket, Shutdown::Both).ok(),
        };
    }

    async fn wait(&mut self) -> String {
        match &mut self.0 {
            Process::Child { child, .. } => {
                child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
            }
            Process::Remote { ended, .. } => ended.await.unwrap_or_else(|_| "unknown".into()),
        }
    }
}

/// Why a backend or one of its hosts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no node binary.
    #[error(
        "there is no node binary at {}: build it (cargo build -p p2ps), or say where it is with --node-binary PATH",
        path.display()
    )]
    NoNodeBinary {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The orchestrator does not know where it is itself, and so not where to look for the node binary.
    #[error("the orchestrator's own path is unknown: say where the node binary is with --node-binary PATH")]
    OwnPath(#[source] std::io::Error),
    /// The agent's process, or what leads to it, cannot be started.
    #[error("the agent cannot be started ({})", program.display())]
    Start {
        /// What was to be started.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No streams can be made to an agent.
    #[error("no streams to the agent can be made")]
    Streams(#[source] std::io::Error),
    /// It is not known where a host's nodes would be reached.
    #[error("{address} has no address that is known here: say `listen:` for this host in the inventory")]
    Listen {
        /// The host's name.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A simulation has no host whose agent could be reached.
    #[error("a simulation has no host to reach")]
    Virtual,
    /// The host cannot be used.
    #[error(transparent)]
    Ssh(#[from] SshError),
}
