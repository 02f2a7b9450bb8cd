//! A seeded network in memory for tests of the pure protocol: links with random latency that keep order, crashes that break
//! links, and a clock that jumps from event to event. The same seed is the same run.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use p2ps::access_point::AccessPoint;
use p2ps::config::{Geometry, NetConfig, ProxyUse};
use p2ps::id::{Id, Ring};
use p2ps::invariant::{Journal, View};
use p2ps::message::dictionary::{Answer, DictionaryError};
use p2ps::message::{Contact, Found, Message, MessageKind, RouteError};
use p2ps::peer::{Command, Delivery, Event, Input, Outbox, Output, Peer, Phase};
use p2ps::time::Time;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// What is on its way.
#[derive(Clone, Debug)]
enum Flight {
    Message { from: Contact, to: Contact, message: Message },
    Input { to: Contact, input: Input },
}

/// What one application saw.
#[derive(Default)]
pub struct Application {
    pub completed: BTreeMap<u64, Result<Found, RouteError>>,
    pub sent: BTreeMap<u64, Result<(), RouteError>>,
    pub answered: BTreeMap<u64, Result<Answer, DictionaryError>>,
    pub delivered: Vec<Delivery>,
    pub events: Vec<Event>,
}

pub struct Network {
    pub now: Time,
    pub net: NetConfig,
    pub peers: BTreeMap<Id, Peer>,
    pub applications: BTreeMap<Id, Application>,
    pub messages: u64,
    sent_by_kind: BTreeMap<MessageKind, u64>,
    /// Nodes that neither hear nor speak, and do not know it.
    pub paused: BTreeSet<Id>,
    /// One side of a partition: nothing passes between these nodes and the others.
    pub island: BTreeSet<Id>,
    queue: BTreeMap<(Time, u64), Flight>,
    arrivals: BTreeMap<(Id, Id), Time>,
    /// By whose end: which other node, and how it knows it.
    links: BTreeMap<(Id, Id), Contact>,
    /// Nodes to which no link can be made; they make links to others.
    pub unreachable: BTreeSet<Id>,
    randomness: Pcg32,
    sent: u64,
    operations: u64,
    pub latency_us: std::ops::Range<u64>,
    /// How many of a thousand messages are lost.
    pub loss_per_mille: u64,
    /// What each input costs the one processor that all nodes share.
    pub cost: Duration,
    /// Which messages are lost, besides those lost by chance.
    pub loses: fn(&Message) -> bool,
    pub trace: u64,
    /// What the applications asked for and saw, for the invariants.
    pub journal: Journal,
    /// Done to each node when it starts.
    pub prepare: Box<dyn Fn(&mut Peer)>,
}

pub fn symmetric_tango(successors: u8) -> NetConfig {
    NetConfig::new("2^32".parse::<Ring>().unwrap(), Geometry::Tango { k: 5, symmetric: true }, successors)
        .unwrap()
}

impl Network {
    pub fn new(net: NetConfig, seed: u64) -> Network {
        Network {
            now: Time::ZERO,
            net,
            peers: BTreeMap::new(),
            applications: BTreeMap::new(),
            messages: 0,
            sent_by_kind: BTreeMap::new(),
            paused: BTreeSet::new(),
            island: BTreeSet::new(),
            queue: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            links: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            randomness: Pcg32::seed_from_u64(seed),
            sent: 0,
            operations: 0,
            latency_us: 1_000..50_000,
            loss_per_mille: 0,
            cost: Duration::ZERO,
            loses: |_| false,
            trace: 0,
            journal: Journal::default(),
            prepare: Box::new(|_| ()),
        }
    }

    /// A ring of `count` nodes that have joined one after the other, at rest.
    pub fn ring(net: NetConfig, count: usize, seed: u64) -> Network {
        let mut network = Network::new(net, seed);
        let first = network.random_id();
        network.create(first);
        for _ in 1..count {
            let via = network.any_member();
            let id = network.random_id();
            network.join(id, &[via]);
            network.run_until("the node has joined", Duration::from_secs(30), |n| n.is_member(id));
        }
        network.run_until("the ring is right", Duration::from_secs(60), Network::is_ring_right);
        network
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.randomness.next_u64() % below
    }

    pub fn random_id(&mut self) -> Id {
        loop {
            let id = Id((u128::from(self.randomness.next_u64()) % self.net.ring().max_size()) as u64);
            if !self.peers.contains_key(&id) {
                return id;
            }
        }
    }

    pub fn any_member(&mut self) -> Id {
        let members = self.members();
        members[self.random(members.len() as u64) as usize]
    }

    pub fn members(&self) -> Vec<Id> {
        self.peers.iter().filter(|(_, peer)| peer.phase() == Phase::Member).map(|(id, _)| *id).collect()
    }

    pub fn is_member(&self, id: Id) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.phase() == Phase::Member)
    }

    pub fn create(&mut self, id: Id) {
        self.start(id, Input::Create);
    }

    pub fn join(&mut self, id: Id, via: &[Id]) {
        let bootstrap = via.iter().map(|id| access_point(*id)).collect();
        self.start(id, Input::Join { bootstrap });
    }

    /// A node that is a client in any case.
    pub fn join_as_client(&mut self, id: Id, via: &[Id]) {
        let bootstrap = via.iter().map(|id| access_point(*id)).collect();
        self.start_as(id, Input::Join { bootstrap }, ProxyUse::Always);
    }

    pub fn is_client(&self, id: Id) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.phase() == Phase::Client && peer.proxy().is_some())
    }

    /// Whether each client's proxy is the responsible of its id, and knows it; and nobody else has it for a client.
    pub fn are_clients_right(&self) -> bool {
        let known: BTreeMap<Id, Id> = self
            .peers
            .values()
            .flat_map(|peer| peer.clients().into_iter().map(|client| (client.id, peer.me().id)))
            .collect();
        let clients = self.peers.values().filter(|peer| peer.phase() == Phase::Client);
        let wanted: BTreeMap<Id, Id> =
            clients.clone().map(|peer| (peer.me().id, self.responsible(peer.me().id))).collect();
        let believed = clients.filter_map(|peer| Some((peer.me().id, peer.proxy()?.id)));
        let count: usize = self.peers.values().map(|peer| peer.clients().len()).sum();
        known == wanted && count == wanted.len() && believed.collect::<BTreeMap<_, _>>() == wanted
    }

    fn start(&mut self, id: Id, input: Input) {
        self.start_as(id, input, ProxyUse::IfUnreachable);
    }

    fn start_as(&mut self, id: Id, input: Input, proxy_use: ProxyUse) {
        let incarnation = 1 + self.now.as_micros();
        let me = Contact { id, access_point: access_point(id), incarnation };
        let seed = self.randomness.next_u64();
        let mut peer = Peer::new(self.net, me, seed);
        peer.set_proxy_use(proxy_use);
        (self.prepare)(&mut peer);
        self.peers.insert(id, peer);
        self.applications.entry(id).or_default();
        self.give(id, input);
    }

    /// The process is gone: whoever has a link to it sees it break.
    pub fn kill(&mut self, id: Id) {
        let Some(peer) = self.peers.remove(&id) else { return };
        let gone = peer.me();
        let broken: Vec<_> = self
            .links
            .iter()
            .filter(|((_, other), contact)| *other == id && contact.incarnation == gone.incarnation)
            .map(|((viewer, _), contact)| (*viewer, *contact))
            .collect();
        self.links.retain(|(viewer, other), _| *viewer != id && *other != id);
        for (viewer, contact) in broken {
            let Some(to) = self.peers.get(&viewer).map(Peer::me) else { continue };
            let input = Input::LinkDown { contact, orderly: false };
            self.fly(gone.id, viewer, Flight::Input { to, input });
        }
    }

    pub fn leave(&mut self, id: Id) {
        self.give(id, Input::Command(Command::Leave));
    }

    /// Starts a look-up and returns its number.
    pub fn lookup(&mut self, from: Id, key: Id) -> u64 {
        self.operations += 1;
        let operation = self.operations;
        self.give(from, Input::Command(Command::Lookup { operation, key }));
        operation
    }

    /// A whole look-up, with all nodes that were the key's responsible at some moment of it.
    pub fn look_up(&mut self, from: Id, key: Id) -> (Result<Found, RouteError>, BTreeSet<Id>) {
        let (result, rightful) = self.look_up_unless_gone(from, key);
        (result.expect("the asking node lives"), rightful)
    }

    /// The same, where the asking node may be gone before the look-up has ended.
    pub fn look_up_unless_gone(
        &mut self,
        from: Id,
        key: Id,
    ) -> (Option<Result<Found, RouteError>>, BTreeSet<Id>) {
        let mut rightful = self.rightful(key);
        let operation = self.lookup(from, key);
        self.run_until("the look-up has ended", Duration::from_secs(60), |n| {
            rightful.append(&mut n.rightful(key));
            n.applications[&from].completed.contains_key(&operation) || !n.peers.contains_key(&from)
        });
        (self.applications[&from].completed.get(&operation).copied(), rightful)
    }

    /// Sends a reliable message and returns its number.
    pub fn send_reliably(&mut self, from: Id, destination: Id, text: &str) -> u64 {
        self.operations += 1;
        let (operation, payload) = (self.operations, text.as_bytes().to_vec().into());
        self.give(from, Input::Command(Command::SendReliably { operation, destination, payload }));
        operation
    }

    /// Starts an operation on the dictionary and returns its number.
    pub fn insert(&mut self, from: Id, key: Id, value: &str) -> u64 {
        let value = value.as_bytes().to_vec().into();
        self.command(from, |operation| Command::Insert { operation, key, value })
    }

    pub fn get(&mut self, from: Id, key: Id) -> u64 {
        self.command(from, |operation| Command::Get { operation, key })
    }

    pub fn remove(&mut self, from: Id, key: Id) -> u64 {
        self.command(from, |operation| Command::Remove { operation, key })
    }

    fn command(&mut self, from: Id, command: impl FnOnce(u64) -> Command) -> u64 {
        self.operations += 1;
        let operation = self.operations;
        self.give(from, Input::Command(command(operation)));
        operation
    }

    pub fn send(&mut self, from: Id, destination: Id, exact: bool, text: &str) {
        let payload = text.as_bytes().to_vec().into();
        self.give(from, Input::Command(Command::Send { destination, exact, payload }));
    }

    /// How many messages of a kind have been sent.
    pub fn sent_of(&self, kind: MessageKind) -> u64 {
        self.sent_by_kind.get(&kind).copied().unwrap_or_default()
    }

    /// The member that should answer for a key.
    pub fn responsible(&self, key: Id) -> Id {
        let members = self.members();
        *members.iter().find(|id| **id >= key).unwrap_or(&members[0])
    }

    /// The nodes that may answer for a key now: the first after it that stays, and those before that one which are leaving. Where that
    /// one has been let in by a node that crashed before any other heard of it, so may the next.
    pub fn rightful(&self, key: Id) -> BTreeSet<Id> {
        let clockwise = self.peers.range(key..).chain(self.peers.range(..key)).map(|(_, peer)| peer);
        let mut rightful = BTreeSet::new();
        for peer in clockwise {
            if matches!(peer.phase(), Phase::Member | Phase::Leaving) {
                rightful.insert(peer.me().id);
            }
            if peer.phase() == Phase::Member && !self.is_unheard_of(peer) {
                break;
            }
        }
        rightful
    }

    fn is_unheard_of(&self, member: &Peer) -> bool {
        let is_successor = |of: &Peer| of.successors().first() == Some(&member.me());
        member.successors().first().is_some_and(|giver| !self.is_alive(giver))
            && !self.peers.values().any(is_successor)
    }

    /// Whether each member's neighbours are the right ones, as deep as successor lists go.
    pub fn is_ring_right(&self) -> bool {
        let members = self.members();
        let count = members.len();
        members.iter().enumerate().all(|(place, id)| {
            let peer = &self.peers[id];
            let length = self.net.successors().min(count - 1);
            let successors: Vec<Id> = (1..=length).map(|step| members[(place + step) % count]).collect();
            let known: Vec<Id> = peer.successors().iter().map(|contact| contact.id).collect();
            let predecessor = (count > 1).then(|| members[(place + count - 1) % count]);
            known == successors && peer.predecessor().map(|contact| contact.id) == predecessor
        })
    }

    /// Whether each finger of each member points at its position's responsible.
    pub fn are_fingers_right(&self) -> bool {
        self.members().iter().all(|id| {
            self.peers[id].fingers().iter().all(|(target, contact)| {
                let right = self.responsible(*target);
                contact.map_or(right == *id, |contact| contact.id == right)
            })
        })
    }

    /// Lets time pass.
    pub fn run_for(&mut self, length: Duration) {
        self.run_to(self.now + length);
    }

    /// Lets time pass until then; where inputs cost time, it may be later already.
    pub fn run_to(&mut self, end: Time) {
        while self.now < end && self.step(end) {}
        self.now = self.now.max(end);
    }

    /// Lets time pass until something holds.
    pub fn run_until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&Network) -> bool) {
        let end = self.now + limit;
        while !holds(self) {
            assert!(self.step(end), "within {limit:?}: {what}\n{}", self.describe());
        }
    }

    /// The ring as its members see it, for people.
    pub fn describe(&self) -> String {
        let describe = |peer: &Peer| {
            let ids = |contacts: &[Contact]| contacts.iter().map(|contact| contact.id).collect::<Vec<_>>();
            let known = |contact: Option<Contact>| contact.map_or(peer.me().id, |contact| contact.id);
            let wrong: Vec<_> = peer
                .fingers()
                .into_iter()
                .map(|(target, contact)| (target, known(contact), self.rightful(target)))
                .filter(|(_, known, right)| !right.contains(known))
                .collect();
            format!(
                "{} {:?}: predecessor {:?}, successors {:?}, wrong fingers {wrong:?}\n",
                peer.me().id,
                peer.phase(),
                peer.predecessor().map(|contact| contact.id),
                ids(peer.successors()),
            )
        };
        self.peers.values().map(describe).collect()
    }

    /// What the invariants are checked on.
    pub fn view(&self) -> View<'_> {
        View::new(self.peers.values(), &self.journal)
    }

    /// Does the next thing that happens before `end`.
    pub fn step(&mut self, end: Time) -> bool {
        let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timer = self
            .peers
            .iter()
            .filter(|(id, _)| !self.paused.contains(id))
            .filter_map(|(id, peer)| Some((peer.deadline()?, *id)))
            .min();
        match (arrival, timer) {
            (Some(at), timer) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                if let Some((_, flight)) = self.queue.pop_first() {
                    self.land(flight);
                }
                true
            }
            (_, Some((due, id))) if due <= end => {
                self.now = self.now.max(due);
                self.give(id, Input::Tick);
                true
            }
            _ => false,
        }
    }

    fn land(&mut self, flight: Flight) {
        match flight {
            Flight::Message { from, to, message } => {
                self.messages += 1;
                let cut = self.island.contains(&from.id) != self.island.contains(&to.id);
                if cut
                    || (self.loses)(&message)
                    || (self.loss_per_mille > 0 && self.random(1000) < self.loss_per_mille)
                {
                    return;
                }
                let alive = self.is_alive(&to);
                let linked = self.links.contains_key(&(from.id, to.id));
                if alive && self.unreachable.contains(&to.id) && !linked {
                    self.not_reached(from, to);
                } else if alive && !self.paused.contains(&to.id) {
                    let from = self.link(&from, &to);
                    self.give(to.id, Input::Receive { from, message });
                } else if !alive {
                    self.not_reached(from, to);
                }
            }
            Flight::Input { to, input } => {
                if self.is_alive(&to) {
                    self.give(to.id, input);
                }
            }
        }
    }

    /// Whether this life of a node lasts, as whatever it is known.
    fn is_alive(&self, contact: &Contact) -> bool {
        self.peers.get(&contact.id).is_some_and(|peer| peer.me().incarnation == contact.incarnation)
    }

    /// A link stands between two nodes; tells as whom its other end knows the first, from when it was made.
    fn link(&mut self, from: &Contact, to: &Contact) -> Contact {
        let mut known = |viewer: &Contact, other: &Contact| {
            let known = self.links.entry((viewer.id, other.id)).or_insert(*other);
            if known.incarnation != other.incarnation {
                *known = *other;
            }
            *known
        };
        known(from, to);
        known(to, from)
    }

    fn not_reached(&mut self, from: Contact, to: Contact) {
        let input = Input::Unreachable {
            access_point: to.access_point,
            contact: Some(to),
            reason: "connection refused".to_owned(),
        };
        self.fly(to.id, from.id, Flight::Input { to: from, input });
    }

    /// A dial to a node, whatever links to it stand.
    fn reach(&mut self, me: Contact, contact: Contact) {
        if self.is_alive(&contact) && !self.unreachable.contains(&contact.id) {
            self.fly(contact.id, me.id, Flight::Input { to: me, input: Input::Reached { contact } });
        } else {
            self.not_reached(me, contact);
        }
    }

    pub fn give(&mut self, id: Id, input: Input) {
        let mut out = Outbox::new();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.handle(self.now, input, &mut out);
        self.now = self.now + self.cost;
        let me = peer.me();
        for output in out {
            self.note(&output, id);
            self.journal.hear(me, &output);
            match output {
                Output::Send { to, message } => {
                    *self.sent_by_kind.entry(message.kind()).or_default() += 1;
                    self.fly(id, to.id, Flight::Message { from: me, to, message })
                }
                Output::Connect { access_point } => self.connect(me, access_point),
                Output::Reach { contact } => self.reach(me, contact),
                Output::Deliver(delivery) => {
                    self.applications.entry(id).or_default().delivered.push(delivery)
                }
                Output::Completed { operation, result } => {
                    let earlier =
                        self.applications.entry(id).or_default().completed.insert(operation, result);
                    assert_eq!(earlier, None, "operation {operation} ended twice");
                }
                Output::Sent { operation, result } => {
                    let earlier = self.applications.entry(id).or_default().sent.insert(operation, result);
                    assert_eq!(earlier, None, "operation {operation} ended twice");
                }
                Output::Answered { operation, result } => {
                    let earlier = self.applications.entry(id).or_default().answered.insert(operation, result);
                    assert_eq!(earlier, None, "operation {operation} ended twice");
                }
                Output::Event(event) => self.applications.entry(id).or_default().events.push(event),
                Output::Observe(_) => {}
            }
        }
        if self.peers.get(&id).is_some_and(|peer| peer.phase() == Phase::Ended) {
            self.peers.remove(&id);
        }
    }

    fn connect(&mut self, me: Contact, access_point: AccessPoint) {
        let there = self.peers.values().map(Peer::me).find(|contact| contact.access_point == access_point);
        let there = there.filter(|contact| !self.unreachable.contains(&contact.id));
        let input = match there {
            Some(contact) => Input::LinkUp { contact },
            None => {
                Input::Unreachable { access_point, contact: None, reason: "connection refused".to_owned() }
            }
        };
        self.fly(me.id, me.id, Flight::Input { to: me, input });
    }

    fn fly(&mut self, from: Id, to: Id, flight: Flight) {
        let span = self.latency_us.end - self.latency_us.start;
        let latency = Duration::from_micros(self.latency_us.start + self.randomness.next_u64() % span);
        let last = self.arrivals.get(&(from, to)).copied().unwrap_or_default();
        let at = (self.now + latency).max(last);
        self.arrivals.insert((from, to), at);
        self.sent += 1;
        self.queue.insert((at, self.sent), flight);
    }

    fn note(&mut self, output: &Output, by: Id) {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        (self.trace, self.now, by, format!("{output:?}")).hash(&mut hasher);
        self.trace = hasher.finish();
    }
}

fn access_point(id: Id) -> AccessPoint {
    let [.., a, b, c] = (id.0 >> 16).to_be_bytes();
    // Port 0 is nowhere.
    match (id.0 & 0xffff) as u16 {
        0 => AccessPoint { ip: [11, a, b, c].into(), port: 1 },
        port => AccessPoint { ip: [10, a, b, c].into(), port },
    }
}
