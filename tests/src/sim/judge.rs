//! What must be so at the end of a run, when all is healed and at rest.
//!
//! The ledger is strict: every content that a user closed, and that no user has replaced or removed on a
//! disk that showed it to him since, is a current file on every device, under its own or a conflict name.
//! A content that a user did replace or remove may be gone, however briefly it existed; this is the one
//! exception, because the node is not between a user and his own disk. A device that was removed from the
//! mesh, or that keeps to no rule, is not judged with the others, and what was closed or moved about on it may be
//! on it alone. Whatever a node itself replaced or removed is in its history.
//!
//! A device that was let in again, or was an admin and is one no more, is judged with the others. What it wrote before it
//! knew, and past what the revocation names, counts nowhere unless somebody has built on it: that alone is excused, where
//! it is in quarantine; all that the device closed and did not record in such a way is current like what others closed.
//!
//! Of a malicious device that was removed nothing counts past the place that its removal names, but what a record
//! that counts builds on; and nothing that peers send grows beyond the limits. A device that had not heard of the removal
//! may have taken a content off its disk for a record of the malicious one, and built on that. Where its home is put back to
//! what it was before that content was recorded, neither the one nor the other is known any more: then it is excused, unless
//! anybody else has heard of it.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    id::{ChainId, ContentId, DeviceId, RecordKey},
    limits,
    object::Chains,
};
use meshwork_replica::{
    feed::Entry,
    folder::observed::Path,
    replica::{Quarantined, Replica},
};

use super::{
    disk::{Shown, content_of},
    world::World,
};

/// Judges a world at rest.
pub fn at_end(world: &mut World) {
    world.forget_what_was_undone();
    let reason = trees(world).or_else(|| ledger(world)).or_else(|| history(world));
    let reason = reason.or_else(|| authority(world)).or_else(|| malice(world));
    if let Some(reason) = reason {
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
        world.counts.add("content gone with a device");
        let first = viewed(world, 0)?;
        let others = (1..world.devices.len()).filter(|device| !world.is_apart(*device));
        let mut differing = others.filter_map(|device| difference(&first, &viewed(world, device)?));
        return differing.next().map(|what| format!("the feeds differ: {what}"));
    }
    for device in (0..world.devices.len()).filter(|device| !world.is_apart(*device)) {
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
    let apart = world.apart();
    let outside: Vec<Thing> = apart.iter().flat_map(|device| on_disk(world, *device).into_values()).collect();
    let left = |content: &ContentId| world.is_of_apart(content) || outside.contains(&Thing::File(*content));
    let (removed, cut_off) = (removed_by_right(world), cut_off(world));
    let excused = |content: &ContentId| {
        let is_known = world.given_up.contains(content) || left(content) || removed.contains(content);
        is_known || cut_off.contains(content) || is_forgotten(world, content)
    };
    let lost = world.closed.iter().find(|(content, _)| !excused(content) && !current.contains(content));
    lost.map(|(_, bytes)| format!("lost: {:?}", String::from_utf8_lossy(bytes)))
}

/// Contents that a device wrote in records that its removal, or its demotion, did not let stand, and that nobody took over,
/// or only one who was cut off himself before that came to others.
fn cut_off(world: &World) -> BTreeSet<ContentId> {
    let authors: BTreeSet<DeviceId> =
        world.authority.cuts.values().map(|(device, _)| world.devices[*device].id).collect();
    let held = world.devices[0].replica.iter().flat_map(|replica| replica.quarantined(world.folder));
    let mut quarantined: BTreeSet<(DeviceId, ContentId)> = BTreeSet::new();
    for held in held.filter(|held| authors.contains(&held.device)) {
        let files = held.operations.iter().filter_map(|operation| operation.value.file());
        quarantined.extend(files.map(|file| (held.device, file.content)));
    }
    let taken_over = |content: &ContentId| {
        let by = world.authority.taken_over.get(content).map(|device| world.devices[*device].id);
        by.is_some_and(|by| !quarantined.contains(&(by, *content)))
    };
    let contents = quarantined.iter().map(|(_, content)| *content);
    contents.filter(|content| !taken_over(content) && !world.authority.put.contains(content)).collect()
}

/// How much of each chain counts: all of those of whom nobody has cut off, of the others what the revocations name and
/// what they wrote when they knew that they were in all the same, and everything that such records build on.
fn counting(world: &World) -> BTreeMap<ChainId, u64> {
    let intake = world.devices[0].replica.as_ref().and_then(|replica| replica.intake(world.folder));
    let Some(chains) = intake.map(|intake| intake.chains()) else { return BTreeMap::new() };
    let mut counting: BTreeMap<ChainId, u64> = BTreeMap::new();
    for (chain, author, head, _) in chains.heads() {
        let device = world.index.get(&author).copied();
        let malicious = device.is_none_or(|device| world.is_malicious(device));
        let by_itself = match &world.malice {
            // Nothing of a branch counts unless somebody has built on it.
            Some(_) if malicious && chains.is_branch(&chain) => 0,
            // Whom it let in between a removal that was lost and the one that came about has a right of his own.
            Some(_) if device.is_none() && world.is_let_in(&author) => head,
            Some(malice) if malicious => {
                malice.cuts.iter().filter_map(|head| chains.reaches(&chain, head)).max().unwrap_or(0)
            }
            _ => right_from(world, chains, &chain, 0, head),
        };
        // What all have built on stands, and is not looked into any more.
        counting.insert(chain, by_itself.max(chains.sealed(&chain)).min(head));
    }
    loop {
        let before = counting.clone();
        for (chain, seq) in &before {
            for (below, seq) in
                chains.context_at(chain, *seq).into_iter().flat_map(|it| it.entries().collect::<Vec<_>>())
            {
                let most = counting.entry(below).or_default();
                *most = seq.max(*most);
            }
        }
        if !world.authority.cuts.is_empty() && world.malice.is_none() {
            for (chain, _, head, _) in chains.heads() {
                let most = counting.entry(chain).or_default();
                *most = right_from(world, chains, &chain, *most, head);
            }
        }
        if before == counting {
            return counting;
        }
    }
}

/// How far a chain counts by the right of its author, where a part of it counts.
fn right_from(world: &World, chains: &Chains, chain: &ChainId, part: u64, head: u64) -> u64 {
    let author = chains.author(chain).and_then(|author| world.index.get(&author).copied());
    (part + 1..=head).take_while(|seq| is_right(world, chains, chain, *seq, author)).last().unwrap_or(part)
}

/// Whether a place of a chain counts by the right of its author: of each revocation, it is named or was known.
fn is_right(world: &World, chains: &Chains, chain: &ChainId, seq: u64, author: Option<usize>) -> bool {
    let known = chains.record_at(chain, seq).and_then(|record| world.authority.known.get(&record));
    let mut cuts = world.authority.cuts.iter().filter(|(_, (device, _))| Some(*device) == author);
    cuts.all(|(revocation, (_, newest))| {
        let named = newest.iter().filter_map(|head| chains.reaches(chain, head)).max().unwrap_or(0);
        seq <= named || known.is_some_and(|known| known.contains(revocation))
    })
}

fn counts(world: &World, counting: &BTreeMap<ChainId, u64>, record: &RecordKey) -> bool {
    let intake = world.devices[0].replica.as_ref().and_then(|replica| replica.intake(world.folder));
    let Some(chains) = intake.map(|intake| intake.chains()) else { return false };
    let Some((chain, seq)) = chains.place_of(record) else { return false };
    // What was let go of and is still known is listed by a checkpoint on which all have built.
    chains.is_retired(&chain) || seq <= counting.get(&chain).copied().unwrap_or(0)
}

/// Contents that the malicious device removed in records that count.
fn removed_by_right(world: &World) -> BTreeSet<ContentId> {
    let counting = counting(world);
    let kills = world.malice.iter().flat_map(|malice| &malice.kills);
    kills.filter(|(record, _)| counts(world, &counting, record)).map(|(_, content)| *content).collect()
}

/// Whether a content was removed for a record of the malicious device, before a home was put back, and nobody who is judged
/// holds a record that says it.
fn is_forgotten(world: &World, content: &ContentId) -> bool {
    let judged = world.devices.iter().enumerate().filter(|(number, _)| !world.is_apart(*number));
    let intakes = judged.filter_map(|(_, device)| device.replica.as_ref()?.intake(world.folder));
    let is_held = |record: &RecordKey| intakes.clone().any(|intake| intake.chains().place_of(record).is_some());
    let says = |value: &Option<ContentId>| *value == Some(*content);
    let is_forgotten = world.malice.as_ref().is_some_and(|malice| malice.forgotten.contains(content));
    is_forgotten && !world.values.iter().any(|(dot, value)| says(value) && is_held(&dot.record))
}

/// What the first device decided has come about: who is in is in everywhere, all that counts is shown, and nothing else.
fn authority(world: &mut World) -> Option<String> {
    if world.malice.is_some() || world.authority.cuts.is_empty() {
        return None;
    }
    let (counting, mut cut_off, mut built_on) = (counting(world), 0, 0);
    let inside = || (0..world.devices.len()).filter(|device| !world.is_apart(*device));
    let expected: BTreeSet<DeviceId> = inside().map(|device| world.devices[device].id).collect();
    for number in inside() {
        let replica = world.devices[number].replica.as_ref()?;
        let mut members = replica.peers();
        members.insert(world.devices[number].id);
        // A removal may have been lost with the process that made it.
        if !members.is_superset(&expected) || world.authority.back && members != expected {
            return Some(format!("the mesh of device {number} is {members:?}"));
        }
        // A place that a device has signed twice without knowing either any more stays there.
        let forgetful = |device: &DeviceId| world.put_back.iter().any(|it| world.devices[*it].id == *device);
        for held in replica.quarantined(world.folder).filter(|held| !forgetful(&held.device)) {
            if held.seq <= counting.get(&held.chain).copied().unwrap_or(0) {
                return Some(format!("device {number} has quarantined place {} of {}", held.seq, held.chain));
            }
            cut_off += 1;
        }
        for operation in replica.folder(world.folder)?.feed().iter().flatten() {
            if !counts(world, &counting, &operation.dot.record) {
                return Some(format!("device {number} shows {:?}, which does not count", operation.dot));
            }
            built_on += u64::from(!counts_by_itself(world, &operation.dot.record));
        }
    }
    (0..cut_off).for_each(|_| world.counts.add("admin: record in quarantine"));
    (0..built_on).for_each(|_| world.counts.add("admin: what was cut off is shown, as others built on it"));
    None
}

/// Whether a record counts by the right of its author, whoever has built on it.
fn counts_by_itself(world: &World, record: &RecordKey) -> bool {
    let intake = world.devices[0].replica.as_ref().and_then(|replica| replica.intake(world.folder));
    let Some(chains) = intake.map(|intake| intake.chains()) else { return false };
    let Some((chain, seq)) = chains.place_of(record) else { return false };
    if chains.is_retired(&chain) {
        return true;
    }
    let author = chains.author(&chain).and_then(|author| world.index.get(&author).copied());
    is_right(world, chains, &chain, seq, author)
}

/// Nothing of the malicious device is shown that does not count, nothing of another is quarantined, nobody has lost
/// his place in the mesh, and no table is larger than it may be.
fn malice(world: &mut World) -> Option<String> {
    let (malicious, counting) = (world.leaver.filter(|_| world.malice.is_some())?, counting(world));
    let honest: BTreeSet<DeviceId> =
        world.devices.iter().enumerate().filter(|(it, _)| *it != malicious).map(|(_, device)| device.id).collect();
    let (mut quarantined, mut endorsed) = (0, 0);
    for (number, device) in world.devices.iter().enumerate().filter(|(number, _)| *number != malicious) {
        let replica = device.replica.as_ref()?;
        let mut members = replica.peers();
        members.insert(device.id);
        let strangers = members != honest && !world.removed_late || members.contains(&world.devices[malicious].id);
        if !members.is_superset(&honest) || world.removed && strangers {
            return Some(format!("the mesh of device {number} is {members:?}"));
        }
        // A place that a device has signed twice without knowing either any more stays there.
        let forgetful: BTreeSet<DeviceId> = world.put_back.iter().map(|device| world.devices[*device].id).collect();
        let is_wrong = |held: &&Quarantined| honest.contains(&held.device) && !forgetful.contains(&held.device);
        if let Some(held) = replica.quarantined(world.folder).find(is_wrong) {
            return Some(format!("device {number} has quarantined place {} of an honest device", held.seq));
        }
        quarantined += replica.quarantined(world.folder).count();
        let live = replica.folder(world.folder)?.feed().iter().flatten();
        for dot in live.map(|operation| operation.dot).filter(|_| world.removed) {
            if !counts(world, &counting, &dot.record) {
                return Some(format!("device {number} shows {dot:?}, which does not count"));
            }
            endorsed += u64::from(world.malice.as_ref().is_some_and(|it| it.is_past_cut(&dot)));
        }
        if let Some(reason) = tables(replica) {
            return Some(format!("device {number}: {reason}"));
        }
    }
    let forked = world.malice.as_ref().is_some_and(|malice| malice.forked) || !world.put_back.is_empty();
    if !world.removed && !forked && quarantined > 0 {
        return Some("records are quarantined though nobody was removed".to_owned());
    }
    let held = world.devices[0].replica.as_ref()?.intake(world.folder)?.chains();
    let (branches, standing): (Vec<ChainId>, Vec<ChainId>) = held.branches().partition(|chain| {
        let place = world.devices[0].replica.as_ref().map_or(0, |replica| replica.standing(world.folder, chain));
        place <= held.stem(chain).map_or(0, |(_, base)| base)
    });
    let (branches, standing) = (branches.len(), standing.len());
    (0..branches).for_each(|_| world.counts.add("malice: branch in quarantine"));
    (0..standing).for_each(|_| world.counts.add("malice: branch stands"));
    (0..quarantined).for_each(|_| world.counts.add("malice: record in quarantine"));
    (0..endorsed).for_each(|_| world.counts.add("malice: endorsed operation shown"));
    None
}

/// What is larger than it may be of what peers can make a replica hold.
pub fn tables(replica: &Replica) -> Option<String> {
    let control = replica.control();
    if control.waiting() > limits::PENDING_PER_LOG * control.logs().count() {
        return Some(format!("{} statements wait", control.waiting()));
    }
    for object in control.logs().map(|log| log.id()) {
        let Some(intake) = replica.intake(object) else { continue };
        let (records, bytes) = (intake.pending().len(), intake.pending().bytes());
        if records > limits::PENDING_RECORDS || bytes > limits::PENDING_RECORD_BYTES {
            return Some(format!("{records} records of {bytes} bytes wait"));
        }
        let shown: usize = replica.quarantined(object).map(|held| held.operations.len()).sum();
        if shown > limits::QUARANTINE_SHOWN + limits::FEED_OPERATIONS {
            return Some(format!("{shown} operations in quarantine are kept to be shown"));
        }
    }
    None
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
