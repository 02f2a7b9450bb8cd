//! The event queue: what happens, by time; at one time, in the order in which it was put in.
//!
//! A calendar (Brown 1988): events of the next seconds lie unsorted in buckets of about a millisecond, and a bucket is sorted
//! when its turn comes. That costs no search at putting in, touches memory in sequence, and keeps the buckets' memory, so
//! that nothing is allocated once the buckets have grown. Events beyond the calendar's end wait in a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A bucket spans so many microseconds, as a power of two.
const BUCKET_BITS: u32 = 10;

/// The calendar's buckets: a power of two. With 2^10 us each they span 16.8 s, more than the longest round of maintenance.
const BUCKETS: usize = 1 << 14;

/// Events in time order.
#[derive(Debug)]
pub(super) struct EventQueue<T> {
    /// The number of the bucket whose turn it is.
    bucket: u64,
    /// Its events, latest first.
    current: Vec<Entry<T>>,
    /// Those that were put in after it was sorted.
    near: BinaryHeap<Reverse<Entry<T>>>,
    buckets: Vec<Vec<Entry<T>>>,
    /// A bit for each bucket that is not empty.
    occupied: Vec<u64>,
    far: BinaryHeap<Reverse<Entry<T>>>,
    serial: u64,
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<T> {
    at_us: u64,
    serial: u64,
    what: T,
}

impl<T: Copy + Ord> EventQueue<T> {
    pub(super) fn new() -> EventQueue<T> {
        EventQueue {
            bucket: 0,
            current: Vec::new(),
            near: BinaryHeap::new(),
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            occupied: vec![0; BUCKETS / 64],
            far: BinaryHeap::new(),
            serial: 0,
            length: 0,
        }
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Puts an event in. `at_us` is not before the last event that was taken out.
    pub(super) fn push(&mut self, at_us: u64, what: T) {
        self.serial += 1;
        self.length += 1;
        let entry = Entry { at_us, serial: self.serial, what };
        let bucket = at_us >> BUCKET_BITS;
        if bucket <= self.bucket {
            self.near.push(Reverse(entry));
        } else if bucket < self.bucket + BUCKETS as u64 {
            let slot = bucket as usize % BUCKETS;
            self.buckets[slot].push(entry);
            self.occupied[slot / 64] |= 1 << (slot % 64);
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// Takes the next event out, if it is not after `end_us`.
    pub(super) fn pop_until(&mut self, end_us: u64) -> Option<(u64, T)> {
        while self.current.is_empty() && self.near.is_empty() {
            if !self.turn(end_us) {
                return None;
            }
        }
        let sorted = self.current.last();
        let late = self.near.peek().map(|Reverse(entry)| entry);
        let from_near = late.is_some_and(|late| sorted.is_none_or(|sorted| late < sorted));
        if (if from_near { late } else { sorted })?.at_us > end_us {
            return None;
        }
        let entry = if from_near { self.near.pop().map(|Reverse(entry)| entry) } else { self.current.pop() };
        self.length -= 1;
        entry.map(|entry| (entry.at_us, entry.what))
    }

    /// Goes to the next bucket that has events, unless it begins after `end_us`.
    fn turn(&mut self, end_us: u64) -> bool {
        let far = self.far.peek().map(|Reverse(entry)| entry.at_us >> BUCKET_BITS);
        let Some(next) = self.next_occupied().into_iter().chain(far).min() else { return false };
        if next << BUCKET_BITS > end_us {
            return false;
        }
        self.bucket = next;
        let slot = next as usize % BUCKETS;
        std::mem::swap(&mut self.current, &mut self.buckets[slot]);
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        while let Some(Reverse(entry)) = self.far.peek().filter(|Reverse(e)| e.at_us >> BUCKET_BITS == next) {
            self.current.push(*entry);
            self.far.pop();
        }
        self.current.sort_unstable_by_key(|entry| Reverse((entry.at_us, entry.serial)));
        true
    }

    /// The next bucket of the calendar that is not empty.
    fn next_occupied(&self) -> Option<u64> {
        let words = self.occupied.len();
        let here = self.bucket as usize % BUCKETS;
        let (word, bit) = (here / 64, here % 64);
        // The present bucket is empty, so its own word is looked at twice without harm: behind it, and before it.
        (0..=words).find_map(|step| {
            let index = (word + step) % words;
            let mask = match step {
                0 => u64::MAX.checked_shl(bit as u32 + 1).unwrap_or(0),
                _ if step == words => !u64::MAX.checked_shl(bit as u32 + 1).unwrap_or(0),
                _ => u64::MAX,
            };
            let bits = self.occupied[index] & mask;
            (bits != 0).then(|| {
                let slot = index * 64 + bits.trailing_zeros() as usize;
                self.bucket + ((slot + BUCKETS - here) % BUCKETS) as u64
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg32;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn events_come_out_by_time_and_then_in_the_order_in_which_they_were_put_in() {
        let random = &mut Pcg32::seed_from_u64(1);
        let mut queue = EventQueue::new();
        let mut expected = std::collections::BTreeMap::new();
        let mut now_us = 0;
        for number in 0..200_000u32 {
            let ahead_us = match random.next_u32() % 10 {
                0 => 0,
                1..6 => u64::from(random.next_u32() % 3),
                6..8 => u64::from(random.next_u32() % 50_000),
                8 => u64::from(random.next_u32() % 20_000_000),
                _ => u64::from(random.next_u32() % 90_000_000),
            };
            queue.push(now_us + ahead_us, number);
            expected.insert((now_us + ahead_us, number), ());
            if random.next_u32() % 2 == 0 {
                let ((at_us, next), ()) = expected.pop_first().unwrap();
                assert_eq!(queue.pop_until(at_us.saturating_sub(1)), None);
                assert_eq!(queue.pop_until(u64::MAX), Some((at_us, next)));
                now_us = at_us;
            }
        }
        assert_eq!(queue.len(), expected.len());
        while let Some(((at_us, next), ())) = expected.pop_first() {
            assert_eq!(queue.pop_until(at_us), Some((at_us, next)));
        }
        assert_eq!((queue.pop_until(u64::MAX), queue.len()), (None, 0));
    }

    #[test]
    fn a_clock_that_stopped_between_events_goes_on() {
        let mut queue = EventQueue::new();
        queue.push(60_000_000, 'b');
        assert_eq!(queue.pop_until(30_000_000), None);
        queue.push(30_000_000, 'a');
        assert_eq!(queue.pop_until(u64::MAX), Some((30_000_000, 'a')));
        assert_eq!(queue.pop_until(u64::MAX), Some((60_000_000, 'b')));
    }
}
