//! Which of the records held stand, and what is done when that changes.
//!
//! A record is judged by the grants that it names and the revocations that bind them. One past its
//! author's cut is quarantined: held and served, but not merged, unless a record that stands builds on it.
//! All this is a function of what is held. When a revocation comes late, or an endorsement does, or the key to
//! records that others have built on, the object is read again from the store and merged anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::{
    control::Claim,
    id::{ChainId, DeviceId, ObjectId, RecordKey},
    limits,
    object::{Chains, Range, RecordKind, Right, Verified},
    time::Timestamp,
};
use rand_core::CryptoRng;

use super::{
    Event, Object, Output, Replica,
    judge::Bench,
    receive::{graph_actor, operations},
};
use crate::{
    feed::{Feed, Operation, Part},
    graph::{Graph, GraphActor},
    sync::receive::{Arrival, Content, Standing, open},
};

/// Chains of which not all that is held stands, with how much does.
pub(super) type Limits = BTreeMap<ChainId, u64>;

/// A record that is held and does not stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantined {
    /// Who wrote it.
    pub device: DeviceId,
    /// Its chain.
    pub chain: ChainId,
    /// Its place there.
    pub seq: u64,
    /// What it would have changed; of very many records not all is kept.
    pub operations: Vec<Arc<Operation>>,
}

/// An object that is being read again.
#[derive(Default)]
pub(super) struct Reread {
    feed: Feed,
    /// Records that checkpoints have listed so far.
    listed: BTreeSet<RecordKey>,
    /// Changes of the graph, in order.
    changes: Vec<(GraphActor, Vec<u8>)>,
    /// The records were asked for.
    asked: bool,
    /// What came or was written since.
    late: Vec<Verified>,
    /// What stands has changed once more.
    again: bool,
}

impl Bench<'_> {
    /// What of each chain stands, where that is not all.
    pub fn limits(&self, chains: &Chains) -> Limits {
        let heads: Vec<(ChainId, u64)> = chains.heads().map(|(chain, _, seq, _)| (chain, seq)).collect();
        let cuts: Limits =
            chains.heads().map(|(chain, author, ..)| (chain, self.cut(chains, &chain, author))).collect();
        let cut = |chain: &ChainId| cuts.get(chain).copied().unwrap_or(0);
        if heads.iter().all(|(chain, seq)| cut(chain) >= *seq) {
            return Limits::new();
        }
        let standing = chains.standing(cut);
        let stands = |chain: &ChainId| standing.get(chain).copied().unwrap_or(0);
        heads.iter().filter(|(chain, seq)| stands(chain) < *seq).map(|(chain, _)| (*chain, stands(chain))).collect()
    }

    /// The newest place of a chain that stands by its own right; of a branch none does but a checkpoint that all have
    /// built on.
    fn cut(&self, chains: &Chains, chain: &ChainId, author: DeviceId) -> u64 {
        let granted = if chains.is_branch(chain) { 0 } else { self.granted(chains, chain, author) };
        granted.max(chains.sealed(chain))
    }

    fn granted(&self, chains: &Chains, chain: &ChainId, author: DeviceId) -> u64 {
        let mut last = chains.head(chain).0;
        for right in chains.rights(chain).iter().rev() {
            let inside = self.inside(chains, chain, author, right).min(last);
            if inside >= right.first {
                return inside;
            }
            last = right.first.saturating_sub(1);
        }
        0
    }

    /// How far the revocations that bind these grants let the chain stand.
    fn inside(&self, chains: &Chains, chain: &ChainId, author: DeviceId, right: &Right) -> u64 {
        let claim = Claim {
            object: chains.object(),
            device: author,
            object_grant: right.object_grant,
            device_grant: right.device_grant,
            control: &[],
        };
        let Ok(judgement) = self.control.judge(&claim) else { return 0 };
        let place = |head| chains.reaches(chain, head);
        let named = judgement.cuts.iter().map(|heads| heads.iter().filter_map(place).max().unwrap_or(0));
        named.min().unwrap_or(u64::MAX)
    }
}

impl Object {
    /// How much of a chain stands.
    pub(super) fn standing(&self, chain: &ChainId) -> u64 {
        self.limits.get(chain).copied().unwrap_or(u64::MAX)
    }

    fn stands(&self, record: &Verified) -> bool {
        let place = self.intake.chains().place(&record.id());
        place.is_some_and(|(chain, seq)| seq <= self.standing(&chain))
    }

    /// All is to be read again and merged anew.
    pub(super) fn read_again(&mut self) {
        match &mut self.reread {
            Some(reread) => reread.again = reread.asked,
            None => self.reread = Some(Reread::default()),
        }
    }

    /// Notes a record that does not stand, with what it would have changed.
    fn quarantine(&mut self, record: &Verified, mut operations: Vec<Arc<Operation>>) {
        let Some((chain, seq)) = self.intake.chains().place(&record.id()) else { return };
        if self.quarantined.values().map(|held| held.operations.len()).sum::<usize>() >= limits::QUARANTINE_SHOWN {
            operations.clear();
        }
        self.quarantined.insert((chain, seq), Quarantined { device: record.author(), chain, seq, operations });
    }
}

impl Replica {
    /// How much of a chain stands; `u64::MAX` for all.
    pub fn standing(&self, object: ObjectId, chain: &ChainId) -> u64 {
        self.objects.get(&object).map_or(u64::MAX, |state| state.standing(chain))
    }

    /// Records of an object that do not stand, oldest first by chain.
    pub fn quarantined(&self, object: ObjectId) -> impl Iterator<Item = &Quarantined> {
        self.objects.get(&object).into_iter().flat_map(|state| state.quarantined.values())
    }

    /// Whether an object is being read again, so that what it shows is about to change.
    pub fn is_judging(&self, object: ObjectId) -> bool {
        self.objects.get(&object).is_some_and(|state| state.reread.is_some())
    }

    /// Judges everything held of an object again after its control logs grew.
    pub(super) fn judge_again(&mut self, object: ObjectId) {
        let Some(state) = self.objects.get(&object) else { return };
        let limits = self.bench().limits(state.intake.chains());
        if limits != state.limits {
            self.take_limits(object, limits);
        }
    }

    /// Merges the arrivals that stand; when with them others stand or stand no more, all is read again.
    pub(super) fn merge_arrivals(&mut self, object: ObjectId, arrivals: &[Arrival], out: &mut Vec<Output>) {
        let Some(state) = self.objects.get_mut(&object) else { return };
        if let Some(reread) = &mut state.reread {
            arrivals.iter().for_each(|arrival| reread.also(&arrival.record));
        }
        let all_stand = arrivals.iter().all(|arrival| arrival.standing == Standing::Stands);
        if !state.limits.is_empty() || !all_stand {
            let Some(state) = self.objects.get(&object) else { return };
            let limits = self.bench().limits(state.intake.chains());
            if disturbs(state, &limits, arrivals) {
                return self.take_limits(object, limits);
            }
            if let Some(state) = self.objects.get_mut(&object) {
                state.limits = limits;
            }
        }
        for arrival in arrivals {
            self.apply(object, arrival, out);
        }
    }

    /// Merges a record whose body is at hand, if it stands.
    pub(super) fn apply(&mut self, object: ObjectId, arrival: &Arrival, out: &mut Vec<Output>) {
        let Some(state) = self.objects.get_mut(&object) else { return };
        let stands = state.stands(&arrival.record);
        match &arrival.content {
            Content::Text(text) if stands => self.merge_text(object, &arrival.record, text, out),
            Content::Text(text) => state.quarantine(&arrival.record, operations(&arrival.record, text)),
            Content::Locked if stands => {
                state.locked.insert(arrival.record.header().epoch);
            }
            Content::Locked | Content::Void(_) if !stands => state.quarantine(&arrival.record, Vec::new()),
            Content::Locked => {}
            Content::Void(error) => tracing::warn!(%error, "the body of a record cannot be read"),
        }
    }

    /// Something stands that did not, or the other way round: all is to be merged anew.
    fn take_limits(&mut self, object: ObjectId, limits: Limits) {
        let Some(state) = self.objects.get_mut(&object) else { return };
        state.limits = limits;
        state.read_again();
    }

    /// Asks for all records of the objects that are to be merged anew, once all that is held of them is stored.
    pub(super) fn ask_again(&mut self, out: &mut Vec<Output>) {
        let is_due = |state: &Object| state.reread.as_ref().is_some_and(|reread| !reread.asked);
        let due = self.objects.iter().filter(|(object, state)| is_due(state) && self.is_stored(**object));
        for object in due.map(|(object, _)| *object).collect::<Vec<_>>() {
            let Some(state) = self.objects.get_mut(&object) else { continue };
            let chains = state.intake.chains();
            let whole = |(chain, _, last, _)| Range { chain, first: 1, last, after: Default::default() };
            let ranges: Vec<Range> = chains.heads().map(whole).collect();
            let places = chains.ordered(&ranges).filter_map(|id| chains.shelf(&id)).collect();
            state.quarantined.clear();
            state.locked.clear();
            state.reread = Some(Reread { asked: true, ..Reread::default() });
            if let Some(expected) = self.expected.get_mut(&object) {
                expected.begin();
            }
            out.push(Output::Reread { object, places });
        }
    }

    /// Records of an object that is read again, in the order asked for.
    pub(super) fn reread(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        records: Vec<Vec<u8>>,
        done: bool,
        out: &mut Vec<Output>,
    ) {
        for bytes in records {
            match Verified::trusted(bytes) {
                Ok(record) => self.merge_again(object, &record),
                Err(error) => tracing::warn!(%error, "a stored record cannot be read"),
            }
        }
        let Some(reread) = self.objects.get_mut(&object).filter(|_| done).and_then(|state| state.reread.as_mut())
        else {
            return;
        };
        if reread.again {
            *reread = Reread::default();
            return;
        }
        for record in std::mem::take(&mut reread.late) {
            self.merge_again(object, &record);
        }
        self.finish_reread(now, rng, object, out);
    }

    fn merge_again(&mut self, object: ObjectId, record: &Verified) {
        let content = open(record, self.keyring.key(object, record.header().epoch));
        let Some(state) = self.objects.get_mut(&object) else { return };
        let stands = state.stands(record);
        let text = match content {
            Content::Text(text) => text,
            Content::Locked if stands => {
                state.locked.insert(record.header().epoch);
                return;
            }
            Content::Locked | Content::Void(_) if !stands => return state.quarantine(record, Vec::new()),
            Content::Locked | Content::Void(_) => return,
        };
        self.note_ledger(object, record, &text);
        let kind = RecordKind::from_code(record.header().kind);
        if stands && matches!(kind, Some(RecordKind::Checkpoint | RecordKind::Listing)) {
            return self.list_again(object, record, &text);
        }
        let Some(state) = self.objects.get_mut(&object) else { return };
        let operations = operations(record, &text);
        if let Some(expected) = self.expected.get_mut(&object) {
            // Also what does not stand: the disk may still show it, and then it is not the user's work.
            expected.pass(&operations, state.written_at(record), &state.written);
        }
        if !stands {
            return state.quarantine(record, operations);
        }
        if state.is_replaced(record) {
            return;
        }
        let is_graph = kind == Some(RecordKind::Graph) && state.is_graph_line(record);
        let (Some(reread), Some(context)) = (&mut state.reread, state.intake.chains().context(&record.id())) else {
            return;
        };
        drop(reread.feed.apply(&operations, |record| context.contains_key(record)));
        if is_graph && object == ObjectId::from(self.mesh) {
            // What it names is looked up when all of it is merged.
            reread.changes.push((graph_actor(record), text.to_vec()));
        }
    }

    /// Merges a record of a checkpoint of an object that is read again.
    fn list_again(&mut self, object: ObjectId, record: &Verified, text: &[u8]) {
        let part = match Part::decode(text, &record.author(), &object) {
            Ok(part) => part,
            Err(error) => return self.note_void(object, &error),
        };
        let Some(state) = self.objects.get_mut(&object) else { return };
        let Some(mut reread) = state.reread.take() else { return };
        let is_known =
            |chains: &Chains, record: &RecordKey| chains.contains_key(record) || reread.listed.contains(record);
        let listing = state.listing(record, part, is_known);
        let listed = listing.as_ref().map(|listing| {
            reread.listed.extend(listing.part.places.keys());
            let chain = |record: &RecordKey| state.intake.chains().root(record);
            reread.feed.list(listing.at, &listing.part, |record| listing.known.contains(record), chain)
        });
        state.reread = Some(reread);
        if let (Some(listing), Some(listed)) = (listing, listed) {
            self.take_listed(object, record, &listing, &listed);
        }
    }

    fn finish_reread(&mut self, now: Timestamp, rng: &mut impl CryptoRng, object: ObjectId, out: &mut Vec<Output>) {
        let Some(state) = self.objects.get_mut(&object) else { return };
        let Some(reread) = state.reread.take() else { return };
        let quarantined = state.quarantined.len();
        if let Some(folder) = &mut state.folder {
            folder.replace(reread.feed);
        }
        if object == ObjectId::from(self.mesh) {
            let mut graph = Graph::new();
            drop(graph.apply_all(&reread.changes));
            self.graph = graph;
            // Its settings may name other relays and bootstraps, its contacts other devices.
            self.audiences_due = true;
            if self.graph_is_whole() {
                self.renamed.extend(self.objects.keys());
            }
            let named: Vec<ObjectId> = self.graph.objects().into_keys().collect();
            named.into_iter().for_each(|object| self.know_object(object, out));
        }
        self.note_due(object);
        out.push(Output::Event(Event::JudgedAgain { object, quarantined }));
        self.remap_folder(object);
        if let Some(state) = self.objects.get_mut(&object) {
            state.disown_strays();
            state.strays.clear();
        }
        self.advance_folder(now, rng, object, out);
    }
}

/// Whether new limits change what stands of what was held before these arrivals.
fn disturbs(state: &Object, limits: &Limits, arrivals: &[Arrival]) -> bool {
    state.intake.chains().heads().any(|(chain, _, head, _)| {
        let place = |arrival: &Arrival| state.intake.chains().place(&arrival.record.id());
        let came = arrivals.iter().filter_map(place).filter(|(of, _)| *of == chain);
        let before = came.map(|(_, seq)| seq - 1).min().unwrap_or(head);
        let stands = limits.get(&chain).copied().unwrap_or(u64::MAX);
        stands.min(before) != state.standing(&chain).min(before)
    })
}

impl Reread {
    /// Notes a record that came or was written while its object is read again.
    pub fn also(&mut self, record: &Verified) {
        self.late.push(record.clone());
    }
}
