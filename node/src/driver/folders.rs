//! Folders with a place on this device: their roots, watchers, and the jobs at the disk.

use std::{collections::BTreeMap, fs, io, path::PathBuf, sync::Arc};

use meshwork_protocol::{id::ObjectId, seal::Convergence};
use meshwork_replica::{
    folder::{
        self, ToHash,
        observed::{Batch, Hashed, ListError, Path},
    },
    replica::{Input, Replica},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Driver, Event, rows};
use crate::{
    clock,
    disk::{
        blobs::BlobStore,
        hash,
        history::History,
        list::list,
        place,
        root::FolderRoot,
        watch::{Report, Watch},
    },
    store::StoreError,
};

/// The file in the home that says which folders are where.
const PLACES: &str = "folders.json";

/// A folder's place, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Its object, in hex.
    pub object: String,
    /// The directory.
    pub path: PathBuf,
}

/// What the jobs of one folder need.
#[derive(Clone)]
pub(crate) struct Shelf {
    /// The directory.
    pub root: Arc<FolderRoot>,
    /// What was replaced or removed there.
    pub history: Arc<History>,
    /// The secret behind its chunk ids.
    pub convergence: Convergence,
}

struct Mapped {
    path: PathBuf,
    shelf: Option<Shelf>,
    watch: Option<Watch>,
}

/// The folders of a node that have a place on its disk.
pub(crate) struct Folders {
    home: PathBuf,
    events: mpsc::Sender<Event>,
    mapped: BTreeMap<ObjectId, Mapped>,
}

impl Folders {
    /// Reads which folders are where; nothing is opened yet.
    pub fn load(home: PathBuf, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let text = match fs::read(home.join(PLACES)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"[]".to_vec(),
            Err(error) => return Err(error),
        };
        let places: Vec<Place> = serde_json::from_slice(&text).map_err(io::Error::other)?;
        let mut mapped = BTreeMap::new();
        for place in places {
            let object = place.object.parse().map_err(io::Error::other)?;
            mapped.insert(object, Mapped { path: place.path, shelf: None, watch: None });
        }
        Ok(Folders { home, events, mapped })
    }

    fn save(&self) -> io::Result<()> {
        let places: Vec<Place> = self
            .mapped
            .iter()
            .map(|(object, mapped)| Place { object: object.to_string(), path: mapped.path.clone() })
            .collect();
        let text = serde_json::to_vec_pretty(&places).map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.home)?;
        io::Write::write_all(&mut file, &text)?;
        file.as_file().sync_all()?;
        file.persist(self.home.join(PLACES)).map_err(|error| error.error)?;
        fs::File::open(&self.home)?.sync_all()
    }

    /// Objects that have a place here.
    pub fn objects(&self) -> Vec<ObjectId> {
        self.mapped.keys().copied().collect()
    }

    /// The directory of a folder.
    pub fn path(&self, object: ObjectId) -> Option<&PathBuf> {
        self.mapped.get(&object).map(|mapped| &mapped.path)
    }

    /// All directories of folders.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.mapped.values().map(|mapped| mapped.path.clone()).collect()
    }

    /// What it takes to read the contents of all folders that are open.
    pub fn shelves(&self) -> BTreeMap<ObjectId, Shelf> {
        let open = self.mapped.iter().filter_map(|(object, mapped)| Some((*object, mapped.shelf.clone()?)));
        open.collect()
    }

    /// What it takes to read the contents of a folder that is open.
    pub fn shelf(&self, object: ObjectId) -> Option<Shelf> {
        self.mapped.get(&object)?.shelf.clone()
    }

    /// Gives a folder the place whose marker was just made.
    pub fn add(&mut self, object: ObjectId, root: FolderRoot) -> io::Result<()> {
        let path = root.path().to_owned();
        drop(root);
        self.mapped.insert(object, Mapped { path, shelf: None, watch: None });
        self.save()
    }

    /// Opens a folder's root and watches it; what does not open is tried again later.
    pub fn open(&mut self, object: ObjectId, convergence: Option<&Convergence>) {
        let Some(mapped) = self.mapped.get_mut(&object) else {
            return;
        };
        let Some(convergence) = convergence else { return };
        if mapped.shelf.is_some() {
            return;
        }
        let opened = FolderRoot::open(&mapped.path, object).map_err(|error| error.to_string());
        let opened = opened.and_then(|root| {
            let history = History::open(&self.home, object, clock::now()).map_err(|error| error.to_string())?;
            if let Err(error) = place::recover(&root, &history, clock::now()) {
                tracing::warn!(folder = %object.short(), %error, "what an earlier run left could not be put back");
            }
            Ok((Arc::new(root), Arc::new(history)))
        });
        match opened {
            Ok((root, history)) => {
                match Watch::start(root.path()) {
                    Ok((watch, reports)) => {
                        mapped.watch = Some(watch);
                        tokio::spawn(forward(object, reports, self.events.clone()));
                    }
                    Err(error) => tracing::error!(%error, "a folder cannot be watched"),
                }
                mapped.shelf = Some(Shelf { root, history, convergence: convergence.clone() });
            }
            Err(reason) => tracing::warn!(folder = %object.short(), reason, "a folder cannot be opened"),
        }
    }

    /// Takes the secret of a folder whose key came after it was given a place.
    pub fn remember_convergence(&mut self, object: ObjectId, replica: Option<&Replica>) {
        self.open(object, replica.and_then(|replica| replica.convergence(object)));
    }

    /// Drops the roots of folders that were lost, so that they are opened anew.
    pub fn forget_root(&mut self, object: ObjectId) {
        if let Some(mapped) = self.mapped.get_mut(&object) {
            (mapped.shelf, mapped.watch) = (None, None);
        }
    }

    /// Takes a folder off this device; its files stay, and so does what was kept in history.
    pub fn remove(&mut self, object: ObjectId) -> io::Result<()> {
        if let Some(mapped) = self.mapped.remove(&object) {
            drop(mapped.watch);
            FolderRoot::release(&mapped.path, object)?;
        }
        self.save()
    }

    pub fn close(&mut self) {
        self.mapped.clear();
    }

    /// Runs a job of a folder on a thread that may block, and answers with what it says.
    fn job(&self, object: ObjectId, work: impl FnOnce(Option<&Shelf>) -> folder::Input + Send + 'static) {
        let shelf = self.mapped.get(&object).and_then(|mapped| mapped.shelf.clone());
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let input = work(shelf.as_ref());
            // A loop that has ended needs no answer.
            let _ = events.blocking_send(Event::Folder { object, input });
        });
    }

    pub fn list(&self, object: ObjectId, paths: Vec<Path>) {
        self.job(object, move |shelf| {
            let verified = match shelf {
                Some(shelf) => shelf.root.verify().map_err(|error| error.to_string()),
                None => Err("the directory of the folder is not there".to_owned()),
            };
            folder::Input::Listed(match (shelf, verified) {
                (Some(shelf), Ok(())) => {
                    paths.into_iter().map(|path| (path.clone(), list(&shelf.root, &path))).collect()
                }
                (_, verified) => {
                    let reason = verified.err().unwrap_or_default();
                    paths.into_iter().map(|path| (path, Err(ListError::RootLost(reason.clone())))).collect()
                }
            })
        });
    }

    pub fn hash(&self, object: ObjectId, files: Vec<ToHash>, blobs: &Arc<BlobStore>) {
        let blobs = blobs.clone();
        self.job(object, move |shelf| {
            folder::Input::Hashed(match shelf {
                Some(shelf) => hash_all(shelf, files, &blobs),
                None => files.into_iter().map(|file| (file, Hashed::Missing)).collect(),
            })
        });
    }

    pub fn place(&self, object: ObjectId, batch: Batch) {
        self.job(object, move |shelf| {
            folder::Input::Placed(match shelf {
                Some(shelf) => {
                    let convergence = |hash: &[u8; 32]| shelf.convergence.chunk_id(hash);
                    let context = place::Context {
                        root: &shelf.root,
                        history: &shelf.history,
                        convergence: &convergence,
                        displaced: &|number| batch.kept.get(number).copied().flatten(),
                        now: clock::now(),
                    };
                    place::place(&context, &batch).map_err(|error| error.to_string())
                }
                None => Err("the directory of the folder is not there".to_owned()),
            })
        });
    }
}

fn hash_all(shelf: &Shelf, files: Vec<ToHash>, blobs: &BlobStore) -> Vec<(ToHash, Hashed)> {
    let convergence = |hash: &[u8; 32]| shelf.convergence.chunk_id(hash);
    let mut results = Vec::with_capacity(files.len());
    let mut stored = false;
    for file in files {
        let (hashed, pages) = hash::hash_file(&shelf.root, &file.path, None, &convergence);
        let kept = pages.iter().try_for_each(|page| blobs.put(page.id, &page.bytes));
        stored |= !pages.is_empty();
        let hashed = match kept {
            Ok(()) => hashed,
            Err(error) => Hashed::Unreadable(format!("the list of its parts could not be stored: {error}")),
        };
        results.push((file, hashed));
    }
    if stored && let Err(error) = blobs.sync() {
        tracing::error!(%error, "lists of chunks may not outlast a power cut");
    }
    results
}

/// Passes on what the watcher sees, until the folder is closed.
async fn forward(object: ObjectId, mut reports: mpsc::Receiver<Report>, events: mpsc::Sender<Event>) {
    while let Some(report) = reports.recv().await {
        if let Some(notice) = &report.notice {
            tracing::warn!(folder = %object.short(), notice, "the folder's watcher");
        }
        let input = if report.rescan {
            folder::Input::DirtyEverywhere
        } else {
            folder::Input::Dirty(report.dirs.into_iter().chain(report.trees).collect())
        };
        if events.send(Event::Folder { object, input }).await.is_err() {
            return;
        }
    }
}

impl Driver {
    /// A folder of another person is none of this mesh's any more.
    pub(super) fn forget_folder(&mut self, object: ObjectId) {
        if self.folders.path(object).is_none() {
            return;
        }
        if let Err(error) = self.folders.remove(object) {
            tracing::warn!(folder = %object.short(), %error, "a folder could not be taken off this device whole");
        }
        self.problems.remove(&object);
        self.adoption_put(object, &[]);
        self.writing.rows.retain(|key, _| !key.starts_with(&object.0));
        self.writing.batches.retain(|(of, _)| *of != object);
        let store = self.store.clone();
        tokio::spawn(async move {
            let cleared = store.run(move |store| rows::clear(&*store.index(), object)).await;
            if let Err(error) =
                cleared.map(|done| done.map_err(Into::into)).and_then(|done: Result<(), StoreError>| done)
            {
                tracing::warn!(%error, "the table of local files of a folder could not be removed");
            }
        });
    }

    /// Looks whether folders that stopped are back.
    pub(super) fn look_for_stopped(&mut self) {
        let Some(replica) = &self.replica else { return };
        let stopped: Vec<ObjectId> = replica
            .folders()
            .filter(|folder| matches!(folder.state(), folder::State::Stopped { .. }))
            .map(|folder| folder.object())
            .collect();
        for object in stopped {
            self.folders.forget_root(object);
            let convergence = self.replica.as_ref().and_then(|replica| replica.convergence(object)).cloned();
            self.folders.open(object, convergence.as_ref());
            self.drive(Input::Folder { object, input: folder::Input::DirtyEverywhere });
        }
    }
}
