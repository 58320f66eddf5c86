//! The operations of a feed and the values they put.

use std::{borrow::Borrow, fmt, sync::Arc};

use meshwork_protocol::{
    id::{ChunkId, ContentId, DirId, FileId, RecordKey},
    limits, wire_enum, wire_struct,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_bytes::ByteBuf;

/// Why bytes are not a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No byte, or more than 255.
    #[error("a name has 1 to 255 bytes, not {0}")]
    Length(usize),
    /// `.` or `..`.
    #[error("a name that means a directory")]
    Dots,
    /// Contains `/` or NUL.
    #[error("a name with a separator or NUL")]
    Separator,
}

/// One component of a path: the bytes as first written, 1 to 255, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Takes `bytes` as a name.
    pub fn new(bytes: &[u8]) -> Result<Name, NameError> {
        if bytes.is_empty() || bytes.len() > limits::FILE_NAME {
            return Err(NameError::Length(bytes.len()));
        }
        if bytes == b"." || bytes == b".." {
            return Err(NameError::Dots);
        }
        if bytes.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(NameError::Separator);
        }
        Ok(Name(bytes.into()))
    }

    /// A name made here out of valid ones.
    pub(super) fn derived(bytes: Vec<u8>) -> Name {
        debug_assert!(Name::new(&bytes).is_ok());
        Name(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Name, NameError> {
        Name::new(text.as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        Name::new(&bytes).map_err(de::Error::custom)
    }
}

/// What an operation speaks about: a name in the table of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The directory.
    pub dir: DirId,
    /// The name in it.
    pub name: Name,
}

/// Names one operation: the `index`-th of a record, on every device alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The record.
    pub record: RecordKey,
    /// The position in the record, from 0.
    pub index: u16,
}

/// Which of two operations is the later one, on every device: the larger. No clock takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// Height of the record: one more than the largest in its context.
    pub height: u64,
    /// The operation itself: of equal heights the larger name wins.
    pub dot: Dot,
}

/// Where a directory was before: carried by the operation that took its place.
///
/// The place itself is the key of the carrying operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Former {
    /// The directory.
    pub dir: DirId,
    /// The operation that had put it there.
    pub order: Order,
}

/// One statement about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub dot: Dot,
    /// Height of its record.
    pub height: u64,
    /// What it speaks about.
    pub key: Key,
    /// What it puts there.
    pub value: Value,
    /// The operations on this key that the author's disk showed, and that this one replaces; rising.
    pub base: Box<[Dot]>,
    /// Directories that had this place before, at most one entry each; rising by directory.
    pub former: Box<[Former]>,
}

impl Operation {
    /// The rank of this operation among others.
    pub fn order(&self) -> Order {
        Order { height: self.height, dot: self.dot }
    }

    /// Whether `dot` is among those replaced.
    pub fn replaces(&self, dot: &Dot) -> bool {
        self.base.binary_search(dot).is_ok()
    }
}

/// An operation before its record is written, which gives it a dot and a height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// What it speaks about.
    pub key: Key,
    /// What it puts there.
    pub value: Value,
    /// The operations it replaces, rising.
    pub base: Vec<Dot>,
    /// Directories that had this place before, rising by directory.
    pub former: Vec<Former>,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing: a delete.
    Tombstone,
    /// A file.
    File(FileValue),
    /// A directory: the ids of its tables, rising, nearly always one.
    Dir(Vec<DirId>),
}

impl Value {
    /// Whether this is a delete.
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Value::Tombstone)
    }

    /// The file put, if it is one.
    pub fn file(&self) -> Option<&FileValue> {
        match self {
            Value::File(file) => Some(file),
            _ => None,
        }
    }

    /// The directories placed.
    pub fn dirs(&self) -> &[DirId] {
        match self {
            Value::Dir(ids) => ids,
            _ => &[],
        }
    }

    /// Whether a person would call both the same: equal kind and content, or equal directories.
    pub fn same_content(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Tombstone, Value::Tombstone) => true,
            (Value::File(left), Value::File(right)) => left.same_content(right),
            (Value::Dir(left), Value::Dir(right)) => left == right,
            _ => false,
        }
    }

    /// Equal content, and equal attributes too.
    pub fn same_as(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::File(left), Value::File(right)) => left.same_as(right),
            _ => self.same_content(other),
        }
    }
}

/// One version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileValue {
    /// Kept through renames: a hint for history and for offering to fold a rename with an edit.
    pub file: FileId,
    /// Regular file or symlink, with what it takes to get the bytes.
    pub kind: FileKind,
    /// The whole content.
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the Unix epoch. Decides nothing.
    pub modified_ns: i64,
    /// Whether the owner may execute it.
    pub executable: bool,
    /// Fields of a later version, carried as they came.
    pub unknown: Unknown,
}
wire_struct!(FileValue { file, kind, content, size, modified_ns, executable, unknown });

impl FileValue {
    /// Equal kind and content.
    pub fn same_content(&self, other: &FileValue) -> bool {
        self.content_key() == other.content_key()
    }

    /// Equal content, executable bit and modification time; the file id does not count.
    pub fn same_as(&self, other: &FileValue) -> bool {
        self.same_content(other) && self.executable == other.executable && self.modified_ns == other.modified_ns
    }

    /// The text of the link, if it is one.
    pub fn symlink_target(&self) -> Option<&[u8]> {
        match &self.kind {
            FileKind::Symlink { target } => Some(target),
            FileKind::Regular { .. } => None,
        }
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.symlink_target().is_some()
    }

    /// What two versions of equal content have in common; also the order of conflict losers.
    pub(super) fn content_key(&self) -> (ContentId, bool) {
        (self.content, self.is_symlink())
    }
}

/// Fields of a later version: bytes that are carried and not read. Nearly always empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown(pub Box<[u8]>);

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Unknown(ByteBuf::deserialize(deserializer)?.into_vec().into()))
    }
}

/// What sort of file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// Bytes in chunks.
    Regular {
        /// Which chunks.
        manifest: Manifest,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link, at most 4,096 bytes, not interpreted.
        target: ByteBuf,
    },
}
wire_enum!(FileKind { 0 => Regular { manifest }, 1 => Symlink { target } });

/// The chunks of a file in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// Listed here; at most 32.
    Inline {
        /// Binary logarithm of the average chunk size the file was cut with.
        average_log2: u8,
        /// The chunks.
        chunks: Vec<ChunkRef>,
    },
    /// Listed in pages that are chunks themselves.
    Paged {
        /// Binary logarithm of the average chunk size the file was cut with.
        average_log2: u8,
        /// The root page.
        root: ChunkId,
        /// Number of chunks of the file.
        chunks: u32,
    },
}
wire_enum!(Manifest {
    0 => Inline { average_log2, chunks },
    1 => Paged { average_log2, root, chunks },
});

/// One chunk of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its id.
    pub id: ChunkId,
    /// Its bytes.
    pub len: u32,
}
wire_struct!(ChunkRef { id, len });

/// The content id of a symbolic link with this text.
pub fn symlink_content(target: &[u8]) -> ContentId {
    ContentId(blake3::derive_key("meshwork v1 symlink target", target))
}
