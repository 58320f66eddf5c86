//! Ports that the router of this network forwards to this node, asked for by UPnP (Internet Gateway Device).

use std::collections::BTreeMap;

use libp2p::{
    Multiaddr, Swarm,
    core::transport::ListenerId,
    swarm::{FromSwarm, NetworkBehaviour, NewListenAddr, behaviour::toggle::Toggle},
    upnp,
};

use super::behaviour::Behaviour;
use crate::address::{Address, Path};

/// What is forwarded, and what is to be.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    on: bool,
    /// Addresses that this node listens at.
    listening: BTreeMap<Multiaddr, ListenerId>,
    /// Whether the behaviour has found no router, and so does nothing any more.
    given_up: bool,
    /// Addresses at the router, by those here.
    outside: BTreeMap<Multiaddr, Address>,
}

impl Forwarded {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// This node listens at one more address. The behaviour hears of that itself, but looks for a router once: where there is
    /// none that looks or has found one, a new one looks. Gives what is forwarded no more.
    pub(crate) fn listening(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        listener: ListenerId,
        address: &Multiaddr,
    ) -> Vec<Address> {
        let is_new = self.on && is_private(address) && self.listening.insert(address.clone(), listener).is_none();
        let nobody_looks = self.given_up || !swarm.behaviour().forwarding.is_enabled();
        if is_new && nobody_looks { self.look_again(swarm) } else { Vec::new() }
    }

    /// This node does not listen there any more. Gives what is forwarded no more.
    pub(crate) fn expired(&mut self, swarm: &mut Swarm<Behaviour>, address: &Multiaddr) -> Vec<Address> {
        if self.listening.remove(address).is_some() { self.look_again(swarm) } else { Vec::new() }
    }

    fn look_again(&mut self, swarm: &mut Swarm<Behaviour>) -> Vec<Address> {
        self.given_up = false;
        let mut next = upnp::tokio::Behaviour::default();
        for (address, listener) in &self.listening {
            next.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id: *listener, addr: address }));
        }
        swarm.behaviour_mut().forwarding = Toggle::from((!self.listening.is_empty()).then_some(next));
        std::mem::take(&mut self.outside).into_values().collect()
    }

    /// What the router answered: an address that leads here from now on, or one that does no more.
    pub(crate) fn on_event(&mut self, event: upnp::Event) -> Option<Result<Address, Address>> {
        match event {
            upnp::Event::NewExternalAddr { local_addr, external_addr } => {
                let address = Address::from_multiaddr(&external_addr).ok()?;
                self.outside.insert(local_addr, address.clone());
                Some(Ok(address))
            }
            upnp::Event::ExpiredExternalAddr { local_addr, .. } => self.outside.remove(&local_addr).map(Err),
            upnp::Event::GatewayNotFound | upnp::Event::NonRoutableGateway => {
                tracing::debug!(?event, "no router forwards ports");
                self.given_up = true;
                None
            }
        }
    }
}

/// Whether an address is one behind a router: of a private network, and not through a relay.
fn is_private(address: &Multiaddr) -> bool {
    let address = Address::from_multiaddr(address).ok().filter(|address| address.path() != Path::Relayed);
    let socket = address.and_then(|address| address.socket());
    matches!(socket.map(|socket| socket.ip()), Some(std::net::IpAddr::V4(ip)) if ip.is_private())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_router_forwards_is_told_once_and_taken_back() {
        let address = |text: &str| text.parse::<Multiaddr>().expect("an address");
        let local_addr = address("/ip4/192.168.1.2/tcp/4001");
        let external_addr = address("/ip4/45.64.0.11/tcp/4001");
        let mut forwarded = Forwarded::new(true);
        let new = upnp::Event::NewExternalAddr { local_addr: local_addr.clone(), external_addr: external_addr.clone() };
        let outside = Address::from_multiaddr(&external_addr).expect("an address");
        assert_eq!(forwarded.on_event(new), Some(Ok(outside.clone())));
        assert_eq!(forwarded.on_event(upnp::Event::GatewayNotFound), None);
        let expired = || upnp::Event::ExpiredExternalAddr {
            local_addr: local_addr.clone(),
            external_addr: external_addr.clone(),
        };
        assert_eq!(forwarded.on_event(expired()), Some(Err(outside)));
        assert_eq!(forwarded.on_event(expired()), None);
    }

    #[test]
    fn only_addresses_behind_a_router_are_to_be_forwarded() {
        let is = |text: &str| is_private(&text.parse().expect("an address"));
        assert!(is("/ip4/192.168.1.2/tcp/4001") && is("/ip4/10.0.0.2/udp/4001/quic-v1"));
        assert!(!is("/ip4/45.64.0.2/tcp/4001") && !is("/ip4/127.0.0.1/tcp/4001") && !is("/ip6/::1/tcp/4001"));
    }
}
