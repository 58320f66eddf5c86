//! Local ports that lead to services of other devices.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use meshwork_host::swarm::NetworkHandle;
use meshwork_protocol::{
    capability::Label,
    id::DeviceId,
    limits,
    wire::{self, tunnel::TunnelMessage},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};

use super::{
    Driver,
    bulk::Bulk,
    command::{Reply, answer, no_mesh},
    services::{label, told},
};
use crate::{
    api::types::{Tunnel, TunnelOpen},
    network::tunnel::{Moved, TunnelError, carry, hear, say},
    resource::ResourceError,
};

/// What is asked about local ports.
pub(crate) enum Ask {
    List(Reply<Vec<Tunnel>>),
    Open { open: TunnelOpen, reply: Reply<Tunnel> },
    Opened { port: Port, reply: Reply<Tunnel> },
    Close { port: u16, reply: Reply<()> },
}

/// The local ports of a node, by their numbers.
pub(crate) type Ports = BTreeMap<u16, Port>;

/// A local port; dropped, it and all its connections end.
pub(crate) struct Port {
    address: SocketAddr,
    leads: Leads,
    state: Arc<PortState>,
    task: AbortHandle,
}

/// Where a port leads.
#[derive(Clone)]
struct Leads {
    device: DeviceId,
    service: Label,
}

#[derive(Default)]
struct PortState {
    open: AtomicUsize,
    problem: Mutex<Option<String>>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driver {
    pub(super) fn on_tunnels(&mut self, ask: Ask) {
        match ask {
            Ask::List(reply) => answer(reply, Ok(self.ports.values().map(|port| self.tunnel(port)).collect())),
            Ask::Open { open, reply } => match self.lead(&open) {
                Ok(leads) => self.open_port(leads, open.port, reply),
                Err(error) => answer(reply, Err(error)),
            },
            Ask::Opened { port, reply } => {
                let tunnel = self.tunnel(&port);
                self.ports.insert(port.address.port(), port);
                answer(reply, Ok(tunnel));
            }
            Ask::Close { port, reply } => {
                let closed = self.ports.remove(&port).map(drop);
                answer(reply, closed.ok_or_else(|| no_port(port)));
            }
        }
    }

    fn tunnel(&self, port: &Port) -> Tunnel {
        Tunnel {
            address: port.address.to_string(),
            port: port.address.port(),
            device: port.leads.device.to_string(),
            device_name: self.name_of(port.leads.device),
            service: port.leads.service.to_string(),
            open: port.state.open.load(Ordering::Relaxed),
            problem: port.state.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Where a port is to lead. What devices of the mesh do not offer is refused at once; what those of others do
    /// becomes known with the first connection.
    fn lead(&self, open: &TunnelOpen) -> Result<Leads, ResourceError> {
        let service = label(&open.service)?;
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let device = self.find_peer(&open.device)?;
        let is_own = replica.person_of(device).is_none();
        if is_own && !told(replica).any(|it| it == (device, service.clone())) {
            return Err(ResourceError::not_found(
                format!("{} offers no service {service}.", open.device),
                "`mesh service ls` shows what the devices of this mesh offer; there: `mesh service offer NAME PORT`.",
            ));
        }
        if self.ports.len() >= limits::TUNNEL_PORTS {
            return Err(ResourceError::new(
                409,
                "too_many",
                format!("{} ports lead to services already.", limits::TUNNEL_PORTS),
                "Close one first: `mesh close PORT`.",
            ));
        }
        Ok(Leads { device, service })
    }

    fn open_port(&self, leads: Leads, port: u16, reply: Reply<Tunnel>) {
        let (network, bulk, events) = (self.network.clone(), self.bulk.clone(), self.events.clone());
        tokio::spawn(async move {
            let bound = async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
                Ok((listener.local_addr()?, listener))
            };
            let (address, listener) = match bound.await {
                Ok(bound) => bound,
                Err(error) => return answer(reply, Err(port_taken(port, &error))),
            };
            let state = Arc::<PortState>::default();
            let task = tokio::spawn(take_connections(listener, leads.clone(), (network, bulk), state.clone()));
            let port = Port { address, leads, state, task: task.abort_handle() };
            let opened = super::command::Command::Tunnels(Ask::Opened { port, reply });
            // A loop that has ended needs no port.
            let _ = events.send(super::Event::Command(opened)).await;
        });
    }
}

fn no_port(port: u16) -> ResourceError {
    ResourceError::not_found(
        format!("Port {port} leads nowhere."),
        "`mesh open` without arguments shows those that do.",
    )
}

fn port_taken(port: u16, error: &std::io::Error) -> ResourceError {
    ResourceError::new(
        409,
        "port_taken",
        format!("Port {port} cannot be used: {error}."),
        "Choose another one, or leave it out for one that is free.",
    )
}

async fn take_connections(
    listener: TcpListener,
    leads: Leads,
    (network, bulk): (NetworkHandle, Bulk),
    state: Arc<PortState>,
) {
    let places = Arc::new(Semaphore::new(limits::TUNNELS_PER_DEVICE));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let local = match listener.accept().await {
            Ok((local, _)) => local,
            Err(error) => {
                // Out of descriptors, or a connection that was gone already: the next one may do better.
                tracing::debug!(%error, "a connection to a local port could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (leads, network, bulk, state) = (leads.clone(), network.clone(), bulk.clone(), state.clone());
        connections.spawn(async move {
            state.open.fetch_add(1, Ordering::Relaxed);
            let problem = through(local, &leads, &network, &bulk).await.err();
            if let Some(problem) = &problem {
                tracing::debug!(peer = %leads.device.short(), problem, "a tunnel did not come about");
            }
            *state.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
            state.open.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

/// One connection through the mesh. An error is why none came about; one that breaks later just ends.
async fn through(local: TcpStream, leads: &Leads, network: &NetworkHandle, bulk: &Bulk) -> Result<(), String> {
    local.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut stream = network.open_stream(leads.device, wire::TUNNEL).await.map_err(|error| error.to_string())?;
    let (ready, splice) = bulk.ready_for(leads.device).await.unzip();
    let opening = async {
        say(&mut stream, &TunnelMessage::Open { service: leads.service.clone(), splice: splice.flatten() }).await?;
        let TunnelMessage::Opened { offer } = hear(&mut stream).await? else { return Err(TunnelError::Unexpected) };
        let channel = match (ready, offer) {
            (Some(ready), Some(offer)) => bulk.accept(ready, offer, leads.device).await,
            _ => None,
        };
        say(&mut stream, &TunnelMessage::Carry { bulk: channel.is_some() }).await?;
        Ok(channel)
    };
    let channel = opening.await.map_err(|error| error.to_string())?;
    let moved = Moved::default();
    let carried = match channel {
        Some(channel) => carry(local, channel, &moved).await,
        None => carry(local, stream, &moved).await,
    };
    if let Err(error) = carried {
        tracing::debug!(peer = %leads.device.short(), %error, "a tunnel broke");
    }
    Ok(())
}
