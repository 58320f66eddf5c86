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
}

impl Path {
    /// The lower-case word for logs and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Quic => "quic",
            Path::Tcp => "tcp",
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

    /// The IP address and port.
    pub fn socket(&self) -> Option<SocketAddr> {
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
            (ip.is_none_or(|ip| ip.is_loopback()), ip.is_some_and(|ip| ip.is_ipv6()), ip)
        });
        sorted
    }

    /// The device that the address names, when it names one.
    pub fn device(&self) -> Option<DeviceId> {
        self.0.iter().find_map(|part| match part {
            Protocol::P2p(peer) => device_of(&peer),
            _ => None,
        })
    }

    /// The same address, naming `device`.
    pub fn with_device(&self, device: &DeviceId) -> Self {
        let bare = bare(&self.0);
        match peer_of(device) {
            Some(peer) => Self(bare.with(Protocol::P2p(peer))),
            None => Self(bare),
        }
    }

    /// The part of a multiaddr that says where, when this program can dial it.
    pub(crate) fn from_multiaddr(address: &Multiaddr) -> Result<Self, ParseAddressError> {
        let parts: Vec<Protocol<'_>> = address.iter().collect();
        match parts.as_slice() {
            [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
            | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_), Protocol::P2p(_)]
            | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1]
            | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(_)] => {
                Ok(Self(address.clone()))
            }
            _ => Err(ParseAddressError::Transport),
        }
    }

    /// The address without the device it may name.
    pub(crate) fn bare(&self) -> Multiaddr {
        bare(&self.0)
    }

    /// The same address, naming nobody.
    pub fn without_device(&self) -> Self {
        Self(bare(&self.0))
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

fn ip(host: IpAddr) -> Multiaddr {
    Multiaddr::from(host)
}

fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

pub(crate) fn path_of(address: &Multiaddr) -> Path {
    if address.iter().any(|part| matches!(part, Protocol::QuicV1 | Protocol::Quic)) { Path::Quic } else { Path::Tcp }
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
}
