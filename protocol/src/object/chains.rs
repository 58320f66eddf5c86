//! What one replica knows of the chains of one object.

mod branch;
mod context;
mod error;
mod plan;
mod retire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use branch::Fit;
pub use context::Context;
pub use error::ChainError;
pub use plan::{NextDeps, Range};
use retire::Promise;

use branch::Branch;

use super::{Dep, Header, Prefix, Vector, Verified};
use crate::id::{ChainId, DeviceId, Incarnation, ObjectId, OpId, RecordId, RecordKey};

/// The chains of one object as one replica holds them, always causally closed: a record is admitted
/// when its predecessor and all its dependencies are there, or were let go of behind a checkpoint.
///
/// Costs about 100 bytes a record, and a context (16 bytes for each other chain) for each record whose
/// dependencies told its chain something new.
#[derive(Debug, Clone)]
pub struct Chains {
    object: ObjectId,
    chains: Vec<Chain>,
    slots: BTreeMap<ChainId, u32>,
    records: Vec<Entry>,
    /// Records by the first eight bytes of their id.
    by_prefix: BTreeSet<(u64, u32)>,
    /// Records that no held record builds on.
    tips: BTreeSet<u32>,
    frontiers: Vec<Arc<[OpId]>>,
    frontier_slots: BTreeMap<Arc<[OpId]>, u32>,
    /// The chain that records were taken for when they came, where it is not the one they are in now.
    shelved: BTreeMap<u32, ChainId>,
    /// Chains that were let go of, with the one whose beginning, on whatever branch, has taken the place of each.
    retired: BTreeMap<ChainId, ChainId>,
    /// Chains that others have let go of, with the one that has taken its place: what builds on them need not wait.
    promised: BTreeMap<ChainId, Promise>,
    /// Chains that were let go of for a checkpoint of which not all has been read yet.
    unread: BTreeSet<ChainId>,
    /// Chain and place of records that are not held, of which operations may still be live.
    listed: BTreeMap<RecordKey, (ChainId, u64)>,
    no_context: Arc<[(u32, u64)]>,
}

#[derive(Debug, Clone)]
struct Chain {
    id: ChainId,
    author: DeviceId,
    incarnation: Incarnation,
    /// The chain of which this is a branch, of a branch, ...; itself for what is none.
    root: u32,
    branch: Option<Branch>,
    /// The branches that leave where it ends.
    branches: Vec<u32>,
    /// The last place, as far as it is held, of the checkpoint with which it begins and for which others were let go of.
    sealed: u64,
    /// Places in `Chains::records`; the first is seq 1, of a branch the one after its base.
    records: Vec<u32>,
    /// Where the grants named change, rising by first place.
    rights: Vec<Right>,
}

/// The grants that the records of a chain name from one place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// First place that names them.
    pub first: u64,
    /// The grant of the author's person in the object's log.
    pub object_grant: OpId,
    /// The grant of the author's device in its mesh's log.
    pub device_grant: OpId,
}

#[derive(Debug, Clone)]
struct Entry {
    id: RecordId,
    seq: u64,
    height: u64,
    /// How much of each *other* chain the record builds on, by rising slot. Of its own chain it builds
    /// on all that came before it.
    context: Arc<[(u32, u64)]>,
    /// Places in `Chains::records` of its dependencies, but for those that were not here when it came.
    deps: Box<[u32]>,
    chain: u32,
    frontier: u32,
}

impl Chains {
    /// No chains yet.
    pub fn new(object: ObjectId) -> Self {
        Chains {
            object,
            chains: Vec::new(),
            slots: BTreeMap::new(),
            records: Vec::new(),
            by_prefix: BTreeSet::new(),
            tips: BTreeSet::new(),
            frontiers: Vec::new(),
            frontier_slots: BTreeMap::new(),
            shelved: BTreeMap::new(),
            retired: BTreeMap::new(),
            promised: BTreeMap::new(),
            unread: BTreeSet::new(),
            listed: BTreeMap::new(),
            no_context: Arc::from([]),
        }
    }

    /// The object whose chains these are.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Number of records held.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether a record is held.
    pub fn contains(&self, id: &RecordId) -> bool {
        self.find(id).is_some()
    }

    /// Whether a record is held, by half of its id.
    pub fn contains_key(&self, record: &RecordKey) -> bool {
        self.find_key(record).is_some()
    }

    /// Chain and place of a record.
    pub fn place(&self, id: &RecordId) -> Option<(ChainId, u64)> {
        let entry = self.entry(id)?;
        Some((self.chains.get(entry.chain as usize)?.id, entry.seq))
    }

    /// Chain and place of a record by half of its id, also of one that was let go of.
    pub fn place_of(&self, record: &RecordKey) -> Option<(ChainId, u64)> {
        let entry = self.entry_of(record);
        let held = entry.and_then(|entry| Some((self.chains.get(entry.chain as usize)?.id, entry.seq)));
        held.or_else(|| self.listed.get(record).copied())
    }

    /// How a record that is held is named by those that build on it.
    pub fn dep(&self, id: &RecordId) -> Option<Dep> {
        let entry = self.entry(id)?;
        let root = self.chains.get(self.chains.get(entry.chain as usize)?.root as usize)?;
        Some(Dep { chain: root.id, seq: entry.seq, id: *id })
    }

    /// The record at a place.
    pub fn record_at(&self, chain: &ChainId, seq: u64) -> Option<RecordId> {
        self.at(chain, seq).map(|entry| entry.id)
    }

    /// The height of a record.
    pub fn height(&self, id: &RecordId) -> Option<u64> {
        self.entry(id).map(|entry| entry.height)
    }

    /// The control heads that a record's author knew.
    pub fn frontier(&self, id: &RecordId) -> Option<&[OpId]> {
        self.entry(id).and_then(|entry| self.frontiers.get(entry.frontier as usize)).map(|heads| &**heads)
    }

    /// The device that writes a chain.
    pub fn author(&self, chain: &ChainId) -> Option<DeviceId> {
        self.chain(chain).map(|chain| chain.author)
    }

    /// The grants that the records of a chain name, rising by the first place that names them.
    pub fn rights(&self, chain: &ChainId) -> &[Right] {
        self.chain(chain).map_or(&[], |chain| &chain.rights)
    }

    /// Newest place and record of a chain; (0, none) if there is none.
    pub fn head(&self, chain: &ChainId) -> (u64, RecordId) {
        let newest = self.chain(chain).and_then(|chain| chain.records.last());
        newest.and_then(|slot| self.records.get(*slot as usize)).map_or((0, RecordId::NONE), |e| (e.seq, e.id))
    }

    /// The newest record of each chain, with the chain's author.
    pub fn heads(&self) -> impl Iterator<Item = (ChainId, DeviceId, u64, RecordId)> + '_ {
        let held = self.slots.keys().map(|chain| (*chain, self.head(chain))).filter(|(_, (seq, _))| *seq > 0);
        held.filter_map(|(chain, (seq, id))| Some((chain, self.author(&chain)?, seq, id)))
    }

    /// The records that no held record builds on.
    pub fn tips(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.tips.iter().filter_map(|slot| self.records.get(*slot as usize)).map(|entry| entry.id)
    }

    /// How much of each chain is held.
    pub fn vector(&self) -> Vector {
        Vector(self.heads().map(|(chain, _, seq, id)| (chain, (seq, id))).collect())
    }

    /// The digest of [`Chains::vector`].
    pub fn digest(&self) -> [u8; 32] {
        self.vector().digest(&self.object)
    }

    /// Tells whether a record can be admitted now, and how it goes on from what is held.
    pub fn check(&self, record: &Verified) -> Result<Fit, ChainError> {
        self.checked(record).map(Fit::of)
    }

    fn checked(&self, record: &Verified) -> Result<Option<Branch>, ChainError> {
        let branch = self.placed(record)?;
        self.check_deps(record.header())?;
        self.check_height(record.header())?;
        Ok(branch)
    }

    fn placed(&self, record: &Verified) -> Result<Option<Branch>, ChainError> {
        let header = record.header();
        if header.object != self.object {
            return Err(ChainError::OtherObject);
        }
        if self.contains(&record.id()) {
            return Err(ChainError::Duplicate);
        }
        if self.is_retired(&record.chain()) {
            return Err(ChainError::Retired { chain: record.chain(), seq: header.seq });
        }
        self.fit(record)
    }

    fn check_deps(&self, header: &Header) -> Result<(), ChainError> {
        if let Some(wrong) = header.deps.iter().find(|dep| self.dep(&dep.id).is_some_and(|held| held != **dep)) {
            return Err(ChainError::BadDep(wrong.id));
        }
        let missing: Vec<RecordId> = self.lacking(header).map(|dep| dep.id).collect();
        if missing.is_empty() { Ok(()) } else { Err(ChainError::MissingDeps(missing)) }
    }

    /// The dependencies that are neither held nor let go of, here or by others.
    pub fn lacking<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Dep> + 'a {
        self.not_here(header).filter(|dep| !self.is_promised(&dep.chain))
    }

    fn not_here<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Dep> + 'a {
        header.deps.iter().filter(|dep| !self.contains(&dep.id) && !self.is_retired(&dep.chain))
    }

    /// Admits a record that [`Chains::check`] passes. With [`Fit::Branch`] what some held records are in is another
    /// chain now.
    pub fn accept(&mut self, record: &Verified) -> Result<Fit, ChainError> {
        let branch = self.checked(record)?;
        self.take(record, branch)
    }

    /// Admits a record that was admitted before, to a replica that has told it to its store: what of its dependencies is
    /// not here others had let go of by then.
    pub fn readmit(&mut self, record: &Verified) -> Result<Fit, ChainError> {
        let branch = self.placed(record)?;
        self.take(record, branch)
    }

    fn take(&mut self, record: &Verified, branch: Option<Branch>) -> Result<Fit, ChainError> {
        let header = record.header();
        let lacks = self.not_here(header).next().is_some();
        let slot = u32::try_from(self.records.len()).map_err(|_| ChainError::Full)?;
        let chain = match (branch, self.entry(&header.prev)) {
            (Some(branch), _) => self.grow_branch(branch, &record.id())?,
            (None, Some(before)) => before.chain,
            (None, None) => self.chain_slot(record)?,
        };
        let deps: Box<[u32]> = header.deps.iter().filter_map(|dep| self.find(&dep.id)).collect();
        let context = self.merged_context(chain, self.entry(&header.prev), &deps);
        let frontier = self.frontier_slot(&header.control);
        let entry = Entry { id: record.id(), seq: header.seq, height: header.height, context, deps, chain, frontier };
        for below in header.deps.iter().map(|dep| &dep.id).chain([&header.prev]) {
            if let Some(below) = self.find(below) {
                self.tips.remove(&below);
            }
        }
        self.tips.insert(slot);
        self.by_prefix.insert((prefix_number(&entry.id.0), slot));
        self.records.push(entry);
        if let Some(chain) = self.chains.get_mut(chain as usize) {
            chain.records.push(slot);
            chain.seal(header);
            let (object_grant, device_grant) = (header.object_grant, header.device_grant);
            if chain.rights.last().map(|right| (right.object_grant, right.device_grant))
                != Some((object_grant, device_grant))
            {
                chain.rights.push(Right { first: header.seq, object_grant, device_grant });
            }
        }
        if record.begins_checkpoint() {
            self.keep_promises(record, lacks);
        }
        Ok(Fit::of(branch))
    }

    /// Whether the record at a place is one whose id starts with `prefix`.
    pub fn holds(&self, chain: &ChainId, seq: u64, prefix: &Prefix) -> bool {
        self.record_at(chain, seq).is_some_and(|id| id.prefix() == *prefix)
    }

    fn chain_slot(&mut self, record: &Verified) -> Result<u32, ChainError> {
        let id = record.chain();
        if let Some(slot) = self.slots.get(&id) {
            return Ok(*slot);
        }
        let slot = u32::try_from(self.chains.len()).map_err(|_| ChainError::Full)?;
        self.chains.push(Chain {
            id,
            author: record.author(),
            incarnation: record.header().incarnation,
            root: slot,
            branch: None,
            branches: Vec::new(),
            sealed: 0,
            records: Vec::new(),
            rights: Vec::new(),
        });
        self.slots.insert(id, slot);
        Ok(slot)
    }

    fn frontier_slot(&mut self, heads: &[OpId]) -> u32 {
        if let Some(slot) = self.frontier_slots.get(heads) {
            return *slot;
        }
        let heads: Arc<[OpId]> = heads.into();
        // There are never more frontiers than records, and those are counted in a u32.
        let slot = self.frontiers.len() as u32;
        self.frontiers.push(heads.clone());
        self.frontier_slots.insert(heads, slot);
        slot
    }

    fn chain(&self, id: &ChainId) -> Option<&Chain> {
        self.slots.get(id).and_then(|slot| self.chains.get(*slot as usize))
    }

    fn at(&self, chain: &ChainId, seq: u64) -> Option<&Entry> {
        let chain = self.chain(chain)?;
        let index = usize::try_from(seq.checked_sub(chain.base())?.checked_sub(1)?).ok()?;
        chain.records.get(index).and_then(|slot| self.records.get(*slot as usize))
    }

    fn find(&self, id: &RecordId) -> Option<u32> {
        self.find_key(&id.key()).filter(|slot| self.records.get(*slot as usize).is_some_and(|entry| entry.id == *id))
    }

    fn find_key(&self, key: &RecordKey) -> Option<u32> {
        let prefix = prefix_number(&key.0);
        let mut slots = self.by_prefix.range((prefix, 0)..=(prefix, u32::MAX)).map(|(_, slot)| *slot);
        slots.find(|slot| self.records.get(*slot as usize).is_some_and(|entry| entry.id.key() == *key))
    }

    fn entry(&self, id: &RecordId) -> Option<&Entry> {
        self.find(id).and_then(|slot| self.records.get(slot as usize))
    }

    fn entry_of(&self, key: &RecordKey) -> Option<&Entry> {
        self.find_key(key).and_then(|slot| self.records.get(slot as usize))
    }
}

fn prefix_number(id: &[u8]) -> u64 {
    id.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
