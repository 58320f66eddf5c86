//! Devices that become less in their mesh, or come back into it.

use meshwork_protocol::{
    control::{Act, Role},
    id::{DeviceId, ObjectId},
    key::RootKey,
};
use rand_core::CryptoRng;

use super::{AuthorError, Event, Output, Replica};

impl Replica {
    /// Makes an admin a device like others. What it did up to now, as far as it is held here, stands, and so do the
    /// devices that it let in.
    pub fn demote_device(&mut self, rng: &mut impl CryptoRng, device: DeviceId) -> Result<Vec<Output>, AuthorError> {
        if device == self.device() || !self.control.may_remove(self.mesh, self.device(), device) {
            return Err(AuthorError::NotSenior);
        }
        let act = self.revocation_of(rng, device, false);
        self.author_act(self.mesh.into(), act)?;
        self.let_in(device)?;
        let mut out = Vec::new();
        self.renew_keys(rng, &mut out)?;
        self.supplement(rng, &mut out)?;
        Ok(out)
    }

    /// Declares that a device is not to be waited for: logs are let go of without its word. It stays in the mesh, and takes
    /// part as before when it is back.
    pub fn declare_away(&mut self, device: DeviceId) -> Result<Vec<Output>, AuthorError> {
        let is_admin = self.control.role(self.mesh.into(), self.device()) == Some(Role::Own);
        if !is_admin || device == self.device() || !self.control.allowed_peer(self.mesh, device) {
            return Err(AuthorError::NotSenior);
        }
        self.author_act(self.mesh.into(), Act::Away { device })?;
        self.checkpoints_due.extend(self.objects.keys());
        let mut out = Vec::new();
        self.persist_signed(&mut out);
        Ok(out)
    }

    /// Lets a device in again that was removed, with the key that it had. What it wrote past its removal stays in
    /// quarantine; what it writes from now on goes to another chain.
    pub fn readmit_device(&mut self, rng: &mut impl CryptoRng, device: DeviceId) -> Result<Vec<Output>, AuthorError> {
        self.let_in(device)?;
        self.finish_return(rng, device)
    }

    /// The same by the word of the root, whoever removed it.
    pub fn readmit_by_root(
        &mut self,
        rng: &mut impl CryptoRng,
        seed: &[u8; 64],
        device: DeviceId,
    ) -> Result<Vec<Output>, AuthorError> {
        let act = self.admission_of(device);
        let signed = self.control.sign_root(&RootKey::from_seed(seed, 0), self.mesh, act)?;
        self.adopt_own(self.mesh.into(), signed)?;
        self.finish_return(rng, device)
    }

    /// Grants a device its role, whatever was said against it by those whom this device does not stand below.
    pub(super) fn let_in(&mut self, device: DeviceId) -> Result<(), AuthorError> {
        let mesh = ObjectId::from(self.mesh);
        if self.control.barred_by(mesh, self.device(), device.into()).is_some() {
            return Err(AuthorError::NotSenior);
        }
        let act = self.admission_of(device);
        self.author_act(mesh, act)
    }

    fn admission_of(&self, device: DeviceId) -> Act {
        let seen = self.control.revocations(self.mesh.into(), device.into());
        Act::Grant { to: device.into(), role: Role::Edit, seen }
    }

    /// Seals to a device that is back what it may read.
    fn finish_return(&mut self, rng: &mut impl CryptoRng, device: DeviceId) -> Result<Vec<Output>, AuthorError> {
        let mut out = Vec::new();
        self.persist_signed(&mut out);
        if let Err(error) = self.supplement(rng, &mut out) {
            // It is in all the same, and others seal to it as well.
            tracing::warn!(%error, "a device that came back could not be given everything");
        }
        self.judge_everything(&mut out);
        out.push(Output::Event(Event::DeviceAdded(device)));
        Ok(out)
    }

    /// New keys for everything whose key somebody has who is to read it no more, as far as this device may make them.
    pub(super) fn renew_keys(&mut self, rng: &mut impl CryptoRng, out: &mut Vec<Output>) -> Result<(), AuthorError> {
        for object in self.objects.keys().copied().collect::<Vec<_>>() {
            // An object whose key has not come here yet is given a new one by somebody who has it, one that this mesh
            // may only read by somebody who may write.
            if self.keyring.convergence(object).is_some() && self.may_write(object) {
                self.ensure_epoch(rng, object)?;
            }
        }
        self.persist_signed(out);
        self.judge_everything(out);
        Ok(())
    }

    fn judge_everything(&mut self, out: &mut Vec<Output>) {
        for object in self.objects.keys().copied().collect::<Vec<_>>() {
            self.judge_again(object);
            self.note_due(object);
        }
        out.push(Output::PeersChanged);
    }

    /// The log of the mesh has grown: a device that is back, and of which nothing was let stand, has to tell its seal
    /// key again.
    pub(super) fn keep_published(&mut self, log: ObjectId, out: &mut Vec<Output>) {
        if log != ObjectId::from(self.mesh) || !self.may_write(log) {
            return;
        }
        match self.publish_keys() {
            Ok(published) => out.extend(published),
            Err(error) => tracing::warn!(%error, "the seal key of this device could not be published"),
        }
    }
}
