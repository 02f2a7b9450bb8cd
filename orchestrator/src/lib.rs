//! Runs experiment plans on structured peer-to-peer overlays, and judges them.
//!
//! One direction: [`plan`] -> [`schedule`] -> [`backend`] -> observations -> [`record`] -> [`check`] -> [`report`]; [`run`]
//! holds them together, [`cli`] is the only one that prints.

pub mod plan;
pub mod schedule;
pub mod backend;
pub mod record;
pub mod check;
pub mod report;
pub mod run;
pub mod cli;
