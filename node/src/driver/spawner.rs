//! What a node's tasks are spawned on.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, spawn_local};

/// What a node's tasks are spawned on.
#[derive(Clone, Debug)]
pub(crate) enum Spawner {
    /// A runtime: they run on whichever of its threads.
    Runtime(Handle),
    /// The `LocalSet` that runs the task which spawns them: whoever polls that runs the node, and whoever drops it ends the
    /// node.
    LocalSet,
}

impl Spawner {
    /// That of the runtime which this is called on.
    pub(crate) fn current() -> Spawner {
        Spawner::Runtime(Handle::current())
    }

    /// Starts a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        match self {
            Spawner::Runtime(runtime) => runtime.spawn(task).abort_handle(),
            Spawner::LocalSet => spawn_local(task).abort_handle(),
        }
    }
}
