//! The disk's jobs, each in several moments, so that users change things between them.

use meshwork_protocol::id::ContentId;
use meshwork_replica::{
    folder::{
        Input as FolderInput,
        observed::{Hashed, Path, Step, Stepped},
    },
    replica::Input,
    transfer::Outcome,
};

use super::{Event, World};
use crate::sim::{
    device::Job,
    disk::{Shown, content_of},
    planted::Planted,
};

impl World {
    pub(super) fn watch(&mut self, device: usize, life: u64) {
        if !self.is_current(device, life) {
            return;
        }
        let entry = &mut self.devices[device];
        entry.reporting = false;
        let changed = std::mem::take(&mut entry.changed);
        if !entry.mapped {
            return;
        }
        let object = self.folder;
        if std::mem::take(&mut self.devices[device].anything) {
            self.drive(device, Input::Folder { object, input: FolderInput::DirtyEverywhere });
        } else if !changed.is_empty() {
            self.drive(device, Input::Folder { object, input: FolderInput::Dirty(changed) });
        }
    }

    /// Something changed in these directories.
    pub(super) fn touched(&mut self, device: usize, dirs: impl IntoIterator<Item = Path>) {
        let slow = if self.fate.once_in(8) { 3_000 } else { 0 };
        if slow > 0 {
            self.counts.add("fault: watch delayed");
        }
        self.devices[device].changed.extend(dirs);
        if !self.calm && self.fate.once_in(25) {
            self.counts.add("fault: watch overflowed");
            self.devices[device].anything = true;
        }
        self.report(device, slow);
    }

    pub(super) fn begin_job(&mut self, device: usize, job: Job) {
        if self.devices[device].job.is_some() {
            return self.fail(format!("device {device} asks for two jobs at its disk at a time"));
        }
        if let Job::Place(batch, _) = &job {
            self.devices[device].disk.stage(&batch.steps);
        }
        self.devices[device].job = Some(job);
        self.work_later(device);
    }

    fn work_later(&mut self, device: usize) {
        let life = self.devices[device].life;
        let slow = if self.fate.once_in(10) { 300 } else { 20 };
        let delay = self.between(0, slow);
        self.at(delay, Event::Work(device, life));
    }

    pub(super) fn work(&mut self, device: usize, life: u64) {
        if !self.is_current(device, life) {
            return;
        }
        let Some(job) = self.devices[device].job.take() else {
            return;
        };
        let next = match job {
            Job::List(paths) => {
                let disk = &self.devices[device].disk;
                let listed = paths.into_iter().map(|path| (path.clone(), disk.list(&path))).collect();
                Job::Answered(Box::new(Input::Folder { object: self.folder, input: FolderInput::Listed(listed) }))
            }
            Job::Hash(mut left, mut done) => {
                let some = 1 + self.fate.below(4);
                for file in (0..some).map_while(|_| left.pop_front()).collect::<Vec<_>>() {
                    let hashed = self.hash(device, &file);
                    done.push((file, hashed));
                }
                if left.is_empty() { self.answer(FolderInput::Hashed(done)) } else { Job::Hash(left, done) }
            }
            Job::Place(batch, mut done) => {
                let some = 1 + self.fate.index(4);
                for (number, step) in batch.steps.iter().enumerate().skip(done.len()).take(some) {
                    let stepped = if batch.may_do(number, &done) {
                        let stepped = self.place(device, step);
                        self.note_taken_over(device, step, &stepped);
                        stepped
                    } else {
                        self.counts.add("place: would have given up what has no other name yet");
                        Stepped::Changed
                    };
                    done.push(stepped);
                }
                if !self.calm && !self.devices[device].disk.aside().is_empty() && self.fate.once_in(8) {
                    self.devices[device].job = Some(Job::Place(batch, done));
                    return self.crash(device);
                }
                let is_done = done.len() == batch.steps.len();
                if is_done { self.answer(FolderInput::Placed(Ok(done))) } else { Job::Place(batch, done) }
            }
            Job::Answered(input) => return self.drive(device, *input),
        };
        self.devices[device].job = Some(next);
        self.work_later(device);
    }

    fn answer(&self, input: FolderInput) -> Job {
        Job::Answered(Box::new(Input::Folder { object: self.folder, input }))
    }

    fn hash(&mut self, device: usize, file: &meshwork_replica::folder::ToHash) -> Hashed {
        if !self.calm && self.fate.once_in(30) {
            self.counts.add("fault: file unstable");
            return Hashed::Unstable;
        }
        let stale = self.has(Planted::StaleHash) && self.fate.once_in(4);
        let entry = &self.devices[device];
        let mut hashed = entry.disk.hash(file);
        if let (true, Hashed::Content { content, .. }, Some(before)) =
            (stale, &mut hashed, entry.before.get(&file.path))
        {
            *content = content_of(before);
        }
        hashed
    }

    fn place(&mut self, device: usize, step: &Step) -> Stepped {
        if self.has(Planted::SkippedStep) && self.fate.once_in(12) && matches!(step, Step::PutFile { .. }) {
            return self.devices[device].disk.pretend(step);
        }
        let path = match step {
            Step::PutFile { path, .. } | Step::PutSymlink { path, .. } | Step::Remove { path, .. } => Some(path),
            _ => None,
        };
        let before = path.and_then(|path| self.devices[device].disk.read(path));
        let outcome = self.devices[device].disk.step(step);
        let name = step_name(step);
        self.trace.line(|| format!("              device {device}: {step:?} -> {outcome:?}"));
        if outcome == Stepped::Changed {
            self.counts.add("place: not as expected");
            return outcome;
        }
        self.counts.add(name);
        if step.is_check() {
            return outcome;
        }
        if let Some(before) = before {
            self.note_displaced(device, content_of(&before));
            self.devices[device].displaced.push(content_of(&before));
        }
        let now = path.and_then(|path| self.devices[device].disk.read(path));
        self.devices[device].seen.extend(now.map(|bytes| content_of(&bytes)));
        self.touched(device, step_dirs(step));
        outcome
    }

    pub(super) fn fetch(&mut self, device: usize, life: u64, ticket: u64) {
        if !self.is_current(device, life) {
            return;
        }
        let Some(mut fetching) = self.devices[device].fetches.remove(&ticket) else {
            return;
        };
        let peer = self.index.get(&fetching.peer).copied().unwrap_or(device);
        let broken = !self.link(device, peer).alive || self.devices[peer].replica.is_none();
        let cut = broken || !self.calm && self.fate.once_in(25);
        if cut {
            self.counts.add("fault: fetch cut");
        }
        let some = 1 + self.fate.below(5);
        for file in (0..some).map_while(|_| fetching.left.pop_front()).collect::<Vec<_>>() {
            let content = file.content;
            let own = &mut self.devices[device].disk;
            if let Some(bytes) = own.kept(content) {
                own.temps.insert(content, bytes);
            }
            let here = own.temps.contains_key(&content);
            if !here && cut {
                break;
            }
            let bytes = if here { None } else { self.offered(peer, content) };
            let outcome = match &bytes {
                _ if here => Outcome::Done,
                None => Outcome::Gone,
                Some(bytes) if content_of(bytes) == content || self.has(Planted::UnverifiedContent) => Outcome::Done,
                Some(_) => Outcome::Bad,
            };
            self.counts.add(match outcome {
                Outcome::Done => "fetch: done",
                Outcome::Gone => "fetch: gone",
                Outcome::Bad | Outcome::Local => "malice: wrong content refused",
            });
            if let Some(bytes) = bytes.filter(|_| outcome == Outcome::Done) {
                self.devices[device].disk.temps.insert(content, bytes);
            }
            fetching.outcomes.push((content, outcome));
        }
        if !cut && !fetching.left.is_empty() {
            self.devices[device].fetches.insert(ticket, fetching);
            let delay = self.between(1, 30);
            return self.at(delay, Event::Fetch { device, life, ticket });
        }
        self.drive(device, Input::Fetched { ticket, outcomes: fetching.outcomes });
    }

    /// What a peer gives for a content: the file where it knows it to be, if it still has it, else a
    /// version in its history.
    pub(super) fn served(&self, peer: usize, content: ContentId) -> Option<Vec<u8>> {
        let peer = &self.devices[peer];
        let base = peer.replica.as_ref()?.folder(self.folder)?.base()?;
        let current = base.locate(content).and_then(|(dir, name)| {
            let view = base.map().view();
            let mut path = view.path_of(view.node_of(dir)?);
            path.push(name);
            peer.disk.read(&path).filter(|bytes| content_of(bytes) == content)
        });
        current.or_else(|| peer.disk.kept(content))
    }

    /// Contents under a path of a disk.
    pub(super) fn contents_under(&self, device: usize, path: &[meshwork_replica::feed::Name]) -> Vec<ContentId> {
        let tree = self.devices[device].disk.tree();
        let inside = tree.into_iter().filter(|(at, _)| at.starts_with(path));
        inside
            .filter_map(|(_, shown)| match shown {
                Shown::File(bytes) => Some(content_of(&bytes)),
                _ => None,
            })
            .collect()
    }
}

fn step_name(step: &Step) -> &'static str {
    match step {
        Step::MakeDir { .. } => "place: make directory",
        Step::RemoveDir { .. } => "place: remove directory",
        Step::Move { .. } => "place: move",
        Step::Exchange { .. } => "place: exchange",
        Step::PutFile { copy_from: Some(_), .. } => "place: copy",
        Step::PutFile { .. } => "place: file",
        Step::PutSymlink { .. } => "place: link",
        Step::Remove { .. } => "place: remove",
        Step::SetMeta { .. } => "place: attributes",
        Step::Check { .. } => "place: check",
    }
}

fn step_dirs(step: &Step) -> Vec<Path> {
    let above = |path: &Path| path.iter().take(path.len().saturating_sub(1)).cloned().collect();
    match step {
        Step::MakeDir { path }
        | Step::RemoveDir { path, .. }
        | Step::PutFile { path, .. }
        | Step::PutSymlink { path, .. }
        | Step::Remove { path, .. }
        | Step::SetMeta { path, .. } => vec![above(path)],
        Step::Move { from, to, .. } => vec![above(from), above(to)],
        Step::Exchange { one, other, .. } => vec![above(one), above(other)],
        Step::Check { .. } => Vec::new(),
    }
}
