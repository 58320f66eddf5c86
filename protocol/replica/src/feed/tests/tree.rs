//! A tree that a user edits, and what he did to it as edits of a view.

use std::collections::BTreeMap;

use meshwork_protocol::id::{ChunkId, ContentId, DirId, FileId};

use crate::feed::{ChunkRef, Edit, Edits, Entry, FileKind, FileValue, Manifest, Name, NodeRef, Now, Unknown, View};

pub fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

/// A file of one byte with the content `number`; the tag in conflict names is `tag`.
pub fn tagged_file(tag: u32, number: u32) -> FileValue {
    let mut content = [0; 32];
    content[..4].copy_from_slice(&tag.to_be_bytes());
    content[28..].copy_from_slice(&number.to_be_bytes());
    FileValue {
        file: FileId([7; 16]),
        kind: FileKind::Regular {
            manifest: Manifest::Inline { average_log2: 16, chunks: vec![ChunkRef { id: ChunkId(content), len: 1 }] },
        },
        content: ContentId(content),
        size: 1,
        modified_ns: 0,
        executable: false,
        unknown: Unknown::default(),
    }
}

pub fn file(number: u32) -> FileValue {
    tagged_file(number, number)
}

#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    File(FileValue),
    Dir(usize),
}

/// What a path shows, without what does not count.
#[derive(Debug, Clone, PartialEq)]
pub enum Shows {
    Dir,
    File { content: ContentId, symlink: bool, modified_ns: i64, executable: bool },
}

pub type Flat = BTreeMap<Vec<Name>, Shows>;

fn shows(file: &FileValue) -> Shows {
    let symlink = file.symlink_target().is_some();
    Shows::File { content: file.content, symlink, modified_ns: file.modified_ns, executable: file.executable }
}

pub fn flat(view: &View<'_>) -> Flat {
    let entries = view.flatten().into_iter();
    entries.map(|(path, entry)| (path, entry.file().map_or(Shows::Dir, shows))).collect()
}

#[derive(Debug, Clone)]
pub struct Tree {
    pub nodes: Vec<BTreeMap<Name, Item>>,
    known: Vec<DirId>,
    pub new_dirs: Vec<DirId>,
}

impl Tree {
    pub fn of(view: &View<'_>) -> Tree {
        let nodes: Vec<_> = view.nodes().collect();
        let position = |node| nodes.iter().position(|other| *other == node).unwrap();
        let item = |entry: Entry| match entry {
            Entry::File { value, .. } => Item::File(value),
            Entry::Dir { node, .. } => Item::Dir(position(node)),
        };
        let page = |node| view.page(node).into_iter().map(|(name, entry)| (name, item(entry))).collect();
        Tree {
            nodes: nodes.iter().map(|node| page(*node)).collect(),
            // Any id will do; the last one, because the first one is the obvious choice.
            known: nodes.iter().map(|node| *view.ids_of(*node).last().unwrap()).collect(),
            new_dirs: Vec::new(),
        }
    }

    pub fn reached(&self) -> Vec<bool> {
        self.inside(0)
    }

    /// Which nodes are `top` or in it.
    pub fn inside(&self, top: usize) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        let mut pending = vec![top];
        while let Some(node) = pending.pop() {
            if !std::mem::replace(&mut reached[node], true) {
                let dirs = self.nodes[node].values().filter_map(|item| match item {
                    Item::Dir(node) => Some(*node),
                    Item::File(_) => None,
                });
                pending.extend(dirs);
            }
        }
        reached
    }

    pub fn flat(&self) -> Flat {
        let mut flat = Flat::new();
        let mut pending = vec![(0, Vec::new())];
        while let Some((node, above)) = pending.pop() {
            for (name, item) in &self.nodes[node] {
                let path: Vec<Name> = above.iter().chain([name]).cloned().collect();
                match item {
                    Item::File(file) => flat.insert(path, shows(file)),
                    Item::Dir(node) => {
                        pending.push((*node, path.clone()));
                        flat.insert(path, Shows::Dir)
                    }
                };
            }
        }
        flat
    }

    /// What has to be done to `viewed` to get this tree.
    pub fn edits(&self, viewed: &Tree) -> Edits {
        let reached = self.reached();
        let mut edits = Edits { edits: Vec::new(), new_dirs: self.new_dirs.clone() };
        let nothing = BTreeMap::new();
        for (node, names) in self.nodes.iter().enumerate().filter(|(node, _)| reached[*node]) {
            let before = viewed.nodes.get(node).unwrap_or(&nothing);
            let all: std::collections::BTreeSet<&Name> = before.keys().chain(names.keys()).collect();
            for name in all.into_iter().filter(|name| before.get(*name) != names.get(*name)) {
                let now = match names.get(name) {
                    None => Now::Absent,
                    Some(Item::File(file)) => Now::File(file.clone()),
                    Some(Item::Dir(node)) => Now::Dir(self.node_ref(*node)),
                };
                edits.edits.push(Edit { at: self.node_ref(node), name: name.clone(), now });
            }
        }
        edits
    }

    fn node_ref(&self, node: usize) -> NodeRef {
        self.known.get(node).map_or_else(|| NodeRef::New(node - self.known.len()), |dir| NodeRef::Known(*dir))
    }

    /// The directory at a path of names separated by `/`; empty for the root.
    pub fn at(&self, path: &str) -> usize {
        path.split('/').filter(|part| !part.is_empty()).fold(0, |node, part| match self.nodes[node].get(&name(part)) {
            Some(Item::Dir(node)) => *node,
            other => panic!("{part} of {path} is {other:?}"),
        })
    }

    fn slot(&self, path: &str) -> (usize, Name) {
        let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
        (self.at(above), name(last))
    }

    pub fn write(&mut self, path: &str, file: FileValue) {
        let (node, name) = self.slot(path);
        self.nodes[node].insert(name, Item::File(file));
    }

    pub fn remove(&mut self, path: &str) -> Item {
        let (node, name) = self.slot(path);
        self.nodes[node].remove(&name).unwrap()
    }

    pub fn make_dir(&mut self, path: &str, dir: DirId) {
        let (node, name) = self.slot(path);
        self.add_dir(node, name, dir);
    }

    pub fn add_dir(&mut self, node: usize, name: Name, dir: DirId) {
        self.new_dirs.push(dir);
        self.nodes.push(BTreeMap::new());
        let new = self.nodes.len() - 1;
        self.nodes[node].insert(name, Item::Dir(new));
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let item = self.remove(from);
        let (node, name) = self.slot(to);
        self.nodes[node].insert(name, item);
    }

    pub fn swap(&mut self, one: &str, other: &str) {
        let (left, right) = (self.remove(one), self.remove(other));
        let (node, name) = self.slot(one);
        self.nodes[node].insert(name, right);
        let (node, name) = self.slot(other);
        self.nodes[node].insert(name, left);
    }
}
