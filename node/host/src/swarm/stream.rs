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
    sync::OwnedSemaphorePermit,
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
}

impl Stream {
    pub(crate) fn outbound(inner: libp2p::Stream, meter: Arc<Meter>) -> Self {
        Self { inner, meter, place: None }
    }

    /// A stream opened by the peer; it gives its place in the accept queue back when it is first used.
    pub(crate) fn inbound(inner: libp2p::Stream, meter: Arc<Meter>, place: OwnedSemaphorePermit) -> Self {
        Self { inner, meter, place: Some(place) }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.place = None;
        let count = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        self.meter.received.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.place = None;
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.meter.sent.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.place = None;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
