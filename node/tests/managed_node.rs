//! The managed node as a process: orders in, reports out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use common::Managed;
use p2ps::control::{Errand, Order, Outcome, Report};
use p2ps::driver::clock;
use p2ps::id::Id;
use p2ps::message::RouteError;

#[test]
fn it_joins_looks_up_reports_its_neighbours_and_leaves() {
    let mut first = Managed::spawn(1, &[]);
    let mut second = Managed::spawn(1 << 31, &[first.access_point]);
    let other = Id(1 << 31);
    first.wait("the first node's neighbours", |report| match report {
        Report::Ring { predecessor, successor, .. } => {
            (predecessor == Some(other) && successor == other).then_some(())
        }
        _ => None,
    });
    let report = first.lookup(7, Id(42));
    assert_eq!(report.outcome, Outcome::Found { responsible: other, hops: 1 });
    assert!(report.issued_us <= report.ended_us);
    let snapshot = first.sample();
    assert_eq!((snapshot.lookups_succeeded, snapshot.fingers), (1, 1));

    second.order(&Order::Leave);
    let handed_over = second.wait("the leave", |report| match report {
        Report::Left { handed_over, .. } => Some(handed_over),
        _ => None,
    });
    assert!(handed_over && second.exit().success());
    assert_eq!(first.lookup(8, Id(42)).outcome, Outcome::Found { responsible: Id(1), hops: 0 });
}

#[test]
fn a_late_order_counts_from_when_it_was_meant() {
    let mut node = Managed::spawn(1, &[]);
    let intended_us = clock::now().as_micros() - 10_000_000;
    node.order(&Order::Lookup { operation: 1, key: Id(5), intended_us });
    node.wait("the look-up's end", |report| matches!(report, Report::Operation(_)).then_some(()));
    let latencies = node.sample().lookup_latency_us.0;
    assert!(latencies.len() == 1 && latencies[0].0 >= 10_000_000, "{latencies:?}");
}

#[test]
fn it_does_errands_and_tells_what_came_of_them_at_both_ends() {
    let mut first = Managed::spawn(1, &[]);
    let mut second = Managed::spawn(1 << 31, &[first.access_point]);
    let (key, to, bytes) = (Id(42), Id(1 << 31), 100);
    let written = errand(&mut first, 1, Errand::Put { key, bytes });
    let Outcome::Written { version } = written else { panic!("{written:?}") };
    assert_eq!(
        errand(&mut second, 2, Errand::Get { key }),
        Outcome::Read { value: Some((Some(1), version)) }
    );
    assert_eq!(errand(&mut second, 3, Errand::Get { key: Id(43) }), Outcome::Read { value: None });

    let list = vec![to];
    for (operation, what) in [
        (4, Errand::SendReliable { to, bytes }),
        (5, Errand::Send { to, bytes }),
        (6, Errand::Broadcast { bytes }),
        (7, Errand::Multicast { to: list, bytes }),
    ] {
        assert_eq!(errand(&mut first, operation, what), Outcome::Sent);
        second.wait("a delivery", |report| {
            matches!(report, Report::Delivered { operation: came, .. } if came == operation).then_some(())
        });
    }
    let sent = first.sample();
    assert_eq!((sent.broadcast_messages, sent.multicast_messages), (1, 1));

    let nobody = Id(77);
    let failed = Outcome::Failed(RouteError::NoSuchNode);
    assert_eq!(errand(&mut first, 8, Errand::SendReliable { to: nobody, bytes }), failed);
    assert_eq!(
        errand(&mut first, 9, Errand::Send { to: nobody, bytes }),
        Outcome::Sent,
        "as far as it knows"
    );
    first.wait("the failure", |report| {
        matches!(report, Report::Undelivered { destination, reason: RouteError::NoSuchNode, .. } if destination == nobody)
            .then_some(())
    });
    let too_large = Outcome::Failed(RouteError::PayloadTooLarge);
    assert_eq!(errand(&mut first, 10, Errand::Broadcast { bytes: u32::MAX }), too_large);
}

/// How an errand of a node ends.
fn errand(node: &mut Managed, operation: u64, what: Errand) -> Outcome {
    node.order(&Order::Errand { operation, what });
    node.wait("an errand's end", |report| match report {
        Report::Operation(report) if report.operation == operation => Some(report.outcome),
        _ => None,
    })
}

#[test]
fn it_ends_at_once_when_its_input_ends() {
    let mut node = Managed::spawn(1, &[]);
    node.cut();
    assert_eq!(node.exit().code(), Some(3));
}

#[test]
fn it_says_why_it_cannot_go_on() {
    let mut first = Managed::spawn(16, &[]);
    let mut second = Managed::spawn_unjoined(16, &[first.access_point]);
    let error = second.wait("the failure", |report| match report {
        Report::Failed { error } => Some(error),
        _ => None,
    });
    assert!(error.contains("id 16 is in use"), "{error}");
    assert_eq!(second.exit().code(), Some(3));
    first.line("rubbish");
    let error = first.wait("the failure", |report| match report {
        Report::Failed { error } => Some(error),
        _ => None,
    });
    assert!(error.contains("cannot be understood"), "{error}");
    assert_eq!(first.exit().code(), Some(3));
}

#[test]
fn a_look_up_before_the_node_is_a_member_ends_too() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut node = Managed::spawn_unjoined(5, &[nobody.into()]);
    assert_eq!(node.lookup(1, Id(1)).outcome, Outcome::Failed(RouteError::NotMember));
}

#[test]
fn metrics_pass_promtool() {
    let mut first = Managed::spawn(1, &[]);
    let second = Managed::spawn(2, &[first.access_point]);
    for operation in 0..10 {
        first.lookup(operation, Id(operation));
    }
    let mut stream = TcpStream::connect(first.metrics.unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.contains("p2ps_lookups_total{outcome=\"succeeded\"} 10"), "{body}");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.unwrap_or_else(|error| {
        panic!("promtool cannot be started ({error}): install Prometheus' tools (Debian: apt-get install prometheus)")
    });
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{body}");
    drop(second);
}

#[test]
fn metrics_are_found_at_their_path_only() {
    let node = Managed::spawn(1, &[]);
    for (request, status) in [("GET /", "404"), ("POST /metrics", "405"), ("HEAD /metrics", "200")] {
        let mut stream = TcpStream::connect(node.metrics.unwrap()).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {response}");
    }
}
