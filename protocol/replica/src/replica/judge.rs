//! What the control logs say about records, as the receiving stages ask it.

use std::collections::BTreeSet;

use meshwork_protocol::{
    control::{AuthorityError, Claim, Control, Keyring},
    id::{ChainId, DeviceId, EpochId, MeshId, ObjectId, OpId, RecordId},
    object::{Header, Verified},
    seal::EpochKey,
};

use crate::{
    feed::Part,
    sync::receive::{Content, Judge, NotAuthorised, Standing, open},
};

/// The control logs and keys of a replica, for judging records.
pub(super) struct Bench<'a> {
    pub control: &'a Control,
    pub keyring: &'a Keyring,
    pub mesh: MeshId,
}

impl Judge for Bench<'_> {
    fn may_send(&self, peer: &DeviceId, object: &ObjectId) -> bool {
        self.control.allowed_peer(self.mesh, *peer) || self.control.member(*object, *peer).is_some()
    }

    fn missing_control(&self, header: &Header) -> Vec<OpId> {
        let named = header.control.iter().chain([&header.object_grant, &header.device_grant]);
        named.filter(|id| !self.control.contains(**id)).copied().collect()
    }

    fn regresses(&self, object: &ObjectId, newer: &[OpId], older: &[OpId]) -> bool {
        let Some(log) = self.control.log(*object) else {
            return false;
        };
        older.iter().any(|old| newer.iter().any(|new| log.precedes(*new, *old)))
    }

    fn judge(&self, record: &Verified, reaches: &dyn Fn(RecordId) -> bool) -> Result<Standing, NotAuthorised> {
        let header = record.header();
        let claim = Claim {
            object: header.object,
            device: record.author(),
            object_grant: header.object_grant,
            device_grant: header.device_grant,
            control: &header.control,
        };
        match self.control.judge(&claim) {
            Ok(judgement) if judgement.admits(reaches) => Ok(Standing::Stands),
            Ok(_) => Ok(Standing::Void),
            Err(AuthorityError::NotAuthorised) => Err(NotAuthorised),
            Err(AuthorityError::UnknownObject(_) | AuthorityError::NeedControl(_)) => Ok(Standing::Void),
        }
    }

    fn epoch_key(&self, object: &ObjectId, epoch: &EpochId) -> Option<&EpochKey> {
        self.keyring.key(*object, *epoch)
    }

    fn replaced(&self, record: &Verified) -> Option<BTreeSet<ChainId>> {
        let header = record.header();
        let key = self.epoch_key(&header.object, &header.epoch)?;
        let Content::Text(text) = open(record, Some(key)) else { return Some(BTreeSet::new()) };
        let part = Part::decode(&text, &record.author(), &header.object).unwrap_or_default();
        Some(part.chains.into_keys().collect())
    }
}
