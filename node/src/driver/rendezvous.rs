//! Being found and finding others at the bootstraps of the mesh: a task of its own leaves notes there for all devices that
//! this one deals with, and looks for notes of those that are not connected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use meshwork_host::{
    entropy::entropy,
    swarm::{Address, NetworkHandle},
};
use meshwork_protocol::{
    id::DeviceId,
    limits,
    rendezvous::{Meeting, Note},
    seal::SealPublic,
    time::Timestamp,
    wire::rendezvous::{Answer, Ask, Refusal},
};
use serde_bytes::{ByteArray, ByteBuf};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Driver, Event, home,
    servers::{self, BOOTSTRAP},
};
use crate::{
    clock,
    network::rendezvous::{self, RendezvousError},
};

/// How often notes are left again: well within the time that they are kept, and soon after a bootstrap has forgotten them
/// because it was started anew.
const RENEW: Duration = Duration::from_secs(10 * 60);
/// How often this node looks whether its own addresses have changed, which it is not always told.
const LOOK_AT_SELF: Duration = Duration::from_secs(15);
/// How long what changes is let settle: an interface that comes up brings several addresses.
const SETTLE: Duration = Duration::from_millis(300);
/// Between the first looks for a device that is away, or visits to a bootstrap that does not answer; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// At most. Whoever comes back finds a note and dials; it need not be found.
const LAST_PAUSE: Duration = Duration::from_secs(120);

/// What there is to do at the bootstraps.
#[derive(Clone, Default)]
struct Wanted {
    bootstraps: BTreeMap<DeviceId, Vec<Address>>,
    /// The devices that this one deals with, each with the key for which that was computed.
    meetings: BTreeMap<DeviceId, (SealPublic, Arc<Meeting>)>,
    /// Those that are not connected.
    away: BTreeSet<DeviceId>,
}

/// How each bootstrap answered last.
pub(super) type Stood = BTreeMap<DeviceId, Result<(), String>>;

/// The driver's end of the task.
pub(crate) struct Rendezvous {
    wanted: watch::Sender<Wanted>,
    stood: watch::Receiver<Stood>,
    /// When the newest note of each device was written: an older one that a bootstrap brings back tells nothing.
    newest: BTreeMap<DeviceId, Timestamp>,
}

impl Rendezvous {
    /// Starts the task, which ends with its driver.
    pub fn start(network: NetworkHandle, events: mpsc::Sender<Event>) -> Self {
        let (wanted, watched) = watch::channel(Wanted::default());
        let (tell, stood) = watch::channel(Stood::new());
        tokio::spawn(async move {
            // Without a driver there is nobody to look for.
            let _ =
                Searcher { network, wanted: watched, events, tell, left: BTreeMap::new(), looked: Looked::default() }
                    .run()
                    .await;
        });
        Self { wanted, stood, newest: BTreeMap::new() }
    }

    pub fn stood(&self) -> Stood {
        self.stood.borrow().clone()
    }

    /// Whether a note is newer than all before it.
    fn is_new(&mut self, device: DeviceId, written: Timestamp) -> bool {
        let newest = self.newest.entry(device).or_default();
        let is_new = written > *newest;
        *newest = written.max(*newest);
        is_new
    }
}

impl Driver {
    /// Tells the task for whom it is to work.
    pub(super) fn seek_at_bootstraps(&mut self) {
        let Some(replica) = &self.replica else { return };
        let bootstraps = servers::list(replica, &BOOTSTRAP);
        let peers = if bootstraps.is_empty() { BTreeSet::new() } else { replica.peers() };
        let known = peers.iter().filter_map(|peer| Some((*peer, replica.seal_key(*peer)?)));
        let own = (&self.network.device(), &home::seal_key(&self.identity));
        self.rendezvous.wanted.send_if_modified(|wanted| {
            let meet = |(peer, seal): (DeviceId, SealPublic)| {
                let before = wanted.meetings.get(&peer).filter(|(known, _)| *known == seal).cloned();
                let new = || Some((seal, Arc::new(Meeting::new(own, (&peer, &seal))?)));
                Some((peer, before.or_else(new)?))
            };
            let meetings: BTreeMap<_, _> = known.take(limits::RENDEZVOUS_NOTES_PER_DEVICE).filter_map(meet).collect();
            let away = meetings.keys().copied().filter(|device| !self.peers.is_connected(*device)).collect();
            let keys = |meetings: &BTreeMap<DeviceId, (SealPublic, _)>| -> Vec<_> {
                meetings.iter().map(|(device, (seal, _))| (*device, *seal)).collect()
            };
            let same =
                wanted.bootstraps == bootstraps && wanted.away == away && keys(&wanted.meetings) == keys(&meetings);
            *wanted = Wanted { bootstraps, meetings, away };
            !same
        });
    }

    /// A device told in a note where it is.
    pub(super) fn found(&mut self, device: DeviceId, note: &Note) {
        let addresses: Vec<Address> = note.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        if !self.rendezvous.is_new(device, note.written) || self.peers.is_connected(device) {
            return;
        }
        tracing::debug!(peer = %device.short(), addresses = addresses.len(), "found at a bootstrap");
        self.known.remember(device, &addresses);
        self.look_there(device, addresses);
    }
}

/// What was left at one bootstrap.
#[derive(Default)]
struct Left {
    addresses: Vec<String>,
    devices: BTreeSet<DeviceId>,
    /// When to do so again, and how long to wait after the next failure.
    again: Option<Instant>,
    pause: Duration,
}

/// For whom was looked, and when to look again.
#[derive(Default)]
struct Looked {
    away: BTreeSet<DeviceId>,
    pause: Duration,
    again: Option<Instant>,
}

struct Searcher {
    network: NetworkHandle,
    wanted: watch::Receiver<Wanted>,
    events: mpsc::Sender<Event>,
    tell: watch::Sender<Stood>,
    left: BTreeMap<DeviceId, Left>,
    looked: Looked,
}

/// What one bootstrap answered.
struct Found {
    bootstrap: DeviceId,
    result: Result<(), String>,
    notes: Vec<(DeviceId, Note)>,
}

/// The driver or the network has ended.
struct Ended;

impl Searcher {
    async fn run(mut self) -> Result<(), Ended> {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.bootstraps.is_empty() || wanted.meetings.is_empty() {
                self.wanted.changed().await.map_err(|_| Ended)?;
                sleep(SETTLE).await;
                continue;
            }
            let now = Instant::now();
            let own = self.own_addresses().await?;
            self.left.retain(|bootstrap, _| wanted.bootstraps.contains_key(bootstrap));
            let due =
                |bootstrap: &DeviceId| self.left.get(bootstrap).is_none_or(|left| left.is_due(&wanted, &own, now));
            let leaves: BTreeSet<DeviceId> = wanted.bootstraps.keys().copied().filter(due).collect();
            let looks = self.looked.is_due(&wanted, now);
            if looks || !leaves.is_empty() {
                let answered = self.visit(&wanted, &own, &leaves, looks).await?;
                for bootstrap in leaves {
                    let left = self.left.entry(bootstrap).or_default();
                    left.done(&wanted, &own, answered.contains(&bootstrap), Instant::now());
                }
                self.looked.done(&wanted, looks, Instant::now());
            }
            let due = self.left.values().filter_map(|left| left.again).chain(self.looked.again).min();
            let wait = due.map_or(LOOK_AT_SELF, |due| due.saturating_duration_since(Instant::now())).min(LOOK_AT_SELF);
            match timeout(wait.max(SETTLE), self.wanted.changed()).await {
                Ok(changed) => {
                    changed.map_err(|_| Ended)?;
                    sleep(SETTLE).await;
                }
                Err(_) => continue,
            }
        }
    }

    /// The addresses for notes: those of this machine alone are of no use elsewhere, unless it has no others.
    async fn own_addresses(&self) -> Result<Vec<String>, Ended> {
        let addresses = self.network.addresses().await.map_err(|_| Ended)?;
        let is_loopback = |address: &Address| address.socket().is_some_and(|socket| socket.ip().is_loopback());
        let (own, others): (Vec<Address>, Vec<Address>) = addresses.into_iter().partition(is_loopback);
        let useful = if others.is_empty() { own } else { others };
        let texts = Address::most_useful(&useful).into_iter().map(ToString::to_string);
        Ok(texts.take(limits::RENDEZVOUS_ADDRESSES).collect())
    }

    /// Asks bootstraps, all at once, and passes on what they know as it comes. Tells which of them answered.
    async fn visit(
        &self,
        wanted: &Wanted,
        own: &[String],
        leaves: &BTreeSet<DeviceId>,
        looks: bool,
    ) -> Result<BTreeSet<DeviceId>, Ended> {
        let mut visits = JoinSet::new();
        for (bootstrap, addresses) in wanted.bootstraps.clone() {
            let mut asks =
                if leaves.contains(&bootstrap) { leaving(self.network.device(), wanted, own) } else { Vec::new() };
            if looks {
                asks.extend(looking(wanted));
            }
            let (network, wanted) = (self.network.clone(), wanted.clone());
            visits.spawn(async move {
                let (devices, asks): (Vec<_>, Vec<_>) = asks.into_iter().unzip();
                let answers = match asks.is_empty() {
                    true => return None,
                    false => rendezvous::ask(&network, bootstrap, addresses, &asks).await,
                };
                let notes = answers.as_ref().map(|answers| opened(&wanted, &devices, answers)).unwrap_or_default();
                Some(Found { bootstrap, result: judged(answers), notes })
            });
        }
        let mut answered = BTreeSet::new();
        while let Some(found) = visits.join_next().await {
            let Ok(Some(Found { bootstrap, result, notes })) = found else { continue };
            match &result {
                Ok(()) => drop(answered.insert(bootstrap)),
                Err(problem) => tracing::debug!(%bootstrap, problem, "a bootstrap does not help"),
            }
            self.tell.send_modify(|stood| {
                stood.retain(|known, _| wanted.bootstraps.contains_key(known));
                stood.insert(bootstrap, result);
            });
            for (device, note) in notes {
                self.events.send(Event::Found { device, note }).await.map_err(|_| Ended)?;
            }
        }
        Ok(answered)
    }
}

/// A note for each device.
fn leaving(own: DeviceId, wanted: &Wanted, addresses: &[String]) -> Vec<(DeviceId, Ask)> {
    let mut rng = entropy();
    let mut leave = |meeting: &Meeting| {
        let note = Note { written: clock::now(), addresses: addresses.to_vec() };
        let note = ByteBuf::from(meeting.seal(&own, note, &mut rng));
        Ask::Leave { place: ByteArray::new(meeting.place(&own)), note }
    };
    wanted.meetings.iter().map(|(device, (_, meeting))| (*device, leave(meeting))).collect()
}

/// The notes of those that are away.
fn looking(wanted: &Wanted) -> impl Iterator<Item = (DeviceId, Ask)> {
    let away = wanted.meetings.iter().filter(|(device, _)| wanted.away.contains(*device));
    away.map(|(device, (_, meeting))| (*device, Ask::Look { place: ByteArray::new(meeting.place(device)) }))
}

/// The newest note of each device among the answers; what does not open is not from it.
fn opened(wanted: &Wanted, devices: &[DeviceId], answers: &[Answer]) -> Vec<(DeviceId, Note)> {
    let newest = |(device, answer): (&DeviceId, &Answer)| {
        let ((_, meeting), Answer::Notes { notes }) = (wanted.meetings.get(device)?, answer) else { return None };
        let notes = notes.iter().filter_map(|note| meeting.open(device, note).ok());
        Some((*device, notes.max_by_key(|note| note.written)?))
    };
    devices.iter().zip(answers).filter_map(newest).collect()
}

/// A bootstrap that refuses anything does not help as it should.
fn judged(answers: Result<Vec<Answer>, RendezvousError>) -> Result<(), String> {
    let refused = |answer: &Answer| match answer {
        Answer::Refused { code } => Some(*code),
        _ => None,
    };
    match answers.map_err(|error| error.to_string())?.iter().find_map(refused) {
        Some(code) => Err(Refusal::from_code(code).unwrap_or(Refusal::Malformed).to_string()),
        None => Ok(()),
    }
}

impl Left {
    fn is_due(&self, wanted: &Wanted, own: &[String], now: Instant) -> bool {
        let is_new = self.pause.is_zero()
            && (self.addresses != own || wanted.meetings.keys().any(|device| !self.devices.contains(device)));
        is_new || self.again.is_none_or(|again| again <= now)
    }

    fn done(&mut self, wanted: &Wanted, own: &[String], succeeded: bool, now: Instant) {
        if succeeded {
            let devices = wanted.meetings.keys().copied().collect();
            *self = Self { addresses: own.to_vec(), devices, again: Some(now + RENEW), pause: Duration::ZERO };
        } else {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
            self.again = Some(now + self.pause);
        }
    }
}

impl Looked {
    fn is_due(&mut self, wanted: &Wanted, now: Instant) -> bool {
        if !wanted.away.is_subset(&self.away) {
            // Somebody went away now: it is looked for at once, and then less and less.
            (self.pause, self.again) = (FIRST_PAUSE, None);
        }
        self.away.clone_from(&wanted.away);
        !wanted.away.is_empty() && self.again.is_none_or(|again| again <= now)
    }

    fn done(&mut self, wanted: &Wanted, looked: bool, now: Instant) {
        if looked {
            self.again = Some(now + self.pause);
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        }
        if wanted.away.is_empty() {
            self.again = None;
        }
    }
}
