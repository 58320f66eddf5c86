//! Batches of operations, and the tree that comes of them.

use std::{collections::BTreeMap, sync::Arc};

use meshwork_protocol::{
    id::{ChainId, ChunkId, ContentId, DeviceId, DirId, FileId, Incarnation, ObjectId, RecordKey},
    limits,
};
use meshwork_replica::feed::{
    At, ChunkRef, Dot, Feed, FeedMap, FileKind, FileValue, Former, Key, Manifest, Name, NewOperation, Operation, Order,
    Part, Unknown, Value, decode, encode, symlink_content,
};
use serde_bytes::ByteBuf;

use super::program::Program;

const NAMES: [&str; 8] = ["a", "b", "c", "d", ".meshwork", "a (conflict 01010101)", "a (conflict 01010101 2)", "é.txt"];
const DIRS: usize = 6;
const CHAINS: usize = 3;
const RECORDS: usize = 24;

/// The body of a record as it came.
pub(super) fn batch(bytes: &[u8]) -> bool {
    let Ok(operations) = decode(bytes, record(0, 9), 70) else { return false };
    assert!((1..=limits::FEED_OPERATIONS).contains(&operations.len()), "too many operations");
    let again: Vec<NewOperation> = operations.iter().cloned().map(unsigned).collect();
    assert_eq!(encode(&again).as_deref(), Ok(bytes), "not canonical");
    let operations: Vec<Arc<Operation>> = operations.into_iter().map(Arc::new).collect();
    let mut map = FeedMap::default();
    map.apply(&operations);
    let tree = map.view().flatten();
    map.apply(&operations);
    assert_eq!(map.view().flatten(), tree, "an operation counts once");
    true
}

fn unsigned(operation: Operation) -> NewOperation {
    let Operation { key, value, base, former, .. } = operation;
    NewOperation { key, value, base: base.into_vec(), former: former.into_vec() }
}

fn record(chain: usize, seq: u64) -> RecordKey {
    let mut key = [chain as u8 + 1; 16];
    key[8..].copy_from_slice(&seq.to_be_bytes());
    RecordKey(key)
}

fn dir(number: usize) -> DirId {
    DirId([number as u8; 16])
}

fn name(program: &mut Program<'_>) -> Name {
    let text = program.pick(&NAMES).copied().unwrap_or("a");
    Name::try_from(text).expect("a name")
}

fn file(program: &mut Program<'_>) -> FileValue {
    let content = program.byte();
    let mut value = FileValue {
        file: FileId([content; 16]),
        kind: FileKind::Symlink { target: ByteBuf::from(vec![content; 3]) },
        content: symlink_content(&[content; 3]),
        size: 3,
        modified_ns: program.number() as i64,
        executable: program.once_in(2),
        unknown: Unknown::default(),
    };
    if !program.once_in(4) {
        (value.content, value.size) = (ContentId([content; 32]), u64::from(content) + 1);
        let chunks = vec![ChunkRef { id: ChunkId([content; 32]), len: u32::from(content) + 1 }];
        value.kind = FileKind::Regular { manifest: Manifest::Inline { average_log2: 16, chunks } };
    } else if program.once_in(2) {
        (value.content, value.size) = (ContentId([content; 32]), program.number().max(1));
        let manifest = Manifest::Paged { average_log2: 22, root: ChunkId([content; 32]), chunks: 1 };
        value.kind = FileKind::Regular { manifest };
    }
    value
}

fn value(program: &mut Program<'_>) -> Value {
    match program.below(4) {
        0 => Value::Tombstone,
        1 => {
            let mut ids: Vec<DirId> = (0..=program.below(3)).map(|_| dir(1 + program.below(DIRS - 1))).collect();
            ids.sort_unstable();
            ids.dedup();
            Value::Dir(ids)
        }
        _ => Value::File(file(program)),
    }
}

/// Operations of one record, of names and directories that meet those of others; `seen` are the operations that may
/// be replaced.
pub(super) fn operations(program: &mut Program<'_>, seen: &[(Key, Dot)]) -> Vec<NewOperation> {
    let mut made: BTreeMap<Key, NewOperation> = BTreeMap::new();
    for _ in 0..=program.below(4) {
        let key = Key { dir: dir(program.below(DIRS)), name: name(program) };
        let value = value(program);
        let (all, stray) = (!program.once_in(3), program.once_in(8));
        let on_key = seen.iter().filter(|(of, _)| stray || *of == key).map(|(_, dot)| *dot);
        let mut base: Vec<Dot> = on_key.filter(|_| all || program.once_in(2)).take(limits::BASE_DOTS).collect();
        base.sort_unstable();
        base.dedup();
        let mut former = Vec::new();
        if program.once_in(4) {
            let dot = Dot { record: record(program.below(CHAINS), 1), index: 0 };
            let order = Order { height: program.number(), dot };
            former.push(Former { dir: dir(1 + program.below(DIRS - 1)), order });
        }
        made.insert(key.clone(), NewOperation { key, value, base, former });
    }
    made.into_values().collect()
}

struct Written {
    operations: Vec<Arc<Operation>>,
    /// Newest place of each chain that it builds on.
    context: [u64; CHAINS],
    chain: usize,
    seq: u64,
}

/// Writes records of three authors, each of whom knows what he has merged.
fn write(program: &mut Program<'_>) -> Vec<Written> {
    let mut known = [[0_u64; CHAINS]; CHAINS];
    let mut written: Vec<Written> = Vec::new();
    while !program.is_over() && written.len() < RECORDS {
        let author = program.below(CHAINS);
        if program.once_in(3) {
            let other = known[program.below(CHAINS)];
            known[author].iter_mut().zip(other).for_each(|(own, other)| *own = other.max(*own));
        }
        let context = known[author];
        let inside = |record: &&Written| record.seq <= context[record.chain];
        let below: Vec<&Written> = written.iter().filter(inside).collect();
        let seen: Vec<(Key, Dot)> =
            below.iter().flat_map(|record| &record.operations).map(|op| (op.key.clone(), op.dot)).collect();
        let heights = below.iter().flat_map(|record| &record.operations).map(|op| op.height);
        let (height, seq) = (heights.max().unwrap_or(0) + 1, context[author] + 1);
        let new = operations(program, &seen);
        let text = encode(&new).expect("an honest batch");
        let decoded = decode(&text, record(author, seq), height).expect("what is written can be read");
        assert_eq!(decoded.iter().cloned().map(unsigned).collect::<Vec<_>>(), new, "read as written");
        let operations = decoded.into_iter().map(Arc::new).collect();
        known[author][author] = seq;
        written.push(Written { operations, context, chain: author, seq });
    }
    written
}

fn apply(feed: &mut Feed, written: &Written) {
    let known = |number: usize| 1..=written.context[number];
    let in_context = |key: &RecordKey| (0..CHAINS).any(|number| known(number).any(|seq| record(number, seq) == *key));
    let _ = feed.apply(&written.operations, in_context);
}

/// The same records in two orders give the same tree.
pub(super) fn merge(bytes: &[u8]) -> bool {
    let written = write(&mut Program::new(bytes));
    let (mut forward, mut other) = (Feed::default(), Feed::default());
    for record in &written {
        apply(&mut forward, record);
    }
    let mut held = [0; CHAINS];
    let mut left: Vec<&Written> = written.iter().collect();
    while !left.is_empty() {
        let fits = |record: &&Written| {
            record.seq == held[record.chain] + 1 && record.context.iter().zip(held).all(|(needs, has)| *needs <= has)
        };
        let last = left.iter().rposition(fits).expect("the oldest fits");
        let record = left.remove(last);
        held[record.chain] = record.seq;
        apply(&mut other, record);
        // What is shown on the way is a tree, too.
        let _ = other.map().view().flatten();
    }
    let (one, two) = (forward.map().view(), other.map().view());
    assert_eq!(one.flatten(), two.flatten(), "the order decides");
    for node in one.nodes() {
        let path = one.path_of(node);
        assert_eq!(one.node_at(&path), Some(node), "a directory is where its path leads");
    }
    !written.is_empty()
}

pub(super) fn batch_seeds() -> Vec<Vec<u8>> {
    let seeds = merge_seeds();
    let records = seeds.iter().flat_map(|bytes| write(&mut Program::new(bytes)));
    let new = records.map(|record| record.operations.iter().map(|op| unsigned(Operation::clone(op))).collect());
    new.filter_map(|operations: Vec<NewOperation>| encode(&operations).ok()).collect()
}

pub(super) fn merge_seeds() -> Vec<Vec<u8>> {
    (0..12).map(|seed: u8| super::mutate::bytes(seed, 40 + usize::from(seed) * 16)).collect()
}

/// The body of a record of a checkpoint as it came.
pub(super) fn listing(bytes: &[u8]) -> bool {
    let (author, object) = (DeviceId([1; 32]), ObjectId([2; 32]));
    let Ok(part) = Part::decode(bytes, &author, &object) else { return false };
    assert!(part.listed.len() <= limits::FEED_OPERATIONS, "too many operations");
    assert_eq!(part.encode().as_deref(), Ok(bytes), "not canonical");
    let at = At { chain: ChainId([3; 16]), seq: 1, begins: true, ends: true };
    let mut feed = Feed::default();
    let own = part.chains.keys().next().copied();
    let listed = feed.list(at, &part, |_| false, |_| own);
    assert!(listed.whole.is_some(), "a checkpoint of one record is whole");
    let tree = feed.map().view().flatten();
    let _ = feed.list(at, &part, |_| true, |_| own);
    assert_eq!(feed.map().view().flatten(), tree, "a checkpoint counts once");
    true
}

pub(super) fn listing_seeds() -> Vec<Vec<u8>> {
    let chain = Incarnation([4; 8]);
    let id = ChainId::of(&DeviceId([1; 32]), &ObjectId([2; 32]), &chain);
    let part = |bytes: Vec<u8>| {
        let written = write(&mut Program::new(&bytes));
        let listed: BTreeMap<_, _> =
            written.iter().flat_map(|it| &it.operations).map(|op| (op.dot, op.clone())).collect();
        let killed = written.iter().flat_map(|it| &it.operations).filter(|operation| !operation.base.is_empty());
        let killed = killed.map(|op| (op.key.clone(), op.base.iter().copied().collect())).collect();
        let chains = BTreeMap::from([(id, chain)]);
        Part::split(chains, listed.into_values().collect(), killed, |record| Some((id, 1 + u64::from(record.0[15]))))
    };
    let parts = merge_seeds().into_iter().flat_map(part);
    parts.filter_map(|part| part.encode().ok()).collect()
}
