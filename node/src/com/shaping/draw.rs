//! Draws of latencies, by inverse distribution functions and Box and Muller's transform. With `libm`'s functions, which are
//! written in Rust: a platform's own differ in the last bit, and a seed would not be the same run on every machine.

use std::f64::consts::TAU;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;

use super::{Distribution, LinkShape};
use crate::com::limits::SHAPED_DELAY_MAX;

/// Pareto's index: a mean and a variance exist, a third moment does not.
const PARETO_INDEX: f64 = 3.0;

/// How many microseconds later a message leaves.
pub(super) fn delay_us(shape: &LinkShape, random: &mut Pcg32) -> u64 {
    let (latency, jitter) = (shape.latency_us as f64, shape.jitter_us as f64);
    if shape.jitter_us == 0 {
        return within_bounds(latency);
    }
    within_bounds(match shape.distribution {
        Distribution::Uniform => latency + jitter * (2.0 * unit(random) - 1.0),
        Distribution::Normal => latency + jitter * normal(random),
        Distribution::LogNormal if shape.latency_us == 0 => 0.0,
        Distribution::LogNormal => latency * libm::exp(log_normal_sigma(jitter / latency) * normal(random)),
        Distribution::Pareto => {
            let scale = jitter * (PARETO_INDEX - 1.0);
            latency + scale * (libm::pow(unit(random), -1.0 / PARETO_INDEX) - 1.0)
        }
    })
}

/// The delay that this share of all draws stays below, in microseconds: what draws by tables of quantiles is told. Not bounded, and below
/// zero where a distribution is.
pub(crate) fn quantile_us(shape: &LinkShape, share: f64) -> f64 {
    let (latency, jitter) = (shape.latency_us as f64, shape.jitter_us as f64);
    match shape.distribution {
        Distribution::Uniform => latency + jitter * (2.0 * share - 1.0),
        Distribution::Normal => latency + jitter * normal_quantile(share),
        Distribution::LogNormal if shape.latency_us == 0 => 0.0,
        Distribution::LogNormal => {
            latency * libm::exp(log_normal_sigma(jitter / latency) * normal_quantile(share))
        }
        Distribution::Pareto => {
            let scale = jitter * (PARETO_INDEX - 1.0);
            latency + scale * (libm::pow(1.0 - share, -1.0 / PARETO_INDEX) - 1.0)
        }
    }
}

/// Of the standard normal distribution, by Hastings' approximation (Abramowitz and Stegun, 26.2.23): within 0.00045.
fn normal_quantile(share: f64) -> f64 {
    let tail = share.min(1.0 - share);
    let t = (-2.0 * libm::log(tail)).sqrt();
    let above = 2.515517 + t * (0.802853 + t * 0.010328);
    let below = 1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308));
    let quantile = t - above / below;
    if share < 0.5 { -quantile } else { quantile }
}

/// Whether one of a million draws hits, where `ppm` of them do.
pub(crate) fn hits(ppm: u32, random: &mut Pcg32) -> bool {
    ppm > 0 && (u64::from(random.next_u32()) * 1_000_000) >> 32 < u64::from(ppm)
}

fn within_bounds(delay_us: f64) -> u64 {
    // What is below zero becomes zero.
    (delay_us.round() as u64).min(SHAPED_DELAY_MAX.as_micros() as u64)
}

/// Strictly between 0 and 1.
fn unit(random: &mut Pcg32) -> f64 {
    ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// From the standard normal distribution.
pub(crate) fn normal(random: &mut Pcg32) -> f64 {
    (-2.0 * libm::log(unit(random))).sqrt() * libm::cos(TAU * unit(random))
}

/// The σ of a log-normal distribution whose standard deviation is `ratio` medians. With x = exp(σ²) that deviation is
/// √(x (x − 1)) medians.
fn log_normal_sigma(ratio: f64) -> f64 {
    let x = (1.0 + (1.0 + 4.0 * ratio * ratio).sqrt()) / 2.0;
    libm::log(x).sqrt()
}

#[cfg(test)]
mod tests {
    use rand_pcg::rand_core::SeedableRng;

    use super::*;

    const DRAWS: usize = 200_000;

    /// Sorted draws of a latency of 100 ms with 20 ms of jitter.
    fn draws(distribution: Distribution) -> Vec<f64> {
        let shape =
            LinkShape { latency_us: 100_000, jitter_us: 20_000, distribution, ..LinkShape::default() };
        let random = &mut Pcg32::seed_from_u64(7);
        let mut draws: Vec<f64> = (0..DRAWS).map(|_| delay_us(&shape, random) as f64).collect();
        draws.sort_by(f64::total_cmp);
        draws
    }

    fn mean(draws: &[f64]) -> f64 {
        draws.iter().sum::<f64>() / draws.len() as f64
    }

    fn deviation(draws: &[f64]) -> f64 {
        let mean = mean(draws);
        (draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64).sqrt()
    }

    /// Kolmogorov's and Smirnov's distance to a distribution function; 1.95 / √n is passed by one sample in a thousand.
    fn assert_distributed(draws: &[f64], distribution: impl Fn(f64) -> f64) {
        let count = draws.len() as f64;
        let distance = (0..).zip(draws).map(|(rank, draw)| {
            let expected = distribution(*draw);
            (expected - f64::from(rank) / count).abs().max((f64::from(rank + 1) / count - expected).abs())
        });
        let worst = distance.fold(0.0, f64::max);
        assert!(worst < 1.95 / count.sqrt(), "{worst}");
    }

    fn assert_near(value: f64, wanted: f64, tolerance: f64) {
        assert!((value - wanted).abs() <= tolerance, "{value} is not {wanted}");
    }

    #[test]
    fn uniform_jitter_fills_its_interval() {
        let draws = draws(Distribution::Uniform);
        assert_distributed(&draws, |x| ((x - 80_000.0) / 40_000.0).clamp(0.0, 1.0));
    }

    #[test]
    fn normal_jitter_has_its_mean_deviation_and_quantiles() {
        let draws = draws(Distribution::Normal);
        assert_near(mean(&draws), 100_000.0, 200.0);
        assert_near(deviation(&draws), 20_000.0, 200.0);
        let quantile = |share: f64| draws[(share * DRAWS as f64) as usize];
        assert_near(quantile(0.841_345), 120_000.0, 300.0);
        assert_near(quantile(0.022_750), 60_000.0, 600.0);
    }

    #[test]
    fn log_normal_jitter_has_the_latency_for_its_median() {
        let draws = draws(Distribution::LogNormal);
        assert_near(draws[DRAWS / 2], 100_000.0, 300.0);
        assert_near(deviation(&draws), 20_000.0, 400.0);
        let logs: Vec<f64> = draws.iter().map(|draw| (draw / 100_000.0).ln()).collect();
        assert_near(mean(&logs), 0.0, 0.002);
    }

    #[test]
    fn pareto_jitter_lies_beyond_the_latency_with_its_mean_excess() {
        let draws = draws(Distribution::Pareto);
        assert_distributed(&draws, |x| 1.0 - (1.0 + (x - 100_000.0) / 40_000.0).powf(-PARETO_INDEX));
        assert_near(mean(&draws), 120_000.0, 600.0);
        assert!(draws[0] >= 100_000.0 && draws[DRAWS - 1] > 800_000.0, "its tail is heavy");
    }

    #[test]
    fn quantiles_are_those_of_the_draws() {
        for distribution in
            [Distribution::Uniform, Distribution::Normal, Distribution::LogNormal, Distribution::Pareto]
        {
            let draws = draws(distribution);
            let shape =
                LinkShape { latency_us: 100_000, jitter_us: 20_000, distribution, ..LinkShape::default() };
            for share in [0.02, 0.3, 0.5, 0.8, 0.95] {
                let drawn = draws[(share * DRAWS as f64) as usize];
                assert_near(quantile_us(&shape, share), drawn, drawn / 100.0);
            }
        }
    }

    #[test]
    fn no_shape_makes_a_delay_that_is_out_of_bounds() {
        let random = &mut Pcg32::seed_from_u64(1);
        for distribution in
            [Distribution::Uniform, Distribution::Normal, Distribution::LogNormal, Distribution::Pareto]
        {
            for (latency_us, jitter_us) in
                [(0, 0), (0, 10), (0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)]
            {
                let shape = LinkShape { latency_us, jitter_us, distribution, ..LinkShape::default() };
                for _ in 0..100 {
                    assert!(delay_us(&shape, random) <= SHAPED_DELAY_MAX.as_micros() as u64);
                }
            }
        }
    }

    #[test]
    fn losses_have_their_share() {
        let random = &mut Pcg32::seed_from_u64(3);
        for (ppm, wanted) in [(0, 0.0), (300_000, 0.3), (1_000_000, 1.0), (u32::MAX, 1.0)] {
            let share = (0..DRAWS).filter(|_| hits(ppm, random)).count() as f64 / DRAWS as f64;
            assert_near(share, wanted, if ppm == 300_000 { 0.004 } else { 0.0 });
        }
    }
}
