//! Pages over HTTP/1.1, for Prometheus and for people: a node's `/metrics`, and what an orchestrator shows of a run. Nothing but
//! a listener is held while nobody asks.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
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
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::{Snapshot, encode, families};

/// The most connections at once; others wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 16;

/// How long a request's head may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long one connection may stay open. Scrapers open another.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8192;

/// How long no connection is accepted after the system could give none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The type of a page for people.
pub const PLAIN: &str = "text/plain; charset=utf-8";

/// What is served at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its media type.
    pub media_type: &'static str,
    /// Its text.
    pub text: String,
}

/// A page that may take a while to write.
pub type PageFuture = Pin<Box<dyn Future<Output = Option<Page>> + Send>>;

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
        Endpoint::serve_pages(listen, "see /metrics\n", move |path| {
            let text = (path == "/metrics").then(|| encode(&families(&snapshot(), &[])));
            Box::pin(ready(text.map(|text| Page { media_type: prometheus::TEXT_FORMAT, text })))
        })
    }

    /// Serves the pages that there are, by path; `help` is what other paths say. Must be called on a tokio runtime with I/O
    /// and time.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn serve_pages(
        listen: SocketAddr,
        help: &'static str,
        page: impl Fn(&str) -> PageFuture + Send + Sync + 'static,
    ) -> io::Result<Endpoint> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let pages = Pages { help, page: Arc::new(page) };
        Ok(Endpoint { address, task: tokio::spawn(accept(listener, pages)).abort_handle() })
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

#[derive(Clone)]
struct Pages {
    help: &'static str,
    page: Arc<dyn Fn(&str) -> PageFuture + Send + Sync>,
}

async fn accept(listener: TcpListener, pages: Pages) {
    // Connections end with the endpoint.
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, pages.clone()))),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(respond(&request, &pages).await) }
    });
    let serve = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever ends a scraper's connection concerns only the scraper.
    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, serve).await;
}

async fn respond(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    let plain = |text: &str| Page { media_type: PLAIN, text: text.to_owned() };
    let (status, page) = if !matches!(request.method(), &Method::GET | &Method::HEAD) {
        (StatusCode::METHOD_NOT_ALLOWED, plain("only GET\n"))
    } else if let Some(page) = (pages.page)(request.uri().path()).await {
        (StatusCode::OK, page)
    } else {
        (StatusCode::NOT_FOUND, plain(pages.help))
    };
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(page.media_type));
    response
}
