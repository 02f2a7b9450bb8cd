//! P2PS: a structured peer-to-peer overlay as a library.
//!
//! One protocol, written once as a pure state machine ([`peer`]), driven by real sockets ([`node`]), a simulator or a model
//! checker. Modules are listed from the bottom up; imports run downward only.

pub mod id;
pub mod time;
pub mod access_point;
pub mod config;
pub mod message;
pub mod wire;
pub mod core;
pub mod services;
pub mod peer;
pub mod invariant;
pub mod explore;
pub mod metrics;
pub mod com;
pub mod driver;
pub mod sim;
pub mod swarm;
pub mod node;
pub mod typed;
pub mod control;
pub mod agent;
