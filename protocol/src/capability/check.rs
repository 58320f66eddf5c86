//! The judgement of a live act.

use crate::{
    id::{CapabilityId, DeviceId, LeaseId},
    limits,
    time::Timestamp,
};

use super::{Anchor, Capability, CapabilityError, Caveat, Chain, Right};

/// A live act that somebody wants to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who: the device whose key the connection has proved.
    pub by: DeviceId,
    /// What.
    pub right: Right,
    /// With whom: the device at the other end of a circuit, the owner of a mailbox.
    pub peer: Option<DeviceId>,
}

/// That an act may be done, and within what. It is a judgement of this moment: as soon as a control log changes, or
/// something is withdrawn, acts that still go on are judged again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    /// When the act must end; `None` where the device needs no capability.
    pub until: Option<Timestamp>,
    /// What is to be counted, one for each link: what is passed on to many takes from the one share of who passed it
    /// on.
    pub budgets: Vec<Budget>,
}

/// The bounds of what is done under one capability, by all devices that show it or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The capability under whose name it is counted.
    pub capability: CapabilityId,
    /// Bytes in all its time.
    pub bytes: Option<u64>,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// Acts, or items, at a time.
    pub count: Option<u64>,
}

impl Budget {
    fn new(id: CapabilityId, capability: &Capability) -> Self {
        let mut budget = Self { capability: id, bytes: None, rate: None, count: None };
        for caveat in &capability.caveats {
            match caveat {
                Caveat::Bytes { most } => budget.bytes = Some(*most),
                Caveat::Rate { most } => budget.rate = Some(*most),
                Caveat::Count { most } => budget.count = Some(*most),
                Caveat::Peers { .. } | Caveat::Depth { .. } => {}
            }
        }
        budget
    }
}

/// Judges whether a device may do something now, by the chain that it shows. `is_withdrawn` says which leases the
/// verifier knows to be withdrawn.
pub fn check(
    chain: &Chain,
    now: Timestamp,
    request: &Request,
    anchor: Anchor<'_>,
    is_withdrawn: impl Fn(LeaseId) -> bool,
) -> Result<Permit, CapabilityError> {
    let (Some(first), Some(last)) = (chain.links().first(), chain.last()) else {
        let entitled = anchor.may_use(request.by, &request.right);
        let permit = Permit { until: None, budgets: Vec::new() };
        return if entitled { Ok(permit) } else { Err(CapabilityError::NotEntitled) };
    };
    if !anchor.may_give(first.issuer(), &first.capability().right) {
        return Err(CapabilityError::NotEntitled);
    }
    let mut passed_on = chain.links().iter().zip(chain.links().iter().skip(1));
    if !passed_on.all(|(parent, child)| anchor.admits(&parent.capability().audience, child.issuer())) {
        return Err(CapabilityError::NotHolder);
    }
    if !anchor.admits(&last.capability().audience, request.by) {
        return Err(CapabilityError::NotGiven);
    }
    if chain.links().iter().any(|link| is_withdrawn(link.capability().lease)) {
        return Err(CapabilityError::Withdrawn);
    }
    // Each link is a part of the one before it, so that the last alone would do; a right is worth five comparisons.
    for link in chain.links() {
        link.capability().permits(now, request)?;
    }
    let budgets = chain.links().iter().map(|link| Budget::new(link.id(), link.capability())).collect();
    Ok(Permit { until: Some(last.capability().end()), budgets })
}

impl Capability {
    /// When it ends for a verifier whose clock is behind as far as may be.
    pub(super) fn end(&self) -> Timestamp {
        self.expires + limits::CLOCK_SKEW
    }

    /// Whether time, right and caveats permit an act by whoever holds it.
    fn permits(&self, now: Timestamp, request: &Request) -> Result<(), CapabilityError> {
        if now + limits::CLOCK_SKEW < self.not_before {
            return Err(CapabilityError::NotYet);
        }
        if now >= self.end() {
            return Err(CapabilityError::Expired);
        }
        if !self.right.covers(&request.right) {
            return Err(CapabilityError::OtherRight);
        }
        let includes = |devices: &[DeviceId]| request.peer.is_some_and(|peer| devices.binary_search(&peer).is_ok());
        let excluded = |caveat: &Caveat| matches!(caveat, Caveat::Peers { devices } if !includes(devices));
        if self.caveats.iter().any(excluded) {
            return Err(CapabilityError::OtherPeer);
        }
        Ok(())
    }
}
