//! The host agent: owns the nodes of one host and carries out its slice of a schedule.

pub mod protocol;
