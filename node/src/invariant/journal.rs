//! What the applications of a network asked for, and what they saw of it. Whoever runs the network writes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::digest::Digest;
use crate::id::Id;
use crate::message::{Contact, RouteError};
use crate::peer::{Event, Output, Peer, Phase};

/// What an application asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A look-up.
    Lookup {
        /// Of this key.
        key: Id,
    },
    /// A reliable message.
    Reliable {
        /// To the node with this id.
        destination: Id,
    },
    /// A best-effort message.
    Send {
        /// To the node with this id.
        destination: Id,
    },
    /// A broadcast.
    Broadcast {
        /// The other members at that moment.
        audience: BTreeSet<Contact>,
    },
}

impl Asked {
    /// Whether the node says at the end what became of it.
    pub fn has_result(&self) -> bool {
        matches!(self, Asked::Lookup { .. } | Asked::Reliable { .. })
    }
}

/// One thing that was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// The node that was asked.
    pub by: Contact,
    /// For what.
    pub asked: Asked,
    /// How it ended, each time: for a look-up with the node that it names.
    pub ends: Vec<Result<Option<Id>, RouteError>>,
    /// Where it was delivered, each time.
    pub deliveries: Vec<Contact>,
    /// A look-up's rightful answers, so far.
    pub rightful: BTreeSet<Id>,
    /// Nodes that it concerns were kept apart meanwhile: much is forgiven.
    pub excused: bool,
}

impl Operation {
    /// Whether its end is still to come.
    pub fn is_open(&self) -> bool {
        self.asked.has_result() && self.ends.is_empty()
    }
}

/// All operations of a run, by number. A message's payload is its number ([`Journal::payload`]): so it is known again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal {
    operations: BTreeMap<u64, Operation>,
    open_lookups: BTreeSet<u64>,
    /// The last reliable message delivered, by source and place.
    last_delivered: BTreeMap<(Contact, Contact), u64>,
    overtaken: Option<(u64, u64)>,
    relieved: BTreeSet<Contact>,
}

impl Journal {
    /// Notes that a node is asked for something, and gives the operation's number.
    pub fn ask(&mut self, by: Contact, asked: Asked) -> u64 {
        let number = self.operations.last_key_value().map_or(1, |(last, _)| last + 1);
        if matches!(asked, Asked::Lookup { .. }) {
            self.open_lookups.insert(number);
        }
        let operation = Operation {
            by,
            asked,
            ends: Vec::new(),
            deliveries: Vec::new(),
            rightful: BTreeSet::new(),
            excused: false,
        };
        self.operations.insert(number, operation);
        number
    }

    /// The payload of a message.
    pub fn payload(number: u64) -> Vec<u8> {
        number.to_string().into_bytes()
    }

    /// Notes what a node said to its application.
    pub fn hear(&mut self, at: Contact, output: &Output) {
        match output {
            Output::Completed { operation, result } => {
                self.open_lookups.remove(operation);
                self.end(*operation, result.map(|found| Some(found.responsible.id)));
            }
            Output::Sent { operation, result } => self.end(*operation, result.map(|()| None)),
            Output::Deliver(delivery) => {
                let number = std::str::from_utf8(&delivery.payload).ok().and_then(|text| text.parse().ok());
                if let Some(number) = number {
                    self.deliver(number, at);
                }
            }
            Output::Event(Event::Left { handed_over: true }) => {
                self.relieved.insert(at);
            }
            _ => {}
        }
    }

    fn end(&mut self, number: u64, end: Result<Option<Id>, RouteError>) {
        if let Some(operation) = self.operations.get_mut(&number) {
            operation.ends.push(end);
        }
    }

    fn deliver(&mut self, number: u64, at: Contact) {
        let Some(operation) = self.operations.get_mut(&number) else { return };
        operation.deliveries.push(at);
        if matches!(operation.asked, Asked::Reliable { .. }) {
            let last = self.last_delivered.entry((operation.by, at)).or_default();
            if *last > number {
                self.overtaken = Some((number, *last));
            }
            *last = number.max(*last);
        }
    }

    /// Notes who is rightful now, for the look-ups that are under way: the first staying member after the key, and the leaving
    /// ones before it. To be called after each change of the members.
    pub fn observe<'a>(&mut self, running: impl Iterator<Item = &'a Peer>) {
        if self.open_lookups.is_empty() {
            return;
        }
        let members: BTreeMap<Id, Phase> = running
            .filter(|peer| matches!(peer.phase(), Phase::Member | Phase::Leaving))
            .map(|peer| (peer.me().id, peer.phase()))
            .collect();
        for number in &self.open_lookups {
            let Some(operation) = self.operations.get_mut(number) else { continue };
            let Asked::Lookup { key } = operation.asked else { continue };
            for (id, phase) in members.range(key..).chain(members.range(..key)) {
                operation.rightful.insert(*id);
                if *phase == Phase::Member {
                    break;
                }
            }
        }
    }

    /// Adds what the explorer compares. Only who has left is turned round the ring: scenarios with operations are not.
    pub(crate) fn digest(&self, digest: &mut Digest) {
        let Journal { operations, open_lookups, last_delivered, overtaken, relieved } = self;
        digest.plain(&(operations, open_lookups, last_delivered, overtaken));
        digest.unordered(relieved, |digest, contact| digest.contact(*contact));
    }

    /// Forgives all that is under way: nodes are kept apart.
    pub fn excuse_all(&mut self) {
        for operation in self.operations.values_mut().filter(|operation| operation.ends.is_empty()) {
            operation.excused = true;
        }
    }

    /// Forgives the look-ups that are under way: nodes may disagree on who answers.
    pub fn excuse_lookups(&mut self) {
        for number in &self.open_lookups {
            if let Some(operation) = self.operations.get_mut(number) {
                operation.excused = true;
            }
        }
    }

    /// Forgets the operations but the last one, after which numbers go on: a long run checks those of a while at a time.
    pub fn forget(&mut self) {
        if let Some(last) = self.operations.last_key_value().map(|(last, _)| *last) {
            self.operations = self.operations.split_off(&last);
            self.open_lookups = self.open_lookups.split_off(&last);
        }
    }

    /// All operations, by number.
    pub fn operations(&self) -> impl Iterator<Item = (u64, &Operation)> + '_ {
        self.operations.iter().map(|(number, operation)| (*number, operation))
    }

    /// The nodes that have left, and said that they had handed over.
    pub fn relieved(&self) -> &BTreeSet<Contact> {
        &self.relieved
    }

    /// A reliable message that came after a later one of the same pair, and that one.
    pub fn overtaken(&self) -> Option<(u64, u64)> {
        self.overtaken
    }
}
