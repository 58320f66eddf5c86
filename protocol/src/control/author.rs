//! Making statements: a mesh, an object, and operations in the name of a device or a root.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use serde_bytes::ByteArray;

use crate::{
    codec,
    id::{DeviceId, MeshId, ObjectId, OpId, RecordId},
    key::{DeviceKey, Kind, PublicKey, RootKey, Signed},
    limits,
    seal::{Convergence, EpochKey, SealKey},
};

use super::{
    Control, ControlError, EpochError, Reader,
    epoch::Minting,
    evaluate::permits,
    log::{ControlLog, Entry},
    operation::{Act, ControlOp, Cut, Genesis, Holder, NO_OP, ObjectGenesis, Role},
    root::apex_in_force,
};

/// Why a statement could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// No log of this mesh or object is held.
    #[error("{0} is not known here")]
    UnknownObject(ObjectId),
    /// The author has no role there.
    #[error("this device has no role there")]
    NotMember,
    /// The author's role does not permit the act.
    #[error("the role of this device does not permit it")]
    NotPermitted,
    /// The key is not the root of this mesh now.
    #[error("this is not the root of the mesh")]
    NotRoot,
    /// Everybody would refuse the statement.
    #[error(transparent)]
    Refused(#[from] ControlError),
    /// The first epoch could not be made.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// Founds a mesh with its first device: the genesis, the admin grant by the root, the device's seal key (generation
/// 1), and the first epoch of the object that is the mesh itself. To be adopted in this order.
pub fn create_mesh(
    rng: &mut impl CryptoRng,
    root: &RootKey,
    device: &DeviceKey,
    seal: &SealKey,
) -> Result<(MeshId, Vec<Signed>), AuthorError> {
    let convergence = Convergence::generate(rng);
    let commitment = ByteArray::new(convergence.commitment());
    let genesis = Genesis { root: root.public(), convergence: commitment, recovery: Vec::new() };
    let genesis = root.sign(Kind::Genesis, codec::encode(&genesis));
    let mesh = MeshId(genesis.id());
    let log = ObjectId::from(mesh);
    let op = |seq, prev, via, act| ControlOp { log, seq, prev, via, dev: NO_OP, act };
    let grant = Act::Grant { to: device.device_id().into(), role: Role::Own, seen: Vec::new() };
    let grant = root.sign(Kind::ControlOp, codec::encode(&op(1, NO_OP, OpId(mesh.0), grant)));
    let via = OpId(grant.id());
    let keys = Act::Keys { seal: seal.public(), generation: 1 };
    let keys = device.sign(Kind::ControlOp, codec::encode(&op(1, NO_OP, via, keys)));
    let reader = Reader { device: device.device_id(), seal: seal.public(), generation: 1 };
    let epoch = first_epoch(rng, log, &convergence, &[reader])?;
    let epoch = device.sign(Kind::ControlOp, codec::encode(&op(2, OpId(keys.id()), via, epoch)));
    Ok((mesh, vec![genesis, grant, keys, epoch]))
}

fn first_epoch(
    rng: &mut impl CryptoRng,
    object: ObjectId,
    convergence: &Convergence,
    readers: &[Reader],
) -> Result<Act, EpochError> {
    let key = EpochKey::generate(rng);
    Minting { object, n: 1, key: &key, convergence }.act(rng, readers, &[])
}

impl Control {
    /// Founds an object of a mesh: its genesis and its first epoch, sealed to all devices of the mesh. To be inserted
    /// in this order. `kind` 1 is a folder.
    pub fn create_object(
        &self,
        rng: &mut impl CryptoRng,
        device: &DeviceKey,
        owner: MeshId,
        kind: u8,
    ) -> Result<(ObjectId, Vec<Signed>), AuthorError> {
        let member = self.member(owner.into(), device.device_id()).ok_or(AuthorError::NotMember)?;
        if member.role < Role::Edit {
            return Err(AuthorError::NotPermitted);
        }
        let convergence = Convergence::generate(rng);
        let genesis = ObjectGenesis { owner, kind, convergence: ByteArray::new(convergence.commitment()) };
        let genesis = device.sign(Kind::ObjectGenesis, codec::encode(&genesis));
        let object = ObjectId(genesis.id());
        let act = first_epoch(rng, object, &convergence, self.readers(owner.into()))?;
        let op = ControlOp { log: object, seq: 1, prev: NO_OP, via: OpId(object.0), dev: member.device_grant, act };
        Ok((object, vec![genesis, device.sign(Kind::ControlOp, super::encode_op(&op)?)]))
    }

    /// Signs an act of a device in the log of a mesh or object, under the best of its grants, after its newest
    /// operation held. The caller stores it, inserts it, and only then sends it or signs the next.
    pub fn sign(&self, device: &DeviceKey, log: ObjectId, act: Act) -> Result<Signed, AuthorError> {
        let held = self.log(log).ok_or(AuthorError::UnknownObject(log))?;
        let member = self.member(log, device.device_id()).ok_or(AuthorError::NotMember)?;
        let (via, dev, at_apex) = if held.is_mesh() {
            (member.device_grant, NO_OP, false)
        } else {
            (member.object_grant, member.device_grant, member.object_grant == held.apex())
        };
        if !permits(member.role, &act) || (at_apex && matches!(act, Act::Leave {})) {
            return Err(AuthorError::NotPermitted);
        }
        let op = next_op(held, device.device_id().into(), via, dev, act);
        let signed = device.sign(Kind::ControlOp, super::encode_op(&op)?);
        self.check_own(signed, op)
    }

    /// Signs an act of a root in the log of its mesh.
    pub fn sign_root(&self, root: &RootKey, mesh: MeshId, act: Act) -> Result<Signed, AuthorError> {
        let (log, evaluation) = self.evaluated(mesh.into()).ok_or(AuthorError::UnknownObject(mesh.into()))?;
        let (via, _) = apex_in_force(log, evaluation)
            .filter(|(_, holder)| *holder == root.public())
            .ok_or(AuthorError::NotRoot)?;
        let op = next_op(log, root.public(), via, NO_OP, act);
        let signed = root.sign(Kind::ControlOp, super::encode_op(&op)?);
        self.check_own(signed, op)
    }

    /// The act by which an admin removes a device from its mesh, letting stand what it did so far: its newest
    /// operations in all logs held, and the given newest records of its chains by object. Where both are missing
    /// nothing of it stands. Signing refuses the act when it names more than one statement can carry.
    pub fn revocation(
        &self,
        rng: &mut impl CryptoRng,
        device: DeviceId,
        records: &BTreeMap<ObjectId, Vec<RecordId>>,
    ) -> Act {
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let author = PublicKey::from(device);
        let mut cuts: Vec<Cut> = self
            .logs()
            .map(|log| {
                let heads = log.tips_of(|entry| entry.author() == author);
                cut(&nonce, log.id(), heads, records.get(&log.id()))
            })
            .filter(|cut| !cut.operations.is_empty() || !cut.records.is_empty())
            .collect();
        cuts.sort_by_key(|cut| *cut.row);
        Act::Revoke { to: device.into(), nonce: ByteArray::new(nonce), cuts }
    }

    /// The act by which an owner removes a person from an object, letting stand what his devices did so far: their
    /// newest operations held, and the given newest records of their chains.
    pub fn removal(&self, rng: &mut impl CryptoRng, object: ObjectId, person: MeshId, records: &[RecordId]) -> Act {
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let to = Holder::from(person);
        let heads = self.log(object).map_or(Vec::new(), |log| log.tips_of(|entry: &Entry| entry.holder() == to));
        let cut = cut(&nonce, object, heads, Some(&records.to_vec()));
        Act::Revoke { to, nonce: ByteArray::new(nonce), cuts: vec![cut] }
    }

    fn check_own(&self, signed: Signed, op: ControlOp) -> Result<Signed, AuthorError> {
        if !op.is_well_formed() {
            return Err(ControlError::Malformed.into());
        }
        self.check(signed.clone(), op)?;
        Ok(signed)
    }
}

fn cut(nonce: &[u8; 32], object: ObjectId, mut operations: Vec<OpId>, records: Option<&Vec<RecordId>>) -> Cut {
    operations.truncate(limits::CUT_HEADS);
    let mut records = records.cloned().unwrap_or_default();
    records.sort();
    records.dedup();
    records.truncate(limits::CUT_HEADS);
    Cut { row: ByteArray::new(Cut::row(nonce, object)), operations, records }
}

fn next_op(log: &ControlLog, author: PublicKey, via: OpId, dev: OpId, act: Act) -> ControlOp {
    let tip = log.tip(author);
    ControlOp {
        log: log.id(),
        seq: tip.map_or(1, |tip| tip.op.seq.saturating_add(1)),
        prev: tip.map_or(NO_OP, |tip| tip.id),
        via,
        dev,
        act,
    }
}
