//! What is in one directory of a folder.

use meshwork_replica::{
    feed::Name,
    folder::observed::{ListError, Listing},
};
use rustix::io::Errno;

use super::{
    cause,
    root::{FolderRoot, HIDDEN, RootError, names},
    stat::{Meta, see, skipped},
};

/// Lists the directory at `path`, sorted by name. Directories in it are named, not entered.
///
/// A success tells that what is not in it was absent: the folder's root and marker were there
/// afterwards too.
pub fn list(root: &FolderRoot, path: &[Name]) -> Result<Listing, ListError> {
    let listed = read(root, path);
    root.verify().map_err(|error: RootError| ListError::RootLost(error.to_string()))?;
    listed.map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => ListError::Missing,
        other => ListError::Unreadable(format!("the directory cannot be read: {}", cause(other))),
    })
}

fn read(root: &FolderRoot, path: &[Name]) -> Result<Listing, Errno> {
    let dir = root.open_dir(path)?;
    let identity = Meta::of(&dir)?.identity;
    let mut found = names(&dir)?;
    found.sort_unstable();
    let mut entries = Vec::with_capacity(found.len());
    for name in found {
        if path.is_empty() && name.starts_with(HIDDEN.as_bytes()) {
            continue;
        }
        let seen = match see(&dir, &name) {
            Ok(Some((_, seen))) => seen,
            Ok(None) => continue,
            Err(error) => skipped(&format!("it cannot be looked at: {}", cause(error))),
        };
        // The kernel gives no name that a feed cannot carry.
        if let Ok(name) = Name::new(&name) {
            entries.push((name, seen));
        }
    }
    Ok(Listing { identity, entries })
}

#[cfg(test)]
mod tests;
