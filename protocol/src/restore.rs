//! Coming back: a blank device enters its mesh with the recovery phrase, while another device of the mesh is in reach.
//!
//! The root's key is the identity of the connection, made for this alone: whoever is heard has proved that he has the
//! phrase, and nobody else is heard. The device of the mesh ([`Host`]) tells the control log. The blank one ([`Guest`])
//! finds in it that its root is the one in force, signs with it a grant to the key that it keeps, publishes its seal
//! key under that grant, and gives both back. Both are machines without clock, network or randomness.

mod guest;
mod host;

#[cfg(test)]
mod tests;

pub use self::{
    guest::{Guest, GuestOutput, Restored},
    host::{Admission, Host, HostOutput, parts},
};

/// The version of this protocol, as a blank device states it.
pub const VERSION: u16 = 1;
/// The oldest version of a blank device that is let in.
pub const VERSION_MIN: u16 = 1;

/// Why a device did not come back. The texts are for the person who typed the phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Another mesh's device, or one that has no mesh.
    #[error("it knows nothing of this phrase")]
    Unknown,
    /// Another root is in force.
    #[error("this phrase was replaced by another one, and owns the mesh no longer")]
    Replaced,
    /// No root is in force.
    #[error("the mesh is frozen: its phrase was replaced by two others, and none of them owns it")]
    Frozen,
    /// The blank device's software is too old.
    #[error("this device runs too old a version of Meshwork")]
    VersionTooOld,
    /// What it told is not the whole log of a mesh, or does not name it as a device.
    #[error("what it told of the mesh is not in order")]
    BadLog,
    /// The other side stopped, failed, or sent what does not belong here.
    #[error("the conversation with it broke off")]
    Interrupted,
}

impl RestoreError {
    /// The number of a refusal on the wire.
    fn reason(self) -> u8 {
        match self {
            Self::Replaced => 1,
            Self::Frozen => 2,
            Self::VersionTooOld => 3,
            Self::Unknown | Self::BadLog | Self::Interrupted => 0,
        }
    }

    fn from_reason(reason: u8) -> Self {
        let told = [Self::Replaced, Self::Frozen, Self::VersionTooOld];
        told.into_iter().find(|error| error.reason() == reason).unwrap_or(Self::Interrupted)
    }
}

/// The error in a state of a root, if it is not in force.
fn in_force(state: Option<crate::control::RootState>) -> Result<(), RestoreError> {
    use crate::control::RootState;
    match state {
        Some(RootState::InForce) => Ok(()),
        Some(RootState::Replaced) => Err(RestoreError::Replaced),
        Some(RootState::Frozen) => Err(RestoreError::Frozen),
        None => Err(RestoreError::Unknown),
    }
}
