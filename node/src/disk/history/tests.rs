use std::fs;

use super::*;
use crate::disk::testing::{Fixture, NOW, OBJECT, path};

fn keep(folder: &Fixture, name: &str, reason: Reason) -> Held {
    let at = path(name);
    let (dir, last) = folder.root.parent(&at).unwrap();
    let meta = Meta::at(&dir, last).unwrap();
    let from = Provenance { path: &at, content: Some(ContentId([3; 32])), reason, now: NOW };
    folder.history.keep(&dir, last, &meta, &from).unwrap()
}

fn content(history: &History, entry: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    history.content(entry).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_version_is_kept_without_copying_and_outlives_its_name() {
    let folder = Fixture::new();
    fs::create_dir(folder.full("d")).unwrap();
    folder.write("d/a", "version 1");
    let held = keep(&folder, "d/a", Reason::Replaced);
    assert_eq!(held.after.links, 2, "a second name, no second copy");
    fs::remove_file(folder.full("d/a")).unwrap();
    folder.history.sync().unwrap();

    let history = History::open(&folder.home(), OBJECT, NOW).unwrap();
    let kept = history.list().unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].path.clone(), kept[0].size, kept[0].reason), (path("d/a"), 9, Reason::Replaced));
    assert_eq!(kept[0].content, Some(ContentId([3; 32])));
    assert_eq!(content(&history, kept[0].entry), b"version 1");
    folder.write("again", "other");
    let folder = Fixture { history, ..folder };
    let held = keep(&folder, "again", Reason::Removed);
    assert_eq!(held.entry, kept[0].entry + 1, "numbers are never used twice");
}

#[test]
fn a_file_with_other_names_is_copied() {
    let folder = Fixture::new();
    folder.write("a", "shared");
    fs::hard_link(folder.full("a"), folder.full("b")).unwrap();
    let held = keep(&folder, "a", Reason::Replaced);
    folder.write("b", "edited in place");
    assert_eq!(content(&folder.history, held.entry), b"shared");
}

#[test]
fn links_are_kept_as_text() {
    let folder = Fixture::new();
    std::os::unix::fs::symlink("to\u{e9}", folder.full("l")).unwrap();
    let held = keep(&folder, "l", Reason::Removed);
    assert_eq!(folder.history.list().unwrap()[0].target.as_deref(), Some("to\u{e9}".as_bytes()));
    assert!(folder.history.content(held.entry).is_err());
}

#[test]
fn what_is_released_is_gone() {
    let folder = Fixture::new();
    folder.write("a", "1");
    let held = keep(&folder, "a", Reason::Replaced);
    folder.history.release(held.entry).unwrap();
    assert_eq!(folder.history.list().unwrap(), []);
    assert!(folder.history.content(held.entry).is_err());
    assert_eq!(folder.read("a"), b"1");
}

#[test]
fn a_torn_or_damaged_index_costs_its_own_lines_only() {
    let folder = Fixture::new();
    for name in ["a", "b", "c"] {
        folder.write(name, name);
        keep(&folder, name, Reason::Replaced);
    }
    let index = folder.home().join("history").join(OBJECT.to_string()).join("index");
    let mut bytes = fs::read(&index).unwrap();
    bytes[30] ^= 1;
    bytes.truncate(bytes.len() - 5);
    fs::write(&index, &bytes).unwrap();
    let history = History::open(&folder.home(), OBJECT, NOW).unwrap();
    let kept = history.list().unwrap();
    let reasons: Vec<Reason> = kept.iter().map(|kept| kept.reason).collect();
    assert_eq!(reasons, [Reason::Recovered, Reason::Replaced, Reason::Recovered], "the contents are all there");
    assert_eq!(content(&history, kept[2].entry), b"c");
    assert_eq!(History::open(&folder.home(), OBJECT, NOW).unwrap().list().unwrap(), kept);
}

#[test]
fn retention_takes_the_old_and_the_oldest() {
    let version = |entry: u64, days: u64, size: u64| Kept {
        entry,
        path: path("a"),
        content: None,
        target: None,
        size,
        modified_ns: 0,
        executable: false,
        kept: Timestamp(NOW.0 - days * 86_400_000_000),
        reason: Reason::Replaced,
    };
    let versions = [version(1, 40, 10), version(2, 20, 10), version(3, 10, 10), version(4, 1, 10)];
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let choose = |max_age, max_bytes| expired(&versions, NOW, &Retention { max_age, max_bytes });
    assert!(choose(days(100), 40).is_empty());
    assert_eq!(choose(days(30), 40), [1]);
    assert_eq!(choose(days(100), 25), [1, 2]);
    assert_eq!(choose(days(30), 10), [1, 2, 3]);
    assert_eq!(choose(days(0), 0), [1, 2, 3, 4]);
}

#[test]
fn a_long_index_is_written_anew() {
    let folder = Fixture::new();
    folder.write("a", "x");
    for _ in 0..600 {
        let held = keep(&folder, "a", Reason::Replaced);
        folder.history.forget(&[held.entry]).unwrap();
    }
    let last = keep(&folder, "a", Reason::Replaced);
    let index = folder.home().join("history").join(OBJECT.to_string()).join("index");
    assert!(fs::read(&index).unwrap().split(|byte| *byte == b'\n').count() < 300);
    let kept = History::open(&folder.home(), OBJECT, NOW).unwrap().list().unwrap();
    assert_eq!(kept.iter().map(|kept| kept.entry).collect::<Vec<_>>(), [last.entry]);
}
