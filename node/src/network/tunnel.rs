//! What the two ends of a tunnel say, and the bytes after that.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use meshwork_protocol::{
    codec::DecodeError,
    limits,
    wire::tunnel::{Refusal, TunnelMessage},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use super::frame::{read_frame, write_frame};

/// Bytes that are moved at a time.
const BUFFER: usize = 128 << 10;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Stream(#[from] io::Error),
    /// The other end said what cannot be read.
    #[error("the device said what means nothing here: {0}")]
    Message(#[from] DecodeError),
    /// The other end said something else than was due.
    #[error("the device answered something that was not asked")]
    Unexpected,
    /// The other end said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An answer did not come in time.
    #[error("the device did not answer in time")]
    Late,
}

/// Sends a message.
pub async fn say(stream: &mut (impl AsyncWrite + Unpin), message: &TunnelMessage) -> Result<(), TunnelError> {
    let written = timeout(limits::TUNNEL_ANSWER, write_frame(stream, &message.encode())).await;
    Ok(written.map_err(|_| TunnelError::Late)??)
}

/// Waits for the other end's next message; a refusal is an error.
pub async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Result<TunnelMessage, TunnelError> {
    // Who answers may have to wait for a service that takes its time.
    let heard = timeout(2 * limits::TUNNEL_ANSWER, read_frame(stream, limits::TUNNEL_FRAME)).await;
    let bytes = heard.map_err(|_| TunnelError::Late)??.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    match TunnelMessage::decode(&bytes)? {
        TunnelMessage::Refused { code } => Err(Refusal::from_code(code).map_or(TunnelError::Unexpected, Into::into)),
        message => Ok(message),
    }
}

/// Bytes that went through a tunnel.
#[derive(Debug, Default)]
pub struct Moved {
    /// From the first end to the second.
    pub there: AtomicU64,
    /// From the second end to the first.
    pub back: AtomicU64,
}

/// Carries bytes between two ends until both have ended, each direction for itself.
pub async fn carry<A, B>(one: A, other: B, moved: &Moved) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let ((from_one, to_one), (from_other, to_other)) = (split(one), split(other));
    let there = pump(from_one, to_other, &moved.there);
    let back = pump(from_other, to_one, &moved.back);
    tokio::try_join!(there, back).map(drop)
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
        moved.fetch_add(read as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn messages_refusals_and_nonsense() {
        let (mut near, mut far) = duplex(4_096);
        let open = TunnelMessage::Open { service: "ssh".parse().expect("a label"), splice: None };
        say(&mut near, &open).await.expect("sent");
        assert!(hear(&mut far).await.is_ok_and(|heard| heard == open));
        for refusal in [Refusal::NoService, Refusal::NoAnswer, Refusal::Busy] {
            say(&mut far, &TunnelMessage::Refused { code: refusal.code() }).await.expect("sent");
            assert!(matches!(hear(&mut near).await, Err(TunnelError::Refused(heard)) if heard == refusal));
        }
        say(&mut far, &TunnelMessage::Refused { code: 99 }).await.expect("sent");
        assert!(matches!(hear(&mut near).await, Err(TunnelError::Unexpected)));
        write_frame(&mut far, b"nonsense").await.expect("sent");
        assert!(matches!(hear(&mut near).await, Err(TunnelError::Message(_))));
        far.write_all(&u32::MAX.to_be_bytes()).await.expect("sent");
        assert!(matches!(hear(&mut near).await, Err(TunnelError::Stream(_))));
        drop(far);
        assert!(matches!(hear(&mut near).await, Err(TunnelError::Stream(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for() {
        let (mut near, _far) = duplex(64);
        assert!(matches!(hear(&mut near).await, Err(TunnelError::Late)));
        let large = TunnelMessage::Open { service: "x".repeat(64).parse().expect("a label"), splice: None };
        assert!(matches!(say(&mut near, &large).await, Err(TunnelError::Late)));
    }

    #[tokio::test]
    async fn each_direction_ends_for_itself() {
        let ((mut client, near), (far, mut service)) = (duplex(1_000), duplex(1_000));
        let moved = Moved::default();
        let talk = async {
            client.write_all(&[7; 300_000]).await.expect("sent");
            client.shutdown().await.expect("ended");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("an answer");
            answer
        };
        let serve = async {
            let mut request = Vec::new();
            service.read_to_end(&mut request).await.expect("a request");
            service.write_all(b"after the end of the request").await.expect("sent");
            service.shutdown().await.expect("ended");
            request
        };
        let (carried, answer, request) = tokio::join!(carry(near, far, &moved), talk, serve);
        carried.expect("carried");
        assert_eq!((request, answer), (vec![7; 300_000], b"after the end of the request".to_vec()));
        assert_eq!((moved.there.into_inner(), moved.back.into_inner()), (300_000, 28));
    }
}
