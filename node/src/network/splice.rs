//! Channels of a relay's data port: asking for one, and coming to it.

use std::{io, net::SocketAddr};

use meshwork_protocol::{
    id::DeviceId,
    limits,
    splice::{GRANT, Grant, READY, Refusal, Token, VERSION},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// The connection broke.
    #[error("the relay cannot be reached: {0}")]
    Connection(#[from] io::Error),
    /// The relay said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The relay said what no relay says.
    #[error("the relay answered {0}, which means nothing here")]
    Unknown(u8),
    /// The relay, or the other end, did not come in time.
    #[error("the channel did not come about in time")]
    Late,
}

/// Asks a relay, on a stream to it, for a channel to a device.
pub async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, to: DeviceId) -> Result<Grant, SpliceError> {
    let asked = async {
        stream.write_all(&to.0).await?;
        stream.flush().await?;
        ready(&mut stream).await?;
        let mut grant = [0; GRANT];
        stream.read_exact(&mut grant).await?;
        Ok(Grant::from_bytes(&grant))
    };
    timeout(limits::SPLICE_PREAMBLE, asked).await.map_err(|_| SpliceError::Late)?
}

/// Comes to the data port at `relay` as one end of a channel, and waits for the other.
pub async fn meet(relay: SocketAddr, token: Token) -> Result<TcpStream, SpliceError> {
    let met = async {
        let mut stream = TcpStream::connect(relay).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&[&[VERSION], &token.0[..]].concat()).await?;
        ready(&mut stream).await?;
        Ok(stream)
    };
    timeout(limits::SPLICE_VALIDITY, met).await.map_err(|_| SpliceError::Late)?
}

async fn ready(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), SpliceError> {
    match stream.read_u8().await? {
        READY => Ok(()),
        code => Err(Refusal::from_code(code).map_or(SpliceError::Unknown(code), SpliceError::Refused)),
    }
}

#[cfg(test)]
mod tests {
    use meshwork_protocol::splice;
    use tokio::{io::duplex, net::TcpListener};

    use super::*;

    const DEVICE: DeviceId = DeviceId([3; 32]);

    async fn answered(answer: &[u8]) -> Result<Grant, SpliceError> {
        let (near, mut relay) = duplex(256);
        let answering = async {
            let mut asked = [0; 32];
            relay.read_exact(&mut asked).await.expect("the request");
            assert_eq!(asked, DEVICE.0);
            relay.write_all(answer).await.expect("the answer");
            drop(relay);
        };
        tokio::join!(ask(near, DEVICE), answering).0
    }

    #[tokio::test]
    async fn a_relay_grants_or_refuses_or_talks_nonsense() {
        let grant = Grant { port: 4003, tokens: [Token([1; 16]), Token([2; 16])] };
        let whole = splice::answer(&Ok(grant));
        assert_eq!(answered(&whole).await.expect("granted"), grant);
        let refused = answered(&splice::answer(&Err(Refusal::Budget))).await;
        assert!(matches!(refused, Err(SpliceError::Refused(Refusal::Budget))), "{refused:?}");
        assert!(matches!(answered(&[77]).await, Err(SpliceError::Unknown(77))));
        assert!(matches!(answered(&whole[..20]).await, Err(SpliceError::Connection(_))));
        assert!(matches!(answered(&[]).await, Err(SpliceError::Connection(_))));
    }

    #[tokio::test]
    async fn an_end_is_joined_or_told_why_not() {
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = port.local_addr().expect("its address");
        let relay = async {
            for code in [READY, Refusal::Expired.code()] {
                let (mut stream, _) = port.accept().await.expect("an end");
                let mut preamble = [0; 17];
                stream.read_exact(&mut preamble).await.expect("its preamble");
                assert_eq!(preamble, [&[VERSION][..], &[9; 16]].concat()[..]);
                stream.write_all(&[code]).await.expect("an answer");
            }
        };
        let ends = async { (meet(address, Token([9; 16])).await, meet(address, Token([9; 16])).await) };
        let ((first, second), ()) = tokio::join!(ends, relay);
        assert!(first.is_ok());
        assert!(matches!(second, Err(SpliceError::Refused(Refusal::Expired))), "{second:?}");
    }
}
