//! The tasks of a node: one for each link, which reads it, and the driver task, which writes and keeps the time. Both are
//! written by hand as futures: they hold nothing but what is named here, and no buffer between two polls.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;

use super::state::{LinkEnd, State};
use super::{Shared, clock, dial};
use crate::com::channel::{Channel, Opener};
use crate::com::limits::{READ_BYTES, READS_PER_TURN};
use crate::com::link::Link;
use crate::com::links::LinkKey;
use crate::com::runtime::{Reader, Sleep, Stream};
use crate::message::Contact;
use crate::time::Time;
use crate::wire::FrameReader;

/// A connection whose handshake has succeeded, and the channel through it where the network has a key.
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) channel: Option<Channel>,
}

/// Takes in a connection, and starts its task. `false`: there is no room for it.
pub(super) fn start_link(
    shared: &Arc<Shared>,
    state: &mut State,
    now: Time,
    contact: Contact,
    connection: Connection,
    dialled: Option<Vec<u8>>,
) -> bool {
    let (reader, writer) = connection.stream.into_split();
    let (sealer, opener) =
        connection.channel.map(|channel| (channel.sealer, Box::new(channel.opener))).unzip();
    let link = Link::new(contact, dialled.is_some(), writer, dialled.unwrap_or_default(), sealer);
    let Some(key) = state.add_link(now, link) else { return false };
    let frames = FrameReader::default();
    let task = LinkTask { shared: shared.clone(), key, contact, reader, opener, frames, ended: None };
    shared.spawner.spawn(task);
    true
}

/// Reads one link, and writes it where its socket was full.
struct LinkTask {
    shared: Arc<Shared>,
    key: LinkKey,
    contact: Contact,
    reader: Reader,
    /// Opens what is read, where the link is sealed.
    opener: Option<Box<Opener>>,
    frames: FrameReader,
    /// How it ended, where no more can be read.
    ended: Option<LinkEnd>,
}

impl Future for LinkTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        if !task.shared.lock().links.tend(task.key, context) {
            return Poll::Ready(());
        }
        for _ in 0..READS_PER_TURN {
            if let Some(end) = &task.ended {
                return task.end(end);
            }
            match task.poll_read(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => task.ended = Some(end),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl LinkTask {
    /// Reads once, and hands all whole frames to the peer.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        let mut space = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        match self.reader.poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(self.take_in(buffer.filled())),
            Poll::Ready(_) => Poll::Ready(Err(LinkEnd::Broken)),
        }
    }

    /// A cut hides the link's end too: of what happens behind it nothing is heard until it is healed.
    fn end(&self, end: &LinkEnd) -> Poll<()> {
        self.shared.turn(|state, now| {
            if !state.shaper.hears(self.contact.id) {
                return Poll::Pending;
            }
            state.end_link(now, self.key, end);
            Poll::Ready(())
        })
    }

    fn take_in(&mut self, chunk: &[u8]) -> Result<(), LinkEnd> {
        let before = self.kept_bytes();
        let opened = self.opener.as_mut().map(|opener| opener.open(chunk));
        let LinkTask { shared, key, contact, opener, frames, .. } = self;
        shared.turn(|state, now| {
            let each = |body: &[u8]| state.receive(now, *key, *contact, body);
            let fed = match opened {
                None => frames.feed(chunk, each),
                Some(Ok(plain)) => frames.feed(&plain, each),
                Some(Err(error)) => Err(error.into()),
            };
            let room = state.keep_partial(before, kept_bytes(opener.as_deref(), frames));
            if room { fed } else { fed.and(Err(LinkEnd::Broken)) }
        })
    }

    /// How many bytes it keeps of records and frames that are not whole yet.
    fn kept_bytes(&self) -> usize {
        kept_bytes(self.opener.as_deref(), &self.frames)
    }
}

fn kept_bytes(opener: Option<&Opener>, frames: &FrameReader) -> usize {
    opener.map_or(0, Opener::kept_bytes) + frames.kept_bytes()
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        let kept = self.kept_bytes();
        if kept > 0 {
            self.shared.forget_partial(kept);
        }
    }
}

/// Ends each turn: hands the peer what has come due, starts dials, writes the links, and sleeps until the next
/// deadline, the peer's or that of a delayed message.
pub(super) struct DriverTask {
    shared: Arc<Shared>,
    sleep: Sleep,
    armed: Option<Time>,
}

impl DriverTask {
    pub(super) fn new(shared: Arc<Shared>) -> DriverTask {
        let sleep = shared.runtime().sleep(Duration::ZERO);
        DriverTask { shared, sleep, armed: None }
    }

    /// The end of one turn. `None`: the node has stopped.
    fn end_turn(&mut self, context: &mut Context<'_>) -> Option<EndOfTurn> {
        let mut state = self.shared.lock();
        if state.is_stopped() {
            return None;
        }
        if !state.driver_waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.driver_waker = Some(context.waker().clone());
        }
        let now = clock::now();
        let more = state.catch_up(now);
        dial::start(&self.shared, &mut state);
        // What the dials asked for in vain, and all that comes from now on, is another turn.
        state.driver_woken = false;
        let deadline = [state.peer.deadline(), state.shaper.deadline()].into_iter().flatten().min();
        Some(EndOfTurn { now, more, deadline })
    }

    /// Sets the timer. `true`: the deadline is here.
    fn arm(&mut self, now: Time, deadline: Option<Time>) -> bool {
        let due = deadline.is_some_and(|deadline| deadline <= now);
        if due || deadline == self.armed {
            return due;
        }
        self.armed = deadline;
        let Some(deadline) = deadline else { return false };
        self.sleep.reset(Instant::now() + deadline.since(now));
        false
    }
}

struct EndOfTurn {
    now: Time,
    more: bool,
    deadline: Option<Time>,
}

impl Future for DriverTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        let Some(EndOfTurn { now, more, deadline }) = task.end_turn(context) else {
            return Poll::Ready(());
        };
        let due = task.arm(now, deadline);
        let fired = task.armed.is_some() && task.sleep.poll(context).is_ready();
        if fired {
            task.armed = None;
        }
        if more || due || fired {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
