//! The ways to the agents: for each host a task that writes to its agent, and one that reads from it and waits for its end.

use std::sync::Arc;
use std::time::Duration;

use p2ps::access_point::AccessPoint;
use p2ps::agent::lines::LineBuffer;
use p2ps::agent::protocol::{Action, ActionKind, LIST_MAX, NOTICE_BYTES_MAX, NodeIndex, Notice, Request};
use p2ps::id::Id;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::backend::{AgentConnection, AgentProcess};
use crate::schedule::{HostIndex, Schedule};

/// The most things that wait to be said to an agent; one that lets more wait is given up.
const OUTGOING_MAX: usize = 256;

/// How long an agent that has closed its output may take to end; then it is killed. A little more than an agent needs to
/// end its nodes.
const EXIT_WAIT: Duration = Duration::from_secs(6);

/// How much of an agent's standard error is kept: the last so many bytes.
const STDERR_BYTES_MAX: usize = 4 << 10;

/// How much is read at once, in bytes.
const READ_BYTES_MAX: usize = 64 << 10;

/// What comes from the hosts.
#[derive(Debug)]
pub(super) enum HostEvent {
    /// An agent said something.
    Said(Notice),
    /// An agent has ended and was waited for: how, with the last that it wrote to standard error.
    Ended { status: String, why: String },
}

/// What is said to an agent.
#[derive(Debug)]
pub(super) enum Outgoing {
    Request(Box<Request>),
    /// Where all nodes are reached.
    Addresses(Arc<Vec<(NodeIndex, AccessPoint)>>),
    /// That the kernel makes the faults, and where the nodes are then.
    Kernel(Arc<Vec<(Id, AccessPoint)>>),
    /// The nodes of the schedule's groups, and its slice of the schedule.
    Slice(Arc<Schedule>),
}

/// The orchestrator's end of one agent.
#[derive(Debug)]
pub(super) struct AgentHandle {
    outgoing: mpsc::Sender<Outgoing>,
    kill: Arc<Notify>,
}

impl AgentHandle {
    /// Takes charge of a host's agent; what comes from it goes to `events`.
    pub(super) fn new(
        host: HostIndex,
        connection: AgentConnection,
        events: mpsc::Sender<(HostIndex, HostEvent)>,
    ) -> AgentHandle {
        let AgentConnection { input, output, errors, process } = connection;
        let (outgoing, waiting) = mpsc::channel(OUTGOING_MAX);
        let kill = Arc::new(Notify::new());
        tokio::spawn(write(host, input, waiting));
        let errors = tokio::spawn(last_words(errors));
        let keeper = Keeper { host, process, errors, events, kill: Arc::clone(&kill) };
        tokio::spawn(keeper.run(output));
        AgentHandle { outgoing, kill }
    }

    /// Says something to the agent. `false`: too much waits already. One that takes no more has ended, or is about to: its end will
    /// be told of, with the reason.
    pub(super) fn say(&self, outgoing: Outgoing) -> bool {
        !matches!(self.outgoing.try_send(outgoing), Err(TrySendError::Full(_)))
    }

    /// Kills the agent; its end will be told of.
    pub(super) fn kill(&self) {
        self.kill.notify_one();
    }
}

struct Keeper {
    host: HostIndex,
    process: AgentProcess,
    errors: JoinHandle<String>,
    events: mpsc::Sender<(HostIndex, HostEvent)>,
    kill: Arc<Notify>,
}

impl Keeper {
    async fn run(mut self, output: Box<dyn AsyncRead + Send + Unpin>) {
        let kill = Arc::clone(&self.kill);
        let why = tokio::select! {
            why = self.read(output) => why,
            () = kill.notified() => {
                self.process.kill();
                "it was killed".to_owned()
            }
        };
        let status = tokio::select! {
            status = self.process.end(EXIT_WAIT) => Some(status),
            () = kill.notified() => None,
        };
        let status = match status {
            Some(status) => status,
            None => self.process.end(Duration::ZERO).await,
        };
        let stderr = tokio::time::timeout(Duration::from_secs(1), &mut self.errors).await;
        let stderr = stderr.ok().and_then(Result::ok).unwrap_or_default();
        let why = if stderr.is_empty() { why } else { format!("{why}; it said: {stderr}") };
        self.tell(HostEvent::Ended { status, why }).await;
    }

    async fn tell(&self, event: HostEvent) {
        // Nobody hears it only where the run itself has been given up.
        self.events.send((self.host, event)).await.ok();
    }

    /// Reads notices until there are no more; says why.
    async fn read(&self, mut output: Box<dyn AsyncRead + Send + Unpin>) -> String {
        let mut lines = LineBuffer::new(NOTICE_BYTES_MAX);
        let mut chunk = vec![0; READ_BYTES_MAX];
        loop {
            loop {
                let notice = match lines.next_line() {
                    Ok(None) => break,
                    Ok(Some(line)) => serde_json::from_slice(line),
                    Err(error) => return format!("its agent does not speak as it should: {error}"),
                };
                match notice {
                    Ok(notice) => self.tell(HostEvent::Said(notice)).await,
                    Err(error) => return format!("its agent does not speak as it should: {error}"),
                }
            }
            match output.read(&mut chunk).await {
                Ok(0) => return "its agent has gone".to_owned(),
                Ok(length) => lines.extend(&chunk[..length]),
                Err(error) => return format!("its agent cannot be heard: {error}"),
            }
        }
    }
}

async fn last_words(mut errors: Box<dyn AsyncRead + Send + Unpin>) -> String {
    let mut tail = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = errors.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..length]);
        let excess = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..excess);
    }
    String::from_utf8_lossy(&tail).trim().to_owned()
}

/// Writes to an agent until nothing more will come, or it does not read: its end is seen elsewhere.
async fn write(
    host: HostIndex,
    mut input: Box<dyn AsyncWrite + Send + Unpin>,
    mut waiting: mpsc::Receiver<Outgoing>,
) {
    while let Some(outgoing) = waiting.recv().await {
        let written = match outgoing {
            Outgoing::Request(request) => write_line(&mut input, &request).await,
            Outgoing::Addresses(nodes) => write_addresses(&mut input, &nodes).await,
            Outgoing::Kernel(nodes) => write_kernel(&mut input, &nodes).await,
            Outgoing::Slice(schedule) => match write_groups(&mut input, &schedule).await {
                Ok(()) => write_slice(&mut input, &schedule, host).await,
                failed => failed,
            },
        };
        if written.is_err() {
            return;
        }
    }
}

type Input = Box<dyn AsyncWrite + Send + Unpin>;

async fn write_line(input: &mut Input, request: &Request) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    input.write_all(&line).await?;
    input.flush().await
}

async fn write_addresses(input: &mut Input, nodes: &[(NodeIndex, AccessPoint)]) -> std::io::Result<()> {
    for nodes in nodes.chunks(LIST_MAX) {
        write_line(input, &Request::Addresses { nodes: nodes.to_vec() }).await?;
    }
    Ok(())
}

async fn write_kernel(input: &mut Input, nodes: &[(Id, AccessPoint)]) -> std::io::Result<()> {
    for nodes in nodes.chunks(LIST_MAX) {
        write_line(input, &Request::Kernel { nodes: nodes.to_vec() }).await?;
    }
    Ok(())
}

async fn write_groups(input: &mut Input, schedule: &Schedule) -> std::io::Result<()> {
    for request in group_lines(schedule) {
        write_line(input, &request).await?;
    }
    Ok(())
}

/// The schedule's groups, by their nodes' ids, in lines of at most [`LIST_MAX`] groups and ids. A group that does not fit in
/// one goes on in the next.
fn group_lines(schedule: &Schedule) -> Vec<Request> {
    let id = |node: &NodeIndex| schedule.nodes.get(*node as usize).map(|node| node.slot.id);
    let mut lines = Vec::new();
    let (mut first, mut groups, mut room) = (0, Vec::new(), LIST_MAX);
    for (index, group) in (0..).zip(&schedule.groups) {
        let mut ids: Vec<Id> = group.iter().filter_map(id).collect();
        loop {
            let rest = ids.split_off(ids.len().min(room));
            room -= ids.len();
            groups.push(ids);
            if rest.is_empty() && room > 0 && groups.len() < LIST_MAX {
                break;
            }
            lines.push(Request::Groups { first, groups: std::mem::take(&mut groups) });
            (first, room) = (index, LIST_MAX);
            if rest.is_empty() {
                first = index + 1;
                break;
            }
            ids = rest;
        }
    }
    if !groups.is_empty() {
        lines.push(Request::Groups { first, groups });
    }
    lines
}

async fn write_slice(input: &mut Input, schedule: &Schedule, host: HostIndex) -> std::io::Result<()> {
    let is_here =
        |action: &&Action| schedule.nodes.get(action.node as usize).is_some_and(|node| node.host == host);
    for actions in in_lines(schedule.actions.iter().filter(is_here)) {
        write_line(input, &Request::Schedule { actions }).await?;
    }
    Ok(())
}

/// The most ids that the actions of one line name: with them it is far below the longest line.
const LINE_IDS_MAX: usize = 16_384;

/// Actions in lists that a line takes.
fn in_lines<'a>(actions: impl Iterator<Item = &'a Action>) -> impl Iterator<Item = Vec<Action>> {
    let mut actions = actions.peekable();
    std::iter::from_fn(move || {
        let (mut list, mut ids) = (Vec::new(), 0);
        while let Some(action) = actions.next_if(|next| {
            ids += match &next.kind {
                ActionKind::Errand { what, .. } => what.receivers(),
                _ => 0,
            };
            list.is_empty() || (list.len() < LIST_MAX && ids <= LINE_IDS_MAX)
        }) {
            list.push(action.clone());
        }
        (!list.is_empty()).then_some(list)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::machine::tests::schedule;
    use p2ps::control::Errand;
    use p2ps::control::errand::RECEIVERS_MAX;

    fn read_back(lines: Vec<Request>) -> Vec<Vec<Id>> {
        let mut read: Vec<Vec<Id>> = Vec::new();
        for line in lines {
            let Request::Groups { first, groups } = line else { panic!("{line:?}") };
            assert!(groups.len() <= LIST_MAX && groups.iter().map(Vec::len).sum::<usize>() <= LIST_MAX);
            for (index, group) in (first as usize..).zip(groups) {
                match read.get_mut(index) {
                    Some(begun) => begun.extend(group),
                    None => {
                        assert_eq!(index, read.len(), "groups come in order");
                        read.push(group);
                    }
                }
            }
        }
        read
    }

    #[test]
    fn actions_that_name_many_nodes_go_in_more_lines() {
        let to = vec![Id(u64::MAX); RECEIVERS_MAX];
        let kind = ActionKind::Errand { operation: 0, what: Errand::Multicast { to, bytes: 100 } };
        let multicast = |index| Action { index, at_us: u64::MAX, node: 0, kind: kind.clone() };
        let multicasts: Vec<Action> = (0..100).map(multicast).collect();
        let kills = 100..100 + 2 * LIST_MAX as u64;
        let kills = kills.map(|index| Action { index, at_us: u64::MAX, node: 0, kind: ActionKind::Kill });
        let all: Vec<Action> = multicasts.into_iter().chain(kills).collect();
        let lines: Vec<Vec<Action>> = in_lines(all.iter()).collect();
        for actions in &lines {
            let line = serde_json::to_vec(&Request::Schedule { actions: actions.clone() }).unwrap();
            assert!(actions.len() <= LIST_MAX && line.len() < NOTICE_BYTES_MAX, "{}", line.len());
        }
        assert!(lines.len() < 12, "{}", lines.len());
        assert_eq!(lines.concat(), all);
    }

    #[test]
    fn groups_of_any_size_go_in_bounded_lines() {
        let nodes = 3 * LIST_MAX as u32;
        let mut schedule = schedule(nodes, 1, 0);
        for sizes in [
            vec![],
            vec![0, 0, 3],
            vec![LIST_MAX as u32, 1, 0],
            vec![LIST_MAX as u32 - 1, 2, 3 * LIST_MAX as u32, 0, 7],
            vec![1; 2 * LIST_MAX + 1],
            vec![0; LIST_MAX],
        ] {
            schedule.groups = sizes.iter().map(|size| (0..*size).rev().collect()).collect();
            let ids = |group: &Vec<NodeIndex>| {
                group.iter().map(|node| schedule.nodes[*node as usize].slot.id).collect::<Vec<Id>>()
            };
            let expected: Vec<Vec<Id>> = schedule.groups.iter().map(ids).collect();
            assert_eq!(read_back(group_lines(&schedule)), expected, "{} groups", sizes.len());
        }
    }
}
