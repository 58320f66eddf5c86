//! Single rules of the machine, one frame at a time.

use meshwork_protocol::{object::Prefix, wire::sync::ObjectState};

use super::{
    hostile::{NOW, PEER, chain, entry, hello, machine, say, wants},
    *,
};

const OTHER: DeviceId = DeviceId([8; 32]);

fn say_as(sync: &mut Sync, peer: DeviceId, frame: &Frame) -> Vec<Output> {
    sync.handle(NOW, Input::Frame { peer, bytes: frame.encode() })
}

fn whole(objects: &BTreeSet<ObjectId>) -> Audience {
    objects.iter().map(|object| (*object, Scope::Whole)).collect()
}

fn hello_states(outputs: &[Output]) -> Vec<ObjectState> {
    let states = outputs.iter().filter_map(|output| match output {
        Output::Send { frame: Frame::Hello { objects, .. }, .. } => Some(objects.clone()),
        _ => None,
    });
    states.flatten().collect()
}

#[test]
fn what_is_admitted_but_not_stored_is_neither_told_nor_served() {
    let mut sync = machine();
    let _ = say(&mut sync, NOW, &hello());
    let objects = Audience::from([(OBJECT, Scope::Whole)]);
    let before = hello_states(&sync.handle(NOW, Input::PeerUp { peer: OTHER, objects: objects.clone() }));
    let taken = Input::Taken { object: OBJECT, chain: chain(1), seq: 11, id: RecordId([11; 32]) };
    assert_eq!(sync.handle(NOW, taken), []);
    assert_eq!(sync.handle(NOW + SECOND, Input::Tick), []);
    let range = Range { chain: chain(1), first: 11, last: 11, after: Prefix::default() };
    match say(&mut sync, NOW, &Frame::Want { object: OBJECT, ranges: vec![range] }).as_slice() {
        [Output::Serve { ranges, .. }] => assert!(ranges.iter().all(|range| range.last <= 10)),
        [Output::Send { frame: Frame::Served { .. }, .. }] => {}
        other => panic!("{other:?}"),
    }
    let after = hello_states(&sync.handle(NOW, Input::PeerUp { peer: OTHER, objects: objects.clone() }));
    assert_eq!(before, after);
    let records = vec![Landed { chain: chain(1), seq: 11, id: RecordId([11; 32]), own: false }];
    let outputs = sync.handle(NOW + SECOND, Input::Appended { object: OBJECT, records });
    assert!(outputs.iter().any(|output| matches!(output, Output::Send { frame: Frame::Announce { .. }, .. })));
    let stored = hello_states(&sync.handle(NOW, Input::PeerUp { peer: OTHER, objects }));
    assert_ne!(before, stored);
}

#[test]
fn when_a_peer_that_is_asked_goes_another_is_asked_at_once() {
    let mut sync = machine();
    let _ = sync.handle(NOW, Input::PeerUp { peer: OTHER, objects: Audience::from([(OBJECT, Scope::Whole)]) });
    let frame = Frame::Vector { object: OBJECT, entries: vec![entry(chain(2), 5)] };
    let mut asked = Vec::new();
    for peer in [PEER, OTHER] {
        let _ = say_as(&mut sync, peer, &hello());
        asked.push(wants(&say_as(&mut sync, peer, &frame)).len());
    }
    assert_eq!(asked, [1, 0], "one is asked at a time");
    let outputs = sync.handle(NOW, Input::PeerDown { peer: PEER });
    assert_eq!(wants(&outputs).len(), 1);
    let outputs = sync.handle(NOW, Input::Allowed { peer: OTHER, objects: Audience::new() });
    assert!(wants(&outputs).is_empty());
    assert_eq!(sync.objects[&OBJECT].fetch.as_ref().map(|fetch| fetch.peer), None);
}

#[test]
fn one_peer_is_asked_for_a_few_objects_at_a_time_and_for_all_in_turn() {
    let mut sync = Sync::new();
    let objects: BTreeSet<ObjectId> = (1..=40).map(|n| ObjectId([n; 32])).collect();
    for object in &objects {
        let _ = sync.handle(NOW, added(*object));
    }
    let _ = sync.handle(NOW, Input::PeerUp { peer: PEER, objects: whole(&objects) });
    let _ = say(&mut sync, NOW, &Frame::Hello { version: 1, objects: vec![] });
    let mut open = BTreeSet::new();
    let mut answered = BTreeSet::new();
    let note = |outputs: &[Output], open: &mut BTreeSet<ObjectId>| {
        open.extend(outputs.iter().filter_map(|output| match output {
            Output::Send { frame: Frame::Want { object, .. }, .. } => Some(*object),
            _ => None,
        }));
    };
    for object in &objects {
        let outputs = say(&mut sync, NOW, &Frame::Vector { object: *object, entries: vec![entry(chain(2), 1)] });
        note(&outputs, &mut open);
    }
    assert_eq!(open.len(), limits::WANTS_PER_PEER);
    while let Some(object) = open.pop_first() {
        let taken = Input::Taken { object, chain: chain(2), seq: 1, id: RecordId([1; 32]) };
        note(&sync.handle(NOW, taken), &mut open);
        note(&say(&mut sync, NOW, &Frame::Served { object }), &mut open);
        answered.insert(object);
        assert!(open.len() <= limits::WANTS_PER_PEER);
    }
    assert_eq!(answered, objects);
}

#[test]
fn a_first_exchange_of_many_objects_is_one_frame_for_each_four_thousand() {
    let mut sync = Sync::new();
    let id = |n: usize| ObjectId(*blake3::hash(&n.to_be_bytes()).as_bytes());
    let objects: BTreeSet<ObjectId> = (0..limits::SYNC_OBJECTS + 1).map(id).collect();
    for object in &objects {
        let _ = sync.handle(NOW, added(*object));
    }
    let outputs = sync.handle(NOW, Input::PeerUp { peer: PEER, objects: whole(&objects) });
    let sizes: Vec<usize> = outputs
        .iter()
        .map(|output| match output {
            Output::Send { frame: Frame::Hello { objects, .. } | Frame::Offer { objects }, .. } => objects.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [limits::SYNC_OBJECTS, 1]);
}

#[test]
fn a_peer_that_holds_an_object_later_is_answered_though_nothing_differs() {
    let mut sync = machine();
    let own = hello_states(
        &sync.handle(NOW, Input::PeerUp { peer: OTHER, objects: Audience::from([(OBJECT, Scope::Whole)]) }),
    );
    assert_eq!(own.len(), 1);
    let Frame::Hello { version, .. } = hello() else { panic!("a hello") };
    let _ = say_as(&mut sync, OTHER, &Frame::Hello { version, objects: Vec::new() });
    // What this side said in its hello came too early for the peer: it must hear it once more.
    let offer = Frame::Offer { objects: own.clone() };
    let offers = |outputs: Vec<Output>| {
        let sent = outputs.into_iter().filter_map(|output| match output {
            Output::Send { frame: Frame::Offer { objects }, .. } => Some(objects),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    assert_eq!(offers(say_as(&mut sync, OTHER, &offer)), [own]);
    assert_eq!(offers(say_as(&mut sync, OTHER, &offer)), Vec::<Vec<ObjectState>>::new());
}

#[test]
fn a_peer_that_may_know_of_a_control_log_only_hears_and_gets_nothing_else() {
    let mut sync = machine();
    let objects = Audience::from([(OBJECT, Scope::Control)]);
    let states = hello_states(&sync.handle(NOW, Input::PeerUp { peer: OTHER, objects }));
    assert_eq!(
        states.iter().map(|state| state.vector).collect::<Vec<_>>(),
        [meshwork_protocol::wire::sync::ShortDigest::default()]
    );
    let _ = say_as(&mut sync, OTHER, &hello());
    let record = serde_bytes::ByteBuf::from(vec![1]);
    for frame in [
        Frame::Vector { object: OBJECT, entries: vec![entry(chain(2), 5)] },
        Frame::Announce { object: OBJECT, entries: vec![entry(chain(2), 6)] },
        Frame::Want {
            object: OBJECT,
            ranges: vec![Range { chain: chain(1), first: 1, last: 10, after: Prefix::default() }],
        },
        Frame::Records { object: OBJECT, records: vec![record] },
    ] {
        let before = sync.counters().not_allowed;
        let outputs = say_as(&mut sync, OTHER, &frame);
        let only_ends = |output: &Output| matches!(output, Output::Send { frame: Frame::Served { .. }, .. });
        assert!(outputs.iter().all(only_ends), "{outputs:?}");
        assert_eq!(sync.counters().not_allowed, before + 1, "{frame:?}");
    }
    let own = Landed { chain: chain(1), seq: 11, id: RecordId([11; 32]), own: true };
    let outputs = sync.handle(NOW, Input::Appended { object: OBJECT, records: vec![own] });
    let to_other =
        |output: &&Output| matches!(output, Output::Send { peer, .. } | Output::Serve { peer, .. } if *peer == OTHER);
    assert_eq!(outputs.iter().find(to_other), None);
    let question = Frame::ControlHave { object: OBJECT, heads: Vec::new() };
    let outputs = say_as(&mut sync, OTHER, &question);
    assert!(outputs.iter().any(|output| matches!(output, Output::SendControl { peer: OTHER, .. })), "{outputs:?}");
}

fn added(object: ObjectId) -> Input {
    Input::ObjectAdded { object, vector: Vector::default(), retired: BTreeSet::new(), control: vec![] }
}
