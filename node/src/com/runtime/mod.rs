//! Sockets, timers and tasks of an asynchronous runtime: tokio, or smol where the library is built with its feature `smol`.
//!
//! Everything else of a node is the same on each of them: this is all that drivers ask of a runtime.

#[cfg(feature = "smol")]
mod smol;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What a node's sockets, timers and tasks run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// The tokio runtime that the node is started on; it must have I/O and time.
    #[default]
    Tokio,
    /// smol's own threads (as many as the environment's `SMOL_THREADS` says, one if it does not), wherever the node is started.
    #[cfg(feature = "smol")]
    Smol,
}

impl Runtime {
    /// Connects to an address.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect(self, address: SocketAddr) -> io::Result<Stream> {
        match self {
            Runtime::Tokio => TcpStream::connect(address).await.map(Stream::Tokio),
            #[cfg(feature = "smol")]
            Runtime::Smol => smol::Stream::connect(address).await.map(Stream::Smol),
        }
    }

    /// Lets a listener accept connections.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(self, listener: std::net::TcpListener) -> io::Result<Listener> {
        match self {
            Runtime::Tokio => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Listener::Tokio)
            }
            #[cfg(feature = "smol")]
            Runtime::Smol => smol::Listener::new(listener).map(Listener::Smol),
        }
    }

    /// A timer that fires after `duration`.
    pub fn sleep(self, duration: Duration) -> Sleep {
        match self {
            Runtime::Tokio => Sleep::Tokio(Box::pin(tokio::time::sleep(duration))),
            #[cfg(feature = "smol")]
            Runtime::Smol => Sleep::Smol(smol::after(duration)),
        }
    }

    /// What `work` gives, or `None` where that takes longer than `limit`.
    pub async fn timeout<T>(self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut sleep = self.sleep(limit);
        std::future::poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => sleep.poll(context).map(|()| None),
        })
        .await
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// On tokio.
    Tokio(TcpStream),
    /// On smol.
    #[cfg(feature = "smol")]
    Smol(smol::Stream),
}

impl Stream {
    /// The address of this end.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Stream::Tokio(stream) => stream.local_addr(),
            #[cfg(feature = "smol")]
            Stream::Smol(stream) => stream.local_addr(),
        }
    }

    /// One side for each direction.
    pub fn into_split(self) -> (Reader, Writer) {
        match self {
            Stream::Tokio(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Tokio(reader), Writer::Tokio(writer))
            }
            #[cfg(feature = "smol")]
            Stream::Smol(stream) => (Reader::Smol(stream.clone()), Writer::Smol(smol::Writer::new(stream))),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tokio(stream) => stream.as_fd(),
            #[cfg(feature = "smol")]
            Stream::Smol(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tokio(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(feature = "smol")]
            Stream::Smol(stream) => stream.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tokio(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(feature = "smol")]
            Stream::Smol(stream) => stream.poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What a socket has taken is on its way.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tokio(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(feature = "smol")]
            Stream::Smol(stream) => Poll::Ready(stream.shutdown()),
        }
    }
}

/// The side of a connection that is read.
#[derive(Debug)]
pub enum Reader {
    /// On tokio.
    Tokio(OwnedReadHalf),
    /// On smol.
    #[cfg(feature = "smol")]
    Smol(smol::Stream),
}

impl Reader {
    /// Reads what there is, or has the task woken when there is something. Nothing is read at the end.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Reader::Tokio(reader) => Pin::new(reader).poll_read(context, buffer),
            #[cfg(feature = "smol")]
            Reader::Smol(stream) => stream.poll_read(context, buffer),
        }
    }
}

/// The side of a connection that is written. Dropped, it tells the other end that nothing more comes.
#[derive(Debug)]
pub enum Writer {
    /// On tokio.
    Tokio(OwnedWriteHalf),
    /// On smol.
    #[cfg(feature = "smol")]
    Smol(smol::Writer),
}

impl Writer {
    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes nothing; what else the system says.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Writer::Tokio(writer) => writer.try_write(bytes),
            #[cfg(feature = "smol")]
            Writer::Smol(writer) => writer.try_write(bytes),
        }
    }

    /// Writes what the socket takes, or has the task woken when it takes something.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Writer::Tokio(writer) => Pin::new(writer).poll_write(context, bytes),
            #[cfg(feature = "smol")]
            Writer::Smol(writer) => writer.poll_write(context, bytes),
        }
    }

    /// Drops it without a word to the other end.
    pub fn forget(self) {
        match self {
            Writer::Tokio(writer) => writer.forget(),
            #[cfg(feature = "smol")]
            Writer::Smol(writer) => writer.forget(),
        }
    }
}

/// Accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// On tokio.
    Tokio(TcpListener),
    /// On smol.
    #[cfg(feature = "smol")]
    Smol(smol::Listener),
}

impl Listener {
    /// The next connection, and the address of its other end.
    ///
    /// # Errors
    /// What the system says.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Listener::Tokio(listener) => {
                listener.accept().await.map(|(stream, address)| (Stream::Tokio(stream), address))
            }
            #[cfg(feature = "smol")]
            Listener::Smol(listener) => {
                listener.accept().await.map(|(stream, address)| (Stream::Smol(stream), address))
            }
        }
    }
}

/// A timer.
#[derive(Debug)]
pub enum Sleep {
    /// On tokio.
    Tokio(Pin<Box<tokio::time::Sleep>>),
    /// On smol.
    #[cfg(feature = "smol")]
    Smol(::smol::Timer),
}

impl Sleep {
    /// Lets it fire at `deadline` instead.
    pub fn reset(&mut self, deadline: Instant) {
        match self {
            Sleep::Tokio(sleep) => sleep.as_mut().reset(deadline.into()),
            #[cfg(feature = "smol")]
            Sleep::Smol(timer) => timer.set_at(deadline),
        }
    }

    /// Whether it has fired; if not, the task is woken when it does.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Sleep::Tokio(sleep) => sleep.as_mut().poll(context),
            #[cfg(feature = "smol")]
            Sleep::Smol(timer) => Pin::new(timer).poll(context).map(|_| ()),
        }
    }
}
