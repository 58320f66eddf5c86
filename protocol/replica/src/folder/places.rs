//! Where each directory is while a plan is made, and the steps that bring it to its place.
//!
//! Directories are brought in place from the top down, so that what one moves into is final already and
//! nothing is ever moved into itself. One that is in the way waits aside until its turn comes, or until
//! it is removed at the end.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::id::{ContentId, DirId};

use super::{
    base::DiskBase,
    compare::{Dir, Slot, Trees},
    observed::{DirIdentity, Expect, Path, Step},
    scan::joined,
};
use crate::feed::{ConflictNames, Entry, FileValue, Name, NodeId};

/// What is under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occupant {
    Nothing,
    File,
    Dir(Dir),
}

/// Where a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    At(Dir, Name),
    Aside,
}

/// Steps for directories, each with the names that it serves.
pub type DirSteps = Vec<(Step, BTreeSet<(Dir, Name)>)>;

/// The directories on disk as they are once the steps planned so far are done.
pub struct Places<'a> {
    trees: &'a Trees<'a>,
    base: &'a DiskBase,
    moved: BTreeMap<Dir, Place>,
    occupants: BTreeMap<(Dir, Name), Occupant>,
    /// Directories of the second tree that are made, with the position of the step.
    pub made: BTreeMap<NodeId, usize>,
    /// Directories whose identity is not known: their parents have to be looked at first.
    pub unknown: BTreeSet<Path>,
    /// Files that a directory step takes out of its way.
    pub cleared: BTreeSet<(Dir, Name)>,
    /// Names to which a directory step moves a file, with the position of the step.
    pub filled: BTreeMap<(Dir, Name), usize>,
    /// The names that files are new at.
    vacant: BTreeMap<(Dir, Name), FileValue>,
    /// The contents that names are to show.
    wanted: BTreeSet<ContentId>,
    /// Files that gave their name to a directory before they have their new one.
    parked: Vec<Parked>,
    steps: DirSteps,
}

/// A file that waits beside its old name.
struct Parked {
    slot: (Dir, Name),
    name: Name,
    expect: Expect,
}

impl<'a> Places<'a> {
    /// Everything is where the disk shows it.
    pub fn new(trees: &'a Trees<'a>, base: &'a DiskBase) -> Self {
        Places {
            trees,
            base,
            moved: BTreeMap::new(),
            occupants: BTreeMap::new(),
            made: BTreeMap::new(),
            unknown: BTreeSet::new(),
            cleared: BTreeSet::new(),
            filled: BTreeMap::new(),
            vacant: BTreeMap::new(),
            wanted: BTreeSet::new(),
            parked: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// The path of a directory once the steps so far are done.
    pub fn path(&self, dir: Dir) -> Option<Path> {
        let (mut names, mut at, mut left) = (Vec::new(), dir, self.trees.old.nodes().count() + self.made.len() + 1);
        while at != Dir::ROOT {
            left = left.checked_sub(1)?;
            match self.place(at)? {
                Place::At(parent, name) => {
                    names.push(name);
                    at = parent;
                }
                Place::Aside => {
                    names.extend(aside(self.any_id(at)).into_iter().rev());
                    break;
                }
            }
        }
        names.reverse();
        Some(names)
    }

    fn place(&self, dir: Dir) -> Option<Place> {
        if let Some(place) = self.moved.get(&dir) {
            return Some(place.clone());
        }
        let Dir::Old(node) = dir else { return None };
        let (parent, name) = self.trees.old.slot_of(node)?;
        Some(Place::At(Dir::Old(parent), name))
    }

    fn any_id(&self, dir: Dir) -> DirId {
        match dir {
            Dir::Old(node) => self.trees.old.id_of(node),
            Dir::New(node) => self.trees.new.id_of(node),
        }
    }

    /// Which directory on disk this is; unknown ones are noted.
    pub fn identity(&mut self, dir: Dir) -> Option<DirIdentity> {
        let Dir::Old(node) = dir else { return None };
        let ids = self.trees.old.ids_of(node);
        let identity = ids.iter().find_map(|id| self.base.identity(*id));
        if identity.is_none() {
            let mut path = self.trees.old.path_of(node);
            self.unknown.insert(path.clone());
            path.pop();
            self.unknown.insert(path);
        }
        identity
    }

    fn occupant(&self, dir: Dir, name: &Name) -> Occupant {
        if let Some(occupant) = self.occupants.get(&(dir, name.clone())) {
            return *occupant;
        }
        let Dir::Old(node) = dir else { return Occupant::Nothing };
        match self.trees.old.entry_in(node, name) {
            None => Occupant::Nothing,
            Some(Entry::File { .. }) => Occupant::File,
            Some(Entry::Dir { node, .. }) => Occupant::Dir(Dir::Old(node)),
        }
    }

    /// Plans the making and moving of the directories that these slots show differently; gives the steps.
    pub fn plan(&mut self, slots: &[Slot]) -> DirSteps {
        let wanted: BTreeMap<NodeId, (Dir, &Name)> = slots
            .iter()
            .filter_map(|slot| Some((slot.new.as_ref().and_then(Entry::node)?, (slot.dir, &slot.name))))
            .collect();
        let vacant = slots.iter().filter(|slot| slot.old.is_none());
        self.vacant = vacant
            .filter_map(|slot| Some(((slot.dir, slot.name.clone()), slot.new.as_ref().and_then(Entry::file)?.clone())))
            .collect();
        let files = slots.iter().filter_map(|slot| slot.new.as_ref().and_then(Entry::file));
        self.wanted = files.map(|file| file.content).collect();
        for (node, (parent, name)) in wanted {
            self.bring(node, parent, name);
        }
        // A directory that is to go must not be in the way of a file.
        for slot in slots.iter().filter(|slot| slot.new.as_ref().is_some_and(|new| !new.is_dir())) {
            if let Occupant::Dir(dir) = self.occupant(slot.dir, &slot.name) {
                self.set_aside(dir, (slot.dir, slot.name.clone()));
            }
        }
        std::mem::take(&mut self.steps)
    }

    fn bring(&mut self, node: NodeId, parent: Dir, name: &Name) {
        let (dir, slot) = (self.trees.dir(node), (parent, name.clone()));
        let occupant = self.occupant(parent, name);
        if occupant == Occupant::Dir(dir) {
            return;
        }
        match occupant {
            Occupant::Dir(other) if self.swaps(dir, other, &slot) => return self.exchange(dir, other, slot),
            Occupant::Dir(other) => self.set_aside(other, slot.clone()),
            Occupant::File => self.clear(&slot),
            Occupant::Nothing => {}
        }
        match dir {
            Dir::Old(_) => self.relocate(dir, Place::At(parent, name.clone()), slot),
            Dir::New(node) => self.make(node, slot),
        }
    }

    /// Whether the directory in the way wants just the place that this one leaves.
    fn swaps(&self, dir: Dir, other: Dir, slot: &(Dir, Name)) -> bool {
        let (Dir::Old(_), Dir::Old(in_the_way)) = (dir, other) else { return false };
        let Some(Place::At(parent, name)) = self.place(dir) else { return false };
        let wants = self.trees.new_of(in_the_way).and_then(|node| self.trees.new.slot_of(node));
        let wants_it = wants.is_some_and(|(want, want_name)| self.trees.dir(want) == parent && want_name == name);
        wants_it && !self.is_inside(slot.0, dir) && !self.is_inside(parent, other)
    }

    fn is_inside(&self, mut dir: Dir, top: Dir) -> bool {
        loop {
            if dir == top {
                return true;
            }
            match self.place(dir) {
                Some(Place::At(parent, _)) => dir = parent,
                _ => return false,
            }
        }
    }

    fn make(&mut self, node: NodeId, slot: (Dir, Name)) {
        let Some(above) = self.path(slot.0) else { return };
        let dir = Dir::New(node);
        self.made.insert(node, self.steps.len());
        self.moved.insert(dir, Place::At(slot.0, slot.1.clone()));
        self.occupants.insert(slot.clone(), Occupant::Dir(dir));
        self.push(Step::MakeDir { path: joined(&above, &slot.1) }, [slot]);
    }

    fn set_aside(&mut self, dir: Dir, because: (Dir, Name)) {
        self.relocate(dir, Place::Aside, because);
    }

    fn relocate(&mut self, dir: Dir, to: Place, because: (Dir, Name)) {
        let (Some(from), Some(identity)) = (self.path(dir), self.identity(dir)) else { return };
        let mut slots = BTreeSet::from([because]);
        if let Some(Place::At(parent, name)) = self.place(dir) {
            self.occupants.insert((parent, name.clone()), Occupant::Nothing);
            slots.insert((parent, name));
        }
        if let Place::At(parent, name) = &to {
            self.occupants.insert((*parent, name.clone()), Occupant::Dir(dir));
        }
        self.moved.insert(dir, to);
        let Some(to) = self.path(dir) else { return };
        self.push(Step::Move { from, to, expect: Expect::Dir(identity) }, slots);
    }

    fn exchange(&mut self, dir: Dir, other: Dir, slot: (Dir, Name)) {
        let identities = (self.identity(dir), self.identity(other));
        let (Some(Place::At(parent, name)), (Some(one_is), Some(other_is))) = (self.place(dir), identities) else {
            return;
        };
        let (Some(one), Some(other_path)) = (self.path(dir), self.path(other)) else { return };
        self.occupants.insert(slot.clone(), Occupant::Dir(dir));
        self.occupants.insert((parent, name.clone()), Occupant::Dir(other));
        self.moved.insert(dir, Place::At(slot.0, slot.1.clone()));
        self.moved.insert(other, Place::At(parent, name.clone()));
        let (one_expect, other_expect) = (Expect::Dir(one_is), Expect::Dir(other_is));
        self.push(Step::Exchange { one, one_expect, other: other_path, other_expect }, [slot, (parent, name)]);
    }

    /// Takes a file out of the way whose name a directory takes: to its new name in the same directory, if
    /// it has one. Where it is wanted elsewhere, it stays beside its old name until it is there: were it nowhere when the
    /// work is cut short, the next look would take it for removed.
    fn clear(&mut self, slot: &(Dir, Name)) {
        let expect = self.file(slot.0, &slot.1);
        let (Some(above), Some(expect)) = (self.path(slot.0), expect) else { return };
        let from = joined(&above, &slot.1);
        self.occupants.insert(slot.clone(), Occupant::Nothing);
        self.cleared.insert(slot.clone());
        let target = match (self.other_name(slot), self.spare_name(slot)) {
            (Some(target), _) => {
                self.filled.insert(target.clone(), self.steps.len());
                target
            }
            (None, Some(name)) => {
                self.parked.push(Parked { slot: slot.clone(), name: name.clone(), expect: expect.clone() });
                (slot.0, name)
            }
            (None, None) => return self.push(Step::Remove { path: from, expect }, [slot.clone()]),
        };
        self.occupants.insert(target.clone(), Occupant::File);
        self.push(Step::Move { from, to: joined(&above, &target.1), expect }, [slot.clone(), target]);
    }

    /// The name beside its own under which a file waits that is wanted elsewhere: one that neither tree has there.
    fn spare_name(&self, slot: &(Dir, Name)) -> Option<Name> {
        let (old, new) = self.trees.nodes(slot.0);
        let entry = self.trees.old.entry_in(old?, &slot.1)?;
        let value = entry.file().filter(|value| self.wanted.contains(&value.content))?;
        let mut names = ConflictNames::for_file(&slot.1, &value.content);
        let is_taken = |name: &Name| {
            self.occupant(slot.0, name) != Occupant::Nothing
                || new.is_some_and(|node| self.trees.new.entry_in(node, name).is_some())
        };
        std::iter::repeat_with(|| names.advance()).find(|name| !is_taken(name))
    }

    fn other_name(&self, slot: &(Dir, Name)) -> Option<(Dir, Name)> {
        let Dir::Old(node) = slot.0 else { return None };
        let entry = self.trees.old.entry_in(node, &slot.1)?;
        let value = entry.file().filter(|value| !value.is_symlink())?;
        let mut vacant = self.vacant.iter().filter(|(at, _)| at.0 == slot.0 && !self.filled.contains_key(*at));
        vacant.find(|(_, wanted)| wanted.same_as(value)).map(|(at, _)| at.clone())
    }

    /// What must be under the name of a file or link of the first tree; if that is not known, it is noted.
    pub fn file(&mut self, dir: Dir, name: &Name) -> Option<Expect> {
        let Dir::Old(node) = dir else { return None };
        let entry = self.trees.old.entry_in(node, name)?;
        let value = entry.file()?;
        if let Some(target) = value.symlink_target() {
            return Some(Expect::Symlink { target: target.to_vec() });
        }
        let fingerprint = self.identity(dir).and_then(|parent| self.base.file(parent, name));
        if fingerprint.is_none() {
            self.unknown.insert(self.trees.old.path_of(node));
        }
        fingerprint.map(Expect::File)
    }

    /// Steps that remove what waited beside its old name and has its new one by now, and the directories that the second
    /// tree does not have, deepest first.
    pub fn removals(&mut self) -> DirSteps {
        for Parked { slot, name, expect } in std::mem::take(&mut self.parked) {
            if let Some(above) = self.path(slot.0) {
                self.push(Step::Remove { path: joined(&above, &name), expect }, [slot]);
            }
        }
        let gone: Vec<NodeId> = self.trees.old.nodes().filter(|node| self.trees.new_of(*node).is_none()).collect();
        for node in gone.into_iter().rev() {
            let dir = Dir::Old(node);
            let slot = self.trees.old.slot_of(node).map(|(parent, name)| (Dir::Old(parent), name));
            if let (Some(path), Some(expect)) = (self.path(dir), self.identity(dir)) {
                self.push(Step::RemoveDir { path, expect }, slot);
            }
        }
        std::mem::take(&mut self.steps)
    }

    fn push(&mut self, step: Step, slots: impl IntoIterator<Item = (Dir, Name)>) {
        self.steps.push((step, slots.into_iter().collect()));
    }
}

/// Where a directory waits while another takes its name.
fn aside(dir: DirId) -> Path {
    [super::OWN_NAME.to_owned(), super::TEMP_NAME.to_owned(), format!("dir-{dir}")]
        .into_iter()
        .filter_map(|name| Name::new(name.as_bytes()).ok())
        .collect()
}
