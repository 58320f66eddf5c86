//! What must be so at the end of a run, when all is healed and at rest.
//!
//! The ledger is strict: every content that a user closed, and that no user has replaced or removed on a
//! disk that showed it to him since, is a current file on every device, under its own or a conflict name.
//! A content that a user did replace or remove may be gone, however briefly it existed; this is the one
//! exception, because the node is not between a user and his own disk. A device that was removed from the
//! mesh is not judged with the others, and what was closed or moved about on it may be on it alone. Whatever a
//! node itself replaced or removed is in its history.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::id::ContentId;
use meshwork_replica::{feed::Entry, folder::observed::Path};

use super::{
    disk::{Shown, content_of},
    world::World,
};

/// Judges a world at rest.
pub fn at_end(world: &mut World) {
    if let Some(reason) = trees(world).or_else(|| ledger(world)).or_else(|| history(world)) {
        let state = world.describe();
        world.fail(reason + &state);
    }
    for device in &world.devices {
        for (path, shown) in device.disk.tree() {
            world.trace.bytes(format!("{path:?}{shown:?}").as_bytes());
        }
    }
}

#[derive(Debug, PartialEq, Eq, Clone)]
enum Thing {
    Dir,
    File(ContentId),
    Link(Vec<u8>),
}

fn on_disk(world: &World, device: usize) -> BTreeMap<Path, Thing> {
    let thing = |shown| match shown {
        Shown::Dir => Thing::Dir,
        Shown::File(bytes) => Thing::File(content_of(&bytes)),
        Shown::Symlink(target) => Thing::Link(target),
    };
    world.devices[device].disk.tree().into_iter().map(|(path, shown)| (path, thing(shown))).collect()
}

fn viewed(world: &World, device: usize) -> Option<BTreeMap<Path, Thing>> {
    let folder = world.devices[device].replica.as_ref()?.folder(world.folder)?;
    let thing = |entry| match entry {
        Entry::Dir { .. } => Thing::Dir,
        Entry::File { value, .. } => match value.symlink_target() {
            Some(target) => Thing::Link(target.to_vec()),
            None => Thing::File(value.content),
        },
    };
    Some(folder.feed().view().flatten().into_iter().map(|(path, entry)| (path, thing(entry))).collect())
}

fn difference(one: &BTreeMap<Path, Thing>, other: &BTreeMap<Path, Thing>) -> Option<String> {
    let paths: BTreeSet<&Path> = one.keys().chain(other.keys()).collect();
    let path = paths.into_iter().find(|path| one.get(*path) != other.get(*path))?;
    Some(format!("{path:?} is {:?} against {:?}", one.get(path), other.get(path)))
}

/// All disks are equal, and each shows what its feed says.
///
/// Where a content is shown that only a removed device has, the disks wait for it; then only the feeds are
/// compared.
fn trees(world: &mut World) -> Option<String> {
    let first = on_disk(world, 0);
    if world.devices[0].replica.as_ref().is_some_and(|replica| !world.gone(replica).is_empty()) {
        world.counts.add("content gone with a removed device");
        let first = viewed(world, 0)?;
        let others = (1..world.devices.len()).filter(|device| !world.is_out(*device));
        let mut differing = others.filter_map(|device| difference(&first, &viewed(world, device)?));
        return differing.next().map(|what| format!("the feeds differ: {what}"));
    }
    for device in (0..world.devices.len()).filter(|device| !world.is_out(*device)) {
        let disk = on_disk(world, device);
        if let Some(what) = difference(&first, &disk) {
            return Some(format!("the disks of devices 0 and {device} differ: {what}"));
        }
        let view = viewed(world, device).unwrap_or_default();
        if let Some(what) = difference(&disk, &view) {
            return Some(format!("disk and view of device {device} differ: {what}"));
        }
    }
    None
}

/// No byte is lost.
fn ledger(world: &World) -> Option<String> {
    let current: BTreeSet<ContentId> = on_disk(world, 0)
        .into_values()
        .chain(viewed(world, 0).unwrap_or_default().into_values())
        .filter_map(|thing| match thing {
            Thing::File(content) => Some(content),
            _ => None,
        })
        .collect();
    let out = world.leaver.filter(|_| world.removed);
    let with_leaver = out.map(|leaver| on_disk(world, leaver)).unwrap_or_default();
    let has = |content: &ContentId| with_leaver.values().any(|thing| *thing == Thing::File(*content));
    let left = |content: &ContentId| world.removed && (world.by_leaver.contains(content) || has(content));
    let excused = |content: &ContentId| world.given_up.contains(content) || left(content);
    let lost = world.closed.iter().find(|(content, _)| !excused(content) && !current.contains(content));
    lost.map(|(_, bytes)| format!("lost: {:?}", String::from_utf8_lossy(bytes)))
}

/// What a node replaced or removed is in its history, and nothing received is left over.
fn history(world: &World) -> Option<String> {
    for (number, device) in world.devices.iter().enumerate() {
        let kept = device.disk.contents();
        if device.displaced.iter().any(|content| !kept.contains(content)) {
            return Some(format!("device {number} does not have what it replaced"));
        }
    }
    None
}
