//! Records that came before what they build on.

use std::collections::{BTreeMap, BTreeSet};

use super::Verified;
use crate::{
    id::{OpId, RecordId},
    limits,
};

/// Something that a record waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Another record: its predecessor or a dependency.
    Record(RecordId),
    /// An operation of a control log.
    Control(OpId),
}

/// The records of one object that wait; at most [`limits::PENDING_RECORDS`] of
/// [`limits::PENDING_RECORD_BYTES`] together, the oldest make room.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    waiting: BTreeMap<RecordId, Waiting>,
    by_need: BTreeMap<Need, BTreeSet<RecordId>>,
    by_arrival: BTreeMap<u64, RecordId>,
    arrivals: u64,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Waiting {
    record: Verified,
    needs: BTreeSet<Need>,
    arrival: u64,
}

impl Pending {
    /// Number of records that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of the records that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a record waits.
    pub fn contains(&self, id: &RecordId) -> bool {
        self.waiting.contains_key(id)
    }

    /// A record that waits.
    pub fn get(&self, id: &RecordId) -> Option<&Verified> {
        self.waiting.get(id).map(|waiting| &waiting.record)
    }

    /// Whether a record of another device waits for this one.
    pub fn is_needed(&self, record: &Verified) -> bool {
        let waiting = self.by_need.get(&Need::Record(record.id())).into_iter().flatten();
        waiting.filter_map(|id| self.waiting.get(id)).any(|waiting| waiting.record.author() != record.author())
    }

    /// What is waited for and does not wait itself.
    pub fn needs(&self) -> impl Iterator<Item = Need> + '_ {
        self.by_need.keys().copied().filter(|need| !matches!(need, Need::Record(id) if self.contains(id)))
    }

    /// Lets a record wait for all of `needs`. Returns the records dropped to make room.
    pub fn hold(&mut self, record: Verified, needs: impl IntoIterator<Item = Need>) -> Vec<RecordId> {
        let id = record.id();
        self.remove(&id);
        let needs: BTreeSet<Need> = needs.into_iter().collect();
        for need in &needs {
            self.by_need.entry(*need).or_default().insert(id);
        }
        self.arrivals += 1;
        self.by_arrival.insert(self.arrivals, id);
        self.bytes += record.bytes().len();
        self.waiting.insert(id, Waiting { record, needs, arrival: self.arrivals });
        let mut dropped = Vec::new();
        while self.len() > limits::PENDING_RECORDS || self.bytes > limits::PENDING_RECORD_BYTES {
            let Some(oldest) = self.by_arrival.values().next().copied() else {
                break;
            };
            self.remove(&oldest);
            dropped.push(oldest);
        }
        dropped
    }

    /// Something arrived: releases the records that wait for nothing else, lowest height first.
    pub fn arrived(&mut self, need: Need) -> Vec<Verified> {
        let mut free = Vec::new();
        for id in self.by_need.remove(&need).unwrap_or_default() {
            let Some(waiting) = self.waiting.get_mut(&id) else {
                continue;
            };
            waiting.needs.remove(&need);
            if waiting.needs.is_empty() {
                free.extend(self.remove(&id));
            }
        }
        free.sort_by_key(|record| (record.header().height, record.chain(), record.header().seq));
        free
    }

    /// Releases all records, lowest height first.
    pub fn drain(&mut self) -> Vec<Verified> {
        let all = std::mem::take(self).waiting.into_values();
        let mut free: Vec<Verified> = all.map(|waiting| waiting.record).collect();
        free.sort_by_key(|record| (record.header().height, record.chain(), record.header().seq));
        free
    }

    /// Forgets a record that waits, and returns it.
    pub fn remove(&mut self, id: &RecordId) -> Option<Verified> {
        let waiting = self.waiting.remove(id)?;
        self.by_arrival.remove(&waiting.arrival);
        self.bytes -= waiting.record.bytes().len();
        for need in &waiting.needs {
            if let Some(ids) = self.by_need.get_mut(need) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_need.remove(need);
                }
            }
        }
        Some(waiting.record)
    }
}

#[cfg(test)]
mod tests;
