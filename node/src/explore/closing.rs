//! Letting a calm network run on without faults: what it must come to from wherever it is.

use super::describe::describe;
use super::state::State;
use super::step::Step;
use crate::invariant::tables::{fingers_are_ideal, ring_is_ideal};
use crate::invariant::{self, Moment, View, Violation};
use crate::peer::Phase;

/// How many rounds a network has, from any calm state, to become ideal: in each, the next far deadline of every node comes.
/// A reliable message is tried for 20 s, in nine deadlines; a join in twelve attempts of two.
pub const CLOSING_ROUNDS_MAX: u32 = 60;

/// The most steps between two calm states.
const STEPS_MAX: u32 = 10_000;

/// How many of them are told where they do not end: what goes round in circles is seen in them.
const STEPS_TOLD: u32 = 16;

/// Lets a calm state run on until it is ideal, and checks what holds in quiet times.
pub(super) fn close(state: &State) -> Result<(), Violation> {
    let mut state = state.clone();
    for _ in 0..CLOSING_ROUNDS_MAX {
        if not_ideal(&state.view()).is_ok() {
            return invariant::check(&state.view(), Moment::Quiet);
        }
        run_round(&mut state)?;
    }
    let detail = not_ideal(&state.view()).err().unwrap_or_default();
    Err(Violation { invariant: "a calm network becomes ideal", detail })
}

/// The next far deadline of every node comes, one after the other; then everything near.
pub(super) fn run_round(state: &mut State) -> Result<(), Violation> {
    for node in 0..state.scenario.nodes() {
        state.let_tick(node);
        calm_down(state)?;
    }
    Ok(())
}

/// Delivers everything and lets near deadlines come, until nothing is left.
pub(super) fn calm_down(state: &mut State) -> Result<(), Violation> {
    let mut last = Vec::new();
    for taken in 0..STEPS_MAX {
        let link = state.links.keys().next().copied();
        let due = state.running().find(|(_, node)| node.is_due_soon()).map(|(number, _)| number);
        let step = match (link, due) {
            (Some((from, to)), _) => Step::Deliver { from, to },
            (None, Some(node)) => Step::Tick(node),
            (None, None) => return Ok(()),
        };
        if taken + STEPS_TOLD >= STEPS_MAX {
            last.push(describe(state, step));
        }
        state.take(step);
    }
    let detail = format!("{STEPS_MAX} steps without a far deadline; the last:\n{}", last.join("\n"));
    Err(Violation { invariant: "a network calms down", detail })
}

fn not_ideal(view: &View<'_>) -> Result<(), String> {
    if let Some(peer) = view.nodes().find(|peer| peer.phase() != Phase::Member) {
        return Err(format!("node {} is {:?}", peer.me().id, peer.phase()));
    }
    ring_is_ideal(view)?;
    fingers_are_ideal(view)?;
    let mut operations = view.journal.operations();
    match operations.find(|(_, operation)| operation.is_open() && view.running(operation.by).is_some()) {
        Some((number, operation)) => Err(format!("operation {number}, {:?}, has not ended", operation.asked)),
        None => Ok(()),
    }
}
