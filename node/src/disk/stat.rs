//! What the file system tells about one name, never following a link.

use std::os::fd::{AsFd, OwnedFd};

use meshwork_replica::folder::observed::{DirIdentity, Expect, Fingerprint, Seen};
use rustix::{
    fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, makedev, readlinkat, statx},
    io::Errno,
};

/// Attributes of a file, directory or link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Regular file, directory, link or something else.
    pub kind: FileType,
    /// Permission bits.
    pub mode: u32,
    /// Number of names of the inode.
    pub links: u32,
    /// Which inode; a directory is recognised by it.
    pub identity: DirIdentity,
    /// Tells a changed file from an unchanged one; for a directory or link it has no meaning.
    pub fingerprint: Fingerprint,
}

fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
}

impl From<Statx> for Meta {
    fn from(stat: Statx) -> Self {
        let mode = u32::from(stat.stx_mode);
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Meta {
            kind: FileType::from_raw_mode(mode),
            mode: mode & 0o7777,
            links: stat.stx_nlink,
            identity: DirIdentity {
                device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
                born_ns: if has_birth { nanoseconds(stat.stx_btime) } else { 0 },
            },
            fingerprint: Fingerprint {
                inode: stat.stx_ino,
                size: stat.stx_size,
                modified_ns: nanoseconds(stat.stx_mtime),
                changed_ns: nanoseconds(stat.stx_ctime),
                executable: mode & 0o100 != 0,
            },
        }
    }
}

impl Meta {
    /// Of one name in an open directory.
    pub fn at(dir: impl AsFd, name: &[u8]) -> Result<Meta, Errno> {
        query(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
    }

    /// Of an open file or directory.
    pub fn of(file: impl AsFd) -> Result<Meta, Errno> {
        query(file, b"", AtFlags::EMPTY_PATH)
    }

    /// Whether it is what a plan assumed, judged by everything the file system tells.
    pub fn meets(&self, expect: &Expect, target: Option<&[u8]>) -> bool {
        match expect {
            Expect::Absent => false,
            Expect::File(fingerprint) => self.kind == FileType::RegularFile && self.fingerprint == *fingerprint,
            Expect::Symlink { target: text } => self.kind == FileType::Symlink && target == Some(text.as_slice()),
            Expect::Dir(identity) => self.kind == FileType::Directory && self.identity == *identity,
        }
    }

    /// Whether it is the same inode with the same content as `earlier`: links and renames in between
    /// change only the change time.
    pub fn same_content(&self, earlier: &Meta) -> bool {
        let (now, then) = (&self.fingerprint, &earlier.fingerprint);
        self.kind == earlier.kind
            && self.identity.device == earlier.identity.device
            && now.inode == then.inode
            && (self.kind != FileType::RegularFile
                || (now.size, now.modified_ns, now.executable) == (then.size, then.modified_ns, then.executable))
    }
}

fn query(dir: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Meta, Errno> {
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).map(Meta::from)
}

/// What one name of an open directory is: `None` where there is nothing.
pub fn see(dir: impl AsFd, name: &[u8]) -> Result<Option<(Meta, Seen)>, Errno> {
    let meta = match Meta::at(&dir, name) {
        Ok(meta) => meta,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let seen = match meta.kind {
        FileType::Directory => Seen::Dir(meta.identity),
        FileType::RegularFile => Seen::File(meta.fingerprint),
        FileType::Symlink => match readlinkat(&dir, name, Vec::new()) {
            Ok(target) => Seen::Symlink { target: target.into_bytes() },
            // The link went or became something else just now; the next look tells.
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        },
        FileType::Fifo => skipped("a named pipe is not synchronised"),
        FileType::Socket => skipped("a socket is not synchronised"),
        FileType::CharacterDevice | FileType::BlockDevice => skipped("a device node is not synchronised"),
        FileType::Unknown => skipped("a thing of unknown kind is not synchronised"),
    };
    Ok(Some((meta, seen)))
}

/// An entry that is there but takes no part, with the reason as a sentence.
pub fn skipped(reason: &str) -> Seen {
    Seen::Skipped { reason: reason.to_owned() }
}

/// Whether an open descriptor is a regular file.
pub fn is_regular(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(Meta::of(file)?.kind == FileType::RegularFile)
}
