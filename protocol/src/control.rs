//! The control logs of a node: signed statements about who may do what, and their evaluation.
//!
//! A log is a grow-only set. What a statement is worth follows from the set alone: no clock, no order of arrival. The
//! log of a mesh grants roles to devices; the log of an object grants roles to persons, whose devices then act by what
//! their own mesh says of them.

mod author;
mod authority;
mod epoch;
mod evaluate;
mod history;
mod log;
mod operation;
mod pending;
mod root;

use std::collections::{BTreeMap, BTreeSet};

pub use author::{AuthorError, create_mesh};
pub use authority::{AuthorityError, Claim, Judgement, Member, Reader};
pub use epoch::{EpochError, Keyring};
pub use history::{GrantState, Statement};
pub use log::{Birth, ControlLog, Entry};
pub use operation::{Act, ControlOp, Cut, Genesis, Holder, NO_OP, ObjectGenesis, Parent, Role, SealedKey};
pub use root::RootState;

use crate::{
    codec::{self, DecodeError},
    id::{MeshId, ObjectId, OpId},
    key::{Kind, Signed, SignedError},
    limits,
};
use evaluate::{Evaluation, evaluate, is_set, passing};
use log::DeviceGrant;
use pending::Pending;

/// Why a statement was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The envelope, its signature or its body is not as it must be.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// Lists are unsorted, repeat themselves or are too long.
    #[error("the operation is malformed")]
    Malformed,
    /// The log of this mesh or object is not held: its genesis must come first.
    #[error("the log {0} is not held")]
    UnknownLog(ObjectId),
    /// Nobody here asked for this mesh: no object held has it as a member.
    #[error("the mesh is not known here")]
    Unasked,
    /// A genesis is not signed by whom it must be: that of a mesh by its root, that of an object by a device of the
    /// mesh that it names as the owner.
    #[error("the genesis is not signed by the root or a device of the owner mesh")]
    NotEntitled,
    /// It does not follow the operation that it names as the one before it.
    #[error("the operation does not continue its chain")]
    BadLink,
    /// The grant relied on is none, or not the author's.
    #[error("the grant relied on is not the author's")]
    BadVia,
    /// The device grant is missing, not the author's, or superfluous.
    #[error("the device grant is not the author's")]
    BadDevice,
    /// It does what cannot be done at this place: names operations of another sort, miscounts, or is too deep.
    #[error("the act is not possible here")]
    BadAct,
    /// The author's chain is as long as a chain may be.
    #[error("the chain is full")]
    ChainFull,
    /// This node holds as many logs as it may.
    #[error("too many logs")]
    TooManyLogs,
}

/// What became of a statement offered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It counts now, and with it, in causal order, what had waited for it. A genesis is listed as the id of its log.
    Added(Vec<OpId>),
    /// It was held, or waited, already.
    Duplicate,
    /// It waits for the operation named here, in a bounded table: it may be forgotten and must then come again.
    Waiting(OpId),
}

/// All control logs of a node.
#[derive(Default)]
pub struct Control {
    logs: BTreeMap<ObjectId, ControlLog>,
    /// Which log holds an operation.
    homes: BTreeMap<OpId, ObjectId>,
    /// Meshes that own an object held here or have been granted a role in one.
    persons: BTreeSet<MeshId>,
    pending: Pending,
}

enum Admitted {
    Added(OpId),
    Waiting(ObjectId, OpId, Signed),
}

impl Control {
    /// No logs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a statement from a peer: an operation of a log held, the genesis of an object of a mesh held, or the
    /// genesis of a mesh that is a member of an object held.
    pub fn insert(&mut self, signed: Signed) -> Result<Inserted, ControlError> {
        match Kind::from_wire(signed.kind) {
            Some(Kind::Genesis)
                if !self.persons.contains(&MeshId(signed.id())) && !self.contains(OpId(signed.id())) =>
            {
                Err(ControlError::Unasked)
            }
            _ => self.adopt(signed),
        }
    }

    /// Like [`Control::insert`], but takes the genesis of any mesh: for a mesh made or joined here, for one that a
    /// person chose to deal with, and for what this node had stored.
    pub fn adopt(&mut self, signed: Signed) -> Result<Inserted, ControlError> {
        let id = OpId(signed.id());
        if self.contains(id) || self.pending.contains(id) {
            return Ok(Inserted::Duplicate);
        }
        match signed.verify()? {
            Kind::Genesis => self.found_mesh(signed),
            Kind::ObjectGenesis => self.found_object(signed),
            Kind::ControlOp => self.insert_operation(signed),
            other => Err(SignedError::Kind(other as u8).into()),
        }
    }

    /// The log of a mesh or object.
    pub fn log(&self, id: ObjectId) -> Option<&ControlLog> {
        self.logs.get(&id)
    }

    /// All logs held.
    pub fn logs(&self) -> impl Iterator<Item = &ControlLog> {
        self.logs.values()
    }

    /// Whether an operation, or the genesis with this id, is held.
    pub fn contains(&self, id: OpId) -> bool {
        self.homes.contains_key(&id)
    }

    /// The statement with this id, as it was signed.
    pub fn get(&self, id: OpId) -> Option<&Signed> {
        let log = self.logs.get(self.homes.get(&id)?)?;
        if id == log.apex() { Some(log.genesis()) } else { log.get(id).map(Entry::signed) }
    }

    /// Number of operations that wait for something they name.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// The meshes whose logs the evaluation of an object reads: a sender sends these first. For a mesh, itself.
    pub fn meshes(&self, object: ObjectId) -> BTreeSet<MeshId> {
        let Some(log) = self.logs.get(&object) else {
            return BTreeSet::new();
        };
        let Birth::Object { genesis, .. } = log.birth() else {
            return [MeshId(object.0)].into();
        };
        let granted = log.entries().iter().filter_map(|entry| match entry.op.act {
            Act::Grant { to, .. } => Some(MeshId::from(to)),
            _ => None,
        });
        granted.chain([genesis.owner]).collect()
    }

    /// The log that holds an operation, or that its genesis founds.
    pub fn home(&self, id: OpId) -> Option<ObjectId> {
        self.homes.get(&id).copied()
    }

    fn found_mesh(&mut self, signed: Signed) -> Result<Inserted, ControlError> {
        let genesis: Genesis = signed.open(Kind::Genesis)?;
        if !genesis.recovery.is_empty() {
            return Err(ControlError::Malformed);
        }
        if genesis.root != signed.key {
            return Err(ControlError::NotEntitled);
        }
        self.found(ControlLog::new(signed, Birth::Mesh(genesis)))
    }

    fn found_object(&mut self, signed: Signed) -> Result<Inserted, ControlError> {
        let genesis: ObjectGenesis = signed.open(Kind::ObjectGenesis)?;
        let owner = ObjectId::from(genesis.owner);
        let mesh = self.logs.get(&owner).ok_or(ControlError::UnknownLog(owner))?;
        let creator = signed.device_id();
        // Any grant ever given will do: were it to stand, who comes late could not take over an object whose creator
        // has been removed since.
        let entitled = mesh.entries().iter().any(
            |entry| matches!(entry.op.act, Act::Grant { to, role, .. } if to == creator.into() && role >= Role::Edit),
        );
        if !entitled || !mesh.is_mesh() {
            return Err(ControlError::NotEntitled);
        }
        self.persons.insert(genesis.owner);
        self.found(ControlLog::new(signed, Birth::Object { genesis, creator }))
    }

    fn found(&mut self, log: ControlLog) -> Result<Inserted, ControlError> {
        if self.logs.len() >= limits::LOGS {
            return Err(ControlError::TooManyLogs);
        }
        let (id, apex) = (log.id(), log.apex());
        self.homes.insert(apex, id);
        self.logs.insert(id, log);
        self.changed(id);
        Ok(Inserted::Added(vec![apex]))
    }

    fn insert_operation(&mut self, signed: Signed) -> Result<Inserted, ControlError> {
        let mut added = match self.admit(signed)? {
            Admitted::Added(id) => vec![id],
            Admitted::Waiting(log, missing, signed) => {
                self.pending.push(log, signed, missing);
                return Ok(Inserted::Waiting(missing));
            }
        };
        let mut released = 0;
        while let Some(id) = added.get(released).copied() {
            released += 1;
            for signed in self.pending.release(id) {
                match self.admit(signed) {
                    Ok(Admitted::Added(id)) => added.push(id),
                    Ok(Admitted::Waiting(log, missing, signed)) => self.pending.push(log, signed, missing),
                    Err(error) => tracing::debug!(%error, "an operation that had waited is refused"),
                }
            }
        }
        Ok(Inserted::Added(added))
    }

    fn admit(&mut self, signed: Signed) -> Result<Admitted, ControlError> {
        let op: ControlOp = signed.open(Kind::ControlOp)?;
        if let Some(missing) = self.missing_name(&op)? {
            return Ok(Admitted::Waiting(op.log, missing, signed));
        }
        let entry = self.check(signed, op)?;
        let (id, log) = (entry.id, entry.op.log);
        let is_object = self.logs.get(&log).is_some_and(|log| !log.is_mesh());
        if let Act::Grant { to, .. } = entry.op.act
            && is_object
        {
            self.persons.insert(to.into());
        }
        self.homes.insert(id, log);
        if let Some(log) = self.logs.get_mut(&log) {
            log.push(entry);
        }
        self.changed(log);
        Ok(Admitted::Added(id))
    }

    /// The first thing that an operation names and that is not held.
    fn missing_name(&self, op: &ControlOp) -> Result<Option<OpId>, ControlError> {
        if !op.is_well_formed() {
            return Err(ControlError::Malformed);
        }
        let log = self.logs.get(&op.log).ok_or(ControlError::UnknownLog(op.log))?;
        for name in op.names() {
            if !log.contains(name) {
                return if self.contains(name) { Err(ControlError::BadAct) } else { Ok(Some(name)) };
            }
        }
        Ok(Some(op.dev).filter(|dev| *dev != NO_OP && !self.contains(*dev)))
    }

    /// The checks that do not depend on what else is held.
    fn check(&self, signed: Signed, op: ControlOp) -> Result<Entry, ControlError> {
        let log = self.logs.get(&op.log).ok_or(ControlError::UnknownLog(op.log))?;
        let device = self.device_grant(op.dev);
        log.place(signed, op, device)
    }

    fn device_grant(&self, dev: OpId) -> Option<DeviceGrant> {
        let mesh = self.logs.get(self.homes.get(&dev)?).filter(|log| log.is_mesh())?;
        match mesh.get(dev)?.op.act {
            Act::Grant { to, role, .. } => Some(DeviceGrant { mesh: MeshId(mesh.id().0), device: to, role }),
            _ => None,
        }
    }

    /// Forgets the results that a change of this log may have made stale.
    fn changed(&mut self, id: ObjectId) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        log.evaluation.take();
        if log.is_mesh() {
            for object in self.logs.values_mut().filter(|log| !log.is_mesh()) {
                object.evaluation.take();
            }
        }
    }

    fn evaluation(&self, id: ObjectId) -> Option<&Evaluation> {
        self.evaluated(id).map(|(_, evaluation)| evaluation)
    }

    fn evaluated(&self, id: ObjectId) -> Option<(&ControlLog, &Evaluation)> {
        let log = self.logs.get(&id)?;
        Some((log, log.evaluation.get_or_init(|| self.evaluate(log))))
    }

    fn evaluate(&self, log: &ControlLog) -> Evaluation {
        let mut evaluation = match log.birth() {
            Birth::Mesh(_) => evaluate(log, &|_| true),
            Birth::Object { .. } => self.evaluate_object(log),
        };
        evaluation.roster = match log.birth() {
            Birth::Mesh(_) => authority::mesh_roster(log, &evaluation),
            Birth::Object { genesis, .. } => authority::object_roster(log, &evaluation, genesis.owner, |mesh| {
                let mesh = self.logs.get(&mesh.into()).filter(|log| log.is_mesh())?;
                self.evaluation(mesh.id()).map(|evaluation| &evaluation.roster)
            }),
        };
        evaluation.epochs = epoch::choices(log, &evaluation);
        evaluation
    }

    fn evaluate_object(&self, log: &ControlLog) -> Evaluation {
        let mut by_device: BTreeMap<OpId, Option<Vec<bool>>> = BTreeMap::new();
        for entry in log.entries() {
            by_device.entry(entry.op.dev).or_insert_with_key(|dev| {
                let (mesh, evaluation) = self.evaluated(self.home(*dev)?)?;
                passing(mesh, evaluation.nodes.get(dev)?, log)
            });
        }
        evaluate(log, &|position| {
            let dev = log.entries().get(position).and_then(|entry| by_device.get(&entry.op.dev));
            dev.and_then(Option::as_ref).is_some_and(|inside| is_set(inside, position))
        })
    }
}

/// The canonical bytes of an operation.
fn encode_op(op: &ControlOp) -> Result<Vec<u8>, ControlError> {
    let body = codec::encode(op);
    if body.len() > limits::CONTROL_BODY {
        let error = DecodeError::Oversize { len: body.len(), max: limits::CONTROL_BODY };
        return Err(SignedError::from(error).into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
