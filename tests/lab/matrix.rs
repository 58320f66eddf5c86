//! Every pair of networks: pairing, a folder, an edit, a large file, and the path that the bytes take.

use std::{
    io,
    time::{Duration, Instant},
};

use meshwork_tests::{device::figure, lab::Kind};

use super::{
    Outcome,
    meeting::{LARGE, Meeting, SOON, is_direct},
    outcome,
    own::crosses,
};

/// What relays may carry while a large file goes directly.
const SILENCE: u64 = 1 << 20;

/// What was measured of a pair.
pub(super) struct Cell {
    pub(super) path: String,
    pub(super) pairing: Duration,
    /// From the join on, until both reach each other as well as they can.
    pub(super) connected: Duration,
    /// The slower way.
    pub(super) edit: Duration,
    /// MB a second.
    pub(super) rate: f64,
    /// From the start of `mesh open` to the end of the answer.
    pub(super) service: Duration,
    /// What the relays carried while one large file went over.
    pub(super) relayed: u64,
}

/// Whether two networks can be crossed: over UDP, or over TCP to a public host.
fn is_crossable(one: Kind, other: Kind) -> bool {
    let public = (one == Kind::Open || other == Kind::Open) && one != Kind::RelayOnly && other != Kind::RelayOnly;
    public || crosses(one, other)
}

pub(super) fn matrix(pairs: &[(Kind, Kind)]) -> Outcome {
    println!(
        "{:32} {:16} {:>9} {:>9} {:>8} {:>7} {:>8} {:>10}",
        "nets", "path", "connect", "pair", "edit", "MB/s", "service", "relays"
    );
    let mut missed = Vec::new();
    let mut cells = Vec::new();
    for (one, other) in pairs {
        let name = format!("{one:?}/{other:?}");
        let found = outcome(|| {
            let (cell, missed) = cell(*one, *other)?;
            println!("{name:32} {}", cell.row());
            cells.push(cell);
            Ok(missed)
        });
        missed.extend(found.into_iter().map(|miss| format!("{name}: {miss}")));
    }
    let slowest = |time: fn(&Cell) -> Duration| cells.iter().map(time).max().unwrap_or_default().as_millis();
    let direct = |cell: &&Cell| !cell.path.contains("relayed");
    figure("lab_pairs", cells.len(), "pairs");
    figure("lab_pairs_direct", cells.iter().filter(direct).count(), "pairs");
    figure("lab_pairing_slowest", slowest(|cell| cell.pairing), "ms");
    figure("lab_connect_slowest", slowest(|cell| cell.connected), "ms");
    figure("lab_service_slowest", slowest(|cell| cell.service), "ms");
    figure("lab_edit_slowest", slowest(|cell| cell.edit), "ms");
    Ok(missed)
}

impl Cell {
    fn row(&self) -> String {
        let Cell { path, pairing, connected, edit, rate, service, relayed } = self;
        let (pairing, connected) = (pairing.as_secs_f64(), connected.as_secs_f64());
        let (edit, service, relayed) = (edit.as_millis(), service.as_millis(), relayed >> 10);
        format!("{path:16} {connected:7.2} s {pairing:7.2} s {edit:5} ms {rate:7.1} {service:5} ms {relayed:6} KiB")
    }
}

/// What two devices in such networks do, and what of it is not as it must be.
pub(super) fn cell(one: Kind, other: Kind) -> io::Result<(Cell, Vec<String>)> {
    measure(Meeting::new(one, other)?, is_crossable(one, other))
}

/// The same for two devices that may have to come to a direct path.
pub(super) fn measure(mut meeting: Meeting, crossable: bool) -> io::Result<(Cell, Vec<String>)> {
    let begin = Instant::now();
    let pairing = meeting.pair();
    let mut paths = meeting.connect(crossable);
    let connected = begin.elapsed();
    let mut missed = Vec::new();
    if crossable && (!is_direct(&paths) || connected > SOON) {
        missed.push(format!("not direct within {} s: {paths:?} after {connected:?}", SOON.as_secs()));
    }
    meeting.share();
    let edit = meeting.edit(0).max(meeting.edit(1));
    let rate = LARGE as f64 / 1e6 / meeting.send(0).as_secs_f64();
    let (earlier, before) = (meeting.connect(crossable), meeting.relayed()?.iter().sum::<u64>());
    meeting.send(1);
    let relayed = meeting.relayed()?.iter().sum::<u64>() - before;
    let service = meeting.ask_service()?;
    paths = meeting.connect(crossable);
    if crossable && !is_direct(&paths) {
        missed.push(format!("not direct in the end: {paths:?}"));
    }
    if is_direct(&earlier) && is_direct(&paths) && relayed > SILENCE {
        missed.push(format!("{paths:?}, but the relays carried {relayed} bytes"));
    }
    let ping = meeting.y.mesh(&["ping", "x"]).unwrap_or_default();
    if ping["path"] != if is_direct(&paths) { "direct" } else { "relay" } || ping["times"].as_array().is_none() {
        missed.push(format!("{paths:?}, but a ping says {ping}"));
    }
    // The control: what they carry shows.
    if !is_direct(&paths) && relayed < LARGE as u64 {
        missed.push(format!("{paths:?}, but the relays carried only {relayed} bytes"));
    }
    if !missed.is_empty() {
        println!("{}", meeting.logs());
    }
    paths.sort();
    let [path, back] = paths;
    let path = if path == back { path } else { format!("{path} {back}") };
    Ok((Cell { path, pairing, connected, edit, rate, service, relayed }, missed))
}
