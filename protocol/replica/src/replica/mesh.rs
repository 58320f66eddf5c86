//! What a person asks of the mesh: let a device in, name it, make a folder, give it a place.

use std::collections::BTreeMap;

use meshwork_protocol::{
    control::{Act, Reader, Role},
    id::{DeviceId, ObjectId, RecordId},
    key::{PublicKey, RootKey, Signed},
    limits,
    seal::SealPublic,
};
use rand_core::CryptoRng;

use super::{AuthorError, Event, Object, Output, Replica, StoredBase};
use crate::{
    folder::{self, DiskBase},
    graph::{self, Edit, GraphActor},
};

/// The kind of an object that is a folder.
pub const FOLDER: u8 = 1;

impl Replica {
    /// Takes in the control log of the mesh: founded here, or given by the device that let this one in.
    pub fn found(&mut self, items: Vec<Signed>) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let mesh = ObjectId::from(self.mesh);
        for signed in items {
            self.adopt_own(mesh, signed)?;
        }
        self.announced.insert(mesh);
        self.persist_signed(&mut out);
        out.push(Output::PeersChanged);
        Ok(out)
    }

    /// Whether this device has a role in its mesh.
    pub fn is_member(&self) -> bool {
        self.control.role(self.mesh.into(), self.device.device_id()).is_some()
    }

    /// The ticket of the newest [`Output::Persist`].
    pub fn newest_ticket(&self) -> u64 {
        self.last_ticket
    }

    /// Lets a device into the mesh: grants it the role of a device, tells its seal key, and seals to it the
    /// epochs of the mesh and of every object.
    pub fn admit(
        &mut self,
        rng: &mut impl CryptoRng,
        device: DeviceId,
        name: &str,
    ) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let mesh = ObjectId::from(self.mesh);
        if self.control.role(mesh, device).is_none() {
            self.let_in(device)?;
        }
        self.persist_signed(&mut out);
        if self.control.write_epoch(mesh, &self.keyring).is_some() {
            self.edit_graph(rng, Edit::new().put_device(device, &device_entry(name)), &mut out)?;
        }
        out.push(Output::PeersChanged);
        out.push(Output::Event(Event::DeviceAdded(device)));
        Ok(out)
    }

    /// Makes this device an admin by the word of the mesh's root, whose recovery seed is given.
    pub fn promote_by_root(&mut self, seed: &[u8; 64]) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let own = self.device.device_id();
        let seen = self.control.revocations(self.mesh.into(), own.into());
        self.author_as_root(seed, Act::Grant { to: own.into(), role: Role::Own, seen })?;
        self.persist_signed(&mut out);
        Ok(out)
    }

    /// Removes a device by the word of the root, whoever it is senior to.
    pub fn remove_by_root(
        &mut self,
        rng: &mut impl CryptoRng,
        seed: &[u8; 64],
        device: DeviceId,
        void: bool,
    ) -> Result<Vec<Output>, AuthorError> {
        let act = self.revocation_of(rng, device, void);
        self.author_as_root(seed, act)?;
        self.finish_removal(rng, device)
    }

    fn author_as_root(&mut self, seed: &[u8; 64], act: Act) -> Result<(), AuthorError> {
        let signed = self.control.sign_root(&RootKey::from_seed(seed, 0), self.mesh, act)?;
        self.adopt_own(self.mesh.into(), signed)
    }

    /// Puts another root in the place of the one whose recovery seed is given.
    pub fn rotate_root(&mut self, seed: &[u8; 64], root: PublicKey) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        self.author_as_root(seed, Act::Rotate { root })?;
        self.persist_signed(&mut out);
        out.push(Output::PeersChanged);
        Ok(out)
    }

    /// Takes in the statements by which the root let a device in, and seals to it what it may read.
    pub fn adopt_restored(
        &mut self,
        rng: &mut impl CryptoRng,
        device: DeviceId,
        name: &str,
        statements: Vec<Signed>,
    ) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let mesh = ObjectId::from(self.mesh);
        for signed in statements {
            self.adopt_own(mesh, signed)?;
        }
        let sealed = self.supplement(rng, &mut out);
        let named = match self.control.write_epoch(mesh, &self.keyring) {
            Some(_) => self.edit_graph(rng, Edit::new().put_device(device, &device_entry(name)), &mut out),
            None => Ok(()),
        };
        if let Err(error) = sealed.and(named) {
            // It is in all the same, and others seal to it as well.
            tracing::warn!(%error, "a device that came back could not be given everything");
        }
        out.push(Output::PeersChanged);
        out.push(Output::Event(Event::DeviceRestored(device)));
        Ok(out)
    }

    /// Removes a device from the mesh. What it wrote up to now, as far as it is held here, stands; with `void`
    /// nothing of it stands but what others have built on. In the same batch come new keys for everything that it
    /// could read.
    pub fn remove_device(
        &mut self,
        rng: &mut impl CryptoRng,
        device: DeviceId,
        void: bool,
    ) -> Result<Vec<Output>, AuthorError> {
        if device == self.device.device_id() || !self.control.may_remove(self.mesh, self.device.device_id(), device) {
            return Err(AuthorError::NotSenior);
        }
        let act = self.revocation_of(rng, device, void);
        self.author_act(self.mesh.into(), act)?;
        self.finish_removal(rng, device)
    }

    pub(super) fn revocation_of(&self, rng: &mut impl CryptoRng, device: DeviceId, void: bool) -> Act {
        let mut act = self.control.revocation(rng, device, &self.newest_of(device));
        if let (Act::Revoke { cuts, .. }, true) = (&mut act, void) {
            cuts.clear();
        }
        act
    }

    /// New keys for everything that a removed device could read, as far as this device may make them.
    fn finish_removal(&mut self, rng: &mut impl CryptoRng, device: DeviceId) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        self.renew_keys(rng, &mut out)?;
        out.push(Output::Event(Event::DeviceRemoved(device)));
        Ok(out)
    }

    /// The newest records of a device that stand, by object.
    pub(super) fn newest_of(&self, device: DeviceId) -> BTreeMap<ObjectId, Vec<RecordId>> {
        let newest = |state: &Object| {
            let chains = state.intake.chains();
            let own = chains.heads().filter(|(_, author, ..)| *author == device);
            own.filter_map(|(chain, _, seq, _)| chains.record_at(&chain, seq.min(state.standing(&chain)))).collect()
        };
        self.objects.iter().map(|(object, state)| (*object, newest(state))).collect()
    }

    /// Makes a device of the mesh an admin.
    pub fn promote_device(&mut self, device: DeviceId) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let mesh = ObjectId::from(self.mesh);
        let seen = self.control.revocations(mesh, device.into());
        self.author_act(mesh, Act::Grant { to: device.into(), role: Role::Own, seen })?;
        self.persist_signed(&mut out);
        Ok(out)
    }

    /// Publishes this device's seal key, so that the others seal to it; once, after it was let in.
    pub fn publish_keys(&mut self) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let mesh = ObjectId::from(self.mesh);
        let own: SealPublic = self.seal.public();
        let known = self.own_reader();
        if known.is_none_or(|reader| reader.seal != own) {
            let generation = known.map_or(0, |reader| reader.generation) + 1;
            self.author_act(mesh, Act::Keys { seal: own, generation })?;
        }
        self.persist_signed(&mut out);
        Ok(out)
    }

    /// The seal key of this device that the mesh knows.
    fn own_reader(&self) -> Option<Reader> {
        let device = self.device.device_id();
        self.control.readers(self.mesh.into()).iter().find(|reader| reader.device == device).copied()
    }

    /// Asks for what is sealed to this device and does not open to be sealed once more: somebody sealed rubbish.
    pub(super) fn complain(&mut self, log: ObjectId) -> Result<(), AuthorError> {
        let (mesh, device) = (ObjectId::from(self.mesh), self.device.device_id());
        let Some(known) = self.own_reader().filter(|known| known.generation <= limits::SEAL_COMPLAINTS) else {
            return Ok(());
        };
        if known.seal != self.seal.public() || !self.control.is_shut_out(log, device, &self.keyring) {
            return Ok(());
        }
        tracing::warn!(log = %log.short(), "what was sealed to this device does not open; it asks for it again");
        self.author_act(mesh, Act::Keys { seal: known.seal, generation: known.generation + 1 })
    }

    /// Seals to the readers of every object what they cannot open yet.
    pub(super) fn supplement(&mut self, rng: &mut impl CryptoRng, out: &mut Vec<Output>) -> Result<(), AuthorError> {
        let objects: Vec<ObjectId> = self.objects.keys().copied().collect();
        let mut sealed = Ok(());
        for object in objects.into_iter().filter(|object| self.may_write(*object)).collect::<Vec<_>>() {
            sealed = sealed.and(self.supplement_object(rng, object));
        }
        self.persist_signed(out);
        sealed
    }

    /// Whether this device may write to an object.
    pub fn may_write(&self, object: ObjectId) -> bool {
        self.control.role(object, self.device.device_id()).is_some_and(|role| role >= Role::Edit)
    }

    fn supplement_object(&mut self, rng: &mut impl CryptoRng, object: ObjectId) -> Result<(), AuthorError> {
        let acts = self.control.supplement(rng, object, &self.keyring)?;
        acts.into_iter().try_for_each(|act| self.author_act(object, act))
    }

    /// Tells the others what this device is called.
    pub fn name_device(&mut self, rng: &mut impl CryptoRng, name: &str) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let device = self.device.device_id();
        self.edit_graph(rng, Edit::new().put_device(device, &device_entry(name)), &mut out)?;
        Ok(out)
    }

    /// Makes a folder with this title; it has no place on a disk yet.
    pub fn create_folder(
        &mut self,
        rng: &mut impl CryptoRng,
        title: &str,
    ) -> Result<(ObjectId, Vec<Output>), AuthorError> {
        let mut out = Vec::new();
        let (object, items) = self.control.create_object(rng, &self.device, self.mesh, FOLDER)?;
        for signed in items {
            self.adopt_own(object, signed)?;
        }
        self.objects.insert(object, Object::folder(object));
        self.announced.insert(object);
        self.persist_signed(&mut out);
        self.edit_graph(
            rng,
            Edit::new().put_object(object, &graph::Object { kind: FOLDER, title: title.to_owned(), owner: self.mesh }),
            &mut out,
        )?;
        Ok((object, out))
    }

    /// Gives a folder a place on this device's disk, new and empty as far as the replica knows.
    pub fn map_folder(&mut self, rng: &mut impl CryptoRng, object: ObjectId) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let device = self.device.device_id();
        self.folder_mut(object).ok_or(AuthorError::UnknownObject)?.map(DiskBase::default());
        self.edit_graph(rng, Edit::new().put_mapping(object, device, &graph::Mapping { mode: 0 }), &mut out)?;
        Ok(out)
    }

    /// Puts a folder back where it was, with what was stored of its disk base. To be announced with
    /// [`Replica::expect_base`] before the records are restored.
    pub fn remap_folder(&mut self, object: ObjectId) {
        self.restore_object(object);
        if !self.objects.contains_key(&object) || self.keyring.convergence(object).is_none() {
            // A crash outlived by the place but not by what says that there is such a folder, or by its keys:
            // once those are here again, the folder is put back.
            return;
        }
        let state = self.objects.get(&object);
        if state.is_some_and(|state| state.reread.is_some())
            || !self.resumed && !state.is_none_or(|state| self.bench().limits(state.intake.chains()).is_empty())
        {
            // What does not stand has been merged, or not all of what does: the folder is put back when it is read
            // again.
            return;
        }
        let Some(mut expected) = self.expected.remove(&object) else {
            return;
        };
        let (own, places) = (std::mem::take(&mut expected.own_after), std::mem::take(&mut expected.places));
        let base = expected.into_base();
        let (late, device) = (self.resumed, self.device.device_id());
        let Some(state) = self.objects.get_mut(&object) else { return };
        if let Some(folder) = &mut state.folder {
            folder.map(base);
            folder.replay_own(&own);
            if late {
                // Whoever watches has told of everything at the start, when there was nobody to hear it.
                folder.look_everywhere();
            }
        }
        state.disown_let_go(device, &places);
    }

    /// Announces that a folder's disk base was stored, so that the operations it names are kept while
    /// the records are restored.
    pub fn expect_base(&mut self, object: ObjectId, stored: StoredBase) {
        self.expected.insert(object, super::restore::Expected::new(stored));
    }

    pub(super) fn edit_graph(
        &mut self,
        rng: &mut impl CryptoRng,
        edit: Edit,
        out: &mut Vec<Output>,
    ) -> Result<(), AuthorError> {
        let mesh = ObjectId::from(self.mesh);
        let actor = GraphActor::new(self.device.device_id(), mesh, self.own_incarnation(mesh));
        let Some(change) = self.graph.edit(actor, edit)? else {
            return Ok(());
        };
        self.author_change(rng, mesh, &change, out)
    }

    /// A folder of the mesh.
    pub fn folder(&self, object: ObjectId) -> Option<&folder::Folder> {
        self.objects.get(&object)?.folder.as_ref()
    }

    pub(super) fn folder_mut(&mut self, object: ObjectId) -> Option<&mut folder::Folder> {
        self.objects.get_mut(&object)?.folder.as_mut()
    }
}

fn device_entry(name: &str) -> graph::Device {
    graph::Device { name: name.to_owned(), kind: 0 }
}
