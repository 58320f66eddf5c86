//! Checkpoints of feeds: a device begins another chain with what of its own operations still lives, everybody builds on
//! that, and then all let go of the chains before it, so that a log does not grow for ever.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    control::Role,
    id::{ChainId, DeviceId, Incarnation, ObjectId, RecordKey},
    limits,
    object::{Chains, Dep, RecordKind, Verified},
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
    /// The chains whose place it takes.
    chains: BTreeMap<ChainId, Incarnation>,
}

/// Whole checkpoints by the chain that begins with each.
pub(super) type Runs = BTreeMap<ChainId, Run>;

/// What a device has to know of what it wrote to list what of it lives.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The records accounted for.
    noted: BTreeSet<RecordKey>,
    /// Operations of other devices that they replaced.
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
        is_own: impl Fn(&Dot) -> bool,
    ) {
        if !self.noted.insert(record) {
            return;
        }
        for operation in operations {
            let of_others = operation.base.iter().filter(|dot| !is_own(dot));
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
        let is_own = |dot: &Dot| self.is_of(device, &dot.record);
        match RecordKind::from_code(header.kind) {
            Some(RecordKind::Feed) => {
                let operations = decode(text, id, header.height).unwrap_or_default();
                ledger.note(id, operations.iter(), is_own);
            }
            Some(RecordKind::Checkpoint | RecordKind::Listing) => {
                let part = Part::decode(text, &device, &header.object).unwrap_or_default();
                ledger.note(id, part.listed.iter().map(|operation| &**operation), is_own);
                let killed =
                    part.killed.into_iter().flat_map(|(key, dots)| dots.into_iter().map(move |dot| (key.clone(), dot)));
                ledger.replaced.extend(killed);
            }
            _ => ledger.note(id, std::iter::empty(), is_own),
        }
        self.ledger = ledger;
    }

    /// Whether a record is one of a device, as far as that is known.
    fn is_of(&self, device: DeviceId, record: &RecordKey) -> bool {
        self.intake.chains().root(record).is_some_and(|root| self.author_of(&root) == Some(device))
    }

    fn author_of(&self, root: &ChainId) -> Option<DeviceId> {
        let chains = self.intake.chains();
        let listing = || self.runs.iter().find(|(_, run)| run.chains.contains_key(root)).map(|(by, _)| by);
        chains.author(root).or_else(|| chains.author(listing()?))
    }

    /// A record of a checkpoint, to be merged. `applied` tells which of the records that it lists were merged there
    /// before.
    pub(super) fn listing(
        &mut self,
        record: &Verified,
        mut part: Part,
        applied: impl Fn(&Chains, &RecordKey) -> bool,
    ) -> Option<Listing> {
        let chains = self.intake.chains();
        let (chain, seq) = chains.place(&record.id())?;
        let known = part.places.keys().filter(|record| applied(chains, record)).copied().collect();
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
        let mut runs =
            self.runs.iter().filter(|(by, run)| run.chains.contains_key(&root) && self.standing(by) >= run.last);
        runs.any(|(by, run)| !builds_on(by, run))
    }

    /// Another copy of this device, or this one before it was restored from a backup, has written a checkpoint that does
    /// not know of what this one wrote since. The keys under which the disk may show that: it is not gone, but new.
    fn shown_strays(&self, chains: &BTreeSet<ChainId>, listed: &BTreeSet<RecordKey>) -> Vec<Key> {
        let Some(base) = self.folder.as_ref().and_then(|folder| folder.base()) else { return Vec::new() };
        let is_stray = |record: &RecordKey| {
            !listed.contains(record) && self.intake.chains().root(record).is_some_and(|root| chains.contains(&root))
        };
        let shown = base.map().iter().flatten().filter(|operation| is_stray(&operation.dot.record));
        shown.map(|operation| operation.key.clone()).collect()
    }

    /// Forgets what was noted of records that are held no more.
    fn forget_replaced(&mut self) {
        let Object { intake, ledger, runs, quarantined, .. } = self;
        let chains = intake.chains();
        ledger.noted.retain(|record| chains.contains_key(record));
        runs.retain(|by, _| !chains.is_retired(by));
        quarantined.retain(|(chain, seq), _| chains.record_at(chain, *seq).is_some());
    }

    /// Whole checkpoints that stand and for which chains are held still.
    fn open_runs(&self) -> impl Iterator<Item = (&ChainId, &Run)> {
        let chains = self.intake.chains();
        let is_open = move |run: &Run| run.chains.keys().any(|chain| !chains.is_retired(chain));
        self.runs.iter().filter(move |(by, run)| is_open(run) && self.standing(by) >= run.last)
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
        // Something may live still of what was let go of for earlier ones.
        let earlier = self.runs.iter().filter(|(by, _)| chains.author(by) == Some(device));
        let earlier: BTreeMap<ChainId, Incarnation> =
            earlier.flat_map(|(_, run)| run.chains.clone()).filter(|(root, _)| chains.is_retired(root)).collect();
        let place = |record: &RecordKey| {
            let root = chains.root(record).filter(|root| taken.contains_key(root) || earlier.contains_key(root))?;
            Some((root, chains.place_of(record)?.1))
        };
        let is_needed = |operation: &Operation| !operation.value.is_tombstone() || !operation.former.is_empty();
        let own_live = feed.iter().flatten().filter(|operation| is_needed(operation));
        let (listed, places): (Vec<_>, Vec<_>) =
            own_live.filter_map(|operation| Some((operation.clone(), place(&operation.dot.record)?))).unzip();
        let places: BTreeMap<RecordKey, (ChainId, u64)> =
            listed.iter().map(|operation| operation.dot.record).zip(places).collect();
        let still = |root: &ChainId| earlier.get(root).map(|incarnation| (*root, *incarnation));
        taken.extend(places.values().filter_map(|(root, _)| still(root)).collect::<Vec<_>>());
        let of_others = |dot: &&Dot| !self.is_of(device, &dot.record);
        let told: BTreeSet<(Key, Dot)> =
            listed.iter().flat_map(|op| op.base.iter().filter(of_others).map(|dot| (op.key.clone(), *dot))).collect();
        // What its author has let go of and lists no more comes to nobody who has his checkpoint, on which this one builds.
        let may_come = |entry: &&(Key, Dot)| chains.place_of(&entry.1.record).is_some();
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
    /// Takes part in checkpoints from now on; to be said before anything is restored. No node does so yet: some histories
    /// are known in which replicas that let go of chains do not become equal (see `docs/hacking.md`).
    pub fn use_checkpoints(&mut self) {
        self.checkpoints = true;
    }

    /// Keeps what a later checkpoint has to know of a record, where this node writes such.
    pub(super) fn note_ledger(&mut self, object: ObjectId, record: &Verified, text: &[u8]) {
        if !self.checkpoints {
            return;
        }
        if let Some(state) = self.objects.get_mut(&object) {
            state.note_ledger(self.device.device_id(), record, text);
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
        if !self.checkpoints {
            return Ok(());
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
        let (by, run) = (listing.at.chain, Run { last: listing.at.seq, chains: listing.part.chains.clone() });
        let chains: BTreeSet<ChainId> = run.chains.keys().copied().collect();
        if !state.runs.contains_key(&by) && state.intake.chains().has_strays(&chains, (&by, run.last), records) {
            // What it does not know of counts no more, nor does what that had replaced.
            if record.author() == device {
                let strays = state.shown_strays(&chains, records);
                state.disowned.extend(strays);
                if let Some(folder) = &mut state.folder {
                    folder.disown(&state.disowned);
                }
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

    /// After a change of what is held: joins that vouch for the checkpoints of others, and letting go of what all have
    /// vouched for.
    pub(super) fn tend_checkpoints(&mut self, rng: &mut impl CryptoRng, out: &mut Vec<Output>) {
        for object in std::mem::take(&mut self.checkpoints_due) {
            if let Err(error) = self.vouch_for_runs(rng, object) {
                tracing::debug!(%error, object = %object.short(), "a checkpoint could not be vouched for");
            }
            self.let_go_of_replaced(object);
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
            let is_of_other = chains.author(by) != Some(device) && state.standing(by) >= run.last;
            is_of_other && vouched.is_none_or(|context| context.seq(by) < run.last)
        };
        let is_due = state.runs.iter().any(lacks);
        if !is_due || !self.may_write(object) {
            return Ok(());
        }
        self.author_record(rng, object, RecordKind::Join, &[], false).map(drop)
    }

    /// Lets go of the chains whose place a checkpoint has taken that every device has built on which may write and has
    /// written.
    fn let_go_of_replaced(&mut self, object: ObjectId) {
        let Some(state) = self.objects.get(&object) else { return };
        if state.reread.is_some() || self.expected.contains_key(&object) || !self.is_stored(object) {
            return;
        }
        let is_ready = |(by, run): &(&ChainId, &Run)| self.is_vouched_for(object, state, by, run);
        let ready: Vec<(ChainId, Run)> =
            state.open_runs().filter(is_ready).map(|(by, run)| (*by, run.clone())).collect();
        for (by, run) in ready {
            let Some(state) = self.objects.get_mut(&object) else { return };
            let Some(device) = state.intake.chains().author(&by) else { continue };
            let chains: BTreeSet<ChainId> =
                run.chains.into_keys().filter(|chain| !state.intake.chains().is_retired(chain)).collect();
            tracing::debug!(object = %object.short(), chains = chains.len(), "let go of what a checkpoint has taken the place of");
            state.intake.retire(&chains, &by, run.last);
            state.forget_replaced();
            self.signed.extend(chains.iter().map(|chain| Stored::Retired { object, chain: *chain, device, by }));
            self.retired.entry(object).or_default().extend(chains);
        }
    }

    fn is_vouched_for(&self, object: ObjectId, state: &Object, by: &ChainId, run: &Run) -> bool {
        let chains = state.intake.chains();
        let author = chains.author(by);
        let may_write = |device: DeviceId| self.control.role(object, device).is_some_and(|role| role >= Role::Edit);
        let own = self.device.device_id();
        let mut writers: BTreeSet<DeviceId> = chains.heads().map(|(_, author, ..)| author).collect();
        writers.insert(own);
        writers.into_iter().filter(|device| Some(*device) != author && may_write(*device)).all(|device| {
            // Whoever has written nothing that stands has nothing to lose, but this one.
            state.vouched(device, by).map_or(device != own, |vouched| vouched >= run.last)
        })
    }

    /// A chain that was let go of, as it was stored; to be told before the records of its object.
    pub fn restore_retired(&mut self, object: ObjectId, chain: ChainId, device: DeviceId, by: ChainId) {
        // Its control log may come later than this.
        let state = self.objects.entry(object).or_insert_with(|| Object::folder(object));
        state.intake.note_retired(&[Retirement { chain, device, by }]);
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
