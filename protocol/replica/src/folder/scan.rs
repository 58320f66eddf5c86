//! One look at the disk: which directories to list, which files to read, and what the user changed.
//!
//! A round lists all directories that may have changed, then reads the files whose fingerprints are
//! new, in batches, and turns both into edits of the tree that the disk base shows. Directories are
//! recognised by identity, not by name, so that a renamed directory is one edit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meshwork_protocol::{
    id::{DirId, FileId},
    limits,
};
use rand_core::CryptoRng;

use super::{
    base::DiskBase,
    observed::{DirIdentity, Fingerprint, Hashed, ListError, Listing, Path, Seen},
    search::Lost,
};
use crate::feed::{Edit, Edits, Entry, FileKind, FileValue, Key, Name, NodeId, NodeRef, Now, View, symlink_content};

/// A listing, or the reason why there is none.
pub type ListResult = (Path, Result<Listing, ListError>);

/// A file whose content must be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToHash {
    /// Where.
    pub path: Path,
    /// As it was when listed.
    pub fingerprint: Fingerprint,
    parent: DirIdentity,
    at: DirId,
}

/// What a name holds now, where that differs from what the base shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A file or link.
    File(FileValue),
    /// A directory.
    Dir(DirId),
}

/// A difference between the disk and the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The directory.
    pub at: DirId,
    /// The name in it.
    pub name: Name,
    /// What is there.
    pub now: Found,
}

impl Difference {
    /// The directories that it speaks of.
    pub fn dirs_mut(&mut self) -> impl Iterator<Item = &mut DirId> {
        let now = match &mut self.now {
            Found::Dir(dir) => Some(dir),
            Found::Absent | Found::File(_) => None,
        };
        [&mut self.at].into_iter().chain(now)
    }
}

/// A file's fingerprint, by its directory and name; none when it is gone.
pub type FoundFile = (DirIdentity, Name, Option<Fingerprint>);

/// What one batch of a round says.
#[derive(Debug, Default)]
pub struct Findings {
    /// The user's changes.
    pub differences: Vec<Difference>,
    /// Directories that no replica knows yet.
    pub fresh: Vec<DirId>,
    /// Fingerprints to record once the differences stand.
    pub files: Vec<FoundFile>,
    /// Directories as they are recognised now.
    pub dirs: Vec<(DirId, DirIdentity)>,
    /// Directories to look at again, because something was changing.
    pub again: BTreeSet<Path>,
    /// What could not be read: (path, sentence).
    pub problems: Vec<(Path, String)>,
}

impl Findings {
    /// The user's changes, as edits of the tree that the base shows.
    pub fn edits(&self, base: &DiskBase) -> Edits {
        let view = base.map().view();
        let mut edits = Edits::default();
        let node = |edits: &mut Edits, dir: DirId| {
            if view.node_of(dir).is_some() {
                return NodeRef::Known(dir);
            }
            let index = edits.new_dirs.iter().position(|new| *new == dir).unwrap_or_else(|| {
                edits.new_dirs.push(dir);
                edits.new_dirs.len() - 1
            });
            NodeRef::New(index)
        };
        for Difference { at, name, now } in &self.differences {
            let at = node(&mut edits, *at);
            let now = match now {
                Found::Absent => Now::Absent,
                Found::File(value) => Now::File(value.clone()),
                Found::Dir(dir) => Now::Dir(node(&mut edits, *dir)),
            };
            edits.edits.push(Edit { at, name: name.clone(), now });
        }
        edits
    }
}

/// A round of looking at the disk.
#[derive(Default)]
pub struct Round {
    to_list: BTreeSet<Path>,
    listed: BTreeMap<Path, Listing>,
    seen_at: BTreeMap<DirIdentity, Path>,
    gone: BTreeSet<Path>,
    nodes: BTreeMap<Path, DirId>,
    /// The directories that were listed, wherever they are now.
    known: BTreeMap<DirId, DirIdentity>,
    lost: Lost,
    /// All directories are looked at.
    everywhere: bool,
    /// Names of which not all could be learned.
    doubtful: BTreeSet<Path>,
    to_hash: VecDeque<ToHash>,
    hash_total: usize,
    ready: Findings,
    last: Findings,
}

impl Round {
    /// Starts a round over `dirty` directories.
    pub fn new(dirty: BTreeSet<Path>) -> Self {
        Round { to_list: dirty, ..Round::default() }
    }

    /// Starts a round over all directories.
    pub fn everywhere(all: BTreeSet<Path>, lost: Lost) -> Self {
        Round { to_list: all, lost, everywhere: true, ..Round::default() }
    }

    /// Whether the round, now complete, has told what is under the name of a key.
    pub fn knows(&self, view: &View<'_>, key: &Key) -> bool {
        let node = view.node_of(key.dir);
        let ids = node.map_or(&[][..], |node| view.ids_of(node));
        let listed = [key.dir].iter().chain(ids).find_map(|id| self.seen_at.get(self.known.get(id)?)).cloned();
        let is_looked_at = self.everywhere || listed.is_some();
        let path = listed.or_else(|| node.map(|node| view.path_of(node)));
        let is_told = |path: Path| ![joined(&path, &key.name), path].iter().any(|at| self.doubtful.contains(at));
        is_looked_at && !self.lost.is_unsure() && path.is_none_or(is_told)
    }

    /// What is known of directories that are not where they were, once the listings are compared.
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    /// The next directories to list; empty when the listing is complete.
    pub fn next_listings(&mut self) -> Vec<Path> {
        let batch: Vec<Path> = self.to_list.iter().take(limits::LISTINGS_PER_JOB).cloned().collect();
        for path in &batch {
            self.to_list.remove(path);
        }
        batch
    }

    /// Takes listings in; directories that are new to the base are listed in turn.
    ///
    /// # Errors
    /// The sentence of a folder root that is gone or is another: the round must be dropped whole.
    pub fn listed(&mut self, base: &DiskBase, results: Vec<ListResult>) -> Result<(), String> {
        let view = base.map().view();
        for (path, result) in results {
            match result {
                Ok(listing) => self.take_listing(base, &view, path, listing),
                Err(ListError::RootLost(reason)) => return Err(reason),
                Err(ListError::Unreadable(reason)) => self.ready.problems.push((path, reason)),
                Err(ListError::Missing) => self.look_at_parent(path),
            }
        }
        Ok(())
    }

    fn look_at_parent(&mut self, mut path: Path) {
        self.gone.insert(path.clone());
        if path.pop().is_some() && !self.listed.contains_key(&path) && !self.gone.contains(&path) {
            self.to_list.insert(path);
        }
    }

    fn take_listing(&mut self, base: &DiskBase, view: &View<'_>, path: Path, listing: Listing) {
        for (name, seen) in &listing.entries {
            let Seen::Dir(identity) = seen else { continue };
            let inside = joined(&path, name);
            let known_here = base
                .dir_of(*identity)
                .and_then(|dir| view.node_of(dir))
                .is_some_and(|node| view.path_of(node) == inside);
            if !known_here && !self.listed.contains_key(&inside) {
                self.to_list.insert(inside);
            }
        }
        self.seen_at.insert(listing.identity, path.clone());
        self.listed.insert(path, listing);
    }

    /// Compares the complete listings with the base, and prepares the reading of new files. What the base does not know
    /// may be known from other trees.
    pub fn compare(&mut self, base: &DiskBase, others: &[View<'_>], rng: &mut impl CryptoRng) {
        let view = base.map().view();
        let listed = std::mem::take(&mut self.listed);
        // Parents sort before their children, so a parent's node is known when a child needs it.
        for (path, listing) in &listed {
            let node = self.recognise(base, &view, others, path, listing.identity, rng);
            self.nodes.insert(path.clone(), node);
            self.known.insert(node, listing.identity);
            self.ready.dirs.push((node, listing.identity));
        }
        for (path, listing) in &listed {
            let Some(node) = self.nodes.get(path).copied() else {
                continue;
            };
            let page = view.node_of(node).map(|node| view.page(node)).unwrap_or_default();
            self.miss(base, &view, listing, &page);
            self.compare_dir(base, &view, path, listing, node, &page);
            self.compare_slot(&view, path, node);
        }
        if self.lost.is_unsure() {
            self.leave_directories_out(&view);
        }
        self.hash_total = self.to_hash.len();
    }

    /// Which directory of the tree a listed path is.
    fn recognise(
        &mut self,
        base: &DiskBase,
        view: &View<'_>,
        others: &[View<'_>],
        path: &[Name],
        identity: DirIdentity,
        rng: &mut impl CryptoRng,
    ) -> DirId {
        let Some((name, above)) = path.split_last() else {
            return DirId::ROOT;
        };
        if let Some(dir) = base.dir_of(identity).filter(|dir| view.node_of(*dir).is_some()) {
            return dir;
        }
        // The same name under another identity, and the old one nowhere in sight: made anew by a
        // checkout or a restore, which to its user is the same directory.
        if let Some(parent) = self.node_at(view, above) {
            for shown in [view].into_iter().chain(others) {
                let Some(Entry::Dir { node, .. }) = shown.entry(parent, name) else {
                    continue;
                };
                let dir = shown.id_of(node);
                let elsewhere = base.identity(dir).is_some_and(|old| self.seen_at.contains_key(&old));
                if elsewhere || self.known.contains_key(&dir) {
                    continue;
                }
                if base.identity(dir).is_none() || self.lost.believes(dir) {
                    return dir;
                }
                self.lost.miss(dir);
            }
        }
        let mut fresh = [0; 16];
        rng.fill_bytes(&mut fresh);
        self.ready.fresh.push(DirId(fresh));
        DirId(fresh)
    }

    fn node_at(&self, view: &View<'_>, path: &[Name]) -> Option<DirId> {
        self.nodes.get(path).copied().or_else(|| view.node_at(path).map(|node| view.id_of(node)))
    }

    /// Notes the directories that were in this one and are neither here nor anywhere that was looked at.
    fn miss(&mut self, base: &DiskBase, view: &View<'_>, listing: &Listing, page: &BTreeMap<Name, Entry>) {
        let node_of = |seen: &Seen| match seen {
            Seen::Dir(identity) => base.dir_of(*identity).and_then(|dir| view.node_of(dir)),
            _ => None,
        };
        let here: BTreeSet<NodeId> = listing.entries.iter().filter_map(|(_, seen)| node_of(seen)).collect();
        for node in page.values().filter_map(Entry::node) {
            let is_found = here.contains(&node) || self.is_listed(view, node);
            if !is_found && !view.ids_of(node).iter().any(|id| self.lost.believes(*id)) {
                self.lost.miss(view.id_of(node));
            }
        }
    }

    fn compare_dir(
        &mut self,
        base: &DiskBase,
        view: &View<'_>,
        path: &[Name],
        listing: &Listing,
        at: DirId,
        page: &BTreeMap<Name, Entry>,
    ) {
        let mut present: BTreeSet<&Name> = BTreeSet::new();
        for (name, seen) in &listing.entries {
            present.insert(name);
            let shown = page.get(name).and_then(Entry::file);
            match seen {
                Seen::Dir(_) => {}
                Seen::Skipped { reason } => self.ready.problems.push((joined(path, name), reason.clone())),
                Seen::Symlink { target } => {
                    if shown.and_then(FileValue::symlink_target) != Some(target.as_slice()) {
                        let now = Found::File(symlink_value(shown, target));
                        self.ready.differences.push(Difference { at, name: name.clone(), now });
                    }
                }
                Seen::File(fingerprint) => {
                    let known = base.file(listing.identity, name) == Some(*fingerprint);
                    if !(known && shown.is_some_and(|value| !value.is_symlink())) {
                        self.to_hash.push_back(ToHash {
                            path: joined(path, name),
                            fingerprint: *fingerprint,
                            parent: listing.identity,
                            at,
                        });
                    }
                }
            }
        }
        for (name, entry) in page.iter().filter(|(name, _)| !present.contains(name)) {
            let absent = Difference { at, name: name.clone(), now: Found::Absent };
            self.ready.files.push((listing.identity, name.clone(), None));
            if matches!(entry, Entry::Dir { node, .. } if self.is_listed(view, *node)) {
                self.ready.differences.push(absent);
            } else {
                self.last.differences.push(absent);
            }
        }
    }

    /// A difference for a directory that is new or has moved.
    fn compare_slot(&mut self, view: &View<'_>, path: &[Name], dir: DirId) {
        let Some((name, above)) = path.split_last() else { return };
        let Some(parent) = self.node_at(view, above) else {
            return;
        };
        if let Some((old_parent, old_name)) = view.node_of(dir).and_then(|node| view.slot_of(node)) {
            if view.node_of(parent) == Some(old_parent) && old_name == *name {
                return;
            }
            // Its old parent may not be part of this round, but it cannot still be there.
            if !self.is_listed(view, old_parent) {
                let at = view.id_of(old_parent);
                self.ready.differences.push(Difference { at, name: old_name, now: Found::Absent });
            }
        }
        self.ready.differences.push(Difference { at: parent, name: name.clone(), now: Found::Dir(dir) });
    }

    /// Keeps only what is said of files in directories that are known: a directory that is missing may be at a place
    /// that was not looked at, and whatever is said of directories now may be half of a move.
    fn leave_directories_out(&mut self, view: &View<'_>) {
        let is_plain = |at: DirId, name: &Name| {
            view.node_of(at).is_some_and(|node| !view.entry_in(node, name).is_some_and(|entry| entry.is_dir()))
        };
        let says_file = |it: &Difference| !matches!(it.now, Found::Dir(_)) && is_plain(it.at, &it.name);
        self.ready.differences.retain(says_file);
        self.last.differences.retain(says_file);
        self.to_hash.retain(|file| file.path.last().is_some_and(|name| is_plain(file.at, name)));
        self.ready.fresh.clear();
        self.ready.dirs.retain(|(dir, _)| view.node_of(*dir).is_some());
    }

    fn is_listed(&self, view: &View<'_>, node: NodeId) -> bool {
        view.ids_of(node).iter().any(|dir| self.known.contains_key(dir))
    }

    /// The next files to read; empty when there are none left.
    pub fn next_hashes(&mut self) -> Vec<ToHash> {
        let (mut batch, mut bytes) = (Vec::new(), 0u64);
        while let Some(next) = self.to_hash.front() {
            let full = batch.len() >= limits::HASHES_PER_JOB || bytes + next.fingerprint.size > limits::HASH_JOB_BYTES;
            if !batch.is_empty() && full {
                break;
            }
            bytes = bytes.saturating_add(next.fingerprint.size);
            batch.extend(self.to_hash.pop_front());
        }
        batch
    }

    /// Takes the outcome of reading a batch in.
    pub fn hashed(&mut self, base: &DiskBase, results: Vec<(ToHash, Hashed)>, rng: &mut impl CryptoRng) {
        let view = base.map().view();
        for (file, outcome) in results {
            let Some((name, above)) = file.path.split_last() else {
                continue;
            };
            match outcome {
                Hashed::Unstable | Hashed::Missing => self.look_again_at(above, name),
                // Another file has taken its name since: where the one listed is now, only a new listing tells.
                Hashed::Content { fingerprint, .. } if fingerprint.inode != file.fingerprint.inode => {
                    self.look_again_at(above, name);
                }
                Hashed::Unreadable(reason) => self.ready.problems.push((file.path.clone(), reason)),
                Hashed::Content { fingerprint, content, manifest } => {
                    let shown = view.entry(file.at, name).as_ref().and_then(Entry::file).cloned();
                    let id = shown.as_ref().map_or_else(|| fresh_file(rng), |value| value.file);
                    let value = FileValue {
                        file: id,
                        kind: FileKind::Regular { manifest },
                        content,
                        size: fingerprint.size,
                        modified_ns: fingerprint.modified_ns,
                        executable: fingerprint.executable,
                        unknown: shown.as_ref().map(|value| value.unknown.clone()).unwrap_or_default(),
                    };
                    self.ready.files.push((file.parent, name.clone(), Some(fingerprint)));
                    if !shown.is_some_and(|shown| shown.same_as(&value)) {
                        let now = Found::File(value);
                        self.ready.differences.push(Difference { at: file.at, name: name.clone(), now });
                    }
                }
            }
        }
    }

    fn look_again_at(&mut self, above: &[Name], name: &Name) {
        self.ready.again.insert(above.to_vec());
        self.doubtful.insert(joined(above, name));
    }

    /// What is known by now and not yet taken. What is gone comes last, so that a rename read in two
    /// batches is a copy before it is a removal.
    pub fn take_findings(&mut self) -> Findings {
        if self.is_complete() {
            self.ready.differences.append(&mut self.last.differences);
            self.ready.files.append(&mut self.last.files);
        }
        self.doubtful.extend(self.ready.problems.iter().map(|(path, _)| path.clone()));
        std::mem::take(&mut self.ready)
    }

    /// The directory on disk that was listed as `dir`.
    pub fn identity(&self, dir: DirId) -> Option<DirIdentity> {
        self.known.get(&dir).copied()
    }

    /// Puts back what cannot be judged before all of the round is known.
    pub fn hold(&mut self, differences: Vec<Difference>, files: Vec<FoundFile>) {
        self.last.differences.extend(differences);
        self.last.files.extend(files);
    }

    /// Whether every file of the round has been read.
    pub fn is_complete(&self) -> bool {
        self.to_hash.is_empty()
    }

    /// How many files of the round are still to be read, and how many there were.
    pub fn progress(&self) -> (usize, usize) {
        (self.to_hash.len(), self.hash_total)
    }
}

/// `path` and one name more.
pub fn joined(path: &[Name], name: &Name) -> Path {
    path.iter().chain([name]).cloned().collect()
}

fn fresh_file(rng: &mut impl CryptoRng) -> FileId {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    FileId(id)
}

fn symlink_value(shown: Option<&FileValue>, target: &[u8]) -> FileValue {
    FileValue {
        file: shown.map_or(FileId([0; 16]), |value| value.file),
        kind: FileKind::Symlink { target: target.to_vec().into() },
        content: symlink_content(target),
        size: target.len() as u64,
        modified_ns: 0,
        executable: false,
        unknown: Default::default(),
    }
}
