//! What the agent says: collected while it works, written in one piece by a thread of its own. A reader that does not read
//! can therefore never hold up the agent; it only fills a bounded buffer.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::protocol::Notice;

/// The most bytes that wait to be read by the orchestrator. Past it, what nodes say is dropped and counted.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// Standard output, for [`Notice`]s.
pub(super) struct Outlet {
    batch: Vec<u8>,
    dropped: u64,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    ended: bool,
    broken: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with the lock left plain bytes behind: they are still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    /// Starts the writing thread.
    pub(super) fn start() -> io::Result<Outlet> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("output".into()).spawn(move || write(io::stdout(), &theirs))?;
        Ok(Outlet { batch: Vec::new(), dropped: 0, shared })
    }

    /// Says `notice` with the next [`flush`](Outlet::flush).
    pub(super) fn say(&mut self, notice: &Notice) {
        serde_json::to_writer(&mut self.batch, notice)
            .expect("a notice is plain data and a Vec takes all bytes: nothing can fail");
        self.batch.push(b'\n');
    }

    /// Passes what was said to the writing thread. `false`: nobody reads any more.
    pub(super) fn flush(&mut self) -> bool {
        if self.batch.is_empty() {
            return true;
        }
        let mut state = self.shared.lock();
        if state.waiting.len() + self.batch.len() > BACKLOG_BYTES_MAX {
            self.dropped += self.batch.iter().filter(|byte| **byte == b'\n').count() as u64;
        } else {
            if self.dropped > 0 {
                let error =
                    format!("{} notices were dropped: the orchestrator did not read them", self.dropped);
                serde_json::to_writer(&mut state.waiting, &Notice::Problem { error })
                    .expect("a notice is plain data and a Vec takes all bytes: nothing can fail");
                state.waiting.push(b'\n');
                self.dropped = 0;
            }
            state.waiting.extend_from_slice(&self.batch);
        }
        self.batch.clear();
        self.batch.shrink_to(64 << 10);
        self.shared.changed.notify_all();
        !state.broken
    }

    /// Waits until all is written, or nobody reads it within `length_max`.
    pub(super) fn close(mut self, length_max: Duration) {
        self.flush();
        let state = self.shared.lock();
        let unfinished = |state: &mut State| !state.broken && (state.writing || !state.waiting.is_empty());
        let waited = self.shared.changed.wait_timeout_while(state, length_max, unfinished);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ended = true;
        self.shared.changed.notify_all();
    }
}

fn write(mut output: impl Write, shared: &Shared) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() && !state.ended {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended {
            return;
        }
        std::mem::swap(&mut state.waiting, &mut batch);
        state.writing = true;
        drop(state);
        let written = output.write_all(&batch).and_then(|()| output.flush());
        batch.clear();
        batch.shrink_to(64 << 10);
        let mut state = shared.lock();
        state.writing = false;
        state.broken = written.is_err();
        shared.changed.notify_all();
        if state.broken {
            return;
        }
    }
}
