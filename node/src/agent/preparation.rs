//! What an agent does before it has nodes: it checks what it was asked for, and gets what the nodes need.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::body::{Housing, NodeEvent};
use super::host;
use super::ports;
use super::protocol::{Isolation, NODES_MAX, NodeSlot, Preparation};
use super::roster::{Common, Roster};
use super::task::Workers;

/// The open files that a node in a task takes, in the mean over the nodes of a host: its listener, and its ends of links.
const OPEN_FILES_PER_NODE: u64 = 200;

/// The open files of an agent itself.
const OPEN_FILES_OF_AGENT: u64 = 256;

/// Makes ready for nodes, none of which runs yet; an error says what is wrong, for people.
pub(super) fn prepare(preparation: Preparation, events: mpsc::Sender<NodeEvent>) -> Result<Roster, String> {
    let Preparation { net, listen, metrics, sample_every_ms: _, isolation, nodes } = preparation;
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
        Isolation::Process => Housing::Processes(executable()),
        Isolation::Task => {
            host::have_open_files(open_files(nodes.len(), metrics)).map_err(|error| error.to_string())?;
            let workers = Workers::new();
            Housing::Tasks(workers.map_err(|error| format!("threads for nodes cannot be had: {error}"))?)
        }
    };
    let reservations = ports::reserve(listen, nodes.len())
        .map_err(|error| format!("ports for {} nodes cannot be had: {error}", nodes.len()))?;
    Ok(Roster::new(Common { housing, net, metrics, events }, nodes, reservations))
}

/// This very binary: nodes run what their agent is.
fn executable() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        // It was replaced or removed meanwhile; the kernel still has it.
        _ => Path::new("/proc/self/exe").to_owned(),
    }
}

/// How many open files so many nodes in tasks need.
fn open_files(nodes: usize, metrics: bool) -> u64 {
    OPEN_FILES_OF_AGENT + nodes as u64 * (OPEN_FILES_PER_NODE + u64::from(metrics))
}
