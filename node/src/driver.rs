//! The event loop of a node: every cause of anything is one variant of [`Event`]; the replica decides;
//! the effects it asks for are started here and answer with further events.
//!
//! The loop itself never waits for anything but its next event.

mod admission;
mod adopt;
mod arrivals;
mod authority;
mod bootstraps;
mod bulk;
mod chunks;
mod command;
mod doctor;
mod folders;
mod home;
mod missing;
mod node;
mod numbers;
mod pairing;
mod peers;
mod ping;
mod relays;
mod rendezvous;
mod report;
mod restore;
pub mod rows;
mod servers;
mod services;
mod sharing;
mod tickets;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use meshwork_host::{
    entropy::Entropy,
    identity::Identity,
    swarm::{Address, NetworkEvent, NetworkHandle},
};
use meshwork_protocol::{
    id::{ChainId, ContentId, DeviceId, ObjectId},
    rendezvous::Note,
    wire::{self, admission::Answer},
};
use meshwork_replica::{
    folder::{self, observed::Batch},
    replica::{self, Input, Output, Replica, Stored},
    transfer,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use self::{
    command::Command,
    folders::Folders,
    home::KnownAddresses,
    pairing::{PairInput, Pairing},
    peers::Peers,
    restore::{RestoreInput, Restoring},
};
use crate::{
    clock,
    disk::blobs::BlobStore,
    resource::events::EventLog,
    store::{EntryKind, NewEntry, Store, StoreError, handle::StoreHandle},
};

pub use self::{home::start, node::Node};

/// Events that wait for the loop before those who cause them must.
const EVENTS: usize = 1_024;
/// How often a folder that stopped is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Bytes of records that are read again at a time.
const REREAD_PART: usize = 4 << 20;
/// How long after the last work free memory is given back.
const TRIM_AFTER: Duration = Duration::from_secs(5);

/// Everything that can happen to a node.
pub(crate) enum Event {
    /// From the network.
    Network(NetworkEvent),
    /// A control stream to a peer is open.
    Opened { device: DeviceId, stream: meshwork_host::swarm::Stream },
    /// A control stream could not be opened.
    NotOpened { device: DeviceId },
    /// A frame on a control stream.
    Frame { device: DeviceId, generation: u64, bytes: Vec<u8> },
    /// Records asked for were written to a control stream.
    Sent { device: DeviceId, generation: u64, object: ObjectId, answer: bool, through: Vec<(ChainId, u64)> },
    /// Records read again.
    Reread { object: ObjectId, records: Vec<Vec<u8>>, done: bool },
    /// A control stream ended.
    Ended { device: DeviceId, generation: u64, reason: String },
    /// Entries are durable, or could not be stored; what was to be placed once they are, and whether it may be.
    Written { tickets: Vec<u64>, durable: bool, batches: Vec<(ObjectId, Batch)>, noted: Result<(), String> },
    /// Something for a folder.
    Folder { object: ObjectId, input: folder::Input },
    /// A fetch ended.
    Fetched { ticket: u64, outcomes: Vec<(ContentId, transfer::Outcome)> },
    /// The bytes of what is to be taken over were looked for.
    Gathered { object: ObjectId, have: BTreeSet<ContentId> },
    /// A peer asks for a content.
    Locate { device: DeviceId, object: ObjectId, content: ContentId, reply: oneshot::Sender<Option<chunks::Located>> },
    /// A device told at a bootstrap where it is.
    Found { device: DeviceId, note: Note },
    /// A relay was shown a ticket.
    TicketShown { relay: DeviceId, ticket: Vec<u8>, answer: Result<Answer, tickets::ShowError> },
    /// Something in a pairing.
    Pairing(PairInput),
    /// Something in a restore.
    Restore(RestoreInput),
    /// Something of a tunnel to a service of this device.
    Serving(services::Serving),
    /// Something asked of the node.
    Command(Command),
}

/// What is to be written to the store.
#[derive(Default)]
struct Writing {
    busy: bool,
    tickets: Vec<u64>,
    entries: Vec<NewEntry>,
    rows: rows::Rows,
    arrivals: arrivals::Rows,
    /// What is to be placed once all before it is durable.
    batches: Vec<(ObjectId, Batch)>,
}

impl Writing {
    fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.rows.is_empty() && self.batches.is_empty()
    }
}

/// The loop's state.
pub(crate) struct Driver {
    home: PathBuf,
    identity: Identity,
    replica: Option<Replica>,
    rng: Entropy,
    store: StoreHandle,
    writing: Writing,
    arrivals: arrivals::Arrivals,
    network: NetworkHandle,
    blobs: Arc<BlobStore>,
    events: mpsc::Sender<Event>,
    log: Arc<EventLog>,
    peers: Peers,
    folders: Folders,
    pairing: Pairing,
    restoring: Restoring,
    known: KnownAddresses,
    rendezvous: rendezvous::Rendezvous,
    admission: admission::Admission,
    tickets: tickets::Shown,
    listening: Vec<Address>,
    serve_slots: crate::network::serve::ServeSlots,
    bulk: bulk::Bulk,
    services: services::Services,
    ports: tunnels::Ports,
    own_name: String,
    started: Instant,
    look_again: Instant,
    /// When memory is to be given back: some time after the last large work.
    trim: Option<Instant>,
    stopping: Option<oneshot::Sender<()>>,
    problems: BTreeMap<ObjectId, Vec<String>>,
    adopting: Option<adopt::Adopting>,
}

impl Driver {
    /// Runs until the node is asked to stop.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        self.report_start();
        while self.stopping.is_none() {
            let deadline = self.next_deadline();
            tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                () = sleep_until(deadline) => self.on_tick(),
            }
        }
        self.stop(inbox).await;
    }

    fn next_deadline(&self) -> Instant {
        let now = clock::now();
        let replica = self.replica.as_ref().and_then(Replica::next_deadline);
        let due = replica.into_iter().chain(self.pairing.next_deadline()).chain(self.restoring.next_deadline()).min();
        let due = due.map(|due| Instant::now() + (due - now)).unwrap_or(self.look_again);
        due.min(self.look_again).max(Instant::now())
    }

    fn on_tick(&mut self) {
        self.drive(Input::Tick);
        self.drive_pairing(PairInput::Tick);
        self.drive_restore(RestoreInput::Tick);
        if self.look_again <= Instant::now() {
            self.look_again = Instant::now() + LOOK_AGAIN;
            self.look_for_stopped();
            self.show_tickets_again();
        }
        if self.trim.take_if(|due| *due <= Instant::now()).is_some() {
            tokio::task::spawn_blocking(meshwork_host::memory::trim);
        }
    }

    fn on_event(&mut self, event: Event) {
        if matches!(event, Event::Folder { .. } | Event::Fetched { .. } | Event::Locate { .. } | Event::Written { .. })
        {
            self.trim = Some(Instant::now() + TRIM_AFTER);
        }
        match event {
            Event::Network(event) => self.on_network(event),
            Event::Opened { device, stream } => self.control_opened(device, stream),
            Event::NotOpened { device } => self.control_failed(device),
            Event::Frame { device, generation, bytes } => {
                if self.peers.is_current(device, generation) {
                    self.drive(Input::Frame { peer: device, bytes });
                }
            }
            Event::Sent { device, generation, object, answer, through } => {
                if self.peers.is_current(device, generation) {
                    self.drive(Input::Sent { peer: device, object, answer, through });
                }
            }
            Event::Reread { object, records, done } => self.drive(Input::Reread { object, records, done }),
            Event::Ended { device, generation, reason } => self.control_ended(device, generation, &reason),
            Event::Written { tickets, durable, batches, noted } => {
                self.writing.busy = false;
                self.place(batches, &noted);
                for ticket in tickets {
                    self.drive(Input::Persisted { ticket, durable });
                    self.persisted_for_pairing(ticket, durable);
                    self.persisted_for_restore(ticket, durable);
                }
                self.write_out();
            }
            Event::Folder { object, input } => self.drive(Input::Folder { object, input }),
            Event::Fetched { ticket, outcomes } => self.drive(Input::Fetched { ticket, outcomes }),
            Event::Gathered { object, have } => self.gathered(object, &have),
            Event::Locate { device, object, content, reply } => {
                // The peer may have gone meanwhile.
                let _ = reply.send(self.locate(device, object, content));
            }
            Event::Found { device, note } => self.found(device, &note),
            Event::TicketShown { relay, ticket, answer } => self.ticket_shown(relay, ticket, answer),
            Event::Pairing(input) => self.drive_pairing(input),
            Event::Restore(input) => self.drive_restore(input),
            Event::Serving(serving) => self.on_serving(serving),
            Event::Command(command) => self.on_command(command),
        }
    }

    fn on_network(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Listening { address } => {
                self.remember_port(&address);
                self.listening.push(address);
            }
            NetworkEvent::NotListening { address } => self.listening.retain(|known| *known != address),
            NetworkEvent::PeerUp { device, path } => {
                self.bulk.forget_rest(device);
                self.peer_up(device, path);
            }
            NetworkEvent::PathChanged { device, path } => {
                self.bulk.forget_rest(device);
                self.peers.path_changed(device, path);
            }
            NetworkEvent::PeerDown { device, reason } => self.peer_down(device, &format!("{reason:?}")),
            NetworkEvent::Stream { device, protocol, stream, .. } => match protocol {
                wire::CONTROL => self.control_opened(device, stream),
                wire::CHUNKS => self.serve_chunks(device, stream),
                wire::PING => self.answer_ping(device, stream),
                wire::TUNNEL => self.serve_tunnel(device, stream),
                wire::PAIR => self.drive_pairing(PairInput::Incoming { device, stream }),
                wire::RESTORE => self.drive_restore(RestoreInput::Incoming { device, stream }),
                _ => drop(stream),
            },
            NetworkEvent::RelayUp { relay } => self.show_ticket(relay),
            NetworkEvent::Discovered { device, addresses } => self.discovered(device, addresses),
            NetworkEvent::Refused { device, address, reason } => {
                tracing::debug!(device = ?device, address, reason, "a connection was refused");
            }
        }
    }

    /// Gives the replica an input and carries out what it asks for.
    pub(crate) fn drive(&mut self, input: Input) {
        let Some(replica) = &mut self.replica else { return };
        let outputs = replica.handle(clock::now(), &mut self.rng, input);
        self.carry_out(outputs);
    }

    pub(crate) fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut forgotten = Vec::new();
        for output in outputs {
            match output {
                Output::Persist { ticket, entries } => {
                    self.writing.tickets.push(ticket);
                    let now = clock::now();
                    for statement in entries.iter().flat_map(statements) {
                        self.arrivals.note(statement, now, &mut self.writing.arrivals);
                    }
                    self.writing.entries.extend(entries.into_iter().map(new_entry));
                }
                Output::Send { peer, frame } => self.peers.send(peer, &frame),
                Output::Serve { peer, object, places, answer } => self.peers.serve(peer, object, places, answer),
                Output::Reread { object, places } => self.reread(object, places),
                Output::Forget { chain, .. } => forgotten.push(chain),
                Output::Disconnect { peer, reason } => self.disconnect(peer, reason),
                Output::List(object, paths) => self.folders.list(object, paths),
                Output::Hash(object, files) => self.folders.hash(object, files, &self.blobs),
                Output::Place(object, batch) => self.writing.batches.push((object, batch)),
                Output::Base { object, own, changes } => {
                    rows::rows(object, own, &changes, &mut self.writing.rows);
                }
                Output::Fetch { ticket, peer, object, files } => self.fetch(ticket, peer, object, files),
                Output::Addresses(devices) => self.told_addresses(devices),
                Output::Incarnation(incarnation) => self.keep_incarnation(incarnation),
                Output::PeersChanged => self.allow_peers(),
                Output::Event(event) => self.on_replica_event(event),
            }
        }
        if !forgotten.is_empty() {
            self.forget(forgotten);
        }
        self.write_out();
    }

    /// Writes what has gathered, one lot at a time: so everything is written in the order in which it
    /// was asked for, and what gathers meanwhile shares the next flush of the disk.
    fn write_out(&mut self) {
        if self.writing.busy || self.writing.is_empty() {
            return;
        }
        self.writing.busy = true;
        let tickets = std::mem::take(&mut self.writing.tickets);
        let entries = std::mem::take(&mut self.writing.entries);
        let (rows, arrivals) = (std::mem::take(&mut self.writing.rows), std::mem::take(&mut self.writing.arrivals));
        let batches = std::mem::take(&mut self.writing.batches);
        let (store, events) = (self.store.clone(), self.events.clone());
        tokio::spawn(async move {
            let durable = match store.append(entries).await {
                Ok(_) => true,
                Err(error) => {
                    tracing::error!(%error, "records could not be stored");
                    false
                }
            };
            // Losing rows costs a second look at the files concerned, no more, unless something is placed by them.
            let flushes = !batches.is_empty();
            let write = move |store: &mut Store| {
                let index = store.index();
                arrivals::write(&*index, arrivals).and(rows::write(&*index, rows))?;
                if flushes { index.flush() } else { Ok(()) }
            };
            let written = store.run(write).await.and_then(|done| done.map_err(StoreError::from));
            if let Err(error) = &written {
                tracing::warn!(%error, "the table of local files could not be written");
            }
            let noted = written.map_err(|error| format!("what is to be done could not be noted: {error}"));
            let noted = if durable { noted } else { Err("records could not be stored".to_owned()) };
            // A loop that has ended needs no answer.
            let _ = events.send(Event::Written { tickets, durable, batches, noted }).await;
        });
    }

    /// Changes folders as they were told to be changed, now that it is noted.
    fn place(&mut self, batches: Vec<(ObjectId, Batch)>, noted: &Result<(), String>) {
        for (object, batch) in batches {
            match noted {
                Ok(()) => self.folders.place(object, batch),
                Err(reason) => {
                    let input = folder::Input::Placed(Err(reason.clone()));
                    self.drive(Input::Folder { object, input });
                }
            }
        }
    }

    /// Lets the store go of chains, and of the room that they took.
    fn forget(&self, chains: Vec<ChainId>) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let reclaim = async {
                for chain in chains {
                    store.forget(chain, u64::MAX).await?;
                }
                while store.reclaim().await?.more {}
                Ok::<(), StoreError>(())
            };
            if let Err(error) = reclaim.await {
                tracing::warn!(%error, "the room of records that are needed no more stays taken");
            }
        });
    }

    /// Reads records again and gives them to the replica in parts.
    fn reread(&self, object: ObjectId, places: Vec<(ChainId, u64)>) {
        let (store, events) = (self.store.clone(), self.events.clone());
        tokio::spawn(async move {
            let mut left = places.into_iter().peekable();
            loop {
                let part = store.run(move |store| {
                    let (mut records, mut bytes) = (Vec::new(), 0);
                    while bytes < REREAD_PART
                        && let Some((chain, seq)) = left.next()
                    {
                        match store.record(chain, seq) {
                            Ok(Some(entry)) => {
                                bytes += entry.payload.len();
                                records.push(entry.payload);
                            }
                            Ok(None) => {}
                            Err(error) => tracing::error!(%error, "a record cannot be read"),
                        }
                    }
                    (records, left)
                });
                // A store or loop that has ended needs no more.
                let Ok((records, rest)) = part.await else { return };
                left = rest;
                let done = left.peek().is_none();
                if events.send(Event::Reread { object, records, done }).await.is_err() || done {
                    return;
                }
            }
        });
    }

    fn on_replica_event(&mut self, event: replica::Event) {
        match event {
            replica::Event::FolderKnown(object) => self.folders.remember_convergence(object, self.replica.as_ref()),
            replica::Event::FolderForgotten(object) => self.forget_folder(object),
            replica::Event::Folder(object, folder::Event::Put { failed }) => self.adoption_put(object, &failed),
            replica::Event::Refused { peer, error } => {
                tracing::warn!(peer = %peer.short(), error, "a peer sent something that is not as it must be");
            }
            other => self.report(other),
        }
    }

    /// Stops in order: no new work, peers told, the log and index on disk.
    async fn stop(mut self, mut inbox: mpsc::Receiver<Event>) {
        inbox.close();
        self.peers.close();
        self.folders.close();
        self.network.shutdown().await;
        while inbox.try_recv().is_ok() {}
        let flushed = self.store.run(|store| store.index().flush()).await.map(|done| done.map_err(Into::into));
        if let Err(error) = flushed.and_then(|done: Result<(), StoreError>| done) {
            tracing::error!(%error, "the index could not be written");
        }
        if let Some(done) = self.stopping.take() {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
}

fn statements(stored: &Stored) -> &[serde_bytes::ByteBuf] {
    match stored {
        Stored::Control { items, .. } => items,
        Stored::Record { .. } | Stored::Retired { .. } => &[],
    }
}

fn new_entry(stored: Stored) -> NewEntry {
    match stored {
        Stored::Control { object, items } => {
            NewEntry { object, kind: EntryKind::Control, payload: Stored::pack(&items), head: None }
        }
        Stored::Retired { object, chain, device, by } => NewEntry {
            object,
            kind: EntryKind::Floor { chain, seq: u64::MAX },
            payload: [device.0.as_slice(), &by.0].concat(),
            head: None,
        },
        Stored::Record { object, chain, seq, id, own, bytes } => {
            NewEntry { object, kind: EntryKind::Record { chain, seq, own }, payload: bytes, head: own.then_some(id) }
        }
    }
}
