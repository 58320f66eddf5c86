//! A node's replica of its mesh: the only place that knows more than one machine.
//!
//! It owns the control logs, the chains, the graph, the folders and the machines that keep them equal
//! to other replicas; it routes each input to the machine concerned and what that asks for onward. It
//! reads no clock, draws no randomness of its own and does no I/O, so that a simulation can run
//! thousands of them.

mod adopt;
mod author;
mod checkpoint;
mod exchange;
mod fork;
mod judge;
mod membership;
mod mesh;
mod missing;
mod receive;
mod restore;
mod sharing;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    control::{Control, ControlError, EpochError, Keyring},
    id::{ChainId, DeviceId, EpochId, Incarnation, MeshId, ObjectId, OpId, RecordKey},
    key::DeviceKey,
    object::{ChainError, Chains, RecordError},
    seal::{Convergence, SealKey, SealPublic},
    time::Timestamp,
};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;

pub use adopt::{AdoptError, Adoption, Choice, path_of};
pub use exchange::{Event, Input, Output, Stored, StoredBase};
pub use mesh::FOLDER;
pub use missing::Missing;
pub use standing::Quarantined;

use crate::{
    feed::BatchError,
    folder::{self, Folder},
    graph::{ChangeError, Graph, GraphActor},
    sync::{self, Landed, Sync, receive::Intake},
    transfer::{self, Transfer},
};

/// Why something could not be written. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// No such object.
    #[error("this object is not known here")]
    UnknownObject,
    /// This device may not write there.
    #[error("this device has no right to write there")]
    NotMember,
    /// A device is removed, and let in again, only by an admin who is not junior to it, or to who removed it.
    #[error("this device is outranked")]
    NotSenior,
    /// The key to write with has not arrived yet.
    #[error("the key of this object has not arrived yet")]
    NoEpoch,
    /// An earlier write could not be stored.
    #[error("the store failed; nothing is written until the node starts again")]
    StoreFailed,
    /// The control log refuses.
    #[error(transparent)]
    Author(#[from] meshwork_protocol::control::AuthorError),
    /// The control log refuses.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The epoch could not be made.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The record could not be made.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record does not continue its chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The operations do not make a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The graph refuses.
    #[error(transparent)]
    Graph(#[from] ChangeError),
}

/// Who a replica is.
pub struct Identity {
    /// Signs.
    pub device: DeviceKey,
    /// Opens what is sealed to this device.
    pub seal: SealKey,
    /// Names the chains that this device writes since it was installed or restored.
    pub incarnation: Incarnation,
    /// The mesh it belongs to.
    pub mesh: MeshId,
}

/// One object as this replica knows it.
struct Object {
    intake: Intake,
    /// Epochs of records that stand and could not be read yet for want of the key.
    locked: BTreeSet<EpochId>,
    folder: Option<Folder>,
    limits: standing::Limits,
    quarantined: BTreeMap<(ChainId, u64), Quarantined>,
    reread: Option<standing::Reread>,
    written: restore::Written,
    runs: checkpoint::Runs,
    ledger: checkpoint::Ledger,
    /// Records of this device of which a checkpoint of its own does not know, until all is merged without them.
    strays: BTreeSet<RecordKey>,
    /// Chains that were let go of before this start; their records may be in the store still.
    let_go: BTreeSet<ChainId>,
}

impl Object {
    fn mesh(object: ObjectId) -> Self {
        Object {
            intake: Intake::new(object),
            locked: BTreeSet::new(),
            folder: None,
            limits: standing::Limits::new(),
            quarantined: BTreeMap::new(),
            reread: None,
            written: restore::Written::new(),
            runs: checkpoint::Runs::new(),
            ledger: checkpoint::Ledger::default(),
            strays: BTreeSet::new(),
            let_go: BTreeSet::new(),
        }
    }

    fn folder(object: ObjectId) -> Self {
        Object { folder: Some(Folder::new(object)), ..Object::mesh(object) }
    }
}

/// What may be said once it is durable.
enum Said {
    Control { object: ObjectId, item: Vec<u8>, from: Option<DeviceId> },
    Record { object: ObjectId, landed: Landed },
    Retired { object: ObjectId, chain: ChainId },
}

/// The replica.
pub struct Replica {
    device: DeviceKey,
    seal: SealKey,
    incarnation: Incarnation,
    mesh: MeshId,
    control: Control,
    keyring: Keyring,
    objects: BTreeMap<ObjectId, Object>,
    graph: Graph,
    sync: Sync,
    transfer: Transfer,
    expected: BTreeMap<ObjectId, restore::Expected>,
    /// What this device has signed and taken in, and the store has not been given yet: it goes there before
    /// anything that builds on it, also when what it was signed for comes to nothing.
    signed: Vec<Stored>,
    unsaid: BTreeMap<u64, Vec<Said>>,
    /// Objects, and meshes for their control logs, that the sync machine is to be told of, or told anew: it may know some
    /// records under names of chains that have forked since.
    announced: BTreeSet<ObjectId>,
    /// What connected devices may know of may have changed.
    audiences_due: bool,
    /// Meshes whose control log the sync machine was told to ask for.
    awaited: BTreeSet<ObjectId>,
    /// Objects that the graph named or has ceased to name.
    renamed: BTreeSet<ObjectId>,
    /// Chains that were let go of, of which the sync machine does not know yet.
    retired: BTreeMap<ObjectId, BTreeSet<ChainId>>,
    /// Folders in which a checkpoint may be due, to be vouched for, or to be let go of what comes before it.
    checkpoints_due: BTreeSet<ObjectId>,
    /// Folders with changes on disk that this device could not sign.
    unsigned: BTreeSet<ObjectId>,
    /// Objects of other persons that this mesh takes no part in any more.
    given_up: BTreeSet<ObjectId>,
    /// Questions for control logs that wait until these are durable.
    control_asked: Vec<(DeviceId, ObjectId, Vec<OpId>)>,
    connected: BTreeSet<DeviceId>,
    last_ticket: u64,
    store_failed: bool,
    /// Changes of the graph that were stored, while what was stored is taken in.
    stored_changes: Option<Vec<(GraphActor, Vec<u8>)>>,
    /// All that was stored has been taken in.
    resumed: bool,
}

impl Replica {
    /// A replica that knows nothing yet but who it is.
    pub fn new(identity: Identity) -> Self {
        let mesh = ObjectId::from(identity.mesh);
        Replica {
            device: identity.device,
            seal: identity.seal,
            incarnation: identity.incarnation,
            mesh: identity.mesh,
            control: Control::new(),
            keyring: Keyring::new(),
            objects: BTreeMap::from([(mesh, Object::mesh(mesh))]),
            graph: Graph::new(),
            sync: Sync::new(),
            transfer: Transfer::default(),
            expected: BTreeMap::new(),
            signed: Vec::new(),
            unsaid: BTreeMap::new(),
            announced: BTreeSet::new(),
            audiences_due: false,
            awaited: BTreeSet::new(),
            renamed: BTreeSet::new(),
            retired: BTreeMap::new(),
            checkpoints_due: BTreeSet::new(),
            unsigned: BTreeSet::new(),
            given_up: BTreeSet::new(),
            control_asked: Vec::new(),
            connected: BTreeSet::new(),
            last_ticket: 0,
            store_failed: false,
            stored_changes: None,
            resumed: false,
        }
    }

    /// Takes an input in and says what is to be done.
    #[must_use]
    pub fn handle(&mut self, now: Timestamp, rng: &mut impl CryptoRng, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.persist_signed(&mut out);
        match input {
            Input::PeerUp(peer) => {
                self.connected.insert(peer);
                let audience = self.audience(peer);
                let objects = sharing::whole(&audience);
                self.drive_sync(now, rng, sync::Input::PeerUp { peer, objects: audience }, &mut out);
                self.drive_transfer(now, rng, transfer::Input::PeerUp(peer, objects), &mut out);
            }
            Input::PeerDown(peer) => {
                self.connected.remove(&peer);
                self.drive_sync(now, rng, sync::Input::PeerDown { peer }, &mut out);
                self.drive_transfer(now, rng, transfer::Input::PeerDown(peer), &mut out);
            }
            Input::Frame { peer, bytes } => self.drive_sync(now, rng, sync::Input::Frame { peer, bytes }, &mut out),
            Input::Sent { peer, object, answer, through } => {
                self.drive_sync(now, rng, sync::Input::Sent { peer, object, answer, through }, &mut out);
            }
            Input::Persisted { ticket, durable } => self.persisted(now, rng, ticket, durable, &mut out),
            Input::Folder { object, input } => self.drive_folder(now, rng, object, input, &mut out),
            Input::Fetched { ticket, outcomes } => {
                self.drive_transfer(now, rng, transfer::Input::Fetched { ticket, outcomes }, &mut out);
            }
            Input::Reread { object, records, done } => self.reread(now, rng, object, records, done, &mut out),
            Input::Tick => self.tick(now, rng, &mut out),
        }
        self.settle(now, rng, &mut out);
        out
    }

    /// What follows from an input but is done once, whatever asked for it.
    fn settle(&mut self, now: Timestamp, rng: &mut impl CryptoRng, out: &mut Vec<Output>) {
        if !self.is_judging(self.mesh.into()) {
            for object in std::mem::take(&mut self.renamed) {
                self.give_up(now, rng, object, out);
            }
        }
        self.announce(now, rng, out);
        self.tend_checkpoints(now, rng, out);
        for (object, chains) in std::mem::take(&mut self.retired) {
            self.drive_sync(now, rng, sync::Input::Retired { object, chains }, out);
        }
        if std::mem::take(&mut self.audiences_due) {
            self.tell_audiences(now, rng, out);
            out.push(Output::PeersChanged);
        }
        self.ask_again(out);
    }

    /// Whether the graph says all that is held of it: nothing of it waits for a key or is being read again.
    fn graph_is_whole(&self) -> bool {
        let state = self.objects.get(&ObjectId::from(self.mesh));
        state.is_some_and(|state| state.reread.is_none() && state.locked.is_empty())
    }

    /// When [`Input::Tick`] is next due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let folders = self.objects.values().filter_map(|object| object.folder.as_ref()?.next_deadline());
        folders.chain(self.transfer.next_deadline()).chain(self.sync.next_deadline()).min()
    }

    fn tick(&mut self, now: Timestamp, rng: &mut impl CryptoRng, out: &mut Vec<Output>) {
        self.drive_sync(now, rng, sync::Input::Tick, out);
        self.drive_transfer(now, rng, transfer::Input::Tick, out);
        let due = |object: &Object| object.folder.as_ref()?.next_deadline().filter(|due| *due <= now);
        let folders: Vec<ObjectId> =
            self.objects.iter().filter(|(_, object)| due(object).is_some()).map(|(id, _)| *id).collect();
        for object in folders {
            self.drive_folder(now, rng, object, folder::Input::Tick, out);
        }
    }

    /// Gives an input to a folder and carries out what that asks for, until it asks for nothing more
    /// that the replica can do itself.
    fn drive_folder(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        input: folder::Input,
        out: &mut Vec<Output>,
    ) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let Some(folder) = self.folder_mut(object) else { return };
            for output in folder.handle(now, rng, input) {
                if let folder::Output::Author(operations) = output {
                    match self.author_operations(rng, object, operations, out) {
                        Ok(signed) => inputs.push(folder::Input::Authored(signed)),
                        Err(error) => {
                            tracing::error!(%error, object = %object.short(), "changes could not be signed");
                            self.unsigned.insert(object);
                            inputs.push(folder::Input::AuthorFailed(error.to_string()));
                        }
                    }
                } else {
                    self.route_folder(now, rng, object, output, out);
                }
            }
        }
    }

    fn route_folder(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        output: folder::Output,
        out: &mut Vec<Output>,
    ) {
        match output {
            folder::Output::List(paths) => out.push(Output::List(object, paths)),
            folder::Output::Hash(files) => out.push(Output::Hash(object, files)),
            folder::Output::Place(batch) => out.push(Output::Place(object, batch)),
            folder::Output::Author(_) => {}
            folder::Output::Want(operations) => {
                let files = operations.iter().filter_map(|op| op.value.file().cloned()).collect();
                self.drive_transfer(now, rng, transfer::Input::Want { object, files }, out);
            }
            folder::Output::Unwant(contents) => {
                self.drive_transfer(now, rng, transfer::Input::Unwant { object, contents }, out);
            }
            folder::Output::Base(changes) => {
                let own = self.own_head(object);
                out.push(Output::Base { object, own, changes });
            }
            folder::Output::Event(event) => out.push(Output::Event(Event::Folder(object, event))),
        }
    }

    fn drive_transfer(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        input: transfer::Input,
        out: &mut Vec<Output>,
    ) {
        for output in self.transfer.handle(now, input) {
            match output {
                transfer::Output::Fetch { ticket, peer, object, files } => {
                    out.push(Output::Fetch { ticket, peer, object, files });
                }
                transfer::Output::Arrived { object, content } => {
                    self.drive_folder(now, rng, object, folder::Input::Arrived(content), out);
                }
            }
        }
    }

    /// Asks for what was signed here to be stored.
    fn persist_signed(&mut self, out: &mut Vec<Output>) {
        let signed = std::mem::take(&mut self.signed);
        self.store(signed.into_iter().map(|entry| (entry, None)).collect(), out);
    }

    /// Asks for what peers sent to be stored, with who need not be told of it: he sent it.
    fn persist_received(&mut self, entries: Vec<(Stored, Option<DeviceId>)>, out: &mut Vec<Output>) {
        self.persist_signed(out);
        self.store(entries, out);
    }

    /// Asks for entries to be stored; what they say is announced when they are durable.
    fn store(&mut self, entries: Vec<(Stored, Option<DeviceId>)>, out: &mut Vec<Output>) {
        if entries.is_empty() {
            return;
        }
        self.last_ticket += 1;
        let mut said = Vec::new();
        for (entry, from) in &entries {
            match entry {
                Stored::Control { object, items } => {
                    let control = |item: &ByteBuf| Said::Control { object: *object, item: item.to_vec(), from: *from };
                    said.extend(items.iter().map(control));
                }
                Stored::Record { object, chain, seq, id, own, .. } => {
                    let landed = Landed { chain: *chain, seq: *seq, id: *id, own: *own };
                    said.push(Said::Record { object: *object, landed });
                }
                Stored::Retired { object, chain, .. } => said.push(Said::Retired { object: *object, chain: *chain }),
            }
        }
        self.unsaid.insert(self.last_ticket, said);
        let entries = entries.into_iter().map(|(entry, _)| entry).collect();
        out.push(Output::Persist { ticket: self.last_ticket, entries });
    }

    fn persisted(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        ticket: u64,
        durable: bool,
        out: &mut Vec<Output>,
    ) {
        let said = self.unsaid.remove(&ticket).unwrap_or_default();
        if !durable {
            self.store_failed = true;
            return out.push(Output::Event(Event::StoreFailed));
        }
        let mut news: BTreeMap<(ObjectId, Option<DeviceId>), Vec<Vec<u8>>> = BTreeMap::new();
        let mut landed: BTreeMap<ObjectId, Vec<Landed>> = BTreeMap::new();
        for said in said {
            match said {
                Said::Control { object, item, from } => news.entry((object, from)).or_default().push(item),
                Said::Record { object, landed: record } => landed.entry(object).or_default().push(record),
                Said::Retired { object, chain } => self.forget(object, chain, out),
            }
        }
        for ((object, from), news) in news {
            let heads = self.control.log(object).map(|log| log.heads()).unwrap_or_default();
            self.drive_sync(now, rng, sync::Input::ControlChanged { object, heads, news, from }, out);
        }
        for (object, mut records) in landed {
            self.note_due(object);
            self.rename_landed(object, &mut records);
            self.drive_sync(now, rng, sync::Input::Appended { object, records }, out);
        }
    }

    /// Whether all records of an object that were given to the store are durable.
    fn is_stored(&self, object: ObjectId) -> bool {
        let mut unsaid = self.unsaid.values().flatten();
        !unsaid.any(|said| matches!(said, Said::Record { object: of, .. } if *of == object))
    }

    /// Tells the sync machine of objects, and every peer that may know of them, once all that is held of them is stored.
    fn announce(&mut self, now: Timestamp, rng: &mut impl CryptoRng, out: &mut Vec<Output>) {
        let signed = self.signed.iter().any(|entry| matches!(entry, Stored::Record { .. }));
        let (ready, later): (BTreeSet<ObjectId>, BTreeSet<ObjectId>) =
            std::mem::take(&mut self.announced).into_iter().partition(|object| !signed && self.is_stored(*object));
        self.announced = later;
        for object in ready {
            let state = self.objects.get(&object);
            if state.is_none() && !self.followed().contains(&MeshId(object.0)) {
                continue;
            }
            let chains = state.map(|state| state.intake.chains());
            let vector = chains.map(Chains::vector).unwrap_or_default();
            let retired = chains.map(|chains| chains.retired().map(|(chain, _)| chain).collect()).unwrap_or_default();
            let control = self.control.log(object).map(|log| log.heads()).unwrap_or_default();
            self.drive_sync(now, rng, sync::Input::ObjectAdded { object, vector, retired, control }, out);
            self.audiences_due = true;
        }
    }

    /// Lets a folder go on after a merge.
    fn advance_folder(&mut self, now: Timestamp, rng: &mut impl CryptoRng, object: ObjectId, out: &mut Vec<Output>) {
        let Some(folder) = self.folder_mut(object) else { return };
        for output in folder.advance(now) {
            self.route_folder(now, rng, object, output, out);
        }
    }

    /// The id of this device.
    pub fn device(&self) -> DeviceId {
        self.device.device_id()
    }

    /// The mesh it belongs to.
    pub fn mesh_id(&self) -> MeshId {
        self.mesh
    }

    /// The control logs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The key to which secrets for a device are sealed, where it reads anything that this one holds.
    pub fn seal_key(&self, device: DeviceId) -> Option<SealPublic> {
        let logs = [ObjectId::from(self.mesh)].into_iter().chain(self.objects.keys().copied());
        let mut readers = logs.flat_map(|log| self.control.readers(log));
        readers.find(|reader| reader.device == device).map(|reader| reader.seal)
    }

    /// The graph of the mesh: names of devices, folders and where they are.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The secret behind the chunk ids of an object, once its key is here.
    pub fn convergence(&self, object: ObjectId) -> Option<&Convergence> {
        self.keyring.convergence(object)
    }

    /// Contents still to come for an object, and their bytes.
    pub fn transfers_left(&self, object: ObjectId) -> (usize, u64) {
        self.transfer.left(object)
    }

    /// What of an object is held, what waits at its door, and what was refused there.
    pub fn intake(&self, object: ObjectId) -> Option<&Intake> {
        self.objects.get(&object).map(|state| &state.intake)
    }

    /// What peers did on their streams that they should not have.
    pub fn sync_counters(&self) -> sync::Counters {
        self.sync.counters()
    }

    /// The folders known.
    pub fn folders(&self) -> impl Iterator<Item = &Folder> {
        let known = self.objects.iter().filter(|(object, _)| !self.given_up.contains(object));
        known.filter_map(|(_, object)| object.folder.as_ref())
    }

    /// A digest over everything that replicas of one mesh must agree on, for comparing them.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (id, object) in &self.objects {
            hasher.update(&id.0).update(&object.intake.chains().digest());
        }
        for log in self.control.logs() {
            hasher.update(&log.id().0);
            for head in log.heads() {
                hasher.update(&head.0);
            }
        }
        *hasher.finalize().as_bytes()
    }

    fn object(&self, object: ObjectId) -> Result<&Object, AuthorError> {
        self.objects.get(&object).ok_or(AuthorError::UnknownObject)
    }

    /// The chain that this device writes in an object.
    fn own_chain(&self, object: ObjectId) -> ChainId {
        ChainId::of(&self.device.device_id(), &object, &self.own_incarnation(object))
    }

    /// Where the newest that this device wrote does not stand, and it has been given a right since, what it writes now
    /// goes to another chain: in the old one it would follow, and so let stand, what was cut off.
    fn own_incarnation(&self, object: ObjectId) -> Incarnation {
        let device = self.device.device_id();
        let current = self.newest_incarnation(object, self.incarnation);
        let chain = ChainId::of(&device, &object, &current);
        let cut = |state: &Object| state.intake.chains().head(&chain).0 > state.standing(&chain);
        let grants = self.control.grants(object, device).filter(|_| self.objects.get(&object).is_some_and(cut));
        grants.map_or(current, |(object_grant, device_grant)| {
            self.newest_incarnation(object, self.incarnation.under(object_grant, device_grant))
        })
    }

    /// The incarnation that goes on from one after the checkpoints since.
    fn newest_incarnation(&self, object: ObjectId, mut incarnation: Incarnation) -> Incarnation {
        let device = self.device.device_id();
        let Some(chains) = self.objects.get(&object).map(|state| state.intake.chains()) else { return incarnation };
        loop {
            let next = ChainId::of(&device, &object, &incarnation.next());
            if !chains.is_begun(&next) {
                return incarnation;
            }
            incarnation = incarnation.next();
        }
    }

    fn own_head(&self, object: ObjectId) -> (ChainId, u64) {
        let own = self.own_chain(object);
        (own, self.objects.get(&object).map_or(0, |state| state.intake.chains().head(&own).0))
    }
}

#[cfg(test)]
mod tests;
