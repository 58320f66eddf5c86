//! The relays of this node: connections to the first two of its list that can be reached, and a reservation at each, made
//! again as soon as it is lost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use meshwork_protocol::id::DeviceId;

use super::{
    RelaySnapshot, RelayState,
    behaviour::Behaviour,
    redial::{STABLE, wait_after},
    router::brief,
};
use crate::address::{Address, Path, peer_of};

/// Relays at which this node has a reservation at one time.
const RESERVATIONS: usize = 2;

/// Relays that a device is tried through at one time.
const TRIED: usize = 4;

/// Relays of a list that are taken.
pub(crate) const MAX_RELAYS: usize = 16;

/// Addresses of one relay that are taken.
const MAX_ADDRESSES: usize = 8;

/// How many attempts go over TCP alone, and one over everything.
const OTHERS_EVERY: u32 = 3;

/// Wait after the first failure; doubled by each further one.
const FIRST: Duration = Duration::from_millis(250);

/// A relay, as it stands now.
#[derive(Debug)]
struct Relay {
    device: DeviceId,
    peer: PeerId,
    /// They name the relay.
    addresses: Vec<Address>,
    /// In the order in which they came up: circuits take the first.
    links: Vec<(ConnectionId, Address)>,
    reserving: Option<ListenerId>,
    /// Since when others reach this node through it, and where.
    reserved: Option<(Instant, Address)>,
    failures: u32,
    next: Instant,
    /// When a stable reservation was lost last.
    lost: Option<Instant>,
    problem: Option<String>,
}

/// All relays of the list, best first.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    list: Vec<Relay>,
    /// Connections to relays of others that circuits lead through: one of these may come to the list.
    passed: BTreeMap<ConnectionId, (PeerId, Address)>,
}

impl Relay {
    fn new(device: DeviceId, peer: PeerId, now: Instant) -> Self {
        Self {
            device,
            peer,
            addresses: Vec::new(),
            links: Vec::new(),
            reserving: None,
            reserved: None,
            failures: 0,
            next: now,
            lost: None,
            problem: None,
        }
    }

    /// Where circuits through it begin: others may have no UDP, so over TCP, however this node reaches it.
    fn circuit(&self) -> Option<Address> {
        let reached = self.links.first().map(|(_, address)| address).filter(|address| address.path() == Path::Tcp);
        reached.and_then(Address::circuit).or_else(|| Address::circuit_by(&self.addresses))
    }

    /// Whether it was met over QUIC alone, and is to be met over TCP: that address came later.
    fn is_ill_met(&self) -> bool {
        let by_tcp = self.to_dial().iter().all(|address| address.path() == Path::Tcp);
        by_tcp && self.links.first().is_some_and(|(_, address)| address.path() == Path::Quic)
    }

    /// Over TCP, where the kernel tells at once when a relay dies; now and then over what else there is, for a network that
    /// lets no TCP through. Not at once: a relay that comes back would be met over QUIC, which keeps asking.
    fn to_dial(&self) -> Vec<Address> {
        let others = self.failures % OTHERS_EVERY == OTHERS_EVERY - 1;
        let tcp: Vec<Address> =
            self.addresses.iter().filter(|address| address.path() == Path::Tcp && !others).cloned().collect();
        if tcp.is_empty() { self.addresses.clone() } else { tcp }
    }

    /// All waits are over.
    fn hurry(&mut self, now: Instant) {
        (self.failures, self.next) = (0, self.next.min(now));
    }

    fn failed(&mut self, now: Instant) {
        self.next = now + wait_after(FIRST, self.failures, self.lost, now);
        self.failures = self.failures.saturating_add(1);
    }

    /// The reservation is gone. One that ended at once counts as a failed attempt.
    fn lost(&mut self, now: Instant) -> Option<Address> {
        self.reserving = None;
        let (since, told) = self.reserved.take().unzip();
        if since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            (self.failures, self.next, self.lost) = (0, now, Some(now));
        } else {
            self.failed(now);
        }
        told
    }
}

impl Relays {
    /// Replaces the list. Gives the addresses at which this node can be reached no more.
    pub(crate) fn set(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        list: Vec<(DeviceId, Vec<Address>)>,
        now: Instant,
    ) -> Vec<Address> {
        let mut before = std::mem::take(&mut self.list);
        for (device, addresses) in list.into_iter().take(MAX_RELAYS) {
            let Some(peer) = peer_of(&device) else { continue };
            let known = before.iter().position(|relay| relay.peer == peer).map(|at| before.remove(at));
            let mut relay = known.unwrap_or_else(|| Relay::new(device, peer, now));
            let passed = self.passed.extract_if(.., |_, (passed, _)| *passed == peer);
            relay.links.extend(passed.map(|(connection, (_, address))| (connection, address.with_device(&device))));
            let direct = addresses.iter().filter(|address| address.path() != Path::Relayed);
            let addresses: Vec<Address> =
                direct.map(|address| address.with_device(&device)).take(MAX_ADDRESSES).collect();
            if relay.addresses != addresses {
                (relay.addresses, relay.failures, relay.next) = (addresses, 0, now);
            }
            if relay.is_ill_met() {
                relay.links.iter().for_each(|(link, _)| swarm.behaviour_mut().streams.close(peer, *link));
            }
            self.list.push(relay);
        }
        swarm.behaviour_mut().streams.gate.set_relays(self.list.iter().map(|relay| relay.peer).collect());
        let mut gone = Vec::new();
        for mut relay in before {
            gone.extend(relay.reserved.take().map(|(_, told)| told));
            if let Some(listener) = relay.reserving.take() {
                swarm.remove_listener(listener);
            }
            for (connection, _) in relay.links {
                swarm.behaviour_mut().streams.close(relay.peer, connection);
            }
        }
        gone
    }

    /// Ways to a device through the relays of the list, best first.
    pub(crate) fn circuits(&self) -> impl Iterator<Item = Address> {
        self.list.iter().filter_map(Relay::circuit).take(TRIED)
    }

    /// A connection with a relay, of the list or not.
    pub(crate) fn connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        let listed = self.list.iter().find(|relay| relay.peer == *peer).and_then(|relay| relay.links.first());
        let passed = || self.passed.iter().find(|(_, (relay, _))| relay == peer).map(|(connection, _)| *connection);
        listed.map(|(connection, _)| *connection).or_else(passed)
    }

    /// The relays to be dialled now, with their addresses.
    pub(crate) fn due(&self, now: Instant) -> Vec<(PeerId, Vec<Address>)> {
        let idle = self.list.iter().filter(|relay| relay.links.is_empty() && relay.next <= now);
        idle.take(self.lacking()).map(|relay| (relay.peer, relay.to_dial())).collect()
    }

    fn lacking(&self) -> usize {
        RESERVATIONS.saturating_sub(self.list.iter().filter(|relay| !relay.links.is_empty()).count())
    }

    pub(crate) fn next_deadline(&self, is_dialling: impl Fn(&PeerId) -> bool) -> Option<Instant> {
        let idle = self.list.iter().filter(|relay| relay.links.is_empty() && !is_dialling(&relay.peer));
        let reserve = self.list.iter().filter(|relay| !relay.links.is_empty() && relay.reserving.is_none());
        let idle = idle.filter(|_| self.lacking() > 0);
        idle.chain(reserve).map(|relay| relay.next).min()
    }

    /// The network of this machine changed: all waits are over.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.list.iter_mut().for_each(|relay| relay.hurry(now));
    }

    pub(crate) fn failed(&mut self, peer: &PeerId, problem: &str, now: Instant) {
        if let Some(relay) = self.by_peer(peer) {
            relay.problem = Some(problem.to_owned());
            relay.failed(now);
        }
    }

    /// A connection that this node has dialled to a relay is up.
    pub(crate) fn established(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: &PeerId,
        connection: ConnectionId,
        address: &Multiaddr,
    ) {
        let Ok(address) = Address::from_multiaddr(address) else { return };
        let Some(relay) = self.list.iter_mut().find(|relay| relay.peer == *peer) else {
            if !self.passed.values().any(|(relay, _)| relay == peer) {
                show_udp(swarm, peer, &address, &[]);
            }
            self.passed.insert(connection, (*peer, address));
            return;
        };
        let address = address.with_device(&relay.device);
        if relay.links.is_empty() {
            show_udp(swarm, peer, &address, &relay.addresses);
        }
        relay.links.push((connection, address));
        if relay.is_ill_met() {
            swarm.behaviour_mut().streams.close(*peer, connection);
        }
    }

    /// A relay has told how it sees this node: from now on a device that calls through it can be told, too. Gives the
    /// relay if it is one of the list.
    pub(crate) fn identified(&mut self, swarm: &mut Swarm<Behaviour>, peer: &PeerId, now: Instant) -> Option<DeviceId> {
        let relay = self.by_peer(peer)?;
        if relay.reserving.is_none() && relay.next <= now {
            reserve(swarm, relay, now);
        }
        Some(relay.device)
    }

    /// Asks a relay for a place at once, whatever it said before.
    pub(crate) fn reserve(&mut self, swarm: &mut Swarm<Behaviour>, device: DeviceId, now: Instant) {
        if let Some(relay) = self.list.iter_mut().find(|relay| relay.device == device) {
            relay.hurry(now);
            self.tick(swarm, now);
        }
    }

    /// Asks again for reservations that were refused or lost while the connection stayed.
    pub(crate) fn tick(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        let due = |relay: &&mut Relay| !relay.links.is_empty() && relay.reserving.is_none() && relay.next <= now;
        for relay in self.list.iter_mut().filter(due) {
            reserve(swarm, relay, now);
        }
    }

    /// A reservation was made, if this listener is one: where this node can be reached by it.
    pub(crate) fn listening(&mut self, listener: ListenerId, now: Instant) -> Option<Address> {
        let relay = self.by_listener(listener).filter(|relay| relay.reserved.is_none())?;
        let circuit = relay.circuit()?;
        (relay.reserved, relay.problem) = (Some((now, circuit.clone())), None);
        Some(circuit)
    }

    /// A reservation was refused or lost: where this node can be reached no more.
    pub(crate) fn unlistened(
        &mut self,
        listener: ListenerId,
        problem: Option<String>,
        now: Instant,
    ) -> Option<Address> {
        let relay = self.by_listener(listener)?;
        relay.problem = problem.or(relay.problem.take());
        relay.lost(now)
    }

    /// A connection is gone, and with the first to a relay the reservation.
    pub(crate) fn closed(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        connection: ConnectionId,
        now: Instant,
    ) -> Option<Address> {
        self.passed.remove(&connection);
        let relay = self.list.iter_mut().find(|relay| relay.links.iter().any(|(link, _)| *link == connection))?;
        let carried = relay.links.first().is_some_and(|(link, _)| *link == connection);
        let gone = if carried {
            if let Some(listener) = relay.reserving {
                swarm.remove_listener(listener);
            }
            let gone = relay.lost(now);
            // Those beside it served to look; a relay that comes back is dialled in order again.
            for (beside, _) in relay.links.iter().filter(|(link, _)| *link != connection) {
                swarm.behaviour_mut().streams.close(relay.peer, *beside);
            }
            gone
        } else {
            None
        };
        relay.links.retain(|(link, _)| *link != connection);
        gone
    }

    pub(crate) fn snapshot(&self) -> Vec<RelaySnapshot> {
        let state = |relay: &Relay| match (&relay.reserved, relay.links.is_empty()) {
            (Some(_), _) => RelayState::Reserved,
            (None, false) => RelayState::Connected,
            (None, true) => RelayState::Away,
        };
        let snapshot = |relay: &Relay| RelaySnapshot {
            relay: relay.device,
            address: relay.links.first().map(|(_, address)| address).or(relay.addresses.first()).cloned(),
            state: state(relay),
            problem: relay.problem.clone(),
        };
        self.list.iter().map(snapshot).collect()
    }

    fn by_peer(&mut self, peer: &PeerId) -> Option<&mut Relay> {
        self.list.iter_mut().find(|relay| relay.peer == *peer)
    }

    fn by_listener(&mut self, listener: ListenerId) -> Option<&mut Relay> {
        self.list.iter_mut().find(|relay| relay.reserving == Some(listener))
    }
}

/// A connection over TCP is joined by one over QUIC, for the relay to see this node's UDP port. A relay has both at one
/// port unless it says otherwise.
fn show_udp(swarm: &mut Swarm<Behaviour>, peer: &PeerId, met: &Address, known: &[Address]) {
    let Some(socket) = met.socket().filter(|_| met.path() == Path::Tcp) else { return };
    let mut quic: Vec<Address> = known.iter().filter(|address| address.path() == Path::Quic).cloned().collect();
    if quic.is_empty() {
        quic.push(Address::quic(socket));
    }
    let addresses = quic.iter().map(|address| address.multiaddr().clone()).collect();
    let options = DialOpts::peer_id(*peer).condition(PeerCondition::Always).addresses(addresses).build();
    if let Err(error) = swarm.dial(options) {
        tracing::debug!(%error, "a relay is not dialled over QUIC");
    }
}

fn reserve(swarm: &mut Swarm<Behaviour>, relay: &mut Relay, now: Instant) {
    let Some(circuit) = relay.circuit() else { return };
    match swarm.listen_on(circuit.multiaddr().clone()) {
        Ok(listener) => relay.reserving = Some(listener),
        Err(error) => {
            relay.problem = Some(brief(&error));
            relay.failed(now);
        }
    }
}
