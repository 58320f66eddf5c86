//! After a crash in the middle of a change.

use rustix::{
    fs::{AtFlags, FileType, unlinkat},
    io::Errno,
};

use super::{SWAP_SUFFIX, no_replace};
use crate::disk::{
    history::{History, Provenance, Reason},
    root::{ASIDE, FolderRoot, names},
    stat::Meta,
};
use meshwork_protocol::time::Timestamp;

/// Brings back what an interrupted batch had taken out of the folder: files go to history, directories
/// to the folder's root under a name that says so. Gives how many there were.
///
/// To be called when a folder is opened, before it is listed.
pub fn recover(root: &FolderRoot, history: &History, now: Timestamp) -> Result<usize, Errno> {
    let mut found = 0;
    for name in names(root.temp())? {
        let is_swap = name.ends_with(SWAP_SUFFIX.as_bytes());
        if !is_swap && !name.starts_with(ASIDE) {
            continue;
        }
        let meta = Meta::at(root.temp(), &name)?;
        match meta.kind {
            FileType::Directory => put_back(root, &name)?,
            // Another link to it is in the folder or in history; a link's text is in history.
            FileType::RegularFile if meta.links > 1 => unlinkat(root.temp(), &name, AtFlags::empty())?,
            FileType::RegularFile => {
                let from = Provenance { path: &[], content: None, reason: Reason::Recovered, now };
                history.keep(root.temp(), &name, &meta, &from)?;
                history.sync()?;
                unlinkat(root.temp(), &name, AtFlags::empty())?;
            }
            _ => unlinkat(root.temp(), &name, AtFlags::empty())?,
        }
        found += 1;
    }
    Ok(found)
}

fn put_back(root: &FolderRoot, name: &[u8]) -> Result<(), Errno> {
    let top = root.open_dir(&[])?;
    for number in 1..=u32::MAX {
        let free = if number == 1 { "Recovered".to_owned() } else { format!("Recovered {number}") };
        match no_replace(root.temp(), name, &top, free.as_bytes()) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
    Err(Errno::EXIST)
}
