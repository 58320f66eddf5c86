//! Sealed messages on a byte stream: the length as two bytes, big-endian, then a Noise transport message.
//!
//! Many messages are sealed into one buffer and written together. A message without content ends a direction, so that
//! a cut connection is never taken for the end. Each direction takes a new key every [`MESSAGES_PER_KEY`] messages.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use snow::TransportState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest message in bytes, by the Noise protocol framework.
const MESSAGE: usize = 65_535;
/// Bytes that sealing adds to a message.
const TAG: usize = 16;
/// Bytes of the length before a message.
const PREFIX: usize = 2;
/// Bytes of sealed messages that are gathered before they are written.
const OUTGOING: usize = 8 * (MESSAGE + PREFIX);
/// Bytes read from the stream at a time.
const INCOMING: usize = 512 << 10;
/// 2^18 messages of 64 KiB are 16 GiB.
const MESSAGES_PER_KEY: u64 = 1 << 18;

/// A sealed stream over `S`.
pub struct BulkChannel<S> {
    stream: S,
    noise: TransportState,
    incoming: Incoming,
    outgoing: Outgoing,
    messages_per_key: u64,
}

#[derive(Default)]
struct Incoming {
    /// Sealed bytes; those in `start..end` are not opened yet.
    sealed: Vec<u8>,
    start: usize,
    end: usize,
    /// One opened message, for a reader who has no room for a whole one; `taken` bytes of it were read.
    plain: Vec<u8>,
    taken: usize,
    messages: u64,
    ended: bool,
}

#[derive(Default)]
struct Outgoing {
    sealed: Vec<u8>,
    start: usize,
    end: usize,
    messages: u64,
    ended: bool,
}

impl<S> BulkChannel<S> {
    pub(super) fn new(stream: S, noise: TransportState) -> Self {
        Self::with_rekey(stream, noise, MESSAGES_PER_KEY)
    }

    pub(super) fn with_rekey(stream: S, noise: TransportState, messages_per_key: u64) -> Self {
        let incoming = Incoming { sealed: vec![0; INCOMING], ..Incoming::default() };
        let outgoing = Outgoing { sealed: vec![0; OUTGOING], ..Outgoing::default() };
        BulkChannel { stream, noise, incoming, outgoing, messages_per_key }
    }

    /// The bytes of the next message, when it has arrived whole.
    fn next_message(&self) -> Option<std::ops::Range<usize>> {
        let Incoming { sealed, start, end, .. } = &self.incoming;
        let [a, b] = *sealed.get(*start..*end)?.first_chunk()?;
        let from = start + PREFIX;
        let to = from + usize::from(u16::from_be_bytes([a, b]));
        (to <= *end).then_some(from..to)
    }

    /// Opens a message into `out`; answers the length of its content.
    fn open(&mut self, message: std::ops::Range<usize>, out: &mut [u8]) -> io::Result<usize> {
        let end = message.end;
        let sealed = self.incoming.sealed.get(message).unwrap_or_default();
        let opened = self.noise.read_message(sealed, out);
        let len = opened.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a message was changed on its way"))?;
        self.incoming.start = end;
        self.incoming.messages += 1;
        if self.incoming.messages.is_multiple_of(self.messages_per_key) {
            self.noise.rekey_incoming();
        }
        self.incoming.ended = len == 0;
        Ok(len)
    }

    /// Opens what has arrived into `buf`; answers whether the reader has something to look at.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        if let Some(rest) = self.incoming.plain.get(self.incoming.taken..).filter(|rest| !rest.is_empty()) {
            let len = rest.len().min(buf.remaining());
            buf.put_slice(rest.get(..len).unwrap_or_default());
            self.incoming.taken += len;
            return Ok(true);
        }
        let before = buf.filled().len();
        while !self.incoming.ended
            && let Some(message) = self.next_message()
        {
            if buf.remaining() >= message.len() {
                // The place for the tag is needed while the message is opened.
                let len = self.open(message.clone(), buf.initialize_unfilled_to(message.len()))?;
                buf.advance(len);
            } else if buf.filled().len() == before {
                let mut plain = std::mem::take(&mut self.incoming.plain);
                plain.resize(message.len(), 0);
                let len = self.open(message, &mut plain)?;
                plain.truncate(len);
                (self.incoming.plain, self.incoming.taken) = (plain, 0);
                return if self.incoming.ended { Ok(true) } else { self.deliver(buf) };
            } else {
                break;
            }
        }
        Ok(buf.filled().len() > before || self.incoming.ended)
    }

    /// Seals the beginning of `bytes`, as much as there is room for.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sealed = 0;
        loop {
            let rest = bytes.get(sealed..).unwrap_or_default();
            let room = self.outgoing.sealed.len().saturating_sub(self.outgoing.end + PREFIX + TAG);
            let part = rest.get(..rest.len().min(room).min(MESSAGE - TAG)).unwrap_or_default();
            if part.is_empty() {
                return Ok(sealed);
            }
            self.seal_message(part)?;
            sealed += part.len();
        }
    }

    fn seal_message(&mut self, content: &[u8]) -> io::Result<()> {
        let outgoing = &mut self.outgoing;
        let space = outgoing.sealed.get_mut(outgoing.end..).unwrap_or_default();
        let (prefix, message) = space.split_first_chunk_mut::<PREFIX>().ok_or(io::ErrorKind::WriteZero)?;
        let written = self.noise.write_message(content, message);
        let len = written.map_err(|_| io::Error::other("a message could not be sealed"))?;
        *prefix = u16::try_from(len).map_err(|_| io::ErrorKind::WriteZero)?.to_be_bytes();
        outgoing.end += PREFIX + len;
        outgoing.messages += 1;
        if outgoing.messages.is_multiple_of(self.messages_per_key) {
            self.noise.rekey_outgoing();
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> BulkChannel<S> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let incoming = &mut self.incoming;
        if incoming.start == incoming.end {
            (incoming.start, incoming.end) = (0, 0);
        } else if incoming.sealed.len() - incoming.start < PREFIX + MESSAGE {
            incoming.sealed.copy_within(incoming.start..incoming.end, 0);
            (incoming.start, incoming.end) = (0, incoming.end - incoming.start);
        }
        let mut space = ReadBuf::new(incoming.sealed.get_mut(incoming.end..).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        match space.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            read => {
                incoming.end += read;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> BulkChannel<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outgoing = &mut self.outgoing;
        while outgoing.start < outgoing.end {
            let rest = outgoing.sealed.get(outgoing.start..outgoing.end).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => outgoing.start += written,
            }
        }
        (outgoing.start, outgoing.end) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BulkChannel<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let channel = self.get_mut();
        while buf.remaining() > 0 && !channel.deliver(buf)? {
            ready!(channel.poll_fill(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BulkChannel<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let channel = self.get_mut();
        if channel.outgoing.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            let sealed = channel.seal(bytes)?;
            if sealed > 0 || bytes.is_empty() {
                // What does not go out now goes with the next write or flush.
                if let Poll::Ready(Err(error)) = channel.poll_drain(cx) {
                    return Poll::Ready(Err(error));
                }
                return Poll::Ready(Ok(sealed));
            }
            ready!(channel.poll_drain(cx))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let channel = self.get_mut();
        ready!(channel.poll_drain(cx))?;
        Pin::new(&mut channel.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let channel = self.get_mut();
        ready!(channel.poll_drain(cx))?;
        if !channel.outgoing.ended {
            channel.seal_message(&[])?;
            channel.outgoing.ended = true;
            ready!(channel.poll_drain(cx))?;
        }
        Pin::new(&mut channel.stream).poll_shutdown(cx)
    }
}
