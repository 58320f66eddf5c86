use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
};

use meshwork_protocol::id::ChunkId;
use meshwork_replica::{feed::Manifest, folder::observed::Seen};

use super::*;
use crate::disk::testing::{Fixture, convergence, noise, path};

fn hash(folder: &Fixture, name: &str) -> Hashed {
    hash_file(&folder.root, &path(name), None, &convergence).0
}

#[test]
fn content_comes_with_the_fingerprint_of_the_listing() {
    let folder = Fixture::new();
    folder.write("a", "hello");
    let Hashed::Content { fingerprint, manifest, .. } = hash(&folder, "a") else { panic!("readable") };
    assert_eq!(folder.see("a"), Some(Seen::File(fingerprint)));
    assert!(matches!(manifest, Manifest::Inline { average_log2: 16, chunks } if chunks.len() == 1));
}

#[test]
fn a_large_file_has_pages() {
    let folder = Fixture::new();
    folder.write("a", noise(6 << 20, 1));
    let (hashed, pages) = hash_file(&folder.root, &path("a"), Some(16), &convergence);
    let Hashed::Content { manifest: Manifest::Paged { root, chunks, .. }, .. } = hashed else { panic!("{hashed:?}") };
    assert!(chunks > 32);
    assert_eq!(pages.last().map(|page| page.id), Some(root));
}

#[test]
fn what_cannot_be_read_is_told_apart_from_what_is_gone() {
    let folder = Fixture::new();
    assert_eq!(hash(&folder, "absent"), Hashed::Missing);
    std::os::unix::fs::symlink("a", folder.full("l")).unwrap();
    assert_eq!(hash(&folder, "l"), Hashed::Missing);
    rustix::fs::mknodat(rustix::fs::CWD, folder.full("p"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    assert_eq!(hash(&folder, "p"), Hashed::Missing);
    if !rustix::process::geteuid().is_root() {
        folder.write("closed", "x");
        fs::set_permissions(folder.full("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        assert!(matches!(hash(&folder, "closed"), Hashed::Unreadable(_)));
    }
}

/// Case: the file changes while it is read. The change is made from inside the reading, by the
/// function that gives chunk ids, so that it happens in every run.
#[test]
fn a_file_that_changes_while_it_is_read_has_no_content() {
    let folder = Fixture::new();
    folder.write("a", noise(3_000_000, 2));
    let file = OpenOptions::new().write(true).open(folder.full("a")).unwrap();
    let once = AtomicBool::new(true);
    let edit = |plain: &[u8; 32]| -> ChunkId {
        if once.swap(false, Ordering::Relaxed) {
            file.write_all_at(b"x", 2_999_999).unwrap();
        }
        convergence(plain)
    };
    assert_eq!(hash_file(&folder.root, &path("a"), None, &edit).0, Hashed::Unstable);
    assert!(matches!(hash(&folder, "a"), Hashed::Content { .. }));

    let replace = |plain: &[u8; 32]| -> ChunkId {
        fs::write(folder.full("b"), "new").unwrap();
        fs::rename(folder.full("b"), folder.full("a")).unwrap();
        convergence(plain)
    };
    assert_eq!(hash_file(&folder.root, &path("a"), None, &replace).0, Hashed::Unstable, "another file has the name");
    let grow = |plain: &[u8; 32]| -> ChunkId {
        OpenOptions::new().append(true).open(folder.full("a")).unwrap().set_len(99).unwrap();
        convergence(plain)
    };
    assert_eq!(hash_file(&folder.root, &path("a"), None, &grow).0, Hashed::Unstable);
}

/// Case: a write of the same length right after the file was read, its modification time set back.
#[test]
fn an_edit_that_hides_its_time_shows_in_the_fingerprint() {
    let folder = Fixture::new();
    for round in 0..200 {
        folder.write("a", format!("{round:03}"));
        let Hashed::Content { fingerprint: before, .. } = hash(&folder, "a") else { panic!("readable") };
        let file = OpenOptions::new().write(true).open(folder.full("a")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"xyz", 0).unwrap();
        file.set_modified(modified).unwrap();
        let Some(Seen::File(after)) = folder.see("a") else { panic!("there") };
        assert_eq!((before.size, before.modified_ns), (after.size, after.modified_ns));
        assert_ne!(before, after, "round {round}");
    }
}

#[test]
fn a_list_is_read_until_the_caller_has_enough() {
    let folder = Fixture::new();
    let jobs: Vec<Job> = (0..5)
        .map(|number| {
            folder.write(&format!("{number}"), format!("{number}"));
            Job { path: path(&format!("{number}")), average_log2: None }
        })
        .collect();
    let mut seen = Vec::new();
    hash_files(&folder.root, &jobs, &convergence, |number, hashed, _| {
        assert!(matches!(hashed, Hashed::Content { .. }));
        seen.push(number);
        number < 2
    });
    assert_eq!(seen, [0, 1, 2]);
}
