//! What a batch brings, made ready beside the folder: whole, with its times and bits.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use meshwork_protocol::id::ContentId;
use meshwork_replica::{
    feed::{FileKind, FileValue, Manifest, Name},
    folder::observed::{Fingerprint, Step},
};
use rustix::{
    fs::{AtFlags, Mode, OFlags, openat, symlinkat, unlinkat},
    io::Errno,
};

use super::{Context, Refusal, link, open_temp, set_attributes};
use crate::disk::{chunk, errno, root::FolderRoot, stat::Meta, temp::part_name};

/// A file or link that waits among the incoming ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Its name there.
    pub name: String,
    /// As it is.
    pub meta: Meta,
}

/// For each step that brings something, what is staged or why not.
pub type Stage = Vec<Option<Result<Staged, Refusal>>>;

/// Stages what the steps bring.
pub fn stage(context: &Context<'_>, steps: &[Step]) -> Stage {
    let mut uses: BTreeMap<ContentId, usize> = BTreeMap::new();
    for step in steps {
        if let Step::PutFile { value, copy_from: None, .. } = step {
            *uses.entry(value.content).or_default() += 1;
        }
    }
    let one = |(number, step): (usize, &Step)| match step {
        Step::PutFile { path, value, copy_from, .. } => {
            let left = uses.get_mut(&value.content).map_or(0, |left| {
                *left = left.saturating_sub(1);
                *left
            });
            Some(stage_file(context, number, path, value, copy_from.as_ref(), left > 0))
        }
        Step::PutSymlink { path, target, .. } => Some(stage_link(context, number, path, target)),
        _ => None,
    };
    steps.iter().enumerate().map(one).collect()
}

/// Removes all that was staged.
pub fn discard(root: &FolderRoot, stage: &Stage) {
    for staged in stage.iter().flatten().flatten() {
        let _ = unlinkat(root.temp(), &staged.name, AtFlags::empty());
    }
}

fn stage_link(context: &Context<'_>, number: usize, path: &[Name], target: &[u8]) -> Result<Staged, Refusal> {
    link::stays_inside(path, target).map_err(Refusal::Refused)?;
    let name = format!("link-{number}.part");
    remove_stale(context.root, &name)?;
    symlinkat(target, context.root.temp(), &name)?;
    let meta = Meta::at(context.root.temp(), name.as_bytes())?;
    Ok(Staged { name, meta })
}

fn stage_file(
    context: &Context<'_>,
    number: usize,
    path: &[Name],
    value: &FileValue,
    copy_from: Option<&(Vec<Name>, Fingerprint)>,
    used_again: bool,
) -> Result<Staged, Refusal> {
    let FileKind::Regular { manifest } = &value.kind else {
        return Err(Refusal::Refused("a link has no content to place".to_owned()));
    };
    let root = context.root;
    let copy = format!("{}-{number}.part", value.content);
    let name = match copy_from {
        Some((source, expect)) => {
            remove_stale(root, &copy)?;
            if let Err(refusal) = copy_own(context, source, expect, &copy, value, manifest) {
                remove_stale(root, &copy)?;
                return Err(refusal);
            }
            copy
        }
        None if used_again => {
            remove_stale(root, &copy)?;
            let mut source = File::from(open_part(root, value)?);
            let mut target = create(root, &copy)?;
            clone_or_copy(&mut source, &mut target)?;
            copy
        }
        None => part_name(value.content),
    };
    let file = if copy_from.is_none() && !used_again { open_part(root, value)? } else { open_temp(root, &name)? };
    // The bits that the user gave the version before stay, but for the executable one.
    let before = root.parent(path).and_then(|(dir, last)| Meta::at(dir, last));
    let fresh = Meta::of(&file)?;
    let mode = match before {
        Ok(meta) if meta.kind == rustix::fs::FileType::RegularFile => meta.mode | 0o200,
        _ => fresh.mode,
    };
    if mode != fresh.mode {
        rustix::fs::fchmod(&file, Mode::from_bits_truncate(mode & 0o777))?;
    }
    set_attributes(&file, mode, value.modified_ns, value.executable)?;
    let meta = Meta::of(&file)?;
    if meta.fingerprint.size != value.size {
        return Err(Refusal::Refused("the received file is not whole".to_owned()));
    }
    Ok(Staged { name, meta })
}

/// Opens the received file of a value; an empty one is made here.
fn open_part(root: &FolderRoot, value: &FileValue) -> Result<OwnedFd, Refusal> {
    let name = part_name(value.content);
    match open_temp(root, &name) {
        Ok(file) => Ok(file),
        Err(Errno::NOENT) if value.size == 0 => Ok(create(root, &name)?.into()),
        Err(Errno::NOENT) => Err(Refusal::Refused("the file's content is not here yet".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Copies an own file that has the wanted content, checking that it does.
fn copy_own(
    context: &Context<'_>,
    source: &[Name],
    expect: &Fingerprint,
    name: &str,
    value: &FileValue,
    manifest: &Manifest,
) -> Result<(), Refusal> {
    let mut source = context.root.open_file(source)?;
    if Meta::of(&source)?.fingerprint != *expect {
        return Err(Refusal::Changed);
    }
    let mut target = create(context.root, name)?;
    let cloned = rustix::fs::ioctl_ficlone(&target, &source).is_ok();
    let (Manifest::Inline { average_log2, .. } | Manifest::Paged { average_log2, .. }) = manifest;
    let content = if cloned {
        chunk::cut_reader(&mut target, *average_log2, value.size, context.convergence)
    } else {
        let mut tee = Tee { source: &mut source, target: &mut target };
        chunk::cut_reader(&mut tee, *average_log2, value.size, context.convergence)
    };
    let content = content.map_err(|error| Refusal::from(errno(&error)))?;
    if content.id == value.content && content.size == value.size { Ok(()) } else { Err(Refusal::Changed) }
}

/// A reader that writes what it reads.
struct Tee<'a> {
    source: &'a mut File,
    target: &'a mut File,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.target.write_all(buffer.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

fn clone_or_copy(source: &mut File, target: &mut File) -> Result<(), Errno> {
    if rustix::fs::ioctl_ficlone(target.as_fd(), source.as_fd()).is_ok() {
        return Ok(());
    }
    io::copy(source, target).map(drop).map_err(|error| errno(&error))
}

fn create(root: &FolderRoot, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_bits_truncate(0o666);
    Ok(File::from(openat(root.temp(), name, flags, mode)?))
}

/// A name of an earlier run may be taken.
fn remove_stale(root: &FolderRoot, name: &str) -> Result<(), Errno> {
    match unlinkat(root.temp(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}
