//! Backends: how an agent is reached.
//!
//! A backend starts the agent of a host and hands out its standard input and output; it differs from another in nothing
//! else. What is said over them is `run`'s affair.

pub mod local;

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

use crate::schedule::HostIndex;

/// Where a run's nodes run.
#[derive(Clone, Debug)]
pub enum Backend {
    /// On this host, by one agent that is a child process.
    Local(local::Local),
}

/// An agent that has been started, and the ways to it.
pub struct AgentConnection {
    /// Its standard input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its standard output.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error.
    pub errors: Box<dyn AsyncRead + Send + Unpin>,
    /// The local process that is, or leads to, the agent.
    pub process: AgentProcess,
}

/// The local process behind an agent: the agent itself, or what leads to it.
pub struct AgentProcess {
    child: Child,
    pid: u32,
}

impl AgentProcess {
    /// Its number, which stays its own until [`end`](Self::end) has returned.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end, at most so long; then kills it. Says how it ended.
    pub async fn end(&mut self, length_max: Duration) -> String {
        let waited = match tokio::time::timeout(length_max, self.child.wait()).await {
            Ok(waited) => waited,
            Err(_too_long) => {
                self.kill();
                self.child.wait().await
            }
        };
        waited.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// Kills it at once. A local agent's nodes hold lifelines that end with it.
    pub fn kill(&mut self) {
        // It can only fail where the process has ended already.
        self.child.start_kill().ok();
    }
}

impl Backend {
    /// How many hosts there are.
    pub fn hosts(&self) -> u32 {
        match self {
            Backend::Local(_) => 1,
        }
    }

    /// Its name, for the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Backend::Local(_) => "local",
        }
    }

    /// A host's name, for people.
    pub fn host_name(&self, _host: HostIndex) -> &str {
        match self {
            Backend::Local(_) => "local",
        }
    }

    /// The address that a host's nodes listen on and are reached at.
    pub fn listen(&self, _host: HostIndex) -> std::net::IpAddr {
        match self {
            Backend::Local(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The node binary that the hosts run.
    pub fn node_binary(&self) -> &std::path::Path {
        match self {
            Backend::Local(local) => local.node_binary(),
        }
    }

    /// Starts a host's agent.
    ///
    /// # Errors
    /// [`BackendError::Start`] where its process cannot be started.
    pub fn start(&self, _host: HostIndex) -> Result<AgentConnection, BackendError> {
        match self {
            Backend::Local(local) => local.start(),
        }
    }
}

/// Why a backend cannot be used.
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
    /// The agent's process cannot be started.
    #[error("the agent of this host cannot be started ({} agent)", program.display())]
    Start {
        /// What was to be started.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
