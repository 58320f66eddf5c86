//! Looking for directories that are not where they were. One that was moved while its old place was listed and its new
//! one was not is no deleted one: it is looked for everywhere, after it was missed, before it counts as gone.

use std::collections::BTreeSet;

use meshwork_protocol::{id::DirId, limits, time::Timestamp};

/// How often everything is looked at because directories are missed, when each time others are.
const SEARCHES: usize = 3;

/// A search for all that is missed takes at most one part in so many of the time.
const SPARING: u32 = 8;

/// What one round of looking knows of directories that are missed.
#[derive(Default)]
pub struct Lost {
    /// Missed before the round began, which looks everywhere.
    confirmed: BTreeSet<DirId>,
    /// Looking for them has gone on for long enough: what is missed is gone.
    resigned: bool,
    /// Missed in this round for the first time.
    unsure: BTreeSet<DirId>,
}

impl Lost {
    /// Whether a directory that is not found is gone.
    pub fn believes(&self, dir: DirId) -> bool {
        self.resigned || self.confirmed.contains(&dir)
    }

    /// Notes a directory that is yet to be looked for.
    pub fn miss(&mut self, dir: DirId) {
        self.unsure.insert(dir);
    }

    /// Whether any is yet to be looked for.
    pub fn is_unsure(&self) -> bool {
        !self.unsure.is_empty()
    }
}

/// The search for the directories that are missed.
#[derive(Default)]
pub struct Search {
    missed: BTreeSet<DirId>,
    /// How often they were looked for.
    tries: usize,
    due: Option<Timestamp>,
    /// When the look everywhere began that is under way.
    began: Option<Timestamp>,
}

impl Search {
    /// Whether directories are missed.
    pub fn is_open(&self) -> bool {
        !self.missed.is_empty()
    }

    /// When they are looked for next.
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Tells, once, that it is time to look everywhere.
    pub fn is_due(&mut self, now: Timestamp) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// A look everywhere begins.
    pub fn begin(&mut self, now: Timestamp) -> Lost {
        self.began = Some(now);
        self.tries += usize::from(self.is_open());
        let resigned = self.tries > SEARCHES;
        Lost { confirmed: std::mem::take(&mut self.missed), resigned, unsure: BTreeSet::new() }
    }

    /// The directories of a round are listed and compared.
    pub fn end(&mut self, now: Timestamp, lost: &Lost) {
        let took = self.began.take().map(|began| now - began).unwrap_or_default();
        self.missed.extend(&lost.unsure);
        if self.is_open() {
            self.due.get_or_insert(now + limits::SEARCH_PAUSE.max(took * SPARING));
        } else {
            (self.tries, self.due) = (0, None);
        }
    }
}
