//! Who is who in a run: which nodes each host has, who is in each named group, who has which role.
//!
//! Nodes go round the hosts in turn. Groups are drawn once for the whole run, first those of hosts, each of hosts that no other has,
//! then the others, among the plan's first nodes in no group of hosts. Roles are looked up at their moment, among the nodes that the
//! plan has up then.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use p2ps::agent::protocol::NodeIndex;
use p2ps::id::{Id, Ring};

use super::chance::{Chance, Stream};
use super::{HostIndex, ScheduleError};
use crate::plan::targets::{Group, HostChoice, Members, Target};
use crate::plan::{Amount, Plan};

/// The hosts of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Their names, by their numbers.
    names: Vec<String>,
}

impl Hosts {
    /// Hosts with these names; none count as one.
    pub fn named(names: Vec<String>) -> Hosts {
        if names.is_empty() { Hosts::from(1) } else { Hosts { names } }
    }

    /// So many hosts to think a plan through with: first those that it names.
    pub fn imagined(plan: &Plan, count: u32) -> Hosts {
        let mut names = plan.hosts_named();
        names.truncate(count as usize);
        names.extend((1..).map(host_name).take((count as usize).saturating_sub(names.len())));
        Hosts::named(names)
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.names.len() as u32
    }
}

/// So many hosts (0 counts as 1), called `host1`, `host2`, …
impl From<u32> for Hosts {
    fn from(count: u32) -> Hosts {
        Hosts { names: (1..=count.max(1)).map(host_name).collect() }
    }
}

fn host_name(number: u32) -> String {
    format!("host{number}")
}

/// Who is who.
pub(super) struct Cast<'a> {
    plan: &'a Plan,
    /// The hosts that the plan's steps mean: virtual ones, where all nodes run on one.
    hosts: Hosts,
    ids: Ids,
    groups: Vec<Crew>,
}

/// The nodes of a group.
enum Crew {
    Nodes(BTreeSet<NodeIndex>),
    Hosts(BTreeSet<HostIndex>),
}

impl<'a> Cast<'a> {
    /// Draws the groups of `plan` on these hosts.
    pub(super) fn new(plan: &'a Plan, hosts: &Hosts) -> Result<Cast<'a>, ScheduleError> {
        let hosts = if hosts.count() == 1 && plan.virtual_hosts > 1 {
            Hosts::from(plan.virtual_hosts)
        } else {
            hosts.clone()
        };
        let ids = Ids::new(plan.seed, plan.net.ring());
        let mut cast = Cast { plan, hosts, ids, groups: Vec::new() };
        cast.draw_groups()?;
        Ok(cast)
    }

    /// The ids of the first `count` nodes.
    pub(super) fn ids(&mut self, count: u32) -> Vec<Id> {
        (0..count).map(|node| self.ids.of(node)).collect()
    }

    /// How many hosts steps speak of.
    pub(super) fn hosts(&self) -> u32 {
        self.hosts.count()
    }

    /// The host that steps take a node to be on.
    pub(super) fn host(&self, node: NodeIndex) -> HostIndex {
        node % self.hosts.count()
    }

    /// Whether a node is in the group with this name.
    pub(super) fn is_in(&self, group: &str, node: NodeIndex) -> bool {
        let groups = self.plan.groups.iter().zip(&self.groups);
        groups.filter(|(known, _)| known.name == group).any(|(_, crew)| match crew {
            Crew::Nodes(nodes) => nodes.contains(&node),
            Crew::Hosts(hosts) => hosts.contains(&self.host(node)),
        })
    }

    /// Some hosts, of `among` where they are drawn.
    pub(super) fn choose_hosts(
        &self,
        chance: &mut Chance,
        choice: &HostChoice,
        among: Vec<HostIndex>,
    ) -> Result<BTreeSet<HostIndex>, ScheduleError> {
        match choice {
            HostChoice::Named(names) => names.iter().map(|name| self.host_with_name(name)).collect(),
            HostChoice::Drawn(amount) => {
                let left = among.len() as u32;
                let wanted = match amount {
                    Amount::Count(_) => amount.of(left),
                    Amount::Share(_) => amount.of(self.hosts()).min(left),
                };
                if wanted > left || left == 0 {
                    return Err(ScheduleError::TooFewHosts { wanted: wanted.max(1), left });
                }
                Ok(chance.sample(among, wanted as usize).into_iter().collect())
            }
        }
    }

    /// Those of `among` that `target` means, in rising order, while the nodes of `up` are up.
    pub(super) fn choose(
        &mut self,
        chance: &mut Chance,
        target: &Target,
        mut among: Vec<NodeIndex>,
        up: &[NodeIndex],
    ) -> Result<Vec<NodeIndex>, ScheduleError> {
        among.sort_unstable();
        let mut chosen = match target {
            Target::Some(amount) => {
                let count = amount.of(up.len() as u32);
                chance.sample(among, count as usize)
            }
            Target::Group { group, amount } => {
                among.retain(|node| self.is_in(group, *node));
                let count = amount.of(among.len() as u32);
                chance.sample(among, count as usize)
            }
            Target::Hosts(choice) => {
                let any: BTreeSet<HostIndex> = among.iter().map(|node| self.host(*node)).collect();
                let choice = match choice {
                    // A share is of the hosts that have any.
                    HostChoice::Drawn(share @ Amount::Share(_)) => {
                        &HostChoice::Drawn(Amount::Count(share.of(any.len() as u32)))
                    }
                    choice => choice,
                };
                let hosts = self.choose_hosts(chance, choice, any.into_iter().collect())?;
                among.retain(|node| hosts.contains(&self.host(*node)));
                among
            }
            Target::SuccessorOf(key) => {
                let ring = self.plan.net.ring();
                let responsible =
                    up.iter().min_by_key(|node| ring.distance(*key, self.ids.of(**node))).copied();
                among.retain(|node| Some(*node) == responsible);
                among
            }
            Target::Heaviest(amount) => {
                let count = amount.of(up.len() as u32) as usize;
                let mut heaviest = self.by_range(up);
                heaviest.retain(|node| among.binary_search(node).is_ok());
                heaviest.truncate(count);
                heaviest
            }
        };
        chosen.sort_unstable();
        Ok(chosen)
    }

    /// Nodes with the largest ranges first, from the one before on the ring (not included) to themselves, while only they are up.
    fn by_range(&mut self, up: &[NodeIndex]) -> Vec<NodeIndex> {
        let ring = self.plan.net.ring();
        let mut placed: Vec<(Id, NodeIndex)> = up.iter().map(|node| (self.ids.of(*node), *node)).collect();
        placed.sort_unstable();
        let before = placed.last().map(|(id, _)| *id).into_iter().chain(placed.iter().map(|(id, _)| *id));
        let mut ranges: Vec<(Reverse<u64>, Id, NodeIndex)> = before
            .zip(&placed)
            .map(|(before, (id, node))| (Reverse(ring.distance(before, *id)), *id, *node))
            .collect();
        ranges.sort_unstable();
        ranges.into_iter().map(|(.., node)| node).collect()
    }

    fn draw_groups(&mut self) -> Result<(), ScheduleError> {
        let mut chance = Chance::new(self.plan.seed, Stream::Groups);
        let mut crews: Vec<Option<Crew>> = self.plan.groups.iter().map(|_| None).collect();
        let mut free: BTreeSet<HostIndex> = (0..self.hosts()).collect();
        // Named hosts are nobody's to draw, whatever the order.
        let is_named = |group: &Group| matches!(group.members, Members::Hosts(HostChoice::Named(_)));
        for named in [true, false] {
            for (crew, group) in crews.iter_mut().zip(&self.plan.groups) {
                let Members::Hosts(choice) = &group.members else { continue };
                if is_named(group) == named {
                    let hosts = self.choose_hosts(&mut chance, choice, free.iter().copied().collect())?;
                    free.retain(|host| !hosts.contains(host));
                    *crew = Some(Crew::Hosts(hosts));
                }
            }
        }
        let mut left: Vec<NodeIndex> =
            (0..self.plan.nodes).filter(|node| free.contains(&self.host(*node))).collect();
        for (crew, group) in crews.iter_mut().zip(&self.plan.groups) {
            let Members::Drawn(amount) = group.members else { continue };
            let wanted = amount.of(self.plan.nodes);
            if wanted as usize > left.len() {
                let group = group.name.clone();
                return Err(ScheduleError::GroupTooLarge { group, wanted, left: left.len() as u32 });
            }
            let nodes: BTreeSet<NodeIndex> =
                chance.sample(left.clone(), wanted as usize).into_iter().collect();
            left.retain(|node| !nodes.contains(node));
            *crew = Some(Crew::Nodes(nodes));
        }
        self.groups = crews.into_iter().flatten().collect();
        Ok(())
    }

    fn host_with_name(&self, name: &str) -> Result<HostIndex, ScheduleError> {
        let at = self.hosts.names.iter().position(|known| known == name);
        at.map(|at| at as HostIndex).ok_or_else(|| ScheduleError::UnknownHost {
            host: name.to_owned(),
            hosts: self.hosts.names.clone(),
        })
    }
}

/// The nodes' ids, distinct, drawn in the order of their numbers as far as they are asked for.
struct Ids {
    chance: Chance,
    ring: Ring,
    seen: BTreeSet<Id>,
    drawn: Vec<Id>,
}

impl Ids {
    fn new(seed: u64, ring: Ring) -> Ids {
        Ids { chance: Chance::new(seed, Stream::Ids), ring, seen: BTreeSet::new(), drawn: Vec::new() }
    }

    /// The id of a node. The ring has room for all nodes: plans are checked for it, and churn takes no more in.
    fn of(&mut self, node: NodeIndex) -> Id {
        while self.drawn.len() <= node as usize {
            assert!((self.seen.len() as u128) < self.ring.max_size(), "all nodes of a run fit on its ring");
            let id = self.chance.id(self.ring);
            if self.seen.insert(id) {
                self.drawn.push(id);
            }
        }
        self.drawn[node as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        crate::plan::parse("plan.yaml", text, &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_full_ring_can_be_drawn() {
        let mut ids = Ids::new(7, Ring::new(64).unwrap());
        let mut all: Vec<Id> = (0..64).map(|node| ids.of(node)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..64).map(Id).collect::<Vec<_>>());
    }

    #[test]
    fn roles_are_those_of_the_ring_as_it_is_then() {
        let plan = plan("name: x\nnodes: 5\nnetwork: {max_size: 100}\n");
        let mut cast = Cast::new(&plan, &Hosts::from(1)).unwrap();
        let mut placed: Vec<(u64, NodeIndex)> = cast.ids(5).into_iter().map(|id| id.0).zip(0..).collect();
        placed.sort_unstable();
        let mut chance = Chance::new(0, Stream::Step(0));
        let mut choose =
            |target: Target, up: &[NodeIndex]| cast.choose(&mut chance, &target, up.to_vec(), up).unwrap();
        let up: Vec<NodeIndex> = (0..5).collect();
        for (at, (id, node)) in placed.iter().enumerate() {
            assert_eq!(choose(Target::SuccessorOf(Id(*id)), &up), [*node]);
            let next = placed[(at + 1) % 5].1;
            assert_eq!(
                choose(Target::SuccessorOf(Id((id + 1) % 100)), &up),
                [next],
                "unless ids are neighbours"
            );
            let without: Vec<NodeIndex> = up.iter().copied().filter(|other| other != node).collect();
            assert_eq!(choose(Target::SuccessorOf(Id(*id)), &without), [next], "the next one is its heir");
        }
        let range = |at: usize| (placed[at].0 + 100 - placed[(at + 4) % 5].0) % 100;
        let heaviest = (0..5).max_by_key(|at| range(*at)).unwrap();
        assert_eq!(choose(Target::Heaviest(Amount::Count(1)), &up), [placed[heaviest].1]);
        assert_eq!(choose(Target::Heaviest(Amount::Share(1.0)), &up), up);
        assert_eq!(choose(Target::Heaviest(Amount::Count(1)), &[3]), [3]);
    }

    #[test]
    fn groups_have_no_node_in_common_and_hosts_are_taken_whole() {
        for seed in 0..50 {
            let plan = plan(&format!(
                "name: x\nseed: {seed}\nnodes: 60\ngroups: {{a: 20%, west: {{hosts: [h2]}}, b: 10, two: {{hosts: 2}}}}\n"
            ));
            let hosts = Hosts::named(["h1", "h2", "h3", "h4", "h5", "h6"].map(str::to_owned).to_vec());
            let cast = Cast::new(&plan, &hosts).unwrap();
            let of = |group: &str| (0..60).filter(|node| cast.is_in(group, *node)).collect::<Vec<_>>();
            let sizes = ["a", "b", "west", "two"].map(|group| of(group).len());
            assert_eq!(sizes, [12, 10, 10, 20], "seed {seed}");
            assert!(of("west").iter().all(|node| node % 6 == 1));
            let all: BTreeSet<NodeIndex> = ["a", "b", "west", "two"].into_iter().flat_map(of).collect();
            assert_eq!(all.len(), 52, "seed {seed}: no node is in two groups");
            assert!(cast.is_in("west", 61), "also who joins later, on its host");
            assert!(!(60..200).any(|node| cast.is_in("a", node) || cast.is_in("b", node)));
        }
    }

    #[test]
    fn what_the_hosts_do_not_have_is_told() {
        let error = |groups: &str, hosts: u32| {
            let plan = plan(&format!("name: x\nnodes: 10\ngroups: {groups}\n"));
            Cast::new(&plan, &Hosts::from(hosts)).err().unwrap().to_string()
        };
        assert!(error("{a: {hosts: [paris]}}", 3).contains("no host called paris"));
        assert!(error("{a: {hosts: 3}, b: {hosts: 1}}", 3).contains("0 are left"));
        assert!(error("{a: {hosts: 1}, b: 80%}", 2).contains("b wants 8 nodes"));
    }

    #[test]
    fn the_hosts_that_a_plan_names_are_imagined_first() {
        let plan = plan(
            "name: x\nnodes: 10\ngroups: {a: {hosts: [paris, rome]}}\ntimeline:\n  - {at: 1s, kill: {hosts: [oslo]}}\n",
        );
        assert_eq!(Hosts::imagined(&plan, 4).names, ["paris", "rome", "oslo", "host1"]);
        assert_eq!(Hosts::imagined(&plan, 2).names, ["paris", "rome"]);
    }
}
