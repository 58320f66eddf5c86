//! Chains that were let go of: a checkpoint of their author, with which another chain of his begins, lists what of them
//! still lives.

use std::collections::BTreeSet;

use super::{Chain, ChainError, Chains, Entry};
use crate::{
    id::{ChainId, DeviceId, Incarnation, RecordKey},
    limits,
    object::{Header, RecordKind, Verified},
};

/// A chain that others have let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    /// Whose it is.
    device: DeviceId,
    /// The chain that begins with the checkpoint.
    by: ChainId,
    /// Whether that is known to take the place of the chain: a promise counts from then on.
    sure: bool,
}

impl Chains {
    /// Whether a chain was let go of.
    pub fn is_retired(&self, chain: &ChainId) -> bool {
        self.retired.contains_key(chain)
    }

    /// How many chains were let go of, here or by others.
    pub fn let_go_count(&self) -> usize {
        self.retired.len() + self.promised.len()
    }

    /// Chains that were let go of, each with the one that has taken its place.
    pub fn retired(&self) -> impl Iterator<Item = (ChainId, ChainId)> + '_ {
        self.retired.iter().map(|(chain, by)| (*chain, *by))
    }

    /// The last place of the checkpoint with which a chain begins, as far as it is held, where others were let go of for
    /// it; else 0. Every device that might be asked has built on it: up to there the chain stands whatever is said later.
    pub fn sealed(&self, chain: &ChainId) -> u64 {
        self.chain(chain).map_or(0, |chain| chain.sealed)
    }

    /// Others have let go of a chain of a device for the checkpoint with which the chain `by` begins: what builds on it need
    /// not wait for it any more, and when that device's checkpoint comes it is let go of here, unless it is here whole. All
    /// this once it is `sure` that the checkpoint takes the place of the chain: see [`Chains::confirm`].
    pub fn promise(&mut self, chain: ChainId, device: DeviceId, by: ChainId, sure: bool) {
        if chain == by || self.is_retired(&chain) {
            return;
        }
        // The other one may be let go of itself by now.
        let promise = self.promised.get(&by).copied().unwrap_or(Promise { device, by, sure });
        for earlier in self.promised.values_mut().filter(|earlier| earlier.by == chain) {
            *earlier = promise;
        }
        self.promised.insert(chain, promise);
    }

    /// Whether it is not known yet if what others say of a checkpoint is true.
    pub fn is_doubtful(&self, by: &ChainId) -> bool {
        self.promised.values().any(|promise| promise.by == *by && !promise.sure)
    }

    /// A record that begins a checkpoint tells which `chains` it takes the place of: what others said of more than these is
    /// forgotten. None: it cannot be read here, and they are believed.
    pub fn confirm(&mut self, record: &Verified, chains: Option<&BTreeSet<ChainId>>) {
        let (device, by) = (record.author(), record.chain());
        let is_true = |chain: &ChainId| chains.is_none_or(|chains| chains.contains(chain));
        self.promised.retain(|chain, made| made.by != by || made.device == device && is_true(chain));
        self.promised.values_mut().filter(|made| made.by == by).for_each(|made| made.sure = true);
    }

    /// Whether others have let go of a chain, and it is sure what takes its place.
    pub(super) fn is_promised(&self, chain: &ChainId) -> bool {
        self.promised.get(chain).is_some_and(|promise| promise.sure)
    }

    /// A checkpoint has come for which others have let go of chains. `lacks`: not all that it builds on is here.
    pub(super) fn keep_promises(&mut self, record: &Verified, lacks: bool) {
        let promise = Promise { device: record.author(), by: record.chain(), sure: true };
        let kept = self.promised.iter().filter(|(_, made)| **made == promise);
        let chains: BTreeSet<ChainId> = kept.map(|(chain, _)| *chain).collect();
        self.promised.retain(|_, made| made.by != promise.by);
        if lacks && !chains.is_empty() {
            let by = self.place(&record.id()).map_or(promise.by, |(chain, _)| chain);
            self.retire(&chains, &by, record.header().seq);
            self.unread.extend(chains);
        }
    }

    /// Lets go of chains for the checkpoint at the places 1 to `last` of another one, which is held.
    pub fn retire(&mut self, chains: &BTreeSet<ChainId>, by: &ChainId, last: u64) {
        let Some(root) = self.root_of_chain(by).filter(|_| self.at(by, 1).is_some()) else { return };
        self.retired.extend(chains.iter().filter(|chain| **chain != root).map(|chain| (*chain, root)));
        for earlier in self.retired.values_mut().filter(|earlier| chains.contains(earlier)) {
            *earlier = root;
        }
        if let Some(chain) = self.slots.get(by).and_then(|slot| self.chains.get_mut(*slot as usize)) {
            chain.sealed = last;
        }
        self.let_go(chains);
    }

    /// Remembers where a record was that a checkpoint lists and that is not held. False where another place is known for it.
    pub fn note_listed(&mut self, record: RecordKey, chain: ChainId, seq: u64) -> bool {
        match self.entry_of(&record) {
            Some(entry) => self.root_of(entry.chain) == Some(chain) && entry.seq == seq,
            None => *self.listed.entry(record).or_insert((chain, seq)) == (chain, seq),
        }
    }

    /// Whether records of these chains are held, or were until now, on which the checkpoint that ends at a place of another
    /// chain does not build, and which it does not list.
    pub fn has_strays(
        &self,
        chains: &BTreeSet<ChainId>,
        (by, last): (&ChainId, u64),
        listed: &BTreeSet<RecordKey>,
    ) -> bool {
        let context = self.context_at(by, last);
        let known = |chain: &ChainId| context.map_or(0, |context| context.seq(chain));
        let is_of = |chain: &ChainId| self.root_of_chain(chain).is_some_and(|root| chains.contains(&root));
        let is_unread = |of: &ChainId| chains.contains(of) && self.unread.contains(of);
        let gone = self.listed.iter().any(|(record, (of, _))| is_unread(of) && !listed.contains(record));
        gone || self.heads().any(|(chain, _, seq, _)| is_of(&chain) && known(&chain) < seq)
    }

    /// Forgets the records of some chains that are not held, but for those to be kept.
    pub fn forget_listed(&mut self, chains: &BTreeSet<ChainId>, keep: impl Fn(&RecordKey) -> bool) {
        self.listed.retain(|record, (of, _)| !chains.contains(of) || keep(record));
        self.unread.retain(|chain| !chains.contains(chain));
    }

    /// The chain of its author, incarnation and object that a record is in, on whatever branch.
    pub fn root(&self, record: &RecordKey) -> Option<ChainId> {
        match self.entry_of(record) {
            Some(entry) => self.root_of(entry.chain),
            None => self.listed.get(record).map(|(chain, _)| *chain),
        }
    }

    /// The chains of a device that are no branches and of which, or of whose branches, anything is held.
    pub fn roots(&self, device: DeviceId) -> impl Iterator<Item = (ChainId, Incarnation)> + '_ {
        let held: BTreeSet<u32> =
            self.chains.iter().filter(|chain| !chain.records.is_empty()).map(|chain| chain.root).collect();
        let roots = held.into_iter().filter_map(|root| self.chains.get(root as usize));
        roots.filter(move |chain| chain.author == device).map(|chain| (chain.id, chain.incarnation))
    }

    /// Whether anything is or was held of a chain or its branches.
    pub fn is_begun(&self, chain: &ChainId) -> bool {
        let is_held = |of: &Chain| !of.records.is_empty() || !of.branches.is_empty();
        self.is_retired(chain) || self.chain(chain).is_some_and(is_held)
    }

    /// The chain that a branch, or itself, belongs to.
    pub fn root_of_chain(&self, chain: &ChainId) -> Option<ChainId> {
        self.root_of(*self.slots.get(chain)?)
    }

    /// The records held that a device wrote.
    pub fn written_by(&self, device: DeviceId) -> impl Iterator<Item = RecordKey> + '_ {
        let chains = self.chains.iter().filter(move |chain| chain.author == device);
        chains.flat_map(|chain| &chain.records).filter_map(|at| Some(self.records.get(*at as usize)?.id.key()))
    }

    fn root_of(&self, slot: u32) -> Option<ChainId> {
        let chain = self.chains.get(slot as usize)?;
        self.chains.get(chain.root as usize).map(|root| root.id)
    }

    /// The chain whose checkpoint has taken the place of the one that a record was in.
    pub(super) fn successor(&self, record: &RecordKey) -> Option<ChainId> {
        let (chain, _) = self.listed.get(record)?;
        self.retired.get(chain).copied()
    }

    /// The height is one more than the largest below. Of what was let go of that is not known any more.
    pub(super) fn check_height(&self, header: &Header) -> Result<(), ChainError> {
        let held = header.deps.iter().map(|dep| &dep.id).chain([&header.prev]).filter_map(|id| self.height(id));
        let below = held.max().unwrap_or(0);
        let is_known = header.deps.iter().all(|dep| self.contains(&dep.id));
        let least = below.saturating_add(1);
        let most = if is_known { least } else { least.saturating_add(limits::HEIGHT_UNKNOWN) };
        if (least..=most).contains(&header.height) {
            return Ok(());
        }
        Err(ChainError::BadHeight { stated: header.height, below })
    }

    /// Takes the records of chains, and of all their branches, out of the table: all others move up.
    fn let_go(&mut self, chains: &BTreeSet<ChainId>) {
        let roots: BTreeSet<u32> = chains.iter().filter_map(|chain| self.slots.get(chain).copied()).collect();
        let mut gone: BTreeSet<u32> = BTreeSet::new();
        let mut slots: BTreeSet<u32> = BTreeSet::new();
        for (slot, chain) in (0u32..).zip(&mut self.chains) {
            if roots.contains(&chain.root) {
                slots.insert(slot);
                gone.extend(std::mem::take(&mut chain.records));
                chain.rights.clear();
            }
        }
        for entry in gone.iter().filter_map(|at| self.records.get(*at as usize)) {
            if let Some(root) = self.root_of(entry.chain) {
                self.listed.insert(entry.id.key(), (root, entry.seq));
            }
        }
        self.compact(&gone);
        self.renew_contexts(&slots);
    }

    fn compact(&mut self, gone: &BTreeSet<u32>) {
        let mut moved: Vec<Option<u32>> = Vec::with_capacity(self.records.len());
        let mut kept = Vec::with_capacity(self.records.len() - gone.len());
        for (at, entry) in (0u32..).zip(std::mem::take(&mut self.records)) {
            let stays = !gone.contains(&at);
            moved.push(stays.then_some(kept.len() as u32));
            kept.extend(stays.then_some(entry));
        }
        let to = |at: &u32| moved.get(*at as usize).copied().flatten();
        for entry in kept.iter_mut().filter(|entry: &&mut Entry| !entry.deps.is_empty()) {
            entry.deps = entry.deps.iter().filter_map(to).collect();
        }
        self.records = kept;
        self.by_prefix = self.by_prefix.iter().filter_map(|(prefix, at)| Some((*prefix, to(at)?))).collect();
        self.tips = self.tips.iter().filter_map(to).collect();
        self.shelved = self.shelved.iter().filter_map(|(at, chain)| Some((to(at)?, *chain))).collect();
        for chain in &mut self.chains {
            chain.records = chain.records.iter().filter_map(to).collect();
        }
    }

    /// What was built on through chains that are no more is built on no more: a replica that never had them, or has read
    /// its log again since, knows of nothing else either.
    fn renew_contexts(&mut self, gone: &BTreeSet<u32>) {
        // Below a record there are only earlier ones.
        for at in 0..self.records.len() {
            let Some(entry) = self.records.get(at) else { return };
            if entry.context.iter().any(|(slot, _)| gone.contains(slot)) {
                let context = self.merged_context(entry.chain, self.before(entry), &entry.deps);
                if let Some(entry) = self.records.get_mut(at) {
                    entry.context = context;
                }
            }
        }
    }

    /// The record before one, in its chain or in the one that this leaves.
    fn before(&self, entry: &Entry) -> Option<&Entry> {
        let chain = self.chains.get(entry.chain as usize)?;
        let of = match chain.branch {
            Some(branch) if branch.base + 1 == entry.seq => self.chains.get(branch.stem as usize)?,
            _ => chain,
        };
        self.at(&of.id, entry.seq.checked_sub(1)?)
    }
}

impl Chain {
    /// Follows the checkpoint with which the chain begins as its records come.
    pub(super) fn seal(&mut self, header: &Header) {
        let goes_on = RecordKind::from_code(header.kind) == Some(RecordKind::Listing);
        if goes_on && self.sealed > 0 && self.sealed + 1 == header.seq {
            self.sealed = header.seq;
        }
    }
}

impl Verified {
    /// Whether a record begins a checkpoint: as the first of its chain.
    pub fn begins_checkpoint(&self) -> bool {
        self.header().seq == 1 && RecordKind::from_code(self.header().kind) == Some(RecordKind::Checkpoint)
    }
}

impl Incarnation {
    /// The incarnation whose chains begin with a checkpoint of those of this one:
    /// `blake3("mesh.v1.checkpoint" || incarnation)`, cut to 8 bytes.
    #[must_use]
    pub fn next(&self) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mesh.v1.checkpoint").update(&self.0);
        let mut incarnation = [0; 8];
        hasher.finalize_xof().fill(&mut incarnation);
        Incarnation(incarnation)
    }
}
