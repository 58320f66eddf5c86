//! The stored form of a folder's disk base: rows of one index tree.
//!
//! Key: object (32) then `k` directory name | `i` directory name | `d` directory | `f` identity name | `o`. Everything of
//! one change set is put and removed at once, so that the rows, what was intended, and the place in the own chain that
//! they include agree.

use std::{collections::BTreeMap, sync::Arc};

use meshwork_protocol::{
    codec,
    id::{ChainId, DirId, ObjectId, RecordKey},
    wire_struct,
};
use meshwork_replica::{
    feed::{Dot, Key, Name, Operation},
    folder::{
        BaseChange,
        observed::{DirIdentity, Fingerprint},
    },
    replica::StoredBase,
};

use crate::store::index::{Index, IndexError, MAX_VALUE};

/// The tree.
const TREE: &str = "base";
/// Bytes of a row: a few operations at most.
const ROW_MAX: usize = 64 * 1024;

/// One operation of a key's row.
struct DotRow {
    record: RecordKey,
    index: u16,
}
wire_struct!(DotRow { record, index });

struct IdentityRow {
    device: u64,
    inode: u64,
    born_ns: i64,
}
wire_struct!(IdentityRow { device, inode, born_ns });

struct FileRow {
    inode: u64,
    size: u64,
    modified_ns: i64,
    changed_ns: i64,
    executable: bool,
}
wire_struct!(FileRow { inode, size, modified_ns, changed_ns, executable });

/// A row to be put, or removed where there is no value.
type Row = (Vec<u8>, Option<Vec<u8>>);
/// Rows to be written, by key.
pub type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn row(object: ObjectId, change: &BaseChange) -> Row {
    let key = |tag: u8, parts: &[&[u8]]| [object.0.as_slice(), &[tag], &parts.concat()].concat();
    match change {
        BaseChange::Key { key: at, operations } => {
            let value = if operations.is_empty() { None } else { dots(operations) };
            (key(b'k', &[&at.dir.0, at.name.as_bytes()]), value)
        }
        BaseChange::Intent { key: at, operations } => {
            (key(b'i', &[&at.dir.0, at.name.as_bytes()]), operations.as_deref().and_then(dots))
        }
        BaseChange::Dir { dir, identity } => {
            let value = identity
                .map(|is| codec::encode(&IdentityRow { device: is.device, inode: is.inode, born_ns: is.born_ns }));
            (key(b'd', &[&dir.0]), value)
        }
        BaseChange::File { parent, name, fingerprint } => {
            let value = fingerprint.map(|is| {
                codec::encode(&FileRow {
                    inode: is.inode,
                    size: is.size,
                    modified_ns: is.modified_ns,
                    changed_ns: is.changed_ns,
                    executable: is.executable,
                })
            });
            (key(b'f', &[&identity_bytes(*parent), name.as_bytes()]), value)
        }
    }
}

/// None where peers have given one name so many versions that no row holds them: then its file is looked at as if
/// nothing were known of it, and the other rows are stored.
fn dots(operations: &[Arc<Operation>]) -> Option<Vec<u8>> {
    let row = |dot: Dot| DotRow { record: dot.record, index: dot.index };
    let dots: Vec<DotRow> = operations.iter().map(|operation| row(operation.dot)).collect();
    Some(codec::encode(&dots)).filter(|value| value.len() <= MAX_VALUE)
}

fn read_dots(value: &[u8]) -> Option<Vec<Dot>> {
    let rows: Vec<DotRow> = codec::decode(value, ROW_MAX).ok()?;
    Some(rows.iter().map(|row| Dot { record: row.record, index: row.index }).collect())
}

fn identity_bytes(identity: DirIdentity) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&identity.device.to_be_bytes());
    bytes[8..16].copy_from_slice(&identity.inode.to_be_bytes());
    bytes[16..].copy_from_slice(&identity.born_ns.to_be_bytes());
    bytes
}

/// Reads a folder's disk base. Rows that cannot be read are left out: their files are looked at as if
/// nothing were known of them.
pub fn load(index: &dyn Index, object: ObjectId) -> Result<StoredBase, IndexError> {
    let mut base = StoredBase::default();
    index.scan_prefix(TREE, &object.0, &mut |key, value| {
        if read_row(&mut base, key.get(32..).unwrap_or_default(), value).is_none() {
            tracing::warn!(folder = %object.short(), "a row of the table of local files cannot be read");
        }
        true
    })?;
    Ok(base)
}

fn read_row(base: &mut StoredBase, key: &[u8], value: &[u8]) -> Option<()> {
    let (tag, rest) = key.split_first()?;
    match tag {
        b'k' | b'i' => {
            let (dir, name) = rest.split_first_chunk()?;
            let key = Key { dir: DirId(*dir), name: Name::new(name).ok()? };
            let rows = if *tag == b'k' { &mut base.keys } else { &mut base.intents };
            rows.push((key, read_dots(value)?));
        }
        b'd' => {
            let is: IdentityRow = codec::decode(value, ROW_MAX).ok()?;
            let identity = DirIdentity { device: is.device, inode: is.inode, born_ns: is.born_ns };
            base.dirs.push((DirId(rest.try_into().ok()?), identity));
        }
        b'f' => {
            let (parent, name) = rest.split_first_chunk::<24>()?;
            let number = |range: std::ops::Range<usize>| <[u8; 8]>::try_from(parent.get(range)?).ok();
            let parent = DirIdentity {
                device: u64::from_be_bytes(number(0..8)?),
                inode: u64::from_be_bytes(number(8..16)?),
                born_ns: i64::from_be_bytes(number(16..24)?),
            };
            let is: FileRow = codec::decode(value, ROW_MAX).ok()?;
            let fingerprint = Fingerprint {
                inode: is.inode,
                size: is.size,
                modified_ns: is.modified_ns,
                changed_ns: is.changed_ns,
                executable: is.executable,
            };
            base.files.push((parent, Name::new(name).ok()?, fingerprint));
        }
        b'o' => {
            let (chain, seq) = value.split_first_chunk()?;
            base.own = Some((ChainId(*chain), u64::from_be_bytes(seq.try_into().ok()?)));
        }
        _ => return None,
    }
    Some(())
}

/// The rows of a set of changes; of several changes of one row the last counts.
pub fn rows(object: ObjectId, (own, seq): (ChainId, u64), changes: &[BaseChange], into: &mut Rows) {
    into.extend(changes.iter().map(|change| row(object, change)));
    into.insert([object.0.as_slice(), b"o"].concat(), Some([own.0.as_slice(), &seq.to_be_bytes()].concat()));
}

/// Writes rows.
pub fn write(index: &dyn Index, rows: Rows) -> Result<(), IndexError> {
    index.change_many(TREE, rows.into_iter().collect())
}

/// Removes all rows of an object.
pub(super) fn clear(index: &dyn Index, object: ObjectId) -> Result<(), IndexError> {
    let mut keys = Vec::new();
    index.scan_prefix(TREE, &object.0, &mut |key, _| {
        keys.push(key.to_vec());
        true
    })?;
    index.remove_many(TREE, keys)
}

#[cfg(test)]
mod tests {
    use meshwork_replica::feed::Value;

    use super::*;
    use crate::store::index::SledIndex;

    const OBJECT: ObjectId = ObjectId([1; 32]);

    fn versions(key: &Key, count: u8) -> Vec<Arc<Operation>> {
        let operation = |number| Operation {
            dot: Dot { record: RecordKey([number; 16]), index: u16::from(number) },
            height: 1,
            key: key.clone(),
            value: Value::Tombstone,
            base: Box::new([]),
            former: Box::new([]),
        };
        (0..count).map(|number| Arc::new(operation(number))).collect()
    }

    #[test]
    fn what_is_intended_is_stored_beside_what_is_shown() {
        let home = tempfile::tempdir().expect("a directory");
        let (index, _) = SledIndex::open(&home.path().join("index")).expect("an index");
        let key = |text: &str| Key { dir: DirId([2; 16]), name: Name::try_from(text).expect("a name") };
        let (shown, gone, busy) = (key("shown"), key("gone"), key("busy"));
        let store = |changes: &[BaseChange]| {
            let mut into = Rows::new();
            rows(OBJECT, (ChainId([3; 16]), 7), changes, &mut into);
            write(&index, into).expect("written");
            load(&index, OBJECT).expect("read")
        };
        let dots = |count| versions(&shown, count).iter().map(|operation| operation.dot).collect::<Vec<_>>();
        let intent = |key: &Key, count: Option<u8>| BaseChange::Intent {
            key: key.clone(),
            operations: count.map(|count| versions(key, count)),
        };
        let is = |key: &Key, count| BaseChange::Key { key: key.clone(), operations: versions(key, count) };
        // More versions than a row holds are left out, and spoil nothing.
        let base = store(&[is(&shown, 1), is(&busy, 255), intent(&shown, Some(2)), intent(&gone, Some(0))]);
        assert_eq!(base.keys, [(shown.clone(), dots(1))]);
        assert_eq!(base.intents, [(gone.clone(), Vec::new()), (shown.clone(), dots(2))]);
        let base = store(&[is(&shown, 2), intent(&shown, None), intent(&gone, None)]);
        assert_eq!((base.keys, base.intents), (vec![(shown.clone(), dots(2))], Vec::new()));
    }
}
