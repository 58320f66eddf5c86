//! What a bootstrap does for devices: it keeps notes and the numbers of pairing codes, and tries devices from outside.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Json, routing::get};
use meshwork_host::{
    clock,
    frame::{read_frame, write_frame},
    program::{Incoming, OnStream, Setup, probe, terms::Terms},
    swarm::Stream,
};
use meshwork_protocol::{
    id::DeviceId,
    limits,
    rendezvous::{Source, Table},
    time::Timestamp,
    wire::{
        self,
        rendezvous::{Answer, Ask, Refusal},
    },
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::counters::{Counters, Kind};

/// Devices that are tried from outside at one time.
const PROBES: usize = 4;

/// How long a network waits until another of its devices is tried.
const PROBE_PAUSE: Duration = Duration::from_secs(10);

/// Networks whose last try is remembered.
const PROBED: usize = 4_096;

/// The section `[service]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootstrapSettings {
    /// Streams that are answered at one time.
    pub streams: usize,
    /// The same, of one network (/24 of IPv4, /48 of IPv6).
    pub streams_per_network: usize,
    /// Whether to try devices from outside when they ask for it.
    pub probes: bool,
}

impl Default for BootstrapSettings {
    fn default() -> Self {
        Self { streams: 1_024, streams_per_network: 64, probes: true }
    }
}

/// Makes a bootstrap of a server.
pub fn set_up(setup: &mut Setup<'_, BootstrapSettings>) {
    let desk = Arc::new(Desk::new(setup.service.clone()));
    let (terms, metrics) = (TERMS.to_json(&setup.service), desk.clone());
    setup.routes = std::mem::take(&mut setup.routes)
        .route("/terms", get(async move || Json(terms)))
        .route("/metrics", get(async move || ([("content-type", "text/plain; version=0.0.4")], metrics.metrics())));
    setup.network.relay_protocols = vec![wire::RENDEZVOUS];
    setup.on_stream = Some(on_stream(desk));
}

/// Answers the streams of devices, a bounded number at one time, in all and from each network.
fn on_stream(desk: Arc<Desk>) -> OnStream {
    Box::new(move |Incoming { device, from, stream, .. }| {
        // Who comes through a relay is seen at no address of its own, and is asked to come by itself.
        let Some((from, place)) = from.and_then(|from| Some((from, desk.enter(from.ip())?))) else {
            return desk.counters.refuse(Refusal::Busy);
        };
        tokio::spawn(async move {
            if let Err(error) = serve(&place.desk, device, from, stream).await {
                tracing::debug!(%device, %error, "a stream broke off");
            }
            drop(place);
        });
    })
}

async fn serve(desk: &Desk, device: DeviceId, from: SocketAddr, mut stream: Stream) -> io::Result<()> {
    for _ in 0..limits::RENDEZVOUS_ASKS {
        let ask = timeout(limits::RENDEZVOUS_WAIT, read_frame(&mut stream, limits::RENDEZVOUS_ASK)).await??;
        let Some(ask) = ask else { break };
        let answer = match Ask::decode(&ask) {
            Ok(ask) => desk.answer(device, from, ask).await,
            Err(_) => Err(Refusal::Malformed),
        };
        let answer = answer.unwrap_or_else(|refusal| {
            desk.counters.refuse(refusal);
            Answer::Refused { code: refusal.code() }
        });
        timeout(limits::RENDEZVOUS_WAIT, write_frame(&mut stream, &answer.encode())).await??;
    }
    stream.shutdown().await
}

struct Desk {
    settings: BootstrapSettings,
    table: Mutex<Table>,
    places: Arc<Semaphore>,
    /// Streams of each network that are answered now.
    busy: Mutex<BTreeMap<Source, usize>>,
    probes: Semaphore,
    /// When devices of a network were tried last.
    probed: Mutex<BTreeMap<Source, Timestamp>>,
    counters: Counters,
}

/// The right to be answered.
struct DeskPlace {
    desk: Arc<Desk>,
    source: Source,
    _one_of_all: OwnedSemaphorePermit,
}

impl Drop for DeskPlace {
    fn drop(&mut self) {
        let mut busy = locked(&self.desk.busy);
        if let Some(count) = busy.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.source);
            }
        }
    }
}

impl Desk {
    fn new(settings: BootstrapSettings) -> Self {
        Self {
            table: Mutex::default(),
            places: Arc::new(Semaphore::new(settings.streams)),
            busy: Mutex::default(),
            probes: Semaphore::new(PROBES),
            probed: Mutex::default(),
            counters: Counters::default(),
            settings,
        }
    }

    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<DeskPlace> {
        let _one_of_all = self.places.clone().try_acquire_owned().ok()?;
        let source = Source::of(from);
        let mut busy = locked(&self.busy);
        let count = busy.entry(source).or_default();
        if *count >= self.settings.streams_per_network {
            return None;
        }
        *count += 1;
        Some(DeskPlace { desk: self.clone(), source, _one_of_all })
    }

    async fn answer(&self, device: DeviceId, from: SocketAddr, ask: Ask) -> Result<Answer, Refusal> {
        let (now, source) = (clock::now(), Source::of(from.ip()));
        let kept = |life: Duration| Answer::Kept { seconds: u32::try_from(life.as_secs()).unwrap_or(u32::MAX) };
        let notes = |notes: Vec<Vec<u8>>| Answer::Notes { notes: notes.into_iter().map(ByteBuf::from).collect() };
        self.counters.count(Kind::of(&ask));
        match ask {
            Ask::Leave { place, note } => {
                let left = locked(&self.table).leave(now, (device, source), place.into_array(), note.into_vec());
                left.map(kept)
            }
            Ask::Look { place } => Ok(notes(locked(&self.table).look(now, &place))),
            Ask::Show { number, note } => {
                locked(&self.table).show(now, (device, source), number, note.into_vec()).map(kept)
            }
            Ask::Seek { number } => Ok(notes(locked(&self.table).seek(now, number).into_iter().collect())),
            Ask::Probe { port } => self.probe(device, from, port).await,
        }
    }

    /// Tries a device where it is seen, and nowhere else: nobody can have others tried.
    async fn probe(&self, device: DeviceId, from: SocketAddr, port: u16) -> Result<Answer, Refusal> {
        let _one = self.probes.try_acquire().map_err(|_| Refusal::Busy)?;
        if !self.settings.probes || port == 0 || !self.may_probe(Source::of(from.ip())) {
            return Err(Refusal::Busy);
        }
        let ip = from.ip().to_canonical();
        let checks = probe::probe((ip, port).into(), Some(device)).await;
        let is_well = |name: &str| checks.iter().any(|check| check.name == name && check.trouble.is_none());
        let is_device = is_well("identity");
        let ip = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Ok(Answer::Seen {
            ip: ByteBuf::from(ip),
            port: from.port(),
            tcp: is_device && is_well("tcp"),
            quic: is_device && is_well("quic"),
            time: clock::now(),
        })
    }

    fn may_probe(&self, source: Source) -> bool {
        let (now, mut probed) = (clock::now(), locked(&self.probed));
        probed.retain(|_, last| now - *last < PROBE_PAUSE);
        if probed.len() >= PROBED || probed.contains_key(&source) {
            return false;
        }
        probed.insert(source, now);
        true
    }

    fn metrics(&self) -> String {
        let (notes, numbers) = {
            let table = locked(&self.table);
            (table.notes(), table.numbers())
        };
        let streams = self.settings.streams.saturating_sub(self.places.available_permits());
        self.counters.text(&[
            ("notes", "Notes that are kept.", notes),
            ("numbers", "Pairing codes that are shown or were within the hour.", numbers),
            ("streams", "Streams that are answered now.", streams),
        ])
    }
}

/// What a lock guards is whole after every statement under it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this bootstrap promises, limits and can see.
pub const TERMS: Terms = Terms {
    sees: &[
        "the IP addresses and device ids of who connects, and when",
        "which devices leave notes for each other, as both name the same places",
        "which device shows a pairing code of which number, and who asks for it; not the words of the code",
    ],
    does_not_see: &[
        "what the notes say: they are sealed between two devices, and all of one length",
        "names, folders, files, and anything that devices send each other once they have met",
        "who the people are",
    ],
    keeps: &[
        "its own key and configuration on disk",
        "notes for two hours and numbers for seventy minutes, in memory alone: after a restart devices leave them again",
    ],
    limits: "Its limits",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_are_bounded_in_all_and_for_each_network() {
        let settings = BootstrapSettings { streams: 3, streams_per_network: 2, probes: true };
        let desk = Arc::new(Desk::new(settings));
        let from = |network: u8| desk.enter([10, 0, network, 1].into());
        let (first, second) = (from(1), from(1));
        assert!(first.is_some() && second.is_some() && from(1).is_none());
        let third = from(2);
        assert!(third.is_some() && from(3).is_none());
        drop(first);
        assert!(from(3).is_some() && from(1).is_some());
        drop((second, third));
        assert_eq!(locked(&desk.busy).len(), 0);
    }

    #[tokio::test]
    async fn a_network_has_one_try_in_a_while() {
        let desk = Desk::new(BootstrapSettings::default());
        let source = |network: u8| Source::of([10, 0, network, 1].into());
        assert!(desk.may_probe(source(1)) && desk.may_probe(source(2)));
        assert!(!desk.may_probe(source(1)));
    }

    #[tokio::test]
    async fn questions_are_answered_and_counted() {
        let desk = Desk::new(BootstrapSettings::default());
        let (device, from) = (DeviceId([1; 32]), SocketAddr::from(([10, 0, 0, 1], 7)));
        let place = serde_bytes::ByteArray::new([3; 32]);
        let leave = Ask::Leave { place, note: ByteBuf::from(vec![4; 5]) };
        let kept = desk.answer(device, from, leave).await;
        assert_eq!(kept, Ok(Answer::Kept { seconds: 7_200 }));
        let found = desk.answer(device, from, Ask::Look { place }).await;
        assert_eq!(found, Ok(Answer::Notes { notes: vec![ByteBuf::from(vec![4; 5])] }));
        let none = desk.answer(device, from, Ask::Seek { number: 7 }).await;
        assert_eq!(none, Ok(Answer::Notes { notes: Vec::new() }));
        let port = desk.answer(device, from, Ask::Probe { port: 0 }).await;
        assert_eq!(port, Err(Refusal::Busy));
        let metrics = desk.metrics();
        for line in ["meshwork_bootstrap_notes 1", "asked_total{kind=\"leave\"} 1", "asked_total{kind=\"probe\"} 1"] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
    }
}
