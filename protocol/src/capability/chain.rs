//! Chains: capabilities, each a part of the one before it.

use crate::{
    codec,
    id::{CapabilityId, DeviceId},
    key::{DeviceKey, Kind, Signed, SignedError},
    limits,
};

use super::{Capability, CapabilityError, NO_PARENT};

/// A capability in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    signed: Signed,
    capability: Capability,
    id: CapabilityId,
}

impl Link {
    /// What was signed.
    pub fn capability(&self) -> &Capability {
        &self.capability
    }

    /// The name of the capability.
    pub fn id(&self) -> CapabilityId {
        self.id
    }

    /// Who signed it: a device, or the key of an operator.
    pub fn issuer(&self) -> DeviceId {
        self.signed.device_id()
    }
}

/// Capabilities from the first issuer to the last holder. Everything about them that needs no clock and no knowledge is
/// checked: signatures, form, and that each is a part of the one before it. The chain without links is what a device
/// shows that needs no capability.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain(Vec<Link>);

impl Chain {
    /// Reads a chain as a peer shows it: an array of signed statements, the first issuer's first.
    pub fn parse(bytes: &[u8]) -> Result<Self, CapabilityError> {
        let signed: Vec<Signed> = codec::decode(bytes, limits::CAPABILITY_CHAIN).map_err(SignedError::from)?;
        Self::new(signed)
    }

    /// The chain of these links.
    pub fn new(signed: Vec<Signed>) -> Result<Self, CapabilityError> {
        if signed.len() > limits::CAPABILITY_LINKS {
            return Err(CapabilityError::TooLong);
        }
        signed.into_iter().try_fold(Self::default(), Self::with)
    }

    /// This chain and a part of it that its holder signs. The parent is filled in.
    ///
    /// # Errors
    /// When everybody would refuse it.
    pub fn issue(&self, key: &DeviceKey, capability: Capability) -> Result<Self, CapabilityError> {
        let capability = Capability { parent: self.end(), ..capability };
        self.clone().with(key.sign(Kind::Capability, codec::encode(&capability)))
    }

    /// The links, the first issuer's first.
    pub fn links(&self) -> &[Link] {
        &self.0
    }

    /// The last link: what the holder has.
    pub fn last(&self) -> Option<&Link> {
        self.0.last()
    }

    /// What the last link says.
    pub fn capability(&self) -> Option<&Capability> {
        self.last().map(Link::capability)
    }

    /// The links as they were signed.
    pub fn to_signed(&self) -> Vec<Signed> {
        self.0.iter().map(|link| link.signed.clone()).collect()
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&self.to_signed())
    }

    fn end(&self) -> CapabilityId {
        self.last().map_or(NO_PARENT, |link| link.id)
    }

    fn with(mut self, signed: Signed) -> Result<Self, CapabilityError> {
        if self.0.len() >= limits::CAPABILITY_LINKS {
            return Err(CapabilityError::TooLong);
        }
        let capability: Capability = signed.open(Kind::Capability)?;
        capability.check_form()?;
        if capability.parent != self.end() {
            return Err(CapabilityError::Broken);
        }
        if let Some(parent) = self.last() {
            parent.capability.check_narrows(&capability)?;
        }
        signed.verify()?;
        let id = CapabilityId(signed.id());
        self.0.push(Link { signed, capability, id });
        Ok(self)
    }
}
