//! What one directory shows: which entry has which name, and who lost.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::id::ContentId;

use super::{
    conflict_name::ConflictNames,
    map::FeedMap,
    operation::{FileValue, Name, Operation, Value},
    skeleton::{Directory, NodeId, Skeleton},
};

/// What a name shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A file.
    File {
        /// Its newest version.
        value: FileValue,
        /// The operation that put it.
        newest: Arc<Operation>,
        /// All live operations that put this content here, `newest` among them.
        sources: Vec<Arc<Operation>>,
    },
    /// A directory.
    Dir {
        /// Which.
        node: NodeId,
        /// The live operations that place or remember it here; none for a recovered one.
        sources: Vec<Arc<Operation>>,
    },
}

impl Entry {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&FileValue> {
        match self {
            Entry::File { value, .. } => Some(value),
            Entry::Dir { .. } => None,
        }
    }

    /// The directory, if it is one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Entry::Dir { node, .. } => Some(*node),
            Entry::File { .. } => None,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.node().is_some()
    }

    /// The live operations because of which it is shown.
    pub fn sources(&self) -> &[Arc<Operation>] {
        match self {
            Entry::File { sources, .. } | Entry::Dir { sources, .. } => sources,
        }
    }

    fn is_file_like(&self, other: &Entry) -> bool {
        matches!((self.file(), other.file()), (Some(left), Some(right)) if left.same_content(right))
    }
}

/// One directory of a view.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    map: &'a FeedMap,
    skeleton: &'a Skeleton,
    directory: &'a Directory,
}

impl<'a> Page<'a> {
    pub fn new(map: &'a FeedMap, skeleton: &'a Skeleton, node: NodeId) -> Self {
        Page { map, skeleton, directory: skeleton.directory(node) }
    }

    /// What has its own name, if the key name shows anything at all.
    pub fn winner(&self, name: &Name) -> Option<Entry> {
        self.contenders(name).winner
    }

    /// Whether more than one thing wants to be shown under a key name.
    pub fn has_losers(&self, name: &Name) -> bool {
        let contenders = self.contenders(name);
        !contenders.files.is_empty() || contenders.directory.is_some()
    }

    /// Every entry that has its own name.
    pub fn winners(&self) -> BTreeMap<Name, Entry> {
        let mut names: BTreeSet<&Name> = self.directory.children.keys().collect();
        for dir in &self.directory.ids {
            let shows = |live: &[Arc<Operation>]| live.iter().any(|op| op.value.file().is_some());
            names.extend(self.map.table(*dir).filter(|(_, live)| shows(live)).map(|(name, _)| name));
        }
        names.into_iter().filter_map(|name| Some((name.clone(), self.winner(name)?))).collect()
    }

    /// What wants to be shown under a key name. An explicit directory takes it, else the file that is
    /// last in the order, else an implicit directory.
    fn contenders(&self, name: &Name) -> Contenders {
        let mut files = self.files(name);
        let directory = self.directory.children.get(name).copied();
        let placed = directory.filter(|node| self.skeleton.directory(*node).placed);
        if let Some(node) = placed {
            return Contenders { winner: Some(self.directory_entry(node, name)), files, directory: None };
        }
        let newest = |entry: &Entry| entry.sources().last().map(|op| Reverse(op.order()));
        if let Some((&content, _)) = files.iter().min_by_key(|(_, entry)| newest(entry)) {
            let winner = files.remove(&content);
            let directory = directory.map(|node| (node, self.directory_entry(node, name)));
            return Contenders { winner, files, directory };
        }
        let winner = directory.map(|node| self.directory_entry(node, name));
        Contenders { winner, files, directory: None }
    }

    /// The distinct file contents under a key name.
    fn files(&self, name: &Name) -> BTreeMap<(ContentId, bool), Entry> {
        let mut groups: BTreeMap<(ContentId, bool), Vec<Arc<Operation>>> = BTreeMap::new();
        for dir in &self.directory.ids {
            for operation in self.map.lookup(*dir, name.as_bytes()) {
                if let Value::File(file) = &operation.value {
                    groups.entry(file.content_key()).or_default().push(operation.clone());
                }
            }
        }
        groups.into_iter().filter_map(|(content, sources)| Some((content, file_entry(sources)?))).collect()
    }

    fn directory_entry(&self, node: NodeId, name: &Name) -> Entry {
        let ids = &self.skeleton.directory(node).ids;
        let speaks_of_it = |op: &&Arc<Operation>| {
            op.value.dirs().iter().any(|dir| ids.contains(dir))
                || op.former.iter().any(|former| ids.contains(&former.dir))
        };
        let live = self.directory.ids.iter().flat_map(|dir| self.map.lookup(*dir, name.as_bytes()));
        Entry::Dir { node, sources: live.filter(speaks_of_it).cloned().collect() }
    }

    /// A superset of the key names under which more than one thing wants to be shown.
    fn contested(&self) -> BTreeSet<&'a Name> {
        let ids = &self.directory.ids;
        let mut names: BTreeSet<&Name> = self.directory.unplaced_children.iter().collect();
        names.extend(ids.iter().flat_map(|dir| self.map.contested(*dir)));
        if ids.len() > 1 {
            let mut seen = BTreeSet::new();
            for name in ids.iter().flat_map(|dir| self.map.table(*dir)).map(|(name, _)| name) {
                if !seen.insert(name) {
                    names.insert(name);
                }
            }
        }
        names
    }

    /// Names the losers: by key name, files before directories, files by content.
    pub fn displaced(&self) -> Displaced {
        let mut displaced = Displaced::default();
        for name in self.contested() {
            let contenders = self.contenders(name);
            for ((content, _), entry) in contenders.files {
                displaced.place(self, name, ConflictNames::for_file(name, &content), entry);
            }
            if let Some((node, entry)) = contenders.directory
                && let Some(smallest) = self.skeleton.directory(node).ids.first()
            {
                displaced.place(self, name, ConflictNames::for_directory(name, smallest), entry);
            }
        }
        displaced
    }
}

struct Contenders {
    winner: Option<Entry>,
    files: BTreeMap<(ContentId, bool), Entry>,
    /// An implicit directory whose name a file took.
    directory: Option<(NodeId, Entry)>,
}

/// The entries of a directory that are not, or not only, shown under their key's name.
#[derive(Debug, Default)]
pub(super) struct Displaced {
    /// By the name they are shown as; complete, also where a loser met its equal.
    pub entries: BTreeMap<Name, Entry>,
    /// Key name -> names its losers are shown as; these are always conflict names.
    pub shown_as: BTreeMap<Name, BTreeSet<Name>>,
    /// Name that was taken when a conflict name was formed -> names shown past it.
    pub past: BTreeMap<Name, BTreeSet<Name>>,
}

impl Displaced {
    fn place(&mut self, page: &Page<'_>, key_name: &Name, mut names: ConflictNames, loser: Entry) {
        let mut passed = Vec::new();
        let shown_as = loop {
            let name = names.advance();
            let occupant = self.entries.get(&name).cloned().or_else(|| page.winner(&name));
            match occupant {
                None => {
                    self.entries.insert(name.clone(), loser);
                    break name;
                }
                Some(equal) if equal.is_file_like(&loser) => {
                    let sources = equal.sources().iter().chain(loser.sources()).cloned().collect();
                    self.entries.insert(name.clone(), file_entry(sources).unwrap_or(equal));
                    break name;
                }
                Some(_) => passed.push(name),
            }
        };
        for name in passed {
            self.past.entry(name).or_default().insert(shown_as.clone());
        }
        self.shown_as.entry(key_name.clone()).or_default().insert(shown_as);
    }

    /// The name a directory is shown as that lost its key name.
    pub fn name_of(&self, key_name: &Name, node: NodeId) -> Option<&Name> {
        let is_it = |name: &&Name| self.entries.get(*name).and_then(Entry::node) == Some(node);
        self.shown_as.get(key_name)?.iter().find(is_it)
    }
}

/// The entry of a file with these operations, all of one content.
fn file_entry(mut sources: Vec<Arc<Operation>>) -> Option<Entry> {
    sources.sort_unstable_by_key(|operation| operation.order());
    let newest = sources.last()?.clone();
    let value = newest.value.file()?.clone();
    Some(Entry::File { value, newest, sources })
}
