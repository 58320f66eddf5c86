//! What is held here of one object.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    id::{ChainId, DeviceId, ObjectId, OpId},
    limits,
    object::Vector,
    time::Timestamp,
    wire::sync::{self, ObjectState, ShortDigest},
};

use super::Scope;

/// What is held here of one object, and whom it is being asked of.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) object: ObjectId,
    /// What is persisted: all that peers are told.
    pub(super) held: Vector,
    /// What is admitted, persisted or not: what need not be asked for.
    pub(super) taken: Vector,
    /// Chains that were let go of here.
    pub(super) retired: BTreeSet<ChainId>,
    pub(super) heads: Vec<OpId>,
    pub(super) control: ShortDigest,
    vector: ShortDigest,
    pub(super) fetch: Option<Fetch>,
    /// Peers lack nothing that may be asked for now, but will be asked again then.
    pub(super) retry: Option<Timestamp>,
    /// Somebody would be asked, but is asked for too much already.
    pub(super) hungry: bool,
}

/// A question for records that is under way.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) peer: DeviceId,
    /// Where each chain stood when it was asked for.
    pub(super) from: BTreeMap<ChainId, u64>,
    /// Chains of which anything came.
    pub(super) delivered: BTreeSet<ChainId>,
    /// When something of it came last.
    pub(super) progress: Timestamp,
}

impl Local {
    pub(super) fn new(object: ObjectId, held: Vector, retired: BTreeSet<ChainId>, heads: Vec<OpId>) -> Self {
        let vector = sync::short(held.digest(&object));
        let control = sync::short(sync::control_digest(&object, &heads));
        Local {
            object,
            taken: held.clone(),
            held,
            retired,
            heads,
            control,
            vector,
            fetch: None,
            retry: None,
            hungry: false,
        }
    }

    pub(super) fn retire(&mut self, chains: &BTreeSet<ChainId>) {
        self.held.0.retain(|chain, _| !chains.contains(chain));
        self.taken.0.retain(|chain, _| !chains.contains(chain));
        self.retired.extend(chains);
        self.held_changed();
    }

    pub(super) fn state(&self, scope: Scope) -> ObjectState {
        let vector = if scope == Scope::Whole { self.vector } else { ShortDigest::default() };
        ObjectState { object: self.object, control: self.control, vector }
    }

    pub(super) fn vector_digest(&self) -> ShortDigest {
        self.vector
    }

    pub(super) fn held_changed(&mut self) {
        self.vector = sync::short(self.held.digest(&self.object));
    }

    pub(super) fn set_heads(&mut self, heads: Vec<OpId>) {
        self.control = sync::short(sync::control_digest(&self.object, &heads));
        self.heads = heads;
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        // While somebody is asked, nobody else is: what is to be asked again waits for the answer.
        self.fetch.as_ref().map(|fetch| fetch.progress + limits::WANT_TIMEOUT).or(self.retry)
    }
}
