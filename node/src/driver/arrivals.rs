//! When the statements of control logs came to this device: a memory of its own, and no part of what they say, which
//! knows no clock. Lost with the index, and then unknown.

use std::collections::BTreeMap;

use meshwork_protocol::{id::OpId, key::Signed, time::Timestamp};

use crate::store::index::{Index, IndexError};

/// The tree: id of a statement -> microseconds since the Unix epoch (8, big-endian).
const TREE: &str = "arrivals";

/// Rows to be written.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// When which statement came.
#[derive(Default)]
pub struct Arrivals(BTreeMap<OpId, Timestamp>);

impl Arrivals {
    /// What is known from before. A row that cannot be read is left out.
    pub fn load(index: &dyn Index) -> Self {
        let mut known = BTreeMap::new();
        let read = index.scan_prefix(TREE, &[], &mut |key, value| {
            if let (Ok(id), Ok(time)) = (key.try_into(), value.try_into()) {
                known.insert(OpId(id), Timestamp(u64::from_be_bytes(time)));
            }
            true
        });
        if let Err(error) = read {
            tracing::warn!(%error, "when statements came cannot be read");
        }
        Arrivals(known)
    }

    /// Notes that a statement comes now, for the first time.
    pub fn note(&mut self, statement: &[u8], now: Timestamp, rows: &mut Rows) {
        let Ok(signed) = Signed::parse(statement) else { return };
        let id = OpId(signed.id());
        self.0.entry(id).or_insert_with(|| {
            rows.push((id.0.to_vec(), now.0.to_be_bytes().to_vec()));
            now
        });
    }

    /// When a statement came, in milliseconds since the Unix epoch.
    pub fn of(&self, id: OpId) -> Option<u64> {
        self.0.get(&id).map(|time| time.0 / 1_000)
    }
}

/// Writes rows.
pub fn write(index: &dyn Index, rows: Rows) -> Result<(), IndexError> {
    if rows.is_empty() { Ok(()) } else { index.put_many(TREE, rows) }
}
