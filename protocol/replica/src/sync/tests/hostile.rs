//! Peers that say what they should not.

use meshwork_protocol::{
    object::{Prefix, Vector},
    wire::sync::{self, ObjectState, ShortDigest, VectorEntry},
};

use super::*;

pub const PEER: DeviceId = DeviceId([7; 32]);
pub const NOW: Timestamp = Timestamp(5_000_000);

pub fn chain(n: u8) -> ChainId {
    ChainId([n; 16])
}

/// A machine that holds ten records of one chain, with one connected peer.
pub fn machine() -> Sync {
    let mut sync = Sync::new();
    let vector = Vector(BTreeMap::from([(chain(1), (10, RecordId([1; 32])))]));
    let _ = sync.handle(
        NOW,
        Input::ObjectAdded { object: OBJECT, vector, retired: BTreeSet::new(), control: vec![OpId([1; 32])] },
    );
    let _ = sync.handle(NOW, Input::PeerUp { peer: PEER, objects: Audience::from([(OBJECT, Scope::Whole)]) });
    sync
}

pub fn say(sync: &mut Sync, now: Timestamp, frame: &Frame) -> Vec<Output> {
    sync.handle(now, Input::Frame { peer: PEER, bytes: frame.encode() })
}

pub fn hello() -> Frame {
    let control = sync::short(sync::control_digest(&OBJECT, &[OpId([1; 32])]));
    let vector = ShortDigest::default();
    Frame::Hello { version: sync::VERSION, objects: vec![ObjectState { object: OBJECT, control, vector }] }
}

pub fn entry(chain: ChainId, seq: u64) -> VectorEntry {
    VectorEntry { chain, seq, prefix: Prefix::default() }
}

pub fn wants(outputs: &[Output]) -> Vec<&Vec<Range>> {
    let wants = outputs.iter().filter_map(|output| match output {
        Output::Send { frame: Frame::Want { ranges, .. }, .. } => Some(ranges),
        _ => None,
    });
    wants.collect()
}

#[test]
fn three_malformed_frames_end_the_stream() {
    let mut sync = machine();
    let bad = |sync: &mut Sync| sync.handle(NOW, Input::Frame { peer: PEER, bytes: vec![0xff] });
    assert!(bad(&mut sync).is_empty());
    assert!(bad(&mut sync).is_empty());
    assert!(bad(&mut sync).contains(&Output::Close { peer: PEER, reason: Reason::Misbehaved }));
    assert_eq!((sync.counters().malformed, sync.counters().closed), (3, 1));
    assert!(bad(&mut sync).is_empty());
    assert_eq!(sync.peers().count(), 0);
}

#[test]
fn frames_before_the_first_and_second_first_frames_are_faults() {
    let mut sync = machine();
    assert!(say(&mut sync, NOW, &Frame::KeepAlive {}).is_empty());
    let _ = say(&mut sync, NOW, &hello());
    assert!(say(&mut sync, NOW, &hello()).is_empty());
    assert_eq!(sync.counters().out_of_order, 2);
}

#[test]
fn another_version_ends_the_stream() {
    let mut sync = machine();
    let outputs = say(&mut sync, NOW, &Frame::Hello { version: 2, objects: vec![] });
    assert_eq!(outputs.last(), Some(&Output::Close { peer: PEER, reason: Reason::Version }));
}

#[test]
fn a_claim_that_is_never_kept_is_asked_for_ever_more_rarely() {
    let mut sync = machine();
    let _ = say(&mut sync, NOW, &hello());
    let entries = (0..200).map(|n| entry(chain(n), u64::MAX)).collect();
    let outputs = say(&mut sync, NOW, &Frame::Vector { object: OBJECT, entries });
    assert_eq!(wants(&outputs).len(), 1);
    let (mut now, mut asked) = (NOW, 0);
    for _ in 0..3_600 {
        let outputs = say(&mut sync, now, &Frame::Served { object: OBJECT });
        asked += wants(&outputs).len();
        now = now + SECOND;
        asked += wants(&sync.handle(now, Input::Tick)).len();
    }
    assert!((5..=20).contains(&asked), "asked {asked} times in an hour");
    assert!(sync.counters().fruitless >= 5);
}

#[test]
fn claims_are_bounded() {
    let mut sync = machine();
    let _ = say(&mut sync, NOW, &hello());
    for part in 0..3u8 {
        let id = |n: usize| {
            ChainId(
                blake3::hash(&[&[part], n.to_be_bytes().as_slice()].concat()).as_bytes()[..16].try_into().expect("16"),
            )
        };
        let entries = (0..limits::SYNC_CHAINS).map(|n| entry(id(n), 1)).collect();
        let outputs = say(&mut sync, NOW, &Frame::Announce { object: OBJECT, entries });
        assert!(wants(&outputs).iter().all(|ranges| ranges.len() <= limits::SYNC_RANGES));
    }
    assert_eq!(sync.counters().over_claimed, 2 * limits::SYNC_CHAINS as u64);
}

#[test]
fn questions_beyond_credit_or_holdings_cost_nothing() {
    let mut sync = machine();
    let _ = say(&mut sync, NOW, &hello());
    let want = |chain, first, last| {
        let range = Range { chain, first, last, after: Prefix::default() };
        Frame::Want { object: OBJECT, ranges: vec![range.clone(), range] }
    };
    let served =
        |outputs: Vec<Output>| outputs == [Output::Send { peer: PEER, frame: Frame::Served { object: OBJECT } }];
    assert!(served(say(&mut sync, NOW, &want(chain(2), 1, u64::MAX))));
    assert!(served(say(&mut sync, NOW, &want(chain(1), 12, u64::MAX))));
    assert!(served(say(&mut sync, NOW, &want(chain(1), u64::MAX, 0))));
    assert!(served(say(&mut sync, NOW, &Frame::Want { object: OBJECT, ranges: vec![] })));
    for _ in 0..limits::SERVING_PER_OBJECT {
        let outputs = say(&mut sync, NOW, &want(chain(1), 0, u64::MAX));
        let ranges = vec![Range { chain: chain(1), first: 0, last: 10, after: Prefix::default() }];
        assert_eq!(outputs, [Output::Serve { peer: PEER, object: OBJECT, ranges, answer: true, behind: false }]);
    }
    for _ in 0..10 {
        assert!(served(say(&mut sync, NOW, &want(chain(1), 1, 10))));
    }
    assert_eq!(sync.counters().over_credit, 10);
}

#[test]
fn asking_for_states_again_and_again_is_answered_once_a_second() {
    let mut sync = machine();
    let _ = say(&mut sync, NOW, &hello());
    let Frame::Hello { objects, .. } = hello() else { unreachable!() };
    let mut outputs = Vec::new();
    for _ in 0..1_000 {
        outputs.extend(say(&mut sync, NOW, &Frame::Offer { objects: objects.clone() }));
        outputs.extend(say(&mut sync, NOW, &Frame::Vector { object: OBJECT, entries: vec![] }));
        outputs.extend(say(&mut sync, NOW, &Frame::ControlHave { object: OBJECT, heads: vec![OpId([9; 32])] }));
    }
    assert!(outputs.len() <= 3, "{} outputs", outputs.len());
}

#[test]
fn chains_that_two_replicas_can_never_agree_on_do_not_keep_them_talking() {
    let mut sync = machine();
    let _ = say(&mut sync, NOW, &hello());
    let frame = Frame::Vector { object: OBJECT, entries: vec![entry(chain(1), 10)] };
    let outputs = say(&mut sync, NOW, &frame);
    assert_eq!(wants(&outputs).len(), 1, "the other side's record is asked for");
    let outputs = say(&mut sync, NOW, &Frame::Served { object: OBJECT });
    assert!(wants(&outputs).is_empty());
    assert!(wants(&say(&mut sync, NOW, &frame)).is_empty());
}

proptest! {
    #[test]
    fn no_frames_make_it_panic_or_speak_without_end(
        frames in prop::collection::vec(arbitrary_frame(), 1..60),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut sync = machine();
        let mut outputs = sync.handle(NOW, Input::Frame { peer: PEER, bytes: hello().encode() }).len();
        for (at, frame) in frames.iter().enumerate() {
            let mut bytes = frame.encode();
            if let Some((index, flip)) = flips.get(at) {
                let index = index.index(bytes.len());
                bytes[index] ^= *flip;
            }
            let now = NOW + SECOND * at as u32;
            outputs += sync.handle(now, Input::Frame { peer: PEER, bytes }).len();
            outputs += sync.handle(now, Input::Tick).len();
            prop_assert!(sync.next_deadline().is_none_or(|due| due > now), "a deadline that never passes");
        }
        prop_assert!(outputs <= 20 + 12 * frames.len());
    }
}

fn arbitrary_frame() -> impl Strategy<Value = Frame> {
    let object = prop_oneof![Just(OBJECT), Just(ObjectId([9; 32]))];
    let seq = prop_oneof![0u64..14, Just(u64::MAX), Just(u64::MAX - 1)];
    let claim = (0u8..4, seq.clone(), any::<bool>());
    let claims = prop::collection::vec(claim, 0..6);
    let range = (0u8..4, seq.clone(), seq).prop_map(|(n, first, last)| Range {
        chain: chain(n),
        first,
        last,
        after: Prefix::default(),
    });
    let entries = claims.prop_map(|claims| {
        let entry = |(n, seq, right): (u8, u64, bool)| VectorEntry {
            chain: chain(n),
            seq,
            prefix: if right { RecordId([1; 32]).prefix() } else { Prefix::default() },
        };
        claims.into_iter().map(entry).collect::<Vec<_>>()
    });
    (object, entries, prop::collection::vec(range, 0..6), 0u8..12, any::<bool>()).prop_map(
        |(object, entries, ranges, tag, done)| match tag {
            0 => hello(),
            1 => Frame::Offer {
                objects: vec![ObjectState { object, control: Prefix::default(), vector: Prefix::default() }],
            },
            2 => Frame::ControlHave { object, heads: vec![OpId([2; 32])] },
            3 => Frame::ControlItems { object, items: vec![], done },
            4 | 5 => Frame::Vector { object, entries },
            6 => Frame::Announce { object, entries },
            7 | 8 => Frame::Want { object, ranges },
            9 => Frame::Records { object, records: vec![serde_bytes::ByteBuf::from(vec![1, 2, 3])] },
            10 => Frame::Served { object },
            _ => Frame::KeepAlive {},
        },
    )
}
