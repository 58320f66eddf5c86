//! A directory as its names and bytes, read from the disk without asking any node.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// The one directory inside a folder that is the node's own.
const OWN: &str = ".meshwork";

#[derive(PartialEq, Eq)]
enum Entry {
    Directory,
    File { bytes: u64, executable: bool, hash: blake3::Hash },
    Link { target: PathBuf },
}

/// All entries below a directory by their relative path.
pub(super) struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        for (path, kind) in walk(root)? {
            let full = root.join(&path);
            let entry = if kind.is_dir() {
                Entry::Directory
            } else if kind.is_symlink() {
                Entry::Link { target: fs::read_link(&full)? }
            } else {
                let content = fs::read(&full)?;
                let executable = fs::metadata(&full)?.permissions().mode() & 0o100 != 0;
                Entry::File { bytes: content.len() as u64, executable, hash: blake3::hash(&content) }
            };
            entries.insert(path, entry);
        }
        Ok(Tree { entries })
    }

    pub(super) fn files(&self) -> u64 {
        self.entries.values().filter(|entry| matches!(entry, Entry::File { .. })).count() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| if let Entry::File { bytes, .. } = entry { *bytes } else { 0 }).sum()
    }

    /// BLAKE3 over every path, kind and content; equal only for equal trees.
    pub(super) fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for (path, entry) in &self.entries {
            part(path.as_os_str().as_bytes());
            match entry {
                Entry::Directory => part(b"directory"),
                Entry::File { executable, hash, .. } => {
                    part(if *executable { b"executable" } else { b"file" });
                    part(hash.as_bytes());
                }
                Entry::Link { target } => {
                    part(b"link");
                    part(target.as_os_str().as_bytes());
                }
            }
        }
        hasher.finalize()
    }

    /// The first path that differs, and how many do.
    pub(super) fn difference(&self, other: &Tree) -> String {
        let all = self.entries.keys().chain(other.entries.keys());
        let mut paths: Vec<&PathBuf> = all.filter(|path| self.entries.get(*path) != other.entries.get(*path)).collect();
        paths.sort_unstable();
        paths.dedup();
        match paths.first() {
            None => "nothing differs now".to_owned(),
            Some(first) => format!("{} entries differ, the first is {:?}", paths.len(), first),
        }
    }
}

/// Files and bytes below a directory by their metadata alone; what vanishes meanwhile does not count.
pub(super) fn size(root: &Path) -> (u64, u64) {
    let Ok(paths) = walk(root) else { return (0, 0) };
    let files = paths.iter().filter(|(_, kind)| kind.is_file());
    files
        .filter_map(|(path, _)| fs::metadata(root.join(path)).ok())
        .fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.len()))
}

/// Whether a directory has as many files and bytes as a tree: cheap, before anything is hashed.
pub(super) fn has_size_of(root: &Path, tree: &Tree) -> bool {
    size(root) == (tree.files(), tree.bytes())
}

fn walk(root: &Path) -> io::Result<Vec<(PathBuf, fs::FileType)>> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            if directory.as_os_str().is_empty() && entry.file_name().as_bytes().starts_with(OWN.as_bytes()) {
                continue;
            }
            let (path, kind) = (directory.join(entry.file_name()), entry.file_type()?);
            if kind.is_dir() {
                waiting.push(path.clone());
            }
            found.push((path, kind));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_counts_but_the_nodes_own_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("a/b")).expect("made");
        fs::write(root.join("a/file"), "one").expect("written");
        let first = Tree::read(root).expect("read");
        assert_eq!((first.files(), first.bytes(), size(root)), (1, 3, (1, 3)));

        fs::create_dir_all(root.join(".meshwork/temp")).expect("made");
        fs::write(root.join(".meshwork/folder"), "id").expect("written");
        assert_eq!(Tree::read(root).expect("read").hash(), first.hash());

        fs::write(root.join("a/file"), "two").expect("written");
        let changed = Tree::read(root).expect("read");
        assert!(changed.hash() != first.hash() && has_size_of(root, &first));
        assert!(first.difference(&changed).contains("a/file"));

        fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o755)).expect("changed");
        let executable = Tree::read(root).expect("read");
        assert_ne!(executable.hash(), changed.hash());
        fs::remove_dir(root.join("a/b")).expect("removed");
        assert_ne!(Tree::read(root).expect("read").hash(), executable.hash());
    }
}
