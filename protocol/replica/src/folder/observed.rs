//! What a node sees in the directory of a Live Folder, and what it asks to be done there.
//!
//! Paths are lists of names from the folder's root; the empty path is the root itself.

use std::collections::BTreeMap;

use meshwork_protocol::id::ContentId;

use crate::feed::{FileValue, Manifest, Name};

/// A path beneath the folder's root.
pub type Path = Vec<Name>;

/// Which directory this is, whatever its name: device, inode and birth time in nanoseconds (0 where
/// the file system tells none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirIdentity {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch; guards against a reused inode.
    pub born_ns: i64,
}

/// What tells that a file is as it was when last read, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Change time (of content or attributes) in nanoseconds since the epoch.
    pub changed_ns: i64,
    /// Whether the owner may execute it.
    pub executable: bool,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A directory.
    Dir(DirIdentity),
    /// A regular file.
    File(Fingerprint),
    /// A symbolic link, never followed.
    Symlink {
        /// The text of the link.
        target: Vec<u8>,
    },
    /// There, but not to be synchronised or not readable now. Never taken as absent.
    Skipped {
        /// A sentence for the user.
        reason: String,
    },
}

/// All names of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Which directory was listed.
    pub identity: DirIdentity,
    /// Its names.
    pub entries: Vec<(Name, Seen)>,
}

/// Why a directory could not be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// No directory of this name; its parent's listing tells the rest.
    #[error("no such directory")]
    Missing,
    /// There, but cannot be read. Never taken as absent.
    #[error("{0}")]
    Unreadable(String),
    /// The folder itself is gone or is another one: nothing may be concluded from it.
    #[error("{0}")]
    RootLost(String),
}

/// The outcome of reading one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hashed {
    /// Its content, read between two equal fingerprints.
    Content {
        /// The fingerprint before and after.
        fingerprint: Fingerprint,
        /// Hash over the ordered hashes of its chunks.
        content: ContentId,
        /// Its chunks.
        manifest: Manifest,
    },
    /// It changed while it was read: look again.
    Unstable,
    /// It is gone: its directory is to be listed again.
    Missing,
    /// It cannot be read. Never taken as absent.
    Unreadable(String),
}

/// What a step relies on; the disk layer compares right before it acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// No such name.
    Absent,
    /// A regular file with this fingerprint.
    File(Fingerprint),
    /// A symbolic link with this text.
    Symlink {
        /// The text of the link.
        target: Vec<u8>,
    },
    /// This directory.
    Dir(DirIdentity),
}

/// One change of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a directory where nothing is.
    MakeDir {
        /// Where.
        path: Path,
    },
    /// Remove an empty directory.
    RemoveDir {
        /// Where.
        path: Path,
        /// Which.
        expect: DirIdentity,
    },
    /// Rename a file, link or directory to a free name.
    Move {
        /// From where.
        from: Path,
        /// To where; nothing is there.
        to: Path,
        /// What is moved.
        expect: Expect,
    },
    /// Swap two names in one act.
    Exchange {
        /// One name.
        one: Path,
        /// What is there.
        one_expect: Expect,
        /// The other name.
        other: Path,
        /// What is there.
        other_expect: Expect,
    },
    /// Put a received file in place; what was there goes to history.
    PutFile {
        /// Where.
        path: Path,
        /// What must be there now.
        expect: Expect,
        /// What comes, received whole into the folder's temporary files.
        value: FileValue,
        /// An own file with the same content to copy instead of a received one.
        copy_from: Option<(Path, Fingerprint)>,
    },
    /// Put a symbolic link in place.
    PutSymlink {
        /// Where.
        path: Path,
        /// What must be there now.
        expect: Expect,
        /// The text of the link.
        target: Vec<u8>,
    },
    /// Remove a file or link; it goes to history.
    Remove {
        /// Where.
        path: Path,
        /// What is removed.
        expect: Expect,
    },
    /// Set the modification time and executable bit of a file whose content stays.
    SetMeta {
        /// Where.
        path: Path,
        /// Which.
        expect: Fingerprint,
        /// New modification time in nanoseconds since the epoch.
        modified_ns: i64,
        /// New executable bit.
        executable: bool,
    },
    /// Look whether a file or link is still there, and change nothing.
    Check {
        /// Where.
        path: Path,
        /// What must be there.
        expect: Expect,
    },
}

impl Step {
    /// Whether it changes nothing.
    pub fn is_check(&self) -> bool {
        matches!(self, Step::Check { .. })
    }
}

/// Steps to be done in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// What to do.
    pub steps: Vec<Step>,
    /// For each step the content, where known, of the file that it takes to history.
    pub kept: Vec<Option<ContentId>>,
    /// The steps, by their number, that may be done only after another was: what they take from its name is to have
    /// the other one first.
    pub needs: BTreeMap<usize, usize>,
}

impl Batch {
    /// Whether the step of this number may be done, given what came of those before it. If not it counts as
    /// [`Stepped::Changed`].
    pub fn may_do(&self, number: usize, before: &[Stepped]) -> bool {
        self.needs.get(&number).is_none_or(|needed| matches!(before.get(*needed), Some(Stepped::Done(_))))
    }
}

/// The outcome of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// Done; what is now at the step's target (for an exchange, at `one`).
    Done(Option<Seen>),
    /// What the plan assumed is no longer so: nothing was touched.
    Changed,
    /// It could not be done; nothing was touched.
    Refused {
        /// A sentence for the user.
        reason: String,
    },
}
