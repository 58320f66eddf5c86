//! The format of one segment file of the log.
//!
//! ```text
//! header  "MESHLOG\0" | version u16 | turn u16 | segment number u32 | salt 16 | check 8          = 40 bytes
//! entry   payload length u32 | group u32 | kind u8 | object 32 | chain 16 | seq u64 | payload | check 8
//! ```
//!
//! Integers are big-endian. A check is the first 8 bytes of a BLAKE3 hash: of the bytes before it in a header; of
//! salt, segment number, offset, and the bytes before it in an entry. Because the salt is secret and the place is
//! hashed too, bytes inside a payload that somebody else chose can never pass for an entry when a damaged segment is
//! searched for readable ones. `group` is the offset at which the group began that was made durable together with
//! the entry: an entry of a later group proves that everything before its group had reached the disk. `turn` counts how
//! often the segment was rewritten without what was forgotten. It tells a place in the segment as it is from the same
//! place in what it was before, and is no part of a check, so that entries can be read under a lost header.
//!
//! Kinds: 0 filler, 1 control statements, 2 record, 3 own record, 4 floor. Only the last three have a chain and a seq.

use meshwork_protocol::id::{ChainId, ObjectId};

use super::{Entry, EntryKind, NewEntry, Position};

/// Version of the format that this build writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Length of a segment's header in bytes.
pub const HEADER_LEN: usize = 40;
/// Bytes of an entry before its payload.
pub const HEAD_LEN: usize = 65;
/// Bytes of an entry besides its payload.
pub const ENTRY_OVERHEAD: usize = HEAD_LEN + CHECK_LEN;
/// Largest payload in bytes: a record body of 1 MiB and its header, with room to grow.
pub const MAX_PAYLOAD: usize = 2 << 20;

const MAGIC: &[u8; 8] = b"MESHLOG\0";
const CHECK_LEN: usize = 8;
const KIND_FILLER: u8 = 0;
const KIND_CONTROL: u8 = 1;
const KIND_RECORD: u8 = 2;
const KIND_OWN_RECORD: u8 = 3;
const KIND_FLOOR: u8 = 4;

/// What distinguishes a segment from every other, and so enters the check of its entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Drawn once for a log.
    pub salt: [u8; 16],
    /// Number of the segment, from 1.
    pub number: u32,
    /// How often it was rewritten.
    pub turn: u16,
}

/// Why a header was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// Too short, or its check does not match.
    Damaged,
    /// Written by a program that knows a newer format.
    Version(u16),
}

impl Seal {
    /// The header of this segment.
    pub fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_be_bytes());
        header[10..12].copy_from_slice(&self.turn.to_be_bytes());
        header[12..16].copy_from_slice(&self.number.to_be_bytes());
        header[16..32].copy_from_slice(&self.salt);
        let check = truncated(blake3::hash(&header[..32]));
        header[32..].copy_from_slice(&check);
        header
    }

    /// Reads a header.
    pub fn parse(header: &[u8]) -> Result<Seal, HeaderFault> {
        let header: &[u8; HEADER_LEN] = header.try_into().map_err(|_| HeaderFault::Damaged)?;
        let check = truncated(blake3::hash(&header[..32]));
        if header[..8] != *MAGIC || header[32..] != check {
            return Err(HeaderFault::Damaged);
        }
        let version = u16::from_be_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&header[16..32]);
        Ok(Seal { salt, number: be32(&header[12..16]), turn: u16::from_be_bytes([header[10], header[11]]) })
    }

    /// Appends the bytes of `entry`, which will stand at `offset`, to `out`.
    pub fn write(&self, out: &mut Vec<u8>, offset: u32, group: u32, entry: &NewEntry) {
        let (kind, chain, seq) = match entry.kind {
            EntryKind::Control => (KIND_CONTROL, ChainId([0; 16]), 0),
            EntryKind::Record { chain, seq, own: false } => (KIND_RECORD, chain, seq),
            EntryKind::Record { chain, seq, own: true } => (KIND_OWN_RECORD, chain, seq),
            EntryKind::Floor { chain, seq } => (KIND_FLOOR, chain, seq),
        };
        let head = Head { len: entry.payload.len() as u32, group, kind, object: entry.object, chain, seq };
        self.write_raw(out, offset, &head, &entry.payload);
    }

    /// Bytes that take the place of `len` unreadable ones, so that no offset after them changes.
    ///
    /// `len` is at least [`ENTRY_OVERHEAD`], as is every stretch between two entries.
    pub fn filler(&self, offset: u32, len: u32) -> Vec<u8> {
        let payload = vec![0; (len as usize).saturating_sub(ENTRY_OVERHEAD)];
        let head = Head {
            len: payload.len() as u32,
            group: offset,
            kind: KIND_FILLER,
            object: ObjectId([0; 32]),
            chain: ChainId([0; 16]),
            seq: 0,
        };
        let mut out = Vec::with_capacity(len as usize);
        self.write_raw(&mut out, offset, &head, &payload);
        out
    }

    fn write_raw(&self, out: &mut Vec<u8>, offset: u32, head: &Head, payload: &[u8]) {
        let start = out.len();
        out.extend_from_slice(&head.len.to_be_bytes());
        out.extend_from_slice(&head.group.to_be_bytes());
        out.push(head.kind);
        out.extend_from_slice(&head.object.0);
        out.extend_from_slice(&head.chain.0);
        out.extend_from_slice(&head.seq.to_be_bytes());
        out.extend_from_slice(payload);
        let check = self.check(offset, &out[start..]);
        out.extend_from_slice(&check);
    }

    /// Reads the entry that fills `bytes` exactly and stands at `offset`; `None` when it is not one.
    pub fn read(&self, offset: u32, bytes: &[u8]) -> Option<Parsed> {
        let head = Head::parse(bytes)?;
        if head.total() != bytes.len() {
            return None;
        }
        let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_LEN)?)?;
        if self.check(offset, body) != check {
            return None;
        }
        Some(Parsed { group: head.group, entry: self.entry(offset, &head, &body[HEAD_LEN..]) })
    }

    fn entry(&self, offset: u32, head: &Head, payload: &[u8]) -> Option<Entry> {
        let kind = match head.kind {
            KIND_CONTROL => EntryKind::Control,
            KIND_RECORD | KIND_OWN_RECORD => {
                EntryKind::Record { chain: head.chain, seq: head.seq, own: head.kind == KIND_OWN_RECORD }
            }
            KIND_FLOOR => EntryKind::Floor { chain: head.chain, seq: head.seq },
            _ => return None,
        };
        let position = Position { segment: self.number, turn: self.turn, offset, len: head.total() as u32 };
        Some(Entry { position, object: head.object, kind, payload: payload.to_vec() })
    }

    fn check(&self, offset: u32, bytes: &[u8]) -> [u8; CHECK_LEN] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.salt).update(&self.number.to_be_bytes()).update(&offset.to_be_bytes()).update(bytes);
        truncated(hasher.finalize())
    }
}

/// A whole and unchanged entry.
pub struct Parsed {
    /// Offset at which its group began.
    pub group: u32,
    /// `None` for filler in the place of a stretch that was lost.
    pub entry: Option<Entry>,
}

/// The fixed fields at the start of an entry; nothing of it is proven before the check was compared.
pub struct Head {
    len: u32,
    group: u32,
    kind: u8,
    object: ObjectId,
    chain: ChainId,
    seq: u64,
}

impl Head {
    /// Reads the fixed fields, refusing those that no entry can have.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD_LEN] = bytes.get(..HEAD_LEN)?.try_into().ok()?;
        let (len, kind) = (be32(&bytes[..4]), bytes[8]);
        if kind > KIND_FLOOR || (kind != KIND_FILLER && len as usize > MAX_PAYLOAD) || len > u32::MAX / 2 {
            return None;
        }
        let (mut object, mut chain, mut seq) = ([0; 32], [0; 16], [0; 8]);
        object.copy_from_slice(&bytes[9..41]);
        chain.copy_from_slice(&bytes[41..57]);
        seq.copy_from_slice(&bytes[57..65]);
        let group = be32(&bytes[4..8]);
        Some(Head { len, group, kind, object: ObjectId(object), chain: ChainId(chain), seq: u64::from_be_bytes(seq) })
    }

    /// Length of the whole entry in bytes.
    pub fn total(&self) -> usize {
        self.len as usize + ENTRY_OVERHEAD
    }
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The first 8 bytes of a hash: enough against accidents, which is all a check is for.
pub fn truncated(hash: blake3::Hash) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&hash.as_bytes()[..CHECK_LEN]);
    check
}

#[cfg(test)]
mod tests {
    use meshwork_protocol::id::hex;

    use super::*;

    /// The bytes of version 1: a change here needs a new version and a reader for this one.
    #[test]
    fn golden_bytes() {
        let seal = Seal { salt: [0xab; 16], number: 7, turn: 0 };
        assert_eq!(
            hex(&seal.header()),
            "4d4553484c4f47000001000000000007abababababababababababababababab061cdaf112cc647b"
        );
        let kind = EntryKind::Record { chain: ChainId([2; 16]), seq: 5, own: false };
        let mut out = Vec::new();
        seal.write(
            &mut out,
            40,
            40,
            &NewEntry { object: ObjectId([1; 32]), kind, payload: b"hi".to_vec(), head: None },
        );
        assert_eq!(
            hex(&out),
            "0000000200000028020101010101010101010101010101010101010101010101010101010101010101\
             020202020202020202020202020202020000000000000005686928b6f409256e18bd"
        );
        let kind = EntryKind::Floor { chain: ChainId([2; 16]), seq: 5 };
        let mut out = Vec::new();
        seal.write(&mut out, 40, 40, &NewEntry { object: ObjectId([1; 32]), kind, payload: Vec::new(), head: None });
        assert_eq!(
            hex(&out),
            "0000000000000028040101010101010101010101010101010101010101010101010101010101010101\
             0202020202020202020202020202020200000000000000059327fe9db9b11070"
        );
        assert_eq!(
            hex(&Seal { turn: 3, ..seal }.header()),
            "4d4553484c4f47000001000300000007abababababababababababababababab65526567b1ee8871"
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let seal = Seal { salt: [9; 16], number: 1, turn: 0 };
        let entry = NewEntry { object: ObjectId([1; 32]), kind: EntryKind::Control, payload: vec![3; 20], head: None };
        let mut out = Vec::new();
        seal.write(&mut out, 40, 40, &entry);
        assert!(seal.read(40, &out).is_some());
        assert!(seal.read(41, &out).is_none(), "an entry is bound to its place");
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.read(40, &out).is_none(), "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn filler_fills_exactly() {
        let seal = Seal { salt: [9; 16], number: 1, turn: 0 };
        for len in [ENTRY_OVERHEAD as u32, 100, 5_000_000] {
            let filler = seal.filler(40, len);
            assert_eq!(filler.len(), len as usize);
            assert!(seal.read(40, &filler).is_some_and(|parsed| parsed.entry.is_none()));
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut header = Seal { salt: [0; 16], number: 1, turn: 0 }.header();
        header[9] = 2;
        let check = truncated(blake3::hash(&header[..32]));
        header[32..].copy_from_slice(&check);
        assert_eq!(Seal::parse(&header).err(), Some(HeaderFault::Version(2)));
        header[20] ^= 1;
        assert_eq!(Seal::parse(&header).err(), Some(HeaderFault::Damaged));
    }
}
