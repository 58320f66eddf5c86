//! One change as few records: what belongs together in one, and no prefix that shows nonsense.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    codec,
    id::{ContentId, DirId},
    limits,
};

use super::{records_of, to_wire};
use crate::feed::{
    map::FeedMap,
    operation::{FileValue, Key, NewOperation},
};

/// Bytes of a body that are no operations: framing and the lengths of its lists.
const FRAMING: usize = 64;
/// Bytes of a directory id or the name of a record with its framing.
const ID: usize = 32;
/// Bytes by which a position among the records may be longer than when it was measured alone.
const POSITION: usize = 4;

/// Splits a change into batches of one record each.
///
/// A directory comes before what is put into it, and what is deleted in a directory before the
/// directory itself, so that any prefix is a sensible tree. The operations of one move or swap stay in
/// one record where they fit. `base` is the map that the change was made against.
pub fn split(operations: Vec<NewOperation>, base: &FeedMap) -> Vec<Vec<NewOperation>> {
    let weights: Vec<usize> = operations.iter().map(weight).collect();
    if operations.is_empty() {
        return Vec::new();
    }
    if operations.len() <= limits::FEED_OPERATIONS && weights.iter().sum::<usize>() + FRAMING <= limits::FEED_BODY {
        return vec![operations];
    }
    let groups = Groups::of(&operations, base);
    let mut batches = Packing::default();
    for group in groups.in_order(&operations, base) {
        batches.add(&groups.members[group], &weights);
    }
    let mut operations: Vec<Option<NewOperation>> = operations.into_iter().map(Some).collect();
    let mut take = |index: usize| operations.get_mut(index).and_then(Option::take);
    batches.done.into_iter().map(|batch| batch.into_iter().filter_map(&mut take).collect()).collect()
}

/// An upper bound of what an operation adds to a body.
fn weight(operation: &NewOperation) -> usize {
    let records: BTreeSet<_> = records_of(operation).collect();
    let position = records.iter().copied().zip(0..).collect();
    let alone = codec::encode(&to_wire(operation, &position)).len();
    alone + ID * (1 + records.len()) + POSITION * (operation.base.len() + operation.former.len())
}

#[derive(Default)]
struct Packing {
    done: Vec<Vec<usize>>,
    bytes: usize,
}

impl Packing {
    /// Puts a group into the current batch, or a new one; one that fits nowhere is divided.
    fn add(&mut self, group: &[usize], weights: &[usize]) {
        let weight: usize = group.iter().map(|index| weights[*index]).sum();
        let whole = group.len() <= limits::FEED_OPERATIONS && weight + FRAMING <= limits::FEED_BODY;
        if whole && !self.has_room(group.len(), weight) {
            self.start();
        }
        for index in group {
            if !self.has_room(1, weights[*index]) {
                self.start();
            }
            self.bytes += weights[*index];
            if let Some(batch) = self.done.last_mut() {
                batch.push(*index);
            }
        }
    }

    fn has_room(&self, operations: usize, bytes: usize) -> bool {
        let fits = |batch: &Vec<usize>| {
            batch.len() + operations <= limits::FEED_OPERATIONS && self.bytes + bytes <= limits::FEED_BODY
        };
        self.done.last().is_some_and(fits)
    }

    fn start(&mut self) {
        self.done.push(Vec::new());
        self.bytes = FRAMING;
    }
}

/// Operations that belong in one record, by their position in the change.
struct Groups {
    members: Vec<Vec<usize>>,
    of: Vec<usize>,
}

impl Groups {
    /// Joins each operation that puts a directory or file with the one that takes it from its old place.
    fn of(operations: &[NewOperation], base: &FeedMap) -> Groups {
        let mut joined = Joined { above: (0..operations.len()).collect() };
        let mut placed = BTreeMap::new();
        let mut put: BTreeMap<(ContentId, bool), Vec<usize>> = BTreeMap::new();
        for (index, operation) in operations.iter().enumerate() {
            placed.extend(operation.value.dirs().iter().map(|dir| (*dir, index)));
            if let Some(file) = operation.value.file() {
                put.entry(file.content_key()).or_default().push(index);
            }
        }
        for (index, operation) in operations.iter().enumerate() {
            for to in taken(operation, base).iter().filter_map(|dir| placed.get(dir)) {
                joined.join(index, *to);
            }
            for file in taken_files(operation, base) {
                if let Some(to) = put.get_mut(&file.content_key()).and_then(Vec::pop) {
                    joined.join(index, to);
                }
            }
        }
        joined.into_groups()
    }

    /// Groups by what must come first; among those that may, what puts before what only deletes.
    fn in_order(&self, operations: &[NewOperation], base: &FeedMap) -> Vec<usize> {
        let after = self.dependants(operations, base);
        let mut waits = vec![0usize; self.members.len()];
        after.iter().flatten().for_each(|group| waits[*group] += 1);
        let deletes = |group: usize| self.members[group].iter().all(|index| operations[*index].value.is_tombstone());
        let mut ready: BTreeSet<(bool, usize, usize)> = BTreeSet::new();
        let mut arrivals = 0..;
        let mut arrive = |group: usize| (deletes(group), arrivals.next().unwrap_or(usize::MAX), group);
        ready.extend((0..waits.len()).filter(|group| waits[*group] == 0).map(&mut arrive));
        let mut order = Vec::new();
        while let Some((_, _, group)) = ready.pop_first() {
            order.push(group);
            for next in &after[group] {
                waits[*next] -= 1;
                if waits[*next] == 0 {
                    ready.insert(arrive(*next));
                }
            }
        }
        // Groups that wait for each other: no order serves both, and none loses anything.
        order.extend((0..waits.len()).filter(|group| waits[*group] > 0));
        order
    }

    /// For each group those that must come after it.
    fn dependants(&self, operations: &[NewOperation], base: &FeedMap) -> Vec<BTreeSet<usize>> {
        let mut placing: BTreeMap<DirId, usize> = BTreeMap::new();
        let mut taking: BTreeMap<DirId, usize> = BTreeMap::new();
        for (index, operation) in operations.iter().enumerate() {
            let group = self.of[index];
            placing.extend(operation.value.dirs().iter().map(|dir| (*dir, group)));
            taking.extend(taken(operation, base).into_iter().map(|dir| (dir, group)));
        }
        let mut after = vec![BTreeSet::new(); self.members.len()];
        for (index, operation) in operations.iter().enumerate() {
            let (group, dir) = (self.of[index], operation.key.dir);
            let edge = if operation.value.is_tombstone() {
                taking.get(&dir).filter(|_| !placing.contains_key(&dir)).map(|last| (group, *last))
            } else {
                placing.get(&dir).map(|first| (*first, group))
            };
            if let Some((first, last)) = edge.filter(|(first, last)| first != last) {
                after[first].insert(last);
            }
        }
        after
    }
}

/// The directories that an operation takes from its key.
fn taken(operation: &NewOperation, base: &FeedMap) -> Vec<DirId> {
    let keeps = operation.value.dirs();
    let replaced = base.at(&operation.key).iter().filter(|old| operation.base.contains(&old.dot));
    replaced.flat_map(|old| old.value.dirs()).filter(|dir| !keeps.contains(dir)).copied().collect()
}

/// The files that an operation takes from its key.
fn taken_files<'a>(operation: &'a NewOperation, base: &'a FeedMap) -> impl Iterator<Item = &'a FileValue> {
    let Key { dir, name } = &operation.key;
    let replaced = base.lookup(*dir, name.as_bytes()).iter().filter(|old| operation.base.contains(&old.dot));
    replaced.filter(|old| !old.value.same_content(&operation.value)).filter_map(|old| old.value.file())
}

/// Union-find over positions.
struct Joined {
    above: Vec<usize>,
}

impl Joined {
    fn top(&mut self, mut at: usize) -> usize {
        while self.above[at] != at {
            self.above[at] = self.above[self.above[at]];
            at = self.above[at];
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.top(one), self.top(other));
        self.above[one.max(other)] = one.min(other);
    }

    fn into_groups(mut self) -> Groups {
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut number = BTreeMap::new();
        let of: Vec<usize> = (0..self.above.len())
            .map(|index| {
                let top = self.top(index);
                let group = *number.entry(top).or_insert(members.len());
                members.resize(members.len().max(group + 1), Vec::new());
                members[group].push(index);
                group
            })
            .collect();
        Groups { members, of }
    }
}
