//! The network of a node: one libp2p swarm, owned by one task that never waits for anything but its
//! inputs. No libp2p type is visible outside; peers are [`DeviceId`]s, protocols are names and streams
//! are `AsyncRead + AsyncWrite`.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use libp2p::identity::Keypair;
use meshwork_protocol::id::DeviceId;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

mod behaviour;
mod choice;
mod dials;
mod forwarded;
mod gate;
mod handler;
mod listen;
mod outbox;
mod redial;
mod relays;
mod router;
mod serving;
mod stream;
mod streams;
mod task;
#[cfg(test)]
mod tests;
mod ways;

pub use crate::address::{Address, ParseAddressError, Path};
pub use stream::Stream;

/// Commands on their way to the swarm task; callers wait for room.
const COMMANDS: usize = 128;

/// Events on their way to the node before they wait in the task.
const EVENTS: usize = 128;

/// Connections of a peer on which a stream is tried, one after the other, when they break meanwhile.
const OPEN_ATTEMPTS: usize = 3;

/// What a node wants from its network.
pub struct NetworkConfig {
    /// Ed25519 secret of the device. The device id is its public key.
    pub device_secret: Zeroizing<[u8; 32]>,
    /// Where to listen, each for QUIC (UDP) and TCP at the same port. Port 0 takes a free port, the same
    /// for all entries that say 0.
    pub listen: Vec<SocketAddr>,
    /// Whether to find devices on the local network and be found there.
    pub mdns: bool,
    /// Whether to ask the router of the local network to forward ports to this node.
    pub upnp: bool,
    /// Stream protocols for allowed devices, `/name/version`.
    pub protocols: Vec<&'static str>,
    /// Stream protocols that unknown devices may open too, while pairing is open.
    pub pairing_protocols: Vec<&'static str>,
    /// Stream protocols that guests may open, and nothing else.
    pub guest_protocols: Vec<&'static str>,
    /// Protocols spoken with relays, and by a relay with everybody.
    pub relay_protocols: Vec<&'static str>,
    /// Program name and version, told to peers.
    pub agent: String,
    /// Connections at one time.
    pub max_connections: u32,
    /// Streams of one device and protocol that may wait to be taken up; one more is reset.
    pub accept_queue: usize,
    /// How long a device that is not allowed may stay connected.
    pub pairing_time: Duration,
    /// Admits every device, for circuits alone: for public relays and bootstraps.
    pub everyone: bool,
    /// What this node gives to others as a relay, if it is one.
    pub relay: Option<RelayLimits>,
    /// Whom others may reach through this relay; without it everybody.
    pub admits: Option<Admits>,
}

/// Says whether a relay carries for a device.
pub type Admits = Box<dyn Fn(&DeviceId) -> bool + Send>;

/// What a relay gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// Reservations at one time.
    pub reservations: usize,
    /// Reservations of one device at one time.
    pub reservations_per_device: usize,
    /// How long a reservation holds before it has to be renewed.
    pub reservation_time: Duration,
    /// Circuits at one time.
    pub circuits: usize,
    /// Circuits from one device at one time.
    pub circuits_per_device: usize,
    /// How long a circuit lasts.
    pub circuit_time: Duration,
    /// Bytes that a circuit may carry, both directions together; 0 for any number.
    pub circuit_bytes: u64,
    /// Where others reach this relay; none: at the addresses where it listens.
    pub public: Vec<Address>,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: 1024,
            reservations_per_device: 4,
            reservation_time: Duration::from_secs(3600),
            circuits: 1024,
            circuits_per_device: 32,
            circuit_time: Duration::from_secs(24 * 3600),
            circuit_bytes: 0,
            public: Vec::new(),
        }
    }
}

impl NetworkConfig {
    /// The defaults of a device: all interfaces, a free port, local discovery on, no protocols.
    pub fn new(device_secret: Zeroizing<[u8; 32]>) -> Self {
        Self {
            device_secret,
            listen: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            mdns: true,
            upnp: false,
            protocols: Vec::new(),
            pairing_protocols: Vec::new(),
            guest_protocols: Vec::new(),
            relay_protocols: Vec::new(),
            agent: concat!("meshwork/", env!("CARGO_PKG_VERSION")).into(),
            max_connections: 128,
            accept_queue: 32,
            pairing_time: Duration::from_secs(30),
            everyone: false,
            relay: None,
            admits: None,
        }
    }
}

/// The network did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The device secret is not one.
    #[error("device key is not usable")]
    Key,
    /// A protocol name does not begin with a slash.
    #[error("protocol name {0:?} must begin with a slash")]
    Protocol(&'static str),
    /// The transports could not be set up.
    #[error("transport: {0}")]
    Transport(#[source] std::io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
}

/// A dial did not lead to a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The device is not in the allow-list.
    #[error("device is not allowed")]
    NotAllowed,
    /// It is this device itself.
    #[error("that is this device")]
    Own,
    /// Nothing to dial.
    #[error("no address is known")]
    NoAddress,
    /// Every address failed; this is what the last one said.
    #[error("could not connect: {0}")]
    Failed(String),
    /// The network has been shut down.
    #[error("network is stopped")]
    Stopped,
}

/// A stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no connection to the device.
    #[error("device is not connected")]
    NotConnected,
    /// The connection may not carry this protocol.
    #[error("not allowed on this connection")]
    NotAllowed,
    /// One of the two ends does not speak the protocol.
    #[error("protocol is not spoken")]
    Unsupported,
    /// Too many streams are being opened on this connection.
    #[error("too many streams are being opened")]
    Busy,
    /// No answer within ten seconds.
    #[error("no answer")]
    Timeout,
    /// The connection broke meanwhile.
    #[error("connection lost")]
    Disconnected,
    /// The network has been shut down.
    #[error("network is stopped")]
    Stopped,
}

/// The network has been shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("network is stopped")]
pub struct Stopped;

/// Why a device is no longer connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownReason {
    /// Closed by this node.
    Closed,
    /// The device was taken from the allow-list.
    Removed,
    /// The connection broke or the peer closed it.
    Lost(String),
}

/// What the network tells the node.
#[derive(Debug)]
pub enum NetworkEvent {
    /// This node can be reached here from now on.
    Listening {
        /// One address; wildcards are resolved to interfaces.
        address: Address,
    },
    /// This address is gone: an interface went down or changed.
    NotListening {
        /// As told by `Listening`.
        address: Address,
    },
    /// An allowed device is connected. Always paired with a later `PeerDown`.
    PeerUp {
        /// The device, proven by its key.
        device: DeviceId,
        /// Transport of its first connection.
        path: Path,
    },
    /// New streams with a connected device go another way from now on.
    PathChanged {
        /// The device.
        device: DeviceId,
        /// Transport of the connection that stays.
        path: Path,
    },
    /// The last connection with a device is gone.
    PeerDown {
        /// The device.
        device: DeviceId,
        /// Why.
        reason: DownReason,
    },
    /// A relay of this node is connected and has told its addresses.
    RelayUp {
        /// The relay, proven by its key.
        relay: DeviceId,
    },
    /// A device opened a stream. Dropping it resets it.
    Stream {
        /// Who; for pairing, guest and relay protocols perhaps a device that is not allowed.
        device: DeviceId,
        /// Where its connection comes from: for one through a relay, the relay.
        from: Option<SocketAddr>,
        /// One of the configured names.
        protocol: &'static str,
        /// The stream.
        stream: Stream,
    },
    /// A device was found on the local network, or an allowed device told its addresses. A claim, not proof.
    Discovered {
        /// Who it says it is.
        device: DeviceId,
        /// Where.
        addresses: Vec<Address>,
    },
    /// A connection was refused.
    Refused {
        /// Who, when the peer got so far as to prove it.
        device: Option<DeviceId>,
        /// From where.
        address: String,
        /// Why.
        reason: String,
    },
}

/// One connected device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// The device.
    pub device: DeviceId,
    /// Transport that new streams use.
    pub path: Path,
    /// Remote address of that connection.
    pub address: String,
    /// Connections at this moment; more than one only while both ends dialled at once.
    pub connections: usize,
    /// When the device came up.
    pub since: SystemTime,
    /// Stream bytes received since then, without the overhead of encryption and transport.
    pub received: u64,
    /// Stream bytes sent since then.
    pub sent: u64,
    /// Why it is reached through a relay only, as far as that is known.
    pub problem: Option<String>,
}

/// How it stands with a relay of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayState {
    /// Others reach this node through it.
    Reserved,
    /// It is connected, and has given no place.
    Connected,
    /// It is not connected.
    Away,
}

/// One relay of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySnapshot {
    /// The relay, by its key.
    pub relay: DeviceId,
    /// Where it is connected, or would be.
    pub address: Option<Address>,
    /// How it stands.
    pub state: RelayState,
    /// What went wrong last.
    pub problem: Option<String>,
}

/// What a relay gives at this moment, and has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServingSnapshot {
    /// Reservations that stand.
    pub reservations: usize,
    /// Circuits that stand.
    pub circuits: usize,
    /// Reservations given since the start.
    pub reservations_total: u64,
    /// Circuits made since the start.
    pub circuits_total: u64,
    /// Reservations and circuits refused since the start.
    pub refused_total: u64,
}

/// The state of the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSnapshot {
    /// Connected devices, by id.
    pub peers: Vec<PeerSnapshot>,
    /// Connections with devices that are not allowed.
    pub strangers: usize,
    /// Connections being made, in either direction.
    pub pending: usize,
    /// Whether unknown devices may connect for pairing.
    pub pairing: bool,
    /// Addresses of this node: listening, then as seen by peers.
    pub addresses: Vec<Address>,
    /// Relays of this node, in the order of its list.
    pub relays: Vec<RelaySnapshot>,
    /// What it gives as a relay itself.
    pub serving: ServingSnapshot,
    /// Events lost because the node did not take them up.
    pub dropped_events: u64,
}

type Reply<T> = oneshot::Sender<T>;

enum Command {
    Dial { device: DeviceId, addresses: Vec<Address>, reply: Reply<Result<DeviceId, DialError>> },
    DialServer { device: DeviceId, addresses: Vec<Address>, reply: Reply<Result<DeviceId, DialError>> },
    DialUnknown { addresses: Vec<Address>, reply: Reply<Result<DeviceId, DialError>> },
    Open { device: DeviceId, protocol: &'static str, reply: Reply<Result<Stream, OpenError>> },
    SetAllowed(BTreeSet<DeviceId>),
    SetGuests(BTreeSet<DeviceId>),
    SetKnown(DeviceId, Vec<Address>),
    OpenPairing { until: Instant },
    ClosePairing,
    SetMdns(bool),
    SetRelays(Vec<(DeviceId, Vec<Address>)>),
    Reserve(DeviceId),
    Disconnect(DeviceId),
    Snapshot(Reply<NetworkSnapshot>),
    Shutdown(Reply<()>),
}

/// Starts networks.
pub struct Network;

impl Network {
    /// Starts the swarm task on the current tokio runtime. Nobody is allowed to connect yet.
    ///
    /// When the handle and all its clones are dropped, the network shuts down.
    pub fn start(mut config: NetworkConfig) -> Result<(NetworkHandle, mpsc::Receiver<NetworkEvent>), StartError> {
        let mut secret = config.device_secret.clone();
        let keypair = Keypair::ed25519_from_bytes(secret.as_mut_slice()).map_err(|_| StartError::Key)?;
        let device = crate::address::device_of(&keypair.public().to_peer_id()).ok_or(StartError::Key)?;
        let mut swarm = behaviour::build(&mut config, keypair)?;
        listen::listen(&mut swarm, &config.listen)?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events, receiver) = mpsc::channel(EVENTS);
        let router = router::Router::new(*swarm.local_peer_id(), &config);
        tokio::spawn(task::run(swarm, router, inbox, events));
        Ok((NetworkHandle { device, commands }, receiver))
    }
}

/// The way to a running network. Cheap to clone.
#[derive(Clone)]
pub struct NetworkHandle {
    device: DeviceId,
    commands: mpsc::Sender<Command>,
}

impl NetworkHandle {
    /// This device.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Connects to an allowed device at these addresses, beside those known. Returns when it is
    /// connected (perhaps it already was).
    pub async fn dial(&self, device: DeviceId, addresses: Vec<Address>) -> Result<(), DialError> {
        let answer = self.ask(|reply| Command::Dial { device, addresses, reply }).await;
        answer.map_err(|_| DialError::Stopped)?.map(drop)
    }

    /// Connects to a server at these addresses, for the relay protocols alone, unless it is connected. The connection ends
    /// by itself when nothing has used it for a while.
    pub async fn dial_server(&self, server: DeviceId, addresses: Vec<Address>) -> Result<(), DialError> {
        let answer = self.ask(|reply| Command::DialServer { device: server, addresses, reply }).await;
        answer.map_err(|_| DialError::Stopped)?.map(drop)
    }

    /// Connects to whoever answers at one of these addresses, for pairing. The connection carries the
    /// pairing protocols only and is closed after `pairing_time` unless the device has been allowed by then.
    pub async fn dial_unknown(&self, addresses: Vec<Address>) -> Result<DeviceId, DialError> {
        let answer = self.ask(|reply| Command::DialUnknown { addresses, reply }).await;
        answer.map_err(|_| DialError::Stopped)?
    }

    /// Where a relay of the list is connected.
    pub async fn relay_address(&self, relay: DeviceId) -> Option<Address> {
        let relays = self.snapshot().await.ok()?.relays;
        relays.into_iter().find(|known| known.relay == relay && known.state != RelayState::Away)?.address
    }

    /// Where a connected device is reached; it may be through a relay.
    pub async fn address_of(&self, device: DeviceId) -> Option<Address> {
        let peers = self.snapshot().await.ok()?.peers;
        peers.into_iter().find(|peer| peer.device == device)?.address.parse().ok()
    }

    /// Opens a stream to a device, or to a connected relay: on its newest connection, or, while both ends have just dialled each
    /// other, on the one that will stay in the view of this device. The view of the device with the
    /// smaller id is the one that counts: a stream that is to live long is best opened by that device.
    pub async fn open_stream(&self, device: DeviceId, protocol: &'static str) -> Result<Stream, OpenError> {
        let mut outcome = Err(OpenError::Disconnected);
        for _ in 0..OPEN_ATTEMPTS {
            let answer = self.ask(|reply| Command::Open { device, protocol, reply }).await;
            outcome = match answer {
                Ok(result) => result,
                Err(_) if self.commands.is_closed() => Err(OpenError::Stopped),
                Err(_) => Err(OpenError::Disconnected),
            };
            // A connection given up in favour of another takes the request with it.
            if !matches!(outcome, Err(OpenError::Disconnected)) {
                break;
            }
        }
        outcome
    }

    /// Replaces the allow-list. Connections with others are closed; a device that was connected for
    /// pairing and is now in the list comes up.
    pub async fn set_allowed(&self, devices: BTreeSet<DeviceId>) -> Result<(), Stopped> {
        self.tell(Command::SetAllowed(devices)).await
    }

    /// Replaces the set of guests: keys that may connect at any time, a few connections at once and not for long, for
    /// the guest protocols alone.
    pub async fn set_guests(&self, keys: BTreeSet<DeviceId>) -> Result<(), Stopped> {
        self.tell(Command::SetGuests(keys)).await
    }

    /// Keeps a device connected while it is allowed: dials these addresses at once, and again after
    /// each loss, with waits from half a second to 30 s.
    pub async fn set_known(&self, device: DeviceId, addresses: Vec<Address>) -> Result<(), Stopped> {
        self.tell(Command::SetKnown(device, addresses)).await
    }

    /// Asks a relay of this node, if it is connected, for a place at once: it may give one now.
    pub async fn reserve(&self, relay: DeviceId) -> Result<(), Stopped> {
        self.tell(Command::Reserve(relay)).await
    }

    /// Lets up to four unknown devices connect until then, each for `pairing_time` and pairing only.
    pub async fn open_pairing(&self, until: Instant) -> Result<(), Stopped> {
        self.tell(Command::OpenPairing { until }).await
    }

    /// Lets no further unknown device connect. Those connected finish within their time.
    pub async fn close_pairing(&self) -> Result<(), Stopped> {
        self.tell(Command::ClosePairing).await
    }

    /// Turns discovery on the local network on (afresh, which helps after sleep) or off.
    pub async fn set_mdns(&self, on: bool) -> Result<(), Stopped> {
        self.tell(Command::SetMdns(on)).await
    }

    /// Replaces the relays of this node, best first: it keeps a reservation at two of them, and reaches others through them.
    pub async fn set_relays(&self, relays: Vec<(DeviceId, Vec<Address>)>) -> Result<(), Stopped> {
        self.tell(Command::SetRelays(relays)).await
    }

    /// Closes all connections with a device, and does not dial it again until told to (`dial`,
    /// `set_known`) or until it is discovered anew.
    pub async fn disconnect(&self, device: DeviceId) -> Result<(), Stopped> {
        self.tell(Command::Disconnect(device)).await
    }

    /// Where this node can be reached: its listening addresses, then those that peers saw it at.
    pub async fn addresses(&self) -> Result<Vec<Address>, Stopped> {
        Ok(self.snapshot().await?.addresses)
    }

    /// The state of the network.
    pub async fn snapshot(&self) -> Result<NetworkSnapshot, Stopped> {
        self.ask(Command::Snapshot).await
    }

    /// Closes listeners and connections, within two seconds. Returns when the task has ended.
    pub async fn shutdown(&self) {
        if self.ask(Command::Shutdown).await.is_err() {
            tracing::debug!("network was stopped already");
        }
        self.commands.closed().await;
    }

    async fn tell(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }
}
