//! The simulator's settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use p2ps::sim::{CLOCK_OFFSET_US_MAX, CLOCK_RATE_PPM_MAX, LATENCY_US_MAX, Matrix};

use super::Checker;
use crate::plan::decode::Field;
use crate::plan::schema::{RawClockSkew, RawLatency, RawSimulation};
use crate::plan::simulation::{SimulatedLatency, Simulation};
use crate::plan::units::{FileName, Number, Share, duration_text};

/// The largest file of latencies, in bytes.
const MATRIX_BYTES_MAX: u64 = 256 << 20;

/// The standard deviations that a log-normal latency can have.
const SIGMAS: std::ops::RangeInclusive<f64> = 0.0..=5.0;

impl Checker<'_> {
    /// What a plan says of the simulator; `prepared`: its nodes are a converged ring from the start.
    pub(super) fn simulation(&mut self, raw: Option<&RawSimulation>, prepared: bool) -> Option<Simulation> {
        let default = Simulation { prepared, ..Simulation::default() };
        let Some(raw) = raw else { return Some(default) };
        let latency = match &raw.latency {
            None => Some(default.latency),
            Some(latency) => self.simulated_latency(latency),
        };
        let loss = self.read_or(raw.loss.as_ref(), Share(0.0));
        let skew = self.clock_skew(raw.clock_skew.as_ref());
        let maintenance = self.read_or(raw.maintenance.as_ref(), true);
        if let (Some(false), Some(field), false) = (maintenance, &raw.maintenance, prepared) {
            let message = "without maintenance no ring ever forms";
            return self.refuse(field.index, message, "write `join: prepared` too, or leave it out");
        }
        let (clock_offset, clock_rate_ppm) = skew?;
        Some(Simulation {
            latency: latency?,
            loss_ppm: parts_of_a_million(loss?),
            clock_offset,
            clock_rate_ppm,
            prepared,
            maintenance: maintenance?,
        })
    }

    fn simulated_latency(&mut self, raw: &RawLatency) -> Option<SimulatedLatency> {
        match raw {
            RawLatency::Constant(field) => self.link_latency(field).map(SimulatedLatency::Constant),
            RawLatency::Uniform(raw) => {
                let (min, max) = (self.link_latency(&raw.min), self.link_latency(&raw.max));
                let (min, max) = (min?, max?);
                if max < min {
                    let message = format!("the largest latency is below the least, {}", duration_text(min));
                    return self.refuse(raw.max.index, message, "`max` is at least `min`");
                }
                Some(SimulatedLatency::Uniform { min, max })
            }
            RawLatency::LogNormal(raw) => {
                let (median, sigma) = (self.link_latency(&raw.median), self.read(&raw.sigma));
                let (median, Number(sigma)) = (median?, sigma?);
                if !SIGMAS.contains(&sigma) {
                    let hint = format!("{} to {}; the Internet's is about 0.5", SIGMAS.start(), SIGMAS.end());
                    return self.refuse(raw.sigma.index, format!("{sigma} is no spread of latencies"), hint);
                }
                Some(SimulatedLatency::LogNormal { median, sigma })
            }
            RawLatency::Coordinates(raw) => {
                let mean = self.link_latency(&raw.mean)?;
                Some(SimulatedLatency::Coordinates { mean })
            }
            RawLatency::Matrix(field) => self.matrix(field),
        }
    }

    fn link_latency(&mut self, field: &Field<Duration>) -> Option<Duration> {
        let latency = self.read(field)?;
        if latency.as_micros() > u128::from(LATENCY_US_MAX) {
            return self.refuse(field.index, "longer than any message takes", "at most 1m");
        }
        Some(latency)
    }

    fn matrix(&mut self, field: &Field<FileName>) -> Option<SimulatedLatency> {
        let FileName(name) = self.read(field)?;
        let file = self.beside_the_plan(&name, field.index);
        match read_matrix(&file) {
            Ok(matrix) => Some(SimulatedLatency::Matrix { file, matrix: Arc::new(matrix) }),
            Err(reason) => {
                let message = format!("{name} cannot be used: {reason}");
                self.refuse(field.index, message, "a file's name counts from the plan's directory")
            }
        }
    }

    fn clock_skew(&mut self, raw: Option<&RawClockSkew>) -> Option<(Duration, u32)> {
        let Some(raw) = raw else { return Some((Duration::ZERO, 0)) };
        let offset = self.read_or(raw.offset.as_ref(), Duration::ZERO);
        let rate = self.read_or(raw.rate.as_ref(), Share(0.0)).map(parts_of_a_million);
        if let (Some(field), Some(offset)) = (&raw.offset, offset)
            && offset.as_micros() > u128::from(CLOCK_OFFSET_US_MAX)
        {
            return self.refuse(field.index, "clocks cannot differ by so much", "at most 1h");
        }
        if let (Some(field), Some(rate)) = (&raw.rate, rate)
            && rate > CLOCK_RATE_PPM_MAX
        {
            return self.refuse(
                field.index,
                "clocks cannot run so wrong",
                "at most 10%; real ones stay below 0.02%",
            );
        }
        Some((offset?, rate?))
    }
}

fn read_matrix(file: &Path) -> Result<Matrix, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MATRIX_BYTES_MAX {
        return Err(format!("it has more than {MATRIX_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    Matrix::parse(&text).map_err(|error| error.to_string())
}

fn parts_of_a_million(Share(share): Share) -> u32 {
    (share * 1e6).round() as u32
}
