//! What people and machines read: the terminal summary, and a run's metrics for Prometheus while it goes on.

mod exposition;
mod server;
pub mod statistics;
mod terminal;

pub use exposition::MetricsBoard;
pub use server::{MetricsServer, ServeError};
pub use terminal::terminal;
