//! Starting again from what was stored: control statements and records in the order of the log, then
//! the disk bases of the folders that have a place here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::{
    id::{ChainId, ObjectId, RecordKey},
    key::Signed,
    object::{Fit, Verified},
    time::Timestamp,
};
use rand_core::CryptoRng;

use super::{Object, Output, Replica, StoredBase, receive::operations};
use crate::{
    feed::{Dot, Operation},
    folder::{BaseChange, DiskBase},
    sync::receive::{Content, open},
};

/// The chains that a device has written in one object, in their order, with the newest place of each.
pub(super) type Written = Vec<(ChainId, u64)>;

/// A disk base that waits for the operations that it names.
pub(super) struct Expected {
    stored: StoredBase,
    needed: BTreeSet<Dot>,
    /// Own chains that were let go of.
    let_go: BTreeSet<ChainId>,
    found: BTreeMap<Dot, Arc<Operation>>,
    /// The chains of records that were let go of and are stored still.
    pub places: BTreeMap<RecordKey, ChainId>,
    /// Own operations that are newer than the stored base; the disk showed what they say.
    pub own_after: Vec<Arc<Operation>>,
}

impl Expected {
    /// Nothing has passed yet.
    pub fn new(stored: StoredBase) -> Self {
        let needed = stored.keys.iter().chain(&stored.intents).flat_map(|(_, dots)| dots).copied().collect();
        Expected {
            stored,
            needed,
            let_go: BTreeSet::new(),
            found: BTreeMap::new(),
            places: BTreeMap::new(),
            own_after: Vec::new(),
        }
    }

    /// A chain was let go of, and is not among those written any more.
    pub fn note_let_go(&mut self, chain: ChainId) {
        self.let_go.insert(chain);
    }

    /// All records pass once more.
    pub fn begin(&mut self) {
        self.found.clear();
        self.own_after.clear();
    }

    /// Keeps what the base names, and what this device wrote after it: `own` is the place of the record where this
    /// device wrote it, `written` its chains in their order.
    pub fn pass(&mut self, operations: &[Arc<Operation>], own: Option<(ChainId, u64)>, written: &Written) {
        let needed = operations.iter().filter(|operation| self.needed.contains(&operation.dot));
        self.found.extend(needed.map(|operation| (operation.dot, operation.clone())));
        if own.is_some_and(|own| self.is_after(own, written)) {
            self.own_after.extend(operations.iter().cloned());
        }
    }

    fn is_after(&self, (chain, seq): (ChainId, u64), written: &Written) -> bool {
        let Some((newest, last)) = self.stored.own else { return true };
        let number = |chain| written.iter().position(|(of, _)| *of == chain);
        match number(newest) {
            Some(_) if chain == newest => seq > last,
            Some(known) => number(chain).is_some_and(|number| number > known),
            // The chain was let go of since, or nothing was written in it when the base was stored.
            None => self.let_go.contains(&newest),
        }
    }

    /// The base. A key of which an operation is missing (the log lost its end) is left out: its file
    /// is then met as one that nothing is known of, and content that is equal is adopted. All files beside it are read
    /// again, for its name may be that of something else now.
    pub fn into_base(self) -> DiskBase {
        let mut base = DiskBase::default();
        let found = |dots: Vec<Dot>| dots.iter().map(|dot| self.found.get(dot).cloned()).collect::<Option<Vec<_>>>();
        let mut unknown = Vec::new();
        for (key, dots) in self.stored.keys {
            match found(dots) {
                Some(operations) => base.restore(BaseChange::Key { key, operations }),
                None => unknown.push(key.dir),
            }
        }
        for (dir, identity) in self.stored.dirs {
            base.restore(BaseChange::Dir { dir, identity: Some(identity) });
        }
        for (parent, name, fingerprint) in self.stored.files {
            base.restore(BaseChange::File { parent, name, fingerprint: Some(fingerprint) });
        }
        let mut void = Vec::new();
        for (key, dots) in self.stored.intents {
            match found(dots) {
                Some(operations) => base.restore(BaseChange::Intent { key, operations: Some(operations) }),
                None => void.push(key),
            }
        }
        void.into_iter().for_each(|key| base.drop_intent(key));
        unknown.into_iter().for_each(|dir| base.forget_files(dir));
        base
    }
}

impl Replica {
    /// Takes a stored control statement in.
    pub fn restore_control(&mut self, bytes: &[u8]) {
        match Signed::parse(bytes).map_err(|error| error.to_string()) {
            Ok(signed) => {
                if let Err(error) = self.control.adopt(signed) {
                    tracing::warn!(%error, "a stored control statement does not fit");
                }
            }
            Err(error) => tracing::warn!(%error, "a stored control statement cannot be read"),
        }
    }

    /// Takes a stored record in. It was verified before it was stored, and the log has checksums.
    /// `own`: whether this device wrote it.
    pub fn restore_record(&mut self, object: ObjectId, bytes: Vec<u8>, own: bool) {
        self.stored_changes.get_or_insert_default();
        let record = match Verified::trusted(bytes) {
            Ok(record) => record,
            Err(error) => return tracing::warn!(%error, "a stored record cannot be read"),
        };
        if self.keyring.key(object, record.header().epoch).is_none() {
            self.open_epochs(object, &mut Vec::new());
        }
        self.restore_object(object);
        let Some(state) = self.objects.get_mut(&object) else {
            return tracing::warn!(object = %object.short(), "a stored record of an object that is not known");
        };
        if own {
            state.note_written(record.chain(), record.header().seq);
        }
        if state.let_go.contains(&record.chain()) {
            return self.pass_let_go(object, &record);
        }
        match state.intake.restore(&record) {
            Ok(Fit::Line) => {}
            Ok(Fit::Branch) => state.read_again(),
            Err(error) => return tracing::warn!(%error, "a stored record does not fit"),
        }
        if state.reread.is_some() {
            // With those that waited for their key it is read once more.
            return;
        }
        self.merge(object, &record, &mut Vec::new());
    }

    /// A record that was let go of is still in the log: the disk may show something of it.
    fn pass_let_go(&mut self, object: ObjectId, record: &Verified) {
        let content = open(record, self.keyring.key(object, record.header().epoch));
        if let (Some(expected), Content::Text(text)) = (self.expected.get_mut(&object), content) {
            expected.places.insert(record.id().key(), record.chain());
            expected.pass(&operations(record, &text), None, &Vec::new());
        }
    }

    /// Makes room for an object whose control log is stored. The record that names it in the graph may
    /// still wait for its key, or have been lost in a crash that the object's birth outlived.
    pub(super) fn restore_object(&mut self, object: ObjectId) {
        if !self.objects.contains_key(&object) && self.control.log(object).is_some() {
            self.objects.insert(object, Object::folder(object));
        }
    }

    /// All that was stored is taken in: from now on it is synchronised.
    pub fn resume(&mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Vec<Output> {
        let mut out = Vec::new();
        self.merge_stored_changes(&mut out);
        self.resumed = true;
        let objects: Vec<ObjectId> = self.objects.keys().copied().collect();
        for object in objects {
            self.open_epochs(object, &mut out);
            self.judge_again(object);
            self.note_due(object);
            self.announced.insert(object);
            if self.graph_is_whole() {
                self.renamed.insert(object);
            }
        }
        self.announced.extend(self.followed().into_iter().map(ObjectId::from));
        // The statement of a newcomer may have outlived a crash that what was sealed to him then did not.
        if let Err(error) = self.supplement(rng, &mut out) {
            tracing::warn!(%error, "keys could not be sealed to new readers");
        }
        self.forget_again(&mut out);
        self.settle(now, rng, &mut out);
        out.push(Output::PeersChanged);
        out
    }
}
