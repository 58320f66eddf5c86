//! Putting on this disk what operations that do not stand would have shown there, as if the user did so himself.
//!
//! What is put is then found like any other change of the user's and recorded as this device's own. So nothing is
//! recorded that the disk does not show, and what is replaced is what the disk showed. A version takes the name of
//! another only where its author had seen that one; else it is put under the name that a loser of a conflict would
//! have, and what is current stays where it is.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::id::{ContentId, DirId};

use super::{
    OWN_NAME,
    base::DiskBase,
    observed::{Batch, Expect, Fingerprint, Path, Step},
    scan::joined,
};
use crate::feed::{ConflictNames, Dot, Entry, FeedMap, FileValue, Name, NodeId, Operation, Value, View};

/// What becomes of an operation that is to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is put at this path.
    Put(Path),
    /// The disk shows it already.
    Here,
    /// Its bytes are not on this device.
    Missing,
    /// It shows nothing, or nothing that may be put.
    Nothing,
}

/// A directory: of the disk, or one that the steps make.
#[derive(Clone)]
struct Place {
    node: Option<NodeId>,
    path: Path,
}

/// What a name holds, before or after the steps so far.
enum Held {
    File(FileValue),
    Dir(Option<NodeId>),
}

/// Steps that put operations one after another.
pub struct Putting<'a> {
    base: &'a DiskBase,
    shown: View<'a>,
    meant: View<'a>,
    have: &'a BTreeSet<ContentId>,
    places: BTreeMap<NodeId, Place>,
    put: BTreeMap<Path, Held>,
    batch: Batch,
}

impl<'a> Putting<'a> {
    /// `meant` is the tree that the operations belong to; of the contents in `have` all bytes are on this device.
    pub fn new(base: &'a DiskBase, meant: &'a FeedMap, have: &'a BTreeSet<ContentId>) -> Self {
        Putting {
            base,
            shown: base.map().view(),
            meant: meant.view(),
            have,
            places: BTreeMap::new(),
            put: BTreeMap::new(),
            batch: Batch::default(),
        }
    }

    /// Plans one operation, whose author had seen what `seen` names.
    pub fn operation(&mut self, operation: &Operation, seen: &BTreeSet<Dot>) -> Verdict {
        match &operation.value {
            Value::Tombstone => Verdict::Nothing,
            Value::File(file) => self.file(operation.key.dir, &operation.key.name, file, seen),
            Value::Dir(ids) => self.directories(ids),
        }
    }

    /// The steps.
    pub fn finish(self) -> Batch {
        self.batch
    }

    fn directories(&mut self, ids: &[DirId]) -> Verdict {
        let mut verdict = Verdict::Nothing;
        for node in ids.iter().filter_map(|id| self.meant.node_of(*id)).collect::<BTreeSet<_>>() {
            match self.place(node) {
                Some(Place { node: None, path }) => verdict = Verdict::Put(path),
                Some(_) if verdict == Verdict::Nothing => verdict = Verdict::Here,
                _ => {}
            }
        }
        verdict
    }

    fn file(&mut self, dir: DirId, name: &Name, file: &FileValue, seen: &BTreeSet<Dot>) -> Verdict {
        let Some(source) = self.source(file) else { return Verdict::Missing };
        let Some(place) = self.meant.node_of(dir).and_then(|node| self.place(node)) else { return Verdict::Nothing };
        let mut others = ConflictNames::for_file(name, &file.content);
        let mut candidate = name.clone();
        let expect = loop {
            match self.held(&place, &candidate) {
                None => break Expect::Absent,
                Some(Held::File(held)) if held.same_content(file) => return Verdict::Here,
                Some(_) => {
                    if let Some(expect) = self.replaceable(&place, &candidate, seen) {
                        break expect;
                    }
                }
            }
            candidate = others.advance();
        };
        let path = joined(&place.path, &candidate);
        if is_reserved(&path) {
            return Verdict::Nothing;
        }
        let replaced = place.node.and_then(|node| self.shown.entry_in(node, &candidate));
        let replaced = replaced.as_ref().and_then(Entry::file).filter(|old| !old.is_symlink());
        let step = match file.symlink_target() {
            Some(target) => Step::PutSymlink { path: path.clone(), expect, target: target.to_vec() },
            None => Step::PutFile { path: path.clone(), expect, value: file.clone(), copy_from: source },
        };
        self.batch.kept.push(replaced.map(|old| old.content));
        self.batch.steps.push(step);
        self.put.insert(path.clone(), Held::File(file.clone()));
        Verdict::Put(path)
    }

    /// Where the bytes of a file come from: an own file that has them, or what was received. None where there are none.
    fn source(&self, file: &FileValue) -> Option<Option<(Path, Fingerprint)>> {
        if file.is_symlink() || self.have.contains(&file.content) {
            return Some(None);
        }
        let (dir, name) = self.base.locate(file.content)?;
        let path = self.shown.path_of(self.shown.node_of(dir)?);
        let fingerprint = self.base.file(self.base.identity(dir)?, &name)?;
        Some(Some((joined(&path, &name), fingerprint)))
    }

    /// What must be at a name for it to be replaced, if all that it shows was seen by who replaces it.
    fn replaceable(&self, place: &Place, name: &Name, seen: &BTreeSet<Dot>) -> Option<Expect> {
        let node = place.node.filter(|_| !self.put.contains_key(&joined(&place.path, name)))?;
        let Some(Entry::File { value, sources, .. }) = self.shown.entry_in(node, name) else { return None };
        if !sources.iter().all(|operation| seen.contains(&operation.dot)) {
            return None;
        }
        if let Some(target) = value.symlink_target() {
            return Some(Expect::Symlink { target: target.to_vec() });
        }
        let identity = self.shown.ids_of(node).iter().find_map(|id| self.base.identity(*id))?;
        self.base.file(identity, name).map(Expect::File)
    }

    /// The directory of the disk that a directory of the other tree is, or one that is made for it.
    fn place(&mut self, node: NodeId) -> Option<Place> {
        if let Some(place) = self.places.get(&node) {
            return Some(place.clone());
        }
        let shown = self.meant.ids_of(node).iter().find_map(|id| self.shown.node_of(*id));
        let place = match shown {
            Some(shown) => Place { node: Some(shown), path: self.shown.path_of(shown) },
            None => {
                let (above, name) = self.meant.slot_of(node)?;
                let above = self.place(above)?;
                self.directory_in(&above, &name, self.meant.id_of(node))?
            }
        };
        self.places.insert(node, place.clone());
        Some(place)
    }

    /// The directory of a name, made where there is none; where a file has the name, it is given another.
    fn directory_in(&mut self, above: &Place, name: &Name, id: DirId) -> Option<Place> {
        let mut others = ConflictNames::for_directory(name, &id);
        let mut candidate = name.clone();
        loop {
            let path = joined(&above.path, &candidate);
            if is_reserved(&path) {
                return None;
            }
            match self.held(above, &candidate) {
                Some(Held::Dir(node)) => return Some(Place { node, path }),
                Some(Held::File(_)) => candidate = others.advance(),
                None => {
                    self.batch.steps.push(Step::MakeDir { path: path.clone() });
                    self.batch.kept.push(None);
                    self.put.insert(path.clone(), Held::Dir(None));
                    return Some(Place { node: None, path });
                }
            }
        }
    }

    fn held(&self, place: &Place, name: &Name) -> Option<Held> {
        match self.put.get(&joined(&place.path, name)) {
            Some(Held::File(file)) => Some(Held::File(file.clone())),
            Some(Held::Dir(node)) => Some(Held::Dir(*node)),
            None => match self.shown.entry_in(place.node?, name)? {
                Entry::File { value, .. } => Some(Held::File(value)),
                Entry::Dir { node, .. } => Some(Held::Dir(Some(node))),
            },
        }
    }
}

/// Whether a path is among the node's own.
fn is_reserved(path: &[Name]) -> bool {
    path.first().is_some_and(|name| name.as_bytes().starts_with(OWN_NAME.as_bytes()))
}

#[cfg(test)]
mod tests;
