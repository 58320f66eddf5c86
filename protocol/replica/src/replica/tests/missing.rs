//! Versions whose only holder is lost.

use meshwork_protocol::id::{ChunkId, ContentId, DirId};

use super::{devices::disk, *};
use crate::{
    feed::{Dot, FileKind, FileValue, Manifest},
    folder::{State, observed::Seen},
};

/// A file of which no device has the bytes.
fn lost() -> FileValue {
    let manifest = Manifest::Paged { average_log2: 16, root: ChunkId([5; 32]), chunks: 1 };
    let (file, kind, unknown) = (FileId([0; 16]), FileKind::Regular { manifest }, Default::default());
    FileValue { file, kind, content: ContentId([5; 32]), size: 1, modified_ns: 0, executable: false, unknown }
}

fn batch(value: FileValue, base: &[Dot]) -> Vec<u8> {
    let key = Key { dir: DirId::ROOT, name: Name::try_from("note").unwrap() };
    encode(&[NewOperation { key, value: Value::File(value), base: base.to_vec(), former: Vec::new() }]).unwrap()
}

/// What the name shows on a device: the texts of links, `?` for a file.
fn shown(scene: &Scene, node: usize) -> BTreeSet<String> {
    let feed = scene.nodes[node].replica.folder(scene.folder).unwrap().feed();
    let files = feed.lookup(DirId::ROOT, b"note").iter().filter_map(|operation| operation.value.file());
    let text = |target: &[u8]| String::from_utf8_lossy(target).into_owned();
    files.map(|file| file.symlink_target().map_or("?".to_owned(), text)).collect()
}

/// Case: the only device that had a version is lost. Another one lets go of it: the name has what it had before, or
/// what else there is, or nothing.
#[test]
fn what_nobody_has_is_let_go_of() {
    for (before, over, expected) in [(false, false, &[][..]), (true, true, &["old"]), (true, false, &["old"])] {
        let mut scene = Scene::new();
        let (folder, attacker) = (scene.folder, scene.device(ATTACKER));
        scene.ask(VICTIM, |replica, rng| replica.map_folder(rng, folder)).unwrap();
        let old = (Name::try_from("note").unwrap(), Seen::Symlink { target: b"old".to_vec() });
        for _ in 0..2 {
            disk(&mut scene, VICTIM, before.then(|| old.clone()).into_iter().collect());
        }
        let feed = scene.nodes[ATTACKER].replica.folder(folder).unwrap().feed();
        let base: Vec<Dot> = feed.lookup(DirId::ROOT, b"note").iter().map(|operation| operation.dot).collect();
        assert_eq!(scene.victim().missing(folder), []);
        scene.author(ATTACKER, &batch(lost(), if over { &base } else { &[] }));

        let missing = scene.victim().missing(folder);
        let [only] = &missing[..] else { panic!("{missing:?}") };
        assert_eq!((only.device, only.file.content), (attacker, lost().content));
        assert!(matches!(scene.victim().folder(folder).unwrap().state(), State::Syncing { .. }));
        let now = scene.now;
        let elsewhere = [vec![Name::try_from("other").unwrap()]];
        let none = scene.nodes[VICTIM].replica.let_go(now, &mut scene.rng, folder, &elsewhere).unwrap();
        assert!(none.0.is_empty() && none.1.is_empty());
        let path = [only.path.clone()];
        scene.ask(VICTIM, |replica, rng| replica.let_go(now, rng, folder, &path).map(|(_, out)| out)).unwrap();

        assert_eq!(scene.victim().missing(folder), []);
        assert_eq!(scene.victim().folder(folder).unwrap().state(), State::Idle, "before {before} over {over}");
        let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        for node in [VICTIM, ATTACKER, OTHER] {
            assert_eq!(shown(&scene, node), expected, "before {before} over {over}");
        }
        scene.assert_digests();
    }
}

impl Scene {
    fn assert_digests(&self) {
        let digests: BTreeSet<_> = self.nodes.iter().map(|node| node.replica.digest()).collect();
        assert_eq!(digests.len(), 1);
    }
}
