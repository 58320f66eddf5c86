//! The settings of a relay, and its start: data port, metrics, terms, drain.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json,
    routing::{get, post},
};
use meshwork_host::{
    address::Address,
    health::HealthAddress,
    program::{
        Incoming, OnStream, Setup,
        probe::{self, Check},
        terms::Terms,
    },
    supervise::{Stop, TaskError},
    swarm::{RelayLimits, Stream},
};
use meshwork_protocol::{
    id::DeviceId,
    key::DeviceKey,
    limits,
    splice::{self, Refusal, Token, VERSION},
    wire,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    admission::{AdmissionSettings, Door},
    data::{DataConfig, DataHandle, DataPort},
};

/// Requests for channels that are answered at one time.
const REQUESTS: usize = 256;

/// The section `[service]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySettings {
    /// Devices that can be reached through this relay at one time.
    pub reservations: usize,
    /// Reservations of one device.
    pub reservations_per_device: usize,
    /// Seconds that a reservation lasts unless it is renewed.
    pub reservation_seconds: u64,
    /// Circuits at one time.
    pub circuits: usize,
    /// Circuits of one device.
    pub circuits_per_device: usize,
    /// Seconds that a circuit lasts.
    pub circuit_seconds: u64,
    /// Bytes through one circuit; 0 is unlimited.
    pub circuit_bytes: u64,
    /// The data port.
    pub data: DataSettings,
    /// Whom it carries for.
    pub admission: AdmissionSettings,
}

/// The section `[service.data]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Where to listen; without it there is no data port.
    pub listen: Option<SocketAddr>,
    /// Connections without their other end.
    pub unpaired: usize,
    /// The same, of one IP address.
    pub unpaired_per_ip: usize,
    /// Pairs joined at one time.
    pub pairs: usize,
    /// Seconds without a byte after which a pair is closed.
    pub idle_seconds: u64,
    /// Bytes a second of one device; 0 is unlimited.
    pub device_rate: u64,
    /// Bytes a second of all; 0 is unlimited.
    pub total_rate: u64,
    /// Bytes in a month; 0 is unlimited.
    pub monthly_bytes: u64,
    /// Where the bytes of the month are remembered.
    pub budget_file: Option<PathBuf>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        let limits = RelayLimits::default();
        Self {
            reservations: limits.reservations,
            reservations_per_device: limits.reservations_per_device,
            reservation_seconds: limits.reservation_time.as_secs(),
            circuits: limits.circuits,
            circuits_per_device: limits.circuits_per_device,
            circuit_seconds: limits.circuit_time.as_secs(),
            circuit_bytes: limits.circuit_bytes,
            data: DataSettings::default(),
            admission: AdmissionSettings::default(),
        }
    }
}

impl RelaySettings {
    fn limits(&self, public: Vec<Address>) -> RelayLimits {
        RelayLimits {
            reservations: self.reservations,
            reservations_per_device: self.reservations_per_device,
            reservation_time: Duration::from_secs(self.reservation_seconds.max(1)),
            circuits: self.circuits,
            circuits_per_device: self.circuits_per_device,
            circuit_time: Duration::from_secs(self.circuit_seconds.max(1)),
            circuit_bytes: self.circuit_bytes,
            public,
        }
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            listen: None,
            unpaired: 1_024,
            unpaired_per_ip: 64,
            pairs: 512,
            idle_seconds: 300,
            device_rate: 0,
            total_rate: 0,
            monthly_bytes: 0,
            budget_file: None,
        }
    }
}

impl DataSettings {
    fn config(&self, listen: SocketAddr) -> DataConfig {
        DataConfig {
            listen,
            unpaired: self.unpaired,
            unpaired_per_ip: self.unpaired_per_ip,
            pairs: self.pairs,
            idle: Duration::from_secs(self.idle_seconds.max(1)),
            device_rate: self.device_rate,
            total_rate: self.total_rate,
            monthly_bytes: self.monthly_bytes,
            budget_file: self.budget_file.clone(),
        }
    }
}

/// Makes a relay of a server.
pub async fn set_up(setup: &mut Setup<'_, RelaySettings>) -> Result<(), TaskError> {
    setup.network.relay = Some(setup.service.limits(std::mem::take(&mut setup.public)));
    let door = Door::new(DeviceKey::from_bytes(&setup.network.device_secret), &setup.service.admission)?;
    setup.network.admits = Some(door.admits());
    setup.network.relay_protocols = vec![wire::ADMISSION];
    let terms = TERMS.to_json(&setup.service);
    setup.routes = std::mem::take(&mut setup.routes).route("/terms", get(async move || Json(terms)));
    let Some(listen) = setup.service.data.listen else {
        setup.on_stream = Some(on_stream(door, None));
        return Ok(());
    };
    let bound = DataPort::bind(setup.service.data.config(listen)).await;
    let port = bound.map_err(|error| format!("data port {listen}: {error}"))?;
    tracing::info!(address = %port.address()?, "data port");
    let (handle, stop) = (port.handle(), setup.supervisor.stop());
    let (metrics, drain) = (handle.clone(), handle.clone());
    setup.routes = std::mem::take(&mut setup.routes)
        .route("/metrics", get(async move || ([("content-type", "text/plain; version=0.0.4")], metrics.metrics())))
        .route("/drain", post(async move || drain.drain()));
    setup.network.relay_protocols.push(wire::SPLICE);
    setup.on_stream = Some(on_stream(door, Some(handle.clone())));
    let health = setup.health.clone();
    setup.supervisor.spawn("drain", drain_on_signal(handle.clone(), stop.clone()));
    let unready = handle.clone();
    let finish = setup.supervisor.finish();
    setup.supervisor.spawn("data port", async move {
        port.serve(stop).await?;
        if unready.is_draining() {
            health.set_unready("drained");
            tracing::info!("drained");
            finish();
        }
        Ok(())
    });
    Ok(())
}

/// Answers devices that show tickets or ask for channels, a bounded number at one time: one more is told nothing and asks
/// again.
fn on_stream(door: Door, data: Option<DataHandle>) -> OnStream {
    let places = Arc::new(Semaphore::new(REQUESTS));
    Box::new(move |Incoming { device, protocol, stream, .. }| {
        let Ok(place) = places.clone().try_acquire_owned() else { return };
        let (door, data) = (door.clone(), data.clone());
        tokio::spawn(async move {
            let answered = async {
                match data.filter(|_| protocol == wire::SPLICE) {
                    Some(data) => grant(stream, device, &door, data).await,
                    None => door.answer(stream, device).await,
                }
            };
            if let Ok(Err(error)) = timeout(limits::SPLICE_PREAMBLE, answered).await {
                tracing::debug!(%device, protocol, %error, "a request broke off");
            }
            drop(place);
        });
    })
}

async fn grant(mut stream: Stream, from: DeviceId, door: &Door, data: DataHandle) -> io::Result<()> {
    let mut to = [0; 32];
    stream.read_exact(&mut to).await?;
    let to = DeviceId(to);
    let opened = if door.lets(&from) || door.lets(&to) { data.open(from, to) } else { Err(Refusal::NotInvited) };
    stream.write_all(&splice::answer(&opened)).await?;
    stream.shutdown().await
}

/// Whether a data port answers there, as it does to a token that nobody got.
pub async fn probe_data(address: SocketAddr) -> Check {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&[&[VERSION], [0; Token::LEN].as_slice()].concat()).await?;
        stream.read_u8().await
    };
    let trouble = match timeout(probe::TIME, asked).await {
        Ok(Ok(code)) if code == Refusal::Unknown.code() => None,
        Ok(Ok(code)) => Some(match Refusal::from_code(code) {
            Some(refusal) => refusal.to_string(),
            None => "something else answers there; give the port of service.data.listen".into(),
        }),
        Ok(Err(error)) => Some(format!("{address}: {error}; set service.data.listen and open this TCP port")),
        Err(_) => Some(format!("{address} did not answer; open this TCP port in the firewall and forward it")),
    };
    Check { name: "data", trouble }
}

/// Tells the running relay that answers there to drain.
pub async fn ask_to_drain(address: &HealthAddress) -> Result<(), TaskError> {
    let answer = match address {
        HealthAddress::Tcp(address) => post_drain(TcpStream::connect(address).await?).await?,
        HealthAddress::Unix(path) => post_drain(UnixStream::connect(path).await?).await?,
    };
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    Err("the relay does not drain: it has no data port, so just stop it".into())
}

async fn post_drain(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    let request = b"POST /drain HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    timeout(probe::TIME, stream.take(4_096).read_to_string(&mut answer)).await??;
    Ok(answer)
}

async fn drain_on_signal(handle: DataHandle, stop: Stop) -> Result<(), TaskError> {
    let mut signals = signal(SignalKind::user_defined1())?;
    tokio::select! {
        _ = signals.recv() => {
            tracing::info!("draining");
            handle.drain();
        }
        () = stop.requested() => {}
    }
    Ok(())
}

/// What this relay promises, limits and can see.
pub const TERMS: Terms = Terms {
    sees: &[
        "the IP addresses and device ids of who connects, and when",
        "which device asks for a connection to which other device",
        "how many bytes go between them, and when",
    ],
    does_not_see: &[
        "contents, names of files, folders and devices: all of it is sealed end to end",
        "who the people are and which meshes they have",
        "anything of connections that do not go through this relay",
    ],
    keeps: &[
        "its own key and configuration on disk, and the bytes of the month when budget_file is set",
        "everything else in memory, until it stops",
    ],
    limits: "Its limits (0 is unlimited)",
};
