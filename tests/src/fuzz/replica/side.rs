//! One device: its replica, its store, its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meshwork_protocol::id::{ChainId, ContentId, DeviceId, MeshId, ObjectId};
use meshwork_replica::{
    feed::{FileValue, Name},
    folder::{
        BaseChange, Input as FolderInput, ToHash,
        observed::{Batch, Hashed, ListError, Path, Stepped},
    },
    replica::{Replica, Stored},
};
use rand_chacha::ChaCha8Rng;

use crate::{
    fuzz::program::Program,
    sim::{
        device::{Rows, Secrets},
        disk::Disk,
    },
};

const NAMES: [&str; 4] = ["a", "b", "d", "é"];

/// What is handed to the store and not durable yet.
#[derive(Clone)]
pub(super) enum Waiting {
    Entries(u64, Vec<Stored>),
    Base((ChainId, u64), Vec<BaseChange>),
}

/// Records that went out: to whom, of which object, whether asked for, and the newest place of each chain.
pub(super) type Written = (DeviceId, ObjectId, bool, Vec<(ChainId, u64)>);

/// Work at the disk.
#[derive(Clone)]
pub(super) enum Job {
    List(Vec<Path>),
    Hash(Vec<ToHash>),
    Place(Batch),
}

/// What outlives a process.
#[derive(Clone)]
pub(super) struct Kept {
    pub secrets: Secrets,
    pub id: DeviceId,
    pub rng: ChaCha8Rng,
    pub log: Vec<Stored>,
    pub records: BTreeMap<(ChainId, u64), Vec<u8>>,
    pub rows: Rows,
    pub disk: Disk,
    pub mapped: bool,
}

impl Kept {
    /// Lets go of a chain.
    pub fn forget(&mut self, chain: ChainId) {
        self.records.retain(|(of, _), _| *of != chain);
        self.log.retain(|stored| !matches!(stored, Stored::Record { chain: of, .. } if *of == chain));
    }
}

/// A device.
pub(super) struct Side {
    pub kept: Kept,
    pub replica: Replica,
    pub waiting: VecDeque<Waiting>,
    pub job: Option<Job>,
    pub fetches: BTreeMap<u64, Vec<FileValue>>,
    pub rereads: VecDeque<(ObjectId, Vec<(ChainId, u64)>)>,
    /// Frames under way to the other.
    pub wire: VecDeque<Vec<u8>>,
    /// Answers of the writer of the stream.
    pub written: VecDeque<Written>,
    /// Directories of which the watch is to tell.
    pub changed: BTreeSet<Path>,
    /// A write failed: the process is to start again.
    pub failed: bool,
}

impl Side {
    pub fn new(kept: Kept, replica: Replica) -> Self {
        Side {
            kept,
            replica,
            waiting: VecDeque::new(),
            job: None,
            fetches: BTreeMap::new(),
            rereads: VecDeque::new(),
            wire: VecDeque::new(),
            written: VecDeque::new(),
            changed: BTreeSet::new(),
            failed: false,
        }
    }

    /// A process that starts from what is durable.
    pub fn restored(mut kept: Kept, mesh: MeshId, folder: ObjectId) -> Self {
        kept.disk.recover();
        let mut replica = Replica::new(kept.secrets.identity(mesh));
        if kept.mapped {
            replica.expect_base(folder, kept.rows.stored());
        }
        for stored in &kept.log {
            if let Stored::Retired { object, chain, device, by } = stored {
                replica.restore_retired(*object, *chain, *device, *by);
            }
        }
        for stored in &kept.log {
            match stored {
                Stored::Control { items, .. } => items.iter().for_each(|item| replica.restore_control(item)),
                Stored::Record { object, bytes, own, .. } => replica.restore_record(*object, bytes.clone(), *own),
                Stored::Retired { .. } => {}
            }
        }
        if kept.mapped {
            replica.remap_folder(folder);
        }
        Side::new(kept, replica)
    }

    /// Makes durable what was handed over first; gives the ticket to answer.
    pub fn store(&mut self) -> Option<u64> {
        match self.waiting.pop_front()? {
            Waiting::Base(own, changes) => {
                self.kept.rows.apply(own, &changes);
                None
            }
            Waiting::Entries(ticket, entries) => {
                for entry in &entries {
                    if let Stored::Record { chain, seq, bytes, .. } = entry {
                        self.kept.records.insert((*chain, *seq), bytes.clone());
                    }
                }
                self.kept.log.extend(entries);
                Some(ticket)
            }
        }
    }

    /// A user changes something.
    pub fn user(&mut self, program: &mut Program<'_>) {
        let path: Path = (0..=program.below(2)).map(|_| name(program)).collect();
        let disk = &mut self.kept.disk;
        let done = match program.below(6) {
            0..=2 => disk.write(&path, vec![program.byte(); 1 + program.below(40)]),
            3 => disk.make_dir(&path),
            4 => disk.remove(&path),
            _ => disk.rename(&path, &[name(program)]),
        };
        if done {
            self.changed.extend([path[..path.len() - 1].to_vec(), Path::new()]);
        }
    }

    /// Does the job at the disk; without a program, as a good disk does it.
    pub fn job(&mut self, mut program: Option<&mut Program<'_>>) -> Option<FolderInput> {
        let mut fails = || program.as_deref_mut().map_or(0, |program| program.below(16));
        let disk = &mut self.kept.disk;
        Some(match self.job.take()? {
            Job::List(paths) => {
                let mut list = |path: &Path| match fails() {
                    13 => Err(ListError::Missing),
                    14 => Err(ListError::Unreadable("unreadable".to_owned())),
                    15 => Err(ListError::RootLost("gone".to_owned())),
                    _ => disk.list(path),
                };
                FolderInput::Listed(paths.into_iter().map(|path| (path.clone(), list(&path))).collect())
            }
            Job::Hash(files) => {
                let mut hash = |file: &ToHash| match fails() {
                    13 => Hashed::Unstable,
                    14 => Hashed::Missing,
                    15 => Hashed::Unreadable("unreadable".to_owned()),
                    _ => disk.hash(file),
                };
                FolderInput::Hashed(files.into_iter().map(|file| (file.clone(), hash(&file))).collect())
            }
            Job::Place(_) if fails() == 15 => FolderInput::Placed(Err("the disk is full".to_owned())),
            Job::Place(batch) => {
                disk.begin_batch();
                disk.stage(&batch.steps);
                let mut outcomes = Vec::new();
                for (number, step) in batch.steps.iter().enumerate() {
                    outcomes.push(match fails() {
                        _ if !batch.may_do(number, &outcomes) => Stepped::Changed,
                        14 => Stepped::Changed,
                        15 => Stepped::Refused { reason: "refused".to_owned() },
                        _ => disk.step(step),
                    });
                }
                FolderInput::Placed(Ok(outcomes))
            }
        })
    }

    /// The bytes of a content, if this disk has them.
    pub fn content(&self, content: ContentId) -> Option<Vec<u8>> {
        let files = self.kept.disk.tree().into_keys().filter_map(|path| self.kept.disk.read(&path));
        files.chain(self.kept.disk.kept(content)).find(|bytes| crate::sim::disk::content_of(bytes) == content)
    }
}

fn name(program: &mut Program<'_>) -> Name {
    Name::try_from(program.pick(&NAMES).copied().unwrap_or("a")).expect("a name")
}
