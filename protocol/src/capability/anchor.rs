//! Where a verifier's trust begins.

use crate::{
    control::{Control, Role},
    id::{DeviceId, MeshId, ObjectId},
};

use super::{Audience, Right};

/// What a verifier knows by itself, before anybody shows it a chain. It is asked at every check: with a membership ends
/// all that hangs on it.
#[derive(Clone, Copy)]
pub enum Anchor<'c> {
    /// A relay knows the key of its operator, and no mesh.
    Operator {
        /// The relay itself.
        relay: DeviceId,
        /// The key.
        key: DeviceId,
    },
    /// A device knows the control logs of its mesh, of its objects and of their members.
    Logs {
        /// The logs.
        control: &'c Control,
        /// The device's own mesh: its devices give and use all services of each other.
        mesh: MeshId,
    },
}

impl Anchor<'_> {
    /// Whether a device may do this by what it is, without a capability.
    pub fn may_use(&self, device: DeviceId, right: &Right) -> bool {
        match self {
            Self::Operator { .. } => self.may_give(device, right),
            Self::Logs { control, .. } => match right {
                Right::Topic { object, .. } | Right::Publish { object, .. } | Right::Subscribe { object, .. } => {
                    control.role(*object, device) >= Some(needed(control, *object, right))
                }
                _ => self.may_give(device, right),
            },
        }
    }

    /// Whether a key may sign the first link of a chain for this right.
    pub fn may_give(&self, issuer: DeviceId, right: &Right) -> bool {
        match (self, right) {
            (
                Self::Operator { relay, key },
                Right::Relay { relay: at } | Right::Circuit { relay: at } | Right::Mailbox { relay: at },
            ) => at == relay && issuer == *key,
            (Self::Logs { control, mesh }, Right::Services { device } | Right::Service { device, .. }) => {
                is_of(control, *mesh, *device) && is_of(control, *mesh, issuer)
            }
            (
                Self::Logs { control, .. },
                Right::Topic { object, .. } | Right::Publish { object, .. } | Right::Subscribe { object, .. },
            ) => {
                let role = control.role(*object, issuer);
                role.is_some_and(|role| role.may_grant(needed(control, *object, right)))
            }
            _ => false,
        }
    }

    /// Whether a capability with this audience was given to the device.
    pub fn admits(&self, audience: &Audience, device: DeviceId) -> bool {
        match (audience, self) {
            (Audience::Device { device: given }, _) => *given == device,
            (Audience::Person { mesh }, Self::Logs { control, .. }) => is_of(control, *mesh, device),
            (Audience::Member { mesh, device: given }, Self::Logs { control, .. }) => {
                *given == device && is_of(control, *mesh, device)
            }
            (Audience::Person { .. } | Audience::Member { .. }, Self::Operator { .. }) => false,
        }
    }
}

/// Whether a device speaks for a mesh now. A storage helper does not.
fn is_of(control: &Control, mesh: MeshId, device: DeviceId) -> bool {
    is_mesh(control, mesh.into()) && control.role(mesh.into(), device) >= Some(Role::Edit)
}

fn is_mesh(control: &Control, object: ObjectId) -> bool {
    control.log(object).is_some_and(|log| log.is_mesh())
}

/// The role that an act on a topic takes. In a mesh even reading takes a device's: its helpers hold no keys.
fn needed(control: &Control, object: ObjectId, right: &Right) -> Role {
    match right {
        Right::Subscribe { .. } if !is_mesh(control, object) => Role::Read,
        _ => Role::Edit,
    }
}
