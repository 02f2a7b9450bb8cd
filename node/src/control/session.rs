//! A managed node, whatever carries its orders and reports: it becomes the node that its first line asks for, obeys the
//! others, and tells what happens; see [`control`](super).

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::sync::mpsc;

use super::under_way::UnderWay;
use super::{Errand, OperationReport, Order, Outcome, Report, Setup, errand};
use crate::com::limits::LOOKUPS_MAX;
use crate::config::{NetConfig, ProxyUse};
use crate::driver::clock;
use crate::id::Id;
use crate::message::RouteError;
use crate::message::dictionary::Answer;
use crate::metrics::endpoint::Endpoint;
use crate::node::{
    Event, Events, IdleNode, LookupEnd, Message, Messages, Node, NodeConfig, NodeError, NodeEvent, Runtime,
};
use crate::time::Time;

/// How long a node that ends waits for its last reports to be read.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// The most errands that a node has under way; what comes then has failed ([`RouteError::Overloaded`]).
const ERRANDS_MAX: usize = LOOKUPS_MAX;

/// Where a node's orders come from.
pub(crate) trait Orders {
    /// One or more whole lines. May be dropped at any time without loss. An error is the lifeline's end.
    async fn next(&mut self) -> io::Result<Vec<u8>>;
}

/// Where a node's reports go.
pub(crate) trait Reports {
    /// Says something with the next [`flush`](Reports::flush). An error: too much waits, nobody listens.
    fn say(&mut self, report: Report) -> io::Result<()>;

    /// Passes on what is taken at once. `false`: something still waits for room.
    fn flush(&mut self) -> io::Result<bool>;

    /// Waits until some of it may be taken. May be dropped at any time.
    async fn room(&mut self) -> io::Result<()>;
}

/// How a managed node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It has left.
    Left,
    /// It could not go on, and said why.
    Failed,
    /// Who started it is gone, or does not listen.
    CutOff,
}

impl Ended {
    /// The exit code that says so: 0 it has left, 3 otherwise.
    pub(crate) fn code(self) -> u8 {
        match self {
            Ended::Left => 0,
            Ended::Failed | Ended::CutOff => 3,
        }
    }
}

/// Why a managed node ended otherwise than by leaving.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Who started it is gone, or does not read.
    #[error("the lifeline is cut: {0}")]
    Lifeline(#[from] io::Error),
    #[error("a line cannot be understood: {0}")]
    Line(#[from] serde_json::Error),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("cannot serve /metrics: {0}")]
    Metrics(io::Error),
}

/// How an [`IdleNode`] is made: one that this runtime runs, or one of the `LocalSet` at hand.
pub(crate) type MakeNode = fn(NetConfig, &NodeConfig) -> Result<IdleNode, NodeError>;

/// Runs a managed node until it has left, its orders end, or it cannot go on.
pub(crate) async fn run(mut orders: impl Orders, mut reports: impl Reports, make: MakeNode) -> Ended {
    let ended = match obey(&mut orders, &mut reports, make).await {
        Ok(()) => Ended::Left,
        Err(Failure::Lifeline(_)) => return Ended::CutOff,
        Err(failure) => match reports.say(Report::Failed { error: failure.to_string() }) {
            Ok(()) => Ended::Failed,
            Err(_) => return Ended::CutOff,
        },
    };
    // Who does not read them does not want them.
    let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, finish(&mut reports)).await;
    ended
}

async fn finish(reports: &mut impl Reports) -> io::Result<()> {
    while !reports.flush()? {
        reports.room().await?;
    }
    Ok(())
}

/// Becomes the node that the first line asks for, and does what the others say.
async fn obey<R: Reports>(lines: &mut impl Orders, reports: &mut R, make: MakeNode) -> Result<(), Failure> {
    let first = lines.next().await?;
    let (setup, orders) = first.split_at(first.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1);
    let setup: Setup = serde_json::from_slice(setup)?;
    let config = NodeConfig {
        id: Some(setup.id),
        listen: setup.listen,
        advertise: None,
        seed: Some(setup.seed),
        network_key: setup.network_key,
        runtime: Runtime::Tokio,
        // Who takes part is known by the plan: a node that others cannot reach does not get in.
        proxy: ProxyUse::Never,
    };
    let idle = make(setup.net, &config)?;
    let node = idle.node().clone();
    node.shape_links(&setup.shapes);
    let endpoint = setup.metrics.map(|listen| {
        let node = node.clone();
        Endpoint::serve(listen, move || node.snapshot()).map_err(Failure::Metrics)
    });
    let endpoint = endpoint.transpose()?;
    reports.say(Report::Listening {
        access_point: node.access_point(),
        metrics: endpoint.as_ref().map(Endpoint::address),
    })?;
    let (sender, mut ends) = mpsc::unbounded_channel();
    let mut errands = UnderWay::new();
    let mut session = Session { node, reports, sender, ring: None, leave: None, left: false };
    session.obey(orders, &mut errands)?;
    let mut enter = pin!(async {
        match setup.join.as_slice() {
            [] => idle.create().await,
            access_points => idle.join(access_points).await,
        }
    });
    let mut streams = None;
    loop {
        let waits = !session.reports.flush()?;
        tokio::select! {
            biased;
            orders = lines.next() => session.obey(&orders?, &mut errands)?,
            Some(end) = ends.recv() => {
                session.ended(&end)?;
                while let Ok(end) = ends.try_recv() {
                    session.ended(&end)?;
                }
            }
            end = errands.next() => session.reports.say(Report::Operation(end))?,
            entered = &mut enter, if streams.is_none() => {
                let (_, messages, events) = entered?;
                streams = Some((messages, events));
                session.reports.say(Report::Joined { at_us: clock::now().as_micros() })?;
                session.ring_changed()?;
            }
            news = next(&mut streams) => match news {
                News::Message(message) => session.delivered(&message)?,
                News::Event(event) => session.happened(&event)?,
            },
            handed_over = finished(&mut session.leave) => return session.has_left(handed_over),
            room = session.reports.room(), if waits => room?,
        }
    }
}

/// What a node has for its application.
enum News {
    Message(Message),
    Event(NodeEvent),
}

/// The next thing that a member has for its application, which is the experiment; nothing comes once it has stopped.
async fn next(streams: &mut Option<(Messages, Events)>) -> News {
    let Some((messages, events)) = streams else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(event) = events.next() => News::Event(event),
        Some(message) = messages.next() => News::Message(message),
        else => std::future::pending().await,
    }
}

/// The errands of a node that have not ended.
type Errands = UnderWay<OperationReport>;

/// An operation with its times.
async fn timed(operation: u64, end: impl Future<Output = Outcome>) -> OperationReport {
    let issued_us = clock::now().as_micros();
    let outcome = end.await;
    OperationReport { operation, issued_us, ended_us: clock::now().as_micros(), outcome }
}

impl From<NodeError> for Outcome {
    fn from(error: NodeError) -> Outcome {
        match error {
            NodeError::Route(reason) => Outcome::Failed(reason),
            NodeError::Dictionary(error) => error.into(),
            NodeError::NotOnRing { .. } => Outcome::Failed(RouteError::NoSuchNode),
            // It has left, or stopped.
            _ => Outcome::Failed(RouteError::NotMember),
        }
    }
}

impl From<Result<Answer, NodeError>> for Outcome {
    fn from(result: Result<Answer, NodeError>) -> Outcome {
        result.map_or_else(Outcome::from, Outcome::answered)
    }
}

impl From<Result<(), NodeError>> for Outcome {
    fn from(result: Result<(), NodeError>) -> Outcome {
        result.map_or_else(Outcome::from, |()| Outcome::Sent)
    }
}

type Leave = Pin<Box<dyn Future<Output = Result<bool, NodeError>> + Send>>;

async fn finished(leave: &mut Option<Leave>) -> bool {
    match leave {
        Some(leave) => matches!(leave.await, Ok(true)),
        None => std::future::pending().await,
    }
}

struct Session<'a, R> {
    node: Node,
    reports: &'a mut R,
    sender: mpsc::UnboundedSender<LookupEnd>,
    /// The neighbours that were reported last.
    ring: Option<(Option<Id>, Id)>,
    leave: Option<Leave>,
    left: bool,
}

impl<R: Reports> Session<'_, R> {
    /// Carries out a batch of orders; its look-ups start in one turn.
    fn obey(&mut self, lines: &[u8], errands: &mut Errands) -> Result<(), Failure> {
        let mut lookups = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            match serde_json::from_slice(line)? {
                Order::Lookup { operation, key, intended_us } => {
                    lookups.push((operation, key, Time::from_micros(intended_us)));
                }
                Order::Errand { operation, what } => self.go(operation, what, errands)?,
                Order::Leave => {
                    if self.leave.is_none() {
                        let node = self.node.clone();
                        self.leave = Some(Box::pin(async move { node.leave().await }));
                    }
                }
                Order::Shape { rules } => self.node.shape_links(&rules),
                Order::Sample => self.reports.say(Report::Sample(Box::new(self.node.snapshot())))?,
            }
        }
        self.node.lookups(lookups.into_iter(), &self.sender);
        Ok(())
    }

    fn ended(&mut self, end: &LookupEnd) -> io::Result<()> {
        self.reports.say(Report::Operation(OperationReport {
            operation: end.operation,
            issued_us: end.issued.as_micros(),
            ended_us: end.ended.as_micros(),
            outcome: match end.result {
                Ok(found) => Outcome::Found { responsible: found.responsible.id, hops: found.hops },
                Err(reason) => Outcome::Failed(reason),
            },
        }))
    }

    /// Does an errand: at once, or as one of those under way.
    fn go(&mut self, operation: u64, errand: Errand, errands: &mut Errands) -> io::Result<()> {
        let payload = |bytes| errand::payload(operation, bytes);
        let node = self.node.clone();
        let is_full = errands.len() >= ERRANDS_MAX;
        let ended: Outcome = match errand {
            Errand::Send { to, bytes } => node.send(to, payload(bytes)).into(),
            Errand::Broadcast { bytes } => node.broadcast(payload(bytes)).into(),
            Errand::Multicast { to, bytes } => node.multicast(&to, payload(bytes)).into(),
            _ if is_full => Outcome::Failed(RouteError::Overloaded),
            Errand::Put { key, bytes } => {
                let value = payload(bytes);
                errands.add(timed(operation, async move {
                    node.insert(key, value).await.map(Answer::Written).into()
                }));
                return Ok(());
            }
            Errand::Get { key } => {
                errands.add(timed(operation, async move { node.get(key).await.map(Answer::Value).into() }));
                return Ok(());
            }
            Errand::SendReliable { to, bytes } => {
                let payload = payload(bytes);
                errands.add(timed(operation, async move { node.send_reliably(to, payload).await.into() }));
                return Ok(());
            }
        };
        let now_us = clock::now().as_micros();
        let (issued_us, ended_us, outcome) = (now_us, now_us, ended);
        self.reports.say(Report::Operation(OperationReport { operation, issued_us, ended_us, outcome }))
    }

    fn delivered(&mut self, message: &Message) -> io::Result<()> {
        // What no operation sent is nothing to tell of.
        let Some(operation) = errand::operation_of(&message.payload) else { return Ok(()) };
        self.reports.say(Report::Delivered { operation, at_us: clock::now().as_micros() })
    }

    fn happened(&mut self, event: &NodeEvent) -> io::Result<()> {
        match event {
            NodeEvent::Overlay(Event::Undelivered { destination, reason }) => {
                let (destination, at_us, reason) = (*destination, clock::now().as_micros(), *reason);
                self.reports.say(Report::Undelivered { destination, at_us, reason })
            }
            NodeEvent::Overlay(Event::NewSuccessor(_) | Event::NewPredecessor(_) | Event::Alone) => {
                self.ring_changed()
            }
            NodeEvent::Overlay(Event::Left { handed_over }) => self.report_left(*handed_over),
            _ => Ok(()),
        }
    }

    fn ring_changed(&mut self) -> io::Result<()> {
        let predecessor = self.node.predecessor().map(|contact| contact.id);
        let successor = self.node.successor().id;
        if self.ring.replace((predecessor, successor)) == Some((predecessor, successor)) {
            return Ok(());
        }
        self.reports.say(Report::Ring { at_us: clock::now().as_micros(), predecessor, successor })
    }

    fn report_left(&mut self, handed_over: bool) -> io::Result<()> {
        if std::mem::replace(&mut self.left, true) {
            return Ok(());
        }
        self.reports.say(Report::Left { at_us: clock::now().as_micros(), handed_over })
    }

    fn has_left(&mut self, handed_over: bool) -> Result<(), Failure> {
        Ok(self.report_left(handed_over)?)
    }
}
