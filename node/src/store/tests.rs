//! The promises of the store: what was acknowledged is there after any crash, and what is not whole never appears.

mod reclaim;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use meshwork_protocol::id::{ChainId, ObjectId, RecordId};
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    handle::StoreHandle,
    segment::{ENTRY_OVERHEAD, HEADER_LEN},
    *,
};

fn open(home: &Path) -> (Store, OpenReport, Vec<Entry>) {
    open_limited(home, super::log::SEGMENT_LIMIT)
}

fn open_limited(home: &Path, limit: u32) -> (Store, OpenReport, Vec<Entry>) {
    let mut seen = Vec::new();
    let (store, report) =
        Store::open_limited(home, &mut ChaCha20Rng::seed_from_u64(7), limit, |entry| seen.push(entry)).unwrap();
    (store, report, seen)
}

fn record(seq: u64, len: usize) -> NewEntry {
    let payload = (0..len).map(|at| (at as u64 * 31 + seq) as u8).collect();
    NewEntry {
        object: ObjectId([1; 32]),
        kind: EntryKind::Record { chain: ChainId([2; 16]), seq, own: true },
        payload,
        head: None,
    }
}

fn own(seq: u64, len: usize) -> NewEntry {
    record(seq, len).own(RecordId([seq as u8; 32]))
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    let seq = |entry: &Entry| match entry.kind {
        EntryKind::Record { seq, .. } => seq,
        EntryKind::Control | EntryKind::Floor { .. } => 0,
    };
    entries.iter().map(seq).collect()
}

fn segment(home: &Path, number: u32) -> PathBuf {
    home.join(format!("log/{number:04}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target)
        } else {
            drop(fs::copy(file.path(), target))
        }
    }
}

#[test]
fn what_was_appended_is_found_again() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, report, seen) = open(home.path());
    assert_eq!((report.entries, seen.len(), report.index_rebuilt), (0, 0, false));
    let control = NewEntry { kind: EntryKind::Control, ..record(0, 50) };
    let mut positions = store.append(&[control, record(1, 10), record(2, 0)]).unwrap();
    positions.extend(store.append(&[record(3, 100_000)]).unwrap());
    assert_eq!(store.read(positions[1]).unwrap().payload, record(1, 10).payload);
    let before: Vec<Entry> = store.scan().unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(before.iter().map(|entry| entry.position).collect::<Vec<_>>(), positions);
    drop(store);

    let (mut store, report, seen) = open(home.path());
    assert_eq!(seen, before);
    assert!(report.torn.is_none() && report.damage.is_empty() && !report.index_rebuilt, "{report:?}");
    let found = store.record(ChainId([2; 16]), 3).unwrap().unwrap();
    assert_eq!((found.position, found.payload), (positions[3], record(3, 100_000).payload));
    assert_eq!(store.record(ChainId([2; 16]), 4).unwrap(), None);
    assert_eq!(store.record(ChainId([3; 16]), 3).unwrap(), None);
}

#[test]
fn a_payload_above_the_limit_is_refused_whole() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    let refused = store.append(&[record(1, 5), record(2, MAX_PAYLOAD + 1)]);
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    store.append(&[record(1, MAX_PAYLOAD)]).unwrap();
    drop(store);
    assert_eq!(seqs(&open(home.path()).2), [1]);
}

#[test]
fn segments_follow_each_other() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open_limited(home.path(), 1000);
    let group: Vec<_> = (1..=10).map(|seq| record(seq, 300)).collect();
    let positions = store.append(&group).unwrap();
    assert_eq!(positions.iter().map(|position| position.segment).collect::<Vec<_>>(), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    store.append(&[record(11, 5000)]).unwrap();
    drop(store);
    let (mut store, _, seen) = open_limited(home.path(), 1000);
    assert_eq!(seqs(&seen), (1..=11).collect::<Vec<_>>());
    assert_eq!(store.record(ChainId([2; 16]), 11).unwrap().unwrap().payload.len(), 5000);
    for number in 1..=6 {
        assert!(fs::metadata(segment(home.path(), number)).unwrap().len() <= 5000 + 40 + ENTRY_OVERHEAD as u64);
    }
}

/// A crash can leave any prefix of the newest group: at every byte, reopening gives the acknowledged entries, then a
/// prefix of the unacknowledged ones, and the log goes on from there.
#[test]
fn every_cut_of_the_last_group_is_survived() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    store.append(&[record(1, 40), record(2, 3)]).unwrap();
    let acknowledged = fs::metadata(segment(home.path(), 1)).unwrap().len();
    let written = store.append(&[record(3, 30), record(4, 0), record(5, 17)]).unwrap();
    let ends: Vec<u64> = written.iter().map(|at| u64::from(at.offset + at.len)).collect();
    drop(store);
    let whole = fs::metadata(segment(home.path(), 1)).unwrap().len();
    for cut in acknowledged..=whole {
        let copied = tempfile::tempdir().unwrap();
        copy(home.path(), copied.path());
        fs::File::options().write(true).open(segment(copied.path(), 1)).unwrap().set_len(cut).unwrap();
        let (mut store, report, seen) = open(copied.path());
        let kept = 2 + ends.iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(seqs(&seen), (1..=kept).collect::<Vec<_>>(), "cut at {cut}");
        assert!(report.damage.is_empty());
        let boundary = cut == acknowledged || ends.contains(&cut);
        assert_eq!(report.torn.is_none(), boundary, "cut at {cut}");
        assert_eq!(copied.path().join("log/0001.torn").exists(), !boundary);
        store.append(&[record(9, 8)]).unwrap();
        drop(store);
        assert_eq!(seqs(&open(copied.path()).2).last(), Some(&9));
    }
}

/// After a power cut the pages of the newest group may be on the disk in any selection.
#[test]
fn a_hole_in_the_last_group_is_an_unfinished_write() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    store.append(&[record(1, 40)]).unwrap();
    let positions = store.append(&[record(2, 30), record(3, 30), record(4, 30)]).unwrap();
    drop(store);
    for (hole, kept) in [(0, vec![1]), (1, vec![1, 2]), (2, vec![1, 2, 3])] {
        let copied = tempfile::tempdir().unwrap();
        copy(home.path(), copied.path());
        let mut bytes = fs::read(segment(copied.path(), 1)).unwrap();
        bytes[positions[hole].offset as usize..][..positions[hole].len as usize].fill(0);
        fs::write(segment(copied.path(), 1), bytes).unwrap();
        let (_, report, seen) = open(copied.path());
        assert_eq!(seqs(&seen), kept);
        assert!(report.damage.is_empty() && report.torn.is_some_and(|torn| torn.offset == positions[hole].offset));
    }
}

#[test]
fn damage_in_the_middle_costs_only_what_it_hit() {
    for number in [1, 2] {
        let home = tempfile::tempdir().unwrap();
        let (mut store, ..) = open_limited(home.path(), 1000);
        let mut positions = Vec::new();
        for seq in 1..=8 {
            positions.extend(store.append(&[record(seq, 150)]).unwrap());
        }
        drop(store);
        let hit = positions.iter().position(|position| position.segment == number).unwrap() + 1;
        let mut bytes = fs::read(segment(home.path(), number)).unwrap();
        let offset = positions[hit].offset as usize;
        // The length itself is destroyed, so that the next entry has to be searched.
        bytes[offset..offset + 20].fill(0xff);
        fs::write(segment(home.path(), number), &bytes).unwrap();

        let (mut store, report, seen) = open_limited(home.path(), 1000);
        let lost = hit as u64 + 1;
        let expected: Vec<u64> = (1..=8).filter(|seq| *seq != lost).collect();
        assert_eq!(seqs(&seen), expected);
        let damage = Damage { segment: number, offset: positions[hit].offset, len: positions[hit].len };
        assert_eq!(report.damage, [damage]);
        assert_eq!(fs::read(home.path().join(format!("log/{number:04}.damaged"))).unwrap(), bytes);
        assert_eq!(store.record(ChainId([2; 16]), lost).unwrap(), None);
        for (seq, position) in (1..=8).zip(&positions).filter(|(seq, _)| *seq != lost) {
            assert_eq!(store.record(ChainId([2; 16]), seq).unwrap().unwrap().position, *position);
        }
        drop(store);
        let (_, report, seen) = open_limited(home.path(), 1000);
        assert_eq!((report.damage.len(), seqs(&seen)), (0, expected), "mended once");
    }
}

#[test]
fn a_damaged_header_is_restored_from_another_segment() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open_limited(home.path(), 1000);
    store.append(&(1..=8).map(|seq| record(seq, 150)).collect::<Vec<_>>()).unwrap();
    drop(store);
    let mut bytes = fs::read(segment(home.path(), 1)).unwrap();
    bytes[..HEADER_LEN].fill(0);
    fs::write(segment(home.path(), 1), &bytes).unwrap();
    let (_, report, seen) = open_limited(home.path(), 1000);
    assert_eq!(seqs(&seen), (1..=8).collect::<Vec<_>>());
    assert_eq!(report.damage, [Damage { segment: 1, offset: 0, len: HEADER_LEN as u32 }]);
    assert!(open_limited(home.path(), 1000).1.damage.is_empty());
}

#[test]
fn a_log_without_any_header_is_set_aside() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    store.append(&[own(1, 10)]).unwrap();
    drop(store);
    let mut bytes = fs::read(segment(home.path(), 1)).unwrap();
    bytes[3] ^= 1;
    fs::write(segment(home.path(), 1), bytes).unwrap();
    let (mut store, report, seen) = open(home.path());
    assert!(seen.is_empty() && report.damage.len() == 1);
    assert_eq!(report.rolled_back.len(), 1, "what the node wrote itself is known to be lost");
    assert_eq!(store.record(ChainId([2; 16]), 1).unwrap(), None);
    store.append(&[record(5, 5)]).unwrap();
    drop(store);
    assert_eq!(seqs(&open(home.path()).2), [5]);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()));
    let mut bytes = fs::read(segment(home.path(), 1)).unwrap();
    bytes[9] = 2;
    let check = super::segment::truncated(blake3::hash(&bytes[..32]));
    bytes[32..40].copy_from_slice(&check);
    fs::write(segment(home.path(), 1), &bytes).unwrap();
    let refused = Store::open(home.path(), &mut ChaCha20Rng::seed_from_u64(1), |_| {});
    assert!(matches!(refused.err(), Some(StoreError::NewerFormat { segment: 1, version: 2 })));
    assert_eq!(fs::read(segment(home.path(), 1)).unwrap(), bytes);
}

#[test]
fn a_lost_or_broken_index_is_built_again() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    store.append(&(1..=3000).map(|seq| record(seq, 20)).collect::<Vec<_>>()).unwrap();
    drop(store);
    fs::remove_dir_all(home.path().join("index")).unwrap();
    let (mut store, report, _) = open(home.path());
    assert!(report.index_rebuilt && !report.index_replaced);
    assert_eq!(store.record(ChainId([2; 16]), 2999).unwrap().unwrap().payload, record(2999, 20).payload);
    drop(store);

    for name in ["conf", "db"] {
        fs::write(home.path().join("index").join(name), [0x5a; 100]).unwrap();
    }
    let (mut store, report, _) = open(home.path());
    assert!(report.index_rebuilt && report.index_replaced, "{report:?}");
    assert!(home.path().join("index.broken").exists());
    assert_eq!(store.record(ChainId([2; 16]), 1).unwrap().unwrap().payload, record(1, 20).payload);
    store.index.flush().unwrap();
    drop(store);
    assert!(!open(home.path()).1.index_rebuilt);
}

/// An index that lags or lies is found out at the first use.
#[test]
fn the_index_is_never_trusted_over_the_log() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    let positions = store.append(&[record(1, 20), record(2, 20)]).unwrap();
    let index = store.index();
    let wrong = positions[1].to_bytes().to_vec();
    index.put_many(RECORDS, vec![(record_key(ChainId([2; 16]), 1).to_vec(), wrong)]).unwrap();
    assert_eq!(store.record(ChainId([2; 16]), 1).unwrap().unwrap().position, positions[0]);
    index.put_many(RECORDS, vec![(record_key(ChainId([2; 16]), 2).to_vec(), vec![1, 2])]).unwrap();
    assert_eq!(store.record(ChainId([2; 16]), 2).unwrap().unwrap().position, positions[1]);
}

#[test]
fn index_trees_hold_small_values_in_order() {
    let home = tempfile::tempdir().unwrap();
    let (store, ..) = open(home.path());
    let index = store.index();
    let item = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    index.put_many("queue", vec![item("b/2", "two"), item("b/1", "one"), item("c/1", "other")]).unwrap();
    index.remove_many("queue", vec![b"none".to_vec()]).unwrap();
    let mut seen = Vec::new();
    index
        .scan_prefix("queue", b"b/", &mut |_, value| {
            seen.push(value.to_vec());
            true
        })
        .unwrap();
    assert_eq!(seen, [b"one", b"two"]);
    let large = index.put_many("queue", vec![item("d", "x"), (b"e".to_vec(), vec![0; 4096])]);
    assert!(matches!(large, Err(IndexError::TooLarge)));
    assert_eq!(index.get("queue", b"d").unwrap(), None);
    drop((store, index));
    let (store, ..) = open(home.path());
    assert_eq!(store.index().get("queue", b"c/1").unwrap().as_deref(), Some(&b"other"[..]));
}

#[test]
fn a_log_behind_the_heads_is_a_rollback() {
    let home = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    store.append(&[own(1, 10), own(2, 10)]).unwrap();
    drop(store);
    copy(&home.path().join("log"), &old.path().join("log"));
    let (mut store, report, _) = open(home.path());
    assert!(report.rolled_back.is_empty());
    store.append(&[own(3, 10)]).unwrap();
    assert_eq!(store.head(&ObjectId([1; 32])).unwrap().seq, 3);
    drop(store);
    // The log of yesterday under the heads of today.
    copy(&old.path().join("log"), &home.path().join("log"));
    let (mut store, report, seen) = open(home.path());
    assert_eq!(seqs(&seen), [1, 2]);
    let head = Head { object: ObjectId([1; 32]), chain: ChainId([2; 16]), seq: 3, id: RecordId([3; 32]) };
    assert_eq!(report.rolled_back, [RolledBack { head, found: 2 }]);
    assert!(report.index_rebuilt, "the index was ahead of the log");
    assert_eq!(store.record(ChainId([2; 16]), 3).unwrap(), None);
    // With a new incarnation the object has a new chain and the alarm ends.
    let fresh = NewEntry { kind: EntryKind::Record { chain: ChainId([8; 16]), seq: 1, own: true }, ..own(1, 10) };
    store.append(&[fresh]).unwrap();
    drop(store);
    assert!(open(home.path()).1.rolled_back.is_empty());
}

#[test]
fn a_torn_write_of_a_head_leaves_the_one_before() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    for seq in 1..=4 {
        store.append(&[own(seq, 5), NewEntry { object: ObjectId([7; 32]), ..own(seq, 5) }]).unwrap();
    }
    drop(store);
    let path = home.path().join("heads/newest");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() / 512 {
        let mut bytes = whole.clone();
        bytes[at * 512 + 60] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let (store, report, _) = open(home.path());
        assert!(report.rolled_back.is_empty());
        for object in [[1; 32], [7; 32]] {
            let head = store.head(&ObjectId(object));
            assert!(head.map_or(at == 0, |head| head.seq >= 3), "slot {at}: {head:?}");
        }
        drop(store);
        fs::write(&path, &whole).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever bytes are flipped, every entry that is yielded was appended, unchanged and in order, and every entry
    /// of an earlier segment and before the damage is still there.
    #[test]
    fn no_damage_invents_or_reorders(
        sizes in proptest::collection::vec(0..400_usize, 1..20),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..6),
    ) {
        let home = tempfile::tempdir().unwrap();
        let (mut store, ..) = open_limited(home.path(), 2000);
        let mut appended = BTreeMap::new();
        for (seq, size) in (1..).zip(&sizes) {
            store.append(&[record(seq, *size)]).unwrap();
            appended.insert(seq, record(seq, *size).payload);
        }
        drop(store);
        let mut bytes = fs::read(segment(home.path(), 1)).unwrap();
        let mut first = bytes.len();
        for (place, flip) in flips {
            let place = HEADER_LEN + place.index(bytes.len() - HEADER_LEN);
            bytes[place] ^= flip;
            first = first.min(place);
        }
        fs::write(segment(home.path(), 1), bytes).unwrap();
        let (_, _, seen) = open_limited(home.path(), 2000);
        prop_assert!(seqs(&seen).is_sorted_by(|a, b| a < b));
        for entry in &seen {
            let EntryKind::Record { seq, .. } = entry.kind else { panic!("only records were appended") };
            prop_assert_eq!(&entry.payload, &appended[&seq]);
        }
        let mut end = HEADER_LEN;
        for (seq, size) in (1..).zip(&sizes) {
            end += size + ENTRY_OVERHEAD;
            if end <= first {
                prop_assert!(seqs(&seen).contains(&seq));
            }
        }
        let again = open_limited(home.path(), 2000);
        prop_assert!(again.1.damage.is_empty() && again.1.torn.is_none());
        prop_assert_eq!(again.2, seen);
    }
}

#[tokio::test]
async fn waiting_appends_share_one_group() {
    let home = tempfile::tempdir().unwrap();
    let (store, ..) = open(home.path());
    let (handle, thread) = StoreHandle::spawn(store).unwrap();
    // The thread is held, alone, until all appends wait.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (holding, is_held) = tokio::sync::oneshot::channel();
    let blocker = tokio::spawn({
        let handle = handle.clone();
        async move { handle.run(move |_| holding.send(()).is_ok() && held.recv().is_ok()).await }
    });
    is_held.await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for seq in 1..=100 {
        let handle = handle.clone();
        waiting.spawn(async move { handle.append(vec![record(seq, 10), record(1000 + seq, 10)]).await.unwrap() });
    }
    while handle.waiting() < 100 {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert!(blocker.await.unwrap().unwrap());
    while let Some(positions) = waiting.join_next().await {
        assert_eq!(positions.unwrap().len(), 2);
    }
    assert!(handle.record(ChainId([2; 16]), 1100).await.unwrap().is_some());
    handle.put_many("t", vec![(vec![1], vec![2])]).await.unwrap();
    assert_eq!(handle.get("t", vec![1]).await.unwrap(), Some(vec![2]));
    let oversize = handle.append(vec![record(1, MAX_PAYLOAD + 1)]).await;
    assert!(matches!(oversize, Err(StoreError::TooLarge { .. })));
    drop(handle);
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    let (_, report, seen) = open(home.path());
    assert_eq!((seen.len(), report.index_rebuilt), (200, false));
    let bytes = fs::read(segment(home.path(), 1)).unwrap();
    let group = |entry: &Entry| bytes[entry.position.offset as usize + 4..][..4].to_vec();
    let groups: std::collections::BTreeSet<_> = seen.iter().map(group).collect();
    assert_eq!(groups.len(), 1, "entries of one flush name the same group");
}

/// Cost of a durable append, to be run by hand: `cargo test --release -p meshwork -- --ignored store::tests::cost`.
#[test]
#[ignore = "a measurement"]
fn cost_of_an_append() {
    let home = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let (mut store, ..) = open(home.path());
    let mut time = |name: &str, entry: &dyn Fn(u64) -> NewEntry| {
        let mut times: Vec<_> = (0..300)
            .map(|seq| {
                let start = std::time::Instant::now();
                store.append(&[entry(seq)]).unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{name}: median {:?}, p90 {:?}", times[150], times[270]);
    };
    time("foreign record", &|seq| record(seq, 1000));
    time("own record", &|seq| own(seq + 1000, 1000));
}

/// `cargo test -p meshwork --lib store::tests::an_idle -- --ignored --nocapture`; other tests must not run beside it.
#[tokio::test]
#[ignore = "a measurement that takes 20 s"]
async fn an_idle_store_writes_nothing() {
    let home = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let (handle, _thread) = StoreHandle::spawn(open(home.path()).0).unwrap();
    let written = || {
        fs::read_to_string("/proc/self/io")
            .unwrap()
            .lines()
            .find(|line| line.starts_with("write_bytes"))
            .unwrap()
            .to_owned()
    };
    handle.append(vec![own(1, 100)]).await.unwrap();
    let busy = written();
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let idle = written();
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    assert_eq!(written(), idle);
    println!("after an append {busy}, after the flush of the index and for 12 s {idle}");
}

/// Time to open a log of 256 MiB of records of 100 KiB, with and without an index.
#[test]
#[ignore = "a measurement"]
fn cost_of_opening() {
    let home = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let (mut store, ..) = open(home.path());
    for group in 0..26 {
        store.append(&(1..=100).map(|seq| record(group * 100 + seq, 100 << 10)).collect::<Vec<_>>()).unwrap();
    }
    drop(store);
    for title in ["open", "open without an index"] {
        let start = std::time::Instant::now();
        drop(Store::open(home.path(), &mut ChaCha20Rng::seed_from_u64(7), |_| ()).unwrap());
        println!("{title}: {:?}", start.elapsed());
        fs::remove_dir_all(home.path().join("index")).unwrap();
    }
}
