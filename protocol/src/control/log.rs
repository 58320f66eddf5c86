//! One control log: a grow-only set of operations, each held only after everything that it names.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use crate::{
    id::{DeviceId, MeshId, ObjectId, OpId},
    key::{PublicKey, Signed},
    limits,
};

use super::{
    ControlError,
    evaluate::Evaluation,
    operation::{Act, ControlOp, Genesis, Holder, NO_OP, ObjectGenesis, Role},
};

/// Seniority of an apex or a grant, from signed bytes alone: the path of grants to it, each with the index of the root
/// it hangs on, its seq and its id. Shorter is senior, then lexicographically smaller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rank(Vec<(u32, u64, OpId)>);

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How a log came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Birth {
    /// The log of a mesh; at its apex stands a root.
    Mesh(Genesis),
    /// The log of an object; at its apex stand the devices of the owner mesh.
    Object {
        /// What was signed.
        genesis: ObjectGenesis,
        /// The device that signed it.
        creator: DeviceId,
    },
}

/// The device grant behind an operation in the log of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceGrant {
    pub mesh: MeshId,
    pub device: Holder,
    pub role: Role,
}

/// How much of a chain's limits the path from its start to an operation uses.
#[derive(Debug, Clone, Copy, Default)]
struct ChainUse {
    operations: u32,
    key_operations: u32,
    bytes: u64,
}

/// An operation held.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) id: OpId,
    pub(super) signed: Signed,
    pub(super) op: ControlOp,
    /// Position of the operation before it in its chain.
    prev: Option<usize>,
    /// Whose device signed it; in the log of an object only.
    person: Option<MeshId>,
    /// Seniority of its `via`.
    pub(super) rank: Rank,
    /// Number of rotations before the apex that it makes; for rotations only.
    rotation: u32,
    used: ChainUse,
}

impl Entry {
    /// The operation's id.
    pub fn id(&self) -> OpId {
        self.id
    }

    /// As it was signed.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What was signed.
    pub fn op(&self) -> &ControlOp {
        &self.op
    }

    /// Who signed it.
    pub fn author(&self) -> PublicKey {
        self.signed.key
    }

    /// For whom it speaks: in the log of a mesh the signing device, in that of an object the device's mesh.
    pub(super) fn holder(&self) -> Holder {
        self.person.map_or(Holder(self.signed.key.0), Holder::from)
    }
}

/// The control log of one mesh or object.
pub struct ControlLog {
    id: ObjectId,
    genesis: Signed,
    birth: Birth,
    entries: Vec<Entry>,
    index: BTreeMap<OpId, usize>,
    by_via: BTreeMap<OpId, Vec<usize>>,
    tips: BTreeSet<OpId>,
    pub(super) evaluation: OnceLock<Evaluation>,
}

impl ControlLog {
    pub(super) fn new(genesis: Signed, birth: Birth) -> Self {
        Self {
            id: ObjectId(genesis.id()),
            genesis,
            birth,
            entries: Vec::new(),
            index: BTreeMap::new(),
            by_via: BTreeMap::new(),
            tips: BTreeSet::new(),
            evaluation: OnceLock::new(),
        }
    }

    /// The mesh or object whose log this is.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// The signed statement that founded it.
    pub fn genesis(&self) -> &Signed {
        &self.genesis
    }

    /// What the founding statement says.
    pub fn birth(&self) -> &Birth {
        &self.birth
    }

    /// The name of the apex as a `via`.
    pub fn apex(&self) -> OpId {
        OpId(self.id.0)
    }

    /// What its birth says of the secret behind the chunk ids of the object.
    pub(super) fn convergence(&self) -> &[u8; 32] {
        match &self.birth {
            Birth::Mesh(genesis) => &genesis.convergence,
            Birth::Object { genesis, .. } => &genesis.convergence,
        }
    }

    /// Whether this is the log of a mesh.
    pub fn is_mesh(&self) -> bool {
        matches!(self.birth, Birth::Mesh(_))
    }

    /// Number of operations held, the genesis not counted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether only the genesis is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the operation is held.
    pub fn contains(&self, id: OpId) -> bool {
        self.index.contains_key(&id)
    }

    /// The operation with this id.
    pub fn get(&self, id: OpId) -> Option<&Entry> {
        self.entries.get(*self.index.get(&id)?)
    }

    /// All operations, each after those that it names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The newest operation of every branch of every author's chain, sorted.
    pub fn heads(&self) -> Vec<OpId> {
        self.tips.iter().copied().collect()
    }

    /// What a peer with these heads lacks, each statement after those that it names. Heads not held here are
    /// ignored. A peer without any gets the genesis as well.
    pub fn missing(&self, have: &[OpId]) -> Vec<Signed> {
        let held = self.ancestry(have);
        let genesis = have.is_empty().then_some(&self.genesis);
        let lacking = self.entries.iter().zip(held).filter(|(_, held)| !held).map(|(entry, _)| &entry.signed);
        genesis.into_iter().chain(lacking).cloned().collect()
    }

    /// Whether another operation of its author claims the place of this one in his chain.
    pub fn is_forked(&self, id: OpId) -> bool {
        let Some(entry) = self.get(id) else { return false };
        // A chain with one end has no fork, and those are nearly all.
        let ends = self.tips_of(|tip| tip.author() == entry.author()).len();
        let claims = |other: &&Entry| other.author() == entry.author() && other.op.prev == entry.op.prev;
        ends > 1 && self.entries.iter().filter(claims).nth(1).is_some()
    }

    /// Whether an operation comes before another one in its author's chain. Those on two branches of a chain do not.
    pub fn precedes(&self, earlier: OpId, later: OpId) -> bool {
        let Some(earlier) = self.get(earlier) else { return false };
        let mut next = self.get(later).filter(|later| later.author() == earlier.author());
        while let Some(entry) = next.filter(|entry| entry.op.seq > earlier.op.seq) {
            next = entry.prev.and_then(|position| self.entries.get(position));
            if next.is_some_and(|before| before.id == earlier.id) {
                return true;
            }
        }
        false
    }

    /// The newest operation of `author`: what his next one follows.
    pub(super) fn tip(&self, author: PublicKey) -> Option<&Entry> {
        let own = self.tips.iter().filter_map(|id| self.get(*id)).filter(|entry| entry.author() == author);
        own.max_by(|a, b| a.op.seq.cmp(&b.op.seq).then(b.id.cmp(&a.id)))
    }

    /// The newest operations that speak for `holder`, on all branches of all of his chains; for a mesh's log also
    /// those of a device, for an object's log also those of one device of a person.
    pub(super) fn tips_of(&self, speaks: impl Fn(&Entry) -> bool) -> Vec<OpId> {
        self.tips.iter().filter(|id| self.get(**id).is_some_and(&speaks)).copied().collect()
    }

    /// Marks, by position, the operations that are one of `heads` or come before one in its chain. Heads not held
    /// mark nothing.
    pub(super) fn ancestry(&self, heads: &[OpId]) -> Vec<bool> {
        let mut marked = vec![false; self.entries.len()];
        for head in heads {
            let mut next = self.index.get(head).copied();
            while let Some(position) = next {
                match marked.get_mut(position) {
                    Some(mark) if !*mark => *mark = true,
                    _ => break,
                }
                next = self.entries.get(position).and_then(|entry| entry.prev);
            }
        }
        marked
    }

    /// Positions of the operations signed under `via`.
    pub(super) fn under(&self, via: OpId) -> &[usize] {
        self.by_via.get(&via).map_or(&[], Vec::as_slice)
    }

    /// Seniority of a grant held.
    pub(super) fn grant_rank(&self, grant: &Entry) -> Rank {
        let mut rank = grant.rank.clone();
        let rotation = if rank.0.is_empty() { self.get(grant.op.via).map_or(0, |rotate| rotate.rotation) } else { 0 };
        rank.0.push((rotation, grant.op.seq, grant.id));
        rank
    }

    /// Checks what follows from the operation and what it names alone, so that every node judges alike, and gives it
    /// a place. Everything that it names must be held.
    pub(super) fn place(
        &self,
        signed: Signed,
        op: ControlOp,
        device: Option<DeviceGrant>,
    ) -> Result<Entry, ControlError> {
        let id = OpId(signed.id());
        let author = signed.key;
        let prev = self.check_link(&op, author)?;
        let before = prev.and_then(|position| self.entries.get(position));
        let used = chain_use(before.map(|entry| entry.used).unwrap_or_default(), &op, signed.body.len())?;
        let person = self.check_device(&op, author, device)?;
        let speaks_for = person.map_or(Holder(author.0), Holder::from);
        let (rank, rotation) = self.check_via(&op, speaks_for)?;
        self.check_act(&op, &rank)?;
        Ok(Entry { id, signed, op, prev, person, rank, rotation, used })
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let position = self.entries.len();
        self.index.insert(entry.id, position);
        self.by_via.entry(entry.op.via).or_default().push(position);
        self.tips.remove(&entry.op.prev);
        self.tips.insert(entry.id);
        self.entries.push(entry);
        self.evaluation = OnceLock::new();
    }

    fn check_link(&self, op: &ControlOp, author: PublicKey) -> Result<Option<usize>, ControlError> {
        if op.prev == NO_OP {
            return if op.seq == 1 { Ok(None) } else { Err(ControlError::BadLink) };
        }
        let position = *self.index.get(&op.prev).ok_or(ControlError::BadLink)?;
        let prev = self.entries.get(position).ok_or(ControlError::BadLink)?;
        if prev.author() != author || prev.op.seq.checked_add(1) != Some(op.seq) {
            return Err(ControlError::BadLink);
        }
        Ok(Some(position))
    }

    fn check_device(
        &self,
        op: &ControlOp,
        author: PublicKey,
        device: Option<DeviceGrant>,
    ) -> Result<Option<MeshId>, ControlError> {
        match (&self.birth, device) {
            (Birth::Mesh(_), None) if op.dev == NO_OP => Ok(None),
            (Birth::Object { .. }, Some(grant)) if grant.device.0 == author.0 && grant.role >= Role::Edit => {
                Ok(Some(grant.mesh))
            }
            _ => Err(ControlError::BadDevice),
        }
    }

    /// Seniority of the `via`, and for a rotation the index of the root it makes.
    fn check_via(&self, op: &ControlOp, speaks_for: Holder) -> Result<(Rank, u32), ControlError> {
        if op.via == self.apex() {
            let holder = match &self.birth {
                Birth::Mesh(genesis) => Holder(genesis.root.0),
                Birth::Object { genesis, .. } => genesis.owner.into(),
            };
            return if holder == speaks_for { Ok((Rank::default(), 1)) } else { Err(ControlError::BadVia) };
        }
        let via = self.get(op.via).ok_or(ControlError::BadVia)?;
        match &via.op.act {
            Act::Grant { to, .. } if *to == speaks_for => Ok((self.grant_rank(via), 0)),
            Act::Rotate { root } if root.0 == speaks_for.0 => Ok((Rank::default(), via.rotation.saturating_add(1))),
            _ => Err(ControlError::BadVia),
        }
    }

    fn check_act(&self, op: &ControlOp, rank: &Rank) -> Result<(), ControlError> {
        let at_apex = rank.0.is_empty();
        let good = match &op.act {
            Act::Grant { to, seen, .. } => {
                rank.0.len() < limits::GRANT_DEPTH
                    && seen.iter().all(|id| {
                        self.get(*id).is_some_and(|e| matches!(&e.op.act, Act::Revoke { to: whom, .. } if whom == to))
                    })
            }
            Act::Epoch { n, parents, .. } => {
                let largest = parents.iter().try_fold(0, |n, parent| Some(self.epoch_number(parent.epoch)?.max(n)));
                largest.and_then(|largest| largest.checked_add(1)) == Some(*n)
            }
            Act::Seal { epoch, .. } => self.epoch_number(*epoch).is_some(),
            Act::Leave {} => !at_apex,
            Act::Rotate { .. } => at_apex && self.is_mesh(),
            Act::Keys { .. } => !at_apex && self.is_mesh(),
            Act::Revoke { .. } | Act::Away { .. } => true,
        };
        if good { Ok(()) } else { Err(ControlError::BadAct) }
    }

    fn epoch_number(&self, id: OpId) -> Option<u32> {
        match self.get(id)?.op.act {
            Act::Epoch { n, .. } => Some(n),
            _ => None,
        }
    }
}

fn chain_use(before: ChainUse, op: &ControlOp, body: usize) -> Result<ChainUse, ControlError> {
    let mut used = before;
    if op.is_key_operation() {
        used.key_operations = used.key_operations.saturating_add(1);
    } else {
        used.operations = used.operations.saturating_add(1);
    }
    used.bytes = used.bytes.saturating_add(body as u64);
    let full = used.operations > limits::CHAIN_OPERATIONS
        || used.key_operations > limits::CHAIN_KEY_OPERATIONS
        || used.bytes > limits::CHAIN_BYTES;
    if full { Err(ControlError::ChainFull) } else { Ok(used) }
}
