//! From the tree that the disk shows to the one that it is to show next: which steps, in which order.
//!
//! Three trees meet here: the base (what the disk showed), the disk itself (each step says what it
//! assumes, and the disk layer compares right before it acts), and the target: the base with some keys
//! brought in line with the replica. The steps lead from the one tree to the other exactly, so that the
//! base is the target once all of them are done. Directories are brought in place first, then files are
//! renamed, filled and removed, then directories that are left over go, deepest first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::id::ContentId;

use super::{
    base::DiskBase,
    compare::{Dir, Slot, Trees},
    observed::{Batch, Expect, Fingerprint, Path, Seen, Step, Stepped},
    places::Places,
    scan::joined,
    steps::{concerns_directory, is_aside},
};
use crate::feed::{Dot, Entry, FeedMap, FileValue, Key, Name, NodeId, Operation};

/// What brings some keys in line.
#[derive(Default)]
pub struct Plan {
    /// What to do.
    pub batch: Batch,
    /// The keys.
    pub keys: BTreeSet<Key>,
    /// The keys that each step serves.
    serves: Vec<BTreeSet<Key>>,
    /// What each step changes of the files and links that are shown.
    changes: Vec<Change>,
    /// The step that puts what an operation says at a name, or makes sure that it is there.
    shown_by: BTreeMap<Dot, usize>,
    made: BTreeMap<NodeId, usize>,
    /// Files that are new at a name, with the step that tells their fingerprint, if one does.
    files: Vec<(Dir, Name, Option<usize>)>,
}

/// What a step changes of the files and links that are shown.
#[derive(Default)]
struct Change {
    /// Where.
    slot: Option<(Dir, Name)>,
    /// The operations whose file or link it takes to history.
    displaced: Vec<Arc<Operation>>,
    /// Those whose file or link it puts there.
    placed: Vec<Arc<Operation>>,
}

/// Too little is known of what is on disk to change it.
pub struct Unknown {
    /// Directories to look at.
    pub look: BTreeSet<Path>,
    /// The keys that have to wait for that.
    pub keys: BTreeSet<Key>,
}

/// What a plan is made from.
pub struct Reconcile<'a> {
    /// What the disk shows.
    pub base: &'a DiskBase,
    /// What it is to show: the base with `keys` as the replica has them.
    pub target: &'a FeedMap,
    /// The keys in which the two differ.
    pub keys: &'a BTreeSet<Key>,
    /// Contents that have been received whole.
    pub arrived: &'a BTreeSet<ContentId>,
}

/// A slot for files, while its step is looked for.
struct FileSlot<'a> {
    slot: &'a Slot,
    /// What is there now.
    old: Option<&'a FileValue>,
    /// What is to be there.
    new: Option<&'a FileValue>,
    done: bool,
}

/// When a file's step is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Add,
    Replace,
    Remove,
}

impl FileSlot<'_> {
    fn turn(&self) -> Turn {
        match (self.old, self.new) {
            (None, _) => Turn::Add,
            (Some(_), Some(_)) => Turn::Replace,
            (Some(_), None) => Turn::Remove,
        }
    }
}

impl Reconcile<'_> {
    /// The steps from the base to the target.
    ///
    /// # Errors
    /// [`Unknown`] when the disk has to be looked at first.
    pub fn plan(&self) -> Result<Plan, Unknown> {
        let trees = Trees::new(self.base.map().view(), self.target.view());
        let slots = trees.differing(self.keys);
        let mut places = Places::new(&trees, self.base);
        let mut plan = Plan { keys: self.keys.clone(), ..Plan::default() };
        let by_name: BTreeMap<(Dir, &Name), &Slot> = slots.iter().map(|slot| ((slot.dir, &slot.name), slot)).collect();
        let served = |names: BTreeSet<(Dir, Name)>| -> Vec<&Slot> {
            names.iter().filter_map(|(dir, name)| by_name.get(&(*dir, name)).copied()).collect()
        };
        for (step, names) in places.plan(&slots) {
            plan.push(step, &served(names));
        }
        plan.made = places.made.clone();
        plan.files = places.filled.iter().map(|((dir, name), step)| (*dir, name.clone(), Some(*step))).collect();
        let taken = self.taken_for_granted(&trees);
        taken.values().for_each(|slot| check(slot, &mut places, &mut plan));
        let mut files = file_slots(&slots, &places);
        plan_renames(&mut files, &mut places, &mut plan);
        // What is new comes before what is replaced, and that before what goes: so a version that loses its
        // name to another has its new one first, whenever the work is cut short.
        for turn in [Turn::Add, Turn::Replace, Turn::Remove] {
            for file in files.iter_mut().filter(|file| !file.done && file.turn() == turn) {
                self.plan_file(&trees, file, &mut places, &mut plan);
            }
        }
        for (step, names) in places.removals() {
            plan.push(step, &served(names));
        }
        if places.unknown.is_empty() {
            return Ok(plan);
        }
        let mut known = Places::new(&trees, self.base);
        let unknown = slots.iter().chain(taken.values()).filter(|slot| is_unknown(slot, &mut known));
        let keys: BTreeSet<Key> = unknown.flat_map(Slot::keys).collect();
        Err(Unknown { look: places.unknown, keys: if keys.is_empty() { self.keys.clone() } else { keys } })
    }

    /// The names that show what is new to the disk without anything being done there, for they show it already. Their
    /// files may be gone without the node having seen it yet; a removal that is found later must not be taken for one
    /// of what somebody else wrote.
    fn taken_for_granted(&self, trees: &Trees<'_>) -> BTreeMap<(Dir, Name), Slot> {
        let is_known = |it: &&Arc<Operation>| self.base.map().at(&it.key).iter().any(|known| known.dot == it.dot);
        let new = self.keys.iter().flat_map(|key| self.target.at(key)).filter(|operation| !is_known(operation));
        let slots = new.filter(|operation| operation.value.file().is_some()).filter_map(|it| trees.unchanged(it));
        slots.map(|slot| ((slot.dir, slot.name.clone()), slot)).collect()
    }

    /// The step that gives one name its content, meta data or absence.
    fn plan_file(&self, trees: &Trees<'_>, file: &mut FileSlot<'_>, places: &mut Places<'_>, plan: &mut Plan) {
        file.done = true;
        let Slot { dir, name, .. } = file.slot;
        let Some(above) = places.path(*dir) else {
            places.unknown.insert(Path::new());
            return;
        };
        let path = joined(&above, name);
        let expect = match file.old {
            None => Expect::Absent,
            Some(_) => match places.file(*dir, name) {
                Some(expect) => expect,
                None => return,
            },
        };
        let step = match file.new {
            None => Step::Remove { path, expect },
            Some(new) => match self.content_step(trees, file.old, new, path, expect) {
                Ok(step) => step,
                Err(look) => return places.unknown.extend(look),
            },
        };
        if file.old.is_some_and(|old| !old.is_symlink()) && !matches!(step, Step::SetMeta { .. }) {
            check_twin(trees, file.slot, places, plan);
        }
        let told = matches!(step, Step::PutFile { .. } | Step::SetMeta { .. }).then_some(plan.batch.steps.len());
        plan.files.push((*dir, name.clone(), told));
        plan.push(step, &[file.slot]);
    }

    fn content_step(
        &self,
        trees: &Trees<'_>,
        old: Option<&FileValue>,
        new: &FileValue,
        path: Path,
        expect: Expect,
    ) -> Result<Step, BTreeSet<Path>> {
        if let Some(target) = new.symlink_target() {
            return Ok(Step::PutSymlink { path, expect, target: target.to_vec() });
        }
        if let (Some(old), Expect::File(expect)) = (old, &expect)
            && old.same_content(new)
        {
            let (modified_ns, executable) = (new.modified_ns, new.executable);
            return Ok(Step::SetMeta { path, expect: *expect, modified_ns, executable });
        }
        let copy_from = if self.arrived.contains(&new.content) { None } else { Some(self.source(trees, new)?) };
        Ok(Step::PutFile { path, expect, value: new.clone(), copy_from })
    }

    /// An own file that has the wanted content, where it is before the first step.
    fn source(&self, trees: &Trees<'_>, value: &FileValue) -> Result<(Path, Fingerprint), BTreeSet<Path>> {
        let everywhere = || BTreeSet::from([Path::new()]);
        let (dir, name) = self.base.locate(value.content).ok_or_else(everywhere)?;
        let path = trees.old.path_of(trees.old.node_of(dir).ok_or_else(everywhere)?);
        let fingerprint = self.base.identity(dir).and_then(|parent| self.base.file(parent, &name));
        match fingerprint {
            Some(fingerprint) => Ok((joined(&path, &name), fingerprint)),
            None => Err(BTreeSet::from([path])),
        }
    }
}

/// Makes sure that a file or link is where both trees show it.
fn check(slot: &Slot, places: &mut Places<'_>, plan: &mut Plan) {
    if let (Some(above), Some(expect)) = (places.path(slot.dir), places.file(slot.dir, &slot.name)) {
        let number = plan.batch.steps.len();
        plan.push(Step::Check { path: joined(&above, &slot.name), expect }, &[slot]);
        plan.shown_by.extend(slot.new.iter().flat_map(Entry::sources).map(|operation| (operation.dot, number)));
    }
}

/// What is replaced or removed at a slot may stay only because an equal file is at another name. That it is
/// still there is checked first: otherwise the node would have given up a content that nobody replaced.
fn check_twin(trees: &Trees<'_>, slot: &Slot, places: &mut Places<'_>, plan: &mut Plan) {
    let is_checked = slot.old.iter().flat_map(Entry::sources).any(|it| plan.shown_by.contains_key(&it.dot));
    if let Some(twin) = trees.twin(slot).filter(|_| !is_checked) {
        check(&twin, places, plan);
    }
}

/// Renames and swaps: contents that only change their name.
fn plan_renames(files: &mut [FileSlot<'_>], places: &mut Places<'_>, plan: &mut Plan) {
    let mut holders: BTreeMap<ContentId, Vec<usize>> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        if let Some(value) = file.old {
            holders.entry(value.content).or_default().push(number);
        }
    }
    for to in 0..files.len() {
        let Some(value) = files[to].new.filter(|_| !files[to].done) else { continue };
        let candidates = holders.get(&value.content).map_or(&[][..], Vec::as_slice);
        let Some(from) = candidates.iter().copied().find(|from| renames(*from, to, files)) else { continue };
        let (source, target) = (files[from].slot, files[to].slot);
        if let Some(step) = rename_step(source, target, files[to].old.is_some(), places) {
            plan.files.push((target.dir, target.name.clone(), None));
            plan.files.push((source.dir, source.name.clone(), None));
            if matches!(step, Step::Move { .. }) {
                let position = plan.files.len() - 2;
                plan.files[position].2 = Some(plan.batch.steps.len());
            }
            plan.push(step, &[source, target]);
            (files[from].done, files[to].done) = (true, true);
        }
    }
}

/// The slots that hold or are to hold a file or link.
fn file_slots<'s>(slots: &'s [Slot], places: &Places<'_>) -> Vec<FileSlot<'s>> {
    let file_slot = |slot: &'s Slot| {
        let at = (slot.dir, slot.name.clone());
        let old = slot.old.as_ref().and_then(Entry::file).filter(|_| !places.cleared.contains(&at));
        let new = slot.new.as_ref().and_then(Entry::file).filter(|_| !places.filled.contains_key(&at));
        (old.is_some() || new.is_some()).then_some(FileSlot { slot, old, new, done: false })
    };
    slots.iter().filter_map(file_slot).collect()
}

/// Whether moving the file at `from` to `to`, or swapping the two, finishes both.
fn renames(from: usize, to: usize, files: &[FileSlot<'_>]) -> bool {
    let (source, target) = (&files[from], &files[to]);
    let same = |one: Option<&FileValue>, other: Option<&FileValue>| matches!((one, other), (Some(one), Some(other)) if one.same_as(other));
    let is_link = source.old.is_some_and(FileValue::is_symlink);
    if from == to || source.done || is_link || !same(source.old, target.new) {
        return false;
    }
    match (source.new, target.old) {
        (None, None) => true,
        (Some(_), Some(other)) => !other.is_symlink() && same(target.old, source.new),
        _ => false,
    }
}

fn rename_step(from: &Slot, to: &Slot, swap: bool, places: &mut Places<'_>) -> Option<Step> {
    let one = joined(&places.path(from.dir)?, &from.name);
    let other = joined(&places.path(to.dir)?, &to.name);
    let one_expect = places.file(from.dir, &from.name)?;
    if !swap {
        return Some(Step::Move { from: one, to: other, expect: one_expect });
    }
    let other_expect = places.file(to.dir, &to.name)?;
    Some(Step::Exchange { one, one_expect, other, other_expect })
}

impl Change {
    fn of(slot: &Slot) -> Change {
        let operations = |entry: &Option<Entry>| match entry {
            Some(Entry::File { sources, .. }) => sources.clone(),
            Some(Entry::Dir { .. }) | None => Vec::new(),
        };
        let slot_of = (slot.dir, slot.name.clone());
        Change { slot: Some(slot_of), displaced: operations(&slot.old), placed: operations(&slot.new) }
    }

    fn displaces(&self, operation: &Operation) -> bool {
        self.displaced.iter().any(|displaced| displaced.dot == operation.dot)
    }

    /// Whether the tree before knows the directories of what is put.
    fn is_known(&self, trees: &Trees<'_>) -> bool {
        self.placed.iter().all(|operation| trees.old.node_of(operation.key.dir).is_some())
    }

    /// Whether a map shows what is put where it is put.
    fn is_shown(&self, trees: &Trees<'_>, map: &FeedMap) -> bool {
        let Some((Dir::Old(node), name)) = &self.slot else { return false };
        let entry = map.view().entry(trees.old.id_of(*node), name);
        let sources = entry.as_ref().map_or(&[][..], Entry::sources);
        self.placed.iter().all(|operation| sources.iter().any(|source| source.dot == operation.dot))
    }
}

impl Plan {
    fn push(&mut self, step: Step, slots: &[&Slot]) {
        let change = match (&step, slots.first()) {
            (Step::PutFile { .. } | Step::PutSymlink { .. } | Step::Remove { .. }, Some(slot)) => Change::of(slot),
            _ => Change::default(),
        };
        let displaced = change.displaced.first().and_then(|operation| operation.value.file());
        self.batch.kept.push(displaced.filter(|value| !value.is_symlink()).map(|value| value.content));
        let number = self.batch.steps.len();
        let needed = change.displaced.iter().find_map(|operation| self.shown_by.get(&operation.dot));
        self.batch.needs.extend(needed.map(|needed| (number, *needed)));
        // An own file that is equal may have been moved to the name of a version that loses another one: what a move comes to
        // only a look tells, but that version goes only once it is there.
        let is_move = matches!(&step, Step::Move { .. } | Step::Exchange { .. }) && !concerns_directory(&step);
        let moved: Vec<Change> = slots.iter().filter(|_| is_move).map(|slot| Change::of(slot)).collect();
        let placed = change.placed.iter().chain(moved.iter().flat_map(|change| &change.placed));
        self.shown_by.extend(placed.map(|operation| (operation.dot, number)));
        self.changes.push(change);
        self.batch.steps.push(step);
        self.serves.push(slots.iter().flat_map(|slot| slot.keys()).collect());
    }

    /// What the disk shows of the keys whose files were touched, in a plan that was not carried through.
    pub fn shown(&self, base: &FeedMap, target: &FeedMap, done: &[bool]) -> Vec<(Key, Vec<Arc<Operation>>)> {
        let done = self.changes.iter().zip(done).filter(|(_, done)| **done);
        shown((base, target), &done.map(|(change, _)| change).collect::<Vec<_>>())
    }

    /// The keys of which it is known what they show, in a plan that was not carried through: only a look at the disk
    /// tells what steps that move things, or concern directories, came to.
    pub fn told(&self, done: &[bool]) -> Vec<Key> {
        let is_shown = |step: &Step| {
            matches!(step, Step::PutFile { .. } | Step::PutSymlink { .. } | Step::Remove { .. } | Step::Check { .. })
        };
        let steps = self.batch.steps.iter().zip(&self.serves).zip(done);
        let moved = steps.filter(|((step, _), done)| **done && !is_shown(step)).flat_map(|((_, keys), _)| keys);
        let moved: BTreeSet<&Key> = moved.collect();
        self.keys.iter().filter(|key| !moved.contains(key)).cloned().collect()
    }

    /// The keys that cannot be brought in line because steps for them were not done.
    pub fn failed(&self, done: &[bool]) -> BTreeSet<Key> {
        let failed = self.serves.iter().zip(done).filter(|(_, done)| !**done);
        let keys: BTreeSet<Key> =
            failed.flat_map(|(keys, _)| keys).filter(|key| self.keys.contains(key)).cloned().collect();
        if keys.is_empty() { self.keys.clone() } else { keys }
    }

    /// Steps that bring back what stands aside when not all steps were done.
    pub fn undo(&self, done: &[bool]) -> Vec<Step> {
        let done = || self.batch.steps.iter().zip(done).filter(|(_, done)| **done).map(|(step, _)| step);
        let mut aside: BTreeSet<&Path> = BTreeSet::new();
        for step in done() {
            match step {
                Step::Move { from, to, expect: Expect::Dir(_) } => {
                    aside.remove(from);
                    aside.extend(is_aside(to).then_some(to));
                }
                Step::RemoveDir { path, .. } => drop(aside.remove(path)),
                _ => {}
            }
        }
        if aside.is_empty() {
            return Vec::new();
        }
        // A directory that was removed from where it stood aside has nothing left to be brought back.
        let is_gone = |step: &Step| match step {
            Step::Move { from, .. } => {
                is_aside(from) && done().any(|step| matches!(step, Step::RemoveDir { path, .. } if path == from))
            }
            _ => false,
        };
        let back = done().collect::<Vec<_>>().into_iter().rev().filter_map(reversed);
        back.filter(|step| !is_gone(step)).collect()
    }

    /// All steps are done: the base becomes the target, and learns what is where.
    pub fn settle(&self, base: &mut DiskBase, target: &FeedMap, seen: &[Option<Seen>]) {
        let trees = Trees::new(base.map().view(), target.view());
        let identity = |dir: Dir| match dir {
            Dir::Old(node) => trees.old.ids_of(node).iter().find_map(|id| base.identity(*id)),
            Dir::New(node) => match self.made.get(&node).and_then(|step| seen.get(*step)) {
                Some(Some(Seen::Dir(identity))) => Some(*identity),
                _ => None,
            },
        };
        let mut bound = Vec::new();
        if !trees.are_alike() {
            for node in trees.new.nodes() {
                let ids = trees.new.ids_of(node).iter().copied();
                bound.extend(ids.map(|id| (id, identity(trees.dir(node)))));
            }
        }
        let files: Vec<_> = self
            .files
            .iter()
            .filter_map(|(dir, name, step)| {
                let fingerprint = match step.and_then(|step| seen.get(step)) {
                    Some(Some(Seen::File(fingerprint))) => Some(*fingerprint),
                    _ => None,
                };
                Some((identity(*dir)?, name.clone(), fingerprint))
            })
            .collect();
        let keys: Vec<_> = self.keys.iter().map(|key| (key.clone(), target.at(key).to_vec())).collect();
        drop(trees);
        for (key, operations) in keys {
            base.set_key(key, operations);
        }
        for (dir, identity) in bound {
            if let Some(identity) = identity {
                base.bind(dir, identity);
            }
        }
        for (parent, name, fingerprint) in files {
            base.set_file(parent, name, fingerprint);
        }
        base.forget_gone();
    }

    /// Directories in which files are of which no step told the fingerprint.
    pub fn untold(&self, stepped: &[Stepped]) -> BTreeSet<Path> {
        let swapped = self.batch.steps.iter().zip(stepped).filter_map(|(step, _)| match step {
            Step::Exchange { one, other, one_expect: Expect::File(_), .. } => Some([one.clone(), other.clone()]),
            _ => None,
        });
        let parent = |mut path: Path| {
            path.pop();
            path
        };
        swapped.flatten().map(parent).collect()
    }
}

/// What the disk shows otherwise than the base of the keys of a plan that was cut short, told by the slots that are as
/// they were to be.
pub fn left_by_half(
    base: &FeedMap,
    target: &FeedMap,
    slots: impl FnOnce(&Trees<'_>) -> Vec<Slot>,
) -> Vec<(Key, Vec<Arc<Operation>>)> {
    let trees = Trees::new(base.view(), target.view());
    let is_file = |entry: &Option<Entry>| !entry.as_ref().is_some_and(Entry::is_dir);
    let slots = slots(&trees).into_iter().filter(|slot| is_file(&slot.old) && is_file(&slot.new));
    let changes: Vec<Change> = slots.map(|slot| Change::of(&slot)).collect();
    let mut shown = shown((base, target), &changes.iter().collect::<Vec<_>>());
    shown.retain(|(key, operations)| {
        let before = base.at(key);
        before.len() != operations.len() || operations.iter().any(|it| !before.iter().any(|old| old.dot == it.dot))
    });
    shown
}

/// The base without what went, which the user must not be taken for having removed, and with what came, wherever the
/// tree then says that it is where it was put. What was to stay is not what a plan took away: where it is at a place of
/// which the tree cannot say so, or nowhere, the disk showed it all the same.
fn shown((base, target): (&FeedMap, &FeedMap), changes: &[&Change]) -> Vec<(Key, Vec<Arc<Operation>>)> {
    let trees = &Trees::new(base.view(), target.view());
    let was_to_stay = |old: &Operation| target.at(&old.key).iter().any(|it| it.dot == old.dot);
    let mut shown: BTreeMap<Key, Vec<Arc<Operation>>> = BTreeMap::new();
    let operations = changes.iter().flat_map(|change| change.displaced.iter().chain(&change.placed));
    for Operation { key, .. } in operations.map(Arc::as_ref) {
        let went = |old: &Operation| changes.iter().any(|change| change.displaces(old));
        let stays = |old: &&Arc<Operation>| !went(old) || was_to_stay(old);
        shown.entry(key.clone()).or_insert_with(|| base.at(key).iter().filter(stays).cloned().collect());
    }
    let left = shown.clone();
    let mut placed: Vec<&Change> = changes.iter().copied().filter(|change| change.is_known(trees)).collect();
    loop {
        for operation in placed.iter().flat_map(|change| &change.placed) {
            let live = shown.entry(operation.key.clone()).or_default();
            if !live.iter().any(|other| other.dot == operation.dot) {
                live.push(operation.clone());
            }
        }
        let mut map = base.clone();
        shown.iter().for_each(|(key, live)| map.set_key(key.clone(), live.clone()));
        let before = placed.len();
        placed.retain(|change| change.is_shown(trees, &map));
        if placed.len() == before {
            return shown.into_iter().collect();
        }
        shown.clone_from(&left);
    }
}

/// The step that takes a directory's move back.
fn reversed(step: &Step) -> Option<Step> {
    match step {
        Step::Move { from, to, expect: Expect::Dir(identity) } => {
            Some(Step::Move { from: to.clone(), to: from.clone(), expect: Expect::Dir(*identity) })
        }
        Step::Exchange { one, one_expect: Expect::Dir(one_is), other, other_expect: Expect::Dir(other_is) } => {
            Some(Step::Exchange {
                one: one.clone(),
                one_expect: Expect::Dir(*other_is),
                other: other.clone(),
                other_expect: Expect::Dir(*one_is),
            })
        }
        _ => None,
    }
}

/// Whether what is at a slot cannot be told from what the base knows.
fn is_unknown(slot: &Slot, known: &mut Places<'_>) -> bool {
    match &slot.old {
        Some(Entry::File { .. }) => known.file(slot.dir, &slot.name).is_none(),
        Some(Entry::Dir { node, .. }) => known.identity(Dir::Old(*node)).is_none(),
        None => false,
    }
}
