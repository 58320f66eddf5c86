//! The side of a device of the mesh: tells the control log to the root, and judges what the root gives back.

use serde_bytes::ByteBuf;

use super::{RestoreError, VERSION_MIN, in_force};
use crate::{
    codec,
    control::{Act, Control, ControlOp, Inserted, Role},
    id::{DeviceId, MeshId, ObjectId},
    key::{Kind, PublicKey, Signed},
    limits,
    pairing::is_name,
    wire::restore::RestoreMessage,
};

/// A device that the root lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The device.
    pub device: DeviceId,
    /// What it calls itself: 1 to [`limits::NAME`] bytes, no control characters.
    pub name: String,
    /// The statements by which it is in, in order. Each is new, and together they make it an admin with a seal key.
    pub statements: Vec<Signed>,
}

/// What a [`Host`] wants done with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum HostOutput {
    /// Send the [`parts`] of a [`crate::wire::pair::Welcome`].
    Welcome,
    /// Make the statements durable, then ask [`Host::adopted`].
    Adopt(Box<Admission>),
    /// Send this; it was the last.
    End(Vec<u8>),
}

enum Step {
    Hello,
    Admit,
    Adopting,
    Over,
}

/// One conversation with whoever has connected as a root of the mesh.
pub struct Host {
    mesh: MeshId,
    root: PublicKey,
    step: Step,
}

impl Host {
    /// `root` is the key that the connection has proved.
    pub fn new(mesh: MeshId, root: PublicKey) -> Self {
        Host { mesh, root, step: Step::Hello }
    }

    /// Takes one message. After [`HostOutput::End`] nothing more is heard.
    #[must_use]
    pub fn hear(&mut self, control: &Control, bytes: &[u8]) -> HostOutput {
        let heard = codec::decode(bytes, limits::PAIR_FRAME).map_err(|_| RestoreError::Interrupted);
        let step = std::mem::replace(&mut self.step, Step::Over);
        let next = heard.and_then(|message| match (step, message) {
            (Step::Hello, RestoreMessage::Hello { version }) => self.greet(control, version),
            (Step::Admit, RestoreMessage::Admit { device, name, statements }) => {
                self.admit(control, device, name, &statements)
            }
            _ => Err(RestoreError::Interrupted),
        });
        match next {
            Ok((step, output)) => {
                self.step = step;
                output
            }
            Err(error) => HostOutput::End(refusal(error)),
        }
    }

    /// The last message, after what [`HostOutput::Adopt`] asked for.
    #[must_use]
    pub fn adopted(&mut self, durable: bool) -> Vec<u8> {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Adopting if durable => codec::encode(&RestoreMessage::Done {}),
            _ => refusal(RestoreError::Interrupted),
        }
    }

    fn greet(&self, control: &Control, version: u16) -> Result<(Step, HostOutput), RestoreError> {
        if version < VERSION_MIN {
            return Err(RestoreError::VersionTooOld);
        }
        in_force(control.root_state(self.mesh, self.root))?;
        Ok((Step::Admit, HostOutput::Welcome))
    }

    fn admit(
        &self,
        control: &Control,
        device: DeviceId,
        name: String,
        statements: &[ByteBuf],
    ) -> Result<(Step, HostOutput), RestoreError> {
        in_force(control.root_state(self.mesh, self.root))?;
        if statements.len() > limits::RESTORE_STATEMENTS || !is_name(&name) {
            return Err(RestoreError::Interrupted);
        }
        let parsed = statements.iter().map(|bytes| Signed::parse(bytes)).collect::<Result<Vec<_>, _>>();
        let statements = parsed.map_err(|_| RestoreError::Interrupted)?;
        if !self.lets_in(control, device, &statements) {
            return Err(RestoreError::Interrupted);
        }
        if statements.is_empty() {
            // It was let in before, and did not hear of it.
            return Ok((Step::Over, HostOutput::End(codec::encode(&RestoreMessage::Done {}))));
        }
        Ok((Step::Adopting, HostOutput::Adopt(Box::new(Admission { device, name, statements }))))
    }

    /// Whether these statements are new and of the two kinds that belong here, and the device is an admin with a seal
    /// key once they are held.
    fn lets_in(&self, control: &Control, device: DeviceId, statements: &[Signed]) -> bool {
        let log = ObjectId::from(self.mesh);
        let mut then = control.as_of(log, usize::MAX);
        let fits = |signed: &Signed| {
            let Ok(op) = signed.open::<ControlOp>(Kind::ControlOp) else { return false };
            let by_root = signed.key == self.root;
            op.log == log
                && match op.act {
                    Act::Grant { to, role, .. } => by_root && to == device.into() && role == Role::Own,
                    Act::Keys { .. } => signed.key == device.into(),
                    _ => false,
                }
        };
        let mut is_new = |signed: &Signed| matches!(then.insert(signed.clone()), Ok(Inserted::Added(_)));
        statements.iter().all(|signed| fits(signed) && is_new(signed))
            && then.role(log, device) == Some(Role::Own)
            && then.readers(log).iter().any(|reader| reader.device == device)
    }
}

/// Cuts an encoded welcome into messages; `None` when it is longer than [`limits::PAIR_WELCOME`].
pub fn parts(welcome: &[u8]) -> Option<Vec<Vec<u8>>> {
    let total = u32::try_from(welcome.len()).ok().filter(|_| welcome.len() <= limits::PAIR_WELCOME)?;
    let part = |bytes: &[u8]| codec::encode(&RestoreMessage::Part { total, bytes: ByteBuf::from(bytes) });
    Some(welcome.chunks(limits::PAIR_PART).map(part).collect())
}

fn refusal(error: RestoreError) -> Vec<u8> {
    codec::encode(&RestoreMessage::Refused { reason: error.reason() })
}
