//! Reading segments from beginning to end, and mending them.
//!
//! Groups are made durable one after the other, so only the last group of the last segment can be unfinished. A bad
//! stretch is therefore an unfinished write when no readable entry of a later group follows it, and damage otherwise.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use super::{Damage, Found, Opened, Reader, Segments, Torn, read_header, segment_path};
use crate::store::{
    Entry, StoreError, beside,
    segment::{ENTRY_OVERHEAD, HEAD_LEN, HEADER_LEN, Head, HeaderFault, Parsed, Seal},
    sync_dir,
};

const READ_BUFFER: usize = 256 << 10;
/// Most bytes hashed while a damaged segment is searched; reached only when bytes were made to look like entries.
const SEARCH_BUDGET: usize = 4 << 30;

/// Finishes, or undoes, a replacement of a segment that was interrupted.
pub fn finish_replacements(dir: &Path) -> Result<(), StoreError> {
    let act = StoreError::io("finish replacing a segment");
    let work = || -> io::Result<()> {
        for file in std::fs::read_dir(dir)? {
            let new = file?.path();
            if new.extension().is_none_or(|extension| extension != "new") {
                continue;
            }
            let segment = new.with_extension("");
            if segment.exists() {
                std::fs::remove_file(&new)?;
            } else {
                std::fs::rename(&new, &segment)?;
            }
        }
        Ok(())
    };
    work().map_err(act)
}

/// The salt that the log's segments share, from the first header that can be read.
pub fn find_salt(dir: &Path, numbers: &[u32]) -> Result<Option<[u8; 16]>, StoreError> {
    let mut salt = None;
    for number in numbers {
        let file = File::open(segment_path(dir, *number)).map_err(StoreError::io("read a log segment"))?;
        match read_header(&file)? {
            Ok(seal) => salt = salt.or(Some(seal.salt)),
            Err(HeaderFault::Version(version)) => {
                return Err(StoreError::NewerFormat { segment: *number, version });
            }
            Err(HeaderFault::Damaged) => {}
        }
    }
    Ok(salt)
}

/// Moves segments aside of which not one has a header: without the salt no entry of theirs can be told from noise.
pub fn set_headless_aside(dir: &Path, numbers: &[u32], found: &mut Found) -> Result<(), StoreError> {
    for number in numbers {
        let path = segment_path(dir, *number);
        let len = path.metadata().map_or(0, |metadata| metadata.len());
        if len > HEADER_LEN as u64 {
            found.damage.push(Damage { segment: *number, offset: 0, len: len.try_into().unwrap_or(u32::MAX) });
            let moved = std::fs::rename(&path, beside(&path, ".damaged"));
            moved.map_err(StoreError::io("move a damaged segment aside"))?;
        } else {
            std::fs::remove_file(&path).map_err(StoreError::io("remove an empty segment"))?;
        }
    }
    sync_dir(dir)
}

/// Reads one segment, mends it, and shows `visit` its entries; answers its length, or `None` when it must be begun anew.
pub fn check_segment(
    reader: &Reader,
    number: u32,
    newest: bool,
    found: &mut Found,
    visit: &mut dyn FnMut(Entry),
) -> Result<Option<u32>, StoreError> {
    let segments = &*reader.0;
    let Some(opened) = segments.open(number)? else { return Ok(None) };
    let mut walk = Walk::begin(opened)?;
    let (seal, headless) = (walk.seal, walk.headless);
    if headless && walk.len <= HEADER_LEN as u32 {
        if !newest {
            set_headless_aside(&segments.dir, &[number], found)?;
        }
        return Ok(None);
    }
    let mut group = 0;
    while let Some(parsed) = walk.next()? {
        group = parsed.group;
        parsed.entry.into_iter().for_each(&mut *visit);
    }
    let (bad, len) = (walk.offset, walk.len);
    drop(walk);
    if bad == len && !headless {
        return Ok(Some(len));
    }
    let bytes = std::fs::read(segments.path(number)).map_err(StoreError::io("read a log segment"))?;
    let Search { entries, holes, end } = search(&seal, &bytes, bad, group, newest);
    entries.into_iter().filter_map(|parsed| parsed.entry).for_each(visit);
    let mut lost = holes.clone();
    if headless {
        lost.push((0, HEADER_LEN as u32));
    }
    if newest && end < len {
        segments.keep_aside(number, ".torn", &bytes[end as usize..])?;
        let len = len - end;
        found.torn = Some(Torn { segment: number, offset: end, len });
    } else if end < len {
        lost.push((end, len));
    }
    if lost.is_empty() {
        cut(segments, number, end)?;
    } else {
        replace(segments, &seal, bytes, end, &holes)?;
    }
    let damage = |(from, to)| Damage { segment: number, offset: from, len: to - from };
    found.damage.extend(lost.into_iter().map(damage));
    Ok(Some(end))
}

/// Cuts a segment to its first `end` bytes.
fn cut(segments: &Segments, number: u32, end: u32) -> Result<(), StoreError> {
    let open = File::options().write(true).open(segments.path(number));
    let cut = open.and_then(|file| {
        file.set_len(u64::from(end))?;
        file.sync_all()
    });
    cut.map_err(StoreError::io("cut an unfinished write off the log"))
}

/// Puts a segment of the first `end` of `bytes`, with filler in the place of its holes, where the damaged one was.
fn replace(
    segments: &Segments,
    seal: &Seal,
    mut bytes: Vec<u8>,
    end: u32,
    holes: &[(u32, u32)],
) -> Result<(), StoreError> {
    let path = segments.path(seal.number);
    bytes.truncate(end as usize);
    bytes[..HEADER_LEN].copy_from_slice(&seal.header());
    for (from, to) in holes {
        bytes[*from as usize..*to as usize].copy_from_slice(&seal.filler(*from, to - from));
    }
    let new = beside(&path, ".new");
    let replaced = std::fs::write(&new, &bytes)
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| std::fs::rename(&path, beside(&path, ".damaged")))
        .and_then(|()| std::fs::rename(&new, &path));
    replaced.map_err(StoreError::io("replace a damaged segment"))?;
    segments.forget(seal.number);
    sync_dir(&segments.dir)
}

/// What is readable behind a bad stretch.
struct Search {
    entries: Vec<Parsed>,
    /// Stretches [from, to) that were durable once and cannot be read.
    holes: Vec<(u32, u32)>,
    /// Where the segment ends.
    end: u32,
}

/// Looks for entries from `bad` on, where the last entry before belongs to the group that began at `group`.
fn search(seal: &Seal, bytes: &[u8], bad: u32, group: u32, newest: bool) -> Search {
    let mut readable: Vec<(u32, u32, Parsed)> = Vec::new();
    let mut budget = SEARCH_BUDGET;
    let mut at = bad as usize;
    while at + ENTRY_OVERHEAD <= bytes.len() && budget > 0 {
        let candidate = Head::parse(&bytes[at..]).and_then(|head| bytes.get(at..at + head.total()));
        budget -= candidate.map_or(0, <[u8]>::len).min(budget);
        match candidate.and_then(|whole| Some((whole.len(), seal.read(at as u32, whole)?))) {
            Some((len, parsed)) => {
                readable.push((at as u32, (at + len) as u32, parsed));
                at += len;
            }
            None => at += 1,
        }
    }
    // Everything before the newest group that left an entry was durable; in a segment that is not the newest, all.
    let last_group = readable.iter().map(|(_, _, parsed)| parsed.group).max().unwrap_or(group).max(group);
    let durable = if newest { last_group } else { bytes.len() as u32 };
    let mut found = Search { entries: Vec::new(), holes: Vec::new(), end: bad };
    for (from, to, parsed) in readable {
        if from > found.end {
            // Here a stretch is missing: up to where durability is proven it is a hole, from there on unfinished.
            if found.end >= durable {
                return found;
            }
            let hole_end = from.min(durable);
            found.holes.push((found.end, hole_end));
            found.end = hole_end;
            if hole_end < from {
                return found;
            }
        }
        found.end = to;
        found.entries.push(parsed);
    }
    found
}

/// Reads the entries of one segment in order, up to the first bytes that are none.
pub(super) struct Walk {
    input: BufReader<File>,
    pub(super) seal: Seal,
    /// Whether the header cannot be read.
    headless: bool,
    pub(super) offset: u32,
    pub(super) len: u32,
    bytes: Vec<u8>,
}

impl Walk {
    pub(super) fn begin(opened: Opened) -> Result<Walk, StoreError> {
        let begin = || {
            let len = opened.file.metadata()?.len().try_into().unwrap_or(u32::MAX);
            let mut input = BufReader::with_capacity(READ_BUFFER, opened.file);
            input.seek_relative(HEADER_LEN as i64)?;
            let (seal, headless) = (opened.seal, !opened.whole);
            Ok(Walk { input, seal, headless, offset: HEADER_LEN as u32, len, bytes: Vec::new() })
        };
        begin().map_err(StoreError::io("read a log segment"))
    }

    /// The next entry; `None` at the end and at bytes that are no entry, `offset` being where those begin.
    pub(super) fn next(&mut self) -> Result<Option<Parsed>, StoreError> {
        let left = (self.len as usize).saturating_sub(self.offset as usize);
        if left < ENTRY_OVERHEAD {
            return Ok(None);
        }
        self.fill(HEAD_LEN, 0)?;
        let Some(total) = Head::parse(&self.bytes).map(|head| head.total()).filter(|total| *total <= left) else {
            return Ok(None);
        };
        self.fill(total, HEAD_LEN)?;
        let parsed = self.seal.read(self.offset, &self.bytes);
        if parsed.is_some() {
            self.offset += total as u32;
        }
        Ok(parsed)
    }

    fn fill(&mut self, len: usize, from: usize) -> Result<(), StoreError> {
        self.bytes.resize(len, 0);
        self.input.read_exact(&mut self.bytes[from..]).map_err(StoreError::io("read a log segment"))
    }
}

/// All entries of the log in order; see [`Reader::scan`].
pub struct Scan {
    reader: Reader,
    numbers: std::vec::IntoIter<u32>,
    walk: Option<Walk>,
}

impl Scan {
    pub(super) fn new(reader: Reader, numbers: Vec<u32>) -> Scan {
        Scan { reader, numbers: numbers.into_iter(), walk: None }
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(walk) = &mut self.walk else {
                // A segment that is not there any more held nothing but what was forgotten.
                let opened = self.reader.0.open(self.numbers.next()?);
                match opened.and_then(|opened| opened.map(Walk::begin).transpose()) {
                    Ok(walk) => self.walk = walk,
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match walk.next() {
                Ok(Some(Parsed { entry: Some(entry), .. })) => return Some(Ok(entry)),
                Ok(Some(_)) => {}
                Ok(None) => {
                    let ended = walk.offset == walk.len;
                    let damaged = StoreError::Damaged { segment: walk.seal.number, offset: walk.offset };
                    self.walk = None;
                    if !ended {
                        return Some(Err(damaged));
                    }
                }
                Err(error) => {
                    self.walk = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
