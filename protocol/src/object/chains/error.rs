//! Why a record is not admitted to its chain.

use crate::{
    id::{ChainId, RecordId},
    key::Signed,
};

/// Why a record is not admitted to its chain (now, or ever).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The record is held already.
    #[error("record is held already")]
    Duplicate,
    /// Not yet: records of the chain between the newest held and this one are missing.
    #[error("records {} to {} of the chain are missing", have + 1, want - 1)]
    Gap {
        /// Newest place held, 0 if none.
        have: u64,
        /// Place of the record.
        want: u64,
    },
    /// Not yet: these records that it builds on are missing.
    #[error("{} records that it builds on are missing", .0.len())]
    MissingDeps(Vec<RecordId>),
    /// Never: its author signed two records for one place. The first one held stays.
    #[error("two records at place {seq} of one chain")]
    Fork {
        /// The chain.
        chain: ChainId,
        /// The place.
        seq: u64,
        /// The record held there.
        held: RecordId,
        /// The record refused.
        offered: RecordId,
    },
    /// Never: it follows another record than the one held at the place before it, so its author signed
    /// two records for that place.
    #[error("follows another record at place {seq} of its chain than the one held")]
    BadPrev {
        /// The chain.
        chain: ChainId,
        /// The place before the record's.
        seq: u64,
        /// The record held there.
        held: RecordId,
        /// The record that it names as its predecessor.
        named: RecordId,
    },
    /// Never: its height is not one more than the largest below it.
    #[error("height {stated} above records of height {below}")]
    BadHeight {
        /// Height in the header.
        stated: u64,
        /// Largest height among predecessor and dependencies, 0 if none.
        below: u64,
    },
    /// The record belongs to another object.
    #[error("record belongs to another object")]
    OtherObject,
    /// This replica holds 2^32 records of the object.
    #[error("no room for another record")]
    Full,
}

/// Two statements of one device that an honest one never signs both. Anybody can check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkProof {
    /// The place that has two records.
    pub seq: u64,
    /// The record held at this place.
    pub held: RecordId,
    /// The other side: the signed header of another record for this place, or of a record for the next
    /// place that names another predecessor.
    pub other: Signed,
}
