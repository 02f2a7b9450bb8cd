//! Nobody hears that a message was taken: no acknowledgement of a hop arrives, so each node tries all the others that it knows. What
//! is sent again must not breed.

use std::time::Duration;

use p2ps::config::{Geometry, NetConfig};
use p2ps::id::Ring;
use p2ps::invariant::{self, Asked, Moment, Violation};
use p2ps::message::Message;
use p2ps::peer::{Input, Peer};

use super::violation;
use crate::network::Network;

/// How long a message is let go on.
const LENGTH: Duration = Duration::from_secs(20);

/// So many nodes send so few messages; where they breed, there is no end.
const STEPS_MAX: u64 = 100_000;

/// Sends three messages on a ring that a seed draws, and tells how many duplicates one of them had at most.
pub fn check_lost_acks(seed: u64, prepare: impl Fn(&mut Peer) + 'static) -> Result<u64, Violation> {
    let geometry = Geometry::Tango { k: 3, symmetric: seed % 2 == 0 };
    let net = NetConfig::new(Ring::DEFAULT, geometry, 4).unwrap();
    let mut network = Network::new(net, seed);
    network.prepare = Box::new(prepare);
    let first = network.random_id();
    network.create(first);
    for _ in 0..6 + network.random(15) {
        let (id, via) = (network.random_id(), network.any_member());
        network.join(id, &[via]);
        network.run_for(Duration::from_secs(2));
    }
    network.run_for(Duration::from_secs(60));
    network.loses = |message| matches!(message, Message::Acks(_));
    for _ in 0..3 {
        let (by, destination) = (network.any_member(), network.any_member());
        let asked = Asked::Send { destination };
        let operation = network.journal.ask(network.peers[&by].me(), asked.clone());
        network.give(by, Input::Command(asked.command(operation)));
    }
    let (end, mut steps) = (network.now + LENGTH, 0);
    while network.step(end) {
        invariant::check(&network.view(), Moment::Any)?;
        steps += 1;
        if steps > STEPS_MAX {
            return Err(violation("a scenario ends")(format!("not within {STEPS_MAX} steps")));
        }
    }
    Ok(network.journal.most_duplicated().map_or(0, |(_, most)| most.times))
}
