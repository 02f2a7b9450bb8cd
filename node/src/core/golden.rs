//! Routing on static rings with right tables, against figures that an independent program computed (100,000 random look-ups a
//! row): the mean, the 99th percentile and the bound of hops, and the links, on full rings and on sparse ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::access_point::AccessPoint;
use crate::config::Geometry;
use crate::core::geometry::Offsets;
use crate::core::group::{Split, parts};
use crate::core::link_cache::LinkCache;
use crate::core::nearby::Nearby;
use crate::core::ring::Neighbours;
use crate::core::route::{Decision, Router, Way};
use crate::core::table::FingerTable;
use crate::id::{Id, Ring};
use crate::message::Contact;

/// Look-ups measured a row.
const LOOKUPS: usize = 20_000;

/// A mean may differ by this share: both are means of random samples.
const TOLERANCE: f64 = 0.02;

/// Rows beyond this many nodes are left to the simulator.
const NODES_MAX: usize = 12_000;

#[test]
fn full_rings_take_the_golden_hops_and_never_more_than_the_bound() {
    let rows = check(include_str!("../../tests/golden/full-ring.csv"), |cells| {
        let size: usize = cells[3].parse().unwrap();
        (size <= NODES_MAX).then(|| {
            let ring = Ring::new(size as u128).unwrap();
            let measured = measure(ring, (0..size as u64).map(Id).collect(), geometry(cells));
            assert_near(measured.hops_mean, number(cells[5]), TOLERANCE, cells);
            assert_near(measured.links_mean, number(cells[4]), 0.0, cells);
            assert!(measured.hops_max <= number(cells[6]) as usize, "{} hops: {cells:?}", measured.hops_max);
        })
    });
    assert_eq!(rows, 6);
}

#[test]
fn sparse_rings_take_the_golden_hops_and_links() {
    let rows = check(include_str!("../../tests/golden/sparse-ring.csv"), |cells| {
        let nodes: usize = cells[5].parse().unwrap();
        let wanted = nodes <= NODES_MAX && cells[3] != "closest-preceding";
        wanted.then(|| {
            let ring = Ring::new(1 << cells[4].parse::<u32>().unwrap()).unwrap();
            let mut random = Pcg32::seed_from_u64(nodes as u64);
            let ids: BTreeSet<Id> = (0..nodes).map(|_| Id(u64::from(random.next_u32()))).collect();
            let measured = measure(ring, ids.into_iter().collect(), geometry(cells));
            assert_near(measured.hops_mean, number(cells[7]), TOLERANCE, cells);
            // The golden symmetric tables leave out the two fingers clamped to half the ring, which the bound needs.
            let clamped = if cells[2] == "yes" { 1.5 } else { 0.0 };
            assert_near(measured.links_mean - clamped, number(cells[6]), 0.02, cells);
            assert!(
                measured.hops_p99.abs_diff(number(cells[8]) as usize) <= 1,
                "{} hops: {cells:?}",
                measured.hops_p99
            );
        })
    });
    assert_eq!(rows, 18);
}

#[test]
fn the_bound_holds_on_full_rings_of_any_size() {
    for size in [100, 1000, 5000] {
        for geometry in [Geometry::Tango { k: 3, symmetric: true }, Geometry::Tango { k: 5, symmetric: true }]
        {
            let ring = Ring::new(size).unwrap();
            let bound = Offsets::new(geometry, ring).hops_max as usize;
            let measured = measure(ring, (0..size as u64).map(Id).collect(), geometry);
            assert!(
                measured.hops_max <= bound,
                "{geometry} on {size}: {} hops, not {bound}",
                measured.hops_max
            );
        }
    }
}

#[test]
fn near_nodes_and_the_link_cache_keep_the_bound() {
    for geometry in [
        Geometry::Chord,
        Geometry::Dks { k: 4 },
        Geometry::Tango { k: 3, symmetric: false },
        Geometry::Tango { k: 3, symmetric: true },
        Geometry::Tango { k: 5, symmetric: true },
    ] {
        let ring = Ring::new(2131).unwrap();
        let ids: Vec<Id> = (0..2131).map(Id).collect();
        let nodes = static_ring(ring, &ids, geometry);
        let bound = Offsets::new(geometry, ring).hops_max as usize;
        let plain = measure_with(ring, &ids, &nodes, &[Shortcuts::default()]);
        let mut random = Pcg32::seed_from_u64(5);
        let near: Vec<Shortcuts> =
            nodes.iter().map(|node| Shortcuts::near(node, &ids, &mut random)).collect();
        let by_near = measure_with(ring, &ids, &nodes, &near);
        assert!(by_near.hops_max <= bound, "{geometry}: {} hops, not {bound}", by_near.hops_max);
        assert!(by_near.hops_mean <= plain.hops_mean + 0.05, "{geometry}: {}", by_near.hops_mean);
        let heard: Vec<Shortcuts> = nodes.iter().map(|_| Shortcuts::heard(64, &ids, &mut random)).collect();
        let by_heard = measure_with(ring, &ids, &nodes, &heard);
        assert!(by_heard.hops_max <= bound, "{geometry}: {} hops, not {bound}", by_heard.hops_max);
        assert!(by_heard.hops_mean < plain.hops_mean - 0.5, "{geometry}: {}", by_heard.hops_mean);
    }
}

/// What a node's options add to its tables.
#[derive(Default)]
struct Shortcuts {
    nearby: Nearby,
    link_cache: LinkCache,
}

impl Shortcuts {
    /// Beside each finger one of the nodes next to its position.
    fn near((_, table): &(Neighbours, FingerTable), ids: &[Id], random: &mut Pcg32) -> Shortcuts {
        let sides = 1 + usize::from(table.is_symmetric());
        let mut nearby = Nearby::new(table.len(), table.is_symmetric());
        for place in 0..table.len() * sides {
            let finger = place % table.len();
            let Some(contact) = table.finger(finger) else { continue };
            let (at, step) = (contact.id.0 as usize, 1 + random.next_u32() as usize % 8);
            let beside = if place < table.len() { at + step } else { at + ids.len() - step };
            let id = ids[beside % ids.len()];
            if table.serves(id) == Some(finger) {
                nearby.offer(place, Contact { id, ..contact }, std::time::Duration::from_millis(1));
            }
        }
        Shortcuts { nearby, ..Shortcuts::default() }
    }

    /// So many nodes that were heard.
    fn heard(count: u16, ids: &[Id], random: &mut Pcg32) -> Shortcuts {
        let access_point: AccessPoint = "p2ps://127.0.0.1:1".parse().unwrap();
        let mut link_cache = LinkCache::new(count);
        for _ in 0..count {
            let id = ids[random.next_u32() as usize % ids.len()];
            link_cache.hear(Contact { id, access_point, incarnation: 0 });
        }
        Shortcuts { link_cache, ..Shortcuts::default() }
    }
}

struct Measured {
    hops_mean: f64,
    hops_p99: usize,
    hops_max: usize,
    links_mean: f64,
}

/// Runs `test` on each row, and counts those that it took.
fn check(csv: &str, test: impl Fn(&[&str]) -> Option<()>) -> usize {
    csv.lines().skip(1).filter_map(|line| test(&line.split(',').collect::<Vec<_>>())).count()
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap()
}

fn geometry(cells: &[&str]) -> Geometry {
    let k = cells[1].parse().unwrap();
    match (cells[0], cells[2]) {
        ("chord", _) => Geometry::Chord,
        ("dks", _) => Geometry::Dks { k },
        (_, symmetric) => Geometry::Tango { k, symmetric: symmetric == "yes" },
    }
}

fn assert_near(measured: f64, golden: f64, tolerance: f64, cells: &[&str]) {
    // The golden figures are rounded to their last printed digit.
    assert!(
        (measured - golden).abs() <= golden * tolerance + 0.051,
        "{measured} instead of {golden}: {cells:?}"
    );
}

fn measure(ring: Ring, ids: Vec<Id>, geometry: Geometry) -> Measured {
    let nodes = static_ring(ring, &ids, geometry);
    measure_with(ring, &ids, &nodes, &[Shortcuts::default()])
}

/// Node by node, or the same for all.
fn measure_with(
    ring: Ring,
    ids: &[Id],
    nodes: &[(Neighbours, FingerTable)],
    shortcuts: &[Shortcuts],
) -> Measured {
    let mut random = Pcg32::seed_from_u64(1);
    let mut hops: Vec<usize> = (0..LOOKUPS)
        .map(|_| {
            let key = Id((u128::from(random.next_u64()) % ring.max_size()) as u64);
            walk(ring, ids, nodes, shortcuts, random.next_u32() as usize % ids.len(), key)
        })
        .collect();
    hops.sort_unstable();
    Measured {
        hops_mean: hops.iter().sum::<usize>() as f64 / LOOKUPS as f64,
        hops_p99: hops[LOOKUPS * 99 / 100],
        hops_max: hops[LOOKUPS - 1],
        links_mean: nodes.iter().map(|(_, table)| table.contacts().len()).sum::<usize>() as f64
            / ids.len() as f64,
    }
}

#[test]
fn group_messages_are_as_many_as_the_golden_ones() {
    let rings = std::cell::RefCell::new(BTreeMap::new());
    let rows = check(include_str!("../../tests/golden/group-messages.csv"), |cells| {
        let nodes: usize = cells[2].parse().unwrap();
        let mut rings = rings.borrow_mut();
        let group = rings
            .entry(cells[..3].join(" "))
            .or_insert_with(|| Group::new(nodes, geometry(&[cells[0], cells[1], "no"])));
        match cells[3] {
            "broadcast" => {
                let mut reached = BTreeSet::new();
                let depth = group.broadcast(&mut reached);
                assert_eq!((reached.len(), nodes - 1), (nodes - 1, number(cells[5]) as usize), "{cells:?}");
                // The deepest path of one ring of random ids; theirs is another.
                assert!(depth.abs_diff(number(cells[6]) as usize) <= 1, "depth {depth}: {cells:?}");
            }
            operation => {
                let together = operation == "multicast";
                let messages = group.multicast(cells[4].parse().unwrap(), together);
                assert_near(messages, number(cells[5]), 0.03, cells);
            }
        }
        Some(())
    });
    assert_eq!(rows, 12);
}

/// A static ring of 2^32 ids, over which group messages go.
struct Group {
    ring: Ring,
    ids: Vec<Id>,
    nodes: Vec<(Neighbours, FingerTable)>,
}

impl Group {
    fn new(nodes: usize, geometry: Geometry) -> Group {
        let ring = Ring::DEFAULT;
        let mut random = Pcg32::seed_from_u64(nodes as u64);
        let ids: BTreeSet<Id> =
            std::iter::repeat_with(|| Id(u64::from(random.next_u32()))).take(nodes).collect();
        let ids: Vec<Id> = ids.into_iter().collect();
        assert_eq!(ids.len(), nodes, "no id was drawn twice");
        Group { ring, nodes: static_ring(ring, &ids, geometry), ids }
    }

    /// From the first node to all others, each once. Returns the length of the longest path.
    fn broadcast(&self, reached: &mut BTreeSet<Id>) -> usize {
        let (me, ring) = (self.ids[0], self.ring);
        let mut depth_max = 0;
        let mut waiting = vec![(0, ring.add(me, 1), ring.sub(me, 1), 1)];
        while let Some((place, first, last, depth)) = waiting.pop() {
            let (neighbours, table) = &self.nodes[place];
            let known = table.contacts().iter().copied().chain(neighbours.successor());
            for part in parts(ring, self.ids[place], known, first, last) {
                let head = part.head.expect("a range that begins after the node begins at its successor").id;
                assert!(reached.insert(head), "{head} gets it twice");
                depth_max = depth_max.max(depth);
                if head != part.last {
                    let place = self.ids.binary_search(&head).unwrap();
                    waiting.push((place, ring.add(head, 1), part.last, depth + 1));
                }
            }
        }
        depth_max
    }

    /// From the first node to `targets` others, drawn at random: together, or each alone. Returns the mean number of messages.
    fn multicast(&self, targets: usize, together: bool) -> f64 {
        let draws = if targets < 1000 { 20 } else { 1 };
        let mut random = Pcg32::seed_from_u64(targets as u64);
        let mut messages = 0;
        for _ in 0..draws {
            let mut list = BTreeSet::new();
            while list.len() < targets {
                list.insert(self.ids[1 + random.next_u32() as usize % (self.ids.len() - 1)]);
            }
            let lists: Vec<Vec<Id>> = match together {
                true => vec![list.into_iter().collect()],
                false => list.into_iter().map(|target| vec![target]).collect(),
            };
            messages += lists.into_iter().map(|list| self.walk_list(list)).sum::<usize>();
        }
        messages as f64 / f64::from(draws)
    }

    /// The messages that it takes to reach all of a list.
    fn walk_list(&self, list: Vec<Id>) -> usize {
        let (mut messages, mut arrived, wanted) = (0, 0, list.len());
        let mut waiting = vec![(0, Way::default(), list)];
        while let Some((place, way, list)) = waiting.pop() {
            let (neighbours, table) = &self.nodes[place];
            let (nearby, link_cache) = (Nearby::default(), LinkCache::default());
            let router = Router {
                ring: self.ring,
                me: self.ids[place],
                neighbours,
                table,
                nearby: &nearby,
                link_cache: &link_cache,
                suspects: vec![],
            };
            let split = Split::new(&list, |target| match router.decide(target, way) {
                Decision::Mine => Err(None),
                Decision::Forward(next) => Ok(next),
                Decision::Stuck => panic!("{target} is stuck"),
            });
            arrived += usize::from(split.mine);
            for (next, list) in split.onward.into_values() {
                messages += 1;
                let way = Way { hops: way.hops + 1, entry: next.entry, claimed: next.claimed, ..way };
                waiting.push((self.ids.binary_search(&next.to.id).unwrap(), way, list));
            }
        }
        assert_eq!(arrived, wanted);
        messages
    }
}

/// Each node's neighbours and fingers, all right.
fn static_ring(ring: Ring, ids: &[Id], geometry: Geometry) -> Vec<(Neighbours, FingerTable)> {
    let offsets = Arc::new(Offsets::new(geometry, ring));
    let access_point: AccessPoint = "p2ps://127.0.0.1:1".parse().unwrap();
    let contact = |place: usize| Contact { id: ids[place % ids.len()], access_point, incarnation: 0 };
    (0..ids.len())
        .map(|place| {
            let mut neighbours = Neighbours::new(ring, ids[place], 1);
            neighbours.adopt(contact(place + 1), &[]);
            neighbours.follow(Some(contact(place + ids.len() - 1)), Some(contact(place + ids.len() - 2).id));
            let mut table = FingerTable::new(ring, ids[place], Arc::clone(&offsets));
            table.move_range_start(neighbours.range_start());
            for index in 0..table.len() {
                let right = contact(ids.partition_point(|id| *id < table.target(index)));
                table.set(index, (right.id != ids[place]).then_some(right));
            }
            (neighbours, table)
        })
        .collect()
}

/// Routes a key from one node to its responsible, and counts the hops.
fn walk(
    ring: Ring,
    ids: &[Id],
    nodes: &[(Neighbours, FingerTable)],
    shortcuts: &[Shortcuts],
    start: usize,
    key: Id,
) -> usize {
    let mut place = start;
    let mut way = Way::default();
    loop {
        let (neighbours, table) = &nodes[place];
        let Shortcuts { nearby, link_cache } = &shortcuts[place % shortcuts.len()];
        let router =
            Router { ring, me: ids[place], neighbours, table, nearby, link_cache, suspects: Vec::new() };
        match router.decide(key, way) {
            Decision::Mine => return usize::from(way.hops),
            Decision::Stuck => panic!("{key} is stuck at {}", ids[place]),
            Decision::Forward(next) => {
                assert_eq!(next.backward, 0, "right tables have no stale fingers");
                way = Way { hops: way.hops + 1, entry: next.entry, claimed: next.claimed, ..way };
                assert!(way.hops < 100, "{key} goes round in circles");
                place = ids.binary_search(&next.to.id).unwrap();
            }
        }
    }
}
