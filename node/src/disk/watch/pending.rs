//! What has changed since the last report, within bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use meshwork_replica::folder::observed::Path;

/// Directories or files, in number, that are remembered one by one; with more, everything is looked at.
const MAX_PATHS: usize = 4_096;
/// How long a file that was only made may take to be closed before it is reported: a file made by a
/// link or of no bytes is never closed after writing.
const MADE: Duration = Duration::from_millis(20);
/// How often a file that is held open and written to is reported.
const WRITING: Duration = Duration::from_secs(1);

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Directories in which something changed.
    pub dirs: BTreeSet<Path>,
    /// Directories that came: what is in them is to be looked at too, at every depth.
    pub trees: BTreeSet<Path>,
    /// Look everywhere.
    pub rescan: bool,
    /// Something for the user, said once: a sentence.
    pub notice: Option<String>,
}

impl Report {
    /// Whether there is nothing to do or to tell.
    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.trees.is_empty() && !self.rescan && self.notice.is_none()
    }
}

/// How soon a change is to be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// At once.
    Now,
    /// Soon, if the file is not closed before.
    Made,
    /// Now and then.
    Writing,
}

/// The state between the system's events and the reports.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    report: Report,
    /// Files not reported yet, with the time when they will be.
    open: BTreeMap<Path, Instant>,
    stopped: bool,
    fallen_back: bool,
}

impl State {
    fn overflow(&mut self) {
        if self.report.dirs.len() + self.report.trees.len() + self.open.len() > MAX_PATHS {
            self.report.dirs.clear();
            self.report.trees.clear();
            self.open.clear();
            self.report.rescan = true;
        }
    }

    /// Moves files whose time has come to the report; gives the next time.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        let due: Vec<Path> = self.open.iter().filter(|(_, at)| **at <= now).map(|(path, _)| path.clone()).collect();
        for mut path in due {
            self.open.remove(&path);
            path.pop();
            self.report.dirs.insert(path);
        }
        self.open.values().min().copied()
    }
}

impl Shared {
    /// Notes that the file or directory at `path` changed: its directory is to be looked at.
    pub fn note(&self, mut path: Path, urgency: Urgency) {
        let mut state = self.lock();
        match urgency {
            Urgency::Now => {
                state.open.remove(&path);
                path.pop();
                if !state.report.rescan {
                    state.report.dirs.insert(path);
                }
            }
            Urgency::Made => drop(state.open.entry(path).or_insert_with(|| Instant::now() + MADE)),
            Urgency::Writing => drop(state.open.entry(path).or_insert_with(|| Instant::now() + WRITING)),
        }
        state.overflow();
        self.changed.notify_one();
    }

    /// Notes that a directory came to `path`.
    pub fn note_tree(&self, path: Path) {
        let mut state = self.lock();
        let mut parent = path.clone();
        parent.pop();
        if !state.report.rescan {
            state.report.dirs.insert(parent);
            state.report.trees.insert(path);
        }
        state.overflow();
        self.changed.notify_one();
    }

    /// Notes that events were lost.
    pub fn rescan(&self) {
        let mut state = self.lock();
        state.report.dirs.clear();
        state.report.trees.clear();
        state.report.rescan = true;
        self.changed.notify_one();
    }

    /// Notes that the system does not watch all of the folder, and why.
    pub fn fall_back(&self, reason: &str) {
        let mut state = self.lock();
        if !state.fallen_back {
            state.fallen_back = true;
            state.report.rescan = true;
            state.report.notice =
                Some(format!("changes in this folder are looked for every 10 seconds only: {reason}"));
        }
        self.changed.notify_one();
    }

    /// Whether [`Shared::fall_back`] was called.
    pub fn has_fallen_back(&self) -> bool {
        self.lock().fallen_back
    }

    /// Ends [`Shared::wait`].
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Adds a report that could not be delivered to what came since.
    pub fn put_back(&self, mut report: Report) {
        let mut state = self.lock();
        state.report.dirs.append(&mut report.dirs);
        state.report.trees.append(&mut report.trees);
        state.report.rescan |= report.rescan;
        state.report.notice = state.report.notice.take().or(report.notice);
        state.overflow();
    }

    /// Waits until there is something to report (not before `not_before`) or `poll` has come, and
    /// takes it. `None` after [`Shared::stop`].
    pub fn wait(&self, not_before: Option<Instant>, poll: Option<Instant>) -> Option<Report> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let now = Instant::now();
            let next_open = state.due(now);
            let held_back = not_before.filter(|at| *at > now);
            let ready = !state.report.is_empty() || poll.is_some_and(|at| at <= now);
            if ready && held_back.is_none() {
                return Some(std::mem::take(&mut state.report));
            }
            let wake =
                [next_open, poll, held_back.filter(|_| ready)].into_iter().flatten().filter(|at| *at > now).min();
            state = match wake {
                Some(at) => self.changed.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
