//! A feed while records are merged into it.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    sync::Arc,
};

use meshwork_protocol::id::{ChainId, RecordKey};

use super::{
    checkpoint::Part,
    map::FeedMap,
    operation::{Dot, Key, Operation},
};

/// The live operations of a feed, and what it takes to tell of later ones whether they live.
///
/// The same records give the same live operations in whatever order they came, also where a checkpoint stands for
/// the beginning of a chain.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    map: FeedMap,
    /// Operations that were replaced by some that do not build on them, and may still come.
    doomed: BTreeSet<(Key, Dot)>,
    /// Checkpoints of which only the beginning has come.
    open: BTreeMap<ChainId, Listing>,
}

/// What a checkpoint lists.
#[derive(Debug, Clone, Default)]
struct Listing {
    /// The chains whose place it takes.
    chains: BTreeSet<ChainId>,
    /// The place of the record that is to go on with it.
    next: u64,
    dots: BTreeSet<Dot>,
}

/// Where a record of a checkpoint is, and which of them it is.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Its chain.
    pub chain: ChainId,
    /// Its place there.
    pub seq: u64,
    /// Whether it begins the checkpoint.
    pub begins: bool,
    /// Whether it ends it.
    pub ends: bool,
}

/// What came of a record of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Keys that changed.
    pub keys: Vec<Key>,
    /// With its last record: those of which it lists anything.
    pub whole: Option<BTreeSet<RecordKey>>,
}

impl Feed {
    /// The live operations.
    pub fn map(&self) -> &FeedMap {
        &self.map
    }

    #[cfg(test)]
    pub(super) fn map_mut(&mut self) -> &mut FeedMap {
        &mut self.map
    }

    /// Merges the operations of one record. `context` tells which records it builds on, as far as that is known: one that
    /// is not among these is remembered, for it may come later. Returns the keys that changed.
    pub fn apply(&mut self, operations: &[Arc<Operation>], context: impl Fn(&RecordKey) -> bool) -> Vec<Key> {
        let mut changed = Vec::with_capacity(operations.len());
        for operation in operations {
            let lives = !self.doomed.remove(&(operation.key.clone(), operation.dot));
            let added = if lives { slice::from_ref(operation) } else { &[] };
            if self.map.change(&operation.key, |old| !operation.replaces(&old.dot), added) {
                changed.push(operation.key.clone());
            }
            let unknown = operation.base.iter().filter(|dot| !context(&dot.record));
            self.doomed.extend(unknown.map(|dot| (operation.key.clone(), *dot)));
        }
        changed
    }

    /// Merges a record of a checkpoint. `is_known` tells whether what a listed record says was merged here before, so that
    /// what of it is not live is dead; `chain`, which chain a record is in.
    pub fn list(
        &mut self,
        at: At,
        part: &Part,
        is_known: impl Fn(&RecordKey) -> bool,
        chain: impl Fn(&RecordKey) -> Option<ChainId>,
    ) -> Listed {
        if at.begins {
            let chains = part.chains.keys().copied().collect();
            self.open.insert(at.chain, Listing { chains, next: at.seq, dots: BTreeSet::new() });
        }
        let Some(listing) = self.open.get_mut(&at.chain) else { return Listed::default() };
        if listing.next != at.seq || !listing.chains.iter().eq(part.chains.keys()) {
            // Records are missing between: the checkpoint never ended.
            self.open.remove(&at.chain);
            return Listed::default();
        }
        listing.next += 1;
        listing.dots.extend(part.listed.iter().map(|operation| operation.dot));
        let new = part.listed.iter().filter(|operation| !is_known(&operation.dot.record));
        let new: Vec<Arc<Operation>> = new.cloned().collect();
        let mut listed = Listed { keys: self.apply(&new, |_| false), whole: None };
        for (key, dots) in &part.killed {
            if self.map.change(key, |old| !dots.contains(&old.dot), &[]) {
                listed.keys.push(key.clone());
            }
            self.doomed.extend(dots.iter().map(|dot| (key.clone(), *dot)));
        }
        if at.ends
            && let Some(whole) = self.open.remove(&at.chain)
        {
            listed.keys.extend(self.withdraw(&whole, chain));
            listed.whole = Some(whole.dots.iter().map(|dot| dot.record).collect());
        }
        listed
    }

    /// Ends what is not listed of the chains whose place a checkpoint takes: tombstones that nothing needs.
    fn withdraw(&mut self, listing: &Listing, chain: impl Fn(&RecordKey) -> Option<ChainId>) -> Vec<Key> {
        let is_of = |record: &RecordKey| chain(record).is_some_and(|of| listing.chains.contains(&of));
        let is_gone = |operation: &Operation| !listing.dots.contains(&operation.dot) && is_of(&operation.dot.record);
        let keys: BTreeSet<Key> =
            self.map.iter().flatten().filter(|operation| is_gone(operation)).map(|op| op.key.clone()).collect();
        let mut changed = Vec::new();
        for key in keys {
            self.map.change(&key, |old| !is_gone(old), &[]);
            changed.push(key);
        }
        changed
    }
}
