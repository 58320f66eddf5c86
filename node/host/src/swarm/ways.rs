//! By which address of this machine each connection leaves it: with the address ends the connection, whatever its
//! transport goes on to hope for.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

/// Connections of one peer with a relay: over TCP and QUIC, and another two while it changes its network.
const NEEDED: usize = 4;

/// The connections of a node and the addresses that they leave by.
#[derive(Debug, Default)]
pub(crate) struct Ways(BTreeMap<ConnectionId, Way>);

/// The way of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    peer: PeerId,
    /// The address of this machine that it leaves by.
    source: IpAddr,
    /// Where it leads: to the peer, or to the relay before it.
    remote: SocketAddr,
}

impl Ways {
    /// A connection was made; `to` is its remote address, or the relay's.
    pub(crate) fn established(&mut self, connection: ConnectionId, peer: PeerId, to: &Multiaddr) {
        if let Some((remote, source)) = socket(to).and_then(|remote| Some((remote, source(remote)?))) {
            self.0.insert(connection, Way { peer, source, remote });
        }
    }

    /// Where a connection leads.
    pub(crate) fn remote(&self, connection: &ConnectionId) -> Option<SocketAddr> {
        self.0.get(connection).map(|way| way.remote)
    }

    /// A connection has ended.
    pub(crate) fn closed(&mut self, connection: &ConnectionId) {
        self.0.remove(connection);
    }

    /// The oldest connection of a peer that has more than it needs, as one has that moved on and left some behind.
    pub(crate) fn surplus(&self, peer: &PeerId) -> Option<ConnectionId> {
        let mut of_peer = self.0.iter().filter(|(_, way)| way.peer == *peer).map(|(connection, _)| *connection);
        // They are numbered as they come about.
        let oldest = of_peer.next();
        oldest.filter(|_| of_peer.count() >= NEEDED)
    }

    /// Takes out the connections whose address is not one of this machine any more.
    pub(crate) fn take_lost(&mut self) -> Vec<(PeerId, ConnectionId)> {
        let mut known: BTreeMap<IpAddr, bool> = BTreeMap::new();
        let mut is_own = |ip: IpAddr| *known.entry(ip).or_insert_with(|| UdpSocket::bind((ip, 0)).is_ok());
        let lost = self.0.extract_if(.., |_, way| !is_own(way.source));
        lost.map(|(connection, way)| (way.peer, connection)).collect()
    }
}

/// The first socket that an address names.
fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        // One of a link names no way without the link.
        Protocol::Ip6(ip) if !ip.is_unicast_link_local() => IpAddr::from(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The address of this machine by which the system sends to another; nothing is sent.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let any = if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let probe = UdpSocket::bind((any, 0)).ok()?;
    probe.connect(to).ok()?;
    Some(probe.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_an_address_that_is_gone_are_lost() {
        let mut ways = Ways::default();
        let (peer, numbers) = (PeerId::random(), [1, 2, 3].map(ConnectionId::new_unchecked));
        let way = |ip: Ipv4Addr, port: u16| Way { peer, source: ip.into(), remote: (ip, port).into() };
        let address = |text: &str| text.parse::<Multiaddr>().expect("an address");
        ways.established(numbers[0], peer, &address("/ip4/127.0.0.1/udp/4001/quic-v1"));
        assert_eq!(ways.0.get(&numbers[0]), Some(&way(Ipv4Addr::LOCALHOST, 4001)));
        assert_eq!(ways.remote(&numbers[0]), Some((Ipv4Addr::LOCALHOST, 4001).into()));
        ways.established(numbers[1], peer, &address("/dns4/example.org/tcp/4001"));
        ways.established(numbers[1], peer, &address("/memory/7"));
        assert_eq!(ways.0.len(), 1);
        // 192.0.2.0/24 is for documentation: it is no machine's.
        ways.0.insert(numbers[1], way([192, 0, 2, 1].into(), 1));
        ways.0.insert(numbers[2], way([192, 0, 2, 1].into(), 1));
        ways.closed(&numbers[2]);
        assert_eq!(ways.surplus(&peer), None);
        (10..13).for_each(|number| {
            ways.0.insert(ConnectionId::new_unchecked(number), way(Ipv4Addr::LOCALHOST, 1));
        });
        assert_eq!((ways.surplus(&peer), ways.surplus(&PeerId::random())), (Some(numbers[0]), None));
        assert_eq!(ways.take_lost(), [(peer, numbers[1])]);
        assert_eq!(ways.take_lost(), []);
        assert!(ways.0.contains_key(&numbers[0]));
    }
}
