//! Changes between bytes and rows.

use automerge::{ActorId, Change, ChangeHash, ExpandedChange, ScalarValue, legacy};

use super::{
    ChangeError,
    schema::{Map, check_entry},
};

/// One operation of a change: a value for a key of a map, or its removal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) map: Map,
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
    /// The operations whose values it replaces, in order.
    pub(super) replaced: legacy::SortedVec<legacy::OpId>,
}

/// The head of a change to be written.
pub(super) struct Head {
    pub(super) actor: [u8; 32],
    pub(super) seq: u64,
    pub(super) start: std::num::NonZeroU64,
    pub(super) deps: Vec<[u8; 32]>,
}

/// The one encoding of a change.
pub(super) fn write(head: Head, rows: Vec<Row>) -> Change {
    let operation = |row: Row| legacy::Op {
        action: match row.value {
            Some(value) => legacy::OpType::Put(ScalarValue::Bytes(value)),
            None => legacy::OpType::Delete,
        },
        obj: row.map.change_id(),
        key: legacy::Key::Map(row.key.into()),
        pred: row.replaced,
        insert: false,
    };
    Change::from(ExpandedChange {
        operations: rows.into_iter().map(operation).collect(),
        actor_id: ActorId::from(head.actor),
        hash: None,
        seq: head.seq,
        start_op: head.start,
        time: 0,
        message: None,
        deps: head.deps.into_iter().map(ChangeHash).collect(),
        extra_bytes: Vec::new(),
        author: None,
    })
}

/// Reads a change that has been measured. Whatever [`write`] would not have written is refused.
pub(super) fn read(bytes: &[u8]) -> Result<(Change, Vec<Row>), ChangeError> {
    let change = Change::try_from(bytes).map_err(|_| ChangeError::Malformed("change"))?;
    let expanded = change.decode();
    let rows: Vec<Row> = expanded.operations.iter().map(row).collect::<Result<_, _>>()?;
    if !rows.is_sorted_by(|a, b| (a.map, &a.key) < (b.map, &b.key)) {
        return Err(ChangeError::Forbidden("order of operations"));
    }
    if Change::from(expanded).raw_bytes() != bytes {
        return Err(ChangeError::Malformed("another encoding"));
    }
    Ok((change, rows))
}

fn row(operation: &legacy::Op) -> Result<Row, ChangeError> {
    let map = Map::from_change_id(&operation.obj).ok_or(ChangeError::Forbidden("map"))?;
    let legacy::Key::Map(key) = &operation.key else {
        return Err(ChangeError::Forbidden("key"));
    };
    let value = match &operation.action {
        legacy::OpType::Put(ScalarValue::Bytes(value)) => Some(value.clone()),
        legacy::OpType::Delete if !operation.pred.is_empty() => None,
        _ => return Err(ChangeError::Forbidden("operation")),
    };
    if operation.insert {
        return Err(ChangeError::Forbidden("operation"));
    }
    check_entry(key, value.as_deref())?;
    Ok(Row { map, key: key.to_string(), value, replaced: operation.pred.clone() })
}
