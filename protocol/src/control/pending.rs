//! Operations that wait for something they name. Bounded: the oldest are forgotten, and come again with the next sync.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{ObjectId, OpId},
    key::Signed,
    limits,
};

/// The waiting operations of all logs.
#[derive(Default)]
pub(super) struct Pending {
    arrivals: u64,
    waiting: BTreeMap<u64, Waiting>,
    by_missing: BTreeMap<OpId, BTreeSet<u64>>,
    by_log: BTreeMap<ObjectId, BTreeSet<u64>>,
    ids: BTreeMap<OpId, u64>,
    bytes: usize,
}

struct Waiting {
    signed: Signed,
    id: OpId,
    log: ObjectId,
    missing: OpId,
}

impl Pending {
    /// Number of waiting operations.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether this operation waits already.
    pub fn contains(&self, id: OpId) -> bool {
        self.ids.contains_key(&id)
    }

    /// Lets an operation of `log` wait for `missing`.
    pub fn push(&mut self, log: ObjectId, signed: Signed, missing: OpId) {
        let id = OpId(signed.id());
        if self.contains(id) {
            return;
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.bytes += signed.body.len() + limits::SIGNED_OVERHEAD;
        self.ids.insert(id, arrival);
        self.by_missing.entry(missing).or_default().insert(arrival);
        self.by_log.entry(log).or_default().insert(arrival);
        self.waiting.insert(arrival, Waiting { signed, id, log, missing });
        self.evict(log);
    }

    /// Takes out all that wait for `id`, in order of arrival.
    pub fn release(&mut self, id: OpId) -> Vec<Signed> {
        let arrivals = self.by_missing.get(&id).cloned().unwrap_or_default();
        arrivals.into_iter().filter_map(|arrival| self.remove(arrival)).collect()
    }

    fn evict(&mut self, log: ObjectId) {
        while let Some(own) = self.by_log.get(&log)
            && own.len() > limits::PENDING_PER_LOG
            && let Some(oldest) = own.first().copied()
        {
            self.remove(oldest);
        }
        while self.bytes > limits::PENDING_BYTES
            && let Some((oldest, _)) = self.waiting.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, arrival: u64) -> Option<Signed> {
        let gone = self.waiting.remove(&arrival)?;
        self.bytes -= gone.signed.body.len() + limits::SIGNED_OVERHEAD;
        self.ids.remove(&gone.id);
        forget(&mut self.by_missing, gone.missing, arrival);
        forget(&mut self.by_log, gone.log, arrival);
        Some(gone.signed)
    }
}

fn forget<K: Ord + Copy>(table: &mut BTreeMap<K, BTreeSet<u64>>, key: K, arrival: u64) {
    if let Some(arrivals) = table.get_mut(&key) {
        arrivals.remove(&arrival);
        if arrivals.is_empty() {
            table.remove(&key);
        }
    }
}
