//! The life of a server program (a relay, a bootstrap): configuration, lock, identity, network,
//! health, and a clean stop.

pub mod init;
pub mod metrics;
pub mod probe;
pub mod terms;

use std::{net::SocketAddr, path::PathBuf};

use axum::Router;
use meshwork_protocol::id::DeviceId;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use crate::{
    address::{Address, ParseAddressError},
    config::{self, ConfigError, Table},
    entropy::entropy,
    health::{Health, HealthAddress, HealthAddressError, HealthServer},
    identity::{HomeLock, Identity, IdentityError, LockError},
    supervise::{Signals, Stop, SuperviseError, Supervisor, TaskError},
    swarm::{Network, NetworkConfig, NetworkEvent, NetworkHandle, StartError, Stream},
    telemetry::{self, LogConfig, LogTarget, TelemetryError},
};

/// Name of the configuration file in the home directory.
pub const CONFIG_FILE: &str = "config.toml";

/// Connections that a public server holds at one time unless configured otherwise.
const CONNECTIONS: u32 = 2048;

/// Which program this is.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// As the command is called, `mesh-relay`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// What the command line says. `None` and empty leave the configuration file or the default in place.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Directory of the identity and the configuration; made if missing.
    pub home: PathBuf,
    /// Where to listen, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Where to answer health probes, `ip:port` of the loopback interface or the path of a socket.
    pub health: Option<String>,
    /// Log filter.
    pub log: Option<String>,
    /// Whether to log JSON.
    pub json: bool,
}

/// The configuration file of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServerConfig<S: Default> {
    listen: Vec<SocketAddr>,
    public: Vec<String>,
    health: Option<String>,
    max_connections: u32,
    log: LogSection,
    service: S,
}

/// A server before it starts: what the program may add to it.
pub struct Setup<'a, S> {
    /// The section `[service]` of its configuration.
    pub service: S,
    /// Addresses that others are to be told.
    pub public: Vec<Address>,
    /// The network that will be started.
    pub network: &'a mut NetworkConfig,
    /// Runs its tasks.
    pub supervisor: &'a mut Supervisor,
    /// What the probes answer.
    pub health: Health,
    /// Routes served beside the probes.
    pub routes: Router,
    /// Takes the streams that others open; without it they are refused.
    pub on_stream: Option<OnStream>,
}

/// A stream that a device opened to a server.
pub struct Incoming {
    /// What for.
    pub protocol: &'static str,
    /// Who, proven by its key.
    pub device: DeviceId,
    /// Where it comes from.
    pub from: Option<SocketAddr>,
    /// The stream.
    pub stream: Stream,
}

/// What a server does with a stream of a device; it must not block.
pub type OnStream = Box<dyn FnMut(Incoming) + Send>;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogSection {
    filter: String,
    json: bool,
    file: Option<PathBuf>,
}

impl<S: Default> Default for ServerConfig<S> {
    fn default() -> Self {
        let listen = vec![([0, 0, 0, 0], 4001).into(), ([0u16; 8], 4001).into()];
        let log = LogSection::default();
        Self { listen, public: Vec::new(), health: None, max_connections: CONNECTIONS, log, service: S::default() }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { filter: LogConfig::default().filter, json: false, file: None }
    }
}

/// A server program ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Its configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Health cannot be served there.
    #[error("health address: {0}")]
    HealthAddress(#[from] HealthAddressError),
    /// Health cannot be served there now.
    #[error("health at {address}: {source}")]
    Health {
        /// As configured.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address for others is not one.
    #[error("public address {address:?}: {source}; write for example /ip4/192.0.2.1/tcp/4001")]
    Public {
        /// As configured.
        address: String,
        /// What is wrong with it.
        source: ParseAddressError,
    },
    /// What the program does for others did not start.
    #[error("{0}")]
    Service(TaskError),
    /// Logging cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The home directory is in use or not private.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The identity cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network did not start.
    #[error(transparent)]
    Network(#[from] StartError),
    /// It failed while it ran.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
}

/// Runs a server until SIGTERM, SIGINT or a failure.
///
/// `set_up` says what kind of server it is.
pub async fn run<S: Default + DeserializeOwned>(
    program: Program,
    options: Options,
    set_up: impl AsyncFnOnce(&mut Setup<'_, S>) -> Result<(), TaskError>,
) -> Result<(), ProgramError> {
    let config: ServerConfig<S> = config::load(&options.home.join(CONFIG_FILE), flags(&options))?;
    let health_address: Option<HealthAddress> = config.health.as_deref().map(str::parse).transpose()?;
    let public = public(&config.public)?;
    let target = config.log.file.clone().map_or(LogTarget::Stderr, LogTarget::File);
    telemetry::start(&LogConfig { filter: config.log.filter.clone(), json: config.log.json, target })?;
    let lock = HomeLock::acquire(&options.home)?;
    let identity = Identity::load_or_create(lock.home(), &mut entropy())?;
    let mut network = NetworkConfig::new(identity.device_secret().clone());
    network.listen = config.listen;
    network.max_connections = config.max_connections;
    network.agent = format!("{}/{}", program.name, program.version);
    network.everyone = true;
    network.mdns = false;
    let health = Health::new(program.name, program.version);
    let mut signals = Signals::new().map_err(SuperviseError::from)?;
    let mut supervisor = Supervisor::new();
    let mut setup = Setup {
        service: config.service,
        public,
        network: &mut network,
        supervisor: &mut supervisor,
        health: health.clone(),
        routes: Router::new(),
        on_stream: None,
    };
    set_up(&mut setup).await.map_err(ProgramError::Service)?;
    let (routes, on_stream) = (setup.routes, setup.on_stream);
    if let Some(address) = health_address {
        serve_health(&address, &health, routes, &mut supervisor).await?;
    }
    let (handle, events) = Network::start(network)?;
    tracing::info!(program = program.name, version = program.version, device = %handle.device(), "started");
    supervisor.spawn("network", follow(handle, events, on_stream, health, supervisor.stop()));
    let ended = supervisor.run_with(&mut signals).await;
    drop(lock);
    tracing::info!("stopped");
    Ok(ended?)
}

/// The section `[service]` of a home's configuration.
pub fn settings<S: Default + DeserializeOwned>(home: &std::path::Path) -> Result<S, ConfigError> {
    let config: ServerConfig<S> = config::load(&home.join(CONFIG_FILE), Table::new())?;
    Ok(config.service)
}

/// Where the server of a home answers its operator.
pub fn health_address<S: Default + DeserializeOwned>(
    home: &std::path::Path,
) -> Result<Option<HealthAddress>, ProgramError> {
    let config: ServerConfig<S> = config::load(&home.join(CONFIG_FILE), Table::new())?;
    Ok(config.health.as_deref().map(str::parse).transpose()?)
}

fn public(addresses: &[String]) -> Result<Vec<Address>, ProgramError> {
    let parse =
        |address: &String| address.parse().map_err(|source| ProgramError::Public { address: address.clone(), source });
    addresses.iter().map(parse).collect()
}

async fn serve_health(
    address: &HealthAddress,
    health: &Health,
    routes: Router,
    supervisor: &mut Supervisor,
) -> Result<(), ProgramError> {
    let server = HealthServer::bind(address, health.clone()).await;
    let server = server.map_err(|source| ProgramError::Health { address: address.to_string(), source })?;
    if let Some(bound) = server.tcp_address() {
        tracing::info!(address = %bound, "health");
    }
    let stop = supervisor.stop();
    supervisor.spawn("health", async move { Ok(server.with_routes(routes).serve(stop).await?) });
    Ok(())
}

/// Logs what the network does until it is time to stop it.
async fn follow(
    handle: NetworkHandle,
    mut events: mpsc::Receiver<NetworkEvent>,
    mut on_stream: Option<OnStream>,
    health: Health,
    stop: Stop,
) -> Result<(), TaskError> {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(NetworkEvent::Stream { device, from, protocol, stream }) => match &mut on_stream {
                    Some(take) => take(Incoming { protocol, device, from, stream }),
                    None => tracing::debug!(%device, protocol, "stream refused"),
                },
                Some(event) => note(event, &handle, &health),
                None => return Err("network stopped".into()),
            },
            () = stop.requested() => break,
        }
    }
    health.set_unready("stopping");
    handle.shutdown().await;
    Ok(())
}

fn note(event: NetworkEvent, handle: &NetworkHandle, health: &Health) {
    match event {
        NetworkEvent::Listening { address } => {
            tracing::info!(address = %address.with_device(&handle.device()), "listening");
            health.set_ready();
        }
        NetworkEvent::NotListening { address } => tracing::info!(%address, "no longer listening"),
        NetworkEvent::PeerUp { device, path } => tracing::debug!(%device, %path, "peer is up"),
        NetworkEvent::PathChanged { device, path } => tracing::debug!(%device, %path, "peer is reached another way"),
        NetworkEvent::PeerDown { device, reason } => tracing::debug!(%device, ?reason, "peer is down"),
        NetworkEvent::Refused { device, address, reason } => tracing::debug!(?device, address, reason, "refused"),
        NetworkEvent::Stream { .. } | NetworkEvent::Discovered { .. } | NetworkEvent::RelayUp { .. } => {}
    }
}

fn flags(options: &Options) -> Table {
    let mut flags = Table::new();
    if !options.listen.is_empty() {
        let listen: Vec<String> = options.listen.iter().map(SocketAddr::to_string).collect();
        flags.insert("listen".into(), listen.into());
    }
    if let Some(health) = &options.health {
        flags.insert("health".into(), health.clone().into());
    }
    let mut log = Table::new();
    if let Some(filter) = &options.log {
        log.insert("filter".into(), filter.clone().into());
    }
    if options.json {
        log.insert("json".into(), true.into());
    }
    if !log.is_empty() {
        flags.insert("log".into(), log.into());
    }
    flags
}
