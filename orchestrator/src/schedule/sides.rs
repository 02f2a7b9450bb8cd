//! Sides: on which side of a partition, or at which end of degraded links, each node is.

use std::collections::BTreeSet;

use p2ps::agent::protocol::{ActionKind, NodeIndex};

use super::cast::Cast;
use super::chance::Chance;
use super::membership::Membership;
use super::{HostIndex, ScheduleError};
use crate::plan::targets::{HostChoice, Side};

/// A node on no side: it reaches everybody.
pub(super) const NO_SIDE: u8 = u8::MAX;

/// A node at the first end of links, and so the next two: at the second, and at both.
pub(super) const FIRST: u8 = 0;
pub(super) const SECOND: u8 = 1;
pub(super) const BOTH: u8 = 2;

/// The side of each node that ever runs.
///
/// Of shares: of those that are up exactly the shares; of the others by whom they join by. Else each node's own, whenever it runs.
pub(super) fn sides_of(
    chance: &mut Chance,
    sides: &[Side],
    up: &[NodeIndex],
    membership: &Membership,
    at_us: u64,
    cast: &Cast<'_>,
) -> Result<Vec<u8>, ScheduleError> {
    if matches!(sides, [Side::Share(_), ..]) {
        return Ok(of_shares(chance, sides, up, membership, at_us));
    }
    let hosts = draw_hosts(chance, sides, cast)?;
    (0..membership.nodes)
        .map(|node| {
            let mut on = (0..)
                .zip(sides.iter().zip(&hosts))
                .filter(|(_, (side, hosts))| is_on(side, hosts, node, cast));
            match (on.next(), on.next()) {
                (Some(_), Some(_)) => Err(ScheduleError::Overlap { node }),
                (Some((side, _)), None) => Ok(side),
                (None, _) => Ok(rest(sides)),
            }
        })
        .collect()
}

/// The end of each node that ever runs, of links between two sides.
pub(super) fn ends_of(
    chance: &mut Chance,
    first: &Side,
    second: &Side,
    nodes: u32,
    cast: &Cast<'_>,
) -> Result<Vec<u8>, ScheduleError> {
    let sides = [first.clone(), second.clone()];
    let mut hosts = draw_hosts(chance, if first == second { &sides[..1] } else { &sides }, cast)?;
    hosts.resize_with(2, BTreeSet::new);
    if first == second {
        // The links inside one side: hosts that are drawn are the same at both ends.
        hosts[1] = hosts[0].clone();
    }
    let end = |node: NodeIndex| {
        let said = [0, 1].map(|at: usize| is_on(&sides[at], &hosts[at], node, cast));
        let is = |at: usize| if sides[at] == Side::Rest { !said[1 - at] } else { said[at] };
        match (is(0), is(1)) {
            (true, true) => BOTH,
            (true, false) => FIRST,
            (false, true) => SECOND,
            (false, false) => NO_SIDE,
        }
    };
    Ok((0..nodes).map(end).collect())
}

fn rest(sides: &[Side]) -> u8 {
    (0..).zip(sides).find(|(_, side)| **side == Side::Rest).map_or(NO_SIDE, |(at, _)| at)
}

/// The hosts of each side that is one of hosts: those with names first, and no host is drawn for two sides.
fn draw_hosts(
    chance: &mut Chance,
    sides: &[Side],
    cast: &Cast<'_>,
) -> Result<Vec<BTreeSet<HostIndex>>, ScheduleError> {
    let mut free: BTreeSet<HostIndex> = (0..cast.hosts()).collect();
    let mut drawn = vec![BTreeSet::new(); sides.len()];
    for named in [true, false] {
        for (hosts, side) in drawn.iter_mut().zip(sides) {
            let Side::Hosts(choice) = side else { continue };
            if matches!(choice, HostChoice::Named(_)) == named {
                *hosts = cast.choose_hosts(chance, choice, free.iter().copied().collect())?;
                free.retain(|host| !hosts.contains(host));
            }
        }
    }
    Ok(drawn)
}

fn is_on(side: &Side, hosts: &BTreeSet<HostIndex>, node: NodeIndex, cast: &Cast<'_>) -> bool {
    match side {
        Side::Group(group) => cast.is_in(group, node),
        Side::Hosts(_) => hosts.contains(&cast.host(node)),
        Side::Rest | Side::Share(_) => false,
    }
}

fn of_shares(
    chance: &mut Chance,
    sides: &[Side],
    up: &[NodeIndex],
    membership: &Membership,
    at_us: u64,
) -> Vec<u8> {
    let mut drawn: Vec<Option<u8>> = vec![None; membership.nodes as usize];
    let shuffled = chance.sample(up.to_vec(), up.len());
    let shares = sides.iter().map(|side| if let Side::Share(share) = side { *share } else { 0.0 });
    let mut bounds = shares.scan(0.0, |sum, share| {
        *sum += share;
        Some((*sum * up.len() as f64).round() as usize)
    });
    let (mut side, mut bound) = (0u8, bounds.next().unwrap_or(up.len()));
    for (place, node) in shuffled.iter().enumerate() {
        while place >= bound {
            // The last bound is all of them.
            let Some(next) = bounds.next() else { break };
            (side, bound) = (side + 1, next);
        }
        drawn[*node as usize] = Some(side);
    }
    let later = membership.actions.iter().filter(|action| action.at_us >= at_us);
    for action in later {
        if let ActionKind::Spawn { via } = &action.kind
            && drawn[action.node as usize].is_none()
        {
            let by = via.first().and_then(|via| drawn[*via as usize]);
            drawn[action.node as usize] = by.or(Some(0));
        }
    }
    drawn.into_iter().map(|side| side.unwrap_or(0)).collect()
}
