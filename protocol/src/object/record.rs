//! One item of a chain: a signed header and an encrypted body.

use rand_core::CryptoRng;
use serde_bytes::{ByteArray, ByteBuf};
use zeroize::Zeroizing;

use super::{Dep, Header, HeaderError, RecordKind};
use crate::{
    codec::{self, DecodeError},
    id::{ChainId, DeviceId, Incarnation, ObjectId, OpId, RecordId},
    key::{DeviceKey, Kind, Signed, SignedError},
    limits,
    seal::EpochKey,
    wire_struct,
};

/// Flag at the start of a body's plaintext: the rest is as it was written.
const PLAIN: u8 = 0;
/// Bytes before the text itself: the flag and its length as four bytes, big-endian.
const FRAMING: usize = 5;

/// One item of a chain as it travels and is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The header, signed by the author.
    pub signed: Signed,
    /// The body, encrypted with the epoch's key.
    pub body: ByteBuf,
}
wire_struct!(Record { signed, body });

/// Why bytes are not a record, or why none can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// More bytes than a record may have; nothing was parsed.
    #[error("a record of {0} bytes")]
    TooBig(usize),
    /// Not the canonical encoding of a record.
    #[error("not a record: {0}")]
    Decode(#[from] DecodeError),
    /// The envelope does not hold a header, or its signature is not its author's.
    #[error("not a signed header: {0}")]
    Signed(#[from] SignedError),
    /// The header says what no honest author says.
    #[error("bad header: {0}")]
    Header(#[from] HeaderError),
    /// The body is not the one that was signed.
    #[error("the body is not the one that was signed")]
    BodyMismatch,
}

/// Why a body does not give its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not encrypted with this key, or not for this place.
    #[error("the body does not open with the key of its epoch")]
    BadCipher,
    /// The declared length is more than any body may have.
    #[error("a body that declares {declared} bytes")]
    Bomb {
        /// Bytes declared.
        declared: u32,
    },
    /// The plaintext is not framed as it must be, or compressed in a way that this version does not know.
    #[error("the body's plaintext is malformed")]
    Malformed,
}

/// What the author of a record decides; the rest follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// [`Header::object`].
    pub object: ObjectId,
    /// [`Header::kind`].
    pub kind: RecordKind,
    /// [`Header::incarnation`].
    pub incarnation: Incarnation,
    /// [`Header::seq`].
    pub seq: u64,
    /// [`Header::prev`].
    pub prev: RecordId,
    /// [`Header::control`], in any order.
    pub control: Vec<OpId>,
    /// [`Header::object_grant`].
    pub object_grant: OpId,
    /// [`Header::device_grant`].
    pub device_grant: OpId,
    /// [`Header::deps`], in any order.
    pub deps: Vec<Dep>,
    /// [`Header::height`].
    pub height: u64,
    /// [`Header::more`].
    pub more: bool,
}

impl Record {
    /// Encrypts and signs a record.
    pub fn create(
        key: &DeviceKey,
        draft: Draft,
        epoch: &EpochKey,
        text: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Verified, RecordError> {
        if text.len() > limits::RECORD_TEXT_MAX {
            return Err(RecordError::TooBig(text.len()));
        }
        let author = key.device_id();
        let mut header = draft.header(epoch);
        let mut plain = Zeroizing::new(Vec::with_capacity(FRAMING + text.len()));
        plain.push(PLAIN);
        // The limit above is far below what a u32 holds.
        plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
        plain.extend_from_slice(text);
        let body = epoch.encrypt(rng, &header.associated_data(&author), &plain);
        header.body_hash = ByteArray::new(*blake3::hash(&body).as_bytes());
        header.body_len = u32::try_from(body.len()).map_err(|_| RecordError::TooBig(body.len()))?;
        header.check()?;
        let signed = key.sign(Kind::RecordHeader, codec::encode(&header));
        let id = RecordId(signed.id());
        let bytes = codec::encode(&Record { signed, body: ByteBuf::from(body) });
        Ok(Verified { id, author, chain: header.chain(&author), header, bytes })
    }

    /// Reads a record and checks everything that can be told from it alone: size, form, signature and
    /// body hash.
    pub fn parse(bytes: Vec<u8>) -> Result<Verified, RecordError> {
        Self::decode(bytes)?.verify()
    }

    /// Reads a record and checks its form, but neither signature nor body hash.
    pub fn decode(bytes: Vec<u8>) -> Result<Decoded, RecordError> {
        if bytes.len() > limits::RECORD {
            return Err(RecordError::TooBig(bytes.len()));
        }
        let record: Record = codec::decode(&bytes, limits::RECORD)?;
        let header: Header = record.signed.open(Kind::RecordHeader)?;
        header.check()?;
        if u32::try_from(record.body.len()) != Ok(header.body_len) {
            return Err(RecordError::BodyMismatch);
        }
        let author = record.signed.device_id();
        let id = RecordId(record.signed.id());
        let verified = Verified { id, author, chain: header.chain(&author), header, bytes };
        Ok(Decoded { verified, record })
    }
}

impl Draft {
    fn header(self, epoch: &EpochKey) -> Header {
        let (mut control, mut deps) = (self.control, self.deps);
        control.sort_unstable();
        control.dedup();
        deps.sort_unstable();
        deps.dedup();
        Header {
            object: self.object,
            kind: self.kind.code(),
            incarnation: self.incarnation,
            seq: self.seq,
            prev: self.prev,
            control,
            object_grant: self.object_grant,
            device_grant: self.device_grant,
            epoch: epoch.id(self.object),
            deps,
            height: self.height,
            more: self.more,
            body_hash: ByteArray::new([0; 32]),
            body_len: 0,
        }
    }
}

/// A well-formed record whose signature nobody has looked at yet.
#[derive(Debug, Clone)]
pub struct Decoded {
    verified: Verified,
    record: Record,
}

impl Decoded {
    /// The record's id. It covers author and header, so a record of an id that is held says nothing new,
    /// whatever its signature and body.
    pub fn id(&self) -> RecordId {
        self.verified.id
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.verified.header
    }

    /// The chain that it claims to belong to.
    pub fn chain(&self) -> ChainId {
        self.verified.chain
    }

    /// Checks signature and body hash.
    pub fn verify(self) -> Result<Verified, RecordError> {
        if *blake3::hash(&self.record.body).as_bytes() != self.verified.header.body_hash.into_array() {
            return Err(RecordError::BodyMismatch);
        }
        self.record.signed.verify()?;
        Ok(self.verified)
    }
}

/// A record whose author is who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    id: RecordId,
    author: DeviceId,
    chain: ChainId,
    header: Header,
    bytes: Vec<u8>,
}

impl Verified {
    /// Reads a record that this node verified before it stored it.
    pub fn trusted(bytes: Vec<u8>) -> Result<Self, RecordError> {
        Ok(Record::decode(bytes)?.verified)
    }

    /// The id.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// The device that signed it.
    pub fn author(&self) -> DeviceId {
        self.author
    }

    /// The chain that it belongs to.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The canonical bytes of the whole record, as sent and stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The canonical bytes of the whole record.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The signed header.
    pub fn signed(&self) -> Result<Signed, RecordError> {
        let record: Record = codec::decode(&self.bytes, limits::RECORD)?;
        Ok(record.signed)
    }

    /// The encrypted body.
    pub fn body(&self) -> &[u8] {
        // The body is the last field of the encoding, so its bytes are the last ones.
        let len = usize::try_from(self.header.body_len).unwrap_or(usize::MAX);
        self.bytes.len().checked_sub(len).and_then(|start| self.bytes.get(start..)).unwrap_or_default()
    }

    /// The text of the body.
    pub fn open(&self, epoch: &EpochKey) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut plain =
            epoch.decrypt(&self.header.associated_data(&self.author), self.body()).map_err(|_| OpenError::BadCipher)?;
        let (framing, text) = plain.split_first_chunk::<FRAMING>().ok_or(OpenError::Malformed)?;
        let [flag, len @ ..] = *framing;
        let declared = u32::from_be_bytes(len);
        if usize::try_from(declared).unwrap_or(usize::MAX) > limits::RECORD_INFLATED_MAX {
            return Err(OpenError::Bomb { declared });
        }
        if flag != PLAIN || u32::try_from(text.len()) != Ok(declared) {
            return Err(OpenError::Malformed);
        }
        plain.drain(..FRAMING);
        Ok(plain)
    }
}

#[cfg(test)]
impl Verified {
    /// A record of a device that is nothing but its id: nobody looks at the signature.
    pub(crate) fn unsigned(author: DeviceId, header: Header) -> Self {
        let signed = Signed {
            version: crate::key::SIGNED_VERSION,
            kind: Kind::RecordHeader as u8,
            body: ByteBuf::from(codec::encode(&header)),
            key: author.into(),
            signature: ByteArray::new([0; 64]),
        };
        let id = RecordId(signed.id());
        let body = ByteBuf::from(vec![0; header.body_len as usize]);
        let bytes = codec::encode(&Record { signed, body });
        Verified { id, author, chain: header.chain(&author), header, bytes }
    }
}

#[cfg(test)]
mod tests;
