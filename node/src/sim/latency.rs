//! How long messages take from node to node.
//!
//! Draws are whole microseconds. The models that need a logarithm or a root compute it with integers or with `libm`, whose
//! functions are written in Rust: a platform's own differ in the last bit, and a run would then not be the same everywhere.

use std::sync::Arc;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;

use super::trace::Trace;
use crate::com::shaping::normal;

/// The longest latency, in microseconds: a minute.
pub const LATENCY_US_MAX: u64 = 60_000_000;

/// The mean distance of two points drawn uniformly in a square whose side is 2^32: 0.521405... of the side.
const MEAN_DISTANCE: u64 = 2_239_419_283;

/// The most sites of a [`Matrix`].
const SITES_MAX: usize = 4096;

/// A model of one-way latencies.
#[derive(Clone, Debug, PartialEq)]
pub enum Latency {
    /// Always the same.
    Constant {
        /// In microseconds.
        us: u64,
    },
    /// For each message, uniform in an interval.
    Uniform {
        /// Its least value, in microseconds.
        min_us: u64,
        /// Its largest value, in microseconds.
        max_us: u64,
    },
    /// For each message, log-normal: the tail is long, as on the Internet.
    LogNormal {
        /// In microseconds.
        median_us: u64,
        /// The standard deviation of the latency's logarithm.
        sigma: f64,
    },
    /// By the distance between the nodes' places, drawn uniformly in a square: each pair has its own, the same both ways, and
    /// the triangle inequality holds.
    Coordinates {
        /// Over all pairs, in microseconds.
        mean_us: u64,
    },
    /// As measured between sites; the nodes go round the sites in turn.
    Matrix(Arc<Matrix>),
}

impl Latency {
    /// Draws how long a message takes from one node to another, in microseconds; at least one.
    pub(super) fn draw(&self, seed: u64, from: u32, to: u32, random: &mut Pcg32) -> u64 {
        let us = match self {
            Latency::Constant { us } => *us,
            Latency::Uniform { min_us, max_us } => {
                let span = max_us.saturating_sub(*min_us) + 1;
                min_us + ((u128::from(random.next_u64()) * u128::from(span)) >> 64) as u64
            }
            Latency::LogNormal { median_us, sigma } => {
                (*median_us as f64 * libm::exp(sigma * normal(random))) as u64
            }
            Latency::Coordinates { mean_us } => {
                let ((ax, ay), (bx, by)) = (place(seed, from), place(seed, to));
                let (dx, dy) = (u64::from(ax.abs_diff(bx)), u64::from(ay.abs_diff(by)));
                // The root of the sum, without its lowest bits, which would not fit.
                let distance = ((dx * dx / 2 + dy * dy / 2).isqrt() as u128 * 92_681_900) >> 16;
                (distance * u128::from(*mean_us) / (u128::from(MEAN_DISTANCE) * 1000)) as u64
            }
            Latency::Matrix(matrix) => matrix.us(from, to),
        };
        us.clamp(1, LATENCY_US_MAX)
    }
}

/// A node's place in a square whose side is 2^32.
fn place(seed: u64, node: u32) -> (u32, u32) {
    let mut hash = Trace::new(seed);
    hash.mix(u64::from(node));
    hash.mix(0);
    ((hash.value() >> 32) as u32, hash.value() as u32)
}

/// One-way latencies between sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    sites: usize,
    us: Vec<u32>,
}

impl Matrix {
    /// Reads a square of latencies in milliseconds: a site a line, entries apart by blanks or commas; lines that begin with
    /// `#` are left out.
    ///
    /// # Errors
    /// [`MatrixError`] where it is no square, or an entry is no latency.
    pub fn parse(text: &str) -> Result<Matrix, MatrixError> {
        let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
        let rows: Vec<(usize, &str)> =
            lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
        let sites = rows.len();
        if !(1..=SITES_MAX).contains(&sites) {
            return Err(MatrixError::Sites(sites));
        }
        let mut us = Vec::with_capacity(sites * sites);
        for (line, row) in rows {
            let before = us.len();
            let entries =
                row.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
            for entry in entries.take(sites + 1) {
                us.push(millis(entry).ok_or_else(|| MatrixError::Entry { line, entry: entry.to_owned() })?);
            }
            if us.len() - before != sites {
                return Err(MatrixError::Row { line, entries: us.len() - before, sites });
            }
        }
        Ok(Matrix { sites, us })
    }

    fn us(&self, from: u32, to: u32) -> u64 {
        let site = |node: u32| node as usize % self.sites;
        u64::from(self.us[site(from) * self.sites + site(to)])
    }
}

/// Milliseconds, with decimals, as microseconds.
fn millis(text: &str) -> Option<u32> {
    let millis: f64 = text.parse().ok()?;
    let us = millis * 1000.0;
    (0.0..=LATENCY_US_MAX as f64).contains(&us).then(|| us.round() as u32)
}

/// Why a matrix was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// Too few rows, or too many.
    #[error("a matrix of latencies has 1 to {SITES_MAX} sites, a line each, not {0}")]
    Sites(usize),
    /// A row that is too short or too long.
    #[error(
        "line {line} has {entries} latencies (or more), but there are {sites} sites: the matrix must be square"
    )]
    Row {
        /// The line, from 1.
        line: usize,
        /// Its entries.
        entries: usize,
        /// The number of sites.
        sites: usize,
    },
    /// Something else than a latency.
    #[error("line {line}: {entry:?} is no latency: write milliseconds, from 0 to 60000")]
    Entry {
        /// The line, from 1.
        line: usize,
        /// The text.
        entry: String,
    },
}

#[cfg(test)]
mod tests {
    use rand_pcg::rand_core::SeedableRng;

    use super::*;

    const DRAWS: u32 = 100_000;

    /// Sorted draws between pairs of nodes.
    fn draws(latency: &Latency) -> Vec<u64> {
        let random = &mut Pcg32::seed_from_u64(3);
        let mut draws: Vec<u64> = (0..DRAWS).map(|n| latency.draw(7, n, n + 1, random)).collect();
        draws.sort_unstable();
        draws
    }

    fn mean(draws: &[u64]) -> u64 {
        draws.iter().sum::<u64>() / draws.len() as u64
    }

    #[test]
    fn uniform_latencies_fill_their_interval() {
        let draws = draws(&Latency::Uniform { min_us: 1000, max_us: 3000 });
        assert!(draws[0] < 1010 && draws[0] >= 1000 && *draws.last().unwrap() > 2990, "{}", draws[0]);
        assert!(*draws.last().unwrap() <= 3000 && mean(&draws).abs_diff(2000) < 10);
    }

    #[test]
    fn log_normal_latencies_have_their_median_and_mean() {
        let draws = draws(&Latency::LogNormal { median_us: 20_000, sigma: 0.5 });
        assert!(draws[DRAWS as usize / 2].abs_diff(20_000) < 200, "{}", draws[DRAWS as usize / 2]);
        // exp(sigma^2 / 2) medians.
        assert!(mean(&draws).abs_diff(22_663) < 200, "{}", mean(&draws));
        let sum = draws.iter().fold(0, |sum: u64, us| sum.wrapping_mul(31).wrapping_add(*us));
        assert_eq!(sum, 15_800_270_532_150_865_114, "the same on any machine");
    }

    #[test]
    fn places_have_the_stated_mean_and_are_as_far_both_ways() {
        let latency = Latency::Coordinates { mean_us: 50_000 };
        let draws = draws(&latency);
        assert!(mean(&draws).abs_diff(50_000) < 500, "{}", mean(&draws));
        let random = &mut Pcg32::seed_from_u64(3);
        assert_eq!(latency.draw(7, 1, 2, random), latency.draw(7, 2, 1, random));
        let far = |a, b| Latency::Coordinates { mean_us: 1_000_000 }.draw(1, a, b, &mut Pcg32::new(0, 0));
        assert!((2..50).all(|c| far(0, 1) <= far(0, c) + far(c, 1) + 2), "the triangle inequality");
    }

    #[test]
    fn a_matrix_is_read_and_its_mistakes_are_named() {
        let matrix = Matrix::parse("# two sites\n0.1, 25\n30.5 0.1\n").unwrap();
        assert_eq!((matrix.us(0, 1), matrix.us(3, 0), matrix.us(2, 0)), (25_000, 30_500, 100));
        assert_eq!(Matrix::parse("1 2\n3\n"), Err(MatrixError::Row { line: 2, entries: 1, sites: 2 }));
        let entry = MatrixError::Entry { line: 1, entry: "fast".to_owned() };
        assert_eq!(Matrix::parse("fast"), Err(entry));
        assert_eq!(Matrix::parse("-1"), Err(MatrixError::Entry { line: 1, entry: "-1".to_owned() }));
        assert_eq!(Matrix::parse("\n"), Err(MatrixError::Sites(0)));
    }
}
