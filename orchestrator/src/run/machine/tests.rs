use super::*;
use crate::schedule::{PlacedNode, Schedule};
use p2ps::agent::protocol::{Action, ActionKind, NodeSlot};
use p2ps::id::Id;

/// `nodes` nodes on `hosts` hosts in turn; operation n is due at n seconds, at node n % `nodes`.
pub(crate) fn schedule(nodes: u32, hosts: u32, operations: u64) -> Schedule {
    let slot = |node| NodeSlot { node, id: Id(u64::from(node)), seed: 0 };
    let lookup = |operation: u64| Action {
        index: operation,
        at_us: operation * 1_000_000,
        node: (operation % u64::from(nodes)) as u32,
        kind: ActionKind::Lookup { operation, key: Id(1) },
    };
    Schedule {
        nodes: (0..nodes).map(|node| PlacedNode { slot: slot(node), host: node % hosts }).collect(),
        actions: (0..operations).map(lookup).collect(),
        phases: Vec::new(),
        groups: Vec::new(),
        operations,
        end_us: operations * 1_000_000,
    }
}

const SETTINGS: Settings = Settings { end_us: 30_000_000, sample_every_us: 1_000_000, lease_ms: LEASE_MS };

struct Bench {
    machine: Machine,
    now_us: u64,
    /// By how much the hosts' clocks are ahead.
    ahead_us: u64,
    out: Vec<Effect>,
}

impl Bench {
    fn new(hosts: u32) -> Bench {
        let mut out = Vec::new();
        let machine = Machine::new(SETTINGS, "test", hosts, 1_000_000, &mut out);
        Bench { machine, now_us: 1_000_000, ahead_us: 5_000_000, out }
    }

    /// Lets `host`'s agent say something; gives back what is to be done then.
    fn hear(&mut self, host: HostIndex, notice: &Notice) -> Vec<Effect> {
        self.now_us += 100;
        self.machine.notice(self.now_us, host, notice, &mut self.out);
        self.machine.tick(self.now_us, None, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn pass(&mut self, length_us: u64, outstanding: usize) -> Vec<Effect> {
        self.now_us += length_us;
        self.machine.tick(self.now_us, Some(outstanding), &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// Brings a host to the point where its clock is asked for.
    fn prepare(&mut self, host: HostIndex) -> Vec<Effect> {
        let ready = Notice::Ready { version: AGENT_PROTOCOL_VERSION, host: HostFacts::default() };
        assert!(self.hear(host, &ready).contains(&Effect::Prepare(host)));
        let nodes = vec![(host, "p2ps://127.0.0.1:1".parse().unwrap())];
        self.hear(host, &Notice::Prepared { nodes })
    }

    /// Answers the clock's questions in `effects`, for hosts that are ahead, until none is left.
    fn answer_clocks(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let mut other = Vec::new();
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Send(host, Request::Clock { token }) => {
                    let monotonic_us = self.now_us + 50 + self.ahead_us;
                    effects.extend(self.hear(host, &Notice::Clock { token, monotonic_us, unix_us: 0 }));
                }
                effect => other.push(effect),
            }
        }
        other
    }

    fn running(hosts: u32) -> Bench {
        let mut bench = Bench::new(hosts);
        let effects = (0..hosts).flat_map(|host| bench.prepare(host)).collect();
        bench.answer_clocks(effects);
        assert_eq!(bench.machine.stage(), Stage::Running);
        bench.out.clear();
        bench
    }
}

fn said(effects: &[Effect], wanted: &Request) -> Vec<HostIndex> {
    let of = |effect: &Effect| match effect {
        Effect::Send(host, request) if request == wanted => Some(*host),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn given_up(effects: &[Effect]) -> Vec<(HostIndex, &str)> {
    let of = |effect: &'_ Effect| match effect {
        Effect::GiveUp(host, _) => Some(*host),
        _ => None,
    };
    effects
        .iter()
        .filter_map(|effect| {
            Some((
                of(effect)?,
                match effect {
                    Effect::GiveUp(_, reason) => reason.as_str(),
                    _ => "",
                },
            ))
        })
        .collect()
}

#[test]
fn all_hosts_start_together_each_on_its_own_clock() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.prepare(0), [], "the other host's addresses are missing");
    let effects = bench.prepare(1);
    for host in 0..2 {
        assert!(effects.contains(&Effect::SendSchedule(host)));
    }
    let effects = bench.answer_clocks(effects);
    let starts: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(_, Request::Start { at_us }) => Some(*at_us),
            _ => None,
        })
        .collect();
    assert_eq!(starts.len(), 2);
    assert_eq!(bench.machine.stage(), Stage::Running);
    let start_us = bench.machine.start_us;
    assert!(start_us >= bench.now_us + START_MARGIN_US.start());
    for (host, at_us) in [(0, starts[0]), (1, starts[1])] {
        let error_us = bench.machine.host(host).clock.unwrap().error_us;
        assert!(at_us.abs_diff(start_us + 5_000_000) <= error_us, "host {host}");
    }
}

#[test]
fn the_actions_of_a_host_whose_clock_drifts_are_moved_and_those_of_others_are_not() {
    let mut bench = Bench::running(2);
    let began: Vec<u64> = (0..2).filter_map(|host| bench.machine.host(host).start_us).collect();
    for (ahead_us, moves) in [(5_000_000, false), (5_001_000, true)] {
        bench.ahead_us = ahead_us;
        let asked = bench.pass(CLOCK_EVERY_US, 0);
        let of_first = |effect: &Effect| matches!(effect, Effect::Send(0, Request::Clock { .. }));
        let told = bench.answer_clocks(asked.into_iter().filter(of_first).collect());
        let restarts = told.iter().filter(|effect| matches!(effect, Effect::Send(0, Request::Start { .. })));
        assert_eq!(restarts.count(), usize::from(moves), "{told:?}");
    }
    let host = bench.machine.host(0);
    let (start_us, error_us) = (host.start_us.unwrap(), host.clock.unwrap().error_us);
    assert!(start_us.abs_diff(began[0] + 1_000) <= error_us, "{host:?}");
    assert_eq!(bench.machine.host(1).start_us, Some(began[1]));
}

#[test]
fn the_end_waits_for_operations_and_samples_but_not_for_ever() {
    let mut bench = Bench::running(1);
    bench.pass(29_000_000, 5);
    assert_eq!(bench.machine.stage(), Stage::Running);
    bench.hear(0, &Notice::Samples { at_us: 0, nodes: Vec::new() });
    bench.pass(2_000_000, 5);
    assert_eq!(bench.machine.stage(), Stage::Draining);
    bench.pass(500_000, 0);
    assert_eq!(bench.machine.stage(), Stage::Draining, "the last sample is missing");
    bench.hear(0, &Notice::Samples { at_us: 0, nodes: Vec::new() });
    bench.pass(100_000, 1);
    assert_eq!(bench.machine.stage(), Stage::Draining, "an operation is under way");
    let effects = bench.pass(100_000, 0);
    assert_eq!(said(&effects, &Request::Stop), [0]);
    bench.hear(0, &Notice::Stopped);
    assert_eq!(bench.machine.stage(), Stage::Stopping);
    assert!(bench.machine.lost(0), "it had been told to");
    bench.pass(1, 0);
    assert_eq!((bench.machine.stage(), bench.machine.ending()), (Stage::Finished, Ending::Completed));

    let mut bench = Bench::running(1);
    bench.pass(31_000_000, 5);
    bench.hear(0, &Notice::Samples { at_us: 0, nodes: Vec::new() });
    let effects = bench.pass(DRAIN_WAIT_US, 5);
    assert_eq!(said(&effects, &Request::Stop), [0], "not for ever");
    let effects = bench.pass(STOP_WAIT_US, 0);
    assert_eq!(given_up(&effects), [(0, "its agent did not stop in time")]);
}

#[test]
fn an_interrupt_ends_in_order_and_a_second_one_at_once() {
    let mut bench = Bench::running(2);
    bench.pass(3_000_000, 0);
    bench.machine.interrupt(bench.now_us, &mut bench.out);
    assert_eq!(said(&bench.out, &Request::Halt), [0, 1]);
    assert_eq!(bench.machine.stage(), Stage::Draining);
    let effects = bench.pass(INTERRUPTED_DRAIN_WAIT_US, 3);
    assert_eq!(said(&effects, &Request::Stop), [0, 1]);
    bench.machine.interrupt(bench.now_us, &mut bench.out);
    assert_eq!(given_up(&bench.out).len(), 2);
    assert_eq!(bench.machine.ending(), Ending::Interrupted);

    let mut bench = Bench::new(1);
    bench.machine.interrupt(bench.now_us, &mut bench.out);
    assert_eq!(said(&bench.out, &Request::Stop), [0], "also while hosts are prepared");
    assert_eq!(bench.machine.run_us(bench.now_us), 0);
}

#[test]
fn a_host_that_dies_is_left_behind_and_the_last_one_ends_the_run() {
    let mut bench = Bench::running(2);
    bench.pass(1_000_000, 0);
    assert!(!bench.machine.lost(1));
    bench.pass(1, 0);
    assert_eq!(bench.machine.stage(), Stage::Running);
    assert!(!bench.machine.lost(0));
    bench.pass(1, 0);
    assert_eq!((bench.machine.stage(), bench.machine.ending()), (Stage::Finished, Ending::NoHosts));
}

#[test]
fn a_host_that_complains_is_slow_or_of_another_version_is_given_up_while_it_is_prepared() {
    let mut bench = Bench::new(3);
    let problem = Notice::Problem { error: "no ports".into() };
    assert_eq!(given_up(&bench.hear(0, &problem)), [(0, "no ports")]);
    let other = Notice::Ready { version: 99, host: HostFacts::default() };
    let effects = bench.hear(1, &other);
    assert!(given_up(&effects)[0].1.contains("version 99"), "{effects:?}");
    assert!(!bench.machine.lost(0) && !bench.machine.lost(1));
    let effects = bench.pass(PREPARE_WAIT_US, 0);
    assert_eq!(given_up(&effects), [(2, "it was not ready within 60 s")]);
}

#[test]
fn leases_are_renewed_clocks_compared_and_silent_hosts_given_up() {
    let mut bench = Bench::running(1);
    let (mut renewed, mut compared) = (0, 0);
    for second in 0..19 {
        let effects = bench.pass(1_000_000, 0);
        assert_eq!(given_up(&effects), [], "second {second}");
        renewed += said(&effects, &Request::Renew).len();
        compared += effects.iter().filter(|e| matches!(e, Effect::Send(_, Request::Clock { .. }))).count();
    }
    assert_eq!((renewed, compared), (19, 3));
    let effects = bench.pass(2_000_000, 0);
    assert_eq!(given_up(&effects).len(), 1);
}
