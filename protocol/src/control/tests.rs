//! Tests of the control log as a whole.

mod definition;
mod epoch_judges;
mod epochs;
mod histories;
mod judges;
mod objects;
mod orders;
mod records;
mod statements;
mod vectors;

use std::collections::BTreeSet;

use serde_bytes::ByteArray;

use super::*;
use crate::{
    id::{DeviceId, RecordId},
    key::{DeviceKey, PublicKey, RootKey},
    seal::SeedRng,
};

/// Who signs: a device or a root, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Signer {
    Device(u8),
    Root(u8),
}

fn device(number: u8) -> DeviceKey {
    DeviceKey::from_bytes(&[number; 32])
}

fn root(number: u8) -> RootKey {
    RootKey::from_seed(&[number; 64], 0)
}

fn holder(number: u8) -> Holder {
    device(number).device_id().into()
}

fn rng(seed: u8) -> SeedRng {
    SeedRng::new([seed; 32])
}

impl Signer {
    fn public(self) -> PublicKey {
        match self {
            Self::Device(number) => device(number).device_id().into(),
            Self::Root(number) => root(number).public(),
        }
    }

    fn sign(self, kind: Kind, body: Vec<u8>) -> Signed {
        match self {
            Self::Device(number) => device(number).sign(kind, body),
            Self::Root(number) => root(number).sign(kind, body),
        }
    }
}

fn grant(to: Holder, role: Role, seen: &[OpId]) -> Act {
    let mut seen = seen.to_vec();
    seen.sort();
    Act::Grant { to, role, seen }
}

/// A revocation that lets stand the given operations, by log.
fn revoke(to: Holder, stands: &[(ObjectId, OpId)]) -> Act {
    let nonce = [42; 32];
    let logs: BTreeSet<ObjectId> = stands.iter().map(|(log, _)| *log).collect();
    let mut cuts: Vec<Cut> = logs
        .into_iter()
        .map(|log| {
            let heads: BTreeSet<OpId> = stands.iter().filter(|(other, _)| *other == log).map(|(_, id)| *id).collect();
            Cut { row: ByteArray::new(Cut::row(&nonce, log)), operations: heads.into_iter().collect(), records: vec![] }
        })
        .collect();
    cuts.sort_by_key(|cut| *cut.row);
    Act::Revoke { to, nonce: ByteArray::new(nonce), cuts }
}

impl Control {
    fn new_mesh(&mut self, number: u8) -> ObjectId {
        let genesis =
            Genesis { root: root(number).public(), convergence: ByteArray::new([number; 32]), recovery: Vec::new() };
        let signed = root(number).sign(Kind::Genesis, codec::encode(&genesis));
        let id = ObjectId(signed.id());
        assert_eq!(self.adopt(signed), Ok(Inserted::Added(vec![OpId(id.0)])));
        id
    }

    fn new_object(&mut self, owner: ObjectId, creator: u8) -> ObjectId {
        let genesis = ObjectGenesis { owner: MeshId(owner.0), kind: 1, convergence: ByteArray::new([creator; 32]) };
        let signed = device(creator).sign(Kind::ObjectGenesis, codec::encode(&genesis));
        let id = ObjectId(signed.id());
        assert_eq!(self.insert(signed), Ok(Inserted::Added(vec![OpId(id.0)])));
        id
    }

    /// Signs an operation after `prev`, whatever it may be worth.
    fn write(&self, by: Signer, log: ObjectId, prev: Option<OpId>, via: OpId, dev: OpId, act: Act) -> Signed {
        let before = prev.and_then(|prev| self.log(log)?.get(prev)).map_or(0, |entry| entry.op.seq);
        let op = ControlOp { log, seq: before + 1, prev: prev.unwrap_or(NO_OP), via, dev, act };
        by.sign(Kind::ControlOp, codec::encode(&op))
    }

    /// Signs and inserts an operation of a mesh; `via` `None` is the apex.
    fn push(&mut self, by: Signer, log: ObjectId, prev: Option<OpId>, via: Option<OpId>, act: Act) -> OpId {
        self.push_as(by, log, prev, via, NO_OP, act)
    }

    fn push_as(
        &mut self,
        by: Signer,
        log: ObjectId,
        prev: Option<OpId>,
        via: Option<OpId>,
        dev: OpId,
        act: Act,
    ) -> OpId {
        let signed = self.write(by, log, prev, via.unwrap_or(OpId(log.0)), dev, act);
        let id = OpId(signed.id());
        assert_eq!(self.insert(signed), Ok(Inserted::Added(vec![id])));
        id
    }

    fn live(&self, log: ObjectId) -> BTreeSet<(Holder, Role)> {
        let evaluation = self.evaluation(log).unwrap();
        let live = |id: &OpId| evaluation.nodes.get(id).filter(|node| node.is_live());
        evaluation.order.iter().filter_map(live).map(|node| (node.holder, node.role)).collect()
    }
}

/// A mesh with one admin, device 1.
fn one_admin() -> (Control, ObjectId, OpId) {
    let mut control = Control::new();
    let mesh = control.new_mesh(100);
    let admin = control.push(Signer::Root(100), mesh, None, None, grant(holder(1), Role::Own, &[]));
    (control, mesh, admin)
}

/// Two meshes and an object of the first; device 1 is Alice's, 11 and 12 are Bob's.
struct Shared {
    control: Control,
    alice: ObjectId,
    bob: ObjectId,
    object: ObjectId,
    admin: OpId,
    bobs_admin: OpId,
    bobs_device: OpId,
}

fn shared() -> Shared {
    let (mut control, alice, admin) = one_admin();
    let bob = control.new_mesh(101);
    let bobs_admin = control.push(Signer::Root(101), bob, None, None, grant(holder(11), Role::Own, &[]));
    let bobs_device = control.push(Signer::Device(11), bob, None, Some(bobs_admin), grant(holder(12), Role::Edit, &[]));
    let object = control.new_object(alice, 1);
    Shared { control, alice, bob, object, admin, bobs_admin, bobs_device }
}

fn person(mesh: ObjectId) -> Holder {
    Holder(mesh.0)
}
