//! The tree that a feed shows: a pure function of its live operations, computed page by page.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use meshwork_protocol::id::DirId;

use super::{
    conflict_name::is_conflict_name,
    map::FeedMap,
    operation::Name,
    page::{Displaced, Entry, Page},
    skeleton::{Directory, NodeId, Skeleton},
};

/// The tree of a map at one moment. Directories are known; what is in them is looked up when asked.
pub struct View<'a> {
    map: &'a FeedMap,
    skeleton: &'a Skeleton,
    displaced: RefCell<BTreeMap<NodeId, Rc<Displaced>>>,
}

impl<'a> View<'a> {
    /// The tree that `map` shows.
    pub fn new(map: &'a FeedMap) -> Self {
        View { map, skeleton: map.skeleton(), displaced: RefCell::default() }
    }

    /// The map it shows.
    pub fn map(&self) -> &'a FeedMap {
        self.map
    }

    /// All directories, parents before what is in them; the root first.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.skeleton.nodes()
    }

    /// The directory that an id is part of.
    pub fn node_of(&self, dir: DirId) -> Option<NodeId> {
        self.skeleton.node_of(dir)
    }

    /// The ids of a directory, rising.
    pub fn ids_of(&self, node: NodeId) -> &'a [DirId] {
        &self.directory(node).ids
    }

    /// The smallest id of a directory: the one that new keys go to.
    pub fn id_of(&self, node: NodeId) -> DirId {
        self.ids_of(node).first().copied().unwrap_or(DirId::ROOT)
    }

    /// Whether a directory is there only because something in it, or a refused move, needs it.
    pub fn is_implicit(&self, node: NodeId) -> bool {
        self.directory(node).implicit
    }

    /// The parent of a directory and the name it is shown as; none for the root.
    pub fn slot_of(&self, node: NodeId) -> Option<(NodeId, Name)> {
        let directory = self.directory(node);
        let (parent, key_name) = directory.place.as_ref()?;
        if directory.placed || !self.page_of(*parent).has_losers(key_name) {
            return Some((*parent, key_name.clone()));
        }
        let displaced = self.displaced(*parent);
        Some((*parent, displaced.name_of(key_name, node).unwrap_or(key_name).clone()))
    }

    /// The names from the root to a directory.
    pub fn path_of(&self, node: NodeId) -> Vec<Name> {
        let mut path = Vec::new();
        let mut at = node;
        while let Some((parent, name)) = self.slot_of(at) {
            path.push(name);
            at = parent;
        }
        path.reverse();
        path
    }

    /// The directory at a path.
    pub fn node_at(&self, path: &[Name]) -> Option<NodeId> {
        path.iter().try_fold(NodeId::ROOT, |node, name| self.entry_in(node, name)?.node())
    }

    /// What a name shows in the directory that `dir` is part of.
    pub fn entry(&self, dir: DirId, name: &Name) -> Option<Entry> {
        self.entry_in(self.node_of(dir)?, name)
    }

    /// What a name shows in a directory.
    pub fn entry_in(&self, node: NodeId, name: &Name) -> Option<Entry> {
        if is_conflict_name(name)
            && let Some(entry) = self.displaced(node).entries.get(name)
        {
            return Some(entry.clone());
        }
        self.page_of(node).winner(name)
    }

    /// All entries of a directory.
    pub fn page(&self, node: NodeId) -> BTreeMap<Name, Entry> {
        let mut page = self.page_of(node).winners();
        page.extend(self.displaced(node).entries.iter().map(|(name, entry)| (name.clone(), entry.clone())));
        page
    }

    /// All entries by path: for tests and small trees.
    pub fn flatten(&self) -> BTreeMap<Vec<Name>, Entry> {
        let mut paths: BTreeMap<NodeId, Vec<Name>> = BTreeMap::from([(NodeId::ROOT, Vec::new())]);
        let mut flat = BTreeMap::new();
        for node in self.nodes() {
            let above = paths.remove(&node).unwrap_or_default();
            for (name, entry) in self.page(node) {
                let path: Vec<Name> = above.iter().cloned().chain([name]).collect();
                if let Entry::Dir { node, .. } = entry {
                    paths.insert(node, path.clone());
                }
                flat.insert(path, entry);
            }
        }
        flat
    }

    /// The parent and key name of a directory, which may be shown as another.
    pub(super) fn place_of(&self, node: NodeId) -> Option<&'a (NodeId, Name)> {
        self.directory(node).place.as_ref()
    }

    /// The directories directly in one.
    pub(super) fn children_of(&self, node: NodeId) -> impl Iterator<Item = NodeId> + use<'a> {
        self.directory(node).children.values().copied()
    }

    /// Ids of which a place was refused because it would have made a cycle.
    pub(super) fn refused(&self) -> &'a BTreeSet<DirId> {
        &self.skeleton.refused
    }

    /// Whether both trees have the same directories at the same places, as far as that is known without
    /// a comparison; what a directory is shown as may still differ where names are contested.
    pub fn has_directories_of(&self, other: &View<'_>) -> bool {
        std::ptr::eq(self.skeleton, other.skeleton)
    }

    /// The names of losers that were formed from a key name or past a name.
    pub fn losers_by(&self, node: NodeId, name: &Name) -> Vec<Name> {
        if !is_conflict_name(name) && !self.page_of(node).has_losers(name) {
            return Vec::new();
        }
        let displaced = self.displaced(node);
        [&displaced.shown_as, &displaced.past]
            .into_iter()
            .filter_map(|index| index.get(name))
            .flatten()
            .cloned()
            .collect()
    }

    /// The losers of a directory: it takes a look at all its names when it has more than one id, so it is
    /// asked for only where it can matter.
    fn displaced(&self, node: NodeId) -> Rc<Displaced> {
        if let Some(displaced) = self.displaced.borrow().get(&node) {
            return displaced.clone();
        }
        let displaced = Rc::new(self.page_of(node).displaced());
        self.displaced.borrow_mut().insert(node, displaced.clone());
        displaced
    }

    fn page_of(&self, node: NodeId) -> Page<'a> {
        Page::new(self.map, self.skeleton, node)
    }

    fn directory(&self, node: NodeId) -> &'a Directory {
        self.skeleton.directory(node)
    }
}
