//! One simulated device: what lives in its process, what is on its disk, and what its store has.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use meshwork_protocol::{
    id::{ChainId, ContentId, DeviceId, DirId, Incarnation, MeshId},
    key::DeviceKey,
    seal::SealKey,
};
use meshwork_replica::{
    feed::{Dot, Key, Name, Operation},
    folder::{
        BaseChange, ToHash,
        observed::{Batch, DirIdentity, Fingerprint, Path, Stepped},
    },
    replica::{Identity, Replica, Stored, StoredBase},
};
use rand_chacha::ChaCha8Rng;

use super::disk::Disk;

/// The stored rows of a disk base.
#[derive(Clone, Default)]
pub struct Rows {
    own: Option<(ChainId, u64)>,
    keys: BTreeMap<Key, Vec<Dot>>,
    dirs: BTreeMap<DirId, DirIdentity>,
    files: BTreeMap<(DirIdentity, Name), Fingerprint>,
    intents: BTreeMap<Key, Vec<Dot>>,
}

impl Rows {
    /// Applies changes, as the node's index does: all of them or none.
    pub fn apply(&mut self, own: (ChainId, u64), changes: &[BaseChange]) {
        self.own = Some(own);
        let dots = |operations: &[Arc<Operation>]| operations.iter().map(|operation| operation.dot).collect();
        for change in changes {
            match change {
                BaseChange::Key { key, operations } if !operations.is_empty() => {
                    self.keys.insert(key.clone(), dots(operations));
                }
                BaseChange::Key { key, .. } => drop(self.keys.remove(key)),
                BaseChange::Dir { dir, identity: Some(identity) } => drop(self.dirs.insert(*dir, *identity)),
                BaseChange::Dir { dir, identity: None } => drop(self.dirs.remove(dir)),
                BaseChange::File { parent, name, fingerprint: Some(fingerprint) } => {
                    self.files.insert((*parent, name.clone()), *fingerprint);
                }
                BaseChange::File { parent, name, fingerprint: None } => {
                    self.files.remove(&(*parent, name.clone()));
                }
                BaseChange::Intent { key, operations: Some(operations) } => {
                    self.intents.insert(key.clone(), dots(operations));
                }
                BaseChange::Intent { key, operations: None } => drop(self.intents.remove(key)),
            }
        }
    }

    /// The operations that the disk showed.
    pub fn dots(&self) -> impl Iterator<Item = &Dot> {
        self.keys.values().flatten()
    }

    /// As the replica takes them.
    pub fn stored(&self) -> StoredBase {
        StoredBase {
            own: self.own,
            keys: self.keys.iter().map(|(key, dots)| (key.clone(), dots.clone())).collect(),
            dirs: self.dirs.iter().map(|(dir, identity)| (*dir, *identity)).collect(),
            files: self.files.iter().map(|((parent, name), print)| (*parent, name.clone(), *print)).collect(),
            intents: self.intents.iter().map(|(key, dots)| (key.clone(), dots.clone())).collect(),
        }
    }
}

/// What is written to the store in one lot.
#[derive(Default)]
pub struct Lot {
    /// Persist tickets that it answers.
    pub tickets: Vec<u64>,
    /// Entries of the log.
    pub entries: Vec<Stored>,
    /// Changes of the disk base.
    pub bases: Vec<((ChainId, u64), Vec<BaseChange>)>,
    /// What is to be placed once all of it is durable.
    pub batch: Option<Batch>,
}

impl Lot {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.bases.is_empty() && self.batch.is_none()
    }
}

/// Work at the disk that the replica asked for.
pub enum Job {
    /// List directories.
    List(Vec<Path>),
    /// Read files; what was read so far.
    Hash(VecDeque<ToHash>, Vec<(ToHash, meshwork_replica::folder::observed::Hashed)>),
    /// Place; what was done so far.
    Place(Batch, Vec<Stepped>),
    /// The answer is on its way.
    Answered(Box<meshwork_replica::replica::Input>),
}

/// A fetch under way.
pub struct Fetching {
    /// Its ticket.
    pub ticket: u64,
    /// Whom it asks.
    pub peer: DeviceId,
    /// What is left to fetch.
    pub left: VecDeque<meshwork_replica::feed::FileValue>,
    /// How the others ended.
    pub outcomes: Vec<(ContentId, meshwork_replica::transfer::Outcome)>,
}

/// A home as it was once, to be put back.
pub struct Backup {
    /// Entries of the log.
    pub log: usize,
    /// The rows.
    pub rows: Rows,
    /// The keys.
    pub secrets: Secrets,
    /// Whether the folder had a place.
    pub mapped: bool,
}

/// What makes a device itself.
#[derive(Clone)]
pub struct Secrets {
    /// Signs.
    pub device: [u8; 32],
    /// Opens.
    pub seal: [u8; 32],
    /// Of its installation.
    pub incarnation: Incarnation,
}

impl Secrets {
    /// The identity for a replica.
    pub fn identity(&self, mesh: MeshId) -> Identity {
        Identity {
            device: DeviceKey::from_bytes(&self.device),
            seal: SealKey::from_bytes(&self.seal),
            incarnation: self.incarnation,
            mesh,
        }
    }
}

/// A device.
pub struct Device {
    /// Its keys.
    pub secrets: Secrets,
    /// Its id.
    pub id: DeviceId,
    /// Chance inside the replica.
    pub rng: ChaCha8Rng,
    /// The replica, while the process runs.
    pub replica: Option<Replica>,
    /// Counts processes: what was asked for by an earlier one is void.
    pub life: u64,
    /// Whether it is in the mesh.
    pub joined: bool,
    /// Whether the folder has a place here.
    pub mapped: bool,
    /// The folder on disk.
    pub disk: Disk,
    /// The durable log.
    pub log: Vec<Stored>,
    /// The durable records by place.
    pub records: BTreeMap<(ChainId, u64), Vec<u8>>,
    /// States of the rows of which any may be what a crash leaves: the first is certain to survive.
    pub rows: Vec<Rows>,
    /// The lot being written.
    pub writing: Option<Lot>,
    /// What gathers meanwhile.
    pub gathered: Lot,
    /// The job at the disk.
    pub job: Option<Job>,
    /// Directories of which the watch is to tell, or all.
    pub changed: BTreeSet<Path>,
    /// Whether the watch says that anything may have changed.
    pub anything: bool,
    /// Whether the watch's report is scheduled.
    pub reporting: bool,
    /// Fetches under way.
    pub fetches: BTreeMap<u64, Fetching>,
    /// When the next tick is scheduled.
    pub tick: Option<u64>,
    /// Contents that were ever on its disk under a name.
    pub seen: BTreeSet<ContentId>,
    /// Contents that the node replaced or removed.
    pub displaced: Vec<ContentId>,
    /// Newest own place handed to the store.
    pub own_seq: BTreeMap<ChainId, u64>,
    /// Its home as it was at an earlier start.
    pub backup: Option<Backup>,
    /// What files held before, for a planted bug.
    pub before: BTreeMap<Path, Vec<u8>>,
}
