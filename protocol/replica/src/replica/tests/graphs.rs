//! Changes of the graph, validly signed, that would make automerge panic, take all memory, or spoil the document.

use std::num::NonZeroU64;

use automerge::{ActorId, Change, ChangeHash, ExpandedChange, ScalarValue, legacy};

use super::*;
use crate::graph::{Edit, GraphActor};

/// The attacker sends a change that it altered; it must contribute nothing, and an honest one after it must go in.
fn poisoned(alter: impl FnOnce(&mut ExpandedChange)) {
    poisoned_bytes(|bytes| {
        let mut expanded = Change::try_from(bytes).unwrap().decode();
        alter(&mut expanded);
        Change::from(expanded).raw_bytes().to_vec()
    });
}

fn poisoned_bytes(alter: impl FnOnce(&[u8]) -> Vec<u8>) {
    let mut scene = Scene::new();
    let attacker = &scene.nodes[ATTACKER].replica;
    let actor = GraphActor::new(attacker.device(), scene.mesh, Incarnation([2; 8]));
    let edit = Edit::new().put_setting("theme", b"dark".to_vec());
    let honest = attacker.graph.clone().edit(actor, edit).unwrap().unwrap();
    let poison = scene.write(scene.mesh, RecordKind::Graph, &alter(&honest));
    let (before, count) = (scene.shown(), scene.counters(scene.mesh));
    assert_eq!(scene.send_record(scene.mesh, poison), [""; 0]);
    let after = scene.counters(scene.mesh);
    assert_eq!((after.void, after.admitted), (count.void + 1, count.admitted + 1));
    assert_eq!(scene.shown(), before, "the graph is what it was");
    let record = scene.write(scene.mesh, RecordKind::Graph, &honest);
    scene.send_record(scene.mesh, record);
    assert_eq!(scene.victim().graph().setting("theme").as_deref(), Some(&b"dark"[..]), "an honest one goes in");
}

#[test]
fn a_number_that_leaves_a_gap() {
    poisoned(|change| change.seq += 6);
}

#[test]
fn a_change_that_does_not_follow_its_authors_last() {
    poisoned(|change| change.deps.clear());
}

#[test]
fn a_change_that_depends_on_what_there_is_not() {
    poisoned(|change| change.deps.push(ChangeHash([7; 32])));
}

#[test]
fn a_change_that_depends_on_very_much() {
    poisoned(|change| change.deps = vec![ChangeHash([7; 32]); 1_000]);
}

#[test]
fn a_change_in_the_name_of_another() {
    poisoned(|change| change.actor_id = ActorId::from([9; 32]));
}

#[test]
fn authors_names_of_odd_lengths() {
    poisoned(|change| change.actor_id = ActorId::from(&[][..]));
    poisoned(|change| change.actor_id = ActorId::from(vec![1; 40_000]));
}

#[test]
fn counters_that_overlap() {
    poisoned(|change| change.start_op = NonZeroU64::MIN);
}

#[test]
fn counters_near_the_end() {
    poisoned(|change| change.start_op = NonZeroU64::new(u64::from(u32::MAX) - 1).unwrap());
}

#[test]
fn times_at_both_ends() {
    poisoned(|change| change.time = i64::MIN);
    poisoned(|change| change.time = i64::MAX);
}

#[test]
fn an_operation_on_an_unknown_object() {
    let unknown = legacy::OpId::new(77, &ActorId::from([0; 32]));
    poisoned(|change| change.operations[0].obj = legacy::ObjectId::Id(unknown));
}

#[test]
fn nested_maps() {
    poisoned(|change| change.operations[0].action = legacy::OpType::Make(automerge::ObjType::Map));
}

#[test]
fn values_of_other_types_and_sizes() {
    poisoned(|change| change.operations[0].action = legacy::OpType::Put(ScalarValue::counter(1)));
    let large = ScalarValue::Bytes(vec![0; limits::GRAPH_VALUE + 1]);
    poisoned(|change| change.operations[0].action = legacy::OpType::Put(large));
}

#[test]
fn the_removal_of_what_was_not_seen() {
    poisoned(|change| {
        let own = change.actor_id.clone();
        change.operations[0].pred = vec![legacy::OpId::new(99, &own)].into();
    });
}

#[test]
fn a_compressed_change() {
    poisoned_bytes(|bytes| {
        let mut expanded = Change::try_from(bytes).unwrap().decode();
        expanded.operations[0].action = legacy::OpType::Put(ScalarValue::Bytes(vec![0; 4_000]));
        let compressed = Change::from(expanded).bytes().into_owned();
        assert!(compressed.len() < 1_000, "it is compressed");
        compressed
    });
}

#[test]
fn a_whole_document() {
    poisoned_bytes(|_| automerge::Automerge::new().save());
}

#[test]
fn garbage() {
    poisoned_bytes(|_| vec![0; 60_000]);
    poisoned_bytes(|bytes| bytes[..bytes.len() - 1].to_vec());
    poisoned_bytes(|_| Vec::new());
}

#[test]
fn a_run_that_claims_more_operations_than_can_be_walked() {
    poisoned_bytes(|bytes| {
        let expanded = Change::try_from(bytes).unwrap().decode();
        let mut body = vec![expanded.deps.len() as u8];
        expanded.deps.iter().for_each(|dep| body.extend(dep.0));
        body.push(32);
        body.extend(expanded.actor_id.to_bytes());
        // seq, start, time, message, no other authors; one column, the action, of six bytes.
        body.extend([1, 8, 0, 0, 0, 1, 0x42, 6]);
        // A run of 2^33 of the value 1.
        body.extend([0x80, 0x80, 0x80, 0x80, 0x20, 1]);
        let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1, body.len() as u8];
        chunk.extend(body);
        chunk
    });
}

/// A device that joined has in its log records that came before the key that opens them.
#[test]
fn a_graph_that_is_read_again_after_a_start_says_that_its_settings_may_be_others() {
    let mut scene = Scene::new();
    let put = scene.nodes[VICTIM].replica.put_setting(&mut scene.rng, "relay.x", Some(vec![1])).expect("it may");
    scene.carry_out(VICTIM, put);
    scene.settle();
    let (mut replica, mesh) = (Replica::new(identity(OTHER as u8 + 1, MeshId(scene.mesh.0))), scene.mesh);
    let mut controls = scene.nodes[OTHER].log.iter().filter_map(|entry| match entry {
        Stored::Control { items, .. } => Some(items),
        Stored::Record { .. } | Stored::Retired { .. } => None,
    });
    let genesis = controls.next().and_then(|items| items.first()).expect("the birth of the mesh");
    replica.restore_control(genesis);
    for entry in &scene.nodes[OTHER].log {
        if let Stored::Record { object, bytes, own, .. } = entry {
            replica.restore_record(*object, bytes.clone(), *own);
        }
    }
    let later = scene.nodes[OTHER].log.iter().filter_map(|entry| match entry {
        Stored::Control { items, .. } => Some(items),
        Stored::Record { .. } | Stored::Retired { .. } => None,
    });
    later.flatten().for_each(|item| replica.restore_control(item));
    let out = replica.resume(scene.now, &mut scene.rng);
    assert_eq!(replica.graph().settings("relay."), BTreeMap::new());
    let places = out.iter().find_map(|output| match output {
        Output::Reread { object, places } if *object == mesh => Some(places.clone()),
        _ => None,
    });
    let records = &scene.nodes[OTHER].records;
    let records = places.expect("it is read again").iter().filter_map(|place| records.get(place).cloned()).collect();
    let out = replica.handle(scene.now, &mut scene.rng, Input::Reread { object: mesh, records, done: true });
    assert_eq!(replica.graph().settings("relay."), [("relay.x".to_owned(), vec![1])].into());
    assert!(out.iter().any(|output| matches!(output, Output::PeersChanged)), "the node must look at them");
}
