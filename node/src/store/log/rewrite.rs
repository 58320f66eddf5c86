//! Rewriting a segment without what is needed no more.
//!
//! The new file is whole and durable before it takes the place of the old one, so a crash at any moment leaves one of
//! the two, and beside it at most a `.new`, which the next open removes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use meshwork_protocol::id::ChainId;

use super::{Reader, recovery::Walk};
use crate::store::{
    Entry, EntryKind, NewEntry, Position, StoreError, beside,
    segment::{HEADER_LEN, Seal},
};

const WRITE_BUFFER: usize = 256 << 10;

/// A segment as it is to be, durable beside the one that is.
pub struct Rewritten {
    /// Number of the segment.
    pub number: u32,
    /// How often the segment was rewritten, this time included.
    pub turn: u16,
    /// Bytes by which it is shorter.
    pub freed: u64,
    /// Of each chain with records in it, kept or not, the first and the last place.
    pub places: BTreeMap<ChainId, (u64, u64)>,
    /// Where each entry that is kept stood and will stand, in order.
    kept: Vec<(Position, u32)>,
    draft: Draft,
}

impl Rewritten {
    /// Whether nothing is kept, so that the segment goes.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Where the entry that stood at a position will stand; `None` when it is not kept, or was elsewhere.
    pub fn place_of(&self, old: Position) -> Option<Position> {
        let at = self.kept.binary_search_by_key(&old, |(from, _)| *from).ok()?;
        Some(Position { turn: self.turn, offset: self.kept[at].1, ..old })
    }

    /// Writes the entries of a segment that `keep` chooses, in their order, beside it. Filler is left out.
    ///
    /// A segment with a stretch that cannot be read is left alone: the next open finds what is behind the stretch.
    pub fn write(reader: &Reader, number: u32, keep: impl Fn(&Entry) -> bool) -> Result<Rewritten, StoreError> {
        let damaged = |offset| StoreError::Damaged { segment: number, offset };
        let opened = reader.0.open(number)?.ok_or(StoreError::Moved { segment: number, offset: 0 })?;
        if !opened.whole {
            return Err(damaged(0));
        }
        let mut walk = Walk::begin(opened)?;
        // It cannot come round to an old turn: each is half as long as the one before.
        let seal = Seal { turn: walk.seal.turn.wrapping_add(1), ..walk.seal };
        let act = || StoreError::io("rewrite a log segment");
        let mut draft = Draft::begin(beside(&reader.0.path(number), ".new"), &seal).map_err(act())?;
        let mut places = BTreeMap::<ChainId, (u64, u64)>::new();
        let mut kept = Vec::new();
        while let Some(parsed) = walk.next()? {
            let Some(entry) = parsed.entry else { continue };
            if let EntryKind::Record { chain, seq, .. } = entry.kind {
                let (first, last) = places.entry(chain).or_insert((seq, seq));
                (*first, *last) = (seq.min(*first), seq.max(*last));
            }
            if keep(&entry) {
                kept.push((entry.position, draft.len));
                draft.add(entry).map_err(act())?;
            }
        }
        if walk.offset != walk.len {
            return Err(damaged(walk.offset));
        }
        let freed = u64::from(if kept.is_empty() { walk.len } else { walk.len - draft.len });
        if !kept.is_empty() && freed > 0 {
            draft.finish().map_err(act())?;
        }
        Ok(Rewritten { number, turn: seal.turn, freed, places, kept, draft })
    }

    /// Puts the new file in the place of the old one, or removes the old one when nothing is kept.
    ///
    /// After an error the old one stands. The directory is not flushed yet.
    pub fn put(&self, reader: &Reader) -> Result<(), StoreError> {
        let path = reader.0.path(self.number);
        let put = if self.kept.is_empty() {
            // A `.new` without its segment would be taken for the segment.
            std::fs::remove_file(&self.draft.path).and_then(|()| std::fs::remove_file(&path))
        } else {
            std::fs::rename(&self.draft.path, &path)
        };
        put.map_err(StoreError::io("replace a log segment"))?;
        reader.0.forget(self.number);
        Ok(())
    }
}

/// A segment file that is being written; removed with this, unless it was renamed.
struct Draft {
    path: PathBuf,
    file: BufWriter<File>,
    seal: Seal,
    len: u32,
    bytes: Vec<u8>,
}

impl Draft {
    fn begin(path: PathBuf, seal: &Seal) -> io::Result<Draft> {
        let file = BufWriter::with_capacity(WRITE_BUFFER, File::create(&path)?);
        let mut draft = Draft { path, file, seal: *seal, len: HEADER_LEN as u32, bytes: Vec::new() };
        draft.file.write_all(&seal.header())?;
        Ok(draft)
    }

    fn add(&mut self, entry: Entry) -> io::Result<()> {
        let Entry { object, kind, payload, .. } = entry;
        self.bytes.clear();
        // Each is a group of its own: whatever is before it was durable.
        self.seal.write(&mut self.bytes, self.len, self.len, &NewEntry { object, kind, payload, head: None });
        self.file.write_all(&self.bytes)?;
        self.len += self.bytes.len() as u32;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there after the rename; one that stays is removed by the next open.
        let _ = std::fs::remove_file(&self.path);
    }
}
