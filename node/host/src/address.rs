//! Where a device can be reached: a transport, an IP address or DNS-free host, and a port.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use libp2p::{
    Multiaddr, PeerId,
    identity::{PublicKey, ed25519},
    multiaddr::Protocol,
};
use meshwork_protocol::id::DeviceId;

/// Longest text form accepted, in characters: two IPv6 components, a port and a peer id fit with room to spare.
pub const MAX_ADDRESS_TEXT: usize = 256;

/// A network address of a device.
///
/// Its text form is a multiaddr, `/ip4/192.0.2.7/udp/4001/quic-v1` or `/ip4/192.0.2.7/tcp/4001`, for
/// a known device followed by `/p2p/<peer id>`. A plain `192.0.2.7:4001` is read as QUIC at that port.
/// Through a relay it is the relay's address and peer id, `/p2p-circuit`, and then the device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Multiaddr);

/// Text is not the address of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Longer than [`MAX_ADDRESS_TEXT`].
    #[error("address is longer than {MAX_ADDRESS_TEXT} characters")]
    TooLong,
    /// Neither a multiaddr nor `ip:port`.
    #[error("not an address: give ip:port or a multiaddr such as /ip4/192.0.2.7/udp/4001/quic-v1")]
    Malformed,
    /// A multiaddr of a transport that this program does not speak.
    #[error("not a QUIC or TCP address")]
    Transport,
}

/// How bytes travel to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// QUIC over UDP.
    Quic,
    /// TCP, encrypted with Noise and multiplexed with Yamux.
    Tcp,
    /// Through a relay, which sees sealed bytes only.
    Relayed,
}

impl Path {
    /// The lower-case word for logs and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Quic => "quic",
            Path::Tcp => "tcp",
            Path::Relayed => "relayed",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Address {
    /// QUIC at a socket address.
    pub fn quic(socket: SocketAddr) -> Self {
        Self(ip(socket.ip()).with(Protocol::Udp(socket.port())).with(Protocol::QuicV1))
    }

    /// TCP at a socket address.
    pub fn tcp(socket: SocketAddr) -> Self {
        Self(ip(socket.ip()).with(Protocol::Tcp(socket.port())))
    }

    /// The transport of this address.
    pub fn path(&self) -> Path {
        path_of(&self.0)
    }

    /// The IP address and port; none of a device that is behind a relay.
    pub fn socket(&self) -> Option<SocketAddr> {
        if self.path() == Path::Relayed {
            return None;
        }
        let port = self.0.iter().find_map(|part| match part {
            Protocol::Udp(port) | Protocol::Tcp(port) => Some(port),
            _ => None,
        })?;
        let host = self.0.iter().find_map(|part| match part {
            Protocol::Ip4(host) => Some(IpAddr::V4(host)),
            Protocol::Ip6(host) => Some(IpAddr::V6(host)),
            _ => None,
        })?;
        Some(SocketAddr::new(host, port))
    }

    /// The addresses in the order in which they help others: those that other machines can use first, and of
    /// each machine address both transports together.
    pub fn most_useful(addresses: &[Address]) -> Vec<&Address> {
        let mut sorted: Vec<&Address> = addresses.iter().collect();
        sorted.sort_by_key(|address| {
            let ip = address.socket().map(|socket| socket.ip());
            (ip.is_none_or(is_local), ip.is_some_and(|ip| ip.is_ipv6()), ip)
        });
        // One way through a relay comes early: it helps where none of the others does.
        if let Some(at) = sorted.iter().position(|address| address.path() == Path::Relayed) {
            let circuit = sorted.remove(at);
            sorted.insert(at.min(1), circuit);
        }
        sorted
    }

    /// The device that the address names, when it names one.
    pub fn device(&self) -> Option<DeviceId> {
        match self.0.iter().last() {
            Some(Protocol::P2p(peer)) => device_of(&peer),
            _ => None,
        }
    }

    /// The relay that the address leads through, when it does.
    pub fn relay(&self) -> Option<DeviceId> {
        relay_of(&self.0).as_ref().and_then(device_of)
    }

    /// Where that relay is; it is named there.
    pub fn relay_address(&self) -> Option<Self> {
        self.relay()?;
        Some(Self(self.0.iter().take_while(|part| *part != Protocol::P2pCircuit).collect()))
    }

    /// The same address, naming `device`.
    pub fn with_device(&self, device: &DeviceId) -> Self {
        let bare = self.bare();
        match peer_of(device) {
            Some(peer) => Self(bare.with(Protocol::P2p(peer))),
            None => Self(bare),
        }
    }

    /// Through a relay: `self` is where the relay is and names it. `None` where it names none, or is itself relayed.
    pub fn circuit(&self) -> Option<Self> {
        let is_direct = self.path() != Path::Relayed && self.device().is_some();
        is_direct.then(|| Self(self.0.clone().with(Protocol::P2pCircuit)))
    }

    /// Through a relay that is at these addresses: over TCP where it has one, for there its end is seen at once.
    pub fn circuit_by(relay: &[Self]) -> Option<Self> {
        let over_tcp = relay.iter().find(|address| address.path() == Path::Tcp);
        over_tcp.or(relay.first())?.circuit()
    }

    /// The part of a multiaddr that says where, when this program can dial it.
    pub(crate) fn from_multiaddr(address: &Multiaddr) -> Result<Self, ParseAddressError> {
        let parts: Vec<Protocol<'_>> = address.iter().collect();
        let after = match parts.as_slice() {
            [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_), after @ ..]
            | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1, after @ ..] => after,
            _ => return Err(ParseAddressError::Transport),
        };
        match after {
            []
            | [Protocol::P2p(_)]
            | [Protocol::P2p(_), Protocol::P2pCircuit]
            | [Protocol::P2p(_), Protocol::P2pCircuit, Protocol::P2p(_)] => Ok(Self(address.clone())),
            _ => Err(ParseAddressError::Transport),
        }
    }

    /// The address without the device it may name.
    pub(crate) fn bare(&self) -> Multiaddr {
        let mut bare = self.0.clone();
        if let Some(Protocol::P2p(_)) = bare.iter().last() {
            bare.pop();
        }
        bare
    }

    /// The same address, naming nobody.
    pub fn without_device(&self) -> Self {
        Self(self.bare())
    }

    pub(crate) fn multiaddr(&self) -> &Multiaddr {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if text.len() > MAX_ADDRESS_TEXT {
            return Err(ParseAddressError::TooLong);
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self::quic(socket));
        }
        let address: Multiaddr = text.parse().map_err(|_| ParseAddressError::Malformed)?;
        Self::from_multiaddr(&address)
    }
}

/// Whether only this machine, or its next link, knows an address.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn ip(host: IpAddr) -> Multiaddr {
    Multiaddr::from(host)
}

pub(crate) fn path_of(address: &Multiaddr) -> Path {
    if address.iter().any(|part| part == Protocol::P2pCircuit) {
        Path::Relayed
    } else if address.iter().any(|part| matches!(part, Protocol::QuicV1 | Protocol::Quic)) {
        Path::Quic
    } else {
        Path::Tcp
    }
}

/// The relay of a circuit.
pub(crate) fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let mut parts = address.iter().take_while(|part| *part != Protocol::P2pCircuit);
    let relay = parts.find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
    relay.filter(|_| path_of(address) == Path::Relayed)
}

/// The transport's name for a device; `None` when the id is no point of the curve.
pub(crate) fn peer_of(device: &DeviceId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(device.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The device behind a transport name; `None` for keys that are not Ed25519.
pub(crate) fn device_of(peer: &PeerId) -> Option<DeviceId> {
    let hash = libp2p::multihash::Multihash::<64>::from(*peer);
    if hash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?.try_into_ed25519().ok()?;
    Some(DeviceId(key.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["/ip4/192.0.2.7/udp/4001/quic-v1", "/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::1/tcp/1"] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        let plain: Address = "192.0.2.7:4001".parse().expect("ip:port");
        assert_eq!(plain.to_string(), "/ip4/192.0.2.7/udp/4001/quic-v1");
        assert_eq!(plain.path(), Path::Quic);
        assert_eq!(plain.socket(), Some("192.0.2.7:4001".parse().expect("socket")));
    }

    #[test]
    fn other_transports_and_nonsense_are_refused() {
        assert_eq!("/ip4/192.0.2.7/udp/4001".parse::<Address>(), Err(ParseAddressError::Transport));
        assert_eq!("/dns4/example.org/tcp/1".parse::<Address>(), Err(ParseAddressError::Transport));
        assert_eq!("/unix/tmp".parse::<Address>(), Err(ParseAddressError::Transport));
        assert_eq!("hello".parse::<Address>(), Err(ParseAddressError::Malformed));
        assert_eq!("/".repeat(300).parse::<Address>(), Err(ParseAddressError::TooLong));
    }

    #[test]
    fn a_device_is_its_peer_id() {
        let mut secret = [7; 32];
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes(&mut secret).expect("any 32 bytes are a secret");
        let device = device_of(&keypair.public().to_peer_id()).expect("ed25519");
        assert_eq!(peer_of(&device), Some(keypair.public().to_peer_id()));
        let address = Address::tcp("127.0.0.1:5".parse().expect("socket")).with_device(&device);
        assert_eq!(address.device(), Some(device));
        assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn a_circuit_names_the_relay_and_then_the_device() {
        let device = |seed: u8| {
            let keypair = libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).expect("any 32 bytes are a secret");
            device_of(&keypair.public().to_peer_id()).expect("ed25519")
        };
        let relay = Address::quic("192.0.2.7:4001".parse().expect("socket"));
        assert_eq!(relay.circuit(), None, "a relay is known by its key");
        let circuit = relay.with_device(&device(1)).circuit().expect("a relay");
        assert_eq!((circuit.device(), circuit.relay(), circuit.path()), (None, Some(device(1)), Path::Relayed));
        assert_eq!((circuit.socket(), circuit.circuit()), (None, None));
        let to = circuit.with_device(&device(2));
        assert_eq!((to.device(), to.relay(), to.without_device()), (Some(device(2)), Some(device(1)), circuit));
        assert_eq!(to.to_string().parse(), Ok(to.clone()));
        let twice = format!("{to}/p2p-circuit");
        assert_eq!(twice.parse::<Address>(), Err(ParseAddressError::Transport));
    }
}
