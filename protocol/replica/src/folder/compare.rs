//! What differs between two trees of one folder, looked for only where it can differ.
//!
//! The two trees are views of maps that are equal but for some keys. A key shows under its own name and,
//! when it lost that to another, under a conflict name; a change of directories moves or merges whole
//! pages. Everything else is the same in both and is not looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::feed::{Entry, Key, Name, NodeId, Operation, View};

/// A directory of either tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dir {
    /// One that the first tree has, by its node there.
    Old(NodeId),
    /// One that only the second tree has, by its node there.
    New(NodeId),
}

impl Dir {
    /// The folder's root.
    pub const ROOT: Dir = Dir::Old(NodeId::ROOT);
}

/// A name that shows different things in the two trees.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The directory.
    pub dir: Dir,
    /// The name in it.
    pub name: Name,
    /// What the first tree shows.
    pub old: Option<Entry>,
    /// What the second tree shows.
    pub new: Option<Entry>,
}

impl Slot {
    /// The keys because of which either tree shows something here.
    pub fn keys(&self) -> BTreeSet<Key> {
        let sources = [&self.old, &self.new].into_iter().flatten().flat_map(Entry::sources);
        sources.map(|operation| operation.key.clone()).collect()
    }
}

/// Two trees, and which directory of one is which of the other.
pub struct Trees<'a> {
    /// The first tree.
    pub old: View<'a>,
    /// The second tree.
    pub new: View<'a>,
    /// Both have the same directories at the same places.
    alike: bool,
    old_of: BTreeMap<NodeId, NodeId>,
    new_of: BTreeMap<NodeId, NodeId>,
}

impl<'a> Trees<'a> {
    /// Pairs directories that share an id: of several, the one that is already at its place, else the
    /// first. A directory that is new takes over one of the same name that the second tree does not have.
    pub fn new(old: View<'a>, new: View<'a>) -> Self {
        let alike = old.has_directories_of(&new);
        let mut trees = Trees { old, new, alike, old_of: BTreeMap::new(), new_of: BTreeMap::new() };
        if !alike {
            for node in trees.new.nodes() {
                let candidates = trees.sharing_an_id(node);
                let at_place = candidates.iter().find(|old| trees.is_at_place(**old, node)).copied();
                if let Some(old) = at_place.or(candidates.first().copied()) {
                    trees.pair(old, node);
                }
            }
            for node in trees.new.nodes() {
                if !trees.old_of.contains_key(&node)
                    && let Some(old) = trees.at_the_place_of(node)
                {
                    trees.pair(old, node);
                }
            }
        }
        trees
    }

    /// Whether both trees have the same directories at the same places.
    pub fn are_alike(&self) -> bool {
        self.alike
    }

    /// The directory of the first tree that a node of the second is.
    pub fn old_of(&self, new: NodeId) -> Option<NodeId> {
        if self.alike { Some(new) } else { self.old_of.get(&new).copied() }
    }

    /// The directory of the second tree that a node of the first is.
    pub fn new_of(&self, old: NodeId) -> Option<NodeId> {
        if self.alike { Some(old) } else { self.new_of.get(&old).copied() }
    }

    /// The directory that a node of the second tree is.
    pub fn dir(&self, new: NodeId) -> Dir {
        self.old_of(new).map_or(Dir::New(new), Dir::Old)
    }

    /// Its nodes in the first and second tree.
    pub fn nodes(&self, dir: Dir) -> (Option<NodeId>, Option<NodeId>) {
        match dir {
            Dir::Old(old) => (Some(old), self.new_of(old)),
            Dir::New(new) => (None, Some(new)),
        }
    }

    /// Whether a directory of the first tree is where the second wants it.
    pub fn is_at_place(&self, old: NodeId, new: NodeId) -> bool {
        match (self.old.slot_of(old), self.new.slot_of(new)) {
            (Some((parent, name)), Some((want, want_name))) => name == want_name && self.old_of(want) == Some(parent),
            (None, None) => true,
            _ => false,
        }
    }

    /// The names that show different things, when only `keys` differ between the two maps.
    pub fn differing(&self, keys: &BTreeSet<Key>) -> Vec<Slot> {
        let mut names: BTreeMap<Dir, BTreeSet<Name>> = BTreeMap::new();
        for key in keys {
            if let Some(node) = self.old.node_of(key.dir) {
                names.entry(Dir::Old(node)).or_default().extend(shown(&self.old, node, &key.name));
            }
            if let Some(node) = self.new.node_of(key.dir) {
                names.entry(self.dir(node)).or_default().extend(shown(&self.new, node, &key.name));
            }
        }
        if !self.alike {
            self.add_directories(&mut names);
        }
        let slots = names.into_iter().flat_map(|(dir, names)| names.into_iter().map(move |name| (dir, name)));
        slots.filter_map(|(dir, name)| self.slot(dir, name)).collect()
    }

    /// Where the second tree shows what the first showed at a slot, when that is a name that shows the same in
    /// both: what was at the slot has an equal twin there already.
    pub fn twin(&self, slot: &Slot) -> Option<Slot> {
        slot.old.as_ref()?.sources().iter().find_map(|operation| self.unchanged(operation))
    }

    /// Where the second tree shows an operation, when that is a name that shows the same in both.
    pub fn unchanged(&self, operation: &Operation) -> Option<Slot> {
        let node = self.new.node_of(operation.key.dir)?;
        let is_shown = |name: &Name| {
            let entry = self.new.entry_in(node, name);
            entry.is_some_and(|entry| entry.sources().iter().any(|source| source.dot == operation.dot))
        };
        let name = shown(&self.new, node, &operation.key.name).into_iter().find(is_shown)?;
        Some(self.at(self.dir(node), name)).filter(|slot| self.same(slot.old.as_ref(), slot.new.as_ref()))
    }

    fn slot(&self, dir: Dir, name: Name) -> Option<Slot> {
        Some(self.at(dir, name)).filter(|slot| !self.same(slot.old.as_ref(), slot.new.as_ref()))
    }

    fn at(&self, dir: Dir, name: Name) -> Slot {
        let (old, new) = self.nodes(dir);
        let old = old.and_then(|node| self.old.entry_in(node, &name));
        let new = new.and_then(|node| self.new.entry_in(node, &name));
        Slot { dir, name, old, new }
    }

    fn same(&self, old: Option<&Entry>, new: Option<&Entry>) -> bool {
        match (old, new) {
            (None, None) => true,
            (Some(Entry::File { value: old, .. }), Some(Entry::File { value: new, .. })) => old.same_as(new),
            (Some(Entry::Dir { node: old, .. }), Some(Entry::Dir { node: new, .. })) => self.old_of(*new) == Some(*old),
            _ => false,
        }
    }

    /// Of directories that came, went, merged or split everything, of those that moved the two names.
    fn add_directories(&self, names: &mut BTreeMap<Dir, BTreeSet<Name>>) {
        for node in self.new.nodes() {
            let old = self.old_of(node);
            let unchanged = old.is_some_and(|old| self.old.ids_of(old) == self.new.ids_of(node));
            if !unchanged {
                let page = names.entry(self.dir(node)).or_default();
                page.extend(self.new.page(node).into_keys());
                page.extend(old.into_iter().flat_map(|old| self.old.page(old).into_keys()));
            }
            if !old.is_some_and(|old| unchanged && self.is_at_place(old, node)) {
                if let Some((parent, name)) = self.new.slot_of(node) {
                    names.entry(self.dir(parent)).or_default().extend(shown(&self.new, parent, &name));
                }
                self.add_old_place(old, names);
            }
        }
        for node in self.old.nodes().filter(|node| self.new_of(*node).is_none()) {
            names.entry(Dir::Old(node)).or_default().extend(self.old.page(node).into_keys());
            self.add_old_place(Some(node), names);
        }
    }

    fn add_old_place(&self, old: Option<NodeId>, names: &mut BTreeMap<Dir, BTreeSet<Name>>) {
        if let Some((parent, name)) = old.and_then(|old| self.old.slot_of(old)) {
            names.entry(Dir::Old(parent)).or_default().extend(shown(&self.old, parent, &name));
        }
    }

    fn pair(&mut self, old: NodeId, new: NodeId) {
        self.old_of.insert(new, old);
        self.new_of.insert(old, new);
    }

    fn sharing_an_id(&self, new: NodeId) -> Vec<NodeId> {
        let mut found = Vec::new();
        for old in self.new.ids_of(new).iter().filter_map(|id| self.old.node_of(*id)) {
            if !self.new_of.contains_key(&old) && !found.contains(&old) {
                found.push(old);
            }
        }
        found
    }

    fn at_the_place_of(&self, new: NodeId) -> Option<NodeId> {
        let (parent, name) = self.new.slot_of(new)?;
        let old = self.old.entry_in(self.old_of(parent)?, &name)?.node()?;
        (!self.new_of.contains_key(&old)).then_some(old)
    }
}

/// The names under which a key of this name, or what lost that name or was named past it, is shown.
fn shown(view: &View<'_>, node: NodeId, name: &Name) -> Vec<Name> {
    let mut names = view.losers_by(node, name);
    names.push(name.clone());
    names
}
