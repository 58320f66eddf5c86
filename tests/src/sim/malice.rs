//! A device of the mesh that keeps to no rule: what it signs with its real keys, and what it makes up.
//!
//! It never takes note of its own removal, so that all it signs afterwards claims to be older.

mod frames;
mod records;
mod statements;

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    control::{Act, Control, Keyring},
    id::{ChainId, ContentId, DeviceId, Incarnation, ObjectId, RecordId, RecordKey},
    key::{DeviceKey, Kind, Signed},
    object::{Chains, Draft, Verified},
    seal::SealKey,
    wire::sync::Frame,
};
use meshwork_replica::{
    feed::Dot,
    replica::{Replica, Stored},
};

use super::{device::Secrets, fate::Fate};

/// Incarnations in which it writes, besides that of its replica.
const INCARNATIONS: u64 = 2;

/// What the malicious device sends, and what it does with that.
pub struct Deed {
    /// What it is counted as.
    pub name: &'static str,
    /// A frame, or what is to look like one.
    pub bytes: Vec<u8>,
}

/// What the malicious device sees of the world.
pub struct Scene<'a> {
    /// Whether it was removed.
    pub removed: bool,
    /// Its own replica.
    pub own: &'a Replica,
    /// Whom it sends to.
    pub victim: &'a Replica,
    /// The devices that keep to the rules.
    pub honest: &'a [DeviceId],
}

/// A record that it signed, to make a twin of.
struct Written {
    draft: Draft,
}

/// The malicious device.
pub struct Malice {
    key: DeviceKey,
    seal: SealKey,
    mesh: ObjectId,
    folder: ObjectId,
    /// Entries of its replica's log that were read.
    read: usize,
    control: Control,
    keyring: Keyring,
    chains: BTreeMap<ObjectId, Chains>,
    incarnations: BTreeMap<ChainId, Incarnation>,
    written: Vec<Written>,
    /// Frames for whomever it meets next.
    kept: Vec<Deed>,
    marks: u64,
    flooded: bool,
    /// Whether it names contents that nobody has.
    pub liar: bool,
    /// Contents that nobody has.
    pub lies: BTreeSet<ContentId>,
    /// Contents that its records remove, and where these records are.
    pub kills: Vec<(RecordKey, ContentId)>,
    /// Those of them that were dead for that on devices when their processes died, by device.
    pub dead: BTreeMap<usize, BTreeSet<ContentId>>,
    /// Those that a home had forgotten when it was put back, and that its disk did not show any more.
    pub forgotten: BTreeSet<ContentId>,
    /// The newest of its records that the device that removed it let stand.
    pub cuts: BTreeSet<RecordId>,
    /// Whether it signed twins.
    pub forked: bool,
}

impl Malice {
    /// With the keys of a device.
    pub fn new(secrets: &Secrets, mesh: ObjectId, folder: ObjectId, liar: bool) -> Self {
        Malice {
            key: DeviceKey::from_bytes(&secrets.device),
            seal: SealKey::from_bytes(&secrets.seal),
            mesh,
            folder,
            read: 0,
            control: Control::new(),
            keyring: Keyring::new(),
            chains: [mesh, folder].map(|object| (object, Chains::new(object))).into(),
            incarnations: BTreeMap::new(),
            written: Vec::new(),
            kept: Vec::new(),
            marks: 0,
            flooded: false,
            liar,
            lies: BTreeSet::new(),
            kills: Vec::new(),
            dead: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            cuts: BTreeSet::new(),
            forked: false,
        }
    }

    /// Reads what its replica has stored since, but for its own removal and what follows from that.
    pub fn learn(&mut self, log: &[Stored]) {
        for stored in log.iter().skip(self.read) {
            match stored {
                Stored::Control { items, .. } => items.iter().for_each(|item| self.learn_statement(item)),
                Stored::Retired { .. } => {}
                Stored::Record { object, bytes, .. } => {
                    let (Ok(record), Some(chains)) = (Verified::trusted(bytes.clone()), self.chains.get_mut(object))
                    else {
                        continue;
                    };
                    if record.header().control.iter().all(|head| self.control.contains(*head)) {
                        let _ = chains.accept(&record);
                        self.incarnations.insert(record.chain(), record.header().incarnation);
                    }
                }
            }
        }
        self.read = log.len();
        for object in [self.mesh, self.folder] {
            let _ = self.control.open_epochs(object, self.key.device_id(), &self.seal, &mut self.keyring);
        }
    }

    fn learn_statement(&mut self, bytes: &[u8]) {
        let Ok(signed) = Signed::parse(bytes) else { return };
        let op = signed.open::<meshwork_protocol::control::ControlOp>(Kind::ControlOp);
        let own = self.key.device_id().into();
        if !op.is_ok_and(|op| matches!(op.act, Act::Revoke { to, .. } if to == own)) {
            let _ = self.control.adopt(signed);
        }
    }

    /// Whether an operation is its own and past what its removal let stand.
    pub fn is_past_cut(&self, dot: &Dot) -> bool {
        let Some(chains) = self.chains.get(&self.folder) else { return false };
        let Some((chain, seq)) = chains.place_of(&dot.record) else { return false };
        let inside = |head: &RecordId| chains.reaches(&chain, head).is_some_and(|last| seq <= last);
        chains.author(&chain) == Some(self.key.device_id()) && !self.cuts.iter().any(inside)
    }

    /// What it does next.
    pub fn act(&mut self, fate: &mut Fate, scene: &Scene) -> Vec<Deed> {
        if let Some(deed) = self.kept.pop() {
            return vec![deed];
        }
        let deeds = match fate.below(24) {
            4 => self.twin_record(fate),
            5 => self.twin_statements(fate, scene),
            6..=8 if scene.removed => self.delete(fate, scene),
            6 if self.liar => self.lie(fate, scene),
            9 => self.revoke(fate, scene),
            10 | 11 if scene.removed => self.puppet(fate),
            12 => self.forge_signature(fate, scene),
            13 => self.forge_body(fate),
            14 => self.wrong_height(fate),
            15 => self.wrong_predecessor(fate),
            16 => self.old_heads(fate, scene),
            17 => self.void_body(fate),
            18 => Some(frames::junk(fate)),
            19 if fate.once_in(8) => Some(frames::oversized()),
            20 => Some(frames::unknown_object(fate)),
            21 => Some(frames::claims(fate, self.folder)),
            22 if !self.flooded && fate.once_in(24) => self.flood(fate),
            _ => self.write_link(fate, scene),
        };
        deeds.unwrap_or_default()
    }
}

fn deed(name: &'static str, frame: &Frame) -> Deed {
    Deed { name, bytes: frame.encode() }
}

fn incarnation(number: u64) -> Incarnation {
    Incarnation(number.to_be_bytes())
}
