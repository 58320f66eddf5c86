//! The malicious device among the others: what it sends in place of what its replica would, and to whom.

use std::collections::BTreeSet;

use meshwork_protocol::{
    id::{ContentId, ObjectId, RecordKey},
    object::Verified,
    wire::sync::Frame,
};
use meshwork_replica::replica::{Input, Stored};

use super::{Cast, Event, MS, Micros, World};
use crate::sim::{
    judge,
    malice::{Deed, Malice, Scene},
    planted::Planted,
};

/// Virtual time after everything was healed in which it goes on.
const AFTER_CALM: Micros = 2_000 * MS;

impl World {
    pub(super) fn set_up_malice(&mut self) {
        let Some(device) = self.leaver else { return };
        let (mesh, folder, liar) = (ObjectId::from(self.mesh), self.folder, self.fate.once_in(8));
        self.malice = Some(Box::new(Malice::new(&self.devices[device].secrets, mesh, folder, liar)));
        let first = self.between(1_500, 4_000);
        self.at(first, Event::Malice);
    }

    /// The malicious device does something to one of the others.
    pub(super) fn misbehave(&mut self) {
        if self.calm && self.now > self.calm_since + AFTER_CALM {
            return;
        }
        let delay = if self.removed && !self.fate.once_in(3) { self.between(1, 20) } else { self.between(20, 250) };
        self.at(delay, Event::Malice);
        let Some(from) = self.leaver.filter(|device| self.devices[*device].replica.is_some()) else {
            return;
        };
        let open: Vec<usize> = (0..self.devices.len()).filter(|to| self.can_send(from, *to)).collect();
        let Some(victim) = self.fate.pick(&open).copied() else {
            return;
        };
        if self.fate.once_in(16) {
            return self.repeat_anything(from, victim);
        }
        for deed in self.deeds(from, victim) {
            self.commit(from, victim, deed);
        }
    }

    fn can_send(&mut self, from: usize, to: usize) -> bool {
        if from == to || self.devices[to].replica.is_none() {
            return false;
        }
        let link = self.link(from, to);
        let (alive, generation) = (link.alive, link.generation);
        alive && self.side(to, from).open == Some(generation)
    }

    fn deeds(&mut self, from: usize, victim: usize) -> Vec<Deed> {
        let honest: Vec<_> =
            self.devices.iter().enumerate().filter(|(it, _)| *it != from).map(|(_, it)| it.id).collect();
        let World { malice, fate, devices, removed, .. } = self;
        let (Some(malice), Some(own), Some(victim)) = (malice, &devices[from].replica, &devices[victim].replica) else {
            return Vec::new();
        };
        malice.learn(&devices[from].log);
        malice.act(fate, &Scene { removed: *removed, own, victim, honest: &honest })
    }

    fn commit(&mut self, from: usize, victim: usize, deed: Deed) {
        if !self.can_send(from, victim) {
            return;
        }
        let Deed { name, bytes } = deed;
        self.counts.add(name);
        self.trace.bytes(&bytes);
        self.trace.line(|| format!("              device {victim} is sent: {name}"));
        self.store_carelessly(victim, name, &bytes);
        let peer = self.devices[from].id;
        self.drive(victim, Input::Frame { peer, bytes });
        if let Some(reason) = self.devices[victim].replica.as_ref().and_then(judge::tables) {
            self.fail(format!("device {victim}: {reason}"));
        }
    }

    /// Sends again what anybody sent at any time.
    fn repeat_anything(&mut self, from: usize, victim: usize) {
        let mut sent = self.links.values().flat_map(|link| &link.sides).flat_map(|side| &side.sent);
        let number = self.fate.index(sent.clone().count());
        if let Some(bytes) = sent.nth(number).cloned() {
            self.commit(from, victim, Deed { name: "malice: frame of others repeated", bytes });
        }
    }

    /// What a planted bug does with a record before the replica has looked at it.
    fn store_carelessly(&mut self, device: usize, name: &str, bytes: &[u8]) {
        let unverified = self.has(Planted::UnverifiedRecord) && name == "malice: forged signature";
        let replaces = self.has(Planted::TwinReplaces) && name == "malice: twin record";
        let Ok(Frame::Records { object, records }) = Frame::decode(bytes) else { return };
        for record in records.into_iter().filter(|_| unverified || replaces) {
            let Ok(record) = Verified::trusted(record.into_vec()) else { continue };
            let (chain, seq, id) = (record.chain(), record.header().seq, record.id());
            let log = &mut self.devices[device].log;
            let place = (chain, seq);
            let same = |stored: &Stored| matches!(stored, Stored::Record { chain, seq, .. } if (*chain, *seq) == place);
            let twin = Stored::Record { object, chain, seq, id, own: false, bytes: record.into_bytes() };
            match log.iter_mut().find(|stored| same(stored)) {
                Some(stored) => *stored = twin,
                None => log.push(twin),
            }
        }
    }

    /// Word of a removal may reach some late.
    pub(super) fn spread_slowly(&mut self) {
        let Some(malicious) = self.leaver.filter(|_| self.cast == Cast::Malicious && !self.calm) else {
            return;
        };
        self.at(MS, Event::Malice);
        for late in (1..malicious).filter(|_| self.fate.once_in(2)).collect::<Vec<_>>() {
            self.counts.add("fault: word of a removal late");
            for other in (0..malicious).filter(|other| *other != late) {
                self.link(late, other).parted = true;
                self.cut(late, other);
            }
        }
    }

    /// A process dies: what of the malicious one's removals stands there is known by then.
    pub(super) fn note_dead(&mut self, device: usize) {
        let (Some(malice), Some(replica)) = (&mut self.malice, &self.devices[device].replica) else { return };
        let (Some(folder), Some(intake)) = (replica.folder(self.folder), replica.intake(self.folder)) else { return };
        let place = |record: &RecordKey| intake.chains().place_of(record);
        let stands = |record| place(record).is_some_and(|(chain, seq)| seq <= replica.standing(self.folder, &chain));
        let files = folder.feed().iter().flatten().filter_map(|operation| operation.value.file());
        let live: BTreeSet<ContentId> = files.map(|file| file.content).collect();
        let killed = malice.kills.iter().filter(|(record, content)| stands(record) && !live.contains(content));
        malice.dead.insert(device, killed.map(|(_, content)| *content).collect());
    }

    /// A home is put back. Of what the malicious one had removed it need know nothing any more, nor of what it had removed.
    pub(super) fn forget_dead(&mut self, device: usize) {
        let shown: BTreeSet<ContentId> = self.contents_under(device, &[]).into_iter().collect();
        let Some(malice) = &mut self.malice else { return };
        malice.forgotten.extend(malice.dead.remove(&device).unwrap_or_default().difference(&shown));
    }

    /// Whether a device sends records that it was asked for.
    pub(super) fn withholds(&mut self, device: usize) -> bool {
        let withholds = self.is_malicious(device) && self.fate.once_in(3);
        if withholds {
            self.counts.add("malice: records withheld");
        }
        withholds
    }

    /// What a peer gives for a content.
    pub(super) fn offered(&mut self, peer: usize, content: ContentId) -> Option<Vec<u8>> {
        let mut bytes = self.served(peer, content)?;
        if !self.is_malicious(peer) {
            return Some(bytes);
        }
        match self.fate.below(4) {
            0 => {
                self.counts.add("malice: content withheld");
                None
            }
            1 => {
                self.counts.add("malice: wrong content");
                bytes.push(0);
                Some(bytes)
            }
            _ => Some(bytes),
        }
    }
}
