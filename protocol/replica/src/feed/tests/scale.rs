//! What a folder of 100,000 files costs.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use meshwork_protocol::id::{DirId, RecordKey};

use super::tree::{file, name};
use crate::feed::{
    Edit, Edits, FeedMap, Key, NewOperation, NodeId, NodeRef, Now, Operation, Value, decode, diff, encode,
};

const FILES: u32 = 100_000;
const BIG: DirId = DirId([0xbb; 16]);

fn key_of(seq: u64) -> RecordKey {
    RecordKey([seq.to_be_bytes(), seq.to_be_bytes()].concat().try_into().unwrap())
}

fn records(per_dir: u32) -> Vec<Vec<Arc<Operation>>> {
    let dir_of = |n: u32| {
        DirId(((u128::from(n / per_dir) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
    };
    let put = |dir: DirId, text: String, value: Value| NewOperation {
        key: Key { dir, name: name(&text) },
        value,
        base: Vec::new(),
        former: Vec::new(),
    };
    let dirs = (0..FILES.div_ceil(per_dir))
        .map(|n| put(DirId::ROOT, format!("directory {n}"), Value::Dir(vec![dir_of(n * per_dir)])));
    let files = (0..FILES).map(|n| put(dir_of(n), format!("file-{n:06}.txt"), Value::File(file(n))));
    let all: Vec<NewOperation> = dirs.chain(files).collect();
    (1..)
        .zip(all.chunks(1_000))
        .map(|(seq, batch)| {
            let bytes = encode(batch).unwrap();
            decode(&bytes, key_of(seq), seq).unwrap().into_iter().map(Arc::new).collect()
        })
        .collect()
}

#[test]
#[ignore = "a measurement: run alone, in release, with --nocapture"]
fn a_folder_of_100_000_files() {
    for per_dir in [FILES, 100, 10] {
        let records = records(per_dir);
        let mut map = FeedMap::default();
        let start = Instant::now();
        records.iter().for_each(|record| map.apply(record));
        let apply = start.elapsed();
        let start = Instant::now();
        let nodes: Vec<NodeId> = map.view().nodes().collect();
        let skeleton = start.elapsed();
        let start = Instant::now();
        let disk = map.clone();
        let clone = start.elapsed();
        let last = nodes[nodes.len() - 1];
        let single = time_diff(&disk, last, 1);
        let thousand = time_diff(&disk, last, 1_000);
        let start = Instant::now();
        let page = disk.view().page(last).len();
        println!(
            "{per_dir} a directory: apply {apply:?}, {} directories {skeleton:?}, clone {clone:?}, diff of 1 {single:?}, \
             of 1,000 {thousand:?}, page of {page} {:?}",
            nodes.len(),
            start.elapsed()
        );
    }
}

fn time_diff(disk: &FeedMap, node: NodeId, count: u32) -> Duration {
    let at = NodeRef::Known(disk.view().id_of(node));
    let edit = |n: u32| Edit { at, name: name(&format!("new {n}")), now: Now::File(file(FILES + n)) };
    let edits = Edits { edits: (0..count).map(edit).collect(), new_dirs: Vec::new() };
    let start = Instant::now();
    assert_eq!(black_box(diff(disk, disk, &edits)).unwrap().len(), count as usize);
    start.elapsed()
}

/// With the name, a chunk and its place in a map a small file takes some 420 bytes of memory.
#[test]
fn operations_are_small() {
    assert!(size_of::<Operation>() <= 232, "{}", size_of::<Operation>());
}

/// Directories are computed again when one changes, and only then.
#[test]
fn directories_are_kept_until_one_changes() {
    let mut map = FeedMap::default();
    let put = |dir, text: &str, value| NewOperation {
        key: Key { dir, name: name(text) },
        value,
        base: Vec::new(),
        former: Vec::new(),
    };
    let first = [put(DirId::ROOT, "D", Value::Dir(vec![BIG])), put(BIG, "f", Value::File(file(1)))];
    let apply = |map: &mut FeedMap, batch: &[NewOperation], seq| {
        let record: Vec<_> =
            decode(&encode(batch).unwrap(), key_of(seq), seq).unwrap().into_iter().map(Arc::new).collect();
        map.apply(&record);
    };
    apply(&mut map, &first, 1);
    // The copy keeps what was computed, so that its address is not used again.
    map.skeleton();
    let kept = map.clone();
    let known: *const _ = kept.skeleton();
    let edits = Edits {
        edits: vec![Edit { at: NodeRef::Known(BIG), name: name("f"), now: Now::Absent }],
        new_dirs: Vec::new(),
    };
    let operations = diff(&map, &map, &edits).unwrap();
    apply(&mut map, &operations, 2);
    apply(&mut map, &[put(BIG, "g", Value::File(file(2)))], 3);
    assert!(std::ptr::eq(known, map.skeleton()), "directories computed again for a file");
    apply(&mut map, &[put(BIG, "E", Value::Dir(vec![DirId([1; 16])]))], 4);
    assert!(!std::ptr::eq(known, map.skeleton()) && map.view().nodes().count() == 3);
}
