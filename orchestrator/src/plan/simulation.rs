//! What a plan says of the simulator (`sim:`, `join: prepared`). Other backends have networks of their own and pass it over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use p2ps::sim::{ClockSkew, Latency, Matrix, NetworkModel};
use serde::Serialize;

use super::units::{duration_text, share_text};

/// The network and the nodes that a simulation has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Simulation {
    /// How long messages take from node to node.
    pub latency: SimulatedLatency,
    /// How many of a million messages are lost.
    pub loss_ppm: u32,
    /// Clocks are ahead of the simulation's by up to this.
    pub clock_offset: Duration,
    /// They run fast or slow by up to this, in parts of a million.
    pub clock_rate_ppm: u32,
    /// The first nodes are a converged ring from the start.
    pub prepared: bool,
    /// Nodes keep their tables right; else they do nothing of themselves.
    pub maintenance: bool,
}

/// How long messages take from node to node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum SimulatedLatency {
    /// Always the same.
    Constant(Duration),
    /// For each message, uniform between two values.
    Uniform {
        /// The least.
        min: Duration,
        /// The largest.
        max: Duration,
    },
    /// For each message, log-normal.
    LogNormal {
        /// The median.
        median: Duration,
        /// The logarithm's standard deviation.
        sigma: f64,
    },
    /// By the distance of places drawn in a square.
    Coordinates {
        /// Over all pairs of nodes.
        mean: Duration,
    },
    /// As measured between sites.
    Matrix {
        /// The file that it was read from.
        file: PathBuf,
        /// What it says.
        #[serde(skip)]
        matrix: Arc<Matrix>,
    },
}

impl Default for Simulation {
    /// A latency of 1 ms, no loss, equal clocks; nodes join by the protocol.
    fn default() -> Simulation {
        Simulation {
            latency: SimulatedLatency::Constant(Duration::from_millis(1)),
            loss_ppm: 0,
            clock_offset: Duration::ZERO,
            clock_rate_ppm: 0,
            prepared: false,
            maintenance: true,
        }
    }
}

impl Simulation {
    /// The network, as the simulator has it.
    pub fn model(&self) -> NetworkModel {
        let us = |length: &Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        let latency = match &self.latency {
            SimulatedLatency::Constant(length) => Latency::Constant { us: us(length) },
            SimulatedLatency::Uniform { min, max } => Latency::Uniform { min_us: us(min), max_us: us(max) },
            SimulatedLatency::LogNormal { median, sigma } => {
                Latency::LogNormal { median_us: us(median), sigma: *sigma }
            }
            SimulatedLatency::Coordinates { mean } => Latency::Coordinates { mean_us: us(mean) },
            SimulatedLatency::Matrix { matrix, .. } => Latency::Matrix(Arc::clone(matrix)),
        };
        let clock_skew = ClockSkew { offset_us: us(&self.clock_offset), rate_ppm: self.clock_rate_ppm };
        NetworkModel { latency, loss_ppm: self.loss_ppm, clock_skew }
    }

    /// As plans write it.
    pub(super) fn text(&self) -> String {
        let latency = match &self.latency {
            SimulatedLatency::Constant(length) => format!("{{constant: {}}}", duration_text(*length)),
            SimulatedLatency::Uniform { min, max } => {
                format!("{{uniform: {{min: {}, max: {}}}}}", duration_text(*min), duration_text(*max))
            }
            SimulatedLatency::LogNormal { median, sigma } => {
                format!("{{log_normal: {{median: {}, sigma: {sigma}}}}}", duration_text(*median))
            }
            SimulatedLatency::Coordinates { mean } => {
                format!("{{coordinates: {{mean: {}}}}}", duration_text(*mean))
            }
            SimulatedLatency::Matrix { file, .. } => {
                // As JSON, which is YAML too, whatever is in the name.
                format!("{{matrix: {}}}", serde_json::Value::from(file.to_string_lossy()))
            }
        };
        format!(
            "{{latency: {latency}, loss: {}, clock_skew: {{offset: {}, rate: {}}}, maintenance: {}}}",
            share_text(f64::from(self.loss_ppm) / 1e6),
            duration_text(self.clock_offset),
            share_text(f64::from(self.clock_rate_ppm) / 1e6),
            self.maintenance
        )
    }
}
