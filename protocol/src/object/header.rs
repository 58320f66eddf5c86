//! The signed plaintext of a record.

use serde_bytes::ByteArray;

use crate::{
    codec,
    id::{ChainId, DeviceId, EpochId, Incarnation, ObjectId, OpId, RecordId},
    limits, wire_struct,
};

/// What a record's body is. A kind unknown to this version is chained, stored and served like the
/// others; only its body means nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    /// One change of the object's graph document.
    Graph,
    /// A batch of entry operations on a feed.
    Feed,
    /// Begins a checkpoint of the author's own feed operations.
    Checkpoint,
    /// No operations: names heads of other chains.
    Join,
    /// Goes on with the checkpoint that the record before it begins, or goes on with.
    Listing,
}

impl RecordKind {
    /// The byte that stands for the kind in a header.
    pub fn code(self) -> u8 {
        match self {
            RecordKind::Graph => 0,
            RecordKind::Feed => 1,
            RecordKind::Checkpoint => 2,
            RecordKind::Join => 3,
            RecordKind::Listing => 4,
        }
    }

    /// The kind that a header's byte stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        [RecordKind::Graph, RecordKind::Feed, RecordKind::Checkpoint, RecordKind::Join, RecordKind::Listing]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// A record of another chain that a record builds on. The place tells whether it is one that was let go of behind a
/// checkpoint, to whoever does not hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dep {
    /// The chain of its author, of which it may be on a branch: [`ChainId::of`].
    pub chain: ChainId,
    /// Its place there.
    pub seq: u64,
    /// Its id.
    pub id: RecordId,
}
wire_struct!(Dep { chain, seq, id });

/// The signed plaintext of a record; its fields in wire order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The object that the record belongs to.
    pub object: ObjectId,
    /// What the body is: [`RecordKind::code`].
    pub kind: u8,
    /// Tells apart the chains that one device has in one object.
    pub incarnation: Incarnation,
    /// Place in the chain: 1, 2, 3 ... without gaps.
    pub seq: u64,
    /// The record at `seq - 1`; all zero at seq 1.
    pub prev: RecordId,
    /// Heads of the control log that the author knew: 1 to 8, rising.
    pub control: Vec<OpId>,
    /// The grant of the author's person in the object's log by which the record is judged.
    pub object_grant: OpId,
    /// The grant of the author's device in its mesh's log by which the record is judged.
    pub device_grant: OpId,
    /// The epoch whose key encrypts the body.
    pub epoch: EpochId,
    /// Heads of other chains that the record builds on: at most 16, rising.
    pub deps: Vec<Dep>,
    /// 1 + the largest height among `prev` and `deps` (0 where there are none).
    pub height: u64,
    /// Whether the next record of the chain continues the same batch.
    pub more: bool,
    /// BLAKE3 of the encrypted body.
    pub body_hash: ByteArray<32>,
    /// Bytes of the encrypted body.
    pub body_len: u32,
}
wire_struct!(Header {
    object,
    kind,
    incarnation,
    seq,
    prev,
    control,
    object_grant,
    device_grant,
    epoch,
    deps,
    height,
    more,
    body_hash,
    body_len,
});

/// A header that no honest author writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Places in a chain count from 1.
    #[error("a record has no place 0 in a chain")]
    ZeroSeq,
    /// Exactly the first record of a chain has no predecessor.
    #[error("only the first record of a chain has no predecessor")]
    PrevMismatch,
    /// 1 to 8 control heads, strictly rising.
    #[error("control heads are not a set of 1 to {} in order", limits::RECORD_CONTROL_HEADS)]
    ControlHeads,
    /// At most 16 dependencies.
    #[error("{0} dependencies where at most {max} are allowed", max = limits::RECORD_DEPS)]
    TooManyDeps(usize),
    /// Dependencies are strictly rising and are records.
    #[error("dependencies are not a set of records in order")]
    UnsortedDeps,
    /// A height is at least 1 and at least the place in the chain.
    #[error("height is below the record's place in its chain")]
    Height,
    /// The declared body length is outside what a body can have.
    #[error("a body of {0} bytes")]
    BodyLen(u32),
}

impl Header {
    /// The chain that this header by `author` belongs to.
    pub fn chain(&self, author: &DeviceId) -> ChainId {
        ChainId::of(author, &self.object, &self.incarnation)
    }

    /// Checks everything that can be told from the header alone.
    pub fn check(&self) -> Result<(), HeaderError> {
        if self.seq == 0 {
            return Err(HeaderError::ZeroSeq);
        }
        if (self.seq == 1) != (self.prev == RecordId::NONE) {
            return Err(HeaderError::PrevMismatch);
        }
        if !(1..=limits::RECORD_CONTROL_HEADS).contains(&self.control.len()) || !strictly_rising(&self.control) {
            return Err(HeaderError::ControlHeads);
        }
        if self.deps.len() > limits::RECORD_DEPS {
            return Err(HeaderError::TooManyDeps(self.deps.len()));
        }
        let is_record = |dep: &Dep| dep.seq > 0 && dep.id != RecordId::NONE;
        if !strictly_rising(&self.deps) || !self.deps.iter().all(is_record) {
            return Err(HeaderError::UnsortedDeps);
        }
        if self.height < self.seq {
            return Err(HeaderError::Height);
        }
        let len = usize::try_from(self.body_len).unwrap_or(usize::MAX);
        if !(limits::RECORD_BODY_MIN..=limits::RECORD_BODY_MAX).contains(&len) {
            return Err(HeaderError::BodyLen(self.body_len));
        }
        Ok(())
    }

    /// What the body's encryption is bound to: the author and every field that does not depend on the
    /// ciphertext (the body hash and length stand as zero).
    pub fn associated_data(&self, author: &DeviceId) -> Vec<u8> {
        let bare = Header { body_hash: ByteArray::new([0; 32]), body_len: 0, ..self.clone() };
        [author.as_bytes().as_slice(), &codec::encode(&bare)].concat()
    }
}

impl RecordId {
    /// Stands for "no record" where a format needs an id.
    pub const NONE: RecordId = RecordId([0; 32]);
}

impl Incarnation {
    /// The incarnation in which a device writes on under these grants when the end of its chain was cut off:
    /// `blake3("mesh.v1.incarnation" || incarnation || object grant || device grant)`, cut to 8 bytes.
    pub fn under(&self, object_grant: OpId, device_grant: OpId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mesh.v1.incarnation").update(&self.0).update(&object_grant.0).update(&device_grant.0);
        let mut incarnation = [0; 8];
        hasher.finalize_xof().fill(&mut incarnation);
        Incarnation(incarnation)
    }
}

impl ChainId {
    /// The chain of one device in one object since its last install or restore:
    /// `blake3("mesh.v1.chain" || device || object || incarnation)`, cut to 16 bytes.
    pub fn of(device: &DeviceId, object: &ObjectId, incarnation: &Incarnation) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mesh.v1.chain").update(&device.0).update(&object.0).update(&incarnation.0);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        ChainId(id)
    }
}

fn strictly_rising<T: Ord>(items: &[T]) -> bool {
    items.is_sorted_by(|a, b| a < b)
}
