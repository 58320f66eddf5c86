//! The handshake against everything but the right partner, and the channel against a hostile path.

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::io::{AsyncRead, DuplexStream, duplex};

use super::*;

const OFFERER: DeviceId = DeviceId([1; 32]);
const DIALLER: DeviceId = DeviceId([2; 32]);
const LOCALHOST: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)];

async fn dial(offer: &BulkOffer, offerer: DeviceId, dialler: DeviceId) -> Result<BulkChannel<TcpStream>, BulkError> {
    take_up(connect(offer).await?, offer, offerer, dialler).await
}

async fn listener() -> BulkListener {
    BulkListener::bind(SocketAddr::new(LOCALHOST[0], 0)).await.unwrap()
}

fn offer(listener: &BulkListener, seed: u64) -> (BulkOffer, PendingChannel) {
    listener.offer(OFFERER, DIALLER, &LOCALHOST, &mut ChaCha20Rng::seed_from_u64(seed)).unwrap()
}

/// Two ends of a channel over an in-memory path.
fn pair(cipher: Cipher, messages_per_key: (u64, u64)) -> (BulkChannel<DuplexStream>, BulkChannel<DuplexStream>) {
    let (near, far) = duplex(100_000);
    let (near_noise, far_noise) = transports(cipher);
    let near = BulkChannel::with_rekey(near, near_noise, messages_per_key.0);
    (near, BulkChannel::with_rekey(far, far_noise, messages_per_key.1))
}

fn transports(cipher: Cipher) -> (snow::TransportState, snow::TransportState) {
    let secret = BulkSecret([5; 32]);
    let mut a = handshake(&[0; PREAMBLE], cipher, &secret, (&OFFERER, &DIALLER), true).unwrap();
    let mut b = handshake(&[0; PREAMBLE], cipher, &secret, (&OFFERER, &DIALLER), false).unwrap();
    let mut message = [0; HANDSHAKE_MESSAGE];
    assert_eq!(a.write_message(&[], &mut message).unwrap(), HANDSHAKE_MESSAGE);
    b.read_message(&message, &mut []).unwrap();
    assert_eq!(b.write_message(&[], &mut message).unwrap(), HANDSHAKE_MESSAGE);
    a.read_message(&message, &mut []).unwrap();
    (a.into_transport_mode().unwrap(), b.into_transport_mode().unwrap())
}

#[tokio::test]
async fn an_offer_becomes_a_channel() {
    let listener = listener().await;
    let (offer, pending) = offer(&listener, 1);
    let (near, far) = tokio::join!(dial(&offer, OFFERER, DIALLER), pending.connected());
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
    let sent = bytes.clone();
    let answer = tokio::spawn(async move {
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        far.write_all(b"thanks").await.unwrap();
        far.shutdown().await.unwrap();
        received
    });
    near.write_all(&sent).await.unwrap();
    near.shutdown().await.unwrap();
    let mut thanks = Vec::new();
    near.read_to_end(&mut thanks).await.unwrap();
    assert_eq!(thanks, b"thanks");
    assert!(answer.await.unwrap() == bytes);
}

#[tokio::test]
async fn an_offer_is_good_once() {
    let listener = listener().await;
    let (offer, pending) = offer(&listener, 1);
    let (first, taken) = tokio::join!(dial(&offer, OFFERER, DIALLER), pending.connected());
    assert!(first.is_ok() && taken.is_ok());
    assert!(dial(&offer, OFFERER, DIALLER).await.is_err());
}

#[tokio::test]
async fn only_the_two_devices_with_the_secret_connect() {
    let listener = listener().await;
    let spoil: [&dyn Fn(&mut BulkOffer); 3] =
        [&|offer| offer.secret.0[0] ^= 1, &|offer| offer.channel[0] ^= 1, &|offer| offer.addresses.clear()];
    for (seed, spoil) in (10..).zip(spoil) {
        let (mut offer, pending) = offer(&listener, seed);
        spoil(&mut offer);
        assert!(dial(&offer, OFFERER, DIALLER).await.is_err());
        drop(pending);
    }
    let (offered, pending) = offer(&listener, 20);
    assert!(dial(&offered, OFFERER, DeviceId([3; 32])).await.is_err());
    assert!(matches!(pending.connected().await, Err(BulkError::Handshake)), "the offer is used up");
    let (offered, _pending) = offer(&listener, 21);
    assert!(dial(&offered, DIALLER, OFFERER).await.is_err(), "the roles are bound too");
}

#[tokio::test]
async fn without_aes_the_other_cipher_is_used() {
    let listener = listener().await;
    let (offered, pending) = offer(&listener, 1);
    let offered = BulkOffer { aes: false, ..offered };
    let (near, far) = tokio::join!(dial(&offered, OFFERER, DIALLER), pending.connected());
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.write_all(b"hello").await.unwrap();
    near.flush().await.unwrap();
    let mut hello = [0; 5];
    far.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
}

#[tokio::test]
async fn a_dropped_or_expired_offer_is_gone() {
    let listener = listener().await;
    let (offered, pending) = offer(&listener, 1);
    drop(pending);
    assert!(dial(&offered, OFFERER, DIALLER).await.is_err());
    let (offered, _pending) = offer(&listener, 2);
    listener.offers.0.lock().unwrap().get_mut(&offered.channel).unwrap().expires = Instant::now();
    assert!(dial(&offered, OFFERER, DIALLER).await.is_err());
}

#[tokio::test]
async fn offers_are_bounded() {
    let listener = listener().await;
    let mut held: Vec<_> = (0..limits::BULK_OFFERS as u64).map(|seed| offer(&listener, seed)).collect();
    let more = listener.offer(OFFERER, DIALLER, &LOCALHOST, &mut ChaCha20Rng::seed_from_u64(1 << 40));
    assert!(matches!(more, Err(BulkError::Busy)));
    held.pop();
    offer(&listener, 1 << 41);
}

/// The first reachable address is used, whatever stands before it.
#[tokio::test]
async fn addresses_are_tried_in_order() {
    let listener = listener().await;
    let (mut offered, pending) = offer(&listener, 1);
    let nonsense = BulkAddress { ip: ByteBuf::from(vec![1, 2, 3]), port: 1 };
    let closed = BulkAddress { port: 1, ..offered.addresses[0].clone() };
    offered.addresses.splice(0..0, [nonsense, closed]);
    let (near, far) = tokio::join!(dial(&offered, OFFERER, DIALLER), pending.connected());
    assert!(near.is_ok() && far.is_ok());
}

#[tokio::test]
async fn a_cut_is_not_an_end() {
    let (mut near, mut far) = pair(Cipher::AesGcm, (100, 100));
    near.write_all(b"unfinished").await.unwrap();
    near.flush().await.unwrap();
    drop(near);
    let mut received = Vec::new();
    let error = far.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((error.kind(), received.as_slice()), (io::ErrorKind::UnexpectedEof, &b"unfinished"[..]));

    let (mut near, mut far) = pair(Cipher::ChaChaPoly, (100, 100));
    near.shutdown().await.unwrap();
    drop(near);
    assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0, "an end stays one");
}

#[tokio::test]
async fn every_changed_byte_is_noticed() {
    let (near, path) = duplex(1000);
    let (near_noise, _) = transports(Cipher::AesGcm);
    let mut near = BulkChannel::new(near, near_noise);
    near.write_all(b"attack at dawn").await.unwrap();
    near.flush().await.unwrap();
    drop(near);
    let mut sealed = Vec::new();
    let mut path: Box<dyn AsyncRead + Unpin> = Box::new(path);
    path.read_to_end(&mut sealed).await.unwrap();
    assert_eq!(sealed.len(), 2 + 14 + 16);
    // Each handshake has keys of its own: nothing sealed for one channel opens in another, changed or not.
    let (_, far_noise) = transports(Cipher::AesGcm);
    let (far, mut inject) = duplex(1000);
    inject.write_all(&sealed).await.unwrap();
    let error = BulkChannel::new(far, far_noise).read(&mut [0; 100]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    for at in 0..32 {
        let (mut near_noise, far_noise) = transports(Cipher::AesGcm);
        let mut message = vec![0; 32];
        let len = near_noise.write_message(b"attack at dawn", &mut message[2..]).unwrap();
        message[1] = len as u8;
        message[at] ^= 1;
        let (far, mut inject) = duplex(1000);
        inject.write_all(&message).await.unwrap();
        drop(inject);
        assert!(BulkChannel::new(far, far_noise).read(&mut [0; 100]).await.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn keys_change_in_step() {
    let bytes = vec![7; 1_000_000];
    for (keys, same) in [((3, 3), true), ((3, 4), false)] {
        let (mut near, mut far) = pair(Cipher::AesGcm, keys);
        let sent = bytes.clone();
        let send = tokio::spawn(async move {
            let _ = near.write_all(&sent).await;
            let _ = near.shutdown().await;
        });
        let mut received = Vec::new();
        assert_eq!(far.read_to_end(&mut received).await.is_ok(), same);
        assert_eq!(received == bytes, same);
        drop(far);
        send.await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However writer and reader cut the bytes, they arrive in order, both ways at once.
    #[test]
    fn bytes_arrive_in_order(
        writes in prop::collection::vec(prop_oneof![1..100_usize, 60_000..70_000_usize, 500_000..900_000_usize], 0..8),
        read in prop_oneof![300..2_000_usize, 65_000..66_000_usize, Just(1_000_000_usize)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (near, far) = pair(Cipher::AesGcm, (5, 5));
        let end = async |channel: BulkChannel<DuplexStream>, writes: &[usize], seed: u8| {
            let (mut reader, mut writer) = tokio::io::split(channel);
            let send = async {
                for (at, len) in writes.iter().enumerate() {
                    writer.write_all(&vec![seed + at as u8; *len]).await.unwrap();
                    writer.flush().await.unwrap();
                }
                writer.shutdown().await.unwrap();
            };
            let receive = async {
                let (mut received, mut buffer) = (Vec::new(), vec![0; read]);
                loop {
                    match reader.read(&mut buffer).await.unwrap() {
                        0 => return received,
                        len => received.extend_from_slice(&buffer[..len]),
                    }
                }
            };
            tokio::join!(send, receive).1
        };
        let expected = |seed: u8| -> Vec<u8> {
            writes.iter().enumerate().flat_map(|(at, len)| std::iter::repeat_n(seed + at as u8, *len)).collect()
        };
        let received = runtime.block_on(async { tokio::join!(end(near, &writes, 0), end(far, &writes, 100)) });
        prop_assert!(received.0 == expected(100));
        prop_assert!(received.1 == expected(0));
    }
}
