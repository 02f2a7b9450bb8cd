//! Which answers were right.
//!
//! A look-up of a key that names a node c is right if at some moment between its issue and its end c was possibly a member
//! and no other node in `[key, c)`, going clockwise, certainly was one: then c may have been the key's responsible. All else
//! is wrong.
//!
//! One sweep over time. At its issue an answer is held against the members of that moment, found in an ordered set: most
//! answers are right then. One that is not *waits* for the one change without which it stays so: that c becomes a possible
//! member, or that the first node in its way ceases to be a certain one. So its cost is the logarithm of the number of nodes, and
//! as much again for each change that it waits for, whatever else changes meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use p2ps::id::{Id, Ring};

use super::membership::Membership;

/// What a look-up was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) key: Id,
    /// The node that was named.
    pub(super) responsible: Id,
    /// When the look-up was issued, in microseconds since the run's start.
    pub(super) issued_us: u64,
    /// When the answer came.
    pub(super) ended_us: u64,
}

/// The numbers of those answers that were right, in no particular order.
pub(super) fn right_answers(ring: Ring, membership: &Membership, answers: &[(usize, Answer)]) -> Vec<usize> {
    let mut in_order: Vec<&(usize, Answer)> = answers.iter().collect();
    in_order.sort_by_key(|(_, answer)| answer.issued_us);
    let mut changes = changes(membership).into_iter().peekable();
    let mut members = Members { ring, certain: BTreeSet::new(), counts: HashMap::new() };
    let mut waiting: HashMap<Wait, Vec<&(usize, Answer)>> = HashMap::new();
    let mut right = Vec::with_capacity(answers.len());

    let mut next = in_order.into_iter().peekable();
    loop {
        let now = match (changes.peek(), next.peek()) {
            (Some((at_us, _)), Some((_, answer))) => (*at_us).min(answer.issued_us),
            (Some((at_us, _)), None) if !waiting.is_empty() => *at_us,
            (None, Some((_, answer))) => answer.issued_us,
            (_, None) => break,
        };
        // All changes of a moment come before anything is held against it.
        let mut to_judge = Vec::new();
        if let Some((_, batch)) = changes.next_if(|(at_us, _)| *at_us == now) {
            for change in &batch {
                members.apply(*change);
            }
            for change in batch {
                to_judge.extend(change.ends().and_then(|wait| waiting.remove(&wait)).unwrap_or_default());
            }
        }
        while let Some(answer) = next.next_if(|(_, answer)| answer.issued_us == now) {
            to_judge.push(answer);
        }
        for entry in to_judge {
            let (number, answer) = entry;
            if answer.ended_us.max(answer.issued_us) < now {
                continue;
            }
            match members.what_is_wrong(answer) {
                None => right.push(*number),
                Some(wait) => waiting.entry(wait).or_default().push(entry),
            }
        }
    }
    right
}

/// A change of one id's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    PossibleBegins(Id),
    PossibleEnds(Id),
    CertainBegins(Id),
    CertainEnds(Id),
}

/// What an answer that is not right yet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wait {
    /// That this node becomes a possible member.
    Possible(Id),
    /// That this node ceases to be a certain one.
    NotCertain(Id),
}

impl Change {
    /// The wait that it ends.
    fn ends(self) -> Option<Wait> {
        match self {
            Change::PossibleBegins(id) => Some(Wait::Possible(id)),
            Change::CertainEnds(id) => Some(Wait::NotCertain(id)),
            Change::PossibleEnds(_) | Change::CertainBegins(_) => None,
        }
    }
}

/// All changes, by the first microsecond in which they are in force.
fn changes(membership: &Membership) -> BTreeMap<u64, Vec<Change>> {
    let mut changes: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
    let mut add = |at_us, change| changes.entry(at_us).or_default().push(change);
    for span in &membership.spans {
        let (from_us, until_us) = span.possible;
        add(from_us, Change::PossibleBegins(span.id));
        if let Some(after_us) = until_us.checked_add(1) {
            add(after_us, Change::PossibleEnds(span.id));
        }
        let Some((from_us, until_us)) = span.certain else { continue };
        add(from_us, Change::CertainBegins(span.id));
        if let Some(after_us) = until_us.checked_add(1) {
            add(after_us, Change::CertainEnds(span.id));
        }
    }
    changes
}

/// The members at one moment. A node's lives may overlap where clocks are off, so each is counted.
struct Members {
    ring: Ring,
    certain: BTreeSet<Id>,
    /// How many lives of an id are possibly, and certainly, members.
    counts: HashMap<Id, (u32, u32)>,
}

impl Members {
    fn apply(&mut self, change: Change) {
        let (Change::PossibleBegins(id)
        | Change::PossibleEnds(id)
        | Change::CertainBegins(id)
        | Change::CertainEnds(id)) = change;
        let (possible, certain) = self.counts.entry(id).or_default();
        match change {
            Change::PossibleBegins(_) => *possible += 1,
            Change::PossibleEnds(_) => *possible = possible.saturating_sub(1),
            Change::CertainBegins(_) => *certain += 1,
            Change::CertainEnds(_) => *certain = certain.saturating_sub(1),
        }
        if *certain > 0 {
            self.certain.insert(id)
        } else {
            self.certain.remove(&id)
        };
    }

    /// Why an answer is not right now, if it is not.
    fn what_is_wrong(&self, answer: &Answer) -> Option<Wait> {
        let (key, responsible) = (answer.key, answer.responsible);
        if self.counts.get(&responsible).is_none_or(|(possible, _)| *possible == 0) {
            return Some(Wait::Possible(responsible));
        }
        let first = self.certain.range(key..).next().or_else(|| self.certain.first())?;
        let in_the_way = self.ring.distance(key, *first) < self.ring.distance(key, responsible);
        in_the_way.then_some(Wait::NotCertain(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::membership::Span;
    use proptest::prelude::*;

    const FOREVER: u64 = u64::MAX;

    fn member(id: u64, possible: (u64, u64), certain: (u64, u64)) -> Span {
        Span { id: Id(id), possible, certain: Some(certain) }
    }

    fn is_right(spans: &[Span], key: u64, responsible: u64, issued_us: u64, ended_us: u64) -> bool {
        let membership = Membership { spans: spans.to_vec(), ids: Vec::new() };
        let answer = Answer { key: Id(key), responsible: Id(responsible), issued_us, ended_us };
        let right = right_answers(Ring::new(100).unwrap(), &membership, &[(0, answer)]);
        assert_eq!(
            !right.is_empty(),
            naive(Ring::new(100).unwrap(), spans, &answer),
            "the two checkers differ"
        );
        !right.is_empty()
    }

    #[test]
    fn another_node_than_the_responsible_is_wrong() {
        let spans = [10, 40, 70].map(|id| member(id, (0, FOREVER), (1, FOREVER - 1)));
        assert!(is_right(&spans, 20, 40, 50, 60));
        assert!(is_right(&spans, 40, 40, 50, 60), "a node answers for its own id");
        assert!(is_right(&spans, 71, 10, 50, 60), "the ring wraps");
        assert!(!is_right(&spans, 20, 70, 50, 60), "one too far");
        assert!(!is_right(&spans, 41, 40, 50, 60), "behind the key");
        assert!(!is_right(&spans, 20, 30, 50, 60), "nobody has this id");
    }

    #[test]
    fn an_answer_that_was_right_at_any_moment_of_its_operation_is_right() {
        // 40 is killed at 100.
        let spans = [
            member(10, (0, FOREVER), (1, FOREVER - 1)),
            member(40, (0, 100), (1, 99)),
            member(70, (0, FOREVER), (1, FOREVER - 1)),
        ];
        assert!(is_right(&spans, 20, 40, 95, 120), "it lived when it was asked");
        assert!(is_right(&spans, 20, 70, 95, 120), "it was dead when the answer came");
        assert!(!is_right(&spans, 20, 70, 90, 98), "its heir cannot answer before");
        assert!(!is_right(&spans, 20, 40, 101, 120), "and it not after");
    }

    #[test]
    fn while_a_join_or_leave_is_under_way_both_answers_are_right() {
        // 40 starts at 100, joins at 200, is told to leave at 300 and has left at 400.
        let spans = [
            member(10, (0, FOREVER), (1, FOREVER - 1)),
            member(40, (100, 400), (201, 299)),
            member(70, (0, FOREVER), (1, FOREVER - 1)),
        ];
        for (at, by_it, by_its_heir) in
            [(50, false, true), (150, true, true), (250, true, false), (350, true, true), (450, false, true)]
        {
            assert_eq!(is_right(&spans, 20, 40, at, at + 10), by_it, "{at}");
            assert_eq!(is_right(&spans, 20, 70, at, at + 10), by_its_heir, "{at}");
        }
    }

    #[test]
    fn a_node_that_comes_back_is_right_again() {
        let spans = [
            member(10, (0, FOREVER), (1, FOREVER - 1)),
            member(40, (0, 100), (1, 99)),
            member(40, (200, FOREVER), (221, FOREVER - 1)),
        ];
        assert!(!is_right(&spans, 20, 40, 110, 190));
        assert!(is_right(&spans, 20, 40, 110, 200));
        assert!(!is_right(&spans, 20, 10, 300, 400));
    }

    #[test]
    fn a_million_answers_under_churn_are_judged_at_once() {
        let ring = Ring::DEFAULT;
        let id = |n: u64| Id(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32);
        let spans: Vec<Span> = (0..4000)
            .map(|n| {
                let from_us = n % 1000 * 1_000_000;
                let possible = (from_us, from_us + 600_000_000);
                Span { id: id(n), possible, certain: Some((from_us + 1000, from_us + 500_000_000)) }
            })
            .collect();
        let answers: Vec<(usize, Answer)> = (0..1_000_000)
            .map(|n| {
                let issued_us = n as u64 * 1000;
                let (key, responsible) = (id(n as u64 + 10_000), id(n as u64 * 7 % 4000));
                (n, Answer { key, responsible, issued_us, ended_us: issued_us + 2_000_000 })
            })
            .collect();
        let membership = Membership { spans: spans.clone(), ids: Vec::new() };
        let right: BTreeSet<usize> = right_answers(ring, &membership, &answers).into_iter().collect();
        assert!(
            !right.is_empty() && right.len() < answers.len() / 10,
            "almost all name some node: {}",
            right.len()
        );
    }

    /// The definition, moment by moment.
    fn naive(ring: Ring, spans: &[Span], answer: &Answer) -> bool {
        let (key, responsible) = (answer.key, answer.responsible);
        (answer.issued_us..=answer.ended_us).any(|now| {
            let is_in = |(from, until): (u64, u64)| from <= now && now <= until;
            let possible = spans.iter().any(|span| span.id == responsible && is_in(span.possible));
            possible
                && !spans.iter().any(|span| {
                    span.certain.is_some_and(is_in)
                        && ring.distance(key, span.id) < ring.distance(key, responsible)
                })
        })
    }

    prop_compose! {
        fn span()(id in 0..16u64, from in 0..60u64, lengths in [0..20u64, 0..20, 0..20], sure in any::<bool>()) -> Span {
            let [joining, member, leaving] = lengths;
            let certain = (from + joining, from + joining + member);
            Span { id: Id(id), possible: (from, certain.1 + leaving), certain: sure.then_some(certain) }
        }
    }

    prop_compose! {
        fn answer()(key in 0..16u64, responsible in 0..16u64, issued_us in 0..80u64, length in 0..15u64) -> Answer {
            Answer { key: Id(key), responsible: Id(responsible), issued_us, ended_us: issued_us + length }
        }
    }

    proptest! {
        #[test]
        fn the_sweep_agrees_with_the_definition(
            spans in prop::collection::vec(span(), 0..24),
            answers in prop::collection::vec(answer(), 1..60),
        ) {
            let ring = Ring::new(16).unwrap();
            let membership = Membership { spans: spans.clone(), ids: Vec::new() };
            let numbered: Vec<(usize, Answer)> = answers.iter().copied().enumerate().collect();
            let right: BTreeSet<usize> = right_answers(ring, &membership, &numbered).into_iter().collect();
            for (number, answer) in &numbered {
                prop_assert_eq!(right.contains(number), naive(ring, &spans, answer), "{:?}", answer);
            }
        }
    }
}
