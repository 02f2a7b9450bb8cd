//! Links and hops on converged rings against tables computed by an independent program: full rings exactly, sparse ones within
//! what a sample of look-ups allows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use p2ps::config::{Geometry, NetConfig};
use p2ps::id::{Id, Ring};
use p2ps::sim::{NetworkModel, NodeNumber, Simulator, What};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// The largest rings that are walked here: the others take long without optimisation.
const FULL_NODES_MAX: u64 = 2131;
const SPARSE_NODES_MAX: usize = 1000;

/// Look-ups on a sparse ring.
const LOOKUPS: u64 = 4000;

/// The rows that the protocol builds a ring for here; `experiments/geometry.yaml` has all, and larger ones.
const GROWN: [&str; 3] =
    ["chord,2,no,interval,32,1000,", "tango,5,no,interval,32,1000,", "tango,5,yes,region,32,1000,"];

const SECOND_US: u64 = 1_000_000;

fn geometry(kind: &str, k: u16, symmetric: bool) -> Geometry {
    match kind {
        "chord" => Geometry::Chord,
        "dks" => Geometry::Dks { k },
        _ => Geometry::Tango { k, symmetric },
    }
}

/// A converged ring of these ids that does nothing of itself.
fn ring(ring: Ring, geometry: Geometry, ids: impl Iterator<Item = Id>) -> (Simulator, Vec<NodeNumber>) {
    let net = NetConfig::new(ring, geometry, 8).unwrap();
    let mut simulator = Simulator::new(net, NetworkModel::default(), 1, false);
    let nodes: Vec<NodeNumber> = ids.map(|id| simulator.add(id, id.0).unwrap()).collect();
    simulator.start_converged(&nodes, false);
    simulator.happenings();
    (simulator, nodes)
}

/// A ring of these ids that the protocol has built: a hundred join a second, each by one that came before.
fn grown(ring: Ring, geometry: Geometry, ids: &[Id], random: &mut Pcg32) -> (Simulator, Vec<NodeNumber>) {
    let net = NetConfig::new(ring, geometry, 8).unwrap();
    let mut simulator = Simulator::new(net, NetworkModel::default(), 1, false);
    let nodes: Vec<NodeNumber> = ids.iter().map(|id| simulator.add(*id, id.0).unwrap()).collect();
    // The ids are in order: the nodes join in another.
    let mut joining = nodes.clone();
    for place in (1..joining.len()).rev() {
        joining.swap(place, random.next_u32() as usize % (place + 1));
    }
    for (place, node) in joining.iter().enumerate() {
        let via = if place == 0 { None } else { Some(joining[random.next_u32() as usize % place]) };
        simulator.start(*node, via.as_slice(), &[]);
        simulator.run_until(simulator.now_us() + SECOND_US / 100);
    }
    simulator.run_until(simulator.now_us() + 60 * SECOND_US);
    simulator.happenings();
    (simulator, nodes)
}

/// The hops of look-ups, one after the other.
fn hops(simulator: &mut Simulator, lookups: impl Iterator<Item = (NodeNumber, Id)>) -> Vec<u16> {
    let mut hops = Vec::new();
    for (operation, (from, key)) in (0..).zip(lookups) {
        let now_us = simulator.now_us();
        simulator.lookup(from, operation, key, now_us);
        simulator.run_until(now_us + 100_000);
        hops.extend(simulator.happenings().filter_map(|happening| match happening.what {
            What::Completed { result, .. } => Some(result.unwrap().hops),
            _ => None,
        }));
    }
    hops
}

/// The distinct nodes of a finger table, as the golden tables count them: without the outermost offsets of a symmetric one, which
/// are clamped to half the ring (the golden tables have none there, and so a few hundredths of a hop more).
fn links(simulator: &Simulator, node: NodeNumber) -> usize {
    let peer = simulator.peer(node).unwrap();
    let fingers = peer.fingers();
    let is_clamped =
        |index: usize| peer.net().geometry().is_symmetric() && (index + 1).is_multiple_of(fingers.len() / 2);
    let counted = fingers.iter().enumerate().filter(|(index, _)| !is_clamped(*index));
    counted.filter_map(|(_, (_, contact))| *contact).collect::<std::collections::BTreeSet<_>>().len()
}

fn mean(hops: &[u16]) -> f64 {
    hops.iter().map(|hops| f64::from(*hops)).sum::<f64>() / hops.len() as f64
}

#[test]
fn full_rings_have_the_golden_hops() {
    let mut rows = 0;
    for line in include_str!("golden/full-ring.csv").lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let size: u64 = cells[3].parse().unwrap();
        if size > FULL_NODES_MAX {
            continue;
        }
        let geometry = geometry(cells[0], cells[1].parse().unwrap(), cells[2] == "yes");
        let (mut simulator, nodes) = ring(Ring::new(u128::from(size)).unwrap(), geometry, (0..size).map(Id));
        // All nodes of a full ring are alike: the ways from one to all are the ways of all.
        let hops = hops(&mut simulator, (0..size).map(|key| (nodes[0], Id(key))));
        assert_eq!(hops.len() as u64, size, "{line}");
        assert!((mean(&hops) - cells[5].parse::<f64>().unwrap()).abs() < 0.0051, "{line}: {}", mean(&hops));
        assert_eq!(hops.iter().max().unwrap().to_string(), cells[6], "{line}");
        assert_eq!(simulator.peer(nodes[0]).unwrap().fingers_known().to_string(), cells[4], "{line}");
        rows += 1;
    }
    assert_eq!(rows, 4);
}

#[test]
fn sparse_rings_have_the_golden_links_and_hops() {
    let rows = sparse_rows(
        |line| !line.contains("closest-preceding"),
        |kind, ids, _| ring(Ring::DEFAULT, kind, ids.iter().copied()),
    );
    assert_eq!(rows, 9);
}

#[test]
fn rings_that_the_protocol_has_built_have_them_too() {
    let rows = sparse_rows(
        |line| GROWN.iter().any(|start| line.starts_with(start)),
        |kind, ids, random| grown(Ring::DEFAULT, kind, ids, random),
    );
    assert_eq!(rows, GROWN.len());
}

/// Measures the rows that are wanted, on rings of random ids that `make` makes, and counts them.
fn sparse_rows(
    wanted: impl Fn(&str) -> bool,
    make: impl Fn(Geometry, &[Id], &mut Pcg32) -> (Simulator, Vec<NodeNumber>),
) -> usize {
    let mut rows = 0;
    for line in include_str!("golden/sparse-ring.csv").lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let count: usize = cells[5].parse().unwrap();
        if count > SPARSE_NODES_MAX || !wanted(line) {
            continue;
        }
        let mut random = Pcg32::seed_from_u64(1);
        let ids: std::collections::BTreeSet<Id> =
            std::iter::repeat_with(|| Id(u64::from(random.next_u32()))).take(count).collect();
        let ids: Vec<Id> = ids.into_iter().collect();
        let geometry = geometry(cells[0], cells[1].parse().unwrap(), cells[2] == "yes");
        let (mut simulator, nodes) = make(geometry, &ids, &mut random);
        let links = nodes.iter().map(|node| links(&simulator, *node)).sum::<usize>() as f64 / count as f64;
        let lookups = (0..LOOKUPS)
            .map(|_| (nodes[random.next_u32() as usize % count], Id(u64::from(random.next_u32()))));
        let mut hops = hops(&mut simulator, lookups);
        hops.sort_unstable();
        let golden = |cell: usize| cells[cell].parse::<f64>().unwrap();
        assert!((links / golden(6) - 1.0).abs() < 0.03, "{line}: {links} links");
        assert!((mean(&hops) / golden(7) - 1.0).abs() < 0.03, "{line}: {} hops", mean(&hops));
        assert!((f64::from(hops[hops.len() * 99 / 100]) - golden(8)).abs() <= 1.0, "{line}");
        rows += 1;
    }
    rows
}
