//! Swarm runs: a seed draws a network and what goes wrong in it, the simulator lives through it in virtual time, and all
//! invariants are checked on the way (`make swarm`).
//!
//! # What a seed draws
//! ([`Scenario::draw`]; Groce et al. 2012, *Swarm testing*: each seed leaves features out, so that none hides another's bugs.)
//! - 3 to 120 nodes, on a ring of 2^8, 1000, 2^16, 2^32 or 2^64 ids, with Chord's, DKS's or Tango's tables (k 2 to 8, one-way or
//!   symmetric), 2 to 8 successors, 1 to 5 places for each key;
//! - in every second one, each option of routing or not ([`Routing`](crate::config::Routing));
//! - in every second one, 1 to 12 clients besides, nodes that others cannot reach: known from the start to be ones, or found to be
//!   when they are dialled back. They are asked for services like members; they come, leave and crash, and their
//!   proxies leave and crash, once in 1 to 30 s;
//! - converged from the start, or joined at once, or one by one;
//! - latencies: constant, uniform, log-normal, by coordinates, by a matrix that is not symmetric; clocks that agree, or not;
//! - a regime: *graceful* (joins, leaves), *crashes* (besides: crashes of one node or several neighbours, hosts that vanish,
//!   restarts), *unreliable* (besides: pauses, partitions, one-way cuts, bad links, 0.2 to 8 % loss). Each kind of
//!   fault of the regime is in it or not, at one rate from one in 0.2 s to one in 10 s;
//! - which services are in use (look-ups, messages, reliable messages, broadcasts, multicasts, the dictionary), and how often;
//! - one to four episodes: 20 s to 4 min of faults, then none until all is healed, then 5 to 40 min of rest.
//!
//! # What is checked
//! In times of faults, each 0.5 s and whenever a node joins, leaves or gets another neighbour: the invariants of
//! [`invariant`](crate::invariant) that hold at that [`Moment`](crate::invariant::Moment), that reads of the dictionary are true, and
//! (but for unreliable networks) fresh, that versions rise, that no acknowledged write is lost, and that messages do
//! not breed ([`core::duplicates`](crate::core::duplicates)). After them: that the ring, then the fingers, are ideal within
//! [`tables`](crate::invariant::tables)' times, that each client has the responsible of its id for its proxy within
//! [`CLIENTS_SETTLE_WITHIN`] and stands in nobody's tables, that every operation ends within [`OPERATIONS_END_WITHIN`], and that all
//! copies of keys are in their places within [`COPIES_RETURN_WITHIN`]. At rest: all of that all the time, that whatever is asked
//! for succeeds within seconds, and that a broadcast costs n - 1 messages.
//!
//! # What is not
//! Faults stay within what the protocol promises to bear (see `faults`). On unreliable networks a key may lose an acknowledged write
//! while its nodes are kept apart, as the dictionary says; only what is known after healing counts. A look-up may then
//! name any node.
//!
//! A run is the same for the same seed, whatever else runs beside it: [`Outcome::trace`] is the hash of all that happened.

mod checks;
mod clients;
mod faults;
mod keys;
mod outcome;
mod questions;
mod run;
mod scenario;
mod separation;
mod sources;
mod tell;

use crate::sim::Simulator;

pub use checks::{COPIES_RETURN_WITHIN, OPERATIONS_END_WITHIN};
pub use clients::CLIENTS_SETTLE_WITHIN;
pub use outcome::{Failure, Outcome};
pub use run::{CHECK_PERIOD, REST_CHECK_PERIOD, STARTS_WITHIN};
pub use scenario::{CLIENTS_MAX, Fault, NODES, Regime, Scenario, Service, Start};
pub use tell::Telling;

/// Runs a scenario to its end, or to the first thing that goes wrong. `prepare` may change the simulator before nodes are added.
pub fn run<'a>(
    scenario: &'a Scenario,
    prepare: impl FnOnce(&mut Simulator),
    telling: Option<Telling<'a>>,
) -> Outcome {
    run::Run::new(scenario, prepare, telling).go()
}
