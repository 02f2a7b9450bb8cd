//! The local backend: one agent, a child process on this host.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::{AgentConnection, AgentProcess, BackendError};

/// The node binary's file name.
const NODE_BINARY: &str = "p2ps-node";

/// This host.
#[derive(Clone, Debug)]
pub struct Local {
    node_binary: PathBuf,
}

impl Local {
    /// Finds the node binary: at `path`, or else next to this process's own executable.
    ///
    /// # Errors
    /// [`BackendError::NoNodeBinary`] where no file is there.
    pub fn new(path: Option<&Path>) -> Result<Local, BackendError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => std::env::current_exe().map_err(BackendError::OwnPath)?.with_file_name(NODE_BINARY),
        };
        // Made absolute, since a bare name would be searched for in PATH.
        match path.canonicalize() {
            Ok(node_binary) if node_binary.is_file() => Ok(Local { node_binary }),
            _ => Err(BackendError::NoNodeBinary { path }),
        }
    }

    /// Where the node binary is.
    pub fn node_binary(&self) -> &Path {
        &self.node_binary
    }

    pub(super) fn start(&self) -> Result<AgentConnection, BackendError> {
        let failed = |source| BackendError::Start { program: self.node_binary.clone(), source };
        // The agent makes a session of its own, so that Ctrl-C at a terminal reaches only the orchestrator.
        let child = Command::new(&self.node_binary)
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(AgentProcess::connection(child))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_binary_is_named_with_the_way_to_give_it() {
        let error = Local::new(Some(Path::new("/nowhere/p2ps-node"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/p2ps-node") && error.contains("--node-binary"), "{error}");
    }
}
