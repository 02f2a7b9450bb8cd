//! The managed process: a node that hears its orders on standard input and tells its reports on standard output; see
//! [`control`](super).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use tokio::net::unix::pipe;

use super::session::{self, Ended, Orders, Reports};
use super::{LINE_BYTES_MAX, Report};
use crate::node::IdleNode;

/// The most bytes of reports that wait to be read; with more, the node ends: nobody listens.
pub const REPORTS_WAITING_BYTES_MAX: usize = 16 << 20;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Runs a managed node until it has left, its input ends, or it cannot go on. Its exit code says which.
pub fn run() -> ExitCode {
    let runtime =
        bind_to_parent().and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
    let ended = runtime.and_then(|runtime| runtime.block_on(serve()));
    ended.unwrap_or(Ended::CutOff).code().into()
}

/// The kernel kills this process when its parent is gone. If that has happened before, the input has ended.
pub(crate) fn bind_to_parent() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let parent = getppid();
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != parent {
            return Err(io::Error::other("the process that started this one is gone"));
        }
    }
    Ok(())
}

async fn serve() -> io::Result<Ended> {
    Ok(session::run(Input::new()?, Output::new()?, IdleNode::new).await)
}

/// Whole lines from standard input.
struct Input {
    pipe: pipe::Receiver,
    partial: Vec<u8>,
}

impl Input {
    fn new() -> io::Result<Input> {
        let pipe = pipe::Receiver::from_owned_fd(duplicate(&io::stdin())?)?;
        Ok(Input { pipe, partial: Vec::new() })
    }
}

impl Orders for Input {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            self.pipe.readable().await?;
            self.partial.reserve(READ_BYTES);
            match self.pipe.try_read_buf(&mut self.partial) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.partial[end + 1..].to_vec();
                let mut whole = std::mem::replace(&mut self.partial, rest);
                whole.truncate(end + 1);
                return Ok(whole);
            }
            if self.partial.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a line is too long"));
            }
        }
    }
}

/// Reports on standard output; all that came together are written together.
struct Output {
    pipe: pipe::Sender,
    bytes: Vec<u8>,
}

impl Output {
    fn new() -> io::Result<Output> {
        let pipe = pipe::Sender::from_owned_fd(duplicate(&io::stdout())?)?;
        Ok(Output { pipe, bytes: Vec::new() })
    }
}

impl Reports for Output {
    fn say(&mut self, report: Report) -> io::Result<()> {
        if self.bytes.len() > REPORTS_WAITING_BYTES_MAX {
            return Err(io::Error::other("nobody reads the reports"));
        }
        serde_json::to_writer(&mut self.bytes, &report)?;
        self.bytes.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut written = 0;
        while written < self.bytes.len() {
            match self.pipe.try_write(&self.bytes[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.bytes.drain(..written);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(self.bytes.is_empty())
    }

    async fn room(&mut self) -> io::Result<()> {
        self.pipe.writable().await
    }
}

/// The standard streams stay open: what they are is only borrowed.
pub(crate) fn duplicate(stream: &impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}
