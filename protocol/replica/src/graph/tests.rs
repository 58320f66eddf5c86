use meshwork_protocol::id::hex;
use proptest::prelude::*;

use super::*;

mod hostile;

const OBJECT: ObjectId = ObjectId([9; 32]);

fn actor(n: u8) -> GraphActor {
    GraphActor::new(DeviceId([n; 32]), OBJECT, Incarnation([0; 8]))
}

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn named(name: &str) -> Device {
    Device { name: name.into(), kind: 0 }
}

/// A graph of actor 1 with two changes, and its third, not yet applied: an overwrite, a removal and a new entry.
fn scene() -> (Graph, Vec<u8>) {
    let mut graph = Graph::new();
    let first = Edit::new().put_device(device(1), &named("desk")).put_device(device(2), &named("phone"));
    graph.edit(actor(1), first).unwrap().unwrap();
    graph.edit(actor(1), Edit::new().put_setting("theme", b"dark".to_vec())).unwrap().unwrap();
    let third = Edit::new().put_device(device(1), &named("tower")).remove_device(device(2)).put_mapping(
        OBJECT,
        device(1),
        &Mapping { mode: 0 },
    );
    let bytes = graph.clone().edit(actor(1), third).unwrap().unwrap();
    (graph, bytes)
}

fn try_apply(graph: &mut Graph, bytes: &[u8]) -> Result<Vec<GraphEvent>, ChangeError> {
    graph.apply(Signed { actor: actor(1), seq: 3, bytes })
}

#[test]
fn the_first_change_is_part_of_the_format() {
    let first = schema::first_change();
    assert_eq!(hex(first.raw_bytes()), FIRST);
    assert_eq!(first.hash(), Change::try_from(first.raw_bytes()).unwrap().hash());
    assert_eq!(Graph::new().heads(), [first.hash().0]);
    for map in Map::ALL {
        assert_eq!(Graph::new().document.object_type(map.id()).unwrap(), automerge::ObjType::Map);
    }
}

const FIRST: &str = "856f4a8336b70998016500200000000000000000000000000000000000000000000000000000000000000000010100\
    000005152c34014202560270027b0764657669636573086d617070696e6773076f626a656374730873657474696e677308636f6e746163747305050005000500";

#[test]
fn views_show_what_was_entered() {
    let mut graph = Graph::new();
    let folder = Object { kind: 1, title: "Holiday".into(), owner: MeshId([3; 32]) };
    let edit = Edit::new()
        .put_device(device(1), &named("desk"))
        .put_object(OBJECT, &folder)
        .put_mapping(OBJECT, device(1), &Mapping { mode: 0 })
        .put_mapping(ObjectId([8; 32]), device(1), &Mapping { mode: 1 })
        .put_setting("theme", b"dark".to_vec());
    assert!(graph.edit(actor(1), edit.clone()).unwrap().is_some());
    assert_eq!(graph.edit(actor(1), edit).unwrap(), None, "the same again is nothing");
    assert_eq!(graph.edit(actor(1), Edit::new().remove_device(device(7))).unwrap(), None);
    assert_eq!(graph.devices(), BTreeMap::from([(device(1), named("desk"))]));
    assert_eq!(graph.objects(), BTreeMap::from([(OBJECT, folder)]));
    assert_eq!(graph.mappings(OBJECT), BTreeMap::from([(device(1), Mapping { mode: 0 })]));
    assert_eq!(graph.setting("theme").as_deref(), Some(&b"dark"[..]));
    assert_eq!((graph.setting("colour"), graph.seq(actor(1)), graph.seq(actor(2))), (None, 1, 0));
    assert!(graph.edit(actor(1), Edit::new().remove_device(device(1))).unwrap().is_some());
    assert!(graph.devices().is_empty());
}

#[test]
fn ill_typed_entries_are_kept_but_not_shown() {
    let mut graph = Graph::new();
    let mut edit = Edit::new().put_device(device(1), &named("desk"));
    edit.0.insert((Map::Devices, "nobody".into()), Some(vec![1]));
    edit.0.insert((Map::Devices, device(2).to_string()), Some(vec![0xff]));
    edit.0.insert((Map::Devices, device(0xab).to_string().to_uppercase()), Some(codec::encode(&named("twin"))));
    let bytes = graph.edit(actor(1), edit).unwrap().unwrap();
    assert_eq!(graph.devices().len(), 1);
    let mut other = Graph::new();
    let events = other.apply(Signed { actor: actor(1), seq: 1, bytes: &bytes }).unwrap();
    assert_eq!(events, [GraphEvent::Device(device(1)), GraphEvent::Device(device(2))]);
}

#[test]
fn concurrent_values_show_the_same_everywhere() {
    let (mut left, mut right) = (Graph::new(), Graph::new());
    let a = left.edit(actor(1), Edit::new().put_device(device(1), &named("a"))).unwrap().unwrap();
    let b = right.edit(actor(2), Edit::new().put_device(device(1), &named("b"))).unwrap().unwrap();
    left.apply(Signed { actor: actor(2), seq: 1, bytes: &b }).unwrap();
    right.apply(Signed { actor: actor(1), seq: 1, bytes: &a }).unwrap();
    assert_eq!((left.hash(), left.devices()), (right.hash(), right.devices()));
    let merged = left.edit(actor(1), Edit::new().put_device(device(1), &named("c"))).unwrap().unwrap();
    right.apply(Signed { actor: actor(1), seq: 2, bytes: &merged }).unwrap();
    assert_eq!(right.devices()[&device(1)].name, "c");
    let shown = right.devices();
    assert_eq!((right.hash(), shown), (left.hash(), left.devices()));
}

#[test]
fn bytes_are_the_same_on_every_replica_and_run() {
    assert_eq!(scene().1, scene().1);
    let (mut graph, bytes) = scene();
    let events = try_apply(&mut graph, &bytes).unwrap();
    assert_eq!(
        events,
        [GraphEvent::Device(device(1)), GraphEvent::Device(device(2)), GraphEvent::Mapping(OBJECT, device(1))]
    );
}

#[test]
fn changes_wait_for_what_they_build_on() {
    let mut source = Graph::new();
    let one = source.edit(actor(1), Edit::new().put_setting("a", vec![1])).unwrap().unwrap();
    let head = source.heads();
    let two = source.edit(actor(2), Edit::new().put_setting("b", vec![2])).unwrap().unwrap();
    let mut graph = Graph::new();
    let second = Signed { actor: actor(2), seq: 1, bytes: &two };
    assert_eq!(graph.apply(second), Err(ChangeError::Missing(head)));
    graph.apply(Signed { actor: actor(1), seq: 1, bytes: &one }).unwrap();
    graph.apply(second).unwrap();
    assert_eq!(graph.hash(), source.hash());
}

#[test]
fn a_full_graph_takes_overwrites_but_nothing_new() {
    let mut graph = Graph::new();
    let numbers: Vec<u32> = (0..20_000).collect();
    for part in numbers.chunks(limits::GRAPH_OPERATIONS) {
        let edit = part.iter().fold(Edit::new(), |edit, n| edit.put_setting(&format!("{n:05}"), vec![0]));
        graph.edit(actor(1), edit).unwrap();
    }
    assert_eq!(graph.edit(actor(1), Edit::new().put_setting("one more", vec![0])), Err(ChangeError::Full));
    assert!(graph.edit(actor(1), Edit::new().put_setting("00000", vec![1])).unwrap().is_some());
    assert!(graph.edit(actor(1), Edit::new().remove_setting("00001")).unwrap().is_some());
    assert!(graph.edit(actor(1), Edit::new().put_setting("one more", vec![0])).unwrap().is_some());
}

#[test]
fn more_heads_than_a_change_may_name() {
    let mut graph = Graph::new();
    let changes: Vec<_> = (0..70)
        .map(|n| (actor(n), Graph::new().edit(actor(n), Edit::new().put_setting("k", vec![n])).unwrap().unwrap()))
        .collect();
    for (actor, bytes) in &changes {
        graph.apply(Signed { actor: *actor, seq: 1, bytes }).unwrap();
    }
    assert_eq!(graph.heads().len(), 70);
    assert!(graph.edit(actor(69), Edit::new().put_setting("k", vec![200])).unwrap().is_some());
    assert_eq!(graph.heads().len(), 7);
}

/// Everything that happened among some replicas, in an order in which it can be applied.
#[derive(Debug, Clone)]
struct History(Vec<(u8, u64, Vec<u8>)>);

fn history(steps: &[(u8, u8, u8, u8)]) -> History {
    let mut replicas: Vec<Graph> = (0..3).map(|_| Graph::new()).collect();
    let mut all: Vec<(u8, u64, Vec<u8>)> = Vec::new();
    for (who, what, key, from) in steps.iter().copied() {
        let who = who % 3;
        let known = all.len().min(usize::from(from));
        let replica = &mut replicas[usize::from(who)];
        for (author, seq, bytes) in &all[..known] {
            let signed = Signed { actor: actor(*author), seq: *seq, bytes };
            if *seq == replica.seq(signed.actor) + 1 {
                replica.apply(signed).unwrap();
            }
        }
        let edit = match what % 4 {
            0 => Edit::new().put_device(device(key % 4), &named(&format!("{who}.{}", all.len()))),
            1 => Edit::new().remove_device(device(key % 4)),
            2 => {
                Edit::new().put_mapping(OBJECT, device(key % 4), &Mapping { mode: key }).put_setting("last", vec![key])
            }
            _ => Edit::new().put_setting("last", vec![key % 3]),
        };
        if let Some(bytes) = replica.edit(actor(who), edit).unwrap() {
            all.push((who, replica.seq(actor(who)), bytes));
        }
    }
    History(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn replicas_converge_in_any_order(
        steps in proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 1..25),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 25),
    ) {
        let History(all) = history(&steps);
        let signed: Vec<Signed<'_>> =
            all.iter().map(|(who, seq, bytes)| Signed { actor: actor(*who), seq: *seq, bytes }).collect();
        let mut straight = Graph::new();
        let whole: Vec<_> = all.iter().map(|(who, _, bytes)| (actor(*who), bytes.clone())).collect();
        prop_assert!(straight.apply_all(&whole).iter().all(Result::is_ok));
        let (mut mixed, mut left) = (Graph::new(), signed.clone());
        while !left.is_empty() {
            // Some change can always be applied; the others are refused without a trace.
            let start = order[left.len() % order.len()].index(left.len());
            let count = left.len();
            let at = (0..count).map(|n| (start + n) % count).find(|at| {
                let before = mixed.hash();
                let done = mixed.apply(left[*at]).is_ok();
                assert!(done || mixed.hash() == before);
                done
            });
            left.remove(at.expect("one can be applied"));
        }
        prop_assert_eq!(mixed.hash(), straight.hash());
        prop_assert_eq!(mixed.devices(), straight.devices());
        prop_assert_eq!(mixed.mappings(OBJECT), straight.mappings(OBJECT));
        prop_assert_eq!(mixed.setting("last"), straight.setting("last"));
        let document = |graph: &Graph| graph.document.hydrate(None);
        prop_assert_eq!(document(&mixed), document(&straight));
    }
}
