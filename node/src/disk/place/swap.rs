//! Replacing and removing without losing what was there.

use std::os::fd::OwnedFd;

use meshwork_replica::{
    feed::Name,
    folder::observed::{Expect, Fingerprint, Seen, Step},
};
use rustix::{
    fs::{AtFlags, FileType, RenameFlags, renameat, renameat_with, unlinkat},
    io::Errno,
};

use super::{Context, Outcome, Refusal, SWAP_SUFFIX, Staged, Work, checked, no_replace};
use crate::disk::{
    history::{Held, Provenance, Reason},
    stat::{Meta, see},
};

/// Keeps ahead of the batch what a step will replace or remove, so that one flush covers all of it.
/// Where it is not there yet (an earlier step brings it), the step itself keeps it.
pub fn hold_early(context: &Context<'_>, number: usize, step: &Step) -> Option<Held> {
    let (path, expect, reason) = match step {
        Step::PutFile { path, expect, .. } | Step::PutSymlink { path, expect, .. } => (path, expect, Reason::Replaced),
        Step::Remove { path, expect } => (path, expect, Reason::Removed),
        _ => return None,
    };
    if matches!(expect, Expect::Absent | Expect::Dir(_)) {
        return None;
    }
    let (dir, name) = context.root.parent(path).ok()?;
    let meta = checked(&dir, name, expect).ok()?;
    let from = Provenance { path, content: (context.displaced)(number), reason, now: context.now };
    context.history.keep(&dir, name, &meta, &from).ok()
}

impl Work<'_> {
    /// Puts what is staged at a name.
    pub(super) fn put(
        &mut self,
        path: &[Name],
        expect: &Expect,
        new: &Staged,
        from: &Provenance<'_>,
        held: Option<&mut Option<Held>>,
    ) -> Outcome {
        let (dir, name) = self.context.root.parent(path)?;
        let temp = self.context.root.temp();
        if *expect == Expect::Absent {
            no_replace(temp, new.name.as_bytes(), &dir, name)?;
        } else {
            let old = self.kept(&dir, name, expect, from, held)?;
            let swap = format!("{}{SWAP_SUFFIX}", new.name);
            no_replace(temp, new.name.as_bytes(), temp, swap.as_bytes())?;
            if let Err(refusal) = self.exchange_in(&dir, name, &swap, &old, new) {
                let _ = no_replace(temp, swap.as_bytes(), temp, new.name.as_bytes());
                return Err(refusal);
            }
        }
        self.touched.add(&dir);
        placed(&dir, name, new)
    }

    /// Removes a file or link.
    pub(super) fn remove(
        &mut self,
        path: &[Name],
        expect: &Expect,
        from: &Provenance<'_>,
        held: Option<&mut Option<Held>>,
    ) -> Outcome {
        let (dir, name) = self.context.root.parent(path)?;
        let temp = self.context.root.temp();
        let old = self.kept(&dir, name, expect, from, held)?;
        let swap = format!("removed-{}{SWAP_SUFFIX}", old.fingerprint.inode);
        no_replace(&dir, name, temp, swap.as_bytes())?;
        if !Meta::at(temp, swap.as_bytes())?.same_content(&old) {
            if no_replace(temp, swap.as_bytes(), &dir, name).is_err() {
                self.rescue(&swap, from.path)?;
            }
            return Err(Refusal::Changed);
        }
        unlinkat(temp, &swap, AtFlags::empty())?;
        self.touched.add(&dir);
        Ok(None)
    }

    /// Looks whether the name holds what the plan assumed, and has it in history.
    fn kept(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        expect: &Expect,
        from: &Provenance<'_>,
        held: Option<&mut Option<Held>>,
    ) -> Result<Meta, Refusal> {
        if let Some(held) = held {
            if let Some(held) = held {
                // A link does not change its text; a file shows each change in its times.
                let now = Meta::at(dir, name)?;
                let unchanged = now.fingerprint == held.after.fingerprint && now.same_content(&held.after);
                return if unchanged { Ok(now) } else { Err(Refusal::Changed) };
            }
            let meta = self.checked(dir, name, expect)?;
            if !matches!(expect, Expect::Dir(_)) {
                let kept = self.context.history.keep(dir, name, &meta, from)?;
                let after = kept.after;
                *held = Some(kept);
                self.context.history.sync()?;
                return Ok(after);
            }
            return Ok(meta);
        }
        Err(Refusal::Changed)
    }

    /// Exchanges the file `swap` with the one at the name, and disposes of what comes out if it is the
    /// expected one; else exchanges back.
    fn exchange_in(&self, dir: &OwnedFd, name: &[u8], swap: &str, old: &Meta, new: &Staged) -> Result<(), Refusal> {
        let temp = self.context.root.temp();
        match renameat_with(temp, swap, dir, name, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return self.rename_over(dir, name, swap, old),
            Err(error) => return Err(error.into()),
        }
        let displaced = Meta::at(temp, swap.as_bytes())?;
        if displaced.same_content(old) {
            let flags = if displaced.kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match unlinkat(temp, swap, flags) {
                Ok(()) => return Ok(()),
                // The directory has something in it that the plan did not know of.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => {
                    renameat_with(temp, swap, dir, name, RenameFlags::EXCHANGE)?;
                    return Err(error.into());
                }
            }
        }
        renameat_with(temp, swap, dir, name, RenameFlags::EXCHANGE)?;
        if Meta::at(temp, swap.as_bytes())?.fingerprint.inode != new.meta.fingerprint.inode {
            self.rescue(swap, &[])?;
        }
        Err(Refusal::Changed)
    }

    /// For file systems that cannot exchange: the old version is in history, and the rename replaces it
    /// in one act.
    fn rename_over(&self, dir: &OwnedFd, name: &[u8], swap: &str, old: &Meta) -> Result<(), Refusal> {
        if !Meta::at(dir, name)?.same_content(old) {
            return Err(Refusal::Changed);
        }
        if old.kind == FileType::Directory {
            unlinkat(dir, name, AtFlags::REMOVEDIR)?;
        }
        Ok(renameat(self.context.root.temp(), swap, dir, name)?)
    }

    /// Keeps in history what someone wrote in the moment of a change and what has no name any more.
    fn rescue(&self, swap: &str, path: &[Name]) -> Result<(), Errno> {
        let temp = self.context.root.temp();
        let meta = Meta::at(temp, swap.as_bytes())?;
        if meta.kind == FileType::Directory {
            // Left where it is; the next start gives it a name in the folder.
            return Ok(());
        }
        let from = Provenance { path, content: None, reason: Reason::Recovered, now: self.context.now };
        self.context.history.keep(temp, swap.as_bytes(), &meta, &from)?;
        self.context.history.sync()?;
        unlinkat(temp, swap, AtFlags::empty())
    }
}

/// What is at the name now, if it is what was staged: a write since then is for the next scan.
fn placed(dir: &OwnedFd, name: &[u8], new: &Staged) -> Outcome {
    match see(dir, name)? {
        Some((meta, seen)) if meta.same_content(&new.meta) => Ok(Some(seen)),
        Some((meta, Seen::File(fingerprint))) if meta.fingerprint.inode == new.meta.fingerprint.inode => {
            // Placed, and written to at once: times that never match make the next scan read it.
            Ok(Some(Seen::File(Fingerprint { changed_ns: 0, ..fingerprint })))
        }
        _ => Ok(Some(Seen::File(Fingerprint { changed_ns: 0, ..new.meta.fingerprint }))),
    }
}
