//! Opening the listeners: UDP and TCP at one port number.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use libp2p::Swarm;

use super::{StartError, behaviour::Behaviour, router::brief};
use crate::address::Address;

/// Free ports tried before giving up: each may be taken for the other transport.
const ATTEMPTS: usize = 32;

/// Listens on every address for QUIC and TCP.
///
/// A host without IPv6 is no reason to fail: its wildcard is left out with a warning.
pub(crate) fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[SocketAddr]) -> Result<(), StartError> {
    let usable: Vec<SocketAddr> = addresses.iter().copied().filter(|address| has_family(address.ip())).collect();
    let open: Vec<IpAddr> = usable.iter().filter(|address| address.port() == 0).map(SocketAddr::ip).collect();
    let port = free_port(&open)?;
    for mut address in usable {
        if address.port() == 0 {
            address.set_port(port);
        }
        for bound in [Address::quic(address), Address::tcp(address)] {
            swarm.listen_on(bound.bare()).map_err(|error| StartError::Listen { address, reason: brief(&error) })?;
        }
    }
    Ok(())
}

fn has_family(ip: IpAddr) -> bool {
    let usable = !(ip.is_ipv6() && ip.is_unspecified()) || UdpSocket::bind((ip, 0)).is_ok();
    if !usable {
        tracing::warn!("this host has no IPv6, listening on IPv4 only");
    }
    usable
}

/// A port that is free for UDP and TCP at each of these addresses; 0 when there are none.
fn free_port(ips: &[IpAddr]) -> Result<u16, StartError> {
    let Some(first) = ips.first() else { return Ok(0) };
    let refuse = |reason: String| StartError::Listen { address: (*first, 0).into(), reason };
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        let probe = UdpSocket::bind((*first, 0)).and_then(|socket| socket.local_addr());
        let port = probe.map_err(|error| refuse(error.to_string()))?.port();
        let taken = ips.iter().find_map(|ip| {
            let udp = UdpSocket::bind((*ip, port)).map(drop);
            udp.and_then(|()| TcpListener::bind((*ip, port)).map(drop)).err()
        });
        match taken {
            None => return Ok(port),
            Some(error) => reason = error.to_string(),
        }
    }
    Err(refuse(reason))
}
