//! The search: breadth first, each state once.

use std::collections::HashSet;
use std::sync::Arc;

use super::closing::{calm_down, close, run_round};
use super::describe::describe;
use super::scenario::{Bounds, Scenario};
use super::state::State;
use super::step::Step;
use crate::invariant::tables::ring_is_ideal;
use crate::invariant::{self, Moment, Violation};
use crate::peer::Peer;

/// A search ends with so many violations.
const FINDINGS_MAX: usize = 3;

/// Where a search ends early, one of so many states at its edge is let run on.
const EDGE_STRIDE: usize = 64;

/// How many rounds the members have to come to rest: until their periods are the longest.
const REST_ROUNDS: u32 = 40;

/// A violation, and the way to it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What does not hold.
    pub violation: Violation,
    /// The shortest way to it from the ring at rest, for [`replay`].
    pub steps: Vec<Step>,
}

/// What a search has come to.
#[derive(Clone, Debug, Default)]
pub struct Exploration {
    /// Distinct states that were visited.
    pub states: usize,
    /// Steps that were tried from them.
    pub transitions: usize,
    /// The longest path, in steps.
    pub depth: usize,
    /// Calm states, and some at the edge of a search that ended early, from each of which the network was let run on.
    pub calm: usize,
    /// Whether nothing within the scenario's bounds was left out.
    pub is_complete: bool,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// How a state was reached: from which, by which step.
type Origin = (u32, Step);

/// Explores a scenario on nodes that `prepare` has prepared.
pub fn explore(scenario: &Scenario, prepare: impl Fn(&mut Peer) + 'static) -> Exploration {
    let mut search = Search {
        rotations: scenario.rotations(),
        moment: moment(scenario),
        principals_min: scenario.principals_min(),
        seen: HashSet::new(),
        origins: Vec::new(),
        result: Exploration { is_complete: true, ..Exploration::default() },
    };
    match at_rest(&Arc::new(scenario.clone()), Arc::new(prepare)) {
        Ok(root) => search.run(scenario, root),
        Err(violation) => search.result.findings.push(Finding { violation, steps: Vec::new() }),
    }
    search.result.states = search.seen.len();
    search.result
}

/// The scenario's members as a ring at rest; all else may now happen.
fn at_rest(scenario: &Arc<Scenario>, prepare: Arc<dyn Fn(&mut Peer)>) -> Result<State, Violation> {
    let mut state = State::beginning(scenario, prepare);
    for member in 1..scenario.members.len() as u8 {
        state.join_through(member, 0);
        calm_down(&mut state)?;
        run_round(&mut state)?;
    }
    for _ in 0..REST_ROUNDS {
        run_round(&mut state)?;
    }
    let (joined, members) = (state.view().members().len(), scenario.members.len());
    let all_are_members =
        if joined == members { Ok(()) } else { Err(format!("{joined} of {members} nodes are members")) };
    all_are_members
        .and_then(|()| ring_is_ideal(&state.view()))
        .map_err(|detail| Violation { invariant: "the members come to rest as a ring", detail })?;
    state.left = scenario.bounds;
    Ok(state)
}

/// What is checked in every state: as long as failures are fewer than a successor list has entries, some entry lives.
fn moment(scenario: &Scenario) -> Moment {
    let Bounds { leaves, crashes, .. } = scenario.bounds;
    if leaves + crashes < scenario.successors.max(1) { Moment::FailuresSeen } else { Moment::Any }
}

struct Search {
    rotations: Vec<u64>,
    moment: Moment,
    principals_min: usize,
    seen: HashSet<u64>,
    origins: Vec<Origin>,
    result: Exploration,
}

impl Search {
    fn run(&mut self, scenario: &Scenario, root: State) {
        self.seen.insert(root.digest(&self.rotations));
        self.origins.push((0, Step::Ask));
        let mut layer = vec![(0u32, root)];
        while !layer.is_empty() && self.result.findings.is_empty() {
            let mut next = Vec::new();
            for (place, state) in layer {
                if self.seen.len() < scenario.states_max {
                    self.expand(place, &state, &mut next);
                } else {
                    self.result.is_complete = false;
                    next.push((place, state));
                }
                if self.result.findings.len() >= FINDINGS_MAX {
                    return;
                }
            }
            if !self.result.is_complete {
                return self.close_edge(next);
            }
            self.result.depth += usize::from(!next.is_empty());
            layer = next;
        }
    }

    /// Where the search ends early, some of the states at its edge are let run on.
    fn close_edge(&mut self, edge: Vec<(u32, State)>) {
        for (place, mut state) in edge.into_iter().step_by(EDGE_STRIDE) {
            self.result.calm += 1;
            if let Err(violation) = calm_down(&mut state).and_then(|()| close(&state)) {
                let steps = self.way_to(place);
                self.result.findings.push(Finding { violation, steps });
                if self.result.findings.len() >= FINDINGS_MAX {
                    return;
                }
            }
        }
    }

    fn expand(&mut self, place: u32, state: &State, next: &mut Vec<(u32, State)>) {
        for step in state.steps() {
            let mut reached = state.clone();
            reached.take(step);
            self.result.transitions += 1;
            if !self.seen.insert(reached.digest(&self.rotations)) {
                continue;
            }
            let here = self.origins.len() as u32;
            self.origins.push((place, step));
            match self.judge(&reached) {
                Ok(()) => next.push((here, reached)),
                Err(violation) => {
                    let steps = self.way_to(here);
                    self.result.findings.push(Finding { violation, steps });
                }
            }
        }
    }

    fn judge(&mut self, state: &State) -> Result<(), Violation> {
        invariant::check(&state.view().with_principals(self.principals_min), self.moment)?;
        if state.is_calm() {
            self.result.calm += 1;
            close(state)?;
        }
        Ok(())
    }

    fn way_to(&self, mut place: u32) -> Vec<Step> {
        let mut steps = Vec::new();
        while place != 0 {
            let (before, step) = self.origins[place as usize];
            steps.push(step);
            place = before;
        }
        steps.reverse();
        steps
    }
}

/// Takes a way again, lets the network run on from its end, and tells the way step by step, with the violation that it led to, if
/// there is one.
pub fn replay(
    scenario: &Scenario,
    prepare: impl Fn(&mut Peer) + 'static,
    steps: &[Step],
) -> (Vec<String>, Option<Violation>) {
    let mut state = match at_rest(&Arc::new(scenario.clone()), Arc::new(prepare)) {
        Ok(state) => state,
        Err(violation) => return (Vec::new(), Some(violation)),
    };
    let mut told = Vec::new();
    for step in steps {
        told.push(describe(&state, *step));
        state.take(*step);
        let checked =
            invariant::check(&state.view().with_principals(scenario.principals_min()), moment(scenario));
        let closed = checked.and_then(|()| if state.is_calm() { close(&state) } else { Ok(()) });
        if let Err(violation) = closed {
            return (told, Some(violation));
        }
    }
    (told, calm_down(&mut state).and_then(|()| close(&state)).err())
}
