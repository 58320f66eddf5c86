//! The disk base: what the directory showed when it was last brought in line, by key.
//!
//! For every key it holds the operations whose outcome the disk shows. An author's operation replaces
//! exactly these and never what the replica merely holds, because a version that was not yet on disk
//! is one that the user has not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::id::{ContentId, DirId};

use super::observed::{DirIdentity, Fingerprint};
use crate::feed::{Entry, FeedMap, Key, Name, Operation, Value};

/// A change of the stored form of a disk base; replayed in order it gives the base again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseChange {
    /// The operations that a key's name on disk stands for; none removes the row.
    Key {
        /// Which key.
        key: Key,
        /// Its operations.
        operations: Vec<Arc<Operation>>,
    },
    /// The directory that holds the entries of an id; `None` removes the row.
    Dir {
        /// Which id.
        dir: DirId,
        /// Its directory on disk.
        identity: Option<DirIdentity>,
    },
    /// The fingerprint of a file as last read or placed; `None` removes the row.
    File {
        /// The directory.
        parent: DirIdentity,
        /// The name in it.
        name: Name,
        /// Its fingerprint.
        fingerprint: Option<Fingerprint>,
    },
    /// What a plan is to make of a key, as long as nobody has seen what came of it; `None` removes the row.
    Intent {
        /// Which key.
        key: Key,
        /// The operations that it is to show; none where nothing is to be left.
        operations: Option<Vec<Arc<Operation>>>,
    },
}

/// What the disk showed, and how to recognise it.
#[derive(Default)]
pub struct DiskBase {
    map: FeedMap,
    dirs: BTreeMap<DirId, DirIdentity>,
    dir_of: BTreeMap<DirIdentity, DirId>,
    files: BTreeMap<DirIdentity, BTreeMap<Name, Fingerprint>>,
    by_content: BTreeMap<ContentId, BTreeSet<Key>>,
    /// Contents that were put under a key since this was last asked.
    fresh: BTreeSet<ContentId>,
    /// What plans were to make of keys of which it is not known yet what they show.
    ///
    /// A key has one intent: nothing is planned for it before it was looked at again, so no other plan can have been
    /// at work there since, and a later intent is stored with the base that the earlier one came to.
    intents: BTreeMap<Key, Vec<Arc<Operation>>>,
    changes: Vec<BaseChange>,
}

impl DiskBase {
    /// The base as a feed map: its view is what the disk shows.
    pub fn map(&self) -> &FeedMap {
        &self.map
    }

    /// The changes since this was last asked, for the store.
    pub fn take_changes(&mut self) -> Vec<BaseChange> {
        std::mem::take(&mut self.changes)
    }

    /// Replays stored changes at start.
    pub fn restore(&mut self, change: BaseChange) {
        match change {
            BaseChange::Key { key, operations } => self.set_key(key, operations),
            BaseChange::Dir { dir, identity: Some(identity) } => self.bind(dir, identity),
            BaseChange::Dir { dir, identity: None } => self.unbind(dir),
            BaseChange::File { parent, name, fingerprint } => self.set_file(parent, name, fingerprint),
            BaseChange::Intent { key, operations: Some(operations) } => drop(self.intents.insert(key, operations)),
            BaseChange::Intent { key, operations: None } => drop(self.intents.remove(&key)),
        }
        self.changes.clear();
        self.fresh.clear();
    }

    /// The contents that keys have come to show since this was last asked.
    pub fn take_fresh(&mut self) -> BTreeSet<ContentId> {
        std::mem::take(&mut self.fresh)
    }

    /// Applies own operations: the disk shows what they say.
    pub fn apply_own(&mut self, operations: &[Arc<Operation>]) {
        let before: Vec<(Key, Vec<Arc<Operation>>)> =
            operations.iter().map(|op| (op.key.clone(), self.map.at(&op.key).to_vec())).collect();
        self.map.apply(operations);
        for (key, old) in before {
            let new = self.map.at(&key).to_vec();
            self.reindex(&key, &old, &new);
            self.changes.push(BaseChange::Key { key, operations: new });
        }
        // What was written after a plan was written over what came of it: then the disk shows the one without the other.
        for operation in operations {
            let Some(live) = self.intents.get_mut(&operation.key) else { continue };
            live.retain(|old| !operation.replaces(&old.dot));
            live.push(operation.clone());
            let (key, operations) = (operation.key.clone(), Some(live.clone()));
            self.changes.push(BaseChange::Intent { key, operations });
        }
    }

    /// Notes what a plan is to make of these keys, before its first step.
    pub fn intend(&mut self, target: &FeedMap, keys: &BTreeSet<Key>) {
        for key in keys {
            let operations = target.at(key).to_vec();
            self.changes.push(BaseChange::Intent { key: key.clone(), operations: Some(operations.clone()) });
            self.intents.insert(key.clone(), operations);
        }
    }

    /// The keys of which it is not known what came of a plan.
    pub fn intents(&self) -> impl Iterator<Item = &Key> {
        self.intents.keys()
    }

    /// The base as it is if all came about that was intended; `None` where nothing is in doubt.
    pub fn intended(&self) -> Option<FeedMap> {
        let mut map = (!self.intents.is_empty()).then(|| self.map.clone())?;
        self.intents.iter().for_each(|(key, operations)| map.set_key(key.clone(), operations.clone()));
        Some(map)
    }

    /// What these keys show is known.
    pub fn forget_intents<'k>(&mut self, keys: impl IntoIterator<Item = &'k Key>) {
        for key in keys {
            if self.intents.remove(key).is_some() {
                self.drop_intent(key.clone());
            }
        }
    }

    /// Removes what is stored of an intent whose operations are not there any more.
    pub(crate) fn drop_intent(&mut self, key: Key) {
        self.changes.push(BaseChange::Intent { key, operations: None });
    }

    /// The disk now shows `operations` under `key`.
    pub fn set_key(&mut self, key: Key, operations: Vec<Arc<Operation>>) {
        let old = self.map.at(&key).to_vec();
        self.reindex(&key, &old, &operations);
        self.map.set_key(key.clone(), operations.clone());
        self.changes.push(BaseChange::Key { key, operations });
    }

    /// The directory on disk that holds the entries of `dir`.
    pub fn identity(&self, dir: DirId) -> Option<DirIdentity> {
        self.dirs.get(&dir).copied()
    }

    /// The id that a directory on disk goes by.
    pub fn dir_of(&self, identity: DirIdentity) -> Option<DirId> {
        self.dir_of.get(&identity).copied()
    }

    /// All ids that a directory on disk goes by.
    pub fn ids_of(&self, identity: DirIdentity) -> impl Iterator<Item = DirId> {
        let known = self.dir_of.contains_key(&identity);
        self.dirs.iter().filter(move |(_, other)| known && **other == identity).map(|(dir, _)| *dir)
    }

    /// Recognises `identity` as the directory of `dir` from now on.
    pub fn bind(&mut self, dir: DirId, identity: DirIdentity) {
        if self.dirs.get(&dir) == Some(&identity) {
            return;
        }
        self.unbind(dir);
        self.dirs.insert(dir, identity);
        self.dir_of.insert(identity, dir);
        self.changes.push(BaseChange::Dir { dir, identity: Some(identity) });
    }

    /// Forgets the directory of `dir`.
    pub fn unbind(&mut self, dir: DirId) {
        let Some(identity) = self.dirs.remove(&dir) else { return };
        self.changes.push(BaseChange::Dir { dir, identity: None });
        if self.dir_of.get(&identity) != Some(&dir) {
            return;
        }
        self.dir_of.remove(&identity);
        match self.dirs.iter().find(|(_, other)| **other == identity) {
            Some((other, _)) => drop(self.dir_of.insert(identity, *other)),
            None => self.forget_files_in(identity),
        }
    }

    /// Forgets the fingerprints of the files in the directory of `dir`: they are read again.
    pub fn forget_files(&mut self, dir: DirId) {
        if let Some(identity) = self.identity(dir) {
            self.forget_files_in(identity);
        }
    }

    fn forget_files_in(&mut self, parent: DirIdentity) {
        for name in self.files.remove(&parent).unwrap_or_default().into_keys() {
            self.changes.push(BaseChange::File { parent, name, fingerprint: None });
        }
    }

    /// The fingerprint of a file as last read or placed.
    pub fn file(&self, parent: DirIdentity, name: &Name) -> Option<Fingerprint> {
        self.files.get(&parent)?.get(name).copied()
    }

    /// Records (or forgets) the fingerprint of a file.
    pub fn set_file(&mut self, parent: DirIdentity, name: Name, fingerprint: Option<Fingerprint>) {
        let names = self.files.entry(parent).or_default();
        let old = match fingerprint {
            Some(fingerprint) => names.insert(name.clone(), fingerprint),
            None => names.remove(&name),
        };
        if old != fingerprint {
            self.changes.push(BaseChange::File { parent, name, fingerprint });
        }
    }

    /// Where on disk a content is shown: the directory's id and the name there.
    pub fn locate(&self, content: ContentId) -> Option<(DirId, Name)> {
        self.by_content.get(&content)?.iter().find_map(|key| self.shown_at(key, content))
    }

    fn shown_at(&self, key: &Key, content: ContentId) -> Option<(DirId, Name)> {
        let view = self.map.view();
        let node = view.node_of(key.dir)?;
        let shows = |name: &Name| {
            let entry = view.entry_in(node, name);
            matches!(entry, Some(Entry::File { value, .. }) if value.content == content && !value.is_symlink())
        };
        let name = if shows(&key.name) { Some(key.name.clone()) } else { None };
        name.or_else(|| view.losers_by(node, &key.name).into_iter().find(shows)).map(|name| (key.dir, name))
    }

    /// Forgets the directories that the tree does not have any more.
    pub fn forget_gone(&mut self) {
        let view = self.map.view();
        let gone: Vec<DirId> = self.dirs.keys().filter(|dir| view.node_of(**dir).is_none()).copied().collect();
        drop(view);
        gone.into_iter().for_each(|dir| self.unbind(dir));
    }

    fn reindex(&mut self, key: &Key, old: &[Arc<Operation>], new: &[Arc<Operation>]) {
        for content in old.iter().filter_map(|op| content_of(op)) {
            if let Some(keys) = self.by_content.get_mut(&content) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_content.remove(&content);
                }
            }
        }
        for content in new.iter().filter_map(|op| content_of(op)) {
            self.by_content.entry(content).or_default().insert(key.clone());
            self.fresh.insert(content);
        }
    }
}

/// The content of an operation's value, when it is a file.
fn content_of(operation: &Operation) -> Option<ContentId> {
    match &operation.value {
        Value::File(file) => Some(file.content),
        Value::Tombstone | Value::Dir(_) => None,
    }
}
