//! Who may connect: members of the allow-list, guests for a purpose of their own, relays, and for as long as a pairing
//! code lives a few strangers.

use std::collections::{BTreeSet, VecDeque};

use libp2p::{PeerId, swarm::ConnectionId};

/// Connections with devices that are not allowed, at one time. A pairing needs one; the rest lets a
/// person retry while an earlier attempt still times out.
pub(crate) const MAX_STRANGERS: usize = 4;

/// Relays that addresses of others lead through and that are passed at one time.
pub(crate) const MAX_PASSED: usize = 32;

/// What a connection may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Every protocol.
    Member,
    /// The guest protocols only, and not for long.
    Guest,
    /// The pairing protocols only, and not for long.
    Stranger,
    /// Circuits, and the relay protocols only.
    Relay,
}

/// A connection was refused at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GateError {
    #[error("device is not allowed")]
    NotAllowed,
    #[error("too many unknown devices are connected")]
    Crowded,
}

/// The allow-list and its exceptions.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    everyone: bool,
    allowed: BTreeSet<PeerId>,
    guests: BTreeSet<PeerId>,
    /// Those of this node's own list.
    relays: BTreeSet<PeerId>,
    /// Those that circuits which this node dials lead through, newest last.
    passed: VecDeque<PeerId>,
    pairing: bool,
    /// Our own dials to whoever answers at an address.
    invited: BTreeSet<ConnectionId>,
    strangers: BTreeSet<ConnectionId>,
}

impl Gate {
    /// A gate that admits everyone (a public relay) or, at first, nobody.
    pub(crate) fn new(everyone: bool) -> Self {
        Self { everyone, ..Self::default() }
    }

    pub(crate) fn is_allowed(&self, peer: &PeerId) -> bool {
        self.allowed.contains(peer)
    }

    /// Whether a peer is a relay to this node, or this node is one to everybody.
    pub(crate) fn is_relay(&self, peer: &PeerId) -> bool {
        self.everyone || self.relays.contains(peer) || self.passed.contains(peer)
    }

    pub(crate) fn set_relays(&mut self, relays: BTreeSet<PeerId>) {
        self.relays = relays;
    }

    /// A circuit through this relay is about to be dialled.
    pub(crate) fn pass(&mut self, relay: PeerId) {
        self.passed.retain(|earlier| *earlier != relay);
        self.passed.push_back(relay);
        if self.passed.len() > MAX_PASSED {
            self.passed.pop_front();
        }
    }

    pub(crate) fn set_allowed(&mut self, allowed: BTreeSet<PeerId>) {
        self.allowed = allowed;
    }

    pub(crate) fn set_guests(&mut self, guests: BTreeSet<PeerId>) {
        self.guests = guests;
    }

    /// Whether unknown devices may connect now.
    pub(crate) fn set_pairing(&mut self, open: bool) {
        self.pairing = open;
    }

    pub(crate) fn invite(&mut self, connection: ConnectionId) {
        self.invited.insert(connection);
    }

    pub(crate) fn withdraw(&mut self, connection: ConnectionId) {
        self.invited.remove(&connection);
    }

    /// What an established connection to `peer` may be used for, or why it may not be.
    pub(crate) fn admit(&self, peer: &PeerId, connection: ConnectionId) -> Result<Class, GateError> {
        if self.is_allowed(peer) {
            return Ok(Class::Member);
        }
        if self.guests.contains(peer) {
            return Ok(Class::Guest);
        }
        if self.is_relay(peer) {
            return Ok(Class::Relay);
        }
        if !self.pairing && !self.invited.contains(&connection) {
            return Err(GateError::NotAllowed);
        }
        if self.strangers.len() >= MAX_STRANGERS {
            return Err(GateError::Crowded);
        }
        Ok(Class::Stranger)
    }

    /// A connection that was admitted is up.
    pub(crate) fn entered(&mut self, peer: &PeerId, connection: ConnectionId) {
        self.invited.remove(&connection);
        if !self.is_allowed(peer) && !self.guests.contains(peer) && !self.is_relay(peer) {
            self.strangers.insert(connection);
        }
    }

    /// A connection is gone, or its peer became a member.
    pub(crate) fn left(&mut self, connection: ConnectionId) {
        self.strangers.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn a_stranger_enters_only_while_pairing_is_open_or_when_invited() {
        let (mut gate, peer) = (Gate::new(false), PeerId::random());
        assert_eq!(gate.admit(&peer, connection(1)), Err(GateError::NotAllowed));
        gate.invite(connection(1));
        assert_eq!(gate.admit(&peer, connection(1)), Ok(Class::Stranger));
        assert_eq!(gate.admit(&peer, connection(2)), Err(GateError::NotAllowed));
        gate.set_pairing(true);
        assert_eq!(gate.admit(&peer, connection(2)), Ok(Class::Stranger));
        gate.set_pairing(false);
        assert_eq!(gate.admit(&peer, connection(2)), Err(GateError::NotAllowed));
    }

    #[test]
    fn strangers_are_counted_and_members_are_not() {
        let (mut gate, member) = (Gate::new(false), PeerId::random());
        gate.set_pairing(true);
        gate.set_allowed([member].into());
        for number in 0..MAX_STRANGERS {
            let peer = PeerId::random();
            assert_eq!(gate.admit(&peer, connection(number)), Ok(Class::Stranger));
            gate.entered(&peer, connection(number));
        }
        assert_eq!(gate.admit(&PeerId::random(), connection(90)), Err(GateError::Crowded));
        assert_eq!(gate.admit(&member, connection(91)), Ok(Class::Member));
        gate.left(connection(0));
        assert_eq!(gate.admit(&PeerId::random(), connection(92)), Ok(Class::Stranger));
    }

    #[test]
    fn relays_are_admitted_for_circuits_alone_and_those_passed_are_bounded() {
        let (mut gate, relay) = (Gate::new(false), PeerId::random());
        assert_eq!(gate.admit(&relay, connection(0)), Err(GateError::NotAllowed));
        gate.set_relays([relay].into());
        assert_eq!(gate.admit(&relay, connection(0)), Ok(Class::Relay));
        let first = PeerId::random();
        gate.pass(first);
        assert_eq!(gate.admit(&first, connection(1)), Ok(Class::Relay));
        (0..MAX_PASSED).for_each(|_| gate.pass(PeerId::random()));
        assert_eq!(gate.admit(&first, connection(1)), Err(GateError::NotAllowed));
        gate.set_allowed([relay].into());
        assert_eq!(gate.admit(&relay, connection(0)), Ok(Class::Member));
    }

    #[test]
    fn guests_are_admitted_at_any_time_and_take_no_place_of_a_stranger() {
        let (mut gate, guest) = (Gate::new(false), PeerId::random());
        gate.set_guests([guest].into());
        assert_eq!(gate.admit(&PeerId::random(), connection(0)), Err(GateError::NotAllowed));
        for number in 0..=MAX_STRANGERS {
            assert_eq!(gate.admit(&guest, connection(number)), Ok(Class::Guest));
            gate.entered(&guest, connection(number));
        }
        gate.set_pairing(true);
        assert_eq!(gate.admit(&PeerId::random(), connection(91)), Ok(Class::Stranger));
        assert_eq!(gate.admit(&guest, connection(92)), Ok(Class::Guest));
        gate.set_guests(BTreeSet::new());
        gate.set_pairing(false);
        assert_eq!(gate.admit(&guest, connection(93)), Err(GateError::NotAllowed));
    }
}
