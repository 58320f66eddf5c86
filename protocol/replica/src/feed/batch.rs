//! The body of a feed record: a batch of operations, at most one for each key.
//!
//! `[1, [record, ...], [[directory, [[name, value, base, former], ...]], ...]]`: records (half of their ids),
//! directories, names, bases (dots) and former places (by directory) strictly rising, dots as
//! `[position among the records, index]`. An operation's index is its position in the record.
//! What breaks a rule makes the record void: it counts in its chain, and contributes nothing.

mod split;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use meshwork_protocol::{
    codec,
    id::{DirId, RecordKey},
    limits, wire_enum, wire_struct,
};

pub use self::split::split;
use super::operation::{Dot, FileKind, FileValue, Former, Key, Manifest, Name, NewOperation, Operation, Order, Value};

/// Version of the form that is written.
const FORMAT: u8 = 1;

/// Average chunk sizes a manifest may state, as binary logarithms.
const AVERAGES: RangeInclusive<u8> = 6..=31;

/// Why a batch cannot be written, or a record is void.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not the encoding of a batch.
    #[error(transparent)]
    Encoding(#[from] codec::DecodeError),
    /// Written by a later version.
    #[error("batch format {0} is not known")]
    Format(u8),
    /// No operation, or more than 1,000.
    #[error("{0} operations in one record")]
    Count(usize),
    /// A list that must be strictly rising is not, or has a needless element.
    #[error("{0} are not in strictly rising order, or not all of them are used")]
    Disordered(&'static str),
    /// A dot of a record that the table does not have.
    #[error("a dot names no record of the table")]
    NoSuchRecord,
    /// More than an operation may name.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A value that nothing can show.
    #[error("impossible value: {0}")]
    Value(&'static str),
}

struct WireBatch {
    format: u8,
    records: Vec<RecordKey>,
    tables: Vec<WireTable>,
}
wire_struct!(WireBatch { format, records, tables });

struct WireTable {
    dir: DirId,
    operations: Vec<WireOperation>,
}
wire_struct!(WireTable { dir, operations });

pub(super) struct WireOperation {
    name: Name,
    value: WireValue,
    base: Vec<WireDot>,
    former: Vec<WireFormer>,
}
wire_struct!(WireOperation { name, value, base, former });

pub(super) enum WireValue {
    Tombstone {},
    File { file: FileValue },
    Dir { ids: Vec<DirId> },
}
wire_enum!(WireValue { 0 => Tombstone {}, 1 => File { file }, 2 => Dir { ids } });

pub(super) struct WireDot {
    record: u32,
    index: u16,
}
wire_struct!(WireDot { record, index });

pub(super) struct WireFormer {
    dir: DirId,
    height: u64,
    dot: WireDot,
}
wire_struct!(WireFormer { dir, height, dot });

/// The body of one record with these operations, in any order.
pub fn encode(operations: &[NewOperation]) -> Result<Vec<u8>, BatchError> {
    count(operations.len())?;
    let mut records = BTreeSet::new();
    for operation in operations {
        check(operation)?;
        records.extend(records_of(operation));
    }
    let position: BTreeMap<RecordKey, u32> = records.iter().copied().zip(0..).collect();
    let mut tables: BTreeMap<DirId, BTreeMap<Name, WireOperation>> = BTreeMap::new();
    for operation in operations {
        let table = tables.entry(operation.key.dir).or_default();
        if table.insert(operation.key.name.clone(), to_wire(operation, &position)).is_some() {
            return Err(BatchError::Disordered("names"));
        }
    }
    let table = |(dir, names): (DirId, BTreeMap<Name, _>)| WireTable { dir, operations: names.into_values().collect() };
    let batch = WireBatch {
        format: FORMAT,
        records: records.into_iter().collect(),
        tables: tables.into_iter().map(table).collect(),
    };
    let bytes = codec::encode(&batch);
    if bytes.len() > limits::FEED_BODY {
        return Err(codec::DecodeError::Oversize { len: bytes.len(), max: limits::FEED_BODY }.into());
    }
    Ok(bytes)
}

/// The operations of a record with this body; its header states `height`.
pub fn decode(bytes: &[u8], record: RecordKey, height: u64) -> Result<Vec<Operation>, BatchError> {
    let batch: WireBatch = codec::decode(bytes, limits::FEED_BODY)?;
    if batch.format != FORMAT {
        return Err(BatchError::Format(batch.format));
    }
    count(batch.tables.iter().map(|table| table.operations.len()).sum())?;
    rising(&batch.records, "records")?;
    rising(batch.tables.iter().map(|table| &table.dir), "directories")?;
    let mut operations = Vec::new();
    let mut used = BTreeSet::new();
    for table in batch.tables {
        if table.operations.is_empty() {
            return Err(BatchError::Disordered("directories"));
        }
        rising(table.operations.iter().map(|operation| &operation.name), "names")?;
        for operation in table.operations {
            let operation = from_wire(table.dir, operation, &batch.records)?;
            check(&operation)?;
            used.extend(records_of(&operation));
            let index = u16::try_from(operations.len()).map_err(|_| BatchError::Count(operations.len()))?;
            operations.push(operation.signed(Dot { record, index }, height));
        }
    }
    if used.len() != batch.records.len() {
        return Err(BatchError::Disordered("records"));
    }
    Ok(operations)
}

impl NewOperation {
    pub(super) fn signed(self, dot: Dot, height: u64) -> Operation {
        let NewOperation { key, value, base, former } = self;
        Operation { dot, height, key, value, base: base.into(), former: former.into() }
    }
}

fn count(operations: usize) -> Result<(), BatchError> {
    if operations == 0 || operations > limits::FEED_OPERATIONS {
        return Err(BatchError::Count(operations));
    }
    Ok(())
}

pub(super) fn rising<T: Ord>(items: impl IntoIterator<Item = T>, what: &'static str) -> Result<(), BatchError> {
    if items.into_iter().is_sorted_by(|left, right| left < right) { Ok(()) } else { Err(BatchError::Disordered(what)) }
}

pub(super) fn at_most(len: usize, max: usize, what: &'static str) -> Result<(), BatchError> {
    if len > max { Err(BatchError::TooMany(what)) } else { Ok(()) }
}

pub(super) fn check(operation: &NewOperation) -> Result<(), BatchError> {
    at_most(operation.base.len(), limits::BASE_DOTS, "replaced operations")?;
    rising(&operation.base, "replaced operations")?;
    at_most(operation.former.len(), limits::FORMER_DIRECTORIES, "former directories")?;
    rising(operation.former.iter().map(|former| former.dir), "former directories")?;
    if operation.former.iter().any(|former| former.dir == DirId::ROOT) {
        return Err(BatchError::Value("the root had another place"));
    }
    match &operation.value {
        Value::Tombstone => Ok(()),
        Value::File(file) => check_file(file),
        Value::Dir(ids) => {
            at_most(ids.len(), limits::DIRECTORY_IDS, "ids of one directory")?;
            rising(ids, "ids of a directory")?;
            match ids.first() {
                None => Err(BatchError::Value("a directory without id")),
                Some(&DirId::ROOT) => Err(BatchError::Value("the root inside the folder")),
                Some(_) => Ok(()),
            }
        }
    }
}

fn check_file(file: &FileValue) -> Result<(), BatchError> {
    at_most(file.unknown.0.len(), limits::UNKNOWN_FIELDS, "unknown fields")?;
    match &file.kind {
        FileKind::Symlink { target } => at_most(target.len(), limits::SYMLINK_TARGET, "bytes in a link"),
        FileKind::Regular { manifest: Manifest::Inline { average_log2, chunks } } => {
            at_most(chunks.len(), limits::INLINE_CHUNKS, "chunks inline")?;
            check_average(*average_log2)?;
            let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
            if bytes != file.size || chunks.iter().any(|chunk| chunk.len == 0) {
                return Err(BatchError::Value("the chunks do not make up the size"));
            }
            Ok(())
        }
        FileKind::Regular { manifest: Manifest::Paged { average_log2, chunks, .. } } => {
            check_average(*average_log2)?;
            if *chunks == 0 || u64::from(*chunks) > file.size {
                return Err(BatchError::Value("the chunks do not make up the size"));
            }
            Ok(())
        }
    }
}

fn check_average(average_log2: u8) -> Result<(), BatchError> {
    if AVERAGES.contains(&average_log2) { Ok(()) } else { Err(BatchError::Value("average chunk size")) }
}

pub(super) fn records_of(operation: &NewOperation) -> impl Iterator<Item = RecordKey> {
    let former = operation.former.iter().map(|former| former.order.dot.record);
    operation.base.iter().map(|dot| dot.record).chain(former)
}

pub(super) fn wire_dot(dot: &Dot, position: &BTreeMap<RecordKey, u32>) -> WireDot {
    WireDot { record: position.get(&dot.record).copied().unwrap_or(u32::MAX), index: dot.index }
}

pub(super) fn read_dot(wire: &WireDot, records: &[RecordKey]) -> Result<Dot, BatchError> {
    let record = records.get(wire.record as usize).copied().ok_or(BatchError::NoSuchRecord)?;
    Ok(Dot { record, index: wire.index })
}

pub(super) fn to_wire(operation: &NewOperation, position: &BTreeMap<RecordKey, u32>) -> WireOperation {
    let wire = |dot: &Dot| wire_dot(dot, position);
    let value = match &operation.value {
        Value::Tombstone => WireValue::Tombstone {},
        Value::File(file) => WireValue::File { file: file.clone() },
        Value::Dir(ids) => WireValue::Dir { ids: ids.clone() },
    };
    let former = |Former { dir, order }: &Former| WireFormer { dir: *dir, height: order.height, dot: wire(&order.dot) };
    WireOperation {
        name: operation.key.name.clone(),
        value,
        base: operation.base.iter().map(wire).collect(),
        former: operation.former.iter().map(former).collect(),
    }
}

pub(super) fn from_wire(
    dir: DirId,
    operation: WireOperation,
    records: &[RecordKey],
) -> Result<NewOperation, BatchError> {
    let dot = |wire: WireDot| read_dot(&wire, records);
    let former =
        |WireFormer { dir, height, dot: at }: WireFormer| Ok(Former { dir, order: Order { height, dot: dot(at)? } });
    let value = match operation.value {
        WireValue::Tombstone {} => Value::Tombstone,
        WireValue::File { file } => Value::File(file),
        WireValue::Dir { ids } => Value::Dir(ids),
    };
    Ok(NewOperation {
        key: Key { dir, name: operation.name },
        value,
        base: operation.base.into_iter().map(dot).collect::<Result<_, BatchError>>()?,
        former: operation.former.into_iter().map(former).collect::<Result<_, BatchError>>()?,
    })
}
