//! From candidates to hosts with a running agent: all at once within bounds, each with its own time-out, so that bad hosts cost a
//! line each and not the run.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use p2ps::agent::protocol::PortRange;
use tokio::signal::unix::Signal;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::journal::{Entry, Journal};
use super::kernel::{self, KernelNeeds};
use super::process::ProcessIdentity;
use super::{Preparation, RunError, Watcher};
use crate::backend::{AgentConnection, Backend, PreparedHost};
use crate::schedule::HostIndex;

/// The most hosts that are prepared at the same time.
pub(super) const FAN_OUT_MAX: usize = 32;

/// Each preparation begins up to this much later than it could: sshd refuses bursts of connections (MaxStartups), and
/// several hosts may be behind one.
const JITTER_MAX_US: u64 = 100_000;

/// How long a host may take to be prepared, with all tries.
const PREPARE_WAIT: Duration = Duration::from_secs(180);

/// A host of the run, its agent started.
pub(super) struct RunHost {
    /// Its name in the inventory.
    pub(super) name: String,
    /// The address that its nodes listen on and are reached at.
    pub(super) listen: IpAddr,
    /// The ports that its nodes may listen on, if the inventory says so.
    pub(super) ports: Option<PortRange>,
    /// The way to its agent; none to a virtual one.
    pub(super) connection: Option<AgentConnection>,
}

/// What came of the candidates.
#[derive(Default)]
pub(super) struct Hosts {
    /// The hosts of the run, in the inventory's order.
    pub(super) ready: Vec<RunHost>,
    /// Those that cannot be used: name and reason.
    pub(super) unusable: Vec<(String, String)>,
}

impl Hosts {
    /// The one host of a simulation.
    pub(super) fn simulated() -> Hosts {
        let host = RunHost {
            name: "sim".to_owned(),
            listen: Ipv4Addr::LOCALHOST.into(),
            ports: None,
            connection: None,
        };
        Hosts { ready: vec![host], unusable: Vec::new() }
    }
}

/// Signals that end a run.
pub(super) struct Interrupts {
    pub(super) interrupt: Signal,
    pub(super) terminate: Signal,
}

impl Interrupts {
    /// Waits for one.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Prepares the candidates until as many as wanted are ready or none is left, and starts the agents of those; each is
/// journalled before. A host whose kernel lacks what the plan needs is not ready.
///
/// # Errors
/// [`RunError::InterruptedEarly`]; [`RunError::Journal`].
pub(super) async fn gather(
    backend: &Backend,
    needs: KernelNeeds,
    journal: &mut Journal,
    interrupts: &mut Interrupts,
    watcher: &mut dyn Watcher,
) -> Result<Hosts, RunError> {
    for candidate in 0..backend.candidates() {
        let name = backend.host_name(candidate).to_owned();
        let kind = backend.kind(candidate).to_owned();
        journal.write(Entry::HostPreparing { name, backend: kind })?;
    }
    let mut hosts = Hosts::default();
    let mut preparing = prepare_all(backend, needs);
    let mut prepared: Vec<(usize, PreparedHost)> = Vec::new();
    while prepared.len() < backend.wanted() {
        let (candidate, outcome) = tokio::select! {
            biased;
            () = interrupts.recv() => return Err(RunError::InterruptedEarly),
            outcome = preparing.join_next() => match outcome {
                Some(outcome) => outcome.map_err(|error| RunError::System {
                    what: "prepare a host",
                    source: std::io::Error::other(error),
                })?,
                None => break,
            },
        };
        let name = backend.host_name(candidate).to_owned();
        let problem = match outcome {
            Ok(host) => {
                prepared.push((candidate, host));
                None
            }
            Err(reason) => {
                hosts.unusable.push((name.clone(), reason.clone()));
                Some(reason)
            }
        };
        watcher.prepared(&Preparation {
            host: &name,
            problem: problem.as_deref(),
            ready: prepared.len(),
            wanted: backend.wanted(),
        });
    }
    prepared.sort_by_key(|(candidate, _)| *candidate);
    let listen: Vec<IpAddr> = prepared.iter().map(|(_, host)| host.listen).collect();
    for (candidate, host) in prepared {
        if is_cut_off(host.listen, &listen) {
            let reason = format!(
                "its nodes would listen on {}, where other hosts cannot reach them: say `listen:` for it in the inventory",
                host.listen
            );
            hosts.unusable.push((backend.host_name(candidate).to_owned(), reason));
            continue;
        }
        start(backend, candidate, host, journal, &mut hosts)?;
    }
    Ok(hosts)
}

/// Begins to prepare every candidate; one whose kernel cannot do what it has to is none.
pub(super) fn prepare_all(
    backend: &Backend,
    needs: KernelNeeds,
) -> JoinSet<(usize, Result<PreparedHost, String>)> {
    let permits = Arc::new(Semaphore::new(FAN_OUT_MAX));
    let mut preparing = JoinSet::new();
    for candidate in 0..backend.candidates() {
        let (backend, permits) = (backend.clone(), Arc::clone(&permits));
        preparing.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("the semaphore is never closed");
            if backend.candidates() > 1 {
                tokio::time::sleep(jitter()).await;
            }
            let outcome = tokio::time::timeout(PREPARE_WAIT, prepare(&backend, candidate, needs)).await;
            let too_late = |_| Err(format!("it was not ready within {} s", PREPARE_WAIT.as_secs()));
            (candidate, outcome.unwrap_or_else(too_late))
        });
    }
    preparing
}

async fn prepare(backend: &Backend, candidate: usize, needs: KernelNeeds) -> Result<PreparedHost, String> {
    let reach = || {
        let backend = backend.clone();
        async move {
            let work = tokio::task::spawn_blocking(move || backend.prepare(candidate));
            work.await.map_err(|error| error.to_string())?.map_err(|error| chain(&error))
        }
    };
    if !needs.is_nothing() {
        // An agent of its own, which has ended when the run's is started.
        kernel::ask(reach().await?, needs).await?;
    }
    reach().await
}

fn start(
    backend: &Backend,
    candidate: usize,
    host: PreparedHost,
    journal: &mut Journal,
    hosts: &mut Hosts,
) -> Result<(), RunError> {
    let name = backend.host_name(candidate).to_owned();
    let index = hosts.ready.len() as HostIndex;
    journal.write(Entry::AgentStarting {
        host: index,
        backend: backend.kind(candidate).to_owned(),
        program: backend.node_binary().to_owned(),
    })?;
    let (listen, ports) = (host.listen, host.ports);
    match host.start() {
        Ok(connection) => {
            // One that has ended already has no identity, and needs none.
            if let Some(process) = connection.process.pid().and_then(ProcessIdentity::of) {
                journal.write(Entry::AgentStarted { host: index, process })?;
            }
            hosts.ready.push(RunHost { name, listen, ports, connection: Some(connection) });
        }
        Err(error) => hosts.unusable.push((name, chain(&error))),
    }
    Ok(())
}

/// Whether nodes at `listen` could not be reached by all of the others: they are on loopback, and others are not.
fn is_cut_off(listen: IpAddr, others: &[IpAddr]) -> bool {
    listen.is_loopback() && others.iter().any(|other| !other.is_loopback())
}

fn jitter() -> Duration {
    Duration::from_micros(RandomState::new().hash_one(0) % JITTER_MAX_US)
}

/// An error with all that caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_for_hosts_that_are_all_on_it() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, two, far) = (address("127.0.0.1"), address("::1"), address("10.0.0.1"));
        assert!(!is_cut_off(one, &[one, two]));
        assert!(is_cut_off(two, &[one, two, far]));
        assert!(!is_cut_off(far, &[one, two, far]));
    }
}
