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
use crate::record::{DeliveryReport, Judged, LostReason, Operation, OperationEnd, Reach, Reaches, RunRecord};
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
            None => self
                .members(interval)
                .filter(|id| Some(*id) != source)
                .filter_map(|id| self.node_of(id))
                .collect(),
            Some(list) => list
                .iter()
                .filter(|id| self.is_member(**id, interval))
                .filter_map(|id| self.node_of(*id))
                .collect(),
        };
        let deliveries = self.deliveries.get(&operation.number).map_or(&[][..], Vec::as_slice);
        let may_have_it = |node: NodeIndex| match list {
            None => node != operation.node,
            Some(list) => self.id_of(node).is_some_and(|id| list.contains(&id)),
        };
        let nodes: HashSet<NodeIndex> = deliveries.iter().map(|delivery| delivery.node).collect();
        let lives: HashSet<(NodeIndex, usize)> = deliveries
            .iter()
            .map(|delivery| (delivery.node, self.life(delivery.node, delivery.at_us)))
            .collect();
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
            if let Some((number, _)) =
                open.front().copied().filter(|(_, issued_us)| *issued_us <= report.at_us)
            {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Deliveries, Done, Life, UndeliveredReport};
    use crate::schedule::PlacedNode;
    use p2ps::agent::protocol::{Action, NodeSlot};

    const SENT_US: u64 = 10_000_000;

    /// Four nodes with the ids 100 to 400; 400 is killed a second after all messages were sent, and back two seconds later.
    fn schedule(actions: Vec<Action>) -> Schedule {
        let slot = |node: u32| NodeSlot { node, id: Id(u64::from(node + 1) * 100), seed: 0 };
        let operations = actions.len() as u64;
        let nodes = (0..4).map(|node| PlacedNode { slot: slot(node), host: 0 }).collect();
        let (phases, groups) = Default::default();
        Schedule { nodes, actions, phases, groups, operations, end_us: 60_000_000 }
    }

    /// What is made of a message of node 0 that came to these nodes so long after it was sent.
    fn judged(kind: OperationKind, to: Option<u64>, came: &[(NodeIndex, u64)]) -> (Judged, Messages) {
        judged_with(kind, to, came, Vec::new())
    }

    fn judged_with(
        kind: OperationKind,
        to: Option<u64>,
        came: &[(NodeIndex, u64)],
        undelivered: Vec<UndeliveredReport>,
    ) -> (Judged, Messages) {
        let what = match kind {
            OperationKind::Multicast => Errand::Multicast { to: vec![Id(200), Id(300)], bytes: 8 },
            _ => Errand::Broadcast { bytes: 8 },
        };
        let action =
            Action { index: 0, at_us: SENT_US, node: 0, kind: ActionKind::Errand { operation: 0, what } };
        let schedule = schedule(vec![action]);
        let end = OperationEnd::Done { issued_us: SENT_US, ended_us: SENT_US, result: Done::Sent };
        let key = to.map(Id);
        let operation = Operation { number: 0, kind, node: 0, key, intended_us: SENT_US, end };
        let life =
            |node, at_us| Life { node, spawned_us: Some(at_us), joined_us: Some(at_us), ..Life::default() };
        let mut lives: Vec<Life> = (0..4).map(|node| life(node, 0)).collect();
        lives[3].killed_us = Some(SENT_US + 1_000_000);
        lives.push(life(3, SENT_US + 3_000_000));
        let delivery = |(node, after_us): &(NodeIndex, u64)| DeliveryReport {
            operation: 0,
            node: *node,
            at_us: SENT_US + after_us,
        };
        let delivered = came.iter().map(delivery).collect();
        let deliveries = Deliveries { delivered, undelivered, is_cut: false };
        let record = RunRecord {
            ended_us: 60_000_000,
            lives,
            operations: vec![operation],
            deliveries,
            ..RunRecord::default()
        };
        let mut judged = vec![Judged::Succeeded];
        let messages = judge(&schedule, &Membership::new(&schedule, &record), &record, &mut judged);
        (judged[0], messages)
    }

    #[test]
    fn a_broadcast_is_for_those_that_stayed() {
        let broadcast = |came: &[(NodeIndex, u64)]| {
            let (judged, messages) = judged(OperationKind::Broadcast, None, came);
            (judged, messages.reaches[&0])
        };
        let reach = Reach { expected: 2, reached: 2, duplicates: 0, last_us: SENT_US + 70 };
        assert_eq!(
            broadcast(&[(1, 50), (2, 70)]),
            (Judged::Succeeded, reach),
            "one was killed too early to count"
        );
        assert_eq!(broadcast(&[(1, 50), (2, 70), (3, 60)]), (Judged::Succeeded, reach), "but it may have it");
        assert_eq!(broadcast(&[(1, 70), (3, 60)]), (Judged::Partial, Reach { reached: 1, ..reach }));
        assert_eq!(broadcast(&[(1, 1), (2, 9), (1, 70)]).1, Reach { duplicates: 1, ..reach });
        assert_eq!(broadcast(&[(0, 50), (1, 50), (2, 70)]).0, Judged::Wrong, "its own source had it");
    }

    #[test]
    fn a_multicast_is_for_its_list() {
        let multicast = |came: &[(NodeIndex, u64)]| judged(OperationKind::Multicast, None, came).0;
        assert_eq!(multicast(&[(1, 50), (2, 70)]), Judged::Succeeded);
        assert_eq!(multicast(&[(1, 50)]), Judged::Partial);
        assert_eq!(multicast(&[(1, 50), (2, 50), (3, 50)]), Judged::Wrong);
    }

    #[test]
    fn what_was_said_to_be_delivered_and_was_not_is_wrong() {
        let reliable = |to, came: &[(NodeIndex, u64)]| judged(OperationKind::SendReliable, Some(to), came).0;
        assert_eq!(reliable(200, &[(1, 50)]), Judged::Succeeded);
        assert_eq!(reliable(200, &[]), Judged::Wrong);
        assert_eq!(reliable(400, &[]), Judged::Succeeded, "it was killed before it could tell");
        assert_eq!(reliable(200, &[(1, 50), (2, 50)]), Judged::Wrong, "it came to another");
    }

    #[test]
    fn a_message_that_did_not_come_failed_or_was_lost_and_it_is_said_why() {
        let send = |to, came: &[(NodeIndex, u64)]| judged(OperationKind::Send, Some(to), came).0;
        assert_eq!(send(200, &[(1, 50)]), Judged::Succeeded);
        assert_eq!(send(200, &[]), Judged::Lost(LostReason::NoReport));
        assert_eq!(send(400, &[]), Judged::Lost(LostReason::ReceiverDown));
        let undelivered = |node, at_us| {
            let report = UndeliveredReport { node, destination: Id(200), at_us, reason: "no_next_hop" };
            judged_with(OperationKind::Send, Some(200), &[], vec![report]).0
        };
        assert_eq!(undelivered(0, SENT_US + 5), Judged::Failed("no_next_hop"));
        assert_eq!(undelivered(0, SENT_US - 5), Judged::Lost(LostReason::NoReport), "that was another");
        assert_eq!(undelivered(1, SENT_US + 5), Judged::Lost(LostReason::NoReport), "that was another's");
    }

    #[test]
    fn a_node_that_came_back_may_get_again_what_its_last_life_had() {
        let (_, messages) = judged(OperationKind::SendReliable, Some(400), &[(3, 500_000), (3, 3_500_000)]);
        assert_eq!(messages.reaches[&0].duplicates, 0);
        let (_, messages) = judged(OperationKind::SendReliable, Some(400), &[(3, 500_000), (3, 600_000)]);
        assert_eq!(messages.reaches[&0].duplicates, 1);
    }
}
