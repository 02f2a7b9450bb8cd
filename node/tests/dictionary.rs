//! The dictionary on the pure core over a seeded network: what is acknowledged is read again, through joins, leaves and crashes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use network::{Network, symmetric_tango};
use p2ps::config::NetConfig;
use p2ps::id::{Id, Span};
use p2ps::message::dictionary::{
    Answer, Cursor, DictionaryError, Holding, Item, Origin, Refusal, Request, Stored, Talk, Version, Written,
};
use p2ps::message::{Body, Contact, Message, Route, RouteError};
use p2ps::peer::{Event, Input, Peer};
use p2ps::services::dictionary::REMOVED_KEPT;
use p2ps::services::dictionary::conservation::{self, Acknowledged};

/// Longer than an operation may take.
const OPERATION: Duration = Duration::from_secs(25);

/// How long after the last crash all copies are in their places again.
const RESTORED: Duration = Duration::from_secs(20);

/// How long until the copies of few keys have been compared, which is done now and then.
const COMPARED: Duration = Duration::from_secs(90);

/// A network, and what its dictionary must know.
struct Board {
    network: Network,
    /// The last acknowledged write of each key.
    acknowledged: BTreeMap<Id, Acknowledged>,
    /// Values that a key may have instead, since a write of them failed.
    possible: BTreeMap<Id, BTreeSet<Option<Bytes>>>,
    written: u64,
}

impl Board {
    fn new(net: NetConfig, nodes: usize, seed: u64) -> Board {
        let network = Network::ring(net, nodes, seed);
        Board { network, acknowledged: BTreeMap::new(), possible: BTreeMap::new(), written: 0 }
    }

    /// With `keys` keys.
    fn filled(net: NetConfig, nodes: usize, seed: u64, keys: usize) -> Board {
        let mut board = Board::new(net, nodes, seed);
        for _ in 0..keys {
            let (from, key) = (board.network.any_member(), board.network.random_id());
            board.write(from, key, true).unwrap().unwrap();
        }
        board
    }

    fn any_key(&mut self) -> Id {
        let place = self.network.random(self.acknowledged.len() as u64) as usize;
        *self.acknowledged.keys().nth(place).unwrap()
    }

    /// Runs until an operation has ended; `None` where its node is gone before.
    fn end(&mut self, from: Id, operation: u64) -> Option<Result<Answer, DictionaryError>> {
        self.network.run_until("the operation has ended", OPERATION, |n| {
            n.applications[&from].answered.contains_key(&operation) || !n.peers.contains_key(&from)
        });
        self.network.applications[&from].answered.get(&operation).cloned()
    }

    /// Gives a key a value that it never had, or removes it.
    fn write(&mut self, from: Id, key: Id, insert: bool) -> Option<Result<Written, DictionaryError>> {
        self.written += 1;
        let text = format!("{key} {}", self.written);
        let operation = match insert {
            true => self.network.insert(from, key, &text),
            false => self.network.remove(from, key),
        };
        let value = insert.then(|| Bytes::from(text));
        let end = self.end(from, operation).map(|end| {
            end.map(|answer| match answer {
                Answer::Written(written) => written,
                Answer::Value(_) => panic!("a write is answered by a value"),
            })
        });
        match &end {
            Some(Ok(written)) => {
                let earlier = self.acknowledged.insert(key, (written.version, value));
                assert!(earlier.is_none_or(|(version, _)| version < written.version), "{written:?}");
                self.possible.remove(&key);
            }
            Some(Err(_)) | None => {
                self.possible.entry(key).or_default().insert(value);
            }
        }
        end
    }

    fn get(&mut self, from: Id, key: Id) -> Option<Result<Option<Stored>, DictionaryError>> {
        let operation = self.network.get(from, key);
        Some(self.end(from, operation)?.map(|answer| match answer {
            Answer::Value(value) => value,
            Answer::Written(_) => panic!("a read is answered by a write"),
        }))
    }

    /// Reads a key, which must have the value that was written last.
    fn read(&mut self, from: Id, key: Id) -> bool {
        let Some(result) = self.get(from, key) else { return false };
        if result == Err(DictionaryError::Route(RouteError::NotMember)) {
            return false;
        }
        let read = result
            .unwrap_or_else(|error| {
                panic!("{key} from {from} at {:?}: {error}\n{}", self.network.now, self.describe(key))
            })
            .map(|stored| stored.value);
        let known = self.acknowledged.get(&key).and_then(|(_, value)| value.clone());
        let possible = self.possible.get(&key).is_some_and(|possible| possible.contains(&read));
        assert!(
            read == known || possible,
            "{key} from {from} at {:?} is {read:?}, not {known:?}\n{}",
            self.network.now,
            self.describe(key)
        );
        true
    }

    fn check_conserved(&self) {
        let lost = conservation::lost(self.network.peers.values().map(Peer::dictionary), &self.acknowledged);
        assert!(lost.is_empty(), "at {:?} {lost:?} are lost\n{}", self.network.now, self.describe(lost[0]));
    }

    fn missing(&self) -> usize {
        missing(&self.network)
    }

    fn all_can_be_read(&mut self) {
        for key in self.acknowledged.keys().copied().collect::<Vec<_>>() {
            let from = self.network.any_member();
            assert!(self.read(from, key));
        }
    }

    fn restored(&mut self) {
        self.network.run_until("all copies are in their places", RESTORED, |n| missing(n) == 0);
        self.check_conserved();
        self.all_can_be_read();
    }

    /// Who has what of a key.
    fn describe(&self, key: Id) -> String {
        let mut text = self.network.describe();
        for peer in self.network.peers.values() {
            for (place, item) in peer.dictionary().iter().filter(|(_, item)| item.key == key) {
                text += &format!("{} at {place}: {:?} {:?}\n", peer.me().id, item.version, item.value);
            }
            if !peer.dictionary().is_complete() {
                text += &format!("{} is acquiring\n", peer.me().id);
            }
        }
        text
    }
}

fn missing(network: &Network) -> usize {
    let members = network.members();
    let dictionaries = members.iter().map(|id| (*id, network.peers[id].dictionary()));
    conservation::missing(&network.net, dictionaries).len()
}

#[test]
fn on_a_quiet_ring_what_is_written_is_read_and_what_is_removed_is_gone() {
    for (nodes, replication) in [(1, 3), (2, 3), (3, 1), (16, 3), (16, 5)] {
        let net = symmetric_tango(8).with_replication(replication).unwrap();
        let mut board = Board::filled(net, nodes, 7, 60);
        assert_eq!(board.missing(), 0);
        board.all_can_be_read();
        for place in 0..30 {
            let (from, key) = (board.network.any_member(), *board.acknowledged.keys().nth(place).unwrap());
            let written = board.write(from, key, place % 2 == 0).unwrap().unwrap();
            assert_eq!(written.version.counter, 2);
            assert!((1..=replication).contains(&written.copies));
        }
        assert_eq!(board.missing(), 0);
        board.all_can_be_read();
        let (from, never) = (board.network.any_member(), board.network.random_id());
        assert_eq!(board.get(from, never), Some(Ok(None)));
    }
}

/// Joins and leaves one after the other and at once, with reads and writes all along.
fn graceful_churn(net: NetConfig, nodes: usize, events: usize, seed: u64) {
    let mut board = Board::filled(net, nodes, seed, 80);
    for _ in 0..events {
        for _ in 0..=board.network.random(3) {
            let members = board.network.members().len();
            if board.network.random(2) == 0 && members > nodes.div_ceil(2) {
                let leaver = board.network.any_member();
                board.network.leave(leaver);
            } else {
                let (id, via) = (board.network.random_id(), board.network.any_member());
                board.network.join(id, &[via]);
            }
        }
        for _ in 0..4 {
            let (from, key) = (board.network.any_member(), board.any_key());
            match board.network.random(4) {
                0 => {
                    let insert = board.network.random(4) > 0;
                    board.write(from, key, insert);
                }
                _ => {
                    board.read(from, key);
                }
            }
            board.check_conserved();
        }
        let pause = Duration::from_millis(board.network.random(1500));
        board.network.run_for(pause);
        board.check_conserved();
    }
    board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
    board.restored();
}

#[test]
fn joins_and_leaves_lose_nothing_and_bring_nothing_back() {
    for seed in 0..12 {
        graceful_churn(symmetric_tango(8), 16, 30, seed);
    }
}

#[test]
fn joins_and_leaves_lose_nothing_where_there_is_one_copy_only() {
    for seed in 0..12 {
        graceful_churn(symmetric_tango(8).with_replication(1).unwrap(), 12, 30, seed);
    }
}

#[test]
fn small_rings_lose_nothing_to_joins_and_leaves() {
    for seed in 0..12 {
        graceful_churn(symmetric_tango(8), 2 + seed as usize % 3, 20, seed);
    }
}

fn neighbours_crash(seed: u64) {
    let mut board = Board::filled(symmetric_tango(8), 32, seed, 100);
    for _ in 0..4 {
        // Two neighbours.
        let members = board.network.members();
        let first = board.network.random(members.len() as u64) as usize;
        board.network.kill(members[first]);
        board.network.kill(members[(first + 1) % members.len()]);
        board.check_conserved();
        for _ in 0..6 {
            let (from, key) = (board.network.any_member(), board.any_key());
            board.read(from, key);
        }
        let (from, key) = (board.network.any_member(), board.network.random_id());
        board.write(from, key, true).unwrap().unwrap();
        board.restored();
    }
}

#[test]
fn keys_survive_as_many_crashes_at_once_as_there_are_further_copies() {
    (0..12).for_each(neighbours_crash);
}

fn several_write(seed: u64) {
    let mut board = Board::new(symmetric_tango(8), 16, seed);
    board.network.loss_per_mille = 50;
    let key = board.network.random_id();
    let mut operations = Vec::new();
    for number in 0..40 {
        let from = board.network.any_member();
        operations.push((from, board.network.insert(from, key, &number.to_string()), number));
        if number % 4 == 0 {
            board.network.run_for(Duration::from_millis(30));
        }
    }
    board.network.run_for(OPERATION);
    board.network.loss_per_mille = 0;
    let mut versions = BTreeMap::new();
    for (from, operation, number) in operations {
        if let Ok(Answer::Written(written)) = board.network.applications[&from].answered[&operation] {
            assert_eq!(versions.insert(written.version, number), None, "two writes have one version");
        }
    }
    board.restored();
    let (_, winner) = versions.last_key_value().unwrap();
    for from in board.network.members() {
        let read = board.get(from, key).unwrap().unwrap().unwrap();
        assert_eq!(read.value, winner.to_string(), "seed {seed}");
    }
}

#[test]
fn of_several_writers_one_wins_everywhere() {
    (0..10).for_each(several_write);
}

fn nodes_restart(seed: u64) {
    let mut board = Board::filled(symmetric_tango(8), 20, seed, 60);
    board.network.loss_per_mille = 30;
    for _ in 0..6 {
        let victim = board.network.any_member();
        board.network.kill(victim);
        for _ in 0..5 {
            let (from, key) = (board.network.any_member(), board.any_key());
            let insert = board.network.random(4) > 0;
            match board.network.random(3) {
                0 => drop(board.write(from, key, insert)),
                _ => drop(board.get(from, key)),
            }
        }
        board.check_conserved();
        let via = board.network.any_member();
        board.network.join(victim, &[via]);
        board.network.run_for(RESTORED);
        board.check_conserved();
    }
    board.network.loss_per_mille = 0;
    board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
    board.restored();
}

/// The responsible of a key stands still until another has taken over and written; then it goes on, and knows nothing of that.
fn the_responsible_comes_back(seed: u64) {
    let mut board = Board::filled(symmetric_tango(8), 16, seed, 20);
    let key = board.any_key();
    let responsible = board.network.responsible(key);
    board.network.paused.insert(responsible);
    board.network.run_for(RESTORED);
    let other = board.network.members().into_iter().find(|id| *id != responsible).unwrap();
    board.write(other, key, true).unwrap().unwrap();
    board.network.paused.clear();
    board.write(responsible, key, true).unwrap().unwrap();
    board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
    board.restored();
}

#[test]
fn a_write_comes_after_those_that_its_responsible_has_missed() {
    (0..12).for_each(the_responsible_comes_back);
}

/// A key's responsible has forgotten that it was removed, another node has not yet: each forgets it when it looks for such things.
fn a_removal_is_half_forgotten(seed: u64) {
    let mut board = Board::filled(symmetric_tango(8), 16, seed, 1);
    let key = board.any_key();
    let responsible = board.network.responsible(key);
    board.write(responsible, key, false).unwrap().unwrap();
    board.network.run_for(REMOVED_KEPT - Duration::from_secs(10));
    let knows = |peer: &Peer| peer.dictionary().iter().any(|(_, item)| item.key == key);
    board.network.run_until("the responsible has forgotten", COMPARED, |n| !knows(&n.peers[&responsible]));
    board.acknowledged.clear();
    let written = board.write(responsible, key, true).unwrap().unwrap();
    for seconds in 0..COMPARED.as_secs() {
        let holders = board.network.peers.values().flat_map(|peer| peer.dictionary().iter());
        let versions: Vec<Version> = holders.map(|(_, item)| item.version).collect();
        assert_eq!(versions, [written.version; 3], "{seconds} s after\n{}", board.describe(key));
        board.network.run_for(Duration::from_secs(1));
    }
    board.all_can_be_read();
}

#[test]
fn a_value_that_is_written_while_a_removal_is_being_forgotten_stays_everywhere() {
    (0..6).for_each(a_removal_is_half_forgotten);
}

#[test]
fn loss_and_restarts_lose_no_key() {
    (0..10).for_each(nodes_restart);
}

fn a_partition_heals(seed: u64) {
    let mut board = Board::filled(symmetric_tango(8), 16, seed, 40);
    let members = board.network.members();
    board.network.island = members.iter().copied().filter(|id| id.0 % 2 == 0).collect();
    board.network.run_for(Duration::from_secs(40));
    for _ in 0..20 {
        let (from, key) = (board.network.any_member(), board.any_key());
        board.written += 1;
        let text = format!("{key} {}", board.written);
        let operation = board.network.insert(from, key, &text);
        board.end(from, operation);
        board.possible.entry(key).or_default().insert(Some(text.into()));
    }
    board.network.island.clear();
    board.network.run_until("the ring is right", Duration::from_secs(200), Network::is_ring_right);
    board.network.run_until("copies agree", Duration::from_secs(120), |n| missing(n) == 0);
    for key in board.acknowledged.keys().copied().collect::<Vec<_>>() {
        let values: BTreeSet<Bytes> = (0..5)
            .map(|_| {
                let from = board.network.any_member();
                assert!(board.read(from, key));
                board.get(from, key).unwrap().unwrap().unwrap().value
            })
            .collect();
        assert_eq!(values.len(), 1, "seed {seed}: {values:?}");
    }
}

#[test]
fn after_a_partition_each_key_has_one_value_again() {
    (0..6).for_each(a_partition_heals);
}

/// A key's responsible dies in the middle of a write, of which one copy arrives or none.
fn a_write_stops_halfway(seed: u64) {
    let mut board = Board::filled(symmetric_tango(8), 24, seed, 40);
    for _ in 0..8 {
        let key = board.any_key();
        let responsible = board.network.responsible(key);
        board.written += 1;
        let text = format!("{key} {}", board.written);
        board.network.loss_per_mille = 500;
        board.network.insert(responsible, key, &text);
        board.possible.entry(key).or_default().insert(Some(text.into()));
        board.network.run_for(Duration::from_millis(100));
        board.network.kill(responsible);
        board.network.loss_per_mille = 0;
        // Others have time to copy what the dead node had.
        board.network.run_for(RESTORED);
        board.read(board.network.responsible(key), key);
    }
    board.network.run_until("all copies are compared", COMPARED, |n| missing(n) == 0);
    board.check_conserved();
    board.all_can_be_read();
}

#[test]
fn what_a_write_that_stopped_halfway_left_missing_is_found_and_mended() {
    (0..6).for_each(a_write_stops_halfway);
}

#[test]
fn the_last_member_says_what_is_lost_with_it() {
    let mut board = Board::filled(symmetric_tango(8), 3, 1, 10);
    while let [first, rest @ ..] = &board.network.members()[..] {
        let (first, last) = (*first, rest.is_empty());
        board.network.leave(first);
        board.network.run_for(Duration::from_secs(20));
        assert!(!board.network.peers.contains_key(&first));
        let left_behind = board.network.applications[&first].events.iter().find_map(|event| match event {
            Event::ItemsLeftBehind { items } => Some(*items),
            _ => None,
        });
        assert_eq!(left_behind, last.then_some(30));
    }
}

/// A board with so many keys that a hand-over takes many messages.
fn crowded(replication: u8, nodes: usize, seed: u64) -> Board {
    let mut board = Board::new(symmetric_tango(8).with_replication(replication).unwrap(), nodes, seed);
    let mut operations = Vec::new();
    for number in 0..3000 {
        let members = board.network.members();
        let (from, key) = (members[number % members.len()], board.network.random_id());
        operations.push((from, key, board.network.insert(from, key, "value")));
        if number % 500 == 499 {
            board.network.run_for(Duration::from_secs(5));
        }
    }
    for (from, key, operation) in operations {
        let answer = &board.network.applications[&from].answered[&operation];
        let Ok(Answer::Written(written)) = answer else { panic!("{answer:?}") };
        board.acknowledged.insert(key, (written.version, Some("value".into())));
    }
    board
}

#[test]
fn nodes_that_join_at_once_wait_for_one_another() {
    for seed in 0..3 {
        let mut board = crowded(1, 2, seed);
        for _ in 0..8 {
            let (id, via) = (board.network.random_id(), board.network.any_member());
            board.network.join(id, &[via]);
            board.network.run_for(Duration::from_millis(60));
            board.check_conserved();
            for _ in 0..8 {
                let (from, key) = (board.network.any_member(), board.any_key());
                board.read(from, key);
            }
        }
        board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
        board.restored();
    }
}

#[test]
fn a_crash_while_others_join_loses_nothing_that_has_two_copies() {
    for seed in 0..6 {
        let mut board = crowded(2, 8, seed);
        for _ in 0..3 {
            for _ in 0..3 {
                let (id, via) = (board.network.random_id(), board.network.any_member());
                board.network.join(id, &[via]);
            }
            board.network.run_for(Duration::from_millis(200));
            let victim = board.network.any_member();
            board.network.kill(victim);
            board.network.run_for(RESTORED);
            board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
            board.restored();
        }
    }
}

#[test]
fn a_node_that_leaves_stays_until_its_successor_has_all_chunks() {
    let mut board = crowded(1, 4, 11);
    while let [leaver, _, ..] = &board.network.members()[..] {
        let leaver = *leaver;
        board.network.leave(leaver);
        board.network.run_until("it has left", Duration::from_secs(20), |n| !n.peers.contains_key(&leaver));
        board.check_conserved();
    }
    board.all_can_be_read();
}

#[test]
fn a_write_that_comes_again_is_not_done_again() {
    let mut board = Board::filled(symmetric_tango(8), 8, 3, 10);
    let key = board.any_key();
    let responsible = board.network.responsible(key);
    let others: Vec<Id> = board.network.members().into_iter().filter(|id| *id != responsible).collect();
    board.network.loses = |message| matches!(message, Message::Dictionary(Talk::Written { .. }));
    let first = board.network.insert(others[0], key, "first");
    board.network.run_for(Duration::from_millis(500));
    assert!(!board.network.applications[&others[0]].answered.contains_key(&first));
    board.network.loses = |_| false;
    let second = board.write(others[1], key, true).unwrap().unwrap();
    let Some(Ok(Answer::Written(first))) = board.end(others[0], first) else { panic!("it comes again") };
    assert!(first.version < second.version);
    board.all_can_be_read();
}

/// The node between two others vanishes: the first has noticed, and leaves. Over slow links the second takes longer to notice than a
/// leave may take as a rule.
fn a_leaver_has_items_and_a_successor_that_waits_for_the_dead(seed: u64) {
    let mut board = Board::new(symmetric_tango(4).with_replication(1).unwrap(), 6, seed);
    board.network.latency_us = 200_000..450_000;
    board.network.run_for(Duration::from_secs(200));
    let (ring, members) = (board.network.net.ring(), board.network.members());
    let [leaver, vanished, successor] = [0, 1, 2].map(|place| members[place]);
    for key in (0..20).map(|number| ring.sub(leaver, number)) {
        board.write(successor, key, true).unwrap().unwrap();
    }
    board.network.paused.insert(vanished);
    board.network.run_until("the first has noticed", Duration::from_secs(90), |network| {
        network.peers[&leaver].successors()[0].id == successor
    });
    board.network.leave(leaver);
    board.network.run_until("it has left", Duration::from_secs(90), |n| !n.peers.contains_key(&leaver));
    board.check_conserved();
}

#[test]
fn a_leaving_node_stays_until_its_successor_has_noticed_that_one_between_is_gone() {
    (0..6).for_each(a_leaver_has_items_and_a_successor_that_waits_for_the_dead);
}

/// The word that a successor has taken over is lost. The node that leaves writes on.
fn a_leave_is_not_confirmed(seed: u64) {
    let mut board = Board::filled(symmetric_tango(8).with_replication(1).unwrap(), 6, seed, 60);
    let key = board.any_key();
    let leaver = board.network.responsible(key);
    board.network.loses = |message| matches!(message, Message::LeaveTaken(_));
    board.network.leave(leaver);
    let mut operations = Vec::new();
    for number in 0..100 {
        let text = format!("{key} by the one that leaves, {number}");
        operations.push((board.network.insert(leaver, key, &text), text));
        board.network.run_for(Duration::from_millis(5));
    }
    board.network.run_until("it has left", Duration::from_secs(30), |n| !n.peers.contains_key(&leaver));
    for (operation, text) in operations {
        if let Ok(Answer::Written(written)) = board.network.applications[&leaver].answered[&operation] {
            let (last, value) = board.acknowledged.get_mut(&key).unwrap();
            if written.version > *last {
                (*last, *value) = (written.version, Some(text.into()));
            }
        } else {
            board.possible.entry(key).or_default().insert(Some(text.into()));
        }
    }
    board.check_conserved();
    board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
    board.all_can_be_read();
}

#[test]
fn what_a_leaving_node_acknowledges_its_successor_has() {
    (0..12).for_each(a_leave_is_not_confirmed);
}

/// Two neighbours crash, and by the node after them another joins, before that one knows who is before it now. So the joiner is told of
/// no predecessor, and has its range only later: more than the giver gave, who has the last copy of a key of it.
fn one_joins_behind_crashed_neighbours(seed: u64) {
    let mut board = Board::new(symmetric_tango(4).with_replication(2).unwrap(), 8, seed);
    let (ring, members) = (board.network.net.ring(), board.network.members());
    let giver = board.network.random(8) as usize;
    let before = |steps: usize| members[(giver + 8 - steps) % 8];
    let range = ring.distance(before(1), before(0));
    let key = ring.add(before(1), range / 3);
    let joiner = ring.add(before(1), 2 * (range / 3));
    board.write(before(4), key, true).unwrap().unwrap();
    let other = board.network.responsible(ring.add(key, 1 << 31));
    for victim in [before(1), before(2), other] {
        board.network.kill(victim);
    }
    board.network.join(joiner, &[before(0)]);
    for _ in 0..200 {
        board.network.run_for(Duration::from_millis(50));
        let from = board.network.any_member();
        board.read(from, key);
    }
    board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
    board.restored();
}

#[test]
fn a_joiner_that_knows_nobody_before_it_gets_what_there_is() {
    (0..12).for_each(one_joins_behind_crashed_neighbours);
}

/// A write whose responsible has died reached another place than the first, and nobody has told that place's new responsible.
#[test]
fn who_has_a_copy_that_the_responsible_lacks_tells_it() {
    let mut board = Board::new(symmetric_tango(8), 16, 3);
    let (ring, key) = (board.network.net.ring(), board.network.random_id());
    let place = ring.add(key, (ring.max_size() / 3) as u64);
    let (source, holder) = (board.network.any_member(), board.network.responsible(place));
    let version = Version { counter: 1, node: source };
    let origin = Origin { node: source, incarnation: 1, sequence: 1 };
    let item = Item { key, version, origin, value: Some("a value".into()), age_s: 0 };
    let from = board.network.peers[&source].me();
    let route = Route { hops: 1, ..Route::new(from, 1, 0, place, Body::Dictionary(Request::Keep(item))) };
    board.network.give(holder, Input::Receive { from, message: Message::Route(route) });
    assert!(board.missing() > 0);
    board.network.run_until("all copies are compared", COMPARED, |n| missing(n) == 0);
    let read = board.get(source, key).unwrap().unwrap().map(|stored| stored.value);
    assert_eq!(read, Some("a value".into()));
}

/// Anything that the wire lets through, with numbers that hurt.
fn nonsense(network: &mut Network, members: &[Contact]) -> Message {
    let number = |network: &mut Network| match network.random(4) {
        0 => 0,
        1 => u64::MAX,
        2 => network.random(100),
        _ => members[network.random(members.len() as u64) as usize].id.0,
    };
    let id = |network: &mut Network| network.net.ring().add(Id(0), number(network));
    let (a, b, c) = (id(network), id(network), id(network));
    let sequence = network.random(400);
    let version = Version { counter: number(network), node: a };
    let origin = Origin { node: b, incarnation: number(network), sequence };
    let value = (network.random(2) == 0).then(|| Bytes::from_static(b"nonsense"));
    // Of a key that nobody uses.
    let item = Item { key: Id(1), version, origin, value: value.clone(), age_s: u32::MAX };
    let cursor = Cursor { place: b, key: c };
    let routed = |body| {
        let (source, entry) = (members[0], Some(b));
        let route = Route { hops: 1, hop: 1, entry, ..Route::new(source, sequence, 0, a, body) };
        Message::Route(route)
    };
    match network.random(10) {
        0 => routed(Body::Dictionary(Request::Compare { key: Id(1), version })),
        1 => routed(Body::Dictionary(Request::Read(b))),
        2 => routed(Body::Dictionary(Request::Keep(item))),
        3 => routed(Body::Dictionary(Request::Fetch { key: b, last: c })),
        4 => Message::Dictionary(Talk::Written { sequence, result: Err(Refusal::Outdated(version)) }),
        5 => Message::Dictionary(Talk::Value { sequence, result: Ok(None) }),
        6 => Message::Dictionary(Talk::Kept { sequence, result: Err(Refusal::Outdated(version)) }),
        7 => Message::Dictionary(Talk::Fetch { token: sequence, cursor, last: a }),
        8 => {
            let (items, holding) = (vec![item], Holding::Foreign);
            Message::Dictionary(Talk::Items { token: sequence, items, next: Some(cursor), holding })
        }
        _ => Message::Dictionary(Talk::Taken(Span { first: a, last: b })),
    }
}

#[test]
fn nonsense_neither_stops_a_node_nor_takes_its_items() {
    let mut board = Board::filled(symmetric_tango(8), 8, 5, 40);
    for round in 0..40 {
        let (id, via) = (board.network.random_id(), board.network.any_member());
        board.network.join(id, &[via]);
        for _ in 0..100 {
            let members: Vec<Contact> = board.network.peers.values().map(Peer::me).collect();
            let from = members[board.network.random(members.len() as u64) as usize];
            let to = board.network.any_member();
            let message = nonsense(&mut board.network, &members);
            board.network.give(to, Input::Receive { from, message });
            board.network.run_for(Duration::from_millis(5));
        }
        board.check_conserved();
        let leaver = board.network.any_member();
        board.network.leave(leaver);
        assert!(!board.network.members().is_empty(), "round {round}");
    }
    board.network.run_until("the ring is right", Duration::from_secs(90), Network::is_ring_right);
    board.all_can_be_read();
}

#[test]
fn operations_of_a_node_that_leaves_fail_and_each_ends_once() {
    let mut board = Board::new(symmetric_tango(8), 8, 3);
    let (from, key) = (board.network.any_member(), board.network.random_id());
    board.network.loss_per_mille = 1000;
    let operations = [board.network.insert(from, key, "x"), board.network.get(from, key)];
    board.network.leave(from);
    board.network.run_for(OPERATION);
    for operation in operations {
        let end = &board.network.applications[&from].answered[&operation];
        assert!(matches!(end, Ok(_) | Err(DictionaryError::Route(_) | DictionaryError::NotReady)), "{end:?}");
    }
}
