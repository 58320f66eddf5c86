//! Serving chunks from the files of a folder: there is no second copy of a current file.

use std::{fs::File, os::unix::fs::FileExt};

use meshwork_replica::feed::{ChunkRef, Name};
use rustix::io::Errno;

use super::{Convergence, cause, chunk, errno, root::FolderRoot};

/// Why a chunk could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file is not there or has other content now.
    #[error("the file changed or is gone")]
    Gone,
    /// There, but cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
}

impl From<Errno> for ReadError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO => ReadError::Gone,
            other => ReadError::Unreadable(cause(other)),
        }
    }
}

/// A file open for serving.
#[derive(Debug)]
pub struct Source(File);

impl Source {
    /// Opens the file at `path`.
    pub fn open(root: &FolderRoot, path: &[Name]) -> Result<Self, ReadError> {
        Ok(Source(root.open_file(path)?))
    }

    /// An already open file, such as a version in history.
    pub fn of(file: File) -> Self {
        Source(file)
    }

    /// The bytes of a chunk at an offset; nothing but exactly that chunk is ever given.
    pub fn chunk(&self, offset: u64, chunk: &ChunkRef, convergence: &Convergence<'_>) -> Result<Vec<u8>, ReadError> {
        let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
        if len > chunk::max_chunk(chunk::AVERAGE_MAX_LOG2) {
            return Err(ReadError::Gone);
        }
        let mut bytes = vec![0; len];
        match self.0.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(ReadError::Gone),
            Err(error) => return Err(errno(&error).into()),
        }
        if convergence(blake3::hash(&bytes).as_bytes()) == chunk.id { Ok(bytes) } else { Err(ReadError::Gone) }
    }
}

#[cfg(test)]
mod tests;
