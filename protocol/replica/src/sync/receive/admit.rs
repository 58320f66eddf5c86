//! The stages behind the signature: chain, control, authority, key.

use std::collections::VecDeque;

use meshwork_protocol::{
    id::RecordId,
    limits,
    object::{ChainError, Fit, Need, OpenError, Verified},
};

use super::{Arrival, Content, Intake, Judge, ReceiveError, Standing, open};

impl Intake {
    /// Admits a record and whatever waited for it. The error is that of the record itself.
    pub(super) fn admit_all(&mut self, judge: &impl Judge, first: Verified) -> (Vec<Arrival>, Option<ReceiveError>) {
        let id = first.id();
        let mut refusal = None;
        let mut arrivals = Vec::new();
        let mut ready = VecDeque::from([first]);
        while let Some(record) = ready.pop_front() {
            let current = record.id();
            if record.begins_checkpoint() && self.chains.is_doubtful(&record.chain()) {
                self.chains.confirm(&record, judge.replaced(&record).as_ref());
                ready.extend(self.pending.drain());
            }
            match self.admit(judge, record) {
                Ok(arrival) => {
                    arrivals.push(arrival);
                    ready.extend(self.pending.arrived(Need::Record(current)));
                }
                Err(error) => {
                    self.counters.count(&error);
                    if current == id {
                        refusal = Some(error);
                    }
                }
            }
        }
        (arrivals, refusal)
    }

    fn admit(&mut self, judge: &impl Judge, record: Verified) -> Result<Arrival, ReceiveError> {
        let (fit, early) = match self.chain_stage(&record)? {
            Ok(fit) => (fit, None),
            Err(early) => (Fit::Line, Some(early)),
        };
        let missing = judge.missing_control(record.header());
        let mut needs: Vec<Need> = missing.iter().copied().map(Need::Control).collect();
        // A record without a right takes no room among those that wait.
        let standing = if missing.is_empty() { Some(self.authority_stage(judge, &record, fit)?) } else { None };
        if early.is_some() {
            let header = record.header();
            let is_lacking = |prev: &RecordId| *prev != RecordId::NONE && !self.chains.contains(prev);
            let prev = Some(header.prev).filter(is_lacking);
            needs.extend(self.chains.lacking(header).map(|dep| dep.id).chain(prev).map(Need::Record));
        }
        let Some(standing) = standing.filter(|_| early.is_none()) else {
            if !needs.is_empty() {
                self.counters.crowded_out += self.pending.hold(record, needs).len() as u64;
            }
            return Err(early.unwrap_or(ReceiveError::NeedControl(missing)));
        };
        self.frontier_stage(judge, &record)?;
        let fit = self.chains.accept(&record).map_err(|_| ReceiveError::Full)?;
        self.counters.admitted += 1;
        self.counters.branch += u64::from(fit == Fit::Branch);
        self.counters.after_cut += u64::from(standing == Standing::Void);
        let content = self.content_stage(judge, &record);
        Ok(Arrival { record, fit, standing, content })
    }

    /// How the record fits its chain; the inner error if it is only too early.
    fn chain_stage(&mut self, record: &Verified) -> Result<Result<Fit, ReceiveError>, ReceiveError> {
        match self.chains.check(record) {
            Ok(Fit::Branch)
                if self.chains.branches().count() >= limits::BRANCHES && !self.pending.is_needed(record) =>
            {
                Err(ReceiveError::Equivocation { chain: record.chain(), seq: record.header().seq })
            }
            Ok(fit) => Ok(Ok(fit)),
            Err(ChainError::Gap { have, want }) => Ok(Err(ReceiveError::Gap { have, want })),
            Err(ChainError::Sidestep { chain, seq }) => Ok(Err(ReceiveError::Sidestep { chain, seq })),
            Err(ChainError::MissingDeps(deps)) => Ok(Err(ReceiveError::MissingDeps(deps))),
            Err(ChainError::BadPrev { .. }) => Err(ReceiveError::BadPrev),
            Err(ChainError::BadDep(_)) => Err(ReceiveError::BadDep),
            Err(ChainError::Retired { .. }) => Err(ReceiveError::Retired),
            Err(ChainError::BadHeight { stated, below }) => Err(ReceiveError::BadHeight { stated, below }),
            Err(ChainError::Duplicate) => Err(ReceiveError::Duplicate),
            Err(ChainError::OtherObject) => Err(ReceiveError::NotSubscribed),
            Err(ChainError::Full) => Err(ReceiveError::Full),
        }
    }

    fn authority_stage(&self, judge: &impl Judge, record: &Verified, fit: Fit) -> Result<Standing, ReceiveError> {
        // Nothing that is held comes after what is only being admitted.
        let standing = judge.judge(record, &|id| id == record.id()).map_err(|_| ReceiveError::NotAuthorised)?;
        let before = self.chains.place(&record.header().prev);
        let on_branch = fit == Fit::Branch || before.is_some_and(|(chain, _)| self.chains.is_branch(&chain));
        Ok(if on_branch { Standing::Void } else { standing })
    }

    /// An author's knowledge of the control log never shrinks, and is never less than that of what he
    /// builds on.
    fn frontier_stage(&self, judge: &impl Judge, record: &Verified) -> Result<(), ReceiveError> {
        let header = record.header();
        let below = header.deps.iter().map(|dep| &dep.id).chain([&header.prev]);
        let mut frontiers: Vec<_> = below.filter_map(|id| self.chains.frontier(id)).collect();
        frontiers.sort_unstable();
        frontiers.dedup();
        let newer = header.control.as_slice();
        let backwards = frontiers.iter().any(|older| judge.regresses(&header.object, newer, older));
        if backwards { Err(ReceiveError::BackwardsAuthority) } else { Ok(()) }
    }

    fn content_stage(&mut self, judge: &impl Judge, record: &Verified) -> Content {
        let header = record.header();
        let content = open(record, judge.epoch_key(&header.object, &header.epoch));
        match &content {
            Content::Text(_) => {}
            Content::Locked => self.counters.no_key += 1,
            Content::Void(OpenError::Bomb { .. }) => self.counters.bomb += 1,
            Content::Void(_) => self.counters.bad_cipher += 1,
        }
        content
    }
}
