//! A managed node, whatever carries its orders and reports: it becomes the node that its first line asks for, obeys the
//! others, and tells what happens; see [`control`](super).

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{OperationReport, Order, Outcome, Report, Setup};
use crate::config::NetConfig;
use crate::driver::clock;
use crate::id::Id;
use crate::metrics::endpoint::Endpoint;
use crate::node::{Event, Events, IdleNode, LookupEnd, Node, NodeConfig, NodeError, NodeEvent, Runtime};
use crate::time::Time;

/// How long a node that ends waits for its last reports to be read.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

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
    let mut session = Session { node, reports, sender, ring: None, leave: None, left: false };
    session.obey(orders)?;
    let mut enter = pin!(async {
        match setup.join.as_slice() {
            [] => idle.create().await,
            access_points => idle.join(access_points).await,
        }
    });
    let mut events = None;
    loop {
        let waits = !session.reports.flush()?;
        tokio::select! {
            biased;
            orders = lines.next() => session.obey(&orders?)?,
            Some(end) = ends.recv() => {
                session.ended(&end)?;
                while let Ok(end) = ends.try_recv() {
                    session.ended(&end)?;
                }
            }
            entered = &mut enter, if events.is_none() => {
                // A managed node has no application that messages would be for.
                let (_, _, entered_events) = entered?;
                events = Some(entered_events);
                session.reports.say(Report::Joined { at_us: clock::now().as_micros() })?;
                session.ring_changed()?;
            }
            Some(event) = next(&mut events) => session.happened(&event)?,
            handed_over = finished(&mut session.leave) => return session.has_left(handed_over),
            room = session.reports.room(), if waits => room?,
        }
    }
}

async fn next(events: &mut Option<Events>) -> Option<NodeEvent> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
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
    fn obey(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let mut lookups = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            match serde_json::from_slice(line)? {
                Order::Lookup { operation, key, intended_us } => {
                    lookups.push((operation, key, Time::from_micros(intended_us)));
                }
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

    fn happened(&mut self, event: &NodeEvent) -> io::Result<()> {
        match event {
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
