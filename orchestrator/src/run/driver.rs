//! Carries a run out: gives the machine what happens and does what it says.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2ps::agent::protocol::{
    AGENT_PROTOCOL_VERSION, NODES_MAX, NodeSlot, Notice, PortRange, Preparation, Request,
};
use p2ps::com::key::NetworkKey;
use p2ps::config::PROTOCOL_VERSION;
use p2ps::sim::{Totals, Trace};
use tokio::signal::unix::{SignalKind, signal};

use super::agents::{HostEvent, Outgoing};
use super::cleanup::{self, Cleaned};
use super::fleet::Fleet;
use super::hosts::{self, Hosts, Interrupts, RunHost};
use super::journal::{Entry, Journal};
use super::kernel::KernelNeeds;
use super::machine::{Effect, Ending, Machine, Settings, Stage};
use super::manifest::{self, HostManifest, Manifest, UnusableHost};
use super::outstanding::Outstanding;
use super::process::ProcessIdentity;
use super::{RunError, Status, Watcher};
use crate::backend::Backend;
use crate::backend::sim::VirtualAgent;
use crate::check::{self, Verdict};
use crate::plan::targets::FaultsWith;
use crate::plan::{Plan, resolved_yaml};
use crate::record::{Loss, Recorder, RunDirectory, RunRecord};
use crate::report::{MetricsBoard, MetricsServer};
use crate::schedule::{self, HostIndex, Schedule, schedule, write_jsonl};

/// How often nodes are sampled, in milliseconds.
const SAMPLE_EVERY_MS: u64 = 1000;

/// A simulation of more nodes than this samples them more seldom, so that samples do not take longer than the simulation.
const SIMULATED_SAMPLES_MAX: u64 = 1000;

/// How often the metrics that are served are brought up to date.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// What is to be run.
#[derive(Debug)]
pub struct Job {
    /// The plan.
    pub plan: Plan,
    /// Its file.
    pub plan_path: PathBuf,
    /// Where.
    pub backend: Backend,
    /// Where its directory is made.
    pub out: Out,
    /// The command line, for the manifest.
    pub command: Vec<String>,
    /// Where the run's metrics are served, if they are; then each node serves its own on its host's loopback too.
    pub metrics: Option<SocketAddr>,
    /// How long hosts' agents and their nodes outlive the last word of this process, in milliseconds; within
    /// [`LEASE_MS_RANGE`](super::machine::LEASE_MS_RANGE).
    pub lease_ms: u64,
}

/// Where a run's directory is made.
#[derive(Clone, Debug)]
pub enum Out {
    /// In this one, named after the plan, the time and the seed.
    Under(PathBuf),
    /// Here.
    At(PathBuf),
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// Its directory.
    pub directory: RunDirectory,
    /// Why it ended.
    pub ending: Ending,
    /// All that was recorded.
    pub record: RunRecord,
    /// What is to be thought of it.
    pub verdict: Verdict,
    /// The hosts that were lost: name and reason.
    pub lost: Vec<(String, String)>,
    /// The hosts that could not be used: name and reason.
    pub unusable: Vec<(String, String)>,
    /// What the clean-up found, which should be nothing.
    pub cleaned: Cleaned,
    /// Of a simulation: the hash of all that happened, and what was counted.
    pub simulated: Option<(Trace, Totals)>,
}

/// Carries out a run from its beginning to its verdict. SIGINT and SIGTERM end it in order; twice, at once. When it
/// returns, nothing that it started on this host runs any more.
///
/// # Errors
/// [`RunError`] where the run could not be begun, or its directory not be written.
pub fn carry_out(job: Job, watcher: &mut dyn Watcher) -> Result<Finished, RunError> {
    check_room(&job.backend, job.plan.nodes as usize, job.backend.wanted())?;
    let directory = match &job.out {
        Out::Under(root) => RunDirectory::create(root, &job.plan)?,
        Out::At(path) => RunDirectory::create_as(path.clone())?,
    };
    watcher.begun(&directory);
    let manifest = begin(&job, &directory)?;
    let mut journal = Journal::open(&directory.journal())?;
    journal.write(Entry::Run { orchestrator: ProcessIdentity::of(std::process::id()) })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::System { what: "start an event loop", source })?;
    let driven = runtime.block_on(drive(&job, &directory, manifest, journal, watcher));
    // Whatever went wrong: agents are killed with their tasks, and then nothing may be left.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let cleaned = cleanup::clean(&directory.journal())?;
    let Parts { schedule, mut manifest, mut journal, recorder, ending, ended_us, simulated } = driven?;
    if cleaned.left.is_empty() {
        journal.write(Entry::Ended)?;
    }
    manifest.ended = Some(manifest::now());
    manifest.ending = Some(ending.as_str().to_owned());
    manifest.trace = simulated.map(|(trace, _)| trace.to_string());
    write_manifest(&manifest, &directory)?;
    let record = recorder.finish(ended_us)?;
    let verdict = check::conclude(&directory, &job.plan, &schedule, &record)?;
    let lost = manifest.hosts.into_iter().filter_map(|host| Some((host.name, host.lost?))).collect();
    let unusable = manifest.unusable_hosts.into_iter().map(|host| (host.name, host.reason)).collect();
    Ok(Finished { directory, ending, record, verdict, lost, unusable, cleaned, simulated })
}

/// Gathers the hosts, decides what each will do, and does it.
async fn drive(
    job: &Job,
    directory: &RunDirectory,
    mut manifest: Manifest,
    mut journal: Journal,
    watcher: &mut dyn Watcher,
) -> Result<Parts, RunError> {
    let board = MetricsBoard::new();
    let _server = match job.metrics {
        Some(address) => {
            let server = MetricsServer::serve(address, board.clone())?;
            watcher.serving(server.address());
            Some(server)
        }
        None => None,
    };
    let on = |kind| signal(kind).map_err(|source| RunError::System { what: "be told of signals", source });
    let mut interrupts =
        Interrupts { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? };
    let gathered = match &job.backend {
        Backend::Sim(_) => Ok(Hosts::simulated()),
        backend => {
            hosts::gather(backend, KernelNeeds::of(&job.plan), &mut journal, &mut interrupts, watcher).await
        }
    };
    if matches!(gathered, Err(RunError::InterruptedEarly)) {
        end_early(&mut manifest, Ending::Interrupted.as_str(), directory)?;
    }
    let Hosts { ready, unusable } = gathered?;
    let unusable_host =
        |(name, reason): &(String, String)| UnusableHost { name: name.clone(), reason: reason.clone() };
    manifest.unusable_hosts = unusable.iter().map(unusable_host).collect();
    manifest.hosts = ready.iter().map(host_manifest).collect();
    let required = job.backend.required();
    if ready.len() < required {
        end_early(&mut manifest, "too_few_hosts", directory)?;
        return Err(RunError::TooFewHosts { ready: ready.len(), required, unusable });
    }
    write_manifest(&manifest, directory)?;
    let names = ready.iter().map(|host| host.name.clone()).collect();
    let schedule = match schedule(&job.plan, schedule::Hosts::named(names)) {
        Ok(schedule) => Arc::new(schedule),
        Err(error) => {
            end_early(&mut manifest, "no_schedule", directory)?;
            return Err(error.into());
        }
    };
    if let Err(error) = check_room(&job.backend, schedule.nodes.len(), ready.len()) {
        end_early(&mut manifest, "too_many_nodes", directory)?;
        return Err(error);
    }
    write_schedule(&schedule, directory)?;
    if let Err(error) = check_ports(&ready, &schedule) {
        end_early(&mut manifest, "too_few_ports", directory)?;
        return Err(error);
    }
    watcher.scheduled(&schedule);
    let recorder = Recorder::create(directory, &job.plan, &schedule)?;
    let mut driver = Driver::start(job, directory, &schedule, manifest, journal, recorder, ready)?;
    driver.drive(&board, &mut interrupts, watcher).await?;
    Ok(driver.into_parts())
}

/// Whether so many hosts take so many nodes, which are spread evenly over them.
fn check_room(backend: &Backend, nodes: usize, hosts: usize) -> Result<(), RunError> {
    match nodes.div_ceil(hosts.max(1)) {
        _ if matches!(backend, Backend::Sim(_)) => Ok(()),
        ..=NODES_MAX => Ok(()),
        each => Err(RunError::TooManyNodes { nodes, hosts, each }),
    }
}

/// Whether each host has a port for each of its nodes, as far as the inventory says which they may have.
fn check_ports(hosts: &[RunHost], schedule: &Schedule) -> Result<(), RunError> {
    for (index, host) in (0..).zip(hosts) {
        let nodes = schedule.nodes.iter().filter(|node| node.host == index).count();
        if let Some(ports) = host.ports.filter(|ports| ports.count() < nodes) {
            return Err(RunError::TooFewPorts { host: host.name.clone(), ports, nodes });
        }
    }
    Ok(())
}

/// Writes down that the run ended before it had begun.
fn end_early(manifest: &mut Manifest, ending: &str, directory: &RunDirectory) -> Result<(), RunError> {
    manifest.ended = Some(manifest::now());
    manifest.ending = Some(ending.to_owned());
    write_manifest(manifest, directory)
}

fn host_manifest(host: &RunHost) -> HostManifest {
    HostManifest { name: host.name.clone(), listen: Some(host.listen), ..HostManifest::default() }
}

/// Writes down what is known before anything is started.
fn begin(job: &Job, directory: &RunDirectory) -> Result<Manifest, RunError> {
    let failed = |path: PathBuf| move |source| RunError::File { path, source };
    let text = fs::read(&job.plan_path).map_err(failed(job.plan_path.clone()))?;
    fs::write(directory.plan(), text).map_err(failed(directory.plan()))?;
    fs::write(directory.resolved(), resolved_yaml(&job.plan)).map_err(failed(directory.resolved()))?;
    let node_binary = job.backend.node_binary().to_owned();
    let manifest = Manifest {
        orchestrator_version: env!("CARGO_PKG_VERSION"),
        protocol_version: PROTOCOL_VERSION,
        agent_protocol_version: AGENT_PROTOCOL_VERSION,
        node_binary_sha256: manifest::sha256(&node_binary).map_err(failed(node_binary.clone()))?,
        node_binary,
        plan: job.plan_path.clone(),
        seed: job.plan.seed,
        isolation: job.plan.isolation,
        command: job.command.clone(),
        lease_ms: job.lease_ms,
        began: manifest::now(),
        started: None,
        ended: None,
        ending: None,
        hosts: Vec::new(),
        unusable_hosts: Vec::new(),
        trace: None,
    };
    write_manifest(&manifest, directory)?;
    Ok(manifest)
}

fn write_schedule(schedule: &Schedule, directory: &RunDirectory) -> Result<(), RunError> {
    let path = directory.schedule();
    let write = || {
        let mut file = BufWriter::new(fs::File::create(&path)?);
        write_jsonl(&schedule.actions, &mut file)?;
        file.flush()
    };
    write().map_err(|source| RunError::File { path: path.clone(), source })
}

fn write_manifest(manifest: &Manifest, directory: &RunDirectory) -> Result<(), RunError> {
    let path = directory.manifest();
    manifest.write(&path).map_err(|source| RunError::File { path, source })
}

fn sample_every_ms(job: &Job) -> u64 {
    match job.backend {
        Backend::Sim(_) => SAMPLE_EVERY_MS * u64::from(job.plan.nodes).div_ceil(SIMULATED_SAMPLES_MAX),
        Backend::Local(_) | Backend::Hosts(_) => SAMPLE_EVERY_MS,
    }
}

struct Driver<'a> {
    job: &'a Job,
    directory: &'a RunDirectory,
    schedule: &'a Arc<Schedule>,
    /// What its links are sealed with, if they are. It goes to agents on their standard input, and nowhere else.
    network_key: Option<NetworkKey>,
    manifest: Manifest,
    journal: Journal,
    recorder: Recorder,
    outstanding: Outstanding,
    machine: Machine,
    /// What the run calls its hosts, and where their nodes are.
    places: Vec<Place>,
    fleet: Fleet,
    /// Agents whose processes have not ended yet.
    running: usize,
    effects: Vec<Effect>,
}

struct Place {
    name: String,
    listen: IpAddr,
    ports: Option<PortRange>,
}

/// What is left of a driver when it is done.
struct Parts {
    schedule: Arc<Schedule>,
    manifest: Manifest,
    journal: Journal,
    recorder: Recorder,
    ending: Ending,
    ended_us: u64,
    simulated: Option<(Trace, Totals)>,
}

impl<'a> Driver<'a> {
    /// Takes charge of the agents of all hosts, and greets them.
    fn start(
        job: &'a Job,
        directory: &'a RunDirectory,
        schedule: &'a Arc<Schedule>,
        manifest: Manifest,
        journal: Journal,
        recorder: Recorder,
        hosts: Vec<RunHost>,
    ) -> Result<Driver<'a>, RunError> {
        // Not from the seed: it is a secret, and no result depends on it.
        let network_key = job.plan.encrypted.then(NetworkKey::random).transpose().map_err(|error| {
            RunError::System { what: "draw the network's key", source: io::Error::other(error) }
        })?;
        let mut connections = Vec::new();
        let mut places = Vec::new();
        for RunHost { name, listen, ports, connection } in hosts {
            connections.extend(connection);
            places.push(Place { name, listen, ports });
        }
        let fleet = match &job.backend {
            Backend::Sim(_) => {
                Fleet::simulated(VirtualAgent::new(job.plan.simulation.clone(), job.plan.seed))
            }
            _ => Fleet::real(connections),
        };
        let settings = Settings {
            end_us: schedule.end_us,
            sample_every_us: sample_every_ms(job) * 1000,
            lease_ms: job.lease_ms,
        };
        let mut effects = Vec::new();
        let name = directory.path().display().to_string();
        let running = fleet.len();
        let machine = Machine::new(settings, &name, running as u32, fleet.now_us(), &mut effects);
        Ok(Driver {
            job,
            directory,
            schedule,
            network_key,
            manifest,
            journal,
            recorder,
            outstanding: Outstanding::new(schedule),
            machine,
            places,
            fleet,
            running,
            effects,
        })
    }

    async fn drive(
        &mut self,
        board: &MetricsBoard,
        interrupts: &mut Interrupts,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        let mut published = Instant::now();
        self.carry_out_effects()?;
        while self.machine.stage() != Stage::Finished || self.running > 0 {
            tokio::select! {
                biased;
                () = interrupts.recv() => self.interrupt(watcher),
                heard = self.fleet.next() => match heard {
                    Some((host, event)) => {
                        self.host_event(host, event)?;
                        if self.machine.stage() == Stage::Preparing {
                            self.tick(None);
                        }
                    }
                    None => {
                        // Counted only where it matters: it looks at all operations.
                        let over_us = self.machine.over_us().filter(|_| self.machine.stage() == Stage::Draining);
                        self.tick(over_us.map(|over_us| self.outstanding.count(over_us)));
                        watcher.progress(&self.status(), &self.recorder);
                        if self.job.metrics.is_some() && published.elapsed() >= PUBLISH_EVERY {
                            published = Instant::now();
                            board.publish(&self.recorder);
                        }
                    }
                }
            }
            self.carry_out_effects()?;
        }
        watcher.progress(&self.status(), &self.recorder);
        Ok(())
    }

    fn into_parts(self) -> Parts {
        Parts {
            schedule: Arc::clone(self.schedule),
            ending: self.machine.ending(),
            ended_us: self.machine.ended_us().unwrap_or(0),
            simulated: self.fleet.trace(),
            manifest: self.manifest,
            journal: self.journal,
            recorder: self.recorder,
        }
    }

    fn status(&self) -> Status {
        Status {
            stage: self.machine.stage(),
            run_us: self.machine.run_us(self.fleet.now_us()),
            end_us: self.schedule.end_us,
            hosts: self.places.len() as u32,
            nodes: self.schedule.nodes.len() as u32,
        }
    }

    fn tick(&mut self, outstanding: Option<usize>) {
        self.machine.tick(self.fleet.now_us(), outstanding, &mut self.effects);
    }

    fn interrupt(&mut self, watcher: &mut dyn Watcher) {
        watcher.interrupted(self.machine.stage());
        self.machine.interrupt(self.fleet.now_us(), &mut self.effects);
    }

    fn host_event(&mut self, host: HostIndex, event: HostEvent) -> Result<(), RunError> {
        match event {
            HostEvent::Said(mut notice) => {
                // The user's own names for hosts are those of the results.
                if let (Notice::Ready { host: facts, .. }, Backend::Hosts(_)) =
                    (&mut notice, &self.job.backend)
                {
                    facts.name.clone_from(&self.places[host as usize].name);
                }
                let start_us = self.machine.host(host).start_us;
                self.machine.notice(self.fleet.now_us(), host, &notice, &mut self.effects);
                self.outstanding.notice(start_us.unwrap_or(0), &notice);
                self.recorder.notice(host, start_us, &notice)?;
            }
            HostEvent::Ended { status, why } => {
                self.running -= 1;
                self.journal.note(Entry::AgentEnded { host, status: status.clone() })?;
                let at_us = self.machine.run_us(self.fleet.now_us());
                self.lost(host, at_us, &format!("{why} ({status})"))?;
                self.tick(None);
            }
        }
        Ok(())
    }

    /// A host's agent cannot be worked with, whatever it still does: it is ended, and its nodes are when it was last heard.
    fn give_up(&mut self, host: HostIndex, reason: &str) -> Result<(), RunError> {
        self.fleet.kill(host);
        self.lost(host, self.machine.heard_us(host), reason)
    }

    /// A host's agent is gone since `at_us`, or as good as gone.
    fn lost(&mut self, host: HostIndex, at_us: u64, reason: &str) -> Result<(), RunError> {
        if !self.machine.host(host).is_there() || self.machine.lost(host) {
            return Ok(());
        }
        self.outstanding.host_lost(host);
        self.manifest.hosts[host as usize].lost = Some(reason.to_owned());
        let noticed_us = self.machine.run_us(self.fleet.now_us());
        let gone_us = noticed_us.saturating_add(self.job.lease_ms * 1000);
        self.recorder.host_lost(host, Loss { at_us, noticed_us, gone_us }, reason)?;
        Ok(())
    }

    fn carry_out_effects(&mut self) -> Result<(), RunError> {
        // Giving a host up may make room for a further effect, but only one more of each.
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.carry_out(effect)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), RunError> {
        match effect {
            Effect::Send(host, request) => {
                if matches!(request, Request::Start { .. })
                    && self.manifest.hosts[host as usize].start_us.is_none()
                {
                    self.started(host)?;
                }
                self.say(host, Outgoing::Request(Box::new(request)))
            }
            Effect::Prepare(host) => {
                let request = self.prepare(host);
                self.say(host, Outgoing::Request(Box::new(request)))
            }
            Effect::SendSchedule(host) => {
                let addresses = Arc::new(self.machine.addresses());
                if self.job.plan.faults == FaultsWith::Kernel {
                    let id = |node| self.schedule.nodes.get(node as usize).map(|node| node.slot.id);
                    let placed = addresses.iter().filter_map(|(node, at)| Some((id(*node)?, *at)));
                    let placed = Arc::new(placed.collect());
                    self.say(host, Outgoing::Kernel(placed))?;
                }
                self.say(host, Outgoing::Addresses(addresses))?;
                self.say(host, Outgoing::Slice(Arc::clone(self.schedule)))
            }
            Effect::Measured(host, clock) => {
                let known = self.machine.host(host).clock;
                self.recorder.clock_error(host, known.map_or(clock.error_us, |known| known.error_us));
                self.manifest.hosts[host as usize].measured(clock);
                Ok(())
            }
            Effect::GiveUp(host, reason) => self.give_up(host, &reason),
        }
    }

    fn say(&mut self, host: HostIndex, outgoing: Outgoing) -> Result<(), RunError> {
        if !self.machine.host(host).is_there() || self.fleet.say(host, outgoing) {
            return Ok(());
        }
        self.give_up(host, "its agent does not listen")
    }

    fn started(&mut self, host: HostIndex) -> Result<(), RunError> {
        let state = self.machine.host(host);
        let entry = &mut self.manifest.hosts[host as usize];
        entry.facts.clone_from(&state.facts);
        entry.start_us = state.start_us;
        if self.manifest.started.is_none() {
            self.manifest.started = Some(manifest::now());
        }
        write_manifest(&self.manifest, self.directory)
    }

    fn prepare(&self, host: HostIndex) -> Request {
        let here = self.schedule.nodes.iter().filter(|node| node.host == host);
        let nodes: Vec<NodeSlot> = here.map(|node| node.slot).collect();
        Request::Prepare(Preparation {
            net: self.job.plan.net,
            listen: self.places[host as usize].listen,
            ports: self.places[host as usize].ports,
            metrics: self.job.metrics.is_some(),
            sample_every_ms: sample_every_ms(self.job),
            isolation: self.job.plan.isolation,
            nodes,
            network_key: self.network_key.clone(),
        })
    }
}
