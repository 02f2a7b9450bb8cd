//! Shaped links over loopback sockets: partitions, losses, delays, and what is left of them once they are healed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod sockets;

use std::time::Duration;

use p2ps::com::handshake::HandshakeError;
use p2ps::com::shaping::{Cut, Distribution, LinkShape};
use p2ps::id::Id;
use p2ps::metrics::{Histogram, ShapeEffect};
use p2ps::node::{Event, Node, NodeEvent};
use sockets::{Members, PATIENCE, at, net, run, until};

const CUT: LinkShape = LinkShape {
    cut: Cut::Both,
    latency_us: 0,
    jitter_us: 0,
    distribution: Distribution::Uniform,
    loss_ppm: 0,
    bytes_per_second: 0,
};

fn shape_all(members: &Members, shape: LinkShape) {
    members.nodes().for_each(|node| node.shape_links(&[(members.ids(), shape)]));
}

/// The next of a node's events of which something can be told.
async fn event<T>(members: &mut Members, id: u64, mut tell: impl FnMut(&NodeEvent) -> Option<T>) -> T {
    let events = &mut members.0.get_mut(&Id(id)).unwrap().2;
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(told) = tell(&events.next().await.expect("the node runs")) {
                return told;
            }
        }
    });
    told.await.expect("an event that does not come")
}

fn count(node: &Node, effect: ShapeEffect) -> u64 {
    node.snapshot().shaped[effect as usize]
}

fn at_least(histogram: &Histogram, bound: u64) -> u64 {
    histogram.0.iter().filter(|(value, _)| *value >= bound).map(|(_, count)| count).sum()
}

#[test]
fn no_look_up_crosses_a_partition_and_each_side_finds_its_own_ring() {
    run(async {
        let members = Members::with_ids(&[1, 9000, 18_000, 27_000, 36_000, 45_000, 54_000, 63_000]).await;
        let (low, high): (Vec<Id>, Vec<Id>) = members.ids().into_iter().partition(|id| id.0 < 30_000);
        for node in members.nodes() {
            let others = if low.contains(&node.id()) { &high } else { &low };
            node.shape_links(&[(others.clone(), CUT)]);
        }
        let side = |id: Id| low.contains(&id);
        // Keys of the other side, while all still believe in one ring: failed, or found on their own side.
        let across = members.nodes().cloned().map(|node| {
            let key = if side(node.id()) { Id(40_000) } else { Id(10_000) };
            tokio::spawn(async move { (node.id(), node.lookup(key).await) })
        });
        for look_up in across.collect::<Vec<_>>() {
            if let (source, Ok(found)) = look_up.await.unwrap() {
                assert_eq!(side(found.responsible.id), side(source), "{found:?} from {source}");
            }
        }
        for node in members.nodes() {
            assert!(count(node, ShapeEffect::Cut) > 0);
            let ring = || node.successors().iter().all(|contact| side(contact.id) == side(node.id()));
            until("each side has its own ring", ring).await;
            until("it answers", || node.predecessor().is_some()).await;
        }
        for node in members.nodes() {
            let own = if side(node.id()) { Id(5) } else { Id(44_000) };
            let found = node.lookup(own).await.unwrap();
            assert_eq!(found.responsible.id, members.responsible(own));
        }
    });
}

#[test]
fn a_healed_cut_goes_on_over_the_same_links() {
    run(async {
        let mut members = Members::with_ids(&[1, 2]).await;
        let before = members.node(1).snapshot();
        for cut in [Cut::Out, Cut::In, Cut::Both] {
            members.node(1).shape_links(&[(vec![Id(2)], LinkShape { cut, ..CUT })]);
            let lost = count(members.node(1), ShapeEffect::Cut);
            for sender in [1, 2] {
                members.node(sender).send(Id(3 - sender), "lost").unwrap();
            }
            until("something is cut", || count(members.node(1), ShapeEffect::Cut) > lost).await;
            members.node(1).shape_links(&[]);
            for sender in [1, 2] {
                members.node(sender).send(Id(3 - sender), format!("after {cut:?}")).unwrap();
            }
            for receiver in [1, 2] {
                let messages = &mut members.0.get_mut(&Id(receiver)).unwrap().1;
                while messages.next().await.unwrap().payload != format!("after {cut:?}") {}
            }
        }
        let after = members.node(1).snapshot();
        assert_eq!((before.links_in, before.links_out), (after.links_in, after.links_out));
        assert_eq!((before.suspicions, after.suspicions), (0, 0));
    });
}

#[test]
fn a_cut_hides_a_crash_until_it_is_healed() {
    run(async {
        let mut members = Members::with_ids(&[1, 2, 30_000]).await;
        members.node(1).shape_links(&[(vec![Id(2)], CUT)]);
        members.node(2).stop();
        let what = |event: &NodeEvent| match event {
            NodeEvent::Overlay(Event::Suspected(contact)) => Some(("suspected", contact.id)),
            NodeEvent::LinkClosed { contact, .. } => Some(("closed", contact.id)),
            _ => None,
        };
        assert_eq!(event(&mut members, 30_000, what).await, ("closed", Id(2)), "the others see it");
        // Its own questions tell it, not the broken link.
        assert_eq!(event(&mut members, 1, what).await, ("suspected", Id(2)));
        members.node(1).shape_links(&[]);
        assert_eq!(event(&mut members, 1, what).await, ("closed", Id(2)));
    });
}

#[test]
fn who_is_cut_off_gets_no_answer_until_the_cut_is_healed() {
    run(async {
        let (first, _messages, _events) = Node::create_net(net(), at(1)).await.unwrap();
        first.shape_links(&[(vec![Id(2)], CUT)]);
        let by = [first.access_point()];
        let mut join = Box::pin(Node::join_net(&by, at(2), Some(net())));
        assert!(tokio::time::timeout(Duration::from_millis(500), &mut join).await.is_err(), "it is cut off");
        assert_eq!(first.snapshot().links_in, 0, "it was not even answered");
        first.shape_links(&[]);
        join.await.unwrap();
    });
}

#[test]
fn a_dial_across_a_cut_fails_by_time_out() {
    run(async {
        let mut members = Members::with_ids(&[1, 30_000]).await;
        members.node(1).shape_links(&[(vec![Id(2)], CUT)]);
        let by = [members.node(30_000).access_point()];
        let cut_off = Node::join_net(&by, at(2), Some(net())).await.unwrap();
        let access_point = cut_off.0.access_point();
        let refused = event(&mut members, 1, |event| match event {
            NodeEvent::Refused { access_point: at, error } if *at == access_point => {
                Some(matches!(error, HandshakeError::TimedOut))
            }
            _ => None,
        });
        assert!(refused.await);
    });
}

#[test]
fn look_ups_succeed_by_retries_where_many_messages_are_lost() {
    run(async {
        let members = Members::with_ids(&[1, 11_000, 22_000, 33_000, 44_000, 55_000]).await;
        // One node's losses: without retries three in ten of its look-ups would fail, more where they take several hops. A
        // node whose three questions are lost takes the other for dead, so that it may be wrong for a moment.
        let lossy = members.node(1);
        lossy.shape_links(&[(members.ids(), LinkShape { loss_ppm: 300_000, ..LinkShape::default() })]);
        let mut failures = Vec::new();
        for key in (0..65_536).step_by(1000).map(Id) {
            match lossy.lookup(key).await {
                Ok(found) if found.responsible.id == members.responsible(key) => {}
                other => failures.push((key, other)),
            }
        }
        let lost = count(lossy, ShapeEffect::Lost);
        assert!(failures.len() <= 6, "{} of 66: {failures:?}", failures.len());
        assert!(lost >= 10, "{lost}");
        assert_eq!(count(lossy, ShapeEffect::Delayed), 0);
    });
}

#[test]
fn latency_shows_in_hops_and_look_ups() {
    run(async {
        let members = Members::with_ids(&[1, 30_000]).await;
        shape_all(&members, LinkShape { latency_us: 40_000, ..LinkShape::default() });
        let node = members.node(1);
        let before = node.snapshot();
        for key in 100..105 {
            assert_eq!(node.lookup(Id(key)).await.unwrap().responsible.id, Id(30_000));
        }
        let enough = || at_least(&node.snapshot().hop_latency_us, 80_000) >= 5;
        until("each hop took the latency there and back", enough).await;
        let after = node.snapshot();
        assert_eq!(at_least(&before.lookup_latency_us, 80_000), 0);
        assert_eq!(at_least(&after.lookup_latency_us, 80_000), 5);
        assert!(count(node, ShapeEffect::Delayed) >= 5);
        shape_all(&members, LinkShape::default());
        let delayed = count(node, ShapeEffect::Delayed);
        node.lookup(Id(100)).await.unwrap();
        assert_eq!(count(node, ShapeEffect::Delayed), delayed);
    });
}

#[test]
fn a_burst_over_a_slow_and_jittery_link_arrives_in_order_at_its_rate() {
    run(async {
        let mut members = Members::with_ids(&[1, 2]).await;
        let slow = LinkShape {
            latency_us: 5000,
            jitter_us: 5000,
            distribution: Distribution::Normal,
            bytes_per_second: 10_000_000,
            ..LinkShape::default()
        };
        members.node(1).shape_links(&[(vec![Id(2)], slow)]);
        let begun = std::time::Instant::now();
        for number in 0..60_u8 {
            members.node(1).send(Id(2), vec![number; 50_000]).unwrap();
        }
        let messages = &mut members.0.get_mut(&Id(2)).unwrap().1;
        for number in 0..60_u8 {
            let message = messages.next().await.unwrap();
            assert!(message.payload.len() == 50_000 && message.payload.iter().all(|byte| *byte == number));
        }
        assert!(begun.elapsed() >= Duration::from_millis(300), "3 MB at 10 MB/s take no less");
    });
}

#[test]
fn a_node_whose_links_are_slow_leaves_in_order() {
    run(async {
        let mut members = Members::with_ids(&[1, 2, 3]).await;
        shape_all(&members, LinkShape { latency_us: 60_000, ..LinkShape::default() });
        let (leaver, ..) = members.0.remove(&Id(2)).unwrap();
        assert!(leaver.leave().await.unwrap(), "the successor takes over");
        for id in [1, 3] {
            let orderly = event(&mut members, id, |event| match event {
                NodeEvent::LinkClosed { contact, orderly, .. } if contact.id == Id(2) => Some(*orderly),
                _ => None,
            });
            assert!(orderly.await);
        }
        members.until_ring("the ring closes").await;
    });
}
