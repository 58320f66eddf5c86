//! When to dial the devices that should be connected and are not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::address::{Address, Path};

/// Wait after the first failure; doubled by each further one.
const FIRST: Duration = Duration::from_millis(500);

/// Longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(30);

/// Longest wait for what was stable and is lost since [`RECENT`] at most: its other end is looking, too.
const LONGEST_SOON: Duration = Duration::from_secs(2);

/// How long a loss is recent.
const RECENT: Duration = Duration::from_secs(60);

/// A connection, or a place at a relay, that lived so long was a success.
pub(crate) const STABLE: Duration = Duration::from_secs(2);

/// Addresses kept for a device, those found on the local network included.
pub(crate) const MAX_ADDRESSES: usize = 32;

/// One device to keep connected.
#[derive(Debug, Default)]
struct Known {
    /// As told by the node, in its order.
    stored: Vec<Address>,
    /// As heard from the local network and from the device itself; newest last.
    heard: Vec<Address>,
    failures: u32,
    next: Option<Instant>,
    /// When a stable connection was lost last.
    lost: Option<Instant>,
    /// Whether the last connection led through a relay.
    relayed: bool,
}

/// The dial plan of all known devices.
#[derive(Debug)]
pub(crate) struct Redial {
    known: BTreeMap<PeerId, Known>,
    noise: u64,
}

impl Redial {
    /// `seed` spreads the waits of different nodes; it need not be secret.
    pub(crate) fn new(seed: u64) -> Self {
        Self { known: BTreeMap::new(), noise: seed | 1 }
    }

    /// Replaces the stored addresses of a device; changed ones are tried at once. No addresses and
    /// none heard: the device is forgotten.
    pub(crate) fn set_known(&mut self, peer: PeerId, addresses: Vec<Address>, now: Instant) {
        let known = self.known.entry(peer).or_default();
        if known.stored != addresses || known.next.is_none() {
            known.stored = addresses;
            known.stored.truncate(MAX_ADDRESSES);
            known.failures = 0;
            known.next = Some(now);
        }
        if known.stored.is_empty() && known.heard.is_empty() {
            self.known.remove(&peer);
        }
    }

    /// A device was heard of at these addresses: worth an attempt at once. Returns whether any is new.
    pub(crate) fn heard(&mut self, peer: PeerId, addresses: &[Address], now: Instant) -> bool {
        let known = self.known.entry(peer).or_default();
        let mut news = false;
        for address in addresses.iter().take(MAX_ADDRESSES) {
            news |= !known.heard.contains(address) && !known.stored.contains(address);
            known.heard.retain(|old| old != address);
            known.heard.push(address.clone());
        }
        let excess = known.heard.len().saturating_sub(MAX_ADDRESSES);
        known.heard.drain(..excess);
        if news {
            known.failures = 0;
            known.next = Some(now);
        }
        news
    }

    /// The device may be dialled no more until it is heard of or told again.
    pub(crate) fn pause(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.get_mut(peer) {
            known.next = None;
        }
    }

    /// The device is not to be connected at all.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }

    /// The connection is lost after it `lived` so long. One that ended at once counts as a failed
    /// attempt: the peer may be refusing us. Otherwise `patience` lets the other end be first, so that
    /// not both dial.
    pub(crate) fn lost(&mut self, peer: &PeerId, now: Instant, lived: Duration, patience: Duration, path: Path) {
        if let Some(known) = self.known.get_mut(peer) {
            known.relayed = path == Path::Relayed;
        }
        if lived < STABLE {
            self.failed(peer, now);
        } else if let Some(known) = self.known.get_mut(peer) {
            known.failures = 0;
            known.lost = Some(now);
            known.next = known.next.map(|_| now + patience);
        }
    }

    /// Whether a device was lost a moment ago, and reached through a relay before.
    pub(crate) fn was_relayed(&self, peer: &PeerId, now: Instant) -> bool {
        self.known.get(peer).is_some_and(|known| known.relayed && is_recent(known.lost, now))
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, peer: &PeerId, now: Instant) {
        let noise = self.draw();
        if let Some(known) = self.known.get_mut(peer) {
            let wait = wait_after(FIRST, known.failures, known.lost, now);
            // Between three quarters and five quarters, so that two nodes do not stay in step.
            let wait = wait.mul_f64(0.75 + noise * 0.5).min(LONGEST);
            known.failures = known.failures.saturating_add(1);
            known.next = known.next.map(|_| now + wait);
        }
    }

    /// The network of this machine changed, or a way through a relay came up: all waits are over.
    pub(crate) fn hurry(&mut self, now: Instant) {
        for known in self.known.values_mut() {
            known.failures = 0;
            known.next = known.next.map(|next| next.min(now));
        }
    }

    /// All addresses of a device, stored ones first.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Address> {
        let Some(known) = self.known.get(peer) else {
            return Vec::new();
        };
        let heard = known.heard.iter().rev().filter(|address| !known.stored.contains(address));
        known.stored.iter().chain(heard).take(MAX_ADDRESSES).cloned().collect()
    }

    /// Devices and when each may be dialled next, the connected ones included.
    pub(crate) fn plan(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        self.known.iter().filter_map(|(peer, known)| Some((*peer, known.next?)))
    }

    /// A number in 0..1 (xorshift64: a spread, not a secret).
    fn draw(&mut self) -> f64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The wait before the next attempt: `first`, doubled by each failure before this one, up to a bound that is lower for
/// what was `lost` a moment ago.
pub(crate) fn wait_after(first: Duration, failures: u32, lost: Option<Instant>, now: Instant) -> Duration {
    first.saturating_mul(1 << failures.min(8)).min(if is_recent(lost, now) { LONGEST_SOON } else { LONGEST })
}

fn is_recent(lost: Option<Instant>, now: Instant) -> bool {
    lost.is_some_and(|lost| now.saturating_duration_since(lost) < RECENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(redial: &Redial, peer: PeerId) -> Option<Instant> {
        redial.plan().find(|(planned, _)| *planned == peer).map(|(_, next)| next)
    }

    fn address(port: u16) -> Address {
        Address::quic(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn waits_grow_to_a_bound_and_restart_on_news() {
        let (mut redial, peer, now) = (Redial::new(42), PeerId::random(), Instant::now());
        redial.set_known(peer, vec![address(1)], now);
        assert_eq!(next(&redial, peer), Some(now));
        let mut before = Duration::ZERO;
        for failures in 0..12u32 {
            redial.failed(&peer, now);
            let wait = next(&redial, peer).expect("planned") - now;
            let nominal = FIRST.saturating_mul(1 << failures.min(8)).min(LONGEST);
            assert!(wait >= nominal.mul_f64(0.75) && wait <= LONGEST, "{failures}: {wait:?}");
            assert!(wait > before || wait >= LONGEST.mul_f64(0.75));
            before = wait;
        }
        redial.set_known(peer, vec![address(1)], now);
        assert_ne!(next(&redial, peer), Some(now), "the same addresses are no news");
        redial.set_known(peer, vec![address(2)], now);
        assert_eq!(next(&redial, peer), Some(now));
        redial.failed(&peer, now);
        assert!(redial.heard(peer, &[address(3)], now));
        assert_eq!(next(&redial, peer), Some(now));
        redial.failed(&peer, now);
        assert!(!redial.heard(peer, &[address(3)], now));
        assert_ne!(next(&redial, peer), Some(now));
        redial.hurry(now);
        assert_eq!(next(&redial, peer), Some(now));
    }

    #[test]
    fn a_connection_that_ends_at_once_is_a_failure() {
        let (mut redial, peer, now) = (Redial::new(7), PeerId::random(), Instant::now());
        redial.set_known(peer, vec![address(1)], now);
        for _ in 0..10 {
            redial.lost(&peer, now, Duration::from_millis(3), Duration::ZERO, Path::Quic);
        }
        assert!(next(&redial, peer).expect("planned") - now >= LONGEST.mul_f64(0.75));
        redial.lost(&peer, now, STABLE, Duration::from_millis(1), Path::Quic);
        assert_eq!(next(&redial, peer), Some(now + Duration::from_millis(1)));
    }

    #[test]
    fn what_was_lost_a_moment_ago_is_tried_often() {
        let (mut redial, peer, now) = (Redial::new(9), PeerId::random(), Instant::now());
        redial.set_known(peer, vec![address(1)], now);
        redial.lost(&peer, now, STABLE, Duration::ZERO, Path::Relayed);
        assert!(redial.was_relayed(&peer, now + RECENT / 2) && !redial.was_relayed(&peer, now + RECENT));
        let wait = |redial: &mut Redial, at: Instant| {
            redial.failed(&peer, at);
            next(redial, peer).expect("planned") - at
        };
        for _ in 0..20 {
            assert!(wait(&mut redial, now + RECENT / 2) <= LONGEST_SOON.mul_f64(1.25));
        }
        assert!(wait(&mut redial, now + RECENT) >= LONGEST.mul_f64(0.75));
    }

    #[test]
    fn addresses_are_bounded_and_a_paused_device_is_left_alone() {
        let (mut redial, peer, now) = (Redial::new(1), PeerId::random(), Instant::now());
        for port in 1..200 {
            redial.heard(peer, &[address(port)], now);
        }
        assert_eq!(redial.addresses(&peer).len(), MAX_ADDRESSES);
        assert_eq!(redial.addresses(&peer).first(), Some(&address(199)));
        redial.pause(&peer);
        redial.failed(&peer, now);
        redial.hurry(now);
        redial.lost(&peer, now, STABLE, Duration::ZERO, Path::Quic);
        assert_eq!(next(&redial, peer), None);
        redial.set_known(peer, vec![address(1)], now);
        assert_eq!(next(&redial, peer), Some(now));
    }
}
