//! The names of the stages.

use meshwork_protocol::{
    id::{ChainId, OpId, RecordId},
    object::RecordError,
};

/// Why a record was not admitted (now).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// More bytes than a record may have.
    #[error("a record of {0} bytes")]
    TooBig(usize),
    /// Not a record, or not signed by its author.
    #[error(transparent)]
    Malformed(RecordError),
    /// Not of this object, or from a peer that may not send it.
    #[error("not a record that this peer may send")]
    NotSubscribed,
    /// Held, or waiting, already.
    #[error("the record is held already")]
    Duplicate,
    /// The author signed one more record for a place that has others, and more such branches are held than
    /// [`limits::BRANCHES`](meshwork_protocol::limits::BRANCHES).
    #[error("one record too many at place {seq} of one chain")]
    Equivocation {
        /// The chain.
        chain: ChainId,
        /// The place.
        seq: u64,
    },
    /// Waits: records before it in its chain are missing.
    #[error("records {} to {} of the chain are missing", have + 1, want - 1)]
    Gap {
        /// Newest place held.
        have: u64,
        /// Place of the record.
        want: u64,
    },
    /// Waits: it goes on from another record than is held before its place.
    #[error("goes on from another record before place {seq} of its chain than is held")]
    Sidestep {
        /// The chain.
        chain: ChainId,
        /// Place of the record.
        seq: u64,
    },
    /// What it names as its predecessor is not at the place before it.
    #[error("the predecessor is no record of the place before")]
    BadPrev,
    /// Waits: records that it builds on are missing.
    #[error("{} records that it builds on are missing", .0.len())]
    MissingDeps(Vec<RecordId>),
    /// Waits: control operations that it names are missing, and are to be asked of the sender.
    #[error("{} control operations that it names are missing", .0.len())]
    NeedControl(Vec<OpId>),
    /// Its author knew less of the control log than a record that it builds on.
    #[error("its author knew less of the control log than what it builds on")]
    BackwardsAuthority,
    /// It names a record that it builds on at a place where that is not.
    #[error("names a record that it builds on at a place where that is not")]
    BadDep,
    /// A checkpoint of its author has taken the place of its chain.
    #[error("of a chain whose place a checkpoint has taken")]
    Retired,
    /// Its author had no right to write.
    #[error("the author has no right to write here")]
    NotAuthorised,
    /// Its height is wrong.
    #[error("height {stated} above records of height {below}")]
    BadHeight {
        /// Height in the header.
        stated: u64,
        /// Largest height that it builds on.
        below: u64,
    },
    /// The object has no room for another record.
    #[error("no room for another record")]
    Full,
}

impl ReceiveError {
    /// Whether the sender is to blame: an honest one would have noticed.
    pub fn is_fault(&self) -> bool {
        matches!(self, ReceiveError::TooBig(_) | ReceiveError::Malformed(_))
    }

    /// Whether the record waits and may still be admitted.
    pub fn waits(&self) -> bool {
        use ReceiveError::{Gap, MissingDeps, NeedControl, Sidestep};
        matches!(self, Gap { .. } | Sidestep { .. } | MissingDeps(_) | NeedControl(_))
    }
}

/// Records by what became of them, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveCounters {
    /// Admitted, whatever else.
    pub admitted: u64,
    /// [`ReceiveError::TooBig`].
    pub too_big: u64,
    /// [`ReceiveError::Malformed`].
    pub malformed: u64,
    /// [`ReceiveError::NotSubscribed`].
    pub not_subscribed: u64,
    /// [`ReceiveError::Duplicate`].
    pub duplicate: u64,
    /// Admitted as another branch of its chain.
    pub branch: u64,
    /// [`ReceiveError::Equivocation`].
    pub equivocation: u64,
    /// [`ReceiveError::Sidestep`].
    pub sidestep: u64,
    /// [`ReceiveError::BadPrev`].
    pub bad_prev: u64,
    /// [`ReceiveError::Gap`].
    pub gap: u64,
    /// [`ReceiveError::MissingDeps`].
    pub missing_deps: u64,
    /// [`ReceiveError::NeedControl`].
    pub need_control: u64,
    /// [`ReceiveError::BackwardsAuthority`].
    pub backwards_authority: u64,
    /// [`ReceiveError::BadDep`].
    pub bad_dep: u64,
    /// [`ReceiveError::Retired`].
    pub retired: u64,
    /// [`ReceiveError::NotAuthorised`].
    pub not_authorised: u64,
    /// [`ReceiveError::BadHeight`].
    pub bad_height: u64,
    /// [`ReceiveError::Full`].
    pub full: u64,
    /// Dropped from those that wait, to make room.
    pub crowded_out: u64,
    /// Admitted though past a cut of the author.
    pub after_cut: u64,
    /// Admitted without the key to read it.
    pub no_key: u64,
    /// Admitted though its body does not open.
    pub bad_cipher: u64,
    /// Admitted though its body declares more than any may have.
    pub bomb: u64,
    /// Admitted though its text says nothing that a record of its kind can say.
    pub void: u64,
}

impl ReceiveCounters {
    pub(super) fn count(&mut self, error: &ReceiveError) {
        let counter = match error {
            ReceiveError::TooBig(_) => &mut self.too_big,
            ReceiveError::Malformed(_) => &mut self.malformed,
            ReceiveError::NotSubscribed => &mut self.not_subscribed,
            ReceiveError::Duplicate => &mut self.duplicate,
            ReceiveError::Equivocation { .. } => &mut self.equivocation,
            ReceiveError::Sidestep { .. } => &mut self.sidestep,
            ReceiveError::BadPrev => &mut self.bad_prev,
            ReceiveError::Gap { .. } => &mut self.gap,
            ReceiveError::MissingDeps(_) => &mut self.missing_deps,
            ReceiveError::NeedControl(_) => &mut self.need_control,
            ReceiveError::BackwardsAuthority => &mut self.backwards_authority,
            ReceiveError::BadDep => &mut self.bad_dep,
            ReceiveError::Retired => &mut self.retired,
            ReceiveError::NotAuthorised => &mut self.not_authorised,
            ReceiveError::BadHeight { .. } => &mut self.bad_height,
            ReceiveError::Full => &mut self.full,
        };
        *counter += 1;
    }
}
