//! A run's metrics as Prometheus wants them: all nodes' series, told apart by `host` and `node`, and the run's own; and where the
//! nodes serve theirs themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use p2ps::agent::protocol::NodeIndex;
use p2ps::metrics::{Snapshot, encode, families};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use serde_json::json;

use crate::record::{MetricsTarget, Progress, Recorder};

/// What a run shows to Prometheus. The run puts it up; any number of servers show it.
#[derive(Clone, Debug, Default)]
pub struct MetricsBoard {
    board: Arc<Mutex<Arc<Board>>>,
}

#[derive(Debug, Default)]
struct Board {
    progress: Progress,
    nodes: Vec<(String, NodeIndex, Snapshot)>,
    targets: Vec<MetricsTarget>,
}

impl MetricsBoard {
    /// One with nothing on it yet.
    pub fn new() -> MetricsBoard {
        MetricsBoard::default()
    }

    /// Puts up how the run is getting on now. Copies all nodes' counters: once in a sampling interval is enough.
    pub fn publish(&self, recorder: &Recorder) {
        let nodes =
            recorder.latest().map(|latest| (latest.host.to_owned(), latest.node, latest.snapshot.clone()));
        let board = Board {
            progress: recorder.progress(),
            nodes: nodes.collect(),
            targets: recorder.targets().collect(),
        };
        // Whoever panicked with the lock held left a whole board behind.
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(board);
    }

    /// All series, in Prometheus' text format.
    pub fn exposition(&self) -> String {
        let board = self.board();
        let mut merged = run_families(&board.progress);
        let mut places: HashMap<String, usize> = HashMap::new();
        for (host, node, snapshot) in &board.nodes {
            let node = node.to_string();
            for mut family in families(snapshot, &[("host", host), ("node", &node)]) {
                match places.get(family.name()) {
                    Some(place) => merged[*place].mut_metric().extend(family.take_metric()),
                    None => {
                        places.insert(family.name().to_owned(), merged.len());
                        merged.push(family);
                    }
                }
            }
        }
        // A family without series may not be written.
        merged.retain(|family| !family.get_metric().is_empty());
        encode(&merged)
    }

    /// Where the nodes serve their own metrics, as Prometheus' HTTP service discovery wants it.
    pub fn targets(&self) -> String {
        let board = self.board();
        let target = |target: &MetricsTarget| {
            let labels = json!({"host": target.host, "node": target.node.to_string()});
            json!({"targets": [target.address.to_string()], "labels": labels})
        };
        serde_json::Value::Array(board.targets.iter().map(target).collect()).to_string()
    }

    fn board(&self) -> Arc<Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The run's own series.
fn run_families(progress: &Progress) -> Vec<MetricFamily> {
    let operations = &progress.operations;
    vec![
        family(
            "p2ps_run_nodes",
            "Nodes of the run by state.",
            MetricType::GAUGE,
            &[
                ("state", "alive", f64::from(progress.nodes_alive)),
                ("state", "joining", f64::from(progress.nodes_joining)),
            ],
        ),
        family(
            "p2ps_run_hosts",
            "Hosts of the run by state.",
            MetricType::GAUGE,
            &[
                ("state", "ready", f64::from(progress.hosts_ready)),
                ("state", "lost", f64::from(progress.hosts_lost)),
            ],
        ),
        family(
            "p2ps_run_operations_total",
            "Operations of the run that ended, by outcome; whether an answer is right is judged at the end.",
            MetricType::COUNTER,
            &[
                ("outcome", "succeeded", operations.succeeded as f64),
                ("outcome", "failed", operations.failed as f64),
                ("outcome", "not_issued", operations.not_issued as f64),
            ],
        ),
        family(
            "p2ps_run_operations_due_total",
            "Operations of the run whose time has come.",
            MetricType::COUNTER,
            &[("", "", operations.issued as f64)],
        ),
        family(
            "p2ps_run_problems_total",
            "What went wrong with the run itself.",
            MetricType::COUNTER,
            &[("", "", progress.problems as f64)],
        ),
        family(
            "p2ps_run_time_seconds",
            "Time since the run's start.",
            MetricType::GAUGE,
            &[("", "", progress.now_us as f64 / 1e6)],
        ),
    ]
}

/// A family with one series for each (label, its value, the number); an empty label: none.
fn family(name: &str, help: &str, kind: MetricType, series: &[(&str, &str, f64)]) -> MetricFamily {
    let metric = |(label, value, number): &(&str, &str, f64)| {
        let mut labels = Vec::new();
        if !label.is_empty() {
            let mut pair = LabelPair::default();
            pair.set_name((*label).to_owned());
            pair.set_value((*value).to_owned());
            labels.push(pair);
        }
        let mut metric = Metric::from_label(labels);
        if kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(*number);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(*number);
            metric.set_gauge(gauge);
        }
        metric
    };
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series.iter().map(metric).collect());
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2ps::metrics::Traffic;

    fn board() -> MetricsBoard {
        let sent =
            |sent| Snapshot { traffic: [Traffic { sent, ..Traffic::default() }; 3], ..Snapshot::default() };
        let nodes = vec![("a".to_owned(), 0, sent(3)), ("b".to_owned(), 1, sent(4))];
        let address = "127.0.0.1:9101".parse().unwrap();
        let targets = vec![MetricsTarget { node: 1, host: "b".to_owned(), address }];
        let progress = Progress { nodes_alive: 2, ..Progress::default() };
        let board = Board { progress, nodes, targets };
        MetricsBoard { board: Arc::new(Mutex::new(Arc::new(board))) }
    }

    #[test]
    fn all_nodes_series_of_one_name_are_one_family() {
        let text = board().exposition();
        let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let mut distinct = families.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(families.len(), distinct.len(), "{text}");
        let series = |host, node, sent| {
            let own = text.lines().filter(|line| line.starts_with("p2ps_messages_total{"));
            let labels = [format!("host=\"{host}\""), format!("node=\"{node}\""), "kind=\"data\"".to_owned()];
            let direction = "direction=\"sent\"";
            let mut own = own
                .filter(|line| line.contains(direction) && labels.iter().all(|label| line.contains(label)));
            own.next().is_some_and(|line| line.ends_with(&format!(" {sent}")))
        };
        assert!(series("a", 0, 3) && series("b", 1, 4), "{text}");
        assert!(text.contains("p2ps_run_nodes{state=\"alive\"} 2\n"), "{text}");
    }

    #[test]
    fn targets_are_in_the_form_of_http_sd() {
        let expected = json!([{"targets": ["127.0.0.1:9101"], "labels": {"host": "b", "node": "1"}}]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&board().targets()).unwrap(), expected);
        assert_eq!(MetricsBoard::new().targets(), "[]");
    }

    #[test]
    fn before_the_start_there_are_only_the_runs_own_series() {
        let text = MetricsBoard::new().exposition();
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("p2ps_run_")), "{text}");
    }
}
