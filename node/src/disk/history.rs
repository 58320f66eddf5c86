//! Every version that a synchronised change replaced or removed, kept until retention ends.
//!
//! A version's content is one file, hard-linked from the folder where both are on one file system, so
//! that keeping costs no bytes and no moment in which the name is empty. Beside the contents lies an
//! index: a line for each version, `checksum json`, only ever appended to; a damaged line is skipped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    path::{Path as FsPath, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use meshwork_protocol::{
    id::{ContentId, ObjectId, hex, unhex},
    time::Timestamp,
};
use meshwork_replica::{feed::Name, folder::observed::Path};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, open, openat, readlinkat, renameat, unlinkat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{errno, root::names, stat::Meta};

/// Bytes of an index line at most; a path of 4,096 bytes takes 8,192 hex digits and again as much text.
const LINE_BYTES: u64 = 64 * 1024;
/// Dead lines, in number, from which an index is written anew when they are more than the live ones.
const COMPACT_LINES: usize = 1_024;

/// Why a version is in history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Another version took its name.
    Replaced,
    /// Its name was removed.
    Removed,
    /// Found after a crash in the middle of a change.
    Recovered,
}

/// A version in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number, rising in the order of keeping.
    pub entry: u64,
    /// Its path then; empty where nobody knows it any more.
    pub path: Path,
    /// Its content, where known.
    pub content: Option<ContentId>,
    /// The text, where it is a symbolic link; such a version has no content file.
    pub target: Option<Vec<u8>>,
    /// Bytes.
    pub size: u64,
    /// Modification time then, in nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Whether it was executable.
    pub executable: bool,
    /// When it was kept.
    pub kept: Timestamp,
    /// Why it was kept.
    pub reason: Reason,
}

/// How long versions stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Versions older than this go.
    pub max_age: Duration,
    /// The oldest go until the rest is at most this many bytes.
    pub max_bytes: u64,
}

/// What is to be told of a version when it is kept.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// Its path.
    pub path: &'a [Name],
    /// Its content, where known.
    pub content: Option<ContentId>,
    /// Why it is kept.
    pub reason: Reason,
    /// When.
    pub now: Timestamp,
}

/// A version just kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub entry: u64,
    /// The file in the folder as it is after keeping: a new link changes its change time.
    pub after: Meta,
}

/// The history of one folder.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    files: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    index: File,
    next: u64,
    dead: usize,
    live: usize,
    /// The newest version of each content that is known by it.
    contents: BTreeMap<ContentId, u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "lowercase")]
enum Row {
    Kept(KeptRow),
    Dropped { entry: u64 },
}

#[derive(Serialize, Deserialize)]
struct KeptRow {
    entry: u64,
    /// For people who read the file; `names` is exact.
    path: String,
    names: Vec<String>,
    content: Option<String>,
    target: Option<String>,
    size: u64,
    modified_ns: i64,
    executable: bool,
    kept_us: u64,
    reason: Reason,
}

impl History {
    /// Opens the history of `object` beneath the node's directory `home`, making it where it is not.
    ///
    /// Contents that a crash left without a line get one, with an empty path.
    pub fn open(home: &FsPath, object: ObjectId, now: Timestamp) -> io::Result<Self> {
        let dir = home.join("history").join(object.to_string());
        fs::create_dir_all(dir.join("files"))?;
        let files = open(dir.join("files"), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut index = File::options().create(true).read(true).append(true).open(dir.join("index"))?;
        close_last_line(&mut index)?;
        let (rows, dead) = read_index(&index)?;
        let stored = stored_entries(&files)?;
        let next = 1 + rows.iter().map(|row| row.entry).chain(stored.iter().copied()).max().unwrap_or(0);
        let contents = rows.iter().filter_map(|row| Some((row.content?, row.entry))).collect();
        let state = State { index, next, dead, live: rows.len(), contents };
        let history = History { dir, files, state: Mutex::new(state) };
        let known: std::collections::BTreeSet<u64> = rows.iter().map(|row| row.entry).collect();
        for entry in stored.into_iter().filter(|entry| !known.contains(entry)) {
            history.adopt(entry, now)?;
        }
        Ok(history)
    }

    /// Keeps the file or link `name` of the open directory `dir`, which was seen as `meta`.
    ///
    /// `Errno::AGAIN` tells that it changed meanwhile and nothing was kept. Nothing is durable before
    /// [`History::sync`].
    pub fn keep(&self, dir: &OwnedFd, name: &[u8], meta: &Meta, from: &Provenance<'_>) -> Result<Held, Errno> {
        let entry = {
            let mut state = self.lock();
            state.next += 1;
            state.next - 1
        };
        let (target, after) = match meta.kind {
            FileType::Symlink => (Some(readlinkat(dir, name, Vec::new())?.into_bytes()), *meta),
            _ => (None, self.hold_content(entry, dir, name, meta)?),
        };
        let kept = Kept {
            entry,
            path: from.path.to_vec(),
            content: from.content,
            target,
            size: meta.fingerprint.size,
            modified_ns: meta.fingerprint.modified_ns,
            executable: meta.fingerprint.executable,
            kept: from.now,
            reason: from.reason,
        };
        if let Err(error) = self.append(&Row::Kept(to_row(&kept))) {
            let _ = unlinkat(&self.files, file_name(entry), AtFlags::empty());
            return Err(errno(&error));
        }
        let mut state = self.lock();
        state.live += 1;
        state.contents.extend(kept.content.map(|content| (content, entry)));
        Ok(Held { entry, after })
    }

    fn hold_content(&self, entry: u64, dir: &OwnedFd, name: &[u8], meta: &Meta) -> Result<Meta, Errno> {
        let held = file_name(entry);
        // A file with several names may be edited in place under another one: then only a copy lasts.
        if meta.links == 1 {
            match linkat(dir, name, &self.files, &held, AtFlags::empty()) {
                Ok(()) => {
                    let after = Meta::at(&self.files, held.as_bytes())?;
                    if after.same_content(meta) {
                        return Ok(after);
                    }
                    unlinkat(&self.files, &held, AtFlags::empty())?;
                    return Err(Errno::AGAIN);
                }
                Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(error),
            }
        }
        let copied = self.copy_content(&held, dir, name, meta);
        if copied.is_err() {
            let _ = unlinkat(&self.files, &held, AtFlags::empty());
        }
        copied.map(|()| *meta)
    }

    fn copy_content(&self, held: &str, dir: &OwnedFd, name: &[u8], meta: &Meta) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = openat(dir, name, flags, Mode::empty())?;
        if !Meta::of(&source)?.same_content(meta) {
            return Err(Errno::AGAIN);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut copy = File::from(openat(&self.files, held, flags, Mode::RUSR | Mode::WUSR)?);
        let mut source = File::from(source);
        if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
            io::copy(&mut source, &mut copy).map_err(|error| errno(&error))?;
        }
        copy.sync_all().map_err(|error| errno(&error))?;
        if Meta::of(&source)?.same_content(meta) { Ok(()) } else { Err(Errno::AGAIN) }
    }

    /// Takes back a version whose replacement did not come about.
    pub fn release(&self, entry: u64) -> Result<(), Errno> {
        self.drop_content(entry)?;
        self.append(&Row::Dropped { entry }).map_err(|error| errno(&error))?;
        let mut state = self.lock();
        state.live = state.live.saturating_sub(1);
        state.dead += 2;
        Ok(())
    }

    /// Makes durable what was kept.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.files)?;
        rustix::fs::fsync(&self.lock().index)
    }

    /// All versions, the oldest first.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let state = self.lock();
        Ok(read_index(&state.index)?.0)
    }

    /// The bytes of the newest version with a content; to be checked, as those of any version.
    pub fn find(&self, content: ContentId) -> Option<File> {
        let entry = self.lock().contents.get(&content).copied()?;
        self.content(entry).ok()
    }

    /// The bytes of a version. They are to be checked against its content id when they are used: a
    /// process that still had the replaced file open may have written to it.
    pub fn content(&self, entry: u64) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.files, file_name(entry), flags, Mode::empty())?))
    }

    /// Removes versions, as chosen by [`expired`].
    pub fn forget(&self, entries: &[u64]) -> io::Result<()> {
        for &entry in entries {
            self.release(entry)?;
        }
        let mut state = self.lock();
        state.contents.retain(|_, entry| !entries.contains(entry));
        if state.dead >= COMPACT_LINES && state.dead > state.live {
            return self.compact(state);
        }
        Ok(())
    }

    /// Writes the index anew with the live lines only.
    fn compact(&self, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        let (rows, _) = read_index(&state.index)?;
        let mut fresh = File::options().create(true).truncate(true).write(true).open(self.dir.join("index.new"))?;
        for row in &rows {
            fresh.write_all(&line(&Row::Kept(to_row(row)))?)?;
        }
        fresh.sync_all()?;
        renameat(CWD, self.dir.join("index.new"), CWD, self.dir.join("index"))?;
        File::open(&self.dir)?.sync_all()?;
        state.index = File::options().read(true).append(true).open(self.dir.join("index"))?;
        (state.live, state.dead) = (rows.len(), 0);
        Ok(())
    }

    fn adopt(&self, entry: u64, now: Timestamp) -> io::Result<()> {
        let meta = Meta::at(&self.files, file_name(entry).as_bytes())?;
        let kept = Kept {
            entry,
            path: Path::new(),
            content: None,
            target: None,
            size: meta.fingerprint.size,
            modified_ns: meta.fingerprint.modified_ns,
            executable: meta.fingerprint.executable,
            kept: now,
            reason: Reason::Recovered,
        };
        self.append(&Row::Kept(to_row(&kept)))?;
        self.lock().live += 1;
        Ok(())
    }

    fn drop_content(&self, entry: u64) -> Result<(), Errno> {
        match unlinkat(&self.files, file_name(entry), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn append(&self, row: &Row) -> io::Result<()> {
        let line = line(row)?;
        self.lock().index.write_all(&line)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The versions that retention gives up, the oldest first. Takes them in the order of keeping.
pub fn expired(versions: &[Kept], now: Timestamp, retention: &Retention) -> Vec<u64> {
    let mut over = versions.iter().map(|kept| kept.size).fold(0u64, u64::saturating_add);
    let mut gone = Vec::new();
    for kept in versions {
        if now - kept.kept > retention.max_age || over > retention.max_bytes {
            gone.push(kept.entry);
            over = over.saturating_sub(kept.size);
        }
    }
    gone
}

fn file_name(entry: u64) -> String {
    format!("{entry:016x}")
}

fn stored_entries(files: &OwnedFd) -> io::Result<Vec<u64>> {
    let found = names(files)?;
    Ok(found.iter().filter_map(|name| u64::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()).collect())
}

fn checksum(json: &[u8]) -> String {
    hex(&blake3::hash(json).as_bytes()[..8])
}

fn line(row: &Row) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(row)?;
    let mut line = checksum(&json).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// Ends a line that a crash tore, so that the next one stands alone.
fn close_last_line(index: &mut File) -> io::Result<()> {
    let length = index.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok(());
    }
    index.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    index.read_exact(&mut last)?;
    if last != *b"\n" { index.write_all(b"\n") } else { Ok(()) }
}

/// The live versions of an index in the order of keeping, and how many lines are dead.
fn read_index(index: &File) -> io::Result<(Vec<Kept>, usize)> {
    // The handle's own position is shared, and appending does not use it.
    let mut reader = BufReader::new(index);
    reader.seek(SeekFrom::Start(0))?;
    let mut live = BTreeMap::new();
    let mut lines = 0;
    let mut text = Vec::new();
    loop {
        text.clear();
        if reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        lines += 1;
        match parse(&text) {
            Some(Row::Kept(row)) => {
                if let Some(kept) = from_row(row) {
                    live.insert(kept.entry, kept);
                }
            }
            Some(Row::Dropped { entry }) => {
                live.remove(&entry);
            }
            None => {}
        }
    }
    let dead = lines - live.len().min(lines);
    Ok((live.into_values().collect(), dead))
}

fn parse(line: &[u8]) -> Option<Row> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = (line.get(..16)?, line.get(17..)?);
    if checksum(json).as_bytes() != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn to_row(kept: &Kept) -> KeptRow {
    let joined: Vec<String> =
        kept.path.iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect();
    KeptRow {
        entry: kept.entry,
        path: joined.join("/"),
        names: kept.path.iter().map(|name| hex(name.as_bytes())).collect(),
        content: kept.content.map(|id| id.to_string()),
        target: kept.target.as_deref().map(hex),
        size: kept.size,
        modified_ns: kept.modified_ns,
        executable: kept.executable,
        kept_us: kept.kept.as_micros(),
        reason: kept.reason,
    }
}

fn from_row(row: KeptRow) -> Option<Kept> {
    let path = row.names.iter().map(|name| Name::new(&unhex(name)?).ok()).collect::<Option<Path>>()?;
    Some(Kept {
        entry: row.entry,
        path,
        content: row.content.and_then(|text| text.parse().ok()),
        target: row.target.and_then(|text| unhex(&text)),
        size: row.size,
        modified_ns: row.modified_ns,
        executable: row.executable,
        kept: Timestamp(row.kept_us),
        reason: row.reason,
    })
}

#[cfg(test)]
mod tests;
