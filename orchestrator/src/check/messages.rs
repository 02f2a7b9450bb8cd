//! Where messages should have come, and where they came.
//!
//! Of a message to many, those nodes count that certainly were members from when it was sent until [`SPREAD_US`] later: a node that joins, leaves
//! or ends meanwhile may have it or not. A message that comes to the same life of a node twice is a duplicate; a node that was killed and
//! comes back may get what its last life had.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use p2ps::agent::protocol::{ActionKind, NodeIndex};
use p2ps::control::Errand;
use p2ps::id::Id;

use crate::plan::workload::OperationKind;
use crate::record::{
    DeliveryReport, Judged, LostReason, Operation, OperationEnd, Reach, Reaches, RunRecord,
};
use crate::schedule::Schedule;

use super::membership::Membership;

/// How long a message to many may take, in microseconds.
pub(super) const SPREAD_US: u64 = 5_000_000;

/// How long after its source was told so a reliable message may be told of where it came, in microseconds.
const TOLD_US: u64 = 1_000_000;

/// What came of all messages of a run.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// How far each came.
    pub(super) reaches: Reaches,
    /// How many reliable messages came after a later one of the same life of the same node.
    pub(super) reordered: u64,
}

/// Judges all messages. Where deliveries were not all kept, none is.
pub(super) fn judge(
    schedule: &Schedule,
    membership: &Membership,
    record: &RunRecord,
    judged: &mut [Judged],
) -> Messages {
    let mut messages = Messages::default();
    let sent = |operation: &Operation| operation.kind.is_message();
    if record.deliveries.is_cut || !record.operations.iter().any(sent) {
        return messages;
    }
    let judge = Judge::new(schedule, membership, record);
    let mut undelivered = judge.undelivered();
    for (operation, judged) in record.operations.iter().zip(judged) {
        let OperationEnd::Done { issued_us, ended_us, .. } = operation.end else { continue };
        if !operation.kind.is_message() {
            continue;
        }
        let came = judge.came(operation, (issued_us, ended_us));
        *judged = match operation.kind {
            _ if came.is_astray => Judged::Wrong,
            OperationKind::Broadcast | OperationKind::Multicast => match came.reach {
                Reach { expected, reached, .. } if reached == expected => Judged::Succeeded,
                _ => Judged::Partial,
            },
            _ if came.is_anywhere => Judged::Succeeded,
            // Who got it may have ended before it could say so.
            OperationKind::SendReliable if came.reach.expected == 0 => Judged::Succeeded,
            OperationKind::SendReliable => Judged::Wrong,
            _ => match undelivered.remove(&operation.number) {
                Some(reason) => Judged::Failed(reason),
                None if came.reach.expected == 0 => Judged::Lost(LostReason::ReceiverDown),
                None => Judged::Lost(LostReason::NoReport),
            },
        };
        messages.reaches.insert(operation.number, came.reach);
    }
    messages.reordered = judge.reordered();
    messages
}

/// Where a message came.
struct Came {
    reach: Reach,
    /// It came to one of those that it was sent to.
    is_anywhere: bool,
    /// It came to another.
    is_astray: bool,
}

struct Judge<'a> {
    schedule: &'a Schedule,
    record: &'a RunRecord,
    /// When the node with an id certainly was a member.
    certain: BTreeMap<Id, Vec<(u64, u64)>>,
    nodes: HashMap<Id, NodeIndex>,
    /// When the lives of each node began, in order.
    lives: HashMap<NodeIndex, Vec<u64>>,
    /// Whom each multicast is for.
    lists: HashMap<u64, &'a [Id]>,
    deliveries: HashMap<u64, Vec<DeliveryReport>>,
}

impl<'a> Judge<'a> {
    fn new(schedule: &'a Schedule, membership: &Membership, record: &'a RunRecord) -> Judge<'a> {
        let mut certain: BTreeMap<Id, Vec<(u64, u64)>> = BTreeMap::new();
        for span in &membership.spans {
            certain.entry(span.id).or_default().extend(span.certain);
        }
        let mut lives: HashMap<NodeIndex, Vec<u64>> = HashMap::new();
        for life in &record.lives {
            lives.entry(life.node).or_default().push(life.spawned_us.unwrap_or(0));
        }
        let mut lists: HashMap<u64, &[Id]> = HashMap::new();
        for action in &schedule.actions {
            if let ActionKind::Errand { operation, what: Errand::Multicast { to, .. } } = &action.kind {
                lists.insert(*operation, to);
            }
        }
        let mut deliveries: HashMap<u64, Vec<DeliveryReport>> = HashMap::new();
        for delivery in &record.deliveries.delivered {
            deliveries.entry(delivery.operation).or_default().push(*delivery);
        }
        let nodes = schedule.nodes.iter().map(|node| (node.slot.id, node.slot.node)).collect();
        Judge { schedule, record, certain, nodes, lives, lists, deliveries }
    }

    fn came(&self, operation: &Operation, (issued_us, ended_us): (u64, u64)) -> Came {
        let until_us = match operation.kind {
            OperationKind::SendReliable => ended_us.saturating_add(TOLD_US),
            _ => issued_us.saturating_add(SPREAD_US),
        };
        let interval = (issued_us, until_us.min(self.record.ended_us));
        let source = self.id_of(operation.node);
        let one = operation.key.map(|key| [key]);
        let list: Option<&[Id]> = match operation.kind {
            OperationKind::Broadcast => None,
            OperationKind::Multicast => Some(self.lists.get(&operation.number).copied().unwrap_or_default()),
            _ => Some(one.as_ref().map_or(&[], |one| one.as_slice())),
        };
        let expected: HashSet<NodeIndex> = match list {
            None => self.members(interval).filter(|id| Some(*id) != source).filter_map(|id| self.node_of(id)).collect(),
            Some(list) => list.iter().filter(|id| self.is_member(**id, interval)).filter_map(|id| self.node_of(*id)).collect(),
        };
        let deliveries = self.deliveries.get(&operation.number).map_or(&[][..], Vec::as_slice);
        let may_have_it = |node: NodeIndex| match list {
            None => node != operation.node,
            Some(list) => self.id_of(node).is_some_and(|id| list.contains(&id)),
        };
        let nodes: HashSet<NodeIndex> = deliveries.iter().map(|delivery| delivery.node).collect();
        let lives: HashSet<(NodeIndex, usize)> =
            deliveries.iter().map(|delivery| (delivery.node, self.life(delivery.node, delivery.at_us))).collect();
        let reach = Reach {
            expected: expected.len() as u32,
            reached: expected.intersection(&nodes).count() as u32,
            duplicates: (deliveries.len() - lives.len()) as u32,
            last_us: deliveries.iter().map(|delivery| delivery.at_us).max().unwrap_or(0),
        };
        let is_astray = nodes.iter().any(|node| !may_have_it(*node));
        Came { reach, is_anywhere: nodes.iter().any(|node| may_have_it(*node)), is_astray }
    }

    /// Why messages sent best effort did not come, where their source heard of it: of those to one node, the first that may be
    /// meant.
    fn undelivered(&self) -> HashMap<u64, &'static str> {
        let mut open: HashMap<(NodeIndex, Id), VecDeque<(u64, u64)>> = HashMap::new();
        for operation in &self.record.operations {
            let OperationEnd::Done { issued_us, .. } = operation.end else { continue };
            let has_come = self.deliveries.contains_key(&operation.number);
            if let (OperationKind::Send, Some(to), false) = (operation.kind, operation.key, has_come) {
                open.entry((operation.node, to)).or_default().push_back((operation.number, issued_us));
            }
        }
        let mut reasons = HashMap::new();
        for report in &self.record.deliveries.undelivered {
            let Some(open) = open.get_mut(&(report.node, report.destination)) else { continue };
            if let Some((number, _)) = open.front().copied().filter(|(_, issued_us)| *issued_us <= report.at_us) {
                open.pop_front();
                reasons.insert(number, report.reason);
            }
        }
        reasons
    }

    /// Deliveries are told of in the order in which a node had them.
    fn reordered(&self) -> u64 {
        let find = |number: u64| {
            let operations = &self.record.operations;
            let at = operations.binary_search_by_key(&number, |operation| operation.number).ok()?;
            Some(&operations[at]).filter(|operation| operation.kind == OperationKind::SendReliable)
        };
        let mut last: HashMap<_, u64> = HashMap::new();
        let mut had: HashSet<(u64, NodeIndex, usize)> = HashSet::new();
        let mut reordered = 0;
        for DeliveryReport { operation, node, at_us } in &self.record.deliveries.delivered {
            let Some(sent) = find(*operation) else { continue };
            let life = self.life(*node, *at_us);
            if !had.insert((*operation, *node, life)) {
                continue;
            }
            let source_life = self.life(sent.node, sent.intended_us);
            let last = last.entry((sent.node, source_life, *node, life)).or_insert(*operation);
            reordered += u64::from(*operation < *last);
            *last = (*last).max(*operation);
        }
        reordered
    }

    fn id_of(&self, node: NodeIndex) -> Option<Id> {
        self.schedule.nodes.get(node as usize).map(|node| node.slot.id)
    }

    fn node_of(&self, id: Id) -> Option<NodeIndex> {
        self.nodes.get(&id).copied()
    }

    /// Which life of a node it was.
    fn life(&self, node: NodeIndex, at_us: u64) -> usize {
        self.lives.get(&node).map_or(0, |begun_us| begun_us.partition_point(|begun_us| *begun_us <= at_us))
    }

    fn is_member(&self, id: Id, interval: (u64, u64)) -> bool {
        self.certain.get(&id).is_some_and(|certain| covers(certain, interval))
    }

    /// Who certainly was a member all the time.
    fn members(&self, interval: (u64, u64)) -> impl Iterator<Item = Id> {
        self.certain.iter().filter(move |(_, certain)| covers(certain, interval)).map(|(id, _)| *id)
    }
}

fn covers(certain: &[(u64, u64)], (from_us, until_us): (u64, u64)) -> bool {
    certain.iter().any(|(begin_us, end_us)| *begin_us <= from_us && until_us <= *end_us)
}
