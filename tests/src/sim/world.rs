//! Several replicas of one mesh in one thread: their clock, their network, their disks and their users.

mod authority;
mod carry;
mod disk_work;
mod link_work;
mod malice;
mod setup;
mod sharing;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    id::{ChainId, ContentId, DeviceId, MeshId, ObjectId, RecordId},
    time::Timestamp,
};
use meshwork_replica::{
    feed::Dot,
    folder::{self, State},
    replica::{Input, Replica},
};

use super::{
    device::Device,
    fate::{Counts, Fate, Trace},
    judge,
    malice::Malice,
    network::Link,
    planted::Planted,
};

/// Virtual microseconds.
pub type Micros = u64;
/// One virtual millisecond.
pub const MS: Micros = 1_000;
/// Virtual time in which a healed mesh must come to rest.
const REST_WITHIN: Micros = 1_200_000 * MS;
/// Events that a run has at least.
pub const STEPS: u64 = 300;
/// Events that a run has at most.
const MAX_EVENTS: u64 = 150_000;

/// Who takes part in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// Devices that keep to the rules.
    Honest,
    /// One device does not.
    Malicious,
    /// Devices that keep to the rules and write checkpoints, far more often than a node would.
    Checkpointing,
}

impl Cast {
    /// Those that always run.
    pub const ALL: [Cast; 3] = [Cast::Honest, Cast::Malicious, Cast::Checkpointing];

    /// For the command line.
    pub fn name(self) -> &'static str {
        match self {
            Cast::Honest => "honest",
            Cast::Malicious => "malicious",
            Cast::Checkpointing => "checkpointing",
        }
    }
}

/// What is due at some time.
#[derive(Debug, Clone)]
pub enum Event {
    /// A user does something.
    User(usize),
    /// Something goes wrong.
    Fault,
    /// Faults and users end.
    Calm,
    /// The admin removes the leaver.
    Remove,
    /// It lets the leaver in again.
    Readmit,
    /// It makes another device an admin.
    Promote,
    /// It makes the other admin a device like others.
    Demote,
    /// The first device shares the folder with the other person.
    Share,
    /// The other person accepts it.
    Accept,
    /// The other person takes part no more.
    EndSharing,
    /// Somebody takes over what is in quarantine.
    TakeOver(usize),
    /// A device writes a checkpoint of its feed.
    Checkpoint(usize),
    /// The malicious device does something.
    Malice,
    /// A device joins the mesh.
    Join(usize),
    /// A device tries to give the folder a place.
    Map(usize, u64),
    /// The watch tells.
    Watch(usize, u64),
    /// A deadline of the replica.
    Tick(usize, u64),
    /// The disk goes on with its job.
    Work(usize, u64),
    /// Records are read again.
    Reread { device: usize, life: u64, object: ObjectId, places: Vec<(ChainId, u64)> },
    /// A lot is durable.
    Written(usize, u64),
    /// The index is flushed.
    Flush(usize, u64),
    /// A process starts.
    Start(usize),
    /// A stream is opened.
    Connect(usize, usize),
    /// One side learns of a stream.
    Opened { side: usize, peer: usize, generation: u64 },
    /// One side learns that a stream ended.
    Ended { side: usize, peer: usize, generation: u64 },
    /// A writer goes on.
    Write { from: usize, to: usize },
    /// A frame arrives.
    Deliver { from: usize, to: usize },
    /// The writer of a stream answers.
    Sent { side: usize, peer: usize, generation: u64, object: ObjectId, answer: bool, through: Vec<(ChainId, u64)> },
    /// A fetch goes on.
    Fetch { device: usize, life: u64, ticket: u64 },
}

/// How a run ended.
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Why it failed.
    pub failure: Option<String>,
    /// Events handled.
    pub steps: u64,
    /// How often what happened.
    pub counts: Counts,
    /// Hash over all that happened.
    pub hash: [u8; 32],
    /// The last events, if they were kept.
    pub lines: Vec<String>,
}

/// The simulated world.
pub struct World {
    /// Chance.
    pub fate: Fate,
    /// Time.
    pub now: Micros,
    queue: BTreeMap<(Micros, u64), Event>,
    events: u64,
    scheduled: u64,
    /// The devices.
    pub devices: Vec<Device>,
    /// Devices by id.
    pub index: BTreeMap<DeviceId, usize>,
    /// Links, the smaller number first.
    pub links: BTreeMap<(usize, usize), Link>,
    /// The mesh.
    pub mesh: MeshId,
    /// The folder.
    pub folder: ObjectId,
    welcome: Vec<meshwork_protocol::key::Signed>,
    /// Who takes part.
    pub cast: Cast,
    /// The device that is malicious or that is to be removed from the mesh, or both, and whether it is removed.
    pub leaver: Option<usize>,
    /// See `leaver`.
    pub removed: bool,
    /// The removal was lost in a crash and made once more: what the malicious one granted in between stands.
    pub removed_late: bool,
    /// Another person.
    pub guest: Option<sharing::Guest>,
    /// What the first device decides about the others.
    pub authority: authority::Authority,
    /// Devices whose home was put back from a backup: they may have signed a place twice.
    pub put_back: BTreeSet<usize>,
    /// What the malicious device does.
    pub malice: Option<Box<Malice>>,
    /// Who closed contents, of those who leave or are removed: what came after that may be gone.
    pub closers: BTreeMap<ContentId, BTreeSet<usize>>,
    /// How often what happened.
    pub counts: Counts,
    /// What happened.
    pub trace: Trace,
    planted: Option<Planted>,
    failure: Option<String>,
    calm: bool,
    calm_since: Micros,
    /// Contents that users closed; those that a user replaced or removed since are in `given_up`.
    pub closed: BTreeMap<ContentId, Vec<u8>>,
    /// Contents that a user replaced or removed where he saw them.
    pub given_up: BTreeSet<ContentId>,
    /// The one record at each place ever durable.
    pub durable: BTreeMap<(ChainId, u64), RecordId>,
    /// The contents of operations that some device signed.
    pub values: BTreeMap<Dot, Option<ContentId>>,
    writes: u64,
}

/// Runs a seed.
pub fn run(seed: u64, cast: Cast, planted: Option<Planted>, keep: bool) -> Outcome {
    let mut world = World::new(seed, cast, planted, keep);
    world.go();
    let hash = world.trace.hash();
    Outcome {
        seed,
        failure: world.failure,
        steps: world.events,
        counts: world.counts,
        hash,
        lines: world.trace.into_lines(),
    }
}

impl World {
    /// Schedules an event.
    pub fn at(&mut self, delay: Micros, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + delay, self.scheduled), event);
    }

    /// A delay between two numbers of milliseconds.
    pub fn between(&mut self, least: u64, most: u64) -> Micros {
        least * MS + self.fate.below((most - least) * MS)
    }

    /// Fails the run, unless it failed before.
    pub fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    /// Whether a bug is planted.
    pub fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    fn time(&self) -> Timestamp {
        Timestamp(1_700_000_000_000_000 + self.now)
    }

    fn go(&mut self) {
        self.set_up();
        while self.failure.is_none() {
            let Some(((now, number), event)) = self.queue.pop_first() else {
                return self.fail("nothing is due any more, and not all is done".to_owned());
            };
            self.now = now.max(self.now);
            self.events += 1;
            self.trace.numbers(&[now, number]);
            let at = self.now;
            self.trace.line(|| format!("{:>9}.{:03} ms  {event:?}", at / MS, at % MS));
            self.on_event(event);
            if self.calm && self.events.is_multiple_of(16) && self.failure.is_none() && self.at_rest() {
                return judge::at_end(self);
            }
            if self.events > MAX_EVENTS || self.calm && self.now > self.calm_since + REST_WITHIN {
                let state = self.describe();
                self.fail(format!(
                    "not at rest {} s after all was healed: {state}",
                    (self.now - self.calm_since) / 1_000_000
                ));
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::User(_) if self.calm => {}
            Event::User(device) => self.user(device),
            Event::Fault => self.fault(),
            Event::Calm if self.events < STEPS => self.at(1_000 * MS, Event::Calm),
            Event::Calm => self.become_calm(),
            Event::Remove => self.remove_leaver(),
            Event::Readmit => self.readmit_leaver(),
            Event::Promote => self.promote(),
            Event::Demote => self.demote(),
            Event::Share => self.share(),
            Event::Accept => self.accept(),
            Event::EndSharing => self.end_sharing(),
            Event::TakeOver(device) => self.take_over(device),
            Event::Checkpoint(device) => self.checkpoint(device),
            Event::Malice => self.misbehave(),
            Event::Join(device) => self.join(device),
            Event::Map(device, life) => self.map(device, life),
            Event::Watch(device, life) => self.watch(device, life),
            Event::Tick(device, life) => self.tick(device, life),
            Event::Work(device, life) => self.work(device, life),
            Event::Written(device, life) => self.written(device, life),
            Event::Reread { device, life, object, places } => {
                if self.is_current(device, life) {
                    let stored = &self.devices[device].records;
                    let records = places.iter().filter_map(|place| stored.get(place).cloned()).collect();
                    self.drive(device, Input::Reread { object, records, done: true });
                }
            }
            Event::Flush(device, life) => self.flush(device, life),
            Event::Start(device) => self.start(device),
            Event::Connect(one, other) => self.connect(one, other),
            Event::Opened { side, peer, generation } => self.opened(side, peer, generation),
            Event::Ended { side, peer, generation } => self.ended(side, peer, generation),
            Event::Write { from, to } => self.write(from, to),
            Event::Deliver { from, to } => self.deliver(from, to),
            Event::Sent { side, peer, generation, object, answer, through } => {
                if self.side(side, peer).open == Some(generation) {
                    let peer = self.devices[peer].id;
                    self.drive(side, Input::Sent { peer, object, answer, through });
                }
            }
            Event::Fetch { device, life, ticket } => self.fetch(device, life, ticket),
        }
    }

    /// The devices that are judged by themselves: they are out of the mesh or the folder, or keep to no rule.
    pub fn apart(&self) -> BTreeSet<usize> {
        let leaver = self.leaver.filter(|_| self.removed && !self.authority.back || self.cast == Cast::Malicious);
        let guest = self.guest.as_ref().filter(|guest| guest.out).map(|guest| guest.device);
        leaver.into_iter().chain(guest).collect()
    }

    /// Whether a device is judged by itself.
    pub fn is_apart(&self, device: usize) -> bool {
        self.apart().contains(&device)
    }

    /// Whether a content was closed on a device that is judged by itself.
    pub fn is_of_apart(&self, content: &ContentId) -> bool {
        self.closers.get(content).is_some_and(|closers| !closers.is_disjoint(&self.apart()))
    }

    /// Whether a device keeps to no rule.
    pub fn is_malicious(&self, device: usize) -> bool {
        self.cast == Cast::Malicious && self.leaver == Some(device)
    }

    /// Whether a device may write in the folder, as the first one knows.
    pub fn is_let_in(&self, device: &DeviceId) -> bool {
        self.devices[0].replica.as_ref().is_some_and(|it| it.control().member(self.folder, *device).is_some())
    }

    /// How many devices are of the mesh, or were: the first ones.
    fn members(&self) -> usize {
        self.devices.len() - usize::from(self.guest.is_some())
    }

    fn is_current(&self, device: usize, life: u64) -> bool {
        self.devices[device].life == life && self.devices[device].replica.is_some()
    }

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        let device = self.fate.index(self.devices.len());
        let (one, other) = (device, self.fate.index(self.devices.len()));
        match self.fate.below(8) {
            0..=2 => self.crash(device),
            3 | 4 if one != other => {
                let link = self.link(one, other);
                link.parted = !link.parted;
                let parted = link.parted;
                self.counts.add(if parted { "fault: partition" } else { "fault: heal" });
                if parted {
                    self.cut(one, other);
                } else {
                    self.at(MS, Event::Connect(one, other));
                }
            }
            5 | 6 if one != other => {
                self.counts.add("fault: stream cut");
                self.cut(one, other);
            }
            _ => {
                self.counts.add("fault: look everywhere");
                self.devices[device].anything = true;
                self.report(device, 0);
            }
        }
        let delay = self.between(50, 3_000);
        self.at(delay, Event::Fault);
    }

    fn become_calm(&mut self) {
        (self.calm, self.calm_since) = (true, self.now);
        for device in 0..self.devices.len() {
            self.devices[device].anything = true;
            self.report(device, 0);
            for other in 0..device {
                self.link(device, other).parted = false;
                self.at(MS, Event::Connect(other, device));
            }
        }
    }

    /// Whether nothing is left to do: every device has everything, and a look at every disk found nothing.
    fn at_rest(&mut self) -> bool {
        let busy = |device: &Device| {
            device.replica.is_none()
                || !device.mapped
                || device.job.is_some()
                || device.writing.is_some()
                || device.anything
                || !device.changed.is_empty()
                || !device.fetches.is_empty()
        };
        let apart = self.apart();
        let inside = |pair: &(usize, usize)| !apart.contains(&pair.0) && !apart.contains(&pair.1);
        let mut links = self.links.iter().filter(|(pair, _)| inside(pair)).map(|(_, link)| link);
        let members =
            || self.devices.iter().enumerate().filter(|(number, _)| !apart.contains(number)).map(|(_, it)| it);
        if members().any(busy) || links.any(|link| !link.alive || link.sides.iter().any(busy_side)) {
            return false;
        }
        let folder = self.folder;
        let (mut digests, mut agreed) = (BTreeSet::new(), BTreeSet::new());
        for (number, device) in self.devices.iter().enumerate().filter(|(number, _)| !apart.contains(number)) {
            let Some(replica) = &device.replica else { return false };
            let idle = replica.folder(folder).is_some_and(|folder| folder.state() == State::Idle);
            if replica.is_judging(folder) || replica.is_judging(self.mesh_of(number).into()) {
                return false;
            }
            let left = replica.transfers_left(folder).0;
            // What waits for contents alone has no deadline: else something is still looked for, or tried again.
            let busy = replica.folder(folder).is_none_or(|folder| folder.next_deadline().is_some());
            if (!idle || left > 0) && (left == 0 || left > self.gone(replica).len() || busy) {
                return false;
            }
            let (own, shared) = self.digest(number, replica);
            digests.extend(own);
            agreed.insert(shared);
        }
        digests.len() == 1 && agreed.len() == 1 && self.is_decided()
    }

    /// Contents that a replica's feed shows and that only the device apart has, or nobody: a user gave them up on a
    /// device whose home was put back before it told anybody, or in a record that was cut off.
    pub fn gone(&self, replica: &Replica) -> BTreeSet<ContentId> {
        let apart = self.apart();
        if apart.is_empty() && self.put_back.is_empty() && self.authority.cuts.is_empty() {
            return BTreeSet::new();
        }
        let there: BTreeSet<ContentId> =
            apart.iter().flat_map(|device| self.devices[*device].disk.contents()).collect();
        let here: BTreeSet<ContentId> = (0..self.devices.len())
            .filter(|device| !apart.contains(device))
            .flat_map(|device| self.devices[device].disk.contents())
            .collect();
        let live = replica.folder(self.folder).into_iter().flat_map(|folder| folder.feed().iter().flatten());
        let files = live.filter_map(|operation| operation.value.file()).filter(|file| !file.is_symlink());
        let lies = self.malice.as_ref().map(|malice| &malice.lies);
        let had = |content: &ContentId| {
            self.is_of_apart(content)
                || there.contains(content)
                || self.given_up.contains(content)
                || lies.is_some_and(|lies| lies.contains(content))
        };
        files.map(|file| file.content).filter(|content| had(content) && !here.contains(content)).collect()
    }

    /// What every device is doing, for a failure.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (number, device) in self.devices.iter().enumerate() {
            let folder = device.replica.as_ref().and_then(|replica| replica.folder(self.folder));
            let state = folder.map(folder::Folder::state);
            let left =
                device.replica.as_ref().map(|replica| (replica.transfers_left(self.folder), replica.digest()[0]));
            text += &format!(
                "\n  device {number}: {state:?}, mapped {}, job {}, fetches {}, writing {}, (left, digest) {left:?}",
                device.mapped,
                device.job.is_some(),
                device.fetches.len(),
                device.writing.is_some(),
            );
        }
        if let Some(replica) = self.devices[0].replica.as_ref().filter(|_| !self.apart().is_empty()) {
            text += &format!("\n  only with the device apart: {:?}", self.gone(replica));
        }
        if let Some(replica) = self.devices[0].replica.as_ref() {
            let held: BTreeSet<ContentId> = self.devices.iter().flat_map(|device| device.disk.contents()).collect();
            let live = replica.folder(self.folder).into_iter().flat_map(|folder| folder.feed().iter().flatten());
            let nowhere = live
                .filter(|it| it.value.file().is_some_and(|file| !file.is_symlink() && !held.contains(&file.content)));
            nowhere.for_each(|operation| text += &format!("\n  with nobody: {operation:?}"));
        }
        for replica in self.devices.iter().filter_map(|device| device.replica.as_ref()) {
            let held = replica.quarantined(self.folder).map(|record| (record.chain, record.seq));
            text += &format!("\n  quarantined: {:?}", held.collect::<Vec<_>>());
            if let Some(intake) = replica.intake(self.folder).filter(|intake| !intake.pending().is_empty()) {
                let needs: Vec<_> = intake.pending().needs().collect();
                text += &format!(", {} wait for {needs:?}, {:?}", intake.pending().len(), intake.counters());
            }
        }
        text += &self.differences();
        for ((one, other), link) in &self.links {
            text += &format!(
                "\n  link {one}-{other}: alive {}, open {:?}",
                link.alive,
                link.sides.each_ref().map(|s| s.open)
            );
        }
        text
    }
}

impl World {
    /// Chains and control logs of which the devices hold different things, for a failure.
    fn differences(&self) -> String {
        let mut text = String::new();
        for object in [ObjectId::from(self.mesh), self.folder] {
            let mut chains: BTreeMap<ChainId, Vec<String>> = BTreeMap::new();
            let mut heads: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for (number, replica) in self.devices.iter().enumerate().filter_map(|(n, d)| Some((n, d.replica.as_ref()?)))
            {
                if self.is_apart(number) {
                    continue;
                }
                for (chain, (seq, id)) in replica.intake(object).map(|it| it.chains().vector().0).unwrap_or_default() {
                    chains.entry(chain).or_default().push(format!("{seq} {id:?}"));
                }
                let log = replica.control().log(object).map(|log| format!("{:?} of {}", log.heads(), log.len()));
                heads.entry(log.unwrap_or_default()).or_default().push(number);
            }
            let count = self.devices.len() - self.apart().len();
            let differ = |held: &Vec<String>| held.len() != count || held.iter().any(|it| *it != held[0]);
            for (chain, held) in chains.into_iter().filter(|(_, held)| differ(held)) {
                text += &format!("\n  {object} chain {chain}: {held:?}");
            }
            if heads.len() > 1 {
                text += &format!("\n  {object} control heads: {heads:#?}");
            }
        }
        text
    }
}

fn busy_side(side: &super::network::Side) -> bool {
    side.open.is_none() || !side.outgoing.is_empty() || !side.wire.is_empty()
}
