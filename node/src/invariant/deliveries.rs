//! What applications are told of messages is true: none is delivered twice, reliable ones are delivered in order, and none is
//! both delivered and reported failed; a broadcast on a network that loses no node it stands on reaches all.
//!
//! Source: the promises of the services (overlay paper; P2PS 1.0 manual, `rsend`, `broadcast`); the end-to-end argument for
//! where they must be kept (Saltzer, Reed & Clark 1984).
//!
//! That a failed message was not delivered cannot hold for one whose receipts have no way back (two generals): a message is
//! *excused* where its source and destination were kept apart while it was under way, where the life of the node that it was
//! delivered to has ended, or where its source left before it heard.

use super::journal::{Asked, Operation};
use super::{Invariant, Moment, View};
use crate::message::RouteError;
use crate::message::dictionary::DictionaryError;

pub(super) const DELIVERED_ONCE: Invariant =
    Invariant { name: "no message is delivered twice", holds: Moment::Any, check: delivered_once };

pub(super) const DELIVERED_IN_ORDER: Invariant =
    Invariant { name: "reliable messages are delivered in order", holds: Moment::Any, check: in_order };

pub(super) const RESULT_IS_TRUE: Invariant = Invariant {
    name: "no message is both delivered and reported failed, or neither",
    holds: Moment::Any,
    check: result_is_true,
};

pub(super) const BROADCASTS_COMPLETE: Invariant =
    Invariant { name: "a broadcast reaches all who stay", holds: Moment::Quiet, check: broadcasts_complete };

fn delivered_once(view: &View<'_>) -> Result<(), String> {
    for (number, operation) in view.journal.operations() {
        let mut places = operation.deliveries.clone();
        places.sort_unstable();
        if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("message {number} was delivered twice at {}", pair[0].id));
        }
    }
    Ok(())
}

fn in_order(view: &View<'_>) -> Result<(), String> {
    match view.journal.overtaken() {
        Some((late, early)) => Err(format!("message {late} was delivered after {early}, of the same pair")),
        None => Ok(()),
    }
}

fn result_is_true(view: &View<'_>) -> Result<(), String> {
    for (number, operation) in view.journal.operations() {
        let Asked::Reliable { destination } = operation.asked else { continue };
        for end in &operation.ends {
            let delivered = operation.deliveries.first();
            match (end, delivered) {
                (Ok(_), None) => {
                    return Err(format!("message {number} to {destination} is said to be delivered"));
                }
                (Err(reason), Some(_)) if !is_excused(view, operation, *reason) => {
                    return Err(format!("message {number} was delivered and is reported failed: {reason}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_excused(view: &View<'_>, operation: &Operation, reason: DictionaryError) -> bool {
    let gone = |place| view.running(place).is_none();
    operation.excused
        || reason == RouteError::NotMember.into()
        || operation.deliveries.iter().copied().any(gone)
}

fn broadcasts_complete(view: &View<'_>) -> Result<(), String> {
    for (number, operation) in view.journal.operations().filter(|(_, operation)| !operation.excused) {
        let Asked::Broadcast { audience } = &operation.asked else { continue };
        let mut stayed = audience.iter().filter(|contact| view.running(**contact).is_some());
        if view.running(operation.by).is_none() {
            continue;
        }
        if let Some(missing) = stayed.find(|contact| !operation.deliveries.contains(contact)) {
            return Err(format!("broadcast {number} of {} did not reach {}", operation.by.id, missing.id));
        }
    }
    Ok(())
}
