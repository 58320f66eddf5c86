//! Another person, with whom the folder is shared: one device in a mesh of its own.

use std::collections::BTreeSet;

use meshwork_protocol::{
    contact::CardDevice,
    control::{Role, create_mesh},
    id::{ChainId, DeviceId, MeshId, ObjectId, OpId},
    key::{DeviceKey, RootKey, Signed},
    object::Chains,
    seal::SealKey,
};
use meshwork_replica::{graph::Contact, replica::Replica};

use super::{
    Cast, Event, World,
    authority::{AGAIN, newest_of, revocations},
};
use crate::sim::{
    device::{Device, Secrets},
    fate::Fate,
};

/// The other person.
pub struct Guest {
    /// The number of his device.
    pub device: usize,
    /// His mesh.
    pub mesh: MeshId,
    /// Its control log as it begins.
    pub welcome: Vec<Signed>,
    /// Whether he leaves in the end, or is taken out, if he does not stay.
    end: Option<End>,
    /// Whether he has left, or was taken out.
    pub out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Leaves,
    TakenOut,
}

impl Guest {
    /// Founds his mesh.
    pub fn new(fate: &mut Fate, device: usize, secrets: &Secrets) -> Self {
        let mut seed = [0; 64];
        seed[..32].copy_from_slice(&fate.bytes());
        let (key, seal) = (DeviceKey::from_bytes(&secrets.device), SealKey::from_bytes(&secrets.seal));
        let founded = create_mesh(&mut fate.0, &RootKey::from_seed(&seed, 0), &key, &seal);
        let (mesh, welcome) = founded.expect("a mesh can be founded");
        let end = [None, Some(End::Leaves), Some(End::TakenOut)][fate.index(3)];
        Guest { device, mesh, welcome, end, out: false }
    }
}

impl World {
    /// The other person takes part in some honest runs with few devices.
    pub(super) fn has_guest(fate: &mut Fate, cast: Cast, devices: usize) -> bool {
        cast != Cast::Malicious && devices < 4 && fate.once_in(6)
    }

    pub(super) fn set_up_sharing(&mut self) {
        if self.guest.is_some() {
            let (share, accept) = (self.between(1_000, 5_000), self.between(2_000, 5_500));
            self.at(share, Event::Share);
            self.at(accept, Event::Accept);
            let end = self.between(5_500, 10_000);
            self.at(end, Event::EndSharing);
        }
    }

    /// The mesh of a device.
    pub fn mesh_of(&self, device: usize) -> MeshId {
        self.guest.as_ref().filter(|guest| guest.device == device).map_or(self.mesh, |guest| guest.mesh)
    }

    /// Whether a device is that of the other person.
    pub fn is_guest(&self, device: usize) -> bool {
        self.guest.as_ref().is_some_and(|guest| guest.device == device)
    }

    /// The first device shares the folder with the other person; what a crash undid is done again.
    pub(super) fn share(&mut self) {
        let guest = self.guest.as_ref().filter(|guest| !guest.out);
        let Some((device, person)) = guest.map(|guest| (guest.device, guest.mesh)) else { return };
        if !self.calm || self.devices[0].replica.is_none() {
            self.at(AGAIN, Event::Share);
        }
        let (folder, card) = (self.folder, card("guest", self.devices[device].id));
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[0] else { return };
        if replica.role_of(folder, person) == Some(Role::Edit) && replica.graph().contact(person).is_some() {
            return;
        }
        let mut shared = replica.put_contact(rng, person, &card);
        if let Ok(outputs) = &mut shared {
            match replica.share(rng, folder, person, Role::Edit) {
                Ok(more) => outputs.extend(more),
                Err(error) => shared = Err(error),
            }
        }
        match shared {
            Ok(outputs) => {
                self.counts.add("admin: folder shared with a person");
                self.carry_out(0, outputs);
            }
            Err(error) => self.fail(format!("the folder cannot be shared: {error}")),
        }
    }

    /// The other person accepts the folder; what a crash undid is done again.
    pub(super) fn accept(&mut self) {
        let guest = self.guest.as_ref().filter(|guest| !guest.out);
        let Some(device) = guest.map(|guest| guest.device) else { return };
        if !self.calm || self.devices[device].replica.is_none() {
            self.at(AGAIN, Event::Accept);
        }
        let (folder, owner, card) = (self.folder, self.mesh, card("owner", self.devices[0].id));
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[device] else { return };
        if replica.graph().object(folder).is_some() {
            return;
        }
        let mut accepted = replica.put_contact(rng, owner, &card);
        if let Ok(outputs) = &mut accepted {
            match replica.accept(rng, folder, owner, "files") {
                Ok(more) => outputs.extend(more),
                Err(error) => accepted = Err(error),
            }
        }
        match accepted {
            Ok(outputs) => {
                self.counts.add("guest: folder accepted");
                self.carry_out(device, outputs);
            }
            Err(error) => self.fail(format!("the folder cannot be accepted: {error}")),
        }
    }

    /// The other person leaves, or the first device takes him out; what a crash undid is done again.
    pub(super) fn end_sharing(&mut self) {
        let Some(Guest { device, mesh: person, end: Some(end), out, .. }) = self.guest else { return };
        let by = if end == End::Leaves { device } else { 0 };
        if !self.calm || out && self.devices[by].replica.is_none() {
            self.at(AGAIN, Event::EndSharing);
        }
        let (id, folder, mapped) = (self.devices[device].id, self.folder, self.devices[device].mapped);
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[by] else { return };
        let done = match end {
            End::Leaves => replica.graph().object(folder).is_none(),
            End::TakenOut => replica.role_of(folder, person).is_none(),
        };
        if done || !mapped && !out {
            return;
        }
        let (newest, before) = (newest_of(replica, folder, id), revocations(replica, folder, person.into()));
        let ended = match end {
            End::Leaves => replica.leave(rng, folder),
            End::TakenOut => replica.unshare(rng, folder, person),
        };
        let revoked: Vec<OpId> = revocations(replica, folder, person.into()).difference(&before).copied().collect();
        match ended {
            Ok(outputs) => {
                self.authority.cuts.extend(revoked.into_iter().map(|revoked| (revoked, (device, newest.clone()))));
                self.counts.add(if end == End::Leaves { "guest: left" } else { "admin: person taken out" });
                self.trace.line(|| format!("              the person of device {device}: {end:?}"));
                self.guest.iter_mut().for_each(|guest| guest.out = true);
                self.carry_out(by, outputs);
            }
            Err(error) => self.fail(format!("{end:?} cannot be: {error}")),
        }
    }

    /// A device has given the folder up.
    pub(super) fn forget_folder(&mut self, device: usize) {
        if !self.guest.as_ref().is_some_and(|guest| guest.device == device && guest.out) {
            return self.fail(format!("device {device} gives the folder up"));
        }
        let entry = &mut self.devices[device];
        (entry.mapped, entry.job) = (false, None);
        entry.fetches.clear();
    }

    /// Whether a device has left the folder.
    pub(super) fn has_left(&self, device: usize) -> bool {
        self.guest.as_ref().is_some_and(|guest| guest.device == device && guest.out && guest.end == Some(End::Leaves))
    }

    /// Whether the folder is shared, and accepted, or not any more.
    pub(super) fn is_shared(&self) -> bool {
        let Some(guest) = &self.guest else { return true };
        let replica = |device: usize| self.devices[device].replica.as_ref();
        let shared = |replica: &Replica| replica.role_of(self.folder, guest.mesh) == Some(Role::Edit);
        let accepted = |replica: &Replica| replica.graph().object(self.folder).is_some();
        match guest.end.filter(|_| guest.out) {
            None => replica(0).is_some_and(shared) && replica(guest.device).is_some_and(accepted),
            Some(End::TakenOut) => replica(0).is_some_and(|replica| !shared(replica)),
            Some(End::Leaves) => replica(guest.device).is_some_and(|replica| !accepted(replica)),
        }
    }

    /// What two devices must hold alike: all that concerns the folder, and of one mesh all else.
    pub(super) fn digest(&self, device: usize, replica: &Replica) -> (Option<[u8; 32]>, String) {
        let own = (!self.is_guest(device)).then(|| self.own_digest(replica));
        let Some(guest) = &self.guest else { return (own, String::new()) };
        let chains = replica.intake(self.folder).map(|intake| intake.chains().digest());
        let logs = [ObjectId::from(self.mesh), ObjectId::from(guest.mesh), self.folder];
        let heads = logs.map(|log| replica.control().log(log).map(|log| log.heads()));
        (own, format!("{chains:?} {heads:?}"))
    }

    /// A device waits with letting go for all who may write. Strangers whom the malicious one let in, where its removal was
    /// lost and made once more, build on nothing: one that hears of them early keeps what others have let go of. All else
    /// must be alike then as well.
    fn own_digest(&self, replica: &Replica) -> [u8; 32] {
        let is_stranger = |device: &DeviceId| !self.index.contains_key(device);
        if !self.removed_late || !replica.control().members(self.folder).any(|(device, _)| is_stranger(&device)) {
            return replica.digest();
        }
        let (apart, objects) = (self.apart(), [self.mesh.into(), self.folder]);
        let inside = self.devices.iter().enumerate().filter(|(number, _)| !apart.contains(number));
        let chains = inside.filter_map(|(_, device)| Some(device.replica.as_ref()?.intake(self.folder)?.chains()));
        let gone: BTreeSet<ChainId> = chains.flat_map(Chains::retired).map(|(chain, _)| chain).collect();
        let mut held = Vec::new();
        for chains in objects.iter().filter_map(|object| Some(replica.intake(*object)?.chains())) {
            let is_gone = |chain: &ChainId| chains.root_of_chain(chain).is_some_and(|root| gone.contains(&root));
            held.extend(chains.vector().0.into_iter().filter(|(chain, _)| !is_gone(chain)));
        }
        let heads: Vec<_> = replica.control().logs().map(|log| (log.id(), log.heads())).collect();
        *blake3::hash(format!("{held:?} {heads:?}").as_bytes()).as_bytes()
    }
}

fn card(name: &str, device: DeviceId) -> Contact {
    Contact { name: name.to_owned(), devices: vec![CardDevice { device, addresses: Vec::new() }] }
}
