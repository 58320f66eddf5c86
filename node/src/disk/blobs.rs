//! Chunks that are in no current file: manifest pages and the like, one plain file each by id.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path as FsPath, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use meshwork_protocol::id::ChunkId;

use super::{Convergence, chunk};

/// Files, in number, that are flushed one by one; more are flushed with the whole file system.
const FLUSH_EACH: usize = 8;

/// Files by chunk id.
#[derive(Debug)]
pub struct BlobStore {
    dir: PathBuf,
    handle: File,
    drafts: AtomicU64,
    written: Mutex<Written>,
}

/// What was put since the last flush.
#[derive(Debug, Default)]
struct Written {
    files: Vec<File>,
    paths: Vec<PathBuf>,
}

impl BlobStore {
    /// Opens the store in `home/blobs`, making it where it is not. Unfinished files of earlier runs go.
    pub fn open(home: &FsPath) -> io::Result<Self> {
        let dir = home.join("blobs");
        let drafts = dir.join("new");
        if drafts.exists() {
            fs::remove_dir_all(&drafts)?;
        }
        fs::create_dir_all(&drafts)?;
        let handle = File::open(&dir)?;
        Ok(BlobStore { dir, handle, drafts: AtomicU64::new(0), written: Mutex::default() })
    }

    /// Stores the bytes of a chunk whose id the caller has verified. Durable after [`BlobStore::sync`].
    pub fn put(&self, id: ChunkId, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(id);
        // Read, not only looked for: a power cut may have torn what was put and not flushed.
        if fs::read(&path).is_ok_and(|stored| stored == bytes) {
            return Ok(());
        }
        let draft = self.dir.join("new").join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string());
        let mut file = File::create_new(&draft)?;
        let moved = file.write_all(bytes).and_then(|()| {
            let shard = path.parent().unwrap_or(&self.dir);
            fs::create_dir_all(shard)?;
            fs::rename(&draft, &path)
        });
        if let Err(error) = moved {
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.paths.push(path);
        if written.files.len() < FLUSH_EACH {
            written.files.push(file);
        }
        Ok(())
    }

    /// Makes durable all that was put so far. After an error, what was put since the last success must
    /// be put again: its files are gone.
    pub fn sync(&self) -> io::Result<()> {
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        self.flush(&written).inspect_err(|_| {
            for path in &written.paths {
                let _ = fs::remove_file(path);
            }
        })
    }

    fn flush(&self, written: &Written) -> io::Result<()> {
        if written.paths.is_empty() {
            return Ok(());
        }
        if written.paths.len() > written.files.len() {
            return Ok(rustix::fs::syncfs(&self.handle)?);
        }
        for (file, path) in written.files.iter().zip(&written.paths) {
            file.sync_all()?;
            if let Some(shard) = path.parent() {
                File::open(shard)?.sync_all()?;
            }
        }
        self.handle.sync_all()
    }

    /// The bytes of a chunk, verified; what is damaged is removed and counts as absent.
    pub fn get(&self, id: ChunkId, convergence: &Convergence<'_>) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(id);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(chunk::max_chunk(chunk::AVERAGE_MAX_LOG2) as u64 + 1).read_to_end(&mut bytes)?;
        if convergence(blake3::hash(&bytes).as_bytes()) == id {
            return Ok(Some(bytes));
        }
        fs::remove_file(&path)?;
        Ok(None)
    }

    /// Whether there is a file of this id; only reading tells whether it is whole.
    pub fn has(&self, id: ChunkId) -> bool {
        self.path(id).exists()
    }

    /// Removes a chunk that nothing refers to any more.
    pub fn remove(&self, id: ChunkId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, id: ChunkId) -> PathBuf {
        let text = id.to_string();
        let shard = text.get(..2).unwrap_or_default();
        self.dir.join(shard).join(&text)
    }
}

#[cfg(test)]
mod tests;
