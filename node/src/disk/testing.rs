//! What the tests of this module share.

use std::path::PathBuf;

use meshwork_protocol::{
    id::{ChunkId, ObjectId},
    time::Timestamp,
};
use meshwork_replica::{
    feed::Name,
    folder::observed::{Listing, Path, Seen},
};
use tempfile::TempDir;

use super::{history::History, list::list, root::FolderRoot};

pub const OBJECT: ObjectId = ObjectId([7; 32]);
pub const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// Chunk ids under a fixed convergence secret.
pub fn convergence(plain: &[u8; 32]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&[9; 32], plain).as_bytes())
}

/// A folder, a node's home, and the history in it.
pub struct Fixture {
    pub dir: TempDir,
    pub root: FolderRoot,
    pub history: History,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let (folder, home) = (dir.path().join("folder"), dir.path().join("home"));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::create_dir_all(&home).expect("a home");
        let root = FolderRoot::create(&folder, OBJECT, &home, &[]).expect("a new folder");
        let history = History::open(&home, OBJECT, NOW).expect("a history");
        Fixture { dir, root, history }
    }

    pub fn full(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.full(name), bytes).expect("writable");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.full(name)).expect("readable")
    }

    pub fn list(&self, at: &str) -> Listing {
        list(&self.root, &path(at)).expect("listable")
    }

    pub fn see(&self, name: &str) -> Option<Seen> {
        let full = path(name);
        let (last, parent) = full.split_last().expect("a name");
        let entries = list(&self.root, parent).expect("listable").entries;
        entries.into_iter().find(|(name, _)| name == last).map(|(_, seen)| seen)
    }

    /// Names among the incoming files.
    pub fn temps(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.full(".meshwork/temp"))
            .expect("listable")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// A path from text; the empty text is the root.
pub fn path(text: &str) -> Path {
    text.split('/').filter(|part| !part.is_empty()).map(|part| Name::new(part.as_bytes()).expect("a name")).collect()
}

/// Bytes that look random and are the same in every run.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("meshwork test noise").update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
