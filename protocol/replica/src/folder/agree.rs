//! Which of the differences on disk are nothing new: the replica has them so already.
//!
//! A placing that was cut short, a restored copy, or the same content put there by hand is not an edit.
//! The base learns of it by taking over the keys concerned as the replica has them, but only as far as
//! the tree that it then shows is the one on disk: a key that shows under two names is in line when both
//! are there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    compare::{Dir, Slot, Trees},
    scan::{Difference, Found},
};
use crate::feed::{Entry, FeedMap, Key, Name, NodeId, View};

/// Keys that the disk shows as the replica has them.
#[derive(Default)]
pub struct Agreement {
    /// The keys.
    pub keys: BTreeSet<Key>,
    /// Differences that are none once these keys are taken over, by their position.
    pub settled: BTreeSet<usize>,
    /// Differences that are as the replica has them but cannot be taken over by themselves.
    pub partial: BTreeSet<usize>,
}

/// Finds the keys that can be taken over from the replica because the disk shows them.
pub fn agreement(base: &FeedMap, feed: &FeedMap, differences: &[Difference]) -> Agreement {
    let mut agreement = Agreement::default();
    let (old, wanted) = (base.view(), feed.view());
    for (number, difference) in differences.iter().enumerate() {
        if let Some(keys) = as_wanted(&old, &wanted, difference) {
            agreement.keys.extend(keys.into_iter().filter(|key| !in_line(base, feed, key)));
            agreement.partial.insert(number);
        }
    }
    while !agreement.keys.is_empty() {
        let target = base.with(feed, &agreement.keys);
        let trees = Trees::new(base.view(), target.view());
        let disk = OnDisk::new(&trees, differences);
        let slots = trees.differing(&agreement.keys);
        let unexplained: Vec<&Slot> = slots.iter().filter(|slot| !disk.explains(&trees, slot)).collect();
        let mut refuted: BTreeSet<Key> = unexplained.iter().flat_map(|slot| slot.keys()).collect();
        // Where the tree says the same as before and the disk says something else, it is the user's word.
        for difference in differences.iter().filter(|difference| !disk.is_shown(&trees, difference)) {
            let entry = trees.new.entry(difference.at, &difference.name);
            refuted.extend(entry.iter().flat_map(Entry::sources).map(|operation| operation.key.clone()));
        }
        refuted.retain(|key| agreement.keys.contains(key));
        // What would be shown in a directory that is gone is not there, though both trees say the same of it.
        let shows = |key: &&Key| target.at(key).iter().any(|operation| !operation.value.is_tombstone());
        refuted.extend(agreement.keys.iter().filter(shows).filter(|key| disk.is_gone(&trees, key)).cloned());
        if refuted.is_empty() && unexplained.is_empty() {
            agreement.settled =
                agreement.partial.iter().copied().filter(|n| disk.is_shown(&trees, &differences[*n])).collect();
            agreement.partial.retain(|number| !agreement.settled.contains(number));
            return agreement;
        }
        if refuted.is_empty() {
            agreement.keys.clear();
        }
        agreement.keys.retain(|key| !refuted.contains(key));
    }
    agreement
}

/// Whether base and replica hold the same operations at a key.
pub fn in_line(base: &FeedMap, feed: &FeedMap, key: &Key) -> bool {
    let (old, new) = (base.at(key), feed.at(key));
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.dot == new.dot)
}

/// Of the names that keys show differently in two trees those at which the disk shows what the second one does.
pub fn shown_slots(trees: &Trees<'_>, keys: &BTreeSet<Key>, differences: &[Difference]) -> Vec<Slot> {
    let disk = OnDisk::new(trees, differences);
    let mut slots = trees.differing(keys);
    slots.retain(|slot| disk.explains(trees, slot));
    slots
}

/// The keys behind a difference that is as the replica has it.
fn as_wanted(old: &View<'_>, wanted: &View<'_>, difference: &Difference) -> Option<BTreeSet<Key>> {
    let before = old.entry(difference.at, &difference.name);
    let after = wanted.entry(difference.at, &difference.name);
    match (&difference.now, &after) {
        (Found::File(found), Some(Entry::File { value, .. })) if value.same_as(found) => {}
        (Found::Dir(dir), Some(Entry::Dir { node, .. })) if wanted.node_of(*dir) == Some(*node) => {}
        (Found::Absent, None) if before.is_some() => {}
        _ => return None,
    }
    let sources = before.iter().chain(&after).flat_map(Entry::sources);
    let mut keys: BTreeSet<Key> = sources.map(|operation| operation.key.clone()).collect();
    if let (Found::Absent, Some(node)) = (&difference.now, before.as_ref().and_then(Entry::node)) {
        let gone = old.nodes().filter(|inner| is_within(old, *inner, node));
        keys.extend(
            gone.flat_map(|inner| old.ids_of(inner))
                .flat_map(|dir| old.map().table(*dir))
                .filter_map(|(_, live)| live.first().map(|operation| operation.key.clone())),
        );
    }
    Some(keys)
}

fn is_within(view: &View<'_>, node: NodeId, top: NodeId) -> bool {
    let mut at = Some(node);
    while let Some(node) = at {
        if node == top {
            return true;
        }
        at = view.slot_of(node).map(|(parent, _)| parent);
    }
    false
}

/// What was found on disk, by name.
struct OnDisk<'d> {
    found: BTreeMap<(Dir, &'d Name), &'d Found>,
    gone: BTreeSet<NodeId>,
}

impl<'d> OnDisk<'d> {
    fn new(trees: &Trees<'_>, differences: &'d [Difference]) -> Self {
        let mut disk = OnDisk { found: BTreeMap::new(), gone: BTreeSet::new() };
        let mut placed = BTreeSet::new();
        for difference in differences {
            if let Some(dir) = dir_of(trees, difference) {
                disk.found.insert((dir, &difference.name), &difference.now);
            }
            if let Found::Dir(dir) = &difference.now {
                placed.extend(trees.old.node_of(*dir));
            }
        }
        // Parents come first, so what is in a directory that is gone is gone, too, unless it was moved.
        for node in trees.old.nodes() {
            let Some((parent, name)) = trees.old.slot_of(node) else { continue };
            let left = disk.found.contains_key(&(Dir::Old(parent), &name));
            if !placed.contains(&node) && (left || disk.gone.contains(&parent)) {
                disk.gone.insert(node);
            }
        }
        disk
    }

    /// Whether the disk shows the new side of a slot.
    fn explains(&self, trees: &Trees<'_>, slot: &Slot) -> bool {
        if matches!(slot.dir, Dir::Old(node) if self.gone.contains(&node)) {
            return slot.new.is_none();
        }
        self.found.get(&(slot.dir, &slot.name)).is_some_and(|found| shows(trees, found, slot.new.as_ref()))
    }

    /// Whether the directory is gone in which the second tree shows a key.
    fn is_gone(&self, trees: &Trees<'_>, key: &Key) -> bool {
        let old = trees.new.node_of(key.dir).and_then(|node| trees.old_of(node));
        old.is_some_and(|node| self.gone.contains(&node))
    }

    /// Whether the second tree shows what a difference found.
    fn is_shown(&self, trees: &Trees<'_>, difference: &Difference) -> bool {
        let Some(dir) = dir_of(trees, difference) else { return false };
        let new = trees.nodes(dir).1.and_then(|node| trees.new.entry_in(node, &difference.name));
        shows(trees, &difference.now, new.as_ref())
    }
}

fn dir_of(trees: &Trees<'_>, difference: &Difference) -> Option<Dir> {
    let new = || trees.new.node_of(difference.at).map(|node| trees.dir(node));
    trees.old.node_of(difference.at).map(Dir::Old).or_else(new)
}

fn shows(trees: &Trees<'_>, found: &Found, entry: Option<&Entry>) -> bool {
    match (found, entry) {
        (Found::Absent, None) => true,
        (Found::File(found), Some(Entry::File { value, .. })) => value.same_as(found),
        (Found::Dir(dir), Some(Entry::Dir { node, .. })) => trees.new.node_of(*dir) == Some(*node),
        _ => false,
    }
}
