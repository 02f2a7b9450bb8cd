//! A node as a task of a worker process: thousands fit on a host, for the price that they share cores and fate with others.
//!
//! A node is one future with all of its tasks within (a `LocalSet`). Where that is not polled, the node stands still with its
//! sockets open, as a process that was stopped does. Where it is dropped, the kernel closes its sockets exactly as those of a
//! process that was killed: the other end of a link sees an orderly end (FIN) where the node had read all that came, a reset
//! (RST) where it had not, and a reset for whatever is sent after that; what the node had written before still arrives.
//!
//! A node that panics ends alone in builds that unwind. The release build aborts: a panic ends the worker process, and the
//! nodes that it carries.

use std::any::Any;
use std::future::Future;
use std::io;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, LocalSet, spawn_local};

use super::body::{Exit, Heard, Life, NodeEvent, ORDERS_BYTES, ORDERS_MAX};
use crate::control::Report;
use crate::control::session::{self, Ended, Orders, Reports};
use crate::node::IdleNode;

/// The most reports of one node that wait to be heard; with more, the node ends.
const REPORTS_WAITING_MAX: usize = 1 << 16;

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
    /// Starts a node in the `LocalSet` at hand; its setup is its first order. What comes from it goes to `events`.
    pub(super) fn start(life: Life, setup: Bytes, events: mpsc::Sender<NodeEvent>) -> Task {
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        let (wish, wishes) = watch::channel(Wish::Run);
        let task = Task { orders, wish };
        task.order(setup);
        spawn_local(live(life, waiting, wishes, events));
        task
    }

    /// Gives it an order. A node that does not read so many is none that could go on: it is killed.
    pub(super) fn order(&self, order: Bytes) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.orders.try_send(order) {
            self.kill();
        }
    }

    /// Whether nothing of it is left.
    pub(super) fn has_ended(&self) -> bool {
        self.wish.is_closed()
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

/// A node's life, until nothing of it is left.
async fn live(
    life: Life,
    orders: mpsc::Receiver<Bytes>,
    wishes: watch::Receiver<Wish>,
    events: mpsc::Sender<NodeEvent>,
) {
    let reports = Outbox { life, events: events.clone(), waiting: Vec::new() };
    let session = session::run(Inbox(orders), reports, IdleNode::new_local);
    let (exit, stderr) = carry(session, wishes).await;
    for what in [Heard::Silence { stderr }, Heard::Ended(exit)] {
        // Only an agent that is ending does not hear it.
        events.send(NodeEvent { life, what }).await.ok();
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
        lines.push(b'\n');
        while lines.len() < ORDERS_BYTES
            && let Ok(line) = self.0.try_recv()
        {
            lines.extend_from_slice(&line);
            lines.push(b'\n');
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
