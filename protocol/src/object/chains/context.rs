//! What a record builds on.

use std::sync::Arc;

use super::{Chain, Chains, Entry};
use crate::id::{ChainId, RecordId, RecordKey};

/// Everything reachable from one record through predecessors and dependencies, the record itself not
/// included.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    chains: &'a Chains,
    entry: &'a Entry,
}

impl Context<'_> {
    /// Whether the record at a place is in the context.
    pub fn contains(&self, chain: &ChainId, seq: u64) -> bool {
        self.chains.at(chain, seq).is_some() && seq <= self.seq(chain)
    }

    /// Whether a record is in the context, as far as that is known of one that was let go of.
    pub fn contains_key(&self, record: &RecordKey) -> bool {
        match self.chains.entry_of(record) {
            Some(entry) => entry.seq <= self.of_slot(entry.chain),
            None => self.chains.successor(record).is_some_and(|by| self.touches(&by)),
        }
    }

    /// Whether something of a chain or its branches is in the context.
    fn touches(&self, root: &ChainId) -> bool {
        self.entries().any(|(chain, _)| self.chains.root_of_chain(&chain) == Some(*root))
    }

    /// How much of a chain is in the context: its places 1 to this number.
    pub fn seq(&self, chain: &ChainId) -> u64 {
        self.chains.slots.get(chain).map_or(0, |slot| self.of_slot(*slot))
    }

    fn of_slot(&self, slot: u32) -> u64 {
        if slot == self.entry.chain {
            // A branch holds nothing up to its base.
            let base = self.chains.chains.get(slot as usize).map_or(0, Chain::base);
            return Some(self.entry.seq - 1).filter(|seq| *seq > base).unwrap_or(0);
        }
        covered(&self.entry.context, slot)
    }

    /// Each chain of which something is in the context, with how much.
    pub fn entries(&self) -> impl Iterator<Item = (ChainId, u64)> + '_ {
        let own = (self.entry.chain, self.of_slot(self.entry.chain));
        let slots = self.entry.context.iter().copied().chain((own.1 > 0).then_some(own));
        slots.filter_map(|(slot, seq)| Some((self.chains.chains.get(slot as usize)?.id, seq)))
    }
}

impl Chains {
    /// What a held record builds on.
    pub fn context(&self, id: &RecordId) -> Option<Context<'_>> {
        self.entry(id).map(|entry| Context { chains: self, entry })
    }

    /// What the record at a place builds on.
    pub fn context_at(&self, chain: &ChainId, seq: u64) -> Option<Context<'_>> {
        self.at(chain, seq).map(|entry| Context { chains: self, entry })
    }

    /// The context of a record of the chain at `own`, from those of the one `before` it, itself where the dependencies
    /// add nothing to it, and of its dependencies.
    pub(super) fn merged_context(&self, own: u32, before: Option<&Entry>, deps: &[u32]) -> Arc<[(u32, u64)]> {
        let base = before.map_or_else(|| self.no_context.clone(), |entry| entry.context.clone());
        // The first of a branch builds on its stem as on another chain.
        let stem = before.filter(|before| before.chain != own).map(|before| (before.chain, before.seq));
        let mut merged = stem.map(|stem| raised(&base, stem));
        // What one that was let go of built on is in the context of the checkpoint, which names it all.
        for dep in deps.iter().filter_map(|dep| self.records.get(*dep as usize)) {
            let known: &[(u32, u64)] = merged.as_deref().unwrap_or(&base);
            if dep.chain == own || covered(known, dep.chain) >= dep.seq {
                continue;
            }
            merged = Some(raised(&union(known, &dep.context, own), (dep.chain, dep.seq)));
        }
        merged.map_or(base, Arc::from)
    }
}

fn covered(context: &[(u32, u64)], chain: u32) -> u64 {
    let found = context.binary_search_by_key(&chain, |(slot, _)| *slot);
    found.ok().and_then(|index| context.get(index)).map_or(0, |(_, seq)| *seq)
}

/// A context that also holds a chain up to a place.
fn raised(context: &[(u32, u64)], (chain, seq): (u32, u64)) -> Vec<(u32, u64)> {
    let mut wider = context.to_vec();
    match wider.binary_search_by_key(&chain, |(slot, _)| *slot) {
        Ok(index) => {
            if let Some((_, most)) = wider.get_mut(index) {
                *most = seq.max(*most);
            }
        }
        Err(index) => wider.insert(index, (chain, seq)),
    }
    wider
}

/// The larger of both for each chain, without the chain `own`.
fn union(left: &[(u32, u64)], right: &[(u32, u64)], own: u32) -> Vec<(u32, u64)> {
    let mut merged = Vec::with_capacity(left.len() + 1);
    let (mut left, mut right) = (left.iter().copied().peekable(), right.iter().copied().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (None, None) => return merged,
            (Some(l), Some(r)) if l.0 == r.0 => (l.0, l.1.max(r.1)),
            (Some(l), Some(r)) => *l.min(r),
            (Some(one), None) | (None, Some(one)) => *one,
        };
        left.next_if(|(slot, _)| *slot == next.0);
        right.next_if(|(slot, _)| *slot == next.0);
        if next.0 != own {
            merged.push(next);
        }
    }
}
