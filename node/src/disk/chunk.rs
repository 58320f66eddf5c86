//! Cutting content into chunks, and listing them in manifests.
//!
//! Boundaries are FastCDC's (Xia and others, 2020; gear table of the `fastcdc` crate, normalisation
//! level 1) with a quarter of the average as minimum and four times the average as maximum. The
//! average, the table and the hash rules are part of the format: the vectors in the tests pin them.
//!
//! * plain hash of a chunk = BLAKE3 of its bytes; chunk id = keyed hash of that ([`Convergence`])
//! * content id = BLAKE3 of the plain hashes one after the other; an empty file has no chunk
//! * a manifest of more than [`INLINE_CHUNKS`] chunks is a list of pages, each cut after an entry whose
//!   id ends in seven zero bits or at [`PAGE_ENTRIES`]; the root page lists the ids of the pages

use std::io::{self, Read};

use fastcdc::v2020::{Normalization, cut, select_masks};
use meshwork_protocol::{
    codec::{self, DecodeError},
    id::{ChunkId, ContentId},
};
use meshwork_replica::feed::{ChunkRef, Manifest};

use super::Convergence;

/// Smallest average chunk: 64 KiB, as a power of two.
pub const AVERAGE_MIN_LOG2: u8 = 16;
/// Largest average chunk: 4 MiB, as a power of two.
pub const AVERAGE_MAX_LOG2: u8 = 22;
/// Chunks, in number, that a file is meant to have at most when its average is chosen.
pub const TARGET_CHUNKS: u64 = 8_192;
/// Chunks, in number, up to which a growing file keeps the average it had.
pub const GROWN_CHUNKS: u64 = 8 * TARGET_CHUNKS;
/// Chunks, in number, that a manifest lists inline.
pub const INLINE_CHUNKS: usize = 32;
/// Entries, in number, of one manifest page at most.
pub const PAGE_ENTRIES: usize = 1_024;
/// Bytes of an encoded page at most: an entry takes 40, and a root page of 2^20 chunks 9,000 ids.
pub const PAGE_BYTES: usize = 1 << 20;
/// Bytes that a chunk buffer holds beyond the largest chunk, at most.
const READ_AHEAD: usize = 4 << 20;

/// The power of two of the average chunk for a file of `size` bytes: as few bits as keep it near
/// [`TARGET_CHUNKS`] chunks, but `previous` while a file that grows stays below [`GROWN_CHUNKS`].
pub fn average_log2(size: u64, previous: Option<u8>) -> u8 {
    if let Some(previous) = previous.filter(|bits| (AVERAGE_MIN_LOG2..=AVERAGE_MAX_LOG2).contains(bits))
        && size >> previous <= GROWN_CHUNKS
    {
        return previous;
    }
    (AVERAGE_MIN_LOG2..AVERAGE_MAX_LOG2).find(|bits| size >> bits <= TARGET_CHUNKS).unwrap_or(AVERAGE_MAX_LOG2)
}

/// Bytes of the largest chunk for an average.
pub fn max_chunk(average_log2: u8) -> usize {
    4usize << average_log2.clamp(AVERAGE_MIN_LOG2, AVERAGE_MAX_LOG2)
}

/// The length of the first chunk of `bytes`, which are the rest of the file or at least
/// [`max_chunk`] of it.
pub fn first_cut(average_log2: u8, bytes: &[u8]) -> usize {
    let average = 1usize << average_log2.clamp(AVERAGE_MIN_LOG2, AVERAGE_MAX_LOG2);
    let (strict, loose) = select_masks(average, Normalization::Level1);
    cut(bytes, average / 4, average, average * 4, strict, loose, strict << 1, loose << 1).1
}

/// The hash of chunk hashes that names a whole content.
#[derive(Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Adds the plain hash of the next chunk.
    pub fn push(&mut self, plain: &[u8; 32]) {
        self.0.update(plain);
    }

    /// The content id of the chunks added.
    pub fn finish(&self) -> ContentId {
        ContentId(*self.0.finalize().as_bytes())
    }
}

/// The content of a file, cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Hash over the ordered plain hashes of the chunks.
    pub id: ContentId,
    /// Bytes in all.
    pub size: u64,
    /// The chunks in order.
    pub chunks: Vec<ChunkRef>,
}

/// Reads `reader` to its end and cuts it, hashing each byte once.
///
/// `capacity` is a guess of the size; memory stays below the largest chunk plus 4 MiB whatever the
/// reader gives.
pub fn cut_reader(
    reader: &mut impl Read,
    average_log2: u8,
    capacity: u64,
    convergence: &Convergence<'_>,
) -> io::Result<Content> {
    let largest = max_chunk(average_log2);
    let wanted = usize::try_from(capacity).unwrap_or(usize::MAX).saturating_add(1);
    let mut buffer = vec![0; wanted.min(largest + largest.min(READ_AHEAD))];
    let (mut start, mut end, mut ended) = (0, 0, false);
    let mut content = Content { id: ContentId([0; 32]), size: 0, chunks: Vec::new() };
    let mut hasher = ContentHasher::default();
    loop {
        if !ended && end - start < largest {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            if end == buffer.len() {
                buffer.resize((2 * buffer.len()).min(largest + largest.min(READ_AHEAD)), 0);
            }
            (end, ended) = fill(reader, &mut buffer, end, largest)?;
        }
        let window = &buffer[start..end];
        if window.is_empty() {
            break;
        }
        if !ended && window.len() < largest {
            continue;
        }
        let len = first_cut(average_log2, window);
        let plain = *blake3::hash(&window[..len]).as_bytes();
        hasher.push(&plain);
        content.chunks.push(ChunkRef { id: convergence(&plain), len: len as u32 });
        content.size += len as u64;
        start += len;
    }
    content.id = hasher.finish();
    Ok(content)
}

/// Reads until the buffer is full or the reader ends; gives the new end and whether it ended.
fn fill(reader: &mut impl Read, buffer: &mut [u8], mut end: usize, largest: usize) -> io::Result<(usize, bool)> {
    let full = buffer.len();
    while end < full {
        match reader.read(&mut buffer[end..full]) {
            Ok(0) => return Ok((end, true)),
            Ok(count) => end += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    debug_assert!(end <= largest + READ_AHEAD.max(largest));
    Ok((end, false))
}

/// A page of a manifest, to be stored and served like a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its id, by the same rule as a chunk's.
    pub id: ChunkId,
    /// Its canonical encoding.
    pub bytes: Vec<u8>,
}

/// The manifest of an ordered list of chunks, and the pages it refers to (the root page last).
pub fn manifest(average_log2: u8, chunks: Vec<ChunkRef>, convergence: &Convergence<'_>) -> (Manifest, Vec<Page>) {
    if chunks.len() <= INLINE_CHUNKS {
        return (Manifest::Inline { average_log2, chunks }, Vec::new());
    }
    let mut pages = Vec::new();
    let mut entries: Vec<ChunkRef> = Vec::new();
    let count = chunks.len() as u32;
    for chunk in chunks {
        let ends = chunk.id.0[31] & 0x7f == 0;
        entries.push(chunk);
        if ends || entries.len() == PAGE_ENTRIES {
            pages.push(page(&entries, convergence));
            entries.clear();
        }
    }
    if !entries.is_empty() {
        pages.push(page(&entries, convergence));
    }
    let ids: Vec<ChunkId> = pages.iter().map(|page| page.id).collect();
    let root = page(&ids, convergence);
    let manifest = Manifest::Paged { average_log2, root: root.id, chunks: count };
    pages.push(root);
    (manifest, pages)
}

fn page<T: serde::Serialize>(entries: &Vec<T>, convergence: &Convergence<'_>) -> Page {
    let bytes = codec::encode(entries);
    Page { id: convergence(blake3::hash(&bytes).as_bytes()), bytes }
}

/// The page ids in a root page.
pub fn root_entries(bytes: &[u8]) -> Result<Vec<ChunkId>, DecodeError> {
    codec::decode(bytes, PAGE_BYTES)
}

/// The chunks in a page.
pub fn page_entries(bytes: &[u8]) -> Result<Vec<ChunkRef>, DecodeError> {
    let entries: Vec<ChunkRef> = codec::decode(bytes, PAGE_BYTES)?;
    if entries.len() > PAGE_ENTRIES {
        return Err(DecodeError::Malformed);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
