//! Whom the network lets in, whom it looks for and over which relays: told to it by one task, in the order in which that was
//! decided. Of several decisions that wait it is told the last.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use meshwork_host::swarm::{Address, NetworkHandle, Stopped};
use meshwork_protocol::id::DeviceId;
use tokio::sync::Notify;

/// The devices that this one deals with.
#[derive(Debug, Clone, Default)]
pub(super) struct Acquaintances {
    /// Who may connect.
    pub peers: BTreeSet<DeviceId>,
    /// Who may connect for a purpose of their own.
    pub guests: BTreeSet<DeviceId>,
    /// The relays of the mesh.
    pub relays: Vec<(DeviceId, Vec<Address>)>,
    /// Where peers are looked for.
    pub known: Vec<(DeviceId, Vec<Address>)>,
}

/// Whether strangers may come to pair.
#[derive(Debug, Clone, Copy)]
enum Window {
    Open { until: Instant },
    Closed,
}

#[derive(Debug, Default)]
struct Decided {
    acquaintances: Option<Acquaintances>,
    window: Option<Window>,
    over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    decided: Mutex<Decided>,
    more: Notify,
}

/// The driver's end of the task, which ends with it.
pub(crate) struct Admission(Arc<Shared>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.decide(|decided| decided.over = true);
    }
}

impl Admission {
    pub fn start(network: NetworkHandle) -> Self {
        let shared = Arc::<Shared>::default();
        tokio::spawn(tell(network, shared.clone()));
        Self(shared)
    }

    pub(super) fn allow(&self, acquaintances: Acquaintances) {
        self.decide(|decided| decided.acquaintances = Some(acquaintances));
    }

    pub(super) fn open_window(&self, until: Instant) {
        self.decide(|decided| decided.window = Some(Window::Open { until }));
    }

    pub(super) fn close_window(&self) {
        self.decide(|decided| decided.window = Some(Window::Closed));
    }

    fn decide(&self, change: impl FnOnce(&mut Decided)) {
        change(&mut self.0.decided.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.more.notify_one();
    }
}

async fn tell(network: NetworkHandle, shared: Arc<Shared>) {
    loop {
        shared.more.notified().await;
        let decided = std::mem::take(&mut *shared.decided.lock().unwrap_or_else(PoisonError::into_inner));
        // A network that has stopped needs none of it.
        if decided.over || apply(&network, decided).await.is_err() {
            return;
        }
    }
}

async fn apply(network: &NetworkHandle, decided: Decided) -> Result<(), Stopped> {
    match decided.window {
        Some(Window::Open { until }) => network.open_pairing(until).await?,
        Some(Window::Closed) => network.close_pairing().await?,
        None => {}
    }
    let Some(Acquaintances { peers, guests, relays, known }) = decided.acquaintances else { return Ok(()) };
    network.set_allowed(peers).await?;
    network.set_guests(guests).await?;
    network.set_relays(relays).await?;
    for (device, addresses) in known {
        network.set_known(device, addresses).await?;
    }
    Ok(())
}
