//! What the applications of a network asked for, and what they saw of it. Whoever runs the network writes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::digest::Digest;
use crate::id::Id;
use crate::message::dictionary::{Answer, DictionaryError, Version};
use crate::message::{Contact, Errand, Message};
use crate::peer::{Command, Event, Output, Peer, Phase};
use crate::services::dictionary::conservation::Acknowledged;

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
    /// A value for a key of the dictionary, which it never had.
    Write {
        /// The key.
        key: Id,
    },
    /// The value of a key of the dictionary.
    Read {
        /// The key.
        key: Id,
    },
}

impl Asked {
    /// What is asked of the node, under the number that [`Journal::ask`] gave.
    pub fn command(&self, operation: u64) -> Command {
        let payload = Journal::payload(operation).into();
        match *self {
            Asked::Lookup { key } => Command::Lookup { operation, key },
            Asked::Reliable { destination } => Command::SendReliably { operation, destination, payload },
            Asked::Send { destination } => Command::Send { destination, exact: true, payload },
            Asked::Broadcast { .. } => Command::Broadcast { payload },
            Asked::Write { key } => Command::Insert { operation, key, value: payload },
            Asked::Read { key } => Command::Get { operation, key },
        }
    }

    /// Whether the node says at the end what became of it.
    pub fn has_result(&self) -> bool {
        !matches!(self, Asked::Send { .. } | Asked::Broadcast { .. })
    }
}

/// One thing that was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// The node that was asked.
    pub by: Contact,
    /// For what.
    pub asked: Asked,
    /// How it ended, each time: for a look-up with the node that it names. Where the dictionary was not asked, a failure is
    /// always [`DictionaryError::Route`].
    pub ends: Vec<Result<Option<Id>, DictionaryError>>,
    /// Where it was delivered, each time.
    pub deliveries: Vec<Contact>,
    /// A look-up's rightful answers, so far.
    pub rightful: BTreeSet<Id>,
    /// The last write of a read's key that had been acknowledged when it was asked for.
    pub known: Option<Version>,
    /// Nodes that it concerns were kept apart meanwhile: much is forgiven.
    pub excused: bool,
}

impl Operation {
    /// Whether its end is still to come.
    pub fn is_open(&self) -> bool {
        self.asked.has_result() && self.ends.is_empty()
    }
}

/// The duplicates of one errand that were sent ([`core::duplicates`](crate::core::duplicates)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Duplicated {
    /// How many.
    pub times: u64,
    /// By whom.
    pub by: BTreeSet<Contact>,
}

/// A read that did not see what had been acknowledged before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outdated {
    /// The read's number.
    pub operation: u64,
    /// The write that it saw, if any.
    pub read: Option<Version>,
    /// The one that it should have seen, or a later one.
    pub known: Version,
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
    /// The last acknowledged write of each key.
    acknowledged: BTreeMap<Id, Acknowledged>,
    outdated: Option<Outdated>,
    duplicated: BTreeMap<Errand, Duplicated>,
    most_duplicated: Option<Errand>,
}

impl Journal {
    /// Notes that a node is asked for something, and gives the operation's number.
    pub fn ask(&mut self, by: Contact, asked: Asked) -> u64 {
        let number = self.operations.last_key_value().map_or(1, |(last, _)| last + 1);
        if matches!(asked, Asked::Lookup { .. }) {
            self.open_lookups.insert(number);
        }
        let known = match asked {
            Asked::Read { key } => self.acknowledged.get(&key).map(|(version, _)| *version),
            _ => None,
        };
        let operation = Operation {
            by,
            asked,
            ends: Vec::new(),
            deliveries: Vec::new(),
            rightful: BTreeSet::new(),
            known,
            excused: false,
        };
        self.operations.insert(number, operation);
        number
    }

    /// The payload of a message, or the value of a write.
    pub fn payload(number: u64) -> Vec<u8> {
        number.to_string().into_bytes()
    }

    /// Notes what a node said to its application, and what it sends to others.
    pub fn hear(&mut self, at: Contact, output: &Output) {
        match output {
            Output::Completed { operation, result } => {
                self.open_lookups.remove(operation);
                let named = result.map(|found| Some(found.responsible.id));
                self.end(*operation, named.map_err(DictionaryError::Route));
            }
            Output::Sent { operation, result } => {
                self.end(*operation, result.map(|()| None).map_err(DictionaryError::Route));
            }
            Output::Answered { operation, result } => self.answer(*operation, result),
            Output::Deliver(delivery) => {
                let number = std::str::from_utf8(&delivery.payload).ok().and_then(|text| text.parse().ok());
                if let Some(number) = number {
                    self.deliver(number, at);
                }
            }
            Output::Event(Event::Left { handed_over: true }) => {
                self.relieved.insert(at);
            }
            Output::Send { message: Message::Route(route), .. } if route.turns > 0 => {
                self.duplicate(route.errand(), at);
            }
            _ => {}
        }
    }

    fn end(&mut self, number: u64, end: Result<Option<Id>, DictionaryError>) {
        if let Some(operation) = self.operations.get_mut(&number) {
            operation.ends.push(end);
        }
    }

    fn answer(&mut self, number: u64, result: &Result<Answer, DictionaryError>) {
        self.end(number, result.as_ref().map(|_| None).map_err(|error| *error));
        let Some(operation) = self.operations.get(&number).filter(|operation| !operation.excused) else {
            return;
        };
        match (&operation.asked, result) {
            (Asked::Write { key }, Ok(Answer::Written(written))) => {
                let value = Some(Journal::payload(number).into());
                let last = self.acknowledged.entry(*key).or_insert((written.version, None));
                if last.0 <= written.version {
                    *last = (written.version, value);
                }
            }
            (Asked::Read { .. }, Ok(Answer::Value(stored))) => {
                let read = stored.as_ref().map(|stored| stored.version);
                if let Some(known) = operation.known.filter(|known| read.is_none_or(|read| read < *known)) {
                    self.outdated = Some(Outdated { operation: number, read, known });
                }
            }
            _ => {}
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

    fn duplicate(&mut self, errand: Errand, at: Contact) {
        let most = self.most_duplicated().map_or(0, |(_, most)| most.times);
        let duplicated = self.duplicated.entry(errand).or_default();
        duplicated.times += 1;
        duplicated.by.insert(at);
        if duplicated.times > most {
            self.most_duplicated = Some(errand);
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
        let Journal {
            operations,
            open_lookups,
            last_delivered,
            overtaken,
            relieved,
            acknowledged,
            outdated,
            duplicated: _,
            most_duplicated: _,
        } = self;
        digest.plain(&(operations, open_lookups, last_delivered, overtaken, acknowledged, outdated));
        digest.unordered(relieved, |digest, contact| digest.contact(*contact));
    }

    /// Forgives all that is under way: nodes are kept apart. Of the dictionary's writes, one side's may be lost, so none counts any
    /// more.
    pub fn excuse_all(&mut self) {
        self.acknowledged.clear();
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

    /// The last acknowledged write of each key.
    pub fn acknowledged(&self) -> &BTreeMap<Id, Acknowledged> {
        &self.acknowledged
    }

    /// The last read that did not see what it should have.
    pub fn outdated(&self) -> Option<&Outdated> {
        self.outdated.as_ref()
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

    /// The errand of which most duplicates were sent.
    pub fn most_duplicated(&self) -> Option<(Errand, &Duplicated)> {
        let errand = self.most_duplicated?;
        self.duplicated.get(&errand).map(|duplicated| (errand, duplicated))
    }
}
