//! Control streams: one to each connected device, with a task that reads and one that writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use meshwork_host::swarm::{Address, NetworkHandle, Path, Stream};
use meshwork_protocol::{
    id::{ChainId, DeviceId, ObjectId},
    limits,
    wire::{
        self,
        sync::{Frame, Reason},
    },
};
use meshwork_replica::{
    replica::{Input, Replica},
    sync::serve::pack,
};
use tokio::{
    io::{AsyncWriteExt, BufWriter, ReadHalf, WriteHalf},
    sync::mpsc,
    task::AbortHandle,
};

use super::{
    Driver, Event,
    admission::Acquaintances,
    servers::{self, RELAY},
};
use crate::{
    clock,
    network::frame::{read_frame, write_frame},
    store::handle::StoreHandle,
};

/// What waits to be written to one peer; with more it is too slow and is cut off.
const OUTGOING: usize = 1_024;
/// Pause before a control stream that failed is opened again.
const REOPEN: Duration = Duration::from_millis(500);

enum Outgoing {
    Frame(Vec<u8>),
    Serve { object: ObjectId, places: Vec<(ChainId, u64)>, answer: bool },
}

struct Peer {
    generation: u64,
    outgoing: mpsc::Sender<Outgoing>,
    since: u64,
    reader: AbortHandle,
}

impl Drop for Peer {
    /// A stream that is no longer read must not stay open: the other side would go on writing to it.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The control streams of a node.
pub(crate) struct Peers {
    streams: BTreeMap<DeviceId, Peer>,
    connected: BTreeMap<DeviceId, Path>,
    /// Devices to which a stream is being opened; a second one beside it would be a different one at
    /// either end.
    opening: BTreeSet<DeviceId>,
    generations: u64,
    events: mpsc::Sender<Event>,
    store: StoreHandle,
}

impl Peers {
    pub fn new(events: mpsc::Sender<Event>, store: StoreHandle) -> Self {
        Peers {
            streams: BTreeMap::new(),
            connected: BTreeMap::new(),
            opening: BTreeSet::new(),
            generations: 0,
            events,
            store,
        }
    }

    pub fn is_current(&self, device: DeviceId, generation: u64) -> bool {
        self.streams.get(&device).is_some_and(|peer| peer.generation == generation)
    }

    /// Connected devices with their path, and since when their control stream is open (milliseconds
    /// since the epoch).
    pub fn connected(&self) -> impl Iterator<Item = (DeviceId, Path, u64)> {
        let with_stream = self.connected.iter().filter(|(device, _)| self.streams.contains_key(device));
        with_stream.map(|(device, path)| (*device, *path, self.streams.get(device).map_or(0, |peer| peer.since)))
    }

    pub fn path_changed(&mut self, device: DeviceId, path: Path) {
        if let Some(known) = self.connected.get_mut(&device) {
            *known = path;
        }
    }

    /// The devices to which a control stream is open.
    pub fn open(&self) -> Vec<DeviceId> {
        self.streams.keys().copied().collect()
    }

    pub fn is_connected(&self, device: DeviceId) -> bool {
        self.streams.contains_key(&device)
    }

    pub fn send(&mut self, device: DeviceId, frame: &Frame) {
        tracing::trace!(peer = %device.short(), frame = frame.name(), "sending");
        self.queue(device, Outgoing::Frame(frame.encode()));
    }

    pub fn serve(&mut self, device: DeviceId, object: ObjectId, places: Vec<(ChainId, u64)>, answer: bool) {
        self.queue(device, Outgoing::Serve { object, places, answer });
    }

    fn queue(&mut self, device: DeviceId, outgoing: Outgoing) {
        let Some(peer) = self.streams.get(&device) else { return };
        if peer.outgoing.try_send(outgoing).is_err() {
            // Dropping the queue ends the writer, the stream, and with it the reader, which tells.
            tracing::info!(peer = %device.short(), "a peer that takes nothing is cut off");
            let closed = mpsc::channel(1).0;
            if let Some(peer) = self.streams.get_mut(&device) {
                peer.outgoing = closed;
            }
        }
    }

    pub fn close(&mut self) {
        self.streams.clear();
    }

    /// Takes a stream into use and gives its generation.
    fn adopt(&mut self, device: DeviceId, stream: Stream) -> u64 {
        self.generations += 1;
        let generation = self.generations;
        let (reader, writer) = tokio::io::split(stream);
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let reader = tokio::spawn(read(device, generation, reader, self.events.clone())).abort_handle();
        tokio::spawn(write(device, generation, writer, queue, self.events.clone(), self.store.clone()));
        let since = clock::now().as_micros() / 1_000;
        self.streams.insert(device, Peer { generation, outgoing, since, reader });
        generation
    }
}

async fn read(device: DeviceId, generation: u64, mut reader: ReadHalf<Stream>, events: mpsc::Sender<Event>) {
    let reason = loop {
        match read_frame(&mut reader, limits::SYNC_FRAME).await {
            Ok(Some(bytes)) => {
                if events.send(Event::Frame { device, generation, bytes }).await.is_err() {
                    return;
                }
            }
            Ok(None) => break "closed".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    // A loop that has ended needs no answer.
    let _ = events.send(Event::Ended { device, generation, reason }).await;
}

async fn write(
    device: DeviceId,
    generation: u64,
    writer: WriteHalf<Stream>,
    mut queue: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<Event>,
    store: StoreHandle,
) {
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    while let Some(outgoing) = queue.recv().await {
        let written = match outgoing {
            Outgoing::Frame(frame) => write_frame(&mut writer, &frame).await,
            Outgoing::Serve { object, places, answer } => {
                match write_records(&mut writer, &store, object, places, answer).await {
                    Ok(through) => {
                        let sent = Event::Sent { device, generation, object, answer, through };
                        events.send(sent).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let flushed = match written {
            Ok(()) if queue.is_empty() => writer.flush().await,
            other => other,
        };
        if let Err(error) = flushed {
            tracing::debug!(peer = %device.short(), %error, "a control stream broke");
            break;
        }
    }
    // The peer learns of the end by the stream.
    let _ = writer.shutdown().await;
    // The reader of a stream that is broken for writing may wait on; a loop that has ended needs no answer.
    let _ = events.send(Event::Ended { device, generation, reason: "no longer written to".to_owned() }).await;
}

/// Reads records from the store and writes them; gives the newest place sent of each chain.
async fn write_records(
    writer: &mut BufWriter<WriteHalf<Stream>>,
    store: &StoreHandle,
    object: ObjectId,
    places: Vec<(ChainId, u64)>,
    answer: bool,
) -> io::Result<Vec<(ChainId, u64)>> {
    let wanted = places.clone();
    let packed = store.run(move |store| {
        let read = |chain, seq| match store.record(chain, seq) {
            Ok(entry) => entry.map(|entry| entry.payload),
            Err(error) => {
                tracing::error!(%error, "a record cannot be read");
                None
            }
        };
        pack(object, &wanted, answer, read)
    });
    let packed = packed.await.map_err(io::Error::other)?;
    tracing::trace!(object = %object.short(), asked = places.len(), frames = packed.frames.len(), "sending records");
    for frame in packed.frames {
        write_frame(writer, &frame.encode()).await?;
    }
    Ok(packed.through)
}

impl Driver {
    pub(super) fn peer_up(&mut self, device: DeviceId, path: Path) {
        self.peers.connected.insert(device, path);
        self.open_control(device, Duration::ZERO);
    }

    /// One of the two opens the stream: the one with the smaller id.
    fn open_control(&mut self, device: DeviceId, pause: Duration) {
        let allowed = self.replica.as_ref().is_some_and(|replica| replica.peers().contains(&device));
        let ours = self.network.device() < device;
        if !allowed || !ours || self.peers.is_connected(device) || !self.peers.opening.insert(device) {
            return;
        }
        let (network, events): (NetworkHandle, _) = (self.network.clone(), self.events.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let event = match network.open_stream(device, wire::CONTROL).await {
                Ok(stream) => Event::Opened { device, stream },
                Err(error) => {
                    tracing::debug!(peer = %device.short(), %error, "a control stream could not be opened");
                    Event::NotOpened { device }
                }
            };
            // A loop that has ended needs no answer.
            let _ = events.send(event).await;
        });
    }

    /// Opens what is missing, after the set of allowed devices changed.
    pub(super) fn open_missing_controls(&mut self) {
        for device in self.peers.connected.keys().copied().collect::<Vec<_>>() {
            self.open_control(device, Duration::ZERO);
        }
    }

    pub(super) fn control_opened(&mut self, device: DeviceId, stream: Stream) {
        self.peers.opening.remove(&device);
        let allowed = self.replica.as_ref().is_some_and(|replica| replica.peers().contains(&device));
        if !allowed {
            return;
        }
        if self.peers.streams.remove(&device).is_some() {
            self.drive(Input::PeerDown(device));
        }
        self.peers.adopt(device, stream);
        self.drive(Input::PeerUp(device));
        let devices: Vec<DeviceId> = self.replica.iter().flat_map(Replica::peers).collect();
        self.tell_addresses(device, &devices);
        self.seek_at_bootstraps();
        self.report_peer(device, true);
    }

    pub(super) fn control_failed(&mut self, device: DeviceId) {
        self.reopen_control(device, REOPEN);
    }

    fn reopen_control(&mut self, device: DeviceId, pause: Duration) {
        self.peers.opening.remove(&device);
        if self.peers.connected.contains_key(&device) {
            self.open_control(device, pause);
        }
    }

    pub(super) fn control_ended(&mut self, device: DeviceId, generation: u64, reason: &str) {
        if !self.peers.is_current(device, generation) {
            return;
        }
        tracing::debug!(peer = %device.short(), reason, "a control stream ended");
        let since = self.peers.streams.remove(&device).map_or(0, |peer| peer.since);
        self.drive(Input::PeerDown(device));
        self.seek_at_bootstraps();
        self.report_peer(device, false);
        let lived = Duration::from_millis((clock::now().as_micros() / 1_000).saturating_sub(since));
        self.reopen_control(device, if lived > REOPEN { Duration::ZERO } else { REOPEN });
    }

    pub(super) fn peer_down(&mut self, device: DeviceId, reason: &str) {
        self.peers.connected.remove(&device);
        if let Some(generation) = self.peers.streams.get(&device).map(|peer| peer.generation) {
            self.control_ended(device, generation, reason);
        }
    }

    pub(super) fn disconnect(&mut self, device: DeviceId, reason: Reason) {
        tracing::warn!(peer = %device.short(), ?reason, "breaking off with a peer");
        if let Some(generation) = self.peers.streams.get(&device).map(|peer| peer.generation) {
            self.control_ended(device, generation, "closed here");
        }
    }

    /// Tells the network who may connect, and where they were last.
    pub(super) fn allow_peers(&mut self) {
        let Some(replica) = &self.replica else { return };
        let peers = replica.peers();
        let guests = replica.control().roots(replica.mesh_id()).into_iter().map(DeviceId::from).collect();
        let cards = replica.graph().contacts().into_values().flat_map(|contact| contact.devices);
        let cards: BTreeMap<DeviceId, Vec<String>> = cards.map(|known| (known.device, known.addresses)).collect();
        let addresses = |device: &DeviceId| match self.known.of(*device) {
            none if none.is_empty() => {
                cards.get(device).into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
            }
            known => known,
        };
        let relays = servers::list(replica, &RELAY);
        let ways = |device: &DeviceId| {
            let mut ways = addresses(device);
            if replica.person_of(*device).is_none() {
                // All devices of a mesh keep places at the same relays.
                ways.extend(relays.values().filter_map(|addresses| Address::circuit_by(addresses)));
            }
            ways
        };
        let known = peers.iter().map(|device| (*device, ways(device))).filter(|(_, ways)| !ways.is_empty()).collect();
        let relays = relays.into_iter().collect();
        self.admission.allow(Acquaintances { peers, guests, relays, known });
        self.open_missing_controls();
        self.seek_at_bootstraps();
        self.tend_tickets();
        self.judge_tunnels();
        self.forget_replaced_root();
    }
}
