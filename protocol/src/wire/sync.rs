//! Frames of the control stream between two devices: what each holds, and the statements themselves.
//!
//! Each side opens with [`Frame::Hello`]. Per object, control logs are compared first, then the chains:
//! equal digests end it there. Whoever lacks something asks for it.

use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    codec::{self, DecodeError},
    contact::CardDevice,
    id::{ChainId, DeviceId, ObjectId, OpId},
    limits,
    object::{Prefix, Range, Vector},
    wire_enum, wire_struct,
};

/// The version spoken on the stream; another one ends it.
pub const VERSION: u8 = 1;

/// The first eight bytes of a digest: enough to notice a difference.
pub type ShortDigest = ByteArray<8>;

/// What one replica holds of one object, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectState {
    /// The object.
    pub object: ObjectId,
    /// Start of [`control_digest`].
    pub control: ShortDigest,
    /// Start of [`Vector::digest`].
    pub vector: ShortDigest,
}
wire_struct!(ObjectState { object, control, vector });

/// How much of one chain a replica holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorEntry {
    /// The chain.
    pub chain: ChainId,
    /// Place of the newest record held.
    pub seq: u64,
    /// Start of the id of that record.
    pub prefix: Prefix,
}
wire_struct!(VectorEntry { chain, seq, prefix });

/// A chain that a replica let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retirement {
    /// The chain.
    pub chain: ChainId,
    /// Whose it was.
    pub device: DeviceId,
    /// The chain that begins with the checkpoint that has taken its place.
    pub by: ChainId,
}
wire_struct!(Retirement { chain, device, by });

/// One message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First frame of each side.
    Hello {
        /// [`VERSION`].
        version: u8,
        /// What the sender holds of the objects that the receiver may know of.
        objects: Vec<ObjectState>,
    },
    /// States of further objects, or newer ones.
    Offer {
        /// What the sender holds of these objects.
        objects: Vec<ObjectState>,
    },
    /// Asks for what the sender lacks of a control log; answered by [`Frame::ControlItems`], the last
    /// with `done`.
    ControlHave {
        /// The object whose log it is.
        object: ObjectId,
        /// The tips of the log that the sender holds.
        heads: Vec<OpId>,
    },
    /// Signed statements of a control log, in an order in which each names only earlier ones.
    ControlItems {
        /// The object whose log it is.
        object: ObjectId,
        /// Canonical bytes of a `Signed` each.
        items: Vec<ByteBuf>,
        /// Whether this ends the answer to a [`Frame::ControlHave`].
        done: bool,
    },
    /// Everything that the sender holds of the chains of an object; more than one frame can carry follows
    /// as [`Frame::Announce`].
    Vector {
        /// The object.
        object: ObjectId,
        /// One entry a chain.
        entries: Vec<VectorEntry>,
    },
    /// Chains of which the sender holds more than it said before.
    Announce {
        /// The object.
        object: ObjectId,
        /// One entry a chain.
        entries: Vec<VectorEntry>,
    },
    /// Asks for records; answered by [`Frame::Records`] and one [`Frame::Served`]. The answer may stop
    /// early, then the asker asks again for the rest.
    Want {
        /// The object.
        object: ObjectId,
        /// At most one range a chain.
        ranges: Vec<Range>,
    },
    /// Records, asked for or new.
    Records {
        /// The object.
        object: ObjectId,
        /// Canonical bytes of a record each, lowest height first.
        records: Vec<ByteBuf>,
    },
    /// Chains that the sender let go of, before records of those that have taken their place: what builds on them need not
    /// wait for them.
    Retired {
        /// The object.
        object: ObjectId,
        /// The chains.
        chains: Vec<Retirement>,
    },
    /// Ends the answer to a [`Frame::Want`].
    Served {
        /// The object.
        object: ObjectId,
    },
    /// Where devices may be reached that the receiver may deal with, too. Hints: whoever answers there still has to
    /// prove who it is.
    Addresses {
        /// The devices.
        devices: Vec<CardDevice>,
    },
    /// Nothing to say, but alive.
    KeepAlive {},
    /// The sender is about to close the stream.
    Bye {
        /// [`Reason`] as a number; unknown ones mean no more than that the stream ends.
        reason: u8,
    },
}
wire_enum!(Frame {
    0 => Hello { version, objects },
    1 => Offer { objects },
    2 => ControlHave { object, heads },
    3 => ControlItems { object, items, done },
    4 => Vector { object, entries },
    5 => Announce { object, entries },
    6 => Want { object, ranges },
    7 => Records { object, records },
    8 => Served { object },
    9 => KeepAlive {},
    10 => Bye { reason },
    11 => Addresses { devices },
    12 => Retired { object, chains },
});

/// Why a side closes the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The node stops.
    Stopping = 0,
    /// The other side speaks another version.
    Version = 1,
    /// The other side sent what no honest one sends, more than once.
    Misbehaved = 2,
    /// Nothing was heard for too long.
    Silent = 3,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too many bytes, or not the canonical encoding of a frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A list or a part longer than its limit.
    #[error("{0} are too many or too long")]
    TooMany(&'static str),
}

impl Frame {
    /// What kind of frame it is, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Hello { .. } => "Hello",
            Frame::Offer { .. } => "Offer",
            Frame::ControlHave { .. } => "ControlHave",
            Frame::ControlItems { .. } => "ControlItems",
            Frame::Vector { .. } => "Vector",
            Frame::Announce { .. } => "Announce",
            Frame::Want { .. } => "Want",
            Frame::Records { .. } => "Records",
            Frame::Retired { .. } => "Retired",
            Frame::Served { .. } => "Served",
            Frame::Addresses { .. } => "Addresses",
            Frame::KeepAlive {} => "KeepAlive",
            Frame::Bye { .. } => "Bye",
        }
    }

    /// The bytes of the frame, without the length before it.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a frame and checks the limit of every part.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let frame: Frame = codec::decode(bytes, limits::SYNC_FRAME)?;
        frame.check()?;
        Ok(frame)
    }

    fn check(&self) -> Result<(), FrameError> {
        let (what, fits) = match self {
            Frame::Hello { objects, .. } | Frame::Offer { objects } => {
                ("objects", objects.len() <= limits::SYNC_OBJECTS)
            }
            Frame::ControlHave { heads, .. } => ("control heads", heads.len() <= limits::SYNC_CONTROL_HEADS),
            Frame::ControlItems { items, .. } => {
                let small = items.iter().all(|item| item.len() <= limits::SIGNED);
                ("control items", small && items.len() <= limits::SYNC_ITEMS)
            }
            Frame::Vector { entries, .. } | Frame::Announce { entries, .. } => {
                ("chains", entries.len() <= limits::SYNC_CHAINS)
            }
            Frame::Want { ranges, .. } => ("ranges", ranges.len() <= limits::SYNC_RANGES),
            Frame::Retired { chains, .. } => ("chains", chains.len() <= limits::SYNC_RETIRED),
            Frame::Records { records, .. } => {
                let small = records.iter().all(|record| record.len() <= limits::RECORD);
                ("records", small && records.len() <= limits::SYNC_ITEMS)
            }
            Frame::Addresses { devices } => {
                let fits = |text: &String| text.len() <= limits::ADDRESS;
                let small = |known: &CardDevice| {
                    known.addresses.len() <= limits::PAIR_ADDRESSES && known.addresses.iter().all(fits)
                };
                ("devices", devices.len() <= limits::SYNC_DEVICES && devices.iter().all(small))
            }
            Frame::Served { .. } | Frame::KeepAlive {} | Frame::Bye { .. } => ("", true),
        };
        if fits { Ok(()) } else { Err(FrameError::TooMany(what)) }
    }
}

/// BLAKE3 over the object id and the tips of its control log, in order: equal for replicas that hold the
/// same log.
pub fn control_digest(object: &ObjectId, heads: &[OpId]) -> [u8; 32] {
    let mut heads = heads.to_vec();
    heads.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mesh.v1.control").update(&object.0);
    for head in heads {
        hasher.update(&head.0);
    }
    *hasher.finalize().as_bytes()
}

/// The short form of a digest.
pub fn short(digest: [u8; 32]) -> ShortDigest {
    let [a, b, c, d, e, f, g, h, ..] = digest;
    ByteArray::new([a, b, c, d, e, f, g, h])
}

/// The entries of a vector, in order of the chain id.
pub fn entries(vector: &Vector) -> impl Iterator<Item = VectorEntry> + '_ {
    vector.0.iter().map(|(chain, (seq, id))| VectorEntry { chain: *chain, seq: *seq, prefix: id.prefix() })
}

/// Cuts a list of encoded items into parts for one frame each: at most [`limits::SYNC_ITEMS`] items, and
/// no more than [`limits::SYNC_FRAME_FILL`] bytes unless a single item has more.
pub fn parts(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<ByteBuf>> {
    let mut parts: Vec<Vec<ByteBuf>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += item.len();
        match parts.last_mut() {
            Some(part) if bytes <= limits::SYNC_FRAME_FILL && part.len() < limits::SYNC_ITEMS => {
                part.push(ByteBuf::from(item));
            }
            _ => {
                bytes = item.len();
                parts.push(vec![ByteBuf::from(item)]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests;
