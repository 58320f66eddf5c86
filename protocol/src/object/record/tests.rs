use proptest::prelude::*;

use super::*;
use crate::seal::SeedRng;

fn dep(n: u8) -> Dep {
    Dep { chain: ChainId([n; 16]), seq: 1, id: RecordId([n; 32]) }
}

fn rng() -> SeedRng {
    SeedRng::new([9; 32])
}

fn draft() -> Draft {
    Draft {
        object: ObjectId([1; 32]),
        kind: RecordKind::Feed,
        incarnation: Incarnation([2; 8]),
        seq: 1,
        prev: RecordId::NONE,
        control: vec![OpId([4; 32]), OpId([3; 32])],
        object_grant: OpId([5; 32]),
        device_grant: OpId([6; 32]),
        deps: vec![dep(8), dep(7)],
        height: 4,
        more: false,
    }
}

fn keys() -> (DeviceKey, EpochKey) {
    (DeviceKey::from_bytes(&[7; 32]), EpochKey::from_bytes(&[8; 32]))
}

fn record(text: &[u8]) -> Verified {
    let (device, epoch) = keys();
    Record::create(&device, draft(), &epoch, text, &mut rng()).expect("a good draft")
}

fn resigned(change: impl FnOnce(&mut Header)) -> Result<Verified, RecordError> {
    let good: Record = codec::decode(record(b"text").bytes(), limits::RECORD).expect("canonical");
    let mut header: Header = good.signed.open(Kind::RecordHeader).expect("a header");
    change(&mut header);
    let signed = keys().0.sign(Kind::RecordHeader, codec::encode(&header));
    Record::parse(codec::encode(&Record { signed, body: good.body }))
}

#[test]
fn a_record_round_trips() {
    let record = record(b"some text");
    let parsed = Record::parse(record.bytes().to_vec()).expect("parses");
    assert_eq!(parsed, record);
    assert_eq!(Verified::trusted(record.bytes().to_vec()), Ok(record.clone()));
    assert_eq!(parsed.open(&keys().1).expect("opens").as_slice(), b"some text");
    assert_eq!(parsed.author(), keys().0.device_id());
    assert_eq!(parsed.header().control, [OpId([3; 32]), OpId([4; 32])]);
    assert_eq!(RecordId(parsed.signed().expect("decodes").id()), parsed.id());
}

#[test]
fn the_largest_record_fits_its_limits() {
    let (device, epoch) = keys();
    let ids = |n: u8| (0..n).map(|i| [i + 1; 32]);
    let draft = Draft {
        seq: u64::MAX,
        prev: RecordId([1; 32]),
        height: u64::MAX,
        control: ids(8).map(OpId).collect(),
        deps: ids(16).map(|id| Dep { chain: ChainId([0xff; 16]), seq: u64::MAX, id: RecordId(id) }).collect(),
        ..draft()
    };
    let record = Record::create(&device, draft.clone(), &epoch, &vec![0; limits::RECORD_TEXT_MAX], &mut rng())
        .expect("largest record");
    assert!(record.bytes().len() <= limits::RECORD);
    assert_eq!(Record::parse(record.bytes().to_vec()).map(|r| r.id()), Ok(record.id()));
    let over = Record::create(&device, draft, &epoch, &vec![0; limits::RECORD_TEXT_MAX + 1], &mut rng());
    assert_eq!(over, Err(RecordError::TooBig(limits::RECORD_TEXT_MAX + 1)));
    assert_eq!(Record::parse(vec![0; limits::RECORD + 1]), Err(RecordError::TooBig(limits::RECORD + 1)));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let bytes = record(b"").bytes().to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::parse(flipped).is_err(), "bit {bit}");
    }
    assert!(Record::parse([bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn headers_are_checked_even_if_signed() {
    assert!(resigned(|_| ()).is_ok());
    let bad = |change: fn(&mut Header)| match resigned(change) {
        Err(RecordError::Header(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(bad(|h| h.seq = 0), HeaderError::ZeroSeq);
    assert_eq!(bad(|h| h.seq = 2), HeaderError::PrevMismatch);
    assert_eq!(bad(|h| h.prev = RecordId([1; 32])), HeaderError::PrevMismatch);
    assert_eq!(bad(|h| h.control.clear()), HeaderError::ControlHeads);
    assert_eq!(bad(|h| h.control.reverse()), HeaderError::ControlHeads);
    assert_eq!(bad(|h| h.control = (1..10).map(|i| OpId([i; 32])).collect()), HeaderError::ControlHeads);
    assert_eq!(bad(|h| h.deps = (1..18).map(dep).collect()), HeaderError::TooManyDeps(17));
    assert_eq!(bad(|h| h.deps.reverse()), HeaderError::UnsortedDeps);
    assert_eq!(bad(|h| h.deps = vec![Dep { id: RecordId::NONE, ..dep(1) }]), HeaderError::UnsortedDeps);
    assert_eq!(bad(|h| h.deps = vec![dep(1); 2]), HeaderError::UnsortedDeps);
    assert_eq!(bad(|h| h.height = 0), HeaderError::Height);
    assert_eq!(resigned(|h| h.body_len += 1), Err(RecordError::BodyMismatch));
    assert_eq!(resigned(|h| h.body_hash = ByteArray::new([0; 32])), Err(RecordError::BodyMismatch));
}

#[test]
fn a_body_opens_only_at_its_place() {
    let (_, epoch) = keys();
    let moved: [fn(&mut Header); 4] =
        [|h| h.object = ObjectId([9; 32]), |h| h.height = 5, |h| h.deps.clear(), |h| h.more = true];
    for change in moved {
        let moved = resigned(change).expect("well-formed");
        assert_eq!(moved.open(&epoch), Err(OpenError::BadCipher));
    }
    assert_eq!(record(b"x").open(&EpochKey::from_bytes(&[1; 32])), Err(OpenError::BadCipher));
}

/// A record whose author is hostile: the plaintext of its body is `plain` as it stands.
fn framed(plain: &[u8]) -> Verified {
    let (device, epoch) = keys();
    let mut header = draft().header(&epoch);
    let body = epoch.encrypt(&mut rng(), &header.associated_data(&device.device_id()), plain);
    header.body_hash = ByteArray::new(*blake3::hash(&body).as_bytes());
    header.body_len = body.len() as u32;
    let signed = device.sign(Kind::RecordHeader, codec::encode(&header));
    Record::parse(codec::encode(&Record { signed, body: ByteBuf::from(body) })).expect("well-formed")
}

#[test]
fn hostile_plaintexts_are_named() {
    let (_, epoch) = keys();
    assert_eq!(framed(&[0, 0, 0, 0, 1, 5]).open(&epoch).map(|text| text.to_vec()), Ok(vec![5]));
    assert_eq!(framed(&[0, 0, 0, 0, 2, 5]).open(&epoch), Err(OpenError::Malformed));
    assert_eq!(framed(&[1, 0, 0, 0, 1, 5]).open(&epoch), Err(OpenError::Malformed));
    assert_eq!(framed(&[1, 1, 0, 0, 0, 5]).open(&epoch), Err(OpenError::Bomb { declared: 1 << 24 }));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Record::parse(bytes).is_err());
    }
}
