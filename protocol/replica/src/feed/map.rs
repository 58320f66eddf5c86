//! The live operations of a feed by key, with an index of its directories.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    sync::{Arc, OnceLock},
};

use meshwork_protocol::id::DirId;

use super::{
    operation::{Key, Name, Operation, Order},
    skeleton::Skeleton,
    view::View,
};

/// The live operations of a feed: what remains of all operations when those that were replaced are
/// taken away. The same set of records gives the same map, whatever the order they came in.
///
/// A second map holds, for the same feed, what the disk shows; the operations are shared.
#[derive(Debug, Clone, Default)]
pub struct FeedMap {
    /// Shared between maps until one of them changes: the disk's map and what it is to become are nearly equal.
    tables: BTreeMap<DirId, Arc<Table>>,
    placements: DirectoryIndex,
    former: DirectoryIndex,
    keys: usize,
    skeleton: OnceLock<Arc<Skeleton>>,
}

impl FeedMap {
    /// Puts operations, each in the place of those of its key that it replaces.
    pub fn apply(&mut self, operations: &[Arc<Operation>]) {
        for operation in operations {
            self.change(&operation.key, |old| !operation.replaces(&old.dot), slice::from_ref(operation));
        }
    }

    /// Puts `live` in the place of all operations of one key.
    pub fn set_key(&mut self, key: Key, live: Vec<Arc<Operation>>) {
        debug_assert!(live.iter().all(|operation| operation.key == key));
        self.change(&key, |old| live.iter().any(|operation| operation.dot == old.dot), &live);
    }

    /// This map with some keys as `other` has them.
    pub fn with<'k>(&self, other: &FeedMap, keys: impl IntoIterator<Item = &'k Key>) -> FeedMap {
        let mut map = self.clone();
        for key in keys {
            map.set_key(key.clone(), other.at(key).to_vec());
        }
        map
    }

    /// The keys because of which a directory is where it is: those that place it, else those that remember
    /// where it was.
    pub fn keys_placing(&self, dir: DirId) -> impl Iterator<Item = &Key> {
        let placements = self.placements.of(dir);
        let speaking = if placements.is_empty() { self.former.of(dir) } else { placements };
        speaking.iter().map(|operation| &operation.key)
    }

    /// The live operations of a key, in rising order.
    pub fn at(&self, key: &Key) -> &[Arc<Operation>] {
        self.lookup(key.dir, key.name.as_bytes())
    }

    /// The live operations of a name in a directory, in rising order.
    pub fn lookup(&self, dir: DirId, name: &[u8]) -> &[Arc<Operation>] {
        self.tables.get(&dir).and_then(|table| table.slots.get(name)).map_or(&[], Slot::as_slice)
    }

    /// The names of one directory's table with their live operations, rising.
    pub fn table(&self, dir: DirId) -> impl Iterator<Item = (&Name, &[Arc<Operation>])> {
        let slots = self.tables.get(&dir).into_iter().flat_map(|table| &table.slots);
        slots.map(|(name, slot)| (name, slot.as_slice()))
    }

    /// All keys, rising.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.iter().filter_map(|live| live.first()).map(|operation| &operation.key)
    }

    /// The live operations of each key, rising by key.
    pub fn iter(&self) -> impl Iterator<Item = &[Arc<Operation>]> {
        self.tables.values().flat_map(|table| table.slots.values()).map(Slot::as_slice)
    }

    /// Number of keys with a live operation, tombstones included.
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// The tree that the live operations show.
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }

    /// The directories of the tree; kept until an operation changes them.
    pub(super) fn skeleton(&self) -> &Skeleton {
        self.skeleton.get_or_init(|| Arc::new(Skeleton::of(self)))
    }

    /// The live operations that place a directory, in rising order.
    pub(super) fn placements_of(&self, dir: DirId) -> &[Arc<Operation>] {
        self.placements.of(dir)
    }

    /// Every live operation that places a directory, once for each id it places.
    pub(super) fn placements(&self) -> impl Iterator<Item = (DirId, &Arc<Operation>)> {
        self.placements.iter()
    }

    /// The live operations that remember a directory's former place.
    pub(super) fn former_of(&self, dir: DirId) -> &[Arc<Operation>] {
        self.former.of(dir)
    }

    /// The directories with a live value in their table.
    pub(super) fn filled_tables(&self) -> impl Iterator<Item = DirId> {
        self.tables.iter().filter(|(_, table)| table.values > 0).map(|(dir, _)| *dir)
    }

    /// The names of a table that have more than one live value, rising.
    pub(super) fn contested(&self, dir: DirId) -> impl Iterator<Item = &Name> {
        self.tables.get(&dir).into_iter().flat_map(|table| &table.contested)
    }

    /// Drops the operations of `key` that are not kept and adds those that are missing; keeps the index.
    pub(super) fn change(&mut self, key: &Key, keep: impl Fn(&Operation) -> bool, add: &[Arc<Operation>]) -> bool {
        let old = self.at(key);
        let dropped: Vec<Arc<Operation>> = old.iter().filter(|operation| !keep(operation)).cloned().collect();
        let is_new = |operation: &&Arc<Operation>| !old.iter().any(|other| other.dot == operation.dot);
        let added: Vec<Arc<Operation>> = add.iter().filter(is_new).cloned().collect();
        if dropped.is_empty() && added.is_empty() {
            return false;
        }
        let remembered = newest_former(old);
        for operation in &dropped {
            self.unindex(operation);
        }
        for operation in &added {
            self.index(operation);
        }
        let name = added.first().map_or_else(|| key.name.clone(), |operation| operation.key.name.clone());
        let table = Arc::make_mut(self.tables.entry(key.dir).or_default());
        let was_filled = table.values > 0;
        let had_key = table.slots.contains_key(&name);
        table.change(&name, &dropped, added);
        let has_key = table.slots.contains_key(&name);
        let is_filled = table.values > 0;
        if table.slots.is_empty() {
            self.tables.remove(&key.dir);
        }
        self.keys = self.keys + usize::from(has_key) - usize::from(had_key);
        let needs_place = key.dir != DirId::ROOT && self.placements.of(key.dir).is_empty();
        if (was_filled != is_filled && needs_place) || newest_former(self.at(key)) != remembered {
            self.skeleton.take();
        }
        true
    }

    fn index(&mut self, operation: &Arc<Operation>) {
        for dir in operation.value.dirs() {
            self.placements.insert(*dir, operation);
            self.skeleton.take();
        }
        for former in &operation.former {
            self.former.insert(former.dir, operation);
        }
    }

    fn unindex(&mut self, operation: &Arc<Operation>) {
        for dir in operation.value.dirs() {
            self.placements.remove(*dir, operation);
            self.skeleton.take();
        }
        for former in &operation.former {
            self.former.remove(former.dir, operation);
        }
    }
}

/// Equal live operations; the index follows from them.
impl PartialEq for FeedMap {
    fn eq(&self, other: &FeedMap) -> bool {
        self.keys == other.keys && self.tables == other.tables
    }
}

/// For each directory that the operations of a key remember, the newest place it had there.
fn newest_former(live: &[Arc<Operation>]) -> BTreeMap<DirId, Order> {
    let mut newest = BTreeMap::new();
    for former in live.iter().flat_map(|operation| &operation.former) {
        let order = newest.entry(former.dir).or_insert(former.order);
        *order = former.order.max(*order);
    }
    newest
}

/// The live operations of the names in one directory id.
#[derive(Debug, Clone, Default, PartialEq)]
struct Table {
    slots: BTreeMap<Name, Slot>,
    /// Live operations that are no tombstones.
    values: usize,
    contested: BTreeSet<Name>,
}

impl Table {
    fn change(&mut self, name: &Name, dropped: &[Arc<Operation>], added: Vec<Arc<Operation>>) {
        let values = |operations: &[Arc<Operation>]| operations.iter().filter(|op| !op.value.is_tombstone()).count();
        self.values = self.values + values(&added) - values(dropped);
        let old = self.slots.get(name).map_or(&[][..], Slot::as_slice);
        let is_kept = |operation: &&Arc<Operation>| !dropped.iter().any(|other| other.dot == operation.dot);
        let mut live: Vec<Arc<Operation>> = old.iter().filter(is_kept).cloned().chain(added).collect();
        live.sort_unstable_by_key(|operation| operation.order());
        if values(&live) > 1 {
            self.contested.insert(name.clone());
        } else {
            self.contested.remove(name);
        }
        match Slot::new(live) {
            Some(slot) => drop(self.slots.insert(name.clone(), slot)),
            None => drop(self.slots.remove(name)),
        }
    }
}

/// The live operations of one key in rising order: nearly always one.
#[derive(Debug, Clone, PartialEq)]
enum Slot {
    One(Arc<Operation>),
    // Boxed twice, so that the many slots with one operation take two words and not three.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Arc<Operation>>>),
}

impl Slot {
    fn new(mut live: Vec<Arc<Operation>>) -> Option<Slot> {
        match live.len() {
            0 | 1 => live.pop().map(Slot::One),
            _ => Some(Slot::Many(Box::new(live))),
        }
    }

    fn as_slice(&self) -> &[Arc<Operation>] {
        match self {
            Slot::One(operation) => slice::from_ref(operation),
            Slot::Many(operations) => operations,
        }
    }
}

/// Operations by a directory they speak about, in rising order.
#[derive(Debug, Clone, Default)]
struct DirectoryIndex(BTreeMap<DirId, Vec<Arc<Operation>>>);

impl DirectoryIndex {
    fn of(&self, dir: DirId) -> &[Arc<Operation>] {
        self.0.get(&dir).map_or(&[], Vec::as_slice)
    }

    fn iter(&self) -> impl Iterator<Item = (DirId, &Arc<Operation>)> {
        self.0.iter().flat_map(|(dir, operations)| operations.iter().map(|operation| (*dir, operation)))
    }

    fn insert(&mut self, dir: DirId, operation: &Arc<Operation>) {
        let operations = self.0.entry(dir).or_default();
        let at = operations.partition_point(|other| other.order() < operation.order());
        operations.insert(at, operation.clone());
    }

    fn remove(&mut self, dir: DirId, operation: &Arc<Operation>) {
        if let Some(operations) = self.0.get_mut(&dir) {
            operations.retain(|other| other.dot != operation.dot);
            if operations.is_empty() {
                self.0.remove(&dir);
            }
        }
    }
}
