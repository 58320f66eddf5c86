//! What is read from files: headers and entries of the log, slots of newest records, rows of the index.

use meshwork::{
    driver::rows,
    store::{
        EntryKind, Head, NewEntry,
        heads::{SLOT, parse, slot},
        index::{Index, IndexError},
        segment::{self, ENTRY_OVERHEAD, Seal, truncated},
    },
};
use meshwork_protocol::{
    codec,
    id::{ChainId, DirId, ObjectId, RecordId},
};
use meshwork_replica::{
    feed::Name,
    folder::{
        BaseChange,
        observed::{DirIdentity, Fingerprint},
    },
    replica::StoredBase,
};

use super::program::Program;

const SEAL: Seal = Seal { salt: [7; 16], number: 3, turn: 0 };
const OBJECT: ObjectId = ObjectId([1; 32]);
const CHECK: usize = 8;

/// The first byte says what kind of file; what depends on a check is also read with the check set right.
pub(super) fn run(bytes: &[u8]) -> bool {
    let mut program = Program::new(bytes);
    match program.below(4) {
        0 => header(program.rest()),
        1 => entry(&mut program),
        2 => newest(program.rest()),
        _ => row(&mut program),
    }
}

/// Replaces the last bytes by the check of those before them.
fn mended(bytes: &[u8], check: impl Fn(&[u8]) -> [u8; CHECK]) -> Vec<u8> {
    let content = &bytes[..bytes.len().saturating_sub(CHECK)];
    [content, &check(content)].concat()
}

fn header(bytes: &[u8]) -> bool {
    for bytes in [bytes.to_vec(), mended(bytes, |content| truncated(blake3::hash(content)))] {
        if let Ok(seal) = Seal::parse(&bytes) {
            assert_eq!(seal.header(), bytes[..], "written as read");
            return true;
        }
    }
    false
}

fn entry(program: &mut Program<'_>) -> bool {
    let offset = program.number() as u32;
    let bytes = program.rest();
    let check = |content: &[u8]| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&SEAL.salt).update(&SEAL.number.to_be_bytes()).update(&offset.to_be_bytes()).update(content);
        truncated(hasher.finalize())
    };
    if let Some(head) = segment::Head::parse(bytes) {
        assert!(head.total() >= ENTRY_OVERHEAD, "an entry has a head and a check");
    }
    let bytes = mended(bytes, check);
    let Some(parsed) = SEAL.read(offset, &bytes) else { return false };
    let Some(entry) = parsed.entry else { return true };
    assert_eq!((entry.position.offset, entry.position.len as usize), (offset, bytes.len()));
    assert_eq!(entry.payload.len() + ENTRY_OVERHEAD, bytes.len());
    let mut again = Vec::new();
    let new = NewEntry { object: entry.object, kind: entry.kind, payload: entry.payload.clone(), head: None };
    SEAL.write(&mut again, offset, parsed.group, &new);
    let read = SEAL.read(offset, &again).and_then(|parsed| parsed.entry);
    assert_eq!(read.as_ref(), Some(&entry), "written as read");
    true
}

fn newest(bytes: &[u8]) -> bool {
    let mended = mended(bytes, |content| truncated(blake3::hash(content)));
    let Some((head, turn)) = parse(bytes).or_else(|| parse(&mended)) else { return false };
    assert_eq!(parse(&slot(&head, turn)), Some((head, turn)), "written as read");
    true
}

/// One row, as an index.
struct One<'b>(&'b [u8], &'b [u8]);

impl Index for One<'_> {
    fn put_many(&self, _: &str, _: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), IndexError> {
        Ok(())
    }

    fn get(&self, _: &str, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok((key == self.0).then(|| self.1.to_vec()))
    }

    fn remove_many(&self, _: &str, _: Vec<Vec<u8>>) -> Result<(), IndexError> {
        Ok(())
    }

    fn change_many(&self, _: &str, _: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), IndexError> {
        Ok(())
    }

    fn scan_prefix(
        &self,
        _: &str,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        if self.0.starts_with(prefix) {
            visit(self.0, self.1);
        }
        Ok(())
    }

    fn scan_range(
        &self,
        _: &str,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        if (from..to).contains(&self.0) {
            visit(self.0, self.1);
        }
        Ok(())
    }

    fn clear(&self, _: &str) -> Result<(), IndexError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }
}

fn row(program: &mut Program<'_>) -> bool {
    let key = [OBJECT.0.as_slice(), program.part()].concat();
    let value = program.rest();
    let base = rows::load(&One(&key, value), OBJECT).expect("a row that cannot be read is left out");
    let StoredBase { keys, dirs, files, intents, own } = base;
    assert!(keys.len() + dirs.len() + files.len() + intents.len() <= 1, "a row is one");
    let dirs = dirs.into_iter().map(|(dir, identity)| BaseChange::Dir { dir, identity: Some(identity) });
    let files = files.into_iter().map(|(parent, name, is)| BaseChange::File { parent, name, fingerprint: Some(is) });
    let changes: Vec<BaseChange> = dirs.chain(files).collect();
    let mut again = rows::Rows::new();
    rows::rows(OBJECT, own.unwrap_or((ChainId([0; 16]), 0)), &changes, &mut again);
    let written = again.get(&key).cloned().flatten();
    assert!(changes.is_empty() || written.as_deref() == Some(value), "written as read");
    !changes.is_empty() || !keys.is_empty() || !intents.is_empty() || own.is_some()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let chain = ChainId([2; 16]);
    let kinds =
        [EntryKind::Control, EntryKind::Record { chain, seq: 5, own: false }, EntryKind::Floor { chain, seq: 5 }];
    let mut seeds = vec![[&[0], SEAL.header().as_slice()].concat()];
    for kind in kinds {
        let mut entry = vec![1, 40];
        SEAL.write(&mut entry, 40, 40, &NewEntry { object: OBJECT, kind, payload: b"payload".to_vec(), head: None });
        seeds.push(entry);
    }
    seeds.push([&[1, 40], SEAL.filler(40, 100).as_slice()].concat());
    let head = Head { object: OBJECT, chain: ChainId([2; 16]), seq: 9, id: RecordId([3; 32]) };
    let slot: [u8; SLOT] = slot(&head, 4);
    seeds.push([&[2], slot.as_slice()].concat());
    let identity = DirIdentity { device: 1, inode: 2, born_ns: -3 };
    let fingerprint = Fingerprint { inode: 1, size: 70_000, modified_ns: -1, changed_ns: 1 << 40, executable: true };
    let name = Name::try_from("name").expect("a name");
    let changes = [
        BaseChange::Dir { dir: DirId([4; 16]), identity: Some(identity) },
        BaseChange::File { parent: identity, name, fingerprint: Some(fingerprint) },
    ];
    let mut written = rows::Rows::new();
    rows::rows(OBJECT, (ChainId([2; 16]), 7), &changes, &mut written);
    let dots = codec::encode(&vec![(ChainId([2; 16]), 3_u64, 1_u16)]);
    written.insert([OBJECT.0.as_slice(), b"k", &[4; 16], b"name"].concat(), Some(dots));
    let row = |(key, value): (Vec<u8>, Option<Vec<u8>>)| {
        [&[3], super::program::part(&key[ObjectId::LEN..]).as_slice(), &value.unwrap_or_default()].concat()
    };
    seeds.extend(written.into_iter().map(row));
    seeds
}
