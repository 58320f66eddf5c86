//! The one swarm type: transports, limits and behaviours, put together.

use std::{io, num::NonZeroU32, time::Duration};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport,
    connection_limits::{self, ConnectionLimits},
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    dcutr,
    futures::future::Either,
    identify,
    identity::Keypair,
    mdns, noise, quic, relay,
    swarm::{Config, NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, upnp, yamux,
};

use crate::address::device_of;

use super::{
    Admits, NetworkConfig, RelayLimits, StartError,
    gate::{Class, Gate},
    streams::{Spoken, Streams},
};

/// Protocol family in the identify exchange: peers of other families are of no use to us.
pub(crate) const FAMILY: &str = "/meshwork/1";

/// A silent QUIC connection sends a small packet after this time, and it and the answer are all that an
/// idle pair exchanges: two packets of some 65 bytes each way, twice that when both ends send at once.
/// A lost one is repeated by QUIC itself well within the idle time.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(12);

/// Each device waits up to so much longer, by its id. Every packet starts the wait of both ends anew, so
/// two that wait equally long would both send each time.
const QUIC_KEEP_ALIVE_SPREAD: Duration = Duration::from_secs(3);

/// A QUIC connection over which nothing arrived for so long is dead, in milliseconds.
const QUIC_IDLE: u32 = 30_000;

/// Kernel probes of a silent TCP connection: first after, then every, and how many may fail.
const TCP_PROBE_AFTER: Duration = Duration::from_secs(15);
const TCP_PROBE_EVERY: Duration = Duration::from_secs(5);
const TCP_PROBES: u32 = 3;

/// Sent bytes that a TCP peer leaves unacknowledged for so long break the connection, in milliseconds.
const TCP_UNACKNOWLEDGED: u32 = 30_000;

/// Time to connect over TCP, encryption and multiplexing included. Without it a silent client would
/// hold its place among the pending connections for ever.
const TCP_HANDSHAKE: Duration = Duration::from_secs(10);

/// Streams that a peer may have open on one connection.
const MAX_STREAMS: u32 = 256;

/// Connection attempts in progress, each direction.
const MAX_PENDING: u32 = 32;

/// Connections with one peer: while both ends dial at once, soon pruned to one, and with a guest. Of who comes from
/// another address each time, those that it does not have any more count for half a minute.
const MAX_PER_PEER: u32 = 8;

/// A stranger's connection without a stream is closed after this time.
const STRANGER_IDLE: Duration = Duration::from_secs(10);

/// Identify tells changes when they happen; the periodic repetition only costs bytes.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// How often the LAN is asked for other devices.
const MDNS_QUERY: Duration = Duration::from_secs(60);

/// Reservations and circuits that one device, or one IP address, may ask a relay for within a minute: a household behind
/// one address that lost its relay comes back at once, and nobody can keep a relay busy with asking.
const RELAY_RATE_DEVICE: NonZeroU32 = NonZeroU32::MIN.saturating_add(119);
const RELAY_RATE_IP: NonZeroU32 = NonZeroU32::MIN.saturating_add(1199);
const RELAY_RATE_TIME: Duration = Duration::from_secs(60);

/// Limits come first: they can refuse before anything is allocated.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(crate) streams: Streams,
    pub(crate) identify: identify::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) relayed: relay::client::Behaviour,
    /// Where a direct connection is made out of a relayed one, and to whom.
    pub(crate) upgrade: dcutr::Behaviour,
    pub(crate) serving: Toggle<relay::Behaviour>,
    /// Ports at the router of this network.
    pub(crate) forwarding: Toggle<upnp::tokio::Behaviour>,
}

/// Builds the swarm of a node.
pub(crate) fn build(config: &mut NetworkConfig, keypair: Keypair) -> Result<Swarm<Behaviour>, StartError> {
    let peer = keypair.public().to_peer_id();
    let (circuits, relayed) = relay::client::new(peer);
    let transport = transport(&keypair, circuits).map_err(StartError::Transport)?;
    let behaviour = behaviour(config, &keypair, relayed)?;
    let swarm = Config::with_tokio_executor().with_idle_connection_timeout(STRANGER_IDLE);
    Ok(Swarm::new(transport, behaviour, peer, swarm))
}

fn behaviour(
    config: &mut NetworkConfig,
    keypair: &Keypair,
    relayed: relay::client::Behaviour,
) -> Result<Behaviour, StartError> {
    let peer = keypair.public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(config.max_connections))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let mut spoken = Vec::new();
    let by_class = [
        (&config.protocols, Class::Member),
        (&config.guest_protocols, Class::Guest),
        (&config.pairing_protocols, Class::Stranger),
        (&config.relay_protocols, Class::Relay),
    ];
    for (names, class) in by_class {
        for name in names {
            if !name.starts_with('/') {
                return Err(StartError::Protocol(name));
            }
            spoken.push(Spoken { name, protocol: StreamProtocol::new(name), class });
        }
    }
    let identify = identify::Config::new(FAMILY.into(), keypair.public())
        .with_agent_version(config.agent.clone())
        .with_interval(IDENTIFY_INTERVAL)
        .with_push_listen_addr_updates(true)
        .with_cache_size(0)
        .with_hide_listen_addrs(config.everyone);
    let admits = config.admits.take();
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        streams: Streams::new(Gate::new(config.everyone), spoken, config.accept_queue),
        identify: identify::Behaviour::new(identify),
        mdns: if config.mdns { discovery(peer) } else { None.into() },
        relayed,
        upgrade: dcutr::Behaviour::new(peer),
        serving: config.relay.as_ref().map(|limits| relay::Behaviour::new(peer, serving(limits, admits))).into(),
        // It looks for a router as soon as it is there, so not before this node listens behind one.
        forwarding: None.into(),
    })
}

/// Who has a place is reached by everybody, so that admission is for places alone.
fn serving(limits: &RelayLimits, admits: Option<Admits>) -> relay::Config {
    let mut config = relay::Config {
        max_reservations: limits.reservations,
        max_reservations_per_peer: limits.reservations_per_device,
        reservation_duration: limits.reservation_time,
        max_circuits: limits.circuits,
        max_circuits_per_peer: limits.circuits_per_device,
        max_circuit_duration: limits.circuit_time.min(Duration::from_secs(u64::from(u32::MAX))),
        max_circuit_bytes: limits.circuit_bytes,
        reservation_rate_limiters: Vec::new(),
        circuit_src_rate_limiters: Vec::new(),
    }
    .reservation_rate_per_peer(RELAY_RATE_DEVICE, RELAY_RATE_TIME)
    .reservation_rate_per_ip(RELAY_RATE_IP, RELAY_RATE_TIME)
    .circuit_src_per_peer(RELAY_RATE_DEVICE, RELAY_RATE_TIME)
    .circuit_src_per_ip(RELAY_RATE_IP, RELAY_RATE_TIME);
    if let Some(admits) = admits {
        let admits = move |peer: PeerId, _: &Multiaddr, _| device_of(&peer).is_some_and(|device| admits(&device));
        config.reservation_rate_limiters.push(Box::new(admits));
    }
    config
}

/// Discovery on the local network. Without it a node still works, so a host that refuses multicast is
/// worth a warning and no more.
pub(crate) fn discovery(peer: PeerId) -> Toggle<mdns::tokio::Behaviour> {
    let config = mdns::Config { query_interval: MDNS_QUERY, ..mdns::Config::default() };
    match mdns::tokio::Behaviour::new(config, peer) {
        Ok(discovery) => Some(discovery).into(),
        Err(error) => {
            tracing::warn!(%error, "discovery on the local network is off");
            None.into()
        }
    }
}

fn transport(keypair: &Keypair, circuits: relay::client::Transport) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let mut quic = quic::Config::new(keypair);
    quic.keep_alive_interval = keep_alive(&keypair.public().to_peer_id());
    quic.max_idle_timeout = QUIC_IDLE;
    quic.max_concurrent_stream_limit = MAX_STREAMS;
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .map(|stream, _| {
            if let Err(error) = watch_liveness(&stream.0) {
                tracing::debug!(%error, "kernel keep-alive is not available");
            }
            stream
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).map_err(io::Error::other)?)
        .multiplex(muxer())
        .timeout(TCP_HANDSHAKE);
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).map_err(io::Error::other)?)
        .multiplex(muxer())
        .timeout(TCP_HANDSHAKE);
    let quic = quic::tokio::Transport::new(quic);
    Ok(circuits
        .or_transport(quic.or_transport(tcp))
        .map(|output, _| match output {
            Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
            Either::Right(Either::Left((peer, muxer))) => (peer, StreamMuxerBox::new(muxer)),
            Either::Right(Either::Right((peer, muxer))) => (peer, StreamMuxerBox::new(muxer)),
        })
        .boxed())
}

fn muxer() -> yamux::Config {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(MAX_STREAMS as usize);
    muxer
}

fn keep_alive(peer: &PeerId) -> Duration {
    let bytes = peer.to_bytes();
    let share = bytes.last_chunk().map_or(0, |chunk| u16::from_be_bytes(*chunk));
    QUIC_KEEP_ALIVE + QUIC_KEEP_ALIVE_SPREAD.mul_f64(f64::from(share) / f64::from(u16::MAX))
}

/// Lets the kernel notice a TCP peer that went away without a word: cheaper than messages of our own.
fn watch_liveness(stream: &tokio::net::TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, TCP_PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, TCP_PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, TCP_PROBES)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, TCP_UNACKNOWLEDGED)?;
    Ok(())
}
