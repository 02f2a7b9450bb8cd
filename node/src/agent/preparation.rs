//! What an agent does before it has nodes: it checks what it was asked for, and gets what the nodes need.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::body::{Housing, NodeEvent};
use super::crew::Crew;
use super::host::{self, TooFewOpenFiles};
use super::ports;
use super::protocol::{Isolation, NODES_MAX, NodeSlot, Preparation};
use super::roster::{Common, Roster};

/// The open files of an agent for each node that is a process: the ends of its standard streams.
const PIPES_PER_PROCESS: usize = 3;

/// The open files that a node in a task may take, in the mean over the nodes of a worker: its listener, and its ends of links.
/// Among 5,000 nodes it was fifty; the spare links that look-ups leave make it more. A node that finds no more closes spare
/// links.
const OPEN_FILES_PER_NODE: u64 = 128;

/// The open files of a worker process itself.
const OPEN_FILES_OF_WORKER: u64 = 64;

/// As many nodes keep a core busy, if anything does: with fewer, one more worker process is of no use.
const NODES_PER_WORKER: usize = 32;

/// The most worker processes.
const WORKERS_MAX: usize = 256;

/// Makes ready for nodes, none of which runs yet; an error says what is wrong, for people.
pub(super) fn prepare(preparation: Preparation, events: mpsc::Sender<NodeEvent>) -> Result<Roster, String> {
    let Preparation { net, listen, metrics, sample_every_ms: _, isolation, nodes, network_key, ports } =
        preparation;
    if nodes.len() > NODES_MAX {
        return Err(format!("{} nodes were asked for; an agent takes at most {NODES_MAX}", nodes.len()));
    }
    let ring = net.ring();
    let mut seen = HashSet::new();
    for NodeSlot { node, id, .. } in &nodes {
        if !seen.insert(*node) {
            return Err(format!("node {node} was given twice"));
        }
        if !ring.contains(*id) {
            return Err(format!("the id {id} of node {node} does not lie on the ring of {ring} ids"));
        }
    }
    if listen.is_unspecified() {
        return Err(format!("{listen} is no address at which nodes can be reached"));
    }
    let housing = match isolation {
        Isolation::Process => {
            host::make_room_for_open_files(nodes.len() * PIPES_PER_PROCESS);
            Housing::Processes(executable())
        }
        Isolation::Task => {
            let workers = workers(nodes.len(), metrics).map_err(|error| error.to_string())?;
            Housing::Tasks(Crew::new(executable(), workers))
        }
    };
    let reservations = ports::reserve(listen, ports, nodes.len())
        .map_err(|error| format!("ports for {} nodes cannot be had: {error}", nodes.len()))?;
    Ok(Roster::new(Common { housing, net, network_key, metrics, events }, nodes, reservations))
}

/// This very binary: nodes run what their agent is.
fn executable() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        // It was replaced or removed meanwhile; the kernel still has it.
        _ => Path::new("/proc/self/exe").to_owned(),
    }
}

/// How many worker processes so many nodes take: one for each core that they can keep busy, and more where a process may have
/// too few open files for its share of them.
fn workers(nodes: usize, metrics: bool) -> Result<usize, TooFewOpenFiles> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let useful = cores.min(nodes.div_ceil(NODES_PER_WORKER));
    let open_files =
        |nodes: usize| OPEN_FILES_OF_WORKER + nodes as u64 * (OPEN_FILES_PER_NODE + u64::from(metrics));
    let allowed = host::have_open_files(open_files(nodes.div_ceil(useful)));
    let mut workers = useful;
    while open_files(nodes.div_ceil(workers)) > allowed {
        workers += 1;
        if workers > WORKERS_MAX || workers > nodes {
            let needed = open_files(nodes.div_ceil(WORKERS_MAX));
            return Err(TooFewOpenFiles { needed, allowed });
        }
    }
    Ok(workers)
}
