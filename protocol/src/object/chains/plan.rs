//! What to write next, what to send, and what stands.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::{Chain, Chains};
use crate::{
    id::{ChainId, RecordId},
    limits,
    object::{Dep, Prefix},
};

/// Places `first` to `last` of one chain, wanted by a replica that holds all before `first`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The chain.
    pub chain: ChainId,
    /// First place wanted.
    pub first: u64,
    /// Last place wanted.
    pub last: u64,
    /// Start of the id of the wanting replica's record at `first - 1`; zero where `first` is 1, or where
    /// the range is wanted whatever comes before it.
    pub after: Prefix,
}
crate::wire_struct!(Range { chain, first, last, after });

/// What a new record of a chain has to name so that it builds on everything that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextDeps {
    /// Dependencies of join records to be written first, in this order: there are more heads than one
    /// record may name.
    pub joins: Vec<Vec<Dep>>,
    /// Dependencies of the record itself.
    pub deps: Vec<Dep>,
}

impl Chains {
    /// The height of a record with this predecessor (none: all zero) and these dependencies.
    pub fn next_height(&self, prev: &RecordId, deps: &[Dep]) -> u64 {
        deps.iter()
            .map(|dep| &dep.id)
            .chain([prev])
            .filter_map(|id| self.height(id))
            .max()
            .unwrap_or(0)
            .saturating_add(1)
    }

    /// What the next record of the chain `own` names as dependencies: the newest records of other
    /// chains that stand and that `own` has not built on. `standing` tells how much of a chain stands
    /// (`u64::MAX`: all); a record that is void for the author must never be named.
    pub fn deps_for_next(&self, own: &ChainId, standing: impl Fn(&ChainId) -> u64) -> NextDeps {
        let all_stand = self.heads().all(|(chain, _, seq, _)| standing(&chain) >= seq);
        let open = if all_stand { self.open_tips(own) } else { self.open_standing(own, standing) };
        let mut next = NextDeps::default();
        let mut rest = open.as_slice();
        while let Some((batch, more)) = rest.split_at_checked(limits::RECORD_DEPS).filter(|(_, more)| !more.is_empty())
        {
            next.joins.push(self.deps(batch));
            rest = more;
        }
        next.deps = self.deps(rest);
        next
    }

    /// How these records are named as dependencies, in order.
    pub fn deps(&self, ids: &[RecordId]) -> Vec<Dep> {
        let mut deps: Vec<Dep> = ids.iter().filter_map(|id| self.dep(id)).collect();
        deps.sort_unstable();
        deps
    }

    fn open_tips(&self, own: &ChainId) -> Vec<RecordId> {
        let own = self.head(own).1;
        self.tips().filter(|tip| *tip != own).collect()
    }

    fn open_standing(&self, own: &ChainId, standing: impl Fn(&ChainId) -> u64) -> Vec<RecordId> {
        let newest: Vec<(ChainId, u64, RecordId)> = self
            .heads()
            .map(|(chain, _, seq, _)| (chain, if chain == *own { seq } else { seq.min(standing(&chain)) }))
            .filter_map(|(chain, seq)| Some((chain, seq, self.record_at(&chain, seq)?)))
            .collect();
        let mut covered: BTreeMap<ChainId, u64> = BTreeMap::new();
        for context in newest.iter().filter_map(|(_, _, id)| self.context(id)) {
            for (chain, seq) in context.entries() {
                let most = covered.entry(chain).or_default();
                *most = seq.max(*most);
            }
        }
        let open = newest
            .into_iter()
            .filter(|(chain, seq, _)| chain != own && covered.get(chain).is_none_or(|covered| covered < seq));
        open.map(|(_, _, id)| id).collect()
    }

    /// How much of each chain stands when each is cut at `cut` (`u64::MAX`: not at all): what lies
    /// inside its own cut, and whatever such a record builds on.
    pub fn standing(&self, cut: impl Fn(&ChainId) -> u64) -> BTreeMap<ChainId, u64> {
        let mut standing: BTreeMap<ChainId, u64> =
            self.heads().map(|(chain, _, seq, _)| (chain, seq.min(cut(&chain)))).collect();
        // Contexts are transitively closed, so the newest record inside each cut says it all.
        for (chain, seq) in standing.clone() {
            let Some(context) = self.context_at(&chain, seq) else {
                continue;
            };
            for (below, seq) in context.entries() {
                let most = standing.entry(below).or_default();
                *most = seq.max(*most);
            }
        }
        standing
    }

    /// The records of these ranges that are held, lowest height first, so that whoever holds what comes
    /// before the ranges can admit them in this order; lazily, at most one head of each range at a time.
    ///
    /// Where the wanting replica holds another record at `first - 1` than this one does, its branch
    /// cannot be continued; then the one record held there is sent, which proves the fork to it.
    pub fn ordered<'a>(&'a self, ranges: &[Range]) -> impl Iterator<Item = RecordId> + use<'a> {
        let mut next: BinaryHeap<Reverse<(u64, ChainId, u64, u64)>> = BinaryHeap::new();
        for range in ranges {
            let base = self.chain(&range.chain).map_or(0, Chain::base);
            let (mut first, mut last) = (range.first.max(base + 1), range.last);
            let checked = range.first > base + 1 && range.after != Prefix::default();
            if checked && self.record_at(&range.chain, first - 1).is_some_and(|id| id.prefix() != range.after) {
                (first, last) = (first - 1, first - 1);
            }
            if let Some(entry) = self.at(&range.chain, first).filter(|_| first <= last) {
                next.push(Reverse((entry.height, range.chain, first, last)));
            }
        }
        std::iter::from_fn(move || {
            let Reverse((_, chain, seq, last)) = next.pop()?;
            if let Some(entry) = self.at(&chain, seq + 1).filter(|_| seq < last) {
                next.push(Reverse((entry.height, chain, seq + 1, last)));
            }
            self.record_at(&chain, seq)
        })
    }
}
