//! From a set of operations to who holds what: a pure function, in one pass from the apex outward.
//!
//! Rank belongs to the grant and is read from signed bytes, so the walk meets every grant after all that are senior
//! to it. A revocation binds all junior grants of its target, whenever they were signed, and lets stand what it names.

use std::collections::BTreeMap;

use crate::id::{EpochId, ObjectId, OpId};

use super::{
    authority::Roster,
    log::{Birth, ControlLog, Entry},
    operation::{Act, Holder, Role},
};

/// What the evaluation found about an apex or a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub holder: Holder,
    pub role: Role,
    /// The grant itself stands.
    pub effective: bool,
    /// The revocations (and leaves) that bind it.
    pub binds: Vec<OpId>,
}

impl Node {
    /// Whether the holder has the role now.
    pub fn is_live(&self) -> bool {
        self.effective && self.binds.is_empty()
    }
}

/// The result for one log.
pub(super) struct Evaluation {
    /// By grant; an apex is listed under the genesis or the rotation that made it.
    pub nodes: BTreeMap<OpId, Node>,
    /// Grants, senior first.
    pub order: Vec<OpId>,
    /// By position in the log.
    pub standing: Vec<bool>,
    /// Two first rotations of one root: nobody knows who holds the apex.
    pub frozen: bool,
    /// Who may do what now.
    pub roster: Roster,
    /// Epochs that may be written under, best first.
    pub epochs: Vec<EpochId>,
}

impl Evaluation {
    /// The operations that stand, in the order of the log.
    pub fn standing<'l>(&self, log: &'l ControlLog) -> impl Iterator<Item = &'l Entry> {
        log.entries().iter().zip(self.standing.clone()).filter(|(_, stands)| *stands).map(|(entry, _)| entry)
    }
}

/// Evaluates a log. `passes` says for each position whether the author's own mesh stands behind the operation; in the
/// log of a mesh it always does.
pub(super) fn evaluate(log: &ControlLog, passes: &dyn Fn(usize) -> bool) -> Evaluation {
    let mut walk = Walk {
        log,
        passes,
        nodes: BTreeMap::new(),
        standing: vec![false; log.len()],
        revocations: BTreeMap::new(),
        cuts: BTreeMap::new(),
    };
    let frozen = walk.apexes();
    let order = walk.grants();
    Evaluation {
        nodes: walk.nodes,
        order,
        standing: walk.standing,
        frozen,
        roster: Roster::default(),
        epochs: Vec::new(),
    }
}

struct Walk<'a> {
    log: &'a ControlLog,
    passes: &'a dyn Fn(usize) -> bool,
    nodes: BTreeMap<OpId, Node>,
    standing: Vec<bool>,
    /// Standing revocations of grants already walked, by target.
    revocations: BTreeMap<Holder, Vec<OpId>>,
    /// What each revocation lets stand in this log, by position.
    cuts: BTreeMap<OpId, Vec<bool>>,
}

impl Walk<'_> {
    /// The chain of roots, or the owner mesh. Returns whether it is frozen.
    fn apexes(&mut self) -> bool {
        let mut via = self.log.apex();
        let mut holder = match self.log.birth() {
            Birth::Mesh(genesis) => Holder(genesis.root.0),
            Birth::Object { genesis, .. } => genesis.owner.into(),
        };
        loop {
            let mut kept = self.candidates(via);
            let rotations = self.first_rotations(&kept);
            for (rotation, _) in &rotations {
                let shared = self.log.ancestry(&[*rotation]);
                kept.retain(|position| is_set(&shared, *position));
            }
            self.stand(&kept);
            self.nodes.insert(via, Node { holder, role: Role::Own, effective: true, binds: Vec::new() });
            match rotations.as_slice() {
                [] => return false,
                [(rotation, root)] => (via, holder) = (*rotation, *root),
                _ => return true,
            }
        }
    }

    /// Rotations without another before them in their chain, with the root each of them names.
    fn first_rotations(&self, positions: &[usize]) -> Vec<(OpId, Holder)> {
        let rotations: Vec<(usize, OpId, Holder)> = positions
            .iter()
            .filter_map(|position| match self.log.entries().get(*position)? {
                Entry { id, op, .. } if let Act::Rotate { root } = &op.act => Some((*position, *id, Holder(root.0))),
                _ => None,
            })
            .collect();
        let is_first = |id: OpId| {
            let before = self.log.ancestry(&[id]);
            rotations.iter().all(|(position, other, _)| *other == id || !is_set(&before, *position))
        };
        rotations.iter().filter(|(_, id, _)| is_first(*id)).map(|(_, id, root)| (*id, *root)).collect()
    }

    /// All grants, senior first.
    fn grants(&mut self) -> Vec<OpId> {
        let log = self.log;
        let mut grants: Vec<_> = log
            .entries()
            .iter()
            .enumerate()
            .filter(|(_, entry)| matches!(entry.op.act, Act::Grant { .. }))
            .map(|(position, entry)| (log.grant_rank(entry), position, entry))
            .collect();
        grants.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, position, entry) in &grants {
            let Act::Grant { to, role, seen } = &entry.op.act else {
                continue;
            };
            let effective = is_set(&self.standing, *position);
            let binds = if effective { self.walk_grant(entry, *to, *role, seen) } else { Vec::new() };
            self.nodes.insert(entry.id, Node { holder: *to, role: *role, effective, binds });
        }
        grants.into_iter().map(|(_, _, entry)| entry.id).collect()
    }

    /// Marks what stands under an effective grant and returns what binds it.
    fn walk_grant(&mut self, grant: &Entry, to: Holder, role: Role, seen: &[OpId]) -> Vec<OpId> {
        let log = self.log;
        let heals = |id: &OpId| {
            seen.binary_search(id).is_ok() && log.get(*id).is_some_and(|revocation| grant.rank <= revocation.rank)
        };
        let mut binds: Vec<OpId> = self.revocations.get(&to).into_iter().flatten().copied().collect();
        binds.retain(|id| !heals(id));
        let mut kept = self.candidates(grant.id);
        for revocation in &binds {
            let inside = self.cuts.entry(*revocation).or_insert_with(|| {
                log.get(*revocation).map_or(Vec::new(), |entry| log.ancestry(entry.op.cut_operations(log.id())))
            });
            kept.retain(|position| is_set(inside, *position));
        }
        let leaves: Vec<OpId> = kept
            .iter()
            .filter_map(|position| log.entries().get(*position))
            .filter(|entry| matches!(entry.op.act, Act::Leave {}))
            .map(|entry| entry.id)
            .collect();
        for leave in &leaves {
            let before = log.ancestry(&[*leave]);
            kept.retain(|position| is_set(&before, *position));
        }
        kept.retain(|position| log.entries().get(*position).is_some_and(|entry| permits(role, &entry.op.act)));
        self.stand(&kept);
        binds.extend(leaves);
        binds.sort();
        binds
    }

    fn candidates(&self, via: OpId) -> Vec<usize> {
        self.log.under(via).iter().copied().filter(|position| (self.passes)(*position)).collect()
    }

    fn stand(&mut self, positions: &[usize]) {
        for position in positions {
            if let Some(stands) = self.standing.get_mut(*position) {
                *stands = true;
            }
            if let Some(entry) = self.log.entries().get(*position)
                && let Act::Revoke { to, .. } = &entry.op.act
            {
                self.revocations.entry(*to).or_default().push(entry.id);
            }
        }
    }
}

/// Whether a grant of `role` carries this act.
pub(super) fn permits(role: Role, act: &Act) -> bool {
    match act {
        Act::Grant { role: granted, .. } => role.may_grant(*granted),
        Act::Revoke { .. } | Act::Away { .. } => role == Role::Own,
        Act::Epoch { .. } | Act::Seal { .. } => role >= Role::Edit,
        Act::Leave {} | Act::Keys { .. } => true,
        Act::Rotate { .. } => false,
    }
}

/// For the operations of the log of an object: which of them pass by one device grant, given the revocations that bind
/// it in the mesh's log.
pub(super) fn passing(mesh: &ControlLog, node: &Node, log: &ControlLog) -> Option<Vec<bool>> {
    if !node.effective || node.role < Role::Edit {
        return None;
    }
    let mut inside = vec![true; log.len()];
    for cut in operation_cuts(mesh, node, log.id()) {
        let kept = log.ancestry(cut);
        for (inside, kept) in inside.iter_mut().zip(kept) {
            *inside &= kept;
        }
    }
    Some(inside)
}

fn operation_cuts<'m>(mesh: &'m ControlLog, node: &'m Node, object: ObjectId) -> impl Iterator<Item = &'m [OpId]> {
    node.binds
        .iter()
        .filter_map(|id| mesh.get(*id))
        .filter(|entry| matches!(entry.op.act, Act::Revoke { .. }))
        .map(move |entry| entry.op.cut_operations(object))
}

pub(super) fn is_set(marks: &[bool], position: usize) -> bool {
    marks.get(position).copied().unwrap_or(false)
}
