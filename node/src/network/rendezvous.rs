//! Questions to a bootstrap, over a stream to it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use meshwork_host::swarm::{Address, DialError, NetworkHandle, OpenError, Path};
use meshwork_protocol::{
    id::DeviceId,
    limits,
    time::Timestamp,
    wire::{
        self,
        rendezvous::{Answer, Ask, Refusal},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    time::timeout,
};

use super::frame::{read_frame, write_frame};

/// Why a bootstrap did not help.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// It cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It does not speak with this device.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Connection(#[from] io::Error),
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It said what no bootstrap says.
    #[error("it answered what means nothing here")]
    Nonsense,
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Late,
}

/// How a bootstrap sees this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub address: SocketAddr,
    /// Whether it could be reached there over TCP.
    pub tcp: bool,
    /// Whether it could be reached there over QUIC.
    pub quic: bool,
    /// What time it was for the bootstrap.
    pub time: Timestamp,
}

/// Asks a bootstrap; the answers are in the order of the questions, of which there may be [`limits::RENDEZVOUS_ASKS`].
pub async fn ask(
    network: &NetworkHandle,
    bootstrap: DeviceId,
    addresses: Vec<Address>,
    asks: &[Ask],
) -> Result<Vec<Answer>, RendezvousError> {
    let dialled = network.dial_server(bootstrap, with_quic(addresses));
    timeout(limits::RENDEZVOUS_WAIT, dialled).await.map_err(|_| RendezvousError::Late)??;
    converse(network.open_stream(bootstrap, wire::RENDEZVOUS).await?, asks).await
}

/// A server listens for both transports at one port; over QUIC it sees where this device's UDP port leads, which is what
/// others have to know who are to come through the same router.
fn with_quic(addresses: Vec<Address>) -> Vec<Address> {
    let quic = |address: &Address| {
        let socket = address.socket().filter(|_| address.path() == Path::Tcp)?;
        Some(Address::quic(socket).with_device(&address.device()?))
    };
    let others: Vec<Address> = addresses.iter().filter_map(quic).filter(|quic| !addresses.contains(quic)).collect();
    [addresses, others].concat()
}

/// Has a bootstrap try to reach this device at the address that it sees it at, and this port.
pub async fn probe(
    network: &NetworkHandle,
    bootstrap: DeviceId,
    addresses: Vec<Address>,
    port: u16,
) -> Result<Seen, RendezvousError> {
    seen(ask(network, bootstrap, addresses, &[Ask::Probe { port }]).await?.first())
}

fn seen(answer: Option<&Answer>) -> Result<Seen, RendezvousError> {
    match answer {
        Some(Answer::Seen { ip, port, tcp, quic, time }) => {
            let ip: Option<IpAddr> = match ip.as_slice() {
                bytes if bytes.len() == 4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
                bytes => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            };
            let address = SocketAddr::new(ip.ok_or(RendezvousError::Nonsense)?, *port);
            Ok(Seen { address, tcp: *tcp, quic: *quic, time: *time })
        }
        Some(Answer::Refused { code }) => Err(Refusal::from_code(*code).map_or(RendezvousError::Nonsense, Into::into)),
        _ => Err(RendezvousError::Nonsense),
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite, asks: &[Ask]) -> Result<Vec<Answer>, RendezvousError> {
    let (mut reader, mut writer) = split(stream);
    // A bootstrap answers as it reads: all questions are on their way at once.
    let asking = async {
        for ask in asks {
            write_frame(&mut writer, &ask.encode()).await?;
        }
        Ok::<(), RendezvousError>(())
    };
    let reading = async {
        let mut answers = Vec::with_capacity(asks.len());
        for _ in asks {
            let next = timeout(ANSWER, read_frame(&mut reader, limits::RENDEZVOUS_ANSWER)).await;
            let bytes = next.map_err(|_| RendezvousError::Late)??.ok_or(RendezvousError::Late)?;
            answers.push(Answer::decode(&bytes).map_err(|_| RendezvousError::Nonsense)?);
        }
        Ok(answers)
    };
    let (answers, ()) = tokio::try_join!(reading, asking)?;
    Ok(answers)
}

/// A bootstrap that tries this device from outside waits itself for as long as that may take, over each transport.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use meshwork_protocol::limits::RENDEZVOUS_ASK;
    use serde_bytes::ByteBuf;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn answered(answers: Vec<Vec<u8>>) -> Result<Vec<Answer>, RendezvousError> {
        let (near, mut bootstrap) = duplex(256);
        let asks = [Ask::Seek { number: 1 }, Ask::Seek { number: 2 }];
        let answering = async {
            for answer in answers {
                let ask = read_frame(&mut bootstrap, RENDEZVOUS_ASK).await.expect("a frame").expect("a question");
                assert!(Ask::decode(&ask).is_ok());
                // Whoever has heard enough hangs up.
                let _ = write_frame(&mut bootstrap, &answer).await;
            }
            let _ = bootstrap.shutdown().await;
        };
        tokio::join!(converse(near, &asks), answering).0
    }

    #[tokio::test]
    async fn answers_come_in_order_or_not_at_all() {
        let (kept, refused) = (Answer::Kept { seconds: 1 }, Answer::Refused { code: 3 });
        let both = answered(vec![kept.encode(), refused.encode()]).await.expect("two answers");
        assert_eq!(both, [kept.clone(), refused]);
        assert!(matches!(answered(vec![kept.encode()]).await, Err(RendezvousError::Late)));
        assert!(matches!(answered(vec![kept.encode(), vec![9]]).await, Err(RendezvousError::Nonsense)));
        let long = vec![0; limits::RENDEZVOUS_ANSWER + 1];
        assert!(matches!(answered(vec![kept.encode(), long]).await, Err(RendezvousError::Connection(_))));
    }

    #[test]
    fn a_server_is_met_over_quic_too() {
        let id = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29".parse().expect("an id");
        let [tcp, quic] = [Address::tcp, Address::quic].map(|new| new(([192, 0, 2, 1], 4001).into()).with_device(&id));
        assert_eq!(with_quic(vec![tcp.clone()]), [tcp.clone(), quic.clone()]);
        assert_eq!(with_quic(vec![tcp.clone(), quic.clone()]), [tcp, quic]);
        assert_eq!(with_quic(Vec::new()), []);
    }

    #[test]
    fn what_a_bootstrap_sees_is_read_or_refused() {
        let answer = |ip: &[u8]| Answer::Seen {
            ip: ByteBuf::from(ip.to_vec()),
            port: 7,
            tcp: true,
            quic: false,
            time: Timestamp(5),
        };
        let found = seen(Some(&answer(&[192, 0, 2, 1]))).expect("an address");
        assert_eq!(found.address.to_string(), "192.0.2.1:7");
        assert!(seen(Some(&answer(&[1; 16]))).is_ok());
        assert!(matches!(seen(Some(&answer(&[1; 5]))), Err(RendezvousError::Nonsense)));
        let busy = Answer::Refused { code: Refusal::Busy.code() };
        assert!(matches!(seen(Some(&busy)), Err(RendezvousError::Refused(Refusal::Busy))));
        assert!(matches!(seen(None), Err(RendezvousError::Nonsense)));
    }
}
