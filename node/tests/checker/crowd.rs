//! Nodes that join in crowds, in the same gaps, faster than the ring can tell of them, by messages some of which take a hundred times
//! as long as others: nodes hear of joiners before those are members.

use std::time::Duration;

use p2ps::config::{Geometry, NetConfig};
use p2ps::id::Ring;
use p2ps::invariant::tables::RING_HEALS_WITHIN;
use p2ps::invariant::{self, Moment, Violation};
use p2ps::peer::Peer;
use p2ps::time::Time;

use super::{Checked, STARTS_WITHIN, has_members, ideal_ring};
use crate::network::Network;

/// Lists as short as they may be: one entry that is no member leaves one.
const SUCCESSORS: u8 = 2;

/// How many crowds come, one after the other.
const CROWDS: u64 = 4;

/// The most nodes of one.
const CROWD_MAX: u64 = 8;

/// The longest pause between two joins of one, in milliseconds.
const PAUSE_MS_MAX: u64 = 40;

/// Lets the crowds that a seed draws join, and tells how many nodes there are at the end.
pub fn check_crowd(seed: u64, prepare: impl Fn(&mut Peer) + 'static) -> Result<usize, Violation> {
    let geometry = Geometry::Tango { k: 3, symmetric: seed.is_multiple_of(2) };
    let net = NetConfig::new(Ring::new(1 << 8).unwrap(), geometry, SUCCESSORS).unwrap();
    let mut network = Network::new(net, seed);
    network.latency_us = 1_000..150_000;
    network.prepare = Box::new(prepare);
    let mut crowd = Crowd { network };
    let first = crowd.network.random_id();
    crowd.network.create(first);
    let mut count = 1;
    for _ in 0..CROWDS {
        for _ in 0..2 + crowd.network.random(CROWD_MAX - 1) {
            let (id, via) = (crowd.network.random_id(), crowd.network.any_member());
            crowd.network.join(id, &[via]);
            count += 1;
            let pause = crowd.network.random(PAUSE_MS_MAX);
            crowd.run_for(Duration::from_millis(pause))?;
        }
        crowd.run_until(STARTS_WITHIN, |view| has_members(view, count))?;
        crowd.run_until(RING_HEALS_WITHIN, ideal_ring)?;
    }
    invariant::check(&crowd.network.view(), Moment::Quiet)?;
    Ok(count)
}

struct Crowd {
    network: Network,
}

impl Checked for Crowd {
    fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    fn step(&mut self, end: Time) -> Result<bool, Violation> {
        let stepped = self.network.step(end);
        invariant::check(&self.network.view(), Moment::FailuresSeen)?;
        Ok(stepped)
    }
}
