//! Renewal: who holds a capability asks its issuer for the next one well before it ends; who gave one renews what is
//! still allowed.
//!
//! Nothing here has to survive by itself: the node stores the chains it was given and those it gave, and what was
//! withdrawn, and says so again when it starts.

use std::{collections::BTreeMap, time::Duration};

use rand_core::CryptoRng;

use super::{Anchor, Capability, Chain};
use crate::{
    codec,
    id::{DeviceId, LeaseId},
    key::{DeviceKey, Signed},
    limits,
    time::Timestamp,
    wire::capability::CapabilityMessage,
};

/// What is told to the machine.
#[derive(Debug)]
pub enum Input {
    /// Keep this capability of ours fresh.
    Hold(Chain),
    /// One that we hold is of no use any more.
    Release {
        /// Who gave it.
        issuer: DeviceId,
        /// Its lease.
        lease: LeaseId,
    },
    /// Renew this capability, which is ours, for whoever has it.
    Give(Chain),
    /// Renew it no more, and refuse it from now on.
    Withdraw(LeaseId),
    /// An issuer can be reached.
    Connected(DeviceId),
    /// A [`CapabilityMessage`] came.
    Message {
        /// From this device, as the connection proved it.
        from: DeviceId,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A deadline has passed.
    Tick,
}

/// What the machine asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message, connecting first if need be. If that fails, it is tried again later.
    Send {
        /// To this device.
        to: DeviceId,
        /// An encoded [`CapabilityMessage`].
        bytes: Vec<u8>,
    },
    /// Use and store this in the place of the one of the same issuer and lease.
    Renewed(Chain),
    /// The issuer renews it no more. It holds until its end; seldom, it is asked for again.
    Refused {
        /// Who gave it.
        issuer: DeviceId,
        /// Its lease.
        lease: LeaseId,
    },
    /// It has ended without a new one. It is asked for until it is released.
    Expired {
        /// Who gave it.
        issuer: DeviceId,
        /// Its lease.
        lease: LeaseId,
    },
    /// What was withdrawn has ended by itself: it need not be stored any more.
    Ended(LeaseId),
    /// There is no room for this lease, or its chain is none that this device can renew. It is not kept.
    NotKept(LeaseId),
    /// A device sent what it should not.
    Fault(DeviceId),
}

struct Held {
    chain: Chain,
    /// When a new one is first wanted.
    due: Timestamp,
    /// When the issuer is asked next.
    next: Timestamp,
    tries: u32,
    /// Whether an answer is awaited: nobody else's is looked at.
    is_asked: bool,
    is_refused: bool,
    has_expired: bool,
}

struct Given {
    /// The newest.
    chain: Chain,
    /// For how long each is given.
    life: Duration,
    /// Whether it is withdrawn, and until when the last one given could be shown.
    withdrawn: Option<Timestamp>,
}

/// The capabilities that one device holds and has given.
pub struct Renewal {
    key: DeviceKey,
    held: BTreeMap<(DeviceId, LeaseId), Held>,
    given: BTreeMap<LeaseId, Given>,
}

impl Renewal {
    /// Of the device, or operator, with this key.
    pub fn new(key: DeviceKey) -> Self {
        Self { key, held: BTreeMap::new(), given: BTreeMap::new() }
    }

    /// Whether a lease was withdrawn here, as [`check`](super::check) asks.
    pub fn is_withdrawn(&self, lease: LeaseId) -> bool {
        self.given.get(&lease).is_some_and(|given| given.withdrawn.is_some())
    }

    /// The newest chain of a lease that this device holds.
    pub fn held(&self, issuer: DeviceId, lease: LeaseId) -> Option<&Chain> {
        self.held.get(&(issuer, lease)).map(|held| &held.chain)
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let held = self.held.values().map(|held| if held.has_expired { held.next } else { held.next.min(held.end()) });
        held.chain(self.given.values().filter_map(|given| given.withdrawn)).min()
    }

    /// Takes an input in and says what is to be done.
    #[must_use]
    pub fn handle(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        anchor: Anchor<'_>,
        input: Input,
    ) -> Vec<Output> {
        let mut out = Vec::new();
        self.end(now, &mut out);
        match input {
            Input::Hold(chain) => self.hold(rng, chain, &mut out),
            Input::Release { issuer, lease } => {
                self.held.remove(&(issuer, lease));
            }
            Input::Give(chain) => self.give(chain, &mut out),
            Input::Withdraw(lease) => {
                if let Some(given) = self.given.get_mut(&lease) {
                    given.withdrawn = Some(now + given.life + limits::CLOCK_SKEW);
                }
            }
            Input::Connected(issuer) => {
                let waiting = self.held.iter_mut().filter(|((by, _), held)| *by == issuer && held.due <= now);
                waiting.for_each(|(_, held)| held.next = now);
            }
            Input::Message { from, bytes } => self.hear(now, rng, anchor, from, &bytes, &mut out),
            Input::Tick => {}
        }
        self.ask(now, rng, &mut out);
        out
    }

    /// What has ended by itself.
    fn end(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for ((issuer, lease), held) in &mut self.held {
            if !held.has_expired && now >= held.end() {
                held.has_expired = true;
                out.push(Output::Expired { issuer: *issuer, lease: *lease });
            }
        }
        self.given.retain(|lease, given| {
            let is_over = given.withdrawn.is_some_and(|until| now >= until);
            if is_over {
                out.push(Output::Ended(*lease));
            }
            !is_over
        });
    }

    fn ask(&mut self, now: Timestamp, rng: &mut impl CryptoRng, out: &mut Vec<Output>) {
        for ((issuer, lease), held) in self.held.iter_mut().filter(|(_, held)| held.next <= now) {
            held.is_asked = true;
            held.next = now + pause(rng, held.tries);
            held.tries = held.tries.saturating_add(1);
            out.push(send(*issuer, &CapabilityMessage::Ask { lease: *lease }));
        }
    }

    fn hold(&mut self, rng: &mut impl CryptoRng, chain: Chain, out: &mut Vec<Output>) {
        let Some(last) = chain.last() else { return };
        let name = (last.issuer(), last.capability().lease);
        let is_newer = |held: &Held| held.chain.capability().is_none_or(|old| old.expires < last.capability().expires);
        match self.held.get(&name) {
            Some(held) if !is_newer(held) => {}
            None if self.held.len() >= limits::LEASES_HELD => out.push(Output::NotKept(name.1)),
            _ => {
                self.held.insert(name, Held::new(rng, chain));
            }
        }
    }

    fn give(&mut self, chain: Chain, out: &mut Vec<Output>) {
        let Some(last) = chain.last() else { return };
        let lease = last.capability().lease;
        if last.issuer() != self.key.device_id()
            || self.given.contains_key(&lease)
            || self.given.len() >= limits::LEASES_GIVEN
        {
            out.push(Output::NotKept(lease));
            return;
        }
        let life = last.capability().expires - last.capability().not_before;
        self.given.insert(lease, Given { chain, life, withdrawn: None });
    }

    fn hear(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        anchor: Anchor<'_>,
        from: DeviceId,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) {
        match codec::decode(bytes, limits::CAPABILITY_FRAME) {
            Ok(CapabilityMessage::Ask { lease }) => out.extend(self.answer(now, anchor, from, lease)),
            Ok(CapabilityMessage::Renewed { lease, chain }) => self.renewed(now, rng, (from, lease), chain, out),
            Ok(CapabilityMessage::Refused { lease }) => {
                if let Some(held) = self.held.get_mut(&(from, lease)).filter(|held| held.is_asked) {
                    held.is_asked = false;
                    held.next = now + pause(rng, u32::MAX);
                    if !std::mem::replace(&mut held.is_refused, true) {
                        out.push(Output::Refused { issuer: from, lease });
                    }
                }
            }
            Err(_) => out.push(Output::Fault(from)),
        }
    }

    fn renewed(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        name: (DeviceId, LeaseId),
        signed: Vec<Signed>,
        out: &mut Vec<Output>,
    ) {
        // Signatures are looked at only in the answer to a question.
        let Some(held) = self.held.get_mut(&name).filter(|held| held.is_asked) else { return };
        held.is_asked = false;
        let chain = match Chain::new(signed) {
            Ok(chain) if chain.prolongs(&held.chain) => chain,
            _ => return out.push(Output::Fault(name.0)),
        };
        if chain.capability().map(|new| new.expires) > held.chain.capability().map(|old| old.expires) {
            let soonest = now + pause(rng, 0);
            *held = Held::new(rng, chain.clone());
            // Who gives a moment at a time is not asked at every moment.
            held.next = held.next.max(soonest);
            out.push(Output::Renewed(chain));
        }
    }

    /// The answer to a holder; none where there may be one later.
    fn answer(&mut self, now: Timestamp, anchor: Anchor<'_>, from: DeviceId, lease: LeaseId) -> Option<Output> {
        let refused = Some(send(from, &CapabilityMessage::Refused { lease }));
        let Some(given) = self.given.get_mut(&lease).filter(|given| given.withdrawn.is_none()) else {
            return refused;
        };
        let Some(newest) = given.chain.capability().filter(|newest| anchor.admits(&newest.audience, from)) else {
            return refused;
        };
        let parent = match given.chain.parent() {
            None if anchor.may_give(self.key.device_id(), &newest.right) => Chain::default(),
            None => return refused,
            Some(parent) => match self.held.get(&parent) {
                Some(held) => held.chain.clone(),
                None => return refused,
            },
        };
        let third = (newest.expires - newest.not_before) / 3;
        let is_fresh = now < newest.expires && now - newest.not_before < third.max(limits::RENEW_PAUSE);
        if !is_fresh {
            let next = next(newest, &parent, now, given.life)?;
            match parent.issue(&self.key, next) {
                Ok(chain) => given.chain = chain,
                // What it is a part of was renewed with less in it.
                Err(_) => return refused,
            }
        }
        Some(send(from, &CapabilityMessage::Renewed { lease, chain: given.chain.to_signed() }))
    }
}

impl Held {
    /// A new one is wanted between a half and two thirds of the time, not by all holders at once.
    fn new(rng: &mut impl CryptoRng, chain: Chain) -> Self {
        let (since, life) = match chain.capability() {
            Some(capability) => (capability.not_before, capability.expires - capability.not_before),
            None => (Timestamp::default(), Duration::ZERO),
        };
        let due = since + life / 2 + jitter(rng, life / 6);
        Self { chain, due, next: due, tries: 0, is_asked: false, is_refused: false, has_expired: false }
    }

    fn end(&self) -> Timestamp {
        self.chain.capability().map_or(Timestamp::default(), |capability| capability.expires)
    }
}

impl Chain {
    /// Who gave what the last link is a part of, and its lease.
    fn parent(&self) -> Option<(DeviceId, LeaseId)> {
        let (_, before) = self.links().split_last()?;
        before.last().map(|parent| (parent.issuer(), parent.capability().lease))
    }

    /// Whether this is the same right, from the same issuer to the same holder, under the same lease.
    fn prolongs(&self, old: &Chain) -> bool {
        let (Some(new), Some(old)) = (self.last(), old.last()) else { return false };
        let (is, was) = (new.capability(), old.capability());
        new.issuer() == old.issuer() && (is.lease, is.audience) == (was.lease, was.audience) && is.right == was.right
    }
}

/// What follows a capability, for as long as its parent lasts; `None` where that is no longer than it lasts itself.
fn next(newest: &Capability, parent: &Chain, now: Timestamp, life: Duration) -> Option<Capability> {
    let (since, until) = match parent.capability() {
        Some(parent) => (parent.not_before.max(now), parent.expires.min(now + life)),
        None => (now, now + life),
    };
    (until > newest.expires).then(|| Capability { not_before: since, expires: until, ..newest.clone() })
}

/// Time until the next question after so many without an answer.
fn pause(rng: &mut impl CryptoRng, tries: u32) -> Duration {
    let doubled = limits::RENEW_PAUSE.saturating_mul(1 << tries.min(16));
    let pause = doubled.min(limits::RENEW_PAUSE_MAX);
    pause + jitter(rng, pause / 2)
}

fn jitter(rng: &mut impl CryptoRng, most: Duration) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.next_u64().checked_rem(micros).unwrap_or(0))
}

fn send(to: DeviceId, message: &CapabilityMessage) -> Output {
    Output::Send { to, bytes: codec::encode(message) }
}
