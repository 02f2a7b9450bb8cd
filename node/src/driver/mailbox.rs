//! A bounded queue from the driver to the application, which may read slowly or never.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Room for how many items an empty mailbox keeps.
const ITEMS_KEPT: usize = 16;

/// Which item goes when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The one that comes.
    DropNewest,
    /// The one that has waited longest.
    DropOldest,
}

/// Makes a mailbox for at most `items_max` items that weigh at most `weight_max` together.
pub(crate) fn mailbox<T>(
    items_max: usize,
    weight_max: usize,
    overflow: Overflow,
) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Mutex::new(Queue {
        items: VecDeque::new(),
        weight: 0,
        missed: 0,
        closed: false,
        waker: None,
    }));
    (Sender { queue: shared.clone(), items_max, weight_max, overflow }, Receiver { queue: shared })
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<(T, usize)>,
    weight: usize,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl<T> Queue<T> {
    fn pop(&mut self) -> Option<T> {
        let (item, weight) = self.items.pop_front()?;
        self.weight -= weight;
        if self.items.is_empty() && self.items.capacity() > ITEMS_KEPT {
            self.items = VecDeque::new();
        }
        Some(item)
    }
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    queue: Arc<Mutex<Queue<T>>>,
    items_max: usize,
    weight_max: usize,
    overflow: Overflow,
}

impl<T> Sender<T> {
    /// Puts an item in, or drops one by the mailbox's rule. Nothing is kept for an application that gave its end away.
    pub(crate) fn put(&self, item: T, weight: usize) {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return;
        }
        if queue.items.len() >= self.items_max || queue.weight + weight > self.weight_max {
            queue.missed += 1;
            if self.overflow == Overflow::DropNewest {
                return;
            }
            queue.pop();
        }
        queue.weight += weight;
        queue.items.push_back((item, weight));
        if let Some(waker) = queue.waker.take() {
            drop(queue);
            waker.wake();
        }
    }

    /// Whether less than three quarters of the room are taken: the last quarter is for what is under way already.
    pub(crate) fn has_room(&self) -> bool {
        let queue = lock(&self.queue);
        queue.items.len() < self.items_max / 4 * 3 && queue.weight < self.weight_max / 4 * 3
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

/// The application's end.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    queue: Arc<Mutex<Queue<T>>>,
}

impl<T> Receiver<T> {
    /// The next item; `None` once nothing more will come.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut queue = lock(&self.queue);
        match queue.pop() {
            Some(item) => Poll::Ready(Some(item)),
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// How many items were dropped for want of room.
    pub(crate) fn missed(&self) -> u64 {
        lock(&self.queue).missed
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.items = VecDeque::new();
    }
}

/// No code of others runs under the lock, so a poisoned queue is whole.
fn lock<T>(queue: &Mutex<Queue<T>>) -> MutexGuard<'_, Queue<T>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(receiver: &mut Receiver<u32>) -> Vec<u32> {
        let mut context = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match receiver.poll_next(&mut context) {
            Poll::Ready(item) => item,
            Poll::Pending => None,
        })
        .collect()
    }

    #[test]
    fn a_full_mailbox_drops_by_its_rule_and_counts() {
        let (sender, mut receiver) = mailbox(3, 100, Overflow::DropNewest);
        (0..5).for_each(|item| sender.put(item, 1));
        assert_eq!((receiver.missed(), drain(&mut receiver)), (2, vec![0, 1, 2]));
        let (sender, mut receiver) = mailbox(3, 100, Overflow::DropOldest);
        (0..5).for_each(|item| sender.put(item, 1));
        assert_eq!((receiver.missed(), drain(&mut receiver)), (2, vec![2, 3, 4]));
    }

    #[test]
    fn weight_is_bounded_too_and_freed_by_reading() {
        let (sender, mut receiver) = mailbox(100, 10, Overflow::DropNewest);
        (0..3).for_each(|item| sender.put(item, 6));
        assert_eq!(drain(&mut receiver), [0]);
        sender.put(9, 6);
        sender.close();
        assert_eq!(drain(&mut receiver), [9]);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(receiver.poll_next(&mut context), Poll::Ready(None));
    }
}
