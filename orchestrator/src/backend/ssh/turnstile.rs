//! Lets few sessions at a time begin at one server.
//!
//! sshd refuses some of the connections that come while ten others have not proved who they are (MaxStartups). Hosts that are reached
//! through the same one would all knock there at once.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The most sessions that begin at one server at the same time.
pub const STARTING_MAX: usize = 8;

/// Who begins where.
#[derive(Debug, Default)]
pub struct Turnstile {
    starting: Mutex<BTreeMap<(String, u16), usize>>,
    left: Condvar,
}

impl Turnstile {
    /// Waits until a session may begin at this address and port; it has begun when what is given back is dropped. Blocks.
    pub(super) fn enter(&self, address: &str, port: u16) -> Pass<'_> {
        let server = (address.to_owned(), port);
        let is_full = |starting: &mut BTreeMap<_, usize>| starting.get(&server) >= Some(&STARTING_MAX);
        let waited = self.left.wait_while(self.lock(), is_full);
        let mut starting = waited.unwrap_or_else(PoisonError::into_inner);
        *starting.entry(server.clone()).or_default() += 1;
        Pass { turnstile: self, server }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, u16), usize>> {
        // Numbers stay numbers, whatever thread panicked.
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that begins.
pub(super) struct Pass<'a> {
    turnstile: &'a Turnstile,
    server: (String, u16),
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut starting = self.turnstile.lock();
        if let Some(count) = starting.get_mut(&self.server) {
            *count -= 1;
            if *count == 0 {
                starting.remove(&self.server);
            }
        }
        self.turnstile.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn few_enter_at_one_server_and_all_do_in_the_end() {
        let turnstile = Turnstile::default();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 * STARTING_MAX {
                scope.spawn(|| {
                    let _pass = turnstile.enter("gate", 22);
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=STARTING_MAX).contains(&most.into_inner()));
        assert!(turnstile.lock().is_empty());
        let passes: Vec<Pass<'_>> = (0..STARTING_MAX).map(|_| turnstile.enter("gate", 22)).collect();
        // Others do not wait for these.
        drop(turnstile.enter("gate", 2222));
        assert_eq!(passes.len(), STARTING_MAX);
    }
}
