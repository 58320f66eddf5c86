//! What a node keeps: an append-only log of signed records and control statements, which is the truth, and indices
//! into it, which can be rebuilt from it at any time.
//!
//! * [`Store`] is blocking and belongs to one thread; [`StoreHandle`](handle::StoreHandle) is its asynchronous front
//!   and writes all appends that wait with one flush of the disk.
//! * An append is acknowledged once its bytes are durable in the log and, for the node's own records, once the newest
//!   (seq, id) of the object is durable beside the log. A log that is behind those is one that was rolled back: the
//!   node must then begin a new incarnation, since others may hold what it forgot.
//! * The log does not grow for ever: records that are needed no more are named with [`Store::forget`], and
//!   [`Store::reclaim`] rewrites the segments that they fill.

pub mod handle;
pub mod heads;
pub mod index;
mod log;
mod reclaim;
pub mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use meshwork_protocol::id::{ChainId, ObjectId, RecordId};
use rand_core::CryptoRng;

use self::{
    heads::Heads,
    index::{Index, IndexError, SledIndex},
    log::Log,
    reclaim::Waste,
};
pub use self::{
    log::{Damage, Reader, Scan, Torn},
    reclaim::{LEAST_DEAD, Reclaimed},
    segment::MAX_PAYLOAD,
};

/// Tree of the record index: chain 16 ++ seq u64 big-endian -> position.
const RECORDS: &str = "records";
/// Tree of the store's own notes about the index.
const NOTES: &str = "store";
/// Note: position of the last entry that the record index covers.
const COVERED: &[u8] = b"covered";
/// Note: which rewriting of segments the record index knows; see [`Waste::rewritten`].
const REWRITTEN: &[u8] = b"rewritten";
/// Records put into the index at a time while it is built.
const INDEX_BATCH: usize = 1024;

/// Why the store could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A payload above [`MAX_PAYLOAD`].
    #[error("entry of {len} bytes where at most {MAX_PAYLOAD} are allowed")]
    TooLarge {
        /// Bytes offered.
        len: usize,
    },
    /// The entry at a position cannot be read; the next open sets the segment aside and keeps the rest.
    #[error("log segment {segment} is damaged at byte {offset}")]
    Damaged {
        /// Number of the segment.
        segment: u32,
        /// Offset in the segment in bytes.
        offset: u32,
    },
    /// The entry that stood at a position is elsewhere or gone, since the segment was rewritten.
    #[error("what stood at byte {offset} of log segment {segment} is not there any more")]
    Moved {
        /// Number of the segment.
        segment: u32,
        /// Offset in the segment in bytes.
        offset: u32,
    },
    /// A segment was written by a newer version of this program.
    #[error("log segment {segment} has format {version}, newer than this program knows")]
    NewerFormat {
        /// Number of the segment.
        segment: u32,
        /// Its format version.
        version: u16,
    },
    /// The disk failed to flush once, so what it holds is unknown until the store is opened again.
    #[error("the store stopped after the disk failed to flush")]
    Failed,
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { action, source: Arc::new(source) }
    }
}

/// Where an entry stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment, from 1.
    pub segment: u32,
    /// How often the segment had been rewritten.
    pub turn: u16,
    /// Offset of the entry in bytes.
    pub offset: u32,
    /// Length of the entry in bytes, with head and check.
    pub len: u32,
}

impl Position {
    fn to_bytes(self) -> [u8; 14] {
        let mut bytes = [0; 14];
        bytes[..4].copy_from_slice(&self.segment.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.turn.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.offset.to_be_bytes());
        bytes[10..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Position> {
        let bytes: &[u8; 14] = bytes.try_into().ok()?;
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let turn = u16::from_be_bytes([bytes[4], bytes[5]]);
        Some(Position { segment: number(0), turn, offset: number(6), len: number(10) })
    }

    /// Where the entry ends: segment and offset.
    fn end(self) -> (u32, u64) {
        (self.segment, u64::from(self.offset) + u64::from(self.len))
    }
}

/// What an entry of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A signed statement of a control log, or a genesis.
    Control,
    /// A signed record.
    Record {
        /// The chain it belongs to.
        chain: ChainId,
        /// Its place in the chain, from 1.
        seq: u64,
        /// Whether this node wrote it.
        own: bool,
    },
    /// From which place on the log counts for a chain; the payload says why. It removes nothing itself.
    Floor {
        /// The chain.
        chain: ChainId,
        /// The first place that counts.
        seq: u64,
    },
}

impl EntryKind {
    fn is_at(&self, at: ChainId, place: u64) -> bool {
        matches!(self, EntryKind::Record { chain, seq, .. } if (*chain, *seq) == (at, place))
    }
}

/// An entry to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// The object it belongs to.
    pub object: ObjectId,
    /// What it is.
    pub kind: EntryKind,
    /// Its bytes, at most [`MAX_PAYLOAD`].
    pub payload: Vec<u8>,
    /// For a record of this node's own: its id, kept as the newest of the object.
    pub head: Option<RecordId>,
}

/// An entry read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// The object it belongs to.
    pub object: ObjectId,
    /// What it is.
    pub kind: EntryKind,
    /// Its bytes as they were appended.
    pub payload: Vec<u8>,
}

/// The newest record that this node wrote for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The object.
    pub object: ObjectId,
    /// The node's chain.
    pub chain: ChainId,
    /// Newest seq in it.
    pub seq: u64,
    /// Id of that record.
    pub id: RecordId,
}

/// An object whose log has forgotten records that the node had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolledBack {
    /// What the node had written.
    pub head: Head,
    /// Newest seq of that chain in the log; 0 for none.
    pub found: u64,
}

/// What opening a store found.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// Readable entries.
    pub entries: u64,
    /// Unfinished writes at the end, cut off and kept beside the log.
    pub torn: Option<Torn>,
    /// Stretches that cannot be read; their segments are kept beside the log.
    pub damage: Vec<Damage>,
    /// Objects that need a new incarnation of this node.
    pub rolled_back: Vec<RolledBack>,
    /// The record index was built anew.
    pub index_rebuilt: bool,
    /// The index was moved aside: what only it held (queues, caches, the table of local files) begins empty.
    pub index_replaced: bool,
}

/// The log, its index and the node's own newest records, for use by one thread.
pub struct Store {
    log: Log,
    heads: Heads,
    index: Arc<dyn Index>,
    index_stale: bool,
    waste: Waste,
}

impl Store {
    /// Opens the store in `home`, creating it where there is none; `visit` is shown every entry in the order of the log.
    ///
    /// The whole log is read and checked once, and what is found wrong is mended. The caller holds the lock on `home`.
    pub fn open(
        home: &Path,
        rng: &mut impl CryptoRng,
        visit: impl FnMut(Entry),
    ) -> Result<(Store, OpenReport), StoreError> {
        Self::open_limited(home, rng, log::SEGMENT_LIMIT, visit)
    }

    fn open_limited(
        home: &Path,
        rng: &mut impl CryptoRng,
        limit: u32,
        mut visit: impl FnMut(Entry),
    ) -> Result<(Store, OpenReport), StoreError> {
        let path = home.join("index");
        let (mut index, replaced) = SledIndex::open(&path)?;
        let covered = index.get(NOTES, COVERED).unwrap_or_default().as_deref().and_then(Position::from_bytes);
        let rewritten = index.get(NOTES, REWRITTEN).unwrap_or_default().unwrap_or_default();
        let heads = Heads::open(&home.join("heads"))?;
        let mut newest: BTreeMap<ChainId, u64> = heads.iter().map(|head| (head.chain, 0)).collect();
        let mut report = OpenReport::default();
        let mut batch = IndexBatch::new(&index);
        let mut waste = Waste::new();
        let (mut last, mut index_fault) = (None, None);
        let (log, found) = Log::open(home.join("log"), rng, limit, &mut |entry: Entry| {
            report.entries += 1;
            last = Some(entry.position);
            waste.see(entry.kind, entry.position);
            if let EntryKind::Record { chain, seq, .. } = entry.kind {
                if let Some(newest) = newest.get_mut(&chain) {
                    *newest = seq.max(*newest);
                }
                if covered.is_none_or(|covered| entry.position > covered) {
                    index_fault = batch.add(chain, seq, entry.position).err().or(index_fault.take());
                }
            }
            visit(entry);
        })?;
        sync_dir(home)?;
        index_fault = batch.finish(last).err().or(index_fault);
        // Without a note of how far it reaches, all of the index was built above.
        let moved = rewritten != waste.rewritten();
        if moved && covered.is_none() {
            index_fault = note_rewritten(&index, &waste).err().or(index_fault);
        }
        let ahead = covered.is_some_and(|covered| covered.end() > log.end().end());
        report.torn = found.torn;
        report.damage = found.damage;
        report.rolled_back = heads.iter().filter_map(|head| rolled_back(head, &newest)).collect();
        let rebuild = !report.damage.is_empty() || index_fault.is_some() || (moved && covered.is_some()) || ahead;
        report.index_rebuilt = rebuild || (covered.is_none() && last.is_some());
        if rebuild {
            (index, report.index_replaced) = build_or_replace(index, &path, log.reader(), &waste)?;
        }
        report.index_replaced |= replaced;
        let index = Arc::new(index);
        let store = Store { log, heads, index, index_stale: false, waste };
        report.tell();
        Ok((store, report))
    }

    /// Appends entries and makes them durable with one flush; the positions are in the order of the entries.
    ///
    /// After an error none of the entries counts as written (a later open may still find some of them).
    pub fn append(&mut self, entries: &[NewEntry]) -> Result<Vec<Position>, StoreError> {
        if let Some(len) = entries.iter().map(|entry| entry.payload.len()).find(|len| *len > MAX_PAYLOAD) {
            return Err(StoreError::TooLarge { len });
        }
        let positions = self.log.append(entries)?;
        let newest: BTreeMap<ObjectId, Head> = entries.iter().filter_map(own_head).collect();
        if let Err(error) = self.heads.write(newest.into_values()) {
            self.log.fail();
            return Err(error);
        }
        let mut batch = IndexBatch::new(&*self.index);
        let mut indexed = Ok(());
        for (entry, position) in entries.iter().zip(&positions) {
            self.waste.see(entry.kind, *position);
            if let EntryKind::Record { chain, seq, .. } = entry.kind {
                indexed = indexed.and_then(|()| batch.add(chain, seq, *position));
            }
        }
        if let Err(error) = indexed.and_then(|()| batch.finish(positions.last().copied())) {
            tracing::warn!(%error, "record index could not be updated; it is rebuilt at its next use");
            self.index_stale = true;
        }
        Ok(positions)
    }

    /// The entry at a position.
    pub fn read(&self, position: Position) -> Result<Entry, StoreError> {
        self.log.reader().read(position)
    }

    /// A record by its place in its chain.
    pub fn record(&mut self, chain: ChainId, seq: u64) -> Result<Option<Entry>, StoreError> {
        if self.waste.is_forgotten(chain, seq) {
            return Ok(None);
        }
        self.mend_index()?;
        match self.lookup(chain, seq) {
            Ok(Some(entry)) if entry.kind.is_at(chain, seq) => Ok(Some(entry)),
            Ok(None) => Ok(None),
            Ok(Some(_)) | Err(_) => {
                self.rebuild_index()?;
                self.lookup(chain, seq)
            }
        }
    }

    fn lookup(&self, chain: ChainId, seq: u64) -> Result<Option<Entry>, StoreError> {
        let Some(value) = self.index.get(RECORDS, &record_key(chain, seq))? else {
            return Ok(None);
        };
        let position = Position::from_bytes(&value).ok_or(IndexError::Malformed)?;
        self.read(position).map(Some)
    }

    /// All entries in the order of the log.
    pub fn scan(&self) -> Result<Scan, StoreError> {
        self.log.reader().scan()
    }

    /// Reads entries from any thread.
    pub fn reader(&self) -> Reader {
        self.log.reader().clone()
    }

    /// The node's newest record of an object.
    pub fn head(&self, object: &ObjectId) -> Option<Head> {
        self.heads.get(object)
    }

    /// The index, for trees besides the records'.
    pub fn index(&self) -> Arc<dyn Index> {
        self.index.clone()
    }

    fn mend_index(&mut self) -> Result<(), StoreError> {
        if self.index_stale { self.rebuild_index() } else { Ok(()) }
    }

    fn rebuild_index(&mut self) -> Result<(), StoreError> {
        build_index(&*self.index, self.log.reader(), &self.waste)?;
        self.index_stale = false;
        Ok(())
    }
}

/// Builds the record index from the log, in a new database when the old one refuses; the flag tells.
fn build_or_replace(
    index: SledIndex,
    path: &Path,
    log: &Reader,
    waste: &Waste,
) -> Result<(SledIndex, bool), StoreError> {
    if build_index(&index, log, waste).is_ok() {
        return Ok((index, false));
    }
    drop(index);
    let index = SledIndex::replace(path)?;
    build_index(&index, log, waste)?;
    Ok((index, true))
}

/// Builds the record index from the log.
fn build_index(index: &dyn Index, log: &Reader, waste: &Waste) -> Result<(), StoreError> {
    tracing::warn!("building the record index from the log");
    index.clear(RECORDS)?;
    let mut batch = IndexBatch::new(index);
    let mut last = None;
    for entry in log.scan()?.filter_map(Result::ok) {
        last = Some(entry.position);
        if let EntryKind::Record { chain, seq, .. } = entry.kind {
            batch.add(chain, seq, entry.position)?;
        }
    }
    batch.finish(last)?;
    note_rewritten(index, waste)?;
    Ok(index.flush()?)
}

/// Notes that the record index knows of all segments that were rewritten.
fn note_rewritten(index: &dyn Index, waste: &Waste) -> Result<(), IndexError> {
    index.put_many(NOTES, vec![(REWRITTEN.to_vec(), waste.rewritten())])
}

impl OpenReport {
    fn tell(&self) {
        if let Some(torn) = &self.torn {
            tracing::info!(segment = torn.segment, bytes = torn.len, "cut an unfinished write off the log");
        }
        for damage in &self.damage {
            tracing::error!(
                segment = damage.segment,
                offset = damage.offset,
                bytes = damage.len,
                "part of the log cannot be read; the segment is kept beside it, the rest goes on"
            );
        }
        for lost in &self.rolled_back {
            tracing::error!(object = %lost.head.object.short(), acknowledged = lost.head.seq, found = lost.found,
                "the log has forgotten records of this node; a new incarnation is needed");
        }
        tracing::debug!(entries = self.entries, index_rebuilt = self.index_rebuilt, "opened the store");
    }
}

/// Collects record positions and puts them into the index many at a time.
struct IndexBatch<'a> {
    index: &'a dyn Index,
    items: Vec<(Vec<u8>, Vec<u8>)>,
    added: bool,
}

impl<'a> IndexBatch<'a> {
    fn new(index: &'a dyn Index) -> Self {
        IndexBatch { index, items: Vec::new(), added: false }
    }

    fn add(&mut self, chain: ChainId, seq: u64, position: Position) -> Result<(), IndexError> {
        self.items.push((record_key(chain, seq).to_vec(), position.to_bytes().to_vec()));
        self.added = true;
        if self.items.len() < INDEX_BATCH {
            return Ok(());
        }
        self.index.put_many(RECORDS, std::mem::take(&mut self.items))
    }

    /// Puts the rest, and then notes how far the index reaches.
    fn finish(self, last: Option<Position>) -> Result<(), IndexError> {
        let Some(last) = last.filter(|_| self.added) else {
            return Ok(());
        };
        self.index.put_many(RECORDS, self.items)?;
        self.index.put_many(NOTES, vec![(COVERED.to_vec(), last.to_bytes().to_vec())])
    }
}

fn record_key(chain: ChainId, seq: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&chain.0);
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

fn own_head(entry: &NewEntry) -> Option<(ObjectId, Head)> {
    let EntryKind::Record { chain, seq, .. } = entry.kind else {
        return None;
    };
    Some((entry.object, Head { object: entry.object, chain, seq, id: entry.head? }))
}

fn rolled_back(head: Head, newest: &BTreeMap<ChainId, u64>) -> Option<RolledBack> {
    let found = newest.get(&head.chain).copied().unwrap_or(0);
    (found < head.seq).then_some(RolledBack { head, found })
}

fn create_dir(path: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(path).map_err(StoreError::io("create a directory of the store"))
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let flushed = std::fs::File::open(path).and_then(|dir| dir.sync_all());
    flushed.map_err(StoreError::io("flush a directory of the store"))
}

/// `path` with `suffix` appended to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
