//! The names of things: fixed-length byte strings with a type each.
//!
//! On the wire every id is a CBOR byte string of exactly its length; for people it is lower-case hex.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An id in text form was not hex of the right length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hex digits")]
pub struct ParseIdError {
    /// Number of hex digits that a valid id of this type has.
    pub expected: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes of the id.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight hex digits: enough for a person to tell two ids apart.
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes = unhex(text).ok_or(ParseIdError { expected: 2 * $len })?;
                Ok(Self(bytes.try_into().map_err(|_| ParseIdError { expected: 2 * $len })?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_bytes(FixedBytes::<$len>).map(Self)
            }
        }
    };
}

id!(
    /// A device: its Ed25519 public key, which is also its libp2p peer identity.
    DeviceId, 32
);
id!(
    /// A mesh: the id of its signed genesis record.
    MeshId, 32
);
id!(
    /// An object, the unit of sharing: the id of its signed genesis record. The mesh itself is the
    /// object whose id equals its [`MeshId`].
    ObjectId, 32
);
id!(
    /// A signed operation of a control log.
    OpId, 32
);
id!(
    /// A signed record of a chain.
    RecordId, 32
);
id!(
    /// Half of a [`RecordId`]: names a record among those that are held.
    RecordKey, 16
);
id!(
    /// A key epoch of an object; commits to the epoch secret.
    EpochId, 16
);
id!(
    /// Drawn at install and at each restore, so that a device that lost its newest state starts a
    /// new chain rather than forking its old one.
    Incarnation, 8
);
id!(
    /// A chain of records: the hash of (device, object, incarnation).
    ChainId, 16
);
id!(
    /// A directory of a folder; all zero is the root.
    DirId, 16
);
id!(
    /// A file, kept through renames: a hint for history, never an authority.
    FileId, 16
);
id!(
    /// A chunk: keyed hash of its plaintext under the object's convergence secret.
    ChunkId, 32
);
id!(
    /// The whole content of a file: hash over the ordered plain hashes of its chunks.
    ContentId, 32
);
id!(
    /// A capability: the id of the signed statement.
    CapabilityId, 32
);
id!(
    /// What is renewed: drawn when a right is first given, and kept by every capability that prolongs it.
    LeaseId, 16
);

impl DirId {
    /// The root directory of a folder.
    pub const ROOT: DirId = DirId([0; 16]);
}

impl From<MeshId> for ObjectId {
    fn from(mesh: MeshId) -> Self {
        ObjectId(mesh.0)
    }
}

impl RecordId {
    /// The first half of the id.
    pub fn key(&self) -> RecordKey {
        let mut key = [0; 16];
        key.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        RecordKey(key)
    }
}

/// Lower-case hex of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of a hex string of even length, or `None`.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

struct FixedBytes<const N: usize>;

impl<const N: usize> de::Visitor<'_> for FixedBytes<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of length {N}")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let id = DirId([0xa5; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("zz".parse::<DirId>(), Err(ParseIdError { expected: 32 }));
        assert_eq!("a5".parse::<DirId>(), Err(ParseIdError { expected: 32 }));
    }
}
