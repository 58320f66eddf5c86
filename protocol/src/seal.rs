//! Secrets that travel: boxes sealed to one device, epoch keys, and the secret behind chunk ids.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use rand_core::{CryptoRng, TryCryptoRng, TryRng};
use snow::{
    params::{CipherChoice, DHChoice, HashChoice, NoiseParams},
    resolvers::{CryptoResolver, DefaultResolver},
    types,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    id::{ChunkId, EpochId, ObjectId},
    key::fixed_bytes,
};

const SEAL_PATTERN: &str = "Noise_N_25519_ChaChaPoly_BLAKE2s";
const EPOCH_ID_CONTEXT: &[u8] = b"mesh.v1.epoch";
const RECORD_CONTEXT: &str = "mesh 2026 record v1";
const CHUNK_ID_CONTEXT: &str = "mesh 2026 chunk id v1";
const CONVERGENCE_CONTEXT: &str = "mesh 2026 convergence v1";
const NONCE: usize = 24;
const TAG: usize = 16;

/// Bytes that [`seal`] adds to the plaintext: an ephemeral key and a tag.
pub const SEAL_OVERHEAD: usize = 48;
/// Bytes that [`EpochKey::encrypt`] adds to the plaintext: a nonce and a tag.
pub const CIPHER_OVERHEAD: usize = NONCE + TAG;

fixed_bytes!(
    /// The X25519 public key to which secrets for a device are sealed.
    SealPublic, 32
);

/// A sealed or encrypted text did not open: other key, other context, or altered on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("does not open with this key and context")]
pub struct OpenError;

/// The text is longer than one sealed message can carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes do not fit in one sealed message")]
pub struct SealError(pub usize);

/// The secret half of a [`SealPublic`]. Random and never derived from the device key, so that it can change without
/// the device's name changing. Wiped when dropped.
#[derive(Clone)]
pub struct SealKey {
    secret: x25519_dalek::StaticSecret,
    public: SealPublic,
}

impl SealKey {
    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self::from_bytes(&secret)
    }

    /// The key with these 32 secret bytes.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        let secret = x25519_dalek::StaticSecret::from(*secret);
        let public = SealPublic(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// The 32 secret bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> SealPublic {
        self.public
    }

    /// The secret that this key and another one have in common (X25519, RFC 7748); `None` for a key of low order, with
    /// which everybody would have it. Not to be used before it went through a key derivation.
    pub(crate) fn agree(&self, other: &SealPublic) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.secret.diffie_hellman(&x25519_dalek::PublicKey::from(other.0));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}

/// Seals `plain` to the holder of `to`: one message `Noise_N_25519_ChaChaPoly_BLAKE2s` with `prologue` as context,
/// [`SEAL_OVERHEAD`] bytes longer than the text. The sender stays anonymous; what carries the box must be signed.
pub fn seal(to: &SealPublic, prologue: &[u8], plain: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, SealError> {
    let too_long = SealError(plain.len());
    let mut noise = noise_builder(SEAL_PATTERN, rng)
        .and_then(|builder| builder.prologue(prologue)?.remote_public_key(&to.0)?.build_initiator())
        .map_err(|_| too_long.clone())?;
    let mut sealed = vec![0; plain.len() + SEAL_OVERHEAD];
    let len = noise.write_message(plain, &mut sealed).map_err(|_| too_long)?;
    sealed.truncate(len);
    Ok(sealed)
}

/// Opens what [`seal`] made for this key under the same `prologue`.
pub fn open(key: &SealKey, prologue: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let len = sealed.len().checked_sub(SEAL_OVERHEAD).ok_or(OpenError)?;
    let secret = key.to_bytes();
    // The receiver of a one-way message draws nothing; snow wants a source all the same.
    let mut noise = noise_builder(SEAL_PATTERN, &mut SeedRng::new([0; 32]))
        .and_then(|builder| builder.prologue(prologue)?.local_private_key(secret.as_ref())?.build_responder())
        .map_err(|_| OpenError)?;
    let mut plain = Zeroizing::new(vec![0; len]);
    let read = noise.read_message(sealed, &mut plain).map_err(|_| OpenError)?;
    plain.truncate(read);
    Ok(plain)
}

/// A builder for the Noise protocol `name` whose random numbers come from `rng` alone.
///
/// # Errors
/// When `name` is no Noise protocol name.
pub fn noise_builder<'k>(name: &str, rng: &mut impl CryptoRng) -> Result<snow::Builder<'k>, snow::Error> {
    let params: NoiseParams = name.parse()?;
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let resolver = SeededResolver { seed };
    seed.zeroize();
    Ok(snow::Builder::with_resolver(params, Box::new(resolver)))
}

struct SeededResolver {
    seed: [u8; 32],
}

impl Drop for SeededResolver {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl CryptoResolver for SeededResolver {
    fn resolve_rng(&self) -> Option<Box<dyn types::Random>> {
        Some(Box::new(SeedRng::new(self.seed)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn types::Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn types::Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn types::Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Random bytes stretched from a seed with BLAKE3: the same seed gives the same bytes.
pub struct SeedRng(blake3::OutputReader);

impl SeedRng {
    /// The stream of `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(&seed).finalize_xof())
    }
}

impl Drop for SeedRng {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl TryRng for SeedRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

impl TryCryptoRng for SeedRng {}

impl types::Random for SeedRng {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

/// The secret of a key epoch of an object, from which the keys of its records come. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochKey(Zeroizing<[u8; 32]>);

impl EpochKey {
    /// A new secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self(secret)
    }

    /// The epoch with these 32 secret bytes.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*secret))
    }

    /// The 32 secret bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `blake3("mesh.v1.epoch" || object || secret)[..16]`: commits to the secret, so that a wrong key is noticed.
    pub fn id(&self, object: ObjectId) -> EpochId {
        let mut hash = blake3::Hasher::new();
        hash.update(EPOCH_ID_CONTEXT).update(&object.0).update(self.0.as_ref());
        let mut id = [0; EpochId::LEN];
        hash.finalize_xof().fill(&mut id);
        EpochId(id)
    }

    /// A key for one purpose, named by `context` (a constant of the caller, unique in the program).
    pub fn subkey(&self, context: &'static str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, self.0.as_ref()))
    }

    /// XChaCha20-Poly1305 under a random nonce: nonce (24) then ciphertext and tag.
    pub fn encrypt(&self, rng: &mut impl CryptoRng, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        encrypt(&self.subkey(RECORD_CONTEXT), rng, aad, plain)
    }

    /// Opens what [`EpochKey::encrypt`] made with the same `aad`.
    pub fn decrypt(&self, aad: &[u8], cipher: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        decrypt(&self.subkey(RECORD_CONTEXT), aad, cipher)
    }
}

/// XChaCha20-Poly1305 with a random nonce in front.
///
/// # Panics
/// Only for texts of 256 GiB and more, which is beyond the cipher's reach.
pub(crate) fn encrypt(key: &[u8; 32], rng: &mut impl CryptoRng, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let cipher = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad })
        .expect("the text is shorter than 256 GiB");
    [nonce.as_slice(), &cipher].concat()
}

/// Opens what [`encrypt`] made.
pub(crate) fn decrypt(key: &[u8; 32], aad: &[u8], cipher: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (nonce, text) = cipher.split_first_chunk::<NONCE>().ok_or(OpenError)?;
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: text, aad })
        .map(Zeroizing::new)
        .map_err(|_| OpenError)
}

/// The secret behind the chunk ids of an object, the same for the object's whole life: equal content is recognised
/// by members only, and never across objects. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Convergence {
    secret: Zeroizing<[u8; 32]>,
    chunk_key: Zeroizing<[u8; 32]>,
}

impl Convergence {
    /// A new secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self::from_bytes(&secret)
    }

    /// The secret with these 32 bytes.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        let chunk_key = Zeroizing::new(blake3::derive_key(CHUNK_ID_CONTEXT, secret));
        Self { secret: Zeroizing::new(*secret), chunk_key }
    }

    /// The 32 secret bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What the birth of the object says of the secret, so that nobody is given another one.
    pub fn commitment(&self) -> [u8; 32] {
        blake3::derive_key(CONVERGENCE_CONTEXT, self.secret.as_ref())
    }

    /// The id of the chunk whose plaintext has the BLAKE3 hash `plain_hash`.
    pub fn chunk_id(&self, plain_hash: &[u8; 32]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.chunk_key, plain_hash).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(seed: u8) -> SeedRng {
        SeedRng::new([seed; 32])
    }

    #[test]
    fn sealed_boxes_open_for_their_device_and_context_only() {
        let key = SealKey::generate(&mut rng(1));
        let sealed = seal(&key.public(), b"context", b"secret", &mut rng(2)).unwrap();
        assert_eq!(sealed.len(), b"secret".len() + SEAL_OVERHEAD);
        assert_eq!(open(&key, b"context", &sealed).unwrap().as_slice(), b"secret");
        assert!(open(&key, b"other context", &sealed).is_err());
        assert!(open(&SealKey::generate(&mut rng(3)), b"context", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // X25519 ignores the topmost bit of a public key, but the handshake hash does not.
            assert!(open(&key, b"context", &flipped).is_err(), "bit {bit}");
        }
        assert!(open(&key, b"context", &sealed[..SEAL_OVERHEAD - 1]).is_err());
        assert!(open(&key, b"context", &[]).is_err());
    }

    #[test]
    fn sealing_draws_from_the_given_source_only() {
        let key = SealKey::from_bytes(&[9; 32]);
        let once = seal(&key.public(), b"", b"secret", &mut rng(4)).unwrap();
        assert_eq!(once, seal(&key.public(), b"", b"secret", &mut rng(4)).unwrap());
        assert_ne!(once, seal(&key.public(), b"", b"secret", &mut rng(5)).unwrap());
        assert_eq!(seal(&key.public(), b"", &[0; 65_536], &mut rng(6)), Err(SealError(65_536)));
    }

    #[test]
    fn epoch_keys_encrypt_with_context() {
        let key = EpochKey::generate(&mut rng(1));
        let cipher = key.encrypt(&mut rng(2), b"aad", b"plain");
        assert_eq!(cipher.len(), b"plain".len() + CIPHER_OVERHEAD);
        assert_eq!(key.decrypt(b"aad", &cipher).unwrap().as_slice(), b"plain");
        assert!(key.decrypt(b"other", &cipher).is_err());
        assert!(EpochKey::generate(&mut rng(3)).decrypt(b"aad", &cipher).is_err());
        assert!(key.decrypt(b"aad", &cipher[..NONCE - 1]).is_err());
        for bit in 0..cipher.len() * 8 {
            let mut flipped = cipher.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(key.decrypt(b"aad", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn epoch_ids_commit_to_object_and_secret() {
        let key = EpochKey::from_bytes(&[1; 32]);
        let id = key.id(ObjectId([2; 32]));
        assert_eq!(id, EpochKey::from_bytes(&[1; 32]).id(ObjectId([2; 32])));
        assert_ne!(id, key.id(ObjectId([3; 32])));
        assert_ne!(id, EpochKey::from_bytes(&[4; 32]).id(ObjectId([2; 32])));
    }

    #[test]
    fn chunk_ids_differ_between_objects() {
        let (one, two) = (Convergence::from_bytes(&[1; 32]), Convergence::from_bytes(&[2; 32]));
        let hash = *blake3::hash(b"chunk").as_bytes();
        assert_eq!(one.chunk_id(&hash), Convergence::from_bytes(one.as_bytes()).chunk_id(&hash));
        assert_ne!(one.chunk_id(&hash), two.chunk_id(&hash));
        assert_ne!(one.chunk_id(&hash).0, hash);
    }
}
