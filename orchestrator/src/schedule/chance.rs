//! Chance that is the same on every machine and in every version of our dependencies: ChaCha8's stream is a standard, and what is
//! made of it is made here.

use p2ps::id::{Id, Ring};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What is drawn. Each purpose has a stream of its own, so that none disturbs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The nodes' ids.
    Ids,
    /// The seeds of the nodes' own randomness.
    NodeSeeds,
    /// Whom joining nodes join by.
    Vias,
    /// Whom the timeline's steps are done to.
    Targets,
    /// Who is in the plan's groups.
    Groups,
    /// What a step of the timeline draws for itself: the lengths of its churn, the nodes of its faults.
    Step(u64),
    /// When the operations of a workload are.
    Arrivals(u64),
    /// Which nodes begin them.
    Issuers(u64),
    /// Which keys they are about.
    Keys(u64),
    /// What each of them is, where a workload mixes several.
    Mix(u64),
    /// Whom they go to.
    Receivers(u64),
    /// Which pairs of nodes speak with each other.
    Pairs(u64),
    /// The keys that there are, where they are not all ids.
    Population,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn new(seed: u64, stream: Stream) -> Chance {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(bytes);
        generator.set_stream(match stream {
            Stream::Ids => 1,
            Stream::NodeSeeds => 2,
            Stream::Vias => 3,
            Stream::Targets => 4,
            Stream::Groups => 5,
            Stream::Population => 6,
            // Behind those of the workloads.
            Stream::Step(step) => 8192 + step,
            // Workloads are few (WORKLOADS_MAX); 16 streams are kept for each.
            Stream::Arrivals(workload) => 1024 + 16 * workload,
            Stream::Issuers(workload) => 1024 + 16 * workload + 1,
            Stream::Keys(workload) => 1024 + 16 * workload + 2,
            Stream::Mix(workload) => 1024 + 16 * workload + 3,
            Stream::Receivers(workload) => 1024 + 16 * workload + 4,
            Stream::Pairs(workload) => 1024 + 16 * workload + 5,
        });
        Chance(generator)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`, each as likely (to one part in 2^32 and better, for the bounds in use); 0 where `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// An id of `ring`, each as likely.
    pub(crate) fn id(&mut self, ring: Ring) -> Id {
        // Below 2^64 both factors fit, and the product's upper half is below max_size.
        Id(((u128::from(self.next_u64()) * ring.max_size()) >> 64) as u64)
    }

    /// `count` of `among` (all of them where it has no more), without repetition, in the order drawn.
    pub(crate) fn sample<T>(&mut self, mut among: Vec<T>, count: usize) -> Vec<T> {
        let count = count.min(among.len());
        for at in 0..count {
            let drawn = at + self.below(among.len() - at);
            among.swap(at, drawn);
        }
        among.truncate(count);
        among
    }

    /// `count` distinct numbers in `0..bound` (all where it has no more), for small counts (Floyd's method).
    pub(crate) fn few_below(&mut self, bound: usize, count: usize) -> Vec<usize> {
        let mut drawn: Vec<usize> = Vec::with_capacity(count);
        for last in bound.saturating_sub(count)..bound {
            let number = self.below(last + 1);
            drawn.push(if drawn.contains(&number) { last } else { number });
        }
        drawn
    }

    /// A waiting time in seconds, exponential with the mean `1 / rate`. (The logarithm is the platform's: its last bit may
    /// differ elsewhere, far below the microseconds that schedules are made of.)
    pub(crate) fn exponential(&mut self, rate: f64) -> f64 {
        -self.uniform().ln() / rate
    }

    /// A number in (0, 1], each of 53 bits' worth as likely: its logarithm is finite.
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lie_on_the_largest_ring_too() {
        let ring = Ring::new(1 << 64).unwrap();
        let mut chance = Chance::new(7, Stream::Keys(0));
        assert!((0..100).any(|_| chance.id(ring).0 > u64::MAX / 2));
    }

    #[test]
    fn waiting_times_have_their_mean() {
        let mut chance = Chance::new(1, Stream::Arrivals(0));
        let mean = (0..100_000).map(|_| chance.exponential(20.0)).sum::<f64>() / 100_000.0;
        assert!((mean - 0.05).abs() < 0.001, "{mean}");
    }

    #[test]
    fn a_sample_repeats_nobody_and_every_member_has_the_same_chance() {
        let mut chance = Chance::new(3, Stream::Targets);
        let mut times = [0u32; 10];
        for _ in 0..10_000 {
            let mut sample = chance.sample((0..10usize).collect(), 3);
            sample.iter().for_each(|member| times[*member] += 1);
            sample.sort_unstable();
            sample.dedup();
            assert_eq!(sample.len(), 3);
        }
        assert!(times.iter().all(|times| (2800..3200).contains(times)), "{times:?}");
    }
}
