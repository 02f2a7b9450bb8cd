//! Sockets and timers of smol.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smol::{Async, Timer};
use tokio::io::ReadBuf;

/// A timer that fires after `duration`.
pub(super) fn after(duration: Duration) -> Timer {
    Timer::after(duration)
}

/// A connection, shared by its two sides.
#[derive(Clone, Debug)]
pub struct Stream(Arc<Async<TcpStream>>);

impl Stream {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        Ok(Stream(Arc::new(Async::<TcpStream>::connect(address).await?)))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    pub(super) fn shutdown(&self) -> io::Result<()> {
        self.0.get_ref().shutdown(Shutdown::Write)
    }

    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.0.get_ref().read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.poll_readable(context))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(super) fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.poll_writable(context))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The side of a connection that is written. Dropped, it tells the other end that nothing more comes.
#[derive(Debug)]
pub struct Writer(Option<Stream>);

impl Writer {
    pub(super) fn new(stream: Stream) -> Writer {
        Writer(Some(stream))
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream()?.try_write(bytes)
    }

    pub(super) fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    pub(super) fn forget(mut self) {
        self.0 = None;
    }

    fn stream(&self) -> io::Result<&Stream> {
        self.0.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            // It may be closed already.
            stream.shutdown().ok();
        }
    }
}

/// Accepts connections.
#[derive(Debug)]
pub struct Listener(Async<TcpListener>);

impl Listener {
    pub(super) fn new(listener: TcpListener) -> io::Result<Listener> {
        Async::new(listener).map(Listener)
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, address) = self.0.accept().await?;
        Ok((Stream(Arc::new(stream)), address))
    }
}
