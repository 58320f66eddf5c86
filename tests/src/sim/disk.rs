//! A disk in memory: the directory of a Live Folder, its temporary files and its history, with the
//! same promises as a real one (a step compares before it acts; a rename is one act).

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::id::{ChunkId, ContentId};
use meshwork_replica::{
    feed::{ChunkRef, Manifest, Name},
    folder::{
        ToHash,
        observed::{DirIdentity, Expect, Fingerprint, Hashed, ListError, Listing, Path, Seen, Step, Stepped},
    },
};

type Inode = u64;
const ROOT: Inode = 1;

#[derive(Clone, Debug)]
enum Node {
    Dir(BTreeMap<Name, Inode>),
    File { bytes: Vec<u8>, modified_ns: i64, changed_ns: i64, executable: bool },
    Symlink { target: Vec<u8> },
}

/// The disk of one simulated device.
#[derive(Clone, Debug)]
pub struct Disk {
    nodes: BTreeMap<Inode, Node>,
    last_inode: Inode,
    ticks: i64,
    /// Files received whole.
    pub temps: BTreeMap<ContentId, Vec<u8>>,
    /// Copies of own files that the batch under way will place.
    staged: BTreeMap<ContentId, Vec<u8>>,
    /// How often the batch under way still places a received file.
    uses: BTreeMap<ContentId, usize>,
    /// Every version that was replaced or removed by the node.
    pub history: Vec<Vec<u8>>,
    /// Planted fault: steps do not compare.
    pub careless: bool,
    /// Planted fault: what is replaced is not kept.
    pub forgetful: bool,
    /// Files that the present batch has renamed or given attributes: as planned, and as they are.
    own: BTreeMap<Fingerprint, Fingerprint>,
}

/// What a user sees at a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// A directory.
    Dir,
    /// A file with these bytes.
    File(Vec<u8>),
    /// A link with this text.
    Symlink(Vec<u8>),
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            nodes: BTreeMap::from([(ROOT, Node::Dir(BTreeMap::new()))]),
            last_inode: ROOT,
            ticks: 0,
            temps: BTreeMap::new(),
            staged: BTreeMap::new(),
            uses: BTreeMap::new(),
            history: Vec::new(),
            careless: false,
            forgetful: false,
            own: BTreeMap::new(),
        }
    }
}

/// The content id that the simulated disk gives to bytes.
pub fn content_of(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

impl Disk {
    fn tick(&mut self) -> i64 {
        self.ticks += 1;
        self.ticks
    }

    fn add(&mut self, node: Node) -> Inode {
        self.last_inode += 1;
        self.nodes.insert(self.last_inode, node);
        self.last_inode
    }

    fn find(&self, path: &[Name]) -> Option<Inode> {
        let mut at = ROOT;
        for name in path {
            let Node::Dir(entries) = self.nodes.get(&at)? else {
                return None;
            };
            at = *entries.get(name)?;
        }
        Some(at)
    }

    fn entries(&mut self, dir: &[Name]) -> Option<&mut BTreeMap<Name, Inode>> {
        let inode = self.find(dir)?;
        match self.nodes.get_mut(&inode)? {
            Node::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    fn link(&mut self, path: &[Name], inode: Inode) -> bool {
        let Some((name, above)) = path.split_last() else {
            return false;
        };
        self.entries(above).map(|entries| entries.insert(name.clone(), inode)).is_some()
    }

    fn unlink(&mut self, path: &[Name]) -> Option<Inode> {
        let (name, above) = path.split_last()?;
        self.entries(above)?.remove(name)
    }

    fn seen(&self, inode: Inode) -> Option<Seen> {
        Some(match self.nodes.get(&inode)? {
            Node::Dir(_) => Seen::Dir(identity(inode)),
            Node::File { bytes, modified_ns, changed_ns, executable } => Seen::File(Fingerprint {
                inode,
                size: bytes.len() as u64,
                modified_ns: *modified_ns,
                changed_ns: *changed_ns,
                executable: *executable,
            }),
            Node::Symlink { target } => Seen::Symlink { target: target.clone() },
        })
    }

    // What users do.

    /// Writes a file, in place if it exists. False when there is a directory or no parent.
    pub fn write(&mut self, path: &[Name], bytes: Vec<u8>) -> bool {
        let now = self.tick();
        let fresh = Node::File { bytes, modified_ns: now, changed_ns: now, executable: false };
        match self.find(path) {
            Some(inode) => match self.nodes.get_mut(&inode) {
                Some(Node::Dir(_)) | None => false,
                Some(node) => {
                    *node = fresh;
                    true
                }
            },
            None => {
                let inode = self.add(fresh);
                self.link(path, inode)
            }
        }
    }

    /// Makes a directory.
    pub fn make_dir(&mut self, path: &[Name]) -> bool {
        if self.find(path).is_some() {
            return false;
        }
        let inode = self.add(Node::Dir(BTreeMap::new()));
        self.link(path, inode)
    }

    /// Makes a link.
    pub fn make_symlink(&mut self, path: &[Name], target: &[u8]) -> bool {
        if self.find(path).is_some() {
            return false;
        }
        let inode = self.add(Node::Symlink { target: target.to_vec() });
        self.link(path, inode)
    }

    /// Removes whatever is there, with all in it.
    pub fn remove(&mut self, path: &[Name]) -> bool {
        self.unlink(path).is_some()
    }

    /// Renames; a file at the target is replaced.
    pub fn rename(&mut self, from: &[Name], to: &[Name]) -> bool {
        let into_itself = to.len() > from.len() && to.starts_with(from);
        let over_dir = self.find(to).is_some_and(|inode| matches!(self.nodes.get(&inode), Some(Node::Dir(_))));
        let over_file_by_dir = self.find(to).is_some()
            && self.find(from).is_some_and(|inode| matches!(self.nodes.get(&inode), Some(Node::Dir(_))));
        let parent = to.split_last().and_then(|(_, above)| self.find(above));
        let parent_is_dir = parent.is_some_and(|inode| matches!(self.nodes.get(&inode), Some(Node::Dir(_))));
        if from == to || into_itself || over_dir || over_file_by_dir || !parent_is_dir {
            return false;
        }
        let Some(inode) = self.unlink(from) else { return false };
        self.touch(inode);
        self.link(to, inode)
    }

    /// Swaps two names.
    pub fn swap(&mut self, one: &[Name], other: &[Name]) -> bool {
        let (Some(a), Some(b)) = (self.find(one), self.find(other)) else {
            return false;
        };
        if one.starts_with(other) || other.starts_with(one) {
            return false;
        }
        self.touch(a);
        self.touch(b);
        self.link(one, b) && self.link(other, a)
    }

    fn touch(&mut self, inode: Inode) {
        let now = self.tick();
        if let Some(Node::File { changed_ns, .. }) = self.nodes.get_mut(&inode) {
            *changed_ns = now;
        }
    }

    /// Everything below the root, by path.
    pub fn tree(&self) -> BTreeMap<Path, Shown> {
        let mut tree = BTreeMap::new();
        let mut todo = vec![(Path::new(), ROOT)];
        while let Some((path, inode)) = todo.pop() {
            let Some(Node::Dir(entries)) = self.nodes.get(&inode) else {
                continue;
            };
            for (name, inode) in entries {
                if path.is_empty() && name.as_bytes() == b".meshwork" {
                    continue;
                }
                let inside: Path = path.iter().chain([name]).cloned().collect();
                let shown = match self.nodes.get(inode) {
                    Some(Node::Dir(_)) => {
                        todo.push((inside.clone(), *inode));
                        Shown::Dir
                    }
                    Some(Node::File { bytes, .. }) => Shown::File(bytes.clone()),
                    Some(Node::Symlink { target }) => Shown::Symlink(target.clone()),
                    None => continue,
                };
                tree.insert(inside, shown);
            }
        }
        tree
    }

    // What the node does.

    /// Lists one directory.
    pub fn list(&self, path: &[Name]) -> Result<Listing, ListError> {
        let inode = self.find(path).ok_or(ListError::Missing)?;
        let Some(Node::Dir(entries)) = self.nodes.get(&inode) else {
            return Err(ListError::Missing);
        };
        let own = |name: &Name| path.is_empty() && name.as_bytes().starts_with(b".meshwork");
        let named = entries.iter().filter(|(name, _)| !own(name));
        let entries = named.filter_map(|(name, inode)| Some((name.clone(), self.seen(*inode)?))).collect();
        Ok(Listing { identity: identity(inode), entries })
    }

    /// Reads one file.
    pub fn hash(&self, file: &ToHash) -> Hashed {
        let Some(inode) = self.find(&file.path) else {
            return Hashed::Missing;
        };
        match (self.nodes.get(&inode), self.seen(inode)) {
            (Some(Node::File { bytes, .. }), Some(Seen::File(fingerprint))) => Hashed::Content {
                fingerprint,
                content: content_of(bytes),
                manifest: Manifest::Inline {
                    average_log2: 16,
                    chunks: vec![ChunkRef { id: ChunkId(content_of(bytes).0), len: bytes.len() as u32 }],
                },
            },
            _ => Hashed::Missing,
        }
    }

    /// The bytes of the file at a path.
    pub fn read(&self, path: &[Name]) -> Option<Vec<u8>> {
        match self.find(path).and_then(|inode| self.nodes.get(&inode))? {
            Node::File { bytes, .. } => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The bytes of a version in history.
    pub fn kept(&self, content: ContentId) -> Option<Vec<u8>> {
        self.history.iter().find(|bytes| content_of(bytes) == content).cloned()
    }

    /// Every content that is on this disk, in place or in history.
    pub fn contents(&self) -> BTreeSet<ContentId> {
        let reachable = self.tree().into_values().filter_map(|shown| match shown {
            Shown::File(bytes) => Some(content_of(&bytes)),
            _ => None,
        });
        reachable.chain(self.history.iter().map(|bytes| content_of(bytes))).collect()
    }

    /// Directories that a batch has set aside.
    pub fn aside(&mut self) -> Vec<Path> {
        let temp: Path = [".meshwork", "temp"].iter().filter_map(|name| Name::try_from(*name).ok()).collect();
        let names = self.entries(&temp).map(|entries| entries.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        names.into_iter().map(|name| temp.iter().cloned().chain([name]).collect()).collect()
    }

    /// Brings back directories that a batch had set aside when the process died.
    pub fn recover(&mut self) -> usize {
        let aside = self.aside();
        let count = aside.len();
        for from in aside {
            for number in 1.. {
                let free = if number == 1 { "Recovered".to_owned() } else { format!("Recovered {number}") };
                let to: Path = Name::try_from(free.as_str()).into_iter().collect();
                if self.find(&to).is_none() {
                    self.rename(&from, &to);
                    break;
                }
            }
        }
        count
    }

    /// Starts a batch of placing: what it itself renames is still what its plan knows.
    pub fn begin_batch(&mut self) {
        self.own.clear();
    }

    fn current(&self, expect: &Expect) -> Expect {
        match expect {
            Expect::File(planned) => Expect::File(*self.own.get(planned).unwrap_or(planned)),
            other => other.clone(),
        }
    }

    fn note(&mut self, expect: &Expect, path: &[Name]) {
        if let (Expect::File(planned), Some(Seen::File(now))) =
            (expect, self.find(path).and_then(|inode| self.seen(inode)))
        {
            self.own.insert(*planned, now);
        }
    }

    fn expects(&self, path: &[Name], expect: &Expect) -> bool {
        if self.careless {
            return true;
        }
        let seen = self.find(path).and_then(|inode| self.seen(inode));
        match (&self.current(expect), seen) {
            (Expect::Absent, None) => true,
            (Expect::File(expected), Some(Seen::File(fingerprint))) => *expected == fingerprint,
            (Expect::Symlink { target }, Some(Seen::Symlink { target: seen })) => *target == seen,
            (Expect::Dir(expected), Some(Seen::Dir(identity))) => *expected == identity,
            _ => false,
        }
    }

    fn parent_exists(&self, path: &[Name]) -> bool {
        let parent = path.split_last().and_then(|(_, above)| self.find(above));
        parent.is_some_and(|inode| matches!(self.nodes.get(&inode), Some(Node::Dir(_))))
    }

    fn keep(&mut self, path: &[Name]) {
        if self.forgetful {
            return;
        }
        if let Some(Node::File { bytes, .. }) = self.find(path).and_then(|inode| self.nodes.get(&inode)) {
            self.history.push(bytes.clone());
        }
    }

    fn done(&self, path: &[Name]) -> Stepped {
        Stepped::Done(self.find(path).and_then(|inode| self.seen(inode)))
    }

    /// Planted fault: says that a file was put where it was not.
    pub fn pretend(&mut self, step: &Step) -> Stepped {
        let now = self.tick();
        match step {
            Step::PutFile { value, .. } => Stepped::Done(Some(Seen::File(Fingerprint {
                inode: 0,
                size: value.size,
                modified_ns: value.modified_ns,
                changed_ns: now,
                executable: value.executable,
            }))),
            _ => Stepped::Changed,
        }
    }

    /// Reads what a batch copies from own files, before its first step changes any of them.
    pub fn stage<'s>(&mut self, steps: impl IntoIterator<Item = &'s Step>) {
        self.staged.clear();
        self.uses.clear();
        for step in steps {
            let Step::PutFile { copy_from, value, .. } = step else { continue };
            let Some((from, fingerprint)) = copy_from else {
                *self.uses.entry(value.content).or_default() += 1;
                continue;
            };
            if self.expects(from, &Expect::File(*fingerprint))
                && let Some(bytes) = self.read(from).filter(|bytes| content_of(bytes) == value.content)
            {
                self.staged.insert(value.content, bytes);
            }
        }
    }

    /// The last use of a received file renames it, those before it are copies.
    fn use_received(&mut self, content: ContentId, received: bool) {
        let left = self.uses.entry(content).or_default();
        *left = left.saturating_sub(usize::from(received));
        if *left == 0 {
            self.temps.remove(&content);
        }
    }

    /// Does one step of a batch.
    pub fn step(&mut self, step: &Step) -> Stepped {
        match step {
            Step::MakeDir { path } => {
                if self.make_dir(path) {
                    self.done(path)
                } else {
                    Stepped::Changed
                }
            }
            Step::RemoveDir { path, expect } => {
                let empty = self.entries(path).is_some_and(|entries| entries.is_empty());
                if !empty || !self.expects(path, &Expect::Dir(*expect)) {
                    return Stepped::Changed;
                }
                self.unlink(path);
                Stepped::Done(None)
            }
            Step::Move { from, to, expect } => self.step_move(from, to, expect),
            Step::Exchange { one, one_expect, other, other_expect } => {
                let as_expected = self.expects(one, one_expect) && self.expects(other, other_expect);
                if !as_expected || !self.swap(one, other) {
                    return Stepped::Changed;
                }
                self.note(one_expect, other);
                self.note(other_expect, one);
                self.done(one)
            }
            Step::PutFile { path, expect, value, copy_from } => {
                let source = match copy_from {
                    Some(_) => self.staged.get(&value.content).cloned(),
                    None => self.temps.get(&value.content).cloned(),
                };
                let Some(bytes) = source else { return Stepped::Changed };
                if !self.expects(path, expect) || !self.parent_exists(path) {
                    return Stepped::Changed;
                }
                self.keep(path);
                self.use_received(value.content, copy_from.is_none());
                let changed_ns = self.tick();
                let (modified_ns, executable) = (value.modified_ns, value.executable);
                let inode = self.add(Node::File { bytes, modified_ns, changed_ns, executable });
                self.link(path, inode);
                self.done(path)
            }
            Step::PutSymlink { path, expect, target } => {
                if !self.expects(path, expect) || !self.parent_exists(path) {
                    return Stepped::Changed;
                }
                self.keep(path);
                let inode = self.add(Node::Symlink { target: target.clone() });
                self.link(path, inode);
                self.done(path)
            }
            Step::Remove { path, expect: Expect::Dir(identity) } => {
                self.step(&Step::RemoveDir { path: path.clone(), expect: *identity })
            }
            Step::Remove { path, expect } => {
                if !self.expects(path, expect) {
                    return Stepped::Changed;
                }
                self.keep(path);
                self.unlink(path);
                Stepped::Done(None)
            }
            Step::SetMeta { path, expect, modified_ns, executable } => {
                self.step_set_meta(path, expect, *modified_ns, *executable)
            }
            Step::Check { path, expect } => self.step_check(path, expect),
        }
    }

    fn step_move(&mut self, from: &[Name], to: &[Name], expect: &Expect) -> Stepped {
        // The node's own directory is there on a real disk from the start.
        if to.first().is_some_and(|name| name.as_bytes() == b".meshwork") {
            for depth in 1..to.len() {
                self.make_dir(&to[..depth]);
            }
        }
        if !self.expects(from, expect) || self.find(to).is_some() || !self.rename(from, to) {
            return Stepped::Changed;
        }
        self.note(expect, to);
        self.done(to)
    }

    fn step_check(&self, path: &[Name], expect: &Expect) -> Stepped {
        if self.expects(path, expect) { self.done(path) } else { Stepped::Changed }
    }

    fn step_set_meta(&mut self, path: &[Name], expect: &Fingerprint, modified: i64, executes: bool) -> Stepped {
        if !self.expects(path, &Expect::File(*expect)) {
            return Stepped::Changed;
        }
        let now = self.tick();
        let inode = self.find(path).unwrap_or_default();
        if let Some(Node::File { modified_ns, executable, changed_ns, .. }) = self.nodes.get_mut(&inode) {
            (*modified_ns, *executable, *changed_ns) = (modified, executes, now);
        }
        self.note(&Expect::File(*expect), path);
        self.done(path)
    }
}

fn identity(inode: Inode) -> DirIdentity {
    DirIdentity { device: 1, inode, born_ns: 0 }
}
