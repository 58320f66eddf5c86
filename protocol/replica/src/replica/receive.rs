//! Reading: frames from peers into control statements and records, and those into graph and folders.

use std::{collections::BTreeSet, sync::Arc};

use meshwork_protocol::{
    control::{Act, ControlError, Inserted},
    id::{DeviceId, MeshId, ObjectId, OpId},
    key::{Kind, Signed},
    limits,
    object::{Fit, Range, RecordKind, Verified},
    time::Timestamp,
    wire::sync::{self as frames, Frame, Retirement},
};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;

use super::{Event, Object, Output, Replica, Said, Stored, judge::Bench};
use crate::{
    feed::{BatchError, Operation, decode},
    folder,
    graph::{ChangeError, GraphActor, GraphEvent},
    sync::{
        self,
        receive::{Arrival, Standing},
    },
};

impl Replica {
    /// Gives the sync machine an input and carries out what it asks for.
    pub(super) fn drive_sync(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        input: sync::Input,
        out: &mut Vec<Output>,
    ) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.sync.handle(now, input) {
                match output {
                    sync::Output::Send { peer, frame } => out.push(Output::Send { peer, frame }),
                    sync::Output::Serve { peer, object, ranges, answer, behind } => {
                        let places =
                            self.objects.get(&object).map(|state| sync::serve::plan(state.intake.chains(), &ranges));
                        self.tell_retired(peer, object, &ranges, behind, out);
                        out.push(Output::Serve { peer, object, places: places.unwrap_or_default(), answer });
                    }
                    sync::Output::SendControl { peer, object, have } => {
                        self.control_asked.push((peer, object, have));
                    }
                    sync::Output::Received { peer, object, record } => {
                        self.receive_record(now, rng, peer, object, record, &mut inputs, out);
                    }
                    sync::Output::ReceivedControl { peer, object, items } => {
                        self.receive_control(now, rng, peer, object, items, &mut inputs, out);
                    }
                    sync::Output::Retired { object, chains } => {
                        self.receive_retired(now, rng, object, &chains, &mut inputs, out);
                    }
                    sync::Output::Addresses { devices } => {
                        let peers = self.peers();
                        let known = devices.into_iter().filter(|known| peers.contains(&known.device)).collect();
                        out.push(Output::Addresses(known));
                    }
                    sync::Output::Close { peer, reason } => out.push(Output::Disconnect { peer, reason }),
                }
            }
            self.answer_control(&mut inputs, out);
        }
    }

    /// Sends what was asked for of control logs, as soon as all of it is durable.
    fn answer_control(&mut self, inputs: &mut Vec<sync::Input>, out: &mut Vec<Output>) {
        let unsaid = self.unsaid.values().flatten();
        let busy: BTreeSet<ObjectId> = unsaid
            .filter_map(|said| match said {
                Said::Control { object, .. } => Some(*object),
                Said::Record { .. } | Said::Retired { .. } => None,
            })
            .collect();
        let (later, ready) =
            std::mem::take(&mut self.control_asked).into_iter().partition(|asked| busy.contains(&asked.1));
        self.control_asked = later;
        let ready: Vec<(DeviceId, ObjectId, Vec<OpId>)> = ready;
        for (peer, object, have) in ready {
            let log = self.control.log(object);
            let items: Vec<Vec<u8>> =
                log.map(|log| log.missing(&have).iter().map(Signed::to_bytes).collect()).unwrap_or_default();
            let mut parts = frames::parts(items);
            if parts.is_empty() {
                parts.push(Vec::new());
            }
            let last = parts.len() - 1;
            for (number, items) in parts.into_iter().enumerate() {
                out.push(Output::Send { peer, frame: Frame::ControlItems { object, items, done: number == last } });
            }
            inputs.push(sync::Input::ControlSent { peer, object });
        }
    }

    pub(super) fn bench(&self) -> Bench<'_> {
        Bench { control: &self.control, keyring: &self.keyring, mesh: self.mesh }
    }

    #[expect(clippy::too_many_arguments, reason = "the loop's own state, lent to one of its arms")]
    fn receive_control(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        peer: DeviceId,
        object: ObjectId,
        items: Vec<ByteBuf>,
        inputs: &mut Vec<sync::Input>,
        out: &mut Vec<Output>,
    ) {
        let (mut entries, mut added, mut sent) = (Vec::new(), Vec::new(), BTreeSet::new());
        let before = self.peers();
        for item in items {
            let inserted = Signed::parse(&item).map_err(ControlError::from).and_then(|signed| {
                sent.insert(OpId(signed.id()));
                self.insert(signed)
            });
            match inserted {
                Ok(Inserted::Added(ids)) => added.extend(ids),
                Ok(Inserted::Duplicate | Inserted::Waiting(_)) => {}
                // News of a log of which not even the genesis is here yet, or of whose owner: ask for all of it.
                Err(ControlError::UnknownLog(unknown)) => {
                    inputs.push(sync::Input::NeedControl { peer, object: unknown });
                    break;
                }
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %error, "a control statement was refused");
                    inputs.push(sync::Input::Strike { peer });
                    out.push(Output::Event(Event::Refused { peer, error: error.to_string() }));
                }
            }
        }
        let mut logs = BTreeSet::new();
        for id in &added {
            let Some(signed) = self.control.get(*id) else { continue };
            let log = self.control.home(*id).unwrap_or(object);
            logs.insert(log);
            // What had waited for these need not be known to whoever sent them.
            let from = sent.contains(id).then_some(peer);
            entries.push((Stored::Control { object: log, items: vec![signed.to_bytes().into()] }, from));
        }
        self.persist_received(entries, out);
        self.tell_restored(&before, &added, out);
        for log in logs {
            self.control_grew(now, rng, log, &added, inputs, out);
        }
    }

    /// The mesh of a person with whom somebody here chose to deal is taken in before an object names it.
    fn insert(&mut self, signed: Signed) -> Result<Inserted, ControlError> {
        let is_mesh = Kind::from_wire(signed.kind) == Some(Kind::Genesis);
        let asked = is_mesh && self.followed().contains(&MeshId(signed.id()));
        if asked { self.control.adopt(signed) } else { self.control.insert(signed) }
    }

    /// Tells of devices that were not of the mesh before these statements, and that its root let in.
    fn tell_restored(&self, before: &BTreeSet<DeviceId>, added: &[OpId], out: &mut Vec<Output>) {
        let Some(log) = self.control.log(self.mesh.into()) else { return };
        let now = self.peers();
        for entry in added.iter().filter_map(|id| log.get(*id)).filter(|entry| log.is_root(entry.author())) {
            if let Act::Grant { to, .. } = entry.op().act
                && now.contains(&to.into())
                && !before.contains(&to.into())
            {
                out.push(Output::Event(Event::DeviceRestored(to.into())));
            }
        }
    }

    /// A control log has more than before: keys may open, records may be admitted, devices may connect.
    fn control_grew(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        log: ObjectId,
        added: &[OpId],
        inputs: &mut Vec<sync::Input>,
        out: &mut Vec<Output>,
    ) {
        self.notice_signers(log, added, out);
        self.open_epochs(log, out);
        self.keep_published(log, out);
        let is_mesh = self.control.log(log).is_some_and(|log| log.is_mesh());
        self.follow(log, inputs);
        self.audiences_due = true;
        let objects: Vec<ObjectId> = if is_mesh { self.objects.keys().copied().collect() } else { vec![log] };
        for object in objects {
            let Some(mut state) = self.objects.remove(&object) else {
                continue;
            };
            let arrivals = state.intake.control_arrived(&self.bench(), added);
            self.objects.insert(object, state);
            self.judge_again(object);
            self.note_due(object);
            self.take_arrivals(now, rng, object, arrivals, inputs, out);
            if self.may_write(object) && self.unsigned.remove(&object) {
                self.drive_folder(now, rng, object, folder::Input::DirtyEverywhere, out);
            }
        }
        if let Err(error) = self.complain(log).and_then(|()| self.supplement(rng, out)) {
            tracing::warn!(%error, "keys could not be sealed to new readers");
        }
    }

    /// A log may name persons whose own logs are needed now; a mesh may be the owner that an object waits for.
    fn follow(&mut self, log: ObjectId, inputs: &mut Vec<sync::Input>) {
        let known: Vec<ObjectId> = self.followed().into_iter().map(ObjectId::from).collect();
        let fresh = known.into_iter().filter(|person| self.control.log(*person).is_none());
        let fresh: Vec<ObjectId> = fresh.filter(|person| !self.awaited.contains(person)).collect();
        self.awaited.extend(&fresh);
        self.announced.extend(fresh);
        let waits =
            |object: &&ObjectId| self.control.log(**object).is_none() && self.owner_of(**object) == Some(MeshId(log.0));
        for object in self.objects.keys().filter(waits) {
            inputs.extend(self.connected.iter().map(|peer| sync::Input::NeedControl { peer: *peer, object: *object }));
        }
    }

    /// Opens what is sealed to this device in a log. Where records waited for that, the object is read again: what
    /// replaces them may have been merged before them.
    pub(super) fn open_epochs(&mut self, log: ObjectId, out: &mut Vec<Output>) {
        let opened = self.control.open_epochs(log, self.device.device_id(), &self.seal, &mut self.keyring);
        if opened.is_empty() {
            return;
        }
        let Some(state) = self.objects.get_mut(&log) else {
            return;
        };
        out.push(Output::Event(Event::FolderKnown(log)));
        if opened.iter().any(|epoch| state.locked.contains(epoch)) {
            state.read_again();
        }
        if self.resumed {
            self.remap_folder(log);
        }
    }

    /// Tells a peer that is behind, or asks for a checkpoint, of the chains that were let go of for such.
    fn tell_retired(&self, peer: DeviceId, object: ObjectId, ranges: &[Range], behind: bool, out: &mut Vec<Output>) {
        let Some(state) = self.objects.get(&object) else { return };
        let retired = sync::serve::retired(state.intake.chains(), ranges, behind);
        for chains in retired.chunks(limits::SYNC_RETIRED) {
            out.push(Output::Send { peer, frame: Frame::Retired { object, chains: chains.to_vec() } });
        }
    }

    fn receive_retired(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        chains: &[Retirement],
        inputs: &mut Vec<sync::Input>,
        out: &mut Vec<Output>,
    ) {
        let Some(state) = self.objects.get_mut(&object) else { return };
        let runs = &state.runs;
        state.intake.note_retired(chains, |it| runs.get(&it.by).is_some_and(|run| run.replaces(&it.chain)));
        self.admit_waiting(now, rng, object, inputs, out);
    }

    /// What waited may have waited for something of chains that were let go of since.
    pub(super) fn retry_waiting(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        out: &mut Vec<Output>,
    ) {
        let mut inputs = Vec::new();
        self.admit_waiting(now, rng, object, &mut inputs, out);
        inputs.into_iter().for_each(|input| self.drive_sync(now, rng, input, out));
    }

    fn admit_waiting(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        inputs: &mut Vec<sync::Input>,
        out: &mut Vec<Output>,
    ) {
        let Some(mut state) = self.objects.remove(&object) else { return };
        let arrivals = state.intake.retry(&self.bench());
        self.objects.insert(object, state);
        self.take_arrivals(now, rng, object, arrivals, inputs, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the loop's own state, lent to one of its arms")]
    fn receive_record(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        peer: DeviceId,
        object: ObjectId,
        record: Vec<u8>,
        inputs: &mut Vec<sync::Input>,
        out: &mut Vec<Output>,
    ) {
        let Some(mut state) = self.objects.remove(&object) else {
            return;
        };
        let receipt = state.intake.receive(&self.bench(), &peer, record);
        self.objects.insert(object, state);
        if let Some((chain, seq)) = receipt.place {
            inputs.push(sync::Input::Seen { peer, object, chain, seq });
        }
        if let Some(error) = &receipt.refusal {
            self.refused(peer, object, error, inputs, out);
        }
        self.take_arrivals(now, rng, object, receipt.arrivals, inputs, out);
    }

    fn refused(
        &mut self,
        peer: DeviceId,
        object: ObjectId,
        error: &sync::receive::ReceiveError,
        inputs: &mut Vec<sync::Input>,
        out: &mut Vec<Output>,
    ) {
        use sync::receive::ReceiveError;
        tracing::trace!(peer = %peer.short(), object = %object.short(), %error, "a record was not admitted");
        match error {
            ReceiveError::NeedControl(_) => inputs.push(sync::Input::NeedControl { peer, object }),
            ReceiveError::Sidestep { chain, seq } => {
                inputs.push(sync::Input::Sidestep { peer, object, chain: *chain, seq: *seq });
            }
            ReceiveError::TooBig(_) | ReceiveError::Malformed(_) => inputs.push(sync::Input::Strike { peer }),
            _ => {}
        }
        if error.is_fault() {
            out.push(Output::Event(Event::Refused { peer, error: error.to_string() }));
        }
    }

    /// Stores and merges admitted records.
    fn take_arrivals(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        arrivals: Vec<Arrival>,
        inputs: &mut Vec<sync::Input>,
        out: &mut Vec<Output>,
    ) {
        if arrivals.is_empty() {
            return;
        }
        self.notice_copies(rng, object, &arrivals, out);
        self.vouch(rng, object, &arrivals, out);
        let Some(state) = self.objects.get(&object) else { return };
        let chains = state.intake.chains();
        let mut entries = Vec::with_capacity(arrivals.len());
        for arrival in &arrivals {
            let id = arrival.record.id();
            if let Some((chain, seq)) = chains.place(&id) {
                inputs.push(sync::Input::Taken { object, chain, seq, id });
            }
            let Some((chain, seq)) = chains.shelf(&id) else { continue };
            let bytes = arrival.record.bytes().to_vec();
            if arrival.record.begins_checkpoint() {
                // It may be kept as a branch, where a device has begun the same chain twice.
                let (device, root) = (arrival.record.author(), arrival.record.chain());
                for (gone, _) in chains.retired().filter(|(_, by)| *by == root) {
                    entries.push((Stored::Retired { object, chain: gone, device, by: chain }, None));
                    self.retired.entry(object).or_default().insert(gone);
                }
            }
            entries.push((Stored::Record { object, chain, seq, id, own: false, bytes }, None));
        }
        self.persist_received(entries, out);
        self.merge_arrivals(object, &arrivals, out);
        if self.retired.contains_key(&object) {
            self.judge_again(object);
        }
        self.advance_folder(now, rng, object, out);
    }

    /// Opens and merges a record that is in its chain.
    pub(super) fn merge(&mut self, object: ObjectId, record: &Verified, out: &mut Vec<Output>) {
        let content = sync::receive::open(record, self.keyring.key(object, record.header().epoch));
        self.apply(
            object,
            &Arrival { record: record.clone(), fit: Fit::Line, standing: Standing::Stands, content },
            out,
        );
    }

    pub(super) fn merge_text(&mut self, object: ObjectId, record: &Verified, text: &[u8], out: &mut Vec<Output>) {
        self.note_ledger(object, record, text);
        match RecordKind::from_code(record.header().kind) {
            Some(RecordKind::Feed) => self.merge_feed(object, record, text),
            Some(RecordKind::Checkpoint | RecordKind::Listing) => self.merge_listing(object, record, text),
            Some(RecordKind::Graph) if object == ObjectId::from(self.mesh) => {
                if self.objects.get(&object).is_some_and(|state| state.is_graph_line(record)) {
                    self.merge_graph(record, text, out);
                }
            }
            Some(RecordKind::Graph | RecordKind::Join) | None => {}
        }
    }

    fn merge_feed(&mut self, object: ObjectId, record: &Verified, text: &[u8]) {
        let operations = read_operations(record, text).unwrap_or_else(|error| {
            self.note_void(object, &error);
            Vec::new()
        });
        let Some(state) = self.objects.get_mut(&object) else {
            return;
        };
        if let Some(expected) = self.expected.get_mut(&object) {
            expected.pass(&operations, state.written_at(record), &state.written);
        }
        if state.is_replaced(record) {
            return;
        }
        let Object { intake, folder, .. } = state;
        let (Some(folder), Some(context)) = (folder, intake.chains().context(&record.id())) else {
            return;
        };
        folder.merge(&operations, |record| context.contains_key(record));
    }

    fn merge_graph(&mut self, record: &Verified, text: &[u8], out: &mut Vec<Output>) {
        let actor = graph_actor(record);
        if let Some(stored) = &mut self.stored_changes {
            return stored.push((actor, text.to_vec()));
        }
        let applied = self.graph.apply(self.graph.due(actor, text));
        self.graph_changed(applied, out);
    }

    /// Applies the changes of the graph that were stored, all at once: one by one each would cost as much as all before it.
    pub(super) fn merge_stored_changes(&mut self, out: &mut Vec<Output>) {
        let changes = self.stored_changes.take().unwrap_or_default();
        for applied in self.graph.apply_all(&changes) {
            self.graph_changed(applied, out);
        }
    }

    fn graph_changed(&mut self, applied: Result<Vec<GraphEvent>, ChangeError>, out: &mut Vec<Output>) {
        let events = applied.unwrap_or_else(|error| {
            self.note_void(self.mesh.into(), &error);
            Vec::new()
        });
        for event in events {
            match event {
                GraphEvent::Object(object) => {
                    self.know_object(object, out);
                    self.renamed.insert(object);
                }
                // Of settings some say which relays lead to whom.
                GraphEvent::Contact(_) | GraphEvent::Setting(_) => self.audiences_due = true,
                GraphEvent::Device(_) | GraphEvent::Mapping(..) => {}
            }
        }
    }

    pub(super) fn note_void(&mut self, object: ObjectId, error: &impl std::fmt::Display) {
        tracing::warn!(%error, object = %object.short(), "the text of a record is void");
        if let Some(state) = self.objects.get_mut(&object) {
            state.intake.note_void();
        }
    }

    /// An object is named in the graph: from now on it is synchronised.
    pub(super) fn know_object(&mut self, object: ObjectId, out: &mut Vec<Output>) {
        if self.graph.object(object).is_none() {
            return;
        }
        let again = self.given_up.remove(&object);
        if again || !self.objects.contains_key(&object) {
            self.objects.entry(object).or_insert_with(|| Object::folder(object));
            self.announced.insert(object);
            self.announced.extend(self.owner_of(object).filter(|owner| *owner != self.mesh).map(ObjectId::from));
            self.audience_changed(out);
            out.push(Output::Event(Event::FolderKnown(object)));
            if self.resumed {
                // Its control log may have outlived a crash that the line of the graph did not.
                self.open_epochs(object, out);
                self.remap_folder(object);
            }
        }
    }
}

/// The operations of a record of a feed. Those of other kinds have none, nor has a batch that does not decode: it
/// counts in its chain and contributes nothing.
pub(super) fn operations(record: &Verified, text: &[u8]) -> Vec<Arc<Operation>> {
    read_operations(record, text).unwrap_or_default()
}

fn read_operations(record: &Verified, text: &[u8]) -> Result<Vec<Arc<Operation>>, BatchError> {
    let header = record.header();
    if RecordKind::from_code(header.kind) != Some(RecordKind::Feed) {
        return Ok(Vec::new());
    }
    Ok(decode(text, record.id().key(), header.height)?.into_iter().map(Arc::new).collect())
}

/// Whose change of the graph a record is.
pub(super) fn graph_actor(record: &Verified) -> GraphActor {
    let header = record.header();
    GraphActor::new(record.author(), header.object, header.incarnation)
}
