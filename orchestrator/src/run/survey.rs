//! What an inventory's hosts are like, before any run: each is made ready as for a run, its agent asked; then the agents call each
//! other where nodes would, and are ended.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use p2ps::agent::clock::unix_us;
use p2ps::agent::protocol::{Call, HostFacts, Notice, PortRange, Request};
use tokio::sync::{Barrier, oneshot};
use tokio::task::JoinSet;

use super::RunError;
use super::clock::{self, ClockOffset, EXCHANGES, Exchange};
use super::conversation::{Conversation, out_of_order};
use super::hosts::{chain, prepare_all};
use super::kernel::KernelNeeds;
use super::machine::LEASE_MS;
use super::reach::{Failed, Reach, WHOLE_HOSTS_MAX, partners};
use crate::backend::ssh::hostkey::HostKey;
use crate::backend::{Backend, PreparedHost};

/// How long an agent may take to answer everything.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// How often an agent hears something while it waits for the others: well within its lease.
const RENEW_EVERY: Duration = Duration::from_millis(LEASE_MS / 4);

/// What a host is like.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// The address that its nodes would listen on.
    pub listen: IpAddr,
    /// Its key, where it was reached by SSH.
    pub host_key: Option<HostKey>,
    /// What its agent says of it.
    pub facts: HostFacts,
    /// Its wall clock against this host's.
    pub clock: ClockOffset,
}

/// A host's name, and what it is like, or why it cannot be used.
pub type Surveyed = (String, Result<HostReport, String>);

/// What all hosts are like.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Each host, in the inventory's order.
    pub hosts: Vec<Surveyed>,
    /// Whether they reach each other, by their indices in `hosts`.
    pub reach: Reach,
}

/// Asks every host of `backend`, all at once within bounds; `told` hears of each as it is done. Blocks.
///
/// # Errors
/// [`RunError::System`], where this host refuses what it takes.
pub fn survey(backend: &Backend, mut told: impl FnMut(&Surveyed)) -> Result<Survey, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::System { what: "start an event loop", source })?;
    let surveyed = runtime.block_on(async {
        let mut guests = Guests::default();
        let hosts = ask_all(backend, &mut guests, &mut told).await?;
        let reach = guests.call_each_other().await?;
        Ok(Survey { hosts, reach })
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    surveyed
}

fn failed(what: &'static str) -> impl Fn(tokio::task::JoinError) -> RunError {
    move |error| RunError::System { what, source: std::io::Error::other(error) }
}

/// Makes each host ready and asks it; those that answered wait in `guests`.
async fn ask_all(
    backend: &Backend,
    guests: &mut Guests,
    told: &mut impl FnMut(&Surveyed),
) -> Result<Vec<Surveyed>, RunError> {
    let mut preparing = prepare_all(backend, KernelNeeds::default());
    let mut asking = JoinSet::new();
    let mut surveyed = BTreeMap::new();
    loop {
        // A host is asked as soon as it is ready, whatever the others do.
        let (candidate, outcome) = tokio::select! {
            Some(prepared) = preparing.join_next() => match prepared.map_err(failed("prepare a host"))? {
                (candidate, Ok(host)) => {
                    asking.spawn(async move { (candidate, ask(host).await) });
                    continue;
                }
                (candidate, Err(reason)) => (candidate, Err(reason)),
            },
            Some(asked) = asking.join_next() => asked.map_err(failed("ask a host"))?,
            else => break,
        };
        let outcome = outcome.map(|(report, guest)| {
            guests.add(candidate, guest);
            report
        });
        let host = (backend.host_name(candidate).to_owned(), outcome);
        told(&host);
        surveyed.insert(candidate, host);
    }
    Ok(surveyed.into_values().collect())
}

/// Starts a host's agent and asks it. It stays.
async fn ask(host: PreparedHost) -> Result<(HostReport, Guest), String> {
    let (listen, ports, host_key) = (host.listen, host.ports, host.host_key.clone());
    let connection = host.start().map_err(|error| chain(&error))?;
    let mut conversation = Conversation::new(connection);
    let answered = tokio::time::timeout(ANSWER_WAIT, interview(&mut conversation, listen, ports)).await;
    match answered {
        Ok(Ok((facts, clock, listening))) => {
            Ok((HostReport { listen, host_key, facts, clock }, Guest { conversation, listening }))
        }
        Ok(Err(error)) => Err(format!("{error} {}", conversation.end().await)),
        Err(_) => Err(format!("its agent did not answer within {} s", ANSWER_WAIT.as_secs())),
    }
}

async fn interview(
    conversation: &mut Conversation,
    listen: IpAddr,
    ports: Option<PortRange>,
) -> Result<(HostFacts, ClockOffset, Call), String> {
    let facts = conversation.greet("hosts check").await?;
    let mut exchanges = Vec::new();
    for asked in 0..EXCHANGES {
        let asked_us = unix_us();
        conversation.say(&Request::Clock { token: u64::from(asked) }).await?;
        match conversation.hear().await? {
            Notice::Clock { unix_us: host_us, .. } => {
                exchanges.push(Exchange { asked_us, answered_us: unix_us(), host_us });
            }
            other => return Err(out_of_order(&other)),
        }
    }
    let clock = clock::best(exchanges).ok_or("its clock was not measured")?;
    let token = RandomState::new().hash_one(listen);
    conversation.say(&Request::Listen { listen, ports, token }).await?;
    match conversation.hear().await? {
        Notice::Listening { address } => Ok((facts, clock, Call { address, token })),
        other => Err(out_of_order(&other)),
    }
}

/// A host whose agent has answered and waits to call others.
struct Guest {
    conversation: Conversation,
    listening: Call,
}

/// Whom a guest calls; it stays until all have met at the barrier, since others may still want to call it.
struct Invitation {
    calls: Vec<Call>,
    farewell: Arc<Barrier>,
}

impl Guest {
    /// Waits until it is known whom to call, calls them, and ends with the others. Gives back why each was not reached, if it was not.
    async fn stay(mut self, invited: oneshot::Receiver<Invitation>) -> Vec<Option<String>> {
        // Where no invitation will come any more, there is nobody to call.
        let Ok(Invitation { calls, farewell }) = self.lingering(invited).await else { return Vec::new() };
        let count = calls.len();
        let failures = match tokio::time::timeout(ANSWER_WAIT, self.call(calls)).await {
            Ok(Ok(failures)) if failures.len() == count => failures,
            Ok(Ok(_)) => vec![Some("its agent has not called all".into()); count],
            Ok(Err(error)) => vec![Some(error); count],
            Err(_) => vec![Some("its agent did not answer".into()); count],
        };
        // Whoever takes longer than that to call will not be waited for.
        tokio::time::timeout(ANSWER_WAIT, self.lingering(farewell.wait())).await.ok();
        self.conversation.say(&Request::Stop).await.ok();
        self.conversation.end().await;
        failures
    }

    /// Waits for something, while the agent hears from time to time that it is not forgotten.
    async fn lingering<T>(&mut self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        loop {
            if let Ok(happened) = tokio::time::timeout(RENEW_EVERY, &mut event).await {
                return happened;
            }
            // An agent that has gone meanwhile shows when it shall call.
            self.conversation.say(&Request::Renew).await.ok();
        }
    }

    async fn call(&mut self, calls: Vec<Call>) -> Result<Vec<Option<String>>, String> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        self.conversation.say(&Request::Dial { calls }).await?;
        match self.conversation.hear().await? {
            Notice::Dialled { failures } => Ok(failures),
            other => Err(out_of_order(&other)),
        }
    }
}

/// The hosts that wait for each other.
#[derive(Default)]
struct Guests {
    staying: JoinSet<(usize, Vec<Option<String>>)>,
    /// By candidate: where it listens, and how it is told whom to call.
    waiting: BTreeMap<usize, (Call, oneshot::Sender<Invitation>)>,
}

impl Guests {
    fn add(&mut self, candidate: usize, guest: Guest) {
        let (invite, invited) = oneshot::channel();
        self.waiting.insert(candidate, (guest.listening, invite));
        self.staying.spawn(async move { (candidate, guest.stay(invited).await) });
    }

    async fn call_each_other(mut self) -> Result<Reach, RunError> {
        let hosts: Vec<(usize, Call)> =
            self.waiting.iter().map(|(candidate, (call, _))| (*candidate, *call)).collect();
        let mut reach = Reach { is_whole: hosts.len() <= WHOLE_HOSTS_MAX, ..Reach::default() };
        let mut called: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let farewell = Arc::new(Barrier::new(hosts.len()));
        for (own, (candidate, (_, invite))) in self.waiting.into_iter().enumerate() {
            let partners = partners(own, hosts.len());
            reach.calls += partners.len();
            let calls = partners.iter().map(|other| hosts[*other].1).collect();
            // Each guest waits for it, whatever has become of its agent.
            invite.send(Invitation { calls, farewell: Arc::clone(&farewell) }).ok();
            called.insert(candidate, partners.into_iter().map(|other| hosts[other].0).collect());
        }
        while let Some(stayed) = self.staying.join_next().await {
            let (from, failures) = stayed.map_err(failed("ask a host"))?;
            let others = called.remove(&from).unwrap_or_default();
            for (to, failure) in others.into_iter().zip(failures) {
                reach.failed.extend(failure.map(|reason| Failed { from, to, reason }));
            }
        }
        reach.failed.sort_unstable_by_key(|call| (call.from, call.to));
        Ok(reach)
    }
}
