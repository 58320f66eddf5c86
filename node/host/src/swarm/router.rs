//! The policy of the network: who is connected over what, whom to dial, whom to send away.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{ConnectedPoint, transport::ListenerId},
    swarm::ConnectionId,
};
use meshwork_protocol::id::DeviceId;

use super::{
    Command, DialError, DownReason, NetworkConfig, NetworkEvent, NetworkSnapshot, OpenError, PeerSnapshot,
    behaviour::{self, Behaviour},
    choice::{Link, came_back, keeper},
    dials::{DialReply, Dials, Failed, Target},
    forwarded::Forwarded,
    outbox::Outbox,
    redial::Redial,
    relays::Relays,
    serving::Serving,
    ways::Ways,
};
use crate::address::{Address, Path, device_of, path_of, peer_of};

mod events;

pub(super) use events::brief;

/// After a loss the device with the larger id waits, so that usually only one end dials again.
const PATIENCE: Duration = Duration::from_millis(300);

/// Time between a second connection with a peer and the choice of one, in which the peer too sees both
/// up: it would otherwise take the loss of the first for the loss of us.
const PRUNE_DELAY: Duration = Duration::from_secs(1);

/// Devices of the local network that are remembered while they are not allowed.
const MAX_NEARBY: usize = 256;

/// Addresses of this node that peers reported.
const MAX_OBSERVED: usize = 16;

/// Longest text of a reason in an event, in characters: error chains of libraries are long-winded.
const MAX_REASON: usize = 300;

struct Peer {
    device: DeviceId,
    /// In the order in which they came up.
    links: Vec<Link>,
    /// How it is reached, as told last.
    path: Path,
    since: SystemTime,
    up: Instant,
    /// When to close all connections but one.
    prune_at: Option<Instant>,
    /// Why no direct connection has come about, while there is none.
    problem: Option<String>,
    /// Why this node is closing its connections, if it is.
    closing: Option<DownReason>,
}

impl Peer {
    fn is_relayed(&self) -> bool {
        self.links.iter().all(|link| link.path == Path::Relayed)
    }
}

struct Stranger {
    peer: PeerId,
    link: Link,
    until: Instant,
}

/// The state of the policy.
pub(super) struct Router {
    local: PeerId,
    device: Option<DeviceId>,
    members: BTreeMap<PeerId, Peer>,
    strangers: BTreeMap<ConnectionId, Stranger>,
    /// A connection with an unknown device ends after this time, paired or not.
    pairing_time: Duration,
    pairing_until: Option<Instant>,
    redial: Redial,
    relays: Relays,
    serving: Serving,
    forwarded: Forwarded,
    dials: Dials,
    ways: Ways,
    nearby: BTreeMap<PeerId, Vec<Address>>,
    listening: BTreeSet<Address>,
    observed: BTreeSet<Address>,
    listeners: HashSet<ListenerId>,
    stopping: bool,
    pub(super) outbox: Outbox,
}

impl Router {
    pub(super) fn new(local: PeerId, config: &NetworkConfig) -> Self {
        let public = config.relay.as_ref().map(|limits| limits.public.clone()).unwrap_or_default();
        Self {
            local,
            device: device_of(&local),
            members: BTreeMap::new(),
            strangers: BTreeMap::new(),
            pairing_time: config.pairing_time,
            pairing_until: None,
            redial: Redial::new(RandomState::new().build_hasher().finish()),
            relays: Relays::default(),
            serving: Serving::new(public),
            forwarded: Forwarded::new(config.upnp),
            dials: Dials::default(),
            ways: Ways::default(),
            nearby: BTreeMap::new(),
            listening: BTreeSet::new(),
            observed: BTreeSet::new(),
            listeners: HashSet::new(),
            stopping: false,
            outbox: Outbox::default(),
        }
    }

    /// When `on_tick` has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let redial = self.redial.plan().filter(|(peer, _)| self.wants(peer)).map(|(_, next)| next);
        let strangers = self.strangers.values().map(|stranger| stranger.until);
        let prune = self.members.values().filter_map(|member| member.prune_at);
        let relays = self.relays.next_deadline(|peer| self.dials.is_dialling(peer)).filter(|_| !self.stopping);
        redial
            .chain(relays)
            .chain(strangers)
            .chain(prune)
            .chain(self.pairing_until)
            .chain(self.dials.next_deadline())
            .min()
    }

    pub(super) fn on_tick(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        for failed in self.dials.tick(swarm, now) {
            self.dial_failed(&failed, now);
        }
        if self.pairing_until.is_some_and(|until| until <= now) {
            self.set_pairing(swarm, None);
        }
        self.prune(swarm, now);
        for (connection, stranger) in &mut self.strangers {
            if stranger.until <= now {
                stranger.until = now + self.pairing_time;
                swarm.behaviour_mut().streams.close(stranger.peer, *connection);
            }
        }
        let due: Vec<PeerId> = self.redial.plan().filter(|(_, next)| *next <= now).map(|(peer, _)| peer).collect();
        for peer in due {
            if self.wants(&peer) {
                self.redial_now(swarm, peer, now);
            }
        }
        if !self.stopping {
            self.tend_relays(swarm, now);
        }
    }

    fn tend_relays(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        for (peer, addresses) in self.relays.due(now) {
            if !self.dials.is_dialling(&peer) {
                let failed = self.dials.start(swarm, Target::Relay(peer), &addresses, None, now);
                failed.iter().for_each(|failed| self.dial_failed(failed, now));
            }
        }
        self.relays.tick(swarm, now);
    }

    fn dial_failed(&mut self, Failed { peer, error }: &Failed, now: Instant) {
        tracing::debug!(device = ?device_of(peer), error, "a dial failed");
        self.redial.failed(peer, now);
        self.relays.failed(peer, error, now);
        self.note_problem(peer, error.to_string());
    }

    /// A direct connection with a member did not come about.
    fn note_problem(&mut self, peer: &PeerId, problem: String) {
        if let Some(member) = self.members.get_mut(peer) {
            member.problem = Some(problem);
        }
    }

    pub(super) fn on_command(&mut self, swarm: &mut Swarm<Behaviour>, command: Command, now: Instant) {
        match command {
            Command::Dial { device, addresses, reply } => self.dial(swarm, device, addresses, reply, now),
            Command::DialServer { device, addresses, reply } => self.dial_server(swarm, device, &addresses, reply, now),
            Command::DialUnknown { addresses, reply } => {
                if addresses.is_empty() {
                    drop(reply.send(Err(DialError::NoAddress)));
                } else {
                    self.dials.start(swarm, Target::Unknown, &addresses, Some(reply), now);
                }
            }
            Command::Open { device, protocol, reply } => match self.connection_to(&device) {
                Some((peer, connection)) => swarm.behaviour_mut().streams.open(peer, connection, protocol, reply),
                None => drop(reply.send(Err(OpenError::NotConnected))),
            },
            Command::SetAllowed(devices) => self.set_allowed(swarm, &devices, now),
            Command::SetGuests(keys) => {
                swarm.behaviour_mut().streams.gate.set_guests(keys.iter().filter_map(peer_of).collect());
            }
            Command::SetKnown(device, addresses) => {
                if let Some(peer) = peer_of(&device).filter(|peer| *peer != self.local) {
                    self.redial.set_known(peer, addresses, now);
                }
            }
            Command::OpenPairing { until } => self.set_pairing(swarm, Some(until)),
            Command::ClosePairing => self.set_pairing(swarm, None),
            Command::SetMdns(on) => {
                let discovery = if on { behaviour::discovery(self.local) } else { None.into() };
                swarm.behaviour_mut().mdns = discovery;
            }
            Command::SetRelays(list) => {
                let gone = self.relays.set(swarm, list, now);
                gone.into_iter().for_each(|address| self.unreachable(address));
            }
            Command::Reserve(relay) => self.relays.reserve(swarm, relay, now),
            Command::Disconnect(device) => {
                if let Some(peer) = peer_of(&device) {
                    self.redial.pause(&peer);
                    self.send_away(swarm, &peer, DownReason::Closed);
                }
            }
            Command::Snapshot(reply) => drop(reply.send(self.snapshot(swarm))),
            // The task itself ends on it.
            Command::Shutdown(_) => {}
        }
    }

    /// UDP sockets that this node holds.
    pub(super) fn udp_sockets(&self) -> Vec<SocketAddr> {
        let udp = self.listening.iter().filter(|address| address.path() == Path::Quic);
        udp.filter_map(Address::socket).collect()
    }

    /// Closes everything; what remains is to poll the swarm until its connections are gone.
    pub(super) fn stop(&mut self, swarm: &mut Swarm<Behaviour>) {
        self.stopping = true;
        for listener in std::mem::take(&mut self.listeners) {
            swarm.remove_listener(listener);
        }
        self.dials.clear();
        let peers: Vec<PeerId> = swarm.connected_peers().copied().collect();
        for peer in peers {
            if let Some(member) = self.members.get_mut(&peer) {
                member.closing = Some(DownReason::Closed);
            }
            // The peer was connected a line ago; if it no longer is, the aim is reached.
            let _ = swarm.disconnect_peer_id(peer);
        }
    }

    /// Whether a device is to be dialled: it is not connected, or through a relay only.
    fn wants(&self, peer: &PeerId) -> bool {
        let is_direct = self.members.get(peer).is_some_and(|member| !member.is_relayed());
        !self.stopping && !is_direct && !self.dials.is_dialling(peer)
    }

    fn redial_now(&mut self, swarm: &mut Swarm<Behaviour>, peer: PeerId, now: Instant) {
        if !swarm.behaviour().streams.gate.is_allowed(&peer) {
            self.redial.forget(&peer);
            return;
        }
        let mut addresses = self.redial.addresses(&peer);
        let target = if self.members.contains_key(&peer) {
            addresses.retain(|address| address.path() != Path::Relayed);
            Target::Upgrade(peer)
        } else {
            self.add_circuits(&mut addresses);
            if self.redial.was_relayed(&peer, now) { Target::Relayed(peer) } else { Target::Device(peer) }
        };
        if addresses.is_empty() {
            self.redial.pause(&peer);
        } else {
            let failed = self.dials.start(swarm, target, &addresses, None, now);
            failed.iter().for_each(|failed| self.dial_failed(failed, now));
        }
    }

    /// One way through each relay that either of the two knows: the one that this node has, where it has one.
    fn add_circuits(&self, addresses: &mut Vec<Address>) {
        let mut relays: BTreeSet<DeviceId> = BTreeSet::new();
        let circuits: Vec<Address> = self.relays.circuits().collect();
        relays.extend(circuits.iter().filter_map(Address::relay));
        addresses.retain(|address| address.relay().is_none_or(|relay| relays.insert(relay)));
        addresses.extend(circuits);
    }

    /// This node cannot be reached there any more.
    fn unreachable(&mut self, address: Address) {
        if self.listening.remove(&address) {
            self.outbox.push(NetworkEvent::NotListening { address });
        }
    }

    fn reachable(&mut self, address: Address) {
        if self.listening.insert(address.clone()) {
            self.outbox.push(NetworkEvent::Listening { address });
        }
    }

    fn dial(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        device: DeviceId,
        addresses: Vec<Address>,
        reply: DialReply,
        now: Instant,
    ) {
        let peer = peer_of(&device);
        let refusal = match peer {
            _ if Some(device) == self.device => Some(DialError::Own),
            Some(peer) if swarm.behaviour().streams.gate.is_allowed(&peer) => None,
            _ => Some(DialError::NotAllowed),
        };
        if let Some(refusal) = refusal {
            drop(reply.send(Err(refusal)));
            return;
        }
        let Some(peer) = peer else { return };
        if self.members.contains_key(&peer) {
            drop(reply.send(Ok(device)));
            return;
        }
        let known = self.redial.addresses(&peer);
        let mut all = addresses;
        all.extend(known.into_iter().filter(|address| !all.contains(address)).collect::<Vec<_>>());
        self.add_circuits(&mut all);
        if all.is_empty() {
            drop(reply.send(Err(DialError::NoAddress)));
        } else {
            self.dials.start(swarm, Target::Device(peer), &all, Some(reply), now);
        }
    }

    fn dial_server(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        device: DeviceId,
        addresses: &[Address],
        reply: DialReply,
        now: Instant,
    ) {
        let Some(peer) = peer_of(&device).filter(|peer| *peer != self.local) else {
            return drop(reply.send(Err(DialError::Own)));
        };
        if self.connection_to(&device).is_some() {
            return drop(reply.send(Ok(device)));
        }
        if addresses.is_empty() {
            return drop(reply.send(Err(DialError::NoAddress)));
        }
        swarm.behaviour_mut().streams.gate.pass(peer);
        self.dials.start(swarm, Target::Device(peer), addresses, Some(reply), now);
    }

    fn connection_to(&self, device: &DeviceId) -> Option<(PeerId, ConnectionId)> {
        let peer = peer_of(device)?;
        let stranger = || self.strangers.values().find(|stranger| stranger.peer == peer).map(|stranger| &stranger.link);
        let link = self.members.get(&peer).and_then(|member| keeper(&member.links)).or_else(stranger);
        let connection = link.map(|link| link.connection).or_else(|| self.relays.connection(&peer))?;
        Some((peer, connection))
    }

    fn set_pairing(&mut self, swarm: &mut Swarm<Behaviour>, until: Option<Instant>) {
        self.pairing_until = until;
        swarm.behaviour_mut().streams.gate.set_pairing(until.is_some());
    }

    fn set_allowed(&mut self, swarm: &mut Swarm<Behaviour>, devices: &BTreeSet<DeviceId>, now: Instant) {
        let allowed: BTreeSet<PeerId> = devices.iter().filter_map(peer_of).collect();
        swarm.behaviour_mut().streams.gate.set_allowed(allowed);
        let gate = &swarm.behaviour().streams.gate;
        let removed: Vec<PeerId> = self.members.keys().filter(|peer| !gate.is_allowed(peer)).copied().collect();
        let promoted = self.strangers.extract_if(.., |_, stranger| gate.is_allowed(&stranger.peer));
        let promoted: Vec<(ConnectionId, Stranger)> = promoted.collect();
        for (peer, addresses) in &self.nearby {
            if gate.is_allowed(peer) {
                self.redial.heard(*peer, addresses, now);
            }
        }
        for peer in removed {
            self.redial.forget(&peer);
            self.send_away(swarm, &peer, DownReason::Removed);
        }
        for (connection, stranger) in promoted {
            swarm.behaviour_mut().streams.promote(stranger.peer, connection);
            self.enter(swarm, stranger.peer, stranger.link);
        }
    }

    /// A connection of a member is up.
    fn enter(&mut self, swarm: &mut Swarm<Behaviour>, peer: PeerId, link: Link) {
        let Some(device) = device_of(&peer) else { return };
        if !self.members.contains_key(&peer) {
            self.outbox.push(NetworkEvent::PeerUp { device, path: link.path });
        }
        let since = SystemTime::now();
        let member = self.members.entry(peer).or_insert_with(|| Peer {
            device,
            links: Vec::new(),
            path: link.path,
            since,
            up: link.since,
            prune_at: None,
            problem: None,
            closing: None,
        });
        let since = link.since;
        member.links.push(link);
        if came_back(&member.links) {
            // The peer has none of these any more, whoever closes what is left of them.
            let before = member.links.len() - 1;
            for lost in member.links.drain(..before) {
                swarm.behaviour_mut().streams.close(peer, lost.connection);
            }
        }
        if member.links.len() > 1 && self.device.is_some_and(|own| own < device) {
            member.prune_at = Some(since + PRUNE_DELAY);
        }
        member.closing = None;
        self.tell_path(&peer);
    }

    fn tell_path(&mut self, peer: &PeerId) {
        let Some(member) = self.members.get_mut(peer) else { return };
        if let Some(link) = keeper(&member.links).filter(|link| link.path != member.path) {
            member.path = link.path;
            self.outbox.push(NetworkEvent::PathChanged { device: member.device, path: link.path });
        }
    }

    /// Closes all connections of a peer but the one that stays.
    fn prune(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        for (peer, member) in &mut self.members {
            if member.prune_at.is_none_or(|at| at > now) {
                continue;
            }
            member.prune_at = None;
            let kept = keeper(&member.links).map(|link| link.connection);
            for surplus in member.links.iter().filter(|link| Some(link.connection) != kept) {
                swarm.behaviour_mut().streams.close(*peer, surplus.connection);
            }
        }
    }

    fn send_away(&mut self, swarm: &mut Swarm<Behaviour>, peer: &PeerId, reason: DownReason) {
        let Some(member) = self.members.get_mut(peer) else {
            return;
        };
        member.closing = Some(reason);
        for link in &member.links {
            swarm.behaviour_mut().streams.close(*peer, link.connection);
        }
    }

    fn snapshot(&self, swarm: &Swarm<Behaviour>) -> NetworkSnapshot {
        let peers = self.members.iter().filter_map(|(peer, member)| {
            let (received, sent) = swarm.behaviour().streams.bytes(peer);
            let link = keeper(&member.links)?;
            Some(PeerSnapshot {
                device: member.device,
                path: link.path,
                address: link.address.to_string(),
                connections: member.links.len(),
                since: member.since,
                received,
                sent,
                problem: member.problem.clone().filter(|_| link.path == Path::Relayed),
            })
        });
        let mut peers: Vec<PeerSnapshot> = peers.collect();
        peers.sort_by_key(|peer| peer.device);
        let observed = self.observed.iter().filter(|address| !self.listening.contains(address));
        NetworkSnapshot {
            peers,
            strangers: self.strangers.len(),
            pending: usize::try_from(swarm.network_info().connection_counters().num_pending()).unwrap_or(usize::MAX),
            pairing: self.pairing_until.is_some(),
            addresses: self.listening.iter().chain(observed).cloned().collect(),
            relays: self.relays.snapshot(),
            serving: self.serving.snapshot(),
            dropped_events: self.outbox.dropped(),
        }
    }
}
