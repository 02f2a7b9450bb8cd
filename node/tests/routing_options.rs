//! The options of routing: what each is worth, on simulated rings, and that all together leave the ring right.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use p2ps::config::{Geometry, NetConfig, Routing, Stabilise};
use p2ps::id::Id;
use p2ps::sim::{Latency, NetworkModel, NodeNumber, Simulator, What};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

const SECOND_US: u64 = 1_000_000;

/// How long before the last nodes are looked at they join: less than a round of maintenance takes.
const SHORTLY_US: u64 = 3 * SECOND_US;

const ONE_WAY: Geometry = Geometry::Tango { k: 5, symmetric: false };
const SYMMETRIC: Geometry = Geometry::Tango { k: 5, symmetric: true };

/// Nodes with random ids and places, none of them started.
fn network(geometry: Geometry, routing: Routing, nodes: u32) -> (Simulator, Vec<NodeNumber>) {
    let net = NetConfig::new("2^32".parse().unwrap(), geometry, 8).unwrap().with_routing(routing).unwrap();
    let model = NetworkModel { latency: Latency::Coordinates { mean_us: 50_000 }, ..NetworkModel::default() };
    let mut simulator = Simulator::new(net, model, 3, true);
    let mut random = Pcg32::seed_from_u64(3);
    let add = |_| simulator.add(Id(u64::from(random.next_u32())), random.next_u64()).unwrap();
    let numbers = (0..nodes).map(add).collect();
    (simulator, numbers)
}

/// A converged ring that has been up for so many seconds.
fn settled(geometry: Geometry, routing: Routing, nodes: u32, seconds: u64) -> (Simulator, Vec<NodeNumber>) {
    let (mut simulator, numbers) = network(geometry, routing, nodes);
    simulator.start_converged(&numbers, true);
    simulator.run_until(seconds * SECOND_US);
    simulator.happenings();
    (simulator, numbers)
}

struct Figures {
    hops: f64,
    latency_ms: f64,
    failed: usize,
}

/// Looks keys up, one every 10 ms, each from a random node.
fn look_up(
    simulator: &mut Simulator,
    from: &[NodeNumber],
    count: u64,
    key: impl Fn(&mut Pcg32) -> Id,
) -> Figures {
    let mut random = Pcg32::seed_from_u64(99);
    let begin_us = simulator.now_us();
    let intended_us = |operation: u64| begin_us + operation * SECOND_US / 100;
    for operation in 0..count {
        simulator.run_until(intended_us(operation));
        let node = from[random.next_u32() as usize % from.len()];
        assert!(simulator.lookup(node, operation, key(&mut random), intended_us(operation)));
    }
    simulator.run_until(simulator.now_us() + 30 * SECOND_US);
    let (mut hops, mut latency_us, mut found) = (0, 0, 0);
    for happening in simulator.happenings() {
        if let What::Completed { operation, result: Ok(end), .. } = happening.what {
            hops += u64::from(end.hops);
            latency_us += happening.at_us - intended_us(operation);
            found += 1;
        }
    }
    let mean = |sum: u64| sum as f64 / found as f64;
    Figures { hops: mean(hops), latency_ms: mean(latency_us) / 1000.0, failed: (count - found) as usize }
}

fn any_key(random: &mut Pcg32) -> Id {
    Id(u64::from(random.next_u32()))
}

#[test]
fn near_nodes_make_look_ups_faster_and_no_longer() {
    for geometry in [ONE_WAY, SYMMETRIC] {
        let measured = |proximity| {
            let routing = Routing { proximity, ..Routing::default() };
            let (mut simulator, numbers) = settled(geometry, routing, 300, 150);
            // Links have been made, and estimated.
            look_up(&mut simulator, &numbers, 2000, any_key);
            look_up(&mut simulator, &numbers, 2000, any_key)
        };
        let (without, with) = (measured(false), measured(true));
        assert_eq!((without.failed, with.failed), (0, 0));
        assert!(
            with.latency_ms < 0.9 * without.latency_ms,
            "{geometry}: {} ms, {} without",
            with.latency_ms,
            without.latency_ms
        );
        assert!(with.hops < without.hops + 0.1, "{geometry}: {} hops, {} without", with.hops, without.hops);
    }
}

#[test]
fn what_is_heard_makes_routes_shorter() {
    for geometry in [ONE_WAY, SYMMETRIC] {
        let measured = |link_cache| {
            let routing = Routing { link_cache, ..Routing::default() };
            let (mut simulator, numbers) = settled(geometry, routing, 300, 10);
            look_up(&mut simulator, &numbers, 2000, any_key);
            let figures = look_up(&mut simulator, &numbers, 2000, any_key);
            let links = |node: &NodeNumber| {
                let snapshot = simulator.snapshot(*node).unwrap();
                snapshot.links_in + snapshot.links_out
            };
            (figures, numbers.iter().map(links).max().unwrap())
        };
        let ((without, _), (with, links_max)) = (measured(0), measured(32));
        assert_eq!((without.failed, with.failed), (0, 0));
        assert!(with.hops < without.hops - 0.3, "{geometry}: {} hops, {} without", with.hops, without.hops);
        assert!(links_max < 300, "{geometry}: {links_max} links");
    }
}

#[test]
fn a_key_that_a_node_has_looked_up_is_one_hop_away() {
    let routing = Routing { link_cache: 16, ..Routing::default() };
    let (mut simulator, numbers) = settled(ONE_WAY, routing, 300, 1);
    let keys = |random: &mut Pcg32| Id(u64::from(random.next_u32() % 8) << 29 | 77);
    look_up(&mut simulator, &numbers[..1], 100, keys);
    let again = look_up(&mut simulator, &numbers[..1], 100, keys);
    assert_eq!(again.failed, 0);
    assert!(again.hops <= 1.0, "{} hops", again.hops);
}

/// One of a thousand keys, the i-th of which is asked for as often as 1 / i says.
fn popular_key(random: &mut Pcg32) -> Id {
    let weights = (1..=1000).map(|rank| 1.0 / f64::from(rank));
    let mut left = f64::from(random.next_u32()) / 2f64.powi(32) * weights.clone().sum::<f64>();
    let rank = weights.take_while(|weight| {
        left -= weight;
        left > 0.0
    });
    // Anywhere on the ring, but for each rank in one place.
    Id(u64::from((rank.count() as u32).wrapping_mul(0x9e37_79b9)))
}

#[test]
fn popular_keys_are_found_in_fewer_hops_still() {
    let hops = |link_cache, key: fn(&mut Pcg32) -> Id| {
        let routing = Routing { link_cache, ..Routing::default() };
        let (mut simulator, numbers) = settled(SYMMETRIC, routing, 300, 10);
        // As many as each of ten nodes makes in a while.
        look_up(&mut simulator, &numbers[..10], 2000, key);
        look_up(&mut simulator, &numbers[..10], 1000, key).hops
    };
    let without = hops(0, popular_key);
    let (any, popular) = (hops(64, any_key), hops(64, popular_key));
    assert!(popular < without - 0.8, "{popular} hops, {without} without");
    assert!(popular < any - 0.2, "{popular} hops, {any} for any keys");
}

/// The share of fingers that point at the responsible of their position, of those that need a node.
fn right_fingers(simulator: &Simulator, numbers: &[NodeNumber]) -> f64 {
    let running: Vec<NodeNumber> =
        numbers.iter().copied().filter(|node| simulator.is_running(*node)).collect();
    let mut members: Vec<Id> = running.iter().map(|node| simulator.peer(*node).unwrap().me().id).collect();
    members.sort_unstable();
    let responsible = |position: Id| members[members.partition_point(|id| *id < position) % members.len()];
    let (mut right, mut all) = (0, 0);
    for node in running {
        let peer = simulator.peer(node).unwrap();
        for (position, finger) in peer.fingers() {
            let wanted = responsible(position);
            if wanted != peer.me().id {
                all += 1;
                right += u32::from(finger.is_some_and(|finger| finger.id == wanted));
            }
        }
    }
    f64::from(right) / f64::from(all)
}

#[test]
fn changes_are_told_to_those_whose_fingers_have_to_change() {
    for geometry in [ONE_WAY, SYMMETRIC] {
        let right = |correction_on_change| {
            // Nothing else corrects fingers within the time of this test.
            let routing = Routing {
                correction_on_use: false,
                correction_on_change,
                stabilise: Stabilise::Every { period_ms: 600_000 },
                ..Routing::default()
            };
            let (mut simulator, numbers) = network(geometry, routing, 240);
            let (first, later) = numbers.split_at(200);
            simulator.start_converged(first, true);
            simulator.run_until(SECOND_US);
            for (joins, leaves) in later.iter().zip(first) {
                simulator.start(*joins, &[first[100]], &[]);
                simulator.leave(*leaves);
                simulator.run_until(simulator.now_us() + SECOND_US);
            }
            simulator.run_until(simulator.now_us() + SHORTLY_US);
            // The newcomers' own tables are first guesses: it is the others' that are told.
            let told: Vec<NodeNumber> =
                first.iter().copied().filter(|node| simulator.is_running(*node)).collect();
            let all = right_fingers(&simulator, &numbers);
            assert_eq!(told.len(), 160);
            all
        };
        let (without, with) = (right(false), right(true));
        assert!(with > without + 0.05, "{geometry}: {with} right, {without} without");
        assert!(with > 0.9, "{geometry}: {with} right");
    }
}

#[test]
fn fixed_rounds_come_as_often_as_they_are_to() {
    let sent = |stabilise| {
        let routing = Routing { stabilise, ..Routing::default() };
        let (simulator, numbers) = settled(SYMMETRIC, routing, 50, 100);
        numbers.iter().map(|node| simulator.snapshot(*node).unwrap().traffic[1].sent).sum::<u64>()
    };
    let (adaptive, seldom) = (sent(Stabilise::Adaptive), sent(Stabilise::Every { period_ms: 8000 }));
    let often = sent(Stabilise::Every { period_ms: 1000 });
    assert!(seldom.abs_diff(adaptive) < adaptive / 4, "{seldom} messages, {adaptive} adaptive");
    assert!(
        (6 * seldom..10 * seldom).contains(&often),
        "{often} messages, {seldom} at an eighth of the rate"
    );
}

#[test]
fn with_all_options_a_ring_in_churn_answers_and_heals() {
    for geometry in [ONE_WAY, SYMMETRIC] {
        let routing =
            Routing { correction_on_change: true, proximity: true, link_cache: 32, ..Routing::default() };
        let (mut simulator, numbers) = network(geometry, routing, 150);
        let (first, later) = numbers.split_at(100);
        simulator.start_converged(first, true);
        simulator.run_until(60 * SECOND_US);
        for (place, joins) in later.iter().enumerate() {
            simulator.start(*joins, &[first[90], first[99]], &[]);
            if place % 2 == 0 {
                simulator.kill(first[place]);
            } else {
                simulator.leave(first[place]);
            }
            simulator.run_until(simulator.now_us() + SECOND_US);
        }
        simulator.run_until(simulator.now_us() + 120 * SECOND_US);
        simulator.happenings();
        let running: Vec<NodeNumber> =
            numbers.iter().copied().filter(|node| simulator.is_running(*node)).collect();
        assert_eq!(running.len(), 100);
        let figures = look_up(&mut simulator, &running, 1000, any_key);
        assert_eq!(figures.failed, 0);
        assert!(right_fingers(&simulator, &numbers) > 0.99);
    }
}
