//! Direct connections for bulk bytes: plain TCP, sealed end to end, without a muxer.
//!
//! One device offers, over a stream that is already encrypted and authenticated, addresses, a channel id and a secret;
//! the other connects, says version, cipher and channel id in clear, and both run `NNpsk0` with a key derived from the
//! secret, both devices and the channel. An offer is good for one connection and for [`limits::BULK_OFFER`].

mod channel;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use meshwork_protocol::{
    id::DeviceId,
    limits,
    wire::chunks::{BulkAddress, BulkOffer, BulkSecret},
};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;
use snow::{
    HandshakeState,
    resolvers::{DefaultResolver, FallbackResolver, RingResolver},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

pub use self::channel::BulkChannel;

/// First byte of every connection.
const VERSION: u8 = 1;
/// Bytes in clear: version, cipher, channel id.
const PREAMBLE: usize = 18;
/// Bytes of a handshake message: an ephemeral key and a tag.
const HANDSHAKE_MESSAGE: usize = 48;
const DERIVE: &str = "meshwork bulk v1";

/// Why there is no bulk connection.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// None of the addresses of the offer could be reached; this is what the last one said.
    #[error("no address of the offer can be reached: {0}")]
    Unreachable(io::Error),
    /// The connection broke during the handshake.
    #[error("the connection broke: {0}")]
    Connection(#[from] io::Error),
    /// The other side does not know the secret, or speaks another version.
    #[error("the other side did not prove itself")]
    Handshake,
    /// The time of the offer ran out.
    #[error("the offer was not taken up in time")]
    Expired,
    /// Too many offers wait already.
    #[error("too many offers wait")]
    Busy,
}

/// Takes bulk connections on one port.
pub struct BulkListener {
    port: u16,
    offers: Arc<Offers>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for BulkListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Default)]
struct Offers(Mutex<BTreeMap<[u8; 16], Waiting>>);

struct Waiting {
    secret: BulkSecret,
    offerer: DeviceId,
    dialler: DeviceId,
    expires: Instant,
    taken: oneshot::Sender<BulkChannel<TcpStream>>,
}

impl BulkListener {
    /// Listens on `address`; must be called inside a tokio runtime.
    pub async fn bind(address: SocketAddr) -> io::Result<BulkListener> {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        let offers = Arc::<Offers>::default();
        let accepting = tokio::spawn(accept_all(listener, offers.clone()));
        Ok(BulkListener { port, offers, accepting })
    }

    /// The port listened on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Takes one connection that came about elsewhere, as if it had come in here.
    pub async fn take(&self, stream: TcpStream) -> Result<(), BulkError> {
        timeout(limits::BULK_HANDSHAKE, answer(stream, &self.offers)).await.map_err(|_| BulkError::Expired)?
    }

    /// Makes an offer from `offerer`, this device, to `dialler`: what to send, and where the connection will come out.
    ///
    /// `ips` are this device's addresses as the other may reach it, best first; those above the limit are left out.
    pub fn offer(
        &self,
        offerer: DeviceId,
        dialler: DeviceId,
        ips: &[IpAddr],
        rng: &mut impl CryptoRng,
    ) -> Result<(BulkOffer, PendingChannel), BulkError> {
        let (mut channel, mut secret) = ([0; 16], BulkSecret([0; 32]));
        rng.fill_bytes(&mut channel);
        rng.fill_bytes(&mut secret.0);
        let expires = Instant::now() + limits::BULK_OFFER;
        let (taken, connection) = oneshot::channel();
        let waiting = Waiting { secret: secret.clone(), offerer, dialler, expires, taken };
        self.offers.add(channel, waiting)?;
        let addresses = ips.iter().take(limits::BULK_ADDRESSES).map(|ip| address(*ip, self.port)).collect();
        let offer = BulkOffer { addresses, channel, secret, aes: has_aes() };
        Ok((offer, PendingChannel { connection, expires, channel, offers: self.offers.clone() }))
    }
}

/// An offer that waits to be taken up; dropping it withdraws the offer.
pub struct PendingChannel {
    connection: oneshot::Receiver<BulkChannel<TcpStream>>,
    expires: Instant,
    channel: [u8; 16],
    offers: Arc<Offers>,
}

impl PendingChannel {
    /// Waits for the connection.
    pub async fn connected(mut self) -> Result<BulkChannel<TcpStream>, BulkError> {
        // The handshake of a connection that came in time may end a little later.
        let deadline = self.expires + limits::BULK_HANDSHAKE;
        let connected = timeout_at(deadline, &mut self.connection).await;
        connected.map_err(|_| BulkError::Expired)?.map_err(|_| BulkError::Handshake)
    }
}

impl Drop for PendingChannel {
    fn drop(&mut self) {
        self.offers.take(&self.channel);
    }
}

impl Offers {
    fn add(&self, channel: [u8; 16], waiting: Waiting) -> Result<(), BulkError> {
        let mut offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        offers.retain(|_, waiting| waiting.expires > now);
        if offers.len() >= limits::BULK_OFFERS {
            return Err(BulkError::Busy);
        }
        offers.insert(channel, waiting);
        Ok(())
    }

    fn take(&self, channel: &[u8; 16]) -> Option<Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(channel)
    }
}

async fn accept_all(listener: TcpListener, offers: Arc<Offers>) {
    let strangers = Arc::new(Semaphore::new(limits::BULK_STRANGERS));
    loop {
        let Ok(place) = strangers.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a connection that was gone already: the next one may do better.
                tracing::debug!(%error, "a bulk connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let offers = offers.clone();
        tokio::spawn(async move {
            let _place = place;
            match timeout(limits::BULK_HANDSHAKE, answer(stream, &offers)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a bulk connection did not prove itself"),
                Err(_) => tracing::debug!("a bulk connection was silent"),
            }
        });
    }
}

/// The listener's part of the handshake; an offer is used up by the first connection that names it.
async fn answer(mut stream: TcpStream, offers: &Offers) -> Result<(), BulkError> {
    stream.set_nodelay(true)?;
    let mut preamble = [0; PREAMBLE];
    stream.read_exact(&mut preamble).await?;
    let [VERSION, cipher, channel @ ..] = preamble else {
        return Err(BulkError::Handshake);
    };
    let cipher = Cipher::from_byte(cipher).ok_or(BulkError::Handshake)?;
    let waiting = offers.take(&channel).filter(|waiting| waiting.expires > Instant::now());
    let waiting = waiting.ok_or(BulkError::Handshake)?;
    let devices = (&waiting.offerer, &waiting.dialler);
    let mut noise = handshake(&preamble, cipher, &waiting.secret, devices, false)?;
    let mut message = [0; HANDSHAKE_MESSAGE];
    stream.read_exact(&mut message).await?;
    noise.read_message(&message, &mut []).map_err(|_| BulkError::Handshake)?;
    let written = noise.write_message(&[], &mut message).map_err(|_| BulkError::Handshake)?;
    stream.write_all(message.get(..written).unwrap_or_default()).await?;
    let noise = noise.into_transport_mode().map_err(|_| BulkError::Handshake)?;
    // Whoever made the offer may not wait any more.
    let _ = waiting.taken.send(BulkChannel::new(stream, noise));
    Ok(())
}

/// Takes up an offer that `offerer` made to `dialler`, this device, on a connection with the offerer.
pub async fn take_up(
    mut stream: TcpStream,
    offer: &BulkOffer,
    offerer: DeviceId,
    dialler: DeviceId,
) -> Result<BulkChannel<TcpStream>, BulkError> {
    stream.set_nodelay(true)?;
    timeout(limits::BULK_HANDSHAKE, async {
        let cipher = if offer.aes && has_aes() { Cipher::AesGcm } else { Cipher::ChaChaPoly };
        let mut preamble = [0; PREAMBLE];
        preamble[0] = VERSION;
        preamble[1] = cipher as u8;
        preamble[2..].copy_from_slice(&offer.channel);
        let mut noise = handshake(&preamble, cipher, &offer.secret, (&offerer, &dialler), true)?;
        let mut message = [0; HANDSHAKE_MESSAGE];
        let written = noise.write_message(&[], &mut message).map_err(|_| BulkError::Handshake)?;
        let hello = [&preamble[..], message.get(..written).unwrap_or_default()].concat();
        stream.write_all(&hello).await?;
        stream.read_exact(&mut message).await?;
        noise.read_message(&message, &mut []).map_err(|_| BulkError::Handshake)?;
        let noise = noise.into_transport_mode().map_err(|_| BulkError::Handshake)?;
        Ok(BulkChannel::new(stream, noise))
    })
    .await
    .map_err(|_| BulkError::Handshake)?
}

/// Tries the addresses of an offer in their order.
pub async fn connect(offer: &BulkOffer) -> Result<TcpStream, BulkError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in offer.addresses.iter().filter_map(socket_address).take(limits::BULK_ADDRESSES) {
        match timeout(limits::BULK_HANDSHAKE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(BulkError::Unreachable(last))
}

#[derive(Clone, Copy)]
enum Cipher {
    AesGcm = 1,
    ChaChaPoly = 2,
}

impl Cipher {
    fn from_byte(byte: u8) -> Option<Cipher> {
        match byte {
            1 => Some(Cipher::AesGcm),
            2 => Some(Cipher::ChaChaPoly),
            _ => None,
        }
    }

    fn pattern(self) -> &'static str {
        match self {
            Cipher::AesGcm => "Noise_NNpsk0_25519_AESGCM_BLAKE2s",
            Cipher::ChaChaPoly => "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s",
        }
    }
}

/// A handshake bound to the bytes in clear, the secret, and both devices.
fn handshake(
    preamble: &[u8; PREAMBLE],
    cipher: Cipher,
    secret: &BulkSecret,
    (offerer, dialler): (&DeviceId, &DeviceId),
    initiator: bool,
) -> Result<HandshakeState, BulkError> {
    let mut material = Zeroizing::new([0; 112]);
    material[..32].copy_from_slice(&secret.0);
    material[32..64].copy_from_slice(&offerer.0);
    material[64..96].copy_from_slice(&dialler.0);
    material[96..].copy_from_slice(&preamble[2..]);
    let psk = Zeroizing::new(blake3::derive_key(DERIVE, &material[..]));
    let prologue = [&preamble[..], &offerer.0, &dialler.0].concat();
    let build = || {
        // ring's AES-GCM is several times faster than the default one.
        let resolver = FallbackResolver::new(Box::new(RingResolver), Box::new(DefaultResolver));
        let builder = snow::Builder::with_resolver(cipher.pattern().parse()?, Box::new(resolver));
        let builder = builder.psk(0, &psk)?.prologue(&prologue)?;
        if initiator { builder.build_initiator() } else { builder.build_responder() }
    };
    build().map_err(|_: snow::Error| BulkError::Handshake)
}

fn address(ip: IpAddr, port: u16) -> BulkAddress {
    let ip = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    BulkAddress { ip: ByteBuf::from(ip), port }
}

/// The socket address in an offer, where it is one.
pub fn socket_address(address: &BulkAddress) -> Option<SocketAddr> {
    let ip = match address.ip.as_slice() {
        bytes if bytes.len() == 4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        bytes => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(ip, address.port))
}

/// Whether this machine computes AES in hardware.
pub fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
