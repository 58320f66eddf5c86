//! Checkpoints of feeds: a device begins another chain with what of its own operations still lives, everybody builds on
//! that, and then all let go of the chains before it, so that a log does not grow for ever.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    control::Role,
    id::{ChainId, DeviceId, Incarnation, ObjectId, RecordKey},
    limits,
    object::{Chains, Dep, RecordKind, Verified},
    time::Timestamp,
    wire::sync::Retirement,
};
use rand_core::CryptoRng;

use super::{AuthorError, Object, Output, Replica, Stored};
use crate::feed::{At, Dot, FeedMap, Key, Killed, Listed, Operation, Part, decode};

/// A checkpoint that is here whole.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Place of its last record.
    last: u64,
    /// Its last record: forks change the names of chains.
    end: RecordKey,
    /// The chains whose place it takes.
    chains: BTreeMap<ChainId, Incarnation>,
    /// The records of which it lists anything.
    listed: BTreeSet<RecordKey>,
}

impl Run {
    /// Whether it takes the place of a chain.
    pub(super) fn replaces(&self, chain: &ChainId) -> bool {
        self.chains.contains_key(chain)
    }
}

/// Whole checkpoints by the chain that begins with each.
pub(super) type Runs = BTreeMap<ChainId, Run>;

/// What a device has to know of what it wrote to list what of it lives.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How many records had been written since the last checkpoint when it was last considered to write one.
    counted: usize,
    /// The records accounted for.
    noted: BTreeSet<RecordKey>,
    /// Operations of other chains that they replaced.
    replaced: BTreeSet<(Key, Dot)>,
}

/// A record of a checkpoint that is being merged.
pub(super) struct Listing {
    pub at: At,
    pub part: Part,
    /// The records listed that were merged before themselves.
    pub known: BTreeSet<RecordKey>,
}

impl Ledger {
    /// Accounts for a record with these operations of its own or, in a checkpoint, listed.
    fn note<'a>(
        &mut self,
        record: RecordKey,
        operations: impl Iterator<Item = &'a Operation>,
        is_inside: impl Fn(&Dot) -> bool,
    ) {
        if !self.noted.insert(record) {
            return;
        }
        for operation in operations {
            let of_others = operation.base.iter().filter(|dot| !is_inside(dot));
            self.replaced.extend(of_others.map(|dot| (operation.key.clone(), *dot)));
        }
    }
}

/// The parts of a new checkpoint.
struct Draft {
    parts: Vec<Part>,
    replaced: BTreeSet<(Key, Dot)>,
}

impl Object {
    /// Accounts for a record that this device, or another copy of it, wrote.
    fn note_ledger(&mut self, device: DeviceId, record: &Verified, text: &[u8]) {
        if record.author() != device || self.folder.is_none() {
            return;
        }
        let mut ledger = std::mem::take(&mut self.ledger);
        let (id, header) = (record.id().key(), record.header());
        let chains = self.intake.chains();
        match RecordKind::from_code(header.kind) {
            Some(RecordKind::Feed) => {
                let operations = decode(text, id, header.height).unwrap_or_default();
                let is_inside = |dot: &Dot| chains.root(&dot.record) == Some(record.chain());
                ledger.note(id, operations.iter(), is_inside);
            }
            Some(RecordKind::Checkpoint | RecordKind::Listing) => {
                let part = Part::decode(text, &device, &header.object).unwrap_or_default();
                let is_inside =
                    |dot: &Dot| chains.root(&dot.record).is_some_and(|root| part.chains.contains_key(&root));
                ledger.note(id, part.listed.iter().map(|operation| &**operation), is_inside);
                let killed =
                    part.killed.into_iter().flat_map(|(key, dots)| dots.into_iter().map(move |dot| (key.clone(), dot)));
                ledger.replaced.extend(killed);
            }
            _ => ledger.note(id, std::iter::empty(), |_| true),
        }
        self.ledger = ledger;
    }

    /// A record of a checkpoint, to be merged. `applied` tells which of the records that it lists were merged there
    /// before. What another checkpoint has left out counts as dead, so that it is dead in whatever order both come.
    pub(super) fn listing(
        &mut self,
        record: &Verified,
        mut part: Part,
        applied: impl Fn(&Chains, &RecordKey) -> bool,
    ) -> Option<Listing> {
        let chains = self.intake.chains();
        let (chain, seq) = chains.place(&record.id())?;
        let is_dead = |record: &RecordKey, of: &ChainId| applied(chains, record) || self.is_left_out(record, of);
        let known = part.places.iter().filter(|(record, (of, _))| is_dead(record, of)).map(|(record, _)| *record);
        let known = known.collect();
        let elsewhere = self.intake.note_listed(&part.places);
        part.listed.retain(|operation| !elsewhere.contains(&operation.dot.record));
        let at = At { chain, seq, begins: record.begins_checkpoint(), ends: !record.header().more };
        Some(Listing { at, part, known })
    }

    /// Whether a checkpoint has taken the place of the chain that a record is in, and does not build on the record: it
    /// contributes nothing.
    pub(super) fn is_replaced(&self, record: &Verified) -> bool {
        let (root, chains) = (record.chain(), self.intake.chains());
        let builds_on = |by: &ChainId, run: &Run| {
            chains.context_at(by, run.last).is_some_and(|context| context.contains_key(&record.id().key()))
        };
        self.standing_runs().filter(|(_, run)| run.replaces(&root)).any(|(by, run)| !builds_on(by, run))
    }

    /// Checkpoints that are held, stand and are whole, under whatever name their chains go by now.
    fn valid_runs(&self) -> impl Iterator<Item = &Run> {
        let place = |run: &Run| self.intake.chains().place_of(&run.end);
        self.runs.values().filter(move |run| place(run).is_some_and(|(by, seq)| seq <= self.standing(&by)))
    }

    /// Whether a checkpoint has taken the place of the chain that a record is or was in, and does not list the record: all
    /// that it says is dead.
    fn is_left_out(&self, record: &RecordKey, chain: &ChainId) -> bool {
        self.valid_runs().any(|run| run.replaces(chain) && !run.listed.contains(record))
    }

    /// Whether a checkpoint leaves out what another one lists of the same chains, on which it does not build: a device that
    /// wrote both had forgotten the first.
    fn contradicts(&self, (by, run): (&ChainId, &Run)) -> bool {
        let context = self.intake.chains().context_at(by, run.last);
        let is_below = |other: &Run| context.is_some_and(|context| context.contains_key(&other.end));
        let shares = |other: &Run| other.chains.keys().any(|chain| run.replaces(chain));
        let mut others = self.valid_runs().filter(|other| other.end != run.end && shares(other) && !is_below(other));
        others.any(|other| !other.listed.is_subset(&run.listed))
    }

    /// Another copy of this device, or this one before it was restored from a backup, has written a checkpoint that does
    /// not know of what this one wrote since. Which records these are is not known any more once they are let go of.
    fn note_strays(&mut self, device: DeviceId, chains: &BTreeSet<ChainId>, listed: &BTreeSet<RecordKey>) {
        let Object { intake, folder: Some(folder), strays, .. } = self else { return };
        let base = folder.base().into_iter().flat_map(|base| base.map().iter());
        let shown = base.chain(folder.feed().iter()).flatten().map(|operation| operation.dot.record);
        let held = intake.chains();
        let is_of = |record: &RecordKey| held.root(record).is_some_and(|root| chains.contains(&root));
        let known = shown.chain(held.written_by(device));
        strays.extend(known.filter(|record| is_of(record) && !listed.contains(record)));
    }

    /// The disk may show strays: that is not gone, but new.
    pub(super) fn disown_strays(&mut self) {
        let Object { folder: Some(folder), strays, .. } = self else { return };
        let Some(base) = folder.base().filter(|_| !strays.is_empty()) else { return };
        let shown = base.map().iter().flatten().filter(|operation| strays.contains(&operation.dot.record));
        let keys: BTreeSet<Key> = shown.map(|operation| operation.key.clone()).collect();
        folder.disown(&keys);
    }

    /// The same where the own chains were let go of, for a checkpoint that another copy of this device wrote, before the
    /// disk base could be stored without what they say. `places`: the chains of records that are stored still.
    pub(super) fn disown_let_go(&mut self, device: DeviceId, places: &BTreeMap<RecordKey, ChainId>) {
        let Object { intake, folder: Some(folder), written, .. } = self else { return };
        let (Some(base), chains) = (folder.base(), intake.chains()) else { return };
        let of_copy = |by: &ChainId| chains.author(by) == Some(device) && !written.iter().any(|(own, _)| own == by);
        let gone: BTreeSet<ChainId> = chains.retired().filter(|(_, by)| of_copy(by)).map(|(chain, _)| chain).collect();
        let is_gone = |record: &RecordKey| places.get(record).is_some_and(|chain| gone.contains(chain));
        let shown = base.map().iter().flatten().filter(|operation| is_gone(&operation.dot.record));
        let keys: BTreeSet<Key> = shown.map(|operation| operation.key.clone()).collect();
        folder.disown(&keys);
    }

    /// Forgets what was noted of records that are held no more.
    fn forget_replaced(&mut self) {
        let Object { intake, ledger, runs, quarantined, .. } = self;
        let chains = intake.chains();
        ledger.noted.retain(|record| chains.contains_key(record));
        runs.retain(|by, _| chains.head(by).0 > 0);
        quarantined.retain(|(chain, seq), _| chains.record_at(chain, *seq).is_some());
    }

    /// Whole checkpoints that are held and stand.
    fn standing_runs(&self) -> impl Iterator<Item = (&ChainId, &Run)> {
        let held = |by: &ChainId| self.intake.chains().head(by).0;
        self.runs.iter().filter(move |(by, run)| held(by).min(self.standing(by)) >= run.last)
    }

    /// Those for which chains are held still.
    fn open_runs(&self) -> impl Iterator<Item = (&ChainId, &Run)> {
        let chains = self.intake.chains();
        self.standing_runs().filter(move |(_, run)| run.chains.keys().any(|chain| !chains.is_retired(chain)))
    }

    /// How far of a chain the newest that stands of a device builds on; none where nothing stands.
    fn vouched(&self, device: DeviceId, chain: &ChainId) -> Option<u64> {
        let chains = self.intake.chains();
        let own = chains.heads().filter(|(_, author, ..)| *author == device);
        let newest = own.map(|(own, _, seq, _)| (own, seq.min(self.standing(&own)))).filter(|(_, seq)| *seq > 0);
        newest.filter_map(|(own, seq)| Some(chains.context_at(&own, seq)?.seq(chain))).max()
    }

    /// Whether the disk shows something of chains that is no more.
    fn disk_needs(&self, chains: impl Fn(&ChainId) -> bool) -> bool {
        let Some((base, feed)) = self.folder.as_ref().and_then(|folder| Some((folder.base()?, folder.feed()))) else {
            return false;
        };
        let intended = base.intended();
        let mut shown = base.map().iter().chain(intended.iter().flat_map(FeedMap::iter)).flatten();
        let is_live = |operation: &Operation| feed.at(&operation.key).iter().any(|live| live.dot == operation.dot);
        let is_of = |record: &RecordKey| self.intake.chains().root(record).is_none_or(|root| chains(&root));
        shown.any(|operation| is_of(&operation.dot.record) && !is_live(operation))
    }

    /// What lives of the chains of a device, as the records of a checkpoint that takes the place of all of them but `own`.
    fn draft(&self, device: DeviceId, own: &ChainId, feed: &FeedMap) -> Draft {
        let chains = self.intake.chains();
        let is_whole = |root: &ChainId| {
            let mut of_root = chains.heads().filter(|(chain, ..)| chains.root_of_chain(chain) == Some(*root));
            of_root.all(|(chain, _, seq, _)| self.standing(&chain) >= seq)
        };
        // What does not stand of a chain may be taken over still, so that stays.
        let held = chains.roots(device).filter(|(root, _)| root != own && is_whole(root));
        let mut taken: BTreeMap<ChainId, Incarnation> = held.collect();
        // Some may hold what was let go of here for earlier ones.
        let earlier = self.runs.iter().filter(|(by, _)| chains.author(by) == Some(device));
        let earlier = earlier.flat_map(|(_, run)| run.chains.clone()).filter(|(root, _)| chains.is_retired(root));
        taken.extend(earlier.collect::<Vec<_>>());
        let place = |record: &RecordKey| {
            let root = chains.root(record).filter(|root| taken.contains_key(root))?;
            Some((root, chains.place_of(record)?.1))
        };
        let is_needed = |operation: &Operation| !operation.value.is_tombstone() || !operation.former.is_empty();
        let own_live = feed.iter().flatten().filter(|operation| is_needed(operation));
        let (listed, places): (Vec<_>, Vec<_>) =
            own_live.filter_map(|operation| Some((operation.clone(), place(&operation.dot.record)?))).unzip();
        let places: BTreeMap<RecordKey, (ChainId, u64)> =
            listed.iter().map(|operation| operation.dot.record).zip(places).collect();
        let is_taken = |dot: &Dot| chains.root(&dot.record).is_some_and(|root| taken.contains_key(&root));
        let of_others = |dot: &&Dot| !is_taken(dot);
        let told: BTreeSet<(Key, Dot)> =
            listed.iter().flat_map(|op| op.base.iter().filter(of_others).map(|dot| (op.key.clone(), *dot))).collect();
        // What its author has let go of and lists no more comes to nobody who has his checkpoint, on which this one builds.
        let may_come = |(_, dot): &&(Key, Dot)| chains.place_of(&dot.record).is_some() && !is_taken(dot);
        let replaced: BTreeSet<(Key, Dot)> = self.ledger.replaced.iter().filter(may_come).cloned().collect();
        let mut killed = Killed::new();
        for (key, dot) in replaced.difference(&told) {
            killed.entry(key.clone()).or_default().insert(*dot);
        }
        let parts = Part::split(taken, listed, killed, |record| places.get(record).copied());
        Draft { parts, replaced: replaced.into_iter().chain(told).collect() }
    }

    /// The newest that stands of all other chains: a checkpoint names it all, for what is let go of cannot tell what it
    /// built on.
    fn heads_beside(&self, own: &ChainId) -> Vec<Dep> {
        let chains = self.intake.chains();
        let heads = chains.heads().filter(|(chain, ..)| chain != own);
        let newest = heads.filter_map(|(chain, _, seq, _)| chains.record_at(&chain, seq.min(self.standing(&chain))));
        chains.deps(&newest.collect::<Vec<_>>())
    }
}

impl Replica {
    /// Keeps what a later checkpoint has to know of a record.
    pub(super) fn note_ledger(&mut self, object: ObjectId, record: &Verified, text: &[u8]) {
        if let Some(state) = self.objects.get_mut(&object) {
            state.note_ledger(self.device.device_id(), record, text);
        }
    }

    /// Writes a checkpoint when what this device has written since the last one is much more than one would be.
    fn checkpoint_if_due(&mut self, rng: &mut impl CryptoRng, object: ObjectId) {
        let (device, own) = (self.device.device_id(), self.own_chain(object));
        let Some(state) = self.objects.get_mut(&object).filter(|state| state.reread.is_none()) else { return };
        let chains = state.intake.chains();
        let since = chains.head(&own).0.saturating_sub(state.runs.get(&own).map_or(0, |run| run.last)) as usize;
        // What lives is counted only now and then, for that means to look at all of the folder.
        let counted = Some(state.ledger.counted).filter(|counted| *counted <= since).unwrap_or(0);
        if since < limits::CHECKPOINT_AFTER.max(2 * counted) {
            return;
        }
        state.ledger.counted = since;
        let is_own = |dot: &Dot| {
            let place = chains.place_of(&dot.record);
            place.is_some_and(|(chain, _)| chains.author(&chain).is_none_or(|author| author == device))
        };
        let feed = state.folder.as_ref().map(|folder| folder.feed());
        let live =
            feed.into_iter().flat_map(FeedMap::iter).flatten().filter(|operation| is_own(&operation.dot)).count();
        let listed = (live + state.ledger.replaced.len()).div_ceil(limits::FEED_OPERATIONS);
        if since < limits::CHECKPOINT_GAIN * listed {
            return;
        }
        if let Err(error) = self.author_checkpoint(rng, object) {
            tracing::warn!(%error, object = %object.short(), "a checkpoint could not be written");
        }
    }

    /// Writes a checkpoint of what this device wrote in a folder. Nothing is written where nothing was, or where not all of
    /// it can be read now.
    pub fn checkpoint(&mut self, rng: &mut impl CryptoRng, object: ObjectId) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let written = self.author_checkpoint(rng, object);
        self.persist_signed(&mut out);
        written.map(|()| out)
    }

    fn author_checkpoint(&mut self, rng: &mut impl CryptoRng, object: ObjectId) -> Result<(), AuthorError> {
        if self.store_failed {
            return Err(AuthorError::StoreFailed);
        }
        if !self.may_write(object) {
            return Err(AuthorError::NotMember);
        }
        self.ensure_epoch(rng, object)?;
        let (device, incarnation) = (self.device.device_id(), self.own_incarnation(object).next());
        let own = ChainId::of(&device, &object, &incarnation);
        let state = self.object(object)?;
        let is_readable = state.reread.is_none() && state.locked.is_empty();
        let is_noted = |record: &RecordKey| state.ledger.noted.contains(record);
        let Some(folder) = state.folder.as_ref().filter(|_| is_readable) else { return Ok(()) };
        if !state.intake.chains().written_by(device).all(|record| is_noted(&record)) {
            return Ok(());
        }
        let Draft { parts, replaced } = state.draft(device, &own, folder.feed());
        let taken = parts.first().map_or(0, |part| part.chains.len());
        if taken == 0 || taken > limits::CHECKPOINT_CHAINS {
            return Ok(());
        }
        let deps = state.heads_beside(&own);
        let records = parts.len().max(deps.len().div_ceil(limits::RECORD_DEPS));
        let empty =
            Part { chains: parts.first().map(|part| part.chains.clone()).unwrap_or_default(), ..Part::default() };
        for number in 0..records {
            let text = parts.get(number).unwrap_or(&empty).encode()?;
            let deps = deps.chunks(limits::RECORD_DEPS).nth(number).unwrap_or_default().to_vec();
            let kind = if number == 0 { RecordKind::Checkpoint } else { RecordKind::Listing };
            let record = self.append_in(rng, object, incarnation, (kind, &text, number + 1 < records), deps)?;
            self.merge_listing(object, &record, &text);
        }
        if let Some(state) = self.objects.get_mut(&object) {
            state.ledger.replaced = replaced;
        }
        self.checkpoints_due.insert(object);
        Ok(())
    }

    /// Merges a record of a checkpoint into a folder's feed.
    pub(super) fn merge_listing(&mut self, object: ObjectId, record: &Verified, text: &[u8]) {
        let part = match Part::decode(text, &record.author(), &object) {
            Ok(part) => part,
            Err(error) => return self.note_void(object, &error),
        };
        let Some(state) = self.objects.get_mut(&object) else { return };
        let is_known = |chains: &Chains, record: &RecordKey| chains.place_of(record).is_some();
        let Some(listing) = state.listing(record, part, is_known) else { return };
        let Object { intake, folder: Some(folder), .. } = state else { return };
        let listed = folder.list(
            listing.at,
            &listing.part,
            |record| listing.known.contains(record),
            |record| intake.chains().root(record),
        );
        self.take_listed(object, record, &listing, &listed);
    }

    /// What came of a record of a checkpoint.
    pub(super) fn take_listed(&mut self, object: ObjectId, record: &Verified, listing: &Listing, listed: &Listed) {
        if let Some(expected) = self.expected.get_mut(&object) {
            expected.pass(&listing.part.listed, None, &Vec::new());
        }
        let device = self.device.device_id();
        let Some(state) = self.objects.get_mut(&object) else { return };
        let Some(records) = &listed.whole else { return };
        let by = listing.at.chain;
        let (end, last) = (record.id().key(), listing.at.seq);
        let run = Run { last, end, chains: listing.part.chains.clone(), listed: records.clone() };
        let chains: BTreeSet<ChainId> = run.chains.keys().copied().collect();
        let has_strays = || state.intake.chains().has_strays(&chains, (&by, run.last), records);
        if !state.runs.contains_key(&by) && (has_strays() || state.contradicts((&by, &run))) {
            // What it does not know of counts no more, nor does what that had replaced.
            if record.author() == device {
                state.note_strays(device, &chains, records);
                state.disown_strays();
            }
            state.read_again();
        }
        state.intake.forget_listed(&chains, records);
        state.runs.insert(by, run);
        self.checkpoints_due.insert(object);
    }

    /// Something has changed that may decide whether the checkpoints of an object can be vouched for, or let go for.
    pub(super) fn note_due(&mut self, object: ObjectId) {
        if self.objects.get(&object).is_some_and(|state| !state.runs.is_empty()) {
            self.checkpoints_due.insert(object);
        }
    }

    /// After a change of what is held: an own checkpoint where one pays, joins that vouch for the checkpoints of others, and letting go of what all have
    /// vouched for.
    pub(super) fn tend_checkpoints(&mut self, now: Timestamp, rng: &mut impl CryptoRng, out: &mut Vec<Output>) {
        for object in std::mem::take(&mut self.checkpoints_due) {
            self.checkpoint_if_due(rng, object);
            if let Err(error) = self.vouch_for_runs(rng, object) {
                tracing::debug!(%error, object = %object.short(), "a checkpoint could not be vouched for");
            }
            if self.let_go_of_replaced(object) {
                self.vouch_anew(rng, object);
                self.note_due(object);
                self.retry_waiting(now, rng, object, out);
            }
        }
        self.persist_signed(out);
    }

    /// Builds on the checkpoints of others, so that all can let go of what comes before them.
    fn vouch_for_runs(&mut self, rng: &mut impl CryptoRng, object: ObjectId) -> Result<(), AuthorError> {
        let (device, own) = (self.device.device_id(), self.own_chain(object));
        let Some(state) = self.objects.get(&object).filter(|state| state.reread.is_none()) else { return Ok(()) };
        let chains = state.intake.chains();
        let vouched = chains.context(&chains.head(&own).1);
        // Also for those for which it has let go itself: where it writes another chain by now, what it had said for them
        // in the one before may not stand.
        let lacks = |(by, run): (&ChainId, &Run)| {
            chains.author(by) != Some(device) && vouched.is_none_or(|context| context.seq(by) < run.last)
        };
        let is_due = state.standing_runs().any(lacks);
        if !is_due || !self.may_write(object) {
            return Ok(());
        }
        self.author_record(rng, object, RecordKind::Join, &[], false).map(drop)
    }

    /// Lets go of the chains whose place a checkpoint has taken that every device has built on which may write. Whether there
    /// were any.
    fn let_go_of_replaced(&mut self, object: ObjectId) -> bool {
        let Some(state) = self.objects.get(&object) else { return false };
        if state.reread.is_some() || self.expected.contains_key(&object) || !self.is_stored(object) {
            return false;
        }
        let is_ready = |(by, run): &(&ChainId, &Run)| self.is_vouched_for(object, state, by, run);
        let ready: Vec<(ChainId, Run)> =
            state.open_runs().filter(is_ready).map(|(by, run)| (*by, run.clone())).collect();
        for (by, run) in &ready {
            let Some(state) = self.objects.get_mut(&object) else { return false };
            let Some(device) = state.intake.chains().author(by) else { continue };
            let chains: BTreeSet<ChainId> =
                run.chains.keys().filter(|chain| !state.intake.chains().is_retired(chain)).copied().collect();
            tracing::debug!(object = %object.short(), chains = chains.len(), "let go of what a checkpoint has taken the place of");
            state.intake.retire(&chains, by, run.last);
            state.forget_replaced();
            self.signed.extend(chains.iter().map(|chain| Stored::Retired { object, chain: *chain, device, by: *by }));
            self.retired.entry(object).or_default().extend(chains);
        }
        !ready.is_empty()
    }

    /// Whether all who may write have built on a checkpoint, but those who are declared away: whoever has not may still say
    /// that it does not stand.
    fn is_vouched_for(&self, object: ObjectId, state: &Object, by: &ChainId, run: &Run) -> bool {
        let author = state.intake.chains().author(by);
        let meshes = self.control.persons(object).into_iter();
        let away: BTreeSet<DeviceId> =
            meshes.flat_map(|(mesh, _)| self.control.away(mesh)).map(|(device, _)| device).collect();
        let writers = self.control.members(object).filter(|(_, member)| member.role >= Role::Edit);
        let mut others = writers.map(|(device, _)| device).filter(|device| Some(*device) != author);
        others.all(|device| {
            let is_away = away.contains(&device) && device != self.device.device_id();
            is_away || state.vouched(device, by).is_some_and(|vouched| vouched >= run.last)
        })
    }

    /// A chain that was let go of, as it was stored; to be told before the records of its object.
    pub fn restore_retired(&mut self, object: ObjectId, chain: ChainId, device: DeviceId, by: ChainId) {
        // Its control log may come later than this.
        let state = self.objects.entry(object).or_insert_with(|| Object::folder(object));
        state.intake.note_retired(&[Retirement { chain, device, by }], |_| true);
        state.let_go.insert(chain);
        if let Some(expected) = self.expected.get_mut(&object) {
            expected.note_let_go(chain);
        }
    }

    /// What the store holds of chains that were let go of, where the disk does not need it.
    pub(super) fn forget(&self, object: ObjectId, chain: ChainId, out: &mut Vec<Output>) {
        let state = self.objects.get(&object).filter(|_| !self.expected.contains_key(&object));
        if state.is_some_and(|state| state.intake.chains().is_retired(&chain) && !state.disk_needs(|of| *of == chain)) {
            out.push(Output::Forget { object, chain });
        }
    }

    /// The same of all that was let go of before, once the folders are back.
    pub(super) fn forget_again(&self, out: &mut Vec<Output>) {
        for (object, state) in &self.objects {
            for (chain, _) in state.intake.chains().retired() {
                self.forget(*object, chain, out);
            }
        }
    }
}
