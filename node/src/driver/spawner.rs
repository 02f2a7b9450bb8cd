//! What a node's tasks are spawned on.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, spawn_local};

use crate::com::runtime::Runtime;

/// What a node's tasks are spawned on.
#[derive(Clone, Debug)]
pub(crate) enum Spawner {
    /// A tokio runtime: they run on whichever of its threads.
    Tokio(Handle),
    /// The tokio `LocalSet` that runs the task which spawns them: whoever polls that runs the node, and whoever drops it ends
    /// the node.
    LocalSet,
    /// The threads of smol.
    #[cfg(feature = "smol")]
    Smol,
}

impl Spawner {
    /// That of a runtime; of tokio, the one that this is called on.
    pub(crate) fn on(runtime: Runtime) -> Spawner {
        match runtime {
            Runtime::Tokio => Spawner::Tokio(Handle::current()),
            #[cfg(feature = "smol")]
            Runtime::Smol => Spawner::Smol,
        }
    }

    /// Where the sockets and timers of its tasks belong.
    pub(crate) fn runtime(&self) -> Runtime {
        match self {
            Spawner::Tokio(_) | Spawner::LocalSet => Runtime::Tokio,
            #[cfg(feature = "smol")]
            Spawner::Smol => Runtime::Smol,
        }
    }

    /// Starts a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        match self {
            Spawner::Tokio(runtime) => Task::Tokio(runtime.spawn(task).abort_handle()),
            Spawner::LocalSet => Task::Tokio(spawn_local(task).abort_handle()),
            #[cfg(feature = "smol")]
            Spawner::Smol => Task::Smol(Kept(Some(smol::spawn(task)))),
        }
    }
}

/// A task that was started, and goes on when this is dropped.
#[derive(Debug)]
pub(crate) enum Task {
    Tokio(AbortHandle),
    #[cfg(feature = "smol")]
    Smol(Kept),
}

impl Task {
    /// Ends the task, at its next wait at the latest.
    pub(crate) fn abort(self) {
        match self {
            Task::Tokio(task) => task.abort(),
            #[cfg(feature = "smol")]
            Task::Smol(mut task) => drop(task.0.take()),
        }
    }
}

/// smol cancels a task with the last that is known of it; this one goes on.
#[cfg(feature = "smol")]
#[derive(Debug)]
pub(crate) struct Kept(Option<smol::Task<()>>);

#[cfg(feature = "smol")]
impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}
