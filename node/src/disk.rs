//! The disk beneath a Live Folder: what is there, what it contains, and changing it without ever
//! losing a version.
//!
//! Everything here blocks and is called from threads that may. A folder is reached only through its
//! [`root::FolderRoot`]: every path is resolved by the kernel beneath the root's descriptor, without
//! symbolic links, so that no name from a peer and no link in the folder leads outside.
//!
//! Absence is concluded only from a listing that succeeded in a folder whose marker was there:
//! unreadable, unmounted or replaced is never absent.

pub mod blobs;
pub mod chunk;
pub mod hash;
pub mod history;
pub mod list;
pub mod place;
pub mod read;
pub mod root;
pub mod stat;
pub mod temp;
pub mod watch;

#[cfg(test)]
mod testing;

use meshwork_protocol::id::ChunkId;
use rustix::io::Errno;

/// The id of a chunk from the plain BLAKE3 hash of its bytes: a keyed hash under the object's
/// convergence secret.
pub type Convergence<'a> = dyn Fn(&[u8; 32]) -> ChunkId + Sync + 'a;

/// What an error of the operating system means to the owner of the folder: the end of a sentence.
pub(crate) fn cause(error: Errno) -> String {
    let known = match error {
        Errno::ACCESS | Errno::PERM => "permission was denied",
        Errno::NOSPC => "the disk is full",
        Errno::DQUOT => "the disk quota is used up",
        Errno::ROFS => "the file system is read-only",
        Errno::IO => "the disk reported an error",
        Errno::NAMETOOLONG => "the name is too long for this file system",
        Errno::ILSEQ | Errno::INVAL => "this file system does not take it",
        Errno::LOOP => "a symbolic link is in the way",
        Errno::XDEV => "it lies on another file system than the folder",
        Errno::NOTDIR => "a file is in the way",
        Errno::NOENT => "its directory is not there",
        Errno::MFILE | Errno::NFILE => "too many files are open",
        Errno::BUSY => "it is in use",
        Errno::FBIG => "it is too large for this file system",
        Errno::MLINK => "the directory can hold no more entries",
        other => return other.to_string(),
    };
    known.to_owned()
}

/// The system error inside an I/O error; what has none counts as a failing disk.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
