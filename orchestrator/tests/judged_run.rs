//! A small run, told notice by notice as agents would, is recorded and judged; wrongs are planted, and must be found.

// The helpers of a test are tests too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use p2ps::agent::protocol::{
    AGENT_PROTOCOL_VERSION, Action, ActionKind, HostFacts, Isolation, NodeSlot, Notice,
};
use p2ps::control::{Errand, OperationReport, Outcome, Report};
use p2ps::id::Id;
use p2ps::message::RouteError;
use p2ps::message::dictionary::Version;
use p2ps::metrics::{Histogram, Snapshot, Traffic};
use p2ps_orchestrator::check::{Verdict, conclude};
use p2ps_orchestrator::plan::targets::FaultsWith;
use p2ps_orchestrator::plan::workload::{Keys, Popularity, Rate, Workload, WorkloadKind};
use p2ps_orchestrator::plan::{Amount, Claim, Comparison, Expectation, Plan, Step, StepEvent};
use p2ps_orchestrator::record::{Judged, Loss, LostReason, Pause, Recorder, RunDirectory, RunRecord};
use p2ps_orchestrator::schedule::{Phase, PlacedNode, Schedule};
use parquet::file::reader::SerializedFileReader;

const SECOND: u64 = 1_000_000;

/// The start of the run on the hosts' clocks.
const START: [u64; 2] = [5_000 * SECOND, 77];

/// Nodes 0, 1 and 2 with the ids 100, 200 and 300 (0 and 2 on host 0, 1 on host 1) join in the first three seconds; node 2 is
/// killed at 10 s. The run ends at 20 s. Look-ups of the key 250, whose responsible is 300 and then 100, each second
/// from 5 s on, by node 0; and one by node 2 just before its end.
struct Run {
    _root: tempfile::TempDir,
    directory: RunDirectory,
    plan: Plan,
    schedule: Schedule,
    recorder: Recorder,
}

impl Run {
    fn new() -> Run {
        Run::of(schedule())
    }

    fn of(schedule: Schedule) -> Run {
        let root = tempfile::tempdir().unwrap();
        let plan = plan();
        let directory = RunDirectory::create(root.path(), &plan).unwrap();
        let recorder = Recorder::create(&directory, &plan, &schedule).unwrap();
        let mut run = Run { _root: root, directory, plan, schedule, recorder };
        for host in 0..2 {
            let facts = HostFacts { name: "twin".to_owned(), ..HostFacts::default() };
            let ready = Notice::Ready { version: AGENT_PROTOCOL_VERSION, host: facts };
            run.recorder.notice(host, None, &ready).unwrap();
        }
        run
    }

    /// All goes well, up to the end of all look-ups but those that a test wants to tell itself.
    fn without_incident(except: &[u64]) -> Run {
        let mut run = Run::new();
        for node in 0..3u32 {
            let at = u64::from(node) * SECOND;
            run.achieved(u64::from(node), node, at + 2_000);
            run.says(node, Report::Joined { at_us: START[host(node)] + at + 50_000 });
        }
        run.ring(2 * SECOND + 60_000, &[100, 200, 300]);
        run.sample(4 * SECOND, 0, 10);
        run.sample(9 * SECOND, 2, 30);
        for operation in 0..16 {
            let killed = operation >= 6;
            if !except.contains(&operation) && operation != 15 {
                let at = (5 + operation) * SECOND;
                run.found(operation, 0, (at + 100, at + 1_100), if killed { 100 } else { 300 }, 2);
            }
        }
        run.achieved(3, 2, 10 * SECOND + 4_000);
        run.exited(2, 10 * SECOND + 6_000);
        run.ring(12 * SECOND, &[100, 200]);
        run.sample(19 * SECOND, 0, 110);
        run
    }

    fn tell(&mut self, node: u32, notice: &Notice) {
        let host = host(node);
        self.recorder.notice(host as u32, Some(START[host]), notice).unwrap();
    }

    fn says(&mut self, node: u32, report: Report) {
        self.tell(node, &Notice::Node { node, report });
    }

    fn achieved(&mut self, index: u64, node: u32, at_us: u64) {
        let achieved_us = START[host(node)] + at_us;
        self.tell(node, &Notice::Achieved { index, planned_us: 0, achieved_us, error: None });
    }

    fn exited(&mut self, node: u32, at_us: u64) {
        let at_us = START[host(node)] + at_us;
        let (status, stderr) = ("signal 9".to_owned(), String::new());
        self.tell(node, &Notice::Exited { node, at_us, status, expected: true, stderr });
    }

    fn found(&mut self, operation: u64, node: u32, (issued, ended): (u64, u64), responsible: u64, hops: u16) {
        let outcome = Outcome::Found { responsible: Id(responsible), hops };
        self.ended(operation, node, (issued, ended), outcome);
    }

    fn ended(&mut self, operation: u64, node: u32, (issued, ended): (u64, u64), outcome: Outcome) {
        let start = START[host(node)];
        let (issued_us, ended_us) = (start + issued, start + ended);
        self.says(node, Report::Operation(OperationReport { operation, issued_us, ended_us, outcome }));
    }

    /// All of `ids` tell neighbours as they should be.
    fn ring(&mut self, at_us: u64, ids: &[u64]) {
        for (at, id) in ids.iter().enumerate() {
            let node = (*id / 100 - 1) as u32;
            let predecessor = Some(Id(ids[(at + ids.len() - 1) % ids.len()]));
            let successor = Id(ids[(at + 1) % ids.len()]);
            self.says(node, Report::Ring { at_us: START[host(node)] + at_us, predecessor, successor });
        }
    }

    /// `node` has sent `sent` control messages of 100 bytes, and timed as many hops of 1 ms.
    fn sample(&mut self, at_us: u64, node: u32, sent: u64) {
        let control = Traffic { sent, sent_bytes: sent * 100, ..Traffic::default() };
        let traffic = [Traffic::default(), control, Traffic::default()];
        let hop_latency_us = Histogram(vec![(1003, sent)]);
        let snapshot = Snapshot { traffic, hop_latency_us, ..Snapshot::default() };
        let at_us = START[host(node)] + at_us;
        self.tell(node, &Notice::Samples { at_us, nodes: vec![(node, snapshot)] });
    }

    fn judge(self) -> (Judgement, RunRecord) {
        self.judge_at(20 * SECOND)
    }

    fn judge_at(self, ended_us: u64) -> (Judgement, RunRecord) {
        let record = self.recorder.finish(ended_us).unwrap();
        let verdict = conclude(&self.directory, &self.plan, &self.schedule, &record).unwrap();
        assert_eq!(
            Verdict {
                judged: verdict.judged.clone(),
                reaches: verdict.reaches.clone(),
                ..Verdict::read(&self.directory.verdict()).unwrap()
            },
            verdict
        );
        let read = SerializedFileReader::try_from(self.directory.operations().as_path()).unwrap();
        let operations = read.into_iter().map(|row| row.unwrap().to_string()).collect();
        let read = SerializedFileReader::try_from(self.directory.samples().as_path()).unwrap();
        let samples = read.into_iter().map(|row| row.unwrap().to_string()).collect();
        let timeline = fs::read_to_string(self.directory.timeline()).unwrap();
        let json = fs::read_to_string(self.directory.verdict()).unwrap();
        (Judgement { verdict, operations, samples, timeline, json }, record)
    }
}

struct Judgement {
    verdict: Verdict,
    operations: Vec<String>,
    samples: Vec<String>,
    timeline: String,
    json: String,
}

impl Judgement {
    fn figure(&self, name: &str) -> Option<f64> {
        self.verdict.figures.get(name).copied()
    }

    fn expectation(&self, text: &str) -> (Option<f64>, bool) {
        let found = self.verdict.expectations.iter().find(|line| line.text == text).unwrap();
        (found.value, found.held)
    }

    /// How many look-ups ended how. None is missing.
    fn ends(&self) -> BTreeMap<&str, usize> {
        let mut ends = BTreeMap::new();
        for judged in &self.verdict.judged {
            *ends.entry(judged.as_str().0).or_default() += 1;
        }
        assert_eq!(ends.values().sum::<usize>(), 16);
        assert_eq!(self.operations.len(), 16);
        ends
    }
}

fn host(node: u32) -> usize {
    usize::from(node == 1)
}

fn plan() -> Plan {
    let figure = |text: &str, name: &str, comparison, bound| Expectation {
        text: text.to_owned(),
        claim: Claim::Figure { name: name.to_owned(), comparison, bound },
    };
    let seconds = Duration::from_secs;
    let converged = |text: &str, within, of| Expectation {
        text: text.to_owned(),
        claim: Claim::Converged { within: seconds(within), of: seconds(of) },
    };
    Plan {
        name: "small".to_owned(),
        seed: 7,
        net: p2ps::config::NetConfig::default(),
        encrypted: false,
        nodes: 3,
        isolation: Isolation::Process,
        join_rate: Some(1.0),
        groups: Vec::new(),
        virtual_hosts: 1,
        faults: FaultsWith::Node,
        workload: vec![Workload {
            kind: WorkloadKind::Lookup { keys: Keys { population: None, popularity: Popularity::Uniform } },
            rate: Rate::Constant(1.0),
            from: Duration::ZERO,
            to: None,
        }],
        timeline: vec![Step {
            at: seconds(10),
            event: StepEvent::Kill(Amount::Count(1).into()),
            text: "kill 1".to_owned(),
        }],
        duration: seconds(20),
        expect: vec![
            figure("lookup.success >= 90%", "lookup.success", Comparison::AtLeast, 0.9),
            figure("messages.lost == 0", "messages.lost", Comparison::Equal, 0.0),
            converged("ring.converged within 5s of 3s", 5, 3),
            converged("ring.converged within 5s of 10s", 5, 10),
        ],
        simulation: Default::default(),
    }
}

fn schedule() -> Schedule {
    let place = |node: u32| PlacedNode {
        slot: NodeSlot { node, id: Id(u64::from(node + 1) * 100), seed: 1 },
        host: host(node) as u32,
    };
    let mut actions: Vec<(u64, u32, ActionKind)> =
        (0..3).map(|node| (u64::from(node) * SECOND, node, ActionKind::Spawn { via: vec![] })).collect();
    actions.push((10 * SECOND, 2, ActionKind::Kill));
    let key = Id(250);
    for operation in 0..15 {
        actions.push(((5 + operation) * SECOND, 0, ActionKind::Lookup { operation, key }));
    }
    actions.push((10 * SECOND - 1_000, 2, ActionKind::Lookup { operation: 15, key }));
    let number = |(index, (at_us, node, kind))| Action { index, at_us, node, kind };
    let actions = (0..).zip(actions).map(number).collect();
    let phases = [(0, "join 3 nodes"), (10 * SECOND, "kill 1")];
    let phases =
        phases.map(|(at_us, text)| Phase { at_us, text: text.to_owned(), nodes: Vec::new() }).to_vec();
    Schedule {
        nodes: (0..3).map(place).collect(),
        actions,
        phases,
        groups: Vec::new(),
        operations: 16,
        end_us: 20 * SECOND,
    }
}

#[test]
fn a_run_without_incident_passes_and_every_figure_is_what_was_told() {
    let mut run = Run::without_incident(&[]);
    run.found(15, 2, (10 * SECOND - 900, 10 * SECOND - 500), 300, 0);
    let (judgement, record) = run.judge();
    assert!(judgement.verdict.passed, "{:#?}", judgement.verdict);
    assert_eq!(judgement.ends(), BTreeMap::from([("succeeded", 16)]));
    assert_eq!((record.problems, record.failed_actions), (0, 0), "{:?}", record.first_problems);
    for (name, value) in [
        ("nodes.alive", 2.0),
        ("lookup.issued", 16.0),
        ("lookup.success", 1.0),
        ("lookup.wrong", 0.0),
        ("lookup.lost", 0.0),
        ("lookup.hops.mean", 30.0 / 16.0),
        ("lookup.hops.max", 2.0),
        ("lookup.latency.p50", 0.0011),
        ("lookup.latency.max", 0.0011),
        ("hop.latency.p99", 0.001003),
        ("ring.converged", 2.0),
        ("schedule.error.p50", 0.002),
        ("schedule.error.max", 0.004),
        ("messages.control.sent", 140.0),
        ("messages.data.sent", 0.0),
        // Node 0 was a member from 0.05 s to its last sample at 19 s, node 2 from 2.05 s to 9 s.
        ("maintenance.bytes_per_node_second", 14_000.0 / (18.95 + 6.95)),
    ] {
        let figure = judgement.figure(name).unwrap_or_else(|| panic!("{name} is absent"));
        assert!((figure - value).abs() < 1e-9, "{name}: {figure}, not {value}");
    }
    assert_eq!(judgement.expectation("ring.converged within 5s of 3s"), (Some(0.0), true));
    assert_eq!(judgement.expectation("ring.converged within 5s of 10s"), (Some(2.0), true));
    assert!(judgement.json.contains("\"lookup.issued\": 16,"), "{}", judgement.json);
}

#[test]
fn the_files_tell_what_happened() {
    let mut run = Run::without_incident(&[3, 6]);
    run.ended(3, 0, (8 * SECOND + 10, 9 * SECOND), Outcome::Failed(RouteError::TimedOut));
    run.found(6, 0, (11 * SECOND + 100, 11 * SECOND + 900), 200, 1);
    let (judgement, _) = run.judge();
    assert_eq!(
        judgement.operations[0],
        "{id: 0, kind: \"lookup\", node: 0, host: \"twin\", key: 250, intended_us: 5000000, issued_us: 5000100, \
         ended_us: 5001100, outcome: \"succeeded\", reason: null, responsible: 300, hops: 2, latency_us: 1100, \
         put: null, expected: null, reached: null, duplicates: null}"
    );
    assert!(
        judgement.operations[3].contains("outcome: \"failed\", reason: \"timed_out\", responsible: null")
    );
    assert!(judgement.operations[6].contains("outcome: \"wrong\", reason: null, responsible: 200, hops: 1"));
    assert!(judgement.operations[15].contains("ended_us: null, outcome: \"lost\", reason: \"node_ended\""));
    assert_eq!(judgement.samples.len(), 3);
    assert!(
        judgement.samples[1].starts_with("{at_us: 9000000, node: 2, life: 0, host: \"twin\", data_sent: 0")
    );
    assert!(judgement.samples[1].contains("control_sent: 30,"));
    let lines: Vec<serde_json::Value> =
        judgement.timeline.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kill = lines.iter().find(|line| line["do"] == "kill").unwrap();
    assert_eq!((&kill["planned_us"], &kill["achieved_us"]), (&10_000_000.into(), &10_004_000.into()));
    assert_eq!(kill["host"], "twin");
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!([of("action"), of("joined"), of("ring"), of("exited"), of("problem")], [4, 3, 5, 1, 0]);
    assert!(lines.iter().any(|line| line["host"] == "twin-1"), "hosts of one name are told apart");
}

#[test]
fn an_answer_that_names_another_node_is_wrong_and_no_success() {
    let mut run = Run::without_incident(&[3]);
    run.found(3, 0, (8 * SECOND, 8 * SECOND + 500), 200, 3);
    let (judgement, _) = run.judge();
    assert_eq!(judgement.verdict.judged[3], Judged::Wrong);
    assert_eq!(judgement.ends(), BTreeMap::from([("lost", 1), ("succeeded", 14), ("wrong", 1)]));
    assert_eq!(
        (judgement.figure("lookup.wrong"), judgement.expectation("lookup.success >= 90%").1),
        (Some(1.0), false)
    );
    assert_eq!(judgement.figure("lookup.hops.max"), Some(2.0), "a wrong answer's hops are no look-up's");
    assert!(!judgement.verdict.passed);
}

#[test]
fn an_answer_that_was_right_when_it_was_given_is_right_though_its_node_died_since() {
    let mut run = Run::without_incident(&[5]);
    // Issued before the kill was achieved (10.004 s), ended after it.
    run.found(5, 0, (10 * SECOND + 3_000, 10 * SECOND + 90_000), 300, 2);
    assert_eq!(run.judge().0.verdict.judged[5], Judged::Succeeded);
    let mut run = Run::without_incident(&[5]);
    run.found(5, 0, (10 * SECOND + 5_000, 10 * SECOND + 90_000), 300, 2);
    assert_eq!(run.judge().0.verdict.judged[5], Judged::Wrong, "issued after the kill");
    let mut run = Run::without_incident(&[5]);
    run.recorder.clock_error(1, 2_000);
    run.found(5, 0, (10 * SECOND + 5_000, 10 * SECOND + 90_000), 300, 2);
    assert_eq!(run.judge().0.verdict.judged[5], Judged::Succeeded, "unless clocks may be off by that");
}

#[test]
fn look_ups_that_nobody_reports_are_lost_each_for_its_reason() {
    let mut run = Run::without_incident(&[4, 7]);
    run.tell(0, &Notice::NotIssued { operation: 7, planned_us: START[0] + 12 * SECOND });
    let (judgement, _) = run.judge();
    let judged = &judgement.verdict.judged;
    assert_eq!(judged[4], Judged::Lost(LostReason::NoReport));
    assert_eq!(judged[7], Judged::Lost(LostReason::NotIssued));
    assert_eq!(judged[15], Judged::Lost(LostReason::NodeEnded), "its node was killed with it under way");
    assert_eq!(judgement.ends(), BTreeMap::from([("lost", 3), ("succeeded", 13)]));
    assert_eq!((judgement.figure("lookup.issued"), judgement.figure("lookup.lost")), (Some(16.0), Some(3.0)));
    // Only the first is the overlay's fault.
    assert_eq!(judgement.expectation("messages.lost == 0"), (Some(1.0), false));
    let reasons = [("lost.no_report", 1), ("lost.node_ended", 1), ("lost.not_issued", 1)];
    assert_eq!(judgement.verdict.unsuccessful, reasons.map(|(name, count)| (name.to_owned(), count)).into());
}

/// The schedule with a put (16) and a get (17) of one key, a broadcast (18) and a message to node 1 (19), all by node 0.
fn asked() -> Schedule {
    let mut schedule = schedule();
    let key = Id(250);
    let errands = [
        Errand::Put { key, bytes: 8 },
        Errand::Get { key },
        Errand::Broadcast { bytes: 8 },
        Errand::SendReliable { to: Id(200), bytes: 8 },
    ];
    for (operation, what) in (16..).zip(errands) {
        let at_us = (operation - 10) * SECOND;
        let kind = ActionKind::Errand { operation, what };
        schedule.actions.push(Action { index: operation + 4, at_us, node: 0, kind });
    }
    schedule.operations = 20;
    schedule
}

/// What the judge makes of those four, where node 0 tells these ends of them, and these nodes say that they came.
fn judge_asked(read: Option<u64>, came: &[(u64, u32, u64)]) -> (Vec<Judged>, Judgement) {
    let mut run = Run::of(asked());
    for node in 0..3u32 {
        let at = u64::from(node) * SECOND;
        run.achieved(u64::from(node), node, at + 2_000);
        run.says(node, Report::Joined { at_us: START[host(node)] + at + 50_000 });
    }
    run.achieved(3, 2, 10 * SECOND + 4_000);
    run.exited(2, 10 * SECOND + 6_000);
    let version = |counter| Version { counter, node: Id(300) };
    let at = |operation: u64| ((operation - 10) * SECOND + 100, (operation - 10) * SECOND + 900);
    run.ended(16, 0, at(16), Outcome::Written { version: version(1) });
    run.ended(17, 0, at(17), Outcome::Read { value: read.map(|put| (Some(put), version(1))) });
    run.ended(18, 0, at(18), Outcome::Sent);
    run.ended(19, 0, at(19), Outcome::Sent);
    for (operation, node, at_us) in came {
        let at_us = START[host(*node)] + at_us;
        run.says(*node, Report::Delivered { operation: *operation, at_us });
    }
    let (judgement, _) = run.judge();
    (judgement.verdict.judged[16..].to_vec(), judgement)
}

#[test]
fn puts_gets_and_messages_are_held_against_what_came() {
    use Judged::{Missing, Partial, Succeeded, Wrong};
    // Node 2 is killed 2 s after the broadcast: nobody can ask it whether it came.
    let came = [(18, 1, 8 * SECOND + 700), (19, 1, 9 * SECOND + 500)];
    let (judged, judgement) = judge_asked(Some(16), &came);
    assert_eq!(judged, [Succeeded, Succeeded, Succeeded, Succeeded]);
    for (name, value) in [
        ("put.success", 1.0),
        ("get.found", 1.0),
        ("get.latency.p50", 0.0009),
        ("broadcast.coverage", 1.0),
        ("broadcast.latency.max", 0.0007),
        ("send_reliable.duplicates", 0.0),
    ] {
        assert_eq!(judgement.figure(name), Some(value), "{name}");
    }
    assert_eq!(judgement.figure("broadcast.messages"), None, "no node was sampled");
    assert!(judgement.operations[18].contains("kind: \"broadcast\", node: 0, host: \"twin\", key: null"));
    assert!(judgement.operations[18].ends_with("expected: 1, reached: 1, duplicates: 0}"));
    assert!(judgement.operations[17].contains("put: 16"));

    let (judged, judgement) = judge_asked(None, &[]);
    assert_eq!(judged, [Succeeded, Missing, Partial, Wrong]);
    assert_eq!(judgement.figure("broadcast.coverage.min"), Some(0.0));
    let told = ["get.wrong.missing", "broadcast.partial", "send_reliable.wrong"];
    assert!(told.iter().all(|reason| judgement.verdict.unsuccessful.get(*reason) == Some(&1)));

    let twice = [came[0], came[0], came[1], came[1]];
    let (judged, judgement) = judge_asked(Some(7), &twice);
    assert_eq!(judged, [Succeeded, Wrong, Succeeded, Succeeded], "nobody has put such a value");
    assert_eq!(judgement.figure("broadcast.duplicates"), Some(1.0));
    assert_eq!(judgement.figure("send_reliable.duplicates"), Some(1.0));
}

#[test]
fn words_about_operations_that_make_no_sense_are_problems_and_nothing_else() {
    let mut run = Run::of(asked());
    let delivered = |operation| Report::Delivered { operation, at_us: START[0] };
    run.says(0, delivered(16));
    run.says(0, delivered(999));
    run.ended(18, 0, (8 * SECOND, 8 * SECOND), Outcome::Found { responsible: Id(1), hops: 0 });
    run.ended(17, 0, (7 * SECOND, 7 * SECOND), Outcome::Sent);
    let (_, record) = run.judge();
    assert_eq!(record.problems, 4, "{:?}", record.first_problems);
    assert!(record.deliveries.delivered.is_empty());
}

#[test]
fn a_host_that_is_lost_takes_its_nodes_and_their_look_ups_with_it() {
    let mut run = Run::without_incident(&[13, 14]);
    let lost = |at_us: u64| Loss { at_us, noticed_us: at_us + 20 * SECOND, gone_us: at_us + 25 * SECOND };
    run.recorder.host_lost(0, lost(17 * SECOND), "its agent does not answer").unwrap();
    run.recorder.host_lost(0, lost(18 * SECOND), "again").unwrap();
    assert_eq!((run.recorder.progress().hosts_lost, run.recorder.progress().nodes_alive), (1, 1));
    let (judgement, record) = run.judge();
    assert_eq!(judgement.verdict.hosts_lost, 1);
    assert_eq!(record.hosts[0].lost, Some((17 * SECOND, "its agent does not answer".to_owned())));
    assert_eq!(judgement.figure("nodes.alive"), Some(1.0));
    // Both were to be issued at 18 and 19 s, when nobody was there any more to issue them.
    assert_eq!(judgement.verdict.judged[13], Judged::Lost(LostReason::HostLost));
    assert_eq!(judgement.verdict.judged[14], Judged::Lost(LostReason::HostLost));
}

#[test]
fn a_run_that_is_cut_short_does_not_pass_nor_count_what_it_did_not_reach() {
    let mut run = Run::without_incident(&[11, 12, 13, 14]);
    run.found(15, 2, (10 * SECOND - 900, 10 * SECOND - 500), 300, 0);
    let (judgement, _) = run.judge_at(15 * SECOND + 500_000);
    assert!(!judgement.verdict.complete && !judgement.verdict.passed);
    assert!(judgement.verdict.expectations.iter().all(|line| line.held), "{:#?}", judgement.verdict);
    assert_eq!(judgement.figure("lookup.issued"), Some(12.0));
    assert_eq!(judgement.verdict.unsuccessful, BTreeMap::from([("lost.not_reached".to_owned(), 4)]));
}

#[test]
fn what_was_not_measured_is_absent_and_expectations_of_it_do_not_hold() {
    let (judgement, _) = Run::new().judge();
    for name in [
        "lookup.latency.p99",
        "hop.latency.p50",
        "ring.converged",
        "messages.control.sent",
        "schedule.error.max",
    ] {
        assert_eq!(judgement.figure(name), None, "{name}");
    }
    assert_eq!(judgement.figure("nodes.alive"), Some(0.0));
    let converged = judgement.verdict.expectations.iter().find(|line| line.text.ends_with("of 10s")).unwrap();
    assert_eq!(
        (converged.value, converged.held, converged.note.as_deref()),
        (None, false, Some("not measured"))
    );
    assert!(judgement.json.contains("\"value\": null"), "{}", judgement.json);
}

#[test]
fn a_ring_that_converges_late_or_never_or_breaks_again_does_not_hold() {
    let converged = "ring.converged within 5s of 10s";
    let whole = Run::without_incident(&[]);
    assert_eq!(whole.judge().0.expectation(converged), (Some(2.0), true));

    // Node 0 takes another for its successor at 13 s, and comes back at 17 s: right in time, but not for good.
    let astray =
        |at_us, successor| Report::Ring { at_us: START[0] + at_us, predecessor: Some(Id(200)), successor };
    let mut late = Run::without_incident(&[]);
    late.says(0, astray(13 * SECOND, Id(300)));
    late.says(0, astray(17 * SECOND, Id(200)));
    let (judgement, _) = late.judge();
    assert_eq!(judgement.expectation(converged), (Some(7.0), false));
    assert_eq!(judgement.figure("ring.converged"), Some(7.0));

    let mut never = Run::without_incident(&[]);
    never.says(0, astray(13 * SECOND, Id(300)));
    let (judgement, _) = never.judge();
    let line = judgement.verdict.expectations.iter().find(|line| line.text == converged).unwrap();
    assert_eq!((line.value, line.held, line.note.as_deref()), (None, false, Some("never")));
    assert_eq!(judgement.figure("ring.converged"), None);
}

#[test]
fn counters_that_start_anew_are_added_to_what_was_counted_before() {
    let mut run = Run::new();
    run.achieved(0, 0, 0);
    run.sample(SECOND, 0, 40);
    run.sample(2 * SECOND, 0, 100);
    // It comes back without a word of it, and counts from zero.
    run.sample(3 * SECOND, 0, 5);
    run.sample(4 * SECOND, 0, 25);
    let (judgement, record) = run.judge();
    assert_eq!(judgement.figure("messages.control.sent"), Some(125.0));
    assert_eq!(record.totals.hop_latency_us.count(), 125);
    let lives: Vec<bool> = judgement.samples.iter().map(|row| row.contains("life: 1")).collect();
    assert_eq!(lives, [false, false, true, true]);
}

#[test]
fn a_node_known_to_be_restarted_counts_from_zero_even_if_it_soon_counts_more() {
    let mut twice = schedule();
    twice.actions[1].node = 0;
    let mut run = Run::of(twice);
    let known = |run: &Run| run.recorder.latest().next().map(|latest| latest.snapshot.traffic[1].sent);
    run.achieved(0, 0, 0);
    run.sample(SECOND, 0, 40);
    assert_eq!(known(&run), Some(40));
    run.exited(0, SECOND + 1);
    assert_eq!(known(&run), None, "who has ended is not shown");
    run.achieved(1, 0, SECOND + 2);
    run.sample(2 * SECOND, 0, 60);
    let (judgement, _) = run.judge();
    assert_eq!(judgement.figure("messages.control.sent"), Some(100.0));
}

#[test]
fn words_that_make_no_sense_are_problems_and_change_nothing() {
    let mut run = Run::without_incident(&[]);
    run.achieved(99, 0, SECOND);
    run.achieved(0, 0, SECOND);
    run.found(99, 0, (0, 1), 100, 1);
    run.found(1, 2, (0, 1), 100, 1);
    run.found(0, 0, (0, 1), 999, 1);
    for node in [1, 3, u32::MAX] {
        run.recorder.notice(0, Some(0), &Notice::Node { node, report: Report::Joined { at_us: 1 } }).unwrap();
    }
    run.recorder.notice(9, None, &Notice::Problem { error: "who am I?".repeat(10_000) }).unwrap();
    let samples = Notice::Samples { at_us: 0, nodes: vec![(7, Snapshot::default())] };
    run.recorder.notice(0, None, &samples).unwrap();
    let (judgement, record) = run.judge();
    assert_eq!(record.problems, 10, "{:?}", record.first_problems);
    assert!(judgement.timeline.lines().all(|line| line.len() < 10_000));
    assert_eq!(judgement.ends(), BTreeMap::from([("lost", 1), ("succeeded", 15)]));
}

#[test]
fn progress_follows_the_run() {
    let mut run = Run::new();
    assert_eq!(run.recorder.progress().phase, "join 3 nodes");
    run.achieved(0, 0, 0);
    run.achieved(1, 1, SECOND);
    assert_eq!((run.recorder.progress().nodes_joining, run.recorder.progress().nodes_alive), (2, 0));
    run.says(0, Report::Joined { at_us: START[0] + 30_000 });
    run.found(0, 0, (5 * SECOND, 5 * SECOND + 2_000), 100, 0);
    let progress = run.recorder.progress();
    assert_eq!((progress.nodes_joining, progress.nodes_alive, progress.hosts_ready), (1, 1, 2));
    assert_eq!((progress.operations.issued, progress.operations.succeeded), (1, 1));
    assert!(progress.latency_p50_us.is_some_and(|us| (1_980..=2_020).contains(&us)), "{progress:?}");
    run.sample(11 * SECOND, 0, 1);
    let progress = run.recorder.progress();
    assert_eq!((progress.phase.as_str(), progress.operations.issued), ("kill 1", 8));
}

#[test]
fn nodes_that_serve_metrics_are_targets_until_they_end() {
    let mut run = Run::new();
    run.achieved(2, 2, 2 * SECOND);
    let metrics = "127.0.0.1:9103".parse().unwrap();
    let access_point = "p2ps://127.0.0.1:3003".parse().unwrap();
    run.says(2, Report::Listening { access_point, metrics: Some(metrics) });
    let targets: Vec<_> = run.recorder.targets().map(|target| (target.node, target.address)).collect();
    assert_eq!(targets, [(2, metrics)]);
    run.exited(2, 3 * SECOND);
    assert_eq!(run.recorder.targets().count(), 0);
}

/// 300 is stopped from 6.5 s to 8.5 s: from then on it may be given up, and take its time to come back. The answers that name its heir are
/// right from 6.5 s on, those that name itself all the time.
#[test]
fn while_a_node_is_stopped_both_it_and_its_heir_are_right() {
    let mut schedule = schedule();
    let next = schedule.actions.len() as u64;
    for (index, at_us, kind) in
        [(next, 6_500_000, ActionKind::Pause), (next + 1, 8_500_000, ActionKind::Resume)]
    {
        schedule.actions.push(Action { index, at_us, node: 2, kind });
    }
    let mut run = Run::of(schedule);
    for node in 0..3u32 {
        let at = u64::from(node) * SECOND;
        run.achieved(u64::from(node), node, at + 2_000);
        run.says(node, Report::Joined { at_us: START[host(node)] + at + 50_000 });
    }
    run.achieved(next, 2, 6_500_500);
    run.achieved(next + 1, 2, 8_500_500);
    for (operation, responsible) in [(0, 100), (1, 300), (2, 100), (3, 300), (4, 100), (5, 200)] {
        let at = (5 + operation) * SECOND;
        run.found(operation, 0, (at + 100, at + 1_100), responsible, 2);
    }
    let (judgement, record) = run.judge();
    assert_eq!(record.pauses, [Pause { node: 2, from_us: 6_500_500, until_us: Some(8_500_500) }]);
    let outcomes: Vec<&str> = judgement.verdict.judged[..6].iter().map(|judged| judged.as_str().0).collect();
    assert_eq!(outcomes, ["wrong", "succeeded", "succeeded", "succeeded", "succeeded", "wrong"]);
}
