//! What the swarm reports, and what follows from it.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use libp2p::{
    identify, mdns,
    swarm::{FromSwarm, ListenError, NetworkBehaviour, NewExternalAddrCandidate, SwarmEvent},
};

use super::{
    Address, Behaviour, ConnectedPoint, ConnectionId, DeviceId, DownReason, Link, MAX_NEARBY, MAX_OBSERVED, MAX_REASON,
    Multiaddr, NetworkEvent, PATIENCE, Path, PeerId, Router, Stranger, Swarm, device_of, path_of,
};
use crate::swarm::{
    behaviour::{BehaviourEvent, FAMILY},
    gate::GateError,
    redial::MAX_ADDRESSES,
};

impl Router {
    pub(in crate::swarm) fn on_event(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        event: SwarmEvent<BehaviourEvent>,
        now: Instant,
    ) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(swarm, peer_id, connection_id, &endpoint, now);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let device = device_of(&peer_id);
                tracing::debug!(
                    ?device,
                    ?connection_id,
                    cause = cause.as_ref().map(|error| brief(error)),
                    "a connection has ended"
                );
                self.ways.closed(&connection_id);
                let lost = cause.map(|error| brief(&error));
                self.closed(swarm, (peer_id, connection_id), lost, now);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                for failed in self.dials.failed(swarm, connection_id, brief(&error), now) {
                    self.dial_failed(&failed, now);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                self.refused(&send_back_addr, &error, peer_id);
            }
            SwarmEvent::NewListenAddr { address, listener_id } => {
                self.listeners.insert(listener_id);
                self.serving.listening(swarm, &address);
                match self.relays.listening(listener_id, now) {
                    Some(address) => {
                        self.reachable(address);
                        // A relay that was away takes both ends back, each at its own time: the later one finds the other there.
                        self.redial.hurry(now);
                    }
                    None => {
                        let gone = self.forwarded.listening(swarm, listener_id, &address);
                        gone.into_iter().for_each(|address| self.unreachable(address));
                        self.listening(swarm, &address, now);
                    }
                }
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.expired(swarm, &address, now),
            SwarmEvent::ListenerClosed { addresses, listener_id, reason } => {
                self.listeners.remove(&listener_id);
                let problem = reason.err().map(|error| brief(&error));
                match self.relays.unlistened(listener_id, problem, now) {
                    Some(address) => self.unreachable(address),
                    None => addresses.iter().for_each(|address| self.expired(swarm, address, now)),
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "listener"),
            SwarmEvent::NewExternalAddrCandidate { address } => {
                self.observed(&address);
            }
            SwarmEvent::Behaviour(event) => self.on_behaviour(swarm, event, now),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, swarm: &mut Swarm<Behaviour>, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Streams(inbound) => {
                let Some(device) = device_of(&inbound.peer) else { return };
                let (from, protocol, stream) =
                    (self.ways.remote(&inbound.connection), inbound.protocol, inbound.stream);
                self.outbox.push(NetworkEvent::Stream { device, from, protocol, stream });
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, connection_id }) => {
                if info.protocol_version != FAMILY {
                    swarm.behaviour_mut().streams.close(peer_id, connection_id);
                } else if swarm.behaviour().streams.gate.is_relay(&peer_id) {
                    self.seen(swarm, &info.observed_addr);
                    if let Some(relay) = self.relays.identified(swarm, &peer_id, now) {
                        self.outbox.push(NetworkEvent::RelayUp { relay });
                    }
                } else if swarm.behaviour().streams.gate.is_allowed(&peer_id) {
                    self.told(peer_id, &info.listen_addrs, now);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.found(swarm, peer, &address, now);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => {
                for (peer, address) in gone {
                    self.vanished(&peer, &address);
                }
            }
            BehaviourEvent::Identify(_) => {}
            BehaviourEvent::Relayed(event) => tracing::debug!(?event, "circuit"),
            BehaviourEvent::Upgrade(event) => {
                let device = device_of(&event.remote_peer_id);
                match event.result {
                    Ok(_) => tracing::debug!(?device, "direct connection made out of a relayed one"),
                    Err(error) => {
                        tracing::debug!(?device, %error, "no direct connection");
                        self.note_problem(&event.remote_peer_id, brief(&error));
                    }
                }
            }
            BehaviourEvent::Forwarding(event) => match self.forwarded.on_event(event) {
                Some(Ok(address)) => self.reachable(address),
                Some(Err(address)) => self.unreachable(address),
                None => {}
            },
            BehaviourEvent::Serving(event) => self.serving.on_event(event),
            BehaviourEvent::Limits(never) => match never {},
        }
    }

    fn established(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        now: Instant,
    ) {
        self.dials.established(swarm, connection, &peer);
        let address = match endpoint {
            // Of who calls through a relay only the relay is seen.
            ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => local_addr.clone(),
            _ => endpoint.get_remote_address().clone(),
        };
        self.ways.established(connection, peer, &address);
        let (path, dialled) = (path_of(&address), endpoint.is_dialer());
        let link = Link { connection, address, path, dialled, since: now };
        if self.stopping || device_of(&peer).is_none() {
            swarm.behaviour_mut().streams.close(peer, connection);
        } else if swarm.behaviour().streams.gate.is_allowed(&peer) {
            self.enter(swarm, peer, link);
        } else if swarm.behaviour().streams.gate.is_relay(&peer) {
            // To a relay itself everybody is one: those who come are none of its own.
            if link.dialled {
                self.relays.established(swarm, &peer, connection, &link.address);
            } else if let Some(surplus) = self.ways.surplus(&peer) {
                swarm.behaviour_mut().streams.close(peer, surplus);
            }
        } else {
            let until = now + self.pairing_time;
            self.strangers.insert(connection, Stranger { peer, link, until });
        }
    }

    /// A connection has ended; `lost` says how, where nobody closed it.
    fn closed(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        (peer, connection): (PeerId, ConnectionId),
        lost: Option<String>,
        now: Instant,
    ) {
        if let Some(address) = self.relays.closed(swarm, connection, now) {
            self.unreachable(address);
        }
        self.strangers.remove(&connection);
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member.links.retain(|link| link.connection != connection);
        if !member.links.is_empty() {
            return self.tell_path(&peer);
        }
        let (device, closing, path) = (member.device, member.closing.take(), member.path);
        let lived = now.saturating_duration_since(member.up);
        self.members.remove(&peer);
        let reason = closing.unwrap_or_else(|| lost.map_or(DownReason::Closed, DownReason::Lost));
        let patience = if self.device.is_some_and(|own| own > device) { PATIENCE } else { Duration::ZERO };
        self.redial.lost(&peer, now, lived, patience, path);
        self.outbox.push(NetworkEvent::PeerDown { device, reason });
    }

    fn refused(&mut self, address: &Multiaddr, error: &ListenError, peer: Option<PeerId>) {
        let ListenError::Denied { cause } = error else {
            tracing::debug!(%address, error = brief(error), "inbound connection failed");
            return;
        };
        let device: Option<DeviceId> = peer.as_ref().and_then(device_of);
        let reason = match cause.downcast_ref::<GateError>() {
            Some(refusal) => refusal.to_string(),
            None => brief(cause),
        };
        self.outbox.push(NetworkEvent::Refused { device, address: address.to_string(), reason });
    }

    fn listening(&mut self, swarm: &mut Swarm<Behaviour>, address: &Multiaddr, now: Instant) {
        let Ok(address) = Address::from_multiaddr(address) else {
            return;
        };
        // Circuits are named by where this node reaches the relay, not by what that says of itself.
        if address.path() == Path::Relayed {
            return;
        }
        self.reachable(address);
        self.moved(swarm, now);
    }

    /// A peer saw this node at an address.
    fn observed(&mut self, address: &Multiaddr) {
        let address = Address::from_multiaddr(address).ok().filter(|address| address.path() != Path::Relayed);
        if let Some(address) = address.filter(|_| self.observed.len() < MAX_OBSERVED) {
            self.observed.insert(address);
        }
    }

    /// A relay saw this node at an address, from its listening port: as the network maps that, whatever the number, others
    /// may reach it when both dial at once. Identify itself puts the listening port in the place of one that was mapped.
    fn seen(&mut self, swarm: &mut Swarm<Behaviour>, address: &Multiaddr) {
        self.observed(address);
        let candidate = FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: address });
        swarm.behaviour_mut().upgrade.on_swarm_event(candidate);
    }

    fn expired(&mut self, swarm: &mut Swarm<Behaviour>, address: &Multiaddr, now: Instant) {
        let Ok(address) = Address::from_multiaddr(address) else {
            return;
        };
        if address.path() == Path::Relayed {
            return;
        }
        let gone = self.forwarded.expired(swarm, address.multiaddr());
        gone.into_iter().for_each(|address| self.unreachable(address));
        // What peers saw belonged to the old network.
        self.observed.clear();
        self.unreachable(address);
        self.moved(swarm, now);
    }

    /// This machine is elsewhere. Connections that left it by an address that it has no more are lost: their transports
    /// would wait for half a minute. Whoever is to be connected is dialled at once.
    fn moved(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        for (peer, connection) in self.ways.take_lost() {
            let device = device_of(&peer);
            tracing::debug!(?device, ?connection, "a connection is given up with the address that it left by");
            swarm.behaviour_mut().streams.close(peer, connection);
            self.closed(swarm, (peer, connection), Some("this machine has another address".to_owned()), now);
        }
        self.redial.hurry(now);
        self.relays.hurry(now);
    }

    /// A member told where it listens.
    fn told(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        let Some(device) = device_of(&peer) else { return };
        let is_loopback = |address: &Address| address.socket().is_some_and(|socket| socket.ip().is_loopback());
        let links = self.members.get(&peer).into_iter().flat_map(|member| &member.links);
        let mut met = links.filter_map(|link| Address::from_multiaddr(&link.address).ok());
        // On another machine that would be this one.
        let is_here = met.any(|address| is_loopback(&address));
        let usable = addresses.iter().filter_map(|address| Address::from_multiaddr(address).ok());
        let addresses: Vec<Address> =
            usable.filter(|address| is_here || !is_loopback(address)).take(MAX_ADDRESSES).collect();
        self.redial.heard(peer, &addresses, now);
        self.outbox.push(NetworkEvent::Discovered { device, addresses });
    }

    fn found(&mut self, swarm: &Swarm<Behaviour>, peer: PeerId, address: &Multiaddr, now: Instant) {
        let (Some(device), Ok(address)) = (device_of(&peer), Address::from_multiaddr(address)) else {
            return;
        };
        let address: Address = address.without_device();
        if self.nearby.len() >= MAX_NEARBY && !self.nearby.contains_key(&peer) {
            return;
        }
        let known = self.nearby.entry(peer).or_default();
        if known.len() < MAX_ADDRESSES && !known.contains(&address) {
            known.push(address.clone());
        }
        if swarm.behaviour().streams.gate.is_allowed(&peer) {
            self.redial.heard(peer, std::slice::from_ref(&address), now);
        }
        self.outbox.push(NetworkEvent::Discovered { device, addresses: vec![address] });
    }

    fn vanished(&mut self, peer: &PeerId, address: &Multiaddr) {
        let Ok(address) = Address::from_multiaddr(address) else {
            return;
        };
        let address = address.without_device();
        if let Some(known) = self.nearby.get_mut(peer) {
            known.retain(|old| *old != address);
            if known.is_empty() {
                self.nearby.remove(peer);
            }
        }
    }
}

/// The text of an error and its causes, cut to a bearable length.
pub(in crate::swarm) fn brief(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.chars().take(MAX_REASON).collect()
}
