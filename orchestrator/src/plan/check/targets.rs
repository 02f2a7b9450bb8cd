//! Whom the plan speaks of: its groups, and the targets and sides of its steps.

use std::collections::BTreeSet;
use std::fmt;

use p2ps::agent::protocol::KERNEL_JITTER_US_MAX;
use p2ps::id::{Id, Ring};

use super::{At, Checker};
use crate::plan::decode::OneOrMore::{More, One};
use crate::plan::document::ValueIndex;
use crate::plan::names::{GroupName, HostAmount, HostName, SideWord};
use crate::plan::schema::{RawGroups, RawHosts, RawMembers, RawOfHosts, RawSide, RawTarget, RawWhom};
use crate::plan::targets::{
    FaultsWith, Group, HOSTS_NAMED_MAX, HostChoice, Links, Members, NAMED_GROUPS_MAX, Side, Target,
};
use crate::plan::units::Unit;
use crate::plan::{Amount, SIDES_MAX, Step, StepEvent};

impl Checker<'_> {
    /// The plan's groups: no host is named in two of them, and there are as many nodes as they want.
    pub(super) fn groups(&mut self, raw: Option<&RawGroups>, nodes: Option<u32>) -> Option<Vec<Group>> {
        let raw = raw.map_or(&[][..], |RawGroups(groups)| groups);
        let fallback = raw.iter().find_map(|(_, members)| members_index(members));
        if raw.len() > NAMED_GROUPS_MAX {
            self.problem(fallback, format!("a plan has at most {NAMED_GROUPS_MAX} groups"), None);
            return None;
        }
        let mut groups = Vec::new();
        let (mut taken, mut named): (u64, BTreeSet<String>) = (0, BTreeSet::new());
        for (name, members) in raw {
            let index = members_index(members);
            let name = match GroupName::parse(name) {
                Ok(GroupName(name)) => Some(name),
                Err(error) => {
                    self.problem(index, error.message, Some(error.hint));
                    None
                }
            };
            let members = match members {
                One(field) => self.read(field).map(Members::Drawn),
                More(RawOfHosts { hosts }) => self.hosts(hosts, index).map(Members::Hosts),
            };
            match (&members, nodes) {
                (Some(Members::Drawn(amount)), Some(nodes)) => {
                    taken += u64::from(amount.of(nodes));
                    if taken > u64::from(nodes) {
                        let message =
                            format!("the groups so far want {taken} nodes, but the plan has {nodes}");
                        let hint = "no node is in two groups: take fewer or smaller ones";
                        self.problem(index, message, Some(hint.to_owned()));
                        return None;
                    }
                }
                (Some(Members::Hosts(HostChoice::Named(names))), _) => {
                    if let Some(twice) = names.iter().find(|name| !named.insert((*name).clone())) {
                        let message = format!("the host {twice} is named twice");
                        self.problem(index, message, Some("no node is in two groups".to_owned()));
                        return None;
                    }
                }
                _ => {}
            }
            groups.push(name.zip(members).map(|(name, members)| Group { name, members }));
        }
        groups.into_iter().collect()
    }

    /// Whom a step that `can_have_roles` is done to.
    pub(super) fn target(
        &mut self,
        raw: &RawTarget,
        can_have_roles: bool,
        index: ValueIndex,
    ) -> Option<Target> {
        let RawWhom { group, nodes, hosts, successor_of, heaviest } = match raw {
            One(field) => return self.read(field).map(Target::Some),
            More(whom) => whom,
        };
        let role = successor_of.as_ref().map(|field| field.index);
        let role = role.or(heaviest.as_ref().map(|field| field.index));
        if let Some(role) = role.filter(|_| !can_have_roles) {
            let hint = "restart a group's nodes, some hosts', or so many";
            return self.refuse(role, "nodes that are down have no place on the ring", hint);
        }
        let hint =
            "write {group: NAME}, {hosts: 2}, {hosts: [NAME, NAME]}, {successor_of: KEY} or {heaviest: 1}";
        let target = match (group, hosts, successor_of, heaviest) {
            (Some(group), None, None, None) => {
                let name = self.known_group(group.index, &group.text);
                let amount = self.read_or(nodes.as_ref(), Amount::Share(1.0));
                return Some(Target::Group { group: name?, amount: amount? });
            }
            (None, Some(hosts), None, None) => Target::Hosts(self.hosts(hosts, Some(index))?),
            (None, None, Some(key), None) => Target::SuccessorOf(Id(self.read(key)?)),
            (None, None, None, Some(amount)) => Target::Heaviest(self.read(amount)?),
            (None, None, None, None) => return self.refuse(index, "nobody is meant", hint),
            _ => {
                return self.refuse(
                    index,
                    "one target has one of group, hosts, successor_of and heaviest",
                    hint,
                );
            }
        };
        if let Some(nodes) = nodes {
            return self.refuse(nodes.index, "only a group can be taken in part", "leave `nodes` out");
        }
        Some(target)
    }

    pub(super) fn sides(&mut self, raw: &[RawSide], index: ValueIndex) -> Option<Vec<Side>> {
        let hint = "write it like [50%, 50%], [80%, 10%, 10%], [edge, core] or [{hosts: 2}, rest]";
        let sides: Vec<Option<Side>> =
            raw.iter().take(SIDES_MAX).map(|side| self.side(side, index)).collect();
        let sides: Vec<Side> = sides.into_iter().collect::<Option<_>>()?;
        if !(2..=SIDES_MAX).contains(&raw.len()) {
            let message = format!("a partition has 2 to {SIDES_MAX} sides, not {}", raw.len());
            return self.refuse(index, message, hint);
        }
        let shares: Vec<f64> = sides
            .iter()
            .filter_map(|side| if let Side::Share(share) = side { Some(*share) } else { None })
            .collect();
        match shares.len() {
            0 => {
                let texts: BTreeSet<String> =
                    sides.iter().filter(|side| !is_drawn(side)).map(Side::to_string).collect();
                if texts.len() < sides.iter().filter(|side| !is_drawn(side)).count() {
                    return self.refuse(index, "a side is said twice", "a node is on one side");
                }
            }
            count if count < sides.len() => {
                return self.refuse(index, "shares of the nodes stand beside groups or hosts", hint);
            }
            _ if shares.contains(&0.0) => return self.refuse(index, "a side of no nodes", hint),
            _ if (shares.iter().sum::<f64>() - 1.0).abs() > 1e-9 => {
                return self.refuse(index, "the sides of a partition are 100% together", hint);
            }
            _ => {}
        }
        Some(sides)
    }

    /// The two ends of degraded links.
    pub(super) fn between(&mut self, raw: &[RawSide], one_way: bool, index: ValueIndex) -> Option<Links> {
        let hint = "write it like between: [edge, core], [edge, edge] or [{hosts: 2}, rest]";
        let [first, second] = raw else {
            let message = format!("links are between two sides, not {}", raw.len());
            return self.refuse(index, message, hint);
        };
        let (first, second) = (self.side(first, index), self.side(second, index));
        let (first, second) = (first?, second?);
        if matches!(first, Side::Share(_)) || matches!(second, Side::Share(_)) {
            return self.refuse(index, "links are between groups, hosts or the rest, not shares", hint);
        }
        Some(Links::Between { first, second, one_way })
    }

    fn side(&mut self, raw: &RawSide, index: ValueIndex) -> Option<Side> {
        match raw {
            One(field) => match self.read(field)? {
                SideWord(Side::Group(name)) => self.known_group(field.index, &name).map(Side::Group),
                SideWord(side) => Some(side),
            },
            More(RawOfHosts { hosts }) => self.hosts(hosts, Some(index)).map(Side::Hosts),
        }
    }

    fn hosts(&mut self, raw: &RawHosts, index: Option<ValueIndex>) -> Option<HostChoice> {
        let fields = match raw {
            One(field) => return self.read(field).map(|HostAmount(amount)| HostChoice::Drawn(amount)),
            More(fields) => fields,
        };
        if fields.is_empty() || fields.len() > HOSTS_NAMED_MAX {
            let message = format!("1 to {HOSTS_NAMED_MAX} hosts can be named, not {}", fields.len());
            self.problem(index, message, Some("write it like {hosts: [h1, h2]} or {hosts: 2}".to_owned()));
            return None;
        }
        let names: Vec<Option<HostName>> = fields.iter().map(|field| self.read(field)).collect();
        names
            .into_iter()
            .map(|name| name.map(|HostName(name)| name))
            .collect::<Option<_>>()
            .map(HostChoice::Named)
    }

    fn known_group(&mut self, index: ValueIndex, name: &str) -> Option<String> {
        if self.group_names.iter().any(|known| known == name) {
            return Some(name.to_owned());
        }
        let hint = match crate::plan::diagnose::nearest(name, self.group_names.iter().map(String::as_str)) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None if self.group_names.is_empty() => format!("add it to the plan: groups: {{{name}: 20%}}"),
            None => format!("the plan's groups are {}", self.group_names.join(", ")),
        };
        self.refuse(index, format!("the plan has no group `{name}`"), hint)
    }

    /// Keys that a step names lie on the ring; and kernels tell hosts apart, nothing else.
    pub(super) fn within_reach(
        &mut self,
        steps: &[At<Step>],
        ring: Ring,
        groups: &[Group],
        faults: FaultsWith,
    ) {
        for At(step, index) in steps {
            let target = match &step.event {
                StepEvent::Leave(target) | StepEvent::Kill(target) | StepEvent::Pause { target, .. } => {
                    target
                }
                StepEvent::Degrade { links: Links::Of(target), .. } => target,
                _ => continue,
            };
            if let Target::SuccessorOf(key) = target
                && !ring.contains(*key)
            {
                let message = format!("the key {} does not lie on a ring of {ring} ids", key.0);
                self.problem(Some(*index), message, Some(format!("keys are 0 to {}", ring.last().0)));
            }
        }
        if faults == FaultsWith::Node {
            return;
        }
        for At(step, index) in steps {
            match &step.event {
                StepEvent::Degrade { links, shape, .. } => {
                    match links {
                        Links::Of(target) if !has_whole_hosts(target, groups) => {
                            self.part_of_a_host(target, "nodes: {hosts: 2}, or leave `nodes` out", *index);
                        }
                        Links::Between { first, second, .. } => {
                            let side = [first, second].into_iter().find(|side| !is_of_hosts(side, groups));
                            let sides = "sides of hosts, such as [{hosts: 50%}, rest]";
                            side.into_iter().for_each(|side| self.part_of_a_host(side, sides, *index));
                        }
                        Links::Of(_) => {}
                    }
                    if shape.jitter_us > KERNEL_JITTER_US_MAX {
                        let message = "kernels do not draw so much jitter".to_owned();
                        let most = KERNEL_JITTER_US_MAX / 1000;
                        let hint = format!("at most {most}ms; or take faults: {{with: node}}");
                        self.problem(Some(*index), message, Some(hint));
                    }
                }
                StepEvent::Partition { sides, .. } => {
                    let Some(side) = sides.iter().find(|side| !is_of_hosts(side, groups)) else { continue };
                    self.part_of_a_host(side, "sides of hosts, such as [{hosts: 50%}, rest]", *index);
                }
                _ => {}
            }
        }
    }

    fn part_of_a_host(&mut self, who: &dyn fmt::Display, instead: &str, index: ValueIndex) {
        let message = format!(
            "kernels tell hosts apart, but `{who}` can be a part of a host: a packet does not say which of a host's \
             nodes it is of"
        );
        self.problem(Some(index), message, Some(format!("write {instead}, or faults: {{with: node}}")));
    }
}

fn members_index(members: &RawMembers) -> Option<ValueIndex> {
    match members {
        One(field) => Some(field.index),
        More(RawOfHosts { hosts: One(field) }) => Some(field.index),
        More(RawOfHosts { hosts: More(fields) }) => fields.first().map(|field| field.index),
    }
}

/// Hosts that are drawn: two sides may say the same, and be others.
fn is_drawn(side: &Side) -> bool {
    matches!(side, Side::Hosts(HostChoice::Drawn(_)))
}

/// Whether a target is all nodes of a host or none.
fn has_whole_hosts(target: &Target, groups: &[Group]) -> bool {
    match target {
        Target::Hosts(_) | Target::Some(Amount::Share(1.0)) => true,
        Target::Group { group, amount: Amount::Share(1.0) } => {
            is_of_hosts(&Side::Group(group.clone()), groups)
        }
        Target::Group { .. } | Target::Some(_) | Target::SuccessorOf(_) | Target::Heaviest(_) => false,
    }
}

/// Whether a side holds all nodes of a host or none. The rest is so where the others are.
fn is_of_hosts(side: &Side, groups: &[Group]) -> bool {
    match side {
        Side::Share(_) => false,
        Side::Hosts(_) | Side::Rest => true,
        Side::Group(name) => {
            groups.iter().any(|group| group.name == *name && matches!(group.members, Members::Hosts(_)))
        }
    }
}
