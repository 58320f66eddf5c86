//! A Live Folder on this device: the feed of its files, what the disk shows of it, and the work that
//! brings the two together.
//!
//! The machine has one job at the disk at a time (list, read, or place), so that no answer can be
//! older than what it is compared with. What the user did is always looked at before anything is
//! placed.

mod adopt;
mod agree;
mod base;
mod compare;
mod disk;
#[cfg(test)]
mod fixtures;
pub mod observed;
mod places;
mod queue;
mod reconcile;
mod scan;
mod search;
mod steps;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use meshwork_protocol::{
    id::{ChainId, ContentId, ObjectId, RecordKey},
    time::Timestamp,
};
use rand_core::CryptoRng;

pub(crate) use adopt::{Putting, Verdict};
pub use base::{BaseChange, DiskBase};
use disk::Disk;
use observed::{Batch, Hashed, Path, Stepped};
pub use scan::{ListResult, ToHash};

use crate::feed::{At, Feed, FeedMap, Key, Listed, NewOperation, Operation, Part};

/// The one name in a folder's root that belongs to the node.
pub const OWN_NAME: &str = ".meshwork";
/// Beneath [`OWN_NAME`]: files on their way.
pub const TEMP_NAME: &str = "temp";

/// What the folder is told.
#[derive(Debug)]
pub enum Input {
    /// Something changed in these directories.
    Dirty(BTreeSet<Path>),
    /// Anything may have changed.
    DirtyEverywhere,
    /// The answer to [`Output::List`].
    Listed(Vec<ListResult>),
    /// The answer to [`Output::Hash`].
    Hashed(Vec<(ToHash, Hashed)>),
    /// The answer to [`Output::Place`]: an outcome for each step, or why the batch failed whole.
    Placed(Result<Vec<Stepped>, String>),
    /// The answer to [`Output::Author`] when nothing could be signed: look again later.
    AuthorFailed(String),
    /// The answer to [`Output::Author`]: the operations as signed.
    Authored(Vec<Arc<Operation>>),
    /// A wanted content is here whole.
    Arrived(ContentId),
    /// Do this as if the user did so: what it puts is recorded when it is found. Answered with [`Event::Put`].
    Put(Batch),
    /// A deadline has passed.
    Tick,
}

/// What the folder asks for.
#[derive(Debug)]
pub enum Output {
    /// List these directories.
    List(Vec<Path>),
    /// Read these files.
    Hash(Vec<ToHash>),
    /// Change the disk, once all that was to be stored by now is durable.
    Place(Batch),
    /// Sign these operations into records.
    Author(Vec<NewOperation>),
    /// Fetch the contents of these operations' values.
    Want(Vec<Arc<Operation>>),
    /// These contents are no longer wanted.
    Unwant(Vec<ContentId>),
    /// Store these changes of the disk base.
    Base(Vec<BaseChange>),
    /// Tell the user.
    Event(Event),
}

/// What happened, for people and programs that watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file or link is in place.
    Placed {
        /// Where.
        path: Path,
        /// Bytes.
        size: u64,
        /// Whether two versions met and this one was given another name.
        conflict: bool,
    },
    /// A file, link or directory is gone.
    Removed {
        /// Where.
        path: Path,
    },
    /// Something has another name.
    Moved {
        /// Its old name.
        from: Path,
        /// Its new name.
        to: Path,
    },
    /// Own changes were recorded.
    Recorded {
        /// How many.
        operations: usize,
    },
    /// The steps of [`Input::Put`] are done, but for those listed.
    Put {
        /// Where one was not done, and a sentence for the user.
        failed: Vec<(Path, String)>,
    },
    /// Something cannot be synchronised.
    Problem {
        /// Where.
        path: Path,
        /// A sentence for the user.
        reason: String,
    },
    /// The folder stopped: nothing is read or written until it is back.
    Stopped {
        /// A sentence for the user.
        reason: String,
    },
    /// The folder works again.
    Resumed,
}

/// What the folder is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Known, but not on this device.
    Unmapped,
    /// Everything here is as the replica has it.
    Idle,
    /// Looking at the disk.
    Scanning {
        /// Files still to be read.
        left: usize,
        /// Files that were to be read.
        total: usize,
    },
    /// Waiting for contents, or placing them.
    Syncing {
        /// Names that are not in place yet.
        names: usize,
    },
    /// Stopped until its directory is back.
    Stopped {
        /// A sentence for the user.
        reason: String,
    },
}

/// A folder as this device knows it.
pub struct Folder {
    object: ObjectId,
    feed: Feed,
    disk: Option<Disk>,
}

impl Folder {
    /// A folder of which nothing is known yet.
    pub fn new(object: ObjectId) -> Self {
        Folder { object, feed: Feed::default(), disk: None }
    }

    /// Which object this is.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// The feed of files.
    pub fn feed(&self) -> &FeedMap {
        self.feed.map()
    }

    /// What the disk shows, when the folder is on this device.
    pub fn base(&self) -> Option<&DiskBase> {
        self.disk.as_ref().map(Disk::base)
    }

    /// Puts the folder on this device's disk. `base` is what was stored of it, empty when new.
    pub fn map(&mut self, base: DiskBase) {
        let mut disk = Disk::new(base);
        disk.compare_all(self.feed.map());
        self.disk = Some(disk);
    }

    /// Notes that anything may have changed on the disk.
    pub fn look_everywhere(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.look_everywhere();
        }
    }

    /// Takes the folder off this device; its files stay where they are.
    pub fn unmap(&mut self) {
        self.disk = None;
    }

    /// Merges operations of one record. `context` tells which records it builds on.
    pub fn merge(&mut self, operations: &[Arc<Operation>], context: impl Fn(&RecordKey) -> bool) {
        let keys = self.feed.apply(operations, context);
        self.refresh(keys);
    }

    /// Merges one record of a checkpoint: [`Feed::list`].
    pub fn list(
        &mut self,
        at: At,
        part: &Part,
        is_known: impl Fn(&RecordKey) -> bool,
        chain: impl Fn(&RecordKey) -> Option<ChainId>,
    ) -> Listed {
        let listed = self.feed.list(at, part, is_known, chain);
        self.refresh(listed.keys.iter().cloned());
        listed
    }

    /// Forgets that the disk shows what is under these keys, where that is no more: it is met as something new.
    pub fn disown(&mut self, keys: &BTreeSet<Key>) {
        if let Some(disk) = &mut self.disk {
            disk.disown(keys);
        }
    }

    /// Takes what stands of all records in the place of what was merged so far.
    pub fn replace(&mut self, feed: Feed) {
        let before = std::mem::replace(&mut self.feed, feed);
        if let Some(disk) = &mut self.disk {
            disk.compare_all(self.feed.map());
            // What was wanted for a key that is gone is not wanted any more.
            disk.compare(self.feed.map(), before.map().keys().cloned());
        }
    }

    /// Replays an own record that is newer than the stored disk base: the disk showed what it says.
    pub fn replay_own(&mut self, operations: &[Arc<Operation>]) {
        if let Some(disk) = &mut self.disk {
            disk.replay_own(operations);
        }
        self.refresh(operations.iter().map(|op| op.key.clone()));
    }

    fn refresh(&mut self, keys: impl IntoIterator<Item = Key>) {
        if let Some(disk) = &mut self.disk {
            disk.compare(self.feed.map(), keys);
        }
    }

    /// Takes an input in and says what is to be done.
    #[must_use]
    pub fn handle(&mut self, now: Timestamp, rng: &mut impl CryptoRng, input: Input) -> Vec<Output> {
        if let Input::Authored(operations) = &input {
            drop(self.feed.apply(operations, |_| true));
        }
        match &mut self.disk {
            Some(disk) => disk.handle(now, rng, self.feed.map(), input),
            None => Vec::new(),
        }
    }

    /// Goes on with whatever can be done; to be called after a merge.
    #[must_use]
    pub fn advance(&mut self, now: Timestamp) -> Vec<Output> {
        self.disk.as_mut().map_or_else(Vec::new, |disk| disk.advance(now, self.feed.map()))
    }

    /// When [`Input::Tick`] is next due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.disk.as_ref().and_then(Disk::next_deadline)
    }

    /// What the folder is doing.
    pub fn state(&self) -> State {
        self.disk.as_ref().map_or(State::Unmapped, Disk::state)
    }

    /// Files that the folder holds, and their bytes.
    pub fn totals(&self) -> (u64, u64) {
        let files = self.feed().iter().flat_map(|live| live.iter().filter_map(|op| op.value.file()));
        files.fold((0, 0), |(count, bytes), file| (count + 1, bytes.saturating_add(file.size)))
    }

    /// Names that have more than one live version.
    pub fn conflicts(&self) -> u64 {
        let versions = |live: &[Arc<Operation>]| live.iter().filter(|op| op.value.file().is_some()).count();
        self.feed().iter().filter(|live| versions(live) > 1).count() as u64
    }
}
