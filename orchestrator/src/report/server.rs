//! Serves a [`MetricsBoard`] over HTTP/1.1: `/metrics` and `/targets`.

use std::net::SocketAddr;

use p2ps::metrics::endpoint::{Endpoint, PLAIN, Page, PageFuture};

use super::MetricsBoard;

const HELP: &str =
    "p2ps orchestrator: /metrics has all nodes' series, /targets the nodes' own endpoints (http_sd)\n";

/// A server of a run's metrics. It ends when this is dropped.
#[derive(Debug)]
pub struct MetricsServer(Endpoint);

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics at {address}")]
pub struct ServeError {
    /// Where it was tried.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

impl MetricsServer {
    /// Serves `board` at `address`; port 0 lets the system choose. Must be called on a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub fn serve(address: SocketAddr, board: MetricsBoard) -> Result<MetricsServer, ServeError> {
        Endpoint::serve_pages(address, HELP, move |path| page(path.to_owned(), board.clone()))
            .map(MetricsServer)
            .map_err(|source| ServeError { address, source })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

fn page(path: String, board: MetricsBoard) -> PageFuture {
    Box::pin(async move {
        let (media_type, text) = match path.as_str() {
            // Of thousands of nodes it takes a while: the run must not wait for it.
            "/metrics" => {
                let text = tokio::task::spawn_blocking(move || board.exposition()).await.unwrap_or_default();
                (prometheus::TEXT_FORMAT, text)
            }
            "/targets" => ("application/json", board.targets()),
            "/" => (PLAIN, HELP.to_owned()),
            _ => return None,
        };
        Some(Page { media_type, text })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p2ps::metrics::endpoint::CONNECTIONS_MAX;
    use tokio::net::TcpStream;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_serves_metrics_targets_and_help_and_nothing_else() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = MetricsServer::serve(any, MetricsBoard::new()).unwrap();
        let address = server.address();
        for (request, status, contents) in [
            ("GET /metrics", "200 OK", "p2ps_run_nodes{state=\"alive\"} 0\n"),
            ("GET /targets", "200 OK", "\r\n\r\n[]"),
            ("GET /", "200 OK", "/metrics"),
            ("GET /else", "404 Not Found", "/metrics"),
            ("POST /metrics", "405 Method Not Allowed", "only GET"),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.contains(contents), "{request}: {answer}");
        }
        assert!(ask(address, "GET /targets").await.contains("content-type: application/json"));
        let error = MetricsServer::serve(address, MetricsBoard::new()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot serve metrics at {address}"));
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_do_not_keep_others_out_for_good() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = MetricsServer::serve(any, MetricsBoard::new()).unwrap();
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(server.address()).await.unwrap());
        }
        drop(idle);
        let answer =
            tokio::time::timeout(Duration::from_secs(30), ask(server.address(), "GET /")).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}
