//! Which keys operations are about.

use p2ps::id::{Id, Ring};

use super::chance::{Chance, Stream};
use crate::plan::Plan;
use crate::plan::workload::{Keys, Popularity};

/// Draws the keys of a workload.
pub(super) struct KeySource {
    chance: Chance,
    ring: Ring,
    /// The keys that there are; empty: all ids of the ring.
    population: Vec<Id>,
    popularity: Popularity,
    /// For Zipf's distribution: the probability of each key with all before it, but for a common factor.
    cumulative: Vec<f64>,
}

impl KeySource {
    /// Without `keys`, those are all ids.
    pub(super) fn new(plan: &Plan, number: u64, keys: Option<Keys>) -> KeySource {
        let ring = plan.net.ring();
        let keys = keys.unwrap_or(Keys { population: None, popularity: Popularity::Uniform });
        // The same for all workloads of a plan: they are about the same keys.
        let mut ids = Chance::new(plan.seed, Stream::Population);
        let population: Vec<Id> = (0..keys.population.unwrap_or(0)).map(|_| ids.id(ring)).collect();
        let cumulative = match keys.popularity {
            Popularity::Zipf { exponent } => cumulative(population.len(), exponent),
            Popularity::Uniform | Popularity::Hot { .. } => Vec::new(),
        };
        let chance = Chance::new(plan.seed, Stream::Keys(number));
        KeySource { chance, ring, population, popularity: keys.popularity, cumulative }
    }

    pub(super) fn next(&mut self) -> Id {
        let count = self.population.len();
        if count == 0 {
            return self.chance.id(self.ring);
        }
        let at = match self.popularity {
            Popularity::Uniform => self.chance.below(count),
            Popularity::Zipf { .. } => {
                let drawn = self.chance.uniform() * self.cumulative.last().copied().unwrap_or(1.0);
                self.cumulative.partition_point(|cumulative| *cumulative < drawn)
            }
            Popularity::Hot { keys, operations } => {
                // At least one key is hot.
                let hot = ((count as f64 * keys).round() as usize).clamp(1, count);
                let is_hot = self.chance.uniform() <= operations || hot == count;
                if is_hot { self.chance.below(hot) } else { hot + self.chance.below(count - hot) }
            }
        };
        self.population[at.min(count - 1)]
    }
}

fn cumulative(count: usize, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let weights = (1..=count).map(|rank| (rank as f64).powf(-exponent));
    weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::parse;
    use crate::plan::workload::WorkloadKind;

    /// How often each of `population` keys is drawn in so many draws.
    fn counts(keys: &str, population: usize, draws: usize) -> Vec<usize> {
        let text = format!(
            "name: k\nnodes: 2\nworkload:\n  - dictionary: {{rate: 1/s, keys: {keys}, population: {population}}}\n"
        );
        let plan = parse("k.yaml", &text, &[]).unwrap();
        let WorkloadKind::Dictionary { keys, .. } = plan.workload[0].kind else { unreachable!() };
        let mut source = KeySource::new(&plan, 0, Some(keys));
        let ids = source.population.clone();
        let mut counts = vec![0; population];
        for _ in 0..draws {
            let key = source.next();
            counts[ids.iter().position(|id| *id == key).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn keys_are_as_popular_as_the_plan_says() {
        let even = counts("uniform", 10, 20_000);
        assert!(even.iter().all(|count| (1800..2200).contains(count)), "{even:?}");
        // 1 / (1 + 1/2 + 1/3 + 1/4) of all.
        let zipf = counts("{zipf: {exponent: 1}}", 4, 25_000);
        for (count, wanted) in zipf.iter().zip([12_000, 6_000, 4_000, 3_000]) {
            assert!(count.abs_diff(wanted) < 400, "{zipf:?}");
        }
        let hot = counts("{hot: {keys: 20%, operations: 90%}}", 10, 20_000);
        assert!(hot[..2].iter().all(|count| (8600..9400).contains(count)), "{hot:?}");
        assert!(hot[2..].iter().all(|count| (200..310).contains(count)), "{hot:?}");
    }
}
