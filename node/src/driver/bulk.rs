//! Connections for chunks alone, direct or through the data port of a relay: offered on a stream that is sealed and
//! authenticated already, tried before that stream carries much, and left alone for a while where they do not come about.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use meshwork_host::{
    entropy::entropy,
    swarm::{Address, NetworkHandle, Stream},
};
use meshwork_protocol::{
    codec,
    id::DeviceId,
    limits,
    splice::Token,
    wire::{
        self,
        chunks::{BulkOffer, ChunkMessage, Splice},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::network::{
    bulk::{self, BulkChannel, BulkListener, PendingChannel},
    frame::{read_frame, write_frame},
    splice,
};

/// Bytes from which a connection of its own pays.
const WORTHWHILE: u64 = 4 << 20;
/// How long one may take to come about before the stream that is there is used.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the addresses of an offer may take to answer.
const REACH: Duration = Duration::from_secs(1);
/// What a direct one is ahead of one through a relay.
const HEAD_START: Duration = Duration::from_millis(200);
/// How long a device that cannot be reached so is not tried again.
const REST: Duration = Duration::from_secs(600);

/// A stream of either kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// This node's side of them.
#[derive(Clone)]
pub(crate) struct Bulk {
    network: NetworkHandle,
    listener: Option<Arc<BulkListener>>,
    /// Devices to which none came about, and when that is forgotten.
    resting: Arc<Mutex<BTreeMap<DeviceId, Instant>>>,
}

/// How a device is reached, and this end of a channel of the relay between.
pub(super) struct Ready {
    address: Address,
    own: Option<(SocketAddr, Token)>,
}

impl Bulk {
    /// Listens where the node does, at a port of its own; a node that cannot only dials.
    pub(super) async fn new(network: NetworkHandle, listen: &[SocketAddr]) -> Bulk {
        let chosen = listen.iter().map(SocketAddr::ip).find(|ip| !ip.is_unspecified());
        let places = match chosen {
            Some(ip) => vec![ip],
            // One socket takes both kinds, unless the system has only the older one.
            None => vec![IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)],
        };
        let mut listener = None;
        for place in places {
            match BulkListener::bind(SocketAddr::new(place, 0)).await {
                Ok(bound) => {
                    listener = Some(Arc::new(bound));
                    break;
                }
                Err(error) => tracing::debug!(%error, %place, "no bulk connections can be taken there"),
            }
        }
        Bulk { network, listener, resting: Arc::default() }
    }

    /// An offer to a device that asks for one, and where its connection comes out. It may be taken up at the data port
    /// of a relay, too.
    pub(super) fn offer(
        &self,
        to: DeviceId,
        listening: &[Address],
        splice: Option<Splice>,
    ) -> Option<(BulkOffer, PendingChannel)> {
        let sockets = Address::most_useful(listening).into_iter().filter_map(Address::socket);
        let mut ips: Vec<IpAddr> = sockets.map(|socket| socket.ip()).collect();
        // An address of one link means nothing without the link's name.
        ips.retain(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        ips.dedup();
        let listener = self.listener.clone()?;
        let offered = listener.offer(self.network.device(), to, &ips, &mut entropy()).ok()?;
        if let Some(splice) = splice {
            tokio::spawn(self.clone().meet(to, splice, listener));
        }
        Some(offered)
    }

    /// Comes to the relay where `peer` may take an offer up.
    async fn meet(self, peer: DeviceId, Splice { relay, port, token }: Splice, listener: Arc<BulkListener>) {
        // Only a relay that this node is connected with anyway: a peer cannot send it anywhere else.
        let carrying = self.network.address_of(peer).await.filter(|address| address.relay() == Some(relay));
        let address = match carrying.and_then(|address| address.relay_address()) {
            Some(address) => Some(address),
            None => self.network.relay_address(relay).await,
        };
        let Some(mut socket) = address.and_then(|address| address.socket()) else { return };
        socket.set_port(port);
        match splice::meet(socket, token).await {
            Ok(stream) => {
                if let Err(error) = listener.take(stream).await {
                    tracing::debug!(peer = %peer.short(), %error, "an offer was not taken up at the relay");
                }
            }
            Err(error) => tracing::debug!(peer = %peer.short(), %error, "no channel of a relay"),
        }
    }

    /// A bulk connection in the place of the stream, if there is enough to fetch and one comes about.
    pub(super) async fn improve(&self, mut stream: Stream, peer: DeviceId, bytes: u64) -> Box<dyn Duplex> {
        if bytes < WORTHWHILE || self.rests(peer) {
            return Box::new(stream);
        }
        match timeout(PATIENCE, self.connect(&mut stream, peer)).await {
            Ok(Some(channel)) => channel,
            _ => {
                tracing::debug!(peer = %peer.short(), "no bulk connection comes about");
                self.lock().insert(peer, Instant::now() + REST);
                Box::new(stream)
            }
        }
    }

    async fn connect(&self, stream: &mut Stream, peer: DeviceId) -> Option<Box<dyn Duplex>> {
        let (ready, splice) = self.prepare(peer).await?;
        write_frame(stream, &ChunkMessage::Bulk { splice }.encode()).await.ok()?;
        let answer = read_frame(stream, limits::CHUNK_FRAME).await.ok()??;
        let offer: BulkOffer = codec::decode(&answer, limits::CHUNK_FRAME).ok()?;
        Some(Box::new(self.take_up(ready, offer, peer).await?))
    }

    /// What it takes to make a connection of an offer by a device, and what to say in asking for one. None where none
    /// would come about.
    pub(super) async fn ready_for(&self, peer: DeviceId) -> Option<(Ready, Option<Splice>)> {
        if self.rests(peer) {
            return None;
        }
        timeout(PATIENCE, self.prepare(peer)).await.ok()?
    }

    /// The connection of an offer; where none comes about, the device is left alone for a while.
    pub(super) async fn accept(
        &self,
        ready: Ready,
        offer: BulkOffer,
        peer: DeviceId,
    ) -> Option<BulkChannel<TcpStream>> {
        let channel = timeout(PATIENCE, self.take_up(ready, offer, peer)).await.ok().flatten();
        if channel.is_none() {
            self.lock().insert(peer, Instant::now() + REST);
        }
        channel
    }

    async fn prepare(&self, peer: DeviceId) -> Option<(Ready, Option<Splice>)> {
        let address = self.network.address_of(peer).await?;
        let (own, splice) = self.ask_relay(peer, &address).await.unzip();
        if address.relay().is_some() && own.is_none() {
            return None;
        }
        Some((Ready { address, own }, splice))
    }

    async fn take_up(&self, ready: Ready, mut offer: BulkOffer, peer: DeviceId) -> Option<BulkChannel<TcpStream>> {
        if let Some(connected) = ready.address.socket() {
            // Where a router stands before a device, its other ports cannot be reached: nothing to wait for.
            offer.addresses.retain(|offered| bulk::socket_address(offered).is_some_and(|it| it.ip() == connected.ip()));
        }
        let connection = either_way(&offer, ready.own).await?;
        let taken = bulk::take_up(connection, &offer, peer, self.network.device()).await;
        taken.inspect_err(|error| tracing::debug!(peer = %peer.short(), %error, "an offer could not be taken up")).ok()
    }

    /// A channel of the relay that carries the connection with a device, if one does: this end and the other.
    async fn ask_relay(&self, peer: DeviceId, address: &Address) -> Option<((SocketAddr, Token), Splice)> {
        let (relay, mut socket) = (address.relay()?, address.relay_address()?.socket()?);
        let asked = match self.network.open_stream(relay, wire::SPLICE).await {
            Ok(stream) => splice::ask(stream, peer).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match asked {
            Ok(grant) => {
                let [own, token] = grant.tokens;
                socket.set_port(grant.port);
                Some(((socket, own), Splice { relay, port: grant.port, token }))
            }
            Err(error) => {
                tracing::debug!(relay = %relay.short(), error, "the relay gives no channel");
                None
            }
        }
    }

    /// A device is reached another way now: what did not come about before may.
    pub(super) fn forget_rest(&self, peer: DeviceId) {
        self.lock().remove(&peer);
    }

    fn rests(&self, peer: DeviceId) -> bool {
        let now = Instant::now();
        let mut resting = self.lock();
        resting.retain(|_, until| *until > now);
        resting.contains_key(&peer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<DeviceId, Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to who offers, direct or through a relay.
async fn either_way(offer: &BulkOffer, own: Option<(SocketAddr, Token)>) -> Option<TcpStream> {
    let through_relay = async {
        let (relay, token) = own?;
        sleep(HEAD_START).await;
        let met = splice::meet(relay, token).await;
        met.inspect_err(|error| tracing::debug!(%error, "no channel of a relay")).ok()
    };
    tokio::select! {
        Ok(Ok(stream)) = timeout(REACH, bulk::connect(offer)) => Some(stream),
        Some(stream) = through_relay => Some(stream),
        else => None,
    }
}
