//! Changes of the graph: what a member can sign reaches the gate before automerge, checksum and all.

use std::sync::OnceLock;

use meshwork_protocol::id::{DeviceId, Incarnation, MeshId, ObjectId};
use meshwork_replica::graph::{Device, Edit, Graph, GraphActor, Mapping, Object, Signed};
use sha2::{Digest as _, Sha256};

use super::program::{Program, part};

const OBJECT: ObjectId = ObjectId([9; 32]);
const CHECKSUM: std::ops::Range<usize> = 4..8;

fn actor(number: u8) -> GraphActor {
    GraphActor::new(DeviceId([number; 32]), OBJECT, Incarnation([0; 8]))
}

fn device(number: u8, name: &str) -> (DeviceId, Device) {
    (DeviceId([number; 32]), Device { name: name.to_owned(), kind: 0 })
}

/// Sets the checksum right: the first four bytes of the hash of all that follows.
pub(super) fn mend(change: &mut [u8]) {
    if let Some((head, content)) = change.split_at_mut_checked(CHECKSUM.end) {
        head[CHECKSUM].copy_from_slice(&Sha256::digest(content)[..CHECKSUM.len()]);
    }
}

/// Two authors' changes, and of each one more that is not applied yet.
struct Scene {
    graph: Graph,
    honest: [Vec<u8>; 2],
}

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let mut graph = Graph::new();
        let edit = |graph: &mut Graph, author, edit| graph.edit(actor(author), edit).expect("an edit").expect("new");
        let ((desk, entry), (phone, other)) = (device(1, "desk"), device(2, "phone"));
        let mut far = graph.clone();
        edit(&mut graph, 1, Edit::new().put_device(desk, &entry).put_device(phone, &other));
        edit(&mut graph, 1, Edit::new().put_setting("theme", b"dark".to_vec()));
        let meanwhile = edit(&mut far, 2, Edit::new().put_device(desk, &other).put_setting("theme", Vec::new()));
        graph.apply(Signed { actor: actor(2), seq: 1, bytes: &meanwhile }).expect("written apart");
        let next =
            Edit::new().put_device(desk, &entry).remove_device(phone).put_mapping(OBJECT, desk, &Mapping { mode: 0 });
        let folder = Object { kind: 1, title: "files".to_owned(), owner: MeshId([8; 32]) };
        let last = Edit::new().put_object(OBJECT, &folder).remove_setting("theme").put_setting("é", vec![7; 40]);
        let honest = [edit(&mut graph.clone(), 1, next), edit(&mut graph.clone(), 2, last)];
        Scene { graph, honest }
    })
}

/// Changes of either author, one after another, on top of the scene.
pub(super) fn run(bytes: &[u8]) -> bool {
    let mut program = Program::new(bytes);
    let mut graph = scene().graph.clone();
    let mut taken = Vec::new();
    while !program.is_over() && taken.len() < 4 {
        let author = 1 + program.below(2) as u8;
        let mut change = program.part().to_vec();
        if !program.once_in(8) {
            mend(&mut change);
        }
        let (actor, before) = (actor(author), graph.hash());
        let seq = graph.seq(actor) + 1;
        if graph.apply(Signed { actor, seq, bytes: &change }).is_ok() {
            assert_eq!(graph.seq(actor), seq, "one change is one");
            taken.push((actor, change));
        } else {
            assert_eq!(graph.hash(), before, "what is refused changes nothing");
            break;
        }
    }
    let mut other = scene().graph.clone();
    assert!(other.apply_all(&taken).iter().all(Result::is_ok), "all at once is one by one");
    assert_eq!(other.hash(), graph.hash());
    let shown = |graph: &Graph| (graph.devices(), graph.objects(), graph.mappings(OBJECT), graph.setting("theme"));
    assert_eq!(shown(&other), shown(&graph), "the same changes show the same");
    let (desk, entry) = device(1, "what is honest still goes in");
    assert!(matches!(graph.edit(actor(1), Edit::new().put_device(desk, &entry)), Ok(Some(_))));
    assert_eq!(graph.devices().get(&desk), Some(&entry));
    !taken.is_empty()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let [first, second] = scene().honest.each_ref().map(|change| part(change));
    let one = [&[0], first.as_slice(), &[0]].concat();
    let two = [&[1], second.as_slice(), &[0]].concat();
    let both = [one.as_slice(), &two].concat();
    vec![one, two, both]
}
