//! One connection to another node: what waits to be written on it, and its socket's settings.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, Waker};

use rustix::net::sockopt;

use super::channel::Sealer;
use super::limits::{
    KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, LINK_BACKLOG_BYTES_MAX, UNACKNOWLEDGED_TIMEOUT,
};
use super::outgoing::Outgoing;
use super::runtime::Writer;
use crate::message::{Contact, Message};
use crate::wire::{self, FAREWELL, WireError};

/// Readies a connection's socket: no delay, and dead hosts noticed by the kernel, at no cost to a node at rest.
///
/// # Errors
/// What the system says; the connection is of no use then.
pub fn configure(stream: &impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_TIMEOUT.as_millis() as u32)?;
    Ok(())
}

/// The writing side of a link. Frames are gathered in its buffer and written in one go by [`Link::flush`].
#[derive(Debug)]
pub struct Link {
    /// The node at the other end.
    pub contact: Contact,
    /// Whether this node dialled.
    pub outbound: bool,
    /// When it was last of use, in turns of the driver.
    pub used: u64,
    /// Wakes the task that reads the link, and writes it where the socket was full.
    pub waker: Option<Waker>,
    writer: Option<Writer>,
    outgoing: Outgoing,
    stage: Stage,
    blocked: bool,
    queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// A farewell stands in the buffer, or has been sent.
    Closing,
}

impl Link {
    /// A link to `contact`; what is in `buffer` already is sent first. What is sent goes through `sealer`, if there is one.
    pub fn new(
        contact: Contact,
        outbound: bool,
        writer: Writer,
        buffer: Vec<u8>,
        sealer: Option<Sealer>,
    ) -> Link {
        let (waker, stage) = (None, Stage::Open);
        let (writer, outgoing) = (Some(writer), Outgoing::new(buffer, sealer));
        Link { contact, outbound, used: 0, waker, writer, outgoing, stage, blocked: false, queued: false }
    }

    /// Adds a message to what is to be written, and tells its length in bytes. `None`: the backlog is full, it was dropped.
    ///
    /// # Errors
    /// A message that no receiver would take.
    pub fn push(&mut self, message: &Message) -> Result<Option<usize>, WireError> {
        if self.backlog_bytes() >= LINK_BACKLOG_BYTES_MAX {
            return Ok(None);
        }
        wire::encode(message, self.outgoing.frames()).map(Some)
    }

    /// The same for a message that is a frame already. `false`: it was dropped.
    pub fn push_frame(&mut self, frame: &[u8]) -> bool {
        let room = self.backlog_bytes() < LINK_BACKLOG_BYTES_MAX;
        if room {
            self.outgoing.frames().extend_from_slice(frame);
        }
        room
    }

    /// Says farewell: nothing is sent behind it.
    pub fn close(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Closing;
            self.outgoing.frames().extend_from_slice(&FAREWELL);
        }
    }

    /// Whether it has been closed from this end.
    pub fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// Whether it waits for its socket to take more.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// How many bytes wait to be written.
    pub fn backlog_bytes(&self) -> usize {
        self.outgoing.waiting_bytes()
    }

    /// Notes that it is to be flushed at the turn's end; `false` where that is known already.
    pub fn queue(&mut self) -> bool {
        !self.blocked && !std::mem::replace(&mut self.queued, true)
    }

    /// Writes what the socket takes now. What it does not take is written by [`Link::poll_flush`], in the link's own task.
    /// Errors are left to the reading side, which sees the same socket.
    pub fn flush(&mut self) {
        self.queued = false;
        loop {
            let Some(writer) = &self.writer else { return self.settle() };
            let written = match self.outgoing.next() {
                Ok([]) => return self.settle(),
                Ok(bytes) => writer.try_write(bytes),
                Err(_) => return self.give_up(),
            };
            match written {
                Ok(written) => self.outgoing.wrote(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    self.wake();
                    return;
                }
                Err(_) => return self.give_up(),
            }
        }
    }

    /// Goes on writing where [`Link::flush`] had to stop.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) {
        loop {
            let Some(writer) = &mut self.writer else { return self.settle() };
            let written = match self.outgoing.next() {
                Ok([]) => return self.settle(),
                Ok(bytes) => writer.poll_write(context, bytes),
                Err(_) => return self.give_up(),
            };
            match written {
                Poll::Pending => return,
                Poll::Ready(Ok(written)) => self.outgoing.wrote(written),
                Poll::Ready(Err(_)) => return self.give_up(),
            }
        }
    }

    /// Wakes the link's task.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn give_up(&mut self) {
        self.writer = None;
        self.settle();
        self.wake();
    }

    /// Everything is written: the buffer's memory is given back, and a link that said farewell is shut down.
    fn settle(&mut self) {
        self.blocked = false;
        self.outgoing.clear();
        if self.stage == Stage::Closing {
            self.writer = None;
        }
    }
}

/// A link that is dropped without a farewell says nothing, as those of a killed process: its socket is closed with the
/// reading side, by the kernel's rules.
impl Drop for Link {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.forget();
        }
    }
}
