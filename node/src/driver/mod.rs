//! Drivers: clock, sockets and timers for a [`Peer`].
//!
//! This one runs on tokio, on one thread or on many, or on smol: [`com::runtime`](crate::com::runtime) is all that differs. All of a node's state stands behind one lock. A *turn* is what is done
//! under it at once: a link's task has read a batch of frames, or the application calls. What the peer wants sent in a turn
//! is gathered in the links' buffers; the node's driver task runs last, after all tasks that were ready with it, lets the peer
//! do what has come due, and writes each link once. So a deadline that is not in the future is served at the end of the
//! turn: acknowledgements that wait for company cost no timer. A node at rest has one timer, no buffer and no periodic task.

pub mod clock;
mod dial;
mod mailbox;
mod shape;
mod spawner;
mod state;
mod task;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use dial::settings_at;
pub(crate) use mailbox::Receiver;
pub(crate) use spawner::Spawner;
pub(crate) use state::{JoinFailure, State, Waiter};
pub use state::{LookupEnd, NodeEvent};

use crate::com::key::NetworkKey;
use crate::com::limits::{EVENTS_WAITING_MAX, MESSAGES_WAITING_BYTES_MAX, MESSAGES_WAITING_MAX};
use crate::com::runtime::Runtime;
use crate::com::shaping::{ShapeRules, Shaper};
use crate::config::NetConfig;
use crate::id::Id;
use crate::message::dictionary::{Answer, DictionaryError};
use crate::message::{Contact, RouteError};
use crate::metrics::Snapshot;
use crate::peer::{Command, Delivery, Input, Peer};
use crate::time::Time;
use mailbox::{Overflow, mailbox};

/// A running node: its state, and what its tasks run on.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    spawner: Spawner,
    /// What links are sealed with, if they are.
    key: Option<NetworkKey>,
    /// Told when the links' rules have changed.
    shaped: Notify,
}

/// A node that has been started, and what it has for the application.
pub(crate) struct Started {
    pub(crate) shared: Arc<Shared>,
    pub(crate) messages: Receiver<Delivery>,
    pub(crate) events: Receiver<NodeEvent>,
}

/// Starts a node that accepts links and is in no network yet, its tasks by `spawner`. Where that is tokio's, it must be
/// called there.
///
/// # Errors
/// A listener that the runtime cannot take.
pub(crate) fn start(
    net: NetConfig,
    me: Contact,
    seed: u64,
    listener: std::net::TcpListener,
    spawner: Spawner,
    key: Option<NetworkKey>,
) -> io::Result<Started> {
    let listener = spawner.runtime().listen(listener)?;
    let (messages_in, messages) =
        mailbox(MESSAGES_WAITING_MAX, MESSAGES_WAITING_BYTES_MAX, Overflow::DropNewest);
    let (events_in, events) = mailbox(EVENTS_WAITING_MAX, usize::MAX, Overflow::DropOldest);
    let state = State::new(Peer::new(net, me, seed), Shaper::new(seed), messages_in, events_in);
    let shared = Arc::new(Shared { state: Mutex::new(state), spawner, key, shaped: Notify::new() });
    let acceptor = shared.spawner.spawn(dial::accept(shared.clone(), listener));
    shared.lock().acceptor = Some(acceptor);
    shared.spawner.spawn(task::DriverTask::new(shared.clone()));
    Ok(Started { shared, messages, events })
}

impl Shared {
    pub(crate) fn runtime(&self) -> Runtime {
        self.spawner.runtime()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no turn panics: that would be a fault of the protocol's code, and its state is lost")
    }

    /// Does something at once; what it makes due is done by the driver task, after all that is ready now.
    pub(crate) fn turn<R>(&self, act: impl FnOnce(&mut State, Time) -> R) -> R {
        let mut state = self.lock();
        state.turn += 1;
        let result = act(&mut state, clock::now());
        let waker = state.driver_to_wake();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// Creates a network, or joins one.
    pub(crate) fn enter(&self, input: Input) -> oneshot::Receiver<Result<(), JoinFailure>> {
        let (sender, receiver) = oneshot::channel();
        self.turn(|state, now| state.enter(now, input, sender));
        receiver
    }

    /// Looks a key up. The end has the number that `waiter` carries; its latency counts from `intended`, or from now.
    pub(crate) fn lookup(&self, key: Id, intended: Option<Time>, waiter: Waiter) {
        self.turn(|state, now| state.lookup(now, key, intended, waiter));
    }

    /// Several look-ups in one turn.
    pub(crate) fn lookups(
        &self,
        lookups: impl Iterator<Item = (u64, Id, Time)>,
        ends: &mpsc::UnboundedSender<LookupEnd>,
    ) {
        self.turn(|state, now| {
            for (operation, key, intended) in lookups {
                state.lookup(now, key, Some(intended), Waiter::Stream(operation, ends.clone()));
            }
        });
    }

    /// Gives the peer an application's order to send `payload_bytes` of payload.
    pub(crate) fn send(&self, payload_bytes: usize, order: Command) -> Result<(), RouteError> {
        if payload_bytes > crate::message::PAYLOAD_BYTES_MAX {
            return Err(RouteError::PayloadTooLarge);
        }
        self.turn(|state, now| {
            if state.is_stopped() {
                return Err(RouteError::NotMember);
            }
            state.handle(now, Input::Command(order));
            Ok(())
        })
    }

    /// Sends a reliable message; the receiver hears what became of it.
    pub(crate) fn send_reliably(
        &self,
        destination: Id,
        payload: bytes::Bytes,
    ) -> oneshot::Receiver<Result<(), RouteError>> {
        let (sender, receiver) = oneshot::channel();
        self.turn(|state, now| state.send_reliably(now, destination, payload, sender));
        receiver
    }

    /// Does an operation on the dictionary; the receiver hears how it ended.
    pub(crate) fn ask_dictionary(
        &self,
        order: impl FnOnce(u64) -> Command,
    ) -> oneshot::Receiver<Result<Answer, DictionaryError>> {
        let (sender, receiver) = oneshot::channel();
        self.turn(|state, now| state.ask_dictionary(now, order, sender));
        receiver
    }

    /// Shapes the node's links by `rules` from now on, and in no other way.
    pub(crate) fn shape(&self, rules: &ShapeRules) {
        self.turn(|state, now| state.shape(now, rules));
        self.shaped.notify_waiters();
    }

    /// Waits until no rule keeps a link to a node from being made. Dials and handshakes have their own time-outs.
    async fn reach(&self, contact: Contact) {
        loop {
            // Before the question: a change that comes between them is not missed.
            let shaped = self.shaped.notified();
            if self.lock().shaper.reaches(contact.id) {
                return;
            }
            shaped.await;
        }
    }

    /// Leaves the network; the receiver hears whether the successor took over.
    pub(crate) fn leave(&self) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        self.turn(|state, now| state.leave(now, sender));
        receiver
    }

    /// Says farewell on all links; the receiver hears when everything is written and the links are gone.
    pub(crate) fn close_links(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.turn(|state, _| state.close_links(sender));
        receiver
    }

    /// Ends everything at once: all sockets are closed without a farewell, all tasks end.
    pub(crate) fn stop(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.stop();
        }
    }

    /// A link's task ends, and with it the bytes that it kept. It may end with its runtime, after a panic even.
    fn forget_partial(&self, bytes: usize) {
        if let Ok(mut state) = self.state.lock() {
            state.keep_partial(bytes, 0);
        }
    }

    /// All that the node counts.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().snapshot()
    }
}
