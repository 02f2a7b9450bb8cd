//! The managed node: obeys the orders on its standard input and reports on its standard output; see [`control`](super).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{LINE_BYTES_MAX, OperationReport, Order, Outcome, Report, Setup};
use crate::driver::clock;
use crate::id::Id;
use crate::metrics::endpoint::Endpoint;
use crate::node::{Event, Events, IdleNode, LookupEnd, Node, NodeConfig, NodeError, NodeEvent};
use crate::time::Time;

/// The most bytes of reports that wait to be read; with more, the node ends: nobody listens.
pub const REPORTS_WAITING_BYTES_MAX: usize = 16 << 20;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// How long a node that ends waits for its last reports to be read.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a managed node until it has left, its input ends, or it cannot go on. Exit codes: 0 it has left, 3 otherwise.
pub fn run() -> ExitCode {
    let runtime =
        bind_to_parent().and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
    match runtime.map_err(Failure::Lifeline).and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(3),
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

/// The kernel kills this process when its parent is gone. If that has happened before, the input has ended.
fn bind_to_parent() -> io::Result<()> {
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

async fn serve() -> Result<(), Failure> {
    let mut lines = Lines::new()?;
    let mut reports = Reports::new()?;
    let ended = obey(&mut lines, &mut reports).await;
    match &ended {
        Err(Failure::Lifeline(_)) => return ended,
        Err(failure) => reports.say(&Report::Failed { error: failure.to_string() })?,
        Ok(()) => {}
    }
    // Who does not read them does not want them.
    let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, reports.finish()).await;
    ended
}

/// Becomes the node that the first line asks for, and does what the others say.
async fn obey(lines: &mut Lines, reports: &mut Reports) -> Result<(), Failure> {
    let first = lines.next().await?;
    let (setup, orders) = first.split_at(first.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1);
    let setup: Setup = serde_json::from_slice(setup)?;
    let config = NodeConfig {
        id: Some(setup.id),
        listen: setup.listen,
        advertise: None,
        seed: Some(setup.seed),
        network_key: setup.network_key,
    };
    let idle = IdleNode::new(setup.net, &config)?;
    let node = idle.node().clone();
    node.shape_links(&setup.shapes);
    let endpoint = setup.metrics.map(|listen| {
        let node = node.clone();
        Endpoint::serve(listen, move || node.snapshot()).map_err(Failure::Metrics)
    });
    let endpoint = endpoint.transpose()?;
    reports.say(&Report::Listening {
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
        session.reports.flush()?;
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
                session.reports.say(&Report::Joined { at_us: clock::now().as_micros() })?;
                session.ring_changed()?;
            }
            Some(event) = next(&mut events) => session.happened(&event)?,
            handed_over = finished(&mut session.leave) => return session.has_left(handed_over),
            ready = session.reports.output.writable(), if !session.reports.bytes.is_empty() => ready?,
        }
    }
}

async fn next(events: &mut Option<Events>) -> Option<NodeEvent> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

async fn finished(leave: &mut Option<JoinHandle<Result<bool, NodeError>>>) -> bool {
    match leave {
        Some(leave) => matches!(leave.await, Ok(Ok(true))),
        None => std::future::pending().await,
    }
}

struct Session<'a> {
    node: Node,
    reports: &'a mut Reports,
    sender: mpsc::UnboundedSender<LookupEnd>,
    /// The neighbours that were reported last.
    ring: Option<(Option<Id>, Id)>,
    leave: Option<JoinHandle<Result<bool, NodeError>>>,
    left: bool,
}

impl Session<'_> {
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
                        self.leave = Some(tokio::spawn(async move { node.leave().await }));
                    }
                }
                Order::Shape { rules } => self.node.shape_links(&rules),
                Order::Sample => self.reports.say(&Report::Sample(Box::new(self.node.snapshot())))?,
            }
        }
        self.node.lookups(lookups.into_iter(), &self.sender);
        Ok(())
    }

    fn ended(&mut self, end: &LookupEnd) -> io::Result<()> {
        self.reports.say(&Report::Operation(OperationReport {
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
        self.reports.say(&Report::Ring { at_us: clock::now().as_micros(), predecessor, successor })
    }

    fn report_left(&mut self, handed_over: bool) -> io::Result<()> {
        if std::mem::replace(&mut self.left, true) {
            return Ok(());
        }
        self.reports.say(&Report::Left { at_us: clock::now().as_micros(), handed_over })
    }

    fn has_left(&mut self, handed_over: bool) -> Result<(), Failure> {
        Ok(self.report_left(handed_over)?)
    }
}

/// Whole lines from standard input.
struct Lines {
    input: pipe::Receiver,
    partial: Vec<u8>,
}

impl Lines {
    fn new() -> io::Result<Lines> {
        let input = pipe::Receiver::from_owned_fd(duplicate(&io::stdin())?)?;
        Ok(Lines { input, partial: Vec::new() })
    }

    /// One or more whole lines. May be dropped at any time without loss.
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            self.input.readable().await?;
            self.partial.reserve(READ_BYTES);
            match self.input.try_read_buf(&mut self.partial) {
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
struct Reports {
    output: pipe::Sender,
    bytes: Vec<u8>,
}

impl Reports {
    fn new() -> io::Result<Reports> {
        let output = pipe::Sender::from_owned_fd(duplicate(&io::stdout())?)?;
        Ok(Reports { output, bytes: Vec::new() })
    }

    fn say(&mut self, report: &Report) -> io::Result<()> {
        if self.bytes.len() > REPORTS_WAITING_BYTES_MAX {
            return Err(io::Error::other("nobody reads the reports"));
        }
        serde_json::to_writer(&mut self.bytes, report)?;
        self.bytes.push(b'\n');
        Ok(())
    }

    /// Writes what is read at once.
    fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.bytes.len() {
            match self.output.try_write(&self.bytes[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.bytes.drain(..written);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        while !self.bytes.is_empty() {
            self.output.writable().await?;
            self.flush()?;
        }
        Ok(())
    }
}

/// The standard streams stay open: what they are is only borrowed.
fn duplicate(stream: &impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}
