//! Versions of which neither this device nor anybody connected has the bytes, and letting go of them: the only device
//! that had them may be lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::{
    id::{ContentId, DeviceId, ObjectId},
    time::Timestamp,
};
use rand_core::CryptoRng;

use super::{AuthorError, Output, Replica};
use crate::{
    feed::{Entry, FileValue, Key, NewOperation, Operation, Value, replacement},
    folder::observed::Path,
};

/// A version that a folder waits for, and that nobody who can be asked has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Where it is to be.
    pub path: Path,
    /// What it is.
    pub file: FileValue,
    /// Who wrote it.
    pub device: DeviceId,
    operation: Arc<Operation>,
}

impl Replica {
    /// How many contents a folder waits for in vain.
    pub fn missing_files(&self, object: ObjectId) -> usize {
        self.transfer.missing(object).count()
    }

    /// What a folder waits for in vain, by path.
    pub fn missing(&self, object: ObjectId) -> Vec<Missing> {
        let (Some(folder), Some(intake)) = (self.folder(object), self.intake(object)) else { return Vec::new() };
        let contents: BTreeSet<ContentId> = self.transfer.missing(object).collect();
        let (view, chains) = (folder.feed().view(), intake.chains());
        let mut missing = Vec::new();
        for node in view.nodes() {
            for (name, entry) in view.page(node) {
                let Some(file) = entry.file().filter(|file| contents.contains(&file.content)) else { continue };
                let path: Path = view.path_of(node).into_iter().chain([name]).collect();
                missing.extend(entry.sources().iter().filter_map(|operation| {
                    let (chain, _) = chains.place_of(&operation.dot.record)?;
                    let device = chains.author(&chain)?;
                    Some(Missing { path: path.clone(), file: file.clone(), device, operation: operation.clone() })
                }));
            }
        }
        missing.sort_by(|one, other| one.path.cmp(&other.path));
        missing
    }

    /// Lets go of what a folder waits for in vain, at or below these paths, or of all: each name keeps what else it
    /// has, or what this device's disk shows there, else it is deleted. Whoever has the bytes after all keeps them in
    /// history. Gives what was let go of.
    pub fn let_go(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        paths: &[Path],
    ) -> Result<(Vec<Missing>, Vec<Output>), AuthorError> {
        let is_chosen = |missing: &Missing| paths.is_empty() || paths.iter().any(|path| missing.path.starts_with(path));
        let gone: Vec<Missing> = self.missing(object).into_iter().filter(is_chosen).collect();
        let mut out = Vec::new();
        if gone.is_empty() {
            return Ok((gone, out));
        }
        let mut by_key: BTreeMap<Key, Vec<&Operation>> = BTreeMap::new();
        for missing in &gone {
            by_key.entry(missing.operation.key.clone()).or_default().push(&missing.operation);
        }
        by_key.values_mut().for_each(|gone| gone.sort_by_key(|operation| operation.order()));
        let operations = by_key.into_iter().map(|(key, gone)| self.without(object, key, &gone)).collect();
        let signed = self.author_operations(rng, object, operations, &mut out)?;
        if let Some(folder) = self.folder_mut(object) {
            folder.merge(&signed, |_| true);
        }
        self.advance_folder(now, rng, object, &mut out);
        Ok((gone, out))
    }

    /// The operation that takes `gone` from a key.
    fn without(&self, object: ObjectId, key: Key, gone: &[&Operation]) -> NewOperation {
        let folder = self.folder(object);
        let dots: BTreeSet<_> = gone.iter().map(|operation| operation.dot).collect();
        let stays = |live: &[Arc<Operation>]| {
            live.iter().any(|operation| !operation.value.is_tombstone() && !dots.contains(&operation.dot))
        };
        if folder.is_some_and(|folder| stays(folder.feed().at(&key))) {
            return replacement(key, Value::Tombstone, gone);
        }
        let base = folder.and_then(|folder| folder.base());
        let shown = base.and_then(|base| base.map().view().entry(key.dir, &key.name));
        let shown = shown.as_ref().filter(|entry| entry.sources().iter().all(|operation| operation.key == key));
        let value = shown.and_then(Entry::file).map_or(Value::Tombstone, |file| Value::File(file.clone()));
        replacement(key, value, gone)
    }
}
