//! Questions to one agent and their answers, one at a time.

use std::time::Duration;

use p2ps::agent::lines::LineBuffer;
use p2ps::agent::protocol::{AGENT_PROTOCOL_VERSION, HostFacts, NOTICE_BYTES_MAX, Notice, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::machine::LEASE_MS;
use crate::backend::{AgentConnection, AgentProcess};

/// How long an agent may take to end.
const END_WAIT: Duration = Duration::from_secs(5);

/// How much is read at once, in bytes.
const READ_BYTES_MAX: usize = 16 << 10;

/// How much of what was not to be said is quoted, in characters.
const QUOTED_MAX: usize = 200;

/// An agent that is asked. It ends with this.
pub(super) struct Conversation {
    input: Box<dyn AsyncWrite + Send + Unpin>,
    output: Box<dyn AsyncRead + Send + Unpin>,
    errors: Box<dyn AsyncRead + Send + Unpin>,
    process: AgentProcess,
    lines: LineBuffer,
    chunk: Vec<u8>,
}

impl Conversation {
    pub(super) fn new(connection: AgentConnection) -> Conversation {
        let AgentConnection { input, output, errors, process } = connection;
        let (lines, chunk) = (LineBuffer::new(NOTICE_BYTES_MAX), vec![0; READ_BYTES_MAX]);
        Conversation { input, output, errors, process, lines, chunk }
    }

    /// Begins the conversation, for a run of this name; learns what the host is like.
    pub(super) async fn greet(&mut self, run: &str) -> Result<HostFacts, String> {
        let (run, lease_ms) = (run.to_owned(), LEASE_MS);
        self.say(&Request::Hello { version: AGENT_PROTOCOL_VERSION, run, lease_ms }).await?;
        match self.hear().await? {
            Notice::Ready { version: AGENT_PROTOCOL_VERSION, host } => Ok(host),
            Notice::Ready { version, host } => {
                Err(format!("its agent (p2ps {}) speaks version {version}", host.node_version))
            }
            other => Err(out_of_order(&other)),
        }
    }

    pub(super) async fn say(&mut self, request: &Request) -> Result<(), String> {
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let written = async {
            self.input.write_all(&line).await?;
            self.input.flush().await
        };
        written.await.map_err(|error| format!("its agent does not listen: {error}"))
    }

    /// What the agent answers; a problem that it has is an error.
    pub(super) async fn hear(&mut self) -> Result<Notice, String> {
        match self.next().await? {
            Notice::Problem { error } => Err(error),
            answer => Ok(answer),
        }
    }

    async fn next(&mut self) -> Result<Notice, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("its agent does not speak as it should: {error}");
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => return serde_json::from_slice(line).map_err(|error| wrong(&error)),
                Ok(None) => {}
                Err(error) => return Err(wrong(&error)),
            }
            match self.output.read(&mut self.chunk).await {
                Ok(0) => return Err("its agent has gone".into()),
                Ok(length) => self.lines.extend(&self.chunk[..length]),
                Err(error) => return Err(format!("its agent cannot be heard: {error}")),
            }
        }
    }

    /// Ends it; says how it ended, and what it had to say about that.
    pub(super) async fn end(self) -> String {
        let Conversation { input, output, mut errors, mut process, .. } = self;
        drop((input, output));
        let status = process.end(END_WAIT).await;
        let mut said = vec![0; READ_BYTES_MAX];
        let length = tokio::time::timeout(END_WAIT, errors.read(&mut said)).await;
        let length = length.ok().and_then(Result::ok).unwrap_or(0);
        format!("({status}) {}", String::from_utf8_lossy(&said[..length]).trim()).trim_end().to_owned()
    }
}

/// That this was no answer to what was asked.
pub(super) fn out_of_order(notice: &Notice) -> String {
    let said: String = format!("{notice:?}").chars().take(QUOTED_MAX).collect();
    format!("its agent speaks out of order: {said}")
}
