//! Changing the folder: a batch of steps, each checked right before it is done.
//!
//! A version that is replaced or removed is in history first. A replacement exchanges the two files in
//! one act of the kernel, so that the name is never empty, and what comes out is looked at: if it is
//! not what the plan assumed, the two are exchanged back. So a write that slips in between the check
//! and the change is not lost.
//!
//! What a batch brings and what it keeps is made durable in one go before the first step, and the
//! directories it touched after the last.

mod link;
mod recover;
mod stage;
mod swap;
mod sync;

use std::{collections::BTreeMap, os::fd::OwnedFd};

use meshwork_protocol::{id::ContentId, time::Timestamp};
use meshwork_replica::{
    feed::Name,
    folder::observed::{Batch, DirIdentity, Expect, Fingerprint, Seen, Step, Stepped},
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, mkdirat, renameat_with, unlinkat},
    io::Errno,
};

pub use recover::recover;
use stage::Staged;
use sync::Touched;

use super::{
    Convergence, cause,
    history::{Held, History, Provenance, Reason},
    root::{FolderRoot, RootError},
    stat::{Meta, see},
};

/// The end of the names of files that are being exchanged with one in the folder.
pub const SWAP_SUFFIX: &str = ".swap";

/// Why a batch as a whole came to nothing certain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The folder stopped; nothing was touched.
    #[error(transparent)]
    Root(#[from] RootError),
    /// What the batch brings could not be made durable: nothing was placed, and the received files
    /// are gone, since the system may hold bytes that are not on the disk.
    #[error("the disk did not take the received files: {}", cause(*.0))]
    Unsaved(Errno),
    /// The steps were done, but whether they outlast a power cut is unknown: look at the disk again.
    #[error("the disk did not confirm the changes: {}", cause(*.0))]
    Unconfirmed(Errno),
}

/// What placing needs besides the steps.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The folder.
    pub root: &'a FolderRoot,
    /// Where replaced versions go.
    pub history: &'a History,
    /// Chunk ids of the folder's object.
    pub convergence: &'a Convergence<'a>,
    /// The content, where known, of what the step of this number replaces or removes.
    pub displaced: &'a dyn Fn(usize) -> Option<ContentId>,
    /// The time for history.
    pub now: Timestamp,
}

/// Why a step was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    Changed,
    Refused(String),
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        match error {
            // The plan assumed other names than there are.
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::EXIST
            | Errno::NOTEMPTY
            | Errno::ISDIR
            | Errno::AGAIN => Refusal::Changed,
            other => Refusal::Refused(format!("it cannot be changed: {}", cause(other))),
        }
    }
}

type Outcome = Result<Option<Seen>, Refusal>;

/// Does the steps in their order; gives an outcome for each.
///
/// Contents of files come from finished [`super::temp::Incoming`] files or, where the step names one,
/// from an own file that still has them.
pub fn place(context: &Context<'_>, batch: &Batch) -> Result<Vec<Stepped>, BatchError> {
    context.root.verify()?;
    let steps = &batch.steps;
    let mut staged = stage::stage(context, steps);
    let mut held: Vec<Option<Held>> =
        steps.iter().enumerate().map(|(number, step)| swap::hold_early(context, number, step)).collect();
    if let Err(error) = sync::flush(context, &staged, &held) {
        stage::discard(context.root, &staged);
        for held in held.into_iter().flatten() {
            let _ = context.history.release(held.entry);
        }
        return Err(BatchError::Unsaved(error));
    }
    let mut work = Work { context, touched: Touched::default(), own: BTreeMap::new() };
    for (step, held) in steps.iter().zip(&held) {
        work.note_held(step, held.as_ref());
    }
    let mut outcomes: Vec<Stepped> = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate() {
        let outcome = match staged.get_mut(number).and_then(Option::take) {
            _ if !batch.may_do(number, &outcomes) => Err(Refusal::Changed),
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(new)) => work.step(number, step, Some(new), &mut held),
            None => work.step(number, step, None, &mut held),
        };
        // A version held for a step that did not come about is current still.
        if outcome.is_err()
            && let Some(held) = held.get_mut(number).and_then(Option::take)
        {
            let _ = context.history.release(held.entry);
        }
        outcomes.push(stepped(outcome));
    }
    work.touched.sync(context.root).map_err(BatchError::Unconfirmed)?;
    Ok(outcomes)
}

fn stepped(outcome: Outcome) -> Stepped {
    match outcome {
        Ok(seen) => Stepped::Done(seen),
        Err(Refusal::Changed) => Stepped::Changed,
        Err(Refusal::Refused(reason)) => Stepped::Refused { reason },
    }
}

struct Work<'a> {
    context: &'a Context<'a>,
    touched: Touched,
    /// Files that this batch itself has renamed, linked or given attributes, by what the plan knows
    /// them as: their change times are new.
    own: BTreeMap<Fingerprint, Fingerprint>,
}

impl Work<'_> {
    fn step(&mut self, number: usize, step: &Step, new: Option<Staged>, held: &mut [Option<Held>]) -> Outcome {
        let held = held.get_mut(number);
        match step {
            Step::MakeDir { path } => self.make_dir(path),
            Step::RemoveDir { path, expect } => self.remove_dir(path, *expect),
            Step::Move { from, to, expect } => self.rename(from, to, expect),
            Step::Exchange { one, one_expect, other, other_expect } => {
                self.exchange((one, one_expect), (other, other_expect))
            }
            Step::PutFile { path, expect, .. } | Step::PutSymlink { path, expect, .. } => {
                let new = new.ok_or(Refusal::Changed)?;
                self.put(path, expect, &new, &self.provenance(number, path, Reason::Replaced), held)
            }
            Step::Remove { path, expect: Expect::Dir(identity) } => self.remove_dir(path, *identity),
            Step::Remove { path, expect } => {
                self.remove(path, expect, &self.provenance(number, path, Reason::Removed), held)
            }
            Step::SetMeta { path, expect, modified_ns, executable } => {
                self.set_meta(path, expect, *modified_ns, *executable)
            }
            Step::Check { path, expect } => self.check(path, expect),
        }
    }

    fn provenance<'p>(&self, number: usize, path: &'p [Name], reason: Reason) -> Provenance<'p> {
        Provenance { path, content: (self.context.displaced)(number), reason, now: self.context.now }
    }

    fn make_dir(&mut self, path: &[Name]) -> Outcome {
        let (dir, name) = self.context.root.parent(path)?;
        // As the user's own mask says.
        mkdirat(&dir, name, Mode::RWXU | Mode::RWXG | Mode::RWXO)?;
        self.touched.add(&dir);
        Ok(see(&dir, name)?.map(|(_, seen)| seen))
    }

    fn remove_dir(&mut self, path: &[Name], expect: DirIdentity) -> Outcome {
        let (dir, name) = self.context.root.parent(path)?;
        if !Meta::at(&dir, name)?.meets(&Expect::Dir(expect), None) {
            return Err(Refusal::Changed);
        }
        unlinkat(&dir, name, AtFlags::REMOVEDIR)?;
        self.touched.add(&dir);
        Ok(None)
    }

    fn rename(&mut self, from: &[Name], to: &[Name], expect: &Expect) -> Outcome {
        let (source, old) = self.context.root.parent(from)?;
        let (target, new) = self.context.root.parent(to)?;
        let before = self.checked(&source, old, expect)?;
        if let Expect::Symlink { target } = expect {
            link::stays_inside(to, target).map_err(Refusal::Refused)?;
        }
        no_replace(&source, old, &target, new)?;
        let (after, seen) = see(&target, new)?.ok_or(Refusal::Changed)?;
        if !same(&before, &after) {
            no_replace(&target, new, &source, old)?;
            return Err(Refusal::Changed);
        }
        self.touched.add(&source);
        self.touched.add(&target);
        self.note(expect, &after);
        Ok(Some(seen))
    }

    fn exchange(&mut self, one: (&[Name], &Expect), other: (&[Name], &Expect)) -> Outcome {
        let (first, first_name) = self.context.root.parent(one.0)?;
        let (second, second_name) = self.context.root.parent(other.0)?;
        let first_before = self.checked(&first, first_name, one.1)?;
        let second_before = self.checked(&second, second_name, other.1)?;
        for (expect, to) in [(one.1, other.0), (other.1, one.0)] {
            if let Expect::Symlink { target } = expect {
                link::stays_inside(to, target).map_err(Refusal::Refused)?;
            }
        }
        let swap = || renameat_with(&first, first_name, &second, second_name, RenameFlags::EXCHANGE);
        swap()?;
        let (first_after, seen) = see(&first, first_name)?.ok_or(Refusal::Changed)?;
        let second_after = Meta::at(&second, second_name)?;
        if !same(&first_before, &second_after) || !same(&second_before, &first_after) {
            swap()?;
            return Err(Refusal::Changed);
        }
        self.touched.add(&first);
        self.touched.add(&second);
        self.note(one.1, &second_after);
        self.note(other.1, &first_after);
        Ok(Some(seen))
    }

    fn check(&self, path: &[Name], expect: &Expect) -> Outcome {
        let (dir, name) = self.context.root.parent(path)?;
        self.checked(&dir, name, expect)?;
        let (_, seen) = see(&dir, name)?.ok_or(Refusal::Changed)?;
        Ok(Some(seen))
    }

    fn set_meta(&mut self, path: &[Name], expect: &Fingerprint, modified_ns: i64, executable: bool) -> Outcome {
        let file = self.context.root.open_file(path)?;
        let before = Meta::of(&file)?;
        if !before.meets(&self.current(&Expect::File(*expect)), None) {
            return Err(Refusal::Changed);
        }
        set_attributes(&file, before.mode, modified_ns, executable)?;
        let (dir, name) = self.context.root.parent(path)?;
        let (after, seen) = see(&dir, name)?.ok_or(Refusal::Changed)?;
        if after.fingerprint.inode != expect.inode || after.fingerprint.size != expect.size {
            return Err(Refusal::Changed);
        }
        self.touched.add(&dir);
        self.note(&Expect::File(*expect), &after);
        Ok(Some(seen))
    }

    /// What is at a name, if it is what the plan assumed.
    fn checked(&self, dir: &OwnedFd, name: &[u8], expect: &Expect) -> Result<Meta, Refusal> {
        checked(dir, name, &self.current(expect))
    }

    /// What the plan assumed, as this batch has left it.
    fn current(&self, expect: &Expect) -> Expect {
        match expect {
            Expect::File(planned) => Expect::File(*self.own.get(planned).unwrap_or(planned)),
            other => other.clone(),
        }
    }

    fn note(&mut self, expect: &Expect, after: &Meta) {
        if let Expect::File(planned) = expect {
            self.own.insert(*planned, after.fingerprint);
        }
    }

    fn note_held(&mut self, step: &Step, held: Option<&Held>) {
        if let (
            Some(held),
            Step::PutFile { expect, .. } | Step::PutSymlink { expect, .. } | Step::Remove { expect, .. },
        ) = (held, step)
        {
            self.note(expect, &held.after);
        }
    }
}

/// What is at a name, if it is what the plan assumed.
fn checked(dir: &OwnedFd, name: &[u8], expect: &Expect) -> Result<Meta, Refusal> {
    let (meta, seen) = see(dir, name)?.ok_or(Refusal::Changed)?;
    let target = match &seen {
        Seen::Symlink { target } => Some(target.as_slice()),
        _ => None,
    };
    if meta.meets(expect, target) { Ok(meta) } else { Err(Refusal::Changed) }
}

/// Whether a renamed thing is the one that was looked at before, unchanged.
fn same(before: &Meta, after: &Meta) -> bool {
    before.same_content(after)
}

/// Renames to a name that is free. Where the file system cannot tell in one act, a look has to do.
fn no_replace(source: &OwnedFd, old: &[u8], target: &OwnedFd, new: &[u8]) -> Result<(), Errno> {
    match renameat_with(source, old, target, new, RenameFlags::NOREPLACE) {
        Err(error @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => match Meta::at(target, new) {
            Err(Errno::NOENT) if error != Errno::INVAL || Meta::at(source, old)?.kind != FileType::Directory => {
                rustix::fs::renameat(source, old, target, new)
            }
            Err(Errno::NOENT) => Err(error),
            Err(other) => Err(other),
            Ok(_) => Err(Errno::EXIST),
        },
        result => result,
    }
}

/// Sets the modification time and the executable bits, from `mode` as it is; special bits go.
fn set_attributes(file: impl std::os::fd::AsFd, mode: u32, modified_ns: i64, executable: bool) -> Result<(), Errno> {
    let bits = mode & 0o666 | if executable { (mode & 0o444) >> 2 | 0o100 } else { 0 };
    if bits != mode {
        rustix::fs::fchmod(&file, Mode::from_bits_truncate(bits))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: modified_ns.div_euclid(1_000_000_000),
            tv_nsec: modified_ns.rem_euclid(1_000_000_000),
        },
    };
    rustix::fs::futimens(&file, &times)
}

/// Opens a file among the incoming ones.
fn open_temp(root: &FolderRoot, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(root.temp(), name, flags, Mode::empty())
}

#[cfg(test)]
mod tests;
