//! Pairing: the streams and people around the two machines that let a new device into a mesh.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use meshwork_host::swarm::{Address, Stream};
use meshwork_protocol::{
    id::{DeviceId, MeshId, ObjectId},
    key::Signed,
    limits,
    pairing::{
        AttemptId, DeadCodes, Join as JoinMachine, JoinInput, JoinOutput, Newcomer, Offer, OfferInput, OfferOutput,
        PairCode, PairError, PairLink,
    },
    time::Timestamp,
    wire::{self, pair::Welcome},
};
use serde_bytes::ByteBuf;
use tokio::{
    io::{AsyncWriteExt, ReadHalf},
    sync::mpsc,
    task::JoinSet,
};

use super::{Driver, Event, command::Reply, home};
use crate::{
    api::types::{Join, JoinResult, PairEvent, PairingOffer},
    clock,
    network::frame::{read_frame, write_frame},
    resource::ResourceError,
};

/// Frames that wait to be written to one peer: the largest welcome, and what is said around it.
const OUTGOING: usize = limits::PAIR_WELCOME / limits::PAIR_PART + 16;
/// Events of a pairing that wait for whoever watches it.
const WAITING: usize = 16;
/// How long a device that was asked for by address may take to answer.
const DIAL: Duration = Duration::from_secs(20);

/// What concerns a pairing.
pub(crate) enum PairInput {
    /// Show a code.
    Open { yes: bool, reply: Reply<PairingOffer> },
    /// Tell the next event.
    Wait(Reply<PairEvent>),
    /// The user's answer.
    Confirm { yes: bool, reply: Reply<()> },
    /// Close the offer.
    Cancel(Reply<()>),
    /// Join a mesh.
    Join { join: Join, reply: Reply<JoinResult> },
    /// A device that is no peer shows itself on the network.
    Discovered { device: DeviceId, addresses: Vec<Address> },
    /// A peer opened a stream for pairing.
    Incoming { device: DeviceId, stream: Stream },
    /// A stream to a possible host is open.
    Outgoing { device: DeviceId, stream: Stream },
    /// A bootstrap told where the device is that shows the code.
    Sought { addresses: Vec<Address> },
    /// A possible host cannot be reached.
    Unreachable { last: bool },
    /// A frame came.
    Message { attempt: AttemptId, bytes: Vec<u8> },
    /// A stream ended.
    Closed { attempt: AttemptId },
    /// A deadline has passed.
    Tick,
}

/// The pairing of a node: an offer, or a try to join.
#[derive(Default)]
pub(crate) struct Pairing {
    offer: Option<Offer>,
    yes: bool,
    asked: Option<AttemptId>,
    join: Option<Joining>,
    dead: DeadCodes,
    attempts: u64,
    streams: BTreeMap<AttemptId, mpsc::Sender<Vec<u8>>>,
    events: VecDeque<PairEvent>,
    waiting: Vec<Reply<PairEvent>>,
    /// Devices that showed themselves on the network and are no peers.
    nearby: BTreeMap<DeviceId, Vec<Address>>,
    /// A newcomer whose grant is not durable yet: its stream, and the ticket that makes it so.
    granting: Option<(AttemptId, u64)>,
}

struct Joining {
    machine: JoinMachine,
    reply: Option<Reply<JoinResult>>,
    tried: Vec<DeviceId>,
    /// The welcome that was taken in, with the ticket that makes it durable.
    storing: Option<u64>,
    host_name: String,
    addresses: Vec<Address>,
    /// Who asks a bootstrap for the number of the code, as long as this lasts.
    seeking: Option<JoinSet<()>>,
}

impl Pairing {
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let join = self.join.as_ref().and_then(|join| join.machine.next_deadline());
        self.offer.as_ref().and_then(Offer::next_deadline).into_iter().chain(join).min()
    }

    pub fn is_joining(&self) -> bool {
        self.join.is_some()
    }

    /// Devices that showed themselves on the network and are no peers.
    pub fn nearby(&self) -> impl Iterator<Item = (DeviceId, &Vec<Address>)> {
        self.nearby.iter().map(|(device, addresses)| (*device, addresses))
    }

    fn tell(&mut self, event: PairEvent) {
        if self.events.len() >= WAITING {
            self.events.pop_front();
        }
        self.events.push_back(event);
        while let (Some(event), Some(reply)) = (self.events.front().cloned(), self.waiting.pop()) {
            if reply.send(Ok(event)).is_ok() {
                self.events.pop_front();
            }
        }
    }

    fn send(&self, attempt: AttemptId, bytes: Vec<u8>) {
        if let Some(stream) = self.streams.get(&attempt) {
            // A peer that takes nothing is found by the machine's own deadline.
            let _ = stream.try_send(bytes);
        }
    }
}

impl Driver {
    pub(super) fn drive_pairing(&mut self, input: PairInput) {
        match input {
            PairInput::Open { yes, reply } => self.open_offer(yes, reply),
            PairInput::Wait(reply) => self.wait_for_pairing(reply),
            PairInput::Confirm { yes, reply } => {
                let asked = self.pairing.asked.take();
                let result = asked.map(|attempt| self.drive_offer(OfferInput::Confirm { attempt, yes }));
                let _ = reply.send(result.ok_or_else(no_pairing));
            }
            PairInput::Cancel(reply) => {
                self.close_offer();
                let _ = reply.send(Ok(()));
            }
            PairInput::Join { join, reply } => self.start_join(join, reply),
            PairInput::Discovered { device, addresses } => self.nearby(device, addresses),
            PairInput::Incoming { device, stream } => {
                if self.pairing.offer.is_some() {
                    let attempt = self.attend(stream);
                    self.drive_offer(OfferInput::Connected { attempt, device });
                }
            }
            PairInput::Outgoing { device, stream } => {
                if let Some(join) = &self.pairing.join {
                    let only_this = !join.addresses.is_empty();
                    let attempt = self.attend(stream);
                    self.drive_join(JoinInput::Connected { attempt, device });
                    if only_this {
                        self.drive_join(JoinInput::NoMorePeers);
                    }
                }
            }
            PairInput::Sought { addresses } => self.code_found(addresses),
            PairInput::Unreachable { last } => {
                if last {
                    self.drive_join(JoinInput::NoMorePeers);
                }
            }
            PairInput::Message { attempt, bytes } if self.pairing.join.is_some() => {
                self.drive_join(JoinInput::Message { attempt, bytes });
            }
            PairInput::Message { attempt, bytes } => self.drive_offer(OfferInput::Message { attempt, bytes }),
            PairInput::Closed { attempt } => {
                self.pairing.streams.remove(&attempt);
                if self.pairing.join.is_some() {
                    self.drive_join(JoinInput::Closed { attempt });
                } else {
                    self.drive_offer(OfferInput::Closed { attempt });
                }
            }
            PairInput::Tick => {
                self.drive_offer(OfferInput::Tick);
                self.drive_join(JoinInput::Tick);
            }
        }
    }

    fn wait_for_pairing(&mut self, reply: Reply<PairEvent>) {
        match self.pairing.events.pop_front() {
            Some(event) => {
                if let Err(Ok(event)) = reply.send(Ok(event)) {
                    self.pairing.events.push_front(event);
                }
            }
            None if self.pairing.offer.is_none() => drop(reply.send(Err(no_pairing()))),
            None => {
                self.pairing.waiting.retain(|reply| !reply.is_closed());
                self.pairing.waiting.push(reply);
            }
        }
    }

    /// Numbers a stream and starts the tasks that read and write it.
    fn attend(&mut self, stream: Stream) -> AttemptId {
        self.pairing.attempts += 1;
        let attempt = AttemptId(self.pairing.attempts);
        let (reader, outgoing) = attended(stream);
        self.pairing.streams.insert(attempt, outgoing);
        tokio::spawn(read(attempt, reader, self.events.clone()));
        attempt
    }

    // The side that shows a code.

    fn open_offer(&mut self, yes: bool, reply: Reply<PairingOffer>) {
        self.close_offer();
        let now = clock::now();
        let addresses = self.listening_addresses(limits::PAIR_ADDRESSES);
        let device = self.network.device();
        let offer = match Offer::new(now, &mut self.rng, device, &addresses, &self.pairing.dead) {
            Ok(offer) => offer,
            Err(error) => return drop(reply.send(Err(refused(&error)))),
        };
        let texts = offer
            .code()
            .map(|code| code.to_text().to_string())
            .zip(offer.link().map(|link| link.to_text().to_string()));
        let Some((code, link)) = texts else {
            return drop(reply.send(Err(refused(&PairError::Interrupted))));
        };
        let left = offer.expires() - now;
        self.admission.open_window(std::time::Instant::now() + left);
        if let Some(code) = offer.code() {
            self.show_number(code);
        }
        self.pairing.offer = Some(offer);
        self.pairing.yes = yes;
        // What was not heard of an earlier code is nothing to whoever waits for this one.
        self.pairing.events.clear();
        let _ = reply.send(Ok(PairingOffer { code, link, expires_in_s: left.as_secs() }));
    }

    fn close_offer(&mut self) {
        if self.pairing.offer.take().is_none() {
            return;
        }
        (self.pairing.asked, self.pairing.granting) = (None, None);
        self.pairing.streams.clear();
        self.admission.close_window();
    }

    fn tell_pairing(&mut self, event: PairEvent) {
        self.report_pairing(&event);
        self.pairing.tell(event);
    }

    fn drive_offer(&mut self, input: OfferInput) {
        let Some(offer) = &mut self.pairing.offer else { return };
        for output in offer.handle(clock::now(), &mut self.rng, input) {
            match output {
                OfferOutput::Send { attempt, bytes } => self.pairing.send(attempt, bytes),
                OfferOutput::Close { attempt } => drop(self.pairing.streams.remove(&attempt)),
                OfferOutput::AskUser { attempt, newcomer } => {
                    if self.pairing.yes {
                        return self.drive_offer(OfferInput::Confirm { attempt, yes: true });
                    }
                    let (device, name) = (newcomer.device.to_string(), newcomer.name);
                    self.tell_pairing(PairEvent::Asked { device, name });
                    self.pairing.asked = Some(attempt);
                }
                OfferOutput::Grant { attempt, newcomer } => self.grant(attempt, &newcomer),
                OfferOutput::Completed { newcomer, .. } => {
                    self.pairing.dead.forgive();
                    let (device, name) = (newcomer.device.to_string(), newcomer.name);
                    self.tell_pairing(PairEvent::Paired { device, name });
                    return self.end_offer();
                }
                OfferOutput::Dead { reason } => {
                    self.pairing.dead.note(clock::now(), &reason);
                    self.tell_pairing(match reason {
                        PairError::Expired => PairEvent::Expired,
                        other => PairEvent::Failed { reason: other.to_string() },
                    });
                    return self.end_offer();
                }
            }
        }
    }

    /// Ends an offer after its last frames; its streams close when those are written.
    fn end_offer(&mut self) {
        self.pairing.offer = None;
        (self.pairing.asked, self.pairing.granting) = (None, None);
        self.pairing.streams.clear();
        self.admission.close_window();
    }

    /// Makes the grant; the welcome follows when that is durable.
    fn grant(&mut self, attempt: AttemptId, newcomer: &Newcomer) {
        let Some(replica) = &mut self.replica else { return };
        match replica.admit(&mut self.rng, newcomer.device, &newcomer.name) {
            Ok(outputs) => {
                self.pairing.granting = self.replica.as_ref().map(|replica| (attempt, replica.newest_ticket()));
                self.carry_out(outputs);
            }
            Err(error) => {
                tracing::error!(%error, "a device could not be let in");
                self.drive_offer(OfferInput::Confirm { attempt, yes: false });
            }
        }
    }

    pub(super) fn persisted_for_pairing(&mut self, ticket: u64, durable: bool) {
        if let Some((attempt, awaited)) = self.pairing.granting
            && awaited == ticket
        {
            self.pairing.granting = None;
            if durable {
                let bytes = self.welcome().to_bytes();
                self.drive_offer(OfferInput::Welcome { attempt, bytes });
            } else {
                self.close_offer();
            }
        }
        let storing = self.pairing.join.as_ref().and_then(|join| join.storing);
        if storing == Some(ticket) {
            if durable {
                self.drive_join(JoinInput::Stored);
            } else {
                self.fail_join(internal("the welcome could not be stored"));
            }
        }
    }

    pub(super) fn welcome(&self) -> Welcome {
        let items = self.replica.as_ref().map(|replica| {
            let log = replica.control().log(ObjectId::from(replica.mesh_id()));
            log.map(|log| log.missing(&[])).unwrap_or_default()
        });
        Welcome {
            items: items.into_iter().flatten().map(|item: Signed| ByteBuf::from(item.to_bytes())).collect(),
            addresses: self.listening_addresses(limits::PAIR_WELCOME_ADDRESSES),
            name: self.own_name.clone(),
        }
    }

    pub(super) fn listening_addresses(&self, most: usize) -> Vec<String> {
        Address::most_useful(&self.listening).into_iter().map(ToString::to_string).take(most).collect()
    }

    // The side that joins.

    fn start_join(&mut self, join: Join, reply: Reply<JoinResult>) {
        if self.replica.is_some() {
            return drop(reply.send(Err(ResourceError::new(
                409,
                "in_a_mesh",
                "This device belongs to a mesh already.",
                "Use another --home to join a second mesh.",
            ))));
        }
        if self.restoring.is_seeking() {
            return drop(reply.send(Err(super::restore::under_way())));
        }
        let now = clock::now();
        let own = Newcomer {
            device: self.network.device(),
            seal: home::seal_key(&self.identity).public(),
            name: self.own_name.clone(),
            kind: 0,
        };
        let mut addresses: Vec<Address> = Vec::new();
        let machine = if join.code.trim().starts_with("mesh-pair:") {
            PairLink::parse(&join.code).map_err(|error| bad_code(&error)).map(|link| {
                addresses.extend(link.addresses().iter().filter_map(|address| address.parse::<Address>().ok()));
                addresses = addresses.iter().map(|address| address.with_device(&link.device())).collect();
                JoinMachine::by_link(now, own, link)
            })
        } else {
            PairCode::parse(&join.code)
                .map_err(|error| bad_code(&error))
                .map(|code| JoinMachine::by_code(now, own, code))
        };
        let machine = match machine {
            Ok(machine) => machine,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if let Some(at) = &join.at {
            match at.parse::<Address>() {
                Ok(address) => addresses = vec![address],
                Err(error) => return drop(reply.send(Err(bad_code(&error)))),
            }
        }
        let sought = match join.bootstrap.as_deref().map(bootstrap_of).transpose() {
            Ok(bootstrap) => bootstrap.zip(PairCode::parse(&join.code).ok().map(|code| code.number())),
            Err(error) => return drop(reply.send(Err(error))),
        };
        let only_these = !addresses.is_empty();
        let reply = Some(reply);
        self.pairing.join = Some(Joining {
            machine,
            reply,
            tried: Vec::new(),
            storing: None,
            host_name: String::new(),
            addresses: addresses.clone(),
            seeking: None,
        });
        // The host's connection is let in while the join is under way.
        self.admission.open_window(std::time::Instant::now() + limits::PAIR_LIFE);
        if only_these {
            return self.dial_host(addresses);
        }
        let seeking = sought.map(|(bootstrap, number)| self.seek_number(bootstrap, number));
        if let Some(join) = &mut self.pairing.join {
            join.seeking = seeking;
        }
        for (device, addresses) in self.pairing.nearby.clone() {
            self.try_host(device, addresses);
        }
    }

    /// A bootstrap named the device that shows the code. Until then those on the local network were asked.
    fn code_found(&mut self, addresses: Vec<Address>) {
        let Some(join) = &mut self.pairing.join else { return };
        if join.addresses.is_empty() {
            join.addresses.clone_from(&addresses);
            self.dial_host(addresses);
        }
    }

    fn dial_host(&self, addresses: Vec<Address>) {
        let (network, events) = (self.network.clone(), self.events.clone());
        tokio::spawn(async move {
            let reached = tokio::time::timeout(DIAL, async {
                let device = network.dial_unknown(addresses).await.map_err(|error| error.to_string())?;
                let stream = network.open_stream(device, wire::PAIR).await.map_err(|error| error.to_string())?;
                Ok::<_, String>((device, stream))
            });
            let input = match reached.await.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok((device, stream)) => PairInput::Outgoing { device, stream },
                Err(reason) => {
                    tracing::info!(reason, "the other device cannot be reached");
                    PairInput::Unreachable { last: true }
                }
            };
            // A loop that has ended needs no answer.
            let _ = events.send(Event::Pairing(input)).await;
        });
    }

    /// Remembers a device that showed itself on the network: a code may be entered later.
    fn nearby(&mut self, device: DeviceId, addresses: Vec<Address>) {
        let known = &mut self.pairing.nearby;
        if known.len() >= limits::PAIR_PEERS && !known.contains_key(&device) {
            known.pop_first();
        }
        known.insert(device, addresses.clone());
        self.try_host(device, addresses);
    }

    /// Asks a device that showed itself on the network whether it has the code.
    fn try_host(&mut self, device: DeviceId, addresses: Vec<Address>) {
        let Some(join) = &mut self.pairing.join else { return };
        if !join.addresses.is_empty() || join.tried.contains(&device) || join.tried.len() >= limits::PAIR_PEERS {
            return;
        }
        join.tried.push(device);
        let (network, events) = (self.network.clone(), self.events.clone());
        tokio::spawn(async move {
            let opened = async {
                network.dial_unknown(addresses).await.ok()?;
                network.open_stream(device, wire::PAIR).await.ok()
            };
            let input = match opened.await {
                Some(stream) => PairInput::Outgoing { device, stream },
                None => PairInput::Unreachable { last: false },
            };
            // A loop that has ended needs no answer.
            let _ = events.send(Event::Pairing(input)).await;
        });
    }

    fn drive_join(&mut self, input: JoinInput) {
        let Some(join) = &mut self.pairing.join else { return };
        for output in join.machine.handle(clock::now(), &mut self.rng, input) {
            match output {
                JoinOutput::Send { attempt, bytes } => self.pairing.send(attempt, bytes),
                JoinOutput::Close { attempt } => drop(self.pairing.streams.remove(&attempt)),
                JoinOutput::Waiting { device } => {
                    tracing::info!(device = %device.short(), "the other device asks its user");
                }
                JoinOutput::Welcome { device, bytes } => {
                    if let Err(error) = self.take_welcome(device, &bytes) {
                        return self.fail_join(error);
                    }
                }
                JoinOutput::Completed { device } => return self.complete_join(device),
                JoinOutput::Failed { reason } => return self.fail_join(refused(&reason)),
            }
        }
    }

    /// Checks a welcome and takes it in: the mesh must know this device.
    fn take_welcome(&mut self, host: DeviceId, bytes: &[u8]) -> Result<(), ResourceError> {
        let welcome = Welcome::parse(bytes).map_err(internal)?;
        let items: Vec<Signed> =
            welcome.items.iter().map(|item| Signed::parse(item)).collect::<Result<_, _>>().map_err(internal)?;
        let genesis = items.first().ok_or_else(|| internal("the welcome is empty"))?;
        let mut replica = home::replica(&self.identity, MeshId(genesis.id()));
        let outputs = replica.found(items).map_err(internal)?;
        if !replica.peers().contains(&host) || !replica.is_member() {
            return Err(internal("the welcome does not let this device in"));
        }
        let ticket = replica.newest_ticket();
        let addresses: Vec<Address> = welcome.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        self.replica = Some(replica);
        if let Some(join) = &mut self.pairing.join {
            join.storing = Some(ticket);
            join.host_name = welcome.name.clone();
            let mut known = join.addresses.clone();
            known.extend(addresses);
            self.known.remember(host, &known);
        }
        self.carry_out(outputs);
        Ok(())
    }

    fn complete_join(&mut self, host: DeviceId) {
        let Some(join) = self.pairing.join.take() else { return };
        self.pairing.streams.clear();
        self.admission.close_window();
        let mesh = self.replica.as_ref().map(|replica| replica.mesh_id().to_string()).unwrap_or_default();
        let published = self.replica.as_mut().map(|replica| replica.publish_keys());
        match published {
            Some(Ok(outputs)) => self.carry_out(outputs),
            Some(Err(error)) => tracing::error!(%error, "this device's key could not be published"),
            None => {}
        }
        self.allow_peers();
        let result = JoinResult { mesh, device: host.to_string(), name: join.host_name };
        if let Some(reply) = join.reply {
            // Whoever asked may have gone; this device is in all the same.
            let _ = reply.send(Ok(result));
        }
    }

    fn fail_join(&mut self, error: ResourceError) {
        let Some(join) = self.pairing.join.take() else { return };
        self.pairing.streams.clear();
        self.admission.close_window();
        if let Some(reply) = join.reply {
            // Whoever asked may have gone.
            let _ = reply.send(Err(error));
        }
    }
}

/// Starts the task that writes a stream; it ends with the last of its queue.
pub(super) fn attended(stream: Stream) -> (ReadHalf<Stream>, mpsc::Sender<Vec<u8>>) {
    let (reader, mut writer) = tokio::io::split(stream);
    let (outgoing, mut queue) = mpsc::channel::<Vec<u8>>(OUTGOING);
    tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            let written = write_frame(&mut writer, &bytes).await;
            if written.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        // The end of the stream tells the peer; nobody is left to hear of an error.
        let _ = writer.shutdown().await;
    });
    (reader, outgoing)
}

async fn read(attempt: AttemptId, mut reader: ReadHalf<Stream>, events: mpsc::Sender<Event>) {
    while let Ok(Some(bytes)) = read_frame(&mut reader, limits::PAIR_FRAME).await {
        if events.send(Event::Pairing(PairInput::Message { attempt, bytes })).await.is_err() {
            return;
        }
    }
    // A loop that has ended needs no answer.
    let _ = events.send(Event::Pairing(PairInput::Closed { attempt })).await;
}

fn no_pairing() -> ResourceError {
    ResourceError::new(404, "no_pairing", "No pairing is open.", "Show a code with `mesh pair`.")
}

fn refused(error: &PairError) -> ResourceError {
    let (status, code) = match error {
        PairError::Declined => (403, "declined"),
        PairError::NotFound => (404, "no_host"),
        PairError::RateLimited { .. } => (429, "rate_limited"),
        PairError::Expired | PairError::CodeSpent => (410, "code_spent"),
        PairError::WrongCode => (403, "wrong_code"),
        _ => (502, "pairing_failed"),
    };
    ResourceError::new(
        status,
        code,
        format!("Pairing did not come about: {error}."),
        "Show a new code with `mesh pair` on the other device, and type it here.",
    )
}

fn bootstrap_of(text: &str) -> Result<Address, ResourceError> {
    let address: Address = text.parse().map_err(|error| bad_code(&error))?;
    let named = address.device().is_some().then_some(address);
    named.ok_or_else(|| bad_code(&"the bootstrap's address does not end with /p2p/ and its id"))
}

fn bad_code(error: &dyn std::fmt::Display) -> ResourceError {
    ResourceError::new(
        400,
        "bad_code",
        format!("That cannot be used: {error}."),
        "Type the code or link as the other device shows it.",
    )
}

fn internal(error: impl std::fmt::Display) -> ResourceError {
    ResourceError::new(
        502,
        "pairing_failed",
        format!("Pairing did not come about: {error}."),
        "Show a new code and try again.",
    )
}
