//! The gate before automerge: its parser walks every operation that a change claims to have, a run-length encoded claim
//! of 2^33 operations takes 80 bytes, and a change that its own code would never write makes it panic or keeps the
//! document from ever loading again. So a change is measured here first, with a reader that allocates nothing by
//! the sender's word, and only the narrow form that Meshwork itself writes passes.
//!
//! The form: chunk type 1, no time, no message, no trailing bytes, 32-byte authors, the columns of map operations only.

use meshwork_protocol::limits;

use super::ChangeError;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHECKSUM: usize = 4;
const PLAIN_CHANGE: u8 = 1;
const HASH: usize = 32;
const ACTOR: usize = 32;
const MAX_COLUMNS: u64 = 10;

/// The head of a measured change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) deps: Vec<[u8; 32]>,
    pub(super) actor: [u8; 32],
    pub(super) seq: u64,
    pub(super) start: u64,
    pub(super) operations: usize,
}

/// Measures a change. Work and memory are linear in the bytes.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline, ChangeError> {
    if bytes.len() > limits::GRAPH_CHANGE {
        return Err(ChangeError::Bound("bytes"));
    }
    let mut reader = Reader(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(ChangeError::Malformed("magic"));
    }
    reader.take(CHECKSUM)?;
    if reader.byte()? != PLAIN_CHANGE {
        return Err(ChangeError::Forbidden("chunk type"));
    }
    if reader.unsigned()? != reader.0.len() as u64 {
        return Err(ChangeError::Malformed("length"));
    }
    let deps = reader.list::<HASH>(limits::GRAPH_DEPS, "deps")?;
    let actor = reader.actor()?;
    let seq = reader.unsigned()?;
    let start = reader.unsigned()?;
    if reader.signed()? != 0 {
        return Err(ChangeError::Forbidden("time"));
    }
    if reader.unsigned()? != 0 {
        return Err(ChangeError::Forbidden("message"));
    }
    let others = reader.unsigned()?;
    if others > limits::GRAPH_ACTORS as u64 {
        return Err(ChangeError::Bound("authors"));
    }
    for _ in 0..others {
        reader.actor()?;
    }
    let operations = reader.columns()?;
    Ok(Outline { deps, actor, seq, start, operations })
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Unsigned,
    Signed,
    Text,
    Flag,
    Raw,
}

/// A column of map operations: its number in the format, its shape, the most values it may have.
fn column(number: u64) -> Option<(Shape, usize)> {
    let operations = limits::GRAPH_OPERATIONS;
    match number {
        // Map: author, counter. Action. Value: type and length.
        0x01 | 0x02 | ACTIONS | 0x56 => Some((Shape::Unsigned, operations)),
        0x15 => Some((Shape::Text, operations)),
        0x34 => Some((Shape::Flag, operations)),
        0x57 => Some((Shape::Raw, 0)),
        REPLACED => Some((Shape::Unsigned, operations)),
        // Replaced operations: author, counter.
        0x71 => Some((Shape::Unsigned, limits::GRAPH_REPLACED)),
        0x73 => Some((Shape::Signed, limits::GRAPH_REPLACED)),
        _ => None,
    }
}

const ACTIONS: u64 = 0x42;
const REPLACED: u64 = 0x70;

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], ChangeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(ChangeError::Malformed("truncated"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ChangeError> {
        self.take(1)?.first().copied().ok_or(ChangeError::Malformed("truncated"))
    }

    /// LEB128 of at most 64 bits.
    fn unsigned(&mut self) -> Result<u64, ChangeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ChangeError::Malformed("number"))
    }

    /// Signed LEB128 of at most 64 bits.
    fn signed(&mut self) -> Result<i64, ChangeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                break;
            }
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let negative = byte & 0x40 != 0 && shift < 57;
                return Ok(if negative { value | -1 << (shift + 7) } else { value });
            }
        }
        Err(ChangeError::Malformed("number"))
    }

    fn length(&mut self) -> Result<usize, ChangeError> {
        usize::try_from(self.unsigned()?).map_err(|_| ChangeError::Malformed("length"))
    }

    fn list<const N: usize>(&mut self, max: usize, what: &'static str) -> Result<Vec<[u8; N]>, ChangeError> {
        let count = self.length()?;
        if count > max {
            return Err(ChangeError::Bound(what));
        }
        let one = |_| self.take(N)?.try_into().map_err(|_| ChangeError::Malformed("truncated"));
        (0..count).map(one).collect()
    }

    fn actor(&mut self) -> Result<[u8; ACTOR], ChangeError> {
        if self.length()? != ACTOR {
            return Err(ChangeError::Forbidden("author"));
        }
        self.take(ACTOR)?.try_into().map_err(|_| ChangeError::Malformed("truncated"))
    }

    /// Measures the columns, which take all the rest, and returns the number of operations.
    fn columns(&mut self) -> Result<usize, ChangeError> {
        let count = self.unsigned()?;
        if count > MAX_COLUMNS {
            return Err(ChangeError::Forbidden("column"));
        }
        let mut heads = Vec::with_capacity(MAX_COLUMNS as usize);
        for _ in 0..count {
            let number = self.unsigned()?;
            if heads.last().is_some_and(|(last, _)| number <= *last) {
                return Err(ChangeError::Malformed("order of columns"));
            }
            heads.push((number, self.length()?));
        }
        let mut operations = 0;
        for (number, len) in heads {
            let (shape, max) = column(number).ok_or(ChangeError::Forbidden("column"))?;
            let mut data = Reader(self.take(len)?);
            let (values, sum) = data.measure(shape, max)?;
            if number == ACTIONS {
                operations = values;
            }
            if number == REPLACED && sum > limits::GRAPH_REPLACED as u64 {
                return Err(ChangeError::Bound("replaced operations"));
            }
        }
        if !self.0.is_empty() {
            return Err(ChangeError::Forbidden("trailing bytes"));
        }
        if operations == 0 {
            return Err(ChangeError::Forbidden("no operations"));
        }
        Ok(operations)
    }

    /// How many values a column claims, and their sum where they are unsigned.
    fn measure(&mut self, shape: Shape, max: usize) -> Result<(usize, u64), ChangeError> {
        let (mut values, mut sum) = (0usize, 0u64);
        while !self.0.is_empty() && shape != Shape::Raw {
            let (times, literal) = match shape {
                Shape::Flag => (self.unsigned()?, None),
                _ => match self.signed()? {
                    0 => (self.unsigned()?, None),
                    run if run > 0 => (run.unsigned_abs(), Some(1)),
                    literals => (literals.unsigned_abs(), Some(literals.unsigned_abs())),
                },
            };
            values = usize::try_from(times).map_or(usize::MAX, |times| values.saturating_add(times));
            if values > max {
                return Err(ChangeError::Bound("operations"));
            }
            // At most `max` rounds: a literal run has been counted above.
            for _ in 0..literal.unwrap_or(0) {
                let value = self.value(shape)?;
                let times = if literal == Some(1) { times } else { 1 };
                sum = sum.saturating_add(value.saturating_mul(times));
            }
        }
        Ok((values, sum))
    }

    fn value(&mut self, shape: Shape) -> Result<u64, ChangeError> {
        match shape {
            Shape::Unsigned | Shape::Flag | Shape::Raw => self.unsigned(),
            Shape::Signed => self.signed().map(|_| 0),
            Shape::Text => {
                let len = self.length()?;
                if len > limits::GRAPH_KEY {
                    return Err(ChangeError::Bound("key bytes"));
                }
                self.take(len).map(|_| 0)
            }
        }
    }
}
