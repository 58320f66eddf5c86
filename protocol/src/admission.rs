//! Whom a relay carries for: everybody, or devices that were invited, and those for which these vouch.
//!
//! An invitation is a *ticket*: a chain of [capabilities](crate::capability) for the relay that begins with the relay's
//! own key, or with a device that its operator named. Its holder passes it on to the other devices of his mesh by links of
//! his own. A relay knows neither meshes nor persons, and keeps nothing over a restart: a device shows its ticket whenever
//! it connects.

use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;

use crate::{
    capability::{Anchor, Audience, Capability, CapabilityError, Caveat, Chain, NO_PARENT, Request, Right, check},
    id::{DeviceId, LeaseId},
    key::DeviceKey,
    limits,
    link::{from_base32, to_base32},
    time::Timestamp,
    wire::admission::{Answer, Refusal},
};

/// Whom a relay carries for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Everybody.
    Open,
    /// Devices with a ticket.
    Invited {
        /// Devices that need no ticket and may give some, as the relay itself.
        givers: BTreeSet<DeviceId>,
        /// The leases of tickets that do not count any more, nor what was passed on of them.
        withdrawn: BTreeSet<LeaseId>,
    },
}

/// A device that showed a good ticket.
struct Admitted {
    until: Timestamp,
    /// The lease of the first link of its ticket, and who gave that.
    root: (DeviceId, LeaseId),
}

/// The devices for which a relay carries now.
pub struct Admission {
    key: DeviceKey,
    policy: Policy,
    admitted: BTreeMap<DeviceId, Admitted>,
}

impl Admission {
    /// Of the relay with this key.
    pub fn new(key: DeviceKey, policy: Policy) -> Self {
        Self { key, policy, admitted: BTreeMap::new() }
    }

    /// Whether others may reach a device through this relay.
    pub fn admits(&self, device: &DeviceId, now: Timestamp) -> bool {
        match &self.policy {
            Policy::Open => true,
            Policy::Invited { givers, .. } => {
                givers.contains(device) || self.admitted.get(device).is_some_and(|admitted| now < admitted.until)
            }
        }
    }

    /// How many devices have shown a good ticket that has not ended.
    pub fn count(&self, now: Timestamp) -> usize {
        self.admitted.values().filter(|admitted| now < admitted.until).count()
    }

    /// What to answer to a device that shows these bytes.
    pub fn show(&mut self, device: DeviceId, ticket: &[u8], now: Timestamp) -> Answer {
        let Policy::Invited { givers, .. } = &self.policy else {
            return Answer::Admitted { until: None, gives: false, renewed: None };
        };
        if givers.contains(&device) {
            return Answer::Admitted { until: None, gives: true, renewed: None };
        }
        match self.judge(device, ticket, now) {
            Ok((chain, admitted)) => {
                let until = Some(admitted.until);
                self.admitted.insert(device, admitted);
                Answer::Admitted { until, gives: false, renewed: self.renew(&chain, now) }
            }
            Err(refusal) => Answer::Refused { code: refusal.code() },
        }
    }

    fn judge(&mut self, device: DeviceId, ticket: &[u8], now: Timestamp) -> Result<(Chain, Admitted), Refusal> {
        let chain = Chain::parse(ticket).map_err(|_| Refusal::Malformed)?;
        let Some(first) = chain.links().first() else { return Err(Refusal::NotInvited) };
        let (relay, root) = (self.key.device_id(), (first.issuer(), first.capability().lease));
        let Policy::Invited { givers, withdrawn } = &self.policy else { return Err(Refusal::NotInvited) };
        let key = if givers.contains(&first.issuer()) { first.issuer() } else { relay };
        let request = Request { by: device, right: Right::Circuit { relay }, peer: None };
        let is_withdrawn = |lease: LeaseId| withdrawn.contains(&lease);
        let permit = check(&chain, now, &request, Anchor::Operator { relay, key }, is_withdrawn)?;
        // A bound that is not kept to would be a promise to whoever gave the ticket.
        if permit.budgets.iter().any(|budget| (budget.bytes, budget.rate, budget.count) != (None, None, None)) {
            return Err(Refusal::Bounded);
        }
        let until = permit.until.ok_or(Refusal::NotInvited)?;
        self.admitted.retain(|_, admitted| now < admitted.until);
        let of_ticket = self.admitted.iter().filter(|(other, admitted)| **other != device && admitted.root == root);
        if of_ticket.count() >= limits::ADMITTED_BY_TICKET {
            return Err(Refusal::Crowded);
        }
        if self.admitted.len() >= limits::ADMITTED && !self.admitted.contains_key(&device) {
            return Err(Refusal::Full);
        }
        Ok((chain, Admitted { until, root }))
    }

    /// The next ticket, for who holds the relay's own one, in the last third of its time. What was passed on of it is
    /// renewed by who passed it on, so that a device that he does not vouch for any more ends with what it has.
    fn renew(&self, chain: &Chain, now: Timestamp) -> Option<Chain> {
        let [link] = chain.links() else { return None };
        let old = link.capability();
        if link.issuer() != self.key.device_id() || !is_ending(old, now) {
            return None;
        }
        let life = old.expires - old.not_before;
        let next = Capability { not_before: now, expires: now + life, ..old.clone() };
        Chain::default().issue(&self.key, next).ok()
    }
}

impl From<CapabilityError> for Refusal {
    fn from(error: CapabilityError) -> Self {
        match error {
            CapabilityError::Withdrawn => Self::Withdrawn,
            CapabilityError::Expired => Self::Ended,
            CapabilityError::NotYet => Self::NotYet,
            _ => Self::NotInvited,
        }
    }
}

/// Whether a ticket is in the last third of its time.
fn is_ending(ticket: &Capability, now: Timestamp) -> bool {
    now >= ticket.expires || ticket.expires - now < (ticket.expires - ticket.not_before) / 3
}

/// A ticket for a device, by the relay itself or a device that its operator named. `passes` says whether the holder may
/// pass it on.
///
/// # Errors
/// [`CapabilityError::Time`] for a life of nothing, or of more than [`limits::CAPABILITY_LIFE`].
pub fn invite(
    key: &DeviceKey,
    relay: DeviceId,
    device: DeviceId,
    (now, life): (Timestamp, std::time::Duration),
    passes: bool,
    rng: &mut impl CryptoRng,
) -> Result<Chain, CapabilityError> {
    let caveats = if passes { Vec::new() } else { vec![Caveat::Depth { most: 0 }] };
    let (right, audience) = (Right::Relay { relay }, Audience::Device { device });
    let (not_before, expires) = (now, now + life);
    let parent = NO_PARENT;
    Chain::default().issue(key, Capability { parent, lease: lease(rng), audience, right, caveats, not_before, expires })
}

/// The same right for another device, as long as the own ticket holds.
///
/// # Errors
/// When the ticket may not be passed on.
pub fn pass_on(
    ticket: &Chain,
    key: &DeviceKey,
    device: DeviceId,
    rng: &mut impl CryptoRng,
) -> Result<Chain, CapabilityError> {
    let own = ticket.capability().ok_or(CapabilityError::NotEntitled)?;
    let depth = Caveat::Depth { most: 0 };
    let mut caveats: Vec<Caveat> =
        own.caveats.iter().filter(|caveat| !matches!(caveat, Caveat::Depth { .. })).cloned().collect();
    caveats.push(depth);
    ticket.issue(key, Capability { lease: lease(rng), audience: Audience::Device { device }, caveats, ..own.clone() })
}

/// A ticket as people pass it on: its bytes in base32. It is no secret, for it is of use to its device alone.
pub fn to_text(ticket: &Chain) -> String {
    to_base32(&ticket.to_bytes())
}

/// The inverse of [`to_text`]; `None` for what is no ticket.
pub fn from_text(text: &str) -> Option<Chain> {
    Chain::parse(&from_base32(text)?).ok().filter(|ticket| !ticket.links().is_empty())
}

/// Whether a ticket that was given to a device should be given anew: there is none of this relay, it is ending, or what it
/// was made of has been renewed.
pub fn is_due(given: Option<&Chain>, own: Option<&Chain>, now: Timestamp) -> bool {
    let Some(given) = given.and_then(Chain::capability) else { return true };
    match own.and_then(Chain::capability) {
        Some(own) => given.expires < own.expires,
        None => is_ending(given, now),
    }
}

fn lease(rng: &mut impl CryptoRng) -> LeaseId {
    let mut lease = [0; 16];
    rng.fill_bytes(&mut lease);
    LeaseId(lease)
}

#[cfg(test)]
mod tests;
