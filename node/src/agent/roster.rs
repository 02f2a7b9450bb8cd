//! The nodes of one host and their processes or tasks: who runs, who is to end, who has ended.
//!
//! Only [`Roster::reap`] reaps, in the same task that kills. So a process number that is killed is always that of a
//! process that was started here: it cannot have been given to another meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use rustix::process::{Pid, WaitOptions, wait};
use tokio::sync::mpsc;

use super::body::{Body, Exit, Housing, Life, NodeEvent, line};
use super::ports::Reservation;
use super::protocol::{NodeIndex, NodeSlot};
use crate::access_point::AccessPoint;
use crate::com::key::NetworkKey;
use crate::com::shaping::LinkShape;
use crate::config::NetConfig;
use crate::control::{Order, Setup};
use crate::id::Id;

/// How long a process that has ended is waited for to fall silent, in microseconds: its last words may still be in the
/// pipe.
const SILENCE_WAIT_US: u64 = 1_000_000;

/// What all nodes of a host share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) housing: Housing,
    pub(super) net: NetConfig,
    pub(super) network_key: Option<NetworkKey>,
    pub(super) metrics: bool,
    pub(super) events: mpsc::Sender<NodeEvent>,
}

/// The nodes of one host.
#[derive(Debug)]
pub(super) struct Roster {
    common: Common,
    nodes: BTreeMap<NodeIndex, Node>,
    /// Nodes that were started and have not ended.
    living: HashSet<NodeIndex>,
    /// Those of them that are processes.
    pids: HashMap<Pid, NodeIndex>,
    /// Told to leave, and killed if they have not until then (microseconds).
    leaving: Vec<(Life, u64)>,
    /// Ended, but not yet silent.
    fading: Vec<(Life, Ended, u64)>,
}

#[derive(Debug)]
struct Node {
    slot: NodeSlot,
    reservation: Reservation,
    lives: u32,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    body: Body,
    listening: bool,
    paused: bool,
    ending: Option<Ending>,
    /// Its standard error, if it closed its streams already.
    silent: Option<String>,
}

/// Why a node is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It leaves gracefully.
    Leaving,
    /// It was told to by the schedule, or at the end of the run.
    Killed,
    /// It did something that it must not.
    Condemned,
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) node: NodeIndex,
    pub(super) at_us: u64,
    pub(super) status: String,
    pub(super) expected: bool,
    pub(super) stderr: String,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// It has been told to end, but has not yet.
    #[error("its last life has not ended yet")]
    Ending,
    #[error("the node is running already")]
    Running,
    #[error("it cannot be started: {0}")]
    System(#[from] io::Error),
}

impl Roster {
    /// Nodes that do not run yet.
    pub(super) fn new(common: Common, slots: Vec<NodeSlot>, reservations: Vec<Reservation>) -> Roster {
        let node = |(slot, reservation)| Node { slot, reservation, lives: 0, running: None };
        let nodes = slots.into_iter().zip(reservations).map(node).map(|node| (node.slot.node, node));
        let nodes = nodes.collect();
        Roster {
            common,
            nodes,
            living: HashSet::new(),
            pids: HashMap::new(),
            leaving: Vec::new(),
            fading: Vec::new(),
        }
    }

    /// Whether the node is one of this host's.
    pub(super) fn contains(&self, node: NodeIndex) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Where each node is, or will be, reached.
    pub(super) fn access_points(&self) -> impl Iterator<Item = (NodeIndex, AccessPoint)> + '_ {
        self.nodes.iter().map(|(index, node)| (*index, node.reservation.address().into()))
    }

    /// The same, as addresses.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.values().map(|node| node.reservation.address()).collect()
    }

    /// Whether nothing of this host's nodes runs, and all that they said has been heard.
    pub(super) fn is_quiet(&self) -> bool {
        let is_gone = match &self.common.housing {
            Housing::Processes(_) => true,
            Housing::Tasks(crew) => crew.is_gone(),
        };
        is_gone && self.living.is_empty() && self.fading.is_empty()
    }

    /// Starts a node, which joins by `join` and shapes its links by `shapes`.
    pub(super) fn start(
        &mut self,
        index: NodeIndex,
        join: Vec<AccessPoint>,
        shapes: Vec<(Vec<Id>, LinkShape)>,
    ) -> Result<(), StartError> {
        let node = self.nodes.get_mut(&index).expect("actions are checked to be for nodes of this host");
        match &node.running {
            Some(Running { ending: Some(_), .. }) => return Err(StartError::Ending),
            Some(Running { ending: None, .. }) => return Err(StartError::Running),
            None => {}
        }
        let setup = Setup {
            net: self.common.net,
            id: node.slot.id,
            listen: node.reservation.address(),
            join,
            // A node that comes back draws anew.
            seed: node.slot.seed.wrapping_add(u64::from(node.lives)),
            metrics: self.common.metrics.then(|| ([127, 0, 0, 1], 0).into()),
            shapes,
            network_key: self.common.network_key.clone(),
        };
        let life = Life { node: index, number: node.lives + 1 };
        node.reservation.release();
        let started = self.common.housing.start(&setup, life, self.common.events.clone());
        let body = started.inspect_err(|_| node.reservation.hold())?;
        node.lives = life.number;
        self.living.insert(index);
        if let Body::Process(process) = &body {
            self.pids.insert(process.pid(), index);
        }
        node.running = Some(Running { body, listening: false, paused: false, ending: None, silent: None });
        Ok(())
    }

    /// Kills a node; the schedule wants it. `false`: it does not run.
    pub(super) fn kill(&mut self, index: NodeIndex) -> bool {
        self.end(index, Ending::Killed)
    }

    /// Kills a node that misbehaved, if that life has not ended already.
    pub(super) fn condemn(&mut self, life: Life) {
        if self.nodes.get(&life.node).is_some_and(|node| node.lives == life.number) {
            self.end(life.node, Ending::Condemned);
        }
    }

    /// Kills all nodes.
    pub(super) fn kill_all(&mut self) {
        let nodes: Vec<NodeIndex> = self.living.iter().copied().collect();
        for index in nodes {
            self.kill(index);
        }
        if let Housing::Tasks(crew) = &self.common.housing {
            crew.kill();
        }
    }

    fn end(&mut self, index: NodeIndex, ending: Ending) -> bool {
        let running = self.nodes.get_mut(&index).and_then(|node| node.running.as_mut());
        let Some(running) = running else { return false };
        // What was condemned stays so: its end was not the schedule's doing.
        if running.ending != Some(Ending::Condemned) {
            running.ending = Some(ending);
        }
        running.body.kill();
        true
    }

    /// Tells a node to leave, until `until_us`. `false`: it does not run, or does not listen to orders.
    pub(super) fn leave(&mut self, index: NodeIndex, until_us: u64) -> bool {
        let Some(node) = self.nodes.get_mut(&index) else { return false };
        let Some(running) = &mut node.running else { return false };
        let told = running.ending.is_none() && running.body.order(&Order::Leave);
        if told {
            running.ending = Some(Ending::Leaving);
            self.leaving.push((Life { node: index, number: node.lives }, until_us));
        }
        told
    }

    /// When the next leaving node's, or fading process's, time is up.
    pub(super) fn deadline_us(&self) -> Option<u64> {
        let leaving = self.leaving.iter().map(|(_, until_us)| *until_us);
        leaving.chain(self.fading.iter().map(|(_, _, until_us)| *until_us)).min()
    }

    /// Kills the nodes that should have left by now; gives back which.
    pub(super) fn kill_overdue(&mut self, now_us: u64) -> Vec<NodeIndex> {
        let mut overdue = Vec::new();
        self.leaving.retain(|(life, until_us)| {
            let node = &self.nodes[&life.node];
            let running = node.running.as_ref().filter(|_| node.lives == life.number);
            let leaves = running.is_some_and(|running| running.ending == Some(Ending::Leaving));
            if leaves && *until_us <= now_us {
                overdue.push(life.node);
            }
            leaves && *until_us > now_us
        });
        for index in &overdue {
            self.end(*index, Ending::Condemned);
        }
        overdue
    }

    /// Pauses a node, or lets it go on. `false`: it does not run, or is being killed.
    pub(super) fn pause(&mut self, index: NodeIndex, paused: bool) -> bool {
        let running = self.nodes.get_mut(&index).and_then(|node| node.running.as_mut());
        let Some(running) = running.filter(|running| running.lives()) else { return false };
        running.paused = paused;
        match paused {
            true => running.body.pause(),
            false => running.body.resume(),
        }
        true
    }

    /// Lets all paused nodes go on.
    pub(super) fn resume_all(&mut self) {
        for node in self.nodes.values_mut() {
            if let Some(running) = node.running.as_mut().filter(|running| running.paused) {
                running.paused = false;
                running.body.resume();
            }
        }
    }

    /// Gives an order to a node that is running and accepts links. `false`: it is not, is paused, or does not read its
    /// orders. A paused node could begin nothing in time; what it was told would all come at once when it goes on.
    pub(super) fn order(&self, index: NodeIndex, order: &Order) -> bool {
        self.tell(index, || line(order))
    }

    fn tell(&self, index: NodeIndex, order: impl FnOnce() -> Bytes) -> bool {
        let running = self.nodes.get(&index).and_then(|node| node.running.as_ref());
        running.is_some_and(|running| running.listening && !running.paused && running.body.say(order()))
    }

    /// Gives an order, as a line, to a node whatever it does; it obeys when it can. `false`: it does not read its orders.
    pub(super) fn say(&self, index: NodeIndex, line: Bytes) -> bool {
        let running = self.nodes.get(&index).and_then(|node| node.running.as_ref());
        running.filter(|running| running.lives()).is_none_or(|running| running.body.say(line))
    }

    /// Asks all running nodes for a sample; gives back who was asked.
    pub(super) fn ask_samples(&self) -> HashSet<NodeIndex> {
        let order = line(&Order::Sample);
        self.living.iter().copied().filter(|index| self.tell(*index, || order.clone())).collect()
    }

    /// A node accepts links.
    pub(super) fn listening(&mut self, life: Life) {
        if let Some(node) = self.nodes.get_mut(&life.node)
            && node.lives == life.number
            && let Some(running) = &mut node.running
        {
            running.listening = true;
        }
    }

    /// A node will say nothing more. Gives back how it ended, if it has.
    pub(super) fn silent(&mut self, life: Life, stderr: String) -> Option<Ended> {
        if let Some(position) = self.fading.iter().position(|(fading, ..)| *fading == life) {
            let (_, ended, _) = self.fading.swap_remove(position);
            let stderr = if ended.expected { String::new() } else { stderr };
            return Some(Ended { stderr, ..ended });
        }
        if let Some(node) = self.nodes.get_mut(&life.node)
            && node.lives == life.number
            && let Some(running) = &mut node.running
        {
            running.silent = Some(stderr);
        }
        None
    }

    /// Reaps all processes that have ended; gives back whose they were, and how they ended. With a worker, all nodes that it
    /// carried have ended.
    pub(super) fn reap(&mut self) -> Vec<(NodeIndex, Exit)> {
        let mut ended = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = Exit::from(status);
            // A process that could not be talked with was never entered; it is only reaped.
            ended.extend(self.pids.remove(&pid).map(|index| (index, exit)));
            if let Housing::Tasks(crew) = &mut self.common.housing
                && let Some(worker) = crew.reaped(pid)
            {
                let here = self.living.iter().filter(|index| crew.worker_of(**index) == worker);
                ended.extend(here.map(|index| (*index, exit)));
            }
        }
        ended
    }

    /// A task says that it has ended. Gives back whose it was, if that life has not ended already.
    pub(super) fn task_ended(&self, life: Life) -> Option<NodeIndex> {
        self.nodes.get(&life.node).filter(|node| node.lives == life.number).map(|_| life.node)
    }

    /// A node's process or task has ended. Gives back how, if it has fallen silent already.
    pub(super) fn ended(&mut self, now_us: u64, index: NodeIndex, exit: Exit) -> Option<Ended> {
        let node = self.nodes.get_mut(&index)?;
        let running = node.running.take()?;
        self.living.remove(&index);
        node.reservation.hold();
        let expected = match running.ending {
            None | Some(Ending::Condemned) => false,
            Some(Ending::Killed) => true,
            Some(Ending::Leaving) => exit == Exit::Code(0),
        };
        let ended =
            Ended { node: index, at_us: now_us, status: exit.to_string(), expected, stderr: String::new() };
        let life = Life { node: index, number: node.lives };
        // What a task was about to say has ended with its worker.
        let silent = running.silent.or(matches!(running.body, Body::Task(_)).then(String::new));
        match silent {
            Some(stderr) if !expected => Some(Ended { stderr, ..ended }),
            Some(_) => Some(ended),
            None => {
                self.fading.push((life, ended, now_us + SILENCE_WAIT_US));
                None
            }
        }
    }

    /// Gives up on the silence of processes that ended long ago: something else holds their streams.
    pub(super) fn faded(&mut self, now_us: u64) -> Vec<Ended> {
        let (over, fading) = self.fading.drain(..).partition(|(_, _, until_us)| *until_us <= now_us);
        self.fading = fading;
        let over: Vec<(Life, Ended, u64)> = over;
        over.into_iter().map(|(_, ended, _)| ended).collect()
    }
}

impl Running {
    fn lives(&self) -> bool {
        matches!(self.ending, None | Some(Ending::Leaving))
    }
}
