//! What the system's events mean.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use meshwork_replica::{feed::Name, folder::observed::Path};
use notify::{
    ErrorKind, Event, EventHandler, EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};

use super::pending::{Shared, Urgency};
use crate::disk::root::HIDDEN;

/// Receives events on the watcher's own thread, and never waits there.
pub struct Handler {
    root: PathBuf,
    shared: Arc<Shared>,
}

impl Handler {
    /// For the folder at `root`.
    pub fn new(root: PathBuf, shared: Arc<Shared>) -> Self {
        Handler { root, shared }
    }

    fn path(&self, event: &FsPath) -> Option<Path> {
        let relative = event.strip_prefix(&self.root).ok()?;
        relative.iter().map(|name| Name::new(name.as_bytes()).ok()).collect()
    }

    fn event(&self, event: &Event) {
        if event.need_rescan() {
            return self.shared.rescan();
        }
        let Some(path) = event.paths.last() else {
            return;
        };
        let Some(path) = self.path(path) else {
            return self.shared.rescan();
        };
        if path.first().is_some_and(|name| name.as_bytes().starts_with(HIDDEN.as_bytes())) {
            return;
        }
        match &event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.change(path, Urgency::Now),
            EventKind::Access(_) => {}
            EventKind::Create(CreateKind::Folder) => self.shared.note_tree(path),
            EventKind::Create(_) => self.change(path, Urgency::Made),
            EventKind::Modify(ModifyKind::Data(_)) => self.change(path, Urgency::Writing),
            EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => self.arrived(path),
            EventKind::Modify(_) | EventKind::Remove(_) => self.change(path, Urgency::Now),
            EventKind::Any | EventKind::Other => self.shared.rescan(),
        }
    }

    fn change(&self, path: Path, urgency: Urgency) {
        if path.is_empty() {
            // The root itself: gone, or given other rights. What follows from it the reader finds out.
            return self.shared.rescan();
        }
        self.shared.note(path, urgency);
    }

    /// Something was renamed to `path`; only a look tells whether it is a directory.
    fn arrived(&self, path: Path) {
        if path.is_empty() {
            return self.shared.rescan();
        }
        let full =
            path.iter().fold(self.root.clone(), |at, name| at.join(std::ffi::OsStr::from_bytes(name.as_bytes())));
        if full.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            self.shared.note_tree(path);
        } else {
            self.shared.note(path, Urgency::Now);
        }
    }
}

impl EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) => self.event(&event),
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => self.shared.fall_back(&sentence(&error)),
            Err(error) => {
                tracing::warn!(%error, "the watcher reported an error; looking everywhere");
                self.shared.rescan();
            }
        }
    }
}

/// The reason of a watcher's error, for the user.
pub fn sentence(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the system's limit of watched directories is reached (sysctl fs.inotify.max_user_watches)".to_owned()
        }
        ErrorKind::Io(io) if io.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "the system's limit of watchers is reached (sysctl fs.inotify.max_user_instances)".to_owned()
        }
        _ => error.to_string(),
    }
}
