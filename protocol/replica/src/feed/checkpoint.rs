//! The body of a record of a checkpoint: what still lives of the chains of its author whose place it takes, and what of
//! others those had replaced.
//!
//! `[1, [incarnation, ...], [record, ...], [[position, chain, seq, height], ...], [[directory, [[operation, dot], ...]], ...],
//! [[directory, [[name, [dot, ...]], ...]], ...]]`: the chains by their incarnations, rising, the same in each record of one
//! checkpoint, and so chains of its author and object and no others; records
//! (half of their ids), rising; those of them of which operations are listed, with the position of their chain, their places
//! and heights; the operations as they were written, rising by directory, name and dot; and the operations of others that
//! are dead, rising likewise. Operations and dots are as in a batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::{
    codec,
    id::{ChainId, DeviceId, DirId, Incarnation, ObjectId, RecordKey},
    limits, wire_struct,
};

use super::{
    batch::{self, BatchError, WireDot, WireOperation, rising},
    operation::{Dot, Key, Name, NewOperation, Operation},
};

/// Version of the form that is written.
const FORMAT: u8 = 1;

/// Bytes of a body that are no operations: framing and the lengths of its lists.
const FRAMING: usize = 64;
/// Bytes of a chain's id with its framing.
const CHAIN: usize = 20;
/// Bytes of a directory's id with its framing.
const DIRECTORY: usize = 32;
/// Bytes of a record's name, its position, place and height.
const RECORD: usize = 48;
/// Bytes of a dot.
const DOT: usize = 8;

struct WirePart {
    format: u8,
    chains: Vec<Incarnation>,
    records: Vec<RecordKey>,
    sources: Vec<WireSource>,
    tables: Vec<WireTable>,
    killed: Vec<WireKilled>,
}
wire_struct!(WirePart { format, chains, records, sources, tables, killed });

struct WireSource {
    record: u32,
    chain: u32,
    seq: u64,
    height: u64,
}
wire_struct!(WireSource { record, chain, seq, height });

struct WireTable {
    dir: DirId,
    operations: Vec<WireListed>,
}
wire_struct!(WireTable { dir, operations });

struct WireListed {
    operation: WireOperation,
    dot: WireDot,
}
wire_struct!(WireListed { operation, dot });

struct WireKilled {
    dir: DirId,
    names: Vec<WireKilledName>,
}
wire_struct!(WireKilled { dir, names });

struct WireKilledName {
    name: Name,
    dots: Vec<WireDot>,
}
wire_struct!(WireKilledName { name, dots });

/// Operations of others that are dead, by key.
pub type Killed = BTreeMap<Key, BTreeSet<Dot>>;

/// One record of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The chains whose place the checkpoint takes.
    pub chains: BTreeMap<ChainId, Incarnation>,
    /// Where the records are of which operations are listed.
    pub places: BTreeMap<RecordKey, (ChainId, u64)>,
    /// Operations of the chains that live.
    pub listed: Vec<Arc<Operation>>,
    /// Operations of other chains that such replaced as are not listed.
    pub killed: Killed,
}

impl Part {
    /// A checkpoint as few records. `place` tells the chain of a record, of those whose place is taken, and its place there.
    pub fn split(
        chains: BTreeMap<ChainId, Incarnation>,
        listed: Vec<Arc<Operation>>,
        killed: Killed,
        place: impl Fn(&RecordKey) -> Option<(ChainId, u64)>,
    ) -> Vec<Part> {
        let empty = Part { chains, ..Part::default() };
        let mut parts = Parts { done: vec![empty.clone()], empty, bytes: 0, count: 0 };
        for operation in listed {
            let Some(at) = place(&operation.dot.record) else { continue };
            let weight = weight(&operation);
            let part = parts.with_room(weight);
            part.places.insert(operation.dot.record, at);
            part.listed.push(operation);
        }
        for (key, dots) in killed {
            for dot in dots {
                let weight = DIRECTORY + key.name.as_bytes().len() + RECORD + DOT;
                parts.with_room(weight).killed.entry(key.clone()).or_default().insert(dot);
            }
        }
        parts.done
    }

    /// The body of the record.
    pub fn encode(&self) -> Result<Vec<u8>, BatchError> {
        let mut records: BTreeSet<RecordKey> = self.killed.values().flatten().map(|dot| dot.record).collect();
        for operation in &self.listed {
            records.insert(operation.dot.record);
            records.extend(batch::records_of(&unsigned(operation)));
        }
        let position: BTreeMap<RecordKey, u32> = records.iter().copied().zip(0..).collect();
        let heights: BTreeMap<RecordKey, u64> = self.listed.iter().map(|op| (op.dot.record, op.height)).collect();
        let mut incarnations: Vec<Incarnation> = self.chains.values().copied().collect();
        incarnations.sort_unstable();
        let number = |of: &ChainId| incarnations.binary_search(self.chains.get(of)?).ok();
        let place = |record: &RecordKey| self.places.get(record).map(|(of, seq)| (of, seq));
        let source = |(record, height): (&RecordKey, &u64)| WireSource {
            record: position.get(record).copied().unwrap_or(u32::MAX),
            chain: place(record).and_then(|(of, _)| number(of)).map_or(u32::MAX, |number| number as u32),
            seq: place(record).map_or(0, |(_, seq)| *seq),
            height: *height,
        };
        let part = WirePart {
            format: FORMAT,
            sources: heights.iter().map(source).collect(),
            tables: self.tables(&position),
            killed: self.killed_tables(&position),
            records: records.into_iter().collect(),
            chains: incarnations,
        };
        let bytes = codec::encode(&part);
        if bytes.len() > limits::FEED_BODY {
            return Err(codec::DecodeError::Oversize { len: bytes.len(), max: limits::FEED_BODY }.into());
        }
        Ok(bytes)
    }

    fn tables(&self, position: &BTreeMap<RecordKey, u32>) -> Vec<WireTable> {
        let mut tables: BTreeMap<DirId, BTreeMap<(&Name, Dot), WireListed>> = BTreeMap::new();
        for operation in &self.listed {
            let listed = WireListed {
                operation: batch::to_wire(&unsigned(operation), position),
                dot: batch::wire_dot(&operation.dot, position),
            };
            tables.entry(operation.key.dir).or_default().insert((&operation.key.name, operation.dot), listed);
        }
        let table =
            |(dir, names): (DirId, BTreeMap<_, _>)| WireTable { dir, operations: names.into_values().collect() };
        tables.into_iter().map(table).collect()
    }

    fn killed_tables(&self, position: &BTreeMap<RecordKey, u32>) -> Vec<WireKilled> {
        let mut tables: BTreeMap<DirId, Vec<WireKilledName>> = BTreeMap::new();
        for (key, dots) in &self.killed {
            let dots = dots.iter().map(|dot| batch::wire_dot(dot, position)).collect();
            tables.entry(key.dir).or_default().push(WireKilledName { name: key.name.clone(), dots });
        }
        tables.into_iter().map(|(dir, names)| WireKilled { dir, names }).collect()
    }

    /// Reads the body of a record of this author in this object.
    pub fn decode(bytes: &[u8], author: &DeviceId, object: &ObjectId) -> Result<Part, BatchError> {
        let wire: WirePart = codec::decode(bytes, limits::FEED_BODY)?;
        if wire.format != FORMAT {
            return Err(BatchError::Format(wire.format));
        }
        batch::at_most(wire.chains.len(), limits::CHECKPOINT_CHAINS, "chains")?;
        rising(&wire.chains, "chains")?;
        rising(&wire.records, "records")?;
        rising(wire.sources.iter().map(|source| source.record), "sources")?;
        let chain = |incarnation: &Incarnation| ChainId::of(author, object, incarnation);
        let mut reader = Reading {
            chains: wire.chains.iter().map(chain).collect(),
            sources: BTreeMap::new(),
            used: BTreeSet::new(),
            records: wire.records,
        };
        reader.take_sources(&wire.sources)?;
        let listed = reader.listed(wire.tables)?;
        let killed = reader.killed(wire.killed)?;
        if reader.used.len() != reader.records.len() {
            return Err(BatchError::Disordered("records"));
        }
        let of_source: BTreeSet<RecordKey> = listed.iter().map(|operation| operation.dot.record).collect();
        if of_source.len() != reader.sources.len() {
            return Err(BatchError::Disordered("sources"));
        }
        let places = reader.sources.into_iter().map(|(record, (at, _))| (record, at)).collect();
        let chains = reader.chains.into_iter().zip(wire.chains).collect();
        Ok(Part { chains, places, listed, killed })
    }
}

/// A part while it is read.
struct Reading {
    chains: Vec<ChainId>,
    records: Vec<RecordKey>,
    sources: BTreeMap<RecordKey, ((ChainId, u64), u64)>,
    used: BTreeSet<RecordKey>,
}

impl Reading {
    fn take_sources(&mut self, sources: &[WireSource]) -> Result<(), BatchError> {
        for source in sources {
            let record = self.records.get(source.record as usize).copied().ok_or(BatchError::NoSuchRecord)?;
            let chain = self.chains.get(source.chain as usize).filter(|_| source.seq > 0);
            let chain = *chain.ok_or(BatchError::Value("a listed record that is nowhere"))?;
            self.sources.insert(record, ((chain, source.seq), source.height));
        }
        Ok(())
    }

    fn dot(&mut self, wire: &WireDot) -> Result<Dot, BatchError> {
        let dot = batch::read_dot(wire, &self.records)?;
        self.used.insert(dot.record);
        Ok(dot)
    }

    fn listed(&mut self, tables: Vec<WireTable>) -> Result<Vec<Arc<Operation>>, BatchError> {
        batch::at_most(tables.iter().map(|table| table.operations.len()).sum(), limits::FEED_OPERATIONS, "operations")?;
        rising(tables.iter().map(|table| table.dir), "directories")?;
        let mut listed: Vec<Arc<Operation>> = Vec::new();
        for table in tables {
            let from = listed.len();
            for WireListed { operation, dot } in table.operations {
                let new = batch::from_wire(table.dir, operation, &self.records)?;
                batch::check(&new)?;
                self.used.extend(batch::records_of(&new));
                let dot = self.dot(&dot)?;
                let (_, height) = *self.sources.get(&dot.record).ok_or(BatchError::NoSuchRecord)?;
                listed.push(Arc::new(new.signed(dot, height)));
            }
            let new = listed.get(from..).unwrap_or_default();
            if new.is_empty() {
                return Err(BatchError::Disordered("directories"));
            }
            rising(new.iter().map(|operation| (&operation.key.name, operation.dot)), "names")?;
        }
        Ok(listed)
    }

    fn killed(&mut self, tables: Vec<WireKilled>) -> Result<Killed, BatchError> {
        rising(tables.iter().map(|table| table.dir), "directories")?;
        let mut killed = Killed::new();
        for WireKilled { dir, names } in tables {
            rising(names.iter().map(|name| &name.name), "names")?;
            if names.is_empty() || names.iter().any(|name| name.dots.is_empty()) {
                return Err(BatchError::Disordered("replaced operations"));
            }
            for WireKilledName { name, dots } in names {
                let dots: Vec<Dot> = dots.iter().map(|dot| self.dot(dot)).collect::<Result<_, _>>()?;
                rising(&dots, "replaced operations")?;
                killed.insert(Key { dir, name }, dots.into_iter().collect());
            }
        }
        Ok(killed)
    }
}

/// Parts while they are filled.
struct Parts {
    done: Vec<Part>,
    empty: Part,
    bytes: usize,
    count: usize,
}

impl Parts {
    /// The part that takes something of this weight.
    fn with_room(&mut self, weight: usize) -> &mut Part {
        self.bytes += weight;
        self.count += 1;
        let framing = FRAMING + CHAIN * self.empty.chains.len();
        if self.count > limits::FEED_OPERATIONS || self.bytes + framing > limits::FEED_BODY {
            self.done.push(self.empty.clone());
            (self.bytes, self.count) = (weight, 1);
        }
        let last = self.done.len() - 1;
        &mut self.done[last]
    }
}

/// An upper bound of what a listed operation adds to a body.
fn weight(operation: &Operation) -> usize {
    let new = unsigned(operation);
    let records = batch::records_of(&new).count() + 1;
    let alone = codec::encode(&batch::to_wire(&new, &BTreeMap::new())).len();
    alone + DIRECTORY + DOT + records * RECORD
}

fn unsigned(operation: &Operation) -> NewOperation {
    NewOperation {
        key: operation.key.clone(),
        value: operation.value.clone(),
        base: operation.base.to_vec(),
        former: operation.former.to_vec(),
    }
}
