//! Records of chains, and the text in their bodies.

use meshwork_protocol::{
    codec,
    id::{ChainId, EpochId, Incarnation, ObjectId, OpId, RecordId},
    key::Kind,
    limits,
    object::{Dep, Draft, Header, OpenError, Record, RecordKind, Verified},
    seal::{EpochKey, SeedRng},
};
use serde_bytes::{ByteArray, ByteBuf};

use super::{frames::canonical, program::Program, statements::signer};

const OBJECT: ObjectId = ObjectId([1; 32]);

fn epoch() -> EpochKey {
    EpochKey::from_bytes(&[5; 32])
}

fn dep(number: u8) -> Dep {
    Dep { chain: ChainId([number; 16]), seq: u64::from(number), id: RecordId([number; 32]) }
}

/// A header that an honest author could write.
pub(super) fn header() -> Header {
    Header {
        object: OBJECT,
        kind: 1,
        incarnation: Incarnation([2; 8]),
        seq: 2,
        prev: RecordId([3; 32]),
        control: vec![OpId([4; 32]), OpId([5; 32])],
        object_grant: OpId([6; 32]),
        device_grant: OpId([7; 32]),
        epoch: EpochId([8; 16]),
        deps: vec![dep(9)],
        height: 300,
        more: false,
        body_hash: ByteArray::new([0; 32]),
        body_len: limits::RECORD_BODY_MIN as u32,
    }
}

/// A record as it came.
pub(super) fn record(bytes: &[u8]) -> bool {
    let Ok(decoded) = Record::decode(bytes.to_vec()) else { return false };
    let record = canonical::<Record>(bytes, limits::RECORD).expect("a record");
    assert_eq!(decoded.id(), RecordId(record.signed.id()));
    assert_eq!(decoded.header().check(), Ok(()), "no honest author writes this");
    assert_eq!(decoded.chain(), decoded.header().chain(&record.signed.device_id()));
    let trusted = Verified::trusted(bytes.to_vec()).expect("its form is good");
    assert_eq!((trusted.body(), trusted.bytes()), (record.body.as_slice(), bytes), "the body ends the record");
    match decoded.verify() {
        Ok(verified) => {
            assert_eq!(verified, trusted);
            assert_eq!(verified.signed(), Ok(record.signed));
            let _ = verified.open(&epoch());
            true
        }
        Err(error) => {
            assert_eq!(Record::parse(bytes.to_vec()), Err(error));
            false
        }
    }
}

fn draft(text_is: RecordKind) -> Draft {
    let header = header();
    Draft {
        object: header.object,
        kind: text_is,
        incarnation: header.incarnation,
        seq: header.seq,
        prev: header.prev,
        control: header.control,
        object_grant: header.object_grant,
        device_grant: header.device_grant,
        deps: header.deps,
        height: header.height,
        more: header.more,
    }
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let kinds = [RecordKind::Graph, RecordKind::Feed, RecordKind::Join, RecordKind::Checkpoint, RecordKind::Listing];
    let made = |kind| Record::create(&signer(), draft(kind), &epoch(), b"some text", &mut SeedRng::new([1; 32]));
    kinds.into_iter().filter_map(|kind| made(kind).ok()).map(Verified::into_bytes).collect()
}

/// A header by choice, and in its body any plaintext that a member can encrypt.
pub(super) fn text(bytes: &[u8]) -> bool {
    let mut program = Program::new(bytes);
    let mut header = header();
    header.kind = program.byte();
    header.seq = program.number();
    header.height = program.number();
    header.more = program.once_in(2);
    header.prev = RecordId([program.byte(); 32]);
    header.control = (0..program.below(12)).map(|_| OpId([program.byte(); 32])).collect();
    header.deps = (0..program.below(20)).map(|_| dep(program.byte())).collect();
    header.epoch = epoch().id(OBJECT);
    (header.body_len, header.body_hash) = (0, ByteArray::new([0; 32]));
    let plain = program.rest();
    let author = signer().device_id();
    let body = epoch().encrypt(&mut SeedRng::new([2; 32]), &header.associated_data(&author), plain);
    header.body_hash = ByteArray::new(*blake3::hash(&body).as_bytes());
    header.body_len = body.len() as u32;
    let signed = signer().sign(Kind::RecordHeader, codec::encode(&header));
    let record = codec::encode(&Record { signed, body: ByteBuf::from(body) });
    let parsed = Record::parse(record);
    assert_eq!(parsed.is_ok(), header.check().is_ok(), "only the header can be wrong");
    let Ok(verified) = parsed else { return false };
    let opened = verified.open(&epoch());
    let framed = plain.split_first_chunk::<5>().filter(|(framing, text)| {
        framing[0] == 0
            && u32::try_from(text.len()) == Ok(u32::from_be_bytes([framing[1], framing[2], framing[3], framing[4]]))
    });
    match (&opened, framed) {
        (Ok(text), Some((_, framed))) => assert_eq!(text.as_slice(), framed),
        (Err(OpenError::Malformed | OpenError::Bomb { .. }), None) => {}
        other => panic!("framed and opened disagree: {other:?}"),
    }
    opened.is_ok()
}

pub(super) fn text_seeds() -> Vec<Vec<u8>> {
    let honest = [&[1, 2, 3, 0, 3, 2, 4, 5, 1, 9, 0, 0, 0, 0, 4][..], b"text"].concat();
    let first = [&[3, 1, 1, 1, 0, 1, 4, 0, 0, 0, 0, 0, 1][..], b"x"].concat();
    let bomb = [&[1, 2, 3, 0, 3, 2, 4, 5, 1, 9, 0, 255, 255, 255, 255][..], b"text"].concat();
    vec![honest, first, bomb]
}
