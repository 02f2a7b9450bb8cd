//! Every query of every dashboard returns data from a real Prometheus that scrapes a running experiment, both by the
//! orchestrator's re-export and by the nodes themselves, found by its service discovery.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::Run;
use rustix::process::Signal;
use serde_json::Value;

const PLAN: &str = "
name: dashboards
nodes: 12
join: {rate: 20/s}
workload:
  - lookup: {rate: 50/s}
timeline:
  - {at: 5s, kill: 1}
  - {at: 8s, join: 2}
duration: 3m
";

#[test]
fn every_query_of_every_panel_returns_data() {
    let metrics_port = free_port();
    let mut run = Run::start(PLAN, &["--metrics-listen", &format!("127.0.0.1:{metrics_port}")]);
    wait_until("the run serves its metrics", Duration::from_secs(30), || {
        http_get(metrics_port, "/metrics").is_some_and(|text| text.contains("p2ps_lookups_total"))
    });
    check_metrics(&http_get(metrics_port, "/metrics").unwrap());
    let queries = dashboard_queries();
    assert!(queries.len() > 20, "only {} queries were found", queries.len());
    for configuration in ["prometheus.yml", "prometheus-direct.yml"] {
        let port = free_port();
        let _prometheus =
            Prometheus::start(&run.root.path().join(configuration), configuration, port, metrics_port);
        for (panel, query) in &queries {
            wait_until(
                &format!("{configuration}: data for {panel:?}: {query}"),
                Duration::from_secs(60),
                || has_data(port, query),
            );
        }
        assert!(
            has_data(port, "p2ps_build_info{node!=\"\",host!=\"\"}"),
            "{configuration}: series name their node and host"
        );
    }
    run.signal(Signal::INT);
    run.wait_end();
}

struct Prometheus(Child);

impl Prometheus {
    /// Debian's Prometheus on one of the repository's configurations, with this run's port.
    fn start(folder: &Path, configuration: &str, port: u16, metrics_port: u16) -> Prometheus {
        let shipped = fs::read_to_string(repository().join("deploy/monitoring").join(configuration)).unwrap();
        fs::create_dir(folder).unwrap();
        let path = folder.join("prometheus.yml");
        fs::write(&path, shipped.replace("127.0.0.1:9464", &format!("127.0.0.1:{metrics_port}"))).unwrap();
        let checked = Command::new("promtool").args(["check", "config"]).arg(&path).output();
        let checked = checked.expect("promtool is installed: apt-get install prometheus");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed: apt-get install prometheus");
        Prometheus(child)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `promtool check metrics` says of a text.
fn check_metrics(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: apt-get install prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
}

/// (panel, query) of all dashboards, with the variables filled in.
fn dashboard_queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(repository().join("dashboards")).unwrap() {
        let dashboard: Value =
            serde_json::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap().replace("$host", ".*");
                assert!(!query.contains('$'), "a variable is left in {query}");
                queries.push((panel["title"].as_str().unwrap().to_owned(), query));
            }
        }
    }
    queries
}

/// Whether a query has a result that is a number.
fn has_data(port: u16, query: &str) -> bool {
    let Some(answer) = http_get(port, &format!("/api/v1/query?query={}", percent_encoded(query))) else {
        return false;
    };
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    !results.is_empty() && results.iter().all(|result| result["value"][1] != "NaN")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What `GET path` answers on a port of the loopback, if that is a success.
fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|status| *status == "200")?;
    Some(body.to_owned())
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").unwrap();
        encoded
    })
}

fn wait_until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
