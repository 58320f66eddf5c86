//! The two key exchanges of pairing: SPAKE2 from the words, and Noise from its key.

use rand_core::CryptoRng;
use serde_bytes::ByteBuf;
use snow::{HandshakeState, TransportState};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::Zeroizing;

use super::{PairCode, PairError, write};
use crate::{
    codec,
    id::DeviceId,
    limits,
    seal::noise_builder,
    wire::pair::{PairMessage, PairSecret},
};

const PATTERN: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
const DOMAIN: &[u8] = b"mesh.v1.pair";
const IDENTITY: &str = "mesh.v1.pair|";
const PSK_AT: u8 = 3;
const TAG: usize = 16;

pub(super) type Psk = Zeroizing<[u8; 32]>;

/// The generator interface of the generation before ours, which `spake2` uses.
struct OlderRng<'r, R>(&'r mut R);

impl<R: CryptoRng> rand_core_06::RngCore for OlderRng<'_, R> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

impl<R: CryptoRng> rand_core_06::CryptoRng for OlderRng<'_, R> {}

/// One side of SPAKE2, symmetric, over Ed25519. The number is part of the identity, so that it too must agree.
pub(super) struct Words {
    state: Spake2<Ed25519Group>,
    /// What the other side must be sent, 33 bytes.
    pub(super) message: Vec<u8>,
}

impl Words {
    pub(super) fn start(code: &PairCode, rng: &mut impl CryptoRng) -> Self {
        let password = Password::new(code.password().as_bytes());
        let identity = Identity::new(format!("{IDENTITY}{}", code.number()).as_bytes());
        let (state, message) = Spake2::start_symmetric_with_rng(&password, &identity, OlderRng(rng));
        Self { state, message }
    }

    /// The shared key, if both sides have the same code; an unrelated one otherwise.
    pub(super) fn finish(self, theirs: &[u8]) -> Result<Psk, PairError> {
        if theirs == self.message {
            return Err(PairError::Interrupted);
        }
        let key = Zeroizing::new(self.state.finish(theirs).map_err(|_| PairError::Interrupted)?);
        let key = key.as_slice().try_into().map_err(|_| PairError::Interrupted)?;
        Ok(Zeroizing::new(key))
    }
}

/// What both sides must have seen alike.
pub(super) struct Context<'c> {
    /// SPAKE2 messages, the newcomer's first; empty by link.
    pub(super) words: [&'c [u8]; 2],
    /// The newcomer, as the connection proved it.
    pub(super) newcomer: DeviceId,
    /// The trusted device, as the connection proved it.
    pub(super) trusted: DeviceId,
}

/// The Noise handshake of one side, with a static key made for this conversation alone.
pub(super) fn handshake(
    initiator: bool,
    psk: &Psk,
    context: &Context<'_>,
    rng: &mut impl CryptoRng,
) -> Result<HandshakeState, PairError> {
    let mut own = Zeroizing::new([0; 32]);
    rng.fill_bytes(own.as_mut());
    let [first, second] = context.words;
    let prologue = [DOMAIN, first, second, &context.newcomer.0, &context.trusted.0].concat();
    let built = noise_builder(PATTERN, rng)
        .and_then(|builder| builder.local_private_key(own.as_ref())?.psk(PSK_AT, psk)?.prologue(&prologue))
        .and_then(|builder| if initiator { builder.build_initiator() } else { builder.build_responder() });
    built.map_err(|_| PairError::Interrupted)
}

/// The next message of the handshake, which carries nothing but itself.
pub(super) fn say(noise: &mut HandshakeState) -> Result<Vec<u8>, PairError> {
    let mut bytes = vec![0; 256];
    let len = noise.write_message(&[], &mut bytes).map_err(|_| PairError::Interrupted)?;
    bytes.truncate(len);
    Ok(write(&PairMessage::Noise { bytes: ByteBuf::from(bytes) }))
}

/// Takes the other side's next message of the handshake.
pub(super) fn hear(noise: &mut HandshakeState, bytes: &[u8]) -> Result<(), PairError> {
    let mut nothing = [0; 256];
    match noise.read_message(bytes, &mut nothing) {
        Ok(0) => Ok(()),
        _ => Err(PairError::Interrupted),
    }
}

/// The sealed conversation after the handshake.
pub(super) struct Channel(TransportState);

impl Channel {
    pub(super) fn new(noise: HandshakeState) -> Result<Self, PairError> {
        noise.into_transport_mode().map(Self).map_err(|_| PairError::Interrupted)
    }

    pub(super) fn seal(&mut self, secret: &PairSecret) -> Result<Vec<u8>, PairError> {
        let plain = codec::encode(secret);
        let mut bytes = vec![0; plain.len() + TAG];
        let len = self.0.write_message(&plain, &mut bytes).map_err(|_| PairError::Oversize)?;
        bytes.truncate(len);
        Ok(write(&PairMessage::Noise { bytes: ByteBuf::from(bytes) }))
    }

    /// `None` when the message was not sealed by the other end of this channel.
    pub(super) fn open(&mut self, bytes: &[u8]) -> Option<Result<PairSecret, PairError>> {
        let mut plain = vec![0; bytes.len()];
        let len = self.0.read_message(bytes, &mut plain).ok()?;
        let secret = codec::decode(plain.get(..len)?, limits::PAIR_FRAME);
        Some(secret.map_err(|_| PairError::Interrupted))
    }
}
