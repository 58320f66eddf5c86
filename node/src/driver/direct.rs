//! Direct connections for chunks: offered on a stream that is sealed and authenticated already, tried before
//! that stream carries much, and left alone for a while where they do not come about.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use meshwork_host::{
    entropy::entropy,
    swarm::{Address, Stream},
};
use meshwork_protocol::{
    codec,
    id::DeviceId,
    limits,
    wire::chunks::{BulkOffer, ChunkMessage},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::network::{
    bulk::{self, BulkListener, PendingChannel},
    frame::{read_frame, write_frame},
};

/// Bytes from which a connection of its own pays.
const WORTHWHILE: u64 = 4 << 20;
/// How long one may take to come about before the stream that is there is used.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a device that cannot be reached so is not tried again.
const REST: Duration = Duration::from_secs(600);

/// A stream of either kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// This node's side of direct connections.
#[derive(Clone)]
pub(crate) struct Direct {
    device: DeviceId,
    listener: Option<Arc<BulkListener>>,
    /// Devices to which none came about, and when that is forgotten.
    resting: Arc<Mutex<BTreeMap<DeviceId, Instant>>>,
}

impl Direct {
    /// Listens where the node does, at a port of its own; a node that cannot only dials.
    pub(super) async fn new(device: DeviceId, listen: &[SocketAddr]) -> Direct {
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
                Err(error) => tracing::debug!(%error, %place, "no direct connections can be taken there"),
            }
        }
        Direct { device, listener, resting: Arc::default() }
    }

    /// An offer to a device that asks for one, and where its connection comes out.
    pub(super) fn offer(&self, to: DeviceId, listening: &[Address]) -> Option<(BulkOffer, PendingChannel)> {
        let sockets = Address::most_useful(listening).into_iter().filter_map(Address::socket);
        let mut ips: Vec<IpAddr> = sockets.map(|socket| socket.ip()).collect();
        // An address of one link means nothing without the link's name.
        ips.retain(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        ips.dedup();
        self.listener.as_ref()?.offer(self.device, to, &ips, &mut entropy()).ok()
    }

    /// A direct connection in the place of the stream, if there is enough to fetch and one comes about.
    pub(super) async fn improve(&self, mut stream: Stream, peer: DeviceId, bytes: u64) -> Box<dyn Duplex> {
        if bytes < WORTHWHILE || self.rests(peer) {
            return Box::new(stream);
        }
        match timeout(PATIENCE, self.connect(&mut stream, peer)).await {
            Ok(Some(channel)) => channel,
            _ => {
                tracing::debug!(peer = %peer.short(), "no direct connection comes about");
                self.lock().insert(peer, Instant::now() + REST);
                Box::new(stream)
            }
        }
    }

    async fn connect(&self, stream: &mut Stream, peer: DeviceId) -> Option<Box<dyn Duplex>> {
        write_frame(stream, &ChunkMessage::Direct {}.encode()).await.ok()?;
        let answer = read_frame(stream, limits::CHUNK_FRAME).await.ok()??;
        let offer: BulkOffer = codec::decode(&answer, limits::CHUNK_FRAME).ok()?;
        match bulk::dial(&offer, peer, self.device).await {
            Ok(channel) => Some(Box::new(channel)),
            Err(error) => {
                tracing::debug!(peer = %peer.short(), %error, "an offer could not be taken up");
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
