//! The edited tree: the view with some names changed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    slice,
};

use meshwork_protocol::id::DirId;

use super::{EditError, Edits, NodeRef, Now};
use crate::feed::{
    operation::{FileValue, Name},
    page::Entry,
    skeleton::NodeId,
    view::View,
};

/// A directory of the edited tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    Viewed(NodeId),
    New(usize),
}

pub(super) type Slot = (Spot, Name);

/// What a name shows in the edited tree.
#[derive(Clone)]
pub(super) enum Shown {
    File(FileValue),
    Dir(Spot),
}

impl Shown {
    pub fn spot(&self) -> Option<Spot> {
        match self {
            Shown::Dir(spot) => Some(*spot),
            Shown::File(_) => None,
        }
    }

    /// Whether the view shows the same, attributes included.
    fn is(&self, entry: &Entry) -> bool {
        match (self, entry) {
            (Shown::File(file), Entry::File { value, .. }) => file.same_as(value),
            (Shown::Dir(spot), Entry::Dir { node, .. }) => *spot == Spot::Viewed(*node),
            _ => false,
        }
    }
}

pub(super) struct Overlay<'a> {
    view: &'a View<'a>,
    new_dirs: &'a [DirId],
    edited: BTreeMap<Slot, Option<Shown>>,
    placed: BTreeMap<Spot, Slot>,
    reached: RefCell<BTreeMap<Spot, bool>>,
    /// Viewed directories that are elsewhere now.
    pub moved: BTreeSet<NodeId>,
    /// Viewed directories that are nowhere now.
    pub removed: BTreeSet<NodeId>,
}

impl<'a> Overlay<'a> {
    pub fn new(view: &'a View<'a>, edits: &'a Edits) -> Result<Self, EditError> {
        let mut overlay = Overlay {
            view,
            new_dirs: &edits.new_dirs,
            edited: BTreeMap::new(),
            placed: BTreeMap::new(),
            reached: RefCell::default(),
            moved: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        overlay.check_new_dirs()?;
        for edit in &edits.edits {
            let shown = match &edit.now {
                Now::Absent => None,
                Now::File(file) => Some(Shown::File(file.clone())),
                Now::Dir(node) => Some(Shown::Dir(overlay.resolve(*node)?)),
            };
            overlay.edited.insert((overlay.resolve(edit.at)?, edit.name.clone()), shown);
        }
        overlay.place_directories()?;
        overlay.check_places()?;
        overlay.find_moved();
        Ok(overlay)
    }

    pub fn view(&self) -> &'a View<'a> {
        self.view
    }

    /// The names that were edited.
    pub fn edited(&self) -> impl Iterator<Item = &Slot> {
        self.edited.keys()
    }

    /// Whether an edited name shows what it did.
    pub fn is_unchanged(&self, slot: &Slot) -> bool {
        match (self.edited.get(slot), self.entry(slot)) {
            (None, _) | (Some(None), None) => true,
            (Some(Some(shown)), Some(entry)) => shown.is(&entry),
            _ => false,
        }
    }

    /// Whether a name shows something else than it did.
    pub fn is_changed(&self, slot: &Slot) -> bool {
        self.edited.contains_key(slot) && !self.is_unchanged(slot)
    }

    /// What the view shows under a name.
    pub fn entry(&self, (spot, name): &Slot) -> Option<Entry> {
        match spot {
            Spot::Viewed(node) => self.view.entry_in(*node, name),
            Spot::New(_) => None,
        }
    }

    /// What a name shows in the edited tree.
    pub fn shown(&self, spot: Spot, name: &Name) -> Option<Shown> {
        let slot = (spot, name.clone());
        if let Some(shown) = self.edited.get(&slot) {
            return shown.clone();
        }
        Some(match self.entry(&slot)? {
            Entry::File { value, .. } => Shown::File(value),
            Entry::Dir { node, .. } => Shown::Dir(Spot::Viewed(node)),
        })
    }

    pub fn ids_of(&self, spot: Spot) -> &'a [DirId] {
        match spot {
            Spot::Viewed(node) => self.view.ids_of(node),
            Spot::New(index) => self.new_dirs.get(index).map_or(&[], slice::from_ref),
        }
    }

    /// Whether a directory is part of the edited tree.
    pub fn is_reached(&self, spot: Spot) -> bool {
        let mut path = BTreeSet::new();
        let mut at = spot;
        let reached = loop {
            if at == Spot::Viewed(NodeId::ROOT) {
                break true;
            }
            if let Some(reached) = self.reached.borrow().get(&at) {
                break *reached;
            }
            // A cycle cannot be reached; it is reported when places are checked.
            if !path.insert(at) {
                break false;
            }
            match self.slot_of(at) {
                Some((parent, _)) => at = parent,
                None => break false,
            }
        };
        self.reached.borrow_mut().extend(path.into_iter().map(|spot| (spot, reached)));
        reached
    }

    /// Whether a viewed directory is where it was.
    pub fn is_in_place(&self, node: NodeId) -> bool {
        !self.moved.contains(&node) && !self.removed.contains(&node)
    }

    /// Where a directory is in the edited tree, if its parent is part of it.
    fn slot_of(&self, spot: Spot) -> Option<Slot> {
        if let Some(slot) = self.placed.get(&spot) {
            return Some(slot.clone());
        }
        let slot = self.viewed_slot(spot)?;
        (!self.edited.contains_key(&slot)).then_some(slot)
    }

    fn viewed_slot(&self, spot: Spot) -> Option<Slot> {
        match spot {
            Spot::Viewed(node) => self.view.slot_of(node).map(|(parent, name)| (Spot::Viewed(parent), name)),
            Spot::New(_) => None,
        }
    }

    fn resolve(&self, node: NodeRef) -> Result<Spot, EditError> {
        match node {
            NodeRef::Known(dir) => self.view.node_of(dir).map(Spot::Viewed).ok_or(EditError::UnknownDirectory(dir)),
            NodeRef::New(index) if index < self.new_dirs.len() => Ok(Spot::New(index)),
            NodeRef::New(index) => Err(EditError::NoSuchNewDirectory(index)),
        }
    }

    fn check_new_dirs(&self) -> Result<(), EditError> {
        let mut seen = BTreeSet::new();
        match self.new_dirs.iter().find(|dir| self.view.node_of(**dir).is_some() || !seen.insert(**dir)) {
            Some(dir) => Err(EditError::NotNew(*dir)),
            None => Ok(()),
        }
    }

    fn place_directories(&mut self) -> Result<(), EditError> {
        for (slot, shown) in &self.edited {
            let Some(spot) = shown.as_ref().and_then(Shown::spot) else {
                continue;
            };
            if self.placed.insert(spot, slot.clone()).is_some() {
                return Err(EditError::PlacedTwice(self.any_id(spot)));
            }
        }
        Ok(())
    }

    /// Every placed directory must hang together with the root or with something that was deleted, and
    /// must have left the name it had.
    fn check_places(&self) -> Result<(), EditError> {
        for (spot, slot) in &self.placed {
            let mut path = BTreeSet::new();
            let mut at = *spot;
            while path.insert(at) {
                match self.slot_of(at) {
                    Some((parent, _)) if parent == *spot => return Err(EditError::Cycle(self.any_id(*spot))),
                    Some((parent, _)) => at = parent,
                    None => break,
                }
            }
            if *spot == Spot::Viewed(NodeId::ROOT) {
                return Err(EditError::Cycle(DirId::ROOT));
            }
            let left = |old: &Slot| old == slot || self.edited.contains_key(old) || !self.is_reached(old.0);
            if !self.viewed_slot(*spot).is_none_or(|old| left(&old)) {
                return Err(EditError::PlacedTwice(self.any_id(*spot)));
            }
        }
        Ok(())
    }

    fn any_id(&self, spot: Spot) -> DirId {
        self.ids_of(spot).first().copied().unwrap_or(DirId::ROOT)
    }

    /// Finds the directories whose name shows something else now, and what was in those that are gone.
    fn find_moved(&mut self) {
        let shown = |slot: &Slot| self.entry(slot).and_then(|entry| entry.node());
        let left = |slot: &Slot| shown(slot).filter(|node| self.placed.get(&Spot::Viewed(*node)) != Some(slot));
        let mut pending: Vec<NodeId> = self.edited.keys().filter_map(left).collect();
        while let Some(node) = pending.pop() {
            if self.is_reached(Spot::Viewed(node)) {
                self.moved.insert(node);
            } else if self.removed.insert(node) {
                pending.extend(self.view.children_of(node));
            }
        }
    }
}
