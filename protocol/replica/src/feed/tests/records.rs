//! Record bodies: what is refused, and how changes are divided.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::{
    codec::DecodeError,
    id::{ChainId, DeviceId, DirId, Incarnation, ObjectId, RecordKey, hex},
    limits,
};

use super::tree::{Tree, file, flat, name};
use crate::feed::{
    BatchError, Dot, Feed, FeedMap, FileKind, Former, Key, Manifest, NewOperation, Operation, Order, Part, Unknown,
    Value, decode, diff, encode, split,
};

const RECORD: RecordKey = RecordKey([1; 16]);

fn key(text: &str) -> Key {
    Key { dir: DirId::ROOT, name: name(text) }
}

fn new(text: &str, value: Value) -> NewOperation {
    NewOperation { key: key(text), value, base: Vec::new(), former: Vec::new() }
}

fn dot(record: u8, index: u16) -> Dot {
    Dot { record: RecordKey([record; 16]), index }
}

fn order(record: u8, height: u64) -> Order {
    Order { height, dot: dot(record, 1) }
}

fn key_of(seq: u64) -> RecordKey {
    let mut key = [8; 16];
    key[8..].copy_from_slice(&seq.to_be_bytes());
    RecordKey(key)
}

fn sample() -> Vec<NewOperation> {
    let mut rich = new("b", Value::Dir(vec![DirId([3; 16]), DirId([4; 16])]));
    rich.base = vec![dot(2, 5), dot(2, 6), dot(9, 1)];
    rich.former =
        vec![Former { dir: DirId([1; 16]), order: order(5, 8) }, Former { dir: DirId([2; 16]), order: order(2, 7) }];
    let mut inside = new("z", Value::File(file(7)));
    inside.key.dir = DirId([3; 16]);
    vec![inside, rich, new("a", Value::Tombstone)]
}

#[test]
fn operations_come_back_sorted_with_their_dots() {
    let bytes = encode(&sample()).unwrap();
    let operations = decode(&bytes, RECORD, 34).unwrap();
    let mut sorted = sample();
    sorted.sort_by(|left, right| left.key.cmp(&right.key));
    for (index, (operation, new)) in operations.iter().zip(&sorted).enumerate() {
        assert_eq!(operation.dot, Dot { record: RECORD, index: index as u16 });
        assert_eq!(operation.height, 34);
        assert_eq!((&operation.key, &operation.value), (&new.key, &new.value));
        assert_eq!((&*operation.base, &*operation.former), (&*new.base, &*new.former));
    }
    assert_eq!(operations.len(), 3);
}

/// The form of format 1 never changes.
#[test]
fn golden_bytes() {
    let mut operation = new("a", Value::Dir(vec![DirId([3; 16])]));
    operation.base = vec![dot(2, 5)];
    operation.former = vec![Former { dir: DirId([1; 16]), order: order(2, 7) }];
    let zeros = hex(&[0; 16]);
    let (one, two, three) = (hex(&[1; 16]), hex(&[2; 16]), hex(&[3; 16]));
    let expected = format!("83018150{two}818250{zeros}81844161820281 50{three}818200058183 50{one}07820001");
    assert_eq!(hex(&encode(&[operation]).unwrap()), expected.replace(' ', ""));
}

/// A checkpoint of one record: of incarnation 7 one operation lives, in record 2 at place 5 and height 9, and operation 1 of
/// another's record 4 is dead. Its form never changes either.
#[test]
fn golden_bytes_of_a_checkpoint() {
    let (author, object) = (DeviceId([0; 32]), ObjectId([0; 32]));
    let incarnation = Incarnation([7; 8]);
    let chain = ChainId::of(&author, &object, &incarnation);
    let live = new("a", Value::Dir(vec![DirId([3; 16])])).signed(dot(2, 3), 9);
    let part = Part {
        chains: BTreeMap::from([(chain, incarnation)]),
        places: BTreeMap::from([(RecordKey([2; 16]), (chain, 5))]),
        listed: vec![Arc::new(live)],
        killed: BTreeMap::from([(key("b"), BTreeSet::from([dot(4, 1)]))]),
    };
    let root = hex(&DirId::ROOT.0);
    let (two, three, four) = (hex(&[2; 16]), hex(&[3; 16]), hex(&[4; 16]));
    let expected = format!(
        "86 01 8148{} 8250{two}50{four} 8184 00 00 05 09 8182 50{root} 8182 84 4161 8202 8150{three} 80 80 82 00 03 \
         8182 50{root} 8182 4162 8182 01 01",
        hex(&[7; 8])
    );
    let bytes = part.encode().unwrap();
    assert_eq!(hex(&bytes), expected.replace(' ', ""));
    assert_eq!(Part::decode(&bytes, &author, &object), Ok(part));
}

#[test]
fn impossible_batches_are_void() {
    let twice = [new("a", Value::Tombstone), new("a", Value::Tombstone)];
    assert_eq!(encode(&twice), Err(BatchError::Disordered("names")));
    assert_eq!(encode(&[]), Err(BatchError::Count(0)));
    let many: Vec<_> = (0..=limits::FEED_OPERATIONS).map(|n| new(&n.to_string(), Value::Tombstone)).collect();
    assert_eq!(encode(&many), Err(BatchError::Count(1_001)));
    assert!(encode(&many[1..]).is_ok());
    for ids in [vec![], vec![DirId::ROOT], vec![DirId([2; 16]), DirId([1; 16])], vec![DirId([2; 16]); 2]] {
        assert!(encode(&[new("a", Value::Dir(ids))]).is_err());
    }
    let mut base = new("a", Value::Tombstone);
    base.base = vec![dot(2, 5), dot(2, 5)];
    assert_eq!(encode(&[base]), Err(BatchError::Disordered("replaced operations")));
}

#[test]
fn impossible_files_are_void() {
    let refused = |change: fn(&mut crate::feed::FileValue)| {
        let mut file = file(1);
        change(&mut file);
        encode(&[new("a", Value::File(file))]).is_err()
    };
    assert!(!refused(|_| ()));
    assert!(refused(|file| file.size = 2));
    assert!(refused(|file| file.unknown = Unknown(vec![0; limits::UNKNOWN_FIELDS + 1].into())));
    assert!(refused(|file| file.kind = FileKind::Symlink { target: vec![b'x'; limits::SYMLINK_TARGET + 1].into() }));
    assert!(refused(|file| {
        let FileKind::Regular { manifest: Manifest::Inline { chunks, .. } } = &mut file.kind else {
            return;
        };
        *chunks = vec![chunks[0].clone(); limits::INLINE_CHUNKS + 1];
        file.size = chunks.len() as u64;
    }));
}

/// Whatever a byte is changed to, or where ever the end is, decoding ends, and what it accepts is
/// exactly what would be written.
#[test]
fn damaged_bodies_are_void_or_canonical() {
    let bytes = encode(&sample()).unwrap();
    for at in 0..bytes.len() {
        assert!(decode(&bytes[..at], RECORD, 1).is_err());
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let Ok(operations) = decode(&damaged, RECORD, 1) else {
                continue;
            };
            let again: Vec<NewOperation> = operations.into_iter().map(unsigned).collect();
            assert_eq!(encode(&again).as_ref(), Ok(&damaged));
        }
    }
    let huge = vec![0; limits::FEED_BODY + 1];
    let oversize = DecodeError::Oversize { len: huge.len(), max: limits::FEED_BODY };
    assert_eq!(decode(&huge, RECORD, 1), Err(oversize.into()));
}

fn unsigned(operation: Operation) -> NewOperation {
    let Operation { key, value, base, former, .. } = operation;
    NewOperation { key, value, base: base.into(), former: former.into() }
}

/// What a record replaces that it does not build on is replaced, in either order; what is of another key is not.
#[test]
fn a_base_outside_the_context_counts_whatever_comes_first() {
    let signed = |new: NewOperation, record: u8| {
        let bytes = encode(&[new]).unwrap();
        Arc::new(decode(&bytes, RecordKey([record; 16]), 1).unwrap().remove(0))
    };
    let victim = signed(new("a", Value::File(file(1))), 1);
    for at in ["a", "b"] {
        let mut forged = new(at, Value::File(file(2)));
        forged.base = vec![victim.dot];
        let forged = signed(forged, 2);
        let [one, other] = [[&victim, &forged], [&forged, &victim]].map(|order| {
            let mut feed = Feed::default();
            for operation in order {
                let _ = feed.apply(std::slice::from_ref(operation), |_| false);
            }
            feed
        });
        let live = if at == "a" { 1 } else { 2 };
        assert!(one.map() == other.map() && one.map().iter().flatten().count() == live);
    }
}

/// Applies batches one by one and looks at the tree after each.
fn apply_all(map: &mut FeedMap, batches: &[Vec<NewOperation>], mut look: impl FnMut(&FeedMap)) {
    let first = map.iter().flatten().map(|operation| operation.height).max();
    for (seq, batch) in (first.unwrap_or(0) + 1..).zip(batches) {
        let bytes = encode(batch).unwrap();
        let operations: Vec<_> = decode(&bytes, key_of(seq), seq).unwrap().into_iter().map(Arc::new).collect();
        map.apply(&operations);
        look(map);
    }
}

fn change(map: &FeedMap, change: impl FnOnce(&mut Tree)) -> Vec<Vec<NewOperation>> {
    let view = map.view();
    let viewed = Tree::of(&view);
    let mut tree = viewed.clone();
    change(&mut tree);
    split(diff(map, map, &tree.edits(&viewed)).unwrap(), map)
}

#[test]
fn large_changes_show_no_nonsense_on_the_way() {
    let mut map = FeedMap::default();
    let batches = change(&map, |tree| {
        for outer in 0..30u8 {
            tree.make_dir(&format!("{outer}"), DirId([outer + 1; 16]));
            tree.make_dir(&format!("{outer}/in"), DirId([200 - outer; 16]));
            (0..50).for_each(|n| tree.write(&format!("{outer}/in/{n}"), file(u32::from(outer) * 100 + n)));
        }
        (0..600).for_each(|n| tree.write(&format!("f{n}"), file(10_000 + n)));
    });
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 2_160);
    assert_eq!(batches.len(), 3);
    let is_whole = |map: &FeedMap| map.view().nodes().all(|node| !map.view().is_implicit(node));
    apply_all(&mut map, &batches, |map| assert!(is_whole(map), "contents before their directory"));
    assert_eq!(flat(&map.view()).len(), 2_160);

    let batches = change(&map, |tree| {
        (0..30).for_each(|outer| drop(tree.remove(&format!("{outer}"))));
    });
    assert_eq!(batches.len(), 2);
    apply_all(&mut map, &batches, |map| assert!(is_whole(map), "a directory before its contents"));
    assert_eq!(flat(&map.view()).len(), 600);

    let batches = change(&map, |tree| (0..600).for_each(|n| tree.rename(&format!("f{n}"), &format!("{n}g"))));
    assert_eq!(batches.len(), 2);
    let contents =
        |map: &FeedMap| -> BTreeSet<String> { flat(&map.view()).values().map(|shows| format!("{shows:?}")).collect() };
    let all = contents(&map);
    apply_all(&mut map, &batches, |map| {
        assert!(contents(map) == all && flat(&map.view()).len() == 600, "a rename in two records");
    });
}

#[test]
fn large_operations_are_divided_by_bytes() {
    let batches = change(&FeedMap::default(), |tree| {
        for n in 0..300u32 {
            let mut link = file(n);
            link.kind = FileKind::Symlink { target: vec![b'x'; 4_096].into() };
            tree.write(&n.to_string(), link);
        }
    });
    assert_eq!(batches.len(), 3);
    apply_all(&mut FeedMap::default(), &batches, |_| ());
}
