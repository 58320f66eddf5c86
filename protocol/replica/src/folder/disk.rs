//! The folder's work at the disk: one job at a time, the user's changes first.

mod disown;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use meshwork_protocol::{id::DirId, limits, time::Timestamp};
use rand_core::CryptoRng;

use super::{
    Event, Input, Output, State,
    agree::{Agreement, agreement, shown_slots},
    base::DiskBase,
    observed::{Batch, DirIdentity, Path, Seen, Step, Stepped},
    queue::Queue,
    reconcile::{Plan, Reconcile, left_by_half},
    scan::{Difference, Findings, Found, FoundFile, Round},
    search::Search,
    steps::{concerns_directory, elsewhere, event_of, moved_directories, parents, place_of},
};
use crate::feed::{FeedMap, Key, Operation, diff};

/// Looks and plans made one after another, as long as none of them gives the disk anything to do.
const PLANS: usize = 3;

/// How often a directory that cannot go back to its place is tried to be given another.
const UNDO_TRIES: usize = 8;

/// What the disk is busy with.
enum Job {
    None,
    List(Round),
    Hash(Round),
    Author(Round, Findings),
    /// Placing, and what the base becomes when all is done.
    Place(Plan, FeedMap),
    /// Putting what the user takes over.
    Put(Vec<Step>),
    /// Bringing back what a plan had set aside that could not be carried through; how often that failed.
    Undo(Vec<Step>, usize),
}

/// The folder at the disk.
pub struct Disk {
    base: DiskBase,
    job: Job,
    dirty: BTreeSet<Path>,
    /// All directories are to be looked at: those that there are when the look begins, for work that goes on may
    /// still bring new ones.
    everywhere: bool,
    again: Option<(Timestamp, BTreeSet<Path>)>,
    search: Search,
    queue: Queue,
    /// Keys under which the disk shows what does not count any more, and is not gone.
    disowned: BTreeSet<Key>,
    /// What is to be put as if the user did so.
    puts: VecDeque<Batch>,
    /// Nothing has changed since a plan found nothing to do.
    fruitless: bool,
    /// The whole directory has been looked at once.
    looked: bool,
    stopped: Option<String>,
    progress: (usize, usize),
}

impl Disk {
    pub fn new(base: DiskBase) -> Self {
        // Of plans that were cut short it is found out first what they came to.
        let everywhere = base.intents().next().is_some();
        Disk {
            base,
            job: Job::None,
            dirty: BTreeSet::from([Path::new()]),
            everywhere,
            again: None,
            search: Search::default(),
            queue: Queue::default(),
            disowned: BTreeSet::new(),
            puts: VecDeque::new(),
            fruitless: false,
            looked: false,
            stopped: None,
            progress: (0, 0),
        }
    }

    pub fn base(&self) -> &DiskBase {
        &self.base
    }

    pub fn state(&self) -> State {
        let names = self.queue.len();
        match (&self.stopped, &self.job) {
            (Some(reason), _) => State::Stopped { reason: reason.clone() },
            (None, Job::List(_) | Job::Hash(_) | Job::Author(..)) => {
                State::Scanning { left: self.progress.0, total: self.progress.1 }
            }
            (None, Job::None) if names == 0 && self.dirty.is_empty() && !self.search.is_open() => State::Idle,
            (None, _) => State::Syncing { names },
        }
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        let again = self.again.as_ref().map(|(due, _)| *due);
        self.queue.next_deadline().into_iter().chain(again).chain(self.search.due()).min()
    }

    /// Compares base and replica at every key of either; at start.
    pub fn compare_all(&mut self, feed: &FeedMap) {
        let keys: BTreeSet<Key> = feed.keys().chain(self.base.map().keys()).cloned().collect();
        self.compare(feed, keys);
    }

    /// Notes which keys differ between base and replica.
    pub fn compare(&mut self, feed: &FeedMap, keys: impl IntoIterator<Item = Key>) {
        self.fruitless = false;
        for key in keys {
            self.queue.note(&self.base, feed, key);
        }
    }

    pub fn replay_own(&mut self, operations: &[Arc<Operation>]) {
        self.base.apply_own(operations);
    }

    pub fn handle(&mut self, now: Timestamp, rng: &mut impl CryptoRng, feed: &FeedMap, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Dirty(paths) => self.dirty.extend(paths),
            Input::DirtyEverywhere => self.look_everywhere(),
            Input::Listed(results) => self.listed(now, rng, feed, results, &mut out),
            Input::Hashed(results) => {
                if let Job::Hash(mut round) = std::mem::replace(&mut self.job, Job::None) {
                    round.hashed(&self.base, results, rng);
                    self.conclude(feed, round, &mut out);
                }
            }
            Input::Authored(operations) => self.authored(now, feed, &operations, &mut out),
            Input::AuthorFailed(reason) => {
                // Nothing was recorded, so the same is found again when the disk is next looked at.
                self.job = Job::None;
                out.push(Output::Event(Event::Problem { path: Path::new(), reason }));
                self.look_again(now + limits::FETCH_PAUSE_MAX, [Path::new()]);
            }
            Input::Placed(outcome) => self.placed(now, feed, outcome, &mut out),
            Input::Arrived(content) => {
                self.fruitless = false;
                self.queue.arrive(&self.base, feed, content);
            }
            Input::Put(batch) => self.puts.push_back(batch),
            Input::Tick => self.tick(now, feed),
        }
        out.extend(self.advance(now, feed));
        out
    }

    pub fn look_everywhere(&mut self) {
        self.everywhere = true;
        self.dirty.insert(Path::new());
    }

    /// A look at the directories in which something changed.
    fn next_round(&mut self, now: Timestamp) -> Round {
        let mut dirty = std::mem::take(&mut self.dirty);
        if !std::mem::take(&mut self.everywhere) {
            return Round::new(dirty);
        }
        let view = self.base.map().view();
        dirty.extend(view.nodes().map(|node| view.path_of(node)));
        Round::everywhere(dirty, self.search.begin(now))
    }

    /// Looks into directories that were moved and all below them: what changed there just before may be
    /// reported under the old name.
    fn look_within(&mut self, tops: &[&Path]) {
        if !tops.is_empty() {
            let view = self.base.map().view();
            let paths = view.nodes().map(|node| view.path_of(node));
            self.dirty.extend(paths.filter(|path| tops.iter().any(|top| path.starts_with(top))));
        }
    }

    fn look_again(&mut self, due: Timestamp, paths: impl IntoIterator<Item = Path>) {
        self.again.get_or_insert_with(|| (due, BTreeSet::new())).1.extend(paths);
    }

    fn tick(&mut self, now: Timestamp, feed: &FeedMap) {
        if let Some((_, paths)) = self.again.take_if(|(due, _)| *due <= now) {
            self.dirty.extend(paths);
        }
        if self.search.is_due(now) {
            self.look_everywhere();
        }
        if self.queue.wake(now, &self.base, feed) {
            self.fruitless = false;
        }
    }

    /// Starts the next job when the disk is free.
    pub fn advance(&mut self, now: Timestamp, feed: &FeedMap) -> Vec<Output> {
        let mut out = Vec::new();
        for _ in 0..PLANS {
            for content in self.base.take_fresh() {
                self.fruitless &= !self.queue.found(&self.base, feed, content);
            }
            if !matches!(self.job, Job::None) {
                break;
            }
            if !self.disowned.is_empty() {
                self.forget_disowned(feed);
            }
            if !self.dirty.is_empty() {
                let mut round = self.next_round(now);
                out.push(Output::List(round.next_listings()));
                self.job = Job::List(round);
            } else if let Some(batch) = self.puts.pop_front() {
                self.job = Job::Put(batch.steps.clone());
                self.place(batch, &mut out);
            } else if self.stopped.is_none() && self.queue.is_ready() && !self.fruitless {
                self.reconcile(now, feed, &mut out);
            }
        }
        // What is on disk already need not be fetched, so the first look comes before the first question.
        self.looked |= matches!(self.job, Job::None | Job::Place(..));
        if self.looked {
            let (wanted, unwanted) = self.queue.take_wants();
            if !wanted.is_empty() {
                out.push(Output::Want(wanted));
            }
            if !unwanted.is_empty() {
                out.push(Output::Unwant(unwanted));
            }
        }
        self.store(&mut out);
        out
    }

    fn store(&mut self, out: &mut Vec<Output>) {
        let changes = self.base.take_changes();
        if !changes.is_empty() {
            out.push(Output::Base(changes));
        }
    }

    /// Has the disk changed, once all is stored that is known of it by now: what a crash leaves is then told from what
    /// the user did.
    fn place(&mut self, batch: Batch, out: &mut Vec<Output>) {
        self.store(out);
        out.push(Output::Place(batch));
    }

    fn listed(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        feed: &FeedMap,
        results: Vec<super::ListResult>,
        out: &mut Vec<Output>,
    ) {
        let Job::List(mut round) = std::mem::replace(&mut self.job, Job::None) else {
            return;
        };
        if let Err(reason) = round.listed(&self.base, results) {
            if self.stopped.as_ref() != Some(&reason) {
                out.push(Output::Event(Event::Stopped { reason: reason.clone() }));
            }
            self.stopped = Some(reason);
            return;
        }
        if self.stopped.take().is_some() {
            out.push(Output::Event(Event::Resumed));
            self.look_everywhere();
        }
        let more = round.next_listings();
        if !more.is_empty() {
            out.push(Output::List(more));
            self.job = Job::List(round);
            return;
        }
        let intended = self.base.intended();
        let others: Vec<_> = intended.iter().chain([feed]).map(FeedMap::view).collect();
        round.compare(&self.base, &others, rng);
        self.search.end(now, round.lost());
        self.hash_or_conclude(feed, round, out);
    }

    fn hash_or_conclude(&mut self, feed: &FeedMap, mut round: Round, out: &mut Vec<Output>) {
        let batch = round.next_hashes();
        self.progress = round.progress();
        if batch.is_empty() {
            return self.conclude(feed, round, out);
        }
        out.push(Output::Hash(batch));
        self.job = Job::Hash(round);
    }

    /// Turns what a batch found into operations to be signed.
    fn conclude(&mut self, feed: &FeedMap, mut round: Round, out: &mut Vec<Output>) {
        let mut findings = round.take_findings();
        for (path, reason) in findings.problems.drain(..) {
            out.push(Output::Event(Event::Problem { path, reason }));
        }
        // What a plan has left is told first, whatever has become of what it was to bring: it is not the user's work.
        for shown in self.base.intended().iter().chain([feed]) {
            self.name_by_standing_ids(&round, &mut findings.differences);
            let agreement = agreement(self.base.map(), shown, &findings.differences);
            self.adopt(shown, feed, agreement, (&mut round, &mut findings));
        }
        if round.is_complete() && self.take_half(feed, &findings.differences) {
            return self.look_everywhere();
        }
        self.name_by_standing_ids(&round, &mut findings.differences);
        self.recognise(&findings.dirs);
        let edits = findings.edits(&self.base);
        match diff(self.base.map(), feed, &edits) {
            Ok(operations) => {
                if round.is_complete() {
                    self.end_doubt(feed, &round);
                }
                out.push(Output::Author(operations));
                self.job = Job::Author(round, findings);
            }
            // The tree changed between two listings of the round: look at all of it again.
            Err(error) => {
                let path = Path::new();
                out.push(Output::Event(Event::Problem { path, reason: format!("the folder is changing: {error}") }));
                self.look_everywhere();
            }
        }
    }

    /// Takes over what the replica has as the disk shows it, or what a plan was to make of it: that is nothing new, and
    /// the base learns it.
    fn adopt(
        &mut self,
        shown: &FeedMap,
        feed: &FeedMap,
        agreement: Agreement,
        (round, findings): (&mut Round, &mut Findings),
    ) {
        for key in &agreement.keys {
            self.base.set_key(key.clone(), shown.at(key).to_vec());
        }
        self.compare(feed, agreement.keys);
        let view = self.base.map().view();
        let slot = |it: &Difference| view.node_of(it.at).map(|node| (node, it.name.clone()));
        let is_there = |it: &&Difference| !matches!(it.now, Found::Absent);
        // Directories that were two are one now: what is absent in one of them may be there in the other.
        let there: BTreeSet<_> = findings.differences.iter().filter(is_there).filter_map(slot).collect();
        let (mut rest, mut held) = (Vec::new(), Vec::new());
        for (number, difference) in std::mem::take(&mut findings.differences).into_iter().enumerate() {
            let is_elsewhere = !is_there(&&difference) && slot(&difference).is_some_and(|slot| there.contains(&slot));
            if agreement.settled.contains(&number) || is_elsewhere {
                continue;
            }
            // The other name of a conflict may be among the files that are still to be read.
            let wait = agreement.partial.contains(&number) && !round.is_complete();
            if wait { held.push(difference) } else { rest.push(difference) }
        }
        drop(view);
        findings.differences = rest;
        let identity =
            |dir: DirId| findings.dirs.iter().find(|(known, _)| *known == dir).map(|(_, identity)| *identity);
        let slots: BTreeSet<_> = held
            .iter()
            .filter_map(|d| Some((identity(d.at).or_else(|| self.base.identity(d.at))?, d.name.clone())))
            .collect();
        let of_held = |file: &FoundFile| slots.contains(&(file.0, file.1.clone()));
        let (files, other) = std::mem::take(&mut findings.files).into_iter().partition(of_held);
        findings.files = other;
        round.hold(held, files);
    }

    /// Takes in what half a plan has left. Tells whether there is any: then what else differs is to be compared with that.
    ///
    /// A file that was put at another name before it was removed from the old one is found at both then, and counts at the
    /// old one as the user's copy: rather that than as a version which the user put in the place of another.
    fn take_half(&mut self, feed: &FeedMap, differences: &[Difference]) -> bool {
        let Some(intended) = self.base.intended() else { return false };
        let keys: BTreeSet<Key> = self.base.intents().cloned().collect();
        let left = left_by_half(self.base.map(), &intended, |trees| shown_slots(trees, &keys, differences));
        for (key, operations) in &left {
            self.base.set_key(key.clone(), operations.clone());
        }
        let is_any = !left.is_empty();
        self.compare(feed, left.into_iter().map(|(key, _)| key));
        is_any
    }

    /// A look at the disk has told what earlier plans came to: what differs from that by now is the user's work.
    fn end_doubt(&mut self, feed: &FeedMap, round: &Round) {
        let view = self.base.map().view();
        let known: Vec<Key> = self.base.intents().filter(|key| round.knows(&view, key)).cloned().collect();
        drop(view);
        self.base.forget_intents(&known);
        self.compare(feed, known);
    }

    /// A directory of several ids may have lost the one that it was listed by: then it goes by another.
    fn name_by_standing_ids(&self, round: &Round, differences: &mut [Difference]) {
        let view = self.base.map().view();
        for dir in differences.iter_mut().flat_map(Difference::dirs_mut) {
            if view.node_of(*dir).is_some() {
                continue;
            }
            let identity = round.identity(*dir).or_else(|| self.base.identity(*dir));
            let mut others = identity.into_iter().flat_map(|identity| self.base.ids_of(identity));
            if let Some(other) = others.find(|other| view.node_of(*other).is_some()) {
                *dir = other;
            }
        }
    }

    /// Remembers which directory on disk is which; a directory of several ids is known by each of them.
    fn recognise(&mut self, dirs: &[(DirId, DirIdentity)]) {
        for (dir, identity) in dirs {
            let view = self.base.map().view();
            let ids = view.node_of(*dir).map(|node| view.ids_of(node).to_vec()).unwrap_or_default();
            ids.into_iter().for_each(|id| self.base.bind(id, *identity));
        }
    }

    fn authored(&mut self, now: Timestamp, feed: &FeedMap, operations: &[Arc<Operation>], out: &mut Vec<Output>) {
        let Job::Author(round, findings) = std::mem::replace(&mut self.job, Job::None) else {
            return;
        };
        self.base.apply_own(operations);
        self.recognise(&findings.dirs);
        for (parent, name, fingerprint) in findings.files {
            self.base.set_file(parent, name, fingerprint);
        }
        self.base.forget_gone();
        self.compare(feed, operations.iter().map(|op| op.key.clone()).collect::<Vec<_>>());
        if !operations.is_empty() {
            out.push(Output::Event(Event::Recorded { operations: operations.len() }));
        }
        if !findings.again.is_empty() {
            self.look_again(now + limits::UNSTABLE_PAUSE, findings.again);
        }
        if round.is_complete() {
            self.progress = (0, 0);
        } else {
            self.hash_or_conclude(feed, round, out);
        }
    }

    fn reconcile(&mut self, now: Timestamp, feed: &FeedMap, out: &mut Vec<Output>) {
        let keys = self.queue.choose(&self.base, feed);
        if keys.is_empty() {
            self.fruitless = true;
            return;
        }
        let doubtful: BTreeSet<Key> = self.base.intents().filter(|key| keys.contains(key)).cloned().collect();
        if !doubtful.is_empty() {
            return self.queue.defer(now, doubtful);
        }
        let target = self.base.map().with(feed, &keys);
        let (base, arrived) = (&self.base, self.queue.arrived());
        match (Reconcile { base, target: &target, keys: &keys, arrived }).plan() {
            Ok(plan) if plan.batch.steps.is_empty() => self.settle(feed, &plan, &target, &[]),
            Ok(plan) => {
                if !plan.batch.steps.iter().all(Step::is_check) {
                    self.base.intend(&target, &plan.keys);
                }
                self.place(plan.batch.clone(), out);
                self.job = Job::Place(plan, target);
            }
            Err(unknown) => {
                self.queue.defer(now, unknown.keys);
                self.dirty.extend(unknown.look);
            }
        }
    }

    fn settle(&mut self, feed: &FeedMap, plan: &Plan, target: &FeedMap, seen: &[Option<Seen>]) {
        plan.settle(&mut self.base, target, seen);
        self.base.forget_intents(&plan.keys);
        self.compare(feed, plan.keys.iter().cloned());
    }

    fn placed(&mut self, now: Timestamp, feed: &FeedMap, outcome: Result<Vec<Stepped>, String>, out: &mut Vec<Output>) {
        match std::mem::replace(&mut self.job, Job::None) {
            Job::Place(plan, target) => match outcome {
                Ok(stepped) => self.stepped(now, feed, (plan, target), stepped, out),
                Err(reason) => {
                    out.push(Output::Event(Event::Problem { path: Path::new(), reason }));
                    plan.batch.steps.iter().for_each(|step| self.use_up(step));
                    self.queue.defer(now, plan.keys);
                    self.look_everywhere();
                }
            },
            Job::Put(steps) => self.put(steps, outcome, out),
            Job::Undo(steps, tries) => {
                let outcomes = outcome.unwrap_or_default();
                let done = |number: usize| matches!(outcomes.get(number), Some(Stepped::Done(_)));
                let left = steps.iter().enumerate().filter(|(number, _)| !done(*number)).map(|(_, step)| step);
                self.bring_back(elsewhere(&left.collect::<Vec<_>>(), tries), tries + 1, out);
                self.look_everywhere();
            }
            other => self.job = other,
        }
    }

    /// All steps done: the base is the target. Else nothing is taken for granted: the disk is looked at,
    /// and what it shows as the replica has it is adopted.
    fn stepped(
        &mut self,
        now: Timestamp,
        feed: &FeedMap,
        (plan, target): (Plan, FeedMap),
        stepped: Vec<Stepped>,
        out: &mut Vec<Output>,
    ) {
        let done: Vec<bool> = stepped.iter().map(|outcome| matches!(outcome, Stepped::Done(_))).collect();
        for (step, outcome) in plan.batch.steps.iter().zip(&stepped) {
            self.use_up(step);
            match outcome {
                Stepped::Done(_) => out.extend(event_of(step).map(Output::Event)),
                Stepped::Changed => {}
                Stepped::Refused { reason } => {
                    let (path, reason) = (place_of(step).clone(), reason.clone());
                    out.push(Output::Event(Event::Problem { path, reason }));
                }
            }
        }
        if done.iter().all(|done| *done) {
            self.dirty.extend(plan.untold(&stepped));
            let seen: Vec<Option<Seen>> = stepped.into_iter().map(seen).collect();
            self.settle(feed, &plan, &target, &seen);
            return self.look_within(&plan.batch.steps.iter().flat_map(moved_directories).collect::<Vec<_>>());
        }
        for (key, shown) in plan.shown(self.base.map(), &target, &done) {
            self.base.set_key(key.clone(), shown);
            self.compare(feed, [key]);
        }
        self.base.forget_intents(&plan.told(&done));
        self.queue.defer(now, plan.failed(&done));
        if plan.batch.steps.iter().any(concerns_directory) {
            self.look_everywhere();
        }
        self.dirty.extend(plan.batch.steps.iter().flat_map(parents));
        self.bring_back(plan.undo(&done), 0, out);
    }

    /// What was put is looked for as any change of the user's is.
    fn put(&mut self, steps: Vec<Step>, outcome: Result<Vec<Stepped>, String>, out: &mut Vec<Output>) {
        let stepped = outcome.unwrap_or_else(|reason| vec![Stepped::Refused { reason }; steps.len()]);
        let mut failed = Vec::new();
        for (step, outcome) in steps.iter().zip(stepped) {
            match outcome {
                Stepped::Done(_) => out.extend(event_of(step).map(Output::Event)),
                Stepped::Changed => failed.push((place_of(step).clone(), "something else came there".to_owned())),
                Stepped::Refused { reason } => failed.push((place_of(step).clone(), reason)),
            }
        }
        self.dirty.extend(steps.iter().flat_map(parents));
        out.push(Output::Event(Event::Put { failed }));
    }

    /// Nothing may stay aside: the next look would take it for deleted.
    fn bring_back(&mut self, steps: Vec<Step>, tries: usize, out: &mut Vec<Output>) {
        if steps.is_empty() {
            return;
        }
        if tries > UNDO_TRIES {
            let reason = "a directory could not be brought back; it is when the node starts again".to_owned();
            return out.push(Output::Event(Event::Problem { path: Path::new(), reason }));
        }
        self.place(Batch { steps: steps.clone(), ..Batch::default() }, out);
        self.job = Job::Undo(steps, tries);
    }

    /// A received file that was renamed into place is no longer among the received ones; one that could
    /// not be placed is looked for again.
    fn use_up(&mut self, step: &Step) {
        if let Step::PutFile { value, copy_from: None, .. } = step {
            self.queue.use_up(value.content);
        }
    }
}

fn seen(stepped: Stepped) -> Option<Seen> {
    match stepped {
        Stepped::Done(seen) => seen,
        Stepped::Changed | Stepped::Refused { .. } => None,
    }
}
