//! What an inventory's hosts are like, before any run: each is made ready as for a run, its agent asked, and ended.

use std::net::IpAddr;
use std::time::Duration;

use p2ps::agent::clock::unix_us;
use p2ps::agent::lines::LineBuffer;
use p2ps::agent::protocol::{AGENT_PROTOCOL_VERSION, HostFacts, NOTICE_BYTES_MAX, Notice, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::RunError;
use super::clock::{self, ClockOffset, EXCHANGES, Exchange};
use super::hosts::{chain, prepare_all};
use super::machine::LEASE_MS;
use crate::backend::{AgentConnection, Backend, PreparedHost};

/// How long an agent may take to answer everything.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// How long it may take to end.
const END_WAIT: Duration = Duration::from_secs(5);

/// How much is read at once, in bytes.
const READ_BYTES_MAX: usize = 16 << 10;

/// What a host is like.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// The address that its nodes would listen on.
    pub listen: IpAddr,
    /// What its agent says of it.
    pub facts: HostFacts,
    /// Its wall clock against this host's.
    pub clock: ClockOffset,
}

/// A host's name, and what it is like, or why it cannot be used.
pub type Surveyed = (String, Result<HostReport, String>);

/// Asks every host of `backend`, all at once within bounds; `told` hears of each as it is done. Gives them back in the inventory's
/// order. Blocks.
///
/// # Errors
/// [`RunError::System`], where this host refuses what it takes.
pub fn survey(backend: &Backend, mut told: impl FnMut(&Surveyed)) -> Result<Vec<Surveyed>, RunError> {
    let failed = |what| move |source| RunError::System { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start an event loop"))?;
    let surveyed = runtime.block_on(async {
        let mut preparing = prepare_all(backend);
        let mut asking = tokio::task::JoinSet::new();
        let mut surveyed: Vec<(usize, Surveyed)> = Vec::new();
        loop {
            // A host is asked as soon as it is ready, whatever the others do.
            let (candidate, outcome) = tokio::select! {
                Some(prepared) = preparing.join_next() => match prepared {
                    Ok((candidate, Ok(host))) => {
                        asking.spawn(async move { (candidate, ask(host).await) });
                        continue;
                    }
                    Ok((candidate, Err(reason))) => (candidate, Err(reason)),
                    Err(error) => return Err(failed("prepare a host")(std::io::Error::other(error))),
                },
                Some(asked) = asking.join_next() => match asked {
                    Ok(asked) => asked,
                    Err(error) => return Err(failed("ask a host")(std::io::Error::other(error))),
                },
                else => break,
            };
            let host = (backend.host_name(candidate).to_owned(), outcome);
            told(&host);
            surveyed.push((candidate, host));
        }
        Ok(surveyed)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    let mut surveyed = surveyed?;
    surveyed.sort_by_key(|(candidate, _)| *candidate);
    Ok(surveyed.into_iter().map(|(_, host)| host).collect())
}

/// Starts a host's agent, asks it, and ends it.
async fn ask(host: PreparedHost) -> Result<HostReport, String> {
    let listen = host.listen;
    let AgentConnection { input, output, mut errors, mut process } =
        host.start().map_err(|error| chain(&error))?;
    let mut conversation = Conversation {
        input,
        output,
        lines: LineBuffer::new(NOTICE_BYTES_MAX),
        chunk: vec![0; READ_BYTES_MAX],
    };
    let answered = tokio::time::timeout(ANSWER_WAIT, conversation.hold()).await;
    drop(conversation);
    let status = process.end(END_WAIT).await;
    match answered {
        Ok(Ok((facts, clock))) => Ok(HostReport { listen, facts, clock }),
        Ok(Err(error)) => {
            let mut said = vec![0; READ_BYTES_MAX];
            let length = tokio::time::timeout(END_WAIT, errors.read(&mut said)).await;
            let length = length.ok().and_then(Result::ok).unwrap_or(0);
            Err(format!("{error} ({status}) {}", String::from_utf8_lossy(&said[..length]).trim()))
        }
        Err(_) => Err(format!("its agent did not answer within {} s", ANSWER_WAIT.as_secs())),
    }
}

struct Conversation {
    input: Box<dyn AsyncWrite + Send + Unpin>,
    output: Box<dyn AsyncRead + Send + Unpin>,
    lines: LineBuffer,
    chunk: Vec<u8>,
}

impl Conversation {
    async fn hold(&mut self) -> Result<(HostFacts, ClockOffset), String> {
        let (run, lease_ms) = ("hosts check".to_owned(), LEASE_MS);
        self.say(&Request::Hello { version: AGENT_PROTOCOL_VERSION, run, lease_ms }).await?;
        let facts = match self.hear().await? {
            Notice::Ready { version: AGENT_PROTOCOL_VERSION, host } => host,
            Notice::Ready { version, host } => {
                return Err(format!("its agent (p2ps {}) speaks version {version}", host.node_version));
            }
            _ => return Err("its agent speaks out of order".into()),
        };
        let mut exchanges = Vec::new();
        for asked in 0..EXCHANGES {
            let asked_us = unix_us();
            self.say(&Request::Clock { token: u64::from(asked) }).await?;
            match self.hear().await? {
                Notice::Clock { unix_us: host_us, .. } => {
                    exchanges.push(Exchange { asked_us, answered_us: unix_us(), host_us });
                }
                _ => return Err("its agent speaks out of order".into()),
            }
        }
        let clock = clock::best(exchanges).ok_or("its clock was not measured")?;
        self.say(&Request::Stop).await?;
        Ok((facts, clock))
    }

    async fn say(&mut self, request: &Request) -> Result<(), String> {
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let written = async {
            self.input.write_all(&line).await?;
            self.input.flush().await
        };
        written.await.map_err(|error| format!("its agent does not listen: {error}"))
    }

    async fn hear(&mut self) -> Result<Notice, String> {
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
}
