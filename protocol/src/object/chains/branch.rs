//! Chains that fork: one author, two records for one place.
//!
//! What comes before the fork stays the chain; each way that it goes on is a chain of its own, a *branch*, named by
//! its first record. So every chain is a line, and what a replica calls them depends on nothing but the records that
//! it holds.

use std::{collections::BTreeMap, sync::Arc};

use super::{Chain, ChainError, Chains, Right};
use crate::{
    id::{ChainId, RecordId},
    object::Verified,
};

/// Where a branch leaves its stem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Branch {
    /// The chain that it leaves.
    pub stem: u32,
    /// The newest place that it shares with the other branches there; 0 if none.
    pub base: u64,
}

/// How a record goes on from what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// After the newest of its chain, or as the first of a new one.
    Line,
    /// Beside another record at the same place.
    Branch,
}

impl Fit {
    pub(super) fn of(branch: Option<Branch>) -> Self {
        if branch.is_some() { Fit::Branch } else { Fit::Line }
    }
}

impl ChainId {
    /// The chain of a branch that begins with this record: `blake3("mesh.v1.branch" || record)`, cut to 16 bytes.
    pub fn of_branch(first: &RecordId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mesh.v1.branch").update(&first.0);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        ChainId(id)
    }
}

impl Chains {
    /// Branches of all chains.
    pub fn branches(&self) -> impl Iterator<Item = ChainId> + '_ {
        self.chains.iter().filter(|chain| chain.branch.is_some() && !chain.records.is_empty()).map(|chain| chain.id)
    }

    /// Whether a chain is a branch. Of a branch nothing stands by its own right.
    pub fn is_branch(&self, chain: &ChainId) -> bool {
        self.chain(chain).is_some_and(|chain| chain.branch.is_some())
    }

    /// Where a chain ends: itself, or its branches and theirs.
    pub fn ends(&self, chain: &ChainId) -> impl Iterator<Item = ChainId> + '_ {
        let root = self.slots.get(chain).copied();
        let ends = self.chains.iter().filter(move |chain| Some(chain.root) == root && chain.branches.is_empty());
        ends.map(|chain| chain.id)
    }

    /// The branches that begin where this one does, itself included; empty for what is no branch.
    pub fn siblings(&self, chain: &ChainId) -> impl Iterator<Item = ChainId> + '_ {
        let branch = self.chain(chain).and_then(|chain| chain.branch);
        let stem = branch.and_then(|branch| self.chains.get(branch.stem as usize));
        let slots = stem.map_or(&[][..], |stem| &stem.branches);
        slots.iter().filter_map(|slot| self.chains.get(*slot as usize)).map(|chain| chain.id)
    }

    /// The chain that this one leaves, with the newest place of it that both share.
    pub fn stem(&self, chain: &ChainId) -> Option<(ChainId, u64)> {
        let branch = self.chain(chain)?.branch?;
        Some((self.chains.get(branch.stem as usize)?.id, branch.base))
    }

    /// How far along `chain`, or along what it leaves, a record is: its place where it lies on the way to the end
    /// of the chain, the place where the ways part where it lies on another one. `None` for a record of others.
    pub fn reaches(&self, chain: &ChainId, record: &RecordId) -> Option<u64> {
        let (mut at, mut place) = self.entry(record).map(|entry| (entry.chain, entry.seq))?;
        let target = *self.slots.get(chain)?;
        let mut way = Vec::from([target]);
        while let Some(branch) = self.chains.get(*way.last()? as usize)?.branch {
            way.push(branch.stem);
        }
        while !way.contains(&at) {
            let branch = self.chains.get(at as usize)?.branch?;
            (at, place) = (branch.stem, branch.base);
        }
        Some(place)
    }

    /// Where a record is kept in the log: the chain it was taken for when it came, which stays, and its place.
    pub fn shelf(&self, id: &RecordId) -> Option<(ChainId, u64)> {
        let slot = self.find(id)?;
        let entry = self.records.get(slot as usize)?;
        let shelved = self.shelved.get(&slot).copied();
        Some((shelved.or_else(|| Some(self.chains.get(entry.chain as usize)?.id))?, entry.seq))
    }

    /// Finds the place of a record behind its predecessor: where it leaves a chain, none where it goes on with one.
    pub(super) fn fit(&self, record: &Verified) -> Result<Option<Branch>, ChainError> {
        let (header, id) = (record.header(), record.chain());
        let root = self.slots.get(&id).copied();
        let (stem, place) = if header.seq == 1 {
            match root {
                Some(root) => (root, 0),
                None => return Ok(None),
            }
        } else {
            let Some(before) = self.entry(&header.prev) else {
                return Err(self.without_predecessor(root, &id, header.seq));
            };
            let same =
                root.is_some() && self.chains.get(before.chain as usize).map(|chain| Some(chain.root)) == Some(root);
            if !same || before.seq + 1 != header.seq {
                return Err(ChainError::BadPrev { chain: id, seq: header.seq, named: header.prev });
            }
            (before.chain, before.seq)
        };
        let is_end = |chain: &Chain| chain.branches.is_empty() && chain.last() == place;
        let leaves = self.chains.get(stem as usize).is_some_and(|chain| !is_end(chain));
        Ok(leaves.then_some(Branch { stem, base: place }))
    }

    fn without_predecessor(&self, root: Option<u32>, id: &ChainId, want: u64) -> ChainError {
        let of_root = self.chains.iter().filter(|chain| Some(chain.root) == root);
        let have = of_root.map(Chain::last).max().unwrap_or(0);
        if want <= have + 1 && want > 1 && have > 0 {
            return ChainError::Sidestep { chain: *id, seq: want };
        }
        ChainError::Gap { have, want }
    }

    /// Makes room for a branch that leaves a chain after a place: what the chain goes on with there becomes a branch
    /// itself.
    pub(super) fn grow_branch(&mut self, branch: Branch, first: &RecordId) -> Result<u32, ChainError> {
        self.split(branch)?;
        let stem = self.chains.get(branch.stem as usize).ok_or(ChainError::Full)?;
        let new = Chain {
            id: ChainId::of_branch(first),
            author: stem.author,
            incarnation: stem.incarnation,
            root: stem.root,
            branch: Some(branch),
            branches: Vec::new(),
            sealed: 0,
            records: Vec::new(),
            rights: Vec::new(),
        };
        self.add_branch(branch.stem, new)
    }

    fn add_branch(&mut self, stem: u32, new: Chain) -> Result<u32, ChainError> {
        let slot = u32::try_from(self.chains.len()).map_err(|_| ChainError::Full)?;
        self.slots.insert(new.id, slot);
        self.chains.push(new);
        if let Some(stem) = self.chains.get_mut(stem as usize) {
            stem.branches.push(slot);
        }
        Ok(slot)
    }

    fn split(&mut self, at: Branch) -> Result<(), ChainError> {
        let Some(stem) = self.chains.get_mut(at.stem as usize) else { return Ok(()) };
        let keep = usize::try_from(at.base - stem.base()).unwrap_or(usize::MAX);
        if stem.records.len() <= keep {
            return Ok(());
        }
        let records = stem.records.split_off(keep);
        let branches = std::mem::take(&mut stem.branches);
        let rights = stem.split_rights(at.base);
        let sealed = if stem.sealed > at.base { stem.sealed } else { 0 };
        stem.sealed = stem.sealed.min(at.base);
        let Chain { id, author, incarnation, root, .. } = *stem;
        let first = records.first().and_then(|slot| self.records.get(*slot as usize)).map(|entry| entry.id);
        let first = first.unwrap_or(RecordId::NONE);
        for record in &records {
            self.shelved.entry(*record).or_insert(id);
        }
        let new = Chain {
            id: ChainId::of_branch(&first),
            author,
            incarnation,
            root,
            branch: Some(at),
            branches: branches.clone(),
            sealed,
            records: records.clone(),
            rights,
        };
        let slot = self.add_branch(at.stem, new)?;
        for later in branches {
            if let Some(Branch { stem, .. }) =
                self.chains.get_mut(later as usize).and_then(|chain| chain.branch.as_mut())
            {
                *stem = slot;
            }
        }
        for record in records {
            if let Some(entry) = self.records.get_mut(record as usize) {
                entry.chain = slot;
            }
        }
        self.rename_contexts(at, slot);
        Ok(())
    }

    /// Past `at.base` what was the stem is the chain at `new` now.
    fn rename_contexts(&mut self, at: Branch, new: u32) {
        let mut renamed = BTreeMap::new();
        for entry in &mut self.records {
            let inside = entry.chain == new;
            let known = (entry.context.as_ptr() as usize, inside);
            let context = renamed.entry(known).or_insert_with(|| rename_context(&entry.context, at, new, inside));
            entry.context = context.clone();
        }
    }
}

/// `inside`: whether it is the context of a record of the new chain, which builds on the stem without saying so.
fn rename_context(context: &Arc<[(u32, u64)]>, at: Branch, new: u32, inside: bool) -> Arc<[(u32, u64)]> {
    let past = context.iter().find(|(slot, seq)| *slot == at.stem && *seq > at.base).map(|(_, seq)| *seq);
    if past.is_none() && !inside {
        return context.clone();
    }
    let mut changed: Vec<(u32, u64)> = context.iter().filter(|(slot, _)| *slot != at.stem).copied().collect();
    if at.base > 0 {
        changed.push((at.stem, at.base));
    }
    changed.extend(past.filter(|_| !inside).map(|seq| (new, seq)));
    changed.sort_unstable();
    changed.into()
}

impl Chain {
    /// The place before its first.
    pub(super) fn base(&self) -> u64 {
        self.branch.map_or(0, |branch| branch.base)
    }

    /// The newest place that is on it, or on what it leaves.
    pub(super) fn last(&self) -> u64 {
        self.base() + self.records.len() as u64
    }

    /// Takes away the grants that are named past a place, the ones in force there first.
    fn split_rights(&mut self, base: u64) -> Vec<Right> {
        let keep = self.rights.partition_point(|right| right.first <= base + 1);
        let later = self.rights.split_off(keep);
        let at = self.rights.last().map(|right| Right { first: base + 1, ..*right });
        self.rights.retain(|right| right.first <= base);
        at.into_iter().chain(later).collect()
    }
}
