//! Making links: dials, and connections that come in.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::spawner::Task;
use super::state::{NodeEvent, State};
use super::task::Connection;
use super::{Shared, task};
use crate::access_point::AccessPoint;
use crate::com::handshake::{HandshakeError, Hello, Welcome, answer, offer};
use crate::com::key::NetworkKey;
use crate::com::limits::{DIAL_QUEUE_BYTES_MAX, DIAL_TIMEOUT, DIALS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};
use crate::com::link::configure;
use crate::com::runtime::{Listener, Runtime, Stream};
use crate::config::NetConfig;
use crate::message::{Contact, Message};
use crate::peer::Input;
use crate::wire::{self, WireError};

/// How long no connection is accepted after the system could give none: it is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whom a dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    /// A node that messages wait for.
    Node(Contact),
    /// Whoever is there.
    Anyone(AccessPoint),
}

impl Target {
    fn access_point(self) -> AccessPoint {
        match self {
            Target::Node(contact) => contact.access_point,
            Target::Anyone(access_point) => access_point,
        }
    }
}

/// The links that are being made.
#[derive(Debug, Default)]
pub(super) struct Dials {
    under_way: HashMap<Target, Dial>,
    wanted: Vec<Target>,
    queued_bytes: usize,
    handshakes: VecDeque<(u64, Task)>,
    handshakes_begun: u64,
    ended: bool,
}

#[derive(Debug, Default)]
struct Dial {
    /// Frames that are sent as soon as the other end listens.
    queue: Vec<u8>,
    /// It is to show only whether the node can be reached: messages go over the link that stands, if one does.
    probes: bool,
    task: Option<Task>,
}

impl Dials {
    pub(super) fn is_under_way(&self, contact: &Contact) -> bool {
        !self.under_way.is_empty()
            && self.under_way.get(&Target::Node(*contact)).is_some_and(|dial| !dial.probes)
    }

    /// How many bytes wait for all dials.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Adds a message to what waits for the dial to a node, and dials if that is not under way. As
    /// [`Link::push`](crate::com::link::Link::push); dropped too where too many dials are under way.
    pub(super) fn push(&mut self, to: Contact, message: &Message) -> Result<Option<usize>, WireError> {
        let Some(queue) = self.queue(to) else { return Ok(None) };
        let bytes = wire::encode(message, queue)?;
        self.queued_bytes += bytes;
        Ok(Some(bytes))
    }

    /// The same for a message that is a frame already. `false`: it was dropped.
    pub(super) fn push_frame(&mut self, to: Contact, frame: &[u8]) -> bool {
        let Some(queue) = self.queue(to) else { return false };
        queue.extend_from_slice(frame);
        self.queued_bytes += frame.len();
        true
    }

    /// Dials a node that no message waits for.
    pub(super) fn begin(&mut self, to: Contact) {
        self.want(Target::Node(to));
    }

    /// Dials a node to see whether it can be reached, unless it is being dialled already.
    pub(super) fn probe(&mut self, to: Contact) {
        let target = Target::Node(to);
        if !self.under_way.contains_key(&target)
            && self.want(target)
            && let Some(dial) = self.under_way.get_mut(&target)
        {
            dial.probes = true;
        }
    }

    /// Dials whoever is there; `false`: too many dials are under way.
    pub(super) fn connect(&mut self, access_point: AccessPoint) -> bool {
        self.want(Target::Anyone(access_point))
    }

    /// Whether no link is made any more.
    pub(super) fn have_ended(&self) -> bool {
        self.ended
    }

    /// Ends all dials and handshakes, for good.
    pub(super) fn end(&mut self) {
        let dials = std::mem::replace(self, Dials { ended: true, ..Dials::default() });
        for task in dials.under_way.into_values().filter_map(|dial| dial.task) {
            task.abort();
        }
        for (_, handshake) in dials.handshakes {
            handshake.abort();
        }
    }

    /// What waits for the dial to a node; `None` where there is no room.
    fn queue(&mut self, to: Contact) -> Option<&mut Vec<u8>> {
        let target = Target::Node(to);
        if !self.want(target) {
            return None;
        }
        let dial = self.under_way.get_mut(&target)?;
        dial.probes = false;
        (dial.queue.len() < DIAL_QUEUE_BYTES_MAX).then_some(&mut dial.queue)
    }

    fn want(&mut self, target: Target) -> bool {
        if self.under_way.contains_key(&target) {
            return true;
        }
        if self.ended || self.under_way.len() >= DIALS_MAX {
            return false;
        }
        self.under_way.insert(target, Dial::default());
        self.wanted.push(target);
        true
    }

    fn take_queue(&mut self, target: Target) -> Vec<u8> {
        let queue = self.under_way.get_mut(&target).map(|dial| std::mem::take(&mut dial.queue));
        let queue = queue.unwrap_or_default();
        self.queued_bytes -= queue.len();
        queue
    }
}

/// Starts the dials that were asked for in this turn.
pub(super) fn start(shared: &Arc<Shared>, state: &mut State) {
    for target in std::mem::take(&mut state.dials.wanted) {
        if let Some(dial) = state.dials.under_way.get_mut(&target) {
            dial.task = Some(shared.spawner.spawn(dial_to(shared.clone(), target)));
        }
    }
}

/// Asks a node for its network's settings.
pub(crate) async fn settings_at(
    access_point: AccessPoint,
    key: Option<&NetworkKey>,
    runtime: Runtime,
) -> Result<(NetConfig, SocketAddr), HandshakeError> {
    within(runtime, DIAL_TIMEOUT, async {
        let mut stream = runtime.connect(SocketAddr::from(access_point)).await?;
        let local = stream.local_addr()?;
        let (welcome, _) = offer(&mut stream, key, &Hello::Settings, &[]).await?;
        Ok((welcome.net, local))
    })
    .await
}

async fn dial_to(shared: Arc<Shared>, target: Target) {
    let dialled = within(shared.runtime(), DIAL_TIMEOUT, shake_hands(&shared, target)).await;
    shared.turn(|state, now| {
        let queue = state.dials.take_queue(target);
        let probed = state.dials.under_way.remove(&target).is_some_and(|dial| dial.probes);
        let error = match dialled {
            Ok((connection, contact)) => {
                if task::start_link(&shared, state, now, contact, connection, Some(queue)) {
                    if probed {
                        state.close_second(&contact);
                    }
                    let input = match target {
                        Target::Anyone(_) => Input::LinkUp { contact },
                        Target::Node(_) => Input::Reached { contact },
                    };
                    return state.handle(now, input);
                }
                HandshakeError::Full
            }
            Err(error) => error,
        };
        let access_point = target.access_point();
        match target {
            Target::Node(contact) => {
                let reason = error.to_string();
                state.events.put(NodeEvent::Refused { access_point, error }, 1);
                state.unreachable(access_point, Some(contact), reason);
            }
            Target::Anyone(_) => state.bootstrap_refused(access_point, error),
        }
    });
}

/// Connects and shakes hands; what waits for the dial goes out right behind the first frame.
async fn shake_hands(shared: &Shared, target: Target) -> Result<(Connection, Contact), HandshakeError> {
    if let Target::Node(contact) = target {
        shared.reach(contact).await;
    }
    let mut stream = shared.runtime().connect(SocketAddr::from(target.access_point())).await?;
    configure(&stream)?;
    let (hello, frames) = {
        let mut state = shared.lock();
        let expected = match target {
            Target::Node(contact) => Some((contact.id, contact.incarnation)),
            Target::Anyone(_) => None,
        };
        let hello = Hello::Link { net: state.peer.net(), contact: state.peer.me(), expected };
        (hello, state.dials.take_queue(target))
    };
    let (welcome, channel) = offer(&mut stream, shared.key.as_ref(), &hello, &frames).await?;
    // Where a node was dialled, it is the one that was meant: its words come from the contact that the peer knows.
    let contact = match target {
        Target::Node(contact) => contact,
        Target::Anyone(_) => {
            shared.reach(welcome.contact).await;
            welcome.contact
        }
    };
    Ok((Connection { stream, channel }, contact))
}

/// Accepts connections for as long as the node lives.
pub(super) async fn accept(shared: Arc<Shared>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => begin_handshake(&shared, stream, address),
            Err(_) => {
                shared.turn(|state, now| state.close_surplus(now, true));
                pause(shared.runtime(), ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Only so many handshakes may be under way. The oldest gives way: an honest one takes milliseconds.
fn begin_handshake(shared: &Arc<Shared>, stream: Stream, address: SocketAddr) {
    let mut state = shared.lock();
    let dials = &mut state.dials;
    if dials.ended {
        return;
    }
    dials.handshakes_begun += 1;
    let number = dials.handshakes_begun;
    if dials.handshakes.len() >= HANDSHAKES_MAX
        && let Some((_, oldest)) = dials.handshakes.pop_front()
    {
        oldest.abort();
    }
    let handshake = shared.spawner.spawn(take_in(shared.clone(), stream, address, number));
    dials.handshakes.push_back((number, handshake));
}

async fn take_in(shared: Arc<Shared>, mut stream: Stream, address: SocketAddr, number: u64) {
    let ours = {
        let state = shared.lock();
        Welcome { net: state.peer.net(), contact: state.peer.me() }
    };
    let answered = within(shared.runtime(), HANDSHAKE_TIMEOUT, async {
        configure(&stream)?;
        let admit = |contact: &Contact| shared.turn(|state, now| state.make_room(now, contact));
        answer(&mut stream, shared.key.as_ref(), ours, |contact| shared.reach(contact), admit).await
    })
    .await;
    shared.turn(|state, now| {
        state.dials.handshakes.retain(|(handshake, _)| *handshake != number);
        match answered {
            Ok(Some((contact, channel))) => {
                task::start_link(&shared, state, now, contact, Connection { stream, channel }, None);
            }
            Ok(None) => {}
            Err(error) => state.events.put(NodeEvent::Refused { access_point: address.into(), error }, 1),
        }
    });
}

async fn pause(runtime: Runtime, duration: Duration) {
    let mut sleep = runtime.sleep(duration);
    std::future::poll_fn(|context| sleep.poll(context)).await;
}

async fn within<T>(
    runtime: Runtime,
    limit: Duration,
    work: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    runtime.timeout(limit, work).await.unwrap_or(Err(HandshakeError::TimedOut))
}
