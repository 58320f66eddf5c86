//! Changes that a device with a valid signature could send to do harm.

use automerge::{ActorId, ExpandedChange, ScalarValue, transaction::Transactable as _};
use proptest::prelude::*;

use super::*;

/// The third change of the scene, altered and encoded anew.
fn altered(bytes: &[u8], alter: impl FnOnce(&mut ExpandedChange)) -> Vec<u8> {
    let mut expanded = Change::try_from(bytes).unwrap().decode();
    alter(&mut expanded);
    Change::from(expanded).raw_bytes().to_vec()
}

/// Refused, and nothing has changed.
fn refused(bytes: &[u8]) -> ChangeError {
    let (mut graph, honest) = scene();
    let before = (graph.hash(), graph.document.save());
    let error = try_apply(&mut graph, bytes).expect_err("must be refused");
    assert_eq!((graph.hash(), graph.document.save()), before);
    assert!(try_apply(&mut graph, &honest).is_ok(), "and what is honest still goes in");
    error
}

#[test]
fn headers_that_lie_are_refused() {
    let (graph, bytes) = scene();
    let first = schema::first_change().hash();
    let other = ActorId::from(actor(2).0);
    let alter = |alter: fn(&mut ExpandedChange)| refused(&altered(&bytes, alter));
    assert_eq!(alter(|c| c.seq = 7), ChangeError::Sequence { expected: 3, found: 7 });
    assert_eq!(alter(|c| c.seq = 2), ChangeError::Sequence { expected: 3, found: 2 }, "equivocation");
    assert_eq!(refused(&altered(&bytes, |c| c.deps = vec![first])), ChangeError::Detached);
    assert_eq!(alter(|c| c.deps.clear()), ChangeError::Detached);
    assert_eq!(alter(|c| c.deps.push(ChangeHash([7; 32]))), ChangeError::Missing(vec![[7; 32]]));
    assert_eq!(alter(|c| c.deps = vec![ChangeHash([7; 32]); 65]), ChangeError::Bound("deps"));
    assert_eq!(alter(|c| c.deps = vec![ChangeHash([7; 32]); 1 << 20]), ChangeError::Bound("bytes"));
    assert_eq!(refused(&altered(&bytes, |c| c.actor_id = other)), ChangeError::Author);
    for wrong in [&[][..], &[1; 31], &[1; 33]] {
        let bytes = altered(&bytes, |c| c.actor_id = ActorId::from(wrong));
        assert_eq!(refused(&bytes), ChangeError::Forbidden("author"));
    }
    assert_eq!(alter(|c| c.actor_id = ActorId::from(vec![1; 1 << 20])), ChangeError::Bound("bytes"));
    let due = graph.next_counter(&graph.heads());
    for found in [1, due - 1, due + 1, u64::from(u32::MAX) - 1, u64::MAX] {
        let bytes = altered(&bytes, |c| c.start_op = NonZeroU64::new(found).unwrap());
        assert_eq!(refused(&bytes), ChangeError::Counter { expected: due, found });
    }
    for time in [1, -1, i64::MIN, i64::MAX] {
        assert_eq!(refused(&altered(&bytes, |c| c.time = time)), ChangeError::Forbidden("time"));
    }
    assert_eq!(alter(|c| c.message = Some("hi".into())), ChangeError::Forbidden("message"));
    assert_eq!(alter(|c| c.extra_bytes = vec![0]), ChangeError::Forbidden("trailing bytes"));
    assert_eq!(alter(|c| c.operations.clear()), ChangeError::Forbidden("no operations"));
}

#[test]
fn another_signer_or_number_than_stated_is_refused() {
    let (mut graph, bytes) = scene();
    assert_eq!(graph.apply(Signed { actor: actor(2), seq: 3, bytes: &bytes }), Err(ChangeError::Author));
    let wrong = graph.apply(Signed { actor: actor(1), seq: 4, bytes: &bytes });
    assert_eq!(wrong, Err(ChangeError::Sequence { expected: 3, found: 4 }));
    try_apply(&mut graph, &bytes).unwrap();
    let twin = altered(&bytes, |c| c.operations.truncate(1));
    assert_eq!(try_apply(&mut graph, &twin), Err(ChangeError::Sequence { expected: 4, found: 3 }));
}

#[test]
fn operations_beyond_the_form_are_refused() {
    use legacy::{Key, ObjectId, OpId, OpType};
    let (_, bytes) = scene();
    let alter = |alter: fn(&mut legacy::Op)| refused(&altered(&bytes, |c| alter(&mut c.operations[0])));
    let unknown = |o: &mut legacy::Op| o.obj = ObjectId::Id(OpId::new(77, &ActorId::from([0; 32])));
    assert_eq!(alter(unknown), ChangeError::Forbidden("map"));
    let entry = |o: &mut legacy::Op| o.obj = ObjectId::Id(OpId::new(5, &ActorId::from(actor(1).0)));
    assert_eq!(alter(entry), ChangeError::Forbidden("map"));
    assert_eq!(alter(|o| o.obj = ObjectId::Root), ChangeError::Forbidden("map"), "a map itself cannot be replaced");
    assert_eq!(alter(|o| o.action = OpType::Make(automerge::ObjType::Map)), ChangeError::Forbidden("operation"));
    assert_eq!(alter(|o| o.action = OpType::Make(automerge::ObjType::Text)), ChangeError::Forbidden("operation"));
    assert_eq!(alter(|o| o.action = OpType::Increment(1)), ChangeError::Forbidden("operation"));
    assert_eq!(alter(|o| o.insert = true), ChangeError::Forbidden("operation"));
    assert_eq!(alter(|o| o.action = OpType::MarkEnd(true)), ChangeError::Forbidden("column"));
    for value in [ScalarValue::Null, ScalarValue::Str("x".into()), ScalarValue::counter(1), ScalarValue::F64(f64::NAN)]
    {
        let bytes = altered(&bytes, |c| c.operations[0].action = OpType::Put(value));
        assert_eq!(refused(&bytes), ChangeError::Forbidden("operation"));
    }
    assert_eq!(alter(|o| o.key = Key::Seq(legacy::ElementId::Head)), ChangeError::Forbidden("column"));
    assert_eq!(alter(|o| o.key = Key::Map("".into())), ChangeError::Bound("key bytes"));
    assert_eq!(alter(|o| o.key = Key::Map("k".repeat(257).into())), ChangeError::Bound("key bytes"));
    let large = |o: &mut legacy::Op| o.action = OpType::Put(ScalarValue::Bytes(vec![0; 4_097]));
    assert_eq!(alter(large), ChangeError::Bound("value bytes"));
    let huge = |o: &mut legacy::Op| o.action = OpType::Put(ScalarValue::Bytes(vec![0; 1 << 20]));
    assert_eq!(alter(huge), ChangeError::Bound("bytes"));
}

#[test]
fn only_what_was_seen_can_be_replaced() {
    use legacy::OpId;
    let (_, bytes) = scene();
    let own = ActorId::from(actor(1).0);
    let replacing = |ids: &[OpId]| {
        let ids = ids.to_vec();
        altered(&bytes, |c| c.operations[0].pred = ids.into())
    };
    let honest = Change::try_from(&bytes[..]).unwrap().decode().operations[0].pred.get(0).unwrap().clone();
    assert_eq!(replacing(std::slice::from_ref(&honest)), bytes);
    let others = [
        vec![],
        vec![OpId::new(99, &own)],
        vec![OpId::new(honest.0 + 1, &own)],
        vec![honest.clone(), honest.clone()],
        vec![honest.clone(), OpId::new(honest.0 + 1, &own)],
        vec![OpId::new(1, &ActorId::from([0; 32]))],
        vec![OpId::new(honest.0, &ActorId::from(actor(3).0))],
    ];
    for ids in others {
        assert_eq!(refused(&replacing(&ids)), ChangeError::Replaced, "{ids:?}");
    }
    let nothing = altered(&bytes, |c| c.operations[1].pred = Vec::new().into());
    assert_eq!(refused(&nothing), ChangeError::Forbidden("operation"), "a removal of nothing");
}

#[test]
fn operations_stand_in_order_and_once() {
    let (_, bytes) = scene();
    let swapped = altered(&bytes, |c| c.operations.swap(0, 1));
    assert_eq!(refused(&swapped), ChangeError::Forbidden("order of operations"));
    let twice = altered(&bytes, |c| c.operations.insert(0, c.operations[0].clone()));
    assert_eq!(refused(&twice), ChangeError::Forbidden("order of operations"));
    let mut edit = Edit::new();
    for n in 0..=limits::GRAPH_OPERATIONS {
        edit = edit.put_setting(&n.to_string(), vec![]);
    }
    assert_eq!(Graph::new().edit(actor(1), edit), Err(ChangeError::Bound("operations")));
    let many = altered(&bytes, |c| c.operations = vec![c.operations[2].clone(); limits::GRAPH_OPERATIONS + 1]);
    assert_eq!(refused(&many), ChangeError::Bound("operations"));
}

#[test]
fn other_chunks_and_encodings_are_refused() {
    let (graph, bytes) = scene();
    let big = altered(&bytes, |c| {
        c.operations[0].action = legacy::OpType::Put(ScalarValue::Bytes(vec![0; 4_000]));
    });
    let compressed = Change::try_from(&big[..]).unwrap().bytes().into_owned();
    assert!(compressed.len() < big.len());
    assert_eq!(refused(&compressed), ChangeError::Forbidden("chunk type"));
    assert_eq!(refused(&graph.document.save()), ChangeError::Forbidden("chunk type"));
    let mut bundle = bytes.clone();
    bundle[8] = 3;
    assert_eq!(refused(&bundle), ChangeError::Forbidden("chunk type"));
    let mut checksum = bytes.clone();
    checksum[4] ^= 1;
    assert_eq!(refused(&checksum), ChangeError::Malformed("another encoding"));
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(refused(&longer), ChangeError::Malformed("length"));
    for len in 0..bytes.len() {
        assert!(matches!(refused(&bytes[..len]), ChangeError::Malformed(_)), "{len}");
    }
}

/// A change of actor 1, seq 3, whose columns are given as they are.
fn handmade(columns: &[(u64, &[u8])]) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(scene().0.heads()[0]);
    body.push(32);
    body.extend(actor(1).0);
    body.extend([3, 9, 0, 0, 1, 32]);
    body.extend([0; 32]);
    unsigned(&mut body, columns.len() as u64);
    for (number, data) in columns {
        unsigned(&mut body, *number);
        unsigned(&mut body, data.len() as u64);
    }
    columns.iter().for_each(|(_, data)| body.extend(*data));
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    unsigned(&mut bytes, body.len() as u64);
    bytes.extend(body);
    bytes
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn signed(out: &mut Vec<u8>, mut value: i64) {
    while !(-64..64).contains(&value) {
        out.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    out.push(value as u8 & 0x7f);
}

#[test]
fn claims_of_many_operations_are_refused_before_they_are_walked() {
    for claimed in [1_001, 1 << 17, 1 << 20, 1 << 33, 1 << 62, i64::MAX, i64::MIN] {
        let mut run = Vec::new();
        signed(&mut run, claimed);
        run.push(1);
        assert_eq!(refused(&handmade(&[(0x42, &run)])), ChangeError::Bound("operations"), "{claimed}");
        let mut nulls = vec![0];
        unsigned(&mut nulls, claimed.unsigned_abs());
        assert_eq!(refused(&handmade(&[(0x15, &nulls)])), ChangeError::Bound("operations"));
        assert_eq!(refused(&handmade(&[(0x34, &nulls[1..])])), ChangeError::Bound("operations"));
        let mut lists = vec![1];
        unsigned(&mut lists, claimed.unsigned_abs());
        if claimed > 4_096 {
            assert_eq!(refused(&handmade(&[(0x70, &lists)])), ChangeError::Bound("replaced operations"));
        }
    }
    let zeros = vec![0; 60_000];
    assert!(refused(&handmade(&[(0x42, &zeros)])) == ChangeError::Forbidden("no operations"), "runs of nothing");
    assert_eq!(refused(&handmade(&[(0x42 | 8, &[1, 1])])), ChangeError::Forbidden("column"), "compressed column");
    assert_eq!(refused(&handmade(&[(0x94, &[1])])), ChangeError::Forbidden("column"));
    assert_eq!(refused(&handmade(&[(0x42, &[1, 1]), (0x42, &[1, 1])])), ChangeError::Malformed("order of columns"));
    assert!(matches!(refused(&handmade(&[(0x42, &[1, 99])])), ChangeError::Malformed(_) | ChangeError::Poison));
}

#[test]
fn automerge_of_another_making_is_refused() {
    let mut foreign = Automerge::new().with_actor(ActorId::from(actor(1).0));
    let mut transaction = foreign.transaction();
    transaction.put(automerge::ROOT, "devices", 1).unwrap();
    transaction.commit();
    let change = foreign.get_changes(&[]).remove(0);
    assert!(Graph::new().apply(Signed { actor: actor(1), seq: 1, bytes: change.raw_bytes() }).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// One to three bytes altered, with and without the checksum mended.
    #[test]
    fn mutated_changes_never_escape(
        places in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        mend: bool,
    ) {
        let (mut graph, honest) = scene();
        let mut bytes = honest.clone();
        for (place, mask) in &places {
            let place = place.index(bytes.len());
            bytes[place] ^= mask;
        }
        let measured = mend && validate::outline(&bytes).is_ok();
        if measured && let Ok(Ok(change)) = catch_unwind(|| Change::try_from(&bytes[..])) {
            bytes[4..8].copy_from_slice(&change.hash().0[..4]);
        }
        let before = graph.hash();
        match try_apply(&mut graph, &bytes) {
            Ok(_) => prop_assert!(reloads(&graph.document) && graph.edit(actor(1), Edit::new().put_setting("n", vec![])).is_ok()),
            Err(_) => {
                prop_assert_eq!(graph.hash(), before);
                prop_assert!(try_apply(&mut graph, &honest).is_ok());
            }
        }
    }

    #[test]
    fn garbage_is_measured_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), after in 0usize..80) {
        let mut start = scene().1;
        start.truncate(after);
        start.extend(bytes);
        let _ = validate::outline(&start);
    }
}
