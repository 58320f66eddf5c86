//! The side of the blank device: finds its mesh in what it is told, and lets its own key in by the word of the root.

use serde_bytes::ByteBuf;

use super::{RestoreError, VERSION, in_force};
use crate::{
    codec,
    control::{Act, AuthorError, Control, Inserted, Role},
    id::{DeviceId, MeshId, ObjectId},
    key::{DeviceKey, RootKey, Signed},
    limits,
    seal::SealPublic,
    wire::{pair::Welcome, restore::RestoreMessage},
};

/// The mesh to which a device has come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The mesh.
    pub mesh: MeshId,
    /// Its genesis and control log in causal order, with the statements that let this device in.
    pub statements: Vec<Signed>,
    /// The device that was asked.
    pub host: DeviceId,
    /// Its name, as it says.
    pub host_name: String,
    /// Where it says that it may be reached.
    pub addresses: Vec<String>,
}

/// What a [`Guest`] wants done after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum GuestOutput {
    /// Nothing: more is to come.
    Wait,
    /// Send this.
    Say(Vec<u8>),
    /// Store this: the device is in.
    Completed(Box<Restored>),
}

enum Step {
    Welcome(Vec<u8>),
    Waiting(Box<Restored>),
    Over,
}

/// One conversation of a blank device with a device that may be of its mesh.
pub struct Guest<'k> {
    root: &'k RootKey,
    device: &'k DeviceKey,
    seal: SealPublic,
    name: &'k str,
    host: DeviceId,
    step: Step,
}

impl<'k> Guest<'k> {
    /// `device` is the key that the blank device keeps, `seal` where secrets for it are sealed to, `host` the device
    /// that the connection has proved. Begin with [`Guest::hello`].
    pub fn new(root: &'k RootKey, device: &'k DeviceKey, seal: SealPublic, name: &'k str, host: DeviceId) -> Self {
        Guest { root, device, seal, name, host, step: Step::Welcome(Vec::new()) }
    }

    /// The first message.
    pub fn hello() -> Vec<u8> {
        codec::encode(&RestoreMessage::Hello { version: VERSION })
    }

    /// Takes one message. After an error or [`GuestOutput::Completed`] nothing more is heard.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<GuestOutput, RestoreError> {
        let message = codec::decode(bytes, limits::PAIR_FRAME).map_err(|_| RestoreError::Interrupted)?;
        match (std::mem::replace(&mut self.step, Step::Over), message) {
            (_, RestoreMessage::Refused { reason }) => Err(RestoreError::from_reason(reason)),
            (Step::Welcome(gathered), RestoreMessage::Part { total, bytes }) => self.gather(gathered, total, &bytes),
            (Step::Waiting(restored), RestoreMessage::Done {}) => Ok(GuestOutput::Completed(restored)),
            _ => Err(RestoreError::Interrupted),
        }
    }

    fn gather(&mut self, mut gathered: Vec<u8>, total: u32, bytes: &[u8]) -> Result<GuestOutput, RestoreError> {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        gathered.extend_from_slice(bytes);
        if bytes.is_empty() || total > limits::PAIR_WELCOME || gathered.len() > total {
            return Err(RestoreError::Interrupted);
        }
        if gathered.len() < total {
            self.step = Step::Welcome(gathered);
            return Ok(GuestOutput::Wait);
        }
        let (restored, own) = self.enter(&gathered)?;
        self.step = Step::Waiting(Box::new(restored));
        let (device, name) = (self.device.device_id(), self.name.to_owned());
        let statements = own.iter().map(|signed| ByteBuf::from(signed.to_bytes())).collect();
        Ok(GuestOutput::Say(codec::encode(&RestoreMessage::Admit { device, name, statements })))
    }

    /// Reads the log of the mesh and signs what lets this device in, as far as that is not said in it yet.
    fn enter(&self, welcome: &[u8]) -> Result<(Restored, Vec<Signed>), RestoreError> {
        let Welcome { items, addresses, name } = Welcome::parse(welcome).map_err(|_| RestoreError::BadLog)?;
        let parsed = items.iter().map(|item| Signed::parse(item)).collect::<Result<Vec<_>, _>>();
        let mut statements = parsed.map_err(|_| RestoreError::BadLog)?;
        let mesh = MeshId(statements.first().ok_or(RestoreError::BadLog)?.id());
        let mut control = read(mesh, &statements)?;
        in_force(control.root_state(mesh, self.root.public()))?;
        if !control.allowed_peer(mesh, self.host) {
            return Err(RestoreError::BadLog);
        }
        let own = self.let_in(&mut control, mesh).map_err(|_| RestoreError::BadLog)?;
        statements.extend(own.iter().cloned());
        Ok((Restored { mesh, statements, host: self.host, host_name: name, addresses }, own))
    }

    fn let_in(&self, control: &mut Control, mesh: MeshId) -> Result<Vec<Signed>, AuthorError> {
        let (log, device) = (ObjectId::from(mesh), self.device.device_id());
        let mut own = Vec::new();
        if control.role(log, device) != Some(Role::Own) {
            let seen = control.revocations(log, device.into());
            let act = Act::Grant { to: device.into(), role: Role::Own, seen };
            own.push(control.sign_root(self.root, mesh, act)?);
            take(control, &own)?;
        }
        let known = control.readers(log).iter().find(|reader| reader.device == device).copied();
        if known.is_none_or(|reader| reader.seal != self.seal) {
            let generation = known.map_or(0, |reader| reader.generation).saturating_add(1);
            own.push(control.sign(self.device, log, Act::Keys { seal: self.seal, generation })?);
            take(control, &own)?;
        }
        Ok(own)
    }
}

/// Takes in the newest of these statements.
fn take(control: &mut Control, own: &[Signed]) -> Result<(), AuthorError> {
    own.last().map_or(Ok(()), |signed| control.adopt(signed.clone()).map(drop).map_err(AuthorError::from))
}

/// The whole log of one mesh, and nothing else.
fn read(mesh: MeshId, statements: &[Signed]) -> Result<Control, RestoreError> {
    let mut control = Control::new();
    for signed in statements {
        match control.adopt(signed.clone()) {
            Ok(Inserted::Added(_)) => {}
            _ => return Err(RestoreError::BadLog),
        }
    }
    let is_whole = control.logs().count() == 1 && control.log(mesh.into()).is_some_and(|log| log.is_mesh());
    if is_whole { Ok(control) } else { Err(RestoreError::BadLog) }
}
