//! What the tests of a folder are made from.

use std::sync::Arc;

use meshwork_protocol::id::{ChunkId, ContentId, DirId, FileId, RecordKey};

use super::{
    BaseChange, DiskBase,
    observed::{DirIdentity, Fingerprint, Path},
};
use crate::feed::{Dot, FileKind, FileValue, Key, Manifest, Name, Operation, Unknown, Value};

pub const SUB: DirId = DirId([7; 16]);

pub fn dot(seq: u64) -> Dot {
    let mut record = [1; 16];
    record[8..].copy_from_slice(&seq.to_be_bytes());
    Dot { record: RecordKey(record), index: 0 }
}

pub fn seq(dot: &Dot) -> u64 {
    u64::from_be_bytes(dot.record.0[8..].try_into().expect("8 bytes"))
}

pub fn name(text: &str) -> Name {
    Name::try_from(text).expect("a name")
}

pub fn path(text: &str) -> Path {
    text.split('/').map(name).collect()
}

pub fn file(content: u8) -> Value {
    let manifest = Manifest::Paged { average_log2: 16, root: ChunkId([content; 32]), chunks: 1 };
    Value::File(FileValue {
        file: FileId([content; 16]),
        kind: FileKind::Regular { manifest },
        content: ContentId([content; 32]),
        size: 1,
        modified_ns: 0,
        executable: false,
        unknown: Unknown::default(),
    })
}

pub fn operation(seq: u64, dir: DirId, at: &str, value: Value) -> Arc<Operation> {
    let key = Key { dir, name: name(at) };
    Arc::new(Operation { dot: dot(seq), height: seq, key, value, base: Box::new([]), former: Box::new([]) })
}

pub const PRINT: Fingerprint = Fingerprint { inode: 1, size: 1, modified_ns: 0, changed_ns: 0, executable: false };

/// The directory on disk that holds the entries of an id.
pub fn identity(dir: DirId) -> DirIdentity {
    DirIdentity { device: 1, inode: u64::from(dir.0[0]), born_ns: 0 }
}

/// A disk that shows these operations, of which all fingerprints are known.
pub fn disk(operations: &[Arc<Operation>]) -> DiskBase {
    let mut base = DiskBase::default();
    base.restore(BaseChange::Dir { dir: DirId::ROOT, identity: Some(identity(DirId::ROOT)) });
    for operation in operations {
        let key = operation.key.clone();
        for dir in operation.value.dirs() {
            base.restore(BaseChange::Dir { dir: *dir, identity: Some(identity(*dir)) });
        }
        if operation.value.file().is_some() {
            let (parent, name) = (identity(key.dir), key.name.clone());
            base.restore(BaseChange::File { parent, name, fingerprint: Some(PRINT) });
        }
        base.restore(BaseChange::Key { key, operations: vec![operation.clone()] });
    }
    base
}
