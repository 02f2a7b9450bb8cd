//! Do hosts reach each other where their nodes would? Who calls whom, and what follows from it.

use std::collections::BTreeSet;

/// Up to so many hosts, each calls every other one. Of more, each calls those that stand 1, 2, 4, 8 … places after it: any
/// fault of a host shows in several calls to it and from it, and there are few calls.
pub const WHOLE_HOSTS_MAX: usize = 32;

/// Who could not be reached by whom. Hosts are indices into the list of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// How many calls were made.
    pub calls: usize,
    /// Whether each host called every other one.
    pub is_whole: bool,
    /// The calls that failed.
    pub failed: Vec<Failed>,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Who called.
    pub from: usize,
    /// Whom.
    pub to: usize,
    /// Why it was not reached.
    pub reason: String,
}

impl Reach {
    /// The hosts without which all calls between the others succeeded: those first with which most failed.
    pub fn in_the_way(&self) -> BTreeSet<usize> {
        let mut out = BTreeSet::new();
        loop {
            let failed =
                self.failed.iter().filter(|call| !out.contains(&call.from) && !out.contains(&call.to));
            let mut ends: Vec<usize> = failed.flat_map(|call| [call.from, call.to]).collect();
            ends.sort_unstable();
            // Of several, the later one: inventories name the better hosts first.
            let Some(worst) = ends.chunk_by(|one, other| one == other).max_by_key(|chunk| chunk.len()) else {
                return out;
            };
            out.insert(worst[0]);
        }
    }
}

/// The hosts that this one of `0..hosts` calls.
pub(super) fn partners(own: usize, hosts: usize) -> Vec<usize> {
    if hosts <= WHOLE_HOSTS_MAX {
        return (0..hosts).filter(|other| *other != own).collect();
    }
    let steps = std::iter::successors(Some(1), |step| Some(step * 2)).take_while(|step| *step < hosts);
    steps.map(|step| (own + step) % hosts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::inventory::HOSTS_MAX;
    use p2ps::agent::protocol::DIALS_MAX;

    #[test]
    fn few_hosts_call_all_others_and_many_call_some() {
        assert!(partners(0, 1).is_empty());
        assert_eq!(partners(1, 3), [0, 2]);
        assert_eq!(partners(40, 41), [0, 1, 3, 7, 15, 31]);
        for hosts in [2, WHOLE_HOSTS_MAX, WHOLE_HOSTS_MAX + 1, 500, HOSTS_MAX] {
            let mut called = vec![0; hosts];
            for own in 0..hosts {
                let partners = partners(own, hosts);
                assert!(partners.len() <= DIALS_MAX && !partners.contains(&own), "{own} of {hosts}");
                let distinct: BTreeSet<&usize> = partners.iter().collect();
                assert_eq!(distinct.len(), partners.len());
                partners.into_iter().for_each(|other| called[other] += 1);
            }
            assert!(called.iter().all(|times| *times == called[0] && *times > 0), "all are called alike");
        }
    }

    #[test]
    fn whoever_fails_most_is_in_the_way() {
        let failed = |from, to| Failed { from, to, reason: String::new() };
        let mut reach = Reach { calls: 12, is_whole: true, failed: Vec::new() };
        assert!(reach.in_the_way().is_empty());
        // Host 1 is behind a firewall; 2 and 3 do not reach each other.
        reach.failed = vec![failed(0, 1), failed(2, 1), failed(3, 1), failed(2, 3), failed(3, 2)];
        assert_eq!(reach.in_the_way(), BTreeSet::from([1, 3]));
    }
}
