//! Capabilities: rights to live acts, for a time.
//!
//! A live act happens now or not at all: traffic through a relay, a tunnel to a service, a message on a topic. A
//! capability gives the right to one to a device or a person, until it ends, and within caveats. Its holder may pass
//! on a part of it in a capability of his own; a [`Chain`] is the whole way from whoever could give the right to
//! whoever uses it, and [`check`] judges it against the [`Anchor`] in which the verifier trusts. No capability is a
//! secret: it is of use only to the device whose key the connection has proved.
//!
//! What is stored is never judged by a capability. Membership knows no time; it is in the [control log](crate::control).

mod anchor;
mod chain;
mod check;
mod renewal;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    id::{CapabilityId, DeviceId, LeaseId, MeshId, ObjectId},
    key::SignedError,
    limits,
    time::Timestamp,
    wire_enum, wire_struct,
};

pub use self::{
    anchor::Anchor,
    chain::{Chain, Link},
    check::{Budget, Permit, Request, check},
    renewal::{Input, Output, Renewal},
};

/// Why a capability, or a chain of them, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// The bytes are no chain, a signature does not verify, or a body is not what this version knows: an unknown
    /// right, caveat or audience is refused like any other.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// More than [`limits::CAPABILITY_LINKS`].
    #[error("the chain is too long")]
    TooLong,
    /// A caveat is repeated or out of order, or lists no devices, too many, or unsorted ones.
    #[error("the caveats are not in order")]
    Caveats,
    /// It ends before it begins, or lives longer than [`limits::CAPABILITY_LIFE`].
    #[error("the capability has no possible time")]
    Time,
    /// A right at a relay is for a device, every other for a person or one of his devices.
    #[error("the right cannot be given to such an audience")]
    Audience,
    /// A link does not name the one before it as its parent, or the first names one.
    #[error("the links do not belong together")]
    Broken,
    /// A link gives what the one before it does not.
    #[error("a link gives more than it was given: {0}")]
    Wider(Field),
    /// The first issuer has no right to give this, or, where there is no chain, the device has none to do it.
    #[error("nobody who may has given this right")]
    NotEntitled,
    /// A link is signed by a device to which the one before it was not given, or that has lost its membership.
    #[error("a link is not from the holder of the one before it")]
    NotHolder,
    /// The device was not given the right, or has lost its membership.
    #[error("the right was given to somebody else")]
    NotGiven,
    /// A link was withdrawn by who gave it.
    #[error("the right was withdrawn")]
    Withdrawn,
    /// It begins later.
    #[error("the right does not hold yet")]
    NotYet,
    /// It has ended.
    #[error("the right has ended")]
    Expired,
    /// It is for another act, or at another place.
    #[error("the right is for something else")]
    OtherRight,
    /// The other end is not among the devices to which a caveat restricts it.
    #[error("the right does not extend to this peer")]
    OtherPeer,
}

/// In what a link is wider than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The act or the place.
    Right,
    /// The time.
    Time,
    /// A caveat is missing or laxer.
    Caveats,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "another right",
            Self::Time => "more time",
            Self::Caveats => "laxer caveats",
        })
    }
}

/// The name of a service or a topic: 1 to [`limits::LABEL`] of `a` to `z`, `0` to `9`, `.`, `_` and `-`, so that equal
/// names have equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(String);

/// A text is not a [`Label`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {} of a-z, 0-9, dot, hyphen and underscore", limits::LABEL)]
pub struct LabelError;

impl FromStr for Label {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        let fits = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let good = (1..=limits::LABEL).contains(&text.len()) && text.bytes().all(fits);
        if good { Ok(Self(text.to_owned())) } else { Err(LabelError) }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// To whom a capability is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A device, whoever's it is: for a relay, which knows no mesh.
    Device {
        /// The device.
        device: DeviceId,
    },
    /// Every device of a person, at the time of the act.
    Person {
        /// His mesh.
        mesh: MeshId,
    },
    /// One device of a person, as long as it is his.
    Member {
        /// His mesh.
        mesh: MeshId,
        /// The device.
        device: DeviceId,
    },
}
wire_enum!(Audience {
    0 => Device { device },
    1 => Person { mesh },
    2 => Member { mesh, device },
});

/// A live act and where it takes place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// Circuits and mailboxes at a relay.
    Relay {
        /// The relay.
        relay: DeviceId,
    },
    /// Circuits through a relay, from or to the holder.
    Circuit {
        /// The relay.
        relay: DeviceId,
    },
    /// A mailbox at a relay.
    Mailbox {
        /// The relay.
        relay: DeviceId,
    },
    /// Tunnels to every service of a device.
    Services {
        /// The device.
        device: DeviceId,
    },
    /// Tunnels to one service.
    Service {
        /// The device.
        device: DeviceId,
        /// The name that the device gives to a port.
        name: Label,
    },
    /// Publishing and subscribing to a topic.
    Topic {
        /// The object to which the topic belongs.
        object: ObjectId,
        /// Its name there.
        name: Label,
    },
    /// Publishing to a topic.
    Publish {
        /// The object to which the topic belongs.
        object: ObjectId,
        /// Its name there.
        name: Label,
    },
    /// Subscribing to a topic.
    Subscribe {
        /// The object to which the topic belongs.
        object: ObjectId,
        /// Its name there.
        name: Label,
    },
}
wire_enum!(Right {
    0 => Relay { relay },
    1 => Circuit { relay },
    2 => Mailbox { relay },
    3 => Services { device },
    4 => Service { device, name },
    5 => Topic { object, name },
    6 => Publish { object, name },
    7 => Subscribe { object, name },
});

impl Right {
    /// Whether who has this right has the other one too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Relay { relay }, Self::Circuit { relay: at } | Self::Mailbox { relay: at }) => relay == at,
            (Self::Services { device }, Self::Service { device: on, .. }) => device == on,
            (
                Self::Topic { object, name },
                Self::Publish { object: of, name: called } | Self::Subscribe { object: of, name: called },
            ) => object == of && name == called,
            _ => self == other,
        }
    }

    /// Whether it is a relay that judges this right, without a control log.
    fn is_at_relay(&self) -> bool {
        matches!(self, Self::Relay { .. } | Self::Circuit { .. } | Self::Mailbox { .. })
    }
}

/// A restriction. One that a verifier does not know makes it refuse the whole chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caveat {
    /// Bytes that are carried or, in a mailbox, held under the capability, in all its time.
    Bytes {
        /// At most so many.
        most: u64,
    },
    /// Bytes a second.
    Rate {
        /// At most so many.
        most: u64,
    },
    /// Circuits, tunnels or subscriptions that are open, or items in a mailbox, at a time.
    Count {
        /// At most so many.
        most: u64,
    },
    /// Only with these at the other end of a circuit, or as owners of the mailbox. Where an act has no other end it
    /// is not permitted.
    Peers {
        /// 1 to [`limits::CAPABILITY_PEERS`], rising.
        devices: Vec<DeviceId>,
    },
    /// Links that may follow in a chain; without this caveat as many as fit.
    Depth {
        /// At most so many.
        most: u64,
    },
}
wire_enum!(Caveat {
    0 => Bytes { most },
    1 => Rate { most },
    2 => Count { most },
    3 => Peers { devices },
    4 => Depth { most },
});

impl Caveat {
    /// The place of its kind in a list.
    fn place(&self) -> u8 {
        match self {
            Self::Bytes { .. } => 0,
            Self::Rate { .. } => 1,
            Self::Count { .. } => 2,
            Self::Peers { .. } => 3,
            Self::Depth { .. } => 4,
        }
    }

    fn is_well_formed(&self) -> bool {
        match self {
            Self::Peers { devices } => {
                (1..=limits::CAPABILITY_PEERS).contains(&devices.len()) && devices.is_sorted_by(|a, b| a < b)
            }
            Self::Bytes { .. } | Self::Rate { .. } | Self::Count { .. } | Self::Depth { .. } => true,
        }
    }

    /// Whether `child` satisfies this caveat in the link after it.
    fn covers(&self, child: &Self) -> bool {
        match (self, child) {
            (Self::Bytes { most }, Self::Bytes { most: less })
            | (Self::Rate { most }, Self::Rate { most: less })
            | (Self::Count { most }, Self::Count { most: less }) => less <= most,
            (Self::Depth { most }, Self::Depth { most: less }) => less < most,
            (Self::Peers { devices }, Self::Peers { devices: fewer }) => {
                fewer.iter().all(|device| devices.binary_search(device).is_ok())
            }
            _ => false,
        }
    }
}

/// The parent of the first link of a chain.
pub const NO_PARENT: CapabilityId = CapabilityId([0; 32]);

/// A right to a live act, for a time. It is signed by whoever gives it: a device, or the key of a relay's operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The capability of which this is a part, or [`NO_PARENT`].
    pub parent: CapabilityId,
    /// Told apart from the issuer's others by this; capabilities that prolong it have the same.
    pub lease: LeaseId,
    /// To whom it is given.
    pub audience: Audience,
    /// To do what.
    pub right: Right,
    /// Within what. Each kind at most once, in the order of [`Caveat`].
    pub caveats: Vec<Caveat>,
    /// Since when.
    pub not_before: Timestamp,
    /// Until when; always later, by at most [`limits::CAPABILITY_LIFE`].
    pub expires: Timestamp,
}
wire_struct!(Capability { parent, lease, audience, right, caveats, not_before, expires });

impl Capability {
    /// Checks what needs nothing but the capability itself.
    fn check_form(&self) -> Result<(), CapabilityError> {
        let in_order = self.caveats.is_sorted_by(|a, b| a.place() < b.place());
        if !in_order || !self.caveats.iter().all(Caveat::is_well_formed) {
            return Err(CapabilityError::Caveats);
        }
        if self.expires <= self.not_before || self.expires - self.not_before > limits::CAPABILITY_LIFE {
            return Err(CapabilityError::Time);
        }
        if matches!(self.audience, Audience::Device { .. }) != self.right.is_at_relay() {
            return Err(CapabilityError::Audience);
        }
        Ok(())
    }

    /// Checks that the next link of a chain gives no more than this one.
    fn check_narrows(&self, child: &Self) -> Result<(), CapabilityError> {
        if !self.right.covers(&child.right) {
            return Err(CapabilityError::Wider(Field::Right));
        }
        if child.not_before < self.not_before || child.expires > self.expires {
            return Err(CapabilityError::Wider(Field::Time));
        }
        let kept = |caveat: &Caveat| child.caveats.iter().any(|narrower| caveat.covers(narrower));
        if !self.caveats.iter().all(kept) {
            return Err(CapabilityError::Wider(Field::Caveats));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
