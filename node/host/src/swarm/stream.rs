//! A byte stream to a peer, and the count of what went through it.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use libp2p::futures::{AsyncRead as _, AsyncWrite as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, watch},
};

/// Bytes that the streams of one peer carried, without the overhead of encryption and transport.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Meter {
    /// Bytes (received, sent) so far.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }
}

/// A bidirectional, ordered, encrypted stream of bytes to one device.
///
/// `shutdown` closes the sending half. Neither it nor dropping the stream says that the peer has read
/// anything, and on QUIC a dropped stream ends at the peer like a finished one: a protocol that must
/// know ends with an acknowledgement that the sender reads. A protocol that writes much before reading
/// must do both at once, or both ends may wait for ever once the windows are full.
pub struct Stream {
    inner: libp2p::Stream,
    meter: Arc<Meter>,
    place: Option<OwnedSemaphorePermit>,
    /// For the half that reads and the one that writes, as each may wait in a task of its own.
    lives: [Life; 2],
}

impl Stream {
    pub(crate) fn outbound(inner: libp2p::Stream, meter: Arc<Meter>, connection: &watch::Sender<()>) -> Self {
        Self { inner, meter, place: None, lives: [Life::of(connection), Life::of(connection)] }
    }

    /// A stream opened by the peer; it gives its place in the accept queue back when it is first used.
    pub(crate) fn inbound(
        inner: libp2p::Stream,
        meter: Arc<Meter>,
        connection: &watch::Sender<()>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { place: Some(place), ..Self::outbound(inner, meter, connection) }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// The life of the connection of a stream. Yamux wakes nobody who waits on a stream when it is this end that closes the
/// connection: he would wait until he writes again.
struct Life(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Life {
    fn of(connection: &watch::Sender<()>) -> Self {
        let mut connection = connection.subscribe();
        // Nothing is ever sent: the sender is gone with the connection.
        Self(Box::pin(async move { while connection.changed().await.is_ok() {} }))
    }

    /// What came of an operation on the stream; an error, when it would wait for a connection that has ended.
    fn check<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        // Whoever was told once is told again: the future must not be polled after its end.
        ready!(self.0.as_mut().poll(cx));
        self.0 = Box::pin(std::future::ready(()));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is closed")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.place = None;
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer.initialize_unfilled());
        let count = ready!(self.lives[0].check(cx, polled))?;
        buffer.advance(count);
        self.meter.received.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.place = None;
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        let count = ready!(self.lives[1].check(cx, polled))?;
        self.meter.sent.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.lives[1].check(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.place = None;
        let polled = Pin::new(&mut self.inner).poll_close(cx);
        self.lives[1].check(cx, polled)
    }
}
