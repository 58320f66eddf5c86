//! The recovery phrase beyond this device: coming back with it, letting back in who has it, and replacing it.

use meshwork_host::swarm::{Address, Stream};
use meshwork_protocol::{
    control::RootState,
    id::DeviceId,
    key::{PublicKey, RootKey},
    limits,
    phrase::Phrase,
    restore::{Admission, Host, HostOutput, RestoreError, Restored, parts},
    time::Timestamp,
};
use serde_json::Value;
use tokio::{
    io::ReadHalf,
    sync::mpsc::{self, error::TrySendError},
    task::AbortHandle,
};
use zeroize::Zeroizing;

use super::{
    Driver, Event,
    command::{Reply, answer, internal, key_file, no_mesh, words_of},
    home,
    pairing::attended,
};
use crate::{
    api::types::{JoinResult, RecoveryPhrase, RecoveryRestore, RecoveryRotate},
    clock,
    network::{
        frame::read_frame,
        restore::{Candidate, SearchError, Seeker},
    },
    resource::{ResourceError, events},
};

/// What concerns a restore.
pub(crate) enum RestoreInput {
    /// This device is to come back.
    Seek { asked: RecoveryRestore, reply: Reply<JoinResult> },
    /// Its search has ended.
    Sought(Result<Box<Restored>, SearchError>),
    /// Somebody connected as a root opened a stream.
    Incoming { device: DeviceId, stream: Stream },
    /// A frame came on it.
    Message { session: u64, bytes: Vec<u8> },
    /// It ended.
    Closed { session: u64 },
    /// A deadline has passed.
    Tick,
}

/// The restores of a node: its own, and the one that it helps with.
#[derive(Default)]
pub(crate) struct Restoring {
    search: Option<Search>,
    session: Option<Session>,
    sessions: u64,
    /// What is told when a ticket is durable.
    awaited: Vec<(u64, Awaited)>,
}

struct Search {
    reply: Reply<JoinResult>,
    /// Where devices go that show themselves; gone when addresses were named.
    candidates: Option<mpsc::Sender<Candidate>>,
}

/// One conversation with a root.
struct Session {
    number: u64,
    machine: Host,
    in_force: bool,
    outgoing: mpsc::Sender<Vec<u8>>,
    reader: AbortHandle,
    until: Timestamp,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

enum Awaited {
    Admitted { session: u64 },
    Entered { reply: Reply<JoinResult>, result: JoinResult },
    Rotated { reply: Reply<RecoveryPhrase>, phrase: RecoveryPhrase },
}

impl Restoring {
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.session.as_ref().map(|session| session.until)
    }

    pub fn is_seeking(&self) -> bool {
        self.search.is_some()
    }

    /// A device that is no peer shows itself on the network.
    pub fn discovered(&self, device: DeviceId, addresses: &[Address]) {
        let Some(candidates) = self.search.as_ref().and_then(|search| search.candidates.as_ref()) else { return };
        for address in addresses {
            let candidate = Candidate { device: Some(device), address: address.clone() };
            if let Err(TrySendError::Full(_)) = candidates.try_send(candidate) {
                tracing::debug!(device = %device.short(), "more devices here than a restore tries");
            }
        }
    }
}

impl Driver {
    pub(super) fn drive_restore(&mut self, input: RestoreInput) {
        match input {
            RestoreInput::Seek { asked, reply } => match self.seeker(&asked) {
                Ok((seeker, addresses)) => self.seek(seeker, addresses, reply),
                Err(error) => answer(reply, Err(error)),
            },
            RestoreInput::Sought(found) => self.sought(found),
            RestoreInput::Incoming { device, stream } => self.meet_root(device.into(), stream),
            RestoreInput::Message { session, bytes } => self.hear_root(session, &bytes),
            RestoreInput::Closed { session } => {
                self.restoring.session.take_if(|open| open.number == session);
            }
            RestoreInput::Tick => {
                let now = clock::now();
                self.restoring.session.take_if(|open| open.until <= now);
            }
        }
    }

    // This device comes back.

    fn seeker(&self, asked: &RecoveryRestore) -> Result<(Seeker, Vec<Address>), ResourceError> {
        if self.replica.is_some() {
            return Err(not_blank());
        }
        if self.restoring.is_seeking() || self.pairing.is_joining() {
            return Err(under_way());
        }
        let seed = parse(&asked.phrase)?.seed();
        let parsed = asked.at.iter().map(|text| text.parse::<Address>()).collect::<Result<Vec<_>, _>>();
        let addresses = parsed.map_err(|error| {
            ResourceError::bad_request(
                format!("That cannot be used: {error}."),
                "`mesh status` on a device of the mesh shows its addresses.",
            )
        })?;
        let seeker = Seeker {
            root: RootKey::from_seed(&seed, 0),
            device: home::device_key(&self.identity),
            seal: home::seal_key(&self.identity).public(),
            name: self.own_name.clone(),
        };
        Ok((seeker, addresses))
    }

    fn seek(&mut self, seeker: Seeker, addresses: Vec<Address>, reply: Reply<JoinResult>) {
        let (candidates, queue) = mpsc::channel(limits::RESTORE_PEERS);
        for address in &addresses {
            // There is room for as many as may be named.
            let _ = candidates.try_send(Candidate { device: None, address: address.clone() });
        }
        let candidates = addresses.is_empty().then_some(candidates);
        self.restoring.search = Some(Search { reply, candidates });
        if addresses.is_empty() {
            for (device, addresses) in self.pairing.nearby() {
                self.restoring.discovered(device, addresses);
            }
        }
        let (events, log) = (self.events.clone(), self.log.clone());
        tokio::spawn(async move {
            let no_fields: [(&str, Value); 0] = [];
            let tell = |text: String| {
                log.post(clock::now(), events::RECOVERY_PROGRESS, text, no_fields.clone());
            };
            let found = seeker.search(queue, &tell).await;
            // A loop that has ended needs no answer.
            let _ = events.send(Event::Restore(RestoreInput::Sought(found))).await;
        });
    }

    fn sought(&mut self, found: Result<Box<Restored>, SearchError>) {
        let Some(Search { reply, .. }) = self.restoring.search.take() else { return };
        match found.map_err(|error| not_found(&error)).and_then(|restored| self.enter(*restored)) {
            Ok((ticket, result)) => self.restoring.awaited.push((ticket, Awaited::Entered { reply, result })),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Takes in the mesh to which this device has come back; gives the ticket that makes it durable.
    fn enter(&mut self, restored: Restored) -> Result<(u64, JoinResult), ResourceError> {
        if self.replica.is_some() {
            return Err(not_blank());
        }
        let Restored { mesh, statements, host, host_name, addresses } = restored;
        let mut replica = home::replica(&self.identity, mesh);
        let outputs = replica.found(statements).map_err(internal)?;
        let ticket = replica.newest_ticket();
        let addresses: Vec<Address> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        self.known.remember(host, &addresses);
        self.replica = Some(replica);
        self.carry_out(outputs);
        Ok((ticket, JoinResult { mesh: mesh.to_string(), device: host.to_string(), name: host_name }))
    }

    // Another device comes back.

    fn meet_root(&mut self, root: PublicKey, stream: Stream) {
        let Some(replica) = &self.replica else { return };
        let state = replica.control().root_state(replica.mesh_id(), root);
        let in_force = state == Some(RootState::InForce);
        // Who only is to be told that it is the root no longer does not keep the root waiting.
        let is_busy = self.restoring.session.as_ref().is_some_and(|open| open.in_force || !in_force);
        if state.is_none() || is_busy {
            return tracing::info!(?state, is_busy, "a stream for a restore was refused");
        }
        self.restoring.sessions += 1;
        let number = self.restoring.sessions;
        let (reader, outgoing) = attended(stream);
        let reader = tokio::spawn(read(number, reader, self.events.clone())).abort_handle();
        let machine = Host::new(replica.mesh_id(), root);
        let until = clock::now() + limits::RESTORE_TIME;
        self.restoring.session = Some(Session { number, machine, in_force, outgoing, reader, until });
    }

    fn hear_root(&mut self, session: u64, bytes: &[u8]) {
        let (Some(replica), Some(open)) = (&self.replica, &mut self.restoring.session) else { return };
        if open.number != session {
            return;
        }
        match open.machine.hear(replica.control(), bytes) {
            HostOutput::Welcome => self.tell_root(),
            HostOutput::Adopt(admission) => self.adopt_restored(session, *admission),
            HostOutput::End(bytes) => self.end_session(bytes),
        }
    }

    fn tell_root(&mut self) {
        let Some(parts) = parts(&self.welcome().to_bytes()) else {
            tracing::error!("the control log of this mesh is too long to be told");
            self.restoring.session = None;
            return;
        };
        let Some(open) = &self.restoring.session else { return };
        for part in parts {
            // There is room for the largest welcome; who does not take it is found by the deadline.
            let _ = open.outgoing.try_send(part);
        }
    }

    fn adopt_restored(&mut self, session: u64, admission: Admission) {
        let Admission { device, name, statements } = admission;
        let adopted = self.ask_replica(|replica, rng| replica.adopt_restored(rng, device, &name, statements));
        let ticket = self.replica.as_ref().map(|replica| replica.newest_ticket());
        match (adopted, ticket) {
            (Ok(()), Some(ticket)) => self.restoring.awaited.push((ticket, Awaited::Admitted { session })),
            (adopted, _) => {
                tracing::error!(?adopted, "a device could not be let in by the root");
                self.tell_admitted(session, false);
            }
        }
    }

    fn tell_admitted(&mut self, session: u64, durable: bool) {
        if let Some(open) = self.restoring.session.as_mut().filter(|open| open.number == session) {
            let last = open.machine.adopted(durable);
            self.end_session(last);
        }
    }

    /// Says the last word; the stream closes when it is written.
    fn end_session(&mut self, last: Vec<u8>) {
        if let Some(open) = self.restoring.session.take() {
            // Who takes nothing hears nothing.
            let _ = open.outgoing.try_send(last);
        }
    }

    pub(super) fn persisted_for_restore(&mut self, ticket: u64, durable: bool) {
        let lost = || internal("it could not be stored");
        for (_, awaited) in self.restoring.awaited.extract_if(.., |(due, _)| *due == ticket).collect::<Vec<_>>() {
            match awaited {
                Awaited::Admitted { session } => self.tell_admitted(session, durable),
                Awaited::Entered { reply, result } => answer(reply, if durable { Ok(result) } else { Err(lost()) }),
                Awaited::Rotated { reply, phrase } => answer(reply, if durable { Ok(phrase) } else { Err(lost()) }),
            }
        }
    }

    // The phrase is replaced.

    pub(super) fn recovery_rotate(&mut self, asked: &RecoveryRotate, reply: Reply<RecoveryPhrase>) {
        match self.rotate(&asked.phrase) {
            Ok((ticket, phrase)) => self.restoring.awaited.push((ticket, Awaited::Rotated { reply, phrase })),
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn rotate(&mut self, typed: &str) -> Result<(u64, RecoveryPhrase), ResourceError> {
        let seed = self.root_in_force(typed)?;
        let phrase = Phrase::generate(&mut self.rng);
        let before = self.identity.root_seed().map(|kept| Zeroizing::new(kept.to_vec()));
        // First on disk, then in force: a root for which nobody can speak would never be replaced.
        self.keep_root(&phrase)?;
        let root = RootKey::from_seed(&phrase.seed(), 0).public();
        if let Err(error) = self.ask_replica(|replica, _| replica.rotate_root(&seed, root)) {
            self.keep_seed(before)?;
            return Err(internal(error));
        }
        let ticket = self.replica.as_ref().map(|replica| replica.newest_ticket()).unwrap_or_default();
        Ok((ticket, words_of(&phrase)))
    }

    fn keep_seed(&mut self, seed: Option<Zeroizing<Vec<u8>>>) -> Result<(), ResourceError> {
        let is_set = seed.is_some_and(|seed| self.identity.set_root_seed(seed));
        let kept = match is_set {
            true => self.identity.save(&self.home, &mut self.rng),
            false => self.identity.wipe_root(&self.home, &mut self.rng),
        };
        kept.map_err(|error| key_file(&error))
    }

    /// Wipes a phrase that waited here to be written down, once another is in its place.
    pub(super) fn forget_replaced_root(&mut self) {
        let state = self.held_phrase().map(|phrase| self.root_state(&phrase.seed()));
        if let Some(Ok(Some(RootState::Replaced))) = state {
            match self.identity.wipe_root(&self.home, &mut self.rng) {
                Ok(()) => tracing::info!("the recovery phrase on this device was replaced by another, and is wiped"),
                Err(error) => tracing::error!(%error, "a replaced recovery phrase could not be wiped"),
            }
        }
    }

    /// What the root of a recovery seed is worth in this mesh.
    pub(super) fn root_state(&self, seed: &[u8; 64]) -> Result<Option<RootState>, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        Ok(replica.control().root_state(replica.mesh_id(), RootKey::from_seed(seed, 0).public()))
    }

    /// The seed of a phrase, if it owns this mesh.
    pub(super) fn root_in_force(&self, typed: &str) -> Result<Zeroizing<[u8; 64]>, ResourceError> {
        let seed = parse(typed)?.seed();
        match self.root_state(&seed)? {
            Some(RootState::InForce) => Ok(seed),
            Some(RootState::Replaced) => Err(replaced()),
            Some(RootState::Frozen) => Err(frozen()),
            None => Err(ResourceError::new(
                403,
                "not_root",
                "This phrase does not own this mesh.",
                "Look for the paper of this mesh.",
            )),
        }
    }
}

async fn read(session: u64, mut reader: ReadHalf<Stream>, events: mpsc::Sender<Event>) {
    while let Ok(Some(bytes)) = read_frame(&mut reader, limits::PAIR_FRAME).await {
        if events.send(Event::Restore(RestoreInput::Message { session, bytes })).await.is_err() {
            return;
        }
    }
    // A loop that has ended needs no answer.
    let _ = events.send(Event::Restore(RestoreInput::Closed { session })).await;
}

fn parse(typed: &str) -> Result<Phrase, ResourceError> {
    Phrase::parse(typed).map_err(|error| {
        ResourceError::new(
            422,
            "wrong_words",
            format!("This is not a recovery phrase: {error}."),
            "Type the twelve words in their order; nothing was done.",
        )
    })
}

fn replaced() -> ResourceError {
    ResourceError::new(
        403,
        "root_replaced",
        "This phrase was replaced by another one, and owns the mesh no longer.",
        "Take the newer paper. If it was not you who replaced it, `mesh log` shows what was done since.",
    )
}

fn frozen() -> ResourceError {
    ResourceError::new(
        403,
        "root_frozen",
        "This mesh is frozen: its phrase was replaced by two others, and none of them owns it.",
        "Devices and folders go on. To own a mesh by a phrase again, begin a new one in another --home and move the folders.",
    )
}

fn not_blank() -> ResourceError {
    ResourceError::new(
        409,
        "in_a_mesh",
        "This device belongs to a mesh already.",
        "A restore needs a blank device: use another --home. Here, `mesh recovery use` speaks with the phrase.",
    )
}

/// This device is entering a mesh in another way already.
pub(super) fn under_way() -> ResourceError {
    ResourceError::new(409, "under_way", "This device is entering a mesh already.", "Wait until that has ended.")
}

fn not_found(error: &SearchError) -> ResourceError {
    match error {
        SearchError::Refused(RestoreError::Replaced) => replaced(),
        SearchError::Refused(RestoreError::Frozen) => frozen(),
        SearchError::Nobody => ResourceError::new(
            404,
            "no_host",
            "No device of the mesh can be reached from here.",
            "Start one on this network, or name where one listens with --at; `mesh status` there shows its addresses.",
        ),
        SearchError::Refused(RestoreError::Unknown) => ResourceError::new(
            403,
            "not_root",
            "This phrase owns no mesh of the devices that answered here.",
            "Compare it with the paper, word by word; or name a device of that mesh with --at.",
        ),
        SearchError::Network(_) | SearchError::Refused(_) => ResourceError::new(
            502,
            "restore_failed",
            format!("This device has not come back: {error}."),
            "Try again, or through another device of the mesh with --at.",
        ),
    }
}
