//! Who may do what: questions to the evaluated logs.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{DeviceId, MeshId, ObjectId, OpId, RecordId},
    key::PublicKey,
    seal::SealPublic,
};

use super::{
    Control,
    evaluate::{Evaluation, Node},
    log::{Birth, ControlLog, Entry},
    operation::{Act, Holder, Role},
};

/// A device's standing in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The best role it has.
    pub role: Role,
    /// The grant in the object's log that gives it; the id of the genesis where the device acts at the apex, and
    /// for the object that is a mesh itself.
    pub object_grant: OpId,
    /// The device's grant in the log of its mesh.
    pub device_grant: OpId,
}

/// The newest seal key that a device has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// The device.
    pub device: DeviceId,
    /// Its seal key.
    pub seal: SealPublic,
    /// The generation of that key.
    pub generation: u32,
}

/// Who may do what now, by device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Roster {
    pub members: BTreeMap<DeviceId, Member>,
    /// Those that hold keys: every member of an object, in a mesh all but storage helpers.
    pub reading: BTreeSet<DeviceId>,
    pub readers: Vec<Reader>,
    /// In the log of a mesh: published seal keys.
    pub seal_keys: BTreeMap<DeviceId, (u32, SealPublic)>,
}

/// What a record says about the right by which it was written.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'h> {
    /// The object it is written to.
    pub object: ObjectId,
    /// Its author.
    pub device: DeviceId,
    /// The grant in the object's log, or the genesis.
    pub object_grant: OpId,
    /// The grant of the device in its mesh's log.
    pub device_grant: OpId,
    /// Newest operations that the author knew.
    pub control: &'h [OpId],
}

/// A record is admitted if, for each revocation listed here, it is one of the named records or before one in its
/// chain. Without any it is admitted as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What each revocation lets stand in the object.
    pub cuts: Vec<Vec<RecordId>>,
}

impl Judgement {
    /// A grant does not stand itself: nothing stands by it.
    fn nothing() -> Self {
        Judgement { cuts: vec![Vec::new()] }
    }

    /// Whether a record stands by its own right. `reaches` says whether the record it is given is the judged one, or
    /// comes after the judged one in its chain; for records not held it says no.
    pub fn admits(&self, reaches: impl Fn(RecordId) -> bool) -> bool {
        self.cuts.iter().all(|heads| heads.iter().any(|head| reaches(*head)))
    }
}

/// Why a record's claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No log of this object is held.
    #[error("the object {0} is not known here")]
    UnknownObject(ObjectId),
    /// The claim names an operation not held (yet): fetch control first, then judge again.
    #[error("the operation {0} is not held yet")]
    NeedControl(OpId),
    /// The grants never permit this: they are another's, or for reading. It follows from signed bytes alone, so
    /// every replica says so at any time.
    #[error("the author has no right to write here")]
    NotAuthorised,
}

impl Control {
    /// The role of a device in an object or mesh. A storage helper of a mesh has [`Role::Read`] there.
    pub fn role(&self, object: ObjectId, device: DeviceId) -> Option<Role> {
        self.member(object, device).map(|member| member.role)
    }

    /// The role of a device with the grants that give it.
    pub fn member(&self, object: ObjectId, device: DeviceId) -> Option<Member> {
        self.evaluation(object)?.roster.members.get(&device).copied()
    }

    /// The (object grant, device grant) under which a device writes records. See [`Member`] for the apex.
    pub fn grants(&self, object: ObjectId, device: DeviceId) -> Option<(OpId, OpId)> {
        self.member(object, device).map(|member| (member.object_grant, member.device_grant))
    }

    /// All devices with a role in an object or mesh.
    pub fn members(&self, object: ObjectId) -> impl Iterator<Item = (DeviceId, Member)> {
        let roster = self.evaluation(object).map(|evaluation| &evaluation.roster);
        roster.into_iter().flat_map(|roster| roster.members.iter().map(|(device, member)| (*device, *member)))
    }

    /// The devices of a mesh, storage helpers included, with their roles.
    pub fn devices(&self, mesh: MeshId) -> Vec<(DeviceId, Role)> {
        self.members(mesh.into()).map(|(device, member)| (device, member.role)).collect()
    }

    /// The persons with a role in an object, the owner first.
    pub fn persons(&self, object: ObjectId) -> Vec<(MeshId, Role)> {
        let Some((log, evaluation)) = self.evaluated(object) else {
            return Vec::new();
        };
        match log.birth() {
            Birth::Mesh(_) => vec![(MeshId(object.0), Role::Own)],
            Birth::Object { genesis, .. } => {
                let standings = persons(evaluation, genesis.owner, log.apex());
                let (owner, others): (Vec<_>, Vec<_>) = standings
                    .into_iter()
                    .map(|(mesh, (role, _))| (mesh, role))
                    .partition(|(mesh, _)| *mesh == genesis.owner);
                owner.into_iter().chain(others).collect()
            }
        }
    }

    /// The devices that are to hold the keys of an object and have published a seal key.
    pub fn readers(&self, object: ObjectId) -> &[Reader] {
        self.evaluation(object).map_or(&[], |evaluation| &evaluation.roster.readers)
    }

    /// Whether a device belongs to a mesh, as a device or a storage helper.
    pub fn allowed_peer(&self, mesh: MeshId, device: DeviceId) -> bool {
        self.role(mesh.into(), device).is_some()
    }

    /// Whether two rotations contend for the apex of a mesh: no root has authority any more, admins go on.
    pub fn is_frozen(&self, mesh: MeshId) -> bool {
        self.evaluation(mesh.into()).is_some_and(|evaluation| evaluation.frozen)
    }

    /// Devices of a mesh that an admin has declared away, with the note that says so.
    pub fn away(&self, mesh: MeshId) -> Vec<(DeviceId, OpId)> {
        let Some((log, evaluation)) = self.evaluated(mesh.into()) else {
            return Vec::new();
        };
        evaluation
            .standing(log)
            .filter_map(|entry| match entry.op.act {
                Act::Away { device } => Some((device, entry.id)),
                _ => None,
            })
            .collect()
    }

    /// Whether a revocation by a device would bind all that another one holds in their mesh: the grant it acts under
    /// is an admin's, and senior to every live grant of the target.
    pub fn may_remove(&self, mesh: MeshId, by: DeviceId, target: DeviceId) -> bool {
        let Some((log, evaluation)) = self.evaluated(mesh.into()) else {
            return false;
        };
        let Some(own) = evaluation.roster.members.get(&by).filter(|member| member.role == Role::Own) else {
            return false;
        };
        outranks(log, evaluation, own.device_grant, target.into())
    }

    /// Whether a revocation by a device of the person `by` would bind all that another person holds in an object.
    pub fn may_exclude(&self, object: ObjectId, by: MeshId, person: MeshId) -> bool {
        let Some((log, evaluation)) = self.evaluated(object) else { return false };
        let Birth::Object { genesis, .. } = log.birth() else { return false };
        match persons(evaluation, genesis.owner, log.apex()).get(&by) {
            Some((Role::Own, grant)) if person != genesis.owner && by != person => {
                outranks(log, evaluation, *grant, person.into())
            }
            _ => false,
        }
    }

    /// Standing revocations of a holder in a log: what a grant that is to re-admit him must name as seen.
    pub fn revocations(&self, object: ObjectId, holder: Holder) -> Vec<OpId> {
        let Some((log, evaluation)) = self.evaluated(object) else {
            return Vec::new();
        };
        let binding =
            evaluation.standing(log).filter(|entry| matches!(entry.op.act, Act::Revoke { to, .. } if to == holder));
        let mut ids: Vec<OpId> = binding.map(|entry| entry.id).collect();
        ids.sort();
        ids
    }

    /// Who took a holder out of a log and outranks a device that would let him in again: with a grant of its own he
    /// would still be out.
    pub fn barred_by(&self, object: ObjectId, by: DeviceId, holder: Holder) -> Option<PublicKey> {
        let (log, evaluation) = self.evaluated(object)?;
        let member = evaluation.roster.members.get(&by)?;
        let via = if log.is_mesh() { member.device_grant } else { member.object_grant };
        let own = log.get(via).map(|entry| log.grant_rank(entry))?;
        let outranking = evaluation
            .standing(log)
            .find(|entry| matches!(entry.op.act, Act::Revoke { to, .. } if to == holder) && entry.rank < own);
        outranking.map(Entry::author)
    }

    /// Judges the right by which a record was written: by the two grants it names and the revocations that bind
    /// them, not by what its author may do today.
    pub fn judge(&self, claim: &Claim<'_>) -> Result<Judgement, AuthorityError> {
        let (log, evaluation) = self.evaluated(claim.object).ok_or(AuthorityError::UnknownObject(claim.object))?;
        if let Some(missing) = claim.control.iter().find(|id| !self.contains(**id)) {
            return Err(AuthorityError::NeedControl(*missing));
        }
        let (mesh, mesh_log, device) = self.device_node(claim.device_grant)?;
        if device.holder != claim.device.into() || device.role < Role::Edit {
            return Err(AuthorityError::NotAuthorised);
        }
        let object = evaluation.nodes.get(&claim.object_grant);
        let object = object.ok_or_else(|| self.absent(claim.object_grant))?;
        let at_mesh = log.is_mesh() && claim.object_grant == log.apex() && mesh.0 == claim.object.0;
        if !at_mesh && (log.is_mesh() || object.holder != mesh.into() || object.role < Role::Edit) {
            return Err(AuthorityError::NotAuthorised);
        }
        if !device.effective || !object.effective {
            return Ok(Judgement::nothing());
        }
        let mut cuts = record_cuts(mesh_log, device, claim.object);
        cuts.extend(record_cuts(log, object, claim.object));
        Ok(Judgement { cuts })
    }

    /// The grant of a device in the log of whichever mesh holds it.
    fn device_node(&self, grant: OpId) -> Result<(MeshId, &ControlLog, &Node), AuthorityError> {
        let absent = || self.absent(grant);
        let (log, evaluation) = self.home(grant).and_then(|home| self.evaluated(home)).ok_or_else(absent)?;
        let is_grant = log.is_mesh() && log.get(grant).is_some_and(|entry| matches!(entry.op.act, Act::Grant { .. }));
        let node = evaluation.nodes.get(&grant).filter(|_| is_grant).ok_or_else(absent)?;
        Ok((MeshId(log.id().0), log, node))
    }

    /// Why a grant named is not found: it has not come yet, or it is none.
    fn absent(&self, grant: OpId) -> AuthorityError {
        if self.contains(grant) { AuthorityError::NotAuthorised } else { AuthorityError::NeedControl(grant) }
    }
}

fn record_cuts(log: &ControlLog, node: &Node, object: ObjectId) -> Vec<Vec<RecordId>> {
    let revocations = node.binds.iter().filter_map(|id| log.get(*id)).map(|entry| &entry.op);
    revocations.filter(|op| matches!(op.act, Act::Revoke { .. })).map(|op| op.cut_records(object).to_vec()).collect()
}

/// Whether a grant, or the apex, is senior to every live grant of a holder.
fn outranks(log: &ControlLog, evaluation: &Evaluation, grant: OpId, holder: Holder) -> bool {
    let rank = |grant: OpId| log.get(grant).map(|entry| log.grant_rank(entry));
    let own = rank(grant);
    let mut held = live_grants(evaluation).filter(|(_, node)| node.holder == holder);
    held.all(|(grant, _)| own < rank(grant))
}

/// The roster of a mesh.
pub(super) fn mesh_roster(log: &ControlLog, evaluation: &Evaluation) -> Roster {
    let mut roster = Roster { seal_keys: seal_keys(log, evaluation), ..Roster::default() };
    for (id, node) in live_grants(evaluation) {
        let member = Member { role: node.role, object_grant: log.apex(), device_grant: id };
        enter(&mut roster, node.holder.into(), member);
    }
    let reading = roster.members.iter().filter(|(_, member)| member.role >= Role::Edit);
    roster.reading = reading.map(|(device, _)| *device).collect();
    roster.readers = readers(&roster.reading, [&roster.seal_keys].into_iter());
    roster
}

/// The roster of an object, from the evaluation of its log and the rosters of its members' meshes.
pub(super) fn object_roster<'c>(
    log: &ControlLog,
    evaluation: &Evaluation,
    owner: MeshId,
    mesh_of: impl Fn(MeshId) -> Option<&'c Roster>,
) -> Roster {
    let mut roster = Roster::default();
    let mut published = Vec::new();
    for (mesh, (role, object_grant)) in persons(evaluation, owner, log.apex()) {
        let Some(person) = mesh_of(mesh) else { continue };
        for device in &person.reading {
            let Some(device_grant) = person.members.get(device).map(|member| member.device_grant) else {
                continue;
            };
            enter(&mut roster, *device, Member { role, object_grant, device_grant });
            roster.reading.insert(*device);
        }
        published.push(&person.seal_keys);
    }
    roster.readers = readers(&roster.reading, published.into_iter());
    roster
}

fn persons(evaluation: &Evaluation, owner: MeshId, apex: OpId) -> BTreeMap<MeshId, (Role, OpId)> {
    let mut persons = BTreeMap::from([(owner, (Role::Own, apex))]);
    for (id, node) in live_grants(evaluation) {
        let best = persons.entry(node.holder.into()).or_insert((node.role, id));
        if node.role > best.0 {
            *best = (node.role, id);
        }
    }
    persons
}

fn live_grants(evaluation: &Evaluation) -> impl Iterator<Item = (OpId, &Node)> {
    evaluation.order.iter().filter_map(|id| Some((*id, evaluation.nodes.get(id)?))).filter(|(_, node)| node.is_live())
}

/// Enters a standing; of several the best role counts, then the most senior grant, which comes first.
fn enter(roster: &mut Roster, device: DeviceId, member: Member) {
    let best = roster.members.entry(device).or_insert(member);
    if member.role > best.role {
        *best = member;
    }
}

fn seal_keys(log: &ControlLog, evaluation: &Evaluation) -> BTreeMap<DeviceId, (u32, SealPublic)> {
    let mut newest: BTreeMap<DeviceId, (u32, OpId, SealPublic)> = BTreeMap::new();
    for entry in evaluation.standing(log) {
        if let Act::Keys { seal, generation } = entry.op.act {
            let published = newest.entry(entry.author().into()).or_insert((generation, entry.id, seal));
            if (generation, entry.id) > (published.0, published.1) {
                *published = (generation, entry.id, seal);
            }
        }
    }
    newest.into_iter().map(|(device, (generation, _, seal))| (device, (generation, seal))).collect()
}

fn readers<'k>(
    reading: &BTreeSet<DeviceId>,
    published: impl Iterator<Item = &'k BTreeMap<DeviceId, (u32, SealPublic)>>,
) -> Vec<Reader> {
    let mut readers = BTreeMap::new();
    for keys in published {
        for (device, (generation, seal)) in keys {
            if reading.contains(device) {
                readers.insert(*device, Reader { device: *device, seal: *seal, generation: *generation });
            }
        }
    }
    readers.into_values().collect()
}
