//! Starting a node from its home, and the small files there: the port and the peers' addresses.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use meshwork_host::{
    entropy::entropy,
    identity::Identity,
    swarm::{Address, Network, NetworkConfig, NetworkEvent},
};
use meshwork_protocol::{
    contact::CardDevice,
    id::{ChainId, DeviceId, Incarnation, MeshId, ObjectId},
    key::DeviceKey,
    limits,
    seal::SealKey,
    wire::{self, sync::Frame},
};
use meshwork_replica::replica::{self, Replica, Stored};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Driver, EVENTS, Event, LOOK_AGAIN, Writing, admission::Admission, arrivals::Arrivals, bulk::Bulk, folders::Folders,
    node::Node, pairing::Pairing, peers::Peers, rendezvous::Rendezvous, restore::Restoring, rows, services::Services,
    tickets::Shown, tunnels::Ports,
};
use crate::{
    daemon::{NodeConfig, StartError},
    disk::blobs::BlobStore,
    network::serve::ServeSlots,
    resource::events::EventLog,
    store::{Entry, EntryKind, OpenReport, Store, handle::StoreHandle},
};

const PORT_FILE: &str = "listen";
const NAME_FILE: &str = "name";
const ADDRESSES_FILE: &str = "addresses.json";
/// Addresses kept for one device.
const ADDRESSES_EACH: usize = 8;

pub(super) fn device_key(identity: &Identity) -> DeviceKey {
    DeviceKey::from_bytes(identity.device_secret())
}

pub(super) fn seal_key(identity: &Identity) -> SealKey {
    SealKey::from_bytes(identity.seal_secret())
}

pub(super) fn replica(identity: &Identity, mesh: MeshId) -> Replica {
    Replica::new(replica::Identity {
        device: device_key(identity),
        seal: seal_key(identity),
        incarnation: identity.incarnation(),
        mesh,
    })
}

/// Where devices were reached last, so that they are found again without help.
#[derive(Default)]
pub(crate) struct KnownAddresses {
    home: PathBuf,
    known: BTreeMap<String, Vec<String>>,
}

impl KnownAddresses {
    fn load(home: &Path) -> Self {
        let text = fs::read(home.join(ADDRESSES_FILE)).unwrap_or_default();
        // Only a cache: what cannot be read is learned again.
        let known = serde_json::from_slice(&text).unwrap_or_default();
        KnownAddresses { home: home.to_owned(), known }
    }

    pub fn of(&self, device: DeviceId) -> Vec<Address> {
        let known = self.known.get(&device.to_string()).into_iter().flatten();
        known.filter_map(|address| address.parse().ok()).collect()
    }

    /// Remembers addresses, the newest first. Tells whether anything is new.
    pub fn remember(&mut self, device: DeviceId, addresses: &[Address]) -> bool {
        let known = self.known.entry(device.to_string()).or_default();
        let fresh: Vec<String> = addresses.iter().map(ToString::to_string).filter(|a| !known.contains(a)).collect();
        if fresh.is_empty() {
            return false;
        }
        known.splice(0..0, fresh);
        known.truncate(ADDRESSES_EACH);
        self.save();
        true
    }

    /// Remembers addresses that somebody else told, behind those that are known and only as far as there is room:
    /// whoever tells falsehoods displaces nothing. Tells whether anything is new.
    pub fn add_hints(&mut self, device: DeviceId, addresses: &[Address]) -> bool {
        let known = self.known.entry(device.to_string()).or_default();
        let before = known.len();
        for address in addresses.iter().map(ToString::to_string) {
            if known.len() < ADDRESSES_EACH && !known.contains(&address) {
                known.push(address);
            }
        }
        let grown = known.len() > before;
        if grown {
            self.save();
        }
        grown
    }

    fn save(&self) {
        let text = serde_json::to_vec_pretty(&self.known).unwrap_or_default();
        if let Err(error) = write_small(&self.home, ADDRESSES_FILE, &text) {
            tracing::warn!(%error, "addresses of peers could not be stored");
        }
    }
}

/// Writes a small file whole or not at all.
pub(super) fn write_small(home: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(home)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(home.join(name)).map(drop).map_err(|error| error.error)
}

/// Starts a node on its home, which the caller has locked.
pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
    let home = config.home.root().to_owned();
    let mut rng = entropy();
    let mut identity = Identity::load_or_create(&home, &mut rng)
        .map_err(|error| StartError::new(format!("The key file cannot be used: {error}."), "See the message."))?;
    let own_name = own_name(&home, config.name.as_deref())?;
    raise_file_limit();
    let (stored, store, report) = open_store(&home)?;
    if !report.rolled_back.is_empty() {
        // Others may hold records that the log has lost: what is written from now on is another chain.
        identity.renew_incarnation(&mut rng);
        identity.save(&home, &mut rng).map_err(|error| home_error(&error))?;
    }
    let (events, inbox) = mpsc::channel(EVENTS);
    let folders = Folders::load(home.clone(), events.clone()).map_err(|error| home_error(&error))?;
    let services = Services::load(home.clone()).map_err(|error| {
        StartError::new(
            format!("The file services.json in the home cannot be read: {error}."),
            "Mend it, or take it away: then this device offers no services.",
        )
    })?;
    let replica = restore(&identity, stored, &store, &folders)?;
    let arrivals = Arrivals::load(&*store.index());
    let (store, _thread) = StoreHandle::spawn(store).map_err(|error| home_error(&error))?;
    let (network, network_events) = start_network(&identity, &home, &config).await?;
    tokio::spawn(forward(network_events, events.clone()));
    let bulk = Bulk::new(network.clone(), &config.listen).await;
    let rendezvous = Rendezvous::start(network.clone(), events.clone());
    let admission = Admission::start(network.clone());
    let log = Arc::new(EventLog::new());
    let driver = Driver {
        replica,
        rng,
        peers: Peers::new(events.clone(), store.clone()),
        store,
        writing: Writing::default(),
        arrivals,
        network,
        blobs: Arc::new(BlobStore::open(&home).map_err(|error| home_error(&error))?),
        events: events.clone(),
        log: log.clone(),
        folders,
        pairing: Pairing::default(),
        restoring: Restoring::default(),
        known: KnownAddresses::load(&home),
        rendezvous,
        admission,
        tickets: Shown::default(),
        listening: Vec::new(),
        serve_slots: ServeSlots::default(),
        bulk,
        services,
        ports: Ports::new(),
        own_name,
        started: Instant::now(),
        look_again: Instant::now() + LOOK_AGAIN,
        trim: None,
        stopping: None,
        problems: BTreeMap::new(),
        adopting: None,
        identity,
        home,
    };
    tokio::spawn(driver.begin(inbox));
    Ok(Node::new(events, log))
}

impl Driver {
    /// Puts everything to work that was there before, then runs.
    async fn begin(mut self, inbox: mpsc::Receiver<Event>) {
        for object in self.folders.objects() {
            let convergence = self.replica.as_ref().and_then(|replica| replica.convergence(object)).cloned();
            self.folders.open(object, convergence.as_ref());
        }
        if let Some(replica) = &mut self.replica {
            let outputs = replica.resume(crate::clock::now(), &mut self.rng);
            self.carry_out(outputs);
        }
        self.allow_peers();
        self.run(inbox).await;
    }

    /// Keeps under which name the device writes from now on. Where that fails, it finds out again after a restart that
    /// it may not go on under the old one.
    pub(super) fn keep_incarnation(&mut self, incarnation: Incarnation) {
        self.identity.set_incarnation(incarnation);
        if let Err(error) = self.identity.save(&self.home, &mut self.rng) {
            tracing::error!(%error, "that this device writes in new chains could not be stored");
        }
    }

    /// Keeps the port that the node got, so that it is found there again.
    pub(super) fn remember_port(&mut self, address: &Address) {
        let Some(port) = address.socket().map(|socket| socket.port()) else {
            return;
        };
        let path = self.home.join(PORT_FILE);
        if !path.exists()
            && let Err(error) = write_small(&self.home, PORT_FILE, port.to_string().as_bytes())
        {
            tracing::warn!(%error, "the port could not be stored");
        }
    }

    /// A device shows itself on the local network.
    pub(super) fn discovered(&mut self, device: DeviceId, addresses: Vec<Address>) {
        let is_peer = self.replica.as_ref().is_some_and(|replica| replica.peers().contains(&device));
        if !is_peer {
            self.restoring.discovered(device, &addresses);
            return self.drive_pairing(super::pairing::PairInput::Discovered { device, addresses });
        }
        if self.known.remember(device, &addresses) {
            self.look_there(device, addresses);
            for peer in self.peers.open() {
                self.tell_addresses(peer, &[device]);
            }
        }
    }

    pub(super) fn look_there(&self, device: DeviceId, addresses: Vec<Address>) {
        let network = self.network.clone();
        tokio::spawn(async move {
            // A network that has stopped needs no addresses.
            let _ = network.set_known(device, addresses).await;
        });
    }

    /// Another device told where some may be reached.
    pub(super) fn told_addresses(&mut self, devices: Vec<CardDevice>) {
        for told in devices {
            let addresses: Vec<Address> = told.addresses.iter().filter_map(|address| address.parse().ok()).collect();
            if !self.peers.is_connected(told.device) && self.known.add_hints(told.device, &addresses) {
                self.look_there(told.device, self.known.of(told.device));
            }
        }
    }

    /// Tells a peer where those of `devices` were reached last with which it is to deal, too.
    pub(super) fn tell_addresses(&mut self, peer: DeviceId, devices: &[DeviceId]) {
        let Some(replica) = &self.replica else { return };
        let acquainted = devices.iter().filter(|device| replica.acquainted(peer, **device));
        let known = acquainted.map(|device| {
            let addresses = self.known.of(*device).into_iter().map(|address| address.to_string());
            let addresses = addresses.filter(|address| address.len() <= limits::ADDRESS);
            CardDevice { device: *device, addresses: addresses.take(limits::PAIR_ADDRESSES).collect() }
        });
        let known: Vec<CardDevice> = known.filter(|known| !known.addresses.is_empty()).collect();
        for devices in known.chunks(limits::SYNC_DEVICES) {
            self.peers.send(peer, &Frame::Addresses { devices: devices.to_vec() });
        }
    }
}

async fn forward(mut network: mpsc::Receiver<NetworkEvent>, events: mpsc::Sender<Event>) {
    while let Some(event) = network.recv().await {
        if events.send(Event::Network(event)).await.is_err() {
            return;
        }
    }
}

async fn start_network(
    identity: &Identity,
    home: &Path,
    config: &NodeConfig,
) -> Result<(meshwork_host::swarm::NetworkHandle, mpsc::Receiver<NetworkEvent>), StartError> {
    let port = fs::read_to_string(home.join(PORT_FILE)).ok().and_then(|text| text.trim().parse().ok());
    let settings = |listen: Vec<SocketAddr>| {
        let mut network = NetworkConfig::new(identity.device_secret().clone());
        network.mdns = config.mdns;
        network.upnp = config.upnp;
        network.protocols = vec![wire::CONTROL, wire::CHUNKS, wire::TUNNEL, wire::PING];
        network.pairing_protocols = vec![wire::PAIR];
        network.guest_protocols = vec![wire::RESTORE];
        network.relay_protocols = vec![wire::SPLICE, wire::ADMISSION, wire::RENDEZVOUS];
        network.pairing_time = limits::PAIR_LIFE;
        network.listen = listen;
        network
    };
    let any = |port: u16| -> Vec<SocketAddr> {
        vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
    };
    let chosen = if config.listen.is_empty() { any(port.unwrap_or(0)) } else { config.listen.clone() };
    match Network::start(settings(chosen)) {
        Ok(started) => Ok(started),
        // Another program may have taken the stored port; one of the node's own choice is better than none.
        Err(error) if config.listen.is_empty() && port.is_some() => {
            tracing::warn!(%error, "the stored port cannot be used; taking another");
            Network::start(settings(any(0))).map_err(|error| network_error(&error))
        }
        Err(error) => Err(network_error(&error)),
    }
}

/// The device's name: given now, stored before, or the host's.
fn own_name(home: &Path, given: Option<&str>) -> Result<String, StartError> {
    let stored = fs::read_to_string(home.join(NAME_FILE)).ok();
    let host =
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "device".to_owned()).trim().to_owned();
    let name = given.map(str::to_owned).or(stored).unwrap_or(host);
    if !meshwork_protocol::pairing::is_name(&name) {
        return Err(StartError::new(
            "A device's name has 1 to 64 bytes and no control characters.",
            "Choose another one with --name.",
        ));
    }
    write_small(home, NAME_FILE, name.as_bytes()).map_err(|error| home_error(&error))?;
    Ok(name)
}

fn open_store(home: &Path) -> Result<(Vec<Entry>, Store, OpenReport), StartError> {
    let mut stored = Vec::new();
    let opened = Store::open(home, &mut entropy(), |entry| stored.push(entry));
    let (store, report) = opened.map_err(|error| {
        StartError::new(format!("The store cannot be opened: {error}."), "Make room on the disk, or restore a backup.")
    })?;
    Ok((stored, store, report))
}

/// Builds the replica from the log and the stored bases of the folders here. The first entry of a log is
/// the genesis of the node's own mesh.
fn restore(
    identity: &Identity,
    stored: Vec<Entry>,
    store: &Store,
    folders: &Folders,
) -> Result<Option<Replica>, StartError> {
    let Some(first) = stored.first() else { return Ok(None) };
    let mut replica = replica(identity, MeshId(first.object.0));
    let index = store.index();
    let objects: Vec<ObjectId> = folders.objects();
    for object in &objects {
        let base = rows::load(&*index, *object).unwrap_or_else(|error| {
            tracing::warn!(%error, "the table of local files cannot be read; the files are looked at anew");
            Default::default()
        });
        replica.expect_base(*object, base);
    }
    for entry in stored.iter().filter(|entry| matches!(entry.kind, EntryKind::Floor { .. })) {
        restore_retired(&mut replica, entry);
    }
    for entry in stored {
        match entry.kind {
            EntryKind::Control => match Stored::unpack(&entry.payload) {
                Ok(items) => items.iter().for_each(|item| replica.restore_control(item)),
                Err(error) => tracing::warn!(%error, "stored control statements cannot be read"),
            },
            EntryKind::Record { own, .. } => replica.restore_record(entry.object, entry.payload, own),
            EntryKind::Floor { .. } => {}
        }
    }
    objects.into_iter().for_each(|object| replica.remap_folder(object));
    Ok(Some(replica))
}

fn restore_retired(replica: &mut Replica, entry: &Entry) {
    let EntryKind::Floor { chain, .. } = entry.kind else { return };
    let told = entry.payload.split_first_chunk().and_then(|(device, by)| Some((*device, by.try_into().ok()?)));
    match told {
        Some((device, by)) => replica.restore_retired(entry.object, chain, DeviceId(device), ChainId(by)),
        None => tracing::warn!("for what a chain was let go of cannot be read"),
    }
}

/// A transfer opens many files at once; the usual soft limit is far below what the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn home_error(error: &dyn std::fmt::Display) -> StartError {
    StartError::new(
        format!("The home cannot be used: {error}."),
        "Make it readable and writable for you, with room on its disk.",
    )
}

fn network_error(error: &dyn std::fmt::Display) -> StartError {
    StartError::new(format!("The network cannot be used: {error}."), "Choose another address with --listen.")
}
