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
    log::{Birth, ControlLog, Entry},
    operation::Act,
};

/// What a key that is, or was, the root of a mesh is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootState {
    /// It owns the mesh.
    InForce,
    /// It did: another root is in its place.
    Replaced,
    /// Two rotations contend for the apex: no key owns the mesh any more, neither those that did nor those that are to.
    Frozen,
}

impl Control {
    /// What a root is worth to a mesh; `None` when the key has never been its root.
    pub fn root_state(&self, mesh: MeshId, key: PublicKey) -> Option<RootState> {
        let (log, evaluation) = self.evaluated(mesh.into())?;
        let apexes = apexes(log, evaluation);
        let (via, newest) = *apexes.last()?;
        let was_root = apexes.iter().any(|(_, root)| *root == key);
        match evaluation.frozen {
            true => (was_root || contenders(log, via).any(|root| root == key)).then_some(RootState::Frozen),
            false if newest == key => Some(RootState::InForce),
            false => was_root.then_some(RootState::Replaced),
        }
    }

    /// The keys for which there is a [`RootState`]; of very many the newest.
    pub fn roots(&self, mesh: MeshId) -> BTreeSet<PublicKey> {
        let Some((log, evaluation)) = self.evaluated(mesh.into()) else {
            return BTreeSet::new();
        };
        let apexes = apexes(log, evaluation);
        let last = apexes.last().filter(|_| evaluation.frozen).map(|(via, _)| *via);
        let contending = last.into_iter().flat_map(|via| contenders(log, via));
        apexes.iter().rev().map(|(_, root)| *root).chain(contending).take(limits::ROOT_KEYS).collect()
    }
}

impl ControlLog {
    /// Whether a key is, or was, named as the root of this mesh, by right or not.
    pub fn is_root(&self, key: PublicKey) -> bool {
        let is_first = matches!(&self.birth(), Birth::Mesh(genesis) if genesis.root == key);
        is_first || self.entries().iter().any(|entry| rotation(entry).is_some_and(|(_, root)| root == key))
    }
}

/// The roots of a mesh, each but the last replaced by the next, with the name as a `via` of the apex where it stands.
fn apexes(log: &ControlLog, evaluation: &Evaluation) -> Vec<(OpId, PublicKey)> {
    let Birth::Mesh(genesis) = log.birth() else { return Vec::new() };
    let mut apexes = vec![(log.apex(), genesis.root)];
    let next = |via: OpId| evaluation.standing(log).filter(|entry| entry.op.via == via).find_map(rotation);
    while let Some(successor) = apexes.last().and_then(|(via, _)| next(*via)) {
        apexes.push(successor);
    }
    apexes
}

/// The roots that rotations under an apex name, standing or not.
fn contenders(log: &ControlLog, via: OpId) -> impl Iterator<Item = PublicKey> {
    log.entries().iter().filter(move |entry| entry.op.via == via).filter_map(rotation).map(|(_, root)| root)
}

fn rotation(entry: &Entry) -> Option<(OpId, PublicKey)> {
    match entry.op.act {
        Act::Rotate { root } => Some((entry.id, root)),
        _ => None,
    }
}

/// The apex of a mesh that is in force, as a `via`, and the key that stands there; `None` in a frozen mesh.
pub(super) fn apex_in_force(log: &ControlLog, evaluation: &Evaluation) -> Option<(OpId, PublicKey)> {
    apexes(log, evaluation).pop().filter(|_| !evaluation.frozen)
}
