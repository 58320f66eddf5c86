//! `/meshwork/chunks/1`: bytes of files, and offers of connections made for them.
//!
//! The receiver sends frames of [`ChunkMessage`], at most two [`Fetch`](ChunkMessage::Fetch) at a time. The sender answers
//! each in turn: for every chunk, in the order asked, a [`ChunkHeader`] and its bytes, then a header that ends the
//! answer. When all that it asked for has arrived, the receiver says [`Received`](ChunkMessage::Received): a stream that
//! ends without it has delivered nothing for certain.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

use crate::{
    codec::{self, DecodeError},
    id::{ChunkId, ContentId, DeviceId, ObjectId},
    limits,
    splice::Token,
    wire_enum, wire_struct,
};

/// One chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkAt {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes, 1 to [`limits::CHUNK`].
    pub len: u32,
    /// Its id, which the receiver checks.
    pub id: ChunkId,
}
wire_struct!(ChunkAt { offset, len, id });

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchItem {
    /// Chunks of a file.
    File {
        /// The content that the offsets refer to.
        content: ContentId,
        /// The chunks wanted, in the order in which they are to come.
        chunks: Vec<ChunkAt>,
    },
    /// A chunk that belongs to no file, such as a page of a manifest; at most [`limits::BLOB`] bytes.
    Blob {
        /// Its id.
        id: ChunkId,
    },
}
wire_enum!(FetchItem { 0 => File { content, chunks }, 1 => Blob { id } });

/// What the receiver of chunks says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkMessage {
    /// Asks for chunks.
    Fetch {
        /// The object that they belong to.
        object: ObjectId,
        /// At most [`limits::FETCH_ITEMS`].
        items: Vec<FetchItem>,
    },
    /// Everything asked for so far has arrived and is kept.
    Received {
        /// Bytes of chunks since the last such message.
        bytes: u64,
    },
    /// Asks for a connection of its own for what follows. The answer is a frame with a [`BulkOffer`], empty
    /// where there can be none; the stream can be used whether the offer is taken up or not.
    Bulk {
        /// Where the offer can be taken up beside its addresses.
        splice: Option<Splice>,
    },
}
wire_enum!(ChunkMessage { 0 => Fetch { object, items }, 1 => Received { bytes }, 2 => Bulk { splice } });

/// One end of a channel of the relay that carries the connection; whoever asks has the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// The relay.
    pub relay: DeviceId,
    /// Its data port.
    pub port: u16,
    /// The right to that end.
    pub token: Token,
}
wire_struct!(Splice { relay, port, token });

/// Why a message about chunks was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkMessageError {
    /// Not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Asks for more than one request may.
    #[error("a request for too much at once")]
    TooMuch,
    /// A chunk without bytes or above the largest, or beyond the largest file.
    #[error("a chunk of an impossible length or place")]
    BadChunk,
}

impl ChunkMessage {
    /// The message as the body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads and judges the body of a frame.
    pub fn decode(bytes: &[u8]) -> Result<ChunkMessage, ChunkMessageError> {
        let message: ChunkMessage = codec::decode(bytes, limits::CHUNK_FRAME)?;
        if let ChunkMessage::Fetch { items, .. } = &message {
            judge(items)?;
        }
        Ok(message)
    }
}

fn judge(items: &[FetchItem]) -> Result<(), ChunkMessageError> {
    let (mut chunks, mut bytes, mut blobs) = (0_usize, 0_u64, 0_usize);
    for item in items {
        match item {
            FetchItem::File { chunks: wanted, .. } => {
                chunks = chunks.saturating_add(wanted.len());
                for chunk in wanted {
                    let end = chunk.offset.checked_add(u64::from(chunk.len));
                    if chunk.len == 0 || chunk.len > limits::CHUNK || end.is_none_or(|end| end > i64::MAX as u64) {
                        return Err(ChunkMessageError::BadChunk);
                    }
                    bytes = bytes.saturating_add(u64::from(chunk.len));
                }
            }
            FetchItem::Blob { .. } => blobs += 1,
        }
    }
    let within = items.len() <= limits::FETCH_ITEMS
        && chunks <= limits::FETCH_CHUNKS
        && bytes <= limits::FETCH_BYTES
        && blobs <= limits::FETCH_BLOBS;
    if within { Ok(()) } else { Err(ChunkMessageError::TooMuch) }
}

/// What stands before each chunk of an answer: a status byte, and the length as four bytes, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkHeader {
    /// That many bytes of the chunk follow.
    Here(u32),
    /// The sender does not have this chunk (any more); nothing follows.
    Gone,
    /// The answer to one request ends.
    End,
}

impl ChunkHeader {
    /// Length of a header in bytes.
    pub const LEN: usize = 5;

    /// The bytes of the header.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let (status, len) = match self {
            ChunkHeader::Here(len) => (0, len),
            ChunkHeader::Gone => (1, 0),
            ChunkHeader::End => (2, 0),
        };
        let [a, b, c, d] = len.to_be_bytes();
        [status, a, b, c, d]
    }

    /// Reads a header; `None` for bytes that are none.
    pub fn parse(bytes: [u8; Self::LEN]) -> Option<ChunkHeader> {
        let [status, a, b, c, d] = bytes;
        match (status, u32::from_be_bytes([a, b, c, d])) {
            (0, len) => Some(ChunkHeader::Here(len)),
            (1, 0) => Some(ChunkHeader::Gone),
            (2, 0) => Some(ChunkHeader::End),
            _ => None,
        }
    }
}

/// A secret for one connection, known to the two devices that share the stream on which it was offered.
#[derive(Clone, PartialEq, Eq)]
pub struct BulkSecret(pub [u8; 32]);

impl Drop for BulkSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Serialize for BulkSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for BulkSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = ByteBuf::deserialize(deserializer)?;
        let secret = <[u8; 32]>::try_from(bytes.as_slice()).map(BulkSecret);
        bytes.zeroize();
        secret.map_err(|_| de::Error::custom("a secret of another length"))
    }
}

/// An address that takes TCP connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkAddress {
    /// 4 bytes for IPv4, 16 for IPv6.
    pub ip: ByteBuf,
    /// TCP port.
    pub port: u16,
}
wire_struct!(BulkAddress { ip, port });

/// An offer, over a stream that is encrypted and authenticated, to take one TCP connection for bulk bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct BulkOffer {
    /// Where, best first; at most [`limits::BULK_ADDRESSES`].
    pub addresses: Vec<BulkAddress>,
    /// What the dialler says in clear, so that the listener knows which offer is taken up.
    pub channel: [u8; 16],
    /// What both prove to know.
    pub secret: BulkSecret,
    /// Whether the listener has AES in hardware; if both have, the connection is sealed with AES-GCM, else with ChaCha20-Poly1305.
    pub aes: bool,
}

#[derive(PartialEq, Eq)]
struct OfferWire {
    addresses: Vec<BulkAddress>,
    channel: ByteBuf,
    secret: BulkSecret,
    aes: bool,
}
wire_struct!(OfferWire { addresses, channel, secret, aes });

impl Serialize for BulkOffer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = OfferWire {
            addresses: self.addresses.clone(),
            channel: ByteBuf::from(self.channel.to_vec()),
            secret: self.secret.clone(),
            aes: self.aes,
        };
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BulkOffer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = OfferWire::deserialize(deserializer)?;
        if wire.addresses.len() > limits::BULK_ADDRESSES {
            return Err(de::Error::custom("too many addresses"));
        }
        let channel = wire.channel.as_slice().try_into();
        let channel = channel.map_err(|_| de::Error::custom("a channel id of another length"))?;
        Ok(BulkOffer { addresses: wire.addresses, channel, secret: wire.secret, aes: wire.aes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::hex;

    fn chunk(len: u32) -> ChunkAt {
        ChunkAt { offset: 7, len, id: ChunkId([3; 32]) }
    }

    fn fetch(items: Vec<FetchItem>) -> Vec<u8> {
        ChunkMessage::Fetch { object: ObjectId([1; 32]), items }.encode()
    }

    fn file(chunks: Vec<ChunkAt>) -> FetchItem {
        FetchItem::File { content: ContentId([2; 32]), chunks }
    }

    #[test]
    fn golden_bytes() {
        let bytes = fetch(vec![file(vec![chunk(65_536)]), FetchItem::Blob { id: ChunkId([4; 32]) }]);
        let (one, two, three, four) = ("01".repeat(32), "02".repeat(32), "03".repeat(32), "04".repeat(32));
        let expected = format!("83005820{one}8283005820{two}8183071a000100005820{three}82015820{four}");
        assert_eq!(hex(&bytes), expected);
        assert_eq!(ChunkMessage::Received { bytes: 256 }.encode(), [0x82, 1, 0x19, 1, 0]);
        assert_eq!(ChunkHeader::Here(0x0102_0304).to_bytes(), [0, 1, 2, 3, 4]);
        assert_eq!(ChunkHeader::Gone.to_bytes(), [1, 0, 0, 0, 0]);
        assert_eq!(ChunkHeader::End.to_bytes(), [2, 0, 0, 0, 0]);
    }

    #[test]
    fn round_trips() {
        let bytes = fetch(vec![file(vec![chunk(1), chunk(limits::CHUNK)]), FetchItem::Blob { id: ChunkId([4; 32]) }]);
        assert_eq!(ChunkMessage::decode(&bytes).map(|message| message.encode()), Err(ChunkMessageError::TooMuch));
        let bytes =
            fetch(vec![file(vec![chunk(1), chunk(limits::CHUNK - 1)]), FetchItem::Blob { id: ChunkId([4; 32]) }]);
        assert_eq!(ChunkMessage::decode(&bytes).map(|message| message.encode()), Ok(bytes));
        for header in [ChunkHeader::Here(9), ChunkHeader::Gone, ChunkHeader::End] {
            assert_eq!(ChunkHeader::parse(header.to_bytes()), Some(header));
        }
        assert_eq!(ChunkHeader::parse([1, 0, 0, 0, 1]), None);
        assert_eq!(ChunkHeader::parse([3, 0, 0, 0, 0]), None);
    }

    #[test]
    fn refuses_what_no_request_needs() {
        let refused = |items| ChunkMessage::decode(&fetch(items)).unwrap_err();
        assert_eq!(refused(vec![file(vec![chunk(0)])]), ChunkMessageError::BadChunk);
        assert_eq!(refused(vec![file(vec![chunk(limits::CHUNK + 1)])]), ChunkMessageError::BadChunk);
        let far = ChunkAt { offset: u64::MAX, ..chunk(1) };
        assert_eq!(refused(vec![file(vec![far])]), ChunkMessageError::BadChunk);
        assert_eq!(refused(vec![file(vec![]); limits::FETCH_ITEMS + 1]), ChunkMessageError::TooMuch);
        assert_eq!(refused(vec![file(vec![chunk(1); limits::FETCH_CHUNKS + 1])]), ChunkMessageError::TooMuch);
        let blob = FetchItem::Blob { id: ChunkId([4; 32]) };
        assert_eq!(refused(vec![blob; limits::FETCH_BLOBS + 1]), ChunkMessageError::TooMuch);
    }

    /// The largest request that is within its limits fits in a frame.
    #[test]
    fn the_largest_request_fits() {
        let far = ChunkAt { offset: 1 << 60, len: 8_192, id: ChunkId([3; 32]) };
        let mut items = vec![file(vec![far; 4]); limits::FETCH_CHUNKS / 4];
        items.extend(vec![FetchItem::Blob { id: ChunkId([4; 32]) }; limits::FETCH_ITEMS - items.len()]);
        items.truncate(limits::FETCH_ITEMS);
        let bytes = fetch(items);
        assert!(bytes.len() <= limits::CHUNK_FRAME, "{}", bytes.len());
        assert!(ChunkMessage::decode(&bytes).is_ok());
    }

    #[test]
    fn asks_for_a_connection_with_and_without_a_relay() {
        assert_eq!(hex(&ChunkMessage::Bulk { splice: None }.encode()), "8202f6");
        let splice = Splice { relay: DeviceId([7; 32]), port: 4003, token: Token([8; 16]) };
        let message = ChunkMessage::Bulk { splice: Some(splice) };
        let bytes = message.encode();
        assert_eq!(hex(&bytes), format!("8202835820{}190fa350{}", "07".repeat(32), "08".repeat(16)));
        assert_eq!(ChunkMessage::decode(&bytes), Ok(message));
    }

    #[test]
    fn offers_round_trip_and_are_bounded() {
        let address = BulkAddress { ip: ByteBuf::from(vec![127, 0, 0, 1]), port: 4001 };
        let offer =
            BulkOffer { addresses: vec![address.clone()], channel: [5; 16], secret: BulkSecret([6; 32]), aes: true };
        let bytes = codec::encode(&offer);
        let expected = format!("84818244{}190fa150{}5820{}f5", "7f000001", "05".repeat(16), "06".repeat(32));
        assert_eq!(hex(&bytes), expected);
        assert!(codec::decode::<BulkOffer>(&bytes, 512).is_ok_and(|decoded| decoded == offer));
        let many = BulkOffer { addresses: vec![address; limits::BULK_ADDRESSES + 1], ..offer };
        assert!(codec::decode::<BulkOffer>(&codec::encode(&many), 4_096).is_err());
    }
}
