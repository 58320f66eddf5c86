//! Which names an author must write: those that he changed, and those that would change with them.

use std::collections::BTreeSet;

use meshwork_protocol::id::DirId;

use super::overlay::{Overlay, Shown, Slot, Spot};
use crate::feed::{operation::Name, page::Entry, skeleton::NodeId};

/// A set of names that grows until nothing outside it depends on anything in it.
pub(super) struct Touched<'a> {
    overlay: &'a Overlay<'a>,
    slots: BTreeSet<Slot>,
    pending: Vec<Slot>,
    refused_settled: bool,
}

impl<'a> Touched<'a> {
    pub fn new(overlay: &'a Overlay<'a>) -> Self {
        Touched { overlay, slots: BTreeSet::new(), pending: Vec::new(), refused_settled: false }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The names that differ, and the keys of what they showed; of a removed directory everything that
    /// was shown in it.
    pub fn touch_edited(&mut self) {
        let overlay = self.overlay;
        for slot in overlay.edited().filter(|slot| overlay.is_reached(slot.0) && overlay.is_changed(slot)) {
            self.touch(slot.clone());
            if let Some(entry) = overlay.entry(slot) {
                self.touch_sources(slot.0, &entry);
            }
        }
        let map = overlay.view().map();
        for node in &overlay.removed {
            for dir in overlay.view().ids_of(*node) {
                let filled = map.table(*dir).filter(|(_, live)| live.iter().any(|op| !op.value.is_tombstone()));
                for (name, _) in filled {
                    self.touch((Spot::Viewed(*node), name.clone()));
                }
            }
        }
    }

    /// Every placement, shown or hidden, of the directories that are not where they were.
    pub fn touch_moved(&mut self) {
        for node in self.overlay.moved.iter().chain(&self.overlay.removed) {
            self.touch_placements(*node);
        }
    }

    /// Adds what depends on the touched names until nothing is added.
    pub fn settle(&mut self) {
        while let Some(slot) = self.pending.pop() {
            self.settle_refused(&slot);
            let Spot::Viewed(node) = slot.0 else { continue };
            if self.overlay.is_reached(slot.0) {
                if self.overlay.view().is_implicit(node) && self.overlay.is_in_place(node) {
                    self.touch_directory(node);
                }
                self.touch_entries(node, &slot.1);
            }
        }
    }

    /// A change of directories may dissolve a cycle: then those that it had put back would jump.
    fn settle_refused(&mut self, slot: &Slot) {
        let view = self.overlay.view();
        if self.refused_settled || view.refused().is_empty() || !self.concerns_directory(slot) {
            return;
        }
        self.refused_settled = true;
        for node in view.refused().iter().filter_map(|dir: &DirId| view.node_of(*dir)) {
            if self.overlay.is_in_place(node) {
                self.touch_directory(node);
            }
            self.touch_placements(node);
        }
    }

    fn concerns_directory(&self, slot: &Slot) -> bool {
        let shown = self.overlay.shown(slot.0, &slot.1);
        !self.overlay.is_reached(slot.0)
            || self.overlay.entry(slot).is_some_and(|entry| entry.is_dir())
            || matches!(shown, Some(Shown::Dir(_)))
    }

    /// The entries that are shown because of a touched key name, or under a touched name, or past one.
    fn touch_entries(&mut self, node: NodeId, name: &Name) {
        let view = self.overlay.view();
        for shown_as in view.losers_by(node, name).iter().chain([name]) {
            if let Some(entry) = view.entry_in(node, shown_as) {
                self.touch((Spot::Viewed(node), shown_as.clone()));
                self.touch_sources(Spot::Viewed(node), &entry);
            }
        }
    }

    /// The key names of an entry.
    fn touch_sources(&mut self, spot: Spot, entry: &Entry) {
        if let Some((_, key_name)) = entry.node().and_then(|node| self.overlay.view().place_of(node)) {
            self.touch((spot, key_name.clone()));
        }
        for operation in entry.sources() {
            self.touch((spot, operation.key.name.clone()));
        }
    }

    /// The name that a viewed directory is shown as.
    fn touch_directory(&mut self, node: NodeId) {
        if let Some((parent, name)) = self.overlay.view().slot_of(node) {
            self.touch((Spot::Viewed(parent), name));
        }
    }

    fn touch_placements(&mut self, node: NodeId) {
        let view = self.overlay.view();
        for operation in view.ids_of(node).iter().flat_map(|dir| view.map().placements_of(*dir)) {
            if let Some(parent) = view.node_of(operation.key.dir) {
                self.touch((Spot::Viewed(parent), operation.key.name.clone()));
            }
        }
    }

    fn touch(&mut self, slot: Slot) {
        if self.slots.insert(slot.clone()) {
            self.pending.push(slot);
        }
    }
}
