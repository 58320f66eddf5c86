//! Making a batch durable: file by file where there are few, by the whole file system where many.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use meshwork_replica::folder::observed::DirIdentity;
use rustix::{
    fs::{FileType, Mode, OFlags, fsync, openat, syncfs},
    io::Errno,
};

use super::{Context, open_temp, stage::Stage};
use crate::disk::{history::Held, root::FolderRoot, stat::Meta};

/// Files or directories, in number, that are flushed one by one.
const FLUSH_EACH: usize = 4;

/// Flushes what is staged and what history holds for the batch.
pub fn flush(context: &Context<'_>, stage: &Stage, held: &[Option<Held>]) -> Result<(), Errno> {
    let files: Vec<_> =
        stage.iter().flatten().flatten().filter(|staged| staged.meta.kind == FileType::RegularFile).collect();
    if files.len() > FLUSH_EACH {
        syncfs(context.root.temp())?;
    } else {
        for staged in files {
            fsync(open_temp(context.root, &staged.name)?)?;
        }
    }
    if held.iter().any(Option::is_some) { context.history.sync() } else { Ok(()) }
}

/// The directories a batch has changed.
#[derive(Debug, Default)]
pub struct Touched {
    dirs: BTreeMap<DirIdentity, OwnedFd>,
    many: bool,
}

impl Touched {
    /// Notes a directory.
    pub fn add(&mut self, dir: &OwnedFd) {
        if self.many {
            return;
        }
        let Ok(meta) = Meta::of(dir) else {
            self.many = true;
            return;
        };
        if self.dirs.contains_key(&meta.identity) {
            return;
        }
        // A descriptor that only names a directory cannot flush it; one that may not be listed cannot
        // be opened for it either.
        let opened = openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        match opened {
            Ok(opened) if self.dirs.len() < FLUSH_EACH => {
                self.dirs.insert(meta.identity, opened);
            }
            _ => {
                self.many = true;
                self.dirs.clear();
            }
        }
    }

    /// Flushes them.
    pub fn sync(&self, root: &FolderRoot) -> Result<(), Errno> {
        if self.many {
            return syncfs(root.temp());
        }
        self.dirs.values().try_for_each(fsync)
    }
}
