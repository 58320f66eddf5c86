//! Keys of devices and roots, and the envelope of everything that is signed.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use serde_bytes::{ByteArray, ByteBuf};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    codec::{self, DecodeError},
    id::DeviceId,
    limits, wire_struct,
};

/// The only version of [`Signed`] there is.
pub const SIGNED_VERSION: u8 = 1;

const ID_CONTEXT: &[u8] = b"mesh.v1.id\0";
const SIGNATURE_CONTEXT: &[u8] = b"mesh.v1.sig\0";
const ROOT_CONTEXT: &str = "mesh 2026 root v1";

/// Defines a type of `$len` bytes that is a CBOR byte string on the wire and lower-case hex for people.
macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, "{}({})", stringify!($name), $crate::id::hex(&self.0[..4]))
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = <::serde_bytes::ByteArray<$len> as ::serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self(bytes.into_array()))
            }
        }
    };
}
pub(crate) use fixed_bytes;

fixed_bytes!(
    /// An Ed25519 public key: of a device, where it is also its [`DeviceId`], or of a mesh's root.
    PublicKey, 32
);

impl From<DeviceId> for PublicKey {
    fn from(device: DeviceId) -> Self {
        PublicKey(device.0)
    }
}

impl From<PublicKey> for DeviceId {
    fn from(key: PublicKey) -> Self {
        DeviceId(key.0)
    }
}

/// What a signed statement is about; fixes how its body is read and how long it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The birth of a mesh, signed by its root.
    Genesis = 1,
    /// A device's self-description.
    DeviceKeys = 3,
    /// An operation of a control log.
    ControlOp = 5,
    /// The header of a record.
    RecordHeader = 6,
    /// A right to a live act, for a time.
    Capability = 8,
    /// The birth of an object, signed by the device that creates it.
    ObjectGenesis = 11,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Genesis, Self::DeviceKeys, Self::ControlOp, Self::RecordHeader, Self::ObjectGenesis, Self::Capability];

    /// The kind with this number on the wire.
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Largest body in bytes.
    pub fn body_limit(self) -> usize {
        match self {
            Self::Genesis => limits::GENESIS_BODY,
            Self::DeviceKeys => limits::DEVICE_KEYS_BODY,
            Self::ControlOp => limits::CONTROL_BODY,
            Self::RecordHeader => limits::RECORD_HEADER_BODY,
            Self::Capability => limits::CAPABILITY_BODY,
            Self::ObjectGenesis => limits::OBJECT_GENESIS_BODY,
        }
    }
}

/// Why a signed statement was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The bytes are not an envelope, or its body is not what its kind says.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Written by a version that this one does not know.
    #[error("version {0} is not supported")]
    Version(u8),
    /// A kind that this version does not know, or not the kind expected here.
    #[error("kind {0} is not expected")]
    Kind(u8),
    /// The key is no key, or the signature is not by it over this body.
    #[error("the signature does not verify")]
    Signature,
}

/// A statement with its author. The id covers kind, author and body but not the signature, so that one meaning has
/// one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// [`SIGNED_VERSION`].
    pub version: u8,
    /// Number of the [`Kind`].
    pub kind: u8,
    /// Canonical encoding of the statement.
    pub body: ByteBuf,
    /// The author.
    pub key: PublicKey,
    /// Ed25519 over `"mesh.v1.sig\0" || kind || u32be(length of body) || body`.
    pub signature: ByteArray<64>,
}
wire_struct!(Signed { version, kind, body, key, signature });

impl Signed {
    /// Reads an envelope and checks everything that needs no context: form, size, version, kind and signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignedError> {
        let signed: Self = codec::decode(bytes, limits::SIGNED)?;
        signed.verify()?;
        Ok(signed)
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// `blake3("mesh.v1.id\0" || kind || key || body)`.
    pub fn id(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(ID_CONTEXT).update(&[self.kind]).update(&self.key.0).update(&self.body);
        *hash.finalize().as_bytes()
    }

    /// The author as a device.
    pub fn device_id(&self) -> DeviceId {
        self.key.into()
    }

    /// Checks version, kind, size of the body and the signature (strictly: no small-order keys, no malleable
    /// encodings).
    pub fn verify(&self) -> Result<Kind, SignedError> {
        if self.version != SIGNED_VERSION {
            return Err(SignedError::Version(self.version));
        }
        let kind = Kind::from_wire(self.kind).ok_or(SignedError::Kind(self.kind))?;
        if self.body.len() > kind.body_limit() {
            return Err(DecodeError::Oversize { len: self.body.len(), max: kind.body_limit() }.into());
        }
        let key = VerifyingKey::from_bytes(&self.key.0).map_err(|_| SignedError::Signature)?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&signed_bytes(kind, &self.body), &signature).map_err(|_| SignedError::Signature)?;
        Ok(kind)
    }

    /// Decodes the body as a statement of `kind`. Does not look at the signature.
    pub fn open<T: serde::Serialize + serde::de::DeserializeOwned>(&self, kind: Kind) -> Result<T, SignedError> {
        if self.kind != kind as u8 {
            return Err(SignedError::Kind(self.kind));
        }
        Ok(codec::decode(&self.body, kind.body_limit())?)
    }
}

fn signed_bytes(kind: Kind, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [SIGNATURE_CONTEXT, &[kind as u8], &len.to_be_bytes(), body].concat()
}

fn sign(key: &SigningKey, kind: Kind, body: Vec<u8>) -> Signed {
    let signature = key.sign(&signed_bytes(kind, &body)).to_bytes();
    Signed {
        version: SIGNED_VERSION,
        kind: kind as u8,
        body: ByteBuf::from(body),
        key: PublicKey(key.verifying_key().to_bytes()),
        signature: ByteArray::new(signature),
    }
}

/// The secret key of a device. Wiped when dropped.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self::from_bytes(&secret)
    }

    /// The key with these 32 secret bytes (an Ed25519 seed).
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The 32 secret bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key, which names the device.
    pub fn device_id(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    /// Signs the canonical encoding of a statement of `kind`. A body beyond the limit of its kind is refused by
    /// everybody.
    pub fn sign(&self, kind: Kind, body: Vec<u8>) -> Signed {
        sign(&self.0, kind, body)
    }
}

/// The secret key at the apex of a mesh, derived from its recovery phrase. Wiped when dropped.
pub struct RootKey(SigningKey);

impl RootKey {
    /// Root number `index` of a recovery seed. A mesh uses number 0 of each of its phrases.
    pub fn from_seed(seed: &[u8; 64], index: u32) -> Self {
        let mut material = Zeroizing::new([0; 68]);
        let (head, tail) = material.split_at_mut(64);
        head.copy_from_slice(seed);
        tail.copy_from_slice(&index.to_be_bytes());
        let mut secret = blake3::derive_key(ROOT_CONTEXT, material.as_ref());
        let key = SigningKey::from_bytes(&secret);
        secret.zeroize();
        Self(key)
    }

    /// The 32 secret bytes, for a connection in the name of the root.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key, which the genesis of the mesh names.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs the canonical encoding of a statement of `kind`.
    pub fn sign(&self, kind: Kind, body: Vec<u8>) -> Signed {
        sign(&self.0, kind, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceKey {
        DeviceKey::from_bytes(&[7; 32])
    }

    #[test]
    fn signed_round_trips() {
        let signed = device().sign(Kind::ControlOp, vec![0x80]);
        assert_eq!(Signed::parse(&signed.to_bytes()), Ok(signed.clone()));
        assert_eq!(signed.device_id(), device().device_id());
        assert_eq!(signed.open::<Vec<u8>>(Kind::ControlOp), Ok(vec![]));
        assert_eq!(signed.open::<Vec<u8>>(Kind::Genesis), Err(SignedError::Kind(5)));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let bytes = device().sign(Kind::ControlOp, b"body of a statement".to_vec()).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Signed::parse(&flipped).is_err(), "bit {bit}");
        }
        assert!(Signed::parse(&bytes[..bytes.len() - 1]).is_err());
        assert!(Signed::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn kinds_do_not_stand_for_each_other() {
        let mut signed = device().sign(Kind::ControlOp, vec![0x80]);
        signed.kind = Kind::RecordHeader as u8;
        assert_eq!(signed.verify(), Err(SignedError::Signature));
        signed.kind = 2;
        assert_eq!(signed.verify(), Err(SignedError::Kind(2)));
    }

    #[test]
    fn limits_hold_per_kind() {
        let signed = device().sign(Kind::Genesis, vec![0; limits::GENESIS_BODY + 1]);
        assert!(matches!(signed.verify(), Err(SignedError::Decode(DecodeError::Oversize { .. }))));
        assert!(device().sign(Kind::ControlOp, vec![0; limits::CONTROL_BODY]).verify().is_ok());
        let largest = device().sign(Kind::ControlOp, vec![0; limits::CONTROL_BODY]);
        assert!(Signed::parse(&largest.to_bytes()).is_ok());
    }

    #[test]
    fn ids_leave_the_signature_out() {
        let mut signed = device().sign(Kind::ControlOp, vec![0x80]);
        let id = signed.id();
        signed.signature = ByteArray::new([1; 64]);
        assert_eq!(signed.id(), id);
        signed.body = ByteBuf::from(vec![0x81, 0x00]);
        assert_ne!(signed.id(), id);
    }

    #[test]
    fn roots_differ_by_index_and_seed() {
        let root = RootKey::from_seed(&[1; 64], 0).public();
        assert_eq!(root, RootKey::from_seed(&[1; 64], 0).public());
        assert_ne!(root, RootKey::from_seed(&[1; 64], 1).public());
        assert_ne!(root, RootKey::from_seed(&[2; 64], 0).public());
    }

    #[test]
    fn keys_round_trip() {
        let key = DeviceKey::generate(&mut crate::seal::SeedRng::new([3; 32]));
        assert_eq!(DeviceKey::from_bytes(&key.to_bytes()).device_id(), key.device_id());
    }
}
