//! Files on their way in: written at any position, verified chunk by chunk, resumed after a stop.

use std::{fs::File, io, os::unix::fs::FileExt};

use meshwork_protocol::id::ContentId;
use meshwork_replica::feed::ChunkRef;
use rustix::{
    fs::{AtFlags, Mode, OFlags, openat, unlinkat},
    io::Errno,
};

use super::{Convergence, chunk::ContentHasher, errno, root::FolderRoot, stat::Meta};

/// Bytes of a run of zeros that is left out of the file as a hole.
const HOLE_BYTES: usize = 64 * 1024;

/// Why a chunk was not taken, or a file not finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IncomingError {
    /// The bytes are not those of the chunk.
    #[error("the bytes received are not those of the chunk")]
    WrongChunk,
    /// The file has no chunk of this number.
    #[error("the file has no such chunk")]
    NoSuchChunk,
    /// Some chunks are not there yet.
    #[error("{0} chunks are still missing")]
    Incomplete(usize),
    /// All chunks are there, but together they are not the content they were listed for.
    #[error("the chunks do not make up the content they were listed for")]
    WrongContent,
    /// The disk refused.
    #[error("the incoming file could not be written: {0}")]
    Disk(Errno),
}

/// The name of an incoming file among the folder's own.
pub(crate) fn part_name(content: ContentId) -> String {
    format!("{content}.part")
}

/// A file on its way in.
#[derive(Debug)]
pub struct Incoming {
    file: File,
    content: ContentId,
    chunks: Vec<ChunkRef>,
    offsets: Vec<u64>,
    plain: Vec<Option<[u8; 32]>>,
    /// Nothing but holes and what was written here is in the file.
    fresh: bool,
}

impl Incoming {
    /// Opens the incoming file of `content`, made of `chunks` in order. What an earlier run left in it
    /// is read, and the chunks that are whole are kept.
    pub fn open(
        root: &FolderRoot,
        content: ContentId,
        chunks: Vec<ChunkRef>,
        convergence: &Convergence<'_>,
    ) -> Result<Self, IncomingError> {
        let offsets: Vec<u64> = chunks
            .iter()
            .scan(0u64, |at, chunk| {
                let offset = *at;
                *at = at.saturating_add(u64::from(chunk.len));
                Some(offset)
            })
            .collect();
        let size = chunks.iter().map(|chunk| u64::from(chunk.len)).fold(0, u64::saturating_add);
        let (file, fresh) = open_part(root, content).map_err(IncomingError::Disk)?;
        let plain = vec![None; chunks.len()];
        let mut incoming = Incoming { file, content, chunks, offsets, plain, fresh };
        let disk = |error: io::Error| IncomingError::Disk(errno(&error));
        if !fresh {
            incoming.resume(convergence).map_err(disk)?;
        }
        incoming.file.set_len(size).map_err(disk)?;
        Ok(incoming)
    }

    /// The numbers of the chunks that are not there yet.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        self.plain.iter().enumerate().filter(|(_, plain)| plain.is_none()).map(|(number, _)| number)
    }

    /// The chunks in order.
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// Verifies the bytes of chunk `number` and writes them.
    pub fn write(&mut self, number: usize, bytes: &[u8], convergence: &Convergence<'_>) -> Result<(), IncomingError> {
        let (Some(chunk), Some(&offset)) = (self.chunks.get(number), self.offsets.get(number)) else {
            return Err(IncomingError::NoSuchChunk);
        };
        let plain = *blake3::hash(bytes).as_bytes();
        if u64::from(chunk.len) != bytes.len() as u64 || convergence(&plain) != chunk.id {
            return Err(IncomingError::WrongChunk);
        }
        self.write_at(bytes, offset).map_err(|error| IncomingError::Disk(errno(&error)))?;
        if let Some(slot) = self.plain.get_mut(number) {
            *slot = Some(plain);
        }
        Ok(())
    }

    /// Checks that all chunks are there and are the whole content. The file then waits for
    /// [`super::place::place`]; nothing is durable yet.
    pub fn finish(self) -> Result<(), IncomingError> {
        let missing = self.missing().count();
        if missing > 0 {
            return Err(IncomingError::Incomplete(missing));
        }
        let mut hasher = ContentHasher::default();
        self.plain.iter().flatten().for_each(|plain| hasher.push(plain));
        if hasher.finish() == self.content { Ok(()) } else { Err(IncomingError::WrongContent) }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.fresh {
            return self.file.write_all_at(bytes, offset);
        }
        let mut at = offset;
        let mut pending: Option<(u64, usize, usize)> = None;
        for (number, block) in bytes.chunks(HOLE_BYTES).enumerate() {
            let start = number * HOLE_BYTES;
            if is_zero(block) {
                self.flush_run(bytes, pending.take())?;
            } else {
                let (first, from) = pending.map_or((at, start), |(first, from, _)| (first, from));
                pending = Some((first, from, start + block.len()));
            }
            at += block.len() as u64;
        }
        self.flush_run(bytes, pending)
    }

    fn flush_run(&self, bytes: &[u8], run: Option<(u64, usize, usize)>) -> io::Result<()> {
        match run.and_then(|(at, from, to)| Some((at, bytes.get(from..to)?))) {
            Some((at, run)) => self.file.write_all_at(run, at),
            None => Ok(()),
        }
    }

    /// Reads what is in the file already and marks the whole chunks.
    fn resume(&mut self, convergence: &Convergence<'_>) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut buffer = Vec::new();
        for ((chunk, &offset), plain) in self.chunks.iter().zip(&self.offsets).zip(&mut self.plain) {
            if offset.saturating_add(u64::from(chunk.len)) > length {
                break;
            }
            buffer.resize(chunk.len as usize, 0);
            self.file.read_exact_at(&mut buffer, offset)?;
            let hash = *blake3::hash(&buffer).as_bytes();
            *plain = (convergence(&hash) == chunk.id).then_some(hash);
        }
        Ok(())
    }
}

/// Gives up an incoming file.
pub fn discard(root: &FolderRoot, content: ContentId) -> Result<(), Errno> {
    match unlinkat(root.temp(), part_name(content), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn open_part(root: &FolderRoot, content: ContentId) -> Result<(File, bool), Errno> {
    let name = part_name(content);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(root.temp(), &name, flags, Mode::empty()) {
        Ok(part) => {
            let meta = Meta::of(&part)?;
            // A second link could be a version in history: writing here would change it.
            if meta.links == 1 && super::stat::is_regular(&part)? {
                return Ok((File::from(part), false));
            }
            unlinkat(root.temp(), &name, AtFlags::empty())?;
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    // Readable by others as the user's mask says; the directory around it is closed until it is placed.
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    Ok((File::from(openat(root.temp(), &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?), true))
}

fn is_zero(block: &[u8]) -> bool {
    let (words, tail) = block.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
