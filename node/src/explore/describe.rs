//! Steps, for people.

use super::state::{Parcel, State};
use super::step::Step;
use crate::id::Id;
use crate::message::{Contact, Message};

/// A step, with what it does in this state.
pub(super) fn describe(state: &State, step: Step) -> String {
    let id = |node: u8| state.scenario.contact(node).id;
    let first = |from: u8, to: u8| {
        let parcel = state.links.get(&(from, to)).and_then(|parcels| parcels.front());
        parcel.map_or("nothing".to_owned(), |parcel| tell(parcel))
    };
    let what = match step {
        Step::Deliver { from, to } => format!("{} receives from {}: {}", id(to), id(from), first(from, to)),
        Step::Lose { from, to } => format!("lost from {} to {}: {}", id(from), id(to), first(from, to)),
        Step::Swap { from, to } => format!("overtaken from {} to {}: {}", id(from), id(to), first(from, to)),
        Step::Tick(node) => {
            let wait = state.nodes[usize::from(node)].as_ref().and_then(|node| node.wait());
            format!(
                "{}'s deadline comes, after {:?}: {}",
                id(node),
                wait.unwrap_or_default(),
                due(state, node)
            )
        }
        Step::Join(node) => format!("{} starts and joins", id(node)),
        Step::Leave(node) => format!("{} begins to leave", id(node)),
        Step::Crash(node) => format!("{} crashes", id(node)),
        Step::Ask => "the next question is asked".to_owned(),
    };
    format!("{:<12} {what}", step.to_string())
}

fn due(state: &State, node: u8) -> String {
    let running = state.nodes[usize::from(node)].as_ref();
    running.map_or_else(String::new, |running| running.peer.timers_due().join(", "))
}

fn tell(parcel: &Parcel) -> String {
    match parcel {
        Parcel::Message(message) => tell_message(message),
        Parcel::LinkUp => "the link stands".to_owned(),
        Parcel::Reached => "it can be reached".to_owned(),
        Parcel::LinkDown { orderly: true } => "the link is closed".to_owned(),
        Parcel::LinkDown { orderly: false } => "the link broke".to_owned(),
        Parcel::Unreachable { .. } => "nobody is there".to_owned(),
    }
}

fn tell_message(message: &Message) -> String {
    let ids = |contacts: &[Contact]| contacts.iter().map(|contact| contact.id).collect::<Vec<Id>>();
    let of =
        |contact: &Option<Contact>| contact.map_or("nobody".to_owned(), |contact| contact.id.to_string());
    match message {
        Message::Route(route) => {
            let body = format!("{:?}", route.body);
            let kind = body.split([' ', '{']).next().unwrap_or_default();
            format!("{kind} of {} for key {}, hop {}", route.source.id, route.key, route.hops)
        }
        Message::Acks(acks) => {
            format!("Acks {:?}", acks.iter().map(|ack| ack.verdict).collect::<Vec<_>>())
        }
        Message::Answer { result: Ok(found), .. } => format!("Answer: {}", found.responsible.id),
        Message::JoinOffer { successors, .. } => format!("JoinOffer, successors {:?}", ids(successors)),
        Message::HandOver { predecessor, successors, .. } => {
            format!("HandOver, predecessor {}, successors {:?}", of(predecessor), ids(successors))
        }
        Message::Leave { predecessor } => format!("Leave, predecessor {}", of(predecessor)),
        Message::Left { successors } => format!("Left, successors {:?}", ids(successors)),
        Message::Notify { predecessor } => format!("Notify, predecessor {}", of(predecessor)),
        Message::Introduce { successors } => format!("Introduce, successors {:?}", ids(successors)),
        Message::Neighbours { predecessor, successors, .. } => {
            format!("Neighbours, predecessor {}, successors {:?}", of(predecessor), ids(successors))
        }
        other => format!("{other:?}"),
    }
}
