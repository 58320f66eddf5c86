//! Why a record is not admitted to its chain.

use crate::id::{ChainId, RecordId};

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
    /// Not yet: its predecessor is not held, though something is at the place before it: the author signed two
    /// records for one place, this one or an earlier one.
    #[error("goes on from another record before place {seq} of its chain than is held")]
    Sidestep {
        /// The chain.
        chain: ChainId,
        /// Place of the record.
        seq: u64,
    },
    /// Never: what it names as its predecessor is not at the place before it.
    #[error("the predecessor of place {seq} is no record of the place before")]
    BadPrev {
        /// The chain.
        chain: ChainId,
        /// Place of the record.
        seq: u64,
        /// The record that it names as its predecessor.
        named: RecordId,
    },
    /// Never: it names a record that it builds on at another place than that has.
    #[error("names a record that it builds on at a place where that is not")]
    BadDep(RecordId),
    /// No more: a checkpoint of its author has taken the place of the chain.
    #[error("place {seq} of a chain whose place a checkpoint has taken")]
    Retired {
        /// The chain.
        chain: ChainId,
        /// Place of the record.
        seq: u64,
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
