use serde_bytes::ByteArray;

use super::*;
use crate::{
    id::{DeviceId, EpochId, Incarnation, ObjectId},
    object::Header,
};

fn record(seq: u64, body_len: u32) -> Verified {
    let header = Header {
        object: ObjectId([1; 32]),
        kind: 1,
        incarnation: Incarnation([0; 8]),
        seq,
        prev: RecordId([1; 32]),
        control: vec![OpId([1; 32])],
        object_grant: OpId([1; 32]),
        device_grant: OpId([1; 32]),
        epoch: EpochId([0; 16]),
        deps: Vec::new(),
        height: seq,
        more: false,
        body_hash: ByteArray::new([0; 32]),
        body_len,
    };
    Verified::unsigned(DeviceId([1; 32]), header)
}

fn need(n: u8) -> Need {
    Need::Record(RecordId([n; 32]))
}

#[test]
fn released_when_all_needs_came_in_order_of_height() {
    let mut pending = Pending::default();
    let (low, high, other) = (record(2, 50), record(3, 50), record(4, 50));
    assert!(pending.hold(high.clone(), [need(1), need(2)]).is_empty());
    assert!(pending.hold(low.clone(), [need(2)]).is_empty());
    assert!(pending.hold(other.clone(), [need(2), Need::Control(OpId([1; 32]))]).is_empty());
    assert!(pending.arrived(need(1)).is_empty());
    assert_eq!(pending.arrived(need(2)), [low, high]);
    assert!(pending.arrived(need(2)).is_empty());
    assert_eq!(pending.arrived(Need::Control(OpId([1; 32]))), [other]);
    assert!(pending.is_empty());
    assert_eq!((pending.bytes(), pending.by_need.len(), pending.by_arrival.len()), (0, 0, 0));
}

#[test]
fn what_waits_itself_is_not_asked_for() {
    let mut pending = Pending::default();
    let first = record(2, 50);
    pending.hold(record(3, 50), [Need::Record(first.id()), need(3)]);
    pending.hold(first, [need(1)]);
    assert_eq!(pending.needs().collect::<Vec<_>>(), [need(1), need(3)]);
}

#[test]
fn the_oldest_make_room() {
    let mut pending = Pending::default();
    let first = record(1_000_000, 50);
    pending.hold(first.clone(), [need(1)]);
    for seq in 2..=limits::PENDING_RECORDS as u64 {
        assert!(pending.hold(record(seq, 50), [need(1)]).is_empty());
    }
    assert_eq!(pending.hold(record(2_000_000, 50), [need(1)]), [first.id()]);
    assert_eq!(pending.len(), limits::PENDING_RECORDS);
    let large = (limits::PENDING_RECORD_BYTES / 3) as u32;
    for seq in 1..=3 {
        pending.hold(record(3_000_000 + seq, large), [need(1)]);
        assert!(pending.bytes() <= limits::PENDING_RECORD_BYTES);
    }
    assert_eq!(pending.len(), 2);
    assert_eq!(pending.arrived(need(1)).len(), 2);
    assert_eq!((pending.bytes(), pending.by_need.len(), pending.by_arrival.len()), (0, 0, 0));
}
