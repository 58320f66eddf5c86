//! What the first device decides about the others of its mesh: who is out of it, who is back, who is an admin.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    control::{Holder, Role},
    id::{ContentId, DeviceId, ObjectId, OpId, RecordId},
};
use meshwork_replica::{
    folder::observed::{Batch, Path, Step, Stepped},
    replica::{Choice, Replica},
};

use super::{Cast, Event, MS, Micros, World};
use crate::sim::device::Device;

/// How often the first device looks whether a crash has undone what it decided.
pub(super) const AGAIN: Micros = 300 * MS;

/// What the first device is to decide, and what it has decided.
#[derive(Default)]
pub struct Authority {
    /// Whether the leaver is to be let in again, and whether it was.
    readmits: bool,
    /// See `readmits`.
    pub back: bool,
    /// The revocation that removed the leaver.
    removal: Option<OpId>,
    /// Who is made an admin, and a device like others again.
    pub admin: Option<usize>,
    /// Whose records each revocation cuts, and the newest of them that it lets stand.
    pub cuts: BTreeMap<OpId, (usize, BTreeSet<RecordId>)>,
    putting: Option<Putting>,
    /// Contents that were put on a disk so, and are not recorded yet.
    pub put: BTreeSet<ContentId>,
    /// Contents that were put and recorded, on which device, as the user's own work.
    pub taken_over: BTreeMap<ContentId, usize>,
    /// Contents that a user had given up before they were put.
    given_up: BTreeSet<ContentId>,
    /// Of records that a device wrote: the revocations of which it knew, and that it was in all the same.
    pub known: BTreeMap<RecordId, BTreeSet<OpId>>,
}

/// What is being put out of quarantine.
struct Putting {
    device: usize,
    paths: BTreeSet<Path>,
    contents: BTreeSet<ContentId>,
    /// Whether the device has asked for that yet.
    is_asked: bool,
}

impl World {
    pub(super) fn set_up_authority(&mut self) {
        if self.leaver.is_some() && (self.cast != Cast::Malicious || !self.fate.once_in(4)) {
            let late = self.between(4_500, 9_000);
            self.at(late, Event::Remove);
        }
        if self.cast == Cast::Malicious {
            return;
        }
        if self.leaver.is_some() && !self.fate.once_in(3) {
            self.authority.readmits = true;
            let late = self.between(4_700, 12_000);
            self.at(late, Event::Readmit);
        }
        if self.fate.once_in(3) {
            self.authority.admin = Some(1 + self.fate.index(self.members() - 1));
            let (early, late) = (self.between(4_000, 6_000), self.between(6_000, 10_000));
            self.at(early, Event::Promote);
            self.at(late, Event::Demote);
        }
        if (self.authority.readmits || self.authority.admin.is_some()) && !self.fate.once_in(3) {
            let (late, device) = (self.between(7_000, 12_000), self.fate.index(self.devices.len()));
            self.at(late, Event::TakeOver(device));
        }
    }

    /// Somebody takes over what is in quarantine, as far as there are bytes of it on his device or on one with which it is
    /// connected.
    pub(super) fn take_over(&mut self, device: usize) {
        let all = Choice::default();
        let Some(replica) = self.devices[device].replica.as_ref().filter(|_| !self.calm) else { return };
        let adoption = replica.adoption(self.folder, &all, &BTreeSet::new());
        let Some(adoption) = adoption.ok().filter(|adoption| !adoption.is_empty()) else {
            return self.at(AGAIN, Event::TakeOver(device));
        };
        let cut_off = contents_in_quarantine(replica, self.folder);
        let mut have = BTreeSet::new();
        for (_, file) in adoption.missing {
            let others = (0..self.devices.len()).filter(|other| *other != device && self.is_linked(device, *other));
            let own = self.devices[device].disk.kept(file.content);
            if let Some(bytes) = own.or_else(|| others.into_iter().find_map(|other| self.served(other, file.content))) {
                have.insert(file.content);
                self.devices[device].disk.temps.insert(file.content, bytes);
            }
        }
        let (now, folder) = (self.time(), self.folder);
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[device] else { return };
        match replica.adopt(now, rng, folder, &all, &have) {
            Ok((adoption, outputs)) => {
                adoption.put.iter().for_each(|_| self.counts.add("admin: put out of quarantine"));
                self.trace.line(|| format!("              device {device} takes over {:?}", adoption.put));
                let paths = adoption.put.into_iter().map(|(_, to)| to).collect();
                self.authority.putting = Some(Putting { device, paths, contents: cut_off, is_asked: false });
                self.carry_out(device, outputs);
            }
            Err(error) => self.fail(format!("device {device} cannot take over: {error}")),
        }
    }

    /// A device is to place something. A plan that was under way when somebody took over may still place the same there,
    /// as what somebody else wrote, and take it off again: only what is asked for afterwards is put.
    pub(super) fn begin_put(&mut self, device: usize, batch: &Batch) {
        if let Some(putting) = self.authority.putting.as_mut().filter(|putting| putting.device == device) {
            let puts = |step: &Step| matches!(step, Step::PutFile { path, .. } if putting.paths.contains(path));
            putting.is_asked |= batch.steps.iter().any(puts);
        }
    }

    /// What was put out of quarantine is what a user of this device closed.
    pub(super) fn note_taken_over(&mut self, device: usize, step: &Step, stepped: &Stepped) {
        let (Step::PutFile { path, value, .. }, Stepped::Done(_)) = (step, stepped) else { return };
        let Some(putting) = self.authority.putting.as_ref().filter(|it| it.device == device && it.is_asked) else {
            return;
        };
        if putting.paths.contains(path) && putting.contents.contains(&value.content) {
            self.authority.given_up.extend(self.given_up.take(&value.content));
            self.authority.put.insert(value.content);
        }
    }

    /// A device takes a content off its disk. One that was put and is not recorded was met there as what somebody else had
    /// written, and a user who saw that had given it up.
    pub(super) fn note_displaced(&mut self, device: usize, content: ContentId) {
        if self.puts(device) && self.authority.put.contains(&content) && self.authority.given_up.contains(&content) {
            self.given_up.insert(content);
        }
    }

    /// All is put that was to be: what comes to these names from now on is placed like anything else.
    pub(super) fn end_put(&mut self, device: usize) {
        if let Some(putting) = self.authority.putting.as_mut().filter(|putting| putting.device == device) {
            putting.paths.clear();
        }
    }

    /// A device recorded a content.
    pub(super) fn note_recorded(&mut self, device: usize, content: ContentId) {
        if self.puts(device) && self.authority.put.remove(&content) {
            self.counts.add("admin: taken over");
            self.authority.taken_over.insert(content, device);
        }
    }

    /// What was put and not recorded may be taken off again where a home is put back: its rows are older, and say that the
    /// disk still shows what was cut off.
    pub(super) fn forget_put(&mut self, device: usize) {
        if self.puts(device) {
            self.given_up.append(&mut self.authority.put);
        }
    }

    /// Whether a device puts something out of quarantine, or did last.
    fn puts(&self, device: usize) -> bool {
        self.authority.putting.as_ref().is_some_and(|putting| putting.device == device)
    }

    fn is_linked(&self, one: usize, other: usize) -> bool {
        self.links.get(&(one.min(other), one.max(other))).is_some_and(|link| link.alive)
    }

    /// Whether a device decides, or is decided about: what it forgot would have to be done again.
    pub(super) fn is_concerned(&self, device: usize) -> bool {
        let guest = self.guest.as_ref().map(|guest| guest.device);
        let concerned = [self.leaver, self.authority.admin, guest];
        concerned.contains(&Some(device)) || device == 0 && concerned.iter().any(Option::is_some)
    }

    /// The first device removes the leaver, as soon as it runs; a malicious one again where a crash undid that.
    pub(super) fn remove_leaver(&mut self) {
        let Some(leaver) = self.leaver else { return };
        if self.cast == Cast::Malicious && !self.calm {
            self.at(AGAIN, Event::Remove);
        }
        let (id, void) = (self.devices[leaver].id, self.fate.once_in(3));
        let mesh = ObjectId::from(self.mesh);
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[0] else {
            if self.cast != Cast::Malicious || self.calm {
                self.at(100 * MS, Event::Remove);
            }
            return;
        };
        if replica.control().role(mesh, id).is_none() {
            if !self.removed {
                self.at(AGAIN, Event::Remove);
            }
            return;
        }
        let (newest, before) = (newest_of(replica, self.folder, id), revocations(replica, mesh, id.into()));
        match replica.remove_device(rng, id, void) {
            Ok(outputs) => {
                let cuts = if void { BTreeSet::new() } else { newest };
                self.authority.removal = revocations(replica, mesh, id.into()).difference(&before).next().copied();
                self.authority.cuts.extend(self.authority.removal.map(|removal| (removal, (leaver, cuts.clone()))));
                if let Some(malice) = &mut self.malice {
                    malice.cuts = cuts;
                }
                self.counts.add(if void { "admin: device removed and voided" } else { "admin: device removed" });
                self.trace.line(|| format!("              device {leaver} is removed, void {void}"));
                self.removed_late |= self.removed;
                self.removed = true;
                self.carry_out(0, outputs);
                self.spread_slowly();
            }
            Err(error) => self.fail(format!("device {leaver} cannot be removed: {error}")),
        }
    }

    /// The first device lets the leaver in again, once it is out; what a crash undid is done again.
    pub(super) fn readmit_leaver(&mut self) {
        let Some(leaver) = self.leaver else { return };
        if !self.calm || self.devices[0].replica.is_none() || !self.removed {
            self.at(AGAIN, Event::Readmit);
        }
        let (id, mesh) = (self.devices[leaver].id, ObjectId::from(self.mesh));
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[0] else { return };
        if !self.removed {
            return;
        }
        if !self.authority.removal.is_some_and(|removal| replica.control().contains(removal)) {
            self.at(AGAIN, Event::Readmit);
            return self.remove_leaver();
        }
        if replica.control().role(mesh, id).is_some() {
            return;
        }
        match replica.readmit_device(rng, id) {
            Ok(outputs) => {
                self.counts.add("admin: device let in again");
                self.trace.line(|| format!("              device {leaver} is let in again"));
                self.authority.back = true;
                self.carry_out(0, outputs);
                for _ in 0..2 {
                    let late = self.between(50, 2_000);
                    self.at(late, Event::User(leaver));
                }
            }
            Err(error) => self.fail(format!("device {leaver} cannot be let in again: {error}")),
        }
    }

    /// The first device makes another an admin.
    pub(super) fn promote(&mut self) {
        let Some(admin) = self.authority.admin else { return };
        let (id, mesh) = (self.devices[admin].id, ObjectId::from(self.mesh));
        let Some(replica) = &mut self.devices[0].replica else { return self.at(100 * MS, Event::Promote) };
        if replica.control().role(mesh, id) != Some(Role::Edit) {
            return;
        }
        match replica.promote_device(id) {
            Ok(outputs) => {
                self.counts.add("admin: device promoted");
                self.carry_out(0, outputs);
            }
            Err(error) => self.fail(format!("device {admin} cannot be made an admin: {error}")),
        }
    }

    /// The first device makes the admin a device like others; what a crash undid is done again.
    pub(super) fn demote(&mut self) {
        let Some(admin) = self.authority.admin else { return };
        if !self.calm || self.devices[0].replica.is_none() {
            self.at(AGAIN, Event::Demote);
        }
        let (id, mesh) = (self.devices[admin].id, ObjectId::from(self.mesh));
        let Device { replica: Some(replica), rng, .. } = &mut self.devices[0] else { return };
        if replica.control().role(mesh, id) != Some(Role::Own) {
            return;
        }
        let (newest, before) = (newest_of(replica, self.folder, id), revocations(replica, mesh, id.into()));
        match replica.demote_device(rng, id) {
            Ok(outputs) => {
                let revoked: Vec<OpId> = revocations(replica, mesh, id.into()).difference(&before).copied().collect();
                self.authority.cuts.extend(revoked.into_iter().map(|revoked| (revoked, (admin, newest.clone()))));
                self.counts.add("admin: device demoted");
                self.trace.line(|| format!("              device {admin} is demoted"));
                self.carry_out(0, outputs);
            }
            Err(error) => self.fail(format!("device {admin} cannot be demoted: {error}")),
        }
    }

    /// Whether a device knows that its own right was taken back, and of none that it was given since.
    pub(super) fn knows_of_a_cut(&self, device: usize) -> bool {
        let (id, mesh) = (self.devices[device].id, ObjectId::from(self.mesh));
        let log = if self.is_guest(device) { self.folder } else { mesh };
        let out = |replica: &Replica| replica.control().role(log, id).is_none();
        let may = self.guest.as_ref().is_none_or(|guest| guest.device != device || guest.out);
        may && self.is_concerned(device) && self.devices[device].replica.as_ref().is_some_and(out)
    }

    /// Whether a device was removed, as far as the first one knows.
    fn is_out(&self, device: usize) -> bool {
        let control = self.devices[0].replica.as_ref().map(Replica::control);
        let known = |removal| control.is_some_and(|control| control.contains(removal));
        self.leaver == Some(device) && self.authority.removal.is_some_and(known)
    }

    /// Whether the first device has done all that it is to do, and no crash has undone it.
    pub(super) fn is_decided(&self) -> bool {
        let Some(replica) = &self.devices[0].replica else { return false };
        let role = |device: usize| replica.control().role(self.mesh.into(), self.devices[device].id);
        let back = |leaver: usize| !self.authority.readmits || role(leaver).is_some() && self.is_out(leaver);
        let demoted = |admin: usize| role(admin) == Some(Role::Edit) || role(admin).is_none() && self.is_out(admin);
        self.leaver.is_none_or(back) && self.authority.admin.is_none_or(demoted) && self.is_shared()
    }

    /// Forgets the revocations that a crash has undone.
    pub fn forget_what_was_undone(&mut self) {
        let Some(replica) = &self.devices[0].replica else { return };
        self.authority.cuts.retain(|revocation, _| replica.control().contains(*revocation));
    }

    /// Notes what the author of a record knew when he wrote it.
    pub(super) fn note_known(&mut self, device: usize, record: RecordId) {
        if self.cast == Cast::Malicious || device == 0 || !self.is_concerned(device) {
            return;
        }
        let (id, mesh) = (self.devices[device].id, ObjectId::from(self.mesh));
        let Some(replica) = &self.devices[device].replica else { return };
        if replica.control().role(mesh, id).is_some() {
            let known = revocations(replica, mesh, id.into());
            if !known.is_empty() {
                self.counts.add("admin: cut off once, and writes on");
            }
            self.authority.known.insert(record, known);
        }
    }
}

/// The contents that are in quarantine.
fn contents_in_quarantine(replica: &Replica, object: ObjectId) -> BTreeSet<ContentId> {
    let operations = replica.quarantined(object).flat_map(|held| &held.operations);
    operations.filter_map(|operation| operation.value.file()).map(|file| file.content).collect()
}

/// The revocations of a holder in a log.
pub(super) fn revocations(replica: &Replica, log: ObjectId, holder: Holder) -> BTreeSet<OpId> {
    replica.control().revocations(log, holder).into_iter().collect()
}

/// The newest records of a device that stand.
pub(super) fn newest_of(replica: &Replica, object: ObjectId, device: DeviceId) -> BTreeSet<RecordId> {
    let Some(chains) = replica.intake(object).map(|intake| intake.chains()) else { return BTreeSet::new() };
    let own = chains.heads().filter(|(_, author, ..)| *author == device);
    own.filter_map(|(chain, _, seq, _)| chains.record_at(&chain, seq.min(replica.standing(object, &chain)))).collect()
}
