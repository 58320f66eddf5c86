//! The root of a Live Folder: the one way to anything in it.
//!
//! The directory is opened once. Whatever is reached later is resolved by the kernel beneath that
//! descriptor, following no symbolic link (`openat2` with `RESOLVE_BENEATH`, Linux 5.6). A marker file
//! tells the folder from an empty mount point; when it is missing, the folder stops.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path as FsPath, PathBuf},
};

use meshwork_protocol::id::{ContentId, ObjectId};
use meshwork_replica::{feed::Name, folder::observed::DirIdentity};
use rustix::{
    fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, access, mkdirat, open, openat2, unlinkat},
    io::Errno,
};

use super::{cause, stat::Meta};

/// The hidden directory in a folder's root. Names that begin with it are never synchronised there.
pub const HIDDEN: &str = ".meshwork";
/// Beneath [`HIDDEN`]: incoming files.
pub const TEMP: &str = "temp";
/// What directories that wait while another takes their name are called beneath [`TEMP`].
pub(crate) const ASIDE: &[u8] = b"dir-";
/// Bytes of a path given to the kernel in one call; it takes 4,096 with the closing zero.
const PATH_BYTES: usize = 4_000;
/// Bytes of a marker file that are looked at.
const MARKER_BYTES: u64 = 256;
/// Tries, in number, when the kernel asks to resolve a path again.
const RESOLVE_TRIES: usize = 16;

/// Why a folder stops. Nothing in it may be taken as deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// There is no such directory, or another has taken its place.
    #[error("the folder's directory is not there: the disk may not be connected")]
    Missing,
    /// The directory has no marker: an empty mount point, or emptied by someone.
    #[error("the directory has no Meshwork marker: the disk may not be mounted, or it was emptied")]
    NotAFolder,
    /// The marker is that of another object.
    #[error("the directory belongs to another Live Folder")]
    OtherFolder,
    /// There, but cannot be read.
    #[error("the folder's directory cannot be read: {0}")]
    Unreadable(String),
    /// The kernel cannot confine paths to a directory.
    #[error("this system cannot keep paths inside a folder: Linux 5.6 or newer is needed")]
    Unsupported,
}

/// Why a directory cannot become a Live Folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NewFolderError {
    /// Nothing of this name, or no directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// Reading or writing is not allowed.
    #[error("{0} must be readable and writable")]
    NotAccessible(PathBuf),
    /// The node's own files would be in the folder.
    #[error("{0} contains the files of the Meshwork node itself")]
    ContainsHome(PathBuf),
    /// The folder would be among the node's own files.
    #[error("{0} is inside the directory of the Meshwork node itself")]
    InsideHome(PathBuf),
    /// It lies in another folder.
    #[error("{path} is inside the Live Folder {other}")]
    InsideFolder {
        /// The directory asked for.
        path: PathBuf,
        /// The folder around it.
        other: PathBuf,
    },
    /// Another folder lies in it.
    #[error("{path} contains the Live Folder {other}")]
    ContainsFolder {
        /// The directory asked for.
        path: PathBuf,
        /// The folder inside.
        other: PathBuf,
    },
    /// It is already the root of another object.
    #[error("{0} already belongs to another Live Folder")]
    OtherFolder(PathBuf),
    /// The marker could not be written.
    #[error("the marker could not be written: {0}")]
    Marker(String),
    /// The root could not be opened afterwards.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// An open Live Folder.
#[derive(Debug)]
pub struct FolderRoot {
    dir: OwnedFd,
    /// A descriptor that lives as long as the folder is open: `syncfs` on it reports every failed write
    /// of the file system since.
    temp: OwnedFd,
    path: PathBuf,
    object: ObjectId,
    identity: DirIdentity,
}

impl FolderRoot {
    /// Opens the folder of `object` at `path`.
    pub fn open(path: &FsPath, object: ObjectId) -> Result<Self, RootError> {
        let dir = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(lost)?;
        check_marker(&dir, object)?;
        let identity = Meta::of(&dir).map_err(lost)?.identity;
        let temp = temp_dir(&dir).map_err(lost)?;
        // Absolute, so that a later change of the working directory changes nothing.
        let path = path.canonicalize().map_err(|error| lost(super::errno(&error)))?;
        Ok(FolderRoot { dir, temp, path, object, identity })
    }

    /// Makes the directory at `path` the folder of `object` and opens it.
    ///
    /// `home` is the node's own directory, `folders` the roots of the other folders.
    pub fn create(path: &FsPath, object: ObjectId, home: &FsPath, folders: &[PathBuf]) -> Result<Self, NewFolderError> {
        check_new(path, object, home, folders)?;
        let dir = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(lost)?;
        write_marker(&dir, object).map_err(|error| NewFolderError::Marker(cause(error)))?;
        Ok(Self::open(path, object)?)
    }

    /// Makes a directory that was a folder's an ordinary one again: its marker goes, all else stays.
    pub fn release(path: &FsPath, object: ObjectId) -> std::io::Result<()> {
        let root = Self::open(path, object).map_err(std::io::Error::other)?;
        Ok(rustix::fs::unlinkat(&root.dir, ".meshwork/folder", rustix::fs::AtFlags::empty())?)
    }

    /// Looks whether the folder is still where it was, with its marker. To be asked before anything
    /// is concluded from a listing.
    pub fn verify(&self) -> Result<(), RootError> {
        let now = Meta::at(CWD, self.path.as_os_str().as_bytes()).map_err(lost)?;
        if now.kind != FileType::Directory {
            return Err(RootError::Missing);
        }
        if now.identity != self.identity {
            let other = open(&self.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            check_marker(&other.map_err(lost)?, self.object)?;
            return Err(RootError::Missing);
        }
        check_marker(&self.dir, self.object)
    }

    /// The folder's object.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Where the folder is, absolute and without symbolic links.
    pub fn path(&self) -> &FsPath {
        &self.path
    }

    /// Which directory the root is.
    pub fn identity(&self) -> DirIdentity {
        self.identity
    }

    /// The directory of incoming files.
    pub(crate) fn temp(&self) -> &OwnedFd {
        &self.temp
    }

    /// Opens what is at `path` beneath the root, following no link.
    pub(crate) fn open_at(&self, path: &[Name], flags: OFlags) -> Result<OwnedFd, Errno> {
        if is_reserved(path) { Err(Errno::INVAL) } else { self.resolve(path, flags) }
    }

    fn resolve(&self, path: &[Name], flags: OFlags) -> Result<OwnedFd, Errno> {
        let Some((last, parents)) = path.split_last() else {
            return open_beneath(&self.dir, b".", flags);
        };
        if path.iter().any(|name| !is_plain(name)) {
            return Err(Errno::INVAL);
        }
        let mut stage: Option<OwnedFd> = None;
        let mut joined: Vec<u8> = Vec::new();
        for name in parents {
            if joined.len() + name.as_bytes().len() > PATH_BYTES {
                let next =
                    open_beneath(stage.as_ref().unwrap_or(&self.dir), &joined, OFlags::PATH | OFlags::DIRECTORY)?;
                stage = Some(next);
                joined.clear();
            }
            joined.extend_from_slice(name.as_bytes());
            joined.push(b'/');
        }
        joined.extend_from_slice(last.as_bytes());
        open_beneath(stage.as_ref().unwrap_or(&self.dir), &joined, flags)
    }

    /// Opens a directory for listing, flushing or changing the names in it.
    pub(crate) fn open_dir(&self, path: &[Name]) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a regular file for reading. Never waits for the other end of a pipe.
    pub(crate) fn open_file(&self, path: &[Name]) -> Result<File, Errno> {
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        if super::stat::is_regular(&file)? { Ok(File::from(file)) } else { Err(Errno::ISDIR) }
    }

    /// Opens the directory that holds the last name of `path`.
    pub(crate) fn parent<'a>(&self, path: &'a [Name]) -> Result<(OwnedFd, &'a [u8]), Errno> {
        let (name, parents) = path.split_last().ok_or(Errno::INVAL)?;
        if !is_plain(name) || is_reserved(path) {
            return Err(Errno::INVAL);
        }
        // A directory on its way is allowed where what it lies in is not.
        Ok((self.resolve(parents, OFlags::PATH | OFlags::DIRECTORY)?, name.as_bytes()))
    }

    /// Removes what earlier runs left among the incoming files, but for the contents in `keep`, whose
    /// transfers will go on. Displaced versions are left to [`super::place::recover`].
    ///
    /// Gives the number of files removed.
    pub fn clean_temps(&self, keep: &BTreeSet<ContentId>) -> Result<usize, RootError> {
        let mut removed = 0;
        for name in names(&self.temp).map_err(lost)? {
            let kept = name
                .strip_suffix(b".part")
                .and_then(|hex| std::str::from_utf8(hex).ok()?.parse::<ContentId>().ok())
                .is_some_and(|content| keep.contains(&content));
            let displaced = name.ends_with(super::place::SWAP_SUFFIX.as_bytes()) || name.starts_with(ASIDE);
            if !kept && !displaced {
                unlinkat(&self.temp, &name, AtFlags::empty()).map_err(lost)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Whether a name is one component and nothing else, by the kernel's rules.
pub(crate) fn is_plain(name: &Name) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 255
        && bytes != b"."
        && bytes != b".."
        && !bytes.iter().any(|b| matches!(b, 0 | b'/'))
}

/// Whether a path is in the part of a folder that is Meshwork's own, and not in a directory that waits
/// there for its new name.
pub(crate) fn is_reserved(path: &[Name]) -> bool {
    match path {
        [own, temp, aside, ..] if own.as_bytes() == HIDDEN.as_bytes() && temp.as_bytes() == TEMP.as_bytes() => {
            !aside.as_bytes().starts_with(ASIDE)
        }
        [first, ..] => first.as_bytes().starts_with(HIDDEN.as_bytes()),
        [] => false,
    }
}

/// All names of a directory but `.` and `..`.
pub(crate) fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(name.to_vec());
        }
    }
    Ok(found)
}

fn lost(error: Errno) -> RootError {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV | Errno::STALE => RootError::Missing,
        Errno::NOSYS => RootError::Unsupported,
        other => RootError::Unreadable(cause(other)),
    }
}

fn open_beneath(dir: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut tries = 0;
    loop {
        match openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RESOLVE_TRIES => tries += 1,
            result => return result,
        }
    }
}

fn check_marker(dir: &OwnedFd, object: ObjectId) -> Result<(), RootError> {
    match read_marker(dir) {
        Ok(text) if text.trim() == object.to_string() => Ok(()),
        Ok(_) => Err(RootError::OtherFolder),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => Err(RootError::NotAFolder),
        Err(error) => Err(lost(error)),
    }
}

fn read_marker(dir: &OwnedFd) -> Result<String, Errno> {
    let marker = open_beneath(dir, b".meshwork/folder", OFlags::RDONLY | OFlags::NONBLOCK)?;
    if !super::stat::is_regular(&marker)? {
        return Err(Errno::ISDIR);
    }
    let mut text = Vec::new();
    File::from(marker).take(MARKER_BYTES).read_to_end(&mut text).map_err(|error| super::errno(&error))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn make_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open_beneath(parent, name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY),
        Err(error) => Err(error),
    }
}

fn temp_dir(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    make_dir(&make_dir(dir, HIDDEN)?, TEMP)
}

fn write_marker(dir: &OwnedFd, object: ObjectId) -> Result<(), Errno> {
    let hidden = make_dir(dir, HIDDEN)?;
    let write = || -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&hidden, "folder.new", flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(format!("{object}\n").as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(&hidden, "folder.new", &hidden, "folder")?;
        rustix::fs::fsync(&hidden)?;
        Ok(())
    };
    write().map_err(|error| super::errno(&error))?;
    rustix::fs::fsync(open_beneath(dir, b".", OFlags::RDONLY | OFlags::DIRECTORY)?)
}

/// Checks whether the directory at `path` can become the folder of `object`.
pub fn check_new(path: &FsPath, object: ObjectId, home: &FsPath, folders: &[PathBuf]) -> Result<(), NewFolderError> {
    let real = path.canonicalize().map_err(|_| NewFolderError::NotADirectory(path.to_owned()))?;
    if !real.is_dir() {
        return Err(NewFolderError::NotADirectory(path.to_owned()));
    }
    if access(&real, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Err(NewFolderError::NotAccessible(real));
    }
    let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
    if home.starts_with(&real) {
        return Err(NewFolderError::ContainsHome(real));
    }
    if real.starts_with(&home) {
        return Err(NewFolderError::InsideHome(real));
    }
    for other in folders {
        let other = other.canonicalize().unwrap_or_else(|_| other.clone());
        if other == real {
            return Err(NewFolderError::OtherFolder(real));
        }
        if other.starts_with(&real) {
            return Err(NewFolderError::ContainsFolder { path: real, other });
        }
        if real.starts_with(&other) {
            return Err(NewFolderError::InsideFolder { path: real, other });
        }
    }
    check_markers(real, object)
}

/// Looks for markers of folders that this node need not know: at `real` and above it.
fn check_markers(real: PathBuf, object: ObjectId) -> Result<(), NewFolderError> {
    let dir = open(&real, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(lost)?;
    match check_marker(&dir, object) {
        Ok(()) | Err(RootError::NotAFolder) => {}
        Err(RootError::OtherFolder) => return Err(NewFolderError::OtherFolder(real)),
        Err(error) => return Err(error.into()),
    }
    let around = real.ancestors().skip(1).find(|dir| dir.join(HIDDEN).join("folder").is_file());
    match around.map(FsPath::to_owned) {
        Some(other) => Err(NewFolderError::InsideFolder { path: real, other }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
