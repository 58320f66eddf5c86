//! What becomes of a record that a peer sends: the stages from raw bytes to the text of its body, in a
//! fixed order, each failure with its name.

mod admit;
mod error;

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    id::{ChainId, DeviceId, EpochId, ObjectId, OpId, RecordId, RecordKey},
    limits,
    object::{ChainError, Chains, Fit, Header, Need, OpenError, Pending, Record, RecordError, Verified},
    seal::EpochKey,
    wire::sync::Retirement,
};
use zeroize::Zeroizing;

pub use error::{ReceiveCounters, ReceiveError};

/// What the control logs say about a record.
///
/// # Replicas must agree
/// [`Judge::judge`] may refuse a record only for what can never change: the signed bytes of the grants that
/// it names. Whatever a later statement may bring about (a revocation, a cut, a grant that fell with its
/// issuer) makes it [`Standing::Void`] instead: it is kept and served, so that replicas that learn things
/// in different orders hold the same records.
pub trait Judge {
    /// Whether a peer may send records of an object.
    fn may_send(&self, peer: &DeviceId, object: &ObjectId) -> bool;
    /// What the header names of control logs and is not held: heads and both grants.
    fn missing_control(&self, header: &Header) -> Vec<OpId>;
    /// Whether one of `newer` comes before one of `older` in its author's chain, so that whoever named
    /// `newer` as the newest that he knew did not know `older`. Since a header has room for some heads
    /// only, this is all that can be told. All of both are held.
    fn regresses(&self, object: &ObjectId, newer: &[OpId], older: &[OpId]) -> bool;
    /// The verdict by the two grants that the record names. `reaches` tells whether a record is the judged
    /// one or comes before it in its chain. Everything named is held.
    fn judge(&self, record: &Verified, reaches: &dyn Fn(RecordId) -> bool) -> Result<Standing, NotAuthorised>;
    /// The key of an epoch, if this node can open it.
    fn epoch_key(&self, object: &ObjectId, epoch: &EpochId) -> Option<&EpochKey>;
    /// The chains that a record which begins a checkpoint takes the place of; none if this node cannot open it.
    fn replaced(&self, record: &Verified) -> Option<BTreeSet<ChainId>>;
}

/// The author has no right to write here and never had by the grants that the record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the author has no right to write here")]
pub struct NotAuthorised;

/// Whether a record inside its chain counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Stands,
    /// By itself it does not: it lies past a cut of its author. It is kept, and counts once a record that
    /// stands builds on it.
    Void,
}

/// The body of an admitted record.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Its text.
    Text(Zeroizing<Vec<u8>>),
    /// The key of its epoch is not held (yet).
    Locked,
    /// It can never be read: the record has its place in its chain and contributes nothing.
    Void(OpenError),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // What a user wrote belongs in no log.
            Content::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Content::Locked => f.write_str("Locked"),
            Content::Void(error) => write!(f, "Void({error:?})"),
        }
    }
}

/// A record that was admitted to its chain: to be persisted, then applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The record.
    pub record: Verified,
    /// How it went on from what was held.
    pub fit: Fit,
    /// Whether it counts.
    pub standing: Standing,
    /// Its body.
    pub content: Content,
}

/// What came of a record that a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The record's place, unless it was unreadable: for [`super::Input::Seen`].
    pub place: Option<(ChainId, u64)>,
    /// Records admitted, in an order in which each builds only on earlier ones: the one that came and
    /// those that waited for it.
    pub arrivals: Vec<Arrival>,
    /// Why the record itself was not admitted (now).
    pub refusal: Option<ReceiveError>,
}

/// The chains of one object with all that waits at their door.
#[derive(Debug, Clone)]
pub struct Intake {
    chains: Chains,
    pending: Pending,
    counters: ReceiveCounters,
}

impl Intake {
    /// An object without records.
    pub fn new(object: ObjectId) -> Self {
        Intake { chains: Chains::new(object), pending: Pending::default(), counters: ReceiveCounters::default() }
    }

    /// The chains.
    pub fn chains(&self) -> &Chains {
        &self.chains
    }

    /// Records that wait for something.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// How often each stage refused, or let pass with a reservation.
    pub fn counters(&self) -> ReceiveCounters {
        self.counters
    }

    /// Notes that the text of an admitted record says nothing that a record of its kind can say.
    pub fn note_void(&mut self) {
        self.counters.void += 1;
    }

    /// Admits a record that this node wrote.
    pub fn append(&mut self, record: &Verified) -> Result<Fit, ChainError> {
        self.chains.accept(record)
    }

    /// Admits a record that this node had admitted and stored before.
    pub fn restore(&mut self, record: &Verified) -> Result<Fit, ChainError> {
        self.chains.readmit(record)
    }

    /// Notes chains that others have let go of: [`Chains::promise`]. Beyond [`limits::RETIRED`] none is noted any more.
    /// `is_sure` tells whether a checkpoint that is held takes the place of one.
    pub fn note_retired(&mut self, chains: &[Retirement], is_sure: impl Fn(&Retirement) -> bool) {
        for retirement in chains {
            if self.chains.let_go_count() < limits::RETIRED {
                let Retirement { chain, device, by } = retirement;
                self.chains.promise(*chain, *device, *by, is_sure(retirement));
            }
        }
    }

    /// Tries once more to admit what waits: chains were let go of.
    pub fn retry(&mut self, judge: &impl Judge) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for record in self.pending.drain() {
            arrivals.extend(self.admit_all(judge, record).0);
        }
        arrivals
    }

    /// Lets go of chains for the checkpoint with which another begins: [`Chains::retire`].
    pub fn retire(&mut self, chains: &BTreeSet<ChainId>, by: &ChainId, last: u64) {
        self.chains.retire(chains, by, last);
    }

    /// Notes the records that a part of a checkpoint lists; gives those that are somewhere else.
    pub fn note_listed(&mut self, places: &BTreeMap<RecordKey, (ChainId, u64)>) -> BTreeSet<RecordKey> {
        let elsewhere = places.iter().filter(|(record, (of, seq))| !self.chains.note_listed(**record, *of, *seq));
        elsewhere.map(|(record, _)| *record).collect()
    }

    /// Forgets the records of chains that are not held and are listed no more.
    pub fn forget_listed(&mut self, chains: &BTreeSet<ChainId>, listed: &BTreeSet<RecordKey>) {
        self.chains.forget_listed(chains, |record| listed.contains(record));
    }

    /// Takes the bytes that `from` sent as a record of this object.
    pub fn receive(&mut self, judge: &impl Judge, from: &DeviceId, bytes: Vec<u8>) -> Receipt {
        let (record, place) = match self.read(judge, from, bytes) {
            Ok(record) => {
                let place = (record.chain(), record.header().seq);
                (record, place)
            }
            Err((error, place)) => {
                self.counters.count(&error);
                return Receipt { place, arrivals: Vec::new(), refusal: Some(error) };
            }
        };
        let (arrivals, refusal) = self.admit_all(judge, record);
        Receipt { place: Some(place), arrivals, refusal }
    }

    /// Control operations came: admits the records that waited for nothing else.
    pub fn control_arrived(&mut self, judge: &impl Judge, ops: &[OpId]) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for op in ops {
            for record in self.pending.arrived(Need::Control(*op)) {
                arrivals.extend(self.admit_all(judge, record).0);
            }
        }
        arrivals
    }

    /// Size, form, audience, duplicate, signature.
    fn read(
        &mut self,
        judge: &impl Judge,
        from: &DeviceId,
        bytes: Vec<u8>,
    ) -> Result<Verified, (ReceiveError, Option<(ChainId, u64)>)> {
        let decoded = Record::decode(bytes).map_err(|error| match error {
            RecordError::TooBig(len) => (ReceiveError::TooBig(len), None),
            other => (ReceiveError::Malformed(other), None),
        })?;
        let header = decoded.header();
        if header.object != self.chains.object() || !judge.may_send(from, &header.object) {
            return Err((ReceiveError::NotSubscribed, None));
        }
        let id = decoded.id();
        if self.chains.contains(&id) || self.pending.contains(&id) {
            let place = self.chains.place(&id).unwrap_or((decoded.chain(), header.seq));
            // Whoever sends it may have what it waits for, also where it came from somebody else before.
            let sidestep = match self.pending.get(&id).map(|waiting| self.chains.check(waiting)) {
                Some(Err(ChainError::Sidestep { chain, seq })) => Some(ReceiveError::Sidestep { chain, seq }),
                _ => None,
            };
            return Err((sidestep.unwrap_or(ReceiveError::Duplicate), Some(place)));
        }
        decoded.verify().map_err(|error| (ReceiveError::Malformed(error), None))
    }
}

/// Opens the body of a record.
pub fn open(record: &Verified, key: Option<&EpochKey>) -> Content {
    match key.map(|key| record.open(key)) {
        None => Content::Locked,
        Some(Ok(text)) => Content::Text(text),
        Some(Err(error)) => Content::Void(error),
    }
}

#[cfg(test)]
mod tests;
