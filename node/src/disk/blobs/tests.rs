use super::*;
use crate::disk::testing::{convergence, noise};

fn blob(seed: u64) -> (ChunkId, Vec<u8>) {
    let bytes = noise(5_000, seed);
    (convergence(blake3::hash(&bytes).as_bytes()), bytes)
}

#[test]
fn blobs_come_back_whole_or_not_at_all() {
    let home = tempfile::TempDir::new().unwrap();
    let store = BlobStore::open(home.path()).unwrap();
    for seed in 0..20 {
        let (id, bytes) = blob(seed);
        assert!(!store.has(id));
        store.put(id, &bytes).unwrap();
        store.put(id, &bytes).unwrap();
        if seed % 3 == 0 {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    let store = BlobStore::open(home.path()).unwrap();
    for seed in 0..20 {
        let (id, bytes) = blob(seed);
        assert_eq!(store.get(id, &convergence).unwrap(), Some(bytes));
    }
    let (id, bytes) = blob(3);
    std::fs::write(store.path(id), &bytes[..4_999]).unwrap();
    store.put(id, &bytes).unwrap();
    assert_eq!(store.get(id, &convergence).unwrap(), Some(bytes.clone()), "a torn file is put anew");
    std::fs::write(store.path(id), &bytes[..4_999]).unwrap();
    assert_eq!(store.get(id, &convergence).unwrap(), None);
    assert!(!store.has(id), "and gone");
    store.remove(id).unwrap();
}

#[test]
fn unfinished_files_of_earlier_runs_go() {
    let home = tempfile::TempDir::new().unwrap();
    drop(BlobStore::open(home.path()).unwrap());
    std::fs::write(home.path().join("blobs/new/0"), "half").unwrap();
    let store = BlobStore::open(home.path()).unwrap();
    let (id, bytes) = blob(1);
    store.put(id, &bytes).unwrap();
    assert_eq!(std::fs::read_dir(home.path().join("blobs/new")).unwrap().count(), 0);
}
