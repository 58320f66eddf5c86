//! Letting go of records: what is needed no more, how much of each segment that is, and rewriting segments without it.

use std::collections::BTreeMap;

use meshwork_protocol::id::ChainId;

use super::{
    COVERED, Entry, EntryKind, INDEX_BATCH, IndexError, NOTES, Position, RECORDS, Store, StoreError, log::Rewritten,
    note_rewritten, record_key, segment::truncated,
};

/// A segment is rewritten when one in so many of its bytes is dead, so that a byte is copied about once.
const DEAD_SHARE: u64 = 2;
/// Dead bytes below which a segment is not worth rewriting.
pub const LEAST_DEAD: u64 = 1 << 20;

/// What one step of reclaiming did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Bytes that the log is shorter by.
    pub freed: u64,
    /// Segments that were rewritten or removed.
    pub segments: u32,
    /// Whether another step would find something to do.
    pub more: bool,
}

/// What of the log need not be kept. All of it is in memory, and gathered anew after an open.
pub struct Waste {
    /// The first place that is needed, of each chain of which something is not.
    below: BTreeMap<ChainId, u64>,
    /// Bytes of each segment that need not be kept.
    dead: BTreeMap<u32, u64>,
    /// Where the newest floor of each chain stands.
    floors: BTreeMap<ChainId, Position>,
    /// Turns of the segments that were rewritten.
    turns: BTreeMap<u32, u16>,
    /// The segment that was taken last: one that cannot be rewritten does not keep the others waiting.
    last: u32,
    /// Dead bytes below which a segment is left as it is.
    pub least: u64,
}

impl Waste {
    /// Of an empty log.
    pub fn new() -> Waste {
        let (below, dead) = (BTreeMap::new(), BTreeMap::new());
        Waste { below, dead, floors: BTreeMap::new(), turns: BTreeMap::new(), last: 0, least: LEAST_DEAD }
    }

    /// Whether a record may be gone any time.
    pub fn is_forgotten(&self, chain: ChainId, seq: u64) -> bool {
        self.below.get(&chain).is_some_and(|below| seq < *below)
    }

    /// Takes note of an entry behind all that it knows.
    pub fn see(&mut self, kind: EntryKind, position: Position) {
        if position.turn > 0 {
            self.turns.insert(position.segment, position.turn);
        }
        match kind {
            EntryKind::Control => {}
            EntryKind::Record { chain, seq, .. } if self.is_forgotten(chain, seq) => self.count(position),
            EntryKind::Record { .. } => {}
            EntryKind::Floor { chain, .. } => {
                if let Some(older) = self.floors.insert(chain, position) {
                    self.count(older);
                }
            }
        }
    }

    /// Which segments were rewritten and how often, as a note for the index.
    pub fn rewritten(&self) -> Vec<u8> {
        if self.turns.is_empty() {
            return Vec::new();
        }
        let mut hasher = blake3::Hasher::new();
        for (number, turn) in &self.turns {
            hasher.update(&number.to_be_bytes()).update(&turn.to_be_bytes());
        }
        truncated(hasher.finalize()).to_vec()
    }

    fn count(&mut self, position: Position) {
        *self.dead.entry(position.segment).or_default() += u64::from(position.len);
    }

    fn keeps(&self, entry: &Entry) -> bool {
        match entry.kind {
            EntryKind::Control => true,
            EntryKind::Record { chain, seq, .. } => !self.is_forgotten(chain, seq),
            EntryKind::Floor { chain, .. } => !self.floors.get(&chain).is_some_and(|newest| {
                let (newest_at, at) = ((newest.segment, newest.turn), (entry.position.segment, entry.position.turn));
                newest.segment > entry.position.segment || newest_at == at && newest.offset > entry.position.offset
            }),
        }
    }

    /// Takes note of a segment that was rewritten.
    fn moved(&mut self, rewritten: &Rewritten) {
        self.dead.remove(&rewritten.number);
        self.turns.remove(&rewritten.number);
        if !rewritten.is_empty() {
            self.turns.insert(rewritten.number, rewritten.turn);
        }
        for newest in self.floors.values_mut() {
            *newest = rewritten.place_of(*newest).unwrap_or(*newest);
        }
    }
}

impl Store {
    /// Lets go of the records of a chain at places before `below`, those that are appended later included.
    ///
    /// They are not found any more by [`Store::record`]; [`Store::reclaim`] takes them from the disk. That is not
    /// kept over a restart: whoever knows says it again. The newest own record of an object stays in any case, since
    /// without it the next open would take the log for one that was rolled back.
    pub fn forget(&mut self, chain: ChainId, below: u64) -> Result<(), StoreError> {
        let own = self.heads.iter().filter(|head| head.chain == chain).map(|head| head.seq).max();
        let below = own.map_or(below, |own| below.min(own));
        let from = self.waste.below.get(&chain).copied().unwrap_or(0);
        if below <= from {
            return Ok(());
        }
        self.mend_index()?;
        // The rows stay until their entries are gone: after a restart the entries are counted by them again.
        let mut found = BTreeMap::<u32, u64>::new();
        self.index.scan_range(RECORDS, &record_key(chain, from), &record_key(chain, below), &mut |_, value| {
            if let Some(position) = Position::from_bytes(value) {
                *found.entry(position.segment).or_default() += u64::from(position.len);
            }
            true
        })?;
        self.waste.below.insert(chain, below);
        for (segment, bytes) in found {
            *self.waste.dead.entry(segment).or_default() += bytes;
        }
        Ok(())
    }

    /// Rewrites one segment of which at least half, and at least [`LEAST_DEAD`] bytes, need not be kept.
    ///
    /// A segment that cannot be read whole stays as it is, with [`StoreError::Damaged`]; the next call takes another.
    pub fn reclaim(&mut self) -> Result<Reclaimed, StoreError> {
        self.mend_index()?;
        let Some(number) = self.worth_rewriting()? else {
            return Ok(Reclaimed::default());
        };
        self.waste.last = number;
        self.log.close(number)?;
        let rewritten = Rewritten::write(self.log.reader(), number, |entry| self.waste.keeps(entry));
        if matches!(rewritten, Err(StoreError::Damaged { .. })) {
            self.waste.dead.remove(&number);
        }
        let rewritten = rewritten?;
        if rewritten.freed == 0 {
            tracing::warn!(segment = number, "rows of the record index lead to nothing; it is rebuilt at its next use");
            self.waste.dead.remove(&number);
            self.index_stale = true;
            return Ok(Reclaimed { more: self.worth_rewriting()?.is_some(), ..Reclaimed::default() });
        }
        rewritten.put(self.log.reader())?;
        let flushed = self.log.flush_names();
        self.waste.moved(&rewritten);
        if let Err(error) = self.index_moved(&rewritten) {
            tracing::warn!(%error, "record index could not be updated; it is rebuilt at its next use");
            self.index_stale = true;
        }
        flushed?;
        tracing::debug!(segment = number, freed = rewritten.freed, "rewrote a log segment");
        Ok(Reclaimed { freed: rewritten.freed, segments: 1, more: self.worth_rewriting()?.is_some() })
    }

    /// The next segment of which enough is dead.
    fn worth_rewriting(&self) -> Result<Option<u32>, StoreError> {
        let Waste { dead, last, least, .. } = &self.waste;
        let (before, after) = (dead.range(..=last), dead.range(last.saturating_add(1)..));
        for (number, dead) in after.chain(before).filter(|(_, dead)| *dead >= least) {
            if self.log.size(*number)?.is_some_and(|size| dead * DEAD_SHARE >= size) {
                return Ok(Some(*number));
            }
        }
        Ok(None)
    }

    /// Points the index to the new places of what a segment keeps, and removes the rows of what it does not.
    fn index_moved(&self, rewritten: &Rewritten) -> Result<(), IndexError> {
        for (chain, (first, last)) in &rewritten.places {
            let mut from = *first;
            while let Some(next) = self.index_rows_moved(rewritten, *chain, from, *last)? {
                from = next;
            }
        }
        let end = (COVERED.to_vec(), self.log.end().to_bytes().to_vec());
        self.index.put_many(NOTES, vec![end])?;
        note_rewritten(&*self.index, &self.waste)
    }

    /// Puts a number of rows of a chain right, from one place to another, and answers where to go on.
    fn index_rows_moved(
        &self,
        moved: &Rewritten,
        chain: ChainId,
        from: u64,
        last: u64,
    ) -> Result<Option<u64>, IndexError> {
        let (mut puts, mut removes, mut next) = (Vec::new(), Vec::new(), None);
        let (from, to) = (record_key(chain, from), record_key(chain, last.saturating_add(1)));
        self.index.scan_range(RECORDS, &from, &to, &mut |key, value| {
            let seq = key.last_chunk().map_or(0, |seq| u64::from_be_bytes(*seq));
            if puts.len() + removes.len() >= INDEX_BATCH {
                next = Some(seq);
                return false;
            }
            // Where a later segment has the same place again, the row is of that one. A row that is wrong stays, and
            // is found out when it is used.
            let Some(row) = Position::from_bytes(value).filter(|row| row.segment == moved.number) else { return true };
            match moved.place_of(row) {
                Some(place) => puts.push((key.to_vec(), place.to_bytes().to_vec())),
                None if self.waste.is_forgotten(chain, seq) => removes.push(key.to_vec()),
                None => {}
            }
            true
        })?;
        self.index.put_many(RECORDS, puts)?;
        self.index.remove_many(RECORDS, removes)?;
        Ok(next)
    }
}
