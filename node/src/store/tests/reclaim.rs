//! What is needed no more leaves the disk, and nothing else does, whatever happens meanwhile.

use std::{collections::BTreeSet, sync::mpsc, time::Instant};

use super::*;

const MINE: ChainId = ChainId([2; 16]);
const OTHER: ChainId = ChainId([3; 16]);

fn of(chain: ChainId, seq: u64, len: usize) -> NewEntry {
    let payload = (0..len).map(|at| (at as u64 * 31 + seq + u64::from(chain.0[0])) as u8).collect();
    let kind = EntryKind::Record { chain, seq, own: chain == MINE };
    NewEntry { object: ObjectId([1; 32]), kind, payload, head: None }
}

fn floor(chain: ChainId, seq: u64) -> NewEntry {
    NewEntry { kind: EntryKind::Floor { chain, seq }, payload: Vec::new(), ..of(chain, seq, 0) }
}

fn control(len: usize) -> NewEntry {
    NewEntry { kind: EntryKind::Control, ..of(OTHER, 0, len) }
}

/// A store with segments of `limit` bytes that rewrites them however little there is to gain.
fn eager(home: &Path, limit: u32) -> (Store, OpenReport, Vec<Entry>) {
    let (mut store, report, seen) = open_limited(home, limit);
    store.waste.least = 1;
    (store, report, seen)
}

fn reclaim_all(store: &mut Store) -> Reclaimed {
    let mut all = Reclaimed::default();
    loop {
        let step = store.reclaim().unwrap();
        all.freed += step.freed;
        all.segments += step.segments;
        if !step.more {
            return all;
        }
    }
}

fn scan(store: &Store) -> Vec<Entry> {
    store.scan().unwrap().collect::<Result<_, _>>().unwrap()
}

fn contents(entries: &[Entry]) -> Vec<(EntryKind, Vec<u8>)> {
    entries.iter().map(|entry| (entry.kind, entry.payload.clone())).collect()
}

fn contents_of(entries: &[NewEntry]) -> Vec<(EntryKind, Vec<u8>)> {
    entries.iter().map(|entry| (entry.kind, entry.payload.clone())).collect()
}

fn size_of_log(home: &Path) -> u64 {
    fs::read_dir(home.join("log")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Two chains by turns, places 1 to `count`; the first has more than half of the bytes.
fn two_chains(count: u64, len: usize) -> Vec<NewEntry> {
    (1..=count).flat_map(|seq| [of(MINE, seq, len + 50), of(OTHER, seq, len)]).collect()
}

/// Whether an entry may not go when the two chains count from these places on.
fn is_needed(kind: &EntryKind, mine: u64, other: u64) -> bool {
    match kind {
        EntryKind::Record { chain, seq, .. } => *seq >= if *chain == MINE { mine } else { other },
        EntryKind::Control | EntryKind::Floor { .. } => true,
    }
}

#[track_caller]
fn assert_found(store: &mut Store, entries: &[NewEntry]) {
    for entry in entries {
        let EntryKind::Record { chain, seq, .. } = entry.kind else { continue };
        let found = store.record(chain, seq).unwrap().unwrap_or_else(|| panic!("{seq} of {chain:?} is lost"));
        assert_eq!((found.kind, &found.payload), (entry.kind, &entry.payload));
        assert_eq!(store.read(found.position).unwrap(), found);
    }
}

#[test]
fn what_was_forgotten_leaves_the_disk_and_all_else_stays() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), 4000);
    let mut entries = two_chains(100, 100);
    entries.insert(7, control(50));
    entries.insert(11, floor(MINE, 3));
    entries.push(floor(MINE, 91));
    store.append(&entries).unwrap();
    assert_eq!(reclaim_all(&mut store), Reclaimed::default(), "nothing is dead but an old floor");
    let before = size_of_log(home.path());

    store.forget(MINE, 91).unwrap();
    store.forget(MINE, 50).unwrap();
    store.forget(OTHER, 81).unwrap();
    assert_eq!(store.record(MINE, 90).unwrap(), None, "before anything was rewritten");
    let reclaimed = reclaim_all(&mut store);
    entries.retain(|entry| is_needed(&entry.kind, 91, 81) && entry.kind != floor(MINE, 3).kind);
    assert!(reclaimed.segments > 5 && reclaimed.freed > before * 3 / 4, "{reclaimed:?} of {before}");
    assert_eq!(size_of_log(home.path()), before - reclaimed.freed);
    let seen = scan(&store);
    let needed: Vec<Entry> = seen.iter().filter(|entry| is_needed(&entry.kind, 91, 81)).cloned().collect();
    assert_eq!(contents(&needed), contents_of(&entries));
    assert!(seen.len() - needed.len() < 20, "only what is in a segment of which most is needed stays");
    assert_found(&mut store, &entries);
    assert_eq!(store.record(OTHER, 80).unwrap(), None);

    drop(store);
    let (mut store, report, again) = eager(home.path(), 4000);
    assert!(!report.index_rebuilt && report.damage.is_empty() && report.torn.is_none(), "{report:?}");
    assert_eq!(again, seen);
    assert_found(&mut store, &entries);
    store.append(&[of(MINE, 101, 10)]).unwrap();
    drop(store);
    let (_, _, last) = eager(home.path(), 4000);
    assert_eq!(last[..seen.len()], seen);
    assert_eq!(contents(&last[seen.len()..]), contents_of(&[of(MINE, 101, 10)]));
}

#[test]
fn a_segment_is_left_alone_below_either_limit() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(home.path());
    store.append(&two_chains(40, 20_000)).unwrap();
    store.forget(MINE, 41).unwrap();
    assert_eq!(store.reclaim().unwrap(), Reclaimed::default(), "half of it, but less than a MiB");
    store
        .append(&(41..=100).flat_map(|seq| [of(MINE, seq, 20_000), of(OTHER, seq, 30_000)]).collect::<Vec<_>>())
        .unwrap();
    store.forget(MINE, 90).unwrap();
    assert_eq!(store.reclaim().unwrap(), Reclaimed::default(), "more than a MiB, but less than half");
    store.forget(OTHER, 60).unwrap();
    let dead =
        40 * 50 + 89 * (20_000 + ENTRY_OVERHEAD) + 40 * (20_000 + ENTRY_OVERHEAD) + 19 * (30_000 + ENTRY_OVERHEAD);
    let reclaimed = store.reclaim().unwrap();
    assert_eq!(reclaimed, Reclaimed { freed: dead as u64, segments: 1, more: false });
}

#[test]
fn a_segment_of_which_nothing_remains_is_removed_and_the_log_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), super::super::log::SEGMENT_LIMIT);
    store.append(&two_chains(10, 100)).unwrap();
    store.forget(MINE, 100).unwrap();
    store.forget(OTHER, 100).unwrap();
    assert_eq!(reclaim_all(&mut store).segments, 1);
    assert!(!segment(home.path(), 1).exists() && segment(home.path(), 2).exists());
    assert_eq!(size_of_log(home.path()), HEADER_LEN as u64);
    drop(store);
    let (mut store, report, seen) = eager(home.path(), 1000);
    assert!(seen.is_empty() && !report.index_rebuilt && report.damage.is_empty(), "{report:?}");
    let entries = two_chains(3, 10);
    store.append(&entries).unwrap();
    drop(store);
    let (mut store, _, seen) = eager(home.path(), 1000);
    assert_eq!(contents(&seen), contents_of(&entries));
    assert_found(&mut store, &entries);
}

#[test]
fn what_is_said_again_after_a_restart_counts_as_before() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), super::super::log::SEGMENT_LIMIT);
    let entries = two_chains(10, 100);
    store.append(&entries).unwrap();
    store.forget(MINE, 9).unwrap();
    assert_eq!(store.reclaim().unwrap().segments, 0);
    drop(store);
    let (mut store, ..) = eager(home.path(), 4000);
    assert!(store.record(MINE, 8).unwrap().is_some(), "not said again yet");
    store.forget(MINE, 9).unwrap();
    store.forget(OTHER, 4).unwrap();
    assert_eq!(store.reclaim().unwrap().freed, (8 * (150 + ENTRY_OVERHEAD) + 3 * (100 + ENTRY_OVERHEAD)) as u64);
    assert_found(&mut store, &entries[16..]);
}

#[test]
fn a_place_that_was_forgotten_stays_forgotten_when_it_comes_again() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), super::super::log::SEGMENT_LIMIT);
    store.forget(OTHER, 5).unwrap();
    store.append(&[of(OTHER, 4, 100), of(OTHER, 5, 10)]).unwrap();
    assert_eq!(store.record(OTHER, 4).unwrap(), None);
    assert_eq!(store.reclaim().unwrap().freed, (100 + ENTRY_OVERHEAD) as u64);
    assert_found(&mut store, &[of(OTHER, 5, 10)]);
}

#[test]
fn the_newest_own_record_is_never_let_go() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), 2000);
    for seq in 1..=30 {
        store.append(&[own(seq, 100)]).unwrap();
    }
    store.forget(MINE, 1000).unwrap();
    assert!(reclaim_all(&mut store).segments > 0);
    assert_eq!(seqs(&scan(&store)), [30]);
    drop(store);
    let (store, report, seen) = eager(home.path(), 2000);
    assert!(report.rolled_back.is_empty(), "{report:?}");
    assert_eq!((seqs(&seen), store.head(&ObjectId([1; 32])).unwrap().seq), (vec![30], 30));
}

/// All records have one length, so that others come to stand where those that are looked for stood.
#[test]
fn a_place_of_before_never_leads_to_another_entry() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), 4000);
    let entries: Vec<_> =
        (1..=100).flat_map(|seq| [of(MINE, 2 * seq - 1, 100), of(MINE, 2 * seq, 100), of(OTHER, seq, 100)]).collect();
    let old = store.append(&entries).unwrap();
    let reader = store.reader();
    let mut under_way = store.scan().unwrap();
    under_way.by_ref().take(3).for_each(|entry| drop(entry.unwrap()));
    store.forget(MINE, 190).unwrap();
    let nowhere = Position { offset: old[2].offset + 1, ..old[2] }.to_bytes().to_vec();
    store.index().put_many(RECORDS, vec![(record_key(OTHER, 1).to_vec(), nowhere)]).unwrap();
    reclaim_all(&mut store);
    assert_found(&mut store, &entries[2..3]);
    let places: BTreeSet<_> =
        scan(&store).iter().map(|entry| (entry.position.segment, entry.position.offset)).collect();
    let shared = old.iter().filter(|position| places.contains(&(position.segment, position.offset))).count();
    assert!(shared > 50, "{shared} old places are places of other entries now");
    let mut moved = 0;
    for (position, entry) in old.iter().zip(&entries) {
        match reader.read(*position) {
            Ok(found) => assert_eq!((found.kind, &found.payload), (entry.kind, &entry.payload)),
            Err(StoreError::Moved { .. }) => moved += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(moved > 250, "{moved} of {} were told apart", old.len());
    // A segment that was being read is read to its end as it was.
    let rest: Vec<Entry> = under_way.map(Result::unwrap).collect();
    let first: Vec<_> = rest.iter().take_while(|entry| entry.position.segment == 1).collect();
    assert_eq!(first.len(), old.iter().filter(|position| position.segment == 1).count() - 3);
    // So is a row of the index that was not put right.
    let stale = old.iter().zip(&entries).filter_map(|(position, entry)| match entry.kind {
        EntryKind::Record { chain: OTHER, seq, .. } => {
            Some((record_key(OTHER, seq).to_vec(), position.to_bytes().to_vec()))
        }
        _ => None,
    });
    store.index().put_many(RECORDS, stale.collect()).unwrap();
    assert_found(&mut store, &entries.into_iter().filter(|entry| !entry.kind.is_mine()).collect::<Vec<_>>());
}

impl EntryKind {
    fn is_mine(&self) -> bool {
        matches!(self, EntryKind::Record { chain: MINE, .. })
    }
}

/// What a crash leaves: the file beside the segment at any length, or the new segments under an index of before.
#[test]
fn a_crash_in_the_middle_of_a_rewriting_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let entries = two_chains(60, 100);
    let (mut store, ..) = eager(home.path(), 4000);
    store.append(&entries[..80]).unwrap();
    drop(store);
    let indices = tempfile::tempdir().unwrap();
    copy(&home.path().join("index"), &indices.path().join("early"));
    let (mut store, ..) = eager(home.path(), 4000);
    store.append(&entries[80..]).unwrap();
    drop(store);
    copy(&home.path().join("index"), &indices.path().join("late"));
    let before = tempfile::tempdir().unwrap();
    copy(home.path(), before.path());
    let (mut store, ..) = eager(home.path(), 4000);
    store.forget(MINE, 50).unwrap();
    assert!(reclaim_all(&mut store).segments > 3);
    let after = contents(&scan(&store));
    drop(store);
    let alive: Vec<NewEntry> = entries
        .iter()
        .filter(|entry| !matches!(entry.kind, EntryKind::Record { chain: MINE, seq, .. } if seq < 50))
        .cloned()
        .collect();
    assert_eq!(after, contents_of(&alive).into_iter().collect::<Vec<_>>());

    // Before the rename.
    let new = fs::read(segment(home.path(), 1)).unwrap();
    for len in [0, 10, HEADER_LEN, HEADER_LEN + 30, new.len() - 1, new.len()] {
        let crashed = tempfile::tempdir().unwrap();
        copy(before.path(), crashed.path());
        let left = crashed.path().join("log/0001.new");
        fs::write(&left, &new[..len]).unwrap();
        let (mut store, report, seen) = eager(crashed.path(), 4000);
        assert!(!left.exists() && report.damage.is_empty() && !report.index_rebuilt);
        assert_eq!(contents(&seen), contents_of(&entries));
        store.forget(MINE, 50).unwrap();
        reclaim_all(&mut store);
        assert_eq!(contents(&scan(&store)), after);
    }

    // After it: the index knows the old places only, or not even that of what was appended last.
    for index in ["late", "early"] {
        let crashed = tempfile::tempdir().unwrap();
        copy(home.path(), crashed.path());
        fs::remove_dir_all(crashed.path().join("index")).unwrap();
        copy(&indices.path().join(index), &crashed.path().join("index"));
        let (mut store, report, seen) = eager(crashed.path(), 4000);
        assert!(report.index_rebuilt && report.damage.is_empty(), "{index}: {report:?}");
        assert_eq!(contents(&seen), after);
        assert_found(&mut store, &alive);
        store.forget(MINE, 50).unwrap();
        assert_eq!(reclaim_all(&mut store), Reclaimed::default(), "no row is left of what is gone");
        drop(store);
        assert!(!eager(crashed.path(), 4000).1.index_rebuilt, "{index}: put right once");
    }
}

#[test]
fn a_segment_that_cannot_be_read_is_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), 4000);
    let mut entries = two_chains(60, 100);
    let positions = store.append(&entries).unwrap();
    let mut bytes = fs::read(segment(home.path(), 1)).unwrap();
    let hit = positions[5];
    bytes[hit.offset as usize + 70] ^= 1;
    fs::write(segment(home.path(), 1), &bytes).unwrap();
    store.forget(MINE, 55).unwrap();
    store.forget(OTHER, 2).unwrap();
    let refused = store.reclaim();
    let expected = (1, hit.offset);
    assert!(matches!(refused, Err(StoreError::Damaged { segment, offset }) if (segment, offset) == expected));
    assert!(reclaim_all(&mut store).segments > 2, "the others are rewritten");
    assert_eq!(fs::read(segment(home.path(), 1)).unwrap(), bytes);
    assert!(!home.path().join("log/0001.new").exists());
    drop(store);

    // The next open mends it, and filler is not kept.
    let (mut store, report, _) = eager(home.path(), 4000);
    assert_eq!(report.damage.len(), 1);
    store.forget(MINE, 55).unwrap();
    store.forget(OTHER, 2).unwrap();
    assert_eq!(store.reclaim().unwrap().segments, 1);
    entries.remove(5);
    entries.retain(|entry| is_needed(&entry.kind, 55, 2));
    let mut seen = scan(&store);
    seen.retain(|entry| is_needed(&entry.kind, 55, 2));
    assert_eq!(contents(&seen), contents_of(&entries));
    let (whole, header) = ((100 + ENTRY_OVERHEAD) as u64, HEADER_LEN as u64);
    let kept = positions
        .iter()
        .zip(two_chains(60, 100))
        .filter(|(position, entry)| position.segment == 1 && !entry.kind.is_mine());
    assert_eq!(fs::metadata(segment(home.path(), 1)).unwrap().len(), header + (kept.count() as u64 - 2) * whole);
    assert_found(&mut store, &entries);
    drop(store);
    let (_, report, mut seen) = eager(home.path(), 4000);
    seen.retain(|entry| is_needed(&entry.kind, 55, 2));
    assert!(report.damage.is_empty() && contents(&seen) == contents_of(&entries));
}

#[test]
fn a_rewritten_segment_is_mended_as_any_other() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), 4000);
    store.append(&two_chains(60, 100)).unwrap();
    store.forget(MINE, 60).unwrap();
    reclaim_all(&mut store);
    let before = scan(&store);
    drop(store);
    for from in [0, before[2].position.offset as usize] {
        let copied = tempfile::tempdir().unwrap();
        copy(home.path(), copied.path());
        let mut bytes = fs::read(segment(copied.path(), 1)).unwrap();
        bytes[from..from + 30].fill(0xff);
        fs::write(segment(copied.path(), 1), &bytes).unwrap();
        let (mut store, report, seen) = eager(copied.path(), 4000);
        assert!(report.damage.len() == 1 && report.torn.is_none(), "{report:?}");
        let mut expected = contents(&before);
        if from > 0 {
            expected.remove(2);
        }
        assert_eq!(contents(&seen), expected);
        for entry in &seen {
            let EntryKind::Record { chain, seq, .. } = entry.kind else { continue };
            assert_eq!(store.record(chain, seq).unwrap().unwrap().payload, entry.payload);
        }
        drop(store);
        assert!(!eager(copied.path(), 4000).1.index_rebuilt);
    }
}

/// Readers on other threads go on while segments are replaced under them.
#[test]
fn readers_see_what_they_look_for_or_that_it_moved() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, ..) = eager(home.path(), 20_000);
    let entries = two_chains(300, 100);
    let positions = store.append(&entries).unwrap();
    let reader = store.reader();
    let (passed, passes) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let reading = std::thread::spawn(move || {
        loop {
            let last = ended.try_recv().is_ok();
            let mut moved = 0;
            for (position, entry) in positions.iter().zip(&entries) {
                match reader.read(*position) {
                    Ok(found) => assert_eq!((found.kind, &found.payload), (entry.kind, &entry.payload)),
                    Err(StoreError::Moved { .. }) => moved += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            // Nobody listens in the end.
            let _ = passed.send(moved);
            if last {
                return moved;
            }
        }
    });
    assert_eq!(passes.recv().unwrap(), 0);
    for below in (20..=300).step_by(20) {
        store.forget(MINE, below).unwrap();
        store.forget(OTHER, below / 2).unwrap();
        reclaim_all(&mut store);
        passes.recv().unwrap();
    }
    end.send(()).unwrap();
    assert!(reading.join().unwrap() > 400);
    assert_found(&mut store, &two_chains(300, 100).split_off(599));
}

#[tokio::test]
async fn a_handle_forgets_and_reclaims_between_appends() {
    let home = tempfile::tempdir().unwrap();
    let (store, ..) = eager(home.path(), 4000);
    let (handle, thread) = StoreHandle::spawn(store).unwrap();
    handle.append(two_chains(50, 100)).await.unwrap();
    handle.forget(MINE, 50).await.unwrap();
    let mut steps = 0;
    while handle.reclaim().await.unwrap().more {
        steps += 1;
        handle.append(vec![of(OTHER, 50 + steps, 100)]).await.unwrap();
    }
    assert!(steps > 1);
    assert_eq!(handle.record(MINE, 49).await.unwrap(), None);
    for seq in 1..=50 + steps {
        assert!(handle.record(OTHER, seq).await.unwrap().is_some());
    }
    drop(handle);
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<(u8, usize)>),
    Floor(u8),
    Forget(u8, prop::sample::Index),
    Reclaim,
    ReclaimAll,
    Reopen { without_index: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec((0..4_u8, 0..300_usize), 1..12).prop_map(Op::Append),
        1 => (1..4_u8).prop_map(Op::Floor),
        4 => (1..4_u8, any::<prop::sample::Index>()).prop_map(|(chain, below)| Op::Forget(chain, below)),
        2 => Just(Op::Reclaim),
        2 => Just(Op::ReclaimAll),
        1 => any::<bool>().prop_map(|without_index| Op::Reopen { without_index }),
    ]
}

/// What was appended and what was said to be needed no more. Chain 0 stands for control statements; 1 has heads.
#[derive(Default)]
struct Model {
    appended: Vec<(EntryKind, Vec<u8>)>,
    length: BTreeMap<u8, u64>,
    /// Since the last open.
    below: BTreeMap<ChainId, u64>,
    ever_below: BTreeMap<ChainId, u64>,
}

impl Model {
    fn entry(&mut self, chain: u8, len: usize) -> NewEntry {
        let seq = self.length.entry(chain).or_default();
        *seq += 1;
        let new = match chain {
            0 => control(len),
            1 => own(*seq, len),
            _ => of(ChainId([chain + 1; 16]), *seq, len),
        };
        self.appended.push((new.kind, new.payload.clone()));
        new
    }

    fn apply(&mut self, op: Op, store: &mut Option<Store>, home: &Path) {
        let open = store.as_mut().unwrap();
        match op {
            Op::Append(parts) => {
                let entries: Vec<_> = parts.into_iter().map(|(chain, len)| self.entry(chain, len)).collect();
                open.append(&entries).unwrap();
            }
            Op::Floor(chain) => {
                // No two are alike, so that it can be told which is there.
                let new = floor(ChainId([chain + 1; 16]), self.appended.len() as u64);
                self.appended.push((new.kind, Vec::new()));
                open.append(&[new]).unwrap();
            }
            Op::Forget(chain, below) => {
                let length = self.length.get(&chain).copied().unwrap_or(0);
                let below = below.index(length as usize + 1) as u64;
                let chain = ChainId([chain + 1; 16]);
                open.forget(chain, below).unwrap();
                for said in [&mut self.below, &mut self.ever_below] {
                    let said = said.entry(chain).or_default();
                    *said = below.max(*said);
                }
            }
            Op::Reclaim => drop(open.reclaim().unwrap()),
            Op::ReclaimAll => {
                reclaim_all(open);
                self.assert_small(open, home);
            }
            Op::Reopen { without_index } => {
                drop(store.take());
                if without_index {
                    fs::remove_dir_all(home.join("index")).unwrap();
                }
                let (again, report, seen) = eager(home, 2000);
                assert!(report.damage.is_empty() && report.torn.is_none() && report.rolled_back.is_empty());
                let records = seen.iter().any(|entry| matches!(entry.kind, EntryKind::Record { .. }));
                assert!(without_index || !records || !report.index_rebuilt, "{report:?}");
                *store = Some(again);
                self.below.clear();
            }
        }
    }

    fn newest_floors(&self) -> BTreeMap<ChainId, usize> {
        let floor = |(at, (kind, _)): (usize, &(EntryKind, Vec<u8>))| match kind {
            EntryKind::Floor { chain, .. } => Some((*chain, at)),
            _ => None,
        };
        self.appended.iter().enumerate().filter_map(floor).collect()
    }

    /// The log is what was appended, in order, without some of what is needed no more.
    fn assert_right(&self, store: &mut Store) {
        let seen = contents(&scan(store));
        let floors = self.newest_floors();
        let mut left = seen.iter().peekable();
        for (at, appended) in self.appended.iter().enumerate() {
            if left.next_if_eq(&appended).is_some() {
                continue;
            }
            match appended.0 {
                EntryKind::Control => panic!("a control statement is lost"),
                EntryKind::Record { chain, seq, .. } => {
                    assert!(
                        self.ever_below.get(&chain).is_some_and(|below| seq < *below),
                        "{seq} of {chain:?} is lost"
                    );
                }
                EntryKind::Floor { chain, .. } => assert!(floors[&chain] > at, "the newest floor is lost"),
            }
        }
        assert_eq!(left.next(), None, "what was not appended, or in another order");
        for (kind, payload) in &self.appended {
            let EntryKind::Record { chain, seq, .. } = *kind else { continue };
            let found = store.record(chain, seq).unwrap();
            if self.below.get(&chain).is_some_and(|below| seq < *below) {
                assert_eq!(found, None);
            } else if self.ever_below.get(&chain).is_none_or(|below| seq >= *below) {
                assert_eq!(found.map(|found| (found.kind, found.payload)).as_ref(), Some(&(*kind, payload.clone())));
            }
        }
    }

    /// No segment is left of which half is dead.
    fn assert_small(&self, store: &Store, home: &Path) {
        let entries = scan(store);
        let newest: BTreeMap<ChainId, Position> = entries
            .iter()
            .filter_map(|entry| match entry.kind {
                EntryKind::Floor { chain, .. } => Some((chain, entry.position)),
                _ => None,
            })
            .collect();
        let mut dead = BTreeMap::<u32, u64>::new();
        for entry in &entries {
            let is_dead = match entry.kind {
                EntryKind::Control => false,
                EntryKind::Record { chain, seq, .. } => self.below.get(&chain).is_some_and(|below| seq < *below),
                EntryKind::Floor { chain, .. } => newest[&chain] != entry.position,
            };
            *dead.entry(entry.position.segment).or_default() += if is_dead { u64::from(entry.position.len) } else { 0 };
        }
        for (number, dead) in dead {
            let size = fs::metadata(segment(home, number)).unwrap().len();
            assert!(dead * 2 < size, "{dead} of {size} bytes of segment {number} are dead");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_only_what_is_forgotten_goes(ops in prop::collection::vec(op(), 1..40)) {
        let home = tempfile::tempdir().unwrap();
        let mut store = Some(eager(home.path(), 2000).0);
        let mut model = Model::default();
        for op in ops {
            model.apply(op, &mut store, home.path());
            model.assert_right(store.as_mut().unwrap());
        }
    }
}

/// Time to rewrite a segment of 64 MiB of which half is dead:
/// `cargo test --release -p meshwork --lib store::tests::reclaim::cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_reclaiming() {
    for len in [1 << 10, 100 << 10] {
        let home = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
        let (mut store, ..) = open(home.path());
        let count = (64 << 20) / (50 + 2 * (len + ENTRY_OVERHEAD)) as u64;
        store.append(&two_chains(count, len)).unwrap();
        let start = Instant::now();
        store.forget(MINE, count + 1).unwrap();
        let forgot = start.elapsed();
        let start = Instant::now();
        let reclaimed = store.reclaim().unwrap();
        let took = start.elapsed();
        assert_eq!(reclaimed.segments, 1);
        println!("{} records of {len} bytes: forget {forgot:?}, reclaim {took:?}: {reclaimed:?}", 2 * count);
    }
}
