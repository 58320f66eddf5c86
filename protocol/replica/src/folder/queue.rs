//! The keys that the disk does not show yet as the replica has them, and what each of them waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use meshwork_protocol::{
    id::{ContentId, DirId},
    limits,
    time::Timestamp,
};

use super::{agree::in_line, base::DiskBase};
use crate::feed::{FeedMap, FileValue, Key, Operation, Order};

/// A key that could not be placed, and when it is tried again.
#[derive(Clone, Copy)]
struct Deferred {
    tries: u32,
    /// None while it is in line.
    due: Option<Timestamp>,
}

/// The keys on their way to the disk. Each is ready, waits for contents, or rests after a failure.
#[derive(Default)]
pub struct Queue {
    ready: BTreeMap<Key, Order>,
    /// The ready ones by their newest operation, so that what belongs together is placed together.
    in_order: BTreeSet<(Order, Key)>,
    waiting: BTreeMap<Key, BTreeSet<ContentId>>,
    waiters: BTreeMap<ContentId, BTreeSet<Key>>,
    deferred: BTreeMap<Key, Deferred>,
    arrived: BTreeSet<ContentId>,
    /// Contents to ask for, and contents that nothing waits for any more.
    wanted: BTreeMap<ContentId, Arc<Operation>>,
    unwanted: BTreeSet<ContentId>,
}

impl Queue {
    /// Keys that are not in line yet.
    pub fn len(&self) -> usize {
        let resting = self.deferred.values().filter(|deferred| deferred.due.is_some()).count();
        self.ready.len() + self.waiting.len() + resting
    }

    /// Whether something can be placed.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Contents that have been received whole.
    pub fn arrived(&self) -> &BTreeSet<ContentId> {
        &self.arrived
    }

    /// When the next key is to be tried again.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deferred.values().filter_map(|deferred| deferred.due).min()
    }

    /// Looks at a key anew: base or replica have changed there.
    pub fn note(&mut self, base: &DiskBase, feed: &FeedMap, key: Key) {
        self.drop_key(&key);
        self.deferred.remove(&key);
        if !in_line(base.map(), feed, &key) && !is_reserved(&key) {
            self.enqueue(base, feed, key);
        }
    }

    fn enqueue(&mut self, base: &DiskBase, feed: &FeedMap, key: Key) {
        let missing: Vec<&Arc<Operation>> = self.missing(base, feed, &key);
        if missing.is_empty() {
            // Where nothing is left, not even a tombstone, what was shown there does not stand any more.
            let newest = |map: &FeedMap| map.at(&key).iter().map(|operation| operation.order()).max();
            let order = newest(feed).or_else(|| newest(base.map()));
            if let Some(order) = order {
                self.in_order.insert((order, key.clone()));
                self.ready.insert(key, order);
            }
            return;
        }
        for operation in missing {
            let Some(file) = operation.value.file() else { continue };
            self.waiting.entry(key.clone()).or_default().insert(file.content);
            let waiters = self.waiters.entry(file.content).or_default();
            if waiters.is_empty() && !self.unwanted.remove(&file.content) {
                self.wanted.insert(file.content, operation.clone());
            }
            waiters.insert(key.clone());
        }
    }

    fn missing<'f>(&self, base: &DiskBase, feed: &'f FeedMap, key: &Key) -> Vec<&'f Arc<Operation>> {
        let lacks = |file: &FileValue| !self.is_available(base, file);
        feed.at(key).iter().filter(|operation| operation.value.file().is_some_and(lacks)).collect()
    }

    fn is_available(&self, base: &DiskBase, file: &FileValue) -> bool {
        file.is_symlink() || self.arrived.contains(&file.content) || base.locate(file.content).is_some()
    }

    fn drop_key(&mut self, key: &Key) {
        if let Some(order) = self.ready.remove(key) {
            self.in_order.remove(&(order, key.clone()));
        }
        for content in self.waiting.remove(key).unwrap_or_default() {
            let Some(keys) = self.waiters.get_mut(&content) else { continue };
            keys.remove(key);
            if keys.is_empty() {
                self.waiters.remove(&content);
                if self.wanted.remove(&content).is_none() {
                    self.unwanted.insert(content);
                }
            }
        }
    }

    /// A content is here whole.
    pub fn arrive(&mut self, base: &DiskBase, feed: &FeedMap, content: ContentId) {
        self.arrived.insert(content);
        self.unwanted.remove(&content);
        self.wanted.remove(&content);
        for key in self.waiters.remove(&content).unwrap_or_default() {
            if let Some(contents) = self.waiting.get_mut(&key) {
                contents.remove(&content);
                if contents.is_empty() {
                    self.waiting.remove(&key);
                    self.enqueue(base, feed, key);
                }
            }
        }
    }

    /// A content is shown at some name now: what waited for it can be made from there. Tells whether anything did.
    pub fn found(&mut self, base: &DiskBase, feed: &FeedMap, content: ContentId) -> bool {
        let Some(keys) = self.waiters.get(&content).filter(|_| base.locate(content).is_some()).cloned() else {
            return false;
        };
        for key in keys {
            self.drop_key(&key);
            self.enqueue(base, feed, key);
        }
        true
    }

    /// A received content was put in place, or is not to be trusted any more.
    pub fn use_up(&mut self, content: ContentId) {
        self.arrived.remove(&content);
    }

    /// These keys could not be placed: they rest, longer each time.
    pub fn defer(&mut self, now: Timestamp, keys: BTreeSet<Key>) {
        for key in keys {
            self.drop_key(&key);
            let tries = self.deferred.get(&key).map_or(0, |deferred| deferred.tries) + 1;
            self.deferred.insert(key, Deferred { tries, due: Some(now + pause(tries)) });
        }
    }

    /// Puts keys in line again that have rested; tells whether there were any.
    pub fn wake(&mut self, now: Timestamp, base: &DiskBase, feed: &FeedMap) -> bool {
        let due = |deferred: &Deferred| deferred.due.is_some_and(|due| due <= now);
        let keys: Vec<Key> = self.deferred.iter().filter(|(_, d)| due(d)).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            // The count of tries stays until the key is in line, so that the pauses grow.
            if let Some(deferred) = self.deferred.get_mut(key) {
                deferred.due = None;
            }
            if in_line(base.map(), feed, key) {
                self.deferred.remove(key);
            } else {
                self.enqueue(base, feed, key.clone());
            }
        }
        !keys.is_empty()
    }

    /// The operations whose contents are to be fetched, and the contents that are not wanted any more.
    pub fn take_wants(&mut self) -> (Vec<Arc<Operation>>, Vec<ContentId>) {
        let mut unwanted: Vec<ContentId> = std::mem::take(&mut self.unwanted).into_iter().collect();
        if self.len() == 0 {
            unwanted.extend(std::mem::take(&mut self.arrived));
        }
        (std::mem::take(&mut self.wanted).into_values().collect(), unwanted)
    }

    /// The next keys to be brought in line: in the order of their newest operations, those of one record
    /// together, and each only with the directory that it is in.
    pub fn choose(&mut self, base: &DiskBase, feed: &FeedMap) -> BTreeSet<Key> {
        let mut choice = Choice { queue: self, base, feed, keys: BTreeSet::new(), verdicts: BTreeMap::new() };
        let mut lacking = Vec::new();
        let mut last = None;
        for (order, key) in &self.in_order {
            let record = order.dot.record;
            if choice.keys.len() >= limits::STEPS_PER_BATCH && last != Some(record) {
                break;
            }
            last = Some(record);
            if !self.missing(base, feed, key).is_empty() {
                lacking.push(key.clone());
            } else if feed.at(key).iter().all(|operation| operation.value.is_tombstone()) || choice.admits(key.dir) {
                choice.keys.insert(key.clone());
            }
        }
        let keys = choice.keys;
        // What a copy was to be made of is gone: these wait after all.
        for key in lacking {
            self.drop_key(&key);
            self.enqueue(base, feed, key);
        }
        keys
    }
}

/// A choice of keys while it is made.
struct Choice<'a> {
    queue: &'a Queue,
    base: &'a DiskBase,
    feed: &'a FeedMap,
    keys: BTreeSet<Key>,
    verdicts: BTreeMap<DirId, bool>,
}

impl Choice<'_> {
    /// Whether a directory is in its place, or can be brought there with this choice: else what is in it
    /// would show in a recovered one meanwhile.
    fn admits(&mut self, dir: DirId) -> bool {
        if dir == DirId::ROOT {
            return true;
        }
        if let Some(verdict) = self.verdicts.get(&dir) {
            return *verdict;
        }
        // Directories that are refused a place because each is in the other are no reason to wait.
        self.verdicts.insert(dir, true);
        let keys: BTreeSet<Key> = self.feed.keys_placing(dir).cloned().collect();
        let late: Vec<Key> = keys.into_iter().filter(|key| !in_line(self.base.map(), self.feed, key)).collect();
        let ready = |choice: &Self, key: &Key| {
            choice.queue.ready.contains_key(key) && choice.queue.missing(choice.base, choice.feed, key).is_empty()
        };
        let verdict = late.iter().all(|key| ready(self, key) && self.admits(key.dir));
        if verdict {
            self.keys.extend(late);
        } else {
            self.verdicts.insert(dir, false);
        }
        verdict
    }
}

/// How long a key that could not be placed rests: short at first, because most often the user just
/// changed something there.
fn pause(tries: u32) -> Duration {
    limits::PLACE_PAUSE * 2u32.saturating_pow(tries.saturating_sub(1).min(10))
}

/// Names in the root that are the node's own; a peer that writes them is not followed.
fn is_reserved(key: &Key) -> bool {
    key.dir == DirId::ROOT && key.name.as_bytes().starts_with(super::OWN_NAME.as_bytes())
}
