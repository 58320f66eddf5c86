//! How a run begins: the mesh, its devices and its folder.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    control::create_mesh,
    id::{Incarnation, ObjectId},
    key::{DeviceKey, RootKey},
    seal::SealKey,
};
use meshwork_replica::replica::{Output, Replica};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::{Cast, Event, MS, World, authority::Authority, sharing::Guest};
use crate::sim::{
    device::{Device, Lot, Rows, Secrets},
    disk::Disk,
    fate::{Counts, Fate, Trace},
    network::Link,
    planted::Planted,
};

impl World {
    /// A world out of a seed.
    pub fn new(seed: u64, cast: Cast, planted: Option<Planted>, keep: bool) -> Self {
        let mut fate = Fate::new(seed);
        let count = if cast != Cast::Malicious { 2 + fate.index(3) } else { 3 + fate.index(2) };
        let mut devices: Vec<Device> = (0..count).map(|_| device(&mut fate, planted)).collect();
        let mut root_seed = [0; 64];
        root_seed[..32].copy_from_slice(&fate.bytes());
        let root = RootKey::from_seed(&root_seed, 0);
        let first = &devices[0].secrets;
        let (key, seal) = (DeviceKey::from_bytes(&first.device), SealKey::from_bytes(&first.seal));
        let (mesh, welcome) = create_mesh(&mut fate.0, &root, &key, &seal).expect("a mesh can be founded");
        let leaver = (cast == Cast::Malicious || count > 2 && fate.once_in(3)).then_some(count - 1);
        let guest = Self::has_guest(&mut fate, cast, count).then(|| {
            devices.push(device(&mut fate, planted));
            Guest::new(&mut fate, count, &devices[count].secrets)
        });
        let count = devices.len();
        let index = devices.iter().enumerate().map(|(number, device)| (device.id, number)).collect();
        let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        World {
            fate,
            now: 0,
            queue: BTreeMap::new(),
            events: 0,
            scheduled: 0,
            devices,
            index,
            links: pairs.map(|pair| (pair, Link::default())).collect(),
            mesh,
            folder: ObjectId([0; 32]),
            welcome,
            cast,
            leaver,
            removed: false,
            removed_late: false,
            guest,
            authority: Authority::default(),
            put_back: BTreeSet::new(),
            malice: None,
            closers: BTreeMap::new(),
            counts: Counts::default(),
            trace: Trace::new(keep),
            planted,
            failure: None,
            calm: false,
            calm_since: 0,
            closed: BTreeMap::new(),
            given_up: BTreeSet::new(),
            durable: BTreeMap::new(),
            values: BTreeMap::new(),
            writes: 0,
        }
    }

    pub(super) fn set_up(&mut self) {
        let others: Vec<_> = self.devices[1..self.members()].iter().map(|device| device.id).collect();
        let identity = self.devices[0].secrets.identity(self.mesh);
        let mut replica = Replica::new(identity);
        let mut rng = self.devices[0].rng.clone();
        let mut outputs: Vec<Output> = replica.found(self.welcome.clone()).expect("the mesh is founded");
        for other in others {
            outputs.extend(replica.admit(&mut rng, other, "device").expect("a device is let in"));
        }
        if let Some(malicious) = self.leaver.filter(|_| self.cast == Cast::Malicious && self.fate.once_in(2)) {
            self.counts.add("malice: made an admin");
            outputs.extend(replica.promote_device(self.devices[malicious].id).expect("a device is made an admin"));
        }
        let (folder, more) = replica.create_folder(&mut rng, "files").expect("a folder is made");
        outputs.extend(more);
        self.folder = folder;
        let log = replica.control().log(self.mesh.into()).expect("the mesh has a log");
        self.welcome = log.missing(&[]);
        self.devices[0].rng = rng;
        self.devices[0].replica = Some(replica);
        self.devices[0].joined = true;
        self.carry_out(0, outputs);
        self.at(MS, Event::Map(0, 0));
        for device in 1..self.devices.len() {
            let late = self.between(1, 4_000);
            self.at(late, Event::Join(device));
        }
        self.schedule_users();
        for device in 0..self.devices.len() {
            self.at(500 * MS, Event::Flush(device, 0));
        }
        if self.cast == Cast::Malicious {
            self.set_up_malice();
        }
        self.set_up_authority();
        self.set_up_sharing();
        self.schedule_checkpoints();
        let first_fault = self.between(5_000, 8_000);
        self.at(first_fault, Event::Fault);
    }

    fn schedule_users(&mut self) {
        let operations = 40 + self.fate.below(60);
        let mut when = 0;
        for _ in 0..operations {
            when += if self.fate.once_in(6) { self.between(100, 2_000) } else { self.between(0, 120) };
            let device = self.fate.index(self.devices.len());
            self.at(when, Event::User(device));
        }
        let end = when.max(9_000 * MS) + self.between(100, 2_000);
        self.at(end, Event::Calm);
    }

    fn schedule_checkpoints(&mut self) {
        if self.cast == Cast::Honest {
            return;
        }
        for _ in 0..1 + self.fate.below(6) {
            let (when, device) = (self.between(1_500, 12_000), self.fate.index(self.devices.len()));
            self.at(when, Event::Checkpoint(device));
        }
    }

    /// A device lists what of its own still lives.
    pub(super) fn checkpoint(&mut self, device: usize) {
        let folder = self.folder;
        if self.has_left(device) || self.is_malicious(device) {
            return;
        }
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[device] else { return };
        match replica.checkpoint(rng, folder) {
            Ok(outputs) if outputs.is_empty() => self.counts.add("checkpoint: nothing to list"),
            Ok(outputs) => {
                self.counts.add("checkpoint: written");
                self.carry_out(device, outputs);
            }
            // It may be out by now, or know nothing of the folder yet.
            Err(_) => self.counts.add("checkpoint: refused"),
        }
    }

    /// A device is given the control log and takes part.
    pub(super) fn join(&mut self, device: usize) {
        let mut replica = Replica::new(self.devices[device].secrets.identity(self.mesh_of(device)));
        let guest = self.guest.as_ref().filter(|guest| guest.device == device);
        let welcome = guest.map_or(&self.welcome, |guest| &guest.welcome);
        let mut outputs = match replica.found(welcome.clone()) {
            Ok(outputs) => outputs,
            Err(error) => return self.fail(format!("device {device} cannot join: {error}")),
        };
        match replica.publish_keys() {
            Ok(more) => outputs.extend(more),
            Err(error) => return self.fail(format!("device {device} cannot tell its keys: {error}")),
        }
        self.devices[device].replica = Some(replica);
        self.devices[device].joined = true;
        self.carry_out(device, outputs);
        self.at(MS, Event::Map(device, 0));
        for other in (0..self.devices.len()).filter(|other| *other != device) {
            self.at(MS, Event::Connect(device, other));
        }
    }

    /// Gives the folder a place, once it and its key are known.
    pub(super) fn map(&mut self, device: usize, life: u64) {
        let (folder, mesh) = (self.folder, ObjectId::from(self.mesh_of(device)));
        if !self.is_current(device, life) || self.devices[device].mapped || self.has_left(device) {
            return;
        }
        let is_leaver = self.removed && self.leaver == Some(device);
        let Device { replica: Some(replica), rng, id, .. } = &mut self.devices[device] else {
            return;
        };
        let id = *id;
        let known = replica.folder(folder).is_some();
        // Removed before it came so far, it waits until it is let in again.
        let out = is_leaver && replica.control().role(mesh, id).is_none();
        if out || !known || replica.convergence(folder).is_none() || replica.convergence(mesh).is_none() {
            return self.at(200 * MS, Event::Map(device, life));
        }
        match replica.map_folder(rng, folder) {
            Ok(outputs) => {
                self.counts.add("folder mapped");
                self.devices[device].mapped = true;
                self.carry_out(device, outputs);
                self.devices[device].anything = true;
                self.report(device, 0);
            }
            Err(error) => self.fail(format!("device {device} cannot map: {error}")),
        }
    }
}

fn device(fate: &mut Fate, planted: Option<Planted>) -> Device {
    let incarnation = fate.bytes();
    let secrets = Secrets {
        device: fate.bytes(),
        seal: fate.bytes(),
        incarnation: Incarnation(incarnation[..8].try_into().expect("eight bytes")),
    };
    Device {
        id: DeviceKey::from_bytes(&secrets.device).device_id(),
        secrets,
        rng: ChaCha8Rng::from_seed(fate.bytes()),
        replica: None,
        life: 0,
        joined: false,
        mapped: false,
        disk: disk(planted),
        log: Vec::new(),
        records: BTreeMap::new(),
        rows: vec![Rows::default()],
        writing: None,
        gathered: Lot::default(),
        job: None,
        changed: BTreeSet::new(),
        anything: false,
        reporting: false,
        fetches: BTreeMap::new(),
        tick: None,
        seen: BTreeSet::new(),
        displaced: Vec::new(),
        own_seq: BTreeMap::new(),
        backup: None,
        before: BTreeMap::new(),
    }
}

fn disk(planted: Option<Planted>) -> Disk {
    let mut disk = Disk::default();
    disk.careless = planted == Some(Planted::CarelessPlace);
    disk.forgetful = planted == Some(Planted::ForgetfulHistory);
    disk
}
