use proptest::prelude::*;

use super::*;
use crate::id::{DeviceId, RecordId};

const OBJECT: ObjectId = ObjectId([1; 32]);

fn state(n: u8) -> ObjectState {
    ObjectState { object: ObjectId([n; 32]), control: ByteArray::new([n; 8]), vector: ByteArray::new([n; 8]) }
}

fn entry(n: u8) -> VectorEntry {
    VectorEntry { chain: ChainId([n; 16]), seq: u64::MAX, prefix: ByteArray::new([n; 8]) }
}

fn range() -> Range {
    Range { chain: ChainId([1; 16]), first: u64::MAX - 1, last: u64::MAX, after: ByteArray::new([1; 8]) }
}

#[test]
fn every_frame_round_trips() {
    let frames = [
        Frame::Hello { version: 1, objects: vec![state(1), state(2)] },
        Frame::Offer { objects: vec![] },
        Frame::ControlHave { object: OBJECT, heads: vec![OpId([1; 32])] },
        Frame::ControlItems { object: OBJECT, items: vec![ByteBuf::from(vec![1, 2])], done: true },
        Frame::Vector { object: OBJECT, entries: vec![entry(1)] },
        Frame::Announce { object: OBJECT, entries: vec![] },
        Frame::Want { object: OBJECT, ranges: vec![range()] },
        Frame::Records { object: OBJECT, records: vec![ByteBuf::from(vec![])] },
        Frame::Served { object: OBJECT },
        Frame::KeepAlive {},
        Frame::Bye { reason: Reason::Silent as u8 },
        Frame::Addresses { devices: vec![CardDevice { device: DeviceId([4; 32]), addresses: vec!["/a".into()] }] },
    ];
    for (tag, frame) in frames.into_iter().enumerate() {
        let bytes = frame.encode();
        assert_eq!(usize::from(bytes[1]), tag);
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        assert!(Frame::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Frame::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn a_state_of_one_object_is_some_tens_of_bytes() {
    assert!(Frame::Hello { version: 1, objects: vec![state(1)] }.encode().len() <= 64);
}

#[test]
fn the_largest_frame_of_each_kind_fits_and_one_more_does_not() {
    let devices = |more| {
        let addresses = vec!["/".repeat(limits::ADDRESS); limits::PAIR_ADDRESSES];
        vec![CardDevice { device: DeviceId([4; 32]), addresses }; limits::SYNC_DEVICES + more]
    };
    assert!(Frame::decode(&Frame::Addresses { devices: devices(0) }.encode()).is_ok());
    assert!(Frame::decode(&Frame::Addresses { devices: devices(1) }.encode()).is_err());
    let largest: [fn(usize) -> Frame; 5] = [
        |more| Frame::Hello { version: 1, objects: vec![state(1); limits::SYNC_OBJECTS + more] },
        |more| Frame::ControlHave { object: OBJECT, heads: vec![OpId([1; 32]); limits::SYNC_CONTROL_HEADS + more] },
        |more| Frame::Vector { object: OBJECT, entries: vec![entry(1); limits::SYNC_CHAINS + more] },
        |more| Frame::Want { object: OBJECT, ranges: vec![range(); limits::SYNC_RANGES + more] },
        |more| Frame::Records { object: OBJECT, records: vec![ByteBuf::from(vec![0; limits::RECORD + more])] },
    ];
    for frame in largest {
        assert!(Frame::decode(&frame(0).encode()).is_ok());
        assert!(matches!(Frame::decode(&frame(1).encode()), Err(FrameError::TooMany(_))));
    }
    let oversize = vec![0; limits::SYNC_FRAME + 1];
    assert!(matches!(Frame::decode(&oversize), Err(FrameError::Decode(DecodeError::Oversize { .. }))));
}

#[test]
fn parts_fit_in_frames() {
    let sizes = [0, 1, 100, limits::SYNC_FRAME_FILL, limits::RECORD, limits::RECORD, 5, 5];
    let parts = parts(sizes.iter().map(|size| vec![0; *size]));
    assert_eq!(parts.iter().flatten().map(|item| item.len()).collect::<Vec<_>>(), sizes);
    assert_eq!(parts.len(), 5);
    for records in parts {
        assert!(Frame::decode(&Frame::Records { object: OBJECT, records }.encode()).is_ok());
    }
    let many = super::parts((0..limits::SYNC_ITEMS + 1).map(|_| vec![]));
    assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [limits::SYNC_ITEMS, 1]);
}

#[test]
fn digests_tell_objects_and_heads_apart_but_not_their_order() {
    let (one, two) = (OpId([1; 32]), OpId([2; 32]));
    assert_eq!(control_digest(&OBJECT, &[one, two]), control_digest(&OBJECT, &[two, one]));
    assert_ne!(control_digest(&OBJECT, &[one]), control_digest(&OBJECT, &[two]));
    assert_ne!(control_digest(&OBJECT, &[one]), control_digest(&ObjectId([2; 32]), &[one]));
    let mut vector = Vector::default();
    assert!(vector.raise(ChainId([1; 16]), 1, RecordId([1; 32])));
    assert_ne!(vector.digest(&OBJECT), Vector::default().digest(&OBJECT));
    assert_ne!(vector.digest(&OBJECT), vector.digest(&ObjectId([2; 32])));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(&bytes);
    }

    #[test]
    fn what_decodes_is_what_was_encoded(tag in 0u8..14, tail in proptest::collection::vec(any::<u8>(), 0..60)) {
        let bytes = [&[0x83, tag], tail.as_slice()].concat();
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }
}
