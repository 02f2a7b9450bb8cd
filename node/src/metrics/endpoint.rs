//! `/metrics` over HTTP/1.1. Nothing but a listener is held while nobody asks.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::{Snapshot, encode, families};

/// The most connections at once; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 8;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one connection may stay open. Scrapers open another.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8192;

/// How long no connection is accepted after the system could give none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A served endpoint. It ends when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    task: AbortHandle,
}

impl Endpoint {
    /// Serves what `snapshot` tells, at `/metrics`. Must be called on a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn serve(
        listen: SocketAddr,
        snapshot: impl Fn() -> Snapshot + Send + Sync + 'static,
    ) -> io::Result<Endpoint> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let task = tokio::spawn(accept(listener, Arc::new(snapshot))).abort_handle();
        Ok(Endpoint { address, task })
    }

    /// Where it is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Source = Arc<dyn Fn() -> Snapshot + Send + Sync>;

async fn accept(listener: TcpListener, source: Source) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.load(Ordering::Relaxed) < CONNECTIONS_MAX {
            let place = Place::take(&open);
            tokio::spawn(connection(stream, source.clone(), place));
        }
    }
}

/// One of the [`CONNECTIONS_MAX`].
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Place {
        open.fetch_add(1, Ordering::Relaxed);
        Place(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(stream: TcpStream, source: Source, place: Place) {
    let service = service_fn(move |request: Request<Incoming>| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(respond(&request, &source)) }
    });
    let serve = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever ends a scraper's connection concerns only the scraper.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve).await;
    drop(place);
}

fn respond(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, encode(&families(&source(), &[]))),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
