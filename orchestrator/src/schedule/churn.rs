//! Churn as a queue of what is due: who ends next, who comes next.
//!
//! A churn has in its hands the nodes that are up when it begins, and those that it brings in itself. A node that another step ends
//! or starts is out of its hands. When its time is over, nothing more is due: who is up then stays up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use p2ps::agent::protocol::{ActionKind, NodeIndex};

use super::chance::{Chance, Stream};
use super::membership::Drawing;
use super::micros;
use crate::plan::churn::{Churn, End};
use crate::plan::distribution::Distribution;
use crate::plan::trace::{OPEN_END, Trace};
use crate::plan::{OPERATIONS_MAX, Step};

/// The most starts and ends of nodes that all churns of a run make together. The plan is checked for the number to be expected; this
/// holds where chance goes far beyond.
const CHANGES_MAX: u64 = 2 * OPERATIONS_MAX;

/// A node that should leave while it is stopped is asked again after so long, in microseconds.
const AGAIN_US: u64 = 1_000_000;

/// A churn by its number in the run.
type ChurnIndex = usize;

/// What is due at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A stopped node goes on, in the life that began with this start.
    Resume(NodeIndex, u64),
    /// A session ends.
    Ends(ChurnIndex, NodeIndex),
    /// One begins.
    Begins(ChurnIndex, NodeIndex),
    /// One of a node that is not numbered yet begins.
    Enters(ChurnIndex, usize),
    /// Some node ends.
    SomeEnd(ChurnIndex),
    /// Some node comes.
    SomeBegin(ChurnIndex),
}

/// A churn that has begun.
struct Begun {
    source: Source,
    until_us: u64,
    chance: Chance,
}

/// Where it knows from who comes and goes.
enum Source {
    Sessions {
        sessions: Distribution,
        downtime: Option<Distribution>,
        end: End,
    },
    /// So many ends of each node, and so many beginnings in all, in a second.
    Rate {
        ends: f64,
        begins: f64,
        end: End,
    },
    /// `sessions[n]` are what is still to come of its node n.
    Trace {
        played: Vec<Vec<(u64, u64)>>,
        end: End,
    },
}

/// All churns of a run, and whatever else is due at times of its own.
#[derive(Default)]
pub(super) struct Churns {
    begun: Vec<Begun>,
    /// With the time first, and then a number that keeps what is due at one moment in the order in which it was put in.
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    put: u64,
    changes: u64,
    /// In which churn's hands each node is.
    hands: Vec<Option<ChurnIndex>>,
    /// Which node of its trace it plays.
    plays: Vec<usize>,
}

impl Churns {
    /// When something is due next.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_us, ..))| *at_us)
    }

    /// `node`, stopped in the life that began with its start number `start`, goes on at `at_us`.
    pub(super) fn resume(&mut self, at_us: u64, node: NodeIndex, start: u64) {
        self.put(at_us, Due::Resume(node, start));
    }

    /// Somebody else has started or ended `node`.
    pub(super) fn release(&mut self, node: NodeIndex) {
        if let Some(hands) = self.hands.get_mut(node as usize) {
            *hands = None;
        }
    }

    fn put(&mut self, at_us: u64, due: Due) {
        self.put += 1;
        self.due.push(Reverse((at_us, self.put, due)));
    }

    fn take(&mut self, node: NodeIndex, churn: ChurnIndex, plays: usize) {
        let size = self.hands.len().max(node as usize + 1);
        self.hands.resize(size, None);
        self.plays.resize(size, 0);
        (self.hands[node as usize], self.plays[node as usize]) = (Some(churn), plays);
    }

    fn is_in_hands(&self, node: NodeIndex, churn: ChurnIndex) -> bool {
        self.hands.get(node as usize).copied().flatten() == Some(churn)
    }

    fn begin(&mut self, source: Source, until_us: u64, chance: Chance) -> ChurnIndex {
        self.begun.push(Begun { source, until_us, chance });
        self.begun.len() - 1
    }

    /// The end of a length that begins at `now_us` and is drawn by `draw`.
    fn after(&mut self, churn: ChurnIndex, now_us: u64, draw: impl FnOnce(&mut Chance) -> f64) -> u64 {
        let seconds = draw(&mut self.begun[churn].chance);
        // The cast saturates; whatever is later than the churn's end never comes.
        now_us.saturating_add(((seconds * 1e6) as u64).max(1))
    }

    /// Puts in what is due, unless the churn is over before.
    fn put_within(&mut self, churn: ChurnIndex, at_us: u64, due: Due) {
        if at_us < self.begun[churn].until_us {
            self.put(at_us, due);
        }
    }
}

impl Drawing<'_, '_> {
    /// Begins a churn, and returns the nodes that it has in its hands.
    pub(super) fn begin_churn(
        &mut self,
        step: &Step,
        number: u64,
        churn: &Churn,
        until_us: u64,
    ) -> Vec<NodeIndex> {
        let now_us = micros(step.at);
        let chance = Chance::new(self.plan.seed, Stream::Step(number));
        let mut pool = self.nodes_up();
        pool.sort_unstable();
        let up = pool.len() as u32;
        match *churn {
            Churn::Sessions { sessions, downtime, end } => {
                let down = churn.down_for(up).round() as u64;
                let at = self.churns.begin(Source::Sessions { sessions, downtime, end }, until_us, chance);
                for node in &pool {
                    self.churns.take(*node, at, 0);
                    let ends_us = self.churns.after(at, now_us, |chance| chance.rest_seconds(&sessions));
                    self.churns.put_within(at, ends_us, Due::Ends(at, *node));
                }
                for _ in 0..down {
                    let Some(downtime) = downtime else { break };
                    let begins_us = self.churns.after(at, now_us, |chance| chance.rest_seconds(&downtime));
                    self.churns.put_within(at, begins_us, Due::Enters(at, 0));
                }
            }
            Churn::Rate { share, per, end } => {
                let ends = share / per.as_secs_f64();
                let source = Source::Rate { ends, begins: ends * f64::from(up), end };
                let at = self.churns.begin(source, until_us, chance);
                self.put_some_end(at, now_us);
                self.put_some_begin(at, now_us);
            }
        }
        pool
    }

    /// Begins a trace, and returns the nodes that play those of its nodes that are up at first.
    pub(super) fn begin_trace(&mut self, step: &Step, number: u64, trace: &Trace) -> Vec<NodeIndex> {
        let now_us = micros(step.at);
        let mut chance = Chance::new(self.plan.seed, Stream::Step(number));
        let mut pool = self.nodes_up();
        pool.sort_unstable();
        let share = trace.share(pool.len() as u32);
        let is_up = |sessions: &Vec<(u64, u64)>| sessions.first().is_some_and(|(from_us, _)| *from_us == 0);
        let (up, later): (Vec<_>, Vec<_>) = trace.nodes.iter().cloned().partition(is_up);
        let of = |count: usize| (share * count as f64).round() as usize;
        let (first, rest) = (of(up.len()), of(later.len()));
        let (up, later) = (chance.sample(up, first), chance.sample(later, rest));
        let mut pool = chance.sample(pool, up.len());
        let until_us = now_us.saturating_add(micros(trace.length())).saturating_add(1);
        let (played, up) = ([up, later].concat(), pool.len());
        let at = self.churns.begin(Source::Trace { played: Vec::new(), end: trace.end }, until_us, chance);
        for (number, sessions) in played.iter().enumerate() {
            let (from_us, ends_us) = sessions[0];
            match pool.get(number).filter(|_| number < up) {
                Some(node) => {
                    self.churns.take(*node, at, number);
                    self.churns.put_within(at, now_us.saturating_add(ends_us), Due::Ends(at, *node));
                }
                None => self.churns.put_within(at, now_us.saturating_add(from_us), Due::Enters(at, number)),
            }
        }
        // From now on in the run's time, the next event last.
        let in_run = |at_us: u64| if at_us == OPEN_END { OPEN_END } else { now_us.saturating_add(at_us) };
        let reversed = played.into_iter().map(|sessions| {
            sessions
                .into_iter()
                .rev()
                .map(|(from_us, until_us)| (in_run(from_us), in_run(until_us)))
                .collect()
        });
        let mut reversed: Vec<Vec<(u64, u64)>> = reversed.collect();
        // The present sessions of those that are up are under way.
        for sessions in reversed.iter_mut().take(up) {
            sessions.pop();
        }
        self.churns.begun[at].source = Source::Trace { played: reversed, end: trace.end };
        pool.sort_unstable();
        pool
    }

    /// Does what is due next.
    pub(super) fn do_next_due(&mut self) {
        let Some(Reverse((now_us, _, due))) = self.churns.due.pop() else { return };
        match due {
            Due::Resume(node, start) => self.resume(now_us, node, start),
            _ if self.churns.changes >= CHANGES_MAX => {}
            Due::Ends(at, node) if self.churns.is_in_hands(node, at) => self.session_ends(now_us, at, node),
            Due::Begins(at, node) if self.churns.is_in_hands(node, at) => {
                self.session_begins(now_us, at, node)
            }
            Due::Ends(..) | Due::Begins(..) => {}
            Due::Enters(at, plays) => {
                if let Some(node) = self.new_node() {
                    self.churns.take(node, at, plays);
                    self.session_begins(now_us, at, node);
                }
            }
            Due::SomeEnd(at) => {
                let drawn = self.churns.begun[at].chance.next_u64();
                if let (Source::Rate { end, .. }, Some(node)) =
                    (&self.churns.begun[at].source, self.some_up(drawn))
                {
                    let end = *end;
                    self.churn_ends(now_us, node, end);
                }
                self.put_some_end(at, now_us);
            }
            Due::SomeBegin(at) => {
                let drawn = self.churns.begun[at].chance.next_u64();
                if let Some(node) = self.some_down(drawn).or_else(|| self.new_node()) {
                    self.churns.changes += 1;
                    self.start(now_us, node);
                }
                self.put_some_begin(at, now_us);
            }
        }
    }

    fn session_ends(&mut self, now_us: u64, at: ChurnIndex, node: NodeIndex) {
        let (end, downtime) = match &self.churns.begun[at].source {
            Source::Sessions { end, downtime, .. } => (*end, *downtime),
            Source::Trace { end, .. } | Source::Rate { end, .. } => (*end, None),
        };
        if !self.churn_ends(now_us, node, end) {
            // A network has one node at least, and a node that is stopped cannot leave.
            self.churns.put_within(at, now_us.saturating_add(AGAIN_US), Due::Ends(at, node));
            return;
        }
        match &self.churns.begun[at].source {
            Source::Trace { played, .. } => {
                let next = played[self.churns.plays[node as usize]].last().copied();
                if let Some((from_us, _)) = next {
                    self.churns.put_within(at, from_us.max(now_us + 1), Due::Begins(at, node));
                }
            }
            Source::Sessions { .. } | Source::Rate { .. } => match downtime {
                Some(downtime) => {
                    let begins_us = self.churns.after(at, now_us, |chance| chance.length_seconds(&downtime));
                    self.churns.put_within(at, begins_us, Due::Begins(at, node));
                }
                // In its place comes a new node; where the run has no room for more, the same one again.
                None => {
                    let next = self.new_node().unwrap_or(node);
                    self.churns.take(next, at, 0);
                    self.session_begins(now_us, at, next);
                }
            },
        }
    }

    fn session_begins(&mut self, now_us: u64, at: ChurnIndex, node: NodeIndex) {
        self.churns.changes += 1;
        self.start(now_us, node);
        let ends_us = match &mut self.churns.begun[at].source {
            Source::Trace { played, .. } => {
                let session = played[self.churns.plays[node as usize]].pop();
                session.map_or(OPEN_END, |(_, until_us)| until_us.max(now_us + 1))
            }
            Source::Sessions { sessions, .. } => {
                let sessions = *sessions;
                self.churns.after(at, now_us, |chance| chance.length_seconds(&sessions))
            }
            Source::Rate { .. } => OPEN_END,
        };
        self.churns.put_within(at, ends_us, Due::Ends(at, node));
    }

    /// Ends a node, if it can be.
    fn churn_ends(&mut self, now_us: u64, node: NodeIndex, end: End) -> bool {
        let kind = match end {
            End::Kill => ActionKind::Kill,
            End::Leave => ActionKind::Leave,
        };
        if self.up_count() < 2 || (end == End::Leave && self.is_paused(node)) {
            return false;
        }
        self.churns.changes += 1;
        self.stop(now_us, &[node], &kind);
        true
    }

    fn put_some_end(&mut self, at: ChurnIndex, now_us: u64) {
        let up = self.up_count().max(1) as f64;
        if let Source::Rate { ends, .. } = self.churns.begun[at].source {
            // Whoever comes meanwhile changes the rate by little, and for the time of one gap only.
            let at_us = self.churns.after(at, now_us, |chance| chance.exponential(ends * up));
            self.churns.put_within(at, at_us, Due::SomeEnd(at));
        }
    }

    fn put_some_begin(&mut self, at: ChurnIndex, now_us: u64) {
        if let Source::Rate { begins, .. } = self.churns.begun[at].source {
            let at_us = self.churns.after(at, now_us, |chance| chance.exponential(begins));
            self.churns.put_within(at, at_us, Due::SomeBegin(at));
        }
    }
}
