//! What gets should have found: the dictionary against the plan's own puts.
//!
//! A put counts as written from when its node was told so: a get that begins after that must find it, or a later one
//! (a regular register; Lamport, *On interprocess communication*, 1986). Which of two puts is the later one, real time says, where one had ended
//! before the other began; where they overlapped, their versions do. A put that failed or was lost may have been written all the same, at any
//! time since it began: nobody can expect its value, but whoever finds it is right.

use std::collections::HashMap;

use p2ps::id::Id;
use p2ps::message::dictionary::Version;

use crate::plan::workload::OperationKind;
use crate::record::{Done, Judged, LostReason, Operation, OperationEnd, RunRecord};

/// A put. Times in microseconds since the run's start.
#[derive(Clone, Copy, Debug)]
struct Put {
    key: Id,
    issued_us: u64,
    /// When it was certainly written; [`u64::MAX`]: nobody knows whether it was.
    written_us: u64,
}

/// The puts of one key that were certainly written, in the order in which they were.
#[derive(Debug, Default)]
struct History {
    puts: Vec<(Put, Version)>,
    /// For each of them: when the last begun of those up to it began.
    begun_us: Vec<u64>,
}

/// Tells which gets found what they should. Where clocks may be off by `error_us` each, the order of two moments on different hosts is known only
/// up to twice that.
pub(super) fn judge(record: &RunRecord, error_us: u64, judged: &mut [Judged]) {
    let slack_us = error_us.saturating_mul(2);
    let mut puts: HashMap<u64, Put> = HashMap::new();
    let mut histories: HashMap<Id, History> = HashMap::new();
    for operation in record.operations.iter().filter(|operation| operation.kind == OperationKind::Put) {
        let Some((put, version)) = put(operation) else { continue };
        puts.insert(operation.number, put);
        if let Some(version) = version {
            histories.entry(put.key).or_default().puts.push((put, version));
        }
    }
    histories.values_mut().for_each(History::sort);
    let nothing = History::default();
    for (operation, judged) in record.operations.iter().zip(judged) {
        let OperationEnd::Done { issued_us, ended_us, result: Done::Read(value) } = operation.end else {
            continue;
        };
        let Some(key) = operation.key else { continue };
        let history = histories.get(&key).unwrap_or(&nothing);
        let known =
            history.puts.partition_point(|(put, _)| put.written_us.saturating_add(slack_us) < issued_us);
        *judged = match value {
            None if known > 0 => Judged::Missing,
            None => Judged::Succeeded,
            Some((number, version)) => {
                let found = number
                    .and_then(|number| puts.get(&number))
                    .filter(|put| put.key == key && put.issued_us <= ended_us.saturating_add(slack_us));
                match found {
                    None => Judged::Wrong,
                    Some(put) if history.is_later(known, put, version, slack_us) => Judged::Stale,
                    Some(_) => Judged::Succeeded,
                }
            }
        };
    }
}

/// A put, and its version where it was certainly written; `None`: it never began.
fn put(operation: &Operation) -> Option<(Put, Option<Version>)> {
    let key = operation.key?;
    let unsure = |issued_us| (Put { key, issued_us, written_us: u64::MAX }, None);
    match operation.end {
        OperationEnd::Done { issued_us, ended_us, result: Done::Written(version) } => {
            Some((Put { key, issued_us, written_us: ended_us }, Some(version)))
        }
        OperationEnd::Done { issued_us, .. } | OperationEnd::Failed { issued_us, .. } => {
            Some(unsure(issued_us))
        }
        OperationEnd::Lost(LostReason::NotIssued | LostReason::NotReached) => None,
        OperationEnd::Lost(_) => Some(unsure(operation.intended_us)),
    }
}

impl History {
    fn sort(&mut self) {
        self.puts.sort_by_key(|(put, _)| put.written_us);
        let mut begun_us = 0;
        self.begun_us = (self.puts.iter())
            .map(|(put, _)| {
                begun_us = put.issued_us.max(begun_us);
                begun_us
            })
            .collect();
    }

    /// Whether one of the first `known` puts came after `found`, whose value has this version.
    fn is_later(&self, known: usize, found: &Put, version: Version, slack_us: u64) -> bool {
        let Some(last) = known.checked_sub(1) else { return false };
        if found.written_us.saturating_add(slack_us) < self.begun_us[last] {
            return true;
        }
        // Those that had ended when it began came before it, whatever their versions.
        let overlapping =
            self.puts[..known].iter().rev().take_while(|(put, _)| put.written_us >= found.issued_us);
        overlapping.into_iter().any(|(_, other)| *other > version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Id = Id(9);

    fn version(counter: u64) -> Version {
        Version { counter, node: Id(1) }
    }

    fn operation(number: u64, kind: OperationKind, end: OperationEnd) -> Operation {
        Operation { number, kind, node: 0, key: Some(KEY), intended_us: 0, end }
    }

    /// A put of this number from one time to another, written as this version.
    fn written(number: u64, (issued_us, ended_us): (u64, u64), counter: u64) -> Operation {
        let result = Done::Written(version(counter));
        operation(number, OperationKind::Put, OperationEnd::Done { issued_us, ended_us, result })
    }

    fn failed(number: u64, issued_us: u64) -> Operation {
        let end = OperationEnd::Failed { issued_us, ended_us: issued_us + 5, reason: "timed_out" };
        operation(number, OperationKind::Put, end)
    }

    /// How a get from one time to another is judged that finds this.
    fn found(
        puts: &[Operation],
        (issued_us, ended_us): (u64, u64),
        value: Option<(u64, u64)>,
        error_us: u64,
    ) -> Judged {
        let value = value.map(|(number, counter)| (Some(number), version(counter)));
        let end = OperationEnd::Done { issued_us, ended_us, result: Done::Read(value) };
        let mut operations = puts.to_vec();
        operations.push(operation(99, OperationKind::Get, end));
        let mut judged = vec![Judged::Succeeded; operations.len()];
        judge(&RunRecord { operations, ..RunRecord::default() }, error_us, &mut judged);
        *judged.last().unwrap()
    }

    #[test]
    fn what_was_written_before_a_get_began_must_be_found() {
        let puts = [written(1, (10, 20), 1)];
        assert_eq!(found(&puts, (5, 15), None, 0), Judged::Succeeded, "it was not written then");
        assert_eq!(found(&puts, (15, 40), None, 0), Judged::Succeeded, "it was being written");
        assert_eq!(found(&puts, (21, 40), None, 0), Judged::Missing);
        assert_eq!(found(&puts, (21, 40), None, 1), Judged::Succeeded, "as far as clocks can tell");
        assert_eq!(found(&puts, (21, 40), Some((1, 1)), 0), Judged::Succeeded);
        assert_eq!(found(&puts, (11, 12), Some((1, 1)), 0), Judged::Succeeded, "a value may be seen early");
    }

    #[test]
    fn an_older_value_than_one_that_was_written_is_stale_whatever_its_version() {
        let puts = [written(1, (10, 20), 7), written(2, (30, 40), 1)];
        assert_eq!(found(&puts, (50, 60), Some((1, 7)), 0), Judged::Stale);
        assert_eq!(found(&puts, (50, 60), Some((2, 1)), 0), Judged::Succeeded);
        assert_eq!(
            found(&puts, (35, 60), Some((1, 7)), 0),
            Judged::Succeeded,
            "the second was being written"
        );
    }

    #[test]
    fn of_puts_that_overlapped_versions_say_which_is_later() {
        let puts = [written(1, (10, 30), 1), written(2, (15, 25), 2)];
        assert_eq!(found(&puts, (50, 60), Some((1, 1)), 0), Judged::Stale);
        assert_eq!(found(&puts, (50, 60), Some((2, 2)), 0), Judged::Succeeded);
    }

    #[test]
    fn a_put_that_failed_may_be_found_or_not() {
        let puts = [written(1, (10, 20), 1), failed(2, 30)];
        for (number, counter) in [(1, 1), (2, 2)] {
            assert_eq!(found(&puts, (50, 60), Some((number, counter)), 0), Judged::Succeeded);
        }
        let later = [puts.as_slice(), &[written(3, (70, 80), 3)]].concat();
        assert_eq!(
            found(&later, (90, 99), Some((2, 2)), 0),
            Judged::Stale,
            "its version says that it came before"
        );
        assert_eq!(found(&later, (90, 99), Some((2, 4)), 0), Judged::Succeeded);
    }

    #[test]
    fn a_value_of_nobody_of_another_key_or_of_the_future_is_wrong() {
        let puts = [written(1, (10, 20), 1), Operation { key: Some(Id(8)), ..written(2, (10, 20), 1) }];
        assert_eq!(found(&puts, (50, 60), Some((5, 1)), 0), Judged::Wrong);
        assert_eq!(found(&puts, (50, 60), Some((2, 1)), 0), Judged::Wrong);
        assert_eq!(found(&puts, (1, 5), Some((1, 1)), 0), Judged::Wrong);
    }
}
