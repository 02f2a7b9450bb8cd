//! An agent at the end of an SSH channel, or a port behind a host, as streams.
//!
//! One thread a host owns the session and carries bytes between its channel and socket pairs, whose other ends are the
//! agent's streams. It sleeps in `poll` until one of them is ready; the pairs' and the channel's own buffers bound what is under way, and
//! push back.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{Shutdown, shutdown};
use ssh2::{BlockDirections, Channel, Session};
use tokio::sync::oneshot;

use super::session::Connected;
use super::upload::quote;
use crate::backend::{AgentConnection, AgentProcess};

/// How much is carried at once, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// How long a host may take to say how its agent ended, in milliseconds.
const END_WAIT_MS: u32 = 5_000;

/// Starts the agent and gives back the ways to it. What goes wrong from here on is how it ended.
pub(super) fn start_agent(connected: Connected, binary: &str) -> io::Result<AgentConnection> {
    let (near, far) = UnixStream::pair()?;
    let (near_errors, far_errors) = UnixStream::pair()?;
    for stream in [&near, &far, &near_errors, &far_errors] {
        stream.set_nonblocking(true)?;
    }
    let (output, input) = tokio::net::UnixStream::from_std(near)?.into_split();
    let errors = tokio::net::UnixStream::from_std(near_errors)?;
    let Connected { session, socket, .. } = connected;
    let (tell, ended) = oneshot::channel();
    let command = format!("exec {} agent", quote(binary));
    let own_socket = socket.try_clone()?;
    std::thread::Builder::new().name("ssh".into()).spawn(move || {
        let status = serve(&session, &socket, &command, far, far_errors);
        // Whatever is left of the session is of no use: its end must not wait for the host.
        shutdown(&socket, Shutdown::Both).ok();
        // Nobody hears it where the run has been given up.
        tell.send(status).ok();
    })?;
    Ok(AgentConnection {
        input: Box::new(input),
        output: Box::new(output),
        errors: Box::new(errors),
        process: AgentProcess::remote(ended, own_socket),
    })
}

/// Runs `command` until it ends or the connection does; says how.
fn serve(
    session: &Session,
    socket: &OwnedFd,
    command: &str,
    streams: UnixStream,
    errors: UnixStream,
) -> String {
    let lost = |error: &dyn std::fmt::Display| format!("the connection to it was lost: {error}");
    let started = session.channel_session().and_then(|mut channel| channel.exec(command).map(|()| channel));
    let mut channel = match started {
        Ok(channel) => channel,
        Err(error) => return format!("its agent cannot be started: {error}"),
    };
    session.set_blocking(false);
    let carried = Carrier::new(session, socket, &mut channel, streams, Some(errors)).carry();
    if let Err(error) = carried {
        return lost(&error);
    }
    session.set_blocking(true);
    session.set_timeout(END_WAIT_MS);
    // The host closes the channel once it has said how the agent ended.
    match channel.wait_close() {
        Ok(()) => ended(&channel),
        Err(error) => lost(&error),
    }
}

/// Makes a way through a host to another, whose address it resolves; a thread carries what is said, until one of the two ends. The
/// host is of no other use from then on.
pub(super) fn pass_through(connected: Connected, address: &str, port: u16) -> Result<UnixStream, PassError> {
    let Connected { session, socket, .. } = connected;
    let mut channel = session.channel_direct_tcpip(address, port, None).map_err(PassError::Refused)?;
    let (near, far) = UnixStream::pair().map_err(PassError::System)?;
    far.set_nonblocking(true).map_err(PassError::System)?;
    let carry = move || {
        session.set_blocking(false);
        // Whoever is at the near end sees that it has ended, and no more than that is known here.
        Carrier::new(&session, &socket, &mut channel, far, None).carry().ok();
        shutdown(&socket, Shutdown::Both).ok();
    };
    std::thread::Builder::new().name("ssh-jump".into()).spawn(carry).map_err(PassError::System)?;
    Ok(near)
}

/// Why there is no way through a host.
pub(super) enum PassError {
    /// The host does not make it.
    Refused(ssh2::Error),
    /// This system does not.
    System(io::Error),
}

fn ended(channel: &Channel) -> String {
    let signal = channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
    match (signal, channel.exit_status()) {
        (Some(signal), _) => format!("signal SIG{signal}"),
        (None, Ok(status)) => format!("exit status: {status}"),
        (None, Err(error)) => error.to_string(),
    }
}

/// What is done next on the channel. One that could not be sent whole has to be done again before any other (libssh2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    ReadOutput,
    ReadErrors,
    Write,
    SendEnd,
}

struct Carrier<'a> {
    session: &'a Session,
    socket: &'a OwnedFd,
    channel: &'a mut Channel,
    /// Reads what goes into the channel, takes what comes out.
    streams: UnixStream,
    /// Takes what comes out as standard error. `None`: there is no such thing, the channel leads to a port.
    errors: Option<UnixStream>,
    input: Buffer,
    output: Buffer,
    error_output: Buffer,
    input_end: End,
    unfinished: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// No more will come from our side.
    Seen,
    /// The agent has been told so.
    Told,
}

impl<'a> Carrier<'a> {
    fn new(
        session: &'a Session,
        socket: &'a OwnedFd,
        channel: &'a mut Channel,
        streams: UnixStream,
        errors: Option<UnixStream>,
    ) -> Carrier<'a> {
        let buffer = Buffer::default;
        Carrier {
            session,
            socket,
            channel,
            streams,
            errors,
            input: buffer(),
            output: buffer(),
            error_output: buffer(),
            input_end: End::Open,
            unfinished: None,
        }
    }

    /// Carries until the channel's output has ended, or, where it leads to a port, until our side has: whoever talks to a port says
    /// all that has to be said before.
    fn carry(mut self) -> io::Result<()> {
        loop {
            let queued = self.queued();
            let mut moved = self.local()?;
            match self.unfinished {
                Some(step) => moved |= self.step(step)?,
                None => {
                    for step in [Step::ReadOutput, Step::ReadErrors, Step::Write, Step::SendEnd] {
                        moved |= self.step(step)?;
                        if self.unfinished.is_some() {
                            break;
                        }
                    }
                }
            }
            if self.is_over() {
                return Ok(());
            }
            // Each step takes in whatever has come, also what is for a step before it: the socket would not tell of that again.
            if !moved && self.queued() == queued {
                self.wait()?;
            }
        }
    }

    /// How much has been taken in from the host and not been read yet, in bytes.
    fn queued(&self) -> u32 {
        self.channel.read_window().available
    }

    fn is_over(&self) -> bool {
        if self.errors.is_none() && self.input_end != End::Open && self.input.is_empty() {
            return true;
        }
        self.unfinished.is_none()
            && self.channel.eof()
            && self.output.is_empty()
            && self.error_output.is_empty()
    }

    /// Moves what can be moved between the buffers and our own side.
    fn local(&mut self) -> io::Result<bool> {
        let mut moved = false;
        if self.input_end == End::Open && self.input.is_empty() {
            moved |= match self.input.fill(&mut self.streams) {
                Ok(0) => {
                    self.input_end = End::Seen;
                    true
                }
                other => unless_pause(other)? > 0,
            };
        }
        // Where nobody listens any more, what the agent says is thrown away.
        for (buffer, stream) in
            [(&mut self.output, Some(&mut self.streams)), (&mut self.error_output, self.errors.as_mut())]
        {
            if let Some(stream) = stream
                && !buffer.is_empty()
            {
                let length = buffer.rest().len();
                let written = unless_pause(stream.write(buffer.rest())).unwrap_or(length);
                buffer.gone += written;
                moved |= written > 0;
            }
        }
        Ok(moved)
    }

    fn step(&mut self, step: Step) -> io::Result<bool> {
        let done = match step {
            Step::ReadOutput if self.output.is_empty() => self.output.fill(&mut self.channel.stream(0)),
            Step::ReadErrors if self.errors.is_some() && self.error_output.is_empty() => {
                self.error_output.fill(&mut self.channel.stderr())
            }
            Step::Write if !self.input.is_empty() => {
                // Nothing, where the channel's window is closed.
                self.channel.write(self.input.rest()).inspect(|length| self.input.gone += length)
            }
            Step::SendEnd if self.input_end == End::Seen && self.input.is_empty() => {
                self.channel.send_eof().map_err(io::Error::from).map(|()| {
                    self.input_end = End::Told;
                    1
                })
            }
            _ => Ok(0),
        };
        let outbound =
            matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        match done {
            Ok(length) => {
                self.unfinished = None;
                Ok(length > 0)
            }
            Err(error) if is_pause(&error) => {
                self.unfinished = outbound.then_some(step);
                Ok(false)
            }
            // An agent that has ended takes no more; its output may still have something to say.
            Err(_) if matches!(step, Step::Write | Step::SendEnd) && self.channel.eof() => {
                self.input = Buffer::default();
                self.input_end = End::Told;
                self.unfinished = None;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Sleeps until something can be moved.
    fn wait(&self) -> io::Result<()> {
        let mut socket = PollFlags::empty();
        // Each of these takes in whatever the host says: the library queues what was not asked for, and the channel's window
        // bounds that. Where none will be done, the host has to wait, and is not looked at.
        if self.output.is_empty() || self.error_output.is_empty() || !self.input.is_empty() {
            socket |= PollFlags::IN;
        }
        if self.unfinished.is_some() {
            socket |= PollFlags::IN | PollFlags::OUT;
        }
        let mut streams = PollFlags::empty();
        if self.input_end == End::Open && self.input.is_empty() {
            streams |= PollFlags::IN;
        }
        if !self.output.is_empty() {
            streams |= PollFlags::OUT;
        }
        let errors = self.errors.as_ref().filter(|_| !self.error_output.is_empty());
        // What nothing is wanted of is left out: its end would be told again and again.
        let mut fds = Vec::with_capacity(3);
        fds.extend((!socket.is_empty()).then(|| PollFd::new(self.socket, socket)));
        fds.extend((!streams.is_empty()).then(|| PollFd::new(&self.streams, streams)));
        fds.extend(errors.map(|errors| PollFd::new(errors, PollFlags::OUT)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// How much was moved: nothing, where that has to wait.
fn unless_pause(moved: io::Result<usize>) -> io::Result<usize> {
    match moved {
        Err(error) if is_pause(&error) => Ok(0),
        other => other,
    }
}

/// Bytes on their way.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// How many of them have gone.
    gone: usize,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.gone == self.bytes.len()
    }

    /// Reads once; the buffer has to be empty.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.bytes.resize(BUFFER_BYTES, 0);
        self.gone = 0;
        let read = from.read(&mut self.bytes);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        read
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }
}
