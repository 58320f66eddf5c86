//! Who may do what, asked and changed by people: removing and promoting devices, and what the logs say.

use std::collections::BTreeSet;

use meshwork_protocol::{
    control::{Act, Control, Role, Statement},
    id::{DeviceId, MeshId, ObjectId},
    key::PublicKey,
};
use meshwork_replica::{
    feed::{Dot, Operation, View},
    replica::{AuthorError, Choice, Replica},
};

use super::{
    Driver,
    command::{Reply, answer, internal, no_mesh},
};
use crate::{
    api::types::{Adopt, Adopted, Cap, Device, LogEntry, Quarantined, RecoveryUse},
    resource::ResourceError,
};

/// What is asked about authority.
pub(crate) enum Ask {
    Remove { name: String, void: bool, reply: Reply<()> },
    Promote { name: String, reply: Reply<()> },
    Away { name: String, reply: Reply<()> },
    Demote { name: String, reply: Reply<()> },
    Readmit { name: String, reply: Reply<()> },
    UsePhrase { asked: RecoveryUse, reply: Reply<()> },
    Log(Reply<Vec<LogEntry>>),
    DevicesAsOf { number: u64, reply: Reply<Vec<Device>> },
    Caps(Reply<Vec<Cap>>),
    Quarantine(Reply<Vec<Quarantined>>),
    Adopt { asked: Adopt, reply: Reply<Adopted> },
}

/// The word for a role in a mesh.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Own => "admin",
        Role::Read => "helper",
        Role::Edit | Role::Invite => "device",
    }
}

impl Driver {
    pub(super) fn on_authority(&mut self, ask: Ask) {
        match ask {
            Ask::Remove { name, void, reply } => answer(reply, self.device_remove(&name, void)),
            Ask::Promote { name, reply } => answer(reply, self.device_promote(&name)),
            Ask::Away { name, reply } => answer(reply, self.device_away(&name)),
            Ask::Demote { name, reply } => answer(reply, self.device_demote(&name)),
            Ask::Readmit { name, reply } => answer(reply, self.device_readmit(&name)),
            Ask::UsePhrase { asked, reply } => answer(reply, self.recovery_use(&asked)),
            Ask::Log(reply) => answer(reply, Ok(self.control_log())),
            Ask::DevicesAsOf { number, reply } => answer(reply, self.devices_as_of(number)),
            Ask::Caps(reply) => answer(reply, Ok(self.caps())),
            Ask::Quarantine(reply) => answer(reply, Ok(self.quarantine())),
            Ask::Adopt { asked, reply } => self.adopt(&asked, reply),
        }
    }

    /// Removes a device from the mesh.
    fn device_remove(&mut self, name: &str, void: bool) -> Result<(), ResourceError> {
        let device = self.find_device(name)?;
        let said = self.name_of(device);
        self.ask_replica(|replica, rng| replica.remove_device(rng, device, void)).map_err(|error| match error {
            AuthorError::NotSenior => ResourceError::new(
                403,
                "not_senior",
                format!("This device may not remove {said}: only an admin who is senior to it may."),
                "`mesh cap explain NAME` shows who let it in; remove it from that device, or from the first one.",
            ),
            error => internal(error),
        })
    }

    /// Makes a device an admin.
    fn device_promote(&mut self, name: &str) -> Result<(), ResourceError> {
        let device = self.find_device(name)?;
        self.ask_replica(|replica, _| replica.promote_device(device)).map_err(|error| match error {
            AuthorError::Author(_) => not_admin("Only an admin can make another device an admin."),
            error => internal(error),
        })
    }

    /// Declares that nobody need wait for a device.
    fn device_away(&mut self, name: &str) -> Result<(), ResourceError> {
        let device = self.find_device(name)?;
        self.ask_replica(|replica, _| replica.declare_away(device)).map_err(|error| match error {
            AuthorError::NotSenior => not_admin("Only an admin can say of another device of the mesh that it is away."),
            error => internal(error),
        })
    }

    /// Makes an admin a device like others.
    fn device_demote(&mut self, name: &str) -> Result<(), ResourceError> {
        let device = self.find_device(name)?;
        let said = self.name_of(device);
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        if replica.control().role(replica.mesh_id().into(), device) != Some(Role::Own) {
            return Err(ResourceError::new(
                409,
                "no_admin",
                format!("{said} is no admin."),
                "`mesh devices` shows who is.",
            ));
        }
        self.ask_replica(|replica, rng| replica.demote_device(rng, device)).map_err(|error| match error {
            AuthorError::NotSenior => ResourceError::new(
                403,
                "not_senior",
                format!("This device may not demote {said}: only an admin who is senior to it may."),
                "`mesh cap explain NAME` shows who made it one; demote it from that device, or from the first one.",
            ),
            error => internal(error),
        })
    }

    /// Lets a device in again that was removed.
    fn device_readmit(&mut self, name: &str) -> Result<(), ResourceError> {
        let device = self.find_removed(name)?;
        let said = self.name_of(device);
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let mesh = ObjectId::from(replica.mesh_id());
        let remover = replica.control().barred_by(mesh, replica.device(), device.into());
        let remover = remover.map(|remover| self.author_name(replica, mesh, remover));
        self.ask_replica(|replica, rng| replica.readmit_device(rng, device)).map_err(|error| match error {
            AuthorError::NotSenior => ResourceError::new(
                403,
                "not_senior",
                format!(
                    "{said} was removed by {}, which outranks this device.",
                    remover.unwrap_or_else(|| "a device".to_owned())
                ),
                "Let it in again there, on a device that outranks that one, or with `mesh recovery use --readmit`.",
            ),
            AuthorError::Author(_) => not_admin("Only an admin can let a device in again."),
            error => internal(error),
        })
    }

    /// Makes this device an admin, removes a device or lets one in again, by the word of the root.
    fn recovery_use(&mut self, asked: &RecoveryUse) -> Result<(), ResourceError> {
        let seed = self.root_in_force(&asked.phrase)?;
        let removed = asked.remove.as_deref().map(|name| self.find_device(name)).transpose()?;
        let readmitted = asked.readmit.as_deref().map(|name| self.find_removed(name)).transpose()?;
        let void = asked.void;
        let done = self.ask_replica(|replica, rng| match (removed, readmitted) {
            (Some(device), _) => replica.remove_by_root(rng, &seed, device, void),
            (None, Some(device)) => replica.readmit_by_root(rng, &seed, device),
            (None, None) => replica.promote_by_root(&seed),
        });
        done.map_err(internal)
    }

    /// The device of this mesh with this name, or whose id begins so.
    fn find_device(&self, name: &str) -> Result<DeviceId, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let devices = replica.control().devices(replica.mesh_id()).into_iter().map(|(device, _)| device);
        let found: Vec<DeviceId> = devices.filter(|device| self.is_called(*device, name)).collect();
        self.only_one(name, &found, || {
            ResourceError::not_found(
                format!("This mesh has no device {name}."),
                "`mesh devices` shows the devices that it has.",
            )
        })
    }

    /// The device with this name, or whose id begins so, that was of this mesh and is not now.
    fn find_removed(&self, name: &str) -> Result<DeviceId, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let mesh = ObjectId::from(replica.mesh_id());
        let held = replica.control().grant_states(mesh).into_iter().map(|grant| DeviceId::from(grant.holder));
        let is_out = |device: &DeviceId| replica.control().role(mesh, *device).is_none();
        let found: BTreeSet<DeviceId> = held.filter(|device| is_out(device) && self.is_called(*device, name)).collect();
        self.only_one(name, &found.into_iter().collect::<Vec<_>>(), || {
            ResourceError::not_found(
                format!("No device {name} was removed from this mesh."),
                "`mesh log` shows which ones were; `mesh pair` lets a new one in.",
            )
        })
    }

    pub(super) fn is_called(&self, device: DeviceId, name: &str) -> bool {
        self.name_of(device) == name || (name.len() >= 8 && device.to_string().starts_with(name))
    }

    /// The one device that was found by a name.
    pub(super) fn only_one(
        &self,
        name: &str,
        found: &[DeviceId],
        none: impl FnOnce() -> ResourceError,
    ) -> Result<DeviceId, ResourceError> {
        match found {
            [device] => Ok(*device),
            [] => Err(none()),
            _ => Err(ResourceError::new(
                409,
                "ambiguous",
                format!("Several devices are named {name}."),
                "Name it by its id, from `mesh --json devices`.",
            )),
        }
    }

    /// Everything said in the control logs, the mesh's first.
    fn control_log(&self) -> Vec<LogEntry> {
        let Some(replica) = &self.replica else { return Vec::new() };
        let mut entries = Vec::new();
        for object in self.logs_of(replica) {
            for (number, statement) in (1..).zip(replica.control().history(object)) {
                entries.push(LogEntry {
                    log: object.to_string(),
                    title: self.log_title(replica, object),
                    number,
                    id: statement.id.to_string(),
                    author: DeviceId::from(statement.author).to_string(),
                    name: self.author_name(replica, object, statement.author),
                    via: statement.via.to_string(),
                    came: self.arrivals.of(statement.id),
                    what: self.sentence(replica.control(), object, &statement),
                    stands: statement.stands,
                });
            }
        }
        entries
    }

    /// The devices of the mesh as they were after the first `number` statements of its log.
    fn devices_as_of(&self, number: u64) -> Result<Vec<Device>, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let count = usize::try_from(number).unwrap_or(usize::MAX);
        let then = replica.control().as_of(replica.mesh_id().into(), count);
        Ok(then.devices(replica.mesh_id()).into_iter().map(|(device, role)| self.device_entry(device, role)).collect())
    }

    pub(super) fn device_entry(&self, device: DeviceId, role: Role) -> Device {
        let here = device == self.network.device();
        Device {
            device: device.to_string(),
            name: self.name_of(device),
            role: role_name(role).to_owned(),
            here,
            connected: here || self.peers.is_connected(device),
        }
    }

    /// All grants, of the mesh first.
    fn caps(&self) -> Vec<Cap> {
        let Some(replica) = &self.replica else { return Vec::new() };
        let mut caps = Vec::new();
        for object in self.logs_of(replica) {
            let is_mesh = object == ObjectId::from(replica.mesh_id());
            for grant in replica.control().grant_states(object) {
                let holder = DeviceId::from(grant.holder).to_string();
                let state = match (grant.effective, grant.ended_by.is_empty()) {
                    (true, true) => "live",
                    (true, false) => "ended",
                    (false, _) => "void",
                };
                caps.push(Cap {
                    id: grant.id.to_string(),
                    log: object.to_string(),
                    title: self.log_title(replica, object),
                    holder: holder.clone(),
                    name: if is_mesh {
                        self.name_of(grant.holder.into())
                    } else {
                        self.person_name(grant.holder.into())
                    },
                    role: if is_mesh { role_name(grant.role) } else { object_role(grant.role) }.to_owned(),
                    author: DeviceId::from(grant.author).to_string(),
                    author_name: self.author_name(replica, object, grant.author),
                    via: grant.via.to_string(),
                    state: state.to_owned(),
                    ended_by: grant.ended_by.iter().map(ToString::to_string).collect(),
                });
            }
        }
        caps
    }

    /// Records that are held and do not stand.
    fn quarantine(&self) -> Vec<Quarantined> {
        let Some(replica) = &self.replica else { return Vec::new() };
        let mut held = Vec::new();
        for object in self.folder_ids().into_iter().filter(|object| replica.quarantined(*object).next().is_some()) {
            let tree = replica.with_quarantine(object);
            let view = tree.view();
            let here = replica.adoption(object, &Choice::default(), &BTreeSet::new()).map(|all| all.here);
            let here = here.unwrap_or_default();
            for record in replica.quarantined(object) {
                held.push(Quarantined {
                    folder: object.to_string(),
                    title: self.title_of(object),
                    device: record.device.to_string(),
                    name: self.name_of(record.device),
                    chain: record.chain.to_string(),
                    seq: record.seq,
                    changes: record.operations.iter().map(|operation| change(&view, &here, operation)).collect(),
                });
            }
        }
        held
    }

    fn logs_of(&self, replica: &Replica) -> Vec<ObjectId> {
        let mesh = ObjectId::from(replica.mesh_id());
        let others = replica.control().logs().map(|log| log.id()).filter(|id| *id != mesh);
        std::iter::once(mesh).chain(others).collect()
    }

    fn log_title(&self, replica: &Replica, object: ObjectId) -> String {
        if object == ObjectId::from(replica.mesh_id()) {
            "this mesh".to_owned()
        } else if replica.control().log(object).is_some_and(|log| log.is_mesh()) {
            format!("the mesh of {}", self.person_name(MeshId(object.0)))
        } else {
            self.title_of(object)
        }
    }

    fn author_name(&self, replica: &Replica, object: ObjectId, author: PublicKey) -> String {
        let is_root = replica.control().log(object).is_some_and(|log| log.is_root(author));
        if is_root { "the recovery phrase".to_owned() } else { self.name_of(author.into()) }
    }

    /// What a statement says, without who says it.
    fn sentence(&self, control: &Control, log: ObjectId, statement: &Statement<'_>) -> String {
        let is_mesh = control.log(log).is_some_and(|log| log.is_mesh());
        match statement.act {
            Act::Grant { to, role, .. } if is_mesh => {
                format!("made {} {}", self.name_of((*to).into()), with_article(role_name(*role)))
            }
            Act::Grant { to, role, .. } => {
                format!("let {} {}", self.person_name(MeshId::from(*to)), object_role(*role))
            }
            Act::Revoke { to, cuts, .. } if is_mesh => {
                let kept = if cuts.is_empty() { "; nothing of it stands" } else { "; what it did before stands" };
                format!("removed {}{kept}", self.name_of((*to).into()))
            }
            Act::Revoke { to, .. } => format!("removed {}", self.person_name(MeshId::from(*to))),
            Act::Leave {} => "left".to_owned(),
            Act::Rotate { .. } => "put another recovery phrase in its place".to_owned(),
            Act::Epoch { n, seals, .. } => format!("made key {n} for {} devices", seals.len()),
            Act::Seal { seals, .. } => format!("sealed a key to {} more devices", seals.len()),
            Act::Keys { generation, .. } => format!("published its seal key {generation}"),
            Act::Away { device } => format!("declared {} away", self.name_of(*device)),
        }
    }
}

fn with_article(role: &str) -> String {
    let article = if role.starts_with('a') { "an" } else { "a" };
    format!("{article} {role}")
}

pub(super) fn object_role(role: Role) -> &'static str {
    match role {
        Role::Own => "own",
        Role::Invite => "invite",
        Role::Edit => "edit",
        Role::Read => "read",
    }
}

/// One change of a quarantined record, for people.
fn change(view: &View<'_>, here: &BTreeSet<Dot>, operation: &Operation) -> String {
    let above = view.node_of(operation.key.dir).map(|node| view.path_of(node));
    let mut path: Vec<String> = above.unwrap_or_default().iter().map(ToString::to_string).collect();
    path.push(operation.key.name.to_string());
    let path = path.join("/");
    let said = match operation.value.file() {
        Some(file) => format!("{path} ({} bytes)", file.size),
        None if operation.value.is_tombstone() => format!("{path} removed"),
        None => format!("{path}/"),
    };
    if here.contains(&operation.dot) { format!("{said}, here as well") } else { said }
}

fn not_admin(message: &str) -> ResourceError {
    ResourceError::new(403, "not_admin", message, "Do it on a device that `mesh devices` shows as an admin.")
}
