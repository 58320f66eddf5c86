//! The newest record of this node's own for every object, durable before the record is acknowledged.
//!
//! One file, `heads/newest`, of 512-byte slots: a header, then a pair of slots for each object. A write goes to the
//! older slot of the pair, so that a torn one leaves the other, and any number of objects needs one flush. (A file
//! for each object, written aside and renamed, costs three journal commits: measured, it multiplies the time of an
//! append by four; a slot, by 1.7.)
//!
//! ```text
//! header  "MESHHEAD" | version u16 | zero | check 8
//! slot    object 32 | chain 16 | seq u64 | record id 32 | turn u64 | zero | check 8
//! ```

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt, path::Path};

use meshwork_protocol::id::{ChainId, ObjectId, RecordId};

use super::{Head, StoreError, beside, create_dir, segment::truncated, sync_dir};

const MAGIC: &[u8; 8] = b"MESHHEAD";
const VERSION: u16 = 1;
/// A sector: the disk writes it whole or not at all.
pub const SLOT: usize = 512;
const CHECK_AT: usize = SLOT - 8;

/// The file and what it says.
pub struct Heads {
    file: File,
    known: BTreeMap<ObjectId, Known>,
}

#[derive(Clone, Copy)]
struct Known {
    head: Head,
    /// Number of the pair in the file.
    pair: u64,
    /// Counts the writes of the pair; its parity tells the slot.
    turn: u64,
}

impl Heads {
    /// Reads the file in `dir`, creating both where they are missing.
    ///
    /// A file that is not one of ours is kept as `newest.damaged`, and an empty one begun.
    pub fn open(dir: &Path) -> Result<Heads, StoreError> {
        create_dir(dir)?;
        let path = dir.join("newest");
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open().map_err(StoreError::io("open the newest own records"))?;
        let mut bytes = std::fs::read(&path).map_err(StoreError::io("read the newest own records"))?;
        if bytes.len() >= SLOT && bytes[..SLOT] != header() {
            tracing::error!("the table of own newest records is damaged; it is kept aside");
            std::fs::rename(&path, beside(&path, ".damaged")).map_err(StoreError::io("move a damaged table aside"))?;
            file = open().map_err(StoreError::io("open the newest own records"))?;
            bytes.clear();
        }
        if bytes.len() < SLOT {
            let written = file.set_len(0).and_then(|()| file.write_all_at(&header(), 0)).and_then(|()| file.sync_all());
            written.map_err(StoreError::io("begin the newest own records"))?;
            sync_dir(dir)?;
        }
        let mut known = BTreeMap::<ObjectId, Known>::new();
        for (number, slot) in bytes.chunks_exact(SLOT).enumerate().skip(1) {
            let Some((head, turn)) = parse(slot) else { continue };
            let found = Known { head, pair: (number as u64 - 1) / 2, turn };
            known
                .entry(head.object)
                .and_modify(|old| {
                    if old.turn < turn {
                        *old = found
                    }
                })
                .or_insert(found);
        }
        tracing::trace!(known = known.len(), "read the newest own records");
        Ok(Heads { file, known })
    }

    /// The newest record of an object.
    pub fn get(&self, object: &ObjectId) -> Option<Head> {
        self.known.get(object).map(|known| known.head)
    }

    /// All of them, in the order of the objects.
    pub fn iter(&self) -> impl Iterator<Item = Head> {
        self.known.values().map(|known| known.head)
    }

    /// Makes new heads durable, all with one flush.
    pub fn write(&mut self, heads: impl Iterator<Item = Head>) -> Result<(), StoreError> {
        let mut wrote = false;
        for head in heads {
            let next = match self.known.get(&head.object) {
                Some(known) => Known { head, pair: known.pair, turn: known.turn + 1 },
                None => Known { head, pair: self.free_pair(), turn: 0 },
            };
            let at = SLOT as u64 * (1 + 2 * next.pair + next.turn % 2);
            self.file.write_all_at(&slot(&head, next.turn), at).map_err(StoreError::io("write a newest own record"))?;
            self.known.insert(head.object, next);
            wrote = true;
        }
        if wrote {
            self.file.sync_data().map_err(StoreError::io("flush the newest own records"))?;
        }
        Ok(())
    }

    fn free_pair(&self) -> u64 {
        self.known.values().map(|known| known.pair + 1).max().unwrap_or(0)
    }
}

fn header() -> [u8; SLOT] {
    let mut header = [0; SLOT];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_be_bytes());
    sealed(header)
}

/// The bytes of a slot.
pub fn slot(head: &Head, turn: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..32].copy_from_slice(&head.object.0);
    slot[32..48].copy_from_slice(&head.chain.0);
    slot[48..56].copy_from_slice(&head.seq.to_be_bytes());
    slot[56..88].copy_from_slice(&head.id.0);
    slot[88..96].copy_from_slice(&turn.to_be_bytes());
    sealed(slot)
}

fn sealed(mut slot: [u8; SLOT]) -> [u8; SLOT] {
    let check = truncated(blake3::hash(&slot[..CHECK_AT]));
    slot[CHECK_AT..].copy_from_slice(&check);
    slot
}

/// Reads a slot; `None` for one that was torn or never written.
pub fn parse(slot: &[u8]) -> Option<(Head, u64)> {
    let slot: &[u8; SLOT] = slot.try_into().ok()?;
    if slot[CHECK_AT..] != truncated(blake3::hash(&slot[..CHECK_AT])) {
        return None;
    }
    let (mut object, mut chain, mut seq, mut id, mut turn) = ([0; 32], [0; 16], [0; 8], [0; 32], [0; 8]);
    object.copy_from_slice(&slot[..32]);
    chain.copy_from_slice(&slot[32..48]);
    seq.copy_from_slice(&slot[48..56]);
    id.copy_from_slice(&slot[56..88]);
    turn.copy_from_slice(&slot[88..96]);
    let head = Head { object: ObjectId(object), chain: ChainId(chain), seq: u64::from_be_bytes(seq), id: RecordId(id) };
    Some((head, u64::from_be_bytes(turn)))
}
