//! From what a plan says to a [`Plan`] that can run. All mistakes are looked for, and told at once.

mod simulation;
mod steps;
mod targets;
mod whole;
mod workload;

use std::time::Duration;

use p2ps::agent::protocol::Isolation;
use p2ps::config::{Geometry, NetConfig, Routing, Stabilise};
use p2ps::core::geometry::{at_most_hops, at_most_links};

use super::decode::Field;
use super::diagnose::{PROBLEMS_MAX, Problem};
use super::document::{Document, ValueIndex};
use super::expect::Expect;
use super::schema::{
    RawAtMost, RawFaultsWith, RawGeometry, RawGroups, RawIsolation, RawJoin, RawNetwork, RawPlan,
    RawStabilise,
};
use super::targets::FaultsWith;
use super::units::{Name, Rate, Unit};
use super::{EXPECTATIONS_MAX, Expectation, NODES_MAX, Plan, VIRTUAL_HOSTS_MAX, join_time};

/// How fast nodes join where the plan does not say.
const JOIN_RATE_DEFAULT: f64 = 20.0;

/// Checks what `document` says as `raw`.
pub(crate) fn check(raw: RawPlan, document: &Document) -> Result<Plan, Vec<Problem>> {
    let mut checker = Checker { document, problems: Vec::new(), group_names: Vec::new() };
    let plan = checker.plan(&raw);
    match plan {
        Some(plan) if checker.problems.is_empty() => Ok(plan),
        _ => {
            checker.problems.sort_by_key(|problem| {
                problem.place.as_ref().map(|place| (place.source.is_override, place.offset))
            });
            checker.problems.truncate(PROBLEMS_MAX);
            Err(checker.problems)
        }
    }
}

fn isolation(raw: Option<RawIsolation>) -> Isolation {
    match raw {
        None => Isolation::default(),
        Some(RawIsolation::Process) => Isolation::Process,
        Some(RawIsolation::Task) => Isolation::Task,
    }
}

struct Checker<'a> {
    document: &'a Document,
    problems: Vec<Problem>,
    /// The plan's groups.
    group_names: Vec<String>,
}

/// A value, and where it was written.
#[derive(Clone, Copy)]
struct At<T>(T, ValueIndex);

impl Checker<'_> {
    fn plan(&mut self, raw: &RawPlan) -> Option<Plan> {
        let name = self.read::<Name>(&raw.name);
        let seed = self.read_or(raw.seed.as_ref(), 0);
        let nodes = self.nodes(&raw.nodes);
        let net = self.network(raw.network.as_ref(), nodes);
        let encrypted = raw.network.as_ref().and_then(|network| network.encrypted.as_ref());
        let encrypted = self.read_or(encrypted, false);
        let nodes = nodes.and_then(|nodes| self.nodes_that_fit(nodes, net.as_ref(), raw.nodes.index));
        let join_rate = self.join(raw.join.as_ref());
        let groups = self.groups(raw.groups.as_ref(), nodes);
        let virtual_hosts = self.virtual_hosts(raw.virtual_hosts.as_ref());
        let faults = match raw.faults.as_ref().and_then(|faults| faults.with) {
            None | Some(RawFaultsWith::Node) => FaultsWith::Node,
            Some(RawFaultsWith::Kernel) => FaultsWith::Kernel,
        };
        let workload = self.workload(raw.workload.as_deref().unwrap_or_default());
        // What a name means is asked by the timeline, whatever else is wrong with the group.
        self.group_names =
            raw.groups.iter().flat_map(|RawGroups(all)| all).map(|(name, _)| name.clone()).collect();
        let timeline = self.timeline(raw.timeline.as_deref().unwrap_or_default());
        let expect = self.expectations(raw.expect.as_deref().unwrap_or_default());
        let prepared = matches!(raw.join, Some(RawJoin::Prepared));
        let simulation = self.simulation(raw.sim.as_ref(), prepared);
        let duration = raw.duration.as_ref().map(|field| At(self.read::<Duration>(field), field.index));

        let (Some(nodes), Some(join_rate)) = (nodes, join_rate) else { return None };
        let join_end = join_time(join_rate, nodes - 1);
        if let (Some(steps), Some(net)) = (&timeline, &net) {
            self.population(nodes, join_rate, steps, net.ring(), raw.nodes.index);
            self.windows(join_end, steps, &expect);
            self.within_reach(steps, net.ring(), groups.as_deref().unwrap_or_default(), faults);
        }
        let duration = match duration {
            None => self.default_duration(
                workload::busy_until(join_end, workload.as_deref()),
                timeline.as_deref().unwrap_or_default(),
                &expect,
                raw.nodes.index,
            ),
            Some(At(None, _)) => None,
            Some(At(Some(duration), at)) => {
                self.within_duration(
                    At(duration, at),
                    join_end,
                    timeline.as_deref().unwrap_or_default(),
                    &expect,
                );
                Some(duration)
            }
        };
        let (duration, workload, timeline) = (duration?, workload?, timeline?);
        self.measured(&workload, &expect);
        self.operations(&workload, nodes, duration);
        let plan = Plan {
            name: name?.0,
            seed: seed?,
            net: net?,
            encrypted: encrypted?,
            nodes,
            isolation: isolation(raw.isolation),
            join_rate,
            groups: groups?,
            virtual_hosts: virtual_hosts?,
            faults,
            workload: workload.into_iter().map(|At(workload, _)| workload).collect(),
            timeline: timeline.into_iter().map(|At(step, _)| step).collect(),
            duration,
            expect: expect.into_iter().map(|At(expectation, _)| expectation).collect(),
            simulation: simulation?,
        };
        Some(plan)
    }

    fn network(&mut self, raw: Option<&RawNetwork>, nodes: Option<u32>) -> Option<NetConfig> {
        let default = NetConfig::default();
        let Some(raw) = raw else { return Some(default) };
        let ring = self.read_or(raw.max_size.as_ref(), default.ring());
        let successors = self.read_or(raw.successors.as_ref(), default.successors() as u8);
        let geometry = match raw.geometry.as_ref() {
            None => Some(default.geometry()),
            Some(geometry) => self.geometry(geometry, nodes),
        };
        let routing = self.routing(raw);
        let replication = self.read_or(raw.replication.as_ref(), default.replication());
        let (ring, geometry, successors) = (ring?, geometry?, successors?);
        let (routing, replication) = (routing?, replication?);
        // The geometry has been checked: what is left to refuse are the successor list's length and the replication.
        let net = NetConfig::new(ring, geometry, successors).map_err(|error| (error, &raw.successors));
        let net =
            net.and_then(|net| net.with_replication(replication).map_err(|error| (error, &raw.replication)));
        match net {
            // Its options have been checked too.
            Ok(net) => net.with_routing(routing).ok(),
            Err((error, field)) => {
                self.problem(field.as_ref().map(|field| field.index), error.to_string(), None);
                None
            }
        }
    }

    fn routing(&mut self, raw: &RawNetwork) -> Option<Routing> {
        let default = Routing::default();
        let correction_on_use = self.read_or(raw.correction_on_use.as_ref(), default.correction_on_use);
        let correction_on_change =
            self.read_or(raw.correction_on_change.as_ref(), default.correction_on_change);
        let proximity = self.read_or(raw.proximity.as_ref(), default.proximity);
        let stabilise = match &raw.stabilise {
            None => Some(default.stabilise),
            Some(RawStabilise::Adaptive) => Some(Stabilise::Adaptive),
            Some(RawStabilise::Every(field)) => self.read(field).and_then(|period: Duration| {
                let period_ms = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
                let stabilise = Stabilise::Every { period_ms };
                self.option(Routing { stabilise, ..default }, field.index).map(|options| options.stabilise)
            }),
        };
        let link_cache = match &raw.link_cache {
            None => Some(default.link_cache),
            Some(field) => self.read(field).and_then(|link_cache| {
                self.option(Routing { link_cache, ..default }, field.index).map(|options| options.link_cache)
            }),
        };
        Some(Routing {
            correction_on_use: correction_on_use?,
            correction_on_change: correction_on_change?,
            stabilise: stabilise?,
            proximity: proximity?,
            link_cache: link_cache?,
        })
    }

    /// One option of routing beside defaults, if it is within its bounds.
    fn option(&mut self, options: Routing, index: ValueIndex) -> Option<Routing> {
        match options.checked() {
            Ok(options) => Some(options),
            Err(error) => {
                self.problem(Some(index), error.to_string(), None);
                None
            }
        }
    }

    fn geometry(&mut self, raw: &RawGeometry, nodes: Option<u32>) -> Option<Geometry> {
        let (geometry, index) = match raw {
            RawGeometry::Chord => return Some(Geometry::Chord),
            RawGeometry::Dks(raw) => (Geometry::Dks { k: self.read(&raw.k)? }, raw.k.index),
            RawGeometry::Tango(raw) => {
                let (k, symmetric) = (self.read(&raw.k), self.read_or(raw.symmetric.as_ref(), false));
                (Geometry::Tango { k: k?, symmetric: symmetric? }, raw.k.index)
            }
            RawGeometry::AtMost(raw) => {
                let nodes = u128::from(nodes?);
                let (index, found) = match raw {
                    RawAtMost::Hops(field) => (field.index, at_most_hops(self.read(field)?, nodes)),
                    RawAtMost::Links(field) => (field.index, at_most_links(self.read(field)?, nodes)),
                };
                return match found {
                    Ok(geometry) => Some(geometry),
                    Err(error) => {
                        self.refuse(index, error.to_string(), "raise the bound, or run fewer nodes")
                    }
                };
            }
        };
        match geometry.checked() {
            Ok(geometry) => Some(geometry),
            Err(error) => {
                self.problem(Some(index), error.to_string(), None);
                None
            }
        }
    }

    fn nodes(&mut self, field: &Field<u32>) -> Option<u32> {
        let nodes = self.read(field)?;
        if nodes == 0 {
            return self.refuse(field.index, "a network has at least one node", "write a number such as 64");
        }
        if nodes > NODES_MAX {
            let message = format!("{nodes} nodes are more than one run can have");
            return self.refuse(field.index, message, format!("at most {NODES_MAX}"));
        }
        Some(nodes)
    }

    fn nodes_that_fit(&mut self, nodes: u32, net: Option<&NetConfig>, index: ValueIndex) -> Option<u32> {
        let Some(ring) = net.map(NetConfig::ring).filter(|ring| u128::from(nodes) > ring.max_size()) else {
            return Some(nodes);
        };
        let message = format!("{nodes} nodes do not fit on a ring of {ring} ids");
        self.refuse(index, message, "each node has its own id: raise network.max_size or take fewer nodes")
    }

    fn virtual_hosts(&mut self, field: Option<&Field<u32>>) -> Option<u32> {
        let hosts = self.read_or(field, 1)?;
        match field {
            Some(field) if !(1..=VIRTUAL_HOSTS_MAX).contains(&hosts) => {
                let hint = format!("1 to {VIRTUAL_HOSTS_MAX}");
                self.refuse(field.index, format!("nodes cannot count as {hosts} hosts"), hint)
            }
            _ => Some(hosts),
        }
    }

    /// `Some(None)`: all at once.
    fn join(&mut self, raw: Option<&RawJoin>) -> Option<Option<f64>> {
        match raw {
            None => Some(Some(JOIN_RATE_DEFAULT)),
            Some(RawJoin::AtOnce | RawJoin::Prepared) => Some(None),
            Some(RawJoin::Rate(field)) => self.read(field).map(|Rate(rate)| Some(rate)),
        }
    }

    fn expectations(&mut self, raw: &[Field<Expect>]) -> Vec<At<Expectation>> {
        if let Some(field) = raw.get(EXPECTATIONS_MAX) {
            self.problem(
                Some(field.index),
                format!("a plan has at most {EXPECTATIONS_MAX} expectations"),
                None,
            );
        }
        let known = raw.iter().take(EXPECTATIONS_MAX);
        known
            .filter_map(|field| self.read(field).map(|Expect(expectation)| At(expectation, field.index)))
            .collect()
    }

    fn read<U: Unit>(&mut self, field: &Field<U>) -> Option<U> {
        match U::parse(field.text.trim()) {
            Ok(value) => Some(value),
            Err(error) => self.refuse(field.index, error.message, error.hint),
        }
    }

    fn read_or<U: Unit>(&mut self, field: Option<&Field<U>>, default: U) -> Option<U> {
        field.map_or(Some(default), |field| self.read(field))
    }

    fn refuse<T>(
        &mut self,
        index: ValueIndex,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Option<T> {
        self.problem(Some(index), message.into(), Some(hint.into()));
        None
    }

    fn problem(&mut self, index: Option<ValueIndex>, message: String, hint: Option<String>) {
        let place = index.and_then(|index| self.document.place(index));
        let path = index.map_or("", |index| self.document.path(index));
        let message = if path.is_empty() { message } else { format!("`{path}`: {message}") };
        self.problems.push(Problem { place, message, hint });
    }
}
