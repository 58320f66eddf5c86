//! Indices: ordered trees of small values, all of which can be lost without losing anything a user wrote.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::beside;

/// Largest value in bytes.
pub const MAX_VALUE: usize = 4095;
/// Largest key in bytes.
pub const MAX_KEY: usize = 4096;
/// Memory for cached pages in bytes.
const CACHE: u64 = 8 << 20;

/// Why an index could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// A key or value above its limit.
    #[error("index key or value too large")]
    TooLarge,
    /// The index holds something that it cannot.
    #[error("malformed value in the index")]
    Malformed,
    /// The database refused.
    #[error("index: {0}")]
    Database(String),
    /// The database broke while it worked.
    #[error("the index failed: {0}")]
    Broken(String),
}

/// Ordered trees of bytes, each with a name.
///
/// A write is visible at once and durable after [`Index::flush`]; a crash may take back the newest writes.
pub trait Index: Send + Sync {
    /// Puts all items, or none of them.
    fn put_many(&self, tree: &str, items: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), IndexError>;
    /// Puts the items that have a value and removes the others: all of them, or none.
    fn change_many(&self, tree: &str, items: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), IndexError>;
    /// The value of a key.
    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// Removes all keys, or none of them; one that is not there is ignored.
    fn remove_many(&self, tree: &str, keys: Vec<Vec<u8>>) -> Result<(), IndexError>;
    /// Shows `visit` the items whose keys start with `prefix`, in order, until it answers `false`.
    fn scan_prefix(
        &self,
        tree: &str,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError>;
    /// Shows `visit` the items whose keys are at least `from` and below `to`, in order, until it answers `false`.
    fn scan_range(
        &self,
        tree: &str,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError>;
    /// Removes everything in a tree.
    fn clear(&self, tree: &str) -> Result<(), IndexError>;
    /// Makes all writes so far durable.
    fn flush(&self) -> Result<(), IndexError>;
}

/// What sled says when another handle of the same database is open.
const LOCKED: &str = "could not acquire lock";
/// How long a database that was closed may take to let go of its file.
const UNLOCK: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// An index in a sled database.
pub struct SledIndex {
    database: sled::Db,
    /// Written to since the last flush.
    dirty: AtomicBool,
}

impl SledIndex {
    /// Opens the database in `path`; one that does not open is replaced (see [`SledIndex::replace`]).
    ///
    /// The second value tells whether that happened.
    pub fn open(path: &Path) -> Result<(SledIndex, bool), IndexError> {
        match Self::try_open(path) {
            Ok(index) => Ok((index, false)),
            Err(error) => {
                tracing::error!(%error, "the index does not open");
                Ok((Self::replace(path)?, true))
            }
        }
    }

    /// Moves the database to `<path>.broken` and begins an empty one.
    pub fn replace(path: &Path) -> Result<SledIndex, IndexError> {
        tracing::error!("the index is moved aside and built anew from the log");
        let aside = beside(path, ".broken");
        let moved = std::fs::remove_dir_all(&aside)
            .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .and_then(|()| std::fs::rename(path, &aside));
        moved.map_err(|error| IndexError::Database(format!("cannot move it aside: {error}")))?;
        Self::try_open(path)
    }

    fn try_open(path: &Path) -> Result<SledIndex, IndexError> {
        // Without a flush interval sled starts no flusher, so that a node which has nothing to do writes nothing.
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None);
        let end = Instant::now() + UNLOCK;
        loop {
            match guarded(|| config.open()) {
                // The home is ours, so it is a database of this process whose threads have not ended yet.
                Err(IndexError::Database(error)) if error.contains(LOCKED) && Instant::now() < end => {
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(error),
                Ok(database) => return Ok(SledIndex { database, dirty: AtomicBool::new(false) }),
            }
        }
    }

    fn batch(&self, tree: &str, batch: sled::Batch) -> Result<(), IndexError> {
        self.dirty.store(true, Ordering::Relaxed);
        guarded(move || self.database.open_tree(tree)?.apply_batch(batch))
    }
}

impl Index for SledIndex {
    fn put_many(&self, tree: &str, items: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), IndexError> {
        self.change_many(tree, items.into_iter().map(|(key, value)| (key, Some(value))).collect())
    }

    fn change_many(&self, tree: &str, items: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (key, value) in items {
            if key.len() > MAX_KEY || value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
                return Err(IndexError::TooLarge);
            }
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.batch(tree, batch)
    }

    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        guarded(|| Ok(self.database.open_tree(tree)?.get(key)?.map(|value| value.to_vec())))
    }

    fn remove_many(&self, tree: &str, keys: Vec<Vec<u8>>) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        keys.into_iter().for_each(|key| batch.remove(key));
        self.batch(tree, batch)
    }

    fn scan_prefix(
        &self,
        tree: &str,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        guarded(|| show(self.database.open_tree(tree)?.scan_prefix(prefix), visit))
    }

    fn scan_range(
        &self,
        tree: &str,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        guarded(|| show(self.database.open_tree(tree)?.range(from..to), visit))
    }

    fn clear(&self, tree: &str) -> Result<(), IndexError> {
        self.dirty.store(true, Ordering::Relaxed);
        guarded(|| self.database.open_tree(tree)?.clear())
    }

    fn flush(&self) -> Result<(), IndexError> {
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let flushed = guarded(|| self.database.flush().map(|_| ()));
        self.dirty.fetch_or(flushed.is_err(), Ordering::Relaxed);
        flushed
    }
}

fn show(items: sled::Iter, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> sled::Result<()> {
    for item in items {
        let (key, value) = item?;
        if !visit(&key, &value) {
            break;
        }
    }
    Ok(())
}

/// sled panics on some damaged files instead of answering with an error.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| IndexError::Database(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(IndexError::Broken(text.unwrap_or_default()))
        }
    }
}
