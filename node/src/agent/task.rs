//! Nodes as tasks of the agent: thousands a host, for the price that they share its cores and its fate.
//!
//! A few worker threads, each with a runtime of its own, carry the nodes. A node is one future with all of its tasks within
//! (a `LocalSet`). Where that is not polled, the node stands still with its sockets open, as a process that was stopped does.
//! Where it is dropped, the kernel closes its sockets exactly as those of a process that was killed: the other end of a link
//! sees an orderly end (FIN) where the node had read all that came, a reset (RST) where it had not, and a reset for whatever
//! is sent after that; what the node had written before still arrives.
//!
//! A node that panics ends alone in builds that unwind. The release build aborts: a panic ends the agent, and all nodes of
//! the host with it.

use std::any::Any;
use std::future::Future;
use std::io;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, LocalSet, spawn_local};

use super::body::{Exit, Heard, Life, NodeEvent, ORDERS_BYTES, ORDERS_MAX, line};
use super::protocol::NODES_MAX;
use crate::control::session::{self, Ended, Orders, Reports};
use crate::control::{Report, Setup};
use crate::node::IdleNode;

/// The most threads that carry nodes.
const WORKERS_MAX: usize = 64;

/// The most reports of one node that wait to be heard; with more, the node ends.
const REPORTS_WAITING_MAX: usize = 1 << 16;

/// The threads that carry nodes. When this is dropped, all of them end, and their nodes with them.
#[derive(Debug)]
pub(super) struct Workers {
    starts: Vec<mpsc::Sender<Start>>,
}

impl Workers {
    /// Starts a thread for each core.
    pub(super) fn new() -> io::Result<Workers> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let starts = (0..cores.min(WORKERS_MAX)).map(|number| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (start, starts) = mpsc::channel(NODES_MAX);
            let thread = std::thread::Builder::new().name(format!("nodes-{number}"));
            thread.spawn(move || work(&runtime, starts))?;
            Ok(start)
        });
        Ok(Workers { starts: starts.collect::<io::Result<_>>()? })
    }

    /// Starts a node; what comes from it goes to `events`.
    pub(super) fn start(
        &self,
        setup: &Setup,
        life: Life,
        events: mpsc::Sender<NodeEvent>,
    ) -> io::Result<Task> {
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        let (wish, wishes) = watch::channel(Wish::Run);
        let full = |_| io::Error::other("the thread that would carry it has no room");
        orders.try_send(line(setup)).map_err(|_| io::Error::other("it takes no orders"))?;
        let start = Start { life, orders: waiting, wishes, events };
        let worker = life.node as usize % self.starts.len();
        self.starts[worker].try_send(start).map_err(full)?;
        Ok(Task { orders, wish })
    }
}

fn work(runtime: &Runtime, mut starts: mpsc::Receiver<Start>) {
    LocalSet::new().block_on(runtime, async move {
        while let Some(start) = starts.recv().await {
            spawn_local(start.live());
        }
    });
}

/// A node's task. When this is dropped, the node is killed.
#[derive(Debug)]
pub(super) struct Task {
    orders: mpsc::Sender<Bytes>,
    wish: watch::Sender<Wish>,
}

/// What a task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    StandStill,
    End,
}

impl Task {
    pub(super) fn orders(&self) -> &mpsc::Sender<Bytes> {
        &self.orders
    }

    pub(super) fn pause(&self) {
        self.wish(Wish::StandStill);
    }

    pub(super) fn resume(&self) {
        self.wish(Wish::Run);
    }

    pub(super) fn kill(&self) {
        self.wish(Wish::End);
    }

    fn wish(&self, wish: Wish) {
        self.wish.send_if_modified(|wished| *wished != Wish::End && std::mem::replace(wished, wish) != wish);
    }
}

/// A node that is to be started.
#[derive(Debug)]
struct Start {
    life: Life,
    orders: mpsc::Receiver<Bytes>,
    wishes: watch::Receiver<Wish>,
    events: mpsc::Sender<NodeEvent>,
}

impl Start {
    /// The node's life, until nothing of it is left.
    async fn live(self) {
        let Start { life, orders, wishes, events } = self;
        let reports = Outbox { life, events: events.clone(), waiting: Vec::new() };
        let session = session::run(Inbox(orders), reports, IdleNode::new_local);
        let (exit, stderr) = carry(session, wishes).await;
        for what in [Heard::Silence { stderr }, Heard::Ended(exit)] {
            // Only an agent that is ending does not hear it.
            events.send(NodeEvent { life, what }).await.ok();
        }
    }
}

/// Runs a node's session, and all tasks that it starts, as long as it is wished; says how it ended, and what it left behind
/// for people.
async fn carry(
    session: impl Future<Output = Ended> + 'static,
    mut wishes: watch::Receiver<Wish>,
) -> (Exit, String) {
    let mut tasks = LocalSet::new();
    let mut session = tasks.spawn_local(session);
    loop {
        let wish = *wishes.borrow_and_update();
        if wish == Wish::End {
            return (Exit::KILLED, String::new());
        }
        tokio::select! {
            biased;
            changed = wishes.changed() => if changed.is_err() {
                return (Exit::KILLED, String::new());
            },
            ended = &mut session => return exit(ended),
            () = &mut tasks, if wish == Wish::Run => {}
        }
    }
}

fn exit(ended: Result<Ended, JoinError>) -> (Exit, String) {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(ended) => (Exit::Code(ended.code().into()), String::new()),
        Err(Ok(panic)) => (Exit::PANIC, format!("panicked: {}", words(panic.as_ref()))),
        Err(Err(error)) => (Exit::PANIC, error.to_string()),
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// Orders that come in memory.
struct Inbox(mpsc::Receiver<Bytes>);

impl Orders for Inbox {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut lines = self.0.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
        while lines.len() < ORDERS_BYTES
            && let Ok(line) = self.0.try_recv()
        {
            lines.extend_from_slice(&line);
        }
        Ok(lines)
    }
}

/// Reports that go in memory.
struct Outbox {
    life: Life,
    events: mpsc::Sender<NodeEvent>,
    waiting: Vec<Report>,
}

impl Reports for Outbox {
    fn say(&mut self, report: Report) -> io::Result<()> {
        if self.waiting.len() >= REPORTS_WAITING_MAX {
            return Err(io::Error::other("nobody reads the reports"));
        }
        self.waiting.push(report);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<bool> {
        if self.waiting.is_empty() {
            return Ok(true);
        }
        let event = NodeEvent { life: self.life, what: Heard::Words(std::mem::take(&mut self.waiting)) };
        match self.events.try_send(event) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(NodeEvent { what: Heard::Words(words), .. })) => {
                self.waiting = words;
                Ok(false)
            }
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    async fn room(&mut self) -> io::Result<()> {
        self.events.reserve().await.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::task::yield_now;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test)
    }

    /// A session with a task that counts its own turns for ever.
    async fn busy(turns: Rc<Cell<u64>>) -> Ended {
        spawn_local(async move {
            loop {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        });
        std::future::pending().await
    }

    async fn pass_turns() {
        for _ in 0..1000 {
            yield_now().await;
        }
    }

    #[test]
    fn a_node_runs_stands_still_goes_on_and_is_gone_as_it_is_wished() {
        run(async {
            let (wish, wishes) = watch::channel(Wish::Run);
            let (orders, _) = mpsc::channel(1);
            let (task, turns) = (Task { orders, wish }, Rc::new(Cell::new(0)));
            let node = spawn_local(carry(busy(Rc::clone(&turns)), wishes));
            pass_turns().await;
            assert!(turns.get() > 0);
            task.pause();
            pass_turns().await;
            let stood_at = turns.get();
            pass_turns().await;
            assert_eq!(turns.get(), stood_at);
            task.resume();
            pass_turns().await;
            assert!(turns.get() > stood_at);
            task.pause();
            task.kill();
            task.resume();
            assert_eq!(node.await.unwrap(), (Exit::KILLED, String::new()), "whatever is wished after that");
            assert_eq!(Rc::strong_count(&turns), 1, "nothing of it is left");
        });
    }

    #[test]
    fn nothing_is_left_of_a_node_whose_agent_has_gone() {
        run(async {
            let (wish, wishes) = watch::channel(Wish::Run);
            let turns = Rc::new(Cell::new(0));
            drop(wish);
            assert_eq!(carry(busy(Rc::clone(&turns)), wishes).await.0, Exit::KILLED);
            assert_eq!(Rc::strong_count(&turns), 1);
        });
    }

    #[test]
    fn a_node_that_panics_ends_alone() {
        run(async {
            let (_wish, wishes) = watch::channel(Wish::Run);
            let turns = Rc::new(Cell::new(0));
            let neighbour = spawn_local(carry(busy(Rc::clone(&turns)), wishes.clone()));
            let broken = async { panic!("its invariant {} does not hold", 7) };
            let (exit, stderr) = carry(broken, wishes).await;
            assert_eq!((exit, stderr.as_str()), (Exit::PANIC, "panicked: its invariant 7 does not hold"));
            let before = turns.get();
            pass_turns().await;
            assert!(turns.get() > before && !neighbour.is_finished());
        });
    }
}
