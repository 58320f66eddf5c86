//! How much of each chain a replica holds.

use std::collections::BTreeMap;

use serde_bytes::ByteArray;

use crate::id::{ChainId, ObjectId, RecordId};

/// The first eight bytes of a record id: enough to notice that two replicas hold different records at
/// one place.
pub type Prefix = ByteArray<8>;

/// For each chain held, the place and id of its newest record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vector(pub BTreeMap<ChainId, (u64, RecordId)>);

impl Vector {
    /// The newest place held of a chain, 0 if none.
    pub fn seq(&self, chain: &ChainId) -> u64 {
        self.0.get(chain).map_or(0, |(seq, _)| *seq)
    }

    /// Raises a chain's entry; an entry that is not newer changes nothing. Tells whether it did.
    pub fn raise(&mut self, chain: ChainId, seq: u64, id: RecordId) -> bool {
        if self.seq(&chain) >= seq {
            return false;
        }
        self.0.insert(chain, (seq, id));
        true
    }

    /// BLAKE3 over the object id and the entries in order of the chain id: equal for replicas that hold
    /// the same records.
    pub fn digest(&self, object: &ObjectId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mesh.v1.vector").update(&object.0);
        for (chain, (seq, id)) in &self.0 {
            hasher.update(&chain.0).update(&seq.to_be_bytes()).update(&id.0);
        }
        *hasher.finalize().as_bytes()
    }
}

impl RecordId {
    /// The first eight bytes of the id.
    pub fn prefix(&self) -> Prefix {
        let mut prefix = [0; 8];
        prefix.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        ByteArray::new(prefix)
    }
}
