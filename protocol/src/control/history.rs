//! What was said in a log, by whom and under which grant, and what it is worth: for people to read.

use crate::{
    id::{ObjectId, OpId},
    key::PublicKey,
};

use super::{
    Control,
    operation::{Act, Holder, Role},
};

/// An operation of a log with what the evaluation made of it.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'l> {
    /// Its id.
    pub id: OpId,
    /// Who signed it: a device, or the root of a mesh.
    pub author: PublicKey,
    /// The grant it relies on, or the genesis.
    pub via: OpId,
    /// What it says.
    pub act: &'l Act,
    /// Whether it has effect.
    pub stands: bool,
}

/// A grant with what the evaluation made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantState {
    /// The operation that grants.
    pub id: OpId,
    /// To whom: a device, in the log of an object a person.
    pub holder: Holder,
    /// What.
    pub role: Role,
    /// Who granted it.
    pub author: PublicKey,
    /// The grant that its author relied on, or the genesis.
    pub via: OpId,
    /// Whether the grant itself stands.
    pub effective: bool,
    /// The revocations and leaves that ended it.
    pub ended_by: Vec<OpId>,
}

impl Control {
    /// The operations of a log in the order in which they came here, each after those that it names.
    pub fn history(&self, log: ObjectId) -> Vec<Statement<'_>> {
        let Some((log, evaluation)) = self.evaluated(log) else {
            return Vec::new();
        };
        let judged = log.entries().iter().zip(&evaluation.standing);
        judged
            .map(|(entry, stands)| Statement {
                id: entry.id,
                author: entry.author(),
                via: entry.op.via,
                act: &entry.op.act,
                stands: *stands,
            })
            .collect()
    }

    /// All grants of a log, senior first.
    pub fn grant_states(&self, log: ObjectId) -> Vec<GrantState> {
        let Some((log, evaluation)) = self.evaluated(log) else {
            return Vec::new();
        };
        let state = |id: &OpId| {
            let (entry, node) = (log.get(*id)?, evaluation.nodes.get(id)?);
            Some(GrantState {
                id: *id,
                holder: node.holder,
                role: node.role,
                author: entry.author(),
                via: entry.op.via,
                effective: node.effective,
                ended_by: node.binds.clone(),
            })
        };
        evaluation.order.iter().filter_map(state).collect()
    }

    /// The log of a mesh alone, as it was after its first `count` operations came here.
    pub fn as_of(&self, mesh: ObjectId, count: usize) -> Control {
        let mut then = Control::new();
        if let Some(log) = self.log(mesh).filter(|log| log.is_mesh()) {
            let entries = log.entries().iter().take(count).map(|entry| entry.signed());
            for signed in std::iter::once(log.genesis()).chain(entries) {
                // All of it was admitted once, in this order.
                let _ = then.adopt(signed.clone());
            }
        }
        then
    }
}
