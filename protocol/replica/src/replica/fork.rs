//! Chains that turn out to have forked: what was shown goes on to stand, and a device that finds its own chain written
//! on by another copy of itself begins a new one.

use std::collections::BTreeSet;

use meshwork_protocol::{
    id::{ChainId, DeviceId, ObjectId, OpId, RecordId},
    limits,
    object::{Dep, Fit, RecordKind, Verified},
};
use rand_core::CryptoRng;

use super::{Event, Object, Output, Replica};
use crate::sync::{Landed, receive::Arrival};

impl Object {
    /// Notes that this device wrote a record.
    pub(super) fn note_written(&mut self, chain: ChainId, seq: u64) {
        match self.written.iter_mut().find(|(of, _)| *of == chain) {
            Some((_, newest)) => *newest = seq.max(*newest),
            None => self.written.push((chain, seq)),
        }
    }

    /// Chain and place of a record, where this device wrote it itself.
    pub(super) fn written_at(&self, record: &Verified) -> Option<(ChainId, u64)> {
        let (chain, seq) = self.intake.chains().shelf(&record.id())?;
        self.written.iter().any(|(of, newest)| *of == chain && seq <= *newest).then_some((chain, seq))
    }

    /// Whether a change of the graph counts, which can go on from one branch of a forked chain only: from the first by
    /// name of those of which anything stands.
    pub(super) fn is_graph_line(&self, record: &Verified) -> bool {
        let chains = self.intake.chains();
        let Some((mut chain, _)) = chains.place(&record.id()) else { return false };
        while let Some((stem, base)) = chains.stem(&chain) {
            let stands = |sibling: &ChainId| self.standing(sibling) > base;
            if chains.siblings(&chain).filter(stands).min() != Some(chain) {
                return false;
            }
            chain = stem;
        }
        true
    }

    /// The newest record of the line that was held before a branch came with these `arrivals`, as far as it stood.
    /// None where nothing of it came after the fork.
    fn line_before(&self, arrival: &Arrival, arrivals: &[Arrival]) -> Option<RecordId> {
        let chains = self.intake.chains();
        let (branch, _) = chains.place(&arrival.record.id())?;
        let (stem, base) = chains.stem(&branch)?;
        let first = |sibling: &ChainId| chains.record_at(sibling, base + 1).and_then(|id| chains.shelf(&id));
        let before = chains.siblings(&branch).find(|sibling| first(sibling) == Some((stem, base + 1)))?;
        let came = arrivals.iter().filter_map(|other| chains.place(&other.record.id()));
        let held = came.filter(|(chain, _)| *chain == before).map(|(_, seq)| seq - 1).min();
        let newest = held.unwrap_or(u64::MAX).min(chains.head(&before).0).min(self.standing(&stem));
        chains.record_at(&before, newest)
    }
}

impl Replica {
    /// A record that this device did not write comes in a chain that it writes: there is another copy of it, or it is
    /// one that was restored. It signs nothing more there.
    pub(super) fn notice_copies(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        arrivals: &[Arrival],
        out: &mut Vec<Output>,
    ) {
        let device = self.device.device_id();
        let mut own =
            arrivals.iter().map(|arrival| &arrival.record).filter(|record| record.author() == device).peekable();
        if own.peek().is_none() {
            return;
        }
        let current = [self.own_chain(object), ChainId::of(&device, &object, &self.incarnation)];
        if !own.any(|record| current.contains(&record.chain())) {
            return;
        }
        rng.fill_bytes(&mut self.incarnation.0);
        tracing::warn!(object = %object.short(), "another copy of this device has written in its name");
        out.push(Output::Incarnation(self.incarnation));
        out.push(Output::Event(Event::CopyNoticed(object)));
    }

    /// Statements have come: of a device that has signed two for one place, or in the name of this one.
    pub(super) fn notice_signers(&self, log: ObjectId, added: &[OpId], out: &mut Vec<Output>) {
        let Some(held) = self.control.log(log) else { return };
        let own = self.device.device_id();
        let signer = |id: &OpId| held.get(*id).map(|entry| DeviceId::from(entry.author()));
        if added.iter().any(|id| signer(id) == Some(own)) {
            tracing::warn!(log = %log.short(), "another copy of this device has signed in its name");
            out.push(Output::Event(Event::CopyNoticed(log)));
        }
        let twins = added.iter().filter(|id| held.is_forked(**id)).filter_map(signer);
        for device in twins.filter(|device| *device != own).collect::<BTreeSet<_>>() {
            out.push(Output::Event(Event::ChainForked { object: log, device }));
        }
    }

    /// A chain has forked. Whoever showed one branch in good faith builds on it, so that it goes on to stand; that is
    /// stored before the record that shows the fork, which would cut it off.
    pub(super) fn vouch(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        arrivals: &[Arrival],
        out: &mut Vec<Output>,
    ) {
        let Some(state) = self.objects.get_mut(&object) else { return };
        let branches: Vec<&Arrival> = arrivals.iter().filter(|arrival| arrival.fit == Fit::Branch).collect();
        if branches.is_empty() {
            return;
        }
        state.read_again();
        self.announced.insert(object);
        let Some(state) = self.objects.get(&object) else { return };
        let authors: Vec<DeviceId> = branches.iter().map(|branch| branch.record.author()).collect();
        let mut heads: Vec<RecordId> =
            branches.iter().filter_map(|branch| state.line_before(branch, arrivals)).collect();
        heads.sort_unstable();
        heads.dedup();
        for author in authors.into_iter().filter(|author| *author != self.device.device_id()) {
            out.push(Output::Event(Event::ChainForked { object, device: author }));
        }
        let heads = state.intake.chains().deps(&heads);
        if self.join(rng, object, &heads) {
            self.judge_again(object);
        }
    }

    /// Chains were let go of, and with them what somebody had said there for others, that do not stand by themselves: what
    /// was shown of these goes on to stand.
    pub(super) fn vouch_anew(&mut self, rng: &mut impl CryptoRng, object: ObjectId) {
        let Some(state) = self.objects.get(&object) else { return };
        let chains = state.intake.chains();
        let limits = self.bench().limits(chains);
        let stood = |(chain, _, head, _): (ChainId, _, u64, _)| {
            let stood = state.standing(&chain).min(head);
            let stands = limits.get(&chain).copied().unwrap_or(head);
            chains.record_at(&chain, stood).filter(|_| stands < stood)
        };
        let heads = chains.deps(&chains.heads().filter_map(stood).collect::<Vec<_>>());
        self.join(rng, object, &heads);
        self.judge_again(object);
    }

    /// Writes records that do nothing but build on others; whether there is anything to write.
    fn join(&mut self, rng: &mut impl CryptoRng, object: ObjectId, heads: &[Dep]) -> bool {
        if heads.is_empty() || !self.may_write(object) {
            return false;
        }
        for deps in heads.chunks(limits::RECORD_DEPS) {
            let joined = self
                .ensure_epoch(rng, object)
                .and_then(|()| self.append(rng, object, (RecordKind::Join, &[], false), deps.to_vec()));
            if let Err(error) = joined {
                tracing::warn!(%error, object = %object.short(), "what was shown is not vouched for");
            }
        }
        true
    }

    /// Chains may have forked while records were being stored.
    pub(super) fn rename_landed(&self, object: ObjectId, records: &mut [Landed]) {
        let Some(state) = self.objects.get(&object) else { return };
        let chains = state.intake.chains();
        for landed in records.iter_mut() {
            if let Some((chain, seq)) = chains.place(&landed.id) {
                (landed.chain, landed.seq) = (chain, seq);
            }
        }
        records.sort_by_key(|landed| landed.seq);
    }
}
