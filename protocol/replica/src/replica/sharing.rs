//! Other persons: who they are, what is shared with them, and which devices may therefore know of what.
//!
//! A person is a mesh. To judge what his devices write, a replica holds the control log of his mesh beside the object's;
//! so whoever shares an object with somebody shows him which devices he has, and nothing else of his mesh.

use std::collections::BTreeSet;

use meshwork_protocol::{
    control::{Act, Birth, Role},
    id::{DeviceId, MeshId, ObjectId, RecordId},
    time::Timestamp,
};
use rand_core::CryptoRng;

use super::{AuthorError, Event, FOLDER, Output, Replica};
use crate::{
    graph::{self, Edit},
    sync::{self, Audience, Scope},
    transfer,
};

impl Replica {
    /// Other persons known to this mesh are entered, renamed, or given other devices.
    pub fn put_contact(
        &mut self,
        rng: &mut impl CryptoRng,
        person: MeshId,
        entry: &graph::Contact,
    ) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        self.edit_graph(rng, Edit::new().put_contact(person, entry), &mut out)?;
        self.audience_changed(&mut out);
        Ok(out)
    }

    /// Keeps something for all devices of the mesh under a name, or nothing any more.
    pub fn put_setting(
        &mut self,
        rng: &mut impl CryptoRng,
        name: &str,
        value: Option<Vec<u8>>,
    ) -> Result<Vec<Output>, AuthorError> {
        self.put_settings(rng, vec![(name.to_owned(), value)])
    }

    /// The same of several at once.
    pub fn put_settings(
        &mut self,
        rng: &mut impl CryptoRng,
        settings: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<Vec<Output>, AuthorError> {
        let put = |edit: Edit, (name, value): (String, Option<Vec<u8>>)| match value {
            Some(value) => edit.put_setting(&name, value),
            None => edit.remove_setting(&name),
        };
        let edit = settings.into_iter().fold(Edit::new(), put);
        let mut out = Vec::new();
        self.edit_graph(rng, edit, &mut out)?;
        self.audience_changed(&mut out);
        Ok(out)
    }

    /// Forgets a person. What is shared with him stays shared.
    pub fn remove_contact(&mut self, rng: &mut impl CryptoRng, person: MeshId) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        self.edit_graph(rng, Edit::new().remove_contact(person), &mut out)?;
        self.audience_changed(&mut out);
        Ok(out)
    }

    /// Gives a person a role in an object. His devices get its keys as soon as the control log of his mesh is here.
    pub fn share(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        person: MeshId,
        role: Role,
    ) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let has = self.role_of(object, person);
        if has != Some(role) {
            if self.control.barred_by(object, self.device(), person.into()).is_some() {
                return Err(AuthorError::NotSenior);
            }
            if has > Some(role) {
                // A grant adds to what is there: to end with less, what is there must go first. To end with more it
                // must not: what a device of the person wrote and is still on its way would not stand.
                let act = self.removal_of(rng, object, person);
                self.author_act(object, act)?;
            }
            let seen = self.control.revocations(object, person.into());
            self.author_act(object, Act::Grant { to: person.into(), role, seen })?;
            self.ensure_epoch(rng, object)?;
            self.supplement(rng, &mut out)?;
            self.judge_again(object);
        }
        self.persist_signed(&mut out);
        self.announced.extend(self.followed().into_iter().map(ObjectId::from));
        self.audience_changed(&mut out);
        Ok(out)
    }

    /// Takes the roles of a person in an object back. What his devices wrote up to now, as far as it is held here, stands.
    /// In the same batch comes a new key.
    pub fn unshare(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        person: MeshId,
    ) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        if !self.control.may_exclude(object, self.mesh, person) {
            return Err(AuthorError::NotSenior);
        }
        let act = self.removal_of(rng, object, person);
        self.author_act(object, act)?;
        self.ensure_epoch(rng, object)?;
        self.persist_signed(&mut out);
        self.judge_again(object);
        self.audience_changed(&mut out);
        Ok(out)
    }

    fn removal_of(&self, rng: &mut impl CryptoRng, object: ObjectId, person: MeshId) -> Act {
        let devices: BTreeSet<DeviceId> = self.control.devices(person).into_iter().map(|(device, _)| device).collect();
        let records: Vec<RecordId> =
            devices.iter().flat_map(|device| self.newest_of(*device).remove(&object).unwrap_or_default()).collect();
        self.control.removal(rng, object, person, &records)
    }

    /// Takes part in an object that another person shares: from now on it is asked for.
    pub fn accept(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        owner: MeshId,
        title: &str,
    ) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        let entry = graph::Object { kind: FOLDER, title: title.to_owned(), owner };
        self.edit_graph(rng, Edit::new().put_object(object, &entry), &mut out)?;
        self.know_object(object, &mut out);
        self.audience_changed(&mut out);
        Ok(out)
    }

    /// Gives up all roles of this mesh in another person's object, and forgets it. What is on disks stays there.
    pub fn leave(&mut self, rng: &mut impl CryptoRng, object: ObjectId) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        // A role may be there several times, given by several people.
        while self.control.grants(object, self.device.device_id()).is_some() {
            self.author_act(object, Act::Leave {})?;
        }
        self.persist_signed(&mut out);
        let mut edit = Edit::new().remove_object(object);
        for device in self.graph.mappings(object).into_keys() {
            edit = edit.remove_mapping(object, device);
        }
        self.edit_graph(rng, edit, &mut out)?;
        self.renamed.insert(object);
        Ok(out)
    }

    /// The persons with a role in an object, the owner first, and whether the control log of each is here.
    pub fn persons(&self, object: ObjectId) -> Vec<(MeshId, Role, bool)> {
        let persons = self.control.persons(object).into_iter();
        persons.map(|(person, role)| (person, role, self.control.log(person.into()).is_some())).collect()
    }

    /// The role of a person in an object.
    pub fn role_of(&self, object: ObjectId, person: MeshId) -> Option<Role> {
        self.control.persons(object).into_iter().find(|(known, _)| *known == person).map(|(_, role)| role)
    }

    /// The other person whose device this is, of those with whom something is shared.
    pub fn person_of(&self, device: DeviceId) -> Option<MeshId> {
        self.partners().into_iter().find(|person| self.devices_of(*person).contains(&device))
    }

    /// Whose an object is.
    pub fn owner_of(&self, object: ObjectId) -> Option<MeshId> {
        match self.control.log(object).map(|log| log.birth()) {
            Some(Birth::Object { genesis, .. }) => Some(genesis.owner),
            Some(Birth::Mesh(_)) => Some(MeshId(object.0)),
            None => self.graph.object(object).map(|entry| entry.owner),
        }
    }

    /// The devices that may connect: those of the same mesh, and those of the persons with whom something is shared.
    pub fn peers(&self) -> BTreeSet<DeviceId> {
        let others = self.partners().into_iter().flat_map(|person| self.devices_of(person));
        let own = self.control.devices(self.mesh).into_iter().map(|(device, _)| device);
        let here = self.device.device_id();
        own.chain(others).filter(|device| *device != here).collect()
    }

    /// The persons with whom something is shared now.
    fn partners(&self) -> BTreeSet<MeshId> {
        self.shared_objects().flat_map(|object| self.parties(object)).filter(|person| *person != self.mesh).collect()
    }

    /// The persons that may know of an object: its owner, and where this mesh has a role, all that have one.
    fn parties(&self, object: ObjectId) -> BTreeSet<MeshId> {
        let persons: BTreeSet<MeshId> = self.control.persons(object).into_iter().map(|(person, _)| person).collect();
        let within = persons.contains(&self.mesh) && !self.given_up.contains(&object);
        persons.into_iter().filter(|_| within).chain(self.owner_of(object)).collect()
    }

    /// The meshes whose control logs are needed beside the own one.
    pub(super) fn followed(&self) -> BTreeSet<MeshId> {
        let named = |object| self.control.meshes(object).into_iter().chain(self.owner_of(object));
        self.shared_objects().flat_map(named).filter(|person| *person != self.mesh).collect()
    }

    fn shared_objects(&self) -> impl Iterator<Item = ObjectId> {
        self.objects.keys().copied().filter(|object| *object != ObjectId::from(self.mesh))
    }

    /// A person's devices: as the control log of his mesh says, before that as his card said. Of a log of which no more than
    /// the birth is here the rest can only come from them.
    fn devices_of(&self, person: MeshId) -> Vec<DeviceId> {
        if self.control.log(person.into()).is_some_and(|log| !log.is_empty()) {
            return self.control.devices(person).into_iter().map(|(device, _)| device).collect();
        }
        self.graph.contact(person).into_iter().flat_map(|contact| contact.devices).map(|known| known.device).collect()
    }

    /// Whether a device may be sent, and may send, records of an object, and the contents that they name.
    pub fn shares_with(&self, object: ObjectId, peer: DeviceId) -> bool {
        self.control.allowed_peer(self.mesh, peer) || self.control.member(object, peer).is_some()
    }

    /// Whether a device may learn where another one is: both are to deal with each other.
    pub fn acquainted(&self, peer: DeviceId, other: DeviceId) -> bool {
        let both = |object| self.shares_with(object, peer) && self.shares_with(object, other);
        peer != other && (self.control.allowed_peer(self.mesh, peer) || self.shared_objects().any(both))
    }

    /// What a device may know of. A device of another person knows of the objects that are shared with him, and of the
    /// control logs it takes to judge them.
    pub(super) fn audience(&self, peer: DeviceId) -> Audience {
        let followed = self.followed().into_iter().map(|person| (ObjectId::from(person), Scope::Control));
        if self.control.allowed_peer(self.mesh, peer) {
            let scope = |object| if self.given_up.contains(object) { Scope::Control } else { Scope::Whole };
            return followed.chain(self.objects.keys().map(|object| (*object, scope(object)))).collect();
        }
        let mut audience = Audience::new();
        for object in self.shared_objects() {
            let parties = self.parties(object);
            let scope = match self.control.member(object, peer) {
                Some(_) if !self.given_up.contains(&object) => Scope::Whole,
                _ if parties.iter().any(|person| self.devices_of(*person).contains(&peer)) => Scope::Control,
                _ => continue,
            };
            let logs = self.control.meshes(object).into_iter().chain(parties).chain([self.mesh]);
            audience.extend(logs.map(|person| (ObjectId::from(person), Scope::Control)));
            audience.insert(object, scope);
        }
        audience
    }

    /// Who may know of what has changed, and with it who may connect. For what is asked for between two inputs;
    /// within one, it is told once, at its end.
    pub(super) fn audience_changed(&mut self, out: &mut Vec<Output>) {
        self.audiences_due = true;
        out.push(Output::PeersChanged);
    }

    /// Tells the machines what each connected device may know of.
    pub(super) fn tell_audiences(&mut self, now: Timestamp, rng: &mut impl CryptoRng, out: &mut Vec<Output>) {
        for peer in self.connected.clone() {
            let audience = self.audience(peer);
            self.drive_transfer(now, rng, transfer::Input::PeerUp(peer, whole(&audience)), out);
            self.drive_sync(now, rng, sync::Input::Allowed { peer, objects: audience }, out);
        }
    }

    /// Another person's object that is not in the graph any more is given up, on all devices of this mesh. What is held of
    /// it stays, so that this device never writes anew what it wrote before, and its owner can still be told.
    pub(super) fn give_up(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        out: &mut Vec<Output>,
    ) {
        let foreign = self.owner_of(object).is_some_and(|owner| owner != self.mesh);
        let Some(state) = self.objects.get_mut(&object) else { return };
        if !foreign || self.graph.object(object).is_some() || !self.given_up.insert(object) {
            return;
        }
        if let Some(folder) = &mut state.folder {
            folder.unmap();
        }
        self.drive_transfer(now, rng, transfer::Input::Forget(object), out);
        out.push(Output::Event(Event::FolderForgotten(object)));
        self.audience_changed(out);
    }
}

/// The objects of which a device may be asked for contents.
pub(super) fn whole(audience: &Audience) -> BTreeSet<ObjectId> {
    audience.iter().filter(|(_, scope)| **scope == Scope::Whole).map(|(object, _)| *object).collect()
}
