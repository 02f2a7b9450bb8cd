//! The host agent: owns the nodes of one host and carries out its slice of a schedule.
//!
//! `p2ps-node agent` is started once per host, by whatever way (a child process, SSH). It hears [`protocol::Request`]s on
//! standard input and tells [`protocol::Notice`]s on standard output. It executes its actions on the host's own monotonic
//! clock, so their timing does not depend on the way to the orchestrator. End of input, or no word within the lease, and
//! it kills every process that it started: the dead man's switch. Should it hang, its sentinel kills it, and the nodes go with it.

mod body;
pub mod clock;
mod crew;
mod faults;
mod host;
mod kernel;
pub mod lines;
mod outlet;
mod ports;
mod preparation;
mod probe;
mod process;
pub mod protocol;
mod roster;
mod sampling;
mod schedule;
mod sentinel;
mod supervisor;
mod task;
mod worker;

use std::io::Read;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::lines::LineBuffer;
use self::protocol::{NOTICE_BYTES_MAX, Request};
use self::supervisor::Supervisor;

/// The most requests that wait for the agent; more wait in the pipe.
const REQUESTS_MAX: usize = 64;

/// The most batches of words of nodes that wait for the agent; more wait in the nodes' pipes.
const EVENTS_MAX: usize = 1024;

/// The most batches of words that are heard in one turn, so that an action which falls due meanwhile does not wait for them.
const EVENTS_PER_TURN: usize = 16;

/// How many of the tasks that talk with nodes may run before the timer is looked at again.
const TASKS_PER_TURN: u32 = 8;

/// Why an agent ended other than by [`Request::Stop`].
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The system refused what the agent cannot do without.
    #[error("the agent cannot {what}")]
    System {
        /// What it wanted.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The dead man's switch, or a signal: every process that it had started has been killed.
    #[error("the agent gave up: {0}")]
    Abandoned(String),
    /// The orchestrator's first line was not one that this agent understands.
    #[error("the agent refused to start: {0}")]
    Refused(String),
}

/// Runs the agent on standard input and output, until it is told to stop or gives up. When it returns, no process that
/// it started is left.
///
/// # Errors
/// [`AgentError`]: why it ended before it was told to.
pub fn run() -> Result<(), AgentError> {
    // A session of its own: a terminal's Ctrl-C is for the orchestrator, and whatever is left after a crash can be found
    // by the session's number. It fails only for the leader of a process group, which is apart from others already.
    rustix::process::setsid().ok();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_PER_TURN)
        .build()
        .map_err(|source| AgentError::System { what: "start its event loop", source })?;
    host::raise_limits();
    runtime.block_on(serve())
}

/// Runs a worker process of an agent: many nodes, each as a task. When it returns, they are gone.
///
/// # Errors
/// [`AgentError::System`]: it was cut off from its agent otherwise than by the end of its input.
pub fn run_worker() -> Result<(), AgentError> {
    worker::run()
}

/// Watches the agent that started this process, and kills it where it does not say within `lease` that it still hears its
/// orchestrator.
///
/// # Errors
/// [`AgentError::System`]: it cannot watch.
pub fn run_sentinel(lease: Duration) -> Result<(), AgentError> {
    sentinel::run(lease)
}

/// Owns the queues that its agent, which started this process, lets the kernel make, and removes them when that ends.
///
/// # Errors
/// [`AgentError::System`]: it cannot keep them.
pub fn run_keeper() -> Result<(), AgentError> {
    kernel::run_keeper()
}

/// Removes the queues that agents in this network namespace have left, where they were killed together with what would have removed them.
/// Gives back the names of their interfaces.
///
/// # Errors
/// What the system said.
pub fn sweep_queues() -> std::io::Result<Vec<String>> {
    kernel::sweep_queues()
}

/// What the thread that reads standard input has to say.
enum Heard {
    Request(Box<Request>),
    /// A line that is no request: what is wrong with it.
    Malformed(String),
    /// No more will come: why.
    Ended(String),
}

async fn serve() -> Result<(), AgentError> {
    let cannot = |what| move |source| AgentError::System { what, source };
    let mut children = signal(SignalKind::child()).map_err(cannot("be told of ended processes"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot("be told to end"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot("be told to end"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot("be told to end"))?;
    let alarm = clock::Alarm::new().map_err(cannot("make a timer"))?;
    let outlet = outlet::Outlet::start().map_err(cannot("start a thread"))?;
    let (hear, mut heard) = mpsc::channel(REQUESTS_MAX);
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || listen(std::io::stdin().lock(), &hear))
        .map_err(cannot("start a thread"))?;
    let (tell, mut told) = mpsc::channel(EVENTS_MAX);
    let (tell_probed, mut probed) = mpsc::channel(1);
    let mut supervisor = Supervisor::new(outlet, tell, probe::Probe::new(tell_probed), clock::monotonic_us());

    let mut listening = true;
    loop {
        supervisor.flush();
        let Some(deadline_us) = supervisor.deadline_us() else { break };
        alarm.set(deadline_us).map_err(cannot("set a timer"))?;
        tokio::select! {
            biased;
            said = heard.recv(), if listening => match said {
                Some(Heard::Request(request)) => supervisor.request(*request),
                Some(Heard::Malformed(error)) => supervisor.malformed(error),
                Some(Heard::Ended(reason)) => supervisor.abandon(reason),
                // An ended channel is always ready: it would leave no turn to the others.
                None => {
                    listening = false;
                    supervisor.abandon("its input cannot be read any more".into());
                }
            },
            _ = children.recv() => supervisor.reap(),
            _ = terminate.recv() => supervisor.abandon("it was told to by SIGTERM".into()),
            _ = interrupt.recv() => supervisor.abandon("it was told to by SIGINT".into()),
            _ = hangup.recv() => supervisor.abandon("it was told to by SIGHUP".into()),
            ring = alarm.ring() => ring.map_err(cannot("wait for a timer"))?,
            Some(notice) = probed.recv() => supervisor.probed(&notice),
            Some(event) = told.recv() => {
                supervisor.node_event(event);
                for _ in 1..EVENTS_PER_TURN {
                    let Ok(event) = told.try_recv() else { break };
                    supervisor.node_event(event);
                }
            }
        }
        supervisor.advance(clock::monotonic_us());
    }
    supervisor.end()
}

/// Reads requests until the end of input, or until nobody hears them.
fn listen(mut input: impl Read, hear: &mpsc::Sender<Heard>) {
    let mut lines = LineBuffer::new(NOTICE_BYTES_MAX);
    let mut chunk = vec![0; 64 << 10];
    let reason = loop {
        match lines.next_line() {
            Ok(Some(line)) => {
                let heard = match serde_json::from_slice::<Request>(line) {
                    Ok(request) => Heard::Request(Box::new(request)),
                    Err(error) => Heard::Malformed(format!("no request that this agent knows: {error}")),
                };
                if hear.blocking_send(heard).is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => break error.to_string(),
        }
        match input.read(&mut chunk) {
            Ok(0) => break "end of input: the orchestrator is gone".to_owned(),
            Ok(length) => lines.extend(&chunk[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break format!("its input cannot be read: {error}"),
        }
    };
    // Nobody hears it if the agent has just ended, which is as well.
    hear.blocking_send(Heard::Ended(reason)).ok();
}
