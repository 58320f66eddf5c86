//! The keys that stand, or stood, at the apex of a mesh.

use std::collections::BTreeSet;

use crate::{
    id::{MeshId, OpId},
    key::PublicKey,
    limits,
};

use super::{
    Control,
    evaluate::Evaluation,
    log::{Birth, ControlLog},
    operation::Act,
};

/// What a key that is, or was, the root of a mesh is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootState {
    /// It owns the mesh.
    InForce,
    /// It does not: another root was put in its place, or it never was in its place by right.
    Replaced,
    /// Two rotations contend for the apex: no key owns the mesh any more.
    Frozen,
}

impl Control {
    /// What a root is worth to a mesh; `None` when the key has never been named as its root.
    pub fn root_state(&self, mesh: MeshId, key: PublicKey) -> Option<RootState> {
        let (log, evaluation) = self.evaluated(mesh.into()).filter(|(log, _)| log.is_root(key))?;
        let in_force = apex_in_force(log, evaluation).is_some_and(|(_, holder)| holder == key);
        Some(match (evaluation.frozen, in_force) {
            (true, _) => RootState::Frozen,
            (false, true) => RootState::InForce,
            (false, false) => RootState::Replaced,
        })
    }

    /// The root of a mesh and, of the others that were named as its root, as many as are to be told that they are not.
    pub fn roots(&self, mesh: MeshId) -> BTreeSet<PublicKey> {
        let Some((log, evaluation)) = self.evaluated(mesh.into()) else {
            return BTreeSet::new();
        };
        let in_force = apex_in_force(log, evaluation).map(|(_, holder)| holder);
        in_force.into_iter().chain(log.named_roots().take(limits::ROOT_KEYS)).collect()
    }
}

impl ControlLog {
    /// Whether a key is, or was, named as the root of this mesh.
    pub fn is_root(&self, key: PublicKey) -> bool {
        self.named_roots().any(|root| root == key)
    }

    fn named_roots(&self) -> impl Iterator<Item = PublicKey> {
        let first = match self.birth() {
            Birth::Mesh(genesis) => Some(genesis.root),
            Birth::Object { .. } => None,
        };
        let rotations = self.entries().iter().filter_map(|entry| match entry.op.act {
            Act::Rotate { root } => Some(root),
            _ => None,
        });
        first.into_iter().chain(rotations)
    }
}

/// The apex of a mesh that is in force, as a `via`, and the key that stands there; `None` in a frozen mesh.
pub(super) fn apex_in_force(log: &ControlLog, evaluation: &Evaluation) -> Option<(OpId, PublicKey)> {
    let Birth::Mesh(genesis) = log.birth() else { return None };
    let (mut via, mut holder) = (log.apex(), genesis.root);
    let next = |via: OpId| {
        let mut under = evaluation.standing(log).filter(move |entry| entry.op.via == via);
        under.find_map(|entry| match entry.op.act {
            Act::Rotate { root } => Some((entry.id, root)),
            _ => None,
        })
    };
    while let Some(rotation) = next(via) {
        (via, holder) = rotation;
    }
    (!evaluation.frozen).then_some((via, holder))
}
