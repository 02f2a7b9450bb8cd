//! Futures under way, of which any may end next. Only those that were woken are looked at again.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that one waits for together with others.
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A set of futures.
pub(super) struct UnderWay<T> {
    futures: BTreeMap<u64, Boxed<T>>,
    next: u64,
    woken: Arc<Woken>,
}

/// Which futures are to be looked at, and who waits for the set.
#[derive(Default)]
struct Woken {
    state: Mutex<(VecDeque<u64>, Option<Waker>)>,
}

/// Wakes one future of a set.
struct One {
    number: u64,
    woken: Arc<Woken>,
}

impl<T> UnderWay<T> {
    pub(super) fn new() -> UnderWay<T> {
        UnderWay { futures: BTreeMap::new(), next: 0, woken: Arc::default() }
    }

    /// How many have not ended.
    pub(super) fn len(&self) -> usize {
        self.futures.len()
    }

    /// Adds a future, which begins when the set is next waited for.
    pub(super) fn add(&mut self, future: impl Future<Output = T> + Send + 'static) {
        let number = self.next;
        self.next += 1;
        self.futures.insert(number, Box::pin(future));
        self.woken.wake(number);
    }

    /// What the next one that ends comes to; waits while there is none. May be dropped at any time without loss.
    pub(super) async fn next(&mut self) -> T {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        self.woken.lock().1 = Some(context.waker().clone());
        loop {
            let Some(number) = self.woken.lock().0.pop_front() else { return Poll::Pending };
            // One that has ended may be woken still.
            let Some(future) = self.futures.get_mut(&number) else { continue };
            let waker = Waker::from(Arc::new(One { number, woken: self.woken.clone() }));
            if let Poll::Ready(end) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.futures.remove(&number);
                return Poll::Ready(end);
            }
        }
    }
}

impl Woken {
    fn wake(&self, number: u64) {
        let mut state = self.lock();
        state.0.push_back(number);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// No code of others runs under the lock, so a poisoned queue is whole.
    fn lock(&self) -> MutexGuard<'_, (VecDeque<u64>, Option<Waker>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.woken.wake(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test(flavor = "current_thread")]
    async fn futures_end_in_the_order_in_which_they_are_ready() {
        let mut under_way = UnderWay::new();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel::<u32>()).unzip();
        for receiver in receivers {
            under_way.add(async move { receiver.await.ok() });
        }
        let mut senders: VecDeque<_> = senders.into();
        senders.pop_back().map(|sender| sender.send(2));
        assert_eq!((under_way.next().await, under_way.len()), (Some(2), 2));
        senders.pop_front().map(|sender| sender.send(0));
        assert_eq!(under_way.next().await, Some(0));
        drop(senders);
        assert_eq!((under_way.next().await, under_way.len()), (None, 0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_wait_that_was_dropped_loses_nothing() {
        let mut under_way = UnderWay::new();
        let (sender, receiver) = oneshot::channel();
        under_way.add(async move { receiver.await.ok() });
        tokio::select! {
            biased;
            _ = under_way.next() => unreachable!("nothing was sent"),
            () = std::future::ready(()) => {}
        }
        sender.send(7).ok();
        assert_eq!(under_way.next().await, Some(7));
    }
}
