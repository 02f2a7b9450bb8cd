//! The sentinel: a process beside an agent that ends it when it hangs.
//!
//! An agent whose lease runs out ends its nodes and itself. One that is stopped (SIGSTOP), or hangs by a fault in its code,
//! cannot. So whenever it hears its orchestrator, it passes that on to a process of its own; when nothing has come for the
//! lease, and some grace, that kills it. Its nodes are bound to it, and go with it.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Signal, getppid, kill_process};

use super::AgentError;
use super::host::executable;
use crate::control::managed::bind_to_parent;

/// How much longer than the lease an agent may be silent: it gives up by itself first.
const GRACE: Duration = Duration::from_secs(2);

/// An agent's sentinel. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sentinel(Child);

impl Sentinel {
    /// Starts a sentinel for this process.
    pub(super) fn start(lease: Duration) -> io::Result<Sentinel> {
        let sentinel = Command::new(executable())
            .args(["agent", "--sentinel", &lease.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(pipe) = &sentinel.stdin {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(Sentinel(sentinel))
    }

    /// The lease begins anew.
    pub(super) fn renew(&mut self) {
        if let Some(pipe) = &mut self.0.stdin {
            // A full pipe says it as well. Without a sentinel, an agent that works ends its nodes nevertheless.
            pipe.write_all(&[0]).ok();
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It may have been reaped already, with the nodes.
        self.0.wait().ok();
    }
}

/// Watches the process that started this one, which has `lease` until it must be heard.
pub(super) fn run(lease: Duration) -> Result<(), AgentError> {
    let agent = getppid();
    let hangs = bind_to_parent()
        .and_then(|()| falls_silent(lease + GRACE))
        .map_err(|source| AgentError::System { what: "be watched", source })?;
    if hangs && let Some(agent) = agent {
        // Were it gone, so would be this process.
        kill_process(agent, Signal::KILL).ok();
    }
    Ok(())
}

/// Hears the agent until it says nothing for `limit` (`true`), or has ended.
fn falls_silent(limit: Duration) -> io::Result<bool> {
    let mut input = io::stdin().lock();
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        let ready = match poll(&mut [PollFd::new(&io::stdin(), PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => continue,
            ready => ready?,
        };
        if ready == 0 {
            return Ok(true);
        }
        if input.read(&mut [0; 64])? == 0 {
            return Ok(false);
        }
    }
}
