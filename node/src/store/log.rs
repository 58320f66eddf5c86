//! The log: numbered segment files to which entries are appended, and which are never changed after that, but replaced
//! by a shorter one of the same number when much of what they hold is needed no more. Numbers may be missing.
//!
//! Beside a segment `0007` there may be `0007.torn` (an unfinished write that was cut off its end), `0007.damaged`
//! (the segment as it was before unreadable stretches were replaced), and, for a moment, `0007.new`.

mod recovery;
mod rewrite;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rand_core::CryptoRng;

pub use self::{recovery::Scan, rewrite::Rewritten};
use super::{
    Entry, NewEntry, Position, StoreError, beside, create_dir,
    segment::{HEADER_LEN, HeaderFault, Seal},
    sync_dir,
};

/// Size in bytes above which a new segment is begun.
pub const SEGMENT_LIMIT: u32 = 64 << 20;
/// Segment files kept open for reading.
const OPEN_FILES: usize = 16;

/// A stretch of a segment that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u32,
    /// Where it begins, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
}

/// An unfinished write that was cut off the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Number of the segment.
    pub segment: u32,
    /// Where it began, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
}

/// What opening a log found wrong and mended.
#[derive(Default)]
pub struct Found {
    /// An unfinished write.
    pub torn: Option<Torn>,
    /// Unreadable stretches.
    pub damage: Vec<Damage>,
}

/// The log, open for appending.
pub struct Log {
    reader: Reader,
    tail: Tail,
    limit: u32,
    failed: bool,
}

struct Tail {
    seal: Seal,
    file: File,
    len: u32,
}

impl Log {
    /// Opens the log in `dir`, mends what a crash or the disk did to it, and shows `visit` every entry in order.
    pub fn open(
        dir: PathBuf,
        rng: &mut impl CryptoRng,
        limit: u32,
        visit: &mut dyn FnMut(Entry),
    ) -> Result<(Log, Found), StoreError> {
        create_dir(&dir)?;
        recovery::finish_replacements(&dir)?;
        let mut numbers = segment_numbers(&dir)?;
        let mut found = Found::default();
        let salt = match recovery::find_salt(&dir, &numbers)? {
            Some(salt) => salt,
            None => {
                recovery::set_headless_aside(&dir, &numbers, &mut found)?;
                numbers.clear();
                let mut salt = [0; 16];
                rng.fill_bytes(&mut salt);
                salt
            }
        };
        let reader = Reader(Arc::new(Segments { dir, salt, open: Mutex::default() }));
        let mut tail = None;
        let newest = numbers.last().copied();
        for number in numbers {
            tail = recovery::check_segment(&reader, number, Some(number) == newest, &mut found, visit)?;
        }
        let tail = match (newest, tail) {
            (Some(number), Some(len)) => reader.0.tail(number, len)?,
            (number, _) => reader.0.begin(number.unwrap_or(1))?,
        };
        Ok((Log { reader, tail, limit, failed: false }, found))
    }

    /// Appends entries, durably; see [`Store::append`](super::Store::append).
    pub fn append(&mut self, entries: &[NewEntry]) -> Result<Vec<Position>, StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        let mut positions = Vec::with_capacity(entries.len());
        let mut bytes = Vec::new();
        for entry in entries {
            let mut len = bytes.len();
            let total = entry.payload.len() + super::segment::ENTRY_OVERHEAD;
            if self.tail.len as usize + len + total > self.limit as usize && self.tail.len as usize + len > HEADER_LEN {
                self.commit(&bytes)?;
                bytes.clear();
                len = 0;
                if let Err(error) = self.roll() {
                    // Part of the entries is durable: only an open can tell which.
                    self.failed |= !positions.is_empty();
                    return Err(error);
                }
            }
            let offset = self.tail.len + len as u32;
            let Seal { number: segment, turn, .. } = self.tail.seal;
            self.tail.seal.write(&mut bytes, offset, self.tail.len, entry);
            positions.push(Position { segment, turn, offset, len: total as u32 });
        }
        let split = positions.first().is_some_and(|first: &Position| first.segment != self.tail.seal.number);
        self.commit(&bytes).inspect_err(|_| self.failed |= split)?;
        Ok(positions)
    }

    /// Refuses all further appends: what the disk holds is not known any more.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// Where the next entry will stand.
    pub fn end(&self) -> Position {
        let Seal { number: segment, turn, .. } = self.tail.seal;
        Position { segment, turn, offset: self.tail.len, len: 0 }
    }

    /// Length of a segment in bytes; `None` when there is none of this number.
    pub fn size(&self, number: u32) -> Result<Option<u64>, StoreError> {
        match self.reader.0.path(number).metadata() {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("measure a log segment")(error)),
        }
    }

    /// Begins a new segment when this one is the newest, so that it may be rewritten.
    pub fn close(&mut self, number: u32) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        if number == self.tail.seal.number { self.roll() } else { Ok(()) }
    }

    /// Makes durable which files there are.
    pub fn flush_names(&self) -> Result<(), StoreError> {
        sync_dir(&self.reader.0.dir)
    }

    /// Reads entries from any thread.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Writes one group at the end and flushes it.
    fn commit(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.tail.file.write_all_at(bytes, u64::from(self.tail.len)) {
            // A full disk: what was written of it must not stand there when the next group is shorter.
            self.failed = self.tail.file.set_len(u64::from(self.tail.len)).is_err();
            return Err(StoreError::io("append to the log")(error));
        }
        if let Err(error) = self.tail.file.sync_data() {
            self.failed = true;
            return Err(StoreError::io("flush the log")(error));
        }
        self.tail.len += bytes.len() as u32;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        self.tail = self.reader.0.begin(self.tail.seal.number + 1)?;
        Ok(())
    }
}

/// Reads entries of the log; cheap to clone, and used from any thread.
#[derive(Clone)]
pub struct Reader(Arc<Segments>);

impl Reader {
    /// The entry at a position; [`StoreError::Moved`] when its segment was rewritten since.
    pub fn read(&self, position: Position) -> Result<Entry, StoreError> {
        let damaged = StoreError::Damaged { segment: position.segment, offset: position.offset };
        if position.len as usize > super::segment::ENTRY_OVERHEAD + super::MAX_PAYLOAD {
            return Err(damaged);
        }
        let mut bytes = vec![0; position.len as usize];
        let moved = StoreError::Moved { segment: position.segment, offset: position.offset };
        let Some(opened) = self.0.file(position.segment)?.filter(|opened| opened.seal.turn == position.turn) else {
            return Err(moved);
        };
        match opened.file.read_exact_at(&mut bytes, u64::from(position.offset)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged),
            Err(error) => return Err(StoreError::io("read the log")(error)),
        }
        let parsed = opened.seal.read(position.offset, &bytes);
        parsed.and_then(|parsed| parsed.entry).ok_or(damaged)
    }

    /// All entries in the order of the log, as it is now.
    ///
    /// A stretch that cannot be read gives one error, after which the next segment follows.
    /// Belongs on the thread that appends: an append in progress looks like damage.
    pub(super) fn scan(&self) -> Result<Scan, StoreError> {
        Ok(Scan::new(self.clone(), segment_numbers(&self.0.dir)?))
    }
}

struct Segments {
    dir: PathBuf,
    salt: [u8; 16],
    open: Mutex<BTreeMap<u32, Arc<Opened>>>,
}

/// A segment file, which stays as it was when it was opened though another is put in its place.
struct Opened {
    file: File,
    seal: Seal,
    /// Whether its header can be read; without it the segment counts as never rewritten.
    whole: bool,
}

impl Segments {
    /// The seal of a segment that was not rewritten.
    fn seal(&self, number: u32) -> Seal {
        Seal { salt: self.salt, number, turn: 0 }
    }

    /// Opens a segment; `None` when there is none of this number.
    fn open(&self, number: u32) -> Result<Option<Opened>, StoreError> {
        let file = match File::open(self.path(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open a log segment")(error)),
        };
        let fresh = self.seal(number);
        let seal = read_header(&file)?.ok().filter(|seal| Seal { turn: 0, ..*seal } == fresh);
        Ok(Some(Opened { file, seal: seal.unwrap_or(fresh), whole: seal.is_some() }))
    }

    fn path(&self, number: u32) -> PathBuf {
        segment_path(&self.dir, number)
    }

    /// A segment for reading, kept open for the next time.
    fn file(&self, number: u32) -> Result<Option<Arc<Opened>>, StoreError> {
        // Opened under the lock, so that no file that was replaced meanwhile is kept after `forget`.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open.get(&number) {
            return Ok(Some(opened.clone()));
        }
        let Some(opened) = self.open(number)?.map(Arc::new) else { return Ok(None) };
        if open.len() >= OPEN_FILES {
            open.pop_first();
        }
        open.insert(number, opened.clone());
        Ok(Some(opened))
    }

    fn forget(&self, number: u32) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Opens a segment for appending after its first `len` bytes.
    fn tail(&self, number: u32, len: u32) -> Result<Tail, StoreError> {
        let opened = File::options().read(true).write(true).open(self.path(number));
        let file = opened.map_err(StoreError::io("open the log"))?;
        let seal = read_header(&file)?.unwrap_or(self.seal(number));
        Ok(Tail { seal, file, len })
    }

    /// Creates an empty segment, or empties one that holds no whole header.
    fn begin(&self, number: u32) -> Result<Tail, StoreError> {
        let opened = File::options().write(true).create(true).truncate(true).open(self.path(number));
        let file = opened.map_err(StoreError::io("begin a log segment"))?;
        let seal = self.seal(number);
        let written = file.write_all_at(&seal.header(), 0).and_then(|()| file.sync_all());
        written.map_err(StoreError::io("begin a log segment"))?;
        sync_dir(&self.dir)?;
        Ok(Tail { seal, file, len: HEADER_LEN as u32 })
    }

    /// Keeps a copy of `bytes` beside a segment, for people to look at.
    fn keep_aside(&self, number: u32, suffix: &str, bytes: &[u8]) -> Result<(), StoreError> {
        std::fs::write(beside(&self.path(number), suffix), bytes).map_err(StoreError::io("keep damaged bytes aside"))
    }
}

fn read_header(file: &File) -> Result<Result<Seal, HeaderFault>, StoreError> {
    let mut header = [0; HEADER_LEN];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => Ok(Seal::parse(&header)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(HeaderFault::Damaged)),
        Err(error) => Err(StoreError::io("read a log segment")(error)),
    }
}

fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:04}"))
}

fn segment_numbers(dir: &Path) -> Result<Vec<u32>, StoreError> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(dir).map_err(StoreError::io("list the log"))? {
        let name = file.map_err(StoreError::io("list the log"))?.file_name();
        let number = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        numbers.extend(number.and_then(|name| name.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
