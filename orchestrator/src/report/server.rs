//! Serves a [`MetricsBoard`] over HTTP/1.1: `/metrics` and `/targets`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::MetricsBoard;

/// The most connections at once; others wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take from its request to its end.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a request's head may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8192;

/// How long no connection is taken after the system could give none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const HELP: &str =
    "p2ps orchestrator: /metrics has all nodes' series, /targets the nodes' own endpoints (http_sd)\n";

/// A server of a run's metrics. It ends when this is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    task: AbortHandle,
}

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
    /// Serves `board` at `address`; port 0 lets the system choose. On a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn serve(address: SocketAddr, board: MetricsBoard) -> Result<MetricsServer, ServeError> {
        let failed = |source| ServeError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let task = tokio::spawn(accept(listener, board)).abort_handle();
        Ok(MetricsServer { address: bound, task })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, board: MetricsBoard) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, board.clone(), place))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, board: MetricsBoard, place: OwnedSemaphorePermit) {
    let service = service_fn(move |request: Request<Incoming>| {
        let board = board.clone();
        async move { Ok::<_, Infallible>(respond(&request, board).await) }
    });
    let serve = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever ends a scraper's connection concerns only the scraper.
    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, serve).await;
    drop(place);
}

async fn respond(request: &Request<Incoming>, board: MetricsBoard) -> Response<Full<Bytes>> {
    let is_read = matches!(request.method(), &Method::GET | &Method::HEAD);
    let (status, kind, text) = match (is_read, request.uri().path()) {
        (true, "/metrics") => {
            // Of thousands of nodes it takes a while: the run must not wait for it.
            let text = tokio::task::spawn_blocking(move || board.exposition()).await.unwrap_or_default();
            (StatusCode::OK, prometheus::TEXT_FORMAT, text)
        }
        (true, "/targets") => (StatusCode::OK, "application/json", board.targets()),
        (true, "/") => (StatusCode::OK, PLAIN, HELP.to_owned()),
        (true, _) => (StatusCode::NOT_FOUND, PLAIN, HELP.to_owned()),
        (false, _) => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
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
        let server = MetricsServer::serve(any, MetricsBoard::new()).await.unwrap();
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
        let error = MetricsServer::serve(address, MetricsBoard::new()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot serve metrics at {address}"));
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_do_not_keep_others_out_for_good() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = MetricsServer::serve(any, MetricsBoard::new()).await.unwrap();
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
