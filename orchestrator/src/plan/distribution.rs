//! Distributions of session and down times.
//!
//! Sources for the equilibrium: D. R. Cox, *Renewal Theory* (1962), chapter 5: who looks at an alternating renewal process at a random
//! moment finds it up with the probability E(session) / (E(session) + E(downtime)), and the rest of the present session has the
//! density (1 - F(x)) / E(session).

use std::time::Duration;

use serde::Serialize;

/// How long sessions, or the times between them, are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Distribution {
    /// Memoryless.
    Exponential {
        /// The mean.
        mean: Duration,
    },
    /// P(X > x) = exp(-(x / scale)^shape): with a shape below 1, who has been up for long stays up for long.
    Weibull {
        /// The shape.
        shape: f64,
        /// The mean, or the scale.
        size: Size,
    },
    /// P(X > x) = (scale / x)^shape for x above the scale, which is the least length.
    Pareto {
        /// The shape, above 1: else there is no mean.
        shape: f64,
        /// The mean, or the scale.
        size: Size,
    },
    /// The logarithm is normal.
    LogNormal {
        /// The logarithm's standard deviation.
        sigma: f64,
        /// The mean, or the median (as the scale).
        size: Size,
    },
    /// Always the same.
    Fixed {
        /// So long.
        length: Duration,
    },
}

/// What fixes a distribution's size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Size {
    /// Its mean.
    Mean(Duration),
    /// Its scale (of a log-normal distribution: its median).
    Scale(Duration),
}

impl Distribution {
    /// The mean, in seconds.
    pub fn mean_seconds(&self) -> f64 {
        match *self {
            Distribution::Exponential { mean } => mean.as_secs_f64(),
            Distribution::Fixed { length } => length.as_secs_f64(),
            Distribution::Weibull { size, .. }
            | Distribution::Pareto { size, .. }
            | Distribution::LogNormal { size, .. } => match size {
                Size::Mean(mean) => mean.as_secs_f64(),
                Size::Scale(scale) => scale.as_secs_f64() * self.mean_of_scale_one(),
            },
        }
    }

    /// The scale, in seconds: of an exponential distribution its mean, of a log-normal one its median.
    pub fn scale_seconds(&self) -> f64 {
        self.mean_seconds() / self.mean_of_scale_one()
    }

    fn mean_of_scale_one(&self) -> f64 {
        match *self {
            Distribution::Exponential { .. } | Distribution::Fixed { .. } => 1.0,
            Distribution::Weibull { shape, .. } => gamma(1.0 + 1.0 / shape),
            Distribution::Pareto { shape, .. } => shape / (shape - 1.0),
            Distribution::LogNormal { sigma, .. } => (sigma * sigma / 2.0).exp(),
        }
    }
}

/// The gamma function of a number from 1 on, to about 15 digits (C. Lanczos, 1964, with g = 7 and nine terms).
fn gamma(x: f64) -> f64 {
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum: f64 =
        TERMS[0] + TERMS[1..].iter().zip(1..).map(|(term, at)| term / (x + f64::from(at))).sum::<f64>();
    let t = x + 7.5;
    (2.0 * std::f64::consts::PI).sqrt() * t.powf(x + 0.5) * (-t).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function_goes_through_the_factorials() {
        for (x, expected) in
            [(1.0, 1.0), (2.0, 1.0), (5.0, 24.0), (11.0, 3_628_800.0), (1.5, 0.886_226_925_452_758)]
        {
            assert!((gamma(x) / expected - 1.0).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn means_and_scales_agree() {
        let size = Size::Scale(Duration::from_secs(100));
        for (distribution, mean) in [
            (Distribution::Weibull { shape: 1.0, size }, 100.0),
            (Distribution::Weibull { shape: 0.5, size }, 200.0),
            (Distribution::Pareto { shape: 2.0, size }, 200.0),
            (Distribution::LogNormal { sigma: 1.0, size }, 100.0 * 0.5f64.exp()),
        ] {
            assert!((distribution.mean_seconds() / mean - 1.0).abs() < 1e-12, "{distribution:?}");
            assert!((distribution.scale_seconds() / 100.0 - 1.0).abs() < 1e-12, "{distribution:?}");
        }
    }
}
