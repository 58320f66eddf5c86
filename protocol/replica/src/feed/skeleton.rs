//! The directories of the tree that a feed shows: which ids are one directory, and where it is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use meshwork_protocol::id::DirId;

use super::{
    map::FeedMap,
    operation::{Key, Name, Order},
};

/// A directory of one view. Parents have smaller ids than what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root of the folder.
    pub const ROOT: NodeId = NodeId(0);
}

/// One directory of the tree.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Directory {
    /// Its tables, rising; new keys go to the first.
    pub ids: Vec<DirId>,
    /// Parent and key name; none at the root. What it is shown as may be a conflict name.
    pub place: Option<(NodeId, Name)>,
    /// Whether a live operation places it, so that it takes its name before any file.
    pub placed: bool,
    /// Whether it (or one of its ids) is there only because something needs it.
    pub implicit: bool,
    /// By key name.
    pub children: BTreeMap<Name, NodeId>,
    /// Key names of the children that no live operation places.
    pub unplaced_children: Vec<Name>,
}

/// All directories of the tree; follows from the directory index of a map alone.
#[derive(Debug, PartialEq)]
pub(super) struct Skeleton {
    directories: Vec<Directory>,
    nodes: BTreeMap<DirId, NodeId>,
    /// Ids of which a place was refused because it would have made a cycle.
    pub refused: BTreeSet<DirId>,
}

impl Skeleton {
    /// Gives every directory its one place.
    pub fn of(map: &FeedMap) -> Skeleton {
        let mut places = Places::default();
        places.place_explicit(map);
        places.place_required(map);
        places.into_skeleton()
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..u32::try_from(self.directories.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    pub fn node_of(&self, dir: DirId) -> Option<NodeId> {
        self.nodes.get(&dir).copied()
    }

    /// A directory of this skeleton; node ids come from nowhere else.
    pub fn directory(&self, node: NodeId) -> &Directory {
        &self.directories[node.0 as usize]
    }
}

struct Place {
    key: Key,
    explicit: bool,
}

/// The one place of each id, while it is being found.
#[derive(Default)]
struct Places {
    of: BTreeMap<DirId, Place>,
    forest: Forest,
    required: BTreeSet<DirId>,
    refused: BTreeSet<DirId>,
}

impl Places {
    /// The newest placement of each id that makes no cycle with newer ones.
    fn place_explicit(&mut self, map: &FeedMap) {
        let mut placements: Vec<_> = map
            .placements()
            .filter(|(dir, _)| *dir != DirId::ROOT)
            .map(|(dir, op)| (op.order(), dir, &op.key))
            .collect();
        placements.sort_unstable_by_key(|(order, dir, _)| Reverse((*order, *dir)));
        for (_, dir, key) in placements {
            if !self.of.contains_key(&dir) && !self.place(dir, key, true) {
                self.required.insert(dir);
            }
        }
        self.required.extend(map.filled_tables());
    }

    /// Brings back what is needed and has no place: at a former place, else as recovered in the root.
    fn place_required(&mut self, map: &FeedMap) {
        self.required.remove(&DirId::ROOT);
        while !self.required.is_empty() {
            for dir in std::mem::take(&mut self.required) {
                if !self.of.contains_key(&dir) {
                    self.place_implicit(map, dir);
                }
            }
        }
    }

    fn place_implicit(&mut self, map: &FeedMap, dir: DirId) {
        for (_, _, key) in former_places(map, dir) {
            if self.place(dir, key, false) {
                if key.dir != DirId::ROOT {
                    self.required.insert(key.dir);
                }
                return;
            }
        }
        self.place(dir, &Key { dir: DirId::ROOT, name: recovered_name(dir) }, false);
    }

    /// Puts an id that has no place yet at a key, unless that makes a cycle.
    fn place(&mut self, dir: DirId, key: &Key, explicit: bool) -> bool {
        if !self.forest.join(dir, key.dir) {
            self.refused.insert(dir);
            return false;
        }
        self.of.insert(dir, Place { key: key.clone(), explicit });
        true
    }

    /// Merges ids of one parent and name, from the root down.
    fn into_skeleton(self) -> Skeleton {
        let mut children: BTreeMap<DirId, BTreeMap<Name, Vec<(DirId, bool)>>> = BTreeMap::new();
        for (dir, place) in self.of {
            let names = children.entry(place.key.dir).or_default();
            names.entry(place.key.name).or_default().push((dir, place.explicit));
        }
        let root = Directory { ids: vec![DirId::ROOT], placed: true, ..Directory::default() };
        let mut skeleton = Skeleton { directories: vec![root], nodes: BTreeMap::new(), refused: self.refused };
        skeleton.nodes.insert(DirId::ROOT, NodeId::ROOT);
        let mut queue = VecDeque::from([NodeId::ROOT]);
        while let Some(node) = queue.pop_front() {
            let mut names: BTreeMap<Name, Vec<(DirId, bool)>> = BTreeMap::new();
            for dir in &skeleton.directory(node).ids {
                for (name, ids) in children.remove(dir).unwrap_or_default() {
                    names.entry(name).or_default().extend(ids);
                }
            }
            for (name, ids) in names {
                queue.push_back(skeleton.add(node, name, &ids));
            }
        }
        skeleton
    }
}

impl Skeleton {
    fn add(&mut self, parent: NodeId, name: Name, ids: &[(DirId, bool)]) -> NodeId {
        let node = NodeId(self.directories.len() as u32);
        let placed = ids.iter().any(|(_, explicit)| *explicit);
        let mut directory = Directory {
            ids: ids.iter().map(|(dir, _)| *dir).collect(),
            place: Some((parent, name.clone())),
            placed,
            implicit: ids.iter().any(|(_, explicit)| !explicit),
            ..Directory::default()
        };
        directory.ids.sort_unstable();
        self.nodes.extend(directory.ids.iter().map(|dir| (*dir, node)));
        self.directories.push(directory);
        let above = &mut self.directories[parent.0 as usize];
        if !placed {
            above.unplaced_children.push(name.clone());
        }
        above.children.insert(name, node);
        node
    }
}

/// The places that live operations remember for an id, newest first.
fn former_places(map: &FeedMap, dir: DirId) -> Vec<(Order, Order, &Key)> {
    let mut places = Vec::new();
    for operation in map.former_of(dir) {
        let of_dir = operation.former.iter().filter(|former| former.dir == dir);
        places.extend(of_dir.map(|former| (former.order, operation.order(), &operation.key)));
    }
    places.sort_unstable_by(|left, right| right.cmp(left));
    places
}

fn recovered_name(dir: DirId) -> Name {
    Name::derived(format!("Recovered {}", dir.short()).into_bytes())
}

/// Which ids hang together: union-find over ids that have a place. The representative of an id is
/// the topmost directory above it, because an id is joined once, while it is still the top of its tree.
#[derive(Default)]
struct Forest {
    above: BTreeMap<DirId, DirId>,
}

impl Forest {
    /// Hangs `dir`, which has no parent, under `parent`; false when `parent` is inside `dir`.
    fn join(&mut self, dir: DirId, parent: DirId) -> bool {
        let top = self.top(parent);
        if top == dir {
            return false;
        }
        self.above.insert(dir, top);
        true
    }

    fn top(&mut self, dir: DirId) -> DirId {
        let mut top = dir;
        while let Some(above) = self.above.get(&top) {
            top = *above;
        }
        let mut at = dir;
        while let Some(above) = self.above.get_mut(&at) {
            at = std::mem::replace(above, top);
        }
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_never_hangs_in_itself() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|byte| DirId([byte; 16]));
        let mut forest = Forest::default();
        assert!(!forest.join(a, a));
        assert!(forest.join(a, b));
        assert!(forest.join(c, a));
        assert!(forest.join(b, d));
        assert!(!forest.join(d, c));
        assert!(!forest.join(d, b));
        assert!(forest.join(d, DirId::ROOT));
    }
}
